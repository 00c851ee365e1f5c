#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backup/pagecheck.h"
#include "common/pagesum.h"

#define START	 ((pgr_lsn)0x2000000)
#define SEGMENT	 131072u
#define PAGE_MAX 32768u

static struct pgr_pagecheck *check;
static struct pgr_err err;
static int file_a, file_b; /* their addresses are all that counts */

static void teardown(void)
{
	pgr_pagecheck_free(check);
	check = NULL;
}

static void make(uint32_t page_bytes)
{
	ck_assert_int_eq(pgr_pagecheck_new(&check, page_bytes, SEGMENT, START, &err), PGR_OK);
	ck_assert_uint_eq(pgr_pagecheck_page_bytes(check), page_bytes);
}

static void put16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* A page as PageInit and a checkpoint leave it: pd_lsn, pd_checksum, pd_lower, pd_upper, something in it. */
static void make_page(uint8_t *page, uint32_t bytes, pgr_lsn lsn, uint32_t relation_block)
{
	for (uint32_t i = 0; i < bytes; i++)
		page[i] = (uint8_t)(i * 3 + relation_block);
	put32(page, (uint32_t)(lsn >> 32));
	put32(page + 4, (uint32_t)lsn);
	put16(page + 12, 24);
	put16(page + 14, 512);
	put16(page + 8, pgr_page_checksum(page, bytes, relation_block));
}

static void expect_suspect(const void *file, uint32_t block)
{
	struct pgr_suspect s;

	ck_assert_int_eq(pgr_pagecheck_next(check, &s, &err), PGR_OK);
	ck_assert_ptr_eq(s.file, file);
	ck_assert_uint_eq(s.block, block);
}

static void expect_no_more(void)
{
	struct pgr_suspect s;

	ck_assert_int_eq(pgr_pagecheck_next(check, &s, &err), PGR_MORE);
	ck_assert_int_eq(pgr_pagecheck_next(check, &s, &err), PGR_MORE);
}

static const uint32_t page_sizes[] = {1024, 2048, 4096, 8192, 16384, 32768};

START_TEST(good_pages)
{
	uint32_t bytes = page_sizes[_i];
	uint8_t *data = malloc((size_t)bytes * 4);

	make(bytes);
	for (uint32_t i = 0; i < 4; i++)
		make_page(data + (size_t)i * bytes, bytes, 1, 2 * SEGMENT + 1000 + i);
	pgr_pagecheck_block(check, &file_a, 2, (uint64_t)1000 * bytes, data, (size_t)bytes * 4);
	expect_no_more();
	/* the same anywhere else is wrong: the block's number is in the checksum */
	pgr_pagecheck_block(check, &file_a, 2, (uint64_t)1001 * bytes, data, bytes);
	pgr_pagecheck_block(check, &file_a, 1, (uint64_t)1000 * bytes, data, bytes);
	expect_suspect(&file_a, 1001);
	expect_suspect(&file_a, 1000);
	expect_no_more();
	free(data);
}
END_TEST

