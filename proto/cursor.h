/*
 * A bounds-checked reader over bytes that somebody else sent.
 *
 * Reads past the end do not happen: they set `bad` and give zeros or empty spans, so that a decoder is a
 * straight list of reads that ends with pgr_cur_done().  Integers are big-endian (network order).
 */
#ifndef PGR_PROTO_CURSOR_H
#define PGR_PROTO_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the other side: not NUL-terminated, not trusted, valid as long as the function that gave them says. */
struct pgr_span {
	const uint8_t *p;
	size_t len;
};

struct pgr_cursor {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct pgr_cursor pgr_cur(const void *p, size_t len)
{
	return (struct pgr_cursor){p, len, false};
}

static inline const uint8_t *pgr_cur_bytes(struct pgr_cursor *c, size_t n)
{
	const uint8_t *p = c->p;

	if (c->bad || n > c->left) {
		c->bad = true;
		return NULL;
	}
	c->p += n;
	c->left -= n;
	return p;
}

static inline uint8_t pgr_cur_u8(struct pgr_cursor *c)
{
	const uint8_t *p = pgr_cur_bytes(c, 1);

	return p ? p[0] : 0;
}

static inline uint16_t pgr_cur_u16(struct pgr_cursor *c)
{
	const uint8_t *p = pgr_cur_bytes(c, 2);

	return p ? (uint16_t)(p[0] << 8 | p[1]) : 0;
}

static inline uint32_t pgr_cur_u32(struct pgr_cursor *c)
{
	const uint8_t *p = pgr_cur_bytes(c, 4);

	return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

static inline uint64_t pgr_cur_u64(struct pgr_cursor *c)
{
	uint64_t hi = pgr_cur_u32(c);

	return hi << 32 | pgr_cur_u32(c);
}

static inline struct pgr_span pgr_cur_span(struct pgr_cursor *c, size_t n)
{
	const uint8_t *p = pgr_cur_bytes(c, n);

	return (struct pgr_span){p, p ? n : 0};
}

/* A NUL-terminated string: the span is without the NUL; a missing NUL is bad. */
static inline struct pgr_span pgr_cur_cstr(struct pgr_cursor *c)
{
	const uint8_t *nul = c->bad || c->left == 0 ? NULL : memchr(c->p, 0, c->left);
	struct pgr_span s = {NULL, 0};

	if (nul == NULL) {
		c->bad = true;
		return s;
	}
	s.p = c->p;
	s.len = (size_t)(nul - c->p);
	pgr_cur_bytes(c, s.len + 1);
	return s;
}

/* Whether everything was read, and nothing is left over. */
static inline bool pgr_cur_done(const struct pgr_cursor *c)
{
	return !c->bad && c->left == 0;
}

static inline bool pgr_span_is(struct pgr_span s, const char *text)
{
	return s.len == strlen(text) && (s.len == 0 || memcmp(s.p, text, s.len) == 0);
}

#endif
