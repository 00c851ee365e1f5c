#include "receiver/receiver.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/buf.h"
#include "common/num.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "proto/command.h"
#include "proto/copydata.h"
#include "receiver/history.h"
#include "receiver/walstore.h"

#define STOP_TIMEOUT_MS 10000 /* how long the server may take to end a stream that we have ended */
#define SPACE_RETRY_MS	2000  /* how often a full disk is tried again */

/*
 * WAL that may be written before it is synced when more keeps coming (synchronous): the wait for a commit is bounded,
 * and a sync is not spent on every message.
 */
#define SYNC_BURST_BYTES (2u * 1024 * 1024)

/*
 * START --> COMMAND --> STREAM --> RESULT --> START ...    the end of a timeline
 *                 \________\_______________-> STOPPING     we have enough
 *                           \--------------------> DONE    the server shut down
 */
enum rx_state {
	RX_START,    /* idle: the next thing is START_REPLICATION */
	RX_COMMAND,  /* it was sent */
	RX_STREAM,   /* both sides copy */
	RX_RESULT,   /* the server has ended a timeline: what comes next? */
	RX_STOPPING, /* we have ended the stream */
	RX_DONE,
	RX_STATES,
};

/*
 * - Where the stream stands is the store's position: a byte was received when it was written there.
 * - What is published (received, synced, published_tli) follows it, and is never read by the thread that runs.
 */
struct pgr_receiver {
	/* constant */
	const struct pgr_sys *sys;
	struct pgr_walstore *store;
	char *slot;
	char *system_id;
	uint32_t segment_bytes;
	int64_t status_interval_ms;
	bool synchronous;
	bool report_flush;
	bool stop_at_strict;
	bool wait_for_space;
	void (*log)(void *arg, int level, const char *line);
	void *log_arg;
	int wake_fd; /* ends the wait of the thread that runs */

	/* any thread */
	_Atomic(pgr_lsn) stop_at;
	atomic_bool stop_now;
	_Atomic(pgr_lsn) received;
	_Atomic(pgr_lsn) synced;
	_Atomic(pgr_tli) published_tli;

	/* the thread that runs; kept between runs */
	pgr_lsn start; /* of a segment */
	pgr_tli tli;
	pgr_tli parent;	    /* the timeline before `tli`, as long as its history was not seen; 0: none */
	pgr_lsn parent_end; /* where the server says that it was left */

	/* one run */
	struct pgr_client *client;
	enum rx_state state;
	enum pgr_receiver_end end;
	bool started;	  /* START_REPLICATION was sent */
	int64_t deadline; /* of COMMAND, RESULT and STOPPING */

	/* one stream */
	bool begun; /* the store stands where the stream does */
	struct pgr_copydata copy;
	struct pgr_buf out;	/* a command, a status message */
	int64_t next_status_ms; /* when it is due */
	bool heard;		/* something came since the last status message */
	bool end_asked;		/* whether the WAL ends at the stop position */
	pgr_lsn server_end;	/* where it ends, says the last keepalive */
	bool has_next;		/* the result named the next timeline */
	pgr_tli next_tli;
	pgr_lsn next_start;
};

/* ---- making and freeing ---- */

static int copy_string(char **out, const char *text, struct pgr_err *err)
{
	*out = NULL;
	if (text == NULL)
		return PGR_OK;
	*out = strdup(text);
	return *out != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int fill(struct pgr_receiver *r, const struct pgr_receiver_opts *opts, struct pgr_err *err)
{
	if (!pgr_walseg_valid(opts->segment_bytes))
		return pgr_err_set(err, PGR_E_USAGE, "invalid WAL segment size: %u bytes", opts->segment_bytes);
	if (copy_string(&r->slot, opts->slot, err) != PGR_OK ||
	    copy_string(&r->system_id, opts->system_id, err) != PGR_OK)
		return PGR_ERR;
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake_fd < 0)
		return pgr_err_sys(err, errno, "could not create an event descriptor");
	r->segment_bytes = opts->segment_bytes;
	r->status_interval_ms = opts->status_interval_ms;
	r->synchronous = opts->synchronous;
	r->report_flush = opts->report_flush;
	r->stop_at_strict = opts->stop_at_strict;
	r->wait_for_space = opts->wait_for_space;
	r->log = opts->log;
	r->log_arg = opts->log_arg;
	r->start = pgr_lsn_segstart(opts->start, opts->segment_bytes);
	r->tli = opts->tli;
	return PGR_OK;
}

