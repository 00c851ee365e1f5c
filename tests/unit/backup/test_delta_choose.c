/* delta_choose.c: directories and servers, and whether WAL summaries may be relied upon. */
#include <check.h>
#include <string.h>

#include "backup/delta_choose.h"
#include "receiver/history.h"

#define ID 7712345678901234567u

/* Timeline 1 up to 0x5000, timeline 2 since. */
static const struct pgr_history_entry entries[] = {{1, 0x5000}, {2, 0}};
static const struct pgr_history history = {(struct pgr_history_entry *)(uintptr_t)entries, 2};

static struct pgr_controlfile control;
static struct pgr_delta_local local;
static struct pgr_delta_server server;
static struct pgr_delta_choice choice;

/* A standby of the server that was stopped. */
static void setup(void)
{
	control = (struct pgr_controlfile){
		.system_identifier = ID,
		.catalog_version = 202406281,
		.state = PGR_DB_SHUTDOWNED_IN_RECOVERY,
		.checkpoint = 0x6100,
		.redo = 0x6000,
		.tli = 2,
		.min_recovery = 0x7000,
		.min_recovery_tli = 2,
		.wal_level = 1,
		.block_bytes = 8192,
		.segment_blocks = 131072,
		.wal_segment_bytes = 16777216,
		.checksum_version = 1,
	};
	local = (struct pgr_delta_local){.control = &control, .from = 0x6000, .from_tli = 2};
	server = (struct pgr_delta_server){
		.version = 170004,
		.summarize_wal = true,
		.system_identifier = "7712345678901234567",
		.catalog_version = 202406281,
		.block_bytes = 8192,
		.segment_blocks = 131072,
		.wal_segment_bytes = 16777216,
		.checksum_version = 1,
		.history = &history,
		.flush = 0x9000,
		.redo = 0x8000,
	};
}

static void choose(void)
{
	pgr_delta_choose(&choice, &local, &server);
}

static void yes(pgr_lsn from, pgr_tli tli)
{
	choose();
	ck_assert_msg(choice.usable, "%s", choice.why_not);
	ck_assert_uint_eq(choice.from, from);
	ck_assert_uint_eq(choice.from_tli, tli);
}

static void no(const char *words)
{
	choose();
	ck_assert(!choice.usable);
	ck_assert_msg(strstr(choice.why_not, words) != NULL, "\"%s\" is not in \"%s\"", words, choice.why_not);
}

START_TEST(test_standby)
{
	yes(0x6000, 2);
	control.state = PGR_DB_IN_ARCHIVE_RECOVERY;
	yes(0x6000, 2);
	control.min_recovery = 0x9000;
	yes(0x6000, 2);
	control.min_recovery = 0x9001;
	no("minimum recovery point 0/9001 lies behind 0/9000");
	control.min_recovery = 0;
	no("does not say how far it has recovered");
	/* a server below in a chain */
	control.min_recovery = 0x7000;
	server.in_recovery = true;
	yes(0x6000, 2);
	server.redo = 0x5FFF;
	no("is a standby whose last restartpoint, 0/5FFF, is older than 0/6000");
}
END_TEST

/* Nothing says how far the files are that it was started from. */
START_TEST(test_amid_a_backup)
{
	control.backup_start = 0x5000;
	yes(0x6000, 2);
	server.in_recovery = true;
	no("the end of the backup that it was started from, and may be ahead of the server, which is a standby");
	server.in_recovery = false;
	/* the backup was taken before the server's timeline was begun, perhaps on the other side */
	control.backup_start = 0x4FFF;
	no("the end of the backup that it was started from, and may be ahead of where the server's timeline began");
	local.from = control.redo = control.backup_start = 0x4000;
	local.from_tli = control.tli = control.min_recovery_tli = 1;
	control.min_recovery = 0x4800;
	no("the end of the backup");
	control.backup_start = 0;
	yes(0x4000, 1);
}
END_TEST

static void from(pgr_lsn lsn, pgr_tli tli)
{
	local.from = control.redo = lsn;
	local.from_tli = control.tli = tli;
}

START_TEST(test_timelines)
{
	/* left on the old timeline, before it was left by the server */
	from(0x4000, 1);
	control.min_recovery_tli = 1;
	control.min_recovery = 0x5000;
	yes(0x4000, 1);
	/* it went on where the server did not */
	control.min_recovery = 0x5001;
	no("minimum recovery point 0/5001 lies behind 0/5000, where the server's timeline 1 ends");
	control.min_recovery = 0x5000;
	from(0x5001, 1);
	no("last restartpoint");
	from(0x5000, 1);
	yes(0x5000, 2);
	from(0x5000, 3);
	no("timeline 3 is not in the server's history");
	from(0x5000, 1);
	control.min_recovery_tli = 3;
	no("timeline 3 is not in the server's history");
	/* redo of a checkpoint of the new timeline may lie before its beginning */
	from(0x4800, 2);
	control.min_recovery_tli = 2;
	yes(0x4800, 1);
}
END_TEST

START_TEST(test_former_primary)
{
	control.state = PGR_DB_SHUTDOWNED;
	control.min_recovery = 0;
	control.min_recovery_tli = 0;
	from(0x4F00, 1);
	control.checkpoint = 0x4F00;
	yes(0x4F00, 1);
	/* what it holds need not be what its WAL says */
	control.wal_level = 0;
	no("wal_level = minimal, or pg_resetwal");
	control.wal_level = 2;
	yes(0x4F00, 1);
	/* its shutdown checkpoint did not arrive */
	control.checkpoint = 0x5000;
	no("shutdown checkpoint");
	control.checkpoint = 0x5100;
	no("shutdown checkpoint");
}
END_TEST

