#include "backup/ratelimit.h"

#include "common/stop.h"
#include "common/sys.h"

/* So long a pause in the flow is not noticed by anybody; what may come at once is measured by it. */
#define PIECES_A_SECOND 20

/* Less is not worth a system call, however low the rate. */
#define PIECE_MIN 4096

/* Waits are cut into slices, so that a rate that was raised meanwhile is noticed. */
#define SLICE_MS 100

/* Rates beyond are no limit; they would only overflow what is computed here. */
#define RATE_MAX ((uint64_t)1 << 40)

int pgr_ratelimit_init(struct pgr_ratelimit *r, const struct pgr_sys *sys, struct pgr_stop *stop,
		       uint64_t bytes_per_second, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&r->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	r->sys = sys;
	r->stop = stop;
	r->level = 0;
	r->at_ms = sys->mono_ms(sys);
	atomic_init(&r->rate, bytes_per_second <= RATE_MAX ? bytes_per_second : 0);
	return PGR_OK;
}

void pgr_ratelimit_fini(struct pgr_ratelimit *r)
{
	pthread_mutex_destroy(&r->lock);
}

/* Under lock: what has leaked away since. */
static void leak(struct pgr_ratelimit *r, uint64_t rate)
{
	int64_t now = r->sys->mono_ms(r->sys);
	uint64_t ms = now > r->at_ms ? (uint64_t)(now - r->at_ms) : 0;
	uint64_t gone = ms < 3600000 ? ms * rate : UINT64_MAX;

	r->level = r->level > gone ? r->level - gone : 0;
	r->at_ms = now;
}

void pgr_ratelimit_set(struct pgr_ratelimit *r, uint64_t bytes_per_second)
{
	pthread_mutex_lock(&r->lock);
	leak(r, atomic_load(&r->rate));
	atomic_store(&r->rate, bytes_per_second <= RATE_MAX ? bytes_per_second : 0);
	pthread_mutex_unlock(&r->lock);
}

/* What may come at once. */
static uint64_t piece_of(uint64_t rate)
{
	uint64_t piece = rate / PIECES_A_SECOND;

	return piece > PIECE_MIN ? piece : PIECE_MIN;
}

/* Takes when the bucket has room; otherwise says how many ms to wait until it has. */
static int64_t try_take(struct pgr_ratelimit *r, size_t want, size_t *got)
{
	int64_t wait_ms = 0;
	uint64_t rate, piece;

	pthread_mutex_lock(&r->lock);
	rate = atomic_load(&r->rate);
	piece = piece_of(rate);
	*got = want;
	if (rate > 0) {
		leak(r, rate);
		if (r->level > piece * 1000) {
			wait_ms = (int64_t)((r->level - piece * 1000 + rate - 1) / rate);
		} else {
			*got = want < piece ? want : (size_t)piece;
			r->level += (uint64_t)*got * 1000;
		}
	}
	pthread_mutex_unlock(&r->lock);
	return wait_ms;
}

int pgr_ratelimit_take(struct pgr_ratelimit *r, size_t want, size_t *got, struct pgr_err *err)
{
	int64_t wait_ms;

	*got = want;
	if (atomic_load_explicit(&r->rate, memory_order_relaxed) == 0)
		return PGR_OK;
	while ((wait_ms = try_take(r, want, got)) > 0)
		if (pgr_stop_wait(r->stop, r->sys, wait_ms < SLICE_MS ? wait_ms : SLICE_MS, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

void pgr_ratelimit_untake(struct pgr_ratelimit *r, size_t bytes)
{
	uint64_t back = (uint64_t)bytes * 1000;

	if (bytes == 0 || atomic_load_explicit(&r->rate, memory_order_relaxed) == 0)
		return;
	pthread_mutex_lock(&r->lock);
	r->level = r->level > back ? r->level - back : 0;
	pthread_mutex_unlock(&r->lock);
}
