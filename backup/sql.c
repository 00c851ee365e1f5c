#include "backup/sql.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/num.h"
#include "proto/caps.h"
#include "proto/transport_libpq.h"

/* ---- building text ---- */

static int quote(struct pgr_buf *out, char q, const char *text, size_t len, struct pgr_err *err)
{
	int rc = pgr_buf_put8(out, (uint8_t)q, err);

	while (rc == PGR_OK && len > 0) {
		const char *at = memchr(text, q, len);
		size_t n = at != NULL ? (size_t)(at - text) + 1 : len;

		rc = pgr_buf_put(out, text, n, err);
		if (rc == PGR_OK && at != NULL)
			rc = pgr_buf_put8(out, (uint8_t)q, err);
		text += n;
		len -= n;
	}
	return rc == PGR_OK ? pgr_buf_put8(out, (uint8_t)q, err) : rc;
}

int pgr_sql_literal(struct pgr_buf *out, const char *text, size_t len, struct pgr_err *err)
{
	return quote(out, '\'', text, len, err);
}

int pgr_sql_identifier(struct pgr_buf *out, const char *name, size_t len, struct pgr_err *err)
{
	return quote(out, '"', name, len, err);
}

static int PGR_PRINTF(2, 0) format(struct pgr_buf *out, const char *fmt, va_list ap, struct pgr_err *err)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	if (n < 0 || pgr_buf_reserve(out, (size_t)n + 1, err) != PGR_OK) {
		va_end(again);
		return n < 0 ? pgr_err_set(err, PGR_E_USAGE, "could not format an SQL command") : PGR_ERR;
	}
	vsnprintf((char *)out->data + out->len, (size_t)n + 1, fmt, again);
	va_end(again);
	out->len += (size_t)n;
	return PGR_OK;
}

/* ---- running it ---- */

int pgr_sql_query(struct pgr_client *c, struct pgr_result **out, struct pgr_err *err, const char *fmt, ...)
{
	struct pgr_buf text = {0};
	va_list ap;
	int rc;

	*out = NULL;
	va_start(ap, fmt);
	rc = format(&text, fmt, ap, err);
	va_end(ap);
	if (rc == PGR_OK)
		rc = pgr_client_query(c, &text, out, err);
	pgr_buf_fini(&text);
	return rc;
}

int pgr_sql_ask_ahead(struct pgr_client *c, struct pgr_err *err, const char *fmt, ...)
{
	struct pgr_buf text = {0};
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = format(&text, fmt, ap, err);
	va_end(ap);
	if (rc == PGR_OK)
		rc = pgr_client_ask_ahead(c, &text, err);
	pgr_buf_fini(&text);
	return rc;
}

static int wrong_columns(unsigned got, unsigned cols, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server answered with %u columns instead of %u", got, cols);
}

static int take(const struct pgr_event *ev, unsigned cols, pgr_sql_row_fn *fn, void *arg, struct pgr_err *err)
{
	switch (ev->kind) {
	case PGR_EV_ROW_DESC:
		return ev->rowdesc.ncols == cols ? PGR_OK : wrong_columns(ev->rowdesc.ncols, cols, err);
	case PGR_EV_ROW:
		return ev->row.ncols == cols ? fn(arg, &ev->row, err) : wrong_columns(ev->row.ncols, cols, err);
	case PGR_EV_COMPLETE:
	case PGR_EV_READY:
		return PGR_OK;
	default:
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server answered a query with a COPY");
	}
}

static int read_rows(struct pgr_client *c, unsigned cols, pgr_sql_row_fn *fn, void *arg, struct pgr_err *err)
{
	struct pgr_event ev;
	int rc;

	do {
		rc = pgr_client_expect(c, PGR_NO_DEADLINE, &ev, err);
		if (rc == PGR_OK)
			rc = take(&ev, cols, fn, arg, err);
	} while (rc == PGR_OK && ev.kind != PGR_EV_READY);
	if (rc == PGR_ERR && err->cls == PGR_E_SERVER && !err->fatal && pgr_client_state(c) == PGR_SS_FAILED) {
		struct pgr_err later;

		/* The session is of use again, or the next command says why not. */
		if (pgr_client_until_ready(c, pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS), &later) != PGR_OK)
			return rc;
	}
	return rc;
}

