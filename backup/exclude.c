#include "backup/exclude.h"

#include <stddef.h>
#include <string.h>

#include "backup/finish.h"
#include "backup/olddir.h"
#include "common/num.h"

/* A piece of a path. */
struct text {
	const char *s;
	size_t n;
};

static bool is(struct text t, const char *name)
{
	return strlen(name) == t.n && memcmp(t.s, name, t.n) == 0;
}

static bool starts_with(struct text t, const char *prefix)
{
	size_t n = strlen(prefix);

	return t.n >= n && memcmp(t.s, prefix, n) == 0;
}

static struct text drop(struct text t, size_t n)
{
	return (struct text){t.s + n, t.n - n};
}

static size_t digits(struct text t)
{
	size_t n = 0;

	while (n < t.n && t.s[n] >= '0' && t.s[n] <= '9')
		n++;
	return n;
}

static bool is_number(struct text t)
{
	return t.n > 0 && digits(t) == t.n;
}

/* Takes the first component off *rest; empty when there is none. */
static struct text component(struct text *rest)
{
	const char *slash = rest->n > 0 ? memchr(rest->s, '/', rest->n) : NULL;
	struct text first = {rest->s, slash != NULL ? (size_t)(slash - rest->s) : rest->n};

	*rest = drop(*rest, slash != NULL ? first.n + 1 : first.n);
	return first;
}

/* Splits into the directory and the last component. */
static void split(struct text path, struct text *dir, struct text *name)
{
	const char *slash = path.n > 0 ? memrchr(path.s, '/', path.n) : NULL;

	*dir = (struct text){path.s, slash != NULL ? (size_t)(slash - path.s) : 0};
	*name = drop(path, slash != NULL ? dir->n + 1 : 0);
}

static struct text whole(const char *path)
{
	return (struct text){path, strlen(path)};
}

/* ---- directories of relations ---- */

enum place { ELSEWHERE, SHARED, DATABASE };

/* "PG_15_202209061": TABLESPACE_VERSION_DIRECTORY of src/include/common/relpath.h.  *major: "15". */
static bool is_version_dir(struct text t, struct text *major)
{
	if (!starts_with(t, "PG_"))
		return false;
	t = drop(t, 3);
	*major = (struct text){t.s, digits(t)};
	if (major->n == 0 || major->n == t.n || t.s[major->n] != '_')
		return false;
	return is_number(drop(t, major->n + 1));
}

/* See isDbDir, from 17 on isRelationDir, in sendDir. */
static enum place place_of(struct text dir)
{
	struct text top = component(&dir), major;

	if (is(top, "global"))
		return dir.n == 0 ? SHARED : ELSEWHERE;
	if (is(top, "pg_tblspc")) {
		if (!is_number(component(&dir)) || !is_version_dir(component(&dir), &major))
			return ELSEWHERE;
	} else if (!is(top, "base")) {
		return ELSEWHERE;
	}
	return is_number(component(&dir)) && dir.n == 0 ? DATABASE : ELSEWHERE;
}

bool pgr_is_relation_dir(const char *dir)
{
	return place_of(whole(dir)) != ELSEWHERE;
}

/* ---- names of relation files ---- */

struct relname {
	struct text backend; /* of a temporary relation, else empty */
	struct text number;
	const char *fork;
	struct text segment; /* empty: no "." */
};

/* See forkname_chars in src/common/relpath.c.  Takes "_fsm" off *t. */
static const char *take_fork(struct text *t)
{
	static const char *const forks[] = {"_fsm", "_vm", "_init"};

	for (size_t i = 0; i < sizeof(forks) / sizeof(forks[0]); i++) {
		if (starts_with(*t, forks[i])) {
			*t = drop(*t, strlen(forks[i]));
			return forks[i] + 1;
		}
	}
	return "";
}

static struct text take_digits(struct text *t)
{
	struct text number = {t->s, digits(*t)};

	*t = drop(*t, number.n);
	return number;
}

/*
 * Takes a name apart without looking at the values: see looks_like_temp_rel_name in src/backend/storage/file/fd.c and
 * parse_filename_for_nontemp_relation in reinit.c beside it.
 */
