#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_durable.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"
#include "tests/support/fstest.h"

/* ---- whole files ---- */

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
	ck_assert_int_eq(pgr_fs_sync_parent(&r.sys, root, &e), PGR_OK);

	/* A descriptor that is none is our mistake, and nothing was synced. */
	r.fstat_errno = EBADF;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EBADF);
	r.fstat_errno = 0;

	r.dir_fsync_errno = EIO;
	ck_assert_int_eq(write_label(&r.sys, true, &e), PGR_ERR);
	ck_assert_int_eq(e.sys_errno, EIO);
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
		assert_content("label", "old");
	}
}
END_TEST

/* ---- renames ---- */

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

/* ---- entries ---- */

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

int main(void)
{
	Suite *s = suite_create("common/fs_durable");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, make_root, drop_root);
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
	tcase_add_test(tc, parents_are_synced);
	tcase_add_test(tc, parents_with_failures);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
