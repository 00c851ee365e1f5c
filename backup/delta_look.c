#include "backup/delta_look.h"

#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_doubt.h"
#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/lowlevel.h"
#include "backup/olddir.h"
#include "backup/run.h"
#include "proto/client.h"

/* ---- whether it is apart from the server's own ---- */

/* Not every role may know it. */
static void ask_server_dir(struct pgr_run *r)
{
	struct pgr_err why;

	if (pgr_client_show(r->client, "data_directory", &r->delta.server_dir, &why) != PGR_OK)
		r->delta.server_dir.len = 0;
}

/* Without an SQL session, and without making a file to be looked for, there is no better way to find out. */
static int check_apart_by_name(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	const char **locations = calloc(n + 2, sizeof(*locations));
	bool local = r->delta.server_is_local;
	size_t k = 0;
	int rc;

	if (locations == NULL)
		return pgr_err_nomem(err);
	if (r->delta.server_dir.len > 0 && pgr_buf_str(&r->delta.server_dir) != NULL)
		locations[k++] = (const char *)r->delta.server_dir.data;
	for (size_t i = 0; i < n; i++)
		if (list[i].oid != 0 && list[i].location[0] == '/')
			locations[k++] = list[i].location;
	rc = pgr_olddir_check_apart_by_name(r->delta.dir, r->layout, local, locations, err);
	free(locations);
	return rc;
}

static int check_apart(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (r->lowlevel != NULL && !r->opts->dry_run)
		return pgr_olddir_check_apart(r->delta.dir, r->layout, pgr_lowlevel_client(r->lowlevel), err);
	return check_apart_by_name(r, list, n, err);
}

int pgr_delta_look_apart(struct pgr_run *r, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	r->delta.server_is_local = pgr_client_transport(r->client)->server_is_local;
	if (r->lowlevel == NULL || r->opts->dry_run)
		ask_server_dir(r);
	return check_apart(r, NULL, 0, err);
}

/* ---- what is here, and what is to be done with it ---- */

int pgr_delta_look_scan(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (check_apart(r, list, n, err) != PGR_OK ||
	    pgr_localtree_scan(&r->delta.tree, r->sys, r->layout, err) != PGR_OK)
		return PGR_ERR;
	return pgr_olddir_check_idle(r->delta.dir, r->layout, &r->delta.tree, &r->delta.keep, err);
}

/* A finished directory has nothing of that kind. */
static int doubt_kept(struct pgr_run *r, const struct pgr_filelist *list, struct pgr_err *err)
{
	const struct pgr_delta_doubt doubt = {
		.sys = r->sys,
		.layout = r->layout,
		.tree = &r->delta.tree,
		.list = list,
		.keep = &r->delta.keep,
	};

	return pgr_delta_seed_goes_on(r) ? pgr_delta_doubt_kept(&doubt, &r->delta.plan, err) : PGR_OK;
}

int pgr_delta_look_compare(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	if (pgr_delta_look_scan(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_delta_plan_make(&r->delta.plan, &r->list, &r->delta.tree, r->layout, &r->delta.keep, err) != PGR_OK)
		return PGR_ERR;
	return doubt_kept(r, &r->list, err);
}

/*
 * What is in a tablespace's directory is this cluster's only below its version directory, whose name not even the old
 * copy may tell: all of this major version count.
 */
static int list_version_dirs(struct pgr_run *r, struct pgr_filelist *out, struct pgr_err *err)
{
	const struct pgr_localtree *t = &r->delta.tree;
	const char *rest;

	if (pgr_filelist_add(out, r->version, "pg_tblspc", strlen("pg_tblspc"), true, 0, 0, err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < t->n; i++) {
		const char *path = t->entries[i].path;

		if (pgr_layout_location(r->layout, path, &rest) == NULL || strchr(rest, '/') != NULL)
			continue;
		if (rest[0] != '\0' && t->entries[i].type != PGR_LOCAL_DIR)
			continue;
		if (pgr_filelist_add(out, r->version, path, strlen(path), true, 0, 0, err) != PGR_OK)
			return PGR_ERR;
	}
	return pgr_filelist_finish(out, err);
}

int pgr_delta_look_full(struct pgr_run *r, const struct pgr_bb_tablespace *list, size_t n, struct pgr_err *err)
{
	struct pgr_delta_seed *d = &r->delta;
	struct pgr_filelist stays = {0};
	int rc;

	if (!pgr_delta_seed_is_on(r))
		return PGR_OK;
	if (pgr_delta_look_scan(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	rc = list_version_dirs(r, &stays, err);
	if (rc == PGR_OK)
		rc = pgr_delta_plan_make(&d->plan, &stays, &d->tree, r->layout, &r->delta.keep, err);
	pgr_filelist_fini(&stays);
	return rc == PGR_OK ? doubt_kept(r, NULL, err) : PGR_ERR;
}
