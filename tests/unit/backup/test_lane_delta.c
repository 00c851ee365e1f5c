#include <check.h>
#include <errno.h>
#include <stdatomic.h>

#include "backup/delta_plan.h"
#include "backup/lane_work.h"
#include "common/pagesum.h"
#include "tests/support/lanestage.h"

#define KIB   1024u
#define MIB   (1024u * KIB)
#define CHUNK ((uint64_t)PGR_LANE_CHUNK)
#define ALL   64u /* entries of a test at most */

/* ---- a server's files, and what lies here of them ---- */

/* Which bytes of the copy here differ from the server's: one byte of these chunks. */
enum change { SAME, FIRST, LAST, SOME, EACH, ZEROS, OTHER_MODE };

/* `size` is what was listed; the file has `real` bytes now (-1: it is gone), and `here` in the copy (-1: there is none,
 * it is to be fetched). */
struct item {
	const char *path;
	uint64_t size;
	int64_t real, here;
	enum change change;
};

static const struct item all_kinds[] = {
	{"PG_VERSION", 3, 3, 3, SAME},
	{"it's a \\ name", 100, 100, 100, EACH},
	{"conf/small.conf", 1000, 1000, 700, SAME}, /* cut here */
	{"conf/one.conf", 200000, 200000, 200000, SAME},
	{"conf/two.conf", 200000, 200000, 200000, LAST},
	{"conf/three.conf", 200000, 200000, 250000, SAME},
	{"log/long.log", 2 * MIB + 7, 2 * MIB + 7, MIB + 11, SAME},
	{"base/5/100", 0, 0, 0, SAME},
	{"base/5/099", 0, 0, 0, OTHER_MODE},
	{"base/5/101", 0, 0, 8192, EACH},
	{"base/5/102", 8192, 8192, 0, SAME},
	{"base/5/103", 1, 1, 1, SAME},
	{"base/5/104", CHUNK, CHUNK, CHUNK, SAME},
	{"base/5/105", CHUNK, CHUNK, CHUNK, EACH},
	{"base/5/106", CHUNK + 8192, CHUNK + 8192, CHUNK, SAME},
	{"base/5/107", 40 * CHUNK, 40 * CHUNK, 40 * CHUNK, SOME},
	{"base/5/108", 40 * CHUNK + 8192, 40 * CHUNK + 8192, 40 * CHUNK + 8192, LAST},
	{"base/5/109", 40 * CHUNK, 40 * CHUNK, 17 * CHUNK + 4711, FIRST},
	{"base/5/110", 11 * CHUNK, 11 * CHUNK, 40 * CHUNK + 5, SOME},
	{"base/5/111", 700001, 700001, 700001, OTHER_MODE},
	{"base/5/112", 10 * MIB, 10 * MIB, 10 * MIB, SAME},
	{"base/5/113", 10 * MIB + 8192, 10 * MIB + 8192, 10 * MIB + 8192, SOME},
	{"base/5/114", 10 * MIB, 10 * MIB, 3 * MIB + 5, SOME},
	{"base/5/115", 9 * MIB, 9 * MIB, 12 * MIB, FIRST},
	{"base/5/116", 9 * MIB, 9 * MIB, 9 * MIB, ZEROS},
	{"base/5/117", 9 * MIB, 9 * MIB, 9 * MIB, EACH},
	{"base/5/120", CHUNK, -1, CHUNK, SAME}, /* vanished */
	{"base/5/121", 10 * MIB, -1, 10 * MIB, SAME},
	{"base/5/122", 3 * CHUNK, -1, 8192, SAME},
	{"base/5/130", 20 * CHUNK, 3 * CHUNK + 77, 20 * CHUNK, SAME}, /* truncated */
	{"base/5/131", 20 * CHUNK, 0, 20 * CHUNK, SAME},
	{"base/5/132", 10 * MIB, 3 * MIB + 8192, 10 * MIB, SAME},
	{"base/5/133", 20 * CHUNK, 3 * CHUNK, 5 * CHUNK, SOME},
	{"base/5/134", CHUNK, 9 * CHUNK, CHUNK, SAME}, /* grown */
	{"base/5/135", 3 * CHUNK + 100, 9 * CHUNK, 9 * CHUNK, SOME},
	{"base/5/140", 8192, 8192, -1, SAME}, /* not here */
	{"base/5/141", 9 * MIB, 9 * MIB, -1, SAME},
	{"base/5/142", 0, 0, -1, SAME},
	{"base/5/143", 10 * MIB, 5, -1, SAME},
	{"base/5/144", 8192, -1, -1, SAME},
	{"pg_tblspc/16400/PG_15_1/5/1", 400000, 400000, 400000, SOME},
	{"pg_tblspc/16401/PG_15_1/5/2", 400000, 400000, 400000, SOME},
};
#define NKINDS (sizeof(all_kinds) / sizeof(all_kinds[0]))

