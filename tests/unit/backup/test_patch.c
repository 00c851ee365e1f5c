/* patch.c: archives of an incremental backup into a directory that holds an old copy. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_plan.h"
#include "backup/dirsink.h"
#include "backup/kept.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/manifest.h"
#include "backup/patch.h"
#include "backup/source.h"
#include "backup/stream_check.h"
#include "backup/walsummary.h"
#include "common/block.h"
#include "common/buf.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define PAGE	1024u
#define SEGMENT 100u
#define BLOCK	4096u
#define MAGIC	0xd3ae1f0du

static struct tmptree tree;
static char data_dir[PATH_MAX], ts_dir[PATH_MAX];
static struct pgr_layout *layout;
static struct pgr_stop *stop;
static struct pgr_pool *pool;
static struct pgr_dirsink *sink;
static struct pgr_kept *kept;
static struct pgr_stream_check *check;
static struct pgr_localtree local;
static struct pgr_local_entry locals[16];
static struct pgr_limit limit_list[4];
static struct pgr_limits limits;
static struct pgr_keep keep;
static struct pgr_patch x;
static struct pgr_bb_tablespace spaces[2];
static struct pgr_err err;
static struct pgr_buf tar, manifest;
static const struct pgr_sys *sys;
static unsigned writers, fds;

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

/* ---- an archive in memory ---- */

struct mem {
	struct pgr_source source; /* first */
	const struct pgr_buf *from;
	size_t at, limit, chunk;
};

static int mem_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *e)
{
	struct mem *m = (struct mem *)s;

	(void)e;
	*n = m->limit - m->at;
	*n = *n < cap ? *n : cap;
	*n = m->chunk != 0 && *n > m->chunk ? m->chunk : *n;
	if (*n > 0)
		memcpy(dst, m->from->data + m->at, *n);
	m->at += *n;
	return PGR_OK;
}

static void put(const void *p, size_t n)
{
	must(pgr_buf_put(&tar, p, n, &err));
}

static void put_header(const char *name, char type, unsigned mode, size_t size, const char *link)
{
	char h[512] = {0};
	unsigned sum = 0;

	memcpy(h, name, strlen(name));
	snprintf(h + 100, 8, "%07o", mode);
	snprintf(h + 124, 12, "%011o", (unsigned)size);
	snprintf(h + 136, 12, "%011o", 1700000000);
	h[156] = type;
	memcpy(h + 157, link, strlen(link));
	memcpy(h + 257, "ustar\00000", 8);
	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 7, "%06o", sum & 0777777u);
	put(h, sizeof(h));
}

static void pad(void)
{
	while (tar.len % 512 != 0)
		put("", 1);
}

static void put_file(const char *name, unsigned mode, const void *data, size_t len)
{
	put_header(name, '0', mode, len, "");
	put(data, len);
	pad();
}

static void put_text(const char *name, const char *text)
{
	put_file(name, 0600, text, strlen(text));
}

static void put_end(void)
{
	static const uint8_t zeros[1024];

	put(zeros, sizeof(zeros));
}

/* An increment whose blocks are all of the byte 0xEE. */
static void put_increment(const char *name, uint32_t truncation, uint32_t n, const uint32_t *blocks)
{
	uint32_t head[3] = {MAGIC, n, truncation};
	struct pgr_buf b = {0};

	must(pgr_buf_put(&b, head, sizeof(head), &err));
	must(pgr_buf_put(&b, blocks, n * sizeof(*blocks), &err));
	while (n > 0 && b.len % PAGE != 0)
		must(pgr_buf_put8(&b, 0, &err));
	for (size_t i = 0; i < (size_t)n * PAGE; i++)
		must(pgr_buf_put8(&b, 0xEE, &err));
	put_file(name, 0600, b.data, b.len);
	pgr_buf_fini(&b);
}

/* ---- the old copy ---- */

static void know(const char *path, enum pgr_local_type type, uint64_t size)
{
	locals[local.n] = (struct pgr_local_entry){.path = strdup(path), .type = type, .size = size};
	local.n++;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct pgr_local_entry *)a)->path, ((const struct pgr_local_entry *)b)->path);
}

