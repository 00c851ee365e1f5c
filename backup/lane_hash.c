#include "backup/lane_hash.h"

#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/lane_files.h"
#include "common/crc32c.h"

void pgr_lane_hash_fini(struct pgr_lane_hash *h)
{
	pgr_lane_local_fini(&h->local);
	free(h->differs);
	*h = (struct pgr_lane_hash){0};
	h->local.fd = -1;
}

int pgr_lane_hash_begin(struct pgr_lane_hash *h, const struct pgr_lane_request *q, struct pgr_err *err)
{
	if (h->begun)
		return PGR_OK;
	if (pgr_lane_local_hash(&h->local, q, err) != PGR_OK)
		return PGR_ERR;
	h->begun = true;
	h->next = 0;
	return PGR_OK;
}

/* ---- what stays ---- */

/* The CRC of the run alone, out of those before it and up to its end. */
static int end_run(struct pgr_lane_hash *h, struct pgr_err *err)
{
	uint64_t from = h->run_from, len = h->run_to - from;
	uint32_t crc;

	h->run_from = h->run_to = 0;
	if (len == 0)
		return PGR_OK;
	crc = h->run_after ^ pgr_crc32c_combine(h->run_before, 0, len);
	return pgr_lane_files_keep(h->local.files, h->run_file, from, len, crc, h->local.dir, err);
}

/* PGR_MORE: what was the same a moment ago is not there any more. */
static int keep(struct pgr_lane_hash *h, const struct pgr_lane_piece *p, uint64_t len, const struct pgr_lane_chunk *c,
		struct pgr_err *err)
{
	int rc = c->suspect ? pgr_lane_local_check_pages(&h->local, p->file, p->from, len, err) : PGR_OK;

	if (rc != PGR_OK)
		return rc;
	if (h->run_to > h->run_from && h->run_file == p->file && h->run_to == p->from) {
		h->run_to += len;
		h->run_after = c->after;
		return PGR_OK;
	}
	if (end_run(h, err) != PGR_OK)
		return PGR_ERR;
	h->run_file = p->file;
	h->run_from = p->from;
	h->run_to = p->from + len;
	h->run_before = c->before;
	h->run_after = c->after;
	return PGR_OK;
}

/* ---- what differs ---- */

static int make_room(struct pgr_lane_hash *h, struct pgr_err *err)
{
	size_t cap = h->cap == 0 ? 64 : 2 * h->cap;
	struct pgr_lane_piece *p;

	if (h->n < h->cap)
		return PGR_OK;
	p = reallocarray(h->differs, cap, sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(err);
	h->differs = p;
	h->cap = cap;
	return PGR_OK;
}

/* Neighbours are fetched as one. */
static int fetch(struct pgr_lane_hash *h, size_t file, uint64_t from, uint64_t to, struct pgr_err *err)
{
	const struct pgr_list_entry *e = &h->local.list->entries[file];
	struct pgr_lane_piece *last = h->n > 0 ? &h->differs[h->n - 1] : NULL;

	if (last != NULL && last->file == file && last->to == from) {
		last->to = to;
		last->ask = pgr_lane_whole_bytes(e, last->from, to, h->largest_row);
		return PGR_OK;
	}
	if (make_room(h, err) != PGR_OK)
		return PGR_ERR;
	h->differs[h->n++] = (struct pgr_lane_piece){.file = file,
						     .from = from,
						     .to = to,
						     .row = pgr_lane_row_bytes(e, h->largest_row),
						     .ask = pgr_lane_whole_bytes(e, from, to, h->largest_row)};
	return PGR_OK;
}

static int differ(struct pgr_lane_hash *h, const struct pgr_lane_piece *p, uint64_t len, struct pgr_err *err)
{
	if (!h->compare_only && fetch(h, p->file, p->from, p->from + len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lane_files_differ(h->local.files, p->file, len, h->local.dir, err);
}

/* ---- the request ---- */

/* All of a file was compared, but it is longer on the server: that much was never here. */
static int end_piece(struct pgr_lane_hash *h, struct pgr_lane_request *q, struct pgr_err *err)
{
	const struct pgr_lane_piece *p = &q->pieces[q->at];

	if (p->tail > p->to && fetch(h, p->file, p->to, p->tail, err) != PGR_OK)
		return PGR_ERR;
	q->at++;
	return end_run(h, err);
}

int pgr_lane_hash_row(struct pgr_lane_hash *h, struct pgr_lane_request *q, const uint8_t *theirs, uint64_t *done,
		      struct pgr_err *err)
{
	struct pgr_lane_piece *p = &q->pieces[q->at];
	const struct pgr_lane_chunk *c = &h->local.chunks[h->next++];
	uint64_t len = p->to - p->from < p->row ? p->to - p->from : p->row;
	int rc = PGR_MORE;

	if (c->whole && memcmp(c->sum, theirs, pgr_rowsum_len(h->local.sum->algo)) == 0)
		rc = keep(h, p, len, c, err);
	if (rc == PGR_MORE)
		rc = differ(h, p, len, err);
	if (rc != PGR_OK)
		return PGR_ERR;
	*done = len;
	p->from += len;
	return p->from < p->to ? PGR_OK : end_piece(h, q, err);
}

int pgr_lane_hash_end(struct pgr_lane_hash *h, struct pgr_err *err)
{
	size_t n = h->n;

	h->begun = false;
	h->n = 0;
	if (end_run(h, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lane_work_add(h->work, h->differs, n, err);
}

void pgr_lane_hash_forget(struct pgr_lane_hash *h)
{
	h->begun = false;
	h->n = 0;
	h->run_from = h->run_to = 0;
}