static struct pgr_delta_plan plan;
static struct pgr_delta_file actions[ALL];
static const struct item *items[ALL];
static struct stat before[ALL];
static bool doubted; /* what is the same may be fetched all the same */

/* Whether the chunk has a byte of its own here. */
static bool is_changed(const struct item *s, uint64_t chunk)
{
	switch (s->change) {
	case FIRST:
		return chunk == 0;
	case LAST:
		return chunk == ((uint64_t)s->here - 1) / CHUNK;
	case SOME:
		return chunk % 7 == 3;
	case EACH:
		return true;
	default:
		return false;
	}
}

static uint8_t local_byte(const struct item *s, uint64_t off)
{
	uint8_t b = byte_at(seed_of(s->path), off);

	if (s->change == ZEROS)
		return 0;
	return is_changed(s, off / CHUNK) && off % CHUNK == off / CHUNK % 100 ? (uint8_t)~b : b;
}

static void write_file(const char *name, const struct item *s, uint64_t size, bool local)
{
	uint8_t *data = malloc(size + 1);
	FILE *f = fopen(name, "w");

	ck_assert_msg(f != NULL, "%s", name);
	for (uint64_t i = 0; i < size; i++)
		data[i] = local ? local_byte(s, i) : byte_at(seed_of(s->path), i);
	ck_assert_uint_eq(fwrite(data, 1, size, f), size);
	ck_assert_int_eq(fclose(f), 0);
	free(data);
}

static void add(const struct item *s)
{
	char name[300];

	items[list.n] = s;
	entries[list.n].path = strdup(s->path);
	entries[list.n].size = s->size;
	actions[list.n] = (struct pgr_delta_file){.action = s->here < 0 ? PGR_DELTA_FETCH : PGR_DELTA_COMPARE,
						  .local_size = s->here < 0 ? 0 : (uint64_t)s->here};
	plan.n = ++list.n;
	make_dirs(src_dir, s->path);
	if (s->real < 0)
		return;
	snprintf(name, sizeof(name), "%s/%s", src_dir, s->path);
	write_file(name, s, (uint64_t)s->real, false);
}

static void add_all(void)
{
	for (size_t i = 0; i < NKINDS; i++)
		add(&all_kinds[i]);
}

