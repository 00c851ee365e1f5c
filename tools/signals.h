/*
 * Signals as events: all of ours are blocked in every thread, and one thread waits for them and calls back.
 *
 * No work is done in signal handlers.  The first SIGINT, SIGTERM or SIGHUP is the end's beginning, a second one ends the
 * process at once; other signals may come as often as they like.
 */
#ifndef PGR_TOOLS_SIGNALS_H
#define PGR_TOOLS_SIGNALS_H

#include <signal.h>

#include "common/err.h"

struct pgr_signals;

/*
 * Blocks the signals of `set` (to be called before any thread is made) and starts the waiting thread; `fn` runs in it
 * for the first of SIGINT, SIGTERM and SIGHUP, and for every other signal.  SIGPIPE is ignored.  A signal of `set` that is ignored already (nohup, a background job of a
 * script) stays so and is left out.  PGR_E_SYSTEM: the signals are as they were before.
 */
int pgr_signals_start(struct pgr_signals **out, const sigset_t *set, void (*fn)(void *arg, int signo), void *arg,
		      struct pgr_err *err) PGR_MUST_USE;

/* Ends and joins the thread; the signals stay blocked. NULL is allowed. */
void pgr_signals_stop(struct pgr_signals *s);

/* Which of SIGINT, SIGTERM and SIGHUP was seen first, or 0. */
int pgr_signals_seen(const struct pgr_signals *s);

/* Ends the process by this signal's default action, so that its parent sees what it would see of pg_basebackup. */
_Noreturn void pgr_signals_die(int signo);

#endif
