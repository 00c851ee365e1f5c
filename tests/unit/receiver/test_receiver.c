#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_io.h"
#include "common/fs_tree.h"
#include "proto/client.h"
#include "proto/cursor.h"
#include "receiver/receiver.h"
#include "receiver/segfile.h"
#include "receiver/walstore.h"
#include "tests/support/fault_sys.h"
#include "tests/support/scripted.h"

#define SEG	PGR_WALSEG_MIN
#define START	((pgr_lsn)3 * SEG)
#define SEG3	"000000010000000000000003"
#define SEG4	"000000010000000000000004"
#define VERSION 150020
#define SYSID	"7654321098765432109"

/* ---- a run: a server's script, a store in a directory, what was said and sent ---- */

struct full_sys {
	struct pgr_sys sys; /* first */
	int full;	    /* so many allocations fail, from the second segment on */
	int seen;
	int polls;
};

struct fixture {
	char dir[64];
	const struct pgr_sys *sys; /* the real one, or one of these */
	struct pgr_fault_sys fault;
	struct full_sys full;
	struct pgr_sys other;
	unsigned reads;
	int64_t tick_ms, ticks;
	int64_t stands_at;
	int bad_offset;	  /* of a wrong byte in the header of a segment's first page; -1: none */
	pgr_lsn bad_from; /* in segments from here on */
	uint32_t used;	  /* of each segment, a switch follows; 0: all */
	bool old_switch;  /* as before PostgreSQL 11: pages behind it have headers */

	struct pgr_walstore_opts store_opts;
	struct pgr_receiver_opts opts;
	struct pgr_walstore *store;
	struct pgr_receiver *r;
	struct pgr_scripted *server;
	struct pgr_client *client;
	struct pgr_buf sent; /* by us, all runs */
	char log[8192];
	enum pgr_receiver_end how;
	struct pgr_err err;
};

static struct fixture fx;
static bool threaded; /* the store has its thread */

static void on_log(void *arg, int level, const char *line)
{
	struct fixture *f = arg;
	size_t n = strlen(f->log);

	snprintf(f->log + n, sizeof(f->log) - n, "%d %s\n", level, line);
}

static void setup(void)
{
	memset(&fx, 0, sizeof(fx));
	snprintf(fx.dir, sizeof(fx.dir), "%s/pgr-receiver-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(fx.dir));
	fx.sys = pgr_sys_real();
	fx.bad_offset = -1;
	fx.store_opts = (struct pgr_walstore_opts){
		.dir = fx.dir,
		.segment_bytes = SEG,
		.file_mode = 0600,
		.sync = true,
		.partial_suffix = true,
		.inline_sync = !threaded,
	};
	fx.opts = (struct pgr_receiver_opts){
		.system_id = SYSID,
		.start = START + 12345,
		.tli = 1,
		.segment_bytes = SEG,
		.log = on_log,
		.log_arg = &fx,
	};
}

static void setup_threaded(void)
{
	threaded = true;
	setup();
}

static void disconnect(void)
{
	pgr_client_free(fx.client);
	fx.client = NULL;
	fx.server = NULL;
}

static void drop(void)
{
	disconnect();
	pgr_receiver_free(fx.r);
	pgr_walstore_free(fx.store);
	fx.r = NULL;
	fx.store = NULL;
}

static void teardown(void)
{
	struct pgr_err err;

	drop();
	pgr_buf_fini(&fx.sent);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), fx.dir, true, &err), PGR_OK);
}

static void make_receiver(void)
{
	int dfd = open(fx.dir, O_RDONLY | O_DIRECTORY);

	ck_assert_int_ge(dfd, 0);
	ck_assert_int_eq(pgr_walstore_new(&fx.store, fx.sys, dfd, &fx.store_opts, &fx.err), PGR_OK);
	ck_assert_int_eq(pgr_receiver_new(&fx.r, fx.sys, fx.store, &fx.opts, &fx.err), PGR_OK);
}

static void connect_to_version(int version, size_t chunk)
{
	disconnect();
	fx.server = pgr_scripted_new(version, chunk);
	pgr_scripted_tap(fx.server, &fx.sent);
	ck_assert_int_eq(
		pgr_client_new(&fx.client, pgr_scripted_transport(fx.server), pgr_sys_real(), NULL, NULL, &fx.err),
		PGR_OK);
}

static void connect_server(size_t chunk)
{
	connect_to_version(VERSION, chunk);
}

static int run(void)
{
	int rc;

	if (fx.r == NULL)
		make_receiver();
	rc = pgr_receiver_run(fx.r, fx.client, &fx.how, &fx.err);
	ck_assert_int_eq(pgr_client_set_wake(fx.client, -1), -1); /* the receiver's descriptor is not the client's */
	return rc;
}

static void run_to(enum pgr_receiver_end how)
{
	int rc = run();

	ck_assert_msg(rc == PGR_OK, "%s", fx.err.msg);
	ck_assert_int_eq(fx.how, how);
}

static void run_fails(enum pgr_errclass cls, const char *message)
{
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_msg(strcmp(fx.err.msg, message) == 0, "\"%s\" instead of \"%s\"", fx.err.msg, message);
	ck_assert_int_eq(fx.err.cls, cls);
	ck_assert_str_eq(pgr_walstore_open_name(fx.store), "");
}

/* ---- what the server says ---- */

static void s_rows(int ncols, const char *const *values, const char *tag)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	struct pgr_buf b = {0};

	pgr_msg_row_desc(&b, ncols, names);
	pgr_msg_row(&b, ncols, values);
	pgr_msg_complete(&b, tag);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_ready(void)
{
	struct pgr_buf b = {0};

	pgr_msg_ready(&b);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_complete(const char *tag)
{
	struct pgr_buf b = {0};

	pgr_msg_complete(&b, tag);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_identify(const char *tli)
{
	const char *const values[] = {SYSID, tli, "0/3000000", NULL};

	pgr_scripted_expect(fx.server, 'Q');
	s_rows(4, values, "IDENTIFY_SYSTEM");
	s_ready();
}

static void s_history(const char *name, const char *content)
{
	const char *const values[] = {name, content};

	pgr_scripted_expect(fx.server, 'Q');
	s_rows(2, values, "TIMELINE_HISTORY");
	s_ready();
}

static void s_both(void)
{
	struct pgr_buf b = {0};

	pgr_scripted_expect(fx.server, 'Q');
	pgr_msg_copy_response(&b, 'W');
	pgr_scripted_send_buf(fx.server, &b);
}

/* The header of the first page of a segment, as PostgreSQL 15 writes it (xlog_internal.h). */
static void make_head(uint8_t head[40], pgr_lsn addr)
{
	const uint16_t words[] = {0xD110, 0x0002};
	const uint32_t tli = 1, sizes[] = {fx.opts.segment_bytes, 8192};
	const uint64_t id = strtoull(SYSID, NULL, 10);

	memset(head, 0, 40);
	memcpy(head, words, 4);
	memcpy(head + 4, &tli, 4);
	memcpy(head + 8, &addr, 8);
	memcpy(head + 24, &id, 8);
	memcpy(head + 32, sizes, 8);
}

/* Behind a switch. */
static uint8_t unused_byte(pgr_lsn lsn)
{
	uint8_t head[40];

	if (!fx.old_switch || lsn % 8192 >= 24)
		return 0;
	make_head(head, lsn - lsn % 8192);
	head[2] = 0x0004;
	return head[lsn % 8192];
}

static uint8_t wal_byte(pgr_lsn lsn)
{
	uint32_t off = pgr_lsn_segoff(lsn, fx.opts.segment_bytes);
	uint8_t head[40];

	if (fx.used != 0 && off >= fx.used)
		return unused_byte(lsn);
	if (off < sizeof(head)) {
		make_head(head, lsn - off);
		if (fx.bad_offset >= 0 && off == (uint32_t)fx.bad_offset && lsn - off >= fx.bad_from)
			head[off] ^= 1;
		return head[off];
	}
	return (uint8_t)((lsn * UINT64_C(0x9E3779B97F4A7C15)) >> 56);
}

static void put_wal_of(struct pgr_buf *b, pgr_lsn lsn, size_t len, pgr_lsn end)
{
	struct pgr_buf body = {0};
	uint8_t *wal = malloc(len + 1);

	ck_assert_ptr_nonnull(wal);
	for (size_t i = 0; i < len; i++)
		wal[i] = wal_byte(lsn + i);
	pgr_msg_wal(&body, lsn, end, wal, len);
	pgr_msg_copy_data(b, body.data, body.len);
	pgr_buf_fini(&body);
	free(wal);
}

static void put_wal(struct pgr_buf *b, pgr_lsn lsn, size_t len)
{
	put_wal_of(b, lsn, len, lsn + len);
}

/* The server's WAL goes on to `end`. */
static void s_wal_of(pgr_lsn lsn, size_t len, pgr_lsn end)
{
	struct pgr_buf b = {0};

	put_wal_of(&b, lsn, len, end);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_wal(pgr_lsn lsn, size_t len)
{
	s_wal_of(lsn, len, lsn + len);
}

static void s_keepalive(pgr_lsn end, int reply)
{
	struct pgr_buf body = {0}, b = {0};

	pgr_msg_keepalive(&body, end, reply);
	pgr_msg_copy_data(&b, body.data, body.len);
	pgr_buf_fini(&body);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_copy_done(void)
{
	struct pgr_buf b = {0};

	pgr_msg_copy_done(&b);
	pgr_scripted_send_buf(fx.server, &b);
}

static void s_error(const char *severity, const char *code, const char *text)
{
	struct pgr_buf b = {0};

	pgr_msg_error(&b, severity, code, text);
	pgr_scripted_send_buf(fx.server, &b);
}

/* The server's part of an orderly stop. */
static void s_stopped(void)
{
	pgr_scripted_expect(fx.server, 'c');
	s_copy_done();
	s_complete("START_STREAMING");
	s_complete("START_REPLICATION");
	s_ready();
}

/* The server's part of the end of a timeline, after its WAL. */
static void s_end_of_timeline(const char *next_tli, const char *next_start)
{
	const char *const values[] = {next_tli, next_start};

	s_copy_done();
	pgr_scripted_expect(fx.server, 'c');
	s_rows(2, values, "START_STREAMING");
	s_complete("START_REPLICATION");
	s_ready();
}

static void s_begin(void)
{
	s_identify("1");
	s_both();
}

/* ---- what we sent ---- */

struct status {
	pgr_lsn write, flush, apply;
	bool reply;
};

/* The nth message of a type that we sent; false when there is none. */
static bool sent(char type, unsigned nth, struct pgr_span *body)
{
	struct pgr_cursor c = pgr_cur(fx.sent.data, fx.sent.len);

	while (c.left > 0) {
		char got = (char)pgr_cur_u8(&c);
		uint32_t len = pgr_cur_u32(&c);

		*body = pgr_cur_span(&c, len - 4);
		ck_assert(!c.bad);
		if (got == type && nth-- == 0)
			return true;
	}
	return false;
}

static unsigned count_sent(char type)
{
	struct pgr_span body;
	unsigned n = 0;

	while (sent(type, n, &body))
		n++;
	return n;
}

static void check_query(unsigned nth, const char *text)
{
	struct pgr_span body;

	ck_assert_msg(sent('Q', nth, &body), "%s was not sent", text);
	ck_assert_msg(strcmp((const char *)body.p, text) == 0, "\"%s\" instead of \"%s\"", (const char *)body.p, text);
}

static bool get_status(unsigned nth, struct status *st)
{
	struct pgr_span body;
	struct pgr_cursor c;

	if (!sent('d', nth, &body))
		return false;
	c = pgr_cur(body.p, body.len);
	ck_assert_int_eq(pgr_cur_u8(&c), 'r');
	st->write = pgr_cur_u64(&c);
	st->flush = pgr_cur_u64(&c);
	st->apply = pgr_cur_u64(&c);
	pgr_cur_u64(&c); /* the time */
	st->reply = pgr_cur_u8(&c) != 0;
	ck_assert(pgr_cur_done(&c));
	ck_assert_uint_eq(st->apply, 0);
	ck_assert_uint_le(st->flush, st->write);
	return true;
}

static bool was_flush_reported(pgr_lsn flush)
{
	struct status st;

	for (unsigned i = 0; get_status(i, &st); i++)
		if (st.flush == flush)
			return true;
	return false;
}

static void check_status(unsigned nth, pgr_lsn write, pgr_lsn flush, bool reply)
{
	struct status st;

	ck_assert_msg(get_status(nth, &st), "status %u was not sent", nth);
	ck_assert_uint_eq(st.write, write);
	ck_assert_uint_eq(st.flush, flush);
	ck_assert_int_eq(st.reply, reply);
}

/* ---- what is in the directory ---- */

static bool exists(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", fx.dir, name);
	return stat(path, &st) == 0;
}

/* The file holds WAL from `lsn`, `len` bytes of it. */
static void check_file(const char *name, pgr_lsn lsn, size_t len)
{
	struct pgr_err err;
	char *data;
	size_t size, right = 0;
	int dfd = open(fx.dir, O_RDONLY | O_DIRECTORY);

	ck_assert_int_ge(dfd, 0);
	ck_assert_msg(pgr_fs_read_file(pgr_sys_real(), dfd, fx.dir, name, 1u << 25, &data, &size, &err) == PGR_OK, "%s",
		      name);
	close(dfd);
	ck_assert_uint_ge(size, len);
	while (right < len && (uint8_t)data[right] == wal_byte(lsn + right))
		right++;
	ck_assert_msg(right == len, "%s: byte %zu is wrong", name, right);
	free(data);
}

static void put_file(const char *name, const char *content)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", fx.dir, name);
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(content, f);
	fclose(f);
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* ---- streaming and stopping ---- */

static const size_t chunks[] = {0, 1, 7, 100000};

/* A base backup's way: up to a position, whatever the pieces. */
START_TEST(stream_and_stop)
{
	fx.opts.slot = "a \"slot\"";
	fx.opts.report_flush = true;
	fx.opts.stop_at = START + SEG + 1000;
	connect_server(chunks[_i]);
	s_begin();
	s_wal(START, 100000);
	s_keepalive(START + 100000, 0);
	s_wal(START + 100000, SEG - 100000 - 10);
	s_wal(START + SEG - 10, 1010);	/* across the end of a segment */
	s_wal(START + SEG + 1000, 500); /* under way while we stop */
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(pgr_client_state(fx.client), PGR_SS_READY);
	check_query(0, "IDENTIFY_SYSTEM");
	check_query(1, "START_REPLICATION SLOT \"a \"\"slot\"\"\" 0/300000 TIMELINE 1");
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + SEG + 1000);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + SEG + 1000);
	ck_assert_uint_eq(pgr_receiver_tli(fx.r), 1);
	check_file(SEG3, START, SEG);
	check_file(SEG4 ".partial", START + SEG, 1000);

	/* one before the CopyDone; when the end of the segment is noticed before it, one tells that no more is durable
	 */
	ck_assert_uint_eq(count_sent('c'), 1);
	ck_assert_uint_le(count_sent('d'), 2);
	if (count_sent('d') == 2) {
		struct status st;

		ck_assert(get_status(0, &st));
		ck_assert_uint_eq(st.flush, START + SEG);
		ck_assert_uint_ge(st.write, START + SEG);
	}
	check_status(count_sent('d') - 1, START + SEG + 1000, START + SEG + 1000, false);
	ck_assert_str_eq(fx.log, "0 starting log streaming at 0/300000 (timeline 1)\n"
				 "0 finished segment at 0/400000 (timeline 1)\n"
				 "0 not renaming \"" SEG4 ".partial\", segment is not complete\n"
				 "0 stopped log streaming at 0/4003E8 (timeline 1)\n");
}
END_TEST

/* Nobody may count on a standby that does not report: not even by accident. */
START_TEST(no_flush_reports)
{
	fx.opts.stop_at = START + 1000;
	connect_server(0);
	s_begin();
	s_wal(START, 500);
	s_keepalive(START + 500, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 500, 500);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('d'), 2);
	check_status(0, START + 500, 0, false);
	check_status(1, START + 1000, 0, false);
}
END_TEST

/* Before there is any WAL: a slot that was made without reserving some holds it from then on. */
START_TEST(first_status_comes_at_once)
{
	fx.opts.report_flush = _i == 0;
	fx.opts.status_interval_ms = 3600000;
	fx.opts.stop_at = START + 1000;
	connect_server(0);
	s_begin();
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_status(0, START, _i == 0 ? START : 0, false);
	check_status(1, START + 1000, _i == 0 ? START + 1000 : 0, false);
	ck_assert_uint_eq(count_sent('d'), 2);
}
END_TEST

/* A server that shuts down asks for a reply, and waits until all it sent is flushed. */
START_TEST(keepalive_is_answered_with_a_flush)
{
	fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	fx.opts.stop_at = START + 1000;
	connect_server(_i == 0 ? 0 : 1);
	s_begin();
	s_keepalive(START, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START, 500);
	s_keepalive(START + 500, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_keepalive(START + 500, 0);
	s_wal(START + 500, 500);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('d'), 3);
	check_status(0, START, START, false);
	check_status(1, START + 500, START + 500, false);
	check_status(2, START + 1000, START + 1000, false);
}
END_TEST

START_TEST(base_backup_names)
{
	fx.store_opts.partial_suffix = false;
	fx.opts.stop_at = START + 1000;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_file(SEG3, START, 1000);
	ck_assert(!exists(SEG3 ".partial"));
	ck_assert_ptr_null(strstr(fx.log, "not renaming"));
	ck_assert_int_eq(pgr_walstore_close_segment(fx.store, true, &fx.err), PGR_OK);
}
END_TEST

START_TEST(stop_position_is_passed_already)
{
	fx.opts.stop_at = _i == 0 ? START : START - 1;
	connect_server(0);
	s_identify("1");
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('Q'), 1);
	ck_assert_int_eq(pgr_client_state(fx.client), PGR_SS_READY);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START);
}
END_TEST

