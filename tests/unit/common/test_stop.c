#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/stop.h"
#include "common/sys.h"

#define THREADS 8

static struct pgr_stop *new_stop(void)
{
	struct pgr_stop *stop;
	struct pgr_err e;

	ck_assert_int_eq(pgr_stop_new(&stop, &e), PGR_OK);
	return stop;
}

static bool readable(const struct pgr_stop *stop)
{
	struct pollfd p = {.fd = pgr_stop_fd(stop), .events = POLLIN};

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0;
}

static void count_call(void *arg)
{
	atomic_int *n = arg;

	atomic_fetch_add(n, 1);
}

START_TEST(a_new_latch_is_not_set)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err e;

	ck_assert(!pgr_stop_is_set(stop));
	ck_assert(!readable(stop));
	ck_assert_int_eq(pgr_stop_check(stop, &e), PGR_OK);
	memset(&e, 'x', sizeof(e));
	pgr_stop_why(stop, &e);
	ck_assert_int_eq(e.cls, PGR_E_NONE);
	ck_assert_str_eq(e.msg, "");
	pgr_stop_free(stop);
	pgr_stop_free(NULL);
}
END_TEST

START_TEST(the_first_post_wins)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err first, second, e;

	pgr_err_sys(&first, ENOSPC, "could not write to file \"a\"");
	pgr_err_hint(&first, "make room");
	pgr_err_set(&second, PGR_E_NETWORK, "gone");
	pgr_stop_post(stop, &first);
	pgr_stop_post(stop, &second);

	ck_assert(pgr_stop_is_set(stop));
	pgr_stop_why(stop, &e);
	ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(e.sys_errno, ENOSPC);
	ck_assert_str_eq(e.msg, first.msg);
	ck_assert_str_eq(e.hint, "make room");
	pgr_stop_free(stop);
}
END_TEST

START_TEST(who_asks_did_not_fail_itself)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err why, e;

	pgr_err_sys(&why, EIO, "could not fsync file \"f\"");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(pgr_stop_check(stop, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_STOPPED);
	ck_assert_str_eq(e.msg, why.msg);
	/* And asking changes nothing. */
	pgr_stop_why(stop, &e);
	ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(the_posted_error_is_a_copy)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err why, e;

	pgr_err_set(&why, PGR_E_DATA, "original");
	pgr_stop_post(stop, &why);
	pgr_err_set(&why, PGR_E_DATA, "changed");
	pgr_stop_why(stop, &e);
	ck_assert_str_eq(e.msg, "original");
	pgr_stop_free(stop);
}
END_TEST

START_TEST(the_descriptor_stays_readable)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err why;

	pgr_err_set(&why, PGR_E_STOPPED, "signal");
	pgr_stop_post(stop, &why);
	ck_assert(readable(stop));
	pgr_stop_post(stop, &why);
	ck_assert(readable(stop));
	ck_assert(readable(stop));
	pgr_stop_free(stop);
}
END_TEST

START_TEST(each_waker_is_called_once)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err why;
	atomic_int n[3] = {0};
	struct pgr_waker w[3];

	for (int i = 0; i < 3; i++) {
		w[i] = (struct pgr_waker){.fn = count_call, .arg = &n[i]};
		pgr_stop_watch(stop, &w[i]);
	}
	pgr_stop_unwatch(stop, &w[1]);
	pgr_stop_unwatch(stop, &w[1]); /* it is not there: fine */
	pgr_err_set(&why, PGR_E_STOPPED, "signal");
	pgr_stop_post(stop, &why);
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(n[0], 1);
	ck_assert_int_eq(n[1], 0);
	ck_assert_int_eq(n[2], 1);
	pgr_stop_unwatch(stop, &w[0]);
	pgr_stop_unwatch(stop, &w[2]);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(unwatching_any_of_them_keeps_the_others)
{
	for (int gone = 0; gone < 4; gone++) {
		struct pgr_stop *stop = new_stop();
		struct pgr_err why;
		atomic_int n[4] = {0};
		struct pgr_waker w[4];

		for (int i = 0; i < 4; i++) {
			w[i] = (struct pgr_waker){.fn = count_call, .arg = &n[i]};
			pgr_stop_watch(stop, &w[i]);
		}
		pgr_stop_unwatch(stop, &w[gone]);
		pgr_err_set(&why, PGR_E_STOPPED, "signal");
		pgr_stop_post(stop, &why);
		for (int i = 0; i < 4; i++)
			ck_assert_int_eq(n[i], i == gone ? 0 : 1);
		pgr_stop_free(stop);
	}
}
END_TEST

