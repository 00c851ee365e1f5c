#include "common/fs_call.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "common/sys.h"

const char *pgr_fs_at_dir(const char *where)
{
	return where != NULL ? where : "";
}

const char *pgr_fs_at_slash(const char *where)
{
	size_t n = where != NULL ? strlen(where) : 0;

	return n == 0 || where[n - 1] == '/' ? "" : "/";
}

int pgr_fs_call_open(const struct pgr_sys *sys, int dirfd, const char *path, int flags, mode_t mode)
{
	int fd;

	do {
		fd = sys->openat(sys, dirfd, path, flags, mode);
	} while (fd < 0 && errno == EINTR);
	return fd;
}

/* One that failed must not be asked again, it might say yes. */
int pgr_fs_call_fsync(const struct pgr_sys *sys, int fd)
{
	int rc;

	do {
		rc = sys->fsync(sys, fd);
	} while (rc != 0 && errno == EINTR);
	return rc;
}

/* EBADF may also mean that the descriptor is none, which is our error and not the file system's. */
int pgr_fs_call_fsync_dir(const struct pgr_sys *sys, int fd)
{
	struct stat st;

	if (pgr_fs_call_fsync(sys, fd) == 0 || errno == EINVAL)
		return 0;
	if (errno == EBADF && sys->fstat(sys, fd, &st) == 0)
		return 0;
	return -1;
}

int pgr_fs_call_close(const struct pgr_sys *sys, int fd, int rc, const char *where, const char *name,
		      struct pgr_err *err)
{
	if (sys->close(sys, fd) != 0 && rc != PGR_ERR)
		return pgr_err_sys(err, errno, "could not close file \"" PGR_FS_AT_FMT "\"",
				   PGR_FS_AT_ARG(where, name));
	return rc;
}
