/*
 * The checksum of a file that is written in blocks, in any order (CRC-32C) or in order (SHA).
 */
#ifndef PGR_BACKUP_FILESUM_H
#define PGR_BACKUP_FILESUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct pgr_filesum;

/* One file's sum.  With PGR_DIGEST_NONE nothing is computed. */
int pgr_filesum_new(struct pgr_filesum **out, enum pgr_digest_algo algo, struct pgr_err *err) PGR_MUST_USE;
void pgr_filesum_free(struct pgr_filesum *s);

/* Whether blocks must come in ascending order without overlap (SHA): see pgr_dirsink_watch. */
bool pgr_filesum_needs_order(const struct pgr_filesum *s);

/* A block of the file.  Any thread; for CRC-32C several at once.  A failure is kept and returned by end. */
void pgr_filesum_block(struct pgr_filesum *s, uint64_t off, const void *data, size_t len);

/* The same for a stretch of which only the CRC-32C is known; for sums of other kinds it tells nothing. */
void pgr_filesum_known(struct pgr_filesum *s, uint64_t off, uint64_t len, uint32_t crc);

/*
 * The end: the file has `size` bytes, what no block covered is zeros.  *len is 0 for PGR_DIGEST_NONE.
 * PGR_E_DATA: blocks overlapped or went beyond the size; PGR_E_NOMEM.
 */
int pgr_filesum_end(struct pgr_filesum *s, uint64_t size, uint8_t out[PGR_DIGEST_MAX], size_t *len,
		    struct pgr_err *err) PGR_MUST_USE;

#endif
