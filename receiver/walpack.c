#include "receiver/walpack.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/compress.h"
#include "common/sys.h"
#include "receiver/packseg.h"
#include "receiver/scan.h"

#define NICENESS      10 /* of the threads: the stream comes first */
#define MAX_ATTEMPTS  5	 /* with a segment that cannot be compressed while the disk has space */
#define RETRY_DOUBLES 5

struct job {
	pgr_segno seg;
	pgr_tli tli;
	bool only_foreign; /* nothing to compress */
};

struct jobs {
	struct job *jobs; /* [first, n) are to be done; those before `next` are under work */
	size_t first, next, n, cap;
};

struct packer {
	struct pgr_walpack *all;
	pthread_t thread;
	struct pgr_packseg seg;
	bool made;	   /* seg has something for the job, or found that there is nothing to do */
	unsigned attempts; /* with the job, when it was the first of all */
};

/*
 * - todo.jobs[todo.first] is job number `settled`, and so on.  Jobs are taken in this order, and settled in this order:
 *   whoever has the first one has the turn, and is the only one who changes names, tells of failures, and waits for the
 *   disk to have space.
 * - quit: nothing is taken any more, and nobody gets the turn.
 */
struct pgr_walpack {
	/* constant */
	struct pgr_packdir dir;
	struct packer packers[PGR_PACKSEG_MAX];
	unsigned threads;
	pgr_segno below;
	bool foreign_partials;
	int64_t retry_ms;
	char *dir_name;

	struct jobs left; /* packers[0]'s, while it reads the directory */
	bool is_failing;  /* whose turn it is: and somebody was told */

	atomic_bool give_up; /* the time for stopping is over */

	pthread_mutex_t lock;
	pthread_cond_t cond; /* on CLOCK_MONOTONIC; anything below has changed */
	/* under lock: */
	struct jobs todo;
	uint64_t settled;
	bool ready;    /* what earlier runs left is in todo */
	bool stalled;  /* the first job is tried again later: whoever holds a temporary file takes it back */
	bool stopping; /* end when everything is done, or at the first failure */
	bool quit;
	unsigned running; /* threads */
	int64_t deadline; /* on mono_ms; INT64_MAX: none */
};

/* ---- messages ---- */

