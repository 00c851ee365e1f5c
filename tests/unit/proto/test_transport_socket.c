/* The byte stream on one end of a socket pair; the test holds the other end, and for TLS an engine that has no socket.
 */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "common/stop.h"
#include "common/sys.h"
#include "proto/transport_socket.h"
#include "tests/support/fault_sys.h"

struct fixture {
	struct pgr_socket s;
	struct pgr_fault_sys fault;
	int peer;
	SSL_CTX *ctx;
	SSL *client, *server; /* the server reads and writes memory; see pump */
	struct pgr_err err;
	unsigned got;
	size_t n;
	uint8_t mem[64 * 1024];
};

static void begin(struct fixture *f)
{
	int fd[2];

	memset(f, 0, sizeof(*f));
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	pgr_fault_sys_init(&f->fault, 0, 0);
	f->peer = fd[1];
	pgr_socket_init(&f->s, &f->fault.sys, NULL, fd[0], NULL);
}

static void hang_up(struct fixture *f)
{
	if (f->peer >= 0)
		close(f->peer);
	f->peer = -1;
}

static void end(struct fixture *f)
{
	hang_up(f);
	close(f->s.fd);
	SSL_free(f->client);
	SSL_free(f->server);
	SSL_CTX_free(f->ctx);
}

static int read_one(struct fixture *f, size_t cap)
{
	struct pgr_room room = {f->mem, cap};

	return pgr_socket_read(&f->s.t, &room, 1, &f->n, &f->err);
}

static int write_some(struct fixture *f, const void *p, size_t len)
{
	return pgr_socket_write(&f->s.t, p, len, &f->n, &f->err);
}

static int wait_for(struct fixture *f, unsigned want, int wake, int64_t ms)
{
	int64_t deadline = ms < 0 ? PGR_NO_DEADLINE : pgr_sys_real()->mono_ms(pgr_sys_real()) + ms;

	return pgr_socket_wait(&f->s.t, want, wake, deadline, &f->got, &f->err);
}

/* Waits without waiting: what is true now. */
static unsigned true_now(struct fixture *f, unsigned want)
{
	ck_assert_int_eq(wait_for(f, want, -1, 0), PGR_OK);
	return f->got & ~(unsigned)PGR_WAIT_TIMEOUT;
}

/* ---- plain ---- */

START_TEST(test_rooms)
{
	struct fixture f;
	char a[2], b[3], c[1], d[1], e[9] = "";
	struct pgr_room room[5] = {{a, 2}, {b, 3}, {c, 1}, {d, 1}, {e, 8}};

	begin(&f);
	ck_assert_int_eq(pgr_socket_read(&f.s.t, room, 5, &f.n, &f.err), PGR_MORE);
	ck_assert_int_eq(write(f.peer, "0123456789", 10), 10);
	ck_assert_int_eq(pgr_socket_read(&f.s.t, room, 5, &f.n, &f.err), PGR_OK);
	ck_assert_uint_eq(f.n, 7); /* four rooms at a time are enough for anybody */
	ck_assert(memcmp(a, "01", 2) == 0 && memcmp(b, "234", 3) == 0 && c[0] == '5' && d[0] == '6');
	ck_assert_int_eq(pgr_socket_read(&f.s.t, room + 4, 1, &f.n, &f.err), PGR_OK);
	ck_assert_str_eq(e, "789");
	hang_up(&f);
	ck_assert_int_eq(read_one(&f, 10), PGR_OK);
	ck_assert_uint_eq(f.n, 0);
	end(&f);
}
END_TEST

START_TEST(test_reset)
{
	struct fixture f;

	begin(&f);
	ck_assert_int_eq(write_some(&f, "never read", 10), PGR_OK);
	hang_up(&f);
	ck_assert_int_eq(read_one(&f, 10), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_int_eq(f.err.sys_errno, ECONNRESET);
	ck_assert_str_eq(f.err.msg, "could not receive data from server: Connection reset by peer");
	ck_assert_int_eq(write_some(&f, "x", 1), PGR_ERR); /* and no SIGPIPE */
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_int_eq(f.err.sys_errno, EPIPE);
	ck_assert_str_eq(f.err.msg, "could not send data to server: Broken pipe");
	end(&f);
}
END_TEST

START_TEST(test_full_socket)
{
	static const char block[10000];
	struct fixture f;
	size_t sent = 0;
	ssize_t got;
	int rc;

	begin(&f);
	while ((rc = write_some(&f, block, sizeof(block))) == PGR_OK)
		sent += f.n;
	ck_assert_int_eq(rc, PGR_MORE);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ | PGR_WAIT_WRITE), 0);
	while ((got = read(f.peer, f.mem, sizeof(f.mem))) > 0)
		sent -= (size_t)got;
	ck_assert_uint_eq(sent, 0);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ | PGR_WAIT_WRITE), PGR_WAIT_WRITE);
	end(&f);
}
END_TEST

