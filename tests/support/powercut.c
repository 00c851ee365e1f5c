/*
 * powercut.so: a library for LD_PRELOAD that stands between a program and its disk.  For tests and benchmarks only.
 *
 *   POWERCUT_DIR=dir     what this is about: the files below this directory (default: all files)
 *   POWERCUT_LOG=file    every operation on them goes into this journal, with its data, and so do all bytes that are
 *                        sent through sockets.  tests/integration/pgrtest/powercut.py makes of it the directory as a
 *                        power cut at any moment could have left it.  The journal lies outside of the directory.
 *   POWERCUT_SYNC_MS=n   each fsync and fdatasync takes so much longer, one at a time: a slow disk
 *   POWERCUT_DEVICE=file the programs that name the same file share the slow disk (it is made, and stays empty)
 *   POWERCUT_FAIL=what[@suffix]:first[-last]:error[,...]
 *                        the first to the last of these calls fail without doing anything: `write`, `sync` (a file),
 *                        `dirsync`, `allocate`, `create`, `rename`; with EIO, ENOSPC or EDQUOT; of those on names that
 *                        end in the suffix.  E.g. "sync:3:EIO", "write@.partial:1:EIO"
 *   POWERCUT_KILL=n      with a journal: the program kills itself (SIGKILL) before its nth operation, when no other one
 *                        is under way; what is sent does not count.  The journal then knows what became of everything,
 *                        and the next program can go on in the same one: what was not synced is not lost by a kill.
 *
 * The journal: an operation has two records, one appended before it begins and one after it has ended.  So a sync is
 * known to cover what had ended before it began, and nothing else, whichever threads did it; and what had begun when
 * the program was killed may have happened.  Operations that change names are made one after the other.
 *
 * The library keeps no state about descriptors: each call looks at what its descriptor is.  That is slow, and right
 * whatever was duplicated, inherited, or closed by libc.
 *
 * Not seen: mmap, io_uring, copy_file_range and stdio, and what is no content (modes, owners, times, locks).  The
 * reader of the journal compares what it has made of it with the real directory, so a program that writes with them is
 * found out.
 */
#undef _FILE_OFFSET_BITS /* here pwrite is pwrite, and pwrite64 another name of it */
#undef _FORTIFY_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if !defined(__LP64__)
#error "system calls are made with 64-bit arguments here"
#endif

#define MAX_FAULTS 8
#define LOG_FD_MIN 200 /* out of the way of the program's descriptors */
#define MAX_IOV	   64

/* What stands in the journal: the same numbers as in powercut.py. */
enum kind {
	K_END = 1,  /* of the operation `id`: off = result, len = errno, ino = of what was made */
	K_CREATE,   /* ino = directory, name */
	K_WRITE,    /* ino, off, data */
	K_TRUNCATE, /* ino, off = new length */
	K_ALLOCATE, /* ino, off, len, flags = mode of fallocate */
	K_RENAME,   /* ino = directory, name; ino2 = directory, name2 */
	K_UNLINK,   /* ino = directory, name */
	K_MKDIR,    /* ino = directory, name */
	K_LINK,	    /* as K_RENAME, the old name stays */
	K_SYNC,	    /* ino */
	K_SYNC_ALL, /* the whole file system */
	K_SEND,	    /* ino = socket, data */
	K_STRANGE,  /* something that cannot be expressed; name says what */
	K_SYMLINK,  /* ino = directory, name; name2 = what it leads to */
};

#define F_DURABLE 1 /* K_WRITE: durable when it has ended */

struct record {
	uint32_t bytes; /* of all of it */
	uint16_t kind;
	uint16_t flags;
	uint64_t id;
	int64_t time_ns; /* CLOCK_MONOTONIC, before it was appended */
	uint64_t ino;
	uint64_t ino2;
	int64_t off;
	int64_t len; /* of the data behind the names, but for K_ALLOCATE and K_END */
	uint16_t name_len;
	uint16_t name2_len;
	uint32_t pid;
};

