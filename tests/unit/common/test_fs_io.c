#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_io.h"
#include "common/sys.h"
#include "tests/support/fault_sys.h"
#include "tests/support/fstest.h"

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

/* ---- reading ---- */

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

int main(void)
{
	Suite *s = suite_create("common/fs_io");
	TCase *tc = tcase_create("all");

	tcase_add_checked_fixture(tc, make_root, drop_root);
	tcase_add_test(tc, all_is_written);
	tcase_add_test(tc, a_write_of_nothing_is_a_full_disk);
	tcase_add_test(tc, whole_files);
	tcase_add_test(tc, files_beyond_the_limit);
	tcase_add_test(tc, large_files_in_any_pieces);
	tcase_add_test(tc, what_is_no_file);
	tcase_add_test(tc, reading_with_failures);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
