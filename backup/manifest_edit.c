#include "backup/manifest_edit.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "common/digest.h"
#include "common/num.h"

#define FILES_BEGIN "\"Files\": ["
#define FILES_END   "],"
#define PLAIN	    "{ \"Path\": \""
#define ENCODED	    "{ \"Encoded-Path\": \""
#define CHECKSUM    "\"Manifest-Checksum\": "

struct line {
	const char *p;
	size_t len; /* without the newline */
};

/* Takes the next line off; false: there is none, or it has no end. */
static bool next_line(const char **text, const char *end, struct line *l)
{
	const char *nl = memchr(*text, '\n', (size_t)(end - *text));

	if (nl == NULL)
		return false;
	*l = (struct line){*text, (size_t)(nl - *text)};
	*text = nl + 1;
	return true;
}

static bool is(const struct line *l, const char *text)
{
	return l->len == strlen(text) && memcmp(l->p, text, l->len) == 0;
}

static bool begins(const struct line *l, const char *text)
{
	return l->len >= strlen(text) && memcmp(l->p, text, strlen(text)) == 0;
}

/* A name in which anything is escaped is none that is looked for. */
static bool path_of(const struct line *l, char path[PATH_MAX])
{
	bool plain = begins(l, PLAIN);
	size_t skip = strlen(plain ? PLAIN : ENCODED);
	const char *p = l->p + skip, *quote;
	size_t n;

	if (!plain && !begins(l, ENCODED))
		return false;
	quote = memchr(p, '"', l->len - skip);
	n = quote != NULL ? (size_t)(quote - p) : 0;
	if (n == 0 || n / (plain ? 1 : 2) >= PATH_MAX || (plain && memchr(p, '\\', n) != NULL))
		return false;
	if (plain)
		memcpy(path, p, n);
	else if (!pgr_unhex((uint8_t *)path, p, n))
		return false;
	path[plain ? n : n / 2] = '\0';
	return true;
}

/* Between the entries stands a comma at the end of a line. */
static int put_entry(struct pgr_buf *out, const struct line *l, size_t *n, struct pgr_err *err)
{
	size_t len = l->len > 0 && l->p[l->len - 1] == ',' ? l->len - 1 : l->len;

	if (*n > 0 && pgr_buf_puts(out, ",\n", err) != PGR_OK)
		return PGR_ERR;
	(*n)++;
	return pgr_buf_put(out, l->p, len, err);
}

/* Up to the line FILES_END, which is taken off. */
static int put_entries(const struct pgr_manifest_edit *e, bool may_drop, const char **text, const char *end,
		       struct pgr_buf *out, size_t *n, struct pgr_err *err)
{
	char path[PATH_MAX];
	struct line l;

	while (next_line(text, end, &l)) {
		if (is(&l, FILES_END))
			return PGR_OK;
		if (l.len == 0 || (may_drop && path_of(&l, path) && e->drops(e->arg, path)))
			continue;
		if (put_entry(out, &l, n, err) != PGR_OK)
			return PGR_ERR;
	}
	return pgr_err_set(err, PGR_E_DATA, "the list of files in the backup manifest has no end");
}

/* PGR_OK: *text stands behind FILES_BEGIN; the lines up to there go to `out`, unless that is NULL. */
static int skip_to_files(const char **text, const char *end, struct pgr_buf *out, struct pgr_err *err)
{
	struct line l;

	while (next_line(text, end, &l)) {
		if (out != NULL && pgr_buf_put(out, l.p, l.len + 1, err) != PGR_OK)
			return PGR_ERR;
		if (is(&l, FILES_BEGIN))
			return PGR_OK;
	}
	return pgr_err_set(err, PGR_E_DATA, "the backup manifest has no list of files");
}

/* What follows the list of files, and the checksum of all that. */
static int put_rest(const char *text, const char *end, struct pgr_buf *out, struct pgr_err *err)
{
	uint8_t sum[PGR_DIGEST_MAX];
	char hex[2 * PGR_DIGEST_MAX + 1];
	struct pgr_digest *d;
	struct line l;
	size_t len;
	int rc;

	while (next_line(&text, end, &l) && !begins(&l, CHECKSUM))
		if (pgr_buf_put(out, l.p, l.len + 1, err) != PGR_OK)
			return PGR_ERR;
	if (pgr_digest_new(&d, PGR_DIGEST_SHA256, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_digest_add(d, out->data, out->len, err);
	if (rc == PGR_OK)
		rc = pgr_digest_end(d, sum, &len, err);
	pgr_digest_free(d);
	if (rc != PGR_OK)
		return PGR_ERR;
	pgr_hex(hex, sum, len);
	return pgr_buf_printf(out, err, CHECKSUM "\"%s\"}\n", hex);
}

int pgr_manifest_apply(const struct pgr_manifest_edit *e, const char *text, size_t len, struct pgr_buf *out,
		       struct pgr_err *err)
{
	const char *more = e->more, *end = text + len;
	size_t n = 0;

	if (skip_to_files(&text, end, out, err) != PGR_OK || put_entries(e, true, &text, end, out, &n, err) != PGR_OK ||
	    skip_to_files(&more, e->more + e->more_len, NULL, err) != PGR_OK ||
	    put_entries(e, false, &more, e->more + e->more_len, out, &n, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_puts(out, n > 0 ? "\n" FILES_END "\n" : FILES_END "\n", err) != PGR_OK)
		return PGR_ERR;
	return put_rest(text, end, out, err);
}
