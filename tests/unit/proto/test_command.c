#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/caps.h"
#include "proto/command.h"

static const int versions[] = {90124,  90224,  90325,  90426,  90526,  90624,  100023, 110022,
			       120022, 130023, 140023, 150020, 160014, 170010, 180006};
#define VERSIONS ((int)(sizeof(versions) / sizeof(versions[0])))

#define LINES 6

/* What a command looks like from a version on; "!9.4" means: refused, with a message that names 9.4. */
struct since {
	int version;
	const char *text;
};

typedef int build_fn(struct pgr_buf *out, int version, struct pgr_err *err);

/* ---- short commands ---- */

static int identify(struct pgr_buf *out, int version, struct pgr_err *err)
{
	(void)version;
	return pgr_cmd_identify_system(out, err);
}
static int show(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "wal_segment_size", err);
}
static int show_odd(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "x\"; DROP", err);
}
static int show_upper(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "WAIT", err);
}
static int show_dotted(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "my.setting", err);
}
static int show_empty(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "", err);
}
static int show_digit(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_show(out, version, "9a", err);
}
static int history(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_timeline_history(out, version, 4294967295u, err);
}
static int create(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_create_slot(out, version, "slot0", false, false, err);
}
static int create_temp(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_create_slot(out, version, "pgr_1", true, false, err);
}
static int create_reserve(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_create_slot(out, version, "slot0", false, true, err);
}
static int create_both(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_create_slot(out, version, "s\"\\'", true, true, err);
}
static int read_slot(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_read_slot(out, version, "slot0", err);
}
static int drop(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_drop_slot(out, version, "slot\"0", err);
}
static int start(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_start_replication(out, version, NULL, 0x1A2B3C4D5E, 3, err);
}
static int start_no_tli(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_start_replication(out, version, NULL, 0, 0, err);
}
static int start_slot(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_start_replication(out, version, "sl\"ot", 0xFFFFFFFFFFFFFFFF, 4294967295u, err);
}
static int upload(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_upload_manifest(out, version, err);
}

/* ---- BASE_BACKUP ---- */

static int backup_plain(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(out, version, &(struct pgr_base_backup_cmd){.label = "x"}, err);
}
static int backup_label(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(out, version, &(struct pgr_base_backup_cmd){.label = "it's a \\ \"label\"\n;"}, err);
}
static int backup_91(struct pgr_buf *out, int version, struct pgr_err *err)
{
	const struct pgr_base_backup_cmd cmd = {
		.label = "pg_basebackup base backup",
		.progress = true,
		.fast_checkpoint = true,
		.include_wal = true,
		.no_wait = true,
		.no_verify_checksums = true,
	};
	return pgr_cmd_base_backup(out, version, &cmd, err);
}
static int backup_rate(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(out, version, &(struct pgr_base_backup_cmd){.label = "x", .max_rate_kb = 1048576},
				   err);
}
static int backup_map(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(out, version, &(struct pgr_base_backup_cmd){.label = "x", .tablespace_map = true},
				   err);
}
static int backup_manifest(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(out, version, &(struct pgr_base_backup_cmd){.label = "x", .manifest = true}, err);
}
static int backup_manifest_sha(struct pgr_buf *out, int version, struct pgr_err *err)
{
	const struct pgr_base_backup_cmd cmd = {
		.label = "x",
		.manifest = true,
		.manifest_force_encode = true,
		.manifest_checksums = "sha'256",
	};
	return pgr_cmd_base_backup(out, version, &cmd, err);
}
static int backup_target(struct pgr_buf *out, int version, struct pgr_err *err)
{
	const struct pgr_base_backup_cmd cmd = {.label = "x", .target = "server", .target_detail = "/mnt/o'b\\c"};

	return pgr_cmd_base_backup(out, version, &cmd, err);
}
static int backup_compressed(struct pgr_buf *out, int version, struct pgr_err *err)
{
	const struct pgr_base_backup_cmd cmd = {
		.label = "x",
		.compression = "zstd",
		.compression_detail = "level=3,workers=2",
	};
	return pgr_cmd_base_backup(out, version, &cmd, err);
}
static int backup_incremental(struct pgr_buf *out, int version, struct pgr_err *err)
{
	return pgr_cmd_base_backup(
		out, version, &(struct pgr_base_backup_cmd){.label = "x", .manifest = true, .incremental = true}, err);
}
static int backup_all(struct pgr_buf *out, int version, struct pgr_err *err)
{
	const struct pgr_base_backup_cmd cmd = {
		.label = "x",
		.progress = true,
		.fast_checkpoint = true,
		.include_wal = true,
		.no_wait = true,
		.max_rate_kb = 1,
		.tablespace_map = true,
		.no_verify_checksums = true,
		.manifest = true,
		.manifest_checksums = "CRC32C",
		.target = "blackhole",
		.compression = "gzip",
		.incremental = true,
	};
	return pgr_cmd_base_backup(out, version, &cmd, err);
}

