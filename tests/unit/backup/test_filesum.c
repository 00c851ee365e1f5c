#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filesum.h"
#include "common/crc32c.h"

static struct pgr_filesum *sum;
static struct pgr_err err;

static void teardown(void)
{
	pgr_filesum_free(sum);
	sum = NULL;
}

static void make(enum pgr_digest_algo algo)
{
	ck_assert_int_eq(pgr_filesum_new(&sum, algo, &err), PGR_OK);
}

static uint8_t *content(size_t len, unsigned seed)
{
	uint8_t *p = malloc(len + 1);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 255 + seed * 13 + 1);
	return p;
}

/* What the digest of the whole file is, the slow way. */
static size_t reference(enum pgr_digest_algo algo, const uint8_t *data, size_t len, uint8_t *out)
{
	struct pgr_digest *d;
	size_t n;

	ck_assert_int_eq(pgr_digest_new(&d, algo, &err), PGR_OK);
	ck_assert_int_eq(pgr_digest_add(d, data, len, &err), PGR_OK);
	ck_assert_int_eq(pgr_digest_end(d, out, &n, &err), PGR_OK);
	pgr_digest_free(d);
	return n;
}

static void check_sum(enum pgr_digest_algo algo, const uint8_t *data, size_t len)
{
	uint8_t want[PGR_DIGEST_MAX], got[PGR_DIGEST_MAX];
	size_t n;

	ck_assert_msg(pgr_filesum_end(sum, len, got, &n, &err) == PGR_OK, "%s", err.msg);
	ck_assert_uint_eq(n, reference(algo, data, len, want));
	ck_assert_uint_eq(n, pgr_digest_len(algo));
	ck_assert_mem_eq(got, want, n);
}

