/* client.c and exchange.c against a scripted server: odd, hostile, cut short, in any pieces. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/stop.h"
#include "common/sys.h"
#include "proto/client.h"
#include "tests/support/scripted.h"

#define V15	      150020
#define SPAN(literal) ((struct pgr_span){(const uint8_t *)(literal), sizeof(literal) - 1})

static const size_t chunks[] = {0, 1, 2, 3, 7, 4096};
#define N_CHUNKS ((int)(sizeof(chunks) / sizeof(chunks[0])))

/* ---- a client on a script ---- */

struct fixture {
	struct pgr_scripted *srv;
	struct pgr_client *c;
	struct pgr_buf msg;	/* a message under construction */
	struct pgr_buf notices; /* all that the client told */
	struct pgr_err err;
	struct pgr_event ev;
};

static void hear_notice(void *arg, const char *text)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_puts(arg, text, &err), PGR_OK);
}

static void begin_on(struct fixture *f, int version, size_t chunk, const struct pgr_sys *sys)
{
	memset(f, 0, sizeof(*f));
	f->srv = pgr_scripted_new(version, chunk);
	ck_assert_int_eq(pgr_client_new(&f->c, pgr_scripted_transport(f->srv), sys, hear_notice, &f->notices, &f->err),
			 PGR_OK);
}

static void begin(struct fixture *f, int version, size_t chunk)
{
	begin_on(f, version, chunk, pgr_sys_real());
}

static void end(struct fixture *f)
{
	pgr_client_free(f->c);
	pgr_buf_fini(&f->msg);
	pgr_buf_fini(&f->notices);
}

/* The server sends what was built in f->msg. */
static void say(struct fixture *f)
{
	pgr_scripted_send_buf(f->srv, &f->msg);
}

static void ask(struct fixture *f)
{
	struct pgr_buf text = {0};

	ck_assert_int_eq(pgr_buf_puts(&text, "COMMAND", &f->err), PGR_OK);
	ck_assert_int_eq(pgr_client_send(f->c, &text, &f->err), PGR_OK);
	pgr_buf_fini(&text);
}

/* A session inside a COPY of this kind ('H', 'G' or 'W'). */
static void enter_copy(struct fixture *f, char type)
{
	pgr_scripted_expect(f->srv, 'Q');
	pgr_msg_copy_response(&f->msg, type);
	say(f);
	ask(f);
	ck_assert_int_eq(pgr_client_next(f->c, PGR_NO_DEADLINE, &f->ev, &f->err), PGR_OK);
}

static int64_t soon(const struct fixture *f)
{
	return pgr_client_deadline(f->c, 20);
}

static void next_is(struct fixture *f, enum pgr_event_kind kind)
{
	int rc = pgr_client_next(f->c, soon(f), &f->ev, &f->err);

	ck_assert_msg(rc == PGR_OK, "%s", f->err.msg);
	ck_assert_int_eq(f->ev.kind, kind);
}

static void next_fails(struct fixture *f, enum pgr_errclass cls, const char *text)
{
	ck_assert_int_eq(pgr_client_next(f->c, soon(f), &f->ev, &f->err), PGR_ERR);
	ck_assert_int_eq(f->err.cls, cls);
	ck_assert_msg(strstr(f->err.msg, text) != NULL, "\"%s\" is not in \"%s\"", text, f->err.msg);
}

/* ---- events ---- */

START_TEST(test_events_in_any_pieces)
{
	static const char *const names[] = {"a", "b"};
	static const char *const values[] = {"one", NULL};
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_notice(&f.msg, "NOTICE", "00000", "hello");
	pgr_msg_row_desc(&f.msg, 2, names);
	pgr_msg_param(&f.msg, "application_name", "x");
	pgr_msg_row(&f.msg, 2, values);
	pgr_msg_complete(&f.msg, "SELECT 1");
	pgr_msg_ready(&f.msg);
	say(&f);
	ask(&f);
	next_is(&f, PGR_EV_ROW_DESC);
	ck_assert_uint_eq(f.ev.rowdesc.ncols, 2);
	next_is(&f, PGR_EV_ROW);
	ck_assert(pgr_span_is(pgr_row_col(&f.ev.row, 0), "one"));
	ck_assert_ptr_null(pgr_row_col(&f.ev.row, 1).p);
	next_is(&f, PGR_EV_COMPLETE);
	ck_assert(pgr_span_is(f.ev.tag, "SELECT 1"));
	next_is(&f, PGR_EV_READY);
	ck_assert_str_eq(pgr_buf_str(&f.notices), "NOTICE:  hello\n");
	ck_assert_str_eq(pgr_client_param(f.c, "application_name"), "x");
	end(&f);
}
END_TEST

START_TEST(test_nothing_comes)
{
	struct fixture f;

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	ask(&f);
	next_is(&f, PGR_EV_TIMEOUT);
	ck_assert_int_eq(pgr_client_expect(f.c, soon(&f), &f.ev, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_msg(strstr(f.err.msg, "\"scripted\"") != NULL, "%s", f.err.msg);
	ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	end(&f);
}
END_TEST

START_TEST(test_notices_without_listener)
{
	struct fixture f;
	struct pgr_client *c;
	struct pgr_scripted *srv = pgr_scripted_new(V15, 0);

	memset(&f, 0, sizeof(f));
	ck_assert_int_eq(pgr_client_new(&c, pgr_scripted_transport(srv), pgr_sys_real(), NULL, NULL, &f.err), PGR_OK);
	pgr_msg_notice(&f.msg, "WARNING", "01000", "x");
	pgr_scripted_send_buf(srv, &f.msg);
	ck_assert_int_eq(pgr_client_next(c, pgr_client_deadline(c, 20), &f.ev, &f.err), PGR_OK);
	ck_assert_int_eq(f.ev.kind, PGR_EV_TIMEOUT);
	pgr_client_free(c);
}
END_TEST

START_TEST(test_params)
{
	struct fixture f;
	char name[32], *large = calloc(1, 5001);

	begin(&f, V15, 0);
	memset(large, 'x', 5000);
	pgr_msg_param(&f.msg, "first", "1");
	pgr_msg_param(&f.msg, "large", large);
	pgr_msg_param(&f.msg, large, "name");
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "p%d", i);
		pgr_msg_param(&f.msg, name, "v");
	}
	pgr_msg_param(&f.msg, "first", "2");
	say(&f);
	next_is(&f, PGR_EV_TIMEOUT);
	ck_assert_str_eq(pgr_client_param(f.c, "first"), "2");
	ck_assert_ptr_null(pgr_client_param(f.c, "large"));
	ck_assert_ptr_null(pgr_client_param(f.c, large));
	ck_assert_str_eq(pgr_client_param(f.c, "p10"), "v");
	ck_assert_ptr_null(pgr_client_param(f.c, "p999"));
	free(large);
	end(&f);
}
END_TEST

START_TEST(test_error_then_ready)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	for (int i = 0; i < 2; i++) { /* the session is of use afterwards */
		pgr_scripted_expect(f.srv, 'Q');
		pgr_msg_error(&f.msg, "ERROR", "42601", "no such command");
		pgr_msg_ready(&f.msg);
		say(&f);
		ask(&f);
		ck_assert_int_eq(pgr_client_expect(f.c, soon(&f), &f.ev, &f.err), PGR_ERR);
		ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
		ck_assert_str_eq(f.err.sqlstate, "42601");
		ck_assert_str_eq(f.err.msg, "ERROR:  no such command");
		ck_assert(!f.err.fatal);
		ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_OK);
		ck_assert_int_eq(pgr_client_state(f.c), PGR_SS_READY);
	}
	ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_OK); /* nothing to wait for */
	end(&f);
}
END_TEST

