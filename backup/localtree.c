#include "backup/localtree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/layout.h"
#include "backup/wipe.h"
#include "common/fs_dir.h"
#include "common/sys.h"

#define DIR_FLAGS  (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define TBLSPC_DIR "pg_tblspc"

void pgr_localtree_fini(struct pgr_localtree *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->entries[i].path);
		free(t->entries[i].target);
	}
	free(t->entries);
	memset(t, 0, sizeof(*t));
}

/* ---- the walk ---- */

struct root_id {
	dev_t dev;
	ino_t ino;
};

/* Depth: as of the walks in common/fs_tree.c, bounded by the length of `path`. */
struct scan {
	struct pgr_localtree *out;
	const struct pgr_sys *sys;
	const struct pgr_layout *layout;
	struct pgr_err *err;
	struct root_id *roots;
	size_t nroots;
	size_t top;	     /* bytes of the path of the root that is walked */
	bool apart;	     /* that root is a tablespace outside of the data directory */
	size_t len;	     /* of path */
	char path[PATH_MAX]; /* where we are */
};

static int failed(struct scan *s, int errnum, const char *what)
{
	return pgr_err_sys(s->err, errnum, "could not %s \"%s%s%s\"", what, pgr_layout_data_dir(s->layout),
			   s->len > 0 ? "/" : "", pgr_show_path(s->path, s->len).text);
}

/* PGR_MORE: it is gone. */
static int failed_unless_gone(struct scan *s, const char *what)
{
	return errno == ENOENT ? PGR_MORE : failed(s, errno, what);
}

static int reserve(struct pgr_localtree *t, struct pgr_err *err)
{
	size_t cap = t->cap > 0 ? t->cap * 2 : 1024;
	struct pgr_local_entry *grown;

	if (t->n < t->cap)
		return PGR_OK;
	grown = reallocarray(t->entries, cap, sizeof(*grown));
	if (grown == NULL)
		return pgr_err_nomem(err);
	t->entries = grown;
	t->cap = cap;
	return PGR_OK;
}

static enum pgr_local_type type_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return PGR_LOCAL_FILE;
	case S_IFDIR:
		return PGR_LOCAL_DIR;
	case S_IFLNK:
		return PGR_LOCAL_LINK;
	default:
		return PGR_LOCAL_OTHER;
	}
}

/* PGR_MORE: it is gone. */
static int read_target(struct scan *s, int dirfd, const char *name, char **target)
{
	char buf[PATH_MAX];
	ssize_t n = s->sys->readlinkat(s->sys, dirfd, name, buf, sizeof(buf));

	if (n < 0)
		return failed_unless_gone(s, "read symbolic link");
	*target = strndup(buf, (size_t)n);
	return *target != NULL ? PGR_OK : pgr_err_nomem(s->err);
}

static bool is_root(const struct scan *s, const struct stat *st)
{
	for (size_t i = 0; i < s->nroots; i++)
		if (s->roots[i].dev == st->st_dev && s->roots[i].ino == st->st_ino)
			return true;
	return false;
}

/* Appends the entry at s->path.  PGR_MORE: it is gone. */
static int add(struct scan *s, int dirfd, const char *name, dev_t dev, const struct stat *st)
{
	struct pgr_local_entry e = {.type = type_of(st->st_mode)};
	int rc = reserve(s->out, s->err);

	if (rc == PGR_OK && e.type == PGR_LOCAL_LINK)
		rc = read_target(s, dirfd, name, &e.target);
	if (rc != PGR_OK)
		return rc;
	e.path = strndup(s->path, s->len);
	if (e.path == NULL) {
		free(e.target);
		return pgr_err_nomem(s->err);
	}
	e.size = e.type == PGR_LOCAL_FILE ? (uint64_t)st->st_size : 0;
	e.replaced = e.type == PGR_LOCAL_FILE && (st->st_nlink > 1 || (st->st_mode & 0600) != 0600);
	e.mounted = pgr_is_mounted(s->sys, dirfd, name, st, dev);
	e.is_root = e.type == PGR_LOCAL_DIR && is_root(s, st);
	s->out->total_bytes += e.size;
	s->out->entries[s->out->n++] = e;
	return PGR_OK;
}

static bool is_at_top(const struct scan *s, const char *name)
{
	return s->len == s->top + (s->top > 0) + strlen(name);
}

/* What others keep beside a tablespace's version directory is none of our business. */
static bool is_listed(const struct scan *s, const char *name)
{
	const char *version = pgr_layout_version_dir(s->layout);

	if (!s->apart || !is_at_top(s, name))
		return true;
	return version != NULL ? strcmp(name, version) == 0 : strncmp(name, "PG_", 3) == 0;
}

