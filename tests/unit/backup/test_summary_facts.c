/* summary_facts.c: what a server says of itself, and servers that say odd things. */
#include <check.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/listing.h"
#include "backup/summary_facts.h"
#include "tests/support/sqlscript.h"

#define V17 170004

static struct sqlscript sql, repl;
static struct pgr_summary_facts facts;
static const struct pgr_system_id id = {.system_identifier = "7712345678901234567", .tli = 3, .flush = 0x9000};

#define COLUMNS 12

static const char *const good[COLUMNS] = {
	"7712345678901234567", "on",	    "f",   "202406281", "8192", "131072", "16777216", "1",
	"1A/2000028",	       "123456789", "0/0", "t",
};

static void setup(void)
{
	facts = (struct pgr_summary_facts){0};
	sqls_begin(&sql, V17, 0);
	sqls_begin(&repl, V17, 0);
}

static void teardown(void)
{
	pgr_summary_facts_fini(&facts);
	sqls_end(&sql);
	sqls_end(&repl);
}

static void answer(const char *const *cells)
{
	sqls_rows(&sql, COLUMNS, 1, cells);
}

static void history(const char *name, const char *text)
{
	const char *const cells[] = {name, text};

	sqls_rows(&repl, 2, 1, cells);
}

static int ask(void)
{
	return pgr_summary_facts_ask(&facts, sql.c, repl.c, &id, &sql.err);
}

START_TEST(test_good)
{
	struct pgr_delta_server s;

	answer(good);
	history("00000003.history", "1\t0/5000\tx\n2\t0/6000\ty\n");
	ck_assert_msg(ask() == PGR_OK, "%s", sql.err.msg);
	sqls_check_sent(&repl, "TIMELINE_HISTORY 3", true);
	pgr_summary_facts_server(&facts, V17, &id, &s);
	ck_assert(s.summarize_wal && !s.in_recovery);
	ck_assert_uint_eq(s.catalog_version, 202406281);
	ck_assert_uint_eq(s.block_bytes, 8192);
	ck_assert_uint_eq(s.segment_blocks, 131072);
	ck_assert_uint_eq(s.wal_segment_bytes, 16777216);
	ck_assert_uint_eq(s.checksum_version, 1);
	ck_assert_uint_eq(s.redo, 0x1A02000028);
	ck_assert_uint_eq(s.flush, 0x9000);
	ck_assert_uint_eq(s.history->n, 3);
	ck_assert_uint_eq(s.history->entries[0].end, 0x5000);
	ck_assert_uint_eq(s.history->entries[2].tli, 3);
	ck_assert_uint_eq(facts.database_bytes, 123456789);
}
END_TEST

static const struct {
	unsigned col;
	const char *value;
} odd[] = {
	{2, "maybe"}, {2, NULL},    {3, "x"},  {4, NULL}, {4, "0"},	     {4, "8191"},
	{4, "512"},   {4, "65536"}, {5, "0"},  {5, "-1"}, {5, "4294967295"}, {6, ""},
	{7, "x"},     {8, "1A"},    {8, NULL}, {9, NULL}, {9, "-1"},	     {10, NULL},
};

START_TEST(test_odd)
{
	const char *cells[COLUMNS];

	memcpy(cells, good, sizeof(good));
	cells[odd[_i].col] = odd[_i].value;
	answer(cells);
	ck_assert_int_eq(ask(), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_PROTOCOL, "makes no sense");
}
END_TEST

START_TEST(test_other_cluster)
{
	const char *cells[COLUMNS];

	memcpy(cells, good, sizeof(good));
	cells[0] = "7712345678901234568";
	answer(cells);
	ck_assert_int_eq(ask(), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_USAGE, "system identifier does not match");
}
END_TEST

/* Several hosts in the connection string. */
START_TEST(test_other_server)
{
	const char *cells[COLUMNS];

	memcpy(cells, good, sizeof(good));
	cells[11] = _i == 0 ? "f" : NULL;
	answer(cells);
	ck_assert_int_eq(ask(), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_USAGE, "lead to different servers");
}
END_TEST

/* A standby's backup holds what it has replayed, however much it has received. */
START_TEST(test_standby)
{
	static const struct {
		const char *replayed;
		pgr_lsn flush;
	} cases[] = {{"0/8000", 0x8000}, {"0/9000", 0x9000}, {"0/A000", 0x9000}, {"0/0", 0}};
	struct pgr_delta_server s;
	const char *cells[COLUMNS];

	memcpy(cells, good, sizeof(good));
	cells[2] = "t";
	cells[10] = cases[_i].replayed;
	answer(cells);
	history("00000003.history", "1\t0/5000\tx\n2\t0/6000\ty\n");
	ck_assert_msg(ask() == PGR_OK, "%s", sql.err.msg);
	pgr_summary_facts_server(&facts, V17, &id, &s);
	ck_assert(s.in_recovery);
	ck_assert_uint_eq(s.flush, cases[_i].flush);
}
END_TEST

