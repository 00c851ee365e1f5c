#include "backup/lane_work.h"

#include <pthread.h>
#include <stdlib.h>

#include "backup/exclude.h"
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
 *   requests, which are out with a lane or in `returned`.
 * - `out` counts the requests that are with lanes: work is over when it is 0 and nothing can be handed out.
 */
struct pgr_lane_work {
	/* constant */
	const struct pgr_filelist *list;
	unsigned lanes;
	bool whole_files;
	uint32_t largest_row;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	size_t *order; /* files: the big ones, largest first, then the small ones */
	size_t norder;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock: */
	size_t next;
	struct cursor *cursors; /* one a lane */
	struct pgr_lane_request *returned;
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

uint64_t pgr_lane_rows(uint64_t size, uint32_t row)
{
	return size == 0 ? 1 : (size - 1) / row + 1;
}

/* ---- making ---- */

static uint64_t weight(const struct pgr_list_entry *e)
{
	return e->size + FILE_COST;
}

/* For qsort_r: the big ones by size, the small ones behind them in their order. */
static int by_size(const void *a, const void *b, void *arg)
{
	const struct pgr_filelist *list = ((const struct pgr_lane_work *)arg)->list;
	size_t x = *(const size_t *)a, y = *(const size_t *)b;
	uint64_t sx = list->entries[x].size, sy = list->entries[y].size;

	if (sx != sy && (sx > SMALL_BYTES || sy > SMALL_BYTES))
		return sx > sy ? -1 : 1;
	return x < y ? -1 : x > y;
}

static int make_order(struct pgr_lane_work *w, struct pgr_err *err)
{
	w->order = calloc(w->list->n + 1, sizeof(*w->order));
	w->cursors = calloc(w->lanes, sizeof(*w->cursors));
	if (w->order == NULL || w->cursors == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < w->list->n; i++) {
		if (w->list->entries[i].is_dir)
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

static bool is_split(const struct pgr_lane_work *w, const struct pgr_list_entry *e)
{
	return !w->whole_files && e->size > SPLIT_BYTES;
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

/* A range of the file at the cursor; the rest of it, when a crumb would be left. */
static struct pgr_lane_request *take_range(struct pgr_lane_work *w, struct cursor *c, struct pgr_err *err)
{
	const struct pgr_list_entry *e = &w->list->entries[c->file];
	uint64_t len = (share(w) + PGR_LANE_ROW - 1) / PGR_LANE_ROW * PGR_LANE_ROW;
	struct pgr_lane_request *r = new_request(1, err);

	if (r == NULL)
		return NULL;
	if (e->size - c->at < len + len / 2)
		len = e->size - c->at;
	r->pieces[0] = (struct pgr_lane_piece){.file = c->file, .from = c->at, .to = c->at + len, .row = PGR_LANE_ROW};
	c->at += len;
	c->active = c->at < e->size;
	w->left -= len;
	return r;
}

/* Whole files, as many as make up a share. */
static struct pgr_lane_request *take_files(struct pgr_lane_work *w, struct pgr_err *err)
{
	uint64_t most = share(w), sum = 0;
	struct pgr_lane_request *r;
	size_t n = 0;

	for (; w->next + n < w->norder; n++) {
		uint64_t more = weight(entry(w, w->next + n));

		if (n > 0 && sum + more > most)
			break;
		sum += more;
	}
	r = new_request(n, err);
	if (r == NULL)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const struct pgr_list_entry *e = entry(w, w->next + i);

		r->pieces[i] = (struct pgr_lane_piece){
			.file = w->order[w->next + i], .to = e->size, .row = pgr_lane_row_bytes(e, w->largest_row)};
	}
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

	if (!c->active && w->next < w->norder && is_split(w, entry(w, w->next))) {
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

static int take_now(struct pgr_lane_work *w, unsigned lane, struct pgr_lane_request **out, struct pgr_err *err)
{
	int rc = PGR_OK;

	if (w->returned != NULL) {
		*out = w->returned;
		w->returned = (*out)->next;
	} else {
		rc = divide(w, lane, out, err);
	}
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
