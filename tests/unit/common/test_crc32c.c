#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t len);

static crc_fn *const both[] = {pgr_crc32c, pgr_crc32c_portable};

/* The definition, bit by bit: what the fast ones are measured against. */
static uint32_t slow(uint32_t crc, const uint8_t *p, size_t len)
{
	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
	}
	return ~crc;
}

/* The same bytes in every run, and not too regular ones. */
static uint8_t *noise(size_t n)
{
	uint8_t *p = malloc(n);
	uint32_t x = 2463534242u;

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		p[i] = (uint8_t)(x >> 11);
	}
	return p;
}

/* RFC 3720, appendix B.4, and the check value of the catalogue. */
START_TEST(published_values)
{
	uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

	memset(ones, 0xFF, sizeof(ones));
	for (int i = 0; i < 32; i++) {
		up[i] = (uint8_t)i;
		down[i] = (uint8_t)(31 - i);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(both[i](0, "123456789", 9), 0xE3069283);
		ck_assert_uint_eq(both[i](0, zeros, 32), 0x8A9136AA);
		ck_assert_uint_eq(both[i](0, ones, 32), 0x62A8AB43);
		ck_assert_uint_eq(both[i](0, up, 32), 0x46DD794E);
		ck_assert_uint_eq(both[i](0, down, 32), 0x113FDB5C);
		ck_assert_uint_eq(both[i](0, "", 0), 0);
		ck_assert_uint_eq(both[i](0, NULL, 0), 0);
		ck_assert_uint_eq(both[i](0x12345678, NULL, 0), 0x12345678);
	}
}
END_TEST

/* Every entry of every table row takes part in one of these. */
START_TEST(every_byte_at_every_place)
{
	for (size_t at = 0; at < 17; at++) {
		for (unsigned v = 0; v < 256; v++) {
			uint8_t block[17] = {0};

			block[at] = (uint8_t)v;
			for (int i = 0; i < 2; i++)
				ck_assert_uint_eq(both[i](0, block, sizeof(block)), slow(0, block, sizeof(block)));
		}
	}
}
END_TEST

START_TEST(every_length_and_alignment)
{
	uint8_t *p = noise(512);

	for (size_t off = 0; off < 9; off++) {
		for (size_t len = 0; len < 300; len++) {
			uint32_t want = slow(0xCAFE, p + off, len);

			ck_assert_uint_eq(pgr_crc32c(0xCAFE, p + off, len), want);
			ck_assert_uint_eq(pgr_crc32c_portable(0xCAFE, p + off, len), want);
		}
	}
	free(p);
}
END_TEST

/* Around the sizes at which the fast version changes its way: three streams of 4 KiB. */
START_TEST(long_inputs)
{
	enum { GROUP = 3 * 4096 };
	uint8_t *p = noise(4 * GROUP);
	static const size_t around[] = {4096, 8192, GROUP, GROUP + 4096, 2 * GROUP, 3 * GROUP};

	for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
		for (size_t len = around[i] - 9; len <= around[i] + 9; len++) {
			uint32_t want = slow(7, p + 3, len);

			ck_assert_uint_eq(pgr_crc32c(7, p + 3, len), want);
			ck_assert_uint_eq(pgr_crc32c_portable(7, p + 3, len), want);
		}
	}
	free(p);
}
END_TEST

START_TEST(pieces_chain)
{
	enum { N = 40000 };
	uint8_t *p = noise(N);
	uint32_t whole = slow(0, p, N);

	for (size_t cut = 0; cut <= N; cut += 617) {
		for (int i = 0; i < 2; i++)
			ck_assert_uint_eq(both[i](both[1 - i](0, p, cut), p + cut, N - cut), whole);
	}
	free(p);
}
END_TEST

START_TEST(combine_is_concatenation)
{
	enum { N = 1000 };
	uint8_t *p = noise(N);
	uint32_t whole = slow(0, p, N);

	for (size_t cut = 0; cut <= N; cut++)
		ck_assert_uint_eq(pgr_crc32c_combine(slow(0, p, cut), slow(0, p + cut, N - cut), N - cut), whole);
	free(p);
}
END_TEST

START_TEST(combine_with_nothing)
{
	ck_assert_uint_eq(pgr_crc32c_combine(0xDEADBEEF, 0, 0), 0xDEADBEEF);
	ck_assert_uint_eq(pgr_crc32c_combine(0, 0xDEADBEEF, 12345), 0xDEADBEEF);
	ck_assert_uint_eq(pgr_crc32c_combine(0, 0, UINT64_MAX), 0);
}
END_TEST

/* Lengths no test can hash: combining is associative, so two ways to join the same pieces must agree. */
START_TEST(combine_long_pieces)
{
	uint32_t a = 0x01234567, b = 0x89ABCDEF, c = 0x55AA33CC;

	for (unsigned i = 0; i < 63; i++) {
		uint64_t len_b = (UINT64_C(1) << i) + i;
		uint64_t len_c = UINT64_C(1) << (62 - i);
		uint32_t left = pgr_crc32c_combine(pgr_crc32c_combine(a, b, len_b), c, len_c);
		uint32_t right = pgr_crc32c_combine(a, pgr_crc32c_combine(b, c, len_c), len_b + len_c);

		ck_assert_uint_eq(left, right);
	}
	/* And one that is anchored: a gibibyte of zeros, hashed in pieces. */
	uint8_t *zeros = calloc(1, 1u << 20);
	uint32_t chained = 1;

	ck_assert_ptr_nonnull(zeros);
	for (int i = 0; i < 1024; i++)
		chained = pgr_crc32c(chained, zeros, 1u << 20);

	uint32_t gib = 0;

	for (int i = 0; i < 1024; i++)
		gib = pgr_crc32c(gib, zeros, 1u << 20);
	ck_assert_uint_eq(pgr_crc32c_combine(1, gib, UINT64_C(1) << 30), chained);
	free(zeros);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/crc32c");
	TCase *tc = tcase_create("crc32c");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, published_values);
	tcase_add_test(tc, every_byte_at_every_place);
	tcase_add_test(tc, every_length_and_alignment);
	tcase_add_test(tc, long_inputs);
	tcase_add_test(tc, pieces_chain);
	tcase_add_test(tc, combine_is_concatenation);
	tcase_add_test(tc, combine_with_nothing);
	tcase_add_test(tc, combine_long_pieces);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
