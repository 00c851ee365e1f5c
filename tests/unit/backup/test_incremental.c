/* incremental.c: files of an incremental backup, good and hostile, and what they make of a file. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backup/incremental.h"
#include "common/buf.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define PAGE	1024u
#define SEGMENT 600u
#define MAGIC	0xd3ae1f0du

static struct pgr_err err;
static struct pgr_buf file;
static struct tmptree tree;

/* ---- a source in memory ---- */

struct mem {
	struct pgr_source source; /* first */
	const struct pgr_buf *from;
	size_t at, chunk;
};

static int mem_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *e)
{
	struct mem *m = (struct mem *)s;

	(void)e;
	*n = m->from->len - m->at;
	*n = *n < cap ? *n : cap;
	*n = m->chunk != 0 && *n > m->chunk ? m->chunk : *n;
	if (*n > 0)
		memcpy(dst, m->from->data + m->at, *n);
	m->at += *n;
	return PGR_OK;
}

static struct mem mem_of(size_t chunk)
{
	return (struct mem){.source = {.read = mem_read}, .from = &file, .chunk = chunk};
}

/* ---- making one ---- */

static void put(const void *p, size_t n)
{
	ck_assert_int_eq(pgr_buf_put(&file, p, n, &err), PGR_OK);
}

static void put32(uint32_t v)
{
	put(&v, 4);
}

static uint8_t fresh_byte(uint32_t block)
{
	return (uint8_t)(0x80 + block % 100);
}

static void make_head(uint32_t magic, uint32_t n, uint32_t truncation)
{
	file.len = 0;
	put32(magic);
	put32(n);
	put32(truncation);
}

static void make(uint32_t truncation, uint32_t n, const uint32_t *blocks)
{
	uint8_t page[PAGE];

	make_head(MAGIC, n, truncation);
	for (uint32_t i = 0; i < n; i++)
		put32(blocks[i]);
	while (n > 0 && file.len % PAGE != 0)
		put("", 1);
	for (uint32_t i = 0; i < n; i++) {
		memset(page, fresh_byte(blocks[i]), PAGE);
		put(page, PAGE);
	}
}

static int read_it(struct pgr_incremental *inc, struct mem *m)
{
	return pgr_incremental_read(inc, &m->source, file.len, PAGE, SEGMENT, "x", &err);
}

static void setup(void)
{
	file = (struct pgr_buf){0};
	tmp_make(&tree);
}

static void teardown(void)
{
	pgr_buf_fini(&file);
	tmp_remove(&tree);
}

/* ---- names ---- */

static const struct {
	const char *path, *of; /* NULL: no increment */
} names[] = {
	{"base/5/INCREMENTAL.16384", "base/5/16384"},
	{"INCREMENTAL.x", "x"},
	{"pg_tblspc/1/PG_18_1/5/INCREMENTAL.16384.3", "pg_tblspc/1/PG_18_1/5/16384.3"},
	{"base/5/16384", NULL},
	{"base/5/INCREMENTAL.", NULL},
	{"base/5/INCREMENTAL", NULL},
	{"base/INCREMENTAL.5/16384", NULL},
	{"base/5/xINCREMENTAL.16384", NULL},
	{"base/5/incremental.16384", NULL},
	{"", NULL},
};

START_TEST(test_names)
{
	char out[PATH_MAX];
	bool is = pgr_incremental_path(names[_i].path, out);

	ck_assert_int_eq(is, names[_i].of != NULL);
	if (is)
		ck_assert_str_eq(out, names[_i].of);
}
END_TEST

/* ---- reading ---- */

