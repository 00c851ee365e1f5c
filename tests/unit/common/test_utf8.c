#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

static bool valid(const char *s)
{
	return pgr_utf8_valid(s, strlen(s));
}

/* The other way round, without looking for errors. */
static uint32_t decode(const char *utf8, size_t n)
{
	static const uint8_t masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
	uint32_t c = (uint8_t)utf8[0] & masks[n];

	for (size_t i = 1; i < n; i++)
		c = c << 6 | ((uint8_t)utf8[i] & 0x3Fu);
	return c;
}

START_TEST(every_character)
{
	char utf8[8];

	for (uint32_t c = 0; c <= 0x10FFFF; c++) {
		bool surrogate = c >= 0xD800 && c <= 0xDFFF;
		size_t n = pgr_utf8_put(utf8, c);

		if (n != (c < 0x80	? 1u
			  : c < 0x800	? 2u
			  : c < 0x10000 ? 3u
					: 4u) ||
		    pgr_utf8_valid(utf8, n) == surrogate || decode(utf8, n) != c)
			ck_abort_msg("U+%04X", c);
		for (size_t cut = 1; cut < n; cut++)
			if (pgr_utf8_valid(utf8, cut) || pgr_utf8_valid(utf8 + cut, n - cut))
				ck_abort_msg("U+%04X cut after %zu", c, cut);
	}
}
END_TEST

/* In memory of exactly its size, so that a read beyond it shows under ASan. */
START_TEST(cut_characters)
{
	static const char *const characters[] = {"\xC3\xBC", "\xE2\x82\xAC", "\xF0\x9F\x90\x98"};

	for (size_t i = 0; i < 3; i++) {
		for (size_t n = 1; n <= i + 2; n++) {
			char *copy = malloc(n);

			ck_assert_ptr_nonnull(copy);
			memcpy(copy, characters[i], n);
			ck_assert_int_eq(pgr_utf8_valid(copy, n), n == i + 2);
			free(copy);
		}
	}
}
END_TEST

START_TEST(some_characters)
{
	char utf8[4];

	ck_assert(valid("") && valid("base/5/1259") && valid("\x7F"));
	ck_assert(valid("\xC3\xBC") && valid("\xE2\x82\xAC") && valid("\xF0\x9F\x90\x98"));
	ck_assert_uint_eq(pgr_utf8_put(utf8, 0x20AC), 3);
	ck_assert_mem_eq(utf8, "\xE2\x82\xAC", 3);
	ck_assert_uint_eq(pgr_utf8_put(utf8, 0x1F418), 4);
	ck_assert_mem_eq(utf8, "\xF0\x9F\x90\x98", 4);
}
END_TEST

/* RFC 3629, section 10; Markus Kuhn's stress test. */
START_TEST(what_is_not_utf8)
{
	static const char *const bad[] = {
		"\x80",
		"\xBF",
		"a\x80z",
		"\xC0\x80",
		"\xC1\xBF",
		"\xE0\x80\x80",
		"\xE0\x9F\xBF",
		"\xF0\x80\x80\x80",
		"\xF0\x8F\xBF\xBF",
		"\xED\xA0\x80",
		"\xED\xBF\xBF",
		"\xF4\x90\x80\x80",
		"\xF5\x80\x80\x80",
		"\xFE",
		"\xFF",
		"\xF8\x88\x80\x80",
		"\xC3",
		"\xC3z",
		"\xE2\x82z",
		"\xF0\x9F\x90z",
		"\xC3\xC3\xBC",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!valid(bad[i]), "number %zu", i);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/utf8");
	TCase *tc = tcase_create("utf8");

	tcase_add_test(tc, every_character);
	tcase_add_test(tc, cut_characters);
	tcase_add_test(tc, some_characters);
	tcase_add_test(tc, what_is_not_utf8);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
