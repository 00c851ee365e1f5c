#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/fields.h"

/* A span over memory of exactly its size, so that a read beyond it shows under ASan. */
static struct pgr_span own(const void *p, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1);

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, p, len);
	return (struct pgr_span){copy, len};
}

static void disown(struct pgr_span s)
{
	union {
		const uint8_t *in;
		uint8_t *out;
	} u = {s.p};

	free(u.out);
}

#define OWN(literal) own(literal, sizeof(literal) - 1)

static void is(struct pgr_span s, const char *want)
{
	ck_assert_ptr_nonnull(s.p);
	ck_assert_uint_eq(s.len, strlen(want));
	ck_assert_int_eq(memcmp(s.p, want, s.len), 0);
}

/* ---- errors and notices ---- */

#define FULL                                                                                                           \
	"SFEHLER\0VERROR\0C42P01\0Mmessage\0Ddetail\0Hhint\0P5\0p7\0qselect\0Wcontext\0sschema\0ttable\0"              \
	"ccolumn\0dtype\0nconstraint\0Ffile.c\0L77\0Rroutine\0Yunknown\0\0"

START_TEST(fields_all)
{
	struct pgr_span body = own(FULL, sizeof(FULL) - 1);
	struct pgr_fields f;
	struct pgr_err err;

	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	is(f.severity, "FEHLER");
	is(f.severity_nonlocal, "ERROR");
	is(f.code, "42P01");
	is(f.message, "message");
	is(f.detail, "detail");
	is(f.hint, "hint");
	is(f.position, "5");
	is(f.internal_position, "7");
	is(f.internal_query, "select");
	is(f.context, "context");
	is(f.schema, "schema");
	is(f.table, "table");
	is(f.column, "column");
	is(f.datatype, "type");
	is(f.constraint, "constraint");
	is(f.file, "file.c");
	is(f.line, "77");
	is(f.routine, "routine");
	disown(body);
}
END_TEST

START_TEST(fields_few)
{
	struct pgr_span body = OWN("Mm\0D\0\0");
	struct pgr_fields f;
	struct pgr_err err;

	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	is(f.message, "m");
	is(f.detail, ""); /* sent, and empty */
	ck_assert_ptr_null(f.severity.p);
	ck_assert_ptr_null(f.hint.p);
	disown(body);
	body = OWN("\0");
	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	ck_assert_ptr_null(f.message.p);
	disown(body);
}
END_TEST

/* Every prefix of a message is malformed, and so is anything after its end. */
START_TEST(fields_malformed)
{
	struct pgr_fields f;
	struct pgr_err err;
	struct pgr_span body;

	for (size_t n = 0; n < sizeof(FULL) - 1; n++) {
		body = own(FULL, n);
		ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		disown(body);
	}
	body = own(FULL "x", sizeof(FULL));
	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_ERR);
	disown(body);
}
END_TEST

