#include <check.h>
#include <stdio.h>
#include <string.h>

#include "backup/manifest.h"
#include "backup/manifest_edit.h"

#define HEAD	 "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n"
#define ENTRY(p) "{ \"Path\": \"" p "\", \"Size\": 3, \"Last-Modified\": \"2026-11-21 09:56:00 GMT\" }"
#define ENCODED	 "{ \"Encoded-Path\": \"6b657074\", \"Size\": 3, \"Last-Modified\": \"2026-11-21 09:56:00 GMT\" }"
#define NEW(p)	 "{ \"Path\": \"" p "\", \"Size\": 9, \"Last-Modified\": \"2026-11-22 09:56:00 GMT\" }"
#define TAIL                                                                                                           \
	"\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n"
#define SUM "\"Manifest-Checksum\": \"0000\"}\n"

static struct pgr_buf out;
static struct pgr_err err;

static bool drops(void *arg, const char *path)
{
	(void)arg;
	return strcmp(path, "kept") == 0;
}

static int apply(const char *text, const char *more)
{
	const struct pgr_manifest_edit e = {.drops = drops, .more = more, .more_len = strlen(more)};

	pgr_buf_fini(&out);
	return pgr_manifest_apply(&e, text, strlen(text), &out, &err);
}

/* What comes out has this before its checksum, and is a manifest by its own words. */
static void becomes(const char *text, const char *more, const char *want)
{
	struct pgr_manifest *m;

	ck_assert_msg(apply(text, more) == PGR_OK, "%s", err.msg);
	ck_assert_uint_gt(out.len, strlen(want));
	ck_assert_int_eq(memcmp(out.data, want, strlen(want)), 0);
	ck_assert_int_eq(pgr_manifest_new(&m, &err), PGR_OK);
	ck_assert_msg(pgr_manifest_feed(m, out.data, out.len, &err) == PGR_OK, "%s", err.msg);
	ck_assert_msg(pgr_manifest_done(m, &err) == PGR_OK, "%s", err.msg);
	pgr_manifest_free(m);
	pgr_buf_fini(&out);
}

#define NOTHING HEAD TAIL SUM

START_TEST(entries_are_replaced)
{
	const char *more = HEAD NEW("kept") ",\n" NEW("new") TAIL SUM;

	becomes(HEAD ENTRY("a") ",\n" ENTRY("kept") ",\n" ENTRY("z") TAIL SUM, more,
		HEAD ENTRY("a") ",\n" ENTRY("z") ",\n" NEW("kept") ",\n" NEW("new") TAIL);
	becomes(HEAD ENTRY("kept") ",\n" ENTRY("z") TAIL SUM, more,
		HEAD ENTRY("z") ",\n" NEW("kept") ",\n" NEW("new") TAIL);
	becomes(HEAD ENTRY("a") ",\n" ENTRY("kept") TAIL SUM, more,
		HEAD ENTRY("a") ",\n" NEW("kept") ",\n" NEW("new") TAIL);
	becomes(HEAD ENCODED ",\n" ENTRY("a") TAIL SUM, more, HEAD ENTRY("a") ",\n" NEW("kept") ",\n" NEW("new") TAIL);
	becomes(HEAD ENTRY("kept") TAIL SUM, more, HEAD NEW("kept") ",\n" NEW("new") TAIL);
}
END_TEST

START_TEST(nothing_to_replace)
{
	becomes(HEAD ENTRY("a") ",\n" ENTRY("kept2") TAIL SUM, NOTHING, HEAD ENTRY("a") ",\n" ENTRY("kept2") TAIL);
	becomes(HEAD ENTRY("a") ",\n" ENTRY("ke\\u0070t") TAIL SUM, NOTHING,
		HEAD ENTRY("a") ",\n" ENTRY("ke\\u0070t") TAIL);
}
END_TEST

START_TEST(no_manifest)
{
	ck_assert_int_eq(apply("", NOTHING), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_int_eq(apply(HEAD ENTRY("a") ",\n", NOTHING), PGR_ERR);
	ck_assert_int_eq(apply(HEAD ENTRY("a") TAIL SUM, ""), PGR_ERR);
	ck_assert_int_eq(apply("{ \"Files\": [" ENTRY("a") "] }", NOTHING), PGR_ERR);
	pgr_buf_fini(&out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("manifest_edit");
	TCase *tc = tcase_create("edit");

	tcase_add_test(tc, entries_are_replaced);
	tcase_add_test(tc, nothing_to_replace);
	tcase_add_test(tc, no_manifest);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
