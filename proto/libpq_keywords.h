/*
 * What libpq is told, and which of the settings that it then has somebody made.
 *
 * Later keywords win over earlier ones (PQconnectdbParams), so that their order is: what comes from us, from -d, from
 * the other options, the password, and the hosts that are left to try.  They are those that GetConnection of
 * src/bin/pg_basebackup/streamutil.c has, so that both find the same server and password.
 */
#ifndef PGR_PROTO_LIBPQ_KEYWORDS_H
#define PGR_PROTO_LIBPQ_KEYWORDS_H

#include <stddef.h>

#include <libpq-fe.h>

#include "common/err.h"
#include "proto/conn_params.h"

struct pgr_hosts;
struct pgr_setting;

/* Valid when zeroed. */
struct pgr_libpq_keywords {
	const struct pgr_conn_params *params;
	PQconninfoOption *conninfo; /* -d, parsed; NULL */
	char *dbname;		    /* that the user named, but the pseudo-database replication; NULL */
	const char **kw, **val;
	size_t n;
	size_t user_from; /* kw[user_from..user_to) were set by the user */
	size_t user_to;
};

/* `params` outlives it.  PGR_E_USAGE: -d is no connection string; the text is libpq's. */
int pgr_libpq_keywords_init(struct pgr_libpq_keywords *k, const struct pgr_conn_params *params, enum pgr_conn_mode mode,
			    struct pgr_err *err) PGR_MUST_USE;
void pgr_libpq_keywords_fini(struct pgr_libpq_keywords *k);

/* PQconnectStartParams, with the password as it is now, to the hosts that are left.  NULL: no memory. */
PGconn *pgr_libpq_keywords_start(struct pgr_libpq_keywords *k, const struct pgr_hosts *left);

/*
 * What somebody set of the settings that libpq made of keywords, service file and environment (see
 * pgr_transport_settings).  *list is the caller's, to be freed with pgr_settings_free; NULL after a failure.
 */
int pgr_libpq_keywords_settings(const struct pgr_libpq_keywords *k, PGconn *conn, struct pgr_setting **list,
				struct pgr_err *err) PGR_MUST_USE;

#endif
