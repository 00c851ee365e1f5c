#include <assert.h>
#include <string.h>

#include "receiver/rx.h"

/*
 * WAL that may be written before it is synced when more keeps coming (synchronous): the wait for a commit is bounded,
 * and a sync is not spent on every message.
 */
#define SYNC_BURST_BYTES (2u * 1024 * 1024)

/* While the server is a segment and more ahead, the segments' own syncs do: none is asked for but where one takes long.
 */
#define CATCHUP_SYNC_MS 200

/*
 * The server sends what it has flushed at a time in messages of at most 128 KiB, and each says where all of that ends
 * (XLogSendPhysical in src/backend/replication/walsender.c).  A sync that begins between two of them is one too many:
 * the commit that is waited for stands in the last one.  On a slow line, where the rest takes longer than this, the
 * commits that are here already do not wait for it.
 */
#define REST_WAIT_MS 2

/*
 * Where syncs take less than this the thread that receives does them itself, between messages: nobody has to be woken
 * up, and one message reports what is written and flushed.  Elsewhere the store's thread does, so that receiving goes
 * on and what is written is reported at once.
 */
#define SLOW_SYNC_MS 2

/*
 * A sync that takes so long here holds up the answer to a server that asks whether we live (wal_sender_timeout).  Where
 * that has happened it may happen again, and is left to the store's thread for a while, however quick the others are.
 */
#define STALL_MS	1000
#define STALL_MEMORY_MS 300000

/*
 * How long a server may leave a ping unanswered; PostgreSQL's wal_receiver_timeout is the same.  Without such a limit a
 * connection whose other end is gone lives for as long as TCP sends again what nobody takes, a quarter of an hour, and
 * the server that took over has no synchronous standby meanwhile.
 */
#define SILENCE_MS 60000

/* The first message is due at once: with it a slot that reserved nothing begins to hold WAL for us. */
void pgr_rx_status_init(struct pgr_receiver *r)
{
	r->next_status_ms = pgr_rx_now_ms(r);
	pgr_rx_heard(r);
	r->reported = r->report_flush ? pgr_walstore_synced(r->store) : PGR_LSN_INVALID;
	r->owed = PGR_LSN_INVALID;
	r->asked = pgr_rx_position(r);
	r->asked_ms = pgr_rx_now_ms(r);
	r->unasked_ms = PGR_NO_DEADLINE;
	r->timed = PGR_LSN_INVALID;
	r->slow_syncs = true;
	r->wal_end = PGR_LSN_INVALID;
}

static bool is_unsynced(const struct pgr_receiver *r)
{
	return pgr_walstore_synced(r->store) < pgr_rx_position(r);
}

void pgr_rx_publish(struct pgr_receiver *r)
{
	pgr_lsn synced = pgr_walstore_synced(r->store);

	assert(synced <= pgr_rx_position(r));
	atomic_store(&r->received, pgr_rx_position(r));
	atomic_store(&r->synced, synced);
	atomic_store(&r->published_tli, r->tli);
}

int pgr_rx_send_status(struct pgr_receiver *r, bool reply, struct pgr_err *err)
{
	pgr_lsn flush = r->report_flush ? pgr_walstore_synced(r->store) : PGR_LSN_INVALID;
	pgr_lsn write = pgr_walstore_written(r->store);
	int64_t now_us = pgr_pgtime_from_unix_us(r->sys->wall_us(r->sys));

	assert(flush >= r->reported && flush <= write);
	r->out.len = 0;
	if (pgr_copydata_put_status(&r->out, write, flush, PGR_LSN_INVALID, now_us, reply, err) != PGR_OK)
		return PGR_ERR;
	r->next_status_ms = pgr_rx_now_ms(r) + r->status_interval_ms;
	r->heard = false;
	if (reply && r->pinged_ms == PGR_NO_DEADLINE)
		r->pinged_ms = pgr_rx_now_ms(r);
	r->reported = flush;
	return pgr_client_copy_send(r->client, (struct pgr_span){r->out.data, r->out.len}, err);
}

/* A request whose time is taken was served. */
static void judge_disk(struct pgr_receiver *r)
{
	int64_t now = pgr_rx_now_ms(r);
	int64_t took = now - r->timed_ms;

	r->timed = PGR_LSN_INVALID;
	if (took >= STALL_MS)
		r->stalls_until_ms = now + STALL_MEMORY_MS;
	r->slow_syncs = took >= SLOW_SYNC_MS || now < r->stalls_until_ms;
}

/* Whether there were any. */
static bool tell_finished_segments(struct pgr_receiver *r)
{
	pgr_lsn before = r->told;

	while (r->told + r->segment_bytes <= pgr_walstore_synced(r->store)) {
		r->told += r->segment_bytes;
		pgr_rx_say(r, 0, "finished segment at %" PGR_LSN_FMT " (timeline %u)", PGR_LSN_ARG(r->told), r->tli);
	}
	if (r->told == before)
		return false;
	r->asked_ms = pgr_rx_now_ms(r);
	return true;
}

int pgr_rx_progress(struct pgr_receiver *r, struct pgr_err *err)
{
	pgr_lsn synced = pgr_walstore_synced(r->store);
	bool due;

	if (pgr_walstore_check(r->store, err) != PGR_OK)
		return PGR_ERR;
	pgr_rx_publish(r);
	if (r->timed != PGR_LSN_INVALID && synced >= r->timed)
		judge_disk(r);
	due = tell_finished_segments(r) && r->status_interval_ms > 0;
	if (r->report_flush && synced > r->reported)
		due = due || r->synchronous || (r->owed != PGR_LSN_INVALID && synced >= r->owed);
	if (synced >= r->owed)
		r->owed = PGR_LSN_INVALID;
	return due ? pgr_rx_send_status(r, false, err) : PGR_OK;
}

