/*
 * UTF-8 as the backup manifest has it: what PostgreSQL calls valid UTF-8 is what RFC 3629 does: no overlong forms, no
 * surrogates, nothing beyond U+10FFFF.
 */
#ifndef PGR_COMMON_UTF8_H
#define PGR_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether all of s[0..len) is valid UTF-8.  (A NUL is a character like others.) */
bool pgr_utf8_valid(const char *s, size_t len);

/* Writes a character (up to 0x10FFFF, no surrogate) and returns its length, 1 to 4. */
size_t pgr_utf8_put(char out[4], uint32_t c);

#endif
