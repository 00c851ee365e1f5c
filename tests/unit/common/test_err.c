#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

START_TEST(set_clears_everything_else)
{
	struct pgr_err e;

	memset(&e, 'x', sizeof(e));
	e.fatal = true;
	ck_assert_int_eq(pgr_err_set(&e, PGR_E_DATA, "tar member \"%s\": %d", "a/b", 7), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_str_eq(e.msg, "tar member \"a/b\": 7");
	ck_assert_int_eq(e.sys_errno, 0);
	ck_assert_str_eq(e.sqlstate, "");
	ck_assert_str_eq(e.detail, "");
	ck_assert_str_eq(e.hint, "");
	ck_assert(!e.fatal);
}
END_TEST

START_TEST(clear_says_no_error)
{
	struct pgr_err e;

	memset(&e, 'x', sizeof(e));
	e.fatal = true;
	pgr_err_clear(&e);
	ck_assert_int_eq(e.cls, PGR_E_NONE);
	ck_assert_int_eq(e.sys_errno, 0);
	ck_assert_str_eq(e.msg, "");
	ck_assert_str_eq(e.sqlstate, "");
	ck_assert(!e.fatal);
}
END_TEST

START_TEST(sys_keeps_errno_and_reason)
{
	struct pgr_err e;

	ck_assert_int_eq(pgr_err_sys(&e, ENOSPC, "could not write to file \"%s\"", "x"), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(e.sys_errno, ENOSPC);
	ck_assert_str_eq(e.msg, "could not write to file \"x\": No space left on device");
}
END_TEST

START_TEST(sys_cuts_the_name_not_the_reason)
{
	struct pgr_err e;
	char name[5000];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	ck_assert_int_eq(pgr_err_sys(&e, EACCES, "could not open \"%s\"", name), PGR_ERR);
	ck_assert_uint_eq(strlen(e.msg), sizeof(e.msg) - 1);
	ck_assert_str_eq(e.msg + strlen(e.msg) - strlen(": Permission denied"), ": Permission denied");
	ck_assert_int_eq(e.msg[strlen(e.msg) - strlen(": Permission denied") - 1], 'n');
}
END_TEST

START_TEST(unknown_errno_has_a_text)
{
	struct pgr_err e;

	pgr_err_sys(&e, 98765, "x");
	ck_assert_ptr_nonnull(strstr(e.msg, "98765"));
}
END_TEST

/* Fills a message so that a character of `bytes` bytes straddles its end by `over` bytes. */
static void cut_at(const char *character, size_t over)
{
	struct pgr_err e;
	char text[sizeof(e.msg) + 8];
	size_t room = sizeof(e.msg) - 1;
	size_t n = strlen(character);
	size_t at = room - (n - over);

	memset(text, 'a', at);
	memcpy(text + at, character, n + 1);
	pgr_err_set(&e, PGR_E_DATA, "%s", text);
	ck_assert_uint_eq(strlen(e.msg), over == 0 ? room : at);
	ck_assert_int_eq(memcmp(e.msg, text, strlen(e.msg)), 0);
}

START_TEST(messages_are_cut_between_characters)
{
	cut_at("\xC3\xA9", 0);
	cut_at("\xC3\xA9", 1);
	for (size_t over = 0; over < 3; over++)
		cut_at("\xE2\x82\xAC", over);
	for (size_t over = 0; over < 4; over++)
		cut_at("\xF0\x9F\x90\x98", over);
}
END_TEST

START_TEST(bytes_that_are_no_utf8_survive_a_cut)
{
	struct pgr_err e;
	char text[sizeof(e.msg) + 8];

	memset(text, 0x80, sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	pgr_err_set(&e, PGR_E_DATA, "%s", text);
	/* No lead byte in reach: nothing says where a character begins, so at most three bytes may go. */
	ck_assert_uint_ge(strlen(e.msg), sizeof(e.msg) - 4);
	ck_assert_uint_lt(strlen(e.msg), sizeof(e.msg));
}
END_TEST

START_TEST(prefix_goes_in_front_and_keeps_the_rest)
{
	struct pgr_err e;

	pgr_err_sys(&e, EIO, "could not read file \"f\"");
	pgr_err_hint(&e, "replace the %s", "disk");
	ck_assert_int_eq(pgr_err_prefix(&e, "lane %d", 3), PGR_ERR);
	ck_assert_str_eq(e.msg, "lane 3: could not read file \"f\": Input/output error");
	ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(e.sys_errno, EIO);
	ck_assert_str_eq(e.hint, "replace the disk");
}
END_TEST

START_TEST(prefix_never_overflows)
{
	struct pgr_err e;
	char text[4000];

	memset(text, 'p', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (size_t n = sizeof(e.msg) - 4; n < sizeof(e.msg) + 8; n++) {
		pgr_err_set(&e, PGR_E_DATA, "message");
		pgr_err_prefix(&e, "%.*s", (int)n, text);
		ck_assert_uint_lt(strlen(e.msg), sizeof(e.msg));
		pgr_err_set(&e, PGR_E_DATA, "%.*s", (int)n, text);
		pgr_err_prefix(&e, "q");
		ck_assert_uint_eq(strlen(e.msg), sizeof(e.msg) - 1);
		ck_assert_int_eq(strncmp(e.msg, "q: pp", 5), 0);
	}
}
END_TEST

START_TEST(arguments_may_point_into_the_error)
{
	struct pgr_err e;

	pgr_err_set(&e, PGR_E_DATA, "inner");
	pgr_err_detail(&e, "%s detail", e.msg);
	pgr_err_hint(&e, "%s hint", e.detail);
	ck_assert_str_eq(e.detail, "inner detail");
	ck_assert_str_eq(e.hint, "inner detail hint");
	pgr_err_set(&e, PGR_E_SERVER, "outer (%s)", e.msg);
	ck_assert_str_eq(e.msg, "outer (inner)");
	pgr_err_sys(&e, EIO, "%s", e.msg);
	ck_assert_str_eq(e.msg, "outer (inner): Input/output error");
	pgr_err_prefix(&e, "%.5s", e.msg);
	ck_assert_str_eq(e.msg, "outer: outer (inner): Input/output error");
}
END_TEST

START_TEST(long_details_and_hints_are_cut)
{
	struct pgr_err e;
	char text[3000];

	memset(text, 'd', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	pgr_err_set(&e, PGR_E_SERVER, "m");
	ck_assert_int_eq(pgr_err_detail(&e, "%s", text), PGR_ERR);
	ck_assert_int_eq(pgr_err_hint(&e, "%s", text), PGR_ERR);
	ck_assert_uint_eq(strlen(e.detail), sizeof(e.detail) - 1);
	ck_assert_uint_eq(strlen(e.hint), sizeof(e.hint) - 1);
	ck_assert_str_eq(e.msg, "m");
}
END_TEST

START_TEST(nomem)
{
	struct pgr_err e;

	ck_assert_int_eq(pgr_err_nomem(&e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_NOMEM);
	ck_assert_str_eq(e.msg, "out of memory");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/err");
	TCase *tc = tcase_create("err");

	tcase_add_test(tc, set_clears_everything_else);
	tcase_add_test(tc, clear_says_no_error);
	tcase_add_test(tc, sys_keeps_errno_and_reason);
	tcase_add_test(tc, sys_cuts_the_name_not_the_reason);
	tcase_add_test(tc, unknown_errno_has_a_text);
	tcase_add_test(tc, messages_are_cut_between_characters);
	tcase_add_test(tc, bytes_that_are_no_utf8_survive_a_cut);
	tcase_add_test(tc, prefix_goes_in_front_and_keeps_the_rest);
	tcase_add_test(tc, prefix_never_overflows);
	tcase_add_test(tc, arguments_may_point_into_the_error);
	tcase_add_test(tc, long_details_and_hints_are_cut);
	tcase_add_test(tc, nomem);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
