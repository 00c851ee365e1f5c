#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backup/wal_conn.h"
#include "backup/wal_stream.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/scripted.h"
#include "tests/support/tmptree.h"

#define SEG	 PGR_WALSEG_MIN
#define START	 ((pgr_lsn)3 * SEG)
#define SEG3	 "pg_wal/000000010000000000000003"
#define SEG4	 "pg_wal/000000010000000000000004"
#define VERSION	 150020
#define SYSID	 "7654321098765432109"
#define SESSIONS 16
#define HOUR	 3600000

/* ---- a run: one script for each connection ---- */

struct session {
	struct pgr_scripted *server; /* NULL: the connection cannot be made */
	struct pgr_client *client;   /* until it is handed over */
	struct pgr_buf sent;
	const char *sqlstate; /* of the refusal */
	int64_t after_ms;     /* the clock moves on by so much when it is asked for */
};

struct clock {
	struct pgr_sys sys; /* first */
	_Atomic int64_t ms;
};

static struct fixture {
	struct tmptree tree;
	struct pgr_fault_sys fault;
	struct clock clock;
	struct pgr_stop *stop;
	struct pgr_wal_stream *w;
	struct pgr_wal_stream_opts opts;
	struct pgr_wal_stream_dir dir;
	struct session sessions[SESSIONS];
	unsigned planned;
	atomic_uint opened; /* attempts */
	atomic_uint warnings, infos;
	char said[4096]; /* the warnings; written by the thread, read after the join */
	struct pgr_err err;
} fx;

static struct session *last(void)
{
	return &fx.sessions[fx.planned - 1];
}

static struct pgr_scripted *server(void)
{
	return last()->server;
}

static int open_planned(void *arg, struct pgr_client **out, struct pgr_err *err)
{
	unsigned n = atomic_fetch_add(&fx.opened, 1);
	struct session *s = &fx.sessions[n];

	(void)arg;
	*out = NULL;
	if (n < fx.planned)
		atomic_fetch_add(&fx.clock.ms, s->after_ms);
	if (n < fx.planned && s->client != NULL) {
		*out = s->client;
		s->client = NULL;
		return PGR_OK;
	}
	pgr_err_set(err, PGR_E_CONNECT, "attempt %u: nobody there", n);
	if (n < fx.planned && s->sqlstate != NULL)
		memcpy(err->sqlstate, s->sqlstate, 6);
	return PGR_ERR;
}

static void on_warning(void *arg, const char *line)
{
	size_t n = strlen(fx.said);

	(void)arg;
	atomic_fetch_add(&fx.warnings, 1);
	snprintf(fx.said + n, sizeof(fx.said) - n, "%s\n", line);
}

static void on_info(void *arg, const char *line)
{
	(void)arg;
	(void)line;
	atomic_fetch_add(&fx.infos, 1);
}

/* A session in which the server says something lasts a minute. */
static void on_notice(void *arg, const char *text)
{
	(void)arg;
	(void)text;
	atomic_fetch_add(&fx.clock.ms, 60000);
}

static int64_t mono_ms(const struct pgr_sys *sys)
{
	const struct clock *c = (const struct clock *)sys;

	return atomic_load(&c->ms) + pgr_sys_real()->mono_ms(pgr_sys_real());
}

static void setup(void)
{
	memset(&fx, 0, sizeof(fx));
	tmp_make(&fx.tree);
	tmp_mkdir(&fx.tree, "pg_wal", 0700);
	tmp_mkdir(&fx.tree, "pg_wal/archive_status", 0700);
	pgr_fault_sys_init(&fx.fault, 0, EIO);
	fx.clock.sys = *pgr_sys_real();
	fx.clock.sys.mono_ms = mono_ms;
	ck_assert_int_eq(pgr_stop_new(&fx.stop, &fx.err), PGR_OK);
	fx.opts = (struct pgr_wal_stream_opts){
		.temporary_slot = true,
		.info = on_info,
		.warning = on_warning,
		.ping_ms = HOUR,
		.retry_first_ms = 1,
		.connect = open_planned,
	};
	fx.dir = (struct pgr_wal_stream_dir){.name = "pg_wal", .segment_bytes = SEG, .file_mode = 0600, .sync = true};
}

