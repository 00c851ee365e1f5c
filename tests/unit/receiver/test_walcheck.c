#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lz4frame.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "common/fs_tree.h"
#include "receiver/walcheck.h"
#include "tests/support/fault_sys.h"
#include "tests/support/walmaker.h"

#define SEG  PGR_WALSEG_MIN
#define PAGE 8192u
#define BASE ((pgr_lsn)5 * SEG)
#define S5   "000000010000000000000005"
#define S6   "000000010000000000000006"
#define S7   "000000010000000000000007"
#define S8   "000000010000000000000008"

static char dir[64];
static int dfd;
static char said[16384]; /* problems and notes */
static char ranges[4096];

static void setup(void)
{
	snprintf(dir, sizeof(dir), "%s/pgr-walcheck-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	dfd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dfd, 0);
}

static void teardown(void)
{
	struct pgr_err err;

	close(dfd);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), dir, true, &err), PGR_OK);
}

/* ---- files ---- */

static void put(const char *name, const void *data, size_t len)
{
	int fd = openat(dfd, name, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void put_text(const char *name, const char *text)
{
	put(name, text, strlen(text));
}

static void put_segment(const struct walmaker *w, size_t i, pgr_tli tli, const char *suffix)
{
	char name[64];

	pgr_walname_format(name, tli, w->base / SEG + i, SEG);
	strcat(name, suffix);
	put(name, w->bytes + i * SEG, SEG);
}

static void drop(const char *name)
{
	ck_assert_int_eq(unlinkat(dfd, name, 0), 0);
}

static void flip(const char *name, off_t off)
{
	int fd = openat(dfd, name, O_RDWR);
	uint8_t b;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &b, 1, off), 1);
	b ^= 0xFF;
	ck_assert_int_eq(pwrite(fd, &b, 1, off), 1);
	close(fd);
}

static void cut(const char *name, off_t len)
{
	int fd = openat(dfd, name, O_RDWR);

	ck_assert_int_eq(ftruncate(fd, len), 0);
	close(fd);
}

/* ---- checking ---- */

static void on_finding(void *arg, enum pgr_walsay kind, const char *line)
{
	char *to = kind == PGR_WALSAY_RANGE ? ranges : said;
	size_t n = strlen(to), cap = kind == PGR_WALSAY_RANGE ? sizeof(ranges) : sizeof(said);

	(void)arg;
	snprintf(to + n, cap - n, "%s%s\n", kind == PGR_WALSAY_NOTE ? "note: " : "", line);
}

static int check_with(const struct pgr_sys *sys, int threads, struct pgr_walcheck_result *r, struct pgr_err *err)
{
	struct pgr_walcheck_opts o = {
		.sys = sys,
		.dirfd = dfd,
		.dir = "archive",
		.threads = threads,
		.say = on_finding,
	};

	said[0] = ranges[0] = '\0';
	return pgr_walcheck(&o, r, err);
}

/* Inline and with threads: the same, in the same order. */
static struct pgr_walcheck_result check_all(void)
{
	struct pgr_walcheck_result a, b;
	struct pgr_err err;
	char before[sizeof(said)];

	ck_assert_msg(check_with(pgr_sys_real(), 0, &a, &err) == PGR_OK, "%s", err.msg);
	memcpy(before, said, sizeof(said));
	ck_assert_msg(check_with(pgr_sys_real(), 3, &b, &err) == PGR_OK, "%s", err.msg);
	ck_assert_str_eq(said, before);
	ck_assert_uint_eq(a.problems, b.problems);
	ck_assert_uint_eq(a.end, b.end);
	ck_assert_uint_eq(a.bytes, b.bytes);
	return a;
}

static void finds(const char *want, unsigned problems)
{
	struct pgr_walcheck_result r = check_all();

	ck_assert_str_eq(said, want);
	ck_assert_uint_eq(r.problems, problems);
}

/* Segments 5, 6 (ended by a switch), 7, and the beginning of 8. */
static void make(struct walmaker *w)
{
	wm_init(w, BASE, 4, SEG, PAGE);
	wm_fill(w, BASE + SEG + SEG / 2);
	wm_switch(w);
	wm_fill(w, BASE + 3 * SEG + 100000);
}