static const struct {
	const char *body;
	size_t len;
	bool fatal;
	const char *text;
} messages[] = {
#define MSG(literal) literal, sizeof(literal) - 1
	{MSG("SERROR\0VERROR\0C42710\0Mreplication slot \"s\" already exists\0\0"), false,
	 "ERROR:  replication slot \"s\" already exists\n"},
	/* everything, in libpq's order; the position within the statement, schema and so on are left out */
	{MSG(FULL), false, "FEHLER:  message\nDETAIL:  detail\nHINT:  hint\nQUERY:  select\nCONTEXT:  context\n"},
	/* a notice shows no context */
	{MSG("SWARNING\0VWARNING\0C01000\0Mm\0Dd\0Wc\0\0"), false, "WARNING:  m\nDETAIL:  d\n"},
	{MSG("SHINWEIS\0VNOTICE\0C00000\0Mm\0Wc\0\0"), false, "HINWEIS:  m\n"},
	{MSG("SFATAL\0VFATAL\0C57P01\0Mm\0Wc\0\0"), true, "FATAL:  m\nCONTEXT:  c\n"},
	{MSG("SPANIK\0VPANIC\0CXX000\0Mm\0\0"), true, "PANIK:  m\n"},
	/* the untranslated severity decides */
	{MSG("SFATAL\0VERROR\0C57P01\0Mm\0\0"), false, "FATAL:  m\n"},
	{MSG("SHINWEIS\0VNOTICE\0C42P07\0Mm\0Wc\0\0"), false, "HINWEIS:  m\n"},
	{MSG("SFEHLER\0VERROR\0C01000\0Mm\0Wc\0\0"), false, "FEHLER:  m\nCONTEXT:  c\n"},
	/* before 9.6 there is only the translated one */
	{MSG("SFATAL\0C57P01\0Mm\0Wc\0\0"), true, "FATAL:  m\nCONTEXT:  c\n"},
	{MSG("SPANIC\0CXX000\0Mm\0\0"), true, "PANIC:  m\n"},
	{MSG("SERROR\0C57P01\0Mm\0\0"), false, "ERROR:  m\n"},
	{MSG("SFEHLER\0C42601\0Mm\0Wc\0\0"), false, "FEHLER:  m\nCONTEXT:  c\n"},
	{MSG("SSCHWER\0C57P01\0Mm\0Wc\0\0"), true, "SCHWER:  m\nCONTEXT:  c\n"},
	{MSG("SSCHWER\0C57P05\0Mm\0\0"), false, "SCHWER:  m\n"},
	{MSG("SWARNUNG\0C01000\0Mm\0Wc\0\0"), false, "WARNUNG:  m\n"},
	{MSG("SHINWEIS\0C00000\0Mm\0Wc\0\0"), false, "HINWEIS:  m\n"},
	{MSG("SHINWEIS\0C02000\0Mm\0Wc\0\0"), false, "HINWEIS:  m\n"},
	{MSG("SFEHLER\0C03000\0Mm\0Wc\0\0"), false, "FEHLER:  m\nCONTEXT:  c\n"},
	/* without severity, without message, without anything */
	{MSG("VLOG\0Mm\0\0"), false, "LOG:  m\n"},
	{MSG("Mm\0\0"), false, "m\n"},
	{MSG("SERROR\0\0"), false, "ERROR:  \n"},
	{MSG("\0"), false, "\n"},
	/* a server cannot steer the terminal; line ends, tabs and UTF-8 stay */
	{MSG("SERROR\0Mb\33[31m\7\r\n\t\x7f\x80\xc3\xa4\0D\1\0\0"), false,
	 "ERROR:  b?[31m??\n\t?\x80\xc3\xa4\nDETAIL:  ?\n"},
};

START_TEST(fields_text)
{
	struct pgr_span body = own(messages[_i].body, messages[_i].len);
	struct pgr_buf out = {0};
	struct pgr_fields f;
	struct pgr_err err;

	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	ck_assert_int_eq(pgr_fields_fatal(&f), messages[_i].fatal);
	ck_assert_int_eq(pgr_buf_puts(&out, "\33before ", &err), PGR_OK);
	ck_assert_int_eq(pgr_fields_text(&f, &out, &err), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&out) + 8, messages[_i].text);
	ck_assert_int_eq(out.data[0], '\33'); /* what is in the buffer already is not touched */
	pgr_buf_fini(&out);
	disown(body);
}
END_TEST

START_TEST(fields_err)
{
	struct pgr_span body = own(messages[_i].body, messages[_i].len);
	struct pgr_fields f;
	struct pgr_err err;

	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	ck_assert_int_eq(pgr_fields_to_err(&f, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_SERVER);
	ck_assert_int_eq(err.fatal, messages[_i].fatal);
	ck_assert_uint_eq(strlen(err.msg), strlen(messages[_i].text) - 1);
	ck_assert_int_eq(strncmp(err.msg, messages[_i].text, strlen(err.msg)), 0);
	ck_assert_uint_eq(strlen(err.sqlstate), 5);
	if (f.code.p != NULL)
		is(f.code, err.sqlstate);
	else
		ck_assert_str_eq(err.sqlstate, "XX000");
	disown(body);
}
END_TEST

/* A code that is none must not get into the fixed field. */
START_TEST(fields_bad_code)
{
	static const char *const codes[] = {"",	     "1234",  "123456", "4271\"", "abcde",	"42\n10",
					    "/2710", ":2710", "@2710",	"[2710",  "427\x80\x80"};
	static const char *const good[] = {"00000", "0A9Z0", "ZZ999"};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct pgr_fields f = {.code = {(const uint8_t *)codes[i], strlen(codes[i])}};
		struct pgr_err err;

		pgr_fields_to_err(&f, &err);
		ck_assert_str_eq(err.sqlstate, "XX000");
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct pgr_fields f = {.code = {(const uint8_t *)good[i], 5}};
		struct pgr_err err;

		pgr_fields_to_err(&f, &err);
		ck_assert_str_eq(err.sqlstate, good[i]);
	}
}
END_TEST

