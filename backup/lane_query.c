/*
 * ORDER BY decides the order, not the planner.  A volatile function is evaluated behind the sort
 * (make_sort_input_target in src/backend/optimizer/plan/planner.c, since 9.6), so that only numbers and names are
 * sorted and rows flow as they are read.  Of a relation only what was listed is asked for: what has grown since then is
 * in the WAL.
 *
 * With digests, reading is a query below: its ORDER BY and OFFSET 0 keep the planner from pulling it up, so that each
 * row is read once, hashed where it lies and sent; the sort still comes below the reading.
 */
#include "backup/lane_query.h"

#include <inttypes.h>
#include <string.h>

#include "backup/sql.h"

/* A file of size 0 is not opened: it may be a pipe, where the server would wait for a writer for ever. */
#define CONTENT "CASE WHEN t > s THEN pg_catalog.pg_read_binary_file(f, o, least(w, t - o), true) ELSE '' END"

static int put_piece(struct pgr_buf *out, const char *path, const struct pgr_lane_piece *p, size_t i,
		     struct pgr_err *err)
{
	/* The first line says which types all of them have. */
	const char *text = i == 0 ? "::text" : "", *number = i == 0 ? "::bigint" : "";
	uint64_t to = p->ask > 0 ? p->from + p->ask : p->to;
	uint32_t row = p->ask > 0 ? p->ask : p->row;

	if (pgr_buf_printf(out, err, "%s(%zu, ", i == 0 ? "" : ", ", i) != PGR_OK ||
	    pgr_sql_literal(out, path, strlen(path), err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_printf(out, err, "%s, %" PRIu64 "%s, %" PRIu64 "%s, %" PRIu32 "%s)", text, p->from, number, to,
			      number, row, number);
}

static int begin_summed(struct pgr_buf *out, const char *columns, enum pgr_rowsum_algo sums, struct pgr_err *err)
{
	if (pgr_buf_printf(out, err, "COPY (SELECT %s", columns) != PGR_OK ||
	    pgr_rowsum_row_sql(out, sums, "c", "f", "o", "n", err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(out, " FROM (SELECT f, o, least(w, t - o) n, " CONTENT " c FROM (VALUES ", err);
}

static int put_rest(struct pgr_buf *out, const struct pgr_filelist *list, const struct pgr_lane_piece *pieces, size_t n,
		    enum pgr_rowsum_algo sums, struct pgr_err *err)
{
	for (size_t i = 0; i < n; i++)
		if (put_piece(out, list->entries[pieces[i].file].path, &pieces[i], i, err) != PGR_OK)
			return PGR_ERR;
	return pgr_buf_printf(out, err,
			      ") v(i, f, s, t, w), LATERAL pg_catalog.generate_series(s, greatest(s, t - 1), w) o "
			      "ORDER BY i, o%s) TO STDOUT (FORMAT binary)",
			      sums != PGR_ROWSUM_NONE ? " OFFSET 0) r" : "");
}

int pgr_lane_query(struct pgr_buf *out, const struct pgr_filelist *list, const struct pgr_lane_piece *pieces, size_t n,
		   enum pgr_rowsum_algo sums, struct pgr_err *err)
{
	int rc;

	out->len = 0;
	if (sums == PGR_ROWSUM_NONE)
		rc = pgr_buf_puts(out, "COPY (SELECT " CONTENT " FROM (VALUES ", err);
	else
		rc = begin_summed(out, "c, ", sums, err);
	return rc == PGR_OK ? put_rest(out, list, pieces, n, sums, err) : rc;
}

int pgr_lane_query_sums(struct pgr_buf *out, const struct pgr_filelist *list, const struct pgr_lane_piece *pieces,
			size_t n, enum pgr_rowsum_algo sums, struct pgr_err *err)
{
	out->len = 0;
	if (begin_summed(out, "", sums, err) != PGR_OK)
		return PGR_ERR;
	return put_rest(out, list, pieces, n, sums, err);
}
