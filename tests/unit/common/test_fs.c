#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"

/* ---- a directory of our own for each test, and the plain tools to look into it ---- */

static char root[64];
static int root_fd;
static mode_t old_umask;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void make_root(void)
{
	old_umask = umask(0);
	strcpy(root, "/tmp/test_fs.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(root));
	root_fd = open(root, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(root_fd, 0);
}

static void drop_root(void)
{
	nftw(root, remove_one, 20, FTW_DEPTH | FTW_PHYS);
	close(root_fd);
	umask(old_umask);
}

/* The path of something below the root; three of them may be in use at a time. */
static const char *at(const char *name)
{
	static char paths[3][PATH_MAX];
	static int next;
	char *p = paths[next++ % 3];

	snprintf(p, PATH_MAX, "%s/%s", root, name);
	return p;
}

static void put(const char *name, const char *content)
{
	int fd = openat(root_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
	ck_assert_int_eq(close(fd), 0);
}

static void make(const char *name)
{
	ck_assert_int_eq(mkdirat(root_fd, name, 0700), 0);
}

static void make_link(const char *target, const char *name)
{
	ck_assert_int_eq(symlinkat(target, root_fd, name), 0);
}

static bool exists(const char *name)
{
	struct stat st;

	return fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static mode_t mode_of(const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(root_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_mode & 07777;
}

static void assert_content(const char *name, const char *want)
{
	char got[256] = "";
	int fd = openat(root_fd, name, O_RDONLY);

	ck_assert_msg(fd >= 0, "%s is not there", name);

	ssize_t n = read(fd, got, sizeof(got) - 1);

	close(fd);
	ck_assert_int_ge(n, 0);
	got[n] = '\0';
	ck_assert_str_eq(got, want);
}

static int count_fds(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/fd");

	ck_assert_ptr_nonnull(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
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

static bool interruptible(const struct pgr_fault_sys *f)
{
	static const char *const calls[] = {"openat", "read", "write", "pwrite", "fsync"};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (strcmp(f->failed_call, calls[i]) == 0)
			return true;
	}
	return false;
}

/* What the loops below ask is whether it is called, hundreds of times; that the disk is slow is known. */
static int quick_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

/* Runs it once with call n failing.  False: there was no call n. */
static bool run_fault(const struct scenario *s, unsigned n, int errnum)
{
	struct pgr_sys quick = *pgr_sys_real();
	struct pgr_fault_sys f;
	struct pgr_err e;

	if (s->prepare != NULL)
		s->prepare();

	int fds = count_fds();

	pgr_err_clear(&e);
	pgr_fault_sys_init(&f, n, errnum);
	quick.fsync = quick_fsync;
	f.real = &quick;

	int rc = s->run(&f.sys, &e);

	ck_assert_msg(count_fds() == fds, "a descriptor is left open after call %u (%s) failed", n,
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
static unsigned every_fault(const struct scenario *s, int errnum)
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

static struct recorder *recorder_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct recorder *out;
	} u = {.in = sys};

	return u.out;
}

static void note(struct recorder *r, const char *verb, const char *object)
{
	size_t n = strlen(r->log);

	snprintf(r->log + n, sizeof(r->log) - n, "%s(%s) ", verb, object);
}

/* The last component of what a descriptor stands for. */
static const char *name_of_fd(int fd, char *buf, size_t size)
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

static int rec_fsync(const struct pgr_sys *sys, int fd)
{
	struct recorder *r = recorder_of(sys);
	char buf[PATH_MAX];
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	note(r, "fsync", name_of_fd(fd, buf, sizeof(buf)));
	errno = S_ISDIR(st.st_mode) ? r->dir_fsync_errno : r->file_fsync_errno;
	return errno != 0 ? -1 : 0;
}

static int rec_fstat(const struct pgr_sys *sys, int fd, struct stat *st)
{
	errno = recorder_of(sys)->fstat_errno;
	return errno != 0 ? -1 : fstat(fd, st);
}

static int rec_close(const struct pgr_sys *sys, int fd)
{
	char buf[PATH_MAX];

	note(recorder_of(sys), "close", name_of_fd(fd, buf, sizeof(buf)));
	return close(fd);
}

static int rec_renameat(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	note(recorder_of(sys), "rename", new_);
	return renameat(olddir, old, newdir, new_);
}

static ssize_t rec_write(const struct pgr_sys *sys, int fd, const void *buf, size_t len)
{
	char name[PATH_MAX];

	note(recorder_of(sys), "write", name_of_fd(fd, name, sizeof(name)));
	return write(fd, buf, len);
}

static void recorder_init(struct recorder *r)
{
	memset(r, 0, sizeof(*r));
	r->sys = *pgr_sys_real();
	r->sys.fsync = rec_fsync;
	r->sys.fstat = rec_fstat;
	r->sys.close = rec_close;
	r->sys.renameat = rec_renameat;
	r->sys.write = rec_write;
}

/* ---- names ---- */

START_TEST(safe_names)
{
	static const char *const good[] = {"a",
					   "a/b",
					   "a/b/",
					   "base/1/1259_fsm",
					   "...",
					   "..a",
					   "a..",
					   ".a/.b",
					   " ",
					   "a b",
					   "pg_tblspc/16384/PG_15_202209061/5/1"};
	static const char *const bad[] = {"",	 "/",	  "/a",	    "//",   ".",   "..",   "./",  "../",   "a//b",
					  "a//", "a/./b", "a/../b", "a/..", "a/.", "../a", "./a", "a/../", "a/b//"};
	char longest[PATH_MAX + 1];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(pgr_path_is_safe(good[i]), "\"%s\" was refused", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!pgr_path_is_safe(bad[i]), "\"%s\" was accepted", bad[i]);

	memset(longest, 'a', PATH_MAX);
	longest[PATH_MAX] = '\0';
	ck_assert(!pgr_path_is_safe(longest));
	longest[PATH_MAX - 1] = '\0';
	ck_assert(pgr_path_is_safe(longest));
}
END_TEST

START_TEST(canonical_names)
{
	static const struct {
		const char *in, *out;
	} known[] = {
		{"", ""},
		{"/", "/"},
		{"//", "/"},
		{"a", "a"},
		{"a/", "a"},
		{"a///", "a"},
		{"/a/", "/a"},
		{"//a//b//", "/a/b"},
		{"a//b", "a/b"},
		{".", "."},
		{"./", "."},
		{"./.", "."},
		{"./a", "a"},
		{"a/.", "a"},
		{"a/./b", "a/b"},
		{"a/..", "."},
		{"a/../", "."},
		{"a/../b", "b"},
		{"a/b/..", "a"},
		{"a/b/../..", "."},
		{"a/b/../../..", ".."},
		{"..", ".."},
		{"../", ".."},
		{"../..", "../.."},
		{"../../a", "../../a"},
		{"../a/..", ".."},
		{"a/../../b", "../b"},
		{"/..", "/"},
		{"/../a", "/a"},
		{"/../../a", "/a"},
		{"/a/..", "/"},
		{"/a/../..", "/"},
		{"/a/../b", "/b"},
		{"/a/b/../c/./d/", "/a/c/d"},
		{"...", "..."},
		{"a/...", "a/..."},
		{"a/..b", "a/..b"},
		{"a/b../..", "a"},
		{"/.", "/"},
		{"/./a", "/a"},
		{"/var/lib//postgresql/15/../15/main/.", "/var/lib/postgresql/15/main"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char *path = strdup(known[i].in); /* exactly as long as it is, so that ASan sees one byte more */

		ck_assert_ptr_nonnull(path);
		pgr_path_canonicalize(path);
		ck_assert_msg(strcmp(path, known[i].out) == 0, "\"%s\" became \"%s\"", known[i].in, path);
		pgr_path_canonicalize(path);
		ck_assert_msg(strcmp(path, known[i].out) == 0, "not stable: \"%s\"", known[i].in);
		free(path);
	}
}
END_TEST

/* ---- open_parent ---- */

START_TEST(parent_is_found)
{
	const struct pgr_sys *sys = pgr_sys_real();
	struct pgr_err e;
	const char *path = "a/b/file", *leaf;
	int fd;

	make("a");
	make("a/b");
	ck_assert_int_eq(pgr_fs_open_parent(sys, root_fd, path, &fd, &leaf, &e), PGR_OK);
	ck_assert_ptr_eq(leaf, path + 4);
	ck_assert_int_eq(mkdirat(fd, leaf, 0700), 0);
	ck_assert(exists("a/b/file"));
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	close(fd);
}
END_TEST

START_TEST(parent_may_be_the_root_itself)
{
	struct pgr_err e;
	const char *path = "file", *leaf;
	int fd;

	ck_assert_int_eq(pgr_fs_open_parent(pgr_sys_real(), root_fd, path, &fd, &leaf, &e), PGR_OK);
	ck_assert_ptr_eq(leaf, path);
	ck_assert_int_ne(fd, root_fd);
	ck_assert_int_eq(mkdirat(fd, leaf, 0700), 0);
	ck_assert(exists("file"));
	close(fd);
}
END_TEST

static void refuse_parent(const char *path, enum pgr_errclass cls, int errnum)
{
	struct pgr_err e;
	const char *leaf;
	int fd, fds = count_fds();

	ck_assert_msg(pgr_fs_open_parent(pgr_sys_real(), root_fd, path, &fd, &leaf, &e) == PGR_ERR, "\"%s\"", path);
	ck_assert_int_eq(e.cls, cls);
	ck_assert_int_eq(e.sys_errno, errnum);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(count_fds(), fds);
}

START_TEST(parents_that_are_refused)
{
	char too_long[NAME_MAX + 10];

	make("a");
	make("outside");
	put("a/file", "x");
	make_link("outside", "link");
	make_link("../outside", "a/link");
	make_link("/", "a/slash");
	refuse_parent("missing/f", PGR_E_SYSTEM, ENOENT);
	refuse_parent("a/missing/f", PGR_E_SYSTEM, ENOENT);
	refuse_parent("a/file/f", PGR_E_SYSTEM, ENOTDIR);
	refuse_parent("link/f", PGR_E_SYSTEM, ENOTDIR);
	refuse_parent("a/link/f", PGR_E_SYSTEM, ENOTDIR);
	refuse_parent("a/slash/etc/passwd", PGR_E_SYSTEM, ENOTDIR);
	refuse_parent("../f", PGR_E_DATA, 0);
	refuse_parent("a/../../f", PGR_E_DATA, 0);
	refuse_parent("/etc/passwd", PGR_E_DATA, 0);
	refuse_parent("a/b//f", PGR_E_DATA, 0);
	refuse_parent("", PGR_E_DATA, 0);
	/* "link/" would be followed by whoever opens the leaf. */
	refuse_parent("link/", PGR_E_DATA, 0);
	refuse_parent("a/link/", PGR_E_DATA, 0);
	memset(too_long, 'n', sizeof(too_long));
	memcpy(too_long + sizeof(too_long) - 3, "/f", 3);
	refuse_parent(too_long, PGR_E_SYSTEM, ENAMETOOLONG);
}
END_TEST

static int run_open_parent(const struct pgr_sys *sys, struct pgr_err *err)
{
	const char *leaf;
	int fd, rc = pgr_fs_open_parent(sys, root_fd, "a/b/c/leaf", &fd, &leaf, err);

	if (rc == PGR_OK)
		close(fd);
	return rc;
}

static int run_open_root(const struct pgr_sys *sys, struct pgr_err *err)
{
	const char *leaf;
	int fd, rc = pgr_fs_open_parent(sys, root_fd, "a", &fd, &leaf, err);

	if (rc == PGR_OK)
		close(fd);
	return rc;
}

START_TEST(parent_with_failures)
{
	struct scenario s = {.run = run_open_parent, .object = "a"}, flat = {.run = run_open_root, .object = "\"a\""};

	make("a");
	make("a/b");
	make("a/b/c");
	ck_assert_uint_eq(every_fault(&s, EIO), 5); /* three opens, two closes */
	every_fault(&s, EINTR);
	every_fault(&flat, EIO);
	every_fault(&flat, EINTR);
}
END_TEST

/* ---- writing ---- */

static int run_write_all(const struct pgr_sys *sys, struct pgr_err *err)
{
	int fd = open(at("f"), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);

	int rc = pgr_fs_write_all(sys, fd, "0123456789", 10, "the file", err);

	if (rc == PGR_OK)
		rc = pgr_fs_pwrite_all(sys, fd, "abcdef", 6, 3, "the file", err);
	close(fd);
	if (rc == PGR_OK)
		assert_content("f", "012abcdef9");
	return rc;
}

START_TEST(all_is_written)
{
	struct scenario s = {.run = run_write_all, .object = "the file"};
	struct pgr_fault_sys f;
	struct pgr_err e;

	every_fault(&s, ENOSPC);
	every_fault(&s, EINTR);
	pgr_fault_sys_init(&f, 0, 0);
	f.short_io = true;
	ck_assert_int_eq(run_write_all(&f.sys, &e), PGR_OK);
	ck_assert_uint_gt(f.calls, 2);
	/* And short writes that end in an error are one. */
	s.run = run_write_all;
	pgr_fault_sys_init(&f, 2, EDQUOT);
	f.short_io = true;
	ck_assert_int_eq(run_write_all(&f.sys, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EDQUOT);
}
END_TEST

static ssize_t write_nothing(const struct pgr_sys *sys, int fd, const void *buf, size_t len)
{
	(void)sys;
	(void)fd;
	(void)buf;
	(void)len;
	errno = 0;
	return 0;
}

static ssize_t pwrite_nothing(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	(void)off;
	return write_nothing(sys, fd, buf, len);
}

START_TEST(a_write_of_nothing_is_a_full_disk)
{
	struct pgr_sys sys = *pgr_sys_real();
	struct pgr_err e;

	sys.write = write_nothing;
	sys.pwrite = pwrite_nothing;
	ck_assert_int_eq(pgr_fs_write_all(&sys, root_fd, "x", 1, "f", &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOSPC);
	ck_assert_int_eq(pgr_fs_pwrite_all(&sys, root_fd, "x", 1, 0, "f", &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOSPC);
	/* Nothing to write is no write at all. */
	ck_assert_int_eq(pgr_fs_write_all(&sys, -1, "", 0, "f", &e), PGR_OK);
	ck_assert_int_eq(pgr_fs_pwrite_all(&sys, -1, "", 0, 0, "f", &e), PGR_OK);
}
END_TEST

static int write_label(const struct pgr_sys *sys, bool sync, struct pgr_err *err)
{
	return pgr_fs_write_file(sys, root_fd, root, "label", ".tmp", "new", 3, 0640, sync, err);
}

static int write_synced(const struct pgr_sys *sys, struct pgr_err *err)
{
	return write_label(sys, true, err);
}

static int write_unsynced(const struct pgr_sys *sys, struct pgr_err *err)
{
	return write_label(sys, false, err);
}

static void put_old_label(void)
{
	put("label", "old");
}

static void old_or_new(const struct pgr_fault_sys *f, int rc)
{
	ck_assert(!exists("label.tmp"));
	/* fsyncs counts those that succeeded: after the file's, only the directory's is left to fail. */
	bool renamed = rc == PGR_OK || (strcmp(f->failed_call, "fsync") == 0 && f->fsyncs == 1);

	assert_content("label", renamed ? "new" : "old");
}

START_TEST(file_is_replaced_or_left_alone)
{
	struct scenario s = {.prepare = put_old_label, .run = write_synced, .verify = old_or_new, .object = root};

	/* unlink, open, write, fsync, close, rename, fsync */
	ck_assert_uint_eq(every_fault(&s, EIO), 7);
	every_fault(&s, EINTR);
	s.run = write_unsynced;
	ck_assert_uint_eq(every_fault(&s, EIO), 5);
	ck_assert_uint_eq(mode_of("label"), 0640);
}
END_TEST

START_TEST(file_is_synced_closed_renamed_and_its_directory_synced)
{
	struct recorder r;
	struct pgr_err e;

	recorder_init(&r);
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_OK);
	ck_assert_str_eq(r.log, "write(label.tmp) fsync(label.tmp) close(label.tmp) rename(label) fsync(ROOT) ");
	recorder_init(&r);
	ck_assert_int_eq(write_label(&r.sys, false, &e), PGR_OK);
	ck_assert_str_eq(r.log, "write(label.tmp) close(label.tmp) rename(label) ");
	assert_content("label", "new");
}
END_TEST

START_TEST(short_writes_do_not_matter)
{
	struct pgr_fault_sys f;
	struct pgr_err e;

	pgr_fault_sys_init(&f, 0, 0);
	f.short_io = true;
	ck_assert_int_eq(write_label(&f.sys, true, &e), PGR_OK);
	assert_content("label", "new");
}
END_TEST

START_TEST(leftovers_are_not_trusted)
{
	struct pgr_err e;

	put("victim", "precious");
	make_link("victim", "label.tmp");
	ck_assert_int_eq(write_label(pgr_sys_real(), true, &e), PGR_OK);
	assert_content("victim", "precious");
	assert_content("label", "new");

	put("label.tmp", "a longer one, of a run that was killed");
	ck_assert_int_eq(fchmodat(root_fd, "label.tmp", 0444, 0), 0);
	ck_assert_int_eq(write_label(pgr_sys_real(), true, &e), PGR_OK);
	assert_content("label", "new");
	ck_assert_uint_eq(mode_of("label"), 0640);

	make("label.tmp");
	ck_assert_int_eq(write_label(pgr_sys_real(), true, &e), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(e.msg, "label.tmp"));
}
END_TEST

START_TEST(rename_onto_a_directory_fails_cleanly)
{
	struct pgr_err e;

	make("label");
	ck_assert_int_eq(write_label(pgr_sys_real(), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EISDIR);
	ck_assert(!exists("label.tmp"));
}
END_TEST

START_TEST(names_too_long_for_a_suffix)
{
	struct pgr_err e;
	char name[PATH_MAX];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	ck_assert_int_eq(pgr_fs_write_file(pgr_sys_real(), root_fd, root, name, ".tmp", "x", 1, 0600, true, &e),
			 PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
}
END_TEST

START_TEST(working_directory_is_synced_too)
{
	struct recorder r;
	struct pgr_err e;
	int cwd = open(".", O_RDONLY | O_DIRECTORY);

	ck_assert_int_eq(fchdir(root_fd), 0);
	recorder_init(&r);

	int rc = pgr_fs_write_file(&r.sys, AT_FDCWD, NULL, "f", ".tmp", "x", 1, 0600, true, &e);

	ck_assert_int_eq(fchdir(cwd), 0);
	close(cwd);
	ck_assert_int_eq(rc, PGR_OK);
	ck_assert_ptr_nonnull(strstr(r.log, "rename(f) fsync(ROOT) "));
}
END_TEST

START_TEST(directories_that_cannot_be_synced)
{
	struct recorder r;
	struct pgr_err e;

	recorder_init(&r);
	r.dir_fsync_errno = EINVAL;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_OK);
	r.dir_fsync_errno = EBADF;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_OK);
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, root, true, &e), PGR_OK);
	ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, root, &e), PGR_OK);

	/* A descriptor that is none is our mistake, and nothing was synced. */
	r.fstat_errno = EBADF;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EBADF);
	r.fstat_errno = 0;

	r.dir_fsync_errno = EIO;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EIO);
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, root, true, &e), PGR_ERR);
	ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, root, &e), PGR_ERR);
}
END_TEST

