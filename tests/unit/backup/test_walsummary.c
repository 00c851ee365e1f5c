/* walsummary.c: which summaries are needed, what their limits say, and servers that say odd things. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/incremental.h"
#include "backup/walsummary.h"
#include "receiver/history.h"
#include "tests/support/sqlscript.h"

#define V17	170004
#define SEGMENT 1000u

static struct pgr_err err;

/* ---- which ones ---- */

/* Timeline 1 up to 100, timeline 3 up to 200, then 4. */
static struct pgr_history_entry line[] = {{1, 100}, {3, 200}, {4, 0}};
static const struct pgr_history history = {line, 3};
static const struct pgr_history single = {line, 1};

static int select_of(struct pgr_wal_summary *list, size_t *n, const struct pgr_history *h, pgr_lsn from, pgr_lsn to)
{
	err.msg[0] = '\0';
	return pgr_wal_summaries_select(list, n, h, from, to, &err);
}

START_TEST(test_select)
{
	struct pgr_wal_summary list[] = {
		{4, 250, 300}, {4, 200, 250}, {1, 0, 40},    {3, 100, 200},
		{1, 40, 100},  {2, 100, 200}, {1, 100, 120}, {4, 300, 400},
	};
	static const struct pgr_wal_summary expected[] = {{1, 40, 100}, {3, 100, 200}, {4, 200, 250}, {4, 250, 300}};
	size_t n = sizeof(list) / sizeof(list[0]);

	ck_assert_msg(select_of(list, &n, &history, 50, 260) == PGR_OK, "%s", err.msg);
	ck_assert_uint_eq(n, 4);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(list[i].tli, expected[i].tli);
		ck_assert_uint_eq(list[i].start, expected[i].start);
		ck_assert_uint_eq(list[i].end, expected[i].end);
	}
}
END_TEST

static const struct {
	pgr_lsn from, to;
	const char *gap; /* NULL: none */
	size_t n;
	struct pgr_wal_summary list[4];
} spans[] = {
	{10, 50, "timeline 1 from 0/A to 0/32", 0, {{0}}},
	{10, 50, NULL, 1, {{1, 10, 50}}},
	{10, 50, NULL, 1, {{1, 0, 90}}},
	{10, 50, NULL, 2, {{1, 0, 30}, {1, 20, 90}}},
	{10, 50, "timeline 1 from 0/1E to 0/1F", 2, {{1, 0, 30}, {1, 31, 90}}},
	{10, 50, "timeline 1 from 0/A to 0/B", 1, {{1, 11, 90}}},
	{10, 50, "timeline 1 from 0/31 to 0/32", 1, {{1, 0, 49}}},
	{10, 50, "timeline 1 from 0/A to 0/32", 1, {{2, 0, 90}}},
	{10, 10, NULL, 0, {{0}}},
	{90, 150, "timeline 3 from 0/64 to 0/96", 1, {{1, 0, 100}}},
	{90, 150, NULL, 2, {{1, 0, 100}, {3, 100, 150}}},
	/* the next timeline's own summary of what came before does not help */
	{90, 150, "timeline 1 from 0/5A to 0/64", 1, {{3, 0, 150}}},
	{100, 150, NULL, 1, {{3, 0, 150}}},
	{90, 250, "timeline 4 from 0/C8 to 0/C9", 3, {{1, 90, 100}, {3, 100, 200}, {4, 201, 250}}},
	/* ends before it starts to be of interest */
	{50, 60, "timeline 1 from 0/32 to 0/3C", 2, {{1, 10, 50}, {1, 60, 90}}},
};

START_TEST(test_gaps)
{
	struct pgr_wal_summary list[4];
	size_t n = spans[_i].n;
	int rc;

	memcpy(list, spans[_i].list, sizeof(list));
	rc = select_of(list, &n, &history, spans[_i].from, spans[_i].to);
	ck_assert_msg((rc == PGR_OK) == (spans[_i].gap == NULL), "%s", err.msg);
	if (rc == PGR_OK)
		return;
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err.msg, spans[_i].gap) != NULL, "\"%s\" is not in \"%s\"", spans[_i].gap, err.msg);
}
END_TEST

/* ---- reading ---- */

static const char *const two_summaries[] = {"1", "0/50", "0/200", "1", "0/0", "0/50"};

#define ROWS(s, cols, ...)                                                                                             \
	sqls_rows(s, cols, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)) / (cols),                \
		  (const char *const[]){__VA_ARGS__})

static const struct pgr_limit *limit_of(const struct pgr_limits *l, const char *path)
{
	return pgr_limits_find(l, path);
}

