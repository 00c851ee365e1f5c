/*
 * CRC-32C (Castagnoli), the checksum of PostgreSQL's WAL records, control file and backup manifest.
 *
 * Source: PostgreSQL src/include/port/pg_crc32c.h.  Uses the processor's instruction where it has one,
 * chosen at run time.
 */
#ifndef PGR_COMMON_CRC32C_H
#define PGR_COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 for a new one) over len bytes; pre- and post-inversion are inside, so results chain. */
uint32_t pgr_crc32c(uint32_t crc, const void *data, size_t len);

/* The portable version, for tests and for processors without the instruction. */
uint32_t pgr_crc32c_portable(uint32_t crc, const void *data, size_t len);

/* The CRC of A followed by B from crc(A), crc(B) and B's length. */
uint32_t pgr_crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

#endif
