/* Decoders of backend messages: see fields.h. */
#include "proto/fields.h"

#include <string.h>

/* PostgreSQL documentation, "Error and Notice Message Fields". */
static struct pgr_span *field_by_code(struct pgr_fields *f, uint8_t code)
{
	switch (code) {
	case 'S':
		return &f->severity;
	case 'V':
		return &f->severity_nonlocal;
	case 'C':
		return &f->code;
	case 'M':
		return &f->message;
	case 'D':
		return &f->detail;
	case 'H':
		return &f->hint;
	case 'P':
		return &f->position;
	case 'p':
		return &f->internal_position;
	case 'q':
		return &f->internal_query;
	case 'W':
		return &f->context;
	case 's':
		return &f->schema;
	case 't':
		return &f->table;
	case 'c':
		return &f->column;
	case 'd':
		return &f->datatype;
	case 'n':
		return &f->constraint;
	case 'F':
		return &f->file;
	case 'L':
		return &f->line;
	case 'R':
		return &f->routine;
	default:
		return NULL;
	}
}

int pgr_fields_decode(struct pgr_span body, struct pgr_fields *f, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(body.p, body.len);
	uint8_t code;

	memset(f, 0, sizeof(*f));
	while ((code = pgr_cur_u8(&c)) != 0) {
		struct pgr_span *dst = field_by_code(f, code);
		struct pgr_span value = pgr_cur_cstr(&c);

		if (dst != NULL)
			*dst = value;
	}
	if (!pgr_cur_done(&c))
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed error or notice fields (%zu bytes)", body.len);
	return PGR_OK;
}

static bool is_any_of(struct pgr_span s, const char *const *names)
{
	for (; *names != NULL; names++)
		if (pgr_span_is(s, *names))
			return true;
	return false;
}

/*
 * Servers before 9.6 send only the translated severity.  In another language it tells nothing, so that the class of
 * the SQLSTATE must do: 57P01 to 57P03 (shutdown, crash, starting up) and 57P04 (database dropped) end the session.
 */
bool pgr_fields_fatal(const struct pgr_fields *f)
{
	static const char *const fatal[] = {"FATAL", "PANIC", NULL};
	static const char *const codes[] = {"57P01", "57P02", "57P03", "57P04", NULL};
	static const char *const not_fatal[] = {"ERROR", "WARNING", "NOTICE", "INFO", "LOG", "DEBUG", NULL};

	if (f->severity_nonlocal.p != NULL)
		return is_any_of(f->severity_nonlocal, fatal);
	return is_any_of(f->severity, fatal) || (!is_any_of(f->severity, not_fatal) && is_any_of(f->code, codes));
}

/* Whether this is an error, not a notice; by severity, or for translated ones by SQLSTATE class (00, 01, 02). */
static bool is_error(const struct pgr_fields *f)
{
	static const char *const errors[] = {"ERROR", "FATAL", "PANIC", NULL};
	static const char *const notices[] = {"WARNING", "NOTICE", "INFO", "LOG", "DEBUG", NULL};
	struct pgr_span s = f->severity_nonlocal.p != NULL ? f->severity_nonlocal : f->severity;

	if (is_any_of(s, errors))
		return true;
	if (is_any_of(s, notices) || f->code.len != 5)
		return false;
	return !(f->code.p[0] == '0' && f->code.p[1] >= '0' && f->code.p[1] <= '2');
}

