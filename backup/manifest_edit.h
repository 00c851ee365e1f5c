/*
 * A server's manifest of a copy in which some files are not the server's: their entries are replaced.
 *
 * Source: PostgreSQL documentation, "Backup Manifest Format"; src/backend/backup/backup_manifest.c writes one entry a
 * line.
 */
#ifndef PGR_BACKUP_MANIFEST_EDIT_H
#define PGR_BACKUP_MANIFEST_EDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

struct pgr_manifest_edit {
	/* Whether the entry of this path goes. */
	bool (*drops)(void *arg, const char *path);
	void *arg;
	/* What comes instead: a manifest that has these files, as the manifest_writer makes it. */
	const char *more;
	size_t more_len;
};

/*
 * Appends the manifest `text` to `out` with the changes, and with its own checksum computed anew.  The text was looked
 * at before (pgr_manifest_done); PGR_E_DATA: it does not have one entry a line.
 */
int pgr_manifest_apply(const struct pgr_manifest_edit *e, const char *text, size_t len, struct pgr_buf *out,
		       struct pgr_err *err) PGR_MUST_USE;

#endif
