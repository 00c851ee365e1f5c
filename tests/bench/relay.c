/*
 * relay: passes TCP connections on, as a slow, distant or faulty network would.
 *
 * It listens on 127.0.0.1 and prints its port.  What a client sends goes to the server and back:
 *
 *     shaping    a token bucket per connection and direction (--rate), one per direction over all connections
 *                (--link-rate); a bucket holds 20 ms worth, so the flow is even and a late wake-up costs nothing
 *     delay      every byte spends --delay ms on the way.  The way takes as many bytes as the rate puts on it, so
 *                that it is never the delay that limits a stream
 *     faults     --flip-byte N changes the Nth byte from the server, --cut-after N closes the connection behind it;
 *                on the first connection that gets so far, or on the first --times.  --when TEXT: only on connections
 *                on which the client sends this text, counted from there
 *
 * One thread, one loop around poll; nothing here may block but the connect to the server, which is near.
 * SIGTERM or SIGINT ends it; it then prints "connections=N from_server=BYTES to_server=BYTES".
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/pipe.h"

#define CONNS 256

struct options {
	uint16_t port;
	const char *connect;
	int64_t rate, link_rate; /* bytes a second; 0: no limit */
	int64_t delay;
};

struct conn {
	int client, server;
	struct pipe up, down; /* to the server, from the server */
};

struct relay {
	struct options opt;
	int listener, signals;
	struct conn *conns[CONNS];
	size_t nconns;
	struct bucket link_up, link_down;
	struct faults faults;
	int64_t accepted, from_server, to_server;
};

static void die(const char *what)
{
	fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts) != 0)
		die("clock_gettime");
	return (int64_t)ts.tv_sec * 1000 * MS + ts.tv_nsec;
}

/* ---- connections */

static void conn_free(struct conn *c)
{
	if (c == NULL)
		return;
	if (c->client >= 0)
		close(c->client);
	if (c->server >= 0)
		close(c->server);
	pipe_fini(&c->up);
	pipe_fini(&c->down);
	free(c);
}

static void no_waiting(int fd)
{
	int one = 1, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
		die("fcntl");
	/* Not for a Unix socket, which has nothing of the kind. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int connect_tcp(const char *target)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	const char *colon = strrchr(target, ':');
	char host[256];
	int fd;

	if (colon == NULL || (size_t)(colon - target) >= sizeof(host)) {
		errno = EINVAL;
		return -1;
	}
	memcpy(host, target, (size_t)(colon - target));
	host[colon - target] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
		errno = EHOSTUNREACH;
		return -1;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

static bool set_up(struct relay *r, struct conn *c)
{
	const struct options *o = &r->opt;
	int64_t now = now_ns();

	c->server = o->connect[0] == '/' ? connect_unix(o->connect) : connect_tcp(o->connect);
	if (c->server < 0) {
		fprintf(stderr, "relay: %s: %s\n", o->connect, strerror(errno));
		return false;
	}
	no_waiting(c->client);
	no_waiting(c->server);
	if (!pipe_init(&c->up, c->client, c->server, o->rate, o->delay, &r->link_up, NULL, now) ||
	    !pipe_init(&c->down, c->server, c->client, o->rate, o->delay, &r->link_down, &r->faults, now))
		return false;
	pipe_watch(&c->up, &c->down);
	return true;
}

/* Where there is no server the client is turned away. */
static void take_client(struct relay *r)
{
	int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
	struct conn *c;

	if (fd < 0)
		return;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		die("calloc");
	c->client = fd;
	c->server = -1;
	if (!set_up(r, c)) {
		conn_free(c);
		return;
	}
	r->conns[r->nconns++] = c;
	r->accepted++;
}

static void account(struct relay *r, const struct conn *c)
{
	r->from_server += c->down.passed;
	r->to_server += c->up.passed;
}

/* Everything that one connection can do now. */
static void conn_step(struct conn *c, const struct pollfd *client, const struct pollfd *server)
{
	const short readable = POLLIN | POLLHUP | POLLERR;
	int64_t now = now_ns();

	if (client->revents & readable)
		pipe_read(&c->up, now);
	if (server->revents & readable)
		pipe_read(&c->down, now);
	pipe_write(&c->up, now);
	pipe_write(&c->down, now);
}

static bool conn_over(const struct conn *c)
{
	return c->up.broken || c->down.broken || (c->up.shut && c->down.shut);
}

/* ---- the loop */

/* An entry without events is left out: poll reports a hang-up even to those who do not ask. */
static void fill_entry(struct pollfd *e, int fd, bool in, bool out)
{
	e->events = (short)((in ? POLLIN : 0) | (out ? POLLOUT : 0));
	e->fd = e->events != 0 ? fd : -1;
	e->revents = 0;
}

static int64_t fill_entries(struct relay *r, struct pollfd *fds, int64_t now)
{
	int64_t wake = NEVER;

	fill_entry(&fds[0], r->signals, true, false);
	fill_entry(&fds[1], r->listener, r->nconns < CONNS, false);
	for (size_t i = 0; i < r->nconns; i++) {
		struct conn *c = r->conns[i];
		bool read_up = pipe_wants_to_read(&c->up, now, &wake);
		bool read_down = pipe_wants_to_read(&c->down, now, &wake);
		bool write_up = pipe_wants_to_write(&c->up, now, &wake);
		bool write_down = pipe_wants_to_write(&c->down, now, &wake);

		fill_entry(&fds[2 + 2 * i], c->client, read_up, write_down);
		fill_entry(&fds[3 + 2 * i], c->server, read_down, write_up);
	}
	return wake;
}

static void wait_for_work(struct relay *r, struct pollfd *fds)
{
	int64_t now = now_ns(), wake = fill_entries(r, fds, now), left = wake > now ? wake - now : 0;
	struct timespec ts = {.tv_sec = left / (1000 * MS), .tv_nsec = left % (1000 * MS)};

	if (ppoll(fds, 2 + 2 * r->nconns, wake == NEVER ? NULL : &ts, NULL) < 0 && errno != EINTR)
		die("poll");
}

static void drop_finished(struct relay *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->nconns; i++) {
		struct conn *c = r->conns[i];

		if (conn_over(c)) {
			account(r, c);
			conn_free(c);
		} else {
			r->conns[kept++] = c;
		}
	}
	r->nconns = kept;
}

