#include "backup/incremental.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fs_io.h"
#include "common/sys.h"

#define MAGIC  0xd3ae1f0du
#define PREFIX "INCREMENTAL."

/* Blocks that follow each other are written together, up to so many bytes. */
#define RUN_BYTES ((size_t)256 * 1024)

void pgr_incremental_fini(struct pgr_incremental *inc)
{
	free(inc->blocks);
	*inc = (struct pgr_incremental){0};
}

bool pgr_incremental_path(const char *path, char out[PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	const char *leaf = slash != NULL ? slash + 1 : path;
	size_t n = (size_t)(leaf - path), rest;

	if (strncmp(leaf, PREFIX, sizeof(PREFIX) - 1) != 0)
		return false;
	leaf += sizeof(PREFIX) - 1;
	rest = strlen(leaf);
	if (rest == 0 || n + rest >= PATH_MAX)
		return false;
	memcpy(out, path, n);
	memcpy(out + n, leaf, rest + 1);
	return true;
}

/* ---- the head ---- */

static int no_head(const char *name, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "file \"%s\" of an incremental backup ends within its head", name);
}

static int read_full(struct pgr_source *source, void *dst, size_t len, const char *name, struct pgr_err *err)
{
	int rc = pgr_source_read_full(source, dst, len, err);

	return rc == PGR_MORE ? no_head(name, err) : rc;
}

/* With blocks the head is padded, so that these lie at multiples of the page size. */
static uint64_t head_bytes(uint32_t nblocks, uint32_t page_bytes)
{
	uint64_t n = 12 + 4 * (uint64_t)nblocks;

	return nblocks == 0 ? n : (n + page_bytes - 1) / page_bytes * page_bytes;
}

static int check_head(const struct pgr_incremental *inc, uint32_t magic, uint64_t size, uint32_t segment_blocks,
		      const char *name, struct pgr_err *err)
{
	if (magic != MAGIC)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" is not of an incremental backup: it begins with %08x",
				   name, magic);
	if (inc->nblocks > segment_blocks)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" of an incremental backup has %u blocks of at most %u",
				   name, inc->nblocks, segment_blocks);
	if (size != head_bytes(inc->nblocks, inc->page_bytes) + (uint64_t)inc->nblocks * inc->page_bytes)
		return pgr_err_set(
			err, PGR_E_DATA,
			"file \"%s\" of an incremental backup has %llu bytes, which do not fit its %u blocks", name,
			(unsigned long long)size, inc->nblocks);
	return PGR_OK;
}

static int check_blocks(const struct pgr_incremental *inc, uint32_t segment_blocks, const char *name,
			struct pgr_err *err)
{
	for (uint32_t i = 0; i < inc->nblocks; i++)
		if (inc->blocks[i] >= segment_blocks || (i > 0 && inc->blocks[i] <= inc->blocks[i - 1]))
			return pgr_err_set(err, PGR_E_DATA,
					   "file \"%s\" of an incremental backup has an impossible list of blocks: "
					   "block %u at place %u",
					   name, inc->blocks[i], i);
	return PGR_OK;
}

static int skip(struct pgr_source *source, uint64_t len, const char *name, struct pgr_err *err)
{
	uint8_t waste[4096];

	while (len > 0) {
		size_t n = len < sizeof(waste) ? (size_t)len : sizeof(waste);

		if (read_full(source, waste, n, name, err) != PGR_OK)
			return PGR_ERR;
		len -= n;
	}
	return PGR_OK;
}

static int read_blocks(struct pgr_incremental *inc, struct pgr_source *source, uint32_t segment_blocks,
		       const char *name, struct pgr_err *err)
{
	uint64_t read = 12 + 4 * (uint64_t)inc->nblocks;

	if (inc->nblocks == 0)
		return PGR_OK;
	inc->blocks = malloc(inc->nblocks * sizeof(*inc->blocks));
	if (inc->blocks == NULL)
		return pgr_err_nomem(err);
	if (read_full(source, inc->blocks, inc->nblocks * sizeof(*inc->blocks), name, err) != PGR_OK ||
	    check_blocks(inc, segment_blocks, name, err) != PGR_OK)
		return PGR_ERR;
	return skip(source, head_bytes(inc->nblocks, inc->page_bytes) - read, name, err);
}

