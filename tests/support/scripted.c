#include "tests/support/scripted.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/stop.h"
#include "common/sys.h"
#include "proto/cursor.h"

#define HANG_MS 5000 /* a wait that nothing can end */

enum step_kind { STEP_SEND, STEP_EXPECT, STEP_PAUSE, STEP_EOF, STEP_RESET };

struct step {
	enum step_kind kind;
	char type;	    /* EXPECT */
	struct pgr_buf buf; /* SEND */
	size_t done;	    /* SEND: bytes that were read; PAUSE: waits that were in vain */
	struct step *next;
};

struct pgr_scripted {
	struct pgr_transport t; /* first */
	size_t chunk;
	struct step *first, *last;
	struct pgr_buf sent;
	size_t seen; /* bytes of `sent` that expectations have used up */
	bool writes_fail, writes_stall;
	struct pgr_stop *stop;
	struct pgr_buf *tap;
	unsigned cancels;
};

static void die(const char *what)
{
	fprintf(stderr, "scripted transport: %s\n", what);
	abort();
}

static void must(int rc, const struct pgr_err *err)
{
	if (rc != PGR_OK)
		die(err->msg);
}

static void put(struct pgr_buf *b, const void *p, size_t n)
{
	struct pgr_err err;

	must(pgr_buf_put(b, p, n, &err), &err);
}

static struct pgr_scripted *of(struct pgr_transport *t)
{
	return (struct pgr_scripted *)t;
}

/* ---- the script ---- */

static struct step *add(struct pgr_scripted *s, enum step_kind kind)
{
	struct step *st = calloc(1, sizeof(*st));

	if (st == NULL)
		die("out of memory");
	st->kind = kind;
	if (s->last != NULL)
		s->last->next = st;
	else
		s->first = st;
	s->last = st;
	return st;
}

static void drop_first(struct pgr_scripted *s)
{
	struct step *st = s->first;

	s->first = st->next;
	if (s->first == NULL)
		s->last = NULL;
	pgr_buf_fini(&st->buf);
	free(st);
}

/* Uses up the client's messages through the first of this type; false, with nothing used up, when there is none. */
static bool use_up(struct pgr_scripted *s, char type)
{
	size_t at = s->seen;

	while (s->sent.len - at >= 5) {
		struct pgr_cursor c = pgr_cur(s->sent.data + at, s->sent.len - at);
		char got = (char)pgr_cur_u8(&c);
		uint32_t len = pgr_cur_u32(&c);

		if (len < 4)
			die("the client sent a message with a length below 4");
		if (s->sent.len - at - 1 < len)
			return false;
		at += 1 + (size_t)len;
		if (got == type) {
			s->seen = at;
			return true;
		}
	}
	return false;
}

/* Whether the first step has happened: its bytes were read, or what it expects was sent. */
static bool happened(struct pgr_scripted *s)
{
	switch (s->first->kind) {
	case STEP_SEND:
		return s->first->done == s->first->buf.len;
	case STEP_EXPECT:
		return use_up(s, s->first->type);
	case STEP_PAUSE:
		return s->first->done > 0;
	default:
		return false;
	}
}

/* The step that a read would meet now; NULL when the server has nothing to say (yet). */
static struct step *now(struct pgr_scripted *s)
{
	while (s->first != NULL && happened(s))
		drop_first(s);
	if (s->first == NULL || s->first->kind == STEP_EXPECT || s->first->kind == STEP_PAUSE)
		return NULL;
	return s->first;
}

void pgr_scripted_send(struct pgr_scripted *s, const void *p, size_t len)
{
	put(&add(s, STEP_SEND)->buf, p, len);
}

void pgr_scripted_send_buf(struct pgr_scripted *s, struct pgr_buf *b)
{
	pgr_scripted_send(s, b->data, b->len);
	pgr_buf_fini(b);
}

void pgr_scripted_expect(struct pgr_scripted *s, char type)
{
	add(s, STEP_EXPECT)->type = type;
}

void pgr_scripted_pause(struct pgr_scripted *s)
{
	add(s, STEP_PAUSE);
}

void pgr_scripted_eof(struct pgr_scripted *s)
{
	add(s, STEP_EOF);
}

void pgr_scripted_reset(struct pgr_scripted *s)
{
	add(s, STEP_RESET);
}

void pgr_scripted_break_writes(struct pgr_scripted *s)
{
	s->writes_fail = true;
}

void pgr_scripted_stall_writes(struct pgr_scripted *s)
{
	s->writes_stall = true;
}

void pgr_scripted_set_stop(struct pgr_scripted *s, struct pgr_stop *stop)
{
	s->stop = stop;
}

void pgr_scripted_tap(struct pgr_scripted *s, struct pgr_buf *copy)
{
	s->tap = copy;
}

