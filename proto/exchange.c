/*
 * Short commands from the question to the last row: the second half of client.h.
 *
 * The texts of errors are those of src/bin/pg_basebackup/streamutil.c, because people and their tools look for them.
 */
#include "proto/client.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/num.h"
#include "proto/caps.h"
#include "proto/command.h"

#define RESULT_MAX	 ((size_t)64 * 1024 * 1024)
#define DEFAULT_WALSEG	 (16u * 1024 * 1024)
#define DUPLICATE_OBJECT "42710"
#define NOT_SUPPORTED	 "0A000"
#define WAL_SEGMENT_SIZE "wal_segment_size"
#define DIRECTORY_MODE	 "data_directory_mode"

/* ---- results ---- */

struct cell {
	size_t at; /* in data */
	size_t len;
	bool null;
};

struct pgr_result {
	unsigned rows, cols;
	struct cell *cells; /* row by row */
	size_t cells_cap;
	struct pgr_buf data; /* the values, a NUL behind each */
};

void pgr_result_free(struct pgr_result *r)
{
	if (r == NULL)
		return;
	free(r->cells);
	pgr_buf_fini(&r->data);
	free(r);
}

unsigned pgr_result_rows(const struct pgr_result *r)
{
	return r->rows;
}

unsigned pgr_result_cols(const struct pgr_result *r)
{
	return r->cols;
}

const char *pgr_result_cell(const struct pgr_result *r, unsigned row, unsigned col, size_t *len)
{
	const struct cell *c;

	if (len != NULL)
		*len = 0;
	if (row >= r->rows || col >= r->cols)
		return NULL;
	c = &r->cells[(size_t)row * r->cols + col];
	if (c->null)
		return NULL;
	if (len != NULL)
		*len = c->len;
	return (const char *)r->data.data + c->at;
}

static int too_large(struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "the server's answer is larger than %zu MiB", RESULT_MAX >> 20);
}

/* Room for one more row.  Rows cost memory even when they are empty, so they are counted against the limit. */
static int reserve_row(struct pgr_result *r, struct pgr_err *err)
{
	size_t used = (size_t)r->rows * r->cols;
	size_t cap = r->cells_cap;
	struct cell *grown;

	if (r->cols == 0 || (used + r->cols) * sizeof(*r->cells) > RESULT_MAX)
		return r->cols == 0 ? pgr_err_set(err, PGR_E_PROTOCOL, "the server sent a row without columns")
				    : too_large(err);
	if (used + r->cols <= cap)
		return PGR_OK;
	cap = (cap > r->cols ? cap : r->cols) * 2;
	grown = reallocarray(r->cells, cap, sizeof(*grown));
	if (grown == NULL)
		return pgr_err_nomem(err);
	r->cells = grown;
	r->cells_cap = cap;
	return PGR_OK;
}

static int add_row(struct pgr_result *r, const struct pgr_row *row, struct pgr_err *err)
{
	if (row->ncols != r->cols)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server announced %u columns and sent a row of %u", r->cols,
				   row->ncols);
	if (reserve_row(r, err) != PGR_OK)
		return PGR_ERR;
	for (unsigned i = 0; i < r->cols; i++) {
		struct pgr_span v = pgr_row_col(row, i);
		struct cell *c = &r->cells[(size_t)r->rows * r->cols + i];

		*c = (struct cell){r->data.len, v.len, v.p == NULL};
		if (v.len + 1 > r->data.limit - r->data.len)
			return too_large(err);
		if (pgr_buf_put(&r->data, v.p, v.len, err) != PGR_OK || pgr_buf_put8(&r->data, 0, err) != PGR_OK)
			return PGR_ERR;
	}
	r->rows++;
	return PGR_OK;
}

/* ---- a command and its rows ---- */

