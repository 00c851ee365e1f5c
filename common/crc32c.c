#include "common/crc32c.h"

#include <string.h>

/*
 * CRC-32C in the bit order everybody uses: bit 31 is the coefficient of x^0, so multiplying by x is a shift to the
 * right.  See Ross Williams, "A painless guide to CRC error detection algorithms", and for three streams at once
 * Gopal et al., "Fast CRC computation for iSCSI polynomial using CRC32 instruction" (Intel, 2011).
 */
#define POLY  0x82F63B78u /* x^32 + ... + 1 without its x^32 */
#define ONE   0x80000000u /* x^0 */
#define X_TO8 0x00800000u /* x^8: one byte further */

/* a * x mod P */
static uint32_t times_x(uint32_t a)
{
	return (a >> 1) ^ (POLY & (0u - (a & 1u)));
}

/* a * b mod P */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (uint32_t bit = ONE; bit != 0; bit >>= 1) {
		if (b & bit)
			product ^= a;
		a = times_x(a);
	}
	return product;
}

uint32_t pgr_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
	uint32_t shift = ONE; /* becomes x^(8 * len_b) by squaring */
	uint32_t square = X_TO8;

	for (; len_b != 0; len_b >>= 1) {
		if (len_b & 1)
			shift = multiply(shift, square);
		square = multiply(square, square);
	}
	/* The inversions before and after A and those of B cancel out. */
	return multiply(crc_a, shift) ^ crc_b;
}

/* ---- portable: eight bytes a step ---- */

/*
 * table[k][v] is what byte v leaves behind when k more bytes follow it.  It is linear in v, so a row of 256 is spelled
 * by its values for the eight single bits (b0 is bit 0).  Those are consecutive powers: from b7 of the first row, which
 * is x^32 mod P, each is the one before times x, b7 down to b0, row after row.
 */
#define ENTRY(b0, b1, b2, b3, b4, b5, b6, b7, v)                                                                       \
	((v)&1 ? b0 : 0u) ^ ((v)&2 ? b1 : 0u) ^ ((v)&4 ? b2 : 0u) ^ ((v)&8 ? b3 : 0u) ^ ((v)&16 ? b4 : 0u) ^           \
		((v)&32 ? b5 : 0u) ^ ((v)&64 ? b6 : 0u) ^ ((v)&128 ? b7 : 0u)
#define ENTRIES_4(v, ...)                                                                                              \
	ENTRY(__VA_ARGS__, v), ENTRY(__VA_ARGS__, (v) + 1), ENTRY(__VA_ARGS__, (v) + 2), ENTRY(__VA_ARGS__, (v) + 3)
#define ENTRIES_16(v, ...)                                                                                             \
	ENTRIES_4(v, __VA_ARGS__), ENTRIES_4((v) + 4, __VA_ARGS__), ENTRIES_4((v) + 8, __VA_ARGS__),                   \
		ENTRIES_4((v) + 12, __VA_ARGS__)
#define ENTRIES_64(v, ...)                                                                                             \
	ENTRIES_16(v, __VA_ARGS__), ENTRIES_16((v) + 16, __VA_ARGS__), ENTRIES_16((v) + 32, __VA_ARGS__),              \
		ENTRIES_16((v) + 48, __VA_ARGS__)
#define ROW(...)                                                                                                       \
	{                                                                                                              \
		ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__),                 \
			ENTRIES_64(192, __VA_ARGS__)                                                                   \
	}

