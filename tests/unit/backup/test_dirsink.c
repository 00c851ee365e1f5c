#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/dirsink.h"
#include "common/block.h"
#include "common/fs_tree.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"

#define BLOCK	   ((size_t)4096)
#define BLOCKS	   6
#define OPEN_LIMIT 256 /* of the header's contract */

/* ---- a sink in a directory of its own ---- */

struct fixture {
	char dir[64];
	int dirfd;
	int fds_before;
	struct pgr_fault_sys fault;
	struct pgr_stop *stop;
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
};

static const unsigned writer_counts[] = {0, 1, 3};
#define NWRITERS ((int)(sizeof(writer_counts) / sizeof(writer_counts[0])))

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static void setup(struct fixture *f, unsigned writers, bool sync)
{
	const char *tmp = getenv("TMPDIR");
	struct pgr_dirsink_opts opts = {.writers = writers, .sync = sync};
	struct pgr_err err;

	memset(f, 0, sizeof(*f));
	f->fds_before = count_fds();
	snprintf(f->dir, sizeof(f->dir), "%s/dirsink.XXXXXX", tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(f->dir));
	f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(f->dirfd, 0);
	pgr_fault_sys_init(&f->fault, 0, 0);
	ck_assert_int_eq(pgr_stop_new(&f->stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_pool_new(&f->pool, BLOCKS, BLOCK, f->stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_new(&f->sink, &f->fault.sys, f->pool, f->stop, &opts, &err), PGR_OK);
}

/* pgr_pool_free asserts that all blocks are back; descriptors are counted here. */
static void teardown(struct fixture *f)
{
	struct pgr_err err;

	pgr_dirsink_free(f->sink);
	pgr_pool_free(f->pool);
	pgr_stop_free(f->stop);
	close(f->dirfd);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), f->dir, true, &err), PGR_OK);
	ck_assert_int_eq(count_fds(), f->fds_before);
}

static struct pgr_sink_file *create(struct fixture *f, const char *leaf)
{
	struct pgr_sink_file *file;
	struct pgr_err err;
	char path[300];

	snprintf(path, sizeof(path), "where/%s", leaf);
	ck_assert_msg(pgr_dirsink_create(f->sink, f->dirfd, leaf, path, 0600, &file, &err) == PGR_OK, "%s", err.msg);
	return file;
}

/* The byte that belongs at `off` of file number `seed`. */
static uint8_t byte_at(unsigned seed, uint64_t off)
{
	return (uint8_t)(off * 7 + off / 4096 * 13 + seed * 31 + 1);
}

static int post(struct fixture *f, struct pgr_sink_file *file, unsigned seed, uint64_t off, size_t len,
		struct pgr_err *err)
{
	struct pgr_block *b;
	int rc;

	if (pgr_pool_get(f->pool, &b, err) != PGR_OK)
		return PGR_ERR;
	ck_assert_uint_le(len, b->cap);
	for (size_t i = 0; i < len; i++)
		b->data[i] = byte_at(seed, off + i);
	b->len = len;
	rc = pgr_dirsink_post(f->sink, file, off, &b, err);
	ck_assert_ptr_null(b);
	return rc;
}

/* A whole file of `size` bytes, its blocks from the last to the first. */
static int put_file(struct fixture *f, const char *leaf, unsigned seed, uint64_t size, struct pgr_err *err)
{
	struct pgr_sink_file *file;
	char path[300];
	uint64_t nblocks = (size + BLOCK - 1) / BLOCK;
	int rc;

	snprintf(path, sizeof(path), "where/%s", leaf);
	rc = pgr_dirsink_create(f->sink, f->dirfd, leaf, path, 0600, &file, err);
	if (rc != PGR_OK) {
		ck_assert_ptr_null(file);
		return rc;
	}
	while (rc == PGR_OK && nblocks-- > 0) {
		uint64_t off = nblocks * BLOCK;

		rc = post(f, file, seed, off, size - off < BLOCK ? (size_t)(size - off) : BLOCK, err);
	}
	if (rc == PGR_OK) {
		rc = pgr_dirsink_seal(f->sink, &file, size, err);
		ck_assert_ptr_null(file);
	}
	pgr_dirsink_abandon(f->sink, &file);
	ck_assert_ptr_null(file);
	return rc;
}

static void assert_file(struct fixture *f, const char *leaf, unsigned seed, uint64_t size)
{
	uint8_t *data = malloc(size + 2);
	uint64_t same = 0;
	int fd = openat(f->dirfd, leaf, O_RDONLY);

	ck_assert_msg(fd >= 0, "%s is missing", leaf);
	ck_assert_int_eq(read(fd, data, size + 2), (ssize_t)size);
	while (same < size && data[same] == byte_at(seed, same))
		same++;
	ck_assert_msg(same == size, "%s differs at %ju", leaf, (uintmax_t)same);
	close(fd);
	free(data);
}

