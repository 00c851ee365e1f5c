/*
 * Bytes of files: all of them, whatever a single call moves.
 *
 * Failures of the system are PGR_E_SYSTEM and name the file.
 */
#ifndef PGR_COMMON_FS_IO_H
#define PGR_COMMON_FS_IO_H

#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

/*
 * Writes all of buf at `off`, or at the file's position; short writes and EINTR are gone on with.  A write of no bytes
 * at all is ENOSPC.  `name` is for the message.
 */
int pgr_fs_pwrite_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off, const char *name,
		      struct pgr_err *err) PGR_MUST_USE;
int pgr_fs_write_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *name,
		     struct pgr_err *err) PGR_MUST_USE;

/* pgr_fs_write_all of the file `name` in the directory `where`, both for the message (see fs_call.h). */
int pgr_fs_write_all_in(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *where,
			const char *name, struct pgr_err *err) PGR_MUST_USE;

/*
 * Reads a whole regular file below dirfd (last component not followed if it is a link) into a malloc'd, NUL-terminated
 * buffer that the caller frees; *len does not count the NUL.  PGR_MORE: it does not exist.  PGR_E_DATA: it has more
 * than `limit` bytes, or is something else than a file.  `where` is the directory's name for messages.
 */
int pgr_fs_read_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, size_t limit,
		     char **data, size_t *len, struct pgr_err *err) PGR_MUST_USE;

#endif
