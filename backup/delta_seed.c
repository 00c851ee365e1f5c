#include "backup/delta_seed.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backup/delta_plan.h"
#include "backup/layout.h"
#include "backup/lowlevel.h"
#include "backup/olddir.h"
#include "backup/run.h"
#include "common/num.h"
#include "common/stop.h"
#include "proto/caps.h"
#include "proto/client.h"

bool pgr_delta_seed_is_on(const struct pgr_run *r)
{
	return r->delta.dir != NULL;
}

bool pgr_delta_seed_compares(const struct pgr_run *r)
{
	return r->source == &pgr_lanes_seed;
}

/* ---- the directory, and whether it is the server's ---- */

int pgr_delta_seed_open(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_olddir_state *state;

	if (r->opts->delta == PGR_DELTA_OFF)
		return PGR_OK;
	if (pgr_olddir_open(&r->delta.dir, r->sys, r->opts->data_dir, err) != PGR_OK)
		return PGR_ERR;
	state = pgr_olddir_state(r->delta.dir);
	r->delta.keep = r->opts->keep;
	/* what an interrupted fresh copy has of a configuration is no local one, and perhaps only its beginning */
	if (state != NULL && state->fresh)
		r->delta.keep = (struct pgr_keep){.no_defaults = true};
	return PGR_OK;
}

static void describe(struct pgr_run *r)
{
	const struct pgr_controlfile *c = pgr_olddir_control(r->delta.dir);

	switch (pgr_olddir_kind(r->delta.dir)) {
	case PGR_OLDDIR_EMPTY:
		break;
	case PGR_OLDDIR_COPY:
		if (c != NULL)
			pgr_run_info(r,
				     "\"%s\" holds a copy of this cluster: %s, last checkpoint's REDO location "
				     "%" PGR_LSN_FMT " on timeline %u",
				     r->opts->data_dir, pgr_dbstate_name(c->state), PGR_LSN_ARG(c->redo), c->tli);
		break;
	case PGR_OLDDIR_UNFINISHED:
		pgr_run_info(r, "going on with what an unfinished run has left in \"%s\"", r->opts->data_dir);
		break;
	case PGR_OLDDIR_BARE:
		pgr_run_info(r, "\"%s\" holds a data directory without a pg_control", r->opts->data_dir);
		break;
	}
}

/* A size as SHOW writes it, "8192" or "1GB", in bytes. */
static int show_size(struct pgr_run *r, const char *name, uint64_t *out, struct pgr_err *err)
{
	static const char units[] = "kMGT";
	struct pgr_buf text = {0};
	const char *s, *unit;
	size_t digits;
	int rc = PGR_ERR;

	if (pgr_client_show(r->client, name, &text, err) == PGR_OK) {
		s = pgr_buf_str(&text) != NULL ? (const char *)text.data : "";
		digits = strspn(s, "0123456789");
		unit = s[digits] != '\0' ? strchr(units, s[digits]) : NULL;
		if (!pgr_num_u64(s, digits, out) || *out > UINT32_MAX || (s[digits] != '\0' && unit == NULL))
			pgr_err_set(err, PGR_E_PROTOCOL, "the server sent an invalid %s: \"%s\"", name, s);
		else
			rc = PGR_OK;
		if (rc == PGR_OK && unit != NULL)
			*out <<= 10 * (unit - units + 1);
	}
	pgr_buf_fini(&text);
	return rc;
}

static int check_sizes(struct pgr_run *r, struct pgr_err *err)
{
	uint64_t block, segment;

	if (show_size(r, "block_size", &block, err) != PGR_OK || show_size(r, "segment_size", &segment, err) != PGR_OK)
		return PGR_ERR;
	if (block == 0 || block > UINT32_MAX || segment / block > UINT32_MAX)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent an invalid block or segment size");
	return pgr_olddir_check_sizes(r->delta.dir, (uint32_t)block, (uint32_t)(segment / block), err);
}

int pgr_delta_seed_check_server_ahead(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r) || !pgr_cap_has(r->version, PGR_CAP_SQL_READ))
		return PGR_OK;
	return pgr_client_show_ahead(r->client, "block_size", err) == PGR_OK
		       ? pgr_client_show_ahead(r->client, "segment_size", err)
		       : PGR_ERR;
}

int pgr_delta_seed_check_server(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	if (!pgr_cap_has(r->version, PGR_CAP_SQL_READ))
		return pgr_err_set(err, PGR_E_USAGE, "%s needs a server of version %s or later", "--delta",
				   pgr_cap_since(PGR_CAP_SQL_READ));
	if (pgr_olddir_check_server(r->delta.dir, r->id.system_identifier, r->version, err) != PGR_OK ||
	    check_sizes(r, err) != PGR_OK)
		return PGR_ERR;
	describe(r);
	return PGR_OK;
}

