/* The session on a transport: see client.h.  What a message means is session.c's; here it is about when to read. */
#include "proto/client.h"

#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/sys.h"

#define IN_BYTES ((size_t)256 * 1024)

/*
 * With so much of a CopyData to come, the socket is read into the caller's memory and up to the head of the next
 * message only (type, length, and the byte that says what is inside): its payload can then be received in place as
 * well.  With less, copying is cheaper than a system call for each message.
 */
#define DIRECT_BYTES ((size_t)16 * 1024)
#define HEAD_BYTES   ((size_t)6)

/* Reads that may follow each other before somebody looks at the clock, the stop latch and the wake descriptor. */
#define READS_BETWEEN_WAITS 16

/* After a failed write: how long to wait for the server's reason, or for the end of the stream, which comes with it. */
#define LAST_WORDS_MS 2000

/* A server has a handful of reported parameters; one that sends more is not taken at its word. */
#define MAX_PARAMS	64
#define MAX_PARAM_BYTES 1024

#define ASKED_MAX 8

struct param {
	char *name, *value;
};

struct pgr_client {
	struct pgr_session session;
	struct pgr_transport *t;
	const struct pgr_sys *sys;
	pgr_notice_fn *notice;
	void *notice_arg;
	struct pgr_buf notice_text;
	int wake_fd;

	/* received: in[in_at..in_end) was not parsed yet; the present event may look at what is before in_at */
	uint8_t *in;
	size_t in_at, in_end;
	unsigned reads; /* since the last wait */
	bool ended;	/* no more will come */

	struct pgr_buf out; /* queued, not sent yet */
	bool broken;	    /* a write failed, with out_err; nothing is queued any more */
	struct pgr_err out_err;
	int64_t broken_until; /* when to stop waiting for a better reason */

	struct param params[MAX_PARAMS];
	size_t nparams;

	struct pgr_buf asked[ASKED_MAX]; /* asked ahead, in order */
	size_t nasked;
};

int pgr_client_new(struct pgr_client **out, struct pgr_transport *t, const struct pgr_sys *sys, pgr_notice_fn *notice,
		   void *notice_arg, struct pgr_err *err)
{
	struct pgr_client *c = calloc(1, sizeof(*c));
	uint8_t *in = malloc(IN_BYTES);

	*out = NULL;
	if (c == NULL || in == NULL) {
		free(c);
		free(in);
		pgr_transport_close(t);
		return pgr_err_nomem(err);
	}
	pgr_session_init(&c->session);
	c->t = t;
	c->sys = sys;
	c->notice = notice;
	c->notice_arg = notice_arg;
	c->wake_fd = -1;
	c->in = in;
	*out = c;
	return PGR_OK;
}

int pgr_client_version(const struct pgr_client *c)
{
	return c->t->server_version;
}

int pgr_client_backend_pid(const struct pgr_client *c)
{
	return c->t->backend_pid;
}

struct pgr_transport *pgr_client_transport(struct pgr_client *c)
{
	return c->t;
}

enum pgr_session_state pgr_client_state(const struct pgr_client *c)
{
	return c->session.state;
}

int pgr_client_set_wake(struct pgr_client *c, int fd)
{
	int before = c->wake_fd;

	c->wake_fd = fd;
	return before;
}

int64_t pgr_client_deadline(const struct pgr_client *c, int64_t ms)
{
	return c->sys->mono_ms(c->sys) + ms;
}

/* ---- sending ---- */

/* Nothing can be sent any more.  Why is known only when everything was read that the server had sent before. */
static void break_output(struct pgr_client *c, const struct pgr_err *why)
{
	c->broken = true;
	c->out_err = *why;
	c->broken_until = pgr_client_deadline(c, LAST_WORDS_MS);
}

/* Hands to the socket what it takes. */
static void push(struct pgr_client *c)
{
	size_t at = 0;

	while (!c->broken && at < c->out.len) {
		struct pgr_err why;
		size_t n;
		int rc = pgr_transport_write(c->t, c->out.data + at, c->out.len - at, &n, &why);

		if (rc == PGR_MORE)
			break;
		if (rc == PGR_ERR)
			break_output(c, &why);
		else
			at += n;
	}
	pgr_buf_drop(&c->out, c->broken ? c->out.len : at);
}

int pgr_client_send(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err)
{
	if (pgr_session_query(&c->session, &c->out, (struct pgr_span){text->data, text->len}, err) != PGR_OK)
		return PGR_ERR;
	push(c);
	return PGR_OK;
}

int pgr_client_send_ahead(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err)
{
	if (pgr_session_query_ahead(&c->session, &c->out, (struct pgr_span){text->data, text->len}, err) != PGR_OK)
		return PGR_ERR;
	push(c);
	return PGR_OK;
}

