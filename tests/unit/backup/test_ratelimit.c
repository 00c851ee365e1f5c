#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backup/ratelimit.h"
#include "common/stop.h"
#include "common/sys.h"

/* ---- a clock that only waiting moves ---- */

struct slow_sys {
	struct pgr_sys sys; /* first */
	int64_t now;
	unsigned polls;
	int fail_errno;
	int64_t raise_at; /* then the rate is changed, as a signal would; 0: never */
	uint64_t raise_to;
	int64_t stop_at;
	struct pgr_ratelimit *limit;
	struct pgr_stop *stop;
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

	s->polls++;
	s->now += ms;
	if (s->fail_errno != 0) {
		errno = s->fail_errno;
		return -1;
	}
	if (s->raise_at != 0 && s->now >= s->raise_at) {
		s->raise_at = 0;
		pgr_ratelimit_set(s->limit, s->raise_to);
	}
	if (s->stop_at != 0 && s->now >= s->stop_at) {
		pgr_err_set(&why, PGR_E_DATA, "bad");
		pgr_stop_post(s->stop, &why);
	}
	return poll(fds, n, 0);
}

static struct slow_sys s;
static struct pgr_stop *stop;
static struct pgr_ratelimit limit;
static struct pgr_err err;

static void setup(void)
{
	s = (struct slow_sys){.sys = {.mono_ms = slow_now, .poll = slow_poll}, .now = 1000000, .limit = &limit};
	ck_assert_int_eq(pgr_stop_new(&stop, &err), PGR_OK);
	s.stop = stop;
}

static void teardown(void)
{
	pgr_ratelimit_fini(&limit);
	pgr_stop_free(stop);
}

static void start(uint64_t rate)
{
	ck_assert_int_eq(pgr_ratelimit_init(&limit, &s.sys, stop, rate, &err), PGR_OK);
}

/* Takes so much, as rows of `row` bytes; returns the largest piece. */
static size_t take(uint64_t bytes, size_t row)
{
	size_t largest = 0;

	while (bytes > 0) {
		size_t want = bytes < row ? (size_t)bytes : row, got;

		if (pgr_ratelimit_take(&limit, want, &got, &err) != PGR_OK)
			ck_abort_msg("%s", err.msg);
		if (got == 0 || got > want)
			ck_abort_msg("%zu of %zu", got, want);
		largest = got > largest ? got : largest;
		bytes -= got;
	}
	return largest;
}

/* ---- tests ---- */

START_TEST(no_limit)
{
	size_t got;

	start(0);
	ck_assert_uint_eq(take((uint64_t)1 << 40, (size_t)1 << 30), (size_t)1 << 30);
	pgr_ratelimit_untake(&limit, 12345);
	ck_assert_int_eq(pgr_ratelimit_take(&limit, 0, &got, &err), PGR_OK);
	ck_assert_uint_eq(got, 0);
	ck_assert_uint_eq(s.polls, 0);
	ck_assert_int_eq(s.now, 1000000);
}
END_TEST

static const uint64_t rates[] = {32 * 1024,	   100000, 1000000, 33333333, (uint64_t)1 << 30, (uint64_t)10000000000,
				 (uint64_t)1 << 40};

/* 10 seconds' worth take 10 seconds, less what may come at once; evenly, in rows of any size. */
START_TEST(the_rate_is_kept)
{
	static const size_t sizes[] = {8192, 131072, 1000003};
	uint64_t rate = rates[_i / 3];
	size_t row = sizes[_i % 3] > rate / 2000 ? sizes[_i % 3] : (size_t)(rate / 2000);

	start(rate);
	ck_assert_uint_le(take(rate * 10, row), rate / 20 > 4096 ? rate / 20 : 4096);
	ck_assert_int_ge(s.now - 1000000, 9600);
	ck_assert_int_le(s.now - 1000000, 10050);
}
END_TEST

/* What was not used while nobody asked is not saved up. */
START_TEST(idle_time_is_lost)
{
	start(1000000);
	take(1000000, 131072);
	s.now += 3600 * 1000;

	int64_t begin = s.now;

	take(1000000, 131072);
	ck_assert_int_ge(s.now - begin, 800);
	s.now += (int64_t)400 * 24 * 3600 * 1000; /* a year is no overflow */
	begin = s.now;
	take(1000000, 131072);
	ck_assert_int_ge(s.now - begin, 800);
}
END_TEST