_Static_assert(sizeof(struct record) == 64, "as powercut.py unpacks it");

enum call { C_WRITE, C_SYNC, C_DIRSYNC, C_ALLOCATE, C_CREATE, C_RENAME, C_CALLS };

static const char *const call_names[C_CALLS] = {"write", "sync", "dirsync", "allocate", "create", "rename"};

struct fault {
	enum call call;
	char suffix[32];
	unsigned long first, last;
	int error;
	atomic_ulong calls; /* so far */
};

/* A preloaded library has no caller who could hold this. */
static struct {
	pthread_once_t once;
	char dir[PATH_MAX]; /* "": everything */
	size_t dir_len;
	int log_fd; /* -1: no journal */
	long sync_ms;
	int device_fd;	    /* -1: none */
	unsigned long kill; /* the operation before which to die; 0: none */
	struct fault faults[MAX_FAULTS];
	size_t nfaults;

	atomic_ulong next_id;
	atomic_ulong operations; /* begun, with `kill` */
	pthread_rwlock_t alive;	 /* with `kill`: read while an operation is under way */
	pthread_mutex_t names;	 /* held while a name changes */
	pthread_mutex_t device;	 /* held while the slow disk syncs */
} pc = {
	.once = PTHREAD_ONCE_INIT,
	.log_fd = -1,
	.device_fd = -1,
	.alive = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP, /* or the end would wait for a pause of all */
	.names = PTHREAD_MUTEX_INITIALIZER,
	.device = PTHREAD_MUTEX_INITIALIZER,
};

/* Whether this thread holds `alive`. */
static _Thread_local bool under_way;

/* ---- what the environment asks for ---- */

static void give_up(const char *what, const char *about)
{
	char line[PATH_MAX + 200];
	int n = snprintf(line, sizeof(line), "powercut: %s \"%s\": %s\n", what, about, strerror(errno));

	if (syscall(SYS_write, 2, line, (size_t)n) < 0)
		_exit(126);
	_exit(125); /* a test without its journal must not pass */
}

static int error_number(const char *name)
{
	static const struct {
		const char *name;
		int number;
	} known[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].name, name) == 0)
			return known[i].number;
	return 0;
}

static bool parse_fault(const char *text, struct fault *f)
{
	char call[16], range[32], error[16];
	char *end;

	if (sscanf(text, "%15[a-z]@%31[^:]:%31[0-9-]:%15[A-Z]", call, f->suffix, range, error) != 4 &&
	    sscanf(text, "%15[a-z]:%31[0-9-]:%15[A-Z]", call, range, error) != 3)
		return false;
	f->first = strtoul(range, &end, 10);
	f->last = *end == '-' ? strtoul(end + 1, &end, 10) : f->first;
	f->error = error_number(error);
	for (f->call = 0; f->call < C_CALLS && strcmp(call_names[f->call], call) != 0; f->call++)
		continue;
	return *end == '\0' && f->first > 0 && f->last >= f->first && f->error != 0 && f->call < C_CALLS;
}

static void read_faults(const char *list)
{
	errno = EINVAL;
	for (const char *p = list; p != NULL; p = strchr(p, ',')) {
		p += *p == ',';
		if (pc.nfaults == MAX_FAULTS || !parse_fault(p, &pc.faults[pc.nfaults++]))
			give_up("cannot understand POWERCUT_FAIL", list);
	}
}

static int open_aside(const char *path, int flags)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CREAT | O_CLOEXEC, 0600);
	int high = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD_MIN) : -1;

	if (high < 0)
		give_up("cannot open", path);
	close(fd);
	return high;
}