/* Its time is one at which nothing is written. */
static void make_local(size_t i)
{
	const struct timespec long_ago[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	const struct item *s = items[i];
	char name[400];

	copy_name(s->path, name, sizeof(name));
	if (s->here < 0)
		return;
	if (s->change == ZEROS) {
		write_file(name, s, 0, true);
		ck_assert_int_eq(truncate(name, (off_t)s->here), 0);
	} else {
		write_file(name, s, (uint64_t)s->here, true);
	}
	ck_assert_int_eq(chmod(name, s->change == OTHER_MODE ? 0600 : 0640), 0);
	ck_assert_int_eq(utimensat(AT_FDCWD, name, long_ago, 0), 0);
	ck_assert_int_eq(stat(name, &before[i]), 0);
}

/* ---- a system on which nobody waits for another attempt ---- */

static int (*fault_poll)(const struct pgr_sys *, struct pollfd *, nfds_t, int);

static int quick_poll(const struct pgr_sys *sys, struct pollfd *fd, nfds_t n, int ms)
{
	return fault_poll(sys, fd, n, n == 1 && fd->fd == pgr_stop_fd(stop) ? 0 : ms);
}

/* Reads that come short now and then, as no page cache does it. */
static ssize_t (*fault_pread)(const struct pgr_sys *, int, void *, size_t, off_t);
static atomic_uint preads;

static ssize_t short_pread(const struct pgr_sys *sys, int fd, void *buf, size_t len, off_t off)
{
	return fault_pread(sys, fd, buf, atomic_fetch_add(&preads, 1) % 3 == 0 && len > 1000 ? 1000 : len, off);
}

static void init_sys(unsigned fail_at)
{
	pgr_fault_sys_init(&fault, fail_at, EIO);
	fault_poll = fault.sys.poll;
	fault.sys.poll = quick_poll;
}

static void setup(void)
{
	stage_begin(3);
	init_sys(0);
	doubted = false;
	plan = (struct pgr_delta_plan){.files = actions};
	opts.plan = &plan;
}

/* The layout with the list's directories, and what lies in them. */
static void make_layout(void)
{
	stage_layout();
	for (size_t i = 0; i < list.n; i++)
		make_local(i);
}

static void make_lanes(unsigned writers)
{
	if (layout == NULL)
		make_layout();
	if (!opts.compare_only)
		stage_sink(&fault.sys, writers);
	stage_lanes();
}

static int run(void)
{
	int rc = pgr_lanes_run(lanes, NULL, NULL, &err);

	if (rc == PGR_OK && !opts.compare_only)
		rc = pgr_dirsink_drain(sink, &err);
	return rc == PGR_OK && !opts.compare_only ? pgr_lanes_sum_rest(lanes, NULL, NULL, &err) : rc;
}

/* ---- looking at the result ---- */

/* Nobody wrote to it. */
static bool is_untouched(size_t i, const struct stat *st)
{
	return st->st_mtime == before[i].st_mtime && st->st_mtim.tv_nsec == before[i].st_mtim.tv_nsec;
}

static void check_file(size_t i)
{
	const struct item *s = items[i];
	struct pgr_lane_result r;
	char name[400];
	struct stat st;
	uint8_t *data;
	FILE *f;

	copy_name(s->path, name, sizeof(name));
	must(pgr_lanes_result(lanes, i, &r, &err));
	if (s->real < 0) {
		ck_assert_msg(!r.copied && stat(name, &st) != 0, "%s", name);
		return;
	}
	ck_assert_msg(stat(name, &st) == 0, "%s", name);
	ck_assert_uint_eq((uint64_t)st.st_size, s->size);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	if (s->here >= 0)
		ck_assert_msg(st.st_ino == before[i].st_ino, "%s was made anew", name);
	if (!doubted && (s->change == SAME || s->change == OTHER_MODE) && (uint64_t)s->here == s->size &&
	    s->real >= s->here)
		ck_assert_msg(is_untouched(i, &st), "%s was written to", name);
	data = malloc(s->size + 1);
	f = fopen(name, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(data, 1, s->size, f), s->size);
	fclose(f);
	ck_assert_msg(wrong_bytes(s->path, s->size, (uint64_t)s->real, data) == 0, "%s", s->path);
	stage_check_sum(i, data, s->size);
	free(data);
}

static void check_all(void)
{
	for (size_t i = 0; i < list.n; i++)
		check_file(i);
}

static void expect_failure(enum pgr_errclass cls, const char *words)
{
	ck_assert_int_eq(run(), PGR_ERR);
	ck_assert_msg(err.cls == cls, "class %d: %s", err.cls, err.msg);
	ck_assert_msg(strstr(err.msg, words) != NULL, "%s", err.msg);
	ck_assert(pgr_stop_is_set(stop));
}

static struct pgr_delta_figures figures(void)
{
	struct pgr_delta_figures g;

	pgr_lanes_figures(lanes, &g);
	return g;
}

/* ---- good runs ---- */

static const struct {
	unsigned jobs, writers;
	enum pgr_digest_algo digest;
	bool verify;
	int version;
} ways[] = {
	{1, 0, PGR_DIGEST_CRC32C, false, 150000},  {1, 2, PGR_DIGEST_SHA256, true, 150000},
	{3, 0, PGR_DIGEST_SHA512, false, 100023},  {3, 2, PGR_DIGEST_NONE, false, 150000},
	{8, 1, PGR_DIGEST_SHA256, false, 180000},  {8, 3, PGR_DIGEST_CRC32C, true, 100023},
	{64, 2, PGR_DIGEST_CRC32C, false, 150000},
};

#define NWAYS (sizeof(ways) / sizeof(ways[0]))

START_TEST(all_is_made_equal)
{
	struct pgr_delta_figures g;

	opts.jobs = ways[_i].jobs;
	opts.digest = ways[_i].digest;
	opts.verify_transfer = ways[_i].verify;
	server.version = ways[_i].version;
	add_all();
	make_lanes(ways[_i].writers);
	must(run());
	check_all();
	g = figures();
	ck_assert_uint_eq(g.fetched, server.payload);
	ck_assert_uint_ge(g.compared, g.same);
	ck_assert_uint_eq(g.files_gone, 3);
	ck_assert_uint_eq(g.files_new, 4);
	ck_assert_uint_eq(g.files_same + g.files_changed, NKINDS - 3 - 5);
}
END_TEST

/* What is no relation is as long as it is when it is fetched, not as it was listed: `end` bytes. */
static const struct {
	struct item s;
	uint64_t end;
} rewritten[] = {
	{{"shorter.conf", 1000, 300, 1000, SAME}, 300},
	{{"longer.conf", 1000, 5000, 1000, EACH}, 5000},
	{{"longer.here", 1000, 5000, 7000, FIRST}, 5000},
	{{"appended.conf", 1000, 5000, 1000, SAME}, 1000}, /* all that was listed is here */
	{{"emptied.conf", 1000, 0, 2000, EACH}, 0},
	{{"empty.here", 1000, 3000, 0, SAME}, 3000},
	{{"nothing.here", 100000, 200000, -1, SAME}, 200000},
	{{"as.here", 1000, 300, 300, SAME}, 300},
	{{"cut.here", 100000, 200000, 70000, SAME}, 200000},
	{{"base/5/16384", 16384, 8192, 16384, SAME}, 16384}, /* a relation */
};
#define NREWRITTEN (sizeof(rewritten) / sizeof(rewritten[0]))

START_TEST(rewritten_meanwhile)
{
	struct pgr_lane_result r;

	opts.jobs = ways[_i].jobs;
	opts.digest = ways[_i].digest;
	opts.verify_transfer = ways[_i].verify;
	server.version = ways[_i].version;
	for (size_t i = 0; i < NREWRITTEN; i++)
		add(&rewritten[i].s);
	make_lanes(ways[_i].writers);
	must(run());
	for (size_t i = 0; i < NREWRITTEN; i++) {
		char name[300];
		uint8_t *data;
		size_t len;

		must(pgr_lanes_result(lanes, i, &r, &err));
		snprintf(name, sizeof(name), "dst/%s", rewritten[i].s.path);
		data = (uint8_t *)tmp_read(&tree, name, &len);
		ck_assert_msg(r.copied && r.size == rewritten[i].end && len == r.size, "%s: %zu bytes", name, len);
		ck_assert_msg(wrong_bytes(rewritten[i].s.path, len, (uint64_t)rewritten[i].s.real, data) == 0, "%s",
			      name);
		stage_check_sum(i, data, len);
		free(data);
	}
}
END_TEST

static const struct item equal[] = {
	{"PG_VERSION", 3, 3, 3, SAME},
	{"base/5/100", 0, 0, 0, SAME},
	{"base/5/101", 10 * MIB + 77, 10 * MIB + 77, 10 * MIB + 77, SAME},
	{"base/5/102", 20 * MIB, 20 * MIB, 20 * MIB, SAME},
	{"base/5/103", 3 * CHUNK, 3 * CHUNK, 3 * CHUNK, SAME},
	{"x.conf", 300000, 300000, 300000, SAME},
};
#define NEQUAL (sizeof(equal) / sizeof(equal[0]))

/* Then nothing is opened for writing, and nothing comes but digests. */
START_TEST(nothing_differs)
{
	struct pgr_delta_figures g;
	uint64_t total = 0;

	opts.digest = _i == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	for (size_t i = 0; i < NEQUAL; i++) {
		add(&equal[i]);
		total += equal[i].size;
	}
	make_lanes(2);
	must(run());
	check_all();
	g = figures();
	ck_assert_uint_eq(server.payload, 0);
	ck_assert_uint_eq(pgr_dirsink_files(sink), 0);
	ck_assert_uint_eq(g.same, total);
	ck_assert_uint_eq(g.compared, total);
	ck_assert_uint_eq(g.fetched, 0);
	ck_assert_uint_eq(g.files_same, NEQUAL);
	ck_assert_uint_eq(g.files_changed, 0);
	ck_assert_uint_eq(pgr_lanes_bytes(lanes), total);
}
END_TEST

/* What differs is fetched, and neighbours of it are not. */
START_TEST(only_what_differs)
{
	static const struct item some = {"base/5/9", 70 * CHUNK, 70 * CHUNK, 70 * CHUNK, SOME};
	static const struct item conf = {"x.conf", 200000, 200000, 200000, LAST};
	static const struct item longer = {"base/5/8", 20 * CHUNK, 20 * CHUNK, 10 * CHUNK + 1, SAME};
	struct pgr_delta_figures g;

	add(&some);
	add(&conf);
	add(&longer);
	make_lanes(1);
	must(run());
	check_all();
	g = figures();
	ck_assert_uint_eq(g.fetched, 10 * CHUNK + 200000 + 10 * CHUNK);
	ck_assert_uint_eq(g.compared, 70 * CHUNK + 200000 + 10 * CHUNK);
	ck_assert_uint_eq(g.same, 60 * CHUNK + 10 * CHUNK);
	ck_assert_uint_eq(g.files_changed, 3);
	ck_assert_uint_eq(pgr_lanes_bytes(lanes), 70 * CHUNK + 200000 + 20 * CHUNK);
}
END_TEST

/* Neighbouring chunks are one row, and few requests fetch many of them. */
START_TEST(fetches_are_gathered)
{
	static const struct item each = {"base/5/9", 12 * CHUNK, 12 * CHUNK, 12 * CHUNK, EACH};
	static char paths[40][16];
	static struct item many[40];

	add(&each);
	for (size_t i = 0; i < 40; i++) {
		snprintf(paths[i], sizeof(paths[i]), "base/5/%zu", 100 + i);
		many[i] = (struct item){paths[i], 8 * CHUNK, 8 * CHUNK, 8 * CHUNK, SOME};
		add(&many[i]);
	}
	opts.jobs = 1;
	make_lanes(1);
	must(run());
	check_all();
	ck_assert_uint_eq(server.rows, (12 * CHUNK + PGR_LANE_ROW - 1) / PGR_LANE_ROW + 40);
	ck_assert_uint_eq(server.digests, 12 + 40 * 8);
	ck_assert_uint_le(server.queries, 20 + 12);
}
END_TEST

/* Of a file that stays nothing is asked for; its sum is that of what lies here. */
START_TEST(kept_files)
{
	static const struct item kept = {"postgresql.conf", 700, 700, 300, EACH};
	struct pgr_lane_result r;
	char *data;
	size_t len;

	opts.digest = _i == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA224;
	add(&kept);
	actions[0].action = PGR_DELTA_KEEP;
	add(&equal[2]);
	make_lanes(1);
	must(pgr_lanes_run(lanes, NULL, NULL, &err));
	must(pgr_dirsink_drain(sink, &err));
	ck_assert_int_eq(pgr_lanes_result(lanes, 0, &r, &err), PGR_ERR);
	must(pgr_lanes_sum_rest(lanes, NULL, NULL, &err));
	data = tmp_read(&tree, "dst/postgresql.conf", &len);
	ck_assert_uint_eq(len, 300);
	stage_check_sum(0, (const uint8_t *)data, len);
	free(data);
	check_file(1);
	ck_assert_uint_eq(pgr_lanes_bytes(lanes), 700 + equal[2].size);
}
END_TEST

/* A kept link leads where its owner wants; one that leads nowhere is no file of the copy. */
START_TEST(kept_link)
{
	static const struct item kept = {"postgresql.conf", 700, 700, -1, SAME};
	struct pgr_lane_result r;

	add(&kept);
	actions[0].action = PGR_DELTA_KEEP;
	make_layout();
	ck_assert_int_eq(symlink("../elsewhere", tmp_at(&tree, "dst/postgresql.conf")), 0);
	if (_i == 0)
		tmp_write(&tree, "elsewhere", "abc");
	make_lanes(1);
	must(run());
	if (_i == 0) {
		stage_check_sum(0, (const uint8_t *)"abc", 3);
		return;
	}
	must(pgr_lanes_result(lanes, 0, &r, &err));
	ck_assert(!r.copied);
}
END_TEST

/* ---- a server that goes on working ---- */

struct moment {
	const char *path;
	uint64_t off;
	int64_t cut; /* -1: removes it */
	unsigned left;
};

/* Cut or removed before the row at `off` is read for the first time. */
static void at_moment(void *arg, const char *path, uint64_t off, uint64_t len)
{
	struct moment *m = arg;
	char name[300];

	(void)len;
	if (m->left == 0 || strcmp(path, m->path) != 0 || off != m->off)
		return;
	m->left--;
	snprintf(name, sizeof(name), "%s/%s", src_dir, path);
	ck_assert_int_eq(m->cut < 0 ? unlink(name) : truncate(name, m->cut), 0);
}

/* What was compared before stays, what did not come is zeros. */
static const struct moment moments[] = {
	{"base/5/9", 0, 0, 1},
	{"base/5/9", 5 * CHUNK, 5 * CHUNK, 1},
	{"base/5/9", 5 * CHUNK, 5 * CHUNK + 100, 1},
	{"base/5/9", 5 * CHUNK, -1, 1},
	{"base/5/9", 19 * CHUNK, -1, 1},
};

START_TEST(cut_meanwhile)
{
	static const struct item full = {"base/5/9", 20 * CHUNK, 20 * CHUNK, 20 * CHUNK, SAME};
	struct moment m = moments[_i];
	struct item then = full;

	then.real = m.cut < 0 ? (int64_t)m.off : m.cut;
	opts.jobs = 1;
	add(&full);
	items[0] = &then;
	server.before_row = at_moment;
	server.arg = &m;
	make_lanes(2);
	must(run());
	ck_assert_uint_eq(m.left, 0);
	check_all();
	ck_assert_uint_eq(figures().files_gone, 0);
}
END_TEST

/* Gone before anything of it was seen: it goes here, too, whatever was written to it meanwhile. */
START_TEST(removed_meanwhile)
{
	static const struct item full = {"base/5/9", 20 * CHUNK, 20 * CHUNK, 20 * CHUNK, EACH};
	struct moment m = {"base/5/9", 0, -1, 1};
	struct item then = full;

	then.real = -1;
	add(&full);
	items[0] = &then;
	server.before_row = at_moment;
	server.arg = &m;
	make_lanes((unsigned)_i);
	must(run());
	check_all();
	ck_assert_uint_eq(figures().files_gone, 1);
}
END_TEST

/* A chunk may change between its digest and its content: what is fetched counts. */
static void grow_behind(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len)
{
	(void)path;
	(void)off;
	if (len == CHUNK && ++*(unsigned *)arg > 20)
		memset(data, 'n', len);
}

START_TEST(changed_meanwhile)
{
	static const struct item some = {"base/5/9", 20 * CHUNK, 20 * CHUNK, 20 * CHUNK, SOME};
	unsigned seen = 0;
	char *data;
	size_t len;

	opts.jobs = 1;
	add(&some);
	server.after_row = grow_behind;
	server.arg = &seen;
	make_lanes(1);
	must(run());
	data = tmp_read(&tree, "dst/base/5/9", &len);
	for (uint64_t i = 0; i < 20; i++)
		ck_assert_uint_eq((uint8_t)data[i * CHUNK + 5],
				  i % 7 == 3 ? 'n' : byte_at(seed_of("base/5/9"), i * CHUNK + 5));
	stage_check_sum(0, (const uint8_t *)data, len);
	free(data);
}
END_TEST

/* ---- lost connections ---- */

static const int64_t cuts[] = {3000000, 1234567, 700001, 400000};

#define NCUTS (sizeof(cuts) / sizeof(cuts[0]))

START_TEST(lost_again_and_again)
{
	opts.jobs = 1 + (unsigned)_i % 3;
	opts.verify_transfer = _i >= (int)NCUTS;
	opts.digest = _i % 2 == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	add_all();
	server.cut_after = cuts[_i % NCUTS];
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_ge(server.cuts, 5);
}
END_TEST

/* In the middle of the digests: none of them is lost or counted twice. */
START_TEST(lost_among_digests)
{
	opts.jobs = 1;
	for (size_t i = 0; i < NEQUAL; i++)
		add(&equal[i]);
	server.cut_after = 1000 + _i * 1111;
	make_lanes(1);
	must(run());
	check_all();
	ck_assert_uint_ge(server.cuts, 3);
	ck_assert_uint_eq(server.payload, 0);
}
END_TEST

/* ---- what no server should say ---- */

static const struct {
	enum fileserver_lie lie;
	const char *words;
} lies[] = {
	{FILESERVER_EXTRA_ROW, "more rows"}, {FILESERVER_LESS_ROWS, "fewer rows"}, {FILESERVER_TWO_COLUMNS, "column"},
	{FILESERVER_SHORT_SUM, "no digest"}, {FILESERVER_NO_SUM, "no digest"},
};

START_TEST(lying_server)
{
	add(&all_kinds[14]);
	server.lie = lies[_i].lie;
	make_lanes(1);
	expect_failure(PGR_E_PROTOCOL, lies[_i].words);
}
END_TEST

/* A digest that was damaged costs a fetch, nothing else. */
static void damage_digests(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len, uint8_t *sum)
{
	unsigned *n = arg;

	(void)path;
	(void)off;
	(void)len;
	if (data == NULL && ++*n % 5 == 0)
		sum[*n % 16] ^= 4;
}

START_TEST(damaged_digests)
{
	unsigned n = 0;

	doubted = true;
	opts.verify_transfer = _i == 1;
	add_all();
	server.on_the_way = damage_digests;
	server.arg = &n;
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_eq(server.opened, opts.jobs);
}
END_TEST

/* The server hashes another place than was asked for, where it has what lies here: that is no proof. */
static unsigned misheard;

static void mishear_offset(void *arg, char *path, uint64_t *off)
{
	(void)arg;
	if (strcmp(path, "base/5/9") == 0 && *off == CHUNK && misheard++ == 0)
		*off = 0;
}

START_TEST(misheard_request)
{
	static const struct item file = {"base/5/9", 2 * CHUNK, 2 * CHUNK, 2 * CHUNK, SAME};
	uint8_t first[CHUNK];
	char name[400];
	int fd;

	misheard = 0;
	doubted = true;
	opts.jobs = 1;
	add(&file);
	server.mishear = mishear_offset;
	make_layout();
	for (uint64_t i = 0; i < CHUNK; i++)
		first[i] = byte_at(seed_of(file.path), i);
	fd = open(copy_name(file.path, name, sizeof(name)), O_WRONLY);
	ck_assert_int_eq(pwrite(fd, first, CHUNK, CHUNK), CHUNK);
	close(fd);
	make_lanes(1);
	must(run());
	check_all();
	ck_assert_uint_eq(misheard, 2);
}
END_TEST

/* ---- only looking ---- */

struct snapshot {
	struct stat st[ALL];
};

static void snap(struct snapshot *s)
{
	char name[400];

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < list.n; i++) {
		(void)stat(copy_name(entries[i].path, name, sizeof(name)), &s->st[i]);
		s->st[i].st_atim = (struct timespec){0};
	}
}