static off_t size_of(struct fixture *f, const char *leaf)
{
	struct stat st;

	ck_assert_int_eq(fstatat(f->dirfd, leaf, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_size;
}

static void assert_drained(struct fixture *f)
{
	struct pgr_err err;

	ck_assert_msg(pgr_dirsink_drain(f->sink, &err) == PGR_OK, "%s", err.msg);
}

static void post_stop(struct fixture *f)
{
	struct pgr_err why;

	pgr_err_set(&why, PGR_E_STOPPED, "asked to stop");
	pgr_stop_post(f->stop, &why);
}

/* ---- what it is for ---- */

START_TEST(writes_files)
{
	static const uint64_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 10 * 4096 + 5};
	struct fixture f;
	struct pgr_err err;
	uint64_t total = 0;
	char leaf[32];

	setup(&f, writer_counts[_i], true);
	for (unsigned i = 0; i < 70; i++) {
		snprintf(leaf, sizeof(leaf), "f%u", i);
		ck_assert_msg(put_file(&f, leaf, i, sizes[i % 7], &err) == PGR_OK, "%s", err.msg);
		total += sizes[i % 7];
	}
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 70);
	ck_assert_uint_eq(pgr_dirsink_bytes(f.sink), total);
	ck_assert_uint_eq(f.fault.fsyncs, 70);
	ck_assert_uint_eq(f.fault.closes, 70);
	for (unsigned i = 0; i < 70; i++) {
		snprintf(leaf, sizeof(leaf), "f%u", i);
		assert_file(&f, leaf, i, sizes[i % 7]);
	}
	teardown(&f);
}
END_TEST

START_TEST(no_sync)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], false);
	ck_assert_int_eq(put_file(&f, "a", 1, 9000, &err), PGR_OK);
	ck_assert_int_eq(put_file(&f, "b", 1, 0, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_uint_eq(f.fault.fsyncs, 0);
	ck_assert_uint_eq(f.fault.closes, 2);
	assert_file(&f, "a", 1, 9000);
	teardown(&f);
}
END_TEST

/* A drain leaves the sink usable, and one without files has nothing to wait for. */
START_TEST(drain_again)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	assert_drained(&f);
	ck_assert_int_eq(put_file(&f, "a", 1, 9000, &err), PGR_OK);
	assert_drained(&f);
	assert_drained(&f);
	ck_assert_int_eq(put_file(&f, "b", 2, 5000, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 2);
	assert_file(&f, "b", 2, 5000);
	teardown(&f);
}
END_TEST

/* Short writes are continued. */
START_TEST(short_writes)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	f.fault.short_io = true;
	ck_assert_int_eq(put_file(&f, "a", 3, 20000, &err), PGR_OK);
	assert_drained(&f);
	assert_file(&f, "a", 3, 20000);
	teardown(&f);
}
END_TEST

static int take_direct(const struct pgr_sys *sys, int fd, int on)
{
	(void)sys;
	(void)fd;
	(void)on;
	return 0;
}

/* Of a padded block half a page and more is written, then nothing any more in this way. */
static ssize_t stop_in_padding(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	const struct pgr_sys *real = ((const struct pgr_fault_sys *)sys)->real;

	if (off == 4096 && len == 4096)
		return real->pwrite(real, fd, buf, 2048, off);
	if (off == 4096 + 2048) {
		errno = EINVAL;
		return -1;
	}
	return real->pwrite(real, fd, buf, len, off);
}

/* O_DIRECT that writes a part and then refuses the rest leaves zeros behind the end, which are cut. */
START_TEST(direct_write_that_stops_in_the_padding)
{
	struct pgr_sink_file *file;
	struct fixture f;
	struct pgr_err err;

	setup(&f, 0, true);
	f.fault.sys.set_direct = take_direct;
	f.fault.sys.pwrite = stop_in_padding;
	file = create(&f, "a");
	ck_assert_int_eq(post(&f, file, 1, 0, 4096, &err), PGR_OK);
	ck_assert_int_eq(post(&f, file, 1, 4096, 100, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 4196, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_int_eq(size_of(&f, "a"), 4196);
	assert_file(&f, "a", 1, 4196);
	teardown(&f);
}
END_TEST

/* The end that nobody sent is a hole; what was sent beyond the end is cut. */
START_TEST(size_is_what_the_seal_says)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *file;

	setup(&f, writer_counts[_i], true);
	file = create(&f, "tail");
	ck_assert_int_eq(post(&f, file, 1, 4096, 100, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 1000000, &err), PGR_OK);
	file = create(&f, "hole");
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 12345, &err), PGR_OK);
	file = create(&f, "cut");
	ck_assert_int_eq(post(&f, file, 1, 0, 4096, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 5, &err), PGR_OK);
	file = create(&f, "nothing");
	ck_assert_int_eq(post(&f, file, 1, 0, 0, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 0, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_int_eq(size_of(&f, "tail"), 1000000);
	ck_assert_int_eq(size_of(&f, "hole"), 12345);
	ck_assert_int_eq(size_of(&f, "nothing"), 0);
	assert_file(&f, "cut", 1, 5);
	teardown(&f);
}
END_TEST

START_TEST(modes)
{
	static const mode_t want[] = {0600, 0640, 0666, 0400};
	struct fixture f;
	struct pgr_err err;
	mode_t mask = umask(0077);

	setup(&f, writer_counts[_i], true);
	for (size_t i = 0; i < 4; i++) {
		struct pgr_sink_file *file;
		struct stat st;
		char leaf[16];

		snprintf(leaf, sizeof(leaf), "m%zu", i);
		ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, leaf, leaf, want[i], &file, &err), PGR_OK);
		ck_assert_int_eq(post(&f, file, 1, 0, 10, &err), PGR_OK);
		ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, 10, &err), PGR_OK);
		ck_assert_int_eq(fstatat(f.dirfd, leaf, &st, 0), 0);
		ck_assert_uint_eq(st.st_mode & 07777, want[i]);
	}
	assert_drained(&f);
	umask(mask);
	teardown(&f);
}
END_TEST