START_TEST(test_heads)
{
	static const size_t chunks[] = {0, 1, 7, 1023, 1024};
	static const uint32_t blocks[] = {0, 1, 5, 599};

	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		struct pgr_incremental inc;
		struct mem m;

		make(600, 4, blocks);
		m = mem_of(chunks[i]);
		ck_assert_msg(read_it(&inc, &m) == PGR_OK, "%s", err.msg);
		ck_assert_uint_eq(inc.nblocks, 4);
		ck_assert_uint_eq(inc.truncation, 600);
		ck_assert_int_eq(memcmp(inc.blocks, blocks, sizeof(blocks)), 0);
		ck_assert_uint_eq(m.at, PAGE); /* at the first block */
		for (uint32_t b = 0; b < SEGMENT; b++)
			ck_assert_int_eq(pgr_incremental_has(&inc, b), b == 0 || b == 1 || b == 5 || b == 599);
		pgr_incremental_fini(&inc);
		make(7, 0, NULL);
		ck_assert_uint_eq(file.len, 12);
		m = mem_of(chunks[i]);
		ck_assert_msg(read_it(&inc, &m) == PGR_OK, "%s", err.msg);
		ck_assert_uint_eq(pgr_incremental_blocks(&inc), 7);
		pgr_incremental_fini(&inc);
	}
}
END_TEST

/* A head of more than one page: 3 + 300 numbers. */
START_TEST(test_long_head)
{
	uint32_t blocks[300];
	struct pgr_incremental inc;
	struct mem m = mem_of(0);

	for (uint32_t i = 0; i < 300; i++)
		blocks[i] = 2 * i;
	make(10, 300, blocks);
	ck_assert_msg(read_it(&inc, &m) == PGR_OK, "%s", err.msg);
	ck_assert_uint_eq(m.at, 2 * PAGE);
	ck_assert_uint_eq(pgr_incremental_blocks(&inc), 599);
	pgr_incremental_fini(&inc);
}
END_TEST

static void refused(const char *words)
{
	struct pgr_incremental inc;
	struct mem m = mem_of(0);

	ck_assert_int_eq(read_it(&inc, &m), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, words) != NULL, "\"%s\" is not in \"%s\"", words, err.msg);
	ck_assert_msg(strstr(err.msg, "\"x\"") != NULL, "no name in \"%s\"", err.msg);
	ck_assert_ptr_null(inc.blocks);
}

START_TEST(test_hostile_heads)
{
	static const uint32_t twice[] = {3, 3}, back[] = {4, 3}, beyond[] = {600}, far[] = {UINT32_MAX};

	make_head(0x0d1faed3u, 0, 0);
	refused("is not of an incremental backup");
	make_head(MAGIC, SEGMENT + 1, 0);
	refused("601 blocks of at most 600");
	make_head(MAGIC, UINT32_MAX, 0);
	refused("blocks of at most");
	make(10, 2, twice);
	refused("block 3 at place 1");
	make(10, 2, back);
	refused("block 3 at place 1");
	make(10, 1, beyond);
	refused("block 600 at place 0");
	make(10, 1, far);
	refused("block 4294967295 at place 0");
	make(10, 0, NULL);
	put("", 1);
	refused("13 bytes, which do not fit");
	make_head(MAGIC, 1, 1);
	refused("12 bytes, which do not fit");
	make(10, 2, (const uint32_t[]){1, 2});
	file.len -= PAGE;
	refused("do not fit");
	file.len = 0;
	refused("ends within its head");
	make(10, 0, NULL);
	file.len = 11;
	refused("ends within its head");
}
END_TEST

