/*
 * The end of a seed: from "all bytes were written" to "this directory is a backup".
 *
 * The order is what keeps an unfinished directory from ever starting: directories synced, then global/pg_control, then
 * the rename of the manifest, each durable before the next.
 */
#ifndef PGR_BACKUP_FINISH_H
#define PGR_BACKUP_FINISH_H

#include <stdbool.h>

#include "backup/basebackup.h"
#include "common/buf.h"
#include "common/err.h"

struct pgr_layout;
struct pgr_sys;

#define PGR_MANIFEST_NAME "backup_manifest"
#define PGR_MANIFEST_TMP  "backup_manifest.tmp"

/* Makes everything below the layout's roots durable; files were synced by their writers already unless the method is
 * syncfs. */
int pgr_finish_sync(struct pgr_layout *l, enum pgr_sync_method method, struct pgr_err *err) PGR_MUST_USE;

/* Writes global/pg_control from what the server sent: durably when `sync`. */
int pgr_finish_control(const struct pgr_sys *sys, struct pgr_layout *l, const struct pgr_buf *control, bool sync,
		       struct pgr_err *err) PGR_MUST_USE;

/* backup_manifest.tmp becomes backup_manifest: the commit point. */
int pgr_finish_manifest(const struct pgr_sys *sys, struct pgr_layout *l, bool sync, struct pgr_err *err) PGR_MUST_USE;

#endif
