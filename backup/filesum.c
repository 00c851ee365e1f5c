#include "backup/filesum.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"

/* A stretch of the file whose CRC is known.  Neighbours are joined, so few are left when blocks come nearly in order.
 */
struct stretch {
	uint64_t off, len;
	uint32_t crc;
};

struct pgr_filesum {
	enum pgr_digest_algo algo; /* constant */

	pthread_mutex_t lock;
	/* under lock: */
	struct stretch *list; /* CRC-32C: by offset, not touching each other */
	size_t n, cap;
	struct pgr_digest *digest; /* SHA: over the first `upto` bytes */
	uint64_t upto;
	struct pgr_err err; /* the first failure, if its class is set */
};

int pgr_filesum_new(struct pgr_filesum **out, enum pgr_digest_algo algo, struct pgr_err *err)
{
	struct pgr_filesum *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->algo = algo;
	if (pgr_filesum_needs_order(s) && pgr_digest_new(&s->digest, algo, err) != PGR_OK) {
		free(s);
		return PGR_ERR;
	}
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return PGR_OK;
}

void pgr_filesum_free(struct pgr_filesum *s)
{
	if (s == NULL)
		return;
	pgr_digest_free(s->digest);
	pthread_mutex_destroy(&s->lock);
	free(s->list);
	free(s);
}

bool pgr_filesum_needs_order(const struct pgr_filesum *s)
{
	return s->algo != PGR_DIGEST_NONE && s->algo != PGR_DIGEST_CRC32C;
}

static bool has_failed(const struct pgr_filesum *s)
{
	return s->err.cls != PGR_E_NONE;
}

/* ---- CRC-32C: stretches ---- */

/* The first stretch that begins at or after `off`. */
static size_t find(const struct pgr_filesum *s, uint64_t off)
{
	size_t i = s->n;

	while (i > 0 && s->list[i - 1].off >= off) /* blocks come nearly in order: the end is near */
		i--;
	return i;
}

static int grow(struct pgr_filesum *s)
{
	size_t cap = s->cap == 0 ? 8 : s->cap * 2;
	struct stretch *p;

	if (s->n < s->cap)
		return PGR_OK;
	p = reallocarray(s->list, cap, sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(&s->err);
	s->list = p;
	s->cap = cap;
	return PGR_OK;
}

static void join_next(struct pgr_filesum *s, size_t i)
{
	struct stretch *a = &s->list[i], *b = a + 1;

	if (i + 1 >= s->n || a->off + a->len != b->off)
		return;
	a->crc = pgr_crc32c_combine(a->crc, b->crc, b->len);
	a->len += b->len;
	memmove(b, b + 1, (s->n - i - 2) * sizeof(*b));
	s->n--;
}

static void add_stretch(struct pgr_filesum *s, struct stretch add)
{
	size_t i = find(s, add.off);

	if ((i > 0 && s->list[i - 1].off + s->list[i - 1].len > add.off) ||
	    (i < s->n && add.off + add.len > s->list[i].off)) {
		pgr_err_set(&s->err, PGR_E_DATA, "blocks of a file overlap");
		return;
	}
	if (grow(s) != PGR_OK)
		return;
	memmove(&s->list[i + 1], &s->list[i], (s->n - i) * sizeof(add));
	s->list[i] = add;
	s->n++;
	join_next(s, i);
	if (i > 0)
		join_next(s, i - 1);
}

/* ---- zeros, of which nobody sent a byte ---- */

static const uint8_t zeros[65536];

/* The CRC of `len` zeros: by doubling, since a hole may be large. */
static uint32_t crc_of_zeros(uint64_t len)
{
	uint32_t unit = pgr_crc32c(0, zeros, 1), crc = 0;
	uint64_t unit_len = 1;
	bool some = false;

	for (; len > 0; len >>= 1) {
		if (len & 1) {
			crc = some ? pgr_crc32c_combine(crc, unit, unit_len) : unit;
			some = true;
		}
		unit = pgr_crc32c_combine(unit, unit, unit_len);
		unit_len *= 2;
	}
	return crc;
}

static void digest_zeros(struct pgr_filesum *s, uint64_t len)
{
	while (len > 0 && !has_failed(s)) {
		size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);

		if (pgr_digest_add(s->digest, zeros, n, &s->err) != PGR_OK)
			return;
		s->upto += n;
		len -= n;
	}
}

