/*
 * The WAL that a base backup needs, streamed while it runs (-X stream): a connection and a thread of its own, into
 * pg_wal.
 *
 * The connection is made, and the slot created, before the backup starts, so that no WAL that it needs can be removed
 * meanwhile, and so that a missing permission or a full max_wal_senders is known before the server runs a checkpoint
 * for us.  The thread does both, beside what else is done before the backup starts, and keeps the idle connection alive
 * until the start position is known.
 *
 * A connection that is lost is made again (pgr_wal_conn_may_retry says after which errors), at growing intervals, and
 * streaming goes on at the start of the segment that was open.  It fails when nothing was gained for PGR_WAL_RETRY_MS:
 * neither WAL that was not there before, nor a session of a minute that came as far as the one before.  WAL that the
 * server has removed meanwhile is an error at once, and so is a server that shuts down.
 */
#ifndef PGR_BACKUP_WAL_STREAM_H
#define PGR_BACKUP_WAL_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_stop;
struct pgr_sys;
struct pgr_wal_stream;

#define PGR_WAL_RETRY_MS 300000

struct pgr_wal_stream_opts {
	const char *slot;    /* a permanent slot; NULL */
	bool create_slot;    /* create it (RESERVE_WAL) */
	bool slot_may_exist; /* with create_slot: one of this name is used instead */
	bool temporary_slot; /* make a temporary one where the server can (ignored with `slot`) */
	int64_t status_interval_ms;
	void (*info)(void *arg, const char *line);    /* may be called from the thread; NULL */
	void (*warning)(void *arg, const char *line); /* likewise */
	pgr_notice_fn *notice;
	void *arg;

	/* for tests */
	int64_t ping_ms;	/* how often an idle connection is used before the start; 0: 10 s */
	int64_t retry_first_ms; /* the first wait before a lost connection is made again; 0: half a second */
	/* How a connection is made, with `arg`; NULL: pgr_transport_open. */
	int (*connect)(void *arg, struct pgr_client **out, struct pgr_err *err);
};

/*
 * Starts the thread, which connects.  A temporary slot is made at once, a permanent one that must exist looked at; what
 * is wrong with any of that is told by pgr_wal_stream_open.  The strings of `opts` and the password in `params` are
 * copied; `params` may be used for other connections and changed meanwhile, what they point to outlives the stream.
 * Nobody is asked for a password.
 */
int pgr_wal_stream_connect(struct pgr_wal_stream **out, const struct pgr_wal_stream_opts *opts,
			   const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop,
			   struct pgr_err *err) PGR_MUST_USE;

/*
 * After that, once, when the cluster is known that the base backup's connection talks to: waits until the stream's
 * connection is there and was found to lead to the same, and until a permanent slot was made.
 */
int pgr_wal_stream_open(struct pgr_wal_stream *w, const char *system_identifier, struct pgr_err *err) PGR_MUST_USE;

struct pgr_wal_stream_dir {
	const char *name; /* pg_wal's name in messages */
	uint32_t segment_bytes;
	mode_t file_mode;
	bool sync;
};

/* Before pgr_wal_stream_start.  `dirfd` (the open pg_wal with its archive_status) is taken over, also after a failure.
 */
int pgr_wal_stream_set_dir(struct pgr_wal_stream *w, int dirfd, const struct pgr_wal_stream_dir *dir,
			   struct pgr_err *err) PGR_MUST_USE;

/* Starts streaming at the segment of `start`.  A failure of the thread is posted to the stop latch. */
void pgr_wal_stream_start(struct pgr_wal_stream *w, pgr_lsn start, pgr_tli tli);

/*
 * The WAL is wanted up to `end`: for who knows that before there is time for pgr_wal_stream_finish.  Each moment
 * earlier spares bytes, since the server sends the rest of the segment, which is empty, until we say no.
 */
void pgr_wal_stream_end_at(struct pgr_wal_stream *w, pgr_lsn end);

/* Waits until everything before `end` is there and durable, and joins the thread.  The thread's error otherwise. */
int pgr_wal_stream_finish(struct pgr_wal_stream *w, pgr_lsn end, struct pgr_err *err) PGR_MUST_USE;

/* Whether this stream created a permanent slot: not before pgr_wal_stream_open. */
bool pgr_wal_stream_made_slot(const struct pgr_wal_stream *w);

/* How far WAL is durable; 0 before the start.  Any thread. */
pgr_lsn pgr_wal_stream_synced(const struct pgr_wal_stream *w);

/* The timeline that the stream has come to.  Any thread. */
pgr_tli pgr_wal_stream_tli(const struct pgr_wal_stream *w);

/* Stops and joins the thread when it still runs, closes the connection.  A connection that is being made again at this
 * moment is waited for, unless the stop latch is set.  NULL is allowed. */
void pgr_wal_stream_free(struct pgr_wal_stream *w);

#endif