START_TEST(files_that_cannot_be_synced)
{
	static const int errnos[] = {EINVAL, EBADF, EIO, ENOSPC, EROFS};
	struct recorder r;
	struct pgr_err e;

	put("label", "old");
	for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++) {
		recorder_init(&r);
		r.file_fsync_errno = errnos[i];
		ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_ERR);
		ck_assert_int_eq(e.sys_errno, errnos[i]);
		ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, root, true, &e), PGR_ERR);
		ck_assert_int_eq(e.sys_errno, errnos[i]);
		assert_content("label", "old");
	}
}
END_TEST

/* ---- durable_rename ---- */

static void put_from(void)
{
	put("from", "new");
	put("to", "old");
}

static int rename_by_name(const struct pgr_sys *sys, struct pgr_err *err)
{
	return pgr_fs_durable_rename(sys, root_fd, root, -1, "from", "to", err);
}

static int rename_by_fd(const struct pgr_sys *sys, struct pgr_err *err)
{
	int fd = open(at("from"), O_RDWR);

	ck_assert_int_ge(fd, 0);

	int rc = pgr_fs_durable_rename(sys, root_fd, root, fd, "from", "to", err);

	ck_assert_int_eq(close(fd), 0); /* it is still the caller's */
	return rc;
}

static void from_or_to(const struct pgr_fault_sys *f, int rc)
{
	bool renamed = rc == PGR_OK || (strcmp(f->failed_call, "fsync") == 0 && f->fsyncs == 1);

	ck_assert_int_eq(exists("from"), !renamed);
	assert_content("to", renamed ? "new" : "old");
}

