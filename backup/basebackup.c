#include "backup/basebackup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/dirsink.h"
#include "backup/extract.h"
#include "backup/finish.h"
#include "backup/inflate.h"
#include "backup/layout.h"
#include "backup/recovery_conf.h"
#include "backup/wal_stream.h"
#include "common/block.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"

#define DEFAULT_POOL_BYTES ((size_t)32 << 20)
#define BLOCK_BYTES	   ((size_t)1 << 20)
#define DEFAULT_WRITERS	   2
#define PROGRESS_EVERY_MS  1000

/* Everything that one run holds; zeroed parts are valid for fini(). */
struct run {
	const struct pgr_basebackup_opts *opts;
	struct pgr_conn_params *params;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;

	struct pgr_client *client;
	int version;
	uint32_t segment_bytes;
	bool group_access;
	bool manifest;
	struct pgr_system_id id;
	struct pgr_buf recovery_conf; /* -R's lines */

	struct pgr_layout *layout;
	bool prepared; /* the layout may have made something */
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_wal_stream *wal;
	struct pgr_bbstream *bb;
	struct pgr_extract extract;
	pgr_lsn end;
	pgr_tli end_tli;
	bool checksum_failure;
	struct pgr_err checksum_err;

	struct pgr_progress progress;
	int64_t progress_at_ms; /* of the last report */
};

/* ---- telling the tool ---- */