static const struct {
	const char *name;
	build_fn *build;
	struct since since[LINES];
} commands[] = {
	{"identify_system", identify, {{90100, "IDENTIFY_SYSTEM"}}},
	{"show", show, {{90100, "!10"}, {100000, "SHOW wal_segment_size"}}},
	{"show, odd name", show_odd, {{90100, "!10"}, {100000, "SHOW \"x\"\"; DROP\""}}},
	{"show, keyword", show_upper, {{90100, "!10"}, {100000, "SHOW \"WAIT\""}}},
	{"show, dotted", show_dotted, {{90100, "!10"}, {100000, "SHOW \"my.setting\""}}},
	{"show, nothing", show_empty, {{90100, "!10"}, {100000, "SHOW \"\""}}},
	{"show, digit", show_digit, {{90100, "!10"}, {100000, "SHOW \"9a\""}}},
	{"timeline_history", history, {{90100, "!9.3"}, {90300, "TIMELINE_HISTORY 4294967295"}}},
	{"create_slot", create, {{90100, "!9.4"}, {90400, "CREATE_REPLICATION_SLOT \"slot0\" PHYSICAL"}}},
	{"create_slot, temporary",
	 create_temp,
	 {{90100, "!9.4"}, {90400, "!10"}, {100000, "CREATE_REPLICATION_SLOT \"pgr_1\" TEMPORARY PHYSICAL"}}},
	{"create_slot, reserve",
	 create_reserve,
	 {{90100, "!9.4"},
	  {90400, "!9.6"},
	  {90600, "CREATE_REPLICATION_SLOT \"slot0\" PHYSICAL RESERVE_WAL"},
	  {150000, "CREATE_REPLICATION_SLOT \"slot0\" PHYSICAL (RESERVE_WAL)"}}},
	{"create_slot, temporary, reserve",
	 create_both,
	 {{90100, "!9.4"},
	  {90400, "!10"},
	  {100000, "CREATE_REPLICATION_SLOT \"s\"\"\\'\" TEMPORARY PHYSICAL RESERVE_WAL"},
	  {150000, "CREATE_REPLICATION_SLOT \"s\"\"\\'\" TEMPORARY PHYSICAL (RESERVE_WAL)"}}},
	{"read_slot", read_slot, {{90100, "!15"}, {150000, "READ_REPLICATION_SLOT \"slot0\""}}},
	{"drop_slot", drop, {{90100, "!9.4"}, {90400, "DROP_REPLICATION_SLOT \"slot\"\"0\""}}},
	{"start_replication", start, {{90100, "!9.3"}, {90300, "START_REPLICATION 1A/2B3C4D5E TIMELINE 3"}}},
	{"start_replication, no timeline", start_no_tli, {{90100, "!9.3"}, {90300, "START_REPLICATION 0/0"}}},
	{"start_replication, slot",
	 start_slot,
	 {{90100, "!9.3"},
	  {90300, "!9.4"},
	  {90400, "START_REPLICATION SLOT \"sl\"\"ot\" FFFFFFFF/FFFFFFFF TIMELINE 4294967295"}}},
	{"upload_manifest", upload, {{90100, "!17"}, {170000, "UPLOAD_MANIFEST"}}},
	{"base_backup", backup_plain, {{90100, "BASE_BACKUP LABEL 'x'"}, {150000, "BASE_BACKUP (LABEL 'x')"}}},
	{"base_backup, label",
	 backup_label,
	 {{90100, "BASE_BACKUP LABEL 'it''s a \\ \"label\"\n;'"},
	  {150000, "BASE_BACKUP (LABEL 'it''s a \\ \"label\"\n;')"}}},
	{"base_backup, what 9.1 has",
	 backup_91,
	 {{90100, "BASE_BACKUP LABEL 'pg_basebackup base backup' PROGRESS WAL FAST NOWAIT"},
	  {110000, "BASE_BACKUP LABEL 'pg_basebackup base backup' PROGRESS WAL FAST NOWAIT NOVERIFY_CHECKSUMS"},
	  {150000, "BASE_BACKUP (LABEL 'pg_basebackup base backup', PROGRESS, WAL, CHECKPOINT 'fast', WAIT 0, "
		   "VERIFY_CHECKSUMS 0)"}}},
	{"base_backup, rate",
	 backup_rate,
	 {{90100, "!9.4"},
	  {90400, "BASE_BACKUP LABEL 'x' MAX_RATE 1048576"},
	  {150000, "BASE_BACKUP (LABEL 'x', MAX_RATE 1048576)"}}},
	{"base_backup, map",
	 backup_map,
	 {{90100, "!9.5"},
	  {90500, "BASE_BACKUP LABEL 'x' TABLESPACE_MAP"},
	  {150000, "BASE_BACKUP (LABEL 'x', TABLESPACE_MAP)"}}},
	{"base_backup, manifest",
	 backup_manifest,
	 {{90100, "!13"},
	  {130000, "BASE_BACKUP LABEL 'x' MANIFEST 'yes'"},
	  {150000, "BASE_BACKUP (LABEL 'x', MANIFEST 'yes')"}}},
	{"base_backup, manifest checksums",
	 backup_manifest_sha,
	 {{90100, "!13"},
	  {130000, "BASE_BACKUP LABEL 'x' MANIFEST 'force-encode' MANIFEST_CHECKSUMS 'sha''256'"},
	  {150000, "BASE_BACKUP (LABEL 'x', MANIFEST 'force-encode', MANIFEST_CHECKSUMS 'sha''256')"}}},
	{"base_backup, target",
	 backup_target,
	 {{90100, "!15"}, {150000, "BASE_BACKUP (LABEL 'x', TARGET 'server', TARGET_DETAIL '/mnt/o''b\\c')"}}},
	{"base_backup, compression",
	 backup_compressed,
	 {{90100, "!15"},
	  {150000, "BASE_BACKUP (LABEL 'x', COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=3,workers=2')"}}},
	{"base_backup, incremental",
	 backup_incremental,
	 {{90100, "!13"}, {130000, "!17"}, {170000, "BASE_BACKUP (LABEL 'x', MANIFEST 'yes', INCREMENTAL)"}}},
	{"base_backup, everything",
	 backup_all,
	 {{90100, "!9.4"},
	  {90400, "!9.5"},
	  {90500, "!13"},
	  {130000, "!15"},
	  {150000, "!17"},
	  {170000, "BASE_BACKUP (LABEL 'x', PROGRESS, WAL, CHECKPOINT 'fast', WAIT 0, MAX_RATE 1, TABLESPACE_MAP, "
		   "VERIFY_CHECKSUMS 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C', TARGET 'blackhole', "
		   "COMPRESSION 'gzip', INCREMENTAL)"}}},
};
#define COMMANDS ((int)(sizeof(commands) / sizeof(commands[0])))