START_TEST(durable_rename_with_failures)
{
	struct scenario s = {.prepare = put_from, .run = rename_by_name, .verify = from_or_to, .object = root};

	ck_assert_uint_eq(every_fault(&s, EIO), 5); /* open, fsync, close, rename, fsync */
	every_fault(&s, EINTR);
	s.run = rename_by_fd;
	ck_assert_uint_eq(every_fault(&s, EIO), 3);
	every_fault(&s, EINTR);
}
END_TEST

START_TEST(durable_rename_in_order)
{
	struct recorder r;
	struct pgr_err e;

	recorder_init(&r);
	put_from();
	ck_assert_int_eq(rename_by_name(&r.sys, &e), PGR_OK);
	ck_assert_str_eq(r.log, "fsync(from) close(from) rename(to) fsync(ROOT) ");
	recorder_init(&r);
	put_from();
	ck_assert_int_eq(rename_by_fd(&r.sys, &e), PGR_OK);
	ck_assert_str_eq(r.log, "fsync(from) rename(to) fsync(ROOT) ");
	/* What is not there cannot be renamed; what is there stays. */
	ck_assert_int_eq(rename_by_name(&r.sys, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOENT);
	assert_content("to", "new");
}
END_TEST

/* ---- read_file ---- */

static int read_it(const struct pgr_sys *sys, const char *name, size_t limit, char **data, size_t *len,
		   struct pgr_err *err)
{
	return pgr_fs_read_file(sys, root_fd, root, name, limit, data, len, err);
}

START_TEST(whole_files)
{
	struct pgr_err e;
	char *data;
	size_t len;

	put("empty", "");
	ck_assert_int_eq(read_it(pgr_sys_real(), "empty", 0, &data, &len, &e), PGR_OK);
	ck_assert_uint_eq(len, 0);
	ck_assert_str_eq(data, "");
	free(data);

	put("f", "0123456789");
	ck_assert_int_eq(read_it(pgr_sys_real(), "f", 10, &data, &len, &e), PGR_OK);
	ck_assert_uint_eq(len, 10);
	ck_assert_str_eq(data, "0123456789");
	free(data);
	ck_assert_int_eq(read_it(pgr_sys_real(), "f", SIZE_MAX, &data, &len, &e), PGR_OK);
	ck_assert_str_eq(data, "0123456789");
	free(data);
	make("sub");
	put("sub/f", "below");
	ck_assert_int_eq(read_it(pgr_sys_real(), "sub/f", 10, &data, &len, &e), PGR_OK);
	ck_assert_str_eq(data, "below");
	free(data);
}
END_TEST

START_TEST(files_beyond_the_limit)
{
	struct pgr_err e;
	char *data;
	size_t len;

	put("f", "0123456789");
	for (size_t limit = 0; limit < 10; limit++) {
		ck_assert_int_eq(read_it(pgr_sys_real(), "f", limit, &data, &len, &e), PGR_ERR);
		ck_assert_int_eq(e.cls, PGR_E_DATA);
		ck_assert_ptr_null(data);
		ck_assert_uint_eq(len, 0);
	}
}
END_TEST

START_TEST(large_files_in_any_pieces)
{
	enum { N = 300000 };
	struct pgr_fault_sys f;
	struct pgr_err e;
	char *want = malloc(N), *data;
	size_t len;

	ck_assert_ptr_nonnull(want);
	for (int i = 0; i < N; i++)
		want[i] = (char)(i * 31 >> 3);

	int fd = openat(root_fd, "f", O_WRONLY | O_CREAT, 0600);

	ck_assert_int_eq(write(fd, want, N), N);
	close(fd);
	for (int short_io = 0; short_io < 2; short_io++) {
		pgr_fault_sys_init(&f, 0, 0);
		f.short_io = short_io == 1;
		ck_assert_int_eq(read_it(&f.sys, "f", N, &data, &len, &e), PGR_OK);
		ck_assert_uint_eq(len, N);
		ck_assert_int_eq(memcmp(data, want, N), 0);
		ck_assert_int_eq(data[N], '\0');
		free(data);
		ck_assert_int_eq(read_it(&f.sys, "f", N - 1, &data, &len, &e), PGR_ERR);
	}
	free(want);
}
END_TEST

START_TEST(what_is_no_file)
{
	struct pgr_err e;
	char *data;
	size_t len;

	make("dir");
	put("target", "x");
	make_link("target", "link");
	ck_assert_int_eq(mkfifoat(root_fd, "fifo", 0600), 0);
	ck_assert_int_eq(read_it(pgr_sys_real(), "missing", 10, &data, &len, &e), PGR_MORE);
	ck_assert_ptr_null(data);
	ck_assert_int_eq(read_it(pgr_sys_real(), "dir", 10, &data, &len, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_int_eq(read_it(pgr_sys_real(), "fifo", 10, &data, &len, &e), PGR_ERR); /* and does not wait */
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_int_eq(read_it(pgr_sys_real(), "link", 10, &data, &len, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ELOOP);
	ck_assert_int_eq(read_it(pgr_sys_real(), "target/x", 10, &data, &len, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOTDIR);
}
END_TEST

static int run_read(const struct pgr_sys *sys, struct pgr_err *err)
{
	char *data;
	size_t len;
	int rc = read_it(sys, "f", 100, &data, &len, err);

	if (rc == PGR_OK)
		ck_assert_str_eq(data, "content");
	else
		ck_assert_ptr_null(data);
	free(data);
	return rc;
}

START_TEST(reading_with_failures)
{
	struct scenario s = {.run = run_read, .object = at("f")};

	put("f", "content");
	ck_assert_uint_eq(every_fault(&s, EIO), 5); /* open, fstat, read, read, close */
	every_fault(&s, EINTR);
}
END_TEST

/* ---- mkdir_p ---- */

START_TEST(directories_are_made)
{
	struct pgr_err e;
	bool created;

	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("a/b/c"), 0750, &created, &e), PGR_OK);
	ck_assert(created);
	ck_assert_uint_eq(mode_of("a"), 0750);
	ck_assert_uint_eq(mode_of("a/b/c"), 0750);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("a/b/c"), 0700, &created, &e), PGR_OK);
	ck_assert(!created);
	ck_assert_uint_eq(mode_of("a/b/c"), 0750);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("a//x///y//"), 0700, &created, &e), PGR_OK);
	ck_assert(created);
	ck_assert(exists("a/x/y"));
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), "/", 0700, &created, &e), PGR_OK);
	ck_assert(!created);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("z"), 0700, NULL, &e), PGR_OK);
	ck_assert(exists("z"));
	/* Links in a path that a person gave are followed. */
	make_link("a", "link");
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("link/new"), 0700, &created, &e), PGR_OK);
	ck_assert(created && exists("a/new"));
}
END_TEST

