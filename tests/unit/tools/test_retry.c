#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/retry.h"

static bool server(const char *sqlstate, bool fatal)
{
	struct pgr_err e;

	pgr_err_set(&e, PGR_E_SERVER, "could not do it");
	snprintf(e.sqlstate, sizeof(e.sqlstate), "%s", sqlstate);
	e.fatal = fatal;
	return pgr_retry_may(&e);
}

static bool connecting(const char *sqlstate)
{
	struct pgr_err e;

	pgr_err_set(&e, PGR_E_CONNECT, "could not connect");
	snprintf(e.sqlstate, sizeof(e.sqlstate), "%s", sqlstate);
	return pgr_retry_may(&e);
}

static bool class(enum pgr_errclass cls)
{
	struct pgr_err e;

	pgr_err_set(&e, cls, "it failed");
	return pgr_retry_may(&e);
}

START_TEST(what_may_pass)
{
	ck_assert(class(PGR_E_NETWORK));
	ck_assert(connecting(""));	/* refused, unreachable */
	ck_assert(connecting("57P03")); /* starting up */
	ck_assert(connecting("53300"));
	ck_assert(server("57P03", true));
	ck_assert(server("53300", true));
	ck_assert(server("53100", false));
	ck_assert(server("57P02", true));  /* a crash */
	ck_assert(server("58P01", false)); /* WAL that is gone */
	ck_assert(server("55006", false)); /* our slot, still in use */
}
END_TEST

START_TEST(what_does_not)
{
	struct pgr_err e;

	ck_assert(!server("57P01", true)); /* pg_terminate_backend */
	ck_assert(!server("42501", false));
	ck_assert(!server("57014", false)); /* pg_cancel_backend */
	ck_assert(!server("XX001", false));
	ck_assert(!connecting("28P01"));
	ck_assert(!connecting("3D000"));
	ck_assert(!class(PGR_E_USAGE));
	ck_assert(!class(PGR_E_STOPPED));
	ck_assert(!class(PGR_E_NOMEM));
	ck_assert(!class(PGR_E_DATA));
	ck_assert(!class(PGR_E_PROTOCOL));
	ck_assert(!class(PGR_E_CHECKSUM));
	pgr_err_sys(&e, 28, "could not write"); /* ENOSPC */
	ck_assert(!pgr_retry_may(&e));
}
END_TEST

START_TEST(how_long)
{
	const int64_t expected[] = {1000, 2000, 5000, 10000, 30000, 30000};

	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		ck_assert_int_eq(pgr_retry_wait_ms(i + 1), expected[i]);
	ck_assert_int_eq(pgr_retry_wait_ms(0), 1000);
	ck_assert_int_eq(pgr_retry_wait_ms(1000000), 30000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tools/retry");
	TCase *tc = tcase_create("retry");

	tcase_add_test(tc, what_may_pass);
	tcase_add_test(tc, what_does_not);
	tcase_add_test(tc, how_long);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
