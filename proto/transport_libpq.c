/*
 * libpq opens and authenticates; then this file takes socket and SSL object over and libpq is not called again but for
 * a cancel request and the end.  PostgreSQL documentation: "Database Connection Control Functions" (PQconnectPoll).
 */
#include "proto/transport.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libpq-fe.h>
#include <openssl/ssl.h>

#include "common/buf.h"
#include "common/num.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/transport_socket.h"

#define INVALID_PASSWORD "28P01"

#define MIN_CONNECT_TIMEOUT_S 2 /* as libpq: rounding would make 1 s fail at random */

static bool is_set(const char *s)
{
	return s != NULL && s[0] != '\0';
}

static const char *or_empty(const char *s)
{
	return s != NULL ? s : "";
}

/* ---- lists of settings ---- */

static void wipe(char *s)
{
	if (s != NULL)
		explicit_bzero(s, strlen(s));
	free(s);
}

void pgr_settings_free(struct pgr_setting *list)
{
	for (struct pgr_setting *s = list; s != NULL && s->keyword != NULL; s++) {
		free(s->keyword);
		wipe(s->value);
	}
	free(list);
}

void pgr_conn_params_fini(struct pgr_conn_params *p)
{
	wipe(p->password);
	p->password = NULL;
	p->password_asked = false;
}

/* libpq's copy of a password must not stay behind in freed memory either. */
static void options_free(PQconninfoOption *opts)
{
	for (PQconninfoOption *o = opts; o != NULL && o->keyword != NULL; o++)
		if (o->val != NULL && strchr(o->dispchar, '*') != NULL)
			explicit_bzero(o->val, strlen(o->val));
	PQconninfoFree(opts);
}

static const char *setting(const struct pgr_setting *list, const char *keyword)
{
	for (; list != NULL && list->keyword != NULL; list++)
		if (strcmp(list->keyword, keyword) == 0)
			return list->value;
	return NULL;
}

/* Appends to a list that has room for it and for its end; the list is zeroed memory. */
static int setting_add(struct pgr_setting *list, const char *keyword, const char *value, struct pgr_err *err)
{
	while (list->keyword != NULL)
		list++;
	list->value = strdup(value);
	if (list->value == NULL)
		return pgr_err_nomem(err);
	list->keyword = strdup(keyword);
	if (list->keyword == NULL) {
		wipe(list->value);
		list->value = NULL;
		return pgr_err_nomem(err);
	}
	return PGR_OK;
}

/* ---- opening: what libpq is told ---- */

/*
 * One run of pgr_transport_open.  Later keywords win over earlier ones (PQconnectdbParams), so that the order of kw[]
 * is what comes from us, from -d, from the other options, the password, and the hosts that are left to try.
 */
struct opening {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_conn_params *params;
	enum pgr_conn_mode mode;

	PQconninfoOption *conninfo; /* -d, parsed; NULL */
	char *dbname;		    /* that the user named; NULL */
	const char **kw, **val;
	size_t n;
	size_t user_from; /* kw[user_from..user_to) were set by the user */
	size_t user_to;

	PGconn *conn;
	bool needs_password;
	struct pgr_setting *settings; /* that somebody set, of the first attempt */
	int64_t timeout_ms;	      /* connect_timeout for an address; 0: none */
	int64_t deadline;	      /* of the address under way */
	char address[768];
	const char *host, *hostaddr, *port; /* what is left of the lists to try after a timeout; NULL: all */

	struct pgr_buf said; /* why addresses failed that have timed out */
	size_t heard;	     /* bytes of PQerrorMessage that need not be said any more */
};

static void tell(struct opening *o, const char *keyword, const char *value)
{
	if (!is_set(value))
		return;
	o->kw[o->n] = keyword;
	o->val[o->n++] = value;
}

