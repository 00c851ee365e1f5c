#include "backup/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs_dir.h"
#include "common/fs_durable.h"
#include "common/fs_tree.h"
#include "common/sys.h"

/* Nothing was written through the descriptor, so there is nothing that closing it could lose. */
void pgr_root_fini(const struct pgr_sys *sys, struct pgr_root *r)
{
	if (r->fd >= 0)
		(void)sys->close(sys, r->fd);
	free(r->path);
	*r = PGR_ROOT_INIT;
}

/* Cuts the last component off; false when there is nothing before it that has a name of its own. */
static bool cut_last_component(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == NULL || slash == path)
		return false;
	*slash = '\0';
	return true;
}

/* ---- making ---- */

int pgr_root_check(const struct pgr_sys *sys, const struct pgr_root *r, bool *missing, struct pgr_err *err)
{
	enum pgr_dirstate state;

	*missing = false;
	if (pgr_fs_dir_state(sys, r->path, &state, err) != PGR_OK)
		return PGR_ERR;
	if (state == PGR_DIR_NOT_EMPTY)
		return pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" exists but is not empty", r->path);
	*missing = state == PGR_DIR_MISSING;
	return PGR_OK;
}

/* How much of a missing directory's path is there: what lies beyond will be made, and must be synced one by one. */
static int find_present(const struct pgr_sys *sys, struct pgr_root *r, struct pgr_err *err)
{
	char p[PATH_MAX];
	struct stat st;

	r->present = 0;
	snprintf(p, sizeof(p), "%s", r->path);
	while (cut_last_component(p)) {
		if (sys->fstatat(sys, AT_FDCWD, p, &st, 0) == 0) {
			r->present = strlen(p);
			break;
		}
		if (errno != ENOENT)
			return pgr_err_sys(err, errno, "could not access directory \"%s\"", p);
	}
	return PGR_OK;
}

static int open_root(const struct pgr_sys *sys, struct pgr_root *r, mode_t mode, struct pgr_err *err)
{
	struct stat st;

	if (pgr_fs_open_dir(sys, r->path, &r->fd, err) != PGR_OK) {
		r->fd = -1;
		return PGR_ERR;
	}
	if (sys->fstat(sys, r->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", r->path);
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	/* the umask may have taken bits away; the mode of a directory that was there is its owner's choice */
	if (r->made && sys->fchmod(sys, r->fd, mode) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on directory \"%s\"", r->path);
	return PGR_OK;
}

int pgr_root_make(const struct pgr_sys *sys, struct pgr_root *r, mode_t mode, struct pgr_err *err)
{
	bool missing;

	if (pgr_root_check(sys, r, &missing, err) != PGR_OK)
		return PGR_ERR;
	if (missing) {
		if (find_present(sys, r, err) != PGR_OK || pgr_fs_mkdir_p(sys, r->path, mode, &r->made, err) != PGR_OK)
			return PGR_ERR;
		/* somebody else was faster: then it is theirs, and the rule for existing ones holds */
		if (!r->made && pgr_root_check(sys, r, &missing, err) != PGR_OK)
			return PGR_ERR;
	}
	r->was_empty = !r->made;
	return open_root(sys, r, mode, err);
}

int pgr_root_open(const struct pgr_sys *sys, struct pgr_root *r, struct pgr_err *err)
{
	enum pgr_dirstate state;

	if (pgr_fs_dir_state(sys, r->path, &state, err) != PGR_OK)
		return PGR_ERR;
	return state == PGR_DIR_NOT_EMPTY ? open_root(sys, r, 0, err) : PGR_MORE;
}

/* ---- telling apart ---- */

bool pgr_root_same(const struct pgr_root *a, const struct pgr_root *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

/* Each ancestor that exists is compared by its inode, since links give one directory many names. */
int pgr_root_holds(const struct pgr_sys *sys, const struct pgr_root *r, const char *path, struct pgr_err *err)
{
	char p[PATH_MAX];
	struct stat st;

	snprintf(p, sizeof(p), "%s", path);
	do {
		if (sys->fstatat(sys, AT_FDCWD, p, &st, 0) == 0) {
			if (st.st_dev == r->dev && st.st_ino == r->ino)
				return PGR_OK;
		} else if (errno != ENOENT) {
			return pgr_err_sys(err, errno, "could not access directory \"%s\"", p);
		}
	} while (cut_last_component(p));
	return PGR_MORE;
}

/* ---- durability ---- */

static int sync_made_parents(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err)
{
	char p[PATH_MAX];

	snprintf(p, sizeof(p), "%s", r->path);
	do {
		if (pgr_fs_sync_parent(sys, p, err) != PGR_OK)
			return PGR_ERR;
	} while (cut_last_component(p) && strlen(p) > r->present);
	return PGR_OK;
}

/* An empty one may have been made by an earlier run that was killed. */
int pgr_root_sync_name(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err)
{
	if (r->made)
		return sync_made_parents(sys, r, err);
	return r->was_empty ? pgr_fs_sync_parent(sys, r->path, err) : PGR_OK;
}

int pgr_root_sync(const struct pgr_sys *sys, const struct pgr_root *r, bool files, struct pgr_err *err)
{
	if (pgr_fs_sync_tree(sys, r->path, files, err) != PGR_OK)
		return PGR_ERR;
	return pgr_root_sync_name(sys, r, err);
}

int pgr_root_syncfs(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err)
{
	if (sys->syncfs(sys, r->fd) != 0)
		return pgr_err_sys(err, errno, "could not synchronize file system for file \"%s\"", r->path);
	return PGR_OK;
}

/* ---- after a failure ---- */

int pgr_root_remove(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err)
{
	enum pgr_dirstate state;

	if (!r->made && !r->was_empty)
		return PGR_OK;
	if (pgr_fs_dir_state(sys, r->path, &state, err) != PGR_OK)
		return PGR_ERR;
	return state == PGR_DIR_MISSING ? PGR_OK : pgr_fs_remove_tree(sys, r->path, r->made, err);
}