int pgr_sql_rows(struct pgr_client *c, const struct pgr_buf *text, unsigned cols, pgr_sql_row_fn *fn, void *arg,
		 struct pgr_err *err)
{
	int wake = pgr_client_set_wake(c, -1);
	int rc = pgr_client_ask(c, text, err);

	if (rc == PGR_OK)
		rc = read_rows(c, cols, fn, arg, err);
	pgr_client_set_wake(c, wake);
	return rc;
}

static int wrong_answer(const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server's answer to the question about %s makes no sense", what);
}

static bool is_cell(const struct pgr_result *r, unsigned row, unsigned col, const char *text)
{
	const char *s = pgr_result_cell(r, row, col, NULL);

	return s != NULL && strcmp(s, text) == 0;
}

/* ---- a session of our own ---- */

/*
 * What a role, a database or a postgresql.conf may have set and what would end, delay or change our commands.  Taken
 * from pg_settings, so that a server is only asked for what it has.  tcp_user_timeout: a lane that waits for the disk
 * closes its window, which the server's kernel counts.  work_mem: the listing of a large cluster need not go through
 * the server's temporary files.  client_encoding: what is sent is what the name of the file is.  SET TRANSACTION: a
 * standby refuses a role that is serializable by default, in this first transaction already.
 */
static const char shield[] =
	"SET statement_timeout = 0; SET search_path = pg_catalog; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
	"SELECT pg_backend_pid(), set_config('pgr.session', pg_backend_pid() || ' ' || clock_timestamp(), false),"
	" count(set_config(s.name, v.value, false))"
	" FROM pg_settings s, (VALUES"
	" ('lock_timeout', '0'), ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),"
	" ('idle_session_timeout', '0'), ('tcp_user_timeout', '0'), ('jit', 'off'),"
	" ('max_parallel_workers_per_gather', '0'), ('work_mem', '32MB'), ('standard_conforming_strings', 'on'),"
	" ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),"
	" ('client_encoding', current_setting('server_encoding'))) v (name, value)"
	" WHERE s.name = v.name AND s.context = 'user'";

/* In another transaction: is all of it still there? */
static const char still_there[] = "SELECT pg_backend_pid(), current_setting('pgr.session', true),"
				  " current_setting('statement_timeout') = '0' AND"
				  " current_setting('standard_conforming_strings') = 'on' AND"
				  " current_setting('client_encoding') = current_setting('server_encoding')";

static int pooler(struct pgr_client *c, const char *why, struct pgr_err *err)
{
	struct pgr_transport *t = pgr_client_transport(c);

	pgr_err_set(err, PGR_E_USAGE, "there is a connection pooler before server \"%s\", port %s: %s", t->server_host,
		    t->server_port, why);
	return pgr_err_hint(err, "Connect to the server directly.");
}

static int check_pid(struct pgr_client *c, const struct pgr_result *r, struct pgr_err *err)
{
	const char *pid;
	size_t len;
	int64_t n;

	pid = pgr_result_cell(r, 0, 0, &len);
	if (pgr_result_rows(r) != 1 || pgr_result_cols(r) != 3 || pid == NULL || !pgr_num_i64(pid, len, &n))
		return wrong_answer("its process", err);
	if (pgr_client_backend_pid(c) != 0 && pgr_client_backend_pid(c) != n)
		return pooler(c, "another process answers than the one that was connected", err);
	return PGR_OK;
}

static int check_same(struct pgr_client *c, const struct pgr_result *a, const struct pgr_result *b, struct pgr_err *err)
{
	const char *mark = pgr_result_cell(a, 0, 1, NULL);

	if (mark == NULL)
		return wrong_answer("its session", err);
	if (!is_cell(b, 0, 0, pgr_result_cell(a, 0, 0, NULL)) || !is_cell(b, 0, 1, mark))
		return pooler(c, "two transactions of one session met different processes", err);
	if (!is_cell(b, 0, 2, "t"))
		return pooler(c, "what a session sets does not stay", err);
	return PGR_OK;
}

