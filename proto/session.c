/*
 * The session: see session.h.
 *
 * Two tables hold all that there is to know about order: `receives` says which message of the server is legal in
 * which state and where it leads, `sends` the same for what we send.  What is not in them is a protocol violation of
 * the server, or a mistake of the caller.  Everything else here is decoding.
 */
#include "proto/session.h"

#include <string.h>

/* Entries of the tables: the next state, or 0 for "not allowed". */
#define TO(state) (PGR_SS_##state + 1)

/*
 * Source: PostgreSQL documentation, "Message Flow" and "Streaming Replication Protocol"; for what it leaves out
 * src/backend/replication/walsender.c:
 * - an ERROR ends any command, also one that is copying (a start point beyond the end of WAL is found out after
 *   CopyBothResponse), and a second one may follow before ReadyForQuery (termination while an error is handled);
 * - a server that shuts down ends the stream with CommandComplete "COPY 0" and no CopyDone (WalSndDone), and may do so
 *   while our own CopyDone is under way;
 * - what it had sent before it read our CopyDone still comes: CopyData in COPY_CLI_DONE;
 * - after both CopyDones rows and one or two CommandCompletes follow, as after any command.
 * An idle server says nothing but notices, parameters, and why it ends the session.
 */
static const uint8_t receives[PGR_SS_STATES][PGR_MSG_CLASSES] = {
	[PGR_SS_READY] =
		{
			[PGR_MSG_ASYNC] = TO(READY),
			[PGR_MSG_ERROR] = TO(CLOSED),
		},
	[PGR_SS_BUSY] =
		{
			[PGR_MSG_ASYNC] = TO(BUSY),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_ROW_DESC] = TO(ROWS),
			[PGR_MSG_COMPLETE] = TO(BUSY),
			[PGR_MSG_READY] = TO(READY),
			[PGR_MSG_COPY_OUT] = TO(COPY_OUT),
			[PGR_MSG_COPY_IN] = TO(COPY_IN),
			[PGR_MSG_COPY_BOTH] = TO(COPY_BOTH),
		},
	[PGR_SS_ROWS] =
		{
			[PGR_MSG_ASYNC] = TO(ROWS),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_ROW] = TO(ROWS),
			[PGR_MSG_COMPLETE] = TO(BUSY),
		},
	[PGR_SS_COPY_OUT] =
		{
			[PGR_MSG_ASYNC] = TO(COPY_OUT),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_COPY_DATA] = TO(COPY_OUT),
			[PGR_MSG_COPY_DONE] = TO(BUSY),
		},
	[PGR_SS_COPY_IN] =
		{
			[PGR_MSG_ASYNC] = TO(COPY_IN),
			[PGR_MSG_ERROR] = TO(FAILED),
		},
	[PGR_SS_COPY_BOTH] =
		{
			[PGR_MSG_ASYNC] = TO(COPY_BOTH),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_COMPLETE] = TO(BUSY),
			[PGR_MSG_COPY_DATA] = TO(COPY_BOTH),
			[PGR_MSG_COPY_DONE] = TO(COPY_SRV_DONE),
		},
	[PGR_SS_COPY_SRV_DONE] =
		{
			[PGR_MSG_ASYNC] = TO(COPY_SRV_DONE),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_COMPLETE] = TO(BUSY),
		},
	[PGR_SS_COPY_CLI_DONE] =
		{
			[PGR_MSG_ASYNC] = TO(COPY_CLI_DONE),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_COMPLETE] = TO(BUSY),
			[PGR_MSG_COPY_DATA] = TO(COPY_CLI_DONE),
			[PGR_MSG_COPY_DONE] = TO(BUSY),
		},
	[PGR_SS_FAILED] =
		{
			[PGR_MSG_ASYNC] = TO(FAILED),
			[PGR_MSG_ERROR] = TO(FAILED),
			[PGR_MSG_READY] = TO(READY),
		},
	[PGR_SS_CLOSED] = {0},
};

enum send_kind { SEND_QUERY, SEND_COPY_DATA, SEND_COPY_DONE, SEND_COPY_FAIL, SEND_TERMINATE, SEND_KINDS };

static const struct {
	char type;
	const char *name;
} send_types[SEND_KINDS] = {
	[SEND_QUERY] = {'Q', "a command"},     [SEND_COPY_DATA] = {'d', "CopyData"},
	[SEND_COPY_DONE] = {'c', "CopyDone"},  [SEND_COPY_FAIL] = {'f', "CopyFail"},
	[SEND_TERMINATE] = {'X', "Terminate"},
};

