#include "common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* One call each, nothing retried: what to do about EINTR and short transfers is the caller's decision. */

#define SELF const struct pgr_sys *self __attribute__((unused))

static int real_openat(SELF, int dirfd, const char *path, int flags, mode_t mode)
{
	return openat(dirfd, path, flags, mode);
}

static int real_close(SELF, int fd)
{
	return close(fd);
}

static ssize_t real_read(SELF, int fd, void *buf, size_t len)
{
	return read(fd, buf, len);
}

static ssize_t real_pread(SELF, int fd, void *buf, size_t len, off_t off)
{
	return pread(fd, buf, len, off);
}

static ssize_t real_write(SELF, int fd, const void *buf, size_t len)
{
	return write(fd, buf, len);
}

static ssize_t real_pwrite(SELF, int fd, const void *buf, size_t len, off_t off)
{
	return pwrite(fd, buf, len, off);
}

static int real_fsync(SELF, int fd)
{
	return fsync(fd);
}

static int real_fdatasync(SELF, int fd)
{
	return fdatasync(fd);
}

static int real_syncfs(SELF, int fd)
{
	return syncfs(fd);
}

static int real_ftruncate(SELF, int fd, off_t len)
{
	return ftruncate(fd, len);
}

static int real_set_direct(SELF, int fd, int on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -1;
	return fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

static int real_sync_file_range(SELF, int fd, off_t off, off_t len, unsigned flags)
{
	return sync_file_range(fd, off, len, flags);
}

static int real_fallocate(SELF, int fd, int mode, off_t off, off_t len)
{
	return fallocate(fd, mode, off, len);
}

static int real_flock(SELF, int fd, int operation)
{
	return flock(fd, operation);
}

/* Elsewhere (over a network, say) a refusal of the lease has other reasons as well. */
static bool has_local_leases(int fd)
{
	static const unsigned long types[] = {
		0xEF53,	    /* ext2 to ext4 */
		0x58465342, /* xfs */
		0x9123683E, /* btrfs */
		0x2FC12FC1, /* zfs */
		0xF2F52010, /* f2fs */
		0xCA451A4E, /* bcachefs */
		0x01021994, /* tmpfs */
	};
	struct statfs fs;

	if (fstatfs(fd, &fs) != 0)
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if ((unsigned long)fs.f_type == types[i])
			return true;
	return false;
}

/*
 * A read lease is given only where nobody writes, in whatever container.  Whoever opens the file for writing in this
 * moment waits until it is given back; of that we are told by a signal, which must be one that is ignored.
 */
static int real_probe_writers(SELF, int fd)
{
	if (!has_local_leases(fd)) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (fcntl(fd, F_SETSIG, SIGURG) != 0 || fcntl(fd, F_SETLEASE, F_RDLCK) != 0)
		return -1;
	(void)fcntl(fd, F_SETLEASE, F_UNLCK); /* the close would do it, too */
	return 0;
}

static int real_fstat(SELF, int fd, struct stat *st)
{
	return fstat(fd, st);
}

static int real_fstatvfs(SELF, int fd, struct statvfs *st)
{
	return fstatvfs(fd, st);
}

static int real_fstatat(SELF, int dirfd, const char *path, struct stat *st, int flags)
{
	return fstatat(dirfd, path, st, flags);
}

static int real_statx(SELF, int dirfd, const char *path, int flags, unsigned mask, struct statx *st)
{
	return statx(dirfd, path, flags, mask, st);
}

static int real_fchmod(SELF, int fd, mode_t mode)
{
	return fchmod(fd, mode);
}

static int real_mkdirat(SELF, int dirfd, const char *path, mode_t mode)
{
	return mkdirat(dirfd, path, mode);
}

static int real_unlinkat(SELF, int dirfd, const char *path, int flags)
{
	return unlinkat(dirfd, path, flags);
}

static int real_renameat(SELF, int olddir, const char *old, int newdir, const char *new_)
{
	return renameat(olddir, old, newdir, new_);
}

static int real_symlinkat(SELF, const char *target, int dirfd, const char *path)
{
	return symlinkat(target, dirfd, path);
}

static ssize_t real_readlinkat(SELF, int dirfd, const char *path, char *buf, size_t len)
{
	return readlinkat(dirfd, path, buf, len);
}

static DIR *real_fdopendir(SELF, int fd)
{
	return fdopendir(fd);
}

static struct dirent *real_readdir(SELF, DIR *d)
{
	/* NULL means both "end" and "failed"; only errno tells them apart. */
	errno = 0;
	return readdir(d);
}

static int real_closedir(SELF, DIR *d)
{
	return closedir(d);
}

static ssize_t real_recvmsg(SELF, int fd, struct msghdr *msg, int flags)
{
	return recvmsg(fd, msg, flags);
}

static ssize_t real_send(SELF, int fd, const void *buf, size_t len, int flags)
{
	return send(fd, buf, len, flags);
}

static int real_poll(SELF, struct pollfd *fds, nfds_t n, int timeout_ms)
{
	return poll(fds, n, timeout_ms);
}

static int real_kill(SELF, pid_t pid, int sig)
{
	return kill(pid, sig);
}

/* clock_gettime cannot fail for clocks that every Linux has. */
static int64_t real_mono_ms(SELF)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t real_wall_us(SELF)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

const struct pgr_sys *pgr_sys_real(void)
{
	static const struct pgr_sys real = {
		.openat = real_openat,
		.close = real_close,
		.read = real_read,
		.pread = real_pread,
		.write = real_write,
		.pwrite = real_pwrite,
		.fsync = real_fsync,
		.fdatasync = real_fdatasync,
		.syncfs = real_syncfs,
		.ftruncate = real_ftruncate,
		.set_direct = real_set_direct,
		.sync_file_range = real_sync_file_range,
		.fallocate = real_fallocate,
		.flock = real_flock,
		.probe_writers = real_probe_writers,
		.fstat = real_fstat,
		.fstatvfs = real_fstatvfs,
		.fstatat = real_fstatat,
		.statx = real_statx,
		.fchmod = real_fchmod,
		.mkdirat = real_mkdirat,
		.unlinkat = real_unlinkat,
		.renameat = real_renameat,
		.symlinkat = real_symlinkat,
		.readlinkat = real_readlinkat,
		.fdopendir = real_fdopendir,
		.readdir = real_readdir,
		.closedir = real_closedir,
		.recvmsg = real_recvmsg,
		.send = real_send,
		.poll = real_poll,
		.kill = real_kill,
		.mono_ms = real_mono_ms,
		.wall_us = real_wall_us,
	};

	return &real;
}
