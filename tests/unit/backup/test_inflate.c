#include <check.h>
#include <stdlib.h>
#include <string.h>

#include <lz4frame.h>
#include <zlib.h>
#include <zstd.h>

#include "backup/inflate.h"

#define PLAIN_BYTES ((size_t)200 * 1000)
#define ROOM	    ((size_t)256 * 1024)

struct memory_source {
	struct pgr_source base;
	const uint8_t *data;
	size_t len, pos, chunk, fail_at;
	bool ended;
};

static int memory_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct memory_source *m = (struct memory_source *)s;
	size_t give = m->len - m->pos;

	*n = 0;
	ck_assert_msg(!m->ended, "read after the end");
	if (m->pos >= m->fail_at)
		return pgr_err_set(err, PGR_E_NETWORK, "the line is dead");
	if (give > cap)
		give = cap;
	if (give > m->chunk)
		give = m->chunk;
	memcpy(dst, m->data + m->pos, give);
	m->pos += give;
	m->ended = give == 0;
	*n = give;
	return PGR_OK;
}

static struct memory_source memory_source(const uint8_t *data, size_t len, size_t chunk)
{
	return (struct memory_source){
		.base = {memory_read}, .data = data, .len = len, .chunk = chunk, .fail_at = SIZE_MAX};
}

/* Half of it compresses well, so that a little input makes much output; half of it does not. */
static void make_plain(uint8_t *p, size_t len)
{
	uint32_t seed = 1;

	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = i < len / 2 ? 'a' : (uint8_t)(seed >> 24);
	}
}

static size_t gzip(uint8_t *out, const uint8_t *in, size_t len)
{
	z_stream z = {0};
	uint8_t *copy = malloc(len + 1);

	memcpy(copy, in, len);
	ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = copy;
	z.avail_in = (uInt)len;
	z.next_out = out;
	z.avail_out = (uInt)ROOM;
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	ck_assert_int_eq(deflateEnd(&z), Z_OK);
	free(copy);
	return z.total_out;
}

static size_t compress_as(enum pgr_compression method, uint8_t *out, const uint8_t *in, size_t len)
{
	LZ4F_preferences_t prefs = {.frameInfo = {.contentChecksumFlag = LZ4F_contentChecksumEnabled}};
	size_t n;

	switch (method) {
	case PGR_COMP_GZIP:
		return gzip(out, in, len);
	case PGR_COMP_LZ4:
		n = LZ4F_compressFrame(out, ROOM, in, len, &prefs);
		ck_assert(!LZ4F_isError(n));
		return n;
	case PGR_COMP_ZSTD:
		n = ZSTD_compress(out, ROOM, in, len, 3);
		ck_assert(!ZSTD_isError(n));
		return n;
	case PGR_COMP_NONE:
		break;
	}
	memcpy(out, in, len);
	return len;
}

struct sample {
	enum pgr_compression method;
	uint8_t *plain, *packed;
	size_t plain_len, packed_len;
};

/* The loop's index is the method; `parts` streams follow one another. */
static void sample_init(struct sample *s, enum pgr_compression method, size_t len, int parts)
{
	*s = (struct sample){.method = method, .plain = malloc(len * (size_t)parts + 1), .packed = malloc(3 * ROOM)};
	for (int i = 0; i < parts; i++) {
		make_plain(s->plain + s->plain_len, len);
		s->packed_len += compress_as(method, s->packed + s->packed_len, s->plain + s->plain_len, len);
		s->plain_len += len;
	}
}

static void sample_fini(struct sample *s)
{
	free(s->plain);
	free(s->packed);
}

static struct pgr_inflate *new_inflate(struct memory_source *src, enum pgr_compression method)
{
	struct pgr_inflate *z;
	struct pgr_err err = {0};

	ck_assert_msg(pgr_inflate_new(&z, &src->base, method, "base.tar.gz", &err) == PGR_OK, "%s", err.msg);
	return z;
}

