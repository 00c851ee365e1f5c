#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/compress.h"
#include "common/decompress.h"

static const enum pgr_compression methods[] = {PGR_COMP_NONE, PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD};

#define N_METHODS 4
#define N_BYTES	  ((size_t)700 * 1000)

/* Half noise, half repetition: the compressors find something, but not everything. */
static uint8_t *sample(size_t n)
{
	uint8_t *p = malloc(n + 1);
	uint32_t x = 88172645u;

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		p[i] = i / 64 % 2 == 0 ? (uint8_t)(x >> 24) : (uint8_t)(i / 64);
	}
	return p;
}

static struct pgr_comp *new_comp(const struct pgr_compress_spec *spec)
{
	struct pgr_comp *c;
	struct pgr_err e;

	ck_assert_int_eq(pgr_comp_new(&c, spec, &e), PGR_OK);
	return c;
}

static struct pgr_comp *new_of(enum pgr_compression method)
{
	return new_comp(&(struct pgr_compress_spec){.method = method});
}

/* One operation to its end, with so much room at a time; what it makes goes to `out`. */
static void run(struct pgr_comp *c, const uint8_t *in, size_t len, enum pgr_comp_op op, size_t room,
		struct pgr_buf *out)
{
	uint8_t *to = malloc(room);
	struct pgr_err e;
	int rc;

	ck_assert_ptr_nonnull(to);
	do {
		const uint8_t *before = in;
		size_t left = len, made;

		rc = pgr_comp_step(c, &in, &len, op, to, room, &made, &e);
		ck_assert_int_ne(rc, PGR_ERR);
		ck_assert_uint_le(made, room);
		ck_assert_uint_eq((size_t)(in - before), left - len);
		ck_assert(rc == PGR_MORE || made == room);
		ck_assert_int_eq(pgr_buf_put(out, to, made, &e), PGR_OK);
	} while (rc == PGR_OK);
	ck_assert_uint_eq(len, 0);
	free(to);
}

