#include <check.h>
#include <errno.h>
#include <stdarg.h>

#include "backup/dirsink.h"
#include "backup/manifest.h"
#include "backup/stream_check.h"
#include "common/block.h"
#include "common/buf.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define BLOCK  4096u
#define BLOCKS 4u

/* ---- what a server has, and what comes of it ---- */

enum way { WRITTEN, HELD, LEFT_OUT };

struct file {
	uint32_t oid;
	const char *name;
	const char *listed; /* its path in the manifest; NULL: it is not in it */
	size_t size;
	enum way way;
};

static const struct file standard[] = {
	{0, "backup_label", "backup_label", 217, WRITTEN},
	{0, "base/5/1234", "base/5/1234", 3 * BLOCK + 10, WRITTEN},
	{0, "base/5/1234_fsm", "base/5/1234_fsm", 2 * BLOCK, WRITTEN},
	{0, "base/5/empty", "base/5/empty", 0, WRITTEN},
	{0, "PG_VERSION", "PG_VERSION", 3, WRITTEN},
	{16385, "PG_15/5/1234", "pg_tblspc/16385/PG_15/5/1234", BLOCK, WRITTEN},
	{4294967295u, "PG_15/5/1234", "pg_tblspc/4294967295/PG_15/5/1234", BLOCK + 1, WRITTEN},
	{0, "standby.signal", "standby.signal", 5, LEFT_OUT},
	{0, "global/pg_control", "global/pg_control", 8192, HELD},
	{0, "pg_wal/000000010000000000000001", NULL, 5 * BLOCK, WRITTEN},
	{0, "pg_wal/00000002.history", "pg_wal/00000002.history", 42, WRITTEN},
	{0, "odd \"name\"\n\x01", "odd \"name\"\n\x01", 9, WRITTEN},
	{0, "not utf-8 \xff", "not utf-8 \xff", 9, WRITTEN},
};
#define NSTANDARD (sizeof(standard) / sizeof(standard[0]))

static uint8_t byte_at(const struct file *f, size_t off)
{
	return (uint8_t)(f->oid + (unsigned char)f->name[strlen(f->name) - 1] + off + off / 251);
}

static uint8_t *content_of(const struct file *f)
{
	uint8_t *p = malloc(f->size + 1);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < f->size; i++)
		p[i] = byte_at(f, i);
	return p;
}

/* ---- everything that a check needs ---- */

static struct tmptree tree;
static struct pgr_stop *stop;
static struct pgr_pool *pool;
static struct pgr_dirsink *sink;
static struct pgr_stream_check *check;
static struct pgr_err err;
static const struct pgr_sys *sys;
static unsigned writers;
static bool sync_files;
static enum pgr_digest_algo algo;
static struct pgr_buf manifest;
static int dir;
static unsigned made; /* files have numbers in the directory */

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void begin(void)
{
	struct pgr_dirsink_opts so = {.writers = writers, .sync = sync_files};

	must(pgr_stop_new(&stop, &err));
	must(pgr_pool_new(&pool, BLOCKS, BLOCK, stop, &err));
	must(pgr_dirsink_new(&sink, sys, pool, stop, &so, &err));
	must(pgr_stream_check_new(&check, algo, stop, &err));
}

static void end(void)
{
	pgr_dirsink_free(sink);
	sink = NULL;
	pgr_stream_check_free(check);
	check = NULL;
	pgr_pool_free(pool);
	pool = NULL;
	pgr_stop_free(stop);
	stop = NULL;
}

static void setup(void)
{
	tmp_make(&tree);
	dir = open(tree.path, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dir, 0);
	sys = pgr_sys_real();
	writers = 0;
	sync_files = false;
	algo = PGR_DIGEST_CRC32C;
	manifest = (struct pgr_buf){0};
	made = 0;
}

static void teardown(void)
{
	end();
	pgr_buf_fini(&manifest);
	close(dir);
	tmp_remove(&tree);
}

/* ---- the server's side ---- */

static int gather(void *arg, const void *data, size_t len, struct pgr_err *e)
{
	return pgr_buf_put(arg, data, len, e);
}

