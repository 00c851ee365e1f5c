/* Numbers in text: options of a person, values of a server.  Never locale dependent. */
#ifndef PGR_COMMON_NUM_H
#define PGR_COMMON_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parse exactly `len` bytes of decimal digits (with one leading '-' for the signed form); false: malformed or out of
 * range. */
bool pgr_num_u64(const char *s, size_t len, uint64_t *out);
bool pgr_num_i64(const char *s, size_t len, int64_t *out);
bool pgr_num_u32(const char *s, size_t len, uint32_t *out);

/* Parses exactly `len` hex digits of either case, 1 to 16 of them. */
bool pgr_num_hex64(const char *s, size_t len, uint64_t *out);

/* For a person: "1,234,567". */
struct pgr_num_text {
	char text[28];
};
struct pgr_num_text pgr_num_grouped(uint64_t n);

/* For a person: "17 bytes", "3.9 GB", "112 MB" (of 1000s); cut, not rounded, so that a part is never shown as all. */
struct pgr_num_text pgr_num_bytes(uint64_t n);

#endif
