#include <check.h>
#include <errno.h>

#include "backup/recovery_conf.h"
#include "proto/settings.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

/* ---- the text ---- */

/* pgr_recovery_conf_text's result as a string that the caller frees. */
static char *text_of(int version, const struct pgr_setting *settings, const char *slot, const char *skipped)
{
	struct pgr_buf out = {0}, skip = {0};
	struct pgr_err err;
	char *text;

	ck_assert_int_eq(pgr_recovery_conf_text(&out, version, settings, slot, &skip, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&skip), skipped);
	pgr_buf_fini(&skip);
	text = strdup(pgr_buf_str(&out));
	pgr_buf_fini(&out);
	return text;
}

#define KV(k, v)                                                                                                       \
	{                                                                                                              \
		.keyword = (char[]){k}, .value = (char[])                                                              \
		{                                                                                                      \
			v                                                                                              \
		}                                                                                                      \
	}

static void check_text(int version, const struct pgr_setting *settings, const char *slot, const char *want)
{
	char *got = text_of(version, settings, slot, "");

	ck_assert_str_eq(got, want);
	free(got);
}

/* One setting must come out as this, between the quotes of the file. */
static void check_value(const char *value, const char *want)
{
	char copy[256], line[512];
	struct pgr_setting s[] = {{.keyword = (char[]){"password"}, .value = copy}, {NULL, NULL}};

	snprintf(copy, sizeof(copy), "%s", value);
	snprintf(line, sizeof(line), "primary_conninfo = 'password=%s'\n", want);
	check_text(150000, s, NULL, line);
}

START_TEST(text_from_12)
{
	struct pgr_setting s[] = {KV("user", "rep"), KV("host", "db1.example.org"), KV("port", "5433"), {NULL, NULL}};

	check_text(120000, s, NULL, "primary_conninfo = 'user=rep host=db1.example.org port=5433'\n");
	check_text(180000, s, "standby_1",
		   "primary_conninfo = 'user=rep host=db1.example.org port=5433'\n"
		   "primary_slot_name = 'standby_1'\n");
}
END_TEST

START_TEST(text_below_12)
{
	struct pgr_setting s[] = {KV("user", "rep"), {NULL, NULL}};

	check_text(110022, s, "s",
		   "standby_mode = 'on'\n"
		   "primary_conninfo = 'user=rep'\n"
		   "primary_slot_name = 's'\n");
}
END_TEST

/* The text is appended: what stood in the buffer stays. */
START_TEST(text_appends)
{
	struct pgr_setting s[] = {{NULL, NULL}};
	struct pgr_buf out = {0}, skip = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_puts(&out, "before\n", &err), PGR_OK);
	ck_assert_int_eq(pgr_recovery_conf_text(&out, 150000, s, NULL, &skip, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&out), "before\nprimary_conninfo = ''\n");
	pgr_buf_fini(&out);
	pgr_buf_fini(&skip);
}
END_TEST

/* Both layers: libpq's quotes with backslashes, then the file's doubling of both. */
START_TEST(quoting)
{
	check_value("simple_1.x", "simple_1.x");
	check_value("with blank", "''with blank''");
	check_value("dash-ed", "''dash-ed''");
	check_value("/run/postgresql", "''/run/postgresql''");
	check_value("it's", "''it\\\\''s''");
	check_value("back\\slash", "''back\\\\\\\\slash''");
	check_value("a=b", "''a=b''");
	check_value("\xc3\xa4", "''\xc3\xa4''");
	check_value("#no comment", "''#no comment''");
	check_value("two\nlines", "''two\\nlines''");
}
END_TEST

START_TEST(slot_is_quoted)
{
	struct pgr_setting s[] = {{NULL, NULL}};

	check_text(150000, s, "a'\nrestore_command = 'rm",
		   "primary_conninfo = ''\nprimary_slot_name = 'a''\\nrestore_command = ''rm'\n");
}
END_TEST

START_TEST(left_out)
{
	struct pgr_setting s[] = {KV("replication", "true"),  KV("fallback_application_name", "pg_basebackup"),
				  KV("user", "rep"),	      KV("sslcert", ""),
				  {(char[]){"sslkey"}, NULL}, {NULL, NULL}};

	check_text(150000, s, NULL, "primary_conninfo = 'user=rep'\n");
}
END_TEST