START_TEST(stop_before_the_start)
{
	connect_server(0);
	s_identify("1");
	make_receiver();
	pgr_receiver_stop_now(fx.r);
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('Q'), 1);
}
END_TEST

/* --endpos: a byte beyond it is proof that all before it is here. */
START_TEST(strict_beyond)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	connect_server(0);
	s_begin();
	s_wal(START, 999);
	s_keepalive(START + 999, 0);
	s_wal(START + 999, 2);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 1001);
	ck_assert_uint_eq(count_sent('d'), 1);
}
END_TEST

/* --endpos at the very end of an idle server's WAL: it is asked, and says so. */
START_TEST(strict_at_the_end)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	fx.opts.status_interval_ms = _i == 0 ? 0 : 3600000;
	connect_server(0);
	s_begin();
	if (_i == 1)
		pgr_scripted_expect(fx.server, 'd');
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	s_keepalive(START + 1000, 0);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(count_sent('d'), 2 + _i);
	check_status((unsigned)_i, START + 1000, 0, true);
	check_status((unsigned)_i + 1, START + 1000, 0, false);
}
END_TEST

/* Exactly reached, but what the server said was said before: WAL may still come. */
START_TEST(strict_is_not_satisfied_early)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	connect_server(0);
	s_begin();
	s_keepalive(START + 500, 0);
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd'); /* asked */
	s_keepalive(START + 900, 0);	     /* an old one */
	s_wal(START + 1000, 100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 1100);
}
END_TEST

/* What a server said on a connection that is gone counts no more. */
START_TEST(strict_after_a_lost_connection)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	connect_server(0);
	s_begin();
	s_keepalive(START + 5000, 0);
	pgr_scripted_eof(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);

	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd'); /* asked */
	s_wal(START + 1000, 100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 1100);
}
END_TEST

/* Nor does having asked there: it is asked again. */
START_TEST(strict_is_asked_on_each_connection)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_eof(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);

	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	s_keepalive(START + 1000, 0);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
}
END_TEST

/* ---- other threads ---- */

static void *stop_when_received(void *arg)
{
	pgr_lsn *at = arg;

	while (pgr_receiver_received(fx.r) < START + 1000)
		sched_yield();
	ck_assert_uint_le(pgr_receiver_synced(fx.r), START + 1000);
	ck_assert_uint_eq(pgr_receiver_tli(fx.r), 1);
	if (at != NULL)
		pgr_receiver_stop_at(fx.r, *at);
	else
		pgr_receiver_stop_now(fx.r);
	return NULL;
}

/* The stop comes while the stream is idle: the wait must end. */
static void stop_from_outside(pgr_lsn *at)
{
	pthread_t thread;

	fx.opts.status_interval_ms = 0;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_stopped();
	make_receiver();
	ck_assert_int_eq(pthread_create(&thread, NULL, stop_when_received, at), 0);
	run_to(PGR_RECV_STOPPED);
	pthread_join(thread, NULL);
	ck_assert_int_eq(pgr_client_state(fx.client), PGR_SS_READY);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 1000);
}

START_TEST(stop_at_from_a_thread)
{
	pgr_lsn at[] = {START + 1000, START + 10};

	stop_from_outside(&at[_i]);
}
END_TEST

START_TEST(stop_now_from_a_thread)
{
	stop_from_outside(NULL);
	ck_assert_ptr_null(strstr(fx.log, "stopped log streaming"));
}
END_TEST

/* A position ahead does not stop anything yet. */
START_TEST(stop_at_ahead)
{
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_wal(START + 1000, 1000);
	s_stopped();
	make_receiver();
	pgr_receiver_stop_at(fx.r, START + 1500);
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 2000);
}
END_TEST

/* Whoever looks at the wall clock, to send a status message, finds that a stop position was just set. */
static int64_t waking_us(const struct pgr_sys *sys)
{
	(void)sys;
	pgr_receiver_stop_at(fx.r, START + 1500);
	return pgr_sys_real()->wall_us(pgr_sys_real());
}

static ssize_t counted_read(const struct pgr_sys *sys, int fd, void *buf, size_t len)
{
	(void)sys;
	fx.reads++;
	return read(fd, buf, len);
}

/* A wake-up in the middle of the stream that changes nothing yet: it is taken note of, and the stream goes on. */
START_TEST(woken_for_later)
{
	fx.other = *pgr_sys_real();
	fx.other.wall_us = waking_us;
	fx.other.read = counted_read;
	fx.sys = &fx.other;
	fx.opts.status_interval_ms = 20;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_keepalive(START + 1000, 1);
	for (unsigned i = 0; i < 3; i++)
		pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 2000);
	ck_assert_uint_gt(fx.reads, 0);
}
END_TEST

/* ---- --synchronous ---- */

/* All that is here is written, then one sync and one report serve it. */
START_TEST(group_commit)
{
	struct pgr_buf b = {0};

	pgr_fault_sys_init(&fx.fault, 0, 0);
	fx.sys = &fx.fault.sys;
	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	fx.opts.stop_at = START + 4000;
	connect_server(_i == 0 ? 0 : 500);
	s_begin();
	put_wal(&b, START, 1000);
	put_wal(&b, START + 1000, 1000);
	put_wal(&b, START + 2000, 500);
	pgr_scripted_send_buf(fx.server, &b);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 2500, 500);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 3000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('d'), 3);
	check_status(0, START + 2500, START + 2500, false);
	check_status(1, START + 3000, START + 3000, false);
	check_status(2, START + 4000, START + 4000, false);
	/* begin: the directory; then the file and the directory, then the file twice */
	ck_assert_uint_eq(fx.fault.fsyncs, 5);
}
END_TEST

