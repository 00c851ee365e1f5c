/* kept.c: what stays of an old copy is read, in threads and inline. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backup/kept.h"
#include "backup/layout.h"
#include "common/digest.h"
#include "common/pagesum.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define PAGE	8192u
#define SEGMENT 64u

static struct tmptree tree;
static struct pgr_layout *layout;
static struct pgr_stop *stop;
static struct pgr_kept *kept;
static struct pgr_kept_opts opts;
static struct pgr_err err;
static char data_dir[PATH_MAX], bad_lines[4096];
static unsigned fds;

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void on_bad(void *arg, const char *line)
{
	(void)arg;
	strncat(bad_lines, line, sizeof(bad_lines) - strlen(bad_lines) - 1);
}

static void setup(void)
{
	struct pgr_layout_opts lo = {.data_dir = data_dir, .dir_mode = 0700, .file_mode = 0600};

	tmp_make(&tree);
	fds = tmp_open_fds();
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	must(pgr_stop_new(&stop, &err));
	must(pgr_layout_new(&layout, pgr_sys_real(), &lo, &err));
	must(pgr_layout_prepare(layout, &err));
	tmp_mkdir(&tree, "data/base", 0700);
	tmp_mkdir(&tree, "data/base/5", 0700);
	bad_lines[0] = '\0';
	kept = NULL;
	opts = (struct pgr_kept_opts){
		.sys = pgr_sys_real(),
		.layout = layout,
		.stop = stop,
		.digest = PGR_DIGEST_CRC32C,
		.pages = true,
		.sync = true,
		.page_bytes = PAGE,
		.segment_blocks = SEGMENT,
		.bad = on_bad,
	};
}

static void teardown(void)
{
	pgr_kept_free(kept);
	pgr_layout_free(layout);
	pgr_stop_free(stop);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

/* ---- files ---- */

/* Pages with right checksums; each fifth one is new. */
static uint8_t *make_file(const char *name, uint32_t segment, uint32_t blocks)
{
	uint8_t *p = calloc(blocks + 1, PAGE);
	FILE *f = fopen(tmp_at(&tree, name), "w");

	ck_assert(p != NULL && f != NULL);
	for (uint32_t b = 0; b < blocks; b++) {
		uint8_t *page = p + (size_t)b * PAGE;
		uint16_t sum;

		if (b % 5 == 4)
			continue;
		memset(page, (int)(b + 1), PAGE);
		sum = pgr_page_checksum(page, PAGE, segment * SEGMENT + b);
		memcpy(page + 8, &sum, 2);
	}
	ck_assert_uint_eq(fwrite(p, PAGE, blocks, f), blocks);
	ck_assert_int_eq(fclose(f), 0);
	return p;
}

static void break_block(const char *name, uint32_t block)
{
	int fd = open(tmp_at(&tree, name), O_RDWR);

	ck_assert_int_eq(pwrite(fd, "x", 1, (off_t)block * PAGE + 100), 1);
	close(fd);
}

static struct pgr_incremental listed(uint32_t n, const uint32_t *blocks)
{
	struct pgr_incremental inc = {.page_bytes = PAGE, .nblocks = n, .blocks = malloc((n + 1) * sizeof(uint32_t))};

	ck_assert_ptr_nonnull(inc.blocks);
	if (n > 0)
		memcpy(inc.blocks, blocks, n * sizeof(uint32_t));
	return inc;
}

static void check_sum(const struct pgr_kept_result *r, const uint8_t *data, size_t len)
{
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d;
	size_t n;

	must(pgr_digest_new(&d, opts.digest, &err));
	must(pgr_digest_add(d, data, len, &err));
	must(pgr_digest_end(d, sum, &n, &err));
	pgr_digest_free(d);
	ck_assert_uint_eq(r->size, len);
	ck_assert_uint_eq(r->sum_len, n);
	ck_assert_int_eq(memcmp(r->sum, sum, n), 0);
}

static const unsigned thread_counts[] = {0, 1, 4};

/* ---- tests ---- */

START_TEST(test_good)
{
	enum { FILES = 100 };
	static const enum pgr_digest_algo algos[] = {PGR_DIGEST_CRC32C, PGR_DIGEST_SHA256, PGR_DIGEST_NONE};

	for (size_t a = 0; a < 3; a++) {
		struct pgr_kept_result results[FILES] = {{0}};
		uint8_t *data[FILES];
		uint64_t bytes = 0;

		opts.threads = thread_counts[_i];
		opts.digest = algos[a];
		must(pgr_kept_new(&kept, &opts, &err));
		for (unsigned i = 0; i < FILES; i++) {
			struct pgr_incremental inc = listed(0, NULL);
			char name[40];

			/* more and less than what is read at once */
			snprintf(name, sizeof(name), "data/base/5/%u.%u", 16384 + i, i % 3);
			data[i] = make_file(name, i % 3, i % 4 == 0 ? 64 : i % 70);
			bytes += (i % 4 == 0 ? 64 : i % 70) * (uint64_t)PAGE;
			must(pgr_kept_add(kept, name + 5, i % 3, &inc, &results[i], &err));
			ck_assert_ptr_null(inc.blocks);
		}
		must(pgr_kept_finish(kept, &err));
		for (unsigned i = 0; i < FILES; i++) {
			check_sum(&results[i], data[i], (i % 4 == 0 ? 64 : i % 70) * (size_t)PAGE);
			free(data[i]);
		}
		ck_assert_uint_eq(pgr_kept_bytes(kept), bytes);
		ck_assert_str_eq(bad_lines, "");
		pgr_kept_free(kept);
		kept = NULL;
	}
}
END_TEST

