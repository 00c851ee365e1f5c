/*
 * A transport that plays a server from a script: says what real servers never say, in any pieces.
 *
 * The script is a list of steps, made before the client runs (one thread).  What the server sends comes once everything
 * before it in the script has happened.  When nothing more can happen (the script is at its end, or expects what the
 * client did not send) and the client waits without deadline or wake descriptor, the wait fails after a few seconds
 * instead of hanging the test.
 */
#ifndef PGR_TESTS_SCRIPTED_H
#define PGR_TESTS_SCRIPTED_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "proto/transport.h"

struct pgr_scripted;
struct pgr_stop;

/* `chunk`: at most so many bytes a read or a write (0: no limit).  The transport is freed by pgr_transport_close. */
struct pgr_scripted *pgr_scripted_new(int server_version, size_t chunk);
struct pgr_transport *pgr_scripted_transport(struct pgr_scripted *s);

/* The server sends these bytes, once everything that was scripted before has happened. */
void pgr_scripted_send(struct pgr_scripted *s, const void *p, size_t len);
/* The same for a message built with pgr_msg_...: sends what is in `b` and empties it. */
void pgr_scripted_send_buf(struct pgr_scripted *s, struct pgr_buf *b);
/* The server waits until the client has sent, since the last expectation, at least one whole message of this type ('Q',
 * 'd', 'c', 'X'): an expectation uses up everything to the end of the first such message. */
void pgr_scripted_expect(struct pgr_scripted *s, char type);
/* The server says nothing until the client has waited up to a deadline in vain. */
void pgr_scripted_pause(struct pgr_scripted *s);
/* The connection ends. */
void pgr_scripted_eof(struct pgr_scripted *s);
/* A read fails with PGR_E_NETWORK (ECONNRESET). */
void pgr_scripted_reset(struct pgr_scripted *s);

/* Not steps, true from now on: writes fail with PGR_E_NETWORK (EPIPE); writes take nothing (a full socket). */
void pgr_scripted_break_writes(struct pgr_scripted *s);
void pgr_scripted_stall_writes(struct pgr_scripted *s);
/* Waits look at this stop latch. */
void pgr_scripted_set_stop(struct pgr_scripted *s, struct pgr_stop *stop);
/* What the client sends is appended to `copy` too, which may outlive the transport. */
void pgr_scripted_tap(struct pgr_scripted *s, struct pgr_buf *copy);

/* All that the client has sent so far. */
const struct pgr_buf *pgr_scripted_sent(const struct pgr_scripted *s);
/* How often the command was cancelled. */
unsigned pgr_scripted_cancels(const struct pgr_scripted *s);

/* Message builders for scripts: append a backend message to `out` (abort on failure: tests only). */
void pgr_msg(struct pgr_buf *out, char type, const void *body, size_t len);
void pgr_msg_row_desc(struct pgr_buf *out, int ncols, const char *const *names);
void pgr_msg_row(struct pgr_buf *out, int ncols, const char *const *values); /* NULL entries are SQL NULLs */
void pgr_msg_complete(struct pgr_buf *out, const char *tag);
void pgr_msg_ready(struct pgr_buf *out);
void pgr_msg_error(struct pgr_buf *out, const char *severity, const char *sqlstate, const char *text);
void pgr_msg_notice(struct pgr_buf *out, const char *severity, const char *sqlstate, const char *text);
void pgr_msg_param(struct pgr_buf *out, const char *name, const char *value); /* ParameterStatus */
void pgr_msg_copy_response(struct pgr_buf *out, char type);		      /* 'H', 'G' or 'W' with no columns */
void pgr_msg_copy_data(struct pgr_buf *out, const void *p, size_t len);
void pgr_msg_copy_done(struct pgr_buf *out);
/* CopyData bodies: append the body alone, which pgr_msg_copy_data makes a message. */
void pgr_msg_wal(struct pgr_buf *out, uint64_t start, uint64_t end, const void *wal, size_t len);
void pgr_msg_keepalive(struct pgr_buf *out, uint64_t end, int reply);

#endif
