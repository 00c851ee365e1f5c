#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/walpage.h"

#define SEG    PGR_WALSEG_MIN
#define SYSTEM UINT64_C(7301234567890123456)
#define PG15   0xD110

struct raw { /* the page header of 9.3 and later, as the server's structs lay it out */
	uint16_t magic, info;
	uint32_t tli;
	uint64_t addr;
	uint32_t rem_len, padding;
	uint64_t system_id;
	uint32_t segment_bytes, page_bytes;
};

static struct raw first_page(void)
{
	return (struct raw){PG15, PGR_WALPAGE_IS_LONG, 3, 5 * (uint64_t)SEG, 0, 0, SYSTEM, SEG, 8192};
}

static struct raw inner_page(void)
{
	return (struct raw){PG15, PGR_WALPAGE_CONTINUES, 3, 5 * (uint64_t)SEG + 8192, 100, 0, 0, 0, 0};
}

static struct pgr_walpage_expect want(const struct raw *r)
{
	return (struct pgr_walpage_expect){
		.system_id = SYSTEM,
		.segment_bytes = SEG,
		.page_bytes = 8192,
		.magic = PG15,
		.addr = r->addr,
		.tli_min = 3,
		.tli_max = 3,
	};
}

static void fails(const struct raw *r, const struct pgr_walpage_expect *e, const char *message)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_walpage_check(r, sizeof(*r), e, NULL, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_str_eq(err.msg, message);
}

START_TEST(good)
{
	struct raw l = first_page(), s = inner_page();
	struct pgr_walpage_expect e = want(&l);
	struct pgr_walpage h;
	struct pgr_err err;

	ck_assert_uint_eq(sizeof(struct raw), PGR_WALPAGE_LONG);
	ck_assert_int_eq(pgr_walpage_check(&l, sizeof(l), &e, &h, &err), PGR_OK);
	ck_assert_uint_eq(h.header_bytes, PGR_WALPAGE_LONG);
	ck_assert_uint_eq(h.system_id, SYSTEM);
	ck_assert_uint_eq(h.segment_bytes, SEG);
	ck_assert_uint_eq(h.page_bytes, 8192);
	e = want(&s);
	ck_assert_int_eq(pgr_walpage_check(&s, PGR_WALPAGE_SHORT, &e, &h, &err), PGR_OK);
	ck_assert_uint_eq(h.header_bytes, PGR_WALPAGE_SHORT);
	ck_assert_uint_eq(h.rem_len, 100);
	ck_assert_uint_eq(h.tli, 3);
	ck_assert_uint_eq(h.addr, s.addr);
	ck_assert_uint_eq(h.system_id, 0);
}
END_TEST

/* What is not expected is not compared. */
START_TEST(anything)
{
	struct raw l = first_page();
	struct pgr_walpage_expect e = {.segment_bytes = SEG, .addr = l.addr};
	struct pgr_err err;

	ck_assert_int_eq(pgr_walpage_check(&l, sizeof(l), &e, NULL, &err), PGR_OK);
	l.magic = 0xD118;
	l.tli = 77;
	l.system_id = 1;
	l.page_bytes = 65536;
	ck_assert_int_eq(pgr_walpage_check(&l, sizeof(l), &e, NULL, &err), PGR_OK);
}
END_TEST