bool pgr_delta_seed_goes_on(const struct pgr_run *r)
{
	return pgr_delta_seed_is_on(r) && pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_UNFINISHED;
}

bool pgr_delta_seed_may_have_slot(const struct pgr_run *r)
{
	return pgr_delta_seed_is_on(r) && (pgr_delta_seed_goes_on(r) || pgr_olddir_is_settled(r->delta.dir));
}

const char *pgr_delta_seed_version_dir(const struct pgr_run *r, struct pgr_delta_version_dir *out)
{
	const struct pgr_controlfile *c = pgr_delta_seed_is_on(r) ? pgr_olddir_control(r->delta.dir) : NULL;

	if (c == NULL)
		return NULL;
	snprintf(out->text, sizeof(out->text), "PG_%d_%" PRIu32, r->version / 10000, c->catalog_version);
	return out->text;
}

/* ---- the first change ---- */

static int tick(void *arg, struct pgr_err *err)
{
	struct pgr_run *r = arg;

	pgr_run_report(r, false);
	if (pgr_stop_check(r->stop, err) != PGR_OK)
		return PGR_ERR;
	return r->lowlevel != NULL ? pgr_lowlevel_check(r->lowlevel, err) : PGR_OK;
}

static void warn_of_leftovers(struct pgr_run *r)
{
	const struct pgr_layout_leftover *list;
	size_t n = pgr_layout_leftovers(r->layout, &list);

	for (size_t i = 0; i < n; i++)
		if (list[i].is_left)
			pgr_run_warning(r,
					"\"%s\" was a directory of tablespace %" PRIu32
					" and is left as it is, since something else may use it",
					list[i].path, list[i].oid);
}

int pgr_delta_seed_take_over(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_delta_seed *d = &r->delta;
	struct pgr_olddir_state state = {
		.major = r->version / 10000,
		.server_tli = r->start_tli,
		/* other sources fill files under their final names; without syncs a power cut may leave anything */
		.whole = r->source == &pgr_summary_seed && r->opts->sync,
	};

	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	snprintf(state.system_identifier, sizeof(state.system_identifier), "%s", r->id.system_identifier);
	if (pgr_olddir_kind(d->dir) == PGR_OLDDIR_EMPTY) {
		state.start = r->start;
		state.tli = r->start_tli;
	}
	if (pgr_stop_check(r->stop, err) != PGR_OK)
		return PGR_ERR;
	d->begun = true;
	if (pgr_olddir_take_over(d->dir, pgr_layout_root(r->layout, 0), &state, err) != PGR_OK ||
	    pgr_layout_take_over(r->layout, err) != PGR_OK || pgr_layout_link_tablespaces(r->layout, err) != PGR_OK ||
	    (r->opts->sync && pgr_layout_sync_names(r->layout, err) != PGR_OK))
		return PGR_ERR;
	warn_of_leftovers(r);
	if (d->plan.nremovals > 0)
		pgr_run_info(r, "removing %zu files and directories%s", d->plan.nremovals,
			     pgr_delta_seed_compares(r) ? " that the server does not have" : "");
	return pgr_delta_plan_remove(&d->plan, r->sys, r->layout, tick, r, err);
}

/* ---- the end ---- */

/* Files that did not change may still wait in memory for the disk, since a run that was killed, too. */
int pgr_delta_seed_sync(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r) || pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_EMPTY || !r->opts->sync ||
	    r->opts->sync_method == PGR_SYNC_SYNCFS)
		return PGR_OK;
	if (pgr_layout_syncfs(r->layout, err) != PGR_OK)
		return PGR_ERR;
	return pgr_localtree_syncfs(&r->delta.tree, r->sys, r->layout, err);
}

int pgr_delta_seed_settle(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	return pgr_olddir_settle(r->delta.dir, pgr_layout_root(r->layout, 0), r->start, r->start_tli, r->opts->sync,
				 err);
}

int pgr_delta_seed_done(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	return pgr_olddir_finish(r->delta.dir, pgr_layout_root(r->layout, 0), r->opts->sync, err);
}

void pgr_delta_seed_explain(const struct pgr_run *r, struct pgr_err *err)
{
	if (!r->delta.begun)
		return;
	if (err->detail[0] == '\0')
		pgr_err_detail(err, "The data directory \"%s\" is unfinished, and no server can be started in it.",
			       r->opts->data_dir);
	if (err->hint[0] == '\0')
		pgr_err_hint(err, "Run the same command again to go on.");
}

void pgr_delta_seed_release(struct pgr_run *r)
{
	pgr_delta_plan_fini(&r->delta.plan);
	pgr_localtree_fini(&r->delta.tree);
	pgr_buf_fini(&r->delta.server_dir);
	pgr_olddir_free(r->delta.dir);
	r->delta.dir = NULL;
}
