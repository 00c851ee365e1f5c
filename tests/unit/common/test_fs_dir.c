#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_dir.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"
#include "tests/support/fstest.h"

/* ---- opening ---- */

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
	int fd;
	unsigned fds = tmp_open_fds();

	ck_assert_msg(pgr_fs_open_parent(pgr_sys_real(), root_fd, path, &fd, &leaf, &e) == PGR_ERR, "\"%s\"", path);
	ck_assert_int_eq(e.cls, cls);
	ck_assert_int_eq(e.sys_errno, errnum);
	ck_assert_int_eq(fd, -1);
	ck_assert_uint_eq(tmp_open_fds(), fds);
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

/* ---- making ---- */

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

/* ---- what is there ---- */

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

int main(void)
{
	Suite *s = suite_create("common/fs_dir");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, make_root, drop_root);
	tcase_add_test(tc, directories_are_opened);
	tcase_add_test(tc, parent_is_found);
	tcase_add_test(tc, parent_may_be_the_root_itself);
	tcase_add_test(tc, parents_that_are_refused);
	tcase_add_test(tc, parent_with_failures);
	tcase_add_test(tc, directories_are_made);
	tcase_add_test(tc, directories_that_cannot_be_made);
	tcase_add_test(tc, making_directories_with_failures);
	tcase_add_test(tc, states_of_directories);
	tcase_add_test(tc, states_with_failures);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
