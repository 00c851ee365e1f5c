#include "backup/lanes.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/lane_files.h"
#include "backup/lane_read.h"
#include "backup/lane_sessions.h"
#include "backup/lane_sums.h"
#include "backup/lane_work.h"
#include "backup/ratelimit.h"
#include "backup/recheck.h"
#include "backup/sql.h"
#include "common/block.h"
#include "common/stop.h"
#include "common/sys.h"

#define JOBS_MAX 64
#define TICK_MS	 200

/* How long to wait before each further attempt to get a lost session back; progress begins anew. */
static const int64_t backoff_ms[] = {100, 500, 1000, 2000, 5000};
#define ATTEMPTS (sizeof(backoff_ms) / sizeof(backoff_ms[0]))
_Static_assert(ATTEMPTS == PGR_ROWSUM_TRIES, "a row is read as often as a connection is tried");

struct lane {
	struct pgr_lanes *l;
	unsigned number;
	pthread_t thread;
	struct pgr_client *client;
	struct pgr_lane_reader reader;
	size_t attempts;       /* since there was progress */
	uint64_t rows_at_loss; /* of the reader */
};

/*
 * `opening` lanes have not had an answer to their first attempt; `opened` ones have had a session.  A lane that got
 * none waits until one did, and may then stay away; if none does, their errors are the run's.
 */
struct pgr_lanes {
	/* constant after pgr_lanes_new */
	struct pgr_lanes_opts o;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	int ended_fd; /* counts the lanes that ended */
	struct pgr_lane_work *work;
	struct pgr_lane_files *files;
	struct pgr_ratelimit rate;
	struct pgr_lane_shared shared;
	uint64_t kept_bytes; /* of the list: what stays as it is here */

	/* of the thread that runs */
	struct lane *lanes;
	unsigned started;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock: */
	unsigned opening, opened;
	bool failed;
	struct pgr_err why; /* with failed */
};

