#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/lsn.h"

#define MB (1024u * 1024u)

static bool parse(const char *s, pgr_lsn *lsn)
{
	*lsn = 77;
	return pgr_lsn_parse(s, strlen(s), lsn);
}

START_TEST(lsns)
{
	pgr_lsn lsn;

	ck_assert(parse("0/0", &lsn) && lsn == 0);
	ck_assert(parse("16/B374D848", &lsn) && lsn == UINT64_C(0x16B374D848));
	ck_assert(parse("1a/2b3c4d5e", &lsn) && lsn == UINT64_C(0x1A2B3C4D5E));
	ck_assert(parse("FFFFFFFF/FFFFFFFF", &lsn) && lsn == UINT64_MAX);
	ck_assert(parse("00000001/00000002", &lsn) && lsn == UINT64_C(0x100000002));
}
END_TEST

START_TEST(what_is_no_lsn)
{
	static const char *const bad[] = {"",	 "/",	"0",	"0/",	"/0",	 "0/0/0", "000000001/0", "0/000000001",
					  "g/0", "0/g", " 0/0", "0/0 ", "0x1/0", "-1/0",  "0//0"};
	pgr_lsn lsn;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!parse(bad[i], &lsn), "\"%s\" was taken for an LSN", bad[i]);
	ck_assert_uint_eq(lsn, 77);
	ck_assert(!pgr_lsn_parse(NULL, 0, &lsn));
	ck_assert(!pgr_lsn_parse("0/0", 2, &lsn));
	ck_assert(!pgr_lsn_parse("0/0", 4, &lsn));
	ck_assert(!pgr_lsn_parse("0/10", 1, &lsn));
}
END_TEST

START_TEST(lsns_print_as_they_parse)
{
	char text[32];
	pgr_lsn lsn = UINT64_C(0x1A0B3C4D5E), again;

	snprintf(text, sizeof(text), "%" PGR_LSN_FMT, PGR_LSN_ARG(lsn));
	ck_assert_str_eq(text, "1A/B3C4D5E");
	ck_assert(parse(text, &again) && again == lsn);
}
END_TEST

START_TEST(segment_sizes)
{
	for (uint64_t n = PGR_WALSEG_MIN; n <= PGR_WALSEG_MAX; n *= 2) {
		ck_assert(pgr_walseg_valid(n));
		ck_assert(!pgr_walseg_valid(n + 1));
		ck_assert(!pgr_walseg_valid(n - 1));
	}
	ck_assert(!pgr_walseg_valid(0));
	ck_assert(!pgr_walseg_valid(PGR_WALSEG_MIN / 2));
	ck_assert(!pgr_walseg_valid((uint64_t)PGR_WALSEG_MAX * 2));
	ck_assert(!pgr_walseg_valid(3 * (uint64_t)MB));
	ck_assert(!pgr_walseg_valid(UINT64_C(1) << 32 | 16 * MB));
}
END_TEST

START_TEST(segment_arithmetic)
{
	pgr_lsn lsn = UINT64_C(0x2A3123456);

	ck_assert_uint_eq(pgr_lsn_segno(lsn, 16 * MB), 0x2A3);
	ck_assert_uint_eq(pgr_lsn_segoff(lsn, 16 * MB), 0x123456);
	ck_assert_uint_eq(pgr_lsn_segstart(lsn, 16 * MB), UINT64_C(0x2A3000000));
	ck_assert_uint_eq(pgr_segno_start(0x2A3, 16 * MB), UINT64_C(0x2A3000000));
}
END_TEST

