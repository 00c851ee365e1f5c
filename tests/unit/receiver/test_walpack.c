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

#include "common/compress.h"
#include "receiver/packseg.h"
#include "receiver/scan.h"
#include "receiver/walfile.h"
#include "receiver/walpack.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define SEG PGR_WALSEG_MIN
#define TLI 1

static const struct method {
	const char *arg;
	enum pgr_compression method;
	const char *suffix;
} methods[] = {
	{"gzip:1", PGR_COMP_GZIP, ".gz"},
	{"lz4", PGR_COMP_LZ4, ".lz4"},
	{"zstd:long", PGR_COMP_ZSTD, ".zst"},
};

#define NMETHODS ((int)(sizeof(methods) / sizeof(methods[0])))

static struct tmptree tree;
static int dfd;
static uint8_t content[SEG];
static char log_text[8192];
static atomic_bool ended_early; /* the packer said so */
static unsigned fds;
static unsigned threads;

static void setup(void)
{
	fds = tmp_open_fds();
	tmp_make(&tree);
	dfd = open(tree.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dfd, 0);
	log_text[0] = '\0';
	umask(0022);
	threads = 1;
}

static void setup_for_four(void)
{
	setup();
	threads = PGR_PACKSEG_MAX;
}

static void teardown(void)
{
	close(dfd);
	tmp_remove(&tree);
	ck_assert_uint_eq(tmp_open_fds(), fds);
}

/* Called by one thread at a time. */
static void on_log(void *arg, int level, const char *line)
{
	size_t n = strlen(log_text);

	(void)arg;
	snprintf(log_text + n, sizeof(log_text) - n, "%d %s\n", level, line);
	if (strstr(line, "until the next start") != NULL)
		atomic_store(&ended_early, true);
}

/* ---- files ---- */

static const char *name_of(pgr_segno seg, const char *suffix)
{
	static char names[4][64];
	static unsigned turn;
	char *name = names[turn++ % 4];

	pgr_walname_format(name, TLI, seg, SEG);
	return strcat(name, suffix);
}

/* Half of it compresses well, half does not. */
static void fill(pgr_segno seg)
{
	uint32_t x = (uint32_t)seg * 2654435761u + 1;

	for (size_t i = 0; i < SEG; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		content[i] = i % 8192 < 4096 ? (uint8_t)x : (uint8_t)(seg + i / 8192);
	}
}

