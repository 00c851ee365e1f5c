#include <check.h>
#include <string.h>

#include "backup/rowsum.h"
#include "common/digest.h"
#include "proto/fields.h"

static struct pgr_err err;

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

START_TEST(algorithms)
{
	ck_assert_int_eq(pgr_rowsum_algo(100023), PGR_ROWSUM_MD5);
	ck_assert_int_eq(pgr_rowsum_algo(110000), PGR_ROWSUM_SHA256);
	ck_assert_uint_eq(pgr_rowsum_len(PGR_ROWSUM_NONE), 0);
	ck_assert_uint_eq(pgr_rowsum_len(PGR_ROWSUM_MD5), 16);
	ck_assert_uint_eq(pgr_rowsum_len(PGR_ROWSUM_SHA256), 32);
}
END_TEST

START_TEST(expressions)
{
	struct pgr_buf b = {0};

	must(pgr_rowsum_sql(&b, PGR_ROWSUM_MD5, "x", &err));
	ck_assert_str_eq(pgr_buf_str(&b), "pg_catalog.decode(pg_catalog.md5(x), 'hex')");
	b.len = 0;
	must(pgr_rowsum_row_sql(&b, PGR_ROWSUM_SHA256, "c", "f", "o", "n", &err));
	ck_assert_str_eq(pgr_buf_str(&b),
			 "pg_catalog.sha256(coalesce(pg_catalog.sha256(c), '') || pg_catalog.textsend(f) || "
			 "pg_catalog.int8send(o) || pg_catalog.int8send(n))");
	pgr_buf_fini(&b);
}
END_TEST

/* As a server of 15 computes them. */
static const struct {
	enum pgr_rowsum_algo algo;
	const char *content; /* NULL: no such file */
	const char *name;
	uint64_t offset, length;
	const char *sum;
} known[] = {
	{PGR_ROWSUM_SHA256, "hello", "base/5/1259", 131072, 5,
	 "f4f7b8f61774edea6cdbcf0d66c5298da1436ffadcbda6e314b211219ca31bda"},
	{PGR_ROWSUM_SHA256, "", "empty", 0, 0, "877204fdba61ca82a5420b95dc042241379310fb739f913ace8a9c1ee7258495"},
	{PGR_ROWSUM_SHA256, NULL, "gone", 0, 8192, "19f6c1016ec596cb63e09bc35171ad5784b77407c0521dbcd8d8ce6ae3998fd3"},
	{PGR_ROWSUM_MD5, "hello", "base/5/1259", 131072, 5, "404c41cd03c9b4df2266001a2b16e175"},
	{PGR_ROWSUM_MD5, NULL, "gone", 0, 8192, "971f158445090600563155ce16bd0b7b"},
};

START_TEST(known_rows)
{
	struct pgr_rowsum_row row = {
		.content = known[_i].content,
		.len = known[_i].content != NULL ? strlen(known[_i].content) : 0,
		.name = known[_i].name,
		.offset = known[_i].offset,
		.length = known[_i].length,
	};
	struct pgr_rowsum s = {0};
	uint8_t sum[PGR_ROWSUM_MAX];
	char hex[2 * PGR_ROWSUM_MAX + 1];

	/* again and again, and after the other one */
	must(pgr_rowsum_init(&s, known[_i].algo == PGR_ROWSUM_MD5 ? PGR_ROWSUM_SHA256 : PGR_ROWSUM_MD5, &err));
	must(pgr_rowsum_row(&s, &row, sum, &err));
	must(pgr_rowsum_init(&s, known[_i].algo, &err));
	for (int i = 0; i < 3; i++) {
		must(pgr_rowsum_row(&s, &row, sum, &err));
		pgr_hex(hex, sum, pgr_rowsum_len(known[_i].algo));
		ck_assert_str_eq(hex, known[_i].sum);
	}
	pgr_rowsum_fini(&s);
}
END_TEST

/* Every part of it counts. */
START_TEST(different_rows)
{
	static const struct pgr_rowsum_row rows[] = {
		{"abc", 3, "name", 0, 3}, {"abd", 3, "name", 0, 3}, {"abc", 2, "name", 0, 3},
		{"abc", 3, "mane", 0, 3}, {"abc", 3, "name", 1, 3}, {"abc", 3, "name", 0, 4},
		{"", 0, "name", 0, 3},	  {NULL, 0, "name", 0, 3},  {"abc", 3, "name", 1ull << 56, 3},
		{NULL, 0, "namf", 0, 3},
	};
	const size_t n = sizeof(rows) / sizeof(rows[0]);
	uint8_t sums[10][PGR_ROWSUM_MAX];
	struct pgr_rowsum s = {0};

	must(pgr_rowsum_init(&s, PGR_ROWSUM_SHA256, &err));
	for (size_t i = 0; i < n; i++) {
		must(pgr_rowsum_row(&s, &rows[i], sums[i], &err));
		for (size_t k = 0; k < i; k++)
			ck_assert_msg(memcmp(sums[k], sums[i], 32) != 0, "%zu and %zu", k, i);
	}
	pgr_rowsum_fini(&s);
	pgr_rowsum_fini(&s);
}
END_TEST

