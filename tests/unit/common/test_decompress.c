#include <check.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/buf.h"
#include "common/decompress.h"

static const enum pgr_compression methods[] = {PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD};

#define N_METHODS 3

/* ---- making compressed streams with the libraries themselves ---- */

static void append(struct pgr_buf *b, const void *p, size_t n)
{
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_put(b, p, n, &e), PGR_OK);
}

static void append_gzip(struct pgr_buf *out, void *data, size_t n)
{
	uint8_t *room = malloc(n + 1000);
	z_stream z = {.next_in = data, .avail_in = (uInt)n, .next_out = room, .avail_out = (uInt)n + 1000};

	ck_assert_ptr_nonnull(room);
	ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	append(out, room, z.total_out);
	deflateEnd(&z);
	free(room);
}

static void append_lz4(struct pgr_buf *out, const void *data, size_t n)
{
	LZ4F_preferences_t prefs = {
		.frameInfo = {.contentChecksumFlag = LZ4F_contentChecksumEnabled, .blockSizeID = LZ4F_max64KB}};
	size_t bound = LZ4F_compressFrameBound(n, &prefs);
	uint8_t *room = malloc(bound);

	ck_assert_ptr_nonnull(room);

	size_t made = LZ4F_compressFrame(room, bound, data, n, &prefs);

	ck_assert(!LZ4F_isError(made));
	append(out, room, made);
	free(room);
}

static void append_zstd(struct pgr_buf *out, const void *data, size_t n)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t bound = ZSTD_compressBound(n);
	uint8_t *room = malloc(bound);

	ck_assert_ptr_nonnull(c);
	ck_assert_ptr_nonnull(room);
	ck_assert(!ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1)));

	size_t made = ZSTD_compress2(c, room, bound, data, n);

	ck_assert(!ZSTD_isError(made));
	append(out, room, made);
	free(room);
	ZSTD_freeCCtx(c);
}

static void append_compressed(struct pgr_buf *out, enum pgr_compression method, const void *data, size_t n)
{
	struct pgr_buf copy = {0};

	append(&copy, data, n);
	append(&copy, "", 1); /* so that there is a pointer, for nothing too */
	if (method == PGR_COMP_GZIP)
		append_gzip(out, copy.data, n);
	else if (method == PGR_COMP_LZ4)
		append_lz4(out, copy.data, n);
	else if (method == PGR_COMP_ZSTD)
		append_zstd(out, copy.data, n);
	else
		append(out, data, n);
	pgr_buf_fini(&copy);
}

/* Half noise, half repetition: the compressors find something, but not everything. */
static void sample(uint8_t *p, size_t n)
{
	uint32_t x = 88172645u;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = i / 64 % 2 == 0 ? (uint8_t)(x >> 24) : (uint8_t)(i / 64);
	}
}

/* ---- and reading them ---- */

static struct pgr_decomp *new_decomp(enum pgr_compression method)
{
	struct pgr_decomp *d;
	struct pgr_err e;

	ck_assert_int_eq(pgr_decomp_new(&d, method, &e), PGR_OK);
	return d;
}

/*
 * Feeds all of in, at most in_chunk bytes at a time, with room for out_chunk bytes each.  Returns the status of the
 * last step; after each piece of input goes on until the step has nothing more to give.
 */
static int feed(struct pgr_decomp *d, const uint8_t *in, size_t len, size_t in_chunk, size_t out_chunk,
		struct pgr_buf *out, struct pgr_err *e)
{
	uint8_t *room = malloc(out_chunk);
	int rc = PGR_OK;

	ck_assert_ptr_nonnull(room);
	while (len > 0 && rc != PGR_ERR) {
		size_t n = len < in_chunk ? len : in_chunk, left = n, made;
		const uint8_t *p = in;

		do {
			size_t before = left;

			rc = pgr_decomp_step(d, &p, &left, room, out_chunk, &made, e);
			if (rc == PGR_ERR)
				break;
			ck_assert_uint_le(made, out_chunk);
			ck_assert_uint_le(left, before);
			ck_assert_ptr_eq(p, in + (n - left));
			append(out, room, made);
			if (rc == PGR_MORE)
				ck_assert_uint_eq(left, 0);
			ck_assert(rc == PGR_MORE || made > 0 || left < before || left == 0);
		} while (left > 0 || (made == out_chunk && rc == PGR_OK));
		in += n;
		len -= n;
	}
	free(room);
	return rc;
}

