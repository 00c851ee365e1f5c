#include "common/fs_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fs_call.h"
#include "common/fs_dir.h"
#include "common/path.h"
#include "common/sys.h"

/*
 * A walk over a tree, children before parents, through descriptors only.
 *
 * Depth: each level adds at least two characters to `path`, so there are fewer than PATH_MAX / 2 levels of walk_dir
 * and its small frames (well below a megabyte of stack in all); a tree that is deeper is ENAMETOOLONG.  Each level
 * holds one descriptor, so a deep tree can also end in EMFILE: a failure as any other.
 */
struct walk {
	const struct pgr_sys *sys;
	enum { WALK_REMOVE, WALK_SYNC_DIRS, WALK_SYNC_ALL } job;
	bool failed;
	struct pgr_err *err; /* the first failure */
	char path[PATH_MAX]; /* where we are */
};

/* Removing goes on after a failure, because less is left then; syncing does not, because nothing is gained. */
static bool walk_goes_on(const struct walk *w)
{
	return !w->failed || w->job == WALK_REMOVE;
}

/* Keeps the first failure: "could not <what> "<path>": <errno>". */
static void walk_failed(struct walk *w, int errnum, const char *what)
{
	if (!w->failed)
		pgr_err_sys(w->err, errnum, "could not %s \"%s\"", what, w->path);
	w->failed = true;
}

/* As walk_failed; but what has gone since it was listed needs neither removing nor syncing. */
static void walk_failed_unless_gone(struct walk *w, const char *what)
{
	if (errno != ENOENT)
		walk_failed(w, errno, what);
}

static mode_t entry_type(struct walk *w, int dirfd, const struct dirent *de)
{
	struct stat st;

	if (de->d_type != DT_UNKNOWN)
		return DTTOIF(de->d_type);
	if (w->sys->fstatat(w->sys, dirfd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return st.st_mode & S_IFMT;
	walk_failed_unless_gone(w, "stat file");
	return 0;
}

static void remove_entry(struct walk *w, int dirfd, const char *name, int flags)
{
	if (w->sys->unlinkat(w->sys, dirfd, name, flags) != 0)
		walk_failed_unless_gone(w, flags == 0 ? "remove file" : "remove directory");
}

static void sync_entry(struct walk *w, int dirfd, const char *name)
{
	int fd = pgr_fs_call_open(w->sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0) {
		walk_failed_unless_gone(w, "open file");
		return;
	}
	if (pgr_fs_call_fsync(w->sys, fd) != 0)
		walk_failed(w, errno, "fsync file");
	if (w->sys->close(w->sys, fd) != 0)
		walk_failed(w, errno, "close file");
}

static void walk_dir(struct walk *w, int fd);

static void walk_subdir(struct walk *w, int dirfd, const char *name)
{
	int fd = pgr_fs_call_open(w->sys, dirfd, name, PGR_FS_DIR_FLAGS | O_NOFOLLOW, 0);

	if (fd < 0) {
		walk_failed_unless_gone(w, "open directory");
		return;
	}
	walk_dir(w, fd);
	if (w->job == WALK_REMOVE)
		remove_entry(w, dirfd, name, AT_REMOVEDIR);
}

static void walk_entry(struct walk *w, int dirfd, const struct dirent *de)
{
	size_t len = strlen(w->path);
	size_t room = sizeof(w->path) - len;

	if ((size_t)snprintf(w->path + len, room, "%s%s", pgr_fs_at_slash(w->path), de->d_name) >= room) {
		w->path[len] = '\0';
		walk_failed(w, ENAMETOOLONG, "descend in directory");
		return;
	}

	mode_t type = entry_type(w, dirfd, de);

	if (type == S_IFDIR)
		walk_subdir(w, dirfd, de->d_name);
	else if (w->job == WALK_REMOVE && type != 0)
		remove_entry(w, dirfd, de->d_name, 0);
	else if (w->job == WALK_SYNC_ALL && type == S_IFREG)
		sync_entry(w, dirfd, de->d_name);
	w->path[len] = '\0';
}

static void walk_entries(struct walk *w, int fd, DIR *d)
{
	while (walk_goes_on(w)) {
		struct dirent *de = w->sys->readdir(w->sys, d);

		if (de == NULL && errno != 0)
			walk_failed(w, errno, "read directory");
		if (de == NULL)
			return;
		if (!pgr_path_is_dots(de->d_name, strlen(de->d_name)))
			walk_entry(w, fd, de);
	}
}

/* Takes fd. */
static void walk_dir(struct walk *w, int fd)
{
	DIR *d = w->sys->fdopendir(w->sys, fd);

	if (d == NULL) {
		walk_failed(w, errno, "open directory");
		w->sys->close(w->sys, fd); /* read-only, and there is a failure to tell already */
		return;
	}
	walk_entries(w, fd, d);
	if (w->job != WALK_REMOVE && !w->failed && pgr_fs_call_fsync_dir(w->sys, fd) != 0)
		walk_failed(w, errno, "fsync directory");
	if (w->sys->closedir(w->sys, d) != 0)
		walk_failed(w, errno, "close directory");
}

static int walk_start(struct walk *w, const char *path)
{
	int fd;

	if (strlen(path) >= sizeof(w->path))
		return pgr_err_sys(w->err, ENAMETOOLONG, "could not open directory \"%s\"", path);
	memcpy(w->path, path, strlen(path) + 1);
	if (pgr_fs_open_dir(w->sys, path, &fd, w->err) != PGR_OK)
		return PGR_ERR;
	walk_dir(w, fd);
	return w->failed ? PGR_ERR : PGR_OK;
}

int pgr_fs_remove_tree(const struct pgr_sys *sys, const char *path, bool top, struct pgr_err *err)
{
	struct walk w = {.sys = sys, .job = WALK_REMOVE, .err = err};

	if (walk_start(&w, path) != PGR_OK)
		return PGR_ERR;
	if (top && sys->unlinkat(sys, AT_FDCWD, path, AT_REMOVEDIR) != 0)
		return pgr_err_sys(err, errno, "could not remove directory \"%s\"", path);
	return PGR_OK;
}

int pgr_fs_sync_tree(const struct pgr_sys *sys, const char *path, bool files, struct pgr_err *err)
{
	struct walk w = {.sys = sys, .job = files ? WALK_SYNC_ALL : WALK_SYNC_DIRS, .err = err};

	return walk_start(&w, path);
}