static void check_fails(uint64_t size, enum pgr_errclass cls)
{
	uint8_t got[PGR_DIGEST_MAX];
	size_t n = 1;

	ck_assert_int_eq(pgr_filesum_end(sum, size, got, &n, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, cls);
	ck_assert_uint_eq(n, 0);
}

static const enum pgr_digest_algo algos[] = {PGR_DIGEST_CRC32C, PGR_DIGEST_SHA224, PGR_DIGEST_SHA256, PGR_DIGEST_SHA384,
					     PGR_DIGEST_SHA512};
#define NALGOS ((int)(sizeof(algos) / sizeof(algos[0])))

START_TEST(in_order)
{
	uint8_t *p = content(100000, 1);

	make(algos[_i]);
	ck_assert_int_eq(pgr_filesum_needs_order(sum), algos[_i] != PGR_DIGEST_CRC32C);
	for (size_t at = 0; at < 100000; at += 777)
		pgr_filesum_block(sum, at, p + at, at + 777 < 100000 ? 777 : 100000 - at);
	check_sum(algos[_i], p, 100000);
	free(p);
}
END_TEST

START_TEST(nothing_but_zeros)
{
	static const size_t sizes[] = {0, 1, 8192, 65535, 65536, 65537, 3000000};
	size_t len = sizes[_i / NALGOS];
	uint8_t *p = calloc(1, len + 1);

	make(algos[_i % NALGOS]);
	check_sum(algos[_i % NALGOS], p, len);
	free(p);
}
END_TEST

/* Holes in the beginning, in the middle, at the end. */
START_TEST(holes)
{
	uint8_t *p = content(200000, 2);

	memset(p, 0, 10);
	memset(p + 5000, 0, 95000);
	memset(p + 150001, 0, 200000 - 150001);
	make(algos[_i]);
	pgr_filesum_block(sum, 10, p + 10, 4990);
	pgr_filesum_block(sum, 60000, p + 60000, 0); /* an empty one is none */
	pgr_filesum_block(sum, 100000, p + 100000, 50001);
	check_sum(algos[_i], p, 200000);
	free(p);
}
END_TEST

/* Stretches of which only the CRC is known, between blocks. */
START_TEST(known_stretches)
{
	uint8_t *p = content(100000, 3);

	make(PGR_DIGEST_CRC32C);
	pgr_filesum_known(sum, 40000, 30000, pgr_crc32c(0, p + 40000, 30000));
	pgr_filesum_block(sum, 0, p, 40000);
	pgr_filesum_block(sum, 70000, p + 70000, 1);
	pgr_filesum_known(sum, 70001, 29999, pgr_crc32c(0, p + 70001, 29999));
	pgr_filesum_known(sum, 5, 0, 0);
	check_sum(PGR_DIGEST_CRC32C, p, 100000);
	teardown();
	make(PGR_DIGEST_CRC32C);
	pgr_filesum_block(sum, 0, p, 40000);
	pgr_filesum_known(sum, 39999, 10, 1);
	check_fails(100000, PGR_E_DATA);
	teardown();
	make(PGR_DIGEST_SHA256);
	pgr_filesum_known(sum, 0, 100000, 1);
	pgr_filesum_block(sum, 0, p, 100000);
	check_sum(PGR_DIGEST_SHA256, p, 100000);
	free(p);
}
END_TEST

START_TEST(no_algorithm)
{
	uint8_t got[PGR_DIGEST_MAX];
	size_t n = 1;

	make(PGR_DIGEST_NONE);
	ck_assert(!pgr_filesum_needs_order(sum));
	pgr_filesum_block(sum, 100, "abc", 3);
	pgr_filesum_block(sum, 100, "abc", 3); /* nobody looks */
	ck_assert_int_eq(pgr_filesum_end(sum, 1, got, &n, &err), PGR_OK);
	ck_assert_uint_eq(n, 0);
}
END_TEST

/* A file of 5 GB of zeros with some text in it: by arithmetic, not by reading. */
START_TEST(a_large_hole)
{
	const uint64_t size = (uint64_t)5 << 30, at = ((uint64_t)3 << 30) + 12345;
	uint8_t *zeros = calloc(1, 1u << 20), got[PGR_DIGEST_MAX];
	uint32_t crc = 0;
	size_t n;

	ck_assert_ptr_nonnull(zeros);
	for (uint64_t i = 0; i < at; i += 1u << 20)
		crc = pgr_crc32c(crc, zeros, at - i < 1u << 20 ? (size_t)(at - i) : 1u << 20);
	crc = pgr_crc32c(crc, "needle", 6);
	for (uint64_t i = at + 6; i < size; i += 1u << 20)
		crc = pgr_crc32c(crc, zeros, size - i < 1u << 20 ? (size_t)(size - i) : 1u << 20);
	make(PGR_DIGEST_CRC32C);
	pgr_filesum_block(sum, at, "needle", 6);
	ck_assert_int_eq(pgr_filesum_end(sum, size, got, &n, &err), PGR_OK);
	ck_assert_uint_eq(n, 4);
	ck_assert_uint_eq(got[0] | got[1] << 8 | got[2] << 16 | (uint32_t)got[3] << 24, crc);
	free(zeros);
}
END_TEST

/* ---- any order (CRC-32C) ---- */

#define PIECES 60

/* A permutation that seed `i` gives. */
static void shuffle(unsigned *order, unsigned n, uint32_t seed)
{
	for (unsigned i = 0; i < n; i++)
		order[i] = i;
	for (unsigned i = n - 1; i > 0; i--) {
		unsigned k, t = order[i];

		seed = seed * 1664525u + 1013904223u;
		k = (seed >> 8) % (i + 1);
		order[i] = order[k];
		order[k] = t;
	}
}

/* Pieces of uneven length, every seventh of them a hole. */
START_TEST(any_order)
{
	size_t at[PIECES + 1] = {0};
	unsigned order[PIECES];
	uint8_t *p;

	for (unsigned i = 0; i < PIECES; i++)
		at[i + 1] = at[i] + 1 + (i * 37 % 11) * 97;
	p = content(at[PIECES], (unsigned)_i);
	for (unsigned i = 3; i < PIECES; i += 7)
		memset(p + at[i], 0, at[i + 1] - at[i]);
	shuffle(order, PIECES, (uint32_t)_i);
	make(PGR_DIGEST_CRC32C);
	for (unsigned i = 0; i < PIECES; i++)
		if (order[i] % 7 != 3)
			pgr_filesum_block(sum, at[order[i]], p + at[order[i]], at[order[i] + 1] - at[order[i]]);
	check_sum(PGR_DIGEST_CRC32C, p, at[PIECES]);
	free(p);
}
END_TEST

static const struct {
	size_t off, len;
} overlapping[] = {
	{100, 100}, /* the same again */
	{100, 1},   {199, 1}, {199, 2}, {99, 2}, {0, 101}, {0, 1000}, {150, 10}, {299, 10}, {50, 500},
};

/* [100, 200) and [300, 400) are there. */
START_TEST(overlap)
{
	uint8_t *p = content(2000, 3);

	make(_i % 2 == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256);
	pgr_filesum_block(sum, 100, p, 100);
	pgr_filesum_block(sum, 300, p, 100);
	pgr_filesum_block(sum, overlapping[_i / 2].off, p, overlapping[_i / 2].len);
	pgr_filesum_block(sum, 1000, p, 100); /* nothing makes up for it */
	check_fails(1100, PGR_E_DATA);
	free(p);
}
END_TEST

/* What touches its neighbours does not overlap them. */
START_TEST(neighbours)
{
	uint8_t *p = content(400, 4);

	make(PGR_DIGEST_CRC32C);
	pgr_filesum_block(sum, 100, p + 100, 100);
	pgr_filesum_block(sum, 300, p + 300, 100);
	pgr_filesum_block(sum, 200, p + 200, 100);
	pgr_filesum_block(sum, 0, p, 100);
	check_sum(PGR_DIGEST_CRC32C, p, 400);
	free(p);
}
END_TEST

START_TEST(out_of_order_sha)
{
	make(PGR_DIGEST_SHA256);
	pgr_filesum_block(sum, 100, "abc", 3);
	pgr_filesum_block(sum, 0, "abc", 3);
	check_fails(103, PGR_E_DATA);
}
END_TEST

START_TEST(beyond_the_end)
{
	make(algos[_i]);
	pgr_filesum_block(sum, 100, "abc", 3);
	check_fails(102, PGR_E_DATA);
}
END_TEST

START_TEST(free_nothing)
{
	pgr_filesum_free(NULL);
	make(PGR_DIGEST_SHA256);
	pgr_filesum_block(sum, 0, "abc", 3); /* freed without an end */
}
END_TEST

/* ---- several writers ---- */

#define THREADS 4
#define PART	4096
#define PARTS	256

static uint8_t *shared;

static void *add_parts(void *arg)
{
	size_t first = (size_t)((uint8_t *)arg - shared);

	for (size_t i = PARTS; i-- > 0;)
		if (i % THREADS == first)
			pgr_filesum_block(sum, i * PART, shared + i * PART, PART);
	return NULL;
}

START_TEST(many_threads)
{
	pthread_t t[THREADS];

	shared = content((size_t)PART * PARTS, 5);
	make(PGR_DIGEST_CRC32C);
	for (size_t i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, add_parts, shared + i), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	check_sum(PGR_DIGEST_CRC32C, shared, (size_t)PART * PARTS);
	free(shared);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("filesum");
	TCase *t = tcase_create("filesum");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, in_order, 0, NALGOS);
	tcase_add_loop_test(t, nothing_but_zeros, 0, NALGOS * 7);
	tcase_add_loop_test(t, holes, 0, NALGOS);
	tcase_add_test(t, known_stretches);
	tcase_add_test(t, no_algorithm);
	tcase_add_test(t, a_large_hole);
	tcase_add_loop_test(t, any_order, 0, 40);
	tcase_add_loop_test(t, overlap, 0, 2 * (int)(sizeof(overlapping) / sizeof(overlapping[0])));
	tcase_add_test(t, neighbours);
	tcase_add_test(t, out_of_order_sha);
	tcase_add_loop_test(t, beyond_the_end, 0, NALGOS);
	tcase_add_test(t, free_nothing);
	tcase_add_test(t, many_threads);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