START_TEST(test_refused)
{
	sqls_error(&sql, "42501", "permission denied");
	ck_assert_int_eq(ask(), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_SERVER, "permission denied");
	answer(good);
	history("00000003.history", "2\t0/6000\n1\t0/5000\n");
	ck_assert_int_eq(ask(), PGR_ERR);
	ck_assert_int_eq(sql.err.cls, PGR_E_DATA);
}
END_TEST

/* The first timeline has no file. */
START_TEST(test_first_timeline)
{
	struct pgr_history h;

	ck_assert_msg(pgr_summary_facts_history(repl.c, 1, &h, &sql.err) == PGR_OK, "%s", sql.err.msg);
	ck_assert_uint_eq(h.n, 1);
	ck_assert_uint_eq(h.entries[0].tli, 1);
	ck_assert_uint_eq(repl.sent.len, 0);
	pgr_history_fini(&h);
}
END_TEST

START_TEST(test_summarized)
{
	pgr_lsn to;

	sqls_row(&sql, "0/7000");
	ck_assert_int_eq(pgr_summary_facts_summarized(sql.c, 3, 0x6000, &to, &sql.err), PGR_OK);
	ck_assert_uint_eq(to, 0x7000);
	sqls_check_sent(&sql, "tli = 3", true);
	sqls_row(&sql, "0/5000");
	ck_assert_int_eq(pgr_summary_facts_summarized(sql.c, 3, 0x6000, &to, &sql.err), PGR_OK);
	ck_assert_uint_eq(to, 0x6000);
	sqls_row(&sql, NULL);
	ck_assert_int_eq(pgr_summary_facts_summarized(sql.c, 3, 0x6000, &to, &sql.err), PGR_OK);
	ck_assert_uint_eq(to, 0x6000);
}
END_TEST

START_TEST(test_spaces)
{
	static const char *const cells[] = {"16385", "/srv/ts", "16390", "pg_tblspc/16390"};
	static const char *const odd_cells[][2] = {
		{"x", "/srv"}, {"0", "/srv"}, {"16385", NULL}, {"16385", ""}, {NULL, "/srv"}};
	struct pgr_bb_tablespace *list;
	size_t n;

	sqls_rows(&sql, 2, 2, cells);
	ck_assert_msg(pgr_summary_facts_spaces(sql.c, &list, &n, &sql.err) == PGR_OK, "%s", sql.err.msg);
	ck_assert_uint_eq(n, 3);
	ck_assert_uint_eq(list[0].oid, 16385);
	ck_assert_str_eq(list[1].location, "pg_tblspc/16390");
	ck_assert_uint_eq(list[2].oid, 0);
	ck_assert_str_eq(list[2].location, "");
	pgr_listing_tablespaces_free(list, n);
	for (size_t i = 0; i < sizeof(odd_cells) / sizeof(odd_cells[0]); i++) {
		sqls_rows(&sql, 2, 1, odd_cells[i]);
		ck_assert_int_eq(pgr_summary_facts_spaces(sql.c, &list, &n, &sql.err), PGR_ERR);
		sqls_check_err(&sql.err, PGR_E_PROTOCOL, "makes no sense");
		ck_assert_ptr_null(list);
	}
}
END_TEST

/* Between the catalog and its link a tablespace may be dropped; one that goes away each time is not waited for. */
START_TEST(test_spaces_that_go_away)
{
	struct pgr_bb_tablespace *list;
	size_t n;

	sqls_error(&sql, "58P01", "could not stat file");
	sqls_row(&sql, "16385", "/srv/ts");
	ck_assert_msg(pgr_summary_facts_spaces(sql.c, &list, &n, &sql.err) == PGR_OK, "%s", sql.err.msg);
	ck_assert_uint_eq(n, 2);
	pgr_listing_tablespaces_free(list, n);
	sqls_error(&sql, "42501", "permission denied");
	ck_assert_int_eq(pgr_summary_facts_spaces(sql.c, &list, &n, &sql.err), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_SERVER, "could not list the server's tablespaces: ERROR:  permission denied");
	for (int i = 0; i < PGR_LISTING_LOOKS; i++)
		sqls_error(&sql, "58P01", "could not stat file");
	ck_assert_int_eq(pgr_summary_facts_spaces(sql.c, &list, &n, &sql.err), PGR_ERR);
	sqls_check_err(&sql.err, PGR_E_SERVER, "could not stat file");
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("summary_facts");
	TCase *t = tcase_create("summary_facts");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_good);
	tcase_add_loop_test(t, test_odd, 0, sizeof(odd) / sizeof(odd[0]));
	tcase_add_test(t, test_other_cluster);
	tcase_add_loop_test(t, test_other_server, 0, 2);
	tcase_add_loop_test(t, test_standby, 0, 4);
	tcase_add_test(t, test_refused);
	tcase_add_test(t, test_first_timeline);
	tcase_add_test(t, test_spaces);
	tcase_add_test(t, test_spaces_that_go_away);
	tcase_add_test(t, test_summarized);
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
