#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/pagesum.h"

typedef uint16_t sum_fn(const void *page, uint32_t page_bytes, uint32_t blkno);

static sum_fn *const both[] = {pgr_page_checksum, pgr_page_checksum_portable};

#define PAGE_MIN   1024u
#define PAGE_MAX   32768u
#define PAGE_USUAL 8192u

/* The words that the 32 sums start with (checksum_impl.h): odd ones out of the definition, written a second time. */
static const uint32_t start[32] = {
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

static uint32_t mix(uint32_t sum, uint32_t word)
{
	uint32_t x = sum ^ word;

	return (x * 16777619u) ^ (x >> 17);
}

/* The definition, one sum after the other: what the fast ones are measured against. */
static uint16_t slow(const uint8_t *page, uint32_t page_bytes, uint32_t blkno)
{
	uint32_t all = 0;

	for (uint32_t lane = 0; lane < 32; lane++) {
		uint32_t sum = start[lane];

		for (uint32_t at = lane * 4; at < page_bytes; at += 128) {
			uint32_t word;

			memcpy(&word, page + at, 4);
			if (at == 8) /* pd_checksum is the first half of this word in memory */
				memset(&word, 0, 2);
			sum = mix(sum, word);
		}
		all ^= mix(mix(sum, 0), 0);
	}
	return (uint16_t)((all ^ blkno) % 65535 + 1);
}

/* The same bytes in every run, and not too regular ones. */
static void noise(uint8_t *p, size_t n, uint32_t x)
{
	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		p[i] = (uint8_t)(x >> 11);
	}
}

/*
 * Pages of a cluster that Debian's PostgreSQL 15 made (initdb --data-checksums): what is not zero of them, in hex, as
 * it lay on disk, little-endian.
 */
struct run {
	unsigned at;
	const char *hex;
};
static const struct real_page {
	const char *what;
	uint32_t blkno;
	uint16_t checksum;
	pgr_lsn lsn;
	struct run runs[12];
} real_pages[] = {
	{"visibility map",
	 0,
	 0x0097,
	 0x161F7A8,
	 {
		 {4, "a8f761019700000018000020002004200000000003"},
	 }},
	{"free space map",
	 2,
	 0x4178,
	 0x11B9EF0,
	 {
		 {4, "f09e1b01784100001800002000200420"},
		 {28, "caca00ca000000ca"},
		 {43, "ca"},
		 {59, "ca"},
		 {91, "ca"},
		 {155, "ca"},
		 {283, "ca"},
		 {539, "02ca"},
		 {1051, "020202ca"},
		 {2075, "02020202020202ca"},
		 {4123, "0202020202020202020200020202ca"},
	 }},
	{"heap",
	 0,
	 0xB468,
	 0x177C810,
	 {
		 {4, "10c8770168b400002000c01f0020042000000000e09f4000c09f40"},
		 {8128, "d902"},
		 {8136, "07"},
		 {8144, "0200020002081800020000000974776fd902"},
		 {8168, "07"},
		 {8176, "010002000208180001000000096f6e65"},
	 }},
	{"leaf of a btree",
	 1,
	 0x8E26,
	 0x177C850,
	 {
		 {4, "50c87701268e00002000d01ff01f042000000000e09f2000d09f20"},
		 {8148, "0200100002"},
		 {8164, "0100100001"},
		 {8188, "03"},
	 }},
	{"leaf of a catalog index",
	 5,
	 0x3C29,
	 0x105C038,
	 {
		 {4, "38c00501293c00005c00481ef01f042000000000d89f3000c09f3000a89f3000909f3000789f3000"
		     "609f3000409f4000209f4000089f3000f09e3000d89e3000c09e3000a89e3000909e3000789e3000"
		     "609e3000489e3000489e30"},
		 {7754, "0800230018407e7e2a0012040000190000000b00000000000800210018407e7e2a00190000001900"
			"00000b000000000008001f0018407e7e2a0013000000190000000b000000000006000d0018407e7e"
			"000012040000190000000b000000000006000b0018407e7e000019000000190000000b0000000000"
			"0600090018407e7e000013000000190000000b00000000000a00010018407e7e0000110000001100"
			"00000b00000000000a00140018407e3e7e0012040000120400000b00000000000a00100018407e3e"
			"7e0019000000190000000b00000000000a00130020407e3e3d7e0000000012040000120400000b"},
		 {8002, "0a000f0020407e3e3d7e0000000019000000190000000b"},
		 {8034, "0600390018407e3d0000ce020000ce0200000b00000000000100100018407e3d00005c0200005c02"
			"00000b00000000000100180018407e3d00005b0200005b0200000b00000000000100230018407e3d"
			"000058020000580200000b00000000000a00110018407e3c7e0012040000120400000b0000000000"
			"0a000d0018407e3c7e0019000000190000000b00000004"},
		 {8188, "01"},
	 }},
};
#define REAL_PAGES (sizeof(real_pages) / sizeof(real_pages[0]))

static void build(const struct real_page *r, uint8_t page[PAGE_USUAL])
{
	memset(page, 0, PAGE_USUAL);
	for (const struct run *run = r->runs; run->hex != NULL; run++)
		ck_assert(pgr_unhex(page + run->at, run->hex, strlen(run->hex)));
}