static void release(void)
{
	pgr_wal_stream_free(fx.w);
	fx.w = NULL;
	for (unsigned i = 0; i < fx.planned; i++) {
		pgr_client_free(fx.sessions[i].client);
		pgr_buf_fini(&fx.sessions[i].sent);
		fx.sessions[i] = (struct session){0};
	}
	fx.planned = 0;
	fx.opened = 0;
}

static void teardown(void)
{
	release();
	pgr_stop_free(fx.stop);
	tmp_remove(&fx.tree);
}

/* ---- what a server says ---- */

static void plan_refusal(const char *sqlstate)
{
	ck_assert_uint_lt(fx.planned, SESSIONS);
	fx.sessions[fx.planned++] = (struct session){.sqlstate = sqlstate};
}

static void plan_bare_session(void)
{
	struct session *s = &fx.sessions[fx.planned++];

	ck_assert_uint_le(fx.planned, SESSIONS);
	s->server = pgr_scripted_new(VERSION, 0);
	pgr_scripted_set_stop(s->server, fx.stop);
	pgr_scripted_tap(s->server, &s->sent);
	pgr_scripted_transport(s->server)->backend_pid = 100 + (int)fx.planned;
	ck_assert_int_eq(
		pgr_client_new(&s->client, pgr_scripted_transport(s->server), pgr_sys_real(), on_notice, NULL, &fx.err),
		PGR_OK);
}

static void say_row(const char *tag, const char *const *values)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	struct pgr_buf b = {0};

	pgr_msg_row_desc(&b, 4, names);
	pgr_msg_row(&b, 4, values);
	pgr_msg_complete(&b, tag);
	pgr_msg_ready(&b);
	pgr_scripted_send_buf(server(), &b);
}

static void s_row(const char *tag, const char *const *values)
{
	pgr_scripted_expect(server(), 'Q');
	say_row(tag, values);
}

static void s_identify_as(const char *sysid, const char *tli)
{
	s_row("IDENTIFY_SYSTEM", (const char *const[]){sysid, tli, "0/300000", NULL});
}

static void s_identify(void)
{
	s_identify_as(SYSID, "1");
}

static void s_slot(void)
{
	s_row("CREATE_REPLICATION_SLOT", (const char *const[]){"slot", "0/0", NULL, NULL});
}

static void s_error(const char *severity, const char *sqlstate)
{
	struct pgr_buf b = {0};

	pgr_msg_error(&b, severity, sqlstate, "the server's words");
	if (strcmp(severity, "ERROR") == 0)
		pgr_msg_ready(&b);
	pgr_scripted_send_buf(server(), &b);
	if (strcmp(severity, "ERROR") != 0)
		pgr_scripted_eof(server());
}

static void s_refuses(const char *severity, const char *sqlstate)
{
	pgr_scripted_expect(server(), 'Q');
	s_error(severity, sqlstate);
}

/* Up to where START_REPLICATION comes. */
static void plan_session(void)
{
	plan_bare_session();
	s_identify();
	s_slot();
	s_identify();
}

static void s_both(void)
{
	struct pgr_buf b = {0};

	pgr_scripted_expect(server(), 'Q');
	pgr_msg_copy_response(&b, 'W');
	pgr_scripted_send_buf(server(), &b);
}

/* The header of the first page of a segment, as PostgreSQL 15 writes it (xlog_internal.h). */
static void make_head(uint8_t head[40], pgr_lsn addr)
{
	const uint16_t words[] = {0xD110, 0x0002};
	const uint32_t tli = 1, sizes[] = {SEG, 8192};
	const uint64_t id = strtoull(SYSID, NULL, 10);

	memset(head, 0, 40);
	memcpy(head, words, 4);
	memcpy(head + 4, &tli, 4);
	memcpy(head + 8, &addr, 8);
	memcpy(head + 24, &id, 8);
	memcpy(head + 32, sizes, 8);
}

static uint8_t wal_byte(pgr_lsn lsn)
{
	uint32_t off = pgr_lsn_segoff(lsn, SEG);
	uint8_t head[40];

	if (off < sizeof(head)) {
		make_head(head, lsn - off);
		return head[off];
	}
	return (uint8_t)((lsn * UINT64_C(0x9E3779B97F4A7C15)) >> 56);
}

