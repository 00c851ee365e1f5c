#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backup/packer.h"
#include "backup/pieces.h"
#include "common/block.h"
#include "common/buf.h"
#include "common/decompress.h"
#include "common/stop.h"

#define BLOCK	    ((size_t)64 * 1024)
#define BLOCKS	    ((size_t)80)
#define WAITS_BYTES ((size_t)40 * 1000)

/* Every way to compress, with one thread and with several. */
static const struct pgr_packer_opts ways[] = {
	{.spec = {.method = PGR_COMP_NONE}},
	{.spec = {.method = PGR_COMP_GZIP}, .threads = 1},
	{.spec = {.method = PGR_COMP_GZIP}, .threads = 5},
	{.spec = {.method = PGR_COMP_GZIP, .has_level = true, .level = 1}},
	{.spec = {.method = PGR_COMP_LZ4}, .threads = 1},
	{.spec = {.method = PGR_COMP_LZ4, .has_level = true, .level = 9}, .threads = 3},
	{.spec = {.method = PGR_COMP_ZSTD}, .threads = 1},
	{.spec = {.method = PGR_COMP_ZSTD}, .threads = 4},
	{.spec = {.method = PGR_COMP_ZSTD, .has_workers = true, .workers = 3}},
	{.spec = {.method = PGR_COMP_ZSTD, .has_workers = true, .workers = 0}},
	{.spec = {.method = PGR_COMP_ZSTD, .has_long = true, .long_distance = true}},
	{.spec = {.method = PGR_COMP_ZSTD, .has_long = true, .long_distance = true, .has_workers = true, .workers = 1}},
};
#define N_WAYS ((int)(sizeof(ways) / sizeof(ways[0])))

/* ---- what puts, and what is put in ---- */

struct fixture {
	struct pgr_stop *stop;
	struct pgr_pool *pool;
	struct pgr_packer *packer;
	struct pgr_buf out;
	atomic_int inside; /* calls of put that are running */
	unsigned puts;
	unsigned fail_at; /* of the puts; 0: none */
};

static int put(void *arg, const uint8_t *data, size_t len, struct pgr_err *err)
{
	struct fixture *f = arg;
	int rc;

	ck_assert_int_eq(atomic_fetch_add(&f->inside, 1), 0);
	ck_assert_uint_gt(len, 0);
	rc = pgr_buf_put(&f->out, data, len, err);
	if (++f->puts == f->fail_at)
		rc = pgr_err_sys(err, 28, "could not put");
	atomic_fetch_sub(&f->inside, 1);
	return rc;
}

