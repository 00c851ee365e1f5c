#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup/manifest.h"
#include "common/buf.h"

/* Manifests that servers made; the tests run at the top of the tree. */
#define CORPUS "tests/fuzz/corpus/manifest/"

static struct pgr_err err; /* of the call that is checked last */

/* ---- making manifests ---- */

static void put(struct pgr_buf *b, const char *text)
{
	ck_assert_int_eq(pgr_buf_puts(b, text, &err), PGR_OK);
}

/* Ends a manifest as the server does, whatever is in it. */
static void seal(struct pgr_buf *b)
{
	uint8_t sum[PGR_DIGEST_MAX];
	char hex[2 * PGR_DIGEST_MAX + 1];
	struct pgr_digest *d;
	size_t len;

	ck_assert_int_eq(pgr_digest_new(&d, PGR_DIGEST_SHA256, &err), PGR_OK);
	ck_assert_int_eq(pgr_digest_add(d, b->data, b->len, &err), PGR_OK);
	ck_assert_int_eq(pgr_digest_end(d, sum, &len, &err), PGR_OK);
	pgr_digest_free(d);
	pgr_hex(hex, sum, len);
	ck_assert_int_eq(pgr_buf_printf(b, &err, "\"Manifest-Checksum\": \"%s\"}\n", hex), PGR_OK);
}

#define HEAD "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n"
#define HEAD_2                                                                                                         \
	"{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 18446744073709551615,\n\"Files\": [\n"
#define RANGES "\n],\n\"WAL-Ranges\": [\n"
#define RANGE  "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000120\" }"
#define TAIL   "\n],\n"
#define TIME   "\"Last-Modified\": \"2026-11-21 03:23:36 GMT\""
#define ONE                                                                                                            \
	"{ \"Path\": \"base/5/1259\", \"Size\": 8192, " TIME                                                           \
	", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0ff11a9c\" }"
#define TWO "{ \"Path\": \"PG_VERSION\", \"Size\": 3, " TIME " }"

static struct pgr_buf made(const char *body)
{
	struct pgr_buf b = {0};

	put(&b, body);
	seal(&b);
	return b;
}

/* ---- reading ---- */

/* Feeds memory of exactly its size, so that a read beyond it shows under ASan. */
static int feed(struct pgr_manifest *m, const void *data, size_t n)
{
	void *copy = malloc(n > 0 ? n : 1);
	int rc;

	ck_assert_ptr_nonnull(copy);
	memcpy(copy, data, n);
	rc = pgr_manifest_feed(m, copy, n, &err);
	free(copy);
	return rc;
}

static int read_in(struct pgr_manifest **out, const struct pgr_buf *b, size_t first, size_t piece)
{
	int rc;

	ck_assert_int_eq(pgr_manifest_new(out, &err), PGR_OK);
	rc = feed(*out, b->data, first);
	for (size_t at = first; at < b->len && rc == PGR_OK; at += piece)
		rc = feed(*out, b->data + at, piece < b->len - at ? piece : b->len - at);
	return rc == PGR_OK ? pgr_manifest_done(*out, &err) : rc;
}

static struct pgr_manifest *read_good(const struct pgr_buf *b)
{
	struct pgr_manifest *m;

	ck_assert_msg(read_in(&m, b, b->len, 1) == PGR_OK, "%s", err.msg);
	return m;
}

static bool same_file(const struct pgr_manifest_file *a, const struct pgr_manifest_file *b)
{
	return strcmp(a->path, b->path) == 0 && a->size == b->size && a->algo == b->algo && a->sum_len == b->sum_len &&
	       memcmp(a->sum, b->sum, a->sum_len) == 0;
}

static void check_same(const struct pgr_manifest *a, const struct pgr_manifest *b)
{
	ck_assert_uint_eq(pgr_manifest_files(a), pgr_manifest_files(b));
	ck_assert_str_eq(pgr_manifest_system_identifier(a), pgr_manifest_system_identifier(b));
	for (size_t i = 0; i < pgr_manifest_files(a); i++)
		if (!same_file(pgr_manifest_file(a, i), pgr_manifest_file(b, i)))
			ck_abort_msg("file %zu", i);
}

