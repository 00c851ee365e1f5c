/*
 * What libpq said of a connection that did not come about: the texts of all addresses and hosts that were tried, as one
 * error.
 */
#ifndef PGR_PROTO_LIBPQ_SAID_H
#define PGR_PROTO_LIBPQ_SAID_H

#include <stddef.h>

#include <libpq-fe.h>

#include "common/buf.h"
#include "common/err.h"

/* Valid when zeroed. */
struct pgr_libpq_said {
	struct pgr_buf text;
	size_t heard; /* bytes of the connection's PQerrorMessage that need not be said any more */
};

void pgr_libpq_said_fini(struct pgr_libpq_said *s);

/* Forgets everything: all hosts are tried once more. */
void pgr_libpq_said_reset(struct pgr_libpq_said *s);

/* Another PGconn (with PQERRORS_VERBOSE) is asked from now on; what others said stays. */
void pgr_libpq_said_next(struct pgr_libpq_said *s);

/* The address under way had no time left: the same words as libpq has when it waits itself. */
int pgr_libpq_said_timeout(struct pgr_libpq_said *s, PGconn *conn, struct pgr_err *err) PGR_MUST_USE;

/* What it says of an address that we gave up ourselves is not worth telling. */
void pgr_libpq_said_skip(struct pgr_libpq_said *s, const PGconn *conn);

/* The end: sets *err to PGR_E_CONNECT with all that was said, and the server's SQLSTATE if it had one.  PGR_ERR. */
int pgr_libpq_said_error(struct pgr_libpq_said *s, PGconn *conn, struct pgr_err *err) PGR_MUST_USE;

/*
 * libpq tells the SQLSTATE of a refusal only in verbose messages (pqBuildErrorMessage3 in fe-protocol3.c), which also
 * say where in the server's source it was made.  Takes out of a text what makes them verbose, and newlines at its end;
 * the last SQLSTATE counts, without any `sqlstate` stays as it is.
 */
void pgr_libpq_said_plain(char *text, char sqlstate[6]);

#endif
