#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/conn_params.h"
#include "proto/settings.h"

START_TEST(lists)
{
	struct pgr_setting *list = calloc(3, sizeof(*list)), *copy;
	struct pgr_err err;

	ck_assert_ptr_nonnull(list);
	ck_assert_ptr_null(pgr_settings_find(list, "host"));
	ck_assert_ptr_null(pgr_settings_find(NULL, "host"));
	ck_assert_int_eq(pgr_settings_add(list, "host", "h", &err), PGR_OK);
	ck_assert_int_eq(pgr_settings_add(list, "password", "secret", &err), PGR_OK);
	ck_assert_int_eq(pgr_settings_copy(list, &copy, &err), PGR_OK);
	pgr_settings_free(list);
	ck_assert_str_eq(pgr_settings_find(copy, "host"), "h");
	ck_assert_str_eq(pgr_settings_find(copy, "password"), "secret");
	ck_assert_ptr_null(pgr_settings_find(copy, "pass"));
	ck_assert_ptr_null(copy[2].keyword);
	pgr_settings_free(copy);
	pgr_settings_free(NULL);
}
END_TEST

START_TEST(empty_list)
{
	struct pgr_setting none = {0}, *copy;
	struct pgr_err err;

	ck_assert_int_eq(pgr_settings_copy(&none, &copy, &err), PGR_OK);
	ck_assert_ptr_null(copy[0].keyword);
	pgr_settings_free(copy);
}
END_TEST

START_TEST(values)
{
	ck_assert(!pgr_setting_given(NULL));
	ck_assert(!pgr_setting_given(""));
	ck_assert(pgr_setting_given("x"));
	ck_assert_str_eq(pgr_setting_text(NULL), "");
	ck_assert_str_eq(pgr_setting_text("x"), "x");
}
END_TEST

/* ---- the password ---- */

static int answer(void *arg, char **out, struct pgr_err *err)
{
	const char *text = arg;

	if (text == NULL)
		return pgr_err_set(err, PGR_E_USAGE, "nobody is there");
	*out = strdup(text);
	return *out != NULL ? PGR_OK : pgr_err_nomem(err);
}

START_TEST(password_is_asked_once)
{
	char secret[] = "secret";
	struct pgr_conn_params p = {.ask_password = answer, .ask_arg = NULL};
	struct pgr_err err;

	ck_assert(pgr_conn_params_may_ask(&p));
	ck_assert_int_eq(pgr_conn_params_ask(&p, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert(pgr_conn_params_may_ask(&p)); /* nothing has changed */
	ck_assert_ptr_null(p.password);

	p.ask_arg = secret;
	ck_assert_int_eq(pgr_conn_params_ask(&p, &err), PGR_OK);
	ck_assert_str_eq(p.password, "secret");
	ck_assert(!pgr_conn_params_may_ask(&p));
	pgr_conn_params_fini(&p);
	ck_assert_ptr_null(p.password);
	ck_assert(pgr_conn_params_may_ask(&p));
}
END_TEST

START_TEST(nobody_is_asked)
{
	struct pgr_conn_params never = {.password_mode = PGR_PASSWORD_NEVER, .ask_password = answer};
	struct pgr_conn_params nobody = {.password_mode = PGR_PASSWORD_ALWAYS};

	ck_assert(!pgr_conn_params_may_ask(&never));
	ck_assert(!pgr_conn_params_may_ask(&nobody));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proto/settings");
	TCase *tc = tcase_create("all");

	tcase_add_test(tc, lists);
	tcase_add_test(tc, empty_list);
	tcase_add_test(tc, values);
	tcase_add_test(tc, password_is_asked_once);
	tcase_add_test(tc, nobody_is_asked);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
