#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/lane_query.h"
#include "backup/lane_work.h"
#include "common/stop.h"

#define KIB ((uint64_t)1024)
#define MIB (KIB * 1024)

/* ---- a list, and what was handed out of it ---- */

static struct pgr_list_entry entries[4000];
static char names[4000][40];
static struct pgr_filelist list;
static struct pgr_delta_file actions[4000];
static struct pgr_delta_plan plan;
static uint64_t handed[4000]; /* bytes up to which a file was handed out, in order */
static uint64_t rows[4000];
static struct pgr_stop *stop;
static struct pgr_lane_work *work;
static struct pgr_err err;

static uint64_t rows_of(uint64_t size, uint32_t row)
{
	return size == 0 ? 1 : (size - 1) / row + 1;
}

static void setup(void)
{
	memset(entries, 0, sizeof(entries));
	memset(handed, 0, sizeof(handed));
	memset(rows, 0, sizeof(rows));
	list = (struct pgr_filelist){.entries = entries};
	work = NULL;
	ck_assert_int_eq(pgr_stop_new(&stop, &err), PGR_OK);
}

static void teardown(void)
{
	pgr_lane_work_free(work);
	pgr_stop_free(stop);
}

static void add(const char *path, uint64_t size)
{
	snprintf(names[list.n], sizeof(names[0]), "%s", path);
	entries[list.n] = (struct pgr_list_entry){.path = names[list.n], .size = size};
	list.n++;
}

static void add_relation(uint64_t size)
{
	char path[40];

	snprintf(path, sizeof(path), "base/5/%zu", 16384 + list.n);
	add(path, size);
}

static void add_dir(const char *path)
{
	add(path, 4096);
	entries[list.n - 1].is_dir = true;
}

static void make(unsigned lanes, bool whole_files)
{
	struct pgr_lane_work_opts o = {
		.list = &list, .lanes = lanes, .whole_files = whole_files, .largest_row = PGR_LANE_ROW_MAX};

	ck_assert_int_eq(pgr_lane_work_new(&work, &o, stop, &err), PGR_OK);
}

static struct pgr_lane_request *take(unsigned lane)
{
	struct pgr_lane_request *r;
	int rc = pgr_lane_work_take(work, lane, false, &r, &err);

	ck_assert_int_ne(rc, PGR_ERR);
	ck_assert(rc == PGR_MORE ? r == NULL : r != NULL);
	return r;
}

/* What is asked for belongs to the files, begins at rows, and is a range of one file, or whole ones. */
static unsigned wrong_in(const struct pgr_lane_request *r)
{
	unsigned wrong = r->n == 0 || r->at != 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct pgr_lane_piece *p = &r->pieces[i];
		const struct pgr_list_entry *e = &entries[p->file];

		wrong += p->file >= list.n || e->is_dir || p->to > e->size || p->from > p->to;
		wrong += p->from == p->to && e->size != 0;
		wrong += p->row != pgr_lane_row_bytes(e, PGR_LANE_ROW_MAX) || p->from % p->row != 0;
		wrong += r->n > 1 && (p->from != 0 || p->to != e->size);
		rows[p->file] += rows_of(p->to - p->from, p->row);
	}
	return wrong;
}

/* Ranges of a file come in order as long as nothing is given back. */
static unsigned count(const struct pgr_lane_request *r)
{
	unsigned wrong = wrong_in(r);

	for (size_t i = 0; i < r->n; i++) {
		wrong += handed[r->pieces[i].file] != r->pieces[i].from;
		handed[r->pieces[i].file] = r->pieces[i].to;
	}
	return wrong;
}

static void done(struct pgr_lane_request *r)
{
	pgr_lane_work_done(work, &r);
	ck_assert_ptr_null(r);
}

static void check_all_handed_out(void)
{
	unsigned wrong = 0;

	for (size_t i = 0; i < list.n; i++) {
		uint32_t row = pgr_lane_row_bytes(&entries[i], PGR_LANE_ROW_MAX);

		if (entries[i].is_dir)
			wrong += handed[i] != 0 || rows[i] != 0;
		else
			wrong += handed[i] != entries[i].size || rows[i] != rows_of(entries[i].size, row);
	}
	ck_assert_uint_eq(wrong, 0);
}