/* A clock that stands where it was looked at first. */
static int64_t standing_ms(const struct pgr_sys *sys)
{
	(void)sys;
	if (fx.stands_at == 0)
		fx.stands_at = pgr_sys_real()->mono_ms(pgr_sys_real());
	return fx.stands_at;
}

static void set_clock(int64_t (*mono_ms)(const struct pgr_sys *sys))
{
	fx.other = *pgr_sys_real();
	fx.other.mono_ms = mono_ms;
	fx.sys = &fx.other;
}

static void begin_synchronous(size_t chunk)
{
	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	connect_server(chunk);
	s_begin();
}

/*
 * What the server has flushed at a time comes in several messages, and one of them in pieces: one sync serves it, as
 * long as the rest comes soon.  How soon: never, by this clock.
 */
START_TEST(rest_is_waited_for)
{
	struct pgr_buf b = {0};
	size_t half;

	set_clock(standing_ms);
	fx.opts.stop_at = START + 5000;
	begin_synchronous(0);
	s_wal_of(START, 1000, START + 3000);
	pgr_scripted_pause(fx.server);
	put_wal_of(&b, START + 1000, 2000, START + 3000);
	half = b.len / 2;
	pgr_scripted_send(fx.server, b.data, half);
	pgr_scripted_pause(fx.server);
	pgr_scripted_send(fx.server, b.data + half, b.len - half);
	pgr_buf_fini(&b);
	pgr_scripted_expect(fx.server, 'd');
	/* a keepalive that does not ask says that there is no more than we have */
	s_wal_of(START + 3000, 1000, START + 4500);
	pgr_scripted_pause(fx.server);
	s_keepalive(START + 4000, 0);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 4000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('d'), 3);
	check_status(0, START + 3000, START + 3000, false);
	check_status(1, START + 4000, START + 4000, false);
	check_status(2, START + 5000, START + 5000, false);
}
END_TEST

/* Whatever a server says of its WAL's end: what has come does not wait for what does not. */
START_TEST(rest_does_not_come)
{
	static const pgr_lsn ends[] = {START + 1001, START + SEG, START + SEG + 999, START + SEG + 1000, UINT64_MAX, 1};
	struct status st;

	fx.opts.stop_at = START + 2000;
	begin_synchronous(0);
	s_wal_of(START, 1000, ends[_i]);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert(get_status(0, &st));
	ck_assert_uint_eq(st.write, START + 1000);
	ck_assert(was_flush_reported(START + 2000));
}
END_TEST

/* Time goes on with the WAL: 150 ms a segment. */
static int64_t wal_ms(const struct pgr_sys *sys)
{
	return standing_ms(sys) + (int64_t)((pgr_receiver_received(fx.r) - START) * 150 / SEG);
}

/* Far behind the server, the segments' own syncs are enough. */
START_TEST(catching_up)
{
	set_clock(wal_ms);
	begin_synchronous(0);
	for (unsigned i = 0; i < 6; i++) {
		s_wal_of(START + i * (SEG / 2), SEG / 2, START + 100 * SEG);
		pgr_scripted_pause(fx.server);
	}
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_uint_eq(count_sent('d'), 3);
	for (unsigned i = 0; i < 3; i++)
		check_status(i, START + (i + 1) * SEG, START + (i + 1) * SEG, false);
}
END_TEST

/* But for a segment that takes long. */
START_TEST(catching_up_slowly)
{
	begin_synchronous(0);
	s_wal_of(START, SEG / 2, START + 100 * SEG);
	pgr_scripted_expect(fx.server, 'd');
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	check_status(0, START + SEG / 2, START + SEG / 2, false);
}
END_TEST

/* All of a message that goes beyond the end of a segment is reported without another one. */
START_TEST(message_across_segments)
{
	begin_synchronous(0);
	s_wal(START, SEG - 72);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + SEG - 72, 172);
	pgr_scripted_expect(fx.server, 'd'); /* the segment */
	pgr_scripted_expect(fx.server, 'd'); /* what is behind it */
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_uint_eq(count_sent('d'), 3);
	check_status(0, START + SEG - 72, START + SEG - 72, false);
	check_status(1, START + SEG + 100, START + SEG, false);
	check_status(2, START + SEG + 100, START + SEG + 100, false);
}
END_TEST

/* Who asks is not told to wait. */
START_TEST(asked_before_the_rest)
{
	set_clock(standing_ms);
	fx.opts.stop_at = START + 2000;
	begin_synchronous(0);
	s_wal_of(START, 1000, START + 2000);
	s_keepalive(START + 2000, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_status(0, START + 1000, START + 1000, false);
}
END_TEST

/* A stream that never pauses is reported all the same. */
START_TEST(endless_burst)
{
	const uint32_t big = 16 * SEG;
	const pgr_lsn start = 2 * (pgr_lsn)big;
	struct status st;

	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.segment_bytes = fx.store_opts.segment_bytes = big;
	fx.opts.start = start;
	fx.opts.stop_at = start + 48 * 131072;
	connect_server(0);
	s_begin();
	{
		struct pgr_buf b = {0};

		for (unsigned i = 0; i < 48; i++)
			put_wal(&b, start + i * 131072, 131072);
		pgr_scripted_send_buf(fx.server, &b);
	}
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_ge(count_sent('d'), 3);
	ck_assert(get_status(0, &st));
	ck_assert_uint_le(st.write, start + 4 * SEG);
	ck_assert_uint_eq(st.flush, st.write);
	check_file("000000010000000000000002.partial", start, 48 * 131072);
}
END_TEST

/* ---- status messages ---- */

/* They come by themselves, and after an interval of silence they are pings. */
START_TEST(status_interval)
{
	struct status st;
	unsigned first = 0;

	fx.opts.status_interval_ms = 5;
	fx.opts.stop_at = START + 2000;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	/* on a busy machine one may be due before the first WAL was read */
	ck_assert(get_status(first, &st));
	if (st.write == START)
		first++;
	check_status(first, START + 1000, 0, false);
	check_status(first + 1, START + 1000, 0, true);
	check_status(count_sent('d') - 1, START + 2000, 0, false);
}
END_TEST

/* Time passes with every look at it, all of it long ago: nobody waits. */
static int64_t ticking_ms(const struct pgr_sys *sys)
{
	return standing_ms(sys) - 1000000 + fx.tick_ms * fx.ticks++;
}

/* ---- a stop position that is told soon after a switch ---- */

#define USED  70000u  /* of a segment, and then it was switched */
#define PIECE 200000u /* with a place behind the switch where a page of any size would begin */

static void begin_behind_switch(void)
{
	fx.opts.stop_at_follows_switch = true;
	fx.opts.status_interval_ms = 0;
	fx.used = USED;
	connect_server(0);
	s_begin();
}

/* Whoever says that he is holding off learns of the stop position. */
static int64_t telling_us(const struct pgr_sys *sys)
{
	(void)sys;
	pgr_receiver_stop_at(fx.r, START + USED - 100);
	return pgr_sys_real()->wall_us(pgr_sys_real());
}

/* The rest of the segment is on its way already, and is not taken. */
START_TEST(stop_behind_a_switch)
{
	fx.other = *pgr_sys_real();
	fx.other.wall_us = telling_us;
	fx.sys = &fx.other;
	fx.old_switch = _i == 1;
	begin_behind_switch();
	s_wal_of(START, PIECE, START + SEG);
	s_wal(START + PIECE, SEG - PIECE);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(pgr_client_state(fx.client), PGR_SS_READY);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + PIECE);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + PIECE);
	ck_assert_uint_eq(count_sent('d'), 2); /* and the last one, when all is durable */
	check_file(SEG3 ".partial", START, PIECE);
}
END_TEST

static void *tell_behind_the_switch(void *arg)
{
	(void)arg;
	while (pgr_receiver_received(fx.r) < START + PIECE)
		sched_yield();
	pgr_receiver_stop_at(fx.r, START + USED - 100);
	return NULL;
}

/* By this clock the wait has no end but the word. */
START_TEST(held_until_the_end_is_known)
{
	pthread_t thread;

	set_clock(standing_ms);
	begin_behind_switch();
	s_wal_of(START, PIECE, START + SEG);
	s_wal(START + PIECE, SEG - PIECE);
	s_stopped();
	make_receiver();
	ck_assert_int_eq(pthread_create(&thread, NULL, tell_behind_the_switch, NULL), 0);
	run_to(PGR_RECV_STOPPED);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + PIECE);
	check_file(SEG3 ".partial", START, PIECE);
}
END_TEST

/* The server ends the stream, in good order. */
static void s_shutdown(void)
{
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
}

/* A switch that is nobody's end costs one wait, and no byte. */
START_TEST(switches_in_the_middle)
{
	set_clock(ticking_ms);
	fx.tick_ms = 100;
	begin_behind_switch();
	for (pgr_lsn at = START; at < START + 2 * SEG; at += PIECE)
		s_wal(at, at + PIECE <= START + 2 * SEG ? PIECE : START + 2 * SEG - at);
	s_shutdown();
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 2 * SEG);
	ck_assert_uint_eq(count_sent('d'), 2);
	check_file(SEG3, START, SEG);
	check_file(SEG4, START + SEG, SEG);
}
END_TEST

/* Of each page that could be looked at the beginning comes in two pieces. */
static void s_wal_in_bad_pieces(void)
{
	pgr_lsn at = START, end = START + SEG;

	while (at < end) {
		pgr_lsn next = at - at % 65536 + 65536 + 20;

		if (next > end)
			next = end;
		s_wal(at, next - at);
		at = next;
	}
}

enum { NOT_ASKED_FOR, STOP_IS_KNOWN, FAR_BEHIND, NO_SWITCH, NO_PAGE_IS_SEEN };

/* With a clock that stands still a wait would have no end. */
START_TEST(nothing_to_wait_for)
{
	set_clock(standing_ms);
	begin_behind_switch();
	fx.opts.stop_at_follows_switch = _i != NOT_ASKED_FOR;
	fx.opts.stop_at = _i == STOP_IS_KNOWN ? START + SEG : PGR_LSN_INVALID;
	fx.used = _i == NO_SWITCH ? 0 : USED;
	if (_i == NO_PAGE_IS_SEEN)
		s_wal_in_bad_pieces();
	else
		s_wal_of(START, SEG, START + (_i == FAR_BEHIND ? 2 * SEG : SEG));
	if (_i == STOP_IS_KNOWN)
		s_stopped();
	else
		s_shutdown();
	run_to(_i == STOP_IS_KNOWN ? PGR_RECV_STOPPED : PGR_RECV_SERVER_CLOSED);
	ck_assert_uint_eq(count_sent('d'), _i == STOP_IS_KNOWN);
	check_file(SEG3, START, SEG);
}
END_TEST

static bool is_ping(unsigned nth)
{
	struct status st;

	return get_status(nth, &st) && st.reply;
}

/* A server that leaves pings unanswered for a minute is gone, whatever TCP still hopes for. */
START_TEST(silent_server)
{
	unsigned pings = 0;

	set_clock(ticking_ms);
	fx.tick_ms = 100;
	fx.opts.status_interval_ms = 10000;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	run_fails(PGR_E_NETWORK, "server has not answered for 60 seconds");
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 1000);
	for (unsigned i = 0; i < count_sent('d'); i++)
		pings += is_ping(i);
	ck_assert_uint_ge(pings, 6);
	ck_assert_uint_le(pings, 7);
}
END_TEST

