/*
 * A directory of WAL segments, written by one receiver.
 *
 * The caller's thread writes; a thread of the store (syncer.h) makes durable what was written, gives finished segments
 * their final names, and makes the file of the next segment before it is needed.  Who has much to catch up with can let
 * another thread write, past the page cache (bulk.h).  Positions only grow:
 *
 *     position >= written >= synced
 *
 * `position` is what was taken: the next byte that is expected.  It is `written`, but where a thread writes.
 * `synced` covers data, file size and the directory entry.  Bytes that a segment file already holds from an earlier run
 * are compared with what comes again and not written again: what was once acknowledged is never rewritten, truncated,
 * zeroed, or replaced by WAL of another history (PGR_E_DATA).  A failed write or sync is final: the store refuses
 * everything after it (an fsync is never retried on the same file).  A failure of the store's thread is returned by the
 * next call.
 *
 * One thread at a time, but for pgr_walstore_written, _synced and _is_failed, which any thread may call.
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
	bool inline_sync;    /* no thread: what is durable is so when the call returns that asked for it */
	/*
	 * Called for each complete segment when its final name is durable (with sync; otherwise when it has it) and the
	 * store will not look at the file again, in the order of the WAL, in the store's or the caller's thread.  It
	 * must not wait for the disk.  NULL: none.
	 */
	void (*finished)(void *arg, const char *name);
	void *finished_arg;
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
 * Appends `len` bytes of WAL that stand at `lsn`, which must be the position.  Opens and changes segments as the bytes
 * cross their ends.  A segment that becomes complete is made durable (sync, rename, directory sync, .done) without
 * being asked.  PGR_MORE: too much waits for the disk; some of the bytes may have been taken, see
 * pgr_walstore_position, and the rest can be when the wake function was called.
 */
int pgr_walstore_write(struct pgr_walstore *s, pgr_lsn lsn, const void *data, size_t len,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether there is so much to come that nobody waits for the single bytes: from the next new segment on a thread
 * writes, in blocks of 1 MiB, where the file system takes writes past the page cache.  Switched off, this call returns
 * when everything is written.
 */
int pgr_walstore_set_bulk(struct pgr_walstore *s, bool bulk, struct pgr_err *err) PGR_MUST_USE;

/*
 * Asks that everything taken so far be made durable, and does not wait for that (though for a thread that writes).
 * Requests that come while a sync runs are served together by the next one.  With `here` it may be done by this call
 * (see pgr_syncer_request).
 */
int pgr_walstore_request_sync(struct pgr_walstore *s, bool here, struct pgr_err *err) PGR_MUST_USE;

/* Makes everything taken durable. */
int pgr_walstore_sync(struct pgr_walstore *s, struct pgr_err *err) PGR_MUST_USE;

/* PGR_ERR when the store has failed. */
int pgr_walstore_check(struct pgr_walstore *s, struct pgr_err *err) PGR_MUST_USE;

/*
 * `fn` is called in the store's thread when `synced` has moved, when a write that returned PGR_MORE may go on, and when
 * something has failed.  It may only wake somebody.  NULL: no more calls, and none is under way.
 */
void pgr_walstore_set_wake(struct pgr_walstore *s, void (*fn)(void *arg), void *arg);

/*
 * Waits until all that was taken is durable, and closes the open segment.  With `finish`, an unfinished segment takes
 * its final name (the rest is zeros): the end of a base backup's WAL.  Otherwise it stays .partial, to be continued
 * later.
 */
int pgr_walstore_close_segment(struct pgr_walstore *s, bool finish, struct pgr_err *err) PGR_MUST_USE;

/* Writes <tli>.history durably (tmp, fsync, rename, fsync of the directory), and its .done.  An equal one is left
 * alone. */
int pgr_walstore_put_history(struct pgr_walstore *s, pgr_tli tli, const char *content, size_t len,
			     struct pgr_err *err) PGR_MUST_USE;

/* Whether <tli>.history is there. */
int pgr_walstore_has_history(struct pgr_walstore *s, pgr_tli tli, bool *has, struct pgr_err *err) PGR_MUST_USE;

/* Whether a failed write or sync has made the store refuse everything.  A segment that could not be allocated (a full
 * disk) does not: the same write may be tried again, from the position on. */
bool pgr_walstore_is_failed(const struct pgr_walstore *s);

/* Whether something was refused because the directory holds WAL, or a history file, of another history. */
bool pgr_walstore_is_forked(const struct pgr_walstore *s);

pgr_lsn pgr_walstore_position(const struct pgr_walstore *s);
pgr_lsn pgr_walstore_written(const struct pgr_walstore *s);
pgr_lsn pgr_walstore_synced(const struct pgr_walstore *s);

/* The name of the open segment's file, when its turn has come (pgr_segfile_waiting_name); "": none is open. */
const char *pgr_walstore_open_name(const struct pgr_walstore *s);

#endif
