#include "backup/stream_check.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/dirsink.h"
#include "backup/filesum.h"
#include "backup/manifest.h"
#include "common/stop.h"

#define CHUNK_BYTES ((size_t)64 * 1024)

/*
 * How large a manifest may be: what frames one (with a range of WAL for each of some thousand timelines), and for each
 * file its entry, whose path may be written with six bytes for one.  Nobody else bounds what is kept of it.
 */
#define MANIFEST_FRAME_BYTES ((uint64_t)1 << 20)
#define MANIFEST_ENTRY_BYTES 512u
#define MANIFEST_ESCAPE	     6u

enum state { COMING, SUMMED, LEFT_OUT };

/*
 * A file that came.  `sum` and `state` are the writer's that finishes the file, from its first block until the sink was
 * drained.
 */
struct pgr_stream_entry {
	struct pgr_stream_check *owner;
	struct pgr_filesum *sum; /* while it is written; NULL */
	uint64_t size;
	unsigned char state;
	char tail[]; /* the sum, of owner->sum_len bytes, and the path */
};

/* Entries lie one after the other and never move. */
struct chunk {
	struct chunk *next;
	size_t used;
	_Alignas(struct pgr_stream_entry) char data[CHUNK_BYTES];
};

struct pgr_stream_check {
	/* constant */
	struct pgr_stop *stop;
	enum pgr_digest_algo algo;
	size_t sum_len;
	struct pgr_sink_watch watch;

	struct chunk *first, *last;
	size_t n;
	struct pgr_manifest *manifest;
	uint64_t manifest_left; /* it may have so many bytes more */
};

/* ---- what came ---- */

static const char *path_of(const struct pgr_stream_entry *e)
{
	return e->tail + e->owner->sum_len;
}

static size_t entry_bytes(size_t sum_len, size_t path_len)
{
	const size_t align = _Alignof(struct pgr_stream_entry);
	size_t n = offsetof(struct pgr_stream_entry, tail) + sum_len + path_len + 1;

	return (n + align - 1) / align * align;
}

/* Goes through all entries: start with {0}. */
struct walk {
	struct chunk *chunk;
	size_t off;
};

static struct pgr_stream_entry *walk_next(const struct pgr_stream_check *c, struct walk *w)
{
	struct pgr_stream_entry *e;

	if (w->chunk == NULL)
		w->chunk = c->first;
	while (w->chunk != NULL && w->off == w->chunk->used) {
		if (w->chunk->next == NULL)
			return NULL;
		w->chunk = w->chunk->next;
		w->off = 0;
	}
	if (w->chunk == NULL)
		return NULL;
	e = (struct pgr_stream_entry *)(void *)(w->chunk->data + w->off);
	w->off += entry_bytes(c->sum_len, strlen(path_of(e)));
	return e;
}

static void *allot(struct pgr_stream_check *c, size_t bytes)
{
	struct chunk *k = c->last;
	void *p;

	if (k == NULL || bytes > CHUNK_BYTES - k->used) {
		k = malloc(sizeof(*k));
		if (k == NULL)
			return NULL;
		k->next = NULL;
		k->used = 0;
		if (c->last != NULL)
			c->last->next = k;
		else
			c->first = k;
		c->last = k;
	}
	p = k->data + k->used;
	k->used += bytes;
	return p;
}

/* The manifest has the paths below the data directory, as if tablespaces were there (AddFileToBackupManifest). */
static int add(struct pgr_stream_check *c, uint32_t oid, const char *name, uint64_t size, struct pgr_stream_entry **out,
	       struct pgr_err *err)
{
	char prefix[32] = "";
	size_t len, prefix_len;
	struct pgr_stream_entry *e;

	if (oid != 0)
		snprintf(prefix, sizeof(prefix), "pg_tblspc/%" PRIu32 "/", oid);
	prefix_len = strlen(prefix);
	len = prefix_len + strlen(name);
	if (len >= PATH_MAX)
		return pgr_err_set(err, PGR_E_DATA, "name of a file is too long: \"%s\"", name);
	e = allot(c, entry_bytes(c->sum_len, len));
	if (e == NULL)
		return pgr_err_nomem(err);
	*e = (struct pgr_stream_entry){.owner = c, .size = size};
	memcpy(e->tail + c->sum_len, prefix, prefix_len);
	memcpy(e->tail + c->sum_len + prefix_len, name, len - prefix_len + 1);
	c->n++;
	c->manifest_left += MANIFEST_ENTRY_BYTES + MANIFEST_ESCAPE * len;
	*out = e;
	return PGR_OK;
}

/* ---- on the way to the disk: in writers ---- */

static void watch_block(void *arg, uint64_t off, const uint8_t *data, size_t len)
{
	const struct pgr_stream_entry *e = arg;

	pgr_filesum_block(e->sum, off, data, len);
}

static int end_sum(struct pgr_stream_entry *e, struct pgr_filesum *sum, uint64_t size, struct pgr_err *err)
{
	uint8_t result[PGR_DIGEST_MAX];
	size_t len;

	if (pgr_filesum_end(sum, size, result, &len, err) != PGR_OK)
		return pgr_err_prefix(err, "file \"%s\"", path_of(e));
	memcpy(e->tail, result, e->owner->sum_len);
	e->state = SUMMED;
	return PGR_OK;
}

