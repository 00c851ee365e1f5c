#include <check.h>
#include <errno.h>
#include <stdatomic.h>

#include "backup/exclude.h"
#include "backup/lane_sessions.h"
#include "tests/support/lanestage.h"

#define KIB 1024u
#define MIB (1024u * KIB)

/* ---- a server's files, and where they go ---- */

/* `size` is what was listed; the file has `real` bytes now (-1: it is gone). */
struct source {
	const char *path;
	uint64_t size;
	int64_t real;
};

static const struct source all_kinds[] = {
	{"PG_VERSION", 3, 3},
	{"it's a \\ name", 100, 100},
	{"postgresql.conf", 200000, 200000}, /* not a relation: in one row */
	{"base/5/100", 0, 0},
	{"base/5/101", 1, 1},
	{"base/5/102", 8192, 8192},
	{"base/5/103", 131071, 131071},
	{"base/5/104", 131072, 131072},
	{"base/5/105", 131073, 131073},
	{"base/5/106", 3 * 131072, 3 * 131072},
	{"base/5/107", 700001, 700001},
	{"base/5/108", 8 * MIB + 5, 8 * MIB + 5}, /* in ranges */
	{"base/5/109", 10 * MIB, 10 * MIB},
	{"base/5/110", 8192, -1}, /* vanished */
	{"base/5/111", 0, -1},
	{"base/5/112", 10 * MIB, -1},
	{"base/5/113", 500000, 131072 + 77}, /* truncated */
	{"base/5/114", 300000, 0},
	{"base/5/115", 10 * MIB, 3 * MIB + 8192},
	{"base/5/116", 1000, 200000}, /* grown */
	{"base/5/117", 0, 50},
	{"base/5/118", 8 * MIB + 8192, 9 * MIB},
	{"base/5/119", 9 * MIB, 0},
	{"pg_ident.conf", 5000, 100}, /* another one has taken its place: that is no relation, and comes as it is */
	{"pg_hba.conf", 100, 200000},
	{"pg_xact/0000", 8192, 0},
	{"log", BLOCK - 1, BLOCK + 1}, /* more than comes in a row */
	{"large", BLOCK + 4096, 77},
	{"global/1262", 8192, 8192},
	{"pg_tblspc/16400/PG_15_1/5/1", 400000, 400000},
	{"pg_tblspc/16401/PG_15_1/5/2", 400000, 400000}, /* in place */
};
#define NKINDS (sizeof(all_kinds) / sizeof(all_kinds[0]))

static const struct source *sources[64];
static atomic_uint infos, files_begun, refused, attempts;
static unsigned refuse_from; /* opening session number so-and-so (from 1) fails; 0: never */
static const char *refuse_state;
static unsigned elsewhere_from; /* opening session number so-and-so leads to another server; 0: none */

#define OTHER_ID "7000000000000000001 2026-01-01 00:00:00.000002"

static void add(const struct source *s)
{
	unsigned seed = seed_of(s->path);
	char name[300];
	uint8_t buf[8192];
	FILE *f;

	sources[list.n] = s;
	entries[list.n].path = strdup(s->path);
	entries[list.n].size = s->size;
	list.n++;
	make_dirs(src_dir, s->path);
	if (s->real < 0)
		return;
	snprintf(name, sizeof(name), "%s/%s", src_dir, s->path);
	f = fopen(name, "w");
	ck_assert_ptr_nonnull(f);
	for (uint64_t i = 0; i < (uint64_t)s->real; i += sizeof(buf)) {
		size_t n = (uint64_t)s->real - i < sizeof(buf) ? (size_t)((uint64_t)s->real - i) : sizeof(buf);

		for (size_t k = 0; k < n; k++)
			buf[k] = byte_at(seed, i + k);
		ck_assert_uint_eq(fwrite(buf, 1, n, f), n);
	}
	ck_assert_int_eq(fclose(f), 0);
}

static void add_all(void)
{
	for (size_t i = 0; i < NKINDS; i++)
		add(&all_kinds[i]);
}