START_TEST(test_read)
{
	struct pgr_limits l = {0};
	const struct pgr_limit *one;
	struct sqlscript s;

	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, 2, two_summaries);
	/* 16384: cut to 300, then to 200, then to 250; 16385: new; database 7: made by copying files; a shared relation
	 */
	ROWS(&s, 5, "0", "1663", "5", "16384", "300", "1", "1663", "5", "16384", "250", "1", "1663", "5", "16384",
	     "200", "0", "1663", "5", "16385", "0", "1", "1663", "7", "0", "0", "0", "1664", "0", "1262", "1", "1",
	     "16999", "5", "16390", "10");
	/* one that is not asked for, one before the limit's summary, one below it: not believed to be of use */
	ROWS(&s, 5, "1", "1663", "5", "16384", "230", "1", "1663", "5", "16384", "201", "0", "1663", "5", "16384",
	     "290", "1", "1663", "5", "16384", "199", "1", "1663", "5", "4711", "5", "1", "1664", "0", "1262", "3");
	sqls_row(&s, "1234");
	ck_assert_msg(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, true, &s.err) == PGR_OK, "%s", s.err.msg);
	sqls_check_sent(&s,
			"(0, 1::bigint, '0/0'::pg_lsn, '0/50'::pg_lsn), (1, 1::bigint, '0/50'::pg_lsn, "
			"'0/200'::pg_lsn)) v",
			true);
	sqls_check_sent(&s, "(1663::bigint, 5::bigint, 16384::bigint, 200::bigint, 1)", true);
	sqls_check_sent(&s, "16385::bigint", false);
	ck_assert_uint_eq(l.changed, 1234);
	one = limit_of(&l, "base/5/16384.1");
	ck_assert_ptr_nonnull(one);
	ck_assert_uint_eq(one->block, 200);
	ck_assert_uint_eq(one->summary, 1);
	ck_assert(!one->later);
	ck_assert_uint_eq(one->nblocks, 2);
	ck_assert_uint_eq(one->blocks[0], 201);
	ck_assert_uint_eq(one->blocks[1], 230);
	ck_assert_uint_eq(limit_of(&l, "base/5/16385")->block, 0);
	ck_assert_uint_eq(limit_of(&l, "base/7/1259")->rel, 0);
	ck_assert(limit_of(&l, "global/1262")->later);
	ck_assert_uint_eq(limit_of(&l, "pg_tblspc/16999/PG_17_202406281/5/16390")->block, 10);
	ck_assert_ptr_null(limit_of(&l, "base/5/16390"));
	ck_assert_ptr_null(limit_of(&l, "base/6/16384"));
	ck_assert_ptr_null(limit_of(&l, "pg_tblspc/16999/PG_17_202406281/6/16390"));
	ck_assert_ptr_null(limit_of(&l, "global/16384"));
	ck_assert_ptr_null(limit_of(&l, "base/5/pg_filenode.map"));
	ck_assert_ptr_null(limit_of(&l, "PG_VERSION"));
	pgr_limits_fini(&l);
	sqls_end(&s);
}
END_TEST

/* No limits: nothing more is asked.  Limits of 0 alone neither. */
START_TEST(test_read_little)
{
	struct pgr_limits l = {0};
	struct sqlscript s;

	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, 2, two_summaries);
	sqls_rows(&s, 5, 0, NULL);
	ck_assert_msg(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, false, &s.err) == PGR_OK, "%s", s.err.msg);
	ck_assert_uint_eq(l.n, 0);
	pgr_limits_fini(&l);
	sqls_rows(&s, 3, 2, two_summaries);
	ROWS(&s, 5, "0", "1663", "5", "16384", "0");
	ck_assert_msg(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, false, &s.err) == PGR_OK, "%s", s.err.msg);
	ck_assert_uint_eq(l.n, 1);
	pgr_limits_fini(&l);
	sqls_end(&s);
}
END_TEST

/* Many summaries are asked for in several questions, and numbered through. */
START_TEST(test_read_many)
{
	enum { N = 150 };
	const char *cells[3 * N];
	char text[2 * N][16];
	struct pgr_limits l = {0};
	struct sqlscript s;

	for (int i = 0; i < N; i++) {
		snprintf(text[2 * i], sizeof(text[0]), "0/%X", i);
		snprintf(text[2 * i + 1], sizeof(text[0]), "0/%X", i + 1);
		cells[3 * i] = "1";
		cells[3 * i + 1] = text[2 * i];
		cells[3 * i + 2] = text[2 * i + 1];
	}
	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, N, cells);
	ROWS(&s, 5, "63", "1663", "5", "1", "7");
	ROWS(&s, 5, "64", "1663", "5", "1", "6");
	ROWS(&s, 5, "149", "1663", "5", "1", "9");
	sqls_rows(&s, 5, 0, NULL);
	sqls_rows(&s, 5, 0, NULL);
	ROWS(&s, 5, "128", "1663", "5", "1", "8");
	ck_assert_msg(pgr_limits_read(&l, s.c, &single, 0, N, false, &s.err) == PGR_OK, "%s", s.err.msg);
	sqls_check_sent(&s, "VALUES (64, 1::bigint, '0/40'::pg_lsn", true);
	sqls_check_sent(&s, "VALUES (128, 1::bigint, '0/80'::pg_lsn", true);
	ck_assert_uint_eq(l.n, 1);
	ck_assert_uint_eq(l.list[0].block, 6);
	ck_assert_uint_eq(l.list[0].summary, 64);
	ck_assert(l.list[0].later);
	pgr_limits_fini(&l);
	sqls_end(&s);
}
END_TEST