START_TEST(directories_that_cannot_be_made)
{
	struct pgr_err e;
	char name[PATH_MAX + 1];
	bool created = true;

	put("file", "x");
	make_link("nowhere", "dangling");
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("file"), 0700, &created, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOTDIR);
	ck_assert(!created);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("file/below"), 0700, &created, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOTDIR);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), at("dangling"), 0700, &created, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EEXIST);
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), "", 0700, &created, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOENT);
	memset(name, 'n', PATH_MAX);
	name[PATH_MAX] = '\0';
	ck_assert_int_eq(pgr_fs_mkdir_p(pgr_sys_real(), name, 0700, &created, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
	ck_assert(!created);
}
END_TEST

static int run_mkdir_p(const struct pgr_sys *sys, struct pgr_err *err)
{
	bool created = true;
	int rc = pgr_fs_mkdir_p(sys, at("p/q/r"), 0700, &created, err);

	ck_assert(rc == PGR_OK || !created);
	return rc;
}

static void drop_p(void)
{
	unlinkat(root_fd, "p/q/r", AT_REMOVEDIR);
	unlinkat(root_fd, "p/q", AT_REMOVEDIR);
	unlinkat(root_fd, "p", AT_REMOVEDIR);
}

/*
 * mkdir on what is a directory already may say anything: that it is one decides.  Here those are /tmp and the test's
 * own directory, each a mkdir and a stat.
 */
static bool there_already(const struct pgr_fault_sys *f)
{
	return strcmp(f->failed_call, "mkdirat") == 0 && f->fail_at < 5;
}

START_TEST(making_directories_with_failures)
{
	struct scenario s = {.run = run_mkdir_p, .object = "/", .forgiven = there_already, .cleanup = drop_p};

	ck_assert_uint_eq(every_fault(&s, EROFS), 7);
}
END_TEST

/* ---- dir_state ---- */

static enum pgr_dirstate state_of(const char *name)
{
	enum pgr_dirstate state;
	struct pgr_err e;

	ck_assert_int_eq(pgr_fs_dir_state(pgr_sys_real(), at(name), &state, &e), PGR_OK);
	return state;
}

START_TEST(states_of_directories)
{
	enum pgr_dirstate state;
	struct pgr_err e;

	ck_assert_int_eq(state_of("d"), PGR_DIR_MISSING);
	make("d");
	ck_assert_int_eq(state_of("d"), PGR_DIR_EMPTY);
	put("d/.hidden", "");
	ck_assert_int_eq(state_of("d"), PGR_DIR_NOT_EMPTY);
	make("mount");
	make("mount/lost+found");
	ck_assert_int_eq(state_of("mount"), PGR_DIR_NOT_EMPTY);
	make("strange");
	put("strange/...", "");
	ck_assert_int_eq(state_of("strange"), PGR_DIR_NOT_EMPTY);
	put("file", "");
	ck_assert_int_eq(pgr_fs_dir_state(pgr_sys_real(), at("file"), &state, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOTDIR);
	make_link("d", "link");
	ck_assert_int_eq(state_of("link"), PGR_DIR_NOT_EMPTY);
}
END_TEST

static int run_dir_state(const struct pgr_sys *sys, struct pgr_err *err)
{
	enum pgr_dirstate state;

	return pgr_fs_dir_state(sys, at("d"), &state, err);
}

START_TEST(states_with_failures)
{
	struct scenario s = {.run = run_dir_state, .object = at("d")};

	make("d");
	ck_assert_uint_eq(every_fault(&s, EIO), 6); /* open, fdopendir, three entries, closedir */
	every_fault(&s, EINTR);
}
END_TEST

/* ---- trees ---- */

static void make_tree(void)
{
	make("tree");
	put("tree/f1", "1");
	put("tree/.f2", "2");
	make("tree/sub");
	put("tree/sub/f3", "3");
	make("tree/sub/empty");
	make("outside");
	put("outside/precious", "p");
	make_link("../outside", "tree/dirlink");
	make_link("../../outside/precious", "tree/sub/filelink");
	make_link("nowhere", "tree/dangling");
	ck_assert_int_eq(mkfifoat(root_fd, "tree/fifo", 0600), 0);
}

static void drop_tree(void)
{
	nftw(at("tree"), remove_one, 20, FTW_DEPTH | FTW_PHYS);
	nftw(at("outside"), remove_one, 20, FTW_DEPTH | FTW_PHYS);
}

START_TEST(trees_are_removed_and_links_not_followed)
{
	struct pgr_err e;

	make_tree();
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("tree"), false, &e), PGR_OK);
	ck_assert_int_eq(state_of("tree"), PGR_DIR_EMPTY);
	assert_content("outside/precious", "p");
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("tree"), true, &e), PGR_OK);
	ck_assert(!exists("tree"));
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("tree"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOENT);
	assert_content("outside/precious", "p");
}
END_TEST

