/*
 * Bodies of CopyData that hold anything, in any pieces.  The first byte chooses the dialect, the second seeds the sizes
 * of the pieces; then come bodies, each behind its length in two bytes (big-endian; the last may be cut).
 *
 * All bodies are fed twice, whole and in pieces: heads, payload and errors must be the same.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/copydata.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

struct reader {
	struct pgr_copydata c;
	bool pieces;
	uint32_t random;
	uint64_t digest; /* FNV-1a of all that was seen */
	/* of the body under way */
	bool has_head;
	struct pgr_copy_head head;
};

static void see_bytes(struct reader *r, const void *bytes, size_t n)
{
	const unsigned char *b = bytes;

	for (size_t i = 0; i < n; i++)
		r->digest = (r->digest ^ b[i]) * 1099511628211u;
}

static void see_number(struct reader *r, uint64_t n)
{
	see_bytes(r, &n, sizeof(n));
}

static void see_span(struct reader *r, struct pgr_span s)
{
	see_number(r, s.len);
	if (s.len > 0)
		see_bytes(r, s.p, s.len);
}

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* At the end of a body, when the pieces that it came in are gone: the head must not have gone with them. */
static void see_head(struct reader *r)
{
	const struct pgr_copy_head *h = &r->head;

	see_number(r, h->kind);
	see_span(r, h->name);
	see_span(r, h->location);
	see_number(r, (uint64_t)h->progress_bytes);
	see_number(r, h->start);
	see_number(r, h->wal_end);
	see_number(r, (uint64_t)h->send_time_us);
	see_number(r, h->reply_requested);
	insist(h->progress_bytes >= 0);
	switch (r->c.dialect) {
	case PGR_COPY_RAW:
		insist(h->kind == PGR_CK_DATA);
		break;
	case PGR_COPY_WAL:
		insist(h->kind == PGR_CK_WAL || h->kind == PGR_CK_KEEPALIVE);
		break;
	case PGR_COPY_ARCHIVE:
		insist(h->kind == PGR_CK_DATA || h->kind == PGR_CK_ARCHIVE || h->kind == PGR_CK_PROGRESS ||
		       h->kind == PGR_CK_MANIFEST);
		break;
	}
}

static int feed_part(struct reader *r, const unsigned char *bytes, size_t n, bool first, bool last)
{
	unsigned char *piece = malloc(n > 0 ? n : 1);
	struct pgr_wire_msg part = {pgr_msg_type_find('d'), {piece, n}, first, last};
	struct pgr_span payload;
	struct pgr_err err;
	bool has_head;
	int rc;

	insist(piece != NULL);
	if (n > 0)
		memcpy(piece, bytes, n);
	rc = pgr_copydata_feed(&r->c, &part, &r->head, &has_head, &payload, &err);
	if (rc == PGR_OK) {
		insist(has_head != r->has_head); /* once, and before the payload goes on */
		r->has_head = true;
		insist(payload.len == 0 || (payload.p >= piece && payload.p + payload.len == piece + n));
		insist(payload.len == 0 || r->head.kind == PGR_CK_DATA || r->head.kind == PGR_CK_WAL);
		if (payload.len > 0)
			see_bytes(r, payload.p, payload.len);
	} else if (rc == PGR_ERR) {
		insist(err.cls == PGR_E_PROTOCOL && !r->has_head);
		see_bytes(r, err.msg, strlen(err.msg));
	} else {
		insist(!last && !r->has_head);
	}
	free(piece);
	return rc;
}

static size_t piece_size(struct reader *r, size_t left)
{
	size_t n;

	if (!r->pieces)
		return left;
	r->random = r->random * 1664525u + 1013904223u;
	n = (r->random >> 24) < 160 ? 1 + (r->random >> 16) % 5 : 1 + (r->random >> 8) % 1024;
	return n < left ? n : left;
}

static void feed_body(struct reader *r, const unsigned char *body, size_t len)
{
	size_t pos = 0;

	r->has_head = false;
	do {
		size_t n = piece_size(r, len - pos);

		if (feed_part(r, body + pos, n, pos == 0, pos + n == len) == PGR_ERR)
			return;
		pos += n;
	} while (pos < len);
	insist(r->has_head);
	see_head(r);
}

static uint64_t read_all(bool pieces, const unsigned char *data, size_t size)
{
	struct reader r = {.pieces = pieces, .random = data[1], .digest = 14695981039346656037u};
	struct pgr_cursor c = pgr_cur(data + 2, size - 2);

	pgr_copydata_init(&r.c, (enum pgr_copy_dialect)(data[0] % 3));
	while (c.left >= 2) {
		size_t len = pgr_cur_u16(&c);
		struct pgr_span body = pgr_cur_span(&c, len < c.left ? len : c.left);

		feed_body(&r, body.p, body.len);
	}
	pgr_copydata_fini(&r.c);
	return r.digest;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	if (size < 2)
		return 0;
	insist(read_all(true, data, size) == read_all(false, data, size));
	return 0;
}
