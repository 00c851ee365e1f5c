/* Reading, writing and waiting on a socket: see transport_socket.h. */
#include "proto/transport_socket.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/stop.h"
#include "common/sys.h"

#define MAX_ROOMS	 4
#define TLS_BUFFER_BYTES (128u * 1024u)

/* OpenSSL 1.1.1 reports this end of file as a system call that failed with errno 0. */
#ifndef SSL_R_UNEXPECTED_EOF_WHILE_READING
#define SSL_R_UNEXPECTED_EOF_WHILE_READING 294
#endif

static struct pgr_socket *of(struct pgr_transport *t)
{
	return (struct pgr_socket *)t;
}

static int lost(struct pgr_err *err, const char *what, int errnum)
{
	pgr_err_sys(err, errnum, "%s", what);
	err->cls = PGR_E_NETWORK;
	return PGR_ERR;
}

static const char could_not_receive[] = "could not receive data from server";
static const char could_not_send[] = "could not send data to server";

static int plain_read(struct pgr_socket *s, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err)
{
	struct iovec iov[MAX_ROOMS];
	struct msghdr msg = {.msg_iov = iov};
	ssize_t got;

	for (int i = 0; i < nroom && i < MAX_ROOMS; i++)
		iov[msg.msg_iovlen++] = (struct iovec){room[i].p, room[i].len};
	do
		got = s->sys->recvmsg(s->sys, s->fd, &msg, 0);
	while (got < 0 && errno == EINTR);
	*n = got > 0 ? (size_t)got : 0;
	if (got >= 0)
		return PGR_OK;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return PGR_MORE;
	return lost(err, could_not_receive, errno);
}

static int plain_write(struct pgr_socket *s, const void *p, size_t len, size_t *n, struct pgr_err *err)
{
	ssize_t put;

	do
		put = s->sys->send(s->sys, s->fd, p, len, MSG_NOSIGNAL);
	while (put < 0 && errno == EINTR);
	*n = put > 0 ? (size_t)put : 0;
	if (put > 0)
		return PGR_OK;
	if (put == 0 || errno == EAGAIN || errno == EWOULDBLOCK)
		return PGR_MORE;
	return lost(err, could_not_send, errno);
}

/*
 * What a failed SSL_read or SSL_write means.  PGR_OK: the connection has ended.  PGR_MORE: later, when poll sees *on.
 * `errnum` is errno as the call left it.
 */
static int tls_result(struct pgr_socket *s, int ret, int errnum, const char *what, short *on, struct pgr_err *err)
{
	unsigned long code;
	char text[256];

	switch (SSL_get_error(s->ssl, ret)) {
	case SSL_ERROR_WANT_READ:
		*on = POLLIN;
		return PGR_MORE;
	case SSL_ERROR_WANT_WRITE:
		*on = POLLOUT;
		return PGR_MORE;
	case SSL_ERROR_ZERO_RETURN:
		return PGR_OK;
	case SSL_ERROR_SYSCALL:
		return errnum != 0 ? lost(err, what, errnum) : PGR_OK;
	default:
		code = ERR_get_error();
		if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
			return PGR_OK;
		ERR_error_string_n(code, text, sizeof(text));
		return pgr_err_set(err, PGR_E_NETWORK, "%s: SSL error: %s", what, text);
	}
}

/* One SSL_read.  PGR_OK with *n == 0: the end. */
static int tls_read_some(struct pgr_socket *s, struct pgr_room room, size_t *n, struct pgr_err *err)
{
	int ret;

	*n = 0;
	s->read_on = POLLIN;
	ERR_clear_error();
	errno = 0;
	ret = SSL_read_ex(s->ssl, room.p, room.len, n);
	s->tls_dry = ret <= 0;
	return ret > 0 ? PGR_OK : tls_result(s, ret, errno, could_not_receive, &s->read_on, err);
}

/* OpenSSL gives at most a record a call; goes on while it has more, so that not every record is a turn of the caller.
 */
static int tls_read(struct pgr_socket *s, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err)
{
	size_t got;

	*n = 0;
	for (int i = 0; i < nroom; i++) {
		for (size_t used = 0; used < room[i].len; used += got) {
			struct pgr_room left = {(uint8_t *)room[i].p + used, room[i].len - used};
			int rc = tls_read_some(s, left, &got, err);

			if (rc != PGR_OK || got == 0)
				return *n > 0 ? PGR_OK : rc; /* an error, or the end, comes again */
			*n += got;
			if (!SSL_has_pending(s->ssl))
				return PGR_OK;
		}
	}
	return PGR_OK;
}

