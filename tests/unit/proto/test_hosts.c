#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hosts.h"
#include "proto/settings.h"

/* What libpq has (NULL: not set), where it was, and what is left then. */
struct step {
	const char *host, *hostaddr, *port;
	const char *at, *at_port;
	const char *left_host, *left_hostaddr, *left_port;
	bool more;
};

static void check_text(const char *got, const char *want)
{
	if (want == NULL)
		ck_assert_ptr_null(got);
	else
		ck_assert_pstr_eq(got, want);
}

static struct pgr_setting *settings_of(const struct step *s)
{
	struct pgr_setting *list = calloc(4, sizeof(*list));
	struct pgr_err err;

	ck_assert_ptr_nonnull(list);
	if (s->host != NULL)
		ck_assert_int_eq(pgr_settings_add(list, "host", s->host, &err), PGR_OK);
	if (s->hostaddr != NULL)
		ck_assert_int_eq(pgr_settings_add(list, "hostaddr", s->hostaddr, &err), PGR_OK);
	if (s->port != NULL)
		ck_assert_int_eq(pgr_settings_add(list, "port", s->port, &err), PGR_OK);
	return list;
}

static const struct step steps[] = {
	{"a", NULL, NULL, "a", "5432", NULL, NULL, NULL, false},
	{"a,b", NULL, NULL, "a", "5432", "b", NULL, NULL, true},
	{"a,b", NULL, NULL, "b", "5432", NULL, NULL, NULL, false},
	{"a,b,c", NULL, NULL, "a", "5432", "b,c", NULL, NULL, true},
	/* one port stands for all hosts, several go with theirs */
	{"a,b", NULL, "1", "a", "1", "b", NULL, "1", true},
	{"a,b,c", NULL, "1,2,3", "b", "2", "c", NULL, "3", true},
	{"a,a,a", NULL, "1,2,3", "a", "2", "a", NULL, "3", true},
	{"a,a", NULL, "1,", "a", "5432", NULL, NULL, NULL, false},
	/* addresses alone, and with names */
	{NULL, "10.0.0.1,10.0.0.2", NULL, "10.0.0.1", "5432", NULL, "10.0.0.2", NULL, true},
	{"a,b", "10.0.0.1,10.0.0.2", "1,2", "a", "1", "b", "10.0.0.2", "2", true},
	/* an empty name is libpq's default, which it tells by its own name */
	{",b", NULL, NULL, "/run/postgresql", "5432", "b", NULL, NULL, true},
	/* what is not in the list: it was tried, whatever it was */
	{"a,b", NULL, NULL, "x", "5432", NULL, NULL, NULL, false},
	/* nothing was set at all */
	{NULL, NULL, NULL, "/run/postgresql", "5432", NULL, NULL, NULL, false},
};

START_TEST(what_is_left)
{
	const struct step *s = &steps[_i];
	struct pgr_setting *list = settings_of(s);
	struct pgr_hosts h = {0};

	ck_assert_int_eq(pgr_hosts_after(&h, list, s->at, s->at_port), s->more);
	if (s->more) {
		check_text(h.host, s->left_host);
		check_text(h.hostaddr, s->left_hostaddr);
		check_text(h.port, s->left_port);
	}
	pgr_settings_free(list);
}
END_TEST

/* The second time the lists are what was left, not the settings again. */
START_TEST(one_after_the_other)
{
	struct step s = {.host = "a,b,c", .port = "1,2,3"};
	struct pgr_setting *list = settings_of(&s);
	struct pgr_hosts h = {0};

	ck_assert(pgr_hosts_after(&h, list, "a", "1"));
	ck_assert(pgr_hosts_after(&h, list, "b", "2"));
	ck_assert_str_eq(h.host, "c");
	ck_assert_str_eq(h.port, "3");
	ck_assert(!pgr_hosts_after(&h, list, "c", "3"));
	pgr_settings_free(list);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proto/hosts");
	TCase *tc = tcase_create("all");

	tcase_add_loop_test(tc, what_is_left, 0, (int)(sizeof(steps) / sizeof(steps[0])));
	tcase_add_test(tc, one_after_the_other);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
