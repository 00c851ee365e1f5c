#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zstd.h>

#include "backup/inflate.h"
#include "backup/readahead.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define BYTES ((size_t)20 * 1000)

/* ---- a source that gives pieces of sizes that change ---- */

struct pieces {
	struct pgr_source source; /* first */
	size_t len, at, most;
	bool fails; /* in place of the end */
	atomic_size_t given;
	atomic_uint ends; /* how often it was read after the end, the first time included */
};

static uint8_t byte_at(size_t off)
{
	return (uint8_t)(off + off / 251 + off / 65521);
}

static int pieces_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pieces *p = (struct pieces *)s;
	size_t want = 1 + p->at * 31 % p->most;

	*n = p->len - p->at;
	*n = *n < cap ? *n : cap;
	*n = *n < want ? *n : want;
	if (*n == 0)
		p->ends++;
	if (*n == 0 && p->fails)
		return pgr_err_set(err, PGR_E_NETWORK, "the line is dead");
	for (size_t i = 0; i < *n; i++)
		((uint8_t *)dst)[i] = byte_at(p->at + i);
	p->at += *n;
	p->given += *n;
	return PGR_OK;
}

static void pieces_init(struct pieces *p, size_t len, size_t most)
{
	memset(p, 0, sizeof(*p));
	p->source.read = pieces_read;
	p->len = len;
	p->most = most;
}

static struct pgr_readahead *start(struct pgr_source *from, size_t bytes)
{
	struct pgr_readahead *r;
	struct pgr_err err;

	ck_assert_msg(pgr_readahead_new(&r, from, bytes, &err) == PGR_OK, "%s", err.msg);
	return r;
}

/* Reads to the end or a failure; what came is what was sent. */
static int read_all(struct pgr_readahead *r, size_t cap, size_t *len, struct pgr_err *err)
{
	uint8_t buf[8192];
	size_t n;
	int rc;

	*len = 0;
	while ((rc = pgr_source_read(pgr_readahead_source(r), buf, cap, &n, err)) == PGR_OK && n > 0) {
		ck_assert_uint_le(n, cap);
		for (size_t i = 0; i < n; i++)
			ck_assert_uint_eq(buf[i], byte_at(*len + i));
		*len += n;
	}
	return rc;
}

/* ---- what comes through ---- */

static const struct {
	size_t ring, most, cap;
} ways[] = {
	{1, 1, 1},	     {1, 100, 100},	 {2, 3, 1},
	{3, 2, 5},	     {7, 100, 3},	 {4096, 1000, 8192},
	{8192, 8192, 8192},  {8191, 8192, 4096}, {1 << 20, 500, 8192},
	{1 << 20, 65536, 1},
};
#define NWAYS ((int)(sizeof(ways) / sizeof(ways[0])))

START_TEST(all_bytes)
{
	struct pieces p;
	struct pgr_readahead *r;
	struct pgr_err err = {0};
	size_t len;

	for (size_t total = 0; total <= BYTES; total += total < 9 ? 1 : BYTES - 9) {
		pieces_init(&p, total, ways[_i].most);
		r = start(&p.source, ways[_i].ring);
		ck_assert_int_eq(read_all(r, ways[_i].cap, &len, &err), PGR_OK);
		ck_assert_uint_eq(len, total);
		ck_assert_int_eq(read_all(r, ways[_i].cap, &len, &err), PGR_OK); /* the end stays the end */
		ck_assert_uint_eq(len, 0);
		pgr_readahead_free(r);
		ck_assert_uint_eq(p.ends, 1);
	}
}
END_TEST

