#include "backup/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/exclude.h"
#include "backup/filelist.h"
#include "backup/rowsum.h"
#include "backup/sql.h"
#include "common/num.h"
#include "proto/fields.h"

/* Nothing of PostgreSQL's own is deeper than 7 below the data directory.  Links in circles would go on to 40. */
#define DEPTH_MAX 12

#define FILE_GONE     "58P01" /* undefined_file */
#define BAD_CHARACTER "22021" /* character_not_in_repertoire */
#define NAMES_AT_ONCE 256
#define TBLSPC	      "pg_tblspc/"

static int strange(const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server's answer to the question about %s makes no sense", what);
}

/* ---- tablespaces ---- */

void pgr_listing_tablespaces_free(struct pgr_bb_tablespace *list, size_t n)
{
	for (size_t i = 0; list != NULL && i < n; i++)
		free(list[i].location);
	free(list);
}

/* An oid as the server writes it: no leading zeros (do_pg_backup_start of xlog.c reads the directory the same way). */
static bool parse_oid(const char *s, size_t len, uint32_t *oid)
{
	return len > 0 && s[0] != '0' && pgr_num_u32(s, len, oid);
}

static const char tblspc_names[] = "SELECT n FROM pg_ls_dir('pg_tblspc', true, false) n";

int pgr_listing_tablespaces_ahead(struct pgr_client *c, struct pgr_err *err)
{
	return pgr_sql_ask_ahead(c, err, "%s", tblspc_names);
}

/* Appends the names of pg_tblspc's entries that are oids, with commas. */
static int find_oids(struct pgr_client *c, struct pgr_buf *oids, struct pgr_err *err)
{
	struct pgr_result *r;
	int rc = pgr_sql_query(c, &r, err, "%s", tblspc_names);

	if (rc != PGR_OK)
		return rc;
	for (unsigned i = 0; rc == PGR_OK && i < pgr_result_rows(r); i++) {
		size_t len;
		const char *name = pgr_result_cell(r, i, 0, &len);
		uint32_t oid;

		if (name != NULL && parse_oid(name, len, &oid))
			rc = pgr_buf_printf(oids, err, "%s%s", oids->len > 0 ? "," : "", name);
	}
	pgr_result_free(r);
	return rc;
}

static int take_tablespace(const struct pgr_result *r, unsigned row, struct pgr_bb_tablespace *t, uint32_t after,
			   struct pgr_err *err)
{
	size_t oid_len, len;
	const char *oid = pgr_result_cell(r, row, 0, &oid_len);
	const char *location = pgr_result_cell(r, row, 1, &len);

	t->size_kb = -1;
	if (oid == NULL || location == NULL || len == 0 || len != strlen(location) ||
	    !parse_oid(oid, oid_len, &t->oid) || t->oid <= after)
		return strange("tablespaces", err);
	t->location = strdup(location);
	return t->location != NULL ? PGR_OK : pgr_err_nomem(err);
}

/* `r` (NULL: there are none) in our form, with the data directory behind them. */
static int take_tablespaces(const struct pgr_result *r, struct pgr_bb_tablespace **list, size_t *n, struct pgr_err *err)
{
	unsigned rows = r != NULL ? pgr_result_rows(r) : 0;
	struct pgr_bb_tablespace *t = calloc((size_t)rows + 1, sizeof(*t));
	int rc = PGR_OK;

	if (t == NULL)
		return pgr_err_nomem(err);
	for (unsigned i = 0; rc == PGR_OK && i < rows; i++)
		rc = take_tablespace(r, i, &t[i], i > 0 ? t[i - 1].oid : 0, err);
	t[rows].size_kb = -1;
	if (rc == PGR_OK) {
		t[rows].location = strdup("");
		rc = t[rows].location != NULL ? PGR_OK : pgr_err_nomem(err);
	}
	if (rc != PGR_OK) {
		pgr_listing_tablespaces_free(t, (size_t)rows + 1);
		return rc;
	}
	*list = t;
	*n = (size_t)rows + 1;
	return PGR_OK;
}