/* Neither an old file nor what a link points to is ever written to. */
START_TEST(exists_already)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *file;

	setup(&f, writer_counts[_i], true);
	ck_assert_int_eq(put_file(&f, "old", 1, 100, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_int_eq(symlinkat("elsewhere", f.dirfd, "link"), 0);
	ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, "old", "where/old", 0600, &file, &err), PGR_ERR);
	ck_assert_ptr_null(file);
	ck_assert_int_eq(err.sys_errno, EEXIST);
	ck_assert_str_eq(err.msg, "could not create file \"where/old\": File exists");
	ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, "link", "where/link", 0600, &file, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, EEXIST);
	ck_assert_int_ne(faccessat(f.dirfd, "elsewhere", F_OK, 0), 0);
	/* the caller's mistake is its own: the sink goes on, and no place is lost */
	for (int i = 0; i < OPEN_LIMIT; i++)
		ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, "old", "old", 0600, &file, &err), PGR_ERR);
	ck_assert_int_eq(put_file(&f, "new", 1, 100, &err), PGR_OK);
	assert_drained(&f);
	assert_file(&f, "old", 1, 100);
	teardown(&f);
}
END_TEST

START_TEST(too_large)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *file;

	setup(&f, writer_counts[_i], true);
	file = create(&f, "a");
	ck_assert_int_eq(post(&f, file, 1, INT64_MAX, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_str_eq(err.msg, "file \"where/a\" is too large");
	ck_assert_int_eq(post(&f, file, 1, UINT64_MAX, 10, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	for (int i = 0; i < OPEN_LIMIT + 5; i++) { /* each of them is dropped */
		char leaf[32];

		ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, (uint64_t)INT64_MAX + 1, &err), PGR_ERR);
		ck_assert_ptr_null(file);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		snprintf(leaf, sizeof(leaf), "f%d", i);
		file = create(&f, leaf);
	}
	pgr_dirsink_abandon(f.sink, &file);
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 0);
	teardown(&f);
}
END_TEST

/* ---- in place ---- */

static void put_old(struct fixture *f, const char *leaf, unsigned seed, uint64_t size, mode_t mode)
{
	int fd = openat(f->dirfd, leaf, O_WRONLY | O_CREAT | O_EXCL, 0600);

	ck_assert_int_ge(fd, 0);
	for (uint64_t i = 0; i < size; i++) {
		uint8_t b = byte_at(seed, i);

		ck_assert_int_eq(pwrite(fd, &b, 1, (off_t)i), 1);
	}
	ck_assert_int_eq(fchmod(fd, mode), 0);
	close(fd);
}

static struct pgr_sink_file *open_old(struct fixture *f, const char *leaf)
{
	struct pgr_sink_file *file;
	struct pgr_err err;

	ck_assert_msg(pgr_dirsink_open(f->sink, f->dirfd, leaf, leaf, 0640, &file, &err) == PGR_OK, "%s", err.msg);
	return file;
}

/* What is not posted stays, up to the size that the seal says: longer, shorter, or as it was. */
static const struct {
	uint64_t was, off, size;
	size_t len; /* posted at off */
} in_place[] = {
	{10 * 4096, 2 * 4096, 10 * 4096, 4096},
	{10 * 4096, 2 * 4096, 10 * 4096, 0},
	{10 * 4096, 2 * 4096, 3 * 4096, 4096},
	{10 * 4096 + 5, 10 * 4096, 10 * 4096 + 7, 7},
	{10 * 4096, 9 * 4096, 9 * 4096 + 9, 9},
	{3 * 4096 + 5, 3 * 4096, 4 * 4096, 4096},
	{4096, 0, 4096, 4096},
	{4096, 0, 10, 0},
};

START_TEST(changes_in_place)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *file;
	struct stat st;

	for (size_t i = 0; i < sizeof(in_place) / sizeof(in_place[0]); i++) {
		setup(&f, writer_counts[_i], true);
		put_old(&f, "old", 1, in_place[i].was, 0600);
		file = open_old(&f, "old");
		if (in_place[i].len > 0)
			ck_assert_int_eq(post(&f, file, 1, in_place[i].off, in_place[i].len, &err), PGR_OK);
		ck_assert_int_eq(pgr_dirsink_seal(f.sink, &file, in_place[i].size, &err), PGR_OK);
		assert_drained(&f);
		assert_file(&f, "old", 1, in_place[i].size);
		ck_assert_int_eq(fstatat(f.dirfd, "old", &st, 0), 0);
		ck_assert_uint_eq(st.st_mode & 07777, 0640);
		ck_assert_uint_eq(f.fault.fsyncs, 1);
		teardown(&f);
	}
}
END_TEST

