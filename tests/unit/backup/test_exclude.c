#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/exclude.h"

/* What PQserverVersion says of the first minor version, whose rules are its major version's. */
enum {
	V10 = 100000,
	V11 = 110000,
	V12 = 120000,
	V13 = 130000,
	V14 = 140000,
	V15 = 150000,
	V16 = 160000,
	V17 = 170000,
	V18 = 180000
};
static const int versions[] = {V10, V11, V12, V13, V14, V15, V16, V17, V18};
#define VERSIONS (sizeof(versions) / sizeof(versions[0]))

static int version; /* of the test that runs: each is one process, or runs after the other */

static enum pgr_exclusion file(const char *path)
{
	return pgr_exclude_entry(version, path, false);
}

static enum pgr_exclusion dir(const char *path)
{
	return pgr_exclude_entry(version, path, true);
}

/* ---- entries ---- */

static const char *const sent[] = {
	"PG_VERSION",
	"postgresql.conf",
	"postgresql.auto.conf",
	"pg_hba.conf",
	"standby.signal",
	"global/pg_control",
	"global/1262",
	"global/pg_filenode.map",
	"base/5/1259",
	"base/5/1259_fsm",
	"base/5/1259_vm.1",
	"base/5/PG_VERSION",
	"base/5/16390_init",
	"base/5/t3",
	"base/5/t3_",
	"base/5/t3_x",
	"base/5/tx_3",
	"base/5/t_3",
	"base/5/t3_1_foo",
	"base/5/t3_1.",
	"base/5/t3_1_fsmx",
	"base/5/3_1",
	"global/t3_123",
	"base/t3_123",
	"t3_123",
	"base/5/sub/t3_123",
	"base/x5/t3_123",
	"log/t3_1",
	"pg_tblspc/x/PG_15_202209061/5/t3_1",
	"pg_xact/0000",
	"pg_multixact/offsets/0000",
	"pg_logical/replorigin_checkpoint",
	"pg_stat/pgstat.stat",
	"current_logfiles",
	"current_logfiles.tmpx",
	"postgresql.auto.conf.tmp2",
	"backup_label.old",
	"tablespace_map.old",
	"sub/backup_manifest.tmp",
	"postmaster.pid2",
	"xpostmaster.pid",
	"postmaster.opts.bak",
	"xpgsql_tmp",
	"pgsql_tm",
	"xpg_internal.init",
	"pg_internal",
	"x.DS_Store",
	".DS_Store2",
	"pg_wal2",
	"sub/pg_wal",
	"sub/pg_wal/x",
	"pg_notifyx",
	"pg_stat_tmpx",
	"pg_replslotx",
	"pg_dynshmemx",
	"pg_serialx",
	"pg_snapshotsx",
	"pg_subtransx",
	"pg_wal.old",
	"xpg_notify",
	".s.PGSQL.5432.lock",
	".s.PGSQL.",
	".s.PGSQL.x",
	"s.PGSQL.5432",
	"pg_tblspc/file",
	"pg_tblspc/16385x/what",
	"odd/new\nline",
	"odd/\xFF",
	"a",
	"log/postgresql.log",
};

START_TEST(what_is_sent)
{
	for (size_t v = 0; v < VERSIONS; v++) {
		version = versions[v];
		for (size_t i = 0; i < sizeof(sent) / sizeof(sent[0]); i++)
			ck_assert_msg(file(sent[i]) == PGR_INCLUDE, "%s of %d", sent[i], version);
	}
}
END_TEST

static const char *const sent_dirs[] = {
	"base",
	"base/5",
	"global",
	"pg_tblspc",
	"pg_tblspc/16385",
	"pg_logical",
	"pg_logical/snapshots",
	"pg_xact",
	"pg_twophase",
	"pg_commit_ts",
	"pg_stat",
	"log",
	"sub/pg_wal",
	"pg_tblspc/file",
	"sub/pg_wal/archive_status",
};

START_TEST(directories_that_are_sent)
{
	for (size_t v = 0; v < VERSIONS; v++) {
		version = versions[v];
		for (size_t i = 0; i < sizeof(sent_dirs) / sizeof(sent_dirs[0]); i++)
			ck_assert_msg(dir(sent_dirs[i]) == PGR_INCLUDE, "%s of %d", sent_dirs[i], version);
	}
}
END_TEST

