/*
 * The transport: an authenticated connection as a non-blocking byte stream.
 *
 * This is the interface: real (transport_libpq.h) and scripted transports implement it.
 */
#ifndef PGR_PROTO_TRANSPORT_H
#define PGR_PROTO_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_stop;
struct pgr_sys;
struct pgr_transport;

#define PGR_NO_DEADLINE ((int64_t)-1) /* deadlines are pgr_sys.mono_ms values */

enum { /* what pgr_transport_wait waits for, and what it reports */
       PGR_WAIT_READ = 1,
       PGR_WAIT_WRITE = 2,
       PGR_WAIT_WAKE = 4,    /* reported only: the wake descriptor is readable */
       PGR_WAIT_TIMEOUT = 8, /* reported only */
};

/* A span of memory to receive into. */
struct pgr_room {
	void *p;
	size_t len;
};

struct pgr_transport_ops {
	/* See the functions below. */
	int (*read)(struct pgr_transport *t, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err);
	int (*write)(struct pgr_transport *t, const void *p, size_t len, size_t *n, struct pgr_err *err);
	int (*wait)(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline, unsigned *got,
		    struct pgr_err *err);
	void (*cancel)(struct pgr_transport *t);
	void (*close)(struct pgr_transport *t);
};

/* First member of every implementation. */
struct pgr_transport {
	const struct pgr_transport_ops *ops;
	int server_version; /* as PQserverVersion: 150020 */
	int backend_pid;
	char server_host[256]; /* host or socket directory, and port, for messages */
	char server_port[16];
	bool server_is_local; /* reached over a Unix-domain socket, or at one of this machine's own addresses */
};

/*
 * Receives into up to nroom rooms, in order; never blocks.  PGR_OK: *n bytes came, 0 at the end of the stream.
 * PGR_MORE: nothing there now.  PGR_ERR: PGR_E_NETWORK.
 */
static inline int PGR_MUST_USE pgr_transport_read(struct pgr_transport *t, const struct pgr_room *room, int nroom,
						  size_t *n, struct pgr_err *err)
{
	return t->ops->read(t, room, nroom, n, err);
}

/* Sends some of len bytes; never blocks.  PGR_OK: *n > 0 were taken.  PGR_MORE: none now.  PGR_ERR: PGR_E_NETWORK. */
static inline int PGR_MUST_USE pgr_transport_write(struct pgr_transport *t, const void *p, size_t len, size_t *n,
						   struct pgr_err *err)
{
	return t->ops->write(t, p, len, n, err);
}

/*
 * Waits until one of the wanted directions is possible, `wake_fd` (-1: none) is readable, or the deadline has passed;
 * *got has all that are true.  PGR_ERR: PGR_E_STOPPED when the stop latch of the transport is set, PGR_E_SYSTEM if poll
 * failed. With data buffered inside TLS, PGR_WAIT_READ is true at once.
 */
static inline int PGR_MUST_USE pgr_transport_wait(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline,
						  unsigned *got, struct pgr_err *err)
{
	return t->ops->wait(t, want, wake_fd, deadline, got, err);
}

/*
 * Asks the server to cancel the command that runs (a CancelRequest on a connection of its own); best effort.  Blocks as
 * long as the operating system takes to connect and the server to close: nothing on a healthy network, minutes when the
 * host is unreachable unless tcp_user_timeout is set.  The stop latch does not end it: for hosts that may be gone,
 * closing the transport is the better way.
 */
static inline void pgr_transport_cancel(struct pgr_transport *t)
{
	t->ops->cancel(t);
}

/* Closes the socket and frees the transport.  NULL is allowed. */
static inline void pgr_transport_close(struct pgr_transport *t)
{
	if (t != NULL)
		t->ops->close(t);
}

#endif