static void read_environment(void)
{
	const char *dir = getenv("POWERCUT_DIR");
	const char *log = getenv("POWERCUT_LOG");
	const char *device = getenv("POWERCUT_DEVICE");
	const char *ms = getenv("POWERCUT_SYNC_MS");
	const char *kill_at = getenv("POWERCUT_KILL");

	if (dir != NULL && realpath(dir, pc.dir) == NULL)
		give_up("cannot find POWERCUT_DIR", dir);
	pc.dir_len = strlen(pc.dir);
	if (log != NULL)
		pc.log_fd = open_aside(log, O_WRONLY | O_APPEND);
	if (device != NULL)
		pc.device_fd = open_aside(device, O_RDWR);
	pc.sync_ms = ms != NULL ? atol(ms) : 0;
	pc.kill = kill_at != NULL ? strtoul(kill_at, NULL, 10) : 0;
	read_faults(getenv("POWERCUT_FAIL"));
}

static bool watches(void)
{
	pthread_once(&pc.once, read_environment);
	return pc.log_fd >= 0 || pc.nfaults > 0;
}

/* ---- what a descriptor or a path is ---- */

/* "" when there is none. */
static void path_of(int fd, char path[PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	path[n > 0 ? n : 0] = '\0';
}

static bool is_below(int fd)
{
	char path[PATH_MAX];

	if (pc.dir_len == 0)
		return true;
	path_of(fd, path);
	return strncmp(path, pc.dir, pc.dir_len) == 0 && (path[pc.dir_len] == '\0' || path[pc.dir_len] == '/');
}

enum what { FD_OTHER, FD_FILE, FD_DIR, FD_SOCKET };

static enum what look_at(int fd, uint64_t *ino)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return FD_OTHER;
	*ino = st.st_ino;
	if (S_ISSOCK(st.st_mode))
		return FD_SOCKET;
	if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && is_below(fd))
		return S_ISREG(st.st_mode) ? FD_FILE : FD_DIR;
	return FD_OTHER;
}

struct spot {
	uint64_t dir; /* inode of the directory */
	const char *leaf;
};

/* Where a path leads: false when it is none of ours. */
static bool locate(int dirfd, const char *path, struct spot *spot)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash == NULL ? 0 : (size_t)(slash - path) + 1;
	char parent[PATH_MAX] = ".";
	int fd;
	bool ours;

	if (len >= sizeof(parent))
		return false;
	if (len > 0) {
		memcpy(parent, path, len);
		parent[len] = '\0';
	}
	spot->leaf = path + len;
	fd = (int)syscall(SYS_openat, dirfd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	ours = look_at(fd, &spot->dir) == FD_DIR;
	close(fd);
	return ours;
}

/* ---- the journal ---- */

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* One append is one record, whichever threads and processes append. */
static void append(struct record *r, struct iovec *iov, int n)
{
	size_t bytes = sizeof(*r);

	for (int i = 1; i < n; i++)
		bytes += iov[i].iov_len;
	r->bytes = (uint32_t)bytes;
	r->pid = (uint32_t)getpid();
	r->time_ns = now_ns();
	iov[0] = (struct iovec){r, sizeof(*r)};
	if (bytes > UINT32_MAX || syscall(SYS_writev, pc.log_fd, iov, n) != (ssize_t)bytes)
		give_up("cannot append to the journal of", pc.dir);
}

/* What was sent, or has no end, is no operation that a kill would have to wait for. */
static bool counts(const struct record *r)
{
	return pc.kill != 0 && r->kind != K_SEND && r->kind != K_STRANGE;
}

static void live_or_die(const struct record *r)
{
	if (!counts(r))
		return;
	if (atomic_fetch_add(&pc.operations, 1) + 1 == pc.kill) {
		pthread_rwlock_wrlock(&pc.alive);
		kill(getpid(), SIGKILL);
		pause();
	}
	pthread_rwlock_rdlock(&pc.alive);
	under_way = true;
}

