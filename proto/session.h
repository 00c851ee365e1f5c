/*
 * The session: what a server may send when, and what we may send when.  Pure: bytes in, events out.
 *
 * A table [state][message class] says what is legal and what comes next (session.c).  The session speaks the simple
 * query protocol, which is all that replication connections have. Source: PostgreSQL documentation, "Message Flow"
 * (protocol-flow), "Streaming Replication Protocol".
 */
#ifndef PGR_PROTO_SESSION_H
#define PGR_PROTO_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/cursor.h"
#include "proto/fields.h"
#include "proto/wire.h"

enum pgr_session_state {
	PGR_SS_READY,	      /* ReadyForQuery was received: a command may be sent */
	PGR_SS_BUSY,	      /* a command was sent, or one result of it ended */
	PGR_SS_ROWS,	      /* inside a result set */
	PGR_SS_COPY_OUT,      /* the server sends */
	PGR_SS_COPY_IN,	      /* we send */
	PGR_SS_COPY_BOTH,     /* both send */
	PGR_SS_COPY_SRV_DONE, /* both, the server is done, we are not */
	PGR_SS_COPY_CLI_DONE, /* both, we are done, the server is not */
	PGR_SS_FAILED,	      /* after an ERROR, up to ReadyForQuery */
	PGR_SS_CLOSED,	      /* after FATAL, a protocol violation, or Terminate: nothing more */
	PGR_SS_STATES,	      /* number of states */
};

enum pgr_event_kind {
	PGR_EV_NOTICE,	 /* fields */
	PGR_EV_PARAM,	 /* name, value: a ParameterStatus */
	PGR_EV_ERROR,	 /* fields; then READY, unless fatal */
	PGR_EV_ROW_DESC, /* rowdesc */
	PGR_EV_ROW,	 /* row */
	PGR_EV_COMPLETE, /* tag ("" for an empty query): one command of the query ended */
	PGR_EV_COPY_OUT, /* a COPY begins */
	PGR_EV_COPY_IN,
	PGR_EV_COPY_BOTH,
	PGR_EV_COPY_DATA, /* part: a piece of a CopyData body */
	PGR_EV_COPY_DONE, /* the server's CopyDone */
	PGR_EV_READY,	  /* ReadyForQuery */
	/* made by the client (client.h), never by the session */
	PGR_EV_TIMEOUT, /* the deadline passed */
	PGR_EV_WAKE,	/* the wake descriptor became readable */
};

struct pgr_event {
	enum pgr_event_kind kind;
	union {
		struct pgr_fields fields;
		struct {
			struct pgr_span name, value;
		} param;
		struct pgr_rowdesc rowdesc;
		struct pgr_row row;
		struct pgr_span tag;
		struct pgr_wire_msg part;
		char tx_status; /* READY: I, T or E */
	};
};

struct pgr_session {
	struct pgr_wire wire;
	enum pgr_session_state state;
	unsigned ahead; /* commands sent behind the one that runs */
};

/* A new session stands at PGR_SS_READY: authentication is libpq's part and over. */
void pgr_session_init(struct pgr_session *s);
void pgr_session_fini(struct pgr_session *s);

/*
 * Takes bytes from *in and reports the next event.  Views in the event live until the next call.
 * PGR_OK: *ev is filled.  PGR_MORE: more bytes are needed.  PGR_ERR: PGR_E_PROTOCOL, and the state is PGR_SS_CLOSED.
 */
int pgr_session_next(struct pgr_session *s, struct pgr_span *in, struct pgr_event *ev,
		     struct pgr_err *err) PGR_MUST_USE;

/*
 * The socket ended.  Always PGR_ERR, PGR_E_NETWORK: "server closed the connection unexpectedly", and where, when it
 * ended inside a message (a killed server leaves half a message behind, so this is a lost connection and no violation).
 */
int pgr_session_eof(struct pgr_session *s, struct pgr_err *err);

/* What we send: each appends a frame to `out` and moves the state; PGR_E_USAGE when the state does not allow it. */
int pgr_session_query(struct pgr_session *s, struct pgr_buf *out, struct pgr_span text,
		      struct pgr_err *err) PGR_MUST_USE;
/*
 * The same for a command that is sent while another one still runs (or none does): the server takes it up when that one
 * has ended.  Each command has its own ReadyForQuery; the state is then PGR_SS_BUSY again.  Not while a command lets us
 * copy.
 */
int pgr_session_query_ahead(struct pgr_session *s, struct pgr_buf *out, struct pgr_span text,
			    struct pgr_err *err) PGR_MUST_USE;
int pgr_session_copy_data(struct pgr_session *s, struct pgr_buf *out, struct pgr_span body,
			  struct pgr_err *err) PGR_MUST_USE;
int pgr_session_copy_done(struct pgr_session *s, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;
int pgr_session_copy_fail(struct pgr_session *s, struct pgr_buf *out, const char *why,
			  struct pgr_err *err) PGR_MUST_USE;
int pgr_session_terminate(struct pgr_session *s, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;

/* The state's name, for messages. */
const char *pgr_session_state_name(enum pgr_session_state st);

#endif
