/* How long to wait before something that failed for a reason that may pass is tried again. */
#ifndef PGR_TOOLS_BACKOFF_H
#define PGR_TOOLS_BACKOFF_H

#include <stdint.h>

#define PGR_BACKOFF_MAX 5 /* from so many failures on the waits do not grow any more */

/*
 * After so many failures before this one: 1 s, 2 s, 4 s ... 30 s, each a quarter more or less, so that many programs
 * that lost their server together do not come back in step.  `dice` is any number.
 */
int pgr_backoff_ms(unsigned failures, uint16_t dice);

/* The same with a number that is drawn here. */
int pgr_backoff_draw_ms(unsigned failures);

/* A wait as a person is told of it: in whole seconds, one at least. */
int pgr_backoff_seconds(int ms);

#endif