static const char *const odd_available[][3] = {
	{"x", "0/0", "0/50"}, {NULL, "0/0", "0/50"}, {"1", "0-0", "0/50"},
	{"1", "0/0", NULL},   {"1", "0/51", "0/50"}, {"4294967296", "0/0", "0/50"},
};

START_TEST(test_odd_available)
{
	struct pgr_limits l = {0};
	struct sqlscript s;

	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, 1, odd_available[_i]);
	ck_assert_int_eq(pgr_limits_read(&l, s.c, &single, 0, 0x50, false, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_PROTOCOL, "makes no sense");
	sqls_end(&s);
}
END_TEST

static const char *const odd_limits[][5] = {
	{"x", "1663", "5", "1", "7"},  {"0", NULL, "5", "1", "7"},     {"0", "1663", "-5", "1", "7"},
	{"0", "1663", "5", "", "7"},   {"0", "1663", "5", "1", "7.0"}, {"0", "1663", "5", "1", "4294967296"},
	{"0", "1663", "5", NULL, "7"},
};

START_TEST(test_odd_limits)
{
	struct pgr_limits l = {0};
	struct sqlscript s;

	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, 2, two_summaries);
	sqls_rows(&s, 5, 1, odd_limits[_i]);
	ck_assert_int_eq(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, false, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_PROTOCOL, "makes no sense");
	ck_assert_ptr_null(l.list);
	sqls_end(&s);
}
END_TEST

START_TEST(test_refused)
{
	struct pgr_limits l = {0};
	struct sqlscript s;

	sqls_begin(&s, V17, 0);
	sqls_rows(&s, 3, 2, two_summaries);
	ck_assert_int_eq(pgr_limits_read(&l, s.c, &single, 0x10, 0x201, false, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_USAGE, "from 0/200 to 0/201");
	sqls_rows(&s, 3, 2, two_summaries);
	ROWS(&s, 5, "0", "1663", "5", "16384", "3");
	sqls_error(&s, "58P01", "could not open file \"pg_wal/summaries/x\"");
	ck_assert_int_eq(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, false, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "could not read the server's WAL summaries");
	ck_assert_ptr_null(l.list);
	sqls_fatal(&s, true);
	ck_assert_int_eq(pgr_limits_read(&l, s.c, &single, 0x10, 0x60, false, &s.err), PGR_ERR);
	sqls_end(&s);
}
END_TEST

/* ---- what an increment must have ---- */

static uint32_t after[] = {210, 250, 1500};
static uint32_t sent_blocks[] = {3, 210, 250};

START_TEST(test_check)
{
	struct pgr_limit limit = {.space = 1663, .db = 5, .rel = 16384, .block = 200, .blocks = after, .nblocks = 3};
	struct pgr_incremental inc = {.truncation = 312, .nblocks = 3, .blocks = sent_blocks};

	ck_assert_int_eq(pgr_limit_check(NULL, &inc, 0, SEGMENT, "x", &err), PGR_OK);
	ck_assert_msg(pgr_limit_check(&limit, &inc, 0, SEGMENT, "x", &err) == PGR_OK, "%s", err.msg);
	inc.nblocks = 2;
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 0, SEGMENT, "x", &err), PGR_ERR);
	sqls_check_err(&err, PGR_E_DATA, "file \"x\" lacks the changed block 250");
	/* what was cut off after the backup began need not be there */
	inc.truncation = 250;
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 0, SEGMENT, "x", &err), PGR_OK);
	/* the next segment must not come in parts: its beginning is above the limit */
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 1, SEGMENT, "x", &err), PGR_ERR);
	sqls_check_err(&err, PGR_E_DATA, "sent in parts");
	limit.block = 1200;
	inc.truncation = 600;
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 1, SEGMENT, "x", &err), PGR_ERR);
	sqls_check_err(&err, PGR_E_DATA, "lacks the changed block 500");
	limit.block = 0;
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 0, SEGMENT, "x", &err), PGR_ERR);
	limit.block = 200;
	limit.rel = 0;
	ck_assert_int_eq(pgr_limit_check(&limit, &inc, 0, SEGMENT, "x", &err), PGR_ERR);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("walsummary");
	TCase *t = tcase_create("walsummary");

	tcase_add_test(t, test_select);
	tcase_add_loop_test(t, test_gaps, 0, sizeof(spans) / sizeof(spans[0]));
	tcase_add_test(t, test_read);
	tcase_add_test(t, test_read_little);
	tcase_add_test(t, test_read_many);
	tcase_add_loop_test(t, test_odd_available, 0, sizeof(odd_available) / sizeof(odd_available[0]));
	tcase_add_loop_test(t, test_odd_limits, 0, sizeof(odd_limits) / sizeof(odd_limits[0]));
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_check);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