static void watch_done(void *arg, uint64_t size)
{
	struct pgr_stream_entry *e = arg;
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_err err;
	size_t len;

	if (pgr_stream_check_done(e, size, sum, &len, &err) != PGR_OK)
		pgr_stop_post(e->owner->stop, &err);
}

int pgr_stream_check_begin(struct pgr_stream_check *c, uint32_t oid, const char *name, uint64_t size,
			   struct pgr_stream_entry **out, struct pgr_err *err)
{
	if (add(c, oid, name, size, out, err) != PGR_OK)
		return PGR_ERR;
	if (c->algo != PGR_DIGEST_NONE)
		return pgr_filesum_new(&(*out)->sum, c->algo, err);
	(*out)->state = SUMMED;
	return PGR_OK;
}

void pgr_stream_check_block(struct pgr_stream_entry *e, uint64_t off, const void *data, size_t len)
{
	if (e->sum != NULL)
		pgr_filesum_block(e->sum, off, data, len);
}

int pgr_stream_check_done(struct pgr_stream_entry *e, uint64_t size, uint8_t sum[PGR_DIGEST_MAX], size_t *len,
			  struct pgr_err *err)
{
	*len = e->owner->sum_len;
	if (e->sum == NULL)
		return PGR_OK;
	if (end_sum(e, e->sum, size, err) != PGR_OK)
		return PGR_ERR;
	pgr_filesum_free(e->sum);
	e->sum = NULL;
	memcpy(sum, e->tail, *len);
	return PGR_OK;
}

bool pgr_stream_check_ordered(const struct pgr_stream_check *c)
{
	return c->watch.ordered;
}

int pgr_stream_check_file(struct pgr_stream_check *c, struct pgr_dirsink *sink, struct pgr_sink_file *f, uint32_t oid,
			  const char *name, uint64_t size, struct pgr_err *err)
{
	struct pgr_stream_entry *e;

	if (pgr_stream_check_begin(c, oid, name, size, &e, err) != PGR_OK)
		return PGR_ERR;
	if (e->sum != NULL)
		pgr_dirsink_watch(sink, f, &c->watch, e);
	return PGR_OK;
}

int pgr_stream_check_content(struct pgr_stream_check *c, const char *name, const void *data, size_t len,
			     struct pgr_err *err)
{
	struct pgr_filesum *sum;
	struct pgr_stream_entry *e;
	int rc;

	if (add(c, 0, name, len, &e, err) != PGR_OK || pgr_filesum_new(&sum, c->algo, err) != PGR_OK)
		return PGR_ERR;
	pgr_filesum_block(sum, 0, data, len);
	rc = end_sum(e, sum, len, err);
	pgr_filesum_free(sum);
	return rc;
}

int pgr_stream_check_left_out(struct pgr_stream_check *c, const char *name, uint64_t size, struct pgr_err *err)
{
	struct pgr_stream_entry *e;

	if (add(c, 0, name, size, &e, err) != PGR_OK)
		return PGR_ERR;
	e->state = LEFT_OUT;
	return PGR_OK;
}

/* ---- the manifest ---- */

/* What a person can do about bytes that are not those of the server. */
static int changed_on_the_way(struct pgr_err *err)
{
	if (err->cls != PGR_E_DATA)
		return PGR_ERR;
	return pgr_err_hint(
		err, "Something between the server's files and this copy has changed data: the network, a device or "
		     "memory.  A connection with TLS (sslmode=require) notices what the network changes.");
}

int pgr_stream_check_manifest(struct pgr_stream_check *c, const void *data, size_t len, struct pgr_err *err)
{
	if (len > c->manifest_left) {
		pgr_err_set(err, PGR_E_DATA, "backup manifest is larger than that of %zu files can be", c->n);
		return changed_on_the_way(err);
	}
	c->manifest_left -= len;
	return pgr_manifest_feed(c->manifest, data, len, err) == PGR_OK ? PGR_OK : changed_on_the_way(err);
}

int pgr_stream_check_manifest_end(struct pgr_stream_check *c, struct pgr_err *err)
{
	return pgr_manifest_done(c->manifest, err) == PGR_OK ? PGR_OK : changed_on_the_way(err);
}

/* ---- comparing ---- */

/* Segments are not in the manifest, but their history files are; WAL is checked by those who replay it. */
static bool may_be_unlisted(const char *path)
{
	return strncmp(path, "pg_wal/", 7) == 0;
}

static int check_sum(const struct pgr_stream_check *c, const struct pgr_stream_entry *e,
		     const struct pgr_manifest_file *m, struct pgr_err *err)
{
	if (m->algo != c->algo)
		return pgr_err_set(err, PGR_E_DATA,
				   "file \"%s\": the server's backup manifest has a checksum of kind %s instead of %s",
				   m->path, pgr_digest_name(m->algo), pgr_digest_name(c->algo));
	if (e->state == LEFT_OUT)
		return PGR_OK;
	if (e->state != SUMMED)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" was not received to its end", m->path);
	if (m->sum_len != c->sum_len || memcmp(m->sum, e->tail, c->sum_len) != 0)
		return pgr_err_set(err, PGR_E_DATA,
				   "file \"%s\" does not match its checksum in the server's backup manifest", m->path);
	return PGR_OK;
}

