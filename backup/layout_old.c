/*
 * A layout over a directory that is not empty (--delta).  Until pgr_layout_take_over nothing is changed in it.
 *
 * What is removed here is only what the old copy itself leads to, and never a directory that anything else in the
 * layout, or the server by its names, has to do with.
 */
#include "backup/layout_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/wipe.h"
#include "common/num.h"
#include "common/path.h"
#include "common/sys.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

void pgr_layout_old_fini(struct pgr_layout *l)
{
	for (size_t i = 0; i < l->nlinks; i++)
		free(l->links[i].target);
	for (size_t i = 0; i < l->nleftovers; i++)
		free(l->leftovers[i].path);
	free(l->links);
	free(l->leftovers);
	free(l->version_dir);
}

/* ---- small looks ---- */

/* What opening a directory without following links says where there is none. */
static bool is_no_dir(int errnum)
{
	return errnum == ENOENT || errnum == ENOTDIR || errnum == ELOOP;
}

static bool is_same(const struct stat *st, const struct pgr_root *r)
{
	return st->st_dev == r->dev && st->st_ino == r->ino;
}

/* "<where>/<name>", or the name alone where it is absolute; NULL: out of memory. */
static char *join(const char *where, const char *name)
{
	char *path = NULL;

	if (name[0] == '/')
		return strdup(name);
	return asprintf(&path, "%s/%s", where, name) >= 0 ? path : NULL;
}

int pgr_layout_read_link(const struct pgr_layout *l, int dirfd, const char *where, const char *name, char **out,
			 struct pgr_err *err)
{
	char buf[PATH_MAX];
	ssize_t n = l->sys->readlinkat(l->sys, dirfd, name, buf, sizeof(buf));

	if (n < 0 && errno == ENOENT)
		return PGR_MORE;
	if (n < 0 || (size_t)n >= sizeof(buf))
		return pgr_err_sys(err, n < 0 ? errno : ENAMETOOLONG, "could not read symbolic link \"%s/%s\"", where,
				   name);
	buf[n] = '\0';
	*out = join(where, buf);
	if (*out == NULL)
		return pgr_err_nomem(err);
	if (strlen(*out) >= PATH_MAX) {
		free(*out);
		*out = NULL;
		return pgr_err_sys(err, ENAMETOOLONG, "could not read symbolic link \"%s/%s\"", where, name);
	}
	pgr_path_canonicalize(*out);
	return PGR_OK;
}

/* Whether one of the layout's directories is the directory `st`, or lies in it.  PGR_MORE: none. */
static int holds_a_root(const struct pgr_layout *l, const struct stat *st, const char **which, struct pgr_err *err)
{
	const struct pgr_root dir = {.fd = -1, .dev = st->st_dev, .ino = st->st_ino};
	int rc;

	*which = l->data.path;
	rc = pgr_root_holds(l->sys, &dir, l->data.path, err);
	if (rc == PGR_MORE && l->wal.path != NULL) {
		*which = l->wal.path;
		rc = pgr_root_holds(l->sys, &dir, l->wal.path, err);
	}
	for (size_t i = 0; i < l->nspaces && rc == PGR_MORE; i++) {
		if (l->spaces[i].in_place)
			continue;
		*which = l->spaces[i].root.path;
		rc = pgr_root_holds(l->sys, &dir, *which, err);
	}
	return rc;
}

int pgr_layout_old_prepare(struct pgr_layout *l, struct pgr_err *err)
{
	int rc = pgr_root_open(l->sys, &l->data, err);

	if (rc != PGR_OK)
		return rc;
	l->old = true;
	return pgr_layout_old_wal(l, err);
}

/* ---- tablespaces as they are ---- */

