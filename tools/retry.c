#include "tools/retry.h"

#include <stddef.h>
#include <string.h>

#include "backup/wal_conn.h"
#include "proto/transport.h"

#define ADMIN_SHUTDOWN "57P01"

/* A new run has a new slot and a new start position: WAL that is gone is none that it needs. */
bool pgr_retry_may(const struct pgr_err *err)
{
	if (err->cls == PGR_E_SERVER && strcmp(err->sqlstate, "58P01") == 0)
		return true;
	return pgr_wal_conn_may_retry(err);
}

bool pgr_retry_is_shutdown(const struct pgr_err *err, struct pgr_conn_params *params, const struct pgr_sys *sys,
			   struct pgr_stop *stop)
{
	int (*ask)(void *, char **, struct pgr_err *) = params->ask_password;
	struct pgr_transport *t;
	struct pgr_err why;
	int rc;

	if (strcmp(err->sqlstate, ADMIN_SHUTDOWN) != 0)
		return false;
	params->ask_password = NULL;
	rc = pgr_transport_open(&t, sys, stop, params, PGR_CONN_PHYSICAL, &why);
	params->ask_password = ask;
	if (rc == PGR_OK)
		pgr_transport_close(t);
	return rc != PGR_OK && (pgr_retry_may(&why) || strcmp(why.sqlstate, ADMIN_SHUTDOWN) == 0);
}

int64_t pgr_retry_wait_ms(unsigned n)
{
	static const int64_t waits[] = {1000, 2000, 5000, 10000, 30000};
	const size_t last = sizeof(waits) / sizeof(waits[0]) - 1;

	return waits[n == 0 ? 0 : n - 1 < last ? n - 1 : last];
}