int pgr_client_copy_send(struct pgr_client *c, struct pgr_span body, struct pgr_err *err)
{
	if (pgr_session_copy_data(&c->session, &c->out, body, err) != PGR_OK)
		return PGR_ERR;
	push(c);
	return PGR_OK;
}

int pgr_client_copy_done(struct pgr_client *c, struct pgr_err *err)
{
	if (pgr_session_copy_done(&c->session, &c->out, err) != PGR_OK)
		return PGR_ERR;
	push(c);
	return PGR_OK;
}

/* ---- receiving ---- */

static int timed_out(const struct pgr_client *c, const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_NETWORK, "timeout while %s server \"%s\", port %s", what, c->t->server_host,
			   c->t->server_port);
}

/* PGR_OK: *n bytes came, 0 at the end of the stream.  PGR_MORE: none are there now. */
static int read_now(struct pgr_client *c, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err)
{
	int rc = pgr_transport_read(c->t, room, nroom, n, err);

	c->ended = rc == PGR_ERR || (rc == PGR_OK && *n == 0);
	return rc;
}

/* PGR_OK: bytes may be there.  PGR_MORE: *why says what came first, PGR_WAIT_WAKE or PGR_WAIT_TIMEOUT. */
static int wait_to_read(struct pgr_client *c, int64_t deadline, unsigned *why, struct pgr_err *err)
{
	bool hurry = c->broken && (deadline == PGR_NO_DEADLINE || deadline > c->broken_until);
	unsigned got;

	c->reads = 0;
	if (pgr_transport_wait(c->t, PGR_WAIT_READ | (c->out.len > 0 ? PGR_WAIT_WRITE : 0), c->wake_fd,
			       hurry ? c->broken_until : deadline, &got, err) != PGR_OK)
		return PGR_ERR;
	if (got & PGR_WAIT_WRITE)
		push(c);
	if (hurry && (got & PGR_WAIT_TIMEOUT) && !(got & PGR_WAIT_READ)) {
		c->ended = true;
		*err = c->out_err;
		return PGR_ERR;
	}
	*why = got & (hurry ? PGR_WAIT_WAKE : PGR_WAIT_WAKE | PGR_WAIT_TIMEOUT);
	return *why != 0 ? PGR_MORE : PGR_OK;
}

/*
 * Receives, waiting if need be; as wait_to_read, with *n > 0 for PGR_OK.  Reads first and waits only when nothing is
 * there, which saves a system call for each read of a busy stream; but not for ever, or a stream that never runs dry
 * could not be stopped.
 */
static int receive(struct pgr_client *c, const struct pgr_room *room, int nroom, int64_t deadline, size_t *n,
		   unsigned *why, struct pgr_err *err)
{
	int rc = ++c->reads > READS_BETWEEN_WAITS ? PGR_MORE : PGR_OK;

	if (c->ended || c->session.state == PGR_SS_CLOSED)
		return pgr_session_eof(&c->session, err);
	push(c);
	for (;;) {
		if (rc == PGR_OK)
			rc = read_now(c, room, nroom, n, err);
		if (rc == PGR_OK && c->ended)
			return pgr_session_eof(&c->session, err);
		if (rc != PGR_MORE)
			return rc;
		rc = wait_to_read(c, deadline, why, err);
		if (rc != PGR_OK)
			return rc;
	}
}

static int tell_notice(struct pgr_client *c, const struct pgr_fields *f, struct pgr_err *err)
{
	const char *text;

	if (c->notice == NULL)
		return PGR_OK;
	c->notice_text.len = 0;
	if (pgr_fields_text(f, &c->notice_text, err) != PGR_OK)
		return PGR_ERR;
	text = pgr_buf_str(&c->notice_text);
	if (text == NULL)
		return pgr_err_nomem(err);
	c->notice(c->notice_arg, text);
	return PGR_OK;
}

static struct param *find_param(struct pgr_client *c, struct pgr_span name)
{
	for (size_t i = 0; i < c->nparams; i++)
		if (pgr_span_is(name, c->params[i].name))
			return &c->params[i];
	return NULL;
}

static int remember_param(struct pgr_client *c, struct pgr_span name, struct pgr_span value, struct pgr_err *err)
{
	struct param *p = find_param(c, name);
	char *copy;

	if (name.len > MAX_PARAM_BYTES || value.len > MAX_PARAM_BYTES || (p == NULL && c->nparams == MAX_PARAMS))
		return PGR_OK;
	copy = strndup((const char *)value.p, value.len);
	if (copy == NULL)
		return pgr_err_nomem(err);
	if (p != NULL) {
		free(p->value);
		p->value = copy;
		return PGR_OK;
	}
	p = &c->params[c->nparams];
	p->name = strndup((const char *)name.p, name.len);
	if (p->name == NULL) {
		free(copy);
		return pgr_err_nomem(err);
	}
	p->value = copy;
	c->nparams++;
	return PGR_OK;
}