static int parse_conninfo(struct opening *o, struct pgr_err *err)
{
	char *why = NULL;

	if (o->params->conninfo == NULL)
		return PGR_OK;
	o->conninfo = PQconninfoParse(o->params->conninfo, &why);
	if (o->conninfo != NULL)
		return PGR_OK;
	if (why == NULL)
		return pgr_err_nomem(err);
	pgr_err_set(err, PGR_E_USAGE, "%.*s", (int)strcspn(why, "\n"), why);
	PQfreemem(why);
	return PGR_ERR;
}

static const PQconninfoOption *option(const PQconninfoOption *opts, const char *keyword)
{
	for (; opts != NULL && opts->keyword != NULL; opts++)
		if (strcmp(opts->keyword, keyword) == 0)
			return opts;
	return NULL;
}

/* A database that the user named: in -d, in the environment, or in PGSERVICE's entry. */
static int find_dbname(struct opening *o, struct pgr_err *err)
{
	const PQconninfoOption *opt = option(o->conninfo, "dbname");
	PQconninfoOption *defaults = NULL;
	int rc = PGR_OK;

	if (opt == NULL || !is_set(opt->val)) {
		defaults = PQconndefaults();
		opt = option(defaults, "dbname");
	}
	if (opt != NULL && is_set(opt->val)) {
		o->dbname = strdup(opt->val);
		rc = o->dbname != NULL ? PGR_OK : pgr_err_nomem(err);
	}
	options_free(defaults);
	return rc;
}

/* As GetConnection of src/bin/pg_basebackup/streamutil.c builds them, so that both find the same server and password.
 */
static int build_keywords(struct opening *o, struct pgr_err *err)
{
	size_t most = 16;

	for (const PQconninfoOption *c = o->conninfo; c != NULL && c->keyword != NULL; c++)
		most++;
	o->kw = calloc(most, sizeof(*o->kw));
	o->val = calloc(most, sizeof(*o->val));
	if (o->kw == NULL || o->val == NULL)
		return pgr_err_nomem(err);

	tell(o, "fallback_application_name", o->params->progname);
	if (o->mode == PGR_CONN_PHYSICAL) {
		tell(o, "dbname", "replication");
		tell(o, "replication", "true");
	} else if (o->dbname == NULL) {
		tell(o, "dbname", "postgres"); /* a role for replication seldom has a database of its name */
	}
	o->user_from = o->n;
	for (const PQconninfoOption *c = o->conninfo; c != NULL && c->keyword != NULL; c++)
		if (strcmp(c->keyword, "replication") != 0)
			tell(o, c->keyword, c->val);
	tell(o, "host", o->params->host);
	tell(o, "user", o->params->user);
	tell(o, "port", o->params->port);
	o->user_to = o->n;
	return PGR_OK;
}

static bool user_told(const struct opening *o, const char *keyword)
{
	for (size_t i = o->user_from; i < o->user_to; i++)
		if (strcmp(o->kw[i], keyword) == 0)
			return true;
	return strcmp(keyword, "password") == 0 && is_set(o->params->password);
}

/* Whether somebody set an option that PQconninfo reports; what differs from the compiled default came from a service.
 */
static bool somebody_set(const struct opening *o, const PQconninfoOption *opt)
{
	static const char *const never[] = {"replication", "fallback_application_name", "service", "servicefile",
					    "dbname"};
	size_t len = strlen(or_empty(opt->val));

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (strcmp(opt->keyword, never[i]) == 0)
			return false;
	if (len == 0)
		return false;
	if (strcmp(opt->keyword, "user") == 0 || user_told(o, opt->keyword))
		return true;
	if (opt->envvar != NULL && is_set(getenv(opt->envvar)))
		return true;
	/* libpq fills in the one in the home directory */
	if (strcmp(opt->keyword, "passfile") == 0 && len >= 8 && strcmp(opt->val + len - 8, "/.pgpass") == 0)
		return false;
	return strcmp(opt->val, or_empty(opt->compiled)) != 0;
}

