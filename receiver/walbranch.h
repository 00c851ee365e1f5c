/*
 * What both sides of a timeline's switch point hold.
 */
#ifndef PGR_RECEIVER_WALBRANCH_H
#define PGR_RECEIVER_WALBRANCH_H

#include "common/err.h"
#include "receiver/walsurvey.h"

/*
 * A new timeline's first segment begins with a copy of what the old one's segment of that number holds.  Compares the
 * two, where both are there, up to the switch point or as far as both are valid; tells through v->chain where they
 * differ.  After all segments were added to the chain.  PGR_ERR: PGR_E_NOMEM.
 */
int pgr_walbranch_compare(const struct pgr_walsurvey *v, struct pgr_err *err) PGR_MUST_USE;

#endif