static int run_remove(const struct pgr_sys *sys, struct pgr_err *err)
{
	return pgr_fs_remove_tree(sys, at("tree"), true, err);
}

/* What one failure leaves behind is that object and its parents, and nothing else. */
static void most_is_gone(const struct pgr_fault_sys *f, int rc)
{
	static const char *const names[] = {"tree/f1",	    "tree/.f2",	     "tree/sub/f3", "tree/sub/empty",
					    "tree/dirlink", "tree/dangling", "tree/fifo",   "tree/sub/filelink"};
	unsigned left = 0;

	assert_content("outside/precious", "p");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		left += exists(names[i]);
	ck_assert(exists("tree") == (rc == PGR_ERR) || strcmp(f->failed_call, "closedir") == 0);
	if (rc == PGR_ERR && strcmp(f->failed_call, "unlinkat") == 0)
		ck_assert_uint_le(left, 1);
}

START_TEST(removing_goes_on_after_failures)
{
	struct scenario s = {.prepare = make_tree,
			     .run = run_remove,
			     .verify = most_is_gone,
			     .object = "tree",
			     .cleanup = drop_tree};

	every_fault(&s, EIO);
	every_fault(&s, EINTR);
}
END_TEST

/* Somebody else removes too, and is always a little faster. */
static int unlinkat_too_late(const struct pgr_sys *sys, int dirfd, const char *path, int flags)
{
	(void)sys;
	ck_assert_int_eq(unlinkat(dirfd, path, flags), 0);
	return unlinkat(dirfd, path, flags);
}

