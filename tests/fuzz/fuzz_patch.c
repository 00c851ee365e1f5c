/*
 * Archives of an unfriendly server into a directory that holds an old copy, beside things that are not its business.
 * The first byte is the mode, the second seeds the sizes of the pieces; then come members: kind, length of the name,
 * name, length of the content in two bytes (big-endian), content.  Headers are right, whatever they say: those that are
 * not are fuzz_tar's.
 *
 * All of it is done twice, whole and in pieces: errors and what lies there must be the same.  Nothing outside of the
 * directory may change, and nothing stay open.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/bbstream.h"
#include "backup/dirsink.h"
#include "backup/keep.h"
#include "backup/kept.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/patch.h"
#include "backup/stream_check.h"
#include "backup/walsummary.h"
#include "common/block.h"
#include "common/buf.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/cursor.h"
#include "tests/fuzz/memory.h"

#define PAGE	512u
#define SEGMENT 8u
#define BLOCK	4096u
#define MAGIC	0xd3ae1f0du

/* The first byte. */
#define CUT_SHORT   0x01 /* the archive ends without its end */
#define NO_LIMITS   0x02 /* the run did not ask for increments */
#define NO_RECOVERY 0x04 /* -R */

/* Kinds of members: what the content is. */
enum { KIND_FILE, KIND_DIR, KIND_LINK, KIND_INCREMENT, KINDS };

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* ---- the archive ---- */

static void put(struct pgr_buf *b, const void *p, size_t n)
{
	struct pgr_err err;

	insist(pgr_buf_put(b, p, n, &err) == PGR_OK);
}

static void put_header(struct pgr_buf *tar, const char *name, char type, size_t size, const char *link)
{
	char h[513] = {0};
	unsigned sum = 0;

	memcpy(h, name, strnlen(name, 100));
	snprintf(h + 100, 8, "%07o", type == '5' ? 0700u : 0600u);
	snprintf(h + 124, 12, "%011o", (unsigned)size);
	snprintf(h + 136, 12, "%011o", 1700000000u);
	h[156] = type;
	memcpy(h + 157, link, strnlen(link, 100));
	memcpy(h + 257, "ustar\00000", 8);
	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < 512; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 7, "%06o", sum & 0777777u);
	put(tar, h, 512);
}

static void put_member(struct pgr_buf *tar, const char *name, char type, const struct pgr_buf *content)
{
	static const uint8_t zeros[512];

	put_header(tar, name, type, content->len, "");
	if (content->len > 0)
		put(tar, content->data, content->len);
	put(tar, zeros, (512 - content->len % 512) % 512);
}

/* The first byte is the length, each bit of the second a block that comes; what follows are its pages. */
static void put_increment(struct pgr_buf *out, struct pgr_span in)
{
	uint8_t bits = in.len > 1 ? in.p[1] : 0;
	uint32_t blocks[8], head[3] = {MAGIC, 0, in.len > 0 ? in.p[0] % (SEGMENT + 2) : 0};
	static const uint8_t zeros[PAGE];

	for (uint32_t i = 0; i < 8; i++)
		if (bits & (1u << i))
			blocks[head[1]++] = i;
	put(out, head, sizeof(head));
	if (head[1] == 0)
		return;
	put(out, blocks, head[1] * sizeof(blocks[0]));
	put(out, zeros, PAGE - out->len % PAGE);
	for (uint32_t i = 0; i < head[1]; i++) {
		uint8_t page[PAGE];

		memset(page, (int)(0xE0 + i), sizeof(page));
		put(out, page, sizeof(page));
	}
	if (in.len > 2 && in.p[2] == 0xFF) /* a byte too many */
		put(out, zeros, 1);
}

static void encode_member(struct pgr_buf *tar, unsigned kind, struct pgr_span name, struct pgr_span content)
{
	char text[101] = "", link[101] = "";
	struct pgr_buf b = {0};

	memcpy(text, name.p, name.len < 100 ? name.len : 100);
	memcpy(link, content.p, content.len < 100 ? content.len : 100);
	if (kind == KIND_LINK) {
		put_header(tar, text, '2', 0, link);
		return;
	}
	if (kind == KIND_INCREMENT)
		put_increment(&b, content);
	else if (kind == KIND_FILE)
		put(&b, content.p, content.len);
	put_member(tar, text, kind == KIND_DIR ? '5' : '0', &b);
	pgr_buf_fini(&b);
}