/* The line of a table that governs a version. */
static const char *expected(const struct since *s, int version)
{
	const char *text = NULL;

	for (unsigned i = 0; i < LINES && s[i].text != NULL && s[i].version <= version; i++)
		text = s[i].text;
	return text;
}

static void is_refused(const struct pgr_err *err, int version, const char *since)
{
	char want[96], have[16];

	pgr_version_format(have, version);
	snprintf(want, sizeof(want), " needs a server of version %s or newer, this one is %s", since, have);
	ck_assert_int_eq(err->cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err->msg, want) != NULL, "\"%s\" does not contain \"%s\"", err->msg, want);
}

/* Every command for every version: the text, behind what is in the buffer already, or the refusal and nothing else. */
START_TEST(golden)
{
	for (int v = 0; v < VERSIONS; v++) {
		const char *want = expected(commands[_i].since, versions[v]);
		struct pgr_buf out = {0};
		struct pgr_err err;
		int rc;

		ck_assert_ptr_nonnull(want);
		ck_assert_int_eq(pgr_buf_puts(&out, "abc", &err), PGR_OK);
		rc = commands[_i].build(&out, versions[v], &err);
		if (want[0] == '!') {
			ck_assert_msg(rc == PGR_ERR, "%s for %d", commands[_i].name, versions[v]);
			is_refused(&err, versions[v], want + 1);
			ck_assert_uint_eq(out.len, 3);
		} else {
			ck_assert_msg(rc == PGR_OK, "%s for %d: %s", commands[_i].name, versions[v], err.msg);
			ck_assert_str_eq(pgr_buf_str(&out) + 3, want);
		}
		pgr_buf_fini(&out);
	}
}
END_TEST

