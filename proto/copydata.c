/* What is inside CopyData: see copydata.h. */
#include "proto/copydata.h"

#include <string.h>

/* us from 1970-01-01 to 2000-01-01 UTC, PostgreSQL's epoch (src/include/datatype/timestamp.h). */
#define PG_EPOCH_US ((int64_t)946684800 * 1000000)

/* An archive's name and location are file names of the server: MAXPGPATH (1024) each, with room to spare. */
#define ARCHIVE_HEAD_MAX 8192u

/* One message type: its head, type byte included, has min to max bytes; what follows a fixed head is payload. */
struct copy_type {
	enum pgr_copy_dialect dialect;
	char type;
	enum pgr_copy_kind kind;
	const char *name;
	uint32_t head_min;
	uint32_t head_max;
	bool payload;
};

/* PostgreSQL documentation, "Streaming Replication Protocol": BASE_BACKUP, START_REPLICATION. */
static const struct copy_type types[] = {
	{PGR_COPY_ARCHIVE, 'd', PGR_CK_DATA, "archive or manifest data", 1, 1, true},
	{PGR_COPY_ARCHIVE, 'p', PGR_CK_PROGRESS, "progress report", 9, 9, false},
	{PGR_COPY_ARCHIVE, 'n', PGR_CK_ARCHIVE, "new archive", 3, ARCHIVE_HEAD_MAX, false},
	{PGR_COPY_ARCHIVE, 'm', PGR_CK_MANIFEST, "manifest", 1, 1, false},
	{PGR_COPY_WAL, 'w', PGR_CK_WAL, "WAL data", 25, 25, true},
	{PGR_COPY_WAL, 'k', PGR_CK_KEEPALIVE, "keepalive", 18, 18, false},
};

static const struct copy_type *find_type(enum pgr_copy_dialect dialect, uint8_t type)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (types[i].dialect == dialect && (uint8_t)types[i].type == type)
			return &types[i];
	return NULL;
}

void pgr_copydata_init(struct pgr_copydata *c, enum pgr_copy_dialect dialect)
{
	memset(c, 0, sizeof(*c));
	c->dialect = dialect;
	c->head.limit = ARCHIVE_HEAD_MAX;
}

void pgr_copydata_fini(struct pgr_copydata *c)
{
	pgr_buf_fini(&c->head);
}

static int unknown_type(const struct pgr_copydata *c, uint8_t type, struct pgr_err *err)
{
	const char *what = c->dialect == PGR_COPY_WAL ? "WAL stream" : "base backup";

	if (type > 0x20 && type < 0x7F)
		return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected message '%c' in the %s", type, what);
	return pgr_err_set(err, PGR_E_PROTOCOL, "unexpected message 0x%02X in the %s", type, what);
}

/* Moves up to n bytes from *rest to the head. */
static int gather(struct pgr_copydata *c, struct pgr_span *rest, size_t n, struct pgr_err *err)
{
	if (n > rest->len)
		n = rest->len;
	if (n == 0)
		return PGR_OK;
	if (pgr_buf_put(&c->head, rest->p, n, err) != PGR_OK)
		return PGR_ERR;
	rest->p += n;
	rest->len -= n;
	return PGR_OK;
}

static int decode_head(const struct pgr_copydata *c, const struct copy_type *t, struct pgr_copy_head *head,
		       struct pgr_err *err)
{
	struct pgr_cursor cur = pgr_cur(c->head.data, c->head.len);

	memset(head, 0, sizeof(*head));
	head->kind = t->kind;
	pgr_cur_u8(&cur); /* the type */
	switch (t->kind) {
	case PGR_CK_ARCHIVE:
		head->name = pgr_cur_cstr(&cur);
		head->location = pgr_cur_cstr(&cur);
		break;
	case PGR_CK_PROGRESS:
		head->progress_bytes = (int64_t)pgr_cur_u64(&cur);
		break;
	case PGR_CK_WAL:
		head->start = pgr_cur_u64(&cur);
		head->wal_end = pgr_cur_u64(&cur);
		head->send_time_us = (int64_t)pgr_cur_u64(&cur);
		break;
	case PGR_CK_KEEPALIVE:
		head->wal_end = pgr_cur_u64(&cur);
		head->send_time_us = (int64_t)pgr_cur_u64(&cur);
		head->reply_requested = pgr_cur_u8(&cur) != 0;
		break;
	case PGR_CK_DATA:
	case PGR_CK_MANIFEST:
		break;
	}
	if (!pgr_cur_done(&cur) || head->progress_bytes < 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed %s message ('%c', %zu bytes)", t->name, t->type,
				   c->head.len);
	return PGR_OK;
}