static void PGR_PRINTF(2, 3) tell(const struct pgr_lanes *l, const char *fmt, ...)
{
	char line[2560];
	va_list ap;

	if (l->o.info == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	l->o.info(l->o.arg, line);
}

/* The run fails with this.  One that only tells that others did is theirs. */
static void fail(struct pgr_lanes *l, const struct pgr_err *err)
{
	pthread_mutex_lock(&l->lock);
	if (!l->failed && err->cls != PGR_E_STOPPED) {
		l->failed = true;
		l->why = *err;
	}
	pthread_mutex_unlock(&l->lock);
	pgr_stop_post(l->stop, err);
}

/* ---- sessions ---- */

/* PGR_MORE: it is another one, *err says so. */
static int check_id(const struct pgr_lanes *l, const struct pgr_buf *id, struct pgr_err *err)
{
	if (id->len == strlen(l->o.server_id) && memcmp(id->data, l->o.server_id, id->len) == 0)
		return PGR_OK;
	pgr_err_set(err, PGR_E_USAGE,
		    "a connection led to another server than the one on which the backup was started");
	pgr_err_hint(err, "Name a single host, or take the backup with --jobs=1.");
	return PGR_MORE;
}

static int open_new(struct lane *ln, struct pgr_buf *id, struct pgr_err *err)
{
	struct pgr_lanes *l = ln->l;
	int rc;

	if (l->o.open_session != NULL)
		rc = l->o.open_session(l->o.arg, &ln->client, err);
	else
		rc = pgr_sql_open(&ln->client, l->o.params, l->sys, l->stop, l->o.notice, l->o.arg, err);
	return rc == PGR_OK && l->o.server_id != NULL ? pgr_lanes_server_id(ln->client, id, err) : rc;
}

/* PGR_MORE: on another server, where nothing may be read; *err says so, and there is no session. */
static int open_session(struct lane *ln, bool ahead, struct pgr_err *err)
{
	struct pgr_lanes *l = ln->l;
	struct pgr_buf id = {0};
	int rc = ahead ? pgr_lane_sessions_take(l->o.sessions, ln->number, &ln->client, &id, err)
		       : open_new(ln, &id, err);

	if (rc == PGR_OK && l->o.server_id != NULL)
		rc = check_id(l, &id, err);
	pgr_buf_fini(&id);
	if (rc != PGR_OK) {
		pgr_client_free(ln->client);
		ln->client = NULL;
	}
	return rc;
}

/*
 * Whether another attempt may go better: connections that broke or could not be made (not: a login that was refused,
 * class 28), a server that starts or stops (class 08, 57P03), a server that
 * has no room or memory just now (53300, 53200), a conflict with recovery on a standby (class 40).  An administrator's
 * word (57P01) is not to be argued with.
 */
static bool may_retry(const struct pgr_err *err)
{
	static const char *const states[] = {"53200", "53300", "57P03"};

	if (err->cls == PGR_E_NETWORK || (err->cls == PGR_E_CONNECT && err->sqlstate[0] == '\0'))
		return true;
	if (err->cls == PGR_E_CONNECT)
		return strncmp(err->sqlstate, "28", 2) != 0;
	if (err->cls != PGR_E_SERVER)
		return false;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (strcmp(err->sqlstate, states[i]) == 0)
			return true;
	return strncmp(err->sqlstate, "08", 2) == 0 || strncmp(err->sqlstate, "40", 2) == 0;
}

/* Whoever damages rows does not spare what is around them: with verification another connection is tried. */
static bool is_distrusted(const struct lane *ln, const struct pgr_err *err)
{
	return ln->l->o.verify_transfer && (ln->reader.damaged || err->cls == PGR_E_PROTOCOL);
}

/* This lane had its answer.  With `wait`: whether others got a session, as soon as that is known. */
static bool others_opened(struct pgr_lanes *l, bool opened, bool wait)
{
	bool yes;

	pthread_mutex_lock(&l->lock);
	l->opening--;
	l->opened += opened;
	pthread_cond_broadcast(&l->changed);
	while (wait && l->opening > 0 && l->opened == 0 && !pgr_stop_is_set(l->stop))
		pthread_cond_wait(&l->changed, &l->lock);
	yes = l->opened > 0;
	pthread_mutex_unlock(&l->lock);
	return yes;
}

/* PGR_MORE: there is no room for this lane, others do the work. */
static int open_first(struct lane *ln, struct pgr_err *err)
{
	bool ahead = ln->l->o.sessions != NULL;
	int rc = open_session(ln, ahead, err);

	if (rc == PGR_ERR && ahead && may_retry(err)) /* some time has passed since then */
		rc = open_session(ln, false, err);
	if (rc == PGR_OK) {
		others_opened(ln->l, true, false);
		return PGR_OK;
	}
	if (!others_opened(ln->l, false, may_retry(err)) || !may_retry(err))
		return PGR_ERR;
	tell(ln->l, "could not open lane %u, going on with fewer: %s", ln->number, err->msg);
	return PGR_MORE;
}

/*
 * After a loss, which *err tells.  When there is no session to be had, it stays the error; also when there is one on
 * another server, or on this one after a restart: that is how a run sees that the backup is over.
 */
static int open_again(struct lane *ln, struct pgr_err *err)
{
	struct pgr_lanes *l = ln->l;
	struct pgr_err later;
	int rc;

	if (ln->reader.rows_read > ln->rows_at_loss)
		ln->attempts = 0;
	ln->rows_at_loss = ln->reader.rows_read;
	tell(l,
	     is_distrusted(ln, err) ? "lane %u does not trust its connection any more: %s"
				    : "lane %u lost its connection: %s",
	     ln->number, err->msg);
	while (ln->attempts < ATTEMPTS) {
		if (pgr_stop_wait(l->stop, l->sys, backoff_ms[ln->attempts++], &later) != PGR_OK) {
			*err = later;
			return PGR_ERR;
		}
		rc = open_session(ln, false, &later);
		if (rc == PGR_OK) {
			tell(l, "lane %u is connected again", ln->number);
			return PGR_OK;
		}
		pgr_err_detail(err, "Connecting again failed: %s", later.msg);
		if (rc == PGR_MORE)
			return PGR_ERR;
		if (!may_retry(&later)) {
			*err = later;
			return PGR_ERR;
		}
	}
	return PGR_ERR;
}

/* ---- a lane's thread ---- */

static int serve(struct lane *ln, struct pgr_err *err)
{
	for (;;) {
		struct pgr_err later;

		if (pgr_lane_reader_run(&ln->reader, ln->client, err) == PGR_OK)
			return PGR_OK;
		if (!may_retry(err) && !is_distrusted(ln, err)) {
			pgr_lane_reader_abandon(&ln->reader);
			return PGR_ERR;
		}
		if (pgr_lane_reader_drop(&ln->reader, &later) != PGR_OK) {
			*err = later;
			return PGR_ERR;
		}
		pgr_client_free(ln->client);
		ln->client = NULL;
		if (open_again(ln, err) != PGR_OK)
			return PGR_ERR;
	}
}

static void *lane_main(void *arg)
{
	struct lane *ln = arg;
	struct pgr_lanes *l = ln->l;
	struct pgr_err err;
	int rc;

	pgr_lane_reader_init(&ln->reader, &l->shared, ln->number, l->sys);
	rc = open_first(ln, &err);
	if (rc == PGR_OK)
		rc = serve(ln, &err);
	if (rc == PGR_ERR)
		fail(l, &err);
	pgr_client_free(ln->client);
	pgr_lane_reader_fini(&ln->reader, l->sys);
	while (eventfd_write(l->ended_fd, 1) != 0 && errno == EINTR)
		continue;
	return NULL;
}

/* ---- new, free ---- */

static void wake_all(void *arg)
{
	struct pgr_lanes *l = arg;

	pthread_mutex_lock(&l->lock);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

static int check_opts(const struct pgr_lanes_opts *o, struct pgr_err *err)
{
	if (o->jobs == 0 || o->jobs > JOBS_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "number of lanes must be between 1 and %d", JOBS_MAX);
	if (o->plan != NULL ? o->plan->n != o->list->n : o->compare_only)
		return pgr_err_set(err, PGR_E_USAGE, "the plan is not one of this list");
	if (o->compare_only)
		return PGR_OK;
	if (pgr_pool_count(o->pool) < o->jobs + 2)
		return pgr_err_set(err, PGR_E_USAGE, "%zu blocks are not enough for %u lanes", pgr_pool_count(o->pool),
				   o->jobs);
	if (pgr_pool_block_bytes(o->pool) < PGR_LANE_ROW)
		return pgr_err_set(err, PGR_E_USAGE, "blocks of %zu bytes are too small for a lane",
				   pgr_pool_block_bytes(o->pool));
	return PGR_OK;
}

static int make_locks(struct pgr_lanes *l, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&l->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&l->changed, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_mutex_destroy(&l->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

/* What is only compared needs no blocks: it is divided as it will be when it is fetched, with blocks of the usual size.
 */
static uint32_t largest_row_of(const struct pgr_lanes_opts *o)
{
	size_t block = o->pool != NULL ? pgr_pool_block_bytes(o->pool) : PGR_LANE_ROW_MAX;

	return block < PGR_LANE_ROW_MAX ? (uint32_t)block : PGR_LANE_ROW_MAX;
}

static uint64_t kept_bytes(const struct pgr_lanes_opts *o)
{
	uint64_t n = 0;

	for (size_t i = 0; o->plan != NULL && i < o->list->n; i++)
		if (o->plan->files[i].action == PGR_DELTA_KEEP && !o->list->entries[i].is_dir)
			n += o->list->entries[i].size;
	return n;
}

static int make_parts(struct pgr_lanes *l, struct pgr_err *err)
{
	const struct pgr_lanes_opts *o = &l->o;
	uint32_t largest_row = largest_row_of(o);
	struct pgr_lane_work_opts work = {
		.list = o->list,
		.plan = o->plan,
		.compare_only = o->compare_only,
		.lanes = o->jobs,
		.whole_files = o->digest != PGR_DIGEST_NONE && o->digest != PGR_DIGEST_CRC32C,
		.largest_row = largest_row,
	};
	struct pgr_lane_files_opts files = {
		.list = o->list,
		.plan = o->plan,
		.compare_only = o->compare_only,
		.layout = o->layout,
		.sink = o->sink,
		.digest = o->digest,
		.pages = o->pages,
		.largest_row = largest_row,
		.on_file = o->on_file,
		.arg = o->arg,
	};

	l->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->ended_fd < 0)
		return pgr_err_sys(err, errno, "could not create an event descriptor");
	l->lanes = calloc(o->jobs, sizeof(*l->lanes));
	if (l->lanes == NULL)
		return pgr_err_nomem(err);
	if (pgr_lane_work_new(&l->work, &work, l->stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lane_files_new(&l->files, &files, l->sys, l->stop, err);
}

int pgr_lanes_new(struct pgr_lanes **out, const struct pgr_lanes_opts *opts, const struct pgr_sys *sys,
		  struct pgr_stop *stop, struct pgr_err *err)
{
	struct pgr_lanes *l;

	*out = NULL;
	if (check_opts(opts, err) != PGR_OK)
		return PGR_ERR;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return pgr_err_nomem(err);
	l->o = *opts;
	l->sys = sys;
	l->stop = stop;
	l->ended_fd = -1;
	if (make_locks(l, err) != PGR_OK) {
		free(l);
		return PGR_ERR;
	}
	if (pgr_ratelimit_init(&l->rate, sys, stop, opts->max_rate_bytes, err) != PGR_OK) {
		pthread_cond_destroy(&l->changed);
		pthread_mutex_destroy(&l->lock);
		free(l);
		return PGR_ERR;
	}
	l->waker = (struct pgr_waker){.fn = wake_all, .arg = l};
	pgr_stop_watch(stop, &l->waker);
	if (make_parts(l, err) != PGR_OK) {
		pgr_lanes_free(l);
		return PGR_ERR;
	}
	l->shared = (struct pgr_lane_shared){.list = opts->list,
					     .work = l->work,
					     .files = l->files,
					     .pool = opts->pool,
					     .rate = &l->rate,
					     .pages = opts->pages,
					     .verify = opts->verify_transfer,
					     .delta = opts->plan != NULL,
					     .compare_only = opts->compare_only,
					     .largest_row = largest_row_of(opts)};
	l->kept_bytes = kept_bytes(opts);
	*out = l;
	return PGR_OK;
}

void pgr_lanes_free(struct pgr_lanes *l)
{
	if (l == NULL)
		return;
	pgr_stop_unwatch(l->stop, &l->waker);
	pgr_lane_files_free(l->files);
	pgr_lane_work_free(l->work);
	pgr_ratelimit_fini(&l->rate);
	if (l->ended_fd >= 0)
		close(l->ended_fd);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l->lanes);
	free(l);
}

/* ---- the run ---- */

static void start_lanes(struct pgr_lanes *l)
{
	l->opening = l->o.jobs;
	for (; l->started < l->o.jobs; l->started++) {
		struct lane *ln = &l->lanes[l->started];
		struct pgr_err err;
		int rc;

		*ln = (struct lane){.l = l, .number = l->started};
		rc = pthread_create(&ln->thread, NULL, lane_main, ln);
		if (rc != 0) {
			pgr_err_sys(&err, rc, "could not start a thread");
			fail(l, &err);
			return;
		}
	}
}

/* Waits for the next tick, or for a lane to end.  *ended counts them. */
static int wait_a_tick(struct pgr_lanes *l, unsigned *ended, struct pgr_err *err)
{
	struct pollfd fd = {.fd = l->ended_fd, .events = POLLIN};
	uint64_t n;

	if (l->sys->poll(l->sys, &fd, 1, TICK_MS) < 0 && errno != EINTR)
		return pgr_err_sys(err, errno, "could not wait for the lanes");
	if (l->sys->read(l->sys, l->ended_fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		*ended += (unsigned)n;
	else if (errno != EAGAIN && errno != EINTR)
		return pgr_err_sys(err, errno, "could not read from an event descriptor");
	return PGR_OK;
}

int pgr_lanes_run(struct pgr_lanes *l, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg, struct pgr_err *err)
{
	unsigned ended = 0;

	start_lanes(l);
	while (ended < l->started && !pgr_stop_is_set(l->stop)) {
		if (wait_a_tick(l, &ended, err) != PGR_OK || (tick != NULL && tick(tick_arg, err) != PGR_OK)) {
			fail(l, err);
			break;
		}
	}
	for (unsigned i = 0; i < l->started; i++)
		pthread_join(l->lanes[i].thread, NULL);
	if (!l->failed)
		return pgr_stop_check(l->stop, err);
	*err = l->why;
	return PGR_ERR;
}

/* ---- looking and changing meanwhile, and afterwards ---- */

uint64_t pgr_lanes_bytes(const struct pgr_lanes *l)
{
	struct pgr_delta_figures g;

	pgr_lanes_figures(l, &g);
	return l->o.plan != NULL ? g.fetched + g.same + l->kept_bytes : atomic_load(&l->shared.bytes);
}

void pgr_lanes_figures(const struct pgr_lanes *l, struct pgr_delta_figures *out)
{
	pgr_lane_files_figures(l->files, out);
	if (l->o.plan != NULL)
		out->fetched += atomic_load(&l->shared.bytes);
}

int pgr_lanes_sum_rest(struct pgr_lanes *l, int (*tick)(void *arg, struct pgr_err *err), void *tick_arg,
		       struct pgr_err *err)
{
	struct pgr_lane_sums s = {
		.sys = l->sys,
		.stop = l->stop,
		.list = l->o.list,
		.files = l->files,
		.digest = l->o.digest,
		.threads = l->o.jobs,
	};

	return pgr_lane_sums_run(&s, tick, tick_arg, err);
}

void pgr_lanes_set_rate(struct pgr_lanes *l, uint64_t bytes_per_second)
{
	pgr_ratelimit_set(&l->rate, bytes_per_second);
}

int pgr_lanes_result(struct pgr_lanes *l, size_t i, struct pgr_lane_result *out, struct pgr_err *err)
{
	int rc;

	*out = (struct pgr_lane_result){0};
	if (i >= l->o.list->n)
		return pgr_err_set(err, PGR_E_USAGE, "the list has no entry %zu", i);
	if (l->o.list->entries[i].is_dir)
		return PGR_OK;
	rc = pgr_lane_files_copied(l->files, i, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	out->copied = true;
	out->size = pgr_lane_files_size(l->files, i);
	out->sum_len = pgr_digest_len(l->o.digest);
	memcpy(out->sum, pgr_lane_files_sum(l->files, i), out->sum_len);
	return PGR_OK;
}

int pgr_lanes_recheck(struct pgr_lanes *l, struct pgr_client *client, uint64_t *failures, struct pgr_err *err)
{
	struct pgr_recheck c = {
		.sys = l->sys,
		.list = l->o.list,
		.layout = l->o.layout,
		.files = l->files,
		.pages = l->o.pages,
		.digest = l->o.digest,
		.verify_transfer = l->o.verify_transfer,
		.notice = l->o.notice,
		.info = l->o.info,
		.arg = l->o.arg,
	};

	*failures = 0;
	return l->o.pages == NULL ? PGR_OK : pgr_recheck_pages(&c, client, failures, err);
}
