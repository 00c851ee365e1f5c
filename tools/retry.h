/*
 * --retry: which failures of a whole run may pass, and how long to wait for that.
 */
#ifndef PGR_TOOLS_RETRY_H
#define PGR_TOOLS_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_conn_params;
struct pgr_stop;
struct pgr_sys;

/*
 * Whether the same run may go better a while later: after a connection that was lost or could not be made, a server
 * that starts, crashed, is full (class 53) or has removed WAL that the run still needed (58P01), a slot that is still
 * taken for used.  Not after a refusal, an administrator's word (57P01; see below), bad data, or what is wrong on this
 * side: a full disk becomes no emptier by itself, and each attempt costs the server a checkpoint.
 */
bool pgr_retry_may(const struct pgr_err *err);

/*
 * A server that ends all its sessions, to shut down or because its postmaster died, says the same to them as an
 * administrator says to one (57P01).  Whether it is that: a new connection is not to be had then.  Nobody is asked for
 * a password.
 */
bool pgr_retry_is_shutdown(const struct pgr_err *err, struct pgr_conn_params *params, const struct pgr_sys *sys,
			   struct pgr_stop *stop);

/* How long to wait before attempt `n` (1: the first one after the failure). */
int64_t pgr_retry_wait_ms(unsigned n);

#endif
