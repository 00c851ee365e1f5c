#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_io.h"
#include "common/fs_tree.h"
#include "receiver/scan.h"
#include "receiver/walstore.h"
#include "tests/support/fault_sys.h"

#define SEG   PGR_WALSEG_MIN
#define FIRST ((pgr_lsn)3 * SEG) /* where tests begin */
#define TLI   1
#define SEG3  "000000010000000000000003"
#define SEG4  "000000010000000000000004"
#define SEG5  "000000010000000000000005"
#define SEG6  "000000010000000000000006"

static char dir[64];
static bool threaded; /* the store has its thread */
static bool bulk;     /* and one that writes */
static int write_back_errno;

/* ---- the witness: a system that knows what would survive a power cut ---- */

struct image { /* what of a file's content is on the disk */
	ino_t ino;
	uint8_t *bytes;
	size_t len;
};

struct entry { /* a name that is on the disk */
	char name[64];
	ino_t ino;
};

struct witness {
	struct pgr_sys sys; /* first */
	const struct pgr_sys *inner;
	ino_t dir_ino;
	pthread_mutex_t lock; /* two threads sync */
	struct image images[64];
	size_t nimages;
	struct entry entries[64];
	size_t nentries;

	atomic_size_t written_bytes; /* by pwrite */
	off_t lowest;		     /* of all pwrites */
	unsigned syncs;		     /* of any kind */

	atomic_int fallocate_errno;
	int direct_open_errno;
	int set_direct_errno;	/* when it is set */
	int direct_write_errno; /* of what is written then */
	int cache_write_errno;	/* of what is written otherwise */
	atomic_bool is_direct;
	atomic_uint direct_writes;
	atomic_bool held;	/* nothing is written as long as this is so */
	atomic_bool syncs_held; /* no file is synced by another thread */
	atomic_bool in_sync;	/* one would be */
	atomic_int sync_errno;
	atomic_uint most_partials; /* at any time that there were in the directory */
	bool is_behind;		   /* what other threads write takes some time */
	pthread_t owner;
	int direct_read_errno;
	bool disk_has_zeros; /* what was read past the cache */
	atomic_int direct_fd;
};

static struct witness *of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct witness *out;
	} u = {.in = sys};

	return u.out;
}

static struct image *image_of(struct witness *w, ino_t ino)
{
	for (size_t i = 0; i < w->nimages; i++)
		if (w->images[i].ino == ino)
			return &w->images[i];
	ck_assert_uint_lt(w->nimages, 64);
	w->images[w->nimages] = (struct image){.ino = ino};
	return &w->images[w->nimages++];
}

/* What the file holds now. */
static void take_image(struct image *im, int fd, const struct stat *st)
{
	char self[32];
	int again; /* the descriptor may be write-only */

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	again = open(self, O_RDONLY);
	ck_assert_int_ge(again, 0);
	im->ino = st->st_ino;
	im->len = (size_t)st->st_size;
	im->bytes = malloc(im->len + 1);
	ck_assert_ptr_nonnull(im->bytes);
	ck_assert_int_eq(pread(again, im->bytes, im->len, 0), (ssize_t)im->len);
	close(again);
}

static size_t take_entries(struct entry entries[64])
{
	DIR *d = opendir(dir);
	struct dirent *e;
	size_t n = 0;

	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] == '.' || e->d_type != DT_REG)
			continue;
		ck_assert_uint_lt(n, 64);
		snprintf(entries[n].name, 64, "%.63s", e->d_name);
		entries[n++].ino = e->d_ino;
	}
	closedir(d);
	return n;
}

/* What was there when the sync began is on the disk when it has ended; what came meanwhile may not be. */
static int note_sync(struct witness *w, int fd, int (*sync)(const struct pgr_sys *, int fd))
{
	struct image im = {0};
	struct entry entries[64];
	size_t nentries = 0;
	struct stat st;
	int rc, err;

	ck_assert_int_eq(fstat(fd, &st), 0);
	if (S_ISREG(st.st_mode) && !pthread_equal(pthread_self(), w->owner)) {
		atomic_store(&w->in_sync, true);
		while (atomic_load(&w->syncs_held))
			sched_yield();
	}
	if (atomic_load(&w->sync_errno) != 0) {
		errno = atomic_load(&w->sync_errno);
		return -1;
	}
	if (S_ISREG(st.st_mode))
		take_image(&im, fd, &st);
	else if (st.st_ino == w->dir_ino)
		nentries = take_entries(entries);
	rc = sync(w->inner, fd);
	err = errno;
	pthread_mutex_lock(&w->lock);
	if (rc == 0 && S_ISREG(st.st_mode)) {
		struct image *old = image_of(w, st.st_ino);

		free(old->bytes);
		*old = im;
	} else {
		free(im.bytes);
	}
	if (rc == 0 && st.st_ino == w->dir_ino) {
		memcpy(w->entries, entries, sizeof(entries));
		w->nentries = nentries;
	}
	w->syncs += rc == 0;
	pthread_mutex_unlock(&w->lock);
	errno = err;
	return rc;
}

static void count_partials(struct witness *w)
{
	struct entry entries[64];
	size_t n = take_entries(entries);
	unsigned partials = 0;

	for (size_t i = 0; i < n; i++)
		partials += strstr(entries[i].name, ".partial") != NULL;
	if (partials > atomic_load(&w->most_partials))
		atomic_store(&w->most_partials, partials);
}

static int w_openat(const struct pgr_sys *sys, int at, const char *path, int flags, mode_t mode)
{
	struct witness *w = of(sys);
	struct stat st;
	int fd;

	if ((flags & O_DIRECT) && w->direct_open_errno != 0) {
		errno = w->direct_open_errno;
		return -1;
	}
	fd = w->inner->openat(w->inner, at, path, flags, mode);
	if (fd >= 0 && (flags & O_DIRECT))
		w->direct_fd = fd;
	if (fd >= 0 && (flags & O_EXCL)) { /* a number of a file that is gone may be used again */
		ck_assert_int_eq(fstat(fd, &st), 0);
		pthread_mutex_lock(&w->lock);
		image_of(w, st.st_ino)->len = 0;
		pthread_mutex_unlock(&w->lock);
		count_partials(w);
	}
	return fd;
}

static int w_close(const struct pgr_sys *sys, int fd)
{
	struct witness *w = of(sys);

	if (fd == w->direct_fd)
		w->direct_fd = -1;
	return w->inner->close(w->inner, fd);
}

static ssize_t w_pread(const struct pgr_sys *sys, int fd, void *buf, size_t len, off_t off)
{
	struct witness *w = of(sys);
	ssize_t n;

	if (fd == w->direct_fd && w->direct_read_errno != 0) {
		errno = w->direct_read_errno;
		return -1;
	}
	n = w->inner->pread(w->inner, fd, buf, len, off);
	if (n > 0 && fd == w->direct_fd && w->disk_has_zeros)
		memset(buf, 0, (size_t)n);
	return n;
}

static ssize_t w_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	struct witness *w = of(sys);
	ssize_t n;

	while (atomic_load(&w->held))
		sched_yield();
	if (w->is_behind && !pthread_equal(pthread_self(), w->owner))
		usleep(5000);
	if (atomic_load(&w->is_direct)) {
		atomic_fetch_add(&w->direct_writes, 1);
		ck_assert_uint_eq(((uintptr_t)buf | len | (size_t)off) % 4096, 0);
		if (w->direct_write_errno != 0) {
			errno = w->direct_write_errno;
			return -1;
		}
	} else if (w->cache_write_errno != 0) {
		errno = w->cache_write_errno;
		return -1;
	}
	n = w->inner->pwrite(w->inner, fd, buf, len, off);
	if (n > 0) {
		w->written_bytes += (size_t)n;
		if (off < w->lowest)
			w->lowest = off;
	}
	return n;
}

/* Of one file at a time. */
static int w_set_direct(const struct pgr_sys *sys, int fd, int on)
{
	struct witness *w = of(sys);

	if (on && w->set_direct_errno != 0) {
		errno = w->set_direct_errno;
		return -1;
	}
	if (w->inner->set_direct(w->inner, fd, on) != 0)
		return -1;
	atomic_store(&w->is_direct, on != 0);
	return 0;
}

static int w_fsync(const struct pgr_sys *sys, int fd)
{
	struct witness *w = of(sys);

	return note_sync(w, fd, w->inner->fsync);
}

