#include "backup/delta_seed.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_doubt.h"
#include "backup/filelist.h"
#include "backup/finish.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "backup/lowlevel.h"
#include "backup/manifest.h"
#include "backup/manifest_edit.h"
#include "backup/olddir.h"
#include "backup/run.h"
#include "common/fs.h"
#include "common/num.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"

#define LABEL_NAME "backup_label"

static bool is_delta(const struct pgr_run *r)
{
	return r->delta.dir != NULL;
}

static bool compares(const struct pgr_run *r)
{
	return r->source == &pgr_lanes_seed;
}

/* ---- looking and choosing ---- */

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

int pgr_delta_seed_check_server(struct pgr_run *r, struct pgr_err *err)
{
	if (!is_delta(r))
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
	return is_delta(r) && pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_UNFINISHED;
}

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
		pgr_err_hint(err, compares(r) ? "--delta=hash compares the files themselves, whatever they hold."
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
	if (!forced && compares(r) && pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_EMPTY)
		return PGR_MORE;
	if (pgr_summary_seed_open(r, err) != PGR_OK) {
		if (forced)
			return refuse_summaries(r, err);
		if (is_fatal(err))
			return PGR_ERR;
		pgr_run_info(r, "the server's WAL summaries cannot be used: %s", err->msg);
		return PGR_MORE;
	}
	if (forced || !compares(r) || pgr_summary_seed_is_cheaper(r)) {
		r->source = &pgr_summary_seed;
		return PGR_OK;
	}
	pgr_run_info(r, "the server's WAL summaries are not used: nearly everything has changed");
	pgr_summary_seed_release(r);
	return PGR_MORE;
}

int pgr_delta_seed_choose(struct pgr_run *r, struct pgr_err *err)
{
	int rc;

	if (!is_delta(r))
		return PGR_OK;
	if (r->opts->delta == PGR_DELTA_HASH && !compares(r))
		return pgr_err_set(err, PGR_E_USAGE, "--delta=hash cannot be used: %s", r->why_stream);
	rc = try_summaries(r, err);
	if (rc != PGR_MORE)
		return rc;
	if (!compares(r))
		announce_full(r);
	return PGR_OK;
}

int pgr_delta_seed_fall_back(struct pgr_run *r, struct pgr_err *err)
{
	if (!is_delta(r))
		return PGR_OK;
	if (r->opts->delta == PGR_DELTA_HASH)
		return pgr_err_prefix(err, "--delta=hash cannot be used");
	announce_full(r);
	return PGR_OK;
}

const char *pgr_delta_seed_version_dir(const struct pgr_run *r, struct pgr_delta_version_dir *out)
{
	const struct pgr_controlfile *c = is_delta(r) ? pgr_olddir_control(r->delta.dir) : NULL;

	if (c == NULL)
		return NULL;
	snprintf(out->text, sizeof(out->text), "PG_%d_%" PRIu32, r->version / 10000, c->catalog_version);
	return out->text;
}

/* ---- before the first change ---- */

/* Not every role may know it. */
static void ask_server_dir(struct pgr_run *r)
{
	struct pgr_err why;

	if (pgr_client_show(r->client, "data_directory", &r->delta.server_dir, &why) != PGR_OK)
		r->delta.server_dir.len = 0;
}

/* Without an SQL session, and without making a file to be looked for, there is no better way to find out. */
static int check_apart_by_name(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	const char **locations = calloc(n + 2, sizeof(*locations));
	bool local = r->delta.server_is_local;
	size_t k = 0;
	int rc;

	if (locations == NULL)
		return pgr_err_nomem(err);
	if (r->delta.server_dir.len > 0 && pgr_buf_str(&r->delta.server_dir) != NULL)
		locations[k++] = (const char *)r->delta.server_dir.data;
	for (size_t i = 0; i < n; i++)
		if (list[i].oid != 0 && list[i].location[0] == '/')
			locations[k++] = list[i].location;
	rc = pgr_olddir_check_apart_by_name(r->delta.dir, r->layout, local, locations, err);
	free(locations);
	return rc;
}

static int check_apart(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (r->lowlevel != NULL && !r->opts->dry_run)
		return pgr_olddir_check_apart(r->delta.dir, r->layout, pgr_lowlevel_client(r->lowlevel), err);
	return check_apart_by_name(r, list, n, err);
}