START_TEST(pages_of_a_server)
{
	uint8_t page[PAGE_USUAL];

	for (size_t i = 0; i < REAL_PAGES; i++) {
		const struct real_page *r = &real_pages[i];

		build(r, page);
		ck_assert_msg(!pgr_page_is_new(page), "%s", r->what);
		ck_assert_uint_eq(pgr_page_lsn(page), r->lsn);
		ck_assert_uint_eq(pgr_page_stored_checksum(page), r->checksum);
		for (int k = 0; k < 2; k++) {
			ck_assert_msg(both[k](page, PAGE_USUAL, r->blkno) == r->checksum, "%s", r->what);
			ck_assert_msg(both[k](page, PAGE_USUAL, r->blkno + 1) != r->checksum, "%s", r->what);
		}
	}
}
END_TEST

/* Each bit counts, but those of the checksum itself. */
START_TEST(every_bit_counts)
{
	uint8_t page[PAGE_USUAL];
	unsigned same = 0;

	for (size_t i = 0; i < REAL_PAGES; i++) {
		build(&real_pages[i], page);
		for (size_t bit = 0; bit < sizeof(page) * 8; bit++) {
			bool own = bit / 16 == 4;
			uint16_t sum;

			page[bit / 8] ^= (uint8_t)(1u << bit % 8);
			sum = pgr_page_checksum(page, PAGE_USUAL, real_pages[i].blkno);
			page[bit / 8] ^= (uint8_t)(1u << bit % 8);
			if (own)
				ck_assert_uint_eq(sum, real_pages[i].checksum);
			else
				same += sum == real_pages[i].checksum;
		}
	}
	/* 16 bits cannot tell everything: of some 330,000 changes five or so are missed by chance. */
	ck_assert_uint_lt(same, 25);
}
END_TEST

START_TEST(all_sizes_as_defined)
{
	uint8_t page[PAGE_MAX];

	for (uint32_t bytes = PAGE_MIN; bytes <= PAGE_MAX; bytes *= 2) {
		for (uint32_t seed = 1; seed < 40; seed++) {
			uint32_t blkno = seed * 2654435761u;

			noise(page, bytes, seed);
			for (int k = 0; k < 2; k++)
				ck_assert_uint_eq(both[k](page, bytes, blkno), slow(page, bytes, blkno));
		}
	}
}
END_TEST

START_TEST(block_numbers)
{
	static const uint32_t numbers[] = {0,	   1,	   65534,      65535,	   65536,
					   131071, 131072, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE};
	uint8_t page[PAGE_USUAL];

	noise(page, sizeof(page), 7);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		for (int k = 0; k < 2; k++)
			ck_assert_uint_eq(both[k](page, PAGE_USUAL, numbers[i]), slow(page, PAGE_USUAL, numbers[i]));
}
END_TEST

/* 0 stands for "no checksum", so what is computed must never be that: through all remainders. */
START_TEST(never_zero)
{
	uint8_t page[PAGE_MIN];
	bool one = false, most = false;

	noise(page, sizeof(page), 3);
	for (uint32_t blkno = 0; blkno < 3 * 65536u; blkno++) {
		uint16_t sum = pgr_page_checksum_portable(page, PAGE_MIN, blkno);

		if (sum == 0)
			ck_abort_msg("block %u", blkno);
		one = one || sum == 1;
		most = most || sum == 65535;
	}
	ck_assert(one && most);
}
END_TEST

/* Blocks of a COPY stream begin anywhere.  The page ends where its memory does, so that ASan sees a read too many. */
START_TEST(unaligned)
{
	for (size_t shift = 0; shift < 65; shift++) {
		uint8_t *memory = malloc(shift + PAGE_USUAL);

		ck_assert_ptr_nonnull(memory);
		noise(memory, shift + PAGE_USUAL, 11);
		for (int k = 0; k < 2; k++)
			ck_assert_uint_eq(both[k](memory + shift, PAGE_USUAL, 5), slow(memory + shift, PAGE_USUAL, 5));
		free(memory);
	}
}
END_TEST

/* The page itself stays as it is: it is on its way to disk. */
START_TEST(page_is_not_touched)
{
	uint8_t page[PAGE_USUAL], before[PAGE_USUAL];

	noise(page, sizeof(page), 13);
	memcpy(before, page, sizeof(page));
	for (int k = 0; k < 2; k++)
		both[k](page, PAGE_USUAL, 0);
	ck_assert_mem_eq(page, before, sizeof(page));
}
END_TEST

START_TEST(header_fields)
{
	uint8_t memory[PAGE_MIN + 1] = {0};
	uint8_t *page = memory + 1;
	uint32_t high = 0x12345678, low = 0x9ABCDEF0;
	uint16_t sum = 0xBEEF;

	ck_assert(pgr_page_is_new(page));
	page[15] = 1;
	ck_assert(!pgr_page_is_new(page));
	page[15] = 0;
	page[14] = 1;
	ck_assert(!pgr_page_is_new(page));
	page[14] = 0;
	memset(page, 0xFF, 14);
	memset(page + 16, 0xFF, PAGE_MIN - 16);
	ck_assert(pgr_page_is_new(page));
	memcpy(page, &high, 4);
	memcpy(page + 4, &low, 4);
	memcpy(page + 8, &sum, 2);
	ck_assert_uint_eq(pgr_page_lsn(page), 0x123456789ABCDEF0);
	ck_assert_uint_eq(pgr_page_stored_checksum(page), 0xBEEF);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/pagesum");
	TCase *tc = tcase_create("pagesum");

	tcase_add_test(tc, pages_of_a_server);
	tcase_add_test(tc, every_bit_counts);
	tcase_add_test(tc, all_sizes_as_defined);
	tcase_add_test(tc, block_numbers);
	tcase_add_test(tc, never_zero);
	tcase_add_test(tc, unaligned);
	tcase_add_test(tc, page_is_not_touched);
	tcase_add_test(tc, header_fields);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
