/* sql.c against a scripted server: sessions that are ours, poolers, privileges. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "backup/sql.h"
#include "proto/fields.h"
#include "tests/support/sqlscript.h"

#define V96 90624
#define V10 100023
#define V11 110022
#define V14 140023
#define V15 150020

static const size_t chunks[] = {0, 1, 7, 4096};
#define N_CHUNKS ((int)(sizeof(chunks) / sizeof(chunks[0])))

/* ---- text ---- */

static const struct {
	const char *text, *literal, *identifier;
} quoted[] = {
	{"", "''", "\"\""},
	{"base/5/1", "'base/5/1'", "\"base/5/1\""},
	{"it's", "'it''s'", "\"it's\""},
	{"''", "''''''", "\"''\""},
	{"a\"b\"", "'a\"b\"'", "\"a\"\"b\"\"\""},
	{"back\\slash\n%s", "'back\\slash\n%s'", "\"back\\slash\n%s\""},
	{"\xff'\xfe", "'\xff''\xfe'", "\"\xff'\xfe\""},
};

START_TEST(test_quoting)
{
	struct pgr_buf b = {0};
	struct pgr_err err;
	const char *text = quoted[_i].text;

	ck_assert_int_eq(pgr_sql_literal(&b, text, strlen(text), &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), quoted[_i].literal);
	b.len = 0;
	ck_assert_int_eq(pgr_sql_identifier(&b, text, strlen(text), &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), quoted[_i].identifier);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- commands ---- */

START_TEST(test_query)
{
	struct sqlscript s;
	struct pgr_result *r;
	char long_text[5000];

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	sqls_begin(&s, V15, chunks[_i]);
	sqls_row(&s, "1", NULL);
	ck_assert_int_eq(pgr_sql_query(s.c, &r, &s.err, "SELECT %d, '%s', 100%%", 42, long_text), PGR_OK);
	sqls_check_sent(&s, "SELECT 42, 'xxx", true);
	sqls_check_sent(&s, "xxx', 100%", true);
	ck_assert_str_eq(pgr_result_cell(r, 0, 0, NULL), "1");
	pgr_result_free(r);
	sqls_error(&s, "42883", "no such function");
	ck_assert_int_eq(pgr_sql_query(s.c, &r, &s.err, "SELECT f()"), PGR_ERR);
	ck_assert_ptr_null(r);
	sqls_check_err(&s.err, PGR_E_SERVER, "no such function");
	sqls_end(&s);
}
END_TEST

struct taken {
	unsigned rows;
	unsigned fail_at; /* the row that is refused; 0: none */
	char text[256];
};

static int take(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct taken *t = arg;

	if (++t->rows == t->fail_at)
		return pgr_err_set(err, PGR_E_DATA, "row %u is not wanted", t->rows);
	for (unsigned i = 0; i < row->ncols; i++) {
		struct pgr_span v = pgr_row_col(row, i);

		strncat(t->text, v.p != NULL ? (const char *)v.p : "NULL", v.p != NULL ? v.len : 4);
		strcat(t->text, i + 1 < row->ncols ? "," : ";");
	}
	return PGR_OK;
}

static int ask(struct sqlscript *s, unsigned cols, struct taken *t)
{
	struct pgr_buf text = {0};
	int rc;

	ck_assert_int_eq(pgr_buf_puts(&text, "SELECT", &s->err), PGR_OK);
	rc = pgr_sql_rows(s->c, &text, cols, take, t, &s->err);
	pgr_buf_fini(&text);
	return rc;
}

START_TEST(test_rows)
{
	static const char *const cells[] = {"a", "1", "b", NULL, "", "3"};
	struct taken t = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, chunks[_i]);
	sqls_rows(&s, 2, 3, cells);
	ck_assert_msg(ask(&s, 2, &t) == PGR_OK, "%s", s.err.msg);
	ck_assert_str_eq(t.text, "a,1;b,NULL;,3;");
	ck_assert_int_eq(pgr_client_state(s.c), PGR_SS_READY);
	/* a command without rows, and one that is no command */
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_complete(&s.msg, "SET");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(ask(&s, 2, &t), PGR_OK);
	ck_assert_uint_eq(t.rows, 3);
	sqls_end(&s);
}
END_TEST

