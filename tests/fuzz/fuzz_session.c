/*
 * A server that says anything, in any pieces.  The first byte seeds the sizes of the pieces, the second chooses what
 * the client does when, the rest is what the server sends after the first command.
 *
 * The session is played three times: all bytes at once; in pieces; in pieces with the bodies of CopyData received
 * elsewhere (pgr_wire_took).  What was seen must be the same each time, errors and their texts included.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/session.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum { WHOLE, PIECES, PIECES_TAKEN, WAYS };

/* The second byte: what the client does. */
#define COMMAND_WHEN_READY 0x80 /* sends another command at each ReadyForQuery */
#define FAIL_COPY_IN	   0x40 /* gives a COPY IN up */
#define DONE_AFTER	   0x0F /* sends CopyDone after so many bodies of CopyData in this COPY, 0: after the server's */

struct player {
	struct pgr_session s;
	struct pgr_buf out;
	unsigned behaviour;
	bool take;
	unsigned bodies; /* of CopyData, in this COPY */
	uint64_t digest; /* FNV-1a of all that was seen */
	uint32_t random;
};

static void see_bytes(struct player *p, const void *bytes, size_t n)
{
	const unsigned char *b = bytes;

	for (size_t i = 0; i < n; i++)
		p->digest = (p->digest ^ b[i]) * 1099511628211u;
}

static void see_number(struct player *p, uint64_t n)
{
	see_bytes(p, &n, sizeof(n));
}

static void see_span(struct player *p, struct pgr_span s)
{
	see_number(p, s.p == NULL ? UINT64_MAX : s.len);
	if (s.len > 0)
		see_bytes(p, s.p, s.len);
}

static void see_err(struct player *p, const struct pgr_err *err)
{
	see_number(p, err->cls);
	see_bytes(p, err->msg, strlen(err->msg));
	see_bytes(p, err->sqlstate, strlen(err->sqlstate));
}

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* ---- the client ---- */

static void send_command(struct player *p)
{
	struct pgr_span text = {(const uint8_t *)"X", 1};
	struct pgr_err err;

	insist(pgr_session_query(&p->s, &p->out, text, &err) == PGR_OK);
}

/* CopyDone where the state allows one; where it does not, it must say so and change nothing. */
static void send_done(struct player *p)
{
	enum pgr_session_state before = p->s.state;
	bool may = before == PGR_SS_COPY_IN || before == PGR_SS_COPY_BOTH || before == PGR_SS_COPY_SRV_DONE;
	size_t len = p->out.len;
	struct pgr_err err;

	insist(pgr_session_copy_done(&p->s, &p->out, &err) == (may ? PGR_OK : PGR_ERR));
	insist(may ? p->out.len == len + 5 : p->out.len == len && p->s.state == before);
}

static void body_ended(struct player *p)
{
	see_number(p, ')');
	if (++p->bodies == (p->behaviour & DONE_AFTER) && p->s.state == PGR_SS_COPY_BOTH)
		send_done(p);
}

static void react(struct player *p, const struct pgr_event *ev)
{
	struct pgr_err err;

	switch (ev->kind) {
	case PGR_EV_READY:
		if (p->behaviour & COMMAND_WHEN_READY)
			send_command(p);
		break;
	case PGR_EV_COPY_IN:
		if (p->behaviour & FAIL_COPY_IN)
			insist(pgr_session_copy_fail(&p->s, &p->out, "no", &err) == PGR_OK);
		else
			send_done(p);
		break;
	case PGR_EV_COPY_OUT:
	case PGR_EV_COPY_BOTH:
		p->bodies = 0;
		break;
	case PGR_EV_COPY_DONE:
		if ((p->behaviour & DONE_AFTER) == 0)
			send_done(p);
		break;
	default:
		break;
	}
}

/* ---- what is seen ---- */

static void see_fields(struct player *p, const struct pgr_fields *f)
{
	struct pgr_buf text = {0};
	struct pgr_err err;

	insist(pgr_fields_text(f, &text, &err) == PGR_OK);
	insist(text.len > 0 && text.data[text.len - 1] == '\n');
	for (size_t i = 0; i < text.len; i++)
		insist(text.data[i] >= 0x20 || text.data[i] == '\n' || text.data[i] == '\t');
	see_bytes(p, text.data, text.len);
	pgr_buf_fini(&text);
	insist(pgr_fields_to_err(f, &err) == PGR_ERR);
	insist(err.cls == PGR_E_SERVER && strlen(err.sqlstate) == 5);
	insist(err.fatal == pgr_fields_fatal(f));
	see_err(p, &err);
}