/* Lanes take in turn until nothing is left.  Returns how many requests that were. */
static unsigned take_all(unsigned lanes)
{
	unsigned n = 0, wrong = 0;

	for (unsigned lane = 0;; lane = (lane + 1) % lanes) {
		struct pgr_lane_request *r = take(lane);

		if (r == NULL)
			break;
		wrong += count(r);
		done(r);
		n++;
	}
	ck_assert_uint_eq(wrong, 0);
	check_all_handed_out();
	return n;
}

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static void add_mixture(uint32_t seed)
{
	add_dir("base");
	add_dir("base/5");
	for (int i = 0; i < 1500; i++) {
		uint64_t kind = next_random(&seed) % 100;
		uint64_t some = next_random(&seed);

		if (kind < 10)
			add_relation(0);
		else if (kind < 80)
			add_relation(some % 20 * 8192);
		else if (kind < 95)
			add_relation(some % (3 * MIB));
		else
			add_relation(some % (300 * MIB));
	}
	add("postgresql.conf", 300000);
	add("log/postgresql.log", 40 * MIB + 17);
}

START_TEST(all_is_handed_out_once)
{
	add_mixture((uint32_t)_i);
	make((unsigned)_i % 5 + 1, _i % 2 == 1);
	take_all((unsigned)_i % 5 + 1);
}
END_TEST

START_TEST(nothing_to_do)
{
	struct pgr_lane_request *r;

	add_dir("base");
	make(3, false);
	ck_assert_ptr_null(take(0));
	ck_assert_int_eq(pgr_lane_work_take(work, 2, true, &r, &err), PGR_MORE);
}
END_TEST

/* Requests grow smaller: the last ones of many lanes are short, the first ones of much work are not. */
START_TEST(requests_shrink)
{
	uint64_t first, last = 0;
	struct pgr_lane_request *r;

	for (uint64_t i = 0; i < 8; i++)
		add_relation(1024 * MIB + i * 8192);
	make(4, false);
	r = take(0);
	first = pgr_lane_request_bytes(r);
	done(r);
	ck_assert_uint_eq(first, 16 * MIB);
	for (unsigned lane = 0; (r = take(lane % 4)) != NULL; lane++) {
		last = pgr_lane_request_bytes(r);
		ck_assert_uint_le(last, 24 * MIB);
		ck_assert_uint_ge(last, MIB / 2); /* no crumbs */
		done(r);
	}
	ck_assert_uint_le(last, 2 * MIB);
}
END_TEST

/* Lanes have a file each as long as there are enough, then help each other. */
START_TEST(a_file_to_a_lane)
{
	struct pgr_lane_request *a, *b, *c;

	add_relation(100 * MIB);
	add_relation(300 * MIB);
	add_relation(8192);
	make(3, false);
	a = take(0);
	b = take(1);
	c = take(2); /* the largest is far from its end */
	ck_assert_uint_eq(a->pieces[0].file, 1);
	ck_assert_uint_eq(a->pieces[0].from, 0);
	ck_assert_uint_eq(b->pieces[0].file, 0);
	ck_assert_uint_eq(c->pieces[0].file, 1);
	ck_assert_uint_eq(c->pieces[0].from, a->pieces[0].to);
	done(a);
	done(c);
	a = take(1); /* goes on with its own */
	ck_assert_uint_eq(a->pieces[0].file, 0);
	ck_assert_uint_eq(a->pieces[0].from, b->pieces[0].to);
	done(a);
	done(b);
}
END_TEST

START_TEST(whole_files_stay_whole)
{
	struct pgr_lane_request *r;

	add_relation(1024 * MIB);
	add_relation(2048 * MIB);
	add_relation(1);
	make(8, true);
	r = take(0);
	ck_assert_uint_eq(r->n, 1);
	ck_assert_uint_eq(r->pieces[0].file, 1);
	ck_assert_uint_eq(r->pieces[0].from, 0);
	ck_assert_uint_eq(r->pieces[0].to, 2048 * MIB);
	done(r);
	count(r = take(1));
	ck_assert_uint_eq(r->pieces[0].file, 0);
	done(r);
	r = take(2);
	ck_assert_uint_eq(r->pieces[0].file, 2);
	done(r);
	ck_assert_ptr_null(take(0));
}
END_TEST

