/* SHA-2 by OpenSSL, one interface for the algorithms of a backup manifest. */
#ifndef PGR_COMMON_DIGEST_H
#define PGR_COMMON_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum pgr_digest_algo {
	PGR_DIGEST_NONE,
	PGR_DIGEST_CRC32C,
	PGR_DIGEST_SHA224,
	PGR_DIGEST_SHA256,
	PGR_DIGEST_SHA384,
	PGR_DIGEST_SHA512
};

#define PGR_DIGEST_MAX 64 /* bytes of the longest */

struct pgr_digest;

/* Any case: "crc32c", "SHA256".  False when unknown. */
bool pgr_digest_parse(const char *name, enum pgr_digest_algo *out);
const char *pgr_digest_name(enum pgr_digest_algo algo); /* as the manifest writes it: "CRC32C", "SHA256" */
size_t pgr_digest_len(enum pgr_digest_algo algo);	/* bytes of a result; 0 for NONE */

/* Starts a digest.  CRC32C is computed with common/crc32c; its result is the 4 bytes in little-endian order, as the
 * manifest has it. */
int pgr_digest_new(struct pgr_digest **out, enum pgr_digest_algo algo, struct pgr_err *err) PGR_MUST_USE;
int pgr_digest_add(struct pgr_digest *d, const void *data, size_t len, struct pgr_err *err) PGR_MUST_USE;
/* Ends it; *len bytes (0 for NONE). The digest can then only be freed. */
int pgr_digest_end(struct pgr_digest *d, uint8_t out[PGR_DIGEST_MAX], size_t *len, struct pgr_err *err) PGR_MUST_USE;
void pgr_digest_free(struct pgr_digest *d);

/* Lower-case hex and a NUL: out has 2 * len + 1 bytes. */
void pgr_hex(char *out, const uint8_t *data, size_t len);

/* The reverse, either case: `len` digits become len / 2 bytes.  False: an odd number, or not hex (out is undefined). */
bool pgr_unhex(uint8_t *out, const char *hex, size_t len);

#endif