START_TEST(test_until_ready_gives_the_first_error)
{
	struct fixture f;

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_error(&f.msg, "ERROR", "11111", "first");
	pgr_msg_ready(&f.msg);
	say(&f);
	ask(&f);
	ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "11111");
	ck_assert_int_eq(pgr_client_state(f.c), PGR_SS_READY);
	end(&f);

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_error(&f.msg, "ERROR", "11111", "first");
	pgr_msg_error(&f.msg, "FATAL", "22222", "second");
	say(&f);
	pgr_scripted_eof(f.srv);
	ask(&f);
	ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "11111");
	end(&f);
}
END_TEST

START_TEST(test_fatal)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	pgr_msg_error(&f.msg, "FATAL", "57P01", "terminating connection due to administrator command");
	say(&f);
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(pgr_client_expect(f.c, soon(&f), &f.ev, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
	ck_assert(f.err.fatal);
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	end(&f);
}
END_TEST

/* A server that says FATAL and keeps the connection open is not waited for. */
START_TEST(test_fatal_without_end)
{
	struct fixture f;

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_error(&f.msg, "FATAL", "57P01", "bye");
	say(&f);
	ask(&f);
	ck_assert_int_eq(pgr_client_until_ready(f.c, PGR_NO_DEADLINE, &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "57P01");
	ck_assert_int_eq(pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	end(&f);
}
END_TEST

START_TEST(test_end_of_stream)
{
	struct fixture f;

	/* idle */
	begin(&f, V15, 0);
	pgr_scripted_eof(f.srv);
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	end(&f);

	/* a reset names the system's reason */
	begin(&f, V15, 0);
	pgr_scripted_reset(f.srv);
	next_fails(&f, PGR_E_NETWORK, "could not receive data from server: Connection reset by peer");
	ck_assert_int_ne(f.err.sys_errno, 0);
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	end(&f);

	/* in a message, after what came before it was told */
	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_complete(&f.msg, "X");
	pgr_msg_error(&f.msg, "ERROR", "42601", "cut");
	f.msg.len -= 3;
	say(&f);
	pgr_scripted_eof(f.srv);
	ask(&f);
	next_is(&f, PGR_EV_COMPLETE);
	next_fails(&f, PGR_E_NETWORK, "in the middle of a message ErrorResponse");
	end(&f);
}
END_TEST

START_TEST(test_violation)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	pgr_scripted_send(f.srv, "K\0\0\0\14abcdefgh", 13); /* BackendKeyData is libpq's part */
	next_fails(&f, PGR_E_PROTOCOL, "unexpected message type 'K'");
	ck_assert_int_eq(pgr_client_next(f.c, soon(&f), &f.ev, &f.err), PGR_ERR); /* and not again */
	end(&f);
}
END_TEST

START_TEST(test_wrong_state)
{
	struct fixture f;
	struct pgr_buf text = {0};

	begin(&f, V15, 0);
	ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("x"), &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_client_copy_done(f.c, &f.err), PGR_ERR);
	ask(&f);
	ck_assert_int_eq(pgr_client_send(f.c, &text, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	end(&f);
}
END_TEST

/* ---- waking, stopping ---- */

START_TEST(test_wake)
{
	struct fixture f;
	int fd = eventfd(1, EFD_NONBLOCK);
	eventfd_t v;

	begin(&f, V15, 0);
	ck_assert_int_eq(pgr_client_set_wake(f.c, fd), -1);
	next_is(&f, PGR_EV_WAKE);
	ck_assert_int_eq(pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err), PGR_OK);
	ck_assert_int_eq(f.ev.kind, PGR_EV_WAKE);
	/* calls that are not woken do not turn round and round either */
	ask(&f);
	ck_assert_int_eq(pgr_client_until_ready(f.c, soon(&f), &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	next_is(&f, PGR_EV_WAKE); /* and it was put back */
	ck_assert_int_eq(eventfd_read(fd, &v), 0);
	next_is(&f, PGR_EV_TIMEOUT);
	ck_assert_int_eq(pgr_client_set_wake(f.c, -1), fd);
	end(&f);
	close(fd);
}
END_TEST

/* A stream that never runs dry, in single bytes: `n` CopyData messages. */
static void flood(struct fixture *f, int n)
{
	begin(f, V15, 1);
	enter_copy(f, 'H');
	for (int i = 0; i < n; i++)
		pgr_msg_copy_data(&f->msg, "0123456789", 10);
	say(f);
}

#define FLOOD 1000

START_TEST(test_flood_does_not_hide_the_wake)
{
	struct fixture f;
	int fd = eventfd(1, EFD_NONBLOCK), n = 0;

	flood(&f, FLOOD);
	pgr_client_set_wake(f.c, fd);
	do {
		ck_assert_int_eq(pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err), PGR_OK);
		n++;
	} while (f.ev.kind == PGR_EV_COPY_DATA);
	ck_assert_int_eq(f.ev.kind, PGR_EV_WAKE);
	ck_assert_int_lt(n, 100);
	end(&f);
	close(fd);
}
END_TEST

START_TEST(test_flood_does_not_hide_the_deadline)
{
	struct fixture f;
	int n = 0;

	flood(&f, FLOOD);
	do {
		ck_assert_int_eq(pgr_client_next(f.c, pgr_client_deadline(f.c, -1), &f.ev, &f.err), PGR_OK);
		n++;
	} while (f.ev.kind == PGR_EV_COPY_DATA);
	ck_assert_int_eq(f.ev.kind, PGR_EV_TIMEOUT);
	ck_assert_int_lt(n, 100);
	end(&f);
}
END_TEST

START_TEST(test_flood_does_not_hide_the_stop)
{
	struct fixture f;
	struct pgr_stop *stop;
	struct pgr_err why;
	int n = 0, rc;

	ck_assert_int_eq(pgr_stop_new(&stop, &why), PGR_OK);
	flood(&f, FLOOD);
	pgr_scripted_set_stop(f.srv, stop);
	pgr_err_set(&why, PGR_E_SYSTEM, "disk full");
	pgr_stop_post(stop, &why);
	do {
		rc = pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err);
		n++;
	} while (rc == PGR_OK);
	ck_assert_int_eq(f.err.cls, PGR_E_STOPPED);
	ck_assert_int_lt(n, 100);
	end(&f);
	pgr_stop_free(stop);
}
END_TEST

/* ---- CopyData into the caller's memory ---- */

static const size_t body_sizes[] = {1, 5, 6, 7, 0, 16383, 16384, 16385, 32769, 3, 70000, 300000, 1, 32769, 32769, 2};
static const size_t take_chunks[] = {0, 61, 4096, 50000};
static const size_t caps[] = {1 << 20, 1, 7, 4096, 32768, 32769, 65536};
#define N_BODIES      (sizeof(body_sizes) / sizeof(body_sizes[0]))
#define N_TAKE_CHUNKS ((int)(sizeof(take_chunks) / sizeof(take_chunks[0])))
#define N_CAPS	      ((int)(sizeof(caps) / sizeof(caps[0])))

/* Check writes to a file at every assertion: inside of loops one counts what is wrong. */
static bool take_some(struct fixture *f, struct pgr_buf *got, uint8_t *mem, size_t cap)
{
	uint32_t left = pgr_client_copy_left(f->c);
	size_t n;

	return pgr_client_copy_take(f->c, mem, cap, PGR_NO_DEADLINE, &n, &f->err) == PGR_OK && n >= 1 && n <= cap &&
	       pgr_client_copy_left(f->c) == left - n && pgr_buf_put(got, mem, n, &f->err) == PGR_OK;
}

/* Reads one message, its first part as an event and the rest with takes of at most `cap`. */
static void read_body(struct fixture *f, struct pgr_buf *got, size_t cap)
{
	uint8_t *mem = malloc(cap);
	size_t n;

	ck_assert_int_eq(pgr_client_next(f->c, PGR_NO_DEADLINE, &f->ev, &f->err), PGR_OK);
	ck_assert_int_eq(f->ev.kind, PGR_EV_COPY_DATA);
	ck_assert(f->ev.part.first);
	ck_assert_int_eq(pgr_buf_put(got, f->ev.part.data.p, f->ev.part.data.len, &f->err), PGR_OK);
	while (pgr_client_copy_left(f->c) > 0)
		if (!take_some(f, got, mem, cap))
			ck_abort_msg("a take of at most %zu bytes: %s", cap, f->err.msg);
	ck_assert_int_eq(pgr_client_copy_take(f->c, mem, cap, PGR_NO_DEADLINE, &n, &f->err), PGR_OK);
	ck_assert_uint_eq(n, 0);
	free(mem);
}

/* `n` bytes without a pattern that a shift could hide. */
static void put_noise(struct pgr_buf *b, size_t n, uint32_t *x)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_reserve(b, n, &err), PGR_OK);
	for (size_t i = 0; i < n; i++) {
		*x = *x * 1664525u + 1013904223u;
		b->data[b->len++] = (uint8_t)(*x >> 24);
	}
}

