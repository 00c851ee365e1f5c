#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_tree.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"
#include "tests/support/fstest.h"

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
	nftw(at("tree"), tmp_remove_one, 20, FTW_DEPTH | FTW_PHYS);
	nftw(at("outside"), tmp_remove_one, 20, FTW_DEPTH | FTW_PHYS);
}

/* ---- removing ---- */

START_TEST(trees_are_removed_and_links_not_followed)
{
	struct pgr_err e;

	make_tree();
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("tree"), false, &e), PGR_OK);
	ck_assert_uint_eq(tmp_entries(at("tree")), 0);
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
	ck_assert_uint_eq(tmp_entries(at("tree")), 0);
}
END_TEST

/* ---- syncing ---- */

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

START_TEST(what_cannot_be_synced)
{
	struct recorder r;
	struct pgr_err e;

	make_tree();
	recorder_init(&r);
	r.dir_fsync_errno = EBADF; /* a file system that has no such thing */
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_OK);
	r.dir_fsync_errno = EIO;
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EIO);
	recorder_init(&r);
	r.file_fsync_errno = EINVAL; /* of a file this is no excuse */
	ck_assert_int_eq(pgr_fs_sync_tree(&r.sys, at("tree"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EINVAL);
}
END_TEST

/* ---- both ---- */

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

/* ---- deep ones ---- */

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
	unsigned fds = tmp_open_fds();

	make("deep");
	put("deep/file", "x");
	make_deep("deep", 20, 250);
	ck_assert_int_eq(pgr_fs_sync_tree(pgr_sys_real(), at("deep"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, ENAMETOOLONG);
	ck_assert(!exists("deep/file"));
	ck_assert_uint_eq(tmp_open_fds(), fds);
	shell_remove(at("deep"));
}
END_TEST

START_TEST(trees_deeper_than_our_descriptors)
{
	struct rlimit before, few;
	struct pgr_err e;
	unsigned fds = tmp_open_fds();

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
	ck_assert_uint_eq(tmp_open_fds(), fds);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), at("deep"), true, &e), PGR_OK);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/fs_tree");
	TCase *tc = tcase_create("all");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, make_root, drop_root);
	tcase_add_test(tc, trees_are_removed_and_links_not_followed);
	tcase_add_test(tc, removing_goes_on_after_failures);
	tcase_add_test(tc, removing_what_has_gone);
	tcase_add_test(tc, trees_are_synced_bottom_up);
	tcase_add_test(tc, syncing_stops_at_the_first_failure);
	tcase_add_test(tc, syncing_what_has_gone);
	tcase_add_test(tc, what_cannot_be_synced);
	tcase_add_test(tc, trees_without_types);
	tcase_add_test(tc, links_that_were_swapped_in_are_not_followed);
	tcase_add_test(tc, deep_trees);
	tcase_add_test(tc, trees_deeper_than_a_path);
	tcase_add_test(tc, trees_deeper_than_our_descriptors);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
