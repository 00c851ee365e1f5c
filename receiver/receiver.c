#include "receiver/receiver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/num.h"
#include "proto/caps.h"
#include "proto/command.h"
#include "receiver/history.h"
#include "receiver/rx.h"

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
	r->stop_at_follows_switch = opts->stop_at_follows_switch;
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
static void wake(void *arg)
{
	struct pgr_receiver *r = arg;

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

void pgr_rx_say(struct pgr_receiver *r, int level, const char *fmt, ...)
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

void pgr_rx_empty_wake(struct pgr_receiver *r)
{
	uint64_t count;

	if (r->sys->read(r->sys, r->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
		pgr_rx_say(r, 1, "could not read an event descriptor: %s", strerror(errno));
}

/* Whether everything up to `stop_at` is here: see stop_at_strict. */
bool pgr_rx_is_stop_reached(const struct pgr_receiver *r, pgr_lsn pos)
{
	pgr_lsn stop = atomic_load(&r->stop_at);

	if (stop == PGR_LSN_INVALID || pos < stop)
		return false;
	return !r->stop_at_strict || pos > stop || r->server_end >= stop;
}

bool pgr_rx_must_stop(const struct pgr_receiver *r, pgr_lsn pos)
{
	return atomic_load(&r->stop_now) || pgr_rx_is_stop_reached(r, pos);
}

int pgr_rx_unexpected(const struct pgr_receiver *r, const char *when, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected message from the server %s (session state %s)", when,
			   pgr_session_state_name(pgr_client_state(r->client)));
}

int pgr_rx_stream_error(const struct pgr_event *ev, struct pgr_err *err)
{
	pgr_fields_to_err(&ev->fields, err);
	return pgr_err_prefix(err, "unexpected termination of replication stream");
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
	pgr_rx_page_init(r, &id);
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

/*
 * Before any WAL of a timeline: without its history nobody could use the WAL.  One that is here is compared with the
 * server's, since two standbys may have been promoted to the same timeline; a server that was restored without its
 * history files does not have it, and ours has to do.
 */
static int need_history(struct pgr_receiver *r, struct pgr_err *err)
{
	bool has;

	if (r->tli <= 1 || !pgr_cap_has(pgr_client_version(r->client), PGR_CAP_TIMELINE_HISTORY))
		return PGR_OK;
	if (pgr_walstore_has_history(r->store, r->tli, &has, err) != PGR_OK)
		return PGR_ERR;
	if (fetch_history(r, err) == PGR_OK)
		return PGR_OK;
	return has && err->cls == PGR_E_SERVER && !err->fatal ? PGR_OK : PGR_ERR;
}

/* A stop that is asked for while the server thinks about a command must not wait for its whole time. */
static int take_wake(struct pgr_receiver *r)
{
	int64_t soon = pgr_rx_now_ms(r) + PGR_RX_STOP_TIMEOUT_MS;

	pgr_rx_empty_wake(r);
	if (atomic_load(&r->stop_now) && soon < r->deadline)
		r->deadline = soon;
	return PGR_OK;
}

void pgr_rx_finish(struct pgr_receiver *r, enum pgr_receiver_end end)
{
	r->end = end;
	r->state = RX_DONE;
}

void pgr_rx_stop_in_disorder(struct pgr_receiver *r, const char *why)
{
	pgr_rx_say(r, 1, "the server did not end the stream in good order: %s", why);
	pgr_rx_finish(r, PGR_RECV_STOPPED);
}

/* All that was received is durable. */
static int no_answer(struct pgr_receiver *r, const char *why, struct pgr_err *err)
{
	if (!atomic_load(&r->stop_now))
		return pgr_err_set(err, PGR_E_NETWORK, "server did not %s", why);
	pgr_rx_stop_in_disorder(r, "it does not answer");
	return PGR_OK;
}

static int send_start(struct pgr_receiver *r, struct pgr_err *err)
{
	r->out.len = 0;
	if (pgr_cmd_start_replication(&r->out, pgr_client_version(r->client), r->slot, r->start, r->tli, err) != PGR_OK)
		return PGR_ERR;
	if (!r->started)
		pgr_rx_say(r, 0, "starting log streaming at %" PGR_LSN_FMT " (timeline %u)", PGR_LSN_ARG(r->start),
			   r->tli);
	r->started = true;
	pgr_client_set_wake(r->client, r->wake_fd);
	r->deadline = pgr_rx_now_ms(r) + PGR_COMMAND_TIMEOUT_MS;
	r->state = RX_COMMAND;
	return pgr_client_send(r->client, &r->out, err);
}

static int step_start(struct pgr_receiver *r, struct pgr_err *err)
{
	if (!atomic_load(&r->stop_now) && need_history(r, err) != PGR_OK)
		return PGR_ERR;
	r->parent = 0;
	r->server_end = PGR_LSN_INVALID;
	r->end_asked = false;
	r->has_next = false;
	if (pgr_rx_must_stop(r, r->start)) {
		pgr_rx_finish(r, PGR_RECV_STOPPED);
		return PGR_OK;
	}
	if (pgr_walstore_begin(r->store, r->tli, r->start, err) != PGR_OK)
		return PGR_ERR;
	r->begun = true;
	r->told = r->start;
	pgr_rx_publish(r);
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
				   PGR_LSN_ARG(pgr_rx_position(r)));
	if (r->next_tli <= r->tli)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server reported unexpected next timeline %u, following timeline %u", r->next_tli,
				   r->tli);
	if (r->next_start > pgr_rx_position(r))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server stopped streaming timeline %u at %" PGR_LSN_FMT
				   ", but reported next timeline %u to begin at %" PGR_LSN_FMT,
				   r->tli, PGR_LSN_ARG(pgr_rx_position(r)), r->next_tli, PGR_LSN_ARG(r->next_start));
	pgr_rx_say(r, 0, "switched to timeline %u at %" PGR_LSN_FMT, r->next_tli, PGR_LSN_ARG(r->next_start));
	r->parent = r->tli;
	r->parent_end = r->next_start;
	r->tli = r->next_tli;
	r->start = pgr_lsn_segstart(r->next_start, r->segment_bytes);
	/* whoever connects next time, should the history not come any more, has to ask for this timeline */
	atomic_store(&r->received, r->start);
	atomic_store(&r->synced, r->start);
	atomic_store(&r->published_tli, r->tli);
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
		return pgr_rx_stream_error(ev, err);
	case PGR_EV_TIMEOUT:
		return no_answer(r, "complete the end of a timeline", err);
	case PGR_EV_WAKE:
		return take_wake(r);
	case PGR_EV_ROW_DESC:
	case PGR_EV_COMPLETE:
		return PGR_OK;
	default:
		return pgr_rx_unexpected(r, "at the end of a timeline", err);
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

static int step_command(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;

	if (pgr_client_next(r->client, r->deadline, &ev, err) != PGR_OK)
		return PGR_ERR;
	switch (ev.kind) {
	case PGR_EV_COPY_BOTH:
		pgr_rx_begin_streaming(r);
		return PGR_OK;
	case PGR_EV_ERROR:
		pgr_fields_to_err(&ev.fields, err);
		return pgr_err_prefix(err, "could not send replication command \"%s\"", "START_REPLICATION");
	case PGR_EV_TIMEOUT:
		return no_answer(r, "answer to START_REPLICATION", err);
	case PGR_EV_WAKE:
		return take_wake(r);
	case PGR_EV_COPY_OUT:
	case PGR_EV_COPY_IN:
		return pgr_rx_unexpected(r, "as answer to START_REPLICATION", err);
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
		pgr_rx_stop_in_disorder(r, why.msg);
		return PGR_OK;
	}
	switch (ev.kind) {
	case PGR_EV_READY:
		pgr_rx_finish(r, PGR_RECV_STOPPED);
		return PGR_OK;
	case PGR_EV_TIMEOUT:
		pgr_rx_stop_in_disorder(r, "it takes too long");
		return PGR_OK;
	case PGR_EV_ERROR:
		pgr_fields_to_err(&ev.fields, &why);
		pgr_rx_say(r, 1, "the server reported while the stream was being stopped: %s", why.msg);
		return PGR_OK;
	case PGR_EV_WAKE:
		pgr_rx_empty_wake(r);
		return PGR_OK;
	default: /* WAL that was under way, and the results */
		return PGR_OK;
	}
}

/* ---- a run ---- */

static int (*const steps[RX_STATES])(struct pgr_receiver *r, struct pgr_err *err) = {
	[RX_START] = step_start,   [RX_COMMAND] = step_command,	  [RX_STREAM] = pgr_rx_step_stream,
	[RX_RESULT] = step_result, [RX_STOPPING] = step_stopping,
};

/* The store is closed however the run ended, and the next one goes on at the start of its segment. */
static void leave(struct pgr_receiver *r, int rc)
{
	struct pgr_err second;

	pgr_client_set_wake(r->client, -1);
	pgr_walstore_set_wake(r->store, NULL, NULL);
	if (rc != PGR_OK && r->begun && pgr_rx_close_store(r, &second) != PGR_OK)
		pgr_rx_say(r, 1, "%s", second.msg);
	if (r->begun)
		r->start = pgr_lsn_segstart(pgr_rx_position(r), r->segment_bytes);
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
	pgr_walstore_set_wake(r->store, wake, r);
	rc = check_server(r, err);
	while (rc == PGR_OK && r->state != RX_DONE)
		rc = steps[r->state](r, err);
	leave(r, rc);
	*how = r->end;
	return rc;
}
