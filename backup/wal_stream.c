#include "backup/wal_stream.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "backup/wal_conn.h"
#include "common/stop.h"
#include "common/sys.h"
#include "receiver/receiver.h"
#include "receiver/walstore.h"

/*
 * How often the idle connection asks for something while the server's checkpoint runs: idle_session_timeout (14) also
 * ends idle walsenders.
 */
#define PING_MS 10000

/* How long to wait before a lost connection is made again: doubled each time, up to the most. */
#define RETRY_FIRST_MS 500
#define RETRY_MOST_MS  15000

#define STABLE_MS 60000 /* a session that lasted so long was not lost for the reason of the one before */

struct pgr_wal_stream {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_walstore *store;
	uint32_t segment_bytes;
	int64_t status_interval_ms;
	int64_t ping_ms;
	int64_t retry_first_ms;
	void (*info)(void *arg, const char *line);
	void (*warning)(void *arg, const char *line);
	void *arg;

	pthread_t thread;
	bool running; /* the thread was started and not joined */
	struct pgr_waker waker;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock: */
	bool approved;		 /* system_identifier is set */
	char *system_identifier; /* of the cluster that it must be */
	bool opened;		 /* the first connection and its slot are there, or `result` and `err` say why not */
	bool started;		 /* start and tli are set */
	bool quit;		 /* do not start any more */
	pgr_lsn start;
	pgr_tli tli;
	pgr_lsn end;		       /* 0: not known yet */
	struct pgr_receiver *receiver; /* of the last session; changed by the thread only, which reads it without */

	/* the thread's, once it runs */
	struct pgr_wal_conn conn;
	bool shut_down;	     /* the server ended the stream in good order */
	int64_t session_ms;  /* when the session began */
	pgr_lsn have;	     /* how far WAL had come when a session ended */
	bool struggling;     /* a session was lost */
	int64_t struggle_ms; /* with it: since when nothing was gained */
	unsigned attempts;   /* with it: since then */

	/* the thread's; read after the join: */
	int result;
	struct pgr_err err;
};

