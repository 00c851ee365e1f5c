/*
 * Streaming compression: gzip (zlib), LZ4 frames, zstd, behind one interface; the counterpart of common/decompress.h.
 */
#ifndef PGR_COMMON_COMPRESS_H
#define PGR_COMMON_COMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "common/compress_spec.h"
#include "common/err.h"

struct pgr_comp;

/*
 * Makes a compressor.  Of `spec` (copied) count the method, the level, and zstd's workers and long-distance mode; what
 * pgr_compress_spec_parse took is in range.  With PGR_COMP_NONE bytes are passed through.  LZ4 and zstd frames carry a
 * checksum of their content, as gzip members do.  PGR_E_USAGE: the library refuses a setting, e.g. workers in a libzstd
 * without threads.
 */
int pgr_comp_new(struct pgr_comp **out, const struct pgr_compress_spec *spec, struct pgr_err *err) PGR_MUST_USE;
void pgr_comp_free(struct pgr_comp *c);

enum pgr_comp_op {
	PGR_COMP_GO_ON, /* more will follow: keep what compresses better together */
	PGR_COMP_FLUSH, /* what was given so far can be decompressed from what was produced so far */
	PGR_COMP_END,	/* end the gzip member, LZ4 frame or zstd frame; the next step begins a new one */
};

#define PGR_COMP_ROOM_MIN 64u

/*
 * Takes bytes from *in (advancing *in and *in_len) and writes up to out_cap (at least PGR_COMP_ROOM_MIN) bytes to out,
 * *produced of them. PGR_MORE: `op` is done: all input was taken, and with FLUSH or END everything that it asks for was
 * produced. PGR_OK: out is full; call again with the rest of the input, the same `op` and new room.  PGR_ERR:
 * PGR_E_NOMEM or PGR_E_DATA; the compressor can only be freed.
 *
 * END makes a whole (empty) member or frame where nothing was given since the last one.  A FLUSH without new input is
 * allowed and produces little or nothing.
 */
int pgr_comp_step(struct pgr_comp *c, const uint8_t **in, size_t *in_len, enum pgr_comp_op op, void *out,
		  size_t out_cap, size_t *produced, struct pgr_err *err) PGR_MUST_USE;

/*
 * Room in which `len` bytes fit for sure when they become one member or frame of their own, in one step with END; 0
 * when that is more than a size_t.
 */
size_t pgr_comp_bound(struct pgr_comp *c, size_t len);

#endif