/* What there should be of it here. */
static uint64_t copied_size(const struct source *s)
{
	struct pgr_relfile ignored;
	bool whole = s->size > 0 && s->size <= BLOCK && !pgr_relfile_parse(s->path, &ignored);

	if (!whole)
		return s->size;
	return (uint64_t)s->real < BLOCK ? (uint64_t)s->real : BLOCK;
}

static void count_info(void *arg, const char *line)
{
	(void)arg;
	(void)line;
	atomic_fetch_add(&infos, 1);
}

static void count_file(void *arg, const char *path)
{
	(void)arg;
	(void)path;
	atomic_fetch_add(&files_begun, 1);
}

static int open_session(void *arg, struct pgr_client **out, struct pgr_err *e)
{
	unsigned n = atomic_fetch_add(&attempts, 1) + 1;

	(void)arg;
	*out = NULL;
	if (elsewhere_from != 0 && n >= elsewhere_from)
		server.id = OTHER_ID;
	if (refuse_from == 0 || n < refuse_from)
		return fileserver_open(&server, out, e);
	atomic_fetch_add(&refused, 1);
	if (refuse_state == NULL)
		return pgr_err_set(e, PGR_E_CONNECT, "connection refused");
	pgr_err_set(e, PGR_E_SERVER, "FATAL:  refused");
	strcpy(e->sqlstate, refuse_state);
	e->fatal = true;
	return PGR_ERR;
}

/* ---- a system on which nobody waits for the sake of waiting ---- */

static _Atomic int64_t skipped_ms;
static int (*fault_poll)(const struct pgr_sys *, struct pollfd *, nfds_t, int);

static int64_t quick_mono_ms(const struct pgr_sys *sys)
{
	(void)sys;
	return pgr_sys_real()->mono_ms(pgr_sys_real()) + atomic_load(&skipped_ms);
}

/* A pause that only a stop can end (before another attempt, for the rate) is over at once. */
static int quick_poll(const struct pgr_sys *sys, struct pollfd *fd, nfds_t n, int ms)
{
	if (n != 1 || fd->fd != pgr_stop_fd(stop))
		return fault_poll(sys, fd, n, ms);
	atomic_fetch_add(&skipped_ms, ms);
	return fault_poll(sys, fd, n, 0);
}

static void init_sys(unsigned fail_at)
{
	pgr_fault_sys_init(&fault, fail_at, EIO);
	fault_poll = fault.sys.poll;
	fault.sys.poll = quick_poll;
	fault.sys.mono_ms = quick_mono_ms;
}

static void real_time(void)
{
	fault.sys.poll = fault_poll;
	fault.sys.mono_ms = pgr_sys_real()->mono_ms;
}

static void setup(void)
{
	stage_begin(3);
	init_sys(0);
	refuse_from = 0;
	refuse_state = NULL;
	elsewhere_from = 0;
	infos = files_begun = refused = attempts = 0;
}

static void make_lanes(unsigned writers)
{
	stage_layout();
	stage_sink(&fault.sys, writers);
	opts.info = count_info;
	opts.on_file = count_file;
	opts.open_session = open_session;
	stage_lanes();
}

static int run(void)
{
	int rc = pgr_lanes_run(lanes, NULL, NULL, &err);

	return rc == PGR_OK ? pgr_dirsink_drain(sink, &err) : rc;
}

/* ---- looking at the result ---- */

