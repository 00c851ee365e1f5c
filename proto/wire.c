/* Framing: see wire.h.  The message table is the only list of what a server may send after authentication. */
#include "proto/wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define KIB(n) ((uint32_t)(n)*1024u)
#define MIB(n) (KIB(n) * 1024u)

/* A gathered body larger than this is not kept as scratch memory for the messages that follow. */
#define KEEP_BYTES MIB(1)

/* Bodies that are gathered; a row may hold a history file or a chunk of a relation, anything else is small. */
#define GATHER_MAX MIB(64)

/*
 * Source: PostgreSQL documentation, "Message Formats".  BackendKeyData, Authentication and NegotiateProtocolVersion
 * are libpq's part, before the take-over; the extended query protocol does not exist on replication connections.
 * CopyData comes first because it is nearly all that comes.  Limits: a server cannot build a message of more than
 * 1 GiB (MaxAllocSize), a command tag is at most 64 bytes there (COMPLETION_TAG_BUFSIZE), a notification 8000.
 */
static const struct pgr_msg_type types[] = {
	{'d', "CopyData", PGR_MSG_COPY_DATA, 0, MIB(1024), true},
	{'D', "DataRow", PGR_MSG_ROW, 2, GATHER_MAX, false},
	{'T', "RowDescription", PGR_MSG_ROW_DESC, 2, MIB(1), false},
	{'C', "CommandComplete", PGR_MSG_COMPLETE, 1, KIB(1), false},
	{'I', "EmptyQueryResponse", PGR_MSG_COMPLETE, 0, 0, false},
	{'Z', "ReadyForQuery", PGR_MSG_READY, 1, 1, false},
	{'c', "CopyDone", PGR_MSG_COPY_DONE, 0, 0, false},
	{'H', "CopyOutResponse", PGR_MSG_COPY_OUT, 3, KIB(128) + 1, false},
	{'G', "CopyInResponse", PGR_MSG_COPY_IN, 3, KIB(128) + 1, false},
	{'W', "CopyBothResponse", PGR_MSG_COPY_BOTH, 3, KIB(128) + 1, false},
	{'E', "ErrorResponse", PGR_MSG_ERROR, 1, MIB(1), false},
	{'N', "NoticeResponse", PGR_MSG_ASYNC, 1, MIB(1), false},
	{'S', "ParameterStatus", PGR_MSG_ASYNC, 2, MIB(1), false},
	{'A', "NotificationResponse", PGR_MSG_ASYNC, 6, KIB(64), false},
};

const struct pgr_msg_type *pgr_msg_type_find(uint8_t type)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if ((uint8_t)types[i].type == type)
			return &types[i];
	return NULL;
}

void pgr_wire_init(struct pgr_wire *w)
{
	memset(w, 0, sizeof(*w));
	w->body.limit = GATHER_MAX;
}

void pgr_wire_fini(struct pgr_wire *w)
{
	pgr_buf_fini(&w->body);
}

static void advance(struct pgr_span *in, size_t n)
{
	if (n > 0)
		in->p += n;
	in->len -= n;
}

/* Between messages again.  The body stays as it is: the caller may be looking at it. */
static void end_message(struct pgr_wire *w)
{
	w->type = NULL;
	w->head_len = 0;
	w->started = false;
}

static int unknown_type(uint8_t type, uint32_t len, struct pgr_err *err)
{
	char shown[8];

	if (type > 0x20 && type < 0x7F)
		snprintf(shown, sizeof(shown), "'%c'", type);
	else
		snprintf(shown, sizeof(shown), "0x%02X", type);
	return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected message type %s of length %u from the server", shown, len);
}

/* `len` counts itself, as on the wire. */
static int start_message(struct pgr_wire *w, uint8_t type, uint32_t len, struct pgr_err *err)
{
	const struct pgr_msg_type *t = pgr_msg_type_find(type);

	if (t == NULL)
		return unknown_type(type, len, err);
	if (len < 4 || len - 4 < t->min_body || len - 4 > t->max_body)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "message %s ('%c') from the server has invalid length %u (allowed: %u to %u)",
				   t->name, t->type, len, t->min_body + 4, t->max_body + 4);
	if (w->body.cap > KEEP_BYTES)
		pgr_buf_fini(&w->body);
	w->body.len = 0;
	w->type = t;
	w->left = len - 4;
	return PGR_OK;
}

static int take_head(struct pgr_wire *w, struct pgr_span *in, struct pgr_err *err)
{
	size_t n = sizeof(w->head) - w->head_len;
	struct pgr_cursor c;
	uint8_t type;

	if (n > in->len)
		n = in->len;
	if (n > 0)
		memcpy(w->head + w->head_len, in->p, n);
	advance(in, n);
	w->head_len += (unsigned)n;
	if (w->head_len < sizeof(w->head))
		return PGR_MORE;
	c = pgr_cur(w->head, sizeof(w->head));
	type = pgr_cur_u8(&c);
	return start_message(w, type, pgr_cur_u32(&c), err);
}

static int next_part(struct pgr_wire *w, struct pgr_span *in, struct pgr_wire_msg *msg)
{
	size_t n = in->len < w->left ? in->len : w->left;

	if (n == 0 && w->left > 0)
		return PGR_MORE;
	*msg = (struct pgr_wire_msg){w->type, {in->p, n}, !w->started, n == w->left};
	advance(in, n);
	w->left -= (uint32_t)n;
	w->started = true;
	if (w->left == 0)
		end_message(w);
	return PGR_OK;
}

static int next_whole(struct pgr_wire *w, struct pgr_span *in, struct pgr_wire_msg *msg, struct pgr_err *err)
{
	size_t n = in->len < w->left ? in->len : w->left;
	struct pgr_span data = {in->p, n};

	/* What comes in one piece is shown where it lies.  Memory is taken for bytes that came, not for a claim. */
	if (n < w->left || w->body.len > 0) {
		if (n > 0 && pgr_buf_put(&w->body, in->p, n, err) != PGR_OK)
			return PGR_ERR;
		data = (struct pgr_span){w->body.data, w->body.len};
	}
	advance(in, n);
	w->left -= (uint32_t)n;
	if (w->left > 0)
		return PGR_MORE;
	*msg = (struct pgr_wire_msg){w->type, data, true, true};
	end_message(w);
	return PGR_OK;
}

int pgr_wire_next(struct pgr_wire *w, struct pgr_span *in, struct pgr_wire_msg *msg, struct pgr_err *err)
{
	if (w->type == NULL) {
		int rc = take_head(w, in, err);

		if (rc != PGR_OK)
			return rc;
	}
	return w->type->streamed ? next_part(w, in, msg) : next_whole(w, in, msg, err);
}

uint32_t pgr_wire_body_left(const struct pgr_wire *w)
{
	/* Before the first part was reported nobody knows of the message yet, and its head must not be skipped. */
	return w->type != NULL && w->started ? w->left : 0;
}

void pgr_wire_took(struct pgr_wire *w, uint32_t n)
{
	assert(n <= pgr_wire_body_left(w));
	if (n == 0)
		return;
	w->left -= n;
	if (w->left == 0)
		end_message(w);
}