START_TEST(any_chunks_give_the_same)
{
	static const size_t ins[] = {1, 2, 3, 7, 1000, 1 << 20}, outs[] = {1, 2, 13, 4096, 1 << 20};
	enum { N = 9000 };
	enum pgr_compression method = methods[_i];
	uint8_t data[N];
	struct pgr_buf z = {0};
	struct pgr_err e;

	sample(data, N);
	append_compressed(&z, method, data, N);
	for (size_t i = 0; i < sizeof(ins) / sizeof(ins[0]); i++) {
		for (size_t o = 0; o < sizeof(outs) / sizeof(outs[0]); o++) {
			struct pgr_decomp *d = new_decomp(method);
			struct pgr_buf out = {0};

			ck_assert_int_eq(feed(d, z.data, z.len, ins[i], outs[o], &out, &e), PGR_MORE);
			ck_assert(pgr_decomp_at_end(d));
			ck_assert_uint_eq(out.len, N);
			ck_assert_mem_eq(out.data, data, N);
			pgr_buf_fini(&out);
			pgr_decomp_free(d);
		}
	}
	pgr_buf_fini(&z);
}
END_TEST

START_TEST(larger_than_the_windows)
{
	enum { N = 3 << 20 };
	enum pgr_compression method = methods[_i];
	uint8_t *data = malloc(N);
	struct pgr_buf z = {0}, out = {0};
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_err e;

	ck_assert_ptr_nonnull(data);
	sample(data, N);
	append_compressed(&z, method, data, N);
	ck_assert_int_eq(feed(d, z.data, z.len, 32768, 65536, &out, &e), PGR_MORE);
	ck_assert_uint_eq(out.len, N);
	ck_assert_int_eq(memcmp(out.data, data, N), 0);
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
	pgr_buf_fini(&z);
	free(data);
}
END_TEST