static void check_file(size_t i)
{
	const struct source *s = sources[i];
	uint64_t size = copied_size(s);
	struct pgr_lane_result r;
	char name[400];
	struct stat st;
	uint8_t *data;
	FILE *f;

	must(pgr_lanes_result(lanes, i, &r, &err));
	copy_name(s->path, name, sizeof(name));
	if (s->real < 0) {
		ck_assert(!r.copied);
		ck_assert_msg(stat(name, &st) != 0, "%s", name);
		return;
	}
	ck_assert_msg(stat(name, &st) == 0, "%s", name);
	ck_assert_msg((uint64_t)st.st_size == size, "%s", name);
	ck_assert_uint_eq(r.size, size);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	data = malloc(size + 1);
	f = fopen(name, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(data, 1, size, f), size);
	fclose(f);
	ck_assert_msg(wrong_bytes(s->path, size, (uint64_t)s->real, data) == 0, "%s", s->path);
	stage_check_sum(i, data, size);
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

/* ---- good runs ---- */

static const struct {
	unsigned jobs, writers;
	enum pgr_digest_algo digest;
} ways[] = {
	{1, 0, PGR_DIGEST_CRC32C}, {1, 2, PGR_DIGEST_SHA256}, {3, 0, PGR_DIGEST_SHA512},  {3, 2, PGR_DIGEST_NONE},
	{8, 1, PGR_DIGEST_SHA256}, {8, 3, PGR_DIGEST_CRC32C}, {64, 2, PGR_DIGEST_CRC32C},
};

#define NWAYS (sizeof(ways) / sizeof(ways[0]))

START_TEST(copies_everything)
{
	uint64_t received = 0;

	opts.jobs = ways[_i % NWAYS].jobs;
	opts.digest = ways[_i % NWAYS].digest;
	opts.verify_transfer = _i >= (int)NWAYS;
	server.version = _i % 2 == 0 ? 100023 : 150000; /* MD5, SHA-256 */
	add_all();
	make_lanes(ways[_i % NWAYS].writers);
	must(run());
	check_all();
	ck_assert_uint_eq(server.sums, opts.verify_transfer ? server.rows : 0);
	for (size_t i = 0; i < NKINDS; i++)
		if (all_kinds[i].real > 0)
			received += (uint64_t)all_kinds[i].real < copied_size(&all_kinds[i])
					    ? (uint64_t)all_kinds[i].real
					    : copied_size(&all_kinds[i]);
	ck_assert_uint_eq(pgr_lanes_bytes(lanes), received);
	ck_assert_uint_eq(files_begun, NKINDS - 3);
	ck_assert_uint_eq(pgr_dirsink_files(sink), NKINDS - 3);
	ck_assert_uint_eq(server.opened, ways[_i % NWAYS].jobs);
	ck_assert_uint_eq(infos, 0);
}
END_TEST

/* Data in small pieces, as a slow network brings it. */
START_TEST(in_small_pieces)
{
	add(&all_kinds[2]);
	add(&all_kinds[8]);
	add(&all_kinds[10]);
	server.chunk = _i == 0 ? 1000 : 7777;
	make_lanes(1);
	must(run());
	check_all();
}
END_TEST

START_TEST(nothing_to_copy)
{
	make_lanes(1);
	must(run());
	ck_assert_uint_eq(pgr_lanes_bytes(lanes), 0);
}
END_TEST

/* A relation comes in rows of 128 KiB, a configuration file in one. */
static void note_rows(void *arg, const char *path, uint64_t off, uint64_t len)
{
	unsigned *seen = arg;

	(void)off;
	if (strcmp(path, "postgresql.conf") == 0) {
		ck_assert_uint_eq(len, BLOCK);
		seen[0]++;
	} else if (strcmp(path, "base/5/107") == 0) {
		ck_assert_uint_le(len, 131072);
		seen[1]++;
	}
}

START_TEST(rows_asked_for)
{
	unsigned seen[2] = {0};

	add_all();
	server.before_row = note_rows;
	server.arg = seen;
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_eq(seen[0], 1);
	ck_assert_uint_eq(seen[1], 6);
}
END_TEST

/* A file that goes while it is read was there: what did not come is zeros. */
static void remove_behind(void *arg, const char *path, uint64_t off, uint64_t len)
{
	char name[300];

	(void)len;
	snprintf(name, sizeof(name), "%s/%s", src_dir, path);
	if (strcmp(path, arg) == 0 && off >= 131072)
		unlink(name);
}

START_TEST(gone_meanwhile)
{
	static const struct source file = {"base/5/9", 600000, 131072};
	static char path[] = "base/5/9";
	static const struct source full = {"base/5/9", 600000, 600000};

	add(&full);
	sources[0] = &file;
	server.before_row = remove_behind;
	server.arg = path;
	make_lanes(1);
	must(run());
	check_all();
}
END_TEST

/* One that is cut and grows again while it is read: what belongs behind the gap comes behind the gap. */
static void cut_and_grow(void *arg, const char *path, uint64_t off, uint64_t len)
{
	char name[300];
	uint8_t buf[8192];
	int fd;

	(void)arg;
	(void)len;
	snprintf(name, sizeof(name), "%s/%s", src_dir, path);
	if (off == 131072)
		ck_assert_int_eq(truncate(name, 131072 + 100), 0);
	if (off != (uint64_t)2 * 131072)
		return;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = byte_at(seed_of(path), 2 * 131072 + i);
	fd = open(name, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, buf, sizeof(buf), 2 * 131072), sizeof(buf));
	close(fd);
}

