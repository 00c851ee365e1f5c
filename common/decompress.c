#include "common/decompress.h"

#include <limits.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ZSTD_WINDOW_LOG_MAX 27 /* 128 MiB */

struct pgr_decomp {
	enum pgr_compression method;
	bool at_end; /* what was taken so far ends a gzip member, an LZ4 frame, a zstd frame */
	bool broken; /* the library said so; its state is not to be used again */
	z_stream gzip;
	bool gzip_ready;
	LZ4F_dctx *lz4;
	ZSTD_DStream *zstd;
};

const char *pgr_compression_name(enum pgr_compression method)
{
	switch (method) {
	case PGR_COMP_NONE:
		return "none";
	case PGR_COMP_GZIP:
		return "gzip";
	case PGR_COMP_LZ4:
		return "lz4";
	case PGR_COMP_ZSTD:
		return "zstd";
	}
	return "unknown";
}

static int open_gzip(struct pgr_decomp *d, struct pgr_err *err)
{
	/* 16: a gzip header is required (zlib.h, inflateInit2). */
	if (inflateInit2(&d->gzip, 16 + MAX_WBITS) != Z_OK)
		return pgr_err_nomem(err);
	d->gzip_ready = true;
	return PGR_OK;
}

static int open_lz4(struct pgr_decomp *d, struct pgr_err *err)
{
	if (LZ4F_isError(LZ4F_createDecompressionContext(&d->lz4, LZ4F_VERSION)))
		return pgr_err_nomem(err);
	return PGR_OK;
}

static int open_zstd(struct pgr_decomp *d, struct pgr_err *err)
{
	d->zstd = ZSTD_createDStream();
	if (d->zstd == NULL)
		return pgr_err_nomem(err);

	size_t rc = ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);

	if (ZSTD_isError(rc))
		return pgr_err_set(err, PGR_E_USAGE, "could not set up zstd: %s", ZSTD_getErrorName(rc));
	return PGR_OK;
}

static int open_method(struct pgr_decomp *d, struct pgr_err *err)
{
	switch (d->method) {
	case PGR_COMP_NONE:
		d->at_end = true; /* nothing says where it should end */
		return PGR_OK;
	case PGR_COMP_GZIP:
		return open_gzip(d, err);
	case PGR_COMP_LZ4:
		return open_lz4(d, err);
	case PGR_COMP_ZSTD:
		return open_zstd(d, err);
	}
	return pgr_err_set(err, PGR_E_USAGE, "unknown compression method %d", (int)d->method);
}

int pgr_decomp_new(struct pgr_decomp **out, enum pgr_compression method, struct pgr_err *err)
{
	struct pgr_decomp *d = calloc(1, sizeof(*d));

	*out = NULL;
	if (d == NULL)
		return pgr_err_nomem(err);
	d->method = method;
	if (open_method(d, err) != PGR_OK) {
		pgr_decomp_free(d);
		return PGR_ERR;
	}
	*out = d;
	return PGR_OK;
}

void pgr_decomp_free(struct pgr_decomp *d)
{
	if (d == NULL)
		return;
	/* What these answer tells how far the stream was, which a caller who gives up does not care for. */
	if (d->gzip_ready)
		inflateEnd(&d->gzip);
	LZ4F_freeDecompressionContext(d->lz4);
	ZSTD_freeDStream(d->zstd);
	free(d);
}

bool pgr_decomp_at_end(const struct pgr_decomp *d)
{
	return d->at_end && !d->broken;
}

static int corrupt(struct pgr_decomp *d, const char *words, struct pgr_err *err)
{
	d->broken = true;
	return pgr_err_set(err, PGR_E_DATA, "could not decompress %s data: %s", pgr_compression_name(d->method), words);
}

static int no_memory(struct pgr_decomp *d, struct pgr_err *err)
{
	d->broken = true;
	return pgr_err_nomem(err);
}

/* One call of the library: bytes in and out, before and after. */
struct step {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
	size_t taken;
	size_t made;
	bool ended; /* of a member or frame */
};

static int step_none(struct step *s)
{
	size_t n = s->in_len < s->out_len ? s->in_len : s->out_len;

	if (n > 0)
		memcpy(s->out, s->in, n);
	s->taken = n;
	s->made = n;
	s->ended = true;
	return PGR_OK;
}

