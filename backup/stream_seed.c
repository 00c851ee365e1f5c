/* The stream source: one BASE_BACKUP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/controlfile.h"
#include "backup/delta_kept.h"
#include "backup/delta_look.h"
#include "backup/finish.h"
#include "backup/inflate.h"
#include "backup/layout.h"
#include "backup/listing.h"
#include "backup/readahead.h"
#include "backup/run.h"
#include "backup/run_meter.h"
#include "backup/sql.h"
#include "backup/stream_check.h"
#include "backup/summary_facts.h"
#include "backup/tar_seed.h"
#include "common/digest.h"
#include "common/stop.h"
#include "proto/caps.h"

/* Some tens of messages of a server, of at most 32 kB each: enough to bridge the decompressor's pauses. */
#define READ_AHEAD_BYTES ((size_t)1 << 20)

static uint64_t total_bytes(const struct pgr_bb_tablespace *list, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		if (list[i].size_kb > 0 && sum <= UINT64_MAX / 4096)
			sum += (uint64_t)list[i].size_kb * 1024;
	return sum;
}

struct pgr_base_backup_cmd pgr_stream_seed_command(const struct pgr_run *r)
{
	const struct pgr_basebackup_opts *o = r->opts;
	bool compressed = o->compress.where == PGR_COMP_SERVER; /* the server judges what was named */

	return (struct pgr_base_backup_cmd){
		.label = o->label,
		.progress = o->estimate_size,
		.fast_checkpoint = o->fast_checkpoint,
		.include_wal = o->wal == PGR_WAL_FETCH,
		.no_wait = o->wal != PGR_WAL_NONE,
		.max_rate_kb = o->max_rate_kb,
		.tablespace_map = o->format == PGR_FORMAT_TAR && pgr_cap_has(r->version, PGR_CAP_TABLESPACE_MAP),
		.no_verify_checksums = !o->verify_checksums && pgr_cap_has(r->version, PGR_CAP_VERIFY_CHECKSUMS),
		.manifest = r->manifest,
		.manifest_force_encode = r->manifest && o->manifest_force_encode,
		.manifest_checksums = r->manifest ? o->manifest_checksums : NULL,
		.compression = compressed ? o->compress.name : NULL,
		.compression_detail = compressed && o->compress.has_detail ? o->compress.detail : NULL,
	};
}

/* What was asked for.  A name that we do not know was refused by the server, too. */
enum pgr_digest_algo pgr_stream_seed_digest(const struct pgr_run *r)
{
	enum pgr_digest_algo algo = PGR_DIGEST_CRC32C; /* the server's default */

	if (r->opts->manifest_checksums != NULL && !pgr_digest_parse(r->opts->manifest_checksums, &algo))
		return PGR_DIGEST_NONE;
	return algo;
}

/* What came in a stream can only be compared with the manifest at its end. */
int pgr_stream_seed_check_verify(const struct pgr_run *r, struct pgr_err *err)
{
	if (!r->opts->verify_transfer || (r->manifest && pgr_stream_seed_digest(r) != PGR_DIGEST_NONE))
		return PGR_OK;
	pgr_err_set(err, PGR_E_USAGE, "a single stream cannot be verified without a backup manifest with checksums");
	if (pgr_cap_has(r->version, PGR_CAP_MANIFEST))
		return pgr_err_hint(err, "Use --jobs, or have the server make a manifest.");
	return pgr_err_hint(err, "Use --jobs; servers make manifests from version %s on.",
			    pgr_cap_since(PGR_CAP_MANIFEST));
}

