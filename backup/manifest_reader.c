#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "backup/manifest.h"
#include "backup/manifest_list.h"
#include "common/jsonlex.h"
#include "common/num.h"
#include "common/path.h"
#include "common/utf8.h"

static const char *const token_names[PGR_JSON_TOKENS] = {"\"{\"", "\"}\"", "\"[\"",  "\"]\"",
							 "\":\"", "\",\"", "string", "number"};

/* What is expected next. */
enum state {
	S_START,
	S_KEY,
	S_COLON,
	S_VALUE,
	S_AFTER_VALUE,
	S_FIRST_ELEMENT, /* or the end of the list */
	S_ELEMENT,
	S_AFTER_ELEMENT,
	S_NEWLINE, /* the last byte */
	S_END,
	STATES
};

enum object { O_TOP, O_FILE, O_RANGE };

/* Keys; those of the top level in their order. */
enum key {
	K_VERSION,
	K_SYSTEM_ID,
	K_FILES,
	K_RANGES,
	K_CHECKSUM,
	K_NO_MORE,
	K_PATH = K_NO_MORE,
	K_ENCODED_PATH,
	K_SIZE,
	K_MODIFIED,
	K_FILE_ALGO,
	K_FILE_SUM,
	K_TIMELINE,
	K_START,
	K_END,
	KEYS
};

struct pgr_manifest {
	struct pgr_jsonlex lex;
	char last_byte; /* of the bytes before these */

	/* what the tokens mean */
	enum state state;
	enum object in;
	enum key key;	   /* whose value is next */
	enum key next_top; /* the only one that is right on the top level */
	unsigned seen;	   /* 1 << key, of this object */

	bool failed;
	bool sealed; /* the line of the checksum has begun: the digest is complete */
	uint64_t sealed_line;
	bool ready; /* sorted and verified */

	/* the content */
	struct pgr_digest *digest;
	uint8_t sum[PGR_DIGEST_MAX]; /* what it must be */
	char system_id[PGR_JSON_NUMBER_MAX + 1];
	struct pgr_manifest_file file; /* under way */
	struct pgr_manifest_list list;
};

static int fail(struct pgr_manifest *m, struct pgr_err *err, const char *fmt, ...) PGR_PRINTF(3, 4);

static int fail(struct pgr_manifest *m, struct pgr_err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pgr_err_vset(err, PGR_E_DATA, fmt, ap);
	va_end(ap);
	return pgr_err_prefix(err, "could not parse backup manifest: line %" PRIu64, m->lex.line + 1);
}

/* ---- the content ---- */

static int take_version(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	uint32_t version;

	if (!pgr_num_u32(s, len, &version) || version < 1 || version > 2)
		return fail(m, err, "unknown manifest version");
	m->next_top = version == 1 ? K_FILES : K_SYSTEM_ID;
	return PGR_OK;
}

static int take_system_id(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	uint64_t id;

	if (!pgr_num_u64(s, len, &id))
		return fail(m, err, "system identifier out of range");
	memcpy(m->system_id, s, len);
	m->system_id[len] = '\0';
	return PGR_OK;
}

static int take_checksum(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	if (len != 2 * pgr_digest_len(PGR_DIGEST_SHA256) || !pgr_unhex(m->sum, s, len))
		return fail(m, err, "invalid manifest checksum");
	return PGR_OK;
}