/* Always PGR_ERR. */
static int not_set_up(struct pgr_err *err)
{
	if (err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not set up an SQL session");
	return PGR_ERR;
}

int pgr_sql_shield_ahead(struct pgr_client *c, struct pgr_err *err)
{
	return pgr_cap_has(pgr_client_version(c), PGR_CAP_SQL_READ) ? pgr_sql_ask_ahead(c, err, "%s", shield) : PGR_OK;
}

/* The second question is not asked before the first one was answered: a pooler would keep both on one server. */
int pgr_sql_shield(struct pgr_client *c, struct pgr_result **mark, struct pgr_err *err)
{
	*mark = NULL;
	if (!pgr_cap_has(pgr_client_version(c), PGR_CAP_SQL_READ))
		return PGR_OK;
	if (pgr_sql_query(c, mark, err, "%s", shield) == PGR_OK && check_pid(c, *mark, err) == PGR_OK &&
	    pgr_sql_ask_ahead(c, err, "%s", still_there) == PGR_OK)
		return PGR_OK;
	pgr_result_free(*mark);
	*mark = NULL;
	return not_set_up(err);
}

int pgr_sql_confirm(struct pgr_client *c, struct pgr_result *mark, struct pgr_err *err)
{
	struct pgr_result *again = NULL;
	int rc;

	if (mark == NULL)
		return PGR_OK;
	rc = pgr_sql_query(c, &again, err, "%s", still_there);
	if (rc == PGR_OK)
		rc = check_pid(c, again, err);
	if (rc == PGR_OK)
		rc = check_same(c, mark, again, err);
	pgr_result_free(again);
	pgr_result_free(mark);
	return rc == PGR_OK ? PGR_OK : not_set_up(err);
}

int pgr_sql_prepare(struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_result *mark;

	return pgr_sql_shield(c, &mark, err) == PGR_OK ? pgr_sql_confirm(c, mark, err) : PGR_ERR;
}

int pgr_sql_connect(struct pgr_client **out, struct pgr_conn_params *params, const struct pgr_sys *sys,
		    struct pgr_stop *stop, pgr_notice_fn *notice, void *notice_arg, struct pgr_err *err)
{
	struct pgr_transport *t;

	*out = NULL;
	if (pgr_transport_open(&t, sys, stop, params, PGR_CONN_SQL, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_new(out, t, sys, notice, notice_arg, err);
}

int pgr_sql_open(struct pgr_client **out, struct pgr_conn_params *params, const struct pgr_sys *sys,
		 struct pgr_stop *stop, pgr_notice_fn *notice, void *notice_arg, struct pgr_err *err)
{
	if (pgr_sql_connect(out, params, sys, stop, notice, notice_arg, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_sql_prepare(*out, err) == PGR_OK)
		return PGR_OK;
	pgr_client_free(*out);
	*out = NULL;
	return PGR_ERR;
}

/* ---- what it may do ---- */

#define FUNCTIONS 5

/* What a copy over SQL calls and not everybody may: PostgreSQL documentation, "System Administration Functions". */
static const char *const functions[FUNCTIONS] = {
	"pg_backup_start(text,boolean)",
	"pg_backup_stop(boolean)",
	"pg_read_binary_file(text,bigint,bigint,boolean)",
	"pg_ls_dir(text,boolean,boolean)",
	"pg_stat_file(text,boolean)",
};

static const char *const functions_before_15[FUNCTIONS] = {
	"pg_start_backup(text,boolean,boolean)",
	"pg_stop_backup(boolean,boolean)",
	"pg_read_binary_file(text,bigint,bigint,boolean)",
	"pg_ls_dir(text,boolean,boolean)",
	"pg_stat_file(text,boolean)",
};

static const char *const *functions_of(int server_version)
{
	return pgr_cap_has(server_version, PGR_CAP_BACKUP_START) ? functions : functions_before_15;
}

#define RIGHTS                                                                                                         \
	"SELECT current_user, current_setting('is_superuser'), f,"                                                     \
	" has_function_privilege('pg_catalog.' || f, 'EXECUTE')"                                                       \
	" FROM (VALUES ('%s'), ('%s'), ('%s'), ('%s'), ('%s')) v (f)"

static int ask_rights(struct pgr_client *c, struct pgr_result **out, struct pgr_err *err)
{
	const char *const *f = functions_of(pgr_client_version(c));

	return pgr_sql_query(c, out, err, RIGHTS, f[0], f[1], f[2], f[3], f[4]);
}

int pgr_sql_may_read_ahead(struct pgr_client *c, struct pgr_err *err)
{
	const char *const *f = functions_of(pgr_client_version(c));

	if (!pgr_cap_has(pgr_client_version(c), PGR_CAP_SQL_READ))
		return PGR_OK;
	return pgr_sql_ask_ahead(c, err, RIGHTS, f[0], f[1], f[2], f[3], f[4]);
}

/* PGR_MORE: something is missing, and `why` has it. */
static int judge_rights(int server_version, const struct pgr_result *r, struct pgr_buf *why, struct pgr_err *err)
{
	const char *role = pgr_result_cell(r, 0, 0, NULL);
	bool missing = false;

	if (pgr_result_rows(r) != FUNCTIONS || pgr_result_cols(r) != 4 || role == NULL)
		return wrong_answer("the role's privileges", err);
	if (is_cell(r, 0, 1, "on"))
		return PGR_OK;
	if (!pgr_cap_has(server_version, PGR_CAP_SQL_READ_GRANTS)) {
		if (pgr_buf_printf(why, err,
				   "role \"%s\" is no superuser, and before version %s nobody else may read files",
				   role, pgr_cap_since(PGR_CAP_SQL_READ_GRANTS)) != PGR_OK)
			return PGR_ERR;
		return PGR_MORE;
	}
	for (unsigned i = 0; i < FUNCTIONS; i++) {
		const char *f = pgr_result_cell(r, i, 2, NULL);

		if (f == NULL)
			return wrong_answer("the role's privileges", err);
		if (is_cell(r, i, 3, "t"))
			continue;
		if ((!missing && pgr_buf_printf(why, err, "role \"%s\" may not execute ", role) != PGR_OK) ||
		    pgr_buf_printf(why, err, "%s%s", missing ? ", " : "", f) != PGR_OK)
			return PGR_ERR;
		missing = true;
	}
	return missing ? PGR_MORE : PGR_OK;
}

int pgr_sql_may_read(struct pgr_client *c, struct pgr_buf *why, struct pgr_err *err)
{
	int version = pgr_client_version(c);
	struct pgr_result *r;
	char text[16];
	int rc;

	if (!pgr_cap_has(version, PGR_CAP_SQL_READ)) {
		pgr_version_format(text, version);
		if (pgr_buf_printf(why, err, "server version %s cannot be copied over SQL, only %s and later", text,
				   pgr_cap_since(PGR_CAP_SQL_READ)) != PGR_OK)
			return PGR_ERR;
		return PGR_MORE;
	}
	if (ask_rights(c, &r, err) != PGR_OK)
		return PGR_ERR;
	rc = judge_rights(version, r, why, err);
	pgr_result_free(r);
	return rc;
}

int pgr_sql_grants(struct pgr_buf *out, int server_version, const char *role, struct pgr_err *err)
{
	const char *const *f = functions_of(server_version);
	char version[16];

	if (!pgr_cap_has(server_version, PGR_CAP_SQL_READ_GRANTS)) {
		pgr_version_format(version, server_version);
		return pgr_err_set(err, PGR_E_USAGE,
				   "server version %s has no grants for reading files, only %s and later have", version,
				   pgr_cap_since(PGR_CAP_SQL_READ_GRANTS));
	}
	if (pgr_buf_puts(out, "GRANT EXECUTE ON FUNCTION", err) != PGR_OK)
		return PGR_ERR;
	for (unsigned i = 0; i < FUNCTIONS; i++)
		if (pgr_buf_printf(out, err, "%s\n  pg_catalog.%s", i > 0 ? "," : "", f[i]) != PGR_OK)
			return PGR_ERR;
	if (pgr_buf_puts(out, "\n  TO ", err) != PGR_OK || pgr_sql_identifier(out, role, strlen(role), err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(out, ";\n", err);
}