int pgr_receiver_new(struct pgr_receiver **out, const struct pgr_sys *sys, struct pgr_walstore *store,
		     const struct pgr_receiver_opts *opts, struct pgr_err *err)
{
	struct pgr_receiver *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return pgr_err_nomem(err);
	r->sys = sys;
	r->store = store;
	r->wake_fd = -1;
	pgr_copydata_init(&r->copy, PGR_COPY_WAL);
	if (fill(r, opts, err) != PGR_OK) {
		pgr_receiver_free(r);
		return PGR_ERR;
	}
	atomic_init(&r->stop_at, opts->stop_at);
	atomic_init(&r->stop_now, false);
	atomic_init(&r->received, r->start);
	atomic_init(&r->synced, r->start);
	atomic_init(&r->published_tli, r->tli);
	*out = r;
	return PGR_OK;
}

void pgr_receiver_free(struct pgr_receiver *r)
{
	if (r == NULL)
		return;
	pgr_copydata_fini(&r->copy);
	pgr_buf_fini(&r->out);
	if (r->wake_fd >= 0)
		r->sys->close(r->sys, r->wake_fd);
	free(r->slot);
	free(r->system_id);
	free(r);
}

/* ---- any thread ---- */

/* The counter cannot overflow, whoever runs empties it; nothing but an interruption can be met. */
static void wake(struct pgr_receiver *r)
{
	while (eventfd_write(r->wake_fd, 1) != 0 && errno == EINTR)
		continue;
}

void pgr_receiver_stop_at(struct pgr_receiver *r, pgr_lsn lsn)
{
	atomic_store(&r->stop_at, lsn);
	wake(r);
}

void pgr_receiver_stop_now(struct pgr_receiver *r)
{
	atomic_store(&r->stop_now, true);
	wake(r);
}

pgr_lsn pgr_receiver_received(const struct pgr_receiver *r)
{
	return atomic_load(&r->received);
}

pgr_lsn pgr_receiver_synced(const struct pgr_receiver *r)
{
	return atomic_load(&r->synced);
}

pgr_tli pgr_receiver_tli(const struct pgr_receiver *r)
{
	return atomic_load(&r->published_tli);
}

/* ---- small things ---- */