/* One that answers is not, for however long it has nothing else to say. */
START_TEST(idle_server)
{
	unsigned pings = 0;

	set_clock(ticking_ms);
	fx.tick_ms = 100;
	fx.opts.status_interval_ms = 10000;
	fx.opts.stop_at = START + 2000;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	for (unsigned i = 0; i < 40; i++) {
		pgr_scripted_expect(fx.server, 'd');
		if (i % 5 == 4)
			s_keepalive(START + 1000, 0);
	}
	s_wal(START + 1000, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	for (unsigned i = 0; i < count_sent('d'); i++)
		pings += is_ping(i);
	ck_assert_uint_ge(pings, 20);
}
END_TEST

START_TEST(no_status_interval)
{
	fx.opts.status_interval_ms = 0;
	fx.opts.stop_at = START + 2 * SEG;
	connect_server(0);
	s_begin();
	for (unsigned i = 0; i < 32; i++)
		s_wal(START + i * 65536, 65536);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('d'), 1); /* the last one */
}
END_TEST

/* ---- WAL that must not be taken ---- */

START_TEST(wrong_start)
{
	static const struct {
		pgr_lsn first, second;
		const char *message;
	} cases[] = {
		{START + 1, 0, "server sent WAL from 0/300001, expected it from 0/300000"},
		{START - SEG, 0, "server sent WAL from 0/200000, expected it from 0/300000"},
		{START, START + 101, "server sent WAL from 0/300065, expected it from 0/300064"},
		{START, START + 99, "server sent WAL from 0/300063, expected it from 0/300064"},
		{START, START, "server sent WAL from 0/300000, expected it from 0/300064"},
	};

	connect_server(0);
	s_begin();
	s_wal(cases[_i].first, 100);
	s_wal(cases[_i].second, 100);
	run_fails(PGR_E_PROTOCOL, cases[_i].message);
	if (cases[_i].first == START)
		check_file(SEG3 ".partial", START, 100);
}
END_TEST

/* The first page of a segment says that it is another server's: nothing of it is acknowledged. */
START_TEST(foreign_pages)
{
	static const struct {
		int offset;
		const char *message;
	} cases[] = {
		{0, "0/400000: invalid magic number D111"},
		{4, "0/400000: page is of timeline 0"},
		{9, "0/400000: page says that it is 0/400100"},
		{24, "0/400000: page is of the system 7654321098765432108 instead of the system 7654321098765432109"},
		{33, "0/400000: segment size in the page header is 1048832 instead of 1048576"},
	};
	char message[200];
	struct status st;

	snprintf(message, sizeof(message), "the server sent what is not its write-ahead log: %s",
		 cases[_i / 2].message);
	fx.bad_offset = cases[_i / 2].offset;
	fx.bad_from = START + SEG;
	fx.opts.synchronous = fx.opts.report_flush = true;
	connect_server(_i % 2 == 0 ? 0 : 13);
	s_begin();
	s_wal(START, 100000);
	s_wal(START + 100000, SEG);
	run_fails(PGR_E_DATA, message);
	for (unsigned i = 0; get_status(i, &st); i++)
		ck_assert_uint_le(st.flush, START + SEG);
}
END_TEST

/* Nor is the beginning of such a header, when the server asks while the rest of it is to come. */
START_TEST(asked_inside_a_header)
{
	struct status st;

	fx.bad_offset = 33;
	fx.bad_from = START + SEG;
	fx.opts.synchronous = fx.opts.report_flush = true;
	connect_server(0);
	s_begin();
	s_wal(START, SEG + 8);
	s_keepalive(START + SEG + 8, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + SEG + 8, 100);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_DATA);
	ck_assert_uint_gt(count_sent('d'), 0);
	for (unsigned i = 0; get_status(i, &st); i++)
		ck_assert_uint_le(st.flush, START + SEG);
}
END_TEST

/* WAL of a version that the server is not. */
START_TEST(pages_of_another_version)
{
	connect_to_version(160005, 0);
	s_begin();
	s_wal(START, 100000);
	run_fails(PGR_E_DATA,
		  "the server sent what is not its write-ahead log: 0/300000: page is of PostgreSQL 15, but "
		  "the server is 16.5");
}
END_TEST

/* What cannot be judged is kept: a newer version, the other byte order. */
START_TEST(unknown_pages)
{
	connect_to_version(_i == 0 ? 190001 : VERSION, 0);
	fx.bad_offset = 0;
	fx.opts.stop_at = START + 100;
	s_begin();
	if (_i == 0) {
		s_wal(START, 100);
	} else {
		uint8_t wal[100] = {0xD1, 0x10};
		struct pgr_buf body = {0}, b = {0};

		pgr_msg_wal(&body, START, START + 100, wal, 100);
		pgr_msg_copy_data(&b, body.data, body.len);
		pgr_buf_fini(&body);
		pgr_scripted_send_buf(fx.server, &b);
	}
	s_stopped();
	run_to(PGR_RECV_STOPPED);
}
END_TEST

START_TEST(bad_messages)
{
	static const struct {
		const char *body;
		size_t len;
	} cases[] = {{"", 0}, {"x123", 4}, {"w1234567", 8}, {"k1234567", 8}, {"n\0\0", 3}};
	struct pgr_buf b = {0};

	connect_server(0);
	s_begin();
	s_wal(START, 100);
	pgr_msg_copy_data(&b, cases[_i].body, cases[_i].len);
	pgr_scripted_send_buf(fx.server, &b);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_PROTOCOL);
	ck_assert_str_eq(pgr_walstore_open_name(fx.store), "");
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 100);
}
END_TEST

/* ---- timelines ---- */

/* Two switches in a row, one of them with the single CommandComplete of 13.0. */
START_TEST(timelines)
{
	const char *const third[] = {"7", "0/5000C8"};

	fx.opts.report_flush = true;
	fx.opts.stop_at = START + 2 * SEG + 300;
	connect_server(chunks[_i]);
	s_identify("7");
	s_both();
	s_wal(START, SEG + 200); /* a little more than the timeline has in the end */
	s_end_of_timeline("2", "0/400064");
	s_history("00000002.history", "1\t0/400064\tno recovery target specified\n");
	s_both();
	s_wal(START + SEG, SEG);
	s_wal(START + 2 * SEG, 200);
	s_copy_done();
	pgr_scripted_expect(fx.server, 'c');
	s_rows(2, third, "START_STREAMING");
	s_ready();
	s_history("00000007.history", "1\t0/400064\tx\n\n2\t0/5000C8\ty\n");
	s_both();
	s_wal(START + 2 * SEG, 300);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(1, "START_REPLICATION 0/300000 TIMELINE 1");
	check_query(2, "TIMELINE_HISTORY 2");
	check_query(3, "START_REPLICATION 0/400000 TIMELINE 2");
	check_query(4, "TIMELINE_HISTORY 7");
	check_query(5, "START_REPLICATION 0/500000 TIMELINE 7");
	ck_assert_uint_eq(count_sent('Q'), 6);
	ck_assert_uint_eq(count_sent('c'), 3);
	ck_assert(was_flush_reported(START + SEG + 200)); /* the end of a timeline is durable, and told */
	ck_assert(was_flush_reported(START + 2 * SEG + 200));
	ck_assert_uint_eq(pgr_receiver_tli(fx.r), 7);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 2 * SEG + 300);
	check_file(SEG3, START, SEG);
	check_file(SEG4 ".partial", START + SEG, 200);
	check_file("000000020000000000000004", START + SEG, SEG);
	check_file("000000020000000000000005.partial", START + 2 * SEG, 200);
	check_file("000000070000000000000005.partial", START + 2 * SEG, 300);
	ck_assert(exists("00000002.history"));
	ck_assert(exists("00000007.history"));
	ck_assert_str_eq(fx.log, "0 starting log streaming at 0/300000 (timeline 1)\n"
				 "0 finished segment at 0/400000 (timeline 1)\n"
				 "0 not renaming \"" SEG4 ".partial\", segment is not complete\n"
				 "0 switched to timeline 2 at 0/400064\n"
				 "0 finished segment at 0/500000 (timeline 2)\n"
				 "0 not renaming \"000000020000000000000005.partial\", segment is not complete\n"
				 "0 switched to timeline 7 at 0/5000C8\n"
				 "0 not renaming \"000000070000000000000005.partial\", segment is not complete\n"
				 "0 stopped log streaming at 0/50012C (timeline 7)\n");
}
END_TEST

/* Asked for exactly the end of an old timeline, the server has nothing to copy. */
START_TEST(end_of_an_old_timeline)
{
	const char *const next[] = {"2", "0/300000"};

	fx.opts.stop_at = START + 100;
	connect_server(0);
	s_identify("2");
	pgr_scripted_expect(fx.server, 'Q');
	s_rows(2, next, "START_STREAMING");
	s_complete("START_REPLICATION");
	s_ready();
	s_history("00000002.history", "1\t0/300000\n");
	s_both();
	s_wal(START, 100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(3, "START_REPLICATION 0/300000 TIMELINE 2");
	check_file("000000020000000000000003.partial", START, 100);
	ck_assert(!exists(SEG3 ".partial"));
}
END_TEST

START_TEST(history_of_the_first_timeline)
{
	bool there = _i == 1;

	fx.opts.tli = 3;
	fx.opts.stop_at = START + 1;
	if (there)
		put_file("00000003.history", "1\t0/100\n");
	connect_server(0);
	s_identify("3");
	s_history("00000003.history", there ? "1\t0/100\n" : "1\t0/100\n2\t0/200\n");
	s_both();
	s_wal(START, 1);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(1, "TIMELINE_HISTORY 3");
	check_query(2, "START_REPLICATION 0/300000 TIMELINE 3");
	ck_assert(exists("00000003.history"));
}
END_TEST

static const struct {
	const char *tli, *start, *message;
} bad_switches[] = {
	{"1", "0/300064", "server reported unexpected next timeline 1, following timeline 1"},
	{"0", "0/300064", "server reported unexpected next timeline 0, following timeline 1"},
	{"2", "0/300065",
	 "server stopped streaming timeline 1 at 0/300064, but reported next timeline 2 to begin at 0/300065"},
	{"2", "rubbish", "unexpected result set at the end of timeline 1"},
	{"-2", "0/300064", "unexpected result set at the end of timeline 1"},
	{"4294967296", "0/300064", "unexpected result set at the end of timeline 1"},
	{NULL, "0/300064", "unexpected result set at the end of timeline 1"},
	{"2", NULL, "unexpected result set at the end of timeline 1"},
};

START_TEST(bad_switch)
{
	connect_server(0);
	s_identify("2");
	s_both();
	s_wal(START, 100);
	s_end_of_timeline(bad_switches[_i].tli, bad_switches[_i].start);
	run_fails(PGR_E_PROTOCOL, bad_switches[_i].message);
	check_file(SEG3 ".partial", START, 100);
}
END_TEST

START_TEST(no_next_timeline)
{
	connect_server(0);
	s_begin();
	s_wal(START, 100);
	s_copy_done();
	pgr_scripted_expect(fx.server, 'c');
	s_complete("START_REPLICATION");
	s_ready();
	run_fails(PGR_E_PROTOCOL, "server ended timeline 1 at 0/300064 without naming the next one");
}
END_TEST

START_TEST(two_next_timelines)
{
	const char *const next[] = {"3", "0/300000"};

	connect_server(0);
	s_begin();
	s_wal(START, 100);
	s_copy_done();
	pgr_scripted_expect(fx.server, 'c');
	s_rows(2, next, "START_STREAMING");
	s_rows(2, next, "START_STREAMING");
	s_ready();
	run_fails(PGR_E_PROTOCOL, "unexpected result set at the end of timeline 1");
}
END_TEST

static const struct {
	const char *content, *message;
	enum pgr_errclass cls;
} bad_histories[] = {
	{"2\t0/300064\n", "timeline 1 is not in the history of timeline 3", PGR_E_DATA},
	{"1\t0/300063\n", "history of timeline 3: timeline 1 was left at 0/300063, but the server ended it at 0/300064",
	 PGR_E_DATA},
	{"", "timeline 1 is not in the history of timeline 3", PGR_E_DATA},
	{"rubbish", "invalid history file of timeline 3, line 1: expected a timeline ID", PGR_E_DATA},
	{"3\t0/300064\n",
	 "invalid history file of timeline 3, line 1: timeline IDs must be less than the child timeline's ID",
	 PGR_E_DATA},
};

START_TEST(bad_history)
{
	connect_server(0);
	s_identify("3");
	s_both();
	s_wal(START, 100);
	s_end_of_timeline("3", "0/300064");
	s_history("00000003.history", bad_histories[_i].content);
	run_fails(bad_histories[_i].cls, bad_histories[_i].message);
	ck_assert(!exists("00000003.history"));
}
END_TEST

static void up_to_a_known_history(void)
{
	fx.opts.stop_at = START + 200;
	put_file("00000002.history", "1\t0/300064\tas it is here\n");
	connect_server(0);
	s_identify("2");
	s_both();
	s_wal(START, 100);
	s_end_of_timeline("2", "0/300064");
}

/* A server that does not have the history of its timeline any more: the one that is here will do. */
START_TEST(history_is_known_here_alone)
{
	up_to_a_known_history();
	pgr_scripted_expect(fx.server, 'Q');
	s_error("ERROR", "58P01", "could not open file \"pg_wal/00000002.history\": No such file or directory");
	s_ready();
	s_both();
	s_wal(START, 200);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(3, "START_REPLICATION 0/300000 TIMELINE 2");
	ck_assert(!pgr_walstore_is_forked(fx.store));
}
END_TEST

START_TEST(connection_is_lost_instead_of_a_known_history)
{
	up_to_a_known_history();
	pgr_scripted_expect(fx.server, 'Q');
	if (_i == 0)
		s_error("FATAL", "57P01", "terminating connection due to administrator command");
	pgr_scripted_eof(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, _i == 0 ? PGR_E_SERVER : PGR_E_NETWORK);
}
END_TEST

/* Two standbys were promoted to the same timeline: no WAL of one goes behind WAL of the other. */
START_TEST(history_is_another_one)
{
	up_to_a_known_history();
	s_history("00000002.history", "1\t0/300064\tas it is there\n");
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "00000002.history\" differs from the server's"));
	ck_assert(pgr_walstore_is_forked(fx.store));
	ck_assert(!pgr_walstore_is_failed(fx.store));
	ck_assert_uint_eq(count_sent('Q'), 3); /* nothing was streamed */
}
END_TEST