/* ---- rows of text ---- */

static void put_value(struct pgr_buf *b, const char *v)
{
	if (v == NULL) {
		must(pgr_buf_put32(b, UINT32_MAX, &err));
		return;
	}
	must(pgr_buf_put32(b, (uint32_t)strlen(v), &err));
	must(pgr_buf_puts(b, v, &err));
}

static bool holds(const char *a, const char *b, const char *sum, const char *text)
{
	struct pgr_buf body = {0}, query = {0};
	struct pgr_rowsum s = {0};
	struct pgr_row row;
	bool yes;

	must(pgr_buf_put16(&body, 3, &err));
	put_value(&body, a);
	put_value(&body, b);
	put_value(&body, sum);
	must(pgr_buf_puts(&query, text, &err));
	must(pgr_row_decode((struct pgr_span){body.data, body.len}, &row, &err));
	must(pgr_rowsum_init(&s, PGR_ROWSUM_SHA256, &err));
	must(pgr_rowsum_holds(&s, &row, &query, &yes, &err));
	pgr_rowsum_fini(&s);
	pgr_buf_fini(&body);
	pgr_buf_fini(&query);
	return yes;
}

START_TEST(rows_of_text)
{
	/* printf 'one/twoSELECT' | sha256sum; printf 'one/SELECT' | sha256sum */
	static const char sum[] = "27478a252dd24ebe53692e84db82ac872caf2c194b44c230d7960b893a581f1d",
			  sum_null[] = "2fa90d08f47bf0a4163021eb42a6c430010924e6c369605da85719bb134558a9";
	char other[65];

	ck_assert(holds("one", "two", sum, "SELECT"));
	ck_assert(!holds("one", "two", sum, "SELEKT"));
	ck_assert(!holds("one", "twp", sum, "SELECT"));
	ck_assert(!holds("ones", "two", sum, "SELECT"));
	ck_assert(holds("one", NULL, sum_null, "SELECT"));
	ck_assert(holds("one", "", sum_null, "SELECT")); /* as concat() */
	ck_assert(!holds("one", "two", NULL, "SELECT"));
	ck_assert(!holds("one", "two", "", "SELECT"));
	for (size_t i = 0; i < 64; i++) {
		strcpy(other, sum);
		other[i] ^= 1;
		ck_assert(!holds("one", "two", other, "SELECT"));
	}
}
END_TEST

START_TEST(wrapped_query)
{
	struct pgr_buf query = {0}, out = {0};

	must(pgr_buf_puts(&query, "SELECT 1, x FROM y", &err));
	must(pgr_buf_puts(&out, "what was there before", &err));
	must(pgr_rowsum_wrap(&out, PGR_ROWSUM_SHA256, &query, 2, &err));
	ck_assert_str_eq(pgr_buf_str(&out),
			 "SELECT a, b, pg_catalog.encode(pg_catalog.sha256(pg_catalog.textsend(pg_catalog.concat("
			 "a, '/', b)) || pg_catalog.textsend(pg_catalog.current_query())), 'hex') "
			 "FROM (SELECT 1, x FROM y OFFSET 0) r (a, b)");
	must(pgr_rowsum_wrap(&out, PGR_ROWSUM_MD5, &query, 1, &err));
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&out), "(a)) || "));
	ck_assert_int_eq(pgr_rowsum_wrap(&out, PGR_ROWSUM_MD5, &query, 0, &err), PGR_ERR);
	ck_assert_int_eq(pgr_rowsum_wrap(&out, PGR_ROWSUM_MD5, &query, 5, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	pgr_buf_fini(&query);
	pgr_buf_fini(&out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rowsum");
	TCase *t = tcase_create("rowsum");
	SRunner *sr;
	int failed;

	tcase_add_test(t, algorithms);
	tcase_add_test(t, expressions);
	tcase_add_loop_test(t, known_rows, 0, (int)(sizeof(known) / sizeof(known[0])));
	tcase_add_test(t, different_rows);
	tcase_add_test(t, rows_of_text);
	tcase_add_test(t, wrapped_query);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