static const uint32_t table[8][256] = {
	ROW(0xF26B8303, 0xE13B70F7, 0xC79A971F, 0x8AD958CF, 0x105EC76F, 0x20BD8EDE, 0x417B1DBC, 0x82F63B78),
	ROW(0x13A29877, 0x274530EE, 0x4E8A61DC, 0x9D14C3B8, 0x3FC5F181, 0x7F8BE302, 0xFF17C604, 0xFBC3FAF9),
	ROW(0xA541927E, 0x4F6F520D, 0x9EDEA41A, 0x38513EC5, 0x70A27D8A, 0xE144FB14, 0xC76580D9, 0x8B277743),
	ROW(0xDD45AAB8, 0xBF672381, 0x7B2231F3, 0xF64463E6, 0xE964B13D, 0xD725148B, 0xABA65FE7, 0x52A0C93F),
	ROW(0x38116FAC, 0x7022DF58, 0xE045BEB0, 0xC5670B91, 0x8F2261D3, 0x1BA8B557, 0x37516AAE, 0x6EA2D55C),
	ROW(0xEF306B19, 0xDB8CA0C3, 0xB2F53777, 0x6006181F, 0xC00C303E, 0x85F4168D, 0x0E045BEB, 0x1C08B7D6),
	ROW(0x68032CC8, 0xD0065990, 0xA5E0C5D1, 0x4E2DFD53, 0x9C5BFAA6, 0x3D5B83BD, 0x7AB7077A, 0xF56E0EF4),
	ROW(0x493C7D27, 0x9278FA4E, 0x211D826D, 0x423B04DA, 0x847609B4, 0x0D006599, 0x1A00CB32, 0x34019664),
};

static uint32_t load_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t pgr_crc32c_portable(uint32_t crc, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t c = ~crc;

	for (; len >= 8; len -= 8, p += 8) {
		uint32_t lo = load_le32(p) ^ c;
		uint32_t hi = load_le32(p + 4);

		c = table[7][lo & 0xFF] ^ table[6][lo >> 8 & 0xFF] ^ table[5][lo >> 16 & 0xFF] ^ table[4][lo >> 24] ^
		    table[3][hi & 0xFF] ^ table[2][hi >> 8 & 0xFF] ^ table[1][hi >> 16 & 0xFF] ^ table[0][hi >> 24];
	}
	for (; len > 0; len--)
		c = c >> 8 ^ table[0][(c ^ *p++) & 0xFF];
	return ~c;
}

/* ---- x86-64: the crc32 instruction of SSE 4.2 ---- */

#if defined(__x86_64__)

#include <nmmintrin.h>

#define SSE42 __attribute__((target("sse4.2")))

/*
 * The instruction takes three cycles but one can start in each, so three independent streams are three times as fast
 * as one.  Joining them costs two multiplications, which STREAM bytes each make cheap.
 */
#define STREAM	     4096u
#define STREAM_SHIFT 0x35D73A62u /* x^(8 * STREAM) mod P */

static uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

SSE42 static uint32_t sse42_three_streams(uint32_t c, const uint8_t *p)
{
	uint64_t c0 = c, c1 = 0, c2 = 0;

	for (const uint8_t *end = p + STREAM; p < end; p += 8) {
		c0 = _mm_crc32_u64(c0, load64(p));
		c1 = _mm_crc32_u64(c1, load64(p + STREAM));
		c2 = _mm_crc32_u64(c2, load64(p + 2 * STREAM));
	}
	c1 ^= multiply((uint32_t)c0, STREAM_SHIFT);
	return multiply((uint32_t)c1, STREAM_SHIFT) ^ (uint32_t)c2;
}

SSE42 static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
	uint32_t c = ~crc;
	uint64_t wide;

	for (; len >= 3 * STREAM; len -= 3 * STREAM, p += 3 * STREAM)
		c = sse42_three_streams(c, p);
	wide = c;
	for (; len >= 8; len -= 8, p += 8)
		wide = _mm_crc32_u64(wide, load64(p));
	c = (uint32_t)wide;
	for (; len > 0; len--)
		c = _mm_crc32_u8(c, *p++);
	return ~c;
}

uint32_t pgr_crc32c(uint32_t crc, const void *data, size_t len)
{
	/* A look at a word that libgcc filled before main. */
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_sse42(crc, data, len);
	return pgr_crc32c_portable(crc, data, len);
}

#else

uint32_t pgr_crc32c(uint32_t crc, const void *data, size_t len)
{
	return pgr_crc32c_portable(crc, data, len);
}

#endif