const char *pgr_client_param(const struct pgr_client *c, const char *name)
{
	for (size_t i = 0; i < c->nparams; i++)
		if (strcmp(c->params[i].name, name) == 0)
			return c->params[i].value;
	return NULL;
}

/* The next event for the caller out of what was received; PGR_MORE: all of it was taken. */
static int parse(struct pgr_client *c, struct pgr_event *ev, struct pgr_err *err)
{
	int rc = PGR_OK;

	while (rc == PGR_OK) {
		struct pgr_span in = {c->in + c->in_at, c->in_end - c->in_at};

		rc = pgr_session_next(&c->session, &in, ev, err);
		c->in_at = c->in_end - in.len;
		if (rc != PGR_OK || (ev->kind != PGR_EV_NOTICE && ev->kind != PGR_EV_PARAM))
			break;
		rc = ev->kind == PGR_EV_NOTICE ? tell_notice(c, &ev->fields, err)
					       : remember_param(c, ev->param.name, ev->param.value, err);
	}
	return rc;
}

int pgr_client_next(struct pgr_client *c, int64_t deadline, struct pgr_event *ev, struct pgr_err *err)
{
	for (;;) {
		struct pgr_room room = {c->in, IN_BYTES};
		unsigned why;
		size_t n;
		int rc = parse(c, ev, err);

		if (rc != PGR_MORE)
			return rc;
		c->in_at = c->in_end = 0;
		rc = receive(c, &room, 1, deadline, &n, &why, err);
		if (rc == PGR_ERR)
			return rc;
		if (rc == PGR_MORE) {
			ev->kind = why & PGR_WAIT_WAKE ? PGR_EV_WAKE : PGR_EV_TIMEOUT;
			return PGR_OK;
		}
		c->in_end = n;
	}
}

int pgr_client_expect(struct pgr_client *c, int64_t deadline, struct pgr_event *ev, struct pgr_err *err)
{
	if (pgr_client_next(c, deadline, ev, err) != PGR_OK)
		return PGR_ERR;
	if (ev->kind == PGR_EV_ERROR)
		return pgr_fields_to_err(&ev->fields, err);
	if (ev->kind == PGR_EV_TIMEOUT)
		return timed_out(c, "waiting for an answer from", err);
	return PGR_OK;
}

int pgr_client_until_ready(struct pgr_client *c, int64_t deadline, struct pgr_err *err)
{
	int wake = pgr_client_set_wake(c, -1);
	bool failed = false, over = false;
	struct pgr_err later;
	int rc = PGR_OK;

	while (rc == PGR_OK && !over && c->session.state != PGR_SS_READY) {
		struct pgr_event ev;

		rc = pgr_client_expect(c, deadline, &ev, failed ? &later : err);
		over = rc == PGR_OK && ev.kind == PGR_EV_READY; /* others may have been sent behind it */
		if (rc == PGR_ERR && !failed && err->cls == PGR_E_SERVER && !err->fatal) {
			failed = true;
			rc = PGR_OK;
		}
	}
	pgr_client_set_wake(c, wake);
	return failed ? PGR_ERR : rc;
}

/* ---- asking ahead ---- */

int pgr_client_ask_ahead(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err)
{
	struct pgr_buf copy = {0};

	if (c->nasked == ASKED_MAX)
		return PGR_OK;
	if (pgr_buf_put(&copy, text->data, text->len, err) != PGR_OK || pgr_client_send_ahead(c, text, err) != PGR_OK) {
		pgr_buf_fini(&copy);
		return PGR_ERR;
	}
	c->asked[c->nasked++] = copy;
	return PGR_OK;
}

static void forget_first(struct pgr_client *c)
{
	pgr_buf_fini(&c->asked[0]);
	memmove(c->asked, c->asked + 1, --c->nasked * sizeof(c->asked[0]));
}

/* What an answer that nobody wants has to say is of no interest, unless it ends the session. */
static int throw_away(struct pgr_client *c, size_t n, struct pgr_err *err)
{
	while (n-- > 0) {
		forget_first(c);
		if (pgr_client_until_ready(c, pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS), err) != PGR_OK &&
		    (err->cls != PGR_E_SERVER || err->fatal))
			return PGR_ERR;
	}
	return PGR_OK;
}

int pgr_client_ask(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err)
{
	size_t i = 0;

	while (i < c->nasked && (c->asked[i].len != text->len || memcmp(c->asked[i].data, text->data, text->len) != 0))
		i++;
	if (throw_away(c, i, err) != PGR_OK)
		return PGR_ERR;
	if (c->nasked == 0)
		return pgr_client_send(c, text, err);
	forget_first(c);
	return PGR_OK;
}

