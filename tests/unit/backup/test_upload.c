/* upload.c: which files are offered, and servers that take the manifest or do not. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/localtree.h"
#include "backup/manifest.h"
#include "backup/upload.h"
#include "backup/walsummary.h"
#include "tests/support/sqlscript.h"

#define V17  170004
#define PAGE 8192u

static struct pgr_limit limit_list[] = {
	{.space = 1663, .db = 5, .rel = 16390, .block = 0},
	{.space = 1663, .db = 5, .rel = 16391, .block = 7},
	{.space = 1663, .db = 5, .rel = 16392, .block = 7, .later = true},
	{.space = 1663, .db = 9, .rel = 0, .block = 0},
};
static const struct pgr_limits limits = {.list = limit_list, .n = 4};

static const struct {
	const char *path;
	enum pgr_local_type type;
	uint64_t size;
	bool offered, linked;
} files[] = {
	{"PG_VERSION", PGR_LOCAL_FILE, 3, false},
	{"backup_label", PGR_LOCAL_FILE, PAGE, false},
	{"base", PGR_LOCAL_DIR, 0, false},
	{"base/5", PGR_LOCAL_DIR, 0, false},
	{"base/5/16384", PGR_LOCAL_FILE, PAGE, true},
	{"base/5/16384.1", PGR_LOCAL_FILE, 4 * PAGE, true},
	{"base/5/16384_fsm", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/16384_init", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/16384_vm", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/16384_vm.1", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/16385", PGR_LOCAL_FILE, 0, false},
	{"base/5/16386", PGR_LOCAL_FILE, PAGE + 1, false},
	{"base/5/16387", PGR_LOCAL_FILE, PAGE - 1, false},
	{"base/5/16388", PGR_LOCAL_FILE, 1025 * (uint64_t)PAGE, false},
	{"base/5/16389", PGR_LOCAL_FILE, 1024 * (uint64_t)PAGE, true},
	{"base/5/16390", PGR_LOCAL_FILE, PAGE, false}, /* its limit is 0: it comes whole */
	{"base/5/16391", PGR_LOCAL_FILE, PAGE, true},
	{"base/5/16392", PGR_LOCAL_FILE, PAGE, false}, /* the order of the summaries matters */
	{"base/5/16393", PGR_LOCAL_LINK, PAGE, false},
	{"base/5/16394.pgrtmp", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/16395", PGR_LOCAL_FILE, PAGE, false, true},
	{"base/5/pg_filenode.map", PGR_LOCAL_FILE, PAGE, false},
	{"base/5/t3_16384", PGR_LOCAL_FILE, PAGE, false},
	{"base/9/1259", PGR_LOCAL_FILE, PAGE, false}, /* its database was made anew */
	{"global/1260", PGR_LOCAL_FILE, PAGE, true},
	{"global/pg_control", PGR_LOCAL_FILE, PAGE, false},
	{"pg_tblspc/16999/PG_17_202406281/5/16384", PGR_LOCAL_FILE, PAGE, true},
	{"pg_xact/0000", PGR_LOCAL_FILE, PAGE, false},
};
#define N (sizeof(files) / sizeof(files[0]))

static struct pgr_local_entry entries[N];
static struct pgr_localtree tree;
static struct pgr_upload upload;
static struct sqlscript s;

static void setup(void)
{
	for (size_t i = 0; i < N; i++)
		entries[i] = (struct pgr_local_entry){.path = strdup(files[i].path),
						      .type = files[i].type,
						      .size = files[i].size,
						      .replaced = files[i].linked};
	tree = (struct pgr_localtree){.entries = entries, .n = N};
	upload = (struct pgr_upload){
		.system_identifier = "7712345678901234567",
		.tree = &tree,
		.limits = &limits,
		.page_bytes = PAGE,
		.segment_blocks = 1024,
		.tli = 3,
		.redo = 0x1A02000028,
	};
}

static void teardown(void)
{
	for (size_t i = 0; i < N; i++)
		free(entries[i].path);
}