/* A signal is not an error, in none of the calls. */
START_TEST(test_interrupted)
{
	struct fixture f;

	begin(&f);
	pgr_fault_sys_init(&f.fault, 1, EINTR);
	ck_assert_int_eq(write_some(&f, "x", 1), PGR_OK);
	ck_assert(f.fault.triggered);
	ck_assert_int_eq(write(f.peer, "abc", 3), 3);
	pgr_fault_sys_init(&f.fault, 1, EINTR);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, -1), PGR_OK);
	ck_assert(f.fault.triggered);
	pgr_fault_sys_init(&f.fault, 1, EINTR);
	ck_assert_int_eq(read_one(&f, 10), PGR_OK);
	ck_assert(f.fault.triggered);
	ck_assert_uint_eq(f.n, 3);
	end(&f);
}
END_TEST

START_TEST(test_calls_fail)
{
	struct fixture f;

	begin(&f);
	pgr_fault_sys_init(&f.fault, 1, ETIMEDOUT);
	ck_assert_int_eq(read_one(&f, 10), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_int_eq(f.err.sys_errno, ETIMEDOUT);
	pgr_fault_sys_init(&f.fault, 1, ETIMEDOUT);
	ck_assert_int_eq(write_some(&f, "x", 1), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	pgr_fault_sys_init(&f.fault, 1, ENOMEM);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, -1), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(f.err.sys_errno, ENOMEM);
	end(&f);
}
END_TEST

/* ---- waiting ---- */

START_TEST(test_wait_reports_all)
{
	int wake = eventfd(1, EFD_NONBLOCK);
	struct fixture f;

	begin(&f);
	ck_assert_int_eq(write(f.peer, "x", 1), 1);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ | PGR_WAIT_WRITE, wake, 0), PGR_OK);
	ck_assert_uint_eq(f.got, PGR_WAIT_READ | PGR_WAIT_WRITE | PGR_WAIT_WAKE | PGR_WAIT_TIMEOUT);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, -1), PGR_OK);
	ck_assert_uint_eq(f.got, PGR_WAIT_READ);
	ck_assert_int_eq(wait_for(&f, 0, wake, -1), PGR_OK); /* nobody asks about the socket */
	ck_assert_uint_eq(f.got, PGR_WAIT_WAKE);
	close(wake);
	end(&f);
}
END_TEST

START_TEST(test_wait_ends)
{
	struct fixture f;

	begin(&f);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, 20), PGR_OK);
	ck_assert_uint_eq(f.got, PGR_WAIT_TIMEOUT);
	hang_up(&f);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), PGR_WAIT_READ);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_WRITE), PGR_WAIT_WRITE);
	/* a dead socket that nobody asks about is no event, and does not make the wait turn round and round */
	pgr_fault_sys_init(&f.fault, 0, 0);
	ck_assert_int_eq(wait_for(&f, 0, -1, 20), PGR_OK);
	ck_assert_uint_eq(f.got, PGR_WAIT_TIMEOUT);
	ck_assert_uint_le(f.fault.calls, 2);
	end(&f);
}
END_TEST

START_TEST(test_stop)
{
	struct pgr_stop *stop;
	struct pgr_err why;
	struct fixture f;

	begin(&f);
	ck_assert_int_eq(pgr_stop_new(&stop, &why), PGR_OK);
	f.s.stop = stop;
	ck_assert_int_eq(write(f.peer, "x", 1), 1);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, -1), PGR_OK);
	pgr_err_set(&why, PGR_E_SYSTEM, "disk full");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(wait_for(&f, PGR_WAIT_READ, -1, -1), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(f.err.msg, "disk full");
	pgr_stop_free(stop);
	end(&f);
}
END_TEST

/* ---- TLS ---- */

/* Hands over what the server's engine has to send: at most `most` bytes of it. */
static size_t pump_out(struct fixture *f, size_t most)
{
	char buf[1024];
	size_t moved = 0;

	while (moved < most && BIO_pending(SSL_get_wbio(f->server)) > 0) {
		size_t want = most - moved < sizeof(buf) ? most - moved : sizeof(buf);
		int n = BIO_read(SSL_get_wbio(f->server), buf, (int)want);

		if (n <= 0 || write(f->peer, buf, (size_t)n) != n)
			ck_abort_msg("the socket of the test is full");
		moved += (size_t)n;
	}
	return moved;
}

