#include "common/num.h"

bool pgr_num_u64(const char *s, size_t len, uint64_t *out)
{
	uint64_t v = 0;

	if (len == 0)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned char)s[i] - (unsigned)'0';

		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = v;
	return true;
}

bool pgr_num_i64(const char *s, size_t len, int64_t *out)
{
	if (len == 0)
		return false;

	bool minus = s[0] == '-';
	uint64_t most = (uint64_t)INT64_MAX + (minus ? 1 : 0);
	uint64_t v;

	if (!pgr_num_u64(s + minus, len - minus, &v) || v > most)
		return false;
	/* -INT64_MIN does not exist: negate while there is one to spare. */
	*out = !minus || v == 0 ? (int64_t)v : -(int64_t)(v - 1) - 1;
	return true;
}

bool pgr_num_u32(const char *s, size_t len, uint32_t *out)
{
	uint64_t v;

	if (!pgr_num_u64(s, len, &v) || v > UINT32_MAX)
		return false;
	*out = (uint32_t)v;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool pgr_num_hex64(const char *s, size_t len, uint64_t *out)
{
	uint64_t v = 0;

	if (len < 1 || len > 16)
		return false;
	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(s[i]);

		if (digit < 0)
			return false;
		v = v << 4 | (uint64_t)digit;
	}
	*out = v;
	return true;
}
