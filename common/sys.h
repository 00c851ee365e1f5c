/*
 * The seam to the operating system.
 *
 * Every file, socket and clock call of pgr goes through a `struct pgr_sys` (and kill, by
 * which processes are found), so that a test can make the Nth call fail
 * (tests/support/fault_sys.h).  Nothing is global: whoever needs the system holds a
 * `const struct pgr_sys *` that outlives it.
 *
 * Members have the arguments, results and errno of the call of their name; the first
 * argument is the struct itself.  All members may be called from any thread.
 */
#ifndef PGR_COMMON_SYS_H
#define PGR_COMMON_SYS_H

#include <dirent.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

struct pgr_sys {
	/* files: names are always relative to a directory descriptor (or AT_FDCWD) */
	int (*openat)(const struct pgr_sys *, int dirfd, const char *path, int flags, mode_t mode);
	int (*close)(const struct pgr_sys *, int fd);
	ssize_t (*read)(const struct pgr_sys *, int fd, void *buf, size_t len);
	ssize_t (*pread)(const struct pgr_sys *, int fd, void *buf, size_t len, off_t off);
	ssize_t (*write)(const struct pgr_sys *, int fd, const void *buf, size_t len);
	ssize_t (*pwrite)(const struct pgr_sys *, int fd, const void *buf, size_t len, off_t off);
	int (*fsync)(const struct pgr_sys *, int fd);
	int (*fdatasync)(const struct pgr_sys *, int fd);
	int (*syncfs)(const struct pgr_sys *, int fd);
	int (*ftruncate)(const struct pgr_sys *, int fd, off_t len);
	int (*set_direct)(const struct pgr_sys *, int fd, int on); /* fcntl: O_DIRECT on or off */
	int (*sync_file_range)(const struct pgr_sys *, int fd, off_t off, off_t len, unsigned flags);
	int (*fallocate)(const struct pgr_sys *, int fd, int mode, off_t off, off_t len);
	int (*flock)(const struct pgr_sys *, int fd, int operation);
	/* fcntl, by a lease for a moment.  0: nobody has the file that was opened for reading open for writing; EAGAIN:
	   somebody has; any other errno: that cannot be told */
	int (*probe_writers)(const struct pgr_sys *, int fd);
	int (*fstat)(const struct pgr_sys *, int fd, struct stat *st);
	int (*fstatvfs)(const struct pgr_sys *, int fd, struct statvfs *st);
	int (*fstatat)(const struct pgr_sys *, int dirfd, const char *path, struct stat *st, int flags);
	int (*statx)(const struct pgr_sys *, int dirfd, const char *path, int flags, unsigned mask, struct statx *st);
	int (*fchmod)(const struct pgr_sys *, int fd, mode_t mode);
	int (*mkdirat)(const struct pgr_sys *, int dirfd, const char *path, mode_t mode);
	int (*unlinkat)(const struct pgr_sys *, int dirfd, const char *path, int flags);
	int (*renameat)(const struct pgr_sys *, int olddir, const char *old, int newdir, const char *new_);
	int (*symlinkat)(const struct pgr_sys *, const char *target, int dirfd, const char *path);
	ssize_t (*readlinkat)(const struct pgr_sys *, int dirfd, const char *path, char *buf, size_t len);
	DIR *(*fdopendir)(const struct pgr_sys *, int fd);
	struct dirent *(*readdir)(const struct pgr_sys *, DIR *d); /* errno 0 at the end */
	int (*closedir)(const struct pgr_sys *, DIR *d);

	/* sockets, once libpq has handed them over */
	ssize_t (*recvmsg)(const struct pgr_sys *, int fd, struct msghdr *msg, int flags);
	ssize_t (*send)(const struct pgr_sys *, int fd, const void *buf, size_t len, int flags);
	int (*poll)(const struct pgr_sys *, struct pollfd *fds, nfds_t n, int timeout_ms);

	/* processes */
	int (*kill)(const struct pgr_sys *, pid_t pid, int sig);

	/* clocks */
	int64_t (*mono_ms)(const struct pgr_sys *); /* CLOCK_MONOTONIC in ms */
	int64_t (*wall_us)(const struct pgr_sys *); /* CLOCK_REALTIME in us since 1970-01-01 UTC */
};

/* The real system.  The returned struct is constant and lives for ever. */
const struct pgr_sys *pgr_sys_real(void);

#endif
