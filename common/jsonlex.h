/*
 * Tokens of JSON, as far as a backup manifest has it: objects, lists, strings, and numbers that are not negative and
 * whole.  Bytes may come in any pieces.  Pure.
 *
 * Source: RFC 8259.  Anything else (true, null, fractions) is malformed here.
 */
#ifndef PGR_COMMON_JSONLEX_H
#define PGR_COMMON_JSONLEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

enum pgr_json_token {
	PGR_JSON_OBJECT,     /* { */
	PGR_JSON_OBJECT_END, /* } */
	PGR_JSON_LIST,	     /* [ */
	PGR_JSON_LIST_END,   /* ] */
	PGR_JSON_COLON,
	PGR_JSON_COMMA,
	PGR_JSON_STRING, /* text: its characters */
	PGR_JSON_NUMBER, /* text: its digits */
	PGR_JSON_TOKENS
};

#define PGR_JSON_STRING_MAX 8192 /* bytes of a string */
#define PGR_JSON_NUMBER_MAX 20	 /* digits of UINT64_MAX */

/* The fields up to the line are the caller's to read. */
struct pgr_jsonlex {
	struct pgr_buf text; /* of the last string or number, until the next call; never a NUL in it */
	uint64_t line;	     /* lines ended so far */

	int state;
	uint32_t unit; /* the \uXXXX under way */
	unsigned unit_digits;
	uint32_t high; /* first half of a surrogate pair, 0: none */
};

/* Valid when zeroed, and after fini. */
void pgr_jsonlex_fini(struct pgr_jsonlex *l);

/* Whether the next byte is not inside a token. */
bool pgr_jsonlex_between(const struct pgr_jsonlex *l);

/* Between tokens: moves *p over white space. */
void pgr_jsonlex_space(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end);

/*
 * The next token of the bytes from *p on, which moves behind what was used.  PGR_MORE: all were used, no token is
 * complete yet.  PGR_ERR: PGR_E_DATA (not JSON, a NUL in a string, a lone surrogate, too long), PGR_E_NOMEM.
 */
int pgr_jsonlex_next(struct pgr_jsonlex *l, const uint8_t **p, const uint8_t *end, enum pgr_json_token *out,
		     struct pgr_err *err) PGR_MUST_USE;

#endif