START_TEST(test_take)
{
	struct fixture f;
	struct pgr_buf all = {0}, got = {0};
	uint32_t x = 12345;

	begin(&f, V15, take_chunks[_i % N_TAKE_CHUNKS]);
	enter_copy(&f, 'H');
	for (size_t i = 0; i < N_BODIES; i++) {
		size_t start = all.len;

		put_noise(&all, body_sizes[i], &x);
		pgr_msg_copy_data(&f.msg, all.data + start, body_sizes[i]);
	}
	pgr_msg_copy_done(&f.msg);
	say(&f);
	for (size_t i = 0; i < N_BODIES; i++)
		read_body(&f, &got, caps[_i / N_TAKE_CHUNKS]);
	next_is(&f, PGR_EV_COPY_DONE);
	ck_assert_uint_eq(got.len, all.len);
	ck_assert(memcmp(got.data, all.data, all.len) == 0);
	pgr_buf_fini(&all);
	pgr_buf_fini(&got);
	end(&f);
}
END_TEST

/* The head of a body of 40000 bytes, and then nothing. */
static void cut_body(struct fixture *f)
{
	char body[40000] = {'d'};

	begin(f, V15, 0);
	enter_copy(f, 'H');
	pgr_msg_copy_data(&f->msg, body, sizeof(body));
	f->msg.len = 6;
	say(f);
	next_is(f, PGR_EV_COPY_DATA);
	ck_assert_uint_eq(pgr_client_copy_left(f->c), sizeof(body) - 1);
}

START_TEST(test_take_interrupted)
{
	struct fixture f;
	int fd = eventfd(1, EFD_NONBLOCK);
	char mem[100];
	size_t n = 77;

	cut_body(&f);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), soon(&f), &n, &f.err), PGR_MORE);
	ck_assert_uint_eq(n, 0);
	pgr_client_set_wake(f.c, fd);
	n = 77;
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), PGR_NO_DEADLINE, &n, &f.err), PGR_MORE);
	ck_assert_uint_eq(n, 0);
	pgr_scripted_send(f.srv, "payload", 7);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, 0, PGR_NO_DEADLINE, &n, &f.err), PGR_OK);
	ck_assert_uint_eq(n, 0);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, 3, PGR_NO_DEADLINE, &n, &f.err), PGR_OK);
	ck_assert_uint_eq(n, 3);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), PGR_NO_DEADLINE, &n, &f.err), PGR_OK);
	ck_assert_uint_eq(n, 4);
	ck_assert(memcmp(mem, "load", 4) == 0);
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), PGR_NO_DEADLINE, &n, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_msg(strstr(f.err.msg, "CopyData") != NULL, "%s", f.err.msg);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), PGR_NO_DEADLINE, &n, &f.err), PGR_ERR);
	end(&f);
	close(fd);
}
END_TEST

START_TEST(test_take_reset)
{
	struct fixture f;
	char mem[100];
	size_t n;

	cut_body(&f);
	pgr_scripted_reset(f.srv);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), soon(&f), &n, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), soon(&f), &n, &f.err), PGR_ERR);
	end(&f);
}
END_TEST

/* Outside of a CopyData there is nothing to take. */
START_TEST(test_take_nothing)
{
	struct fixture f;
	char mem[8];
	size_t n = 5;

	begin(&f, V15, 0);
	pgr_scripted_send(f.srv, "d", 1);
	ck_assert_int_eq(pgr_client_copy_take(f.c, mem, sizeof(mem), soon(&f), &n, &f.err), PGR_OK);
	ck_assert_uint_eq(n, 0);
	end(&f);
}
END_TEST

/* ---- sending ---- */

START_TEST(test_sends_everything_in_order)
{
	struct fixture f;
	struct pgr_buf tap = {0}, expected = {0};

	begin(&f, V15, chunks[_i]);
	pgr_scripted_tap(f.srv, &tap);
	enter_copy(&f, 'W');
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("status"), &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_copy_done(f.c, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_flush(f.c, soon(&f), &f.err), PGR_OK);
	pgr_client_free(f.c);

	pgr_msg(&expected, 'Q', "COMMAND", 8);
	for (int i = 0; i < 3; i++)
		pgr_msg(&expected, 'd', "status", 6);
	pgr_msg(&expected, 'c', NULL, 0);
	pgr_msg(&expected, 'X', NULL, 0);
	ck_assert_uint_eq(tap.len, expected.len);
	ck_assert(memcmp(tap.data, expected.data, tap.len) == 0);
	pgr_buf_fini(&tap);
	pgr_buf_fini(&expected);
}
END_TEST

START_TEST(test_no_goodbye_to_the_dead)
{
	struct fixture f;
	struct pgr_buf tap = {0};

	begin(&f, V15, 0);
	pgr_scripted_tap(f.srv, &tap);
	pgr_msg_error(&f.msg, "FATAL", "57P01", "bye");
	say(&f);
	next_is(&f, PGR_EV_ERROR);
	end(&f);

	begin(&f, V15, 0);
	pgr_scripted_tap(f.srv, &tap);
	pgr_scripted_eof(f.srv);
	next_fails(&f, PGR_E_NETWORK, "");
	end(&f);
	ck_assert_uint_eq(tap.len, 0);
	pgr_client_free(NULL);
}
END_TEST