START_TEST(nothing_is_no_stream_but_a_stream_of_nothing_is)
{
	enum pgr_compression method = methods[_i];
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_buf z = {0}, out = {0};
	const uint8_t *in = NULL;
	size_t left = 0, made;
	uint8_t room[16];
	struct pgr_err e;

	ck_assert(!pgr_decomp_at_end(d));
	ck_assert_int_eq(pgr_decomp_step(d, &in, &left, room, sizeof(room), &made, &e), PGR_OK);
	ck_assert_uint_eq(made, 0);
	ck_assert(!pgr_decomp_at_end(d));

	append_compressed(&z, method, "", 0);
	ck_assert_int_eq(feed(d, z.data, z.len, 1, 1, &out, &e), PGR_MORE);
	ck_assert(pgr_decomp_at_end(d));
	ck_assert_uint_eq(out.len, 0);
	/* Asking again at the end changes nothing. */
	ck_assert_int_eq(pgr_decomp_step(d, &in, &left, room, sizeof(room), &made, &e), PGR_MORE);
	ck_assert(pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	pgr_buf_fini(&z);
	pgr_buf_fini(&out);
}
END_TEST

/* A stream that is cut anywhere is not an error, what is there comes out, and at_end says that it is cut. */
START_TEST(cut_anywhere)
{
	enum pgr_compression method = methods[_i];
	uint8_t data[300];
	struct pgr_buf z = {0};
	struct pgr_err e;

	sample(data, sizeof(data));
	append_compressed(&z, method, data, sizeof(data));
	for (size_t cut = 1; cut <= z.len; cut++) {
		struct pgr_decomp *d = new_decomp(method);
		struct pgr_buf out = {0};
		int rc = feed(d, z.data, cut, 64, 64, &out, &e);

		ck_assert_int_eq(rc, cut == z.len ? PGR_MORE : PGR_OK);
		ck_assert_int_eq(pgr_decomp_at_end(d), cut == z.len);
		ck_assert_uint_le(out.len, sizeof(data));
		if (out.len > 0)
			ck_assert_mem_eq(out.data, data, out.len);
		pgr_buf_fini(&out);
		pgr_decomp_free(d);
	}
	pgr_buf_fini(&z);
}
END_TEST

/* Three streams one after the other, the middle one empty, in pieces that do and do not end where they do. */
START_TEST(concatenated_streams_continue)
{
	enum pgr_compression method = methods[_i];
	uint8_t data[500];
	struct pgr_buf z = {0};
	struct pgr_err e;

	sample(data, sizeof(data));
	append_compressed(&z, method, data, 200);

	size_t first_end = z.len;

	append_compressed(&z, method, "", 0);
	append_compressed(&z, method, data + 200, 300);
	for (size_t chunk = 1; chunk <= z.len; chunk++) {
		struct pgr_decomp *d = new_decomp(method);
		struct pgr_buf out = {0};

		ck_assert_int_eq(feed(d, z.data, z.len, chunk, 33, &out, &e), PGR_MORE);
		ck_assert(pgr_decomp_at_end(d));
		ck_assert_uint_eq(out.len, sizeof(data));
		ck_assert_mem_eq(out.data, data, sizeof(data));
		pgr_buf_fini(&out);
		pgr_decomp_free(d);
	}

	/* At the end after the first; no longer after one byte more. */
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_buf out = {0};

	ck_assert_int_eq(feed(d, z.data, first_end, first_end, 1000, &out, &e), PGR_MORE);
	ck_assert(pgr_decomp_at_end(d));
	ck_assert_int_eq(feed(d, z.data + first_end, 1, 1, 1000, &out, &e), PGR_OK);
	ck_assert(!pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
	pgr_buf_fini(&z);
}
END_TEST

START_TEST(what_is_no_stream)
{
	static const char junk[] = "this was never compressed, whatever its name may say: 0123456789";
	enum pgr_compression method = methods[_i];
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_buf out = {0};
	struct pgr_err e;

	ck_assert_int_eq(feed(d, (const uint8_t *)junk, sizeof(junk), 5, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(e.msg, pgr_compression_name(method)));
	ck_assert(!pgr_decomp_at_end(d));
	ck_assert_uint_eq(out.len, 0);
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
}
END_TEST

START_TEST(what_follows_a_stream_must_be_one)
{
	enum pgr_compression method = methods[_i];
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_buf z = {0}, out = {0};
	struct pgr_err e;

	append_compressed(&z, method, "payload", 7);

	size_t end = z.len;

	append(&z, "trailing garbage", 16);
	ck_assert_int_eq(feed(d, z.data, z.len, z.len, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert(!pgr_decomp_at_end(d));
	pgr_decomp_free(d);

	/* Also when the garbage comes in a piece of its own. */
	d = new_decomp(method);
	ck_assert_int_eq(feed(d, z.data, end, end, 100, &out, &e), PGR_MORE);
	ck_assert_int_eq(feed(d, z.data + end, z.len - end, 100, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
	pgr_buf_fini(&z);
}
END_TEST

START_TEST(an_error_stays)
{
	enum pgr_compression method = methods[_i];
	struct pgr_decomp *d = new_decomp(method);
	struct pgr_buf z = {0}, out = {0};
	struct pgr_err e;
	uint8_t junk[64];

	memset(junk, 'j', sizeof(junk));
	append_compressed(&z, method, "payload", 7);
	ck_assert_int_eq(feed(d, junk, sizeof(junk), 64, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(feed(d, z.data, z.len, 64, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	ck_assert_uint_eq(out.len, 0);
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
	pgr_buf_fini(&z);
}
END_TEST

/* One flipped bit is found out, or it changes nothing (as in the time stamp of a gzip header). */
START_TEST(flipped_bits)
{
	enum pgr_compression method = methods[_i];
	uint8_t data[200];
	struct pgr_buf z = {0};
	struct pgr_err e;
	unsigned found = 0;

	sample(data, sizeof(data));
	append_compressed(&z, method, data, sizeof(data));
	for (size_t bit = 0; bit < z.len * 8; bit++) {
		struct pgr_decomp *d = new_decomp(method);
		struct pgr_buf out = {.limit = 1 << 20};

		z.data[bit / 8] ^= (uint8_t)(1 << bit % 8);

		int rc = feed(d, z.data, z.len, z.len, 4096, &out, &e);

		if (rc == PGR_ERR)
			ck_assert_int_eq(e.cls, PGR_E_DATA);
		if (rc == PGR_MORE)
			ck_assert(out.len == sizeof(data) && memcmp(out.data, data, out.len) == 0);
		else
			found++;
		z.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		pgr_buf_fini(&out);
		pgr_decomp_free(d);
	}
	ck_assert_uint_gt(found, sizeof(data) * 8 / 4);
	pgr_buf_fini(&z);
}
END_TEST

START_TEST(none_passes_through)
{
	struct pgr_decomp *d = new_decomp(PGR_COMP_NONE);
	struct pgr_buf out = {0};
	struct pgr_err e;

	ck_assert(pgr_decomp_at_end(d));
	ck_assert_int_eq(feed(d, (const uint8_t *)"plain bytes", 11, 4, 3, &out, &e), PGR_MORE);
	ck_assert_str_eq(pgr_buf_str(&out), "plain bytes");
	ck_assert(pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	pgr_buf_fini(&out);
}
END_TEST

/* Appends the header of a zstd frame of unknown size with a window of 2^log bytes, and one stored block "x". */
static void append_window(struct pgr_buf *out, unsigned log)
{
	/* RFC 8878, 3.1.1: magic, descriptor 0 (a window descriptor follows), exponent << 3, block header, content */
	uint8_t frame[] = {0x28, 0xB5, 0x2F, 0xFD, 0x00, (uint8_t)((log - 10) << 3), 1 << 3 | 1, 0, 0, 'x'};

	append(out, frame, sizeof(frame));
}

START_TEST(zstd_windows_above_128_mib_are_refused)
{
	struct pgr_buf z = {0}, out = {0};
	struct pgr_decomp *d = new_decomp(PGR_COMP_ZSTD);
	struct pgr_err e;

	append_window(&z, 27);
	ck_assert_int_eq(feed(d, z.data, z.len, 100, 100, &out, &e), PGR_MORE);
	ck_assert_str_eq(pgr_buf_str(&out), "x");
	z.len = 0;
	append_window(&z, 28);
	ck_assert_int_eq(feed(d, z.data, z.len, 100, 100, &out, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_DATA);
	pgr_decomp_free(d);
	pgr_buf_fini(&z);
	pgr_buf_fini(&out);
}
END_TEST

START_TEST(names_and_unknown_methods)
{
	struct pgr_decomp *d;
	struct pgr_err e;

	ck_assert_str_eq(pgr_compression_name(PGR_COMP_NONE), "none");
	ck_assert_str_eq(pgr_compression_name(PGR_COMP_GZIP), "gzip");
	ck_assert_str_eq(pgr_compression_name(PGR_COMP_LZ4), "lz4");
	ck_assert_str_eq(pgr_compression_name(PGR_COMP_ZSTD), "zstd");
	ck_assert_int_eq(pgr_decomp_new(&d, (enum pgr_compression)99, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_USAGE);
	ck_assert_ptr_null(d);
	pgr_decomp_free(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/decompress");
	TCase *tc = tcase_create("decompress");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, any_chunks_give_the_same, 0, N_METHODS);
	tcase_add_loop_test(tc, larger_than_the_windows, 0, N_METHODS);
	tcase_add_loop_test(tc, nothing_is_no_stream_but_a_stream_of_nothing_is, 0, N_METHODS);
	tcase_add_loop_test(tc, cut_anywhere, 0, N_METHODS);
	tcase_add_loop_test(tc, concatenated_streams_continue, 0, N_METHODS);
	tcase_add_loop_test(tc, what_is_no_stream, 0, N_METHODS);
	tcase_add_loop_test(tc, what_follows_a_stream_must_be_one, 0, N_METHODS);
	tcase_add_loop_test(tc, an_error_stays, 0, N_METHODS);
	tcase_add_loop_test(tc, flipped_bits, 0, N_METHODS);
	tcase_add_test(tc, none_passes_through);
	tcase_add_test(tc, zstd_windows_above_128_mib_are_refused);
	tcase_add_test(tc, names_and_unknown_methods);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
