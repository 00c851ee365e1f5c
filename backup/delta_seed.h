/*
 * What a seed into a directory that holds something already (--delta) does beside the steps of every seed.  Internal to
 * backup/.  In any other run these functions do nothing.
 *
 * The order is what makes it safe: whatever can be refused is refused before the first change (open and check_server
 * here, delta_way.h, delta_look.h); then the directory is taken over, and cannot start from there on; then it is made
 * equal to the server's; when all that is durable (settle) pg_control is written, and what is ours goes.  A run that
 * ends in between leaves what it has, and the next one goes on with it.
 */
#ifndef PGR_BACKUP_DELTA_SEED_H
#define PGR_BACKUP_DELTA_SEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/delta_plan.h"
#include "backup/localtree.h"
#include "common/buf.h"
#include "common/err.h"

struct pgr_olddir;
struct pgr_run;

/* Valid when zeroed. */
struct pgr_delta_seed {
	struct pgr_olddir *dir; /* NULL: not a run of this kind */
	bool server_is_local;
	struct pgr_buf server_dir;  /* the server's data directory, where it says so; else empty */
	struct pgr_localtree tree;  /* what was here */
	struct pgr_delta_plan plan; /* what to do; in a full copy only its removals count */
	struct pgr_keep keep;	    /* the user's, or nothing where nothing can be the user's */
	bool begun;		    /* the directory is under work, from the first change to the last */
	unsigned begun_again;	    /* how often the summary source was, before anything was changed */
};

/* Whether this is a run of this kind; whether its source is the one that compares. */
bool pgr_delta_seed_is_on(const struct pgr_run *r);
bool pgr_delta_seed_compares(const struct pgr_run *r);

/* Looks at the data directory; it stays locked until the release. */
int pgr_delta_seed_open(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* After the server was inspected: whether the directory is of its cluster.  The first one asks ahead, before that. */
int pgr_delta_seed_check_server_ahead(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;
int pgr_delta_seed_check_server(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* Whether it goes on with what an unfinished run has left. */
bool pgr_delta_seed_goes_on(const struct pgr_run *r);

/* Whether such a run may have created the slot already. */
bool pgr_delta_seed_may_have_slot(const struct pgr_run *r);

/* The name of the version directory in tablespaces ("PG_15_202209061") as the old copy has it, in `out`; NULL: it does
 * not say. */
struct pgr_delta_version_dir {
	char text[40];
};
const char *pgr_delta_seed_version_dir(const struct pgr_run *r, struct pgr_delta_version_dir *out);

/* The first change; then removes what the plan removes.  Before the WAL stream starts: the plan knows old segments by
 * names that it may be about to use. */
int pgr_delta_seed_take_over(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* When every file is written: makes durable what no writer of this run has synced. */
int pgr_delta_seed_sync(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* When everything is durable, and before pg_control: removes the old one. */
int pgr_delta_seed_settle(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* With pg_control the directory is whole: removes what is ours. */
int pgr_delta_seed_done(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* Adds to the error of a run that has failed what that means for the directory. */
void pgr_delta_seed_explain(const struct pgr_run *r, struct pgr_err *err);

void pgr_delta_seed_release(struct pgr_run *r);

#endif
