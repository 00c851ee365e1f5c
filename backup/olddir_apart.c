#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "backup/layout.h"
#include "backup/olddir_in.h"
#include "backup/sql.h"
#include "common/buf.h"
#include "common/sys.h"
#include "proto/client.h"

/* "pgr_probe.", 16 digits at random, "." and a number. */
#define PROBE	   "pgr_probe."
#define PROBE_MOST 48

/* One of our directories. */
struct probe {
	int fd;			  /* -1: not open, or nothing to ask about */
	char path[PATH_MAX + 32]; /* for messages */
	char name[PROBE_MOST];	  /* what was made in it; "": nothing */
	bool is_data;
};

struct probes {
	const struct pgr_sys *sys;
	struct probe *p;
	size_t n;
};

/* ---- our directories ---- */

/* Nothing was written through them. */
static void probes_fini(struct probes *ps)
{
	for (size_t i = 0; i < ps->n; i++)
		if (ps->p[i].fd >= 0)
			(void)ps->sys->close(ps->sys, ps->p[i].fd);
	free(ps->p);
	*ps = (struct probes){0};
}

/* A directory of the layout, by a descriptor of our own.  What is not there is nobody's. */
static int add_root(struct probes *ps, int root, const char *below, struct pgr_err *err)
{
	struct probe *p = &ps->p[ps->n];

	if (root < 0) /* a dry run opens what is there */
		return PGR_OK;
	p->fd = ps->sys->openat(ps->sys, root, below, PGR_OLDDIR_FLAGS, 0);
	if (p->fd >= 0) {
		ps->n++;
		return PGR_OK;
	}
	if (errno == ENOENT || errno == ENOTDIR)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not open directory \"%s\"", p->path);
}

/* Through the link that pg_wal may be: what it leads to is what is going to be changed. */
static int add_wal(struct probes *ps, const struct pgr_layout *l, struct pgr_err *err)
{
	const char *rest;
	int root;

	snprintf(ps->p[ps->n].path, sizeof(ps->p[ps->n].path), "%s/%s", pgr_layout_data_dir(l), pgr_layout_wal_name(l));
	pgr_layout_resolve(l, pgr_layout_wal_name(l), &root, &rest);
	return add_root(ps, root, rest[0] != '\0' ? rest : ".", err);
}

static int add_tablespace(struct probes *ps, const struct pgr_layout *l, uint32_t oid, struct pgr_err *err)
{
	const char *target = pgr_layout_tablespace_target(l, oid);

	if (target == NULL) /* in place: below the data directory */
		return PGR_OK;
	snprintf(ps->p[ps->n].path, sizeof(ps->p[ps->n].path), "%s", target);
	return add_root(ps, pgr_layout_root(l, oid), ".", err);
}

