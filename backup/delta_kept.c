#include "backup/delta_kept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/finish.h"
#include "backup/keep.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/manifest.h"
#include "backup/manifest_edit.h"
#include "backup/run.h"
#include "common/buf.h"
#include "common/fs_durable.h"
#include "common/fs_io.h"
#include "common/sys.h"

bool pgr_delta_kept_has(const struct pgr_run *r, const struct pgr_local_entry *e)
{
	const struct pgr_list_entry *listed = r->delta.plan.n > 0 ? pgr_filelist_find(&r->list, e->path) : NULL;

	if (listed != NULL && pgr_delta_seed_compares(r) &&
	    r->delta.plan.files[listed - r->list.entries].action != PGR_DELTA_KEEP)
		return false;
	return (e->type == PGR_LOCAL_FILE || e->type == PGR_LOCAL_LINK) && pgr_keep_matches(&r->delta.keep, e->path);
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

/* A link is followed, as the server will.  PGR_MORE: it leads to no file. */
static int open_link(struct pgr_run *r, const char *path, int *fd, struct pgr_err *err)
{
	*fd = r->sys->openat(r->sys, pgr_layout_root(r->layout, 0), path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
	if (*fd >= 0)
		return PGR_OK;
	if (errno == ENOENT || errno == ELOOP || errno == ENOTDIR || errno == ENXIO)
		return PGR_MORE;
	return pgr_err_sys(err, errno, "could not open file \"%s\"", path);
}

static int open_kept(struct pgr_run *r, const struct pgr_local_entry *e, int *fd, struct stat *st, struct pgr_err *err)
{
	int rc = e->type == PGR_LOCAL_LINK ? open_link(r, e->path, fd, err)
					   : pgr_localtree_open(r->sys, r->layout, e->path, fd, err);

	if (rc != PGR_OK)
		return rc;
	if (r->sys->fstat(r->sys, *fd, st) != 0)
		rc = pgr_err_sys(err, errno, "could not stat file \"%s\"", e->path);
	else if (!S_ISREG(st->st_mode))
		rc = PGR_MORE;
	if (rc != PGR_OK)
		(void)r->sys->close(r->sys, *fd); /* nothing was written through it */
	return rc;
}

static int add_kept_file(struct pgr_run *r, struct pgr_manifest_writer *w, enum pgr_digest_algo algo,
			 const struct pgr_local_entry *e, struct pgr_err *err)
{
	const char *path = e->path;
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d = NULL;
	struct stat st;
	uint64_t size;
	size_t len;
	int fd, rc = open_kept(r, e, &fd, &st, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
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
int pgr_delta_kept_add(struct pgr_run *r, struct pgr_manifest_writer *w, enum pgr_digest_algo algo, struct pgr_err *err)
{
	const struct pgr_localtree *t = &r->delta.tree;

	for (size_t i = 0; i < t->n; i++)
		if (pgr_delta_kept_has(r, &t->entries[i]) && pgr_filelist_find(&r->list, t->entries[i].path) == NULL &&
		    add_kept_file(r, w, algo, &t->entries[i], err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

struct pgr_delta_amount pgr_delta_kept_amount(const struct pgr_run *r)
{
	const struct pgr_localtree *t = &r->delta.tree;
	struct pgr_delta_amount a = {0};

	for (size_t i = 0; i < t->n; i++)
		if (pgr_delta_kept_has(r, &t->entries[i])) {
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
	rc = pgr_delta_kept_add(r, w, pgr_stream_seed_digest(r), err);
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

	return e != NULL && pgr_delta_kept_has(r, e);
}

#define MANIFEST_MOST_BYTES ((size_t)1 << 30) /* some six million files */

int pgr_delta_kept_edit_manifest(struct pgr_run *r, struct pgr_err *err)
{
	int root = pgr_delta_seed_is_on(r) ? pgr_layout_root(r->layout, 0) : -1;
	struct pgr_buf more = {0}, edited = {0};
	char *text = NULL;
	size_t len;
	int rc;

	if (!pgr_delta_seed_is_on(r) || !r->manifest || pgr_delta_kept_amount(r).files == 0)
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
