#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backup/manifest.h"
#include "common/buf.h"
#include "common/num.h"
#include "common/utf8.h"
#include "proto/caps.h"

/* What is gathered before the sink gets it. */
#define BATCH_BYTES ((size_t)32 * 1024)

enum part { FILES, RANGES, ENDED };

struct pgr_manifest_writer {
	pgr_manifest_sink *sink;
	void *arg;
	bool force_encode;
	enum part part;
	bool any; /* an entry of this part was written */
	struct pgr_buf text;
	struct pgr_digest *digest; /* of all that went to the sink */
};

/* ---- text ---- */

static int flush(struct pgr_manifest_writer *w, struct pgr_err *err)
{
	if (w->text.len == 0)
		return PGR_OK;
	if (pgr_digest_add(w->digest, w->text.data, w->text.len, err) != PGR_OK ||
	    w->sink(w->arg, w->text.data, w->text.len, err) != PGR_OK)
		return PGR_ERR;
	w->text.len = 0;
	return PGR_OK;
}

static int flush_batch(struct pgr_manifest_writer *w, struct pgr_err *err)
{
	return w->text.len < BATCH_BYTES ? PGR_OK : flush(w, err);
}

/* A server ends the line of an entry when it knows whether another one follows. */
static int start_entry(struct pgr_manifest_writer *w, const char *first, struct pgr_err *err)
{
	const char *separator = w->any ? ",\n" : first;

	w->any = true;
	return pgr_buf_puts(&w->text, separator, err);
}

/* See escape_json in src/backend/utils/adt/json.c. */
static int put_escaped(struct pgr_buf *b, char c, struct pgr_err *err)
{
	static const char short_ones[] = "\bb\ff\nn\rr\tt\"\"\\\\";

	for (const char *p = short_ones; *p != '\0'; p += 2)
		if (c == p[0])
			return pgr_buf_printf(b, err, "\\%c", p[1]);
	if ((unsigned char)c < 0x20)
		return pgr_buf_printf(b, err, "\\u%04x", (unsigned)c);
	return pgr_buf_put8(b, (uint8_t)c, err);
}

static int put_hex(struct pgr_buf *b, const uint8_t *data, size_t len, struct pgr_err *err)
{
	if (pgr_buf_reserve(b, 2 * len + 1, err) != PGR_OK)
		return PGR_ERR;
	pgr_hex((char *)b->data + b->len, data, len);
	b->len += 2 * len;
	return PGR_OK;
}

static int put_path(struct pgr_manifest_writer *w, const char *path, struct pgr_err *err)
{
	struct pgr_buf *b = &w->text;
	size_t len = strlen(path);

	if (w->force_encode || !pgr_utf8_valid(path, len)) {
		if (pgr_buf_puts(b, "{ \"Encoded-Path\": \"", err) != PGR_OK ||
		    put_hex(b, (const uint8_t *)path, len, err) != PGR_OK)
			return PGR_ERR;
	} else {
		if (pgr_buf_puts(b, "{ \"Path\": \"", err) != PGR_OK)
			return PGR_ERR;
		for (; *path != '\0'; path++)
			if (put_escaped(b, *path, err) != PGR_OK)
				return PGR_ERR;
	}
	return pgr_buf_puts(b, "\", ", err);
}

/* ---- times ---- */

struct date {
	int64_t year;
	unsigned month, day;
};

/*
 * Days since 1970-01-01 in the Gregorian calendar, which repeats after 400 years.  Years begin in March here, so that
 * a leap day is the last one of its year.  (gmtime_r would let the TZ of whoever runs us add leap seconds.)
 */
static struct date date_of(int64_t days)
{
	const int64_t era_days = 146097;
	int64_t since = days + 719468; /* 0000-03-01 */
	int64_t era = (since >= 0 ? since : since - (era_days - 1)) / era_days;
	unsigned day = (unsigned)(since - era * era_days);
	unsigned year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	unsigned in_year = day - (365 * year + year / 4 - year / 100);
	unsigned month = (5 * in_year + 2) / 153; /* 0: March */
	struct date d = {
		.year = era * 400 + year + (month >= 10),
		.month = month < 10 ? month + 3 : month - 9,
		.day = in_year - (153 * month + 2) / 5 + 1,
	};

	return d;
}

static int put_time(struct pgr_buf *b, int64_t t, struct pgr_err *err)
{
	int64_t days = t / 86400 - (t % 86400 < 0);
	unsigned second = (unsigned)(t - days * 86400);
	struct date d = date_of(days);

	return pgr_buf_printf(b, err, "%04" PRId64 "-%02u-%02u %02u:%02u:%02u GMT", d.year, d.month, d.day,
			      second / 3600, second / 60 % 60, second % 60);
}

/* ---- the parts ---- */

static int put_head(struct pgr_manifest_writer *w, int server_version, const char *system_identifier,
		    struct pgr_err *err)
{
	uint64_t id;