/* Any flipped bit is seen, but those that make the page one that is not looked at. */
START_TEST(flipped_bits)
{
	static uint8_t page[8192];
	uint16_t calculated, expected;
	unsigned missed = 0;

	make(8192);
	make_page(page, 8192, START - 1, 7);
	ck_assert(!pgr_pagecheck_is_bad(check, 0, 7, page, &calculated, &expected));
	for (uint32_t bit = 0; bit < 8192 * 8; bit += bit < 400 ? 1 : 61) {
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (!pgr_pagecheck_is_bad(check, 0, 7, page, &calculated, &expected))
			missed += pgr_page_lsn(page) < START && !pgr_page_is_new(page);
		else
			ck_assert_uint_ne(calculated, expected);
		page[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	ck_assert_uint_eq(missed, 0);
}
END_TEST

START_TEST(what_is_said)
{
	static uint8_t page[8192];
	uint16_t calculated = 0, expected = 0;

	make(8192);
	make_page(page, 8192, 5, SEGMENT + 7);
	uint16_t right = pgr_page_stored_checksum(page);

	put16(page + 8, (uint16_t)(right ^ 0x0101));
	ck_assert(pgr_pagecheck_is_bad(check, 1, 7, page, &calculated, &expected));
	ck_assert_uint_eq(calculated, right);
	ck_assert_uint_eq(expected, right ^ 0x0101);
	ck_assert_uint_eq(pgr_pagecheck_relation_block(check, 1, 7), SEGMENT + 7);
	ck_assert_uint_eq(pgr_pagecheck_relation_block(check, 0, 7), 7);
}
END_TEST

/* The border of the LSN: at the start a page is replayed, below it is checked. */
START_TEST(lsn_border)
{
	static const struct {
		pgr_lsn lsn;
		bool replayed;
	} lsns[] = {
		{0, false},	    {1, false},	       {START - 1, false},
		{START, true},	    {START + 1, true}, {(pgr_lsn)1 << 32, true},
		{UINT64_MAX, true},
	};
	static uint8_t page[8192];
	uint16_t a, b;

	make(8192);
	for (size_t i = 0; i < sizeof(lsns) / sizeof(lsns[0]); i++) {
		make_page(page, 8192, lsns[i].lsn, 3);
		page[5000] ^= 1;
		ck_assert_int_eq(pgr_pagecheck_is_replayed(check, page), lsns[i].replayed);
		ck_assert_int_eq(pgr_pagecheck_is_bad(check, 0, 3, page, &a, &b), !lsns[i].replayed);
	}
}
END_TEST

/* A new page has no checksum; pd_upper is what says so, whatever else is in it. */
START_TEST(new_pages)
{
	static uint8_t page[8192];
	uint16_t a, b;

	make(8192);
	ck_assert(!pgr_pagecheck_is_bad(check, 0, 3, page, &a, &b));
	ck_assert(!pgr_pagecheck_is_replayed(check, page));
	make_page(page, 8192, UINT64_MAX, 3);
	page[5000] ^= 1;
	put16(page + 14, 0);
	ck_assert(!pgr_pagecheck_is_bad(check, 0, 3, page, &a, &b));
	ck_assert(!pgr_pagecheck_is_replayed(check, page));
	pgr_pagecheck_block(check, &file_a, 0, 0, page, sizeof(page));
	expect_no_more();
}
END_TEST

/* The rest of a file that ends within a page is not looked at, the pages before it are. */
START_TEST(incomplete_page)
{
	static uint8_t data[3 * 8192];

	make(8192);
	for (uint32_t i = 0; i < 3; i++)
		make_page(data + (size_t)i * 8192, 8192, 1, 100); /* good at no place but 100 */
	pgr_pagecheck_block(check, &file_a, 0, 0, data, 0);
	pgr_pagecheck_block(check, &file_a, 0, 0, data, 8191);
	expect_no_more();
	pgr_pagecheck_block(check, &file_b, 0, 98 * 8192, data, sizeof(data) - 1);
	expect_suspect(&file_b, 98);
	expect_suspect(&file_b, 99);
	expect_no_more();
}
END_TEST

/* More suspects than fit in what was allocated first; taken while others come. */
START_TEST(many_suspects)
{
	uint8_t *data = malloc((size_t)1000 * 1024);

	make(1024);
	for (uint32_t i = 0; i < 1000; i++) {
		make_page(data + (size_t)i * 1024, 1024, 1, i);
		data[(size_t)i * 1024 + 900] ^= i % 3 == 0; /* every third */
	}
	pgr_pagecheck_block(check, &file_a, 0, 0, data, (size_t)500 * 1024);
	for (uint32_t i = 0; i < 100; i += 3)
		expect_suspect(&file_a, i);
	pgr_pagecheck_block(check, &file_b, 0, (uint64_t)500 * 1024, data + (size_t)500 * 1024, (size_t)500 * 1024);
	for (uint32_t i = 102; i < 1000; i += 3)
		expect_suspect(i < 500 ? &file_a : &file_b, i);
	expect_no_more();
	free(data);
}
END_TEST

static const uint32_t impossible[] = {0, 1, 512, 1023, 1025, 8191, 12288, 65536, 0x80000000u};

START_TEST(impossible_sizes)
{
	ck_assert_int_eq(pgr_pagecheck_new(&check, impossible[_i], SEGMENT, START, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_ptr_null(check);
}
END_TEST

/* ---- several writers ---- */

static void *look(void *arg)
{
	struct pgr_suspect s;
	struct pgr_err e;

	for (int i = 0; i < 100; i++) {
		pgr_pagecheck_block(check, arg, 0, (uint64_t)i * 8192, arg, 8192);
		if (pgr_pagecheck_next(check, &s, &e) == PGR_ERR)
			return arg;
	}
	return NULL;
}

START_TEST(many_threads)
{
	static uint8_t page[8192];
	struct pgr_suspect s;
	pthread_t t[4];

	make(8192);
	make_page(page, 8192, 1, 1u << 30);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, look, page), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;

		pthread_join(t[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_int_eq(pgr_pagecheck_next(check, &s, &err), PGR_MORE);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("pagecheck");
	TCase *t = tcase_create("pagecheck");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_add_loop_test(t, good_pages, 0, (int)(sizeof(page_sizes) / sizeof(page_sizes[0])));
	tcase_add_test(t, flipped_bits);
	tcase_add_test(t, what_is_said);
	tcase_add_test(t, lsn_border);
	tcase_add_test(t, new_pages);
	tcase_add_test(t, incomplete_page);
	tcase_add_test(t, many_suspects);
	tcase_add_loop_test(t, impossible_sizes, 0, (int)(sizeof(impossible) / sizeof(impossible[0])));
	tcase_add_test(t, many_threads);
	suite_add_tcase(suite, t);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
