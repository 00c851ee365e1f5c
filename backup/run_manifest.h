/* The manifest that a run writes itself, where the server sends none or not of these files.  Internal to backup/. */
#ifndef PGR_BACKUP_RUN_MANIFEST_H
#define PGR_BACKUP_RUN_MANIFEST_H

#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct pgr_buf;
struct pgr_history;
struct pgr_manifest_writer;
struct pgr_run;

/* Adds files, then WAL. */
typedef int pgr_run_manifest_fill(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err);

/* Writes PGR_MANIFEST_TMP into the sink, with what `fill` adds. */
int pgr_run_manifest_write(struct pgr_run *r, pgr_run_manifest_fill *fill, struct pgr_err *err) PGR_MUST_USE;

/* A file whose content is at hand; `mtime` in seconds since 1970 UTC. */
int pgr_run_manifest_add_own(struct pgr_manifest_writer *w, const char *path, const struct pgr_buf *content,
			     int64_t mtime, enum pgr_digest_algo algo, struct pgr_err *err) PGR_MUST_USE;

/*
 * The WAL from r->start on r->start_tli to r->end, each timeline of `h`, the last of which is that of the end.
 * PGR_E_DATA: the timeline of the start is not in it.
 */
int pgr_run_manifest_add_wal(const struct pgr_run *r, struct pgr_manifest_writer *w, const struct pgr_history *h,
			     struct pgr_err *err) PGR_MUST_USE;

#endif