/* Wherever memory ends, nothing of the command is left behind. */
START_TEST(no_room)
{
	for (int v = 0; v < VERSIONS; v++) {
		const char *want = expected(commands[_i].since, versions[v]);
		size_t full;

		if (want[0] == '!')
			continue;
		full = strlen(want);
		for (size_t limit = 3; limit <= 3 + full; limit++) {
			struct pgr_buf out = {.limit = limit};
			struct pgr_err err;

			ck_assert_int_eq(pgr_buf_puts(&out, "abc", &err), PGR_OK);
			ck_assert_int_eq(commands[_i].build(&out, versions[v], &err),
					 limit == 3 + full ? PGR_OK : PGR_ERR);
			ck_assert_uint_eq(out.len, limit == 3 + full ? limit : 3);
			pgr_buf_fini(&out);
		}
	}
}
END_TEST

/* ---- options that make no sense alone ---- */

START_TEST(combinations)
{
	static const struct {
		struct pgr_base_backup_cmd cmd;
		const char *says;
	} bad[] = {
		{{.label = NULL}, "label"},
		{{.label = "x", .manifest_checksums = "NONE"}, "manifest"},
		{{.label = "x", .manifest_force_encode = true}, "manifest"},
		{{.label = "x", .target_detail = "/x"}, "target"},
		{{.label = "x", .compression_detail = "level=1"}, "compression"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (int v = 0; v < VERSIONS; v++) {
			struct pgr_buf out = {0};
			struct pgr_err err;

			ck_assert_int_eq(pgr_cmd_base_backup(&out, versions[v], &bad[i].cmd, &err), PGR_ERR);
			ck_assert_int_eq(err.cls, PGR_E_USAGE);
			ck_assert_ptr_nonnull(strstr(err.msg, bad[i].says));
			ck_assert_uint_eq(out.len, 0);
			pgr_buf_fini(&out);
		}
}
END_TEST

/* ---- quoting ---- */

START_TEST(quoting)
{
	static const struct {
		const char *in, *ident, *literal;
	} cases[] = {
		{"", "\"\"", "''"},	      {"abc", "\"abc\"", "'abc'"},
		{"A b", "\"A b\"", "'A b'"},  {"\"", "\"\"\"\"", "'\"'"},
		{"'", "\"'\"", "''''"},	      {"'\"'\"", "\"'\"\"'\"\"\"", "'''\"''\"'"},
		{"\\'", "\"\\'\"", "'\\'''"}, {"\xc3\xa4\n\t", "\"\xc3\xa4\n\t\"", "'\xc3\xa4\n\t'"},
	};
	struct pgr_err err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_buf out = {0};

		ck_assert_int_eq(pgr_cmd_put_ident(&out, cases[i].in, &err), PGR_OK);
		ck_assert_str_eq(pgr_buf_str(&out), cases[i].ident);
		out.len = 0;
		ck_assert_int_eq(pgr_cmd_put_literal(&out, cases[i].in, &err), PGR_OK);
		ck_assert_str_eq(pgr_buf_str(&out), cases[i].literal);
		pgr_buf_fini(&out);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("command");
	TCase *tc = tcase_create("command");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, golden, 0, COMMANDS);
	tcase_add_loop_test(tc, no_room, 0, COMMANDS);
	tcase_add_test(tc, combinations);
	tcase_add_test(tc, quoting);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