static void PGR_PRINTF(3, 4) say(const struct pgr_walpack *p, int level, const char *fmt, ...)
{
	char line[sizeof(((struct pgr_err *)0)->msg) + 256];
	va_list ap;

	if (p->dir.log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	p->dir.log(p->dir.log_arg, level, line);
}

/* ---- the queue ---- */

static int make_room(struct jobs *q, struct pgr_err *err)
{
	struct job *p;
	size_t more = q->cap == 0 ? 64 : q->cap * 2;

	if (q->first > q->cap / 2) {
		memmove(q->jobs, q->jobs + q->first, (q->n - q->first) * sizeof(*q->jobs));
		q->n -= q->first;
		q->next -= q->first;
		q->first = 0;
	}
	if (q->n < q->cap)
		return PGR_OK;
	p = reallocarray(q->jobs, more, sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(err);
	q->jobs = p;
	q->cap = more;
	return PGR_OK;
}

static int add_job(struct jobs *q, struct job job, struct pgr_err *err)
{
	if (make_room(q, err) != PGR_OK)
		return PGR_ERR;
	q->jobs[q->n++] = job;
	return PGR_OK;
}

void pgr_walpack_finished(struct pgr_walpack *p, const char *name)
{
	struct job job = {0};
	struct pgr_err err;
	int rc;

	if (p == NULL || !pgr_walname_parse(name, p->dir.segment_bytes, &job.tli, &job.seg))
		return;
	job.only_foreign = p->dir.spec.method == PGR_COMP_NONE;
	pthread_mutex_lock(&p->lock);
	rc = p->quit ? PGR_OK : add_job(&p->todo, job, &err);
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	if (rc != PGR_OK)
		say(p, 1, "segment \"%s\" is left uncompressed: %s", name, err.msg);
}

size_t pgr_walpack_backlog(struct pgr_walpack *p)
{
	size_t n;

	if (p == NULL)
		return 0;
	pthread_mutex_lock(&p->lock);
	n = p->todo.n - p->todo.first;
	pthread_mutex_unlock(&p->lock);
	return n;
}

/* ---- what earlier runs left ---- */

static int on_left(void *arg, pgr_tli tli, pgr_segno seg, unsigned kinds, struct pgr_err *err)
{
	struct pgr_walpack *p = arg;
	bool pack = p->dir.spec.method != PGR_COMP_NONE && (kinds & PGR_WALSCAN_PLAIN) != 0;

	if (!pack && (kinds & PGR_WALSCAN_FOREIGN) == 0)
		return PGR_OK;
	return add_job(&p->left, (struct job){.seg = seg, .tli = tli, .only_foreign = !pack}, err);
}

/* What the stream has finished meanwhile stands behind it in the WAL, and so in the queue. */
static int queue_left(struct pgr_walpack *p, struct pgr_err *err)
{
	int rc = pgr_walscan_left(p->dir.sys, p->dir.dirfd, p->dir.dir, p->dir.segment_bytes, p->below, on_left, p,
				  err);

	pthread_mutex_lock(&p->lock);
	for (size_t i = p->todo.first; i < p->todo.n && rc == PGR_OK; i++)
		rc = add_job(&p->left, p->todo.jobs[i], err);
	if (rc == PGR_OK) {
		struct jobs old = p->todo;

		p->todo = p->left;
		p->left = old;
	}
	pthread_mutex_unlock(&p->lock);
	free(p->left.jobs);
	p->left = (struct jobs){0};
	return rc;
}

/* ---- one job ---- */

static int make(struct packer *k, struct job job, struct pgr_err *err)
{
	int rc = job.only_foreign ? PGR_OK : pgr_packseg_make(&k->seg, job.tli, job.seg, err);

	k->made = rc == PGR_OK;
	return rc;
}

static int settle(struct packer *k, struct job job, struct pgr_err *err)
{
	int rc = PGR_OK;

	if (k->all->foreign_partials)
		rc = pgr_packseg_drop_foreign(&k->seg, job.tli, job.seg, err);
	if (rc == PGR_OK && !job.only_foreign)
		rc = pgr_packseg_settle(&k->seg, err);
	k->made = k->made && rc == PGR_OK;
	return rc;
}

static void leave(struct packer *k)
{
	pgr_packseg_leave(&k->seg);
	k->made = false;
}

/* Whether a later attempt may do better; a full disk is waited for. */
static bool may_mend(const struct packer *k, const struct pgr_err *err)
{
	if (atomic_load(&k->all->dir.failed) || err->cls == PGR_E_DATA)
		return false;
	if (err->cls == PGR_E_SYSTEM && (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT))
		return true;
	return k->attempts < MAX_ATTEMPTS;
}

static void tell_failure(struct pgr_walpack *p, struct job job, bool again, const struct pgr_err *err)
{
	char name[PGR_WALNAME_LEN + 1];

	pgr_walname_format(name, job.tli, job.seg, p->dir.segment_bytes);
	if (atomic_load(&p->dir.failed))
		say(p, 1, "segments are left uncompressed from \"%s\" on, until the next start: %s", name, err->msg);
	else if (!again)
		say(p, 1, "segment \"%s\" is left uncompressed: %s", name, err->msg);
	else if (!p->is_failing)
		say(p, 1, "could not compress segment \"%s\", trying again later: %s", name, err->msg);
	p->is_failing = again;
}

/* With the turn.  PGR_OK: the job is done, or given up; PGR_MORE: it is to be tried again; PGR_ERR: end. */
static int attempt(struct packer *k, struct job job)
{
	struct pgr_walpack *p = k->all;
	struct pgr_err err;
	bool again;
	int rc = k->made ? PGR_OK : make(k, job, &err);

	if (rc == PGR_OK)
		rc = settle(k, job, &err);
	k->attempts++;
	again = rc != PGR_OK && may_mend(k, &err);
	if (rc != PGR_OK)
		leave(k);
	if (rc != PGR_OK && err.cls != PGR_E_STOPPED)
		tell_failure(p, job, again, &err);
	if (rc == PGR_OK && p->is_failing) {
		p->is_failing = false;
		say(p, 2, "segments are compressed again");
	}
	if (again)
		return PGR_MORE;
	return atomic_load(&p->dir.failed) || atomic_load(&p->give_up) ? PGR_ERR : PGR_OK;
}

/* ---- the turn ---- */

static void wait_until(struct pgr_walpack *p, int64_t ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	pthread_cond_timedwait(&p->cond, &p->lock, &ts);
}

/* The lock is held.  What others hold takes space, of which there may be none left. */
static void wait_before_retry(struct packer *k)
{
	struct pgr_walpack *p = k->all;
	unsigned doubles = k->attempts - 1 < RETRY_DOUBLES ? k->attempts - 1 : RETRY_DOUBLES;
	int64_t until = p->dir.sys->mono_ms(p->dir.sys) + (p->retry_ms << doubles);

	p->stalled = true;
	pthread_cond_broadcast(&p->cond);
	while (!p->stopping && p->dir.sys->mono_ms(p->dir.sys) < until)
		wait_until(p, until);
}

/* The lock is held, and let go in between.  False: it will not come. */
static bool await_turn(struct packer *k, uint64_t number)
{
	struct pgr_walpack *p = k->all;

	while (!p->quit && p->settled != number) {
		if (!p->stalled || !k->made) {
			pthread_cond_wait(&p->cond, &p->lock);
			continue;
		}
		pthread_mutex_unlock(&p->lock);
		leave(k);
		pthread_mutex_lock(&p->lock);
	}
	return !p->quit;
}

/* The lock is held, and let go for the work. */
static void use_turn(struct packer *k, struct job job)
{
	struct pgr_walpack *p = k->all;
	int rc;

	do {
		pthread_mutex_unlock(&p->lock);
		rc = attempt(k, job);
		pthread_mutex_lock(&p->lock);
		if (rc == PGR_MORE && !p->stopping)
			wait_before_retry(k);
	} while (rc == PGR_MORE && !p->stopping);
	p->stalled = false;
	if (rc == PGR_OK) {
		p->todo.first++;
		p->settled++;
	}
	if (rc != PGR_OK)
		p->quit = true;
	pthread_cond_broadcast(&p->cond);
}

/* ---- a thread ---- */

/* The lock is held, and let go for the work.  What fails out of turn is tried again when it comes. */
static void do_next(struct packer *k)
{
	struct pgr_walpack *p = k->all;
	uint64_t number = p->settled + (p->todo.next - p->todo.first);
	struct job job = p->todo.jobs[p->todo.next++];
	struct pgr_err ignored;

	k->attempts = 0;
	k->made = false;
	if (p->settled != number) {
		pthread_mutex_unlock(&p->lock);
		(void)make(k, job, &ignored);
		pthread_mutex_lock(&p->lock);
	}
	if (await_turn(k, number)) {
		use_turn(k, job);
	} else {
		pthread_mutex_unlock(&p->lock);
		leave(k);
		pthread_mutex_lock(&p->lock);
	}
}

/* The lock is held. */
static void look_for_left(struct pgr_walpack *p)
{
	struct pgr_err err;

	pthread_mutex_unlock(&p->lock);
	if (queue_left(p, &err) != PGR_OK)
		say(p, 1, "what earlier runs left uncompressed is not looked for: %s", err.msg);
	pthread_mutex_lock(&p->lock);
	p->ready = true;
	pthread_cond_broadcast(&p->cond);
}

static void *thread_main(void *arg)
{
	struct packer *k = arg;
	struct pgr_walpack *p = k->all;

	/* Linux counts niceness by thread; zstd's workers inherit it.  It is a courtesy: no matter if it fails. */
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
	pthread_mutex_lock(&p->lock);
	if (k == &p->packers[0])
		look_for_left(p);
	while (!p->quit) {
		if (p->ready && p->todo.next < p->todo.n)
			do_next(k);
		else if (p->ready && p->stopping)
			break;
		else
			pthread_cond_wait(&p->cond, &p->lock);
	}
	p->running--;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- beginning and end ---- */

static void free_all(struct pgr_walpack *p)
{
	p->dir.sys->close(p->dir.sys, p->dir.dirfd); /* of a directory: nothing is lost by it */
	pthread_cond_destroy(&p->cond);
	pthread_mutex_destroy(&p->lock);
	for (unsigned i = 0; i < PGR_PACKSEG_MAX; i++)
		pgr_packseg_fini(&p->packers[i].seg);
	free(p->todo.jobs);
	free(p->dir_name);
	free(p);
}

static void init_sync(struct pgr_walpack *p)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->cond, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&p->lock, NULL);
	atomic_init(&p->give_up, false);
	p->deadline = INT64_MAX;
}

static struct pgr_walpack *make_all(const struct pgr_sys *sys, int dirfd, const struct pgr_walpack_opts *o)
{
	struct pgr_walpack *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->dir_name = strdup(o->dir);
	if (p->dir_name == NULL) {
		free(p);
		return NULL;
	}
	init_sync(p);
	p->foreign_partials = o->foreign_partials;
	p->below = o->below;
	p->retry_ms = o->retry_ms;
	p->dir = (struct pgr_packdir){
		.sys = sys,
		.dirfd = dirfd,
		.dir = p->dir_name,
		.segment_bytes = o->segment_bytes,
		.file_mode = o->file_mode,
		.sync = o->sync,
		.spec = o->spec,
		.give_up = &p->give_up,
		.log = o->log,
		.log_arg = o->log_arg,
	};
	return p;
}

/* ---- how many ---- */

static unsigned processors(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return n > 1 ? (unsigned)n : 1;
}

/* zstd's own workers are as many as somebody wanted. */
static unsigned thread_count(const struct pgr_walpack_opts *o)
{
	unsigned n = o->threads;

	if (n == 0)
		n = o->spec.has_workers && o->spec.workers > 0 ? 1 : processors();
	return n < PGR_PACKSEG_MAX ? n : PGR_PACKSEG_MAX;
}

/* Before the first segment is finished is when somebody looks. */
static int check_spec(const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct pgr_comp *comp;
	int rc = pgr_comp_new(&comp, spec, err);

	pgr_comp_free(comp);
	return rc;
}

static int start_thread(struct pgr_walpack *p, unsigned number, struct pgr_err *err)
{
	struct packer *k = &p->packers[number];
	int rc;

	k->all = p;
	if (pgr_packseg_init(&k->seg, &p->dir, number, err) != PGR_OK)
		return PGR_ERR;
	rc = pthread_create(&k->thread, NULL, thread_main, k);
	return rc == 0 ? PGR_OK : pgr_err_sys(err, rc, "could not create a thread that compresses");
}

/* One is enough, fewer than there could be are no failure. */
static int start_threads(struct pgr_walpack *p, unsigned n, struct pgr_err *err)
{
	pthread_mutex_lock(&p->lock);
	while (p->threads < n && start_thread(p, p->threads, err) == PGR_OK)
		p->threads++;
	p->running = p->threads;
	pthread_mutex_unlock(&p->lock);
	return p->threads > 0 ? PGR_OK : PGR_ERR;
}

int pgr_walpack_start(struct pgr_walpack **out, const struct pgr_sys *sys, int dirfd,
		      const struct pgr_walpack_opts *opts, struct pgr_err *err)
{
	struct pgr_walpack *p = make_all(sys, dirfd, opts);
	bool idle = opts->spec.method == PGR_COMP_NONE && !opts->foreign_partials;
	int rc;

	*out = NULL;
	if (p == NULL) {
		sys->close(sys, dirfd);
		return pgr_err_nomem(err);
	}
	rc = check_spec(&opts->spec, err);
	if (rc == PGR_OK)
		rc = pgr_packseg_clean(&p->dir, err);
	if (rc == PGR_OK && !idle)
		rc = start_threads(p, thread_count(opts), err);
	if (rc == PGR_OK && !idle)
		*out = p;
	else
		free_all(p);
	return rc;
}

void pgr_walpack_hurry(struct pgr_walpack *p, int64_t ms)
{
	int64_t until;

	if (p == NULL)
		return;
	until = p->dir.sys->mono_ms(p->dir.sys) + ms;
	pthread_mutex_lock(&p->lock);
	if (until < p->deadline)
		p->deadline = until;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

void pgr_walpack_end(struct pgr_walpack *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->cond);
	while (p->running > 0 && p->dir.sys->mono_ms(p->dir.sys) < p->deadline) {
		if (p->deadline == INT64_MAX)
			pthread_cond_wait(&p->cond, &p->lock);
		else
			wait_until(p, p->deadline);
	}
	atomic_store(&p->give_up, true);
	p->quit = true;
	pthread_cond_broadcast(&p->cond);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->packers[i].thread, NULL);
}

void pgr_walpack_free(struct pgr_walpack *p)
{
	if (p != NULL)
		free_all(p);
}