/* Since which version; as a file, as a directory, and what is in it. */
static const struct left_out {
	const char *path;
	int since;
} left_out[] = {
	{"pgsql_tmp", V10},
	{"pgsql_tmp1234.0", V10},
	{"base/pgsql_tmp", V10},
	{"pg_tblspc/16385/PG_%_1/pgsql_tmp", V10},
	{"sub/deep/er/pgsql_tmp.x", V10},
	{"postgresql.auto.conf.tmp", V10},
	{"sub/postgresql.auto.conf.tmp", V10},
	{"current_logfiles.tmp", V10},
	{"backup_label", V10},
	{"pgr_seed.state", V10},
	{"pgr_seed.state.tmp", V10},
	{"global/pg_control.pgr", V10},
	{"sub/backup_label", V10},
	{"tablespace_map", V10},
	{"postmaster.pid", V10},
	{"postmaster.opts", V10},
	{"base/5/postmaster.opts", V10},
	{".s.PGSQL.5432", V10},
	{"sockets/.s.PGSQL.1", V10},
	{"pg_internal.init", V11},
	{"pg_internal.init.1234", V11},
	{"global/pg_internal.init", V11},
	{"base/5/pg_internal.init.77", V11},
	{"base/5/t3_123", V11},
	{"base/5/t3_123_fsm", V11},
	{"base/5/t3_123_vm.1", V11},
	{"base/5/t3_123_init", V11},
	{"base/5/t3_123.4", V11},
	{"base/5/t99999999999999_99999999999999.99999999999999", V11},
	{"base/5/t01_01.01", V11},
	{"pg_tblspc/16385/PG_%_1/5/t3_123", V11},
	{"backup_manifest", V13},
	{"sub/backup_manifest", V13},
	{"backup_manifest.tmp", V10},
	{".DS_Store", V15},
	{"base/5/.DS_Store", V15},
};

/* A path with the major version for its "%". */
static const char *fill(const char *path)
{
	static char out[128];
	const char *percent = strchr(path, '%');

	if (percent == NULL)
		return path;
	snprintf(out, sizeof(out), "%.*s%d%s", (int)(percent - path), path, version / 10000, percent + 1);
	return out;
}

START_TEST(what_is_left_out)
{
	for (size_t v = 0; v < VERSIONS; v++) {
		version = versions[v];
		for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++) {
			const char *path = fill(left_out[i].path);
			enum pgr_exclusion want = version >= left_out[i].since ? PGR_EXCLUDE : PGR_INCLUDE;
			char below[160];

			snprintf(below, sizeof(below), "%s/below", path);
			ck_assert_msg(file(path) == want, "%s of %d", path, version);
			ck_assert_msg(dir(path) == want, "%s/ of %d", path, version);
			ck_assert_msg(file(below) == want, "%s of %d", below, version);
		}
	}
}
END_TEST

START_TEST(other_minor_versions)
{
	version = 180099;
	ck_assert_int_eq(file(".DS_Store"), PGR_EXCLUDE);
	version = 190000; /* one that does not exist yet */
	ck_assert_int_eq(file(".DS_Store"), PGR_EXCLUDE);
	ck_assert_int_eq(file("backup_manifest"), PGR_EXCLUDE);
	version = 109999;
	ck_assert_int_eq(file("base/5/t1_1"), PGR_INCLUDE);
	ck_assert_int_eq(file("pg_internal.init"), PGR_INCLUDE);
}
END_TEST

static const char *const emptied[] = {
	"pg_stat_tmp", "pg_replslot", "pg_dynshmem",	 "pg_notify",	      "pg_serial",	  "pg_snapshots",
	"pg_subtrans", "pg_wal",      "sub/pg_stat_tmp", "a/b/c/pg_replslot", "base/5/pg_notify",
};

START_TEST(directories_that_stay_empty)
{
	for (size_t v = 0; v < VERSIONS; v++) {
		version = versions[v];
		for (size_t i = 0; i < sizeof(emptied) / sizeof(emptied[0]); i++) {
			char below[64], deep[64];

			snprintf(below, sizeof(below), "%s/x", emptied[i]);
			snprintf(deep, sizeof(deep), "%s/x/y", emptied[i]);
			ck_assert_msg(dir(emptied[i]) == PGR_EXCLUDE_CONTENTS, "%s of %d", emptied[i], version);
			ck_assert_msg(file(emptied[i]) == PGR_EXCLUDE, "%s of %d", emptied[i], version);
			ck_assert_msg(file(below) == PGR_EXCLUDE, "%s of %d", below, version);
			ck_assert_msg(dir(below) == PGR_EXCLUDE, "%s/ of %d", below, version);
			ck_assert_msg(file(deep) == PGR_EXCLUDE, "%s of %d", deep, version);
		}
	}
}
END_TEST

