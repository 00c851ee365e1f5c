/*
 * SQL sessions that read the files of a server: opened, shielded, checked for what they may do.
 *
 * Only the simple query protocol is used.  Names of files are bytes: client_encoding is the server's encoding, so that
 * nothing is converted on the way, and a name that is not valid in that encoding can be listed, but not be asked for.
 */
#ifndef PGR_BACKUP_SQL_H
#define PGR_BACKUP_SQL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_row;
struct pgr_stop;
struct pgr_sys;

/*
 * Opens a SQL session that reads files: pgr_sql_connect, then pgr_sql_prepare.
 */
int pgr_sql_open(struct pgr_client **out, struct pgr_conn_params *params, const struct pgr_sys *sys,
		 struct pgr_stop *stop, pgr_notice_fn *notice, void *notice_arg, struct pgr_err *err) PGR_MUST_USE;
int pgr_sql_connect(struct pgr_client **out, struct pgr_conn_params *params, const struct pgr_sys *sys,
		    struct pgr_stop *stop, pgr_notice_fn *notice, void *notice_arg, struct pgr_err *err) PGR_MUST_USE;

/*
 * Shields a session from the role's and the database's settings (all timeouts 0, jit off, no parallel workers,
 * client_encoding = the server's, standard_conforming_strings on, read committed, search_path = pg_catalog;
 * application_name is kept), and makes sure that it is one: PGR_E_USAGE, with a hint, where a connection pooler is in
 * between (another process answers than the one that the connection was told of, or two transactions meet different
 * ones).  On a server below 10, which pgr_sql_may_read refuses, nothing is done.
 */
int pgr_sql_prepare(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;

/*
 * pgr_sql_prepare in two steps, which are a round trip each: other questions may be asked ahead behind
 * pgr_sql_shield_ahead, and their answers read in between.  `mark` is what the first step gives to the second one,
 * which frees it, as does pgr_result_free.
 */
int pgr_sql_shield_ahead(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;
int pgr_sql_shield(struct pgr_client *c, struct pgr_result **mark, struct pgr_err *err) PGR_MUST_USE;
int pgr_sql_confirm(struct pgr_client *c, struct pgr_result *mark, struct pgr_err *err) PGR_MUST_USE;

/* Asks ahead (pgr_client_ask_ahead) for what pgr_sql_query or pgr_sql_rows will be called with. */
int pgr_sql_ask_ahead(struct pgr_client *c, struct pgr_err *err, const char *fmt, ...) PGR_MUST_USE PGR_PRINTF(3, 4);

/*
 * Runs one SQL command that returns rows of text.  At most PGR_COMMAND_TIMEOUT_MS and 64 MiB.  Arguments are not
 * quoted: see pgr_sql_literal.
 */
int pgr_sql_query(struct pgr_client *c, struct pgr_result **out, struct pgr_err *err, const char *fmt, ...) PGR_MUST_USE
	PGR_PRINTF(4, 5);

/* Called for every row; its views live until it returns.  PGR_ERR ends the command. */
typedef int pgr_sql_row_fn(void *arg, const struct pgr_row *row, struct pgr_err *err);

/*
 * Runs the command `text`, however long it takes and however much it returns, and hands its rows, of `cols` columns, to
 * `fn` as they come.  After an error of the server that is not fatal the session is ready again.  After one of `fn` it
 * is not: it can only be freed.  (pgr_transport_cancel spares the server the rest.)
 */
int pgr_sql_rows(struct pgr_client *c, const struct pgr_buf *text, unsigned cols, pgr_sql_row_fn *fn, void *arg,
		 struct pgr_err *err) PGR_MUST_USE;

/* Appends 'text' as a literal (standard_conforming_strings), or "name" as an identifier; no NUL inside. */
int pgr_sql_literal(struct pgr_buf *out, const char *text, size_t len, struct pgr_err *err) PGR_MUST_USE;
int pgr_sql_identifier(struct pgr_buf *out, const char *name, size_t len, struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether this role may read the cluster over SQL: superuser, or, from 11 on, EXECUTE on the five functions.  PGR_OK:
 * yes.  PGR_MORE: no, and `why` says what is missing ("role \"x\" may not execute
 * pg_read_binary_file(text,bigint,bigint,boolean)", "server version 9.6.24 cannot ...").
 */
int pgr_sql_may_read(struct pgr_client *c, struct pgr_buf *why, struct pgr_err *err) PGR_MUST_USE;
int pgr_sql_may_read_ahead(struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;

/*
 * Appends the SQL that grants it to `role` on a server of this version (--print-grants); to be run in the database that
 * pgr connects to.  PGR_E_USAGE: this version has no such grants.
 */
int pgr_sql_grants(struct pgr_buf *out, int server_version, const char *role, struct pgr_err *err) PGR_MUST_USE;

#endif