static int w_fdatasync(const struct pgr_sys *sys, int fd)
{
	struct witness *w = of(sys);

	return note_sync(w, fd, w->inner->fdatasync);
}

static int w_fallocate(const struct pgr_sys *sys, int fd, int mode, off_t off, off_t len)
{
	struct witness *w = of(sys);

	int no = atomic_load(&w->fallocate_errno);

	if (no != 0) {
		errno = no;
		return -1;
	}
	return w->inner->fallocate(w->inner, fd, mode, off, len);
}

/* The rest is handed on as it is. */
#define PASS(type, name, params, args)                                                                                 \
	static type w_##name params                                                                                    \
	{                                                                                                              \
		const struct pgr_sys *in = of(sys)->inner;                                                             \
		return in->name args;                                                                                  \
	}

PASS(ssize_t, read, (const struct pgr_sys *sys, int fd, void *buf, size_t len), (in, fd, buf, len))
PASS(ssize_t, write, (const struct pgr_sys *sys, int fd, const void *buf, size_t len), (in, fd, buf, len))
PASS(int, ftruncate, (const struct pgr_sys *sys, int fd, off_t len), (in, fd, len))
PASS(int, fstat, (const struct pgr_sys *sys, int fd, struct stat *st), (in, fd, st))
PASS(int, fstatat, (const struct pgr_sys *sys, int at, const char *p, struct stat *st, int fl), (in, at, p, st, fl))
PASS(int, fchmod, (const struct pgr_sys *sys, int fd, mode_t mode), (in, fd, mode))
PASS(int, unlinkat, (const struct pgr_sys *sys, int at, const char *p, int flags), (in, at, p, flags))

static int w_renameat(const struct pgr_sys *sys, int a, const char *p, int b, const char *q)
{
	struct witness *w = of(sys);
	int rc = w->inner->renameat(w->inner, a, p, b, q);

	count_partials(w);
	return rc;
}

static void witness_init(struct witness *w, const struct pgr_sys *inner)
{
	struct stat st;

	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	w->sys = *pgr_sys_real();
	w->inner = inner;
	w->direct_fd = -1;
	w->lowest = SEG;
	w->owner = pthread_self();
	w->sys.openat = w_openat;
	w->sys.close = w_close;
	w->sys.pread = w_pread;
	w->sys.pwrite = w_pwrite;
	w->sys.set_direct = w_set_direct;
	w->sys.fsync = w_fsync;
	w->sys.fdatasync = w_fdatasync;
	w->sys.fallocate = w_fallocate;
	w->sys.read = w_read;
	w->sys.write = w_write;
	w->sys.ftruncate = w_ftruncate;
	w->sys.fstat = w_fstat;
	w->sys.fstatat = w_fstatat;
	w->sys.fchmod = w_fchmod;
	w->sys.unlinkat = w_unlinkat;
	w->sys.renameat = w_renameat;
	ck_assert_int_eq(stat(dir, &st), 0);
	w->dir_ino = st.st_ino;
}

static void witness_fini(struct witness *w)
{
	for (size_t i = 0; i < w->nimages; i++)
		free(w->images[i].bytes);
	pthread_mutex_destroy(&w->lock);
}

/* ---- WAL ---- */

/* Bytes that depend on their position, with stretches of zeros as real WAL has them. */
static uint8_t wal_byte(pgr_lsn lsn)
{
	uint64_t x = lsn * UINT64_C(0x9E3779B97F4A7C15);

	return (lsn >> 12) % 5 == 4 ? 0 : (uint8_t)(x >> 56);
}

static uint8_t *make_wal(pgr_lsn lsn, size_t len)
{
	uint8_t *p = malloc(len + 1);

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < len; i++)
		p[i] = wal_byte(lsn + i);
	return p;
}

static bool is_wal(const uint8_t *p, pgr_lsn lsn, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != wal_byte(lsn + i))
			return false;
	return true;
}

/* Whether the disk has all of [from, to) of one segment, under a name that a restart would find. */
static bool survives(struct witness *w, pgr_lsn from, pgr_lsn to, bool may_be_partial)
{
	char name[PGR_WALNAME_LEN + 1], partial[64];
	bool found = false;

	pgr_walname_format(name, TLI, pgr_lsn_segno(from, SEG), SEG);
	snprintf(partial, sizeof(partial), "%s.partial", name);
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->nentries && !found; i++) {
		struct entry *e = &w->entries[i];
		struct image *im = image_of(w, e->ino);

		if (strcmp(e->name, name) != 0 && !(may_be_partial && strcmp(e->name, partial) == 0))
			continue;
		found = im->len == SEG && is_wal(im->bytes, from, (size_t)(to - from));
	}
	pthread_mutex_unlock(&w->lock);
	return found;
}

/*
 * The promise, from outside: all WAL between `from` and synced survives a power cut, whole segments under their final
 * names.  (Otherwise a restart would ask the server again for a segment that the server was told it may remove.)
 */
static void check_promise(struct witness *w, const struct pgr_walstore *s, pgr_lsn from)
{
	pgr_lsn synced = pgr_walstore_synced(s);

	ck_assert_uint_le(synced, pgr_walstore_written(s));
	ck_assert_uint_le(pgr_walstore_written(s), pgr_walstore_position(s));
	while (from < synced) {
		pgr_lsn end = pgr_lsn_segstart(from, SEG) + SEG;
		bool whole = end <= synced;

		ck_assert_msg(survives(w, from, whole ? end : synced, !whole), "%llX is not durable",
			      (unsigned long long)from);
		from = whole ? end : synced;
	}
}

/* ---- the directory ---- */

static void setup(void)
{
	snprintf(dir, sizeof(dir), "%s/pgr-store-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void setup_threaded(void)
{
	threaded = true;
	setup();
}

static void setup_bulk(void)
{
	bulk = true;
	setup_threaded();
}

static void teardown(void)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), dir, true, &err), PGR_OK);
}

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static bool exists(const char *name)
{
	struct stat st;

	return lstat(path_of(name), &st) == 0;
}

static off_t size_of(const char *name)
{
	struct stat st;

	return lstat(path_of(name), &st) == 0 ? st.st_size : -1;
}