START_TEST(not_in_place)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *file;

	setup(&f, writer_counts[_i], true);
	ck_assert_int_eq(symlinkat("elsewhere", f.dirfd, "link"), 0);
	ck_assert_int_eq(mkfifoat(f.dirfd, "pipe", 0600), 0);
	ck_assert_int_eq(pgr_dirsink_open(f.sink, f.dirfd, "link", "where/link", 0600, &file, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, ELOOP);
	ck_assert_ptr_null(file);
	ck_assert_int_eq(pgr_dirsink_open(f.sink, f.dirfd, "none", "where/none", 0600, &file, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "could not open file \"where/none\": No such file or directory");
	ck_assert_int_eq(pgr_dirsink_open(f.sink, f.dirfd, "pipe", "where/pipe", 0600, &file, &err), PGR_ERR);
	ck_assert_ptr_null(file);
	assert_drained(&f);
	teardown(&f);
}
END_TEST

/* They take no place of those that are made: who opens them waits for nobody. */
START_TEST(in_place_is_not_counted)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *files[OPEN_LIMIT + 5];

	setup(&f, writer_counts[_i], true);
	put_old(&f, "old", 1, 100, 0600);
	for (int i = 0; i < OPEN_LIMIT + 5; i++)
		files[i] = open_old(&f, "old");
	ck_assert_int_eq(put_file(&f, "new", 2, 9000, &err), PGR_OK);
	for (int i = 0; i < OPEN_LIMIT + 5; i++) {
		if (i % 2 == 0)
			ck_assert_int_eq(pgr_dirsink_seal(f.sink, &files[i], 100, &err), PGR_OK);
		else
			pgr_dirsink_abandon(f.sink, &files[i]);
	}
	assert_drained(&f);
	assert_file(&f, "old", 1, 100);
	teardown(&f);
}
END_TEST

/* ---- files that are not finished ---- */

START_TEST(abandoned)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *none = NULL;

	setup(&f, writer_counts[_i], true);
	pgr_dirsink_abandon(f.sink, &none);
	for (unsigned i = 0; i < 400; i++) { /* more than may be open */
		struct pgr_sink_file *file;
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "f%u", i);
		file = create(&f, leaf);
		for (unsigned b = 0; b < i % 4; b++)
			ck_assert_int_eq(post(&f, file, i, b * BLOCK, BLOCK, &err), PGR_OK);
		pgr_dirsink_abandon(f.sink, &file);
		ck_assert_ptr_null(file);
	}
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 0);
	ck_assert_uint_eq(f.fault.fsyncs, 0);
	teardown(&f);
}
END_TEST

/* Handles that were neither sealed nor abandoned, and blocks in the queue, are the sink's to clean up. */
START_TEST(freed_with_files_open)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	for (unsigned i = 0; i < 5; i++) {
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "f%u", i);
		ck_assert_int_eq(post(&f, create(&f, leaf), i, 0, BLOCK, &err), PGR_OK);
	}
	teardown(&f);
}
END_TEST

/* Without a failure, what was sealed is finished even when nobody drained. */
START_TEST(freed_without_drain)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	for (unsigned i = 0; i < 20; i++) {
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "f%u", i);
		ck_assert_int_eq(put_file(&f, leaf, i, 5000, &err), PGR_OK);
	}
	pgr_dirsink_free(f.sink);
	f.sink = NULL;
	ck_assert_uint_eq(f.fault.fsyncs, 20);
	for (unsigned i = 0; i < 20; i++) {
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "f%u", i);
		assert_file(&f, leaf, i, 5000);
	}
	teardown(&f);
}
END_TEST

/* ---- stopping ---- */

START_TEST(stopped_from_outside)
{
	struct fixture f;
	struct pgr_err err;
	struct pgr_sink_file *open_file, *other;
	struct pgr_block *b;

	setup(&f, writer_counts[_i], true);
	ck_assert_int_eq(put_file(&f, "done", 1, 100, &err), PGR_OK);
	open_file = create(&f, "open");
	other = create(&f, "other");
	ck_assert_int_eq(post(&f, open_file, 1, 0, 100, &err), PGR_OK);
	ck_assert_int_eq(pgr_pool_get(f.pool, &b, &err), PGR_OK);
	post_stop(&f);

	ck_assert_int_eq(pgr_dirsink_post(f.sink, open_file, 100, &b, &err), PGR_ERR);
	ck_assert_ptr_null(b);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_str_eq(err.msg, "asked to stop");
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &open_file, 100, &err), PGR_ERR);
	ck_assert_ptr_null(open_file);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	pgr_dirsink_abandon(f.sink, &other);
	ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, "late", "late", 0600, &other, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_int_ne(faccessat(f.dirfd, "late", F_OK, 0), 0);
	ck_assert_int_eq(pgr_dirsink_drain(f.sink, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	teardown(&f);
}
END_TEST

struct creator {
	struct fixture *f;
	atomic_int made;
	struct pgr_sink_file *files[OPEN_LIMIT + 1];
	struct pgr_err err;
	int rc;
};

static void *create_many(void *arg)
{
	struct creator *c = arg;

	for (int i = 0; i <= OPEN_LIMIT; i++) {
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "f%d", i);
		c->rc = pgr_dirsink_create(c->f->sink, c->f->dirfd, leaf, leaf, 0600, &c->files[i], &c->err);
		if (c->rc != PGR_OK)
			break;
		atomic_store(&c->made, i + 1);
	}
	return NULL;
}

