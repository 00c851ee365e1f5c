/*
 * A file of an incremental backup of an unfriendly server, applied to an old file.  The first byte is the length of the
 * old one, the second the limit of its relation, the third what is said of the size, the fourth where a first attempt
 * ends; the rest is the file.
 *
 * It is read whole and in pieces: the result must be the same.  The old file then is what a plain account of the rules
 * makes of it, also when a first attempt ended half-way, by the source or by a write that failed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backup/incremental.h"
#include "common/sys.h"
#include "tests/fuzz/memory.h"

#define PAGE	 32u
#define SEGMENT	 16u
#define FILE_MAX (2 * SEGMENT * PAGE)
#define OLD	 0x11
#define NAME	 "base/5/INCREMENTAL.16384"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* ---- the file, in memory ---- */

struct file {
	struct pgr_sys sys; /* first */
	uint8_t data[FILE_MAX];
	size_t size;
	unsigned writes_left; /* then they fail */
};

static struct file *file_of(const struct pgr_sys *sys)
{
	union {
		const struct pgr_sys *in;
		struct file *out;
	} u = {.in = sys};

	return u.out;
}

static int file_fstat(const struct pgr_sys *sys, int fd, struct stat *st)
{
	(void)fd;
	memset(st, 0, sizeof(*st));
	st->st_size = (off_t)file_of(sys)->size;
	return 0;
}

static int file_truncate(const struct pgr_sys *sys, int fd, off_t len)
{
	struct file *f = file_of(sys);

	(void)fd;
	insist(len >= 0 && (size_t)len <= sizeof(f->data));
	if ((size_t)len > f->size)
		memset(f->data + f->size, 0, (size_t)len - f->size);
	f->size = (size_t)len;
	return 0;
}

static ssize_t file_pwrite(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off)
{
	struct file *f = file_of(sys);

	insist(off >= 0 && (size_t)off + len <= sizeof(f->data));
	if (f->writes_left == 0) {
		errno = ENOSPC;
		return -1;
	}
	f->writes_left--;
	if ((size_t)off + len > f->size)
		insist(file_truncate(sys, fd, off + (off_t)len) == 0);
	memcpy(f->data + off, buf, len);
	return (ssize_t)len;
}

static void file_init(struct file *f, size_t size)
{
	memset(f, 0, sizeof(*f));
	f->sys.fstat = file_fstat;
	f->sys.ftruncate = file_truncate;
	f->sys.pwrite = file_pwrite;
	f->size = size;
	memset(f->data, OLD, size);
	f->writes_left = UINT32_MAX;
}

/* ---- what must be true ---- */

static void check_head(const struct pgr_incremental *inc)
{
	insist(inc->nblocks <= SEGMENT && inc->truncation <= SEGMENT);
	insist((inc->blocks != NULL) == (inc->nblocks > 0));
	for (uint32_t i = 0; i < inc->nblocks; i++)
		insist(inc->blocks[i] < SEGMENT && (i == 0 || inc->blocks[i] > inc->blocks[i - 1]));
	for (uint32_t b = 0; b < SEGMENT + 2; b++) {
		bool in = false;

		for (uint32_t i = 0; i < inc->nblocks; i++)
			in |= inc->blocks[i] == b;
		insist(pgr_incremental_has(inc, b) == in);
	}
	insist(pgr_incremental_blocks(inc) <= SEGMENT);
}

/* What the file must be: `pages` are those that come. */
static void check_file(const struct file *f, const struct pgr_incremental *inc, size_t old, uint32_t limit,
		       const uint8_t *pages)
{
	size_t blocks = inc->truncation, kept = (size_t)(limit < inc->truncation ? limit : inc->truncation) * PAGE;
	uint8_t want[FILE_MAX] = {0};

	memset(want, OLD, old < kept ? old : kept);
	for (uint32_t i = 0; i < inc->nblocks; i++) {
		memcpy(want + (size_t)inc->blocks[i] * PAGE, pages + (size_t)i * PAGE, PAGE);
		blocks = inc->blocks[i] >= blocks ? inc->blocks[i] + 1 : blocks;
	}
	insist(f->size == blocks * PAGE);
	insist(memcmp(f->data, want, f->size) == 0);
}

/* ---- the run ---- */

struct input {
	const uint8_t *data;
	size_t len;
	uint64_t told; /* its size, as the archive has it */
	size_t old;    /* bytes of the old file */
	uint32_t limit;
	size_t first; /* bytes of the blocks in the first attempt */
	uint32_t random;
};

static int read_head(const struct input *in, struct memory *m, uint32_t random, struct pgr_incremental *inc,
		     struct pgr_err *err)
{
	*m = memory_of(in->data, in->len, random);
	return pgr_incremental_read(inc, &m->source, in->told, PAGE, SEGMENT, NAME, err);
}

static void apply(const struct input *in, struct pgr_incremental *inc, const struct memory *blocks)
{
	struct memory m = *blocks;
	struct pgr_err err = {0};
	struct file f;
	int rc;

	file_init(&f, in->old);
	m.left = m.left < in->first ? m.left : in->first;
	rc = pgr_incremental_apply(inc, &f.sys, 3, NAME, in->limit, &m.source, &err);
	insist(rc == PGR_OK || err.cls == PGR_E_DATA);
	m = *blocks;
	f.writes_left = (unsigned)(in->first % 4);
	if (pgr_incremental_apply(inc, &f.sys, 3, NAME, in->limit, &m.source, &err) != PGR_OK)
		insist(err.cls == PGR_E_SYSTEM || err.cls == PGR_E_DATA);
	m = *blocks;
	f.writes_left = UINT32_MAX;
	rc = pgr_incremental_apply(inc, &f.sys, 3, NAME, in->limit, &m.source, &err);
	insist((rc == PGR_OK) == (blocks->left >= (size_t)inc->nblocks * PAGE));
	if (rc != PGR_OK)
		return;
	insist(blocks->left - m.left == (size_t)inc->nblocks * PAGE);
	check_file(&f, inc, in->old, in->limit, blocks->data);
}

static void play(const struct input *in)
{
	struct pgr_incremental whole, pieces;
	struct pgr_err err = {0}, err2 = {0};
	struct memory m, m2;
	int rc = read_head(in, &m, 0, &whole, &err), rc2 = read_head(in, &m2, in->random, &pieces, &err2);

	insist(rc == rc2 && strcmp(err.msg, err2.msg) == 0);
	if (rc == PGR_OK) {
		insist(m.left == m2.left && whole.nblocks == pieces.nblocks && whole.truncation == pieces.truncation);
		check_head(&whole);
		apply(in, &whole, &m);
		apply(in, &pieces, &m2);
	} else {
		insist(err.cls == PGR_E_DATA && whole.blocks == NULL && pieces.blocks == NULL);
	}
	pgr_incremental_fini(&whole);
	pgr_incremental_fini(&pieces);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct input in;

	if (size < 4)
		return 0;
	in = (struct input){
		.data = data + 4,
		.len = size - 4,
		.told = size - 4,
		.old = data[0] * 3u % (SEGMENT * PAGE + 1),
		.limit = data[1] == 0xFF ? PGR_NO_LIMIT : data[1] % (SEGMENT + 2),
		.first = data[3],
		.random = 2166136261u,
	};
	if (data[2] >= 0xF0) /* an archive that is cut short, or goes on */
		in.told += data[2] & 1 ? PAGE : 0u - PAGE;
	for (size_t i = 0; i < size; i++)
		in.random = (in.random ^ data[i]) * 16777619u;
	in.random |= 1;
	play(&in);
	return 0;
}