static int fill_settings(struct opening *o, const PQconninfoOption *opts, struct pgr_err *err)
{
	size_t most = 2; /* dbname and the end */

	for (const PQconninfoOption *c = opts; c->keyword != NULL; c++)
		most++;
	o->settings = calloc(most, sizeof(*o->settings));
	if (o->settings == NULL)
		return pgr_err_nomem(err);
	for (const PQconninfoOption *c = opts; c->keyword != NULL; c++)
		if (somebody_set(o, c) && setting_add(o->settings, c->keyword, c->val, err) != PGR_OK)
			return PGR_ERR;
	if (o->dbname != NULL)
		return setting_add(o->settings, "dbname", o->dbname, err);
	return PGR_OK;
}

/* libpq leaves connect_timeout to whoever polls. */
static int read_timeout(struct opening *o, struct pgr_err *err)
{
	const char *text = setting(o->settings, "connect_timeout");
	int64_t s = 0;

	if (text == NULL)
		return PGR_OK;
	if (!pgr_num_i64(text, strlen(text), &s) || s < INT_MIN || s > INT_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "invalid integer value \"%s\" for connection option \"%s\"", text,
				   "connect_timeout");
	if (s > 0)
		o->timeout_ms = 1000 * (s < MIN_CONNECT_TIMEOUT_S ? MIN_CONNECT_TIMEOUT_S : s);
	return PGR_OK;
}

/* What libpq made of keywords, service file and environment, of the first attempt: later ones may name fewer hosts. */
static int learn_settings(struct opening *o, struct pgr_err *err)
{
	if (o->settings != NULL)
		return PGR_OK;

	PQconninfoOption *opts = PQconninfo(o->conn);
	int rc = opts != NULL ? fill_settings(o, opts, err) : pgr_err_nomem(err);

	options_free(opts);
	return rc == PGR_OK ? read_timeout(o, err) : rc;
}

/* ---- opening: the attempt ---- */

/* Takes over what libpq said since the last time. */
static int hear(struct opening *o, struct pgr_err *err)
{
	const char *text = PQerrorMessage(o->conn);
	size_t len = strlen(text);
	size_t from = o->heard < len ? o->heard : len;

	o->heard = len;
	return pgr_buf_puts(&o->said, text + from, err);
}

/* The same words as libpq has when it waits itself: its text so far ends with 'connection to server at "..." failed: '.
 */