START_TEST(compare_only)
{
	static struct snapshot was, is;
	struct pgr_delta_figures would, did;

	for (size_t i = 0; i < NKINDS; i++)
		if (all_kinds[i].real >= (int64_t)all_kinds[i].size)
			add(&all_kinds[i]);
	opts.compare_only = true;
	make_lanes(0);
	snap(&was);
	must(run());
	would = figures();
	snap(&is);
	ck_assert_mem_eq(&was, &is, sizeof(was));
	ck_assert_uint_eq(server.payload, 0);
	pgr_lanes_free(lanes);

	opts.compare_only = false;
	make_lanes(2);
	must(run());
	did = figures();
	check_all();
	ck_assert_mem_eq(&would, &did, sizeof(did));
	ck_assert_uint_gt(did.files_changed, 10);
	ck_assert_uint_gt(did.files_same, 3);
}
END_TEST

START_TEST(impossible_options)
{
	add(&equal[0]);
	make_layout();
	plan.n = 2;
	opts.list = &list;
	opts.compare_only = true;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	opts.plan = NULL;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	plan.n = 1;
}
END_TEST

/* ---- pages ---- */

#define PAGE  8192u
#define START ((pgr_lsn)0x3000000)

static struct pgr_buf said;

static void note(void *arg, const char *text)
{
	struct pgr_err e;

	(void)arg;
	ck_assert_int_eq(pgr_buf_puts(&said, text, &e), PGR_OK);
}