START_TEST(a_waker_that_comes_late_is_called_at_once)
{
	struct pgr_stop *stop = new_stop();
	struct pgr_err why;
	atomic_int n = 0;
	struct pgr_waker w = {.fn = count_call, .arg = &n};

	pgr_err_set(&why, PGR_E_STOPPED, "signal");
	pgr_stop_post(stop, &why);
	pgr_stop_watch(stop, &w);
	ck_assert_int_eq(n, 1);
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(n, 1);
	pgr_stop_unwatch(stop, &w);
	pgr_stop_free(stop);
}
END_TEST

/* ---- threads ---- */

struct race {
	struct pgr_stop *stop;
	pthread_barrier_t start;
	atomic_int next_id;
	struct pgr_err seen[THREADS]; /* what thread i saw after its own post */
};

static void *post_mine(void *arg)
{
	struct race *r = arg;
	int id = atomic_fetch_add(&r->next_id, 1);
	struct pgr_err mine;

	pgr_err_set(&mine, PGR_E_DATA, "thread %d", id);
	pgr_err_detail(&mine, "detail %d", id);
	pthread_barrier_wait(&r->start);
	pgr_stop_post(r->stop, &mine);
	pgr_stop_why(r->stop, &r->seen[id]);
	return NULL;
}

START_TEST(of_many_posts_all_see_the_same_one)
{
	for (int round = 0; round < 50; round++) {
		struct race r = {.stop = new_stop()};
		pthread_t t[THREADS];
		char detail[32];
		int winner;

		pthread_barrier_init(&r.start, NULL, THREADS);
		for (int i = 0; i < THREADS; i++)
			ck_assert_int_eq(pthread_create(&t[i], NULL, post_mine, &r), 0);
		for (int i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		for (int i = 0; i < THREADS; i++)
			ck_assert_str_eq(r.seen[i].msg, r.seen[0].msg);
		ck_assert_int_eq(sscanf(r.seen[0].msg, "thread %d", &winner), 1);
		snprintf(detail, sizeof(detail), "detail %d", winner);
		ck_assert_str_eq(r.seen[0].detail, detail);
		pthread_barrier_destroy(&r.start);
		pgr_stop_free(r.stop);
	}
}
END_TEST

struct onlooker {
	struct pgr_stop *stop;
	atomic_int *ready;
	struct pgr_err saw;
};

static void *look_on(void *arg)
{
	struct onlooker *o = arg;

	atomic_fetch_add(o->ready, 1);
	while (pgr_stop_check(o->stop, &o->saw) == PGR_OK)
		sched_yield();
	return NULL;
}

/* Who sees the latch set sees the whole error, without any lock.  (This one is for SANITIZE=thread.) */
START_TEST(the_error_is_there_before_the_latch_is_set)
{
	for (int round = 0; round < 50; round++) {
		struct pgr_stop *stop = new_stop();
		struct onlooker o[THREADS];
		pthread_t t[THREADS];
		struct pgr_err why;
		atomic_int ready = 0;

		for (int i = 0; i < THREADS; i++) {
			o[i] = (struct onlooker){.stop = stop, .ready = &ready};
			ck_assert_int_eq(pthread_create(&t[i], NULL, look_on, &o[i]), 0);
		}
		while (atomic_load(&ready) < THREADS)
			sched_yield();
		pgr_err_set(&why, PGR_E_DATA, "round %d", round);
		pgr_err_hint(&why, "hint %d", round);
		pgr_stop_post(stop, &why);
		for (int i = 0; i < THREADS; i++) {
			pthread_join(t[i], NULL);
			ck_assert_str_eq(o[i].saw.msg, why.msg);
			ck_assert_str_eq(o[i].saw.hint, why.hint);
		}
		pgr_stop_free(stop);
	}
}
END_TEST

/* The waiter of the header: a condition variable of its own, woken through the latch. */
struct waiter {
	struct pgr_stop *stop;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct pgr_waker waker;
	enum pgr_errclass got;
};

static void wake_waiter(void *arg)
{
	struct waiter *w = arg;

	pthread_mutex_lock(&w->lock);
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void *wait_for_stop(void *arg)
{
	struct waiter *w = arg;
	struct pgr_err e;

	pgr_stop_watch(w->stop, &w->waker);
	pthread_mutex_lock(&w->lock);
	while (pgr_stop_check(w->stop, &e) == PGR_OK)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	pgr_stop_unwatch(w->stop, &w->waker);
	w->got = e.cls;
	return NULL;
}

/* Would hang (and be killed by the test's time limit) if a wake-up could be lost or the locks could cross. */
START_TEST(no_waiter_is_left_behind)
{
	for (int round = 0; round < 200; round++) {
		struct pgr_stop *stop = new_stop();
		struct waiter w[THREADS];
		pthread_t t[THREADS];
		struct pgr_err why;

		for (int i = 0; i < THREADS; i++) {
			w[i] = (struct waiter){.stop = stop, .waker = {.fn = wake_waiter, .arg = &w[i]}};
			pthread_mutex_init(&w[i].lock, NULL);
			pthread_cond_init(&w[i].cond, NULL);
			ck_assert_int_eq(pthread_create(&t[i], NULL, wait_for_stop, &w[i]), 0);
		}
		pgr_err_set(&why, PGR_E_NETWORK, "round %d", round);
		pgr_stop_post(stop, &why);
		for (int i = 0; i < THREADS; i++) {
			pthread_join(t[i], NULL);
			ck_assert_int_eq(w[i].got, PGR_E_STOPPED);
			pthread_cond_destroy(&w[i].cond);
			pthread_mutex_destroy(&w[i].lock);
		}
		pgr_stop_free(stop);
	}
}
END_TEST

struct slow_call {
	struct pgr_stop *stop;
	atomic_bool entered, unwatching, finished;
	bool finished_at_unwatch;
	struct pgr_waker waker;
};

/* Stays inside the call until the other thread is at its unwatch, and then gives it every chance to return early. */
static void slow_waker(void *arg)
{
	struct slow_call *c = arg;

	atomic_store(&c->entered, true);
	while (!atomic_load(&c->unwatching))
		sched_yield();
	for (int i = 0; i < 2000; i++)
		sched_yield();
	atomic_store(&c->finished, true);
}

static void *post_slow(void *arg)
{
	struct slow_call *c = arg;
	struct pgr_err why;

	pgr_err_set(&why, PGR_E_STOPPED, "signal");
	pgr_stop_post(c->stop, &why);
	return NULL;
}

START_TEST(unwatch_waits_for_a_call_in_progress)
{
	struct slow_call c = {.stop = new_stop(), .waker = {.fn = slow_waker, .arg = &c}};
	pthread_t t;

	pgr_stop_watch(c.stop, &c.waker);
	ck_assert_int_eq(pthread_create(&t, NULL, post_slow, &c), 0);
	while (!atomic_load(&c.entered))
		sched_yield();
	/* The latch is set before its wakers are called. */
	ck_assert(pgr_stop_is_set(c.stop));
	atomic_store(&c.unwatching, true);
	pgr_stop_unwatch(c.stop, &c.waker);
	c.finished_at_unwatch = atomic_load(&c.finished);
	pthread_join(t, NULL);
	ck_assert(c.finished_at_unwatch);
	pgr_stop_free(c.stop);
}
END_TEST

/* ---- waiting, on a clock that only poll moves ---- */

struct slow_sys {
	struct pgr_sys sys; /* first */
	int64_t now;
	int64_t step;	/* a poll lets so much time pass, at most what it was asked to wait */
	int fail_errno; /* of the first poll; 0: none */
	unsigned polls;
	struct pgr_stop *post_to; /* in the second poll; NULL */
};

static struct slow_sys *slow_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct slow_sys *out;
	} u = {.in = sys};

	return u.out;
}