static void pump_in(struct fixture *f)
{
	char buf[1024];
	ssize_t n;

	while ((n = read(f->peer, buf, sizeof(buf))) > 0)
		if (BIO_write(SSL_get_rbio(f->server), buf, (int)n) != n)
			ck_abort_msg("out of memory");
}

/* Ciphers without certificates will do: who the server is was libpq's question. */
static void begin_tls(struct fixture *f)
{
	int fd;

	begin(f);
	signal(SIGPIPE, SIG_IGN); /* libpq's BIO raises none, the one of OpenSSL does */
	fd = f->s.fd;
	f->ctx = SSL_CTX_new(TLS_method());
	ck_assert_int_eq(SSL_CTX_set_max_proto_version(f->ctx, TLS1_2_VERSION), 1);
	ck_assert_int_eq(SSL_CTX_set_cipher_list(f->ctx, "aNULL@SECLEVEL=0"), 1);
	SSL_CTX_set_dh_auto(f->ctx, 1);
	f->client = SSL_new(f->ctx);
	f->server = SSL_new(f->ctx);
	ck_assert_int_eq(SSL_set_fd(f->client, fd), 1);
	SSL_set_bio(f->server, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(f->client);
	SSL_set_accept_state(f->server);
	for (int i = 0; i < 10 && !(SSL_is_init_finished(f->client) && SSL_is_init_finished(f->server)); i++) {
		SSL_do_handshake(f->client);
		pump_in(f);
		SSL_do_handshake(f->server);
		pump_out(f, SIZE_MAX);
	}
	ck_assert(SSL_is_init_finished(f->client) && SSL_is_init_finished(f->server));
	pgr_socket_init(&f->s, &f->fault.sys, NULL, fd, f->client);
}

/* The server sends n bytes, 0 1 2 ..., in records of at most 1000. */
static void server_writes(struct fixture *f, size_t n)
{
	uint8_t record[1000];

	for (size_t at = 0; at < n; at += sizeof(record)) {
		size_t k = n - at < sizeof(record) ? n - at : sizeof(record);

		for (size_t i = 0; i < k; i++)
			record[i] = (uint8_t)(at + i);
		ck_assert_int_eq(SSL_write(f->server, record, (int)k), (int)k);
	}
}

static void check_bytes(const uint8_t *p, size_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != (uint8_t)(at + i))
			ck_abort_msg("byte %zu is wrong", at + i);
}

START_TEST(test_tls_rooms)
{
	struct fixture f;
	uint8_t a[1500], b[700], c[5000];
	struct pgr_room room[3] = {{a, sizeof(a)}, {b, sizeof(b)}, {c, sizeof(c)}};

	begin_tls(&f);
	ck_assert_int_eq(read_one(&f, 10), PGR_MORE);
	server_writes(&f, 4321);
	pump_out(&f, SIZE_MAX);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), PGR_WAIT_READ);
	ck_assert_int_eq(pgr_socket_read(&f.s.t, room, 3, &f.n, &f.err), PGR_OK);
	ck_assert_uint_eq(f.n, 4321); /* in one call, though it was five records */
	check_bytes(a, 0, sizeof(a));
	check_bytes(b, sizeof(a), sizeof(b));
	check_bytes(c, sizeof(a) + sizeof(b), 4321 - sizeof(a) - sizeof(b));
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), 0);
	end(&f);
}
END_TEST

/* What OpenSSL holds is ready to be read although the socket is empty. */
START_TEST(test_tls_pending)
{
	struct fixture f;
	size_t at = 0;

	begin_tls(&f);
	server_writes(&f, 5000);
	pump_out(&f, SIZE_MAX);
	while (at < 5000) {
		ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), PGR_WAIT_READ);
		ck_assert_int_eq(read_one(&f, 700), PGR_OK);
		check_bytes(f.mem, at, f.n);
		at += f.n;
	}
	ck_assert_uint_eq(at, 5000);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), 0);
	ck_assert_int_eq(read_one(&f, 700), PGR_MORE);
	end(&f);
}
END_TEST

/* A part of a record is nothing to read, wherever it is cut; a wait that said so would turn for ever. */
START_TEST(test_tls_part_of_a_record)
{
	struct fixture f;
	size_t cut = (size_t)_i;

	begin_tls(&f);
	server_writes(&f, 500);
	ck_assert_uint_eq(pump_out(&f, cut), cut);
	ck_assert_int_eq(read_one(&f, 600), PGR_MORE);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), 0);
	pump_out(&f, SIZE_MAX);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), PGR_WAIT_READ);
	ck_assert_int_eq(read_one(&f, 600), PGR_OK);
	ck_assert_uint_eq(f.n, 500);
	check_bytes(f.mem, 0, 500);
	end(&f);
}
END_TEST

