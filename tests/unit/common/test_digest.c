#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"

static const enum pgr_digest_algo all[] = {PGR_DIGEST_NONE,   PGR_DIGEST_CRC32C, PGR_DIGEST_SHA224,
					   PGR_DIGEST_SHA256, PGR_DIGEST_SHA384, PGR_DIGEST_SHA512};
#define ALL (sizeof(all) / sizeof(all[0]))

/* The digest of `text`, handed over in pieces of `piece` bytes, in hex. */
static const char *digest(enum pgr_digest_algo algo, const char *text, size_t piece)
{
	static char hex[2 * PGR_DIGEST_MAX + 1];
	uint8_t out[PGR_DIGEST_MAX];
	size_t len, left = strlen(text);
	struct pgr_digest *d;
	struct pgr_err err;

	ck_assert_int_eq(pgr_digest_new(&d, algo, &err), PGR_OK);
	while (left > 0) {
		size_t n = piece < left ? piece : left;

		ck_assert_int_eq(pgr_digest_add(d, text, n, &err), PGR_OK);
		text += n;
		left -= n;
	}
	ck_assert_int_eq(pgr_digest_end(d, out, &len, &err), PGR_OK);
	ck_assert_uint_eq(len, pgr_digest_len(algo));
	pgr_digest_free(d);
	pgr_hex(hex, out, len);
	return hex;
}

#define LONG_TEXT "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"

/* FIPS 180-4's examples; RFC 3720's CRC in the order in which the manifest has it. */
static const struct vector {
	enum pgr_digest_algo algo;
	const char *text, *hex;
} vectors[] = {
	{PGR_DIGEST_NONE, "abc", ""},
	{PGR_DIGEST_CRC32C, "", "00000000"},
	{PGR_DIGEST_CRC32C, "123456789", "839206e3"},
	{PGR_DIGEST_SHA224, "abc", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
	{PGR_DIGEST_SHA224, LONG_TEXT, "75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525"},
	{PGR_DIGEST_SHA256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	{PGR_DIGEST_SHA256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	{PGR_DIGEST_SHA256, LONG_TEXT, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	{PGR_DIGEST_SHA384, "abc",
	 "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},
	{PGR_DIGEST_SHA512, "abc",
	 "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
	 "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
};

START_TEST(published_values)
{
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
		for (size_t piece = 1; piece < 70; piece += 4)
			ck_assert_str_eq(digest(vectors[i].algo, vectors[i].text, piece), vectors[i].hex);
}
END_TEST

START_TEST(names)
{
	static const char *const bad[] = {"",	 "sha",	  "SHA25",   "SHA2567", "sha1",
					  "md5", "crc32", "crc32c ", " none",	"?"};
	enum pgr_digest_algo algo = PGR_DIGEST_SHA384;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!pgr_digest_parse(bad[i], &algo), "%s", bad[i]);
	ck_assert_int_eq(algo, PGR_DIGEST_SHA384);
	for (size_t i = 0; i < ALL; i++) {
		ck_assert(pgr_digest_parse(pgr_digest_name(all[i]), &algo));
		ck_assert_int_eq(algo, all[i]);
	}
	ck_assert(pgr_digest_parse("crc32c", &algo) && algo == PGR_DIGEST_CRC32C);
	ck_assert(pgr_digest_parse("Sha224", &algo) && algo == PGR_DIGEST_SHA224);
	ck_assert(pgr_digest_parse("none", &algo) && algo == PGR_DIGEST_NONE);
	ck_assert_str_eq(pgr_digest_name(PGR_DIGEST_CRC32C), "CRC32C");
	ck_assert_str_eq(pgr_digest_name(PGR_DIGEST_SHA512), "SHA512");
}
END_TEST

START_TEST(lengths_of_results)
{
	static const size_t lengths[ALL] = {0, 4, 28, 32, 48, 64};

	for (size_t i = 0; i < ALL; i++)
		ck_assert_uint_eq(pgr_digest_len(all[i]), lengths[i]);
}
END_TEST

START_TEST(no_such_algorithm)
{
	struct pgr_digest *d = (void *)&d;
	struct pgr_err err;

	ck_assert_int_eq(pgr_digest_new(&d, (enum pgr_digest_algo)99, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(d);
	ck_assert_str_eq(pgr_digest_name((enum pgr_digest_algo)99), "?");
	ck_assert_uint_eq(pgr_digest_len((enum pgr_digest_algo)99), 0);
	pgr_digest_free(NULL);
}
END_TEST

/* As in a run that fails: nothing leaks. */
START_TEST(freed_before_its_end)
{
	struct pgr_digest *d;
	struct pgr_err err;

	for (size_t i = 0; i < ALL; i++) {
		ck_assert_int_eq(pgr_digest_new(&d, all[i], &err), PGR_OK);
		ck_assert_int_eq(pgr_digest_add(d, "abc", 3, &err), PGR_OK);
		ck_assert_int_eq(pgr_digest_add(d, NULL, 0, &err), PGR_OK);
		pgr_digest_free(d);
	}
}
END_TEST

START_TEST(hex)
{
	static const uint8_t bytes[] = {0x00, 0x0F, 0xF0, 0xAB, 0x9C};
	static const char *const bad[] = {"0", "0g", "g0", "123", " 1", "0x12", "+1", "-1"};
	char text[11];
	uint8_t back[8];

	pgr_hex(text, bytes, sizeof(bytes));
	ck_assert_str_eq(text, "000ff0ab9c");
	pgr_hex(text, bytes, 0);
	ck_assert_str_eq(text, "");
	ck_assert(pgr_unhex(back, "000Ff0aB9c", 10));
	ck_assert_mem_eq(back, bytes, sizeof(bytes));
	ck_assert(pgr_unhex(back, "", 0));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!pgr_unhex(back, bad[i], strlen(bad[i])), "%s", bad[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("common/digest");
	TCase *tc = tcase_create("digest");

	tcase_add_test(tc, published_values);
	tcase_add_test(tc, names);
	tcase_add_test(tc, lengths_of_results);
	tcase_add_test(tc, no_such_algorithm);
	tcase_add_test(tc, freed_before_its_end);
	tcase_add_test(tc, hex);
	suite_add_tcase(s, tc);

	SRunner *sr = srunner_create(s);

	srunner_run_all(sr, CK_NORMAL);

	int failed = srunner_ntests_failed(sr);

	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
