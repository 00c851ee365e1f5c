#include "backup/delta_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/olddir.h"
#include "backup/pidfile.h"
#include "backup/wipe.h"
#include "common/fs_dir.h"
#include "common/num.h"
#include "common/sys.h"

#define CONTROL_FILE "global/pg_control"
#define TBLSPC	     "pg_tblspc/"

void pgr_delta_plan_fini(struct pgr_delta_plan *p)
{
	for (size_t i = 0; i < p->nremovals; i++)
		free(p->removals[i]);
	free(p->removals);
	free(p->files);
	memset(p, 0, sizeof(*p));
}

/* ---- making ---- */

enum fate { GOES, IN_LIST, STAYS };

struct making {
	struct pgr_delta_plan *out;
	const struct pgr_filelist *list;
	const struct pgr_localtree *tree;
	const struct pgr_layout *layout;
	const struct pgr_keep *keep;
	struct pgr_err *err;
	enum fate *fates; /* of the tree's entries */
};

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static bool is_wal(const struct making *m, const char *path)
{
	const char *wal = pgr_layout_wal_name(m->layout);

	return strcmp(path, wal) == 0 || is_below(path, wal);
}

/* "pg_tblspc/16385" of a tablespace that the layout has. */
static bool is_space(const struct making *m, const char *path)
{
	const char *rest;

	return pgr_layout_location(m->layout, path, &rest) != NULL && rest[0] == '\0';
}

/* A link that is not the layout's, but looks like a tablespace's. */
static bool is_space_link(const struct pgr_local_entry *e)
{
	const char *name = e->path + strlen(TBLSPC);
	uint32_t oid;

	return e->type == PGR_LOCAL_LINK && strncmp(e->path, TBLSPC, strlen(TBLSPC)) == 0 && name[0] != '0' &&
	       pgr_num_u32(name, strlen(name), &oid);
}

/* In a tablespace outside of the data directory: what is not known to be this cluster's. */
static bool is_foreign(const struct making *m, const char *path)
{
	const char *version = pgr_layout_version_dir(m->layout);
	const char *rest, *location = pgr_layout_location(m->layout, path, &rest);
	char upto[PATH_MAX];
	size_t n;

	if (location == NULL || rest[0] == '\0' || pgr_layout_target_of(m->layout, location) == NULL)
		return false;
	n = strcspn(rest, "/");
	if (version != NULL && strlen(version) == n && memcmp(version, rest, n) == 0)
		return false;
	n += (size_t)(rest - path);
	memcpy(upto, path, n);
	upto[n] = '\0';
	return pgr_filelist_find(m->list, upto) == NULL;
}

static bool is_lost_found(const struct making *m, const struct pgr_local_entry *e)
{
	const char *rest = e->path;

	(void)pgr_layout_location(m->layout, e->path, &rest);
	return e->type == PGR_LOCAL_DIR && strcmp(rest, PGR_LOST_FOUND) == 0;
}

/* What is not in the list, and yet not removed. */
static bool stays(const struct making *m, const struct pgr_local_entry *e)
{
	static const char *const ours[] = {PGR_OLDDIR_STATE, PGR_OLDDIR_CONTROL, CONTROL_FILE};

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(e->path, ours[i]) == 0)
			return true;
	if (e->type == PGR_LOCAL_DIR && strcmp(e->path, "global") == 0)
		return true;
	return e->is_root || is_wal(m, e->path) || is_space(m, e->path) || is_space_link(e) || is_foreign(m, e->path) ||
	       is_lost_found(m, e) || pgr_keep_matches(m->keep, e->path);
}

/* Below something that is kept and is no directory here, where the server has one: it cannot be made. */
static bool is_under_kept(const struct making *m, const char *path)
{
	char dir[PATH_MAX];

	if (!pgr_keep_matches(m->keep, path))
		return false;
	strcpy(dir, path); /* the list's paths are shorter than PATH_MAX */
	for (char *slash; (slash = strrchr(dir, '/')) != NULL;) {
		const struct pgr_local_entry *e;

		*slash = '\0';
		e = pgr_localtree_find(m->tree, dir);
		if (e != NULL)
			return e->type != PGR_LOCAL_DIR && pgr_keep_matches(m->keep, dir);
	}
	return false;
}