/* A whole record is not held back because a part of the next one came with it. */
START_TEST(test_tls_record_and_a_part)
{
	struct fixture f;

	begin_tls(&f);
	server_writes(&f, 1500);
	pump_out(&f, 1100);
	ck_assert_int_eq(read_one(&f, sizeof(f.mem)), PGR_OK);
	ck_assert_uint_eq(f.n, 1000);
	ck_assert_uint_eq(true_now(&f, PGR_WAIT_READ), 0);
	pump_out(&f, SIZE_MAX);
	ck_assert_int_eq(read_one(&f, sizeof(f.mem)), PGR_OK);
	ck_assert_uint_eq(f.n, 500);
	check_bytes(f.mem, 1000, 500);
	end(&f);
}
END_TEST

/* With and without a goodbye of TLS, and before the end what came before it. */
START_TEST(test_tls_end)
{
	struct fixture f;

	begin_tls(&f);
	server_writes(&f, 1500);
	if (_i == 0)
		SSL_shutdown(f.server);
	pump_out(&f, SIZE_MAX);
	hang_up(&f);
	ck_assert_int_eq(read_one(&f, sizeof(f.mem)), PGR_OK);
	ck_assert_uint_eq(f.n, 1500);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(read_one(&f, sizeof(f.mem)), PGR_OK);
		ck_assert_uint_eq(f.n, 0);
	}
	ck_assert_int_eq(write_some(&f, "x", 1), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	end(&f);
}
END_TEST

START_TEST(test_tls_garbage)
{
	static const char garbage[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	struct fixture f;

	begin_tls(&f);
	ck_assert_int_eq(write(f.peer, garbage, sizeof(garbage)), (int)sizeof(garbage));
	ck_assert_int_eq(read_one(&f, 600), PGR_ERR);
	ck_assert_int_eq(f.err.cls, PGR_E_NETWORK);
	ck_assert_msg(strstr(f.err.msg, "could not receive data from server: SSL error: ") == f.err.msg, "%s",
		      f.err.msg);
	end(&f);
}
END_TEST

static size_t server_reads(struct fixture *f, size_t at)
{
	size_t n = 0;
	int k;

	pump_in(f);
	while ((k = SSL_read(f->server, f->mem, (int)sizeof(f->mem))) > 0) {
		check_bytes(f->mem, at + n, (size_t)k);
		n += (size_t)k;
	}
	return n;
}

/* The socket fills up; the write goes on from where it was, from memory that has moved and grown meanwhile. */
START_TEST(test_tls_full_socket)
{
	size_t len = 4 << 20, at = 0, seen = 0;
	uint8_t *all = malloc(len), *before = NULL;
	struct fixture f;
	int turns = 0;

	begin_tls(&f);
	for (size_t i = 0; i < len; i++)
		all[i] = (uint8_t)i;
	while (at < len) {
		uint8_t *copy = malloc(len - at);
		int rc;

		memcpy(copy, all + at, len - at);
		rc = write_some(&f, copy, turns == 0 ? len / 2 : len - at);
		ck_assert_int_ne(rc, PGR_ERR);
		if (rc == PGR_OK)
			at += f.n;
		if (rc == PGR_MORE) {
			ck_assert_uint_eq(true_now(&f, PGR_WAIT_WRITE), 0);
			seen += server_reads(&f, seen);
			ck_assert_uint_eq(true_now(&f, PGR_WAIT_WRITE), PGR_WAIT_WRITE);
			turns++;
		}
		free(before); /* only now, so that the next one lies elsewhere */
		before = copy;
	}
	free(before);
	seen += server_reads(&f, seen);
	ck_assert_uint_eq(seen, len);
	ck_assert_int_gt(turns, 1);
	free(all);
	end(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("transport_socket");
	TCase *plain = tcase_create("plain"), *tls = tcase_create("tls");
	SRunner *sr;
	int failed;

	tcase_add_test(plain, test_rooms);
	tcase_add_test(plain, test_reset);
	tcase_add_test(plain, test_full_socket);
	tcase_add_test(plain, test_interrupted);
	tcase_add_test(plain, test_calls_fail);
	tcase_add_test(plain, test_wait_reports_all);
	tcase_add_test(plain, test_wait_ends);
	tcase_add_test(plain, test_stop);
	suite_add_tcase(s, plain);
	tcase_add_test(tls, test_tls_rooms);
	tcase_add_test(tls, test_tls_pending);
	tcase_add_loop_test(tls, test_tls_part_of_a_record, 1, 500);
	tcase_add_test(tls, test_tls_record_and_a_part);
	tcase_add_loop_test(tls, test_tls_end, 0, 2);
	tcase_add_test(tls, test_tls_garbage);
	tcase_add_test(tls, test_tls_full_socket);
	suite_add_tcase(s, tls);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
