/*
 * The lanes source: the low-level backup API held open by a coordinator, the files read over SQL.
 *
 * What makes such a copy right (PostgreSQL documentation, "Making a Base Backup Using the Low Level API"): the slot is
 * there before the start, the list is made after it, pg_control is read after every other byte and before the stop,
 * backup_label is written byte for byte as the server gives it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_kept.h"
#include "backup/delta_look.h"
#include "backup/delta_way.h"
#include "backup/dirsink.h"
#include "backup/finish.h"
#include "backup/lane_sessions.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "backup/lowlevel.h"
#include "backup/manifest.h"
#include "backup/pagecheck.h"
#include "backup/run.h"
#include "backup/run_manifest.h"
#include "backup/sql.h"
#include "backup/wal_stream.h"
#include "common/digest.h"
#include "common/fs_dir.h"
#include "common/fs_io.h"
#include "common/num.h"
#include "common/sys.h"
#include "receiver/history.h"

#define LABEL_NAME    "backup_label"
#define CONTROL_NAME  "global/pg_control"
#define HISTORY_LIMIT ((size_t)1 << 20)

static enum pgr_digest_algo digest_of(const struct pgr_run *r)
{
	enum pgr_digest_algo algo = PGR_DIGEST_CRC32C;

	if (!r->manifest)
		return PGR_DIGEST_NONE;
	if (r->opts->manifest_checksums != NULL && !pgr_digest_parse(r->opts->manifest_checksums, &algo))
		return PGR_DIGEST_NONE; /* refused before: see check_options */
	return algo;
}

/* ---- start ---- */

/* A message of a lane's thread: printing is the tool's, which may be told from any thread. */
static void lane_info(void *arg, const char *line)
{
	struct pgr_run *r = arg;

	pgr_run_warning(r, "%s", line);
}

static void lane_notice(void *arg, const char *text)
{
	struct pgr_run *r = arg;

	if (r->opts->notice != NULL)
		r->opts->notice(r->opts->arg, text);
}

static int check_options(const struct pgr_run *r, struct pgr_err *err)
{
	enum pgr_digest_algo algo;

	if (r->opts->manifest_checksums != NULL && !pgr_digest_parse(r->opts->manifest_checksums, &algo))
		return pgr_err_set(err, PGR_E_USAGE, "unrecognized checksum algorithm: \"%s\"",
				   r->opts->manifest_checksums);
	return PGR_OK;
}

static int check_rights(struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_buf why = {0};
	int rc = pgr_sql_may_read(c, &why, err);

	if (rc == PGR_MORE) {
		pgr_err_set(err, PGR_E_USAGE, "%s",
			    pgr_buf_str(&why) != NULL ? (const char *)why.data : "not permitted");
		pgr_err_hint(err, "--print-grants shows the SQL that permits it; --jobs=1 needs only REPLICATION.");
		rc = PGR_ERR;
	}
	pgr_buf_fini(&why);
	return rc;
}

/* Nobody is asked for a password only to find out whether lanes could be used, nor by several lanes at once. */
static int connect_coordinator(struct pgr_run *r, struct pgr_err *err)
{
	int (*ask)(void *, char **, struct pgr_err *) = r->params->ask_password;
	int rc;

	if (r->opts->jobs == 0 && r->opts->delta != PGR_DELTA_HASH)
		r->params->ask_password = NULL;
	rc = pgr_sql_connect(&r->sql, r->params, r->sys, r->stop, r->opts->notice, r->opts->arg, err);
	r->params->ask_password = rc == PGR_OK ? NULL : ask;
	return rc;
}