static bool is_kept(const struct making *m, const char *path, const struct pgr_local_entry *here)
{
	return here != NULL ? pgr_keep_matches(m->keep, path) : is_under_kept(m, path);
}

/* It puts a directory in the place of whatever has the name. */
static bool is_layouts(const struct making *m, const char *path)
{
	return is_wal(m, path) || is_space(m, path) ||
	       (strcmp(path, "pg_tblspc") == 0 && pgr_layout_tablespaces(m->layout) > 0);
}

static void decide_dir(struct making *m, const struct pgr_list_entry *e, const struct pgr_local_entry *here,
		       struct pgr_delta_file *f)
{
	bool there = here != NULL && (here->type == PGR_LOCAL_DIR || is_layouts(m, e->path));

	f->action = there || is_kept(m, e->path, here) ? PGR_DELTA_KEEP : PGR_DELTA_FETCH;
}

static void decide_file(struct making *m, const struct pgr_list_entry *e, const struct pgr_local_entry *here,
			struct pgr_delta_file *f)
{
	uint64_t both;

	/* something else of this name is no file of anybody; what is in it may be kept, and then shows the conflict */
	if (is_kept(m, e->path, here) &&
	    (here == NULL || here->type == PGR_LOCAL_FILE || here->type == PGR_LOCAL_LINK)) {
		*f = (struct pgr_delta_file){PGR_DELTA_KEEP, here != NULL ? here->size : 0};
		m->out->nkeep++;
		return;
	}
	if (here == NULL || here->type != PGR_LOCAL_FILE || here->replaced) {
		*f = (struct pgr_delta_file){PGR_DELTA_FETCH, 0};
		m->out->nfetch++;
		m->out->fetch_bytes += e->size;
		return;
	}
	both = here->size < e->size ? here->size : e->size;
	*f = (struct pgr_delta_file){PGR_DELTA_COMPARE, here->size};
	m->out->ncompare++;
	m->out->compare_bytes += both;
	m->out->fetch_bytes += e->size - both;
}

/* Both lists are sorted alike. */
static void merge(struct making *m)
{
	size_t i = 0, j = 0;

	while (i < m->list->n || j < m->tree->n) {
		const struct pgr_list_entry *e = i < m->list->n ? &m->list->entries[i] : NULL;
		const struct pgr_local_entry *here = j < m->tree->n ? &m->tree->entries[j] : NULL;
		int order = e == NULL ? 1 : here == NULL ? -1 : strcmp(e->path, here->path);

		if (order > 0) {
			m->fates[j++] = stays(m, here) ? STAYS : GOES;
			continue;
		}
		if (order < 0)
			here = NULL;
		if (e->is_dir)
			decide_dir(m, e, here, &m->out->files[i]);
		else
			decide_file(m, e, here, &m->out->files[i]);
		if (here != NULL)
			m->fates[j++] = m->out->files[i].action == PGR_DELTA_FETCH ? GOES : IN_LIST;
		i++;
	}
}

/* A directory stays for what is in it, unless the server has something else of its name. */
static int keep_above(struct making *m, const char *path)
{
	char dir[PATH_MAX];
	size_t n = strlen(path);

	memcpy(dir, path, n + 1);
	for (char *slash; (slash = strrchr(dir, '/')) != NULL;) {
		const struct pgr_local_entry *e;

		*slash = '\0';
		e = pgr_localtree_find(m->tree, dir);
		if (e == NULL || m->fates[e - m->tree->entries] != GOES)
			continue;
		if (pgr_filelist_find(m->list, dir) != NULL)
			return pgr_err_set(m->err, PGR_E_USAGE,
					   "\"%s\" cannot be kept: the server has a file of the name \"%s\"",
					   pgr_show_path(path, n).text, pgr_show_path(dir, strlen(dir)).text);
		m->fates[e - m->tree->entries] = STAYS;
	}
	return PGR_OK;
}

