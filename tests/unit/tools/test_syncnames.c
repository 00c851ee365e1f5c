#include <check.h>
#include <stdlib.h>

#include "tools/syncnames.h"

static const struct {
	const char *setting, *name;
	bool has;
} cases[] = {
	{"", "sink", false},
	{"sink", "sink", true},
	{"SINK", "sink", true},
	{"other", "sink", false},
	{"a, sink", "sink", true},
	{"a,sink,b", "sink", true},
	{"sink2", "sink", false},
	{"*", "sink", true},
	{"\"*\"", "sink", false},
	{"FIRST 1 (a, sink)", "sink", true},
	{"first 2(sink,a)", "sink", true},
	{"ANY 1 (a, b)", "sink", false},
	{"ANY 1 (*)", "sink", true},
	{"1 (sink)", "sink", true},
	{"any 1 (first)", "any", false},
	{"first 1 (sink)", "first", false},
	{"first", "first", true}, /* a list of one name */
	{"any, first", "first", true},
	{"\"my sink\", b", "my sink", true},
	{"\"a \"\"b\"\"\"", "a \"b\"", true},
	{"\"a,sink\"", "sink", false},
	{"\"open", "open", true},
	{"\"(\", sink", "sink", true},
	{"(((", "sink", false},
	{",,,", "sink", false},
	{"  sink  ", "sink", true},
	{"\"\"", "sink", false},
};

START_TEST(names)
{
	ck_assert_msg(pgr_syncnames_has(cases[_i].setting, cases[_i].name) == cases[_i].has, "%s in %s", cases[_i].name,
		      cases[_i].setting);
}
END_TEST

START_TEST(long_name)
{
	char setting[300];

	memset(setting, 'x', sizeof(setting));
	setting[sizeof(setting) - 1] = '\0';
	ck_assert(!pgr_syncnames_has(setting, "sink"));
	setting[63] = '\0';
	ck_assert(pgr_syncnames_has(setting, setting));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("syncnames");
	TCase *t = tcase_create("syncnames");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(t, names, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_test(t, long_name);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
