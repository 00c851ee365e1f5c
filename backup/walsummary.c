#include "backup/walsummary.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "backup/exclude.h"
#include "backup/incremental.h"
#include "backup/sql.h"
#include "common/num.h"
#include "proto/client.h"
#include "proto/fields.h"
#include "receiver/history.h"

/* Summaries for one question: what the server gathers for an answer stays small. */
#define BATCH 64

/* What a server may make us keep. */
#define LIMITS_MAX ((size_t)8 << 20)
#define BLOCKS_MAX ((size_t)64 << 20)

#define DEFAULT_SPACE 1663 /* pg_default */
#define GLOBAL_SPACE  1664 /* pg_global */

void pgr_limits_fini(struct pgr_limits *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->list[i].blocks);
	free(l->list);
	*l = (struct pgr_limits){0};
}

/* ---- which summaries ---- */

static int by_position(const void *a, const void *b)
{
	const struct pgr_wal_summary *x = a, *y = b;

	if (x->tli != y->tli)
		return x->tli < y->tli ? -1 : 1;
	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int gap(pgr_tli tli, pgr_lsn from, pgr_lsn to, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_USAGE,
			   "the server has no WAL summaries of timeline %" PRIu32 " from %" PGR_LSN_FMT
			   " to %" PGR_LSN_FMT,
			   tli, PGR_LSN_ARG(from), PGR_LSN_ARG(to));
}

/* Moves those of one timeline that touch [from, to) to list[*kept...]. */
static int select_timeline(struct pgr_wal_summary *list, size_t n, size_t *kept, pgr_tli tli, pgr_lsn from, pgr_lsn to,
			   struct pgr_err *err)
{
	pgr_lsn covered = from;

	for (size_t i = *kept; i < n && covered < to; i++) {
		if (list[i].tli != tli || list[i].end <= from || list[i].start >= to)
			continue;
		if (list[i].start > covered)
			return gap(tli, covered, list[i].start, err);
		if (list[i].end > covered)
			covered = list[i].end;
		list[(*kept)++] = list[i];
	}
	return covered < to ? gap(tli, covered, to, err) : PGR_OK;
}

/* Timelines have ascending numbers in a history, so that what is kept of one stands before what the next one reads. */
int pgr_wal_summaries_select(struct pgr_wal_summary *list, size_t *n, const struct pgr_history *h, pgr_lsn from,
			     pgr_lsn to, struct pgr_err *err)
{
	pgr_lsn begin = 0;
	size_t kept = 0;

	if (*n > 0) /* no summaries, no list */
		qsort(list, *n, sizeof(*list), by_position);
	for (size_t i = 0; i < h->n; i++) {
		pgr_lsn end = i + 1 < h->n && h->entries[i].end < to ? h->entries[i].end : to;
		pgr_lsn start = begin > from ? begin : from;

		if (start < end && select_timeline(list, *n, &kept, h->entries[i].tli, start, end, err) != PGR_OK)
			return PGR_ERR;
		begin = h->entries[i].end;
	}
	*n = kept;
	return PGR_OK;
}

/* ---- rows ---- */

static int wrong_answer(struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server's answer about its WAL summaries makes no sense");
}

static bool cell_u32(const struct pgr_row *row, unsigned col, uint32_t *out)
{
	struct pgr_span s = pgr_row_col(row, col);

	return s.p != NULL && pgr_num_u32((const char *)s.p, s.len, out);
}

static bool cell_lsn(const struct pgr_row *row, unsigned col, pgr_lsn *out)
{
	struct pgr_span s = pgr_row_col(row, col);

	return s.p != NULL && pgr_lsn_parse((const char *)s.p, s.len, out);
}

struct available {
	struct pgr_wal_summary *list;
	size_t n, cap;
};

static int take_available(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct available *a = arg;
	struct pgr_wal_summary s;

	if (!cell_u32(row, 0, &s.tli) || !cell_lsn(row, 1, &s.start) || !cell_lsn(row, 2, &s.end) || s.end < s.start)
		return wrong_answer(err);
	if (a->n == a->cap) {
		size_t cap = a->cap > 0 ? 2 * a->cap : 256;
		void *p = cap <= LIMITS_MAX ? realloc(a->list, cap * sizeof(s)) : NULL;

		if (p == NULL)
			return pgr_err_nomem(err);
		a->list = p;
		a->cap = cap;
	}
	a->list[a->n++] = s;
	return PGR_OK;
}

