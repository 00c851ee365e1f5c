#include "proto/libpq_connect.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/num.h"
#include "common/sys.h"
#include "proto/hosts.h"
#include "proto/libpq_keywords.h"
#include "proto/libpq_said.h"
#include "proto/settings.h"
#include "proto/transport_socket.h"

#define INVALID_PASSWORD "28P01"

#define MIN_CONNECT_TIMEOUT_S 2 /* as libpq: rounding would make 1 s fail at random */

/* One run of pgr_libpq_connect. */
struct opening {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_conn_params *params;
	struct pgr_libpq_keywords keywords;
	PGconn *conn;
	bool needs_password;
	struct pgr_setting *settings; /* that somebody set, of the first attempt */
	int64_t timeout_ms;	      /* connect_timeout for an address; 0: none */
	int64_t deadline;	      /* of the address under way */
	char address[768];
	struct pgr_hosts left; /* to try after a timeout; they point into `settings` */
	struct pgr_libpq_said said;
};

/* ---- the time that an address has ---- */

/* libpq leaves connect_timeout to whoever polls. */
static int read_timeout(struct opening *o, struct pgr_err *err)
{
	const char *text = pgr_settings_find(o->settings, "connect_timeout");
	int64_t s = 0;

	if (text == NULL)
		return PGR_OK;
	if (!pgr_num_i64(text, strlen(text), &s) || s < INT_MIN || s > INT_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "invalid integer value \"%s\" for connection option \"%s\"", text,
				   "connect_timeout");
	if (s > 0)
		o->timeout_ms = 1000 * (s < MIN_CONNECT_TIMEOUT_S ? MIN_CONNECT_TIMEOUT_S : s);
	return PGR_OK;
}

/* connect_timeout is for each address; an address has no number in libpq's interface, but a text. */
static void start_clock(struct opening *o)
{
	char address[sizeof(o->address)];

	snprintf(address, sizeof(address), "%.255s %.255s %.63s", pgr_setting_text(PQhost(o->conn)),
		 pgr_setting_text(PQhostaddr(o->conn)), pgr_setting_text(PQport(o->conn)));
	if (o->timeout_ms == 0 || strcmp(address, o->address) == 0)
		return;
	strcpy(o->address, address);
	o->deadline = o->sys->mono_ms(o->sys) + o->timeout_ms;
}

/* ---- one attempt ---- */

/* PGR_OK: the socket (another one after each PQconnectPoll) is ready; PGR_MORE: the time of this address is over. */
static int wait_for_libpq(struct opening *o, PostgresPollingStatusType want, struct pgr_err *err)
{
	struct pgr_socket s = {0};
	unsigned got;

	pgr_socket_init(&s, o->sys, o->stop, PQsocket(o->conn), NULL);
	if (pgr_socket_wait(&s.t, want == PGRES_POLLING_READING ? PGR_WAIT_READ : PGR_WAIT_WRITE, -1, o->deadline, &got,
			    err) != PGR_OK)
		return PGR_ERR;
	return got & (PGR_WAIT_READ | PGR_WAIT_WRITE) ? PGR_OK : PGR_MORE;
}

/*
 * PGR_OK: connected.  PGR_MORE: this host did not answer in time.  A connect(2) that hangs is ended from our side, upon
 * which libpq goes on to its next address by itself; in all later states it would take that for a failure.
 */
static int poll_libpq(struct opening *o, struct pgr_err *err)
{
	PostgresPollingStatusType want = PGRES_POLLING_WRITING;

	while (want == PGRES_POLLING_READING || want == PGRES_POLLING_WRITING) {
		bool hung = false;

		start_clock(o);

		int rc = wait_for_libpq(o, want, err);

		if (rc == PGR_ERR || (rc == PGR_MORE && pgr_libpq_said_timeout(&o->said, o->conn, err) != PGR_OK))
			return PGR_ERR;
		if (rc == PGR_MORE) {
			hung = PQstatus(o->conn) == CONNECTION_STARTED;
			if (!hung || shutdown(PQsocket(o->conn), SHUT_RDWR) != 0)
				return PGR_MORE;
		}
		want = PQconnectPoll(o->conn);
		if (hung) {
			pgr_libpq_said_skip(&o->said, o->conn);
			o->address[0] = '\0'; /* another one, with its own time */
		}
	}
	return want == PGRES_POLLING_OK ? PGR_OK : pgr_libpq_said_error(&o->said, o->conn, err);
}