/* The open pg_tblspc; -1 where it is no directory. */
static int open_tblspc(const struct pgr_layout *l, int *fd, struct pgr_err *err)
{
	*fd = l->sys->openat(l->sys, l->data.fd, PGR_TBLSPC_DIR, DIR_FLAGS | O_NOFOLLOW, 0);
	if (*fd < 0 && !is_no_dir(errno))
		return pgr_err_sys(err, errno, "could not open directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
	return PGR_OK;
}

static int close_tblspc(const struct pgr_layout *l, int fd, int rc, struct pgr_err *err)
{
	if (fd >= 0 && l->sys->close(l->sys, fd) != 0 && rc == PGR_OK)
		return pgr_err_sys(err, errno, "could not close directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
	return rc;
}

/* As the server writes it. */
static bool is_oid(const char *name, uint32_t *oid)
{
	return name[0] != '0' && pgr_num_u32(name, strlen(name), oid);
}

static int note_link(struct pgr_layout *l, int fd, const char *name, uint32_t oid, struct pgr_err *err)
{
	struct pgr_old_link *grown, k = {.oid = oid};
	char where[PATH_MAX + 16];
	struct stat st;
	int rc;

	if (l->sys->fstatat(l->sys, fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? PGR_OK
				       : pgr_err_sys(err, errno, "could not stat file \"%s/" PGR_TBLSPC_DIR "/%s\"",
						     l->data.path, name);
	if (!S_ISLNK(st.st_mode))
		return PGR_OK;
	snprintf(where, sizeof(where), "%s/" PGR_TBLSPC_DIR, l->data.path);
	rc = pgr_layout_read_link(l, fd, where, name, &k.target, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	/* what cannot be reached, for whatever reason, has nothing that could be used or removed */
	k.leads = l->sys->fstatat(l->sys, fd, name, &st, 0) == 0 && S_ISDIR(st.st_mode);
	k.dev = st.st_dev;
	k.ino = st.st_ino;
	grown = reallocarray(l->links, l->nlinks + 1, sizeof(*grown));
	if (grown == NULL) {
		free(k.target);
		return pgr_err_nomem(err);
	}
	l->links = grown;
	l->links[l->nlinks++] = k;
	return PGR_OK;
}

static int read_links(struct pgr_layout *l, int fd, DIR *d, struct pgr_err *err)
{
	struct dirent *de;
	uint32_t oid;

	while ((de = l->sys->readdir(l->sys, d)) != NULL)
		if (is_oid(de->d_name, &oid) && note_link(l, fd, de->d_name, oid, err) != PGR_OK)
			return PGR_ERR;
	if (errno != 0)
		return pgr_err_sys(err, errno, "could not read directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
	return PGR_OK;
}

static int by_oid(const void *a, const void *b)
{
	const struct pgr_old_link *x = a, *y = b;

	return x->oid < y->oid ? -1 : x->oid > y->oid;
}

int pgr_layout_old_links(struct pgr_layout *l, struct pgr_err *err)
{
	DIR *d;
	int fd, rc;

	if (open_tblspc(l, &fd, err) != PGR_OK)
		return PGR_ERR;
	if (fd < 0)
		return PGR_OK;
	d = l->sys->fdopendir(l->sys, fd);
	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
		return close_tblspc(l, fd, PGR_ERR, err);
	}
	rc = read_links(l, fd, d, err);
	if (l->nlinks > 0)
		qsort(l->links, l->nlinks, sizeof(*l->links), by_oid);
	if (l->sys->closedir(l->sys, d) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
	return rc;
}

bool pgr_layout_is_old_space(const struct pgr_layout *l, const char *path)
{
	struct stat st;

	if (l->nlinks == 0 || l->sys->fstatat(l->sys, AT_FDCWD, path, &st, 0) != 0)
		return false;
	for (size_t i = 0; i < l->nlinks; i++)
		if (l->links[i].leads && l->links[i].dev == st.st_dev && l->links[i].ino == st.st_ino)
			return true;
	return false;
}

int pgr_layout_old_in_place(struct pgr_layout *l, struct pgr_space *s, struct pgr_err *err)
{
	char name[16];
	int parent, rc = PGR_OK;

	if (open_tblspc(l, &parent, err) != PGR_OK)
		return PGR_ERR;
	if (parent < 0)
		return PGR_OK;
	snprintf(name, sizeof(name), "%u", s->oid);
	s->root.fd = l->sys->openat(l->sys, parent, name, DIR_FLAGS | O_NOFOLLOW, 0);
	if (s->root.fd < 0 && !is_no_dir(errno))
		rc = pgr_err_sys(err, errno, "could not open directory \"%s\"", s->root.path);
	return close_tblspc(l, parent, rc, err);
}

/* ---- leftovers ---- */

static bool is_a_root(const struct pgr_layout *l, const struct pgr_old_link *k)
{
	const struct stat st = {.st_dev = k->dev, .st_ino = k->ino};

	if (is_same(&st, &l->data) || (l->wal.path != NULL && is_same(&st, &l->wal)))
		return true;
	for (size_t i = 0; i < l->nspaces; i++)
		if (!l->spaces[i].in_place && is_same(&st, &l->spaces[i].root))
			return true;
	return false;
}

/* A server on this machine has its own files under that name. */
static bool is_server_location(const struct pgr_layout *l, const struct pgr_old_link *k)
{
	struct stat st;

	for (size_t i = 0; i < l->nspaces; i++)
		if (!l->spaces[i].in_place && l->sys->fstatat(l->sys, AT_FDCWD, l->spaces[i].location, &st, 0) == 0 &&
		    st.st_dev == k->dev && st.st_ino == k->ino)
			return true;
	return false;
}

static bool is_listed(const struct pgr_layout *l, const char *path)
{
	for (size_t i = 0; i < l->nleftovers; i++)
		if (strcmp(l->leftovers[i].path, path) == 0)
			return true;
	return false;
}

/* Looks at what the link led to: whether there is something to remove, and whether it may be.  PGR_MORE: nothing. */
static int judge(const struct pgr_layout *l, const struct pgr_old_link *k, const char *path, bool *is_left,
		 struct pgr_err *err)
{
	const char *which;
	struct stat st;
	int rc;

	*is_left = true;
	if (l->version_dir == NULL)
		return PGR_OK;
	if (l->sys->fstatat(l->sys, AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? PGR_MORE : pgr_err_sys(err, errno, "could not stat file \"%s\"", path);
	if (!S_ISDIR(st.st_mode) || is_server_location(l, k))
		return PGR_OK;
	rc = holds_a_root(l, &st, &which, err);
	*is_left = rc == PGR_OK;
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

static int note_leftover(struct pgr_layout *l, const struct pgr_old_link *k, struct pgr_err *err)
{
	struct pgr_layout_leftover o = {.oid = k->oid};
	int rc;

	if (!k->leads || is_a_root(l, k))
		return PGR_OK;
	o.path = l->version_dir != NULL ? join(k->target, l->version_dir) : strdup(k->target);
	if (o.path == NULL)
		return pgr_err_nomem(err);
	rc = is_listed(l, o.path) ? PGR_MORE : judge(l, k, o.path, &o.is_left, err);
	if (rc != PGR_OK) {
		free(o.path);
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	}
	l->leftovers[l->nleftovers++] = o;
	return PGR_OK;
}

int pgr_layout_old_leftovers(struct pgr_layout *l, struct pgr_err *err)
{
	l->leftovers = calloc(l->nlinks + 1, sizeof(*l->leftovers));
	if (l->leftovers == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < l->nlinks; i++)
		if (note_leftover(l, &l->links[i], err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

size_t pgr_layout_leftovers(const struct pgr_layout *l, const struct pgr_layout_leftover **list)
{
	*list = l->leftovers;
	return l->nleftovers;
}

/* Removes what the link `name` (an oid) still leads to; it is found through the link, which nothing has touched. */
static int remove_leftover(const struct pgr_layout *l, int tblspc, const char *name, const char *path,
			   struct pgr_err *err)
{
	char where[PATH_MAX];
	int fd = l->sys->openat(l->sys, tblspc, name, DIR_FLAGS, 0), rc;

	if (fd < 0)
		return is_no_dir(errno) ? PGR_OK
					: pgr_err_sys(err, errno, "could not open the directory of \"%s\"", path);
	snprintf(where, sizeof(where), "%.*s", (int)(strrchr(path, '/') - path), path);
	rc = pgr_wipe(l->sys, fd, where, l->version_dir, err);
	/* once the link is gone, nobody would remove what a power cut has brought back */
	if (rc == PGR_OK && l->sys->fsync(l->sys, fd) != 0 && errno != EINVAL)
		rc = pgr_err_sys(err, errno, "could not fsync directory \"%s\"", where);
	if (l->sys->close(l->sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close the directory of \"%s\"", path);
	return rc;
}

static int drop_leftover(const struct pgr_layout *l, int tblspc, const char *name, uint32_t oid, struct pgr_err *err)
{
	for (size_t i = 0; i < l->nleftovers; i++)
		if (l->leftovers[i].oid == oid && !l->leftovers[i].is_left)
			return remove_leftover(l, tblspc, name, l->leftovers[i].path, err);
	return PGR_OK;
}

/* ---- taking over ---- */

int pgr_layout_set_mode(const struct pgr_layout *l, int fd, const char *path, struct pgr_err *err)
{
	struct stat st;

	if (l->sys->fstat(l->sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", path);
	if ((st.st_mode & 07777) != l->dir_mode && l->sys->fchmod(l->sys, fd, l->dir_mode) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on directory \"%s\"", path);
	return PGR_OK;
}

/* Opens pg_tblspc, which is made, in the place of whatever has its name. */
static int make_tblspc(const struct pgr_layout *l, int *fd, struct pgr_err *err)
{
	if (open_tblspc(l, fd, err) != PGR_OK)
		return PGR_ERR;
	if (*fd >= 0)
		return PGR_OK;
	if (pgr_wipe(l->sys, l->data.fd, l->data.path, PGR_TBLSPC_DIR, err) != PGR_OK)
		return PGR_ERR;
	return pgr_layout_make_below(l, l->data.fd, l->data.path, PGR_TBLSPC_DIR, true, fd, err);
}

static int take_in_place(const struct pgr_layout *l, struct pgr_space *s, struct pgr_err *err)
{
	char where[PATH_MAX + 16], name[16];
	int parent, rc;

	if (!s->in_place)
		return PGR_OK;
	if (s->root.fd >= 0)
		return pgr_layout_set_mode(l, s->root.fd, s->root.path, err);
	if (make_tblspc(l, &parent, err) != PGR_OK)
		return PGR_ERR;
	snprintf(where, sizeof(where), "%s/" PGR_TBLSPC_DIR, l->data.path);
	snprintf(name, sizeof(name), "%u", s->oid);
	rc = drop_leftover(l, parent, name, s->oid, err);
	if (rc == PGR_OK)
		rc = pgr_wipe(l->sys, parent, where, name, err);
	if (rc == PGR_OK)
		rc = pgr_layout_make_below(l, parent, where, name, false, &s->root.fd, err);
	return close_tblspc(l, parent, rc, err);
}

int pgr_layout_take_over(struct pgr_layout *l, struct pgr_err *err)
{
	if (!l->in_place)
		return PGR_OK;
	if (pgr_layout_set_mode(l, l->data.fd, l->data.path, err) != PGR_OK)
		return PGR_ERR;
	if (!l->old)
		return PGR_OK;
	if (pgr_layout_take_wal(l, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < l->nspaces; i++)
		if (take_in_place(l, &l->spaces[i], err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* ---- links of tablespaces ---- */

static int link_failed(const struct pgr_layout *l, const char *name, struct pgr_err *err)
{
	return pgr_err_sys(err, errno, "could not create symbolic link \"%s/" PGR_TBLSPC_DIR "/%s\"", l->data.path,
			   name);
}

/* At no moment there is no link: an interrupted run would not know the directory again. */
static int replace_link(const struct pgr_layout *l, int tblspc, const char *name, const char *target,
			struct pgr_err *err)
{
	char tmp[32];

	snprintf(tmp, sizeof(tmp), "%s.pgr", name);
	if (l->sys->unlinkat(l->sys, tblspc, tmp, 0) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not remove file \"%s/" PGR_TBLSPC_DIR "/%s\"", l->data.path, tmp);
	if (l->sys->symlinkat(l->sys, target, tblspc, tmp) != 0)
		return link_failed(l, tmp, err);
	return l->sys->renameat(l->sys, tblspc, tmp, tblspc, name) == 0 ? PGR_OK : link_failed(l, name, err);
}

/* A copy that followed links has a directory there. */
static int remove_dir(const struct pgr_layout *l, int tblspc, const char *name, const struct stat *st,
		      struct pgr_err *err)
{
	char where[PATH_MAX + 16];
	const char *which;
	int rc = holds_a_root(l, st, &which, err);

	snprintf(where, sizeof(where), "%s/" PGR_TBLSPC_DIR, l->data.path);
	if (rc == PGR_OK)
		return pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" lies in \"%s/%s\", where a link must be", which,
				   where, name);
	return rc == PGR_ERR ? PGR_ERR : pgr_wipe(l->sys, tblspc, where, name, err);
}

/* PGR_MORE: it is right as it is. */
static int link_space(const struct pgr_layout *l, int tblspc, const struct pgr_space *s, struct pgr_err *err)
{
	struct stat st, to;
	char name[16];

	snprintf(name, sizeof(name), "%u", s->oid);
	if (l->sys->fstatat(l->sys, tblspc, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno != ENOENT)
			return pgr_err_sys(err, errno, "could not stat file \"%s/" PGR_TBLSPC_DIR "/%s\"", l->data.path,
					   name);
	} else if (S_ISDIR(st.st_mode)) {
		if (remove_dir(l, tblspc, name, &st, err) != PGR_OK)
			return PGR_ERR;
	} else {
		if (S_ISLNK(st.st_mode) && l->sys->fstatat(l->sys, tblspc, name, &to, 0) == 0 && is_same(&to, &s->root))
			return PGR_MORE;
		if (drop_leftover(l, tblspc, name, s->oid, err) != PGR_OK)
			return PGR_ERR;
		return replace_link(l, tblspc, name, s->root.path, err);
	}
	return l->sys->symlinkat(l->sys, s->root.path, tblspc, name) == 0 ? PGR_OK : link_failed(l, name, err);
}

static int link_spaces(const struct pgr_layout *l, int tblspc, bool *changed, struct pgr_err *err)
{
	for (size_t i = 0; i < l->nspaces; i++) {
		int rc = l->spaces[i].in_place ? PGR_MORE : link_space(l, tblspc, &l->spaces[i], err);

		if (rc == PGR_ERR)
			return PGR_ERR;
		*changed = *changed || rc == PGR_OK;
	}
	return PGR_OK;
}

/* The link last: as long as it is there, the next run finds what it leads to. */
static int drop_links(const struct pgr_layout *l, int tblspc, bool *changed, struct pgr_err *err)
{
	for (size_t i = 0; i < l->nlinks; i++) {
		char name[16];

		if (pgr_layout_find_space(l, l->links[i].oid) != NULL)
			continue;
		snprintf(name, sizeof(name), "%u", l->links[i].oid);
		if (drop_leftover(l, tblspc, name, l->links[i].oid, err) != PGR_OK)
			return PGR_ERR;
		if (l->sys->unlinkat(l->sys, tblspc, name, 0) != 0 && errno != ENOENT)
			return pgr_err_sys(err, errno, "could not remove symbolic link \"%s/" PGR_TBLSPC_DIR "/%s\"",
					   l->data.path, name);
		*changed = true;
	}
	return PGR_OK;
}

/* So that no file in a tablespace is there after a power cut without the link that says whose it is. */
static int sync_tblspc(const struct pgr_layout *l, int tblspc, struct pgr_err *err)
{
	if (l->sys->fsync(l->sys, tblspc) != 0 && errno != EINVAL)
		return pgr_err_sys(err, errno, "could not fsync directory \"%s/" PGR_TBLSPC_DIR "\"", l->data.path);
	return PGR_OK;
}

int pgr_layout_sync_names(const struct pgr_layout *l, struct pgr_err *err)
{
	if (l->sys->fsync(l->sys, l->data.fd) != 0 && errno != EINVAL)
		return pgr_err_sys(err, errno, "could not fsync directory \"%s\"", l->data.path);
	return pgr_root_sync_name(l->sys, &l->data, err);
}

int pgr_layout_link_tablespaces(struct pgr_layout *l, struct pgr_err *err)
{
	bool changed = false;
	int fd, rc;

	if (l->nspaces == 0 && l->nlinks == 0)
		return PGR_OK;
	if (make_tblspc(l, &fd, err) != PGR_OK)
		return PGR_ERR;
	rc = link_spaces(l, fd, &changed, err);
	if (rc == PGR_OK)
		rc = drop_links(l, fd, &changed, err);
	if (rc == PGR_OK && changed && l->in_place)
		rc = sync_tblspc(l, fd, err);
	return close_tblspc(l, fd, rc, err);
}