static void s_wal(pgr_lsn lsn, size_t len)
{
	struct pgr_buf body = {0}, b = {0};
	uint8_t *wal = malloc(len);

	ck_assert_ptr_nonnull(wal);
	for (size_t i = 0; i < len; i++)
		wal[i] = wal_byte(lsn + i);
	pgr_msg_wal(&body, lsn, lsn + len, wal, len);
	pgr_msg_copy_data(&b, body.data, body.len);
	pgr_scripted_send_buf(server(), &b);
	pgr_buf_fini(&body);
	free(wal);
}

/* The client ends the stream. */
static void s_end(void)
{
	struct pgr_buf b = {0};

	pgr_scripted_expect(server(), 'c');
	pgr_msg_copy_done(&b);
	pgr_msg_complete(&b, "COPY 0");
	pgr_msg_complete(&b, "START_STREAMING");
	pgr_msg_ready(&b);
	pgr_scripted_send_buf(server(), &b);
}

/* A session that sends the WAL in [from, to) and is lost. */
static void plan_lost(pgr_lsn from, pgr_lsn to)
{
	plan_session();
	s_both();
	if (to > from)
		s_wal(from, to - from);
	pgr_scripted_reset(server());
}

/* A session that sends the WAL in [from, to), and may be ended. */
static void plan_whole(pgr_lsn from, pgr_lsn to)
{
	plan_session();
	s_both();
	s_wal(from, to - from);
	s_end();
}

/* ---- what we do ---- */

static int open_with(const struct pgr_sys *sys)
{
	int dir = open(tmp_at(&fx.tree, "pg_wal"), O_RDONLY | O_DIRECTORY);

	ck_assert_int_ge(dir, 0);
	if (pgr_wal_stream_connect(&fx.w, &fx.opts, NULL, sys, fx.stop, &fx.err) != PGR_OK) {
		close(dir);
		return PGR_ERR;
	}
	if (pgr_wal_stream_set_dir(fx.w, dir, &fx.dir, &fx.err) != PGR_OK)
		return PGR_ERR;
	return pgr_wal_stream_open(fx.w, SYSID, &fx.err);
}

static void open_and_start(const struct pgr_sys *sys)
{
	int rc = open_with(sys);

	ck_assert_msg(rc == PGR_OK, "%s", fx.err.msg);
	pgr_wal_stream_start(fx.w, START + 1000, 1);
}

static void finishes(pgr_lsn end)
{
	int rc = pgr_wal_stream_finish(fx.w, end, &fx.err);

	ck_assert_msg(rc == PGR_OK, "%s", fx.err.msg);
	ck_assert(!pgr_stop_is_set(fx.stop));
}

/* The thread fails by itself: the run's end is far away. */
static void fails(enum pgr_errclass cls, const char *words)
{
	struct pgr_err why;

	ck_assert_int_eq(pgr_wal_stream_finish(fx.w, START + 100 * SEG, &fx.err), PGR_ERR);
	ck_assert_msg(fx.err.cls == cls, "class %d: %s", fx.err.cls, fx.err.msg);
	ck_assert_msg(strstr(fx.err.msg, words) != NULL, "\"%s\" is not in \"%s\"", words, fx.err.msg);
	ck_assert_msg(strstr(fx.err.msg, "background process terminated unexpectedly: ") == fx.err.msg, "%s",
		      fx.err.msg);
	pgr_stop_why(fx.stop, &why);
	ck_assert_str_eq(why.msg, fx.err.msg);
}

static void check_wal(const char *name, pgr_lsn from, pgr_lsn to)
{
	size_t len;
	uint8_t *content = (uint8_t *)tmp_read(&fx.tree, name, &len);

	ck_assert_uint_eq(len, SEG);
	for (size_t i = 0; i < len; i++)
		if (content[i] != (i < to - from ? wal_byte(from + i) : 0))
			ck_abort_msg("%s: byte %zu is wrong", name, i);
	free(content);
}

static void check_sent(unsigned i, const char *text)
{
	const struct pgr_buf *sent = &fx.sessions[i].sent;

	ck_assert_msg(memmem(sent->data, sent->len, text, strlen(text)) != NULL, "connection %u: not sent: %s", i,
		      text);
}

static void wait_for(atomic_uint *counter, unsigned n)
{
	while (atomic_load(counter) < n)
		usleep(1000);
}

/* ---- tests ---- */

