/*
 * Making tar headers as PostgreSQL makes them, for members that a client adds to an archive or changes in it.
 *
 * Source: POSIX.1-1988 "ustar Interchange Format"; src/port/tar.c, tarCreateHeader; src/fe_utils/astreamer_inject.c.
 */
#ifndef PGR_BACKUP_TAR_HEAD_H
#define PGR_BACKUP_TAR_HEAD_H

#include <stdint.h>
#include <sys/types.h>

#include "backup/tar.h"
#include "common/err.h"

/* What the two blocks of zeros at the end of an archive take. */
#define PGR_TAR_END_BYTES (2 * PGR_TAR_BLOCK)

/*
 * A regular file of the user "postgres".  `name` (not ending in a slash) has at most 99 bytes; PGR_E_DATA: "file name
 * too long for tar format".  `mtime` in seconds since 1970.
 */
int pgr_tar_head_file(uint8_t block[PGR_TAR_BLOCK], const char *name, mode_t mode, uint64_t size, int64_t mtime,
		      struct pgr_err *err) PGR_MUST_USE;

/* Changes the size in a header that pgr_tar_decode took. */
void pgr_tar_head_resize(uint8_t block[PGR_TAR_BLOCK], uint64_t size);

/* Zeros that follow `size` bytes of a member's content. */
unsigned pgr_tar_padding(uint64_t size);

#endif
