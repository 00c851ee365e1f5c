/*
 * --verify-transfer: what the server computes of every row that it sends, and the same computed here.
 *
 * The digest of a row says what was read, and also what the server took the request for, so that a request that was
 * damaged on its way is noticed, too:
 *	digest(digest(content) || name || offset || length)
 * The inner one is missing for a file that does not exist; numbers are the request's, as 8 bytes, big-endian.
 */
#ifndef PGR_BACKUP_ROWSUM_H
#define PGR_BACKUP_ROWSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct pgr_row;

enum pgr_rowsum_algo {
	PGR_ROWSUM_NONE,
	PGR_ROWSUM_MD5, /* for servers that have no sha256() */
	PGR_ROWSUM_SHA256,
};

#define PGR_ROWSUM_MAX 32

/* How often something is read again that came damaged: as often as a lost connection is tried again. */
#define PGR_ROWSUM_TRIES 5

/* The best that a server of this version can compute over SQL. */
enum pgr_rowsum_algo pgr_rowsum_algo(int server_version);
size_t pgr_rowsum_len(enum pgr_rowsum_algo algo); /* bytes; 0 for NONE */

/* Appends the SQL expression, a bytea, for the digest of the expression `bytes`. */
int pgr_rowsum_sql(struct pgr_buf *out, enum pgr_rowsum_algo algo, const char *bytes, struct pgr_err *err) PGR_MUST_USE;

/* Appends the one for the digest of a row with `content`, `name` (text), `offset` and `length` (bigint). */
int pgr_rowsum_row_sql(struct pgr_buf *out, enum pgr_rowsum_algo algo, const char *content, const char *name,
		       const char *offset, const char *length, struct pgr_err *err) PGR_MUST_USE;

/*
 * Wraps a query of `cols` columns (1 to 4): `out` then holds one that has a further column of text, the digest of the
 * others (their text, with a slash between) and of the text of the command as it came to the server, in hex.
 */
int pgr_rowsum_wrap(struct pgr_buf *out, enum pgr_rowsum_algo algo, const struct pgr_buf *query, unsigned cols,
		    struct pgr_err *err) PGR_MUST_USE;

/* Computes them; of one thread.  Valid for _fini when zeroed. */
struct pgr_rowsum {
	enum pgr_rowsum_algo algo;
	void *ctx;
};

/* Again for another algorithm is allowed.  PGR_E_USAGE: the cryptographic library does not have it (FIPS). */
int pgr_rowsum_init(struct pgr_rowsum *s, enum pgr_rowsum_algo algo, struct pgr_err *err) PGR_MUST_USE;
void pgr_rowsum_fini(struct pgr_rowsum *s);

int pgr_rowsum_bytes(struct pgr_rowsum *s, const void *p, size_t len, uint8_t out[PGR_ROWSUM_MAX],
		     struct pgr_err *err) PGR_MUST_USE;

/* *holds: the last column of a row that `text` (of pgr_rowsum_wrap) brought is the digest of the others. */
int pgr_rowsum_holds(struct pgr_rowsum *s, const struct pgr_row *row, const struct pgr_buf *text, bool *holds,
		     struct pgr_err *err) PGR_MUST_USE;

/* Of a row of a file. */
struct pgr_rowsum_row {
	const void *content; /* NULL: there is no such file */
	size_t len;
	const char *name;
	uint64_t offset, length; /* that were asked for */
};
int pgr_rowsum_row(struct pgr_rowsum *s, const struct pgr_rowsum_row *row, uint8_t out[PGR_ROWSUM_MAX],
		   struct pgr_err *err) PGR_MUST_USE;

#endif
