/*
 * The transport: an authenticated connection as a non-blocking byte stream.
 *
 * transport.h is the interface (real and scripted transports implement it); transport_libpq.c is the only file of pgr
 * that includes libpq.  libpq opens and authenticates; afterwards every byte on the wire is ours.
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

/* ---- opening a real one: transport_libpq.c ---- */

enum pgr_conn_mode {
	PGR_CONN_PHYSICAL, /* replication=true: replication commands only */
	PGR_CONN_SQL,	   /* an ordinary SQL session, in the database postgres unless the user named one */
};

/* One connection keyword and its value. */
struct pgr_setting {
	char *keyword;
	char *value;
};

enum pgr_password_mode { PGR_PASSWORD_IF_NEEDED, PGR_PASSWORD_NEVER, PGR_PASSWORD_ALWAYS };

/*
 * How to connect.  Filled by the tool from its options; shared by all connections of a run (not at the same time while
 * the password has not been asked yet).
 */
struct pgr_conn_params {
	const char *conninfo; /* -d: connection string or URI; NULL */
	const char *host;     /* -h; NULL: libpq's rules */
	const char *port;     /* -p */
	const char *user;     /* -U */
	const char *progname; /* fallback_application_name */
	enum pgr_password_mode password_mode;
	char *password; /* once asked: malloc'd, kept for the other connections; freed by pgr_conn_params_fini */
	bool password_asked;
	/*
	 * Reads a password without echo.  *out is malloc'd.  PGR_ERR when there is no one to ask.
	 */
	int (*ask_password)(void *arg, char **out, struct pgr_err *err);
	void *ask_arg;
};

/* Overwrites and frees what pgr_transport_open stored in the parameters. */
void pgr_conn_params_fini(struct pgr_conn_params *p);

/*
 * Connects and authenticates, then takes socket and TLS over.  Honours what libpq does: URIs, service files, PG*
 * variables, .pgpass, several hosts, sslmode and certificates, SCRAM with channel binding, connect_timeout; dbname is
 * `replication` for physical connections unless the user named one.  Asks for the password when the server wants one
 * and the mode allows it.  TCP keepalives are on (idle 60 s, interval 10 s, 6 probes) unless the user set them
 * otherwise.  Interruptible by the stop latch, but for the time that the resolver takes for a host name.
 * connect_timeout is for each address, and goes on to the next host, as with libpq. PGR_ERR: PGR_E_CONNECT (libpq's
 * text; with the SQLSTATE when the server refused, or there is no password), PGR_E_USAGE (a malformed connection
 * string, a GSS-encrypted connection, with the hint gssencmode=disable; a server that is not PostgreSQL >= 9.1;
 * integer_datetimes off), PGR_E_STOPPED, what ask_password returned.  Notices of the server before the take-over are
 * dropped.  `sys` and `stop` (NULL: none) outlive the transport.
 */
int pgr_transport_open(struct pgr_transport **out, const struct pgr_sys *sys, struct pgr_stop *stop,
		       struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err) PGR_MUST_USE;

/*
 * The connection settings that somebody set: by option, connection string, service or environment (and the user name,
 * which libpq would otherwise take from the operating system of whoever runs the standby).  libpq's own defaults, and
 * replication and fallback_application_name are left out.  dbname only when the user named one.  *list ends with a NULL
 * keyword; free with pgr_settings_free.  Only for transports of pgr_transport_open.
 */
int pgr_transport_settings(const struct pgr_transport *t, struct pgr_setting **list, struct pgr_err *err) PGR_MUST_USE;
void pgr_settings_free(struct pgr_setting *list);

#endif