START_TEST(without_a_loss)
{
	plan_whole(START, START + SEG + 500);
	open_and_start(pgr_sys_real());
	finishes(START + SEG + 400);
	ck_assert_uint_eq(fx.opened, 1);
	ck_assert_uint_eq(fx.warnings, 0);
	ck_assert_uint_ge(pgr_wal_stream_synced(fx.w), START + SEG + 400);
	check_sent(0, "CREATE_REPLICATION_SLOT \"pg_basebackup_101\" TEMPORARY");
	check_wal(SEG3, START, START + SEG);
	check_wal(SEG4, START + SEG, START + SEG + 500);
}
END_TEST

/* Who has other things to do first does not keep the WAL waiting. */
START_TEST(the_end_is_told_early)
{
	plan_whole(START, START + 500);
	open_and_start(pgr_sys_real());
	pgr_wal_stream_end_at(fx.w, START + 400);
	while (pgr_wal_stream_synced(fx.w) < START + 400) /* nothing else makes it durable */
		usleep(1000);
	finishes(START + 400);
	ck_assert_uint_eq(fx.opened, 1);
	check_wal(SEG3, START, START + 500);
}
END_TEST

START_TEST(lost_in_the_stream)
{
	plan_lost(START, START + SEG + 5000);
	plan_lost(START + SEG, START + SEG + 300); /* ends before what is there */
	plan_lost(START + SEG, START + SEG + 70000);
	plan_whole(START + SEG, START + SEG + 90000);
	open_and_start(pgr_sys_real());
	finishes(START + SEG + 80000);
	ck_assert_uint_eq(fx.opened, 4);
	ck_assert_uint_eq(fx.warnings, 3);
	ck_assert_ptr_nonnull(strstr(fx.said, "connecting again: could not receive data from server"));
	check_sent(0, "START_REPLICATION SLOT \"pg_basebackup_101\" 0/300000 TIMELINE 1");
	check_sent(1, "CREATE_REPLICATION_SLOT \"pg_basebackup_102\" TEMPORARY");
	check_sent(1, "START_REPLICATION SLOT \"pg_basebackup_102\" 0/400000 TIMELINE 1");
	check_sent(3, "START_REPLICATION SLOT \"pg_basebackup_104\" 0/400000 TIMELINE 1");
	check_wal(SEG3, START, START + SEG);
	check_wal(SEG4, START + SEG, START + SEG + 90000);
	ck_assert(tmp_exists(&fx.tree, "pg_wal/archive_status/000000010000000000000003.done"));
}
END_TEST

START_TEST(a_slot_of_its_own_stays)
{
	fx.opts.slot = "mine";
	fx.opts.create_slot = true;
	plan_bare_session();
	s_identify();
	s_slot();
	s_identify();
	s_both();
	s_wal(START, 100);
	pgr_scripted_eof(server());
	plan_bare_session(); /* it is not made again */
	s_identify();
	s_identify();
	s_both();
	s_wal(START, 200);
	s_end();
	open_and_start(pgr_sys_real());
	finishes(START + 200);
	ck_assert(pgr_wal_stream_made_slot(fx.w));
	check_sent(1, "START_REPLICATION SLOT \"mine\" 0/300000");
}
END_TEST

/* ---- the first connection ---- */

static void connect_only(void)
{
	int rc = pgr_wal_stream_connect(&fx.w, &fx.opts, NULL, pgr_sys_real(), fx.stop, &fx.err);

	ck_assert_msg(rc == PGR_OK, "%s", fx.err.msg);
}

/* Both questions are on their way before the first one is answered: the script answers none before it has both. */
START_TEST(identity_and_slot_at_once)
{
	plan_bare_session();
	pgr_scripted_expect(server(), 'Q');
	pgr_scripted_expect(server(), 'Q');
	say_row("IDENTIFY_SYSTEM", (const char *const[]){SYSID, "1", "0/300000", NULL});
	say_row("CREATE_REPLICATION_SLOT", (const char *const[]){"s", "0/0", NULL, NULL});
	connect_only();
	ck_assert_msg(pgr_wal_stream_open(fx.w, SYSID, &fx.err) == PGR_OK, "%s", fx.err.msg);
	check_sent(0, "CREATE_REPLICATION_SLOT \"pg_basebackup_101\" TEMPORARY");
}
END_TEST

