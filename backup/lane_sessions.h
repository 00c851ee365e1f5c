/*
 * The sessions of the lanes, opened ahead, each in a thread of its own: while the server makes its checkpoint and lists
 * its files.  Where the server is far away that is most of the time before the first byte.
 *
 * What fails is told to whoever takes the session.
 */
#ifndef PGR_BACKUP_LANE_SESSIONS_H
#define PGR_BACKUP_LANE_SESSIONS_H

#include "common/buf.h"
#include "common/err.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_lane_sessions;
struct pgr_stop;
struct pgr_sys;

/*
 * Appends what tells the server that a session is on from any other one, and from itself after a restart.  With several
 * hosts in a connection string, or one name for several servers, sessions may meet different ones.  It begins with the
 * cluster's system identifier and a space.  The second one asks ahead (pgr_client_ask_ahead).
 */
int pgr_lanes_server_id(struct pgr_client *session, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;
int pgr_lanes_server_id_ahead(struct pgr_client *session, struct pgr_err *err) PGR_MUST_USE;

struct pgr_lane_sessions_opts {
	unsigned n;
	struct pgr_conn_params *params; /* nobody is asked for a password, and nobody else changes them meanwhile */
	pgr_notice_fn *notice;		/* NULL; from any thread */
	void *arg;
	/* How a connection is made, with `arg`, from any thread; NULL: pgr_sql_connect. */
	int (*connect)(void *arg, struct pgr_client **out, struct pgr_err *err);
};

/* Starts the threads.  `sys`, `stop` and what the options point to outlive the sessions. */
int pgr_lane_sessions_start(struct pgr_lane_sessions **out, const struct pgr_lane_sessions_opts *opts,
			    const struct pgr_sys *sys, struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;

/*
 * Waits for session `i` (below n) and hands it over, with its server's id appended to `id`; PGR_ERR: why there is none.
 * Once for each; of different ones in different threads.
 */
int pgr_lane_sessions_take(struct pgr_lane_sessions *s, unsigned i, struct pgr_client **client, struct pgr_buf *id,
			   struct pgr_err *err) PGR_MUST_USE;

/* Waits for those that are still being opened (a stop ends that), closes what was not taken.  NULL is allowed. */
void pgr_lane_sessions_free(struct pgr_lane_sessions *s);

#endif