static bool split_relname(struct text t, struct relname *out)
{
	memset(out, 0, sizeof(*out));
	if (t.n > 0 && t.s[0] == 't') {
		t = drop(t, 1);
		out->backend = take_digits(&t);
		if (out->backend.n == 0 || t.n == 0 || t.s[0] != '_')
			return false;
		t = drop(t, 1);
	}
	out->number = take_digits(&t);
	out->fork = take_fork(&t);
	if (t.n > 0 && t.s[0] == '.') {
		t = drop(t, 1);
		out->segment = take_digits(&t);
		if (out->segment.n == 0)
			return false;
	}
	return out->number.n > 0 && t.n == 0;
}

static bool is_temporary(const struct relname *r)
{
	return r->backend.n > 0;
}

/* Up to 16 the number was any ten digits, since 17 it must be one that the server itself would have written. */
static bool old_number(const struct relname *r)
{
	return r->number.n <= 10;
}

static bool canonical(struct text t, uint32_t *out)
{
	return t.n > 0 && t.s[0] != '0' && pgr_num_u32(t.s, t.n, out);
}

static bool new_numbers(const struct relname *r, uint32_t *number, uint32_t *segment)
{
	*segment = 0;
	return canonical(r->number, number) && (r->segment.n == 0 || canonical(r->segment, segment));
}

bool pgr_relfile_parse(const char *path, struct pgr_relfile *out)
{
	struct text dir, name;
	struct relname r;
	enum place place;
	uint32_t number, segment;

	split(whole(path), &dir, &name);
	place = place_of(dir);
	if (place == ELSEWHERE || !split_relname(name, &r) || !new_numbers(&r, &number, &segment))
		return false;
	if (place == SHARED && is_temporary(&r))
		return false;
	*out = (struct pgr_relfile){.number = number, .segment = segment, .temporary = is_temporary(&r)};
	memcpy(out->fork, r.fork, strlen(r.fork));
	return true;
}

/* pg_control, pg_filenode.map, pg_internal.init and PG_VERSION (noChecksumFiles) are no relation files by their names.
 */
bool pgr_has_page_checksums(const char *path, struct pgr_relfile *out)
{
	struct pgr_relfile r;

	if (!pgr_relfile_parse(path, &r) || r.temporary)
		return false;
	*out = r;
	return true;
}

/* ---- rules on single entries ---- */

struct rule {
	const char *name;
	int since;   /* server version */
	bool prefix; /* any name that begins so */
};

/* PG_TEMP_FILE_PREFIX, .DS_Store and excludeFiles: whatever it is, and wherever. */
static const struct rule left_out[] = {
	{"pgsql_tmp", 100000, true},
	{"postgresql.auto.conf.tmp", 100000, false},
	{"current_logfiles.tmp", 100000, false},
	{"pg_internal.init", 110000, true},
	{"backup_label", 100000, false},
	{"tablespace_map", 100000, false},
	{"backup_manifest", 130000, false},
	{"postmaster.pid", 100000, false},
	{"postmaster.opts", 100000, false},
	{".DS_Store", 150000, false},
};

