#include "common/jsonlex.h"

#include <string.h>

#include "common/num.h"
#include "common/utf8.h"

enum { BETWEEN, STRING, ESCAPE, UNICODE, NUMBER };

void pgr_jsonlex_fini(struct pgr_jsonlex *l)
{
	pgr_buf_fini(&l->text);
	*l = (struct pgr_jsonlex){0};
}

bool pgr_jsonlex_between(const struct pgr_jsonlex *l)
{
	return l->state == BETWEEN;
}

void pgr_jsonlex_space(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end)
{
	for (; *p < end && (**p == ' ' || **p == '\t' || **p == '\r' || **p == '\n'); ++*p)
		if (**p == '\n')
			l->line++;
}

static int malformed(struct pgr_err *err, const char *what)
{
	return pgr_err_set(err, PGR_E_DATA, "%s", what);
}

static int append(struct pgr_jsonlex *l, const void *data, size_t n, struct pgr_err *err)
{
	if (n > PGR_JSON_STRING_MAX - l->text.len)
		return malformed(err, "string too long");
	return pgr_buf_put(&l->text, data, n, err);
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* ---- one function a state: each uses at least one byte; PGR_OK: the token is complete ---- */

static int between(struct pgr_jsonlex *l, const uint8_t **p, enum pgr_json_token *out, struct pgr_err *err)
{
	static const char marks[] = "{}[]:,"; /* in the order of the tokens */
	const char *mark;

	l->text.len = 0;
	if (is_digit(**p)) {
		l->state = NUMBER;
		return PGR_MORE;
	}
	if (**p == '"') {
		l->state = STRING;
		++*p;
		return PGR_MORE;
	}
	mark = memchr(marks, **p, sizeof(marks) - 1);
	if (mark == NULL)
		return malformed(err, "unexpected character");
	++*p;
	*out = (enum pgr_json_token)(mark - marks);
	return PGR_OK;
}

static int number(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end, enum pgr_json_token *out,
		  struct pgr_err *err)
{
	const uint8_t *from = *p;

	while (*p < end && is_digit(**p))
		++*p;
	if ((size_t)(*p - from) > PGR_JSON_NUMBER_MAX - l->text.len)
		return malformed(err, "number too long");
	if (pgr_buf_put(&l->text, from, (size_t)(*p - from), err) != PGR_OK)
		return PGR_ERR;
	if (*p == end)
		return PGR_MORE;
	if (l->text.data[0] == '0' && l->text.len > 1)
		return malformed(err, "number with a leading zero");
	l->state = BETWEEN;
	*out = PGR_JSON_NUMBER;
	return PGR_OK;
}

static int string(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end, enum pgr_json_token *out,
		  struct pgr_err *err)
{
	const uint8_t *from = *p;

	while (*p < end && **p != '"' && **p != '\\' && **p >= 0x20)
		++*p;
	if (l->high != 0 && (*p > from || **p != '\\'))
		return malformed(err, "half of a surrogate pair");
	if (append(l, from, (size_t)(*p - from), err) != PGR_OK)
		return PGR_ERR;
	if (*p == end)
		return PGR_MORE;
	switch (*(*p)++) {
	case '\\':
		l->state = ESCAPE;
		return PGR_MORE;
	case '"':
		l->state = BETWEEN;
		*out = PGR_JSON_STRING;
		return PGR_OK;
	default:
		return malformed(err, "control character in a string");
	}
}

static int escape(struct pgr_jsonlex *l, const uint8_t **p, struct pgr_err *err)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	uint8_t c = *(*p)++;
	const char *name = memchr(names, c, sizeof(names) - 1);

	if (c == 'u') {
		l->state = UNICODE;
		l->unit = 0;
		l->unit_digits = 0;
		return PGR_MORE;
	}
	if (l->high != 0)
		return malformed(err, "half of a surrogate pair");
	if (name == NULL)
		return malformed(err, "unknown escape in a string");
	l->state = STRING;
	return append(l, &values[name - names], 1, err) == PGR_OK ? PGR_MORE : PGR_ERR;
}

/* The four digits of \uXXXX are there: a character, or half of one beyond U+FFFF (RFC 8259, section 7). */
static int add_unit(struct pgr_jsonlex *l, struct pgr_err *err)
{
	uint32_t c = l->unit;
	bool low = c >= 0xDC00 && c <= 0xDFFF;
	char utf8[4];

	if (low != (l->high != 0))
		return malformed(err, "half of a surrogate pair");
	if (c == 0)
		return malformed(err, "NUL in a string");
	if (c >= 0xD800 && c <= 0xDBFF) {
		l->high = c;
		return PGR_OK;
	}
	if (low)
		c = 0x10000 + ((l->high - 0xD800) << 10) + (c - 0xDC00);
	l->high = 0;
	return append(l, utf8, pgr_utf8_put(utf8, c), err);
}

static int unicode(struct pgr_jsonlex *l, const uint8_t **p, struct pgr_err *err)
{
	char c = (char)*(*p)++;
	uint64_t digit;

	if (!pgr_num_hex64(&c, 1, &digit))
		return malformed(err, "malformed \\u escape in a string");
	l->unit = l->unit << 4 | (uint32_t)digit;
	if (++l->unit_digits < 4)
		return PGR_MORE;
	l->state = STRING;
	return add_unit(l, err) == PGR_OK ? PGR_MORE : PGR_ERR;
}

int pgr_jsonlex_next(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end, enum pgr_json_token *out,
		     struct pgr_err *err)
{
	int rc = PGR_MORE;

	if (l->state == BETWEEN)
		pgr_jsonlex_space(l, p, end);
	while (rc == PGR_MORE && *p < end) {
		switch (l->state) {
		case BETWEEN:
			rc = between(l, p, out, err);
			break;
		case NUMBER:
			rc = number(l, p, end, out, err);
			break;
		case STRING:
			rc = string(l, p, end, out, err);
			break;
		case ESCAPE:
			rc = escape(l, p, err);
			break;
		default:
			rc = unicode(l, p, err);
			break;
		}
	}
	return rc;
}
