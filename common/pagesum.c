#include "common/pagesum.h"

#include <string.h>

/* 32 sums run beside each other: a row of a page has one word for each. */
#define SUMS	  32
#define ROW_BYTES (SUMS * 4)
#define PRIME	  16777619u

/* The page header (bufpage.h): pd_lsn in two words, pd_checksum, pd_flags, pd_lower, pd_upper. */
#define CHECKSUM_AT 8
#define UPPER_AT    14

/* Eight words side by side: the compiler makes of it whatever the function that it is inlined into may use. */
typedef uint32_t words __attribute__((vector_size(32)));
#define VECTORS (SUMS / 8)

static const uint32_t offsets[SUMS] = {
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
};

static inline __attribute__((always_inline)) void mix_row(words sums[VECTORS], const uint8_t *row)
{
	words w[VECTORS];

	memcpy(w, row, ROW_BYTES);
	for (int i = 0; i < VECTORS; i++) {
		w[i] ^= sums[i];
		sums[i] = (w[i] * PRIME) ^ (w[i] >> 17);
	}
}

static inline __attribute__((always_inline)) uint32_t sum_page(const uint8_t *page, uint32_t page_bytes)
{
	static const uint8_t zeros[ROW_BYTES];
	uint8_t first[ROW_BYTES];
	words sums[VECTORS];
	uint32_t folded[SUMS];
	uint32_t result = 0;

	memcpy(sums, offsets, sizeof(sums));
	memcpy(first, page, ROW_BYTES);
	memset(first + CHECKSUM_AT, 0, 2);
	mix_row(sums, first);
	for (uint32_t at = ROW_BYTES; at < page_bytes; at += ROW_BYTES)
		mix_row(sums, page + at);
	mix_row(sums, zeros);
	mix_row(sums, zeros);
	memcpy(folded, sums, sizeof(folded));
	for (int i = 0; i < SUMS; i++)
		result ^= folded[i];
	return result;
}

typedef uint32_t sum_fn(const uint8_t *page, uint32_t page_bytes);

static uint32_t sum_portable(const uint8_t *page, uint32_t page_bytes)
{
	return sum_page(page, page_bytes);
}

#if defined(__x86_64__)

static __attribute__((target("sse4.1"))) uint32_t sum_sse41(const uint8_t *page, uint32_t page_bytes)
{
	return sum_page(page, page_bytes);
}

static __attribute__((target("avx2"))) uint32_t sum_avx2(const uint8_t *page, uint32_t page_bytes)
{
	return sum_page(page, page_bytes);
}

static sum_fn *best(void)
{
	if (__builtin_cpu_supports("avx2"))
		return sum_avx2;
	return __builtin_cpu_supports("sse4.1") ? sum_sse41 : sum_portable;
}

#else

static sum_fn *best(void)
{
	return sum_portable; /* NEON is part of the base set where there is one */
}

#endif

/* The number of the block mixed in shows pages that changed places; 0 would mean "no checksum". */
static uint16_t reduce(uint32_t sum, uint32_t blkno)
{
	return (uint16_t)((sum ^ blkno) % 65535 + 1);
}

uint16_t pgr_page_checksum(const void *page, uint32_t page_bytes, uint32_t blkno)
{
	return reduce(best()(page, page_bytes), blkno);
}

uint16_t pgr_page_checksum_portable(const void *page, uint32_t page_bytes, uint32_t blkno)
{
	return reduce(sum_portable(page, page_bytes), blkno);
}

pgr_lsn pgr_page_lsn(const void *page)
{
	uint32_t half[2];

	memcpy(half, page, sizeof(half));
	return (pgr_lsn)half[0] << 32 | half[1];
}

uint16_t pgr_page_stored_checksum(const void *page)
{
	uint16_t v;

	memcpy(&v, (const uint8_t *)page + CHECKSUM_AT, sizeof(v));
	return v;
}

bool pgr_page_is_new(const void *page)
{
	uint16_t upper;

	memcpy(&upper, (const uint8_t *)page + UPPER_AT, sizeof(upper));
	return upper == 0;
}