static void sum_of(const uint8_t *data, size_t len, uint8_t *out, size_t *n)
{
	struct pgr_digest *d;

	*n = 0;
	if (algo == PGR_DIGEST_NONE)
		return;
	must(pgr_digest_new(&d, algo, &err));
	must(pgr_digest_add(d, data, len, &err));
	must(pgr_digest_end(d, out, n, &err));
	pgr_digest_free(d);
}

static struct pgr_manifest_writer *manifest_begin(void)
{
	struct pgr_manifest_writer *w;

	manifest.len = 0;
	must(pgr_manifest_writer_new(&w, 150000, NULL, false, gather, &manifest, &err));
	return w;
}

static void manifest_add(struct pgr_manifest_writer *w, const struct file *f)
{
	uint8_t sum[PGR_DIGEST_MAX], *p;
	size_t n;

	if (f->listed == NULL)
		return;
	p = content_of(f);
	sum_of(p, f->size, sum, &n);
	must(pgr_manifest_add_file(w, f->listed, f->size, 1700000000, algo, sum, n, &err));
	free(p);
}

static void manifest_end(struct pgr_manifest_writer *w)
{
	must(pgr_manifest_add_wal(w, 1, 0x1000000, 0x2000000, &err));
	must(pgr_manifest_writer_end(w, &err));
	pgr_manifest_writer_free(w);
}

static void make_manifest(const struct file *files, size_t n)
{
	struct pgr_manifest_writer *w = manifest_begin();

	for (size_t i = 0; i < n; i++)
		manifest_add(w, &files[i]);
	manifest_end(w);
}

/* ---- our side ---- */

static int post(struct pgr_sink_file *f, const uint8_t *data, size_t from, size_t len)
{
	struct pgr_block *b;

	if (pgr_pool_get(pool, &b, &err) != PGR_OK)
		return PGR_ERR;
	memcpy(b->data, data + from, len);
	b->len = len;
	return pgr_dirsink_post(sink, f, from, &b, &err);
}

static int create(const struct file *f, struct pgr_sink_file **out)
{
	char leaf[16];

	snprintf(leaf, sizeof(leaf), "%u", made++);
	if (pgr_dirsink_create(sink, dir, leaf, leaf, 0600, out, &err) != PGR_OK)
		return PGR_ERR;
	if (pgr_stream_check_file(check, sink, *out, f->oid, f->name, f->size, &err) == PGR_OK)
		return PGR_OK;
	pgr_dirsink_abandon(sink, out);
	return PGR_ERR;
}

static int write_file(const struct file *f, const uint8_t *data)
{
	struct pgr_sink_file *out;

	if (create(f, &out) != PGR_OK)
		return PGR_ERR;
	for (size_t at = 0; at < f->size; at += BLOCK) {
		if (post(out, data, at, f->size - at < BLOCK ? f->size - at : BLOCK) != PGR_OK) {
			pgr_dirsink_abandon(sink, &out);
			return PGR_ERR;
		}
	}
	return pgr_dirsink_seal(sink, &out, f->size, &err);
}

static int receive_data(const struct file *f, const uint8_t *data)
{
	switch (f->way) {
	case WRITTEN:
		return write_file(f, data);
	case HELD:
		return pgr_stream_check_content(check, f->name, data, f->size, &err);
	case LEFT_OUT:
		break;
	}
	return pgr_stream_check_left_out(check, f->name, f->size, &err);
}

static int receive(const struct file *f)
{
	uint8_t *data = content_of(f);
	int rc = receive_data(f, data);

	free(data);
	return rc;
}

/* With the byte at `off` changed. */
static int receive_flipped(const struct file *f, size_t off)
{
	uint8_t *data = content_of(f);
	int rc;

	data[off] ^= 0x10;
	rc = receive_data(f, data);
	free(data);
	return rc;
}

static void receive_all(const struct file *files, size_t n)
{
	for (size_t i = 0; i < n; i++)
		must(receive(&files[i]));
}

static int receive_manifest(size_t chunk)
{
	for (size_t at = 0; at < manifest.len; at += chunk)
		if (pgr_stream_check_manifest(check, manifest.data + at,
					      manifest.len - at < chunk ? manifest.len - at : chunk, &err) != PGR_OK)
			return PGR_ERR;
	return pgr_stream_check_manifest_end(check, &err);
}

