#include "backup/wipe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/sys.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* ---- mount points ---- */

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x00002000 /* Linux 5.8 */
#endif

/* Where the kernel cannot tell, another device has to do; that takes a subvolume of btrfs for a mount. */
bool pgr_is_mounted(const struct pgr_sys *sys, int dirfd, const char *name, const struct stat *st, dev_t parent)
{
	struct statx x;

	if (!S_ISDIR(st->st_mode))
		return st->st_dev != parent;
	if (sys->statx(sys, dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &x) != 0 ||
	    (x.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0)
		return st->st_dev != parent;
	return (x.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

int pgr_mounted_error(const char *path, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "\"%s\" is a mount point and cannot be removed", path);
	return pgr_err_hint(err, "Unmount it, or mount it outside of the directory.");
}

/* ---- the walk ---- */

/* Twice through the tree: nothing is removed before all of it was looked at.  For the depth see common/fs_tree.c. */
struct wipe {
	const struct pgr_sys *sys;
	struct pgr_err *err;
	bool remove;
	size_t top;	     /* bytes of the path of the directory that is emptied */
	char path[PATH_MAX]; /* where we are */
};

static int failed(struct wipe *w, int errnum, const char *what)
{
	return pgr_err_sys(w->err, errnum, "could not %s \"%s\"", what, w->path);
}

static int failed_unless_gone(struct wipe *w, const char *what)
{
	return errno == ENOENT ? PGR_OK : failed(w, errno, what);
}

static int walk(struct wipe *w, int fd, dev_t dev);

static int walk_subdir(struct wipe *w, int dirfd, const char *name, dev_t dev)
{
	int fd = w->sys->openat(w->sys, dirfd, name, DIR_FLAGS, 0);

	if (fd < 0)
		return failed_unless_gone(w, "open directory");
	if (walk(w, fd, dev) != PGR_OK)
		return PGR_ERR;
	if (w->remove && w->sys->unlinkat(w->sys, dirfd, name, AT_REMOVEDIR) != 0)
		return failed_unless_gone(w, "remove directory");
	return PGR_OK;
}

static int handle(struct wipe *w, int dirfd, const char *name, dev_t dev)
{
	struct stat st;

	if (w->sys->fstatat(w->sys, dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return failed_unless_gone(w, "stat file");
	if (pgr_is_mounted(w->sys, dirfd, name, &st, dev))
		return pgr_mounted_error(w->path, w->err);
	if (S_ISDIR(st.st_mode))
		return walk_subdir(w, dirfd, name, st.st_dev);
	if (w->remove && w->sys->unlinkat(w->sys, dirfd, name, 0) != 0)
		return failed_unless_gone(w, "remove file");
	return PGR_OK;
}

static int walk_entry(struct wipe *w, int dirfd, const char *name, dev_t dev)
{
	size_t len = strlen(w->path), room = sizeof(w->path) - len;
	int rc;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (len == w->top && strcmp(name, PGR_LOST_FOUND) == 0))
		return PGR_OK;
	if ((size_t)snprintf(w->path + len, room, "/%s", name) >= room) {
		w->path[len] = '\0';
		return failed(w, ENAMETOOLONG, "descend in directory");
	}
	rc = handle(w, dirfd, name, dev);
	w->path[len] = '\0';
	return rc;
}

/* Takes fd. */
static int walk(struct wipe *w, int fd, dev_t dev)
{
	DIR *d = w->sys->fdopendir(w->sys, fd);
	struct dirent *de = NULL;
	int rc = PGR_OK;

	if (d == NULL) {
		failed(w, errno, "open directory");
		(void)w->sys->close(w->sys, fd); /* there is a failure to tell already */
		return PGR_ERR;
	}
	while (rc == PGR_OK && (de = w->sys->readdir(w->sys, d)) != NULL)
		rc = walk_entry(w, fd, de->d_name, dev);
	if (rc == PGR_OK && errno != 0)
		rc = failed(w, errno, "read directory");
	if (w->sys->closedir(w->sys, d) != 0 && rc == PGR_OK)
		rc = failed(w, errno, "close directory");
	return rc;
}

static int walk_top(struct wipe *w, int fd, bool remove)
{
	struct stat st;
	int own;

	w->remove = remove;
	if (w->sys->fstat(w->sys, fd, &st) != 0)
		return failed(w, errno, "stat directory");
	own = w->sys->openat(w->sys, fd, ".", DIR_FLAGS, 0);
	if (own < 0)
		return failed(w, errno, "open directory");
	return walk(w, own, st.st_dev);
}

static int wipe_init(struct wipe *w, const struct pgr_sys *sys, const char *where, struct pgr_err *err)
{
	w->sys = sys;
	w->err = err;
	w->top = strlen(where);
	if (w->top >= sizeof(w->path))
		return pgr_err_sys(err, ENAMETOOLONG, "could not open directory \"%s\"", where);
	memcpy(w->path, where, w->top + 1);
	return PGR_OK;
}

int pgr_wipe_contents(const struct pgr_sys *sys, int fd, const char *where, struct pgr_err *err)
{
	struct wipe w;

	if (wipe_init(&w, sys, where, err) != PGR_OK || walk_top(&w, fd, false) != PGR_OK)
		return PGR_ERR;
	return walk_top(&w, fd, true);
}

int pgr_wipe(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_err *err)
{
	struct wipe w;
	struct stat st;

	if (wipe_init(&w, sys, where, err) != PGR_OK)
		return PGR_ERR;
	w.top = SIZE_MAX; /* a file system's top is refused as a whole */
	if (sys->fstat(sys, dirfd, &st) != 0)
		return failed(&w, errno, "stat directory");
	w.remove = false;
	if (walk_entry(&w, dirfd, name, st.st_dev) != PGR_OK)
		return PGR_ERR;
	w.remove = true;
	return walk_entry(&w, dirfd, name, st.st_dev);
}