START_TEST(tablespaces)
{
	static const char *const foreign[] = {
		"pg_tblspc/1/PG_14_202107181",
		"pg_tblspc/1/PG_1_202209061",
		"pg_tblspc/1/PG_155_202209061",
		"pg_tblspc/1/PG_15_",
		"pg_tblspc/1/PG_15_x",
		"pg_tblspc/1/PG_15_1x",
		"pg_tblspc/1/PG_15",
		"pg_tblspc/1/PG__1",
		"pg_tblspc/1/PG_",
		"pg_tblspc/1/PG_9.6_201608131",
		"pg_tblspc/1/base",
		"pg_tblspc/1/pg_15_1",
		"pg_tblspc/1/PG_99999999999999999999_1",
		"pg_tblspc/1/PG_4294967311_1",
	};

	version = V15;
	ck_assert_int_eq(dir("pg_tblspc/16385/PG_15_202209061"), PGR_INCLUDE);
	ck_assert_int_eq(dir("pg_tblspc/16385/PG_15_202209061/5"), PGR_INCLUDE);
	ck_assert_int_eq(file("pg_tblspc/16385/PG_15_202209061/5/16390"), PGR_INCLUDE);
	ck_assert_int_eq(file("pg_tblspc/16385/PG_15_202209061/x"), PGR_INCLUDE);
	ck_assert_int_eq(file("sub/pg_tblspc/1/x"), PGR_INCLUDE);
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
		char below[64];

		snprintf(below, sizeof(below), "%s/5", foreign[i]);
		ck_assert_msg(dir(foreign[i]) == PGR_EXCLUDE, "%s", foreign[i]);
		ck_assert_msg(file(foreign[i]) == PGR_EXCLUDE, "%s", foreign[i]);
		ck_assert_msg(dir(below) == PGR_EXCLUDE, "%s", below);
	}
	version = V18;
	ck_assert_int_eq(dir("pg_tblspc/16385/PG_15_202209061"), PGR_EXCLUDE);
	ck_assert_int_eq(dir("pg_tblspc/16385/PG_18_202506291"), PGR_INCLUDE);
}
END_TEST

/* Paths that no listing has: nothing to crash on. */
START_TEST(strange_paths)
{
	version = V15;
	ck_assert_int_eq(dir(""), PGR_INCLUDE);
	ck_assert_int_eq(dir("/"), PGR_INCLUDE);
	ck_assert_int_eq(dir("base/"), PGR_INCLUDE);
	ck_assert_int_eq(dir("//"), PGR_INCLUDE);
	ck_assert_int_eq(file("/postmaster.pid"), PGR_EXCLUDE);
}
END_TEST

/* ---- unlogged relations ---- */

static const char *init_of(const char *path)
{
	static char name[PGR_INIT_FORK_MAX];

	return pgr_exclude_unlogged(version, path, name) ? name : NULL;
}

static void all_versions_from(int since, const char *path, const char *want)
{
	for (size_t v = 0; v < VERSIONS; v++) {
		const char *got;

		version = versions[v];
		got = init_of(path);
		if (version < since)
			ck_assert_msg(got == NULL, "%s of %d", path, version);
		else
			ck_assert_msg(got != NULL && strcmp(got, want) == 0, "%s of %d", path, version);
	}
}

START_TEST(forks_of_what_may_be_unlogged)
{
	all_versions_from(V11, "base/5/16390", "16390_init");
	all_versions_from(V11, "base/5/16390.1", "16390_init");
	all_versions_from(V11, "base/5/16390_fsm", "16390_init");
	all_versions_from(V11, "base/5/16390_vm.17", "16390_init");
	all_versions_from(V11, "base/5/1", "1_init");
	all_versions_from(V11, "base/5/4294967295", "4294967295_init");
	all_versions_from(V11, "pg_tblspc/16385/PG_15_202209061/5/16390_vm", "16390_init");
	all_versions_from(V17, "global/1262", "1262_init");
	all_versions_from(V17, "global/1262_fsm", "1262_init");
}
END_TEST

START_TEST(never_unlogged)
{
	static const char *const paths[] = {
		"base/5/16390_init",
		"base/5/16390_init.1",
		"base/5/t3_16390",
		"base/5/16390_foo",
		"base/5/16390_main",
		"base/5/16390.",
		"base/5/x",
		"base/5/",
		"base/5/PG_VERSION",
		"base/16390",
		"16390",
		"pg_xact/0001",
		"base/5/sub/16390",
		"base/5x/16390",
		"pg_tblspc/16385/16390",
		"pg_tblspc/16385/PG_15_1/16390",
		"pg_tblspc/16385/5/16390",
		"sub/base/5/16390",
		"base/5/12345678901",
		"base/5/16390_fsm_vm",
		"base/5/16390.1.2",
		"global/x/1",
		"base/5/16390.1_fsm",
	};

	for (size_t v = 0; v < VERSIONS; v++) {
		version = versions[v];
		for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
			ck_assert_msg(init_of(paths[i]) == NULL, "%s of %d", paths[i], version);
	}
}
END_TEST

