/* The summary source: one BASE_BACKUP (INCREMENTAL) over an old copy. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_choose.h"
#include "backup/delta_kept.h"
#include "backup/delta_look.h"
#include "backup/delta_plan.h"
#include "backup/delta_way.h"
#include "backup/dirsink.h"
#include "backup/exclude.h"
#include "backup/finish.h"
#include "backup/full_label.h"
#include "backup/kept.h"
#include "backup/layout.h"
#include "backup/listing.h"
#include "backup/manifest.h"
#include "backup/olddir.h"
#include "backup/patch.h"
#include "backup/run.h"
#include "backup/run_manifest.h"
#include "backup/sql.h"
#include "backup/stream_check.h"
#include "backup/summary_facts.h"
#include "backup/upload.h"
#include "backup/wal_stream.h"
#include "backup/walsummary.h"
#include "common/fs_dir.h"
#include "common/fs_durable.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"

#define LABEL_NAME   "backup_label"
#define CONTROL_NAME "global/pg_control"
#define KEPT_THREADS 3

struct pgr_summary {
	struct pgr_client *sql; /* until the backup has begun; NULL */
	bool incremental;	/* else it is a copy that begins, and nothing is kept */
	struct pgr_summary_facts facts;
	struct pgr_delta_choice choice;
	struct pgr_limits limits; /* up to the last summary; then up to the start of the backup */
	struct pgr_bb_tablespace *spaces;
	size_t nspaces;
	struct pgr_kept *kept;
	struct pgr_patch patch;
	struct pgr_buf label;
};

/* ---- whether it can be used ---- */

static int open_session(struct pgr_run *r, struct pgr_client **c, struct pgr_err *err)
{
	int (*ask)(void *, char **, struct pgr_err *) = r->params->ask_password;
	int rc;

	if (r->opts->delta != PGR_DELTA_SUMMARY)
		r->params->ask_password = NULL;
	rc = pgr_sql_open(c, r->params, r->sys, r->stop, r->opts->notice, r->opts->arg, err);
	r->params->ask_password = ask;
	return rc;
}

/* Idle, it would only time out. */
static void end_session(struct pgr_summary *s)
{
	pgr_client_free(s->sql);
	s->sql = NULL;
}

static void describe_local(struct pgr_run *r, struct pgr_delta_local *l)
{
	const struct pgr_olddir_state *state = pgr_olddir_state(r->delta.dir);

	*l = (struct pgr_delta_local){.control = pgr_olddir_control(r->delta.dir)};
	l->from = pgr_olddir_base(r->delta.dir, &l->from_tli);
	l->unfinished = pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_UNFINISHED;
	l->run_tli = state != NULL ? state->server_tli : 0;
	l->copied = pgr_olddir_is_backup(r->delta.dir);
}

static int choose(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	struct pgr_delta_server server;
	struct pgr_delta_local local;

	pgr_summary_facts_server(&s->facts, r->version, &r->id, &server);
	describe_local(r, &local);
	pgr_delta_choose(&s->choice, &local, &server);
	return s->choice.usable ? PGR_OK : pgr_err_set(err, PGR_E_USAGE, "%s", s->choice.why_not);
}

/* Gaps are seen here, before anything was done for the run. */
static int look_at_summaries(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	pgr_lsn to;

	if (pgr_summary_facts_summarized(s->sql, r->id.tli, s->choice.from, &to, err) != PGR_OK)
		return PGR_ERR;
	return pgr_limits_read(&s->limits, s->sql, &s->facts.history, s->choice.from, to, true, err);
}

static int open_it(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	if (!pgr_cap_has(r->version, PGR_CAP_INCREMENTAL))
		return pgr_err_set(err, PGR_E_USAGE, "servers summarize WAL from version %s on",
				   pgr_cap_since(PGR_CAP_INCREMENTAL));
	if (open_session(r, &s->sql, err) != PGR_OK ||
	    pgr_summary_facts_ask(&s->facts, s->sql, r->client, &r->id, err) != PGR_OK)
		return PGR_ERR;
	s->incremental = pgr_olddir_kind(r->delta.dir) != PGR_OLDDIR_EMPTY;
	if (s->incremental)
		return choose(r, s, err) == PGR_OK ? look_at_summaries(r, s, err) : PGR_ERR;
	if (!s->facts.summarize_wal)
		return pgr_err_set(err, PGR_E_USAGE, "the server does not summarize its WAL (summarize_wal is off)");
	end_session(s);
	return PGR_OK;
}

