#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/session.h"
#include "tests/support/scripted.h"

#define SPAN(literal) ((struct pgr_span){(const uint8_t *)(literal), sizeof(literal) - 1})

/* ---- a session in any state, reached as in life ---- */

/* Feeds all of b, which must lead to exactly one event. */
static void one_event(struct pgr_session *s, struct pgr_buf *b, struct pgr_event *ev)
{
	struct pgr_span in = {b->data, b->len};
	struct pgr_err err;

	ck_assert_int_eq(pgr_session_next(s, &in, ev, &err), PGR_OK);
	ck_assert_uint_eq(in.len, 0);
	b->len = 0;
}

static void receive(struct pgr_session *s, struct pgr_buf *b)
{
	struct pgr_event ev;

	one_event(s, b, &ev);
}

static void reach(struct pgr_session *s, enum pgr_session_state st)
{
	static const char *const cols[] = {"c"};
	struct pgr_buf b = {0}, out = {0};
	struct pgr_err err;

	pgr_session_init(s);
	if (st != PGR_SS_READY)
		ck_assert_int_eq(pgr_session_query(s, &out, SPAN("X"), &err), PGR_OK);
	if (st == PGR_SS_ROWS)
		pgr_msg_row_desc(&b, 1, cols);
	if (st == PGR_SS_COPY_OUT)
		pgr_msg_copy_response(&b, 'H');
	if (st == PGR_SS_COPY_IN)
		pgr_msg_copy_response(&b, 'G');
	if (st == PGR_SS_COPY_BOTH || st == PGR_SS_COPY_SRV_DONE || st == PGR_SS_COPY_CLI_DONE)
		pgr_msg_copy_response(&b, 'W');
	if (st == PGR_SS_FAILED)
		pgr_msg_error(&b, "ERROR", "42601", "syntax error");
	if (st == PGR_SS_CLOSED)
		pgr_msg_error(&b, "FATAL", "57P01", "terminating");
	if (b.len > 0)
		receive(s, &b);
	if (st == PGR_SS_COPY_SRV_DONE) {
		pgr_msg_copy_done(&b);
		receive(s, &b);
	}
	if (st == PGR_SS_COPY_CLI_DONE)
		ck_assert_int_eq(pgr_session_copy_done(s, &out, &err), PGR_OK);
	ck_assert_int_eq(s->state, st);
	pgr_buf_fini(&b);
	pgr_buf_fini(&out);
}

/* ---- every message in every state ---- */

/* One well-formed message per type, and the event it makes (-1: none). */
static const struct {
	char type;
	const char *body;
	size_t len;
	int event;
} samples[] = {
#define MSG(literal) literal, sizeof(literal) - 1
	{'N', MSG("SNOTICE\0VNOTICE\0C00000\0Mm\0\0"), PGR_EV_NOTICE},
	{'S', MSG("name\0value\0"), PGR_EV_PARAM},
	{'A', MSG("\0\0\0\7ch\0p\0"), -1},
	{'E', MSG("SERROR\0VERROR\0C42601\0Mm\0\0"), PGR_EV_ERROR},
	{'T', MSG("\0\0"), PGR_EV_ROW_DESC},
	{'D', MSG("\0\1\0\0\0\1x"), PGR_EV_ROW},
	{'C', MSG("SELECT\0"), PGR_EV_COMPLETE},
	{'I', MSG(""), PGR_EV_COMPLETE},
	{'Z', MSG("I"), PGR_EV_READY},
	{'H', MSG("\0\0\0"), PGR_EV_COPY_OUT},
	{'G', MSG("\0\0\0"), PGR_EV_COPY_IN},
	{'W', MSG("\0\0\0"), PGR_EV_COPY_BOTH},
	{'d', MSG("kdata"), PGR_EV_COPY_DATA},
	{'c', MSG(""), PGR_EV_COPY_DONE},
};
#define SAMPLES (sizeof(samples) / sizeof(samples[0]))

/* Letters for states, in the order of the enum; '.' is "not allowed". */
static const char letters[] = "RBTOIWSLFX";

/* Per state, the next state for N S A E T D C I Z H G W d c. */
static const char *const receives[PGR_SS_STATES] = {
	[PGR_SS_READY] = "RRRX..........",	   [PGR_SS_BUSY] = "BBBFT.BBROIW..",
	[PGR_SS_ROWS] = "TTTF.TBB......",	   [PGR_SS_COPY_OUT] = "OOOF........OB",
	[PGR_SS_COPY_IN] = "IIIF..........",	   [PGR_SS_COPY_BOTH] = "WWWF..BB....WS",
	[PGR_SS_COPY_SRV_DONE] = "SSSF..BB......", [PGR_SS_COPY_CLI_DONE] = "LLLF..BB....LB",
	[PGR_SS_FAILED] = "FFFF....R.....",	   [PGR_SS_CLOSED] = "..............",
};

