/*
 * Rows of bytea columns from COPY ... TO STDOUT (FORMAT binary): how a lane reads files over SQL.
 *
 * Payload is received straight into the caller's memory (pgr_client_copy_take), whatever the CopyData messages'
 * boundaries.  Measured against the extended query protocol with binary results, COPY is at least as fast and does not
 * fall off with rows above 128 KiB.
 *
 * Source: PostgreSQL documentation, COPY, "Binary Format".
 */
#ifndef PGR_BACKUP_COPYROWS_H
#define PGR_BACKUP_COPYROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_client;

struct pgr_copyrows {
	struct pgr_client *client;
	unsigned columns;	/* of a row */
	unsigned columns_left;	/* of the present row */
	bool begun;		/* the signature was read */
	bool ended;		/* the trailer was read */
	uint32_t left;		/* bytes of the present row's value that were not read yet */
	const uint8_t *pending; /* payload that came with a message's head */
	size_t pending_len;
};

/* Valid when initialised; needs no fini.  The query was sent on `client`, its answer has not been looked at. */
void pgr_copyrows_init(struct pgr_copyrows *r, struct pgr_client *client);
/* The same for rows of several columns. */
void pgr_copyrows_init_columns(struct pgr_copyrows *r, struct pgr_client *client, unsigned columns);

/*
 * The next row, after skipping what is left of the present one.  PGR_OK: *is_null, or *len bytes of its first value
 * follow.
 * PGR_MORE: the COPY and its query ended in good order (up to and including ReadyForQuery).  PGR_ERR: PGR_E_SERVER
 * (then the query is over, too: read up to ReadyForQuery, unless fatal), PGR_E_PROTOCOL (another number of columns, a
 * bad signature), PGR_E_NETWORK, PGR_E_STOPPED.
 */
int pgr_copyrows_next(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err) PGR_MUST_USE;

/* The same for the next value of the present row, which has one. */
int pgr_copyrows_column(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err) PGR_MUST_USE;

/* Reads 1..cap bytes of the present value straight into dst; *n == 0 at its end. */
int pgr_copyrows_read(struct pgr_copyrows *r, void *dst, size_t cap, size_t *n, struct pgr_err *err) PGR_MUST_USE;

#endif