/* Reads to the end or an error; *len says how much came. */
static int read_all(struct pgr_inflate *z, uint8_t *out, size_t room, size_t cap, size_t *len, struct pgr_err *err)
{
	struct pgr_source *s = pgr_inflate_source(z);
	size_t n;

	*len = 0;
	for (;;) {
		ck_assert_uint_lt(*len, room);
		if (pgr_source_read(s, out + *len, cap < room - *len ? cap : room - *len, &n, err) != PGR_OK)
			return PGR_ERR;
		if (n == 0)
			return PGR_OK;
		*len += n;
	}
}

static void assert_inflates(const struct sample *s, size_t chunk, size_t cap)
{
	struct memory_source src = memory_source(s->packed, s->packed_len, chunk);
	struct pgr_inflate *z = new_inflate(&src, s->method);
	uint8_t *out = malloc(s->plain_len + 100);
	struct pgr_err err = {0};
	size_t len, n = 1;

	ck_assert_msg(read_all(z, out, s->plain_len + 100, cap, &len, &err) == PGR_OK, "chunk %zu cap %zu: %s", chunk,
		      cap, err.msg);
	ck_assert_uint_eq(len, s->plain_len);
	ck_assert(memcmp(out, s->plain, len) == 0);
	/* the end stays the end */
	ck_assert_int_eq(pgr_source_read(pgr_inflate_source(z), out, 10, &n, &err), PGR_OK);
	ck_assert_uint_eq(n, 0);
	pgr_inflate_free(z);
	free(out);
}

START_TEST(inflates)
{
	static const size_t sizes[] = {1, 7, 512, 4096, 65536, ROOM};

	for (int parts = 1; parts <= 2; parts++) {
		struct sample large, small;

		sample_init(&large, (enum pgr_compression)_i, PLAIN_BYTES, parts);
		sample_init(&small, (enum pgr_compression)_i, 5000, parts);
		for (size_t i = 0; i < 6; i++) {
			for (size_t j = 0; j < 6; j++) {
				assert_inflates(&small, sizes[i], sizes[j]);
				if (sizes[i] > 100 && sizes[j] > 100)
					assert_inflates(&large, sizes[i], sizes[j]);
			}
		}
		sample_fini(&large);
		sample_fini(&small);
	}
}
END_TEST

/* Output that ends exactly where the reader's room does must not look like a cut. */
START_TEST(room_ends_with_the_stream)
{
	for (size_t len = 1; len < 40; len += 3) {
		struct sample s;

		sample_init(&s, (enum pgr_compression)_i, len, 1);
		for (size_t chunk = 1; chunk < 60; chunk += 7)
			for (size_t cap = 1; cap <= len; cap++)
				assert_inflates(&s, chunk, cap);
		sample_fini(&s);
	}
}
END_TEST

START_TEST(nothing_inside)
{
	struct sample s;

	sample_init(&s, (enum pgr_compression)_i, 0, 1);
	assert_inflates(&s, 1, 100);
	assert_inflates(&s, 100, 1);
	sample_fini(&s);
}
END_TEST

/* Every cut of a compressed archive is an error; what came before it is right. */
START_TEST(cut_off)
{
	struct sample s;
	uint8_t out[4096];

	sample_init(&s, (enum pgr_compression)_i, 3000, 1);
	for (size_t cut = 0; cut < s.packed_len; cut++) {
		struct memory_source src = memory_source(s.packed, cut, 100);
		struct pgr_inflate *z = new_inflate(&src, s.method);
		struct pgr_err err = {0};
		size_t len;

		ck_assert_msg(read_all(z, out, sizeof(out), 1000, &len, &err) == PGR_ERR, "cut at %zu", cut);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_str_eq(err.msg, "archive \"base.tar.gz\": compressed data ends too early");
		ck_assert(len <= s.plain_len && memcmp(out, s.plain, len) == 0);
		pgr_inflate_free(z);
	}
	sample_fini(&s);
}
END_TEST

