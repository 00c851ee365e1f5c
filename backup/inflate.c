#include "backup/inflate.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A CopyData message of a server is at most 32 kB (SINK_BUFFER_LENGTH): the source seldom has more at once. */
#define INPUT_BYTES ((size_t)64 * 1024)

struct pgr_inflate {
	struct pgr_source base; /* first: what callers read from */
	struct pgr_source *from;
	struct pgr_decomp *decomp;
	char *name;
	const uint8_t *in; /* what is left in buf */
	size_t in_len;
	bool eof;	/* `from` has ended */
	bool more_held; /* the last step filled its room: there may be more before `from` is asked */
	uint8_t buf[INPUT_BYTES];
};

static int cut_off(const struct pgr_inflate *z, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "archive \"%s\": compressed data ends too early", z->name);
}

static int refill(struct pgr_inflate *z, struct pgr_err *err)
{
	if (pgr_source_read(z->from, z->buf, sizeof(z->buf), &z->in_len, err) != PGR_OK)
		return PGR_ERR;
	z->in = z->buf;
	z->eof = z->in_len == 0;
	return PGR_OK;
}

static int inflate_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pgr_inflate *z = (struct pgr_inflate *)s;

	*n = 0;
	while (*n == 0) {
		if (z->in_len == 0 && !z->more_held) {
			if (!z->eof && refill(z, err) != PGR_OK)
				return PGR_ERR;
			if (z->eof)
				return pgr_decomp_at_end(z->decomp) ? PGR_OK : cut_off(z, err);
		}
		if (pgr_decomp_step(z->decomp, &z->in, &z->in_len, dst, cap, n, err) == PGR_ERR)
			return pgr_err_prefix(err, "archive \"%s\"", z->name);
		z->more_held = *n == cap;
	}
	return PGR_OK;
}

int pgr_inflate_new(struct pgr_inflate **out, struct pgr_source *from, enum pgr_compression method, const char *name,
		    struct pgr_err *err)
{
	struct pgr_inflate *z = calloc(1, sizeof(*z));

	*out = NULL;
	if (z == NULL)
		return pgr_err_nomem(err);
	z->base.read = inflate_read;
	z->from = from;
	z->name = strdup(name);
	if (z->name == NULL) {
		pgr_inflate_free(z);
		return pgr_err_nomem(err);
	}
	if (pgr_decomp_new(&z->decomp, method, err) != PGR_OK) {
		pgr_inflate_free(z);
		return PGR_ERR;
	}
	*out = z;
	return PGR_OK;
}

struct pgr_source *pgr_inflate_source(struct pgr_inflate *z)
{
	return &z->base;
}

void pgr_inflate_free(struct pgr_inflate *z)
{
	if (z == NULL)
		return;
	pgr_decomp_free(z->decomp);
	free(z->name);
	free(z);
}