static void put_file(const char *name, const void *data, size_t len)
{
	int fd = open(path_of(name), O_CREAT | O_TRUNC | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static uint8_t *get_file(const char *name, size_t *len)
{
	struct pgr_err err;
	char *data;
	int dfd = open(dir, O_RDONLY | O_DIRECTORY);

	ck_assert_int_ge(dfd, 0);
	ck_assert_msg(pgr_fs_read_file(pgr_sys_real(), dfd, dir, name, 1u << 24, &data, len, &err) == PGR_OK, "%s",
		      name);
	close(dfd);
	return (uint8_t *)data;
}

/* The file holds `len` bytes of WAL from `lsn`, and zeros up to the size of a segment. */
static void check_file(const char *name, pgr_lsn lsn, size_t len)
{
	size_t size;
	uint8_t *data = get_file(name, &size);

	ck_assert_uint_eq(size, SEG);
	ck_assert_msg(is_wal(data, lsn, len), "%s", name);
	while (len < size && data[len] == 0)
		len++;
	ck_assert_msg(len == size, "%s: byte %zu is not zero", name, len);
	free(data);
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	ck_assert_ptr_nonnull(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* ---- the store ---- */

static struct pgr_walstore_opts options(void)
{
	return (struct pgr_walstore_opts){
		.dir = dir,
		.segment_bytes = SEG,
		.file_mode = 0600,
		.sync = true,
		.partial_suffix = true,
		.inline_sync = !threaded,
	};
}

static struct pgr_walstore *make_store_opts(const struct pgr_sys *sys, const struct pgr_walstore_opts *opts)
{
	struct pgr_walstore *s;
	struct pgr_err err;
	int dfd = open(dir, O_RDONLY | O_DIRECTORY);

	ck_assert_int_ge(dfd, 0);
	ck_assert_int_eq(pgr_walstore_new(&s, sys, dfd, opts, &err), PGR_OK);
	ck_assert_int_eq(pgr_walstore_set_bulk(s, bulk, &err), PGR_OK);
	return s;
}

static struct pgr_walstore *make_store(const struct pgr_sys *sys)
{
	struct pgr_walstore_opts opts = options();

	return make_store_opts(sys, &opts);
}

/* Until the finished segments are durable. */
static int settle(struct pgr_walstore *s, struct pgr_err *err)
{
	while (pgr_walstore_synced(s) < pgr_lsn_segstart(pgr_walstore_position(s), SEG) && !pgr_walstore_is_failed(s))
		sched_yield();
	return pgr_walstore_check(s, err);
}

static int write_wal(struct pgr_walstore *s, pgr_lsn lsn, size_t len, struct pgr_err *err)
{
	pgr_lsn from = pgr_walstore_position(s);
	uint8_t *p = make_wal(lsn, len);
	int rc;

	do {
		size_t done = (size_t)(pgr_walstore_position(s) - from);

		rc = pgr_walstore_write(s, lsn + done, p + done, len - done, err);
		if (rc != PGR_ERR && settle(s, err) != PGR_OK)
			rc = PGR_ERR;
	} while (rc == PGR_MORE);
	free(p);
	return rc;
}

#define OK(call) ck_assert_msg((call) == PGR_OK, #call ": %s", err.msg)

START_TEST(segments_and_names)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	ck_assert_str_eq(pgr_walstore_open_name(s), "");
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST);
	OK(write_wal(s, FIRST, 1000, &err));
	ck_assert_str_eq(pgr_walstore_open_name(s), SEG3 ".partial");
	ck_assert_int_eq(size_of(SEG3 ".partial"), SEG);
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST);
	OK(pgr_walstore_sync(s, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 1000);
	check_promise(&w, s, FIRST);
	OK(write_wal(s, FIRST + 1000, SEG - 1001, &err));
	ck_assert(exists(SEG3 ".partial"));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 1000);

	/* across the end: what is complete is durable, what follows is not yet */
	OK(write_wal(s, FIRST + SEG - 1, 501, &err));
	ck_assert_uint_eq(pgr_walstore_position(s), FIRST + SEG + 500);
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + SEG);
	check_promise(&w, s, FIRST);
	ck_assert(!exists(SEG3 ".partial"));
	check_file(SEG3, FIRST, SEG);
	ck_assert_str_eq(pgr_walstore_open_name(s), SEG4 ".partial");
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + SEG + 500);
	check_promise(&w, s, FIRST);
	check_file(SEG4 ".partial", FIRST + SEG, 500);
	ck_assert_str_eq(pgr_walstore_open_name(s), "");
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* Exactly to the end: nothing is open, and the next segment is not there yet. */
struct finished {
	struct witness *w;
	char names[256];
};

/* Its name and all of it would survive now. */
static void on_finished(void *arg, const char *name)
{
	struct finished *f = arg;
	pgr_lsn from = FIRST + strlen(f->names) / (PGR_WALNAME_LEN + 1) * SEG;

	ck_assert_msg(survives(f->w, from, from + SEG, false), "%s", name);
	strcat(strcat(f->names, name), " ");
}

START_TEST(tells_what_is_finished)
{
	struct pgr_walstore_opts opts = options();
	struct finished f = {0};
	struct pgr_walstore *s;
	struct witness w;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	f.w = &w;
	opts.finished = on_finished;
	opts.finished_arg = &f;
	s = make_store_opts(&w.sys, &opts);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG - 1, &err));
	OK(pgr_walstore_sync(s, &err));
	ck_assert_str_eq(f.names, "");
	OK(write_wal(s, FIRST + SEG - 1, SEG + 10, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	pgr_walstore_free(s);
	ck_assert_str_eq(f.names, SEG3 " " SEG4 " ");
	witness_fini(&w);
}
END_TEST

START_TEST(exact_end)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 3 * (size_t)SEG, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 3 * SEG);
	check_promise(&w, s, FIRST);
	ck_assert_str_eq(pgr_walstore_open_name(s), "");
	ck_assert_int_eq(size_of(SEG5), SEG);
	ck_assert(!exists("000000010000000000000006.partial"));
	OK(pgr_walstore_close_segment(s, true, &err));
	OK(pgr_walstore_sync(s, &err));
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

START_TEST(mode_beats_umask)
{
	struct pgr_walstore_opts opts = options();
	struct pgr_walstore *s;
	struct pgr_err err;
	struct stat st;
	mode_t old = umask(0777);

	opts.file_mode = 0640;
	s = make_store_opts(pgr_sys_real(), &opts);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 1, &err));
	umask(old);
	ck_assert_int_eq(stat(path_of(SEG3 ".partial"), &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0640);
	pgr_walstore_free(s);
}
END_TEST