static void old_pages(const char *path, uint32_t n)
{
	char name[200];
	FILE *f;

	snprintf(name, sizeof(name), "data/%s", path);
	f = fopen(tmp_at(&tree, name), "w");
	ck_assert_ptr_nonnull(f);
	for (size_t i = 0; i < (size_t)n * PAGE; i++)
		fputc(0x11, f);
	ck_assert_int_eq(fclose(f), 0);
	know(path, PGR_LOCAL_FILE, (uint64_t)n * PAGE);
}

static void old_text(const char *path, const char *text)
{
	char name[200];

	snprintf(name, sizeof(name), "data/%s", path);
	tmp_write(&tree, name, text);
	know(path, PGR_LOCAL_FILE, strlen(text));
}

static void check_text(const char *path, const char *text)
{
	char name[200], *got;

	snprintf(name, sizeof(name), "data/%s", path);
	got = tmp_read(&tree, name, NULL);
	ck_assert_str_eq(got, text);
	free(got);
}

/* "o": old page, "n": it came, "0": zeros. */
static void check_pages(const char *path, const char *expected)
{
	char name[200], *got;
	size_t len;

	snprintf(name, sizeof(name), "data/%s", path);
	got = tmp_read(&tree, name, &len);
	ck_assert_uint_eq(len, strlen(expected) * PAGE);
	for (size_t i = 0; i < len; i++) {
		char e = expected[i / PAGE];

		if ((uint8_t)got[i] != (e == 'o' ? 0x11 : e == 'n' ? 0xEE : 0))
			ck_abort_msg("byte %zu is %02x", i, (uint8_t)got[i]);
	}
	free(got);
}

/* ---- everything that is needed ---- */

static void setup(void)
{
	static char server[] = "/srv/ts", empty[1];
	static struct pgr_tblspc_map map;
	struct pgr_layout_opts lo = {.data_dir = data_dir, .dir_mode = 0700, .file_mode = 0600, .mapping = &map};

	tmp_make(&tree);
	fds = tmp_open_fds();
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	snprintf(ts_dir, sizeof(ts_dir), "%s/ts", tree.path);
	map = (struct pgr_tblspc_map){.old_dir = server, .new_dir = ts_dir};
	spaces[0] = (struct pgr_bb_tablespace){.oid = 16385, .location = server};
	spaces[1] = (struct pgr_bb_tablespace){.oid = 0, .location = empty};
	must(pgr_stop_new(&stop, &err));
	must(pgr_layout_new(&layout, pgr_sys_real(), &lo, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, spaces, 2, &err));
	tmp_mkdir(&tree, "data/base", 0700);
	tmp_mkdir(&tree, "data/base/5", 0700);
	memset(locals, 0, sizeof(locals));
	memset(limit_list, 0, sizeof(limit_list));
	local = (struct pgr_localtree){.entries = locals};
	limits = (struct pgr_limits){.list = limit_list};
	keep = (struct pgr_keep){0};
	tar = manifest = (struct pgr_buf){0};
	x = (struct pgr_patch){0};
	sys = pgr_sys_real();
	writers = 0;
	pool = NULL;
	sink = NULL;
	kept = NULL;
	check = NULL;
}

static void begin(void)
{
	struct pgr_dirsink_opts so = {.writers = writers, .sync = true};
	struct pgr_kept_opts ko = {
		.sys = sys,
		.layout = layout,
		.stop = stop,
		.threads = writers,
		.digest = PGR_DIGEST_CRC32C,
		.page_bytes = PAGE,
		.segment_blocks = SEGMENT,
	};

	qsort(locals, local.n, sizeof(locals[0]), by_path);
	must(pgr_pool_new(&pool, 4, BLOCK, stop, &err));
	must(pgr_dirsink_new(&sink, sys, pool, stop, &so, &err));
	must(pgr_kept_new(&kept, &ko, &err));
	must(pgr_stream_check_new(&check, PGR_DIGEST_CRC32C, stop, &err));
	x = (struct pgr_patch){
		.sys = sys,
		.stop = stop,
		.layout = layout,
		.pool = pool,
		.sink = sink,
		.check = check,
		.kept = kept,
		.tree = &local,
		.limits = &limits,
		.keep = &keep,
		.page_bytes = PAGE,
		.segment_blocks = SEGMENT,
	};
}

