#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/path.h"

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

int main(void)
{
	Suite *s = suite_create("common/path");
	TCase *tc = tcase_create("all");

	tcase_add_test(tc, safe_names);
	tcase_add_test(tc, canonical_names);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
