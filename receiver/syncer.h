/*
 * Everything about durability that one receiver's segments need, in a thread of its own.
 *
 * The owner (one thread) writes into the open segment and says how far; the syncer syncs, gives finished segments their
 * final names, syncs the directory, and only then publishes `synced`.  Segments become durable in their order.
 *
 *     written >= synced                    always; synced covers data, file sizes, and the directory's entries, and
 *                                          passes the end of a segment only when that has its final name
 *
 * Requests that come while a sync runs are served together by the next one.  A segment whose name is due
 * (pgr_segfile_take_name) takes it when those before it have their final ones.  When nothing else is due the file of
 * the next segment is made (PGR_SEGFILE_AHEAD), so that the owner only has to rename it.
 *
 * The first failure, of the syncer or of the owner, is final: nothing is synced, renamed or published after it, since
 * an fsync that is asked again says that all is well.  Only a file that could not be made ahead is none.
 *
 * With `threaded` false the same is done by the calls that ask for it, before they return; no file is made ahead.
 */
#ifndef PGR_RECEIVER_SYNCER_H
#define PGR_RECEIVER_SYNCER_H

#include <stdbool.h>

#include "common/err.h"
#include "common/lsn.h"
#include "receiver/segfile.h"

struct pgr_syncer;

/* Finished segments that may wait for the syncer. */
#define PGR_SYNCER_QUEUE 4

/* `dir` outlives the syncer. */
int pgr_syncer_new(struct pgr_syncer **out, const struct pgr_waldir *dir, bool threaded,
		   struct pgr_err *err) PGR_MUST_USE;

/* Ends the thread after what it does at the moment, closes what is open, removes what was made ahead.  NULL is allowed.
 */
void pgr_syncer_free(struct pgr_syncer *s);

/*
 * `fn` is called by the syncer's thread whenever `synced` has moved, room has come, or something has failed; with a
 * lock held, so it may do nothing but wake somebody.  After a call with NULL it is not called any more.
 */
void pgr_syncer_set_wake(struct pgr_syncer *s, void (*fn)(void *arg), void *arg);

/* ---- any thread ---- */

pgr_lsn pgr_syncer_written(const struct pgr_syncer *s);
pgr_lsn pgr_syncer_synced(const struct pgr_syncer *s);
bool pgr_syncer_is_failed(const struct pgr_syncer *s);

/* ---- the owner ---- */

/* PGR_ERR when something has failed: the first time what it was, later with words in front. */
int pgr_syncer_check(struct pgr_syncer *s, struct pgr_err *err) PGR_MUST_USE;

/* The owner's failure to write, which *err tells and the caller returns.  Always PGR_ERR. */
int pgr_syncer_fail(struct pgr_syncer *s, const struct pgr_err *err);

/* Where it stands from now on, all before it being durable; no segment is there. */
void pgr_syncer_reset(struct pgr_syncer *s, pgr_lsn lsn);

/* Whether a segment that was handed over has not taken its final name yet, or is open. */
bool pgr_syncer_has_segments(struct pgr_syncer *s);

/* Whether another segment may be opened.  When not: the wake function is called when one may. */
bool pgr_syncer_has_room(struct pgr_syncer *s);

/* The file made ahead is the caller's now.  PGR_MORE: there is none. */
int pgr_syncer_take_ahead(struct pgr_syncer *s, struct pgr_segfile *f) PGR_MUST_USE;

/* Removes it. */
void pgr_syncer_drop_ahead(struct pgr_syncer *s);

/* Hands over the open segment's file; its descriptor may be written to until pgr_syncer_finish or pgr_syncer_detach. */
void pgr_syncer_open(struct pgr_syncer *s, const struct pgr_segfile *f);

/* The open segment holds everything before `lsn`, which is not its end. */
void pgr_syncer_wrote(struct pgr_syncer *s, pgr_lsn lsn);

/* The open segment is complete and ends at `lsn`. */
int pgr_syncer_finish(struct pgr_syncer *s, pgr_lsn lsn, struct pgr_err *err) PGR_MUST_USE;

/*
 * Where another thread writes what the owner gives it (bulk.h): the open segment will be complete and end at `lsn` when
 * pgr_syncer_wrote_behind has said so.  That may be called by any thread: everything before `lsn` is written, or, with
 * `failed`, nothing more will be; the wake function is called.
 */
void pgr_syncer_finish_behind(struct pgr_syncer *s, pgr_lsn lsn);
void pgr_syncer_wrote_behind(struct pgr_syncer *s, pgr_lsn lsn, const struct pgr_err *failed);

/*
 * Everything written shall be made durable; does not wait.  With `here` it is done by this call when no sync is under
 * way and there is only the open segment: on a disk whose syncs are quick that is quicker than to wake up another
 * thread.  The wake function is then not called.  PGR_ERR: as pgr_syncer_check.
 */
int pgr_syncer_request(struct pgr_syncer *s, bool here, struct pgr_err *err) PGR_MUST_USE;

/* The same, and waits for it. */
int pgr_syncer_wait(struct pgr_syncer *s, struct pgr_err *err) PGR_MUST_USE;

/* Gives the open segment's file back (f->fd is -1: none was open).  After a failure the finished ones are closed. */
void pgr_syncer_detach(struct pgr_syncer *s, struct pgr_segfile *f);

#endif
