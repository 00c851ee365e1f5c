#include "common/utf8.h"

/* RFC 3629, section 4: by the first byte, how many follow, and between what the first of these must be. */
struct lead {
	uint8_t first, last; /* of the first byte */
	uint8_t follow;
	uint8_t low, high; /* of the second */
};
static const struct lead leads[] = {
	{0x00, 0x7F, 0, 0x00, 0x00}, {0xC2, 0xDF, 1, 0x80, 0xBF}, {0xE0, 0xE0, 2, 0xA0, 0xBF},
	{0xE1, 0xEC, 2, 0x80, 0xBF}, {0xED, 0xED, 2, 0x80, 0x9F}, {0xEE, 0xEF, 2, 0x80, 0xBF},
	{0xF0, 0xF0, 3, 0x90, 0xBF}, {0xF1, 0xF3, 3, 0x80, 0xBF}, {0xF4, 0xF4, 3, 0x80, 0x8F},
};

static const struct lead *find(uint8_t first)
{
	for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++)
		if (first >= leads[i].first && first <= leads[i].last)
			return &leads[i];
	return NULL;
}

/* The length of the character at p, 0 if it is none. */
static size_t character(const uint8_t *p, size_t left)
{
	const struct lead *l = find(p[0]);

	if (l == NULL || l->follow >= left)
		return 0;
	if (l->follow > 0 && (p[1] < l->low || p[1] > l->high))
		return 0;
	for (size_t i = 2; i <= l->follow; i++)
		if (p[i] < 0x80 || p[i] > 0xBF)
			return 0;
	return l->follow + 1u;
}

bool pgr_utf8_valid(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;

	while (len > 0) {
		size_t n = character(p, len);

		if (n == 0)
			return false;
		p += n;
		len -= n;
	}
	return true;
}

size_t pgr_utf8_put(char out[4], uint32_t c)
{
	size_t follow = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
	static const uint8_t marks[] = {0x00, 0xC0, 0xE0, 0xF0};

	for (size_t i = follow; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3F));
	out[0] = (char)(marks[follow] | c);
	return follow + 1;
}