static int add_roots(struct probes *ps, const struct pgr_sys *sys, const struct pgr_layout *l, struct pgr_err *err)
{
	size_t spaces = pgr_layout_tablespaces(l);

	ps->sys = sys;
	ps->p = calloc(spaces + 2, sizeof(*ps->p));
	if (ps->p == NULL)
		return pgr_err_nomem(err);
	snprintf(ps->p[0].path, sizeof(ps->p[0].path), "%s", pgr_layout_data_dir(l));
	ps->p[0].is_data = pgr_layout_root(l, 0) >= 0;
	if (add_root(ps, pgr_layout_root(l, 0), ".", err) != PGR_OK || add_wal(ps, l, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < spaces; i++)
		if (add_tablespace(ps, l, pgr_layout_tablespace_oid(l, i), err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

static int is_servers(const struct probe *p, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" is the server's own", p->path);
	return pgr_err_detail(err, "A server cannot be copied onto itself.");
}

/* ---- files with a random name ---- */

static int remove_probe(const struct probes *ps, const struct probe *p, int dirfd, const char *name,
			struct pgr_err *err)
{
	if (ps->sys->unlinkat(ps->sys, dirfd, name, 0) == 0 || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not remove file \"%s/%s\"", p->path, name);
}

/* Whether anything lies there.  What a run that was killed just then has left is removed. */
static int scan(const struct probes *ps, const struct probe *p, DIR *dir, bool *empty, struct pgr_err *err)
{
	*empty = true;
	for (;;) {
		struct dirent *de = ps->sys->readdir(ps->sys, dir);

		if (de == NULL && errno != 0)
			return pgr_err_sys(err, errno, "could not read directory \"%s\"", p->path);
		if (de == NULL)
			return PGR_OK;
		if (strncmp(de->d_name, PROBE, strlen(PROBE)) == 0) {
			if (remove_probe(ps, p, p->fd, de->d_name, err) != PGR_OK)
				return PGR_ERR;
		} else if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0) {
			*empty = false;
		}
	}
}

static int look_into(const struct probes *ps, const struct probe *p, bool *empty, struct pgr_err *err)
{
	int fd = ps->sys->openat(ps->sys, p->fd, ".", PGR_OLDDIR_FLAGS, 0);
	DIR *dir = fd >= 0 ? ps->sys->fdopendir(ps->sys, fd) : NULL;
	int rc;

	if (dir == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", p->path);
		if (fd >= 0)
			(void)ps->sys->close(ps->sys, fd);
		return PGR_ERR;
	}
	rc = scan(ps, p, dir, empty, err);
	if (ps->sys->closedir(ps->sys, dir) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", p->path);
	return rc;
}

/* A directory of a server is never empty, so one that is needs no question, and nothing of ours can be left in it. */
static int make_probe(const struct probes *ps, struct probe *p, uint64_t random, size_t number, struct pgr_err *err)
{
	bool empty;
	int fd;

	if (look_into(ps, p, &empty, err) != PGR_OK)
		return PGR_ERR;
	if (empty)
		return PGR_OK;
	snprintf(p->name, sizeof(p->name), PROBE "%016" PRIx64 ".%zu", random, number);
	fd = ps->sys->openat(ps->sys, p->fd, p->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		pgr_err_sys(err, errno, "could not create file \"%s/%s\"", p->path, p->name);
		p->name[0] = '\0';
		return PGR_ERR;
	}
	if (ps->sys->close(ps->sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not close file \"%s/%s\"", p->path, p->name);
	return PGR_OK;
}

/* An empty data directory must be found so again after a kill, though a link pg_wal may have been made in it by now. */
static int make_probes(struct probes *ps, bool in_data, struct pgr_err *err)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return pgr_err_sys(err, errno, "could not get random numbers");
	for (size_t i = 0; i < ps->n; i++)
		if ((in_data || !ps->p[i].is_data) && make_probe(ps, &ps->p[i], random, i, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* All of them, whatever happens; `rc` and *err are those of what was done before, and stay when that failed. */
static int remove_probes(const struct probes *ps, int rc, struct pgr_err *err)
{
	for (size_t i = 0; i < ps->n; i++) {
		const struct probe *p = &ps->p[i];
		struct pgr_err e;

		if (p->name[0] == '\0' || remove_probe(ps, p, p->fd, p->name, &e) == PGR_OK || rc != PGR_OK)
			continue;
		*err = e;
		rc = PGR_ERR;
	}
	return rc;
}

/* ---- the question ---- */

/* pg_stat_file forgives a missing file, but not one that lies in a file. */
#define SQL_BEFORE "SELECT n FROM unnest('{"
#define SQL_BEHIND                                                                                                     \
	"}'::text[]) n, (SELECT '' UNION ALL SELECT 'pg_wal/' UNION ALL SELECT 'pg_tblspc/' || o || '/'"               \
	" FROM pg_ls_dir('pg_tblspc', true, false) o WHERE o ~ '^[1-9][0-9]*$') d(d)"                                  \
	" WHERE (pg_stat_file(d || n, true)).size IS NOT NULL"

static int put_names(const struct probes *ps, struct pgr_buf *names, struct pgr_err *err)
{
	for (size_t i = 0; i < ps->n; i++)
		if (ps->p[i].name[0] != '\0' &&
		    pgr_buf_printf(names, err, "%s%s", names->len > 0 ? "," : "", ps->p[i].name) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

static int judge_row(const struct probes *ps, const struct pgr_result *r, struct pgr_err *err)
{
	size_t len;
	const char *name = pgr_result_cell(r, 0, 0, &len);

	for (size_t i = 0; name != NULL && len > 0 && i < ps->n; i++)
		if (len == strlen(ps->p[i].name) && memcmp(name, ps->p[i].name, len) == 0)
			return is_servers(&ps->p[i], err);
	return pgr_err_set(err, PGR_E_PROTOCOL, "the server sees a file that nobody asked for");
}

static int ask(const struct probes *ps, struct pgr_client *sql, struct pgr_err *err)
{
	struct pgr_result *r = NULL;
	struct pgr_buf names = {0};
	int rc = put_names(ps, &names, err);

	if (rc == PGR_OK && names.len > 0)
		rc = pgr_sql_query(sql, &r, err, SQL_BEFORE "%.*s" SQL_BEHIND, (int)names.len,
				   (const char *)names.data);
	if (rc == PGR_OK && r != NULL && pgr_result_rows(r) > 0)
		rc = judge_row(ps, r, err);
	pgr_result_free(r);
	pgr_buf_fini(&names);
	return rc;
}

int pgr_olddir_check_apart(const struct pgr_olddir *d, struct pgr_layout *layout, struct pgr_client *sql,
			   struct pgr_err *err)
{
	struct probes ps = {0};
	int rc = add_roots(&ps, d->sys, layout, err);

	if (rc == PGR_OK)
		rc = make_probes(&ps, d->kind != PGR_OLDDIR_EMPTY, err);
	if (rc == PGR_OK)
		rc = ask(&ps, sql, err);
	rc = remove_probes(&ps, rc, err);
	probes_fini(&ps);
	return rc;
}

/* ---- by name ---- */

static int compare(const struct probes *ps, const struct probe *p, const char *path, struct pgr_err *err)
{
	struct stat ours, theirs;

	if (ps->sys->fstat(ps->sys, p->fd, &ours) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", p->path);
	/* what we may not see we cannot change either */
	if (ps->sys->fstatat(ps->sys, AT_FDCWD, path, &theirs, 0) != 0)
		return PGR_OK;
	return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino ? is_servers(p, err) : PGR_OK;
}

static int compare_all(const struct probes *ps, const char *location, struct pgr_err *err)
{
	char wal[PATH_MAX + 8];

	snprintf(wal, sizeof(wal), "%s/pg_wal", location);
	for (size_t i = 0; i < ps->n; i++)
		if (compare(ps, &ps->p[i], location, err) != PGR_OK || compare(ps, &ps->p[i], wal, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

int pgr_olddir_check_apart_by_name(const struct pgr_olddir *d, const struct pgr_layout *layout, bool server_is_local,
				   const char *const *locations, struct pgr_err *err)
{
	struct probes ps = {0};
	int rc;

	if (!server_is_local)
		return PGR_OK;
	rc = add_roots(&ps, d->sys, layout, err);
	for (size_t i = 0; rc == PGR_OK && locations[i] != NULL; i++)
		rc = compare_all(&ps, locations[i], err);
	probes_fini(&ps);
	return rc;
}
