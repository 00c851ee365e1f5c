/*
 * Framing: bytes in, messages out.  Pure: no system call, no clock, no allocation beyond one bounded buffer.
 *
 * A message is a type byte, a big-endian length that counts itself, and a body.  Bytes may come in any pieces.
 * Messages with a small body are handed on whole; the body of a CopyData is handed on in the parts in which it
 * comes, never gathered, and may also be received straight into its destination (pgr_wire_took).
 *
 * Source: PostgreSQL documentation, "Message Formats" (protocol-message-formats).
 */
#ifndef PGR_PROTO_WIRE_H
#define PGR_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/cursor.h"

/* What a backend message is, for framing and for the session's table. */
enum pgr_msg_class {
	PGR_MSG_ASYNC,	   /* N notice, S parameter, A notification: at any time */
	PGR_MSG_ERROR,	   /* E */
	PGR_MSG_ROW_DESC,  /* T */
	PGR_MSG_ROW,	   /* D */
	PGR_MSG_COMPLETE,  /* C command complete, I empty query */
	PGR_MSG_READY,	   /* Z */
	PGR_MSG_COPY_OUT,  /* H */
	PGR_MSG_COPY_IN,   /* G */
	PGR_MSG_COPY_BOTH, /* W */
	PGR_MSG_COPY_DATA, /* d */
	PGR_MSG_COPY_DONE, /* c */
	PGR_MSG_CLASSES,   /* number of classes */
};

struct pgr_msg_type {
	char type;
	const char *name; /* "CopyData", for error messages */
	enum pgr_msg_class cls;
	uint32_t min_body; /* bytes of body, without type and length */
	uint32_t max_body;
	bool streamed; /* the body is handed on in parts */
};

/* The row of the message table for a type byte; NULL when a server may not send it after authentication. */
const struct pgr_msg_type *pgr_msg_type_find(uint8_t type);

struct pgr_wire {
	uint8_t head[5];
	unsigned head_len;
	const struct pgr_msg_type *type; /* of the message under way; NULL between messages */
	uint32_t left;			 /* bytes of its body still to come */
	bool started;			 /* a streamed body: some part was already handed on */
	struct pgr_buf body;		 /* a message that came in pieces */
};

struct pgr_wire_msg {
	const struct pgr_msg_type *type;
	struct pgr_span data; /* the whole body, or the next part of a streamed one; valid until the next call */
	bool first;	      /* always true for whole messages */
	bool last;
};

void pgr_wire_init(struct pgr_wire *w);
void pgr_wire_fini(struct pgr_wire *w);

/*
 * Takes bytes from *in and reports the next message or part.
 * PGR_OK: *msg is filled (its data points into *in's memory or into w).
 * PGR_MORE: all of *in was taken, more bytes are needed.
 * PGR_ERR: PGR_E_PROTOCOL: unknown type, or a length outside the type's limits.  The wire is then unusable.
 * A streamed body of zero bytes is reported once, first and last.
 */
int pgr_wire_next(struct pgr_wire *w, struct pgr_span *in, struct pgr_wire_msg *msg, struct pgr_err *err) PGR_MUST_USE;

/*
 * Bytes of a streamed body that have not come yet, when the wire stands inside one of which some part was reported
 * (0 otherwise).
 */
uint32_t pgr_wire_body_left(const struct pgr_wire *w);

/*
 * Tells the wire that the next n (<= pgr_wire_body_left) bytes of the streamed body were received elsewhere.  When this
 * ends the body, no further part is reported for it.
 */
void pgr_wire_took(struct pgr_wire *w, uint32_t n);

#endif