/* A link that leads nowhere stays in the list, as in BASE_BACKUP's: its location may come back. */
static int ask_tablespaces(struct pgr_client *c, struct pgr_bb_tablespace **list, size_t *n, struct pgr_err *err)
{
	struct pgr_buf oids = {0};
	struct pgr_result *r = NULL;
	int rc = find_oids(c, &oids, err);

	if (rc == PGR_OK && oids.len > 0)
		rc = pgr_sql_query(c, &r, err,
				   "SELECT o, pg_tablespace_location(o) FROM unnest('{%.*s}'::oid[]) o,"
				   " pg_stat_file('" TBLSPC "' || o, true) s WHERE s.isdir IS NOT FALSE ORDER BY o",
				   (int)oids.len, (const char *)oids.data);
	if (rc == PGR_OK)
		rc = take_tablespaces(r, list, n, err);
	pgr_result_free(r);
	pgr_buf_fini(&oids);
	return rc;
}

bool pgr_listing_has_gone(const struct pgr_err *err)
{
	return err->cls == PGR_E_SERVER && strcmp(err->sqlstate, FILE_GONE) == 0;
}

int pgr_listing_tablespaces(struct pgr_client *c, struct pgr_bb_tablespace **list, size_t *n, struct pgr_err *err)
{
	int rc = PGR_ERR;

	*list = NULL;
	*n = 0;
	for (int look = 0; rc != PGR_OK && look < PGR_LISTING_LOOKS; look++) {
		rc = ask_tablespaces(c, list, n, err);
		if (rc != PGR_OK && !pgr_listing_has_gone(err))
			break;
	}
	if (rc != PGR_OK && err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not list the server's tablespaces");
	return rc;
}

/* ---- the walk ---- */

/*
 * Directories that exclude.c leaves empty are not entered, which is a matter of time only.  Comparisons are of bytes
 * (COLLATE "C"): a name that is not valid in the database's encoding must not get near a function that looks for
 * characters.  missing_ok, since files go away while we look.
 */
static const char walk[] =
	"WITH RECURSIVE f (path, name, depth, isdir, size, mtime) AS ("
	" SELECT n, n, 1, s.isdir, s.size, s.modification"
	" FROM pg_ls_dir('.', true, false) n, pg_stat_file(n, true) s"
	" UNION ALL"
	" SELECT f.path || '/' || n, n, f.depth + 1, s.isdir, s.size, s.modification"
	" FROM f, pg_ls_dir(f.path, true, false) n, pg_stat_file(f.path || '/' || n, true) s"
	" WHERE f.isdir AND f.depth < %d AND f.path <> 'pg_wal' AND f.name <> ALL ('{pg_stat_tmp,pg_replslot,"
	"pg_dynshmem,pg_notify,pg_serial,pg_snapshots,pg_subtrans}')"
	" AND (f.name COLLATE \"C\" < 'pgsql_tmp' OR f.name COLLATE \"C\" >= 'pgsql_tmq')"
	" AND (f.path <> ALL ('{%s}') OR n = (SELECT 'PG_' || current_setting('server_version_num')::int / 10000 ||"
	" '_' || catalog_version_no FROM pg_control_system()))"
	") SELECT path, isdir, size, extract(epoch FROM mtime)::bigint FROM f WHERE isdir IS NOT NULL";

struct walk {
	struct pgr_filelist *list;
	int server_version;
	const struct pgr_bb_tablespace *tablespaces;
	size_t n;

	struct pgr_rowsum *sum; /* NULL: rows have no digest */
	const struct pgr_buf *text;
	bool damaged; /* one of them came so */
};

static unsigned depth_of(const char *path, size_t len)
{
	unsigned depth = 1;

	for (size_t i = 0; i < len; i++)
		depth += path[i] == '/';
	return depth;
}

/* Whether the path is that of a tablespace, or in one, which was not there when they were asked for. */
static bool in_new_tablespace(const struct walk *w, const char *path, size_t len)
{
	size_t at = strlen(TBLSPC);
	const char *slash;
	uint32_t oid;

	if (len <= at || memcmp(path, TBLSPC, at) != 0)
		return false;
	slash = memchr(path + at, '/', len - at);
	if (!parse_oid(path + at, slash != NULL ? (size_t)(slash - path) - at : len - at, &oid))
		return false;
	for (size_t i = 0; i < w->n; i++)
		if (w->tablespaces[i].oid == oid)
			return false;
	return true;
}

static int too_deep(const char *path, size_t len, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" is nested too deep to be copied over SQL",
		    pgr_show_path(path, len).text);
	return pgr_err_hint(err, "A link may lead in circles.  A single stream (--jobs=1) copies no links.");
}

