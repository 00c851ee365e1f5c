#include "tools/retry.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "backup/sql.h"
#include "backup/wal_conn.h"
#include "common/num.h"
#include "proto/client.h"
#include "proto/transport.h"
#include "proto/transport_libpq.h"

#define ADMIN_SHUTDOWN "57P01"

/* A new run has a new slot and a new start position: WAL that is gone is none that it needs. */
bool pgr_retry_may(const struct pgr_err *err)
{
	if (err->cls == PGR_E_SERVER && strcmp(err->sqlstate, "58P01") == 0)
		return true;
	return pgr_wal_conn_may_retry(err);
}

/* ---- which server ---- */

/* A list of addresses belongs to a list of hosts, and one host alone would not go with it. */
static bool has_address_list(const struct pgr_transport *t)
{
	struct pgr_setting *list;
	struct pgr_err ignored;
	bool found = false;

	if (pgr_transport_settings(t, &list, &ignored) != PGR_OK)
		return true;
	for (const struct pgr_setting *s = list; s->keyword != NULL; s++)
		found |= strcmp(s->keyword, "hostaddr") == 0 && strchr(s->value, ',') != NULL;
	pgr_settings_free(list);
	return found;
}

/* Another host of the list, or another one behind a balancer, knows nothing of this one. */
static struct pgr_conn_params params_of(const struct pgr_retry_server *s, const struct pgr_conn_params *params)
{
	struct pgr_conn_params p = *params;

	p.ask_password = NULL;
	if (s->host[0] != '\0') {
		p.host = s->host;
		p.port = s->port;
	}
	return p;
}

static int read_start(struct pgr_client *c, int64_t *out, struct pgr_err *err)
{
	struct pgr_result *r;
	const char *text;
	size_t len;
	int rc = PGR_OK;

	if (pgr_sql_query(c, &r, err,
			  "SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint") !=
	    PGR_OK)
		return PGR_ERR;
	text = pgr_result_cell(r, 0, 0, &len);
	if (text == NULL || !pgr_num_i64(text, len, out))
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "the server does not say when it was started");
	pgr_result_free(r);
	return rc;
}

/* Opens a session, and asks in one of SQL when the server was started; of no other kind can that be asked. */
static int ask(const struct pgr_retry_server *s, const struct pgr_conn_params *params, enum pgr_conn_mode mode,
	       const struct pgr_sys *sys, struct pgr_stop *stop, int64_t *started_us, struct pgr_err *err)
{
	struct pgr_conn_params p = params_of(s, params);
	struct pgr_transport *t;
	struct pgr_client *c;
	int rc = PGR_OK;

	*started_us = 0;
	if (pgr_transport_open(&t, sys, stop, &p, mode, err) != PGR_OK ||
	    pgr_client_new(&c, t, sys, NULL, NULL, err) != PGR_OK)
		return PGR_ERR;
	if (mode == PGR_CONN_SQL)
		rc = read_start(c, started_us, err);
	pgr_client_free(c);
	return rc;
}

void pgr_retry_note(struct pgr_retry_server *out, const struct pgr_transport *t, const struct pgr_conn_params *params,
		    const struct pgr_sys *sys, struct pgr_stop *stop)
{
	struct pgr_err ignored;

	*out = (struct pgr_retry_server){0};
	if (!has_address_list(t)) {
		snprintf(out->host, sizeof(out->host), "%s", t->server_host);
		snprintf(out->port, sizeof(out->port), "%s", t->server_port);
	}
	if (ask(out, params, PGR_CONN_SQL, sys, stop, &out->started_us, &ignored) != PGR_OK)
		out->started_us = 0;
}

/* ---- what became of it ---- */

bool pgr_retry_is_down(const struct pgr_err *why)
{
	static const char *const states[] = {ADMIN_SHUTDOWN, "57P02", "57P03"};

	switch (why->cls) {
	case PGR_E_NETWORK:
		return true;
	case PGR_E_CONNECT:
	case PGR_E_SERVER:
		for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
			if (strcmp(why->sqlstate, states[i]) == 0)
				return true;
		return why->cls == PGR_E_CONNECT && why->sqlstate[0] == '\0';
	default:
		return false;
	}
}

/*
 * Before a server tells its sessions that it shuts down it has begun to refuse new ones (57P03), so one that answers
 * and was not started again did not tell them.
 */
bool pgr_retry_was_shutdown(const struct pgr_retry_server *s, const struct pgr_err *err,
			    const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop)
{
	enum pgr_conn_mode mode = s->started_us != 0 ? PGR_CONN_SQL : PGR_CONN_PHYSICAL;
	struct pgr_err why;
	int64_t now_us;

	if (strcmp(err->sqlstate, ADMIN_SHUTDOWN) != 0)
		return false;
	if (ask(s, params, mode, sys, stop, &now_us, &why) != PGR_OK)
		return pgr_retry_is_down(&why);
	return now_us != s->started_us;
}