static void PGR_PRINTF(3, 4) say(struct pgr_receiver *r, int level, const char *fmt, ...)
{
	char line[2304];
	va_list ap;

	if (r->log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->log(r->log_arg, level, line);
}

static pgr_lsn position(const struct pgr_receiver *r)
{
	return pgr_walstore_written(r->store);
}

static bool is_unsynced(const struct pgr_receiver *r)
{
	return pgr_walstore_synced(r->store) < position(r);
}

static void publish(struct pgr_receiver *r)
{
	atomic_store(&r->received, position(r));
	atomic_store(&r->synced, pgr_walstore_synced(r->store));
	atomic_store(&r->published_tli, r->tli);
}

static int64_t now_ms(const struct pgr_receiver *r)
{
	return r->sys->mono_ms(r->sys);
}

static void empty_wake(struct pgr_receiver *r)
{
	uint64_t count;

	if (r->sys->read(r->sys, r->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
		say(r, 1, "could not read an event descriptor: %s", strerror(errno));
}

/* Whether everything up to `stop_at` is here: see stop_at_strict. */
static bool is_stop_reached(const struct pgr_receiver *r, pgr_lsn pos)
{
	pgr_lsn stop = atomic_load(&r->stop_at);

	if (stop == PGR_LSN_INVALID || pos < stop)
		return false;
	return !r->stop_at_strict || pos > stop || r->server_end >= stop;
}

static bool must_stop(const struct pgr_receiver *r, pgr_lsn pos)
{
	return atomic_load(&r->stop_now) || is_stop_reached(r, pos);
}

static int unexpected(const struct pgr_receiver *r, const char *when, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected message from the server %s (session state %s)", when,
			   pgr_session_state_name(pgr_client_state(r->client)));
}

static int stream_error(const struct pgr_event *ev, struct pgr_err *err)
{
	pgr_fields_to_err(&ev->fields, err);
	return pgr_err_prefix(err, "unexpected termination of replication stream");
}

/* Syncs and closes the open segment. */
static int close_store(struct pgr_receiver *r, struct pgr_err *err)
{
	const char *name = pgr_walstore_open_name(r->store);
	int rc;

	if (name[0] != '\0' && strlen(name) > PGR_WALNAME_LEN)
		say(r, 0, "not renaming \"%s\", segment is not complete", name);
	rc = pgr_walstore_close_segment(r->store, false, err);
	publish(r);
	return rc;
}

/* ---- status messages ---- */

/* Standby status update; `reply`: the server shall answer with a keepalive. */
static int send_status(struct pgr_receiver *r, bool reply, struct pgr_err *err)
{
	pgr_lsn flush = r->report_flush ? pgr_walstore_synced(r->store) : PGR_LSN_INVALID;
	int64_t now_us = pgr_pgtime_from_unix_us(r->sys->wall_us(r->sys));

	r->out.len = 0;
	if (pgr_copydata_put_status(&r->out, position(r), flush, PGR_LSN_INVALID, now_us, reply, err) != PGR_OK)
		return PGR_ERR;
	r->next_status_ms = now_ms(r) + r->status_interval_ms;
	r->heard = false;
	return pgr_client_copy_send(r->client, (struct pgr_span){r->out.data, r->out.len}, err);
}

static int sync_store(struct pgr_receiver *r, struct pgr_err *err)
{
	int rc = pgr_walstore_sync(r->store, err);

	publish(r);
	return rc;
}

static int sync_and_report(struct pgr_receiver *r, struct pgr_err *err)
{
	return sync_store(r, err) == PGR_OK ? send_status(r, false, err) : PGR_ERR;
}

/*
 * The WAL ends exactly at the stop position, or nothing tells whether it goes on: an idle server would leave us waiting
 * (pg_receivewal does wait), so it is asked for a keepalive, once.
 */
static bool must_ask_for_end(const struct pgr_receiver *r)
{
	pgr_lsn stop = atomic_load(&r->stop_at);

	return r->stop_at_strict && !r->end_asked && stop != PGR_LSN_INVALID && position(r) == stop;
}

/* What is due before the next wait.  After a whole interval of silence the status message is a ping. */
static int report_if_due(struct pgr_receiver *r, struct pgr_err *err)
{
	if (must_ask_for_end(r)) {
		r->end_asked = true;
		return send_status(r, true, err);
	}
	if (r->status_interval_ms > 0 && now_ms(r) >= r->next_status_ms)
		return send_status(r, !r->heard, err);
	return PGR_OK;
}

/* ---- START: the server, the history file, the command ---- */

static int check_server(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_system_id id;

	if (pgr_client_identify(r->client, &id, err) != PGR_OK)
		return PGR_ERR;
	if (r->system_id != NULL && strcmp(r->system_id, id.system_identifier) != 0)
		return pgr_err_set(err, PGR_E_USAGE,
				   "system identifier does not match: expected %s, but the server that streams is %s",
				   r->system_id, id.system_identifier);
	if (r->tli > id.tli)
		return pgr_err_set(err, PGR_E_USAGE, "starting timeline %u is not present in the server", r->tli);
	return PGR_OK;
}

/* A history that was just fetched must be one, and agree with what the server said when it ended the timeline. */
static int check_history(const struct pgr_receiver *r, const char *content, size_t len, struct pgr_err *err)
{
	struct pgr_history h;
	pgr_lsn end = PGR_LSN_INVALID;
	bool found;

	if (pgr_history_parse(&h, r->tli, content, len, err) != PGR_OK)
		return PGR_ERR;
	found = r->parent == 0 || pgr_history_find(&h, r->parent, &end);
	pgr_history_fini(&h);
	if (!found)
		return pgr_err_set(err, PGR_E_DATA, "timeline %u is not in the history of timeline %u", r->parent,
				   r->tli);
	if (r->parent != 0 && end != r->parent_end)
		return pgr_err_set(err, PGR_E_DATA,
				   "history of timeline %u: timeline %u was left at %" PGR_LSN_FMT
				   ", but the server ended it at %" PGR_LSN_FMT,
				   r->tli, r->parent, PGR_LSN_ARG(end), PGR_LSN_ARG(r->parent_end));
	return PGR_OK;
}

static int fetch_history(struct pgr_receiver *r, struct pgr_err *err)
{
	char *content;
	size_t len;
	int rc;

	if (pgr_client_timeline_history(r->client, r->tli, &content, &len, err) != PGR_OK)
		return PGR_ERR;
	rc = check_history(r, content, len, err);
	if (rc == PGR_OK)
		rc = pgr_walstore_put_history(r->store, r->tli, content, len, err);
	free(content);
	return rc;
}

/* Before any WAL of a timeline: without its history nobody could use the WAL. */
static int need_history(struct pgr_receiver *r, struct pgr_err *err)
{
	bool has;

	if (r->tli <= 1 || !pgr_cap_has(pgr_client_version(r->client), PGR_CAP_TIMELINE_HISTORY))
		return PGR_OK;
	if (pgr_walstore_has_history(r->store, r->tli, &has, err) != PGR_OK)
		return PGR_ERR;
	return has ? PGR_OK : fetch_history(r, err);
}

static void finish(struct pgr_receiver *r, enum pgr_receiver_end end)
{
	r->end = end;
	r->state = RX_DONE;
}

static void stop_in_disorder(struct pgr_receiver *r, const char *why)
{
	say(r, 1, "the server did not end the stream in good order: %s", why);
	finish(r, PGR_RECV_STOPPED);
}

static int send_start(struct pgr_receiver *r, struct pgr_err *err)
{
	r->out.len = 0;
	if (pgr_cmd_start_replication(&r->out, pgr_client_version(r->client), r->slot, r->start, r->tli, err) != PGR_OK)
		return PGR_ERR;
	if (!r->started)
		say(r, 0, "starting log streaming at %" PGR_LSN_FMT " (timeline %u)", PGR_LSN_ARG(r->start), r->tli);
	r->started = true;
	pgr_client_set_wake(r->client, r->wake_fd);
	r->deadline = now_ms(r) + PGR_COMMAND_TIMEOUT_MS;
	r->state = RX_COMMAND;
	return pgr_client_send(r->client, &r->out, err);
}

static int step_start(struct pgr_receiver *r, struct pgr_err *err)
{
	if (need_history(r, err) != PGR_OK)
		return PGR_ERR;
	r->parent = 0;
	r->server_end = PGR_LSN_INVALID;
	r->end_asked = false;
	r->has_next = false;
	if (must_stop(r, r->start)) {
		finish(r, PGR_RECV_STOPPED);
		return PGR_OK;
	}
	if (pgr_walstore_begin(r->store, r->tli, r->start, err) != PGR_OK)
		return PGR_ERR;
	r->begun = true;
	publish(r);
	return send_start(r, err);
}

/* ---- RESULT: which timeline comes next ---- */

/* "<next timeline> | <where it begins>" */
static int take_next(struct pgr_receiver *r, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_span tli = pgr_row_col(row, 0), start = pgr_row_col(row, 1);

	if (r->has_next || row->ncols < 2 || tli.p == NULL || start.p == NULL ||
	    !pgr_num_u32((const char *)tli.p, tli.len, &r->next_tli) ||
	    !pgr_lsn_parse((const char *)start.p, start.len, &r->next_start))
		return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected result set at the end of timeline %u", r->tli);
	r->has_next = true;
	return PGR_OK;
}

/*
 * The new timeline usually begins where the old one ended, or a little before: half a record that was sent already is
 * not part of it.  Streaming always begins at the start of a segment, the segment of the old timeline stays .partial.
 */
static int switch_timeline(struct pgr_receiver *r, struct pgr_err *err)
{
	if (!r->has_next)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server ended timeline %u at %" PGR_LSN_FMT " without naming the next one", r->tli,
				   PGR_LSN_ARG(position(r)));
	if (r->next_tli <= r->tli)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server reported unexpected next timeline %u, following timeline %u", r->next_tli,
				   r->tli);
	if (r->next_start > position(r))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server stopped streaming timeline %u at %" PGR_LSN_FMT
				   ", but reported next timeline %u to begin at %" PGR_LSN_FMT,
				   r->tli, PGR_LSN_ARG(position(r)), r->next_tli, PGR_LSN_ARG(r->next_start));
	say(r, 0, "switched to timeline %u at %" PGR_LSN_FMT, r->next_tli, PGR_LSN_ARG(r->next_start));
	r->parent = r->tli;
	r->parent_end = r->next_start;
	r->tli = r->next_tli;
	r->start = pgr_lsn_segstart(r->next_start, r->segment_bytes);
	r->begun = false;
	r->state = RX_START;
	return PGR_OK;
}

