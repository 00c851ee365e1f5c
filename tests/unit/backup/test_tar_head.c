#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "backup/tar_head.h"

/* What src/port/tar.c makes of the same file, byte for byte: fields, their ends, ids and names. */
START_TEST(as_the_stock_program)
{
	uint8_t block[PGR_TAR_BLOCK], want[PGR_TAR_BLOCK] = {0};
	struct pgr_err err;

	memcpy(want, "standby.signal", 14);
	memcpy(want + 100, "0000600 ", 8);
	memcpy(want + 108, "0004000 ", 8);
	memcpy(want + 116, "0002000 ", 8);
	memcpy(want + 124, "00000000017 ", 12);
	memcpy(want + 136, "15300232713 ", 12);
	want[156] = '0';
	memcpy(want + 257, "ustar\00000", 8);
	memcpy(want + 265, "postgres", 8);
	memcpy(want + 297, "postgres", 8);
	memcpy(want + 329, "0000000 ", 8);
	memcpy(want + 337, "0000000 ", 8);
	memset(block, 0xaa, sizeof(block));
	ck_assert_int_eq(pgr_tar_head_file(block, "standby.signal", 0600, 15, 015300232713, &err), PGR_OK);
	memcpy(want + 148, block + 148, 8); /* the reader judges the checksum, below */
	ck_assert_mem_eq(block, want, sizeof(want));
	ck_assert(block[155] == ' ');
}
END_TEST

static void decode(const uint8_t *block, struct pgr_tar_member *m)
{
	struct pgr_err err;

	ck_assert_msg(pgr_tar_decode(block, m, &err) == PGR_OK, "%s", err.msg);
}

/* Sizes that octal digits hold, and those that they do not. */
START_TEST(sizes_come_back)
{
	static const uint64_t sizes[] = {0,
					 1,
					 511,
					 512,
					 8192,
					 UINT64_C(077777777777),
					 UINT64_C(077777777777) + 1,
					 UINT64_C(5) << 40,
					 UINT64_C(1) << 61};
	uint8_t block[PGR_TAR_BLOCK];
	struct pgr_tar_member m;
	struct pgr_err err;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		ck_assert_int_eq(pgr_tar_head_file(block, "a/b", 0640, sizes[i], 1700000000, &err), PGR_OK);
		decode(block, &m);
		ck_assert_str_eq(m.name, "a/b");
		ck_assert_int_eq(m.type, PGR_TAR_FILE);
		ck_assert_uint_eq(m.mode, 0640);
		ck_assert_uint_eq(m.size, sizes[i]);
		ck_assert_int_eq(m.mtime, 1700000000);
		for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
			pgr_tar_head_resize(block, sizes[k]);
			decode(block, &m);
			ck_assert_uint_eq(m.size, sizes[k]);
			ck_assert_str_eq(m.name, "a/b");
			ck_assert_int_eq(m.mtime, 1700000000);
		}
	}
}
END_TEST

START_TEST(names)
{
	char name[102];
	uint8_t block[PGR_TAR_BLOCK];
	struct pgr_tar_member m;
	struct pgr_err err;

	memset(name, 'n', sizeof(name));
	name[99] = '\0';
	ck_assert_int_eq(pgr_tar_head_file(block, name, 0600, 0, 0, &err), PGR_OK);
	decode(block, &m);
	ck_assert_str_eq(m.name, name);
	name[99] = 'n';
	name[100] = '\0';
	ck_assert_int_eq(pgr_tar_head_file(block, name, 0600, 0, 0, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, "file name too long for tar format"));
}
END_TEST

START_TEST(a_time_before_1970)
{
	uint8_t block[PGR_TAR_BLOCK];
	struct pgr_tar_member m;
	struct pgr_err err;

	ck_assert_int_eq(pgr_tar_head_file(block, "x", 0600, 0, -5, &err), PGR_OK);
	decode(block, &m);
	ck_assert_int_eq(m.mtime, 0);
}
END_TEST

START_TEST(padding)
{
	ck_assert_uint_eq(pgr_tar_padding(0), 0);
	ck_assert_uint_eq(pgr_tar_padding(1), 511);
	ck_assert_uint_eq(pgr_tar_padding(511), 1);
	ck_assert_uint_eq(pgr_tar_padding(512), 0);
	ck_assert_uint_eq(pgr_tar_padding((UINT64_C(1) << 40) + 513), 511);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tar_head");
	TCase *tc = tcase_create("tar_head");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, as_the_stock_program);
	tcase_add_test(tc, sizes_come_back);
	tcase_add_test(tc, names);
	tcase_add_test(tc, a_time_before_1970);
	tcase_add_test(tc, padding);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