const struct pgr_buf *pgr_scripted_sent(const struct pgr_scripted *s)
{
	return &s->sent;
}

unsigned pgr_scripted_cancels(const struct pgr_scripted *s)
{
	return s->cancels;
}

/* ---- the transport ---- */

static int scripted_error(struct pgr_err *err, const char *what, int errnum)
{
	pgr_err_set(err, PGR_E_NETWORK, "%s: %s", what, strerror(errnum));
	err->sys_errno = errnum;
	return PGR_ERR;
}

static int scripted_read(struct pgr_transport *t, const struct pgr_room *room, int nroom, size_t *n,
			 struct pgr_err *err)
{
	struct pgr_scripted *s = of(t);
	size_t may = s->chunk != 0 ? s->chunk : SIZE_MAX;
	struct step *st = now(s);

	*n = 0;
	if (st == NULL)
		return PGR_MORE;
	if (st->kind == STEP_EOF) /* stays: the end is read again and again */
		return PGR_OK;
	if (st->kind == STEP_RESET) {
		drop_first(s);
		return scripted_error(err, "could not receive data from server", ECONNRESET);
	}
	for (int i = 0; i < nroom; i++) {
		size_t k = st->buf.len - st->done;

		k = k < room[i].len ? k : room[i].len;
		k = k < may ? k : may;
		memcpy(room[i].p, st->buf.data + st->done, k);
		st->done += k;
		may -= k;
		*n += k;
	}
	if (*n == 0)
		die("a read without room");
	return PGR_OK;
}

static int scripted_write(struct pgr_transport *t, const void *p, size_t len, size_t *n, struct pgr_err *err)
{
	struct pgr_scripted *s = of(t);

	*n = 0;
	if (s->writes_fail)
		return scripted_error(err, "could not send data to server", EPIPE);
	if (s->writes_stall)
		return PGR_MORE;
	if (len == 0)
		die("a write of nothing");
	*n = s->chunk != 0 && s->chunk < len ? s->chunk : len;
	put(&s->sent, p, *n);
	if (s->tap != NULL)
		put(s->tap, p, *n);
	return PGR_OK;
}

/* What is true without waiting. */
static unsigned ready(struct pgr_scripted *s, unsigned want)
{
	unsigned got = 0;

	if ((want & PGR_WAIT_READ) && now(s) != NULL)
		got |= PGR_WAIT_READ;
	if ((want & PGR_WAIT_WRITE) && !s->writes_stall)
		got |= PGR_WAIT_WRITE;
	return got;
}

