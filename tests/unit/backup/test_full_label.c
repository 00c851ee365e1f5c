/* full_label.c: backup_label without what makes it one of an incremental backup. */
#include <check.h>
#include <string.h>

#include "backup/full_label.h"

#define HEAD "START WAL LOCATION: 1A/2000028 (file 00000003000000000000001A)\nCHECKPOINT LOCATION: 1A/2000080\n"
#define TAIL "BACKUP METHOD: streamed\nLABEL: x\n"
#define TLI  "START TIMELINE: 3\n"

static const struct {
	const char *in, *out;
} full[] = {
	{HEAD TAIL TLI, HEAD TAIL TLI},
	{HEAD TAIL TLI "INCREMENTAL FROM LSN: 1A/28\nINCREMENTAL FROM TLI: 2\n", HEAD TAIL TLI},
	{"INCREMENTAL FROM LSN: 1A/28\n" HEAD "INCREMENTAL FROM TLI: 2\n" TLI, HEAD TLI},
	{HEAD "INCREMENTAL FROM TLI: 2", HEAD},
	{HEAD "LABEL: INCREMENTAL FROM LSN: 1\n", HEAD "LABEL: INCREMENTAL FROM LSN: 1\n"},
	{HEAD "INCREMENTAL", HEAD "INCREMENTAL"},
	{"no newline", "no newline"},
	{"\n\nx\n", "\n\nx\n"},
	{"", ""},
};

START_TEST(test_full)
{
	struct pgr_buf b = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_full_label(&b, full[_i].in, strlen(full[_i].in), &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), full[_i].out);
	pgr_buf_fini(&b);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("full_label");
	TCase *t = tcase_create("full_label");

	tcase_add_loop_test(t, test_full, 0, sizeof(full) / sizeof(full[0]));
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
