/*
 * A backup manifest of an unfriendly server, in any pieces, as it came; and the same with the right checksum at its
 * end, since a fuzzer does not find one.
 *
 * Each is read whole and in pieces: files and errors must be the same.  What was accepted is written again by our own
 * writer, and read: the files must be the same.
 */
#include <stdlib.h>
#include <string.h>

#include "backup/manifest.h"
#include "common/buf.h"
#include "common/path.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* ---- reading ---- */

static int feed_copy(struct pgr_manifest *m, const uint8_t *data, size_t n, struct pgr_err *err)
{
	uint8_t *copy = malloc(n);
	int rc;

	insist(copy != NULL);
	memcpy(copy, data, n);
	rc = pgr_manifest_feed(m, copy, n, err);
	free(copy);
	return rc;
}

/* `random` 0: whole. */
static struct pgr_manifest *read_in(const uint8_t *data, size_t size, uint32_t random, int *rc, struct pgr_err *err)
{
	struct pgr_manifest *m;
	bool whole = random == 0;

	insist(pgr_manifest_new(&m, err) == PGR_OK);
	*rc = PGR_OK;
	while (size > 0 && *rc == PGR_OK) {
		size_t n = size;

		random = random * 1664525u + 1013904223u;
		if (!whole)
			n = (random >> 24) < 160 ? 1 + (random >> 16) % 5 : 1 + (random >> 8) % 1024;
		n = n < size ? n : size;
		*rc = feed_copy(m, data, n, err);
		data += n;
		size -= n;
	}
	if (*rc == PGR_OK)
		*rc = pgr_manifest_done(m, err);
	insist(*rc == PGR_OK || err->cls == PGR_E_DATA);
	insist(*rc == PGR_OK || pgr_manifest_files(m) == 0);
	return m;
}

static void check_files(const struct pgr_manifest *m)
{
	for (size_t i = 0; i < pgr_manifest_files(m); i++) {
		const struct pgr_manifest_file *f = pgr_manifest_file(m, i);

		insist(pgr_path_is_safe(f->path) && f->size <= INT64_MAX);
		insist(f->sum_len == pgr_digest_len(f->algo));
		insist(i == 0 || strcmp(pgr_manifest_file(m, i - 1)->path, f->path) < 0);
		insist(pgr_manifest_find(m, f->path) == f);
	}
	insist(pgr_manifest_file(m, pgr_manifest_files(m)) == NULL);
}

static void insist_same(const struct pgr_manifest *a, const struct pgr_manifest *b)
{
	insist(pgr_manifest_files(a) == pgr_manifest_files(b));
	insist(strcmp(pgr_manifest_system_identifier(a), pgr_manifest_system_identifier(b)) == 0);
	for (size_t i = 0; i < pgr_manifest_files(a); i++) {
		const struct pgr_manifest_file *f = pgr_manifest_file(a, i), *g = pgr_manifest_file(b, i);

		insist(strcmp(f->path, g->path) == 0 && f->size == g->size && f->algo == g->algo);
		insist(f->sum_len == g->sum_len && memcmp(f->sum, g->sum, f->sum_len) == 0);
	}
}

/* ---- writing ---- */

static int collect(void *arg, const void *data, size_t len, struct pgr_err *err)
{
	return pgr_buf_put(arg, data, len, err);
}

static void write_again(const struct pgr_manifest *m, bool force_encode)
{
	const char *id = pgr_manifest_system_identifier(m);
	struct pgr_manifest_writer *w;
	struct pgr_manifest *again;
	struct pgr_buf out = {0};
	struct pgr_err err;
	int rc;

	insist(pgr_manifest_writer_new(&w, *id != '\0' ? 170000 : 160000, id, force_encode, collect, &out, &err) ==
	       PGR_OK);
	for (size_t i = 0; i < pgr_manifest_files(m); i++) {
		const struct pgr_manifest_file *f = pgr_manifest_file(m, i);
		int64_t mtime = (int64_t)(f->size * 2654435761u);

		insist(pgr_manifest_add_file(w, f->path, f->size, mtime, f->algo, f->sum, f->sum_len, &err) == PGR_OK);
	}
	insist(pgr_manifest_add_wal(w, 1, 1, 2, &err) == PGR_OK);
	insist(pgr_manifest_writer_end(w, &err) == PGR_OK);
	pgr_manifest_writer_free(w);

	again = read_in(out.data, out.len, 0, &rc, &err);
	insist(rc == PGR_OK);
	insist_same(m, again);
	pgr_manifest_free(again);
	pgr_buf_fini(&out);
}

static void play(const uint8_t *data, size_t size, uint32_t random)
{
	struct pgr_err err = {0}, err2 = {0};
	int rc, rc2;
	struct pgr_manifest *whole = read_in(data, size, 0, &rc, &err);
	struct pgr_manifest *pieces = read_in(data, size, random, &rc2, &err2);

	insist(rc == rc2 && strcmp(err.msg, err2.msg) == 0);
	check_files(whole);
	insist_same(whole, pieces);
	pgr_manifest_free(pieces);
	if (rc == PGR_OK) {
		write_again(whole, false);
		write_again(whole, true);
	}
	pgr_manifest_free(whole);
}

/* ---- the right checksum ---- */

/* The length without the last line, if that has a checksum. */
static size_t body_of(const uint8_t *data, size_t size)
{
	const uint8_t *key = size > 0 ? memmem(data, size, "\"Manifest-Checksum\"", 19) : NULL;

	return key != NULL ? (size_t)(key - data) : size;
}

static void seal(struct pgr_buf *b)
{
	uint8_t sum[PGR_DIGEST_MAX];
	char hex[2 * PGR_DIGEST_MAX + 1];
	struct pgr_digest *d;
	struct pgr_err err;
	size_t len;

	insist(pgr_digest_new(&d, PGR_DIGEST_SHA256, &err) == PGR_OK);
	insist(pgr_digest_add(d, b->data, b->len, &err) == PGR_OK);
	insist(pgr_digest_end(d, sum, &len, &err) == PGR_OK);
	pgr_digest_free(d);
	pgr_hex(hex, sum, len);
	insist(pgr_buf_printf(b, &err, "\"Manifest-Checksum\": \"%s\"}\n", hex) == PGR_OK);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct pgr_buf sealed = {0};
	struct pgr_err err;
	uint32_t random = 2166136261u;

	for (size_t i = 0; i < size; i++)
		random = (random ^ data[i]) * 16777619u;
	random |= 1;
	play(data, size, random);
	if (size > 0)
		insist(pgr_buf_put(&sealed, data, body_of(data, size), &err) == PGR_OK);
	seal(&sealed);
	play(sealed.data, sealed.len, random);
	pgr_buf_fini(&sealed);
	return 0;
}
