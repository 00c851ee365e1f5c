#include "common/fs_dir.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "common/fs_call.h"
#include "common/path.h"
#include "common/sys.h"

/* ---- opening ---- */

int pgr_fs_open_dir(const struct pgr_sys *sys, const char *path, int *fd, struct pgr_err *err)
{
	*fd = pgr_fs_call_open(sys, AT_FDCWD, path, PGR_FS_DIR_FLAGS, 0);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
	return PGR_OK;
}

/* Opens the directory `name[0..n)` below dirfd; a link in its place is an error (ELOOP or ENOTDIR). */
static int open_component(const struct pgr_sys *sys, int dirfd, const char *name, size_t n)
{
	char component[NAME_MAX + 1];

	if (n > NAME_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(component, name, n);
	component[n] = '\0';
	return pgr_fs_call_open(sys, dirfd, component, PGR_FS_DIR_FLAGS | O_NOFOLLOW, 0);
}

/* Walks from root through the components of path[0..leaf).  The descriptor, or -1 with *err set. */
static int walk_down(const struct pgr_sys *sys, int root, const char *path, const char *leaf, struct pgr_err *err)
{
	const char *p = path;
	int at = root;

	while (p < leaf) {
		size_t n = strcspn(p, "/");
		int next = open_component(sys, at, p, n);
		int e = errno;

		if (at != root && sys->close(sys, at) != 0 && next >= 0) {
			pgr_err_sys(err, errno, "could not close directory \"%.*s\"", (int)(p - 1 - path), path);
			sys->close(sys, next); /* read-only, and the first failure is the one to tell */
			return -1;
		}
		if (next < 0) {
			pgr_err_sys(err, e, "could not open directory \"%.*s\"", (int)(p + n - path), path);
			return -1;
		}
		at = next;
		p += n + 1;
	}
	return at;
}

int pgr_fs_open_parent(const struct pgr_sys *sys, int root, const char *path, int *dirfd, const char **leaf,
		       struct pgr_err *err)
{
	*dirfd = -1;
	*leaf = NULL;
	/* "link/" opens what the link points to, even with O_NOFOLLOW: a leaf must not end in a slash. */
	if (!pgr_path_is_safe(path) || path[strlen(path) - 1] == '/')
		return pgr_err_set(err, PGR_E_DATA, "unsafe file name \"%s\"", path);

	const char *slash = strrchr(path, '/');
	int fd;

	if (slash != NULL) {
		fd = walk_down(sys, root, path, slash + 1, err);
		if (fd < 0)
			return PGR_ERR;
	} else {
		fd = pgr_fs_call_open(sys, root, ".", PGR_FS_DIR_FLAGS, 0);
		if (fd < 0)
			return pgr_err_sys(err, errno, "could not open the directory of \"%s\"", path);
	}
	*dirfd = fd;
	*leaf = slash != NULL ? slash + 1 : path;
	return PGR_OK;
}

/* ---- making ---- */

/* One step of mkdir -p.  A directory that is already there is fine, whatever mkdir says about it (EEXIST, EROFS). */
static int make_dir(const struct pgr_sys *sys, const char *path, mode_t mode, bool *made, struct pgr_err *err)
{
	struct stat st;

	*made = sys->mkdirat(sys, AT_FDCWD, path, mode) == 0;
	if (*made)
		return PGR_OK;

	int e = errno;

	if (sys->fstatat(sys, AT_FDCWD, path, &st, 0) == 0) {
		if (S_ISDIR(st.st_mode))
			return PGR_OK;
		e = ENOTDIR;
	} else if (e == EEXIST && errno != ENOENT) {
		e = errno; /* says more than that something is there, unless that is a dangling link */
	}
	return pgr_err_sys(err, e, "could not create directory \"%s\"", path);
}

int pgr_fs_mkdir_p(const struct pgr_sys *sys, const char *path, mode_t mode, bool *created, struct pgr_err *err)
{
	char buf[PATH_MAX];
	size_t len = strlen(path);
	bool made = false;

	if (created != NULL)
		*created = false;
	if (len == 0 || len >= sizeof(buf))
		return pgr_err_sys(err, len == 0 ? ENOENT : ENAMETOOLONG, "could not create directory \"%s\"", path);
	memcpy(buf, path, len + 1);
	while (len > 1 && buf[len - 1] == '/')
		buf[--len] = '\0';

	for (char *p = buf + 1; *p != '\0'; p++) {
		if (*p != '/' || p[-1] == '/')
			continue;
		*p = '\0';
		if (make_dir(sys, buf, mode, &made, err) != PGR_OK)
			return PGR_ERR;
		*p = '/';
	}
	if (make_dir(sys, buf, mode, &made, err) != PGR_OK)
		return PGR_ERR;
	if (created != NULL)
		*created = made;
	return PGR_OK;
}

/* ---- what is there ---- */

/* Turns a descriptor into a stream; the descriptor is gone either way. */
static DIR *take_dir(const struct pgr_sys *sys, int fd, const char *path, struct pgr_err *err)
{
	DIR *d = sys->fdopendir(sys, fd);

	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
		sys->close(sys, fd); /* read-only, and there is a failure to tell already */
	}
	return d;
}

/* The next entry other than "." and "..": PGR_OK, PGR_MORE at the end, PGR_ERR. */
static int next_entry(const struct pgr_sys *sys, DIR *d, const char *path, struct dirent **out, struct pgr_err *err)
{
	do {
		*out = sys->readdir(sys, d);
	} while (*out != NULL && pgr_path_is_dots((*out)->d_name, strlen((*out)->d_name)));
	if (*out != NULL)
		return PGR_OK;
	if (errno != 0)
		return pgr_err_sys(err, errno, "could not read directory \"%s\"", path);
	return PGR_MORE;
}

static int close_dir(const struct pgr_sys *sys, DIR *d, int rc, const char *path, struct pgr_err *err)
{
	if (sys->closedir(sys, d) != 0 && rc != PGR_ERR)
		return pgr_err_sys(err, errno, "could not close directory \"%s\"", path);
	return rc;
}

int pgr_fs_dir_state(const struct pgr_sys *sys, const char *path, enum pgr_dirstate *out, struct pgr_err *err)
{
	struct dirent *de;
	int fd = pgr_fs_call_open(sys, AT_FDCWD, path, PGR_FS_DIR_FLAGS, 0);

	*out = PGR_DIR_MISSING;
	if (fd < 0 && errno == ENOENT)
		return PGR_OK;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not access directory \"%s\"", path);

	DIR *d = take_dir(sys, fd, path, err);

	if (d == NULL)
		return PGR_ERR;

	int rc = next_entry(sys, d, path, &de, err);
	enum pgr_dirstate state = rc == PGR_OK ? PGR_DIR_NOT_EMPTY : PGR_DIR_EMPTY;

	if (close_dir(sys, d, rc, path, err) == PGR_ERR)
		return PGR_ERR;
	*out = state;
	return PGR_OK;
}