static struct creator *start_creator(struct fixture *f, pthread_t *thread)
{
	struct creator *c = calloc(1, sizeof(*c));

	c->f = f;
	ck_assert_int_eq(pthread_create(thread, NULL, create_many, c), 0);
	while (atomic_load(&c->made) < OPEN_LIMIT)
		usleep(1000);
	return c;
}

/* One file more than may be open waits, for the end of another file... */
START_TEST(open_files_are_bounded)
{
	struct fixture f;
	struct creator *c;
	pthread_t thread;
	struct pgr_err err;

	setup(&f, writer_counts[_i], false);
	c = start_creator(&f, &thread);
	for (int i = 0; i < 20; i++) {
		usleep(1000);
		ck_assert_int_eq(atomic_load(&c->made), OPEN_LIMIT);
	}
	if (_i == 0)
		pgr_dirsink_abandon(f.sink, &c->files[7]);
	else
		ck_assert_int_eq(pgr_dirsink_seal(f.sink, &c->files[7], 0, &err), PGR_OK);
	pthread_join(thread, NULL);
	ck_assert_int_eq(c->rc, PGR_OK);
	ck_assert_int_eq(atomic_load(&c->made), OPEN_LIMIT + 1);
	teardown(&f);
	free(c);
}
END_TEST

/* ... or for the stop latch. */
START_TEST(stop_wakes_creation)
{
	struct fixture f;
	struct creator *c;
	pthread_t thread;

	setup(&f, writer_counts[_i], false);
	c = start_creator(&f, &thread);
	post_stop(&f);
	pthread_join(thread, NULL);
	ck_assert_int_eq(c->rc, PGR_ERR);
	ck_assert_int_eq(c->err.cls, PGR_E_STOPPED);
	ck_assert_int_eq(atomic_load(&c->made), OPEN_LIMIT);
	teardown(&f);
	free(c);
}
END_TEST

/* ---- a disk that holds its breath: writes wait for a gate ---- */

struct gated_sys {
	struct pgr_sys sys;
	const struct pgr_sys *below;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;	/* pwrite goes on */
	int waiting;	/* in pwrite */
	int fail_errno; /* what pwrite answers once open; 0: it writes */
	atomic_int fsyncs;
};

static struct gated_sys *gate_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct gated_sys *out;
	} u = {.in = sys};

	return u.out;
}

static int gated_fsync(const struct pgr_sys *sys, int fd)
{
	struct gated_sys *g = gate_of(sys);

	atomic_fetch_add(&g->fsyncs, 1);
	return g->below->fsync(g->below, fd);
}

static ssize_t gated_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	struct gated_sys *g = gate_of(sys);
	int fail_errno;

	pthread_mutex_lock(&g->lock);
	g->waiting++;
	pthread_cond_broadcast(&g->changed);
	while (!g->open)
		pthread_cond_wait(&g->changed, &g->lock);
	fail_errno = g->fail_errno;
	pthread_mutex_unlock(&g->lock);
	if (fail_errno != 0) {
		errno = fail_errno;
		return -1;
	}
	return g->below->pwrite(g->below, fd, buf, len, off);
}

static void gate_init(struct gated_sys *g)
{
	memset(g, 0, sizeof(*g));
	g->below = pgr_sys_real();
	g->sys = *g->below;
	g->sys.pwrite = gated_pwrite;
	g->sys.fsync = gated_fsync;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->changed, NULL);
}

static void gate_fini(struct gated_sys *g)
{
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->changed);
}

static void gate_await(struct gated_sys *g, int waiting)
{
	pthread_mutex_lock(&g->lock);
	while (g->waiting < waiting)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gated_sys *g, int fail_errno)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	g->fail_errno = fail_errno;
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

static void setup_gated(struct fixture *f, struct gated_sys *g, unsigned writers)
{
	struct pgr_dirsink_opts opts = {.writers = writers, .sync = true};
	struct pgr_err err;

	setup(f, 0, true);
	pgr_dirsink_free(f->sink);
	gate_init(g);
	ck_assert_int_eq(pgr_dirsink_new(&f->sink, &g->sys, f->pool, f->stop, &opts, &err), PGR_OK);
}

struct drainer {
	struct pgr_dirsink *sink;
	struct pgr_err err;
	int rc;
};

static void *drain_thread(void *arg)
{
	struct drainer *d = arg;

	d->rc = pgr_dirsink_drain(d->sink, &d->err);
	return NULL;
}

/* A file is sealed while its blocks wait; whoever writes the last one finishes it. */
START_TEST(sealed_before_written)
{
	struct fixture f;
	struct gated_sys g;
	struct drainer d;
	struct pgr_err err;
	pthread_t thread;

	setup_gated(&f, &g, 2);
	ck_assert_int_eq(put_file(&f, "a", 1, BLOCKS * BLOCK, &err), PGR_OK);
	gate_await(&g, 2);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 0);
	d.sink = f.sink;
	ck_assert_int_eq(pthread_create(&thread, NULL, drain_thread, &d), 0);
	gate_open(&g, 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(d.rc, PGR_OK);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 1);
	assert_file(&f, "a", 1, BLOCKS * BLOCK);
	teardown(&f);
	gate_fini(&g);
}
END_TEST

