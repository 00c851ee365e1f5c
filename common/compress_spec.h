/*
 * The argument of -Z/--compress: [{client|server}-]METHOD[:DETAIL] or a number.
 *
 * Source: PostgreSQL documentation, pg_basebackup, --compress; src/common/compression.c (texts of its errors).
 */
#ifndef PGR_COMMON_COMPRESS_SPEC_H
#define PGR_COMMON_COMPRESS_SPEC_H

#include <stdbool.h>

#include "common/decompress.h"
#include "common/err.h"

enum pgr_comp_where { PGR_COMP_UNSPECIFIED, PGR_COMP_CLIENT, PGR_COMP_SERVER };

struct pgr_compress_spec {
	enum pgr_compression method;
	enum pgr_comp_where where;
	bool has_level;
	int level;
	bool has_workers;
	int workers;
	bool has_long;
	bool long_distance;
	char name[64];	  /* METHOD as the user wrote it, to be sent to the server */
	char detail[128]; /* DETAIL as the user wrote it, to be sent to the server; "" */
	bool has_detail;  /* "gzip:" has an (empty) one, "gzip" has none */
};

/*
 * PGR_E_USAGE with pg_basebackup's texts: unrecognized compression algorithm: "%s"; invalid compression specification:
 * ...  With PGR_COMP_SERVER nothing is judged: the server knows its own methods and options, and its answer to `name`
 * and `detail` is what the user is to see; `method` and the options are then what we make of them (PGR_COMP_NONE for a
 * method that we do not know).
 */
int pgr_compress_spec_parse(struct pgr_compress_spec *out, const char *arg, struct pgr_err *err) PGR_MUST_USE;

#endif