/* All that must be known of the session: see open_coordinator. */
static int ask_coordinator_ahead(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_sql_shield_ahead(r->sql, err) != PGR_OK || pgr_sql_may_read_ahead(r->sql, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lanes_server_id_ahead(r->sql, err);
}

void pgr_lanes_seed_connect(struct pgr_run *r)
{
	if (check_options(r, &r->sql_err) == PGR_OK && connect_coordinator(r, &r->sql_err) == PGR_OK &&
	    ask_coordinator_ahead(r, &r->sql_err) == PGR_OK)
		return;
	pgr_client_free(r->sql);
	r->sql = NULL;
}

/*
 * Nothing of another server's files belongs into this backup, and it would not show: each lane compares.  The cluster
 * must be that of the replication connection, since a host list or a balancer may have led elsewhere.
 */
static int ask_which_server(struct pgr_run *r, struct pgr_err *err)
{
	size_t len = strlen(r->id.system_identifier);

	r->server_id.len = 0;
	if (pgr_lanes_server_id(r->sql, &r->server_id, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_str(&r->server_id) == NULL)
		return pgr_err_nomem(err);
	if (r->server_id.len > len && memcmp(r->server_id.data, r->id.system_identifier, len) == 0 &&
	    r->server_id.data[len] == ' ')
		return PGR_OK;
	return pgr_err_set(err, PGR_E_USAGE, "system identifier does not match between SQL and replication connection");
}

/* From here on the lanes' sessions are opened, whatever else is waited for. */
static int open_lanes(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_lane_sessions_opts o = {.n = r->jobs, .params = r->params, .notice = lane_notice, .arg = r};

	return r->sessions != NULL ? PGR_OK : pgr_lane_sessions_start(&r->sessions, &o, r->sys, r->stop, err);
}

/* With --delta=auto there may be a better way than lanes. */
static bool are_lanes_certain(const struct pgr_run *r)
{
	return r->opts->delta == PGR_DELTA_OFF || r->opts->delta == PGR_DELTA_HASH;
}

static int check_coordinator(struct pgr_run *r, struct pgr_err *err)
{
	if (check_rights(r->sql, err) != PGR_OK || ask_which_server(r, err) != PGR_OK)
		return PGR_ERR;
	return are_lanes_certain(r) ? open_lanes(r, err) : PGR_OK;
}

/* What the first answer allows is done while the second one is on its way. */
static int open_coordinator(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_result *mark;
	struct pgr_client *c;

	if (pgr_sql_shield(r->sql, &mark, err) != PGR_OK)
		return PGR_ERR;
	if (check_coordinator(r, err) != PGR_OK) {
		pgr_result_free(mark);
		return PGR_ERR;
	}
	if (pgr_sql_confirm(r->sql, mark, err) != PGR_OK)
		return PGR_ERR;
	c = r->sql;
	r->sql = NULL;
	if (pgr_lowlevel_new(&r->lowlevel, c, err) != PGR_OK)
		return PGR_ERR;
	return r->opts->verify_transfer ? pgr_lowlevel_verify(r->lowlevel, lane_info, r, err) : PGR_OK;
}

static void close_sessions(struct pgr_run *r)
{
	pgr_lane_sessions_free(r->sessions);
	r->sessions = NULL;
	pgr_client_free(r->sql);
	r->sql = NULL;
	pgr_lowlevel_free(r->lowlevel);
	r->lowlevel = NULL;
}

static int parse_setting(const struct pgr_result *res, unsigned col, uint32_t *out, struct pgr_err *err)
{
	const char *v = pgr_result_cell(res, 0, col, NULL);

	if (v == NULL || !pgr_num_u32(v, strlen(v), out))
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent an invalid block or segment size");
	return PGR_OK;
}

static const char page_settings[] = "SELECT current_setting('data_checksums'), current_setting('block_size'), setting"
				    " FROM pg_settings WHERE name = 'segment_size'";

/* Checks pages as BASE_BACKUP does: only where the cluster has checksums. */
static int prepare_page_check(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_result *res;
	uint32_t page_bytes, segment_blocks;
	const char *on;
	int rc;

	if (!r->opts->verify_checksums)
		return PGR_OK;
	if (pgr_sql_query(pgr_lowlevel_client(r->lowlevel), &res, err, "%s", page_settings) != PGR_OK)
		return PGR_ERR;
	on = pgr_result_cell(res, 0, 0, NULL);
	rc = parse_setting(res, 1, &page_bytes, err);
	if (rc == PGR_OK)
		rc = parse_setting(res, 2, &segment_blocks, err);
	if (rc == PGR_OK && on != NULL && strcmp(on, "on") == 0)
		rc = pgr_pagecheck_new(&r->pages, page_bytes, segment_blocks, r->start, err);
	pgr_result_free(res);
	return rc;
}

int pgr_lanes_seed_open(struct pgr_run *r, struct pgr_err *err)
{
	if (r->sql == NULL)
		*err = r->sql_err;
	else if (open_coordinator(r, err) == PGR_OK)
		return PGR_OK;
	close_sessions(r);
	return PGR_ERR;
}

/* The timeline of the checkpoint that the backup starts from; what backup_label says is not known before the end. */
static const char start_timeline[] = "SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint()";

static int ask_start_timeline(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_result *res;
	const char *tli;
	size_t len;
	int rc = PGR_OK;

	if (pgr_sql_query(pgr_lowlevel_client(r->lowlevel), &res, err, "%s", start_timeline) != PGR_OK)
		return PGR_ERR;
	tli = pgr_result_cell(res, 0, 0, &len);
	if (tli == NULL || !pgr_num_u32(tli, len, &r->start_tli) || r->start_tli == 0)
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "the server does not say on which timeline it is");
	pgr_result_free(res);
	return rc;
}

/* In the order in which start_backup wants to know it. */
static int ask_start_ahead(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_client *c = pgr_lowlevel_client(r->lowlevel);

	if (pgr_lowlevel_start_ahead(r->lowlevel, r->opts->label, r->opts->fast_checkpoint, err) != PGR_OK ||
	    pgr_sql_ask_ahead(c, err, "%s", start_timeline) != PGR_OK)
		return PGR_ERR;
	if (r->opts->verify_checksums && pgr_sql_ask_ahead(c, err, "%s", page_settings) != PGR_OK)
		return PGR_ERR;
	return pgr_lowlevel_list_ahead(r->lowlevel, err);
}

static int start_backup(struct pgr_run *r, struct pgr_err *err)
{
	if (ask_start_ahead(r, err) != PGR_OK ||
	    pgr_lowlevel_start(r->lowlevel, r->opts->label, r->opts->fast_checkpoint, &r->start, err) != PGR_OK)
		return PGR_ERR;
	return ask_start_timeline(r, err) == PGR_OK ? prepare_page_check(r, err) : PGR_ERR;
}

/*
 * The list shows whether SQL can name every file.  If it cannot, and nobody insisted on lanes, ending the coordinator's
 * session takes the started backup back, and the stream begins its own: the WAL stream, which has not been told a
 * position yet, serves that one as well.
 */
static int start_and_list(struct pgr_run *r, struct pgr_err *err)
{
	if (start_backup(r, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_lowlevel_list(r->lowlevel, &r->list, err) == PGR_OK)
		return PGR_OK;
	if (err->cls != PGR_E_USAGE || r->opts->jobs != 0)
		return PGR_ERR;
	close_sessions(r);
	return PGR_MORE;
}

/* The run's first connection is of no use to lanes: idle, it would only time out (idle_session_timeout). */
static void drop_first_connection(struct pgr_run *r)
{
	pgr_client_free(r->client);
	r->client = NULL;
}

static int lanes_start(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *list;
	size_t n;
	int rc;

	drop_first_connection(r);
	if (open_lanes(r, err) != PGR_OK)
		return PGR_ERR;
	rc = start_and_list(r, err);
	if (rc == PGR_MORE) {
		pgr_run_info(r, "copying through one stream: %s", err->msg);
		snprintf(r->why_stream, sizeof(r->why_stream), "%s", err->msg);
		r->source = &pgr_stream_seed;
		if (pgr_delta_way_without_lanes(r, err) != PGR_OK)
			return PGR_ERR;
		return pgr_run_reconnect(r, err) == PGR_OK ? r->source->start(r, err) : PGR_ERR;
	}
	if (rc != PGR_OK)
		return PGR_ERR;
	if (!r->list.has_control)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server's data directory has no file \"%s\"", CONTROL_NAME);
	if (pgr_lowlevel_tablespaces(r->lowlevel, &list, &n, err) != PGR_OK)
		return PGR_ERR;
	r->progress.tablespaces = (unsigned)n;
	r->progress.total_bytes = r->list.total_bytes;
	if (pgr_layout_prepare_tablespaces(r->layout, list, n, err) != PGR_OK)
		return PGR_ERR;
	return pgr_delta_look_compare(r, list, n, err);
}

/* ---- directories and links ---- */

static int make_directory(struct pgr_run *r, const char *path, struct pgr_err *err)
{
	const char *rest, *leaf;
	int root, parent, rc = PGR_OK;

	pgr_layout_resolve(r->layout, path, &root, &rest);
	if (rest[0] == '\0')
		return PGR_OK; /* the layout has made it */
	if (pgr_fs_open_parent(r->sys, root, rest, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (r->sys->mkdirat(r->sys, parent, leaf, pgr_layout_dir_mode(r->layout)) != 0 && errno != EEXIST)
		rc = pgr_err_sys(err, errno, "could not create directory \"%s\"", path);
	if (r->sys->close(r->sys, parent) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close the directory of \"%s\"", path);
	return rc;
}

/* In a delta; or its place is taken by something that the user keeps. */
static bool is_there(const struct pgr_run *r, size_t i)
{
	return r->delta.plan.n > 0 && r->delta.plan.files[i].action == PGR_DELTA_KEEP;
}

/* A directory that was here becomes what a new one would be. */
static int mend_mode(struct pgr_run *r, const char *path, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->sys;
	mode_t mode = pgr_layout_dir_mode(r->layout);
	const char *rest, *leaf;
	int root, parent, fd, rc = PGR_OK;
	struct stat st;

	pgr_layout_resolve(r->layout, path, &root, &rest);
	if (rest[0] == '\0' || pgr_keep_matches(&r->delta.keep, path))
		return PGR_OK;
	if (pgr_fs_open_parent(sys, root, rest, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	fd = sys->openat(sys, parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0 && errno == ENOENT)
		rc = PGR_OK; /* in pg_wal, which was emptied: the layout has made what must be there */
	else if (fd < 0 || sys->fstat(sys, fd, &st) != 0)
		rc = pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
	else if ((st.st_mode & 07777) != mode && sys->fchmod(sys, fd, mode) != 0)
		rc = pgr_err_sys(err, errno, "could not set permissions on directory \"%s\"", path);
	if (fd >= 0)
		(void)sys->close(sys, fd); /* nothing was written through it */
	(void)sys->close(sys, parent);
	return rc;
}

static int make_directories(struct pgr_run *r, struct pgr_err *err)
{
	int wal_root;

	if (pgr_layout_wal_root(r->layout, &wal_root, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < r->list.n; i++)
		if (r->list.entries[i].is_dir &&
		    (is_there(r, i) ? mend_mode(r, r->list.entries[i].path, err)
				    : make_directory(r, r->list.entries[i].path, err)) != PGR_OK)
			return PGR_ERR;
	return pgr_layout_link_tablespaces(r->layout, err);
}

/* ---- copy ---- */

#define RATE_MIN (32 * 1024) /* bytes a second, as --max-rate */

/* Without a limit there is the rate that it has had so far to be halved. */
static uint64_t present_rate(const struct pgr_run *r)
{
	int64_t ms = r->sys->mono_ms(r->sys) - r->copy_began_ms;

	return r->rate != 0 ? r->rate : pgr_lanes_bytes(r->lanes) * 1000 / (uint64_t)(ms > 0 ? ms : 1);
}

static void halve_rate(struct pgr_run *r)
{
	r->rate = present_rate(r) / 2;
	if (r->rate < RATE_MIN)
		r->rate = RATE_MIN;
}

/* What is no limit any more after so many doublings is none. */
static void double_rate(struct pgr_run *r)
{
	r->rate = r->rate > UINT64_MAX / 4 ? 0 : r->rate * 2;
}

static void obey_rate_steps(struct pgr_run *r)
{
	int wanted = r->opts->rate_steps != NULL ? atomic_load(r->opts->rate_steps) : 0;

	if (wanted == r->rate_steps)
		return;
	for (; r->rate_steps > wanted; r->rate_steps--)
		halve_rate(r);
	for (; r->rate_steps < wanted; r->rate_steps++)
		double_rate(r);
	pgr_lanes_set_rate(r->lanes, r->rate);
	if (r->rate == 0)
		pgr_run_say(r, "the transfer rate is not limited");
	else
		pgr_run_say(r, "the transfer rate is limited to %" PRIu64 " kB/s", r->rate / 1024);
}

static int tick(void *arg, struct pgr_err *err)
{
	struct pgr_run *r = arg;

	obey_rate_steps(r);
	pgr_run_report(r, false);
	return pgr_lowlevel_check(r->lowlevel, err);
}

static int run_lanes(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_lanes_opts lo = {
		.jobs = r->jobs,
		.list = &r->list,
		.plan = r->delta.dir != NULL ? &r->delta.plan : NULL,
		.compare_only = r->opts->dry_run,
		.layout = r->layout,
		.pool = r->pool,
		.sink = r->sink,
		.params = r->params,
		.server_id = (const char *)r->server_id.data,
		.digest = digest_of(r),
		.pages = r->pages,
		.verify_transfer = r->opts->verify_transfer,
		.max_rate_bytes = (uint64_t)r->opts->max_rate_kb * 1024,
		.notice = lane_notice,
		.info = lane_info,
		.arg = r,
		.sessions = r->sessions,
	};

	r->rate = lo.max_rate_bytes;
	r->copy_began_ms = r->sys->mono_ms(r->sys);
	if (pgr_lanes_new(&r->lanes, &lo, r->sys, r->stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lanes_run(r->lanes, tick, r, err);
}

static int lanes_copy(struct pgr_run *r, struct pgr_err *err)
{
	uint64_t failures = 0;

	if (make_directories(r, err) != PGR_OK || run_lanes(r, err) != PGR_OK ||
	    pgr_dirsink_drain(r->sink, err) != PGR_OK)
		return PGR_ERR;
	r->progress.tablespace = r->progress.tablespaces;
	if (r->pages != NULL && pgr_lanes_recheck(r->lanes, pgr_lowlevel_client(r->lowlevel), &failures, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_lanes_sum_rest(r->lanes, tick, r, err) != PGR_OK)
		return PGR_ERR;
	if (failures > 0) {
		r->checksum_failure = true;
		pgr_err_set(&r->checksum_err, PGR_E_CHECKSUM, "checksum error occurred");
	}
	return pgr_lowlevel_control(r->lowlevel, &r->control, err);
}

/* For a dry run: no backup is begun, so the list is what there is at this moment, and nothing holds it together. */
int pgr_lanes_seed_compare(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *list;
	size_t n;

	drop_first_connection(r);
	if (open_lanes(r, err) != PGR_OK || pgr_lowlevel_list(r->lowlevel, &r->list, err) != PGR_OK ||
	    pgr_lowlevel_tablespaces(r->lowlevel, &list, &n, err) != PGR_OK ||
	    pgr_layout_prepare_tablespaces(r->layout, list, n, err) != PGR_OK)
		return PGR_ERR;
	r->progress.tablespaces = (unsigned)n;
	r->progress.total_bytes = r->list.total_bytes;
	return pgr_delta_look_compare(r, list, n, err) == PGR_OK ? run_lanes(r, err) : PGR_ERR;
}

/* ---- end ---- */

static int lanes_end(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_backup_end end = {0};
	int rc = pgr_lowlevel_stop(r->lowlevel, r->opts->wal == PGR_WAL_NONE, &end, err);

	if (rc == PGR_OK) {
		r->end = end.stop;
		r->start_tli = end.start_tli;
		rc = pgr_buf_put(&r->label, end.label.data, end.label.len, err);
	}
	pgr_backup_end_fini(&end);
	return rc;
}

static int add_files(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	for (size_t i = 0; i < r->list.n; i++) {
		const struct pgr_list_entry *e = &r->list.entries[i];
		struct pgr_lane_result got;

		if (e->is_dir)
			continue;
		if (pgr_lanes_result(r->lanes, i, &got, err) != PGR_OK)
			return PGR_ERR;
		if (got.copied && pgr_manifest_add_file(w, e->path, got.size, e->mtime, digest_of(r), got.sum,
							got.sum_len, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static int add_wal(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	struct pgr_history h;
	char name[17], *text;
	size_t len;
	int root, rc;

	if (r->end_tli == r->start_tli)
		return pgr_manifest_add_wal(w, r->start_tli, r->start, r->end, err);
	pgr_historyname_format(name, r->end_tli);
	if (pgr_layout_wal_root(r->layout, &root, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_fs_read_file(r->sys, root, pgr_layout_wal_name(r->layout), name, HISTORY_LIMIT, &text, &len, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? pgr_err_set(err, PGR_E_DATA, "history file \"%s\" is missing", name) : PGR_ERR;
	rc = pgr_history_parse(&h, r->end_tli, text, len, err);
	free(text);
	if (rc != PGR_OK)
		return PGR_ERR;
	rc = pgr_run_manifest_add_wal(r, w, &h, err);
	pgr_history_fini(&h);
	return rc;
}

static int fill_manifest(struct pgr_run *r, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	enum pgr_digest_algo algo = digest_of(r);
	int64_t now = r->sys->wall_us(r->sys) / 1000000;

	if (add_files(r, w, err) != PGR_OK || pgr_delta_kept_add(r, w, algo, err) != PGR_OK ||
	    pgr_run_manifest_add_own(w, LABEL_NAME, &r->label, now, algo, err) != PGR_OK ||
	    pgr_run_manifest_add_own(w, CONTROL_NAME, &r->control, now, algo, err) != PGR_OK)
		return PGR_ERR;
	return add_wal(r, w, err);
}

static int lanes_finish(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_run_file f;

	r->end_tli = r->wal != NULL ? pgr_wal_stream_tli(r->wal) : r->start_tli;
	if (pgr_run_file_open(&f, r, LABEL_NAME, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_run_file_end(&f, pgr_run_file_put(&f, r->label.data, r->label.len, err), err) != PGR_OK)
		return PGR_ERR;
	return r->manifest ? pgr_run_manifest_write(r, fill_manifest, err) : PGR_OK;
}

void pgr_lanes_seed_release(struct pgr_run *r)
{
	pgr_lanes_free(r->lanes);
	r->lanes = NULL;
	close_sessions(r);
	pgr_buf_fini(&r->server_id);
	pgr_pagecheck_free(r->pages);
	pgr_filelist_fini(&r->list);
	pgr_buf_fini(&r->label);
}

const struct pgr_seed_source pgr_lanes_seed = {
	.start = lanes_start,
	.copy = lanes_copy,
	.end = lanes_end,
	.finish = lanes_finish,
};
