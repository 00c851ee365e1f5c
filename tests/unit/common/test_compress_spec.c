#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/compress_spec.h"

#define INV "invalid compression specification: "

static const struct good_case {
	const char *arg;
	struct pgr_compress_spec want;
} good[] = {
	{"none", {.method = PGR_COMP_NONE, .name = "none"}},
	{"0", {.method = PGR_COMP_NONE, .name = "none"}},
	{"", {.method = PGR_COMP_NONE, .name = "none"}},
	{"none:0",
	 {.method = PGR_COMP_NONE, .name = "none", .detail = "0", .has_detail = true, .has_level = true, .level = 0}},
	{"gzip", {.method = PGR_COMP_GZIP, .name = "gzip"}},
	{"7",
	 {.method = PGR_COMP_GZIP, .name = "gzip", .detail = "7", .has_detail = true, .has_level = true, .level = 7}},
	{"client-7",
	 {.method = PGR_COMP_GZIP,
	  .where = PGR_COMP_CLIENT,
	  .name = "gzip",
	  .detail = "7",
	  .has_detail = true,
	  .has_level = true,
	  .level = 7}},
	{"-1",
	 {.method = PGR_COMP_GZIP, .name = "gzip", .detail = "-1", .has_detail = true, .has_level = true, .level = -1}},
	{"gzip:1",
	 {.method = PGR_COMP_GZIP, .name = "gzip", .detail = "1", .has_detail = true, .has_level = true, .level = 1}},
	{"gzip:9",
	 {.method = PGR_COMP_GZIP, .name = "gzip", .detail = "9", .has_detail = true, .has_level = true, .level = 9}},
	{"gzip:level=6",
	 {.method = PGR_COMP_GZIP,
	  .name = "gzip",
	  .detail = "level=6",
	  .has_detail = true,
	  .has_level = true,
	  .level = 6}},
	{"gzip:level=10,level=2",
	 {.method = PGR_COMP_GZIP,
	  .name = "gzip",
	  .detail = "level=10,level=2",
	  .has_detail = true,
	  .has_level = true,
	  .level = 2}},
	{"client-lz4:12",
	 {.method = PGR_COMP_LZ4,
	  .where = PGR_COMP_CLIENT,
	  .name = "lz4",
	  .detail = "12",
	  .has_detail = true,
	  .has_level = true,
	  .level = 12}},
	{"lz4:0",
	 {.method = PGR_COMP_LZ4, .name = "lz4", .detail = "0", .has_detail = true, .has_level = true, .level = 0}},
	{"zstd:22",
	 {.method = PGR_COMP_ZSTD, .name = "zstd", .detail = "22", .has_detail = true, .has_level = true, .level = 22}},
	{"zstd:-131072",
	 {.method = PGR_COMP_ZSTD,
	  .name = "zstd",
	  .detail = "-131072",
	  .has_detail = true,
	  .has_level = true,
	  .level = -131072}},
	{"zstd:level=3,workers=4,long",
	 {.method = PGR_COMP_ZSTD,
	  .name = "zstd",
	  .detail = "level=3,workers=4,long",
	  .has_detail = true,
	  .has_level = true,
	  .level = 3,
	  .has_workers = true,
	  .workers = 4,
	  .has_long = true,
	  .long_distance = true}},
	{"zstd:long=No",
	 {.method = PGR_COMP_ZSTD, .name = "zstd", .detail = "long=No", .has_detail = true, .has_long = true}},
	{"zstd:long=1,workers=0",
	 {.method = PGR_COMP_ZSTD,
	  .name = "zstd",
	  .detail = "long=1,workers=0",
	  .has_detail = true,
	  .has_workers = true,
	  .has_long = true,
	  .long_distance = true}},
	{"server-zstd:workers=2",
	 {.method = PGR_COMP_ZSTD,
	  .where = PGR_COMP_SERVER,
	  .name = "zstd",
	  .detail = "workers=2",
	  .has_detail = true,
	  .has_workers = true,
	  .workers = 2}},
	{"server-5",
	 {.method = PGR_COMP_GZIP,
	  .where = PGR_COMP_SERVER,
	  .name = "gzip",
	  .detail = "5",
	  .has_detail = true,
	  .has_level = true,
	  .level = 5}},
	/* what only the server may judge */
	{"server-gzip:", {.method = PGR_COMP_GZIP, .where = PGR_COMP_SERVER, .name = "gzip", .has_detail = true}},
	{"server-extrasquishy", {.where = PGR_COMP_SERVER, .name = "extrasquishy"}},
	{"server-foo:bar,3", {.where = PGR_COMP_SERVER, .name = "foo", .detail = "bar,3", .has_detail = true}},
	{"server-gzip:workers=3",
	 {.method = PGR_COMP_GZIP,
	  .where = PGR_COMP_SERVER,
	  .name = "gzip",
	  .detail = "workers=3",
	  .has_detail = true,
	  .has_workers = true,
	  .workers = 3}},
};

static void assert_same(const char *arg, const struct pgr_compress_spec *got, const struct pgr_compress_spec *want)
{
	ck_assert_msg(got->method == want->method, "method of %s", arg);
	ck_assert_msg(got->where == want->where, "place of %s", arg);
	ck_assert_msg(got->has_level == want->has_level && got->level == want->level, "level of %s", arg);
	ck_assert_msg(got->has_workers == want->has_workers && got->workers == want->workers, "workers of %s", arg);
	ck_assert_msg(got->has_long == want->has_long && got->long_distance == want->long_distance, "long of %s", arg);
	ck_assert_str_eq(got->name, want->name);
	ck_assert_str_eq(got->detail, want->detail);
	ck_assert_msg(got->has_detail == want->has_detail, "detail of %s", arg);
}