static int ask(struct pgr_client *sql, const struct pgr_buf *text, unsigned cols, pgr_sql_row_fn *fn, void *arg,
	       struct pgr_err *err)
{
	int rc = pgr_sql_rows(sql, text, cols, fn, arg, err);

	return rc == PGR_OK ? rc : pgr_err_prefix(err, "could not read the server's WAL summaries");
}

static int ask_available(struct pgr_client *sql, struct available *a, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = pgr_buf_puts(&text, "SELECT tli, start_lsn, end_lsn FROM pg_catalog.pg_available_wal_summaries()",
			      err);

	if (rc == PGR_OK)
		rc = ask(sql, &text, 3, take_available, a, err);
	pgr_buf_fini(&text);
	return rc;
}

/* "(0, 1, '0/28', '0/1000'), ...": numbers of summaries, and what they are. */
static int put_summaries(struct pgr_buf *b, const struct pgr_wal_summary *list, size_t from, size_t n,
			 struct pgr_err *err)
{
	for (size_t i = from; i < from + n; i++)
		if (pgr_buf_printf(b, err,
				   "%s(%zu, %" PRIu32 "::bigint, '%" PGR_LSN_FMT "'::pg_lsn, '%" PGR_LSN_FMT
				   "'::pg_lsn)",
				   i > from ? ", " : "", i, list[i].tli, PGR_LSN_ARG(list[i].start),
				   PGR_LSN_ARG(list[i].end)) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* `head` VALUES of the summaries `tail`, for one batch after the other. */
static int ask_batches(struct pgr_client *sql, const struct available *a, const char *head, const char *tail,
		       unsigned cols, pgr_sql_row_fn *fn, void *arg, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = PGR_OK;

	for (size_t i = 0; rc == PGR_OK && i < a->n; i += BATCH) {
		text.len = 0;
		rc = pgr_buf_puts(&text, head, err);
		if (rc == PGR_OK)
			rc = put_summaries(&text, a->list, i, a->n - i < BATCH ? a->n - i : BATCH, err);
		if (rc == PGR_OK)
			rc = pgr_buf_puts(&text, tail, err);
		if (rc == PGR_OK)
			rc = ask(sql, &text, cols, fn, arg, err);
	}
	pgr_buf_fini(&text);
	return rc;
}

/* ---- limits ---- */

static int same_relation(const struct pgr_limit *x, const struct pgr_limit *y)
{
	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	if (x->db != y->db)
		return x->db < y->db ? -1 : 1;
	return x->rel < y->rel ? -1 : x->rel > y->rel;
}

/* The one that counts comes first: the lowest, and the first of these. */
static int by_relation(const void *a, const void *b)
{
	const struct pgr_limit *x = a, *y = b;
	int c = same_relation(x, y);

	if (c != 0)
		return c;
	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->summary < y->summary ? -1 : x->summary > y->summary;
}

static void sort_limits(struct pgr_limits *l)
{
	size_t kept = 0;

	if (l->n > 0)
		qsort(l->list, l->n, sizeof(*l->list), by_relation);
	for (size_t i = 0; i < l->n; i++)
		if (kept == 0 || same_relation(&l->list[kept - 1], &l->list[i]) != 0)
			l->list[kept++] = l->list[i];
	l->n = kept;
}

static int too_many(struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "the server's WAL summaries have more limits and blocks than can be kept");
}

/* A relation that is cut again and again needs one place. */
static int make_room(struct pgr_limits *l, struct pgr_err *err)
{
	size_t cap = l->cap > 0 ? 2 * l->cap : 256;
	void *p;

	if (l->n < l->cap)
		return PGR_OK;
	sort_limits(l);
	if (l->n < l->cap / 2)
		return PGR_OK;
	if (cap > LIMITS_MAX)
		return too_many(err);
	p = realloc(l->list, cap * sizeof(*l->list));
	if (p == NULL)
		return pgr_err_nomem(err);
	l->list = p;
	l->cap = cap;
	return PGR_OK;
}

static int take_limit(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_limits *l = arg;
	struct pgr_limit one = {0};

	if (!cell_u32(row, 0, &one.summary) || !cell_u32(row, 1, &one.space) || !cell_u32(row, 2, &one.db) ||
	    !cell_u32(row, 3, &one.rel) || !cell_u32(row, 4, &one.block))
		return wrong_answer(err);
	if (make_room(l, err) != PGR_OK)
		return PGR_ERR;
	l->list[l->n++] = one;
	return PGR_OK;
}

#define CONTENTS                                                                                                       \
	") v (i, tli, a, b), LATERAL pg_catalog.pg_wal_summary_contents(v.tli, v.a, v.b) c WHERE c.relforknumber = 0"

static int ask_limits(struct pgr_limits *l, struct pgr_client *sql, const struct available *a, struct pgr_err *err)
{
	if (ask_batches(sql, a,
			"SELECT v.i, c.reltablespace, c.reldatabase, c.relfilenode, c.relblocknumber FROM (VALUES ",
			CONTENTS " AND c.is_limit_block", 5, take_limit, l, err) != PGR_OK)
		return PGR_ERR;
	sort_limits(l);
	return PGR_OK;
}

static int take_count(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_limits *l = arg;
	struct pgr_span s = pgr_row_col(row, 0);
	uint64_t n;

	if (s.p == NULL || !pgr_num_u64((const char *)s.p, s.len, &n) || n > UINT64_MAX - l->changed)
		return wrong_answer(err);
	l->changed += n;
	return PGR_OK;
}

static int ask_count(struct pgr_limits *l, struct pgr_client *sql, const struct available *a, struct pgr_err *err)
{
	return ask_batches(sql, a, "SELECT count(*) FROM (VALUES ", CONTENTS " AND NOT c.is_limit_block", 1, take_count,
			   l, err);
}

/* ---- blocks that came after ---- */

static struct pgr_limit *find(const struct pgr_limits *l, uint32_t space, uint32_t db, uint32_t rel)
{
	struct pgr_limit key = {.space = space, .db = db, .rel = rel};
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = same_relation(&l->list[mid], &key);