static void write_page(const char *name, uint32_t block, bool good)
{
	const uint16_t lower = 24, upper = 512;
	uint64_t aligned[PAGE / 8];
	uint8_t *page = (uint8_t *)aligned;
	uint16_t sum;
	int fd;

	for (uint32_t i = 0; i < PAGE; i++)
		page[i] = i < 8 ? 0 : (uint8_t)(i * 3 + block);
	memcpy(page + 12, &lower, 2);
	memcpy(page + 14, &upper, 2);
	sum = (uint16_t)(pgr_page_checksum(page, PAGE, block) ^ (good ? 0 : 0xFF));
	memcpy(page + 8, &sum, 2);
	fd = open(name, O_WRONLY | O_CREAT, 0640);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)block * PAGE), PAGE);
	close(fd);
}

/* At this read a page is lost, until it is written again; 0: never. */
static unsigned page_lost_at, page_reads;

#define LOST_PAGE 7

static ssize_t losing_pread(const struct pgr_sys *sys, int fd, void *buf, size_t len, off_t off)
{
	off_t at = (off_t)LOST_PAGE * PAGE;

	if (off > at || off + (off_t)len <= at || page_lost_at == 0 || ++page_reads != page_lost_at)
		return fault_pread(sys, fd, buf, len, off);
	errno = EIO;
	return -1;
}

