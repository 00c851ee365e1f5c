#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

/* Sanitizers abort when memory is refused, unless told that refusals are part of the test. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}

START_TEST(zeroed_is_valid)
{
	struct pgr_buf b = {0};

	ck_assert_str_eq(pgr_buf_str(&b), "");
	pgr_buf_fini(&b);
	pgr_buf_fini(&b);
	ck_assert_ptr_null(b.data);
	pgr_buf_drop(&b, 0);
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

START_TEST(appends)
{
	struct pgr_buf b = {0};
	struct pgr_err e;
	static const uint8_t want[] = "a\x01\x01\x02\x01\x02\x03\x04\x01\x02\x03\x04\x05\x06\x07\x08xyz-42-\xff\x80";

	ck_assert_int_eq(pgr_buf_put(&b, "a", 1, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put8(&b, 1, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put16(&b, 0x0102, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put32(&b, 0x01020304, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put64(&b, UINT64_C(0x0102030405060708), &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_puts(&b, "xyz", &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_printf(&b, &e, "-%d-", 42), PGR_OK);
	ck_assert_int_eq(pgr_buf_put8(&b, 0xff, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put8(&b, 0x80, &e), PGR_OK);
	ck_assert_uint_eq(b.len, sizeof(want) - 1);
	ck_assert_mem_eq(b.data, want, b.len);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(nothing_can_be_appended)
{
	struct pgr_buf b = {0};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_put(&b, NULL, 0, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_puts(&b, "", &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_printf(&b, &e, "%s", ""), PGR_OK);
	ck_assert_uint_eq(b.len, 0);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(grows_byte_by_byte)
{
	struct pgr_buf b = {0};
	struct pgr_err e;

	for (unsigned i = 0; i < 100000; i++)
		ck_assert_int_eq(pgr_buf_put8(&b, (uint8_t)(i * 7), &e), PGR_OK);
	for (unsigned i = 0; i < 100000; i++)
		ck_assert_uint_eq(b.data[i], (uint8_t)(i * 7));
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(limit_is_exact)
{
	struct pgr_buf b = {.limit = 10};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_put(&b, "0123456", 7, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put(&b, "abcd", 4, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_uint_eq(b.len, 7);
	ck_assert_int_eq(pgr_buf_put(&b, "789", 3, &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put8(&b, 'x', &e), PGR_ERR);
	ck_assert_int_eq(pgr_buf_reserve(&b, 0, &e), PGR_OK);
	/* The NUL is not content. */
	ck_assert_str_eq(pgr_buf_str(&b), "0123456789");
	ck_assert_uint_eq(b.len, 10);
	pgr_buf_fini(&b);
	ck_assert_uint_eq(b.limit, 10);
	ck_assert_int_eq(pgr_buf_reserve(&b, 11, &e), PGR_ERR);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(limit_holds_for_printf)
{
	struct pgr_buf b = {.limit = 5};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_printf(&b, &e, "%s", "12345"), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), "12345");
	ck_assert_int_eq(pgr_buf_printf(&b, &e, "%d", 6), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_str_eq(pgr_buf_str(&b), "12345");
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(sizes_near_the_end_of_the_world)
{
	struct pgr_buf b = {0};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_puts(&b, "ab", &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_reserve(&b, SIZE_MAX, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	/* The default limit is 1 GiB, what is there included. */
	ck_assert_int_eq(pgr_buf_reserve(&b, (size_t)1 << 30, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_uint_eq(b.len, 2);
	/* A limit lowered below what is there refuses all. */
	b.limit = 1;
	ck_assert_int_eq(pgr_buf_put8(&b, 2, &e), PGR_ERR);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(memory_that_is_not_there)
{
	struct pgr_buf b = {.limit = SIZE_MAX};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_put8(&b, 'k', &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_reserve(&b, SIZE_MAX / 2, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_NOMEM);
	ck_assert_str_eq(pgr_buf_str(&b), "k");
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(printf_longer_than_any_guess)
{
	struct pgr_buf b = {0};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_puts(&b, "x", &e), PGR_OK);
	ck_assert_int_eq(pgr_buf_printf(&b, &e, "%05000d", 7), PGR_OK);
	ck_assert_uint_eq(b.len, 5001);
	ck_assert_int_eq(b.data[5000], '7');
	ck_assert_int_eq(b.data[1], '0');
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(drop_moves_the_rest)
{
	struct pgr_buf b = {0};
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_puts(&b, "headtail", &e), PGR_OK);
	pgr_buf_drop(&b, 0);
	ck_assert_str_eq(pgr_buf_str(&b), "headtail");
	pgr_buf_drop(&b, 4);
	ck_assert_str_eq(pgr_buf_str(&b), "tail");
	pgr_buf_drop(&b, 4);
	ck_assert_str_eq(pgr_buf_str(&b), "");
	ck_assert_int_eq(pgr_buf_puts(&b, "again", &e), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), "again");
	pgr_buf_fini(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/buf");
	TCase *tc = tcase_create("buf");

	tcase_add_test(tc, zeroed_is_valid);
	tcase_add_test(tc, appends);
	tcase_add_test(tc, nothing_can_be_appended);
	tcase_add_test(tc, grows_byte_by_byte);
	tcase_add_test(tc, limit_is_exact);
	tcase_add_test(tc, limit_holds_for_printf);
	tcase_add_test(tc, sizes_near_the_end_of_the_world);
	tcase_add_test(tc, memory_that_is_not_there);
	tcase_add_test(tc, printf_longer_than_any_guess);
	tcase_add_test(tc, drop_moves_the_rest);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
