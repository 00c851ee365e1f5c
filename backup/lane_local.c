#include "backup/lane_local.h"

#include <errno.h>
#include <stdlib.h>

#include "backup/exclude.h"
#include "backup/filelist.h"
#include "backup/pagecheck.h"
#include "common/block.h"
#include "common/crc32c.h"
#include "common/sys.h"

/* What is read at once: past the page cache nothing is read ahead, and a distant disk needs large reads. */
#define STEP_BYTES ((uint64_t)PGR_LANE_ROW_MAX)

/* From this size on a file is read past the page cache: see docs/ARCHITECTURE.md. */
#define DIRECT_BYTES ((uint64_t)128 * 1024)

static void close_file(struct pgr_lane_local *l)
{
	if (l->fd >= 0)
		(void)l->sys->close(l->sys, l->fd); /* nothing was written through it */
	l->fd = -1;
}

void pgr_lane_local_fini(struct pgr_lane_local *l)
{
	if (l->sys != NULL)
		close_file(l);
	free(l->chunks);
	free(l->buf);
	*l = (struct pgr_lane_local){.fd = -1};
}

/* ---- reading ---- */

/* Ranges of a big file follow each other. */
static int open_file(struct pgr_lane_local *l, size_t file, struct pgr_err *err)
{
	if (l->fd >= 0 && l->file == file)
		return PGR_OK;
	close_file(l);
	if (pgr_lane_files_open_here(l->files, file, l->dir, &l->fd, err) != PGR_OK)
		return PGR_ERR;
	l->file = file;
	if (l->list->entries[file].size >= DIRECT_BYTES)
		(void)l->sys->set_direct(l->sys, l->fd, 1); /* a file system that has none is read all the same */
	return PGR_OK;
}

static int make_buffer(struct pgr_lane_local *l, struct pgr_err *err)
{
	void *p;

	if (l->buf != NULL)
		return PGR_OK;
	if (posix_memalign(&p, PGR_BLOCK_ALIGN, PGR_LANE_ROW_MAX) != 0)
		return pgr_err_nomem(err);
	l->buf = p;
	return PGR_OK;
}

static ssize_t read_some(struct pgr_lane_local *l, size_t done, size_t len, uint64_t off)
{
	ssize_t n;

	do
		n = l->sys->pread(l->sys, l->fd, l->buf + done, len - done, (off_t)(off + done));
	while (n < 0 && errno == EINTR);
	/* a read that came short leaves the alignment of O_DIRECT: the rest is read without */
	if (n < 0 && errno == EINVAL && l->sys->set_direct(l->sys, l->fd, 0) == 0)
		n = l->sys->pread(l->sys, l->fd, l->buf + done, len - done, (off_t)(off + done));
	return n;
}

/* Up to `len` bytes, fewer at the end of the file.  O_DIRECT wants whole pages to be asked for. */
static int read_range(struct pgr_lane_local *l, uint64_t off, size_t len, size_t *got, struct pgr_err *err)
{
	size_t ask = (len + PGR_BLOCK_ALIGN - 1) & ~(size_t)(PGR_BLOCK_ALIGN - 1);
	ssize_t n;

	*got = 0;
	while (*got < len) {
		n = read_some(l, *got, ask, off);
		if (n == 0 || (n < 0 && errno == EIO)) /* what a disk has lost is fetched */
			return PGR_OK;
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s\"", l->list->entries[l->file].path);
		*got += (size_t)n;
	}
	*got = len;
	return PGR_OK;
}

/* ---- pages ---- */

static bool is_suspect(const struct pgr_lane_local *l, const struct pgr_relfile *rel, uint64_t off, const uint8_t *data,
		       size_t len)
{
	uint32_t page = pgr_pagecheck_page_bytes(l->pages);
	uint32_t block = (uint32_t)(off / page);
	uint16_t calculated, expected;

	for (; len >= page; len -= page, data += page, block++)
		if (pgr_pagecheck_is_bad(l->pages, rel->segment, block, data, &calculated, &expected))
			return true;
	return false;
}

int pgr_lane_local_check_pages(struct pgr_lane_local *l, size_t file, uint64_t off, uint64_t len, struct pgr_err *err)
{
	size_t got;

	if (open_file(l, file, err) != PGR_OK || read_range(l, off, (size_t)len, &got, err) != PGR_OK)
		return PGR_ERR;
	if (got < len)
		return PGR_MORE;
	pgr_lane_files_check_pages(l->files, file, off, l->buf, got);
	return PGR_OK;
}

/* ---- hashing ---- */

static int make_room(struct pgr_lane_local *l, size_t more, struct pgr_err *err)
{
	size_t cap = l->cap == 0 ? 512 : l->cap;
	struct pgr_lane_chunk *p;

	while (cap < l->n + more)
		cap *= 2;
	if (cap == l->cap)
		return PGR_OK;
	p = reallocarray(l->chunks, cap, sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(err);
	l->chunks = p;
	l->cap = cap;
	return PGR_OK;
}

/* One piece on its way. */
struct under_way {
	const struct pgr_lane_piece *p;
	bool has_pages;
	struct pgr_relfile rel;
	uint32_t crc;
};

static int hash_chunk(struct pgr_lane_local *l, struct under_way *u, uint64_t off, const uint8_t *data, size_t len,
		      struct pgr_err *err)
{
	struct pgr_lane_chunk *c = &l->chunks[l->n];
	const struct pgr_rowsum_row row = {
		.content = data, .len = len, .name = l->list->entries[u->p->file].path, .offset = off, .length = len};

	c->before = u->crc;
	c->after = u->crc = pgr_crc32c(u->crc, data, len);
	c->whole = true;
	c->suspect = u->has_pages && is_suspect(l, &u->rel, off, data, len);
	return pgr_rowsum_row(l->sum, &row, c->sum, err);
}

/* The chunks of what was read: `got` of `len` bytes. */
static int hash_step(struct pgr_lane_local *l, struct under_way *u, uint64_t off, size_t len, size_t got,
		     struct pgr_err *err)
{
	for (size_t at = 0; at < len; at += u->p->row, l->n++) {
		size_t want = len - at < u->p->row ? len - at : u->p->row;

		l->chunks[l->n].whole = false;
		if (at + want <= got && hash_chunk(l, u, off + at, l->buf + at, want, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static int hash_piece(struct pgr_lane_local *l, const struct pgr_lane_piece *p, struct pgr_err *err)
{
	struct under_way u = {.p = p};
	uint64_t step = STEP_BYTES / p->row * p->row;
	size_t len, got;

	if (open_file(l, p->file, err) != PGR_OK ||
	    make_room(l, (size_t)((p->to - p->from) / p->row + 1), err) != PGR_OK)
		return PGR_ERR;
	u.has_pages = l->pages != NULL && pgr_has_page_checksums(l->list->entries[p->file].path, &u.rel);
	for (uint64_t off = p->from; off < p->to; off += len) {
		len = (size_t)(p->to - off < step ? p->to - off : step);
		if (read_range(l, off, len, &got, err) != PGR_OK || hash_step(l, &u, off, len, got, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

int pgr_lane_local_hash(struct pgr_lane_local *l, const struct pgr_lane_request *q, struct pgr_err *err)
{
	l->n = 0;
	if (make_buffer(l, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = q->at; i < q->n; i++)
		if (hash_piece(l, &q->pieces[i], err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}
