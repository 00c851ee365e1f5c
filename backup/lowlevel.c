#include "backup/lowlevel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/controlfile.h"
#include "backup/label.h"
#include "backup/listing.h"
#include "backup/rowsum.h"
#include "common/num.h"
#include "proto/caps.h"
#include "proto/fields.h"

struct pgr_lowlevel {
	struct pgr_client *c;
	pgr_lsn start; /* 0: not started */
	struct pgr_bb_tablespace *tablespaces;
	size_t ntablespaces; /* 0: not asked for yet */

	struct pgr_rowsum sum; /* NONE: answers are believed */
	void (*info)(void *arg, const char *line);
	void *arg;
};

static int strange(const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server's answer to %s makes no sense", what);
}

int pgr_lowlevel_new(struct pgr_lowlevel **out, struct pgr_client *session, struct pgr_err *err)
{
	struct pgr_lowlevel *l = calloc(1, sizeof(*l));

	*out = l;
	if (l == NULL) {
		pgr_client_free(session);
		return pgr_err_nomem(err);
	}
	l->c = session;
	return PGR_OK;
}

/* A server that waits for its checkpoint or its archiver would not notice for long that nobody waits with it. */
void pgr_lowlevel_free(struct pgr_lowlevel *l)
{
	if (l == NULL)
		return;
	if (pgr_client_state(l->c) != PGR_SS_READY && pgr_client_state(l->c) != PGR_SS_CLOSED)
		pgr_transport_cancel(pgr_client_transport(l->c));
	pgr_client_free(l->c);
	pgr_listing_tablespaces_free(l->tablespaces, l->ntablespaces);
	pgr_rowsum_fini(&l->sum);
	free(l);
}

struct pgr_client *pgr_lowlevel_client(struct pgr_lowlevel *l)
{
	return l->c;
}

/* ---- answers that came damaged ---- */

int pgr_lowlevel_verify(struct pgr_lowlevel *l, void (*info)(void *arg, const char *line), void *arg,
			struct pgr_err *err)
{
	l->info = info;
	l->arg = arg;
	return pgr_rowsum_init(&l->sum, pgr_rowsum_algo(pgr_client_version(l->c)), err);
}

/* The session holds the backup open, so it cannot be given up: all that can be done is to ask again. */
static int came_damaged(const struct pgr_lowlevel *l, const char *what, unsigned *tries, struct pgr_err *err)
{
	char line[256];

	if (++*tries > PGR_ROWSUM_TRIES) {
		pgr_err_set(err, PGR_E_DATA, "%s came damaged", what);
		return pgr_err_detail(err, "It was asked for %u times.", *tries);
	}
	snprintf(line, sizeof(line), "%s came damaged and is asked for again", what);
	if (l->info != NULL)
		l->info(l->arg, line);
	return PGR_OK;
}

/* ---- one row of text, however long it takes ---- */

#define CELLS_MAX 3

/* The only row of an answer. */
struct one_row {
	unsigned rows, cols;
	struct pgr_rowsum *sum; /* NULL: without a digest */
	const struct pgr_buf *text;
	bool holds;
	struct pgr_buf cells[CELLS_MAX]; /* SQL NULL is empty */
};

