#include "common/compress.h"

#include <limits.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

/*
 * LZ4 writes only into room for the worst case of what it is given, so it is given pieces of this size, and writes into
 * a stage where the caller's room is too small.
 */
#define LZ4_PIECE_BYTES ((size_t)256 * 1024)

struct pgr_comp {
	enum pgr_compression method;
	bool broken; /* the library said so; its state is not to be used again */

	z_stream gzip;
	bool gzip_ready;
	bool gzip_ended; /* a member was ended: the next byte begins another */

	LZ4F_cctx *lz4;
	LZ4F_preferences_t lz4_prefs;
	bool lz4_open; /* inside a frame */
	uint8_t *stage;
	size_t stage_cap, stage_at, stage_len; /* what the caller has not got yet */

	ZSTD_CCtx *zstd;
};

/* ---- making ---- */

static int open_gzip(struct pgr_comp *c, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	/* 16: with a gzip header; 8: zlib's default memLevel (zlib.h, deflateInit2) */
	int rc = deflateInit2(&c->gzip, spec->has_level ? spec->level : Z_DEFAULT_COMPRESSION, Z_DEFLATED,
			      16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);

	if (rc == Z_STREAM_ERROR)
		return pgr_err_set(err, PGR_E_USAGE, "could not set compression level to %d", spec->level);
	if (rc != Z_OK)
		return pgr_err_nomem(err);
	c->gzip_ready = true;
	return PGR_OK;
}

/* What one piece, the header of a frame or its end may need at once. */
static size_t lz4_room(const struct pgr_comp *c, size_t len)
{
	return LZ4F_compressBound(len, &c->lz4_prefs);
}

static int open_lz4(struct pgr_comp *c, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	c->lz4_prefs.frameInfo.blockSizeID = LZ4F_max256KB;
	c->lz4_prefs.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
	c->lz4_prefs.compressionLevel = spec->has_level ? spec->level : 0;
	c->stage_cap = lz4_room(c, LZ4_PIECE_BYTES);
	if (c->stage_cap < LZ4F_HEADER_SIZE_MAX)
		c->stage_cap = LZ4F_HEADER_SIZE_MAX;
	c->stage = malloc(c->stage_cap);
	if (c->stage == NULL || LZ4F_isError(LZ4F_createCompressionContext(&c->lz4, LZ4F_VERSION)))
		return pgr_err_nomem(err);
	return PGR_OK;
}

static int set_zstd(struct pgr_comp *c, ZSTD_cParameter what, int value, const char *words, struct pgr_err *err)
{
	size_t rc = ZSTD_CCtx_setParameter(c->zstd, what, value);

	if (ZSTD_isError(rc))
		return pgr_err_set(err, PGR_E_USAGE, "could not set %s to %d: %s", words, value, ZSTD_getErrorName(rc));
	return PGR_OK;
}

static int open_zstd(struct pgr_comp *c, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	c->zstd = ZSTD_createCCtx();
	if (c->zstd == NULL)
		return pgr_err_nomem(err);
	if (spec->has_level && set_zstd(c, ZSTD_c_compressionLevel, spec->level, "compression level", err) != PGR_OK)
		return PGR_ERR;
	if (spec->has_workers &&
	    set_zstd(c, ZSTD_c_nbWorkers, spec->workers, "compression worker count", err) != PGR_OK)
		return PGR_ERR;
	if (spec->has_long &&
	    set_zstd(c, ZSTD_c_enableLongDistanceMatching, spec->long_distance, "long-distance mode", err) != PGR_OK)
		return PGR_ERR;
	return set_zstd(c, ZSTD_c_checksumFlag, 1, "checksum of the content", err);
}

static int open_method(struct pgr_comp *c, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	switch (spec->method) {
	case PGR_COMP_NONE:
		return PGR_OK;
	case PGR_COMP_GZIP:
		return open_gzip(c, spec, err);
	case PGR_COMP_LZ4:
		return open_lz4(c, spec, err);
	case PGR_COMP_ZSTD:
		return open_zstd(c, spec, err);
	}
	return pgr_err_set(err, PGR_E_USAGE, "unknown compression method %d", (int)spec->method);
}

int pgr_comp_new(struct pgr_comp **out, const struct pgr_compress_spec *spec, struct pgr_err *err)
{
	struct pgr_comp *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (c == NULL)
		return pgr_err_nomem(err);
	c->method = spec->method;
	if (open_method(c, spec, err) != PGR_OK) {
		pgr_comp_free(c);
		return PGR_ERR;
	}
	*out = c;
	return PGR_OK;
}

void pgr_comp_free(struct pgr_comp *c)
{
	if (c == NULL)
		return;
	/* What these answer tells that a stream was not ended, which its owner knows. */
	if (c->gzip_ready)
		deflateEnd(&c->gzip);
	LZ4F_freeCompressionContext(c->lz4);
	ZSTD_freeCCtx(c->zstd);
	free(c->stage);
	free(c);
}

