#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"

#define UNTOUCHED 77

static bool u64(const char *s, uint64_t *v)
{
	*v = UNTOUCHED;
	return pgr_num_u64(s, strlen(s), v);
}

static bool i64(const char *s, int64_t *v)
{
	*v = UNTOUCHED;
	return pgr_num_i64(s, strlen(s), v);
}

static bool u32(const char *s, uint32_t *v)
{
	*v = UNTOUCHED;
	return pgr_num_u32(s, strlen(s), v);
}

static bool hex(const char *s, uint64_t *v)
{
	*v = UNTOUCHED;
	return pgr_num_hex64(s, strlen(s), v);
}

START_TEST(unsigned_numbers)
{
	uint64_t v;

	ck_assert(u64("0", &v) && v == 0);
	ck_assert(u64("00000000000000000000000000000007", &v) && v == 7);
	ck_assert(u64("18446744073709551615", &v) && v == UINT64_MAX);
	ck_assert(!u64("18446744073709551616", &v));
	ck_assert(!u64("18446744073709551620", &v));
	ck_assert(!u64("99999999999999999999", &v));
	ck_assert(!u64("100000000000000000000", &v));
	ck_assert_uint_eq(v, UNTOUCHED);
}
END_TEST

START_TEST(unsigned_32_bit_numbers)
{
	uint32_t v;

	ck_assert(u32("4294967295", &v) && v == UINT32_MAX);
	ck_assert(u32("0", &v) && v == 0);
	ck_assert(!u32("4294967296", &v));
	ck_assert(!u32("18446744073709551616", &v));
	ck_assert(!u32("-1", &v));
	ck_assert(!u32("", &v));
	ck_assert_uint_eq(v, UNTOUCHED);
}
END_TEST

START_TEST(signed_numbers)
{
	int64_t v;

	ck_assert(i64("0", &v) && v == 0);
	ck_assert(i64("-0", &v) && v == 0);
	ck_assert(i64("-1", &v) && v == -1);
	ck_assert(i64("9223372036854775807", &v) && v == INT64_MAX);
	ck_assert(i64("-9223372036854775808", &v) && v == INT64_MIN);
	ck_assert(i64("-9223372036854775807", &v) && v == INT64_MIN + 1);
	ck_assert(!i64("9223372036854775808", &v));
	ck_assert(!i64("-9223372036854775809", &v));
	ck_assert(!i64("-", &v));
	ck_assert(!i64("--1", &v));
	ck_assert(!i64("+1", &v));
	ck_assert(!i64("", &v));
	ck_assert(!pgr_num_i64(NULL, 0, &v));
	ck_assert_int_eq(v, UNTOUCHED);
}
END_TEST

START_TEST(what_is_no_number)
{
	static const char *const bad[] = {"",	  " 1",	   "1 ",       "+1",  "-1", "1.0", "1e3",
					  "0x10", "1,000", "\xD9\xA1", "12a", "/",  ":"};
	uint64_t v;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!u64(bad[i], &v), "\"%s\" was taken for a number", bad[i]);
	ck_assert(!pgr_num_u64("1\0"
			       "2",
			       3, &v));
	ck_assert(!pgr_num_u64(NULL, 0, &v));
}
END_TEST

START_TEST(length_counts_not_the_nul)
{
	uint64_t v;
	char s[3] = {'1', '2', '3'}; /* no NUL: reading on is an error that ASan sees */

	ck_assert(pgr_num_u64(s, 3, &v) && v == 123);
	ck_assert(pgr_num_u64(s, 2, &v) && v == 12);
	ck_assert(pgr_num_hex64(s, 3, &v) && v == 0x123);
}
END_TEST

START_TEST(hex_numbers)
{
	uint64_t v;

	ck_assert(hex("0", &v) && v == 0);
	ck_assert(hex("dEadBeeF", &v) && v == 0xDEADBEEF);
	ck_assert(hex("ffffffffffffffff", &v) && v == UINT64_MAX);
	ck_assert(hex("0123456789ABCDEF", &v) && v == UINT64_C(0x0123456789ABCDEF));
	ck_assert(!hex("00000000000000001", &v));
	ck_assert(!hex("", &v));
	ck_assert(!hex("0x1", &v));
	ck_assert(!hex("g", &v));
	ck_assert(!hex("G", &v));
	ck_assert(!hex("@", &v));
	ck_assert(!hex("`", &v));
	ck_assert(!hex("1 ", &v));
	ck_assert(!hex("-1", &v));
	ck_assert_uint_eq(v, UNTOUCHED);
}
END_TEST

START_TEST(numbers_for_a_person)
{
	ck_assert_str_eq(pgr_num_grouped(0).text, "0");
	ck_assert_str_eq(pgr_num_grouped(999).text, "999");
	ck_assert_str_eq(pgr_num_grouped(1000).text, "1,000");
	ck_assert_str_eq(pgr_num_grouped(1234567).text, "1,234,567");
	ck_assert_str_eq(pgr_num_grouped(UINT64_MAX).text, "18,446,744,073,709,551,615");
	ck_assert_str_eq(pgr_num_bytes(0).text, "0 bytes");
	ck_assert_str_eq(pgr_num_bytes(1).text, "1 byte");
	ck_assert_str_eq(pgr_num_bytes(999).text, "999 bytes");
	ck_assert_str_eq(pgr_num_bytes(1000).text, "1.0 kB");
	ck_assert_str_eq(pgr_num_bytes(9999).text, "9.9 kB");
	ck_assert_str_eq(pgr_num_bytes(10000).text, "10 kB");
	ck_assert_str_eq(pgr_num_bytes(999999).text, "999 kB");
	ck_assert_str_eq(pgr_num_bytes(1000000).text, "1.0 MB");
	ck_assert_str_eq(pgr_num_bytes(3912345678).text, "3.9 GB");
	ck_assert_str_eq(pgr_num_bytes(UINT64_MAX).text, "18 EB");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/num");
	TCase *tc = tcase_create("num");

	tcase_add_test(tc, unsigned_numbers);
	tcase_add_test(tc, unsigned_32_bit_numbers);
	tcase_add_test(tc, signed_numbers);
	tcase_add_test(tc, what_is_no_number);
	tcase_add_test(tc, length_counts_not_the_nul);
	tcase_add_test(tc, hex_numbers);
	tcase_add_test(tc, numbers_for_a_person);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
