/*
 * A tar archive of the server into directories: members -> directories, links and files of the dirsink.
 */
#ifndef PGR_BACKUP_EXTRACT_H
#define PGR_BACKUP_EXTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

struct pgr_archive;
struct pgr_dirsink;
struct pgr_layout;
struct pgr_pool;
struct pgr_source;
struct pgr_stream_check;
struct pgr_sys;

struct pgr_keep;

struct pgr_extract {
	const struct pgr_sys *sys;
	struct pgr_layout *layout;
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_stream_check *check; /* is told of every file; NULL */
	bool replace_recovery;		/* -R: the server's standby.signal and recovery.conf are left out */
	/*
	 * Not NULL: into a directory that was in use and has been emptied.  What is left there, directories and links
	 * that are right, is tolerated; files that are kept win over the server's.
	 */
	const struct pgr_keep *keep;
	void (*on_file)(void *arg, const char *path); /* each member's path below its root, for -P -v; NULL */
	void *arg;
	/* results */
	struct pgr_buf control; /* the content of global/pg_control, held back: written last (pgr_finish) */
	bool have_backup_label; /* a backup_label came */
	size_t skipped_links;	/* links of tablespaces made after the backup began: left out, WAL replay makes them */
};

void pgr_extract_fini(struct pgr_extract *x);

/*
 * Extracts one archive from `source` (a->source, or what decompresses it).  Directories of PostgreSQL that may exist
 * already (the WAL directory, archive_status, summaries, pg_tblspc, in-place tablespaces) are tolerated, everything
 * else must be new. Links are made only in pg_tblspc, only to the targets of announced tablespaces.
 */
int pgr_extract_archive(struct pgr_extract *x, const struct pgr_archive *a, struct pgr_source *source,
			struct pgr_err *err) PGR_MUST_USE;

#endif