int pgr_delta_seed_check_layout(struct pgr_run *r, struct pgr_err *err)
{
	if (!is_delta(r))
		return PGR_OK;
	r->delta.server_is_local = pgr_client_transport(r->client)->server_is_local;
	if (r->lowlevel == NULL || r->opts->dry_run)
		ask_server_dir(r);
	return check_apart(r, NULL, 0, err);
}

int pgr_delta_seed_look(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (check_apart(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	return pgr_localtree_scan(&r->delta.tree, r->sys, r->layout, err);
}

/* A finished directory has nothing of that kind. */
static int doubt_kept(struct pgr_run *r, const struct pgr_filelist *list, struct pgr_err *err)
{
	const struct pgr_delta_doubt doubt = {
		.sys = r->sys,
		.layout = r->layout,
		.tree = &r->delta.tree,
		.list = list,
		.keep = &r->delta.keep,
	};

	return pgr_delta_seed_goes_on(r) ? pgr_delta_doubt_kept(&doubt, &r->delta.plan, err) : PGR_OK;
}

int pgr_delta_seed_plan_compare(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (!is_delta(r))
		return PGR_OK;
	if (check_apart(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_localtree_scan(&r->delta.tree, r->sys, r->layout, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_delta_plan_make(&r->delta.plan, &r->list, &r->delta.tree, r->layout, &r->delta.keep, err) != PGR_OK)
		return PGR_ERR;
	return doubt_kept(r, &r->list, err);
}

/*
 * What is in a tablespace's directory is this cluster's only below its version directory, whose name not even the old
 * copy may tell: all of this major version count.
 */
static int list_version_dirs(struct pgr_run *r, struct pgr_filelist *out, struct pgr_err *err)
{
	const struct pgr_localtree *t = &r->delta.tree;
	const char *rest;

	if (pgr_filelist_add(out, r->version, "pg_tblspc", strlen("pg_tblspc"), true, 0, 0, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < t->n; i++) {
		const char *path = t->entries[i].path;

		if (pgr_layout_location(r->layout, path, &rest) == NULL || strchr(rest, '/') != NULL)
			continue;
		if (rest[0] != '\0' && t->entries[i].type != PGR_LOCAL_DIR)
			continue;
		if (pgr_filelist_add(out, r->version, path, strlen(path), true, 0, 0, err) != PGR_OK)
			return PGR_ERR;
	}
	return pgr_filelist_finish(out, err);
}

int pgr_delta_seed_plan_full(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	struct pgr_delta_seed *d = &r->delta;
	struct pgr_filelist stays = {0};
	int rc;

	if (!is_delta(r))
		return PGR_OK;
	if (check_apart(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_localtree_scan(&d->tree, r->sys, r->layout, err) != PGR_OK)
		return PGR_ERR;
	rc = list_version_dirs(r, &stays, err);
	if (rc == PGR_OK)
		rc = pgr_delta_plan_make(&d->plan, &stays, &d->tree, r->layout, &r->delta.keep, err);
	pgr_filelist_fini(&stays);
	return rc == PGR_OK ? doubt_kept(r, NULL, err) : PGR_ERR;
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

	if (!is_delta(r))
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
	    pgr_layout_take_over(r->layout, err) != PGR_OK || pgr_layout_link_tablespaces(r->layout, err) != PGR_OK)
		return PGR_ERR;
	warn_of_leftovers(r);
	if (d->plan.nremovals > 0)
		pgr_run_info(r, "removing %zu files and directories%s", d->plan.nremovals,
			     compares(r) ? " that the server does not have" : "");
	return pgr_delta_plan_remove(&d->plan, r->sys, r->layout, tick, r, err);
}

/* ---- what stays ---- */

static bool is_kept_here(const struct pgr_run *r, const struct pgr_local_entry *e)
{
	const struct pgr_list_entry *listed = r->delta.plan.n > 0 ? pgr_filelist_find(&r->list, e->path) : NULL;

	if (listed != NULL && compares(r) && r->delta.plan.files[listed - r->list.entries].action != PGR_DELTA_KEEP)
		return false;
	return e->type == PGR_LOCAL_FILE && pgr_keep_matches(&r->delta.keep, e->path);
}

static int sum_fd(struct pgr_run *r, int fd, const char *path, struct pgr_digest *d, uint64_t *size,
		  struct pgr_err *err)
{
	char buf[65536];
	ssize_t n;

	for (*size = 0;; *size += (uint64_t)n) {
		do
			n = r->sys->read(r->sys, fd, buf, sizeof(buf));
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s\"", path);
		if (n == 0)
			return PGR_OK;
		if (pgr_digest_add(d, buf, (size_t)n, err) != PGR_OK)
			return PGR_ERR;
	}
}

static int add_kept_file(struct pgr_run *r, struct pgr_manifest_writer *w, enum pgr_digest_algo algo, const char *path,
			 struct pgr_err *err)
{
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d = NULL;
	struct stat st;
	uint64_t size;
	size_t len;
	int fd, rc;

	if (pgr_localtree_open(r->sys, r->layout, path, &fd, err) != PGR_OK)
		return PGR_ERR;
	rc = r->sys->fstat(r->sys, fd, &st) == 0 ? PGR_OK : pgr_err_sys(err, errno, "could not stat file \"%s\"", path);
	if (rc == PGR_OK)
		rc = pgr_digest_new(&d, algo, err);
	if (rc == PGR_OK)
		rc = sum_fd(r, fd, path, d, &size, err);
	if (rc == PGR_OK)
		rc = pgr_digest_end(d, sum, &len, err);
	pgr_digest_free(d);
	(void)r->sys->close(r->sys, fd); /* it was only read */
	if (rc != PGR_OK)
		return PGR_ERR;
	return pgr_manifest_add_file(w, path, size, (int64_t)st.st_mtime, algo, sum, len, err);
}

/* Those that the server has, too, are the lanes' to sum. */
int pgr_delta_seed_add_kept(struct pgr_run *r, struct pgr_manifest_writer *w, enum pgr_digest_algo algo,
			    struct pgr_err *err)
{
	const struct pgr_localtree *t = &r->delta.tree;

	for (size_t i = 0; i < t->n; i++)
		if (is_kept_here(r, &t->entries[i]) && pgr_filelist_find(&r->list, t->entries[i].path) == NULL &&
		    add_kept_file(r, w, algo, t->entries[i].path, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

struct amount {
	uint64_t files, bytes;
};

static struct amount kept(const struct pgr_run *r)
{
	const struct pgr_localtree *t = &r->delta.tree;
	struct amount a = {0};

	for (size_t i = 0; i < t->n; i++)
		if (is_kept_here(r, &t->entries[i])) {
			a.files++;
			a.bytes += t->entries[i].size;
		}
	return a;
}

static int put_into_buf(void *arg, const void *data, size_t len, struct pgr_err *err)
{
	return pgr_buf_put(arg, data, len, err);
}

/* A manifest of the kept files. */
static int make_kept_manifest(struct pgr_run *r, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_manifest_writer *w;
	int rc;

	if (pgr_manifest_writer_new(&w, r->version, r->id.system_identifier, r->opts->manifest_force_encode,
				    put_into_buf, out, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_delta_seed_add_kept(r, w, pgr_stream_seed_digest(r), err);
	if (rc == PGR_OK)
		rc = pgr_manifest_add_wal(w, r->start_tli, r->start, r->end, err);
	if (rc == PGR_OK)
		rc = pgr_manifest_writer_end(w, err);
	pgr_manifest_writer_free(w);
	return rc;
}

static bool is_path_kept(void *arg, const char *path)
{
	const struct pgr_run *r = arg;
	const struct pgr_local_entry *e = pgr_localtree_find(&r->delta.tree, path);

	return e != NULL && is_kept_here(r, e);
}

#define MANIFEST_MOST_BYTES ((size_t)1 << 30) /* some six million files */

int pgr_delta_seed_edit_manifest(struct pgr_run *r, struct pgr_err *err)
{
	int root = is_delta(r) ? pgr_layout_root(r->layout, 0) : -1;
	struct pgr_buf more = {0}, edited = {0};
	char *text = NULL;
	size_t len;
	int rc;

	if (!is_delta(r) || !r->manifest || kept(r).files == 0)
		return PGR_OK;
	rc = pgr_fs_read_file(r->sys, root, r->opts->data_dir, PGR_MANIFEST_TMP, MANIFEST_MOST_BYTES, &text, &len, err);
	if (rc == PGR_MORE)
		rc = pgr_err_set(err, PGR_E_DATA, "file \"%s/%s\" is gone", r->opts->data_dir, PGR_MANIFEST_TMP);
	if (rc == PGR_OK)
		rc = make_kept_manifest(r, &more, err);
	if (rc == PGR_OK) {
		const struct pgr_manifest_edit e = {
			.drops = is_path_kept, .arg = r, .more = (const char *)more.data, .more_len = more.len};

		rc = pgr_manifest_apply(&e, text, len, &edited, err);
	}
	if (rc == PGR_OK)
		rc = pgr_fs_write_file(r->sys, root, r->opts->data_dir, PGR_MANIFEST_TMP, ".new", edited.data,
				       edited.len, pgr_layout_file_mode(r->layout), r->opts->sync, err);
	free(text);
	pgr_buf_fini(&more);
	pgr_buf_fini(&edited);
	return rc;
}

/* ---- what it came to ---- */

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
static struct amount removed(const struct pgr_run *r)
{
	const struct pgr_delta_seed *d = &r->delta;
	struct amount a = {0};

	for (size_t i = 0; i < d->plan.nremovals; i++) {
		const struct pgr_local_entry *e = pgr_localtree_find(&d->tree, d->plan.removals[i]);

		if (e == NULL || e->type == PGR_LOCAL_DIR || is_written_anew(r, e->path))
			continue;
		a.files++;
		a.bytes += e->size;
	}
	return a;
}

void pgr_delta_seed_tell(struct pgr_run *r)
{
	struct amount gone;
	struct pgr_delta_figures f;

	if (!is_delta(r) || r->source == &pgr_summary_seed) /* which tells itself */
		return;
	gone = removed(r);
	if (!compares(r)) {
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

/* ---- the end ---- */

/* Files that did not change may still wait in memory for the disk, since a run that was killed, too. */
int pgr_delta_seed_sync(struct pgr_run *r, struct pgr_err *err)
{
	if (!is_delta(r) || pgr_olddir_kind(r->delta.dir) == PGR_OLDDIR_EMPTY || !r->opts->sync ||
	    r->opts->sync_method == PGR_SYNC_SYNCFS)
		return PGR_OK;
	if (pgr_layout_syncfs(r->layout, err) != PGR_OK)
		return PGR_ERR;
	return pgr_localtree_syncfs(&r->delta.tree, r->sys, r->layout, err);
}

int pgr_delta_seed_settle(struct pgr_run *r, struct pgr_err *err)
{
	if (!is_delta(r))
		return PGR_OK;
	return pgr_olddir_finish(r->delta.dir, pgr_layout_root(r->layout, 0), r->opts->sync, err);
}

void pgr_delta_seed_done(struct pgr_run *r)
{
	r->delta.begun = false;
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

/* ---- a dry run ---- */

static void print_amount(struct pgr_run *r, const char *what, struct amount a)
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
	for (size_t i = 0; i < p->n && compares(r); i++)
		if (p->files[i].action == PGR_DELTA_FETCH)
			pgr_run_print(r, "make %s", r->list.entries[i].path);
}

int pgr_delta_seed_dry_run(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_delta_figures f = {0};
	int rc;

	pgr_run_phase(r, PGR_PHASE_COPY);
	if (r->source == &pgr_summary_seed)
		return pgr_summary_seed_look(r, err);
	rc = compares(r) ? pgr_lanes_seed_compare(r, err) : pgr_delta_seed_plan_full(r, NULL, 0, err);
	if (rc != PGR_OK)
		return PGR_ERR;
	pgr_run_report(r, true);
	print_paths(r);
	if (compares(r)) {
		pgr_lanes_figures(r->lanes, &f);
		print_amount(r, "compared", (struct amount){f.files_same + f.files_changed, f.compared});
		print_amount(r, "the same", (struct amount){f.files_same, f.same});
		print_amount(r, "would be fetched", (struct amount){f.files_changed + f.files_new, f.fetched});
	}
	print_amount(r, "would be kept", kept(r));
	print_amount(r, "would be deleted", removed(r));
	print_amount(r, "WAL that would be deleted", (struct amount){r->delta.plan.nwal, r->delta.plan.wal_bytes});
	pgr_run_phase(r, PGR_PHASE_DONE);
	return PGR_OK;
}