static const enum pgr_dbstate hard_ends[] = {
	PGR_DB_STARTUP, PGR_DB_SHUTDOWNING, PGR_DB_IN_CRASH_RECOVERY, PGR_DB_IN_PRODUCTION, PGR_DB_STATES,
};

START_TEST(test_crashed_primary)
{
	control.state = hard_ends[_i];
	no("it was a primary and not shut down");
}
END_TEST

/* A copy that was never started: pg_control is its primary's, and newer than the label. */
START_TEST(test_copied)
{
	local.copied = true;
	local.from = 0x5800;
	control.state = PGR_DB_IN_PRODUCTION;
	yes(0x5800, 2);
	local.from_tli = 1;
	no("it was copied from timeline 1, and the server is on 2 now");
	local.from_tli = 0;
	no("not known from which timeline");
	local.from_tli = 2;
	server.in_recovery = true;
	no("may be ahead of the server");
	/* copied from a standby: it says how far */
	control.state = PGR_DB_IN_ARCHIVE_RECOVERY;
	yes(0x5800, 2);
	control.min_recovery = 0x9001;
	no("minimum recovery point");
	local.control = NULL;
	no("may be ahead of the server");
}
END_TEST

START_TEST(test_unfinished)
{
	/* an old standby that a run has begun to change */
	local.unfinished = true;
	local.run_tli = 2;
	yes(0x6000, 2);
	local.run_tli = 1;
	no("it was copied from timeline 1");
	local.run_tli = 0;
	no("not known from which timeline");
	local.run_tli = 2;
	server.in_recovery = true;
	no("ahead of this one");
	server.in_recovery = false;
	control.state = PGR_DB_IN_PRODUCTION;
	no("not shut down");
	local.from = PGR_LSN_INVALID;
	no("does not say up to where");
}
END_TEST

START_TEST(test_fresh_copy_goes_on)
{
	local = (struct pgr_delta_local){
		.unfinished = true, .copied = true, .from = 0x5400, .from_tli = 2, .run_tli = 2};
	yes(0x5400, 2);
	local.from_tli = 1;
	no("timeline 1");
	local.from_tli = 2;
	local.run_tli = 1;
	no("timeline 1");
	local = (struct pgr_delta_local){.from = 0x5400, .from_tli = 2};
	no("has no pg_control");
}
END_TEST

START_TEST(test_other_cluster)
{
	static uint32_t *const fields[] = {&control.catalog_version, &control.block_bytes, &control.segment_blocks,
					   &control.wal_segment_bytes, &control.checksum_version};
	static const char *const words[] = {"catalog version", "block size", "segment size", "WAL segment size",
					    "data checksum version is 0, the server's is 1"};

	control.system_identifier--;
	no("system identifier");
	control.system_identifier++;
	for (int i = 0; i < 5; i++) {
		uint32_t before = *fields[i];

		*fields[i] = i == 4 ? 0 : before * 2;
		no(words[i]);
		*fields[i] = before;
	}
	server.system_identifier = "x";
	no("system identifier");
}
END_TEST

START_TEST(test_server)
{
	server.version = 160004;
	no("server version 16.4 does not summarize WAL, only 17 and later");
	server.version = 180006;
	yes(0x6000, 2);
	server.summarize_wal = false;
	no("summarize_wal is off");
}
END_TEST

START_TEST(test_position)
{
	local.from = 0;
	no("does not say up to where");
	from(0x9000, 2);
	yes(0x9000, 2);
	from(0x9001, 2);
	no("last restartpoint");
}
END_TEST

START_TEST(test_cheaper)
{
	const uint64_t gb = (uint64_t)1 << 30;

	ck_assert(pgr_delta_summary_is_cheaper(0, 8192, 100 * gb, 100 * gb));
	ck_assert(pgr_delta_summary_is_cheaper(1000, 8192, 99 * gb, 100 * gb));
	ck_assert(pgr_delta_summary_is_cheaper(80 * gb / 8192, 8192, 100 * gb, 100 * gb));
	ck_assert(!pgr_delta_summary_is_cheaper(95 * gb / 8192, 8192, 100 * gb, 100 * gb));
	ck_assert(!pgr_delta_summary_is_cheaper(0, 8192, 5 * gb, 100 * gb));
	ck_assert(!pgr_delta_summary_is_cheaper(50 * gb / 8192, 8192, 50 * gb, 100 * gb));
	ck_assert(!pgr_delta_summary_is_cheaper(UINT64_MAX, 8192, 100 * gb, 100 * gb));
	ck_assert(pgr_delta_summary_is_cheaper(0, 0, 0, 0));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("delta_choose");
	TCase *t = tcase_create("delta_choose");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, test_standby);
	tcase_add_test(t, test_amid_a_backup);
	tcase_add_test(t, test_timelines);
	tcase_add_test(t, test_former_primary);
	tcase_add_loop_test(t, test_crashed_primary, 0, sizeof(hard_ends) / sizeof(hard_ends[0]));
	tcase_add_test(t, test_copied);
	tcase_add_test(t, test_unfinished);
	tcase_add_test(t, test_fresh_copy_goes_on);
	tcase_add_test(t, test_other_cluster);
	tcase_add_test(t, test_server);
	tcase_add_test(t, test_position);
	tcase_add_test(t, test_cheaper);
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