/* Before 9.3 there are no histories, and no end of a timeline that could be followed. */
START_TEST(old_server)
{
	const char *const values[] = {SYSID, "2", "0/3000000"};

	fx.opts.tli = 2;
	connect_to_version(90224, 0);
	pgr_scripted_expect(fx.server, 'Q');
	s_rows(3, values, "IDENTIFY_SYSTEM");
	s_ready();
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_USAGE);
	ck_assert_uint_eq(count_sent('Q'), 1);
}
END_TEST

/* ---- the wrong server ---- */

START_TEST(wrong_system)
{
	const char *const values[] = {"123", "1", "0/3000000", NULL};

	connect_server(0);
	pgr_scripted_expect(fx.server, 'Q');
	s_rows(4, values, "IDENTIFY_SYSTEM");
	s_ready();
	run_fails(PGR_E_USAGE,
		  "system identifier does not match: expected " SYSID ", but the server that streams is 123");
}
END_TEST

START_TEST(any_system)
{
	const char *const values[] = {"123", "1", "0/3000000", NULL};

	fx.opts.system_id = NULL;
	fx.opts.stop_at = START;
	connect_server(0);
	pgr_scripted_expect(fx.server, 'Q');
	s_rows(4, values, "IDENTIFY_SYSTEM");
	s_ready();
	run_to(PGR_RECV_STOPPED);
}
END_TEST

START_TEST(timeline_ahead)
{
	fx.opts.tli = 4;
	connect_server(0);
	s_identify("3");
	run_fails(PGR_E_USAGE, "starting timeline 4 is not present in the server");
}
END_TEST

/* ---- streams that end otherwise ---- */

START_TEST(server_shuts_down)
{
	fx.opts.report_flush = true;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_keepalive(START + 1000, 1);
	pgr_scripted_expect(fx.server, 'd');
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	check_status(0, START + 1000, START + 1000, false);
	ck_assert_uint_eq(count_sent('c'), 0);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 1000);
	check_file(SEG3 ".partial", START, 1000);
}
END_TEST

/* The last WAL of a server that shuts down is the stop position: there can be no more. */
START_TEST(server_shuts_down_at_the_stop_position)
{
	fx.opts.stop_at = START + 1000;
	fx.opts.stop_at_strict = true;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_STOPPED);
}
END_TEST

START_TEST(refused)
{
	connect_server(0);
	s_identify("1");
	pgr_scripted_expect(fx.server, 'Q');
	s_error("ERROR", "42704", "replication slot \"x\" does not exist");
	s_ready();
	run_fails(PGR_E_SERVER, "could not send replication command \"START_REPLICATION\": ERROR:  replication slot "
				"\"x\" does not exist");
	ck_assert_str_eq(fx.err.sqlstate, "42704");
}
END_TEST

/* An unexpected kind of COPY. */
START_TEST(other_copy)
{
	struct pgr_buf b = {0};

	connect_server(0);
	s_identify("1");
	pgr_scripted_expect(fx.server, 'Q');
	pgr_msg_copy_response(&b, _i == 0 ? 'H' : 'G');
	pgr_scripted_send_buf(fx.server, &b);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_PROTOCOL);
}
END_TEST

START_TEST(removed_segment)
{
	connect_server(0);
	s_begin();
	s_error("ERROR", "58P01",
		"requested WAL segment 000000010000000000000003 has already been "
		"removed");
	s_ready();
	run_fails(PGR_E_SERVER, "unexpected termination of replication stream: ERROR:  requested WAL segment "
				"000000010000000000000003 has already been removed");
	ck_assert_str_eq(fx.err.sqlstate, "58P01");
	ck_assert(!fx.err.fatal);
}
END_TEST

START_TEST(terminated)
{
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	s_error("FATAL", "57P01", "terminating connection due to administrator command");
	pgr_scripted_eof(fx.server);
	run_fails(PGR_E_SERVER, "unexpected termination of replication stream: FATAL:  terminating connection due to "
				"administrator command");
	ck_assert(fx.err.fatal);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 1000);
}
END_TEST

/* The connection is lost; the next run begins at the start of the open segment and goes on as if nothing was. */
START_TEST(lost_and_resumed)
{
	fx.opts.stop_at = START + SEG + 3000;
	connect_server(chunks[_i]);
	s_begin();
	s_wal(START, SEG + 1000);
	if (_i % 2 == 0)
		pgr_scripted_eof(fx.server);
	else
		pgr_scripted_reset(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_NETWORK);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + SEG + 1000);
	check_file(SEG4 ".partial", START + SEG, 1000);

	connect_server(chunks[_i]);
	s_begin();
	s_wal(START + SEG, 3000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(3, "START_REPLICATION 0/400000 TIMELINE 1");
	check_file(SEG4 ".partial", START + SEG, 3000);
}
END_TEST

/* Lost after a switch was announced and before its history was here: the check is not forgotten. */
START_TEST(lost_between_timelines)
{
	connect_server(0);
	s_identify("2");
	s_both();
	s_wal(START, 100);
	s_end_of_timeline("2", "0/300064");
	pgr_scripted_expect(fx.server, 'Q');
	pgr_scripted_eof(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_NETWORK);
	ck_assert_uint_eq(pgr_receiver_tli(fx.r), 2); /* a server has to have this one now */
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START);

	connect_server(0);
	s_identify("2");
	s_history("00000002.history", "1\t0/300000\n");
	run_fails(PGR_E_DATA,
		  "history of timeline 2: timeline 1 was left at 0/300000, but the server ended it at 0/300064");

	pgr_receiver_stop_at(fx.r, START + 200);
	connect_server(0);
	s_identify("2");
	s_history("00000002.history", "1\t0/300064\n");
	s_both();
	s_wal(START, 200);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_file("000000020000000000000003.partial", START, 200);
}
END_TEST

/* ---- a server that does not let go ---- */

static void stop_badly(void)
{
	fx.opts.stop_at = START + 1000;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'c');
}

START_TEST(stop_and_error)
{
	stop_badly();
	s_wal(START + 1000, 10);
	s_error("ERROR", "XX000", "too late");
	s_ready();
	run_to(PGR_RECV_STOPPED);
	ck_assert_ptr_nonnull(
		strstr(fx.log, "1 the server reported while the stream was being stopped: ERROR:  too late\n"));
	ck_assert_uint_eq(pgr_receiver_received(fx.r), START + 1000);
}
END_TEST

START_TEST(stop_and_eof)
{
	stop_badly();
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_STOPPED);
	ck_assert_ptr_nonnull(strstr(fx.log, "1 the server did not end the stream in good order: "));
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 1000);
}
END_TEST

/* Shutting down while we stop: "COPY 0" instead of CopyDone. */
START_TEST(stop_and_shutdown)
{
	stop_badly();
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_STOPPED);
}
END_TEST

/* A clock whose deadlines come soon. */
static int64_t early_ms(const struct pgr_sys *sys)
{
	(void)sys;
	return pgr_sys_real()->mono_ms(pgr_sys_real()) - 9990;
}

START_TEST(stop_and_silence)
{
	set_clock(early_ms);
	stop_badly();
	run_to(PGR_RECV_STOPPED);
	ck_assert_ptr_nonnull(strstr(fx.log, "1 the server did not end the stream in good order: it takes too long\n"));
}
END_TEST

/* The same, and the first time somebody looks at it a stop is asked for: the command is under way. */
static int64_t stopping_ms(const struct pgr_sys *sys)
{
	pgr_receiver_stop_now(fx.r);
	return early_ms(sys);
}

START_TEST(stop_while_the_server_thinks)
{
	set_clock(stopping_ms);
	connect_server(0);
	s_identify("1");
	pgr_scripted_expect(fx.server, 'Q');
	run_to(PGR_RECV_STOPPED);
	check_query(1, "START_REPLICATION 0/300000 TIMELINE 1");
	ck_assert_ptr_nonnull(strstr(fx.log, "in good order: it does not answer\n"));
}
END_TEST

/* Whoever looks at the wall clock, to send a status message, finds that a stop was just asked for. */
static int64_t stopping_us(const struct pgr_sys *sys)
{
	(void)sys;
	pgr_receiver_stop_now(fx.r);
	return pgr_sys_real()->wall_us(pgr_sys_real());
}

START_TEST(stop_while_the_next_timeline_is_awaited)
{
	set_clock(early_ms);
	fx.other.wall_us = stopping_us;
	connect_server(0);
	s_begin();
	s_wal(START, 100);
	s_copy_done();
	run_to(PGR_RECV_STOPPED);
	ck_assert_ptr_nonnull(strstr(fx.log, "in good order: it does not answer\n"));
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + 100);
}
END_TEST

/* And the history of a timeline of which nothing is wanted is not asked for. */
START_TEST(stop_before_the_next_timeline)
{
	fx.other = *pgr_sys_real();
	fx.other.wall_us = stopping_us;
	fx.sys = &fx.other;
	connect_server(0);
	s_identify("2");
	s_both();
	s_wal(START, 100);
	s_end_of_timeline("2", "0/300064");
	run_to(PGR_RECV_STOPPED);
	ck_assert_uint_eq(count_sent('Q'), 2);
}
END_TEST

