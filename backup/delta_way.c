#include "backup/delta_way.h"

#include <string.h>

#include "backup/delta_look.h"
#include "backup/localtree.h"
#include "backup/olddir.h"
#include "backup/run.h"
#include "proto/client.h"

/* ---- at the beginning ---- */

/* What will be lost is said before it is, and why the way that would spare it is none. */
static void announce_full(struct pgr_run *r)
{
	if (pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_EMPTY)
		pgr_run_info(r, "a run that goes on after this one would have to copy everything anew: %s",
			     r->why_stream);
	else
		pgr_run_say(r, "everything in \"%s\" %s removed and copied anew, since it cannot be compared: %s",
			    r->opts->data_dir, r->opts->dry_run ? "would be" : "is", r->why_stream);
}

/* What is wrong with us, or a stop, is no reason to take another way. */
static bool is_fatal(const struct pgr_err *err)
{
	return err->cls == PGR_E_STOPPED || err->cls == PGR_E_NOMEM || err->cls == PGR_E_SYSTEM;
}

/* Always PGR_ERR. */
static int refuse_summaries(const struct pgr_run *r, struct pgr_err *err)
{
	bool fatal = is_fatal(err);

	pgr_err_prefix(err, "--delta=summary cannot be used");
	if (!fatal && err->hint[0] == '\0')
		pgr_err_hint(err, pgr_delta_seed_compares(r)
					  ? "--delta=hash compares the files themselves, whatever they hold."
					  : "--delta alone copies everything anew; for --delta=hash the role needs "
					    "what --print-grants prints.");
	return PGR_ERR;
}

/* PGR_MORE: the source that was chosen before stays. */
static int try_summaries(struct pgr_run *r, struct pgr_err *err)
{
	bool forced = r->opts->delta == PGR_DELTA_SUMMARY;

	if (r->opts->delta == PGR_DELTA_HASH || (!forced && r->opts->jobs > 1))
		return PGR_MORE;
	if (!forced && pgr_delta_seed_compares(r) && pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_EMPTY)
		return PGR_MORE;
	if (pgr_summary_seed_open(r, err) != PGR_OK) {
		if (forced)
			return refuse_summaries(r, err);
		if (is_fatal(err))
			return PGR_ERR;
		pgr_run_info(r, "the server's WAL summaries cannot be used: %s", err->msg);
		return PGR_MORE;
	}
	if (forced || !pgr_delta_seed_compares(r) || pgr_summary_seed_is_cheaper(r)) {
		r->source = &pgr_summary_seed;
		return PGR_OK;
	}
	pgr_run_info(r, "the server's WAL summaries are not used: nearly everything has changed");
	pgr_summary_seed_release(r);
	return PGR_MORE;
}

int pgr_delta_way_choose(struct pgr_run *r, struct pgr_err *err)
{
	int rc;

	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	if (r->opts->delta == PGR_DELTA_HASH && !pgr_delta_seed_compares(r))
		return pgr_err_set(err, PGR_E_USAGE, "--delta=hash cannot be used: %s", r->why_stream);
	rc = try_summaries(r, err);
	if (rc != PGR_MORE)
		return rc;
	if (!pgr_delta_seed_compares(r))
		announce_full(r);
	return PGR_OK;
}

/* ---- when a way turns out to be none ---- */

int pgr_delta_way_without_lanes(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	if (r->opts->delta == PGR_DELTA_HASH)
		return pgr_err_prefix(err, "--delta=hash cannot be used");
	announce_full(r);
	return PGR_OK;
}

/*
 * The server's word on the summaries, or our own: not that something failed which every way needs, and not that an
 * administrator has cancelled the command (class 57).
 */
static bool is_refusal(const struct pgr_err *err)
{
	switch (err->cls) {
	case PGR_E_USAGE:
	case PGR_E_DATA:
		return true;
	case PGR_E_SERVER:
		return !err->fatal && strncmp(err->sqlstate, "57", 2) != 0;
	default:
		return false;
	}
}

/* A session is kept where it can be: for a moment the server has no place for another one (max_wal_senders). */
static int calm_client(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_client *c = r->client;
	struct pgr_err ignored;

	if (pgr_client_state(c) == PGR_SS_READY)
		return PGR_OK;
	if (pgr_client_state(c) == PGR_SS_FAILED &&
	    pgr_client_until_ready(c, pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS), &ignored) == PGR_OK)
		return PGR_OK;
	return pgr_run_reconnect(r, err);
}

/* What the summary source has found out and prepared is found out and prepared again: another source may see more. */
static int start_over(struct pgr_run *r, struct pgr_err *err)
{
	pgr_localtree_fini(&r->delta.tree);
	r->progress.tablespaces = 0;
	r->progress.total_bytes = 0;
	if (pgr_run_prepare_layout(r, err) != PGR_OK || pgr_delta_look_apart(r, err) != PGR_OK)
		return PGR_ERR;
	return r->source->start(r, err);
}

/* The session that would compare was opened before the choice, and waits. */
int pgr_delta_way_without_summaries(struct pgr_run *r, struct pgr_err *err)
{
	if (r->opts->delta != PGR_DELTA_AUTO || !is_refusal(err))
		return PGR_ERR;
	r->source = r->lowlevel != NULL ? &pgr_lanes_seed : &pgr_stream_seed;
	pgr_run_say(r, "the server's WAL summaries cannot be used after all%s: %s",
		    pgr_delta_seed_compares(r) ? ", all files are compared" : "", err->msg);
	pgr_stream_seed_release(r);
	pgr_summary_seed_release(r);
	if (!pgr_delta_seed_compares(r)) {
		announce_full(r);
		if (calm_client(r, err) != PGR_OK)
			return PGR_ERR;
	}
	return start_over(r, err);
}

/* ---- when what was asked before does not hold any more ---- */

#define MOST_BEGINNINGS 10

bool pgr_delta_way_may_begin_again(const struct pgr_run *r)
{
	return r->delta.begun_again < MOST_BEGINNINGS;
}

/* The backup that was begun ends with its session.  Who has no new one cannot take another way, either. */
int pgr_delta_way_begin_again(struct pgr_run *r, struct pgr_err *err)
{
	r->delta.begun_again++;
	pgr_run_info(r, "%s, beginning again", err->msg);
	pgr_stream_seed_release(r);
	pgr_summary_seed_release(r);
	if (pgr_run_reconnect(r, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_summary_seed_open(r, err) == PGR_OK)
		return start_over(r, err);
	if (r->opts->delta == PGR_DELTA_SUMMARY)
		return refuse_summaries(r, err);
	return pgr_delta_way_without_summaries(r, err);
}