/* The manifest, and what comes of it all. */
static int verdict(void)
{
	if (receive_manifest(1000) != PGR_OK || pgr_dirsink_drain(sink, &err) != PGR_OK)
		return PGR_ERR;
	return pgr_stream_check_compare(check, &err);
}

static void PGR_PRINTF(1, 2) must_differ(const char *fmt, ...)
{
	char want[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(verdict(), PGR_ERR);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.hint, "TLS"));
}

/* ---- all is well ---- */

static const enum pgr_digest_algo algos[] = {PGR_DIGEST_NONE, PGR_DIGEST_CRC32C, PGR_DIGEST_SHA256, PGR_DIGEST_SHA512};
#define NALGOS ((int)(sizeof(algos) / sizeof(algos[0])))

START_TEST(as_sent)
{
	algo = algos[_i / 2];
	writers = _i % 2 ? 2 : 0;
	begin();
	make_manifest(standard, NSTANDARD);
	receive_all(standard, NSTANDARD);
	must(verdict());
	ck_assert_uint_eq(pgr_stream_check_files(check), NSTANDARD);
}
END_TEST

START_TEST(nothing_at_all)
{
	begin();
	make_manifest(NULL, 0);
	must(verdict());
	ck_assert_uint_eq(pgr_stream_check_files(check), 0);
}
END_TEST

/* The manifest may come in any pieces, and its order is its own. */
START_TEST(any_pieces)
{
	struct pgr_manifest_writer *w = manifest_begin();

	for (size_t i = NSTANDARD; i-- > 0;)
		manifest_add(w, &standard[i]);
	manifest_end(w);
	begin();
	receive_all(standard, NSTANDARD);
	must(receive_manifest((size_t)_i));
	must(pgr_dirsink_drain(sink, &err));
	must(pgr_stream_check_compare(check, &err));
}
END_TEST

/* More than fits into one piece of memory, with names of all lengths. */
#define MANY 3000

static void many_files(struct file *files)
{
	for (unsigned i = 0; i < MANY; i++) {
		char *name = malloc(300);
		int n = snprintf(name, 300, "base/5/%u", i);

		memset(name + n, 'x', i % 240);
		name[n + (int)(i % 240)] = '\0';
		files[i] = (struct file){0, name, name, i % 7, WRITTEN};
	}
}

START_TEST(many)
{
	struct file *files = calloc(MANY, sizeof(*files));

	writers = 2;
	many_files(files);
	make_manifest(files, MANY);
	begin();
	if (_i < 0)
		receive_all(files, MANY);
	for (int i = 0; _i >= 0 && i < MANY; i++)
		if (i != _i)
			must(receive(&files[i]));
	if (_i < 0)
		must(verdict());
	else
		must_differ("file \"%s\" is in the server's backup manifest, but was not received", files[_i].name);
	for (int i = 0; i < MANY; i++)
		free((void *)(uintptr_t)files[i].name);
	free(files);
}
END_TEST

/* ---- differences ---- */

START_TEST(byte_changed)
{
	const struct file *f = &standard[_i];
	const size_t offs[] = {0, f->size / 2, f->size - 1};

	make_manifest(standard, NSTANDARD);
	if (f->size == 0 || f->way == LEFT_OUT)
		return;
	for (int i = 0; i < 2 * 3; i++) {
		algo = i % 2 ? PGR_DIGEST_SHA256 : PGR_DIGEST_CRC32C;
		writers = i % 2 ? 0 : 2;
		make_manifest(standard, NSTANDARD);
		begin();
		for (size_t k = 0; k < NSTANDARD; k++)
			must((int)k == _i ? receive_flipped(f, offs[i / 2]) : receive(&standard[k]));
		if (f->listed == NULL)
			must(verdict());
		else
			must_differ("file \"%s\" does not match its checksum in the server's backup manifest",
				    f->listed);
		ck_assert_str_eq(err.detail, "");
		end();
	}
}
END_TEST

