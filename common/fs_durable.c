#include "common/fs_durable.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/fs_call.h"
#include "common/fs_io.h"
#include "common/sys.h"

/* ---- syncs ---- */

static int sync_file(const struct pgr_sys *sys, int fd, const char *where, const char *name, struct pgr_err *err)
{
	if (pgr_fs_call_fsync(sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not fsync file \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, name));
	return PGR_OK;
}

/* fsyncs a file by name. */
static int sync_named(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_err *err)
{
	int fd = pgr_fs_call_open(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"" PGR_FS_AT_FMT "\"", PGR_FS_AT_ARG(where, name));
	return pgr_fs_call_close(sys, fd, sync_file(sys, fd, where, name, err), where, name, err);
}

static int sync_dir(const struct pgr_sys *sys, int fd, const char *path, struct pgr_err *err)
{
	if (pgr_fs_call_fsync_dir(sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not fsync directory \"%s\"", path);
	return PGR_OK;
}

/* fsyncs the directory a descriptor stands for, AT_FDCWD included. */
static int sync_dirfd(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_err *err)
{
	if (dirfd != AT_FDCWD)
		return sync_dir(sys, dirfd, pgr_fs_at_dir(where), err);

	int fd = pgr_fs_call_open(sys, AT_FDCWD, ".", PGR_FS_DIR_FLAGS, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \".\"");
	return pgr_fs_call_close(sys, fd, sync_dir(sys, fd, ".", err), NULL, ".", err);
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

	int fd = pgr_fs_call_open(sys, AT_FDCWD, parent, PGR_FS_DIR_FLAGS, 0);

	/* Who may make an entry need not be allowed to read the list: nobody could sync it then (as fsync_fname). */
	if (fd < 0 && errno == EACCES)
		return PGR_OK;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", parent);
	return pgr_fs_call_close(sys, fd, sync_dir(sys, fd, parent, err), NULL, parent, err);
}

/* ---- files ---- */

static int rename_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *from, const char *to,
		       struct pgr_err *err)
{
	if (sys->renameat(sys, dirfd, from, dirfd, to) != 0)
		return pgr_err_sys(err, errno, "could not rename file \"" PGR_FS_AT_FMT "\" to \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, from), PGR_FS_AT_ARG(where, to));
	return PGR_OK;
}

/* Creates a new file; one of this name is the leftover of a crash, and its mode and links are not to be trusted. */
static int create_anew(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, mode_t mode, int *fd,
		       struct pgr_err *err)
{
	if (sys->unlinkat(sys, dirfd, name, 0) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not remove file \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, name));
	*fd = pgr_fs_call_open(sys, dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not create file \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, name));
	return PGR_OK;
}

/* Writes, syncs and closes the file that create_anew made. */
static int fill_file(const struct pgr_sys *sys, int fd, const char *where, const char *name, const void *data,
		     size_t len, bool sync, struct pgr_err *err)
{
	int rc = pgr_fs_write_all_in(sys, fd, data, len, where, name, err);

	if (rc == PGR_OK && sync)
		rc = sync_file(sys, fd, where, name, err);
	return pgr_fs_call_close(sys, fd, rc, where, name, err);
}

int pgr_fs_write_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, const char *tmp_suffix,
		      const void *data, size_t len, mode_t mode, bool sync, struct pgr_err *err)
{
	char tmp[PATH_MAX];
	int fd = -1;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s%s", name, tmp_suffix) >= sizeof(tmp))
		return pgr_err_sys(err, ENAMETOOLONG, "could not create file \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, name));
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
