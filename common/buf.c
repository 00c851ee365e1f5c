#include "common/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_LIMIT ((size_t)1 << 30)
#define FIRST_BYTES   ((size_t)64)

static size_t limit_of(const struct pgr_buf *b)
{
	return b->limit != 0 ? b->limit : DEFAULT_LIMIT;
}

/* Makes the capacity at least `need`; doubles, but does not double past what the limit can ever use. */
static bool grow(struct pgr_buf *b, size_t need)
{
	size_t most = limit_of(b);
	size_t cap = b->cap < FIRST_BYTES ? FIRST_BYTES : b->cap;

	if (need <= b->cap)
		return true;
	while (cap < need)
		cap = cap > most / 2 ? need : cap * 2;

	uint8_t *p = realloc(b->data, cap);

	if (p == NULL)
		return false;
	b->data = p;
	b->cap = cap;
	return true;
}

void pgr_buf_fini(struct pgr_buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = 0;
	b->cap = 0;
}

int pgr_buf_reserve(struct pgr_buf *b, size_t more, struct pgr_err *err)
{
	size_t most = limit_of(b);

	if (b->len > most || more > most - b->len)
		return pgr_err_set(err, PGR_E_DATA, "%zu bytes after the first %zu exceed the limit of %zu bytes", more,
				   b->len, most);
	return grow(b, b->len + more) ? PGR_OK : pgr_err_nomem(err);
}

int pgr_buf_put(struct pgr_buf *b, const void *p, size_t n, struct pgr_err *err)
{
	if (pgr_buf_reserve(b, n, err) != PGR_OK)
		return PGR_ERR;
	if (n > 0)
		memcpy(b->data + b->len, p, n);
	b->len += n;
	return PGR_OK;
}

int pgr_buf_puts(struct pgr_buf *b, const char *s, struct pgr_err *err)
{
	return pgr_buf_put(b, s, strlen(s), err);
}

int pgr_buf_put8(struct pgr_buf *b, uint8_t v, struct pgr_err *err)
{
	return pgr_buf_put(b, &v, 1, err);
}

int pgr_buf_put16(struct pgr_buf *b, uint16_t v, struct pgr_err *err)
{
	uint8_t be[2] = {(uint8_t)(v >> 8), (uint8_t)v};

	return pgr_buf_put(b, be, sizeof(be), err);
}

int pgr_buf_put32(struct pgr_buf *b, uint32_t v, struct pgr_err *err)
{
	uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

	return pgr_buf_put(b, be, sizeof(be), err);
}

int pgr_buf_put64(struct pgr_buf *b, uint64_t v, struct pgr_err *err)
{
	uint8_t be[8];

	for (int i = 0; i < 8; i++)
		be[i] = (uint8_t)(v >> (56 - 8 * i));
	return pgr_buf_put(b, be, sizeof(be), err);
}

static int put_formatted(struct pgr_buf *b, size_t n, struct pgr_err *err, const char *fmt, va_list ap)
	PGR_PRINTF(4, 0);

static int put_formatted(struct pgr_buf *b, size_t n, struct pgr_err *err, const char *fmt, va_list ap)
{
	if (pgr_buf_reserve(b, n, err) != PGR_OK)
		return PGR_ERR;
	/* vsnprintf wants a place for its NUL, which is not content and so not subject to the limit. */
	if (!grow(b, b->len + n + 1))
		return pgr_err_nomem(err);
	if (vsnprintf((char *)b->data + b->len, n + 1, fmt, ap) != (int)n)
		return pgr_err_set(err, PGR_E_USAGE, "could not format \"%s\"", fmt);
	b->len += n;
	return PGR_OK;
}

int pgr_buf_printf(struct pgr_buf *b, struct pgr_err *err, const char *fmt, ...)
{
	va_list ap;
	int n, rc;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return pgr_err_set(err, PGR_E_USAGE, "could not format \"%s\"", fmt);

	va_start(ap, fmt);
	rc = put_formatted(b, (size_t)n, err, fmt, ap);
	va_end(ap);
	return rc;
}

const char *pgr_buf_str(struct pgr_buf *b)
{
	if (!grow(b, b->len + 1))
		return NULL;
	b->data[b->len] = '\0';
	return (const char *)b->data;
}

void pgr_buf_drop(struct pgr_buf *b, size_t n)
{
	if (n >= b->len) {
		b->len = 0;
		return;
	}
	memmove(b->data, b->data + n, b->len - n);
	b->len -= n;
}