static int take_file(struct walk *w, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_span path = pgr_row_col(row, 0), size = pgr_row_col(row, 2), mtime = pgr_row_col(row, 3);
	bool is_dir = pgr_span_is(pgr_row_col(row, 1), "t");
	const char *name = (const char *)path.p;
	uint64_t bytes;
	int64_t seconds;

	if (name == NULL || (!is_dir && !pgr_span_is(pgr_row_col(row, 1), "f")) ||
	    !pgr_num_u64((const char *)size.p, size.len, &bytes) ||
	    !pgr_num_i64((const char *)mtime.p, mtime.len, &seconds))
		return strange("files", err);
	if (in_new_tablespace(w, name, path.len))
		return PGR_OK;
	if (is_dir && depth_of(name, path.len) >= DEPTH_MAX)
		return too_deep(name, path.len, err);
	return pgr_filelist_add(w->list, w->server_version, name, path.len, is_dir, bytes, seconds, err);
}

/* What came damaged may be anything, so nothing is said about it. */
static int take_row(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	struct walk *w = arg;
	bool holds = true;

	if (w->sum != NULL && pgr_rowsum_holds(w->sum, row, w->text, &holds, err) != PGR_OK)
		return PGR_ERR;
	w->damaged |= !holds;
	return w->damaged ? PGR_OK : take_file(w, row, err);
}

/* The query for the walk, with a digest where one is wanted. */
static int walk_text(const struct walk *w, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_buf dirs = {0}, text = {0};
	const char *list;
	int rc = PGR_OK;

	for (size_t i = 0; rc == PGR_OK && i < w->n; i++)
		if (w->tablespaces[i].oid != 0)
			rc = pgr_buf_printf(&dirs, err, "%s" TBLSPC "%u", dirs.len > 0 ? "," : "",
					    w->tablespaces[i].oid);
	list = pgr_buf_str(&dirs);
	if (rc == PGR_OK && list == NULL)
		rc = pgr_err_nomem(err);
	if (rc == PGR_OK)
		rc = pgr_buf_printf(w->sum != NULL ? &text : out, err, walk, DEPTH_MAX, list);
	if (rc == PGR_OK && w->sum != NULL)
		rc = pgr_rowsum_wrap(out, w->sum->algo, &text, 4, err);
	pgr_buf_fini(&dirs);
	pgr_buf_fini(&text);
	return rc;
}

/* The query itself may have been damaged on its way; that the server says yes to it means nothing. */
static int walk_tree(struct pgr_client *c, struct walk *w, const struct pgr_buf *text, struct pgr_err *err)
{
	int rc;

	w->text = text;
	rc = pgr_sql_rows(c, text, w->sum != NULL ? 5 : 4, take_row, w, err);
	w->text = NULL;
	if (rc == PGR_OK && w->damaged)
		rc = PGR_MORE;
	return rc == PGR_OK ? pgr_filelist_finish(w->list, err) : rc;
}

/* ---- directories and files of the server's settings, in the data directory ---- */

struct dirs {
	char *data;  /* data_directory; NULL: hidden from this role */
	char *stats; /* stats_temp_directory; NULL: hidden, or there is none (15) */
	char *key;   /* ssl_key_file; NULL: hidden */
};

static char **place_of(struct dirs *d, const char *name)
{
	if (strcmp(name, "data_directory") == 0)
		return &d->data;
	if (strcmp(name, "stats_temp_directory") == 0)
		return &d->stats;
	return strcmp(name, "ssl_key_file") == 0 ? &d->key : NULL;
}

/* pg_settings leaves out what a role may not see, where SHOW would fail. */
static const char settings[] = "SELECT name, setting FROM pg_settings"
			       " WHERE name IN ('data_directory', 'stats_temp_directory', 'ssl_key_file')";