START_TEST(corrupt)
{
	struct sample s;
	uint8_t out[4096];

	sample_init(&s, (enum pgr_compression)_i, 3000, 1);
	memset(s.packed, 'x', 20);
	for (size_t chunk = 1; chunk < 3000; chunk *= 7) {
		struct memory_source src = memory_source(s.packed, s.packed_len, chunk);
		struct pgr_inflate *z = new_inflate(&src, s.method);
		struct pgr_err err = {0};
		size_t len;

		ck_assert_int_eq(read_all(z, out, sizeof(out), 1000, &len, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_msg(strncmp(err.msg, "archive \"base.tar.gz\": could not decompress ", 44) == 0, "%s",
			      err.msg);
		pgr_inflate_free(z);
	}
	sample_fini(&s);
}
END_TEST

/* Garbage after a complete stream is not dropped silently. */
START_TEST(trailing_garbage)
{
	struct sample s;
	uint8_t out[4096];
	struct memory_source src;
	struct pgr_inflate *z;
	struct pgr_err err = {0};
	size_t len;

	sample_init(&s, (enum pgr_compression)_i, 3000, 1);
	memset(s.packed + s.packed_len, 'x', 50);
	src = memory_source(s.packed, s.packed_len + 50, 1000);
	z = new_inflate(&src, s.method);
	ck_assert_int_eq(read_all(z, out, sizeof(out), 1000, &len, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	pgr_inflate_free(z);
	sample_fini(&s);
}
END_TEST

START_TEST(source_fails)
{
	struct sample s;
	uint8_t *out = malloc(PLAIN_BYTES + 1);

	sample_init(&s, (enum pgr_compression)_i, PLAIN_BYTES, 1);
	for (size_t at = 0; at < s.packed_len; at += 9973) {
		struct memory_source src = memory_source(s.packed, s.packed_len, 1000);
		struct pgr_inflate *z = new_inflate(&src, s.method);
		struct pgr_err err = {0};
		size_t len;

		src.fail_at = at;
		ck_assert_int_eq(read_all(z, out, PLAIN_BYTES + 1, 1000, &len, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_NETWORK);
		ck_assert_str_eq(err.msg, "the line is dead");
		pgr_inflate_free(z);
	}
	sample_fini(&s);
	free(out);
}
END_TEST

static size_t delivered_before_failure(const struct sample *s, size_t fail_at, size_t cap)
{
	struct memory_source src = memory_source(s->packed, fail_at, ROOM);
	struct pgr_inflate *z = new_inflate(&src, s->method);
	uint8_t *out = malloc(s->plain_len + 1);
	struct pgr_err err = {0};
	size_t len;

	src.fail_at = fail_at;
	ck_assert_int_eq(read_all(z, out, s->plain_len + 1, cap, &len, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_NETWORK);
	pgr_inflate_free(z);
	free(out);
	return len;
}

/* What is decompressed already is given before the source is asked, which may block or fail. */
START_TEST(gives_what_it_has)
{
	struct sample s;

	sample_init(&s, (enum pgr_compression)_i, 20000, 1);
	for (size_t at = 1; at < s.packed_len; at += 13)
		ck_assert_uint_eq(delivered_before_failure(&s, at, 50), delivered_before_failure(&s, at, ROOM));
	sample_fini(&s);
}
END_TEST

START_TEST(free_nothing)
{
	pgr_inflate_free(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("inflate");
	TCase *tc = tcase_create("inflate");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, inflates, PGR_COMP_NONE, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, room_ends_with_the_stream, PGR_COMP_NONE, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, nothing_inside, PGR_COMP_NONE, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, cut_off, PGR_COMP_GZIP, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, corrupt, PGR_COMP_GZIP, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, trailing_garbage, PGR_COMP_GZIP, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, source_fails, PGR_COMP_NONE, PGR_COMP_ZSTD + 1);
	tcase_add_loop_test(tc, gives_what_it_has, PGR_COMP_NONE, PGR_COMP_ZSTD + 1);
	tcase_add_test(tc, free_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
