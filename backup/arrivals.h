/*
 * What came of a backup: its files and directories, with sizes and checksums of the files as they are here, out of
 * which the manifest is made and what is to go away is found.
 *
 * Entries do not move.  Not thread-safe, but `got` of each entry is its writer's until that is done.
 */
#ifndef PGR_BACKUP_ARRIVALS_H
#define PGR_BACKUP_ARRIVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/kept.h"
#include "common/digest.h"
#include "common/err.h"

struct pgr_filelist;
struct pgr_manifest_writer;
struct pgr_stream_entry;

struct pgr_arrival {
	struct pgr_arrival *next;
	bool is_dir;
	bool unlisted; /* not in a manifest */
	int64_t mtime;
	struct pgr_kept_result got;
	struct pgr_stream_entry *check; /* while it comes; NULL: nobody compares it */
	void *owner;			/* whoever waits for it */
	char path[];			/* as the manifest writes it */
};

/* Valid when zeroed. */
struct pgr_arrivals {
	struct pgr_arrival *first, *last;
	size_t n;
};

void pgr_arrivals_fini(struct pgr_arrivals *a);

int pgr_arrivals_add(struct pgr_arrivals *a, const char *path, bool is_dir, uint64_t size, int64_t mtime,
		     struct pgr_arrival **out, struct pgr_err *err) PGR_MUST_USE;

/* Puts all of them into a list, which is zeroed, and finishes it: what BASE_BACKUP would not send is not in it. */
int pgr_arrivals_list(const struct pgr_arrivals *a, int server_version, struct pgr_filelist *out,
		      struct pgr_err *err) PGR_MUST_USE;

/* Adds the files to a manifest. */
int pgr_arrivals_manifest(const struct pgr_arrivals *a, struct pgr_manifest_writer *w, enum pgr_digest_algo algo,
			  struct pgr_err *err) PGR_MUST_USE;

#endif
