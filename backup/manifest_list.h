/* The files of a manifest that was read: gathered in any order, then sorted and found by path. */
#ifndef PGR_BACKUP_MANIFEST_LIST_H
#define PGR_BACKUP_MANIFEST_LIST_H

#include <stddef.h>

#include "backup/manifest.h"
#include "common/err.h"

struct pgr_manifest_chunk;

/* Valid when zeroed. */
struct pgr_manifest_list {
	struct pgr_manifest_file *files;
	size_t n;
	size_t cap;
	struct pgr_manifest_chunk *chunks; /* what the paths point into: they never move */
};

void pgr_manifest_list_fini(struct pgr_manifest_list *l);

/* Copies a path (shorter than PATH_MAX), for as long as the list lives; NULL: out of memory. */
const char *pgr_manifest_list_keep(struct pgr_manifest_list *l, const char *path, size_t len);

/* Adds a file, whose path was kept. */
int pgr_manifest_list_add(struct pgr_manifest_list *l, const struct pgr_manifest_file *file,
			  struct pgr_err *err) PGR_MUST_USE;

/* Sorts by path.  PGR_E_DATA: one is there twice. */
int pgr_manifest_list_sort(struct pgr_manifest_list *l, struct pgr_err *err) PGR_MUST_USE;

/* After sorting; NULL when it is not in it. */
const struct pgr_manifest_file *pgr_manifest_list_find(const struct pgr_manifest_list *l, const char *path);

#endif
