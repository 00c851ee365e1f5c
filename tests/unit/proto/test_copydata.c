#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/copydata.h"

/* One CopyData body, its parts, and what came of them. */
struct outcome {
	int rc;
	unsigned heads;
	struct pgr_copy_head head; /* its spans point into the strings below */
	char name[64], location[64];
	size_t payload_len;
	uint8_t payload[256];
	struct pgr_err err;
};

static void keep(char *dst, size_t cap, struct pgr_span *s)
{
	ck_assert_uint_lt(s->len, cap);
	if (s->len > 0)
		memcpy(dst, s->p, s->len);
	dst[s->len] = '\0';
	s->p = (const uint8_t *)dst;
}

static void feed_part(struct pgr_copydata *c, const uint8_t *p, size_t n, bool first, bool last, struct outcome *o)
{
	uint8_t *piece = malloc(n > 0 ? n : 1); /* of exactly its size, for ASan */
	struct pgr_wire_msg part = {pgr_msg_type_find('d'), {piece, n}, first, last};
	struct pgr_copy_head head;
	struct pgr_span payload;
	bool has_head;

	ck_assert_ptr_nonnull(piece);
	memcpy(piece, p, n);
	o->rc = pgr_copydata_feed(c, &part, &head, &has_head, &payload, &o->err);
	if (o->rc == PGR_OK && has_head) {
		o->heads++;
		o->head = head;
		/* names are valid until the next message, though the part they came in is gone by then */
		keep(o->name, sizeof(o->name), &o->head.name);
		keep(o->location, sizeof(o->location), &o->head.location);
	}
	if (o->rc == PGR_OK) {
		ck_assert_uint_eq(o->heads, 1);
		ck_assert_uint_le(o->payload_len + payload.len, sizeof(o->payload));
		if (payload.len > 0)
			memcpy(o->payload + o->payload_len, payload.p, payload.len);
		o->payload_len += payload.len;
	}
	free(piece);
}

/* In pieces of at most `chunk` bytes (0: any), with a border at `split`; an empty body is one empty part. */
static void feed_body(struct pgr_copydata *c, const uint8_t *body, size_t len, size_t chunk, size_t split,
		      struct outcome *o)
{
	size_t pos = 0;

	memset(o, 0, sizeof(*o));
	do {
		size_t n = len - pos;

		if (chunk > 0 && n > chunk)
			n = chunk;
		if (pos < split && pos + n > split)
			n = split - pos;
		feed_part(c, body + pos, n, pos == 0, pos + n == len, o);
		if (o->rc == PGR_ERR)
			return;
		pos += n;
	} while (pos < len);
}

static void same(const struct outcome *a, const struct outcome *b)
{
	ck_assert_int_eq(a->rc, b->rc);
	if (a->rc == PGR_ERR) {
		ck_assert_int_eq(a->err.cls, b->err.cls);
		return;
	}
	ck_assert_int_eq(a->head.kind, b->head.kind);
	ck_assert_str_eq(a->name, b->name);
	ck_assert_str_eq(a->location, b->location);
	ck_assert_int_eq(a->head.progress_bytes, b->head.progress_bytes);
	ck_assert_uint_eq(a->head.start, b->head.start);
	ck_assert_uint_eq(a->head.wal_end, b->head.wal_end);
	ck_assert_int_eq(a->head.send_time_us, b->head.send_time_us);
	ck_assert_int_eq(a->head.reply_requested, b->head.reply_requested);
	ck_assert_uint_eq(a->payload_len, b->payload_len);
	ck_assert_int_eq(memcmp(a->payload, b->payload, a->payload_len), 0);
}

/* ---- messages that are right ---- */

#define W_HEAD "w\0\0\0\1\2\3\4\5\0\0\0\1\2\3\4\6\0\2\6\6\1\0\0\7"