/* An answer that comes is still taken. */
START_TEST(stop_while_the_server_answers)
{
	set_clock(stopping_ms);
	connect_server(0);
	s_begin();
	s_wal(START, 100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(pgr_client_state(fx.client), PGR_SS_READY);
}
END_TEST

static int64_t late_ms(const struct pgr_sys *sys)
{
	(void)sys;
	return pgr_sys_real()->mono_ms(pgr_sys_real()) - PGR_COMMAND_TIMEOUT_MS + 10;
}

START_TEST(no_answer)
{
	set_clock(late_ms);
	connect_server(0);
	s_identify("1");
	run_fails(PGR_E_NETWORK, "server did not answer to START_REPLICATION");
}
END_TEST

START_TEST(no_result)
{
	set_clock(late_ms);
	connect_server(0);
	s_begin();
	s_copy_done();
	run_fails(PGR_E_NETWORK, "server did not complete the end of a timeline");
}
END_TEST

/* ---- the disk ---- */

static struct full_sys *full_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct full_sys *out;
	} u = {.in = sys};

	return u.out;
}

static int full_fallocate(const struct pgr_sys *sys, int fd, int mode, off_t off, off_t len)
{
	struct full_sys *f = full_of(sys);

	if (f->seen++ > 0 && f->full-- > 0) {
		errno = ENOSPC;
		return -1;
	}
	return pgr_sys_real()->fallocate(pgr_sys_real(), fd, mode, off, len);
}

/* Nobody waits for real. */
static int full_poll(const struct pgr_sys *sys, struct pollfd *fds, nfds_t n, int timeout_ms)
{
	struct full_sys *f = full_of(sys);

	(void)timeout_ms;
	if (++f->polls == 100)
		pgr_receiver_stop_now(fx.r);
	return poll(fds, n, 0);
}

static void full_init(int full)
{
	fx.full = (struct full_sys){.sys = *pgr_sys_real(), .full = full};
	fx.full.sys.fallocate = full_fallocate;
	fx.full.sys.poll = full_poll;
	fx.sys = &fx.full.sys;
}

/* Waits, tells the server that it lives and what is durable, and goes on when there is space. */
START_TEST(disk_full)
{
	full_init(3);
	fx.opts.wait_for_space = true;
	fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	fx.opts.stop_at = START + SEG + 1000;
	connect_server(0);
	s_begin();
	s_wal(START, SEG - 100);
	s_wal(START + SEG - 100, 1100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(fx.full.polls, 3);
	for (unsigned i = 0; i < 3; i++)
		check_status(i, START + SEG, START + SEG, false);
	check_file(SEG3, START, SEG);
	check_file(SEG4 ".partial", START + SEG, 1000);
	ck_assert_ptr_nonnull(strstr(fx.log, "No space left on device ("));
	ck_assert_ptr_nonnull(strstr(fx.log, " bytes are free); waiting for space\n1 there is space again\n"));
}
END_TEST

START_TEST(disk_full_and_stopped)
{
	full_init(1000000);
	fx.opts.wait_for_space = true;
	connect_server(0);
	s_begin();
	s_wal(START, SEG - 100);
	s_wal(START + SEG - 100, 1100);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_eq(fx.full.polls, 100);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START + SEG);
	ck_assert(!exists(SEG4 ".partial"));
}
END_TEST

/*
 * Not for ever on the same connection: a server that shuts down waits for whoever is connected.  Nothing is lost by
 * that, and the next connection goes on.
 */
START_TEST(disk_full_for_long)
{
	full_init(1000000);
	fx.full.sys.mono_ms = ticking_ms;
	fx.tick_ms = 1000;
	fx.opts.wait_for_space = true;
	fx.opts.report_flush = true;
	connect_server(0);
	s_begin();
	s_wal(START, SEG - 100);
	s_wal(START + SEG - 100, 1100);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(fx.err.sys_errno, ENOSPC);
	ck_assert(!pgr_walstore_is_failed(fx.store));
	ck_assert_int_gt(fx.full.polls, 10);
	ck_assert_int_lt(fx.full.polls, 100);

	fx.full.full = 0;
	pgr_receiver_stop_at(fx.r, START + SEG + 1000);
	connect_server(0);
	s_begin();
	s_wal(START + SEG, 1000);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_file(SEG3, START, SEG);
	check_file(SEG4 ".partial", START + SEG, 1000);
}
END_TEST

/* A base backup does not wait. */
START_TEST(disk_full_is_an_error)
{
	full_init(1);
	connect_server(0);
	s_begin();
	s_wal(START, SEG + 1000);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.sys_errno, ENOSPC);
	ck_assert_int_eq(fx.full.polls, 0);
}
END_TEST

/* ---- everything fails once ---- */

static void script_of_faults(void)
{
	connect_server(0);
	s_identify("2");
	s_both();
	s_wal(START, 100000);
	s_keepalive(START + 100000, 1);
	s_wal(START + 100000, SEG);
	s_end_of_timeline("2", "0/400064");
	s_history("00000002.history", "1\t0/400064\n");
	s_both();
	s_wal(START + SEG, 100);
	s_wal(START + SEG + 100, 100);
}

static void empty_dir(void)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), fx.dir, false, &err), PGR_OK);
	fx.sent.len = 0;
	fx.log[0] = '\0';
}

START_TEST(every_call_fails_once)
{
	unsigned n, fds = open_fds();

	fx.opts.report_flush = fx.opts.synchronous = true;
	for (n = 1;; n++) {
		struct pgr_fault_sys *f = &fx.fault;
		int rc;

		pgr_fault_sys_init(f, n, EIO);
		fx.sys = &f->sys;
		script_of_faults();
		pgr_scripted_eof(fx.server);
		rc = run(); /* the script's end is the end of the connection */
		ck_assert_int_eq(rc, PGR_ERR);
		ck_assert_uint_le(pgr_receiver_synced(fx.r), pgr_receiver_received(fx.r));
		ck_assert_str_eq(pgr_walstore_open_name(fx.store), "");
		if (f->triggered && fx.err.cls == PGR_E_SYSTEM)
			ck_assert_msg(fx.err.sys_errno == EIO, "%s", fx.err.msg);
		else
			ck_assert_msg(fx.err.cls == PGR_E_NETWORK, "%u: %s: %s", n, f->failed_call, fx.err.msg);
		drop();
		ck_assert_uint_eq(open_fds(), fds);
		empty_dir();
		if (!f->triggered)
			break;
	}
	ck_assert_uint_gt(n, 30);
}
END_TEST

/* A store that refuses after a failed sync keeps refusing, whatever the connection. */
START_TEST(failed_sync_is_final)
{
	pgr_fault_sys_init(&fx.fault, 0, EIO);
	fx.sys = &fx.fault.sys;
	fx.opts.synchronous = fx.opts.report_flush = true;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	make_receiver();
	/* remove what a killed run left, sync of the directory, open, create, mode, allocate, write, sync */
	fx.fault.fail_at = fx.fault.calls + 1 + PGR_SEGFILE_WAITING + 7;
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_str_eq(fx.fault.failed_call, "fsync");
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "could not fsync file"));
	ck_assert(pgr_walstore_is_failed(fx.store));
	ck_assert_uint_eq(count_sent('d'), 0); /* nothing was acknowledged */
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), START);
	ck_assert_ptr_nonnull(strstr(fx.log, "after an earlier error"));

	connect_server(0);
	s_identify("1");
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_SYSTEM);
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "after an earlier error"));
}
END_TEST

/* ---- the store's thread ---- */

/* A system whose syncs of files wait until something has happened in the thread that runs. */
struct gate {
	struct pgr_sys sys;   /* first */
	atomic_uint statuses; /* sent by us */
	atomic_uint pauses;   /* of the thread that runs */
	unsigned await_statuses, await_pauses;
	pgr_lsn await_written;
	atomic_uint syncs; /* of files */
	int fail;	   /* with this errno */
};

static struct gate gate;

static bool is_open(void)
{
	return atomic_load(&gate.statuses) >= gate.await_statuses && atomic_load(&gate.pauses) >= gate.await_pauses &&
	       pgr_walstore_written(fx.store) >= gate.await_written;
}

static int gated(int fd, int (*sync)(const struct pgr_sys *, int))
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	if (S_ISREG(st.st_mode)) {
		while (!is_open())
			sched_yield();
		atomic_fetch_add(&gate.syncs, 1);
	}
	if (S_ISREG(st.st_mode) && gate.fail != 0) {
		errno = gate.fail;
		return -1;
	}
	return sync(pgr_sys_real(), fd);
}

static int gate_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return gated(fd, pgr_sys_real()->fsync);
}

static int gate_fdatasync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return gated(fd, pgr_sys_real()->fdatasync);
}

/* Looked at for every status message. */
static int64_t gate_us(const struct pgr_sys *sys)
{
	(void)sys;
	atomic_fetch_add(&gate.statuses, 1);
	return pgr_sys_real()->wall_us(pgr_sys_real());
}

static int gate_poll(const struct pgr_sys *sys, struct pollfd *fds, nfds_t n, int timeout_ms)
{
	(void)sys;
	atomic_fetch_add(&gate.pauses, 1);
	return poll(fds, n, timeout_ms);
}

static int no_fallocate(const struct pgr_sys *sys, int fd, int mode, off_t off, off_t len)
{
	(void)sys;
	(void)fd;
	(void)mode;
	(void)off;
	(void)len;
	errno = ENOSPC;
	return -1;
}

static void gate_init(void)
{
	gate = (struct gate){.sys = *pgr_sys_real()};
	gate.sys.fsync = gate_fsync;
	gate.sys.fdatasync = gate_fdatasync;
	gate.sys.wall_us = gate_us;
	gate.sys.poll = gate_poll;
	fx.sys = &gate.sys;
}

/* A server that asks is answered before the sync, which does not end before that, and again behind it. */
START_TEST(keepalive_is_answered_at_once)
{
	gate_init();
	gate.await_statuses = 1;
	fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	connect_server(0);
	s_begin();
	s_wal(START, 500);
	s_keepalive(START + 500, 1);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_uint_eq(count_sent('d'), 2);
	check_status(0, START + 500, START, false);
	check_status(1, START + 500, START + 500, false);
}
END_TEST

/*
 * While a sync runs, receiving goes on, and what comes is reported as written; one more sync serves all of it.  No
 * flush is reported that was not asked for before its sync began.
 */
START_TEST(requests_merge)
{
	struct status st;

	gate_init();
	gate.await_statuses = 4;
	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	connect_server(0);
	s_begin();
	for (unsigned i = 0; i < 4; i++) {
		s_wal(START + i * 1000, 1000);
		pgr_scripted_expect(fx.server, 'd');
	}
	pgr_scripted_expect(fx.server, 'd');
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	for (unsigned i = 0; i < 4; i++)
		check_status(i, START + (i + 1) * 1000, START, false);
	for (unsigned i = 4; get_status(i, &st); i++)
		ck_assert(st.write == START + 4000 && (st.flush == START + 1000 || st.flush == START + 4000));
	ck_assert_uint_ge(count_sent('d'), 5);
	ck_assert_uint_le(gate.syncs, 2);
	ck_assert(!exists("xlogtemp.pgr.tmp"));
}
END_TEST

static atomic_int syncs, syncs_here, syncs_there;
static atomic_bool ahead_begun;
static pthread_t here;

/*
 * The first WAL is not there before the store's thread makes the next segment's file: what is asked of that thread
 * then comes behind it, and nothing is left for it to do.
 */
static int noticed_openat(const struct pgr_sys *sys, int dirfd, const char *name, int flags, mode_t mode)
{
	(void)sys;
	if (strcmp(name, "xlogtemp.pgr.tmp") == 0)
		atomic_store(&ahead_begun, true);
	return openat(dirfd, name, flags, mode);
}

