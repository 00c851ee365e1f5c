#include "common/err.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The length of s[0..n) without a UTF-8 sequence that was cut in two at its end. */
static size_t utf8_whole(const char *s, size_t n)
{
	size_t back = 0;

	while (back < 3 && back < n && ((uint8_t)s[n - 1 - back] & 0xC0u) == 0x80u)
		back++;
	if (back == n)
		return n;

	uint8_t lead = (uint8_t)s[n - 1 - back];
	size_t want = lead >= 0xF0u ? 4 : lead >= 0xE0u ? 3 : lead >= 0xC0u ? 2 : 1;

	return want > back + 1 ? n - 1 - back : n;
}

/* Formats into out, cut at a character; a format that cannot be expanded is better than no text at all. */
static void format(char *out, size_t size, const char *fmt, va_list ap) PGR_PRINTF(3, 0);

static void format(char *out, size_t size, const char *fmt, va_list ap)
{
	int n = vsnprintf(out, size, fmt, ap);

	if (n < 0)
		n = snprintf(out, size, "%s", fmt);
	if (n >= 0 && (size_t)n >= size)
		out[utf8_whole(out, size - 1)] = '\0';
}

/* Copies as much of src as fits, cut at a character. */
static void copy(char *out, size_t size, const char *src)
{
	size_t n = strlen(src);

	if (n >= size)
		n = utf8_whole(src, size - 1);
	memcpy(out, src, n);
	out[n] = '\0';
}

void pgr_err_clear(struct pgr_err *e)
{
	e->cls = PGR_E_NONE;
	e->sys_errno = 0;
	e->sqlstate[0] = '\0';
	e->fatal = false;
	e->msg[0] = '\0';
	e->detail[0] = '\0';
	e->hint[0] = '\0';
}

int pgr_err_vset(struct pgr_err *e, enum pgr_errclass cls, const char *fmt, va_list ap)
{
	char text[sizeof(e->msg)]; /* the arguments may point into *e */

	format(text, sizeof(text), fmt, ap);
	pgr_err_clear(e);
	e->cls = cls;
	copy(e->msg, sizeof(e->msg), text);
	return PGR_ERR;
}

int pgr_err_set(struct pgr_err *e, enum pgr_errclass cls, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pgr_err_vset(e, cls, fmt, ap);
	va_end(ap);
	return PGR_ERR;
}

int pgr_err_sys(struct pgr_err *e, int errnum, const char *fmt, ...)
{
	char text[sizeof(e->msg)];
	char room[128];
	const char *reason = strerror_r(errnum, room, sizeof(room));
	size_t tail = strlen(reason) + 2;
	va_list ap;

	/* File names can be longer than a message: cut the name, never the reason. */
	if (tail > sizeof(text) / 2)
		tail = sizeof(text) / 2;
	va_start(ap, fmt);
	format(text, sizeof(text) - tail, fmt, ap);
	va_end(ap);

	size_t n = strlen(text);

	snprintf(text + n, sizeof(text) - n, ": %s", reason);
	pgr_err_clear(e);
	e->cls = PGR_E_SYSTEM;
	e->sys_errno = errnum;
	copy(e->msg, sizeof(e->msg), text);
	return PGR_ERR;
}

int pgr_err_nomem(struct pgr_err *e)
{
	return pgr_err_set(e, PGR_E_NOMEM, "out of memory");
}

int pgr_err_prefix(struct pgr_err *e, const char *fmt, ...)
{
	char text[sizeof(e->msg)];
	va_list ap;

	va_start(ap, fmt);
	format(text, sizeof(text), fmt, ap);
	va_end(ap);

	size_t n = strlen(text);

	copy(text + n, sizeof(text) - n, ": ");
	n = strlen(text);
	copy(text + n, sizeof(text) - n, e->msg);
	copy(e->msg, sizeof(e->msg), text);
	return PGR_ERR;
}

int pgr_err_detail(struct pgr_err *e, const char *fmt, ...)
{
	char text[sizeof(e->detail)];
	va_list ap;

	va_start(ap, fmt);
	format(text, sizeof(text), fmt, ap);
	va_end(ap);
	copy(e->detail, sizeof(e->detail), text);
	return PGR_ERR;
}

int pgr_err_hint(struct pgr_err *e, const char *fmt, ...)
{
	char text[sizeof(e->hint)];
	va_list ap;

	va_start(ap, fmt);
	format(text, sizeof(text), fmt, ap);
	va_end(ap);
	copy(e->hint, sizeof(e->hint), text);
	return PGR_ERR;
}
