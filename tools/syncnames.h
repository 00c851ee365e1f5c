/*
 * Whether a primary counts on this receiver as a synchronous standby, and what it then waits for.
 *
 * Source: PostgreSQL documentation, synchronous_standby_names and synchronous_commit; src/backend/replication/syncrep.c
 * (SyncRepGetStandbyPriority).
 */
#ifndef PGR_TOOLS_SYNCNAMES_H
#define PGR_TOOLS_SYNCNAMES_H

#include <stdbool.h>

#include "common/err.h"

struct pgr_client;
struct pgr_messages;

/*
 * Whether `name` is among the names in `setting`, a value of synchronous_standby_names in any of its forms (a list,
 * FIRST n (...), ANY n (...), n (...), *).  Case does not matter.  A value that cannot be one names nobody.
 */
bool pgr_syncnames_has(const char *setting, const char *name);

/*
 * Asks the server (10 and later) and warns where commits would hang: we are named but report what is durable rarely
 * (`synchronous` is false) or never (neither that nor a slot), or the server waits for standbys to apply what they get.
 * Between commands.
 */
int pgr_syncnames_warn(struct pgr_client *c, struct pgr_messages *msg, bool synchronous, bool has_slot,
		       struct pgr_err *err) PGR_MUST_USE;

#endif