/* Names as pg_walfile_name() of a server gives them. */
START_TEST(names)
{
	static const struct {
		pgr_tli tli;
		pgr_segno seg;
		uint32_t size;
		const char *name;
	} known[] = {
		{1, 0, 16 * MB, "000000010000000000000000"},
		{1, 1, 16 * MB, "000000010000000000000001"},
		{1, 255, 16 * MB, "0000000100000000000000FF"},
		{1, 256, 16 * MB, "000000010000000100000000"},
		{0xAB, 0x123456, 16 * MB, "000000AB0000123400000056"},
		{2, 4095, MB, "000000020000000000000FFF"},
		{2, 4096, MB, "000000020000000100000000"},
		{3, 7, 1024 * MB, "000000030000000100000003"},
		{UINT32_MAX, (UINT64_C(1) << 40) - 1, 16 * MB, "FFFFFFFFFFFFFFFF000000FF"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char name[PGR_WALNAME_LEN + 1];
		pgr_tli tli;
		pgr_segno seg;

		pgr_walname_format(name, known[i].tli, known[i].seg, known[i].size);
		ck_assert_str_eq(name, known[i].name);
		ck_assert(pgr_walname_parse(name, known[i].size, &tli, &seg));
		ck_assert_uint_eq(tli, known[i].tli);
		ck_assert_uint_eq(seg, known[i].seg);
	}
}
END_TEST

START_TEST(what_is_no_name)
{
	static const char *const bad[] = {
		"",
		"00000001",
		"00000001000000000000000", /* one short */
		"00000001000000000000000g",
		"0000000100000000000000fF", /* lower case is not ours */
		"000000000000000000000001", /* timeline 0 */
		"000000010000000000000100", /* beyond 4 GiB with 16 MB segments */
		"00000001 0000000000000001",
		"00000002.history",
		"0x0000010000000000000001",
		"archive_status",
	};
	pgr_tli tli = 77;
	pgr_segno seg = 77;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!pgr_walname_parse(bad[i], 16 * MB, &tli, &seg), "\"%s\" was taken", bad[i]);
	ck_assert(!pgr_walname_parse("000000010000000000000001", 0, &tli, &seg));
	ck_assert(!pgr_walname_parse("000000010000000000000001", 16 * MB + 1, &tli, &seg));
	ck_assert_uint_eq(tli, 77);
	ck_assert_uint_eq(seg, 77);
}
END_TEST

START_TEST(what_follows_a_name_is_not_looked_at)
{
	pgr_tli tli;
	pgr_segno seg;

	ck_assert(pgr_walname_parse("000000010000000000000003.partial", 16 * MB, &tli, &seg));
	ck_assert_uint_eq(seg, 3);
	ck_assert(pgr_walname_parse("0000000100000000000000031", 16 * MB, &tli, &seg));
}
END_TEST

START_TEST(segment_numbers_beyond_all_lsns_stay_inside_the_buffer)
{
	char name[PGR_WALNAME_LEN + 2];

	name[PGR_WALNAME_LEN + 1] = 'x';
	pgr_walname_format(name, UINT32_MAX, UINT64_MAX, 1024 * MB);
	ck_assert_uint_eq(strlen(name), PGR_WALNAME_LEN);
	ck_assert_int_eq(name[PGR_WALNAME_LEN + 1], 'x');
}
END_TEST

START_TEST(history_names)
{
	char name[17];

	pgr_historyname_format(name, 0x2F);
	ck_assert_str_eq(name, "0000002F.history");
	pgr_historyname_format(name, UINT32_MAX);
	ck_assert_str_eq(name, "FFFFFFFF.history");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/lsn");
	TCase *tc = tcase_create("lsn");

	tcase_add_test(tc, lsns);
	tcase_add_test(tc, what_is_no_lsn);
	tcase_add_test(tc, lsns_print_as_they_parse);
	tcase_add_test(tc, segment_sizes);
	tcase_add_test(tc, segment_arithmetic);
	tcase_add_test(tc, names);
	tcase_add_test(tc, what_is_no_name);
	tcase_add_test(tc, what_follows_a_name_is_not_looked_at);
	tcase_add_test(tc, segment_numbers_beyond_all_lsns_stay_inside_the_buffer);
	tcase_add_test(tc, history_names);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