/* Rows, one or two CommandCompletes (13.0 sent one), ReadyForQuery. */
static int take_result(struct pgr_receiver *r, const struct pgr_event *ev, struct pgr_err *err)
{
	switch (ev->kind) {
	case PGR_EV_ROW:
		return take_next(r, &ev->row, err);
	case PGR_EV_READY:
		pgr_client_set_wake(r->client, -1);
		return switch_timeline(r, err);
	case PGR_EV_ERROR:
		return stream_error(ev, err);
	case PGR_EV_TIMEOUT:
		return pgr_err_set(err, PGR_E_NETWORK, "server did not complete the end of timeline %u", r->tli);
	case PGR_EV_WAKE:
		empty_wake(r);
		return PGR_OK;
	case PGR_EV_ROW_DESC:
	case PGR_EV_COMPLETE:
		return PGR_OK;
	default:
		return unexpected(r, "at the end of a timeline", err);
	}
}

static int step_result(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;

	if (pgr_client_next(r->client, r->deadline, &ev, err) != PGR_OK)
		return PGR_ERR;
	return take_result(r, &ev, err);
}

/* ---- COMMAND: the answer to START_REPLICATION ---- */

static void begin_streaming(struct pgr_receiver *r)
{
	pgr_copydata_fini(&r->copy);
	pgr_copydata_init(&r->copy, PGR_COPY_WAL);
	r->next_status_ms = now_ms(r) + r->status_interval_ms;
	r->heard = true;
	r->state = RX_STREAM;
}

