/*
 * A growable byte buffer with a limit.
 *
 * Valid when zeroed (`struct pgr_buf b = {0}`).  The limit (0 = 1 GiB) is there because sizes
 * come from the other side: whoever gathers bytes of a server sets it.
 */
#ifndef PGR_COMMON_BUF_H
#define PGR_COMMON_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t limit;
};

/* Frees the memory; the buffer is then empty and valid, its limit kept. */
void pgr_buf_fini(struct pgr_buf *b);

/* Makes room for `more` further bytes.  PGR_ERR: PGR_E_NOMEM, or PGR_E_DATA beyond the limit. */
int pgr_buf_reserve(struct pgr_buf *b, size_t more, struct pgr_err *err) PGR_MUST_USE;

/* Append bytes, a string without its NUL, one byte, big-endian integers, formatted text (no NUL counted). */
int pgr_buf_put(struct pgr_buf *b, const void *p, size_t n, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_puts(struct pgr_buf *b, const char *s, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_put8(struct pgr_buf *b, uint8_t v, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_put16(struct pgr_buf *b, uint16_t v, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_put32(struct pgr_buf *b, uint32_t v, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_put64(struct pgr_buf *b, uint64_t v, struct pgr_err *err) PGR_MUST_USE;
int pgr_buf_printf(struct pgr_buf *b, struct pgr_err *err, const char *fmt, ...) PGR_MUST_USE PGR_PRINTF(3, 4);

/* Ends the content with a NUL that is not counted in len and returns it as a string; NULL: out of memory. */
const char *pgr_buf_str(struct pgr_buf *b);

/* Removes the first n bytes (n <= len). */
void pgr_buf_drop(struct pgr_buf *b, size_t n);

#endif