START_TEST(removing_what_has_gone)
{
	struct pgr_sys sys = *pgr_sys_real();
	struct pgr_err e;

	make_tree();
	sys.unlinkat = unlinkat_too_late;
	ck_assert_int_eq(pgr_fs_remove_tree(&sys, at("tree"), false, &e), PGR_OK);
	ck_assert_int_eq(state_of("tree"), PGR_DIR_EMPTY);
}
END_TEST

/* Some file systems do not tell the type with the name. */
static struct dirent *readdir_untyped(const struct pgr_sys *sys, DIR *d)
{
	(void)sys;
	errno = 0;

	struct dirent *de = readdir(d);

	if (de != NULL)
		de->d_type = DT_UNKNOWN;
	return de;
}

START_TEST(trees_without_types)
{
	struct recorder r;
	struct pgr_err e;

	make_tree();
	recorder_init(&r);
	r.sys.readdir = readdir_untyped;
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_OK);
	ck_assert_ptr_nonnull(strstr(r.log, "fsync(f3)"));
	ck_assert_ptr_nonnull(strstr(r.log, "fsync(empty)"));
	ck_assert_ptr_null(strstr(r.log, "precious"));
	ck_assert_ptr_null(strstr(r.log, "outside"));
	ck_assert_int_eq(pgr_fs_remove_tree(&r.sys, at("tree"), true, &e), PGR_OK);
	ck_assert(!exists("tree"));
	assert_content("outside/precious", "p");
}
END_TEST