START_TEST(no_sync)
{
	struct pgr_walstore_opts opts = options();
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	opts.sync = false;
	s = make_store_opts(&w.sys, &opts);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG + 77, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + SEG + 77);
	OK(pgr_walstore_sync(s, &err));
	OK(pgr_walstore_put_history(s, 2, "1\t0/1\n", 6, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(w.syncs, 0);
	check_file(SEG3, FIRST, SEG);
	check_file(SEG4 ".partial", FIRST + SEG, 77);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* A base backup's WAL: final names from the start, .done for whole segments only. */
START_TEST(base_backup)
{
	struct pgr_walstore_opts opts = options();
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	opts.partial_suffix = false;
	opts.archive_status = true;
	ck_assert_int_eq(mkdir(path_of("archive_status"), 0700), 0);
	s = make_store_opts(&w.sys, &opts);
	OK(pgr_walstore_put_history(s, 2, "1\t0/1\n", 6, &err));
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG + 77, &err));
	ck_assert_str_eq(pgr_walstore_open_name(s), SEG4);
	check_promise(&w, s, FIRST);
	OK(pgr_walstore_close_segment(s, true, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + SEG + 77);
	check_file(SEG3, FIRST, SEG);
	check_file(SEG4, FIRST + SEG, 77);
	ck_assert_int_eq(size_of("archive_status/" SEG3 ".done"), 0);
	ck_assert(!exists("archive_status/" SEG4 ".done"));
	ck_assert_int_eq(size_of("archive_status/00000002.history.done"), 0);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

START_TEST(no_status_directory)
{
	struct pgr_walstore_opts opts = options();
	struct pgr_walstore *s;
	struct pgr_err err;

	opts.archive_status = true;
	s = make_store_opts(pgr_sys_real(), &opts);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_int_eq(write_wal(s, FIRST, SEG, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, ENOENT);
	ck_assert_ptr_nonnull(strstr(err.msg, "archive_status"));
	pgr_walstore_free(s);
}
END_TEST

START_TEST(finish_takes_the_final_name)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 77, &err));
	OK(pgr_walstore_close_segment(s, true, &err));
	ck_assert(!exists(SEG3 ".partial"));
	check_file(SEG3, FIRST, 77);
	check_promise(&w, s, FIRST);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* ---- going on with what is there ---- */

struct rerun {
	size_t old_len;	  /* bytes of WAL in the file */
	size_t old_zeros; /* behind them */
	size_t differs;	  /* position of a wrong byte in the old file; SIZE_MAX: none */
	size_t chunk;	  /* written at a time */
	size_t total;	  /* bytes that come again, and more */
	size_t from;	  /* the first byte that may be written */
};

#define NONE SIZE_MAX

static const struct rerun reruns[] = {
	{0, 0, NONE, 4096, 10000, 0},
	{0, SEG / 2, NONE, 4096, 10000, 0}, /* died while zeros were written */
	{0, SEG, NONE, 4096, 10000, 0},
	{10000, SEG - 10000, NONE, 4096, 10000, NONE}, /* nothing new */
	{10000, SEG - 10000, NONE, 4096, 20000, 10000},
	{10000, 0, NONE, 4096, 20000, 10000}, /* a short file is extended */
	{65535, 0, NONE, 131072, 131072, 65535},
	{65536, 0, NONE, 131072, 131072, 65536},
	{65537, 0, NONE, 1, 65600, 65537},
	{300000, SEG - 300000, 0, 4095, 300000, 0},
	{300000, SEG - 300000, 65535, 4095, 300000, 65535},
	{300000, SEG - 300000, 65536, 65536, 300000, 65536},
	{300000, SEG - 300000, 299999, 131072, 300000, 299999},
	{SEG, 0, NONE, 100000, SEG, NONE}, /* died between sync and rename */
	{SEG, 0, SEG - 1, 100000, SEG, SEG - 1},
};

static void make_old(const struct rerun *c)
{
	uint8_t *old = calloc(1, c->old_len + c->old_zeros + 1);
	uint8_t *wal = make_wal(FIRST, c->old_len);

	ck_assert_ptr_nonnull(old);
	memcpy(old, wal, c->old_len);
	if (c->differs != NONE)
		old[c->differs] ^= 0x55;
	put_file(SEG3 ".partial", old, c->old_len + c->old_zeros);
	free(old);
	free(wal);
}

static void rerun(const struct rerun *c, struct witness *w)
{
	struct pgr_walstore *s;
	struct pgr_err err;

	make_old(c);
	s = make_store(&w->sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	for (size_t at = 0; at < c->total; at += c->chunk) {
		size_t n = c->total - at < c->chunk ? c->total - at : c->chunk;

		OK(write_wal(s, FIRST + at, n, &err));
		if (c->chunk > 1 || at % 1024 == 0)
			check_promise(w, s, FIRST);
	}
	ck_assert_uint_eq(pgr_walstore_written(s), FIRST + c->total);
	OK(pgr_walstore_sync(s, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + c->total);
	check_promise(w, s, FIRST);
	check_file(c->total == SEG ? SEG3 : SEG3 ".partial", FIRST, c->total);
	pgr_walstore_free(s);
}

/* What is there already is not written again, and yet only counts as durable when this run has synced it. */
START_TEST(old_bytes)
{
	const struct rerun *c = &reruns[_i];
	struct witness w;

	witness_init(&w, pgr_sys_real());
	rerun(c, &w);
	if (c->from == NONE) {
		ck_assert_uint_eq(w.written_bytes, 0);
	} else {
		/* zeros that stand there already are right by chance */
		ck_assert_int_ge(w.lowest, (off_t)c->from);
		ck_assert_uint_gt(w.written_bytes, 0);
		ck_assert_uint_le(w.written_bytes, c->total - c->from);
	}
	witness_fini(&w);
}
END_TEST

START_TEST(old_bytes_without_direct_reads)
{
	struct witness w;

	witness_init(&w, pgr_sys_real());
	w.direct_open_errno = EINVAL;
	rerun(&reruns[_i], &w);
	ck_assert_int_ge(w.lowest, reruns[_i].from == NONE ? SEG : (off_t)reruns[_i].from);
	witness_fini(&w);

	witness_init(&w, pgr_sys_real());
	w.direct_read_errno = EINVAL;
	rerun(&reruns[_i], &w);
	ck_assert_int_ge(w.lowest, reruns[_i].from == NONE ? SEG : (off_t)reruns[_i].from);
	witness_fini(&w);
}
END_TEST

START_TEST(old_bytes_short_io)
{
	struct pgr_fault_sys f;
	struct witness w;

	pgr_fault_sys_init(&f, 0, 0);
	f.short_io = true;
	witness_init(&w, &f.sys);
	rerun(&reruns[_i], &w);
	ck_assert_int_ge(w.lowest, reruns[_i].from == NONE ? SEG : (off_t)reruns[_i].from);
	witness_fini(&w);
}
END_TEST

/* An fsync of an earlier run failed: the page cache has the bytes, and counts them as clean; the disk has not. */
START_TEST(cache_is_not_believed)
{
	const struct rerun c = {300000, SEG - 300000, NONE, 100000, 300000, 0};
	struct witness w;

	witness_init(&w, pgr_sys_real());
	w.disk_has_zeros = true;
	rerun(&c, &w);
	ck_assert_uint_ge(w.written_bytes, 299000);
	witness_fini(&w);
}
END_TEST

/* A base backup's connection was lost: its file has the final name, and is compared as well. */
#define PAGE 8192u

/* Pages that say where they are, as PostgreSQL's do. */
static uint8_t *make_pages(pgr_lsn lsn, size_t len)
{
	uint8_t *p = make_wal(lsn, len);

	for (size_t off = 0; off < len; off += PAGE) {
		pgr_lsn addr = lsn + off;

		memcpy(p + off + 8, &addr, sizeof(addr));
	}
	return p;
}

static const struct other {
	size_t at;	  /* of the first byte that the old file has otherwise */
	size_t zeros;	  /* so many of them are zeros */
	bool other_place; /* in a page that says that it is elsewhere */
	bool refused;
} others[] = {
	{PAGE + 100, 0, false, true},
	{8 * PAGE - 1, 0, false, true},
	{8 * PAGE, 0, false, true},
	{8 * PAGE + 1, 0, false, true},
	{0, 0, false, true},
	{SEG - 1, 0, false, true},
	{PAGE + 600, 1, false, true},	 /* a sector is written from its beginning on */
	{PAGE + 512, 512, false, false}, /* a power cut may have left out one before others */
	{PAGE + 600, SEG, false, false},
	{8 * PAGE, SEG, false, false},
	{PAGE + 100, 0, true, false},
	{8 * PAGE + 100, 0, true, false},
};

/*
 * WAL that was received from a server which has another history now, or from another one: it may have been
 * acknowledged, and is not replaced.  Zeros are, and what was in a file before it became this segment.
 */
START_TEST(other_wal_is_not_replaced)
{
	const struct other *o = &others[_i];
	uint8_t *wal = make_pages(FIRST, SEG), *old = make_pages(FIRST, SEG), *now;
	struct pgr_walstore *s;
	struct pgr_err err;
	char message[256];
	size_t len;
	int rc;

	old[o->at] = wal[o->at] = 7; /* no zero */
	old[o->at] ^= 0x80;
	memset(old + o->at, 0, o->zeros < SEG - o->at ? o->zeros : SEG - o->at);
	if (o->other_place)
		for (size_t off = o->at - o->at % PAGE; off < SEG; off += PAGE)
			old[off + 8 + 3] ^= 1;
	put_file(SEG3 ".partial", old, SEG);
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	rc = pgr_walstore_write(s, FIRST, wal, SEG, &err);
	ck_assert_int_eq(rc, o->refused ? PGR_ERR : PGR_OK);
	ck_assert(pgr_walstore_is_forked(s) == o->refused);
	ck_assert(pgr_walstore_is_failed(s) == o->refused);
	if (o->refused) {
		snprintf(message, sizeof(message),
			 "file \"%s/" SEG3 ".partial\" holds other WAL at 0/%X than the server sends", dir,
			 (unsigned)(FIRST + o->at));
		ck_assert_str_eq(err.msg, message);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_uint_eq(pgr_walstore_synced(s), FIRST);
	} else {
		OK(pgr_walstore_sync(s, &err));
	}
	pgr_walstore_free(s);
	now = get_file(o->refused ? SEG3 ".partial" : SEG3, &len);
	ck_assert_uint_eq(len, SEG);
	ck_assert_int_eq(memcmp(now, o->refused ? old : wal, SEG), 0);
	free(now);
	free(old);
	free(wal);
}
END_TEST

/* Somebody has cleaned up behind our back. */
START_TEST(file_made_ahead_is_gone)
{
	struct pgr_walstore *s = make_store(pgr_sys_real());
	struct pgr_err err;

	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 1000, &err));
	while (!exists("xlogtemp.pgr.tmp"))
		sched_yield();
	ck_assert_int_eq(unlink(path_of("xlogtemp.pgr.tmp")), 0);
	OK(write_wal(s, FIRST + 1000, SEG, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	pgr_walstore_free(s);
	check_file(SEG3, FIRST, SEG);
	check_file(SEG4 ".partial", FIRST + SEG, 1000);
}
END_TEST

static bool any_waits(void)
{
	struct entry entries[64];
	size_t n = take_entries(entries);
	bool any = false;

	for (size_t i = 0; i < n; i++)
		any = any || strncmp(entries[i].name, "xlogtemp.pgr.", strlen("xlogtemp.pgr.")) == 0;
	return any;
}

/* A killed run has left them. */
START_TEST(waiting_segments_are_removed)
{
	struct pgr_walstore *s;
	struct pgr_err err;
	char name[64];

	put_file("xlogtemp.pgr.tmp", "x", 1);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "xlogtemp.pgr.%u.tmp", i);
		put_file(name, "x", 1);
	}
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert(!any_waits());
	pgr_walstore_free(s);
}
END_TEST

START_TEST(old_bytes_under_the_final_name)
{
	struct pgr_walstore_opts opts = options();
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	opts.partial_suffix = false;
	s = make_store_opts(&w.sys, &opts);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 5000, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	w.lowest = SEG;
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG, &err));
	ck_assert_int_ge(w.lowest, 5000);
	check_promise(&w, s, FIRST);
	check_file(SEG3, FIRST, SEG);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

