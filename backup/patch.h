/*
 * The archives of an incremental backup into a directory that holds an old copy: files that come whole replace the old
 * ones when they are complete, increments are applied to the old ones in place.
 *
 * A file that comes whole is written under a temporary name (its own and PGR_PATCH_SUFFIX) and renamed when it is
 * complete and synced, so that what stands under its name is whole whenever this is interrupted, and an increment can
 * be applied to it later.  backup_label and global/pg_control are held back.  It works without increments as well.
 */
#ifndef PGR_BACKUP_PATCH_H
#define PGR_BACKUP_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/arrivals.h"
#include "common/buf.h"
#include "common/err.h"

struct pgr_archive;
struct pgr_dirsink;
struct pgr_keep;
struct pgr_kept;
struct pgr_layout;
struct pgr_limits;
struct pgr_localtree;
struct pgr_pool;
struct pgr_source;
struct pgr_stop;
struct pgr_stream_check;
struct pgr_sys;

#define PGR_PATCH_SUFFIX ".pgrtmp"

struct pgr_patch {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_layout *layout;
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_stream_check *check; /* NULL: no manifest is made */
	struct pgr_kept *kept;
	const struct pgr_localtree *tree; /* what was here before */
	const struct pgr_limits *limits;  /* up to the start of the backup; NULL: no increments are expected */
	const struct pgr_keep *keep;
	uint32_t page_bytes;
	uint32_t segment_blocks;
	bool replace_recovery; /* -R: the server's standby.signal is left out */
	void (*on_file)(void *arg, const char *path);
	void *arg;
	/* results */
	struct pgr_arrivals came;
	struct pgr_buf control; /* global/pg_control */
	struct pgr_buf label;	/* backup_label, as it came */
	int64_t control_mtime, label_mtime;
	size_t skipped_links;
	size_t patched, whole, left; /* files */
	uint64_t saved_bytes;	     /* of patched and left files, that did not come */
};

/* After the sink and `kept` were freed: they write into it. */
void pgr_patch_fini(struct pgr_patch *p);

/* One archive, as pgr_extract_archive.  Directories may exist; what stands in the way of a file or directory goes. */
int pgr_patch_archive(struct pgr_patch *p, const struct pgr_archive *a, struct pgr_source *source,
		      struct pgr_err *err) PGR_MUST_USE;

#endif
