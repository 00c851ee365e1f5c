#include "backup/rowsum.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

#include "common/digest.h"
#include "proto/caps.h"
#include "proto/fields.h"

struct algo {
	const char *name;
	size_t len;
	const EVP_MD *(*md)(void);
	const char *before, *after; /* around an expression */
};

static const struct algo algos[] = {
	[PGR_ROWSUM_NONE] = {"no", 0, NULL, "", ""},
	[PGR_ROWSUM_MD5] = {"MD5", 16, EVP_md5, "pg_catalog.decode(pg_catalog.md5(", "), 'hex')"},
	[PGR_ROWSUM_SHA256] = {"SHA-256", 32, EVP_sha256, "pg_catalog.sha256(", ")"},
};

enum pgr_rowsum_algo pgr_rowsum_algo(int server_version)
{
	return pgr_cap_has(server_version, PGR_CAP_SQL_SHA256) ? PGR_ROWSUM_SHA256 : PGR_ROWSUM_MD5;
}

size_t pgr_rowsum_len(enum pgr_rowsum_algo algo)
{
	return algos[algo].len;
}

/* ---- for the server ---- */

int pgr_rowsum_sql(struct pgr_buf *out, enum pgr_rowsum_algo algo, const char *bytes, struct pgr_err *err)
{
	return pgr_buf_printf(out, err, "%s%s%s", algos[algo].before, bytes, algos[algo].after);
}

/* textsend gives the bytes of a text in the client's encoding, which is the server's (see pgr_sql_prepare). */
int pgr_rowsum_row_sql(struct pgr_buf *out, enum pgr_rowsum_algo algo, const char *content, const char *name,
		       const char *offset, const char *length, struct pgr_err *err)
{
	const struct algo *a = &algos[algo];

	return pgr_buf_printf(out, err,
			      "%scoalesce(%s%s%s, '') || pg_catalog.textsend(%s) || pg_catalog.int8send(%s) || "
			      "pg_catalog.int8send(%s)%s",
			      a->before, a->before, content, a->after, name, offset, length, a->after);
}

int pgr_rowsum_wrap(struct pgr_buf *out, enum pgr_rowsum_algo algo, const struct pgr_buf *query, unsigned cols,
		    struct pgr_err *err)
{
	static const char *const names[] = {"a", "a, b", "a, b, c", "a, b, c, d"};
	static const char *const joined[] = {"a", "a, '/', b", "a, '/', b, '/', c", "a, '/', b, '/', c, '/', d"};
	const struct algo *w = &algos[algo];

	if (cols < 1 || cols > sizeof(names) / sizeof(names[0]))
		return pgr_err_set(err, PGR_E_USAGE, "a query of %u columns cannot be checked", cols);
	out->len = 0;
	return pgr_buf_printf(out, err,
			      "SELECT %s, pg_catalog.encode(%spg_catalog.textsend(pg_catalog.concat(%s)) || "
			      "pg_catalog.textsend(pg_catalog.current_query())%s, 'hex') FROM (%.*s OFFSET 0) r (%s)",
			      names[cols - 1], w->before, joined[cols - 1], w->after, (int)query->len,
			      (const char *)query->data, names[cols - 1]);
}

/* ---- here ---- */

/* OpenSSL queues errors per thread; what is left there would end up in those of a TLS connection. */
static int openssl_error(const struct pgr_rowsum *s, struct pgr_err *err)
{
	unsigned long code = ERR_get_error();
	const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return pgr_err_set(err, PGR_E_USAGE, "could not compute %s checksum: %s", algos[s->algo].name,
			   reason != NULL ? reason : "unknown error of the cryptographic library");
}

int pgr_rowsum_init(struct pgr_rowsum *s, enum pgr_rowsum_algo algo, struct pgr_err *err)
{
	s->algo = algo;
	if (algo == PGR_ROWSUM_NONE)
		return PGR_OK;
	if (s->ctx == NULL)
		s->ctx = EVP_MD_CTX_new();
	if (s->ctx == NULL)
		return pgr_err_nomem(err);
	return EVP_DigestInit_ex(s->ctx, algos[algo].md(), NULL) == 1 ? PGR_OK : openssl_error(s, err);
}

void pgr_rowsum_fini(struct pgr_rowsum *s)
{
	EVP_MD_CTX_free(s->ctx);
	*s = (struct pgr_rowsum){0};
}

/* The algorithm is kept: looking it up for every row would cost more than a small row's digest. */
static int begin(struct pgr_rowsum *s, struct pgr_err *err)
{
	return EVP_DigestInit_ex(s->ctx, NULL, NULL) == 1 ? PGR_OK : openssl_error(s, err);
}

static int add(struct pgr_rowsum *s, const void *p, size_t len, struct pgr_err *err)
{
	return len == 0 || EVP_DigestUpdate(s->ctx, p, len) == 1 ? PGR_OK : openssl_error(s, err);
}

static int end(struct pgr_rowsum *s, uint8_t out[PGR_ROWSUM_MAX], struct pgr_err *err)
{
	return EVP_DigestFinal_ex(s->ctx, out, NULL) == 1 ? PGR_OK : openssl_error(s, err);
}

int pgr_rowsum_bytes(struct pgr_rowsum *s, const void *p, size_t len, uint8_t out[PGR_ROWSUM_MAX], struct pgr_err *err)
{
	if (begin(s, err) != PGR_OK || add(s, p, len, err) != PGR_OK)
		return PGR_ERR;
	return end(s, out, err);
}

static int add_number(struct pgr_rowsum *s, uint64_t v, struct pgr_err *err)
{
	uint8_t b[8];

	for (int i = 0; i < 8; i++)
		b[i] = (uint8_t)(v >> (56 - 8 * i));
	return add(s, b, sizeof(b), err);
}

int pgr_rowsum_row(struct pgr_rowsum *s, const struct pgr_rowsum_row *row, uint8_t out[PGR_ROWSUM_MAX],
		   struct pgr_err *err)
{
	size_t inner = 0;

	if (row->content != NULL) {
		if (pgr_rowsum_bytes(s, row->content, row->len, out, err) != PGR_OK)
			return PGR_ERR;
		inner = algos[s->algo].len;
	}
	if (begin(s, err) != PGR_OK || add(s, out, inner, err) != PGR_OK ||
	    add(s, row->name, strlen(row->name), err) != PGR_OK || add_number(s, row->offset, err) != PGR_OK ||
	    add_number(s, row->length, err) != PGR_OK)
		return PGR_ERR;
	return end(s, out, err);
}

static int add_columns(struct pgr_rowsum *s, const struct pgr_row *row, unsigned n, struct pgr_err *err)
{
	for (unsigned i = 0; i < n; i++) {
		struct pgr_span v = pgr_row_col(row, i);

		if ((i > 0 && add(s, "/", 1, err) != PGR_OK) || add(s, v.p, v.len, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

int pgr_rowsum_holds(struct pgr_rowsum *s, const struct pgr_row *row, const struct pgr_buf *text, bool *holds,
		     struct pgr_err *err)
{
	struct pgr_span theirs = pgr_row_col(row, row->ncols - 1);
	uint8_t sum[PGR_ROWSUM_MAX];
	char hex[2 * PGR_ROWSUM_MAX + 1];

	if (begin(s, err) != PGR_OK || add_columns(s, row, row->ncols - 1, err) != PGR_OK ||
	    add(s, text->data, text->len, err) != PGR_OK || end(s, sum, err) != PGR_OK)
		return PGR_ERR;
	pgr_hex(hex, sum, algos[s->algo].len);
	*holds = pgr_span_is(theirs, hex);
	return PGR_OK;
}