/* Returns the number of the operation; 0 without a journal.  The data is cut into what r->len says. */
static uint64_t begin(struct record *r, const char *name, const char *name2, const struct iovec *data, int ndata)
{
	struct iovec iov[3 + MAX_IOV];
	int n = 1;

	if (pc.log_fd < 0)
		return 0;
	live_or_die(r);
	r->id = atomic_fetch_add(&pc.next_id, 1) + 1;
	r->name_len = name != NULL ? (uint16_t)strlen(name) : 0;
	r->name2_len = name2 != NULL ? (uint16_t)strlen(name2) : 0;
	iov[n++] = (struct iovec){(void *)(uintptr_t)name, r->name_len};
	iov[n++] = (struct iovec){(void *)(uintptr_t)name2, r->name2_len};
	for (int i = 0; i < ndata; i++) {
		iov[n++] = data[i];
		r->len += (int64_t)data[i].iov_len;
	}
	append(r, iov, n);
	return r->id;
}

/* Passes the result of the operation on, with its errno. */
static long end(uint64_t id, long result, uint64_t ino)
{
	int saved = errno;
	struct record r = {.kind = K_END, .id = id, .off = result, .len = result < 0 ? saved : 0, .ino = ino};
	struct iovec iov[1];

	if (id != 0)
		append(&r, iov, 1);
	if (under_way)
		pthread_rwlock_unlock(&pc.alive);
	under_way = false;
	errno = saved;
	return result;
}

/* ---- calls that fail ---- */

static bool ends_in(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);

	return len >= suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

/* Whether this call on a file of this name shall fail, with errno set. */
static bool fails(enum call call, const char *name)
{
	int error = 0;

	for (size_t i = 0; i < pc.nfaults; i++) {
		struct fault *f = &pc.faults[i];
		unsigned long n;

		if (f->call != call || !ends_in(name, f->suffix))
			continue;
		n = atomic_fetch_add(&f->calls, 1) + 1;
		if (n >= f->first && n <= f->last)
			error = f->error;
	}
	if (error != 0)
		errno = error;
	return error != 0;
}

static bool fails_on(enum call call, int fd)
{
	char path[PATH_MAX];

	if (pc.nfaults == 0)
		return false;
	path_of(fd, path);
	return fails(call, path);
}

/* ---- writing ---- */

static long raw_writev(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	return syscall(SYS_pwritev2, fd, iov, n, (long)off, 0L, flags);
}

static off_t position_of(int fd)
{
	struct stat st;

	if ((fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &st) == 0)
		return st.st_size;
	return lseek(fd, 0, SEEK_CUR);
}

static ssize_t write_file(int fd, uint64_t ino, const struct iovec *iov, int n, off_t off, int flags)
{
	int status = fcntl(fd, F_GETFL);
	bool durable = (status & O_DSYNC) != 0 || (flags & (RWF_DSYNC | RWF_SYNC)) != 0;
	struct record r = {
		.kind = K_WRITE,
		.flags = durable ? F_DURABLE : 0,
		.ino = ino,
		.off = off < 0 || (status & O_APPEND) != 0 ? position_of(fd) : off,
	};
	uint64_t id = begin(&r, NULL, NULL, iov, n);

	return end(id, fails_on(C_WRITE, fd) ? -1 : raw_writev(fd, iov, n, off, flags), 0);
}

static ssize_t send_bytes(int fd, uint64_t ino, const struct msghdr *msg, int flags)
{
	struct record r = {.kind = K_SEND, .ino = ino};
	uint64_t id = begin(&r, NULL, NULL, msg->msg_iov, (int)msg->msg_iovlen);

	return end(id, syscall(SYS_sendmsg, fd, msg, flags), 0);
}

