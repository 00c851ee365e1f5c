/*
 * The inside of the receiver: what receiver.c, rx_stream.c and rx_status.c share, and nobody else.
 */
#ifndef PGR_RECEIVER_RX_H
#define PGR_RECEIVER_RX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/sys.h"
#include "proto/client.h"
#include "proto/copydata.h"
#include "receiver/receiver.h"
#include "receiver/walpage.h"
#include "receiver/walstore.h"

#define PGR_RX_STOP_TIMEOUT_MS 10000 /* how long the server may take to end a stream that we have ended */

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
 * - Where the stream stands is the store's position: a byte was received when the store has taken it.
 * - position >= written >= synced >= reported
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
	bool stop_at_follows_switch;
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
	pgr_tli parent;		 /* the timeline before `tli`, as long as its history was not seen; 0: none */
	pgr_lsn parent_end;	 /* where the server says that it was left */
	int64_t stalls_until_ms; /* until then the disk counts as one that stalls now and then */

	/* one run */
	struct pgr_client *client;
	enum rx_state state;
	enum pgr_receiver_end end;
	bool started;	  /* START_REPLICATION was sent */
	int64_t deadline; /* of COMMAND, RESULT and STOPPING */

	/* one stream */
	bool begun;   /* the store stands where the stream does */
	pgr_lsn told; /* the last finished segment that was told of ends here */
	struct pgr_copydata copy;
	struct pgr_buf out;	/* a command, a status message */
	int64_t next_status_ms; /* when it is due */
	bool heard;		/* something came since the last status message */
	int64_t pinged_ms;	/* an answer was asked for then, and nothing came since; PGR_NO_DEADLINE: not so */
	pgr_lsn reported;	/* as flushed */
	pgr_lsn owed;		/* somebody waits to hear that this is flushed */
	pgr_lsn asked;		/* a sync was asked for up to here */
	int64_t asked_ms;	/* then, or when the last segment was finished */
	int64_t unasked_ms;	/* since then something is written that none was asked for; PGR_NO_DEADLINE: nothing */
	pgr_lsn timed;		/* a request whose time is taken ends here; PGR_LSN_INVALID: none */
	int64_t timed_ms;	/* it was made then */
	bool slow_syncs;	/* the last one whose time was taken took long, or there was none, or it stalls */
	pgr_lsn wal_end;	/* where the server's WAL ends, says the last message */
	pgr_lsn held_at;	/* reading is, or was, held off in this segment; PGR_LSN_INVALID: in none */
	int64_t held_until_ms;	/* while it is; PGR_NO_DEADLINE: it is not */

	/* the first page of each segment */
	bool check_pages;
	uint64_t server_id; /* 0: not known */
	uint8_t head[PGR_WALPAGE_LONG];
	bool end_asked;	    /* whether the WAL ends at the stop position */
	pgr_lsn server_end; /* where it ends, says the last keepalive */
	bool has_next;	    /* the result named the next timeline */
	pgr_tli next_tli;
	pgr_lsn next_start;
};

static inline pgr_lsn pgr_rx_position(const struct pgr_receiver *r)
{
	return pgr_walstore_position(r->store);
}

static inline int64_t pgr_rx_now_ms(const struct pgr_receiver *r)
{
	return r->sys->mono_ms(r->sys);
}

/* ---- receiver.c ---- */

void pgr_rx_say(struct pgr_receiver *r, int level, const char *fmt, ...) PGR_PRINTF(3, 4);

/* Whether everything up to the stop position is here (see stop_at_strict), or a stop was asked for. */
bool pgr_rx_is_stop_reached(const struct pgr_receiver *r, pgr_lsn pos);
bool pgr_rx_must_stop(const struct pgr_receiver *r, pgr_lsn pos);

void pgr_rx_empty_wake(struct pgr_receiver *r);
void pgr_rx_finish(struct pgr_receiver *r, enum pgr_receiver_end end);
void pgr_rx_stop_in_disorder(struct pgr_receiver *r, const char *why);
int pgr_rx_unexpected(const struct pgr_receiver *r, const char *when, struct pgr_err *err);
int pgr_rx_stream_error(const struct pgr_event *ev, struct pgr_err *err);

/* ---- rx_status.c: what is durable, and who hears of it ---- */

/* At the beginning of a stream. */
void pgr_rx_status_init(struct pgr_receiver *r);

/* For other threads to read. */
void pgr_rx_publish(struct pgr_receiver *r);

/* Standby status update; `reply`: the server shall answer with a keepalive. */
int pgr_rx_send_status(struct pgr_receiver *r, bool reply, struct pgr_err *err) PGR_MUST_USE;

/* Takes note of what the store has made durable, and reports it where somebody waits for that.  PGR_ERR when the store
 * has failed. */
int pgr_rx_progress(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* Sends what is due by the clock.  After a whole interval of silence the status message is a ping. */
int pgr_rx_report_if_due(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* Something came. */
void pgr_rx_heard(struct pgr_receiver *r);

/* Nothing is there to be read.  PGR_E_NETWORK: nor was there since a ping of a minute ago. */
int pgr_rx_check_silence(const struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* When the next sync is to be asked for; PGR_NO_DEADLINE: not because of what is written now. */
int64_t pgr_rx_sync_due_ms(const struct pgr_receiver *r);

/* Asks for it when that has come. */
int pgr_rx_sync_if_due(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* WAL was written.  In a stream that never pauses a sync is asked for here. */
int pgr_rx_wrote(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* A keepalive that asks for a reply. */
int pgr_rx_answer(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* Makes all of it durable and closes the open segment. */
int pgr_rx_close_store(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

/* ---- rx_page.c: whether it is the WAL of this server ---- */

/* The server has told who it is. */
void pgr_rx_page_init(struct pgr_receiver *r, const struct pgr_system_id *id);

/*
 * Looks at the header of the first page of each segment in what stands at `at`, before it is written.  A header that
 * comes in pieces is looked at with the last of them.  PGR_ERR: PGR_E_DATA, another system's, version's or position's.
 */
int pgr_rx_check_pages(struct pgr_receiver *r, pgr_lsn at, struct pgr_span wal, struct pgr_err *err) PGR_MUST_USE;

/* Whether the stream stands in a header that was not looked at yet: then nothing is to be acknowledged. */
bool pgr_rx_is_inside_head(const struct pgr_receiver *r);

/* ---- rx_stream.c: RX_STREAM ---- */

void pgr_rx_begin_streaming(struct pgr_receiver *r);
int pgr_rx_step_stream(struct pgr_receiver *r, struct pgr_err *err) PGR_MUST_USE;

#endif