static void refused(struct pgr_session *s, enum pgr_session_state st, size_t i, const struct pgr_err *err)
{
	char want[64];

	ck_assert_int_eq(err->cls, PGR_E_PROTOCOL);
	ck_assert_int_eq(s->state, PGR_SS_CLOSED);
	snprintf(want, sizeof(want), "in state %s", pgr_session_state_name(st));
	ck_assert_msg(strstr(err->msg, want) != NULL, "%s", err->msg);
	if (st == PGR_SS_CLOSED)
		return;
	snprintf(want, sizeof(want), "%s ('%c', length %zu)", pgr_msg_type_find((uint8_t)samples[i].type)->name,
		 samples[i].type, samples[i].len + 4);
	ck_assert_msg(strstr(err->msg, want) != NULL, "%s", err->msg);
}

static void try_sample(enum pgr_session_state st, size_t i, char next)
{
	struct pgr_buf b = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span in;
	struct pgr_err err;
	int rc;

	reach(&s, st);
	pgr_msg(&b, samples[i].type, samples[i].body, samples[i].len);
	in = (struct pgr_span){b.data, b.len};
	memset(&ev, 0xA5, sizeof(ev));
	rc = pgr_session_next(&s, &in, &ev, &err);
	if (next == '.') {
		ck_assert_msg(rc == PGR_ERR, "'%c' in %s", samples[i].type, pgr_session_state_name(st));
		refused(&s, st, i, &err);
	} else {
		ck_assert_msg(rc == (samples[i].event < 0 ? PGR_MORE : PGR_OK), "'%c' in %s", samples[i].type,
			      pgr_session_state_name(st));
		if (samples[i].event >= 0)
			ck_assert_int_eq((int)ev.kind, samples[i].event);
		ck_assert_uint_eq(in.len, 0);
		ck_assert_msg(s.state == (enum pgr_session_state)(strchr(letters, next) - letters), "'%c' in %s -> %s",
			      samples[i].type, pgr_session_state_name(st), pgr_session_state_name(s.state));
	}
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
}

START_TEST(every_pair)
{
	ck_assert_uint_eq(strlen(receives[_i]), SAMPLES);
	for (size_t i = 0; i < SAMPLES; i++)
		try_sample((enum pgr_session_state)_i, i, receives[_i][i]);
}
END_TEST

/* What is not allowed is refused by its head, however much of it came with it: nothing is gathered for long. */
static void refuse_early(enum pgr_session_state st, size_t i, size_t bytes)
{
	struct pgr_buf b = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span in;
	struct pgr_err err;

	reach(&s, st);
	pgr_msg(&b, samples[i].type, samples[i].body, samples[i].len);
	in = (struct pgr_span){b.data, bytes};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_ERR);
	refused(&s, st, i, &err);
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
}

START_TEST(refused_by_head)
{
	for (size_t i = 0; i < SAMPLES; i++)
		for (size_t bytes = 5; bytes < 5 + samples[i].len; bytes++)
			if (receives[_i][i] == '.')
				refuse_early((enum pgr_session_state)_i, i, bytes);
}
END_TEST

