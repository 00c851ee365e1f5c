#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "backup/delta_doubt.h"
#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

static struct tmptree tmp;
static struct pgr_layout *layout;
static struct pgr_localtree tree;
static struct pgr_filelist list;
static struct pgr_delta_plan plan;
static struct pgr_err err;

static const char *const patterns[] = {"conf.d", "*.crt"};
static const struct pgr_keep keep = {.patterns = patterns, .n = 2};

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void setup(void)
{
	char data[4096];
	struct pgr_layout_opts opts = {.data_dir = data, .dir_mode = 0700, .file_mode = 0600, .in_place = true};

	tmp_make(&tmp);
	snprintf(data, sizeof(data), "%s/data", tmp.path);
	tmp_mkdir(&tmp, "data", 0700);
	tmp_mkdir(&tmp, "data/conf.d", 0700);
	tmp_write(&tmp, "data/postgresql.conf", "port = 5432\n");
	tmp_write(&tmp, "data/pg_hba.conf", "");
	tmp_write(&tmp, "data/conf.d/mine", "");
	tmp_write(&tmp, "data/ca.crt", "x");
	tmp_write(&tmp, "data/PG_VERSION", "");
	must(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err));
	must(pgr_layout_prepare(layout, &err));
}

static void teardown(void)
{
	pgr_delta_plan_fini(&plan);
	pgr_filelist_fini(&list);
	pgr_localtree_fini(&tree);
	pgr_layout_free(layout);
	tmp_remove(&tmp);
}

/* All that the server has is in the list, and not conf.d/mine. */
static void make_plan(bool with_list)
{
	static const char *const served[] = {"PG_VERSION", "ca.crt", "pg_hba.conf", "postgresql.conf"};

	for (size_t i = 0; with_list && i < sizeof(served) / sizeof(served[0]); i++)
		must(pgr_filelist_add(&list, 150020, served[i], strlen(served[i]), false, 100, 0, &err));
	must(pgr_filelist_finish(&list, &err));
	must(pgr_localtree_scan(&tree, pgr_sys_real(), layout, &err));
	must(pgr_delta_plan_make(&plan, &list, &tree, layout, &keep, &err));
}

static int doubt(const struct pgr_sys *sys, bool with_list)
{
	const struct pgr_delta_doubt d = {
		.sys = sys, .layout = layout, .tree = &tree, .list = with_list ? &list : NULL, .keep = &keep};

	return pgr_delta_doubt_kept(&d, &plan, &err);
}

static bool goes(const char *path)
{
	for (size_t i = 0; i < plan.nremovals; i++)
		if (strcmp(plan.removals[i], path) == 0)
			return true;
	return false;
}

static enum pgr_delta_action action(const char *path)
{
	return plan.files[pgr_filelist_find(&list, path) - list.entries].action;
}

START_TEST(empty_ones)
{
	make_plan(true);
	must(doubt(pgr_sys_real(), true));
	ck_assert(goes("pg_hba.conf") && action("pg_hba.conf") == PGR_DELTA_FETCH);
	ck_assert(!goes("postgresql.conf") && action("postgresql.conf") == PGR_DELTA_KEEP);
	ck_assert(!goes("ca.crt") && action("ca.crt") == PGR_DELTA_KEEP);
	ck_assert(!goes("conf.d/mine") && !goes("PG_VERSION"));
	ck_assert_uint_eq(plan.nkeep, 2);
	ck_assert_uint_eq(plan.nfetch, 1);
	ck_assert_uint_eq(plan.fetch_bytes, 100 + 100); /* PG_VERSION is longer there by so much */
}
END_TEST

START_TEST(zeros_at_the_end)
{
	FILE *f = fopen(tmp_at(&tmp, "data/ca.crt"), "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite("abc\0", 1, 4, f), 4);
	ck_assert_int_eq(fclose(f), 0);
	make_plan(true);
	must(doubt(pgr_sys_real(), true));
	ck_assert(goes("ca.crt") && action("ca.crt") == PGR_DELTA_FETCH);
}
END_TEST

START_TEST(without_a_list)
{
	make_plan(false);
	must(doubt(pgr_sys_real(), false));
	ck_assert(goes("pg_hba.conf") && !goes("conf.d/mine"));
	ck_assert(!goes("postgresql.conf") && !goes("ca.crt"));
}
END_TEST

START_TEST(faults)
{
	struct pgr_fault_sys f;
	int rc = PGR_ERR;

	make_plan(true);
	for (unsigned at = 1; rc != PGR_OK; at++) {
		unsigned fds = tmp_open_fds();

		ck_assert_uint_lt(at, 100);
		pgr_fault_sys_init(&f, at, EIO);
		rc = doubt(&f.sys, true);
		ck_assert_uint_eq(tmp_open_fds(), fds);
		if (rc != PGR_OK)
			ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("delta_doubt");
	TCase *tc = tcase_create("doubt");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, empty_ones);
	tcase_add_test(tc, zeros_at_the_end);
	tcase_add_test(tc, without_a_list);
	tcase_add_test(tc, faults);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
