/*
 * Changing the archive of the data directory as it passes: what -R does to it, and room for more members at its end.
 *
 * Source: src/bin/pg_basebackup/astreamer_inject.c.
 */
#ifndef PGR_BACKUP_TAR_INJECT_H
#define PGR_BACKUP_TAR_INJECT_H

#include <stdbool.h>
#include <sys/types.h>

#include "backup/source.h"
#include "common/buf.h"
#include "common/err.h"

struct pgr_tar_inject;
struct pgr_tar_out;

struct pgr_tar_inject_opts {
	struct pgr_source *from;    /* the archive, not compressed */
	const char *archive;	    /* its name in messages */
	bool terminated;	    /* as for pgr_tar_reader_init */
	const struct pgr_buf *conf; /* -R's lines; NULL: nothing of the archive is changed */
	bool recovery_signal;	    /* from 12: standby.signal and postgresql.auto.conf; before: recovery.conf */
};

/* Everything in `opts` outlives the injector, which has room for a postgresql.auto.conf of 16 MiB. */
int pgr_tar_inject_new(struct pgr_tar_inject **out, const struct pgr_tar_inject_opts *opts,
		       struct pgr_err *err) PGR_MUST_USE;
void pgr_tar_inject_free(struct pgr_tar_inject *z);

/*
 * The archive without the blocks of zeros at its end.  With `conf`: without the server's own standby.signal and
 * recovery.conf, and with the lines appended to postgresql.auto.conf (behind a newline where its last line has none).
 * PGR_E_DATA for everything that a tar reader refuses.
 */
struct pgr_source *pgr_tar_inject_source(struct pgr_tar_inject *z);

/* With `conf`, after the source's end: the files that are still missing, with `mode`. */
int pgr_tar_inject_rest(struct pgr_tar_inject *z, struct pgr_tar_out *out, mode_t mode,
			struct pgr_err *err) PGR_MUST_USE;

#endif