/* FATAL ends the session from any state, with its text. */
START_TEST(fatal)
{
	struct pgr_buf b = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span none = {NULL, 0}, in;
	struct pgr_err err;

	if (_i == PGR_SS_CLOSED)
		return;
	reach(&s, (enum pgr_session_state)_i);
	pgr_msg_error(&b, "FATAL", "57P01", "terminating connection due to administrator command");
	one_event(&s, &b, &ev);
	ck_assert_int_eq(ev.kind, PGR_EV_ERROR);
	ck_assert(pgr_span_is(ev.fields.code, "57P01"));
	ck_assert_int_eq(s.state, PGR_SS_CLOSED);
	ck_assert_int_eq(pgr_session_next(&s, &none, &ev, &err), PGR_MORE);
	pgr_msg_ready(&b);
	in = (struct pgr_span){b.data, b.len};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- every command of ours in every state ---- */

enum { QUERY, DATA, DONE, FAIL, TERMINATE, SENDS };

static const char *const sends[PGR_SS_STATES] = {
	[PGR_SS_READY] = "B...X",	  [PGR_SS_BUSY] = "....X",	    [PGR_SS_ROWS] = "....X",
	[PGR_SS_COPY_OUT] = "....X",	  [PGR_SS_COPY_IN] = ".IBBX",	    [PGR_SS_COPY_BOTH] = ".WL.X",
	[PGR_SS_COPY_SRV_DONE] = ".SB.X", [PGR_SS_COPY_CLI_DONE] = "....X", [PGR_SS_FAILED] = "....X",
	[PGR_SS_CLOSED] = ".....",
};

static const struct {
	const char *frame;
	size_t len;
} frames[SENDS] = {
	[QUERY] = {MSG("Q\0\0\0\7SQ\0")},  [DATA] = {MSG("d\0\0\0\7a\0c")},  [DONE] = {MSG("c\0\0\0\4")},
	[FAIL] = {MSG("f\0\0\0\10why\0")}, [TERMINATE] = {MSG("X\0\0\0\4")},
};

static int send_one(struct pgr_session *s, struct pgr_buf *out, int what, struct pgr_err *err)
{
	switch (what) {
	case QUERY:
		return pgr_session_query(s, out, SPAN("SQ"), err);
	case DATA:
		return pgr_session_copy_data(s, out, SPAN("a\0c"), err);
	case DONE:
		return pgr_session_copy_done(s, out, err);
	case FAIL:
		return pgr_session_copy_fail(s, out, "why", err);
	default:
		return pgr_session_terminate(s, out, err);
	}
}

START_TEST(every_send)
{
	for (int what = 0; what < SENDS; what++) {
		char next = sends[_i][what];
		struct pgr_buf out = {0};
		struct pgr_session s;
		struct pgr_err err;
		int rc;

		reach(&s, (enum pgr_session_state)_i);
		ck_assert_int_eq(pgr_buf_puts(&out, "abc", &err), PGR_OK);
		rc = send_one(&s, &out, what, &err);
		ck_assert_int_eq(rc, next == '.' ? PGR_ERR : PGR_OK);
		if (next == '.') {
			ck_assert_int_eq(err.cls, PGR_E_USAGE);
			ck_assert_ptr_nonnull(strstr(err.msg, pgr_session_state_name((enum pgr_session_state)_i)));
			ck_assert_uint_eq(out.len, 3);
			ck_assert_int_eq((int)s.state, _i);
		} else {
			ck_assert_uint_eq(out.len, 3 + frames[what].len);
			ck_assert_int_eq(memcmp(out.data + 3, frames[what].frame, frames[what].len), 0);
			ck_assert_int_eq((int)s.state, (int)(strchr(letters, next) - letters));
		}
		pgr_buf_fini(&out);
		pgr_session_fini(&s);
	}
}
END_TEST

/* A frame that cannot be built leaves buffer and state as they were. */
START_TEST(send_no_room)
{
	static const enum pgr_session_state from[SENDS] = {PGR_SS_READY, PGR_SS_COPY_BOTH, PGR_SS_COPY_BOTH,
							   PGR_SS_COPY_IN, PGR_SS_READY};

	for (int what = 0; what < SENDS; what++)
		for (size_t limit = 3; limit < 3 + frames[what].len; limit++) {
			struct pgr_buf out = {.limit = limit};
			struct pgr_session s;
			struct pgr_err err;

			reach(&s, from[what]);
			ck_assert_int_eq(pgr_buf_puts(&out, "abc", &err), PGR_OK);
			ck_assert_int_eq(send_one(&s, &out, what, &err), PGR_ERR);
			ck_assert_uint_eq(out.len, 3);
			ck_assert_int_eq(s.state, from[what]);
			pgr_buf_fini(&out);
			pgr_session_fini(&s);
		}
}
END_TEST

START_TEST(send_refused)
{
	struct pgr_span huge = SPAN("x"); /* its length is looked at before its bytes */
	struct pgr_buf out = {0};
	struct pgr_session s;
	struct pgr_err err;

	huge.len = ((size_t)1 << 30) + 1;
	reach(&s, PGR_SS_READY);
	/* what follows a NUL would be another message for the server */
	ck_assert_int_eq(pgr_session_query(&s, &out, SPAN("SHOW a\0X"), &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_session_query(&s, &out, SPAN("\0"), &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_session_query(&s, &out, huge, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(s.state, PGR_SS_READY);
	pgr_session_fini(&s);
	reach(&s, PGR_SS_COPY_BOTH);
	ck_assert_int_eq(pgr_session_copy_data(&s, &out, huge, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(s.state, PGR_SS_COPY_BOTH);
	ck_assert_uint_eq(out.len, 0);
	pgr_session_fini(&s);
}
END_TEST

/* Commands sent ahead: each has its own end, and an error of one does not touch the next. */
START_TEST(query_ahead)
{
	static const char answer[] = "C\0\0\0\6A\0"
				     "Z\0\0\0\5I"
				     "E\0\0\0\5\0"
				     "Z\0\0\0\5I"
				     "C\0\0\0\6B\0"
				     "Z\0\0\0\5I";
	static const enum pgr_event_kind events[] = {PGR_EV_COMPLETE, PGR_EV_READY,    PGR_EV_ERROR,
						     PGR_EV_READY,    PGR_EV_COMPLETE, PGR_EV_READY};
	static const enum pgr_session_state states[] = {PGR_SS_BUSY, PGR_SS_BUSY, PGR_SS_FAILED,
							PGR_SS_BUSY, PGR_SS_BUSY, PGR_SS_READY};
	struct pgr_span in = {(const uint8_t *)answer, sizeof(answer) - 1};
	struct pgr_buf out = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_err err;

	reach(&s, PGR_SS_READY);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pgr_session_query_ahead(&s, &out, SPAN("SQ"), &err), PGR_OK);
	ck_assert_uint_eq(out.len, 3 * frames[QUERY].len);
	for (size_t i = 0; i < 6; i++) {
		ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_OK);
		ck_assert_int_eq(ev.kind, events[i]);
		ck_assert_int_eq(s.state, states[i]);
	}
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_MORE);
	pgr_session_fini(&s);
	pgr_buf_fini(&out);
}
END_TEST

/* Where the server would take a command for something else, none is sent ahead. */
START_TEST(query_ahead_refused)
{
	static const enum pgr_session_state none[] = {PGR_SS_COPY_IN, PGR_SS_COPY_BOTH, PGR_SS_COPY_SRV_DONE,
						      PGR_SS_COPY_CLI_DONE, PGR_SS_CLOSED};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		struct pgr_buf out = {0};
		struct pgr_session s;
		struct pgr_err err;

		reach(&s, none[i]);
		ck_assert_int_eq(pgr_session_query_ahead(&s, &out, SPAN("SQ"), &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_USAGE);
		ck_assert_uint_eq(out.len, 0);
		ck_assert_int_eq(s.state, none[i]);
		pgr_session_fini(&s);
		pgr_buf_fini(&out);
	}
}
END_TEST

/* ---- whole exchanges, in any pieces ---- */

/*
 * A script: what the server sends, and what we send when an event was seen for the nth time.  The transcript names the
 * events; a CopyData body shows as one, however many parts it had.
 */
struct reaction {
	enum pgr_event_kind after;
	unsigned nth;
	int what; /* QUERY, DATA ... */
};

struct script {
	const char *name;
	void (*server)(struct pgr_buf *b);
	struct reaction reactions[3];
	const char *transcript;
	enum pgr_session_state end;
};

struct player {
	const struct script *script;
	struct pgr_session s;
	struct pgr_buf text, out;
	unsigned seen[PGR_EV_WAKE + 1];
};

static void say(struct player *p, const char *before, struct pgr_span s, const char *after)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_puts(&p->text, before, &err), PGR_OK);
	if (s.len > 0)
		ck_assert_int_eq(pgr_buf_put(&p->text, s.p, s.len, &err), PGR_OK);
	ck_assert_int_eq(pgr_buf_puts(&p->text, after, &err), PGR_OK);
}

static void say_event(struct player *p, const struct pgr_event *ev)
{
	const struct pgr_span none = {NULL, 0};

	switch (ev->kind) {
	case PGR_EV_NOTICE:
		say(p, "notice(", ev->fields.message, ") ");
		break;
	case PGR_EV_PARAM:
		say(p, "param(", ev->param.name, "=");
		say(p, "", ev->param.value, ") ");
		break;
	case PGR_EV_ERROR:
		say(p, "error(", ev->fields.code, ") ");
		break;
	case PGR_EV_ROW_DESC:
		say(p, "desc(", pgr_rowdesc_name(&ev->rowdesc, 0), ") ");
		break;
	case PGR_EV_ROW:
		say(p, "row(", pgr_row_col(&ev->row, 0), ") ");
		break;
	case PGR_EV_COMPLETE:
		say(p, "complete(", ev->tag, ") ");
		break;
	case PGR_EV_COPY_OUT:
		say(p, "copy_out ", none, "");
		break;
	case PGR_EV_COPY_IN:
		say(p, "copy_in ", none, "");
		break;
	case PGR_EV_COPY_BOTH:
		say(p, "copy_both ", none, "");
		break;
	case PGR_EV_COPY_DATA:
		say(p, ev->part.first ? "data(" : "", ev->part.data, ev->part.last ? ") " : "");
		break;
	case PGR_EV_COPY_DONE:
		say(p, "done ", none, "");
		break;
	case PGR_EV_READY:
		say(p, "ready(", (struct pgr_span){(const uint8_t *)&ev->tx_status, 1}, ") ");
		break;
	default:
		ck_abort_msg("event %d is not the session's", (int)ev->kind);
	}
}

static void react(struct player *p, const struct pgr_event *ev)
{
	struct pgr_err err;

	if (ev->kind == PGR_EV_COPY_DATA && !ev->part.last)
		return; /* whole bodies count */
	p->seen[ev->kind]++;
	for (size_t i = 0; i < 3; i++) {
		const struct reaction *r = &p->script->reactions[i];

		if (r->nth > 0 && r->after == ev->kind && r->nth == p->seen[ev->kind])
			ck_assert_int_eq(send_one(&p->s, &p->out, r->what, &err), PGR_OK);
	}
}

static int feed(struct player *p, const uint8_t *bytes, size_t n)
{
	uint8_t *piece = malloc(n); /* of exactly its size, for ASan */
	struct pgr_span in = {piece, n};
	struct pgr_event ev;
	struct pgr_err err;
	int rc;

	ck_assert_ptr_nonnull(piece);
	memcpy(piece, bytes, n);
	while ((rc = pgr_session_next(&p->s, &in, &ev, &err)) == PGR_OK) {
		say_event(p, &ev);
		react(p, &ev);
	}
	if (rc == PGR_ERR)
		say(p, "VIOLATION ", (struct pgr_span){NULL, 0}, "");
	free(piece);
	return rc;
}

/* Plays a script in pieces of at most `chunk` bytes (0: any) with a border at `split`. */
static void play(const struct script *script, const struct pgr_buf *bytes, size_t chunk, size_t split)
{
	struct player p = {.script = script};
	struct pgr_err err;

	pgr_session_init(&p.s);
	ck_assert_int_eq(pgr_session_query(&p.s, &p.out, SPAN("X"), &err), PGR_OK);
	for (size_t pos = 0; pos < bytes->len;) {
		size_t n = bytes->len - pos;

		if (chunk > 0 && n > chunk)
			n = chunk;
		if (pos < split && pos + n > split)
			n = split - pos;
		if (feed(&p, bytes->data + pos, n) == PGR_ERR)
			break;
		pos += n;
	}
	ck_assert_str_eq(pgr_buf_str(&p.text), script->transcript);
	ck_assert_int_eq(p.s.state, script->end);
	pgr_session_fini(&p.s);
	pgr_buf_fini(&p.text);
	pgr_buf_fini(&p.out);
}

static const char *const one_name[] = {"name"};
static const char *const one_value[] = {"value"};
static const char *const one_null[] = {NULL};

static void rows_with_interruptions(struct pgr_buf *b)
{
	pgr_msg_notice(b, "NOTICE", "00000", "n1");
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_value);
	pgr_msg(b, 'S', "in_hot_standby\0off", 19);
	pgr_msg(b, 'A', "\0\0\0\1c\0", 7); /* malformed, and nobody's business */
	pgr_msg_row(b, 1, one_null);
	pgr_msg_complete(b, "SELECT 2");
	pgr_msg_ready(b);
	pgr_msg_notice(b, "WARNING", "01000", "idle");
}

static void base_backup_15(struct pgr_buf *b)
{
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_value);
	pgr_msg_complete(b, "SELECT");
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_null);
	pgr_msg_complete(b, "SELECT");
	pgr_msg_copy_response(b, 'H');
	pgr_msg_copy_data(b, "nbase.tar", 9);
	pgr_msg_copy_data(b, "dxyz", 4);
	pgr_msg_notice(b, "WARNING", "01000", "checksum");
	pgr_msg_copy_data(b, "", 0);
	pgr_msg_copy_data(b, "m", 1);
	pgr_msg_copy_done(b);
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_value);
	pgr_msg_complete(b, "SELECT");
	pgr_msg_error(b, "ERROR", "XX001", "checksum verification failure during base backup");
	pgr_msg_ready(b);
}