/* Numbers are in the server's byte order: one that is not ours has another magic number, and another pg_control. */
int pgr_incremental_read(struct pgr_incremental *out, struct pgr_source *source, uint64_t size, uint32_t page_bytes,
			 uint32_t segment_blocks, const char *name, struct pgr_err *err)
{
	uint32_t head[3];

	*out = (struct pgr_incremental){.page_bytes = page_bytes};
	if (size < sizeof(head))
		return no_head(name, err);
	if (read_full(source, head, sizeof(head), name, err) != PGR_OK)
		return PGR_ERR;
	out->nblocks = head[1];
	/* servers below 17.8 and 18.2 count a limit that lies in a later segment from the start of this one */
	out->truncation = head[2] < segment_blocks ? head[2] : segment_blocks;
	if (check_head(out, head[0], size, segment_blocks, name, err) == PGR_OK &&
	    read_blocks(out, source, segment_blocks, name, err) == PGR_OK)
		return PGR_OK;
	pgr_incremental_fini(out);
	return PGR_ERR;
}

/* ---- what becomes of the file ---- */

uint32_t pgr_segment_limit(uint32_t limit, uint32_t segment, uint32_t segment_blocks)
{
	uint64_t first = (uint64_t)segment * segment_blocks;

	if (limit == PGR_NO_LIMIT)
		return PGR_NO_LIMIT;
	return limit > first ? (uint32_t)(limit - first) : 0;
}

uint32_t pgr_incremental_kept(const struct pgr_incremental *inc, uint32_t limit)
{
	return limit < inc->truncation ? limit : inc->truncation;
}

uint32_t pgr_incremental_blocks(const struct pgr_incremental *inc)
{
	uint32_t end = inc->nblocks > 0 ? inc->blocks[inc->nblocks - 1] + 1 : 0;

	return end > inc->truncation ? end : inc->truncation;
}

bool pgr_incremental_has(const struct pgr_incremental *inc, uint32_t block)
{
	uint32_t low = 0, high = inc->nblocks;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (inc->blocks[mid] == block)
			return true;
		if (inc->blocks[mid] < block)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/* ---- changing it ---- */

static int set_size(const struct pgr_sys *sys, int fd, uint64_t size, const char *name, struct pgr_err *err)
{
	if (sys->ftruncate(sys, fd, (off_t)size) != 0)
		return pgr_err_sys(err, errno, "could not set the size of file \"%s\"", name);
	return PGR_OK;
}

/* Blocks from number `i` on that follow each other, as many as the buffer takes. */
static uint32_t run_length(const struct pgr_incremental *inc, uint32_t i, size_t cap)
{
	uint32_t n = 1;

	while (i + n < inc->nblocks && inc->blocks[i + n] == inc->blocks[i] + n &&
	       (n + 1) * (size_t)inc->page_bytes <= cap)
		n++;
	return n;
}

static int write_blocks(const struct pgr_incremental *inc, const struct pgr_sys *sys, int fd, const char *name,
			struct pgr_source *source, uint8_t *buf, struct pgr_err *err)
{
	for (uint32_t i = 0, n; i < inc->nblocks; i += n) {
		size_t len;
		int rc;

		n = run_length(inc, i, RUN_BYTES);
		len = (size_t)n * inc->page_bytes;
		rc = pgr_source_read_full(source, buf, len, err);
		if (rc != PGR_OK)
			return rc == PGR_ERR
				       ? rc
				       : pgr_err_set(err, PGR_E_DATA,
						     "file \"%s\" of an incremental backup ends before its blocks",
						     name);
		if (pgr_fs_pwrite_all(sys, fd, buf, len, (off_t)inc->blocks[i] * inc->page_bytes, name, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/*
 * First cut, then written, then extended: what the file had above the cut never shows again, not even when this is
 * killed in between and done once more.
 */
int pgr_incremental_apply(const struct pgr_incremental *inc, const struct pgr_sys *sys, int fd, const char *name,
			  uint32_t limit, struct pgr_source *source, struct pgr_err *err)
{
	uint64_t page = inc->page_bytes, kept = pgr_incremental_kept(inc, limit) * page, size, end;
	uint8_t *buf;
	struct stat st;
	int rc;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", name);
	size = (uint64_t)st.st_size;
	if (size > kept && set_size(sys, fd, kept, name, err) != PGR_OK)
		return PGR_ERR;
	if (size > kept)
		size = kept;
	if (inc->nblocks > 0) {
		buf = malloc(page > RUN_BYTES ? page : RUN_BYTES);
		if (buf == NULL)
			return pgr_err_nomem(err);
		rc = write_blocks(inc, sys, fd, name, source, buf, err);
		free(buf);
		if (rc != PGR_OK)
			return PGR_ERR;
		end = (inc->blocks[inc->nblocks - 1] + (uint64_t)1) * page;
		size = end > size ? end : size;
	}
	end = pgr_incremental_blocks(inc) * page;
	return size < end ? set_size(sys, fd, end, name, err) : PGR_OK;
}
