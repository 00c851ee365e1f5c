#include <check.h>
#include <errno.h>
#include <stdarg.h>

#include "backup/bbstream.h"
#include "backup/dirsink.h"
#include "backup/extract.h"
#include "backup/layout.h"
#include "backup/manifest.h"
#include "backup/source.h"
#include "backup/stream_check.h"
#include "common/block.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define BLOCK  4096u
#define BLOCKS 4u

/* ---- a tar in memory, and a source that reads it in pieces ---- */

struct tar {
	uint8_t *data;
	size_t len, cap;
};

static void tar_put(struct tar *t, const void *p, size_t n)
{
	if (t->len + n > t->cap) {
		t->cap = (t->len + n) * 2;
		t->data = realloc(t->data, t->cap);
		ck_assert_ptr_nonnull(t->data);
	}
	memcpy(t->data + t->len, p, n);
	t->len += n;
}

static void tar_header(struct tar *t, const char *name, char type, unsigned mode, size_t size, const char *link)
{
	char h[512] = {0};
	unsigned sum = 0;

	memcpy(h, name, strlen(name));
	snprintf(h + 100, 8, "%07o", mode);
	snprintf(h + 124, 12, "%011o", (unsigned)size);
	snprintf(h + 136, 12, "%011o", 0);
	h[156] = type;
	memcpy(h + 157, link, strlen(link));
	memcpy(h + 257, "ustar\00000", 8);
	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 7, "%06o", sum & 0777777u);
	tar_put(t, h, sizeof(h));
}

/* Content that says where it belongs: a block in a wrong place is seen. */
static uint8_t byte_at(const char *name, size_t off)
{
	return (uint8_t)(name[strlen(name) - 1] + off + off / 251);
}

static void tar_file(struct tar *t, const char *name, unsigned mode, size_t size)
{
	tar_header(t, name, '0', mode, size, "");
	for (size_t i = 0; i < size; i++) {
		uint8_t b = byte_at(name, i);

		tar_put(t, &b, 1);
	}
	while (t->len % 512 != 0)
		tar_put(t, "", 1);
}

static void tar_dir(struct tar *t, const char *name, unsigned mode)
{
	char slashed[100];

	snprintf(slashed, sizeof(slashed), "%s/", name);
	tar_header(t, slashed, '5', mode, 0, "");
}

static void tar_link(struct tar *t, const char *name, const char *target)
{
	char slashed[100];

	snprintf(slashed, sizeof(slashed), "%s/", name);
	tar_header(t, slashed, '2', 0777, 0, target);
}

static void tar_end(struct tar *t)
{
	static const uint8_t zeros[1024];

	tar_put(t, zeros, sizeof(zeros));
}

struct mem_source {
	struct pgr_source source; /* first */
	const struct tar *tar;
	size_t at, limit, chunk;
	bool ended; /* its end was seen */
};

static int mem_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct mem_source *m = (struct mem_source *)s;

	(void)err;
	*n = m->limit - m->at;
	*n = *n < cap ? *n : cap;
	*n = *n < m->chunk ? *n : m->chunk;
	if (*n > 0)
		memcpy(dst, m->tar->data + m->at, *n);
	m->at += *n;
	m->ended = *n == 0;
	return PGR_OK;
}

/* ---- everything that an extraction needs ---- */

static struct tmptree tree;
static char data_dir[PATH_MAX], wal_dir[PATH_MAX], ts_dir[PATH_MAX], ts2_dir[PATH_MAX];
static struct pgr_layout_opts opts;
static struct pgr_layout *layout;
static struct pgr_stop *stop;
static struct pgr_pool *pool;
static struct pgr_dirsink *sink;
static struct pgr_extract x;
static struct pgr_bb_tablespace spaces[4];
#define DATA 3 /* the last of them */
static struct pgr_err err;
static struct tar tar;
static struct mem_source source;
static unsigned fds, writers;
static const struct pgr_sys *sys;

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void setup(void)
{
	tmp_make(&tree);
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	snprintf(wal_dir, sizeof(wal_dir), "%s/wal", tree.path);
	snprintf(ts_dir, sizeof(ts_dir), "%s/ts", tree.path);
	snprintf(ts2_dir, sizeof(ts2_dir), "%s/ts2", tree.path);
	opts = (struct pgr_layout_opts){.data_dir = data_dir, .dir_mode = 0700, .file_mode = 0600};
	tar = (struct tar){0};
	writers = 0;
	sys = pgr_sys_real();
	layout = NULL;
	stop = NULL;
	pool = NULL;
	sink = NULL;
	x = (struct pgr_extract){0};
	fds = tmp_open_fds();
}