static void base_backup_old(struct pgr_buf *b)
{
	for (int i = 0; i < 2; i++) {
		pgr_msg_copy_response(b, 'H');
		pgr_msg_copy_data(b, "tar", 3);
		pgr_msg_copy_done(b);
	}
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_value);
	pgr_msg_complete(b, "SELECT");
	pgr_msg_complete(b, "BASE_BACKUP");
	pgr_msg_ready(b);
}

/* End of a historic timeline: the server's CopyDone, ours, the next timeline, two CommandCompletes. */
static void timeline_end(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'W');
	pgr_msg_copy_data(b, "wal", 3);
	pgr_msg_copy_done(b);
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_row(b, 1, one_value);
	pgr_msg_complete(b, "START_STREAMING");
	pgr_msg_complete(b, "START_REPLICATION");
	pgr_msg_ready(b);
}

/* We stop: what was under way still comes. */
static void client_stop(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'W');
	pgr_msg_copy_data(b, "wal1", 4);
	pgr_msg_copy_data(b, "wal2", 4);
	pgr_msg_copy_data(b, "wal3", 4);
	pgr_msg_copy_done(b);
	pgr_msg_complete(b, "START_STREAMING");
	pgr_msg_complete(b, "START_REPLICATION");
	pgr_msg_ready(b);
}