/* Since 17 the numbers must be such as the server writes (reinit.c). */
START_TEST(numbers_that_changed_their_meaning)
{
	static const struct {
		const char *path, *init;
	} until_16[] = {
		{"base/5/016390", "016390_init"},	    {"base/5/0", "0_init"},
		{"base/5/4294967296", "4294967296_init"},   {"base/5/9999999999", "9999999999_init"},
		{"base/5/16390.0", "16390_init"},	    {"base/5/16390.01", "16390_init"},
		{"base/5/16390.99999999999", "16390_init"},
	};

	for (size_t i = 0; i < sizeof(until_16) / sizeof(until_16[0]); i++) {
		version = V16;
		ck_assert_str_eq(init_of(until_16[i].path), until_16[i].init);
		version = V17;
		ck_assert_msg(init_of(until_16[i].path) == NULL, "%s", until_16[i].path);
	}
}
END_TEST

/* ---- settings ---- */

START_TEST(directories_of_settings)
{
	ck_assert(pgr_exclude_is("stats", "stats", NULL));
	ck_assert(pgr_exclude_is("stats", "./stats", NULL));
	ck_assert(pgr_exclude_is("stats", "stats/", "/data"));
	ck_assert(pgr_exclude_is("a/stats", "a/stats", "/data"));
	ck_assert(pgr_exclude_is("stats", "/data/stats", "/data"));
	ck_assert(pgr_exclude_is("stats", "/data/stats", "/data/"));
	ck_assert(pgr_exclude_is("a/b", "/data/a/b/", "/data"));

	ck_assert(!pgr_exclude_is("stats", "/data/stats", NULL));
	ck_assert(!pgr_exclude_is("stats", "/data/stats", ""));
	ck_assert(!pgr_exclude_is("data/stats", "/data/stats", "/"));
	ck_assert(!pgr_exclude_is("stats", "/data2/stats", "/data"));
	ck_assert(!pgr_exclude_is("stats", "/run/stats", "/data"));
	ck_assert(!pgr_exclude_is("stats", "stats2", "/data"));
	ck_assert(!pgr_exclude_is("stats2", "stats", "/data"));
	ck_assert(!pgr_exclude_is("a/stats", "stats", "/data"));
	ck_assert(!pgr_exclude_is("stats", "/data", "/data"));
	ck_assert(!pgr_exclude_is("stats", "", "/data"));
	ck_assert(!pgr_exclude_is("stats", "/", "/data"));
	ck_assert(!pgr_exclude_is("stats", "/datastats", "/data"));
	ck_assert(!pgr_exclude_is("tats", "/datastats", "/data"));
	ck_assert(!pgr_exclude_is("stats", "/dat2/stats", "/data"));
}
END_TEST

/* ---- relation files ---- */

START_TEST(relation_directories)
{
	static const char *const yes[] = {"base/5", "base/16384", "global", "pg_tblspc/16385/PG_15_202209061/5",
					  "base/0"};
	static const char *const no[] = {
		"",
		"base",
		"base/",
		"base/x",
		"base/5x",
		"base/5/6",
		"global/5",
		"globalx",
		"xbase/5",
		"pg_tblspc",
		"pg_tblspc/16385",
		"pg_tblspc/16385/PG_15_202209061",
		"pg_tblspc/x/PG_15_202209061/5",
		"pg_tblspc/16385/PG_15_202209061/x",
		"pg_tblspc/16385/PG_15_/5",
		"pg_tblspc/16385/PG__1/5",
		"pg_tblspc/16385/PG_15/5",
		"pg_tblspc/16385/PG_/5",
		"pg_tblspc/16385/PG_15_202209061/5/6",
		"pg_tblspc/16385/other/5",
		"sub/base/5",
		"/base/5",
		"5",
	};

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
		ck_assert_msg(pgr_is_relation_dir(yes[i]), "%s", yes[i]);
	for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
		ck_assert_msg(!pgr_is_relation_dir(no[i]), "%s", no[i]);
}
END_TEST

