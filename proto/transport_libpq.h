/*
 * A real transport: libpq opens and authenticates; then socket and TLS are ours, and libpq is not called again but for
 * a cancel request and the end.
 */
#ifndef PGR_PROTO_TRANSPORT_LIBPQ_H
#define PGR_PROTO_TRANSPORT_LIBPQ_H

#include "common/err.h"
#include "proto/conn_params.h"
#include "proto/settings.h"

struct pgr_stop;
struct pgr_sys;
struct pgr_transport;

/*
 * Connects and authenticates, then takes socket and TLS over.  Honours what libpq does: URIs, service files, PG*
 * variables, .pgpass, several hosts, sslmode and certificates, SCRAM with channel binding, connect_timeout; dbname is
 * `replication` for physical connections unless the user named one.  Asks for the password when the server wants one
 * and the mode allows it.  TCP keepalives are on (idle 60 s, interval 10 s, 6 probes) unless the user set them
 * otherwise.  Interruptible by the stop latch, but for the time that the resolver takes for a host name.
 * connect_timeout is for each address, and goes on to the next host, as with libpq.
 *
 * PGR_ERR: PGR_E_CONNECT (libpq's text; with the SQLSTATE when the server refused, or there is no password),
 * PGR_E_USAGE (a malformed connection string, a GSS-encrypted connection, with the hint gssencmode=disable; a server
 * that is not PostgreSQL >= 9.1; integer_datetimes off), PGR_E_STOPPED, what ask_password returned.  Notices of the
 * server before the take-over are dropped.
 *
 * *out is the caller's, to be closed with pgr_transport_close; NULL after a failure.  `sys` and `stop` (NULL: none)
 * outlive the transport.
 */
int pgr_transport_open(struct pgr_transport **out, const struct pgr_sys *sys, struct pgr_stop *stop,
		       struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err) PGR_MUST_USE;

/*
 * The connection settings that somebody set: by option, connection string, service or environment (and the user name,
 * which libpq would otherwise take from the operating system of whoever runs the standby).  libpq's own defaults, and
 * replication and fallback_application_name are left out.  dbname only when the user named one.  *list ends with a NULL
 * keyword; free with pgr_settings_free.  Only for transports of pgr_transport_open.
 */
int pgr_transport_settings(const struct pgr_transport *t, struct pgr_setting **list, struct pgr_err *err) PGR_MUST_USE;

#endif