static int take_event(struct pgr_result *r, bool *described, const struct pgr_event *ev, struct pgr_err *err)
{
	switch (ev->kind) {
	case PGR_EV_ROW_DESC:
		if (*described)
			return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent more than one result");
		*described = true;
		r->cols = ev->rowdesc.ncols;
		return PGR_OK;
	case PGR_EV_ROW:
		return add_row(r, &ev->row, err);
	case PGR_EV_COMPLETE:
	case PGR_EV_READY:
		return PGR_OK;
	default:
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server answered a command without COPY with a COPY");
	}
}

static int read_result(struct pgr_client *c, struct pgr_result *r, struct pgr_err *err)
{
	int64_t deadline = pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS);
	bool described = false;
	struct pgr_event ev = {PGR_EV_COMPLETE};
	int rc = PGR_OK;

	while (rc == PGR_OK && ev.kind != PGR_EV_READY) {
		rc = pgr_client_expect(c, deadline, &ev, err);
		if (rc == PGR_OK)
			rc = take_event(r, &described, &ev, err);
	}
	if (rc == PGR_ERR && err->cls == PGR_E_SERVER && !err->fatal) {
		struct pgr_err later;

		/* The session is of use again, or the next command says why not. */
		if (pgr_client_until_ready(c, deadline, &later) != PGR_OK)
			return rc;
	}
	return rc;
}

int pgr_client_query(struct pgr_client *c, const struct pgr_buf *text, struct pgr_result **out, struct pgr_err *err)
{
	struct pgr_result *r = calloc(1, sizeof(*r));
	int wake, rc;

	*out = NULL;
	if (r == NULL)
		return pgr_err_nomem(err);
	r->data.limit = RESULT_MAX;
	wake = pgr_client_set_wake(c, -1);
	rc = pgr_client_ask(c, text, err);
	if (rc == PGR_OK)
		rc = read_result(c, r, err);
	pgr_client_set_wake(c, wake);
	if (rc != PGR_OK) {
		pgr_result_free(r);
		return rc;
	}
	*out = r;
	return PGR_OK;
}

/*
 * Runs `text` when building it went well (`built`), and frees it.  Failures of the exchange name the command, as the
 * stock tools do.
 */
static int run(struct pgr_client *c, int built, struct pgr_buf *text, struct pgr_result **r, struct pgr_err *err)
{
	int rc = built;

	*r = NULL;
	if (rc == PGR_OK)
		rc = pgr_client_query(c, text, r, err);
	if (built == PGR_OK && rc == PGR_ERR &&
	    (err->cls == PGR_E_SERVER || err->cls == PGR_E_NETWORK || err->cls == PGR_E_PROTOCOL))
		pgr_err_prefix(err, "could not send replication command \"%.*s\"", (int)text->len,
			       (const char *)text->data);
	pgr_buf_fini(text);
	return rc;
}

/* As run, but that the answer is read later. */
static int ahead(struct pgr_client *c, int built, struct pgr_buf *text, struct pgr_err *err)
{
	int rc = built;

	if (rc == PGR_OK)
		rc = pgr_client_ask_ahead(c, text, err);
	pgr_buf_fini(text);
	return rc;
}

static int bad_shape(const struct pgr_result *r, const char *what, unsigned rows, unsigned cols, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL,
			   "could not %s: got %u rows and %u fields, expected %u rows and %u or more fields", what,
			   r->rows, r->cols, rows, cols);
}

/* A cell that must not be NULL. */
static const char *must_have(const struct pgr_result *r, unsigned col, size_t *len)
{
	const char *s = pgr_result_cell(r, 0, col, len);

	return s != NULL ? s : "";
}

/* A value of the server in an error: what it sent could be meant for somebody's terminal. */
struct shown {
	char text[65];
};

static struct shown show_value(const char *s)
{
	struct shown v;
	size_t n = 0;

	for (; s[n] != '\0' && n < sizeof(v.text) - 1; n++)
		v.text[n] = (unsigned char)s[n] >= 0x20 && s[n] != 0x7f ? s[n] : '?';
	v.text[n] = '\0';
	return v;
}