static uInt clip(size_t n)
{
	return n < UINT_MAX ? (uInt)n : UINT_MAX;
}

static int step_gzip(struct pgr_decomp *d, struct step *s, struct pgr_err *err)
{
	z_stream *z = &d->gzip;
	/* zlib's next_in is const only with ZLIB_CONST, which would have to be set for the whole program. */
	union {
		const uint8_t *ours;
		Bytef *theirs;
	} in = {.ours = s->in};

	if (d->at_end && inflateReset(z) != Z_OK)
		return corrupt(d, "could not start the next member", err);
	z->next_in = in.theirs;
	z->avail_in = clip(s->in_len);
	z->next_out = s->out;
	z->avail_out = clip(s->out_len);

	int rc = inflate(z, Z_NO_FLUSH);

	s->taken = clip(s->in_len) - z->avail_in;
	s->made = clip(s->out_len) - z->avail_out;
	s->ended = rc == Z_STREAM_END;
	/* Z_BUF_ERROR: neither input nor room was left, which is not an error here. */
	if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR)
		return PGR_OK;
	if (rc == Z_MEM_ERROR)
		return no_memory(d, err);
	return corrupt(d, z->msg != NULL ? z->msg : zError(rc), err);
}

static int step_lz4(struct pgr_decomp *d, struct step *s, struct pgr_err *err)
{
	size_t in = s->in_len, out = s->out_len;
	size_t rc = LZ4F_decompress(d->lz4, s->out, &out, s->in, &in, NULL);

	if (LZ4F_isError(rc)) {
		const char *words = LZ4F_getErrorName(rc);

		/* The code behind the name is not part of the library's stable interface. */
		return strcmp(words, "ERROR_allocation_failed") == 0 ? no_memory(d, err) : corrupt(d, words, err);
	}
	s->taken = in;
	s->made = out;
	s->ended = rc == 0;
	return PGR_OK;
}

static int step_zstd(struct pgr_decomp *d, struct step *s, struct pgr_err *err)
{
	ZSTD_inBuffer in = {.src = s->in, .size = s->in_len};
	ZSTD_outBuffer out = {.dst = s->out, .size = s->out_len};
	size_t rc = ZSTD_decompressStream(d->zstd, &out, &in);

	if (ZSTD_getErrorCode(rc) == ZSTD_error_memory_allocation)
		return no_memory(d, err);
	if (ZSTD_isError(rc))
		return corrupt(d, ZSTD_getErrorName(rc), err);
	s->taken = in.pos;
	s->made = out.pos;
	s->ended = rc == 0;
	return PGR_OK;
}

static int step_method(struct pgr_decomp *d, struct step *s, struct pgr_err *err)
{
	switch (d->method) {
	case PGR_COMP_NONE:
		return step_none(s);
	case PGR_COMP_GZIP:
		return step_gzip(d, s, err);
	case PGR_COMP_LZ4:
		return step_lz4(d, s, err);
	case PGR_COMP_ZSTD:
		return step_zstd(d, s, err);
	}
	return corrupt(d, "unknown method", err);
}

int pgr_decomp_step(struct pgr_decomp *d, const uint8_t **in, size_t *in_len, void *out, size_t out_cap,
		    size_t *produced, struct pgr_err *err)
{
	*produced = 0;
	if (d->broken)
		return corrupt(d, "an earlier part was corrupt", err);
	do {
		struct step s = {.in = *in, .in_len = *in_len, .out = out, .out_len = out_cap};

		if (d->at_end && *in_len == 0)
			return PGR_MORE;
		s.out += *produced;
		s.out_len -= *produced;
		if (step_method(d, &s, err) != PGR_OK)
			return PGR_ERR;
		*in += s.taken;
		*in_len -= s.taken;
		*produced += s.made;
		if (s.taken == 0 && s.made == 0 && s.out_len > 0 && s.in_len > 0)
			return corrupt(d, "no progress", err); /* rather than a caller that asks for ever */
		if (s.taken > 0 || s.ended)
			d->at_end = s.ended;
	} while (*in_len > 0 && *produced < out_cap);
	return d->at_end && *in_len == 0 ? PGR_MORE : PGR_OK;
}
