#include "backup/lane_read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/lane_query.h"
#include "common/block.h"
#include "proto/client.h"

/* With so much still to come of a request, the next one is not sent: another lane may be free to take it before. */
#define AHEAD_BYTES ((uint64_t)8 * 1024 * 1024)

void pgr_lane_reader_init(struct pgr_lane_reader *r, struct pgr_lane_shared *shared, unsigned lane,
			  const struct pgr_sys *sys)
{
	*r = (struct pgr_lane_reader){.sh = shared, .lane = lane, .dir = PGR_LANE_DIR_INIT};
	r->hash = (struct pgr_lane_hash){
		.work = shared->work, .largest_row = shared->largest_row, .compare_only = shared->compare_only};
	r->hash.local = (struct pgr_lane_local){.sys = sys,
						.list = shared->list,
						.files = shared->files,
						.pages = shared->pages,
						.dir = &r->dir,
						.sum = &r->sum,
						.fd = -1};
}

void pgr_lane_reader_fini(struct pgr_lane_reader *r, const struct pgr_sys *sys)
{
	pgr_lane_hash_fini(&r->hash);
	pgr_lane_dir_fini(&r->dir, sys);
	pgr_rowsum_fini(&r->sum);
	pgr_buf_fini(&r->query);
}

/* ---- the block ---- */

static int post_block(struct pgr_lane_reader *r, struct pgr_err *err)
{
	uint64_t span = r->block_span;

	if (r->block == NULL)
		return PGR_OK;
	r->block->len = r->block_len;
	r->block_span = 0;
	if (span > 0)
		return pgr_lane_files_post(r->sh->files, r->block_file, r->block_off, &r->block, span, &r->dir, err);
	pgr_pool_put(r->sh->pool, r->block);
	r->block = NULL;
	return PGR_OK;
}

/* A block with room for `len` bytes, that belong at the beginning of the piece; blocks end with their pieces. */
static int make_room(struct pgr_lane_reader *r, const struct pgr_lane_piece *p, uint32_t len, struct pgr_err *err)
{
	if (r->block != NULL && r->block_off + r->block_len == p->from && r->block->cap - r->block_len >= len)
		return PGR_OK;
	if (post_block(r, err) != PGR_OK || pgr_pool_get(r->sh->pool, &r->block, err) != PGR_OK)
		return PGR_ERR;
	r->block_file = p->file;
	r->block_off = p->from;
	r->block_len = 0;
	return PGR_OK;
}

/* ---- a row ---- */

static int receive(struct pgr_lane_reader *r, uint8_t *dst, uint32_t len, struct pgr_err *err)
{
	while (len > 0) {
		size_t may, n;

		if (pgr_ratelimit_take(r->sh->rate, len, &may, err) != PGR_OK)
			return PGR_ERR;
		if (pgr_copyrows_read(&r->rows, dst, may, &n, err) != PGR_OK)
			return PGR_ERR;
		pgr_ratelimit_untake(r->sh->rate, may - n);
		atomic_fetch_add_explicit(&r->sh->bytes, n, memory_order_relaxed);
		dst += n;
		len -= (uint32_t)n;
	}
	return PGR_OK;
}

/* Bytes that are asked for where a row of `want` is due. */
static uint32_t asked(const struct pgr_lane_piece *p, uint32_t want)
{
	return p->ask > 0 ? p->ask : want;
}

/* In a file that is made, what is missing of a row is a hole; in one that was here it must be written, unless the row
 * is all there is of it. */
static bool is_filled_up(const struct pgr_lane_reader *r, const struct pgr_lane_piece *p)
{
	return p->ask == 0 && pgr_lane_files_in_place(r->sh->files, p->file);
}

/* The content of a row, behind the block's whole rows, which it is not yet one of. */
static int take_content(struct pgr_lane_reader *r, const struct pgr_lane_piece *p, uint32_t len, uint32_t want,
			struct pgr_err *err)
{
	uint32_t room = is_filled_up(r, p) ? want : len;

	if (room == 0)
		return PGR_OK;
	if (make_room(r, p, room, err) != PGR_OK || receive(r, r->block->data + r->block_len, len, err) != PGR_OK)
		return PGR_ERR;
	memset(r->block->data + r->block_len + len, 0, room - len);
	return PGR_OK;
}

/* ---- its digest ---- */

