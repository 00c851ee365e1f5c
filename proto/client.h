/*
 * A session on a transport: send a command, get its events; a few whole exchanges for short commands.
 *
 * Not thread-safe: one thread at a time.
 */
#ifndef PGR_PROTO_CLIENT_H
#define PGR_PROTO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"
#include "proto/session.h"
#include "proto/transport.h"

struct pgr_sys;
struct pgr_client;

/* How long a short command (IDENTIFY_SYSTEM, SHOW, slots, history) may take. */
#define PGR_COMMAND_TIMEOUT_MS 60000

/* Called for every NOTICE or WARNING of the server; `text` as libpq prints it, with its newline. */
typedef void pgr_notice_fn(void *arg, const char *text);

/*
 * Makes a client over a connected transport, which it owns from then on (also after a failure of this function).
 * `sys` outlives it.
 */
int pgr_client_new(struct pgr_client **out, struct pgr_transport *t, const struct pgr_sys *sys, pgr_notice_fn *notice,
		   void *notice_arg, struct pgr_err *err) PGR_MUST_USE;

/* Says goodbye when the state allows it without waiting, closes, frees.  NULL is allowed. */
void pgr_client_free(struct pgr_client *c);

int pgr_client_version(const struct pgr_client *c); /* server version */
int pgr_client_backend_pid(const struct pgr_client *c);
struct pgr_transport *pgr_client_transport(struct pgr_client *c); /* still owned by the client */
enum pgr_session_state pgr_client_state(const struct pgr_client *c);

/* A descriptor (-1: none) whose readability ends a wait of pgr_client_next with PGR_EV_WAKE; the caller reads it empty.
 * Returns the one before. */
int pgr_client_set_wake(struct pgr_client *c, int fd);

/* The deadline that is `ms` from now. */
int64_t pgr_client_deadline(const struct pgr_client *c, int64_t ms);

/*
 * Sends a command (a span of text).  Its results are read with pgr_client_next.  What goes wrong on the socket is told
 * by the calls that read, since the server may have said why it closed.
 */
int pgr_client_send(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err) PGR_MUST_USE;

/*
 * Sends a command while others may still run: it is taken up when they have ended.  Every command has its own
 * PGR_EV_READY, in the order in which they were sent.
 */
int pgr_client_send_ahead(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err) PGR_MUST_USE;

/*
 * For commands whose answers are read as a whole (pgr_client_query and what is built on it, pgr_sql_rows): so that
 * several of them cost one round trip.  pgr_client_ask_ahead sends a command now; pgr_client_ask with the same text
 * then sends nothing, and its answer is the next one to be read.  Answers come in the order in which they were asked
 * for, whatever becomes of the others: those in between are read (for each at most PGR_COMMAND_TIMEOUT_MS) and thrown
 * away, so nothing is asked ahead that may not be done twice, unless it is asked for in this order.  With anything else
 * pgr_client_ask throws all of them away and sends the command.
 *
 * Asking ahead is a hint: what is too much of it (more than 8) is sent when it is asked for.
 */
int pgr_client_ask_ahead(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err) PGR_MUST_USE;
int pgr_client_ask(struct pgr_client *c, const struct pgr_buf *text, struct pgr_err *err) PGR_MUST_USE;

/*
 * The next event.  Waits for it, at most until `deadline` (PGR_NO_DEADLINE: for ever).  Output that is still queued is
 * sent meanwhile. PGR_EV_NOTICE goes to the notice function, PGR_EV_PARAM is remembered; neither is reported.  An
 * ErrorResponse is reported as PGR_EV_ERROR.  PGR_ERR: PGR_E_NETWORK, PGR_E_PROTOCOL, PGR_E_STOPPED. Views in the event
 * live until the next call.  While events keep coming, the deadline, the wake descriptor and the stop latch are looked
 * at now and then, not before each event.
 */
int pgr_client_next(struct pgr_client *c, int64_t deadline, struct pgr_event *ev, struct pgr_err *err) PGR_MUST_USE;

/* As pgr_client_next, with an ErrorResponse turned into PGR_ERR (PGR_E_SERVER) and a passed deadline into
 * PGR_E_NETWORK. */
int pgr_client_expect(struct pgr_client *c, int64_t deadline, struct pgr_event *ev, struct pgr_err *err) PGR_MUST_USE;

/*
 * Reads up to the ReadyForQuery of the present command, throwing results away; the first ErrorResponse is returned as
 * PGR_ERR.  PGR_OK at once when no command is under way.  The wake descriptor is not looked at.
 */
int pgr_client_until_ready(struct pgr_client *c, int64_t deadline, struct pgr_err *err) PGR_MUST_USE;

/*
 * Inside a CopyData whose first part(s) were reported: receives up to `cap` bytes of the rest of its body straight into
 * `dst`. *n bytes came (0 only when the body has ended).  Waits as pgr_client_next does; PGR_MORE: the deadline passed
 * or the wake descriptor is readable, *n is 0.  Bytes that were received with the head are copied out of the receive
 * buffer first.
 */