static const struct {
	enum pgr_copy_dialect dialect;
	const char *body;
	size_t len;
	struct pgr_copy_head head;
	const char *name, *location, *payload;
} good[] = {
#define MSG(literal) literal, sizeof(literal) - 1
	{PGR_COPY_ARCHIVE, MSG("nbase.tar\0\0"), {.kind = PGR_CK_ARCHIVE}, "base.tar", "", ""},
	{PGR_COPY_ARCHIVE,
	 MSG("n16384.tar.zst\0/mnt/ts 1\0"),
	 {.kind = PGR_CK_ARCHIVE},
	 "16384.tar.zst",
	 "/mnt/ts 1",
	 ""},
	{PGR_COPY_ARCHIVE, MSG("n\0\0"), {.kind = PGR_CK_ARCHIVE}, "", "", ""},
	{PGR_COPY_ARCHIVE, MSG("dtar bytes"), {.kind = PGR_CK_DATA}, "", "", "tar bytes"},
	{PGR_COPY_ARCHIVE, MSG("d"), {.kind = PGR_CK_DATA}, "", "", ""},
	{PGR_COPY_ARCHIVE, MSG("m"), {.kind = PGR_CK_MANIFEST}, "", "", ""},
	{PGR_COPY_ARCHIVE,
	 MSG("p\0\0\1\2\3\4\5\6"),
	 {.kind = PGR_CK_PROGRESS, .progress_bytes = 0x0000010203040506},
	 "",
	 "",
	 ""},
	{PGR_COPY_ARCHIVE, MSG("p\0\0\0\0\0\0\0\0"), {.kind = PGR_CK_PROGRESS}, "", "", ""},
	{PGR_COPY_WAL,
	 MSG(W_HEAD "wal"),
	 {.kind = PGR_CK_WAL,
	  .start = 0x0000000102030405,
	  .wal_end = 0x0000000102030406,
	  .send_time_us = 0x2060601000007},
	 "",
	 "",
	 "wal"},
	{PGR_COPY_WAL,
	 MSG(W_HEAD),
	 {.kind = PGR_CK_WAL,
	  .start = 0x0000000102030405,
	  .wal_end = 0x0000000102030406,
	  .send_time_us = 0x2060601000007},
	 "",
	 "",
	 ""},
	{PGR_COPY_WAL,
	 MSG("k\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\377\1"),
	 {.kind = PGR_CK_KEEPALIVE, .wal_end = UINT64_MAX, .send_time_us = -1, .reply_requested = true},
	 "",
	 "",
	 ""},
	{PGR_COPY_WAL,
	 MSG("k\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0"),
	 {.kind = PGR_CK_KEEPALIVE, .wal_end = 1, .send_time_us = 2},
	 "",
	 "",
	 ""},
	{PGR_COPY_RAW, MSG("nbase.tar\0\0"), {.kind = PGR_CK_DATA}, "", "", "nbase.tar"},
	{PGR_COPY_RAW, MSG(""), {.kind = PGR_CK_DATA}, "", "", ""},
};

START_TEST(heads)
{
	const uint8_t *body = (const uint8_t *)good[_i].body;
	struct outcome whole, parts;
	struct pgr_copydata c;

	pgr_copydata_init(&c, good[_i].dialect);
	feed_body(&c, body, good[_i].len, 0, 0, &whole);
	ck_assert_int_eq(whole.rc, PGR_OK);
	ck_assert_int_eq(whole.head.kind, good[_i].head.kind);
	ck_assert_int_eq(whole.head.progress_bytes, good[_i].head.progress_bytes);
	ck_assert_uint_eq(whole.head.start, good[_i].head.start);
	ck_assert_uint_eq(whole.head.wal_end, good[_i].head.wal_end);
	ck_assert_int_eq(whole.head.send_time_us, good[_i].head.send_time_us);
	ck_assert_int_eq(whole.head.reply_requested, good[_i].head.reply_requested);
	ck_assert_str_eq(whole.name, good[_i].name);
	ck_assert_str_eq(whole.location, good[_i].location);
	ck_assert_uint_ge(whole.payload_len, strlen(good[_i].payload));
	ck_assert_int_eq(memcmp(whole.payload, good[_i].payload, strlen(good[_i].payload)), 0);
	for (size_t n = 1; n <= good[_i].len; n++) {
		feed_body(&c, body, good[_i].len, n, 0, &parts);
		same(&parts, &whole);
		feed_body(&c, body, good[_i].len, 0, n, &parts);
		same(&parts, &whole);
	}
	pgr_copydata_fini(&c);
}
END_TEST

/* The payload is handed on from where it lies: no copy, however long it is. */
START_TEST(payload_in_place)
{
	static uint8_t block[65536];
	const enum pgr_copy_dialect dialects[] = {PGR_COPY_RAW, PGR_COPY_ARCHIVE};
	struct pgr_copydata c;
	struct pgr_copy_head head;
	struct pgr_span payload;
	struct pgr_err err;
	bool has_head;

	block[0] = 'd';
	for (size_t d = 0; d < 2; d++) {
		size_t skip = d;

		pgr_copydata_init(&c, dialects[d]);
		for (unsigned i = 0; i < 1000; i++) {
			struct pgr_wire_msg part = {NULL, {block, sizeof(block)}, i == 0, i == 999};

			ck_assert_int_eq(pgr_copydata_feed(&c, &part, &head, &has_head, &payload, &err), PGR_OK);
			ck_assert_int_eq(has_head, i == 0);
			ck_assert_ptr_eq(payload.p, block + (i == 0 ? skip : 0));
			ck_assert_uint_eq(payload.len, sizeof(block) - (i == 0 ? skip : 0));
		}
		ck_assert_uint_le(c.head.cap, 8192);
		pgr_copydata_fini(&c);
	}
}
END_TEST