/* pg_wal and the tablespaces are walked through their own descriptors, wherever they lie. */
static bool is_entered(const struct scan *s, const char *name)
{
	const char *rest;

	if (is_at_top(s, name) && strcmp(name, PGR_LOST_FOUND) == 0)
		return false;
	if (s->top > 0)
		return true;
	if (strcmp(s->path, pgr_layout_wal_name(s->layout)) == 0)
		return false;
	return pgr_layout_location(s->layout, s->path, &rest) == NULL || rest[0] != '\0';
}

static int walk(struct scan *s, int fd, dev_t dev);

static int walk_subdir(struct scan *s, int dirfd, const char *name, dev_t dev)
{
	int fd = s->sys->openat(s->sys, dirfd, name, DIR_FLAGS, 0);

	return fd < 0 ? failed_unless_gone(s, "open directory") : walk(s, fd, dev);
}

static int visit(struct scan *s, int dirfd, const char *name, dev_t dev)
{
	struct stat st;
	int rc;

	if (!is_listed(s, name))
		return PGR_OK;
	if (s->sys->fstatat(s->sys, dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return failed_unless_gone(s, "stat file");
	rc = add(s, dirfd, name, dev, &st);
	if (rc != PGR_OK || !S_ISDIR(st.st_mode) || is_root(s, &st) || !is_entered(s, name))
		return rc;
	return walk_subdir(s, dirfd, name, st.st_dev);
}

static int walk_entry(struct scan *s, int dirfd, const char *name, dev_t dev)
{
	size_t before = s->len, n = strlen(name), slash = before > 0;
	int rc;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return PGR_OK;
	if (before + slash + n >= sizeof(s->path))
		return failed(s, ENAMETOOLONG, "descend in directory");
	if (slash)
		s->path[before] = '/';
	memcpy(s->path + before + slash, name, n + 1);
	s->len = before + slash + n;
	rc = visit(s, dirfd, name, dev);
	s->len = before;
	s->path[before] = '\0';
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

/* Takes fd. */
static int walk(struct scan *s, int fd, dev_t dev)
{
	DIR *d = s->sys->fdopendir(s->sys, fd);
	struct dirent *de = NULL;
	int rc = PGR_OK;

	if (d == NULL) {
		failed(s, errno, "open directory");
		(void)s->sys->close(s->sys, fd); /* there is a failure to tell already */
		return PGR_ERR;
	}
	while (rc == PGR_OK && (de = s->sys->readdir(s->sys, d)) != NULL)
		rc = walk_entry(s, fd, de->d_name, dev);
	if (rc == PGR_OK && errno != 0)
		rc = failed(s, errno, "read directory");
	if (s->sys->closedir(s->sys, d) != 0 && rc == PGR_OK)
		rc = failed(s, errno, "close directory");
	return rc;
}

/* ---- the roots ---- */

/* Walks what `path` stands for, if the layout has a root of its own for it and that is open. */
static int walk_root(struct scan *s, const char *path, bool apart)
{
	const char *rest = path;
	struct stat st;
	int root = pgr_layout_root(s->layout, 0), fd;

	if (path[0] != '\0')
		pgr_layout_resolve(s->layout, path, &root, &rest);
	if (rest[0] != '\0' || root < 0)
		return PGR_OK;
	s->top = s->len = strlen(path);
	memcpy(s->path, path, s->len + 1);
	s->apart = apart;
	if (s->sys->fstat(s->sys, root, &st) != 0)
		return failed(s, errno, "stat directory");
	/* a descriptor of its own, since a position is shared by those that were duplicated */
	fd = s->sys->openat(s->sys, root, ".", DIR_FLAGS, 0);
	if (fd < 0)
		return failed(s, errno, "open directory");
	return walk(s, fd, st.st_dev);
}

static void space_path(const struct scan *s, size_t i, char path[32])
{
	snprintf(path, 32, TBLSPC_DIR "/%u", pgr_layout_tablespace_oid(s->layout, i));
}

static int note_root(struct scan *s, const char *path)
{
	struct stat st;
	const char *rest;
	int fd;

	pgr_layout_resolve(s->layout, path, &fd, &rest);
	if (rest[0] != '\0' || fd < 0)
		return PGR_OK;
	if (s->sys->fstat(s->sys, fd, &st) != 0)
		return pgr_err_sys(s->err, errno, "could not stat directory \"%s/%s\"", pgr_layout_data_dir(s->layout),
				   path);
	s->roots[s->nroots++] = (struct root_id){st.st_dev, st.st_ino};
	return PGR_OK;
}

/* The layout's directories may lie within each other; each is walked as itself only. */
static int note_roots(struct scan *s)
{
	size_t n = pgr_layout_tablespaces(s->layout);
	struct stat st;
	char path[32];

	s->roots = calloc(n + 2, sizeof(*s->roots));
	if (s->roots == NULL)
		return pgr_err_nomem(s->err);
	if (s->sys->fstat(s->sys, pgr_layout_root(s->layout, 0), &st) != 0)
		return failed(s, errno, "stat directory");
	s->roots[s->nroots++] = (struct root_id){st.st_dev, st.st_ino};
	if (note_root(s, pgr_layout_wal_name(s->layout)) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < n; i++) {
		space_path(s, i, path);
		if (note_root(s, path) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static int walk_roots(struct scan *s)
{
	char path[32];

	if (note_roots(s) != PGR_OK || walk_root(s, "", false) != PGR_OK ||
	    walk_root(s, pgr_layout_wal_name(s->layout), false) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < pgr_layout_tablespaces(s->layout); i++) {
		space_path(s, i, path);
		if (walk_root(s, path,
			      pgr_layout_tablespace_target(s->layout, pgr_layout_tablespace_oid(s->layout, i)) !=
				      NULL) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* ---- the result ---- */

static int by_path(const void *a, const void *b)
{
	const struct pgr_local_entry *x = a, *y = b;

	return strcmp(x->path, y->path);
}

/* A directory that changes while it is read may name an entry twice. */
static void drop_twins(struct pgr_localtree *t)
{
	size_t kept = 0;

	for (size_t i = 0; i < t->n; i++) {
		struct pgr_local_entry *e = &t->entries[i];

		if (kept > 0 && strcmp(t->entries[kept - 1].path, e->path) == 0) {
			t->total_bytes -= e->size;
			free(e->path);
			free(e->target);
		} else {
			t->entries[kept++] = *e;
		}
	}
	t->n = kept;
}

int pgr_localtree_scan(struct pgr_localtree *out, const struct pgr_sys *sys, struct pgr_layout *layout,
		       struct pgr_err *err)
{
	struct scan s = {.out = out, .sys = sys, .layout = layout, .err = err};
	int rc = pgr_layout_root(layout, 0) >= 0 ? walk_roots(&s) : PGR_OK;

	free(s.roots);
	if (rc != PGR_OK) {
		pgr_localtree_fini(out);
		return PGR_ERR;
	}
	if (out->n > 0)
		qsort(out->entries, out->n, sizeof(*out->entries), by_path);
	drop_twins(out);
	return PGR_OK;
}

const struct pgr_local_entry *pgr_localtree_find(const struct pgr_localtree *t, const char *path)
{
	struct pgr_local_entry key = {.path = (char *)(uintptr_t)path};

	return t->n > 0 ? bsearch(&key, t->entries, t->n, sizeof(key), by_path) : NULL;
}

int pgr_localtree_open(const struct pgr_sys *sys, const struct pgr_layout *layout, const char *path, int *fd,
		       struct pgr_err *err)
{
	const char *rest, *leaf;
	int root, parent, saved;

	pgr_layout_resolve(layout, path, &root, &rest);
	if (pgr_fs_open_parent(sys, root, rest, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	*fd = sys->openat(sys, parent, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	saved = errno;
	(void)sys->close(sys, parent); /* it was only looked into */
	return *fd >= 0 ? PGR_OK : pgr_err_sys(err, saved, "could not open file \"%s\"", path);
}

/* ---- durability ---- */

static int syncfs_at(const struct pgr_sys *sys, const struct pgr_layout *layout, const char *path, struct pgr_err *err)
{
	const char *rest, *leaf;
	int root, parent, fd, rc = PGR_OK;

	pgr_layout_resolve(layout, path, &root, &rest);
	if (rest[0] == '\0')
		return PGR_OK; /* a root */
	if (pgr_fs_open_parent(sys, root, rest, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	fd = sys->openat(sys, parent, leaf, DIR_FLAGS, 0);
	if (fd < 0)
		rc = pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
	else if (sys->syncfs(sys, fd) != 0)
		rc = pgr_err_sys(err, errno, "could not synchronize file system for file \"%s\"", path);
	if (fd >= 0)
		(void)sys->close(sys, fd); /* nothing was written through it */
	(void)sys->close(sys, parent);
	return rc;
}

int pgr_localtree_syncfs(const struct pgr_localtree *t, const struct pgr_sys *sys, const struct pgr_layout *layout,
			 struct pgr_err *err)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->entries[i].mounted && t->entries[i].type == PGR_LOCAL_DIR &&
		    syncfs_at(sys, layout, t->entries[i].path, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}