static int tls_write(struct pgr_socket *s, const void *p, size_t len, size_t *n, struct pgr_err *err)
{
	int ret, rc;

	*n = 0;
	s->write_on = POLLOUT;
	ERR_clear_error();
	errno = 0;
	ret = SSL_write_ex(s->ssl, p, len, n);
	if (ret > 0)
		return PGR_OK;
	rc = tls_result(s, ret, errno, could_not_send, &s->write_on, err);
	return rc == PGR_OK ? lost(err, could_not_send, EPIPE) : rc;
}

int pgr_socket_read(struct pgr_transport *t, const struct pgr_room *room, int nroom, size_t *n, struct pgr_err *err)
{
	struct pgr_socket *s = of(t);

	return s->ssl != NULL ? tls_read(s, room, nroom, n, err) : plain_read(s, room, nroom, n, err);
}

int pgr_socket_write(struct pgr_transport *t, const void *p, size_t len, size_t *n, struct pgr_err *err)
{
	struct pgr_socket *s = of(t);

	return s->ssl != NULL ? tls_write(s, p, len, n, err) : plain_write(s, p, len, n, err);
}

static int left_ms(const struct pgr_sys *sys, int64_t deadline)
{
	int64_t left;

	if (deadline == PGR_NO_DEADLINE)
		return -1;
	left = deadline - sys->mono_ms(sys);
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static unsigned socket_ready(const struct pgr_socket *s, unsigned want, short revents)
{
	short broken = revents & (POLLERR | POLLHUP | POLLNVAL); /* the read or write will say how */
	unsigned got = 0;

	if ((want & PGR_WAIT_READ) && ((revents & s->read_on) || broken))
		got |= PGR_WAIT_READ;
	if ((want & PGR_WAIT_WRITE) && ((revents & s->write_on) || broken))
		got |= PGR_WAIT_WRITE;
	return got;
}

int pgr_socket_wait(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline, unsigned *got,
		    struct pgr_err *err)
{
	struct pgr_socket *s = of(t);
	struct pollfd fds[3] = {
		{.fd = (want & (PGR_WAIT_READ | PGR_WAIT_WRITE)) ? s->fd : -1},
		{.fd = s->stop != NULL ? pgr_stop_fd(s->stop) : -1, .events = POLLIN},
		{.fd = wake_fd, .events = POLLIN},
	};

	if (want & PGR_WAIT_READ)
		fds[0].events |= s->read_on;
	if (want & PGR_WAIT_WRITE)
		fds[0].events |= s->write_on;
	*got = 0;
	if ((want & PGR_WAIT_READ) && s->ssl != NULL && !s->tls_dry && SSL_has_pending(s->ssl))
		*got = PGR_WAIT_READ;
	do {
		int n = s->sys->poll(s->sys, fds, 3, *got != 0 ? 0 : left_ms(s->sys, deadline));

		if (n < 0 && errno != EINTR)
			return pgr_err_sys(err, errno, "could not wait for data from server");
		if (s->stop != NULL && pgr_stop_check(s->stop, err) != PGR_OK)
			return PGR_ERR;
		if (n > 0)
			*got |= socket_ready(s, want, fds[0].revents) | (fds[2].revents != 0 ? PGR_WAIT_WAKE : 0);
		if (left_ms(s->sys, deadline) == 0)
			*got |= PGR_WAIT_TIMEOUT;
	} while (*got == 0);
	return PGR_OK;
}

/* One recv for many records instead of two for each; OpenSSL allocates its buffer anew with the new size. */
static void tune_tls(SSL *ssl)
{
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_set_default_read_buffer_len(ssl, TLS_BUFFER_BYTES);
	SSL_free_buffers(ssl);
	SSL_set_read_ahead(ssl, 1);
}

void pgr_socket_init(struct pgr_socket *s, const struct pgr_sys *sys, struct pgr_stop *stop, int fd, SSL *ssl)
{
	s->sys = sys;
	s->stop = stop;
	s->fd = fd;
	s->ssl = ssl;
	s->tls_dry = false;
	s->read_on = POLLIN;
	s->write_on = POLLOUT;
	if (ssl != NULL)
		tune_tls(ssl);
}
