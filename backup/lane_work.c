#include "backup/lane_work.h"

#include <pthread.h>
#include <stdlib.h>

#include "backup/delta_plan.h"
#include "backup/exclude.h"
#include "backup/lane_added.h"
#include "common/stop.h"

#define MIB ((uint64_t)1024 * 1024)

/*
 * A request should last longer than the round trip that the one behind it needs, and short enough that lanes end
 * together: its share of what is left, within these limits.
 */
#define REQUEST_MAX (16 * MIB)
#define REQUEST_MIN (1 * MIB)
#define SHARES	    4 /* so many requests a lane are to come, at least */

/* Above, a file is read in ranges.  Below, it is not worth two lanes. */
#define SPLIT_BYTES (8 * MIB)

/* Above, the order is by size; below, files come as they are listed, directory by directory. */
#define SMALL_BYTES (1 * MIB)

/* What a file costs beside its bytes (open, close, sync, its place in the query), in bytes. */
#define FILE_COST ((uint64_t)16 * 1024)

/* A big file that lanes are reading: what was not handed out begins at `at`. */
struct cursor {
	bool active;
	size_t file;
	uint64_t at;
};

/*
 * - A file is, in this order: in `order` at or behind `next`; at one cursor, as far as it was not handed out; in
 *   requests, which are out with a lane or in `returned`.  What was added is in `added`, and then goes the same way.
 * - `out` counts the requests that are with lanes: work is over when it is 0 and nothing can be handed out.
 */
struct pgr_lane_work {
	/* constant */
	const struct pgr_filelist *list;
	const struct pgr_delta_plan *plan;
	unsigned lanes;
	bool compare_only;
	bool whole_files;
	uint32_t largest_row;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	size_t *order; /* files: the big ones, largest first, then the small ones, those to be compared first */
	size_t norder;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock: */
	size_t next;
	struct cursor *cursors; /* one a lane */
	struct pgr_lane_request *returned;
	struct pgr_lane_added added;
	unsigned out;
	uint64_t left; /* weight that was not handed out */
};

/* ---- rows ---- */

uint64_t pgr_lane_request_bytes(const struct pgr_lane_request *r)
{
	uint64_t n = 0;

	for (size_t i = r->at; i < r->n; i++)
		n += r->pieces[i].to - r->pieces[i].from;
	return n;
}

uint32_t pgr_lane_row_bytes(const struct pgr_list_entry *e, uint32_t largest)
{
	struct pgr_relfile ignored;

	if (largest > PGR_LANE_ROW_MAX)
		largest = PGR_LANE_ROW_MAX;
	if (e->size <= PGR_LANE_ROW || e->size > largest || pgr_relfile_parse(e->path, &ignored))
		return PGR_LANE_ROW;
	return largest;
}

uint32_t pgr_lane_whole_bytes(const struct pgr_list_entry *e, uint64_t from, uint64_t to, uint32_t largest)
{
	struct pgr_relfile ignored;

	if (largest > PGR_LANE_ROW_MAX)
		largest = PGR_LANE_ROW_MAX;
	return from == 0 && to == e->size && to > 0 && to <= largest && !pgr_relfile_parse(e->path, &ignored) ? largest
													      : 0;
}

uint32_t pgr_lane_chunk_bytes(const struct pgr_list_entry *e, uint32_t largest)
{
	struct pgr_relfile ignored;

	if (largest > PGR_LANE_ROW_MAX)
		largest = PGR_LANE_ROW_MAX;
	if (e->size <= PGR_LANE_CHUNK || e->size > largest || pgr_relfile_parse(e->path, &ignored))
		return PGR_LANE_CHUNK;
	return pgr_lane_row_bytes(e, largest);
}

uint64_t pgr_lane_compare_end(const struct pgr_filelist *list, const struct pgr_delta_plan *plan, size_t i,
			      uint32_t largest)
{
	const struct pgr_list_entry *e = &list->entries[i];
	uint64_t here;

	if (plan == NULL || plan->files[i].action != PGR_DELTA_COMPARE)
		return 0;
	here = plan->files[i].local_size;
	return here >= e->size ? e->size : here - here % pgr_lane_chunk_bytes(e, largest);
}

/* ---- making ---- */

static uint64_t weight(const struct pgr_list_entry *e)
{
	return e->size + FILE_COST;
}

static uint64_t compare_end(const struct pgr_lane_work *w, size_t file)
{
	return pgr_lane_compare_end(w->list, w->plan, file, w->largest_row);
}

/* For qsort_r: the big ones by size, the small ones behind them in their order, such that requests of many are of one
 * kind. */
static int by_size(const void *a, const void *b, void *arg)
{
	const struct pgr_lane_work *w = arg;
	size_t x = *(const size_t *)a, y = *(const size_t *)b;
	uint64_t sx = w->list->entries[x].size, sy = w->list->entries[y].size;
	bool cx = compare_end(w, x) > 0, cy = compare_end(w, y) > 0;

	if (sx != sy && (sx > SMALL_BYTES || sy > SMALL_BYTES))
		return sx > sy ? -1 : 1;
	if (cx != cy)
		return cx ? -1 : 1;
	return x < y ? -1 : x > y;
}