int pgr_summary_seed_open(struct pgr_run *r, struct pgr_err *err)
{
	r->summary = calloc(1, sizeof(*r->summary));
	if (r->summary == NULL)
		return pgr_err_nomem(err);
	if (open_it(r, r->summary, err) == PGR_OK)
		return PGR_OK;
	pgr_summary_seed_release(r);
	return PGR_ERR;
}

bool pgr_summary_seed_is_cheaper(const struct pgr_run *r)
{
	const struct pgr_summary *s = r->summary;

	return s->incremental && pgr_delta_summary_is_cheaper(s->limits.changed, s->facts.block_bytes,
							      s->facts.database_bytes, s->facts.database_bytes);
}

/* ---- start ---- */

static bool same_spaces(const struct pgr_bb_tablespace *a, size_t na, const struct pgr_bb_tablespace *b, size_t nb)
{
	size_t found = 0;

	for (size_t i = 0; i < na; i++)
		for (size_t k = 0; k < nb; k++)
			found += a[i].oid == b[k].oid && strcmp(a[i].location, b[k].location) == 0;
	return na == nb && found == na;
}

/* What is here must be known before the backup begins, and so where it is. */
static int look_at_directory(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	if (pgr_summary_facts_spaces(s->sql, &s->spaces, &s->nspaces, err) != PGR_OK ||
	    pgr_layout_prepare_tablespaces(r->layout, s->spaces, s->nspaces, err) != PGR_OK)
		return PGR_ERR;
	return pgr_delta_look_scan(r, s->spaces, s->nspaces, err);
}

static int offer(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	struct pgr_upload u = {
		.system_identifier = r->id.system_identifier,
		.tree = &r->delta.tree,
		.limits = &s->limits,
		.page_bytes = s->facts.block_bytes,
		.segment_blocks = s->facts.segment_blocks,
		.tli = s->choice.from_tli,
		.redo = s->choice.from,
	};
	uint64_t bytes;
	size_t files;

	pgr_upload_count(&u, &files, &bytes);
	pgr_run_info(r,
		     "changes since %" PGR_LSN_FMT " are taken from the server's WAL summaries: %zu files with %" PRIu64
		     " bytes can be built upon",
		     PGR_LSN_ARG(s->choice.from), files, bytes);
	return pgr_upload_manifest(&u, r->client, err);
}

static int begin_backup(struct pgr_run *r, bool incremental, struct pgr_err *err)
{
	struct pgr_base_backup_cmd cmd = pgr_stream_seed_command(r);

	cmd.incremental = incremental;
	if (pgr_bbstream_start(&r->bb, r->client, &cmd, err) != PGR_OK)
		return PGR_ERR;
	r->start = pgr_bbstream_start_lsn(r->bb);
	r->start_tli = pgr_bbstream_start_tli(r->bb);
	if (r->manifest)
		return pgr_stream_check_new(&r->check, pgr_stream_seed_digest(r), r->stop, err);
	return PGR_OK;
}

/*
 * What the server is asked to build upon; from its answer on the summaries up to the start are there.  PGR_MORE: it has
 * other tablespaces by now, *err says so.
 */
static int agree(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *list;
	size_t n;

	if (offer(r, s, err) != PGR_OK || begin_backup(r, true, err) != PGR_OK)
		return PGR_ERR;
	n = pgr_bbstream_tablespaces(r->bb, &list);
	if (!same_spaces(s->spaces, s->nspaces, list, n)) {
		pgr_err_set(err, PGR_E_DATA, "the server's tablespaces have changed meanwhile");
		pgr_err_hint(err, "Run it again.");
		return PGR_MORE;
	}
	pgr_limits_fini(&s->limits);
	return pgr_limits_read(&s->limits, s->sql, &s->facts.history, s->choice.from, r->start, false, err);
}

