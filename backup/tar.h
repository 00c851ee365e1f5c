/*
 * Reading the tar archives that a PostgreSQL server makes: POSIX ustar, names of at most 99 bytes (or prefix and name),
 * sizes in octal or base-256.  Hostile-proof: a header is checked (checksum, magic, type, name, sizes) before anything
 * is made of it.
 *
 * Source: POSIX.1-1988 "ustar Interchange Format"; src/port/tar.c; src/fe_utils/astreamer_tar.c.
 */
#ifndef PGR_BACKUP_TAR_H
#define PGR_BACKUP_TAR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "backup/source.h"
#include "common/err.h"

#define PGR_TAR_BLOCK 512u

enum pgr_tar_type { PGR_TAR_FILE, PGR_TAR_DIR, PGR_TAR_SYMLINK };

struct pgr_tar_member {
	enum pgr_tar_type type;
	char name[257]; /* safe (pgr_path_is_safe), without trailing slash; "." for the archive's own directory never
			   occurs */
	char link[101]; /* target of a symlink, as sent, without trailing slash */
	mode_t mode;	/* permission bits, 07777 at most */
	uint64_t size;	/* of a file; 0 otherwise */
	int64_t mtime;
};

/*
 * Decodes one header block.  PGR_MORE: a block of zeros.  PGR_E_DATA: wrong checksum, unknown type ('0' NUL '5' '2' are
 * known), an unsafe name, a pax or GNU extension, an impossible size; the message names the member where its name is
 * printable.
 */
int pgr_tar_decode(const uint8_t block[PGR_TAR_BLOCK], struct pgr_tar_member *m, struct pgr_err *err) PGR_MUST_USE;

/* Reads members one after the other.  Valid when initialised with the source; needs no fini. */
struct pgr_tar_reader {
	struct pgr_source *source;
	const char *archive;	       /* name for messages */
	bool terminated;	       /* two blocks of zeros are required at the end; otherwise they are allowed */
	uint64_t left;		       /* bytes of the present member's data not read yet */
	unsigned padding;	       /* after them */
	uint8_t header[PGR_TAR_BLOCK]; /* of the present member, as it came */
};
void pgr_tar_reader_init(struct pgr_tar_reader *t, struct pgr_source *source, const char *archive, bool terminated);

/* The next member, after skipping what is left of the present one.  PGR_MORE: the archive ended in good order. */
int pgr_tar_next(struct pgr_tar_reader *t, struct pgr_tar_member *m, struct pgr_err *err) PGR_MUST_USE;

/* Reads 1..cap bytes of the present member's data straight into dst; *n == 0 at its end.  An archive that ends here is
 * PGR_E_DATA. */
int pgr_tar_read(struct pgr_tar_reader *t, void *dst, size_t cap, size_t *n, struct pgr_err *err) PGR_MUST_USE;

#endif