static ssize_t do_write(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	struct record r = {.kind = K_STRANGE};
	uint64_t ino;

	switch (watches() ? look_at(fd, &ino) : FD_OTHER) {
	case FD_FILE:
		if (n <= MAX_IOV)
			return write_file(fd, ino, iov, n, off, flags);
		begin(&r, "a write of very many pieces", NULL, NULL, 0);
		break;
	case FD_SOCKET:
		if (n <= MAX_IOV)
			return send_bytes(fd, ino,
					  &(struct msghdr){.msg_iov = (void *)(uintptr_t)iov, .msg_iovlen = (size_t)n},
					  0);
		break;
	default:
		break;
	}
	return raw_writev(fd, iov, n, off, flags);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	return do_write(fd, &(struct iovec){(void *)(uintptr_t)buf, len}, 1, -1, 0);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return do_write(fd, &(struct iovec){(void *)(uintptr_t)buf, len}, 1, off, 0);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	return pwrite(fd, buf, len, off);
}

ssize_t writev(int fd, const struct iovec *iov, int n)
{
	return do_write(fd, iov, n, -1, 0);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
	return do_write(fd, iov, n, off, 0);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t off)
{
	return do_write(fd, iov, n, off, 0);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	return do_write(fd, iov, n, off, flags);
}

ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	return do_write(fd, iov, n, off, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	uint64_t ino;

	if (watches() && msg->msg_iovlen <= MAX_IOV && look_at(fd, &ino) == FD_SOCKET)
		return send_bytes(fd, ino, msg, flags);
	return syscall(SYS_sendmsg, fd, msg, flags);
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	struct msghdr msg = {
		.msg_name = (void *)(uintptr_t)to, .msg_namelen = to_len, .msg_iov = &iov, .msg_iovlen = 1};

	return sendmsg(fd, &msg, flags);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	return sendto(fd, buf, len, flags, NULL, 0);
}

/* ---- lengths ---- */

int ftruncate(int fd, off_t len)
{
	struct record r = {.kind = K_TRUNCATE, .off = len};
	uint64_t id;

	if (!watches() || look_at(fd, &r.ino) != FD_FILE)
		return (int)syscall(SYS_ftruncate, fd, len);
	id = begin(&r, NULL, NULL, NULL, 0);
	return (int)end(id, syscall(SYS_ftruncate, fd, len), 0);
}

int ftruncate64(int fd, off64_t len)
{
	return ftruncate(fd, len);
}

int truncate(const char *path, off_t len)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
	int rc;
	int saved;

	if (fd < 0)
		return -1;
	rc = ftruncate(fd, len);
	saved = errno;
	close(fd);
	errno = saved;
	return rc;
}

int truncate64(const char *path, off64_t len)
{
	return truncate(path, len);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	struct record r = {.kind = K_ALLOCATE, .flags = (uint16_t)mode, .off = off, .len = len};
	uint64_t id;

	if (!watches() || look_at(fd, &r.ino) != FD_FILE)
		return (int)syscall(SYS_fallocate, fd, mode, off, len);
	id = begin(&r, NULL, NULL, NULL, 0);
	return (int)end(id, fails_on(C_ALLOCATE, fd) ? -1 : syscall(SYS_fallocate, fd, mode, off, len), 0);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	return fallocate(fd, mode, off, len);
}

int posix_fallocate(int fd, off_t off, off_t len)
{
	return fallocate(fd, 0, off, len) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t off, off64_t len)
{
	return posix_fallocate(fd, off, len);
}

/* ---- names ---- */

static uint64_t inode_of(int dirfd, const char *path)
{
	struct stat st;

	return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_ino : 0;
}

/* An open that may make a file or empty it.  `names` is held. */
static long open_changing(int dirfd, const char *path, int flags, mode_t mode)
{
	struct spot spot;
	uint64_t old = inode_of(dirfd, path);
	struct record r = {.kind = old == 0 ? K_CREATE : K_TRUNCATE, .ino = old};
	uint64_t id, made = 0;
	long fd;

	if (!locate(dirfd, path, &spot) || (old != 0 && (flags & O_TRUNC) == 0) || (old == 0 && (flags & O_CREAT) == 0))
		return syscall(SYS_openat, dirfd, path, flags, mode);
	if (old == 0)
		r.ino = spot.dir;
	if ((flags & O_TMPFILE) == O_TMPFILE)
		r.kind = K_STRANGE;
	id = begin(&r, r.kind == K_STRANGE ? "O_TMPFILE" : spot.leaf, NULL, NULL, 0);
	fd = fails(C_CREATE, spot.leaf) ? -1 : syscall(SYS_openat, dirfd, path, flags, mode);
	if (fd >= 0)
		look_at((int)fd, &made);
	return end(id, fd, made);
}

