#include "backup/copyrows.h"

#include <string.h>

#include "proto/client.h"
#include "proto/cursor.h"

/* Source: src/backend/commands/copyto.c (BinarySignature). */
static const char signature[11] = "PGCOPY\n\377\r\n";

#define FLAGS_CRITICAL 0xFFFF0000u /* a reader that does not know one of them must give up */
#define TRAILER	       0xFFFFu
#define NULL_VALUE     0xFFFFFFFFu

/* How much is thrown away at a time. */
#define SKIP_BYTES 4096

void pgr_copyrows_init(struct pgr_copyrows *r, struct pgr_client *client)
{
	pgr_copyrows_init_columns(r, client, 1);
}

void pgr_copyrows_init_columns(struct pgr_copyrows *r, struct pgr_client *client, unsigned columns)
{
	*r = (struct pgr_copyrows){.client = client, .columns = columns};
}

static int malformed(const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "malformed COPY data from the server: %s", what);
}

/* ---- events ---- */

/*
 * After an ERROR: up to this command's ReadyForQuery, and not a byte further, since the next command may be under way.
 * What was said first is what counts.
 */
static void end_failed(struct pgr_copyrows *r)
{
	struct pgr_event ev;
	struct pgr_err later;

	do
		if (pgr_client_next(r->client, PGR_NO_DEADLINE, &ev, &later) != PGR_OK)
			return;
	while (ev.kind != PGR_EV_READY);
}

static int next_event(struct pgr_copyrows *r, struct pgr_event *ev, struct pgr_err *err)
{
	int rc = pgr_client_expect(r->client, PGR_NO_DEADLINE, ev, err);

	if (rc == PGR_ERR && err->cls == PGR_E_SERVER && !err->fatal)
		end_failed(r);
	return rc;
}

/* Goes on to the next bytes of the COPY: pending, or to be taken from the client.  PGR_MORE: the server ended it. */
static int next_part(struct pgr_copyrows *r, struct pgr_err *err)
{
	while (r->pending_len == 0 && pgr_client_copy_left(r->client) == 0) {
		struct pgr_event ev;

		if (next_event(r, &ev, err) != PGR_OK)
			return PGR_ERR;
		switch (ev.kind) {
		case PGR_EV_COPY_OUT:
			break;
		case PGR_EV_COPY_DATA:
			r->pending = ev.part.data.p;
			r->pending_len = ev.part.data.len;
			break;
		case PGR_EV_COPY_DONE:
			return PGR_MORE;
		default:
			return pgr_err_set(err, PGR_E_PROTOCOL, "the server answered a COPY with something else");
		}
	}
	return PGR_OK;
}

/* 1..cap bytes of the COPY, wherever its messages begin and end.  PGR_MORE: it ended. */
static int take(struct pgr_copyrows *r, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	int rc = next_part(r, err);

	if (rc != PGR_OK)
		return rc;
	if (r->pending_len == 0)
		return pgr_client_copy_take(r->client, dst, cap, PGR_NO_DEADLINE, n, err);
	*n = r->pending_len < cap ? r->pending_len : cap;
	memcpy(dst, r->pending, *n);
	r->pending += *n;
	r->pending_len -= *n;
	return PGR_OK;
}

/* Exactly len bytes. */
static int take_all(struct pgr_copyrows *r, uint8_t *dst, size_t len, struct pgr_err *err)
{
	while (len > 0) {
		size_t n;
		int rc = take(r, dst, len, &n, err);

		if (rc != PGR_OK)
			return rc == PGR_MORE ? malformed("it ends before its trailer", err) : PGR_ERR;
		dst += n;
		len -= n;
	}
	return PGR_OK;
}

static int skip(struct pgr_copyrows *r, uint32_t len, struct pgr_err *err)
{
	uint8_t nowhere[SKIP_BYTES];

	while (len > 0) {
		uint32_t n = len < sizeof(nowhere) ? len : (uint32_t)sizeof(nowhere);

		if (take_all(r, nowhere, n, err) != PGR_OK)
			return PGR_ERR;
		len -= n;
	}
	return PGR_OK;
}

/* ---- the format ---- */

