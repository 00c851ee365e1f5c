/*
 * Streaming decompression: gzip (zlib), LZ4 frames, zstd, behind one interface.
 */
#ifndef PGR_COMMON_DECOMPRESS_H
#define PGR_COMMON_DECOMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum pgr_compression { PGR_COMP_NONE, PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD };

struct pgr_decomp;

/* Makes a decompressor for one stream.  zstd windows above 128 MiB (what libzstd allows by default) are refused. */
int pgr_decomp_new(struct pgr_decomp **out, enum pgr_compression method, struct pgr_err *err) PGR_MUST_USE;
void pgr_decomp_free(struct pgr_decomp *d);

/*
 * Takes bytes from *in (advancing *in and *in_len) and writes up to out_cap bytes to out, *produced of them.
 * PGR_OK: made progress, call again with more input or room.  PGR_MORE: the stream ended exactly here (concatenated
 * gzip members and LZ4/zstd frames are continued as long as input is left).  PGR_ERR: PGR_E_DATA, corrupt.
 */
int pgr_decomp_step(struct pgr_decomp *d, const uint8_t **in, size_t *in_len, void *out, size_t out_cap,
		    size_t *produced, struct pgr_err *err) PGR_MUST_USE;

/* Whether the bytes taken so far end a complete stream: a stream that stops elsewhere is cut off. */
bool pgr_decomp_at_end(const struct pgr_decomp *d);

/* "gzip", "lz4", "zstd", "none". */
const char *pgr_compression_name(enum pgr_compression method);

#endif
