#include "tools/retry.h"

#include <stddef.h>
#include <string.h>

#include "backup/wal_conn.h"

/* A new run has a new slot and a new start position: WAL that is gone is none that it needs. */
bool pgr_retry_may(const struct pgr_err *err)
{
	if (err->cls == PGR_E_SERVER && strcmp(err->sqlstate, "58P01") == 0)
		return true;
	return pgr_wal_conn_may_retry(err);
}

int64_t pgr_retry_wait_ms(unsigned n)
{
	static const int64_t waits[] = {1000, 2000, 5000, 10000, 30000};
	const size_t last = sizeof(waits) / sizeof(waits[0]) - 1;

	return waits[n == 0 ? 0 : n - 1 < last ? n - 1 : last];
}