/* The size is as announced, but the source ends before. */
START_TEST(test_source_that_ends)
{
	static const uint32_t blocks[] = {1, 2, 4};
	size_t size;

	make(10, 3, blocks);
	size = file.len;
	for (size_t n = 0; n < size; n += n < 40 ? 1 : 333) {
		struct pgr_incremental inc;
		struct mem m;
		int fd, rc;

		file.len = n;
		m = mem_of(0);
		rc = pgr_incremental_read(&inc, &m.source, size, PAGE, SEGMENT, "x", &err);
		if (n < PAGE) {
			ck_assert_int_eq(rc, PGR_ERR);
			continue;
		}
		ck_assert_int_eq(rc, PGR_OK);
		tmp_write(&tree, "f", "");
		fd = open(tmp_at(&tree, "f"), O_RDWR);
		ck_assert_int_eq(pgr_incremental_apply(&inc, pgr_sys_real(), fd, "x", PGR_NO_LIMIT, &m.source, &err),
				 PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		close(fd);
		pgr_incremental_fini(&inc);
	}
}
END_TEST

/* A relation of several segments that was cut in a later one: the server may count from the start of this one. */
START_TEST(test_cut_in_a_later_segment)
{
	static const uint32_t lengths[] = {SEGMENT, SEGMENT + 1, 3 * SEGMENT, UINT32_MAX}, blocks[] = {2, 7};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct pgr_incremental inc;
		struct mem m = mem_of(0);

		make(lengths[i], 2, blocks);
		ck_assert_msg(read_it(&inc, &m) == PGR_OK, "%s", err.msg);
		ck_assert_uint_eq(inc.truncation, SEGMENT);
		ck_assert_uint_eq(pgr_incremental_blocks(&inc), SEGMENT);
		ck_assert_uint_eq(pgr_incremental_kept(&inc, 2 * SEGMENT), SEGMENT);
		pgr_incremental_fini(&inc);
	}
}
END_TEST

/* ---- limits ---- */

START_TEST(test_segment_limit)
{
	ck_assert_uint_eq(pgr_segment_limit(PGR_NO_LIMIT, 3, SEGMENT), PGR_NO_LIMIT);
	ck_assert_uint_eq(pgr_segment_limit(10, 0, SEGMENT), 10);
	ck_assert_uint_eq(pgr_segment_limit(SEGMENT, 1, SEGMENT), 0);
	ck_assert_uint_eq(pgr_segment_limit(SEGMENT + 1, 1, SEGMENT), 1);
	ck_assert_uint_eq(pgr_segment_limit(SEGMENT - 1, 1, SEGMENT), 0);
	ck_assert_uint_eq(pgr_segment_limit(UINT32_MAX - 1, UINT32_MAX, 131072), 0);
}
END_TEST

/* ---- applying ---- */

/* The old file: of `blocks` blocks, each with its own byte. */
static int old_file(uint32_t blocks)
{
	int fd = open(tmp_at(&tree, "f"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint8_t page[PAGE];

	ck_assert_int_ge(fd, 0);
	for (uint32_t i = 0; i < blocks; i++) {
		memset(page, (int)(1 + i % 100), PAGE);
		ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)i * PAGE), PAGE);
	}
	return fd;
}

static void check_file(const struct pgr_incremental *inc, uint32_t old, uint32_t limit)
{
	size_t len;
	char *got = tmp_read(&tree, "f", &len);
	uint32_t n = pgr_incremental_blocks(inc);
	uint8_t page[PAGE];

	ck_assert_uint_eq(len, (size_t)n * PAGE);
	for (uint32_t b = 0; b < n; b++) {
		uint8_t expected = 0;

		if (pgr_incremental_has(inc, b))
			expected = fresh_byte(b);
		else if (b < old && b < inc->truncation && b < limit)
			expected = (uint8_t)(1 + b % 100);
		memset(page, expected, PAGE);
		ck_assert_msg(memcmp(got + (size_t)b * PAGE, page, PAGE) == 0, "block %u is %02x, not %02x", b,
			      (uint8_t)got[b * PAGE], expected);
	}
	free(got);
}