/* A server may find something missing only when it is asked for the backup; nothing was changed by then. */
static int suggest_hash(struct pgr_err *err)
{
	if (err->hint[0] != '\0' || (err->cls != PGR_E_SERVER && err->cls != PGR_E_USAGE))
		return PGR_ERR;
	return pgr_err_hint(err, "--delta=hash needs no WAL summaries.");
}

/* PGR_MORE: it was begun anew, or another source has taken its place; *s is gone. */
static int begin_incremental(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	int rc;

	if (look_at_directory(r, s, err) != PGR_OK)
		return PGR_ERR;
	rc = agree(r, s, err);
	if (rc == PGR_OK) {
		end_session(s);
		return PGR_OK;
	}
	if (rc == PGR_MORE && pgr_delta_way_may_begin_again(r))
		return pgr_delta_way_begin_again(r, err) == PGR_OK ? PGR_MORE : PGR_ERR;
	if (pgr_delta_way_without_summaries(r, err) == PGR_OK)
		return PGR_MORE;
	return r->source == &pgr_summary_seed ? suggest_hash(err) : PGR_ERR;
}

static int begin_fresh(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *list;
	size_t n;

	if (begin_backup(r, false, err) != PGR_OK)
		return PGR_ERR;
	n = pgr_bbstream_tablespaces(r->bb, &list);
	if (pgr_layout_prepare_tablespaces(r->layout, list, n, err) != PGR_OK)
		return PGR_ERR;
	return pgr_delta_look_scan(r, list, n, err);
}

/*
 * What will be removed shows only when the server has sent its list of files, which it does in a backup.  A block that
 * several summaries name is counted as often.
 */
int pgr_summary_seed_look(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_summary *s = r->summary;
	struct pgr_upload u = {
		.tree = &r->delta.tree,
		.limits = &s->limits,
		.page_bytes = s->facts.block_bytes,
		.segment_blocks = s->facts.segment_blocks,
	};
	uint64_t bytes = 0, changed = s->limits.changed;
	size_t files = 0;

	if (s->incremental && look_at_directory(r, s, err) != PGR_OK)
		return PGR_ERR;
	pgr_upload_count(&u, &files, &bytes);
	if (changed > bytes / s->facts.block_bytes)
		changed = bytes / s->facts.block_bytes;
	pgr_run_print(r, "could be built upon: %zu files, %" PRIu64 " bytes", files, bytes);
	pgr_run_print(r, "would be fetched of them: at most %" PRIu64 " bytes", changed * s->facts.block_bytes);
	pgr_run_print(r, "all other files would be fetched as a whole, and what the server does not have be deleted");
	pgr_run_phase(r, PGR_PHASE_DONE);
	return PGR_OK;
}