/* Appends text of the server.  What goes to a terminal must not be able to steer it. */
static int put_clean(struct pgr_buf *out, struct pgr_span s, struct pgr_err *err)
{
	size_t start = out->len;

	if (s.len > 0 && pgr_buf_put(out, s.p, s.len, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = start; i < out->len; i++) {
		uint8_t b = out->data[i];

		if ((b < 0x20 && b != '\n' && b != '\t') || b == 0x7F)
			out->data[i] = '?';
	}
	return PGR_OK;
}

static int put_line(struct pgr_buf *out, const char *label, struct pgr_span s, struct pgr_err *err)
{
	if (s.p == NULL)
		return PGR_OK;
	if (pgr_buf_puts(out, label, err) != PGR_OK || put_clean(out, s, err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_put8(out, '\n', err);
}

static int put_text(const struct pgr_fields *f, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_span severity = f->severity.p != NULL ? f->severity : f->severity_nonlocal;

	if (severity.p != NULL && (put_clean(out, severity, err) != PGR_OK || pgr_buf_puts(out, ":  ", err) != PGR_OK))
		return PGR_ERR;
	if (put_clean(out, f->message, err) != PGR_OK || pgr_buf_put8(out, '\n', err) != PGR_OK ||
	    put_line(out, "DETAIL:  ", f->detail, err) != PGR_OK || put_line(out, "HINT:  ", f->hint, err) != PGR_OK ||
	    put_line(out, "QUERY:  ", f->internal_query, err) != PGR_OK)
		return PGR_ERR;
	return is_error(f) ? put_line(out, "CONTEXT:  ", f->context, err) : PGR_OK;
}

/* Order and labels as in pqBuildErrorMessage3, src/interfaces/libpq/fe-protocol3.c. */
int pgr_fields_text(const struct pgr_fields *f, struct pgr_buf *out, struct pgr_err *err)
{
	size_t start = out->len;
	int rc = put_text(f, out, err);

	if (rc != PGR_OK)
		out->len = start;
	return rc;
}

static bool sqlstate_valid(struct pgr_span code)
{
	if (code.len != 5)
		return false;
	for (size_t i = 0; i < code.len; i++)
		if (!(code.p[i] >= '0' && code.p[i] <= '9') && !(code.p[i] >= 'A' && code.p[i] <= 'Z'))
			return false;
	return true;
}

int pgr_fields_to_err(const struct pgr_fields *f, struct pgr_err *err)
{
	struct pgr_buf text = {0};

	if (pgr_fields_text(f, &text, err) == PGR_OK)
		pgr_err_set(err, PGR_E_SERVER, "%.*s", (int)(text.len - 1), (const char *)text.data);
	else
		pgr_err_set(err, PGR_E_SERVER, "the server reported an error (no memory for its text)");
	pgr_buf_fini(&text);
	/* Whoever asks for the SQLSTATE of a server's error gets one: XX000 is internal_error. */
	memcpy(err->sqlstate, sqlstate_valid(f->code) ? (const char *)f->code.p : "XX000", 5);
	err->sqlstate[5] = '\0';
	err->fatal = pgr_fields_fatal(f);
	return PGR_ERR;
}

/* ---- rows ---- */

#define SQL_NULL 0xFFFFFFFFu /* length -1 */

/* One column of a row whose lengths were checked, or are being checked: a length beyond the body sets c->bad. */
static struct pgr_span read_col(struct pgr_cursor *c)
{
	uint32_t len = pgr_cur_u32(c);

	if (len == SQL_NULL)
		return (struct pgr_span){NULL, 0};
	return pgr_cur_span(c, len);
}

int pgr_row_decode(struct pgr_span body, struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(body.p, body.len);

	row->ncols = pgr_cur_u16(&c);
	row->body = (struct pgr_span){c.p, c.left};
	for (unsigned i = 0; i < row->ncols && !c.bad; i++)
		read_col(&c);
	if (!pgr_cur_done(&c))
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed row (%u columns in %zu bytes)", row->ncols,
				   body.len);
	return PGR_OK;
}

struct pgr_span pgr_row_col(const struct pgr_row *row, unsigned i)
{
	struct pgr_cursor c = pgr_cur(row->body.p, row->body.len);

	if (i >= row->ncols)
		return (struct pgr_span){NULL, 0};
	while (i-- > 0)
		read_col(&c);
	return read_col(&c);
}

struct column {
	struct pgr_span name;
	uint32_t type;
};

static struct column read_column_desc(struct pgr_cursor *c)
{
	struct column col;

	col.name = pgr_cur_cstr(c);
	pgr_cur_u32(c); /* table */
	pgr_cur_u16(c); /* attribute number */
	col.type = pgr_cur_u32(c);
	pgr_cur_u16(c); /* type size */
	pgr_cur_u32(c); /* type modifier */
	pgr_cur_u16(c); /* format */
	return col;
}

int pgr_rowdesc_decode(struct pgr_span body, struct pgr_rowdesc *d, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(body.p, body.len);

	d->ncols = pgr_cur_u16(&c);
	d->body = (struct pgr_span){c.p, c.left};
	for (unsigned i = 0; i < d->ncols && !c.bad; i++)
		read_column_desc(&c);
	if (!pgr_cur_done(&c))
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed row description (%u columns in %zu bytes)", d->ncols,
				   body.len);
	return PGR_OK;
}

static struct column rowdesc_column(const struct pgr_rowdesc *d, unsigned i)
{
	struct pgr_cursor c = pgr_cur(d->body.p, d->body.len);

	if (i >= d->ncols)
		return (struct column){{NULL, 0}, 0};
	while (i-- > 0)
		read_column_desc(&c);
	return read_column_desc(&c);
}

struct pgr_span pgr_rowdesc_name(const struct pgr_rowdesc *d, unsigned i)
{
	return rowdesc_column(d, i).name;
}

uint32_t pgr_rowdesc_type(const struct pgr_rowdesc *d, unsigned i)
{
	return rowdesc_column(d, i).type;
}

/* ---- the small ones ---- */

int pgr_param_decode(struct pgr_span body, struct pgr_span *name, struct pgr_span *value, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(body.p, body.len);

	*name = pgr_cur_cstr(&c);
	*value = pgr_cur_cstr(&c);
	if (!pgr_cur_done(&c))
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed parameter status (%zu bytes)", body.len);
	return PGR_OK;
}

int pgr_copy_response_check(struct pgr_span body, struct pgr_err *err)
{
	struct pgr_cursor c = pgr_cur(body.p, body.len);
	bool formats_ok = pgr_cur_u8(&c) <= 1;
	uint16_t ncols = pgr_cur_u16(&c);

	for (unsigned i = 0; i < ncols && !c.bad; i++)
		formats_ok = pgr_cur_u16(&c) <= 1 && formats_ok;
	if (!pgr_cur_done(&c) || !formats_ok)
		return pgr_err_set(err, PGR_E_PROTOCOL, "malformed copy response (%u columns in %zu bytes)", ncols,
				   body.len);
	return PGR_OK;
}
