#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/sys.h"
#include "proto/conn_params.h"
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

/* Whether a failure to get a session says that no server is there. */
static bool is_down(enum pgr_errclass cls, const char *sqlstate)
{
	struct pgr_err e;

	pgr_err_set(&e, cls, "no session");
	snprintf(e.sqlstate, sizeof(e.sqlstate), "%s", sqlstate);
	return pgr_retry_is_down(&e);
}

START_TEST(who_is_not_there)
{
	ck_assert(is_down(PGR_E_CONNECT, ""));	    /* nobody listens, or the host is gone */
	ck_assert(is_down(PGR_E_CONNECT, "57P03")); /* it shuts down, or starts */
	ck_assert(is_down(PGR_E_NETWORK, ""));
	ck_assert(is_down(PGR_E_SERVER, "57P01")); /* after the login */
	ck_assert(is_down(PGR_E_SERVER, "57P02"));
}
END_TEST

/* An administrator may have taken the role's permission, and then ended its sessions. */
START_TEST(who_is)
{
	ck_assert(!is_down(PGR_E_CONNECT, "28000"));
	ck_assert(!is_down(PGR_E_CONNECT, "28P01"));
	ck_assert(!is_down(PGR_E_CONNECT, "3D000"));
	ck_assert(!is_down(PGR_E_CONNECT, "42501"));
	ck_assert(!is_down(PGR_E_CONNECT, "53300"));
	ck_assert(!is_down(PGR_E_SERVER, "42883"));
	ck_assert(!is_down(PGR_E_SERVER, ""));
	ck_assert(!is_down(PGR_E_PROTOCOL, ""));
	ck_assert(!is_down(PGR_E_STOPPED, ""));
	ck_assert(!is_down(PGR_E_USAGE, ""));
}
END_TEST

/* Only what has two meanings is asked about. */
START_TEST(other_errors_are_no_shutdown)
{
	const struct pgr_retry_server server = {.host = "/nowhere", .port = "1"};
	const struct pgr_conn_params params = {0};
	struct pgr_err e;

	pgr_err_set(&e, PGR_E_SERVER, "could not do it");
	snprintf(e.sqlstate, sizeof(e.sqlstate), "57014");
	ck_assert(!pgr_retry_was_shutdown(&server, &e, &params, pgr_sys_real(), NULL));
	pgr_err_set(&e, PGR_E_DATA, "bad data");
	ck_assert(!pgr_retry_was_shutdown(&server, &e, &params, pgr_sys_real(), NULL));
}
END_TEST

/* The server that was noted, not the one that the parameters lead to. */
START_TEST(nobody_answers)
{
	struct pgr_retry_server server = {.host = "/nowhere", .port = "1"};
	const struct pgr_conn_params params = {.host = "/neither", .port = "2", .user = "nobody"};
	struct pgr_err e;

	pgr_err_set(&e, PGR_E_SERVER, "terminating connection");
	snprintf(e.sqlstate, sizeof(e.sqlstate), "57P01");
	ck_assert(pgr_retry_was_shutdown(&server, &e, &params, pgr_sys_real(), NULL));
	server.started_us = 1;
	ck_assert(pgr_retry_was_shutdown(&server, &e, &params, pgr_sys_real(), NULL));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tools/retry");
	TCase *tc = tcase_create("retry");

	tcase_add_test(tc, what_may_pass);
	tcase_add_test(tc, what_does_not);
	tcase_add_test(tc, who_is_not_there);
	tcase_add_test(tc, who_is);
	tcase_add_test(tc, other_errors_are_no_shutdown);
	tcase_add_test(tc, nobody_answers);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