	if (!pgr_cap_has(server_version, PGR_CAP_INCREMENTAL))
		return pgr_buf_puts(&w->text, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [", err);
	if (system_identifier == NULL || !pgr_num_u64(system_identifier, strlen(system_identifier), &id))
		return pgr_err_set(err, PGR_E_DATA, "system identifier \"%s\" is not a number",
				   system_identifier != NULL ? system_identifier : "");
	return pgr_buf_printf(
		&w->text, err,
		"{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": %" PRIu64 ",\n\"Files\": [", id);
}

int pgr_manifest_writer_new(struct pgr_manifest_writer **out, int server_version, const char *system_identifier,
			    bool force_encode, pgr_manifest_sink *sink, void *arg, struct pgr_err *err)
{
	struct pgr_manifest_writer *w = calloc(1, sizeof(*w));

	*out = NULL;
	if (w == NULL)
		return pgr_err_nomem(err);
	w->sink = sink;
	w->arg = arg;
	w->force_encode = force_encode;
	if (pgr_digest_new(&w->digest, PGR_DIGEST_SHA256, err) != PGR_OK ||
	    put_head(w, server_version, system_identifier, err) != PGR_OK) {
		pgr_manifest_writer_free(w);
		return PGR_ERR;
	}
	*out = w;
	return PGR_OK;
}

static int put_sum(struct pgr_buf *b, enum pgr_digest_algo algo, const uint8_t *sum, size_t len, struct pgr_err *err)
{
	if (algo == PGR_DIGEST_NONE)
		return PGR_OK;
	if (pgr_buf_printf(b, err, ", \"Checksum-Algorithm\": \"%s\", \"Checksum\": \"", pgr_digest_name(algo)) !=
		    PGR_OK ||
	    put_hex(b, sum, len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(b, "\"", err);
}

int pgr_manifest_add_file(struct pgr_manifest_writer *w, const char *path, uint64_t size, int64_t mtime,
			  enum pgr_digest_algo algo, const uint8_t *sum, size_t sum_len, struct pgr_err *err)
{
	struct pgr_buf *b = &w->text;

	if (w->part != FILES)
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: file \"%s\" after the end of the files", path);
	if (sum_len != pgr_digest_len(algo))
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: %s checksum of file \"%s\" has %zu bytes",
				   pgr_digest_name(algo), path, sum_len);
	if (start_entry(w, "\n", err) != PGR_OK || put_path(w, path, err) != PGR_OK ||
	    pgr_buf_printf(b, err, "\"Size\": %" PRIu64 ", \"Last-Modified\": \"", size) != PGR_OK ||
	    put_time(b, mtime, err) != PGR_OK || pgr_buf_puts(b, "\"", err) != PGR_OK ||
	    put_sum(b, algo, sum, sum_len, err) != PGR_OK || pgr_buf_puts(b, " }", err) != PGR_OK)
		return PGR_ERR;
	return flush_batch(w, err);
}

static int start_ranges(struct pgr_manifest_writer *w, struct pgr_err *err)
{
	w->part = RANGES;
	w->any = false;
	return pgr_buf_puts(&w->text, "\n],\n\"WAL-Ranges\": [\n", err);
}

int pgr_manifest_add_wal(struct pgr_manifest_writer *w, pgr_tli tli, pgr_lsn start, pgr_lsn end, struct pgr_err *err)
{
	if (w->part == ENDED)
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: WAL range after the end");
	if ((w->part == FILES && start_ranges(w, err) != PGR_OK) || start_entry(w, "", err) != PGR_OK ||
	    pgr_buf_printf(&w->text, err,
			   "{ \"Timeline\": %" PRIu32 ", \"Start-LSN\": \"%" PGR_LSN_FMT
			   "\", \"End-LSN\": \"%" PGR_LSN_FMT "\" }",
			   tli, PGR_LSN_ARG(start), PGR_LSN_ARG(end)) != PGR_OK)
		return PGR_ERR;
	return flush_batch(w, err);
}

int pgr_manifest_writer_end(struct pgr_manifest_writer *w, struct pgr_err *err)
{
	uint8_t sum[PGR_DIGEST_MAX];
	size_t len;

	if (w->part == ENDED)
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: ended twice");
	if ((w->part == FILES && start_ranges(w, err) != PGR_OK) || pgr_buf_puts(&w->text, "\n],\n", err) != PGR_OK ||
	    flush(w, err) != PGR_OK)
		return PGR_ERR;
	w->part = ENDED;
	if (pgr_digest_end(w->digest, sum, &len, err) != PGR_OK ||
	    pgr_buf_puts(&w->text, "\"Manifest-Checksum\": \"", err) != PGR_OK ||
	    put_hex(&w->text, sum, len, err) != PGR_OK || pgr_buf_puts(&w->text, "\"}\n", err) != PGR_OK)
		return PGR_ERR;
	return w->sink(w->arg, w->text.data, w->text.len, err);
}

void pgr_manifest_writer_free(struct pgr_manifest_writer *w)
{
	if (w == NULL)
		return;
	pgr_digest_free(w->digest);
	pgr_buf_fini(&w->text);
	free(w);
}
