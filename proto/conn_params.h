/*
 * How to connect: what the options of a program say, and the password that a person was asked for.
 */
#ifndef PGR_PROTO_CONN_PARAMS_H
#define PGR_PROTO_CONN_PARAMS_H

#include <stdbool.h>

#include "common/err.h"

enum pgr_conn_mode {
	PGR_CONN_PHYSICAL, /* replication=true: replication commands only */
	PGR_CONN_SQL,	   /* an ordinary SQL session, in the database postgres unless the user named one */
};

enum pgr_password_mode { PGR_PASSWORD_IF_NEEDED, PGR_PASSWORD_NEVER, PGR_PASSWORD_ALWAYS };

/*
 * Filled by the tool from its options; shared by all connections of a run (not at the same time while the password has
 * not been asked yet).  The strings are the tool's.
 */
struct pgr_conn_params {
	const char *conninfo; /* -d: connection string or URI; NULL */
	const char *host;     /* -h; NULL: libpq's rules */
	const char *port;     /* -p */
	const char *user;     /* -U */
	const char *progname; /* fallback_application_name */
	enum pgr_password_mode password_mode;
	char *password; /* once asked: malloc'd, kept for the other connections; freed by pgr_conn_params_fini */
	bool password_asked;
	/* Reads a password without echo.  *out is malloc'd.  PGR_ERR when there is no one to ask.  NULL: nobody asks.
	 */
	int (*ask_password)(void *arg, char **out, struct pgr_err *err);
	void *ask_arg;
};

/* Overwrites and frees the password. */
void pgr_conn_params_fini(struct pgr_conn_params *p);

/* Whether a person may be asked for a password: not against his will, and once. */
bool pgr_conn_params_may_ask(const struct pgr_conn_params *p);

/* Asks and keeps the answer.  PGR_ERR: what ask_password returned; nothing has changed then. */
int pgr_conn_params_ask(struct pgr_conn_params *p, struct pgr_err *err) PGR_MUST_USE;

#endif
