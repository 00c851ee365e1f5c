#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/copyrows.h"
#include "common/buf.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/client.h"
#include "tests/support/scripted.h"

/* ---- what a server says ---- */

static struct pgr_buf copy; /* the bytes of the COPY, to be cut into messages */
static struct pgr_buf script;
static struct pgr_scripted *server;
static struct pgr_client *client;
static struct pgr_copyrows rows;
static struct pgr_err err;
static unsigned notices;

static void count_notice(void *arg, const char *text)
{
	(void)arg;
	(void)text;
	notices++;
}

static void setup(void)
{
	copy = script = (struct pgr_buf){0};
	server = NULL;
	client = NULL;
	notices = 0;
}

static void hang_up(void)
{
	pgr_client_free(client);
	client = NULL;
}

static void teardown(void)
{
	hang_up();
	pgr_buf_fini(&copy);
	pgr_buf_fini(&script);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void put_header(uint32_t flags, uint32_t extension)
{
	must(pgr_buf_put(&copy, "PGCOPY\n\377\r\n", 11, &err));
	must(pgr_buf_put32(&copy, flags, &err));
	must(pgr_buf_put32(&copy, extension, &err));
}

/* What value `n` looks like. */
static uint8_t byte_at(unsigned n, size_t off)
{
	return (uint8_t)(n * 41 + off * 3 + off / 251);
}

static void put_row(unsigned n, uint32_t len)
{
	must(pgr_buf_put16(&copy, 1, &err));
	must(pgr_buf_put32(&copy, len, &err));
	must(pgr_buf_reserve(&copy, len, &err));
	for (uint32_t i = 0; i < len; i++)
		copy.data[copy.len++] = byte_at(n, i);
}

static void put_null(void)
{
	must(pgr_buf_put16(&copy, 1, &err));
	must(pgr_buf_put32(&copy, UINT32_MAX, &err));
}

static void put_trailer(void)
{
	must(pgr_buf_put16(&copy, 0xFFFF, &err));
}

/* The COPY in messages of `piece` bytes. */
static void put_messages(size_t piece)
{
	for (size_t at = 0; at < copy.len; at += piece)
		pgr_msg_copy_data(&script, copy.data + at, copy.len - at < piece ? copy.len - at : piece);
	pgr_buf_fini(&copy);
}

static void put_end(void)
{
	pgr_msg_copy_done(&script);
	pgr_msg_complete(&script, "COPY 3");
	pgr_msg_ready(&script);
}

static void send_query(const char *text)
{
	struct pgr_buf q = {0};

	must(pgr_buf_puts(&q, text, &err));
	must(pgr_client_send_ahead(client, &q, &err));
	pgr_buf_fini(&q);
}

/* The server says what is in `script`, at most `chunk` bytes a read. */
static void connect_to(size_t chunk)
{
	server = pgr_scripted_new(150000, chunk);
	pgr_scripted_expect(server, 'Q');
	pgr_scripted_send_buf(server, &script);
	must(pgr_client_new(&client, pgr_scripted_transport(server), pgr_sys_real(), count_notice, NULL, &err));
	send_query("COPY");
	pgr_copyrows_init(&rows, client);
}

/* ---- reading ---- */

static void expect_row(uint32_t len)
{
	bool is_null;
	uint32_t got;

	must(pgr_copyrows_next(&rows, &is_null, &got, &err));
	ck_assert(!is_null);
	ck_assert_uint_eq(got, len);
}

static void expect_null(void)
{
	bool is_null;
	uint32_t got, n;
	size_t none = 1;

	must(pgr_copyrows_next(&rows, &is_null, &got, &err));
	ck_assert(is_null);
	ck_assert_uint_eq(got, 0);
	must(pgr_copyrows_read(&rows, &n, sizeof(n), &none, &err));
	ck_assert_uint_eq(none, 0);
}

/* Reads `want` bytes of value n from `from` on, at most `cap` at a time. */
static void expect_value(unsigned n, size_t from, size_t want, size_t cap)
{
	uint8_t *buf = malloc(cap);
	size_t wrong = 0, at = from;

	ck_assert_ptr_nonnull(buf);
	while (at < from + want) {
		size_t may = from + want - at < cap ? from + want - at : cap, got;

		must(pgr_copyrows_read(&rows, buf, may, &got, &err));
		ck_assert_uint_ge(got, 1);
		ck_assert_uint_le(got, may);
		for (size_t i = 0; i < got; i++)
			wrong += buf[i] != byte_at(n, at + i);
		at += got;
	}
	ck_assert_uint_eq(wrong, 0);
	free(buf);
}

static void expect_value_end(void)
{
	uint8_t b;
	size_t got = 7;

	must(pgr_copyrows_read(&rows, &b, 1, &got, &err));
	ck_assert_uint_eq(got, 0);
}

static int next(void)
{
	bool is_null;
	uint32_t len;

	return pgr_copyrows_next(&rows, &is_null, &len, &err);
}

static void expect_end(void)
{
	ck_assert_int_eq(next(), PGR_MORE);
	ck_assert_int_eq(next(), PGR_MORE);
	ck_assert_int_eq(pgr_client_state(client), PGR_SS_READY);
}

static void expect_refused(enum pgr_errclass cls, const char *words)
{
	ck_assert_int_eq(next(), PGR_ERR);
	ck_assert_msg(err.cls == cls, "class %d: %s", err.cls, err.msg);
	ck_assert_msg(strstr(err.msg, words) != NULL, "%s", err.msg);
}

/* ---- in any pieces ---- */

static const size_t pieces[] = {1, 2, 3, 5, 7, 19, 20, 24, 25, 26, 1000, 1u << 20};
#define NPIECES ((int)(sizeof(pieces) / sizeof(pieces[0])))
static const size_t chunks[] = {0, 1, 2, 6, 7, 4096};
#define NCHUNKS ((int)(sizeof(chunks) / sizeof(chunks[0])))

START_TEST(all_pieces)
{
	put_header(0, 0);
	put_row(0, 1);
	put_row(1, 40);
	put_null();
	put_row(3, 0);
	put_row(4, 1000);
	put_row(5, 33);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(pieces[_i % NPIECES]);
	put_end();
	connect_to(chunks[_i / NPIECES]);

	expect_row(1);
	expect_value(0, 0, 1, 1);
	expect_value_end();
	expect_row(40);
	expect_value(1, 0, 40, 7);
	expect_null();
	expect_row(0);
	expect_value_end();
	expect_row(1000);
	expect_value(4, 0, 999, 100); /* the rest is skipped */
	expect_row(33);		      /* all of it is skipped */
	expect_end();
}
END_TEST

/* Long rows come straight into the destination; with chunks of every kind between head and body. */
START_TEST(long_rows)
{
	static const size_t sizes[] = {0, 997, 6000, 8192, 65536, 131078};

	put_header(0, 0);
	for (unsigned i = 0; i < 4; i++)
		put_row(i, 131072);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	/* as servers do: the header comes with the first row, then a row a message, then the trailer */
	pgr_msg_copy_data(&script, copy.data, 19 + 131078);
	for (unsigned i = 1; i < 4; i++)
		pgr_msg_copy_data(&script, copy.data + 19 + (size_t)i * 131078, 131078);
	pgr_msg_copy_data(&script, copy.data + 19 + (size_t)4 * 131078, 2);
	put_end();
	connect_to(sizes[_i]);
	for (unsigned i = 0; i < 4; i++) {
		expect_row(131072);
		expect_value(i, 0, 131072, i % 2 == 0 ? 131072 : 50000);
	}
	expect_end();
}
END_TEST

START_TEST(no_rows)
{
	put_header(0, 0);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	pgr_msg_copy_data(&script, "", 0); /* no server does, all may */
	put_messages(1000);
	pgr_msg_copy_data(&script, "", 0);
	put_end();
	connect_to(0);
	expect_end();
}
END_TEST

START_TEST(header_extension)
{
	put_header(0x0000FFFF, 10000); /* flags that are no concern, an extension that may be skipped */
	must(pgr_buf_reserve(&copy, 10000, &err));
	memset(copy.data + copy.len, 0xFF, 10000);
	copy.len += 10000;
	put_row(9, 10);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(64);
	put_end();
	connect_to(0);
	expect_row(10);
	expect_value(9, 0, 10, 10);
	expect_end();
}
END_TEST

/* Notices may come at any time between messages. */
START_TEST(notices_between)
{
	put_header(0, 0);
	put_row(0, 100);
	put_trailer();
	pgr_msg_notice(&script, "WARNING", "01000", "one");
	pgr_msg_copy_response(&script, 'H');
	pgr_msg_copy_data(&script, copy.data, 50);
	pgr_msg_notice(&script, "WARNING", "01000", "two");
	pgr_msg_copy_data(&script, copy.data + 50, copy.len - 50);
	pgr_msg_copy_done(&script);
	pgr_msg_notice(&script, "WARNING", "01000", "three");
	pgr_msg_complete(&script, "COPY 1");
	pgr_msg_param(&script, "TimeZone", "UTC");
	pgr_msg_ready(&script);
	connect_to(0);
	expect_row(100);
	expect_value(0, 0, 100, 100);
	expect_end();
	ck_assert_uint_eq(notices, 3);
}
END_TEST

/* Two commands on the way: the first one's end is not the second one's beginning. */
START_TEST(sent_ahead)
{
	for (unsigned i = 0; i < 2; i++) {
		put_header(0, 0);
		put_row(i, 30000);
		put_trailer();
		pgr_msg_copy_response(&script, 'H');
		put_messages(1u << 20);
		put_end();
	}
	connect_to(_i == 0 ? 0 : 5);
	send_query("COPY again");
	expect_row(30000);
	expect_value(0, 0, 30000, 4096);
	ck_assert_int_eq(next(), PGR_MORE);
	ck_assert_int_eq(pgr_client_state(client), PGR_SS_BUSY);
	pgr_copyrows_init(&rows, client);
	expect_row(30000);
	expect_value(1, 0, 30000, 4096);
	expect_end();
}
END_TEST

/* A wake descriptor that somebody set on the client is readable all the time: nothing comes of it. */
START_TEST(not_woken)
{
	int fds[2];

	put_header(0, 0);
	put_row(0, 70000);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(1u << 20);
	put_end();
	connect_to(10);
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	pgr_client_set_wake(client, fds[0]);
	expect_row(70000);
	expect_value(0, 0, 70000, 70000);
	expect_end();
	ck_assert_int_eq(pgr_client_set_wake(client, -1), fds[0]);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* ---- what no server should say ---- */

static void bad_signature(void)
{
	must(pgr_buf_put(&copy, "PGCOPY\n\377\n\n\0\0\0\0\0\0\0\0\0", 19, &err));
	put_trailer();
}

static void text_instead(void)
{
	must(pgr_buf_puts(&copy, "\\\\x0011223344556677889900\n", &err));
}

static void oids(void)
{
	put_header(0x00010000, 0);
	put_trailer();
}

static void endless_extension(void)
{
	put_header(0, 0x80000000u);
}

static void short_extension(void)
{
	put_header(0, 100);
}

static void no_columns(void)
{
	put_header(0, 0);
	must(pgr_buf_put16(&copy, 0, &err));
}

static void two_columns(void)
{
	put_header(0, 0);
	must(pgr_buf_put16(&copy, 2, &err));
	must(pgr_buf_put32(&copy, 0, &err));
	must(pgr_buf_put32(&copy, 0, &err));
	put_trailer();
}

static void length_below_null(void)
{
	put_header(0, 0);
	must(pgr_buf_put16(&copy, 1, &err));
	must(pgr_buf_put32(&copy, (uint32_t)-2, &err));
	put_trailer();
}

static void no_trailer(void)
{
	put_header(0, 0);
}

static void half_a_head(void)
{
	put_header(0, 0);
	must(pgr_buf_put(&copy, "\0\1\0\0", 4, &err));
}

static void after_trailer(void)
{
	put_header(0, 0);
	put_trailer();
	put_row(0, 3);
}

static void nothing(void) {}

static const struct {
	void (*say)(void);
	const char *words;
} violations[] = {
	{bad_signature, "no binary signature"},
	{text_instead, "no binary signature"},
	{oids, "header is not known"},
	{endless_extension, "header is not known"},
	{short_extension, "ends before its trailer"},
	{no_columns, "exactly one column"},
	{two_columns, "exactly one column"},
	{length_below_null, "impossible length"},
	{no_trailer, "ends before its trailer"},
	{half_a_head, "ends before its trailer"},
	{after_trailer, "goes on after its trailer"},
	{nothing, "ends before its trailer"},
};
#define NVIOLATIONS ((int)(sizeof(violations) / sizeof(violations[0])))

START_TEST(violation)
{
	pgr_msg_copy_response(&script, 'H');
	violations[_i / 2].say();
	if (copy.len > 0)
		put_messages(_i % 2 == 0 ? 1u << 20 : 1);
	put_end();
	connect_to(0);
	expect_refused(PGR_E_PROTOCOL, violations[_i / 2].words);
}
END_TEST

/* A value that was promised and does not come. */
START_TEST(value_cut)
{
	uint8_t buf[100];
	size_t got, n = 0;
	int rc;

	put_header(0, 0);
	put_row(0, 50);
	copy.len -= 10;
	pgr_msg_copy_response(&script, 'H');
	put_messages(7);
	put_end();
	connect_to(0);
	expect_row(50);
	if (_i == 1) { /* or skipped */
		expect_refused(PGR_E_PROTOCOL, "ends before its trailer");
		return;
	}
	while ((rc = pgr_copyrows_read(&rows, buf, sizeof(buf), &got, &err)) == PGR_OK && got > 0)
		n += got;
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_uint_eq(n, 40);
}
END_TEST

static void say_rows(void)
{
	pgr_msg_row_desc(&script, 1, (const char *const[]){"x"});
	pgr_msg_row(&script, 1, (const char *const[]){"\\x00"});
	pgr_msg_complete(&script, "SELECT 1");
	pgr_msg_ready(&script);
}

static void say_complete(void)
{
	pgr_msg_complete(&script, "SET");
	pgr_msg_ready(&script);
}

static void say_copy_in(void)
{
	pgr_msg_copy_response(&script, 'G');
}

static void say_two(void)
{
	for (int i = 0; i < 2; i++) {
		put_header(0, 0);
		put_trailer();
		pgr_msg_copy_response(&script, 'H');
		put_messages(100);
		pgr_msg_copy_done(&script);
		pgr_msg_complete(&script, "COPY 0");
	}
	pgr_msg_ready(&script);
}

static void (*const others[])(void) = {say_rows, say_complete, say_copy_in, say_two};

START_TEST(something_else)
{
	others[_i]();
	connect_to(0);
	expect_refused(PGR_E_PROTOCOL, "");
}
END_TEST

/* ---- errors and ends ---- */

/* The command's error, wherever it comes; the command sent behind it is answered as if nothing had been. */
START_TEST(server_error)
{
	put_header(0, 0);
	put_row(0, 20);
	if (_i > 0)
		pgr_msg_copy_response(&script, 'H');
	if (_i > 1)
		put_messages(1000);
	if (_i > 2)
		pgr_msg_copy_done(&script);
	pgr_buf_fini(&copy);
	pgr_msg_error(&script, "ERROR", "58030", "could not read");
	pgr_msg_notice(&script, "WARNING", "01000", "by the way");
	pgr_msg_error(&script, "ERROR", "XX000", "later");
	pgr_msg_ready(&script);

	put_header(0, 0);
	put_row(7, 5);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(1000);
	put_end();
	connect_to(0);
	send_query("COPY again");
	if (_i > 1) {
		expect_row(20);
		expect_value(0, 0, 20, 20);
	}
	if (_i == 3) { /* after CopyDone without a trailer: the broken content is seen first */
		expect_refused(PGR_E_PROTOCOL, "ends before its trailer");
		return;
	}
	expect_refused(PGR_E_SERVER, "could not read");
	ck_assert_str_eq(err.sqlstate, "58030");
	ck_assert(!err.fatal);
	ck_assert_int_eq(pgr_client_state(client), PGR_SS_BUSY);
	pgr_copyrows_init(&rows, client);
	expect_row(5);
	expect_value(7, 0, 5, 5);
	expect_end();
}
END_TEST

/* An error between the trailer and the end, as when the transaction cannot commit. */
START_TEST(error_at_the_end)
{
	put_header(0, 0);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(1000);
	pgr_msg_copy_done(&script);
	pgr_msg_error(&script, "ERROR", "40001", "conflict with recovery");
	pgr_msg_ready(&script);
	connect_to(0);
	expect_refused(PGR_E_SERVER, "conflict with recovery");
	ck_assert_int_eq(pgr_client_state(client), PGR_SS_READY);
}
END_TEST

START_TEST(fatal)
{
	put_header(0, 0);
	put_row(0, 20);
	pgr_msg_copy_response(&script, 'H');
	put_messages(1000);
	pgr_msg_error(&script, "FATAL", "57P01", "terminating connection due to administrator command");
	connect_to(0);
	expect_row(20);
	expect_refused(PGR_E_SERVER, "terminating connection");
	ck_assert_str_eq(err.sqlstate, "57P01");
	ck_assert(err.fatal);
}
END_TEST

/* An error that the end of the connection follows, instead of ReadyForQuery: the error is what is told. */
START_TEST(error_then_eof)
{
	pgr_msg_error(&script, "ERROR", "57P02", "crash");
	connect_to(0);
	pgr_scripted_eof(server);
	expect_refused(PGR_E_SERVER, "crash");
}
END_TEST

/* The connection ends after `_i` bytes of the conversation, in good order or with a reset. */
START_TEST(lost_anywhere)
{
	size_t whole;
	int rc;

	put_header(0, 0);
	put_row(0, 20);
	put_row(1, 3);
	put_trailer();
	pgr_msg_copy_response(&script, 'H');
	put_messages(31);
	put_end();
	whole = script.len;
	for (size_t cut = 0; cut < whole; cut++) {
		struct pgr_buf part = {0};

		must(pgr_buf_put(&part, script.data, cut, &err));
		server = pgr_scripted_new(150000, 0);
		pgr_scripted_expect(server, 'Q');
		pgr_scripted_send_buf(server, &part);
		if (_i == 0)
			pgr_scripted_eof(server);
		else
			pgr_scripted_reset(server);
		must(pgr_client_new(&client, pgr_scripted_transport(server), pgr_sys_real(), NULL, NULL, &err));
		send_query("COPY");
		pgr_copyrows_init(&rows, client);
		while ((rc = next()) == PGR_OK) {
			uint8_t buf[8];
			size_t n;

			do
				rc = pgr_copyrows_read(&rows, buf, sizeof(buf), &n, &err);
			while (rc == PGR_OK && n > 0);
			if (rc != PGR_OK)
				break;
		}
		ck_assert_int_eq(rc, PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_NETWORK);
		hang_up();
	}
}
END_TEST

START_TEST(stopped)
{
	struct pgr_stop *stop;
	struct pgr_err why;
	uint8_t buf[64];
	size_t n;

	must(pgr_stop_new(&stop, &err));
	put_header(0, 0);
	put_row(0, 50);
	copy.len -= 10;
	pgr_msg_copy_response(&script, 'H');
	pgr_msg(&script, 'd', NULL, 0);
	script.data[script.len - 1] = 200; /* a message that is longer than what comes of it */
	must(pgr_buf_put(&script, copy.data, copy.len, &err));
	connect_to(0);
	pgr_scripted_set_stop(server, stop);
	expect_row(50);
	expect_value(0, 0, 40, 64);
	pgr_err_set(&why, PGR_E_STOPPED, "signal");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(pgr_copyrows_read(&rows, buf, sizeof(buf), &n, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	hang_up();
	pgr_stop_free(stop);
}
END_TEST

/* ---- several columns ---- */

static void put_value(unsigned n, uint32_t len)
{
	must(pgr_buf_put32(&copy, len, &err));
	must(pgr_buf_reserve(&copy, len, &err));
	for (uint32_t i = 0; i < len; i++)
		copy.data[copy.len++] = byte_at(n, i);
}

static void expect_column(uint32_t len, bool null)
{
	bool is_null;
	uint32_t got;

	must(pgr_copyrows_column(&rows, &is_null, &got, &err));
	ck_assert_int_eq(is_null, null);
	ck_assert_uint_eq(got, len);
}

/* A row is read as a whole, in part, or not at all; the next one comes in its place. */
START_TEST(two_columns_each)
{
	bool is_null;
	uint32_t len;

	pgr_msg_copy_response(&script, 'H');
	put_header(0, 0);
	for (int i = 0; i < 4; i++) {
		must(pgr_buf_put16(&copy, 2, &err));
		put_value(1, 5000);
		put_value(2, 32);
	}
	must(pgr_buf_put16(&copy, 2, &err));
	must(pgr_buf_put32(&copy, UINT32_MAX, &err));
	must(pgr_buf_put32(&copy, UINT32_MAX, &err));
	put_trailer();
	put_messages(_i == 0 ? 100000 : 7);
	put_end();
	connect_to(_i == 2 ? 3 : 0);
	pgr_copyrows_init_columns(&rows, client, 2);
	expect_row(5000);
	expect_value(1, 0, 5000, 1000);
	expect_column(32, false);
	expect_value(2, 0, 32, 10);
	expect_value_end();
	ck_assert_int_eq(pgr_copyrows_column(&rows, &is_null, &len, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	expect_row(5000); /* not looked at */
	expect_row(5000);
	expect_value(1, 0, 77, 77);
	expect_column(32, false);
	expect_value(2, 0, 1, 1);
	expect_row(5000);
	expect_value(1, 0, 5000, 5000);
	expect_null();
	expect_column(0, true);
	expect_end();
}
END_TEST

START_TEST(other_columns_than_asked_for)
{
	pgr_msg_copy_response(&script, 'H');
	put_header(0, 0);
	must(pgr_buf_put16(&copy, (uint16_t)(_i == 0 ? 1 : 3), &err));
	for (int i = 0; i < 3; i++)
		put_value(1, 4);
	put_trailer();
	put_messages(1000);
	put_end();
	connect_to(0);
	pgr_copyrows_init_columns(&rows, client, 2);
	expect_refused(PGR_E_PROTOCOL, "as many columns as were asked for");
}
END_TEST

START_TEST(second_column_is_impossible)
{
	bool is_null;
	uint32_t len;

	pgr_msg_copy_response(&script, 'H');
	put_header(0, 0);
	must(pgr_buf_put16(&copy, 2, &err));
	put_value(1, 4);
	must(pgr_buf_put32(&copy, 0x80000000u, &err));
	put_messages(1000);
	put_end();
	connect_to(0);
	pgr_copyrows_init_columns(&rows, client, 2);
	expect_row(4);
	ck_assert_int_eq(pgr_copyrows_column(&rows, &is_null, &len, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("copyrows");
	TCase *t = tcase_create("good");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, all_pieces, 0, NPIECES * NCHUNKS);
	tcase_add_loop_test(t, long_rows, 0, 6);
	tcase_add_loop_test(t, two_columns_each, 0, 3);
	tcase_add_loop_test(t, other_columns_than_asked_for, 0, 2);
	tcase_add_test(t, second_column_is_impossible);
	tcase_add_test(t, no_rows);
	tcase_add_test(t, header_extension);
	tcase_add_test(t, notices_between);
	tcase_add_loop_test(t, sent_ahead, 0, 2);
	tcase_add_test(t, not_woken);
	suite_add_tcase(s, t);
	t = tcase_create("bad");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, violation, 0, NVIOLATIONS * 2);
	tcase_add_loop_test(t, value_cut, 0, 2);
	tcase_add_loop_test(t, something_else, 0, (int)(sizeof(others) / sizeof(others[0])));
	tcase_add_loop_test(t, server_error, 0, 4);
	tcase_add_test(t, error_at_the_end);
	tcase_add_test(t, fatal);
	tcase_add_test(t, error_then_eof);
	tcase_add_loop_test(t, lost_anywhere, 0, 2);
	tcase_add_test(t, stopped);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
