/*
 * The WAL stream: START_REPLICATION on a client into a walstore, over timelines, with status messages.
 *
 * Used by pgr-receivewal (its own process, for months) and by pgr-basebackup (a thread, up to the end of the backup).
 * One call runs until the stream ends; reconnecting is the caller's, who knows what is worth retrying.
 *
 *     received >= written >= synced >= reported flush       always
 *
 * Source: PostgreSQL documentation, "Streaming Replication Protocol", START_REPLICATION.
 */
#ifndef PGR_RECEIVER_RECEIVER_H
#define PGR_RECEIVER_RECEIVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_client;
struct pgr_sys;
struct pgr_walstore;
struct pgr_receiver;

enum pgr_receiver_end {
	PGR_RECV_STOPPED,	/* the stop position or a stop request was reached; all of it is durable */
	PGR_RECV_SERVER_CLOSED, /* the server ended the stream in good order (a clean shutdown) */
};

struct pgr_receiver_opts {
	const char *slot;      /* NULL: none; copied */
	const char *system_id; /* expected system identifier; NULL: not checked; copied */
	pgr_lsn start;	       /* rounded down to the start of its segment */
	pgr_tli tli;
	uint32_t segment_bytes;
	int64_t status_interval_ms; /* the first message comes at once; 0: none but those that are asked for */
	bool synchronous;	    /* make durable, and report, as soon as WAL is written */
	bool report_flush;	    /* send flush positions (a slot is used, or synchronous); otherwise 0 is sent */
	pgr_lsn stop_at;	    /* end when everything before this position is durable; 0: run on */
	bool stop_at_strict; /* stop only once a byte beyond stop_at was received or the server said that its WAL ends
				there (keepalive with wal_end >= stop_at) */
	/*
	 * The stop position will be told while it runs, soon after the server has switched to a new segment (a base
	 * backup).  Where the rest of a segment is empty behind a switch reading is held off for a second at most, so
	 * that the server does not send megabytes that nobody wants.
	 */
	bool stop_at_follows_switch;
	bool wait_for_space; /* when a new segment finds the disk full: wait for space, with the connection kept alive,
				instead of failing */
	/*
	 * What -v tells in pg_receivewal's words (level 0: where streaming starts and stops, each finished segment, a
	 * timeline switch), and warnings (level 1).  Called in the thread that runs; NULL: none.
	 */
	void (*log)(void *arg, int level, const char *line);
	void *log_arg;
};

/* `store` and `sys` outlive the receiver.  Positions and timeline are kept between runs, so that a second run goes on.
 */
int pgr_receiver_new(struct pgr_receiver **out, const struct pgr_sys *sys, struct pgr_walstore *store,
		     const struct pgr_receiver_opts *opts, struct pgr_err *err) PGR_MUST_USE;
void pgr_receiver_free(struct pgr_receiver *r);

/*
 * Streams on `client` (idle, physical; stays the caller's) until the stream ends.  Timelines are followed within one
 * call. On PGR_ERR the open segment was synced and closed as far as possible, the next run starts at the start of the
 * segment that is open.
 */
int pgr_receiver_run(struct pgr_receiver *r, struct pgr_client *client, enum pgr_receiver_end *how,
		     struct pgr_err *err) PGR_MUST_USE;

/* Sets the stop position while it runs (any thread): the end of a base backup is known late. */
void pgr_receiver_stop_at(struct pgr_receiver *r, pgr_lsn lsn);

/* Asks for a clean stop as soon as possible (any thread, and from a signal-handling thread). */
void pgr_receiver_stop_now(struct pgr_receiver *r);

/* Where the stream stands: any thread. */
pgr_lsn pgr_receiver_received(const struct pgr_receiver *r);
pgr_lsn pgr_receiver_synced(const struct pgr_receiver *r);
pgr_tli pgr_receiver_tli(const struct pgr_receiver *r);

#endif