/*
 * Takes what belongs to the head.  PGR_OK: the head is complete; for kinds without payload this is the end of the
 * body, which is how a body that is too long shows.
 */
static int take_head(struct pgr_copydata *c, const struct pgr_wire_msg *part, struct pgr_span *rest,
		     const struct copy_type **type, struct pgr_err *err)
{
	const struct copy_type *t;

	if (c->head.len == 0 && gather(c, rest, 1, err) != PGR_OK)
		return PGR_ERR;
	if (c->head.len == 0)
		return part->last ? pgr_err_set(err, PGR_E_PROTOCOL, "empty CopyData message") : PGR_MORE;
	t = find_type(c->dialect, c->head.data[0]);
	if (t == NULL)
		return unknown_type(c, c->head.data[0], err);
	if (gather(c, rest, t->head_max - c->head.len, err) != PGR_OK)
		return PGR_ERR;
	if (!t->payload && rest->len > 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "%s message ('%c') is longer than %u bytes", t->name, t->type,
				   t->head_max);
	if (part->last && c->head.len < t->head_min)
		return pgr_err_set(err, PGR_E_PROTOCOL, "%s message ('%c') is cut short: %zu bytes instead of %u",
				   t->name, t->type, c->head.len, t->head_min);
	*type = t;
	if (t->payload)
		return c->head.len == t->head_max ? PGR_OK : PGR_MORE;
	return part->last ? PGR_OK : PGR_MORE;
}

int pgr_copydata_feed(struct pgr_copydata *c, const struct pgr_wire_msg *part, struct pgr_copy_head *head,
		      bool *has_head, struct pgr_span *payload, struct pgr_err *err)
{
	const struct copy_type *t = NULL;
	int rc;

	*has_head = false;
	*payload = part->data;
	if (part->first) {
		c->head.len = 0;
		c->in_payload = false;
	}
	if (c->in_payload)
		return PGR_OK;
	if (c->dialect == PGR_COPY_RAW) {
		memset(head, 0, sizeof(*head));
		head->kind = PGR_CK_DATA;
		c->in_payload = *has_head = true;
		return PGR_OK;
	}
	rc = take_head(c, part, payload, &t, err);
	if (rc != PGR_OK)
		return rc;
	if (decode_head(c, t, head, err) != PGR_OK)
		return PGR_ERR;
	c->in_payload = t->payload;
	*has_head = true;
	return PGR_OK;
}

/* ---- what we send ---- */

int pgr_copydata_put_status(struct pgr_buf *out, pgr_lsn write, pgr_lsn flush, pgr_lsn apply, int64_t now_us,
			    bool reply, struct pgr_err *err)
{
	size_t start = out->len;

	if (pgr_buf_reserve(out, 34, err) == PGR_OK && pgr_buf_put8(out, 'r', err) == PGR_OK &&
	    pgr_buf_put64(out, write, err) == PGR_OK && pgr_buf_put64(out, flush, err) == PGR_OK &&
	    pgr_buf_put64(out, apply, err) == PGR_OK && pgr_buf_put64(out, (uint64_t)now_us, err) == PGR_OK &&
	    pgr_buf_put8(out, reply ? 1 : 0, err) == PGR_OK)
		return PGR_OK;
	out->len = start;
	return PGR_ERR;
}

int pgr_copydata_put_feedback(struct pgr_buf *out, int64_t now_us, uint32_t xmin, uint32_t xmin_epoch,
			      uint32_t catalog_xmin, uint32_t catalog_epoch, struct pgr_err *err)
{
	size_t start = out->len;

	if (pgr_buf_reserve(out, 25, err) == PGR_OK && pgr_buf_put8(out, 'h', err) == PGR_OK &&
	    pgr_buf_put64(out, (uint64_t)now_us, err) == PGR_OK && pgr_buf_put32(out, xmin, err) == PGR_OK &&
	    pgr_buf_put32(out, xmin_epoch, err) == PGR_OK && pgr_buf_put32(out, catalog_xmin, err) == PGR_OK &&
	    pgr_buf_put32(out, catalog_epoch, err) == PGR_OK)
		return PGR_OK;
	out->len = start;
	return PGR_ERR;
}

int64_t pgr_pgtime_from_unix_us(int64_t unix_us)
{
	return unix_us - PG_EPOCH_US;
}