/* Without checksums that is not seen: what was asked for is what one gets. */
START_TEST(byte_changed_without_checksums)
{
	algo = PGR_DIGEST_NONE;
	begin();
	make_manifest(standard, NSTANDARD);
	must(receive_flipped(&standard[0], 3));
	receive_all(standard + 1, NSTANDARD - 1);
	must(verdict());
}
END_TEST

START_TEST(size_changed)
{
	struct file files[NSTANDARD];
	const struct file *f = &standard[_i];

	for (int none = 0; none < 2; none++) {
		algo = none ? PGR_DIGEST_NONE : PGR_DIGEST_CRC32C;
		make_manifest(standard, NSTANDARD);
		memcpy(files, standard, sizeof(files));
		files[_i].size++;
		begin();
		receive_all(files, NSTANDARD);
		if (f->listed == NULL)
			must(verdict());
		else
			must_differ("file \"%s\" was received with %zu bytes, but the server's backup manifest says "
				    "%zu",
				    f->listed, f->size + 1, f->size);
		end();
	}
}
END_TEST

START_TEST(file_missing)
{
	const struct file *f = &standard[_i];

	make_manifest(standard, NSTANDARD);
	begin();
	for (size_t k = 0; k < NSTANDARD; k++)
		if ((int)k != _i)
			must(receive(&standard[k]));
	if (f->listed == NULL)
		must(verdict());
	else
		must_differ("file \"%s\" is in the server's backup manifest, but was not received", f->listed);
}
END_TEST

START_TEST(file_unlisted)
{
	const struct file *f = &standard[_i];
	struct pgr_manifest_writer *w = manifest_begin();

	for (size_t k = 0; k < NSTANDARD; k++)
		if ((int)k != _i)
			manifest_add(w, &standard[k]);
	manifest_end(w);
	begin();
	receive_all(standard, NSTANDARD);
	if (strncmp(f->name, "pg_wal/", 7) == 0)
		must(verdict());
	else
		must_differ("file \"%s\" was received, but is not in the server's backup manifest", f->listed);
}
END_TEST

/* Nothing but pg_wal itself is excused. */
START_TEST(nearly_wal)
{
	static const struct file files[] = {
		{0, "pg_walx", NULL, 1, WRITTEN},
		{0, "base/pg_wal/1", NULL, 1, WRITTEN},
		{7, "pg_wal/1", NULL, 1, WRITTEN},
	};

	begin();
	make_manifest(NULL, 0);
	must(receive(&files[_i]));
	must_differ("file \"%s%s\" was received, but is not in the server's backup manifest",
		    files[_i].oid != 0 ? "pg_tblspc/7/" : "", files[_i].name);
}
END_TEST

START_TEST(same_name_elsewhere)
{
	struct file other = standard[5];

	make_manifest(standard + 5, 1);
	other.oid = 16386;
	begin();
	must(receive(&other));
	must_differ("file \"pg_tblspc/16385/PG_15/5/1234\" is in the server's backup manifest, but was not received");
	ck_assert_str_eq(err.detail, "2 files are not as the manifest says.");
}
END_TEST

START_TEST(file_twice)
{
	make_manifest(standard, 1);
	begin();
	must(receive(&standard[0]));
	must(receive(&standard[0]));
	must_differ("file \"backup_label\" was received, but is not in the server's backup manifest");
}
END_TEST

/* The first by name is the one that is told of. */
START_TEST(several)
{
	make_manifest(standard, 4);
	begin();
	must(receive_flipped(&standard[2], 1));
	must(receive_flipped(&standard[1], 1));
	must(receive(&standard[0]));
	must(receive(&standard[4]));
	must_differ("file \"PG_VERSION\" was received, but is not in the server's backup manifest");
	ck_assert_str_eq(err.detail, "4 files are not as the manifest says.");
}
END_TEST

