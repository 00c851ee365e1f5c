#include "common/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/sys.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* "<where>/<name>" in a message: "\"" AT_FMT "\"", AT_ARG(where, name). */
#define AT_FMT		    "%s%s%s"
#define AT_ARG(where, name) in(where), join(where), (name)

static const char *in(const char *where)
{
	return where != NULL ? where : "";
}

static const char *join(const char *where)
{
	size_t n = where != NULL ? strlen(where) : 0;

	return n == 0 || where[n - 1] == '/' ? "" : "/";
}

/* ---- single calls, with what every caller wants of them ---- */

static int open_retry(const struct pgr_sys *sys, int dirfd, const char *path, int flags, mode_t mode)
{
	int fd;

	do {
		fd = sys->openat(sys, dirfd, path, flags, mode);
	} while (fd < 0 && errno == EINTR);
	return fd;
}

/* An interrupted fsync did not fail; one that failed must not be asked again, it might say yes. */
static int fsync_retry(const struct pgr_sys *sys, int fd)
{
	int rc;

	do {
		rc = sys->fsync(sys, fd);
	} while (rc != 0 && errno == EINTR);
	return rc;
}

/*
 * Some file systems cannot fsync a directory and say EINVAL or EBADF; PostgreSQL goes on then (fsync_fname in
 * src/common/file_utils.c).  EBADF may also mean that the descriptor is none, which is our error and not theirs.
 */
static int fsync_dir_retry(const struct pgr_sys *sys, int fd)
{
	struct stat st;

	if (fsync_retry(sys, fd) == 0 || errno == EINVAL)
		return 0;
	if (errno == EBADF && sys->fstat(sys, fd, &st) == 0)
		return 0;
	return -1;
}

/* Closes fd.  Its failure counts unless there is one already: returns rc or PGR_ERR. */
static int close_file(const struct pgr_sys *sys, int fd, int rc, const char *where, const char *name,
		      struct pgr_err *err)
{
	if (sys->close(sys, fd) != 0 && rc != PGR_ERR)
		return pgr_err_sys(err, errno, "could not close file \"" AT_FMT "\"", AT_ARG(where, name));
	return rc;
}

static int sync_file(const struct pgr_sys *sys, int fd, const char *where, const char *name, struct pgr_err *err)
{
	if (fsync_retry(sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not fsync file \"" AT_FMT "\"", AT_ARG(where, name));
	return PGR_OK;
}

static int sync_dir(const struct pgr_sys *sys, int fd, const char *path, struct pgr_err *err)
{
	if (fsync_dir_retry(sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not fsync directory \"%s\"", path);
	return PGR_OK;
}

/* fsyncs the directory a descriptor stands for, AT_FDCWD included. */
static int sync_dirfd(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_err *err)
{
	if (dirfd != AT_FDCWD)
		return sync_dir(sys, dirfd, in(where), err);

	int fd = open_retry(sys, AT_FDCWD, ".", DIR_FLAGS, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \".\"");
	return close_file(sys, fd, sync_dir(sys, fd, ".", err), NULL, ".", err);
}

/* ---- names below a directory ---- */

static bool is_dots(const char *s, size_t n)
{
	return (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.');
}

bool pgr_path_is_safe(const char *path)
{
	size_t len = strnlen(path, PATH_MAX);

	if (len == 0 || len == PATH_MAX)
		return false;
	for (const char *p = path; *p != '\0';) {
		size_t n = strcspn(p, "/");

		if (n == 0 || is_dots(p, n))
			return false;
		p += n;
		if (*p == '/')
			p++;
	}
	return true;
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
	return open_retry(sys, dirfd, component, DIR_FLAGS | O_NOFOLLOW, 0);
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
		fd = open_retry(sys, root, ".", DIR_FLAGS, 0);
		if (fd < 0)
			return pgr_err_sys(err, errno, "could not open the directory of \"%s\"", path);
	}
	*dirfd = fd;
	*leaf = slash != NULL ? slash + 1 : path;
	return PGR_OK;
}

/* ---- contents ---- */

/* What a write returned: bytes, or 0 to try again, or -1 with *err set. */
static ssize_t written(ssize_t n, const char *where, const char *name, struct pgr_err *err)
{
	if (n > 0)
		return n;
	if (n < 0 && errno == EINTR)
		return 0;
	/* A write of nothing has no errno; PostgreSQL takes it for a full disk. */
	pgr_err_sys(err, n == 0 ? ENOSPC : errno, "could not write to file \"" AT_FMT "\"", AT_ARG(where, name));
	return -1;
}

int pgr_fs_pwrite_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off, const char *name,
		      struct pgr_err *err)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = written(sys->pwrite(sys, fd, p, len, off), NULL, name, err);

		if (n < 0)
			return PGR_ERR;
		p += n;
		len -= (size_t)n;
		off += n;
	}
	return PGR_OK;
}

