/* filelist.c: what a server claims to have, in the order in which it is copied. */
#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"

#define V10 100023
#define V15 150020
#define V17 170010

static struct pgr_err err;

static void add_one(struct pgr_filelist *l, int version, const char *path, bool is_dir, uint64_t size)
{
	ck_assert_msg(pgr_filelist_add(l, version, path, strlen(path), is_dir, size, 1000, &err) == PGR_OK, "%s",
		      err.msg);
}

/* "base/" is a directory, "base/1" a file of 10 bytes. */
static void fill(struct pgr_filelist *l, int version, const char *const *paths)
{
	memset(l, 0, sizeof(*l));
	for (; *paths != NULL; paths++) {
		char path[PATH_MAX];
		size_t n = strlen(*paths);
		bool is_dir = (*paths)[n - 1] == '/';

		snprintf(path, sizeof(path), "%.*s", (int)(n - is_dir), *paths);
		add_one(l, version, path, is_dir, is_dir ? 4096 : 10);
	}
}

static void check_list(const struct pgr_filelist *l, const char *const *paths)
{
	size_t n = 0, files = 0;

	for (; paths[n] != NULL; n++) {
		ck_assert_msg(n < l->n, "\"%s\" is missing at the end", paths[n]);
		ck_assert_str_eq(l->entries[n].path, paths[n]);
		files += !l->entries[n].is_dir;
	}
	ck_assert_uint_eq(l->n, n);
	ck_assert_uint_eq(l->total_bytes, 10 * files);
}

#define FILL(l, version, ...) fill(l, version, (const char *const[]){__VA_ARGS__, NULL})
#define CHECK_LIST(l, ...)    check_list(l, (const char *const[]){__VA_ARGS__, NULL})

static void finish(struct pgr_filelist *l)
{
	ck_assert_msg(pgr_filelist_finish(l, &err) == PGR_OK, "%s", err.msg);
}

START_TEST(test_empty)
{
	struct pgr_filelist l = {0};

	finish(&l);
	ck_assert_uint_eq(l.n, 0);
	ck_assert(!l.has_control);
	ck_assert_ptr_null(pgr_filelist_find(&l, "base"));
	pgr_filelist_leave_empty(&l, "base");
	pgr_filelist_fini(&l);
	pgr_filelist_fini(&l);
}
END_TEST

/* Directories before their content, although '-' and '.' sort before '/'. */
START_TEST(test_order)
{
	struct pgr_filelist l;

	FILL(&l, V15, "base/1/2", "base/1.x", "base/1-x", "base/1/", "base/", "PG_VERSION", "base/1/1", "global/",
	     "global/pg_control", "global/1");
	finish(&l);
	CHECK_LIST(&l, "PG_VERSION", "base", "base/1", "base/1-x", "base/1.x", "base/1/1", "base/1/2", "global",
		   "global/1");
	ck_assert(l.has_control);
	ck_assert(pgr_filelist_find(&l, "base/1")->is_dir);
	ck_assert(!pgr_filelist_find(&l, "base/1/2")->is_dir);
	ck_assert_uint_eq(pgr_filelist_find(&l, "base/1/2")->size, 10);
	ck_assert_int_eq(pgr_filelist_find(&l, "base/1/2")->mtime, 1000);
	ck_assert_uint_eq(pgr_filelist_find(&l, "base/1")->size, 0);
	ck_assert_ptr_null(pgr_filelist_find(&l, "base/1/"));
	ck_assert_ptr_null(pgr_filelist_find(&l, "global/pg_control"));
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_exclusions_are_applied)
{
	struct pgr_filelist l;

	FILL(&l, V15, "pg_wal/", "pg_wal/000000010000000000000001", "pg_wal/archive_status/",
	     "pg_wal/archive_status/x.done", "base/", "base/pgsql_tmp/", "base/pgsql_tmp/pgsql_tmp1.0",
	     "postmaster.pid", "backup_label", "pg_replslot/", "pg_replslot/s/", "pg_replslot/s/state", "log/",
	     "log/a.log");
	finish(&l);
	CHECK_LIST(&l, "base", "log", "log/a.log", "pg_replslot", "pg_wal");
	ck_assert(!l.has_control);
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_a_directory_is_no_control_file)
{
	struct pgr_filelist l;

	FILL(&l, V15, "global/", "global/pg_control/");
	finish(&l);
	ck_assert(!l.has_control);
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_unlogged_relations)
{
	struct pgr_filelist l;

	FILL(&l, V15, "base/", "base/5/", "base/5/100", "base/5/100.1", "base/5/100_fsm", "base/5/100_vm",
	     "base/5/100_init", "base/5/1001", "base/5/10", "base/6/", "base/6/100", "log/", "log/100", "log/100_init",
	     "pg_tblspc/", "pg_tblspc/9/", "pg_tblspc/9/PG_15_202209061/", "pg_tblspc/9/PG_15_202209061/5/",
	     "pg_tblspc/9/PG_15_202209061/5/7", "pg_tblspc/9/PG_15_202209061/5/7_init");
	finish(&l);
	CHECK_LIST(&l, "base", "base/5", "base/5/10", "base/5/1001", "base/5/100_init", "base/6", "base/6/100", "log",
		   "log/100", "log/100_init", "pg_tblspc", "pg_tblspc/9", "pg_tblspc/9/PG_15_202209061",
		   "pg_tblspc/9/PG_15_202209061/5", "pg_tblspc/9/PG_15_202209061/5/7_init");
	pgr_filelist_fini(&l);
}
END_TEST