START_TEST(test_rows_refused_by_the_server)
{
	static const char *const cells[] = {"a", "b"};
	struct taken t = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, chunks[_i]);
	sqls_some_rows(&s, 1, 2, cells);
	pgr_msg_error(&s.msg, "ERROR", "58P01", "file is gone");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "file is gone");
	ck_assert_str_eq(s.err.sqlstate, "58P01");
	ck_assert_str_eq(t.text, "a;b;");
	/* and the session goes on */
	sqls_row(&s, "c");
	ck_assert_int_eq(ask(&s, 1, &t), PGR_OK);
	ck_assert_str_eq(t.text, "a;b;c;");
	sqls_fatal(&s, true);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "administrator command");
	ck_assert(s.err.fatal);
	sqls_end(&s);
}
END_TEST

START_TEST(test_rows_refused_by_us)
{
	static const char *const cells[] = {"a", "b", "c"};
	struct taken t = {.fail_at = 2};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	sqls_rows(&s, 1, 3, cells);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_DATA, "row 2 is not wanted");
	ck_assert_uint_eq(t.rows, 2);
	sqls_end(&s);
}
END_TEST

START_TEST(test_wrong_columns)
{
	static const char *const names[] = {"a"}, *const cells[] = {"1", "2"};
	struct taken t = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	pgr_scripted_expect(s.srv, 'Q');
	if (_i > 0)
		pgr_msg_row_desc(&s.msg, 1, names);
	if (_i == 0)
		pgr_msg_row_desc(&s.msg, 0, names);
	else
		pgr_msg_row(&s.msg, 2, cells);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_PROTOCOL, "columns instead of 1");
	ck_assert_uint_eq(t.rows, 0);
	sqls_end(&s);
}
END_TEST

START_TEST(test_rows_by_copy)
{
	struct taken t = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_copy_response(&s.msg, 'H');
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_PROTOCOL, "COPY");
	sqls_end(&s);
}
END_TEST

START_TEST(test_rows_cut_off)
{
	static const char *const cells[] = {"a"};
	struct taken t = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	sqls_some_rows(&s, 1, 1, cells);
	pgr_scripted_eof(s.srv);
	ck_assert_int_eq(ask(&s, 1, &t), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_NETWORK, "closed the connection");
	sqls_end(&s);
}
END_TEST

/* ---- a session of our own ---- */

#define PID "4711" /* what the scripted transport was told */

START_TEST(test_prepare)
{
	struct sqlscript s;

	sqls_begin(&s, V15, chunks[_i]);
	sqls_row(&s, PID, "mark", "11");
	sqls_row(&s, PID, "mark", "t");
	ck_assert_msg(pgr_sql_prepare(s.c, &s.err) == PGR_OK, "%s", s.err.msg);
	sqls_check_sent(&s, "statement_timeout = 0; SET search_path = pg_catalog;", true);
	sqls_check_sent(&s, "('client_encoding', current_setting('server_encoding'))", true);
	sqls_end(&s);
}
END_TEST

static unsigned questions(const struct sqlscript *s)
{
	unsigned n = 0;

	for (size_t at = 0; at < s->sent.len; n++)
		at += 1 + ((size_t)s->sent.data[at + 3] << 8 | s->sent.data[at + 4]);
	return n;
}

