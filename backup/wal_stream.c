#include "backup/wal_stream.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "receiver/receiver.h"
#include "receiver/walstore.h"

/*
 * How often the idle connection asks for something while the server's checkpoint runs: idle_session_timeout (14) also
 * ends idle walsenders.
 */
#define IDLE_PING_S 10

struct pgr_wal_stream {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_client *client; /* the thread's, once it runs */
	struct pgr_walstore *store;
	char *slot;
	char *system_identifier;
	bool made_slot;
	uint32_t segment_bytes;
	int64_t status_interval_ms;
	void (*info)(void *arg, const char *line);
	void (*warning)(void *arg, const char *line);
	void *arg;

	pthread_t thread;
	bool running; /* the thread was started and not joined */
	struct pgr_waker waker;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock: */
	bool started; /* start and tli are set */
	bool quit;    /* do not start any more */
	pgr_lsn start;
	pgr_tli tli;
	pgr_lsn end;		       /* 0: not known yet */
	struct pgr_receiver *receiver; /* set once by the thread, freed after the join */

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

static void say_created(struct pgr_wal_stream *w, const char *what)
{
	char line[256];

	if (w->info == NULL)
		return;
	snprintf(line, sizeof(line), "created %s \"%s\"", what, w->slot);
	w->info(w->arg, line);
}

/* ---- the thread ---- */

/* Waits for the start position; PGR_MORE when there will be none. */
static int await_start(struct pgr_wal_stream *w, struct pgr_err *err)
{
	struct pgr_system_id id;
	struct timespec until;
	int rc = PGR_OK;

	pthread_mutex_lock(&w->lock);
	while (rc == PGR_OK && !w->started && !w->quit && !pgr_stop_is_set(w->stop)) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += IDLE_PING_S;
		if (pthread_cond_timedwait(&w->changed, &w->lock, &until) == 0)
			continue;
		pthread_mutex_unlock(&w->lock);
		rc = pgr_client_identify(w->client, &id, err);
		pthread_mutex_lock(&w->lock);
	}
	if (rc == PGR_OK && (w->quit || pgr_stop_is_set(w->stop)))
		rc = PGR_MORE;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static int make_receiver(struct pgr_wal_stream *w, struct pgr_err *err)
{
	struct pgr_receiver_opts opts = {
		.slot = w->slot,
		.system_id = w->system_identifier,
		.start = w->start,
		.tli = w->tli,
		.segment_bytes = w->segment_bytes,
		.status_interval_ms = w->status_interval_ms,
		.report_flush = w->slot != NULL,
		.log = receiver_log,
		.log_arg = w,
	};
	struct pgr_receiver *r;

	if (pgr_receiver_new(&r, w->sys, w->store, &opts, err) != PGR_OK)
		return PGR_ERR;
	pthread_mutex_lock(&w->lock);
	w->receiver = r;
	if (w->end != 0)
		pgr_receiver_stop_at(r, w->end);
	if (w->quit)
		pgr_receiver_stop_now(r);
	pthread_mutex_unlock(&w->lock);
	return PGR_OK;
}

static int stream(struct pgr_wal_stream *w, struct pgr_err *err)
{
	enum pgr_receiver_end how;
	int rc = await_start(w, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (make_receiver(w, err) != PGR_OK || pgr_receiver_run(w->receiver, w->client, &how, err) != PGR_OK)
		return PGR_ERR;
	if (how == PGR_RECV_SERVER_CLOSED)
		return pgr_err_set(err, PGR_E_NETWORK, "the server shut down while its WAL was being streamed");
	return pgr_walstore_close_segment(w->store, true, err);
}

static void *thread_main(void *arg)
{
	struct pgr_wal_stream *w = arg;

	w->result = stream(w, &w->err);
	if (w->result != PGR_OK && w->err.cls != PGR_E_STOPPED) {
		/* the text that users and tests of pg_basebackup look for, with the reason behind it */
		pgr_err_prefix(&w->err, "background process terminated unexpectedly");
		pgr_stop_post(w->stop, &w->err);
	}
	return NULL;
}

/* ---- opening ---- */

static int check_identity(struct pgr_wal_stream *w, struct pgr_err *err)
{
	struct pgr_system_id id;

	if (pgr_client_identify(w->client, &id, err) != PGR_OK)
		return PGR_ERR;
	if (strcmp(id.system_identifier, w->system_identifier) != 0)
		return pgr_err_set(err, PGR_E_USAGE,
				   "system identifier does not match between base backup and streaming connection");
	return PGR_OK;
}

static int make_slot(struct pgr_wal_stream *w, const struct pgr_wal_stream_opts *opts, struct pgr_err *err)
{
	int version = pgr_client_version(w->client);
	char name[64];

	if (opts->slot != NULL) {
		w->slot = strdup(opts->slot);
		if (w->slot == NULL)
			return pgr_err_nomem(err);
		if (!opts->create_slot)
			return PGR_OK;
		if (pgr_client_create_slot(w->client, w->slot, false, true, false, err) != PGR_OK)
			return PGR_ERR;
		w->made_slot = true;
		say_created(w, "replication slot");
		return PGR_OK;
	}
	if (!opts->temporary_slot || !pgr_cap_has(version, PGR_CAP_TEMP_SLOTS))
		return PGR_OK;
	snprintf(name, sizeof(name), "pg_basebackup_%d", pgr_client_backend_pid(w->client));
	w->slot = strdup(name);
	if (w->slot == NULL)
		return pgr_err_nomem(err);
	if (pgr_client_create_slot(w->client, w->slot, true, true, false, err) != PGR_OK)
		return PGR_ERR;
	say_created(w, "temporary replication slot");
	return PGR_OK;
}

/* A slot that must exist is looked at before the backup starts, where the server can tell. */
static int check_slot(struct pgr_wal_stream *w, const struct pgr_wal_stream_opts *opts, struct pgr_err *err)
{
	pgr_lsn restart;
	pgr_tli tli;

	if (opts->slot == NULL || opts->create_slot || !pgr_cap_has(pgr_client_version(w->client), PGR_CAP_READ_SLOT))
		return PGR_OK;
	return pgr_client_read_slot(w->client, opts->slot, &restart, &tli, err);
}

static int open_store(struct pgr_wal_stream *w, int dirfd, const struct pgr_wal_stream_opts *opts, struct pgr_err *err)
{
	struct pgr_walstore_opts so = {
		.dir = opts->dir,
		.segment_bytes = opts->segment_bytes,
		.file_mode = opts->file_mode,
		.sync = opts->sync,
		.partial_suffix = false,
		.archive_status = true,
	};

	return pgr_walstore_new(&w->store, w->sys, dirfd, &so, err);
}

static int connect_client(struct pgr_wal_stream *w, const struct pgr_wal_stream_opts *opts,
			  struct pgr_conn_params *params, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (pgr_transport_open(&t, w->sys, w->stop, params, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_new(&w->client, t, w->sys, opts->notice, opts->arg, err);
}

static int start_thread(struct pgr_wal_stream *w, struct pgr_err *err)
{
	int rc = pthread_create(&w->thread, NULL, thread_main, w);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create background thread");
	w->running = true;
	return PGR_OK;
}

/* The part of opening that cannot fail half-way: everything that pgr_wal_stream_free needs. */
static struct pgr_wal_stream *alloc_stream(const struct pgr_wal_stream_opts *opts, const struct pgr_sys *sys,
					   struct pgr_stop *stop)
{
	struct pgr_wal_stream *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	if (w == NULL)
		return NULL;
	w->system_identifier = strdup(opts->system_identifier);
	if (w->system_identifier == NULL) {
		free(w);
		return NULL;
	}
	w->sys = sys;
	w->stop = stop;
	w->segment_bytes = opts->segment_bytes;
	w->status_interval_ms = opts->status_interval_ms;
	w->info = opts->info;
	w->warning = opts->warning;
	w->arg = opts->arg;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->changed, &attr);
	pthread_condattr_destroy(&attr);
	w->waker = (struct pgr_waker){.fn = wake_up, .arg = w};
	pgr_stop_watch(stop, &w->waker);
	return w;
}

int pgr_wal_stream_open(struct pgr_wal_stream **out, int dirfd, const struct pgr_wal_stream_opts *opts,
			struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop,
			struct pgr_err *err)
{
	struct pgr_wal_stream *w = alloc_stream(opts, sys, stop);

	*out = w;
	if (w == NULL) {
		sys->close(sys, dirfd);
		return pgr_err_nomem(err);
	}
	/* a stream that failed to open stays the caller's to ask about its slot and to free */
	if (open_store(w, dirfd, opts, err) != PGR_OK || connect_client(w, opts, params, err) != PGR_OK ||
	    check_identity(w, err) != PGR_OK || check_slot(w, opts, err) != PGR_OK ||
	    make_slot(w, opts, err) != PGR_OK || start_thread(w, err) != PGR_OK)
		return PGR_ERR;
	return PGR_OK;
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

int pgr_wal_stream_finish(struct pgr_wal_stream *w, pgr_lsn end, struct pgr_err *err)
{
	pthread_mutex_lock(&w->lock);
	w->end = end;
	if (w->receiver != NULL)
		pgr_receiver_stop_at(w->receiver, end);
	pthread_mutex_unlock(&w->lock);
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
	return w != NULL && w->made_slot;
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
	pgr_client_free(w->client);
	pgr_walstore_free(w->store);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w->slot);
	free(w->system_identifier);
	free(w);
}
