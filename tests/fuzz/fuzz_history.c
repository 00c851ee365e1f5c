/*
 * A timeline history file of an unfriendly server.  The first byte chooses the timeline, the rest is the file.
 */
#include <stdlib.h>

#include "receiver/history.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check(const struct pgr_history *h, pgr_tli tli)
{
	pgr_lsn end = 0;

	if (h->n == 0 || h->entries[h->n - 1].tli != tli || h->entries[h->n - 1].end != PGR_LSN_INVALID)
		abort();
	for (size_t i = 0; i < h->n; i++) {
		if (h->entries[i].tli == 0 || (i > 0 && h->entries[i].tli <= h->entries[i - 1].tli))
			abort();
		if (i < 64 && (!pgr_history_find(h, h->entries[i].tli, &end) || end != h->entries[i].end))
			abort();
	}
	if (pgr_history_find(h, 0, &end) || (tli < UINT32_MAX && pgr_history_find(h, tli + 1, &end)))
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct pgr_history h;
	struct pgr_err err;
	pgr_tli tli;

	if (size == 0)
		return 0;
	tli = data[0] < 200 ? data[0] + 1u : UINT32_MAX - (255u - data[0]);
	if (pgr_history_parse(&h, tli, (const char *)data + 1, size - 1, &err) == PGR_OK)
		check(&h, tli);
	else if (h.entries != NULL || (err.cls != PGR_E_DATA && err.cls != PGR_E_NOMEM))
		abort();
	pgr_history_fini(&h);
	return 0;
}