static void PGR_PRINTF(2, 3) info(struct run *r, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (r->opts->info == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->opts->info(r->opts->arg, line);
}

static void PGR_PRINTF(2, 3) warning(struct run *r, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (r->opts->warning == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->opts->warning(r->opts->arg, line);
}

static void report(struct run *r, bool force)
{
	int64_t now;

	if (r->opts->progress == NULL)
		return;
	now = r->sys->mono_ms(r->sys);
	if (!force && now - r->progress_at_ms < PROGRESS_EVERY_MS)
		return;
	r->progress_at_ms = now;
	if (r->bb != NULL)
		r->progress.done_bytes = pgr_bbstream_progress_bytes(r->bb);
	r->opts->progress(r->opts->arg, &r->progress);
}

static void phase(struct run *r, enum pgr_phase p)
{
	r->progress.phase = p;
	report(r, true);
}

static void on_file(void *arg, const char *path)
{
	struct run *r = arg;

	snprintf(r->progress.file, sizeof(r->progress.file), "%s", path);
}

/* A source that reports progress as bytes pass. */
struct meter {
	struct pgr_source source; /* first */
	struct pgr_source *from;
	struct run *run;
};

static int meter_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct meter *m = (struct meter *)s;

	report(m->run, false);
	return pgr_source_read(m->from, dst, cap, n, err);
}

/* ---- connecting and looking at the server ---- */

static int connect_server(struct run *r, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (pgr_transport_open(&t, r->sys, r->stop, r->params, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_new(&r->client, t, r->sys, r->opts->notice, r->opts->arg, err) != PGR_OK)
		return PGR_ERR;
	r->version = pgr_client_version(r->client);
	return PGR_OK;
}

static int check_version(struct run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;
	char text[16];

	pgr_version_format(text, r->version);
	if (r->version >= (PGR_SERVER_MAX_MAJOR + 1) * 10000)
		return pgr_err_set(err, PGR_E_USAGE, "incompatible server version %s", text);
	if (o->wal == PGR_WAL_STREAM && !pgr_cap_has(r->version, PGR_CAP_TIMELINE_HISTORY)) {
		pgr_err_set(err, PGR_E_USAGE,
			    "incompatible server version %s; client does not support streaming from server versions "
			    "older than %s",
			    text, pgr_cap_since(PGR_CAP_TIMELINE_HISTORY));
		return pgr_err_hint(err, "Use -X none or -X fetch to disable log streaming.");
	}
	if (o->compress.where == PGR_COMP_SERVER && !pgr_cap_has(r->version, PGR_CAP_SERVER_COMPRESSION))
		return pgr_err_set(err, PGR_E_USAGE, "server does not support server-side compression");
	r->manifest = o->manifest && pgr_cap_has(r->version, PGR_CAP_MANIFEST);
	return PGR_OK;
}

static int inspect_server(struct run *r, struct pgr_err *err)
{
	if (check_version(r, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_group_access(r->client, &r->group_access, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_wal_segment_size(r->client, &r->segment_bytes, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_identify(r->client, &r->id, err);
}

/* -R's text is made from the connection as the user described it, before anything else may fail. */
static int make_recovery_conf(struct run *r, struct pgr_err *err)
{
	struct pgr_setting *settings;
	struct pgr_buf skipped = {0};
	int rc;

	if (!r->opts->write_recovery_conf)
		return PGR_OK;
	if (pgr_transport_settings(pgr_client_transport(r->client), &settings, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_recovery_conf_text(&r->recovery_conf, r->version, settings, r->opts->slot, &skipped, err);
	pgr_settings_free(settings);
	if (rc == PGR_OK && skipped.len > 0 && pgr_buf_str(&skipped) != NULL)
		warning(r, "not written into primary_conninfo, because the server's version does not know them: %s",
			(const char *)skipped.data);
	pgr_buf_fini(&skipped);
	return rc;
}

/* ---- making room ---- */

static int prepare_layout(struct run *r, struct pgr_err *err)
{
	struct pgr_layout_opts lo = {
		.data_dir = r->opts->data_dir,
		.wal_dir = r->opts->wal_dir,
		.mapping = r->opts->mapping,
		.dir_mode = r->group_access ? 0750 : 0700,
		.file_mode = r->group_access ? 0640 : 0600,
		.pg_xlog = !pgr_cap_has(r->version, PGR_CAP_PG_WAL),
		.summaries = pgr_cap_has(r->version, PGR_CAP_INCREMENTAL),
	};

	if (pgr_layout_new(&r->layout, r->sys, &lo, err) != PGR_OK)
		return PGR_ERR;
	r->prepared = true;
	return pgr_layout_prepare(r->layout, err);
}

static int start_sink(struct run *r, struct pgr_err *err)
{
	size_t bytes = r->opts->pool_bytes ? r->opts->pool_bytes : DEFAULT_POOL_BYTES;
	size_t count = bytes / BLOCK_BYTES;
	struct pgr_dirsink_opts so = {
		.writers = r->opts->writers ? r->opts->writers : DEFAULT_WRITERS,
		.sync = r->opts->sync && r->opts->sync_method == PGR_SYNC_FSYNC,
	};

	if (count < 2)
		count = 2;
	if (pgr_pool_new(&r->pool, count, BLOCK_BYTES, r->stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_dirsink_new(&r->sink, r->sys, r->pool, r->stop, &so, err);
}

static int open_wal_stream(struct run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;
	struct pgr_wal_stream_opts wo = {
		.slot = o->slot,
		.create_slot = o->create_slot,
		.temporary_slot = !o->no_slot,
		.system_identifier = r->id.system_identifier,
		.segment_bytes = r->segment_bytes,
		.status_interval_ms = o->status_interval_ms,
		.file_mode = pgr_layout_file_mode(r->layout),
		.sync = o->sync && o->sync_method == PGR_SYNC_FSYNC,
		.info = o->info,
		.warning = o->warning,
		.notice = o->notice,
		.arg = o->arg,
	};
	int dir, own;

	if (o->wal != PGR_WAL_STREAM)
		return PGR_OK;
	if (pgr_layout_wal_root(r->layout, &dir, err) != PGR_OK)
		return PGR_ERR;
	wo.dir = pgr_layout_wal_name(r->layout);
	own = r->sys->openat(r->sys, dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (own < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", wo.dir);
	return pgr_wal_stream_open(&r->wal, own, &wo, r->params, r->sys, r->stop, err);
}

/* ---- the backup ---- */

static uint64_t total_bytes(const struct pgr_bb_tablespace *list, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		if (list[i].size_kb > 0 && sum <= UINT64_MAX / 4096)
			sum += (uint64_t)list[i].size_kb * 1024;
	return sum;
}

static int start_backup(struct run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;
	bool compressed = o->compress.where == PGR_COMP_SERVER; /* the server judges what was named */
	struct pgr_base_backup_cmd cmd = {
		.label = o->label,
		.progress = o->estimate_size,
		.fast_checkpoint = o->fast_checkpoint,
		.include_wal = o->wal == PGR_WAL_FETCH,
		.no_wait = o->wal != PGR_WAL_NONE,
		.max_rate_kb = o->max_rate_kb,
		.no_verify_checksums = !o->verify_checksums && pgr_cap_has(r->version, PGR_CAP_VERIFY_CHECKSUMS),
		.manifest = r->manifest,
		.manifest_force_encode = r->manifest && o->manifest_force_encode,
		.manifest_checksums = r->manifest ? o->manifest_checksums : NULL,
		.compression = compressed ? o->compress.name : NULL,
		.compression_detail = compressed && o->compress.has_detail ? o->compress.detail : NULL,
	};
	const struct pgr_bb_tablespace *list;
	size_t n;

	info(r, "initiating base backup, waiting for checkpoint to complete");
	phase(r, PGR_PHASE_CHECKPOINT);
	if (pgr_bbstream_start(&r->bb, r->client, &cmd, err) != PGR_OK)
		return PGR_ERR;
	info(r, "checkpoint completed");
	info(r, "write-ahead log start point: %" PGR_LSN_FMT " on timeline %u",
	     PGR_LSN_ARG(pgr_bbstream_start_lsn(r->bb)), pgr_bbstream_start_tli(r->bb));
	n = pgr_bbstream_tablespaces(r->bb, &list);
	r->progress.tablespaces = (unsigned)n;
	r->progress.total_bytes = total_bytes(list, n);
	return pgr_layout_prepare_tablespaces(r->layout, list, n, err);
}

static void start_wal(struct run *r)
{
	pgr_tli tli = pgr_bbstream_start_tli(r->bb);

	if (r->wal == NULL)
		return;
	info(r, "starting background WAL receiver");
	pgr_wal_stream_start(r->wal, pgr_bbstream_start_lsn(r->bb), tli != 0 ? tli : r->id.tli);
}

/* The manifest is a file like others: through blocks, under its temporary name. */
static int receive_manifest(struct run *r, struct pgr_source *source, struct pgr_err *err)
{
	struct pgr_sink_file *f;
	struct pgr_block *b = NULL;
	uint64_t off = 0;
	size_t n = 1;
	int rc = PGR_OK;

	if (pgr_dirsink_create(r->sink, pgr_layout_root(r->layout, 0), PGR_MANIFEST_TMP, PGR_MANIFEST_TMP,
			       pgr_layout_file_mode(r->layout), &f, err) != PGR_OK)
		return PGR_ERR;
	while (rc == PGR_OK && n > 0) {
		rc = pgr_pool_get(r->pool, &b, err);
		while (rc == PGR_OK && b->len < b->cap) {
			rc = pgr_source_read(source, b->data + b->len, b->cap - b->len, &n, err);
			if (rc != PGR_OK || n == 0)
				break;
			b->len += n;
		}
		if (rc == PGR_OK && b->len > 0) {
			uint64_t at = off;

			off += b->len;
			rc = pgr_dirsink_post(r->sink, f, at, &b, err);
		}
		pgr_pool_put(r->pool, b);
		b = NULL;
	}
	if (rc == PGR_OK)
		return pgr_dirsink_seal(r->sink, &f, off, err);
	pgr_dirsink_abandon(r->sink, &f);
	return rc;
}

static int receive_archive(struct run *r, const struct pgr_archive *a, struct pgr_err *err)
{
	struct meter m = {.source = {.read = meter_read}, .from = a->source, .run = r};
	enum pgr_compression method = r->opts->compress.where == PGR_COMP_SERVER ? r->opts->compress.method
										 : PGR_COMP_NONE;
	struct pgr_inflate *z;
	int rc;

	if (a->kind == PGR_ARCHIVE_MANIFEST) /* never compressed */
		return receive_manifest(r, &m.source, err);
	if (method == PGR_COMP_NONE)
		return pgr_extract_archive(&r->extract, a, &m.source, err);
	if (pgr_inflate_new(&z, &m.source, method, a->name, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_extract_archive(&r->extract, a, pgr_inflate_source(z), err);
	pgr_inflate_free(z);
	return rc;
}

static int receive_archives(struct run *r, struct pgr_err *err)
{
	struct pgr_archive a;
	bool have_manifest = false;
	int rc;

	r->extract = (struct pgr_extract){.sys = r->sys,
					  .layout = r->layout,
					  .pool = r->pool,
					  .sink = r->sink,
					  .replace_recovery = r->opts->write_recovery_conf,
					  .on_file = on_file,
					  .arg = r};
	phase(r, PGR_PHASE_COPY);
	while ((rc = pgr_bbstream_next(r->bb, &a, err)) == PGR_OK) {
		if (receive_archive(r, &a, err) != PGR_OK)
			return PGR_ERR;
		if (a.kind == PGR_ARCHIVE_MANIFEST)
			have_manifest = true;
		else
			r->progress.tablespace++;
	}
	if (rc != PGR_MORE)
		return PGR_ERR;
	if (r->extract.control.len == 0 || !r->extract.have_backup_label)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server's backup has no file \"%s\"",
				   r->extract.control.len == 0 ? "global/pg_control" : "backup_label");
	if (r->extract.skipped_links > 0)
		warning(r, "%zu links of tablespaces that were created meanwhile were left out; recovery makes them",
			r->extract.skipped_links);
	if (r->manifest && !have_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent no backup manifest");
	return PGR_OK;
}

/*
 * A checksum failure does not end the run here: the copy is made complete and durable first, since it may be the only
 * one, and the error is the last word.
 */
static int end_backup(struct run *r, struct pgr_err *err)
{
	if (pgr_bbstream_finish(r->bb, &r->end, &r->end_tli, err) != PGR_OK) {
		if (err->cls != PGR_E_CHECKSUM)
			return PGR_ERR;
		r->checksum_failure = true;
		r->checksum_err = *err;
	}
	r->progress.file[0] = '\0';
	report(r, true);
	info(r, "write-ahead log end point: %" PGR_LSN_FMT, PGR_LSN_ARG(r->end));
	if (r->wal == NULL)
		return PGR_OK;
	info(r, "waiting for background process to finish streaming ...");
	phase(r, PGR_PHASE_WAL);
	return pgr_wal_stream_finish(r->wal, r->end, err);
}

static int make_durable(struct run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;

	if (o->sync)
		info(r, "syncing data to disk ...");
	phase(r, PGR_PHASE_SYNC);
	if (pgr_dirsink_drain(r->sink, err) != PGR_OK)
		return PGR_ERR;
	if (o->write_recovery_conf &&
	    pgr_recovery_conf_write(r->sys, pgr_layout_root(r->layout, 0), pgr_layout_data_dir(r->layout), r->version,
				    &r->recovery_conf, pgr_layout_file_mode(r->layout), o->sync, err) != PGR_OK)
		return PGR_ERR;
	if (o->sync && pgr_finish_sync(r->layout, o->sync_method, err) != PGR_OK)
		return PGR_ERR;
	/* the last moment to give up: from here on the directory can start */
	if (pgr_stop_check(r->stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_finish_control(r->sys, r->layout, &r->extract.control, o->sync, err);
}

static int commit(struct run *r, struct pgr_err *err)
{
	if (r->checksum_failure) { /* as the stock tool: the copy stays, its manifest stays uncommitted */
		*err = r->checksum_err;
		return PGR_ERR;
	}
	if (r->manifest) {
		info(r, "renaming backup_manifest.tmp to backup_manifest");
		if (pgr_finish_manifest(r->sys, r->layout, r->opts->sync, err) != PGR_OK)
			return PGR_ERR;
	}
	phase(r, PGR_PHASE_DONE);
	info(r, "base backup completed");
	return PGR_OK;
}

static int seed(struct run *r, struct pgr_err *err)
{
	int (*const steps[])(struct run *, struct pgr_err *) = {
		connect_server,	 inspect_server, make_recovery_conf, prepare_layout,
		open_wal_stream, start_sink,	 start_backup,
	};
	int (*const rest[])(struct run *, struct pgr_err *) = {receive_archives, end_backup, make_durable, commit};

	phase(r, PGR_PHASE_CONNECT);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (steps[i](r, err) != PGR_OK)
			return PGR_ERR;
	start_wal(r);
	for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
		if (rest[i](r, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* ---- after a failure ---- */

static void say_line(void *arg, const char *line)
{
	struct run *r = arg;

	if (r->opts->say != NULL)
		r->opts->say(r->opts->arg, line);
}

static void PGR_PRINTF(2, 3) say(struct run *r, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say_line(r, line);
}

/*
 * A permanent slot that this run created holds WAL back on the server for ever: drop it again.  The run's connections
 * and its stop latch are spent, so this is a connection of its own.
 */
static void drop_slot(struct run *r)
{
	struct pgr_stop *stop = NULL;
	struct pgr_transport *t;
	struct pgr_client *c = NULL;
	struct pgr_err e;
	int rc = pgr_stop_new(&stop, &e);

	if (rc == PGR_OK)
		rc = pgr_transport_open(&t, r->sys, stop, r->params, PGR_CONN_PHYSICAL, &e);
	if (rc == PGR_OK)
		rc = pgr_client_new(&c, t, r->sys, NULL, NULL, &e);
	if (rc == PGR_OK)
		rc = pgr_client_drop_slot(c, r->opts->slot, &e);
	if (rc == PGR_OK)
		say(r, "dropped replication slot \"%s\"", r->opts->slot);
	else
		warning(r, "could not drop replication slot \"%s\", which this run created: %s", r->opts->slot, e.msg);
	pgr_client_free(c);
	pgr_stop_free(stop);
}

static void clean_up(struct run *r, bool made_slot, bool keep)
{
	struct pgr_err e;

	if (!r->opts->clean) {
		if (r->prepared)
			say(r, "data directory \"%s\" not removed at user's request", r->opts->data_dir);
		return;
	}
	if (made_slot && !keep)
		drop_slot(r);
	if (r->prepared && !keep && pgr_layout_clean(r->layout, say_line, r, &e) != PGR_OK)
		warning(r, "failed to remove what was written: %s", e.msg);
}

/*
 * A walsender that makes a checkpoint for us, or waits for the archiver, does not look at its socket: it is told. Where
 * the network is the reason of the failure nobody could be.
 */
static void cancel_command(struct run *r, const struct pgr_err *why)
{
	if (r->client != NULL && pgr_client_state(r->client) == PGR_SS_BUSY && why->cls != PGR_E_NETWORK)
		pgr_transport_cancel(pgr_client_transport(r->client));
}

/* Ends threads and connections, in the order in which they depend on each other; the layout is left for the clean-up.
 */
static void release(struct run *r)
{
	pgr_wal_stream_free(r->wal);
	pgr_bbstream_free(r->bb);
	pgr_client_free(r->client);
	pgr_dirsink_free(r->sink);
	pgr_extract_fini(&r->extract);
	pgr_pool_free(r->pool);
	pgr_buf_fini(&r->recovery_conf);
}

int pgr_basebackup_run(const struct pgr_basebackup_opts *opts, struct pgr_conn_params *params,
		       const struct pgr_sys *sys, struct pgr_stop *stop, struct pgr_err *err)
{
	struct run r = {.opts = opts, .params = params, .sys = sys, .stop = stop};
	int rc = seed(&r, err);
	bool made_slot = pgr_wal_stream_made_slot(r.wal);

	if (rc != PGR_OK) {
		/* who failed because another thread did speaks with that one's words */
		if (err->cls == PGR_E_STOPPED)
			pgr_stop_why(stop, err);
		pgr_stop_post(stop, err);
		cancel_command(&r, err);
	}
	release(&r);
	if (rc != PGR_OK && opts->failed != NULL)
		opts->failed(opts->arg, err);
	if (rc != PGR_OK)
		clean_up(&r, made_slot, err->cls == PGR_E_CHECKSUM);
	pgr_layout_free(r.layout);
	return rc;
}