/* ---- what the server is ---- */

static int decode_system_id(const struct pgr_result *r, int version, struct pgr_system_id *out, struct pgr_err *err)
{
	unsigned cols = pgr_cap_has(version, PGR_CAP_SLOTS) ? 4 : 3; /* dbname came with the slots, in 9.4 */
	uint64_t number;
	const char *s;
	size_t len;

	memset(out, 0, sizeof(*out));
	if (r->rows != 1 || r->cols < cols)
		return bad_shape(r, "identify system", 1, cols, err);
	s = must_have(r, 0, &len);
	if (!pgr_num_u64(s, len, &number) || len >= sizeof(out->system_identifier))
		return pgr_err_set(err, PGR_E_PROTOCOL, "could not parse system identifier \"%s\"", show_value(s).text);
	memcpy(out->system_identifier, s, len + 1);
	s = must_have(r, 1, &len);
	if (!pgr_num_u32(s, len, &out->tli) || out->tli == 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "could not parse timeline ID \"%s\"", show_value(s).text);
	s = must_have(r, 2, &len);
	if (!pgr_lsn_parse(s, len, &out->flush))
		return pgr_err_set(err, PGR_E_PROTOCOL, "could not parse write-ahead log location \"%s\"",
				   show_value(s).text);
	s = cols > 3 ? must_have(r, 3, &len) : "";
	len = strlen(s);
	if (len >= sizeof(out->dbname))
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent a database name of %zu bytes", len);
	memcpy(out->dbname, s, len + 1);
	return PGR_OK;
}

int pgr_client_identify_ahead(struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_buf text = {0};

	return ahead(c, pgr_cmd_identify_system(&text, err), &text, err);
}

int pgr_client_identify(struct pgr_client *c, struct pgr_system_id *out, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	struct pgr_result *r;
	int rc = run(c, pgr_cmd_identify_system(&text, err), &text, &r, err);

	if (rc == PGR_OK)
		rc = decode_system_id(r, pgr_client_version(c), out, err);
	pgr_result_free(r);
	return rc;
}

/* SHOW: one row of one column. */
static int show(struct pgr_client *c, const char *name, const char *what, struct pgr_result **r, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = run(c, pgr_cmd_show(&text, pgr_client_version(c), name, err), &text, r, err);

	if (rc == PGR_OK && ((*r)->rows != 1 || (*r)->cols < 1))
		rc = bad_shape(*r, what, 1, 1, err);
	return rc;
}

int pgr_client_show(struct pgr_client *c, const char *name, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_result *r = NULL;
	int rc = show(c, name, name, &r, err);

	out->len = 0;
	if (rc == PGR_OK)
		rc = pgr_buf_puts(out, must_have(r, 0, NULL), err);
	pgr_result_free(r);
	return rc;
}

int pgr_client_show_ahead(struct pgr_client *c, const char *name, struct pgr_err *err)
{
	struct pgr_buf text = {0};

	return ahead(c, pgr_cmd_show(&text, pgr_client_version(c), name, err), &text, err);
}

/* "16MB", "1GB": digits and a unit, as GUC_UNIT_BYTE is shown. */
static int decode_segment_size(const char *s, uint32_t *out, struct pgr_err *err)
{
	size_t digits = strspn(s, "0123456789");
	unsigned shift = strcmp(s + digits, "MB") == 0 ? 20 : strcmp(s + digits, "GB") == 0 ? 30 : 0;
	uint32_t n;

	if (shift == 0 || !pgr_num_u32(s, digits, &n))
		return pgr_err_set(err, PGR_E_PROTOCOL, "WAL segment size \"%s\" could not be parsed",
				   show_value(s).text);
	if (!pgr_walseg_valid((uint64_t)n << shift))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "remote server reported invalid WAL segment size (%" PRIu64
				   " bytes): it must be a power of two between 1 MB and 1 GB",
				   (uint64_t)n << shift);
	*out = n << shift;
	return PGR_OK;
}