/* An empty part (as an empty body has) inside a message changes nothing. */
START_TEST(empty_parts)
{
	struct pgr_copydata c;
	struct outcome o = {0};

	pgr_copydata_init(&c, PGR_COPY_ARCHIVE);
	feed_part(&c, (const uint8_t *)"", 0, true, false, &o);
	ck_assert_int_eq(o.rc, PGR_MORE);
	feed_part(&c, (const uint8_t *)"n", 1, false, false, &o);
	ck_assert_int_eq(o.rc, PGR_MORE);
	feed_part(&c, (const uint8_t *)"", 0, false, false, &o);
	ck_assert_int_eq(o.rc, PGR_MORE);
	feed_part(&c, (const uint8_t *)"a\0b", 4, false, false, &o);
	ck_assert_int_eq(o.rc, PGR_MORE);
	feed_part(&c, (const uint8_t *)"", 0, false, true, &o);
	ck_assert_int_eq(o.rc, PGR_OK);
	ck_assert_str_eq(o.name, "a");
	ck_assert_str_eq(o.location, "b");
	pgr_copydata_fini(&c);
}
END_TEST

/* ---- messages that are wrong ---- */

static const struct {
	enum pgr_copy_dialect dialect;
	const char *body;
	size_t len;
	const char *says;
} bad[] = {
	{PGR_COPY_ARCHIVE, MSG(""), "empty"},
	{PGR_COPY_WAL, MSG(""), "empty"},
	/* types of the other dialect, of the client, of nobody */
	{PGR_COPY_ARCHIVE, MSG("wxxxxxxxxxxxxxxxxxxxxxxxx"), "'w' in the base backup"},
	{PGR_COPY_ARCHIVE, MSG("k\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0"), "'k'"},
	{PGR_COPY_ARCHIVE, MSG("r"), "'r'"},
	{PGR_COPY_ARCHIVE, MSG("\0"), "0x00"},
	{PGR_COPY_ARCHIVE, MSG("\377"), "0xFF"},
	{PGR_COPY_ARCHIVE, MSG("\177"), "0x7F"},
	{PGR_COPY_ARCHIVE, MSG(" "), "0x20"},
	{PGR_COPY_ARCHIVE, MSG("~"), "'~'"},
	{PGR_COPY_WAL, MSG("dxx"), "'d' in the WAL stream"},
	{PGR_COPY_WAL, MSG("nbase.tar\0\0"), "'n'"},
	{PGR_COPY_WAL, MSG("s\0\0"), "'s'"},
	/* cut short */
	{PGR_COPY_WAL, MSG("w"), "cut short"},
	{PGR_COPY_WAL, W_HEAD, 24, "cut short"},
	{PGR_COPY_WAL, MSG("k\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2"), "cut short"},
	{PGR_COPY_ARCHIVE, MSG("p\0\0\0\0\0\0\0"), "cut short"},
	{PGR_COPY_ARCHIVE, MSG("n"), "cut short"},
	{PGR_COPY_ARCHIVE, MSG("n\0"), "cut short"},
	{PGR_COPY_ARCHIVE, MSG("na\0b"), "malformed"},
	{PGR_COPY_ARCHIVE, MSG("nab"), "malformed"},
	/* too long */
	{PGR_COPY_WAL, MSG("k\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0"), "longer than 18"},
	{PGR_COPY_ARCHIVE, MSG("p\0\0\0\0\0\0\0\0\0"), "longer than 9"},
	{PGR_COPY_ARCHIVE, MSG("m\0"), "longer than 1"},
	{PGR_COPY_ARCHIVE, MSG("na\0b\0c"), "malformed"},
	{PGR_COPY_ARCHIVE, MSG("na\0b\0\0"), "malformed"},
	/* a count below zero */
	{PGR_COPY_ARCHIVE, MSG("p\377\377\377\377\377\377\377\377"), "malformed"},
};

START_TEST(refused)
{
	const uint8_t *body = (const uint8_t *)bad[_i].body;
	struct pgr_copydata c;
	struct outcome o;

	for (size_t n = 0; n <= bad[_i].len; n++) {
		pgr_copydata_init(&c, bad[_i].dialect);
		feed_body(&c, body, bad[_i].len, n, 0, &o);
		ck_assert_int_eq(o.rc, PGR_ERR);
		ck_assert_int_eq(o.err.cls, PGR_E_PROTOCOL);
		ck_assert_ptr_nonnull(strstr(o.err.msg, bad[_i].says));
		ck_assert_uint_eq(o.heads, 0);
		/* the next message is none the worse for it */
		feed_body(&c, (const uint8_t *)W_HEAD, 25, 7, 0, &o);
		ck_assert_int_eq(o.rc, bad[_i].dialect == PGR_COPY_WAL ? PGR_OK : PGR_ERR);
		pgr_copydata_fini(&c);
	}
}
END_TEST