static ssize_t held_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	(void)sys;
	while (!atomic_load(&ahead_begun))
		sched_yield();
	return pwrite(fd, buf, len, off);
}

/* What is written is reported before the other thread's sync of it. */
static int counted_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	atomic_fetch_add(&syncs, 1);
	while (!pthread_equal(pthread_self(), here) && atomic_load(&gate.statuses) < 1)
		sched_yield();
	return fsync(fd);
}

static int counted_fdatasync(const struct pgr_sys *sys, int fd)
{
	unsigned n;

	(void)sys;
	atomic_fetch_add(&syncs, 1);
	if (pthread_equal(pthread_self(), here)) {
		atomic_fetch_add(&syncs_here, 1);
	} else {
		n = 2 * (unsigned)atomic_fetch_add(&syncs_there, 1) + 3;
		while (atomic_load(&gate.statuses) < n)
			sched_yield();
	}
	return fdatasync(fd);
}

/* Each sync takes 5 ms, and nothing else any time. */
static int64_t syncing_ms(const struct pgr_sys *sys)
{
	return standing_ms(sys) + 5 * (int64_t)atomic_load(&syncs);
}

/* Where syncs are quick the thread that receives does them, but for the first one; where they are slow it does none.
 */
START_TEST(quick_syncs_are_done_here)
{
	bool quick = _i == 0;
	struct status st;

	set_clock(quick ? standing_ms : syncing_ms);
	fx.other.fsync = counted_fsync;
	fx.other.fdatasync = counted_fdatasync;
	fx.other.openat = noticed_openat;
	fx.other.pwrite = held_pwrite;
	here = pthread_self();
	atomic_store(&ahead_begun, false);
	atomic_store(&syncs, 0);
	atomic_store(&syncs_here, 0);
	atomic_store(&syncs_there, 0);
	atomic_store(&gate.statuses, 0);
	fx.other.wall_us = gate_us;
	begin_synchronous(0);
	for (unsigned i = 0; i < 8; i++) {
		s_wal(START + i * 1000, 1000);
		pgr_scripted_expect(fx.server, 'd');
		if (i == 0 || !quick)
			pgr_scripted_expect(fx.server, 'd');
	}
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_int_eq(syncs_here, quick ? 7 : 0);
	ck_assert_int_eq(syncs_there, quick ? 0 : 7);
	for (unsigned i = 2; quick && get_status(i, &st); i++)
		ck_assert(st.write == START + i * 1000 && st.flush == st.write);
	check_file(SEG3 ".partial", START, 8000);
}
END_TEST

/*
 * The nth sync is to be done by this thread or by the other one, and so long it takes; what comes then was under way so
 * long.  Nothing else takes any time.
 */
struct stalling {
	char by; /* 'h'ere, 't'here */
	int takes_ms, then_ms;
};

static const struct stalling stalls[] = {
	{'t', 0, 0}, {'h', 1, 0}, {'h', 2, 0}, {'t', 0, 0},   {'h', 1000, 0}, {'t', 0, 299999},
	{'t', 0, 1}, {'t', 0, 0}, {'h', 0, 0}, {'h', 999, 0}, {'t', 0, 0},    {'h', 0, 0},
};

#define NSTALLS ((unsigned)(sizeof(stalls) / sizeof(stalls[0])))

static struct {
	atomic_uint n; /* syncs of files */
	char by[NSTALLS + 1];
	atomic_int ms; /* that have passed */
} stalled;

/* So far back that nobody waits for what it says. */
static int64_t stalled_ms(const struct pgr_sys *sys)
{
	return standing_ms(sys) - 1000000 + atomic_load(&stalled.ms);
}

/* Status messages up to the one in front of the nth sync, when the other thread does that. */
static unsigned statuses_before(unsigned n)
{
	unsigned sum = 1;

	for (unsigned i = 0; i < n; i++)
		sum += stalls[i].by == 't' ? 2 : 1;
	return sum;
}

static int stall(int fd, int (*sync)(int fd))
{
	struct stat st;
	unsigned n;

	ck_assert_int_eq(fstat(fd, &st), 0);
	if (!S_ISREG(st.st_mode))
		return sync(fd);
	n = atomic_fetch_add(&stalled.n, 1);
	ck_assert_uint_lt(n, NSTALLS);
	stalled.by[n] = pthread_equal(pthread_self(), here) ? 'h' : 't';
	while (stalled.by[n] == 't' && atomic_load(&gate.statuses) < statuses_before(n))
		sched_yield();
	atomic_fetch_add(&stalled.ms, stalls[n].takes_ms);
	return sync(fd);
}

static int stalled_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return stall(fd, fsync);
}

static int stalled_fdatasync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return stall(fd, fdatasync);
}

static ssize_t stalled_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	unsigned n = atomic_load(&stalled.n);

	if (n > 0)
		atomic_fetch_add(&stalled.ms, stalls[n - 1].then_ms);
	return held_pwrite(sys, fd, buf, len, off);
}

/* One sync that takes a second, and the other thread does them for five minutes; one that takes less, and the next. */
START_TEST(stalling_disk)
{
	char expected[NSTALLS + 1] = "";

	set_clock(stalled_ms);
	fx.other.fsync = stalled_fsync;
	fx.other.fdatasync = stalled_fdatasync;
	fx.other.openat = noticed_openat;
	fx.other.pwrite = stalled_pwrite;
	fx.other.wall_us = gate_us;
	memset(&stalled, 0, sizeof(stalled));
	here = pthread_self();
	atomic_store(&ahead_begun, false);
	atomic_store(&gate.statuses, 0);
	begin_synchronous(0);
	for (unsigned i = 0; i < NSTALLS; i++) {
		expected[i] = stalls[i].by;
		s_wal(START + i * 1000, 1000);
		pgr_scripted_expect(fx.server, 'd');
		if (stalls[i].by == 't')
			pgr_scripted_expect(fx.server, 'd');
	}
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	ck_assert_str_eq(stalled.by, expected);
	check_file(SEG3 ".partial", START, NSTALLS * 1000);
}
END_TEST

/* A sync here that fails is the end, and nothing of what it was for is reported. */
static int failing_fdatasync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	(void)fd;
	ck_assert(pthread_equal(pthread_self(), here));
	atomic_fetch_add(&syncs_here, 1);
	errno = EIO;
	return -1;
}

START_TEST(failure_in_the_stream)
{
	struct status st;

	set_clock(standing_ms);
	fx.other.fsync = counted_fsync;
	fx.other.fdatasync = failing_fdatasync;
	fx.other.openat = noticed_openat;
	fx.other.pwrite = held_pwrite;
	fx.other.wall_us = gate_us;
	here = pthread_self();
	atomic_store(&ahead_begun, false);
	atomic_store(&syncs_here, 0);
	atomic_store(&gate.statuses, 0);
	begin_synchronous(0);
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, 1000);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(fx.err.sys_errno, EIO);
	ck_assert_ptr_null(strstr(fx.err.msg, "after an earlier error"));
	ck_assert(pgr_walstore_is_failed(fx.store));
	ck_assert_int_eq(syncs_here, 1);
	for (unsigned i = 0; get_status(i, &st); i++)
		ck_assert_uint_le(st.flush, START + 1000);
}
END_TEST

/* The disk stands still: the stream is held when enough segments wait for it, and goes on by itself. */
START_TEST(slow_disk)
{
	char name[64];

	gate_init();
	gate.await_pauses = 1;
	fx.opts.synchronous = fx.opts.report_flush = _i % 2 == 1;
	fx.opts.status_interval_ms = _i < 2 ? 0 : 1;
	fx.opts.stop_at = START + 9 * SEG + 100;
	connect_server(0);
	s_begin();
	for (unsigned i = 0; i < 73; i++)
		s_wal(START + i * 131072, 131072);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	for (unsigned i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "00000001%016X", 3 + i);
		check_file(name, START + i * SEG, SEG);
	}
	ck_assert_uint_ge(gate.pauses, 1);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), pgr_receiver_received(fx.r));
}
END_TEST

/* ---- catching up: another thread writes ---- */

#define BIG	  ((uint32_t)4 * SEG)
#define BIG_START ((pgr_lsn)2 * BIG)
#define BIG_LEN	  (BIG + 2 * SEG + 77) /* whole blocks of the second segment, and some bytes that fill none */

static atomic_uint directs;

static int counted_set_direct(const struct pgr_sys *sys, int fd, int on)
{
	(void)sys;
	atomic_fetch_add(&directs, on != 0);
	return pgr_sys_real()->set_direct(pgr_sys_real(), fd, on);
}

/* A server that is far ahead, and what happens in the middle. */
static void begin_far_behind(void)
{
	gate_init();
	gate.sys.set_direct = counted_set_direct;
	atomic_store(&directs, 0);
	fx.opts.segment_bytes = fx.store_opts.segment_bytes = BIG;
	fx.opts.start = BIG_START;
	fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	connect_server(0);
	s_begin();
	for (size_t at = 0; at < BIG_LEN; at += 131072)
		s_wal_of(BIG_START + at, BIG_LEN - at < 131072 ? BIG_LEN - at : 131072, BIG_START + 100 * BIG);
}

static void check_far_behind(void)
{
	ck_assert_uint_eq(directs, 2);
	ck_assert_uint_eq(pgr_receiver_received(fx.r), BIG_START + BIG_LEN);
	ck_assert_uint_eq(pgr_receiver_synced(fx.r), BIG_START + BIG_LEN);
	check_file("000000010000000000000002", BIG_START, BIG);
	check_file("000000010000000000000003.partial", BIG_START + BIG, BIG_LEN - BIG);
}

/* All of it is durable however the stream ends, and the next one goes on at the start of the open segment. */
START_TEST(lost_while_catching_up)
{
	const pgr_lsn again = BIG_START + BIG, end = BIG_START + 2 * BIG + 100;

	begin_far_behind();
	if (_i == 0)
		pgr_scripted_eof(fx.server);
	else
		pgr_scripted_reset(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_NETWORK);
	check_far_behind();

	pgr_receiver_stop_at(fx.r, end);
	connect_server(0);
	s_begin();
	for (pgr_lsn at = again; at < end; at += 131072)
		s_wal_of(at, end - at < 131072 ? (size_t)(end - at) : 131072, BIG_START + 100 * BIG);
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_query(3, "START_REPLICATION 0/C00000 TIMELINE 1");
	ck_assert(was_flush_reported(end));
	check_file("000000010000000000000003", again, BIG);
	check_file("000000010000000000000004.partial", again + BIG, 100);
}
END_TEST

/* Its end is durable, and told, before CopyDone is answered. */
START_TEST(timeline_ends_while_catching_up)
{
	begin_far_behind();
	s_end_of_timeline("2", "0/C00000");
	pgr_scripted_eof(fx.server);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_NETWORK);
	ck_assert_uint_eq(count_sent('c'), 1);
	ck_assert(was_flush_reported(BIG_START + BIG_LEN));
	check_file("000000010000000000000002", BIG_START, BIG);
	check_file("000000010000000000000003.partial", BIG_START + BIG, BIG_LEN - BIG);
	ck_assert_uint_eq(directs, 2);
}
END_TEST

/* Whoever asks hears at once of all that has come, the rest that fills no block as well, and then that it is durable.
 */
START_TEST(asked_while_catching_up)
{
	begin_far_behind();
	gate.await_statuses = 1;
	s_keepalive(BIG_START + (_i == 0 ? 100 * BIG : BIG_LEN), 1);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	s_complete("COPY 0");
	pgr_scripted_eof(fx.server);
	run_to(PGR_RECV_SERVER_CLOSED);
	check_status(0, BIG_START + BIG_LEN, BIG_START, false);
	ck_assert(was_flush_reported(BIG_START + BIG_LEN));
	check_far_behind();
}
END_TEST