static int summary_start(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_summary *s = r->summary;
	const struct pgr_bb_tablespace *list;
	size_t n;
	int rc;

	if (pgr_stream_seed_check_verify(r, err) != PGR_OK)
		return PGR_ERR;
	rc = s->incremental ? begin_incremental(r, s, err) : begin_fresh(r, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	n = pgr_bbstream_tablespaces(r->bb, &list);
	r->progress.tablespaces = (unsigned)n;
	for (size_t i = 0; i < n; i++)
		if (list[i].size_kb > 0)
			r->progress.total_bytes += (uint64_t)list[i].size_kb * 1024;
	return PGR_OK;
}

/* ---- copy ---- */

static void bad_file(void *arg, const char *line)
{
	pgr_run_warning(arg, "%s", line);
}

static int start_reading(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	struct pgr_kept_opts ko = {
		.sys = r->sys,
		.layout = r->layout,
		.stop = r->stop,
		.threads = KEPT_THREADS,
		.digest = r->manifest ? pgr_stream_seed_digest(r) : PGR_DIGEST_NONE,
		.pages = s->facts.checksum_version != 0 && r->opts->verify_checksums,
		.changed_from = s->choice.from,
		/* what was replayed here may be ahead of where a standby's backup begins */
		.changed_to = !s->incremental	     ? 0
			      : s->facts.in_recovery ? r->start
						     : UINT64_MAX,
		.sync = r->opts->sync,
		.page_bytes = s->facts.block_bytes,
		.segment_blocks = s->facts.segment_blocks,
		.bad = bad_file,
		.arg = r,
	};

	return pgr_kept_new(&s->kept, &ko, err);
}

static int take_archive(void *arg, const struct pgr_archive *a, struct pgr_source *source, struct pgr_err *err)
{
	struct pgr_run *r = arg;

	return pgr_patch_archive(&r->summary->patch, a, source, err);
}

/* Sizes of the server are those of whole files. */
static void on_file(void *arg, const char *path)
{
	struct pgr_run *r = arg;

	r->spared_bytes = r->summary->patch.saved_bytes;
	pgr_stream_seed_on_file(r, path);
}

static int receive(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	s->patch = (struct pgr_patch){
		.sys = r->sys,
		.stop = r->stop,
		.layout = r->layout,
		.pool = r->pool,
		.sink = r->sink,
		.check = r->check,
		.kept = s->kept,
		.tree = &r->delta.tree,
		.limits = s->incremental ? &s->limits : NULL,
		.keep = &r->delta.keep,
		.page_bytes = s->facts.block_bytes,
		.segment_blocks = s->facts.segment_blocks,
		.replace_recovery = r->opts->write_recovery_conf,
		.on_file = on_file,
		.arg = r,
	};
	if (pgr_stream_seed_receive(r, take_archive, r, false, err) != PGR_OK)
		return PGR_ERR;
	if (s->patch.control.len == 0 || s->patch.label.len == 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server's backup has no file \"%s\"",
				   s->patch.control.len == 0 ? CONTROL_NAME : LABEL_NAME);
	return pgr_buf_put(&r->control, s->patch.control.data, s->patch.control.len, err);
}

static int tick(void *arg, struct pgr_err *err)
{
	struct pgr_run *r = arg;

	pgr_run_report(r, false);
	return pgr_stop_check(r->stop, err);
}

/* What came has taken the place of what was there, whatever that was. */
static void spare_what_came(struct pgr_delta_plan *p, const struct pgr_filelist *list)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->nremovals; i++) {
		if (pgr_filelist_find(list, p->removals[i]) == NULL)
			p->removals[kept++] = p->removals[i];
		else
			free(p->removals[i]);
	}
	p->nremovals = kept;
}

/* What the server did not send goes away. */
static int sweep(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	struct pgr_delta_plan *plan = &r->delta.plan;

	if (pgr_arrivals_list(&s->patch.came, r->version, &r->list, err) != PGR_OK ||
	    pgr_delta_plan_make(plan, &r->list, &r->delta.tree, r->layout, &r->delta.keep, err) != PGR_OK)
		return PGR_ERR;
	spare_what_came(plan, &r->list);
	return pgr_delta_plan_remove(plan, r->sys, r->layout, tick, r, err);
}

/* What cannot be built upon is compared or copied by the next run. */
static int finish_reading(struct pgr_run *r, struct pgr_summary *s, struct pgr_err *err)
{
	struct pgr_err later;

	if (pgr_kept_finish(s->kept, err) == PGR_OK)
		return PGR_OK;
	if (pgr_kept_is_foreign(s->kept) &&
	    pgr_olddir_distrust(r->delta.dir, pgr_layout_root(r->layout, 0), &later) != PGR_OK)
		*err = later;
	return PGR_ERR;
}

/* It is on the wire by now, and the WAL need not wait for the files that are still being read here. */
static int take_end(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_stream_seed_end(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->wal != NULL)
		pgr_wal_stream_end_at(r->wal, r->end);
	return PGR_OK;
}