static int read_header(struct pgr_copyrows *r, struct pgr_err *err)
{
	uint8_t head[sizeof(signature) + 8];
	struct pgr_cursor c = pgr_cur(head + sizeof(signature), 8);
	uint32_t flags, extension;

	if (take_all(r, head, sizeof(head), err) != PGR_OK)
		return PGR_ERR;
	flags = pgr_cur_u32(&c);
	extension = pgr_cur_u32(&c);
	if (memcmp(head, signature, sizeof(signature)) != 0)
		return malformed("it has no binary signature", err);
	if ((flags & FLAGS_CRITICAL) != 0 || extension > INT32_MAX)
		return malformed("its header is not known", err);
	r->begun = true;
	return skip(r, extension, err);
}

/* Behind the trailer: nothing but the end of the COPY, of the command and of the query. */
static int read_end(struct pgr_copyrows *r, struct pgr_err *err)
{
	struct pgr_event ev;
	int rc = next_part(r, err);

	if (rc == PGR_OK)
		return malformed("it goes on after its trailer", err);
	if (rc == PGR_ERR)
		return PGR_ERR;
	do {
		if (next_event(r, &ev, err) != PGR_OK)
			return PGR_ERR;
		if (ev.kind != PGR_EV_COMPLETE && ev.kind != PGR_EV_READY)
			return pgr_err_set(err, PGR_E_PROTOCOL, "the server has more to say after a COPY");
	} while (ev.kind != PGR_EV_READY);
	r->ended = true;
	return PGR_MORE;
}

static int read_value_head(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	uint8_t head[4];
	struct pgr_cursor c = pgr_cur(head, sizeof(head));

	if (take_all(r, head, sizeof(head), err) != PGR_OK)
		return PGR_ERR;
	*len = pgr_cur_u32(&c);
	*is_null = *len == NULL_VALUE;
	if (*is_null)
		*len = 0;
	else if (*len > INT32_MAX)
		return malformed("a value has an impossible length", err);
	r->left = *len;
	r->columns_left--;
	return PGR_OK;
}

static int read_row_head(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	uint8_t head[2];
	struct pgr_cursor c = pgr_cur(head, sizeof(head));
	uint16_t ncols;

	if (take_all(r, head, sizeof(head), err) != PGR_OK)
		return PGR_ERR;
	ncols = pgr_cur_u16(&c);
	if (ncols == TRAILER)
		return read_end(r, err);
	if (ncols != r->columns)
		return malformed(r->columns == 1 ? "a row has not exactly one column"
						 : "a row has not as many columns as were asked for",
				 err);
	r->columns_left = r->columns;
	return read_value_head(r, is_null, len, err);
}

static int next_value(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	if (skip(r, r->left, err) != PGR_OK)
		return PGR_ERR;
	r->left = 0;
	return read_value_head(r, is_null, len, err);
}

static int next_row(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	if (!r->begun && read_header(r, err) != PGR_OK)
		return PGR_ERR;
	while (r->columns_left > 0)
		if (next_value(r, is_null, len, err) != PGR_OK)
			return PGR_ERR;
	if (skip(r, r->left, err) != PGR_OK)
		return PGR_ERR;
	r->left = 0;
	return read_row_head(r, is_null, len, err);
}

/* What the client's owner wants to be woken for is not ours to look at: a row is read as a whole. */
int pgr_copyrows_next(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	int wake, rc;

	*is_null = false;
	*len = 0;
	if (r->ended)
		return PGR_MORE;
	wake = pgr_client_set_wake(r->client, -1);
	rc = next_row(r, is_null, len, err);
	pgr_client_set_wake(r->client, wake);
	return rc;
}

int pgr_copyrows_column(struct pgr_copyrows *r, bool *is_null, uint32_t *len, struct pgr_err *err)
{
	int wake, rc;

	*is_null = false;
	*len = 0;
	if (r->columns_left == 0)
		return pgr_err_set(err, PGR_E_USAGE, "a row of a COPY has no further column");
	wake = pgr_client_set_wake(r->client, -1);
	rc = next_value(r, is_null, len, err);
	pgr_client_set_wake(r->client, wake);
	return rc;
}

int pgr_copyrows_read(struct pgr_copyrows *r, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	int wake, rc;

	*n = 0;
	if (cap > r->left)
		cap = r->left;
	if (cap == 0)
		return PGR_OK;
	wake = pgr_client_set_wake(r->client, -1);
	rc = take(r, dst, cap, n, err);
	pgr_client_set_wake(r->client, wake);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? malformed("it ends inside a value", err) : PGR_ERR;
	r->left -= (uint32_t)*n;
	return PGR_OK;
}