static void see_columns(struct player *p, const struct pgr_event *ev)
{
	unsigned n = ev->kind == PGR_EV_ROW ? ev->row.ncols : ev->rowdesc.ncols;

	see_number(p, n);
	for (unsigned i = 0; i < n && i < 300; i++) {
		if (ev->kind == PGR_EV_ROW) {
			see_span(p, pgr_row_col(&ev->row, i));
		} else {
			see_span(p, pgr_rowdesc_name(&ev->rowdesc, i));
			see_number(p, pgr_rowdesc_type(&ev->rowdesc, i));
		}
	}
}

static void see_part(struct player *p, const struct pgr_wire_msg *part)
{
	if (part->first)
		see_number(p, '(');
	if (part->data.len > 0)
		see_bytes(p, part->data.p, part->data.len);
	insist(part->last == (pgr_wire_body_left(&p->s.wire) == 0));
	if (part->last)
		body_ended(p);
}

static void see(struct player *p, const struct pgr_event *ev)
{
	if (ev->kind != PGR_EV_COPY_DATA) {
		see_number(p, ev->kind);
		see_number(p, p->s.state);
	}
	switch (ev->kind) {
	case PGR_EV_ERROR:
		insist(!pgr_fields_fatal(&ev->fields) || p->s.state == PGR_SS_CLOSED);
		see_fields(p, &ev->fields);
		break;
	case PGR_EV_NOTICE:
		see_fields(p, &ev->fields);
		break;
	case PGR_EV_PARAM:
		see_span(p, ev->param.name);
		see_span(p, ev->param.value);
		break;
	case PGR_EV_ROW_DESC:
	case PGR_EV_ROW:
		see_columns(p, ev);
		break;
	case PGR_EV_COMPLETE:
		see_span(p, ev->tag);
		break;
	case PGR_EV_COPY_DATA:
		see_part(p, &ev->part);
		break;
	case PGR_EV_READY:
		see_number(p, (unsigned char)ev->tx_status);
		break;
	default:
		insist(ev->kind < PGR_EV_TIMEOUT);
	}
}

/* Receives some of the body that is under way as a reader with memory of its own does. */
static void take(struct player *p, struct pgr_span *in)
{
	size_t n = pgr_wire_body_left(&p->s.wire);

	if (n > in->len)
		n = in->len;
	if (!p->take || n == 0)
		return;
	see_bytes(p, in->p, n);
	in->p += n;
	in->len -= n;
	pgr_wire_took(&p->s.wire, (uint32_t)n);
	if (pgr_wire_body_left(&p->s.wire) == 0)
		body_ended(p);
}

/* Feeds one piece out of memory of its own, which is gone afterwards.  False: the session is over. */
static bool feed(struct player *p, const unsigned char *bytes, size_t n)
{
	unsigned char *piece = malloc(n > 0 ? n : 1);
	struct pgr_span in = {piece, n};
	struct pgr_event ev;
	struct pgr_err err;
	int rc;

	insist(piece != NULL);
	if (n > 0)
		memcpy(piece, bytes, n);
	take(p, &in);
	while ((rc = pgr_session_next(&p->s, &in, &ev, &err)) == PGR_OK) {
		see(p, &ev);
		react(p, &ev);
		take(p, &in);
	}
	if (rc == PGR_ERR) {
		insist(p->s.state == PGR_SS_CLOSED && err.cls == PGR_E_PROTOCOL);
		see_err(p, &err);
	} else {
		insist(in.len == 0);
	}
	free(piece);
	return rc == PGR_MORE;
}

static size_t piece_size(struct player *p, size_t left)
{
	size_t n;

	p->random = p->random * 1664525u + 1013904223u;
	n = (p->random >> 24) < 128 ? 1 + (p->random >> 16) % 7 : 1 + (p->random >> 8) % 4096;
	return n < left ? n : left;
}

static uint64_t play(int way, unsigned seed, unsigned behaviour, const unsigned char *bytes, size_t size)
{
	struct player p = {
		.behaviour = behaviour, .take = way == PIECES_TAKEN, .digest = 14695981039346656037u, .random = seed};
	struct pgr_err err;
	bool more = true;

	pgr_session_init(&p.s);
	send_command(&p);
	for (size_t pos = 0; more && pos < size;) {
		size_t n = way == WHOLE ? size - pos : piece_size(&p, size - pos);

		more = feed(&p, bytes + pos, n);
		pos += n;
	}
	if (more) {
		see_number(&p, p.s.state);
		insist(pgr_session_eof(&p.s, &err) == PGR_ERR && err.cls == PGR_E_NETWORK);
		see_err(&p, &err);
	}
	pgr_session_fini(&p.s);
	pgr_buf_fini(&p.out);
	return p.digest;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	uint64_t seen[WAYS];

	if (size < 2)
		return 0;
	for (int way = 0; way < WAYS; way++)
		seen[way] = play(way, data[0], data[1], data + 2, size - 2);
	insist(seen[PIECES] == seen[WHOLE] && seen[PIECES_TAKEN] == seen[WHOLE]);
	return 0;
}