START_TEST(too_short)
{
	struct raw l = first_page(), s = inner_page();
	struct pgr_walpage_expect el = want(&l), es = want(&s);
	struct pgr_walpage h;
	struct pgr_err err;

	for (size_t n = 0; n < PGR_WALPAGE_LONG; n++)
		ck_assert_int_eq(pgr_walpage_check(&l, n, &el, &h, &err), PGR_MORE);
	for (size_t n = 0; n < PGR_WALPAGE_SHORT; n++) {
		ck_assert_int_eq(pgr_walpage_check(&s, n, &es, &h, &err), PGR_MORE);
		ck_assert(!pgr_walpage_parse(&s, n, &h));
	}
	ck_assert(!pgr_walpage_parse(&l, PGR_WALPAGE_LONG - 1, &h));
	/* a flag that does not belong there asks for no more bytes */
	s.info |= PGR_WALPAGE_IS_LONG;
	ck_assert_int_eq(pgr_walpage_check(&s, PGR_WALPAGE_SHORT, &es, &h, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "0/502000: long header inside a segment");
}
END_TEST

START_TEST(messages_of_inner_pages)
{
	struct raw r = inner_page();
	struct pgr_walpage_expect e = want(&r);

	r.magic = 0x1234;
	fails(&r, &e, "0/502000: invalid magic number 1234");
	r.magic = 0xD113;
	fails(&r, &e, "0/502000: page is of PostgreSQL 16 (magic D113) instead of 15");
	r = inner_page();
	r.addr += SEG;
	fails(&r, &e, "0/502000: page says that it is 0/602000");
	r = inner_page();
	r.tli = 2;
	fails(&r, &e, "0/502000: page is of timeline 2 instead of 3");
	r.tli = 0;
	fails(&r, &e, "0/502000: page is of timeline 0");
	e.tli_max = 5;
	r.tli = 2;
	fails(&r, &e, "0/502000: page is of timeline 2, after pages of timeline 3");
	r.tli = 6;
	fails(&r, &e, "0/502000: page is of timeline 6, above 5");
	r = inner_page();
	r.info = 0x0011;
	fails(&r, &e, "0/502000: invalid flags 0011");
	r.info = 0x0009;
	fails(&r, &e, "0/502000: page both continues and overwrites a record");
	r.info = 0;
	fails(&r, &e, "0/502000: page does not continue a record, but 100 bytes are left");
	r.info = 1;
	r.rem_len = 0;
	fails(&r, &e, "0/502000: page continues a record of which nothing is left");
	r = inner_page();
	r.padding = 0x100;
	fails(&r, &e, "0/502000: padding of the page header is not zero");
	memset(&r, 0, sizeof(r));
	fails(&r, &e, "0/502000: page is empty");
}
END_TEST

START_TEST(messages_of_first_pages)
{
	struct raw r = first_page();
	struct pgr_walpage_expect e = want(&r);

	r.info = 0;
	fails(&r, &e, "0/500000: first page of a segment without a long header");
	r = first_page();
	r.system_id = 42;
	fails(&r, &e, "0/500000: page is of the system 42 instead of the system 7301234567890123456");
	r = first_page();
	r.segment_bytes = 2 * SEG;
	fails(&r, &e, "0/500000: segment size in the page header is 2097152 instead of 1048576");
	r = first_page();
	r.page_bytes = 4096;
	fails(&r, &e, "0/500000: block size in the page header is 4096 instead of 8192");
	e.page_bytes = 0;
	r.page_bytes = 512;
	fails(&r, &e, "0/500000: invalid block size 512 in the page header");
	r = first_page();
	r.magic = 0xD071;
	e.magic = 0;
	fails(&r, &e, "0/500000: page is of PostgreSQL 9.2, which is not supported");
}
END_TEST

/* What only a reader of the records can judge: a record that is void, and, behind a flag that agrees, how much is left.
 */
static bool is_readers(int page, size_t bit)
{
	return page == 0 ? bit == 19 : bit >= 128 && bit < 160;
}

/* Every bit of a header is looked at, but the one that any page may have. */
START_TEST(every_bit)
{
	struct raw pages[] = {first_page(), inner_page()};
	size_t lens[] = {PGR_WALPAGE_LONG, PGR_WALPAGE_SHORT};
	struct pgr_err err;

	for (int p = 0; p < 2; p++) {
		struct pgr_walpage_expect e = want(&pages[p]);

		for (size_t bit = 0; bit < lens[p] * 8; bit++) {
			uint8_t copy[sizeof(struct raw)];
			int rc = bit == 18 || is_readers(p, bit) ? PGR_OK : PGR_ERR;

			memcpy(copy, &pages[p], sizeof(copy));
			copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
			ck_assert_msg(pgr_walpage_check(copy, lens[p], &e, NULL, &err) == rc, "page %d, bit %zu", p,
				      bit);
		}
	}
}
END_TEST

START_TEST(unaligned)
{
	struct raw r = first_page();
	struct pgr_walpage_expect e = want(&r);
	uint8_t *buf = malloc(sizeof(r) + 1);
	struct pgr_err err;

	ck_assert_ptr_nonnull(buf);
	memcpy(buf + 1, &r, sizeof(r));
	ck_assert_int_eq(pgr_walpage_check(buf + 1, sizeof(r), &e, NULL, &err), PGR_OK);
	free(buf);
}
END_TEST

START_TEST(first_of_a_directory)
{
	struct raw r = first_page();
	struct pgr_walpage h;
	struct pgr_err err;

	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r), &h, &err), PGR_OK);
	ck_assert_uint_eq(h.segment_bytes, SEG);
	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r) - 1, &h, &err), PGR_MORE);
	r.segment_bytes = SEG + 1;
	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r), &h, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "invalid segment size 1048577 in the page header");
	r = first_page();
	r.addr += 8192;
	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r), &h, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "page says that it is 0/502000");
	r = inner_page();
	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r), &h, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "first page of a segment without a long header");
	memset(&r, 0, sizeof(r));
	ck_assert_int_eq(pgr_walpage_first(&r, sizeof(r), &h, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "page is empty");
}
END_TEST