int pgr_client_wal_segment_size(struct pgr_client *c, uint32_t *out, struct pgr_err *err)
{
	struct pgr_result *r;
	int rc;

	*out = DEFAULT_WALSEG;
	if (!pgr_cap_has(pgr_client_version(c), PGR_CAP_SHOW))
		return PGR_OK;
	rc = show(c, WAL_SEGMENT_SIZE, "fetch WAL segment size", &r, err);
	if (rc == PGR_OK)
		rc = decode_segment_size(must_have(r, 0, NULL), out, err);
	pgr_result_free(r);
	return rc;
}

/* An octal mode; src/common/file_perm.c asks for all bits of 0750. */
static int decode_mode(const char *s, size_t len, bool *group, struct pgr_err *err)
{
	unsigned mode = 0;

	if (len == 0 || len > 6 || strspn(s, "01234567") != len)
		return pgr_err_set(err, PGR_E_PROTOCOL, "group access flag could not be parsed: %s",
				   show_value(s).text);
	for (size_t i = 0; i < len; i++)
		mode = mode << 3 | (unsigned)(s[i] - '0');
	*group = (mode & 0750) == 0750;
	return PGR_OK;
}

int pgr_client_group_access(struct pgr_client *c, bool *out, struct pgr_err *err)
{
	struct pgr_result *r;
	const char *s;
	size_t len;
	int rc;

	*out = false;
	if (!pgr_cap_has(pgr_client_version(c), PGR_CAP_GROUP_ACCESS))
		return PGR_OK;
	rc = show(c, DIRECTORY_MODE, "fetch group access flag", &r, err);
	if (rc == PGR_OK) {
		s = must_have(r, 0, &len);
		rc = decode_mode(s, len, out, err);
	}
	pgr_result_free(r);
	return rc;
}