static int ask_dirs(struct pgr_client *c, struct dirs *d, struct pgr_err *err)
{
	struct pgr_result *r;
	int rc = pgr_sql_query(c, &r, err, "%s", settings);

	if (rc != PGR_OK)
		return rc;
	for (unsigned i = 0; rc == PGR_OK && i < pgr_result_rows(r); i++) {
		const char *name = pgr_result_cell(r, i, 0, NULL);
		const char *value = pgr_result_cell(r, i, 1, NULL);
		char **to = name != NULL ? place_of(d, name) : NULL;

		if (to == NULL || value == NULL || *to != NULL)
			rc = strange("settings", err);
		else if ((*to = strdup(value)) == NULL)
			rc = pgr_err_nomem(err);
	}
	pgr_result_free(r);
	return rc;
}

static void dirs_fini(struct dirs *d)
{
	free(d->data);
	free(d->stats);
	free(d->key);
	*d = (struct dirs){0};
}

static bool same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* They hardly ever change: what is said twice was not damaged.  PGR_MORE: it was not. */
static int ask_dirs_twice(struct pgr_client *c, struct dirs *d, struct pgr_err *err)
{
	struct dirs again = {0};
	int rc = ask_dirs(c, d, err);

	if (rc == PGR_OK)
		rc = ask_dirs(c, &again, err);
	if (rc == PGR_OK &&
	    (!same_text(d->data, again.data) || !same_text(d->stats, again.stats) || !same_text(d->key, again.key)))
		rc = PGR_MORE;
	dirs_fini(&again);
	return rc;
}

/* Whether `name`, up to its end, is that of the directory which this version makes in a tablespace. */
static bool is_version_dir(int server_version, const char *name)
{
	char path[sizeof(TBLSPC "1/") + 64];

	return strchr(name, '/') == NULL && snprintf(path, sizeof(path), TBLSPC "1/%s", name) < (int)sizeof(path) &&
	       pgr_exclude_entry(server_version, path, true) == PGR_INCLUDE;
}

/*
 * Where data_directory is hidden: the directory has a tablespace's version directory in it, and the end of a
 * tablespace's location as its path.  What else looks so is a copy of that location, of no use to anybody.
 */
static bool looks_like(const struct pgr_filelist *l, size_t at, const char *location)
{
	const char *path = l->entries[at].path;
	size_t n = strlen(path), loc = strlen(location);

	if (loc <= n + 1 || location[loc - n - 1] != '/' || memcmp(location + loc - n, path, n) != 0)
		return false;
	for (size_t i = at + 1; i < l->n && strncmp(l->entries[i].path, path, n) == 0; i++) {
		const char *rest = l->entries[i].path + n;

		if (l->entries[i].is_dir && rest[0] == '/' && is_version_dir(l->server_version, rest + 1))
			return true;
	}
	return false;
}

static void empty_dirs(struct pgr_filelist *l, const struct dirs *d, const struct walk *w)
{
	for (size_t i = 0; i < l->n; i++) {
		const char *path = l->entries[i].path;
		bool empty = l->entries[i].is_dir && d->stats != NULL && pgr_exclude_is(path, d->stats, d->data);

		if (!l->entries[i].is_dir || strncmp(path, TBLSPC, strlen(TBLSPC)) == 0)
			continue;
		for (size_t t = 0; t < w->n && !empty; t++) {
			const char *location = w->tablespaces[t].location;

			empty = location[0] == '/' && (d->data != NULL ? pgr_exclude_is(path, location, d->data)
								       : looks_like(l, i, location));
		}
		if (empty)
			pgr_filelist_leave_empty(l, path);
	}
}

/* Of its path only the end is looked at: the data directory may be hidden, and to be private does no harm. */
static void mark_key(struct pgr_filelist *l, const char *key)
{
	size_t len = key != NULL ? strlen(key) : 0;

	for (size_t i = 0; i < l->n; i++) {
		struct pgr_list_entry *e = &l->entries[i];
		size_t n = strlen(e->path);

		if (!e->is_dir && len >= n && memcmp(key + len - n, e->path, n) == 0)
			e->is_private = len == n || key[len - n - 1] == '/';
	}
}

/* ---- names ---- */

static bool is_ascii(const char *s)
{
	while (*s != '\0' && (unsigned char)*s < 0x80)
		s++;
	return *s == '\0';
}

static int find_nothing(void *arg, const struct pgr_row *row, struct pgr_err *err)
{
	(void)arg;
	(void)row;
	(void)err;
	return PGR_OK;
}