/*
 * The WAL ends exactly at the stop position, or nothing tells whether it goes on: an idle server would leave us waiting
 * (pg_receivewal does wait), so it is asked for a keepalive, once.
 */
static bool must_ask_for_end(const struct pgr_receiver *r)
{
	pgr_lsn stop = atomic_load(&r->stop_at);

	return r->stop_at_strict && !r->end_asked && stop != PGR_LSN_INVALID && pgr_rx_position(r) == stop;
}

int pgr_rx_report_if_due(struct pgr_receiver *r, struct pgr_err *err)
{
	if (must_ask_for_end(r)) {
		r->end_asked = true;
		return pgr_rx_send_status(r, true, err);
	}
	if (r->status_interval_ms > 0 && pgr_rx_now_ms(r) >= r->next_status_ms)
		return pgr_rx_send_status(r, !r->heard, err);
	return PGR_OK;
}

void pgr_rx_heard(struct pgr_receiver *r)
{
	r->heard = true;
	r->pinged_ms = PGR_NO_DEADLINE;
}

/* Not asked when only the clock was looked at: who was stopped for a while finds the answer in the socket. */
int pgr_rx_check_silence(const struct pgr_receiver *r, struct pgr_err *err)
{
	if (r->pinged_ms == PGR_NO_DEADLINE || pgr_rx_now_ms(r) - r->pinged_ms < SILENCE_MS)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_NETWORK, "server has not answered for %d seconds", SILENCE_MS / 1000);
}

static int ask_sync(struct pgr_receiver *r, bool here, struct pgr_err *err)
{
	r->asked = pgr_rx_position(r);
	r->asked_ms = pgr_rx_now_ms(r);
	r->unasked_ms = PGR_NO_DEADLINE;
	if (r->timed == PGR_LSN_INVALID && is_unsynced(r)) {
		r->timed = r->asked;
		r->timed_ms = r->asked_ms;
	}
	return pgr_walstore_request_sync(r->store, here, err);
}

/*
 * A commit may wait for what was written, but what is here already is taken first: then one sync serves all of it.  A
 * server that is far ahead has no commit that waits for these bytes alone.
 */
int64_t pgr_rx_sync_due_ms(const struct pgr_receiver *r)
{
	pgr_lsn pos = pgr_rx_position(r);

	if (!r->synchronous || pos <= r->asked || pgr_rx_is_inside_head(r))
		return PGR_NO_DEADLINE;
	if (r->wal_end > pos && r->wal_end - pos >= r->segment_bytes)
		return r->asked_ms + CATCHUP_SYNC_MS;
	if (r->wal_end > pos && r->unasked_ms != PGR_NO_DEADLINE)
		return r->unasked_ms + REST_WAIT_MS;
	return pgr_rx_now_ms(r);
}

static bool is_sync_due(const struct pgr_receiver *r)
{
	int64_t due = pgr_rx_sync_due_ms(r);

	return due != PGR_NO_DEADLINE && pgr_rx_now_ms(r) >= due;
}

int pgr_rx_wrote(struct pgr_receiver *r, struct pgr_err *err)
{
	if (r->unasked_ms == PGR_NO_DEADLINE)
		r->unasked_ms = pgr_rx_now_ms(r);
	if (pgr_rx_position(r) - r->asked < SYNC_BURST_BYTES || !is_sync_due(r))
		return PGR_OK;
	return ask_sync(r, false, err);
}

/*
 * The server hears of what is written too, before it is durable: synchronous_commit = remote_write waits for no more.
 * Where syncs are quick one message behind the sync tells of both.
 */
int pgr_rx_sync_if_due(struct pgr_receiver *r, struct pgr_err *err)
{
	if (!is_sync_due(r))
		return PGR_OK;
	if (ask_sync(r, !r->slow_syncs, err) != PGR_OK)
		return PGR_ERR;
	return is_unsynced(r) ? pgr_rx_send_status(r, false, err) : PGR_OK;
}

/*
 * The answer comes at once, with what is durable now; a server that shuts down waits until all it sent is, and hears of
 * that too.
 */
int pgr_rx_answer(struct pgr_receiver *r, struct pgr_err *err)
{
	if (r->report_flush && is_unsynced(r) && !pgr_rx_is_inside_head(r)) {
		if (ask_sync(r, false, err) != PGR_OK)
			return PGR_ERR;
		r->owed = pgr_rx_position(r);
	}
	return pgr_rx_send_status(r, false, err);
}

int pgr_rx_close_store(struct pgr_receiver *r, struct pgr_err *err)
{
	int rc = pgr_walstore_sync(r->store, err);
	const char *name = pgr_walstore_open_name(r->store);
	struct pgr_err same;

	if (rc == PGR_OK)
		tell_finished_segments(r);
	if (name[0] != '\0' && strlen(name) > PGR_WALNAME_LEN)
		pgr_rx_say(r, 0, "not renaming \"%s\", segment is not complete", name);
	if (pgr_walstore_close_segment(r->store, false, rc == PGR_OK ? err : &same) != PGR_OK)
		rc = PGR_ERR;
	pgr_rx_publish(r);
	return rc;
}
