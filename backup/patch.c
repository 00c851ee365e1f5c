#include "backup/patch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backup/bbstream.h"
#include "backup/delta_plan.h"
#include "backup/dirsink.h"
#include "backup/exclude.h"
#include "backup/finish.h"
#include "backup/incremental.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/stream_check.h"
#include "backup/tar.h"
#include "backup/tar_sink.h"
#include "backup/walsummary.h"
#include "backup/wipe.h"
#include "common/block.h"
#include "common/fs_dir.h"
#include "common/fs_tree.h"
#include "common/num.h"
#include "common/stop.h"
#include "common/sys.h"

#define CONTROL_FILE   "global/pg_control"
#define LABEL_FILE     "backup_label"
#define HELD_BYTES_MAX 65536u

/* One archive. */
struct job {
	struct pgr_patch *p;
	struct pgr_tar_reader tar;
	struct pgr_tar_member m;
	uint32_t oid;
	bool data_dir;
	char path[PATH_MAX]; /* of the member, as the manifest writes it */
};

void pgr_patch_fini(struct pgr_patch *p)
{
	pgr_arrivals_fini(&p->came);
	pgr_buf_fini(&p->control);
	pgr_buf_fini(&p->label);
}

/* ---- places ---- */

/* An open directory (the caller's) and a name in it. */
struct place {
	int dirfd;
	const char *leaf;
};

static int open_place(const struct pgr_patch *p, const char *path, struct place *out, struct pgr_err *err)
{
	const char *rest;
	int root;

	pgr_layout_resolve(p->layout, path, &root, &rest);
	if (pgr_fs_open_parent(p->sys, root, rest, &out->dirfd, &out->leaf, err) != PGR_OK)
		return pgr_err_prefix(err, "could not extract \"%s\"", path);
	return PGR_OK;
}

static int close_place(const struct pgr_patch *p, const char *path, struct place *at, int rc, struct pgr_err *err)
{
	if (p->sys->close(p->sys, at->dirfd) != 0 && rc == PGR_OK)
		return pgr_err_sys(err, errno, "could not close the directory of \"%s\"", path);
	return rc;
}

/* *type is 0 when there is nothing. */
static int look(const struct pgr_patch *p, const struct place *at, const char *path, mode_t *type, struct pgr_err *err)
{
	struct stat st;

	*type = 0;
	if (p->sys->fstatat(p->sys, at->dirfd, at->leaf, &st, AT_SYMLINK_NOFOLLOW) == 0)
		*type = st.st_mode & S_IFMT;
	else if (errno != ENOENT)
		return pgr_err_sys(err, errno, "could not stat \"%s\"", path);
	return PGR_OK;
}

static int unlink_leaf(const struct pgr_patch *p, const struct place *at, const char *leaf, const char *path,
		       struct pgr_err *err)
{
	if (p->sys->unlinkat(p->sys, at->dirfd, leaf, 0) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not remove file \"%s\"", path);
	return PGR_OK;
}

/* ---- directories and links ---- */