static int note_timeout(struct opening *o, struct pgr_err *err)
{
	size_t before = o->said.len;

	if (hear(o, err) != PGR_OK)
		return PGR_ERR;
	if (o->said.len == before && /* before libpq 14 */
	    pgr_buf_printf(&o->said, err, "connection to server at \"%s\", port %s failed: ", or_empty(PQhost(o->conn)),
			   or_empty(PQport(o->conn))) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(&o->said, "timeout expired\n", err);
}

/*
 * Another address, with its own time.  The reset connection that we made ourselves is not worth telling: one line, and
 * libpq's indented guess after it.
 */
static void forget_address(struct opening *o)
{
	const char *text = PQerrorMessage(o->conn);
	size_t len = strlen(text);
	size_t at = o->heard < len ? o->heard : len;

	do {
		at += strcspn(text + at, "\n");
		at += text[at] == '\n';
	} while (text[at] == '\t');
	o->heard = at;
	o->address[0] = '\0';
}

/* Where "XXXXX: " stands behind "FATAL:  " in a line; NULL. */
static char *find_sqlstate(char *line, const char *end)
{
	for (char *c = line; end - c >= 10; c++) {
		if (memcmp(c, ":  ", 3) != 0 || memcmp(c + 8, ": ", 2) != 0)
			continue;
		if (strspn(c + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
			return c + 3;
	}
	return NULL;
}

/*
 * libpq tells the SQLSTATE of a refusal only in verbose messages (pqBuildErrorMessage3 in fe-protocol3.c), which also
 * say where in the server's source it was made.  Takes out of a text what makes them verbose; the last SQLSTATE counts.
 */
static void take_sqlstate(char *text, char sqlstate[6])
{
	static const char where[] = "LOCATION:  ";
	char *to = text;

	for (char *line = text, *end; *line != '\0'; line = end) {
		char *state;

		end = line + strcspn(line, "\n");
		end += *end == '\n';
		if (strncmp(line, where, sizeof(where) - 1) == 0)
			continue;
		state = find_sqlstate(line, end);
		if (state != NULL) {
			memcpy(sqlstate, state, 5);
			memmove(state, state + 7, strlen(state + 7) + 1);
			end -= 7;
		}
		memmove(to, line, (size_t)(end - line));
		to += end - line;
	}
	while (to > text && to[-1] == '\n')
		to--;
	*to = '\0';
}

static int connect_failed(struct opening *o, struct pgr_err *err)
{
	char sqlstate[6] = "";
	char *text;

	if (hear(o, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_str(&o->said) == NULL)
		return pgr_err_nomem(err);
	text = (char *)o->said.data;
	take_sqlstate(text, sqlstate);
	pgr_err_set(err, PGR_E_CONNECT, "%s", is_set(text) ? text : "could not connect to server");
	memcpy(err->sqlstate, sqlstate, sizeof(sqlstate));
	return PGR_ERR;
}

/* connect_timeout is for each address; an address has no number in libpq's interface, but a text. */
static void start_clock(struct opening *o)
{
	char address[sizeof(o->address)];

	snprintf(address, sizeof(address), "%.255s %.255s %.63s", or_empty(PQhost(o->conn)),
		 or_empty(PQhostaddr(o->conn)), or_empty(PQport(o->conn)));
	if (o->timeout_ms == 0 || strcmp(address, o->address) == 0)
		return;
	strcpy(o->address, address);
	o->deadline = o->sys->mono_ms(o->sys) + o->timeout_ms;
}

/* PGR_OK: the socket (another one after each PQconnectPoll) is ready; PGR_MORE: the time of this address is over. */
static int wait_for_libpq(struct opening *o, PostgresPollingStatusType want, struct pgr_err *err)
{
	struct pgr_socket s = {0};
	unsigned got;

	pgr_socket_init(&s, o->sys, o->stop, PQsocket(o->conn), NULL);
	if (pgr_socket_wait(&s.t, want == PGRES_POLLING_READING ? PGR_WAIT_READ : PGR_WAIT_WRITE, -1, o->deadline, &got,
			    err) != PGR_OK)
		return PGR_ERR;
	return got & (PGR_WAIT_READ | PGR_WAIT_WRITE) ? PGR_OK : PGR_MORE;
}

/*
 * PGR_OK: connected.  PGR_MORE: this host did not answer in time.  A connect(2) that hangs is ended from our side, upon
 * which libpq goes on to its next address by itself; in all later states it would take that for a failure.
 */
static int poll_libpq(struct opening *o, struct pgr_err *err)
{
	PostgresPollingStatusType want = PGRES_POLLING_WRITING;

	while (want == PGRES_POLLING_READING || want == PGRES_POLLING_WRITING) {
		bool hung = false;

		start_clock(o);

		int rc = wait_for_libpq(o, want, err);

		if (rc == PGR_ERR || (rc == PGR_MORE && note_timeout(o, err) != PGR_OK))
			return PGR_ERR;
		if (rc == PGR_MORE) {
			hung = PQstatus(o->conn) == CONNECTION_STARTED;
			if (!hung || shutdown(PQsocket(o->conn), SHUT_RDWR) != 0)
				return PGR_MORE;
		}
		want = PQconnectPoll(o->conn);
		if (hung)
			forget_address(o);
	}
	return want == PGRES_POLLING_OK ? PGR_OK : connect_failed(o, err);
}

/* What follows the first n elements of a comma-separated list; NULL: nothing. */
static const char *list_skip(const char *list, unsigned n)
{
	for (; list != NULL && n > 0; n--) {
		list = strchr(list, ',');
		list = list != NULL ? list + 1 : NULL;
	}
	return list;
}

/* Whether element i of a list is `text`; a list of one stands for all, an empty element for anything. */
static bool element_is(const char *list, unsigned i, const char *text)
{
	const char *e = list != NULL && strchr(list, ',') == NULL ? list : list_skip(list, i);
	size_t len = e != NULL ? strcspn(e, ",") : 0;

	return len == 0 || (len == strlen(text) && memcmp(e, text, len) == 0);
}

/*
 * After a host that took the connection and then said nothing: leaves the hosts after it to the next attempt.  False
 * when there are none.
 */
static bool next_host(struct opening *o)
{
	const char *host = or_empty(PQhost(o->conn));
	const char *port = or_empty(PQport(o->conn));
	unsigned i = 0;

	if (o->host == NULL && o->hostaddr == NULL) {
		o->host = setting(o->settings, "host");
		o->hostaddr = setting(o->settings, "hostaddr");
		o->port = setting(o->settings, "port");
	}

	const char *names = o->host != NULL ? o->host : o->hostaddr; /* what PQhost tells */

	while (list_skip(names, i) != NULL && !(element_is(names, i, host) && element_is(o->port, i, port)))
		i++;
	o->host = list_skip(o->host, i + 1);
	o->hostaddr = list_skip(o->hostaddr, i + 1);
	if (o->port != NULL && strchr(o->port, ',') != NULL)
		o->port = list_skip(o->port, i + 1);
	return is_set(o->host) || is_set(o->hostaddr);
}

/* Libraries do not print; the server's notices before the take-over have nobody to hear them. */
static void drop_notice(void *arg, const char *text)
{
	(void)arg;
	(void)text;
}

static int start_libpq(struct opening *o, struct pgr_err *err)
{
	size_t n = o->n;

	tell(o, "password", o->params->password);
	tell(o, "host", o->host);
	tell(o, "hostaddr", o->hostaddr);
	tell(o, "port", o->port);
	o->kw[o->n] = NULL;
	o->n = n;
	o->heard = 0;
	o->address[0] = '\0';
	o->deadline = PGR_NO_DEADLINE;
	o->conn = PQconnectStartParams(o->kw, o->val, 0);
	if (o->conn == NULL)
		return pgr_err_nomem(err);
	PQsetNoticeProcessor(o->conn, drop_notice, NULL);
	PQsetErrorVerbosity(o->conn, PQERRORS_VERBOSE); /* see take_sqlstate */
	if (PQstatus(o->conn) == CONNECTION_BAD)
		return connect_failed(o, err);
	return learn_settings(o, err);
}

/* PGR_MORE: not with this host, but there are others. */
static int attempt(struct opening *o, struct pgr_err *err)
{
	int rc = start_libpq(o, err);

	if (rc == PGR_OK)
		rc = poll_libpq(o, err);
	if (rc == PGR_MORE && !next_host(o))
		rc = connect_failed(o, err);
	if (rc != PGR_OK) {
		o->needs_password = o->conn != NULL && PQconnectionNeedsPassword(o->conn) != 0;
		if (o->needs_password && err->cls == PGR_E_CONNECT)
			memcpy(err->sqlstate, INVALID_PASSWORD, sizeof(INVALID_PASSWORD)); /* libpq's own refusal */
		PQfinish(o->conn);
		o->conn = NULL;
	}
	return rc;
}

static int connect_hosts(struct opening *o, struct pgr_err *err)
{
	int rc;

	o->host = o->hostaddr = o->port = NULL;
	o->said.len = 0;
	pgr_settings_free(o->settings);
	o->settings = NULL;
	do
		rc = attempt(o, err);
	while (rc == PGR_MORE);
	return rc;
}

static bool may_ask(const struct pgr_conn_params *p)
{
	return p->password_mode != PGR_PASSWORD_NEVER && !p->password_asked && p->ask_password != NULL;
}

static int ask(struct pgr_conn_params *p, struct pgr_err *err)
{
	char *password = NULL;

	if (p->ask_password(p->ask_arg, &password, err) != PGR_OK)
		return PGR_ERR;
	wipe(p->password);
	p->password = password;
	p->password_asked = true;
	return PGR_OK;
}

static int connect_with_password(struct opening *o, struct pgr_err *err)
{
	if (o->params->password_mode == PGR_PASSWORD_ALWAYS && may_ask(o->params) && ask(o->params, err) != PGR_OK)
		return PGR_ERR;
	if (connect_hosts(o, err) == PGR_OK)
		return PGR_OK;
	if (!o->needs_password || !may_ask(o->params))
		return PGR_ERR;
	return ask(o->params, err) == PGR_OK ? connect_hosts(o, err) : PGR_ERR;
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

static void opening_fini(struct opening *o)
{
	if (o->conn != NULL)
		PQfinish(o->conn);
	pgr_settings_free(o->settings);
	pgr_buf_fini(&o->said);
	free(o->kw);
	free(o->val);
	free(o->dbname);
	options_free(o->conninfo);
}

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
	const char *on = setting(l->settings, "keepalives");
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);

	if (on != NULL && strcmp(on, "0") == 0)
		return;
	if (getsockname(l->s.fd, (struct sockaddr *)&addr, &len) != 0 || addr.ss_family == AF_UNIX)
		return;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (setting(l->settings, ours[i].keyword) == NULL)
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

/* From here on nothing is asked of libpq: it may hold bytes that nobody could give back. */
static int take_over(struct pgr_transport **out, struct opening *o, struct pgr_err *err)
{
	struct libpq_transport *l;
	struct pgr_transport *t;
	SSL *ssl;

	if (find_tls(o->conn, &ssl, err) != PGR_OK)
		return PGR_ERR;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return pgr_err_nomem(err);
	pgr_socket_init(&l->s, o->sys, o->stop, PQsocket(o->conn), ssl);
	t = &l->s.t;
	t->ops = &libpq_ops;
	t->server_version = PQserverVersion(o->conn);
	t->backend_pid = PQbackendPID(o->conn);
	snprintf(t->server_host, sizeof(t->server_host), "%s", or_empty(PQhost(o->conn)));
	snprintf(t->server_port, sizeof(t->server_port), "%s", or_empty(PQport(o->conn)));
	t->server_is_local = is_local(l->s.fd);
	l->conn = o->conn;
	l->settings = o->settings;
	o->conn = NULL;
	o->settings = NULL;
	tune_keepalives(l);
	*out = t;
	return PGR_OK;
}

int pgr_transport_open(struct pgr_transport **out, const struct pgr_sys *sys, struct pgr_stop *stop,
		       struct pgr_conn_params *params, enum pgr_conn_mode mode, struct pgr_err *err)
{
	struct opening o = {.sys = sys, .stop = stop, .params = params, .mode = mode};
	int rc;

	*out = NULL;
	rc = parse_conninfo(&o, err);
	if (rc == PGR_OK)
		rc = find_dbname(&o, err);
	if (rc == PGR_OK)
		rc = build_keywords(&o, err);
	if (rc == PGR_OK)
		rc = connect_with_password(&o, err);
	if (rc == PGR_OK)
		rc = check_server(o.conn, err);
	if (rc == PGR_OK)
		rc = take_over(out, &o, err);
	opening_fini(&o);
	return rc;
}

int pgr_transport_settings(const struct pgr_transport *t, struct pgr_setting **list, struct pgr_err *err)
{
	const struct libpq_transport *l = (const struct libpq_transport *)t;
	size_t n = 0;

	while (l->settings[n].keyword != NULL)
		n++;
	*list = calloc(n + 1, sizeof(**list));
	if (*list == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < n; i++) {
		if (setting_add(*list, l->settings[i].keyword, l->settings[i].value, err) != PGR_OK) {
			pgr_settings_free(*list);
			*list = NULL;
			return PGR_ERR;
		}
	}
	return PGR_OK;
}
