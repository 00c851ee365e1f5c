#include "common/digest.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "common/crc32c.h"
#include "common/num.h"

struct pgr_digest {
	enum pgr_digest_algo algo;
	uint32_t crc;
	EVP_MD_CTX *sha; /* NULL where the algorithm is not OpenSSL's */
};

struct algo {
	const char *name;
	size_t len;
	const EVP_MD *(*md)(void);
};
static const struct algo algos[] = {
	[PGR_DIGEST_NONE] = {"NONE", 0, NULL},
	[PGR_DIGEST_CRC32C] = {"CRC32C", 4, NULL},
	[PGR_DIGEST_SHA224] = {"SHA224", 28, EVP_sha224},
	[PGR_DIGEST_SHA256] = {"SHA256", 32, EVP_sha256},
	[PGR_DIGEST_SHA384] = {"SHA384", 48, EVP_sha384},
	[PGR_DIGEST_SHA512] = {"SHA512", 64, EVP_sha512},
};
#define ALGOS (sizeof(algos) / sizeof(algos[0]))

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* Not strcasecmp, whose idea of case is the locale's. */
static bool same_name(const char *given, const char *name)
{
	for (; *name != '\0' && upper(*given) == *name; given++)
		name++;
	return *name == '\0' && *given == '\0';
}

bool pgr_digest_parse(const char *name, enum pgr_digest_algo *out)
{
	for (size_t i = 0; i < ALGOS; i++) {
		if (same_name(name, algos[i].name)) {
			*out = (enum pgr_digest_algo)i;
			return true;
		}
	}
	return false;
}

const char *pgr_digest_name(enum pgr_digest_algo algo)
{
	return (size_t)algo < ALGOS ? algos[algo].name : "?";
}

size_t pgr_digest_len(enum pgr_digest_algo algo)
{
	return (size_t)algo < ALGOS ? algos[algo].len : 0;
}

/* OpenSSL's words; it queues them per thread, and what is left there would end up in the TLS connection's errors. */
static int openssl_error(const struct pgr_digest *d, struct pgr_err *err)
{
	unsigned long code = ERR_get_error();
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return pgr_err_set(err, PGR_E_USAGE, "could not compute %s checksum: %s", pgr_digest_name(d->algo),
			   reason != NULL ? reason : "unknown error of the cryptographic library");
}

static int start_sha(struct pgr_digest *d, struct pgr_err *err)
{
	d->sha = EVP_MD_CTX_new();
	if (d->sha == NULL)
		return pgr_err_nomem(err);
	if (EVP_DigestInit_ex(d->sha, algos[d->algo].md(), NULL) != 1)
		return openssl_error(d, err);
	return PGR_OK;
}

int pgr_digest_new(struct pgr_digest **out, enum pgr_digest_algo algo, struct pgr_err *err)
{
	struct pgr_digest *d;

	*out = NULL;
	if ((size_t)algo >= ALGOS)
		return pgr_err_set(err, PGR_E_USAGE, "unknown checksum algorithm %d", (int)algo);
	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return pgr_err_nomem(err);
	d->algo = algo;
	if (algos[algo].md != NULL && start_sha(d, err) != PGR_OK) {
		pgr_digest_free(d);
		return PGR_ERR;
	}
	*out = d;
	return PGR_OK;
}

int pgr_digest_add(struct pgr_digest *d, const void *data, size_t len, struct pgr_err *err)
{
	if (d->algo == PGR_DIGEST_CRC32C)
		d->crc = pgr_crc32c(d->crc, data, len);
	if (d->sha != NULL && EVP_DigestUpdate(d->sha, data, len) != 1)
		return openssl_error(d, err);
	return PGR_OK;
}

int pgr_digest_end(struct pgr_digest *d, uint8_t out[PGR_DIGEST_MAX], size_t *len, struct pgr_err *err)
{
	*len = 0;
	if (d->sha != NULL && EVP_DigestFinal_ex(d->sha, out, NULL) != 1)
		return openssl_error(d, err);
	if (d->algo == PGR_DIGEST_CRC32C)
		for (int i = 0; i < 4; i++)
			out[i] = (uint8_t)(d->crc >> (8 * i));
	*len = algos[d->algo].len;
	return PGR_OK;
}

void pgr_digest_free(struct pgr_digest *d)
{
	if (d == NULL)
		return;
	EVP_MD_CTX_free(d->sha);
	free(d);
}

void pgr_hex(char *out, const uint8_t *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[data[i] >> 4];
		*out++ = digits[data[i] & 0x0F];
	}
	*out = '\0';
}

bool pgr_unhex(uint8_t *out, const char *hex, size_t len)
{
	uint64_t byte;

	if (len % 2 != 0)
		return false;
	for (size_t i = 0; i < len; i += 2) {
		if (!pgr_num_hex64(hex + i, 2, &byte))
			return false;
		*out++ = (uint8_t)byte;
	}
	return true;
}