struct cutter {
	struct fixture *f;
	atomic_int sealed;
	int rc;
	struct pgr_err err;
};

static void *cut_many(void *arg)
{
	struct cutter *c = arg;

	for (int i = 0; i < 3 * OPEN_LIMIT; i++) {
		struct pgr_sink_file *file;

		c->rc = pgr_dirsink_open(c->f->sink, c->f->dirfd, "old", "old", 0600, &file, &c->err);
		if (c->rc == PGR_OK)
			c->rc = pgr_dirsink_seal(c->f->sink, &file, 10, &c->err);
		if (c->rc != PGR_OK)
			return NULL;
		atomic_store(&c->sealed, i + 1);
	}
	return NULL;
}

/* While the only writer holds its breath, files that are only cut do not pile up: one hangs in it, and so many wait. */
START_TEST(sealed_files_are_bounded)
{
	struct fixture f;
	struct gated_sys g;
	struct cutter c = {.f = &f};
	struct pgr_err err;
	pthread_t thread;

	setup_gated(&f, &g, 1);
	put_old(&f, "old", 1, 100, 0600);
	ck_assert_int_eq(put_file(&f, "a", 1, BLOCK, &err), PGR_OK);
	gate_await(&g, 1);
	ck_assert_int_eq(pthread_create(&thread, NULL, cut_many, &c), 0);
	while (atomic_load(&c.sealed) < OPEN_LIMIT - 1)
		usleep(1000);
	for (int i = 0; i < 20; i++) {
		usleep(1000);
		ck_assert_int_eq(atomic_load(&c.sealed), OPEN_LIMIT - 1);
	}
	if (_i == 0)
		gate_open(&g, 0);
	else
		post_stop(&f);
	pthread_join(thread, NULL);
	ck_assert_int_eq(c.rc, _i == 0 ? PGR_OK : PGR_ERR);
	if (_i == 0)
		assert_drained(&f);
	else
		gate_open(&g, 0);
	teardown(&f);
	gate_fini(&g);
}
END_TEST

/* Abandoned files with blocks in the queue are dropped by the writers of their last blocks: there is room again. */
START_TEST(abandoned_before_written)
{
	struct fixture f;
	struct gated_sys g;
	struct pgr_sink_file *files[OPEN_LIMIT];
	struct pgr_err err;
	char leaf[32];

	setup_gated(&f, &g, 2);
	for (int i = 0; i < OPEN_LIMIT; i++) {
		snprintf(leaf, sizeof(leaf), "f%d", i);
		files[i] = create(&f, leaf);
	}
	for (int i = 0; i < BLOCKS; i++)
		ck_assert_int_eq(post(&f, files[i], 1, 0, BLOCK, &err), PGR_OK);
	gate_await(&g, 2);
	for (int i = 0; i < BLOCKS; i++)
		pgr_dirsink_abandon(f.sink, &files[i]);
	gate_open(&g, 0);
	for (int i = 0; i < BLOCKS; i++) {
		snprintf(leaf, sizeof(leaf), "g%d", i);
		files[i] = create(&f, leaf);
	}
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 0);
	teardown(&f);
	ck_assert_int_eq(g.fsyncs, 0);
	gate_fini(&g);
}
END_TEST

/* A stop with work in the queue: nothing further is written, and the drain ends. */
START_TEST(stop_with_work_queued)
{
	struct fixture f;
	struct gated_sys g;
	struct drainer d;
	struct pgr_err err;
	pthread_t thread;

	setup_gated(&f, &g, 1);
	ck_assert_int_eq(put_file(&f, "a", 1, BLOCKS * BLOCK, &err), PGR_OK);
	ck_assert_int_eq(put_file(&f, "b", 1, 0, &err), PGR_OK);
	gate_await(&g, 1);
	d.sink = f.sink;
	ck_assert_int_eq(pthread_create(&thread, NULL, drain_thread, &d), 0);
	post_stop(&f);
	pthread_join(thread, NULL);
	ck_assert_int_eq(d.rc, PGR_ERR);
	ck_assert_int_eq(d.err.cls, PGR_E_STOPPED);
	gate_open(&g, 0);
	teardown(&f);
	ck_assert_int_eq(g.waiting, 1);
	gate_fini(&g);
}
END_TEST