/* The server shuts down: CommandComplete in the middle of the stream. */
static void shutdown_server(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'W');
	pgr_msg_copy_data(b, "wal1", 4);
	pgr_msg_complete(b, "COPY 0");
}

static void late_error(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'W');
	pgr_msg_error(b, "ERROR", "58P01", "requested WAL segment has already been removed");
	pgr_msg_error(b, "FATAL", "57P01", "terminating");
}

static void upload(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'G');
	pgr_msg_complete(b, "UPLOAD_MANIFEST");
	pgr_msg_ready(b);
}

static void upload_refused(struct pgr_buf *b)
{
	pgr_msg_copy_response(b, 'G');
	pgr_msg_error(b, "ERROR", "22023", "manifest");
	pgr_msg_ready(b);
	pgr_msg(b, 'I', NULL, 0);
	pgr_msg(b, 'Z', "T", 1);
}

static void row_without_description(struct pgr_buf *b)
{
	pgr_msg_row_desc(b, 1, one_name);
	pgr_msg_complete(b, "SELECT");
	pgr_msg_row(b, 1, one_value);
}

static const struct script scripts[] = {
	{"rows",
	 rows_with_interruptions,
	 {{0}},
	 "notice(n1) desc(name) row(value) param(in_hot_standby=off) row() complete(SELECT 2) ready(I) notice(idle) ",
	 PGR_SS_READY},
	{"base backup, 15",
	 base_backup_15,
	 {{0}},
	 "desc(name) row(value) complete(SELECT) desc(name) row() complete(SELECT) copy_out data(nbase.tar) data(dxyz) "
	 "notice(checksum) data() data(m) done desc(name) row(value) complete(SELECT) error(XX001) ready(I) ",
	 PGR_SS_READY},
	{"base backup, before 15",
	 base_backup_old,
	 {{0}},
	 "copy_out data(tar) done copy_out data(tar) done desc(name) row(value) complete(SELECT) complete(BASE_BACKUP) "
	 "ready(I) ",
	 PGR_SS_READY},
	{"end of a timeline",
	 timeline_end,
	 {{PGR_EV_COPY_BOTH, 1, DATA}, {PGR_EV_COPY_DONE, 1, DATA}, {PGR_EV_COPY_DONE, 1, DONE}},
	 "copy_both data(wal) done desc(name) row(value) complete(START_STREAMING) complete(START_REPLICATION) "
	 "ready(I) ",
	 PGR_SS_READY},
	{"we stop",
	 client_stop,
	 {{PGR_EV_COPY_DATA, 1, DONE}},
	 "copy_both data(wal1) data(wal2) data(wal3) done complete(START_STREAMING) complete(START_REPLICATION) "
	 "ready(I) ",
	 PGR_SS_READY},
	{"shutdown", shutdown_server, {{0}}, "copy_both data(wal1) complete(COPY 0) ", PGR_SS_BUSY},
	{"shutdown while we stop",
	 shutdown_server,
	 {{PGR_EV_COPY_DATA, 1, DONE}},
	 "copy_both data(wal1) complete(COPY 0) ",
	 PGR_SS_BUSY},
	{"error in the stream", late_error, {{0}}, "copy_both error(58P01) error(57P01) ", PGR_SS_CLOSED},
	{"upload",
	 upload,
	 {{PGR_EV_COPY_IN, 1, DATA}, {PGR_EV_COPY_IN, 1, DONE}},
	 "copy_in complete(UPLOAD_MANIFEST) ready(I) ",
	 PGR_SS_READY},
	{"upload that fails",
	 upload_refused,
	 {{PGR_EV_COPY_IN, 1, DATA}, {PGR_EV_READY, 1, QUERY}},
	 "copy_in error(22023) ready(I) complete() ready(T) ",
	 PGR_SS_READY},
	{"upload that we give up",
	 upload_refused,
	 {{PGR_EV_COPY_IN, 1, FAIL}, {PGR_EV_READY, 1, QUERY}},
	 "copy_in error(22023) ready(I) complete() ready(T) ",
	 PGR_SS_READY},
	{"upload completed too early", upload, {{0}}, "copy_in VIOLATION ", PGR_SS_CLOSED},
	{"timeline without our CopyDone", timeline_end, {{0}}, "copy_both data(wal) done VIOLATION ", PGR_SS_CLOSED},
	{"row without description",
	 row_without_description,
	 {{0}},
	 "desc(name) complete(SELECT) VIOLATION ",
	 PGR_SS_CLOSED},
};