/* Many small files travel together, in the order of the list, however they differ in size. */
START_TEST(small_files_together)
{
	struct pgr_lane_request *r;
	size_t expect = 0, most = 0;

	for (int i = 0; i < 3000; i++)
		add_relation((uint64_t)(i * 37 % 100) * 8192);
	make(2, false);
	while ((r = take(0)) != NULL) {
		ck_assert_uint_eq(count(r), 0);
		ck_assert_uint_eq(r->pieces[0].file, expect);
		expect = r->pieces[r->n - 1].file + 1;
		most = r->n > most ? r->n : most;
		ck_assert_uint_le(r->n, 1024);
		done(r);
	}
	ck_assert_uint_eq(expect, 3000);
	ck_assert_uint_ge(most, 30);
	check_all_handed_out();
}
END_TEST

START_TEST(empty_files_have_a_row)
{
	struct pgr_lane_request *r;

	for (int i = 0; i < 10; i++)
		add_relation(0);
	make(1, _i == 1);
	r = take(0);
	ck_assert_uint_eq(r->n, 10);
	ck_assert_uint_eq(pgr_lane_request_bytes(r), 0);
	ck_assert_uint_eq(count(r), 0);
	ck_assert_uint_eq(rows[9], 1);
	done(r);
	ck_assert_ptr_null(take(0));
}
END_TEST

static const struct {
	const char *path;
	uint64_t size;
	uint32_t largest, row;
} row_sizes[] = {
	{"postgresql.conf", 100, MIB, PGR_LANE_ROW},
	{"postgresql.conf", PGR_LANE_ROW, MIB, PGR_LANE_ROW},
	{"postgresql.conf", PGR_LANE_ROW + 1, MIB, MIB},
	{"postgresql.conf", MIB, MIB, MIB},
	{"postgresql.conf", MIB + 1, MIB, PGR_LANE_ROW},
	{"postgresql.conf", 200 * 1024, 256 * 1024, 256 * 1024},
	{"postgresql.conf", 300 * 1024, 256 * 1024, PGR_LANE_ROW},
	{"postgresql.conf", 3 * MIB, 16 * MIB, PGR_LANE_ROW},
	{"base/5/16384", PGR_LANE_ROW + 1, MIB, PGR_LANE_ROW},
	{"base/5/16384_fsm.1", PGR_LANE_ROW + 1, MIB, PGR_LANE_ROW},
	{"base/5/other", PGR_LANE_ROW + 1, MIB, MIB},
};

START_TEST(row_bytes)
{
	struct pgr_list_entry e = {.size = row_sizes[_i].size};
	char path[64];

	snprintf(path, sizeof(path), "%s", row_sizes[_i].path);
	e.path = path;
	ck_assert_uint_eq(pgr_lane_row_bytes(&e, row_sizes[_i].largest), row_sizes[_i].row);
}
END_TEST

/* ---- with a plan ---- */

static void make_delta(unsigned lanes, bool compare_only, bool whole_files)
{
	struct pgr_lane_work_opts o = {.list = &list,
				       .plan = &plan,
				       .lanes = lanes,
				       .compare_only = compare_only,
				       .whole_files = whole_files,
				       .largest_row = PGR_LANE_ROW_MAX};

	plan.files = actions;
	plan.n = list.n;
	ck_assert_int_eq(pgr_lane_work_new(&work, &o, stop, &err), PGR_OK);
}

static void act(enum pgr_delta_action action, uint64_t here)
{
	actions[list.n - 1] = (struct pgr_delta_file){.action = action, .local_size = here};
}

