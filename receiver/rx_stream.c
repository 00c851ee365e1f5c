#include <errno.h>
#include <poll.h>

#include "receiver/rx.h"

#define SPACE_RETRY_MS 2000 /* how often a full disk is tried again */

/*
 * How long the stream is held while it is full.  A server that shuts down waits for us, without a limit as long as it
 * hears of us; whoever connects again lets it go for a moment.
 */
#define SPACE_PATIENCE_MS 60000

/*
 * How long the stop position may take to come once the server has switched.  Far below wal_sender_timeout, and no more
 * than what a switch that has nothing to do with us may cost.
 */
#define HOLD_MS 1000

void pgr_rx_begin_streaming(struct pgr_receiver *r)
{
	pgr_copydata_fini(&r->copy);
	pgr_copydata_init(&r->copy, PGR_COPY_WAL);
	pgr_rx_status_init(r);
	r->held_at = PGR_LSN_INVALID;
	r->held_until_ms = PGR_NO_DEADLINE;
	r->state = RX_STREAM;
}

/* ---- WAL ---- */

static bool is_disk_full(const struct pgr_err *err)
{
	return err->cls == PGR_E_SYSTEM && (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT);
}

/*
 * Waits for a while without reading: the server waits for us, and keeps the connection as long as it hears of us.
 * PGR_MORE: a stop was asked for.
 */
static int pause_reading(struct pgr_receiver *r, int ms, struct pgr_err *err)
{
	struct pollfd fd = {.fd = r->wake_fd, .events = POLLIN};

	if (r->sys->poll(r->sys, &fd, 1, ms) < 0 && errno != EINTR)
		return pgr_err_sys(err, errno, "could not wait for the disk");
	if (fd.revents != 0)
		pgr_rx_empty_wake(r);
	return pgr_rx_must_stop(r, pgr_rx_position(r)) ? PGR_MORE : PGR_OK;
}

static int pause_for_space(struct pgr_receiver *r, struct pgr_err *err)
{
	return pgr_rx_send_status(r, false, err) == PGR_OK ? pause_reading(r, SPACE_RETRY_MS, err) : PGR_ERR;
}