int pgr_client_of_server_ahead(struct pgr_client *c, struct pgr_err *err)
{
	int version = pgr_client_version(c);

	if (pgr_cap_has(version, PGR_CAP_GROUP_ACCESS) && pgr_client_show_ahead(c, DIRECTORY_MODE, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_cap_has(version, PGR_CAP_SHOW) && pgr_client_show_ahead(c, WAL_SEGMENT_SIZE, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_identify_ahead(c, err);
}

/* ---- slots ---- */

int pgr_client_create_slot_ahead(struct pgr_client *c, const char *slot, bool temporary, bool reserve_wal,
				 struct pgr_err *err)
{
	struct pgr_buf text = {0};

	return ahead(c, pgr_cmd_create_slot(&text, pgr_client_version(c), slot, temporary, reserve_wal, err), &text,
		     err);
}

int pgr_client_create_slot(struct pgr_client *c, const char *slot, bool temporary, bool reserve_wal, bool if_not_exists,
			   struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int built = pgr_cmd_create_slot(&text, pgr_client_version(c), slot, temporary, reserve_wal, err);
	struct pgr_result *r;
	int rc = run(c, built, &text, &r, err);

	if (rc == PGR_ERR && if_not_exists && err->cls == PGR_E_SERVER && !err->fatal &&
	    strcmp(err->sqlstate, DUPLICATE_OBJECT) == 0) {
		pgr_err_clear(err);
		return PGR_OK;
	}
	if (rc == PGR_OK && (r->rows != 1 || r->cols != 4))
		rc = pgr_err_set(err, PGR_E_PROTOCOL,
				 "could not create replication slot \"%s\": got %u rows and %u fields, expected %u "
				 "rows and %u fields",
				 slot, r->rows, r->cols, 1, 4);
	pgr_result_free(r);
	return rc;
}

int pgr_client_drop_slot(struct pgr_client *c, const char *slot, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int built = pgr_cmd_drop_slot(&text, pgr_client_version(c), slot, err);
	struct pgr_result *r;
	int rc = run(c, built, &text, &r, err);

	pgr_result_free(r);
	return rc;
}

static int decode_slot(const struct pgr_result *r, const char *slot, pgr_lsn *restart, pgr_tli *tli,
		       struct pgr_err *err)
{
	const char *type = pgr_result_cell(r, 0, 0, NULL);
	const char *lsn, *timeline;
	size_t lsn_len, timeline_len;

	if (r->rows != 1 || r->cols < 3)
		return bad_shape(r, "read replication slot", 1, 3, err);
	if (type == NULL)
		return pgr_err_set(err, PGR_E_USAGE, "replication slot \"%s\" does not exist", slot);
	if (strcmp(type, "physical") != 0)
		return pgr_err_set(err, PGR_E_USAGE, "expected a physical replication slot, got type \"%s\" instead",
				   show_value(type).text);
	lsn = pgr_result_cell(r, 0, 1, &lsn_len);
	timeline = pgr_result_cell(r, 0, 2, &timeline_len);
	if (lsn != NULL && !pgr_lsn_parse(lsn, lsn_len, restart))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "could not parse restart_lsn \"%s\" for replication slot \"%s\"",
				   show_value(lsn).text, slot);
	if (timeline != NULL && !pgr_num_u32(timeline, timeline_len, tli))
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "could not parse restart_tli \"%s\" for replication slot \"%s\"",
				   show_value(timeline).text, slot);
	return PGR_OK;
}

int pgr_client_read_slot_ahead(struct pgr_client *c, const char *slot, struct pgr_err *err)
{
	struct pgr_buf text = {0};

	return ahead(c, pgr_cmd_read_slot(&text, pgr_client_version(c), slot, err), &text, err);
}

int pgr_client_read_slot(struct pgr_client *c, const char *slot, pgr_lsn *restart, pgr_tli *tli, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int built = pgr_cmd_read_slot(&text, pgr_client_version(c), slot, err);
	struct pgr_result *r;
	int rc;

	*restart = PGR_LSN_INVALID;
	*tli = 0;
	rc = run(c, built, &text, &r, err);
	if (rc == PGR_OK)
		rc = decode_slot(r, slot, restart, tli, err);
	else if (err->cls == PGR_E_SERVER && !err->fatal && strcmp(err->sqlstate, NOT_SUPPORTED) == 0)
		err->cls = PGR_E_USAGE; /* how a server refuses a logical slot: no retry makes it a physical one */
	pgr_result_free(r);
	return rc;
}

/* ---- timelines ---- */

static int decode_history(const struct pgr_result *r, pgr_tli tli, char **content, size_t *len, struct pgr_err *err)
{
	const char *name, *data;
	char expected[17];
	size_t name_len, data_len;

	if (r->rows != 1 || r->cols != 2)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "unexpected response to TIMELINE_HISTORY command: got %u rows and %u fields, "
				   "expected %u rows and %u fields",
				   r->rows, r->cols, 1, 2);
	pgr_historyname_format(expected, tli);
	name = must_have(r, 0, &name_len);
	if (name_len != strlen(expected) || memcmp(name, expected, name_len) != 0)
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "server reported unexpected history file name for timeline %u: %s", tli,
				   show_value(name).text);
	data = must_have(r, 1, &data_len);
	*content = malloc(data_len + 1);
	if (*content == NULL)
		return pgr_err_nomem(err);
	memcpy(*content, data, data_len);
	(*content)[data_len] = '\0';
	*len = data_len;
	return PGR_OK;
}

int pgr_client_timeline_history(struct pgr_client *c, pgr_tli tli, char **content, size_t *len, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int built = pgr_cmd_timeline_history(&text, pgr_client_version(c), tli, err);
	struct pgr_result *r;
	int rc = run(c, built, &text, &r, err);

	*content = NULL;
	*len = 0;
	if (rc == PGR_OK)
		rc = decode_history(r, tli, content, len, err);
	pgr_result_free(r);
	return rc;
}
