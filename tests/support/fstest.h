/*
 * What the tests of common/fs_*.c share: a directory of our own (tmptree.h) with a descriptor of it, runs with the
 * first, second, third ... call failing, and a system that writes down what is done to files, in order.
 */
#ifndef PGR_TESTS_FSTEST_H
#define PGR_TESTS_FSTEST_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

/* ---- a directory of our own for each test: make_root and drop_root are its fixture ---- */

static struct tmptree tree;
static const char *const root = tree.path;
static int root_fd;
static mode_t old_umask;

static inline void make_root(void)
{
	old_umask = umask(0);
	tmp_make(&tree);
	root_fd = open(root, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(root_fd, 0);
}

static inline void drop_root(void)
{
	tmp_remove(&tree);
	close(root_fd);
	umask(old_umask);
}

/* The path of something below the root; three of them may be in use at a time. */
static inline const char *at(const char *name)
{
	return tmp_at(&tree, name);
}

static inline void put(const char *name, const char *content)
{
	tmp_write(&tree, name, content);
}

static inline void make(const char *name)
{
	tmp_mkdir(&tree, name, 0700);
}

static inline void make_link(const char *target, const char *name)
{
	ck_assert_int_eq(symlinkat(target, root_fd, name), 0);
}

static inline bool exists(const char *name)
{
	return tmp_exists(&tree, name);
}

static inline mode_t mode_of(const char *name)
{
	ck_assert_msg(exists(name), "%s is not there", name);
	return tmp_mode(&tree, name) & 07777;
}

static inline void assert_content(const char *name, const char *want)
{
	char *got = tmp_read(&tree, name, NULL);

	ck_assert_str_eq(got, want);
	free(got);
}

/* ---- running a scenario with its first, second, third ... call failing ---- */

struct scenario {
	void (*prepare)(void);					    /* NULL: nothing */
	int (*run)(const struct pgr_sys *sys, struct pgr_err *err); /* what is tested */
	void (*verify)(const struct pgr_fault_sys *f, int rc);	    /* NULL: nothing more */
	const char *object;					    /* every error names it */
	bool (*forgiven)(const struct pgr_fault_sys *f);	    /* failures that must not be one; NULL: none */
	void (*cleanup)(void);					    /* NULL: nothing */
};

static inline bool interruptible(const struct pgr_fault_sys *f)
{
	static const char *const calls[] = {"openat", "read", "write", "pwrite", "fsync"};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (strcmp(f->failed_call, calls[i]) == 0)
			return true;
	}
	return false;
}

/* What the loops below ask is whether it is called, hundreds of times; that the disk is slow is known. */
static inline int quick_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

/* Runs it once with call n failing.  False: there was no call n. */
static inline bool run_fault(const struct scenario *s, unsigned n, int errnum)
{
	struct pgr_sys quick = *pgr_sys_real();
	struct pgr_fault_sys f;
	struct pgr_err e;

	if (s->prepare != NULL)
		s->prepare();

	unsigned fds = tmp_open_fds();

	pgr_err_clear(&e);
	pgr_fault_sys_init(&f, n, errnum);
	quick.fsync = quick_fsync;
	f.real = &quick;

	int rc = s->run(&f.sys, &e);

	ck_assert_msg(tmp_open_fds() == fds, "a descriptor is left open after call %u (%s) failed", n,
		      f.triggered ? f.failed_call : "none");
	if (!f.triggered) {
		ck_assert_msg(rc != PGR_ERR, "%s", e.msg);
	} else if (errnum == EINTR ? interruptible(&f) : s->forgiven != NULL && s->forgiven(&f)) {
		ck_assert_msg(rc != PGR_ERR, "call %u (%s) should not have mattered: %s", n, f.failed_call, e.msg);
	} else {
		ck_assert_msg(rc == PGR_ERR, "call %u (%s) failed and nobody noticed", n, f.failed_call);
		ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
		ck_assert_int_eq(e.sys_errno, errnum);
		ck_assert_msg(strstr(e.msg, s->object) != NULL, "\"%s\" does not name \"%s\"", e.msg, s->object);
	}
	if (s->verify != NULL)
		s->verify(&f, rc);
	if (s->cleanup != NULL)
		s->cleanup();
	return f.triggered;
}

/* Returns how many calls there were. */
static inline unsigned every_fault(const struct scenario *s, int errnum)
{
	unsigned n = 1;

	while (run_fault(s, n, errnum))
		n++;
	ck_assert_uint_gt(n, 1);
	return n - 1;
}

/* ---- a system that writes down what is done, in order ---- */

struct recorder {
	struct pgr_sys sys; /* first */
	char log[4096];
	int dir_fsync_errno; /* directories answer this to fsync */
	int file_fsync_errno;
	int fstat_errno;
};

static inline struct recorder *recorder_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct recorder *out;
	} u = {.in = sys};

	return u.out;
}

static inline void note(struct recorder *r, const char *verb, const char *object)
{
	size_t n = strlen(r->log);

	snprintf(r->log + n, sizeof(r->log) - n, "%s(%s) ", verb, object);
}

/* The last component of what a descriptor stands for. */
static inline const char *name_of_fd(int fd, char *buf, size_t size)
{
	char link[64];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);

	ssize_t n = readlink(link, buf, size - 1);

	ck_assert_int_gt(n, 0);
	buf[n] = '\0';
	if (strcmp(buf, root) == 0)
		return "ROOT";
	return strcmp(buf, "/") == 0 ? buf : strrchr(buf, '/') + 1;
}

static inline int rec_fsync(const struct pgr_sys *sys, int fd)
{
	struct recorder *r = recorder_of(sys);
	char buf[PATH_MAX];
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	note(r, "fsync", name_of_fd(fd, buf, sizeof(buf)));
	errno = S_ISDIR(st.st_mode) ? r->dir_fsync_errno : r->file_fsync_errno;
	return errno != 0 ? -1 : 0;
}

static inline int rec_fstat(const struct pgr_sys *sys, int fd, struct stat *st)
{
	errno = recorder_of(sys)->fstat_errno;
	return errno != 0 ? -1 : fstat(fd, st);
}

static inline int rec_close(const struct pgr_sys *sys, int fd)
{
	char buf[PATH_MAX];

	note(recorder_of(sys), "close", name_of_fd(fd, buf, sizeof(buf)));
	return close(fd);
}

static inline int rec_renameat(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	note(recorder_of(sys), "rename", new_);
	return renameat(olddir, old, newdir, new_);
}

static inline ssize_t rec_write(const struct pgr_sys *sys, int fd, const void *buf, size_t len)
{
	char name[PATH_MAX];

	note(recorder_of(sys), "write", name_of_fd(fd, name, sizeof(name)));
	return write(fd, buf, len);
}

static inline void recorder_init(struct recorder *r)
{
	memset(r, 0, sizeof(*r));
	r->sys = *pgr_sys_real();
	r->sys.fsync = rec_fsync;
	r->sys.fstat = rec_fstat;
	r->sys.close = rec_close;
	r->sys.renameat = rec_renameat;
	r->sys.write = rec_write;
}

#endif