int pgr_client_copy_take(struct pgr_client *c, void *dst, size_t cap, int64_t deadline, size_t *n,
			 struct pgr_err *err) PGR_MUST_USE;

/* Bytes of the present CopyData body that were neither reported nor taken. */
uint32_t pgr_client_copy_left(const struct pgr_client *c);

/*
 * Queue a CopyData or CopyDone and try to send; what the socket does not take is sent by later calls.  As with
 * pgr_client_send, a broken socket is told by the calls that read, and by pgr_client_flush.
 */
int pgr_client_copy_send(struct pgr_client *c, struct pgr_span body, struct pgr_err *err) PGR_MUST_USE;
int pgr_client_copy_done(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;

/*
 * Waits until everything queued was handed to the socket; what the server sends meanwhile is kept for pgr_client_next.
 * When the connection breaks, the server's last ErrorResponse is returned (PGR_E_SERVER) if it sent one.
 */
int pgr_client_flush(struct pgr_client *c, int64_t deadline, struct pgr_err *err) PGR_MUST_USE;

/* The value of a ParameterStatus that the server sent after the take-over; NULL. */
const char *pgr_client_param(const struct pgr_client *c, const char *name);

/* ---- whole exchanges ---- */

/* Rows of a short command.  At most 64 MiB; cell() gives a NUL-terminated copy, NULL for SQL NULL or beyond the end. */
struct pgr_result;
int pgr_client_query(struct pgr_client *c, const struct pgr_buf *text, struct pgr_result **out,
		     struct pgr_err *err) PGR_MUST_USE;
unsigned pgr_result_rows(const struct pgr_result *r);
unsigned pgr_result_cols(const struct pgr_result *r);
const char *pgr_result_cell(const struct pgr_result *r, unsigned row, unsigned col, size_t *len);
void pgr_result_free(struct pgr_result *r);

struct pgr_system_id {
	char system_identifier[24]; /* decimal digits, as sent */
	pgr_tli tli;
	pgr_lsn flush;	 /* the server's flush position */
	char dbname[64]; /* empty for a physical connection */
};

/*
 * Each of these asks ahead (pgr_client_ask_ahead) for what the function of its name then tells; of_server for
 * pgr_client_group_access, pgr_client_wal_segment_size and pgr_client_identify, in this order.
 */
int pgr_client_of_server_ahead(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;
int pgr_client_show_ahead(struct pgr_client *c, const char *name, struct pgr_err *err) PGR_MUST_USE;
int pgr_client_identify_ahead(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;
int pgr_client_create_slot_ahead(struct pgr_client *c, const char *slot, bool temporary, bool reserve_wal,
				 struct pgr_err *err) PGR_MUST_USE;
int pgr_client_read_slot_ahead(struct pgr_client *c, const char *slot, struct pgr_err *err) PGR_MUST_USE;

/* IDENTIFY_SYSTEM. */
int pgr_client_identify(struct pgr_client *c, struct pgr_system_id *out, struct pgr_err *err) PGR_MUST_USE;

/* SHOW: the setting's value as the server shows it, replacing what is in `out`.  From 10 on (PGR_CAP_SHOW). */
int pgr_client_show(struct pgr_client *c, const char *name, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;

/* wal_segment_size in bytes (SHOW from 10, 16 MB before); PGR_E_PROTOCOL when it is not a legal one. */
int pgr_client_wal_segment_size(struct pgr_client *c, uint32_t *out, struct pgr_err *err) PGR_MUST_USE;

/* Whether data_directory_mode allows group access (0750): false before 11. */
int pgr_client_group_access(struct pgr_client *c, bool *out, struct pgr_err *err) PGR_MUST_USE;

/* Slots.  `if_not_exists` swallows SQLSTATE 42710. */
int pgr_client_create_slot(struct pgr_client *c, const char *slot, bool temporary, bool reserve_wal, bool if_not_exists,
			   struct pgr_err *err) PGR_MUST_USE;
int pgr_client_drop_slot(struct pgr_client *c, const char *slot, struct pgr_err *err) PGR_MUST_USE;

/* READ_REPLICATION_SLOT (15): PGR_OK with *restart 0 when it has reserved nothing; PGR_E_USAGE for a missing or logical
 * slot. */
int pgr_client_read_slot(struct pgr_client *c, const char *slot, pgr_lsn *restart, pgr_tli *tli,
			 struct pgr_err *err) PGR_MUST_USE;

/* TIMELINE_HISTORY: the content is malloc'd; the file name that the server sent was checked against the timeline. */
int pgr_client_timeline_history(struct pgr_client *c, pgr_tli tli, char **content, size_t *len,
				struct pgr_err *err) PGR_MUST_USE;

#endif
