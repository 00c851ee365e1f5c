/*
 * The byte stream of a transport: a connected, non-blocking socket, with or without TLS.
 *
 * Whoever made the connection embeds the struct, fills the rest of `t`, and owns descriptor and SSL object.
 */
#ifndef PGR_PROTO_TRANSPORT_SOCKET_H
#define PGR_PROTO_TRANSPORT_SOCKET_H

#include <stdbool.h>

#include "proto/transport.h"

struct ssl_st; /* OpenSSL's SSL */

struct pgr_socket {
	struct pgr_transport t; /* first */
	const struct pgr_sys *sys;
	struct pgr_stop *stop; /* NULL: none */
	int fd;
	struct ssl_st *ssl;	 /* NULL: not encrypted */
	bool tls_dry;		 /* what is left inside OpenSSL is not a whole record */
	short read_on, write_on; /* what poll must see for a read or write to go on: TLS may want the other one */
};

/* `ssl` stands after the handshake, with nothing received that was not read.  `sys` and `stop` outlive the socket. */
void pgr_socket_init(struct pgr_socket *s, const struct pgr_sys *sys, struct pgr_stop *stop, int fd,
		     struct ssl_st *ssl);

/* Members for a pgr_transport_ops: see transport.h. */
int pgr_socket_read(struct pgr_transport *t, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err);
int pgr_socket_write(struct pgr_transport *t, const void *p, size_t len, size_t *n, struct pgr_err *err);
int pgr_socket_wait(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline, unsigned *got,
		    struct pgr_err *err);

#endif
