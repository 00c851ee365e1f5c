#include "backup/tar_sink.h"

#include <stddef.h>

#include "backup/dirsink.h"
#include "backup/tar.h"
#include "common/block.h"

/* Fills a block, short only at the end of the member. */
static int fill_block(struct pgr_tar_reader *tar, struct pgr_block *b, struct pgr_err *err)
{
	size_t n;

	do {
		if (pgr_tar_read(tar, b->data + b->len, b->cap - b->len, &n, err) != PGR_OK)
			return PGR_ERR;
		b->len += n;
	} while (n > 0 && b->len < b->cap);
	return PGR_OK;
}

int pgr_tar_sink_content(struct pgr_tar_reader *tar, uint64_t size, struct pgr_pool *pool, struct pgr_dirsink *sink,
			 struct pgr_sink_file *f, struct pgr_err *err)
{
	struct pgr_block *b;

	for (uint64_t off = 0, len; off < size; off += len) {
		if (pgr_pool_get(pool, &b, err) != PGR_OK)
			return PGR_ERR;
		if (fill_block(tar, b, err) != PGR_OK) {
			pgr_pool_put(pool, b);
			return PGR_ERR;
		}
		len = b->len;
		if (pgr_dirsink_post(sink, f, off, &b, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}
