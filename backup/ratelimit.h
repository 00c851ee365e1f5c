/*
 * One limit of the transfer rate over all lanes: a bucket that leaks at the rate, into which lanes pour what they are
 * about to receive, and for which they wait while it is full.
 */
#ifndef PGR_BACKUP_RATELIMIT_H
#define PGR_BACKUP_RATELIMIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_stop;
struct pgr_sys;

struct pgr_ratelimit {
	/* constant */
	const struct pgr_sys *sys;
	struct pgr_stop *stop;

	_Atomic uint64_t rate; /* bytes a second, 0: no limit; changed under lock */

	pthread_mutex_t lock;
	/* under lock: */
	uint64_t level; /* what was taken and has not leaked away, in 1/1000 bytes */
	int64_t at_ms;	/* when that was so */
};

/* `sys` and `stop` outlive it. */
int pgr_ratelimit_init(struct pgr_ratelimit *r, const struct pgr_sys *sys, struct pgr_stop *stop,
		       uint64_t bytes_per_second, struct pgr_err *err) PGR_MUST_USE;
void pgr_ratelimit_fini(struct pgr_ratelimit *r);

/* Any thread, also while others wait. */
void pgr_ratelimit_set(struct pgr_ratelimit *r, uint64_t bytes_per_second);

/*
 * Takes up to `want` bytes (*got, at least 1 unless want is 0) from the rate, after waiting until they may be received.
 * They are few when the rate is low, so that data flows evenly.  PGR_E_STOPPED when the latch is set meanwhile.
 */
int pgr_ratelimit_take(struct pgr_ratelimit *r, size_t want, size_t *got, struct pgr_err *err) PGR_MUST_USE;

/* Gives back what was taken and not received. */
void pgr_ratelimit_untake(struct pgr_ratelimit *r, size_t bytes);

#endif