static int summary_copy(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_summary *s = r->summary;

	if (start_reading(r, s, err) != PGR_OK || receive(r, s, err) != PGR_OK || take_end(r, err) != PGR_OK ||
	    pgr_dirsink_drain(r->sink, err) != PGR_OK || finish_reading(r, s, err) != PGR_OK ||
	    sweep(r, s, err) != PGR_OK)
		return PGR_ERR;
	if (s->patch.skipped_links > 0)
		pgr_run_warning(
			r, "%zu links of tablespaces that were created meanwhile were left out; recovery makes them",
			s->patch.skipped_links);
	pgr_run_info(r, "%zu files were changed in place, %zu came whole, %zu stayed; %" PRIu64 " bytes did not come",
		     s->patch.patched, s->patch.whole, s->patch.left, s->patch.saved_bytes);
	return PGR_OK;
}

/* ---- end ---- */

static int add_wal(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	struct pgr_history h;
	int rc;

	if (r->end_tli == 0 || r->end_tli == r->start_tli)
		return pgr_manifest_add_wal(w, r->start_tli, r->start, r->end, err);
	if (pgr_summary_facts_history(r->client, r->end_tli, &h, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_run_manifest_add_wal(r, w, &h, err);
	pgr_history_fini(&h);
	return rc;
}

static int fill_manifest(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	const struct pgr_summary *s = r->summary;
	enum pgr_digest_algo algo = pgr_stream_seed_digest(r);

	if (pgr_arrivals_manifest(&s->patch.came, w, algo, err) != PGR_OK ||
	    pgr_delta_kept_add(r, w, algo, err) != PGR_OK ||
	    pgr_run_manifest_add_own(w, LABEL_NAME, &s->label, s->patch.label_mtime, algo, err) != PGR_OK ||
	    pgr_run_manifest_add_own(w, CONTROL_NAME, &r->control, s->patch.control_mtime, algo, err) != PGR_OK)
		return PGR_ERR;
	return add_wal(r, w, err);
}

static int summary_finish(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_summary *s = r->summary;

	if (pgr_full_label(&s->label, s->patch.label.data, s->patch.label.len, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_fs_write_file(r->sys, pgr_layout_root(r->layout, 0), pgr_layout_data_dir(r->layout), LABEL_NAME,
			      PGR_PATCH_SUFFIX, s->label.data, s->label.len, pgr_layout_file_mode(r->layout),
			      r->opts->sync, err) != PGR_OK)
		return PGR_ERR;
	return r->manifest ? pgr_run_manifest_write(r, fill_manifest, err) : PGR_OK;
}

/* ---- when what came is not what the server sent ---- */

/* Nothing that came in this run may be built upon: it comes whole the next time. */
static void forget_what_came(struct pgr_run *r)
{
	for (const struct pgr_arrival *e = r->summary->patch.came.first; e != NULL; e = e->next) {
		const char *rest, *leaf;
		struct pgr_relfile rel;
		struct pgr_err ignored;
		int root, dirfd;

		if (e->is_dir || !pgr_relfile_parse(e->path, &rel))
			continue;
		pgr_layout_resolve(r->layout, e->path, &root, &rest);
		if (pgr_fs_open_parent(r->sys, root, rest, &dirfd, &leaf, &ignored) != PGR_OK)
			continue;
		if (r->sys->unlinkat(r->sys, dirfd, leaf, 0) != 0)
			pgr_run_warning(r, "could not remove file \"%s\", which may be damaged", e->path);
		(void)r->sys->close(r->sys, dirfd); /* it was only used to find the name */
	}
}

static int summary_verify(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_stream_seed_verify(r, err) == PGR_OK)
		return PGR_OK;
	if (err->cls == PGR_E_DATA)
		forget_what_came(r);
	return PGR_ERR;
}

void pgr_summary_seed_release(struct pgr_run *r)
{
	struct pgr_summary *s = r->summary;

	if (s == NULL)
		return;
	pgr_kept_free(s->kept);
	pgr_patch_fini(&s->patch);
	pgr_client_free(s->sql);
	pgr_summary_facts_fini(&s->facts);
	pgr_limits_fini(&s->limits);
	pgr_listing_tablespaces_free(s->spaces, s->nspaces);
	pgr_buf_fini(&s->label);
	free(s);
	r->summary = NULL;
}

const struct pgr_seed_source pgr_summary_seed = {
	.start = summary_start,
	.copy = summary_copy,
	.finish = summary_finish,
	.verify = summary_verify,
};