START_TEST(test_flush_times_out)
{
	struct fixture f;

	begin(&f, V15, 0);
	enter_copy(&f, 'W');
	pgr_scripted_stall_writes(f.srv);
	ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("status"), &f.err), PGR_OK);
	/* what comes meanwhile is kept */
	pgr_msg_copy_data(&f.msg, "wal", 3);
	say(&f);
	ck_assert_int_eq(pgr_client_flush(f.c, soon(&f), &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_msg(strstr(f.err.msg, "timeout while sending data to server \"scripted\"") != NULL, "%s", f.err.msg);
	next_is(&f, PGR_EV_COPY_DATA);
	ck_assert(pgr_span_is(f.ev.part.data, "wal"));
	/* nothing comes: the queue does not make the wait a busy one, nor does it end it */
	next_is(&f, PGR_EV_TIMEOUT);
	end(&f);
}
END_TEST

/* The server closes while we cannot write: what it said before is the reason. */
START_TEST(test_flush_while_server_ends)
{
	struct fixture f;

	begin(&f, V15, 0);
	enter_copy(&f, 'G');
	pgr_scripted_stall_writes(f.srv);
	ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("manifest"), &f.err), PGR_OK);
	if (_i == 1) {
		pgr_msg_error(&f.msg, "FATAL", "57P01", "terminating connection");
		say(&f);
	}
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(pgr_client_flush(f.c, PGR_NO_DEADLINE, &f.err), PGR_ERR);
	if (_i == 1) {
		ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
		ck_assert_str_eq(f.err.sqlstate, "57P01");
	} else {
		ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	}
	end(&f);
}
END_TEST

/* The queue is bounded by nobody but the caller, and the receive buffer is: a server that floods us is not read on. */
START_TEST(test_flush_with_full_buffer)
{
	struct fixture f;
	static const char body[64 * 1024];

	begin(&f, V15, 0);
	enter_copy(&f, 'W');
	pgr_scripted_stall_writes(f.srv);
	ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("status"), &f.err), PGR_OK);
	for (int i = 0; i < 20; i++)
		pgr_msg_copy_data(&f.msg, body, sizeof(body));
	say(&f);
	ck_assert_int_eq(pgr_client_flush(f.c, soon(&f), &f.err), PGR_ERR);
	for (int i = 0; i < 20; i++) {
		struct pgr_buf got = {0};

		read_body(&f, &got, 1 << 20);
		ck_assert_uint_eq(got.len, sizeof(body));
		pgr_buf_fini(&got);
	}
	end(&f);
}
END_TEST

