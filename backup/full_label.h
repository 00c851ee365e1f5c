/*
 * The backup_label of an incremental backup, for a copy that was put together from it.
 *
 * Source: PostgreSQL src/backend/access/transam/xlogbackup.c (build_backup_content).
 */
#ifndef PGR_BACKUP_FULL_LABEL_H
#define PGR_BACKUP_FULL_LABEL_H

#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

/*
 * Appends the label to `out` without the lines that make it one of an incremental backup ("INCREMENTAL FROM LSN",
 * "INCREMENTAL FROM TLI"): a server refuses to start from such a one.
 */
int pgr_full_label(struct pgr_buf *out, const void *text, size_t len, struct pgr_err *err) PGR_MUST_USE;

#endif
