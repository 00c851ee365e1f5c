#include "backup/delta_way.h"

#include "backup/olddir.h"
#include "backup/run.h"

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