/* Decompresses all of `z` and compares; `whole`: it must end there. */
static void check_content(enum pgr_compression method, const struct pgr_buf *z, const uint8_t *want, size_t len,
			  bool whole)
{
	uint8_t *got = malloc(len + 4096);
	const uint8_t *in = z->data;
	size_t in_len = z->len, have = 0, made;
	struct pgr_decomp *d;
	struct pgr_err e;

	ck_assert_ptr_nonnull(got);
	ck_assert_int_eq(pgr_decomp_new(&d, method, &e), PGR_OK);
	do {
		ck_assert_int_ne(pgr_decomp_step(d, &in, &in_len, got + have, len + 4096 - have, &made, &e), PGR_ERR);
		have += made;
	} while (in_len > 0 || made > 0);
	ck_assert_uint_eq(have, len);
	ck_assert(memcmp(got, want, len) == 0);
	if (whole)
		ck_assert(pgr_decomp_at_end(d));
	else if (method != PGR_COMP_NONE)
		ck_assert(!pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	free(got);
}

START_TEST(any_chunks_come_back)
{
	static const size_t ins[] = {1, 7, 1000, 65536, 300000, N_BYTES}, rooms[] = {64, 65, 100, 4096, 1 << 20};
	enum pgr_compression method = methods[_i];
	uint8_t *data = sample(N_BYTES);

	for (size_t i = 0; i < sizeof(ins) / sizeof(ins[0]); i++) {
		for (size_t k = 0; k < sizeof(rooms) / sizeof(rooms[0]); k++) {
			size_t n = ins[i] < 1000 ? 9000 : N_BYTES;
			struct pgr_comp *c = new_of(method);
			struct pgr_buf z = {0};

			for (size_t at = 0; at < n; at += ins[i])
				run(c, data + at, n - at < ins[i] ? n - at : ins[i], PGR_COMP_GO_ON, rooms[k], &z);
			run(c, NULL, 0, PGR_COMP_END, rooms[k], &z);
			check_content(method, &z, data, n, true);
			if (method != PGR_COMP_NONE)
				ck_assert_uint_lt(z.len, n * 3 / 4);
			pgr_buf_fini(&z);
			pgr_comp_free(c);
		}
	}
	free(data);
}
END_TEST

/* What a flush has given can be read, whatever follows; a second flush adds nothing that matters. */
START_TEST(a_flush_can_be_read)
{
	static const size_t rooms[] = {64, 69, 4096, 1 << 20};
	enum pgr_compression method = methods[_i];
	uint8_t *data = sample(N_BYTES);

	for (size_t k = 0; k < sizeof(rooms) / sizeof(rooms[0]); k++) {
		struct pgr_comp *c = new_of(method);
		struct pgr_buf z = {0};
		size_t at = 0;

		run(c, NULL, 0, PGR_COMP_FLUSH, rooms[k], &z);
		for (size_t n = 1; at + n <= N_BYTES; n = n * 3 + 1) {
			run(c, data + at, n, PGR_COMP_FLUSH, rooms[k], &z);
			at += n;
			check_content(method, &z, data, at, false);
			run(c, NULL, 0, PGR_COMP_FLUSH, rooms[k], &z);
			check_content(method, &z, data, at, false);
		}
		run(c, data + at, 1, PGR_COMP_END, rooms[k], &z);
		check_content(method, &z, data, at + 1, true);
		pgr_buf_fini(&z);
		pgr_comp_free(c);
	}
	free(data);
}
END_TEST

/* Several members or frames one after the other are one stream; an empty one is one, too. */
START_TEST(frames_follow_one_another)
{
	static const size_t rooms[] = {64, 1 << 20};
	enum pgr_compression method = methods[_i];
	uint8_t *data = sample(N_BYTES);

	for (size_t k = 0; k < sizeof(rooms) / sizeof(rooms[0]); k++) {
		struct pgr_comp *c = new_of(method);
		struct pgr_buf z = {0};
		size_t at = 0, before;

		run(c, NULL, 0, PGR_COMP_END, rooms[k], &z);
		if (method != PGR_COMP_NONE)
			ck_assert_uint_gt(z.len, 0);
		check_content(method, &z, data, 0, true);
		for (size_t n = 1; at + n <= N_BYTES; n = n * 5 + 1) {
			run(c, data + at, n, PGR_COMP_END, rooms[k], &z);
			at += n;
			check_content(method, &z, data, at, true);
		}
		before = z.len;
		run(c, NULL, 0, PGR_COMP_FLUSH, rooms[k], &z);
		run(c, NULL, 0, PGR_COMP_GO_ON, rooms[k], &z);
		ck_assert_uint_eq(z.len, before); /* nothing begins a frame but something to put into it */
		pgr_buf_fini(&z);
		pgr_comp_free(c);
	}
	free(data);
}
END_TEST

START_TEST(the_bound_is_enough)
{
	static const size_t sizes[] = {0, 1, 63, 64, 65535, 65536, 262144, 262145, N_BYTES};
	enum pgr_compression method = methods[_i];
	uint8_t *data = sample(N_BYTES);
	uint32_t x = 1;

	for (size_t i = 0; i < N_BYTES; i++) { /* nothing to find */
		x = x * 1664525u + 1013904223u;
		data[i] = (uint8_t)(x >> 24);
	}
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct pgr_comp *c = new_of(method);
		size_t bound = pgr_comp_bound(c, sizes[i]), left = sizes[i], made;
		size_t room = bound > PGR_COMP_ROOM_MIN ? bound : PGR_COMP_ROOM_MIN;
		struct pgr_buf z = {.cap = room, .data = malloc(room)};
		const uint8_t *in = data;
		struct pgr_err e;

		ck_assert_int_eq(pgr_comp_step(c, &in, &left, PGR_COMP_END, z.data, room, &made, &e), PGR_MORE);
		ck_assert_uint_eq(left, 0);
		ck_assert_uint_le(made, bound);
		z.len = made;
		check_content(method, &z, data, sizes[i], true);
		ck_assert_uint_eq(pgr_comp_bound(c, SIZE_MAX), 0);
		pgr_buf_fini(&z);
		pgr_comp_free(c);
	}
	free(data);
}
END_TEST

static size_t length_with(const struct pgr_compress_spec *spec, const uint8_t *data, size_t n)
{
	struct pgr_comp *c = new_comp(spec);
	struct pgr_buf z = {0};
	size_t len;

	run(c, data, n, PGR_COMP_END, 1 << 20, &z);
	check_content(spec->method, &z, data, n, true);
	len = z.len;
	pgr_buf_fini(&z);
	pgr_comp_free(c);
	return len;
}

/* Text of a few words: levels differ on it. */
static uint8_t *words(size_t n)
{
	static const char *const some[] = {"insert ", "delete ", "vacuum ", "tuple ", "block ", "relation ", "x "};
	uint8_t *p = malloc(n);
	uint32_t x = 7;

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < n;) {
		const char *w;

		x = x * 1664525u + 1013904223u;
		w = some[(x >> 20) % 7];
		for (; *w != '\0' && i < n; w++)
			p[i++] = (uint8_t)*w;
	}
	return p;
}