START_TEST(test_broken_write_is_told_after_the_reason)
{
	struct fixture f;

	begin(&f, V15, 0);
	pgr_msg_error(&f.msg, "FATAL", "57P03", "the database system is shutting down");
	say(&f);
	pgr_scripted_eof(f.srv);
	pgr_scripted_break_writes(f.srv);
	ask(&f); /* does not fail */
	ck_assert_int_eq(pgr_client_expect(f.c, soon(&f), &f.ev, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
	ck_assert_str_eq(f.err.sqlstate, "57P03");
	end(&f);

	begin(&f, V15, 0);
	pgr_scripted_break_writes(f.srv);
	pgr_scripted_eof(f.srv);
	ask(&f);
	next_fails(&f, PGR_E_NETWORK, "server closed the connection unexpectedly");
	end(&f);

	begin(&f, V15, 0);
	enter_copy(&f, 'G');
	pgr_scripted_break_writes(f.srv);
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(pgr_client_copy_send(f.c, SPAN("x"), &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_flush(f.c, PGR_NO_DEADLINE, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_str_eq(f.err.msg, "could not send data to server: Broken pipe");
	end(&f);
}
END_TEST

/* A clock that is behind, so that "in two seconds" is now. */
static int64_t old_clock(const struct pgr_sys *sys)
{
	(void)sys;
	return pgr_sys_real()->mono_ms(pgr_sys_real()) - 1990;
}

/* A write failed, and the server neither says why nor closes: this is not waited for without end. */
START_TEST(test_broken_write_and_silence)
{
	struct pgr_sys sys = *pgr_sys_real();
	struct fixture f;

	sys.mono_ms = old_clock;
	begin_on(&f, V15, 0, &sys);
	pgr_scripted_break_writes(f.srv);
	ask(&f);
	ck_assert_int_eq(pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_str_eq(f.err.msg, "could not send data to server: Broken pipe");
	end(&f);

	begin_on(&f, V15, 0, &sys);
	enter_copy(&f, 'G');
	pgr_scripted_break_writes(f.srv);
	ck_assert_int_eq(pgr_client_copy_done(f.c, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_flush(f.c, PGR_NO_DEADLINE, &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.msg, "could not send data to server: Broken pipe");
	end(&f);
}
END_TEST

/* ---- a hostile server ---- */

/* What a server might say to a command, with bytes changed at random: no answer may hang, crash or read beyond. */
START_TEST(test_mutations)
{
	static const char *const names[] = {"a"};
	static const char *const values[] = {"value"};
	uint32_t x = (uint32_t)_i * 7919 + 1;
	struct fixture f;
	int rc = PGR_OK, n = 0;

	begin(&f, V15, chunks[_i % N_CHUNKS]);
	pgr_msg_param(&f.msg, "TimeZone", "UTC");
	pgr_msg_row_desc(&f.msg, 1, names);
	pgr_msg_row(&f.msg, 1, values);
	pgr_msg_complete(&f.msg, "SELECT 1");
	pgr_msg_copy_response(&f.msg, 'W');
	pgr_msg_copy_data(&f.msg, "k0123456789abcdefg", 18);
	pgr_msg_notice(&f.msg, "WARNING", "01000", "text");
	pgr_msg_copy_done(&f.msg);
	pgr_msg_error(&f.msg, "ERROR", "XX000", "text");
	pgr_msg_ready(&f.msg);
	for (int k = 0; k < 1 + _i % 4; k++) {
		x = x * 1664525u + 1013904223u;
		f.msg.data[(x >> 8) % f.msg.len] = (uint8_t)(x >> 24);
	}
	pgr_scripted_expect(f.srv, 'Q');
	say(&f);
	pgr_scripted_eof(f.srv);
	ask(&f);
	while (rc == PGR_OK && n++ < 1000) {
		char mem[5];
		size_t got;

		rc = pgr_client_next(f.c, PGR_NO_DEADLINE, &f.ev, &f.err);
		while (rc == PGR_OK && pgr_client_copy_left(f.c) > 0)
			rc = pgr_client_copy_take(f.c, mem, sizeof(mem), PGR_NO_DEADLINE, &got, &f.err);
	}
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert(f.err.cls == PGR_E_NETWORK || f.err.cls == PGR_E_PROTOCOL);
	end(&f);
}
END_TEST

/* ---- queries ---- */

/* The answer to the next command: one row (NULL: no row), by columns. */
static void answer(struct fixture *f, int ncols, const char *const *values)
{
	static const char *const names[] = {"a", "b", "c", "d", "e"};

	pgr_scripted_expect(f->srv, 'Q');
	pgr_msg_row_desc(&f->msg, ncols, names);
	if (values != NULL)
		pgr_msg_row(&f->msg, ncols, values);
	pgr_msg_complete(&f->msg, "X");
	pgr_msg_ready(&f->msg);
	say(f);
}

#define ANSWER(f, ...)                                                                                                 \
	answer(f, (int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)), (const char *const[]){__VA_ARGS__})

static void answer_error(struct fixture *f, const char *severity, const char *sqlstate, const char *text)
{
	pgr_scripted_expect(f->srv, 'Q');
	pgr_msg_error(&f->msg, severity, sqlstate, text);
	if (strcmp(severity, "ERROR") == 0)
		pgr_msg_ready(&f->msg);
	say(f);
}

static int query(struct fixture *f, struct pgr_result **r)
{
	struct pgr_buf text = {0};
	int rc;

	ck_assert_int_eq(pgr_buf_puts(&text, "SELECT", &f->err), PGR_OK);
	rc = pgr_client_query(f->c, &text, r, &f->err);
	pgr_buf_fini(&text);
	return rc;
}

START_TEST(test_query)
{
	static const char *const names[] = {"a", "b", "c"};
	static const char *const row1[] = {"1", NULL, ""};
	static const char *const row2[] = {"two", "zwei", "deux"};
	struct pgr_result *r;
	struct fixture f;
	size_t len = 99;

	begin(&f, V15, chunks[_i]);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_notice(&f.msg, "NOTICE", "00000", "n");
	pgr_msg_row_desc(&f.msg, 3, names);
	pgr_msg_row(&f.msg, 3, row1);
	pgr_msg_row(&f.msg, 3, row2);
	pgr_msg_complete(&f.msg, "SELECT 2");
	pgr_msg_complete(&f.msg, "START_REPLICATION");
	pgr_msg_ready(&f.msg);
	say(&f);
	ck_assert_msg(query(&f, &r) == PGR_OK, "%s", f.err.msg);
	ck_assert_uint_eq(pgr_result_rows(r), 2);
	ck_assert_uint_eq(pgr_result_cols(r), 3);
	ck_assert_str_eq(pgr_result_cell(r, 0, 0, NULL), "1");
	ck_assert_ptr_null(pgr_result_cell(r, 0, 1, &len));
	ck_assert_uint_eq(len, 0);
	ck_assert_str_eq(pgr_result_cell(r, 0, 2, &len), "");
	ck_assert_str_eq(pgr_result_cell(r, 1, 2, &len), "deux");
	ck_assert_uint_eq(len, 4);
	ck_assert_ptr_null(pgr_result_cell(r, 2, 0, &len));
	ck_assert_ptr_null(pgr_result_cell(r, 0, 3, &len));
	pgr_result_free(r);
	pgr_result_free(NULL);
	end(&f);
}
END_TEST

START_TEST(test_query_fails_and_the_session_goes_on)
{
	static const char *const names[] = {"a"};
	static const char *const row[] = {"1"};
	struct pgr_result *r;
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_row_desc(&f.msg, 1, names);
	pgr_msg_row(&f.msg, 1, row);
	pgr_msg_error(&f.msg, "ERROR", "22012", "division by zero");
	pgr_msg_ready(&f.msg);
	say(&f);
	ck_assert_int_eq(query(&f, &r), PGR_ERR);
	ck_assert_ptr_null(r);
	ck_assert_str_eq(f.err.sqlstate, "22012");
	ANSWER(&f, "fine");
	ck_assert_int_eq(query(&f, &r), PGR_OK);
	ck_assert_str_eq(pgr_result_cell(r, 0, 0, NULL), "fine");
	pgr_result_free(r);
	end(&f);
}
END_TEST

START_TEST(test_query_connection_lost)
{
	struct pgr_result *r;
	struct fixture f;

	/* after the error: the error counts */
	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_error(&f.msg, "ERROR", "57014", "canceled");
	say(&f);
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(query(&f, &r), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "57014");
	ck_assert_int_eq(query(&f, &r), PGR_ERR); /* not ready: refused, not sent */
	end(&f);

	begin(&f, V15, 0);
	answer_error(&f, "FATAL", "57P01", "terminating");
	ck_assert_int_eq(query(&f, &r), PGR_ERR);
	ck_assert(f.err.fatal);
	end(&f);

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_scripted_eof(f.srv);
	ck_assert_int_eq(query(&f, &r), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	end(&f);
}
END_TEST

static void expect_protocol_error(struct fixture *f, const char *text)
{
	struct pgr_result *r;

	pgr_scripted_expect(f->srv, 'Q');
	say(f);
	ck_assert_int_eq(query(f, &r), PGR_ERR);
	ck_assert_ptr_null(r);
	ck_assert_int_eq(f->err.cls, PGR_E_PROTOCOL);
	ck_assert_msg(strstr(f->err.msg, text) != NULL, "%s", f->err.msg);
	end(f);
}

START_TEST(test_query_odd_answers)
{
	static const char *const names[] = {"a", "b"};
	static const char *const row[] = {"1", "2"};
	struct fixture f;

	for (const char *copy = "HGW"; *copy != '\0'; copy++) {
		begin(&f, V15, 0);
		pgr_msg_copy_response(&f.msg, *copy);
		expect_protocol_error(&f, "COPY");
	}
	begin(&f, V15, 0);
	for (int i = 0; i < 2; i++) {
		pgr_msg_row_desc(&f.msg, 1, names);
		pgr_msg_complete(&f.msg, "SELECT 0");
	}
	expect_protocol_error(&f, "more than one result");

	begin(&f, V15, 0);
	pgr_msg_row_desc(&f.msg, 2, names);
	pgr_msg_row(&f.msg, 1, row);
	expect_protocol_error(&f, "announced 2 columns and sent a row of 1");

	begin(&f, V15, 0);
	pgr_msg_row_desc(&f.msg, 1, names);
	pgr_msg_row(&f.msg, 2, row);
	expect_protocol_error(&f, "announced 1 columns and sent a row of 2");

	begin(&f, V15, 0);
	pgr_msg_row_desc(&f.msg, 0, names);
	pgr_msg_row(&f.msg, 0, row);
	expect_protocol_error(&f, "without columns");
}
END_TEST

/* Much data in few rows, or nothing in many: neither takes more memory than was promised. */
START_TEST(test_query_too_large)
{
	static const char *names[1000], *nulls[1000];
	struct pgr_result *r;
	struct fixture f;
	char *large = calloc(1, (1 << 20) + 1);
	const char *row[] = {large};

	memset(large, 'x', 1 << 20);
	for (int i = 0; i < 1000; i++)
		names[i] = "n";
	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_row_desc(&f.msg, _i == 0 ? 1 : 1000, names);
	say(&f);
	for (int i = 0; i < (_i == 0 ? 65 : 3000); i++) {
		pgr_msg_row(&f.msg, _i == 0 ? 1 : 1000, _i == 0 ? row : nulls);
		say(&f);
	}
	ck_assert_int_eq(query(&f, &r), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_DATA);
	ck_assert_str_eq(f.err.msg, "the server's answer is larger than 64 MiB");
	free(large);
	end(&f);
}
END_TEST

/* A readable wake descriptor does not disturb a short command. */
START_TEST(test_query_with_wake)
{
	int fd = eventfd(1, EFD_NONBLOCK);
	struct pgr_result *r;
	struct fixture f;

	begin(&f, V15, 1);
	pgr_client_set_wake(f.c, fd);
	ANSWER(&f, "x");
	ck_assert_int_eq(query(&f, &r), PGR_OK);
	pgr_result_free(r);
	ck_assert_int_eq(pgr_client_set_wake(f.c, -1), fd);
	end(&f);
	close(fd);
}
END_TEST

/* ---- asked ahead ---- */

static struct pgr_buf command(const char *text)
{
	struct pgr_buf b = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_puts(&b, text, &err), PGR_OK);
	return b;
}

static void ahead(struct fixture *f, const char *text)
{
	struct pgr_buf b = command(text);

	ck_assert_msg(pgr_client_ask_ahead(f->c, &b, &f->err) == PGR_OK, "%s", f->err.msg);
	pgr_buf_fini(&b);
}

/* NULL for an error. */
static void answer_is(struct fixture *f, const char *text, const char *answer)
{
	struct pgr_buf b = command(text);
	struct pgr_result *r;
	int rc = pgr_client_query(f->c, &b, &r, &f->err);

	pgr_buf_fini(&b);
	ck_assert_int_eq(rc, answer != NULL ? PGR_OK : PGR_ERR);
	if (answer != NULL)
		ck_assert_str_eq(pgr_result_cell(r, 0, 0, NULL), answer);
	pgr_result_free(r);
}

/* How many commands the client has sent. */
static unsigned commands_sent(struct fixture *f)
{
	const struct pgr_buf *sent = pgr_scripted_sent(f->srv);
	unsigned n = 0;

	for (size_t at = 0; at < sent->len; n++) {
		ck_assert_int_eq(sent->data[at], 'Q');
		at += 1 + ((size_t)sent->data[at + 3] << 8 | sent->data[at + 4]);
	}
	return n;
}

/* All of them are on their way before any answer was read, and each is asked once. */
START_TEST(test_ahead)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	ahead(&f, "A");
	ahead(&f, "B");
	ahead(&f, "C");
	if (chunks[_i] == 0)
		ck_assert_uint_eq(commands_sent(&f), 3);
	ANSWER(&f, "a");
	ANSWER(&f, "b");
	ANSWER(&f, "c");
	ANSWER(&f, "d");
	answer_is(&f, "A", "a");
	ck_assert_int_eq(pgr_client_state(f.c), PGR_SS_BUSY);
	answer_is(&f, "B", "b");
	answer_is(&f, "C", "c");
	ck_assert_int_eq(pgr_client_state(f.c), PGR_SS_READY);
	answer_is(&f, "C", "d");
	ck_assert_uint_eq(commands_sent(&f), 4);
	end(&f);
}
END_TEST

/* A refusal is that of its own command, and so are the answers behind it. */
START_TEST(test_ahead_and_refused)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	ahead(&f, "A");
	ahead(&f, "B");
	ahead(&f, "C");
	ANSWER(&f, "a");
	answer_error(&f, "ERROR", "42501", "not you");
	ANSWER(&f, "c");
	answer_is(&f, "A", "a");
	answer_is(&f, "B", NULL);
	ck_assert_str_eq(f.err.sqlstate, "42501");
	answer_is(&f, "C", "c");
	end(&f);
}
END_TEST

/* What nobody asks for any more is thrown away, refusals as well. */
START_TEST(test_ahead_in_vain)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	ahead(&f, "A");
	ahead(&f, "B");
	ahead(&f, "C");
	ahead(&f, "D");
	answer_error(&f, "ERROR", "42501", "not you");
	ANSWER(&f, "b");
	ANSWER(&f, "c");
	ANSWER(&f, "d");
	ANSWER(&f, "e");
	answer_is(&f, "B", "b");
	answer_is(&f, "E", "e");
	ck_assert_uint_eq(commands_sent(&f), 5);
	end(&f);
}
END_TEST

/* The session's end is told to whoever asks next. */
START_TEST(test_ahead_and_ended)
{
	struct fixture f;

	begin(&f, V15, 0);
	ahead(&f, "A");
	ahead(&f, "B");
	answer_error(&f, "FATAL", "57P01", "go away");
	pgr_scripted_eof(f.srv);
	answer_is(&f, _i == 0 ? "B" : "C", NULL);
	ck_assert_str_eq(f.err.sqlstate, "57P01");
	answer_is(&f, "B", NULL);
	end(&f);
}
END_TEST

START_TEST(test_much_ahead)
{
	static const char *const texts[] = {"A", "B", "C", "D", "E", "F", "G", "H", "I", "J"};
	struct fixture f;

	begin(&f, V15, 0);
	for (int i = 0; i < 10; i++)
		ahead(&f, texts[i]);
	ck_assert_uint_eq(commands_sent(&f), 8);
	for (int i = 0; i < 10; i++)
		ANSWER(&f, texts[i]);
	for (int i = 0; i < 10; i++)
		answer_is(&f, texts[i], texts[i]);
	ck_assert_uint_eq(commands_sent(&f), 10);
	end(&f);
}
END_TEST

/* What a run asks its server first: three questions, one wait. */
START_TEST(test_of_server_ahead)
{
	struct pgr_system_id id;
	struct fixture f;
	uint32_t size;
	bool group;

	begin(&f, V15, 0);
	ck_assert_int_eq(pgr_client_of_server_ahead(f.c, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_create_slot_ahead(f.c, "s", true, true, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_read_slot_ahead(f.c, "s", &f.err), PGR_OK);
	ck_assert_uint_eq(commands_sent(&f), 5);
	ANSWER(&f, "0750");
	ANSWER(&f, "1GB");
	ANSWER(&f, "7710449480948213611", "3", "1A/2B3C4D5E", NULL);
	ANSWER(&f, "s", "0/0", NULL, NULL);
	ANSWER(&f, "physical", "0/1", "1");
	ck_assert_int_eq(pgr_client_group_access(f.c, &group, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_wal_segment_size(f.c, &size, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", true, true, false, &f.err), PGR_OK);
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &(pgr_lsn){0}, &(pgr_tli){0}, &f.err), PGR_OK);
	ck_assert_uint_eq(commands_sent(&f), 5);
	ck_assert(group);
	ck_assert_uint_eq(size, 1u << 30);
	end(&f);

	begin(&f, 90600, 0); /* neither of the two can be asked for */
	ck_assert_int_eq(pgr_client_of_server_ahead(f.c, &f.err), PGR_OK);
	ck_assert_uint_eq(commands_sent(&f), 1);
	end(&f);
}
END_TEST

/* ---- IDENTIFY_SYSTEM, SHOW ---- */

START_TEST(test_identify)
{
	struct pgr_system_id id;
	struct fixture f;

	begin(&f, V15, 0);
	ANSWER(&f, "7710449480948213611", "3", "1A/2B3C4D5E", NULL);
	ck_assert_msg(pgr_client_identify(f.c, &id, &f.err) == PGR_OK, "%s", f.err.msg);
	ck_assert_str_eq(id.system_identifier, "7710449480948213611");
	ck_assert_uint_eq(id.tli, 3);
	ck_assert_uint_eq(id.flush, 0x1A2B3C4D5Eu);
	ck_assert_str_eq(id.dbname, "");
	ANSWER(&f, "18446744073709551615", "4294967295", "0/0", "postgres");
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_OK);
	ck_assert_str_eq(id.dbname, "postgres");
	end(&f);

	begin(&f, 90300, 0); /* no dbname yet */
	ANSWER(&f, "1", "1", "0/1");
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_OK);
	end(&f);
}
END_TEST

static const struct {
	const char *id, *tli, *lsn, *db, *text;
} bad_ids[] = {
	{"", "1", "0/1", NULL, "system identifier"},
	{NULL, "1", "0/1", NULL, "system identifier"},
	{"12a", "1", "0/1", NULL, "system identifier \"12a\""},
	{"18446744073709551616", "1", "0/1", NULL, "system identifier"},
	{"000000000000000000000000000000000001", "1", "0/1", NULL, "system identifier"},
	{"\033]0;x\007", "1", "0/1", NULL, "system identifier \"?]0;x?\""},
	{"1", "0", "0/1", NULL, "timeline ID \"0\""},
	{"1", "-1", "0/1", NULL, "timeline ID"},
	{"1", "4294967296", "0/1", NULL, "timeline ID"},
	{"1", NULL, "0/1", NULL, "timeline ID"},
	{"1", "1", "", NULL, "write-ahead log location"},
	{"1", "1", "0/1x", NULL, "write-ahead log location \"0/1x\""},
	{"1", "1", NULL, NULL, "write-ahead log location"},
	{"1", "1", "0/1", "0123456789012345678901234567890123456789012345678901234567890123", "database name"},
};

START_TEST(test_identify_bad)
{
	struct pgr_system_id id;
	struct fixture f;

	begin(&f, V15, 0);
	ANSWER(&f, bad_ids[_i].id, bad_ids[_i].tli, bad_ids[_i].lsn, bad_ids[_i].db);
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	ck_assert_msg(strstr(f.err.msg, bad_ids[_i].text) != NULL, "%s", f.err.msg);
	end(&f);
}
END_TEST

START_TEST(test_identify_bad_shape)
{
	struct pgr_system_id id;
	struct fixture f;

	begin(&f, V15, 0);
	ANSWER(&f, "1", "1", "0/1");
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.msg, "could not identify system: got 1 rows and 3 fields, expected 1 rows and 4 or more "
				    "fields");
	answer(&f, 4, NULL);
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	answer_error(&f, "ERROR", "42501", "permission denied");
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
	ck_assert_str_eq(f.err.msg,
			 "could not send replication command \"IDENTIFY_SYSTEM\": ERROR:  permission denied");
	end(&f);
}
END_TEST

/* Who stops a command did not have it fail. */
START_TEST(test_identify_stopped)
{
	struct pgr_system_id id;
	struct pgr_stop *stop;
	struct pgr_err why;
	struct fixture f;

	ck_assert_int_eq(pgr_stop_new(&stop, &why), PGR_OK);
	pgr_err_set(&why, PGR_E_SYSTEM, "disk full");
	pgr_stop_post(stop, &why);
	begin(&f, V15, 0);
	pgr_scripted_set_stop(f.srv, stop);
	ck_assert_int_eq(pgr_client_identify(f.c, &id, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(f.err.msg, "disk full");
	end(&f);
	pgr_stop_free(stop);
}
END_TEST

static const struct {
	const char *shown;
	uint32_t bytes; /* 0: refused */
} segment_sizes[] = {
	{"16MB", 16u << 20},
	{"1MB", 1u << 20},
	{"1GB", 1u << 30},
	{"1024MB", 1u << 30},
	{"64MB", 64u << 20},
	{"3MB", 0},
	{"2GB", 0},
	{"0MB", 0},
	{"16", 0},
	{"MB", 0},
	{"16MBx", 0},
	{"16kB", 0},
	{"-16MB", 0},
	{" 16MB", 0},
	{"99999999999MB", 0},
	{"4097MB", 0},
	{"", 0},
	{NULL, 0},
	{"16777216", 0},
	{"4294967295GB", 0},
};

START_TEST(test_wal_segment_size)
{
	struct fixture f;
	uint32_t got;
	int rc;

	begin(&f, V15, 0);
	ANSWER(&f, segment_sizes[_i].shown);
	rc = pgr_client_wal_segment_size(f.c, &got, &f.err);
	if (segment_sizes[_i].bytes != 0) {
		ck_assert_int_eq(rc, PGR_OK);
		ck_assert_uint_eq(got, segment_sizes[_i].bytes);
	} else {
		ck_assert_int_eq(rc, PGR_ERR);
		ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	}
	end(&f);
}
END_TEST

static const struct {
	const char *shown;
	int group; /* -1: refused */
} modes[] = {
	{"0700", 0}, {"0750", 1}, {"750", 1},	 {"0755", 1},  {"0740", 0},	    {"0710", 0},
	{"", -1},    {NULL, -1},  {"u=rwx", -1}, {"0780", -1}, {"00000000750", -1}, {"-750", -1},
};

START_TEST(test_group_access)
{
	struct fixture f;
	bool got;
	int rc;

	begin(&f, V15, 0);
	ANSWER(&f, modes[_i].shown);
	rc = pgr_client_group_access(f.c, &got, &f.err);
	ck_assert_int_eq(rc, modes[_i].group < 0 ? PGR_ERR : PGR_OK);
	if (rc == PGR_OK)
		ck_assert_int_eq(got, modes[_i].group);
	else
		ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	end(&f);
}
END_TEST

/* What old servers cannot be asked has a known answer. */
START_TEST(test_old_servers)
{
	struct fixture f;
	uint32_t size = 0;
	bool group = true;
	pgr_lsn lsn;
	pgr_tli tli;

	begin(&f, 90600, 0);
	ck_assert_int_eq(pgr_client_wal_segment_size(f.c, &size, &f.err), PGR_OK);
	ck_assert_uint_eq(size, 16u << 20);
	ck_assert_int_eq(pgr_client_group_access(f.c, &group, &f.err), PGR_OK);
	ck_assert(!group);
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(strstr(f.err.msg, "could not send"));
	ck_assert_uint_eq(pgr_scripted_sent(f.srv)->len, 0);
	end(&f);

	begin(&f, V15, 0);
	answer(&f, 1, NULL); /* SHOW without a row */
	ck_assert_int_eq(pgr_client_wal_segment_size(f.c, &size, &f.err), PGR_ERR);
	ck_assert_msg(strstr(f.err.msg, "could not fetch WAL segment size: got 0 rows") != NULL, "%s", f.err.msg);
	end(&f);
}
END_TEST

/* ---- slots ---- */

START_TEST(test_create_slot)
{
	struct fixture f;

	begin(&f, V15, 0);
	ANSWER(&f, "s", "0/0", NULL, NULL);
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, false, &f.err), PGR_OK);
	answer_error(&f, "ERROR", "42710", "replication slot \"s\" already exists");
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, true, &f.err), PGR_OK);
	answer_error(&f, "ERROR", "42710", "replication slot \"s\" already exists");
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, false, &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "42710");
	ck_assert_msg(strstr(f.err.msg, "ERROR:  replication slot \"s\" already exists") != NULL, "%s", f.err.msg);
	answer_error(&f, "ERROR", "53400", "all replication slots are in use");
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, true, &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "53400");
	ANSWER(&f, "s", "0/0");
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, false, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	answer_error(&f, "FATAL", "42710", "gone, and not because it exists");
	ck_assert_int_eq(pgr_client_create_slot(f.c, "s", false, true, true, &f.err), PGR_ERR);
	end(&f);
}
END_TEST