/* From 17 the slot synchronisation uses dbname; before, it would only confuse the walreceiver. */
START_TEST(dbname_from_17)
{
	struct pgr_setting s[] = {KV("dbname", "app"), KV("user", "rep"), {NULL, NULL}};

	check_text(160000, s, NULL, "primary_conninfo = 'user=rep'\n");
	check_text(170000, s, NULL, "primary_conninfo = 'user=rep dbname=app'\n");
}
END_TEST

/* A keyword that the standby's own libpq does not know would keep it from connecting at all. */
START_TEST(unknown_keywords)
{
	struct pgr_setting s[] = {KV("channel_binding", "require"),
				  KV("user", "rep"),
				  KV("sslnegotiation", "direct"),
				  KV("port", "1"),
				  {NULL, NULL}};
	char *got = text_of(120000, s, NULL, "channel_binding, sslnegotiation");

	ck_assert_str_eq(got, "primary_conninfo = 'user=rep port=1'\n");
	free(got);
	got = text_of(130000, s, NULL, "sslnegotiation");
	ck_assert_str_eq(got, "primary_conninfo = 'channel_binding=require user=rep port=1'\n");
	free(got);
	check_text(170000, s, NULL,
		   "primary_conninfo = 'channel_binding=require user=rep sslnegotiation=direct port=1'\n");
}
END_TEST

START_TEST(buffer_limit)
{
	struct pgr_setting s[] = {KV("user", "rep"), {NULL, NULL}};

	for (size_t limit = 1; limit < 60; limit++) {
		struct pgr_buf out = {.limit = limit}, skip = {0};
		struct pgr_err err;
		int rc = pgr_recovery_conf_text(&out, 110000, s, NULL, &skip, &err);

		ck_assert_int_eq(rc, limit < 50 ? PGR_ERR : PGR_OK); /* the whole text has 50 bytes */
		pgr_buf_fini(&out);
		pgr_buf_fini(&skip);
	}
}
END_TEST

/* ---- the files ---- */

static struct tmptree tree;
static int dir_fd;
static struct pgr_buf text;

static void setup(void)
{
	struct pgr_err err;

	tmp_make(&tree);
	dir_fd = open(tree.path, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dir_fd, 0);
	text = (struct pgr_buf){0};
	ck_assert_int_eq(pgr_buf_puts(&text, "line = 'x'\n", &err), PGR_OK);
}

static void teardown(void)
{
	pgr_buf_fini(&text);
	close(dir_fd);
	tmp_remove(&tree);
}