/* A stop that is asked for while the server thinks about the command must not wait for its whole time. */
static int take_wake(struct pgr_receiver *r)
{
	int64_t soon = now_ms(r) + STOP_TIMEOUT_MS;

	empty_wake(r);
	if (atomic_load(&r->stop_now) && soon < r->deadline)
		r->deadline = soon;
	return PGR_OK;
}

static int no_answer(struct pgr_receiver *r, struct pgr_err *err)
{
	if (!atomic_load(&r->stop_now))
		return pgr_err_set(err, PGR_E_NETWORK, "server did not answer to START_REPLICATION");
	stop_in_disorder(r, "it does not begin one");
	return PGR_OK;
}

static int step_command(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;

	if (pgr_client_next(r->client, r->deadline, &ev, err) != PGR_OK)
		return PGR_ERR;
	switch (ev.kind) {
	case PGR_EV_COPY_BOTH:
		begin_streaming(r);
		return PGR_OK;
	case PGR_EV_ERROR:
		pgr_fields_to_err(&ev.fields, err);
		return pgr_err_prefix(err, "could not send replication command \"%s\"", "START_REPLICATION");
	case PGR_EV_TIMEOUT:
		return no_answer(r, err);
	case PGR_EV_WAKE:
		return take_wake(r);
	case PGR_EV_COPY_OUT:
	case PGR_EV_COPY_IN:
		return unexpected(r, "as answer to START_REPLICATION", err);
	default: /* asked for the very end of an old timeline: there is nothing to copy */
		r->state = RX_RESULT;
		return take_result(r, &ev, err);
	}
}

/* ---- STOPPING ---- */

/* Everything that was asked for is durable by now, so nothing that the server does can make this fail. */
static int step_stopping(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;
	struct pgr_err why;

	(void)err;
	if (pgr_client_next(r->client, r->deadline, &ev, &why) != PGR_OK) {
		stop_in_disorder(r, why.msg);
		return PGR_OK;
	}
	switch (ev.kind) {
	case PGR_EV_READY:
		finish(r, PGR_RECV_STOPPED);
		return PGR_OK;
	case PGR_EV_TIMEOUT:
		stop_in_disorder(r, "it takes too long");
		return PGR_OK;
	case PGR_EV_ERROR:
		pgr_fields_to_err(&ev.fields, &why);
		say(r, 1, "the server reported while the stream was being stopped: %s", why.msg);
		return PGR_OK;
	case PGR_EV_WAKE:
		empty_wake(r);
		return PGR_OK;
	default: /* WAL that was under way, and the results */
		return PGR_OK;
	}
}