/* A permanent slot is not made on another cluster, nor before anybody says which one it must be. */
START_TEST(no_permanent_slot_unasked)
{
	fx.opts.slot = "mine";
	fx.opts.create_slot = true;
	plan_bare_session();
	s_identify_as("1", "1");
	connect_only();
	if (_i == 0) {
		ck_assert_int_eq(pgr_wal_stream_open(fx.w, SYSID, &fx.err), PGR_ERR);
		ck_assert_int_eq(fx.err.cls, PGR_E_USAGE);
	}
	ck_assert(!pgr_wal_stream_made_slot(fx.w));
	ck_assert(!pgr_stop_is_set(fx.stop));
	pgr_wal_stream_free(fx.w);
	fx.w = NULL;
	ck_assert_ptr_null(memmem(fx.sessions[0].sent.data, fx.sessions[0].sent.len, "CREATE", 6));
}
END_TEST

/* What went wrong is told when it is asked for, and is nobody else's failure; another cluster explains all of it. */
START_TEST(opening_fails)
{
	static const struct {
		const char *sysid, *text;
	} cases[] = {
		{SYSID, "slot that is not there"}, {"1", "system identifier does not match"}, {NULL, "nobody there"}};

	fx.opts.slot = "mine";
	if (cases[_i].sysid != NULL) {
		plan_bare_session();
		s_identify_as(cases[_i].sysid, "1");
		s_refuses("FATAL", "42704");
	}
	connect_only();
	ck_assert_int_eq(pgr_wal_stream_open(fx.w, SYSID, &fx.err), PGR_ERR);
	if (_i > 0)
		ck_assert_msg(strstr(fx.err.msg, cases[_i].text) != NULL, "%s", fx.err.msg);
	else
		ck_assert_str_eq(fx.err.sqlstate, "42704");
	ck_assert(!pgr_stop_is_set(fx.stop));
	ck_assert_uint_eq(fx.opened, 1);
}
END_TEST

/* The server says nothing, and the run is stopped. */
START_TEST(opening_is_stopped)
{
	struct pgr_err why;

	plan_bare_session();
	connect_only();
	pgr_err_set(&why, PGR_E_STOPPED, "stopped");
	pgr_stop_post(fx.stop, &why);
	if (_i == 0) {
		ck_assert_int_eq(pgr_wal_stream_open(fx.w, SYSID, &fx.err), PGR_ERR);
		ck_assert_int_eq(fx.err.cls, PGR_E_STOPPED);
	}
}
END_TEST

/* Nothing was asked for yet: the connection is lost while the server makes its checkpoint. */
START_TEST(lost_before_the_start)
{
	fx.opts.ping_ms = 1;
	plan_bare_session();
	s_identify();
	s_slot();
	pgr_scripted_expect(server(), 'Q');
	pgr_scripted_reset(server());
	plan_bare_session();
	s_identify();
	s_slot();
	s_refuses("FATAL", "57P05"); /* idle_session_timeout */
	plan_refusal(NULL);
	plan_bare_session();
	s_identify();
	s_slot();
	for (int i = 0; i < 10000; i++)
		s_identify(); /* pings, and the receiver's own */
	s_both();
	ck_assert_int_eq(open_with(pgr_sys_real()), PGR_OK);
	wait_for(&fx.opened, 4);
	pgr_wal_stream_free(fx.w);
	fx.w = NULL;
	ck_assert(!pgr_stop_is_set(fx.stop));
	ck_assert_uint_eq(fx.opened, 4);
	ck_assert_uint_eq(fx.warnings, 2);
	check_sent(3, "CREATE_REPLICATION_SLOT \"pg_basebackup_104\" TEMPORARY");
}
END_TEST

/* A server that has not noticed yet that the session before is gone. */
static const char *const passing[] = {"55006", "53300", "53400", "57P03", "08006"};

START_TEST(errors_that_pass)
{
	plan_lost(START, START + 100);
	plan_session();
	s_refuses("ERROR", passing[_i]);
	plan_bare_session();
	s_identify();
	s_refuses("ERROR", passing[_i]);
	plan_refusal(passing[_i]);
	plan_refusal(NULL);
	plan_whole(START, START + 300);
	open_and_start(pgr_sys_real());
	finishes(START + 300);
	ck_assert_uint_eq(fx.opened, 6);
	check_wal(SEG3, START, START + 300);
}
END_TEST

static const char *const lasting[] = {"57P01", "58P01", "42704", "28P01", "42501"};