static void put(const char *name, const void *data, size_t len)
{
	int fd = openat(dfd, name, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void make_plain(pgr_segno seg)
{
	fill(seg);
	put(name_of(seg, ""), content, SEG);
}

static struct pgr_compress_spec spec_of(const char *arg)
{
	struct pgr_compress_spec spec;
	struct pgr_err err;

	ck_assert_int_eq(pgr_compress_spec_parse(&spec, arg, &err), PGR_OK);
	return spec;
}

/* The first `len` bytes of the segment, compressed; `cut` bytes of the file are missing at its end. */
static void make_packed(pgr_segno seg, const struct method *m, const char *suffix, size_t len, size_t cut)
{
	struct pgr_compress_spec spec = spec_of(m->arg);
	struct pgr_comp *c;
	struct pgr_err err;
	size_t cap, produced, n = len;
	const uint8_t *p = content;
	uint8_t *out;

	fill(seg);
	ck_assert_int_eq(pgr_comp_new(&c, &spec, &err), PGR_OK);
	cap = pgr_comp_bound(c, len);
	out = malloc(cap);
	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(pgr_comp_step(c, &p, &n, PGR_COMP_END, out, cap, &produced, &err), PGR_MORE);
	put(name_of(seg, suffix), out, produced - cut);
	free(out);
	pgr_comp_free(c);
}

/* Whether the file is there and is the segment. */
static bool is_whole(pgr_segno seg, const char *suffix, enum pgr_compression method)
{
	static uint8_t got[SEG + 1];
	struct pgr_walfile f;
	struct pgr_err err;
	size_t n;
	bool whole;

	if (pgr_walfile_open(&f, pgr_sys_real(), dfd, name_of(seg, suffix), method, &err) != PGR_OK)
		return false;
	fill(seg);
	whole = pgr_walfile_read(&f, got, sizeof(got), &n, &err) == PGR_MORE && n == SEG && !f.cut &&
		memcmp(got, content, SEG) == 0;
	pgr_walfile_close(&f);
	return whole;
}

static bool there(pgr_segno seg, const char *suffix)
{
	return tmp_exists(&tree, name_of(seg, suffix));
}

static void check_packed(pgr_segno seg, const struct method *m)
{
	ck_assert_msg(is_whole(seg, m->suffix, m->method), "segment %u%s: %s", (unsigned)seg, m->suffix, log_text);
	ck_assert(!there(seg, ""));
}

static void check_says(const char *text)
{
	ck_assert_msg(strstr(log_text, text) != NULL, "\"%s\" is not in:\n%s", text, log_text);
}

/* ---- one segment ---- */

static struct pgr_packdir packdir(const struct pgr_sys *sys, const char *arg)
{
	return (struct pgr_packdir){
		.sys = sys,
		.dirfd = dfd,
		.dir = tree.path,
		.segment_bytes = SEG,
		.file_mode = 0640,
		.sync = true,
		.spec = spec_of(arg),
		.log = on_log,
	};
}

static int packseg(struct pgr_packdir *d, pgr_segno seg, struct pgr_err *err)
{
	struct pgr_packseg s;
	int rc = pgr_packseg_init(&s, d, 0, err);

	if (rc == PGR_OK)
		rc = pgr_packseg_make(&s, TLI, seg, err);
	if (rc == PGR_OK)
		rc = pgr_packseg_settle(&s, err);
	pgr_packseg_fini(&s);
	return rc;
}

static int drop(struct pgr_packdir *d, pgr_segno seg, struct pgr_err *err)
{
	struct pgr_packseg s;
	int rc = pgr_packseg_init(&s, d, 0, err);

	if (rc == PGR_OK)
		rc = pgr_packseg_drop_foreign(&s, TLI, seg, err);
	pgr_packseg_fini(&s);
	return rc;
}

static int pack(const struct pgr_sys *sys, const struct method *m, pgr_segno seg, struct pgr_err *err)
{
	struct pgr_packdir d = packdir(sys, m->arg);

	return packseg(&d, seg, err);
}

static void pack_ok(const struct method *m, pgr_segno seg)
{
	struct pgr_err err;

	ck_assert_msg(pack(pgr_sys_real(), m, seg, &err) == PGR_OK, "%s", err.msg);
}

START_TEST(packs)
{
	const struct method *m = &methods[_i];
	struct pgr_walscan scan;
	struct pgr_err err;

	umask(0077);
	make_plain(5);
	pack_ok(m, 5);
	check_packed(5, m);
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
	ck_assert_int_eq(tmp_mode(&tree, name_of(5, m->suffix)) & 07777, 0640);
	ck_assert_str_eq(log_text + strlen(log_text) - strlen(m->suffix) - 2, _i == 0	? ".gz\"\n"
									      : _i == 1 ? ".lz4\"\n"
											: ".zst\"\n");
	ck_assert_int_eq(pgr_walscan(pgr_sys_real(), dfd, tree.path, SEG, NULL, NULL, &scan, &err), PGR_OK);
	ck_assert_uint_eq(scan.start, 6 * (pgr_lsn)SEG);
	pack_ok(m, 5); /* nothing more to do */
	check_packed(5, m);
}
END_TEST

/* What an interrupted run left is no obstacle. */
START_TEST(packs_over_an_old_temporary_file)
{
	make_plain(5);
	put(PGR_PACKSEG_TMP, "old", 3);
	ck_assert_int_eq(chmod(tmp_at(&tree, PGR_PACKSEG_TMP), 0), 0);
	pack_ok(&methods[_i], 5);
	check_packed(5, &methods[_i]);
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

START_TEST(nothing_there)
{
	pack_ok(&methods[0], 5);
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
}
END_TEST

START_TEST(duplicate_goes)
{
	const struct method *m = &methods[_i];

	make_plain(5);
	make_packed(5, m, m->suffix, SEG, 0);
	pack_ok(&methods[(_i + 1) % NMETHODS], 5); /* whatever the method is now */
	check_packed(5, m);
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

/* Neither is thrown away. */
START_TEST(duplicate_differs)
{
	const struct method *m = &methods[_i % NMETHODS];
	struct pgr_err err;

	switch (_i / NMETHODS) {
	case 0: /* other bytes */
		make_packed(6, m, m->suffix, SEG, 0);
		ck_assert_int_eq(rename(tmp_at(&tree, name_of(6, m->suffix)), tmp_at(&tree, name_of(5, m->suffix))), 0);
		break;
	case 1: /* less of them */
		make_packed(5, m, m->suffix, SEG / 2, 0);
		break;
	default: /* a file that was cut off */
		make_packed(5, m, m->suffix, SEG, 3);
		break;
	}
	make_plain(5);
	ck_assert_int_eq(pack(pgr_sys_real(), m, 5, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, m->suffix));
	ck_assert(is_whole(5, "", PGR_COMP_NONE));
	ck_assert_uint_eq(tmp_entries(tree.path), 2);
}
END_TEST

START_TEST(not_a_whole_segment)
{
	struct pgr_err err;

	fill(5);
	put(name_of(5, ""), content, SEG - 1);
	ck_assert_int_eq(pack(pgr_sys_real(), &methods[0], 5, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, "has incorrect size 1048575"));
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

START_TEST(gives_up)
{
	struct pgr_packdir d = packdir(pgr_sys_real(), "gzip");
	atomic_bool give_up = true;
	struct pgr_err err;

	d.give_up = &give_up;
	make_plain(5);
	ck_assert_int_eq(packseg(&d, 5, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert(is_whole(5, "", PGR_COMP_NONE));
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

/* ---- a system that is watched ---- */

struct watched {
	struct pgr_sys sys;
	pthread_mutex_t lock;
	char calls[1024];
	unsigned flip_write;  /* so many writes from now one bit changes on its way; 0: none */
	unsigned full_writes; /* so many writes find the disk full */
	bool bad_dir_fsync;
	bool space_for_one; /* whoever opened `held` finds the disk full while there is another temporary file */
	pthread_t holder;
	unsigned file_syncs;
	pgr_segno held; /* opening it waits for file_syncs to be others */
	unsigned others;
	atomic_bool too_early; /* a segment had a compressed file while an older one was held */
};

static struct watched *watched_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct watched *out;
	} u = {.in = sys};

	return u.out;
}

static void note(const struct pgr_sys *sys, const char *call)
{
	struct watched *w = watched_of(sys);

	pthread_mutex_lock(&w->lock);
	strncat(w->calls, call, sizeof(w->calls) - strlen(w->calls) - 1);
	w->file_syncs += strcmp(call, " sync") == 0;
	pthread_mutex_unlock(&w->lock);
}

static unsigned count_entries(const char *with)
{
	DIR *d = opendir(tree.path);
	unsigned n = 0;

	ck_assert_ptr_nonnull(d);
	for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
		n += strstr(e->d_name, with) != NULL;
	closedir(d);
	return n;
}

static unsigned file_syncs(struct watched *w)
{
	unsigned n;

	pthread_mutex_lock(&w->lock);
	n = w->file_syncs;
	pthread_mutex_unlock(&w->lock);
	return n;
}

static int watched_openat(const struct pgr_sys *sys, int dir, const char *name, int flags, mode_t mode)
{
	struct watched *w = watched_of(sys);
	char held[PGR_WALNAME_LEN + 1];

	pgr_walname_format(held, TLI, w->held, SEG);
	if (w->held != 0 && strcmp(name, held) == 0) {
		pthread_mutex_lock(&w->lock);
		w->holder = pthread_self();
		pthread_mutex_unlock(&w->lock);
		while (file_syncs(w) < w->others)
			usleep(200);
		if (count_entries(".lz4") > 0)
			atomic_store(&w->too_early, true);
	}
	return openat(dir, name, flags, mode);
}

static int watched_fsync(const struct pgr_sys *sys, int fd)
{
	struct stat st;

	fstat(fd, &st);
	note(sys, S_ISDIR(st.st_mode) ? " dirsync" : " sync");
	if (S_ISDIR(st.st_mode) && watched_of(sys)->bad_dir_fsync) {
		watched_of(sys)->bad_dir_fsync = false; /* the next one says that all is well */
		errno = EIO;
		return -1;
	}
	return fsync(fd);
}

static int watched_renameat(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	note(sys, " rename");
	if (watched_of(sys)->held != 0)
		note(sys, new_ + strlen("0000000100000000000000"));
	return renameat(olddir, old, newdir, new_);
}

static int watched_unlinkat(const struct pgr_sys *sys, int dir, const char *name, int flags)
{
	if (strstr(name, "walpack") == NULL)
		note(sys, " unlink");
	return unlinkat(dir, name, flags);
}

static ssize_t watched_write(const struct pgr_sys *sys, int fd, const void *buf, size_t len)
{
	struct watched *w = watched_of(sys);
	bool full;
	uint8_t *copy;
	ssize_t n;

	pthread_mutex_lock(&w->lock);
	full = w->full_writes > 0 ||
	       (w->space_for_one && pthread_equal(w->holder, pthread_self()) && count_entries("walpack") > 1);
	w->full_writes -= w->full_writes > 0;
	pthread_mutex_unlock(&w->lock);
	if (full) {
		errno = ENOSPC;
		return -1;
	}
	if (w->flip_write == 0 || --w->flip_write > 0)
		return write(fd, buf, len);
	copy = malloc(len);
	ck_assert_ptr_nonnull(copy);
	memcpy(copy, buf, len);
	copy[len / 2] ^= 0x10;
	n = write(fd, copy, len);
	free(copy);
	return n;
}

static void watch(struct watched *w)
{
	memset(w, 0, sizeof(*w));
	w->sys = *pgr_sys_real();
	w->sys.fsync = watched_fsync;
	w->sys.renameat = watched_renameat;
	w->sys.unlinkat = watched_unlinkat;
	w->sys.write = watched_write;
	w->sys.openat = watched_openat;
	pthread_mutex_init(&w->lock, NULL);
}

/* The plain file goes when the other one, and its name, are on the disk. */
START_TEST(order_of_steps)
{
	struct watched w;
	struct pgr_err err;

	watch(&w);
	make_plain(5);
	ck_assert_int_eq(pack(&w.sys, &methods[_i], 5, &err), PGR_OK);
	ck_assert_str_eq(w.calls, " sync rename dirsync unlink");
	watch(&w);
	make_plain(5); /* a duplicate */
	ck_assert_int_eq(pack(&w.sys, &methods[_i], 5, &err), PGR_OK);
	ck_assert_str_eq(w.calls, " sync dirsync unlink");
}
END_TEST

START_TEST(without_syncs)
{
	struct pgr_packdir d;
	struct watched w;
	struct pgr_err err;

	watch(&w);
	d = packdir(&w.sys, "lz4");
	d.sync = false;
	make_plain(5);
	ck_assert_int_eq(packseg(&d, 5, &err), PGR_OK);
	ck_assert_str_eq(w.calls, " rename unlink");
	check_packed(5, &methods[1]);
}
END_TEST

START_TEST(looks_at_what_it_wrote)
{
	struct watched w;
	struct pgr_err err;

	watch(&w);
	w.flip_write = 2;
	make_plain(5);
	ck_assert_int_eq(pack(&w.sys, &methods[_i], 5, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "does not decompress to the same"));
	ck_assert_str_eq(w.calls, " sync");
	ck_assert(is_whole(5, "", PGR_COMP_NONE));
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

/* By an archiver, say, which would take what comes then for another segment. */
START_TEST(moved_away_meanwhile)
{
	struct pgr_packdir d = packdir(pgr_sys_real(), methods[_i].arg);
	struct pgr_packseg s;
	struct pgr_err err;

	make_plain(5);
	ck_assert_int_eq(pgr_packseg_init(&s, &d, 0, &err), PGR_OK);
	ck_assert_int_eq(pgr_packseg_make(&s, TLI, 5, &err), PGR_OK);
	ck_assert_int_eq(unlinkat(dfd, name_of(5, ""), 0), 0);
	ck_assert_int_eq(pgr_packseg_settle(&s, &err), PGR_OK);
	pgr_packseg_fini(&s);
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
}
END_TEST

/* A second fsync of the directory would say that all is well. */
START_TEST(directory_that_cannot_be_synced)
{
	struct pgr_packdir d;
	struct watched w;
	struct pgr_err err;

	watch(&w);
	w.bad_dir_fsync = true;
	d = packdir(&w.sys, "gzip");
	make_plain(5);
	ck_assert_int_eq(packseg(&d, 5, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "could not fsync directory"));
	ck_assert_int_eq(packseg(&d, 5, &err), PGR_ERR);
	ck_assert_int_eq(drop(&d, 5, &err), PGR_ERR);
	ck_assert_str_eq(w.calls, " sync rename dirsync");
	ck_assert(is_whole(5, "", PGR_COMP_NONE));
}
END_TEST

/* ---- every call fails once ---- */

static void check_nothing_lost(const struct method *m, const struct pgr_fault_sys *f)
{
	ck_assert_msg(is_whole(5, "", PGR_COMP_NONE) || is_whole(5, m->suffix, m->method), "lost after a failed %s",
		      f->failed_call);
}

START_TEST(faults)
{
	static const int errnos[] = {EIO, ENOSPC, EINTR};
	const struct method *m = &methods[_i % NMETHODS];
	bool duplicate = _i / NMETHODS == 1;
	unsigned n;

	for (n = 1;; n++) {
		struct pgr_fault_sys f;
		struct pgr_err err;
		int rc;

		make_plain(5);
		if (duplicate)
			make_packed(5, m, m->suffix, SEG, 0);
		pgr_fault_sys_init(&f, n, errnos[n % 3]);
		rc = pack(&f.sys, m, 5, &err);
		check_nothing_lost(m, &f);
		if (rc != PGR_OK) {
			ck_assert_msg(there(5, ""), "%s", f.failed_call);
			ck_assert_msg(strstr(err.msg, tree.path) != NULL, "%s", err.msg);
			ck_assert_int_eq(err.sys_errno, f.fail_errno);
		}
		pack_ok(m, 5);
		check_packed(5, m);
		ck_assert_uint_eq(tmp_entries(tree.path), 1);
		unlinkat(dfd, name_of(5, m->suffix), 0);
		if (!f.triggered)
			break;
	}
	ck_assert_uint_gt(n, 30);
}
END_TEST

START_TEST(one_byte_at_a_time_now_and_then)
{
	struct pgr_fault_sys f;
	struct pgr_err err;

	pgr_fault_sys_init(&f, 0, 0);
	f.short_io = true;
	make_plain(5);
	ck_assert_int_eq(pack(&f.sys, &methods[_i], 5, &err), PGR_OK);
	check_packed(5, &methods[_i]);
}
END_TEST

/* ---- what pg_receivewal left ---- */

static void drop_foreign(pgr_segno seg)
{
	struct pgr_packdir d = packdir(pgr_sys_real(), "none");
	struct pgr_err err;

	ck_assert_msg(drop(&d, seg, &err) == PGR_OK, "%s", err.msg);
}

static const char *foreign_suffix(const struct method *m)
{
	static char suffix[32];

	snprintf(suffix, sizeof(suffix), "%s.partial", m->suffix);
	return suffix;
}

/* What can be decoded of it is in the segment, which is there as a whole. */
START_TEST(foreign_goes)
{
	const struct method *m = &methods[_i % NMETHODS];
	const char *suffix = foreign_suffix(m);

	make_packed(5, m, suffix, SEG / 2, _i >= NMETHODS ? 100 : 0);
	drop_foreign(5);
	ck_assert(there(5, suffix));
	ck_assert_str_eq(log_text, "");
	if (_i < NMETHODS)
		make_plain(5);
	else
		make_packed(5, &methods[2], ".zst", SEG, 0);
	drop_foreign(5);
	ck_assert(!there(5, suffix));
	check_says("2 removed");
	check_says(suffix);
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
	ck_assert(is_whole(5, "", PGR_COMP_NONE) || is_whole(5, ".zst", PGR_COMP_ZSTD));
}
END_TEST

START_TEST(foreign_empty)
{
	make_plain(5);
	put(name_of(5, ".gz.partial"), "", 0);
	put(name_of(5, ".lz4.partial"), "no lz4 frame", 12);
	drop_foreign(5);
	ck_assert_uint_eq(tmp_entries(tree.path), 1);
}
END_TEST

START_TEST(foreign_stays)
{
	const struct method *m = &methods[_i % NMETHODS];
	const char *suffix = foreign_suffix(m);

	if (_i < NMETHODS) { /* it differs */
		make_packed(6, m, suffix, SEG / 2, 0);
		ck_assert_int_eq(rename(tmp_at(&tree, name_of(6, suffix)), tmp_at(&tree, name_of(5, suffix))), 0);
		make_plain(5);
	} else { /* the segment is not as whole as it seems */
		make_packed(5, m, suffix, SEG / 2, 0);
		make_packed(5, &methods[2], ".zst", SEG, 5);
	}
	drop_foreign(5);
	ck_assert(there(5, suffix));
	check_says("1 ");
	check_says("is kept");
	ck_assert_uint_eq(tmp_entries(tree.path), 2);
}
END_TEST

START_TEST(foreign_faults)
{
	unsigned n;

	make_plain(5);
	for (n = 1;; n++) {
		struct pgr_fault_sys f;
		struct pgr_packdir d;
		struct pgr_err err;
		int rc;

		make_packed(5, &methods[0], ".gz.partial", SEG / 2, 0);
		pgr_fault_sys_init(&f, n, EIO);
		d = packdir(&f.sys, "none");
		rc = drop(&d, 5, &err);
		ck_assert(is_whole(5, "", PGR_COMP_NONE));
		/* what is looked for after it may fail as well */
		ck_assert(rc == PGR_OK || there(5, ".gz.partial") || strcmp(f.failed_call, "fstatat") == 0);
		ck_assert(rc == PGR_OK || strstr(err.msg, tree.path) != NULL);
		if (!f.triggered)
			break;
	}
	ck_assert_uint_gt(n, 8);
}
END_TEST

/* ---- the thread ---- */

static struct pgr_walpack *start(const struct pgr_sys *sys, const char *arg, pgr_segno below, bool foreign)
{
	struct pgr_walpack_opts o = {
		.dir = tree.path,
		.segment_bytes = SEG,
		.file_mode = 0600,
		.sync = true,
		.spec = spec_of(arg),
		.threads = threads,
		.foreign_partials = foreign,
		.below = below,
		.retry_ms = 1,
		.log = on_log,
	};
	struct pgr_walpack *p;
	struct pgr_err err;
	int fd = dup(dfd);

	ck_assert_int_ge(fd, 0);
	ck_assert_msg(pgr_walpack_start(&p, sys, fd, &o, &err) == PGR_OK, "%s", err.msg);
	return p;
}

static void finish(struct pgr_walpack *p)
{
	pgr_walpack_end(p);
	pgr_walpack_free(p);
}

START_TEST(thread_packs_what_is_finished)
{
	const struct method *m = &methods[_i];
	struct pgr_walpack *p = start(pgr_sys_real(), m->arg, 0, false);

	for (pgr_segno seg = 1; seg <= 5; seg++) {
		make_plain(seg);
		pgr_walpack_finished(p, name_of(seg, ""));
	}
	pgr_walpack_finished(p, "00000001.history");
	ck_assert_uint_le(pgr_walpack_backlog(p), 5);
	finish(p);
	for (pgr_segno seg = 1; seg <= 5; seg++)
		check_packed(seg, m);
	ck_assert_uint_eq(tmp_entries(tree.path), 5);
}
END_TEST

/* From the newest compressed one on, and not where the stream goes on; the old archive stays as it was. */
START_TEST(thread_packs_what_was_left)
{
	struct pgr_walpack *p;

	make_plain(1);
	make_packed(2, &methods[1], ".lz4", SEG, 0);
	for (pgr_segno seg = 3; seg <= 6; seg++)
		make_plain(seg);
	make_packed(3, &methods[1], ".lz4", SEG, 0);
	put(PGR_PACKSEG_TMP, "old", 3);
	p = start(pgr_sys_real(), "gzip", 6, false);
	pgr_walpack_finished(p, name_of(6, ""));
	finish(p);
	ck_assert(is_whole(1, "", PGR_COMP_NONE));
	check_packed(2, &methods[1]);
	check_packed(3, &methods[1]);
	for (pgr_segno seg = 4; seg <= 6; seg++)
		check_packed(seg, &methods[0]);
	ck_assert_uint_eq(tmp_entries(tree.path), 6);
}
END_TEST

START_TEST(thread_leaves_a_plain_archive)
{
	make_plain(1);
	make_plain(2);
	finish(start(pgr_sys_real(), "gzip", 3, false));
	ck_assert(is_whole(1, "", PGR_COMP_NONE));
	ck_assert(is_whole(2, "", PGR_COMP_NONE));
}
END_TEST

START_TEST(nothing_to_do_for_a_thread)
{
	put(PGR_PACKSEG_TMP, "old", 3);
	put("walpack.1.tmp", "old", 3);
	put("walpack.3.tmp", "old", 3);
	ck_assert_ptr_null(start(pgr_sys_real(), "none", 0, false));
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
	pgr_walpack_finished(NULL, name_of(1, ""));
	ck_assert_uint_eq(pgr_walpack_backlog(NULL), 0);
	pgr_walpack_hurry(NULL, 0);
	finish(NULL);
}
END_TEST

/* Without compression: only what pg_receivewal left goes. */
START_TEST(thread_for_foreign_files)
{
	struct pgr_walpack *p;

	make_packed(1, &methods[0], ".gz", SEG, 0);
	make_plain(2);
	make_packed(2, &methods[0], ".gz.partial", SEG / 2, 0);
	make_packed(3, &methods[1], ".lz4.partial", SEG / 4, 0);
	p = start(pgr_sys_real(), "none", 3, true);
	make_plain(3);
	pgr_walpack_finished(p, name_of(3, ""));
	make_plain(4);
	pgr_walpack_finished(p, name_of(4, ""));
	finish(p);
	ck_assert_uint_eq(tmp_entries(tree.path), 4);
	for (pgr_segno seg = 2; seg <= 4; seg++)
		ck_assert(is_whole(seg, "", PGR_COMP_NONE));
}
END_TEST

/* Told once, then tried until there is space. */
START_TEST(thread_waits_for_space)
{
	struct pgr_walpack *p;
	struct watched w;
	const char *first;

	watch(&w);
	w.full_writes = 20;
	make_plain(1);
	make_plain(2);
	p = start(&w.sys, "lz4", 0, false);
	pgr_walpack_finished(p, name_of(1, ""));
	pgr_walpack_finished(p, name_of(2, ""));
	while (pgr_walpack_backlog(p) > 0)
		usleep(1000);
	finish(p);
	check_packed(1, &methods[1]);
	check_packed(2, &methods[1]);
	first = strstr(log_text, "1 could not compress segment \"000000010000000000000001\", trying again later: ");
	ck_assert_ptr_nonnull(first);
	check_says("No space left on device\n");
	check_says("2 segments are compressed again\n");
	ck_assert_msg(strstr(first + 10, "could not compress") == NULL, "%s", log_text);
}
END_TEST

/* One that cannot be compressed does not hold up the others. */
START_TEST(thread_passes_over_a_bad_one)
{
	struct pgr_walpack *p;

	put(name_of(1, ""), "short", 5);
	make_plain(2);
	p = start(pgr_sys_real(), "gzip", 0, false);
	pgr_walpack_finished(p, name_of(1, ""));
	pgr_walpack_finished(p, name_of(2, ""));
	finish(p);
	check_packed(2, &methods[0]);
	check_says("1 segment \"000000010000000000000001\" is left uncompressed: ");
	ck_assert(there(1, ""));
}
END_TEST

START_TEST(thread_ends_when_the_directory_fails)
{
	struct pgr_walpack *p;
	struct watched w;

	watch(&w);
	w.bad_dir_fsync = true;
	p = start(&w.sys, "gzip", 0, false);
	for (pgr_segno seg = 1; seg <= 6; seg++) {
		make_plain(seg);
		pgr_walpack_finished(p, name_of(seg, ""));
	}
	finish(p);
	check_says("1 segments are left uncompressed from \"000000010000000000000001\" on, until the next start: ");
	for (pgr_segno seg = 1; seg <= 6; seg++)
		ck_assert(is_whole(seg, "", PGR_COMP_NONE));
	/* others may have been compressed meanwhile: none of them gets its name any more */
	ck_assert_ptr_nonnull(strstr(w.calls, " rename dirsync"));
	ck_assert_ptr_null(strstr(strstr(w.calls, "rename") + 1, "rename"));
	ck_assert_ptr_null(strstr(w.calls, "unlink"));
	ck_assert_uint_eq(tmp_entries(tree.path), 7);
}
END_TEST

/* Whatever was done by then, every segment is whole, and the next run does the rest. */
START_TEST(thread_is_hurried)
{
	struct pgr_walpack *p;

	make_packed(1, &methods[0], ".gz", SEG, 0);
	for (pgr_segno seg = 2; seg <= 40; seg++)
		make_plain(seg);
	p = start(pgr_sys_real(), "gzip:9", 41, false);
	pgr_walpack_hurry(p, _i);
	finish(p);
	for (pgr_segno seg = 2; seg <= 40; seg++)
		ck_assert(is_whole(seg, "", PGR_COMP_NONE) != is_whole(seg, ".gz", PGR_COMP_GZIP));
	ck_assert(there(40, ""));
	ck_assert(!tmp_exists(&tree, PGR_PACKSEG_TMP));
	finish(start(pgr_sys_real(), "gzip:1", 41, false));
	for (pgr_segno seg = 2; seg <= 40; seg++)
		check_packed(seg, &methods[0]);
	ck_assert_uint_eq(tmp_entries(tree.path), 40);
}
END_TEST

START_TEST(thread_faults)
{
	const struct method *m = &methods[1];
	unsigned n;

	for (n = 1; n < 400; n++) {
		struct pgr_walpack_opts o = {
			.dir = tree.path,
			.segment_bytes = SEG,
			.file_mode = 0600,
			.sync = true,
			.spec = spec_of(m->arg),
			.threads = threads,
			.foreign_partials = true,
			.below = 5,
			.retry_ms = 1,
			.log = on_log,
		};
		struct pgr_walpack *p = NULL;
		struct pgr_fault_sys f;
		struct pgr_err err;

		make_packed(3, &methods[0], ".gz", SEG, 0);
		make_plain(4);
		make_plain(5);
		make_packed(5, &methods[0], ".gz.partial", SEG / 2, 0);
		log_text[0] = '\0';
		atomic_store(&ended_early, false);
		pgr_fault_sys_init(&f, n, EIO);
		if (pgr_walpack_start(&p, &f.sys, dup(dfd), &o, &err) == PGR_OK) {
			pgr_walpack_finished(p, name_of(5, ""));
			while (pgr_walpack_backlog(p) > 0 && !atomic_load(&ended_early))
				usleep(200);
			finish(p);
		}
		for (pgr_segno seg = 4; seg <= 5; seg++)
			ck_assert_msg(is_whole(seg, "", PGR_COMP_NONE) || is_whole(seg, m->suffix, m->method),
				      "after a failed %s: %s", f.failed_call, log_text);
		for (pgr_segno seg = 3; seg <= 5; seg++)
			unlinkat(dfd, name_of(seg, m->suffix), 0);
		if (!f.triggered)
			break;
	}
	ck_assert_uint_gt(n, 60);
	ck_assert_uint_lt(n, 400);
}
END_TEST

/* Whoever is done first waits for those before it. */
START_TEST(threads_settle_in_order)
{
	struct pgr_walpack *p;
	struct watched w;

	watch(&w);
	w.held = 1;
	w.others = threads - 1;
	for (pgr_segno seg = 1; seg <= 6; seg++)
		make_plain(seg);
	p = start(&w.sys, "lz4", 0, false);
	for (pgr_segno seg = 1; seg <= 6; seg++)
		pgr_walpack_finished(p, name_of(seg, ""));
	finish(p);
	for (pgr_segno seg = 1; seg <= 6; seg++)
		check_packed(seg, &methods[1]);
	ck_assert(!atomic_load(&w.too_early));
	for (const char *at = w.calls, *last = NULL; (at = strstr(at, ".lz4")) != NULL; last = at, at++)
		ck_assert(last == NULL || at[-1] == last[-1] + 1);
}
END_TEST

/* A file that waits for its turn must not take the space of the one before it. */
START_TEST(threads_with_space_for_one)
{
	struct pgr_walpack *p;
	struct watched w;

	watch(&w);
	w.space_for_one = true;
	w.held = 1;
	w.others = threads - 1; /* it is the last to look for space */
	for (pgr_segno seg = 1; seg <= 6; seg++)
		make_plain(seg);
	p = start(&w.sys, "lz4", 0, false);
	for (pgr_segno seg = 1; seg <= 6; seg++)
		pgr_walpack_finished(p, name_of(seg, ""));
	while (pgr_walpack_backlog(p) > 0)
		usleep(1000);
	finish(p);
	for (pgr_segno seg = 1; seg <= 6; seg++)
		check_packed(seg, &methods[1]);
	ck_assert_uint_eq(tmp_entries(tree.path), 6);
}
END_TEST

static void add_thread_tests(TCase *tc)
{
	tcase_add_loop_test(tc, thread_packs_what_is_finished, 0, NMETHODS);
	tcase_add_test(tc, thread_packs_what_was_left);
	tcase_add_test(tc, thread_leaves_a_plain_archive);
	tcase_add_test(tc, nothing_to_do_for_a_thread);
	tcase_add_test(tc, thread_for_foreign_files);
	tcase_add_test(tc, thread_waits_for_space);
	tcase_add_test(tc, thread_passes_over_a_bad_one);
	tcase_add_test(tc, thread_ends_when_the_directory_fails);
	tcase_add_loop_test(tc, thread_is_hurried, 0, 3);
	tcase_add_test(tc, thread_faults);
	tcase_add_test(tc, threads_settle_in_order);
	tcase_add_test(tc, threads_with_space_for_one);
}

int main(void)
{
	Suite *s = suite_create("walpack");
	TCase *tc = tcase_create("walpack"), *four = tcase_create("four threads");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 300);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, packs, 0, NMETHODS);
	tcase_add_loop_test(tc, packs_over_an_old_temporary_file, 0, NMETHODS);
	tcase_add_test(tc, nothing_there);
	tcase_add_loop_test(tc, duplicate_goes, 0, NMETHODS);
	tcase_add_loop_test(tc, duplicate_differs, 0, 3 * NMETHODS);
	tcase_add_test(tc, not_a_whole_segment);
	tcase_add_test(tc, gives_up);
	tcase_add_loop_test(tc, order_of_steps, 0, NMETHODS);
	tcase_add_test(tc, without_syncs);
	tcase_add_loop_test(tc, looks_at_what_it_wrote, 0, NMETHODS);
	tcase_add_loop_test(tc, moved_away_meanwhile, 0, NMETHODS);
	tcase_add_test(tc, directory_that_cannot_be_synced);
	tcase_add_loop_test(tc, faults, 0, 2 * NMETHODS);
	tcase_add_loop_test(tc, one_byte_at_a_time_now_and_then, 0, NMETHODS);
	tcase_add_loop_test(tc, foreign_goes, 0, 2 * NMETHODS);
	tcase_add_test(tc, foreign_empty);
	tcase_add_loop_test(tc, foreign_stays, 0, 2 * NMETHODS);
	tcase_add_test(tc, foreign_faults);
	add_thread_tests(tc);
	suite_add_tcase(s, tc);
	tcase_set_timeout(four, 300);
	tcase_add_checked_fixture(four, setup_for_four, teardown);
	add_thread_tests(four);
	suite_add_tcase(s, four);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