/* What the connections share is dealt out from another one in every turn. */
static void run(struct relay *r)
{
	struct pollfd fds[2 + 2 * CONNS];
	size_t turn = 0;

	for (;;) {
		size_t n = r->nconns;

		wait_for_work(r, fds);
		if (fds[0].revents != 0)
			return;
		for (size_t k = 0; k < n; k++) {
			size_t i = (turn + k) % n;

			conn_step(r->conns[i], &fds[2 + 2 * i], &fds[3 + 2 * i]);
		}
		turn++;
		drop_finished(r);
		if (fds[1].revents != 0)
			take_client(r);
	}
}

/* ---- start and end */

static void listen_on(struct relay *r)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(r->opt.port)};
	socklen_t len = sizeof(addr);
	int one = 1;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->listener < 0 || setsockopt(r->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(r->listener, (struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(r->listener, 64) != 0 ||
	    getsockname(r->listener, (struct sockaddr *)&addr, &len) != 0)
		die("listen");
	printf("%u\n", ntohs(addr.sin_port));
	fflush(stdout);
}

/* Before the port is printed, so that whoever knows the port may also send the signal. */
static void catch_signals(struct relay *r)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		die("sigprocmask");
	r->signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (r->signals < 0)
		die("signalfd");
}

static void end(struct relay *r)
{
	for (size_t i = 0; i < r->nconns; i++) {
		account(r, r->conns[i]);
		conn_free(r->conns[i]);
	}
	printf("connections=%" PRId64 " from_server=%" PRId64 " to_server=%" PRId64 "\n", r->accepted, r->from_server,
	       r->to_server);
	close(r->listener);
	close(r->signals);
}

static void usage(void)
{
	fputs("usage: relay [--listen PORT] --connect HOST:PORT|/SOCKET [--rate BYTES] [--link-rate BYTES]\n"
	      "             [--delay MS] [--flip-byte N] [--cut-after N] [--times N] [--when TEXT]\n",
	      stderr);
	exit(2);
}

static int64_t number(const char *text, int64_t most)
{
	char *rest;
	long long n;

	errno = 0;
	n = strtoll(text, &rest, 10);
	if (errno != 0 || rest == text || *rest != '\0' || n < 0 || n > most)
		usage();
	return n;
}

static const struct option long_options[] = {
	{"listen", required_argument, NULL, 'l'},    {"connect", required_argument, NULL, 'c'},
	{"rate", required_argument, NULL, 'r'},	     {"link-rate", required_argument, NULL, 'R'},
	{"delay", required_argument, NULL, 'd'},     {"flip-byte", required_argument, NULL, 'f'},
	{"cut-after", required_argument, NULL, 'x'}, {"times", required_argument, NULL, 't'},
	{"when", required_argument, NULL, 'w'},	     {NULL, 0, NULL, 0},
};

static void parse(struct options *o, struct faults *f, int argc, char **argv)
{
	const int64_t most = INT64_C(1) << 50;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 'l')
			o->port = (uint16_t)number(optarg, UINT16_MAX);
		else if (c == 'c')
			o->connect = optarg;
		else if (c == 'r')
			o->rate = number(optarg, most);
		else if (c == 'R')
			o->link_rate = number(optarg, most);
		else if (c == 'd')
			o->delay = number(optarg, 60000) * MS;
		else if (c == 'f')
			f->flip_byte = number(optarg, most);
		else if (c == 'x')
			f->cut_after = number(optarg, most);
		else if (c == 't')
			f->flips_left = f->cuts_left = number(optarg, most);
		else if (c == 'w' && optarg[0] != '\0')
			f->when = optarg;
		else
			usage();
	}
	if (optind < argc || o->connect == NULL)
		usage();
}

int main(int argc, char **argv)
{
	struct relay r = {.faults = {.flips_left = 1, .cuts_left = 1}};

	parse(&r.opt, &r.faults, argc, argv);
	r.link_up = r.link_down = (struct bucket){.rate = r.opt.link_rate, .filled = now_ns()};
	catch_signals(&r);
	listen_on(&r);
	run(&r);
	end(&r);
	return 0;
}
