/*
 * What there is to copy: the files of a data directory as a server lists them over SQL, without what BASE_BACKUP leaves
 * out.
 *
 * Not thread-safe while it is filled; afterwards anybody may read it.
 */
#ifndef PGR_BACKUP_FILELIST_H
#define PGR_BACKUP_FILELIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct pgr_list_entry {
	char *path;    /* relative to the data directory, as in the manifest: "base/5/1259",
			  "pg_tblspc/16385/PG_15_.../5/16390" */
	uint64_t size; /* of a file, when it was listed */
	int64_t mtime; /* seconds since 1970 UTC */
	bool is_dir;
	bool is_private; /* nobody but the owner may read it */
};

/* Valid when zeroed. */
struct pgr_filelist {
	struct pgr_list_entry *entries; /* sorted by path, as bytes, so that directories come before what is in them;
					   global/pg_control is not listed */
	size_t n;
	size_t cap;
	uint64_t total_bytes;
	bool has_control;   /* global/pg_control was there */
	int server_version; /* of the entries that were added */
};

void pgr_filelist_fini(struct pgr_filelist *l);

/*
 * Adds one entry as the server named it.  `path` (len bytes) is checked (pgr_path_is_safe; PGR_E_DATA otherwise) and
 * copied. What pgr_exclude_entry leaves out is left out, with everything below it.
 */
int pgr_filelist_add(struct pgr_filelist *l, int server_version, const char *path, size_t len, bool is_dir,
		     uint64_t size, int64_t mtime, struct pgr_err *err) PGR_MUST_USE;

/*
 * After the last one: sorts, and applies the rules on whole directories (relations with an init fork).  A path that was
 * added twice (a directory that changes while it is read may name an entry again) is in the list once.  PGR_E_DATA: an
 * entry whose directory was not added.
 */
int pgr_filelist_finish(struct pgr_filelist *l, struct pgr_err *err) PGR_MUST_USE;

/* Of a finished list: drops what is below the directory `dir`, which stays. */
void pgr_filelist_leave_empty(struct pgr_filelist *l, const char *dir);

/* Of a finished list: the entry of this path; NULL. */
const struct pgr_list_entry *pgr_filelist_find(const struct pgr_filelist *l, const char *path);

/* A name of the server (len bytes) for a message: what is not printable ASCII or valid UTF-8 becomes \xHH, and a long
 * one is cut. */
struct pgr_shown_path {
	char text[512];
};
struct pgr_shown_path pgr_show_path(const char *path, size_t len);

#endif