/* ---- blocks ---- */

static void digest_block(struct pgr_filesum *s, uint64_t off, const void *data, size_t len)
{
	if (off < s->upto) {
		pgr_err_set(&s->err, PGR_E_DATA, "blocks of a file overlap or came out of order");
		return;
	}
	digest_zeros(s, off - s->upto);
	if (!has_failed(s) && pgr_digest_add(s->digest, data, len, &s->err) == PGR_OK)
		s->upto += len;
}

void pgr_filesum_block(struct pgr_filesum *s, uint64_t off, const void *data, size_t len)
{
	struct stretch add = {.off = off, .len = len};

	if (s->algo == PGR_DIGEST_NONE || len == 0)
		return;
	if (s->algo == PGR_DIGEST_CRC32C)
		add.crc = pgr_crc32c(0, data, len); /* the work, outside the lock */
	pthread_mutex_lock(&s->lock);
	if (!has_failed(s)) {
		if (s->algo == PGR_DIGEST_CRC32C)
			add_stretch(s, add);
		else
			digest_block(s, off, data, len);
	}
	pthread_mutex_unlock(&s->lock);
}

void pgr_filesum_known(struct pgr_filesum *s, uint64_t off, uint64_t len, uint32_t crc)
{
	if (s->algo != PGR_DIGEST_CRC32C || len == 0)
		return;
	pthread_mutex_lock(&s->lock);
	if (!has_failed(s))
		add_stretch(s, (struct stretch){.off = off, .len = len, .crc = crc});
	pthread_mutex_unlock(&s->lock);
}

/* ---- the end ---- */

static int beyond_the_end(struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "blocks of a file go beyond its size");
}

static int end_crc(const struct pgr_filesum *s, uint64_t size, uint8_t *out, size_t *len, struct pgr_err *err)
{
	uint64_t at = 0;
	uint32_t crc = 0;

	for (size_t i = 0; i < s->n; i++) {
		const struct stretch *t = &s->list[i];

		if (t->off > at)
			crc = pgr_crc32c_combine(crc, crc_of_zeros(t->off - at), t->off - at);
		crc = pgr_crc32c_combine(crc, t->crc, t->len);
		at = t->off + t->len;
	}
	if (at > size)
		return beyond_the_end(err);
	if (at < size)
		crc = pgr_crc32c_combine(crc, crc_of_zeros(size - at), size - at);
	for (int i = 0; i < 4; i++) /* the manifest has the bytes as they lie in memory */
		out[i] = (uint8_t)(crc >> (8 * i));
	*len = 4;
	return PGR_OK;
}

static int end_digest(struct pgr_filesum *s, uint64_t size, uint8_t *out, size_t *len, struct pgr_err *err)
{
	if (s->upto > size)
		return beyond_the_end(err);
	digest_zeros(s, size - s->upto);
	if (has_failed(s)) {
		*err = s->err;
		return PGR_ERR;
	}
	return pgr_digest_end(s->digest, out, len, err);
}

int pgr_filesum_end(struct pgr_filesum *s, uint64_t size, uint8_t out[PGR_DIGEST_MAX], size_t *len, struct pgr_err *err)
{
	int rc;

	*len = 0;
	if (s->algo == PGR_DIGEST_NONE)
		return PGR_OK;
	pthread_mutex_lock(&s->lock);
	if (has_failed(s)) {
		*err = s->err;
		rc = PGR_ERR;
	} else if (s->algo == PGR_DIGEST_CRC32C) {
		rc = end_crc(s, size, out, len, err);
	} else {
		rc = end_digest(s, size, out, len, err);
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}