static int write_whole(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *where,
		       const char *name, struct pgr_err *err)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = written(sys->write(sys, fd, p, len), where, name, err);

		if (n < 0)
			return PGR_ERR;
		p += n;
		len -= (size_t)n;
	}
	return PGR_OK;
}

int pgr_fs_write_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *name,
		     struct pgr_err *err)
{
	return write_whole(sys, fd, buf, len, NULL, name, err);
}

static int rename_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *from, const char *to,
		       struct pgr_err *err)
{
	if (sys->renameat(sys, dirfd, from, dirfd, to) != 0)
		return pgr_err_sys(err, errno, "could not rename file \"" AT_FMT "\" to \"" AT_FMT "\"",
				   AT_ARG(where, from), AT_ARG(where, to));
	return PGR_OK;
}

/* Creates a new file; one of this name is the leftover of a crash, and its mode and links are not to be trusted. */
static int create_anew(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, mode_t mode, int *fd,
		       struct pgr_err *err)
{
	if (sys->unlinkat(sys, dirfd, name, 0) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not remove file \"" AT_FMT "\"", AT_ARG(where, name));
	*fd = open_retry(sys, dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not create file \"" AT_FMT "\"", AT_ARG(where, name));
	return PGR_OK;
}

/* Writes, syncs and closes the file that create_anew made. */
static int fill_file(const struct pgr_sys *sys, int fd, const char *where, const char *name, const void *data,
		     size_t len, bool sync, struct pgr_err *err)
{
	int rc = write_whole(sys, fd, data, len, where, name, err);

	if (rc == PGR_OK && sync)
		rc = sync_file(sys, fd, where, name, err);
	return close_file(sys, fd, rc, where, name, err);
}

int pgr_fs_write_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, const char *tmp_suffix,
		      const void *data, size_t len, mode_t mode, bool sync, struct pgr_err *err)
{
	char tmp[PATH_MAX];
	int fd = -1;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s%s", name, tmp_suffix) >= sizeof(tmp))
		return pgr_err_sys(err, ENAMETOOLONG, "could not create file \"" AT_FMT "\"", AT_ARG(where, name));
	if (create_anew(sys, dirfd, where, tmp, mode, &fd, err) != PGR_OK)
		return PGR_ERR;

	int rc = fill_file(sys, fd, where, tmp, data, len, sync, err);

	if (rc == PGR_OK)
		rc = rename_file(sys, dirfd, where, tmp, name, err);
	if (rc != PGR_OK) {
		/* Nothing to add when this fails too: the first failure is already being told. */
		sys->unlinkat(sys, dirfd, tmp, 0);
		return PGR_ERR;
	}
	return sync ? sync_dirfd(sys, dirfd, where, err) : PGR_OK;
}

/* fsyncs a file by name. */
static int sync_named(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_err *err)
{
	int fd = open_retry(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"" AT_FMT "\"", AT_ARG(where, name));
	return close_file(sys, fd, sync_file(sys, fd, where, name, err), where, name, err);
}

int pgr_fs_durable_rename(const struct pgr_sys *sys, int dirfd, const char *where, int fd, const char *from,
			  const char *to, struct pgr_err *err)
{
	int rc = fd >= 0 ? sync_file(sys, fd, where, from, err) : sync_named(sys, dirfd, where, from, err);

	if (rc == PGR_OK)
		rc = rename_file(sys, dirfd, where, from, to, err);
	if (rc == PGR_OK)
		rc = sync_dirfd(sys, dirfd, where, err);
	return rc;
}

/* Reads to the end of the file, or one byte beyond the limit. */
static int read_to_end(const struct pgr_sys *sys, int fd, struct pgr_buf *b, size_t limit, const char *where,
		       const char *name, struct pgr_err *err)
{
	for (;;) {
		size_t want = limit - b->len < 65536 ? limit - b->len + 1 : 65536;

		if (pgr_buf_reserve(b, want, err) != PGR_OK)
			return PGR_ERR;

		ssize_t n = sys->read(sys, fd, b->data + b->len, want);

		if (n == 0)
			return PGR_OK;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"" AT_FMT "\"", AT_ARG(where, name));
		b->len += (size_t)n;
		if (b->len > limit)
			return pgr_err_set(err, PGR_E_DATA, "file \"" AT_FMT "\" is larger than %zu bytes",
					   AT_ARG(where, name), limit);
	}
}

static int read_regular(const struct pgr_sys *sys, int fd, struct pgr_buf *b, size_t limit, const char *where,
			const char *name, struct pgr_err *err)
{
	struct stat st;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"" AT_FMT "\"", AT_ARG(where, name));
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"" AT_FMT "\" is not a regular file", AT_ARG(where, name));
	return read_to_end(sys, fd, b, limit, where, name, err);
}