START_TEST(exchanges)
{
	struct pgr_buf b = {0};

	scripts[_i].server(&b);
	for (size_t chunk = 0; chunk <= 7; chunk++)
		play(&scripts[_i], &b, chunk, 0);
	for (size_t split = 1; split < b.len; split++)
		play(&scripts[_i], &b, 0, split);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- what is inside the messages ---- */

static const struct {
	enum pgr_session_state st;
	char type;
	const char *body;
	size_t len;
} malformed[] = {
	{PGR_SS_READY, 'N', MSG("Sx\0")},
	{PGR_SS_READY, 'S', MSG("name\0value")},
	{PGR_SS_BUSY, 'E', MSG("Sx")},
	{PGR_SS_BUSY, 'T', MSG("\0\1")},
	{PGR_SS_ROWS, 'D', MSG("\0\1\0\0\0\2x")},
	{PGR_SS_ROWS, 'C', MSG("SELECT")},
	{PGR_SS_ROWS, 'C', MSG("SELECT\0\0")},
	{PGR_SS_BUSY, 'Z', MSG("x")},
	{PGR_SS_BUSY, 'H', MSG("\3\0\0")},
	{PGR_SS_BUSY, 'G', MSG("\0\0\1")},
	{PGR_SS_BUSY, 'W', MSG("\0\0\0\0")},
	{PGR_SS_BUSY, 'R', MSG("\0\0\0\0")},	     /* Authentication: before the take-over */
	{PGR_SS_BUSY, 'K', MSG("\0\0\0\1\0\0\0\2")}, /* BackendKeyData */
	{PGR_SS_BUSY, 'v', MSG("\0\0\0\0\0\0\0\0")}, /* NegotiateProtocolVersion */
	{PGR_SS_BUSY, '1', MSG("")},		     /* ParseComplete: extended protocol */
	{PGR_SS_BUSY, 'c', MSG("x")},		     /* a length that its type does not have */
};

START_TEST(bodies)
{
	struct pgr_buf b = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span in;
	struct pgr_err err;

	reach(&s, malformed[_i].st);
	pgr_msg(&b, malformed[_i].type, malformed[_i].body, malformed[_i].len);
	in = (struct pgr_span){b.data, b.len};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_ptr_nonnull(strstr(err.msg, pgr_session_state_name(malformed[_i].st)));
	ck_assert_int_eq(s.state, PGR_SS_CLOSED);
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
}
END_TEST

/* Lack of memory is not the server's fault, but as final. */
START_TEST(no_room)
{
	static const char *const cols[] = {"a name that is longer than the room"};
	struct pgr_buf b = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span in;
	struct pgr_err err;

	reach(&s, PGR_SS_BUSY);
	s.wire.body.limit = 10;
	pgr_msg_row_desc(&b, 1, cols);
	in = (struct pgr_span){b.data, b.len - 1};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_int_eq(s.state, PGR_SS_CLOSED);
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- the body of a CopyData, received elsewhere ---- */

START_TEST(copy_data_taken)
{
	struct pgr_buf b = {0}, out = {0};
	struct pgr_session s;
	struct pgr_event ev;
	struct pgr_span in;
	struct pgr_err err;

	reach(&s, PGR_SS_COPY_BOTH);
	pgr_msg_copy_data(&b, "head payload", 12);
	in = (struct pgr_span){b.data, 5 + 4};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_OK);
	ck_assert(ev.kind == PGR_EV_COPY_DATA && ev.part.first && !ev.part.last);
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_MORE);
	/* our CopyDone, in the middle of a message of the server, takes nothing from it */
	ck_assert_int_eq(pgr_session_copy_done(&s, &out, &err), PGR_OK);
	ck_assert_uint_eq(pgr_wire_body_left(&s.wire), 8);
	pgr_wire_took(&s.wire, 7);
	in = (struct pgr_span){b.data + 16, 1};
	ck_assert_int_eq(pgr_session_next(&s, &in, &ev, &err), PGR_OK);
	ck_assert(ev.kind == PGR_EV_COPY_DATA && !ev.part.first && ev.part.last);
	ck_assert_int_eq(s.state, PGR_SS_COPY_CLI_DONE);
	pgr_session_fini(&s);
	pgr_buf_fini(&b);
	pgr_buf_fini(&out);
}
END_TEST