START_TEST(other_kind_of_checksum)
{
	static const char *const says[] = {"SHA256 instead of CRC32C", "NONE instead of CRC32C",
					   "CRC32C instead of NONE"};
	static const enum pgr_digest_algo sent[] = {PGR_DIGEST_SHA256, PGR_DIGEST_NONE, PGR_DIGEST_CRC32C};

	algo = sent[_i];
	make_manifest(standard, 1);
	algo = _i == 2 ? PGR_DIGEST_NONE : PGR_DIGEST_CRC32C;
	begin();
	must(receive(&standard[0]));
	must_differ("file \"backup_label\": the server's backup manifest has a checksum of kind %s", says[_i]);
}
END_TEST

START_TEST(not_finished)
{
	struct pgr_sink_file *f;

	make_manifest(standard, 1);
	begin();
	must(create(&standard[0], &f));
	must_differ("file \"backup_label\" was not received to its end");
	pgr_dirsink_abandon(sink, &f);
}
END_TEST

/* ---- the manifest itself ---- */

/* Wherever a byte of it is changed. */
START_TEST(manifest_changed)
{
	make_manifest(standard, 5);
	for (size_t at = 0; at < manifest.len; at++) {
		begin();
		receive_all(standard, 5);
		manifest.data[at] ^= 1;
		ck_assert_msg(verdict() == PGR_ERR, "byte %zu", at);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_msg(strstr(err.msg, "manifest") != NULL, "%s", err.msg);
		ck_assert_ptr_nonnull(strstr(err.hint, "TLS"));
		manifest.data[at] ^= 1;
		end();
		for (unsigned i = 0; i < 5; i++) {
			char name[16];

			snprintf(name, sizeof(name), "%u", --made);
			ck_assert_int_eq(unlinkat(dir, name, 0), 0);
		}
	}
}
END_TEST

START_TEST(manifest_cut)
{
	make_manifest(standard, 1);
	begin();
	must(receive(&standard[0]));
	manifest.len -= (size_t)_i;
	ck_assert_int_eq(receive_manifest(100), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.hint, "TLS"));
}
END_TEST

/* Spaces between two tokens, for ever. */
START_TEST(manifest_endless)
{
	char blank[4096];
	size_t fed = 0;
	int rc;

	memset(blank, ' ', sizeof(blank));
	begin();
	for (int i = 0; i < 100; i++)
		must(receive(&standard[4]));
	rc = pgr_stream_check_manifest(check, "{", 1, &err);
	while (rc == PGR_OK && fed < 100u << 20) {
		rc = pgr_stream_check_manifest(check, blank, sizeof(blank), &err);
		fed += sizeof(blank);
	}
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_str_eq(err.msg, "backup manifest is larger than that of 100 files can be");
	ck_assert_uint_ge(fed, 1u << 20);
	ck_assert_uint_le(fed, 2u << 20);
}
END_TEST

/* What servers write at most fits: names in which every byte is escaped, the longest checksum. */
START_TEST(manifest_large)
{
	struct file *files = calloc(MANY, sizeof(*files));

	algo = PGR_DIGEST_SHA512;
	for (unsigned i = 0; i < MANY; i++) {
		char *name = malloc(256);

		memset(name, 1, 255);
		snprintf(name + 200, 56, "%u", i);
		files[i] = (struct file){0, name, name, 0, LEFT_OUT};
	}
	make_manifest(files, MANY);
	ck_assert_uint_gt(manifest.len, (size_t)MANY * 200 * 6);
	begin();
	receive_all(files, MANY);
	must(verdict());
	for (int i = 0; i < MANY; i++)
		free((void *)(uintptr_t)files[i].name);
	free(files);
}
END_TEST

/* ---- what can fail ---- */

/* A writer that cannot tell the sum stops the run: the file must not pass as checked. */
START_TEST(sum_failed)
{
	struct pgr_sink_file *f;
	uint8_t *data = content_of(&standard[1]);
	int rc = PGR_OK;

	writers = (unsigned)_i;
	begin();
	make_manifest(standard + 1, 1);
	must(create(&standard[1], &f));
	must(post(f, data, 0, 1000));
	must(post(f, data, 500, 1000)); /* overlaps */
	rc = pgr_dirsink_seal(sink, &f, standard[1].size, &err);
	if (rc == PGR_OK)
		rc = pgr_dirsink_drain(sink, &err);
	ck_assert(pgr_stop_is_set(stop));
	pgr_stop_why(stop, &err);
	ck_assert_str_eq(err.msg, "file \"base/5/1234\": blocks of a file overlap");
	free(data);
	(void)rc;
}
END_TEST