static int take_row(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct one_row *r = arg;

	if (r->rows++ > 0)
		return strange("a question for one row", err);
	if (r->sum != NULL && pgr_rowsum_holds(r->sum, row, r->text, &r->holds, err) != PGR_OK)
		return PGR_ERR;
	for (unsigned i = 0; i < r->cols; i++) {
		struct pgr_span v = pgr_row_col(row, i);

		if (v.len > 0 && pgr_buf_put(&r->cells[i], v.p, v.len, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static void one_row_fini(struct one_row *r)
{
	for (unsigned i = 0; i < CELLS_MAX; i++)
		pgr_buf_fini(&r->cells[i]);
}

static int ask_with_sum(struct pgr_lowlevel *l, const struct pgr_buf *text, struct one_row *r, struct pgr_err *err)
{
	struct pgr_buf wrapped = {0};
	int rc = pgr_rowsum_wrap(&wrapped, l->sum.algo, text, r->cols, err);

	r->sum = &l->sum;
	r->text = &wrapped;
	if (rc == PGR_OK)
		rc = pgr_sql_rows(l->c, &wrapped, r->cols + 1, take_row, r, err);
	pgr_buf_fini(&wrapped);
	r->text = NULL;
	return rc;
}

/* r->cols says how many columns. `what` is for the message.  PGR_MORE: the answer came damaged. */
static int ask_row(struct pgr_lowlevel *l, const struct pgr_buf *text, struct one_row *r, const char *what,
		   struct pgr_err *err)
{
	bool sums = l->sum.algo != PGR_ROWSUM_NONE;

	if ((sums ? ask_with_sum(l, text, r, err) : pgr_sql_rows(l->c, text, r->cols, take_row, r, err)) != PGR_OK)
		return PGR_ERR;
	if (r->rows != 1)
		return strange(what, err);
	return sums && !r->holds ? PGR_MORE : PGR_OK;
}

/* As ask_row, but that the answer is read later. */
static int ask_row_ahead(struct pgr_lowlevel *l, const struct pgr_buf *text, unsigned cols, struct pgr_err *err)
{
	struct pgr_buf wrapped = {0};
	int rc;

	if (l->sum.algo == PGR_ROWSUM_NONE)
		return pgr_client_ask_ahead(l->c, text, err);
	rc = pgr_rowsum_wrap(&wrapped, l->sum.algo, text, cols, err);
	if (rc == PGR_OK)
		rc = pgr_client_ask_ahead(l->c, &wrapped, err);
	pgr_buf_fini(&wrapped);
	return rc;
}

static bool cell_is_lsn(const struct pgr_buf *cell, pgr_lsn *out)
{
	return pgr_lsn_parse((const char *)cell->data, cell->len, out) && *out != PGR_LSN_INVALID;
}

/* ---- start ---- */

/* The third argument of the old function: not exclusive, as all are from 15 on. */
static int start_command(int server_version, const char *label, bool fast, struct pgr_buf *text, struct pgr_err *err)
{
	bool renamed = pgr_cap_has(server_version, PGR_CAP_BACKUP_START);

	if (pgr_buf_puts(text, renamed ? "SELECT pg_backup_start(" : "SELECT pg_start_backup(", err) != PGR_OK ||
	    pgr_sql_literal(text, label, strlen(label), err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_printf(text, err, ", %s%s)", fast ? "true" : "false", renamed ? "" : ", false");
}

int pgr_lowlevel_start_ahead(struct pgr_lowlevel *l, const char *label, bool fast, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = start_command(pgr_client_version(l->c), label, fast, &text, err);

	if (rc == PGR_OK)
		rc = ask_row_ahead(l, &text, 1, err);
	pgr_buf_fini(&text);
	return rc;
}

int pgr_lowlevel_start(struct pgr_lowlevel *l, const char *label, bool fast, pgr_lsn *start, struct pgr_err *err)
{
	struct one_row r = {.cols = 1};
	struct pgr_buf text = {0};
	int rc = start_command(pgr_client_version(l->c), label, fast, &text, err);

	if (rc == PGR_OK)
		rc = ask_row(l, &text, &r, "pg_backup_start", err);
	if (rc == PGR_MORE) /* where the backup began is nowhere else to be had */
		rc = pgr_err_set(err, PGR_E_DATA, "the server's answer to pg_backup_start came damaged");
	if (rc == PGR_OK && !cell_is_lsn(&r.cells[0], &l->start))
		rc = strange("pg_backup_start", err);
	if (rc == PGR_OK)
		*start = l->start;
	else if (err->cls == PGR_E_SERVER || err->cls == PGR_E_PROTOCOL)
		pgr_err_prefix(err, "could not initiate base backup"); /* as pg_basebackup */
	pgr_buf_fini(&text);
	one_row_fini(&r);
	return rc;
}

/* ---- what there is ---- */

static bool same_tablespaces(const struct pgr_bb_tablespace *a, size_t na, const struct pgr_bb_tablespace *b, size_t nb)
{
	bool same = na == nb;

	for (size_t i = 0; same && i < na; i++)
		same = a[i].oid == b[i].oid && strcmp(a[i].location, b[i].location) == 0;
	return same;
}

/* Until the same is said twice: what was damaged is not, and there are few of them. */
static int ask_tablespaces(struct pgr_lowlevel *l, struct pgr_err *err)
{
	unsigned tries = 0;
	bool same = l->sum.algo == PGR_ROWSUM_NONE;
	int rc = pgr_listing_tablespaces(l->c, &l->tablespaces, &l->ntablespaces, err);

	while (rc == PGR_OK && !same) {
		struct pgr_bb_tablespace *before = l->tablespaces;
		size_t n = l->ntablespaces;

		rc = pgr_listing_tablespaces(l->c, &l->tablespaces, &l->ntablespaces, err);
		same = rc == PGR_OK && same_tablespaces(before, n, l->tablespaces, l->ntablespaces);
		if (rc == PGR_OK && !same)
			rc = came_damaged(l, "the list of the server's tablespaces", &tries, err);
		pgr_listing_tablespaces_free(before, n);
	}
	return rc;
}

int pgr_lowlevel_tablespaces(struct pgr_lowlevel *l, const struct pgr_bb_tablespace **list, size_t *n,
			     struct pgr_err *err)
{
	if (l->ntablespaces == 0 && ask_tablespaces(l, err) != PGR_OK)
		return PGR_ERR;
	*list = l->tablespaces;
	*n = l->ntablespaces;
	return PGR_OK;
}

int pgr_lowlevel_list_ahead(struct pgr_lowlevel *l, struct pgr_err *err)
{
	return l->ntablespaces == 0 ? pgr_listing_tablespaces_ahead(l->c, err) : PGR_OK;
}

int pgr_lowlevel_list(struct pgr_lowlevel *l, struct pgr_filelist *out, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *tablespaces;
	unsigned tries = 0;
	size_t n;
	int rc;

	if (pgr_lowlevel_tablespaces(l, &tablespaces, &n, err) != PGR_OK)
		return PGR_ERR;
	do {
		rc = pgr_listing_files(l->c, tablespaces, n, l->sum.algo != PGR_ROWSUM_NONE ? &l->sum : NULL, out, err);
		if (rc == PGR_OK)
			return PGR_OK;
		pgr_filelist_fini(out);
		if (rc == PGR_MORE)
			rc = came_damaged(l, "the list of the server's files", &tries, err);
	} while (rc == PGR_OK);
	return PGR_ERR;
}

/* ---- waiting ---- */

/* Waits until `deadline`, and notices the session's end.  Nothing is under way, so nothing else can come. */
static int idle_until(struct pgr_lowlevel *l, int64_t deadline, struct pgr_err *err)
{
	int wake = pgr_client_set_wake(l->c, -1);
	struct pgr_event ev;
	int rc = pgr_client_next(l->c, deadline, &ev, err);

	pgr_client_set_wake(l->c, wake);
	if (rc == PGR_OK && ev.kind == PGR_EV_ERROR)
		rc = pgr_fields_to_err(&ev.fields, err);
	else if (rc == PGR_OK && ev.kind != PGR_EV_TIMEOUT)
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "the server speaks without having been asked");
	return rc;
}

int pgr_lowlevel_check(struct pgr_lowlevel *l, struct pgr_err *err)
{
	return idle_until(l, pgr_client_deadline(l->c, 0), err);
}

/* ---- pg_control ---- */

#define CONTROL_NAME	 "global/pg_control"
#define CONTROL_FILE	 "the server's file \"" CONTROL_NAME "\""
#define CONTROL_BYTES	 8192 /* PG_CONTROL_FILE_SIZE */
#define CONTROL_TRIES	 10   /* both as get_controlfile of src/common/controldata_utils.c */
#define CONTROL_RETRY_MS 10

static bool unhex(struct pgr_buf *b)
{
	for (size_t i = 0; i < b->len / 2; i++) {
		uint64_t v;

		if (!pgr_num_hex64((const char *)b->data + 2 * i, 2, &v))
			return false;
		b->data[i] = (uint8_t)v;
	}
	b->len /= 2;
	return true;
}

/* PGR_MORE: it came damaged. */
static int read_control(struct pgr_lowlevel *l, const struct pgr_buf *text, struct pgr_buf *out, struct pgr_err *err)
{
	struct one_row r = {.cols = 1};
	int rc = ask_row(l, text, &r, CONTROL_NAME, err);

	if (rc == PGR_MORE) {
		one_row_fini(&r);
		return PGR_MORE;
	}
	if (rc == PGR_OK && (r.cells[0].len != 2 * CONTROL_BYTES || !unhex(&r.cells[0])))
		rc = pgr_err_set(err, PGR_E_DATA, "the server sent file \"%s\" with %zu bytes instead of %d",
				 CONTROL_NAME, r.cells[0].len / 2, CONTROL_BYTES);
	out->len = 0;
	if (rc == PGR_OK)
		rc = pgr_buf_put(out, r.cells[0].data, r.cells[0].len, err);
	one_row_fini(&r);
	return rc;
}

int pgr_lowlevel_control(struct pgr_lowlevel *l, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = pgr_buf_printf(&text, err, "SELECT encode(pg_read_binary_file('%s', 0, %d, false), 'hex')",
				CONTROL_NAME, CONTROL_BYTES);
	unsigned damaged = 0;
	bool good = false;

	for (int i = 0; rc == PGR_OK && !good && i < CONTROL_TRIES; i++) {
		if (i > 0)
			rc = idle_until(l, pgr_client_deadline(l->c, CONTROL_RETRY_MS), err);
		while (rc == PGR_OK && (rc = read_control(l, &text, out, err)) == PGR_MORE)
			rc = came_damaged(l, CONTROL_FILE, &damaged, err);
		good = rc == PGR_OK && pgr_controlfile_crc_holds(out->data, out->len);
	}
	if (rc == PGR_OK && !good)
		rc = pgr_err_set(err, PGR_E_DATA, "the checksum of " CONTROL_FILE " does not hold");
	if (rc == PGR_ERR && err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not read the server's file \"%s\"", CONTROL_NAME);
	pgr_buf_fini(&text);
	return rc;
}

/* ---- stop ---- */

void pgr_backup_end_fini(struct pgr_backup_end *e)
{
	pgr_buf_fini(&e->label);
	pgr_buf_fini(&e->map);
	memset(e, 0, sizeof(*e));
}

static int take_end(const struct pgr_lowlevel *l, struct one_row *r, struct pgr_backup_end *out, struct pgr_err *err)
{
	pgr_lsn start;

	if (!cell_is_lsn(&r->cells[0], &out->stop) || out->stop < l->start)
		return strange("pg_backup_stop", err);
	if (!pgr_label_start(r->cells[1].data, r->cells[1].len, &start, &out->start_tli) || start != l->start)
		return pgr_err_set(err, PGR_E_DATA,
				   "the server's backup label is not that of the backup that began at %" PGR_LSN_FMT,
				   PGR_LSN_ARG(l->start));
	out->label = r->cells[1];
	out->map = r->cells[2];
	memset(&r->cells[1], 0, 2 * sizeof(r->cells[1]));
	return PGR_OK;
}

/* With digests the answer stays in settings of the session. */
static int stop_command(const struct pgr_lowlevel *l, bool wait_archive, struct pgr_buf *text, struct pgr_err *err)
{
	bool renamed = pgr_cap_has(pgr_client_version(l->c), PGR_CAP_BACKUP_START);

	return pgr_buf_printf(text, err, "SELECT %s FROM %s(%s)",
			      l->sum.algo == PGR_ROWSUM_NONE ? "lsn, labelfile, spcmapfile"
							     : "set_config('pgr.stop', lsn::text, false), "
							       "set_config('pgr.label', labelfile, false), "
							       "set_config('pgr.map', coalesce(spcmapfile, ''), false)",
			      renamed ? "pg_backup_stop" : "pg_stop_backup",
			      renamed ? (wait_archive ? "true" : "false")
				      : (wait_archive ? "false, true" : "false, false"));
}

static int ask_end_again(struct pgr_lowlevel *l, struct one_row *r, struct pgr_err *err)
{
	unsigned tries = 0;
	int rc = PGR_MORE;

	while (rc == PGR_MORE) {
		struct pgr_buf text = {0};

		one_row_fini(r);
		*r = (struct one_row){.cols = r->cols};
		rc = came_damaged(l, "the server's backup_label", &tries, err);
		if (rc == PGR_OK)
			rc = pgr_buf_puts(&text,
					  "SELECT current_setting('pgr.stop'), current_setting('pgr.label'), "
					  "current_setting('pgr.map')",
					  err);
		if (rc == PGR_OK)
			rc = ask_row(l, &text, r, "pg_backup_stop", err);
		pgr_buf_fini(&text);
	}
	return rc;
}

int pgr_lowlevel_stop(struct pgr_lowlevel *l, bool wait_archive, struct pgr_backup_end *out, struct pgr_err *err)
{
	struct one_row r = {.cols = 3};
	struct pgr_buf text = {0};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = stop_command(l, wait_archive, &text, err);
	if (rc == PGR_OK)
		rc = ask_row(l, &text, &r, "pg_backup_stop", err);
	if (rc == PGR_MORE)
		rc = ask_end_again(l, &r, err);
	if (rc == PGR_OK)
		rc = take_end(l, &r, out, err);
	else if (err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not finish base backup");
	if (rc == PGR_OK)
		l->start = PGR_LSN_INVALID;
	else
		pgr_backup_end_fini(out);
	pgr_buf_fini(&text);
	one_row_fini(&r);
	return rc;
}