START_TEST(begin_inside)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	uint8_t *wal = make_wal(FIRST, 5000);

	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	ck_assert_int_eq(pgr_walstore_begin(s, TLI, FIRST + 4000, &err), PGR_ERR); /* no such file */
	ck_assert_int_eq(err.sys_errno, ENOENT);
	ck_assert(!exists(SEG3 ".partial"));
	put_file(SEG3 ".partial", wal, 3999);
	ck_assert_int_eq(pgr_walstore_begin(s, TLI, FIRST + 4000, &err), PGR_ERR); /* too short */
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	put_file(SEG3 ".partial", wal, 5000);
	OK(pgr_walstore_begin(s, TLI, FIRST + 4000, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 4000);
	check_promise(&w, s, FIRST);
	OK(write_wal(s, FIRST + 4000, 3000, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	check_promise(&w, s, FIRST);
	check_file(SEG3 ".partial", FIRST, 7000);
	ck_assert_int_eq(w.lowest, 5000);
	free(wal);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* An earlier run died between a rename and the sync of the directory: a new one must not rely on that name. */
START_TEST(begin_syncs_the_directory)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	put_file(SEG3, "x", 1);
	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST + SEG, &err));
	ck_assert_uint_eq(w.nentries, 1);
	ck_assert_str_eq(w.entries[0].name, SEG3);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

START_TEST(too_large)
{
	struct pgr_walstore *s;
	struct pgr_err err;
	uint8_t *big = calloc(1, SEG + 1);

	ck_assert_ptr_nonnull(big);
	put_file(SEG3 ".partial", big, SEG + 1);
	free(big);
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_int_eq(write_wal(s, FIRST, 10, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, SEG3 ".partial\" has 1048577 bytes, should be between 0 and 1048576"));
	ck_assert_int_eq(size_of(SEG3 ".partial"), SEG + 1);
	pgr_walstore_free(s);
}
END_TEST

START_TEST(not_a_file)
{
	struct pgr_walstore *s;
	struct pgr_err err;

	ck_assert_int_eq(symlink("elsewhere", path_of(SEG3 ".partial")), 0);
	ck_assert_int_eq(mkfifo(path_of(SEG4 ".partial"), 0600), 0);
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_int_eq(write_wal(s, FIRST, 10, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, ELOOP);
	ck_assert(!exists("elsewhere"));
	OK(pgr_walstore_begin(s, TLI, FIRST + SEG, &err));
	ck_assert_int_eq(write_wal(s, FIRST + SEG, 10, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "is not a regular file"));
	pgr_walstore_free(s);
}
END_TEST

/* ---- final names that are taken ---- */

START_TEST(final_name_taken_by_an_equal_file)
{
	struct pgr_walstore *s;
	struct pgr_err err;
	uint8_t *wal = make_wal(FIRST, SEG);

	put_file(SEG3, wal, SEG);
	free(wal);
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG, &err));
	check_file(SEG3, FIRST, SEG);
	ck_assert(!exists(SEG3 ".partial"));
	pgr_walstore_free(s);
}
END_TEST

START_TEST(final_name_taken_by_another_file)
{
	static const size_t lens[] = {0, 1, 65536, SEG - 1, SEG};
	size_t len = lens[_i], size;
	struct pgr_walstore *s;
	struct pgr_err err;
	uint8_t *wal = make_wal(FIRST, SEG), *still;

	if (len == SEG)
		wal[SEG - 1] ^= 1;
	put_file(SEG3, wal, len);
	s = make_store(pgr_sys_real());
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_int_eq(write_wal(s, FIRST, SEG, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, SEG3));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST);
	still = get_file(SEG3, &size);
	ck_assert_uint_eq(size, len);
	ck_assert_int_eq(memcmp(still, wal, len), 0);
	check_file(SEG3 ".partial", FIRST, SEG);
	free(still);
	free(wal);
	ck_assert(pgr_walstore_is_failed(s));
	pgr_walstore_free(s);
}
END_TEST

/* ---- failures ---- */

START_TEST(full_disk)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	unsigned fds = open_fds();

	witness_init(&w, pgr_sys_real());
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	w.fallocate_errno = ENOSPC;
	ck_assert_int_eq(write_wal(s, FIRST, 10, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(err.sys_errno, ENOSPC);
	ck_assert(!exists(SEG3 ".partial"));
	ck_assert(!pgr_walstore_is_failed(s));

	/* space comes back */
	w.fallocate_errno = 0;
	OK(write_wal(s, FIRST, SEG - 1, &err));

	/* the next one does not fit: what fits is taken, and the position says how far */
	w.fallocate_errno = ENOSPC;
	ck_assert_int_eq(write_wal(s, FIRST + SEG - 1, 100, &err), PGR_ERR);
	ck_assert_uint_eq(pgr_walstore_written(s), FIRST + SEG);
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + SEG);
	check_promise(&w, s, FIRST);
	w.fallocate_errno = 0;
	OK(write_wal(s, FIRST + SEG, 99, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	check_promise(&w, s, FIRST);
	check_file(SEG4 ".partial", FIRST + SEG, 99);
	pgr_walstore_free(s);
	ck_assert_uint_eq(open_fds(), fds);
	witness_fini(&w);
}
END_TEST

/* What an earlier run left stays when there is no space to extend it. */
START_TEST(full_disk_old_file)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	uint8_t *wal = make_wal(FIRST, 5000);

	put_file(SEG3 ".partial", wal, 5000);
	free(wal);
	witness_init(&w, pgr_sys_real());
	w.fallocate_errno = ENOSPC;
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	ck_assert_int_eq(write_wal(s, FIRST, 10, &err), PGR_ERR);
	ck_assert_int_eq(size_of(SEG3 ".partial"), 5000);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

START_TEST(no_fallocate_here)
{
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	w.fallocate_errno = EOPNOTSUPP;
	s = make_store(&w.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, SEG + 10, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	check_promise(&w, s, FIRST);
	check_file(SEG3, FIRST, SEG);
	check_file(SEG4 ".partial", FIRST + SEG, 10);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* A failed fsync is never asked again: the second answer would be yes. */
START_TEST(failed_sync_is_final)
{
	struct pgr_fault_sys f;
	struct pgr_walstore *s;
	struct pgr_err err;
	unsigned syncs;

	pgr_fault_sys_init(&f, 0, EIO);
	s = make_store(&f.sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 10, &err));
	OK(pgr_walstore_sync(s, &err));
	OK(write_wal(s, FIRST + 10, 10, &err));
	f.fail_at = f.calls + 1;
	ck_assert_int_eq(pgr_walstore_sync(s, &err), PGR_ERR);
	ck_assert_str_eq(f.failed_call, "fdatasync");
	ck_assert_ptr_nonnull(strstr(err.msg, "could not fsync file"));
	ck_assert_ptr_nonnull(strstr(err.msg, SEG3 ".partial"));
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 10);
	ck_assert(pgr_walstore_is_failed(s));
	syncs = f.fsyncs;
	ck_assert_int_eq(pgr_walstore_sync(s, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "after an earlier error"));
	ck_assert_int_eq(err.sys_errno, EIO);
	ck_assert_int_eq(write_wal(s, FIRST + 20, 10, &err), PGR_ERR);
	ck_assert_int_eq(pgr_walstore_put_history(s, 2, "", 0, &err), PGR_ERR);
	ck_assert_int_eq(pgr_walstore_close_segment(s, true, &err), PGR_ERR);
	ck_assert_str_eq(pgr_walstore_open_name(s), "");
	ck_assert_int_eq(pgr_walstore_begin(s, TLI, FIRST, &err), PGR_ERR);
	ck_assert_uint_eq(f.fsyncs, syncs);
	ck_assert_uint_eq(pgr_walstore_synced(s), FIRST + 10);
	ck_assert(exists(SEG3 ".partial"));
	pgr_walstore_free(s);
}
END_TEST

static int refuse_write_back(const struct pgr_sys *sys, int fd, off_t off, off_t len, unsigned flags)
{
	(void)sys;
	(void)fd;
	(void)flags;
	ck_assert_int_eq(off, 0);
	ck_assert_int_eq(len, 2 << 20);
	errno = write_back_errno;
	return -1;
}

/* The kernel is told early what to write.  That it cannot be told is nothing, that it cannot write is final. */
START_TEST(write_back)
{
	struct pgr_walstore_opts opts = options();
	struct pgr_sys sys = *pgr_sys_real();
	uint8_t *wal = make_wal(4 * FIRST, 3 << 20);
	struct pgr_walstore *s;
	struct pgr_err err;

	opts.segment_bytes = 4 * SEG;
	sys.sync_file_range = refuse_write_back;
	write_back_errno = _i == 0 ? ENOSYS : EIO;
	s = make_store_opts(&sys, &opts);
	OK(pgr_walstore_begin(s, TLI, 4 * FIRST, &err));
	OK(pgr_walstore_write(s, 4 * FIRST, wal, (2 << 20) - 1, &err));
	ck_assert_int_eq(pgr_walstore_write(s, 4 * FIRST + (2 << 20) - 1, wal + (2 << 20) - 1, 2, &err),
			 _i == 0 ? PGR_OK : PGR_ERR);
	ck_assert(pgr_walstore_is_failed(s) == (_i != 0));
	if (_i != 0)
		ck_assert_int_eq(err.sys_errno, EIO);
	pgr_walstore_free(s);
	free(wal);
}
END_TEST

static int run_scenario(struct pgr_walstore *s, struct witness *w, struct pgr_err *err)
{
	pgr_lsn at = FIRST;

	if (pgr_walstore_put_history(s, 2, "1\t0/1\n", 6, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_walstore_begin(s, TLI, FIRST, err) != PGR_OK)
		return PGR_ERR;
	for (int i = 0; i < 11; i++, at += 200000) {
		if (write_wal(s, at, 200000, err) != PGR_OK)
			return PGR_ERR;
		check_promise(w, s, FIRST);
		if (i % 3 == 0 && pgr_walstore_sync(s, err) != PGR_OK)
			return PGR_ERR;
		check_promise(w, s, FIRST);
	}
	if (pgr_walstore_close_segment(s, false, err) != PGR_OK)
		return PGR_ERR;
	check_promise(w, s, FIRST);
	/* the connection was lost: the segment comes again */
	at = pgr_lsn_segstart(at, SEG);
	if (pgr_walstore_begin(s, TLI, at, err) != PGR_OK || write_wal(s, at, 500000, err) != PGR_OK ||
	    pgr_walstore_sync(s, err) != PGR_OK)
		return PGR_ERR;
	check_promise(w, s, FIRST);
	return pgr_walstore_close_segment(s, true, err);
}

/* Whatever a failed run left: the next one finds where to go on, and ends with the right files. */
static void restart(void)
{
	struct pgr_walstore *s = make_store(pgr_sys_real());
	struct pgr_walscan scan;
	struct pgr_err err;
	int dfd = open(dir, O_RDONLY | O_DIRECTORY);
	pgr_lsn start;

	ck_assert_int_ge(dfd, 0);
	OK(pgr_walscan(pgr_sys_real(), dfd, dir, SEG, NULL, NULL, &scan, &err));
	close(dfd);
	ck_assert_uint_eq(scan.ngaps, 0);
	start = scan.found ? scan.start : FIRST;
	OK(pgr_walstore_put_history(s, 2, "1\t0/1\n", 6, &err));
	OK(pgr_walstore_begin(s, TLI, start, &err));
	OK(write_wal(s, start, (size_t)(FIRST + 4 * SEG - start), &err));
	check_file(SEG3, FIRST, SEG);
	if (start > FIRST + SEG)
		check_file(SEG4, FIRST + SEG, SEG);
	pgr_walstore_free(s);
}

static void empty_dir(void)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), dir, false, &err), PGR_OK);
}

