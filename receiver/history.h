/*
 * Timeline history files: parsing what a server sent or what lies in an archive.
 *
 * Source: PostgreSQL src/backend/access/transam/timeline.c (readTimeLineHistory).
 */
#ifndef PGR_RECEIVER_HISTORY_H
#define PGR_RECEIVER_HISTORY_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_history_entry {
	pgr_tli tli;
	pgr_lsn end; /* where this timeline was left; PGR_LSN_INVALID for the last one */
};

struct pgr_history {
	struct pgr_history_entry *entries; /* oldest first; the last one is the timeline itself */
	size_t n;
};

/* Parses the content of <tli>.history.  PGR_E_DATA: malformed, timelines not ascending, or not below tli. */
int pgr_history_parse(struct pgr_history *h, pgr_tli tli, const char *text, size_t len,
		      struct pgr_err *err) PGR_MUST_USE;
void pgr_history_fini(struct pgr_history *h);

/* Whether `tli` is in the history, and if so, where it was left. */
bool pgr_history_find(const struct pgr_history *h, pgr_tli tli, pgr_lsn *end);

#endif