START_TEST(cut_and_grown_meanwhile)
{
	static const struct source file = {"base/5/9", 3 * 131072, 3 * 131072};
	unsigned wrong = 0;
	size_t len;
	char *data;

	add(&file);
	opts.jobs = 1;
	server.before_row = cut_and_grow;
	make_lanes(1);
	must(run());
	data = tmp_read(&tree, "dst/base/5/9", &len);
	ck_assert_uint_eq(len, file.size);
	for (size_t i = 0; i < len; i++) {
		bool came = i < 131072 + 100 || (i >= 2 * 131072 && i < 2 * 131072 + 8192);

		wrong += (uint8_t)data[i] != (came ? byte_at(seed_of(file.path), i) : 0);
	}
	ck_assert_uint_eq(wrong, 0);
	free(data);
}
END_TEST

START_TEST(no_digest)
{
	struct pgr_lane_result r;

	opts.digest = PGR_DIGEST_NONE;
	add(&all_kinds[6]);
	make_lanes(0);
	must(run());
	must(pgr_lanes_result(lanes, 0, &r, &err));
	ck_assert(r.copied);
	ck_assert_uint_eq(r.sum_len, 0);
	ck_assert_int_eq(pgr_lanes_result(lanes, 1, &r, &err), PGR_ERR);
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
	ck_assert_uint_ge(infos, server.cuts);
}
END_TEST

/* Never so much as a row: after a few attempts the loss is told. */
START_TEST(lost_without_progress)
{
	add(&all_kinds[12]);
	opts.jobs = 1;
	server.cut_after = 100000;
	make_lanes(1);
	expect_failure(PGR_E_NETWORK, "server");
	ck_assert_uint_eq(server.cuts, 6);
}
END_TEST

/* The end of a query got lost, not its rows: nothing is left to ask for. */
START_TEST(lost_at_the_end)
{
	struct pgr_lane_result r;

	add(&all_kinds[5]);
	opts.jobs = 1;
	server.cut_after = 8 + 5 + 19 + 6 + 8192 + 3; /* within the trailer's message */
	make_lanes(1);
	must(run());
	check_all();
	ck_assert_uint_eq(server.rows, 1);
	must(pgr_lanes_result(lanes, 0, &r, &err));
	ck_assert(r.copied);
}
END_TEST

/* Lost, and no way back. */
START_TEST(no_way_back)
{
	add_all();
	opts.jobs = 2;
	server.cut_after = 3000000;
	refuse_from = 3;
	refuse_state = _i == 0 ? NULL : _i == 1 ? "53300" : "28000";
	make_lanes(1);
	if (_i < 2) {
		expect_failure(PGR_E_NETWORK, "server");
		ck_assert_ptr_nonnull(strstr(err.detail, "Connecting again failed"));
		ck_assert_uint_ge(refused, 5);
	} else {
		expect_failure(PGR_E_SERVER, "refused");
	}
}
END_TEST

static const struct {
	const char *severity, *state;
	bool inside, again;
} server_errors[] = {
	{"FATAL", "57P01", false, false}, {"FATAL", "57P01", true, false}, {"ERROR", "58030", true, false},
	{"ERROR", "42501", false, false}, {"ERROR", "40001", false, true}, {"ERROR", "40001", true, true},
	{"FATAL", "40001", true, true},	  {"FATAL", "08006", false, true}, {"ERROR", "53200", true, true},
	{"FATAL", "57P02", true, false},
};