START_TEST(test_which)
{
	size_t n, expected = 0;
	uint64_t bytes;

	for (size_t i = 0; i < N; i++) {
		ck_assert_msg(pgr_upload_may_patch(&upload, &entries[i]) == files[i].offered, "%s", files[i].path);
		expected += files[i].offered;
	}
	pgr_upload_count(&upload, &n, &bytes);
	ck_assert_uint_eq(n, expected);
	ck_assert_uint_eq(bytes, (1 + 4 + 1024 + 1 + 1 + 1) * (uint64_t)PAGE);
	upload.limits = NULL;
	pgr_upload_count(&upload, &n, &bytes);
	ck_assert_uint_eq(n, expected + 3);
}
END_TEST

/* ---- sending it ---- */

static void server_takes_it(void)
{
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_copy_response(&s.msg, 'G');
	pgr_scripted_send_buf(s.srv, &s.msg);
	pgr_scripted_expect(s.srv, 'c');
	pgr_msg_complete(&s.msg, "UPLOAD_MANIFEST");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
}

/* What the client sent as CopyData, put together. */
static void gather(struct pgr_buf *out)
{
	const uint8_t *p = s.sent.data, *end = p + s.sent.len;
	struct pgr_err err;

	while (p < end) {
		size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];

		if (*p == 'd')
			ck_assert_int_eq(pgr_buf_put(out, p + 5, len - 4, &err), PGR_OK);
		p += 1 + len;
	}
}

static void check_manifest(void)
{
	struct pgr_manifest *m;
	struct pgr_buf text = {0};
	struct pgr_err err;
	size_t n;
	uint64_t bytes;

	gather(&text);
	ck_assert_int_eq(pgr_manifest_new(&m, &err), PGR_OK);
	ck_assert_msg(pgr_manifest_feed(m, text.data, text.len, &err) == PGR_OK, "%s", err.msg);
	ck_assert_msg(pgr_manifest_done(m, &err) == PGR_OK, "%s", err.msg);
	ck_assert_str_eq(pgr_manifest_system_identifier(m), upload.system_identifier);
	pgr_upload_count(&upload, &n, &bytes);
	ck_assert_uint_eq(pgr_manifest_files(m), n);
	for (size_t i = 0; i < tree.n; i++) {
		const struct pgr_manifest_file *f = pgr_manifest_find(m, entries[i].path);

		ck_assert_msg((f != NULL) == files[i].offered, "%s", entries[i].path);
		if (f != NULL)
			ck_assert_int_eq(f->algo, PGR_DIGEST_NONE);
	}
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&text), "Manifest-Version\": 2"));
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&text), "{ \"Timeline\": 3, \"Start-LSN\": \"1A/2000028\", "
							 "\"End-LSN\": \"1A/2000028\" }"));
	pgr_manifest_free(m);
	pgr_buf_fini(&text);
}

START_TEST(test_send)
{
	static const size_t chunks[] = {0, 1, 7, 4096};

	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		sqls_begin(&s, V17, chunks[i]);
		server_takes_it();
		ck_assert_msg(pgr_upload_manifest(&upload, s.c, &s.err) == PGR_OK, "%s", s.err.msg);
		ck_assert_int_eq(pgr_client_state(s.c), PGR_SS_READY);
		check_manifest();
		sqls_end(&s);
	}
}
END_TEST

