/*
 * A compressed stream made of pieces that know nothing of each other, so that several threads can make them at once.
 *
 * LZ4 and zstd: each piece is a frame.  gzip: all pieces are one member, each a run of deflate blocks that ends on a
 * byte (an empty stored block, RFC 1951, 3.2.4), with the member's header before the first and its last block and
 * checksum after the last; readers that stop at the end of a member read such a file, too.
 */
#ifndef PGR_BACKUP_PIECES_H
#define PGR_BACKUP_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/compress_spec.h"
#include "common/err.h"

/* Makes pieces: one for each thread. */
struct pgr_piece_maker;

/* Of `spec` count the method (not PGR_COMP_NONE) and the level; errors as pgr_comp_new. */
int pgr_piece_maker_new(struct pgr_piece_maker **out, const struct pgr_compress_spec *spec,
			struct pgr_err *err) PGR_MUST_USE;
void pgr_piece_maker_free(struct pgr_piece_maker *m);

/* Room for what `len` bytes become. */
size_t pgr_piece_bound(struct pgr_piece_maker *m, size_t len);

/* Compresses `len` (> 0) bytes into `out`, which has pgr_piece_bound bytes; *crc is for the stream's end. */
int pgr_piece_make(struct pgr_piece_maker *m, const uint8_t *data, size_t len, uint8_t *out, size_t cap, size_t *made,
		   uint32_t *crc, struct pgr_err *err) PGR_MUST_USE;

/* What stands before, between and after the pieces.  Valid when zeroed with its method set. */
struct pgr_piece_stream {
	enum pgr_compression method;
	bool begun;
	uint32_t crc;  /* of all content so far */
	uint64_t size; /* bytes of it */
};

#define PGR_PIECE_EXTRA_MAX 32u /* bytes of a head or an end at most */

/* The bytes before the first piece; 0 later, and for formats that have none.  `out` has PGR_PIECE_EXTRA_MAX bytes. */
size_t pgr_piece_stream_head(struct pgr_piece_stream *s, uint8_t *out);

/* Counts a piece of `len` bytes, in order. */
void pgr_piece_stream_add(struct pgr_piece_stream *s, size_t len, uint32_t crc);

/* The end of the stream, with its head when there was no piece.  `out` as above. */
size_t pgr_piece_stream_end(struct pgr_piece_stream *s, uint8_t *out);

#endif