static void setup(struct fixture *f, const struct pgr_packer_opts *way)
{
	struct pgr_packer_opts opts = *way;
	struct pgr_err err;

	memset(f, 0, sizeof(*f));
	opts.put = put;
	opts.arg = f;
	ck_assert_int_eq(pgr_stop_new(&f->stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_pool_new(&f->pool, pgr_packer_blocks(&opts) + 1, BLOCK, f->stop, &err), PGR_OK);
	ck_assert_msg(pgr_packer_new(&f->packer, f->pool, f->stop, &opts, &err) == PGR_OK, "%s", err.msg);
}

/* The pool asserts that all blocks are back. */
static void teardown(struct fixture *f)
{
	pgr_packer_free(f->packer);
	pgr_pool_free(f->pool);
	pgr_stop_free(f->stop);
	pgr_buf_fini(&f->out);
}

/* Content that says where it belongs, some of it hard to compress. */
static uint8_t byte_at(size_t off)
{
	uint32_t x = (uint32_t)off * 2654435761u;

	return off / 512 % 2 == 0 ? (uint8_t)(x >> 24) : (uint8_t)(off / 4096);
}

static int post(struct fixture *f, size_t off, size_t len, struct pgr_err *err)
{
	struct pgr_block *b;
	int rc = pgr_pool_get(f->pool, &b, err);

	if (rc != PGR_OK)
		return rc;
	for (size_t i = 0; i < len; i++)
		b->data[i] = byte_at(off + i);
	b->len = len;
	rc = pgr_packer_post(f->packer, &b, err);
	ck_assert_ptr_null(b);
	return rc;
}

static void check_output(const struct pgr_buf *out, enum pgr_compression method, size_t size)
{
	uint8_t *got = malloc(size + 1);
	const uint8_t *in = out->data;
	size_t left = out->len, have = 0, made, same = 0;
	struct pgr_decomp *d;
	struct pgr_err err;

	ck_assert_ptr_nonnull(got);
	ck_assert_int_eq(pgr_decomp_new(&d, method, &err), PGR_OK);
	do {
		ck_assert_msg(pgr_decomp_step(d, &in, &left, got + have, size + 1 - have, &made, &err) != PGR_ERR, "%s",
			      err.msg);
		have += made;
	} while (left > 0 || made > 0);
	ck_assert_uint_eq(have, size);
	while (same < size && got[same] == byte_at(same))
		same++;
	ck_assert_uint_eq(same, size);
	ck_assert(pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	free(got);
}

/* ---- what it is for ---- */

START_TEST(what_goes_in_comes_out)
{
	static const size_t totals[] = {0, 1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCKS * BLOCK, 7 * BLOCK + 12345};
	const struct pgr_packer_opts *way = &ways[_i];
	struct pgr_err err;

	for (size_t k = 0; k < sizeof(totals) / sizeof(totals[0]); k++) {
		struct fixture f;

		setup(&f, way);
		for (size_t off = 0; off < totals[k]; off += BLOCK)
			ck_assert_int_eq(post(&f, off, totals[k] - off < BLOCK ? totals[k] - off : BLOCK, &err),
					 PGR_OK);
		ck_assert_int_eq(pgr_packer_end(f.packer, &err), PGR_OK);
		check_output(&f.out, way->spec.method, totals[k]);
		if (way->spec.method != PGR_COMP_NONE && totals[k] > BLOCK)
			ck_assert_uint_lt(f.out.len, totals[k] * 3 / 4);
		teardown(&f);
	}
}
END_TEST

/* Blocks of all sizes: a short one in the middle, and ones with nothing in them. */
START_TEST(blocks_of_any_size)
{
	static const size_t sizes[] = {0, 1, 4096, 0, 0, BLOCK, 3, BLOCK - 1, 0};
	struct fixture f;
	struct pgr_err err;
	size_t off = 0;

	setup(&f, &ways[_i]);
	for (size_t i = 0; i < 90; i++) {
		ck_assert_int_eq(post(&f, off, sizes[i % 9], &err), PGR_OK);
		off += sizes[i % 9];
	}
	ck_assert_int_eq(pgr_packer_end(f.packer, &err), PGR_OK);
	check_output(&f.out, ways[_i].spec.method, off);
	teardown(&f);
}
END_TEST

/* A reader that stops at the end of a member sees all of it. */
START_TEST(gzip_is_one_member)
{
	struct fixture f;
	struct pgr_err err;
	const uint8_t *in;
	size_t left, made, have = 0;
	struct pgr_decomp *d;
	uint8_t room[1000];
	unsigned ends = 0;

	setup(&f, &ways[2]);
	for (size_t i = 0; i < 10; i++)
		ck_assert_int_eq(post(&f, i * BLOCK, BLOCK, &err), PGR_OK);
	ck_assert_int_eq(pgr_packer_end(f.packer, &err), PGR_OK);
	ck_assert_int_eq(pgr_decomp_new(&d, PGR_COMP_GZIP, &err), PGR_OK);
	in = f.out.data;
	left = f.out.len;
	while (have < 10 * BLOCK) {
		size_t one = left > 0 ? 1 : 0; /* so that an end on the way is seen */

		left -= one;
		ck_assert_int_ne(pgr_decomp_step(d, &in, &one, room, sizeof(room), &made, &err), PGR_ERR);
		ends += have + made < 10 * BLOCK && pgr_decomp_at_end(d);
		left += one;
		have += made;
	}
	ck_assert_uint_eq(ends, 0);
	ck_assert(memcmp(f.out.data, "\x1f\x8b", 2) == 0);
	pgr_decomp_free(d);
	teardown(&f);
}
END_TEST

/* ---- failures ---- */

static int post_all(struct fixture *f, struct pgr_err *err)
{
	for (size_t i = 0; i < BLOCKS; i++)
		if (post(f, i * BLOCK, BLOCK, err) != PGR_OK)
			return PGR_ERR;
	return pgr_packer_end(f->packer, err);
}

START_TEST(a_put_that_fails)
{
	for (unsigned at = 1; at < 200; at = at < 8 ? at + 1 : at * 2) {
		struct fixture f;
		struct pgr_err err;
		unsigned puts;

		setup(&f, &ways[_i]);
		f.fail_at = at;
		if (post_all(&f, &err) == PGR_OK) {
			ck_assert_uint_lt(f.puts, at);
			teardown(&f);
			break;
		}
		if (err.cls == PGR_E_STOPPED)
			pgr_stop_why(f.stop, &err);
		ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
		ck_assert_ptr_nonnull(strstr(err.msg, "could not put"));
		puts = f.puts;
		pgr_packer_free(f.packer);
		f.packer = NULL;
		ck_assert_uint_eq(puts, at);
		ck_assert_uint_eq(f.puts, at); /* and none after it */
		teardown(&f);
	}
}
END_TEST

START_TEST(a_stop_from_outside)
{
	struct fixture f;
	struct pgr_err err, why;

	setup(&f, &ways[_i]);
	ck_assert_int_eq(post(&f, 0, BLOCK, &err), PGR_OK);
	pgr_err_set(&why, PGR_E_STOPPED, "asked to stop");
	pgr_stop_post(f.stop, &why);
	ck_assert_int_eq(post_all(&f, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_int_eq(pgr_packer_end(f.packer, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	teardown(&f);
}
END_TEST

/* A source that fails goes away without an end, while the latch is not set. */
START_TEST(freed_in_the_middle)
{
	for (unsigned n = 0; n < 12; n++) {
		struct fixture f;
		struct pgr_err err;

		setup(&f, &ways[_i]);
		for (unsigned i = 0; i < n; i++)
			ck_assert_int_eq(post(&f, i * BLOCK, BLOCK, &err), PGR_OK);
		teardown(&f);
	}
	pgr_packer_free(NULL);
}
END_TEST

START_TEST(settings_that_are_refused)
{
	struct pgr_packer_opts opts = {.spec = {.method = PGR_COMP_GZIP, .has_level = true, .level = 77}, .put = put};
	struct pgr_packer *p;
	struct pgr_stop *stop;
	struct pgr_pool *pool;
	struct pgr_err err;

	ck_assert_int_eq(pgr_stop_new(&stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_pool_new(&pool, 4, BLOCK, stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_packer_new(&p, pool, stop, &opts, &err), PGR_ERR);
	ck_assert_ptr_null(p);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert(!pgr_stop_is_set(stop));
	pgr_pool_free(pool);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(numbers_of_threads)
{
	struct pgr_packer_opts opts = {.spec = {.method = PGR_COMP_GZIP}, .threads = 3};

	ck_assert_uint_eq(pgr_packer_blocks(&opts), 6);
	opts.threads = 1000;
	ck_assert_uint_le(pgr_packer_blocks(&opts), 64);
	opts = (struct pgr_packer_opts){.spec = {.method = PGR_COMP_ZSTD, .has_workers = true, .workers = 5}};
	ck_assert_uint_eq(pgr_packer_blocks(&opts), 10);
	opts.spec.workers = -3;
	ck_assert_uint_eq(pgr_packer_blocks(&opts), 2);
	opts.spec.has_workers = false;
	ck_assert_uint_ge(pgr_packer_blocks(&opts), 2);
}
END_TEST

/* ---- pieces ---- */

START_TEST(a_piece_without_room)
{
	static const enum pgr_compression methods[] = {PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD};
	uint8_t *data = malloc(WAITS_BYTES), *out = malloc(WAITS_BYTES * 2);
	uint32_t x = 5, crc;
	size_t made;
	struct pgr_err err;

	ck_assert_ptr_nonnull(data);
	ck_assert_ptr_nonnull(out);
	for (size_t i = 0; i < WAITS_BYTES; i++) {
		x = x * 1664525u + 1013904223u;
		data[i] = (uint8_t)(x >> 24);
	}
	for (size_t i = 0; i < 3; i++) {
		struct pgr_piece_maker *m;

		ck_assert_int_eq(pgr_piece_maker_new(&m, &(struct pgr_compress_spec){.method = methods[i]}, &err),
				 PGR_OK);
		ck_assert_uint_le(pgr_piece_bound(m, WAITS_BYTES), WAITS_BYTES * 2 + 1000000);
		ck_assert_int_eq(pgr_piece_make(m, data, WAITS_BYTES, out, WAITS_BYTES / 2, &made, &crc, &err),
				 PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		pgr_piece_maker_free(m);
	}
	pgr_piece_maker_free(NULL);
	free(data);
	free(out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("packer");
	TCase *tc = tcase_create("packer");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, what_goes_in_comes_out, 0, N_WAYS);
	tcase_add_loop_test(tc, blocks_of_any_size, 0, N_WAYS);
	tcase_add_test(tc, gzip_is_one_member);
	tcase_add_loop_test(tc, a_put_that_fails, 0, N_WAYS);
	tcase_add_loop_test(tc, a_stop_from_outside, 0, N_WAYS);
	tcase_add_loop_test(tc, freed_in_the_middle, 0, N_WAYS);
	tcase_add_test(tc, settings_that_are_refused);
	tcase_add_test(tc, numbers_of_threads);
	tcase_add_test(tc, a_piece_without_room);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