/* A block that was broken counts when it was kept, and not when it came. */
START_TEST(test_bad)
{
	static const uint32_t came[] = {3, 20}, others[] = {2, 21};
	struct pgr_kept_result results[4] = {{0}};
	struct pgr_incremental inc;

	opts.threads = thread_counts[_i];
	must(pgr_kept_new(&kept, &opts, &err));
	for (unsigned i = 0; i < 4; i++) {
		char name[40];

		snprintf(name, sizeof(name), "data/base/5/%u.1", i);
		free(make_file(name, 1, 64));
		break_block(name, 20);
		inc = listed(2, i == 1 ? others : came);
		/* no relation: nobody looks at pages */
		must(pgr_kept_add(kept, name + 5, 1, i == 2 ? NULL : &inc, &results[i], &err));
		pgr_incremental_fini(&inc);
	}
	ck_assert_int_eq(pgr_kept_finish(kept, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, "1 files, the first is \"base/5/1.1\"") != NULL, "%s", err.msg);
	ck_assert_str_eq(bad_lines, "file \"base/5/1.1\": 1 pages that were kept have a wrong checksum, it is removed");
	for (unsigned i = 0; i < 4; i++) {
		char name[40];

		snprintf(name, sizeof(name), "data/base/5/%u.1", i);
		ck_assert_int_eq(tmp_exists(&tree, name), i != 1);
	}
}
END_TEST

/* The segment counts: a page of another place in the relation is bad. */
START_TEST(test_wrong_segment)
{
	struct pgr_kept_result result;
	struct pgr_incremental inc = listed(0, NULL);

	must(pgr_kept_new(&kept, &opts, &err));
	free(make_file("data/base/5/1.1", 0, 3));
	must(pgr_kept_add(kept, "base/5/1.1", 1, &inc, &result, &err));
	ck_assert_int_eq(pgr_kept_finish(kept, &err), PGR_ERR);
	ck_assert_msg(strstr(bad_lines, "3 pages") != NULL, "%s", bad_lines);
}
END_TEST

START_TEST(test_no_page_checksums)
{
	struct pgr_kept_result result;
	struct pgr_incremental inc = listed(0, NULL);

	opts.pages = false;
	must(pgr_kept_new(&kept, &opts, &err));
	free(make_file("data/base/5/1", 0, 3));
	break_block("data/base/5/1", 1);
	must(pgr_kept_add(kept, "base/5/1", 0, &inc, &result, &err));
	must(pgr_kept_finish(kept, &err));
	ck_assert_uint_eq(result.size, 3 * PAGE);
}
END_TEST

/* Gives the pages of a file positions: 0x100 for block 0, 0x200 for block 1, ... */
static void put_positions(const char *name, uint32_t blocks)
{
	int fd = open(tmp_at(&tree, name), O_RDWR);

	ck_assert_int_ge(fd, 0);
	for (uint32_t b = 0; b < blocks; b++) {
		const uint32_t lsn[2] = {0, 0x100 * (b + 1)};

		ck_assert_int_eq(pwrite(fd, lsn, sizeof(lsn), (off_t)b * PAGE), sizeof(lsn));
	}
	close(fd);
}

/* What was changed since the first position came, or it was changed in another history; but for new pages (4, 9). */
static const struct {
	pgr_lsn from, to;
	unsigned n; /* of blocks 0 to 11 without 6, which came */
} histories[] = {
	{0, 0, 0},	   {0xC00, UINT64_MAX, 0}, {0xBFF, UINT64_MAX, 1}, {0x700, UINT64_MAX, 4},
	{0x100, 0x300, 2}, {0x100, 0x2FF, 1},	   {0x400, 0x500, 0},	   {0x600, 0x700, 0},
};