START_TEST(test_drop_slot)
{
	struct fixture f;

	begin(&f, V15, 0);
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_complete(&f.msg, "DROP_REPLICATION_SLOT");
	pgr_msg_ready(&f.msg);
	say(&f);
	ck_assert_int_eq(pgr_client_drop_slot(f.c, "s", &f.err), PGR_OK);
	answer_error(&f, "ERROR", "42704", "replication slot \"s\" does not exist");
	ck_assert_int_eq(pgr_client_drop_slot(f.c, "s", &f.err), PGR_ERR);
	ck_assert_str_eq(f.err.sqlstate, "42704");
	end(&f);
}
END_TEST

START_TEST(test_read_slot)
{
	struct fixture f;
	pgr_lsn lsn;
	pgr_tli tli;

	begin(&f, V15, 0);
	ANSWER(&f, "physical", "0/3000000", "2");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_OK);
	ck_assert_uint_eq(lsn, 0x3000000);
	ck_assert_uint_eq(tli, 2);
	ANSWER(&f, "physical", NULL, NULL);
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_OK);
	ck_assert_uint_eq(lsn, 0);
	ck_assert_uint_eq(tli, 0);
	ANSWER(&f, NULL, NULL, NULL);
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	ck_assert_str_eq(f.err.msg, "replication slot \"s\" does not exist");
	ANSWER(&f, "logical", "0/1", "1");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	answer_error(&f, "ERROR", "0A000", "cannot use READ_REPLICATION_SLOT with a logical replication slot");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_USAGE);
	answer_error(&f, "ERROR", "42501", "permission denied");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_SERVER);
	ANSWER(&f, "physical", "0-1", "1");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	ANSWER(&f, "physical", "0/1", "x");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	ANSWER(&f, "physical", "0/1");
	ck_assert_int_eq(pgr_client_read_slot(f.c, "s", &lsn, &tli, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	end(&f);
}
END_TEST

/* ---- timelines ---- */

START_TEST(test_timeline_history)
{
	struct fixture f;
	char *content;
	size_t len;

	begin(&f, V15, chunks[_i]);
	ANSWER(&f, "0000000A.history", "1\t0/3000000\tno recovery target specified\n");
	ck_assert_int_eq(pgr_client_timeline_history(f.c, 10, &content, &len, &f.err), PGR_OK);
	ck_assert_str_eq(content, "1\t0/3000000\tno recovery target specified\n");
	ck_assert_uint_eq(len, strlen(content));
	free(content);
	/* bytes are bytes */
	pgr_scripted_expect(f.srv, 'Q');
	pgr_msg_row_desc(&f.msg, 2, (const char *const[]){"filename", "content"});
	pgr_msg(&f.msg, 'D',
		"\0\2\0\0\0\x10"
		"00000002.history\0\0\0\3a\0b",
		29);
	pgr_msg_complete(&f.msg, "X");
	pgr_msg_ready(&f.msg);
	say(&f);
	ck_assert_int_eq(pgr_client_timeline_history(f.c, 2, &content, &len, &f.err), PGR_OK);
	ck_assert_uint_eq(len, 3);
	ck_assert(memcmp(content, "a\0b", 4) == 0);
	free(content);
	end(&f);
}
END_TEST

static const char *const bad_names[] = {"00000002.history", "../../etc/passwd",	 "", NULL,
					"0000000a.history", "0000000A.history/x"};

START_TEST(test_timeline_history_bad)
{
	struct fixture f;
	char *content = (char *)&f;
	size_t len;

	begin(&f, V15, 0);
	ANSWER(&f, bad_names[_i], "1\t0/1\tx\n");
	ck_assert_int_eq(pgr_client_timeline_history(f.c, 10, &content, &len, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	ck_assert_ptr_null(content);
	ANSWER(&f, "0000000A.history", "x", "y");
	ck_assert_int_eq(pgr_client_timeline_history(f.c, 10, &content, &len, &f.err), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_PROTOCOL);
	end(&f);
}
END_TEST

/* ---- the suite ---- */

#define LOOP(tc, test, array) tcase_add_loop_test(tc, test, 0, (int)(sizeof(array) / sizeof((array)[0])))

static TCase *client_case(void)
{
	TCase *tc = tcase_create("client");

	tcase_set_timeout(tc, 60);
	LOOP(tc, test_events_in_any_pieces, chunks);
	tcase_add_test(tc, test_nothing_comes);
	tcase_add_test(tc, test_notices_without_listener);
	tcase_add_test(tc, test_params);
	LOOP(tc, test_error_then_ready, chunks);
	tcase_add_test(tc, test_until_ready_gives_the_first_error);
	LOOP(tc, test_fatal, chunks);
	tcase_add_test(tc, test_fatal_without_end);
	tcase_add_test(tc, test_end_of_stream);
	LOOP(tc, test_violation, chunks);
	tcase_add_test(tc, test_wrong_state);
	tcase_add_test(tc, test_wake);
	tcase_add_test(tc, test_flood_does_not_hide_the_wake);
	tcase_add_test(tc, test_flood_does_not_hide_the_deadline);
	tcase_add_test(tc, test_flood_does_not_hide_the_stop);
	tcase_add_loop_test(tc, test_mutations, 0, 500);
	return tc;
}

static TCase *copy_case(void)
{
	TCase *tc = tcase_create("copy");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, test_take, 0, N_TAKE_CHUNKS * N_CAPS);
	tcase_add_test(tc, test_take_interrupted);
	tcase_add_test(tc, test_take_reset);
	tcase_add_test(tc, test_take_nothing);
	LOOP(tc, test_sends_everything_in_order, chunks);
	tcase_add_test(tc, test_no_goodbye_to_the_dead);
	tcase_add_test(tc, test_flush_times_out);
	tcase_add_loop_test(tc, test_flush_while_server_ends, 0, 2);
	tcase_add_test(tc, test_flush_with_full_buffer);
	tcase_add_test(tc, test_broken_write_is_told_after_the_reason);
	tcase_add_test(tc, test_broken_write_and_silence);
	return tc;
}

static TCase *exchange_case(void)
{
	TCase *tc = tcase_create("exchange");

	tcase_set_timeout(tc, 60);
	LOOP(tc, test_query, chunks);
	LOOP(tc, test_query_fails_and_the_session_goes_on, chunks);
	tcase_add_test(tc, test_query_connection_lost);
	tcase_add_test(tc, test_query_odd_answers);
	tcase_add_loop_test(tc, test_query_too_large, 0, 2);
	tcase_add_test(tc, test_query_with_wake);
	tcase_add_loop_test(tc, test_ahead, 0, N_CHUNKS);
	tcase_add_loop_test(tc, test_ahead_and_refused, 0, N_CHUNKS);
	tcase_add_loop_test(tc, test_ahead_in_vain, 0, N_CHUNKS);
	tcase_add_loop_test(tc, test_ahead_and_ended, 0, 2);
	tcase_add_test(tc, test_much_ahead);
	tcase_add_test(tc, test_of_server_ahead);
	tcase_add_test(tc, test_identify);
	LOOP(tc, test_identify_bad, bad_ids);
	tcase_add_test(tc, test_identify_bad_shape);
	tcase_add_test(tc, test_identify_stopped);
	LOOP(tc, test_wal_segment_size, segment_sizes);
	LOOP(tc, test_group_access, modes);
	tcase_add_test(tc, test_old_servers);
	tcase_add_test(tc, test_create_slot);
	tcase_add_test(tc, test_drop_slot);
	tcase_add_test(tc, test_read_slot);
	LOOP(tc, test_timeline_history, chunks);
	LOOP(tc, test_timeline_history_bad, bad_names);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("client");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, client_case());
	suite_add_tcase(s, copy_case());
	suite_add_tcase(s, exchange_case());
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
