/*
 * Lanes: N SQL sessions that read the files of a list, in parallel, into the dirsink.
 *
 * Big files are split into ranges, small ones travel many to a request; each lane has two requests on the way, and
 * takes the next piece of work when it has sent one, so that lanes end together.  A lane whose connection breaks is
 * opened again and its pieces are read again (up to a limit, with back-off); an administrator's termination (SQLSTATE
 * 57P01) is obeyed and ends the run.
 *
 * A file that is gone is left out; one that is shorter than when it was listed is filled up with zeros, one that is
 * longer is cut: as BASE_BACKUP does.  But BASE_BACKUP opens a file as soon as it has seen its size, and here hours may
 * lie in between: what is no relation, and so is mended by no WAL, has the length that it has when it is read (up to
 * 1 MiB; see pgr_lane_whole_bytes).
 *
 * With verify_transfer the server sends a digest of every row.  A row that does not have it is never written; the
 * connection is given up, and what is left is read over a new one, as after a loss: PGR_E_DATA, with the name of the
 * file, when that was done as often as a lost connection is opened again.
 *
 * With a plan, files that lie here are made equal to the server's in place: the server computes digests of their
 * chunks, the lane's thread meanwhile those of the same chunks here, and what differs is fetched.  A chunk stays only
 * when it was compared.  A file that has vanished on the server is removed here, too.
 */
#ifndef PGR_BACKUP_LANES_H
#define PGR_BACKUP_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_buf;
struct pgr_delta_plan;
struct pgr_dirsink;
struct pgr_filelist;
struct pgr_lane_sessions;
struct pgr_lanes;
struct pgr_layout;
struct pgr_pagecheck;
struct pgr_pool;
struct pgr_stop;
struct pgr_sys;

struct pgr_lanes_opts {
	unsigned jobs; /* lanes: 1 to 64 */
	const struct pgr_filelist *list;
	const struct pgr_delta_plan *plan; /* of this list; NULL: there is nothing here, all is fetched */
	bool compare_only;	   /* with a plan: fetches nothing and changes nothing; pool and sink may be NULL */
	struct pgr_layout *layout; /* directories of the list exist already (not with compare_only) */
	struct pgr_pool *pool;	   /* at least jobs + 2 blocks, of 128 KiB at least */
	struct pgr_dirsink *sink;
	struct pgr_conn_params *params; /* a session was opened with them before */
	const char *server_id; /* of that session (pgr_lanes_server_id): a lane must reach the same server; NULL: any */
	enum pgr_digest_algo digest; /* of the manifest; SHA keeps a file on one lane */
	struct pgr_pagecheck *pages; /* NULL: page checksums are not checked */
	bool verify_transfer;	     /* digests of the server, also in pgr_lanes_recheck */
	uint64_t max_rate_bytes;     /* a second, over all lanes; 0: unlimited */
	pgr_notice_fn *notice;
	void (*info)(void *arg, const char *line);    /* a lane that was opened again; NULL; from any thread */
	void (*on_file)(void *arg, const char *path); /* NULL; from any thread */
	void *arg;
	struct pgr_lane_sessions
		*sessions; /* of which there are `jobs`: each lane's first one; NULL: they are opened */
	/* How a session is opened; NULL: pgr_sql_open with `params` and `notice`. */
	int (*open_session)(void *arg, struct pgr_client **out, struct pgr_err *err);
};

/* Everything pointed to outlives the lanes, but the sink: see pgr_lanes_free. */
int pgr_lanes_new(struct pgr_lanes **out, const struct pgr_lanes_opts *opts, const struct pgr_sys *sys,
		  struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;

/*
 * Runs until every file of the list is posted to the sink and sealed, or something fails; once.  `tick` (NULL is
 * allowed) is called in this thread about five times a second (progress; is the coordinator still there?); its failure
 * ends the run.  What fails is posted to the stop latch, too; PGR_E_STOPPED: somebody else failed.  All threads have
 * ended when this returns.
 *
 * A server that has no room for all lanes gets fewer, if there is room for one.
 */
int pgr_lanes_run(struct pgr_lanes *l, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg,
		  struct pgr_err *err) PGR_MUST_USE;

/*
 * Frees.  Writers of the sink look at what is in here: the sink was drained in good order, or is freed before.  NULL is
 * allowed.
 */
void pgr_lanes_free(struct pgr_lanes *l);

/* Bytes of files received so far, or, with a plan, dealt with: received, found the same, or kept as they are; any
 * thread. */
uint64_t pgr_lanes_bytes(const struct pgr_lanes *l);

/* What a delta has done so far; with compare_only what it would do.  All bytes are of the files' contents. */
struct pgr_delta_figures {
	uint64_t compared;	/* bytes that were compared ... */
	uint64_t same;		/* ... and those of them that stay */
	uint64_t fetched;	/* bytes that came from the server, or would */
	uint64_t files_same;	/* compared, and left alone */
	uint64_t files_changed; /* compared, and something of them was fetched, or their size set */
	uint64_t files_new;	/* made anew */
	uint64_t files_gone;	/* vanished on the server since the list was made: removed here */
};

/* Any thread.  All 0 without a plan. */
void pgr_lanes_figures(const struct pgr_lanes *l, struct pgr_delta_figures *out);

/* Changes the rate while it runs (0: unlimited); any thread. */
void pgr_lanes_set_rate(struct pgr_lanes *l, uint64_t bytes_per_second);

/*
 * With a plan, after the sink was drained and pgr_lanes_recheck: reads, in `jobs` threads, the files whose checksum did
 * not come with their content: those that are kept (PGR_DELTA_KEEP), and where the manifest has SHA those that were
 * compared.  `tick` as in pgr_lanes_run.  Nothing is done without a plan.
 */
int pgr_lanes_sum_rest(struct pgr_lanes *l, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * After the sink was drained (and pgr_lanes_sum_rest): whether entry `i` of the list is here (a vanished file is not,
 * directories are none of ours), its size and its checksum.  PGR_ERR: the file is not complete, which it is after a
 * successful run and drain.  Not with compare_only.
 */
struct pgr_lane_result {
	bool copied;
	uint64_t size; /* the list's, but for a file that is kept or came as a whole */
	uint8_t sum[PGR_DIGEST_MAX];
	size_t sum_len;
};
int pgr_lanes_result(struct pgr_lanes *l, size_t i, struct pgr_lane_result *out, struct pgr_err *err) PGR_MUST_USE;

/*
 * After the sink was drained: reads the pages that the page check suspects again, through `client`, and reports those
 * that are bad as the server would: one WARNING a page, at most five a file, then one that says that there will not be
 * more, one with the file's total, and in the end one with the total of all.  *failures counts them all.
 *
 * A page that is good now, and was not changed since the backup began, came torn or damaged: it is put right in the
 * file (synced), whose checksum is computed anew, and `info` is told.
 */
int pgr_lanes_recheck(struct pgr_lanes *l, struct pgr_client *client, uint64_t *failures,
		      struct pgr_err *err) PGR_MUST_USE;

#endif