static int refuse_mounted(const struct making *m, const struct pgr_local_entry *e)
{
	char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", pgr_layout_data_dir(m->layout),
		 pgr_show_path(e->path, strlen(e->path)).text);
	return pgr_mounted_error(path, m->err);
}

/* pg_wal itself, or its lost+found. */
static bool is_wal_top(const struct making *m, const struct pgr_local_entry *e)
{
	const char *rest = e->path + strlen(pgr_layout_wal_name(m->layout));

	return rest[0] == '\0' || strcmp(rest + 1, PGR_LOST_FOUND) == 0;
}

static bool ends_in(const char *path, const char *end)
{
	size_t n = strlen(path), len = strlen(end);

	return n > len && strcmp(path + n - len, end) == 0;
}

/* Another data directory below this one, a copy or a server's own, is nothing that anybody wants to lose so. */
static int check_nested(const struct making *m, const struct pgr_local_entry *e)
{
	size_t n = strlen(e->path);

	if (ends_in(e->path, "/" CONTROL_FILE))
		n -= strlen("/" CONTROL_FILE);
	else if (ends_in(e->path, "/" PGR_PIDFILE_NAME))
		n -= strlen("/" PGR_PIDFILE_NAME);
	else
		return PGR_OK;
	pgr_err_set(m->err, PGR_E_USAGE, "\"%s/%s\" is a data directory, too, and would be removed",
		    pgr_layout_data_dir(m->layout), pgr_show_path(e->path, n).text);
	return pgr_err_hint(m->err, "Move it to another place, or name it with --keep.");
}

/* From the end of the sorted tree, where what is in a directory comes before it. */
static int collect(struct making *m)
{
	for (size_t j = m->tree->n; j-- > 0;) {
		const struct pgr_local_entry *e = &m->tree->entries[j];
		char *path;

		if (is_wal(m, e->path) && e->type == PGR_LOCAL_FILE) {
			m->out->nwal++;
			m->out->wal_bytes += e->size;
		}
		/* what is in pg_wal is the layout's to remove, but what it would be refused shows here */
		if (e->mounted && (m->fates[j] == GOES || (is_wal(m, e->path) && !is_wal_top(m, e))))
			return refuse_mounted(m, e);
		if ((m->fates[j] == GOES || is_wal(m, e->path)) && check_nested(m, e) != PGR_OK)
			return PGR_ERR;
		if (m->fates[j] != GOES)
			continue;
		path = strdup(e->path);
		if (path == NULL)
			return pgr_err_nomem(m->err);
		m->out->removals[m->out->nremovals++] = path;
		m->out->removal_bytes += e->size;
	}
	return PGR_OK;
}

static int make_plan(struct making *m)
{
	size_t gone = 0;

	m->out->n = m->list->n;
	m->out->files = calloc(m->list->n + 1, sizeof(*m->out->files));
	m->fates = calloc(m->tree->n + 1, sizeof(*m->fates));
	if (m->out->files == NULL || m->fates == NULL)
		return pgr_err_nomem(m->err);
	merge(m);
	for (size_t j = 0; j < m->tree->n; j++)
		if (m->fates[j] == STAYS && keep_above(m, m->tree->entries[j].path) != PGR_OK)
			return PGR_ERR;
	for (size_t j = 0; j < m->tree->n; j++)
		gone += m->fates[j] == GOES;
	m->out->removals = calloc(gone + 1, sizeof(*m->out->removals));
	return m->out->removals != NULL ? collect(m) : pgr_err_nomem(m->err);
}

int pgr_delta_plan_make(struct pgr_delta_plan *out, const struct pgr_filelist *list, const struct pgr_localtree *tree,
			const struct pgr_layout *layout, const struct pgr_keep *keep, struct pgr_err *err)
{
	struct making m = {.out = out, .list = list, .tree = tree, .layout = layout, .keep = keep, .err = err};
	int rc = make_plan(&m);

	free(m.fates);
	if (rc != PGR_OK)
		pgr_delta_plan_fini(out);
	return rc;
}