static int check_file(const struct pgr_stream_check *c, const struct pgr_stream_entry *e,
		      const struct pgr_manifest_file *m, struct pgr_err *err)
{
	if (m == NULL && may_be_unlisted(path_of(e)))
		return PGR_OK;
	if (m == NULL)
		return pgr_err_set(err, PGR_E_DATA,
				   "file \"%s\" was received, but is not in the server's backup manifest", path_of(e));
	if (e == NULL)
		return pgr_err_set(err, PGR_E_DATA,
				   "file \"%s\" is in the server's backup manifest, but was not received", m->path);
	if (e->size != m->size)
		return pgr_err_set(err, PGR_E_DATA,
				   "file \"%s\" was received with %" PRIu64
				   " bytes, but the server's backup manifest says %" PRIu64,
				   m->path, e->size, m->size);
	return check_sum(c, e, m, err);
}

static int by_path(const void *a, const void *b)
{
	const struct pgr_stream_entry *x = *(const struct pgr_stream_entry *const *)a,
				      *y = *(const struct pgr_stream_entry *const *)b;

	return strcmp(path_of(x), path_of(y));
}

/* NULL: out of memory. */
static struct pgr_stream_entry **sorted(const struct pgr_stream_check *c)
{
	struct pgr_stream_entry **list = calloc(c->n + 1, sizeof(struct pgr_stream_entry *));
	struct walk w = {0};

	if (list == NULL)
		return NULL;
	for (size_t i = 0; i < c->n; i++)
		list[i] = walk_next(c, &w);
	qsort(list, c->n, sizeof(struct pgr_stream_entry *), by_path);
	return list;
}

/* Where a list has ended, what the other one has left comes first. */
static int order(const struct pgr_stream_entry *e, const struct pgr_manifest_file *m)
{
	if (e == NULL || m == NULL)
		return e == NULL ? 1 : -1;
	return strcmp(path_of(e), m->path);
}

/* Both lists are sorted, so that they can be read side by side.  *err is the first difference. */
static size_t count_differences(const struct pgr_stream_check *c, struct pgr_stream_entry *const *list,
				struct pgr_err *err)
{
	const struct pgr_manifest_file *m = pgr_manifest_file(c->manifest, 0);
	size_t differences = 0, i = 0, j = 0;
	struct pgr_err later;

	while (i < c->n || m != NULL) {
		const struct pgr_stream_entry *e = list[i];
		int o = order(e, m);

		if (check_file(c, o <= 0 ? e : NULL, o >= 0 ? m : NULL, differences == 0 ? err : &later) != PGR_OK)
			differences++;
		if (o <= 0)
			i++;
		if (o >= 0)
			m = pgr_manifest_file(c->manifest, ++j);
	}
	return differences;
}

int pgr_stream_check_compare(struct pgr_stream_check *c, struct pgr_err *err)
{
	struct pgr_stream_entry **list = sorted(c);
	size_t n;

	if (list == NULL)
		return pgr_err_nomem(err);
	n = count_differences(c, list, err);
	free(list);
	if (n == 0)
		return PGR_OK;
	if (n > 1)
		pgr_err_detail(err, "%zu files are not as the manifest says.", n);
	return changed_on_the_way(err);
}

size_t pgr_stream_check_files(const struct pgr_stream_check *c)
{
	return c->n;
}

/* ---- making and freeing ---- */

int pgr_stream_check_new(struct pgr_stream_check **out, enum pgr_digest_algo algo, struct pgr_stop *stop,
			 struct pgr_err *err)
{
	struct pgr_stream_check *c = calloc(1, sizeof(*c));

	*out = NULL;
	if (c == NULL)
		return pgr_err_nomem(err);
	c->stop = stop;
	c->algo = algo;
	c->sum_len = pgr_digest_len(algo);
	c->manifest_left = MANIFEST_FRAME_BYTES;
	c->watch = (struct pgr_sink_watch){
		.block = watch_block,
		.done = watch_done,
		.ordered = algo != PGR_DIGEST_NONE && algo != PGR_DIGEST_CRC32C, /* see pgr_filesum_needs_order */
	};
	if (pgr_manifest_new(&c->manifest, err) != PGR_OK) {
		free(c);
		return PGR_ERR;
	}
	*out = c;
	return PGR_OK;
}

void pgr_stream_check_free(struct pgr_stream_check *c)
{
	struct walk w = {0};
	struct pgr_stream_entry *e;

	if (c == NULL)
		return;
	while ((e = walk_next(c, &w)) != NULL)
		pgr_filesum_free(e->sum);
	while (c->first != NULL) {
		struct chunk *next = c->first->next;

		free(c->first);
		c->first = next;
	}
	pgr_manifest_free(c->manifest);
	free(c);
}