START_TEST(server_error)
{
	add_all();
	opts.jobs = 2;
	server.error_at = 2;
	server.errors = 1;
	server.error_severity = server_errors[_i].severity;
	server.error_state = server_errors[_i].state;
	server.error_inside = server_errors[_i].inside;
	make_lanes(2);
	if (server_errors[_i].again) {
		must(run());
		check_all();
		ck_assert_uint_eq(server.opened, 3);
		return;
	}
	expect_failure(PGR_E_SERVER, "as the test wants it");
	ck_assert_str_eq(err.sqlstate, server_errors[_i].state);
	ck_assert_uint_le(server.opened, 2);
}
END_TEST

/* ---- the beginning ---- */

START_TEST(fewer_lanes)
{
	add_all();
	opts.jobs = 5;
	refuse_from = 2 + (unsigned)_i;
	refuse_state = "53300";
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_eq(refused, 4 - (unsigned)_i);
	ck_assert_uint_eq(infos, 4 - (unsigned)_i);
}
END_TEST

/* Nobody is there while the sessions are opened ahead, and everybody when they are needed. */
static char too_early[6];

static int open_too_early(void *arg, struct pgr_client **out, struct pgr_err *e)
{
	(void)arg;
	*out = NULL;
	pgr_err_set(e, PGR_E_CONNECT, "too early");
	strcpy(e->sqlstate, too_early);
	return PGR_ERR;
}

START_TEST(opened_ahead_in_vain)
{
	struct pgr_lane_sessions_opts o = {.n = 3, .connect = open_too_early};

	strcpy(too_early, _i == 0 ? "53300" : "28000");
	add_all();
	must(pgr_lane_sessions_start(&opts.sessions, &o, pgr_sys_real(), stop, &err));
	make_lanes(1);
	if (_i == 0) {
		must(run());
		check_all();
		ck_assert_uint_eq(attempts, 3);
	} else {
		expect_failure(PGR_E_CONNECT, "too early");
		ck_assert_uint_eq(attempts, 0);
	}
	pgr_lane_sessions_free(opts.sessions);
}
END_TEST

START_TEST(no_lane)
{
	add_all();
	refuse_from = 1;
	refuse_state = _i == 0 ? "53300" : NULL;
	make_lanes(1);
	expect_failure(_i == 0 ? PGR_E_SERVER : PGR_E_CONNECT, "refused");
	ck_assert_uint_eq(refused, 3);
}
END_TEST

/* What is no matter of room is no lane to be done without. */
START_TEST(refused_for_good)
{
	add_all();
	refuse_from = 2;
	refuse_state = _i == 0 ? "28P01" : "57P01";
	make_lanes(1);
	expect_failure(PGR_E_SERVER, "refused");
}
END_TEST

START_TEST(another_server)
{
	add_all();
	opts.server_id = FILESERVER_ID;
	make_lanes(1);
	if (_i == 0) {
		must(run());
		check_all();
		return;
	}
	server.id = _i == 1 ? OTHER_ID : NULL;
	expect_failure(_i == 1 ? PGR_E_USAGE : PGR_E_PROTOCOL, _i == 1 ? "another server" : "which one it is");
}
END_TEST

/* A server that was started again is another one, too: the loss, which can be tried again, is the error. */
START_TEST(another_server_after_a_loss)
{
	add_all();
	opts.jobs = 1;
	opts.server_id = FILESERVER_ID;
	server.cut_after = 3000000;
	elsewhere_from = 2;
	make_lanes(1);
	expect_failure(PGR_E_NETWORK, "server");
	ck_assert_ptr_nonnull(strstr(err.detail, "another server"));
	ck_assert_uint_eq(attempts, 2);
}
END_TEST