static int open_dir(const struct pgr_patch *p, const struct place *at, const char *path, mode_t mode,
		    struct pgr_err *err)
{
	const struct pgr_sys *sys = p->sys;
	int rc = PGR_OK, fd = sys->openat(sys, at->dirfd, at->leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
	if (sys->fchmod(sys, fd, mode) != 0)
		rc = pgr_err_sys(err, errno, "could not set permissions on directory \"%s\"", path);
	if (sys->close(sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", path);
	return rc;
}

static int make_dir_at(const struct job *j, const struct place *at, struct pgr_err *err)
{
	const struct pgr_patch *p = j->p;
	mode_t type;

	if (look(p, at, j->path, &type, err) != PGR_OK)
		return PGR_ERR;
	if (type != 0 && type != S_IFDIR && unlink_leaf(p, at, at->leaf, j->path, err) != PGR_OK)
		return PGR_ERR;
	if (type != S_IFDIR && p->sys->mkdirat(p->sys, at->dirfd, at->leaf, pgr_layout_dir_mode(p->layout)) != 0 &&
	    errno != EEXIST)
		return pgr_err_sys(err, errno, "could not create directory \"%s\"", j->path);
	return open_dir(p, at, j->path, j->m.mode & 0777, err);
}

static int note(struct job *j, bool is_dir, uint64_t size, struct pgr_arrival **out, struct pgr_err *err)
{
	return pgr_arrivals_add(&j->p->came, j->path, is_dir, size, j->m.mtime, out, err);
}

/* What a path leads to is a root of the layout, and made. */
static bool is_root(const struct job *j)
{
	const char *rest;
	int root;

	pgr_layout_resolve(j->p->layout, j->path, &root, &rest);
	return rest[0] == '\0';
}

static int take_dir(struct job *j, struct pgr_err *err)
{
	struct pgr_arrival *e;
	struct place at;

	if (note(j, true, 0, &e, err) != PGR_OK)
		return PGR_ERR;
	if (is_root(j))
		return PGR_OK;
	if (open_place(j->p, j->path, &at, err) != PGR_OK)
		return PGR_ERR;
	return close_place(j->p, j->path, &at, make_dir_at(j, &at, err), err);
}

/* The number of a name that is a tablespace's entry in pg_tblspc; 0: it is none. */
static uint32_t tablespace_of(const char *name)
{
	uint32_t oid;

	if (strncmp(name, "pg_tblspc/", 10) != 0 || name[10] == '0')
		return 0;
	return pgr_num_u32(name + 10, strlen(name + 10), &oid) ? oid : 0;
}

/* Links are the layout's: made before, from the announced tablespaces. */
static int take_link(struct job *j, struct pgr_err *err)
{
	uint32_t oid = j->data_dir ? tablespace_of(j->m.name) : 0;
	const char *target = oid != 0 ? pgr_layout_tablespace_target(j->p->layout, oid) : NULL;
	const char *announced = pgr_layout_target_of(j->p->layout, j->m.link);
	struct pgr_arrival *e;

	if (oid != 0 && pgr_layout_root(j->p->layout, oid) < 0) {
		j->p->skipped_links++;
		return PGR_OK;
	}
	if (target == NULL || announced == NULL || strcmp(target, announced) != 0)
		return pgr_err_set(err, PGR_E_DATA,
				   "tar member \"%s\" is a symbolic link that leads to no announced tablespace: \"%s\"",
				   j->m.name, j->m.link);
	return note(j, true, 0, &e, err);
}

/* ---- files that come whole ---- */

static void whole_block(void *arg, uint64_t off, const uint8_t *data, size_t len)
{
	struct pgr_arrival *e = arg;

	if (e->check != NULL)
		pgr_stream_check_block(e->check, off, data, len);
}

static int rename_whole(const struct pgr_patch *p, const char *path, struct pgr_err *err)
{
	char tmp[NAME_MAX + 1];
	struct place at;
	int rc = PGR_OK;

	if (open_place(p, path, &at, err) != PGR_OK)
		return PGR_ERR;
	snprintf(tmp, sizeof(tmp), "%s" PGR_PATCH_SUFFIX, at.leaf);
	if (p->sys->renameat(p->sys, at.dirfd, tmp, at.dirfd, at.leaf) != 0)
		rc = pgr_err_sys(err, errno, "could not rename file \"%s\" to \"%s\"", tmp, path);
	return close_place(p, path, &at, rc, err);
}

/* In a writer. */
static void whole_done(void *arg, uint64_t size)
{
	struct pgr_arrival *e = arg;
	struct pgr_patch *p = e->owner;
	struct pgr_err err;
	int rc = PGR_OK;

	if (e->check != NULL)
		rc = pgr_stream_check_done(e->check, size, e->got.sum, &e->got.sum_len, &err);
	if (rc == PGR_OK)
		rc = rename_whole(p, e->path, &err);
	if (rc != PGR_OK)
		pgr_stop_post(p->stop, &err);
}

/* With a manifest of SHA sums blocks must come in order. */
static const struct pgr_sink_watch any_order = {.block = whole_block, .done = whole_done};
static const struct pgr_sink_watch in_order = {.block = whole_block, .done = whole_done, .ordered = true};

/* A directory cannot be renamed over; a link would be, but a file of that name is not meant to be there either. */
static int clear_way(struct job *j, const struct place *at, const char *tmp, struct pgr_err *err)
{
	char where[2 * PATH_MAX];
	mode_t type;

	if (unlink_leaf(j->p, at, tmp, j->path, err) != PGR_OK || look(j->p, at, j->path, &type, err) != PGR_OK)
		return PGR_ERR;
	if (type != S_IFDIR)
		return PGR_OK;
	snprintf(where, sizeof(where), "%s/%.*s", pgr_layout_data_dir(j->p->layout),
		 (int)(strlen(j->path) - strlen(at->leaf)), j->path);
	return pgr_wipe(j->p->sys, at->dirfd, where, at->leaf, err);
}

/* A segment of WAL is in no manifest; WAL is checked by those who replay it. */
static bool is_unlisted(const char *path)
{
	return strncmp(path, "pg_wal/", 7) == 0 && strspn(path + 7, "0123456789ABCDEF") == PGR_WALNAME_LEN &&
	       path[7 + PGR_WALNAME_LEN] == '\0';
}

static int begin_check(struct job *j, struct pgr_arrival *e, struct pgr_err *err)
{
	if (j->p->check == NULL)
		return PGR_OK;
	return pgr_stream_check_begin(j->p->check, j->oid, j->m.name, j->m.size, &e->check, err);
}

static int write_whole_at(struct job *j, const struct place *at, struct pgr_err *err)
{
	struct pgr_patch *p = j->p;
	bool ordered = p->check != NULL && pgr_stream_check_ordered(p->check);
	char tmp[NAME_MAX + 1];
	struct pgr_sink_file *f;
	struct pgr_arrival *e;

	if (snprintf(tmp, sizeof(tmp), "%s" PGR_PATCH_SUFFIX, at->leaf) >= (int)sizeof(tmp))
		return pgr_err_set(err, PGR_E_DATA, "name of a file is too long: \"%s\"", j->path);
	if (clear_way(j, at, tmp, err) != PGR_OK || note(j, false, j->m.size, &e, err) != PGR_OK)
		return PGR_ERR;
	e->unlisted = is_unlisted(j->path);
	e->owner = p;
	if (begin_check(j, e, err) != PGR_OK ||
	    pgr_dirsink_create(p->sink, at->dirfd, tmp, j->path, j->m.mode & 0777, &f, err) != PGR_OK)
		return PGR_ERR;
	pgr_dirsink_watch(p->sink, f, ordered ? &in_order : &any_order, e);
	if (pgr_tar_sink_content(&j->tar, j->m.size, p->pool, p->sink, f, err) != PGR_OK) {
		pgr_dirsink_abandon(p->sink, &f);
		return PGR_ERR;
	}
	p->whole++;
	return pgr_dirsink_seal(p->sink, &f, j->m.size, err);
}

static int take_whole(struct job *j, struct pgr_err *err)
{
	struct place at;

	if (open_place(j->p, j->path, &at, err) != PGR_OK)
		return PGR_ERR;
	return close_place(j->p, j->path, &at, write_whole_at(j, &at, err), err);
}

/* ---- increments ---- */

/* The member's bytes, which are summed as they pass. */
struct member_source {
	struct pgr_source source; /* first */
	struct pgr_tar_reader *tar;
	struct pgr_stream_entry *check; /* NULL */
	uint64_t at;
};

static int member_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct member_source *m = (struct member_source *)s;

	if (pgr_tar_read(m->tar, dst, cap, n, err) != PGR_OK)
		return PGR_ERR;
	if (m->check != NULL)
		pgr_stream_check_block(m->check, m->at, dst, *n);
	m->at += *n;
	return PGR_OK;
}

/* Where the increment goes, and what is known of that. */
struct target {
	struct pgr_relfile rel;
	const struct pgr_limit *limit;
	const struct pgr_local_entry *old;
};

/* A server sends increments only of what it was told of. */
static int find_target(const struct job *j, const char *path, struct target *t, struct pgr_err *err)
{
	t->old = pgr_localtree_find(j->p->tree, path);
	if (j->p->limits == NULL || t->old == NULL || t->old->type != PGR_LOCAL_FILE || t->old->replaced ||
	    t->rel.fork[0] != '\0')
		return pgr_err_set(err, PGR_E_DATA,
				   "the server sent an increment of file \"%s\", which was not asked for", path);
	t->limit = pgr_limits_find(j->p->limits, path);
	return PGR_OK;
}

static int patch_open(struct job *j, const char *path, const struct target *t, const struct pgr_incremental *inc,
		      int fd, struct pgr_source *source, struct pgr_err *err)
{
	uint32_t limit = t->limit != NULL ? t->limit->block : PGR_NO_LIMIT;
	const struct pgr_sys *sys = j->p->sys;
	struct stat st;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", path);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"%s\" is not a file any more", path);
	if ((st.st_mode & 0777) != (j->m.mode & 0777) && sys->fchmod(sys, fd, j->m.mode & 0777) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on file \"%s\"", path);
	return pgr_incremental_apply(inc, sys, fd, path, pgr_segment_limit(limit, t->rel.segment, j->p->segment_blocks),
				     source, err);
}

static int patch_at(struct job *j, const char *path, const struct place *at, const struct target *t,
		    const struct pgr_incremental *inc, struct pgr_source *source, struct pgr_err *err)
{
	const struct pgr_sys *sys = j->p->sys;
	int rc, fd = sys->openat(sys, at->dirfd, at->leaf, O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", path);
	rc = patch_open(j, path, t, inc, fd, source, err);
	if (sys->close(sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", path);
	return rc;
}

static int patch_file(struct job *j, const char *path, const struct target *t, struct pgr_incremental *inc,
		      struct member_source *m, struct pgr_err *err)
{
	struct pgr_patch *p = j->p;
	struct place at;

	if (pgr_incremental_read(inc, &m->source, j->m.size, p->page_bytes, p->segment_blocks, j->path, err) !=
		    PGR_OK ||
	    pgr_limit_check(t->limit, inc, t->rel.segment, p->segment_blocks, path, err) != PGR_OK ||
	    open_place(p, path, &at, err) != PGR_OK)
		return PGR_ERR;
	return close_place(p, path, &at, patch_at(j, path, &at, t, inc, &m->source, err), err);
}

/* What is read here afterwards is its size and checksum. */
static int hand_on(struct job *j, const char *path, const struct target *t, struct pgr_incremental *inc,
		   struct pgr_err *err)
{
	struct pgr_patch *p = j->p;
	struct pgr_arrival *e;

	p->patched++;
	p->saved_bytes += (uint64_t)(pgr_incremental_blocks(inc) - inc->nblocks) * p->page_bytes;
	if (pgr_arrivals_add(&p->came, path, false, 0, j->m.mtime, &e, err) != PGR_OK)
		return PGR_ERR;
	return pgr_kept_add(p->kept, path, t->rel.segment, inc, &e->got, err);
}

static int take_increment(struct job *j, const char *path, struct target *t, struct pgr_err *err)
{
	struct member_source m = {.source = {.read = member_read}, .tar = &j->tar};
	struct pgr_incremental inc = {0};
	uint8_t sum[PGR_DIGEST_MAX];
	size_t len;
	int rc = find_target(j, path, t, err);

	if (rc == PGR_OK && j->p->check != NULL)
		rc = pgr_stream_check_begin(j->p->check, j->oid, j->m.name, j->m.size, &m.check, err);
	if (rc == PGR_OK)
		rc = patch_file(j, path, t, &inc, &m, err);
	if (rc == PGR_OK && m.check != NULL)
		rc = pgr_stream_check_done(m.check, j->m.size, sum, &len, err);
	if (rc == PGR_OK)
		rc = hand_on(j, path, t, &inc, err);
	pgr_incremental_fini(&inc);
	return rc;
}

/* ---- files that are not written here ---- */

static int hold(struct job *j, struct pgr_buf *b, struct pgr_err *err)
{
	size_t n;

	if (b->len > 0)
		return pgr_err_set(err, PGR_E_DATA, "server sent \"%s\" twice", j->path);
	if (j->m.size > HELD_BYTES_MAX)
		return pgr_err_set(err, PGR_E_DATA, "server sent \"%s\" with an impossible size", j->path);
	if (pgr_buf_reserve(b, (size_t)j->m.size, err) != PGR_OK)
		return PGR_ERR;
	while (b->len < j->m.size) {
		if (pgr_tar_read(&j->tar, b->data + b->len, (size_t)j->m.size - b->len, &n, err) != PGR_OK)
			return PGR_ERR;
		b->len += n;
	}
	if (j->p->check == NULL)
		return PGR_OK;
	return pgr_stream_check_content(j->p->check, j->m.name, b->data, b->len, err);
}

/* The reader skips what is not read. */
static int leave_out(struct job *j, struct pgr_err *err)
{
	if (j->p->check == NULL)
		return PGR_OK;
	return pgr_stream_check_left_out(j->p->check, j->m.name, j->m.size, err);
}

/* A link that was made here leads to what the server will read; one to nowhere, or to no file, is in no manifest. */
static bool leads_to_file(const struct pgr_patch *p, const struct pgr_local_entry *old)
{
	struct stat st;

	return old->type == PGR_LOCAL_FILE ||
	       (p->sys->fstatat(p->sys, pgr_layout_root(p->layout, 0), old->path, &st, 0) == 0 && S_ISREG(st.st_mode));
}

/* The one that lies here stays, and is what the manifest has. */
static int keep_old(struct job *j, const struct pgr_local_entry *old, struct pgr_err *err)
{
	struct pgr_arrival *e;

	if (leave_out(j, err) != PGR_OK)
		return PGR_ERR;
	if (!leads_to_file(j->p, old))
		return PGR_OK;
	if (note(j, false, 0, &e, err) != PGR_OK)
		return PGR_ERR;
	j->p->left++;
	j->p->saved_bytes += old->size;
	return pgr_kept_add(j->p->kept, j->path, 0, NULL, &e->got, err);
}

/* ---- members ---- */

static int take_special(struct job *j, bool *done, struct pgr_err *err)
{
	struct pgr_patch *p = j->p;
	const struct pgr_local_entry *old;

	*done = true;
	if (strcmp(j->path, CONTROL_FILE) == 0) {
		p->control_mtime = j->m.mtime;
		return hold(j, &p->control, err);
	}
	if (strcmp(j->path, LABEL_FILE) == 0) {
		p->label_mtime = j->m.mtime;
		return hold(j, &p->label, err);
	}
	if ((p->replace_recovery && strcmp(j->path, "standby.signal") == 0) || strcmp(j->path, PGR_MANIFEST_TMP) == 0)
		return leave_out(j, err);
	old = p->tree != NULL ? pgr_localtree_find(p->tree, j->path) : NULL;
	if (old != NULL && (old->type == PGR_LOCAL_FILE || old->type == PGR_LOCAL_LINK) && p->keep != NULL &&
	    pgr_keep_matches(p->keep, j->path))
		return keep_old(j, old, err);
	*done = false;
	return PGR_OK;
}

static int take_file(struct job *j, struct pgr_err *err)
{
	char path[PATH_MAX];
	struct target t;
	bool done = false;

	if (j->data_dir) {
		int rc = take_special(j, &done, err);

		if (rc != PGR_OK || done)
			return rc;
	}
	if (pgr_incremental_path(j->path, path) && pgr_relfile_parse(path, &t.rel))
		return take_increment(j, path, &t, err);
	return take_whole(j, err);
}

static int take_member(struct job *j, struct pgr_err *err)
{
	int n = j->oid != 0 ? snprintf(j->path, sizeof(j->path), "pg_tblspc/%u/%s", j->oid, j->m.name)
			    : snprintf(j->path, sizeof(j->path), "%s", j->m.name);

	if (n >= (int)sizeof(j->path))
		return pgr_err_set(err, PGR_E_DATA, "name of a file is too long: \"%s\"", j->m.name);
	if (j->p->on_file != NULL)
		j->p->on_file(j->p->arg, j->path);
	switch (j->m.type) {
	case PGR_TAR_DIR:
		return take_dir(j, err);
	case PGR_TAR_SYMLINK:
		return take_link(j, err);
	case PGR_TAR_FILE:
		return take_file(j, err);
	}
	return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" has an unknown type", j->m.name);
}

int pgr_patch_archive(struct pgr_patch *p, const struct pgr_archive *a, struct pgr_source *source, struct pgr_err *err)
{
	char name[32];
	struct job *j;
	int rc;

	if (a->kind == PGR_ARCHIVE_MANIFEST || pgr_layout_root(p->layout, a->tablespace->oid) < 0)
		return pgr_err_set(err, PGR_E_USAGE, "archive \"%s\" has no directory to go to", a->name);
	j = calloc(1, sizeof(*j));
	if (j == NULL)
		return pgr_err_nomem(err);
	j->p = p;
	j->oid = a->tablespace->oid;
	j->data_dir = a->kind == PGR_ARCHIVE_DATA_DIR;
	snprintf(name, sizeof(name), j->oid == 0 ? "base.tar" : "%u.tar", j->oid);
	pgr_tar_reader_init(&j->tar, source, a->name[0] != '\0' ? a->name : name, a->terminated);
	while ((rc = pgr_tar_next(&j->tar, &j->m, err)) == PGR_OK)
		if ((rc = take_member(j, err)) != PGR_OK)
			break;
	free(j);
	return rc == PGR_MORE ? PGR_OK : PGR_ERR;
}