/* What came before the failure is not lost, and the failure is told as it was, again and again. */
START_TEST(failure_after_bytes)
{
	struct pieces p;
	struct pgr_readahead *r;
	struct pgr_err err = {0};
	size_t len;

	for (size_t total = 0; total <= BYTES; total += total < 9 ? 1 : BYTES - 9) {
		pieces_init(&p, total, ways[_i].most);
		p.fails = true;
		r = start(&p.source, ways[_i].ring);
		ck_assert_int_eq(read_all(r, ways[_i].cap, &len, &err), PGR_ERR);
		ck_assert_uint_eq(len, total);
		for (int again = 0; again < 2; again++) {
			ck_assert_int_eq(err.cls, PGR_E_NETWORK);
			ck_assert_str_eq(err.msg, "the line is dead");
			pgr_err_clear(&err);
			ck_assert_int_eq(read_all(r, ways[_i].cap, &len, &err), PGR_ERR);
			ck_assert_uint_eq(len, 0);
		}
		pgr_readahead_free(r);
		ck_assert_uint_eq(p.ends, 1);
	}
}
END_TEST

/* ---- giving up ---- */

/* The thread waits for room, or is on its way there, when the reader leaves. */
START_TEST(left_early)
{
	struct pieces p;
	struct pgr_readahead *r;
	struct pgr_err err;
	uint8_t buf[100];
	size_t n, took = 0;

	pieces_init(&p, SIZE_MAX, 50);
	r = start(&p.source, 1000);
	while (took < (size_t)_i * 100) {
		ck_assert_int_eq(pgr_source_read(pgr_readahead_source(r), buf, sizeof(buf), &n, &err), PGR_OK);
		took += n;
	}
	if (_i % 2)
		while (p.given < took + 1000) /* the ring is full */
			sched_yield();
	pgr_readahead_free(r);
	ck_assert_uint_le(p.given, took + 1000);
}
END_TEST

START_TEST(never_read)
{
	struct pieces p;

	pieces_init(&p, (size_t)_i, 50);
	p.fails = _i % 2;
	pgr_readahead_free(start(&p.source, 1000));
	pgr_readahead_free(NULL);
	ck_assert_uint_le(p.ends, 1);
}
END_TEST

/* A server that says nothing: only the latch ends that. */
struct silent {
	struct pgr_source source; /* first */
	struct pgr_stop *stop;
	size_t before; /* bytes that come first */
};

static int silent_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct silent *q = (struct silent *)s;

	*n = q->before < cap ? q->before : cap;
	memset(dst, 'x', *n);
	q->before -= *n;
	return *n > 0 ? PGR_OK : pgr_stop_wait(q->stop, pgr_sys_real(), 3600 * 1000, err);
}

static void *post_stop(void *stop)
{
	struct pgr_err why;

	pgr_err_set(&why, PGR_E_STOPPED, "interrupted by a signal");
	pgr_stop_post(stop, &why);
	return NULL;
}

/* The reader waits for bytes when somebody sets the latch. */
START_TEST(stopped_while_waiting)
{
	struct silent q = {.source = {silent_read}, .before = (size_t)_i};
	struct pgr_readahead *r;
	struct pgr_err err;
	pthread_t t;
	uint8_t buf[100];
	size_t n;
	int rc;

	ck_assert_int_eq(pgr_stop_new(&q.stop, &err), PGR_OK);
	r = start(&q.source, 64);
	ck_assert_int_eq(pthread_create(&t, NULL, post_stop, q.stop), 0);
	while ((rc = pgr_source_read(pgr_readahead_source(r), buf, sizeof(buf), &n, &err)) == PGR_OK)
		ck_assert_uint_gt(n, 0);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(err.msg, "interrupted by a signal");
	pthread_join(t, NULL);
	pgr_readahead_free(r);
	pgr_stop_free(q.stop);
}
END_TEST

/* The reader fails for a reason of its own while the thread waits for the server. */
START_TEST(reader_gives_up)
{
	struct silent q = {.source = {silent_read}, .before = 10};
	struct pgr_readahead *r;
	struct pgr_err err;
	uint8_t buf[100];
	size_t n;

	ck_assert_int_eq(pgr_stop_new(&q.stop, &err), PGR_OK);
	r = start(&q.source, 64);
	ck_assert_int_eq(pgr_source_read(pgr_readahead_source(r), buf, sizeof(buf), &n, &err), PGR_OK);
	pgr_err_set(&err, PGR_E_DATA, "tar header has a wrong checksum");
	pgr_stop_post(q.stop, &err);
	pgr_readahead_free(r);
	pgr_stop_free(q.stop);
}
END_TEST