/* ---- CopyData into the caller's memory ---- */

uint32_t pgr_client_copy_left(const struct pgr_client *c)
{
	return pgr_wire_body_left(&c->session.wire);
}

static size_t take_received(struct pgr_client *c, void *dst, size_t want)
{
	size_t n = c->in_end - c->in_at < want ? c->in_end - c->in_at : want;

	memcpy(dst, c->in + c->in_at, n);
	c->in_at += n;
	return n;
}

/* `left` bytes of the body are still to come, `want` of them into dst; nothing is in the receive buffer. */
static int take_direct(struct pgr_client *c, void *dst, size_t want, size_t left, int64_t deadline, size_t *n,
		       struct pgr_err *err)
{
	struct pgr_room room[2] = {{dst, want}, {c->in, left >= DIRECT_BYTES ? HEAD_BYTES : IN_BYTES}};
	unsigned why;
	size_t got;
	int rc = receive(c, room, want == left ? 2 : 1, deadline, &got, &why, err);

	c->in_at = c->in_end = 0;
	if (rc != PGR_OK)
		return rc;
	*n = got < want ? got : want;
	c->in_end = got - *n;
	return PGR_OK;
}

int pgr_client_copy_take(struct pgr_client *c, void *dst, size_t cap, int64_t deadline, size_t *n, struct pgr_err *err)
{
	size_t left = pgr_client_copy_left(c);
	size_t want = cap < left ? cap : left;
	int rc = PGR_OK;

	*n = 0;
	if (want == 0)
		return PGR_OK;
	if (c->in_at < c->in_end)
		*n = take_received(c, dst, want);
	else
		rc = take_direct(c, dst, want, left, deadline, n, err);
	if (rc == PGR_OK)
		pgr_wire_took(&c->session.wire, (uint32_t)*n);
	return rc;
}

/* ---- sending all of it ---- */

/*
 * While only writing: what the server has to say is read as far as there is room, or both sides might wait for each
 * other.  The end of the stream breaks the output too; the session hears of it when what came before was parsed.
 */
static void read_meanwhile(struct pgr_client *c)
{
	struct pgr_room room = {c->in + c->in_end, IN_BYTES - c->in_end};
	struct pgr_err why;
	size_t n;
	int rc = read_now(c, &room, 1, &n, &why);

	if (rc == PGR_OK && n == 0)
		rc = pgr_err_set(&why, PGR_E_NETWORK, "server closed the connection unexpectedly");
	if (rc == PGR_OK)
		c->in_end += n;
	else if (rc == PGR_ERR)
		break_output(c, &why);
}

/* The output is broken: the server's reason, or what the system said.  Always PGR_ERR. */
static int last_words(struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_event ev;
	int rc;

	do
		rc = pgr_client_expect(c, c->broken_until, &ev, err);
	while (rc == PGR_OK);
	if (err->cls == PGR_E_NETWORK)
		*err = c->out_err;
	return PGR_ERR;
}

static int flush_output(struct pgr_client *c, int64_t deadline, struct pgr_err *err)
{
	push(c);
	while (c->out.len > 0) {
		unsigned want = PGR_WAIT_WRITE | (c->in_end < IN_BYTES ? PGR_WAIT_READ : 0);
		unsigned got;

		if (pgr_transport_wait(c->t, want, -1, deadline, &got, err) != PGR_OK)
			return PGR_ERR;
		if (got & PGR_WAIT_READ)
			read_meanwhile(c);
		push(c);
		if ((got & PGR_WAIT_TIMEOUT) && c->out.len > 0)
			return timed_out(c, "sending data to", err);
	}
	return c->broken ? last_words(c, err) : PGR_OK;
}

int pgr_client_flush(struct pgr_client *c, int64_t deadline, struct pgr_err *err)
{
	int wake = pgr_client_set_wake(c, -1);
	int rc = flush_output(c, deadline, err);

	pgr_client_set_wake(c, wake);
	return rc;
}

void pgr_client_free(struct pgr_client *c)
{
	struct pgr_err ignored;

	if (c == NULL)
		return;
	if (pgr_session_terminate(&c->session, &c->out, &ignored) == PGR_OK)
		push(c);
	pgr_transport_close(c->t);
	pgr_session_fini(&c->session);
	for (size_t i = 0; i < c->nparams; i++) {
		free(c->params[i].name);
		free(c->params[i].value);
	}
	while (c->nasked > 0)
		forget_first(c);
	pgr_buf_fini(&c->notice_text);
	pgr_buf_fini(&c->out);
	free(c->in);
	free(c);
}