static void wake_up(void *arg)
{
	struct pgr_wal_stream *w = arg;

	pthread_mutex_lock(&w->lock);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void receiver_log(void *arg, int level, const char *line)
{
	struct pgr_wal_stream *w = arg;

	if (level > 0 && w->warning != NULL)
		w->warning(w->arg, line);
}

static void PGR_PRINTF(3, 4)
	say(const struct pgr_wal_stream *w, void (*how)(void *arg, const char *line), const char *fmt, ...)
{
	char line[2304];
	va_list ap;

	if (how == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	how(w->arg, line);
}

static int64_t now_ms(const struct pgr_wal_stream *w)
{
	return w->sys->mono_ms(w->sys);
}

/* ---- the thread waits ---- */

/* Under the lock: for a change, at most until `until`; false when that has passed. */
static bool wait_changed(struct pgr_wal_stream *w, const struct timespec *until)
{
	return pthread_cond_timedwait(&w->changed, &w->lock, until) == 0;
}

static struct timespec time_in(int64_t ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

/* Under the lock, for `word`, or for the end; false when it is time to say something. */
static bool wait_for(struct pgr_wal_stream *w, const bool *word, int64_t ping_ms)
{
	struct timespec until = time_in(ping_ms);
	bool waiting = true;

	while (waiting && !*word && !w->quit && !pgr_stop_is_set(w->stop))
		waiting = wait_changed(w, &until);
	return waiting;
}

/* Waits until w->approved or w->started; PGR_MORE when that will not be. */
static int await(struct pgr_wal_stream *w, const bool *word, int64_t ping_ms, struct pgr_err *err)
{
	struct pgr_system_id id;
	int rc = PGR_OK;
	bool quit;

	pthread_mutex_lock(&w->lock);
	while (rc == PGR_OK && !wait_for(w, word, ping_ms)) {
		pthread_mutex_unlock(&w->lock);
		rc = pgr_client_identify(w->conn.client, &id, err);
		pthread_mutex_lock(&w->lock);
	}
	quit = w->quit;
	pthread_mutex_unlock(&w->lock);
	if (rc == PGR_OK)
		rc = pgr_stop_check(w->stop, err);
	return rc == PGR_OK && quit ? PGR_MORE : rc;
}

/* Under the lock: everything was there when the session was lost. */
static bool is_complete(const struct pgr_wal_stream *w)
{
	return w->end != 0 && w->receiver != NULL && pgr_receiver_synced(w->receiver) >= w->end;
}

/* PGR_MORE: nothing more is wanted. */
static int pause_ms(struct pgr_wal_stream *w, int64_t ms, struct pgr_err *err)
{
	struct timespec until = time_in(ms);
	bool over;

	pthread_mutex_lock(&w->lock);
	while (!w->quit && !is_complete(w) && !pgr_stop_is_set(w->stop) && wait_changed(w, &until))
		continue;
	over = w->quit || is_complete(w);
	pthread_mutex_unlock(&w->lock);
	if (pgr_stop_check(w->stop, err) != PGR_OK)
		return PGR_ERR;
	return over ? PGR_MORE : PGR_OK;
}

/* ---- a session ---- */

/* Each session has a receiver of its own, since it may have another slot; it begins where the one before ended. */
static int make_receiver(struct pgr_wal_stream *w, struct pgr_err *err)
{
	struct pgr_receiver_opts opts = {
		.slot = w->conn.slot,
		.system_id = w->system_identifier,
		.start = w->receiver != NULL ? pgr_receiver_received(w->receiver) : w->start,
		.tli = w->receiver != NULL ? pgr_receiver_tli(w->receiver) : w->tli,
		.segment_bytes = w->segment_bytes,
		.status_interval_ms = w->status_interval_ms,
		.report_flush = w->conn.slot != NULL,
		.stop_at_follows_switch = true,
		.log = receiver_log,
		.log_arg = w,
	};
	struct pgr_receiver *r, *before;

	if (pgr_receiver_new(&r, w->sys, w->store, &opts, err) != PGR_OK)
		return PGR_ERR;
	pthread_mutex_lock(&w->lock);
	before = w->receiver;
	w->receiver = r;
	if (w->end != 0)
		pgr_receiver_stop_at(r, w->end);
	if (w->quit)
		pgr_receiver_stop_now(r);
	pthread_mutex_unlock(&w->lock);
	pgr_receiver_free(before);
	return PGR_OK;
}

/* Up to the end of what is wanted (PGR_OK), or not even begun (PGR_MORE). */
static int session(struct pgr_wal_stream *w, struct pgr_err *err)
{
	enum pgr_receiver_end how;
	int rc;

	w->session_ms = now_ms(w);
	rc = await(w, &w->started, w->ping_ms, err);
	if (rc != PGR_OK)
		return rc;
	if (make_receiver(w, err) != PGR_OK || pgr_receiver_run(w->receiver, w->conn.client, &how, err) != PGR_OK)
		return PGR_ERR;
	w->shut_down = how == PGR_RECV_SERVER_CLOSED;
	return w->shut_down ? pgr_err_set(err, PGR_E_NETWORK, "the server shut down while its WAL was being streamed")
			    : PGR_OK;
}

/* ---- after a session was lost ---- */

static void note_loss(struct pgr_wal_stream *w)
{
	pgr_lsn came = w->receiver != NULL ? pgr_receiver_received(w->receiver) : PGR_LSN_INVALID;
	bool stable = now_ms(w) - w->session_ms >= STABLE_MS && came >= w->have;

	if (!w->struggling || came > w->have || stable) {
		w->struggling = true;
		w->struggle_ms = now_ms(w);
		w->attempts = 0;
	}
	if (came > w->have)
		w->have = came;
}

/* A quarter more or less, so that many copies of one server do not come back in step. */
static int64_t next_wait(struct pgr_wal_stream *w)
{
	int64_t ms = w->retry_first_ms;
	uint16_t dice = 0;

	for (unsigned i = 0; i < w->attempts && ms < RETRY_MOST_MS; i++)
		ms *= 2;
	if (ms > RETRY_MOST_MS)
		ms = RETRY_MOST_MS;
	w->attempts++;
	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) != (ssize_t)sizeof(dice))
		dice = UINT16_MAX / 2;
	return ms - ms / 4 + ms * dice / (2 * (int64_t)UINT16_MAX);
}

static int give_up(const struct pgr_wal_stream *w, const struct pgr_err *last, struct pgr_err *err)
{
	long long s = (long long)(now_ms(w) - w->struggle_ms) / 1000;

	if (last->cls == PGR_E_NONE)
		return pgr_err_detail(err, "Connections were lost for %lld seconds before any new WAL had come.", s);
	return pgr_err_detail(err, "Connecting again was given up after %lld seconds: %s", s, last->msg);
}

/*
 * *err is why the session was lost, and stays the error when there is no other session to be had in time.  PGR_MORE:
 * nothing more is wanted.  The loss is told after the first wait: who loses all connections has the run's end to tell.
 */
static int connect_again(struct pgr_wal_stream *w, struct pgr_err *err)
{
	struct pgr_err last = {.cls = PGR_E_NONE}, e;
	bool told = false;

	note_loss(w);
	pgr_wal_conn_close(&w->conn);
	while (now_ms(w) - w->struggle_ms < PGR_WAL_RETRY_MS) {
		int rc = pause_ms(w, next_wait(w), &e);

		if (rc != PGR_OK) {
			*err = rc == PGR_ERR ? e : *err;
			return rc;
		}
		if (!told)
			say(w, w->warning, "lost the connection for WAL, connecting again: %s", err->msg);
		told = true;
		if (pgr_wal_conn_reopen(&w->conn, &e) == PGR_OK) {
			say(w, w->info, "the connection for WAL is made again");
			return PGR_OK;
		}
		if (!pgr_wal_conn_may_retry(&e)) {
			*err = e;
			return e.cls == PGR_E_STOPPED
				       ? PGR_ERR
				       : pgr_err_prefix(err, "could not make the connection for WAL again");
		}
		say(w, w->info, "could not make the connection for WAL again: %s", e.msg);
		last = e;
	}
	return give_up(w, &last, err);
}

/* ---- the thread ---- */

/*
 * What a server refuses to the very first session (a slot that is in use) is refused for good: only what an earlier
 * session has left behind may pass.
 */
static bool may_go_on(const struct pgr_wal_stream *w, const struct pgr_err *err)
{
	if (w->shut_down || (!w->struggling && err->cls == PGR_E_SERVER && !err->fatal))
		return false;
	return pgr_wal_conn_may_retry(err);
}

static int stream(struct pgr_wal_stream *w, struct pgr_err *err)
{
	int rc = session(w, err);

	while (rc == PGR_ERR && may_go_on(w, err)) {
		rc = connect_again(w, err);
		if (rc != PGR_OK)
			break;
		rc = session(w, err);
	}
	if (rc == PGR_ERR)
		return PGR_ERR;
	/* one that was ended before it began may not have a directory yet */
	return w->store != NULL ? pgr_walstore_close_segment(w->store, true, err) : PGR_OK;
}

static int open_first(struct pgr_wal_stream *w, struct pgr_err *err)
{
	int rc = pgr_wal_conn_connect(&w->conn, err);

	if (rc == PGR_OK)
		rc = await(w, &w->approved, PING_MS, err);
	return rc == PGR_OK ? pgr_wal_conn_confirm(&w->conn, w->system_identifier, err) : rc;
}

/* What was wrong is told to whoever waits for it, and nobody else: the run may end for another reason before that. */
static bool has_opened(struct pgr_wal_stream *w)
{
	int rc = open_first(w, &w->err);

	pthread_mutex_lock(&w->lock);
	w->result = rc;
	w->opened = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return rc == PGR_OK;
}

static void *thread_main(void *arg)
{
	struct pgr_wal_stream *w = arg;

	if (!has_opened(w))
		return NULL;
	w->result = stream(w, &w->err);
	if (w->result != PGR_OK && w->err.cls != PGR_E_STOPPED) {
		/* the text that users and tests of pg_basebackup look for, with the reason behind it */
		pgr_err_prefix(&w->err, "background process terminated unexpectedly");
		pgr_stop_post(w->stop, &w->err);
	}
	return NULL;
}

/* ---- opening ---- */

static void set_options(struct pgr_wal_stream *w, const struct pgr_wal_stream_opts *opts)
{
	w->status_interval_ms = opts->status_interval_ms;
	w->ping_ms = opts->ping_ms != 0 ? opts->ping_ms : PING_MS;
	w->retry_first_ms = opts->retry_first_ms != 0 ? opts->retry_first_ms : RETRY_FIRST_MS;
	w->info = opts->info;
	w->warning = opts->warning;
	w->arg = opts->arg;
}

/* The part of opening that cannot fail half-way: everything that pgr_wal_stream_free needs. */
static struct pgr_wal_stream *alloc_stream(const struct pgr_wal_stream_opts *opts, const struct pgr_sys *sys,
					   struct pgr_stop *stop)
{
	struct pgr_wal_stream *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	if (w == NULL)
		return NULL;
	w->sys = sys;
	w->stop = stop;
	set_options(w, opts);
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	w->waker = (struct pgr_waker){.fn = wake_up, .arg = w};
	pgr_stop_watch(stop, &w->waker);
	return w;
}

static int start_thread(struct pgr_wal_stream *w, struct pgr_err *err)
{
	int rc = pthread_create(&w->thread, NULL, thread_main, w);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create background thread");
	w->running = true;
	return PGR_OK;
}

int pgr_wal_stream_connect(struct pgr_wal_stream **out, const struct pgr_wal_stream_opts *opts,
			   const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop,
			   struct pgr_err *err)
{
	struct pgr_wal_stream *w = alloc_stream(opts, sys, stop);

	*out = NULL;
	if (w == NULL)
		return pgr_err_nomem(err);
	if (pgr_wal_conn_init(&w->conn, opts, params, sys, stop, err) != PGR_OK || start_thread(w, err) != PGR_OK) {
		pgr_wal_stream_free(w);
		return PGR_ERR;
	}
	*out = w;
	return PGR_OK;
}

/* A stop wakes the thread out of whatever it waits for: so this need not look at it. */
int pgr_wal_stream_open(struct pgr_wal_stream *w, const char *system_identifier, struct pgr_err *err)
{
	char *copy = strdup(system_identifier);
	int rc;

	if (copy == NULL)
		return pgr_err_nomem(err);
	pthread_mutex_lock(&w->lock);
	w->system_identifier = copy;
	w->approved = true;
	pthread_cond_broadcast(&w->changed);
	while (!w->opened)
		pthread_cond_wait(&w->changed, &w->lock);
	rc = w->result;
	pthread_mutex_unlock(&w->lock);
	if (rc == PGR_OK)
		return PGR_OK;
	*err = w->err;
	return PGR_ERR;
}

/* The thread does not look at the store before it was told to start. */
int pgr_wal_stream_set_dir(struct pgr_wal_stream *w, int dirfd, const struct pgr_wal_stream_dir *dir,
			   struct pgr_err *err)
{
	struct pgr_walstore_opts so = {
		.dir = dir->name,
		.segment_bytes = dir->segment_bytes,
		.file_mode = dir->file_mode,
		.sync = dir->sync,
		.partial_suffix = false,
		.archive_status = true,
	};

	w->segment_bytes = dir->segment_bytes;
	return pgr_walstore_new(&w->store, w->sys, dirfd, &so, err);
}

/* ---- the owner's side ---- */

void pgr_wal_stream_start(struct pgr_wal_stream *w, pgr_lsn start, pgr_tli tli)
{
	pthread_mutex_lock(&w->lock);
	w->start = start;
	w->tli = tli;
	w->started = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void join(struct pgr_wal_stream *w)
{
	if (!w->running)
		return;
	pthread_join(w->thread, NULL);
	w->running = false;
}

void pgr_wal_stream_end_at(struct pgr_wal_stream *w, pgr_lsn end)
{
	pthread_mutex_lock(&w->lock);
	w->end = end;
	if (w->receiver != NULL)
		pgr_receiver_stop_at(w->receiver, end);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

int pgr_wal_stream_finish(struct pgr_wal_stream *w, pgr_lsn end, struct pgr_err *err)
{
	pgr_wal_stream_end_at(w, end);
	join(w);
	if (w->result != PGR_OK) {
		*err = w->err;
		return PGR_ERR;
	}
	if (pgr_wal_stream_synced(w) < end)
		return pgr_err_set(err, PGR_E_NETWORK,
				   "WAL streaming ended at %" PGR_LSN_FMT
				   ", before the end of the backup at %" PGR_LSN_FMT,
				   PGR_LSN_ARG(pgr_wal_stream_synced(w)), PGR_LSN_ARG(end));
	return PGR_OK;
}

bool pgr_wal_stream_made_slot(const struct pgr_wal_stream *w)
{
	return w != NULL && w->conn.made_slot;
}

pgr_lsn pgr_wal_stream_synced(const struct pgr_wal_stream *w)
{
	struct pgr_wal_stream *m = (struct pgr_wal_stream *)(uintptr_t)
		w; /* the lock is not part of what const promises */
	pgr_lsn lsn;

	pthread_mutex_lock(&m->lock);
	lsn = m->receiver != NULL ? pgr_receiver_synced(m->receiver) : PGR_LSN_INVALID;
	pthread_mutex_unlock(&m->lock);
	return lsn;
}

pgr_tli pgr_wal_stream_tli(const struct pgr_wal_stream *w)
{
	struct pgr_wal_stream *m = (struct pgr_wal_stream *)(uintptr_t)w;
	pgr_tli tli;

	pthread_mutex_lock(&m->lock);
	tli = m->receiver != NULL ? pgr_receiver_tli(m->receiver) : m->tli;
	pthread_mutex_unlock(&m->lock);
	return tli;
}

void pgr_wal_stream_free(struct pgr_wal_stream *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	if (w->receiver != NULL)
		pgr_receiver_stop_now(w->receiver);
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	join(w);
	pgr_stop_unwatch(w->stop, &w->waker);
	pgr_receiver_free(w->receiver);
	pgr_wal_conn_fini(&w->conn);
	pgr_walstore_free(w->store);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w->system_identifier);
	free(w);
}