START_TEST(errors_that_stay_end_the_stream)
{
	plan_session();
	s_both();
	s_wal(START, 100);
	s_error("FATAL", lasting[_i]);
	open_and_start(pgr_sys_real());
	fails(PGR_E_SERVER, "the server's words");
	ck_assert_str_eq(fx.err.sqlstate, lasting[_i]);
	ck_assert_uint_eq(fx.opened, 1);
	ck_assert_uint_eq(fx.warnings, 0);
	check_wal(SEG3, START, START + 100);
}
END_TEST

START_TEST(errors_that_stay_end_the_retries)
{
	plan_lost(START, START + 100);
	plan_session();
	s_refuses("ERROR", lasting[_i]);
	open_and_start(pgr_sys_real());
	fails(PGR_E_SERVER, "the server's words");
	ck_assert_uint_eq(fx.opened, 2);
}
END_TEST

START_TEST(refusals_that_stay_end_the_retries)
{
	plan_lost(START, START + 100);
	plan_refusal(lasting[_i]);
	open_and_start(pgr_sys_real());
	fails(PGR_E_CONNECT, "could not make the connection for WAL again: attempt 1: nobody there");
	ck_assert_uint_eq(fx.opened, 2);
}
END_TEST

START_TEST(an_ordinary_error_is_final)
{
	plan_session();
	s_refuses("ERROR", "XX000"); /* "not in this server's history" */
	open_and_start(pgr_sys_real());
	fails(PGR_E_SERVER, "START_REPLICATION");
	ck_assert_uint_eq(fx.opened, 1);
}
END_TEST

START_TEST(a_slot_in_use_is_final_at_first)
{
	plan_session();
	s_refuses("ERROR", "55006");
	open_and_start(pgr_sys_real());
	fails(PGR_E_SERVER, "START_REPLICATION");
	ck_assert_uint_eq(fx.opened, 1);
	ck_assert_uint_eq(fx.warnings, 0);
}
END_TEST

START_TEST(another_cluster)
{
	plan_lost(START, START + 100);
	plan_bare_session();
	s_identify_as("1234567890123456789", "1");
	open_and_start(pgr_sys_real());
	fails(PGR_E_USAGE, "system identifier does not match");
	ck_assert_uint_eq(fx.opened, 2);
}
END_TEST

START_TEST(a_server_without_the_timeline)
{
	plan_bare_session();
	s_identify();
	s_slot();
	s_identify_as(SYSID, "4");
	s_row("TIMELINE_HISTORY", (const char *const[]){NULL, NULL, NULL, NULL});
	ck_assert_int_eq(open_with(pgr_sys_real()), PGR_OK);
	pgr_wal_stream_start(fx.w, START, 5);
	fails(PGR_E_USAGE, "timeline 5 is not present in the server");
	ck_assert_uint_eq(fx.opened, 1);
}
END_TEST

START_TEST(a_clean_shutdown)
{
	struct pgr_buf b = {0};

	plan_session();
	s_both();
	s_wal(START, 100);
	pgr_msg_complete(&b, "COPY 0");
	pgr_scripted_send_buf(server(), &b);
	pgr_scripted_eof(server());
	open_and_start(pgr_sys_real());
	fails(PGR_E_NETWORK, "the server shut down");
	ck_assert_uint_eq(fx.opened, 1);
	ck_assert_uint_eq(fx.warnings, 0);
}
END_TEST

/* Without a sync for each message, what came is durable only when the session has ended. */
static void wait_for_loss(pgr_lsn synced)
{
	while (pgr_wal_stream_synced(fx.w) < synced)
		usleep(1000);
}

/* What is lacking is only the word that it is all. */
START_TEST(everything_was_there)
{
	fx.opts.retry_first_ms = HOUR; /* the wait ends when the word comes */
	plan_lost(START, START + 1000);
	open_and_start(pgr_sys_real());
	wait_for_loss(START + 1000);
	finishes(START + 1000);
	ck_assert_uint_eq(fx.opened, 1);
	ck_assert_uint_eq(fx.warnings, 0);
	check_wal(SEG3, START, START + 1000);
}
END_TEST