static const struct {
	uint32_t old, truncation, limit, n, blocks[6];
} cases[] = {
	{10, 10, PGR_NO_LIMIT, 0, {0}},			  /* nothing changed */
	{10, 10, PGR_NO_LIMIT, 2, {0, 9}},		  /* both ends */
	{10, 7, PGR_NO_LIMIT, 1, {3}},			  /* shorter */
	{10, 7, PGR_NO_LIMIT, 1, {8}},			  /* shorter, with a block behind: 7 is zeros */
	{10, 20, PGR_NO_LIMIT, 3, {12, 13, 15}},	  /* longer, with holes */
	{0, 20, PGR_NO_LIMIT, 0, {0}},			  /* there was nothing */
	{400, 312, 200, 6, {0, 199, 200, 201, 230, 269}}, /* deleted rows must not come back */
	{400, 312, 0, 1, {311}},
	{400, 312, 312, 1, {5}},
	{400, 312, 600, 1, {5}},
	{400, 0, PGR_NO_LIMIT, 0, {0}},
	{600, 600, 599, 6, {1, 2, 3, 4, 5, 6}},
	{3, 600, 1, 3, {300, 301, 599}},
};

START_TEST(test_apply)
{
	static const size_t chunks[] = {0, 1000};

	for (size_t i = 0; i < 2; i++) {
		struct mem m;
		struct pgr_incremental inc;
		int fd = old_file(cases[_i].old);

		make(cases[_i].truncation, cases[_i].n, cases[_i].blocks);
		m = mem_of(chunks[i]);
		ck_assert_int_eq(read_it(&inc, &m), PGR_OK);
		ck_assert_msg(pgr_incremental_apply(&inc, pgr_sys_real(), fd, "x", cases[_i].limit, &m.source, &err) ==
				      PGR_OK,
			      "%s", err.msg);
		ck_assert_uint_eq(m.at, file.len);
		check_file(&inc, cases[_i].old, cases[_i].limit);
		/* and once more, as after an interruption at its end */
		m = mem_of(0);
		m.at = file.len - (size_t)inc.nblocks * PAGE;
		ck_assert_int_eq(pgr_incremental_apply(&inc, pgr_sys_real(), fd, "x", cases[_i].limit, &m.source, &err),
				 PGR_OK);
		check_file(&inc, cases[_i].old, cases[_i].limit);
		pgr_incremental_fini(&inc);
		close(fd);
	}
}
END_TEST

/* Every call fails once; doing all of it again after that gives the same file. */
START_TEST(test_apply_faults)
{
	static const uint32_t blocks[] = {3, 4, 5, 250, 299};
	struct pgr_incremental inc;
	struct pgr_fault_sys f;
	unsigned n = 0;

	do {
		int fd = old_file(400);
		struct mem m = mem_of(0);

		make(310, 5, blocks);
		m = mem_of(0);
		ck_assert_int_eq(read_it(&inc, &m), PGR_OK);
		pgr_fault_sys_init(&f, ++n, EIO);
		if (pgr_incremental_apply(&inc, &f.sys, fd, "the file", 200, &m.source, &err) == PGR_OK)
			ck_assert(!f.triggered);
		else
			ck_assert_msg(strstr(err.msg, "\"the file\"") != NULL, "%s", err.msg);
		m = mem_of(0);
		m.at = PAGE;
		ck_assert_int_eq(pgr_incremental_apply(&inc, pgr_sys_real(), fd, "x", 200, &m.source, &err), PGR_OK);
		check_file(&inc, 400, 200);
		pgr_incremental_fini(&inc);
		close(fd);
	} while (f.triggered);
	ck_assert_uint_gt(n, 4);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("incremental");
	TCase *t = tcase_create("incremental");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, test_names, 0, sizeof(names) / sizeof(names[0]));
	tcase_add_test(t, test_heads);
	tcase_add_test(t, test_long_head);
	tcase_add_test(t, test_hostile_heads);
	tcase_add_test(t, test_source_that_ends);
	tcase_add_test(t, test_cut_in_a_later_segment);
	tcase_add_test(t, test_segment_limit);
	tcase_add_loop_test(t, test_apply, 0, sizeof(cases) / sizeof(cases[0]));
	tcase_add_test(t, test_apply_faults);
	suite_add_tcase(s, t);
	return s;
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