/* A text longer than an error has room for is cut, and a % in it means nothing. */
START_TEST(fields_long)
{
	size_t n = 100000;
	char *text = malloc(n);
	struct pgr_fields f = {.severity = {(const uint8_t *)"ERROR", 5}};
	struct pgr_err err;

	ck_assert_ptr_nonnull(text);
	for (size_t i = 0; i < n; i++)
		text[i] = "%s%n"[i % 4];
	f.message = (struct pgr_span){(const uint8_t *)text, n};
	ck_assert_int_eq(pgr_fields_to_err(&f, &err), PGR_ERR);
	ck_assert_uint_gt(strlen(err.msg), sizeof(err.msg) - 8);
	ck_assert_int_eq(strncmp(err.msg, "ERROR:  %s%n%s", 14), 0);
	free(text);
}
END_TEST

/* Whatever there is no room for, the buffer is as it was. */
START_TEST(fields_no_room)
{
	struct pgr_span body = own(FULL, sizeof(FULL) - 1);
	struct pgr_fields f;
	struct pgr_err err;
	size_t limit = 4;
	int rc;

	ck_assert_int_eq(pgr_fields_decode(body, &f, &err), PGR_OK);
	do {
		struct pgr_buf out = {.limit = limit++};

		ck_assert_int_eq(pgr_buf_puts(&out, "abc", &err), PGR_OK);
		rc = pgr_fields_text(&f, &out, &err);
		if (rc == PGR_ERR)
			ck_assert_uint_eq(out.len, 3);
		pgr_buf_fini(&out);
	} while (rc == PGR_ERR);
	ck_assert_uint_gt(limit, 60);
	disown(body);
}
END_TEST

/* ---- rows ---- */

#define ROW "\0\4\0\0\0\3abc\377\377\377\377\0\0\0\0\0\0\0\1\0"

START_TEST(row)
{
	struct pgr_span body = OWN(ROW);
	struct pgr_row r;
	struct pgr_err err;

	ck_assert_int_eq(pgr_row_decode(body, &r, &err), PGR_OK);
	ck_assert_uint_eq(r.ncols, 4);
	is(pgr_row_col(&r, 0), "abc");
	ck_assert_ptr_null(pgr_row_col(&r, 1).p);
	ck_assert_ptr_nonnull(pgr_row_col(&r, 2).p); /* empty, not NULL */
	ck_assert_uint_eq(pgr_row_col(&r, 2).len, 0);
	ck_assert_uint_eq(pgr_row_col(&r, 3).len, 1);
	ck_assert_uint_eq(pgr_row_col(&r, 3).p[0], 0);
	ck_assert_ptr_null(pgr_row_col(&r, 4).p);
	ck_assert_uint_eq(pgr_row_col(&r, 4).len, 0);
	ck_assert_ptr_null(pgr_row_col(&r, 0xFFFFFFFF).p);
	disown(body);
	body = OWN("\0\0");
	ck_assert_int_eq(pgr_row_decode(body, &r, &err), PGR_OK);
	ck_assert_ptr_null(pgr_row_col(&r, 0).p);
	disown(body);
}
END_TEST