START_TEST(a_stop_ends_the_wait)
{
	struct pgr_err why;

	fx.opts.retry_first_ms = HOUR;
	plan_lost(START, START + 1000);
	open_and_start(pgr_sys_real());
	wait_for_loss(START + 1000);
	pgr_err_set(&why, PGR_E_USAGE, "somebody else failed");
	pgr_stop_post(fx.stop, &why);
	ck_assert_int_eq(pgr_wal_stream_finish(fx.w, START + SEG, &fx.err), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_STOPPED);
	ck_assert_uint_eq(fx.warnings, 0);
}
END_TEST

START_TEST(free_ends_the_wait)
{
	fx.opts.retry_first_ms = HOUR;
	plan_lost(START, START + 1000);
	open_and_start(pgr_sys_real());
	wait_for_loss(START + 1000);
	pgr_wal_stream_free(fx.w);
	fx.w = NULL;
	ck_assert(!pgr_stop_is_set(fx.stop));
}
END_TEST

/* ---- the limit ---- */

START_TEST(nobody_there_for_too_long)
{
	plan_lost(START, START + 100);
	for (int i = 0; i < 3; i++) {
		plan_refusal(NULL);
		last()->after_ms = PGR_WAL_RETRY_MS / 3 + 1;
	}
	plan_whole(START, START + 300); /* too late */
	open_and_start(&fx.clock.sys);
	fails(PGR_E_NETWORK, "could not receive data");
	ck_assert_uint_eq(fx.opened, 4);
	ck_assert_ptr_nonnull(strstr(fx.err.detail, "attempt 3: nobody there"));
}
END_TEST

START_TEST(sessions_without_progress)
{
	plan_lost(START, START + 10000);
	for (int i = 0; i < 3; i++) {
		plan_lost(START, START + 10000);
		last()->after_ms = PGR_WAL_RETRY_MS / 3 + 1; /* and the session itself is short */
	}
	plan_whole(START, START + 20000); /* too late */
	open_and_start(&fx.clock.sys);
	fails(PGR_E_NETWORK, "could not receive data");
	ck_assert_uint_eq(fx.opened, 4);
	ck_assert_ptr_nonnull(strstr(fx.err.detail, "before any new WAL had come"));
}
END_TEST

/* On an idle server nothing new comes. */
START_TEST(long_sessions_begin_the_count_anew)
{
	plan_lost(START, START + 10000);
	for (int i = 0; i < 4; i++) {
		struct pgr_buf b = {0};

		plan_session();
		last()->after_ms = PGR_WAL_RETRY_MS / 3 + 1;
		s_both();
		s_wal(START, 10000);
		pgr_msg_notice(&b, "NOTICE", "00000", "a minute");
		pgr_scripted_send_buf(server(), &b);
		pgr_scripted_reset(server());
	}
	plan_whole(START, START + 20000);
	open_and_start(&fx.clock.sys);
	finishes(START + 20000);
	ck_assert_uint_eq(fx.opened, 6);
}
END_TEST

START_TEST(progress_begins_the_count_anew)
{
	for (unsigned i = 1; i <= 6; i++) {
		plan_lost(START, START + i * 1000);
		last()->after_ms = PGR_WAL_RETRY_MS / 2;
	}
	plan_whole(START, START + 10000);
	open_and_start(&fx.clock.sys);
	finishes(START + 9000);
	ck_assert_uint_eq(fx.opened, 7);
	ck_assert_uint_eq(fx.warnings, 6);
	check_wal(SEG3, START, START + 10000);
}
END_TEST

/* ---- this side ---- */

static void plan_for_faults(void)
{
	plan_lost(START, START + SEG + 5000);
	plan_whole(START + SEG, START + SEG + 9000);
}

/* Every call that can fail does, once: the run is right, or it fails and says what did; no disk error is retried. */
START_TEST(own_failures)
{
	unsigned at = 0, failures = 0;

	do {
		unsigned fds;
		int rc;

		teardown();
		setup();
		pgr_fault_sys_init(&fx.fault, ++at, EIO);
		plan_for_faults();
		fds = tmp_open_fds();
		rc = open_with(&fx.fault.sys);
		if (rc == PGR_OK) {
			pgr_wal_stream_start(fx.w, START, 1);
			rc = pgr_wal_stream_finish(fx.w, START + SEG + 8000, &fx.err);
		}
		if (rc == PGR_OK) {
			check_wal(SEG3, START, START + SEG);
			check_wal(SEG4, START + SEG, START + SEG + 9000);
			ck_assert_uint_eq(fx.opened, 2);
		} else {
			failures++;
			ck_assert_msg(fx.fault.triggered, "%s", fx.err.msg);
			ck_assert_msg(fx.err.cls == PGR_E_SYSTEM, "%s: class %d: %s", fx.fault.failed_call, fx.err.cls,
				      fx.err.msg);
		}
		release();
		ck_assert_msg(tmp_open_fds() <= fds, "call %u (%s) left a descriptor behind", at, fx.fault.failed_call);
	} while (fx.fault.triggered);
	ck_assert_uint_gt(failures, 10);
}
END_TEST

