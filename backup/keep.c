#include "backup/keep.h"

#include <fnmatch.h>
#include <limits.h>
#include <string.h>

/* Of the data directory, whatever is below: what the server's recovery or we ourselves rely on. */
static const char *const servers[] = {
	"base",		  "global",	     "pg_tblspc",	"pg_wal",
	"pg_xlog",	  "pg_xact",	     "pg_clog",		"pg_multixact",
	"pg_commit_ts",	  "pg_subtrans",     "pg_twophase",	"pg_logical",
	"pg_replslot",	  "pg_notify",	     "pg_serial",	"pg_snapshots",
	"pg_dynshmem",	  "pg_stat",	     "pg_stat_tmp",	"PG_VERSION",
	"backup_label",	  "tablespace_map",  "backup_manifest", "backup_manifest.tmp",
	"postmaster.pid", "postmaster.opts", "pgr_seed.state",
};

static const char *const defaults[] = {"postgresql.conf", "pg_hba.conf", "pg_ident.conf"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_servers(const char *path)
{
	size_t n = strcspn(path, "/");

	for (size_t i = 0; i < COUNT(servers); i++)
		if (strlen(servers[i]) == n && memcmp(servers[i], path, n) == 0)
			return true;
	return false;
}

/* A path without "./" before it and slashes behind; false: it does not fit. */
static bool tidy(char out[PATH_MAX], const char *pattern)
{
	size_t n;

	while (pattern[0] == '.' && pattern[1] == '/')
		pattern += 2 + strspn(pattern + 2, "/");
	n = strlen(pattern);
	while (n > 0 && pattern[n - 1] == '/')
		n--;
	if (n >= PATH_MAX)
		return false;
	memcpy(out, pattern, n);
	out[n] = '\0';
	return true;
}

/* The path itself, or a directory above it. */
static bool matches(const char *pattern, const char *path)
{
	char tidied[PATH_MAX], upto[PATH_MAX];
	size_t len = strlen(path);

	if (len >= sizeof(upto) || !tidy(tidied, pattern))
		return false;
	for (size_t n = strcspn(path, "/");; n += 1 + strcspn(path + n + 1, "/")) {
		memcpy(upto, path, n);
		upto[n] = '\0';
		if (fnmatch(tidied, upto, FNM_PATHNAME) == 0)
			return true;
		if (n >= len)
			return false;
	}
}

bool pgr_keep_matches(const struct pgr_keep *k, const char *path)
{
	if (is_servers(path))
		return false;
	for (size_t i = 0; i < COUNT(defaults) && !k->no_defaults; i++)
		if (strcmp(path, defaults[i]) == 0)
			return true;
	for (size_t i = 0; i < k->n; i++)
		if (matches(k->patterns[i], path))
			return true;
	return false;
}

static bool has_dots(const char *path)
{
	for (const char *p = path; *p != '\0'; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");

		if ((n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return true;
		p += n;
	}
	return false;
}

int pgr_keep_check(const char *pattern, struct pgr_err *err)
{
	char first[PATH_MAX];

	if (!tidy(first, pattern) || first[0] == '\0' || first[0] == '/' || has_dots(first))
		return pgr_err_set(err, PGR_E_USAGE,
				   "invalid --keep pattern \"%s\": it must name files below the data directory", pattern);
	first[strcspn(first, "/")] = '\0';
	for (size_t i = 0; i < COUNT(servers); i++)
		if (fnmatch(first, servers[i], FNM_PATHNAME) == 0)
			return pgr_err_set(err, PGR_E_USAGE,
					   "\"%s\" cannot be kept: it would keep \"%s\", which must be the server's",
					   pattern, servers[i]);
	return PGR_OK;
}