/* More than one message. */
START_TEST(test_send_much)
{
	enum { MANY = 3000 };
	struct pgr_local_entry *list = calloc(MANY, sizeof(*list));
	struct pgr_buf text = {0};
	struct pgr_manifest *m;
	struct pgr_err err;

	ck_assert_ptr_nonnull(list);
	for (unsigned i = 0; i < MANY; i++) {
		char path[40];

		snprintf(path, sizeof(path), "base/5/%u", 20000 + i);
		list[i] = (struct pgr_local_entry){.path = strdup(path), .type = PGR_LOCAL_FILE, .size = PAGE};
	}
	tree = (struct pgr_localtree){.entries = list, .n = MANY};
	sqls_begin(&s, V17, 1000);
	server_takes_it();
	ck_assert_msg(pgr_upload_manifest(&upload, s.c, &s.err) == PGR_OK, "%s", s.err.msg);
	gather(&text);
	ck_assert_uint_gt(text.len, 100000);
	ck_assert_int_eq(pgr_manifest_new(&m, &err), PGR_OK);
	ck_assert_int_eq(pgr_manifest_feed(m, text.data, text.len, &err), PGR_OK);
	ck_assert_msg(pgr_manifest_done(m, &err) == PGR_OK, "%s", err.msg);
	ck_assert_uint_eq(pgr_manifest_files(m), MANY);
	pgr_manifest_free(m);
	pgr_buf_fini(&text);
	sqls_end(&s);
	for (unsigned i = 0; i < MANY; i++)
		free(list[i].path);
	free(list);
}
END_TEST

/* ---- servers that do not take it ---- */

START_TEST(test_refused_at_once)
{
	sqls_begin(&s, V17, 0);
	sqls_error(&s, "42501", "permission denied");
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "could not upload manifest: ERROR:  permission denied");
	sqls_end(&s);
}
END_TEST

START_TEST(test_refused_at_the_end)
{
	sqls_begin(&s, V17, 0);
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_copy_response(&s.msg, 'G');
	pgr_scripted_send_buf(s.srv, &s.msg);
	pgr_scripted_expect(s.srv, 'c');
	pgr_msg_error(&s.msg, "ERROR", "XX000", "system identifier in backup manifest is 1");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "system identifier in backup manifest is 1");
	sqls_end(&s);
}
END_TEST

START_TEST(test_refused_in_between)
{
	sqls_begin(&s, V17, 0);
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_copy_response(&s.msg, 'G');
	pgr_scripted_send_buf(s.srv, &s.msg);
	pgr_scripted_expect(s.srv, 'd');
	pgr_msg_error(&s.msg, "ERROR", "57014", "canceling statement");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_SERVER, "canceling statement");
	sqls_end(&s);
}
END_TEST

START_TEST(test_no_copy)
{
	sqls_begin(&s, V17, 0);
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_complete(&s.msg, "UPLOAD_MANIFEST");
	pgr_msg_ready(&s.msg);
	pgr_scripted_send_buf(s.srv, &s.msg);
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_PROTOCOL, "does not take a manifest");
	sqls_end(&s);
}
END_TEST

START_TEST(test_connection_lost)
{
	sqls_begin(&s, V17, 0);
	pgr_scripted_expect(s.srv, 'Q');
	pgr_msg_copy_response(&s.msg, 'G');
	pgr_scripted_send_buf(s.srv, &s.msg);
	pgr_scripted_expect(s.srv, 'd');
	pgr_scripted_eof(s.srv);
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	ck_assert_int_eq(s.err.cls, PGR_E_NETWORK);
	sqls_end(&s);
}
END_TEST

START_TEST(test_old_server)
{
	sqls_begin(&s, 160004, 0);
	ck_assert_int_eq(pgr_upload_manifest(&upload, s.c, &s.err), PGR_ERR);
	sqls_check_err(&s.err, PGR_E_USAGE, "needs a server of version 17");
	sqls_end(&s);
}
END_TEST

static Suite *suite(void)
{
	Suite *su = suite_create("upload");
	TCase *t = tcase_create("upload");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_which);
	tcase_add_test(t, test_send);
	tcase_add_test(t, test_send_much);
	tcase_add_test(t, test_refused_at_once);
	tcase_add_test(t, test_refused_at_the_end);
	tcase_add_test(t, test_refused_in_between);
	tcase_add_test(t, test_no_copy);
	tcase_add_test(t, test_connection_lost);
	tcase_add_test(t, test_old_server);
	suite_add_tcase(su, t);
	return su;
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