START_TEST(name_too_long)
{
	char name[PATH_MAX + 1];

	memset(name, 'x', PATH_MAX);
	name[PATH_MAX] = '\0';
	begin();
	ck_assert_int_eq(pgr_stream_check_left_out(check, name, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	must(pgr_stream_check_left_out(check, name + 1, 1, &err));
	ck_assert_uint_eq(pgr_stream_check_files(check), 1);
}
END_TEST

static int run_all(void)
{
	for (size_t i = 0; i < NSTANDARD; i++)
		if (receive(&standard[i]) != PGR_OK)
			return PGR_ERR;
	return verdict();
}

static bool one_fault(unsigned at)
{
	static struct pgr_fault_sys f; /* outlives the sink */
	bool failed;
	int rc;

	pgr_fault_sys_init(&f, at, EIO);
	sys = &f.sys;
	begin();
	rc = run_all();
	failed = f.triggered && strcmp(f.failed_call, "set_direct") != 0; /* there is another way */
	ck_assert_int_eq(rc, failed ? PGR_ERR : PGR_OK);
	if (failed && err.cls == PGR_E_STOPPED)
		pgr_stop_why(stop, &err);
	if (failed)
		ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	end();
	return f.triggered;
}

START_TEST(faults)
{
	unsigned at = 1;

	writers = (unsigned)_i;
	sync_files = true;
	algo = _i == 1 ? PGR_DIGEST_SHA256 : PGR_DIGEST_CRC32C;
	make_manifest(standard, NSTANDARD);
	while (one_fault(at))
		at++;
	ck_assert_uint_gt(at, 40);
}
END_TEST

/* Given up in the middle: blocks are under way, sums half done. */
START_TEST(given_up)
{
	struct pgr_sink_file *f;
	uint8_t *data = content_of(&standard[1]);
	struct pgr_err why;

	writers = (unsigned)_i;
	algo = PGR_DIGEST_SHA256;
	begin();
	must(receive(&standard[0]));
	must(create(&standard[1], &f));
	must(post(f, data, 0, BLOCK));
	must(post(f, data, BLOCK, BLOCK));
	pgr_err_set(&why, PGR_E_STOPPED, "interrupted by a signal");
	pgr_stop_post(stop, &why);
	pgr_dirsink_abandon(sink, &f);
	free(data);
}
END_TEST

static Suite *stream_check_suite(void)
{
	Suite *s = suite_create("stream_check");
	TCase *t = tcase_create("stream_check");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	tcase_add_loop_test(t, as_sent, 0, 2 * NALGOS);
	tcase_add_test(t, nothing_at_all);
	tcase_add_loop_test(t, any_pieces, 1, 40);
	tcase_add_loop_test(t, many, -1, 2);
	tcase_add_loop_test(t, many, MANY - 1, MANY);
	tcase_add_loop_test(t, byte_changed, 0, NSTANDARD);
	tcase_add_test(t, byte_changed_without_checksums);
	tcase_add_loop_test(t, size_changed, 0, NSTANDARD);
	tcase_add_loop_test(t, file_missing, 0, NSTANDARD);
	tcase_add_loop_test(t, file_unlisted, 0, NSTANDARD);
	tcase_add_loop_test(t, nearly_wal, 0, 3);
	tcase_add_test(t, same_name_elsewhere);
	tcase_add_test(t, file_twice);
	tcase_add_test(t, several);
	tcase_add_loop_test(t, other_kind_of_checksum, 0, 3);
	tcase_add_test(t, not_finished);
	tcase_add_test(t, manifest_changed);
	tcase_add_loop_test(t, manifest_cut, 1, 120);
	tcase_add_test(t, manifest_endless);
	tcase_add_test(t, manifest_large);
	tcase_add_loop_test(t, sum_failed, 0, 2);
	tcase_add_test(t, name_too_long);
	tcase_add_loop_test(t, faults, 0, 3);
	tcase_add_loop_test(t, given_up, 0, 3);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(stream_check_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