/* Its second question waits for the answer to the first, and nothing else does. */
START_TEST(test_prepare_and_ask)
{
	struct pgr_result *mark, *r;
	struct pgr_buf why = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	ck_assert_int_eq(pgr_sql_shield_ahead(s.c, &s.err), PGR_OK);
	ck_assert_int_eq(pgr_sql_may_read_ahead(s.c, &s.err), PGR_OK);
	ck_assert_int_eq(pgr_sql_ask_ahead(s.c, &s.err, "SELECT %d", 1), PGR_OK);
	ck_assert_uint_eq(questions(&s), 3);
	sqls_check_sent(&s, "current_setting('pgr.session'", false);
	sqls_row(&s, PID, "mark", "11");
	sqls_rows(&s, 4, 5, (const char *const[]){"me", "on", "f",  "t",  "me", "on", "f",  "t",  "me", "on",
						  "f",	"t",  "me", "on", "f",	"t",  "me", "on", "f",	"t"});
	sqls_row(&s, "one");
	sqls_row(&s, PID, "mark", "t");
	ck_assert_int_eq(pgr_sql_shield(s.c, &mark, &s.err), PGR_OK);
	sqls_check_sent(&s, "current_setting('pgr.session'", true);
	ck_assert_msg(pgr_sql_may_read(s.c, &why, &s.err) == PGR_OK, "%s", s.err.msg);
	ck_assert_int_eq(pgr_sql_query(s.c, &r, &s.err, "SELECT %d", 1), PGR_OK);
	ck_assert_str_eq(pgr_result_cell(r, 0, 0, NULL), "one");
	pgr_result_free(r);
	ck_assert_int_eq(pgr_sql_confirm(s.c, mark, &s.err), PGR_OK);
	ck_assert_uint_eq(questions(&s), 4);
	sqls_end(&s);
}
END_TEST

START_TEST(test_prepare_nothing_before_10)
{
	struct sqlscript s;

	sqls_begin(&s, V96, 0);
	ck_assert_int_eq(pgr_sql_shield_ahead(s.c, &s.err), PGR_OK);
	ck_assert_int_eq(pgr_sql_may_read_ahead(s.c, &s.err), PGR_OK);
	ck_assert_int_eq(pgr_sql_prepare(s.c, &s.err), PGR_OK);
	ck_assert_uint_eq(s.sent.len, 0);
	sqls_end(&s);
}
END_TEST

/* One process, one session: anything else is a pooler, whatever the connection was told at its start. */
static const struct {
	int told;
	const char *first, *second[3], *words;
} poolers[] = {
	{1, PID, {PID, "mark", "t"}, "another process"},     {4711, PID, {"4712", "mark", "t"}, "another process"},
	{0, PID, {"4712", "mark", "t"}, "two transactions"}, {0, PID, {PID, "another", "t"}, "two transactions"},
	{0, PID, {PID, NULL, "t"}, "two transactions"},	     {4711, PID, {PID, "mark", "f"}, "does not stay"},
	{4711, PID, {PID, "mark", NULL}, "does not stay"},
};

