#include "backup/lane_added.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * A request is worth one with about so many bytes, pieces or comparisons: the query has a line for each piece, and a
 * big file of which it has a piece stays open until the others are dealt with.
 */
#define WORTH_BYTES   ((uint64_t)1024 * 1024)
#define WORTH_PIECES  ((size_t)256)
#define WORTH_BATCHES 8

void pgr_lane_added_init(struct pgr_lane_added *a)
{
	*a = (struct pgr_lane_added){0};
	a->tail = &a->full;
}

void pgr_lane_added_fini(struct pgr_lane_added *a)
{
	for (struct pgr_lane_request *r; (r = pgr_lane_added_take(a, true)) != NULL;)
		free(r);
}

static void end_filling(struct pgr_lane_added *a)
{
	if (a->filling == NULL)
		return;
	a->filling->next = NULL;
	*a->tail = a->filling;
	a->tail = &a->filling->next;
	a->filling = NULL;
}

/* So that there is one with room for n more pieces. */
static int make_room(struct pgr_lane_added *a, size_t n, struct pgr_err *err)
{
	size_t had = a->filling != NULL ? a->filling->n : 0;
	struct pgr_lane_request *r = realloc(a->filling, sizeof(*r) + (had + n) * sizeof(r->pieces[0]));

	if (r == NULL)
		return pgr_err_nomem(err);
	if (had == 0) {
		memset(r, 0, sizeof(*r));
		a->batches = 0;
	}
	a->filling = r;
	return PGR_OK;
}

int pgr_lane_added_put(struct pgr_lane_added *a, const struct pgr_lane_piece *pieces, size_t n, struct pgr_err *err)
{
	if (a->filling != NULL && a->filling->n + n > WORTH_PIECES)
		end_filling(a);
	if (make_room(a, n, err) != PGR_OK)
		return PGR_ERR;
	memcpy(&a->filling->pieces[a->filling->n], pieces, n * sizeof(*pieces));
	a->filling->n += n;
	a->batches++;
	if (a->batches == WORTH_BATCHES || pgr_lane_request_bytes(a->filling) >= WORTH_BYTES)
		end_filling(a);
	return PGR_OK;
}

struct pgr_lane_request *pgr_lane_added_take(struct pgr_lane_added *a, bool any)
{
	struct pgr_lane_request *r;

	if (any && a->full == NULL)
		end_filling(a);
	r = a->full;
	if (r == NULL)
		return NULL;
	a->full = r->next;
	if (a->full == NULL)
		a->tail = &a->full;
	return r;
}
