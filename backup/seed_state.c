#include "backup/seed_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/num.h"

#define VERSION 1
#define FIRST	"pgr seed state "
#define NOTE	"# pgr-basebackup --delta works in this directory, or was interrupted; the same command goes on."
#define SUM	"crc32c: "

static bool is_system_identifier(const char *s)
{
	uint64_t n;

	return pgr_num_u64(s, strlen(s), &n);
}

static int put_lines(struct pgr_buf *out, const struct pgr_olddir_state *s, struct pgr_err *err)
{
	if (pgr_buf_printf(out, err, FIRST "%d\n" NOTE "\nsystem identifier: %s\nmajor version: %d\n", VERSION,
			   s->system_identifier, s->major) != PGR_OK)
		return PGR_ERR;
	if (s->start == PGR_LSN_INVALID ? pgr_buf_puts(out, "start: none\n", err) != PGR_OK
					: pgr_buf_printf(out, err, "start: %" PGR_LSN_FMT " on timeline %" PRIu32 "\n",
							 PGR_LSN_ARG(s->start), s->tli) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_printf(
		out, err, "server's timeline: %" PRIu32 "\nfiles: %s\ndirectory: %s\ninode: %" PRIu64 "\n",
		s->server_tli, s->whole ? "whole" : "perhaps partial", s->fresh ? "new" : "old", s->inode);
}

int pgr_seed_state_format(struct pgr_buf *out, const struct pgr_olddir_state *s, struct pgr_err *err)
{
	size_t begin = out->len;

	if (!is_system_identifier(s->system_identifier))
		return pgr_err_set(err, PGR_E_DATA, "system identifier \"%s\" is no number", s->system_identifier);
	if (put_lines(out, s, err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_printf(out, err, SUM "%08" PRIX32 "\n", pgr_crc32c(0, out->data + begin, out->len - begin));
}

/* What follows `key` up to the end of the line; NULL: the line at *at begins otherwise. */
static const char *take_line(const char **at, const char *key, size_t *len)
{
	const char *value, *nl = strchr(*at, '\n');

	if (nl == NULL || strncmp(*at, key, strlen(key)) != 0)
		return NULL;
	value = *at + strlen(key);
	*len = (size_t)(nl - value);
	*at = nl + 1;
	return value;
}

static bool take_start(const char *v, size_t len, struct pgr_olddir_state *out)
{
	static const char on[] = " on timeline ";
	const char *space = memchr(v, ' ', len);
	size_t n = space != NULL ? (size_t)(space - v) : 0;

	if (space == NULL)
		return len == 4 && memcmp(v, "none", 4) == 0;
	return pgr_lsn_parse(v, n, &out->start) && len > n + strlen(on) && memcmp(space, on, strlen(on)) == 0 &&
	       pgr_num_u32(space + strlen(on), len - n - strlen(on), &out->tli);
}

/* Leniently: the caller compares with what would be written. */
static bool take_lines(const char *text, struct pgr_olddir_state *out)
{
	uint32_t major;
	size_t len;
	const char *v;

	if (take_line(&text, FIRST, &len) == NULL || take_line(&text, NOTE, &len) == NULL)
		return false;
	v = take_line(&text, "system identifier: ", &len);
	if (v == NULL || len >= sizeof(out->system_identifier))
		return false;
	memcpy(out->system_identifier, v, len);
	v = take_line(&text, "major version: ", &len);
	if (v == NULL || !pgr_num_u32(v, len, &major))
		return false;
	out->major = (int)major;
	v = take_line(&text, "start: ", &len);
	if (v == NULL || !take_start(v, len, out))
		return false;
	v = take_line(&text, "server's timeline: ", &len);
	if (v == NULL || !pgr_num_u32(v, len, &out->server_tli))
		return false;
	v = take_line(&text, "files: ", &len);
	out->whole = v != NULL && len == strlen("whole");
	v = v != NULL ? take_line(&text, "directory: ", &len) : NULL;
	out->fresh = v != NULL && len == strlen("new") && memcmp(v, "new", len) == 0;
	v = v != NULL ? take_line(&text, "inode: ", &len) : NULL;
	return v != NULL && pgr_num_u64(v, len, &out->inode);
}

static int check_version(const char *text, struct pgr_err *err)
{
	size_t len;
	const char *v = take_line(&text, FIRST, &len);
	uint32_t version;

	if (v != NULL && pgr_num_u32(v, len, &version) && version != VERSION)
		return pgr_err_set(err, PGR_E_DATA, "it was written by another version of pgr (%" PRIu32 ")", version);
	return PGR_OK;
}

int pgr_seed_state_parse(const char *text, size_t len, struct pgr_olddir_state *out, struct pgr_err *err)
{
	struct pgr_buf again = {0};
	bool same = false;

	memset(out, 0, sizeof(*out));
	if (strlen(text) == len && check_version(text, err) != PGR_OK)
		return PGR_ERR;
	if (strlen(text) == len && take_lines(text, out) && is_system_identifier(out->system_identifier)) {
		if (pgr_seed_state_format(&again, out, err) != PGR_OK) {
			pgr_buf_fini(&again);
			return PGR_ERR;
		}
		same = again.len == len && memcmp(again.data, text, len) == 0;
	}
	pgr_buf_fini(&again);
	if (same)
		return PGR_OK;
	memset(out, 0, sizeof(*out));
	return pgr_err_set(err, PGR_E_DATA, "it is damaged");
}