/* ---- the end of the socket ---- */

START_TEST(eof)
{
	static const struct {
		enum pgr_session_state st;
		size_t bytes; /* of "d\0\0\0\x0Bpayload" */
		const char *says;
	} cases[] = {
		{PGR_SS_READY, 0, NULL},
		{PGR_SS_COPY_BOTH, 0, NULL},
		{PGR_SS_CLOSED, 0, NULL},
		{PGR_SS_COPY_BOTH, 1, "in the head of a message (state COPY_BOTH)"},
		{PGR_SS_COPY_BOTH, 4, "in the head"},
		{PGR_SS_COPY_BOTH, 5, "in the middle of a message CopyData ('d'), 7 bytes were still to come"},
		{PGR_SS_COPY_BOTH, 11, "1 bytes were still to come (state COPY_BOTH)"},
		{PGR_SS_COPY_BOTH, 12, NULL},
	};
	static const char plain[] = "server closed the connection unexpectedly";

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_span in = {(const uint8_t *)"d\0\0\0\13payload", cases[i].bytes};
		struct pgr_session s;
		struct pgr_event ev;
		struct pgr_err err;

		reach(&s, cases[i].st);
		while (pgr_session_next(&s, &in, &ev, &err) == PGR_OK)
			;
		ck_assert_int_eq(pgr_session_eof(&s, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_NETWORK);
		ck_assert_int_eq(s.state, PGR_SS_CLOSED);
		if (cases[i].says == NULL) {
			ck_assert_str_eq(err.msg, plain);
		} else {
			ck_assert_int_eq(strncmp(err.msg, plain, sizeof(plain) - 1), 0);
			ck_assert_msg(strstr(err.msg, cases[i].says) != NULL, "%s", err.msg);
		}
		pgr_session_fini(&s);
	}
}
END_TEST