START_TEST(accepts)
{
	const struct good_case *c = &good[_i];
	struct pgr_compress_spec got;
	struct pgr_err err = {0};

	memset(&got, 0xaa, sizeof(got));
	ck_assert_msg(pgr_compress_spec_parse(&got, c->arg, &err) == PGR_OK, "%s: %s", c->arg, err.msg);
	assert_same(c->arg, &got, &c->want);
}
END_TEST

/* The texts are those of pg_basebackup 18, as its own tests expect them. */
static const char *const bad[][2] = {
	{"extrasquishy", "unrecognized compression algorithm: \"extrasquishy\""},
	{"GZIP", "unrecognized compression algorithm: \"GZIP\""},
	{" ", "unrecognized compression algorithm: \" \""},
	{"gzip=3", "unrecognized compression algorithm: \"gzip=3\""},
	{"server", "unrecognized compression algorithm: \"server\""},
	{"client-gzop", "unrecognized compression algorithm: \"gzop\""},
	{":1", "unrecognized compression algorithm: \"\""},
	{"gzip:", INV "found empty string where a compression option was expected"},
	{"gzip:level=1,", INV "found empty string where a compression option was expected"},
	{"gzip:,level=1", INV "found empty string where a compression option was expected"},
	{"zstd:=3", INV "found empty string where a compression option was expected"},
	{"gzip:thunk", INV "unrecognized compression option: \"thunk\""},
	{"gzip:1x", INV "unrecognized compression option: \"1x\""},
	{"gzip:level", INV "compression option \"level\" requires a value"},
	{"gzip:level=", INV "value for compression option \"level\" must be an integer"},
	{"gzip:level=high", INV "value for compression option \"level\" must be an integer"},
	{"gzip:level=1=2", INV "value for compression option \"level\" must be an integer"},
	{"gzip:level=4294967297",
	 INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"17", INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"-2", INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"gzip:236", INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"gzip:level=9,level=10",
	 INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"gzip:0", INV "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"},
	{"lz4:13", INV "compression algorithm \"lz4\" expects a compression level between 1 and 12 (default at 0)"},
	{"lz4:-1", INV "compression algorithm \"lz4\" expects a compression level between 1 and 12 (default at 0)"},
	{"zstd:23",
	 INV "compression algorithm \"zstd\" expects a compression level between -131072 and 22 (default at 3)"},
	{"gzip:workers=3", INV "compression algorithm \"gzip\" does not accept a worker count"},
	{"lz4:workers=3", INV "compression algorithm \"lz4\" does not accept a worker count"},
	{"none:workers=3", INV "compression algorithm \"none\" does not accept a worker count"},
	{"zstd:workers", INV "compression option \"workers\" requires a value"},
	{"zstd:workers=x", INV "value for compression option \"workers\" must be an integer"},
	{"gzip:long", INV "compression algorithm \"gzip\" does not support long-distance mode"},
	{"zstd:long=maybe", INV "value for compression option \"long\" must be a Boolean value"},
	{"zstd:long=", INV "value for compression option \"long\" must be a Boolean value"},
	{"none:1", INV "compression algorithm \"none\" does not accept a compression level"},
	{"none:level=1", INV "compression algorithm \"none\" does not accept a compression level"},
};

START_TEST(refuses)
{
	const char *arg = bad[_i][0];
	struct pgr_compress_spec got = {.method = PGR_COMP_LZ4};
	struct pgr_err err = {0};

	ck_assert_msg(pgr_compress_spec_parse(&got, arg, &err) == PGR_ERR, "%s was taken", arg);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_str_eq(err.msg, bad[_i][1]);
	ck_assert_int_eq(got.method, PGR_COMP_LZ4);
}
END_TEST

/* Names and details go into fixed arrays: their last byte and the first one too many. */
START_TEST(long_arguments)
{
	static const char *const places[] = {"server-", "client-", ""};

	for (size_t p = 0; p < 3; p++) {
		for (size_t n = 60; n < 140; n++) {
			char arg[256];
			struct pgr_compress_spec got;
			struct pgr_err err = {0};
			int pos = snprintf(arg, sizeof(arg), "%sgzip:", places[p]);
			bool fits = n < sizeof(got.detail);

			memset(arg + pos, '0', n - 1);
			strcpy(arg + pos + n - 1, "1");
			ck_assert_int_eq(pgr_compress_spec_parse(&got, arg, &err), fits ? PGR_OK : PGR_ERR);
			if (fits)
				ck_assert_str_eq(got.detail, arg + pos);
			else
				ck_assert_int_eq(err.cls, PGR_E_USAGE);

			pos = snprintf(arg, sizeof(arg), "%s", places[p]);
			memset(arg + pos, 'x', n);
			arg[(size_t)pos + n] = '\0';
			fits = p == 0 && n < sizeof(got.name);
			ck_assert_int_eq(pgr_compress_spec_parse(&got, arg, &err), fits ? PGR_OK : PGR_ERR);
			if (fits)
				ck_assert_str_eq(got.name, arg + pos);
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("compress_spec");
	TCase *tc = tcase_create("compress_spec");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, accepts, 0, sizeof(good) / sizeof(good[0]));
	tcase_add_loop_test(tc, refuses, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, long_arguments);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
