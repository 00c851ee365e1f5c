/*
 * Reading what stays here of an old copy: page checksums of the blocks that were kept, checksums for the manifest, and
 * the fsync of files that were changed in place.  In threads, while the stream still comes.
 *
 * A kept block with a wrong page checksum is bit rot of this side, which no increment would mend: its file is removed,
 * so that the next run fetches it whole, and this run fails.
 *
 * A kept block that was changed in WAL that is summarized should have come.  If it did not, that was not the server's
 * WAL: the two have different histories, whatever timelines and positions say (the server was put back to an older
 * state of its disk, say).  Then nothing here may be built upon, not even where no page tells.
 */
#ifndef PGR_BACKUP_KEPT_H
#define PGR_BACKUP_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/incremental.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_kept;
struct pgr_layout;
struct pgr_stop;
struct pgr_sys;

struct pgr_kept_opts {
	const struct pgr_sys *sys;
	const struct pgr_layout *layout;
	struct pgr_stop *stop;
	unsigned threads; /* 0: inline */
	enum pgr_digest_algo digest;
	bool pages; /* the cluster has page checksums, and they are to be looked at */
	pgr_lsn changed_from,
		changed_to; /* positions (behind the first, up to the second) that no kept page has; 0, 0 */
	bool sync;
	uint32_t page_bytes;
	uint32_t segment_blocks;
	void (*bad)(void *arg, const char *line); /* one line for each bad file; any thread; NULL */
	void *arg;
};

/* What is found out about a file; belongs to the caller and lives until pgr_kept_free. */
struct pgr_kept_result {
	uint64_t size;
	uint8_t sum[PGR_DIGEST_MAX];
	size_t sum_len;
};

/* All that `opts` points to outlives it. */
int pgr_kept_new(struct pgr_kept **out, const struct pgr_kept_opts *opts, struct pgr_err *err) PGR_MUST_USE;
/* Ends the threads; what is queued is left.  NULL is allowed. */
void pgr_kept_free(struct pgr_kept *k);

/*
 * A file (a path as the manifest writes it; copied) that is complete.  With `inc` (taken over, zeroed after) it is a
 * segment of a relation that had these blocks written: they are not looked at, the others are.  NULL: no relation, and
 * a link is followed.  Waits while many are queued.  One thread calls this.
 */
int pgr_kept_add(struct pgr_kept *k, const char *path, uint32_t segment, struct pgr_incremental *inc,
		 struct pgr_kept_result *result, struct pgr_err *err) PGR_MUST_USE;

/* Waits until all of them were read.  PGR_E_DATA: files were bad, and are gone, or the histories differ. */
int pgr_kept_finish(struct pgr_kept *k, struct pgr_err *err) PGR_MUST_USE;

/* After that: whether the histories differ. */
bool pgr_kept_is_foreign(struct pgr_kept *k);

/* Bytes read so far; any thread. */
uint64_t pgr_kept_bytes(const struct pgr_kept *k);

#endif
