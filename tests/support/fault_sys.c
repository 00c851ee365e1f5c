#include "tests/support/fault_sys.h"

#include <errno.h>
#include <string.h>

/*
 * The members get a const struct pgr_sys, because the code under test must not change its system; the counters
 * behind it are the test's and are meant to change.
 */
static struct pgr_fault_sys *fault_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct pgr_fault_sys *out;
	} u = {.in = sys};

	return u.out;
}

/* Counts one fallible call; true: it is the one that has to fail, and errno is set. */
static bool fails(struct pgr_fault_sys *f, const char *call, unsigned *number)
{
	unsigned n = atomic_fetch_add(&f->calls, 1) + 1;

	if (number != NULL)
		*number = n;
	if (n != f->fail_at)
		return false;
	f->failed_call = call;
	atomic_store(&f->triggered, true);
	errno = f->fail_errno;
	return true;
}

/* What a read or write may transfer in call number n. */
static size_t allowed(const struct pgr_fault_sys *f, unsigned n, size_t len)
{
	return f->short_io && n % 2 == 1 && len > 1 ? 1 : len;
}

static int fault_openat(const struct pgr_sys *sys, int dirfd, const char *path, int flags, mode_t mode)
{
	struct pgr_fault_sys *f = fault_of(sys);

	if (fails(f, "openat", NULL))
		return -1;

	int fd = f->real->openat(f->real, dirfd, path, flags, mode);

	if (fd >= 0)
		atomic_fetch_add(&f->opens, 1);
	return fd;
}

/* The kernel releases the descriptor whatever close answers (close(2)): so does this one. */
static int fault_close(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);
	int rc = f->real->close(f->real, fd);

	if (rc == 0)
		atomic_fetch_add(&f->closes, 1);
	return fails(f, "close", NULL) ? -1 : rc;
}

static ssize_t fault_read(const struct pgr_sys *sys, int fd, void *buf, size_t len)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "read", &n))
		return -1;
	return f->real->read(f->real, fd, buf, allowed(f, n, len));
}

static ssize_t fault_pread(const struct pgr_sys *sys, int fd, void *buf, size_t len, off_t off)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "pread", &n))
		return -1;
	return f->real->pread(f->real, fd, buf, allowed(f, n, len), off);
}

static ssize_t fault_write(const struct pgr_sys *sys, int fd, const void *buf, size_t len)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "write", &n))
		return -1;
	return f->real->write(f->real, fd, buf, allowed(f, n, len));
}

static ssize_t fault_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "pwrite", &n))
		return -1;
	return f->real->pwrite(f->real, fd, buf, allowed(f, n, len), off);
}

static int fault_fsync(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);

	if (fails(f, "fsync", NULL))
		return -1;
	atomic_fetch_add(&f->fsyncs, 1);
	return f->real->fsync(f->real, fd);
}

static int fault_fdatasync(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);

	if (fails(f, "fdatasync", NULL))
		return -1;
	atomic_fetch_add(&f->fsyncs, 1);
	return f->real->fdatasync(f->real, fd);
}

static int fault_syncfs(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "syncfs", NULL) ? -1 : f->real->syncfs(f->real, fd);
}

static int fault_ftruncate(const struct pgr_sys *sys, int fd, off_t len)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "ftruncate", NULL) ? -1 : f->real->ftruncate(f->real, fd, len);
}

static int fault_set_direct(const struct pgr_sys *sys, int fd, int on)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "set_direct", NULL) ? -1 : f->real->set_direct(f->real, fd, on);
}

static int fault_sync_file_range(const struct pgr_sys *sys, int fd, off_t off, off_t len, unsigned flags)
{
	struct pgr_fault_sys *f = fault_of(sys);

	if (fails(f, "sync_file_range", NULL))
		return -1;
	return f->real->sync_file_range(f->real, fd, off, len, flags);
}

static int fault_fallocate(const struct pgr_sys *sys, int fd, int mode, off_t off, off_t len)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fallocate", NULL) ? -1 : f->real->fallocate(f->real, fd, mode, off, len);
}

static int fault_flock(const struct pgr_sys *sys, int fd, int operation)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "flock", NULL) ? -1 : f->real->flock(f->real, fd, operation);
}

/* That it cannot be told is no failure. */
static int fault_probe_writers(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return f->real->probe_writers(f->real, fd);
}

static int fault_fstat(const struct pgr_sys *sys, int fd, struct stat *st)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fstat", NULL) ? -1 : f->real->fstat(f->real, fd, st);
}

static int fault_fstatvfs(const struct pgr_sys *sys, int fd, struct statvfs *st)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fstatvfs", NULL) ? -1 : f->real->fstatvfs(f->real, fd, st);
}

static int fault_fstatat(const struct pgr_sys *sys, int dirfd, const char *path, struct stat *st, int flags)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fstatat", NULL) ? -1 : f->real->fstatat(f->real, dirfd, path, st, flags);
}

static int fault_statx(const struct pgr_sys *sys, int dirfd, const char *path, int flags, unsigned mask,
		       struct statx *st)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "statx", NULL) ? -1 : f->real->statx(f->real, dirfd, path, flags, mask, st);
}

static int fault_fchmod(const struct pgr_sys *sys, int fd, mode_t mode)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fchmod", NULL) ? -1 : f->real->fchmod(f->real, fd, mode);
}