static int broken(struct pgr_comp *c, const char *words, struct pgr_err *err)
{
	c->broken = true;
	return pgr_err_set(err, PGR_E_DATA, "could not compress data with %s: %s", pgr_compression_name(c->method),
			   words);
}

static int no_memory(struct pgr_comp *c, struct pgr_err *err)
{
	c->broken = true;
	return pgr_err_nomem(err);
}

/* ---- one step ---- */

/* The caller's bytes and room, and what was done with them. */
struct step {
	const uint8_t *in;
	size_t in_len;
	enum pgr_comp_op op;
	uint8_t *out;
	size_t out_len;
	size_t taken;
	size_t made;
};

static int step_none(struct step *s)
{
	size_t n = s->in_len < s->out_len ? s->in_len : s->out_len;

	if (n > 0)
		memcpy(s->out, s->in, n);
	s->taken = n;
	s->made = n;
	return n == s->in_len ? PGR_MORE : PGR_OK;
}

static uInt clip(size_t n)
{
	return n < UINT_MAX ? (uInt)n : UINT_MAX;
}

/* What of `op` a call with clipped input may ask for. */
static int gzip_flush(const struct step *s)
{
	if (clip(s->in_len) < s->in_len || s->op == PGR_COMP_GO_ON)
		return Z_NO_FLUSH;
	return s->op == PGR_COMP_FLUSH ? Z_SYNC_FLUSH : Z_FINISH;
}

static int step_gzip(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	z_stream *z = &c->gzip;
	int flush = gzip_flush(s), rc;
	/* zlib's next_in is const only with ZLIB_CONST, which would have to be set for the whole program. */
	union {
		const uint8_t *ours;
		Bytef *theirs;
	} in = {.ours = s->in};

	if (c->gzip_ended) {
		if (s->in_len == 0 && s->op != PGR_COMP_END)
			return PGR_MORE; /* a member is begun by something to put into it, or by its end */
		if (deflateReset(z) != Z_OK)
			return broken(c, "could not start the next member", err);
		c->gzip_ended = false;
	}
	z->next_in = in.theirs;
	z->avail_in = clip(s->in_len);
	z->next_out = s->out;
	z->avail_out = clip(s->out_len);
	rc = deflate(z, flush);
	s->taken = clip(s->in_len) - z->avail_in;
	s->made = clip(s->out_len) - z->avail_out;
	c->gzip_ended = rc == Z_STREAM_END;
	/* Z_BUF_ERROR: there was nothing (more) to do, which is not an error here. */
	if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
		return broken(c, z->msg != NULL ? z->msg : zError(rc), err);
	if (s->taken < s->in_len)
		return PGR_OK;
	if (flush == Z_FINISH)
		return c->gzip_ended ? PGR_MORE : PGR_OK;
	/* a flush that just fits cannot be told from one that does not: zlib.h wants one more call, with room for more
	 * than a marker, or it would make markers for ever */
	return flush == Z_NO_FLUSH || z->avail_out > 0 ? PGR_MORE : PGR_OK;
}

/* ---- LZ4 ---- */

/* Gives the caller what waits in the stage. */
static void drain_stage(struct pgr_comp *c, struct step *s)
{
	size_t room = s->out_len - s->made;
	size_t n = c->stage_len < room ? c->stage_len : room;

	if (n == 0)
		return;
	memcpy(s->out + s->made, c->stage + c->stage_at, n);
	s->made += n;
	c->stage_at += n;
	c->stage_len -= n;
}

/* Where the library writes next: the caller's room where the worst case fits, the (empty) stage otherwise. */
static uint8_t *lz4_dst(struct pgr_comp *c, struct step *s, size_t worst, size_t *cap)
{
	size_t room = s->out_len - s->made;

	*cap = worst <= room ? room : c->stage_cap;
	return worst <= room ? s->out + s->made : c->stage;
}

static int lz4_wrote(struct pgr_comp *c, struct step *s, const uint8_t *dst, size_t rc, struct pgr_err *err)
{
	if (LZ4F_isError(rc)) {
		const char *words = LZ4F_getErrorName(rc);

		/* The code behind the name is not part of the library's stable interface. */
		return strcmp(words, "ERROR_allocation_failed") == 0 ? no_memory(c, err) : broken(c, words, err);
	}
	if (dst != c->stage) {
		s->made += rc;
		return PGR_OK;
	}
	c->stage_at = 0;
	c->stage_len = rc;
	return PGR_OK;
}

static int lz4_begin(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	size_t cap;
	uint8_t *dst = lz4_dst(c, s, LZ4F_HEADER_SIZE_MAX, &cap);

	c->lz4_open = true;
	return lz4_wrote(c, s, dst, LZ4F_compressBegin(c->lz4, dst, cap, &c->lz4_prefs), err);
}

static int lz4_update(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	size_t n = s->in_len - s->taken, cap;
	uint8_t *dst;

	if (n > LZ4_PIECE_BYTES)
		n = LZ4_PIECE_BYTES;
	dst = lz4_dst(c, s, lz4_room(c, n), &cap);
	if (lz4_wrote(c, s, dst, LZ4F_compressUpdate(c->lz4, dst, cap, s->in + s->taken, n, NULL), err) != PGR_OK)
		return PGR_ERR;
	s->taken += n;
	return PGR_OK;
}

