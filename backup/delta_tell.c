#include "backup/delta_tell.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "backup/delta_kept.h"
#include "backup/delta_plan.h"
#include "backup/finish.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/run.h"
#include "common/num.h"

#define LABEL_NAME "backup_label"

/* ---- after the copy ---- */

/* What every run writes anew at its end: nobody misses the old one. */
static bool is_written_anew(const struct pgr_run *r, const char *path)
{
	static const char *const names[] = {LABEL_NAME, PGR_MANIFEST_NAME, PGR_MANIFEST_TMP};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(path, names[i]) == 0)
			return true;
	return r->opts->write_recovery_conf &&
	       (strcmp(path, "standby.signal") == 0 || strcmp(path, "recovery.conf") == 0);
}

/* Without the WAL, of which a seed has its own. */
static struct pgr_delta_amount removed(const struct pgr_run *r)
{
	const struct pgr_delta_seed *d = &r->delta;
	struct pgr_delta_amount a = {0};

	for (size_t i = 0; i < d->plan.nremovals; i++) {
		const struct pgr_local_entry *e = pgr_localtree_find(&d->tree, d->plan.removals[i]);

		if (e == NULL || e->type == PGR_LOCAL_DIR || is_written_anew(r, e->path))
			continue;
		a.files++;
		a.bytes += e->size;
	}
	return a;
}

void pgr_delta_tell(struct pgr_run *r)
{
	struct pgr_delta_amount gone;
	struct pgr_delta_figures f;

	if (!pgr_delta_seed_is_on(r) || r->source == &pgr_summary_seed) /* which tells itself */
		return;
	gone = removed(r);
	if (!pgr_delta_seed_compares(r)) {
		pgr_run_info(r, "everything was copied; %s files were removed before",
			     pgr_num_grouped(gone.files).text);
		return;
	}
	pgr_lanes_figures(r->lanes, &f);
	pgr_run_info(r, "compared %s in %s files: %s are the same, %s were fetched; %s files were removed",
		     pgr_num_bytes(f.compared).text, pgr_num_grouped(f.files_same + f.files_changed).text,
		     pgr_num_bytes(f.same).text, pgr_num_bytes(f.fetched).text,
		     pgr_num_grouped(gone.files + f.files_gone).text);
}

/* ---- a dry run ---- */

static void print_amount(struct pgr_run *r, const char *what, struct pgr_delta_amount a)
{
	pgr_run_print(r, "%s: %" PRIu64 " files, %" PRIu64 " bytes", what, a.files, a.bytes);
}

static void print_paths(struct pgr_run *r)
{
	const struct pgr_delta_plan *p = &r->delta.plan;
	const struct pgr_layout_leftover *leftovers;
	size_t n;

	if (!r->opts->list_paths)
		return;
	for (size_t i = 0; i < p->nremovals; i++)
		if (!is_written_anew(r, p->removals[i]))
			pgr_run_print(r, "delete %s", p->removals[i]);
	n = pgr_layout_leftovers(r->layout, &leftovers);
	for (size_t i = 0; i < n; i++)
		if (!leftovers[i].is_left)
			pgr_run_print(r, "delete %s", leftovers[i].path);
	for (size_t i = 0; i < p->n && pgr_delta_seed_compares(r); i++)
		if (p->files[i].action == PGR_DELTA_FETCH)
			pgr_run_print(r, "make %s", r->list.entries[i].path);
}

int pgr_delta_tell_dry_run(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_delta_figures f = {0};
	int rc;

	pgr_run_phase(r, PGR_PHASE_COPY);
	if (r->source == &pgr_summary_seed)
		return pgr_summary_seed_look(r, err);
	rc = pgr_delta_seed_compares(r) ? pgr_lanes_seed_compare(r, err) : pgr_stream_seed_look(r, err);
	if (rc != PGR_OK)
		return PGR_ERR;
	pgr_run_report(r, true);
	print_paths(r);
	if (pgr_delta_seed_compares(r)) {
		pgr_lanes_figures(r->lanes, &f);
		print_amount(r, "compared", (struct pgr_delta_amount){f.files_same + f.files_changed, f.compared});
		print_amount(r, "the same", (struct pgr_delta_amount){f.files_same, f.same});
		print_amount(r, "would be fetched",
			     (struct pgr_delta_amount){f.files_changed + f.files_new, f.fetched});
	}
	print_amount(r, "would be kept", pgr_delta_kept_amount(r));
	print_amount(r, "would be deleted", removed(r));
	print_amount(r, "WAL that would be deleted",
		     (struct pgr_delta_amount){r->delta.plan.nwal, r->delta.plan.wal_bytes});
	pgr_run_phase(r, PGR_PHASE_DONE);
	return PGR_OK;
}