/* Pages that stay are looked at like those that are fetched: bad on both sides (7), only here (13), and on the server
 * at first (21), where it is good when it is read again.  One that is lost in between is fetched. */
START_TEST(page_checks)
{
	static const struct item file = {"base/5/16384", 32 * PAGE, 0, 0, SAME};
	struct pgr_client *client;
	char src[300], dst[400];
	uint64_t failures;
	size_t len, src_len;
	char *data, *want;

	said = (struct pgr_buf){0};
	opts.digest = _i != 1 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	opts.notice = note;
	fault_pread = fault.sys.pread;
	fault.sys.pread = losing_pread;
	page_reads = 0;
	page_lost_at = _i == 2 ? 2 : 0;
	must(pgr_pagecheck_new(&pages, PAGE, 131072, START, &err));
	add(&file);
	make_layout();
	snprintf(src, sizeof(src), "%s/%s", src_dir, file.path);
	copy_name(file.path, dst, sizeof(dst));
	for (uint32_t i = 0; i < 32; i++) {
		write_page(src, i, i != 7 && i != 21);
		write_page(dst, i, i != 7 && i != 21 && i != 13);
	}
	actions[0].local_size = file.size;
	make_lanes(2);
	must(pgr_lanes_run(lanes, NULL, NULL, &err));
	must(pgr_dirsink_drain(sink, &err));
	ck_assert_uint_eq(server.payload, _i == 2 ? 2 * CHUNK : CHUNK);
	ck_assert_uint_ge(page_reads, _i == 2 ? 2 : 0);
	write_page(src, 21, true);
	must(fileserver_open(&server, &client, &err));
	must(pgr_lanes_recheck(lanes, client, &failures, &err));
	pgr_client_free(client);
	must(pgr_lanes_sum_rest(lanes, NULL, NULL, &err));
	ck_assert_uint_eq(failures, 1);
	ck_assert_ptr_nonnull(strstr(pgr_buf_str(&said), "base/5/16384\", block 7"));
	data = tmp_read(&tree, "dst/base/5/16384", &len);
	want = tmp_read(&tree, "src/base/5/16384", &src_len);
	ck_assert_uint_eq(len, src_len);
	ck_assert_int_eq(memcmp(data, want, len), 0);
	stage_check_sum(0, (const uint8_t *)data, len);
	free(data);
	free(want);
	pgr_buf_fini(&said);
}
END_TEST