START_TEST(versions)
{
	ck_assert_str_eq(pgr_walpage_version(0xD110), "15");
	ck_assert_str_eq(pgr_walpage_version(0xD066), "9.1");
	ck_assert_str_eq(pgr_walpage_version(0xD118), "18");
	ck_assert_ptr_null(pgr_walpage_version(0));
	ck_assert_ptr_null(pgr_walpage_version(0xD119));
	ck_assert(pgr_walpage_has_crc32c(0xD087));
	ck_assert(!pgr_walpage_has_crc32c(0xD07E));
}
END_TEST

/* Behind a switch: nothing, or a header that says nothing, and no record. */
START_TEST(unused)
{
	struct raw r = inner_page();
	uint8_t zeros[PGR_WALPAGE_BEGINNING] = {0};

	ck_assert(pgr_walpage_is_unused(zeros));
	for (size_t i = 0; i < sizeof(zeros); i++) {
		zeros[i] = 1;
		ck_assert_msg(!pgr_walpage_is_unused(zeros), "byte %zu", i);
		zeros[i] = 0;
	}
	ck_assert(!pgr_walpage_is_unused(&r)); /* the rest of a record, all zeros */
	r.info = r.rem_len = 0;
	ck_assert(pgr_walpage_is_unused(&r));
	r.info = PGR_WALPAGE_REMOVABLE;
	ck_assert(pgr_walpage_is_unused(&r));
	((uint8_t *)&r)[PGR_WALPAGE_SHORT] = 50; /* a record */
	ck_assert(!pgr_walpage_is_unused(&r));
	r = first_page();
	ck_assert(!pgr_walpage_is_unused(&r));
	r = inner_page();
	r.info = PGR_WALPAGE_OVERWRITES;
	r.rem_len = 0;
	ck_assert(!pgr_walpage_is_unused(&r));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("walpage");
	TCase *tc = tcase_create("walpage");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, good);
	tcase_add_test(tc, anything);
	tcase_add_test(tc, too_short);
	tcase_add_test(tc, messages_of_inner_pages);
	tcase_add_test(tc, messages_of_first_pages);
	tcase_add_test(tc, every_bit);
	tcase_add_test(tc, unaligned);
	tcase_add_test(tc, first_of_a_directory);
	tcase_add_test(tc, versions);
	tcase_add_test(tc, unused);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