		if (c == 0)
			return &l->list[mid];
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

static int add_block(struct pgr_limits *l, struct pgr_limit *one, uint32_t block, struct pgr_err *err)
{
	if (l->nblocks >= BLOCKS_MAX)
		return too_many(err);
	if (one->nblocks == one->cap) {
		size_t cap = one->cap > 0 ? 2 * one->cap : 16;
		void *p = realloc(one->blocks, cap * sizeof(*one->blocks));

		if (p == NULL)
			return pgr_err_nomem(err);
		one->blocks = p;
		one->cap = cap;
	}
	one->blocks[one->nblocks++] = block;
	l->nblocks++;
	return PGR_OK;
}

static int take_block(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_limits *l = arg;
	uint32_t i, space, db, rel, block;
	struct pgr_limit *one;

	if (!cell_u32(row, 0, &i) || !cell_u32(row, 1, &space) || !cell_u32(row, 2, &db) || !cell_u32(row, 3, &rel) ||
	    !cell_u32(row, 4, &block))
		return wrong_answer(err);
	one = find(l, space, db, rel);
	if (one == NULL || i < one->summary || block < one->block)
		return PGR_OK;
	one->later |= i > one->summary;
	return add_block(l, one, block, err);
}

/* A relation with limit 0 comes whole, whatever was changed in it. */
static int put_relations(struct pgr_buf *b, const struct pgr_limits *l, size_t *n, struct pgr_err *err)
{
	*n = 0;
	for (size_t i = 0; i < l->n; i++) {
		const struct pgr_limit *one = &l->list[i];

		if (one->block == 0)
			continue;
		if (pgr_buf_printf(b, err,
				   "%s(%" PRIu32 "::bigint, %" PRIu32 "::bigint, %" PRIu32 "::bigint, %" PRIu32
				   "::bigint, %" PRIu32 ")",
				   *n > 0 ? ", " : "", one->space, one->db, one->rel, one->block,
				   one->summary) != PGR_OK)
			return PGR_ERR;
		++*n;
	}
	return PGR_OK;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int ask_blocks(struct pgr_limits *l, struct pgr_client *sql, const struct available *a, struct pgr_err *err)
{
	struct pgr_buf tail = {0};
	size_t n;
	int rc = pgr_buf_puts(&tail, CONTENTS " AND NOT c.is_limit_block AND EXISTS (SELECT FROM (VALUES ", err);

	if (rc == PGR_OK)
		rc = put_relations(&tail, l, &n, err);
	if (rc == PGR_OK && n > 0)
		rc = pgr_buf_puts(&tail,
				  ") l (space, db, rel, block, i) WHERE l.space = c.reltablespace::bigint"
				  " AND l.db = c.reldatabase::bigint AND l.rel = c.relfilenode::bigint"
				  " AND c.relblocknumber >= l.block AND v.i >= l.i)",
				  err);
	if (rc == PGR_OK && n > 0 && pgr_buf_str(&tail) == NULL)
		rc = pgr_err_nomem(err);
	if (rc == PGR_OK && n > 0)
		rc = ask_batches(
			sql, a,
			"SELECT v.i, c.reltablespace, c.reldatabase, c.relfilenode, c.relblocknumber FROM (VALUES ",
			(const char *)tail.data, 5, take_block, l, err);
	pgr_buf_fini(&tail);
	for (size_t i = 0; i < l->n; i++)
		if (l->list[i].nblocks > 0)
			qsort(l->list[i].blocks, l->list[i].nblocks, sizeof(uint32_t), by_number);
	return rc;
}

int pgr_limits_read(struct pgr_limits *out, struct pgr_client *sql, const struct pgr_history *h, pgr_lsn from,
		    pgr_lsn to, bool count, struct pgr_err *err)
{
	struct available a = {0};
	int rc = ask_available(sql, &a, err);

	if (rc == PGR_OK)
		rc = pgr_wal_summaries_select(a.list, &a.n, h, from, to, err);
	if (rc == PGR_OK)
		rc = ask_limits(out, sql, &a, err);
	if (rc == PGR_OK)
		rc = ask_blocks(out, sql, &a, err);
	if (rc == PGR_OK && count)
		rc = ask_count(out, sql, &a, err);
	free(a.list);
	if (rc != PGR_OK)
		pgr_limits_fini(out);
	return rc;
}

/* ---- what they say about a file ---- */

/* The number at the beginning of `s`, up to a slash; *end is what follows the slash. */
static bool number(const char *s, uint32_t *out, const char **end)
{
	size_t n = strcspn(s, "/");

	*end = s[n] == '/' ? s + n + 1 : s + n;
	return s[n] == '/' && pgr_num_u32(s, n, out);
}

/* base/<db>/..., global/..., pg_tblspc/<space>/PG_.../<db>/... */
static bool place_of(const char *path, uint32_t *space, uint32_t *db)
{
	const char *rest;

	*space = DEFAULT_SPACE;
	*db = 0;
	if (strncmp(path, "base/", 5) == 0)
		return number(path + 5, db, &rest);
	if (strncmp(path, "global/", 7) == 0) {
		*space = GLOBAL_SPACE;
		return true;
	}
	if (strncmp(path, "pg_tblspc/", 10) != 0 || !number(path + 10, space, &rest))
		return false;
	rest = strchr(rest, '/');
	return rest != NULL && number(rest + 1, db, &rest);
}

const struct pgr_limit *pgr_limits_find(const struct pgr_limits *l, const char *path)
{
	const struct pgr_limit *all;
	struct pgr_relfile r;
	uint32_t space, db;

	if (!pgr_relfile_parse(path, &r) || r.number > UINT32_MAX || !place_of(path, &space, &db))
		return NULL;
	all = find(l, space, db, 0);
	return all != NULL ? all : find(l, space, db, (uint32_t)r.number);
}

static int untrue(const char *name, const char *what, uint32_t block, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_DATA, "the server's incremental backup cannot be used: file \"%s\" %s %" PRIu32, name,
		    what, block);
	return pgr_err_hint(err, "Run it again: this file will then be sent as a whole.");
}

int pgr_limit_check(const struct pgr_limit *limit, const struct pgr_incremental *inc, uint32_t segment,
		    uint32_t segment_blocks, const char *name, struct pgr_err *err)
{
	uint64_t first = (uint64_t)segment * segment_blocks;

	if (limit == NULL)
		return PGR_OK;
	if (limit->rel == 0 || limit->block <= first)
		return untrue(name, "was sent in parts, but its relation was cut to length", limit->block, err);
	for (size_t i = 0; i < limit->nblocks; i++) {
		uint64_t block = limit->blocks[i];

		if (block >= first && block < first + inc->truncation &&
		    !pgr_incremental_has(inc, (uint32_t)(block - first)))
			return untrue(name, "lacks the changed block", (uint32_t)(block - first), err);
	}
	return PGR_OK;
}