START_TEST(state_names)
{
	for (int i = 0; i < PGR_SS_STATES; i++) {
		ck_assert_ptr_nonnull(pgr_session_state_name((enum pgr_session_state)i));
		for (int j = 0; j < i; j++)
			ck_assert_str_ne(pgr_session_state_name((enum pgr_session_state)i),
					 pgr_session_state_name((enum pgr_session_state)j));
	}
	ck_assert_str_eq(pgr_session_state_name(PGR_SS_STATES), "?");
	ck_assert_str_eq(pgr_session_state_name((enum pgr_session_state) - 1), "?");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("session");
	TCase *tc = tcase_create("session");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, every_pair, 0, PGR_SS_STATES);
	tcase_add_loop_test(tc, refused_by_head, 0, PGR_SS_STATES);
	tcase_add_loop_test(tc, fatal, 0, PGR_SS_STATES);
	tcase_add_loop_test(tc, every_send, 0, PGR_SS_STATES);
	tcase_add_test(tc, send_no_room);
	tcase_add_test(tc, send_refused);
	tcase_add_test(tc, query_ahead);
	tcase_add_test(tc, query_ahead_refused);
	tcase_add_loop_test(tc, exchanges, 0, (int)(sizeof(scripts) / sizeof(scripts[0])));
	tcase_add_loop_test(tc, bodies, 0, (int)(sizeof(malformed) / sizeof(malformed[0])));
	tcase_add_test(tc, no_room);
	tcase_add_test(tc, copy_data_taken);
	tcase_add_test(tc, eof);
	tcase_add_test(tc, state_names);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
