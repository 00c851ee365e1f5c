/*
 * --retry: which failures of a whole run may pass.
 *
 * A server that ends all its sessions, to shut down or because its postmaster died, says the same to them as an
 * administrator says to one (57P01).  The first may pass, the second is to be obeyed.  Who asks afterwards whether the
 * server is there may come too late: it may be up again.  So it is asked when it was started, at the beginning of a run
 * and again after its end.
 */
#ifndef PGR_TOOLS_RETRY_H
#define PGR_TOOLS_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_conn_params;
struct pgr_stop;
struct pgr_sys;
struct pgr_transport;

/*
 * Whether the same run may go better a while later: after a connection that was lost or could not be made, a server
 * that starts, crashed, is full (class 53) or has removed WAL that the run still needed (58P01), a slot that is still
 * taken for used.  Not after a refusal, an administrator's word (57P01; see below), bad data, or what is wrong on this
 * side: a full disk becomes no emptier by itself, and each attempt costs the server a checkpoint.
 */
bool pgr_retry_may(const struct pgr_err *err);

/* Which server a run works with.  Valid when zeroed: it is not known. */
struct pgr_retry_server {
	char host[256]; /* the one of several that it was; "" */
	char port[16];
	int64_t started_us; /* when its postmaster was started, microseconds since 1970; 0: it could not be asked */
};

/*
 * `t` is the run's first connection, one of pgr_transport_open.  An SQL session of its own is opened for a moment;
 * where the role or pg_hba.conf do not allow that, or a password would have to be asked for, only the address is noted.
 */
void pgr_retry_note(struct pgr_retry_server *out, const struct pgr_transport *t, const struct pgr_conn_params *params,
		    const struct pgr_sys *sys, struct pgr_stop *stop);

/*
 * Whether a run that ended with `err` has met the end of its server, and not an administrator's word: that very server
 * takes no sessions now, or was started again since the note.  Where the start was not to be asked, a server that is up
 * again already is not told from one that was there all the time, and this is false.  Nobody is asked for a password.
 */
bool pgr_retry_was_shutdown(const struct pgr_retry_server *s, const struct pgr_err *err,
			    const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop);

/*
 * Part of it: whether this failure to get a session (or an answer in it) says that no server is there.  Not, when one
 * refuses this role or has no room for it.
 */
bool pgr_retry_is_down(const struct pgr_err *why);

#endif