static int begin_stop(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_err why;

	if (close_store(r, err) != PGR_OK)
		return PGR_ERR;
	if (is_stop_reached(r, position(r)))
		say(r, 0, "stopped log streaming at %" PGR_LSN_FMT " (timeline %u)", PGR_LSN_ARG(position(r)), r->tli);
	r->deadline = now_ms(r) + STOP_TIMEOUT_MS;
	r->state = RX_STOPPING;
	if (send_status(r, false, &why) != PGR_OK || pgr_client_copy_done(r->client, &why) != PGR_OK)
		stop_in_disorder(r, why.msg);
	return PGR_OK;
}

/* ---- STREAM ---- */

static bool is_disk_full(const struct pgr_err *err)
{
	return err->cls == PGR_E_SYSTEM && (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT);
}

/*
 * Waits for a while without reading: the server waits for us, and keeps the connection as long as it hears of us.
 * PGR_MORE: a stop was asked for.
 */
static int pause_for_space(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pollfd fd = {.fd = r->wake_fd, .events = POLLIN};

	if (send_status(r, false, err) != PGR_OK)
		return PGR_ERR;
	if (r->sys->poll(r->sys, &fd, 1, SPACE_RETRY_MS) < 0 && errno != EINTR)
		return pgr_err_sys(err, errno, "could not wait for disk space");
	if (fd.revents != 0)
		empty_wake(r);
	return must_stop(r, position(r)) ? PGR_MORE : PGR_OK;
}

/*
 * A segment that cannot be allocated leaves the store as it was before the segment: trying again is safe.  Any other
 * failure to write has made the store refuse, and its error is then not this one.
 */
static int write_wal(struct pgr_receiver *r, struct pgr_span wal, struct pgr_err *err)
{
	pgr_lsn from = position(r);
	bool told = false;

	for (;;) {
		pgr_lsn at = position(r);
		size_t done = (size_t)(at - from);
		int rc = pgr_walstore_write(r->store, at, wal.p + done, wal.len - done, err);

		publish(r);
		if (rc == PGR_OK || !r->wait_for_space || !is_disk_full(err) || pgr_walstore_is_failed(r->store))
			return rc;
		if (!told)
			say(r, 1, "%s; waiting for space", err->msg);
		told = true;
		rc = pause_for_space(r, err);
		if (rc != PGR_OK)
			return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	}
}

static int end_segment(struct pgr_receiver *r, struct pgr_err *err)
{
	say(r, 0, "finished segment at %" PGR_LSN_FMT " (timeline %u)",
	    PGR_LSN_ARG(pgr_lsn_segstart(position(r), r->segment_bytes)), r->tli);
	return r->status_interval_ms > 0 ? send_status(r, false, err) : PGR_OK;
}