int pgr_fs_read_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, size_t limit,
		     char **data, size_t *len, struct pgr_err *err)
{
	struct pgr_buf b = {.limit = SIZE_MAX};

	*data = NULL;
	*len = 0;
	if (limit > SIZE_MAX / 2)
		limit = SIZE_MAX / 2;

	/* Not waiting: a FIFO of this name would keep us until somebody writes into it. */
	int fd = open_retry(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0 && errno == ENOENT)
		return PGR_MORE;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"" AT_FMT "\"", AT_ARG(where, name));

	int rc = read_regular(sys, fd, &b, limit, where, name, err);

	rc = close_file(sys, fd, rc, where, name, err);
	if (rc == PGR_OK && pgr_buf_str(&b) == NULL)
		rc = pgr_err_nomem(err);
	if (rc != PGR_OK) {
		pgr_buf_fini(&b);
		return PGR_ERR;
	}
	*data = (char *)b.data;
	*len = b.len;
	return PGR_OK;
}

/* ---- directories ---- */

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

int pgr_fs_open_dir(const struct pgr_sys *sys, const char *path, int *fd, struct pgr_err *err)
{
	*fd = open_retry(sys, AT_FDCWD, path, DIR_FLAGS, 0);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", path);
	return PGR_OK;
}

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
	} while (*out != NULL && is_dots((*out)->d_name, strlen((*out)->d_name)));
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
	int fd = open_retry(sys, AT_FDCWD, path, DIR_FLAGS, 0);

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

/* ---- whole trees ---- */

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
	int fd = open_retry(w->sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0) {
		walk_failed_unless_gone(w, "open file");
		return;
	}
	if (fsync_retry(w->sys, fd) != 0)
		walk_failed(w, errno, "fsync file");
	if (w->sys->close(w->sys, fd) != 0)
		walk_failed(w, errno, "close file");
}

static void walk_dir(struct walk *w, int fd);

static void walk_subdir(struct walk *w, int dirfd, const char *name)
{
	int fd = open_retry(w->sys, dirfd, name, DIR_FLAGS | O_NOFOLLOW, 0);

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

	if ((size_t)snprintf(w->path + len, room, "%s%s", join(w->path), de->d_name) >= room) {
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
		if (!is_dots(de->d_name, strlen(de->d_name)))
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
	if (w->job != WALK_REMOVE && !w->failed && fsync_dir_retry(w->sys, fd) != 0)
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

int pgr_fs_sync_parent(const struct pgr_sys *sys, const char *path, struct pgr_err *err)
{
	char parent[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof(parent))
		return pgr_err_sys(err, ENAMETOOLONG, "could not fsync the directory of \"%s\"", path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	while (n > 1 && path[n - 1] == '/')
		n--;
	memcpy(parent, path, n);
	parent[n] = '\0';
	if (n == 0)
		memcpy(parent, ".", 2);

	int fd = open_retry(sys, AT_FDCWD, parent, DIR_FLAGS, 0);

	/* Who may make an entry need not be allowed to read the list: nobody could sync it then (as fsync_fname). */
	if (fd < 0 && errno == EACCES)
		return PGR_OK;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", parent);
	return close_file(sys, fd, sync_dir(sys, fd, parent, err), NULL, parent, err);
}

/* ---- names a person gave ---- */

/*
 * `path[0..n)` is canonical: forgets its last component for a ".."; where there is none to forget, it stays (relative)
 * or goes (below the root).
 */
static size_t canonical_up(char *path, size_t n, size_t root)
{
	size_t cut = n;

	while (cut > root && path[cut - 1] != '/')
		cut--;
	if (n > root && !is_dots(path + cut, n - cut))
		return cut > root ? cut - 1 : root;
	if (root == 1)
		return n;
	if (n > 0)
		path[n++] = '/';
	memcpy(path + n, "..", 2);
	return n + 2;
}

/* See canonicalize_path in src/port/path.c. */
void pgr_path_canonicalize(char *path)
{
	size_t root = path[0] == '/' ? 1 : 0;
	size_t n = root; /* of the result, which is never longer than what has been read */

	if (path[0] == '\0')
		return;
	for (const char *p = path; *p != '\0';) {
		size_t len = strcspn(p, "/");

		if (len == 2 && is_dots(p, len)) {
			n = canonical_up(path, n, root);
		} else if (len > 0 && !is_dots(p, len)) {
			if (n > root)
				path[n++] = '/';
			memmove(path + n, p, len);
			n += len;
		}
		p += len + (p[len] == '/' ? 1 : 0);
	}
	if (n == 0)
		path[n++] = '.';
	path[n] = '\0';
}
