/*
 * Where the user wants tablespaces to go: -T/--tablespace-mapping.
 *
 * Source: PostgreSQL documentation, pg_basebackup, --tablespace-mapping.
 */
#ifndef PGR_BACKUP_TBLSPC_MAP_H
#define PGR_BACKUP_TBLSPC_MAP_H

#include "common/err.h"

/* One -T OLD=NEW: both canonical absolute paths. */
struct pgr_tblspc_map {
	char *old_dir;
	char *new_dir;
	struct pgr_tblspc_map *next;
};

/* Parses the argument of -T and appends it to *list.  Messages are pg_basebackup's (PGR_E_USAGE). */
int pgr_tblspc_map_add(struct pgr_tblspc_map **list, const char *arg, struct pgr_err *err) PGR_MUST_USE;
void pgr_tblspc_map_free(struct pgr_tblspc_map *list);

/* Appends a copy of the list `from` (may be NULL) to *out; after a failure *out has a part of it. */
int pgr_tblspc_map_copy(struct pgr_tblspc_map **out, const struct pgr_tblspc_map *from,
			struct pgr_err *err) PGR_MUST_USE;

/* The new directory of the first entry whose old one is exactly `old_dir`; NULL. */
const char *pgr_tblspc_map_find(const struct pgr_tblspc_map *list, const char *old_dir);

#endif