static void write_ok(int version)
{
	struct pgr_err err;
	int rc = pgr_recovery_conf_write(pgr_sys_real(), dir_fd, tree.path, version, &text, 0640, true, &err);

	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void check_file(const char *name, const char *want)
{
	char *got = tmp_read(&tree, name, NULL);

	ck_assert_str_eq(got, want);
	free(got);
}

START_TEST(write_appends)
{
	tmp_write(&tree, "postgresql.auto.conf", "old = 1\n");
	ck_assert_int_eq(chmod(tmp_at(&tree, "postgresql.auto.conf"), 0600), 0);
	write_ok(120000);
	check_file("postgresql.auto.conf", "old = 1\nline = 'x'\n");
	ck_assert_uint_eq(tmp_mode(&tree, "postgresql.auto.conf"), S_IFREG | 0600);
	check_file("standby.signal", "");
	ck_assert_uint_eq(tmp_mode(&tree, "standby.signal"), S_IFREG | 0640);
	ck_assert_uint_eq(tmp_entries(tree.path), 2);
}
END_TEST

START_TEST(write_ends_last_line)
{
	tmp_write(&tree, "postgresql.auto.conf", "old = 1");
	write_ok(180000);
	check_file("postgresql.auto.conf", "old = 1\nline = 'x'\n");
}
END_TEST

START_TEST(write_empty_and_missing)
{
	mode_t old = umask(077);

	write_ok(150000);
	umask(old);
	check_file("postgresql.auto.conf", "line = 'x'\n");
	ck_assert_uint_eq(tmp_mode(&tree, "postgresql.auto.conf"), S_IFREG | 0640);
	tmp_write(&tree, "postgresql.auto.conf", "");
	write_ok(150000);
	check_file("postgresql.auto.conf", "line = 'x'\n");
}
END_TEST

START_TEST(write_below_12)
{
	tmp_write(&tree, "recovery.conf", "standby_mode = 'off'\n");
	write_ok(110000);
	check_file("recovery.conf", "line = 'x'\n");
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

/* A link in the file's place is not followed, whoever made it. */
START_TEST(write_no_link)
{
	struct pgr_err err;

	tmp_write(&tree, "victim", "keep\n");
	ck_assert_int_eq(symlink("victim", tmp_at(&tree, "postgresql.auto.conf")), 0);
	ck_assert_int_eq(pgr_recovery_conf_write(pgr_sys_real(), dir_fd, tree.path, 150000, &text, 0600, true, &err),
			 PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(err.sys_errno, ELOOP);
	check_file("victim", "keep\n");
	ck_assert(!tmp_exists(&tree, "standby.signal"));
}
END_TEST

static void one_fault(int version, bool have_file, unsigned at, bool *triggered)
{
	struct pgr_fault_sys f;
	struct pgr_err err;
	unsigned fds = tmp_open_fds();
	int rc;

	if (have_file)
		tmp_write(&tree, "postgresql.auto.conf", "old = 1");
	else
		unlink(tmp_at(&tree, "postgresql.auto.conf"));
	pgr_fault_sys_init(&f, at, EIO);
	rc = pgr_recovery_conf_write(&f.sys, dir_fd, tree.path, version, &text, 0600, true, &err);
	*triggered = f.triggered;
	ck_assert_int_eq(rc, f.triggered ? PGR_ERR : PGR_OK);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	if (!f.triggered)
		return;
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(err.sys_errno, EIO);
	ck_assert_msg(strstr(err.msg, tree.path) != NULL, "%s", err.msg);
	ck_assert(!tmp_exists(&tree, "standby.signal.tmp") && !tmp_exists(&tree, "recovery.conf.tmp"));
}

START_TEST(write_faults)
{
	bool triggered = true;
	unsigned at = 0;

	while (triggered)
		one_fault(_i == 0 ? 110000 : 150000, _i == 1, ++at, &triggered);
	ck_assert_uint_ge(at, 5);
}
END_TEST

/* The settings, the signal file, and the entries of both. */
START_TEST(write_synced)
{
	struct pgr_fault_sys f;
	struct pgr_err err;

	pgr_fault_sys_init(&f, 0, 0);
	ck_assert_int_eq(pgr_recovery_conf_write(&f.sys, dir_fd, tree.path, 150000, &text, 0600, true, &err), PGR_OK);
	ck_assert_uint_eq(f.fsyncs, 3);
}
END_TEST

/* Every byte in its place, whatever the kernel takes at a time. */
START_TEST(write_short)
{
	struct pgr_fault_sys f;
	struct pgr_err err;

	tmp_write(&tree, "postgresql.auto.conf", "old = 1");
	pgr_fault_sys_init(&f, 0, 0);
	f.short_io = true;
	ck_assert_int_eq(pgr_recovery_conf_write(&f.sys, dir_fd, tree.path, 150000, &text, 0600, false, &err), PGR_OK);
	ck_assert_uint_eq(f.fsyncs, 0); /* --no-sync */
	check_file("postgresql.auto.conf", "old = 1\nline = 'x'\n");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("recovery_conf");
	TCase *t = tcase_create("text"), *w = tcase_create("write");
	SRunner *sr;
	int failed;

	tcase_add_test(t, text_from_12);
	tcase_add_test(t, text_below_12);
	tcase_add_test(t, text_appends);
	tcase_add_test(t, quoting);
	tcase_add_test(t, slot_is_quoted);
	tcase_add_test(t, left_out);
	tcase_add_test(t, dbname_from_17);
	tcase_add_test(t, unknown_keywords);
	tcase_add_test(t, buffer_limit);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(w, setup, teardown);
	tcase_add_test(w, write_appends);
	tcase_add_test(w, write_ends_last_line);
	tcase_add_test(w, write_empty_and_missing);
	tcase_add_test(w, write_below_12);
	tcase_add_test(w, write_no_link);
	tcase_add_loop_test(w, write_faults, 0, 3);
	tcase_add_test(w, write_synced);
	tcase_add_test(w, write_short);
	suite_add_tcase(s, w);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