static int set_path(struct pgr_manifest *m, const char *path, size_t len, struct pgr_err *err)
{
	if (m->file.path != NULL)
		return fail(m, err, "a file with both a path and an encoded path");
	if (memchr(path, '\0', len) != NULL || !pgr_path_is_safe(path) || path[len - 1] == '/')
		return fail(m, err, "unsafe path");
	m->file.path = pgr_manifest_list_keep(&m->list, path, len);
	return m->file.path != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int take_path(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	if (!pgr_utf8_valid(s, len))
		return fail(m, err, "path is not valid UTF-8");
	return set_path(m, s, len, err);
}

static int take_encoded_path(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	char path[PGR_JSON_STRING_MAX / 2 + 1];

	if (!pgr_unhex((uint8_t *)path, s, len))
		return fail(m, err, "encoded path is not hexadecimal");
	path[len / 2] = '\0';
	return set_path(m, path, len / 2, err);
}

static int take_size(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	if (!pgr_num_u64(s, len, &m->file.size) || m->file.size > INT64_MAX)
		return fail(m, err, "file size out of range");
	return PGR_OK;
}

static int take_file_algo(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	(void)len;
	if (!pgr_digest_parse(s, &m->file.algo) || m->file.algo == PGR_DIGEST_NONE)
		return fail(m, err, "unknown checksum algorithm");
	return PGR_OK;
}

static int take_file_sum(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	if (len > 2 * PGR_DIGEST_MAX || !pgr_unhex(m->file.sum, s, len))
		return fail(m, err, "invalid checksum of a file");
	m->file.sum_len = len / 2;
	return PGR_OK;
}

static int take_timeline(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	uint32_t tli;

	return pgr_num_u32(s, len, &tli) && tli > 0 ? PGR_OK : fail(m, err, "timeline out of range");
}

static int take_lsn(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	pgr_lsn lsn;

	return pgr_lsn_parse(s, len, &lsn) ? PGR_OK : fail(m, err, "malformed WAL location");
}

/* The time is for people: nothing is compared with it. */
static int take_nothing(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err)
{
	(void)m, (void)s, (void)len, (void)err;
	return PGR_OK;
}

static const struct key_rule {
	const char *name;
	enum object in;
	enum pgr_json_token kind; /* of the value */
	int (*take)(struct pgr_manifest *m, const char *s, size_t len, struct pgr_err *err);
} keys[KEYS] = {
	[K_VERSION] = {"PostgreSQL-Backup-Manifest-Version", O_TOP, PGR_JSON_NUMBER, take_version},
	[K_SYSTEM_ID] = {"System-Identifier", O_TOP, PGR_JSON_NUMBER, take_system_id},
	[K_FILES] = {"Files", O_TOP, PGR_JSON_LIST, NULL},
	[K_RANGES] = {"WAL-Ranges", O_TOP, PGR_JSON_LIST, NULL},
	[K_CHECKSUM] = {"Manifest-Checksum", O_TOP, PGR_JSON_STRING, take_checksum},
	[K_PATH] = {"Path", O_FILE, PGR_JSON_STRING, take_path},
	[K_ENCODED_PATH] = {"Encoded-Path", O_FILE, PGR_JSON_STRING, take_encoded_path},
	[K_SIZE] = {"Size", O_FILE, PGR_JSON_NUMBER, take_size},
	[K_MODIFIED] = {"Last-Modified", O_FILE, PGR_JSON_STRING, take_nothing},
	[K_FILE_ALGO] = {"Checksum-Algorithm", O_FILE, PGR_JSON_STRING, take_file_algo},
	[K_FILE_SUM] = {"Checksum", O_FILE, PGR_JSON_STRING, take_file_sum},
	[K_TIMELINE] = {"Timeline", O_RANGE, PGR_JSON_NUMBER, take_timeline},
	[K_START] = {"Start-LSN", O_RANGE, PGR_JSON_STRING, take_lsn},
	[K_END] = {"End-LSN", O_RANGE, PGR_JSON_STRING, take_lsn},
};

static bool saw(const struct pgr_manifest *m, enum key key)
{
	return (m->seen & 1u << key) != 0;
}

static int finish_file(struct pgr_manifest *m, struct pgr_err *err)
{
	if (m->file.path == NULL || !saw(m, K_SIZE))
		return fail(m, err, "a file without a path or a size");
	if (saw(m, K_FILE_ALGO) != saw(m, K_FILE_SUM))
		return fail(m, err, "a file with only one of checksum and algorithm");
	if (m->file.sum_len != pgr_digest_len(m->file.algo))
		return fail(m, err, "a checksum whose length is not its algorithm's");
	return pgr_manifest_list_add(&m->list, &m->file, err);
}

static int finish_range(struct pgr_manifest *m, struct pgr_err *err)
{
	if (!saw(m, K_TIMELINE) || !saw(m, K_START) || !saw(m, K_END))
		return fail(m, err, "an incomplete WAL range");
	return PGR_OK;
}

/* ---- the tokens ---- */

static int expect_key(struct pgr_manifest *m, struct pgr_err *err)
{
	(void)err;
	m->state = S_KEY;
	return PGR_OK;
}

static int expect_value(struct pgr_manifest *m, struct pgr_err *err)
{
	(void)err;
	m->state = S_VALUE;
	return PGR_OK;
}

static int expect_element(struct pgr_manifest *m, struct pgr_err *err)
{
	(void)err;
	m->state = S_ELEMENT;
	return PGR_OK;
}

static int open_element(struct pgr_manifest *m, struct pgr_err *err)
{
	m->in = m->key == K_FILES ? O_FILE : O_RANGE;
	m->seen = 0;
	m->file = (struct pgr_manifest_file){.algo = PGR_DIGEST_NONE};
	return expect_key(m, err);
}

static int open_list(struct pgr_manifest *m, struct pgr_err *err)
{
	(void)err;
	m->state = S_FIRST_ELEMENT;
	return PGR_OK;
}

static int close_list(struct pgr_manifest *m, struct pgr_err *err)
{
	(void)err;
	m->state = S_AFTER_VALUE;
	return PGR_OK;
}

static int close_object(struct pgr_manifest *m, struct pgr_err *err)
{
	enum object in = m->in;

	if (in == O_TOP) {
		m->state = S_NEWLINE;
		return m->next_top == K_NO_MORE ? PGR_OK : fail(m, err, "\"%s\" is missing", keys[m->next_top].name);
	}
	m->in = O_TOP;
	m->key = in == O_FILE ? K_FILES : K_RANGES; /* whose list goes on */
	m->state = S_AFTER_ELEMENT;
	return in == O_FILE ? finish_file(m, err) : finish_range(m, err);
}

static int take_top_key(struct pgr_manifest *m, struct pgr_err *err)
{
	if (m->next_top == K_NO_MORE || m->key != m->next_top)
		return fail(m, err, "expected %s%s", m->next_top == K_NO_MORE ? "the end" : "key ",
			    m->next_top == K_NO_MORE ? "" : keys[m->next_top].name);
	m->next_top++;
	return PGR_OK;
}

static int take_key(struct pgr_manifest *m, struct pgr_err *err)
{
	const char *name = pgr_buf_str(&m->lex.text);

	if (name == NULL)
		return pgr_err_nomem(err);
	for (m->key = 0; m->key < KEYS; m->key++)
		if (keys[m->key].in == m->in && strcmp(keys[m->key].name, name) == 0)
			break;
	m->state = S_COLON;
	if (m->in == O_TOP)
		return take_top_key(m, err);
	if (m->key == KEYS)
		return fail(m, err, "unknown key");
	if (saw(m, m->key))
		return fail(m, err, "key \"%s\" twice", keys[m->key].name);
	m->seen |= 1u << m->key;
	return PGR_OK;
}

static int take_scalar(struct pgr_manifest *m, struct pgr_err *err)
{
	const char *s = pgr_buf_str(&m->lex.text);

	if (s == NULL)
		return pgr_err_nomem(err);
	m->state = S_AFTER_VALUE;
	return keys[m->key].take(m, s, m->lex.text.len, err);
}

typedef int handler(struct pgr_manifest *m, struct pgr_err *err);
static handler *const handlers[STATES][PGR_JSON_TOKENS] = {
	[S_START] = {[PGR_JSON_OBJECT] = expect_key},
	[S_KEY] = {[PGR_JSON_STRING] = take_key},
	[S_COLON] = {[PGR_JSON_COLON] = expect_value},
	[S_VALUE] = {[PGR_JSON_STRING] = take_scalar, [PGR_JSON_NUMBER] = take_scalar, [PGR_JSON_LIST] = open_list},
	[S_AFTER_VALUE] = {[PGR_JSON_COMMA] = expect_key, [PGR_JSON_OBJECT_END] = close_object},
	[S_FIRST_ELEMENT] = {[PGR_JSON_OBJECT] = open_element, [PGR_JSON_LIST_END] = close_list},
	[S_ELEMENT] = {[PGR_JSON_OBJECT] = open_element},
	[S_AFTER_ELEMENT] = {[PGR_JSON_COMMA] = expect_element, [PGR_JSON_LIST_END] = close_list},
};

static int on_token(struct pgr_manifest *m, enum pgr_json_token t, struct pgr_err *err)
{
	handler *h = handlers[m->state][t];

	if (h == NULL || (m->state == S_VALUE && t != keys[m->key].kind))
		return fail(m, err, "unexpected %s", token_names[t]);
	return h(m, err);
}

/* ---- the bytes ---- */

/* Here the line of the checksum begins, which does not cover itself. */
static int seal(struct pgr_manifest *m, const uint8_t *start, const uint8_t *p, struct pgr_err *err)
{
	if ((p > start ? p[-1] : (uint8_t)m->last_byte) != '\n')
		return fail(m, err, "the manifest checksum must have a line of its own");
	m->sealed = true;
	m->sealed_line = m->lex.line;
	return pgr_digest_add(m->digest, start, (size_t)(p - start), err);
}

static bool is_last_key(const struct pgr_manifest *m)
{
	return !m->sealed && m->state == S_KEY && m->in == O_TOP && m->next_top == K_CHECKSUM;
}

static int end_line(struct pgr_manifest *m, uint8_t byte, struct pgr_err *err)
{
	if (m->state == S_END)
		return fail(m, err, "data after the end");
	if (byte != '\n' || m->lex.line != m->sealed_line)
		return fail(m, err, "the manifest checksum must have a line of its own");
	m->state = S_END;
	return PGR_OK;
}

static int next_token(struct pgr_manifest *m, const uint8_t **p, const uint8_t *end, struct pgr_err *err)
{
	enum pgr_json_token token;
	int rc = pgr_jsonlex_next(&m->lex, p, end, &token, err);

	if (rc == PGR_OK)
		return on_token(m, token, err);
	if (rc == PGR_ERR && err->cls == PGR_E_DATA)
		return pgr_err_prefix(err, "could not parse backup manifest: line %" PRIu64, m->lex.line + 1);
	return rc;
}

static int feed(struct pgr_manifest *m, const uint8_t *start, const uint8_t *end, struct pgr_err *err)
{
	const uint8_t *p = start;
	int rc = PGR_OK;

	while (rc != PGR_ERR && p < end) {
		if (m->state >= S_NEWLINE) {
			rc = end_line(m, *p++, err);
		} else if (is_last_key(m) && pgr_jsonlex_between(&m->lex)) {
			pgr_jsonlex_space(&m->lex, &p, end);
			if (p < end)
				rc = seal(m, start, p, err);
		} else {
			rc = next_token(m, &p, end, err);
		}
	}
	if (rc == PGR_ERR)
		return PGR_ERR;
	m->last_byte = (char)end[-1];
	return m->sealed ? PGR_OK : pgr_digest_add(m->digest, start, (size_t)(end - start), err);
}

int pgr_manifest_feed(struct pgr_manifest *m, const void *data, size_t len, struct pgr_err *err)
{
	if (m->failed || m->ready)
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: fed after its end");
	if (len == 0)
		return PGR_OK;
	m->failed = feed(m, data, (const uint8_t *)data + len, err) != PGR_OK;
	return m->failed ? PGR_ERR : PGR_OK;
}

/* ---- the end ---- */

static int verify(struct pgr_manifest *m, struct pgr_err *err)
{
	uint8_t sum[PGR_DIGEST_MAX];
	size_t len;

	if (m->state != S_END)
		return fail(m, err, "the manifest ended unexpectedly");
	if (pgr_digest_end(m->digest, sum, &len, err) != PGR_OK)
		return PGR_ERR;
	if (memcmp(sum, m->sum, len) != 0)
		return pgr_err_set(err, PGR_E_DATA, "backup manifest does not match its own checksum");
	return PGR_OK;
}

int pgr_manifest_done(struct pgr_manifest *m, struct pgr_err *err)
{
	if (m->failed || m->ready)
		return pgr_err_set(err, PGR_E_USAGE, "backup manifest: ended twice");
	m->failed = verify(m, err) != PGR_OK || pgr_manifest_list_sort(&m->list, err) != PGR_OK;
	m->ready = !m->failed;
	return m->failed ? PGR_ERR : PGR_OK;
}

int pgr_manifest_new(struct pgr_manifest **out, struct pgr_err *err)
{
	struct pgr_manifest *m = calloc(1, sizeof(*m));

	*out = NULL;
	if (m == NULL)
		return pgr_err_nomem(err);
	if (pgr_digest_new(&m->digest, PGR_DIGEST_SHA256, err) != PGR_OK) {
		free(m);
		return PGR_ERR;
	}
	*out = m;
	return PGR_OK;
}

void pgr_manifest_free(struct pgr_manifest *m)
{
	if (m == NULL)
		return;
	pgr_manifest_list_fini(&m->list);
	pgr_digest_free(m->digest);
	pgr_jsonlex_fini(&m->lex);
	free(m);
}

/* ---- what is in it ---- */

size_t pgr_manifest_files(const struct pgr_manifest *m)
{
	return m->ready ? m->list.n : 0;
}

const struct pgr_manifest_file *pgr_manifest_file(const struct pgr_manifest *m, size_t i)
{
	return i < pgr_manifest_files(m) ? &m->list.files[i] : NULL;
}

const struct pgr_manifest_file *pgr_manifest_find(const struct pgr_manifest *m, const char *path)
{
	return m->ready ? pgr_manifest_list_find(&m->list, path) : NULL;
}

const char *pgr_manifest_system_identifier(const struct pgr_manifest *m)
{
	return m->system_id;
}
