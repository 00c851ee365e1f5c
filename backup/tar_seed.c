#include "backup/tar_seed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backup/bbstream.h"
#include "backup/finish.h"
#include "backup/layout.h"
#include "backup/run.h"
#include "backup/run_meter.h"
#include "backup/tar_inject.h"
#include "backup/tar_out.h"
#include "backup/wal_pack.h"
#include "common/fs_tree.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"

#define STDOUT_NAME "standard output"

/* Where the streamed WAL waits: below the target, so that it is on the same file system and is cleaned up with it. */
#define WAL_DIR_SUFFIX ".tmp"

bool pgr_tar_seed_to_stdout(const struct pgr_basebackup_opts *o)
{
	return o->format == PGR_FORMAT_TAR && strcmp(o->data_dir, "-") == 0;
}

/* ---- compression ---- */

/* What is left to the client to do. */
static struct pgr_compress_spec client_spec(const struct pgr_basebackup_opts *o)
{
	return o->compress.where == PGR_COMP_SERVER ? (struct pgr_compress_spec){0} : o->compress;
}

static const char *suffix_of(enum pgr_compression method)
{
	switch (method) {
	case PGR_COMP_NONE:
		break;
	case PGR_COMP_GZIP:
		return ".gz";
	case PGR_COMP_LZ4:
		return ".lz4";
	case PGR_COMP_ZSTD:
		return ".zst";
	}
	return "";
}

size_t pgr_tar_seed_blocks(const struct pgr_basebackup_opts *o)
{
	struct pgr_compress_spec spec = client_spec(o);

	return o->format == PGR_FORMAT_TAR ? pgr_tar_out_blocks(&spec, 0) : 0;
}

/* ---- one archive's output ---- */

/* The name in messages; the last component is the file's. */
struct out_name {
	char path[2 * PATH_MAX];
	const char *leaf;
};

static void set_name(struct out_name *n, const struct pgr_run *r, const char *archive, enum pgr_compression method)
{
	const char *dir = pgr_tar_seed_to_stdout(r->opts) ? NULL : pgr_layout_data_dir(r->layout);

	if (dir == NULL)
		snprintf(n->path, sizeof(n->path), STDOUT_NAME);
	else
		snprintf(n->path, sizeof(n->path), "%s/%s%s", dir, archive, suffix_of(method));
	n->leaf = dir == NULL ? n->path : strrchr(n->path, '/') + 1;
}

/* `n` outlives the output. */
static int open_out(struct pgr_tar_out **out, struct pgr_run *r, const struct out_name *n,
		    const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct pgr_tar_out_opts oo = {
		.sys = r->sys,
		.pool = r->pool,
		.stop = r->stop,
		.spec = *spec,
		.path = n->path,
		.fd = -1,
		.sink = r->sink,
		.leaf = n->leaf,
	};

	if (pgr_tar_seed_to_stdout(r->opts)) {
		oo.fd = STDOUT_FILENO;
	} else {
		oo.dirfd = pgr_layout_root(r->layout, 0);
		oo.mode = pgr_layout_file_mode(r->layout);
	}
	return pgr_tar_out_new(out, &oo, err);
}

/* A failure of ours wakes the output's threads, which may wait for a reader or for the disk. */
static int close_out(struct pgr_tar_out *out, struct pgr_run *r, int rc, bool terminate, struct pgr_err *err)
{
	if (rc == PGR_OK)
		rc = pgr_tar_out_end(out, terminate, err);
	if (rc != PGR_OK)
		pgr_stop_post(r->stop, err);
	pgr_tar_out_free(out);
	return rc;
}

/* ---- the archives ---- */

/* The mode of what is added; on standard output there is no directory to take it from. */
static mode_t added_mode(const struct pgr_run *r)
{
	return r->group_access ? 0640 : 0600;
}

/* Whether the manifest becomes a member of the one archive. */
static bool manifest_inside(const struct pgr_run *r)
{
	return r->manifest && pgr_tar_seed_to_stdout(r->opts);
}