/* One tablespace mapped, one in place, one mapped too, and the data directory. */
static void begin(void)
{
	static char in_place[] = "pg_tblspc/16390", server[] = "/srv/ts", server2[] = "/srv/ts2", empty[1];
	struct pgr_tblspc_map map2 = {.old_dir = server2, .new_dir = ts2_dir};
	struct pgr_tblspc_map map = {.old_dir = server, .new_dir = ts_dir, .next = &map2};
	struct pgr_dirsink_opts so = {.writers = writers};

	opts.mapping = &map;
	spaces[0] = (struct pgr_bb_tablespace){.oid = 16385, .location = server};
	spaces[1] = (struct pgr_bb_tablespace){.oid = 16390, .location = in_place};
	spaces[2] = (struct pgr_bb_tablespace){.oid = 16386, .location = server2};
	spaces[DATA] = (struct pgr_bb_tablespace){.oid = 0, .location = empty};
	/* what is not under test works */
	must(pgr_stop_new(&stop, &err));
	must(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, spaces, DATA + 1, &err));
	must(pgr_pool_new(&pool, BLOCKS, BLOCK, stop, &err));
	must(pgr_dirsink_new(&sink, sys, pool, stop, &so, &err));
	x.sys = sys;
	x.layout = layout;
	x.pool = pool;
	x.sink = sink;
}

/* Whether something leaked shows here: a block that is not in the pool, a descriptor that stayed open. */
static void end(void)
{
	pgr_dirsink_free(sink);
	sink = NULL;
	if (pool != NULL && !pgr_stop_is_set(stop)) {
		struct pgr_block *b[BLOCKS];

		for (unsigned i = 0; i < BLOCKS; i++)
			must(pgr_pool_get(pool, &b[i], &err));
		for (unsigned i = 0; i < BLOCKS; i++)
			pgr_pool_put(pool, b[i]);
	}
	pgr_pool_free(pool);
	pool = NULL;
	pgr_layout_free(layout);
	layout = NULL;
	pgr_stop_free(stop);
	stop = NULL;
	pgr_extract_fini(&x);
	x = (struct pgr_extract){0};
	ck_assert_uint_eq(tmp_open_fds(), fds);
}

static void teardown(void)
{
	end();
	free(tar.data);
	tmp_remove(&tree);
}

static int extract_part(unsigned space, size_t limit, size_t chunk, bool terminated)
{
	static const char *const names[] = {"16385.tar", "16390.tar", "16386.tar", "base.tar"};
	struct pgr_archive a = {
		.kind = space == DATA ? PGR_ARCHIVE_DATA_DIR : PGR_ARCHIVE_TABLESPACE,
		.tablespace = &spaces[space],
		.name = terminated ? names[space] : "",
		.terminated = terminated,
	};

	source = (struct mem_source){.source = {.read = mem_read}, .tar = &tar, .limit = limit, .chunk = chunk};
	return pgr_extract_archive(&x, &a, &source.source, &err);
}

static int extract(unsigned space)
{
	return extract_part(space, tar.len, SIZE_MAX, false);
}

static void extract_ok(unsigned space)
{
	must(extract(space));
	must(pgr_dirsink_drain(sink, &err));
	ck_assert(source.ended); /* or the stream takes what is left for a fault */
}

static void PGR_PRINTF(2, 3) check_refused(enum pgr_errclass cls, const char *fmt, ...)
{
	char want[3 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(extract(DATA), PGR_ERR);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, cls);
}

static void check_file(const char *where, const char *name, mode_t mode, size_t size)
{
	char path[256];
	size_t len;
	char *got;

	snprintf(path, sizeof(path), "%s/%s", where, name);
	ck_assert_msg(tmp_mode(&tree, path) == (S_IFREG | mode), "%s: mode %o", path, tmp_mode(&tree, path));
	got = tmp_read(&tree, path, &len);
	ck_assert_uint_eq(len, size);
	for (size_t i = 0; i < len; i++)
		ck_assert_msg((uint8_t)got[i] == byte_at(name, i), "%s: byte %zu", path, i);
	free(got);
}

/* ---- what a server sends ---- */

static const size_t sizes[] = {0, 1, 511, 512, 513, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 10 * BLOCK};
#define NSIZES (sizeof(sizes) / sizeof(sizes[0]))

static const char *file_name(unsigned i)
{
	static const char *const names[] = {"base/5/0", "base/5/1", "base/5/2", "base/5/3", "base/5/4",
					    "global/5", "global/6", "top7",	"base/6/8", "base/5/9"};

	return names[i];
}