START_TEST(stopped_while_catching_up)
{
	begin_far_behind();
	fx.opts.stop_at = BIG_START + BIG_LEN;
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	check_status(count_sent('d') - 1, BIG_START + BIG_LEN, BIG_START + BIG_LEN, false);
	check_far_behind();
}
END_TEST

/* An idle stream ends with the reason as soon as a sync has failed. */
START_TEST(failure_behind_the_stream)
{
	gate_init();
	gate.fail = EIO;
	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.status_interval_ms = 0;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(fx.err.sys_errno, EIO);
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "could not fsync file \""));
	ck_assert_ptr_null(strstr(fx.err.msg, "after an earlier error"));
	ck_assert(pgr_walstore_is_failed(fx.store));
	ck_assert(!was_flush_reported(START + 1000));
	ck_assert_uint_eq(gate.syncs, 1);
}
END_TEST

/* That there is no space for a file ahead is no failure until it is needed. */
START_TEST(no_space_ahead)
{
	gate_init();
	fx.opts.synchronous = fx.opts.report_flush = true;
	fx.opts.stop_at = START + SEG - 1;
	connect_server(0);
	s_begin();
	s_wal(START, 1000);
	pgr_scripted_expect(fx.server, 'd');
	pgr_scripted_expect(fx.server, 'd');
	s_wal(START + 1000, SEG - 1001);
	s_stopped();
	make_receiver();
	ck_assert_int_eq(pgr_walstore_begin(fx.store, 1, START, &fx.err), PGR_OK);
	ck_assert_int_eq(pgr_walstore_write(fx.store, START, "", 1, &fx.err), PGR_OK);
	ck_assert_int_eq(pgr_walstore_close_segment(fx.store, false, &fx.err), PGR_OK);
	gate.sys.fallocate = no_fallocate;
	run_to(PGR_RECV_STOPPED);
	ck_assert(!pgr_walstore_is_failed(fx.store));
	ck_assert(!exists("xlogtemp.pgr.tmp"));
	check_file(SEG3 ".partial", START, SEG - 1);
}
END_TEST

/* Of what is done with the name of the file that is made ahead, so many calls fail. */
static struct {
	struct pgr_sys sys;
	int errnum;
	bool opening;
	atomic_int fd, failed;
} bad_ahead;

static int ahead_fails(void)
{
	bad_ahead.failed++;
	errno = bad_ahead.errnum;
	return -1;
}

static int ahead_openat(const struct pgr_sys *sys, int dirfd, const char *name, int flags, mode_t mode)
{
	bool is = strcmp(name, "xlogtemp.pgr.tmp") == 0;
	int fd;

	(void)sys;
	if (is && bad_ahead.opening)
		return ahead_fails();
	fd = openat(dirfd, name, flags, mode);
	if (is)
		bad_ahead.fd = fd;
	else if (fd == bad_ahead.fd)
		bad_ahead.fd = -1;
	return fd;
}

static int ahead_fallocate(const struct pgr_sys *sys, int fd, int mode, off_t off, off_t len)
{
	(void)sys;
	if (fd == bad_ahead.fd)
		return ahead_fails();
	return fallocate(fd, mode, off, len);
}

/* Whatever is wrong with the file that is made ahead: it is not used, and each segment has one of its own. */
START_TEST(ahead_cannot_be_made)
{
	char name[64];

	bad_ahead.sys = *pgr_sys_real();
	bad_ahead.fd = -1;
	bad_ahead.errnum = _i % 2 == 0 ? EIO : ENOSPC;
	bad_ahead.opening = _i >= 2;
	bad_ahead.failed = 0;
	bad_ahead.sys.openat = ahead_openat;
	bad_ahead.sys.fallocate = ahead_fallocate;
	fx.sys = &bad_ahead.sys;
	fx.opts.stop_at = START + 3 * SEG + 100;
	begin_synchronous(0);
	for (unsigned i = 0; i < 25; i++) {
		s_wal(START + i * 131072, 131072);
		pgr_scripted_expect(fx.server, 'd');
	}
	s_stopped();
	run_to(PGR_RECV_STOPPED);
	ck_assert_int_gt(bad_ahead.failed, 0);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "00000001%016X", 3 + i);
		check_file(name, START + i * SEG, SEG);
	}
	ck_assert(!exists("xlogtemp.pgr.tmp"));
}
END_TEST

START_TEST(making_fails)
{
	struct pgr_receiver *r;

	connect_server(0);
	make_receiver();
	fx.opts.segment_bytes = 12345;
	ck_assert_int_eq(pgr_receiver_new(&r, fx.sys, fx.store, &fx.opts, &fx.err), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(r);
	pgr_receiver_free(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("receiver");
	TCase *tc = tcase_create("receiver");
	TCase *thread = tcase_create("with the store's thread");
	TCase *quick = tcase_create("does not wait for a timeout");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, stream_and_stop, 0, 4);
	tcase_add_test(tc, no_flush_reports);
	tcase_add_loop_test(tc, first_status_comes_at_once, 0, 2);
	tcase_add_loop_test(tc, keepalive_is_answered_with_a_flush, 0, 2);
	tcase_add_test(tc, base_backup_names);
	tcase_add_loop_test(tc, stop_position_is_passed_already, 0, 2);
	tcase_add_test(tc, stop_before_the_start);
	tcase_add_test(tc, strict_beyond);
	tcase_add_loop_test(tc, strict_at_the_end, 0, 2);
	tcase_add_test(tc, strict_is_not_satisfied_early);
	tcase_add_test(tc, strict_after_a_lost_connection);
	tcase_add_test(quick, strict_is_asked_on_each_connection);
	tcase_add_loop_test(tc, stop_at_from_a_thread, 0, 2);
	tcase_add_test(tc, stop_now_from_a_thread);
	tcase_add_test(tc, stop_at_ahead);
	tcase_add_loop_test(tc, stop_behind_a_switch, 0, 2);
	tcase_add_test(tc, held_until_the_end_is_known);
	tcase_add_test(tc, switches_in_the_middle);
	tcase_add_loop_test(tc, nothing_to_wait_for, 0, NO_PAGE_IS_SEEN + 1);
	tcase_add_test(tc, woken_for_later);
	tcase_add_loop_test(tc, group_commit, 0, 2);
	tcase_add_test(tc, rest_is_waited_for);
	tcase_add_loop_test(tc, rest_does_not_come, 0, 6);
	tcase_add_test(tc, asked_before_the_rest);
	tcase_add_test(tc, catching_up);
	tcase_add_test(tc, catching_up_slowly);
	tcase_add_test(tc, message_across_segments);
	tcase_add_test(tc, endless_burst);
	tcase_add_test(tc, status_interval);
	tcase_add_test(tc, silent_server);
	tcase_add_test(tc, idle_server);
	tcase_add_test(tc, no_status_interval);
	tcase_add_loop_test(tc, wrong_start, 0, 5);
	tcase_add_loop_test(tc, foreign_pages, 0, 10);
	tcase_add_test(tc, asked_inside_a_header);
	tcase_add_test(tc, pages_of_another_version);
	tcase_add_loop_test(tc, unknown_pages, 0, 2);
	tcase_add_loop_test(tc, bad_messages, 0, 5);
	tcase_add_loop_test(tc, timelines, 0, 4);
	tcase_add_test(tc, end_of_an_old_timeline);
	tcase_add_loop_test(tc, history_of_the_first_timeline, 0, 2);
	tcase_add_loop_test(tc, bad_switch, 0, sizeof(bad_switches) / sizeof(bad_switches[0]));
	tcase_add_test(tc, no_next_timeline);
	tcase_add_test(tc, two_next_timelines);
	tcase_add_loop_test(tc, bad_history, 0, sizeof(bad_histories) / sizeof(bad_histories[0]));
	tcase_add_test(tc, history_is_known_here_alone);
	tcase_add_loop_test(tc, connection_is_lost_instead_of_a_known_history, 0, 2);
	tcase_add_test(tc, history_is_another_one);
	tcase_add_test(tc, old_server);
	tcase_add_test(tc, wrong_system);
	tcase_add_test(tc, any_system);
	tcase_add_test(tc, timeline_ahead);
	tcase_add_test(tc, server_shuts_down);
	tcase_add_test(tc, server_shuts_down_at_the_stop_position);
	tcase_add_test(tc, refused);
	tcase_add_loop_test(tc, other_copy, 0, 2);
	tcase_add_test(tc, removed_segment);
	tcase_add_test(tc, terminated);
	tcase_add_loop_test(tc, lost_and_resumed, 0, 4);
	tcase_add_test(tc, lost_between_timelines);
	tcase_add_test(tc, stop_and_error);
	tcase_add_test(tc, stop_and_eof);
	tcase_add_test(tc, stop_and_shutdown);
	tcase_add_test(tc, stop_and_silence);
	tcase_add_test(quick, stop_while_the_next_timeline_is_awaited);
	tcase_add_test(tc, stop_before_the_next_timeline);
	tcase_add_test(tc, stop_while_the_server_answers);
	tcase_add_test(tc, no_answer);
	tcase_add_test(tc, no_result);
	tcase_add_test(tc, disk_full);
	tcase_add_test(tc, disk_full_and_stopped);
	tcase_add_test(tc, disk_full_for_long);
	tcase_add_test(tc, disk_full_is_an_error);
	tcase_add_test(tc, every_call_fails_once);
	tcase_add_test(tc, failed_sync_is_final);
	tcase_add_test(tc, making_fails);
	suite_add_tcase(s, tc);
	tcase_set_timeout(thread, 120);
	tcase_add_checked_fixture(thread, setup_threaded, teardown);
	tcase_add_loop_test(thread, stream_and_stop, 0, 4);
	tcase_add_test(thread, no_flush_reports);
	tcase_add_test(thread, base_backup_names);
	tcase_add_test(thread, strict_at_the_end);
	tcase_add_loop_test(thread, stop_at_from_a_thread, 0, 2);
	tcase_add_test(thread, stop_now_from_a_thread);
	tcase_add_test(thread, status_interval);
	tcase_add_test(thread, no_status_interval);
	tcase_add_loop_test(thread, wrong_start, 0, 5);
	tcase_add_loop_test(thread, bad_messages, 0, 5);
	tcase_add_loop_test(thread, timelines, 0, 4);
	tcase_add_loop_test(thread, bad_switch, 0, sizeof(bad_switches) / sizeof(bad_switches[0]));
	tcase_add_test(thread, terminated);
	tcase_add_loop_test(thread, lost_and_resumed, 0, 4);
	tcase_add_test(thread, disk_full_and_stopped);
	tcase_add_test(thread, every_call_fails_once);
	tcase_add_test(thread, keepalive_is_answered_at_once);
	tcase_add_test(thread, requests_merge);
	tcase_add_loop_test(thread, quick_syncs_are_done_here, 0, 2);
	tcase_add_test(thread, stalling_disk);
	tcase_add_test(thread, failure_in_the_stream);
	tcase_add_loop_test(thread, rest_does_not_come, 0, 6);
	tcase_add_loop_test(thread, slow_disk, 0, 4);
	tcase_add_loop_test(thread, lost_while_catching_up, 0, 2);
	tcase_add_test(thread, timeline_ends_while_catching_up);
	tcase_add_loop_test(thread, asked_while_catching_up, 0, 2);
	tcase_add_test(thread, stopped_while_catching_up);
	tcase_add_test(thread, failure_behind_the_stream);
	tcase_add_test(thread, no_space_ahead);
	tcase_add_loop_test(thread, ahead_cannot_be_made, 0, 4);
	suite_add_tcase(s, thread);
	tcase_set_timeout(quick, 30);
	tcase_add_checked_fixture(quick, setup, teardown);
	tcase_add_test(quick, stop_while_the_server_thinks);
	suite_add_tcase(s, quick);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