static int64_t slow_now(const struct pgr_sys *sys)
{
	return slow_of(sys)->now;
}

static int slow_poll(const struct pgr_sys *sys, struct pollfd *fds, nfds_t n, int ms)
{
	struct slow_sys *s = slow_of(sys);
	struct pgr_err why;

	ck_assert_uint_eq(n, 1);
	ck_assert_int_gt(ms, 0);
	s->polls++;
	s->now += s->step < ms ? s->step : ms;
	if (s->polls == 1 && s->fail_errno != 0) {
		errno = s->fail_errno;
		return -1;
	}
	if (s->polls == 2 && s->post_to != NULL) {
		pgr_err_set(&why, PGR_E_DATA, "bad");
		pgr_stop_post(s->post_to, &why);
	}
	return poll(fds, n, 0);
}

static struct slow_sys slow(int64_t step)
{
	return (struct slow_sys){.sys = {.mono_ms = slow_now, .poll = slow_poll}, .now = 1000, .step = step};
}

START_TEST(a_wait_takes_its_time)
{
	struct pgr_stop *stop = new_stop();
	struct slow_sys s = slow(7);
	struct pgr_err e;

	s.fail_errno = EINTR;
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, 100, &e), PGR_OK);
	ck_assert_int_eq(s.now, 1100);
	ck_assert_uint_eq(s.polls, 15);
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, 0, &e), PGR_OK);
	ck_assert_uint_eq(s.polls, 15);
	s.step = (int64_t)1 << 40;
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, (int64_t)1 << 33, &e), PGR_OK); /* longer than poll can wait */
	ck_assert_int_eq(s.now, 1100 + ((int64_t)1 << 33));
	pgr_stop_free(stop);
}
END_TEST

