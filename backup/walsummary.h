/*
 * What a server's WAL summaries say about truncated relations: their limit blocks, asked for over SQL.
 *
 * A limit block is the shortest length that a relation had.  An incremental backup does not tell it, and without it
 * blocks of an old copy come back that were cut off since: the server's truncation_block_length is the larger one of
 * limit and size, and a relation that was extended again by blocks without WAL is longer than its limit.
 *
 * There is a second trap.  The server puts its summaries together in the order of their directory (GetWalSummaries),
 * and a limit makes it forget the changed blocks above it that it has read before: where a relation was cut in one
 * summary and written again in a later one, changed blocks may be missing in what it sends.  So the blocks that later
 * summaries have at or above a limit are asked for as well, and what comes must have them.
 *
 * Only main forks are looked at: of the others no increments are asked for.
 *
 * Source: PostgreSQL src/backend/backup/walsummary.c, walsummaryfuncs.c, basebackup_incremental.c,
 * src/backend/postmaster/walsummarizer.c, src/common/blkreftable.c.
 */
#ifndef PGR_BACKUP_WALSUMMARY_H
#define PGR_BACKUP_WALSUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_client;
struct pgr_history;
struct pgr_incremental;

struct pgr_wal_summary {
	pgr_tli tli;
	pgr_lsn start, end;
};

/*
 * The summaries that cover the WAL from `from` to `to` on the timelines of `h` (its last one is that of `to`), taken
 * out of `list`: it is sorted as WAL is, and *n becomes their number.  PGR_E_USAGE: there are gaps; the message names
 * the first one.
 */
int pgr_wal_summaries_select(struct pgr_wal_summary *list, size_t *n, const struct pgr_history *h, pgr_lsn from,
			     pgr_lsn to, struct pgr_err *err) PGR_MUST_USE;

/* A relation that was truncated, dropped or created. */
struct pgr_limit {
	uint32_t space, db, rel; /* rel 0: all of this database in this tablespace */
	uint32_t block;		 /* the limit */
	uint32_t summary;	 /* number of the first summary with this limit */
	bool later;		 /* later summaries have blocks at or above it */
	uint32_t *blocks;	 /* these, and those of the same summary: ascending */
	size_t nblocks;
	size_t cap;
};

/* Valid when zeroed. */
struct pgr_limits {
	struct pgr_limit *list; /* sorted by relation */
	size_t n;
	size_t cap;
	size_t nblocks;	  /* in all */
	uint64_t changed; /* blocks that the summaries name: only with `count` */
};

void pgr_limits_fini(struct pgr_limits *l);

/*
 * Asks for the limits in the WAL from `from` to `to`.  `out` is zeroed.  With `count` also how many blocks changed (one
 * that is in several summaries is counted as often).  PGR_E_USAGE: summaries are missing; PGR_E_DATA: more than one
 * would want to keep.
 */
int pgr_limits_read(struct pgr_limits *out, struct pgr_client *sql, const struct pgr_history *h, pgr_lsn from,
		    pgr_lsn to, bool count, struct pgr_err *err) PGR_MUST_USE;

/* The limit of the relation that this file (a path as the manifest writes it) belongs to; NULL: it has none, or is no
 * relation. */
const struct pgr_limit *pgr_limits_find(const struct pgr_limits *l, const char *path);

/*
 * Whether an increment of segment `segment` may be believed, whose relation has this limit (NULL: none).  PGR_E_DATA:
 * the server should have sent the file whole, or blocks that must be in it are not.
 */
int pgr_limit_check(const struct pgr_limit *limit, const struct pgr_incremental *inc, uint32_t segment,
		    uint32_t segment_blocks, const char *name, struct pgr_err *err) PGR_MUST_USE;

#endif