static bool is_work(const struct pgr_lane_work *w, size_t file)
{
	if (w->list->entries[file].is_dir || (w->plan != NULL && w->plan->files[file].action == PGR_DELTA_KEEP))
		return false;
	return !w->compare_only || compare_end(w, file) > 0;
}

static int make_order(struct pgr_lane_work *w, struct pgr_err *err)
{
	w->order = calloc(w->list->n + 1, sizeof(*w->order));
	w->cursors = calloc(w->lanes, sizeof(*w->cursors));
	if (w->order == NULL || w->cursors == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < w->list->n; i++) {
		if (!is_work(w, i))
			continue;
		w->order[w->norder++] = i;
		w->left += weight(&w->list->entries[i]);
	}
	qsort_r(w->order, w->norder, sizeof(*w->order), by_size, w);
	return PGR_OK;
}

static void wake_all(void *arg)
{
	struct pgr_lane_work *w = arg;

	pthread_mutex_lock(&w->lock);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static int init_locks(struct pgr_lane_work *w, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&w->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&w->changed, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_mutex_destroy(&w->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

static void free_memory(struct pgr_lane_work *w)
{
	free(w->order);
	free(w->cursors);
	free(w);
}

int pgr_lane_work_new(struct pgr_lane_work **out, const struct pgr_lane_work_opts *opts, struct pgr_stop *stop,
		      struct pgr_err *err)
{
	struct pgr_lane_work *w = calloc(1, sizeof(*w));

	*out = NULL;
	if (w == NULL)
		return pgr_err_nomem(err);
	w->list = opts->list;
	w->plan = opts->plan;
	w->compare_only = opts->compare_only;
	pgr_lane_added_init(&w->added);
	w->lanes = opts->lanes;
	w->whole_files = opts->whole_files;
	w->largest_row = opts->largest_row;
	w->stop = stop;
	w->waker = (struct pgr_waker){.fn = wake_all, .arg = w};
	if (make_order(w, err) != PGR_OK || init_locks(w, err) != PGR_OK) {
		free_memory(w);
		return PGR_ERR;
	}
	pgr_stop_watch(stop, &w->waker);
	*out = w;
	return PGR_OK;
}

void pgr_lane_work_free(struct pgr_lane_work *w)
{
	if (w == NULL)
		return;
	pgr_stop_unwatch(w->stop, &w->waker);
	while (w->returned != NULL) {
		struct pgr_lane_request *r = w->returned;

		w->returned = r->next;
		free(r);
	}
	pgr_lane_added_fini(&w->added);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free_memory(w);
}

/* ---- dividing: all under lock ---- */

static const struct pgr_list_entry *entry(const struct pgr_lane_work *w, size_t i)
{
	return &w->list->entries[w->order[i]];
}

static uint64_t share(const struct pgr_lane_work *w)
{
	uint64_t n = w->left / w->lanes / SHARES;

	return n > REQUEST_MAX ? REQUEST_MAX : n < REQUEST_MIN ? REQUEST_MIN : n;
}

/* The sum of a file that lies here may be made afterwards: it is not for its sake that it comes in order. */
static bool is_split(const struct pgr_lane_work *w, size_t file)
{
	bool whole = w->whole_files && (w->plan == NULL || w->plan->files[file].action != PGR_DELTA_COMPARE);

	return !whole && w->list->entries[file].size > SPLIT_BYTES;
}

static struct pgr_lane_request *new_request(size_t n, struct pgr_err *err)
{
	struct pgr_lane_request *r = calloc(1, sizeof(*r) + n * sizeof(r->pieces[0]));

	if (r == NULL)
		pgr_err_nomem(err);
	else
		r->n = n;
	return r;
}

/* A range of the file at the cursor; the rest of it, when a crumb would be left.  What is to be compared comes first.
 */
static struct pgr_lane_request *take_range(struct pgr_lane_work *w, struct cursor *c, struct pgr_err *err)
{
	const struct pgr_list_entry *e = &w->list->entries[c->file];
	uint64_t len = (share(w) + PGR_LANE_ROW - 1) / PGR_LANE_ROW * PGR_LANE_ROW;
	uint64_t compared = compare_end(w, c->file), end = c->at < compared ? compared : e->size;
	struct pgr_lane_request *r = new_request(1, err);

	if (r == NULL)
		return NULL;
	if (end - c->at < len + len / 2)
		len = end - c->at;
	r->compare = c->at < compared;
	r->pieces[0] = (struct pgr_lane_piece){
		.file = c->file, .from = c->at, .to = c->at + len, .row = r->compare ? PGR_LANE_CHUNK : PGR_LANE_ROW};
	c->at += len;
	c->active = c->at < (w->compare_only ? compared : e->size);
	w->left -= len;
	return r;
}

/* A whole file as a piece.  What it is longer than here is fetched behind its comparison. */
static struct pgr_lane_piece whole(const struct pgr_lane_work *w, size_t file, bool *compare)
{
	const struct pgr_list_entry *e = &w->list->entries[file];
	uint64_t compared = compare_end(w, file);
	struct pgr_lane_piece p = {.file = file, .to = e->size, .row = pgr_lane_row_bytes(e, w->largest_row)};

	*compare = compared > 0;
	if (compared == 0) {
		p.ask = pgr_lane_whole_bytes(e, 0, p.to, w->largest_row);
		return p;
	}
	p.to = compared;
	p.tail = compared < e->size && !w->compare_only ? e->size : 0;
	p.row = pgr_lane_chunk_bytes(e, w->largest_row);
	return p;
}

/* Whole files of one kind, as many as make up a share. */
static struct pgr_lane_request *take_files(struct pgr_lane_work *w, struct pgr_err *err)
{
	bool compare = compare_end(w, w->order[w->next]) > 0;
	uint64_t most = share(w), sum = 0;
	struct pgr_lane_request *r;
	size_t n = 0;

	for (; w->next + n < w->norder; n++) {
		uint64_t more = weight(entry(w, w->next + n));

		if (n > 0 && (sum + more > most || (compare_end(w, w->order[w->next + n]) > 0) != compare))
			break;
		sum += more;
	}
	r = new_request(n, err);
	if (r == NULL)
		return NULL;
	for (size_t i = 0; i < n; i++)
		r->pieces[i] = whole(w, w->order[w->next + i], &r->compare);
	w->next += n;
	w->left -= sum;
	return r;
}

/* The cursor with the most left; NULL. */
static struct cursor *richest(struct pgr_lane_work *w)
{
	struct cursor *best = NULL;
	uint64_t most = 0;

	for (unsigned i = 0; i < w->lanes; i++) {
		struct cursor *c = &w->cursors[i];
		uint64_t left = c->active ? w->list->entries[c->file].size - c->at : 0;

		if (left > most) {
			most = left;
			best = c;
		}
	}
	return best;
}

/*
 * A lane goes on with its own big file, then begins the next one, then helps with the others', so that several lanes
 * meet in one file only at the end.  Small files come last: they make the best filling.  PGR_MORE: nothing is left.
 */
static int divide(struct pgr_lane_work *w, unsigned lane, struct pgr_lane_request **out, struct pgr_err *err)
{
	struct cursor *c = &w->cursors[lane];

	if (!c->active && w->next < w->norder && is_split(w, w->order[w->next])) {
		*c = (struct cursor){.active = true, .file = w->order[w->next++]};
		w->left -= FILE_COST;
	}
	if (!c->active)
		c = richest(w);
	if (c == NULL && w->next == w->norder)
		return PGR_MORE;
	*out = c != NULL ? take_range(w, c, err) : take_files(w, err);
	return *out != NULL ? PGR_OK : PGR_ERR;
}

/* ---- handing out ---- */

int pgr_lane_work_add(struct pgr_lane_work *w, const struct pgr_lane_piece *pieces, size_t n, struct pgr_err *err)
{
	int rc;

	if (n == 0)
		return PGR_OK;
	pthread_mutex_lock(&w->lock);
	rc = pgr_lane_added_put(&w->added, pieces, n, err);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return rc;
}

/* What was added comes first, so that it does not pile up; what is not yet worth a request last. */
static int take_now(struct pgr_lane_work *w, unsigned lane, struct pgr_lane_request **out, struct pgr_err *err)
{
	int rc = PGR_OK;

	if (w->returned != NULL) {
		*out = w->returned;
		w->returned = (*out)->next;
	} else if ((*out = pgr_lane_added_take(&w->added, false)) == NULL) {
		rc = divide(w, lane, out, err);
	}
	if (rc == PGR_MORE && (*out = pgr_lane_added_take(&w->added, true)) != NULL)
		rc = PGR_OK;
	if (rc == PGR_OK) {
		(*out)->next = NULL;
		w->out++;
	}
	return rc;
}

int pgr_lane_work_take(struct pgr_lane_work *w, unsigned lane, bool wait, struct pgr_lane_request **out,
		       struct pgr_err *err)
{
	int rc;

	*out = NULL;
	pthread_mutex_lock(&w->lock);
	while ((rc = pgr_stop_check(w->stop, err)) == PGR_OK) {
		rc = take_now(w, lane, out, err);
		if (rc != PGR_MORE || !wait || w->out == 0)
			break;
		pthread_cond_wait(&w->changed, &w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	return rc;
}

void pgr_lane_work_done(struct pgr_lane_work *w, struct pgr_lane_request **r)
{
	free(*r);
	*r = NULL;
	pthread_mutex_lock(&w->lock);
	if (--w->out == 0)
		pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void pgr_lane_work_return(struct pgr_lane_work *w, struct pgr_lane_request **r)
{
	if (*r == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	(*r)->next = w->returned;
	w->returned = *r;
	w->out--;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	*r = NULL;
}