/* ---- in its place: a file, read ahead, decompressed ---- */

struct fd_source {
	struct pgr_source source; /* first */
	const struct pgr_sys *sys;
	int fd;
};

static int fd_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct fd_source *f = (struct fd_source *)s;
	ssize_t got = f->sys->read(f->sys, f->fd, dst, cap < 20 ? cap : 20);

	if (got < 0)
		return pgr_err_sys(err, errno, "could not read \"packed\"");
	*n = (size_t)got;
	return PGR_OK;
}

static struct tmptree tree;

static void make_packed(void)
{
	uint8_t *plain = malloc(BYTES), *packed = malloc(2 * BYTES);
	size_t n;
	int fd = open(tmp_at(&tree, "packed"), O_WRONLY | O_CREAT | O_EXCL, 0600);

	for (size_t i = 0; i < BYTES; i++)
		plain[i] = byte_at(i);
	n = ZSTD_compress(packed, 2 * BYTES, plain, BYTES, 1);
	ck_assert(!ZSTD_isError(n));
	ck_assert_int_eq(write(fd, packed, n), (ssize_t)n);
	close(fd);
	free(plain);
	free(packed);
}

static int read_inflated(struct fd_source *f, struct pgr_err *err)
{
	struct pgr_readahead *r = start(&f->source, 700);
	struct pgr_inflate *z;
	uint8_t buf[5000];
	size_t n, len = 0;
	int rc;

	ck_assert_int_eq(pgr_inflate_new(&z, pgr_readahead_source(r), PGR_COMP_ZSTD, "base.tar.zst", err), PGR_OK);
	while ((rc = pgr_source_read(pgr_inflate_source(z), buf, sizeof(buf), &n, err)) == PGR_OK && n > 0) {
		for (size_t i = 0; i < n; i++)
			ck_assert_uint_eq(buf[i], byte_at(len + i));
		len += n;
	}
	ck_assert(rc != PGR_OK || len == BYTES);
	pgr_inflate_free(z);
	pgr_readahead_free(r);
	return rc;
}

static bool one_fault(unsigned at, bool short_io)
{
	struct pgr_fault_sys fault;
	struct fd_source f = {.source = {fd_read}, .sys = &fault.sys};
	struct pgr_err err = {0};
	int rc;

	pgr_fault_sys_init(&fault, at, EIO);
	fault.short_io = short_io;
	f.fd = open(tmp_at(&tree, "packed"), O_RDONLY);
	ck_assert_int_ge(f.fd, 0);
	rc = read_inflated(&f, &err);
	close(f.fd);
	ck_assert_int_eq(rc, fault.triggered ? PGR_ERR : PGR_OK);
	if (fault.triggered) {
		ck_assert_int_eq(err.sys_errno, EIO);
		ck_assert_ptr_nonnull(strstr(err.msg, "\"packed\""));
	}
	return fault.triggered;
}

START_TEST(faults)
{
	unsigned at = 1;

	tmp_make(&tree);
	make_packed();
	while (one_fault(at, false))
		at++;
	ck_assert_uint_gt(at, 5);
	one_fault(0, true);
	tmp_remove(&tree);
}
END_TEST

static Suite *readahead_suite(void)
{
	Suite *s = suite_create("readahead");
	TCase *t = tcase_create("readahead");

	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	tcase_add_loop_test(t, all_bytes, 0, NWAYS);
	tcase_add_loop_test(t, failure_after_bytes, 0, NWAYS);
	tcase_add_loop_test(t, left_early, 0, 20);
	tcase_add_loop_test(t, never_read, 0, 100);
	tcase_add_loop_test(t, stopped_while_waiting, 0, 100);
	tcase_add_test(t, reader_gives_up);
	tcase_add_test(t, faults);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(readahead_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