/* The Nth call fails, whatever it is: nothing leaks, nothing false is promised, and a restart goes on. */
START_TEST(every_call_fails_once)
{
	static const int errnos[] = {EIO, ENOSPC};
	unsigned n, fds = open_fds();

	for (n = 1;; n++) {
		struct pgr_fault_sys f;
		struct witness w;
		struct pgr_walstore *s;
		struct pgr_err err;
		int rc;

		pgr_fault_sys_init(&f, n, errnos[_i]);
		witness_init(&w, &f.sys);
		s = make_store(&w.sys);
		rc = run_scenario(s, &w, &err);
		check_promise(&w, s, FIRST);
		pgr_walstore_free(s);
		ck_assert_uint_eq(open_fds(), fds);
		if (rc == PGR_OK) /* only what closes a file that was read, or makes one ahead, may fail unheard */
			ck_assert_msg(!f.triggered || threaded || strcmp(f.failed_call, "close") == 0, "%u: %s", n,
				      f.failed_call);
		else
			ck_assert_msg(err.cls == PGR_E_SYSTEM && err.sys_errno == errnos[_i] &&
					      strstr(err.msg, dir) != NULL,
				      "%u: %s: %s", n, f.failed_call, err.msg);
		if (rc != PGR_OK)
			restart();
		empty_dir();
		witness_fini(&w);
		if (!f.triggered)
			break;
	}
	ck_assert_uint_gt(n, 40);
}
END_TEST