/* A part of the file that its disk has lost. */
static off_t lost_from;

static ssize_t lossy_pread(const struct pgr_sys *sys, int fd, void *buf, size_t len, off_t off)
{
	if (off + (off_t)len <= lost_from || off > lost_from)
		return fault_pread(sys, fd, buf, len, off);
	errno = EIO;
	return -1;
}

START_TEST(unreadable_here)
{
	static const struct item one = {"base/5/9", 4 * MIB, 4 * MIB, 4 * MIB, SAME};
	struct pgr_delta_figures g;

	add(&one);
	fault_pread = fault.sys.pread;
	fault.sys.pread = lossy_pread;
	lost_from = 2 * MIB + 4096;
	doubted = true;
	make_lanes(1);
	must(run());
	check_all();
	g = figures();
	ck_assert_uint_gt(g.fetched, 0);
	ck_assert_uint_le(g.fetched, MIB);
}
END_TEST

/* ---- failing ---- */

/* Whatever took the file's place since the plan was made is not written to. */
START_TEST(no_file_here)
{
	add(&equal[4]);
	make_layout();
	ck_assert_int_eq(unlink(tmp_at(&tree, "dst/base/5/103")), 0);
	if (_i == 1)
		ck_assert_int_eq(symlink("elsewhere", tmp_at(&tree, "dst/base/5/103")), 0);
	if (_i == 2)
		ck_assert_int_eq(mkfifo(tmp_at(&tree, "dst/base/5/103"), 0640), 0);
	make_lanes(1);
	expect_failure(_i == 2 ? PGR_E_DATA : PGR_E_SYSTEM, "dst/base/5/103");
}
END_TEST

