#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/jsonlex.h"

/* One character a token; strings and numbers with their text: {"a":1} is {"a"=:=1=}. */
static const char marks[] = "{}[]:,";

struct seen {
	char text[32 * 1024];
	size_t len;
	int rc;
	struct pgr_err err;
	uint64_t line;
};

static void see(struct seen *s, const struct pgr_jsonlex *l, enum pgr_json_token t)
{
	char quote = t == PGR_JSON_STRING ? '"' : '=';

	ck_assert_uint_lt(s->len + l->text.len + 3, sizeof(s->text));
	if (t < PGR_JSON_STRING) {
		s->text[s->len++] = marks[t];
		return;
	}
	s->text[s->len++] = quote;
	memcpy(s->text + s->len, l->text.data, l->text.len);
	s->len += l->text.len;
	s->text[s->len++] = quote;
}

/* Feeds memory of exactly its size, so that a read beyond it shows under ASan. */
static void feed(struct seen *s, struct pgr_jsonlex *l, const char *json, size_t n)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	const uint8_t *p = copy;
	enum pgr_json_token t;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, json, n);
	do {
		s->rc = pgr_jsonlex_next(l, &p, copy + n, &t, &s->err);
		if (s->rc == PGR_OK)
			see(s, l, t);
	} while (s->rc == PGR_OK);
	if (s->rc == PGR_MORE)
		ck_assert_ptr_eq(p, copy + n);
	free(copy);
}

static void lex(struct seen *s, const char *json, size_t len, size_t first, size_t piece)
{
	struct pgr_jsonlex l = {0};

	memset(s, 0, sizeof(*s));
	feed(s, &l, json, first);
	for (size_t at = first; at < len && s->rc == PGR_MORE; at += piece)
		feed(s, &l, json + at, piece < len - at ? piece : len - at);
	s->text[s->len] = '\0';
	s->line = l.line;
	pgr_jsonlex_fini(&l);
}

static struct seen whole, pieces;

/* Whole, byte by byte, and split at every offset: all the same. */
static const struct seen *read_json(const char *json, size_t len)
{
	lex(&whole, json, len, len, 1);
	for (size_t split = 0; split < len; split++) {
		lex(&pieces, json, len, split, split == 0 ? 1 : len);
		ck_assert_int_eq(pieces.rc, whole.rc);
		ck_assert_str_eq(pieces.text, whole.text);
		ck_assert_uint_eq(pieces.line, whole.line);
		if (whole.rc == PGR_ERR)
			ck_assert_str_eq(pieces.err.msg, whole.err.msg);
	}
	return &whole;
}

static const char *good(const char *json)
{
	const struct seen *s = read_json(json, strlen(json));

	ck_assert_msg(s->rc == PGR_MORE, "%s: %s", json, s->err.msg);
	return s->text;
}

static const char *bad(const char *json, size_t len)
{
	const struct seen *s = read_json(json, len);

	ck_assert_msg(s->rc == PGR_ERR, "%s", json);
	ck_assert_int_eq(s->err.cls, PGR_E_DATA);
	return s->err.msg;
}

static const char *bad_text(const char *json)
{
	return bad(json, strlen(json));
}

START_TEST(tokens)
{
	ck_assert_str_eq(good("{ \"a\": [1,\t20 ],\r\n\"\":\"x\" }\n"), "{\"a\":[=1=,=20=],\"\":\"x\"}");
	ck_assert_str_eq(good(""), "");
	ck_assert_str_eq(good(" \n\t\r"), "");
	ck_assert_str_eq(good("}}]]::,,{["), "}}]]::,,{[");
	ck_assert_str_eq(good("0,18446744073709551615,"), "=0=,=18446744073709551615=,");
	ck_assert_str_eq(good("\" a ! \","), "\" a ! \",");
	ck_assert_str_eq(good("1\"a\"2 3,"), "=1=\"a\"=2==3=,");
}
END_TEST

/* A number may go on, a string must: no token yet. */
START_TEST(unfinished)
{
	ck_assert_str_eq(good("12"), "");
	ck_assert_str_eq(good("\"abc"), "");
	ck_assert_str_eq(good("\"abc\\"), "");
	ck_assert_str_eq(good("\"abc\\u12"), "");
	ck_assert_str_eq(good("\"abc\\ud83d"), "");
}
END_TEST