/* Every byte once, compared up to the end of what is here, the rest fetched. */
static unsigned wrong_in_delta(const struct pgr_lane_request *r, bool compare_only)
{
	unsigned wrong = r->n == 0 || r->at != 0;

	for (size_t i = 0; i < r->n; i++) {
		const struct pgr_lane_piece *p = &r->pieces[i];
		const struct pgr_list_entry *e = &entries[p->file];
		uint64_t end = pgr_lane_compare_end(&list, &plan, p->file, PGR_LANE_ROW_MAX);

		wrong += p->from != handed[p->file] || p->to > e->size || actions[p->file].action == PGR_DELTA_KEEP;
		wrong += r->compare != (p->from < end);
		wrong += r->compare && (p->to > end || p->row != pgr_lane_chunk_bytes(e, PGR_LANE_ROW_MAX));
		wrong += !r->compare && (compare_only || p->row != pgr_lane_row_bytes(e, PGR_LANE_ROW_MAX));
		wrong += p->tail != 0 && (!r->compare || p->to != end || p->tail != e->size || compare_only);
		handed[p->file] = p->tail != 0 ? p->tail : p->to;
		rows[p->file]++;
	}
	return wrong;
}

START_TEST(delta_is_handed_out_once)
{
	bool compare_only = _i % 3 == 0;
	unsigned wrong = 0, lane = 0;
	uint32_t seed = (uint32_t)_i + 5;
	struct pgr_lane_request *r;

	add_mixture((uint32_t)_i);
	for (size_t i = 0; i < list.n; i++) {
		uint64_t kind = next_random(&seed) % 10, size = entries[i].size;

		actions[i].action = kind < 6 ? PGR_DELTA_COMPARE : kind < 9 ? PGR_DELTA_FETCH : PGR_DELTA_KEEP;
		actions[i].local_size = kind < 3 ? size : kind == 3 ? size / 2 : kind == 4 ? 2 * size : 0;
	}
	make_delta(4, compare_only, _i % 2 == 0);
	while ((r = take(lane++ % 4)) != NULL) {
		wrong += wrong_in_delta(r, compare_only);
		done(r);
	}
	for (size_t i = 0; i < list.n; i++) {
		uint64_t end = compare_only ? pgr_lane_compare_end(&list, &plan, i, PGR_LANE_ROW_MAX) : entries[i].size;

		if (entries[i].is_dir || actions[i].action == PGR_DELTA_KEEP)
			end = 0;
		wrong += handed[i] != end || (end == 0 && !compare_only && !entries[i].is_dir &&
					      rows[i] != (actions[i].action != PGR_DELTA_KEEP));
	}
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

static const struct {
	const char *path;
	uint64_t size, here, chunk, end;
} compared[] = {
	{"base/5/16384", MIB, MIB, PGR_LANE_CHUNK, MIB},
	{"base/5/16384", MIB + 5, MIB + 5, PGR_LANE_CHUNK, MIB + 5},
	{"base/5/16384", MIB + 5, 3 * MIB, PGR_LANE_CHUNK, MIB + 5},
	{"base/5/16384", 3 * MIB, MIB + 5, PGR_LANE_CHUNK, MIB},
	{"base/5/16384", 3 * MIB, PGR_LANE_CHUNK - 1, PGR_LANE_CHUNK, 0},
	{"base/5/16384", 3 * MIB, 0, PGR_LANE_CHUNK, 0},
	{"base/5/16384", 0, 8192, PGR_LANE_CHUNK, 0},
	{"base/5/16384", 0, 0, PGR_LANE_CHUNK, 0},
	{"some.conf", 100, 100, PGR_LANE_CHUNK, 100},
	{"some.conf", 100, 99, PGR_LANE_CHUNK, 0},
	{"some.conf", 100000, 100000, PGR_LANE_ROW, 100000},
	{"some.conf", 200000, 200000, PGR_LANE_ROW_MAX, 200000},
	{"some.conf", 200000, 199999, PGR_LANE_ROW_MAX, 0},
	{"some.conf", 200000, 200001, PGR_LANE_ROW_MAX, 200000},
	{"some.conf", 3 * MIB, MIB + 5, PGR_LANE_CHUNK, MIB},
};

START_TEST(what_is_compared)
{
	add(compared[_i].path, compared[_i].size);
	act(PGR_DELTA_COMPARE, compared[_i].here);
	make_delta(1, false, false);
	ck_assert_uint_eq(pgr_lane_chunk_bytes(&entries[0], PGR_LANE_ROW_MAX), compared[_i].chunk);
	ck_assert_uint_eq(pgr_lane_compare_end(&list, &plan, 0, PGR_LANE_ROW_MAX), compared[_i].end);
	ck_assert_uint_eq(pgr_lane_compare_end(&list, NULL, 0, PGR_LANE_ROW_MAX), 0);
	act(PGR_DELTA_FETCH, compared[_i].here);
	ck_assert_uint_eq(pgr_lane_compare_end(&list, &plan, 0, PGR_LANE_ROW_MAX), 0);
}
END_TEST

/* With a SHA manifest a file that is made stays whole, one that is compared need not. */
START_TEST(whole_files_of_a_plan)
{
	struct pgr_lane_request *r;

	add_relation(100 * MIB);
	act(PGR_DELTA_COMPARE, 100 * MIB);
	add_relation(90 * MIB);
	act(PGR_DELTA_FETCH, 0);
	make_delta(2, false, true);
	r = take(0);
	ck_assert_uint_eq(r->pieces[0].file, 0);
	ck_assert_uint_lt(r->pieces[0].to, 100 * MIB);
	done(r);
	while ((r = take(1))->pieces[0].file == 0)
		done(r);
	ck_assert_uint_eq(r->pieces[0].to - r->pieces[0].from, 90 * MIB);
	done(r);
}
END_TEST

static int add_pieces(size_t file, size_t n, uint64_t bytes)
{
	struct pgr_lane_piece pieces[600];

	for (size_t i = 0; i < n; i++)
		pieces[i] = (struct pgr_lane_piece){
			.file = file, .from = i * 2 * bytes, .to = i * 2 * bytes + bytes, .row = PGR_LANE_ROW};
	return pgr_lane_work_add(work, pieces, n, &err);
}

/* What comparisons add is gathered, comes first when there is enough of it, and last when there is not. */
START_TEST(added_is_gathered)
{
	struct pgr_lane_request *r, *out;

	for (int i = 0; i < 3; i++) {
		add_relation(40 * MIB);
		act(PGR_DELTA_COMPARE, 40 * MIB);
	}
	make_delta(2, false, false);
	out = take(0);
	ck_assert_int_eq(add_pieces(0, 0, 1), PGR_OK);
	ck_assert_int_eq(add_pieces(0, 3, PGR_LANE_CHUNK), PGR_OK);
	r = take(0);
	ck_assert(r->compare); /* too little so far */
	done(r);
	ck_assert_int_eq(add_pieces(1, 40, PGR_LANE_CHUNK), PGR_OK);
	ck_assert_int_eq(add_pieces(2, 1, PGR_LANE_CHUNK), PGR_OK);
	r = take(1);
	ck_assert(!r->compare);
	ck_assert_uint_eq(r->n, 43);
	ck_assert_uint_eq(r->pieces[0].file, 0);
	ck_assert_uint_eq(r->pieces[3].file, 1);
	ck_assert_uint_eq(r->pieces[42].to, 79 * PGR_LANE_CHUNK);
	done(r);
	for (int i = 0; i < 300; i += 60) /* of five, four have room with the one before */
		ck_assert_int_eq(add_pieces(0, 60, 100), PGR_OK);
	r = take(1);
	ck_assert_uint_eq(r->n, 1 + 4 * 60);
	ck_assert(!r->compare);
	done(r);
	while ((r = take(0)) != NULL && r->compare)
		done(r);
	ck_assert_ptr_nonnull(r);
	done(r);
	while ((r = take(0)) != NULL)
		done(r);
	done(out);
}
END_TEST

/* A big batch is one request; few of little content are one, too. */
START_TEST(added_batches)
{
	struct pgr_lane_request *r, *out;
	unsigned n = 0;

	add_relation(1);
	act(PGR_DELTA_COMPARE, 1);
	make_delta(2, false, false);
	out = take(0);
	ck_assert_int_eq(add_pieces(0, 600, PGR_LANE_CHUNK), PGR_OK);
	for (int i = 0; i < 17; i++)
		ck_assert_int_eq(add_pieces(0, 1, 100), PGR_OK);
	r = take(1);
	ck_assert_uint_eq(r->n, 600);
	done(r);
	while ((r = take(1)) != NULL) {
		ck_assert_uint_le(r->n, 8);
		n += (unsigned)r->n;
		done(r);
	}
	ck_assert_uint_eq(n, 17);
	ck_assert_int_eq(add_pieces(0, 5, 100), PGR_OK); /* and is freed with the work */
	ck_assert_int_eq(add_pieces(0, 300, 100), PGR_OK);
	done(out);
}
END_TEST

/* ---- giving back, waiting ---- */

START_TEST(what_comes_back_is_next)
{
	struct pgr_lane_request *a, *b, *none = NULL;

	add_relation(100 * MIB);
	add_relation(1 * MIB);
	make(2, false);
	a = take(0);
	a->pieces[0].from += PGR_LANE_ROW;
	uint64_t from = a->pieces[0].from, left = pgr_lane_request_bytes(a);
	pgr_lane_work_return(work, &a);
	ck_assert_ptr_null(a);
	pgr_lane_work_return(work, &none);
	b = take(1);
	ck_assert_uint_eq(b->pieces[0].file, 0);
	ck_assert_uint_eq(b->pieces[0].from, from);
	ck_assert_uint_eq(pgr_lane_request_bytes(b), left);
	b->at = 1;
	ck_assert_uint_eq(pgr_lane_request_bytes(b), 0);
	done(b);
	handed[0] = (left + from);
	unsigned wrong = 0;
	while ((a = take(0)) != NULL) {
		wrong += count(a);
		done(a);
	}
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(handed[0], 100 * MIB);
}
END_TEST

/* Freed with requests that came back and nobody took. */
START_TEST(left_over)
{
	struct pgr_lane_request *a, *b;

	add_mixture(1);
	make(2, false);
	a = take(0);
	b = take(1);
	pgr_lane_work_return(work, &a);
	pgr_lane_work_return(work, &b);
}
END_TEST

struct waiter {
	pthread_t thread;
	atomic_bool ended;
	int rc;
	struct pgr_lane_request *got;
	struct pgr_err err;
};

static void *wait_for_work(void *arg)
{
	struct waiter *w = arg;

	w->rc = pgr_lane_work_take(work, 1, true, &w->got, &w->err);
	atomic_store(&w->ended, true);
	return NULL;
}

static void begin_waiting(struct waiter *w)
{
	memset(w, 0, sizeof(*w));
	ck_assert_int_eq(pthread_create(&w->thread, NULL, wait_for_work, w), 0);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	ck_assert(!atomic_load(&w->ended));
}

/* A lane without work waits until the last request is done, or comes back, or everything stops. */
START_TEST(waits_for_the_end)
{
	struct pgr_lane_request *a;
	struct waiter w;

	add_relation(1);
	make(2, false);
	a = take(0);
	begin_waiting(&w);
	pgr_lane_work_done(work, &a);
	pthread_join(w.thread, NULL);
	ck_assert_int_eq(w.rc, PGR_MORE);
	ck_assert_ptr_null(w.got);
}
END_TEST

START_TEST(waits_for_what_comes_back)
{
	struct pgr_lane_request *a;
	struct waiter w;

	add_relation(1);
	make(2, false);
	a = take(0);
	begin_waiting(&w);
	pgr_lane_work_return(work, &a);
	pthread_join(w.thread, NULL);
	ck_assert_int_eq(w.rc, PGR_OK);
	ck_assert_uint_eq(w.got->pieces[0].to, 1);
	done(w.got);
	ck_assert_int_eq(pgr_lane_work_take(work, 0, true, &a, &err), PGR_MORE);
}
END_TEST

START_TEST(waits_for_what_is_added)
{
	const struct pgr_lane_piece piece = {.to = 1, .row = PGR_LANE_ROW};
	struct pgr_lane_request *a;
	struct waiter w;

	add_relation(1);
	make(2, false);
	a = take(0);
	begin_waiting(&w);
	ck_assert_int_eq(pgr_lane_work_add(work, &piece, 1, &err), PGR_OK);
	pthread_join(w.thread, NULL);
	ck_assert_int_eq(w.rc, PGR_OK);
	ck_assert(!w.got->compare);
	done(w.got);
	done(a);
	ck_assert_int_eq(pgr_lane_work_take(work, 0, true, &a, &err), PGR_MORE);
}
END_TEST

START_TEST(stops_waiting)
{
	struct pgr_lane_request *a;
	struct waiter w;
	struct pgr_err why;

	add_relation(1);
	add_relation(100 * MIB);
	make(2, true);
	a = take(0);
	done(take(0));
	begin_waiting(&w);
	pgr_err_set(&why, PGR_E_DATA, "bad");
	pgr_stop_post(stop, &why);
	pthread_join(w.thread, NULL);
	ck_assert_int_eq(w.rc, PGR_ERR);
	ck_assert_int_eq(w.err.cls, PGR_E_STOPPED);
	pgr_lane_work_return(work, &a);
	ck_assert_int_eq(pgr_lane_work_take(work, 0, false, &a, &err), PGR_ERR); /* though there would be one */
	ck_assert_ptr_null(a);
}
END_TEST

/* Many threads at once: each byte is handed out once, also when requests come back half done. */
struct taker {
	pthread_t thread;
	unsigned lane;
	uint64_t bytes, rows;
	bool failed;
};

static void *take_and_return(void *arg)
{
	struct taker *t = arg;
	uint32_t seed = t->lane;
	struct pgr_lane_request *r;
	struct pgr_err e;
	int rc;

	while ((rc = pgr_lane_work_take(work, t->lane, true, &r, &e)) == PGR_OK) {
		while (r->at < r->n) {
			struct pgr_lane_piece *p = &r->pieces[r->at];
			uint64_t n = p->to - p->from < p->row ? p->to - p->from : p->row;

			t->bytes += n;
			t->rows++;
			p->from += n;
			if (p->from == p->to)
				r->at++;
			if (next_random(&seed) % 500 == 0)
				break;
		}
		if (r->at < r->n)
			pgr_lane_work_return(work, &r);
		else
			pgr_lane_work_done(work, &r);
	}
	t->failed = rc != PGR_MORE;
	return NULL;
}

START_TEST(many_threads)
{
	struct taker t[6];
	uint64_t bytes = 0, nrows = 0, want = 0, want_rows = 0;

	add_mixture(77);
	for (size_t i = 0; i < list.n; i++) {
		if (entries[i].is_dir)
			continue;
		want += entries[i].size;
		want_rows += rows_of(entries[i].size, pgr_lane_row_bytes(&entries[i], PGR_LANE_ROW_MAX));
	}
	make(6, _i == 1);
	for (unsigned i = 0; i < 6; i++) {
		t[i] = (struct taker){.lane = i};
		ck_assert_int_eq(pthread_create(&t[i].thread, NULL, take_and_return, &t[i]), 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		pthread_join(t[i].thread, NULL);
		ck_assert(!t[i].failed);
		bytes += t[i].bytes;
		nrows += t[i].rows;
	}
	ck_assert_uint_eq(bytes, want);
	ck_assert_uint_eq(nrows, want_rows);
}
END_TEST

/* ---- the query ---- */

START_TEST(query_text)
{
	struct pgr_lane_piece pieces[] = {{.file = 1, .from = 131072, .to = 300000, .row = 131072},
					  {.file = 0, .from = 0, .to = 0, .row = 131072}};
	struct pgr_buf text = {0};

	add("it's", 0);
	add("back\\slash 'q'", 300000);
	ck_assert_int_eq(pgr_buf_puts(&text, "what was there before", &err), PGR_OK);
	ck_assert_int_eq(pgr_lane_query(&text, &list, pieces, 2, PGR_ROWSUM_NONE, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&text),
			 "COPY (SELECT CASE WHEN t > s THEN pg_catalog.pg_read_binary_file(f, o, least(w, t - o), "
			 "true) ELSE '' END FROM (VALUES "
			 "(0, 'back\\slash ''q'''::text, 131072::bigint, 300000::bigint, 131072::bigint), "
			 "(1, 'it''s', 0, 0, 131072)) v(i, f, s, t, w), "
			 "LATERAL pg_catalog.generate_series(s, greatest(s, t - 1), w) o ORDER BY i, o) "
			 "TO STDOUT (FORMAT binary)");
	ck_assert_int_eq(pgr_lane_query(&text, &list, pieces + 1, 1, PGR_ROWSUM_SHA256, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&text),
			 "COPY (SELECT c, pg_catalog.sha256(coalesce(pg_catalog.sha256(c), '') || "
			 "pg_catalog.textsend(f) || pg_catalog.int8send(o) || pg_catalog.int8send(n)) FROM (SELECT "
			 "f, o, least(w, t - o) n, CASE WHEN t > s THEN pg_catalog.pg_read_binary_file(f, o, "
			 "least(w, t - o), true) ELSE '' END c FROM (VALUES "
			 "(0, 'it''s'::text, 0::bigint, 0::bigint, 131072::bigint)) v(i, f, s, t, w), "
			 "LATERAL pg_catalog.generate_series(s, greatest(s, t - 1), w) o ORDER BY i, o OFFSET 0) r) "
			 "TO STDOUT (FORMAT binary)");
	ck_assert_int_eq(pgr_lane_query_sums(&text, &list, pieces + 1, 1, PGR_ROWSUM_MD5, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&text),
			 "COPY (SELECT pg_catalog.decode(pg_catalog.md5(coalesce(pg_catalog.decode(pg_catalog.md5(c), "
			 "'hex'), '') || pg_catalog.textsend(f) || pg_catalog.int8send(o) || pg_catalog.int8send(n)), "
			 "'hex') FROM (SELECT f, o, least(w, t - o) n, CASE WHEN t > s THEN "
			 "pg_catalog.pg_read_binary_file(f, o, least(w, t - o), true) ELSE '' END c FROM (VALUES "
			 "(0, 'it''s'::text, 0::bigint, 0::bigint, 131072::bigint)) v(i, f, s, t, w), "
			 "LATERAL pg_catalog.generate_series(s, greatest(s, t - 1), w) o ORDER BY i, o OFFSET 0) r) "
			 "TO STDOUT (FORMAT binary)");
	text.limit = 60;
	ck_assert_int_eq(pgr_lane_query(&text, &list, pieces, 2, PGR_ROWSUM_NONE, &err), PGR_ERR);
	pgr_buf_fini(&text);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lane_work");
	TCase *t = tcase_create("dividing");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, all_is_handed_out_once, 0, 40);
	tcase_add_test(t, nothing_to_do);
	tcase_add_test(t, requests_shrink);
	tcase_add_test(t, a_file_to_a_lane);
	tcase_add_test(t, whole_files_stay_whole);
	tcase_add_test(t, small_files_together);
	tcase_add_loop_test(t, empty_files_have_a_row, 0, 2);
	tcase_add_loop_test(t, row_bytes, 0, (int)(sizeof(row_sizes) / sizeof(row_sizes[0])));
	tcase_add_test(t, query_text);
	suite_add_tcase(s, t);
	t = tcase_create("delta");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, delta_is_handed_out_once, 0, 24);
	tcase_add_loop_test(t, what_is_compared, 0, (int)(sizeof(compared) / sizeof(compared[0])));
	tcase_add_test(t, whole_files_of_a_plan);
	tcase_add_test(t, added_is_gathered);
	tcase_add_test(t, added_batches);
	suite_add_tcase(s, t);
	t = tcase_create("together");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_comes_back_is_next);
	tcase_add_test(t, left_over);
	tcase_add_test(t, waits_for_the_end);
	tcase_add_test(t, waits_for_what_comes_back);
	tcase_add_test(t, waits_for_what_is_added);
	tcase_add_test(t, stops_waiting);
	tcase_add_loop_test(t, many_threads, 0, 2);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