static void make_archive(struct walmaker *w)
{
	make(w);
	for (size_t i = 0; i < 3; i++)
		put_segment(w, i, 1, "");
	put_segment(w, 3, 1, ".partial");
}

START_TEST(good)
{
	struct walmaker w;
	struct pgr_walcheck_result r;
	char range[80];

	make_archive(&w);
	put_text("README", "x");
	put_text(S5 ".00000028.backup", "x");
	ck_assert_int_eq(mkdirat(dfd, "archive_status", 0700), 0);
	r = check_all();
	ck_assert_str_eq(said, "");
	ck_assert_uint_eq(r.segments, 3);
	ck_assert_uint_eq(r.partials, 1);
	ck_assert_uint_eq(r.timelines, 1);
	ck_assert_uint_eq(r.bytes, 4 * SEG);
	ck_assert_uint_eq(r.begin, BASE);
	ck_assert_uint_eq(r.end, w.at);
	ck_assert_uint_eq(r.system_id, w.system_id);
	ck_assert_str_eq(r.version, "15");
	snprintf(range, sizeof(range), "timeline 1: 0/500000 to %" PGR_LSN_FMT "\n", PGR_LSN_ARG(w.at));
	ck_assert_str_eq(ranges, range);
	wm_free(&w);
}
END_TEST