/* The store wakes us when there is room for another segment, or never will be. */
static int pause_for_room(struct pgr_receiver *r, struct pgr_err *err)
{
	int64_t ms = -1;

	if (pgr_rx_progress(r, err) != PGR_OK || pgr_rx_report_if_due(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->status_interval_ms > 0)
		ms = r->next_status_ms - pgr_rx_now_ms(r);
	if (r->status_interval_ms > 0 && ms < 0)
		ms = 0;
	return pause_reading(r, ms > SPACE_RETRY_MS ? SPACE_RETRY_MS : (int)ms, err);
}

/*
 * Whether waiting may help; it was begun at `since`, if it was.  Any other failure to write has made the store refuse,
 * and its error is then not this one.
 */
static bool may_wait_for_space(const struct pgr_receiver *r, int64_t since, const struct pgr_err *err)
{
	return r->wait_for_space && is_disk_full(err) && !pgr_walstore_is_failed(r->store) &&
	       (since == PGR_NO_DEADLINE || pgr_rx_now_ms(r) - since < SPACE_PATIENCE_MS);
}

static void say_full(struct pgr_receiver *r, const struct pgr_err *err)
{
	bool more = err->detail[0] != '\0';

	pgr_rx_say(r, 1, "%s%s%s%s; waiting for space", err->msg, more ? " (" : "", err->detail, more ? ")" : "");
}

/* A segment that cannot be allocated leaves the store as it was before the segment: trying again is safe. */
static int write_wal(struct pgr_receiver *r, struct pgr_span wal, struct pgr_err *err)
{
	pgr_lsn from = pgr_rx_position(r);
	int64_t full_since = PGR_NO_DEADLINE;

	for (;;) {
		pgr_lsn at = pgr_rx_position(r);
		size_t done = (size_t)(at - from);
		int rc = pgr_walstore_write(r->store, at, wal.p + done, wal.len - done, err);

		pgr_rx_publish(r);
		if (rc != PGR_ERR && full_since != PGR_NO_DEADLINE) {
			pgr_rx_say(r, 1, "there is space again");
			full_since = PGR_NO_DEADLINE;
		}
		if (rc == PGR_OK || (rc == PGR_ERR && !may_wait_for_space(r, full_since, err)))
			return rc;
		if (rc == PGR_ERR && full_since == PGR_NO_DEADLINE) {
			say_full(r, err);
			full_since = pgr_rx_now_ms(r);
		}
		rc = rc == PGR_MORE ? pause_for_room(r, err) : pause_for_space(r, err);
		if (rc != PGR_OK)
			return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	}
}

/* ---- behind a switch ---- */

/*
 * Once in a segment, and not while the server is a segment further: its switches may follow each other faster than they
 * are waited for.
 */
static bool may_hold(const struct pgr_receiver *r, pgr_lsn segment)
{
	return r->stop_at_follows_switch && atomic_load(&r->stop_at) == PGR_LSN_INVALID && r->held_at != segment &&
	       r->wal_end < segment + 2 * (uint64_t)r->segment_bytes;
}

/*
 * Looks at the last page that begins in `wal`, which stood at `at`: those behind a switch are all alike.  Only where
 * pages of any size would begin, so that nothing inside a page is taken for one.
 */
static int hold_behind_switch(struct pgr_receiver *r, pgr_lsn at, struct pgr_span wal, struct pgr_err *err)
{
	pgr_lsn end = at + wal.len;
	pgr_lsn segment = pgr_lsn_segstart(end, r->segment_bytes);
	pgr_lsn page;

	if (!may_hold(r, segment) || end - segment < PGR_WALPAGE_MAX + PGR_WALPAGE_BEGINNING)
		return PGR_OK;
	page = (end - PGR_WALPAGE_BEGINNING) & ~(pgr_lsn)(PGR_WALPAGE_MAX - 1);
	if (page < at || page == segment || !pgr_walpage_is_unused(wal.p + (page - at)))
		return PGR_OK;
	r->held_at = segment;
	r->held_until_ms = pgr_rx_now_ms(r) + HOLD_MS;
	return pgr_rx_send_status(r, false, err);
}

static bool is_held(const struct pgr_receiver *r)
{
	return r->held_until_ms != PGR_NO_DEADLINE && atomic_load(&r->stop_at) == PGR_LSN_INVALID &&
	       pgr_rx_now_ms(r) < r->held_until_ms;
}

/* The socket fills up, and the server has to wait. */
static int wait_held(struct pgr_receiver *r, struct pgr_err *err)
{
	unsigned got;

	if (pgr_transport_wait(pgr_client_transport(r->client), 0, r->wake_fd, r->held_until_ms, &got, err) != PGR_OK)
		return PGR_ERR;
	if (got & PGR_WAIT_WAKE)
		pgr_rx_empty_wake(r);
	return PGR_OK;
}

static int take_wal(struct pgr_receiver *r, struct pgr_span wal, struct pgr_err *err)
{
	pgr_lsn at = pgr_rx_position(r);

	if (pgr_rx_check_pages(r, at, wal, err) != PGR_OK || write_wal(r, wal, err) != PGR_OK ||
	    pgr_rx_wrote(r, err) != PGR_OK)
		return PGR_ERR;
	return hold_behind_switch(r, at, wal, err);
}

/* ---- messages ---- */

/* Two segments, so that a server that is busy does not make us change our mind with each of them. */
static int set_bulk(struct pgr_receiver *r, struct pgr_err *err)
{
	pgr_lsn pos = pgr_rx_position(r);

	return pgr_walstore_set_bulk(r->store, r->wal_end > pos && r->wal_end - pos >= 2 * (uint64_t)r->segment_bytes,
				     err);
}

static int take_head(struct pgr_receiver *r, const struct pgr_copy_head *head, struct pgr_err *err)
{
	r->wal_end = head->wal_end;
	if (set_bulk(r, err) != PGR_OK)
		return PGR_ERR;
	if (head->kind == PGR_CK_KEEPALIVE) {
		r->server_end = head->wal_end;
		return head->reply_requested ? pgr_rx_answer(r, err) : PGR_OK;
	}
	if (head->start != pgr_rx_position(r))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server sent WAL from %" PGR_LSN_FMT ", expected it from %" PGR_LSN_FMT,
				   PGR_LSN_ARG(head->start), PGR_LSN_ARG(pgr_rx_position(r)));
	return PGR_OK;
}

