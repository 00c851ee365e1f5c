#include "common/num.h"

#include <inttypes.h>
#include <stdio.h>

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

struct pgr_num_text pgr_num_grouped(uint64_t n)
{
	struct pgr_num_text out;
	char digits[24];
	size_t len = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, n), at = 0;

	for (size_t i = 0; i < len; i++) {
		if (i > 0 && (len - i) % 3 == 0)
			out.text[at++] = ',';
		out.text[at++] = digits[i];
	}
	out.text[at] = '\0';
	return out;
}

struct pgr_num_text pgr_num_bytes(uint64_t n)
{
	static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
	struct pgr_num_text out;
	uint64_t unit = 1000;
	size_t i = 0;

	if (n < 1000) {
		snprintf(out.text, sizeof(out.text), "%u byte%s", (unsigned)n, n == 1 ? "" : "s");
		return out;
	}
	while (i + 1 < sizeof(units) / sizeof(units[0]) && n / unit >= 1000) {
		unit *= 1000;
		i++;
	}
	if (n / unit < 10)
		snprintf(out.text, sizeof(out.text), "%u.%u %s", (unsigned)(n / unit),
			 (unsigned)(n % unit / (unit / 10)), units[i]);
	else
		snprintf(out.text, sizeof(out.text), "%u %s", (unsigned)(n / unit), units[i]);
	return out;
}
