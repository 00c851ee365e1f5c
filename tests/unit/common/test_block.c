#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/block.h"
#include "common/stop.h"

/* Sanitizers abort when memory is refused, unless told that refusals are part of the test. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
	return "allocator_may_return_null=1";
}

static struct pgr_stop *new_stop(void)
{
	struct pgr_stop *stop;
	struct pgr_err e;

	ck_assert_int_eq(pgr_stop_new(&stop, &e), PGR_OK);
	return stop;
}

static struct pgr_pool *new_pool(size_t count, size_t bytes, struct pgr_stop *stop)
{
	struct pgr_pool *pool;
	struct pgr_err e;

	ck_assert_int_eq(pgr_pool_new(&pool, count, bytes, stop, &e), PGR_OK);
	return pool;
}

static struct pgr_block *get(struct pgr_pool *pool)
{
	struct pgr_block *b;
	struct pgr_err e;

	ck_assert_int_eq(pgr_pool_get(pool, &b, &e), PGR_OK);
	return b;
}

START_TEST(blocks_are_aligned_distinct_and_whole)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_pool *pool = new_pool(7, 3 * PGR_BLOCK_ALIGN, stop);
	struct pgr_block *b[7];

	ck_assert_uint_eq(pgr_pool_count(pool), 7);
	ck_assert_uint_eq(pgr_pool_block_bytes(pool), 3 * PGR_BLOCK_ALIGN);
	for (int i = 0; i < 7; i++) {
		b[i] = get(pool);
		ck_assert_uint_eq((uintptr_t)b[i]->data % PGR_BLOCK_ALIGN, 0);
		ck_assert_uint_eq(b[i]->cap, 3 * PGR_BLOCK_ALIGN);
		ck_assert_uint_eq(b[i]->len, 0);
		ck_assert_ptr_null(b[i]->next);
		memset(b[i]->data, i, b[i]->cap);
	}
	for (int i = 0; i < 7; i++) {
		for (size_t at = 0; at < b[i]->cap; at++)
			ck_assert_uint_eq(b[i]->data[at], i);
		pgr_pool_put(pool, b[i]);
	}
	pgr_pool_free(pool);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(a_block_comes_back_empty)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_pool *pool = new_pool(1, PGR_BLOCK_ALIGN, stop);
	struct pgr_block *b = get(pool);

	b->len = 99;
	b->next = b;
	pgr_pool_put(pool, b);
	ck_assert_ptr_eq(get(pool), b);
	ck_assert_uint_eq(b->len, 0);
	ck_assert_ptr_null(b->next);
	pgr_pool_put(pool, b);
	pgr_pool_put(pool, NULL);
	pgr_pool_free(pool);
	pgr_pool_free(NULL);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(impossible_pools)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_pool *pool;
	struct pgr_err e;

	ck_assert_int_eq(pgr_pool_new(&pool, 0, PGR_BLOCK_ALIGN, stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_pool_new(&pool, 1, 0, stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_pool_new(&pool, 1, PGR_BLOCK_ALIGN + 512, stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_USAGE);
	/* The product of these is two small blocks in size_t. */
	ck_assert_int_eq(pgr_pool_new(&pool, 2, SIZE_MAX / 2 + 1 + PGR_BLOCK_ALIGN, stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_NOMEM);
	ck_assert_int_eq(pgr_pool_new(&pool, 1, SIZE_MAX / 2 + 1, stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_NOMEM);
	ck_assert_ptr_null(pool);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(nothing_is_handed_out_after_the_stop)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_pool *pool = new_pool(2, PGR_BLOCK_ALIGN, stop);
	struct pgr_block *held = get(pool), *b = held;
	struct pgr_err why, e;

	pgr_err_set(&why, PGR_E_DATA, "the reason");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(pgr_pool_get(pool, &b, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_STOPPED);
	ck_assert_str_eq(e.msg, "the reason");
	ck_assert_ptr_null(b);
	pgr_pool_put(pool, held);
	pgr_pool_free(pool);
	/* A pool may also be made after the stop. */
	pool = new_pool(1, PGR_BLOCK_ALIGN, stop);
	ck_assert_int_eq(pgr_pool_get(pool, &b, &e), PGR_ERR);
	pgr_pool_free(pool);
	pgr_stop_free(stop);
}
END_TEST

/* ---- threads ---- */

#define THREADS	  6
#define BLOCKS	  3
#define TRANSFERS 4000

struct stress {
	struct pgr_pool *pool;
	struct pgr_stop *stop;
	atomic_int holders; /* of blocks, now */
	atomic_int most;
	atomic_int mixed_up; /* blocks whose content somebody else changed */
	atomic_int stopped;  /* threads that were told to stop */
	atomic_int taken;
};

static void note_holders(struct stress *s)
{
	int now = atomic_fetch_add(&s->holders, 1) + 1;
	int most = atomic_load(&s->most);

	while (now > most && !atomic_compare_exchange_weak(&s->most, &most, now))
		continue;
}

/* Takes one block, makes it its own for a while, gives it back.  False: told to stop. */
static bool use_one(struct stress *s)
{
	struct pgr_block *b;
	struct pgr_err e;

	if (pgr_pool_get(s->pool, &b, &e) != PGR_OK) {
		if (e.cls == PGR_E_STOPPED)
			atomic_fetch_add(&s->stopped, 1);
		return false;
	}
	note_holders(s);

	uint8_t mark = (uint8_t)atomic_fetch_add(&s->taken, 1);

	b->data[0] = mark;
	b->data[b->cap - 1] = mark;
	b->len = b->cap;
	sched_yield();
	if (b->data[0] != mark || b->data[b->cap - 1] != mark || b->len != b->cap)
		atomic_fetch_add(&s->mixed_up, 1);
	atomic_fetch_sub(&s->holders, 1);
	pgr_pool_put(s->pool, b);
	return true;
}

static void *use_many(void *arg)
{
	for (int i = 0; i < TRANSFERS && use_one(arg); i++)
		continue;
	return NULL;
}

START_TEST(threads_share_the_pool)
{
	struct stress s = {.stop = new_stop()};
	pthread_t t[THREADS];

	s.pool = new_pool(BLOCKS, PGR_BLOCK_ALIGN, s.stop);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, use_many, &s), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	ck_assert_int_eq(s.taken, THREADS * TRANSFERS);
	ck_assert_int_eq(s.mixed_up, 0);
	ck_assert_int_eq(s.stopped, 0);
	ck_assert_int_le(s.most, BLOCKS);
	pgr_pool_free(s.pool); /* asserts that all are back */
	pgr_stop_free(s.stop);
}
END_TEST

static void *use_until_stopped(void *arg)
{
	while (use_one(arg))
		continue;
	return NULL;
}

START_TEST(a_stop_ends_them_all)
{
	for (int round = 0; round < 50; round++) {
		struct stress s = {.stop = new_stop()};
		pthread_t t[THREADS];
		struct pgr_err why;

		s.pool = new_pool(BLOCKS, PGR_BLOCK_ALIGN, s.stop);
		for (int i = 0; i < THREADS; i++)
			ck_assert_int_eq(pthread_create(&t[i], NULL, use_until_stopped, &s), 0);
		while (atomic_load(&s.taken) < round * 10)
			sched_yield();
		pgr_err_set(&why, PGR_E_STOPPED, "signal");
		pgr_stop_post(s.stop, &why);
		for (int i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		ck_assert_int_eq(s.stopped, THREADS);
		pgr_pool_free(s.pool);
		pgr_stop_free(s.stop);
	}
}
END_TEST

/* All blocks are held: whoever asks can only be woken by the latch.  A lost wake-up hangs here. */
START_TEST(a_stop_wakes_who_waits_for_a_block)
{
	for (int round = 0; round < 100; round++) {
		struct stress s = {.stop = new_stop()};
		pthread_t t[THREADS];
		struct pgr_err why;

		s.pool = new_pool(1, PGR_BLOCK_ALIGN, s.stop);

		struct pgr_block *held = get(s.pool);

		for (int i = 0; i < THREADS; i++)
			ck_assert_int_eq(pthread_create(&t[i], NULL, use_until_stopped, &s), 0);
		for (int i = 0; i < round; i++)
			sched_yield();
		pgr_err_set(&why, PGR_E_NETWORK, "connection lost");
		pgr_stop_post(s.stop, &why);
		for (int i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		ck_assert_int_eq(s.stopped, THREADS);
		ck_assert_int_eq(s.taken, 0);
		pgr_pool_put(s.pool, held);
		pgr_pool_free(s.pool);
		pgr_stop_free(s.stop);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/block");
	TCase *tc = tcase_create("block");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, blocks_are_aligned_distinct_and_whole);
	tcase_add_test(tc, a_block_comes_back_empty);
	tcase_add_test(tc, impossible_pools);
	tcase_add_test(tc, nothing_is_handed_out_after_the_stop);
	tcase_add_test(tc, threads_share_the_pool);
	tcase_add_test(tc, a_stop_ends_them_all);
	tcase_add_test(tc, a_stop_wakes_who_waits_for_a_block);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