START_TEST(making_fails)
{
	struct pgr_walstore_opts opts = options();
	struct pgr_walstore *s;
	struct pgr_err err;
	unsigned fds = open_fds();
	int dfd = open(dir, O_RDONLY | O_DIRECTORY);

	opts.segment_bytes = 3 * SEG;
	ck_assert_int_eq(pgr_walstore_new(&s, pgr_sys_real(), dfd, &opts, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(s);
	ck_assert_uint_eq(open_fds(), fds); /* the descriptor was taken over */
	pgr_walstore_free(NULL);
}
END_TEST

START_TEST(misuse)
{
	struct pgr_walstore *s = make_store(pgr_sys_real());
	struct pgr_err err;

	ck_assert_int_eq(pgr_walstore_write(s, FIRST, "x", 1, &err), PGR_ERR); /* not begun */
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_int_eq(pgr_walstore_begin(s, 0, FIRST, &err), PGR_ERR);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(write_wal(s, FIRST, 10, &err));
	ck_assert_int_eq(write_wal(s, FIRST, 1, &err), PGR_ERR);
	ck_assert_int_eq(write_wal(s, FIRST + 11, 1, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "cannot write WAL of 0/30000B in"));
	ck_assert_ptr_nonnull(strstr(err.msg, "which stands at 0/30000A"));
	ck_assert_int_eq(pgr_walstore_begin(s, TLI, FIRST, &err), PGR_ERR); /* a segment is open */
	OK(write_wal(s, FIRST + 10, 1, &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_int_eq(write_wal(s, FIRST + 11, 1, &err), PGR_ERR); /* begin comes first */
	OK(pgr_walstore_begin(s, TLI, UINT64_MAX - SEG + 1, &err));
	ck_assert_int_eq(write_wal(s, UINT64_MAX - SEG + 1, SEG, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert(!pgr_walstore_is_failed(s));
	pgr_walstore_free(s);
}
END_TEST

/* ---- history files ---- */

START_TEST(history)
{
	struct pgr_walstore *s = make_store(pgr_sys_real());
	struct pgr_err err;
	uint8_t *data;
	size_t len;
	bool has = true;

	OK(pgr_walstore_has_history(s, 0xAB, &has, &err));
	ck_assert(!has);
	OK(pgr_walstore_put_history(s, 0xAB, "1\t0/1\n", 6, &err));
	OK(pgr_walstore_has_history(s, 0xAB, &has, &err));
	ck_assert(has);
	OK(pgr_walstore_put_history(s, 0xAB, "1\t0/1\n", 6, &err));
	ck_assert_int_eq(pgr_walstore_put_history(s, 0xAB, "1\t0/2\n", 6, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, "000000AB.history"));
	data = get_file("000000AB.history", &len);
	ck_assert_uint_eq(len, 6);
	ck_assert_int_eq(memcmp(data, "1\t0/1\n", 6), 0);
	free(data);
	ck_assert(!exists("000000AB.history.tmp"));
	ck_assert(!pgr_walstore_is_failed(s));
	pgr_walstore_free(s);
}
END_TEST

/* ---- one .partial segment ---- */

/* Not as write_wal does, which waits. */
static int put_wal(struct pgr_walstore *s, size_t len, struct pgr_err *err)
{
	pgr_lsn at = pgr_walstore_position(s);
	uint8_t *p = make_wal(at, len);
	int rc = pgr_walstore_write(s, at, p, len, err);

	free(p);
	return rc;
}

static int put_all(struct pgr_walstore *s, size_t len, struct pgr_err *err)
{
	pgr_lsn end = pgr_walstore_position(s) + len;
	int rc;

	while ((rc = put_wal(s, (size_t)(end - pgr_walstore_position(s)), err)) == PGR_MORE)
		sched_yield();
	return rc;
}

/* Three segments and a bit, of which nothing can be synced. */
static struct pgr_walstore *make_waiting(struct witness *w)
{
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(w, pgr_sys_real());
	atomic_store(&w->syncs_held, true);
	s = make_store(&w->sys);
	OK(pgr_walstore_begin(s, TLI, FIRST, &err));
	OK(put_all(s, 3 * SEG + 1000, &err));
	while (!atomic_load(&w->in_sync))
		sched_yield();
	ck_assert(exists(SEG3 ".partial") && exists("xlogtemp.pgr.4.tmp") && exists("xlogtemp.pgr.6.tmp"));
	ck_assert(!exists(SEG4) && !exists(SEG4 ".partial") && !exists(SEG6 ".partial"));
	ck_assert_str_eq(pgr_walstore_open_name(s), SEG6 ".partial");
	return s;
}

/* However far the disk is behind. */
START_TEST(one_partial_segment_at_a_time)
{
	struct witness w;
	struct pgr_walstore *s = make_waiting(&w);
	struct pgr_err err;

	atomic_store(&w.syncs_held, false);
	while (!exists(SEG6 ".partial")) /* nobody has to ask for that */
		sched_yield();
	OK(pgr_walstore_sync(s, &err));
	check_promise(&w, s, FIRST);
	check_file(SEG6 ".partial", FIRST + 3 * SEG, 1000);
	for (unsigned i = 3; i < 60; i++) /* now with the disk a little behind, and asked */
		for (unsigned j = 0; j < 2; j++) {
			OK(put_all(s, SEG / 2, &err));
			OK(pgr_walstore_request_sync(s, j == 1, &err));
		}
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(atomic_load(&w.most_partials), 1);
	ck_assert(exists(SEG3) && exists(SEG4) && exists(SEG5) && exists(SEG6) && !any_waits());
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* What waits for its name is nobody's. */
START_TEST(waiting_segments_of_a_failed_store)
{
	struct witness w;
	struct pgr_walstore *s = make_waiting(&w);
	struct pgr_err err;

	atomic_store(&w.sync_errno, EIO);
	atomic_store(&w.syncs_held, false);
	if (_i == 0)
		ck_assert_int_eq(pgr_walstore_close_segment(s, false, &err), PGR_ERR);
	pgr_walstore_free(s);
	ck_assert(exists(SEG3 ".partial") && !any_waits());
	witness_fini(&w);
}
END_TEST

/* ---- a thread writes ---- */

#define BIG ((size_t)16 << 20) /* a segment of these tests */

static struct pgr_walstore *make_bulk_store(struct witness *w, pgr_lsn at)
{
	struct pgr_walstore_opts opts = options();
	struct pgr_walstore *s;
	struct pgr_err err;

	opts.segment_bytes = BIG;
	s = make_store_opts(&w->sys, &opts);
	OK(pgr_walstore_begin(s, TLI, at, &err));
	return s;
}

static void check_big_file(const char *name, pgr_lsn lsn, size_t len)
{
	size_t size;
	uint8_t *data = get_file(name, &size);

	ck_assert_uint_eq(size, BIG);
	ck_assert(is_wal(data, lsn, len));
	free(data);
}

/* Whole blocks are written without being asked, past the page cache; the rest when somebody asks for it. */
START_TEST(bulk_writes_blocks)
{
	const pgr_lsn at = 2 * BIG;
	const size_t blocks = 2u << 20;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	s = make_bulk_store(&w, at);
	for (size_t n = 0; n <= blocks; n += 5000)
		OK(put_wal(s, 5000, &err));
	while (pgr_walstore_written(s) < at + blocks)
		sched_yield();
	ck_assert_uint_eq(pgr_walstore_written(s), at + blocks);
	ck_assert_uint_eq(pgr_walstore_synced(s), at);
	ck_assert_uint_eq(w.direct_writes, 2);
	OK(pgr_walstore_sync(s, &err));
	ck_assert_uint_eq(pgr_walstore_synced(s), pgr_walstore_position(s));
	ck_assert_uint_eq(w.direct_writes, 2);
	check_big_file("000000010000000000000002.partial", at, (size_t)(pgr_walstore_synced(s) - at));
	OK(put_wal(s, 7, &err)); /* this segment goes through the page cache from here on */
	ck_assert_uint_eq(pgr_walstore_written(s), pgr_walstore_position(s));
	OK(put_all(s, (size_t)(at + BIG - pgr_walstore_position(s)), &err));
	OK(put_all(s, BIG / 2 + 1, &err)); /* and the next one does not */
	OK(pgr_walstore_set_bulk(s, false, &err));
	ck_assert_uint_eq(w.direct_writes, 2 + 8);
	ck_assert_uint_eq(pgr_walstore_written(s), at + BIG + BIG / 2 + 1);
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(w.written_bytes, BIG + BIG / 2 + 1); /* nothing twice */
	check_big_file("000000010000000000000002", at, BIG);
	check_big_file("000000010000000000000003.partial", at + BIG, BIG / 2 + 1);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* A segment is not complete before its last block is written, whatever else is synced meanwhile. */
START_TEST(bulk_waits_for_the_disk)
{
	const pgr_lsn at = 2 * BIG;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	size_t n = 0;
	int rc;

	witness_init(&w, pgr_sys_real());
	s = make_bulk_store(&w, at);
	atomic_store(&w.held, true);
	while ((rc = put_wal(s, 1u << 20, &err)) == PGR_OK)
		n++;
	ck_assert_int_eq(rc, PGR_MORE);
	ck_assert_uint_eq(n, 8);
	ck_assert_uint_eq(pgr_walstore_written(s), at);
	atomic_store(&w.held, false);
	while (pgr_walstore_position(s) < at + 3 * BIG) {
		size_t left = (size_t)(at + 3 * BIG - pgr_walstore_position(s));

		ck_assert_int_ne(put_wal(s, left < 700000 ? left : 700000, &err), PGR_ERR);
		sched_yield();
	}
	while (pgr_walstore_synced(s) < at + 3 * BIG)
		sched_yield();
	check_big_file("000000010000000000000002", at, BIG);
	check_big_file("000000010000000000000003", at + BIG, BIG);
	check_big_file("000000010000000000000004", at + 2 * BIG, BIG);
	OK(pgr_walstore_close_segment(s, false, &err));
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* A file system that has no O_DIRECT, and one that says it has. */
START_TEST(bulk_is_refused)
{
	const pgr_lsn at = 2 * BIG;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	w.set_direct_errno = _i == 0 ? EINVAL : 0;
	w.direct_write_errno = _i == 1 ? EINVAL : 0;
	s = make_bulk_store(&w, at);
	OK(put_wal(s, (3u << 20) + 1, &err));
	OK(pgr_walstore_sync(s, &err));
	OK(put_all(s, BIG - (3u << 20), &err));
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(w.direct_writes, _i);
	check_big_file("000000010000000000000002", at, BIG);
	check_big_file("000000010000000000000003.partial", at + BIG, 1);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/*
 * What goes through the page cache, since the file system has refused meanwhile or the next segment's file is there
 * already, does not overtake the blocks that still wait for the thread: they would count as written, and be synced.
 */
START_TEST(bulk_is_not_overtaken)
{
	const pgr_lsn at = 2 * BIG, end = at + 2 * BIG + 1000;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	w.is_behind = true;
	if (_i == 0)
		w.direct_write_errno = EINVAL;
	else
		put_file("000000010000000000000003.partial", "", 0);
	s = make_bulk_store(&w, at);
	while (pgr_walstore_position(s) < end) {
		size_t left = (size_t)(end - pgr_walstore_position(s));
		pgr_lsn written;

		ck_assert_int_ne(put_wal(s, left < 100000 ? left : 100000, &err), PGR_ERR);
		written = pgr_walstore_written(s);
		ck_assert_uint_ge(written, pgr_walstore_synced(s));
		ck_assert_uint_le(written - at, atomic_load(&w.written_bytes));
	}
	OK(pgr_walstore_close_segment(s, false, &err));
	ck_assert_uint_eq(w.written_bytes, 2 * BIG + 1000);
	check_big_file("000000010000000000000002", at, BIG);
	check_big_file("000000010000000000000003", at + BIG, BIG);
	check_big_file("000000010000000000000004.partial", at + 2 * BIG, 1000);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* Nor does the rest that fills no block count, however often somebody asks for it. */
START_TEST(bulk_rest_cannot_be_written)
{
	const pgr_lsn at = 2 * BIG, block = 1u << 20;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;

	witness_init(&w, pgr_sys_real());
	w.cache_write_errno = ENOSPC;
	s = make_bulk_store(&w, at);
	OK(put_wal(s, block + 1000, &err));
	ck_assert_int_eq(pgr_walstore_sync(s, &err), PGR_ERR);
	ck_assert_msg(err.sys_errno == ENOSPC && strstr(err.msg, "000000010000000000000002.partial") != NULL, "%s",
		      err.msg);
	ck_assert(pgr_walstore_is_failed(s));
	w.cache_write_errno = 0;
	ck_assert_int_eq(pgr_walstore_sync(s, &err), PGR_ERR);
	ck_assert_int_eq(pgr_walstore_close_segment(s, false, &err), PGR_ERR);
	ck_assert_uint_eq(pgr_walstore_written(s), at + block);
	ck_assert_uint_eq(pgr_walstore_synced(s), at);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/*
 * There is no space for the next segment while blocks of the one before still wait for the thread: nothing but the
 * segment fails, and the same write goes on when there is some.
 */
START_TEST(bulk_meets_a_full_disk)
{
	const pgr_lsn at = 2 * BIG, end = at + 2 * BIG + 1000;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	unsigned failures = 0;
	char name[64];

	witness_init(&w, pgr_sys_real());
	s = make_bulk_store(&w, at);
	OK(put_wal(s, 1, &err)); /* another file may be there by now */
	w.is_behind = true;
	atomic_store(&w.fallocate_errno, ENOSPC);
	while (pgr_walstore_position(s) < end) {
		size_t left = (size_t)(end - pgr_walstore_position(s));
		int rc = put_wal(s, left < 100000 ? left : 100000, &err);

		ck_assert_uint_le(pgr_walstore_written(s) - at, atomic_load(&w.written_bytes));
		if (rc != PGR_ERR)
			continue;
		ck_assert_int_eq(err.sys_errno, ENOSPC);
		ck_assert(!pgr_walstore_is_failed(s));
		ck_assert_str_eq(pgr_walstore_open_name(s), "");
		ck_assert_uint_eq(pgr_lsn_segoff(pgr_walstore_position(s), BIG), 0);
		snprintf(name, sizeof(name), "%08X%016X.partial", TLI, (unsigned)(pgr_walstore_position(s) / BIG));
		ck_assert(!exists(name));
		if (++failures == 3)
			atomic_store(&w.fallocate_errno, 0);
	}
	ck_assert_uint_eq(failures, 3);
	OK(pgr_walstore_close_segment(s, false, &err));
	check_big_file("000000010000000000000002", at, BIG);
	check_big_file("000000010000000000000003", at + BIG, BIG);
	check_big_file("000000010000000000000004.partial", at + 2 * BIG, 1000);
	ck_assert(!exists("xlogtemp.pgr.tmp"));
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* The owner hears of it, nothing behind it counts, and nothing hangs. */
START_TEST(bulk_write_fails)
{
	const pgr_lsn at = 2 * BIG;
	struct witness w;
	struct pgr_walstore *s;
	struct pgr_err err;
	int rc;

	witness_init(&w, pgr_sys_real());
	w.direct_write_errno = EIO;
	s = make_bulk_store(&w, at);
	do
		rc = _i == 0 ? put_wal(s, 1u << 20, &err) : put_wal(s, 3000000, &err);
	while (rc != PGR_ERR && _i == 0);
	if (_i == 1)
		ck_assert_int_eq(pgr_walstore_sync(s, &err), PGR_ERR);
	ck_assert_msg(err.sys_errno == EIO && strstr(err.msg, "000000010000000000000002.partial") != NULL, "%s",
		      err.msg);
	ck_assert(pgr_walstore_is_failed(s));
	ck_assert_uint_eq(pgr_walstore_written(s), at);
	ck_assert_int_eq(pgr_walstore_close_segment(s, false, &err), PGR_ERR);
	ck_assert_uint_eq(w.direct_writes, 1);
	pgr_walstore_free(s);
	witness_fini(&w);
}
END_TEST

/* What is right with a thread and without one. */
static void add_tests(TCase *tc)
{
	const int nreruns = (int)(sizeof(reruns) / sizeof(reruns[0]));

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, segments_and_names);
	tcase_add_test(tc, tells_what_is_finished);
	tcase_add_test(tc, exact_end);
	tcase_add_test(tc, mode_beats_umask);
	tcase_add_test(tc, no_sync);
	tcase_add_test(tc, base_backup);
	tcase_add_test(tc, no_status_directory);
	tcase_add_test(tc, finish_takes_the_final_name);
	tcase_add_loop_test(tc, old_bytes, 0, nreruns);
	tcase_add_loop_test(tc, old_bytes_without_direct_reads, 0, nreruns);
	tcase_add_loop_test(tc, old_bytes_short_io, 0, nreruns);
	tcase_add_test(tc, cache_is_not_believed);
	tcase_add_loop_test(tc, other_wal_is_not_replaced, 0, (int)(sizeof(others) / sizeof(others[0])));
	tcase_add_test(tc, old_bytes_under_the_final_name);
	tcase_add_test(tc, begin_inside);
	tcase_add_test(tc, begin_syncs_the_directory);
	tcase_add_test(tc, waiting_segments_are_removed);
	tcase_add_test(tc, too_large);
	tcase_add_test(tc, not_a_file);
	tcase_add_test(tc, final_name_taken_by_an_equal_file);
	tcase_add_loop_test(tc, final_name_taken_by_another_file, 0, 5);
	tcase_add_test(tc, full_disk_old_file);
	tcase_add_test(tc, no_fallocate_here);
	tcase_add_loop_test(tc, every_call_fails_once, 0, 2);
	tcase_add_test(tc, making_fails);
	tcase_add_test(tc, misuse);
	tcase_add_test(tc, history);
}

int main(void)
{
	Suite *s = suite_create("walstore");
	TCase *inline_case = tcase_create("without a thread");
	TCase *threaded_case = tcase_create("with a thread");
	TCase *bulk_case = tcase_create("with a thread that writes");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(inline_case, setup, teardown);
	add_tests(inline_case);
	tcase_add_test(inline_case, full_disk);
	tcase_add_test(inline_case, failed_sync_is_final);
	tcase_add_loop_test(inline_case, write_back, 0, 2);
	suite_add_tcase(s, inline_case);
	tcase_add_checked_fixture(threaded_case, setup_threaded, teardown);
	add_tests(threaded_case);
	tcase_add_test(threaded_case, file_made_ahead_is_gone);
	tcase_add_test(threaded_case, one_partial_segment_at_a_time);
	tcase_add_loop_test(threaded_case, waiting_segments_of_a_failed_store, 0, 2);
	tcase_add_loop_test(threaded_case, write_back, 0, 2);
	suite_add_tcase(s, threaded_case);
	tcase_add_checked_fixture(bulk_case, setup_bulk, teardown);
	add_tests(bulk_case);
	tcase_add_test(bulk_case, bulk_writes_blocks);
	tcase_add_test(bulk_case, bulk_waits_for_the_disk);
	tcase_add_loop_test(bulk_case, bulk_is_refused, 0, 2);
	tcase_add_loop_test(bulk_case, bulk_is_not_overtaken, 0, 2);
	tcase_add_test(bulk_case, bulk_rest_cannot_be_written);
	tcase_add_test(bulk_case, bulk_meets_a_full_disk);
	tcase_add_loop_test(bulk_case, bulk_write_fails, 0, 2);
	suite_add_tcase(s, bulk_case);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
