#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/wire.h"
#include "tests/support/scripted.h"

#define MIB (1024u * 1024u)

/* What a stream of bytes means, in a form in which the pieces it came in do not show. */
struct transcript {
	struct pgr_buf text;
	bool inside; /* of a streamed body */
};

static void say(struct transcript *t, const char *fmt, ...) PGR_PRINTF(2, 3);
static void say(struct transcript *t, const char *fmt, ...)
{
	struct pgr_err err;
	char line[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(pgr_buf_puts(&t->text, line, &err), PGR_OK);
}

static void note(struct transcript *t, const struct pgr_wire_msg *m)
{
	ck_assert_int_eq(m->first, !t->inside);
	if (m->first)
		say(t, "%s:", m->type->name);
	for (size_t i = 0; i < m->data.len; i++)
		say(t, "%02x", m->data.p[i]);
	if (m->last)
		say(t, ";");
	t->inside = !m->last;
}

/* Feeds one piece, out of memory of its own, so that a read beyond it shows under ASan. */
static int feed(struct pgr_wire *w, const uint8_t *p, size_t len, struct transcript *t, struct pgr_err *err)
{
	uint8_t *piece = malloc(len + 1);
	struct pgr_span in = {piece, len};
	struct pgr_wire_msg m;
	int rc;

	ck_assert_ptr_nonnull(piece);
	memcpy(piece, p, len);
	while ((rc = pgr_wire_next(w, &in, &m, err)) == PGR_OK)
		note(t, &m);
	if (rc == PGR_MORE)
		ck_assert_uint_eq(in.len, 0);
	free(piece);
	return rc;
}

/* cut: pieces of at most `chunk` bytes (0: any), and a border at `split`. */
static char *transcribe(const struct pgr_buf *bytes, size_t chunk, size_t split)
{
	struct transcript t = {{0}, false};
	struct pgr_err err;
	struct pgr_wire w;
	char *out;

	pgr_wire_init(&w);
	for (size_t pos = 0; pos < bytes->len;) {
		size_t n = bytes->len - pos;

		if (chunk > 0 && n > chunk)
			n = chunk;
		if (pos < split && pos + n > split)
			n = split - pos;
		ck_assert_int_eq(feed(&w, bytes->data + pos, n, &t, &err), PGR_MORE);
		pos += n;
	}
	ck_assert(!t.inside);
	ck_assert_ptr_nonnull(pgr_buf_str(&t.text));
	out = strdup((const char *)t.text.data);
	pgr_buf_fini(&t.text);
	pgr_wire_fini(&w);
	return out;
}

/* One message of every type. */
static void every_type(struct pgr_buf *b)
{
	static const char *const names[] = {"a"};
	static const char *const values[] = {"value"};

	pgr_msg_copy_response(b, 'W');
	pgr_msg_copy_data(b, "kxyz", 4);
	pgr_msg_copy_data(b, "", 0);
	pgr_msg_copy_data(b, "w", 1);
	pgr_msg_copy_done(b);
	pgr_msg_row_desc(b, 1, names);
	pgr_msg_row(b, 1, values);
	pgr_msg_complete(b, "SELECT 1");
	pgr_msg(b, 'I', NULL, 0);
	pgr_msg_notice(b, "NOTICE", "00000", "n");
	pgr_msg(b, 'S', "n\0v", 4);
	pgr_msg(b, 'A', "\0\0\0\1c\0p", 8);
	pgr_msg_error(b, "ERROR", "XX000", "e");
	pgr_msg_copy_response(b, 'H');
	pgr_msg_copy_response(b, 'G');
	pgr_msg_ready(b);
}

START_TEST(whole)
{
	struct pgr_buf b = {0};
	char *said;

	every_type(&b);
	said = transcribe(&b, 0, 0);
	ck_assert_int_eq(strncmp(said, "CopyBothResponse:000000;", 24), 0);
	ck_assert_ptr_nonnull(strstr(said, ";CopyData:6b78797a;CopyData:;CopyData:77;CopyDone:;RowDescription:"));
	ck_assert_ptr_nonnull(strstr(said, ";DataRow:00010000000576616c7565;CommandComplete:53454c454354203100;"
					   "EmptyQueryResponse:;NoticeResponse:"));
	ck_assert_ptr_nonnull(strstr(said, ";ParameterStatus:6e007600;NotificationResponse:0000000163007000;"));
	ck_assert_ptr_nonnull(strstr(said, ";CopyOutResponse:000000;CopyInResponse:000000;ReadyForQuery:49;"));
	free(said);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(pieces)
{
	struct pgr_buf b = {0};
	char *want, *got;

	every_type(&b);
	want = transcribe(&b, 0, 0);
	for (size_t chunk = 1; chunk <= 9; chunk++) {
		got = transcribe(&b, chunk, 0);
		ck_assert_str_eq(got, want);
		free(got);
	}
	for (size_t split = 1; split < b.len; split++) {
		got = transcribe(&b, 0, split);
		ck_assert_str_eq(got, want);
		free(got);
	}
	free(want);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- the table ---- */

static const struct {
	char type;
	enum pgr_msg_class cls;
	bool streamed;
} known[] = {
	{'A', PGR_MSG_ASYNC, false},	{'N', PGR_MSG_ASYNC, false},	 {'S', PGR_MSG_ASYNC, false},
	{'E', PGR_MSG_ERROR, false},	{'T', PGR_MSG_ROW_DESC, false},	 {'D', PGR_MSG_ROW, false},
	{'C', PGR_MSG_COMPLETE, false}, {'I', PGR_MSG_COMPLETE, false},	 {'Z', PGR_MSG_READY, false},
	{'H', PGR_MSG_COPY_OUT, false}, {'G', PGR_MSG_COPY_IN, false},	 {'W', PGR_MSG_COPY_BOTH, false},
	{'d', PGR_MSG_COPY_DATA, true}, {'c', PGR_MSG_COPY_DONE, false},
};
#define KNOWN (sizeof(known) / sizeof(known[0]))

START_TEST(table)
{
	for (unsigned b = 0; b < 256; b++) {
		const struct pgr_msg_type *t = pgr_msg_type_find((uint8_t)b);
		size_t i = 0;

		while (i < KNOWN && (uint8_t)known[i].type != b)
			i++;
		if (i == KNOWN) {
			ck_assert_ptr_null(t);
			continue;
		}
		ck_assert_ptr_nonnull(t);
		ck_assert_int_eq(t->type, known[i].type);
		ck_assert_int_eq(t->cls, known[i].cls);
		ck_assert_int_eq(t->streamed, known[i].streamed);
		ck_assert_uint_le(t->min_body, t->max_body);
		ck_assert_uint_ge(strlen(t->name), 6);
	}
}
END_TEST

static int feed_head(struct pgr_wire *w, uint8_t type, uint32_t len, struct pgr_err *err)
{
	uint8_t head[5] = {type, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
	struct pgr_span in = {head, sizeof(head)};
	struct pgr_wire_msg m;

	pgr_wire_init(w);
	return pgr_wire_next(w, &in, &m, err);
}

/* Lengths at and just beyond both limits, for every type; the head alone decides, before any memory is taken. */
START_TEST(limits)
{
	const struct pgr_msg_type *t = pgr_msg_type_find((uint8_t)known[_i].type);
	uint32_t min = t->min_body + 4, max = t->max_body + 4;
	uint32_t bad[] = {0, 1, 3, min - 1, max + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
	char shown[32];
	struct pgr_err err;
	struct pgr_wire w;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(feed_head(&w, (uint8_t)t->type, bad[i], &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		ck_assert_ptr_nonnull(strstr(err.msg, t->name));
		snprintf(shown, sizeof(shown), "length %u ", bad[i]);
		ck_assert_ptr_nonnull(strstr(err.msg, shown));
		ck_assert_uint_eq(w.body.cap, 0);
		pgr_wire_fini(&w);
	}
	ck_assert_int_eq(feed_head(&w, (uint8_t)t->type, min, &err), min == 4 ? PGR_OK : PGR_MORE);
	pgr_wire_fini(&w);
	ck_assert_int_eq(feed_head(&w, (uint8_t)t->type, max, &err), max == 4 ? PGR_OK : PGR_MORE);
	ck_assert_uint_eq(w.body.cap, 0);
	pgr_wire_fini(&w);
}
END_TEST

/* Types of authentication, of the extended protocol, of the client, and no type at all. */
START_TEST(unknown)
{
	static const struct {
		uint8_t type;
		const char *shown;
	} cases[] = {{'R', "'R'"}, {'K', "'K'"}, {'v', "'v'"},	 {'1', "'1'"},	 {'t', "'t'"},	 {'Q', "'Q'"},
		     {'X', "'X'"}, {0, "0x00"},	 {'\n', "0x0A"}, {0x7F, "0x7F"}, {0xFF, "0xFF"}, {' ', "0x20"}};
	struct pgr_err err;
	struct pgr_wire w;
	char want[64];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_span none = {NULL, 0};
		struct pgr_wire_msg m;

		ck_assert_int_eq(feed_head(&w, cases[i].type, 12, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		snprintf(want, sizeof(want), "type %s of length 12", cases[i].shown);
		ck_assert_ptr_nonnull(strstr(err.msg, want));
		/* and it stays so */
		ck_assert_int_eq(pgr_wire_next(&w, &none, &m, &err), PGR_ERR);
		pgr_wire_fini(&w);
	}
}
END_TEST

/* ---- memory ---- */

/* A CopyData of 1 GiB passes without a byte of memory. */
START_TEST(huge_copy_data)
{
	static uint8_t chunk[MIB];
	uint64_t left = 1024u * (uint64_t)MIB, parts = 0;
	struct pgr_wire_msg m;
	struct pgr_err err;
	struct pgr_wire w;

	ck_assert_int_eq(feed_head(&w, 'd', (uint32_t)left + 4, &err), PGR_MORE);
	while (left > 0) {
		struct pgr_span in = {chunk, sizeof(chunk) - 1};

		ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
		ck_assert_ptr_eq(m.data.p, chunk);
		ck_assert_int_eq(m.first, parts == 0);
		left -= m.data.len;
		ck_assert_int_eq(m.last, left == 0);
		ck_assert_uint_eq(pgr_wire_body_left(&w), left);
		parts++;
	}
	ck_assert_uint_eq(parts, 1025);
	ck_assert_uint_eq(w.body.cap, 0);
	pgr_wire_fini(&w);
}
END_TEST

/* A row that claims 64 MiB costs what has come of it, and a big scratch buffer does not stay. */
START_TEST(gathered_memory)
{
	static uint8_t chunk[MIB];
	struct pgr_span in = {chunk, 100};
	struct pgr_buf b = {0};
	struct pgr_wire_msg m;
	struct pgr_err err;
	struct pgr_wire w;

	ck_assert_int_eq(feed_head(&w, 'D', 64 * MIB + 4, &err), PGR_MORE);
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_MORE);
	ck_assert_uint_lt(w.body.cap, MIB / 4);
	for (unsigned i = 0; i < 63; i++) {
		in = (struct pgr_span){chunk, MIB};
		ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_MORE);
	}
	in = (struct pgr_span){chunk, MIB};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
	ck_assert_uint_eq(m.data.len, 64 * MIB);
	ck_assert_uint_eq(in.len, 100);
	pgr_msg_ready(&b);
	in = (struct pgr_span){b.data, b.len};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
	ck_assert_uint_eq(w.body.cap, 0);
	pgr_buf_fini(&b);
	pgr_wire_fini(&w);
}
END_TEST

/* Where memory cannot be had the message fails, and nothing else happens. */
START_TEST(no_room)
{
	uint8_t body[64] = {0};
	struct pgr_span in = {body, 40};
	struct pgr_wire_msg m;
	struct pgr_err err;
	struct pgr_wire w;

	ck_assert_int_eq(feed_head(&w, 'D', 54, &err), PGR_MORE);
	w.body.limit = 39;
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	pgr_wire_fini(&w);
}
END_TEST

/* ---- received elsewhere ---- */

START_TEST(took)
{
	struct pgr_buf b = {0};
	struct pgr_span in;
	struct pgr_wire_msg m;
	struct pgr_err err;
	struct pgr_wire w;

	pgr_msg_copy_data(&b, "head-payload-tail", 17);
	pgr_msg_ready(&b);
	pgr_wire_init(&w);
	in = (struct pgr_span){b.data, 5};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_MORE);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 0); /* nobody has seen this message yet */
	in = (struct pgr_span){b.data + 5, 4};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
	ck_assert(m.first && !m.last);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 13);
	pgr_wire_took(&w, 0);
	pgr_wire_took(&w, 1);
	pgr_wire_took(&w, 7);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 5);
	in = (struct pgr_span){b.data + 17, 1};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
	ck_assert(!m.first && !m.last);
	ck_assert_uint_eq(m.data.p[0], '-');
	pgr_wire_took(&w, 4);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 0);
	in = (struct pgr_span){b.data + 22, 3};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_MORE);
	pgr_wire_took(&w, 0); /* inside the next head: changes nothing */
	in = (struct pgr_span){b.data + 25, b.len - 25};
	ck_assert_int_eq(pgr_wire_next(&w, &in, &m, &err), PGR_OK);
	ck_assert_int_eq(m.type->type, 'Z');
	ck_assert(m.first && m.last);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 0);
	pgr_wire_fini(&w);
	pgr_buf_fini(&b);
}
END_TEST

/* A body that is gathered is nobody's to take. */
START_TEST(nothing_to_take)
{
	struct pgr_err err;
	struct pgr_wire w;

	ck_assert_int_eq(feed_head(&w, 'D', 100, &err), PGR_MORE);
	ck_assert_uint_eq(pgr_wire_body_left(&w), 0);
	pgr_wire_fini(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("wire");
	TCase *tc = tcase_create("wire");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, whole);
	tcase_add_test(tc, pieces);
	tcase_add_test(tc, table);
	tcase_add_loop_test(tc, limits, 0, (int)KNOWN);
	tcase_add_test(tc, unknown);
	tcase_add_test(tc, huge_copy_data);
	tcase_add_test(tc, gathered_memory);
	tcase_add_test(tc, no_room);
	tcase_add_test(tc, took);
	tcase_add_test(tc, nothing_to_take);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