START_TEST(what_did_not_come_is_given_back)
{
	size_t got;

	start(1000000);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(pgr_ratelimit_take(&limit, 40000, &got, &err), PGR_OK);
		pgr_ratelimit_untake(&limit, got - 100);
	}
	ck_assert_int_le(s.now - 1000000, 100);
	pgr_ratelimit_untake(&limit, SIZE_MAX / 2000); /* more than was taken: no credit comes of it */

	int64_t begin = s.now;

	take(1000000, 131072);
	ck_assert_int_ge(s.now - begin, 850);
}
END_TEST

/* Who waits under a low rate notices soon that it was raised. */
START_TEST(raised_while_it_runs)
{
	start(4096);
	s.raise_at = 1010000;
	s.raise_to = 4096000;
	take(4096 * 10 + 4096000, 131072);
	ck_assert_int_ge(s.now, 1010000 + 850);
	ck_assert_int_le(s.now, 1010000 + 1200);
}
END_TEST

START_TEST(lifted_while_it_runs)
{
	start(4096);
	s.raise_at = 1010000;
	s.raise_to = _i == 0 ? 0 : ((uint64_t)1 << 40) + 1;
	take((uint64_t)1 << 30, 131072);
	ck_assert_int_ge(s.now, 1010000);
	ck_assert_int_le(s.now, 1010200);
}
END_TEST

START_TEST(lowered_while_it_runs)
{
	start(10000000);
	s.raise_at = 1001000;
	s.raise_to = 1000000;
	take(10000000 + 5000000, 131072);
	ck_assert_int_ge(s.now - 1000000, 5500);
	ck_assert_int_le(s.now - 1000000, 6100);
}
END_TEST

START_TEST(begun_later)
{
	start(0);
	take(1000000000, 131072);
	s.now += 5000;
	pgr_ratelimit_set(&limit, 1000000);
	int64_t begin = s.now;

	take(2000000, 131072);
	ck_assert_int_ge(s.now - begin, 1800);
	ck_assert_int_le(s.now - begin, 2100);
}
END_TEST

START_TEST(stopped_while_it_waits)
{
	size_t got;
	int rc;

	start(4096);
	s.stop_at = 1005000;
	while ((rc = pgr_ratelimit_take(&limit, 131072, &got, &err)) == PGR_OK)
		continue;
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(err.msg, "bad");
	ck_assert_int_le(s.now, 1005100);
}
END_TEST

START_TEST(cannot_wait)
{
	size_t got;
	int rc;

	start(4096);
	s.fail_errno = ENOMEM;
	while ((rc = pgr_ratelimit_take(&limit, 131072, &got, &err)) == PGR_OK)
		continue;
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(err.sys_errno, ENOMEM);
}
END_TEST

/* ---- several lanes, on the real clock: for the sanitizers ---- */

static void *take_some(void *arg)
{
	struct pgr_err e;
	size_t got;

	for (int i = 0; i < 200; i++) {
		if (pgr_ratelimit_take(&limit, 10000, &got, &e) != PGR_OK)
			return arg;
		pgr_ratelimit_untake(&limit, got / 2);
		if (i % 50 == 0)
			pgr_ratelimit_set(&limit, (uint64_t)(100 + i) * 1000000);
	}
	return NULL;
}

START_TEST(many_threads)
{
	pthread_t t[6];

	ck_assert_int_eq(pgr_ratelimit_init(&limit, pgr_sys_real(), stop, 50000000, &err), PGR_OK);
	for (int i = 0; i < 6; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, take_some, &limit), 0);
	for (int i = 0; i < 6; i++) {
		void *failed;

		pthread_join(t[i], &failed);
		ck_assert_ptr_null(failed);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ratelimit");
	TCase *t = tcase_create("ratelimit");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, no_limit);
	tcase_add_loop_test(t, the_rate_is_kept, 0, 3 * (int)(sizeof(rates) / sizeof(rates[0])));
	tcase_add_test(t, idle_time_is_lost);
	tcase_add_test(t, what_did_not_come_is_given_back);
	tcase_add_test(t, raised_while_it_runs);
	tcase_add_loop_test(t, lifted_while_it_runs, 0, 2);
	tcase_add_test(t, lowered_while_it_runs);
	tcase_add_test(t, begun_later);
	tcase_add_test(t, stopped_while_it_waits);
	tcase_add_test(t, cannot_wait);
	tcase_add_test(t, many_threads);
	suite_add_tcase(suite, t);
	sr = srunner_create(suite);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