static int take_value(struct pgr_lane_reader *r, uint8_t *value, uint32_t len, struct pgr_err *err)
{
	size_t n;

	for (uint32_t at = 0; at < len; at += (uint32_t)n)
		if (pgr_copyrows_read(&r->rows, value + at, len - at, &n, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

static int take_sum(struct pgr_lane_reader *r, const char *path, uint8_t *sum, struct pgr_err *err)
{
	uint32_t len;
	bool is_null;

	if (pgr_copyrows_column(&r->rows, &is_null, &len, err) != PGR_OK)
		return PGR_ERR;
	if (len != pgr_rowsum_len(r->sum.algo))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent no digest of a part of file \"%s\"", path);
	return take_value(r, sum, len, err);
}

/* A row that comes damaged whatever we do is not to go round between the lanes for ever. */
static int row_is_damaged(struct pgr_lane_reader *r, struct pgr_lane_piece *p, const char *path, uint64_t want,
			  struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_DATA, "%" PRIu64 " bytes at offset %" PRIu64 " of file \"%s\" came damaged", want,
		    p->from, path);
	r->damaged = ++p->damaged <= PGR_ROWSUM_TRIES;
	if (!r->damaged)
		pgr_err_detail(err, "They were read %" PRIu32 " times.", p->damaged);
	return PGR_ERR;
}

static int check_sum(struct pgr_lane_reader *r, struct pgr_lane_piece *p, bool is_null, uint32_t len, uint64_t want,
		     struct pgr_err *err)
{
	const char *path = r->sh->list->entries[p->file].path;
	const struct pgr_rowsum_row row = {
		.content = is_null   ? NULL
			   : len > 0 ? r->block->data + r->block_len
				     : (const void *)"",
		.len = len,
		.name = path,
		.offset = p->from,
		.length = asked(p, (uint32_t)want),
	};
	uint8_t theirs[PGR_ROWSUM_MAX], ours[PGR_ROWSUM_MAX];

	if (take_sum(r, path, theirs, err) != PGR_OK || pgr_rowsum_row(&r->sum, &row, ours, err) != PGR_OK)
		return PGR_ERR;
	if (memcmp(ours, theirs, pgr_rowsum_len(r->sum.algo)) != 0)
		return row_is_damaged(r, p, path, want, err);
	p->damaged = 0;
	return PGR_OK;
}

/* ---- the row as a whole ---- */

/* One that is shorter than asked for is the file's last one, for now. */
static int keep_row(struct pgr_lane_reader *r, const struct pgr_lane_piece *p, uint32_t len, uint32_t want,
		    struct pgr_err *err)
{
	if (is_filled_up(r, p))
		len = want;
	if (len == 0)
		return pgr_lane_files_skip(r->sh->files, p->file, pgr_lane_span(want), &r->dir, err);
	r->block_len += len;
	r->block_span += want;
	return PGR_OK;
}

/* Only when its row is whole: a file that is made is one that the server has.  What is here is opened in any case. */
static int make_file(struct pgr_lane_reader *r, const struct pgr_lane_piece *p, bool is_null, uint32_t want,
		     struct pgr_err *err)
{
	bool in_place = pgr_lane_files_in_place(r->sh->files, p->file);

	if (in_place && !is_null)
		pgr_lane_files_seen(r->sh->files, p->file);
	if (in_place ? want == 0 : is_null)
		return PGR_OK;
	return pgr_lane_files_make(r->sh->files, p->file, &r->dir, err);
}

static int take_row(struct pgr_lane_reader *r, struct pgr_lane_piece *p, bool is_null, uint32_t len,
		    struct pgr_err *err)
{
	uint32_t want = p->to - p->from < p->row ? (uint32_t)(p->to - p->from) : p->row;

	if (len > asked(p, want))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server sent %" PRIu32 " bytes of file \"%s\" instead of %" PRIu32, len,
				   r->sh->list->entries[p->file].path, asked(p, want));
	if (take_content(r, p, len, want, err) != PGR_OK)
		return PGR_ERR;
	if (r->sh->verify && check_sum(r, p, is_null, len, want, err) != PGR_OK)
		return PGR_ERR;
	if (make_file(r, p, is_null, want, err) != PGR_OK)
		return PGR_ERR;
	if (p->ask > 0 && !is_null)
		pgr_lane_files_set_end(r->sh->files, p->file, len);
	if (keep_row(r, p, len, want, err) != PGR_OK)
		return PGR_ERR;
	p->from += want;
	r->to_come -= want;
	r->rows_read++;
	if (p->from < p->to)
		return PGR_OK;
	r->now->at++;
	return post_block(r, err);
}

/* ---- a row of a comparison ---- */

static int compare_row(struct pgr_lane_reader *r, bool is_null, uint32_t len, struct pgr_err *err)
{
	uint8_t theirs[PGR_ROWSUM_MAX];
	uint64_t done;

	if (is_null || len != pgr_rowsum_len(r->sum.algo))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent no digest of a part of file \"%s\"",
				   r->sh->list->entries[r->now->pieces[r->now->at].file].path);
	if (take_value(r, theirs, len, err) != PGR_OK ||
	    pgr_lane_hash_row(&r->hash, r->now, theirs, &done, err) != PGR_OK)
		return PGR_ERR;
	r->to_come -= done;
	r->rows_read++;
	return PGR_OK;
}

/* ---- requests ---- */

