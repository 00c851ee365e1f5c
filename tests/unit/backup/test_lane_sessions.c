/* Sessions that are opened ahead, each against a scripted server. */
#include <check.h>
#include <stdatomic.h>
#include <string.h>

#include "backup/lane_sessions.h"
#include "common/stop.h"
#include "common/sys.h"
#include "tests/support/scripted.h"
#include "tests/support/sqlscript.h"

#define N  3
#define V  150020
#define ID "7000000000000000001 2026-01-01 00:00:00.000001"

static struct sqlscript scripts[N];
static struct pgr_stop *stop;
static struct pgr_lane_sessions *sessions;
static struct pgr_err err;
static atomic_uint begun;

/* Threads come in any order; a script whose `c` is NULL is a server that is not there. */
static int open_script(void *arg, struct pgr_client **out, struct pgr_err *e)
{
	unsigned n = atomic_fetch_add(&begun, 1);

	(void)arg;
	*out = n < N ? scripts[n].c : NULL;
	if (*out == NULL)
		return pgr_err_set(e, PGR_E_CONNECT, "nobody there");
	scripts[n].c = NULL;
	return PGR_OK;
}

static void answer(struct sqlscript *s, const char *pid, const char *id)
{
	sqls_row(s, "4711", "mark", "11");
	sqls_row(s, pid, "mark", "t");
	sqls_row(s, id);
}

static void setup(void)
{
	ck_assert_int_eq(pgr_stop_new(&stop, &err), PGR_OK);
	begun = 0;
	for (int i = 0; i < N; i++) {
		sqls_begin(&scripts[i], V, 0);
		pgr_scripted_set_stop(scripts[i].srv, stop);
	}
}

static void teardown(void)
{
	pgr_lane_sessions_free(sessions);
	sessions = NULL;
	for (int i = 0; i < N; i++)
		sqls_end(&scripts[i]);
	pgr_stop_free(stop);
}

static void start(void)
{
	const struct pgr_lane_sessions_opts o = {.n = N, .connect = open_script};

	ck_assert_msg(pgr_lane_sessions_start(&sessions, &o, pgr_sys_real(), stop, &err) == PGR_OK, "%s", err.msg);
}

/* All, or all but the first, which is closed with the rest. */
START_TEST(taken)
{
	for (int i = 0; i < N; i++)
		answer(&scripts[i], "4711", ID);
	start();
	for (unsigned i = (unsigned)_i; i < N; i++) {
		struct pgr_client *c;
		struct pgr_buf id = {0};

		ck_assert_msg(pgr_lane_sessions_take(sessions, i, &c, &id, &err) == PGR_OK, "%s", err.msg);
		ck_assert_str_eq(pgr_buf_str(&id), ID);
		ck_assert_int_eq(pgr_client_state(c), PGR_SS_READY);
		pgr_client_free(c);
		pgr_buf_fini(&id);
	}
}
END_TEST

/* Who the server is, is asked together with the second question about the session. */
START_TEST(two_waits)
{
	static const char *const names[] = {"a", "b", "c"};

	for (int i = 0; i < N; i++) {
		struct sqlscript *s = &scripts[i];

		sqls_row(s, "4711", "mark", "11");
		pgr_scripted_expect(s->srv, 'Q');
		pgr_scripted_expect(s->srv, 'Q');
		pgr_msg_row_desc(&s->msg, 3, names);
		pgr_msg_row(&s->msg, 3, (const char *const[]){"4711", "mark", "t"});
		pgr_msg_complete(&s->msg, "SELECT");
		pgr_msg_ready(&s->msg);
		pgr_msg_row_desc(&s->msg, 1, names);
		pgr_msg_row(&s->msg, 1, (const char *const[]){ID});
		pgr_msg_complete(&s->msg, "SELECT");
		pgr_msg_ready(&s->msg);
		pgr_scripted_send_buf(s->srv, &s->msg);
	}
	start();
	for (unsigned i = 0; i < N; i++) {
		struct pgr_client *c;
		struct pgr_buf id = {0};

		ck_assert_msg(pgr_lane_sessions_take(sessions, i, &c, &id, &err) == PGR_OK, "%s", err.msg);
		pgr_client_free(c);
		pgr_buf_fini(&id);
	}
}
END_TEST

static const struct {
	const char *pid, *id; /* pid NULL: nobody there */
	enum pgr_errclass cls;
	const char *words;
} failures[] = {
	{NULL, NULL, PGR_E_CONNECT, "nobody there"},
	{"4712", ID, PGR_E_USAGE, "pooler"},
	{"4711", NULL, PGR_E_PROTOCOL, "which one it is"},
};

/* Each has its own error; nothing is posted for others to fail with. */
START_TEST(failed)
{
	for (int i = 0; i < N; i++) {
		if (failures[_i].pid != NULL) {
			answer(&scripts[i], failures[_i].pid, failures[_i].id);
			continue;
		}
		pgr_client_free(scripts[i].c);
		scripts[i].c = NULL;
	}
	start();
	for (unsigned i = 0; i < N; i++) {
		struct pgr_client *c;
		struct pgr_buf id = {0};

		ck_assert_int_eq(pgr_lane_sessions_take(sessions, i, &c, &id, &err), PGR_ERR);
		sqls_check_err(&err, failures[_i].cls, failures[_i].words);
		ck_assert_ptr_null(c);
		ck_assert_uint_eq(id.len, 0);
	}
	ck_assert(!pgr_stop_is_set(stop));
}
END_TEST

/* Servers that say nothing are not waited for when the run has failed. */
START_TEST(stopped)
{
	struct pgr_err why;

	start();
	pgr_err_set(&why, PGR_E_STOPPED, "stopped");
	pgr_stop_post(stop, &why);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("lane_sessions");
	TCase *t = tcase_create("lane_sessions");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, taken, 0, 2);
	tcase_add_test(t, two_waits);
	tcase_add_loop_test(t, failed, 0, (int)(sizeof(failures) / sizeof(failures[0])));
	tcase_add_test(t, stopped);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed_tests;

	srunner_run_all(sr, CK_NORMAL);
	failed_tests = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed_tests == 0 ? 0 : 1;
}