static int stream_start(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_base_backup_cmd cmd = pgr_stream_seed_command(r);
	const struct pgr_bb_tablespace *list;
	size_t n;

	if (pgr_stream_seed_check_verify(r, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_bbstream_start(&r->bb, r->client, &cmd, err) != PGR_OK)
		return PGR_ERR;
	r->start = pgr_bbstream_start_lsn(r->bb);
	r->start_tli = pgr_bbstream_start_tli(r->bb);
	if (r->start_tli == 0) /* servers below 9.3 do not say */
		r->start_tli = r->id.tli;
	n = pgr_bbstream_tablespaces(r->bb, &list);
	r->progress.tablespaces = (unsigned)n;
	r->progress.total_bytes = total_bytes(list, n);
	if (r->opts->format == PGR_FORMAT_TAR)
		return pgr_tar_seed_check(r, n, err);
	if (r->manifest && pgr_stream_check_new(&r->check, pgr_stream_seed_digest(r), r->stop, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_layout_prepare_tablespaces(r->layout, list, n, err) != PGR_OK)
		return PGR_ERR;
	return pgr_delta_look_full(r, list, n, err);
}

/* ---- a dry run ---- */

/* Not who is asked for a password for it: that can be told without. */
static int ask_tablespaces(struct pgr_run *r, struct pgr_bb_tablespace **list, size_t *n, struct pgr_err *err)
{
	int (*ask)(void *, char **, struct pgr_err *) = r->params->ask_password;
	struct pgr_client *sql;
	int rc;

	r->params->ask_password = NULL;
	rc = pgr_sql_open(&sql, r->params, r->sys, r->stop, r->opts->notice, r->opts->arg, err);
	r->params->ask_password = ask;
	if (rc != PGR_OK)
		return PGR_ERR;
	rc = pgr_summary_facts_spaces(sql, list, n, err);
	pgr_client_free(sql);
	return rc;
}

/* BASE_BACKUP names the tablespaces when it has begun; but whoever may log in to a database may ask for them. */
int pgr_stream_seed_look(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_bb_tablespace *list = NULL;
	size_t n = 0;
	int rc = ask_tablespaces(r, &list, &n, err);

	if (rc != PGR_OK) {
		if (err->cls == PGR_E_STOPPED || err->cls == PGR_E_NOMEM || err->cls == PGR_E_SYSTEM)
			return PGR_ERR;
		pgr_run_warning(
			r, "what is in tablespaces is not looked at, since the server cannot be asked for them: %s",
			err->msg);
		return pgr_delta_look_full(r, NULL, 0, err);
	}
	rc = pgr_layout_prepare_tablespaces(r->layout, list, n, err);
	if (rc == PGR_OK)
		rc = pgr_delta_look_full(r, list, n, err);
	pgr_listing_tablespaces_free(list, n);
	return rc;
}

/* ---- copy ---- */

void pgr_stream_seed_on_file(void *arg, const char *path)
{
	struct pgr_run *r = arg;

	snprintf(r->progress.file, sizeof(r->progress.file), "%s", path);
}

/* Where the archives go. */
struct taker {
	struct pgr_run *run;
	pgr_seed_archive_fn *fn;
	void *arg;
	bool keep_manifest;
};

static int read_manifest(struct pgr_run *r, struct pgr_source *source, struct pgr_run_file *f, struct pgr_err *err)
{
	char buf[32768];
	size_t n = 0;
	int rc;

	do {
		rc = pgr_source_read(source, buf, sizeof(buf), &n, err);
		if (rc == PGR_OK && n > 0)
			rc = pgr_stream_check_manifest(r->check, buf, n, err);
		if (rc == PGR_OK && n > 0 && f != NULL)
			rc = pgr_run_file_put(f, buf, n, err);
	} while (rc == PGR_OK && n > 0);
	return rc == PGR_OK ? pgr_stream_check_manifest_end(r->check, err) : rc;
}

static int receive_manifest(const struct taker *t, struct pgr_source *source, struct pgr_err *err)
{
	struct pgr_run_file f;

	if (!t->keep_manifest)
		return read_manifest(t->run, source, NULL, err);
	if (pgr_run_file_open(&f, t->run, PGR_MANIFEST_TMP, err) != PGR_OK)
		return PGR_ERR;
	return pgr_run_file_end(&f, read_manifest(t->run, source, &f, err), err);
}

static int take_inflated(const struct taker *t, const struct pgr_archive *a, struct pgr_source *source,
			 struct pgr_err *err)
{
	struct pgr_inflate *z;
	int rc;

	if (pgr_inflate_new(&z, source, t->run->opts->compress.method, a->name, err) != PGR_OK)
		return PGR_ERR;
	rc = t->fn(t->arg, a, pgr_inflate_source(z), err);
	pgr_inflate_free(z);
	return rc;
}

/*
 * A thread of its own reads the socket while this one decompresses.  It sees the next archive begin when this one is
 * not finished here: so the name, which is the stream's, is copied.
 */
static int receive_compressed(const struct taker *t, const struct pgr_archive *a, struct pgr_err *err)
{
	struct pgr_archive named = *a;
	struct pgr_readahead *ahead = NULL;
	char *name = strdup(a->name);
	int rc;

	if (name == NULL)
		return pgr_err_nomem(err);
	named.name = name;
	rc = pgr_readahead_new(&ahead, a->source, READ_AHEAD_BYTES, err);
	if (rc == PGR_OK) {
		struct pgr_run_meter m = pgr_run_meter_of(t->run, pgr_readahead_source(ahead));

		rc = take_inflated(t, &named, &m.source, err);
	}
	if (rc != PGR_OK) /* or the thread would wait for the server for ever */
		pgr_stop_post(t->run->stop, err);
	pgr_readahead_free(ahead);
	free(name);
	return rc;
}

static int receive_archive(const struct taker *t, const struct pgr_archive *a, struct pgr_err *err)
{
	struct pgr_run_meter m = pgr_run_meter_of(t->run, a->source);
	const struct pgr_compress_spec *c = &t->run->opts->compress;

	if (a->kind == PGR_ARCHIVE_MANIFEST) /* never compressed */
		return receive_manifest(t, &m.source, err);
	if (c->where == PGR_COMP_SERVER && c->method != PGR_COMP_NONE)
		return receive_compressed(t, a, err);
	return t->fn(t->arg, a, &m.source, err);
}

int pgr_stream_seed_receive(struct pgr_run *r, pgr_seed_archive_fn *fn, void *arg, bool keep_manifest,
			    struct pgr_err *err)
{
	struct taker t = {.run = r, .fn = fn, .arg = arg, .keep_manifest = keep_manifest};
	struct pgr_archive a;
	bool have_manifest = false;
	int rc;

	while ((rc = pgr_bbstream_next(r->bb, &a, err)) == PGR_OK) {
		if (receive_archive(&t, &a, err) != PGR_OK)
			return PGR_ERR;
		if (a.kind == PGR_ARCHIVE_MANIFEST)
			have_manifest = true;
		else
			r->progress.tablespace++;
	}
	if (rc != PGR_MORE)
		return PGR_ERR;
	if (r->manifest && !have_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent no backup manifest");
	return PGR_OK;
}

static int extract(void *arg, const struct pgr_archive *a, struct pgr_source *source, struct pgr_err *err)
{
	return pgr_extract_archive(arg, a, source, err);
}

/* All archives; what must have been among them. */
static int receive_archives(struct pgr_run *r, struct pgr_extract *x, struct pgr_err *err)
{
	if (pgr_stream_seed_receive(r, extract, x, true, err) != PGR_OK)
		return PGR_ERR;
	if (x->control.len == 0 || !x->have_backup_label)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server's backup has no file \"%s\"",
				   x->control.len == 0 ? "global/pg_control" : "backup_label");
	return PGR_OK;
}

static int stream_copy(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_extract x = {.sys = r->sys,
				.layout = r->layout,
				.pool = r->pool,
				.sink = r->sink,
				.check = r->check,
				.replace_recovery = r->opts->write_recovery_conf,
				.keep = r->delta.dir != NULL ? &r->delta.keep : NULL,
				.on_file = pgr_stream_seed_on_file,
				.arg = r};
	int rc = receive_archives(r, &x, err);

	if (rc == PGR_OK)
		rc = pgr_buf_put(&r->control, x.control.data, x.control.len, err);
	if (rc == PGR_OK && x.skipped_links > 0)
		pgr_run_warning(
			r, "%zu links of tablespaces that were created meanwhile were left out; recovery makes them",
			x.skipped_links);
	pgr_extract_fini(&x);
	return rc;
}

/*
 * A checksum failure does not end the run here: the copy is made complete and durable first, since it may be the only
 * one, and the error is the last word.
 */
int pgr_stream_seed_end(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_bbstream_finish(r->bb, &r->end, &r->end_tli, err) == PGR_OK)
		return PGR_OK;
	if (err->cls != PGR_E_CHECKSUM)
		return PGR_ERR;
	r->checksum_failure = true;
	r->checksum_err = *err;
	return PGR_OK;
}

/*
 * The server reads the file while others may write it (sendFile in src/backend/backup/basebackup.c), its manifest has
 * the sum of what was read, and no server starts with it.  Before 9.5 the CRC was another one.
 */
static int check_control(const struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_cap_has(r->version, PGR_CAP_PG_WAL) || pgr_controlfile_crc_holds(r->control.data, r->control.len))
		return PGR_OK;
	pgr_err_set(err, PGR_E_DATA, "the checksum of file \"global/pg_control\" does not hold");
	return pgr_err_hint(err, "The server may have read it while it was being written.  Take the backup again.");
}