static void encode(struct pgr_buf *tar, const uint8_t *data, size_t size)
{
	static const uint8_t zeros[1024];
	struct pgr_cursor c = pgr_cur(data + 2, size - 2);

	for (int n = 0; n < 16 && c.left >= 4; n++) {
		unsigned kind = pgr_cur_u8(&c) % KINDS;
		size_t len = pgr_cur_u8(&c);
		struct pgr_span name = pgr_cur_span(&c, len < c.left ? len : c.left), content;

		len = c.left >= 2 ? pgr_cur_u16(&c) : 0;
		content = pgr_cur_span(&c, len < c.left ? len : c.left);
		encode_member(tar, kind, name, content);
	}
	if ((data[0] & CUT_SHORT) == 0)
		put(tar, zeros, sizeof(zeros));
}

/* ---- what lies there ---- */

static void make_dir(int top, const char *name)
{
	insist(mkdirat(top, name, 0700) == 0);
}

static void make_file(int top, const char *name, size_t size)
{
	uint8_t page[8 * PAGE];
	int fd = openat(top, name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	insist(fd >= 0 && size <= sizeof(page));
	memset(page, 0x11, sizeof(page));
	insist(write(fd, page, size) == (ssize_t)size && close(fd) == 0);
}

static void make_old_copy(int top)
{
	make_dir(top, "outside");
	make_file(top, "outside/precious", 100);
	make_dir(top, "data");
	make_dir(top, "data/base");
	make_dir(top, "data/base/5");
	make_dir(top, "data/base/5/40");
	make_dir(top, "data/global");
	make_dir(top, "data/pg_wal");
	make_file(top, "data/PG_VERSION", 3);
	make_file(top, "data/postgresql.conf", 20);
	make_file(top, "data/base/5/10", 5 * PAGE);
	make_file(top, "data/base/5/20", 8 * PAGE);
	make_file(top, "data/base/5/20.1", PAGE + 7);
	make_file(top, "data/base/5/40/in_the_way", 9);
	insist(symlinkat("../../../outside", top, "data/base/5/dir") == 0);
	insist(symlinkat("../../../outside/precious", top, "data/base/5/30") == 0);
}

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

static uint64_t file_digest(int dirfd, const char *name, uint64_t h)
{
	uint8_t buf[4096];
	int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW);
	ssize_t n;

	insist(fd >= 0);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		h = mix(h, buf, (size_t)n);
	insist(n == 0 && close(fd) == 0);
	return h;
}

