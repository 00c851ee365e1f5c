#include "backup/layout_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "common/num.h"
#include "common/path.h"
#include "common/sys.h"

/* ---- new, free ---- */

static int check_dir_name(const char *path, struct pgr_err *err)
{
	if (path[0] == '\0')
		return pgr_err_set(err, PGR_E_USAGE, "empty directory name");
	if (strlen(path) >= PATH_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "directory name too long");
	return PGR_OK;
}

static int copy_opts(struct pgr_layout *l, const struct pgr_layout_opts *opts, struct pgr_err *err)
{
	if (check_dir_name(opts->data_dir, err) != PGR_OK)
		return PGR_ERR;
	l->data.path = strdup(opts->data_dir);
	if (l->data.path == NULL)
		return pgr_err_nomem(err);
	if (opts->wal_dir != NULL) {
		if (opts->wal_dir[0] != '/')
			return pgr_err_set(err, PGR_E_USAGE, "WAL directory location must be an absolute path");
		if (check_dir_name(opts->wal_dir, err) != PGR_OK)
			return PGR_ERR;
		l->wal.path = strdup(opts->wal_dir);
		if (l->wal.path == NULL)
			return pgr_err_nomem(err);
	}
	if (opts->version_dir != NULL) {
		l->version_dir = strdup(opts->version_dir);
		if (l->version_dir == NULL)
			return pgr_err_nomem(err);
	}
	return pgr_tblspc_map_copy(&l->mapping, opts->mapping, err);
}

int pgr_layout_new(struct pgr_layout **out, const struct pgr_sys *sys, const struct pgr_layout_opts *opts,
		   struct pgr_err *err)
{
	struct pgr_layout *l = calloc(1, sizeof(*l));

	*out = NULL;
	if (l == NULL)
		return pgr_err_nomem(err);
	l->sys = sys;
	l->dir_mode = opts->dir_mode;
	l->file_mode = opts->file_mode;
	l->wal_name = opts->pg_xlog ? "pg_xlog" : "pg_wal";
	l->summaries = opts->summaries;
	l->in_place = opts->in_place;
	l->look_only = opts->look_only;
	l->system_identifier = opts->system_identifier;
	l->data = l->wal = PGR_ROOT_INIT;
	if (copy_opts(l, opts, err) != PGR_OK) {
		pgr_layout_free(l);
		return PGR_ERR;
	}
	*out = l;
	return PGR_OK;
}

void pgr_layout_free(struct pgr_layout *l)
{
	if (l == NULL)
		return;
	for (size_t i = 0; i < l->nspaces; i++) {
		pgr_root_fini(l->sys, &l->spaces[i].root);
		free(l->spaces[i].location);
	}
	free(l->spaces);
	free(l->by_location);
	pgr_root_fini(l->sys, &l->data);
	pgr_root_fini(l->sys, &l->wal);
	pgr_tblspc_map_free(l->mapping);
	pgr_layout_old_fini(l);
	free(l);
}

int pgr_layout_make_below(const struct pgr_layout *l, int dirfd, const char *where, const char *name, bool may_exist,
			  int *fd, struct pgr_err *err)
{
	const struct pgr_sys *sys = l->sys;
	bool made = sys->mkdirat(sys, dirfd, name, l->dir_mode) == 0;

	*fd = -1;
	if (!made && !(may_exist && errno == EEXIST))
		return pgr_err_sys(err, errno, "could not create directory \"%s/%s\"", where, name);
	*fd = sys->openat(sys, dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s/%s\"", where, name);
	if (!made || sys->fchmod(sys, *fd, l->dir_mode) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not set permissions on directory \"%s/%s\"", where, name);
	(void)sys->close(sys, *fd);
	*fd = -1;
	return PGR_ERR;
}

int pgr_layout_make_root(const struct pgr_layout *l, struct pgr_root *r, struct pgr_err *err)
{
	bool missing;

	if (l->look_only)
		return pgr_root_check(l->sys, r, &missing, err);
	return pgr_root_make(l->sys, r, l->dir_mode, err);
}

/* ---- the data directory and the WAL ---- */

