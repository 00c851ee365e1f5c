#include "common/stop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/sys.h"

/*
 * - `set` goes from false to true once, after `why` is complete (release); who sees it true (acquire) reads
 *   `why` without the lock.  So a waker's owner may ask while it holds its own mutex.
 * - wakers are called under the lock: an unwatch that returns has therefore seen the last of its waker.
 */
struct pgr_stop {
	atomic_bool set;
	struct pgr_err why; /* written once, under lock, before set */
	int event_fd;	    /* constant */

	pthread_mutex_t lock;
	/* under lock: */
	struct pgr_waker *wakers; /* those not called yet; empty once set */
};

int pgr_stop_new(struct pgr_stop **out, struct pgr_err *err)
{
	struct pgr_stop *stop = calloc(1, sizeof(*stop));

	*out = NULL;
	if (stop == NULL)
		return pgr_err_nomem(err);
	atomic_init(&stop->set, false);
	stop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop->event_fd < 0) {
		pgr_err_sys(err, errno, "could not create an event descriptor");
		free(stop);
		return PGR_ERR;
	}

	int rc = pthread_mutex_init(&stop->lock, NULL);

	if (rc != 0) {
		pgr_err_sys(err, rc, "could not create a mutex");
		close(stop->event_fd);
		free(stop);
		return PGR_ERR;
	}
	*out = stop;
	return PGR_OK;
}

void pgr_stop_free(struct pgr_stop *stop)
{
	if (stop == NULL)
		return;
	close(stop->event_fd);
	pthread_mutex_destroy(&stop->lock);
	free(stop);
}

/* One write to a fresh event descriptor cannot overflow it; nothing but an interruption can be met. */
static void raise_event(int fd)
{
	while (eventfd_write(fd, 1) != 0 && errno == EINTR)
		continue;
}

void pgr_stop_post(struct pgr_stop *stop, const struct pgr_err *why)
{
	pthread_mutex_lock(&stop->lock);
	if (!atomic_load_explicit(&stop->set, memory_order_relaxed)) {
		stop->why = *why;
		atomic_store_explicit(&stop->set, true, memory_order_release);
		raise_event(stop->event_fd);
		for (struct pgr_waker *w = stop->wakers, *next; w != NULL; w = next) {
			next = w->next;
			w->next = NULL;
			w->fn(w->arg);
		}
		stop->wakers = NULL;
	}
	pthread_mutex_unlock(&stop->lock);
}

bool pgr_stop_is_set(const struct pgr_stop *stop)
{
	return atomic_load_explicit(&stop->set, memory_order_acquire);
}

int pgr_stop_check(struct pgr_stop *stop, struct pgr_err *err)
{
	if (!pgr_stop_is_set(stop))
		return PGR_OK;
	*err = stop->why;
	err->cls = PGR_E_STOPPED;
	return PGR_ERR;
}

void pgr_stop_why(struct pgr_stop *stop, struct pgr_err *out)
{
	if (pgr_stop_is_set(stop))
		*out = stop->why;
	else
		pgr_err_clear(out);
}

int pgr_stop_fd(const struct pgr_stop *stop)
{
	return stop->event_fd;
}

int pgr_stop_wait(struct pgr_stop *stop, const struct pgr_sys *sys, int64_t ms, struct pgr_err *err)
{
	int64_t until = sys->mono_ms(sys) + ms;

	for (;;) {
		struct pollfd fd = {.fd = pgr_stop_fd(stop), .events = POLLIN};
		int64_t left = until - sys->mono_ms(sys);

		if (pgr_stop_check(stop, err) != PGR_OK)
			return PGR_ERR;
		if (left <= 0)
			return PGR_OK;
		if (sys->poll(sys, &fd, 1, left < INT_MAX ? (int)left : INT_MAX) < 0 && errno != EINTR)
			return pgr_err_sys(err, errno, "could not wait");
	}
}

void pgr_stop_watch(struct pgr_stop *stop, struct pgr_waker *w)
{
	pthread_mutex_lock(&stop->lock);
	if (atomic_load_explicit(&stop->set, memory_order_relaxed)) {
		w->next = NULL;
		w->fn(w->arg);
	} else {
		w->next = stop->wakers;
		stop->wakers = w;
	}
	pthread_mutex_unlock(&stop->lock);
}

void pgr_stop_unwatch(struct pgr_stop *stop, struct pgr_waker *w)
{
	pthread_mutex_lock(&stop->lock);
	for (struct pgr_waker **at = &stop->wakers; *at != NULL; at = &(*at)->next) {
		if (*at == w) {
			*at = w->next;
			break;
		}
	}
	w->next = NULL;
	pthread_mutex_unlock(&stop->lock);
}