START_TEST(test_poolers)
{
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	pgr_client_transport(s.c)->backend_pid = poolers[_i].told;
	sqls_row(&s, poolers[_i].first, "mark", "11");
	sqls_rows(&s, 3, 1, poolers[_i].second);
	ck_assert_int_eq(pgr_sql_prepare(s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_USAGE, poolers[_i].words);
	sqls_check_err(&s.err, PGR_E_USAGE, "\"scripted\"");
	ck_assert_str_ne(s.err.hint, "");
	sqls_end(&s);
}
END_TEST

START_TEST(test_session_unknown_pid)
{
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	pgr_client_transport(s.c)->backend_pid = 0;
	sqls_row(&s, "12", "mark", "11");
	sqls_row(&s, "12", "mark", "t");
	ck_assert_int_eq(pgr_sql_prepare(s.c, &s.err), PGR_OK);
	sqls_end(&s);
}
END_TEST

static const struct {
	int cols;
	const char *cells[4];
} nonsense[] = {
	{2, {PID, "mark"}},    {3, {"x", "mark", "1"}}, {3, {NULL, "mark", "1"}},
	{3, {PID, NULL, "1"}}, {3, {"", "m", "1"}},
};

START_TEST(test_prepare_nonsense)
{
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	sqls_rows(&s, nonsense[_i].cols, 1, nonsense[_i].cells);
	sqls_row(&s, PID, "mark", "t");
	ck_assert_int_eq(pgr_sql_prepare(s.c, &s.err), PGR_ERR);
	ck_assert_int_eq(s.err.cls, PGR_E_PROTOCOL);
	sqls_end(&s);
}
END_TEST

START_TEST(test_prepare_refused)
{
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	if (_i > 0)
		sqls_row(&s, PID, "mark", "11");
	sqls_error(&s, "42501", "permission denied");
	ck_assert_int_eq(pgr_sql_prepare(s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "could not set up an SQL session: ERROR:  permission denied");
	sqls_end(&s);
}
END_TEST

/* ---- privileges ---- */

static const char *const f15[] = {
	"pg_backup_start(text,boolean)",
	"pg_backup_stop(boolean)",
	"pg_read_binary_file(text,bigint,bigint,boolean)",
	"pg_ls_dir(text,boolean,boolean)",
	"pg_stat_file(text,boolean)",
};

static const struct {
	int version;
	const char *superuser;
	const char *may; /* of the five */
	const char *why; /* NULL: it may */
} rights[] = {
	{V15, "on", "ttttt", NULL},
	{V15, "on", "fffff", NULL},
	{V15, "off", "ttttt", NULL},
	{V11, "off", "ttttt", NULL},
	{V10, "on", "ttttt", NULL},
	{V10, "off", "ttttt", "role \"bk\" is no superuser, and before version 11 nobody else may read files"},
	{V15, "off", "ttftt", "role \"bk\" may not execute pg_read_binary_file(text,bigint,bigint,boolean)"},
	{V15, "off", "ftttf", "role \"bk\" may not execute pg_backup_start(text,boolean), pg_stat_file(text,boolean)"},
	{V15, NULL, "ttttf", "role \"bk\" may not execute pg_stat_file(text,boolean)"},
	{V15, "off", "tttt ", "role \"bk\" may not execute pg_stat_file(text,boolean)"},
};

START_TEST(test_may_read)
{
	const char *cells[20];
	char may[5][2] = {{0}};
	struct pgr_buf why = {0};
	struct sqlscript s;

	for (int i = 0; i < 5; i++) {
		may[i][0] = rights[_i].may[i];
		cells[4 * i] = "bk";
		cells[4 * i + 1] = rights[_i].superuser;
		cells[4 * i + 2] = f15[i];
		cells[4 * i + 3] = may[i][0] != ' ' ? may[i] : NULL;
	}
	sqls_begin(&s, rights[_i].version, 0);
	sqls_rows(&s, 4, 5, cells);
	ck_assert_int_eq(pgr_sql_may_read(s.c, &why, &s.err), rights[_i].why == NULL ? PGR_OK : PGR_MORE);
	ck_assert_str_eq(pgr_buf_str(&why), rights[_i].why != NULL ? rights[_i].why : "");
	sqls_check_sent(&s, "('pg_backup_start(text,boolean)')", rights[_i].version >= V15);
	sqls_check_sent(&s, "('pg_start_backup(text,boolean,boolean)')", rights[_i].version < V15);
	sqls_check_sent(&s, "('pg_stop_backup(boolean,boolean)')", rights[_i].version < V15);
	pgr_buf_fini(&why);
	sqls_end(&s);
}
END_TEST

START_TEST(test_may_read_old)
{
	struct pgr_buf why = {0};
	struct sqlscript s;

	sqls_begin(&s, V96, 0);
	ck_assert_int_eq(pgr_sql_may_read(s.c, &why, &s.err), PGR_MORE);
	ck_assert_str_eq(pgr_buf_str(&why), "server version 9.6.24 cannot be copied over SQL, only 10 and later");
	ck_assert_uint_eq(s.sent.len, 0);
	pgr_buf_fini(&why);
	sqls_end(&s);
}
END_TEST

START_TEST(test_may_read_nonsense)
{
	static const char *const few[] = {"bk", "off", "f", "t"};
	static const char *const nobody[20] = {NULL};
	struct pgr_buf why = {0};
	struct sqlscript s;

	sqls_begin(&s, V15, 0);
	sqls_rows(&s, 4, 1, few);
	ck_assert_int_eq(pgr_sql_may_read(s.c, &why, &s.err), PGR_ERR);
	ck_assert_int_eq(s.err.cls, PGR_E_PROTOCOL);
	sqls_rows(&s, 4, 5, nobody);
	ck_assert_int_eq(pgr_sql_may_read(s.c, &why, &s.err), PGR_ERR);
	ck_assert_int_eq(s.err.cls, PGR_E_PROTOCOL);
	sqls_error(&s, "42883", "function does not exist");
	ck_assert_int_eq(pgr_sql_may_read(s.c, &why, &s.err), PGR_ERR);
	ck_assert_int_eq(s.err.cls, PGR_E_SERVER);
	ck_assert_uint_eq(why.len, 0);
	pgr_buf_fini(&why);
	sqls_end(&s);
}
END_TEST

START_TEST(test_grants)
{
	struct pgr_buf b = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_sql_grants(&b, V15, "bk", &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&b), "GRANT EXECUTE ON FUNCTION\n"
					  "  pg_catalog.pg_backup_start(text,boolean),\n"
					  "  pg_catalog.pg_backup_stop(boolean),\n"
					  "  pg_catalog.pg_read_binary_file(text,bigint,bigint,boolean),\n"
					  "  pg_catalog.pg_ls_dir(text,boolean,boolean),\n"
					  "  pg_catalog.pg_stat_file(text,boolean)\n"
					  "  TO \"bk\";\n");
	b.len = 0;
	ck_assert_int_eq(pgr_sql_grants(&b, V14, "O\"Brien; --", &err), PGR_OK);
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&b), "pg_catalog.pg_start_backup(text,boolean,boolean),\n"
						      "  pg_catalog.pg_stop_backup(boolean,boolean),\n"));
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&b), "TO \"O\"\"Brien; --\";\n"));
	b.len = 0;
	ck_assert_int_eq(pgr_sql_grants(&b, V10, "bk", &err), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "10.23");
	ck_assert_uint_eq(b.len, 0);
	pgr_buf_fini(&b);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
	Suite *s = suite_create("sql");
	TCase *commands = tcase_create("commands"), *session = tcase_create("session"), *may = tcase_create("rights");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(commands, test_quoting, 0, COUNT(quoted));
	tcase_add_loop_test(commands, test_query, 0, N_CHUNKS);
	tcase_add_loop_test(commands, test_rows, 0, N_CHUNKS);
	tcase_add_loop_test(commands, test_rows_refused_by_the_server, 0, N_CHUNKS);
	tcase_add_test(commands, test_rows_refused_by_us);
	tcase_add_loop_test(commands, test_wrong_columns, 0, 2);
	tcase_add_test(commands, test_rows_by_copy);
	tcase_add_test(commands, test_rows_cut_off);
	tcase_add_loop_test(session, test_prepare, 0, N_CHUNKS);
	tcase_add_test(session, test_prepare_and_ask);
	tcase_add_test(session, test_prepare_nothing_before_10);
	tcase_add_loop_test(session, test_poolers, 0, COUNT(poolers));
	tcase_add_test(session, test_session_unknown_pid);
	tcase_add_loop_test(session, test_prepare_nonsense, 0, COUNT(nonsense));
	tcase_add_loop_test(session, test_prepare_refused, 0, 2);
	tcase_add_loop_test(may, test_may_read, 0, COUNT(rights));
	tcase_add_test(may, test_may_read_old);
	tcase_add_test(may, test_may_read_nonsense);
	tcase_add_test(may, test_grants);
	suite_add_tcase(s, commands);
	suite_add_tcase(s, session);
	suite_add_tcase(s, may);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