static int add_manifest(struct pgr_run *r, struct pgr_tar_out *out, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	struct pgr_archive a;
	size_t n = 0;
	int rc = pgr_bbstream_next(r->bb, &a, err);

	if (rc == PGR_MORE || (rc == PGR_OK && a.kind != PGR_ARCHIVE_MANIFEST))
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent no backup manifest");
	do { /* its size comes before it in the archive, so it has to be had whole */
		if (rc == PGR_OK)
			rc = pgr_buf_reserve(&text, 65536, err);
		if (rc == PGR_OK)
			rc = pgr_source_read(a.source, text.data + text.len, text.cap - text.len, &n, err);
		text.len += rc == PGR_OK ? n : 0;
	} while (rc == PGR_OK && n > 0);
	if (rc == PGR_OK)
		rc = pgr_tar_out_member(out, PGR_MANIFEST_NAME, added_mode(r), text.data, text.len, err);
	pgr_buf_fini(&text);
	return rc;
}

/* An archive that we put something into. */
static int edit_archive(struct pgr_run *r, const struct pgr_archive *a, struct pgr_source *source,
			struct pgr_tar_out *out, struct pgr_err *err)
{
	struct pgr_tar_inject_opts io = {
		.from = source,
		.archive = "base.tar",
		.terminated = a->terminated,
		.conf = r->opts->write_recovery_conf ? &r->recovery_conf : NULL,
		.recovery_signal = pgr_cap_has(r->version, PGR_CAP_RECOVERY_SIGNAL),
	};
	struct pgr_tar_inject *z;
	int rc;

