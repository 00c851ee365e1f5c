/*
 * UPLOAD_MANIFEST: telling the server what is here, so that it sends increments.
 *
 * The server looks at paths alone: what is in the manifest may come as an increment, what is not comes whole.  So only
 * files are in it whose old content may be built upon.
 *
 * Source: PostgreSQL documentation, "Streaming Replication Protocol", UPLOAD_MANIFEST; src/backend/replication/
 * walsender.c (UploadManifest), src/backend/backup/basebackup_incremental.c.
 */
#ifndef PGR_BACKUP_UPLOAD_H
#define PGR_BACKUP_UPLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_client;
struct pgr_limits;
struct pgr_local_entry;
struct pgr_localtree;

struct pgr_upload {
	const char *system_identifier;
	const struct pgr_localtree *tree;
	const struct pgr_limits *limits; /* so far as they are known; NULL */
	uint32_t page_bytes;
	uint32_t segment_blocks;
	pgr_tli tli;  /* of `redo` in the server's history */
	pgr_lsn redo; /* everything before it is in these files */
};

/*
 * Whether the file may come as an increment: the main fork of a permanent relation, of whole pages and not empty.  Not:
 * - other forks: the free space map never does, init forks are small, and changes of visibility maps were missing in
 * the summaries of servers below 17.11 and 18.6, which stay when the server is updated
 * - a file with several names: it would change under the others, too
 * - a relation whose limits say that it comes whole anyway, or that the order of the summaries matters (walsummary.h)
 */
bool pgr_upload_may_patch(const struct pgr_upload *u, const struct pgr_local_entry *e);

/* The files of which this is true, and their bytes. */
void pgr_upload_count(const struct pgr_upload *u, size_t *files, uint64_t *bytes);

/* Sends the manifest and waits for the server's word.  `c` is a replication connection that is ready. */
int pgr_upload_manifest(const struct pgr_upload *u, struct pgr_client *c, struct pgr_err *err) PGR_MUST_USE;

#endif