static int prepare_wal_dir(struct pgr_layout *l, struct pgr_err *err)
{
	if (pgr_layout_make_root(l, &l->wal, err) != PGR_OK)
		return PGR_ERR;
	if (l->look_only)
		return PGR_OK;
	if (pgr_root_same(&l->wal, &l->data))
		return pgr_err_set(err, PGR_E_USAGE, "WAL directory \"%s\" is the data directory", l->wal.path);
	if (l->sys->symlinkat(l->sys, l->wal.path, l->data.fd, l->wal_name) != 0)
		return pgr_err_sys(err, errno, "could not create symbolic link \"%s/%s\"", l->data.path, l->wal_name);
	return PGR_OK;
}

int pgr_layout_prepare(struct pgr_layout *l, struct pgr_err *err)
{
	int rc = l->in_place ? pgr_layout_old_prepare(l, err) : PGR_MORE;

	if (rc != PGR_MORE)
		return rc;
	if (pgr_layout_make_root(l, &l->data, err) != PGR_OK)
		return PGR_ERR;
	return l->wal.path == NULL ? PGR_OK : prepare_wal_dir(l, err);
}

static int make_wal_subdir(const struct pgr_layout *l, const char *name, struct pgr_err *err)
{
	char where[PATH_MAX + 16];
	int fd;

	snprintf(where, sizeof(where), "%s/%s", l->data.path, l->wal_name);
	if (pgr_layout_make_below(l, l->wal.fd, where, name, true, &fd, err) != PGR_OK)
		return PGR_ERR;
	if (l->sys->close(l->sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not close directory \"%s/%s\"", where, name);
	return PGR_OK;
}

int pgr_layout_wal_root(struct pgr_layout *l, int *fd, struct pgr_err *err)
{
	if (l->wal.fd < 0 &&
	    pgr_layout_make_below(l, l->data.fd, l->data.path, l->wal_name, true, &l->wal.fd, err) != PGR_OK)
		return PGR_ERR;
	if (!l->wal_ready) {
		if (make_wal_subdir(l, "archive_status", err) != PGR_OK)
			return PGR_ERR;
		if (l->summaries && make_wal_subdir(l, "summaries", err) != PGR_OK)
			return PGR_ERR;
		l->wal_ready = true;
	}
	*fd = l->wal.fd;
	return PGR_OK;
}

/* ---- tablespaces ---- */

static bool has_dotdot(const char *path)
{
	for (const char *p = path; p != NULL; p = strchr(p, '/')) {
		p += *p == '/';
		if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
			return true;
	}
	return false;
}

static bool is_in_place(uint32_t oid, const char *location)
{
	char own[sizeof(PGR_TBLSPC_DIR) + 16];

	snprintf(own, sizeof(own), PGR_TBLSPC_DIR "/%u", oid);
	return strcmp(location, own) == 0;
}

/* Decides where a tablespace goes.  A location that -T names is no more than a name, whatever it looks like. */
static int space_init(const struct pgr_layout *l, const struct pgr_bb_tablespace *ts, struct pgr_space *s,
		      struct pgr_err *err)
{
	const char *mapped;
	char path[2 * PATH_MAX];

	s->oid = ts->oid;
	s->root = PGR_ROOT_INIT;
	if (strlen(ts->location) >= PATH_MAX)
		return pgr_err_set(err, PGR_E_DATA, "location of tablespace %u is too long", ts->oid);
	s->location = strdup(ts->location);
	if (s->location == NULL)
		return pgr_err_nomem(err);
	pgr_path_canonicalize(s->location);
	mapped = pgr_tblspc_map_find(l->mapping, s->location);
	s->mapped = mapped != NULL;
	s->in_place = mapped == NULL && is_in_place(ts->oid, ts->location);
	if (s->in_place)
		snprintf(path, sizeof(path), "%s/%s", l->data.path, s->location);
	else if (mapped != NULL || (ts->location[0] == '/' && !has_dotdot(ts->location)))
		snprintf(path, sizeof(path), "%s", mapped != NULL ? mapped : s->location);
	else
		return pgr_err_set(err, PGR_E_DATA, "server sent an invalid location of tablespace %u: \"%s\"", ts->oid,
				   ts->location);
	s->root.path = strdup(path);
	return s->root.path != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int by_oid(const void *a, const void *b)
{
	const struct pgr_space *x = a, *y = b;

	return x->oid < y->oid ? -1 : x->oid > y->oid;
}

static int by_location(const void *a, const void *b)
{
	const struct pgr_space *const *x = a, *const *y = b;

	return strcmp((*x)->location, (*y)->location);
}

/* Fills the list (without the data directory) and both its orders. */
static int load_spaces(struct pgr_layout *l, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	l->spaces = calloc(n + 1, sizeof(*l->spaces));
	l->by_location = calloc(n + 1, sizeof(*l->by_location));
	if (l->spaces == NULL || l->by_location == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < n; i++) {
		if (list[i].oid == 0)
			continue;
		if (space_init(l, &list[i], &l->spaces[l->nspaces++], err) != PGR_OK)
			return PGR_ERR;
	}
	qsort(l->spaces, l->nspaces, sizeof(*l->spaces), by_oid);
	for (size_t i = 0; i < l->nspaces; i++) {
		if (i > 0 && l->spaces[i].oid == l->spaces[i - 1].oid)
			return pgr_err_set(err, PGR_E_DATA, "server sent tablespace %u twice", l->spaces[i].oid);
		l->by_location[i] = &l->spaces[i];
	}
	qsort(l->by_location, l->nspaces, sizeof(*l->by_location), by_location);
	return PGR_OK;
}

/* What the server alone decided must not lead into directories that have another purpose. */
static int check_apart(const struct pgr_layout *l, const struct pgr_space *s, const struct pgr_root *dir,
		       const char *what, struct pgr_err *err)
{
	int rc = s->mapped || dir->path == NULL ? PGR_MORE : pgr_root_holds(l->sys, dir, s->root.path, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	pgr_err_set(err, PGR_E_DATA, "tablespace %u has its directory \"%s\" inside the %s \"%s\"", s->oid,
		    s->root.path, what, dir->path);
	return pgr_err_hint(err, "Relocate the tablespace with --tablespace-mapping.");
}

/* Everything that can be refused is refused before the first directory is made. */
static int check_spaces(const struct pgr_layout *l, struct pgr_err *err)
{
	for (size_t i = 0; i < l->nspaces; i++) {
		const struct pgr_space *s = &l->spaces[i];
		bool missing;

		if (s->in_place)
			continue;
		if (check_apart(l, s, &l->data, "data directory", err) != PGR_OK ||
		    check_apart(l, s, &l->wal, "WAL directory", err) != PGR_OK)
			return PGR_ERR;
		if (!pgr_layout_is_old_space(l, s->root.path) &&
		    pgr_root_check(l->sys, &s->root, &missing, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static int make_in_place(const struct pgr_layout *l, struct pgr_space *s, struct pgr_err *err)
{
	char where[PATH_MAX + 16], name[16];
	int parent, rc;

	if (pgr_layout_make_below(l, l->data.fd, l->data.path, PGR_TBLSPC_DIR, true, &parent, err) != PGR_OK)
		return PGR_ERR;
	snprintf(where, sizeof(where), "%s/" PGR_TBLSPC_DIR, l->data.path);
	snprintf(name, sizeof(name), "%u", s->oid);
	rc = pgr_layout_make_below(l, parent, where, name, false, &s->root.fd, err);
	if (l->sys->close(l->sys, parent) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", where);
	return rc;
}

static int make_space(struct pgr_layout *l, struct pgr_space *s, struct pgr_err *err)
{
	int rc = PGR_MORE;

	if (s->in_place && l->look_only && !l->old)
		return PGR_OK;
	if (s->in_place)
		return l->old ? pgr_layout_old_in_place(l, s, err) : make_in_place(l, s, err);
	if (pgr_layout_is_old_space(l, s->root.path))
		rc = pgr_root_open(l->sys, &s->root, err);
	return rc == PGR_MORE ? pgr_layout_make_root(l, &s->root, err) : rc;
}

static int by_inode(const void *a, const void *b)
{
	const struct pgr_root *x = *(const struct pgr_root *const *)a, *y = *(const struct pgr_root *const *)b;

	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* Two roots in one directory would mix their files: found by inode, since links give one directory many names. */
static int check_distinct(const struct pgr_layout *l, struct pgr_err *err)
{
	const struct pgr_root **all = calloc(l->nspaces + 2, sizeof(*all));
	size_t n = 0;
	int rc = PGR_OK;

	if (all == NULL)
		return pgr_err_nomem(err);
	all[n++] = &l->data;
	if (l->wal.path != NULL)
		all[n++] = &l->wal;
	for (size_t i = 0; i < l->nspaces; i++)
		if (!l->spaces[i].in_place)
			all[n++] = &l->spaces[i].root;
	qsort(all, n, sizeof(*all), by_inode);
	for (size_t i = 1; i < n && rc == PGR_OK; i++)
		if (all[i]->fd >= 0 && pgr_root_same(all[i - 1], all[i]))
			rc = pgr_err_set(err, PGR_E_USAGE, "directories \"%s\" and \"%s\" are the same directory",
					 all[i - 1]->path, all[i]->path);
	free(all);
	return rc;
}

int pgr_layout_prepare_tablespaces(struct pgr_layout *l, const struct pgr_bb_tablespace *list, size_t n,
				   struct pgr_err *err)
{
	if (l->spaces != NULL)
		return pgr_err_set(err, PGR_E_USAGE, "tablespaces of \"%s\" were prepared before", l->data.path);
	if (load_spaces(l, list, n, err) != PGR_OK || (l->old && pgr_layout_old_links(l, err) != PGR_OK) ||
	    check_spaces(l, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < l->nspaces; i++)
		if (make_space(l, &l->spaces[i], err) != PGR_OK)
			return PGR_ERR;
	if (check_distinct(l, err) != PGR_OK)
		return PGR_ERR;
	return l->old ? pgr_layout_old_leftovers(l, err) : PGR_OK;
}

/* ---- looking things up ---- */

const struct pgr_space *pgr_layout_find_space(const struct pgr_layout *l, uint32_t oid)
{
	const struct pgr_space key = {.oid = oid};

	return l->nspaces == 0 ? NULL : bsearch(&key, l->spaces, l->nspaces, sizeof(*l->spaces), by_oid);
}

int pgr_layout_root(const struct pgr_layout *l, uint32_t oid)
{
	const struct pgr_space *s = oid == 0 ? NULL : pgr_layout_find_space(l, oid);

	if (oid == 0)
		return l->data.fd;
	return s != NULL ? s->root.fd : -1;
}

const char *pgr_layout_tablespace_target(const struct pgr_layout *l, uint32_t oid)
{
	const struct pgr_space *s = pgr_layout_find_space(l, oid);

	return s != NULL && !s->in_place ? s->root.path : NULL;
}

const char *pgr_layout_target_of(const struct pgr_layout *l, const char *server_location)
{
	char canonical[PATH_MAX];
	struct pgr_space key = {.location = canonical}, *const pkey = &key, **found;

	if (l->nspaces == 0 || strlen(server_location) >= sizeof(canonical))
		return NULL;
	memcpy(canonical, server_location, strlen(server_location) + 1);
	pgr_path_canonicalize(canonical);
	found = bsearch(&pkey, l->by_location, l->nspaces, sizeof(*l->by_location), by_location);
	return found != NULL && !(*found)->in_place ? (*found)->root.path : NULL;
}

/* What follows `dir` and slashes in the path ("" when nothing does); NULL when it is not in there. */
static const char *below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (strncmp(path, dir, n) != 0 || (path[n] != '/' && path[n] != '\0'))
		return NULL;
	return path + n + strspn(path + n, "/");
}

/* The tablespace that a manifest path leads into; NULL. */
static const struct pgr_space *space_of(const struct pgr_layout *l, const char *path, const char **rest)
{
	const char *name = below(path, PGR_TBLSPC_DIR);
	size_t n = name == NULL ? 0 : strcspn(name, "/");
	uint32_t oid;

	if (n == 0 || name[0] == '0' || !pgr_num_u32(name, n, &oid))
		return NULL;
	*rest = name + n + strspn(name + n, "/");
	return pgr_layout_find_space(l, oid);
}

void pgr_layout_resolve(const struct pgr_layout *l, const char *path, int *root_fd, const char **rest)
{
	const char *in_wal = l->wal.fd < 0 ? NULL : below(path, l->wal_name);
	const struct pgr_space *s = space_of(l, path, rest);

	if (s != NULL) {
		*root_fd = s->root.fd;
		return;
	}
	*root_fd = in_wal != NULL ? l->wal.fd : l->data.fd;
	*rest = in_wal != NULL ? in_wal : path;
}

const char *pgr_layout_location(const struct pgr_layout *l, const char *path, const char **rest)
{
	const struct pgr_space *s = space_of(l, path, rest);

	return s != NULL ? s->location : NULL;
}

size_t pgr_layout_tablespaces(const struct pgr_layout *l)
{
	return l->nspaces;
}

uint32_t pgr_layout_tablespace_oid(const struct pgr_layout *l, size_t i)
{
	return l->spaces[i].oid;
}

const char *pgr_layout_version_dir(const struct pgr_layout *l)
{
	return l->version_dir;
}

const char *pgr_layout_data_dir(const struct pgr_layout *l)
{
	return l->data.path;
}

const char *pgr_layout_wal_name(const struct pgr_layout *l)
{
	return l->wal_name;
}

mode_t pgr_layout_dir_mode(const struct pgr_layout *l)
{
	return l->dir_mode;
}

mode_t pgr_layout_file_mode(const struct pgr_layout *l)
{
	return l->file_mode;
}

/* ---- durability ---- */

/* What lies in place was synced with the data directory. */
int pgr_layout_sync(struct pgr_layout *l, bool files, struct pgr_err *err)
{
	for (size_t i = 0; i < l->nspaces; i++)
		if (!l->spaces[i].in_place && pgr_root_sync(l->sys, &l->spaces[i].root, files, err) != PGR_OK)
			return PGR_ERR;
	if (l->wal.path != NULL && pgr_root_sync(l->sys, &l->wal, files, err) != PGR_OK)
		return PGR_ERR;
	return pgr_root_sync(l->sys, &l->data, files, err);
}

/* A file system that holds several roots is synced once; it holds the parents of what was made in it, too. */
int pgr_layout_syncfs(struct pgr_layout *l, struct pgr_err *err)
{
	if (pgr_root_syncfs(l->sys, &l->data, err) != PGR_OK)
		return PGR_ERR;
	if (l->wal.path != NULL && l->wal.dev != l->data.dev && pgr_root_syncfs(l->sys, &l->wal, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < l->nspaces; i++) {
		const struct pgr_root *r = &l->spaces[i].root;
		bool done = l->spaces[i].in_place || r->dev == l->data.dev;

		for (size_t k = 0; k < i && !done; k++)
			done = r->dev == l->spaces[k].root.dev;
		if (!done && pgr_root_syncfs(l->sys, r, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* ---- after a failure ---- */

struct cleaning {
	const struct pgr_sys *sys;
	void (*say)(void *arg, const char *line);
	void *arg;
	int rc;
	struct pgr_err *err; /* the first failure */
};

static void root_clean(struct cleaning *c, const struct pgr_root *r, const char *what)
{
	char line[PATH_MAX + 64];
	struct pgr_err e;

	if (r->path == NULL || !(r->made || r->was_empty))
		return;
	if (c->say != NULL) {
		snprintf(line, sizeof(line), "removing %s%s \"%s\"", r->made ? "" : "contents of ", what, r->path);
		c->say(c->arg, line);
	}
	if (pgr_root_remove(c->sys, r, &e) == PGR_OK || c->rc != PGR_OK)
		return;
	c->rc = PGR_ERR;
	*c->err = e;
}

int pgr_layout_clean(struct pgr_layout *l, void (*say)(void *arg, const char *line), void *arg, struct pgr_err *err)
{
	struct cleaning c = {.sys = l->sys, .say = say, .arg = arg, .rc = PGR_OK, .err = err};

	root_clean(&c, &l->data, "data directory");
	root_clean(&c, &l->wal, "WAL directory");
	for (size_t i = 0; i < l->nspaces; i++)
		if (!l->spaces[i].in_place)
			root_clean(&c, &l->spaces[i].root, "tablespace directory");
	return c.rc;
}