/* A link that took the place of what was listed: its type is the old one's. */
static struct dirent *readdir_outdated(const struct pgr_sys *sys, DIR *d)
{
	struct dirent *de = readdir_untyped(sys, d);

	if (de != NULL && strcmp(de->d_name, "dirlink") == 0)
		de->d_type = DT_DIR;
	if (de != NULL && strcmp(de->d_name, "filelink") == 0)
		de->d_type = DT_REG;
	return de;
}

START_TEST(links_that_were_swapped_in_are_not_followed)
{
	struct recorder r;
	struct pgr_err e;

	make("tree");
	make("outside");
	put("outside/precious", "p");
	make_link("../outside", "tree/dirlink");
	recorder_init(&r);
	r.sys.readdir = readdir_outdated;
	ck_assert_int_eq(pgr_fs_remove_tree(&r.sys, at("tree"), true, &e), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(e.msg, "tree/dirlink"));
	assert_content("outside/precious", "p");
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_ERR);
	ck_assert_int_eq(unlinkat(root_fd, "tree/dirlink", 0), 0);
	make_link("../outside/precious", "tree/filelink");
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ELOOP);
	ck_assert_ptr_null(strstr(r.log, "precious"));
}
END_TEST

/* Makes `depth` directories one inside the other below `top`, each named by n times 'd'. */
static void make_deep(const char *top, int depth, size_t n)
{
	char name[NAME_MAX + 1];
	int fd = openat(root_fd, top, O_RDONLY | O_DIRECTORY);

	memset(name, 'd', n);
	name[n] = '\0';
	for (int i = 0; i < depth; i++) {
		ck_assert_int_eq(mkdirat(fd, name, 0700), 0);

		int next = openat(fd, name, O_RDONLY | O_DIRECTORY);

		ck_assert_int_ge(next, 0);
		close(fd);
		fd = next;
	}
	close(fd);
}

static void shell_remove(const char *path)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", path);
	ck_assert_int_eq(system(command), 0);
}

START_TEST(deep_trees)
{
	struct pgr_err e;

	make("deep");
	make_deep("deep", 400, 1);
	ck_assert_int_eq(pgr_fs_sync_tree(pgr_sys_real(), at("deep"), false, &e), PGR_OK);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e), PGR_OK);
	ck_assert(!exists("deep"));
}
END_TEST

START_TEST(trees_deeper_than_a_path)
{
	struct pgr_err e;
	int fds = count_fds();

	make("deep");
	put("deep/file", "x");
	make_deep("deep", 20, 250);
	ck_assert_int_eq(pgr_fs_sync_tree(pgr_sys_real(), at("deep"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
	ck_assert(!exists("deep/file"));
	ck_assert_int_eq(count_fds(), fds);
	shell_remove(at("deep"));
}
END_TEST

START_TEST(trees_deeper_than_our_descriptors)
{
	struct rlimit before, few;
	struct pgr_err e;
	int fds = count_fds();

	make("deep");
	make_deep("deep", 200, 1);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = 100;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);

	int rc = pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e);

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EMFILE);
	ck_assert_int_eq(count_fds(), fds);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e), PGR_OK);
}
END_TEST

/* Where in the log something is; it must be there. */
static size_t place(const struct recorder *r, const char *what)
{
	const char *p = strstr(r->log, what);

	ck_assert_msg(p != NULL, "%s is missing in: %s", what, r->log);
	return (size_t)(p - r->log);
}

START_TEST(trees_are_synced_bottom_up)
{
	struct recorder r;
	struct pgr_err e;

	make_tree();
	recorder_init(&r);
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_OK);
	ck_assert_uint_lt(place(&r, "fsync(f3)"), place(&r, "fsync(sub)"));
	ck_assert_uint_lt(place(&r, "fsync(empty)"), place(&r, "fsync(sub)"));
	ck_assert_uint_lt(place(&r, "fsync(sub)"), place(&r, "fsync(tree)"));
	ck_assert_uint_lt(place(&r, "fsync(f1)"), place(&r, "fsync(tree)"));
	ck_assert_uint_lt(place(&r, "fsync(.f2)"), place(&r, "fsync(tree)"));
	ck_assert_ptr_null(strstr(r.log, "precious"));
	ck_assert_ptr_null(strstr(r.log, "outside"));
	ck_assert_ptr_null(strstr(r.log, "fifo"));

	recorder_init(&r);
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), false, &e), PGR_OK);
	ck_assert_str_eq(r.log, "fsync(empty) fsync(sub) fsync(tree) ");
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("missing"), false, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOENT);
}
END_TEST

static int run_sync(const struct pgr_sys *sys, struct pgr_err *err)
{
	return pgr_fs_sync_tree(sys, at("tree"), true, err);
}

/* After a failure only what is open is closed. */
static void stopped_at_once(const struct pgr_fault_sys *f, int rc)
{
	if (rc == PGR_ERR)
		ck_assert_uint_le(f->calls - f->fail_at, 3);
}

START_TEST(syncing_stops_at_the_first_failure)
{
	struct scenario s = {.prepare = make_tree,
			     .run = run_sync,
			     .verify = stopped_at_once,
			     .object = "tree",
			     .cleanup = drop_tree};

	every_fault(&s, EIO);
	every_fault(&s, EINTR);
}
END_TEST

static bool opened_below(const struct pgr_fault_sys *f)
{
	return strcmp(f->failed_call, "openat") == 0 && f->fail_at > 1;
}

/* A WAL segment that was renamed since it was listed. */
START_TEST(syncing_what_has_gone)
{
	struct scenario s = {.prepare = make_tree,
			     .run = run_sync,
			     .object = "tree",
			     .forgiven = opened_below,
			     .cleanup = drop_tree};

	every_fault(&s, ENOENT);
}
END_TEST