static void normal_archive(void)
{
	tar_file(&tar, "backup_label", 0600, 200);
	tar_dir(&tar, "base", 0700);
	tar_dir(&tar, "base/5", 0750);
	tar_dir(&tar, "base/6", 0700);
	tar_dir(&tar, "global", 0700);
	for (unsigned i = 0; i < NSIZES; i++)
		tar_file(&tar, file_name(i), i % 2 ? 0640 : 0600, sizes[i]);
	tar_dir(&tar, "pg_wal", 0700);
	tar_dir(&tar, "pg_wal/archive_status", 0700);
	tar_dir(&tar, "pg_tblspc", 0700);
	tar_link(&tar, "pg_tblspc/16385", "/srv/ts");
	tar_dir(&tar, "pg_tblspc/16390", 0750);
	tar_file(&tar, "global/pg_control", 0600, 8192);
	tar_file(&tar, "pg_wal/000000010000000000000002", 0600, 5000);
	tar_file(&tar, "pg_wal/archive_status/000000010000000000000002.done", 0600, 0);
}

static void check_normal(void)
{
	for (unsigned i = 0; i < NSIZES; i++)
		check_file("data", file_name(i), i % 2 ? 0640 : 0600, sizes[i]);
	check_file("data", "backup_label", 0600, 200);
	check_file("data", "pg_wal/000000010000000000000002", 0600, 5000);
	check_file("data", "pg_wal/archive_status/000000010000000000000002.done", 0600, 0);
	ck_assert_uint_eq(tmp_mode(&tree, "data/base"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_mode(&tree, "data/base/5"), S_IFDIR | 0750);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_tblspc/16390"), S_IFDIR | 0750);
	tmp_check_link(&tree, "data/pg_tblspc/16385", ts_dir);
	ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
	ck_assert_uint_eq(x.control.len, 8192);
	for (size_t i = 0; i < x.control.len; i++)
		ck_assert_uint_eq(x.control.data[i], byte_at("global/pg_control", i));
	ck_assert(x.have_backup_label);
	ck_assert_uint_eq(x.skipped_links, 0);
}

START_TEST(normal)
{
	mode_t old = umask(077);

	writers = (unsigned)_i;
	normal_archive();
	begin();
	extract_ok(DATA);
	umask(old);
	check_normal();
}
END_TEST

START_TEST(normal_terminated)
{
	normal_archive();
	tar_end(&tar);
	begin();
	must(extract_part(DATA, tar.len, 7, true));
	must(pgr_dirsink_drain(sink, &err));
	check_normal();
}
END_TEST

static const size_t chunks[] = {1, 2, 3, 511, 513, 4095, 4096, 4097, 10000};

START_TEST(any_chunks)
{
	normal_archive();
	begin();
	must(extract_part(DATA, tar.len, chunks[_i], false));
	must(pgr_dirsink_drain(sink, &err));
	check_normal();
}
END_TEST

/* Cut off anywhere but between two members: an error, and nothing that stays open. */
START_TEST(truncated)
{
	tar_dir(&tar, "base", 0700);
	tar_file(&tar, "base/1", 0600, 600);
	tar_file(&tar, "base/2", 0600, 0);
	tar_file(&tar, "global", 0600, 3);
	writers = (unsigned)_i;
	/* all offsets around the ends of blocks, some of those between */
	for (size_t len = 0; len < tar.len; len += len % 512 < 2 || len % 512 > 508 ? 1 : 169) {
		bool whole = len == 0 || len == 512 || len == 512 + 512 + 1024 || len == 512 + 512 + 1024 + 512;
		int rc;

		begin();
		rc = extract_part(DATA, len, 100, false);
		ck_assert_int_eq(rc, whole ? PGR_OK : PGR_ERR);
		if (rc != PGR_OK) {
			ck_assert_int_eq(err.cls, PGR_E_DATA);
			ck_assert_msg(strstr(err.msg, "archive \"base.tar\" ended") != NULL, "%s", err.msg);
		}
		must(pgr_layout_clean(layout, NULL, NULL, &err));
		end();
	}
}
END_TEST

/* Blocks are written full, however the bytes come. */
START_TEST(blocks_filled)
{
	static struct pgr_fault_sys f[2]; /* outlive the sink */

	tar_file(&tar, "file", 0600, 5 * BLOCK + 1);
	for (int i = 0; i < 2; i++) {
		pgr_fault_sys_init(&f[i], 0, 0);
		sys = &f[i].sys;
		begin();
		must(extract_part(DATA, tar.len, i == 0 ? SIZE_MAX : 100, false));
		must(pgr_layout_clean(layout, NULL, NULL, &err));
		end();
	}
	ck_assert_uint_eq(f[0].calls, f[1].calls);
}
END_TEST

START_TEST(tablespace_archives)
{
	begin();
	tar_dir(&tar, "PG_15_202209061", 0700);
	tar_dir(&tar, "PG_15_202209061/5", 0700);
	tar_file(&tar, "PG_15_202209061/5/16999", 0600, 9000);
	extract_ok(0);
	extract_ok(1);
	check_file("ts", "PG_15_202209061/5/16999", 0600, 9000);
	check_file("data/pg_tblspc/16390", "PG_15_202209061/5/16999", 0600, 9000);
}
END_TEST

/* The special names are special in the data directory only. */
START_TEST(tablespace_plain_names)
{
	begin();
	x.replace_recovery = true;
	tar_dir(&tar, "pg_wal", 0700);
	tar_dir(&tar, "global", 0700);
	tar_file(&tar, "global/pg_control", 0600, 70000);
	tar_file(&tar, "standby.signal", 0600, 1);
	tar_file(&tar, "backup_label", 0600, 1);
	extract_ok(0);
	check_file("ts", "global/pg_control", 0600, 70000);
	check_file("ts", "standby.signal", 0600, 1);
	ck_assert(tmp_exists(&tree, "ts/pg_wal") && !tmp_exists(&tree, "data/pg_wal"));
	ck_assert_uint_eq(x.control.len, 0);
	ck_assert(!x.have_backup_label);
}
END_TEST

START_TEST(wal_elsewhere)
{
	opts.wal_dir = wal_dir;
	begin();
	tar_dir(&tar, "pg_wal", 0750);
	tar_dir(&tar, "pg_wal/archive_status", 0750);
	tar_dir(&tar, "pg_wal/summaries", 0700);
	tar_file(&tar, "pg_wal/000000010000000000000002", 0600, 5000);
	tar_file(&tar, "pg_wal/archive_status/000000010000000000000002.done", 0600, 0);
	tar_dir(&tar, "pg_wal_not", 0700);
	extract_ok(DATA);
	check_file("wal", "000000010000000000000002", 0600, 5000);
	check_file("wal", "archive_status/000000010000000000000002.done", 0600, 0);
	ck_assert_uint_eq(tmp_mode(&tree, "wal"), S_IFDIR | 0750);
	ck_assert_uint_eq(tmp_mode(&tree, "wal/archive_status"), S_IFDIR | 0750);
	ck_assert(tmp_exists(&tree, "data/pg_wal_not"));
	tmp_check_link(&tree, "data/pg_wal", wal_dir);
}
END_TEST

START_TEST(wal_old_name)
{
	opts.pg_xlog = true;
	begin();
	tar_dir(&tar, "pg_xlog", 0700);
	tar_file(&tar, "pg_xlog/000000010000000000000002", 0600, 1);
	tar_dir(&tar, "pg_wal", 0700);
	tar_file(&tar, "pg_wal/x", 0600, 1);
	extract_ok(DATA);
	ck_assert(tmp_exists(&tree, "data/pg_xlog/archive_status") && !tmp_exists(&tree, "data/pg_wal/archive_status"));
}
END_TEST

/* One name below two roots, one after the other: the directory that is kept open is the right one. */
START_TEST(wal_same_names)
{
	begin();
	tar_dir(&tar, "pg_wal", 0700);
	tar_dir(&tar, "archive_status", 0700);
	tar_file(&tar, "archive_status/1", 0600, 10);
	tar_file(&tar, "pg_wal/archive_status/2", 0600, 20);
	tar_file(&tar, "archive_status/3", 0600, 30);
	extract_ok(DATA);
	check_file("data", "archive_status/1", 0600, 10);
	check_file("data", "pg_wal/archive_status/2", 0600, 20);
	check_file("data", "archive_status/3", 0600, 30);
}
END_TEST

START_TEST(recovery_replaced)
{
	begin();
	x.replace_recovery = _i == 1;
	tar_file(&tar, "standby.signal", 0600, 10);
	tar_file(&tar, "recovery.conf", 0600, 700);
	tar_file(&tar, "recovery.signal", 0600, 0);
	tar_dir(&tar, "base", 0700);
	tar_file(&tar, "base/standby.signal", 0600, 3);
	extract_ok(DATA);
	ck_assert_int_eq(tmp_exists(&tree, "data/standby.signal"), _i == 0);
	ck_assert_int_eq(tmp_exists(&tree, "data/recovery.conf"), _i == 0);
	check_file("data", "recovery.signal", 0600, 0);
	check_file("data", "base/standby.signal", 0600, 3);
}
END_TEST

/* ---- what the check against the manifest is told ---- */

static int manifest_gather(void *arg, const void *data, size_t len, struct pgr_err *e)
{
	return pgr_buf_put(arg, data, len, e);
}

static struct pgr_stream_check *begin_checked(void)
{
	begin();
	must(pgr_stream_check_new(&x.check, PGR_DIGEST_CRC32C, stop, &err));
	return x.check;
}

static void list_file(struct pgr_manifest_writer *w, const char *path, const char *name, size_t size)
{
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d;
	size_t n;

	must(pgr_digest_new(&d, PGR_DIGEST_CRC32C, &err));
	for (size_t i = 0; i < size; i++) {
		uint8_t b = byte_at(name, i);

		must(pgr_digest_add(d, &b, 1, &err));
	}
	must(pgr_digest_end(d, sum, &n, &err));
	pgr_digest_free(d);
	must(pgr_manifest_add_file(w, path, size, 0, PGR_DIGEST_CRC32C, sum, n, &err));
}

/* All that the archives below hold but `without`; segments are not in manifests. */
static void feed_manifest(struct pgr_stream_check *check, const char *without)
{
	struct pgr_buf text = {0};
	struct pgr_manifest_writer *w;
	const struct {
		const char *path, *name;
		size_t size;
	} others[] = {
		{"backup_label", "backup_label", 200},
		{"global/pg_control", "global/pg_control", 8192},
		{"pg_wal/archive_status/000000010000000000000002.done", "done", 0},
		{"pg_tblspc/16385/PG_15/7/1", "PG_15/7/1", 2 * BLOCK},
		{"pg_tblspc/16390/PG_15/7/1", "PG_15/7/1", 3},
		{"standby.signal", "standby.signal", 10},
		{"recovery.conf", "recovery.conf", 700},
	};

	must(pgr_manifest_writer_new(&w, 130000, NULL, false, manifest_gather, &text, &err));
	for (unsigned i = 0; i < NSIZES; i++)
		list_file(w, file_name(i), file_name(i), sizes[i]);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (without == NULL || strcmp(without, others[i].path) != 0)
			list_file(w, others[i].path, others[i].name, others[i].size);
	must(pgr_manifest_writer_end(w, &err));
	pgr_manifest_writer_free(w);
	must(pgr_stream_check_manifest(check, text.data, text.len, &err));
	must(pgr_stream_check_manifest_end(check, &err));
	pgr_buf_fini(&text);
}

static void extract_space(unsigned space, size_t size)
{
	tar.len = 0;
	tar_dir(&tar, "PG_15", 0700);
	tar_dir(&tar, "PG_15/7", 0700);
	tar_file(&tar, "PG_15/7/1", 0600, size);
	must(extract(space));
}

/* Every file once, by the path that the manifest has, and only those of its tablespace: else they would not match. */
START_TEST(checked)
{
	static const char *const without[] = {NULL,
					      "backup_label",
					      "global/pg_control",
					      "pg_tblspc/16385/PG_15/7/1",
					      "pg_tblspc/16390/PG_15/7/1",
					      "standby.signal",
					      "recovery.conf"};
	struct pgr_stream_check *check = begin_checked();

	x.replace_recovery = true;
	extract_space(0, 2 * BLOCK);
	tar.len = 0;
	normal_archive();
	tar_file(&tar, "standby.signal", 0600, 10);
	tar_file(&tar, "recovery.conf", 0600, 700);
	must(extract(DATA));
	extract_space(1, 3);
	must(pgr_dirsink_drain(sink, &err));
	feed_manifest(check, without[_i]);
	if (without[_i] == NULL) {
		must(pgr_stream_check_compare(check, &err));
	} else {
		ck_assert_int_eq(pgr_stream_check_compare(check, &err), PGR_ERR);
		ck_assert_msg(strstr(err.msg, without[_i]) != NULL, "%s", err.msg);
	}
	pgr_dirsink_free(sink);
	sink = NULL;
	pgr_stream_check_free(check);
}
END_TEST

static void remember(void *arg, const char *path)
{
	struct pgr_err e;

	ck_assert_int_eq(pgr_buf_printf(arg, &e, "%s\n", path), PGR_OK);
}

START_TEST(files_told)
{
	struct pgr_buf told = {0};

	begin();
	x.on_file = remember;
	x.arg = &told;
	tar_dir(&tar, "base", 0700);
	tar_file(&tar, "base/1", 0600, 1);
	tar_link(&tar, "pg_tblspc/4", "/new");
	extract_ok(DATA);
	ck_assert_str_eq(pgr_buf_str(&told), "base\nbase/1\npg_tblspc/4\n");
	pgr_buf_fini(&told);
}
END_TEST

/* setuid and its like are nothing that a data directory needs. */
START_TEST(modes_cut)
{
	begin();
	tar_dir(&tar, "d", 07777);
	tar_file(&tar, "d/f", 06644, 1);
	extract_ok(DATA);
	ck_assert_uint_eq(tmp_mode(&tree, "data/d"), S_IFDIR | 0777);
	check_file("data", "d/f", 0644, 1);
}
END_TEST

/* ---- global/pg_control ---- */

START_TEST(control_limits)
{
	begin();
	tar_file(&tar, "global/pg_control", 0600, 65536);
	extract_ok(DATA);
	ck_assert_uint_eq(x.control.len, 65536);
	check_refused(PGR_E_DATA, "server sent \"global/pg_control\" twice");
}
END_TEST

START_TEST(control_too_large)
{
	begin();
	tar_file(&tar, "global/pg_control", 0600, 65537);
	check_refused(PGR_E_DATA, "server sent \"global/pg_control\" with an impossible size");
	ck_assert_uint_eq(x.control.len, 0);
}
END_TEST

START_TEST(control_no_file)
{
	begin();
	tar_dir(&tar, "global", 0700);
	if (_i == 0)
		tar_dir(&tar, "global/pg_control", 0700);
	else
		tar_link(&tar, "global/pg_control", "/srv/ts");
	check_refused(PGR_E_DATA, "tar member \"global/pg_control\" is not a file");
	ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
}
END_TEST

/* ---- hostile links ---- */

static const struct {
	const char *name, *target;
} bad_links[] = {
	{"evil", "/srv/ts"},			/* not in pg_tblspc */
	{"base", "/srv/ts"},			/* ... where a directory is expected */
	{"pg_tblspc", "/srv/ts"},		/* pg_tblspc itself */
	{"pg_tblspc/16385", "/etc"},		/* another target */
	{"pg_tblspc/16385", "/srv/ts/.."},	/* ... that begins like the right one */
	{"pg_tblspc/16385", "/srv/tsx"},	/* ... */
	{"pg_tblspc/16385", "/srv/ts2"},	/* the one of another tablespace */
	{"pg_tblspc/16385", "/srv"},		/* ... */
	{"pg_tblspc/16385", "pg_tblspc/16390"}, /* one in place is no target */
	{"pg_tblspc/16390", "/srv/ts"},		/* one in place is no link */
	{"pg_tblspc/016385", "/srv/ts"},	/* not the way the server writes it */
	{"pg_tblspc/16385x", "/srv/ts"},	/* not a number */
	{"pg_tblspc/x/16385", "/srv/ts"},	/* not directly below */
	{"base/pg_tblspc/16385", "/srv/ts"},	/* ... */
	{"pg_tblspc/4294983681", "/srv/ts"},	/* 2^32 + 16385 */
	{"pg_tblspc/0", "/srv/ts"},		/* the data directory is no tablespace */
	{"pg_wal/000000010000000000000001", "/x"},
};

START_TEST(link_refused)
{
	begin();
	tar_link(&tar, bad_links[_i].name, bad_links[_i].target);
	check_refused(PGR_E_DATA, "tar member \"%s\" is a symbolic link that leads to no announced tablespace: \"%s\"",
		      bad_links[_i].name, bad_links[_i].target);
}
END_TEST

START_TEST(link_refused_wal)
{
	begin();
	tar_link(&tar, "pg_wal", "/srv/ts");
	check_refused(PGR_E_DATA, "tar member \"pg_wal\" is not a directory");
}
END_TEST

START_TEST(link_refused_in_tablespace)
{
	begin();
	tar_link(&tar, "pg_tblspc/16385", "/srv/ts");
	ck_assert_int_eq(extract(0), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
}
END_TEST

/* A tablespace made while the backup runs: WAL brings it. */
START_TEST(link_skipped)
{
	begin();
	tar_dir(&tar, "pg_tblspc", 0700);
	tar_link(&tar, "pg_tblspc/16999", "/etc");
	extract_ok(DATA);
	ck_assert_uint_eq(x.skipped_links, 1);
	ck_assert(!tmp_exists(&tree, "data/pg_tblspc/16999"));
}
END_TEST

/* Nothing goes through a link, not even through one that is right. */
START_TEST(no_way_through_link)
{
	begin();
	tar_dir(&tar, "pg_tblspc", 0700);
	tar_link(&tar, "pg_tblspc/16385", "/srv/ts");
	if (_i == 0)
		tar_file(&tar, "pg_tblspc/16385/evil", 0600, 3);
	else if (_i == 1)
		tar_dir(&tar, "pg_tblspc/16385/evil", 0700);
	else if (_i == 2)
		tar_file(&tar, "pg_tblspc/16385", 0600, 3);
	else
		tar_dir(&tar, "pg_tblspc/16385", 0700);
	ck_assert_int_eq(extract(DATA), PGR_ERR);
	ck_assert_msg(strstr(err.msg, "pg_tblspc/16385") != NULL, "%s", err.msg);
	ck_assert_uint_eq(tmp_entries(ts_dir), 0);
}
END_TEST

/* Then its files would be in one place and the cluster would look in another. */
START_TEST(directory_instead_of_link)
{
	begin();
	tar_dir(&tar, "pg_tblspc", 0700);
	tar_dir(&tar, "pg_tblspc/16385", 0700);
	check_refused(PGR_E_DATA, "tar member \"pg_tblspc/16385\" is a directory instead of a link");
}
END_TEST

/* ---- what is there already ---- */

START_TEST(existing_tolerated)
{
	opts.summaries = true;
	begin();
	for (int i = 0; i < 2; i++) {
		tar_dir(&tar, "pg_wal", 0700);
		tar_dir(&tar, "pg_wal/archive_status", 0700);
		tar_dir(&tar, "pg_wal/summaries", 0700);
		tar_dir(&tar, "pg_tblspc", 0700);
		tar_dir(&tar, "pg_tblspc/16390", 0700);
		tar_dir(&tar, "pg_tblspc/17000", 0700);
	}
	extract_ok(DATA);
}
END_TEST

static const char *const once_only[] = {
	"base",		  "archive_status",   "summaries",	   "16390",	     "pg_tblspc/x",
	"base/pg_tblspc", "pg_wal/elsewhere", "pg_tblspc/16390/5", "base/summaries", "pg_tblspc/000001",
	"global"};

START_TEST(existing_refused)
{
	begin();
	if (strncmp(once_only[_i], "base/", 5) == 0)
		tar_dir(&tar, "base", 0700);
	tar_dir(&tar, "pg_wal", 0700);
	tar_dir(&tar, "pg_tblspc", 0700);
	tar_dir(&tar, once_only[_i], 0700);
	tar_dir(&tar, once_only[_i], 0700);
	check_refused(PGR_E_SYSTEM, "could not create directory \"%s/%s\": File exists", data_dir, once_only[_i]);
}
END_TEST

START_TEST(existing_refused_in_tablespace)
{
	begin();
	tar_dir(&tar, "pg_tblspc", 0700);
	must(extract(0));
	ck_assert_int_eq(extract(0), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, EEXIST);
	ck_assert_msg(strstr(err.msg, ts_dir) != NULL, "%s", err.msg);
}
END_TEST

START_TEST(existing_file)
{
	begin();
	tar_file(&tar, "a", 0600, 3);
	if (_i == 0) {
		tar_file(&tar, "a", 0600, 3);
		check_refused(PGR_E_SYSTEM, "could not create file \"%s/a\": File exists", data_dir);
	} else {
		tar_dir(&tar, "a", 0700);
		check_refused(PGR_E_SYSTEM, "could not create directory \"%s/a\": File exists", data_dir);
	}
}
END_TEST

/* A file in the place of a directory that is tolerated is not. */
START_TEST(existing_not_a_directory)
{
	begin();
	tar_file(&tar, "pg_wal/summaries", 0600, 3);
	tar_dir(&tar, "pg_wal/summaries", 0700);
	check_refused(PGR_E_SYSTEM, "could not open directory \"%s/pg_wal/summaries\": Not a directory", data_dir);
}
END_TEST

START_TEST(wal_not_a_directory)
{
	begin();
	tar_file(&tar, "pg_wal", 0600, 3);
	check_refused(PGR_E_DATA, "tar member \"pg_wal\" is not a directory");
	ck_assert(!tmp_exists(&tree, "data/pg_wal"));
}
END_TEST

START_TEST(no_parent)
{
	begin();
	tar_file(&tar, "nowhere/file", 0600, 3);
	check_refused(PGR_E_SYSTEM,
		      "could not extract \"%s/nowhere/file\": could not open directory \"nowhere\": No such file or "
		      "directory",
		      data_dir);
}
END_TEST

/* ---- use and stop ---- */

START_TEST(no_place)
{
	static char nowhere[] = "/nowhere";
	struct pgr_bb_tablespace unknown = {.oid = 4, .location = nowhere};
	struct pgr_archive a = {.kind = PGR_ARCHIVE_MANIFEST, .name = "m"};

	begin();
	ck_assert_int_eq(pgr_extract_archive(&x, &a, &source.source, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	a = (struct pgr_archive){.kind = PGR_ARCHIVE_TABLESPACE, .tablespace = &unknown, .name = "4.tar"};
	ck_assert_int_eq(pgr_extract_archive(&x, &a, &source.source, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
}
END_TEST

START_TEST(stopped)
{
	struct pgr_err why;

	writers = (unsigned)_i;
	begin();
	tar_file(&tar, "a", 0600, 100000);
	pgr_err_set(&why, PGR_E_STOPPED, "interrupted by a signal");
	pgr_stop_post(stop, &why);
	check_refused(PGR_E_STOPPED, "interrupted by a signal");
}
END_TEST

/* ---- everything that can fail ---- */

static bool one_fault(unsigned at, bool short_io)
{
	static struct pgr_fault_sys f; /* outlives the sink */
	bool failed;
	int rc;

	pgr_fault_sys_init(&f, at, ENOSPC);
	f.short_io = short_io;
	sys = &f.sys;
	begin();
	rc = extract_part(DATA, tar.len, 1000, false);
	if (rc == PGR_OK)
		rc = pgr_dirsink_drain(sink, &err);
	else if (err.cls == PGR_E_STOPPED)
		pgr_stop_why(stop, &err);
	failed = f.triggered && strcmp(f.failed_call, "set_direct") != 0; /* there is another way */
	ck_assert_int_eq(rc, failed ? PGR_ERR : PGR_OK);
	if (failed) {
		ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
		ck_assert_int_eq(err.sys_errno, ENOSPC);
		ck_assert_msg(strstr(err.msg, data_dir) != NULL, "%s: %s", f.failed_call, err.msg);
	} else {
		check_normal();
	}
	must(pgr_layout_clean(layout, NULL, NULL, &err));
	end();
	return f.triggered;
}

START_TEST(faults)
{
	unsigned at = 1;

	normal_archive();
	writers = (unsigned)_i;
	while (one_fault(at, false))
		at++;
	ck_assert_uint_ge(at, 80);
	one_fault(0, true);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return t;
}

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static Suite *extract_suite(void)
{
	Suite *s = suite_create("extract");
	TCase *n = add_case(s, "normal"), *c = add_case(s, "control"), *l = add_case(s, "links"),
	      *e = add_case(s, "existing"), *f = add_case(s, "failures");

	tcase_add_loop_test(n, normal, 0, 4);
	tcase_add_test(n, normal_terminated);
	tcase_add_loop_test(n, any_chunks, 0, COUNT(chunks));
	tcase_add_test(n, tablespace_archives);
	tcase_add_test(n, tablespace_plain_names);
	tcase_add_test(n, wal_elsewhere);
	tcase_add_test(n, wal_old_name);
	tcase_add_test(n, wal_same_names);
	tcase_add_test(n, blocks_filled);
	tcase_add_loop_test(n, recovery_replaced, 0, 2);
	tcase_add_loop_test(n, checked, 0, 7);
	tcase_add_test(n, files_told);
	tcase_add_test(n, modes_cut);
	tcase_add_test(c, control_limits);
	tcase_add_test(c, control_too_large);
	tcase_add_loop_test(c, control_no_file, 0, 2);
	tcase_add_loop_test(l, link_refused, 0, COUNT(bad_links));
	tcase_add_test(l, link_refused_wal);
	tcase_add_test(l, link_refused_in_tablespace);
	tcase_add_test(l, link_skipped);
	tcase_add_loop_test(l, no_way_through_link, 0, 4);
	tcase_add_test(l, directory_instead_of_link);
	tcase_add_test(e, existing_tolerated);
	tcase_add_loop_test(e, existing_refused, 0, COUNT(once_only));
	tcase_add_test(e, existing_refused_in_tablespace);
	tcase_add_loop_test(e, existing_file, 0, 2);
	tcase_add_test(e, existing_not_a_directory);
	tcase_add_test(e, wal_not_a_directory);
	tcase_add_test(e, no_parent);
	tcase_add_loop_test(f, truncated, 0, 2);
	tcase_add_test(f, no_place);
	tcase_add_loop_test(f, stopped, 0, 2);
	tcase_add_loop_test(f, faults, 0, 3);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(extract_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