static int take_part(struct pgr_receiver *r, const struct pgr_wire_msg *part, struct pgr_err *err)
{
	struct pgr_copy_head head;
	struct pgr_span payload;
	bool has_head;
	int rc = pgr_copydata_feed(&r->copy, part, &head, &has_head, &payload, err);

	pgr_rx_heard(r);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (has_head && take_head(r, &head, err) != PGR_OK)
		return PGR_ERR;
	return payload.len > 0 ? take_wal(r, payload, err) : PGR_OK;
}

/* ---- the end of the stream ---- */

static int begin_stop(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_err why;

	if (pgr_rx_close_store(r, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_rx_is_stop_reached(r, pgr_rx_position(r)))
		pgr_rx_say(r, 0, "stopped log streaming at %" PGR_LSN_FMT " (timeline %u)",
			   PGR_LSN_ARG(pgr_rx_position(r)), r->tli);
	r->deadline = pgr_rx_now_ms(r) + PGR_RX_STOP_TIMEOUT_MS;
	r->state = RX_STOPPING;
	if (pgr_rx_send_status(r, false, &why) != PGR_OK || pgr_client_copy_done(r->client, &why) != PGR_OK)
		pgr_rx_stop_in_disorder(r, why.msg);
	return PGR_OK;
}

static int end_timeline(struct pgr_receiver *r, struct pgr_err *err)
{
	if (pgr_rx_close_store(r, err) != PGR_OK || pgr_rx_send_status(r, false, err) != PGR_OK)
		return PGR_ERR;
	r->deadline = pgr_rx_now_ms(r) + PGR_COMMAND_TIMEOUT_MS;
	r->state = RX_RESULT;
	return pgr_client_copy_done(r->client, err);
}

/*
 * CommandComplete without CopyDone: a clean shutdown (WalSndDone in src/backend/replication/walsender.c).  Then no WAL
 * follows what was received, and a stop position that is just reached needs no further proof.
 */
static int end_by_server(struct pgr_receiver *r, struct pgr_err *err)
{
	if (pgr_rx_close_store(r, err) != PGR_OK)
		return PGR_ERR;
	pgr_rx_say(r, 0, "the server ended the stream at %" PGR_LSN_FMT " (timeline %u)",
		   PGR_LSN_ARG(pgr_rx_position(r)), r->tli);
	r->server_end = pgr_rx_position(r);
	pgr_rx_finish(r, pgr_rx_must_stop(r, pgr_rx_position(r)) ? PGR_RECV_STOPPED : PGR_RECV_SERVER_CLOSED);
	return PGR_OK;
}

/* ---- a step ---- */

static int64_t stream_deadline(const struct pgr_receiver *r)
{
	int64_t sync = pgr_rx_sync_due_ms(r);
	int64_t status = r->status_interval_ms > 0 ? r->next_status_ms : PGR_NO_DEADLINE;

	if (sync == PGR_NO_DEADLINE || status == PGR_NO_DEADLINE)
		return sync == PGR_NO_DEADLINE ? status : sync;
	return sync < status ? sync : status;
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
		return pgr_rx_stream_error(ev, err);
	case PGR_EV_TIMEOUT:
		return pgr_rx_check_silence(r, err) == PGR_OK ? pgr_rx_sync_if_due(r, err) : PGR_ERR;
	case PGR_EV_WAKE:
		pgr_rx_empty_wake(r);
		return PGR_OK;
	default:
		return pgr_rx_unexpected(r, "in the stream", err);
	}
}

int pgr_rx_step_stream(struct pgr_receiver *r, struct pgr_err *err)
{
	struct pgr_event ev;

	if (pgr_rx_must_stop(r, pgr_rx_position(r)))
		return begin_stop(r, err);
	if (pgr_rx_progress(r, err) != PGR_OK || pgr_rx_report_if_due(r, err) != PGR_OK)
		return PGR_ERR;
	if (is_held(r))
		return wait_held(r, err);
	if (pgr_client_next(r->client, stream_deadline(r), &ev, err) != PGR_OK)
		return PGR_ERR;
	return take_stream_event(r, &ev, err);
}