START_TEST(levels_count)
{
	static const struct {
		enum pgr_compression method;
		int fast, best;
	} cases[] = {{PGR_COMP_GZIP, 1, 9}, {PGR_COMP_LZ4, 1, 12}, {PGR_COMP_ZSTD, -5, 15}};
	uint8_t *data = words(N_BYTES);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_compress_spec spec = {.method = cases[i].method, .has_level = true, .level = cases[i].fast};
		size_t fast = length_with(&spec, data, N_BYTES);

		spec.level = cases[i].best;
		ck_assert_uint_lt(length_with(&spec, data, N_BYTES), fast);
	}
	free(data);
}
END_TEST

START_TEST(zstd_workers_and_long_distance)
{
	struct pgr_compress_spec spec = {.method = PGR_COMP_ZSTD, .has_workers = true, .workers = 2};
	const size_t far = (size_t)5 << 20; /* beyond the window of level 1 */
	uint8_t *data = sample(2 * far);
	uint32_t x = 3;
	size_t near;

	for (size_t i = 0; i < far; i++) {
		x = x * 1664525u + 1013904223u;
		data[i] = data[far + i] = (uint8_t)(x >> 24);
	}
	spec.has_level = true;
	spec.level = 1;
	near = length_with(&spec, data, 2 * far);
	spec.has_long = true;
	spec.long_distance = true;
	ck_assert_uint_lt(length_with(&spec, data, 2 * far), near * 2 / 3);
	free(data);
}
END_TEST

START_TEST(refusals)
{
	struct pgr_comp *c;
	const uint8_t *in = (const uint8_t *)"x";
	size_t len = 1, made;
	uint8_t out[PGR_COMP_ROOM_MIN];
	struct pgr_err e;

	ck_assert_int_eq(pgr_comp_new(&c, &(struct pgr_compress_spec){.method = (enum pgr_compression)77}, &e),
			 PGR_ERR);
	ck_assert_int_eq(
		pgr_comp_new(&c, &(struct pgr_compress_spec){PGR_COMP_GZIP, .has_level = true, .level = 99}, &e),
		PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_USAGE);
	pgr_comp_free(NULL);
	c = new_of(PGR_COMP_GZIP);
	ck_assert_int_eq(pgr_comp_step(c, &in, &len, PGR_COMP_END, out, sizeof(out) - 1, &made, &e), PGR_ERR);
	pgr_comp_free(c);
}
END_TEST

/* Bytes that change on the way are seen: each format carries a checksum of the content. */
START_TEST(content_is_checked)
{
	enum pgr_compression method = methods[_i];
	uint8_t data[64], room[200];
	struct pgr_comp *c = new_of(method);
	struct pgr_buf z = {0};
	unsigned seen = 0;

	memset(data, 'a', sizeof(data));
	for (size_t i = 0; i < sizeof(data); i++) /* stored, not coded: a changed byte still decodes */
		data[i] = (uint8_t)(i * 37 ^ i << 3);
	run(c, data, sizeof(data), PGR_COMP_END, 4096, &z);
	for (size_t i = 0; i < z.len; i++) {
		const uint8_t *in = z.data;
		size_t left = z.len, made;
		struct pgr_decomp *d;
		struct pgr_err e;

		z.data[i] ^= 4;
		ck_assert_int_eq(pgr_decomp_new(&d, method, &e), PGR_OK);
		if (pgr_decomp_step(d, &in, &left, room, sizeof(room), &made, &e) == PGR_ERR || !pgr_decomp_at_end(d))
			seen++;
		else if (made == sizeof(data))
			ck_assert(memcmp(room, data, sizeof(data)) == 0);
		pgr_decomp_free(d);
		z.data[i] ^= 4;
	}
	ck_assert_uint_gt(seen, 60);
	pgr_buf_fini(&z);
	pgr_comp_free(c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("compress");
	TCase *tc = tcase_create("compress");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, any_chunks_come_back, 0, N_METHODS);
	tcase_add_loop_test(tc, a_flush_can_be_read, 0, N_METHODS);
	tcase_add_loop_test(tc, frames_follow_one_another, 0, N_METHODS);
	tcase_add_loop_test(tc, the_bound_is_enough, 0, N_METHODS);
	tcase_add_test(tc, levels_count);
	tcase_add_test(tc, zstd_workers_and_long_distance);
	tcase_add_test(tc, refusals);
	tcase_add_loop_test(tc, content_is_checked, 1, N_METHODS);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
