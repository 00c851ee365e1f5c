#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/libpq_said.h"

/* ---- out of verbose texts ---- */

static const struct {
	const char *verbose, *plain, *sqlstate;
} texts[] = {
	{"", "", "before"},
	{"could not connect\n", "could not connect", "before"},
	{"connection to server at \"h\" (10.0.0.1), port 1 failed: FATAL:  28P01: password authentication failed\n"
	 "LOCATION:  auth_failed, auth.c:335\n",
	 "connection to server at \"h\" (10.0.0.1), port 1 failed: FATAL:  password authentication failed", "28P01"},
	{"FATAL:  57P03: the database system is starting up\nLOCATION:  ProcessStartupPacket, postmaster.c:2380\n"
	 "could not connect to b\n",
	 "FATAL:  the database system is starting up\ncould not connect to b", "57P03"},
	/* the last one counts */
	{"FATAL:  28000: one\nFATAL:  3D000: two\n", "FATAL:  one\nFATAL:  two", "3D000"},
	/* other languages, and what only looks like it */
	{"FATALE :  28000: non\n", "FATALE :  non", "28000"},
	{"FATAL:  28a00: lower case\n", "FATAL:  28a00: lower case", "before"},
	{"FATAL:  2800: short\n", "FATAL:  2800: short", "before"},
	{"FATAL:  28000", "FATAL:  28000", "before"},
	{"FATAL:  \n28000: next line\n", "FATAL:  \n28000: next line", "before"},
	{"LOCATION:  only\n", "", "before"},
	{"\n\n", "", "before"},
};

START_TEST(verbose_texts)
{
	char *text = strdup(texts[_i].verbose);
	char sqlstate[7] = "before";

	ck_assert_ptr_nonnull(text);
	pgr_libpq_said_plain(text, sqlstate);
	ck_assert_str_eq(text, texts[_i].plain);
	ck_assert_int_eq(memcmp(sqlstate, texts[_i].sqlstate, 5), 0);
	free(text);
}
END_TEST

/* ---- several connections ---- */

/* A connection that failed at once: there is no such directory. */
static PGconn *failed(const char *dir)
{
	const char *const kw[] = {"host", "port", NULL}, *const val[] = {dir, "1", NULL};
	PGconn *conn = PQconnectStartParams(kw, val, 0);

	ck_assert_ptr_nonnull(conn);
	PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
	while (PQstatus(conn) != CONNECTION_BAD)
		ck_assert_int_ne(PQconnectPoll(conn), PGRES_POLLING_OK);
	return conn;
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	for (; (text = strstr(text, what)) != NULL; text += strlen(what))
		n++;
	return n;
}

START_TEST(all_hosts_are_told)
{
	struct pgr_libpq_said s = {0};
	struct pgr_err err = {0};
	PGconn *first = failed("/nowhere/first"), *second = failed("/nowhere/second");

	pgr_libpq_said_next(&s);
	ck_assert_int_eq(pgr_libpq_said_timeout(&s, first, &err), PGR_OK);
	pgr_libpq_said_next(&s);
	ck_assert_int_eq(pgr_libpq_said_error(&s, second, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_CONNECT);
	ck_assert_str_eq(err.sqlstate, "");
	ck_assert_uint_eq(count(err.msg, "/nowhere/first"), 1);
	ck_assert_uint_eq(count(err.msg, "timeout expired\n"), 1);
	ck_assert_uint_eq(count(err.msg, "/nowhere/second"), 1);
	/* and from the beginning, when there is a password to try */
	pgr_libpq_said_reset(&s);
	ck_assert_int_eq(pgr_libpq_said_error(&s, second, &err), PGR_ERR);
	ck_assert_uint_eq(count(err.msg, "/nowhere/first"), 0);
	ck_assert_uint_eq(count(err.msg, "/nowhere/second"), 1);
	PQfinish(first);
	PQfinish(second);
	pgr_libpq_said_fini(&s);
}
END_TEST

/* Of an address that we gave up: its line is not told, nor is what was told already. */
START_TEST(what_is_skipped)
{
	struct pgr_libpq_said s = {0};
	struct pgr_err err = {0};
	PGconn *conn = failed("/nowhere/first");

	pgr_libpq_said_next(&s);
	pgr_libpq_said_skip(&s, conn);
	ck_assert_int_eq(pgr_libpq_said_error(&s, conn, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "could not connect to server");
	PQfinish(conn);
	pgr_libpq_said_fini(&s);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proto/libpq_said");
	TCase *tc = tcase_create("all");

	tcase_add_loop_test(tc, verbose_texts, 0, (int)(sizeof(texts) / sizeof(texts[0])));
	tcase_add_test(tc, all_hosts_are_told);
	tcase_add_test(tc, what_is_skipped);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failures = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failures == 0 ? 0 : 1;
}