/* The list judges by the version of the server whose files they are. */
START_TEST(test_unlogged_by_version)
{
	struct pgr_filelist l;

	FILL(&l, V10, "base/", "base/5/", "base/5/100", "base/5/100_init");
	finish(&l);
	CHECK_LIST(&l, "base", "base/5", "base/5/100", "base/5/100_init");
	pgr_filelist_fini(&l);
	FILL(&l, V17, "global/", "global/100", "global/100_init");
	finish(&l);
	CHECK_LIST(&l, "global", "global/100_init");
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_twins)
{
	struct pgr_filelist l;

	FILL(&l, V15, "base/", "base/5/", "base/5/1", "base/5/", "base/5/1", "base/5/1", "base/");
	finish(&l);
	CHECK_LIST(&l, "base", "base/5", "base/5/1");
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_orphans)
{
	static const char *const cases[][4] = {
		{"base/1"},	{"a/", "a/b/c"},      {"a/", "a/b", "a/b/c"},
		{"a/", "a-/c"}, {"a/", "a/1", "b/1"}, {"a-b/", "a-b/1", "a/1"},
	};
	struct pgr_filelist l;

	fill(&l, V15, cases[_i]);
	ck_assert_int_eq(pgr_filelist_finish(&l, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, "no directory") != NULL, "%s", err.msg);
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_leave_empty)
{
	struct pgr_filelist l;

	FILL(&l, V15, "ts/", "ts/PG_15_1/", "ts/PG_15_1/5/", "ts/PG_15_1/5/1", "ts-/", "ts-/1", "ts.1", "tsx/", "tsx/1",
	     "a/", "a/ts/", "a/ts/1");
	finish(&l);
	pgr_filelist_leave_empty(&l, "ts");
	CHECK_LIST(&l, "a", "a/ts", "a/ts/1", "ts", "ts-", "ts-/1", "ts.1", "tsx", "tsx/1");
	pgr_filelist_leave_empty(&l, "nothing");
	ck_assert_uint_eq(l.n, 9);
	pgr_filelist_fini(&l);
}
END_TEST

static const struct {
	const char *path;
	size_t len;
	const char *shown;
} unsafe[] = {
	{"", 0, "\"\""},
	{"/etc/passwd", 11, "/etc/passwd"},
	{"..", 2, ".."},
	{"a/../b", 6, "a/../b"},
	{"a//b", 4, "a//b"},
	{"./a", 3, "./a"},
	{"a/", 2, "a/"},
	{"a\0b", 3, "a\\x00b"},
	{"\x1b[2J/..", 7, "\\x1B[2J/.."},
};