/* A name that never ends is not gathered for ever. */
START_TEST(endless_name)
{
	uint8_t body[9000];
	struct pgr_copydata c;
	struct outcome o;

	memset(body, 'x', sizeof(body));
	body[0] = 'n';
	pgr_copydata_init(&c, PGR_COPY_ARCHIVE);
	for (size_t n = 0; n < 4000; n += 997) {
		feed_body(&c, body, sizeof(body), n, 0, &o);
		ck_assert_int_eq(o.rc, PGR_ERR);
		ck_assert_int_eq(o.err.cls, PGR_E_PROTOCOL);
		ck_assert_ptr_nonnull(strstr(o.err.msg, "longer than 8192"));
		ck_assert_uint_le(c.head.cap, 8192);
	}
	pgr_copydata_fini(&c);
}
END_TEST

START_TEST(no_room)
{
	struct pgr_copydata c;
	struct outcome o;

	for (size_t limit = 1; limit < 25; limit++) {
		pgr_copydata_init(&c, PGR_COPY_WAL);
		c.head.limit = limit;
		feed_body(&c, (const uint8_t *)W_HEAD, 25, 1, 0, &o);
		ck_assert_int_eq(o.rc, PGR_ERR);
		ck_assert_int_eq(o.err.cls, PGR_E_DATA);
		pgr_copydata_fini(&c);
	}
}
END_TEST

/* ---- what we send ---- */

static void bytes(const struct pgr_buf *b, const char *want, size_t len)
{
	ck_assert_uint_eq(b->len, len);
	ck_assert_int_eq(memcmp(b->data, want, len), 0);
}

START_TEST(status)
{
	static const char want[] = "r\0\0\0\1\0\0\0\2"
				   "\0\0\0\0\0\0\0\3"
				   "\0\0\0\0\0\0\0\0"
				   "\0\1\2\3\4\5\6\7"
				   "\1";
	struct pgr_buf b = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_copydata_put_status(&b, 0x0000000100000002, 3, 0, 0x0001020304050607, true, &err), PGR_OK);
	bytes(&b, want, sizeof(want) - 1);
	ck_assert_uint_eq(b.len, 34);
	b.len = 0;
	ck_assert_int_eq(pgr_copydata_put_status(&b, 0, 0, 0, -1, false, &err), PGR_OK);
	ck_assert_uint_eq(b.data[33], 0);
	ck_assert_uint_eq(b.data[25], 0xFF);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(feedback)
{
	static const char want[] = "h\0\0\0\0\0\0\0\1"
				   "\0\0\0\2"
				   "\0\0\0\3"
				   "\0\0\0\4"
				   "\377\377\377\377";
	struct pgr_buf b = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_copydata_put_feedback(&b, 1, 2, 3, 4, 0xFFFFFFFF, &err), PGR_OK);
	bytes(&b, want, sizeof(want) - 1);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(put_no_room)
{
	struct pgr_err err;

	for (size_t limit = 3; limit < 3 + 34; limit++) {
		struct pgr_buf b = {.limit = limit};

		ck_assert_int_eq(pgr_buf_puts(&b, "abc", &err), PGR_OK);
		ck_assert_int_eq(pgr_copydata_put_status(&b, 1, 2, 3, 4, true, &err), PGR_ERR);
		ck_assert_uint_eq(b.len, 3);
		if (limit < 3 + 25)
			ck_assert_int_eq(pgr_copydata_put_feedback(&b, 1, 2, 3, 4, 5, &err), PGR_ERR);
		else
			ck_assert_int_eq(pgr_copydata_put_feedback(&b, 1, 2, 3, 4, 5, &err), PGR_OK);
		ck_assert_uint_eq(b.len, limit < 3 + 25 ? 3 : 28);
		pgr_buf_fini(&b);
	}
}
END_TEST

START_TEST(pgtime)
{
	ck_assert_int_eq(pgr_pgtime_from_unix_us(946684800000000), 0);
	ck_assert_int_eq(pgr_pgtime_from_unix_us(946684800000001), 1);
	ck_assert_int_eq(pgr_pgtime_from_unix_us(0), -946684800000000);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("copydata");
	TCase *tc = tcase_create("copydata");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, heads, 0, (int)(sizeof(good) / sizeof(good[0])));
	tcase_add_test(tc, payload_in_place);
	tcase_add_test(tc, empty_parts);
	tcase_add_loop_test(tc, refused, 0, (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(tc, endless_name);
	tcase_add_test(tc, no_room);
	tcase_add_test(tc, status);
	tcase_add_test(tc, feedback);
	tcase_add_test(tc, put_no_room);
	tcase_add_test(tc, pgtime);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