static int failing_tick(void *arg, struct pgr_err *e)
{
	(void)arg;
	return pgr_err_set(e, PGR_E_NETWORK, "the coordinator is gone");
}

START_TEST(stopped_while_summing)
{
	opts.digest = PGR_DIGEST_SHA256;
	add(&equal[3]);
	make_lanes(1);
	must(pgr_lanes_run(lanes, NULL, NULL, &err));
	must(pgr_dirsink_drain(sink, &err));
	ck_assert_int_eq(pgr_lanes_sum_rest(lanes, failing_tick, NULL, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "the coordinator is gone");
}
END_TEST

/* Each system call fails once: everything ends, nothing leaks, the error says what. */
START_TEST(faults)
{
	static const struct item kinds[] = {
		{"PG_VERSION", 3, 3, 3, OTHER_MODE},
		{"base/5/104", 5 * CHUNK, 5 * CHUNK, 5 * CHUNK, SAME},
		{"base/5/105", 5 * CHUNK, 5 * CHUNK, 7 * CHUNK, SAME},
		{"base/5/106", 5 * CHUNK, 5 * CHUNK, 5 * CHUNK, SOME},
		{"base/5/107", 5 * CHUNK, -1, 5 * CHUNK, SAME},
		{"base/5/108", 5 * CHUNK, 5 * CHUNK, -1, SAME},
	};
	bool failed = true;

	opts.jobs = 1;
	opts.digest = _i == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		add(&kinds[i]);
	for (unsigned n = 1; failed && n < 10000; n++) {
		int rc;

		init_sys(n);
		make_lanes(0);
		rc = run();
		failed = fault.triggered;
		/* what cannot be read is fetched */
		doubted = failed && strcmp(fault.failed_call, "pread") == 0;
		if (rc == PGR_OK)
			check_all();
		else
			ck_assert_msg(failed && err.cls == PGR_E_SYSTEM && err.sys_errno == EIO, "%s: %s",
				      fault.failed_call, err.msg);
		stage_let_go();
		pgr_stop_free(stop);
		must(pgr_stop_new(&stop, &err));
		server.stop = stop;
		ck_assert_int_eq(nftw(dst_dir, tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
		ck_assert_int_eq(nftw(tmp_at(&tree, "ts"), tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	}
	ck_assert(!failed);
}
END_TEST

START_TEST(short_reads)
{
	add_all();
	fault_pread = fault.sys.pread;
	fault.sys.pread = short_pread;
	opts.digest = _i == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	make_lanes(2);
	must(run());
	check_all();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lane_delta");
	TCase *t = tcase_create("good");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, all_is_made_equal, 0, (int)NWAYS);
	tcase_add_loop_test(t, rewritten_meanwhile, 0, (int)NWAYS);
	tcase_add_loop_test(t, nothing_differs, 0, 2);
	tcase_add_test(t, only_what_differs);
	tcase_add_test(t, fetches_are_gathered);
	tcase_add_loop_test(t, kept_files, 0, 2);
	tcase_add_loop_test(t, kept_link, 0, 2);
	tcase_add_test(t, compare_only);
	tcase_add_test(t, impossible_options);
	tcase_add_loop_test(t, page_checks, 0, 3);
	suite_add_tcase(s, t);
	t = tcase_create("meanwhile");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, cut_meanwhile, 0, (int)(sizeof(moments) / sizeof(moments[0])));
	tcase_add_loop_test(t, removed_meanwhile, 0, 3);
	tcase_add_test(t, changed_meanwhile);
	suite_add_tcase(s, t);
	t = tcase_create("lost");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, lost_again_and_again, 0, 2 * (int)NCUTS);
	tcase_add_loop_test(t, lost_among_digests, 0, 8);
	tcase_add_loop_test(t, lying_server, 0, (int)(sizeof(lies) / sizeof(lies[0])));
	tcase_add_loop_test(t, damaged_digests, 0, 2);
	tcase_add_test(t, misheard_request);
	suite_add_tcase(s, t);
	t = tcase_create("failing");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, no_file_here, 0, 3);
	tcase_add_test(t, stopped_while_summing);
	tcase_add_loop_test(t, faults, 0, 2);
	tcase_add_loop_test(t, short_reads, 0, 2);
	tcase_add_test(t, unreadable_here);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