static int fault_mkdirat(const struct pgr_sys *sys, int dirfd, const char *path, mode_t mode)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "mkdirat", NULL) ? -1 : f->real->mkdirat(f->real, dirfd, path, mode);
}

static int fault_unlinkat(const struct pgr_sys *sys, int dirfd, const char *path, int flags)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "unlinkat", NULL) ? -1 : f->real->unlinkat(f->real, dirfd, path, flags);
}

static int fault_renameat(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "renameat", NULL) ? -1 : f->real->renameat(f->real, olddir, old, newdir, new_);
}

static int fault_symlinkat(const struct pgr_sys *sys, const char *target, int dirfd, const char *path)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "symlinkat", NULL) ? -1 : f->real->symlinkat(f->real, target, dirfd, path);
}

static ssize_t fault_readlinkat(const struct pgr_sys *sys, int dirfd, const char *path, char *buf, size_t len)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "readlinkat", NULL) ? -1 : f->real->readlinkat(f->real, dirfd, path, buf, len);
}

static DIR *fault_fdopendir(const struct pgr_sys *sys, int fd)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "fdopendir", NULL) ? NULL : f->real->fdopendir(f->real, fd);
}

static struct dirent *fault_readdir(const struct pgr_sys *sys, DIR *d)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "readdir", NULL) ? NULL : f->real->readdir(f->real, d);
}

static int fault_closedir(const struct pgr_sys *sys, DIR *d)
{
	struct pgr_fault_sys *f = fault_of(sys);
	int rc = f->real->closedir(f->real, d);

	if (rc == 0)
		atomic_fetch_add(&f->closes, 1);
	return fails(f, "closedir", NULL) ? -1 : rc;
}

/* Reads into one byte of the first buffer that has room. */
static ssize_t recv_one_byte(const struct pgr_sys *real, int fd, struct msghdr *msg, int flags)
{
	for (size_t i = 0; i < msg->msg_iovlen; i++) {
		if (msg->msg_iov[i].iov_len == 0)
			continue;

		struct iovec one = {.iov_base = msg->msg_iov[i].iov_base, .iov_len = 1};
		struct msghdr small = *msg;

		small.msg_iov = &one;
		small.msg_iovlen = 1;
		return real->recvmsg(real, fd, &small, flags);
	}
	return real->recvmsg(real, fd, msg, flags);
}

static ssize_t fault_recvmsg(const struct pgr_sys *sys, int fd, struct msghdr *msg, int flags)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "recvmsg", &n))
		return -1;
	if (allowed(f, n, 2) == 1)
		return recv_one_byte(f->real, fd, msg, flags);
	return f->real->recvmsg(f->real, fd, msg, flags);
}

static ssize_t fault_send(const struct pgr_sys *sys, int fd, const void *buf, size_t len, int flags)
{
	struct pgr_fault_sys *f = fault_of(sys);
	unsigned n;

	if (fails(f, "send", &n))
		return -1;
	return f->real->send(f->real, fd, buf, allowed(f, n, len), flags);
}

static int fault_poll(const struct pgr_sys *sys, struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "poll", NULL) ? -1 : f->real->poll(f->real, fds, n, timeout_ms);
}

static int fault_kill(const struct pgr_sys *sys, pid_t pid, int sig)
{
	struct pgr_fault_sys *f = fault_of(sys);

	return fails(f, "kill", NULL) ? -1 : f->real->kill(f->real, pid, sig);
}

static int64_t fault_mono_ms(const struct pgr_sys *sys)
{
	const struct pgr_fault_sys *f = fault_of(sys);

	return f->real->mono_ms(f->real);
}

static int64_t fault_wall_us(const struct pgr_sys *sys)
{
	const struct pgr_fault_sys *f = fault_of(sys);

	return f->real->wall_us(f->real);
}

static const struct pgr_sys fault_calls = {
	.openat = fault_openat,
	.close = fault_close,
	.read = fault_read,
	.pread = fault_pread,
	.write = fault_write,
	.pwrite = fault_pwrite,
	.fsync = fault_fsync,
	.fdatasync = fault_fdatasync,
	.syncfs = fault_syncfs,
	.ftruncate = fault_ftruncate,
	.set_direct = fault_set_direct,
	.sync_file_range = fault_sync_file_range,
	.fallocate = fault_fallocate,
	.flock = fault_flock,
	.probe_writers = fault_probe_writers,
	.fstat = fault_fstat,
	.fstatvfs = fault_fstatvfs,
	.fstatat = fault_fstatat,
	.statx = fault_statx,
	.fchmod = fault_fchmod,
	.mkdirat = fault_mkdirat,
	.unlinkat = fault_unlinkat,
	.renameat = fault_renameat,
	.symlinkat = fault_symlinkat,
	.readlinkat = fault_readlinkat,
	.fdopendir = fault_fdopendir,
	.readdir = fault_readdir,
	.closedir = fault_closedir,
	.recvmsg = fault_recvmsg,
	.send = fault_send,
	.poll = fault_poll,
	.kill = fault_kill,
	.mono_ms = fault_mono_ms,
	.wall_us = fault_wall_us,
};

void pgr_fault_sys_init(struct pgr_fault_sys *f, unsigned fail_at, int fail_errno)
{
	memset(f, 0, sizeof(*f));
	f->sys = fault_calls;
	f->real = pgr_sys_real();
	f->fail_at = fail_at;
	f->fail_errno = fail_errno;
}