/* excludeDirContents, wherever. */
static const struct rule emptied[] = {
	{"pg_stat_tmp", 100000, false}, {"pg_replslot", 100000, false}, {"pg_dynshmem", 100000, false},
	{"pg_notify", 100000, false},	{"pg_serial", 100000, false},	{"pg_snapshots", 100000, false},
	{"pg_subtrans", 100000, false},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool matches(const struct rule *rules, size_t n, int server_version, struct text name)
{
	for (size_t i = 0; i < n; i++)
		if (server_version >= rules[i].since &&
		    (rules[i].prefix ? starts_with(name, rules[i].name) : is(name, rules[i].name)))
			return true;
	return false;
}

/* UNIXSOCK_PATH of src/include/libpq/pqcomm.h; "….lock" beside it is a file like others. */
static bool is_socket_name(struct text name)
{
	return starts_with(name, ".s.PGSQL.") && is_number(drop(name, strlen(".s.PGSQL.")));
}

/* What another version, before pg_upgrade, has in the same tablespace: sendTablespace takes one directory only. */
static bool is_foreign_in_tablespace(int server_version, struct text dir, struct text name)
{
	struct text major;
	uint32_t number;

	if (!is(component(&dir), "pg_tblspc") || !is_number(component(&dir)) || dir.n > 0)
		return false;
	return !is_version_dir(name, &major) || !pgr_num_u32(major.s, major.n, &number) ||
	       number != (uint32_t)(server_version / 10000);
}

/* Before 11, files of temporary relations are sent. */
static bool is_temporary_relation(int server_version, struct text dir, struct text name)
{
	struct relname r;

	return server_version >= 110000 && place_of(dir) == DATABASE && split_relname(name, &r) && is_temporary(&r);
}

/* What a run of ours left in a directory in which a server was started before it had begun, and what a backup with bad
 * pages has in place of its manifest: this run makes files of these names. */
static bool is_ours(struct text path)
{
	return is(path, PGR_OLDDIR_STATE) || is(path, PGR_OLDDIR_STATE ".tmp") || is(path, PGR_OLDDIR_CONTROL) ||
	       is(path, PGR_MANIFEST_TMP);
}

static enum pgr_exclusion judge(int server_version, struct text path, bool is_dir)
{
	struct text dir, name;

	split(path, &dir, &name);
	if (matches(left_out, COUNT(left_out), server_version, name) || is_socket_name(name) || is_ours(path) ||
	    is_foreign_in_tablespace(server_version, dir, name) || is_temporary_relation(server_version, dir, name))
		return PGR_EXCLUDE;
	if (matches(emptied, COUNT(emptied), server_version, name) || is(path, "pg_wal"))
		return is_dir ? PGR_EXCLUDE_CONTENTS : PGR_EXCLUDE;
	return PGR_INCLUDE;
}

enum pgr_exclusion pgr_exclude_entry(int server_version, const char *path, bool is_dir)
{
	struct text all = whole(path), rest = all;

	while (rest.n > 0) {
		struct text name = component(&rest);
		struct text upto = {all.s, (size_t)(name.s + name.n - all.s)};

		if (upto.n == all.n)
			return judge(server_version, all, is_dir);
		if (judge(server_version, upto, true) != PGR_INCLUDE)
			return PGR_EXCLUDE;
	}
	return PGR_INCLUDE;
}

/* ---- rules that need more than the entry ---- */

static bool may_be_unlogged(int server_version, enum place place, const struct relname *r)
{
	uint32_t number, segment;

	if (server_version < 110000 || is_temporary(r) || strcmp(r->fork, "init") == 0)
		return false;
	if (server_version < 170000)
		return place == DATABASE && old_number(r);
	return place != ELSEWHERE && new_numbers(r, &number, &segment);
}

bool pgr_exclude_unlogged(int server_version, const char *path, char init_fork[PGR_INIT_FORK_MAX])
{
	struct text dir, name;
	struct relname r;

	split(whole(path), &dir, &name);
	if (!split_relname(name, &r) || !may_be_unlogged(server_version, place_of(dir), &r))
		return false;
	memcpy(init_fork, r.number.s, r.number.n);
	memcpy(init_fork + r.number.n, "_init", sizeof("_init"));
	return true;
}

static struct text without_slashes(struct text t)
{
	while (t.n > 0 && t.s[t.n - 1] == '/')
		t.n--;
	return t;
}

bool pgr_exclude_is(const char *path, const char *server_path, const char *data_directory)
{
	struct text is_at = without_slashes(whole(server_path));

	if (server_path[0] == '/') {
		struct text top = without_slashes(whole(data_directory != NULL ? data_directory : ""));

		if (top.n == 0 || is_at.n <= top.n || memcmp(is_at.s, top.s, top.n) != 0 || is_at.s[top.n] != '/')
			return false;
		is_at = drop(is_at, top.n + 1);
	} else if (starts_with(is_at, "./")) {
		is_at = drop(is_at, 2);
	}
	return is(is_at, path);
}
