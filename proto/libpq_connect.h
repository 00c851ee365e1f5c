/*
 * The connection that libpq makes: polled, with a time limit for each address and a person who may be asked for the
 * password.
 *
 * PostgreSQL documentation: "Database Connection Control Functions" (PQconnectPoll).
 */
#ifndef PGR_PROTO_LIBPQ_CONNECT_H
#define PGR_PROTO_LIBPQ_CONNECT_H

#include <libpq-fe.h>

#include "common/err.h"
#include "proto/conn_params.h"

struct pgr_setting;
struct pgr_stop;
struct pgr_sys;

/*
 * What pgr_transport_open says of connecting and its errors.  *conn and *settings (see pgr_transport_settings) are the
 * caller's: PQfinish, pgr_settings_free; NULL after a failure.
 */
int pgr_libpq_connect(PGconn **conn, struct pgr_setting **settings, const struct pgr_sys *sys, struct pgr_stop *stop,
		      struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err) PGR_MUST_USE;

#endif