/* Libraries do not print; the server's notices before the take-over have nobody to hear them. */
static void drop_notice(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

/* Of the first attempt: later ones may name fewer hosts. */
static int learn_settings(struct opening *o, struct pgr_err *err)
{
	if (o->settings != NULL)
		return PGR_OK;
	if (pgr_libpq_keywords_settings(&o->keywords, o->conn, &o->settings, err) != PGR_OK)
		return PGR_ERR;
	return read_timeout(o, err);
}

static int start_libpq(struct opening *o, struct pgr_err *err)
{
	pgr_libpq_said_next(&o->said);
	o->address[0] = '\0';
	o->deadline = PGR_NO_DEADLINE;
	o->conn = pgr_libpq_keywords_start(&o->keywords, &o->left);
	if (o->conn == NULL)
		return pgr_err_nomem(err);
	PQsetNoticeProcessor(o->conn, drop_notice, NULL);
	PQsetErrorVerbosity(o->conn, PQERRORS_VERBOSE); /* see pgr_libpq_said_plain */
	if (PQstatus(o->conn) == CONNECTION_BAD)
		return pgr_libpq_said_error(&o->said, o->conn, err);
	return learn_settings(o, err);
}

/* After a host that took the connection and then said nothing.  False: there are no others. */
static bool next_host(struct opening *o)
{
	return pgr_hosts_after(&o->left, o->settings, pgr_setting_text(PQhost(o->conn)),
			       pgr_setting_text(PQport(o->conn)));
}

/* PGR_MORE: not with this host, but there are others. */
static int attempt(struct opening *o, struct pgr_err *err)
{
	int rc = start_libpq(o, err);

	if (rc == PGR_OK)
		rc = poll_libpq(o, err);
	if (rc == PGR_MORE && !next_host(o))
		rc = pgr_libpq_said_error(&o->said, o->conn, err);
	if (rc != PGR_OK) {
		o->needs_password = o->conn != NULL && PQconnectionNeedsPassword(o->conn) != 0;
		if (o->needs_password && err->cls == PGR_E_CONNECT)
			memcpy(err->sqlstate, INVALID_PASSWORD, sizeof(INVALID_PASSWORD)); /* libpq's own refusal */
		PQfinish(o->conn);
		o->conn = NULL;
	}
	return rc;
}

/* ---- all hosts, and the password ---- */

static int connect_hosts(struct opening *o, struct pgr_err *err)
{
	int rc;

	o->left = (struct pgr_hosts){0};
	pgr_libpq_said_reset(&o->said);
	pgr_settings_free(o->settings);
	o->settings = NULL;
	do
		rc = attempt(o, err);
	while (rc == PGR_MORE);
	return rc;
}

static int connect_with_password(struct opening *o, struct pgr_err *err)
{
	if (o->params->password_mode == PGR_PASSWORD_ALWAYS && pgr_conn_params_may_ask(o->params) &&
	    pgr_conn_params_ask(o->params, err) != PGR_OK)
		return PGR_ERR;
	if (connect_hosts(o, err) == PGR_OK)
		return PGR_OK;
	if (!o->needs_password || !pgr_conn_params_may_ask(o->params))
		return PGR_ERR;
	return pgr_conn_params_ask(o->params, err) == PGR_OK ? connect_hosts(o, err) : PGR_ERR;
}

static void opening_fini(struct opening *o)
{
	if (o->conn != NULL)
		PQfinish(o->conn);
	pgr_settings_free(o->settings);
	pgr_libpq_said_fini(&o->said);
	pgr_libpq_keywords_fini(&o->keywords);
}

int pgr_libpq_connect(PGconn **conn, struct pgr_setting **settings, const struct pgr_sys *sys, struct pgr_stop *stop,
		      struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err)
{
	struct opening o = {.sys = sys, .stop = stop, .params = params};
	int rc = pgr_libpq_keywords_init(&o.keywords, params, mode, err);

	*conn = NULL;
	*settings = NULL;
	if (rc == PGR_OK)
		rc = connect_with_password(&o, err);
	if (rc == PGR_OK) {
		*conn = o.conn;
		*settings = o.settings;
		o.conn = NULL;
		o.settings = NULL;
	}
	opening_fini(&o);
	return rc;
}