START_TEST(what_is_retried)
{
	static const struct {
		enum pgr_errclass cls;
		const char *sqlstate;
		bool fatal, retried;
	} cases[] = {
		{PGR_E_NETWORK, "", false, true},	{PGR_E_CONNECT, "", false, true},
		{PGR_E_CONNECT, "57P03", false, true},	{PGR_E_CONNECT, "53300", false, true},
		{PGR_E_CONNECT, "28000", false, false}, {PGR_E_CONNECT, "42501", false, false},
		{PGR_E_SERVER, "57P02", true, true},	{PGR_E_SERVER, "57P05", true, true},
		{PGR_E_SERVER, "57P01", true, false},	{PGR_E_SERVER, "28P01", true, false},
		{PGR_E_SERVER, "58P01", true, false},	{PGR_E_SERVER, "58P01", false, false},
		{PGR_E_SERVER, "57014", false, false},	{PGR_E_SERVER, "42704", false, false},
		{PGR_E_SERVER, "55000", false, false},	{PGR_E_SERVER, "55006", false, true},
		{PGR_E_SERVER, "40001", false, true},	{PGR_E_USAGE, "", false, false},
		{PGR_E_SYSTEM, "", false, false},	{PGR_E_NOMEM, "", false, false},
		{PGR_E_PROTOCOL, "", false, false},	{PGR_E_DATA, "", false, false},
		{PGR_E_STOPPED, "57P03", true, false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_err e = {.cls = cases[i].cls, .fatal = cases[i].fatal};

		strcpy(e.sqlstate, cases[i].sqlstate);
		ck_assert_msg(pgr_wal_conn_may_retry(&e) == cases[i].retried, "class %d, %s", cases[i].cls,
			      cases[i].sqlstate);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("wal_stream");
	TCase *t = tcase_create("wal_stream");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, without_a_loss);
	tcase_add_test(t, the_end_is_told_early);
	tcase_add_test(t, lost_in_the_stream);
	tcase_add_test(t, a_slot_of_its_own_stays);
	tcase_add_test(t, identity_and_slot_at_once);
	tcase_add_loop_test(t, no_permanent_slot_unasked, 0, 2);
	tcase_add_loop_test(t, opening_fails, 0, 3);
	tcase_add_loop_test(t, opening_is_stopped, 0, 2);
	tcase_add_test(t, lost_before_the_start);
	tcase_add_loop_test(t, errors_that_pass, 0, (int)(sizeof(passing) / sizeof(passing[0])));
	tcase_add_loop_test(t, errors_that_stay_end_the_stream, 0, (int)(sizeof(lasting) / sizeof(lasting[0])));
	tcase_add_loop_test(t, errors_that_stay_end_the_retries, 0, (int)(sizeof(lasting) / sizeof(lasting[0])));
	tcase_add_loop_test(t, refusals_that_stay_end_the_retries, 0, (int)(sizeof(lasting) / sizeof(lasting[0])));
	tcase_add_test(t, an_ordinary_error_is_final);
	tcase_add_test(t, a_slot_in_use_is_final_at_first);
	tcase_add_test(t, another_cluster);
	tcase_add_test(t, a_server_without_the_timeline);
	tcase_add_test(t, a_clean_shutdown);
	tcase_add_test(t, everything_was_there);
	tcase_add_test(t, a_stop_ends_the_wait);
	tcase_add_test(t, free_ends_the_wait);
	tcase_add_test(t, nobody_there_for_too_long);
	tcase_add_test(t, sessions_without_progress);
	tcase_add_test(t, long_sessions_begin_the_count_anew);
	tcase_add_test(t, progress_begins_the_count_anew);
	tcase_add_test(t, own_failures);
	tcase_add_test(t, what_is_retried);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
