/*
 * Page checksums on the way, as the server's BASE_BACKUP checks them: pages that are not new and whose LSN is below the
 * backup's start.
 *
 * A page that fails may have been torn by a concurrent write: it is looked at once more, read again, before it is
 * called bad. Source: PostgreSQL src/backend/backup/basebackup.c (verify_page_checksum), bufpage.c.
 */
#ifndef PGR_BACKUP_PAGECHECK_H
#define PGR_BACKUP_PAGECHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_pagecheck;

/* A page to be read again. */
struct pgr_suspect {
	void *file;	/* as given to pgr_pagecheck_block */
	uint32_t block; /* of the file (not of the relation) */
};

/* `page_bytes`: the server's block_size. */
int pgr_pagecheck_new(struct pgr_pagecheck **out, uint32_t page_bytes, uint32_t segment_blocks, pgr_lsn start,
		      struct pgr_err *err) PGR_MUST_USE;
void pgr_pagecheck_free(struct pgr_pagecheck *p);

/*
 * Looks at a block of a relation file: `off` is a multiple of the page size; an incomplete last page is not checked.
 * `segment` is the file's segment number.  Suspects are remembered.  Any thread.
 */
void pgr_pagecheck_block(struct pgr_pagecheck *p, void *file, uint32_t segment, uint64_t off, const void *data,
			 size_t len);

/* Takes one suspect; PGR_MORE when there is none.  PGR_E_NOMEM when some could not be remembered. */
int pgr_pagecheck_next(struct pgr_pagecheck *p, struct pgr_suspect *out, struct pgr_err *err) PGR_MUST_USE;

uint32_t pgr_pagecheck_page_bytes(const struct pgr_pagecheck *p);

/* The number within its relation of a file's block. */
uint32_t pgr_pagecheck_relation_block(const struct pgr_pagecheck *p, uint32_t segment, uint32_t block);

/* Whether a page was changed after the backup began: replay writes it anew as a whole, whatever it finds. */
bool pgr_pagecheck_is_replayed(const struct pgr_pagecheck *p, const void *page);

/*
 * The verdict on a page that was read again.  True: it is bad; *calculated and *expected are what the warning says.
 */
bool pgr_pagecheck_is_bad(const struct pgr_pagecheck *p, uint32_t segment, uint32_t block, const void *page,
			  uint16_t *calculated, uint16_t *expected);

#endif