static int send_request(struct pgr_lane_reader *r, const struct pgr_lane_request *q, struct pgr_err *err)
{
	const struct pgr_lane_piece *pieces = q->pieces + q->at;
	enum pgr_rowsum_algo sums = r->sh->verify ? r->sum.algo : PGR_ROWSUM_NONE;
	size_t n = q->n - q->at;
	int rc;

	if (q->compare)
		rc = pgr_lane_query_sums(&r->query, r->sh->list, pieces, n, r->sum.algo, err);
	else
		rc = pgr_lane_query(&r->query, r->sh->list, pieces, n, sums, err);
	return rc == PGR_OK ? pgr_client_send_ahead(r->client, &r->query, err) : rc;
}

static void begin_request(struct pgr_lane_reader *r, struct pgr_lane_request *q)
{
	r->now = q;
	r->to_come = pgr_lane_request_bytes(q);
	pgr_copyrows_init_columns(&r->rows, r->client, r->sh->verify && !q->compare ? 2 : 1);
}

/* Takes and sends one request, if one is due.  PGR_MORE: nothing is under way, and nothing is left to do. */
static int send_next(struct pgr_lane_reader *r, struct pgr_err *err)
{
	struct pgr_lane_request *q;
	int rc;

	if (r->ahead != NULL || (r->now != NULL && !r->now->compare && r->to_come > AHEAD_BYTES))
		return PGR_OK;
	rc = pgr_lane_work_take(r->sh->work, r->lane, r->now == NULL, &q, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE && r->now != NULL ? PGR_OK : rc;
	if (r->now == NULL)
		begin_request(r, q);
	else
		r->ahead = q;
	return send_request(r, q, err);
}

/* Also the one behind the first is sent before anything is waited for. */
static int keep_busy(struct pgr_lane_reader *r, struct pgr_err *err)
{
	bool idle = r->now == NULL;
	int rc = send_next(r, err);

	return rc == PGR_OK && idle ? send_next(r, err) : rc;
}

/* The query is over: it must have said all that was asked for. */
static int end_request(struct pgr_lane_reader *r, struct pgr_err *err)
{
	struct pgr_lane_request *next = r->ahead;

	if (r->now->at < r->now->n)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent fewer rows of file \"%s\" than were asked for",
				   r->sh->list->entries[r->now->pieces[r->now->at].file].path);
	if (r->now->compare && pgr_lane_hash_end(&r->hash, err) != PGR_OK)
		return PGR_ERR;
	pgr_lane_work_done(r->sh->work, &r->now);
	r->ahead = NULL;
	if (next != NULL)
		begin_request(r, next);
	return PGR_OK;
}

static int next_row(struct pgr_lane_reader *r, struct pgr_err *err)
{
	bool is_null;
	uint32_t len;
	int rc;

	if (r->now->compare && pgr_lane_hash_begin(&r->hash, r->now, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_copyrows_next(&r->rows, &is_null, &len, err);
	if (rc == PGR_ERR)
		return PGR_ERR;
	if (rc == PGR_MORE)
		return end_request(r, err);
	if (r->now->at == r->now->n)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent more rows than were asked for");
	if (r->now->compare)
		return compare_row(r, is_null, len, err);
	return take_row(r, &r->now->pieces[r->now->at], is_null, len, err);
}

int pgr_lane_reader_run(struct pgr_lane_reader *r, struct pgr_client *client, struct pgr_err *err)
{
	int rc;

	r->client = client;
	r->damaged = false;
	if ((r->sh->verify || r->sh->delta) &&
	    pgr_rowsum_init(&r->sum, pgr_rowsum_algo(pgr_client_version(client)), err) != PGR_OK)
		return PGR_ERR;
	while ((rc = keep_busy(r, err)) == PGR_OK && (rc = next_row(r, err)) == PGR_OK)
		continue;
	return rc == PGR_MORE ? PGR_OK : PGR_ERR;
}

/* ---- after a loss ---- */

/* A row that had begun to come is still the first one of its piece, and is asked for again. */
int pgr_lane_reader_drop(struct pgr_lane_reader *r, struct pgr_err *err)
{
	int rc = post_block(r, err);

	if (rc == PGR_OK)
		rc = pgr_lane_hash_end(&r->hash, err);
	pgr_lane_reader_abandon(r);
	return rc;
}

void pgr_lane_reader_abandon(struct pgr_lane_reader *r)
{
	bool read = r->now != NULL && r->now->at == r->now->n; /* only the end of the query was still to come */

	pgr_pool_put(r->sh->pool, r->block);
	r->block = NULL;
	r->block_span = 0;
	pgr_lane_hash_forget(&r->hash);
	r->client = NULL;
	pgr_lane_work_return(r->sh->work, &r->ahead);
	if (read)
		pgr_lane_work_done(r->sh->work, &r->now);
	else
		pgr_lane_work_return(r->sh->work, &r->now);
}
