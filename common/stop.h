/*
 * The stop latch: the first error wins, and wakes everybody.
 *
 * One latch is shared by all threads of a run.  A thread that fails posts its error;
 * a signal posts PGR_E_STOPPED.  Only the first post is kept.  Whoever waits, waits on
 * something that the latch wakes: poll() on pgr_stop_fd(), or a condition variable
 * whose waker was registered.
 */
#ifndef PGR_COMMON_STOP_H
#define PGR_COMMON_STOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_stop;
struct pgr_sys;

/* Creates a latch that is not set.  Free with pgr_stop_free after every user is gone. */
int pgr_stop_new(struct pgr_stop **out, struct pgr_err *err) PGR_MUST_USE;
void pgr_stop_free(struct pgr_stop *stop);

/* Posts an error (copied).  The first post sets the latch, later ones do nothing.  Any thread. */
void pgr_stop_post(struct pgr_stop *stop, const struct pgr_err *why);

/* Whether the latch is set.  Cheap (one atomic load); any thread. */
bool pgr_stop_is_set(const struct pgr_stop *stop);

/*
 * OK while the latch is not set.  Otherwise PGR_ERR, and *err is the posted error with its
 * class changed to PGR_E_STOPPED: the thread that asks did not fail itself.
 */
int pgr_stop_check(struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;

/* Copies the posted error as it was posted; class PGR_E_NONE when the latch is not set. */
void pgr_stop_why(struct pgr_stop *stop, struct pgr_err *out);

/* A descriptor that becomes readable when the latch is set and stays so.  Never read from it. */
int pgr_stop_fd(const struct pgr_stop *stop);

/* Waits so long.  PGR_ERR: PGR_E_STOPPED as soon as the latch is set; PGR_E_SYSTEM if poll failed. */
int pgr_stop_wait(struct pgr_stop *stop, const struct pgr_sys *sys, int64_t ms, struct pgr_err *err) PGR_MUST_USE;

/*
 * Registers a waker that the post calls once, in the posting thread, after the latch is set
 * (immediately, when it is set already).  `fn` must only take the waiter's own mutex and
 * broadcast.  The caller keeps *w alive until pgr_stop_unwatch has returned; then the call, if there is one, is over.
 * Neither watch nor unwatch may be called while the mutex that `fn` takes is held.
 */
struct pgr_waker {
	void (*fn)(void *arg);
	void *arg;
	struct pgr_waker *next;
};
void pgr_stop_watch(struct pgr_stop *stop, struct pgr_waker *w);
void pgr_stop_unwatch(struct pgr_stop *stop, struct pgr_waker *w);

#endif
