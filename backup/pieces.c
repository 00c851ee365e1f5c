#include "backup/pieces.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/compress.h"

/* An empty stored block may come behind what deflateBound counts. */
#define FLUSH_ROOM 64u

struct pgr_piece_maker {
	enum pgr_compression method;
	struct pgr_comp *frames; /* LZ4, zstd */
	z_stream deflate;
	bool deflate_ready;
};

static int open_deflate(struct pgr_piece_maker *m, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	/* a negative number of bits: no header, no checksum (zlib.h, deflateInit2) */
	int rc = deflateInit2(&m->deflate, spec->has_level ? spec->level : Z_DEFAULT_COMPRESSION, Z_DEFLATED,
			      -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);

	if (rc == Z_STREAM_ERROR)
		return pgr_err_set(err, PGR_E_USAGE, "could not set compression level to %d", spec->level);
	if (rc != Z_OK)
		return pgr_err_nomem(err);
	m->deflate_ready = true;
	return PGR_OK;
}

static int open_frames(struct pgr_piece_maker *m, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct pgr_compress_spec own = {.method = spec->method, .has_level = spec->has_level, .level = spec->level};

	return pgr_comp_new(&m->frames, &own, err);
}

int pgr_piece_maker_new(struct pgr_piece_maker **out, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct pgr_piece_maker *m = calloc(1, sizeof(*m));
	int rc;

	*out = NULL;
	if (m == NULL)
		return pgr_err_nomem(err);
	m->method = spec->method;
	rc = m->method == PGR_COMP_GZIP ? open_deflate(m, spec, err) : open_frames(m, spec, err);
	if (rc != PGR_OK) {
		pgr_piece_maker_free(m);
		return PGR_ERR;
	}
	*out = m;
	return PGR_OK;
}

void pgr_piece_maker_free(struct pgr_piece_maker *m)
{
	if (m == NULL)
		return;
	if (m->deflate_ready)
		deflateEnd(&m->deflate); /* tells that a piece was not ended, which its owner knows */
	pgr_comp_free(m->frames);
	free(m);
}

size_t pgr_piece_bound(struct pgr_piece_maker *m, size_t len)
{
	if (m->method != PGR_COMP_GZIP)
		return pgr_comp_bound(m->frames, len) + FLUSH_ROOM;
	return deflateBound(&m->deflate, len) + FLUSH_ROOM;
}

static int broken(const char *words, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "could not compress data with gzip: %s", words);
}

static int make_deflated(struct pgr_piece_maker *m, const uint8_t *data, size_t len, uint8_t *out, size_t cap,
			 size_t *made, struct pgr_err *err)
{
	z_stream *z = &m->deflate;
	/* zlib's next_in is const only with ZLIB_CONST, which would have to be set for the whole program. */
	union {
		const uint8_t *ours;
		Bytef *theirs;
	} in = {.ours = data};

	if (len > UINT_MAX / 2 || deflateReset(z) != Z_OK)
		return broken("could not start a piece", err);
	z->next_in = in.theirs;
	z->avail_in = (uInt)len;
	z->next_out = out;
	z->avail_out = cap < UINT_MAX ? (uInt)cap : UINT_MAX;
	if (deflate(z, Z_SYNC_FLUSH) != Z_OK || z->avail_in > 0 || z->avail_out == 0)
		return broken("a piece has no room", err);
	*made = (size_t)(z->next_out - out);
	return PGR_OK;
}

int pgr_piece_make(struct pgr_piece_maker *m, const uint8_t *data, size_t len, uint8_t *out, size_t cap, size_t *made,
		   uint32_t *crc, struct pgr_err *err)
{
	*made = 0;
	*crc = 0;
	if (m->method == PGR_COMP_GZIP) {
		*crc = (uint32_t)crc32_z(crc32(0, NULL, 0), data, len);
		return make_deflated(m, data, len, out, cap, made, err);
	}
	switch (pgr_comp_step(m->frames, &data, &len, PGR_COMP_END, out, cap, made, err)) {
	case PGR_MORE:
		return PGR_OK;
	case PGR_OK:
		return pgr_err_set(err, PGR_E_DATA, "could not compress data: a piece has no room");
	default:
		return PGR_ERR;
	}
}

/* ---- the stream ---- */

/* RFC 1952, 2.3: magic, deflate, no flags, no time, nothing about the level, Unix. */
static const uint8_t gzip_head[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};

/* Frames without content: of LZ4 (header, end mark), of zstd (header, an empty last block). */
static const uint8_t empty_lz4[] = {0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 0, 0, 0, 0};
static const uint8_t empty_zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00};

static size_t copy(uint8_t *out, const uint8_t *from, size_t n)
{
	memcpy(out, from, n);
	return n;
}

size_t pgr_piece_stream_head(struct pgr_piece_stream *s, uint8_t *out)
{
	bool first = !s->begun;

	s->begun = true;
	return first && s->method == PGR_COMP_GZIP ? copy(out, gzip_head, sizeof(gzip_head)) : 0;
}

void pgr_piece_stream_add(struct pgr_piece_stream *s, size_t len, uint32_t crc)
{
	if (s->method == PGR_COMP_GZIP)
		s->crc = (uint32_t)crc32_combine(s->crc, crc, (z_off_t)len);
	s->size += len;
}

static uint8_t *put_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++, v >>= 8)
		*p++ = (uint8_t)v;
	return p;
}

size_t pgr_piece_stream_end(struct pgr_piece_stream *s, uint8_t *out)
{
	size_t n = pgr_piece_stream_head(s, out);

	switch (s->method) {
	case PGR_COMP_GZIP:
		out[n++] = 3; /* a last block with fixed codes, and nothing in it but its end */
		out[n++] = 0;
		put_le32(put_le32(out + n, s->crc), (uint32_t)s->size);
		return n + 8;
	case PGR_COMP_LZ4:
		return s->size == 0 ? copy(out, empty_lz4, sizeof(empty_lz4)) : 0;
	case PGR_COMP_ZSTD:
		return s->size == 0 ? copy(out, empty_zstd, sizeof(empty_zstd)) : 0;
	case PGR_COMP_NONE:
		break;
	}
	return 0;
}