START_TEST(test_unsafe_names)
{
	struct pgr_filelist l = {0};

	ck_assert_int_eq(pgr_filelist_add(&l, V15, unsafe[_i].path, unsafe[_i].len, false, 1, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, unsafe[_i].shown) != NULL, "%s", err.msg);
	ck_assert_uint_eq(l.n, 0);
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_long_names)
{
	struct pgr_filelist l = {0};
	char *path = malloc(PATH_MAX + 1);

	memset(path, 'x', PATH_MAX + 1);
	ck_assert_int_eq(pgr_filelist_add(&l, V15, path, PATH_MAX, false, 1, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_int_eq(pgr_filelist_add(&l, V15, path, PATH_MAX - 1, false, 1, 1, &err), PGR_OK);
	/* the name is not NUL-terminated where it comes from */
	ck_assert_uint_eq(strlen(l.entries[0].path), PATH_MAX - 1);
	finish(&l);
	pgr_filelist_fini(&l);
	free(path);
}
END_TEST

START_TEST(test_sizes)
{
	struct pgr_filelist l = {0};

	ck_assert_int_eq(pgr_filelist_add(&l, V15, "a", 1, false, UINT64_MAX, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	add_one(&l, V15, "b", false, INT64_MAX);
	ck_assert_int_eq(pgr_filelist_add(&l, V15, "c", 1, false, 1, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, "\"c\"") != NULL, "%s", err.msg);
	add_one(&l, V15, "d", true, UINT64_MAX); /* nobody reads a directory's */
	ck_assert_uint_eq(l.total_bytes, INT64_MAX);
	pgr_filelist_fini(&l);
}
END_TEST

START_TEST(test_many)
{
	struct pgr_filelist l = {0};
	char path[64];

	add_one(&l, V15, "base", true, 0);
	add_one(&l, V15, "base/5", true, 0);
	for (unsigned i = 20000; i > 0; i--) {
		snprintf(path, sizeof(path), "base/5/%u", i);
		add_one(&l, V15, path, false, 8192);
	}
	finish(&l);
	ck_assert_uint_eq(l.n, 20002);
	ck_assert_uint_eq(l.total_bytes, 20000ull * 8192);
	for (size_t i = 1; i < l.n; i++)
		ck_assert_int_lt(strcmp(l.entries[i - 1].path, l.entries[i].path), 0);
	pgr_filelist_fini(&l);
}
END_TEST

/* ---- names in messages ---- */

static const struct {
	const char *name;
	const char *shown;
} shown[] = {
	{"base/5/1", "base/5/1"},
	{"", ""},
	{"a\nb\x7f", "a\\x0Ab\\x7F"},
	{"\xc3\xa4 \xe6\x97\xa5 \xf0\x9f\x90\x98", "\xc3\xa4 \xe6\x97\xa5 \xf0\x9f\x90\x98"},
	{"\xc2\xa0\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
	 "\xc2\xa0\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"}, /* first and last ones */
	{"\xed\xbf\xbf", "\\xED\\xBF\\xBF"},
	{"\xc2", "\\xC2"},
	{"\xc1\xbf", "\\xC1\\xBF"},
	{"\xf5\x80\x80\x80", "\\xF5\\x80\\x80\\x80"},
	{"\xc2\x9b", "\\xC2\\x9B"},			       /* a control character */
	{"\xc0\xaf", "\\xC0\\xAF"},			       /* not the shortest form */
	{"\xe0\x80\xaf", "\\xE0\\x80\\xAF"},		       /* likewise */
	{"\xf0\x80\x80\xaf", "\\xF0\\x80\\x80\\xAF"},	       /* likewise */
	{"\xed\xa0\x80", "\\xED\\xA0\\x80"},		       /* half of a pair */
	{"\xf4\x90\x80\x80", "\\xF4\\x90\\x80\\x80"},	       /* beyond the last */
	{"\xf8\x88\x80\x80\x80", "\\xF8\\x88\\x80\\x80\\x80"}, /* of five bytes */
	{"x\xe2\x82", "x\\xE2\\x82"},			       /* cut off */
	{"\xe2\x28\xa1", "\\xE2(\\xA1"},		       /* no continuation */
	{"\x80", "\\x80"},
};

START_TEST(test_shown)
{
	ck_assert_str_eq(pgr_show_path(shown[_i].name, strlen(shown[_i].name)).text, shown[_i].shown);
}
END_TEST

START_TEST(test_shown_long)
{
	char name[2000];
	struct pgr_shown_path s;

	for (size_t lead = 0; lead < 4; lead++) {
		memset(name, 'a', lead);
		for (size_t i = lead; i + 1 < sizeof(name); i += 2)
			memcpy(name + i, "\xc3\xa4", 2);
		s = pgr_show_path(name, sizeof(name));
		ck_assert_uint_lt(strlen(s.text), sizeof(s.text));
		ck_assert_uint_gt(strlen(s.text), sizeof(s.text) - 16);
		ck_assert_str_eq(s.text + strlen(s.text) - 5, "\xc3\xa4...");
	}
	memset(name, 1, sizeof(name));
	s = pgr_show_path(name, sizeof(name));
	ck_assert_uint_lt(strlen(s.text), sizeof(s.text));
	ck_assert_str_eq(s.text + strlen(s.text) - 7, "\\x01...");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("filelist");
	TCase *list = tcase_create("list"), *names = tcase_create("names");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(list, test_empty);
	tcase_add_test(list, test_order);
	tcase_add_test(list, test_exclusions_are_applied);
	tcase_add_test(list, test_a_directory_is_no_control_file);
	tcase_add_test(list, test_unlogged_relations);
	tcase_add_test(list, test_unlogged_by_version);
	tcase_add_test(list, test_twins);
	tcase_add_loop_test(list, test_orphans, 0, 6);
	tcase_add_test(list, test_leave_empty);
	tcase_add_loop_test(list, test_unsafe_names, 0, (int)(sizeof(unsafe) / sizeof(unsafe[0])));
	tcase_add_test(list, test_long_names);
	tcase_add_test(list, test_sizes);
	tcase_add_test(list, test_many);
	tcase_add_loop_test(names, test_shown, 0, (int)(sizeof(shown) / sizeof(shown[0])));
	tcase_add_test(names, test_shown_long);
	suite_add_tcase(s, list);
	suite_add_tcase(s, names);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
