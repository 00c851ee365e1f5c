/*
 * --delta: files that stay as they are here (--keep, the configuration), and their place in the manifest.  Internal to
 * backup/.
 */
#ifndef PGR_BACKUP_DELTA_KEPT_H
#define PGR_BACKUP_DELTA_KEPT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct pgr_local_entry;
struct pgr_manifest_writer;
struct pgr_run;

struct pgr_delta_amount {
	uint64_t files, bytes;
};

/* Whether this entry of r->delta.tree is such a file. */
bool pgr_delta_kept_has(const struct pgr_run *r, const struct pgr_local_entry *e);

/* All of them. */
struct pgr_delta_amount pgr_delta_kept_amount(const struct pgr_run *r);

/* Adds those that are not on the server to a manifest. */
int pgr_delta_kept_add(struct pgr_run *r, struct pgr_manifest_writer *w, enum pgr_digest_algo algo,
		       struct pgr_err *err) PGR_MUST_USE;

/* Of a full copy: in the manifest that the server sent (PGR_MANIFEST_TMP), they become what they are here.  In another
 * run it does nothing. */
int pgr_delta_kept_edit_manifest(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

#endif