START_TEST(row_malformed)
{
	static const struct {
		const char *body;
		size_t len;
	} bad[] = {
		{MSG("\0\1\0\0\0\4abc")},	   /* longer than the message */
		{MSG("\0\1\0\0\0\2abc")},	   /* something left over */
		{MSG("\0\1\377\377\377\376")},	   /* length -2 */
		{MSG("\0\1\177\377\377\377abc")},  /* 2 GiB */
		{MSG("\0\2\377\377\377\377")},	   /* one column too few */
		{MSG("\0\0\0")},		   /* one byte too many */
		{MSG("\377\377\377\377\377\377")}, /* 65535 columns */
	};
	struct pgr_span body;
	struct pgr_row r;
	struct pgr_err err;

	for (size_t n = 0; n < sizeof(ROW) - 1; n++) {
		body = own(ROW, n);
		ck_assert_int_eq(pgr_row_decode(body, &r, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		disown(body);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		body = own(bad[i].body, bad[i].len);
		ck_assert_int_eq(pgr_row_decode(body, &r, &err), PGR_ERR);
		disown(body);
	}
}
END_TEST

#define DESC                                                                                                           \
	"\0\2systemid\0\0\0\0\0\0\0\0\0\0\31\377\377\377\377\377\377\0\0"                                              \
	"t\0\0\0\0\7\0\1\0\1\2\3\0\4\377\377\377\376\0\1"

START_TEST(rowdesc)
{
	struct pgr_span body = OWN(DESC);
	struct pgr_rowdesc d;
	struct pgr_err err;

	ck_assert_int_eq(pgr_rowdesc_decode(body, &d, &err), PGR_OK);
	ck_assert_uint_eq(d.ncols, 2);
	is(pgr_rowdesc_name(&d, 0), "systemid");
	is(pgr_rowdesc_name(&d, 1), "t");
	ck_assert_uint_eq(pgr_rowdesc_type(&d, 0), 25);
	ck_assert_uint_eq(pgr_rowdesc_type(&d, 1), 0x00010203);
	ck_assert_ptr_null(pgr_rowdesc_name(&d, 2).p);
	ck_assert_uint_eq(pgr_rowdesc_name(&d, 2).len, 0);
	ck_assert_uint_eq(pgr_rowdesc_type(&d, 2), 0);
	disown(body);
	for (size_t n = 0; n < sizeof(DESC) - 1; n++) {
		body = own(DESC, n);
		ck_assert_int_eq(pgr_rowdesc_decode(body, &d, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		disown(body);
	}
	body = own(DESC "x", sizeof(DESC));
	ck_assert_int_eq(pgr_rowdesc_decode(body, &d, &err), PGR_ERR);
	disown(body);
}
END_TEST

/* ---- the small ones ---- */

START_TEST(param)
{
	static const struct {
		const char *body;
		size_t len;
	} bad[] = {{MSG("")}, {MSG("a")}, {MSG("a\0")}, {MSG("a\0b")}, {MSG("a\0b\0c")}, {MSG("a\0b\0\0")}};
	struct pgr_span body = OWN("server_version\00018.6\0");
	struct pgr_span name, value;
	struct pgr_err err;

	ck_assert_int_eq(pgr_param_decode(body, &name, &value, &err), PGR_OK);
	is(name, "server_version");
	is(value, "18.6");
	disown(body);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		body = own(bad[i].body, bad[i].len);
		ck_assert_int_eq(pgr_param_decode(body, &name, &value, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		disown(body);
	}
}
END_TEST

START_TEST(copy_response)
{
	static const struct {
		const char *body;
		size_t len;
		bool ok;
	} cases[] = {
		{MSG("\0\0\0"), true},		{MSG("\1\0\0"), true},	{MSG("\0\0\2\0\0\0\1"), true},
		{MSG("\2\0\0"), false},					/* format of the whole */
		{MSG("\0\0\1\0\2"), false},				/* format of a column */
		{MSG("\0\0\2\0\2\0\0"), false}, {MSG("\0\0\1"), false}, /* too short */
		{MSG("\0\0\0\0"), false},				/* too long */
		{MSG("\0\377\377\0\0"), false}, {MSG("\0\0"), false},	{MSG(""), false},
	};
	struct pgr_err err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pgr_span body = own(cases[i].body, cases[i].len);

		ck_assert_int_eq(pgr_copy_response_check(body, &err), cases[i].ok ? PGR_OK : PGR_ERR);
		if (!cases[i].ok)
			ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
		disown(body);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fields");
	TCase *tc = tcase_create("fields");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, fields_all);
	tcase_add_test(tc, fields_few);
	tcase_add_test(tc, fields_malformed);
	tcase_add_loop_test(tc, fields_text, 0, (int)(sizeof(messages) / sizeof(messages[0])));
	tcase_add_loop_test(tc, fields_err, 0, (int)(sizeof(messages) / sizeof(messages[0])));
	tcase_add_test(tc, fields_bad_code);
	tcase_add_test(tc, fields_long);
	tcase_add_test(tc, fields_no_room);
	tcase_add_test(tc, row);
	tcase_add_test(tc, row_malformed);
	tcase_add_test(tc, rowdesc);
	tcase_add_test(tc, param);
	tcase_add_test(tc, copy_response);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