START_TEST(small_manifest)
{
	struct pgr_buf b = made(HEAD ONE ",\n" TWO RANGES RANGE TAIL);
	struct pgr_manifest *m = read_good(&b);
	const struct pgr_manifest_file *f;

	ck_assert_uint_eq(pgr_manifest_files(m), 2);
	ck_assert_str_eq(pgr_manifest_system_identifier(m), "");
	f = pgr_manifest_file(m, 0);
	ck_assert_str_eq(f->path, "PG_VERSION");
	ck_assert_uint_eq(f->size, 3);
	ck_assert_int_eq(f->algo, PGR_DIGEST_NONE);
	ck_assert_uint_eq(f->sum_len, 0);
	f = pgr_manifest_file(m, 1);
	ck_assert_str_eq(f->path, "base/5/1259");
	ck_assert_uint_eq(f->size, 8192);
	ck_assert_int_eq(f->algo, PGR_DIGEST_CRC32C);
	ck_assert_uint_eq(f->sum_len, 4);
	ck_assert_mem_eq(f->sum, "\x0f\xf1\x1a\x9c", 4);
	ck_assert_ptr_null(pgr_manifest_file(m, 2));

	ck_assert_ptr_eq(pgr_manifest_find(m, "base/5/1259"), f);
	ck_assert_ptr_null(pgr_manifest_find(m, "base/5/125"));
	ck_assert_ptr_null(pgr_manifest_find(m, "base/5/12590"));
	ck_assert_ptr_null(pgr_manifest_find(m, ""));
	pgr_manifest_free(m);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(small_manifest_of_version_2)
{
	struct pgr_buf b = made(HEAD_2 TWO RANGES RANGE ",\n" RANGE TAIL);
	struct pgr_manifest *m = read_good(&b);

	ck_assert_uint_eq(pgr_manifest_files(m), 1);
	ck_assert_str_eq(pgr_manifest_system_identifier(m), "18446744073709551615");
	pgr_manifest_free(m);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(nothing_before_it_is_done)
{
	struct pgr_buf b = made(HEAD ONE RANGES RANGE TAIL);
	struct pgr_manifest *m;

	ck_assert_int_eq(pgr_manifest_new(&m, &err), PGR_OK);
	ck_assert_int_eq(pgr_manifest_feed(m, b.data, b.len, &err), PGR_OK);
	ck_assert_uint_eq(pgr_manifest_files(m), 0);
	ck_assert_ptr_null(pgr_manifest_file(m, 0));
	ck_assert_ptr_null(pgr_manifest_find(m, "base/5/1259"));
	ck_assert_int_eq(pgr_manifest_done(m, &err), PGR_OK);
	ck_assert_uint_eq(pgr_manifest_files(m), 1);
	ck_assert_int_eq(pgr_manifest_done(m, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_manifest_feed(m, "\n", 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_uint_eq(pgr_manifest_files(m), 1);
	pgr_manifest_free(m);
	pgr_manifest_free(NULL);
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(in_any_pieces)
{
	struct pgr_buf b = made(HEAD_2 "{ \"Path\": \"\\u00fc\\ud83d\\udc18\", \"Size\": 18, " TIME " },\n" ONE
				       ",\n" TWO RANGES RANGE TAIL);
	struct pgr_manifest *whole = read_good(&b), *m;

	for (size_t split = 0; split < b.len; split++) {
		ck_assert_msg(read_in(&m, &b, split, split == 0 ? 1 : b.len) == PGR_OK, "%zu: %s", split, err.msg);
		check_same(whole, m);
		pgr_manifest_free(m);
	}
	pgr_manifest_free(whole);
	pgr_buf_fini(&b);
}
END_TEST

/* White space is JSON's, and the order of keys in a file is nobody's. */
START_TEST(other_layouts)
{
	static const char *const bodies[] = {
		"{\"PostgreSQL-Backup-Manifest-Version\":1,\"Files\":[],\"WAL-Ranges\":[],\n",
		"\n \t\r\n{ \"PostgreSQL-Backup-Manifest-Version\" : 1 , \"Files\" : [ ] , \"WAL-Ranges\" : [ ] , \r\n",
		HEAD "{ \"Checksum\": \"0ff11a9c\", \"Size\": 0, \"Path\": \"a\", \"Checksum-Algorithm\": \"crc32c\" "
		     "}" RANGES TAIL,
		HEAD "{ \"Encoded-Path\": \"61FFfe62\", \"Size\": 9223372036854775807 }" RANGES
		     "{ \"End-LSN\": \"FFFFFFFF/ffffffff\", \"Timeline\": 4294967295, \"Start-LSN\": \"0/0\" }" TAIL,
	};

	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct pgr_buf b = made(bodies[i]);
		struct pgr_manifest *m;

		ck_assert_msg(read_in(&m, &b, b.len, 1) == PGR_OK, "%zu: %s", i, err.msg);
		if (i == 3)
			ck_assert_str_eq(pgr_manifest_file(m, 0)->path, "a\xFF\xFE"
									"b");
		pgr_manifest_free(m);
		pgr_buf_fini(&b);
	}
}
END_TEST

/* The end of the message of what must fail, however it is cut. */
static void refused(const struct pgr_buf *b, const char *message)
{
	struct pgr_manifest *m;
	struct pgr_err whole;

	for (size_t split = 0; split < b->len; split++) {
		int rc = read_in(&m, b, split == 0 ? b->len : split, split % 2 == 0 ? b->len : 1);

		ck_assert_msg(rc == PGR_ERR, "accepted: %.*s", (int)b->len, (const char *)b->data);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_msg(strstr(err.msg, message) != NULL, "%s instead of: %s", err.msg, message);
		if (split == 0)
			whole = err;
		ck_assert_str_eq(err.msg, whole.msg);
		ck_assert_uint_eq(pgr_manifest_files(m), 0);
		ck_assert_int_eq(pgr_manifest_feed(m, "", 1, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_USAGE);
		ck_assert_int_eq(pgr_manifest_done(m, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_USAGE);
		pgr_manifest_free(m);
	}
}

static const struct hostile {
	const char *body, *message;
} hostile_bodies[] = {
	/* the top level */
	{"", "line 1: unexpected string"},
	{"[", "line 1: unexpected \"[\""},
	{"{ \"Files\": [], ", "line 1: expected key PostgreSQL-Backup-Manifest-Version"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 0,\n", "line 1: unknown manifest version"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n", "line 1: unknown manifest version"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 18446744073709551615,\n", "line 1: unknown manifest version"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": \"1\",\n", "line 1: unexpected string"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": {", "line 1: unexpected \"{\""},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1.0,\n", "line 1: unexpected character"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"System-Identifier\": 1,\n", "line 2: expected key Files"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"Files\": [\n", "line 2: expected key System-Identifier"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 18446744073709551616,\n",
	 "line 2: system identifier out of range"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": \"7\",\n", "line 2: unexpected string"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"PostgreSQL-Backup-Manifest-Version\": 1,\n",
	 "line 2: expected key Files"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"WAL-Ranges\": [\n", "line 2: expected key Files"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Path\": [\n", "line 2: expected key Files"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"\": [\n", "line 2: expected key Files"},
	{"{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": 1,\n", "line 2: unexpected number"},
	{HEAD "],\n\"Files\": [\n],\n", "line 4: expected key WAL-Ranges"},
	{HEAD "],\n", "line 4: expected key WAL-Ranges"},
	{HEAD "]}\n", "line 3: \"WAL-Ranges\" is missing"},
	{HEAD RANGES "]}\n", "line 6: \"Manifest-Checksum\" is missing"},
	{HEAD RANGES "] ", "line 6: unexpected string"},
	{HEAD RANGES TAIL "\"Manifest-Checksum\": \"\",\n", "line 8: invalid manifest checksum"},
	{HEAD RANGES TAIL "\"Comment\": 1,\n", "line 8: expected key Manifest-Checksum"},
	/* lists */
	{HEAD TWO TWO, "line 3: unexpected \"{\""},
	{HEAD TWO ",,", "line 3: unexpected \",\""},
	{HEAD TWO ",\n]", "line 4: unexpected \"]\""},
	{HEAD ",", "line 3: unexpected \",\""},
	{HEAD "[[[[[[[[[[[[[[[[", "line 3: unexpected \"[\""},
	{HEAD "\"a\"", "line 3: unexpected string"},
	{HEAD "}", "line 3: unexpected \"}\""},
	/* files */
	{HEAD "{ }", "line 3: unexpected \"}\""},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, }", "line 3: unexpected \"}\""},
	{HEAD "{ \"Path\" \"a\" }", "line 3: unexpected string"},
	{HEAD "{ \"Path\": \"a\" \"Size\": 1 }", "line 3: unexpected string"},
	{HEAD "{ \"Path\": \"a\" }", "a file without a path or a size"},
	{HEAD "{ \"Size\": 1 }", "a file without a path or a size"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Path\": \"a\" }", "line 3: key \"Path\" twice"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Size\": 1 }", "key \"Size\" twice"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Encoded-Path\": \"61\" }", "both a path and an encoded path"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Mode\": 1 }", "line 3: unknown key"},
	{HEAD "{ \"Path\": \"a\", \"Timeline\": 1 }", "line 3: unknown key"},
	{HEAD "{ \"Path\": \"a\", \"Files\": [", "line 3: unknown key"},
	{HEAD "{ \"Path\": [", "line 3: unexpected \"[\""},
	{HEAD "{ \"Path\": {", "line 3: unexpected \"{\""},
	{HEAD "{ \"Path\": 1", "line 3: unexpected number"},
	{HEAD "{ \"Path\": null", "line 3: unexpected character"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 9223372036854775808 }", "file size out of range"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 99999999999999999999 }", "file size out of range"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 999999999999999999999 }", "number too long"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 007 }", "number with a leading zero"},
	{HEAD "{ \"Path\": \"a\", \"Size\": -1 }", "unexpected character"},
	{HEAD "{ \"Path\": \"a\", \"Size\": \"1\" }", "unexpected string"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Last-Modified\": 1 }", "unexpected number"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00000000\" }", "only one of checksum and algorithm"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\" }",
	 "only one of checksum and algorithm"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"MD5\" }", "unknown checksum algorithm"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"NONE\" }", "unknown checksum algorithm"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"000000\" }",
	 "length"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA224\", \"Checksum\": \"00000000\" }",
	 "length"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"\" }", "length"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"0000000\" }", "invalid checksum of a file"},
	{HEAD "{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"0000000g\" }", "invalid checksum of a file"},
	/* paths */
	{HEAD "{ \"Path\": \"\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"/a\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"..\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"a/../../b\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"./a\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"a//b\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"a/\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"\\u002e\\u002e\\/a\" }", "unsafe path"},
	{HEAD "{ \"Path\": \"a\\u0000\" }", "NUL in a string"},
	{HEAD "{ \"Path\": \"a\\ud83d\" }", "half of a surrogate pair"},
	{HEAD "{ \"Path\": \"a\xFF\" }", "not valid UTF-8"},
	{HEAD "{ \"Path\": \"a\xED\xA0\x80\" }", "not valid UTF-8"},
	{HEAD "{ \"Path\": \"a\nb\" }", "control character in a string"},
	{HEAD "{ \"Encoded-Path\": \"6\" }", "encoded path is not hexadecimal"},
	{HEAD "{ \"Encoded-Path\": \"6g\" }", "encoded path is not hexadecimal"},
	{HEAD "{ \"Encoded-Path\": \"610062\" }", "unsafe path"},
	{HEAD "{ \"Encoded-Path\": \"00\" }", "unsafe path"},
	{HEAD "{ \"Encoded-Path\": \"2e2e\" }", "unsafe path"},
	{HEAD "{ \"Encoded-Path\": \"\" }", "unsafe path"},
	{HEAD TWO ",\n" ONE ",\n" TWO RANGES RANGE TAIL, "backup manifest lists file \"PG_VERSION\" twice"},
	{HEAD "{ \"Path\": \"\\u0007\", \"Size\": 1 }, { \"Encoded-Path\": \"07\", \"Size\": 2 }" RANGES RANGE TAIL,
	 "backup manifest lists file \"(unprintable name)\" twice"},
	/* WAL ranges */
	{HEAD RANGES TWO, "line 6: unknown key"},
	{HEAD RANGES "{ \"Timeline\": 1, \"Start-LSN\": \"0/0\" }", "line 6: an incomplete WAL range"},
	{HEAD RANGES "{ \"Timeline\": 1, \"End-LSN\": \"0/0\" }", "an incomplete WAL range"},
	{HEAD RANGES "{ \"End-LSN\": \"0/0\", \"Start-LSN\": \"0/0\" }", "an incomplete WAL range"},
	{HEAD RANGES "{ \"Timeline\": 0,", "timeline out of range"},
	{HEAD RANGES "{ \"Timeline\": 4294967296,", "timeline out of range"},
	{HEAD RANGES "{ \"Timeline\": \"1\",", "unexpected string"},
	{HEAD RANGES "{ \"Timeline\": 1, \"Timeline\": 1,", "key \"Timeline\" twice"},
	{HEAD RANGES "{ \"Start-LSN\": \"0\",", "malformed WAL location"},
	{HEAD RANGES "{ \"End-LSN\": \"0/0x\",", "malformed WAL location"},
	{HEAD RANGES "{ \"End-LSN\": \"123456789/0\",", "malformed WAL location"},
};

START_TEST(hostile_manifests)
{
	const struct hostile *h = &hostile_bodies[_i];
	struct pgr_buf b = made(h->body);

	refused(&b, h->message);
	pgr_buf_fini(&b);
}
END_TEST

static struct pgr_buf good_one(void)
{
	return made(HEAD ONE RANGES RANGE TAIL);
}

/* The last line: what a checksum must look like. */
START_TEST(hostile_last_lines)
{
	static const struct hostile ends[] = {
		{"", "the manifest ended unexpectedly"},
		{"\"", "the manifest ended unexpectedly"},
		{"\"Manifest-Checksum\": ", "the manifest ended unexpectedly"},
		{"\"Manifest-Checksum\": \"\"}\n", "invalid manifest checksum"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015\"}\n",
		 "invalid manifest"},
		{"\"Manifest-Checksum\": \"xa7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n",
		 "invalid manifest"},
		{"\"Manifest-Checksum\": 1}\n", "unexpected number"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n",
		 "does not match its own checksum"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}",
		 "the manifest ended unexpectedly"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n}\n",
		 "must have a line of its own"},
		{"\"Manifest-Checksum\":\n\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n",
		 "must have a line of its own"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\r\n",
		 "must have a line of its own"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"} \n",
		 "must have a line of its own"},
		{" \"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n",
		 "must have a line of its own"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n\n",
		 "data after the end"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}\n{",
		 "data after the end"},
		{"\"Manifest-Checksum\": \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\", \"x\": "
		 "1}\n",
		 "expected the end"},
	};

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct pgr_buf b = {0};

		put(&b, HEAD ONE RANGES RANGE TAIL);
		put(&b, ends[i].body);
		refused(&b, ends[i].message);
		pgr_buf_fini(&b);
	}
}
END_TEST

/* The checksum must stand on a line of its own also where the text before it is in another piece. */
START_TEST(checksum_in_the_middle_of_a_line)
{
	struct pgr_buf b = made(HEAD ONE RANGES RANGE "\n],");

	refused(&b, "must have a line of its own");
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(cut_anywhere)
{
	struct pgr_buf b = good_one();
	struct pgr_manifest *m;

	for (size_t len = 0; len < b.len; len++) {
		struct pgr_buf cut = {.data = b.data, .len = len};

		ck_assert_int_eq(read_in(&m, &cut, len, 1), PGR_ERR);
		ck_assert_msg(strstr(err.msg, "the manifest ended unexpectedly") != NULL, "%zu: %s", len, err.msg);
		pgr_manifest_free(m);
	}
	pgr_buf_fini(&b);
}
END_TEST

static bool is_upper_hex(uint8_t c)
{
	return c >= 'A' && c <= 'F';
}

/* What a bad cable or disk does. */
START_TEST(every_bit_flipped)
{
	struct pgr_buf b = good_one();
	size_t last_line = b.len - strlen("0123456789012345678901234567890123456789012345678901234567890123\"}\n");
	struct pgr_manifest *m;

	for (size_t bit = 0; bit < b.len * 8; bit++) {
		int rc;

		b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		rc = read_in(&m, &b, b.len, 1);
		/* The checksum itself may be in capitals. */
		if (rc == PGR_OK && !(bit / 8 >= last_line && bit % 8 == 5 && is_upper_hex(b.data[bit / 8])))
			ck_abort_msg("bit %zu: %.*s", bit, (int)b.len, (const char *)b.data);
		pgr_manifest_free(m);
		b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(paths_as_long_as_they_may_be)
{
	static char path[4200];
	struct pgr_manifest *m;

	for (size_t len = 4094; len <= 4097; len++) {
		for (int encoded = 0; encoded < 2; encoded++) {
			struct pgr_buf b = {0};

			memset(path, 0, sizeof(path));
			memset(path, 'a', len);
			put(&b, HEAD);
			put(&b, encoded ? "{ \"Encoded-Path\": \"" : "{ \"Path\": \"");
			for (size_t i = 0; i < len; i++)
				put(&b, encoded ? "61" : "a");
			put(&b, "\", \"Size\": 1 }" RANGES RANGE TAIL);
			seal(&b);
			ck_assert_int_eq(read_in(&m, &b, b.len, 1), len < 4096 ? PGR_OK : PGR_ERR);
			ck_assert(len < 4096 ? pgr_manifest_find(m, path) != NULL : err.cls == PGR_E_DATA);
			pgr_manifest_free(m);
			pgr_buf_fini(&b);
		}
	}
}
END_TEST

/* ---- what servers wrote ---- */

static struct pgr_buf load(const char *name)
{
	struct pgr_buf b = {0};
	char part[4096];
	FILE *f = fopen(name, "rb");
	size_t n;

	ck_assert_msg(f != NULL, "%s is not there: run at the top of the tree", name);
	while ((n = fread(part, 1, sizeof(part), f)) > 0)
		ck_assert_int_eq(pgr_buf_put(&b, part, n, &err), PGR_OK);
	ck_assert_int_eq(fclose(f), 0);
	return b;
}

static const struct real {
	const char *name;
	int server_version;
	const char *system_identifier;
	bool sums;
} reals[] = {
	{CORPUS "server-15", 150020, "", true},
	{CORPUS "server-18", 180004, "7710460226266233443", false},
};

START_TEST(manifest_of_a_server)
{
	const struct real *r = &reals[_i];
	struct pgr_buf b = load(r->name);
	struct pgr_manifest *m = read_good(&b);
	const struct pgr_manifest_file *f;

	ck_assert_str_eq(pgr_manifest_system_identifier(m), r->system_identifier);
	ck_assert_uint_gt(pgr_manifest_files(m), 300);
	for (size_t i = 0; i < pgr_manifest_files(m); i++) {
		f = pgr_manifest_file(m, i);
		ck_assert(i == 0 || strcmp(pgr_manifest_file(m, i - 1)->path, f->path) < 0);
		ck_assert_ptr_eq(pgr_manifest_find(m, f->path), f);
		ck_assert_int_eq(f->algo, r->sums ? PGR_DIGEST_CRC32C : PGR_DIGEST_NONE);
	}
	f = pgr_manifest_find(m, "odd/ctl\x01\x7f\b\f\r\t");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(f->size, 9);
	if (r->sums)
		ck_assert_mem_eq(f->sum, "\x1b\x5d\xa4\x90", 4);
	ck_assert_ptr_nonnull(pgr_manifest_find(m, "odd/new\nline"));
	ck_assert_ptr_nonnull(pgr_manifest_find(m, "odd/\xff\xfe"));
	ck_assert_ptr_nonnull(pgr_manifest_find(m, "odd/\xed\xa0\x80"));
	ck_assert_ptr_nonnull(pgr_manifest_find(m, "odd/quo\"te\\"));
	ck_assert_ptr_nonnull(pgr_manifest_find(m, "odd/\xf0\x9f\x90\x98"));
	ck_assert_uint_eq(pgr_manifest_find(m, "global/pg_control")->size, 8192);
	pgr_manifest_free(m);
	pgr_buf_fini(&b);
}
END_TEST

/* ---- writing ---- */

static int collect(void *arg, const void *data, size_t len, struct pgr_err *e)
{
	return pgr_buf_put(arg, data, len, e);
}

static struct pgr_manifest_writer *writer(int server_version, const char *id, bool force_encode, struct pgr_buf *out)
{
	struct pgr_manifest_writer *w;

	ck_assert_msg(pgr_manifest_writer_new(&w, server_version, id, force_encode, collect, out, &err) == PGR_OK, "%s",
		      err.msg);
	return w;
}

static void add(struct pgr_manifest_writer *w, const struct pgr_manifest_file *f, int64_t mtime)
{
	ck_assert_msg(pgr_manifest_add_file(w, f->path, f->size, mtime, f->algo, f->sum, f->sum_len, &err) == PGR_OK,
		      "%s", err.msg);
}

static void end(struct pgr_manifest_writer *w)
{
	ck_assert_msg(pgr_manifest_writer_end(w, &err) == PGR_OK, "%s", err.msg);
	pgr_manifest_writer_free(w);
}

/* Adds what one line of a manifest says. */
static void add_line(struct pgr_manifest_writer *w, const char *line, size_t len)
{
	const char *time = memmem(line, len, "Last-Modified\": \"", 17);
	struct pgr_buf one = {0};
	struct pgr_manifest *m;
	struct tm tm = {0};

	put(&one, HEAD);
	ck_assert_int_eq(pgr_buf_put(&one, line, len, &err), PGR_OK);
	put(&one, RANGES TAIL);
	seal(&one);
	m = read_good(&one);
	ck_assert_uint_eq(pgr_manifest_files(m), 1);
	ck_assert_ptr_nonnull(time);
	ck_assert_ptr_nonnull(strptime(time + 17, "%Y-%m-%d %H:%M:%S GMT", &tm));
	add(w, pgr_manifest_file(m, 0), timegm(&tm));
	pgr_manifest_free(m);
	pgr_buf_fini(&one);
}

/* Takes a server's manifest apart, line by line, and writes it again: the same bytes. */
START_TEST(written_as_the_server_did)
{
	const struct real *r = &reals[_i];
	struct pgr_buf b = load(r->name), out = {0};
	struct pgr_manifest_writer *w = writer(r->server_version, r->system_identifier, false, &out);
	const char *line = (const char *)b.data;
	unsigned tli, high[2], low[2];

	for (size_t left = b.len; left > 0;) {
		const char *newline = memchr(line, '\n', left);
		size_t len = (size_t)(newline - line);

		ck_assert_ptr_nonnull(newline);
		if (memcmp(line, "{ \"Path\"", 8) == 0 || memcmp(line, "{ \"Encoded-Path\"", 16) == 0)
			add_line(w, line, line[len - 1] == ',' ? len - 1 : len);
		if (sscanf(line, "{ \"Timeline\": %u, \"Start-LSN\": \"%X/%X\", \"End-LSN\": \"%X/%X\" }", &tli,
			   &high[0], &low[0], &high[1], &low[1]) == 5)
			ck_assert_int_eq(pgr_manifest_add_wal(w, tli, (pgr_lsn)high[0] << 32 | low[0],
							      (pgr_lsn)high[1] << 32 | low[1], &err),
					 PGR_OK);
		left -= len + 1;
		line = newline + 1;
	}
	end(w);
	ck_assert_uint_eq(out.len, b.len);
	ck_assert_mem_eq(out.data, b.data, b.len);
	pgr_buf_fini(&b);
	pgr_buf_fini(&out);
}
END_TEST

static const struct pgr_manifest_file version_file = {.path = "PG_VERSION", .size = 3};

START_TEST(versions_of_the_format)
{
	static const struct {
		int server_version;
		const char *id, *head;
	} heads[] = {
		{130000, NULL, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": ["},
		{160014, "7", "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": ["},
		{170000, "18446744073709551615",
		 "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": "
		 "18446744073709551615,\n\"Files\": ["},
		{190000, "0", "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 0,\n\"Files\": ["},
	};

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
		struct pgr_buf out = {0}, want = {0};
		struct pgr_manifest_writer *w = writer(heads[i].server_version, heads[i].id, false, &out);

		add(w, &version_file, 0);
		ck_assert_int_eq(pgr_manifest_add_wal(w, 2, 0x1A2B3C4D5E, 0xFFFFFFFFFFFFFFFF, &err), PGR_OK);
		ck_assert_int_eq(pgr_manifest_add_wal(w, 1, 0, 0x1A2B3C4D5E, &err), PGR_OK);
		end(w);
		put(&want, heads[i].head);
		put(&want,
		    "\n{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"1970-01-01 00:00:00 GMT\" }");
		put(&want, "\n],\n\"WAL-Ranges\": [\n"
			   "{ \"Timeline\": 2, \"Start-LSN\": \"1A/2B3C4D5E\", \"End-LSN\": \"FFFFFFFF/FFFFFFFF\" },\n"
			   "{ \"Timeline\": 1, \"Start-LSN\": \"0/0\", \"End-LSN\": \"1A/2B3C4D5E\" }\n],\n");
		seal(&want);
		ck_assert_str_eq(pgr_buf_str(&out), pgr_buf_str(&want));
		pgr_buf_fini(&out);
		pgr_buf_fini(&want);
	}
}
END_TEST

START_TEST(system_identifiers_that_are_none)
{
	static const char *const bad[] = {NULL, "", "x", "-1", "1 ", "18446744073709551616", "1, \"x\": 2"};
	struct pgr_manifest_writer *w = (void *)&w;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(pgr_manifest_writer_new(&w, 170000, bad[i], false, collect, NULL, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_ptr_null(w);
	}
	pgr_manifest_writer_free(NULL);
}
END_TEST

START_TEST(empty_manifest)
{
	struct pgr_buf out = {0}, want = {0};
	struct pgr_manifest *m;

	end(writer(150000, NULL, false, &out));
	put(&want, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n],\n\"WAL-Ranges\": [\n\n],\n");
	seal(&want);
	ck_assert_str_eq(pgr_buf_str(&out), pgr_buf_str(&want));
	m = read_good(&out);
	ck_assert_uint_eq(pgr_manifest_files(m), 0);
	ck_assert_ptr_null(pgr_manifest_find(m, "a"));
	pgr_manifest_free(m);
	pgr_buf_fini(&out);
	pgr_buf_fini(&want);
}
END_TEST

/* The one time of a manifest with one file. */
static const char *written_time(int64_t mtime)
{
	static char text[64];
	struct pgr_buf out = {0};
	struct pgr_manifest_writer *w = writer(150000, NULL, false, &out);
	const char *at;

	add(w, &version_file, mtime);
	end(w);
	at = strstr(pgr_buf_str(&out), "Last-Modified\": \"");
	ck_assert_ptr_nonnull(at);
	ck_assert_int_eq(sscanf(at + 17, "%63[^\"]", text), 1);
	pgr_buf_fini(&out);
	return text;
}

START_TEST(times)
{
	ck_assert_str_eq(written_time(0), "1970-01-01 00:00:00 GMT");
	ck_assert_str_eq(written_time(-1), "1969-12-31 23:59:59 GMT");
	ck_assert_str_eq(written_time(951782400), "2000-02-29 00:00:00 GMT");
	ck_assert_str_eq(written_time(4107542399), "2100-02-28 23:59:59 GMT");
	ck_assert_str_eq(written_time(4107542400), "2100-03-01 00:00:00 GMT");
	ck_assert_str_eq(written_time(253402300799), "9999-12-31 23:59:59 GMT");
	ck_assert_str_eq(written_time(253402300800), "10000-01-01 00:00:00 GMT");
	ck_assert_str_eq(written_time(-62135596800), "0001-01-01 00:00:00 GMT");
	written_time(INT64_MIN);
	written_time(INT64_MAX);
}
END_TEST

/* Against the C library's calendar, a prime number of seconds apart, over 900 years. */
START_TEST(times_as_the_c_library_has_them)
{
	char want[64];

	for (int64_t t = -14000000000; t < 14000000000; t += 12345701) {
		time_t tt = (time_t)t;
		struct tm tm;

		ck_assert_ptr_nonnull(gmtime_r(&tt, &tm));
		strftime(want, sizeof(want), "%Y-%m-%d %H:%M:%S GMT", &tm);
		if (strcmp(written_time(t), want) != 0)
			ck_abort_msg("%" PRId64 ": %s", t, want);
	}
}
END_TEST

/* Every byte in a name, forced into hex or not: read as it was. */
START_TEST(names_with_every_byte)
{
	for (int force = 0; force < 2; force++) {
		struct pgr_buf out = {0};
		struct pgr_manifest_writer *w = writer(150000, NULL, force == 1, &out);
		struct pgr_manifest *m;
		char path[8];

		for (int c = 1; c < 256; c++) {
			snprintf(path, sizeof(path), "x%cy", c);
			if (c != '/')
				add(w, &(struct pgr_manifest_file){.path = path, .size = (uint64_t)c}, 0);
		}
		end(w);
		ck_assert_int_eq(strstr(pgr_buf_str(&out), "\"Path\"") == NULL, force);
		m = read_good(&out);
		ck_assert_uint_eq(pgr_manifest_files(m), 254);
		for (int c = 1; c < 256; c++) {
			snprintf(path, sizeof(path), "x%cy", c);
			if (c != '/')
				ck_assert_uint_eq(pgr_manifest_find(m, path)->size, (uint64_t)c);
		}
		pgr_manifest_free(m);
		pgr_buf_fini(&out);
	}
}
END_TEST

START_TEST(sums_of_all_kinds)
{
	static const enum pgr_digest_algo algos[] = {PGR_DIGEST_NONE,	PGR_DIGEST_CRC32C, PGR_DIGEST_SHA224,
						     PGR_DIGEST_SHA256, PGR_DIGEST_SHA384, PGR_DIGEST_SHA512};
	struct pgr_buf out = {0};
	struct pgr_manifest_writer *w = writer(170000, "1", false, &out);
	struct pgr_manifest_file files[6];
	struct pgr_manifest *m;

	for (size_t i = 0; i < 6; i++) {
		char path[2] = {(char)('a' + i), '\0'};

		files[i] = (struct pgr_manifest_file){
			.path = path, .size = i, .algo = algos[i], .sum_len = pgr_digest_len(algos[i])};
		for (size_t k = 0; k < files[i].sum_len; k++)
			files[i].sum[k] = (uint8_t)(0xF0 + 7 * k + i);
		add(w, &files[i], 0);
	}
	end(w);
	m = read_good(&out);
	for (size_t i = 0; i < 6; i++) {
		const struct pgr_manifest_file *f = pgr_manifest_file(m, i);

		ck_assert_int_eq(f->algo, algos[i]);
		ck_assert_uint_eq(f->sum_len, files[i].sum_len);
		ck_assert_mem_eq(f->sum, files[i].sum, PGR_DIGEST_MAX);
	}
	pgr_manifest_free(m);
	pgr_buf_fini(&out);
}
END_TEST

START_TEST(misuse_of_the_writer)
{
	static const uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_buf out = {0};
	struct pgr_manifest_writer *w = writer(150000, NULL, false, &out);

	ck_assert_int_eq(pgr_manifest_add_file(w, "a", 1, 0, PGR_DIGEST_SHA256, sum, 31, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_manifest_add_file(w, "a", 1, 0, PGR_DIGEST_NONE, sum, 4, &err), PGR_ERR);
	ck_assert_int_eq(pgr_manifest_add_wal(w, 1, 1, 2, &err), PGR_OK);
	ck_assert_int_eq(pgr_manifest_add_file(w, "late", 1, 0, PGR_DIGEST_NONE, NULL, 0, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_ptr_nonnull(strstr(err.msg, "late"));
	ck_assert_int_eq(pgr_manifest_writer_end(w, &err), PGR_OK);
	ck_assert_int_eq(pgr_manifest_add_wal(w, 1, 1, 2, &err), PGR_ERR);
	ck_assert_int_eq(pgr_manifest_writer_end(w, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	pgr_manifest_writer_free(w);
	pgr_manifest_free(read_good(&out)); /* what was refused left no trace */
	pgr_buf_fini(&out);
}
END_TEST

/* ---- many files, and a sink that fails ---- */

struct sink {
	struct pgr_buf out;
	unsigned calls, fail_at; /* 0: never */
};

static int sink_put(void *arg, const void *data, size_t len, struct pgr_err *e)
{
	struct sink *s = arg;

	if (++s->calls == s->fail_at)
		return pgr_err_set(e, PGR_E_SYSTEM, "the sink is full");
	return pgr_buf_put(&s->out, data, len, e);
}

#define MANY 5000

static int write_many(struct sink *s)
{
	struct pgr_manifest_writer *w;
	char path[32];
	int rc = pgr_manifest_writer_new(&w, 180000, "77", false, sink_put, s, &err);

	/* In no order: as the server finds them. */
	for (unsigned i = 0; i < MANY && rc == PGR_OK; i++) {
		snprintf(path, sizeof(path), "base/5/%u", i * 7919 % MANY);
		rc = pgr_manifest_add_file(w, path, i * 7919 % MANY, 0, PGR_DIGEST_NONE, NULL, 0, &err);
	}
	if (rc == PGR_OK)
		rc = pgr_manifest_add_wal(w, 1, 1, 2, &err);
	if (rc == PGR_OK)
		rc = pgr_manifest_writer_end(w, &err);
	pgr_manifest_writer_free(w);
	return rc;
}

START_TEST(many_files)
{
	struct sink s = {0};
	struct pgr_manifest *m;
	char path[32];

	ck_assert_int_eq(write_many(&s), PGR_OK);
	ck_assert_uint_gt(s.calls, 5);
	ck_assert_uint_lt(s.calls, 100);
	m = read_good(&s.out);
	ck_assert_uint_eq(pgr_manifest_files(m), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(path, sizeof(path), "base/5/%u", i);
		ck_assert_uint_eq(pgr_manifest_find(m, path)->size, i);
	}
	pgr_manifest_free(m);
	pgr_buf_fini(&s.out);
}
END_TEST

START_TEST(sink_that_fails)
{
	unsigned fail_at = 0;
	int rc;

	do {
		struct sink s = {.fail_at = ++fail_at};

		rc = write_many(&s);
		if (rc == PGR_ERR) {
			ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
			ck_assert_str_eq(err.msg, "the sink is full");
			ck_assert_uint_eq(s.calls, fail_at);
		}
		pgr_buf_fini(&s.out);
	} while (rc == PGR_ERR);
	ck_assert_uint_gt(fail_at, 5);
}
END_TEST

static TCase *reading(void)
{
	TCase *tc = tcase_create("reading");

	tcase_add_test(tc, small_manifest);
	tcase_add_test(tc, small_manifest_of_version_2);
	tcase_add_test(tc, nothing_before_it_is_done);
	tcase_add_test(tc, in_any_pieces);
	tcase_add_test(tc, other_layouts);
	tcase_add_loop_test(tc, hostile_manifests, 0, sizeof(hostile_bodies) / sizeof(hostile_bodies[0]));
	tcase_add_test(tc, hostile_last_lines);
	tcase_add_test(tc, checksum_in_the_middle_of_a_line);
	tcase_add_test(tc, cut_anywhere);
	tcase_add_test(tc, every_bit_flipped);
	tcase_add_test(tc, paths_as_long_as_they_may_be);
	tcase_add_loop_test(tc, manifest_of_a_server, 0, sizeof(reals) / sizeof(reals[0]));
	return tc;
}

static TCase *writing(void)
{
	TCase *tc = tcase_create("writing");

	tcase_add_loop_test(tc, written_as_the_server_did, 0, sizeof(reals) / sizeof(reals[0]));
	tcase_add_test(tc, versions_of_the_format);
	tcase_add_test(tc, system_identifiers_that_are_none);
	tcase_add_test(tc, empty_manifest);
	tcase_add_test(tc, times);
	tcase_add_test(tc, times_as_the_c_library_has_them);
	tcase_add_test(tc, names_with_every_byte);
	tcase_add_test(tc, sums_of_all_kinds);
	tcase_add_test(tc, misuse_of_the_writer);
	tcase_add_test(tc, many_files);
	tcase_add_test(tc, sink_that_fails);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("backup/manifest");

	suite_add_tcase(s, reading());
	suite_add_tcase(s, writing());

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