static int do_open(int dirfd, const char *path, int flags, mode_t mode)
{
	long fd;

	if (!watches() || (flags & (O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))) == 0)
		return (int)syscall(SYS_openat, dirfd, path, flags, mode);
	pthread_mutex_lock(&pc.names);
	fd = open_changing(dirfd, path, flags, mode);
	pthread_mutex_unlock(&pc.names);
	return (int)fd;
}

static mode_t mode_argument(int flags, va_list ap)
{
	return (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) != 0 ? va_arg(ap, mode_t) : 0;
}

#define OPEN_BODY(dirfd)                                                                                               \
	va_list ap;                                                                                                    \
	mode_t mode;                                                                                                   \
                                                                                                                       \
	va_start(ap, flags);                                                                                           \
	mode = mode_argument(flags, ap);                                                                               \
	va_end(ap);                                                                                                    \
	return do_open(dirfd, path, flags, mode)

int open(const char *path, int flags, ...)
{
	OPEN_BODY(AT_FDCWD);
}

int open64(const char *path, int flags, ...)
{
	OPEN_BODY(AT_FDCWD);
}

int openat(int dirfd, const char *path, int flags, ...)
{
	OPEN_BODY(dirfd);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	OPEN_BODY(dirfd);
}

int creat(const char *path, mode_t mode)
{
	return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
	return creat(path, mode);
}

/* Two names: the old one goes (K_RENAME) or stays (K_LINK). */
static int two_names(struct record *r, int olddir, const char *old, int newdir, const char *new_, int flags)
{
	long call = r->kind == K_RENAME ? SYS_renameat2 : SYS_linkat;
	struct spot from, to;
	bool ours_from = watches() && locate(olddir, old, &from);
	bool ours_to = watches() && locate(newdir, new_, &to);
	uint64_t id;
	long rc;

	if (!ours_from && !ours_to)
		return (int)syscall(call, olddir, old, newdir, new_, flags);
	pthread_mutex_lock(&pc.names);
	if (ours_from != ours_to || (r->kind == K_RENAME && (flags & (int)RENAME_EXCHANGE) != 0))
		r->kind = K_STRANGE;
	r->ino = ours_from ? from.dir : 0;
	r->ino2 = ours_to ? to.dir : 0;
	id = begin(r, ours_from ? from.leaf : old, ours_to ? to.leaf : new_, NULL, 0);
	rc = end(id, fails(C_RENAME, old) ? -1 : syscall(call, olddir, old, newdir, new_, flags), 0);
	pthread_mutex_unlock(&pc.names);
	return (int)rc;
}

int renameat2(int olddir, const char *old, int newdir, const char *new_, unsigned flags)
{
	return two_names(&(struct record){.kind = K_RENAME}, olddir, old, newdir, new_, (int)flags);
}

int renameat(int olddir, const char *old, int newdir, const char *new_)
{
	return renameat2(olddir, old, newdir, new_, 0);
}

int rename(const char *old, const char *new_)
{
	return renameat2(AT_FDCWD, old, AT_FDCWD, new_, 0);
}

int linkat(int olddir, const char *old, int newdir, const char *new_, int flags)
{
	return two_names(&(struct record){.kind = K_LINK}, olddir, old, newdir, new_, flags);
}

int link(const char *old, const char *new_)
{
	return linkat(AT_FDCWD, old, AT_FDCWD, new_, 0);
}