/* Bad pages on the server have the last word: the copy is what the server has, and may be all that is left of it. */
int pgr_stream_seed_verify(struct pgr_run *r, struct pgr_err *err)
{
	if (check_control(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->check == NULL)
		return PGR_OK;
	if (pgr_stream_check_compare(r->check, err) == PGR_OK) {
		pgr_run_info(r, "all %zu files match the server's backup manifest", pgr_stream_check_files(r->check));
		return PGR_OK;
	}
	if (err->cls != PGR_E_DATA || !r->checksum_failure)
		return PGR_ERR;
	pgr_run_warning(r, "%s", err->msg);
	return PGR_OK;
}

void pgr_stream_seed_release(struct pgr_run *r)
{
	pgr_stream_check_free(r->check);
	r->check = NULL;
	pgr_bbstream_free(r->bb);
	r->bb = NULL;
}

/* Until here the manifest was what the server says of its files. */
static int stream_verify(struct pgr_run *r, struct pgr_err *err)
{
	return pgr_stream_seed_verify(r, err) == PGR_OK ? pgr_delta_kept_edit_manifest(r, err) : PGR_ERR;
}

const struct pgr_seed_source pgr_stream_seed = {
	.start = stream_start,
	.copy = stream_copy,
	.end = pgr_stream_seed_end,
	.verify = stream_verify,
};
