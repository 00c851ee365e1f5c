/*
 * --retry: which failures of a whole run may pass, and how long to wait for that.
 */
#ifndef PGR_TOOLS_RETRY_H
#define PGR_TOOLS_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

/*
 * Whether the same run may go better a while later: after a connection that was lost or could not be made, a server
 * that starts, crashed, is full (class 53) or has removed WAL that the run still needed (58P01), a slot that is still
 * taken for used.  Not after a refusal, an administrator's word (57P01), bad data, or what is wrong on this side: a
 * full disk becomes no emptier by itself, and each attempt costs the server a checkpoint.
 */
bool pgr_retry_may(const struct pgr_err *err);

/* How long to wait before attempt `n` (1: the first one after the failure). */
int64_t pgr_retry_wait_ms(unsigned n);

#endif