/*
 * CopyFail belongs to COPY_IN alone: a walsender that streams takes anything but CopyData, CopyDone and Terminate for
 * a violation and dies (ProcessRepliesIfAny).
 */
static const uint8_t sends[PGR_SS_STATES][SEND_KINDS] = {
	[PGR_SS_READY] = {[SEND_QUERY] = TO(BUSY), [SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_BUSY] = {[SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_ROWS] = {[SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_COPY_OUT] = {[SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_COPY_IN] =
		{
			[SEND_COPY_DATA] = TO(COPY_IN),
			[SEND_COPY_DONE] = TO(BUSY),
			[SEND_COPY_FAIL] = TO(BUSY),
			[SEND_TERMINATE] = TO(CLOSED),
		},
	[PGR_SS_COPY_BOTH] =
		{
			[SEND_COPY_DATA] = TO(COPY_BOTH),
			[SEND_COPY_DONE] = TO(COPY_CLI_DONE),
			[SEND_TERMINATE] = TO(CLOSED),
		},
	[PGR_SS_COPY_SRV_DONE] =
		{
			[SEND_COPY_DATA] = TO(COPY_SRV_DONE),
			[SEND_COPY_DONE] = TO(BUSY),
			[SEND_TERMINATE] = TO(CLOSED),
		},
	[PGR_SS_COPY_CLI_DONE] = {[SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_FAILED] = {[SEND_TERMINATE] = TO(CLOSED)},
	[PGR_SS_CLOSED] = {0},
};

static const char *const state_names[PGR_SS_STATES] = {
	[PGR_SS_READY] = "READY",
	[PGR_SS_BUSY] = "BUSY",
	[PGR_SS_ROWS] = "ROWS",
	[PGR_SS_COPY_OUT] = "COPY_OUT",
	[PGR_SS_COPY_IN] = "COPY_IN",
	[PGR_SS_COPY_BOTH] = "COPY_BOTH",
	[PGR_SS_COPY_SRV_DONE] = "COPY_SRV_DONE",
	[PGR_SS_COPY_CLI_DONE] = "COPY_CLI_DONE",
	[PGR_SS_FAILED] = "FAILED",
	[PGR_SS_CLOSED] = "CLOSED",
};

const char *pgr_session_state_name(enum pgr_session_state st)
{
	return (unsigned)st < PGR_SS_STATES ? state_names[st] : "?";
}

void pgr_session_init(struct pgr_session *s)
{
	pgr_wire_init(&s->wire);
	s->state = PGR_SS_READY;
	s->ahead = 0;
}

void pgr_session_fini(struct pgr_session *s)
{
	pgr_wire_fini(&s->wire);
}

/* ---- decoding, by class ---- */

/* PGR_MORE: the message is of no interest to anybody. */
typedef int decode_fn(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err);

static int decode_async(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	switch (m->type->type) {
	case 'N':
		ev->kind = PGR_EV_NOTICE;
		return pgr_fields_decode(m->data, &ev->fields, err);
	case 'S':
		ev->kind = PGR_EV_PARAM;
		return pgr_param_decode(m->data, &ev->param.name, &ev->param.value, err);
	default:
		return PGR_MORE; /* a NOTIFY that somebody else asked for */
	}
}

static int decode_error(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_ERROR;
	return pgr_fields_decode(m->data, &ev->fields, err);
}

static int decode_row_desc(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_ROW_DESC;
	return pgr_rowdesc_decode(m->data, &ev->rowdesc, err);
}

static int decode_row(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_ROW;
	return pgr_row_decode(m->data, &ev->row, err);
}

static int decode_complete(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(m->data.p, m->data.len);

	ev->kind = PGR_EV_COMPLETE;
	if (m->type->type == 'I') {
		ev->tag = (struct pgr_span){(const uint8_t *)"", 0};
		return PGR_OK;
	}
	ev->tag = pgr_cur_cstr(&c);
	if (!pgr_cur_done(&c))
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed command tag");
	return PGR_OK;
}

static int decode_ready(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(m->data.p, m->data.len);

	ev->kind = PGR_EV_READY;
	ev->tx_status = (char)pgr_cur_u8(&c);
	if (!pgr_cur_done(&c) || (ev->tx_status != 'I' && ev->tx_status != 'T' && ev->tx_status != 'E'))
		return pgr_err_set(err, PGR_E_PROTOCOL, "unknown transaction status");
	return PGR_OK;
}

static int decode_copy_out(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_COPY_OUT;
	return pgr_copy_response_check(m->data, err);
}

static int decode_copy_in(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_COPY_IN;
	return pgr_copy_response_check(m->data, err);
}

static int decode_copy_both(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	ev->kind = PGR_EV_COPY_BOTH;
	return pgr_copy_response_check(m->data, err);
}

static int decode_copy_data(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	(void)err;
	ev->kind = PGR_EV_COPY_DATA;
	ev->part = *m;
	return PGR_OK;
}

static int decode_copy_done(const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	(void)m;
	(void)err;
	ev->kind = PGR_EV_COPY_DONE;
	return PGR_OK;
}

static decode_fn *const decoders[PGR_MSG_CLASSES] = {
	[PGR_MSG_ASYNC] = decode_async,		[PGR_MSG_ERROR] = decode_error,
	[PGR_MSG_ROW_DESC] = decode_row_desc,	[PGR_MSG_ROW] = decode_row,
	[PGR_MSG_COMPLETE] = decode_complete,	[PGR_MSG_READY] = decode_ready,
	[PGR_MSG_COPY_OUT] = decode_copy_out,	[PGR_MSG_COPY_IN] = decode_copy_in,
	[PGR_MSG_COPY_BOTH] = decode_copy_both, [PGR_MSG_COPY_DATA] = decode_copy_data,
	[PGR_MSG_COPY_DONE] = decode_copy_done,
};

/* ---- receiving ---- */

/* Puts the state (and the message, when it is known) in front of an error that is set, and closes the session. */
static int violation(struct pgr_session *s, const struct pgr_msg_type *type, uint32_t body_len, struct pgr_err *err)
{
	const char *state = pgr_session_state_name(s->state);

	s->state = PGR_SS_CLOSED;
	if (err->cls != PGR_E_PROTOCOL)
		return PGR_ERR;
	if (type == NULL)
		return pgr_err_prefix(err, "protocol violation in state %s", state);
	return pgr_err_prefix(err, "protocol violation in state %s, message %s ('%c', length %u)", state, type->name,
			      type->type, body_len + 4);
}

static int check_legal(struct pgr_session *s, const struct pgr_msg_type *type, uint32_t body_len, struct pgr_err *err)
{
	if (receives[s->state][type->cls] != 0)
		return PGR_OK;
	pgr_err_set(err, PGR_E_PROTOCOL, "the message is not allowed here");
	return violation(s, type, body_len, err);
}

/* One message or part: decode it, go where the table says. */
static int dispatch(struct pgr_session *s, const struct pgr_wire_msg *m, struct pgr_event *ev, struct pgr_err *err)
{
	uint32_t body_len = (uint32_t)m->data.len + (m->last ? 0 : s->wire.left);
	int rc;

	if (check_legal(s, m->type, body_len, err) != PGR_OK)
		return PGR_ERR;
	rc = decoders[m->type->cls](m, ev, err);
	if (rc == PGR_ERR)
		return violation(s, m->type, body_len, err);
	s->state = (enum pgr_session_state)(receives[s->state][m->type->cls] - 1);
	if (rc == PGR_OK && ev->kind == PGR_EV_ERROR && pgr_fields_fatal(&ev->fields))
		s->state = PGR_SS_CLOSED;
	if (s->state == PGR_SS_READY && s->ahead > 0 && m->type->cls == PGR_MSG_READY) {
		s->ahead--;
		s->state = PGR_SS_BUSY;
	}
	return rc;
}

static int next_message(struct pgr_session *s, struct pgr_span *in, struct pgr_wire_msg *m, struct pgr_err *err)
{
	int rc = pgr_wire_next(&s->wire, in, m, err);

	if (rc == PGR_ERR)
		return violation(s, NULL, 0, err);
	/* What is not allowed is refused by its head; nobody gathers 64 MiB of it first. */
	if (rc == PGR_MORE && s->wire.type != NULL &&
	    check_legal(s, s->wire.type, s->wire.left + (uint32_t)s->wire.body.len, err) != PGR_OK)
		return PGR_ERR;
	return rc;
}

int pgr_session_next(struct pgr_session *s, struct pgr_span *in, struct pgr_event *ev, struct pgr_err *err)
{
	int rc;

	if (s->state == PGR_SS_CLOSED) {
		if (in->len == 0)
			return PGR_MORE;
		pgr_err_set(err, PGR_E_PROTOCOL, "the server sent data after the end of the session");
		return violation(s, NULL, 0, err);
	}
	do {
		struct pgr_wire_msg m;

		rc = next_message(s, in, &m, err);
		if (rc != PGR_OK)
			return rc;
		rc = dispatch(s, &m, ev, err);
	} while (rc == PGR_MORE);
	return rc;
}

int pgr_session_eof(struct pgr_session *s, struct pgr_err *err)
{
	const struct pgr_wire *w = &s->wire;
	const char *state = pgr_session_state_name(s->state);

	s->state = PGR_SS_CLOSED;
	if (w->type != NULL)
		return pgr_err_set(err, PGR_E_NETWORK,
				   "server closed the connection unexpectedly: in the middle of a message %s ('%c'), "
				   "%u bytes were still to come (state %s)",
				   w->type->name, w->type->type, w->left, state);
	if (w->head_len > 0)
		return pgr_err_set(err, PGR_E_NETWORK,
				   "server closed the connection unexpectedly: in the head of a message (state %s)",
				   state);
	return pgr_err_set(err, PGR_E_NETWORK, "server closed the connection unexpectedly");
}

/* ---- sending ---- */

/* A frame must fit the server's int32, and there is no use for one beyond 1 GiB. */
#define SEND_MAX ((size_t)1 << 30)

/* Appends type, length, body, and a NUL where the body is a string; all or nothing. */
static int put_frame(struct pgr_buf *out, char type, struct pgr_span body, bool string, struct pgr_err *err)
{
	size_t start = out->len;
	size_t len = 4 + body.len + (string ? 1 : 0);

	if (pgr_buf_reserve(out, 1 + len, err) == PGR_OK && pgr_buf_put8(out, (uint8_t)type, err) == PGR_OK &&
	    pgr_buf_put32(out, (uint32_t)len, err) == PGR_OK &&
	    (body.len == 0 || pgr_buf_put(out, body.p, body.len, err) == PGR_OK) &&
	    (!string || pgr_buf_put8(out, 0, err) == PGR_OK))
		return PGR_OK;
	out->len = start;
	return PGR_ERR;
}

static int send_message(struct pgr_session *s, struct pgr_buf *out, enum send_kind kind, struct pgr_span body,
			bool string, struct pgr_err *err)
{
	uint8_t next = sends[s->state][kind];

	if (next == 0)
		return pgr_err_set(err, PGR_E_USAGE, "cannot send %s in state %s", send_types[kind].name,
				   pgr_session_state_name(s->state));
	if (body.len > SEND_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "cannot send %s of %zu bytes: the limit is %zu",
				   send_types[kind].name, body.len, SEND_MAX);
	if (string && body.len > 0 && memchr(body.p, 0, body.len) != NULL)
		return pgr_err_set(err, PGR_E_USAGE, "cannot send %s that contains a NUL byte", send_types[kind].name);
	if (put_frame(out, send_types[kind].type, body, string, err) != PGR_OK)
		return PGR_ERR;
	s->state = (enum pgr_session_state)(next - 1);
	return PGR_OK;
}

static const struct pgr_span no_body = {NULL, 0};

int pgr_session_query(struct pgr_session *s, struct pgr_buf *out, struct pgr_span text, struct pgr_err *err)
{
	return send_message(s, out, SEND_QUERY, text, true, err);
}

int pgr_session_query_ahead(struct pgr_session *s, struct pgr_buf *out, struct pgr_span text, struct pgr_err *err)
{
	enum pgr_session_state state = s->state;
	int rc;

	if (state != PGR_SS_BUSY && state != PGR_SS_ROWS && state != PGR_SS_COPY_OUT && state != PGR_SS_FAILED)
		return pgr_session_query(s, out, text, err);
	s->state = PGR_SS_READY; /* where the server will stand when it takes the command up */
	rc = pgr_session_query(s, out, text, err);
	s->state = state;
	if (rc == PGR_OK)
		s->ahead++;
	return rc;
}

int pgr_session_copy_data(struct pgr_session *s, struct pgr_buf *out, struct pgr_span body, struct pgr_err *err)
{
	return send_message(s, out, SEND_COPY_DATA, body, false, err);
}

int pgr_session_copy_done(struct pgr_session *s, struct pgr_buf *out, struct pgr_err *err)
{
	return send_message(s, out, SEND_COPY_DONE, no_body, false, err);
}

int pgr_session_copy_fail(struct pgr_session *s, struct pgr_buf *out, const char *why, struct pgr_err *err)
{
	struct pgr_span text = {(const uint8_t *)why, strlen(why)};

	return send_message(s, out, SEND_COPY_FAIL, text, true, err);
}

int pgr_session_terminate(struct pgr_session *s, struct pgr_buf *out, struct pgr_err *err)
{
	return send_message(s, out, SEND_TERMINATE, no_body, false, err);
}