	if (pgr_tar_inject_new(&z, &io, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_tar_out_copy(out, pgr_tar_inject_source(z), NULL, err);
	if (rc == PGR_OK && manifest_inside(r))
		rc = add_manifest(r, out, err);
	if (rc == PGR_OK)
		rc = pgr_tar_inject_rest(z, out, added_mode(r), err);
	pgr_tar_inject_free(z);
	return rc;
}

/* The server's compressed archives keep its names for them; before 15 archives have none. */
static void name_archive(struct out_name *n, const struct pgr_run *r, const struct pgr_archive *a,
			 enum pgr_compression method)
{
	char name[32];

	snprintf(name, sizeof(name), a->tablespace->oid == 0 ? "base.tar" : "%u.tar", a->tablespace->oid);
	set_name(n, r, a->name[0] != '\0' ? a->name : name, method);
}

static int receive_archive(struct pgr_run *r, const struct pgr_archive *a, struct pgr_err *err)
{
	struct pgr_run_meter m = pgr_run_meter_of(r, a->source);
	struct pgr_compress_spec spec = client_spec(r->opts);
	bool edit = a->kind == PGR_ARCHIVE_DATA_DIR && (r->opts->write_recovery_conf || manifest_inside(r));
	struct out_name name;
	struct pgr_tar_out *out;
	int rc;

	name_archive(&name, r, a, spec.method);
	snprintf(r->progress.file, sizeof(r->progress.file), "%.500s", name.path);
	if (open_out(&out, r, &name, &spec, err) != PGR_OK)
		return PGR_ERR;
	rc = edit ? edit_archive(r, a, &m.source, out, err) : pgr_tar_out_copy(out, &m.source, NULL, err);
	return close_out(out, r, rc, edit || !a->terminated, err);
}

static int receive_manifest(struct pgr_run *r, struct pgr_source *source, struct pgr_err *err)
{
	struct pgr_run_file f;
	char buf[32768];
	size_t n = 0;
	int rc;

	if (pgr_run_file_open(&f, r, PGR_MANIFEST_TMP, err) != PGR_OK)
		return PGR_ERR;
	do {
		rc = pgr_source_read(source, buf, sizeof(buf), &n, err);
		if (rc == PGR_OK && n > 0)
			rc = pgr_run_file_put(&f, buf, n, err);
	} while (rc == PGR_OK && n > 0);
	return pgr_run_file_end(&f, rc, err);
}

int pgr_tar_seed_check(const struct pgr_run *r, size_t archives, struct pgr_err *err)
{
	if (pgr_tar_seed_to_stdout(r->opts) && archives > 1)
		return pgr_err_set(err, PGR_E_USAGE, "can only write single tablespace to stdout, database has %zu",
				   archives);
	return PGR_OK;
}

static int tar_copy(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_archive a;
	bool have_base = false, have_manifest = manifest_inside(r);
	int rc;

	while ((rc = pgr_bbstream_next(r->bb, &a, err)) == PGR_OK) {
		struct pgr_run_meter m = pgr_run_meter_of(r, a.source);

		if (a.kind == PGR_ARCHIVE_MANIFEST) {
			rc = receive_manifest(r, &m.source, err);
			have_manifest = true;
		} else {
			rc = receive_archive(r, &a, err);
			have_base = have_base || a.kind == PGR_ARCHIVE_DATA_DIR;
			r->progress.tablespace++;
		}
		if (rc != PGR_OK)
			return PGR_ERR;
	}
	if (rc != PGR_MORE)
		return PGR_ERR;
	if (!have_base)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent no archive of the data directory");
	if (r->manifest && !have_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent no backup manifest");
	return PGR_OK;
}

/* ---- the WAL ---- */

static void wal_dir_name(const struct pgr_run *r, char *leaf, size_t cap)
{
	snprintf(leaf, cap, "%s" WAL_DIR_SUFFIX, pgr_layout_wal_name(r->layout));
}

int pgr_tar_seed_wal_dir(struct pgr_run *r, int *fd, char *name, size_t cap, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->sys;
	int root = pgr_layout_root(r->layout, 0);
	char leaf[32];

	wal_dir_name(r, leaf, sizeof(leaf));
	snprintf(name, cap, "%s/%s", pgr_layout_data_dir(r->layout), leaf);
	*fd = -1;
	if (sys->mkdirat(sys, root, leaf, pgr_layout_dir_mode(r->layout)) != 0)
		return pgr_err_sys(err, errno, "could not create directory \"%s\"", name);
	*fd = sys->openat(sys, root, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", name);
	if (sys->mkdirat(sys, *fd, "archive_status", pgr_layout_dir_mode(r->layout)) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not create directory \"%s/archive_status\"", name);
	(void)sys->close(sys, *fd);
	*fd = -1;
	return PGR_ERR;
}

/* As the stock tool, which compresses WAL with gzip only: restoring scripts know these names. */
static struct pgr_compress_spec wal_spec(const struct pgr_basebackup_opts *o)
{
	struct pgr_compress_spec spec = client_spec(o);

	return spec.method == PGR_COMP_GZIP ? spec : (struct pgr_compress_spec){0};
}

static int pack_wal(struct pgr_run *r, int dirfd, const char *where, struct pgr_err *err)
{
	struct pgr_compress_spec spec = wal_spec(r->opts);
	struct out_name name;
	struct pgr_tar_out *out;
	char archive[32];

	snprintf(archive, sizeof(archive), "%s.tar", pgr_layout_wal_name(r->layout));
	set_name(&name, r, archive, spec.method);
	if (open_out(&out, r, &name, &spec, err) != PGR_OK)
		return PGR_ERR;
	return close_out(out, r, pgr_wal_pack(r->sys, dirfd, where, out, err), true, err);
}

static int tar_finish(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->sys;
	char leaf[32], where[PATH_MAX + 32];
	int fd, rc;

	if (r->wal == NULL)
		return PGR_OK;
	wal_dir_name(r, leaf, sizeof(leaf));
	snprintf(where, sizeof(where), "%s/%s", pgr_layout_data_dir(r->layout), leaf);
	fd = sys->openat(sys, pgr_layout_root(r->layout, 0), leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", where);
	rc = pack_wal(r, fd, where, err);
	if (sys->close(sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", where);
	return rc == PGR_OK ? pgr_fs_remove_tree(sys, where, true, err) : PGR_ERR;
}

/* ---- the steps; the protocol's part is that of any stream ---- */

static int tar_start(struct pgr_run *r, struct pgr_err *err)
{
	return pgr_stream_seed.start(r, err);
}

static int tar_end(struct pgr_run *r, struct pgr_err *err)
{
	return pgr_stream_seed.end(r, err);
}

const struct pgr_seed_source pgr_tar_seed = {
	.start = tar_start,
	.copy = tar_copy,
	.end = tar_end,
	.finish = tar_finish,
};
