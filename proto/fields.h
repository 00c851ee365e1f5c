/*
 * Decoders of backend messages: errors and notices, rows, parameters, copy headers.  Pure.
 *
 * All spans point into the body that was given and live as long as it.
 * Source: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".
 */
#ifndef PGR_PROTO_FIELDS_H
#define PGR_PROTO_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "proto/cursor.h"

/* An ErrorResponse or NoticeResponse.  Fields that were not sent have p == NULL. */
struct pgr_fields {
	struct pgr_span severity;				     /* S, translated */
	struct pgr_span severity_nonlocal;			     /* V, from 9.6 */
	struct pgr_span code;					     /* C, SQLSTATE */
	struct pgr_span message;				     /* M */
	struct pgr_span detail;					     /* D */
	struct pgr_span hint;					     /* H */
	struct pgr_span position;				     /* P */
	struct pgr_span internal_position;			     /* p */
	struct pgr_span internal_query;				     /* q */
	struct pgr_span context;				     /* W */
	struct pgr_span schema, table, column, datatype, constraint; /* s t c d n */
	struct pgr_span file, line, routine;			     /* F L R */
};

/* PGR_ERR: PGR_E_PROTOCOL: malformed.  Unknown fields are skipped, as the protocol asks. */
int pgr_fields_decode(struct pgr_span body, struct pgr_fields *f, struct pgr_err *err) PGR_MUST_USE;

/* Whether the severity (V, or S from old servers) is FATAL or PANIC: the session ends. */
bool pgr_fields_fatal(const struct pgr_fields *f);

/*
 * The text that libpq builds at its default verbosity: "ERROR:  message\nDETAIL:  ...\nHINT:  ...\n" (two blanks,
 * STATEMENT position left out; CONTEXT only for errors).  Bytes that are control characters other than \n and \t become
 * '?'.
 */
int pgr_fields_text(const struct pgr_fields *f, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;

/*
 * Turns the fields into a PGR_E_SERVER error: sqlstate, fatal, and as message the libpq text without its last newline.
 * Always returns PGR_ERR.
 */
int pgr_fields_to_err(const struct pgr_fields *f, struct pgr_err *err);

/* DataRow: column values in text or binary format; a NULL has p == NULL (an empty value has not). */
struct pgr_row {
	uint16_t ncols;
	struct pgr_span body; /* of the columns */
};
int pgr_row_decode(struct pgr_span body, struct pgr_row *row,
		   struct pgr_err *err) PGR_MUST_USE;		    /* checks every length */
struct pgr_span pgr_row_col(const struct pgr_row *row, unsigned i); /* i beyond ncols: NULL value */

/* RowDescription: number of columns, and their names one after the other. */
struct pgr_rowdesc {
	uint16_t ncols;
	struct pgr_span body;
};
int pgr_rowdesc_decode(struct pgr_span body, struct pgr_rowdesc *d, struct pgr_err *err) PGR_MUST_USE;
struct pgr_span pgr_rowdesc_name(const struct pgr_rowdesc *d, unsigned i);
uint32_t pgr_rowdesc_type(const struct pgr_rowdesc *d, unsigned i); /* type OID */

/* ParameterStatus. */
int pgr_param_decode(struct pgr_span body, struct pgr_span *name, struct pgr_span *value,
		     struct pgr_err *err) PGR_MUST_USE;

/* CopyOut/In/BothResponse: checked for form only, all columns of a replication stream have format 0 columns. */
int pgr_copy_response_check(struct pgr_span body, struct pgr_err *err) PGR_MUST_USE;

#endif
