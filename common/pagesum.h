/*
 * PostgreSQL's data page checksum.
 *
 * Source: PostgreSQL src/include/storage/checksum_impl.h (FNV-1a variant in 32 lanes), src/include/storage/bufpage.h.
 * Computed with SIMD where the processor has it, chosen at run time.
 */
#ifndef PGR_COMMON_PAGESUM_H
#define PGR_COMMON_PAGESUM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/lsn.h"

/*
 * The checksum of one page of `page_bytes` (a power of two, 1024 to 32768; 8192 is the usual one) that stands at block
 * `blkno` of its relation (counted over all segments of the fork).  pd_checksum is taken as zero.  Never 0.  `page`
 * need not be aligned.
 */
uint16_t pgr_page_checksum(const void *page, uint32_t page_bytes, uint32_t blkno);

/* The portable version, for tests. */
uint16_t pgr_page_checksum_portable(const void *page, uint32_t page_bytes, uint32_t blkno);

/* pd_lsn, pd_checksum and whether pd_upper is 0 (a new page, which has no checksum). Native byte order, as on the
 * server's disk. */
pgr_lsn pgr_page_lsn(const void *page);
uint16_t pgr_page_stored_checksum(const void *page);
bool pgr_page_is_new(const void *page);

#endif