static int lz4_close(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	size_t cap;
	uint8_t *dst = lz4_dst(c, s, lz4_room(c, 0), &cap);

	if (s->op == PGR_COMP_FLUSH)
		return lz4_wrote(c, s, dst, LZ4F_flush(c->lz4, dst, cap, NULL), err);
	c->lz4_open = false;
	return lz4_wrote(c, s, dst, LZ4F_compressEnd(c->lz4, dst, cap, NULL), err);
}

/* Whether a frame has to be begun: by something to put into it, or by the end of one that has nothing. */
static bool lz4_must_begin(const struct pgr_comp *c, const struct step *s)
{
	return !c->lz4_open && (s->taken < s->in_len || s->op == PGR_COMP_END);
}

static int step_lz4(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	bool closed = s->op == PGR_COMP_GO_ON;

	/* the end of a frame was made by the call before, and only its bytes are still to be given */
	if (s->in_len == 0 && c->stage_len > 0 && !c->lz4_open)
		closed = true;
	for (;;) {
		int rc;

		drain_stage(c, s);
		if (c->stage_len > 0)
			return PGR_OK;
		if (s->taken == s->in_len && closed)
			return PGR_MORE;
		if (lz4_must_begin(c, s)) {
			rc = lz4_begin(c, s, err);
		} else if (s->taken < s->in_len) {
			rc = lz4_update(c, s, err);
		} else {
			closed = true;
			rc = c->lz4_open ? lz4_close(c, s, err) : PGR_OK;
		}
		if (rc != PGR_OK)
			return PGR_ERR;
	}
}

/* ---- zstd ---- */

static ZSTD_EndDirective zstd_directive(enum pgr_comp_op op)
{
	switch (op) {
	case PGR_COMP_GO_ON:
		break;
	case PGR_COMP_FLUSH:
		return ZSTD_e_flush;
	case PGR_COMP_END:
		return ZSTD_e_end;
	}
	return ZSTD_e_continue;
}

static int step_zstd(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	ZSTD_inBuffer in = {.src = s->in, .size = s->in_len};
	ZSTD_outBuffer out = {.dst = s->out, .size = s->out_len};
	size_t rc;

	do { /* with workers a call may come back early, and with GO_ON says nothing about what is left */
		rc = ZSTD_compressStream2(c->zstd, &out, &in, zstd_directive(s->op));
		if (ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation)
			return no_memory(c, err);
		if (ZSTD_isError(rc))
			return broken(c, ZSTD_getErrorName(rc), err);
		if (in.pos == in.size && (s->op == PGR_COMP_GO_ON || rc == 0))
			break;
	} while (out.pos < out.size);
	s->taken = in.pos;
	s->made = out.pos;
	return in.pos == in.size && (s->op == PGR_COMP_GO_ON || rc == 0) ? PGR_MORE : PGR_OK;
}

static int step_method(struct pgr_comp *c, struct step *s, struct pgr_err *err)
{
	switch (c->method) {
	case PGR_COMP_NONE:
		return step_none(s);
	case PGR_COMP_GZIP:
		return step_gzip(c, s, err);
	case PGR_COMP_LZ4:
		return step_lz4(c, s, err);
	case PGR_COMP_ZSTD:
		return step_zstd(c, s, err);
	}
	return broken(c, "unknown method", err);
}

int pgr_comp_step(struct pgr_comp *c, const uint8_t **in, size_t *in_len, enum pgr_comp_op op, void *out,
		  size_t out_cap, size_t *produced, struct pgr_err *err)
{
	struct step s = {.in = *in, .in_len = *in_len, .op = op, .out = out, .out_len = out_cap};
	int rc;

	*produced = 0;
	if (c->broken)
		return broken(c, "an earlier step failed", err);
	if (out_cap < PGR_COMP_ROOM_MIN)
		return pgr_err_set(err, PGR_E_USAGE, "compression needs room for %u bytes", PGR_COMP_ROOM_MIN);
	rc = step_method(c, &s, err);
	if (rc == PGR_ERR)
		return PGR_ERR;
	*in += s.taken;
	*in_len -= s.taken;
	*produced = s.made;
	return rc;
}

/* ---- how much ---- */

size_t pgr_comp_bound(struct pgr_comp *c, size_t len)
{
	if (len > SIZE_MAX / 4)
		return 0;
	switch (c->method) {
	case PGR_COMP_NONE:
		return len;
	case PGR_COMP_GZIP:
		return deflateBound(&c->gzip, len);
	case PGR_COMP_LZ4:
		return LZ4F_HEADER_SIZE_MAX + lz4_room(c, len) + lz4_room(c, LZ4_PIECE_BYTES);
	case PGR_COMP_ZSTD:
		return ZSTD_compressBound(len);
	}
	return 0;
}
