#include "backup/pagecheck.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/pagesum.h"

struct pgr_pagecheck {
	/* constant */
	uint32_t page_bytes;
	uint32_t segment_blocks;
	pgr_lsn start;

	pthread_mutex_t lock;
	/* under lock: */
	struct pgr_suspect *suspects;
	size_t n, cap, next;
	bool lost; /* there was no memory for one */
};

int pgr_pagecheck_new(struct pgr_pagecheck **out, uint32_t page_bytes, uint32_t segment_blocks, pgr_lsn start,
		      struct pgr_err *err)
{
	struct pgr_pagecheck *p;

	*out = NULL;
	if (page_bytes < 1024 || page_bytes > 32768 || (page_bytes & (page_bytes - 1)) != 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server has an impossible block size of %u bytes",
				   page_bytes);
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(err);
	p->page_bytes = page_bytes;
	p->segment_blocks = segment_blocks;
	p->start = start;
	pthread_mutex_init(&p->lock, NULL);
	*out = p;
	return PGR_OK;
}

void pgr_pagecheck_free(struct pgr_pagecheck *p)
{
	if (p == NULL)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p->suspects);
	free(p);
}

static void remember(struct pgr_pagecheck *p, void *file, uint32_t block)
{
	pthread_mutex_lock(&p->lock);
	if (p->n == p->cap) {
		size_t cap = p->cap == 0 ? 64 : p->cap * 2;
		struct pgr_suspect *list = reallocarray(p->suspects, cap, sizeof(*list));

		if (list != NULL) {
			p->suspects = list;
			p->cap = cap;
		}
	}
	if (p->n < p->cap)
		p->suspects[p->n++] = (struct pgr_suspect){.file = file, .block = block};
	else
		p->lost = true;
	pthread_mutex_unlock(&p->lock);
}

uint32_t pgr_pagecheck_page_bytes(const struct pgr_pagecheck *p)
{
	return p->page_bytes;
}

uint32_t pgr_pagecheck_relation_block(const struct pgr_pagecheck *p, uint32_t segment, uint32_t block)
{
	return segment * p->segment_blocks + block;
}

bool pgr_pagecheck_is_replayed(const struct pgr_pagecheck *p, const void *page)
{
	return !pgr_page_is_new(page) && pgr_page_lsn(page) >= p->start;
}

bool pgr_pagecheck_is_bad(const struct pgr_pagecheck *p, uint32_t segment, uint32_t block, const void *page,
			  uint16_t *calculated, uint16_t *expected)
{
	if (pgr_page_is_new(page) || pgr_pagecheck_is_replayed(p, page))
		return false;
	*calculated = pgr_page_checksum(page, p->page_bytes, pgr_pagecheck_relation_block(p, segment, block));
	*expected = pgr_page_stored_checksum(page);
	return *calculated != *expected;
}

void pgr_pagecheck_block(struct pgr_pagecheck *p, void *file, uint32_t segment, uint64_t off, const void *data,
			 size_t len)
{
	const uint8_t *page = data;
	uint32_t block = (uint32_t)(off / p->page_bytes);
	uint16_t calculated, expected;

	for (; len >= p->page_bytes; len -= p->page_bytes, page += p->page_bytes, block++)
		if (pgr_pagecheck_is_bad(p, segment, block, page, &calculated, &expected))
			remember(p, file, block);
}

int pgr_pagecheck_next(struct pgr_pagecheck *p, struct pgr_suspect *out, struct pgr_err *err)
{
	int rc = PGR_OK;

	pthread_mutex_lock(&p->lock);
	if (p->next < p->n)
		*out = p->suspects[p->next++];
	else
		rc = p->lost ? pgr_err_nomem(err) : PGR_MORE;
	pthread_mutex_unlock(&p->lock);
	return rc;
}