/* One name: K_UNLINK with the flags of unlinkat, or K_MKDIR with a mode. */
static int one_name(struct record *r, int dirfd, const char *path, unsigned argument)
{
	long call = r->kind == K_MKDIR ? SYS_mkdirat : SYS_unlinkat;
	struct spot spot;
	uint64_t id;
	long rc;

	if (!watches() || !locate(dirfd, path, &spot))
		return (int)syscall(call, dirfd, path, argument);
	pthread_mutex_lock(&pc.names);
	r->ino = spot.dir;
	id = begin(r, spot.leaf, NULL, NULL, 0);
	rc = syscall(call, dirfd, path, argument);
	rc = end(id, rc, rc == 0 && r->kind == K_MKDIR ? inode_of(dirfd, path) : 0);
	pthread_mutex_unlock(&pc.names);
	return (int)rc;
}

int unlinkat(int dirfd, const char *path, int flags)
{
	return one_name(&(struct record){.kind = K_UNLINK}, dirfd, path, (unsigned)flags);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int remove(const char *path)
{
	int rc = unlink(path);

	return rc != 0 && errno == EISDIR ? rmdir(path) : rc;
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	return one_name(&(struct record){.kind = K_MKDIR}, dirfd, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

int symlinkat(const char *target, int dirfd, const char *path)
{
	struct record r = {.kind = K_SYMLINK};
	struct spot spot;
	uint64_t id;
	long rc;

	if (!watches() || !locate(dirfd, path, &spot))
		return (int)syscall(SYS_symlinkat, target, dirfd, path);
	pthread_mutex_lock(&pc.names);
	r.ino = spot.dir;
	id = begin(&r, spot.leaf, target, NULL, 0);
	rc = syscall(SYS_symlinkat, target, dirfd, path);
	rc = end(id, rc, rc == 0 ? inode_of(dirfd, path) : 0);
	pthread_mutex_unlock(&pc.names);
	return (int)rc;
}

int symlink(const char *target, const char *path)
{
	return symlinkat(target, AT_FDCWD, path);
}

/* ---- syncing ---- */

/* A lock of the process's, not the descriptor's: also children of one parent exclude each other. */
static void lock_device(short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};

	while (pc.device_fd >= 0 && fcntl(pc.device_fd, F_SETLKW, &lock) != 0 && errno == EINTR)
		continue;
}

static void pause_ms(long ms)
{
	struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		continue;
}

static long slow_sync(long call, int fd)
{
	long rc;
	int saved;

	if (pc.sync_ms == 0)
		return syscall(call, fd);
	pthread_mutex_lock(&pc.device);
	lock_device(F_WRLCK);
	pause_ms(pc.sync_ms);
	rc = syscall(call, fd);
	saved = errno;
	lock_device(F_UNLCK);
	pthread_mutex_unlock(&pc.device);
	errno = saved;
	return rc;
}

static int do_sync(long call, int fd, enum kind kind)
{
	struct record r = {.kind = (uint16_t)kind};
	enum what what;
	uint64_t id;
	bool broken;

	if (!watches() && pc.sync_ms == 0)
		return (int)syscall(call, fd);
	what = look_at(fd, &r.ino);
	if (what != FD_FILE && what != FD_DIR)
		return (int)syscall(call, fd);
	id = begin(&r, NULL, NULL, NULL, 0);
	broken = fails_on(what == FD_FILE ? C_SYNC : C_DIRSYNC, fd);
	return (int)end(id, broken ? -1 : slow_sync(call, fd), 0);
}

int fsync(int fd)
{
	return do_sync(SYS_fsync, fd, K_SYNC);
}

int fdatasync(int fd)
{
	return do_sync(SYS_fdatasync, fd, K_SYNC);
}

int syncfs(int fd)
{
	return do_sync(SYS_syncfs, fd, K_SYNC_ALL);
}
