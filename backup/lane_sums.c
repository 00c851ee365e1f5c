#include "backup/lane_sums.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backup/filelist.h"
#include "backup/lane_files.h"
#include "common/stop.h"
#include "common/sys.h"

#define READ_BYTES ((size_t)1024 * 1024)
#define TICK_MS	   200
#define THREADS	   64 /* at most */

/* `next` is the first file that nobody took; the first failure of a thread is in `why`. */
struct run {
	const struct pgr_lane_sums *s;
	int ended_fd; /* counts the threads that ended */
	_Atomic size_t next;
	pthread_mutex_t lock;
	bool failed;	    /* under lock */
	struct pgr_err why; /* with failed */
};

/* One thread's. */
struct reader {
	struct run *run;
	pthread_t thread;
	struct pgr_lane_dir dir;
	uint8_t *buf;
};

static void fail(struct run *r, const struct pgr_err *err)
{
	pthread_mutex_lock(&r->lock);
	if (!r->failed && err->cls != PGR_E_STOPPED) {
		r->failed = true;
		r->why = *err;
	}
	pthread_mutex_unlock(&r->lock);
	pgr_stop_post(r->s->stop, err);
}

/* ---- one file ---- */

static int digest_all(struct reader *t, int fd, const char *path, struct pgr_digest *d, uint64_t *size,
		      struct pgr_err *err)
{
	const struct pgr_lane_sums *s = t->run->s;
	ssize_t n;

	*size = 0;
	for (;;) {
		do
			n = s->sys->pread(s->sys, fd, t->buf, READ_BYTES, (off_t)*size);
		while (n < 0 && errno == EINTR);
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s\"", path);
		if (n == 0)
			return PGR_OK;
		*size += (uint64_t)n;
		if (pgr_stop_check(s->stop, err) != PGR_OK || pgr_digest_add(d, t->buf, (size_t)n, err) != PGR_OK)
			return PGR_ERR;
	}
}

static int sum_of(struct reader *t, int fd, size_t i, struct pgr_err *err)
{
	const struct pgr_lane_sums *s = t->run->s;
	const char *path = s->list->entries[i].path;
	uint64_t sealed = pgr_lane_files_size(s->files, i);
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d;
	uint64_t size;
	size_t len;
	int rc;

	if (pgr_digest_new(&d, s->digest, err) != PGR_OK)
		return PGR_ERR;
	rc = digest_all(t, fd, path, d, &size, err);
	if (rc == PGR_OK && pgr_lane_files_in_place(s->files, i) && size != sealed)
		rc = pgr_err_set(err, PGR_E_DATA, "file \"%s\" has %" PRIu64 " bytes instead of %" PRIu64, path, size,
				 sealed);
	if (rc == PGR_OK)
		rc = pgr_digest_end(d, sum, &len, err);
	pgr_digest_free(d);
	if (rc == PGR_OK)
		pgr_lane_files_set_sum(s->files, i, size, sum);
	return rc;
}

/* A kept file of the server may be none here: another thing has its name, or one that is kept is no directory. */
static bool is_no_file(const struct pgr_err *err)
{
	return err->cls == PGR_E_DATA || err->sys_errno == ENOENT || err->sys_errno == ENOTDIR ||
	       err->sys_errno == ELOOP;
}

static int sum_file(struct reader *t, size_t i, struct pgr_err *err)
{
	const struct pgr_lane_sums *s = t->run->s;
	int fd, rc;

	if (pgr_lane_files_open_here(s->files, i, &t->dir, &fd, err) != PGR_OK) {
		if (pgr_lane_files_in_place(s->files, i) || !is_no_file(err))
			return PGR_ERR;
		pgr_lane_files_leave_out(s->files, i);
		return PGR_OK;
	}
	rc = sum_of(t, fd, i, err);
	(void)s->sys->close(s->sys, fd); /* nothing was written through it */
	return rc;
}

/* ---- threads ---- */

static int sum_files(struct reader *t, struct pgr_err *err)
{
	struct run *r = t->run;
	size_t i;

	t->buf = malloc(READ_BYTES);
	if (t->buf == NULL)
		return pgr_err_nomem(err);
	while ((i = atomic_fetch_add(&r->next, 1)) < r->s->list->n) {
		if (!pgr_lane_files_lacks_sum(r->s->files, i))
			continue;
		if (pgr_stop_check(r->s->stop, err) != PGR_OK || sum_file(t, i, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static void *reader_main(void *arg)
{
	struct reader *t = arg;
	struct pgr_err err;

	if (sum_files(t, &err) != PGR_OK)
		fail(t->run, &err);
	free(t->buf);
	pgr_lane_dir_fini(&t->dir, t->run->s->sys);
	while (eventfd_write(t->run->ended_fd, 1) != 0 && errno == EINTR)
		continue;
	return NULL;
}

static int wait_a_tick(struct run *r, unsigned *ended, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->s->sys;
	struct pollfd fd = {.fd = r->ended_fd, .events = POLLIN};
	uint64_t n;

	if (sys->poll(sys, &fd, 1, TICK_MS) < 0 && errno != EINTR)
		return pgr_err_sys(err, errno, "could not wait for threads");
	if (sys->read(sys, r->ended_fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		*ended += (unsigned)n;
	else if (errno != EAGAIN && errno != EINTR)
		return pgr_err_sys(err, errno, "could not read from an event descriptor");
	return PGR_OK;
}

static unsigned start(struct run *r, struct reader *readers, unsigned want)
{
	unsigned n;

	for (n = 0; n < want; n++) {
		struct pgr_err err;
		int rc;

		readers[n] = (struct reader){.run = r, .dir = PGR_LANE_DIR_INIT};
		rc = pthread_create(&readers[n].thread, NULL, reader_main, &readers[n]);
		if (rc != 0) {
			pgr_err_sys(&err, rc, "could not start a thread");
			fail(r, &err);
			break;
		}
	}
	return n;
}

static int run(struct run *r, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg, struct pgr_err *err)
{
	struct reader readers[THREADS];
	unsigned n = start(r, readers, r->s->threads < THREADS ? r->s->threads : THREADS), ended = 0;

	while (ended < n && !pgr_stop_is_set(r->s->stop)) {
		if (wait_a_tick(r, &ended, err) != PGR_OK || (tick != NULL && tick(tick_arg, err) != PGR_OK)) {
			fail(r, err);
			break;
		}
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(readers[i].thread, NULL);
	if (!r->failed)
		return pgr_stop_check(r->s->stop, err);
	*err = r->why;
	return PGR_ERR;
}

static bool has_any(const struct pgr_lane_sums *s)
{
	for (size_t i = 0; i < s->list->n; i++)
		if (pgr_lane_files_lacks_sum(s->files, i))
			return true;
	return false;
}

int pgr_lane_sums_run(const struct pgr_lane_sums *s, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg,
		      struct pgr_err *err)
{
	struct run r = {.s = s};
	int rc;

	if (!has_any(s))
		return PGR_OK;
	r.ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r.ended_fd < 0)
		return pgr_err_sys(err, errno, "could not create an event descriptor");
	rc = pthread_mutex_init(&r.lock, NULL);
	if (rc != 0) {
		close(r.ended_fd);
		return pgr_err_sys(err, rc, "could not create a mutex");
	}
	rc = run(&r, tick, tick_arg, err);
	pthread_mutex_destroy(&r.lock);
	close(r.ended_fd);
	return rc;
}