static int wait_ms(int64_t deadline)
{
	int64_t left = deadline - pgr_sys_real()->mono_ms(pgr_sys_real());

	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static int scripted_wait(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline, unsigned *got,
			 struct pgr_err *err)
{
	struct pgr_scripted *s = of(t);
	struct pollfd fds[2] = {{.fd = wake_fd, .events = POLLIN},
				{.fd = s->stop != NULL ? pgr_stop_fd(s->stop) : -1, .events = POLLIN}};
	bool forever = deadline == PGR_NO_DEADLINE;

	*got = ready(s, want);

	int rc = poll(fds, 2, *got != 0 ? 0 : forever ? HANG_MS : wait_ms(deadline));

	if (rc < 0)
		die("poll");
	if (s->stop != NULL && pgr_stop_check(s->stop, err) != PGR_OK)
		return PGR_ERR;
	if (fds[0].revents != 0)
		*got |= PGR_WAIT_WAKE;
	if (!forever && wait_ms(deadline) == 0)
		*got |= PGR_WAIT_TIMEOUT;
	if (*got == PGR_WAIT_TIMEOUT && s->first != NULL && s->first->kind == STEP_PAUSE)
		s->first->done++;
	if (*got == 0 && rc == 0 && forever)
		return pgr_err_set(err, PGR_E_PROTOCOL, "scripted server: the client waits for what will not come");
	return PGR_OK;
}

static void scripted_cancel(struct pgr_transport *t)
{
	of(t)->cancels++;
}

static void scripted_close(struct pgr_transport *t)
{
	struct pgr_scripted *s = of(t);

	while (s->first != NULL)
		drop_first(s);
	pgr_buf_fini(&s->sent);
	free(s);
}

static const struct pgr_transport_ops scripted_ops = {
	.read = scripted_read,
	.write = scripted_write,
	.wait = scripted_wait,
	.cancel = scripted_cancel,
	.close = scripted_close,
};

struct pgr_scripted *pgr_scripted_new(int server_version, size_t chunk)
{
	struct pgr_scripted *s = calloc(1, sizeof(*s));

	if (s == NULL)
		die("out of memory");
	s->t.ops = &scripted_ops;
	s->t.server_version = server_version;
	s->t.backend_pid = 4711;
	strcpy(s->t.server_host, "scripted");
	strcpy(s->t.server_port, "5432");
	s->chunk = chunk;
	return s;
}

struct pgr_transport *pgr_scripted_transport(struct pgr_scripted *s)
{
	return &s->t;
}

/* ---- messages ---- */

static void put8(struct pgr_buf *b, int v)
{
	struct pgr_err err;

	must(pgr_buf_put8(b, (uint8_t)v, &err), &err);
}

static void put16(struct pgr_buf *b, int v)
{
	struct pgr_err err;

	must(pgr_buf_put16(b, (uint16_t)v, &err), &err);
}

static void put32(struct pgr_buf *b, uint32_t v)
{
	struct pgr_err err;

	must(pgr_buf_put32(b, v, &err), &err);
}

static void put64(struct pgr_buf *b, uint64_t v)
{
	struct pgr_err err;

	must(pgr_buf_put64(b, v, &err), &err);
}

static void put_cstr(struct pgr_buf *b, const char *s)
{
	put(b, s, strlen(s) + 1);
}

void pgr_msg(struct pgr_buf *out, char type, const void *body, size_t len)
{
	put8(out, type);
	put32(out, (uint32_t)len + 4);
	put(out, body, len);
}

/* Makes the gathered body a message. */
static void seal(struct pgr_buf *out, char type, struct pgr_buf *body)
{
	pgr_msg(out, type, body->data, body->len);
	pgr_buf_fini(body);
}

void pgr_msg_row_desc(struct pgr_buf *out, int ncols, const char *const *names)
{
	struct pgr_buf body = {0};

	put16(&body, ncols);
	for (int i = 0; i < ncols; i++) {
		put_cstr(&body, names[i]);
		put32(&body, 0);  /* table */
		put16(&body, 0);  /* column number */
		put32(&body, 25); /* type: text */
		put16(&body, -1); /* its size */
		put32(&body, (uint32_t)-1);
		put16(&body, 0); /* text format */
	}
	seal(out, 'T', &body);
}

void pgr_msg_row(struct pgr_buf *out, int ncols, const char *const *values)
{
	struct pgr_buf body = {0};

	put16(&body, ncols);
	for (int i = 0; i < ncols; i++) {
		put32(&body, values[i] != NULL ? (uint32_t)strlen(values[i]) : (uint32_t)-1);
		if (values[i] != NULL)
			put(&body, values[i], strlen(values[i]));
	}
	seal(out, 'D', &body);
}

void pgr_msg_complete(struct pgr_buf *out, const char *tag)
{
	pgr_msg(out, 'C', tag, strlen(tag) + 1);
}

void pgr_msg_ready(struct pgr_buf *out)
{
	pgr_msg(out, 'Z', "I", 1);
}

static void report(struct pgr_buf *out, char type, const char *severity, const char *sqlstate, const char *text)
{
	struct pgr_buf body = {0};

	put8(&body, 'S');
	put_cstr(&body, severity);
	put8(&body, 'V');
	put_cstr(&body, severity);
	put8(&body, 'C');
	put_cstr(&body, sqlstate);
	put8(&body, 'M');
	put_cstr(&body, text);
	put8(&body, 0);
	seal(out, type, &body);
}

void pgr_msg_error(struct pgr_buf *out, const char *severity, const char *sqlstate, const char *text)
{
	report(out, 'E', severity, sqlstate, text);
}

void pgr_msg_notice(struct pgr_buf *out, const char *severity, const char *sqlstate, const char *text)
{
	report(out, 'N', severity, sqlstate, text);
}

void pgr_msg_param(struct pgr_buf *out, const char *name, const char *value)
{
	struct pgr_buf body = {0};

	put_cstr(&body, name);
	put_cstr(&body, value);
	seal(out, 'S', &body);
}

void pgr_msg_copy_response(struct pgr_buf *out, char type)
{
	pgr_msg(out, type, "\0\0", 3); /* text format, no columns */
}

void pgr_msg_copy_data(struct pgr_buf *out, const void *p, size_t len)
{
	pgr_msg(out, 'd', p, len);
}

void pgr_msg_copy_done(struct pgr_buf *out)
{
	pgr_msg(out, 'c', NULL, 0);
}

void pgr_msg_wal(struct pgr_buf *out, uint64_t start, uint64_t end, const void *wal, size_t len)
{
	put8(out, 'w');
	put64(out, start);
	put64(out, end);
	put64(out, 0); /* the server's clock */
	put(out, wal, len);
}

void pgr_msg_keepalive(struct pgr_buf *out, uint64_t end, int reply)
{
	put8(out, 'k');
	put64(out, end);
	put64(out, 0);
	put8(out, reply != 0);
}