START_TEST(nothing_there)
{
	struct pgr_walcheck_result r;
	struct pgr_err err;

	put_text("README", "x");
	put_text("00000002.history", "1\t0/5000000\tx\n");
	ck_assert_int_eq(check_with(pgr_sys_real(), 2, &r, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_str_eq(err.msg, "there is no WAL segment in \"archive\"");
}
END_TEST

/* A receiver that has just begun: one .partial of zeros. */
START_TEST(only_zeros)
{
	struct walmaker w;
	struct pgr_walcheck_result r;
	struct pgr_err err;

	wm_init(&w, BASE, 1, SEG, PAGE);
	put_segment(&w, 0, 1, ".partial");
	r = check_all();
	ck_assert_str_eq(said, "");
	ck_assert_ptr_null(r.version);
	ck_assert_uint_eq(r.end, BASE);
	cut(S5 ".partial", 0);
	ck_assert_int_eq(check_with(pgr_sys_real(), 0, &r, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	wm_free(&w);
}
END_TEST

START_TEST(gaps)
{
	struct walmaker w;

	make_archive(&w);
	drop(S6);
	finds(S6 ": 0/600000: segment is missing\n", 1);
	drop(S7);
	finds(S6 ": 0/600000: 2 segments are missing, up to " S7 "\n", 1);
	ck_assert_ptr_nonnull(strstr(ranges, "timeline 1: 0/500000 to 0/600000\ntimeline 1: 0/800000 to "));
	drop(S5); /* then it begins later, which is no gap */
	finds("", 0);
	wm_free(&w);
}
END_TEST

START_TEST(damage)
{
	struct walmaker w;
	struct pgr_walcheck_result r;

	make_archive(&w);
	flip(S7, 500000);
	r = check_all();
	ck_assert_uint_eq(r.problems, 1);
	ck_assert_ptr_nonnull(strstr(said, S7 ": 0/77"));
	ck_assert_ptr_nonnull(strstr(said, "incorrect CRC"));
	flip(S7, 500000);
	flip(S6, SEG - 1);
	finds(S6 ": 0/6FFFFF: not zero behind a segment switch\n", 1);
	flip(S6, SEG - 1);
	flip(S6, 24);
	r = check_all();
	ck_assert_ptr_nonnull(strstr(said, S6 ": 0/600000: page is of the system "));
	wm_free(&w);
}
END_TEST

/* What crosses the end of a segment is checked as well, and named by the file where it begins. */
START_TEST(damage_over_the_end)
{
	struct walmaker w;
	struct pgr_walcheck_result r;

	make_archive(&w);
	flip(S6, PGR_WALPAGE_LONG + 3);
	r = check_all();
	ck_assert_uint_eq(r.problems, 1);
	ck_assert_ptr_nonnull(strstr(said, S5 ": 0/5F"));
	ck_assert_ptr_nonnull(strstr(said, "incorrect CRC"));
	ck_assert_ptr_nonnull(strstr(said, "goes on in " S6));
	wm_free(&w);
}
END_TEST

/* Segments that are good each on its own, but not of the same WAL. */
START_TEST(of_another_history)
{
	struct walmaker w, other;
	struct pgr_walcheck_result r;

	make_archive(&w);
	wm_init(&other, BASE, 4, SEG, PAGE);
	other.dice = 77;
	wm_record(&other, 50);
	wm_fill(&other, BASE + 4 * SEG);
	put_segment(&other, 2, 1, "");
	r = check_all();
	ck_assert_uint_ge(r.problems, 2); /* at both ends */
	ck_assert_ptr_nonnull(strstr(said, S7 ": 0/700000: begins with the rest of a record"));
	wm_free(&w);
	wm_free(&other);
}
END_TEST

START_TEST(sizes)
{
	struct walmaker w;
	struct pgr_walcheck_result r;

	make_archive(&w);
	cut(S6, SEG / 2);
	r = check_all();
	ck_assert_ptr_nonnull(strstr(said, S6 ": has 524288 bytes instead of 1048576\n"));
	ck_assert_ptr_nonnull(strstr(said, S6 ": 0/6"));
	put_segment(&w, 1, 1, "");
	cut(S7, SEG + 1);
	finds(S7 ": is longer than a segment\n", 1);
	cut(S7, 0);
	r = check_all();
	ck_assert_uint_ge(r.problems, 2);
	ck_assert_ptr_nonnull(strstr(said, S7 ": has 0 bytes instead of 1048576\n"));
	wm_free(&w);
}
END_TEST

START_TEST(ends)
{
	struct walmaker w;
	char want[160];

	/* a .partial in front of more WAL */
	make_archive(&w);
	put_segment(&w, 2, 1, ".partial");
	drop(S7);
	finds(S7 ".partial: 0/700000: is complete and has no final name, but the WAL goes on in the next segment\n", 1);
	put_segment(&w, 2, 1, "");
	finds("note: " S7 ".partial: the same segment is there under another name too\n", 0);
	drop(S7 ".partial");
	/* the newest one with its final name, as in a base backup */
	put_segment(&w, 3, 1, "");
	drop(S8 ".partial");
	snprintf(want, sizeof(want), "note: " S8 ": %" PGR_LSN_FMT ": WAL ends here, without a segment switch\n",
		 PGR_LSN_ARG(w.at));
	finds(want, 0);
	/* WAL that ends in front of more */
	memset(w.bytes + 2 * SEG + 40000, 0, SEG - 40000);
	put_segment(&w, 2, 1, "");
	check_all();
	ck_assert_ptr_nonnull(strstr(said, S7 ": 0/70"));
	/* torn, with its final name */
	put_segment(&w, 0, 1, "");
	memset(w.bytes + 2 * SEG + 39999, 0, SEG - 39999);
	drop(S8);
	put_segment(&w, 2, 1, "");
	ck_assert_uint_eq(check_all().problems, 1);
	wm_free(&w);
}
END_TEST

/* A receiver that was killed after it had prepared the segment that comes next. */
START_TEST(prepared_ahead)
{
	struct walmaker w;
	struct pgr_walcheck_result r;

	wm_init(&w, BASE, 5, SEG, PAGE);
	wm_fill(&w, BASE + 3 * SEG + 100000);
	for (size_t i = 0; i < 5; i++)
		put_segment(&w, i, 1, i < 3 ? "" : ".partial");
	r = check_all();
	ck_assert_str_eq(said, "");
	ck_assert_uint_eq(r.end, w.at);
	/* torn in front of it */
	cut(S8 ".partial", 99999);
	finds("", 0);
	/* but not two of them, and not with anything in it */
	put("000000010000000000000009.partial", w.bytes, SEG);
	check_all();
	ck_assert_msg(strstr(said, S8 ".partial: 0/800000: is not complete, but") != NULL, "%s", said);
	wm_free(&w);
}
END_TEST

START_TEST(leftovers_and_strangers)
{
	struct walmaker w;

	make_archive(&w);
	put_text("00000002.history.tmp", "1");
	finds("note: 00000002.history.tmp: leftover of an interrupted program\n", 0);
	drop("00000002.history.tmp");
	put_text(S5 ".gz.new\n\033[1m", "1");
	finds("note: " S5 ".gz.new??[1m: leftover of an interrupted program\n", 0);
	drop(S5 ".gz.new\n\033[1m");
	put_text("000000010000000000001000", "1");
	finds("000000010000000000001000: there is no such segment of 1048576 bytes\n", 1);
	drop("000000010000000000001000");
	ck_assert_int_eq(symlinkat(S5, dfd, S5 ".gz"), 0);
	check_all();
	ck_assert_ptr_nonnull(strstr(said, S5 ".gz: could not open file"));
	ck_assert_int_eq(unlinkat(dfd, S5 ".gz", 0), 0);
	ck_assert_int_eq(mkfifoat(dfd, S5 ".zst", 0600), 0);
	check_all();
	ck_assert_ptr_nonnull(strstr(said, S5 ".zst: not a regular file\n"));
	wm_free(&w);
}
END_TEST

/* ---- compressed ---- */

static size_t squeeze(enum pgr_compression method, const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
	size_t n;
	z_stream z = {0};

	switch (method) {
	case PGR_COMP_LZ4:
		n = LZ4F_compressFrame(out, cap, in, len, NULL);
		ck_assert(!LZ4F_isError(n));
		return n;
	case PGR_COMP_ZSTD:
		n = ZSTD_compress(out, cap, in, len, 1);
		ck_assert(!ZSTD_isError(n));
		return n;
	default:
		ck_assert_int_eq(deflateInit2(&z, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
		z.next_in = (Bytef *)(uintptr_t)in;
		z.avail_in = (uInt)len;
		z.next_out = out;
		z.avail_out = (uInt)cap;
		ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
		n = z.total_out;
		deflateEnd(&z);
		return n;
	}
}

static void compressed(int i)
{
	static const char *const suffixes[] = {"", ".gz", ".lz4", ".zst"};
	char name[64], want[160];
	uint8_t *out = malloc(3 * SEG);
	struct walmaker w;
	size_t n;

	ck_assert_ptr_nonnull(out);
	make_archive(&w);
	snprintf(name, sizeof(name), S6 "%s", suffixes[i]);
	n = squeeze((enum pgr_compression)i, w.bytes + SEG, SEG, out, 3 * SEG);
	drop(S6);
	put(name, out, n);
	finds("", 0);
	/* in two frames */
	n = squeeze((enum pgr_compression)i, w.bytes + SEG, SEG / 3, out, 3 * SEG);
	n += squeeze((enum pgr_compression)i, w.bytes + SEG + SEG / 3, SEG - SEG / 3, out + n, 3 * SEG - n);
	put(name, out, n);
	finds("", 0);
	/* garbage behind it */
	memset(out + n, 'x', 10);
	put(name, out, n + 10);
	check_all();
	ck_assert_msg(strncmp(said, name, strlen(name)) == 0 && strstr(said, "could not decompress") != NULL, "%s",
		      said);
	/* cut off */
	put(name, out, n - 1);
	check_all();
	ck_assert_msg(strncmp(said, name, strlen(name)) == 0, "%s", said);
	put(name, out, n / 3);
	check_all();
	ck_assert_msg(strstr(said, ", the compressed stream is cut off\n") != NULL, "%s", said);
	/* longer than a segment */
	n = squeeze((enum pgr_compression)i, w.bytes + SEG, SEG + 1, out, 3 * SEG);
	put(name, out, n);
	snprintf(want, sizeof(want), "%s: is longer than a segment\n", name);
	finds(want, 1);
	/* a cut .partial is what a killed receiver leaves */
	drop(S7);
	drop(S8 ".partial");
	n = squeeze((enum pgr_compression)i, w.bytes + SEG, SEG, out, 3 * SEG);
	drop(name);
	strcat(name, ".partial");
	put(name, out, n / 2);
	finds("", 0);
	wm_free(&w);
	free(out);
}

START_TEST(compressed_segments)
{
	compressed(_i);
}
END_TEST

/* ---- timelines ---- */

/* Timeline 2 leaves 1 in segment 7; all files of both. */
static void make_timelines(struct walmaker *w, pgr_lsn *at)
{
	char text[64];

	wm_init(w, BASE, 5, SEG, PAGE);
	wm_fill(w, BASE + 2 * SEG + 300000);
	put_segment(w, 0, 1, "");
	put_segment(w, 1, 1, "");
	put_segment(w, 2, 1, ".partial");
	*at = w->at;
	w->tli = 2;
	wm_fill(w, BASE + 4 * SEG + 1000);
	put_segment(w, 2, 2, "");
	put_segment(w, 3, 2, "");
	put_segment(w, 4, 2, ".partial");
	snprintf(text, sizeof(text), "1\t%" PGR_LSN_FMT "\tno recovery target specified\n", PGR_LSN_ARG(*at));
	put_text("00000002.history", text);
}

#define T7 "000000020000000000000007"
#define T8 "000000020000000000000008"

START_TEST(timelines)
{
	struct walmaker w;
	pgr_lsn at;
	char want[200];
	struct pgr_walcheck_result r;

	make_timelines(&w, &at);
	finds("", 0);
	drop(S7 ".partial"); /* its content is in the new timeline's */
	finds("", 0);
	drop(S6);
	finds(S6 ": 0/600000: segment is missing\n", 1);
	put_segment(&w, 1, 1, "");
	drop(T7);
	finds(T7 ": 0/700000: segment is missing\n", 1);
	/* of the old timeline, after the new one began */
	put_segment(&w, 2, 2, "");
	put_segment(&w, 3, 1, ".partial");
	r = check_all();
	snprintf(want, sizeof(want), "note: timeline 1 goes on to ");
	ck_assert_msg(strstr(said, want) != NULL, "%s", said);
	ck_assert_uint_eq(r.timelines, 2);
	wm_free(&w);
}
END_TEST

START_TEST(histories)
{
	struct walmaker w;
	pgr_lsn at;

	make_timelines(&w, &at);
	drop("00000002.history");
	finds("00000002.history: history file is missing\n", 1);
	put_text("00000002.history", "nonsense\n");
	finds("00000002.history: invalid history file of timeline 2, line 1: expected a timeline ID\n", 1);
	put_text("00000002.history", "");
	finds("00000002.history: no timeline is named that it began from\n", 1);
	/* another point: pages and segments disagree */
	put_text("00000002.history", "1\t0/900000\tx\n");
	check_all();
	ck_assert_msg(strstr(said, T7 ": 0/700000: segment of timeline 2, which began later, at 0/900000\n") != NULL,
		      "%s", said);
	put_text("00000002.history", "1\t0/600100\tx\n");
	check_all();
	ck_assert_msg(strstr(said, "page is of timeline 1 instead of 2") != NULL, "%s", said);
	wm_free(&w);
}
END_TEST

START_TEST(contradicting_histories)
{
	struct walmaker w;
	pgr_lsn at;
	char text[128];

	make_timelines(&w, &at);
	put_segment(&w, 4, 3, ".partial");
	snprintf(text, sizeof(text), "1\t%" PGR_LSN_FMT "\tx\n2\t0/900010\ty\n", PGR_LSN_ARG(at));
	put_text("00000003.history", text);
	check_all();
	ck_assert_msg(strstr(said, "contradicts") == NULL, "%s", said);
	put_text("00000003.history", "1\t0/700000\tx\n2\t0/900010\ty\n");
	check_all();
	ck_assert_msg(strstr(said, "00000003.history: contradicts 00000002.history\n") != NULL, "%s", said);
	wm_free(&w);
}
END_TEST

/* The old timeline's server wrote more, and other things, before anybody noticed. */
START_TEST(split_brain)
{
	struct walmaker w, other;
	pgr_lsn at;

	make_timelines(&w, &at);
	wm_init(&other, BASE, 5, SEG, PAGE);
	wm_fill(&other, BASE + 2 * SEG + 200000);
	wm_record(&other, 1000);
	other.dice = 99;
	wm_fill(&other, BASE + 2 * SEG + 500000);
	put_segment(&other, 2, 1, ".partial");
	check_all();
	ck_assert_msg(strstr(said, "differs from " S7 ".partial before its timeline began") != NULL, "%s", said);
	wm_free(&w);
	wm_free(&other);
}
END_TEST

START_TEST(branch_at_a_boundary)
{
	struct walmaker w;

	wm_init(&w, BASE, 4, SEG, PAGE);
	wm_fill(&w, BASE + SEG + SEG / 2);
	wm_switch(&w);
	put_segment(&w, 0, 1, "");
	put_segment(&w, 1, 1, "");
	w.tli = 2;
	wm_fill(&w, BASE + 3 * SEG + 5000);
	put_segment(&w, 2, 2, "");
	put_segment(&w, 3, 2, ".partial");
	put_text("00000002.history", "1\t0/700000\tx\n");
	finds("", 0);
	drop(S6);
	finds(S6 ": 0/600000: segment is missing\n", 1);
	wm_free(&w);
}
END_TEST

/* ---- the system ---- */

/* Whatever fails, it is told with its name, and nothing leaks. */
START_TEST(every_call_fails_once)
{
	struct walmaker w;
	pgr_lsn at;
	bool triggered = true;

	make_timelines(&w, &at);
	for (unsigned n = 1; triggered; n++) {
		struct pgr_fault_sys f;
		struct pgr_walcheck_result r;
		struct pgr_err err;
		int rc;

		pgr_fault_sys_init(&f, n, EIO);
		rc = check_with(&f.sys, 0, &r, &err);
		triggered = f.triggered;
		if (rc != PGR_OK)
			ck_assert_msg(err.cls == PGR_E_SYSTEM && strstr(err.msg, "archive") != NULL, "%s", err.msg);
		else if (triggered && strcmp(f.failed_call, "close") != 0 && r.problems == 0)
			ck_assert_msg(n < 60, "call %u, %s", n, f.failed_call); /* one of the samples */
		ck_assert_uint_eq(atomic_load(&f.opens), atomic_load(&f.closes));
		ck_assert_uint_lt(n, 10000);
	}
	wm_free(&w);
}
END_TEST

START_TEST(many_segments)
{
	struct walmaker w;

	wm_init(&w, BASE, 80, SEG, PAGE);
	wm_fill(&w, BASE + 80 * SEG);
	for (size_t i = 0; i < 80; i++)
		put_segment(&w, i, 1, "");
	finds("", 0);
	wm_free(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("walcheck");
	TCase *tc = tcase_create("walcheck");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, good);
	tcase_add_test(tc, nothing_there);
	tcase_add_test(tc, only_zeros);
	tcase_add_test(tc, gaps);
	tcase_add_test(tc, damage);
	tcase_add_test(tc, damage_over_the_end);
	tcase_add_test(tc, of_another_history);
	tcase_add_test(tc, sizes);
	tcase_add_test(tc, ends);
	tcase_add_test(tc, prepared_ahead);
	tcase_add_test(tc, leftovers_and_strangers);
	tcase_add_loop_test(tc, compressed_segments, PGR_COMP_GZIP, PGR_COMP_ZSTD + 1);
	tcase_add_test(tc, timelines);
	tcase_add_test(tc, histories);
	tcase_add_test(tc, contradicting_histories);
	tcase_add_test(tc, split_brain);
	tcase_add_test(tc, branch_at_a_boundary);
	tcase_add_test(tc, every_call_fails_once);
	tcase_add_test(tc, many_segments);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