START_TEST(impossible_options)
{
	struct pgr_pool *small;

	make_lanes(0);
	pgr_lanes_free(lanes);
	opts.jobs = 0;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	opts.jobs = 65;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	opts.jobs = 6;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	must(pgr_pool_new(&small, 10, 65536, stop, &err));
	opts.jobs = 2;
	opts.pool = small;
	ck_assert_int_eq(pgr_lanes_new(&lanes, &opts, pgr_sys_real(), stop, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(lanes);
	pgr_pool_free(small);
}
END_TEST

/* ---- what no server should say ---- */

static const struct {
	enum fileserver_lie lie;
	const char *words;
} lies[] = {
	{FILESERVER_LONG_ROW, "instead of"},
	{FILESERVER_EXTRA_ROW, "more rows"},
	{FILESERVER_LESS_ROWS, "fewer rows"},
	{FILESERVER_TWO_COLUMNS, "column"},
};

START_TEST(lying_server)
{
	add(&all_kinds[5]);
	add(&all_kinds[10]);
	server.lie = lies[_i].lie;
	make_lanes(1);
	expect_failure(PGR_E_PROTOCOL, lies[_i].words);
	ck_assert_uint_le(server.opened, 3);
}
END_TEST

/* ---- verified ---- */

/* One row, as often as is said. */
struct damage {
	const char *path;
	uint64_t off;
	int at; /* byte of the data; -1: of the digest */
	unsigned often;
	unsigned seen;
};

static void damage_row(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len, uint8_t *sum)
{
	struct damage *d = arg;

	if (strcmp(path, d->path) != 0 || off != d->off)
		return;
	d->seen++;
	if (d->seen > d->often)
		return;
	if (d->at >= 0)
		data[(size_t)d->at % len] ^= 0x10;
	else
		sum[0] ^= 1;
}

static const struct damage damages[] = {
	{"PG_VERSION", 0, 1, 1},
	{"base/5/100", 0, -1, 1}, /* empty */
	{"base/5/110", 0, -1, 1}, /* vanished */
	{"base/5/107", 0, 0, 1},
	{"base/5/107", 3 * 131072, 131071, 5},
	{"base/5/107", 5 * 131072, 0, 1}, /* its last */
	{"base/5/109", 131072 * 79, 5000, 4},
	{"base/5/113", 131072, 76, 2}, /* truncated */
	{"postgresql.conf", 0, 199999, 5},
};

START_TEST(damaged_and_mended)
{
	struct damage d = damages[_i];

	opts.jobs = 1 + (unsigned)_i % 3;
	opts.digest = _i % 2 == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;
	opts.verify_transfer = true;
	add_all();
	server.on_the_way = damage_row;
	server.arg = &d;
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_eq(d.seen, d.often + 1);
	ck_assert_uint_eq(server.opened, opts.jobs + d.often);
	ck_assert_uint_eq(infos, 2 * d.often); /* given up, connected again */
}
END_TEST

/* A row of which nothing ever comes as it is: the file is named, and nobody tries for ever. */
START_TEST(always_damaged)
{
	struct damage d = {.path = _i < 2 ? "base/5/102" : "base/5/109", .at = 4711, .often = UINT32_MAX};

	opts.jobs = _i % 2 == 0 ? 1 : 4;
	opts.verify_transfer = true;
	add_all();
	server.on_the_way = damage_row;
	server.arg = &d;
	make_lanes(2);
	expect_failure(PGR_E_DATA, d.path);
	ck_assert_ptr_nonnull(strstr(err.msg, "at offset 0 of file"));
	/* before it is known to all that the run ends, each of the others may try once more */
	ck_assert_uint_ge(d.seen, 6);
	ck_assert_uint_lt(d.seen, 6 + opts.jobs);
}
END_TEST

/* One row in 32, at random, so that none is always the one. */
static void damage_some(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len, uint8_t *sum)
{
	unsigned *state = arg;
	unsigned n = *state = *state * 1103515245u + 12345;

	(void)path;
	(void)off;
	if (n >> 27 != 0)
		return;
	if (len > 0)
		data[n % len] ^= 1;
	else
		sum[n % 16] ^= 1;
}

START_TEST(damaged_all_over)
{
	unsigned state = 1;

	opts.jobs = 3;
	opts.verify_transfer = true;
	server.version = _i == 0 ? 150000 : 100023;
	add_all();
	server.on_the_way = damage_some;
	server.arg = &state;
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_ge(server.opened, 3 + 5);
}
END_TEST

/* What is not asked for, nobody notices. */
START_TEST(damaged_unnoticed)
{
	struct damage d = {.path = "base/5/107", .at = 4711, .often = 1};
	size_t len;
	char *data;

	add_all();
	server.on_the_way = damage_row;
	server.arg = &d;
	make_lanes(2);
	must(run());
	ck_assert_uint_eq(d.seen, 1);
	data = tmp_read(&tree, "dst/base/5/107", &len);
	ck_assert_uint_eq((uint8_t)data[4711], byte_at(seed_of("base/5/107"), 4711) ^ 0x10);
	free(data);
}
END_TEST

/* A request that came damaged: the server reads well, but something else. */
static unsigned misheard;

static void mishear_name(void *arg, char *path, uint64_t *off)
{
	if (strcmp(path, arg) == 0 && *off == 131072 && misheard++ == 0)
		path[strlen(path) - 1] ^= 1;
}

static void mishear_offset(void *arg, char *path, uint64_t *off)
{
	if (strcmp(path, arg) == 0 && *off == 131072 && misheard++ == 0)
		*off = 0;
}

START_TEST(misheard_and_mended)
{
	static char path[] = "base/5/106";

	misheard = 0;
	opts.verify_transfer = true;
	add_all();
	server.mishear = _i == 0 ? mishear_name : mishear_offset;
	server.arg = path;
	make_lanes(2);
	must(run());
	check_all();
	ck_assert_uint_eq(misheard, 2);
	ck_assert_uint_eq(server.opened, opts.jobs + 1);
}
END_TEST

/* What breaks the protocol may be damage, too; when it stays, it is told. */
static const struct {
	enum fileserver_lie lie;
	const char *words;
} verified_lies[] = {
	{FILESERVER_LONG_ROW, "instead of"}, {FILESERVER_LESS_ROWS, "fewer rows"}, {FILESERVER_TWO_COLUMNS, "column"},
	{FILESERVER_SHORT_SUM, "no digest"}, {FILESERVER_NO_SUM, "no digest"},
};

START_TEST(lying_verified)
{
	add(&all_kinds[5]);
	opts.jobs = 1;
	opts.verify_transfer = true;
	server.lie = verified_lies[_i].lie;
	make_lanes(1);
	expect_failure(PGR_E_PROTOCOL, verified_lies[_i].words);
	ck_assert_uint_eq(server.opened, 6);
}
END_TEST

/* ---- stopping ---- */

static int failing_tick(void *arg, struct pgr_err *e)
{
	unsigned *n = arg;

	if (++*n < 2)
		return PGR_OK;
	return pgr_err_set(e, PGR_E_NETWORK, "the coordinator is gone");
}

START_TEST(tick_fails)
{
	unsigned n = 0;

	add_all();
	opts.max_rate_bytes = 4096; /* it would take hours */
	real_time();
	make_lanes(1);
	ck_assert_int_eq(pgr_lanes_run(lanes, failing_tick, &n, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_NETWORK);
	ck_assert_str_eq(err.msg, "the coordinator is gone");
	ck_assert_uint_eq(n, 2);
}
END_TEST

static int stopping_tick(void *arg, struct pgr_err *e)
{
	struct pgr_err why;

	(void)arg;
	(void)e;
	pgr_err_set(&why, PGR_E_STOPPED, "terminated by a signal");
	pgr_stop_post(stop, &why);
	return PGR_OK;
}

START_TEST(stopped_from_outside)
{
	add_all();
	opts.max_rate_bytes = 4096;
	real_time();
	make_lanes(_i == 0 ? 0 : 2);
	ck_assert_int_eq(pgr_lanes_run(lanes, stopping_tick, NULL, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(err.msg, "terminated by a signal");
}
END_TEST

static int lifting_tick(void *arg, struct pgr_err *e)
{
	(void)arg;
	(void)e;
	pgr_lanes_set_rate(lanes, 0);
	return PGR_OK;
}

START_TEST(rate_is_lifted)
{
	add_all();
	opts.max_rate_bytes = 4096;
	real_time();
	make_lanes(2);
	must(pgr_lanes_run(lanes, lifting_tick, NULL, &err));
	must(pgr_dirsink_drain(sink, &err));
	check_all();
}
END_TEST

/* A file in the way, a missing directory: the message names it. */
START_TEST(cannot_create)
{
	struct pgr_lane_result r;

	add(&all_kinds[5]);
	make_lanes(1);
	if (_i == 0)
		tmp_write(&tree, "dst/base/5/102", "in the way");
	else
		ck_assert_int_eq(rmdir(tmp_at(&tree, "dst/base/5")), 0);
	expect_failure(PGR_E_SYSTEM, _i == 0 ? "dst/base/5/102" : "5");
	ck_assert_int_eq(pgr_lanes_result(lanes, 0, &r, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "base/5/102"));
}
END_TEST

/* Each system call fails once: everything ends, nothing leaks, the error says what. */
START_TEST(faults)
{
	const enum pgr_digest_algo algo = _i == 0 ? PGR_DIGEST_CRC32C : PGR_DIGEST_SHA256;

	opts.verify_transfer = _i == 2;
	bool failed = true;

	add(&all_kinds[0]);
	add(&all_kinds[7]);
	add(&all_kinds[10]);
	add(&all_kinds[16]);
	for (unsigned n = 1; failed && n < 10000; n++) {
		int rc;

		init_sys(n);
		opts.jobs = 1;
		opts.digest = algo;
		make_lanes(0);
		rc = run();
		failed = fault.triggered;
		if (!failed)
			check_all();
		else if (rc == PGR_ERR)
			ck_assert_msg(err.cls == PGR_E_SYSTEM && err.sys_errno == EIO, "%s: %s", fault.failed_call,
				      err.msg);
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

int main(void)
{
	Suite *s = suite_create("lanes");
	TCase *t = tcase_create("good");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, copies_everything, 0, 2 * (int)NWAYS);
	tcase_add_loop_test(t, in_small_pieces, 0, 2);
	tcase_add_test(t, nothing_to_copy);
	tcase_add_test(t, rows_asked_for);
	tcase_add_test(t, gone_meanwhile);
	tcase_add_test(t, cut_and_grown_meanwhile);
	tcase_add_test(t, no_digest);
	suite_add_tcase(s, t);
	t = tcase_create("lost");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, lost_again_and_again, 0, 2 * (int)NCUTS);
	tcase_add_test(t, lost_without_progress);
	tcase_add_test(t, lost_at_the_end);
	tcase_add_loop_test(t, no_way_back, 0, 3);
	tcase_add_loop_test(t, server_error, 0, (int)(sizeof(server_errors) / sizeof(server_errors[0])));
	suite_add_tcase(s, t);
	t = tcase_create("refused");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, fewer_lanes, 0, 4);
	tcase_add_loop_test(t, opened_ahead_in_vain, 0, 2);
	tcase_add_loop_test(t, no_lane, 0, 2);
	tcase_add_loop_test(t, refused_for_good, 0, 2);
	tcase_add_loop_test(t, another_server, 0, 3);
	tcase_add_test(t, another_server_after_a_loss);
	tcase_add_test(t, impossible_options);
	tcase_add_loop_test(t, lying_server, 0, (int)(sizeof(lies) / sizeof(lies[0])));
	suite_add_tcase(s, t);
	t = tcase_create("verified");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, damaged_and_mended, 0, (int)(sizeof(damages) / sizeof(damages[0])));
	tcase_add_loop_test(t, always_damaged, 0, 4);
	tcase_add_loop_test(t, damaged_all_over, 0, 2);
	tcase_add_test(t, damaged_unnoticed);
	tcase_add_loop_test(t, misheard_and_mended, 0, 2);
	tcase_add_loop_test(t, lying_verified, 0, (int)(sizeof(verified_lies) / sizeof(verified_lies[0])));
	suite_add_tcase(s, t);
	t = tcase_create("stopped");
	tcase_add_checked_fixture(t, setup, stage_end);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, tick_fails);
	tcase_add_loop_test(t, stopped_from_outside, 0, 2);
	tcase_add_test(t, rate_is_lifted);
	tcase_add_loop_test(t, cannot_create, 0, 2);
	tcase_add_loop_test(t, faults, 0, 3);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