START_TEST(test_other_history)
{
	static const uint32_t came[] = {6};
	struct pgr_kept_result results[2];
	char words[100];

	opts.threads = 1;
	opts.pages = false;
	opts.changed_from = histories[_i].from;
	opts.changed_to = histories[_i].to;
	must(pgr_kept_new(&kept, &opts, &err));
	for (unsigned i = 0; i < 2; i++) {
		struct pgr_incremental inc = listed(1, came);
		char name[40];

		snprintf(name, sizeof(name), "data/base/5/%u", i);
		free(make_file(name, 0, 12));
		put_positions(name, 12);
		/* no relation: nobody looks at pages */
		must(pgr_kept_add(kept, name + 5, 0, i == 1 ? NULL : &inc, &results[i], &err));
		pgr_incremental_fini(&inc);
	}
	ck_assert_int_eq(pgr_kept_finish(kept, &err), histories[_i].n > 0 ? PGR_ERR : PGR_OK);
	ck_assert_int_eq(pgr_kept_is_foreign(kept), histories[_i].n > 0);
	ck_assert(tmp_exists(&tree, "data/base/5/0") && tmp_exists(&tree, "data/base/5/1"));
	if (histories[_i].n == 0) {
		ck_assert_str_eq(bad_lines, "");
		return;
	}
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, "1 files, the first is \"base/5/0\"") != NULL, "%s", err.msg);
	snprintf(words, sizeof(words), "\"base/5/0\": %u pages that were kept were changed after ", histories[_i].n);
	ck_assert_msg(strstr(bad_lines, words) != NULL, "\"%s\" is not in \"%s\"", words, bad_lines);
}
END_TEST

/* A file that vanished ends the run, in whatever thread. */
START_TEST(test_missing)
{
	struct pgr_kept_result result[200];
	struct pgr_incremental inc;
	int rc = PGR_OK;

	opts.threads = thread_counts[_i];
	must(pgr_kept_new(&kept, &opts, &err));
	free(make_file("data/base/5/1", 0, 3));
	for (unsigned i = 0; rc == PGR_OK && i < 200; i++) {
		inc = listed(0, NULL);
		rc = pgr_kept_add(kept, i == 50 ? "base/5/2" : "base/5/1", 0, &inc, &result[i], &err);
	}
	if (rc == PGR_OK)
		rc = pgr_kept_finish(kept, &err);
	ck_assert_int_eq(rc, PGR_ERR);
	if (opts.threads > 0)
		pgr_stop_why(stop, &err);
	ck_assert_msg(strstr(err.msg, "\"base/5/2\"") != NULL, "%s", err.msg);
}
END_TEST

/* A relation's link is not followed, one that the user keeps is. */
START_TEST(test_link)
{
	struct pgr_kept_result result;
	struct pgr_incremental inc = listed(0, NULL);

	must(pgr_kept_new(&kept, &opts, &err));
	free(make_file("data/base/5/1", 0, 3));
	ck_assert_int_eq(symlink("1", tmp_at(&tree, "data/base/5/2")), 0);
	ck_assert_int_eq(pgr_kept_add(kept, "base/5/2", 0, &inc, &result, &err), PGR_ERR);
	ck_assert_msg(strstr(err.msg, "could not open file \"base/5/2\"") != NULL, "%s", err.msg);
	must(pgr_kept_add(kept, "base/5/2", 0, NULL, &result, &err));
	ck_assert_uint_eq(result.size, 3 * PAGE);
}
END_TEST

/* Each call fails once; nothing leaks, and who failed is told. */
START_TEST(test_faults)
{
	struct pgr_kept_result result;
	struct pgr_fault_sys f;
	unsigned n = 0;

	free(make_file("data/base/5/1", 0, 3));
	do {
		pgr_fault_sys_init(&f, ++n, EIO);
		opts.sys = &f.sys;
		must(pgr_kept_new(&kept, &opts, &err));
		if (pgr_kept_add(kept, "base/5/1", 0, NULL, &result, &err) == PGR_OK)
			ck_assert(!f.triggered);
		else
			ck_assert_msg(strstr(err.msg, "base") != NULL, "%s", err.msg);
		pgr_kept_free(kept);
		kept = NULL;
	} while (f.triggered);
	ck_assert_uint_gt(n, 5);
	ck_assert_uint_ge(f.fsyncs, 1);
}
END_TEST

START_TEST(test_stopped)
{
	struct pgr_kept_result result;
	struct pgr_err why;

	opts.threads = 2;
	must(pgr_kept_new(&kept, &opts, &err));
	pgr_err_set(&why, PGR_E_NETWORK, "gone");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(pgr_kept_add(kept, "base/5/1", 0, NULL, &result, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_int_eq(pgr_kept_finish(kept, &err), PGR_ERR);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("kept");
	TCase *t = tcase_create("kept");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_good, 0, 3);
	tcase_add_loop_test(t, test_bad, 0, 3);
	tcase_add_test(t, test_wrong_segment);
	tcase_add_test(t, test_no_page_checksums);
	tcase_add_loop_test(t, test_other_history, 0, sizeof(histories) / sizeof(histories[0]));
	tcase_add_loop_test(t, test_missing, 0, 3);
	tcase_add_test(t, test_link);
	tcase_add_test(t, test_faults);
	tcase_add_test(t, test_stopped);
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