/* Says the names to the server.  PGR_E_SERVER, BAD_CHARACTER: it does not take one of them for text. */
static int say_names(struct pgr_client *c, const struct pgr_list_entry *const *e, size_t n, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = pgr_buf_puts(&text, "SELECT 1 FROM (VALUES (NULL)", err);

	for (size_t i = 0; rc == PGR_OK && i < n; i++) {
		rc = pgr_buf_puts(&text, ", (", err);
		if (rc == PGR_OK)
			rc = pgr_sql_literal(&text, e[i]->path, strlen(e[i]->path), err);
		if (rc == PGR_OK)
			rc = pgr_buf_put8(&text, ')', err);
	}
	if (rc == PGR_OK)
		rc = pgr_buf_puts(&text, ") v WHERE false", err);
	if (rc == PGR_OK)
		rc = pgr_sql_rows(c, &text, 1, find_nothing, NULL, err);
	pgr_buf_fini(&text);
	return rc;
}

static bool is_bad_character(int rc, const struct pgr_err *err)
{
	return rc == PGR_ERR && err->cls == PGR_E_SERVER && strcmp(err->sqlstate, BAD_CHARACTER) == 0;
}

static int check_names(struct pgr_client *c, const struct pgr_list_entry *const *e, size_t n, struct pgr_err *err)
{
	int rc = say_names(c, e, n, err);

	if (!is_bad_character(rc, err))
		return rc;
	for (size_t i = 0; i < n; i++) {
		const char *path = e[i]->path;

		rc = say_names(c, &e[i], 1, err);
		if (!is_bad_character(rc, err)) {
			if (rc != PGR_OK)
				return rc;
			continue;
		}
		pgr_err_set(err, PGR_E_USAGE,
			    "file \"%s\" cannot be read over SQL: its name is not valid in the database's encoding",
			    pgr_show_path(path, strlen(path)).text);
		return pgr_err_hint(err, "Use a single stream (--jobs=1), or connect to a database whose encoding is "
					 "SQL_ASCII.");
	}
	return strange("names", err);
}

/*
 * What pg_ls_dir says is sent as it is, but what we send is checked, and only the server knows its encoding's rules.
 * So names that are not ASCII, of which there are hardly ever any, are said to it before anybody relies on them.
 */
static int check_all_names(struct pgr_client *c, const struct pgr_filelist *l, struct pgr_err *err)
{
	const struct pgr_list_entry *some[NAMES_AT_ONCE];
	size_t n = 0;
	int rc = PGR_OK;

	for (size_t i = 0; rc == PGR_OK && i < l->n; i++) {
		if (!is_ascii(l->entries[i].path))
			some[n++] = &l->entries[i];
		if (n > 0 && (n == NAMES_AT_ONCE || i + 1 == l->n)) {
			rc = check_names(c, some, n, err);
			n = 0;
		}
	}
	return rc;
}

/* All questions at once; those about the settings first. */
static int ask_all_ahead(struct pgr_client *c, const struct walk *w, const struct pgr_buf *text, struct pgr_err *err)
{
	for (int i = 0; i < (w->sum != NULL ? 2 : 1); i++)
		if (pgr_sql_ask_ahead(c, err, "%s", settings) != PGR_OK)
			return PGR_ERR;
	return pgr_client_ask_ahead(c, text, err);
}

int pgr_listing_files(struct pgr_client *c, const struct pgr_bb_tablespace *tablespaces, size_t n,
		      struct pgr_rowsum *sum, struct pgr_filelist *out, struct pgr_err *err)
{
	struct walk w = {
		.list = out, .server_version = pgr_client_version(c), .tablespaces = tablespaces, .n = n, .sum = sum};
	struct dirs d = {0};
	struct pgr_buf text = {0};
	int rc = walk_text(&w, &text, err);

	if (rc == PGR_OK)
		rc = ask_all_ahead(c, &w, &text, err);
	if (rc == PGR_OK)
		rc = sum != NULL ? ask_dirs_twice(c, &d, err) : ask_dirs(c, &d, err);
	if (rc == PGR_OK)
		rc = walk_tree(c, &w, &text, err);
	if (rc == PGR_OK) {
		empty_dirs(out, &d, &w);
		mark_key(out, d.key);
		rc = check_all_names(c, out, err);
	}
	if (rc == PGR_ERR && err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not list the server's files");
	dirs_fini(&d);
	pgr_buf_fini(&text);
	return rc;
}