/* ---- removing ---- */

#define TICK_EVERY 256 /* removals: a few milliseconds, mostly */

/* Neighbours mostly have one directory, which stays open. */
struct remover {
	const struct pgr_sys *sys;
	const struct pgr_layout *layout;
	struct pgr_err *err;
	int dirfd; /* -1 */
	int root;  /* that it was opened below */
	char *dir; /* its path below that */
};

static int leave_dir(struct remover *r)
{
	int fd = r->dirfd, rc;

	if (fd < 0)
		return PGR_OK;
	r->dirfd = -1;
	rc = r->sys->close(r->sys, fd) == 0
		     ? PGR_OK
		     : pgr_err_sys(r->err, errno, "could not close directory \"%s/%s\"", pgr_layout_data_dir(r->layout),
				   pgr_show_path(r->dir, strlen(r->dir)).text);
	free(r->dir);
	r->dir = NULL;
	return rc;
}

/* PGR_MORE: the directory is gone, with all that was in it. */
static int enter_dir(struct remover *r, int root, const char *rest, const char **leaf)
{
	const char *slash = strrchr(rest, '/');
	size_t n = slash != NULL ? (size_t)(slash - rest) : 0;

	*leaf = slash != NULL ? slash + 1 : rest;
	if (r->dirfd >= 0 && r->root == root && strlen(r->dir) == n && memcmp(r->dir, rest, n) == 0)
		return PGR_OK;
	if (leave_dir(r) != PGR_OK)
		return PGR_ERR;
	r->dir = strndup(rest, n);
	if (r->dir == NULL)
		return pgr_err_nomem(r->err);
	r->root = root;
	if (pgr_fs_open_parent(r->sys, root, rest, &r->dirfd, leaf, r->err) == PGR_OK)
		return PGR_OK;
	free(r->dir);
	r->dir = NULL;
	r->dirfd = -1;
	return r->err->cls == PGR_E_SYSTEM && r->err->sys_errno == ENOENT ? PGR_MORE : PGR_ERR;
}

static int remove_failed(const struct remover *r, const char *path)
{
	int errnum = errno;

	pgr_err_sys(r->err, errnum, "could not remove \"%s/%s\"", pgr_layout_data_dir(r->layout),
		    pgr_show_path(path, strlen(path)).text);
	return errnum == EBUSY ? pgr_err_hint(r->err, "Something may be mounted there.") : PGR_ERR;
}

static int remove_one(struct remover *r, const char *path)
{
	const char *rest, *leaf;
	int root, rc;

	pgr_layout_resolve(r->layout, path, &root, &rest);
	rc = enter_dir(r, root, rest, &leaf);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (r->sys->unlinkat(r->sys, r->dirfd, leaf, 0) == 0 || errno == ENOENT)
		return PGR_OK;
	if (errno == EISDIR && (r->sys->unlinkat(r->sys, r->dirfd, leaf, AT_REMOVEDIR) == 0 || errno == ENOENT))
		return PGR_OK;
	return remove_failed(r, path);
}

int pgr_delta_plan_remove(const struct pgr_delta_plan *p, const struct pgr_sys *sys, const struct pgr_layout *layout,
			  int (*tick)(void *arg, struct pgr_err *err), void *arg, struct pgr_err *err)
{
	struct remover r = {.sys = sys, .layout = layout, .err = err, .dirfd = -1};
	struct pgr_err unused;
	int rc = PGR_OK;

	for (size_t i = 0; i < p->nremovals && rc == PGR_OK; i++) {
		rc = remove_one(&r, p->removals[i]);
		if (rc == PGR_OK && tick != NULL && i % TICK_EVERY == TICK_EVERY - 1)
			rc = tick(arg, err);
	}
	if (rc != PGR_OK)
		r.err = &unused; /* the first failure is told */
	return leave_dir(&r) == PGR_OK ? rc : PGR_ERR;
}