static int take_wal(struct pgr_receiver *r, struct pgr_span wal, struct pgr_err *err)
{
	pgr_segno seg = pgr_lsn_segno(position(r), r->segment_bytes);

	if (write_wal(r, wal, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_lsn_segno(position(r), r->segment_bytes) != seg && end_segment(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->synchronous && position(r) - pgr_walstore_synced(r->store) >= SYNC_BURST_BYTES)
		return sync_and_report(r, err);
	return PGR_OK;
}

/* With flush reports the answer must tell the truth about all that was received: a shutdown waits for it. */
static int take_keepalive(struct pgr_receiver *r, const struct pgr_copy_head *head, struct pgr_err *err)
{
	r->server_end = head->wal_end;
	if (!head->reply_requested)
		return PGR_OK;
	if (r->report_flush && sync_store(r, err) != PGR_OK)
		return PGR_ERR;
	return send_status(r, false, err);
}

static int take_head(struct pgr_receiver *r, const struct pgr_copy_head *head, struct pgr_err *err)
{
	if (head->kind == PGR_CK_KEEPALIVE)
		return take_keepalive(r, head, err);
	if (head->start != position(r))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server sent WAL from %" PGR_LSN_FMT ", expected it from %" PGR_LSN_FMT,
				   PGR_LSN_ARG(head->start), PGR_LSN_ARG(position(r)));
	return PGR_OK;
}

static int take_part(struct pgr_receiver *r, const struct pgr_wire_msg *part, struct pgr_err *err)
{
	struct pgr_copy_head head;
	struct pgr_span payload;
	bool has_head;
	int rc = pgr_copydata_feed(&r->copy, part, &head, &has_head, &payload, err);

	r->heard = true;
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (has_head && take_head(r, &head, err) != PGR_OK)
		return PGR_ERR;
	return payload.len > 0 ? take_wal(r, payload, err) : PGR_OK;
}

static int end_timeline(struct pgr_receiver *r, struct pgr_err *err)
{
	if (close_store(r, err) != PGR_OK || send_status(r, false, err) != PGR_OK)
		return PGR_ERR;
	r->deadline = now_ms(r) + PGR_COMMAND_TIMEOUT_MS;
	r->state = RX_RESULT;
	return pgr_client_copy_done(r->client, err);
}

/*
 * CommandComplete without CopyDone: a clean shutdown (WalSndDone in src/backend/replication/walsender.c).  Then no WAL
 * follows what was received, and a stop position that is just reached needs no further proof.
 */
static int end_by_server(struct pgr_receiver *r, struct pgr_err *err)
{
	if (close_store(r, err) != PGR_OK)
		return PGR_ERR;
	say(r, 0, "the server ended the stream at %" PGR_LSN_FMT " (timeline %u)", PGR_LSN_ARG(position(r)), r->tli);
	r->server_end = position(r);
	finish(r, must_stop(r, position(r)) ? PGR_RECV_STOPPED : PGR_RECV_SERVER_CLOSED);
	return PGR_OK;
}

/*
 * How long to wait for the next event.  Not at all while WAL waits to be synced: what is here already is taken first,
 * then one sync serves all of it.
 */
static int64_t stream_deadline(const struct pgr_receiver *r)
{
	if (r->synchronous && is_unsynced(r))
		return now_ms(r);
	return r->status_interval_ms > 0 ? r->next_status_ms : PGR_NO_DEADLINE;
}

static int take_stream_event(struct pgr_receiver *r, const struct pgr_event *ev, struct pgr_err *err)
{
	switch (ev->kind) {
	case PGR_EV_COPY_DATA:
		return take_part(r, &ev->part, err);
	case PGR_EV_COPY_DONE:
		return end_timeline(r, err);
	case PGR_EV_COMPLETE:
		return end_by_server(r, err);
	case PGR_EV_ERROR:
		return stream_error(ev, err);
	case PGR_EV_TIMEOUT:
		return r->synchronous && is_unsynced(r) ? sync_and_report(r, err) : PGR_OK;
	case PGR_EV_WAKE:
		empty_wake(r);
		return PGR_OK;
	default:
		return unexpected(r, "in the stream", err);
	}
}

static int step_stream(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;

	if (must_stop(r, position(r)))
		return begin_stop(r, err);
	if (report_if_due(r, err) != PGR_OK || pgr_client_next(r->client, stream_deadline(r), &ev, err) != PGR_OK)
		return PGR_ERR;
	return take_stream_event(r, &ev, err);
}

/* ---- a run ---- */

static int (*const steps[RX_STATES])(struct pgr_receiver *r, struct pgr_err *err) = {
	[RX_START] = step_start,   [RX_COMMAND] = step_command,	  [RX_STREAM] = step_stream,
	[RX_RESULT] = step_result, [RX_STOPPING] = step_stopping,
};

/* The store is closed however the run ended, and the next one goes on at the start of its segment. */
static void leave(struct pgr_receiver *r, int rc)
{
	struct pgr_err second;

	pgr_client_set_wake(r->client, -1);
	if (rc != PGR_OK && r->begun && close_store(r, &second) != PGR_OK)
		say(r, 1, "%s", second.msg);
	if (r->begun)
		r->start = pgr_lsn_segstart(position(r), r->segment_bytes);
	r->begun = false;
	r->client = NULL;
}

int pgr_receiver_run(struct pgr_receiver *r, struct pgr_client *client, enum pgr_receiver_end *how, struct pgr_err *err)
{
	int rc;

	r->client = client;
	r->state = RX_START;
	r->started = false;
	r->begun = false;
	rc = check_server(r, err);
	while (rc == PGR_OK && r->state != RX_DONE)
		rc = steps[r->state](r, err);
	leave(r, rc);
	*how = r->end;
	return rc;
}
