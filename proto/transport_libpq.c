#include "proto/transport_libpq.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libpq-fe.h>
#include <openssl/ssl.h>

#include "proto/caps.h"
#include "proto/libpq_connect.h"
#include "proto/transport_socket.h"

/* ---- the transport ---- */

struct libpq_transport {
	struct pgr_socket s; /* first */
	PGconn *conn;	     /* owns descriptor and SSL object; libpq's BIO needs it */
	struct pgr_setting *settings;
};

static struct libpq_transport *of(struct pgr_transport *t)
{
	return (struct libpq_transport *)t;
}

static void libpq_cancel(struct pgr_transport *t)
{
	PGcancel *cancel = PQgetCancel(of(t)->conn);
	char why[256];

	if (cancel == NULL)
		return;
	(void)PQcancel(cancel, why, (int)sizeof(why)); /* best effort: see the header */
	PQfreeCancel(cancel);
}

/*
 * PQfinish would write its own Terminate, perhaps into the middle of a message of ours: the socket is shut before,
 * which still delivers what was sent.
 */
static void libpq_close(struct pgr_transport *t)
{
	struct libpq_transport *l = of(t);

	shutdown(l->s.fd, SHUT_RDWR);
	PQfinish(l->conn);
	pgr_settings_free(l->settings);
	free(l);
}

static const struct pgr_transport_ops libpq_ops = {
	.read = pgr_socket_read,
	.write = pgr_socket_write,
	.wait = pgr_socket_wait,
	.cancel = libpq_cancel,
	.close = libpq_close,
};

/* ---- the take-over ---- */

/* A dead peer is noticed within two minutes, unless the user has another opinion; nobody minds when this fails. */
static void tune_keepalives(const struct libpq_transport *l)
{
	static const struct {
		const char *keyword;
		int option, value;
	} ours[] = {
		{"keepalives_idle", TCP_KEEPIDLE, 60},
		{"keepalives_interval", TCP_KEEPINTVL, 10},
		{"keepalives_count", TCP_KEEPCNT, 6},
	};
	const char *on = pgr_settings_find(l->settings, "keepalives");
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (on != NULL && strcmp(on, "0") == 0)
		return;
	if (getsockname(l->s.fd, (struct sockaddr *)&addr, &len) != 0 || addr.ss_family == AF_UNIX)
		return;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (pgr_settings_find(l->settings, ours[i].keyword) == NULL)
			(void)setsockopt(l->s.fd, IPPROTO_TCP, ours[i].option, &ours[i].value, sizeof(ours[i].value));
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in *a4 = (const void *)a, *b4 = (const void *)b;
	const struct sockaddr_in6 *a6 = (const void *)a, *b6 = (const void *)b;

	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return a->ss_family == AF_INET6 && memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

/* Who speaks to an address of his own machine does so from that address, or from one of the loopback network. */
static bool is_local(int fd)
{
	struct sockaddr_storage own, peer;
	const struct sockaddr_in *peer4 = (const void *)&peer;
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);

	if (getsockname(fd, (struct sockaddr *)&own, &own_len) != 0 ||
	    getpeername(fd, (struct sockaddr *)&peer, &peer_len) != 0)
		return true; /* where it counts, this is the careful answer */
	if (own.ss_family == AF_UNIX || same_address(&own, &peer))
		return true;
	return peer.ss_family == AF_INET && (ntohl(peer4->sin_addr.s_addr) >> 24) == IN_LOOPBACKNET;
}

/* *ssl NULL: the connection is not encrypted. */
static int find_tls(PGconn *conn, SSL **ssl, struct pgr_err *err)
{
	*ssl = NULL;
	if (!PQsslInUse(conn))
		return PGR_OK;
	*ssl = PQsslStruct(conn, "OpenSSL");
	return *ssl != NULL ? PGR_OK : pgr_err_set(err, PGR_E_USAGE, "the TLS library of libpq is not OpenSSL");
}

static int check_server(PGconn *conn, struct pgr_err *err)
{
	const char *integers = PQparameterStatus(conn, "integer_datetimes");
	int version = PQserverVersion(conn);
	char text[16];

	if (PQgssEncInUse(conn)) {
		pgr_err_set(err, PGR_E_USAGE, "GSSAPI encryption is not supported");
		return pgr_err_hint(err, "Connect with gssencmode=disable.");
	}
	if (integers == NULL)
		return pgr_err_set(err, PGR_E_USAGE, "could not determine server setting for integer_datetimes");
	if (strcmp(integers, "on") != 0)
		return pgr_err_set(err, PGR_E_USAGE, "integer_datetimes compile flag does not match server");
	if (version < PGR_SERVER_MIN) {
		pgr_version_format(text, version);
		return pgr_err_set(err, PGR_E_USAGE, "incompatible server version %s", text);
	}
	return PGR_OK;
}

/* From here on nothing is asked of libpq: it may hold bytes that nobody could give back.  Takes both when it succeeds.
 */
static int take_over(struct pgr_transport **out, const struct pgr_sys *sys, struct pgr_stop *stop, PGconn *conn,
		     struct pgr_setting *settings, struct pgr_err *err)
{
	struct libpq_transport *l;
	struct pgr_transport *t;
	SSL *ssl;

	if (find_tls(conn, &ssl, err) != PGR_OK)
		return PGR_ERR;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return pgr_err_nomem(err);
	pgr_socket_init(&l->s, sys, stop, PQsocket(conn), ssl);
	t = &l->s.t;
	t->ops = &libpq_ops;
	t->server_version = PQserverVersion(conn);
	t->backend_pid = PQbackendPID(conn);
	snprintf(t->server_host, sizeof(t->server_host), "%s", pgr_setting_text(PQhost(conn)));
	snprintf(t->server_port, sizeof(t->server_port), "%s", pgr_setting_text(PQport(conn)));
	t->server_is_local = is_local(l->s.fd);
	l->conn = conn;
	l->settings = settings;
	tune_keepalives(l);
	*out = t;
	return PGR_OK;
}

int pgr_transport_open(struct pgr_transport **out, const struct pgr_sys *sys, struct pgr_stop *stop,
		       struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err)
{
	struct pgr_setting *settings;
	PGconn *conn;

	*out = NULL;
	if (pgr_libpq_connect(&conn, &settings, sys, stop, params, mode, err) != PGR_OK)
		return PGR_ERR;
	if (check_server(conn, err) == PGR_OK && take_over(out, sys, stop, conn, settings, err) == PGR_OK)
		return PGR_OK;
	PQfinish(conn);
	pgr_settings_free(settings);
	return PGR_ERR;
}

int pgr_transport_settings(const struct pgr_transport *t, struct pgr_setting **list, struct pgr_err *err)
{
	return pgr_settings_copy(((const struct libpq_transport *)t)->settings, list, err);
}