/* Of everything below a directory, in whatever order it is listed. */
static uint64_t tree_digest(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	uint64_t all = 1;

	insist(d != NULL);
	for (struct dirent *de; (de = readdir(d)) != NULL;) {
		uint64_t h = mix(0xcbf29ce484222325u, de->d_name, strlen(de->d_name));
		char link[PATH_MAX];
		struct stat st;
		ssize_t n;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		insist(fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
		h = mix(h, &st.st_mode, sizeof(st.st_mode));
		if (S_ISREG(st.st_mode))
			h = file_digest(fd, de->d_name, h);
		else if (S_ISDIR(st.st_mode))
			h ^= tree_digest(fd, de->d_name) * 3;
		else if ((n = readlinkat(fd, de->d_name, link, sizeof(link))) > 0)
			h = mix(h, link, (size_t)n);
		all += h * h + h;
	}
	closedir(d);
	return all;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	insist(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* ---- the run ---- */

struct run {
	unsigned mode;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_layout *layout;
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_kept *kept;
	struct pgr_stream_check *check;
	struct pgr_localtree tree;
	struct pgr_patch patch;
	struct pgr_err err;
};

static void prepare(struct run *r, const char *data_dir)
{
	static char nowhere[] = "";
	static const struct pgr_bb_tablespace space = {.location = nowhere};
	struct pgr_layout_opts lo = {.data_dir = data_dir, .dir_mode = 0700, .file_mode = 0600, .in_place = true};
	struct pgr_dirsink_opts so = {0};
	struct pgr_kept_opts ko = {.digest = PGR_DIGEST_CRC32C, .page_bytes = PAGE, .segment_blocks = SEGMENT};

	r->sys = ko.sys = pgr_sys_real();
	insist(pgr_stop_new(&r->stop, &r->err) == PGR_OK);
	insist(pgr_layout_new(&r->layout, r->sys, &lo, &r->err) == PGR_OK);
	insist(pgr_layout_prepare(r->layout, &r->err) == PGR_OK);
	insist(pgr_layout_prepare_tablespaces(r->layout, &space, 1, &r->err) == PGR_OK);
	insist(pgr_localtree_scan(&r->tree, r->sys, r->layout, &r->err) == PGR_OK);
	insist(pgr_pool_new(&r->pool, 4, BLOCK, r->stop, &r->err) == PGR_OK);
	insist(pgr_dirsink_new(&r->sink, r->sys, r->pool, r->stop, &so, &r->err) == PGR_OK);
	ko.layout = r->layout;
	ko.stop = r->stop;
	insist(pgr_kept_new(&r->kept, &ko, &r->err) == PGR_OK);
	insist(pgr_stream_check_new(&r->check, PGR_DIGEST_CRC32C, r->stop, &r->err) == PGR_OK);
}

static void end(struct run *r)
{
	pgr_dirsink_free(r->sink);
	pgr_kept_free(r->kept);
	pgr_stream_check_free(r->check);
	pgr_patch_fini(&r->patch);
	pgr_pool_free(r->pool);
	pgr_localtree_fini(&r->tree);
	pgr_layout_free(r->layout);
	pgr_stop_free(r->stop);
}

static int take(struct run *r, const struct pgr_buf *tar, uint32_t random)
{
	static char nowhere[] = "";
	static const struct pgr_bb_tablespace space = {.location = nowhere};
	static const struct pgr_keep keep;
	static uint32_t after[] = {3, 6};
	static struct pgr_limit limited[] = {
		{.space = 1663, .db = 5, .rel = 20, .block = 3, .later = true, .blocks = after, .nblocks = 2}};
	static const struct pgr_limits limits = {.list = limited, .n = 1, .nblocks = 2};
	struct memory m = memory_of(tar->data, tar->len, random);
	struct pgr_archive a = {
		.kind = PGR_ARCHIVE_DATA_DIR, .tablespace = &space, .name = "base.tar", .terminated = true};
	int rc;

	r->patch = (struct pgr_patch){
		.sys = r->sys,
		.stop = r->stop,
		.layout = r->layout,
		.pool = r->pool,
		.sink = r->sink,
		.check = r->check,
		.kept = r->kept,
		.tree = &r->tree,
		.limits = r->mode & NO_LIMITS ? NULL : &limits,
		.keep = &keep,
		.page_bytes = PAGE,
		.segment_blocks = SEGMENT,
		.replace_recovery = (r->mode & NO_RECOVERY) != 0,
	};
	rc = pgr_patch_archive(&r->patch, &a, &m.source, &r->err);
	if (rc == PGR_OK)
		rc = pgr_dirsink_drain(r->sink, &r->err);
	if (rc == PGR_OK)
		rc = pgr_kept_finish(r->kept, &r->err);
	insist(rc == PGR_OK || r->err.msg[0] != '\0');
	return rc;
}

static void remove_below(const char *top, const char *name)
{
	char path[PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	insist(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* Everything that there is to see afterwards, as one number. */
static uint64_t play(const char *top, unsigned mode, const struct pgr_buf *tar, uint32_t random)
{
	int fd = open(top, O_RDONLY | O_DIRECTORY);
	struct run r = {.mode = mode};
	char data_dir[PATH_MAX + 8];
	uint64_t digest, outside;

	insist(fd >= 0);
	snprintf(data_dir, sizeof(data_dir), "%s/data", top);
	make_old_copy(fd);
	outside = tree_digest(fd, "outside");
	prepare(&r, data_dir);
	take(&r, tar, random);
	end(&r);
	insist(tree_digest(fd, "outside") == outside);
	digest = mix(tree_digest(fd, "data"), r.err.msg, strlen(r.err.msg));
	close(fd);
	remove_below(top, "data");
	remove_below(top, "outside");
	return digest;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	const char *tmp = getenv("TMPDIR");
	struct pgr_buf tar = {0};
	char top[PATH_MAX];
	unsigned fds = open_fds();

	if (size < 2)
		return 0;
	encode(&tar, data, size);
	snprintf(top, sizeof(top), "%s/fuzz-patch-XXXXXX", tmp != NULL ? tmp : P_tmpdir);
	insist(mkdtemp(top) != NULL);
	insist(play(top, data[0], &tar, 0) == play(top, data[0], &tar, data[1] * 2654435761u | 1));
	insist(rmdir(top) == 0 && open_fds() == fds);
	pgr_buf_fini(&tar);
	return 0;
}
