#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_tree.h"
#include "receiver/scan.h"
#include "tests/support/fault_sys.h"

#define SEG PGR_WALSEG_MIN

static char dir[64];
static int dfd;
static char warnings[4096];

static void setup(void)
{
	snprintf(dir, sizeof(dir), "%s/pgr-scan-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	dfd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dfd, 0);
	warnings[0] = '\0';
}

static void teardown(void)
{
	struct pgr_err err;

	close(dfd);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), dir, true, &err), PGR_OK);
}

static void make(const char *name, off_t size)
{
	int fd = openat(dfd, name, O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

/* As much of a gzip file as the scan looks at. */
static void make_gzip(pgr_tli tli, pgr_segno seg, uint32_t isize)
{
	const uint8_t tail[4] = {isize & 0xff, isize >> 8 & 0xff, isize >> 16 & 0xff, isize >> 24};
	char name[64];
	int fd;

	pgr_walname_format(name, tli, seg, SEG);
	strcat(name, ".gz");
	make(name, 17);
	fd = openat(dfd, name, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, tail, 4, 13), 4);
	close(fd);
}

static void make_seg(pgr_tli tli, pgr_segno seg, const char *suffix, off_t size)
{
	char name[64];

	pgr_walname_format(name, tli, seg, SEG);
	strcat(name, suffix);
	make(name, size);
}

static void on_warning(void *arg, const char *line)
{
	(void)arg;
	strncat(warnings, line, sizeof(warnings) - strlen(warnings) - 2);
	strcat(warnings, "\n");
}

static void scan(struct pgr_walscan *out)
{
	struct pgr_err err;

	ck_assert_msg(pgr_walscan(pgr_sys_real(), dfd, dir, SEG, on_warning, NULL, out, &err) == PGR_OK, "%s", err.msg);
}

START_TEST(nothing_there)
{
	struct pgr_walscan s;

	make("README", 3);
	make("00000002.history", 3);
	make("000000010000000000000003.backup", 3);
	make("000000010000000000000003.partial.x", 3);
	make("000000010000000000000003.gz.gz", 3);
	make("00000001000000000000000g", SEG);
	make("00000001000000000000000", SEG);
	make("0000000100000000000000033", SEG);
	make("000000000000000000000003", SEG); /* timeline 0 */
	scan(&s);
	ck_assert(!s.found);
	ck_assert_uint_eq(s.segments, 0);
	ck_assert_uint_eq(s.ngaps, 0);
	ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(complete_means_next)
{
	struct pgr_walscan s;

	make_seg(1, 3, "", SEG);
	make_seg(1, 5, "", SEG);
	make_seg(1, 4, "", SEG);
	scan(&s);
	ck_assert(s.found);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.tli, 1);
	ck_assert_uint_eq(s.segments, 3);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

START_TEST(partial_means_itself)
{
	struct pgr_walscan s;

	make_seg(1, 3, "", SEG);
	make_seg(1, 4, ".partial", 4711); /* of any size: the store continues it */
	scan(&s);
	ck_assert_uint_eq(s.start, 4 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.segments, 1);
	ck_assert_uint_eq(s.ngaps, 0);
	ck_assert_str_eq(warnings, "");
}
END_TEST

START_TEST(only_a_partial)
{
	struct pgr_walscan s;

	make_seg(3, 9, ".partial", 0);
	scan(&s);
	ck_assert(s.found);
	ck_assert_uint_eq(s.start, 9 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.tli, 3);
	ck_assert_uint_eq(s.segments, 0);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

START_TEST(complete_beats_partial)
{
	struct pgr_walscan s;

	make_seg(1, 4, ".partial", SEG);
	make_seg(1, 4, "", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 5 * (pgr_lsn)SEG);
}
END_TEST

/* The number counts before the timeline, the timeline before completeness (FindStreamingStart). */
START_TEST(highest)
{
	struct pgr_walscan s;

	make_seg(1, 5, "", SEG);
	make_seg(2, 5, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 5 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.tli, 2);
	make_seg(1, 6, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.tli, 1);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

START_TEST(gaps)
{
	struct pgr_walscan s;

	make_seg(1, 10, "", SEG);
	make_seg(1, 12, "", SEG);
	make_seg(2, 12, "", SEG);
	make_seg(2, 13, "", SEG);
	make_seg(2, 17, "", SEG);
	make_seg(3, 19, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 19 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.ngaps, 3);
	ck_assert_uint_eq(s.gaps[0].first, 11);
	ck_assert_uint_eq(s.gaps[0].last, 11);
	ck_assert_uint_eq(s.gaps[0].tli, 1);
	ck_assert_uint_eq(s.gaps[1].first, 14);
	ck_assert_uint_eq(s.gaps[1].last, 16);
	ck_assert_uint_eq(s.gaps[1].tli, 2);
	ck_assert_uint_eq(s.gaps[2].first, 18);
	ck_assert_uint_eq(s.gaps[2].last, 18);
	ck_assert_uint_eq(s.gaps[2].tli, 3);
}
END_TEST

/* A segment that was begun and never completed, while later ones are there. */
START_TEST(partial_in_between_is_a_gap)
{
	struct pgr_walscan s;

	make_seg(1, 10, ".partial", SEG);
	make_seg(1, 11, "", SEG);
	make_seg(1, 12, ".partial", SEG);
	for (pgr_segno seg = 13; seg <= 16; seg++)
		make_seg(1, seg, "", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 17 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.ngaps, 2);
	ck_assert_uint_eq(s.gaps[0].first, 10);
	ck_assert_uint_eq(s.gaps[0].last, 10);
	ck_assert_uint_eq(s.gaps[1].first, 12);
	ck_assert_uint_eq(s.gaps[1].last, 12);
}
END_TEST

/* Killed with finished segments that had not got their final names: the stream goes on at the first of them. */
START_TEST(several_partials_at_the_end)
{
	struct pgr_walscan s;

	make_seg(1, 10, "", SEG);
	make_seg(1, 11, ".partial", SEG);
	if (_i == 0)
		make_seg(1, 12, ".partial", SEG);
	else
		make_seg(1, 12, "", SEG); /* a file system that does not keep the order of renames */
	if (_i < 2)
		make_seg(1, 13, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 11 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

/* What another timeline or another run left unfinished is none of them. */
START_TEST(other_partials_at_the_end)
{
	struct pgr_walscan s;

	make_seg(1, 11, ".partial", SEG);
	make_seg(2, 11, "", SEG);
	make_seg(2, 12, "", SEG);
	make_seg(2, 12, ".gz.partial", 10);
	make_seg(2, 12, ".partial", 10);
	make_seg(2, 13, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 13 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.ngaps, 0);
	ck_assert(s.foreign_partials);
}
END_TEST

/* The old timeline's .partial stays beside the new timeline's segment of the same number. */
START_TEST(timeline_switch_is_no_gap)
{
	struct pgr_walscan s;

	make_seg(1, 3, "", SEG);
	make_seg(1, 4, ".partial", SEG);
	make_seg(2, 4, "", SEG);
	make_seg(2, 5, ".partial", SEG);
	make_seg(3, 5, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 5 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.tli, 3);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

START_TEST(more_gaps_than_room)
{
	struct pgr_walscan s;

	for (unsigned i = 0; i < 40; i++)
		make_seg(1, 100 + 2 * i, "", SEG);
	scan(&s);
	ck_assert_uint_eq(s.segments, 40);
	ck_assert_uint_eq(s.ngaps, 39);
	for (unsigned i = 0; i < PGR_WALSCAN_MAX_GAPS; i++)
		ck_assert_uint_eq(s.gaps[i].first, 101 + 2 * i);
}
END_TEST

/* The highest ones are looked at until one is right; those below it are not. */
START_TEST(wrong_sizes)
{
	struct pgr_walscan s;

	make_seg(1, 3, "", SEG - 1);
	make_seg(1, 4, "", SEG);
	make_seg(1, 5, "", SEG - 1);
	make_seg(1, 6, "", 0);
	scan(&s);
	ck_assert_uint_eq(s.start, 5 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.segments, 2);
	ck_assert_uint_eq(s.ngaps, 0);
	ck_assert_str_eq(warnings, "segment file \"000000010000000000000006\" has incorrect size 0, skipping\n"
				   "segment file \"000000010000000000000005\" has incorrect size 1048575, skipping\n");
}
END_TEST

START_TEST(all_wrong)
{
	struct pgr_walscan s;
	unsigned lines = 0;

	for (pgr_segno seg = 1; seg <= 20; seg++)
		make_seg(1, seg, seg % 2 ? "" : ".lz4", 0);
	scan(&s);
	ck_assert(!s.found);
	for (const char *p = warnings; (p = strchr(p, '\n')) != NULL; p++)
		lines++;
	ck_assert_uint_eq(lines, 17);
	ck_assert_ptr_nonnull(strstr(warnings, "\n4 more segment files were skipped\n"));
}
END_TEST

/* A segment that is wrong in one form may be right in another, or be continued. */
START_TEST(wrong_beside_right)
{
	struct pgr_walscan s;

	make_seg(1, 4, "", SEG);
	make_seg(1, 5, "", 17);
	make_seg(1, 5, ".partial", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 5 * (pgr_lsn)SEG);
	make_seg(1, 5, ".zst", 17);
	scan(&s);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.segments, 2);
}
END_TEST

/* No file but the newest segment's is looked at: everything below it may be broken for all that the scan knows. */
START_TEST(one_stat)
{
	struct pgr_fault_sys f;
	struct pgr_walscan s;
	struct pgr_err err;
	unsigned few, many;

	for (pgr_segno seg = 1; seg <= 9; seg++)
		make_seg(1, seg, seg % 2 ? "" : ".gz", SEG);
	pgr_fault_sys_init(&f, 0, EIO);
	ck_assert_int_eq(pgr_walscan(&f.sys, dfd, dir, SEG, NULL, NULL, &s, &err), PGR_OK);
	few = f.calls;
	for (pgr_segno seg = 10; seg <= 31; seg++)
		make_seg(1, seg, seg % 2 ? "" : ".gz", SEG);
	pgr_fault_sys_init(&f, 0, EIO);
	ck_assert_int_eq(pgr_walscan(&f.sys, dfd, dir, SEG, NULL, NULL, &s, &err), PGR_OK);
	many = f.calls;
	ck_assert_uint_eq(s.segments, 31);
	ck_assert_uint_eq(many - few, 22); /* the readdirs */
}
END_TEST

START_TEST(not_a_file)
{
	struct pgr_walscan s;

	make_seg(1, 3, "", SEG);
	ck_assert_int_eq(mkdirat(dfd, "000000010000000000000004", 0700), 0);
	scan(&s);
	ck_assert_uint_eq(s.start, 4 * (pgr_lsn)SEG);
	ck_assert_str_eq(warnings, "segment file \"000000010000000000000004\" is not a regular file, skipping\n");
}
END_TEST

START_TEST(compressed_count)
{
	struct pgr_walscan s;

	make_gzip(1, 3, SEG);
	make_seg(1, 4, ".lz4", 17);
	make_seg(1, 5, ".zst", 17);
	scan(&s);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.segments, 3);
	ck_assert_uint_eq(s.ngaps, 0);
	make_gzip(1, 6, SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, 7 * (pgr_lsn)SEG);
	ck_assert_str_eq(warnings, "");
	make_gzip(1, 6, 4711);
	scan(&s);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_str_eq(warnings, "compressed segment file \"000000010000000000000006.gz\" has incorrect uncompressed "
				   "size 4711, skipping\n");
}
END_TEST

/* What pg_receivewal -Z left unfinished cannot be continued; its segment is received from its start. */
START_TEST(foreign_partials)
{
	static const char *const suffixes[] = {".gz.partial", ".lz4.partial", ".zst.partial"};
	struct pgr_walscan s;

	make_seg(1, 5, "", SEG);
	scan(&s);
	ck_assert(!s.foreign_partials);
	make_seg(1, 6, suffixes[_i], 17);
	scan(&s);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.segments, 1);
	ck_assert(s.foreign_partials);
	ck_assert_str_eq(warnings, "");
}
END_TEST

/* A segment plain and compressed is one segment. */
START_TEST(duplicates)
{
	struct pgr_walscan s;

	for (pgr_segno seg = 3; seg <= 5; seg++) {
		make_seg(1, seg, "", SEG);
		make_gzip(1, seg, SEG);
		make_seg(1, seg, ".lz4", 17);
	}
	scan(&s);
	ck_assert_uint_eq(s.segments, 3);
	ck_assert_uint_eq(s.start, 6 * (pgr_lsn)SEG);
	ck_assert_uint_eq(s.ngaps, 0);
}
END_TEST

/* ---- what is left to compress ---- */

static char left[1024];

static int on_left(void *arg, pgr_tli tli, pgr_segno seg, unsigned kinds, struct pgr_err *err)
{
	size_t n = strlen(left);

	if (arg != NULL && seg == *(pgr_segno *)arg)
		return pgr_err_set(err, PGR_E_DATA, "enough");
	snprintf(left + n, sizeof(left) - n, " %u/%u:%u", tli, (unsigned)seg, kinds);
	return PGR_OK;
}

static const char *find_left(pgr_segno below)
{
	struct pgr_err err;

	left[0] = '\0';
	ck_assert_int_eq(pgr_walscan_left(pgr_sys_real(), dfd, dir, SEG, below, on_left, NULL, &err), PGR_OK);
	return left;
}

START_TEST(left_behind_the_newest_compressed)
{
	ck_assert_str_eq(find_left(100), "");
	make_seg(1, 3, "", SEG);
	make_seg(1, 4, "", SEG);
	ck_assert_str_eq(find_left(100), ""); /* kept plain until now */
	make_seg(1, 4, ".gz", 17);
	ck_assert_str_eq(find_left(100), " 1/3:1 1/4:3"); /* crashed with the first one */
	make_seg(1, 2, ".lz4", 17);
	make_seg(1, 1, "", SEG);
	make_seg(1, 5, ".partial", SEG);
	make_seg(2, 5, "", SEG);
	make_seg(2, 6, "", SEG);
	make_seg(2, 7, ".partial", SEG);
	ck_assert_str_eq(find_left(100), " 1/3:1 1/4:3 2/5:1 2/6:1");
	ck_assert_str_eq(find_left(6), " 1/3:1 1/4:3 2/5:1");
	ck_assert_str_eq(find_left(4), " 1/3:1");
	ck_assert_str_eq(find_left(2), "");
}
END_TEST

START_TEST(left_foreign)
{
	make_seg(1, 3, "", SEG);
	make_seg(1, 3, ".gz.partial", 17);
	make_seg(1, 4, ".zst", 17);
	make_seg(1, 4, ".lz4.partial", 17);
	make_seg(1, 5, ".gz.partial", 17);
	ck_assert_str_eq(find_left(100), " 1/3:33 1/4:40");
}
END_TEST

START_TEST(left_ends_early)
{
	struct pgr_err err;
	pgr_segno end = 4;

	make_seg(1, 2, ".zst", 17);
	for (pgr_segno seg = 3; seg <= 5; seg++)
		make_seg(1, seg, "", SEG);
	left[0] = '\0';
	ck_assert_int_eq(pgr_walscan_left(pgr_sys_real(), dfd, dir, SEG, 100, on_left, &end, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "enough");
	ck_assert_str_eq(left, " 1/3:1");
	ck_assert_int_eq(pgr_walscan_left(pgr_sys_real(), dfd, dir, 4711, 100, on_left, NULL, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
}
END_TEST

/* The last segment that 64 bits can name has no successor; the one before it has. */
START_TEST(end_of_the_world)
{
	struct pgr_walscan s;
	pgr_segno last = UINT64_MAX / SEG;

	make_seg(1, last, ".partial", 0);
	scan(&s);
	ck_assert(!s.found);
	ck_assert_ptr_nonnull(strstr(warnings, "is beyond the last WAL position, skipping"));
	make_seg(1, last - 1, "", SEG);
	scan(&s);
	ck_assert_uint_eq(s.start, last * SEG);
}
END_TEST

START_TEST(other_segment_sizes)
{
	struct pgr_walscan s;
	struct pgr_err err;

	make("00000001000000010000000000", 0); /* too long */
	make("000000010000000100000003", 64 * 1024 * 1024);
	make("000000010000000100000040", 64 * 1024 * 1024); /* there are only 64 segments to an id */
	ck_assert_int_eq(pgr_walscan(pgr_sys_real(), dfd, dir, 64 * 1024 * 1024, on_warning, NULL, &s, &err), PGR_OK);
	ck_assert_uint_eq(s.segments, 1);
	ck_assert_uint_eq(s.start, UINT64_C(0x100000000) + 4 * UINT64_C(0x4000000));
	ck_assert_int_eq(pgr_walscan(pgr_sys_real(), dfd, dir, 12345, on_warning, NULL, &s, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
}
END_TEST

/* A second scan sees the whole directory again, and warnings are not needed. */
START_TEST(again_and_silent)
{
	struct pgr_walscan s;
	struct pgr_err err;

	make_seg(1, 3, "", SEG);
	make_seg(1, 4, "", 5);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(pgr_walscan(pgr_sys_real(), dfd, dir, SEG, NULL, NULL, &s, &err), PGR_OK);
		ck_assert_uint_eq(s.segments, 1);
	}
}
END_TEST

START_TEST(faults)
{
	struct pgr_walscan s;
	struct pgr_err err;
	unsigned n;

	make_seg(1, 3, "", SEG);
	make_seg(1, 4, "", SEG);
	make_gzip(1, 4, SEG);
	make_gzip(1, 5, 1);
	for (n = 1;; n++) {
		struct pgr_fault_sys f;
		int rc;

		pgr_fault_sys_init(&f, n, EIO);
		rc = pgr_walscan(&f.sys, dfd, dir, SEG, NULL, NULL, &s, &err);
		ck_assert_int_eq(fcntl(dfd, F_GETFD) >= 0, 1);
		if (!f.triggered) {
			ck_assert_int_eq(rc, PGR_OK);
			break;
		}
		if (rc == PGR_OK) { /* of a file that was only read */
			ck_assert_str_eq(f.failed_call, "close");
			continue;
		}
		ck_assert_msg(rc == PGR_ERR, "%s", f.failed_call);
		ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
		ck_assert_int_eq(err.sys_errno, EIO);
		ck_assert_ptr_nonnull(strstr(err.msg, dir));
	}
	ck_assert_uint_gt(n, 6);
}
END_TEST

/* A file that goes away between readdir and stat is no error. */
START_TEST(vanishing)
{
	struct pgr_fault_sys f;
	struct pgr_walscan s;
	struct pgr_err err;
	bool seen = false;

	make_seg(1, 3, "", SEG);
	for (unsigned n = 1; n < 20 && !seen; n++) {
		pgr_fault_sys_init(&f, n, ENOENT);
		if (pgr_walscan(&f.sys, dfd, dir, SEG, NULL, NULL, &s, &err) == PGR_OK && f.triggered &&
		    strcmp(f.failed_call, "fstatat") == 0) {
			ck_assert(!s.found);
			seen = true;
		}
	}
	ck_assert(seen);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("scan");
	TCase *tc = tcase_create("scan");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, nothing_there);
	tcase_add_test(tc, complete_means_next);
	tcase_add_test(tc, partial_means_itself);
	tcase_add_test(tc, only_a_partial);
	tcase_add_test(tc, complete_beats_partial);
	tcase_add_test(tc, highest);
	tcase_add_test(tc, gaps);
	tcase_add_test(tc, partial_in_between_is_a_gap);
	tcase_add_loop_test(tc, several_partials_at_the_end, 0, 3);
	tcase_add_test(tc, other_partials_at_the_end);
	tcase_add_test(tc, timeline_switch_is_no_gap);
	tcase_add_test(tc, more_gaps_than_room);
	tcase_add_test(tc, wrong_sizes);
	tcase_add_test(tc, all_wrong);
	tcase_add_test(tc, wrong_beside_right);
	tcase_add_test(tc, one_stat);
	tcase_add_test(tc, not_a_file);
	tcase_add_test(tc, compressed_count);
	tcase_add_loop_test(tc, foreign_partials, 0, 3);
	tcase_add_test(tc, duplicates);
	tcase_add_test(tc, left_behind_the_newest_compressed);
	tcase_add_test(tc, left_foreign);
	tcase_add_test(tc, left_ends_early);
	tcase_add_test(tc, end_of_the_world);
	tcase_add_test(tc, other_segment_sizes);
	tcase_add_test(tc, again_and_silent);
	tcase_add_test(tc, faults);
	tcase_add_test(tc, vanishing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