START_TEST(parents_are_synced)
{
	static const struct {
		const char *path, *log;
	} known[] = {
		{"sub/x", "fsync(sub) close(sub) "}, {"sub//x//", "fsync(sub) close(sub) "},
		{"sub", "fsync(ROOT) close(ROOT) "}, {"sub/", "fsync(ROOT) close(ROOT) "},
		{"sub/.", "fsync(sub) close(sub) "},
	};
	struct recorder r;
	struct pgr_err e;
	int cwd = open(".", O_RDONLY | O_DIRECTORY);

	make("sub");
	ck_assert_int_eq(fchdir(root_fd), 0);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		for (int absolute = 0; absolute < 2; absolute++) {
			recorder_init(&r);
			ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, absolute ? at(known[i].path) : known[i].path, &e),
					 PGR_OK);
			ck_assert_str_eq(r.log, known[i].log);
		}
	}
	ck_assert_int_eq(fchdir(cwd), 0);
	close(cwd);
	recorder_init(&r);
	ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, "/x", &e), PGR_OK);
	ck_assert_str_eq(r.log, "fsync(/) close(/) ");
	recorder_init(&r);
	ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, "//", &e), PGR_OK);
	ck_assert_str_eq(r.log, "fsync(/) close(/) ");
}
END_TEST

static int run_sync_parent(const struct pgr_sys *sys, struct pgr_err *err)
{
	return pgr_fs_sync_parent(sys, at("anything"), err);
}

static bool open_failed(const struct pgr_fault_sys *f)
{
	return strcmp(f->failed_call, "openat") == 0;
}

START_TEST(parents_with_failures)
{
	struct scenario s = {.run = run_sync_parent, .object = root};
	struct pgr_err e;
	char name[PATH_MAX + 1];

	ck_assert_uint_eq(every_fault(&s, EIO), 3);
	every_fault(&s, EINTR);
	s.forgiven = open_failed; /* a parent we may not read */
	every_fault(&s, EACCES);
	ck_assert_int_eq(pgr_fs_sync_parent(pgr_sys_real(), at("missing/x"), &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOENT);
	memset(name, 'n', PATH_MAX);
	name[PATH_MAX] = '\0';
	ck_assert_int_eq(pgr_fs_sync_parent(pgr_sys_real(), name, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
}
END_TEST

START_TEST(directories_are_opened)
{
	struct pgr_err e;
	int fd;

	make("d");
	put("f", "");
	make_link("d", "link");
	ck_assert_int_eq(pgr_fs_open_dir(pgr_sys_real(), at("link"), &fd, &e), PGR_OK);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	close(fd);
	ck_assert_int_eq(pgr_fs_open_dir(pgr_sys_real(), at("f"), &fd, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENOTDIR);
	ck_assert_int_eq(fd, -1);
}
END_TEST

static TCase *names_and_files(void)
{
	TCase *tc = tcase_create("names and files");

	tcase_add_checked_fixture(tc, make_root, drop_root);
	tcase_add_test(tc, safe_names);
	tcase_add_test(tc, canonical_names);
	tcase_add_test(tc, parent_is_found);
	tcase_add_test(tc, parent_may_be_the_root_itself);
	tcase_add_test(tc, parents_that_are_refused);
	tcase_add_test(tc, parent_with_failures);
	tcase_add_test(tc, all_is_written);
	tcase_add_test(tc, a_write_of_nothing_is_a_full_disk);
	tcase_add_test(tc, file_is_replaced_or_left_alone);
	tcase_add_test(tc, file_is_synced_closed_renamed_and_its_directory_synced);
	tcase_add_test(tc, short_writes_do_not_matter);
	tcase_add_test(tc, leftovers_are_not_trusted);
	tcase_add_test(tc, rename_onto_a_directory_fails_cleanly);
	tcase_add_test(tc, names_too_long_for_a_suffix);
	tcase_add_test(tc, working_directory_is_synced_too);
	tcase_add_test(tc, directories_that_cannot_be_synced);
	tcase_add_test(tc, files_that_cannot_be_synced);
	tcase_add_test(tc, durable_rename_with_failures);
	tcase_add_test(tc, durable_rename_in_order);
	tcase_add_test(tc, whole_files);
	tcase_add_test(tc, files_beyond_the_limit);
	tcase_add_test(tc, large_files_in_any_pieces);
	tcase_add_test(tc, what_is_no_file);
	tcase_add_test(tc, reading_with_failures);
	return tc;
}

static TCase *directories_and_trees(void)
{
	TCase *tc = tcase_create("directories and trees");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, make_root, drop_root);
	tcase_add_test(tc, directories_are_made);
	tcase_add_test(tc, directories_that_cannot_be_made);
	tcase_add_test(tc, making_directories_with_failures);
	tcase_add_test(tc, states_of_directories);
	tcase_add_test(tc, states_with_failures);
	tcase_add_test(tc, trees_are_removed_and_links_not_followed);
	tcase_add_test(tc, removing_goes_on_after_failures);
	tcase_add_test(tc, removing_what_has_gone);
	tcase_add_test(tc, trees_without_types);
	tcase_add_test(tc, links_that_were_swapped_in_are_not_followed);
	tcase_add_test(tc, deep_trees);
	tcase_add_test(tc, trees_deeper_than_a_path);
	tcase_add_test(tc, trees_deeper_than_our_descriptors);
	tcase_add_test(tc, trees_are_synced_bottom_up);
	tcase_add_test(tc, syncing_stops_at_the_first_failure);
	tcase_add_test(tc, syncing_what_has_gone);
	tcase_add_test(tc, parents_are_synced);
	tcase_add_test(tc, parents_with_failures);
	tcase_add_test(tc, directories_are_opened);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("common/fs");

	suite_add_tcase(s, names_and_files());
	suite_add_tcase(s, directories_and_trees());

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