START_TEST(escapes)
{
	ck_assert_str_eq(good("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), "\"\"\\/\b\f\n\r\t\"");
	ck_assert_str_eq(good("\"\\u0041\\u00fc\\u00FC\\u20ac\\u0001\""), "\"A\xC3\xBC\xC3\xBC\xE2\x82\xAC\x01\"");
	ck_assert_str_eq(good("\"\\ud83d\\udc18\\uD800\\uDC00\\udbff\\udfff\""),
			 "\"\xF0\x9F\x90\x98\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"");
	ck_assert_str_eq(good("\"\\ud7ff\\ue000\""), "\"\xED\x9F\xBF\xEE\x80\x80\"");
	ck_assert_str_eq(good("\"\\ud83d\\udc18x\\u0041\""), "\"\xF0\x9F\x90\x98xA\"");
}
END_TEST

/* What is not valid UTF-8 is the reader's to judge. */
START_TEST(bytes_above_ascii)
{
	ck_assert_str_eq(good("\"\xFF\xC3\x7F\""), "\"\xFF\xC3\x7F\"");
}
END_TEST

START_TEST(half_surrogates)
{
	static const char *const halves[] = {
		"\"\\ud83d\"",	      "\"\\ud83dx\"",
		"\"\\ud83d\\n\"",     "\"\\ud83d\\u0041\"",
		"\"\\ud83d\\ud83d\"", "\"\\udc18\"",
		"\"x\\udc18\"",	      "\"\\udc18\\ud83d",
		"\"\\ud83d\\ue000\"", "\"\\ud83d\\udc18\\udc18\"",
		"\"\\ud83d\\u0000\"", "\"\\ud83d\\n\\udc18\"",
		"\"\\ud83d\x01\"",
	};

	for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++)
		ck_assert_str_eq(bad_text(halves[i]), "half of a surrogate pair");
}
END_TEST

START_TEST(malformed_strings)
{
	ck_assert_str_eq(bad_text("\"\\u0000\""), "NUL in a string");
	ck_assert_str_eq(bad("\"a\0b\"", 5), "control character in a string");
	ck_assert_str_eq(bad_text("\"a\nb\""), "control character in a string");
	ck_assert_str_eq(bad_text("\"\x1F\""), "control character in a string");
	ck_assert_str_eq(bad_text("\"\\a\""), "unknown escape in a string");
	ck_assert_str_eq(bad_text("\"\\U0041\""), "unknown escape in a string");
	ck_assert_str_eq(bad("\"\\\0\"", 4), "unknown escape in a string");
	ck_assert_str_eq(bad_text("\"\\u00g1\""), "malformed \\u escape in a string");
	ck_assert_str_eq(bad_text("\"\\u+041\""), "malformed \\u escape in a string");
	ck_assert_str_eq(bad_text("\"\\u41\""), "malformed \\u escape in a string");
}
END_TEST

START_TEST(unexpected_characters)
{
	static const char *const others[] = {"true", "null",	      "-1",    "+1",  ".5",  "'a'", "a",
					     "\x7F", "\xEF\xBB\xBF{", "/* */", "1.5", "1e3", "\v"};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		ck_assert_str_eq(bad_text(others[i]), "unexpected character");
	ck_assert_str_eq(bad("\0", 1), "unexpected character");
}
END_TEST

START_TEST(malformed_numbers)
{
	ck_assert_str_eq(bad_text("00,"), "number with a leading zero");
	ck_assert_str_eq(bad_text("01,"), "number with a leading zero");
	ck_assert_str_eq(bad_text("184467440737095516150"), "number too long");
	ck_assert_str_eq(good("18446744073709551616,"), "=18446744073709551616=,"); /* the range is the reader's */
}
END_TEST

START_TEST(long_strings)
{
	static char json[PGR_JSON_STRING_MAX + 16];
	const size_t most = PGR_JSON_STRING_MAX;

	memset(json, 'x', sizeof(json));
	json[0] = '"';
	json[most + 1] = '"';
	lex(&whole, json, most + 2, most + 2, 1);
	ck_assert_int_eq(whole.rc, PGR_MORE);
	ck_assert_uint_eq(whole.len, most + 2);

	for (size_t piece = 1; piece <= most + 3; piece += 1000) {
		json[most + 1] = 'x';
		lex(&whole, json, most + 2, 0, piece);
		ck_assert_int_eq(whole.rc, PGR_ERR);
		ck_assert_str_eq(whole.err.msg, "string too long");
	}
	memcpy(json + most - 2, "xx\\u00fc", 8); /* two bytes, one of them too many */
	lex(&whole, json, most + 6, most + 6, 1);
	ck_assert_int_eq(whole.rc, PGR_ERR);
	ck_assert_str_eq(whole.err.msg, "string too long");
}
END_TEST

START_TEST(lines)
{
	ck_assert_uint_eq(read_json("{\n \n\r\n}", 7)->line, 3);
	ck_assert_uint_eq(read_json("\"\\n\"\n", 5)->line, 1);
}
END_TEST

START_TEST(between_tokens)
{
	struct pgr_jsonlex l = {0};
	const uint8_t text[] = " \n \"a\" 1", *p = text, *end = text + sizeof(text) - 1;
	enum pgr_json_token t;
	struct pgr_err err;

	ck_assert(pgr_jsonlex_between(&l));
	pgr_jsonlex_space(&l, &p, end);
	ck_assert_ptr_eq(p, text + 3);
	ck_assert_uint_eq(l.line, 1);
	ck_assert_int_eq(pgr_jsonlex_next(&l, &p, text + 5, &t, &err), PGR_MORE);
	ck_assert(!pgr_jsonlex_between(&l));
	ck_assert_int_eq(pgr_jsonlex_next(&l, &p, end, &t, &err), PGR_OK);
	ck_assert(pgr_jsonlex_between(&l));
	ck_assert_str_eq(pgr_buf_str(&l.text), "a");
	ck_assert_int_eq(pgr_jsonlex_next(&l, &p, end, &t, &err), PGR_MORE);
	ck_assert(!pgr_jsonlex_between(&l)); /* the number may go on */
	pgr_jsonlex_fini(&l);
	ck_assert(pgr_jsonlex_between(&l));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/jsonlex");
	TCase *tc = tcase_create("jsonlex");

	tcase_add_test(tc, tokens);
	tcase_add_test(tc, unfinished);
	tcase_add_test(tc, escapes);
	tcase_add_test(tc, bytes_above_ascii);
	tcase_add_test(tc, half_surrogates);
	tcase_add_test(tc, malformed_strings);
	tcase_add_test(tc, unexpected_characters);
	tcase_add_test(tc, malformed_numbers);
	tcase_add_test(tc, long_strings);
	tcase_add_test(tc, lines);
	tcase_add_test(tc, between_tokens);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