static void is_relation(const char *path, uint64_t number, const char *fork, uint32_t segment, bool temporary)
{
	struct pgr_relfile r, s;

	memset(&r, 0xFF, sizeof(r));
	memset(&s, 0xFF, sizeof(s));
	ck_assert_msg(pgr_relfile_parse(path, &r), "%s", path);
	ck_assert_uint_eq(r.number, number);
	ck_assert_str_eq(r.fork, fork);
	ck_assert_uint_eq(r.segment, segment);
	ck_assert_int_eq(r.temporary, temporary);

	ck_assert_int_eq(pgr_has_page_checksums(path, &s), !temporary);
	if (!temporary)
		ck_assert(s.number == number && strcmp(s.fork, fork) == 0 && s.segment == segment && !s.temporary);
}

START_TEST(relation_files)
{
	is_relation("base/5/16384", 16384, "", 0, false);
	is_relation("base/5/16384.1", 16384, "", 1, false);
	is_relation("base/5/16384_fsm", 16384, "fsm", 0, false);
	is_relation("base/5/16384_vm.2", 16384, "vm", 2, false);
	is_relation("base/5/16384_init", 16384, "init", 0, false);
	is_relation("base/5/16384_init.1", 16384, "init", 1, false);
	is_relation("base/5/4294967295.4294967295", UINT32_MAX, "", UINT32_MAX, false);
	is_relation("global/1262", 1262, "", 0, false);
	is_relation("global/1262_vm", 1262, "vm", 0, false);
	is_relation("pg_tblspc/16385/PG_15_202209061/5/16390_fsm.3", 16390, "fsm", 3, false);
	is_relation("base/5/t3_16384", 16384, "", 0, true);
	is_relation("base/5/t3_16384_vm.2", 16384, "vm", 2, true);
	is_relation("pg_tblspc/16385/PG_15_202209061/5/t12_1_init", 1, "init", 0, true);
}
END_TEST

START_TEST(other_files)
{
	static const char *const others[] = {
		"base/5/PG_VERSION",
		"base/5/pg_filenode.map",
		"base/5/pg_internal.init",
		"global/pg_control",
		"global/pg_filenode.map",
		"global/t3_1262",
		"base/5/016384",
		"base/5/0",
		"base/5/4294967296",
		"base/5/16384.0",
		"base/5/16384.01",
		"base/5/16384.4294967296",
		"base/5/16384.",
		"base/5/16384_",
		"base/5/16384_main",
		"base/5/16384_fsm1",
		"base/5/16384_FSM",
		"base/5/16384 ",
		"base/5/-1",
		"base/5/+1",
		"base/5/",
		"base/5",
		"base/16384",
		"16384",
		"",
		"t3_1",
		"pg_xact/1",
		"base/5/t3",
		"base/5/t3_",
		"base/5/t_1",
		"base/5/t3_01",
		"base/5/tt3_1",
		"base/5/99999999999999999999999",
		"base/5/1/2",
		"pg_tblspc/1/2/3/4",
		"pg_tblspc/1/PG_15_1/3",
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct pgr_relfile r, before;

		memset(&r, 0x5A, sizeof(r));
		before = r;
		ck_assert_msg(!pgr_relfile_parse(others[i], &r), "%s", others[i]);
		ck_assert_msg(!pgr_has_page_checksums(others[i], &r), "%s", others[i]);
		ck_assert_mem_eq(&r, &before, sizeof(r));
	}
}
END_TEST

START_TEST(temporary_relations_have_no_checksums_to_check)
{
	struct pgr_relfile r, before;

	memset(&r, 0x5A, sizeof(r));
	before = r;
	ck_assert(!pgr_has_page_checksums("base/5/t3_16384", &r));
	ck_assert_mem_eq(&r, &before, sizeof(r));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("backup/exclude");
	TCase *tc = tcase_create("exclude");

	tcase_add_test(tc, what_is_sent);
	tcase_add_test(tc, directories_that_are_sent);
	tcase_add_test(tc, what_is_left_out);
	tcase_add_test(tc, other_minor_versions);
	tcase_add_test(tc, directories_that_stay_empty);
	tcase_add_test(tc, tablespaces);
	tcase_add_test(tc, strange_paths);
	tcase_add_test(tc, forks_of_what_may_be_unlogged);
	tcase_add_test(tc, never_unlogged);
	tcase_add_test(tc, numbers_that_changed_their_meaning);
	tcase_add_test(tc, directories_of_settings);
	tcase_add_test(tc, relation_directories);
	tcase_add_test(tc, relation_files);
	tcase_add_test(tc, other_files);
	tcase_add_test(tc, temporary_relations_have_no_checksums_to_check);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