static void end(void)
{
	pgr_dirsink_free(sink);
	sink = NULL;
	pgr_kept_free(kept);
	kept = NULL;
	pgr_stream_check_free(check);
	check = NULL;
	pgr_patch_fini(&x);
	pgr_pool_free(pool);
	pool = NULL;
}

static void teardown(void)
{
	end();
	pgr_layout_free(layout);
	pgr_stop_free(stop);
	for (size_t i = 0; i < local.n; i++)
		free(locals[i].path);
	pgr_buf_fini(&tar);
	pgr_buf_fini(&manifest);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

static int take_up_to(const struct pgr_bb_tablespace *space, size_t limit, size_t chunk)
{
	struct mem m = {.source = {.read = mem_read}, .from = &tar, .limit = limit, .chunk = chunk};
	struct pgr_archive a = {
		.kind = space->oid == 0 ? PGR_ARCHIVE_DATA_DIR : PGR_ARCHIVE_TABLESPACE,
		.tablespace = space,
		.name = "",
		.terminated = true,
	};
	int rc = pgr_patch_archive(&x, &a, &m.source, &err);

	if (rc == PGR_OK)
		rc = pgr_dirsink_drain(sink, &err);
	return rc == PGR_OK ? pgr_kept_finish(kept, &err) : rc;
}

static int take(void)
{
	return take_up_to(&spaces[1], tar.len, 0);
}

static void refused(enum pgr_errclass cls, const char *words)
{
	put_end();
	ck_assert_int_eq(take(), PGR_ERR);
	ck_assert_msg(err.cls == cls && strstr(err.msg, words) != NULL, "%s", err.msg);
}

static const struct pgr_arrival *arrived(const char *path)
{
	for (const struct pgr_arrival *e = x.came.first; e != NULL; e = e->next)
		if (strcmp(e->path, path) == 0)
			return e;
	return NULL;
}

/* ---- files that come whole ---- */

static const unsigned writer_counts[] = {0, 3};

START_TEST(test_whole)
{
	char big[3 * BLOCK + 100];

	writers = writer_counts[_i];
	memset(big, 'b', sizeof(big));
	old_text("base/5/16384", "old");
	old_text("PG_VERSION", "17\n");
	tmp_write(&tree, "data/base/5/16384.pgrtmp", "left by a killed run");
	put_header("base/", '5', 0700, 0, "");
	put_header("base/5/", '5', 0750, 0, "");
	put_file("base/5/16384", 0640, big, sizeof(big));
	put_text("base/5/empty", "");
	put_header("made/", '5', 0700, 0, "");
	put_text("made/PG_VERSION", "17\n");
	put_text("PG_VERSION", "18\n");
	put_end();
	begin();
	must(take());
	ck_assert_uint_eq(arrived("base/5/16384")->got.size, sizeof(big));
	ck_assert_uint_eq(arrived("base/5/16384")->got.sum_len, 4);
	ck_assert_int_eq(arrived("base/5/16384")->mtime, 1700000000);
	ck_assert(arrived("base/5")->is_dir);
	ck_assert_uint_eq(x.whole, 4);
	check_text("PG_VERSION", "18\n");
	check_text("made/PG_VERSION", "17\n");
	check_text("base/5/empty", "");
	ck_assert(!tmp_exists(&tree, "data/base/5/16384.pgrtmp"));
	ck_assert_int_eq(tmp_mode(&tree, "data/base/5/16384"), S_IFREG | 0640);
	ck_assert_int_eq(tmp_mode(&tree, "data/base/5"), S_IFDIR | 0750);
}
END_TEST

/* Whatever stands in the way goes, and what a link leads to stays. */
START_TEST(test_in_the_way)
{
	tmp_write(&tree, "elsewhere", "not ours");
	tmp_mkdir(&tree, "data/file", 0700);
	tmp_mkdir(&tree, "data/file/deep", 0700);
	tmp_write(&tree, "data/file/deep/x", "x");
	tmp_write(&tree, "data/dir", "a file");
	ck_assert_int_eq(symlink("../elsewhere", tmp_at(&tree, "data/link")), 0);
	ck_assert_int_eq(symlink("..", tmp_at(&tree, "data/dirlink")), 0);
	put_text("file", "new");
	put_header("dir/", '5', 0700, 0, "");
	put_text("dir/x", "new");
	put_text("link", "new");
	put_header("dirlink/", '5', 0700, 0, "");
	put_text("dirlink/elsewhere", "new");
	put_end();
	begin();
	must(take());
	check_text("file", "new");
	check_text("dir/x", "new");
	check_text("link", "new");
	check_text("dirlink/elsewhere", "new");
	check_text("../elsewhere", "not ours");
	ck_assert_int_eq(tmp_mode(&tree, "data/link") & S_IFMT, S_IFREG);
}
END_TEST

/* Wherever the stream ends, the old file is there until the new one is whole. */
START_TEST(test_stream_that_ends)
{
	char big[2 * BLOCK];

	memset(big, 'b', sizeof(big));
	put_file("base/5/16384", 0600, big, sizeof(big));
	put_end();
	old_text("base/5/16384", "old");
	for (size_t n = 0; n < tar.len; n += 500) {
		begin();
		ck_assert_int_eq(take_up_to(&spaces[1], n, 0), PGR_ERR);
		if (n < 512 + sizeof(big))
			check_text("base/5/16384", "old");
		end();
	}
	begin();
	must(take());
	ck_assert(!tmp_exists(&tree, "data/base/5/16384.pgrtmp"));
}
END_TEST

/* ---- increments ---- */

START_TEST(test_increments)
{
	static const uint32_t blocks[] = {1, 4, 5};

	writers = writer_counts[_i];
	old_pages("base/5/16384", 8);
	old_pages("base/5/16385.1", 8);
	old_pages("base/5/16386", 3);
	limit_list[0] = (struct pgr_limit){.space = 1663, .db = 5, .rel = 16385, .block = SEGMENT + 3};
	limits.n = 1;
	put_increment("base/5/INCREMENTAL.16384", 8, 3, blocks);
	put_increment("base/5/INCREMENTAL.16385.1", 7, 3, blocks);
	put_increment("base/5/INCREMENTAL.16386", 3, 0, NULL);
	put_end();
	begin();
	must(take());
	check_pages("base/5/16384", "onoonnoo");
	check_pages("base/5/16385.1", "ono0nn0"); /* cut to 3 blocks meanwhile */
	check_pages("base/5/16386", "ooo");
	ck_assert_uint_eq(x.patched, 3);
	ck_assert_uint_eq(arrived("base/5/16385.1")->got.size, 7 * PAGE);
	ck_assert_ptr_null(arrived("base/5/INCREMENTAL.16384"));
	ck_assert(!tmp_exists(&tree, "data/base/5/INCREMENTAL.16384"));
}
END_TEST

/* Increments that were not asked for. */
START_TEST(test_unwanted)
{
	static const char *const names[] = {"base/5/INCREMENTAL.16399", "base/5/INCREMENTAL.16384_vm",
					    "base/5/INCREMENTAL.16400", "base/5/INCREMENTAL.16384"};

	old_pages("base/5/16384", 8);
	old_pages("base/5/16384_vm", 1);
	know("base/5/16400", PGR_LOCAL_LINK, 0);
	put_increment(names[_i], 8, 0, NULL);
	begin();
	if (_i == 3)
		x.limits = NULL; /* none were asked for at all */
	refused(PGR_E_DATA, "which was not asked for");
	check_pages("base/5/16384", "oooooooo");
}
END_TEST

/* One that may not be believed changes nothing. */
START_TEST(test_untrue)
{
	static uint32_t must_come[] = {4};
	static const uint32_t blocks[] = {1};

	old_pages("base/5/16384", 8);
	limit_list[0] = (struct pgr_limit){
		.space = 1663, .db = 5, .rel = 16384, .block = 3, .blocks = must_come, .nblocks = 1};
	limits.n = 1;
	put_increment("base/5/INCREMENTAL.16384", 8, 1, blocks);
	begin();
	refused(PGR_E_DATA, "lacks the changed block 4");
	check_pages("base/5/16384", "oooooooo");
}
END_TEST

/* A file of a person that has such a name, and is no relation's. */
START_TEST(test_only_a_name)
{
	put_text("INCREMENTAL.txt", "mine");
	put_text("base/5/INCREMENTAL.txt", "mine, too");
	put_end();
	begin();
	must(take());
	check_text("INCREMENTAL.txt", "mine");
	check_text("base/5/INCREMENTAL.txt", "mine, too");
}
END_TEST

START_TEST(test_increment_of_a_link)
{
	old_pages("base/5/16384", 8);
	ck_assert_int_eq(rename(tmp_at(&tree, "data/base/5/16384"), tmp_at(&tree, "data/base/5/16385")), 0);
	ck_assert_int_eq(symlink("16385", tmp_at(&tree, "data/base/5/16384")), 0);
	put_increment("base/5/INCREMENTAL.16384", 1, 0, NULL);
	begin();
	refused(PGR_E_SYSTEM, "could not open file \"base/5/16384\"");
	check_pages("base/5/16385", "oooooooo");
}
END_TEST

/* ---- what is held back, and what stays ---- */

START_TEST(test_held)
{
	old_text("backup_label", "the old one");
	tmp_mkdir(&tree, "data/global", 0700);
	put_text("backup_label", "the new one");
	put_header("global/", '5', 0700, 0, "");
	put_text("global/pg_control", "control");
	put_end();
	begin();
	must(take());
	check_text("backup_label", "the old one");
	ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
	ck_assert_str_eq(pgr_buf_str(&x.label), "the new one");
	ck_assert_str_eq(pgr_buf_str(&x.control), "control");
	ck_assert_ptr_null(arrived("backup_label"));
}
END_TEST

START_TEST(test_held_twice)
{
	put_text("backup_label", "one");
	put_text("backup_label", "two");
	begin();
	refused(PGR_E_DATA, "server sent \"backup_label\" twice");
}
END_TEST

START_TEST(test_held_too_large)
{
	put_header("backup_label", '0', 0600, 65537, "");
	begin();
	refused(PGR_E_DATA, "impossible size");
}
END_TEST

START_TEST(test_stays)
{
	old_text("postgresql.conf", "port = 1\n");
	put_text("postgresql.conf", "port = 2\n");
	put_text("pg_hba.conf", "local all all trust\n"); /* there was none here */
	put_text("standby.signal", "");
	put_end();
	begin();
	x.replace_recovery = true;
	must(take());
	check_text("postgresql.conf", "port = 1\n");
	check_text("pg_hba.conf", "local all all trust\n");
	ck_assert(!tmp_exists(&tree, "data/standby.signal"));
	ck_assert_uint_eq(x.left, 1);
	ck_assert_uint_eq(arrived("postgresql.conf")->got.size, 9);
	ck_assert_uint_eq(arrived("postgresql.conf")->got.sum_len, 4);
	end();
	keep.no_defaults = true;
	begin();
	must(take());
	check_text("postgresql.conf", "port = 2\n");
}
END_TEST

/* Somebody's links stay as well; one to nowhere is in no manifest. */
START_TEST(test_links_stay)
{
	tmp_write(&tree, "conf", "port = 1\n");
	ck_assert_int_eq(symlink("../conf", tmp_at(&tree, "data/postgresql.conf")), 0);
	ck_assert_int_eq(symlink("../gone", tmp_at(&tree, "data/pg_hba.conf")), 0);
	know("postgresql.conf", PGR_LOCAL_LINK, 0);
	know("pg_hba.conf", PGR_LOCAL_LINK, 0);
	put_text("postgresql.conf", "port = 22\n");
	put_text("pg_hba.conf", "local all all trust\n");
	put_end();
	begin();
	must(take());
	tmp_check_link(&tree, "data/postgresql.conf", "../conf");
	tmp_check_link(&tree, "data/pg_hba.conf", "../gone");
	check_text("postgresql.conf", "port = 1\n");
	ck_assert_uint_eq(x.left, 1);
	ck_assert_uint_eq(arrived("postgresql.conf")->got.size, 9);
}
END_TEST

/* Of a server that has one from long ago: ours of this name comes later. */
START_TEST(test_unfinished_manifest)
{
	put_text("backup_manifest.tmp", "{");
	put_text("a", "a");
	put_end();
	begin();
	must(take());
	check_text("a", "a");
	ck_assert(!tmp_exists(&tree, "data/backup_manifest.tmp"));
}
END_TEST

/* ---- tablespaces ---- */

START_TEST(test_tablespace)
{
	static const uint32_t blocks[] = {1};

	tmp_mkdir(&tree, "ts/PG_18_1", 0700);
	tmp_mkdir(&tree, "ts/PG_18_1/5", 0700);
	old_pages("../ts/PG_18_1/5/16390", 2);
	free(locals[0].path);
	locals[0].path = strdup("pg_tblspc/16385/PG_18_1/5/16390");
	put_header("PG_18_1/", '5', 0700, 0, "");
	put_header("PG_18_1/5/", '5', 0700, 0, "");
	put_increment("PG_18_1/5/INCREMENTAL.16390", 2, 1, blocks);
	put_text("PG_18_1/5/16391", "whole");
	put_end();
	begin();
	must(take_up_to(&spaces[0], tar.len, 0));
	check_pages("../ts/PG_18_1/5/16390", "on");
	check_text("../ts/PG_18_1/5/16391", "whole");
	ck_assert_ptr_nonnull(arrived("pg_tblspc/16385/PG_18_1/5/16390"));
}
END_TEST

START_TEST(test_links)
{
	put_header("pg_tblspc/16385/", '2', 0777, 0, "/srv/ts");
	put_header("pg_tblspc/16999/", '2', 0777, 0, "/srv/new");
	put_end();
	begin();
	must(take());
	ck_assert_uint_eq(x.skipped_links, 1);
	ck_assert(arrived("pg_tblspc/16385")->is_dir);
	end();
	tar.len = 0;
	put_header("pg_tblspc/16385/", '2', 0777, 0, "/etc");
	begin();
	refused(PGR_E_DATA, "leads to no announced tablespace");
}
END_TEST

START_TEST(test_other_link)
{
	put_header("log/", '2', 0777, 0, "/srv/ts");
	begin();
	refused(PGR_E_DATA, "leads to no announced tablespace");
}
END_TEST

/* ---- against the server's manifest ---- */

static int gather(void *arg, const void *data, size_t len, struct pgr_err *e)
{
	return pgr_buf_put(arg, data, len, e);
}

static void list_file(struct pgr_manifest_writer *w, const char *path, const char *member)
{
	/* the member's content is found in the archive */
	for (size_t at = 0; at + 512 <= tar.len; at += 512) {
		uint8_t sum[PGR_DIGEST_MAX];
		struct pgr_digest *d;
		size_t n, size;

		if (strcmp((char *)tar.data + at, member) != 0)
			continue;
		size = strtoul((char *)tar.data + at + 124, NULL, 8);
		must(pgr_digest_new(&d, PGR_DIGEST_CRC32C, &err));
		must(pgr_digest_add(d, tar.data + at + 512, size, &err));
		must(pgr_digest_end(d, sum, &n, &err));
		pgr_digest_free(d);
		must(pgr_manifest_add_file(w, path, size, 0, PGR_DIGEST_CRC32C, sum, n, &err));
		return;
	}
	ck_abort_msg("no member %s", member);
}

START_TEST(test_manifest)
{
	static const uint32_t blocks[] = {0, 2};
	struct pgr_manifest_writer *w;

	old_pages("base/5/16384", 3);
	old_text("postgresql.conf", "port = 1\n");
	put_text("backup_label", "label");
	put_increment("base/5/INCREMENTAL.16384", 3, 2, blocks);
	put_text("base/5/16385", "whole");
	put_text("postgresql.conf", "port = 2\n");
	put_text("global/pg_control", "control");
	put_end();
	tmp_mkdir(&tree, "data/global", 0700);
	begin();
	must(take_up_to(&spaces[1], tar.len, 100));
	must(pgr_manifest_writer_new(&w, 180000, "1", false, gather, &manifest, &err));
	list_file(w, "backup_label", "backup_label");
	list_file(w, "base/5/INCREMENTAL.16384", "base/5/INCREMENTAL.16384");
	list_file(w, "base/5/16385", "base/5/16385");
	list_file(w, "postgresql.conf", "postgresql.conf");
	list_file(w, "global/pg_control", "global/pg_control");
	must(pgr_manifest_writer_end(w, &err));
	pgr_manifest_writer_free(w);
	must(pgr_stream_check_manifest(check, manifest.data, manifest.len, &err));
	must(pgr_stream_check_manifest_end(check, &err));
	must(pgr_stream_check_compare(check, &err));
}
END_TEST

/* ---- failures ---- */

/* Each call fails once; the same once more makes it good. */
START_TEST(test_faults)
{
	static const uint32_t blocks[] = {1, 4, 5};
	struct pgr_fault_sys f;
	unsigned n = 0;

	limit_list[0] = (struct pgr_limit){.space = 1663, .db = 5, .rel = 16384, .block = 7};
	limits.n = 1;
	old_pages("base/5/16384", 8);
	old_text("base/5/16385", "old");
	put_header("base/", '5', 0700, 0, "");
	put_header("new/", '5', 0700, 0, "");
	put_increment("base/5/INCREMENTAL.16384", 8, 3, blocks);
	put_text("base/5/16385", "new");
	put_end();
	do {
		char *got;

		rmdir(tmp_at(&tree, "data/new"));
		tmp_write(&tree, "data/base/5/16385", "old");
		pgr_fault_sys_init(&f, ++n, EIO);
		sys = &f.sys;
		begin();
		if (take() == PGR_OK)
			ck_assert(!f.triggered);
		got = tmp_read(&tree, "data/base/5/16385", NULL);
		ck_assert(strcmp(got, "old") == 0 || strcmp(got, "new") == 0);
		free(got);
		end();
		pgr_stop_free(stop);
		must(pgr_stop_new(&stop, &err));
		sys = pgr_sys_real();
		begin();
		must(take());
		check_pages("base/5/16384", "onoonno0");
		check_text("base/5/16385", "new");
		end();
	} while (f.triggered);
	ck_assert_uint_gt(n, 20);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("patch");
	TCase *t = tcase_create("patch");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, test_whole, 0, 2);
	tcase_add_test(t, test_in_the_way);
	tcase_add_test(t, test_stream_that_ends);
	tcase_add_loop_test(t, test_increments, 0, 2);
	tcase_add_loop_test(t, test_unwanted, 0, 4);
	tcase_add_test(t, test_untrue);
	tcase_add_test(t, test_only_a_name);
	tcase_add_test(t, test_increment_of_a_link);
	tcase_add_test(t, test_held);
	tcase_add_test(t, test_held_twice);
	tcase_add_test(t, test_held_too_large);
	tcase_add_test(t, test_stays);
	tcase_add_test(t, test_links_stay);
	tcase_add_test(t, test_unfinished_manifest);
	tcase_add_test(t, test_tablespace);
	tcase_add_test(t, test_links);
	tcase_add_test(t, test_other_link);
	tcase_add_test(t, test_manifest);
	tcase_add_test(t, test_faults);
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