START_TEST(a_stop_ends_a_wait)
{
	struct pgr_stop *stop = new_stop();
	struct slow_sys s = slow(1);
	struct pgr_err e;

	s.post_to = stop;
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, 1000000, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_STOPPED);
	ck_assert_str_eq(e.msg, "bad");
	ck_assert_uint_eq(s.polls, 2);
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, 0, &e), PGR_ERR);
	ck_assert_uint_eq(s.polls, 2);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(a_wait_that_cannot_wait)
{
	struct pgr_stop *stop = new_stop();
	struct slow_sys s = slow(1);
	struct pgr_err e;

	s.fail_errno = ENOMEM;
	ck_assert_int_eq(pgr_stop_wait(stop, &s.sys, 50, &e), PGR_ERR);
	ck_assert_int_eq(e.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(e.sys_errno, ENOMEM);
	pgr_stop_free(stop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/stop");
	TCase *tc = tcase_create("stop");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_new_latch_is_not_set);
	tcase_add_test(tc, the_first_post_wins);
	tcase_add_test(tc, who_asks_did_not_fail_itself);
	tcase_add_test(tc, the_posted_error_is_a_copy);
	tcase_add_test(tc, the_descriptor_stays_readable);
	tcase_add_test(tc, each_waker_is_called_once);
	tcase_add_test(tc, unwatching_any_of_them_keeps_the_others);
	tcase_add_test(tc, a_waker_that_comes_late_is_called_at_once);
	tcase_add_test(tc, of_many_posts_all_see_the_same_one);
	tcase_add_test(tc, the_error_is_there_before_the_latch_is_set);
	tcase_add_test(tc, no_waiter_is_left_behind);
	tcase_add_test(tc, a_wait_takes_its_time);
	tcase_add_test(tc, a_stop_ends_a_wait);
	tcase_add_test(tc, a_wait_that_cannot_wait);
	tcase_add_test(tc, unwatch_waits_for_a_call_in_progress);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
