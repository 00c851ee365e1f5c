#include <check.h>
#include <limits.h>

#include "tools/backoff.h"

/* They grow to 30 s, and none is more than a quarter off. */
START_TEST(grows)
{
	static const int middles[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};

	for (unsigned i = 0; i < sizeof(middles) / sizeof(middles[0]); i++) {
		ck_assert_int_eq(pgr_backoff_ms(i, 0), middles[i] * 3 / 4);
		ck_assert_int_eq(pgr_backoff_ms(i, UINT16_MAX), middles[i] * 5 / 4);
		ck_assert_int_le(pgr_backoff_ms(i, UINT16_MAX / 2), middles[i]);
		ck_assert_int_ge(pgr_backoff_ms(i, UINT16_MAX / 2), middles[i] - 1);
	}
	ck_assert_int_eq(pgr_backoff_ms(UINT_MAX, UINT16_MAX), 37500);
}
END_TEST

/* Many receivers do not come back in step: each number of the dice has its own wait, as far as milliseconds go. */
START_TEST(spreads)
{
	int before = pgr_backoff_ms(0, 0);
	unsigned differ = 0;

	for (unsigned dice = 1; dice <= UINT16_MAX; dice++) {
		int ms = pgr_backoff_ms(0, (uint16_t)dice);

		ck_assert_int_ge(ms, before);
		differ += ms != before;
		before = ms;
	}
	ck_assert_uint_eq(differ, 500);
}
END_TEST

/* Whatever was drawn. */
START_TEST(draws)
{
	for (unsigned i = 0; i < 1000; i++) {
		int ms = pgr_backoff_draw_ms(i % 8);

		ck_assert_int_ge(ms, pgr_backoff_ms(i % 8, 0));
		ck_assert_int_le(ms, pgr_backoff_ms(i % 8, UINT16_MAX));
	}
}
END_TEST

START_TEST(is_told)
{
	ck_assert_int_eq(pgr_backoff_seconds(750), 1);
	ck_assert_int_eq(pgr_backoff_seconds(1499), 1);
	ck_assert_int_eq(pgr_backoff_seconds(1500), 2);
	ck_assert_int_eq(pgr_backoff_seconds(2499), 2);
	ck_assert_int_eq(pgr_backoff_seconds(37500), 38);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("backoff");
	TCase *tc = tcase_create("backoff");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, grows);
	tcase_add_test(tc, spreads);
	tcase_add_test(tc, draws);
	tcase_add_test(tc, is_told);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
