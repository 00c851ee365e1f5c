#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/history.h"

static int parse(struct pgr_history *h, pgr_tli tli, const char *text, struct pgr_err *err)
{
	return pgr_history_parse(h, tli, text, strlen(text), err);
}

static void check_entry(const struct pgr_history *h, size_t i, pgr_tli tli, pgr_lsn end)
{
	ck_assert_uint_lt(i, h->n);
	ck_assert_uint_eq(h->entries[i].tli, tli);
	ck_assert_uint_eq(h->entries[i].end, end);
}

START_TEST(server_files)
{
	struct pgr_history h;
	struct pgr_err err;

	ck_assert_int_eq(parse(&h, 5,
			       "1\t0/3000148\tno recovery target specified\n"
			       "\n"
			       "2\t0/4000000\tbefore 2024-01-01 10:00:00+00\n"
			       "4\t1A/2B3C4D5E\tat restore point \"x\"\n",
			       &err),
			 PGR_OK);
	ck_assert_uint_eq(h.n, 4);
	check_entry(&h, 0, 1, 0x3000148);
	check_entry(&h, 1, 2, 0x4000000);
	check_entry(&h, 2, 4, UINT64_C(0x1A2B3C4D5E));
	check_entry(&h, 3, 5, PGR_LSN_INVALID);
	pgr_history_fini(&h);
}
END_TEST

/* What the server's reader (sscanf "%u\t%X/%08X") takes besides. */
START_TEST(odd_but_good)
{
	static const char *const texts[] = {
		"1\t0/3000148\treason\n",
		"1\t0/3000148\n",
		"1\t0/3000148",
		"  1 \t 0/3000148  reason\r\n",
		"1\t0/03000148\tx",
		"\n\n1\t0/3000148",
		"# comment\n1 0/3000148\n",
		" \t# 2 0/1\n1 0/3000148 # x",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct pgr_history h;
		struct pgr_err err;

		ck_assert_msg(parse(&h, 2, texts[i], &err) == PGR_OK, "%zu: %s", i, err.msg);
		ck_assert_uint_eq(h.n, 2);
		check_entry(&h, 0, 1, 0x3000148);
		check_entry(&h, 1, 2, PGR_LSN_INVALID);
		pgr_history_fini(&h);
	}
}
END_TEST

START_TEST(no_ancestors)
{
	struct pgr_history h;
	struct pgr_err err;

	ck_assert_int_eq(pgr_history_parse(&h, 7, NULL, 0, &err), PGR_OK);
	ck_assert_uint_eq(h.n, 1);
	check_entry(&h, 0, 7, PGR_LSN_INVALID);
	pgr_history_fini(&h);
}
END_TEST

/* Promoted at a recovery target before the point where its timeline began: real servers write this. */
START_TEST(switch_points_may_go_back)
{
	struct pgr_history h;
	struct pgr_err err;

	ck_assert_int_eq(parse(&h, 3, "1\t0/5000000\tx\n2\t0/4000000\ty\n", &err), PGR_OK);
	check_entry(&h, 1, 2, 0x4000000);
	pgr_history_fini(&h);
}
END_TEST

static const struct bad_case {
	const char *text;
	const char *message;
} bad[] = {
	{"x\t0/3000148\n", "invalid history file of timeline 9, line 1: expected a timeline ID"},
	{"0\t0/3000148\n", "invalid history file of timeline 9, line 1: expected a timeline ID"},
	{"-1\t0/3000148\n", "invalid history file of timeline 9, line 1: expected a timeline ID"},
	{"4294967296\t0/3000148\n", "invalid history file of timeline 9, line 1: expected a timeline ID"},
	{"1", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\n0/3000148\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t\t\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t3000148\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t0/\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t0/123456789\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t0/3000148x\n", "invalid history file of timeline 9, line 1: expected a WAL position"},
	{"1\t0/1\n# c\n1\t0/2\n",
	 "invalid history file of timeline 9, line 3: timeline IDs must be in increasing sequence"},
	{"3\t0/1\n2\t0/2\n", "invalid history file of timeline 9, line 2: timeline IDs must be in increasing sequence"},
	{"9\t0/1\n",
	 "invalid history file of timeline 9, line 1: timeline IDs must be less than the child timeline's ID"},
	{"1\t0/1\n10\t0/1\n",
	 "invalid history file of timeline 9, line 2: timeline IDs must be less than the child timeline's ID"},
};

START_TEST(malformed)
{
	struct pgr_history h;
	struct pgr_err err;

	ck_assert_int_eq(parse(&h, 9, bad[_i].text, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_str_eq(err.msg, bad[_i].message);
	ck_assert_ptr_null(h.entries);
	ck_assert_uint_eq(h.n, 0);
	pgr_history_fini(&h);
}
END_TEST

START_TEST(nul_bytes)
{
	static const char in_lsn[] = "1\t0/3\0000148\n";
	struct pgr_history h;
	struct pgr_err err;

	ck_assert_int_eq(pgr_history_parse(&h, 2, in_lsn, sizeof(in_lsn) - 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
}
END_TEST

START_TEST(finding)
{
	struct pgr_history h;
	struct pgr_err err;
	pgr_lsn end = 1;

	ck_assert_int_eq(parse(&h, 6, "2\t0/10\n4\t0/20\n", &err), PGR_OK);
	ck_assert(pgr_history_find(&h, 2, &end));
	ck_assert_uint_eq(end, 0x10);
	ck_assert(pgr_history_find(&h, 4, &end));
	ck_assert_uint_eq(end, 0x20);
	ck_assert(pgr_history_find(&h, 6, &end));
	ck_assert_uint_eq(end, PGR_LSN_INVALID);
	ck_assert(!pgr_history_find(&h, 1, &end));
	ck_assert(!pgr_history_find(&h, 3, &end));
	ck_assert(!pgr_history_find(&h, 7, &end));
	pgr_history_fini(&h);
	ck_assert(!pgr_history_find(&h, 2, &end));
}
END_TEST

START_TEST(many)
{
	struct pgr_history h;
	struct pgr_err err;
	char *text = malloc(1000 * 32);
	size_t len = 0;

	ck_assert_ptr_nonnull(text);
	for (unsigned i = 1; i <= 1000; i++)
		len += (size_t)sprintf(text + len, "%u\t0/%X\tx\n", i, i * 16);
	ck_assert_int_eq(pgr_history_parse(&h, 1001, text, len, &err), PGR_OK);
	ck_assert_uint_eq(h.n, 1001);
	check_entry(&h, 999, 1000, 16000);
	pgr_history_fini(&h);
	free(text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("history");
	TCase *tc = tcase_create("history");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, server_files);
	tcase_add_test(tc, odd_but_good);
	tcase_add_test(tc, no_ancestors);
	tcase_add_test(tc, switch_points_may_go_back);
	tcase_add_loop_test(tc, malformed, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, nul_bytes);
	tcase_add_test(tc, finding);
	tcase_add_test(tc, many);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