/* The first failure is the one that is told, by the latch and by the drain; nothing is finished after it. */
START_TEST(disk_full)
{
	struct fixture f;
	struct gated_sys g;
	struct drainer d;
	struct pgr_err err, why;
	pthread_t thread;

	setup_gated(&f, &g, (unsigned)_i);
	for (int i = 0; i < _i; i++) { /* one block each: the one that fails is the last one */
		char leaf[] = {(char)('a' + i), '\0'};

		ck_assert_int_eq(put_file(&f, leaf, 1, BLOCK, &err), PGR_OK);
	}
	gate_await(&g, _i);
	d.sink = f.sink;
	ck_assert_int_eq(pthread_create(&thread, NULL, drain_thread, &d), 0);
	gate_open(&g, ENOSPC);
	pthread_join(thread, NULL);
	ck_assert_int_eq(d.rc, PGR_ERR);
	ck_assert_int_eq(d.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(d.err.sys_errno, ENOSPC);
	ck_assert_msg(strncmp(d.err.msg, "could not write to file \"where/", 31) == 0, "%s", d.err.msg);
	ck_assert_str_eq(d.err.msg + 32, "\": No space left on device");
	pgr_stop_why(f.stop, &why);
	ck_assert_int_eq(why.cls, PGR_E_SYSTEM);
	ck_assert_str_eq(why.msg, d.err.msg);
	ck_assert_int_eq(put_file(&f, "z", 1, 1, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 0);
	ck_assert_uint_eq(pgr_dirsink_bytes(f.sink), 0);
	teardown(&f);
	ck_assert_int_eq(g.fsyncs, 0);
	gate_fini(&g);
}
END_TEST

/* ---- every call fails once ---- */

/* Three files, with blocks, without, with a hole at the end.  Whatever fails is told with the name of its file. */
static int scenario(struct fixture *f, struct pgr_err *err)
{
	struct pgr_sink_file *file;
	int rc;

	if (put_file(f, "a", 1, 3 * BLOCK + 1, err) != PGR_OK || put_file(f, "b", 2, 0, err) != PGR_OK ||
	    pgr_dirsink_create(f->sink, f->dirfd, "c", "where/c", 0640, &file, err) != PGR_OK)
		return PGR_ERR;
	rc = post(f, file, 3, 0, 10, err);
	if (rc == PGR_OK)
		rc = pgr_dirsink_seal(f->sink, &file, 100, err);
	pgr_dirsink_abandon(f->sink, &file);
	return rc == PGR_OK ? pgr_dirsink_drain(f->sink, err) : rc;
}

/* A file system that refuses O_DIRECT is written to through the page cache; where it is known by is not needed then. */
static bool is_harmless(const char *call)
{
	return strcmp(call, "set_direct") == 0 || strcmp(call, "fstat") == 0;
}

static void assert_told(struct fixture *f, int rc, const struct pgr_err *err)
{
	const char *call = f->fault.failed_call;
	struct pgr_err why;

	ck_assert_msg(rc == PGR_ERR, "nobody saw that %s failed", call);
	ck_assert_msg(strstr(err->msg, "\"where/") != NULL, "%s: %s", call, err->msg);
	ck_assert_msg(strstr(err->msg, ": Input/output error") != NULL, "%s: %s", call, err->msg);
	if (strcmp(call, "openat") == 0 || strcmp(call, "fchmod") == 0)
		return; /* told to the source, which ends the run */
	pgr_stop_why(f->stop, &why);
	ck_assert_int_eq(why.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(why.sys_errno, EIO);
	ck_assert_str_eq(why.msg, err->msg);
}

START_TEST(every_call_fails)
{
	static const bool sync[] = {true, false};
	int kinds = 0;

	for (int s = 0; s < 2; s++) {
		for (unsigned n = 1;; n++) {
			struct fixture f;
			struct pgr_err err;
			bool triggered;
			int rc;

			setup(&f, writer_counts[_i], sync[s]);
			pgr_fault_sys_init(&f.fault, n, EIO);
			rc = scenario(&f, &err);
			triggered = atomic_load(&f.fault.triggered);
			if (triggered && !is_harmless(f.fault.failed_call))
				assert_told(&f, rc, &err);
			else
				ck_assert_msg(rc == PGR_OK, "%s", err.msg);
			teardown(&f);
			if (!triggered)
				break;
			kinds++;
		}
	}
	/* openat, fchmod, close of 3 files, 5 blocks, 1 way of writing (which two writers may choose at once), 1 size;
	 * with sync 3 fsyncs more */
	ck_assert_int_ge(kinds, 19 + 16);
	if (writer_counts[_i] < 2)
		ck_assert_int_eq(kinds, 19 + 16);
}
END_TEST

/* The reason of a failed fchmod must not leave a file behind that nobody knows of. */
START_TEST(no_file_after_failed_chmod)
{
	struct fixture f;
	struct pgr_sink_file *file;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	pgr_fault_sys_init(&f.fault, 2, EPERM);
	ck_assert_int_eq(pgr_dirsink_create(f.sink, f.dirfd, "a", "where/a", 0600, &file, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "could not set permissions on file \"where/a\": Operation not permitted");
	ck_assert_int_ne(faccessat(f.dirfd, "a", F_OK, 0), 0);
	teardown(&f);
}
END_TEST

/* An interrupted fsync is asked again; one that failed never. */
START_TEST(interrupted_fsync)
{
	struct fixture f;
	struct pgr_err err;

	setup(&f, writer_counts[_i], true);
	pgr_fault_sys_init(&f.fault, 3, EINTR); /* openat, fchmod, fsync */
	ck_assert_int_eq(put_file(&f, "a", 1, 0, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_str_eq(f.fault.failed_call, "fsync");
	ck_assert_uint_eq(f.fault.fsyncs, 1);
	teardown(&f);
}
END_TEST

/* ---- many at once ---- */

struct lane {
	struct fixture *f;
	unsigned number;
	struct pgr_sink_file *shared;
	unsigned nshared; /* lanes */
	int rc;
	struct pgr_err err;
};

#define SHARED_BLOCKS 64u

/* Files of its own, and every nth block of a file that all lanes write. */
static void *lane_main(void *arg)
{
	struct lane *l = arg;

	l->rc = PGR_OK;
	for (unsigned i = 0; i < 60 && l->rc == PGR_OK; i++) {
		char leaf[32];

		snprintf(leaf, sizeof(leaf), "l%u-%u", l->number, i);
		l->rc = put_file(l->f, leaf, i, i * 501, &l->err);
	}
	for (unsigned b = l->number; b < SHARED_BLOCKS && l->rc == PGR_OK; b += l->nshared)
		l->rc = post(l->f, l->shared, 9, b * BLOCK, BLOCK, &l->err);
	return NULL;
}

static void run_lanes(struct fixture *f, struct lane *lanes, unsigned n, struct pgr_sink_file *shared)
{
	pthread_t threads[8];

	for (unsigned i = 0; i < n; i++) {
		lanes[i] = (struct lane){.f = f, .number = i, .shared = shared, .nshared = n};
		ck_assert_int_eq(pthread_create(&threads[i], NULL, lane_main, &lanes[i]), 0);
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

START_TEST(many_lanes)
{
	struct fixture f;
	struct lane *lanes = calloc(4, sizeof(*lanes));
	struct pgr_sink_file *shared;
	struct pgr_err err;

	setup(&f, writer_counts[_i], false);
	shared = create(&f, "shared");
	run_lanes(&f, lanes, 4, shared);
	ck_assert_int_eq(pgr_dirsink_seal(f.sink, &shared, SHARED_BLOCKS * BLOCK, &err), PGR_OK);
	assert_drained(&f);
	ck_assert_uint_eq(pgr_dirsink_files(f.sink), 4 * 60 + 1);
	for (unsigned l = 0; l < 4; l++) {
		ck_assert_int_eq(lanes[l].rc, PGR_OK);
		for (unsigned i = 0; i < 60; i++) {
			char leaf[32];

			snprintf(leaf, sizeof(leaf), "l%u-%u", l, i);
			assert_file(&f, leaf, i, i * 501);
		}
	}
	assert_file(&f, "shared", 9, SHARED_BLOCKS * BLOCK);
	teardown(&f);
	free(lanes);
}
END_TEST

/* Somewhere in the midst a call fails: all lanes end, with one reason. */
START_TEST(many_lanes_fail)
{
	for (unsigned n = 3; n < 1500; n = n * 3 + 1) {
		struct fixture f;
		struct lane *lanes = calloc(4, sizeof(*lanes));
		struct pgr_sink_file *shared;
		struct pgr_err err;
		unsigned failed = 0;
		int rc;

		setup(&f, writer_counts[_i], false);
		shared = create(&f, "shared");
		pgr_fault_sys_init(&f.fault, n, ENOSPC);
		run_lanes(&f, lanes, 4, shared);
		for (unsigned l = 0; l < 4; l++)
			failed += lanes[l].rc != PGR_OK;
		rc = pgr_dirsink_seal(f.sink, &shared, SHARED_BLOCKS * BLOCK, &err);
		if (rc == PGR_OK)
			rc = pgr_dirsink_drain(f.sink, &err);
		if (atomic_load(&f.fault.triggered) && !is_harmless(f.fault.failed_call))
			ck_assert(failed > 0 || rc == PGR_ERR);
		teardown(&f);
		free(lanes);
	}
}
END_TEST

START_TEST(free_nothing)
{
	pgr_dirsink_free(NULL);
}
END_TEST

int main(void)
{
	const TTest *const with_writers[] = {
		writes_files,
		no_sync,
		drain_again,
		short_writes,
		modes,
		size_is_what_the_seal_says,
		too_large,
		exists_already,
		changes_in_place,
		not_in_place,
		in_place_is_not_counted,
		abandoned,
		freed_with_files_open,
		many_lanes,
		freed_without_drain,
		stop_wakes_creation,
		stopped_from_outside,
		every_call_fails,
		open_files_are_bounded,
		interrupted_fsync,
		no_file_after_failed_chmod,
		many_lanes_fail,
	};
	Suite *s = suite_create("dirsink");
	TCase *tc = tcase_create("dirsink");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	for (size_t i = 0; i < sizeof(with_writers) / sizeof(with_writers[0]); i++)
		tcase_add_loop_test(tc, with_writers[i], 0, NWRITERS);
	tcase_add_test(tc, direct_write_that_stops_in_the_padding);
	tcase_add_loop_test(tc, disk_full, 1, 4);
	tcase_add_test(tc, sealed_before_written);
	tcase_add_loop_test(tc, sealed_files_are_bounded, 0, 2);
	tcase_add_test(tc, abandoned_before_written);
	tcase_add_test(tc, stop_with_work_queued);
	tcase_add_test(tc, free_nothing);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
