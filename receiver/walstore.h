/*
 * A directory of WAL segments, written by one receiver.
 *
 * Owns the open segment and everything about durability.  Positions only grow:
 *
 *     written >= synced
 *
 * `synced` covers data, file size and the directory entry.  Bytes that a segment file already holds from an earlier run
 * are compared with what comes again and not written again: what was once acknowledged is never rewritten, truncated or
 * zeroed. A failed write or sync is final: the store refuses everything after it (an fsync is never retried on the same
 * file).
 *
 * Not thread-safe.
 */
#ifndef PGR_RECEIVER_WALSTORE_H
#define PGR_RECEIVER_WALSTORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;
struct pgr_walstore;

struct pgr_walstore_opts {
	const char *dir; /* name, for messages; copied */
	uint32_t segment_bytes;
	mode_t file_mode;    /* 0600 or 0640 */
	bool sync;	     /* false: --no-sync; written counts as synced */
	bool partial_suffix; /* an unfinished segment is called .partial (pgr-receivewal) */
	bool archive_status; /* write archive_status/<name>.done for finished files (pgr-basebackup) */
};

/* `dirfd` is taken over (also after a failure).  `sys` outlives the store. */
int pgr_walstore_new(struct pgr_walstore **out, const struct pgr_sys *sys, int dirfd,
		     const struct pgr_walstore_opts *opts, struct pgr_err *err) PGR_MUST_USE;

/* Closes without finishing the open segment (its file stays as it is). NULL is allowed. */
void pgr_walstore_free(struct pgr_walstore *s);

/*
 * Begins at `lsn` (start of a segment, or inside one whose file exists) on timeline `tli`.  Called once before the
 * first write and again after a timeline switch or reconnect, with no segment open.
 */
int pgr_walstore_begin(struct pgr_walstore *s, pgr_tli tli, pgr_lsn lsn, struct pgr_err *err) PGR_MUST_USE;

/*
 * Appends `len` bytes of WAL that stand at `lsn`, which must be the written position.  Opens, finishes (sync, rename,
 * directory sync, .done) and changes segments as the bytes cross their ends.  A segment that becomes complete is
 * durable when this returns.
 */
int pgr_walstore_write(struct pgr_walstore *s, pgr_lsn lsn, const void *data, size_t len,
		       struct pgr_err *err) PGR_MUST_USE;

/* Makes everything written durable. */
int pgr_walstore_sync(struct pgr_walstore *s, struct pgr_err *err) PGR_MUST_USE;

/*
 * Syncs and closes the open segment.  With `finish`, an unfinished segment takes its final name (the rest is zeros):
 * the end of a base backup's WAL.  Otherwise it stays .partial, to be continued later.
 */
int pgr_walstore_close_segment(struct pgr_walstore *s, bool finish, struct pgr_err *err) PGR_MUST_USE;

/* Writes <tli>.history durably (tmp, fsync, rename, fsync of the directory), and its .done.  An equal one is left
 * alone. */
int pgr_walstore_put_history(struct pgr_walstore *s, pgr_tli tli, const char *content, size_t len,
			     struct pgr_err *err) PGR_MUST_USE;

/* Whether <tli>.history is there. */
int pgr_walstore_has_history(struct pgr_walstore *s, pgr_tli tli, bool *has, struct pgr_err *err) PGR_MUST_USE;

/* Whether a failed write or sync has made the store refuse everything.  A segment that could not be allocated (a full
 * disk) does not: the same write may be tried again, from the written position on. */
bool pgr_walstore_is_failed(const struct pgr_walstore *s);

pgr_lsn pgr_walstore_written(const struct pgr_walstore *s);
pgr_lsn pgr_walstore_synced(const struct pgr_walstore *s);

/* The name of the open segment's file, or "" when none is open. */
const char *pgr_walstore_open_name(const struct pgr_walstore *s);

#endif
