/*
 * One run of pgr_basebackup_run: what its parts share.  Internal to backup/: basebackup.c has the steps that every seed
 * takes, stream_seed.c, lanes_seed.c and summary_seed.c those of their sources, delta_seed.c what --delta adds to them.
 */
#ifndef PGR_BACKUP_RUN_H
#define PGR_BACKUP_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "backup/basebackup.h"
#include "backup/delta_seed.h"
#include "backup/extract.h"
#include "backup/filelist.h"
#include "common/buf.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"
#include "proto/command.h"

struct pgr_archive;
struct pgr_bb_tablespace;
struct pgr_bbstream;
struct pgr_dirsink;
struct pgr_lane_sessions;
struct pgr_lanes;
struct pgr_layout;
struct pgr_lowlevel;
struct pgr_pagecheck;
struct pgr_pool;
struct pgr_source;
struct pgr_stream_check;
struct pgr_summary;
struct pgr_wal_stream;

struct pgr_run;

/*
 * Where the data comes from, as steps.  start: up to the start position and the tablespaces.  copy: everything into the
 * sink, `control`, and the manifest (as PGR_MANIFEST_TMP).  end: the end of the backup; sets end, end_tli and
 * checksum_failure; NULL: copy has.  finish: what can only be written when the WAL is there; NULL: nothing.  verify:
 * when all files are written; NULL: nothing.
 */
struct pgr_seed_source {
	int (*start)(struct pgr_run *r, struct pgr_err *err);
	int (*copy)(struct pgr_run *r, struct pgr_err *err);
	int (*end)(struct pgr_run *r, struct pgr_err *err);
	int (*finish)(struct pgr_run *r, struct pgr_err *err);
	int (*verify)(struct pgr_run *r, struct pgr_err *err);
};

extern const struct pgr_seed_source pgr_stream_seed;
extern const struct pgr_seed_source pgr_lanes_seed;
extern const struct pgr_seed_source pgr_summary_seed; /* one BASE_BACKUP, as far as possible of increments */
extern const struct pgr_seed_source pgr_tar_seed;     /* one BASE_BACKUP, kept as archives */

/* Zeroed parts are valid for the release. */
struct pgr_run {
	const struct pgr_basebackup_opts *opts;
	struct pgr_conn_params *params;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;

	const struct pgr_seed_source *source;
	char why_stream[2048]; /* why `source` is not the lanes */
	struct pgr_client *client;
	int version;
	uint32_t segment_bytes; /* of the WAL */
	bool group_access;
	bool manifest;
	struct pgr_system_id id;
	struct pgr_buf recovery_conf; /* -R's lines */

	struct pgr_layout *layout;
	bool prepared; /* the layout may have made something */
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_wal_stream *wal;
	struct pgr_buf control; /* the content of global/pg_control, held back */
	pgr_lsn start, end;
	pgr_tli start_tli, end_tli;
	bool checksum_failure;
	struct pgr_err checksum_err;

	/* the stream source */
	struct pgr_bbstream *bb;
	struct pgr_stream_check *check; /* NULL without a manifest */

	/* the summary source */
	struct pgr_summary *summary;
	uint64_t spared_bytes; /* of the server's sizes, that need not come */

	/* the lanes source */
	unsigned jobs;	/* lanes */
	uint64_t rate;	/* bytes a second; 0: not limited */
	int rate_steps; /* of opts->rate_steps, obeyed so far */
	int64_t copy_began_ms;
	struct pgr_client *sql; /* the coordinator's session, until it is `lowlevel`; NULL: none, because of */
	struct pgr_err sql_err;
	struct pgr_lowlevel *lowlevel;
	struct pgr_buf server_id; /* which server that is */
	struct pgr_lane_sessions *sessions;
	struct pgr_filelist list;
	struct pgr_pagecheck *pages;
	struct pgr_lanes *lanes;
	struct pgr_buf label;

	struct pgr_delta_seed delta;

	struct pgr_progress progress;
	int64_t progress_at_ms; /* of the last report */
};

/*
 * Opens `client` in place of one that there may be, and asks the server again who it is.  A session that has just ended
 * may take up the last place on the server for a moment: that is waited for.  PGR_E_USAGE: it is another cluster now.
 */
int pgr_run_reconnect(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* Makes or checks the directories (pgr_layout_prepare), in place of a layout that was prepared before. */
int pgr_run_prepare_layout(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/*
 * Opens the session that the lanes need first, which pgr_lanes_seed_open then looks at; nothing has gone wrong before
 * that says so.
 */
void pgr_lanes_seed_connect(struct pgr_run *r);

/*
 * Opens what the lanes need and sees whether they may be used on this server by this role: before anything was made.
 * After a failure the stream may still be.
 */
int pgr_lanes_seed_open(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/*
 * The same for the server's WAL summaries, for the directory that r->delta.dir has; PGR_E_USAGE: they cannot be relied
 * upon, the message says why.  After a failure another source may be used.  An empty directory is copied as a whole,
 * but such that a run that goes on after an interruption can build upon it.
 */
int pgr_summary_seed_open(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;
/* After that: whether this is at least as cheap as comparing everything. */
bool pgr_summary_seed_is_cheaper(const struct pgr_run *r);
/* For a dry run, in place of the source's steps: says what the summaries name. */
int pgr_summary_seed_look(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* What the sources that read one BASE_BACKUP share. */
struct pgr_base_backup_cmd pgr_stream_seed_command(const struct pgr_run *r);
enum pgr_digest_algo pgr_stream_seed_digest(const struct pgr_run *r); /* of the server's manifest */
int pgr_stream_seed_check_verify(const struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE; /* --verify-transfer */
void pgr_stream_seed_on_file(void *arg, const char *path);				     /* arg is the run */
typedef int pgr_seed_archive_fn(void *arg, const struct pgr_archive *a, struct pgr_source *source, struct pgr_err *err);
/* Receives all archives: those of tablespaces, decompressed, go to `fn`, the manifest to r->check, and with
 * `keep_manifest` into PGR_MANIFEST_TMP. */
int pgr_stream_seed_receive(struct pgr_run *r, pgr_seed_archive_fn *fn, void *arg, bool keep_manifest,
			    struct pgr_err *err) PGR_MUST_USE;
int pgr_stream_seed_end(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;
int pgr_stream_seed_verify(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;
/* For a dry run, in place of the source's steps: prepares the tablespaces and plans; compares, and fetches nothing. */
int pgr_stream_seed_look(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;
int pgr_lanes_seed_compare(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

/* Ends what a source still holds; NULLs are allowed. */
void pgr_stream_seed_release(struct pgr_run *r);
void pgr_lanes_seed_release(struct pgr_run *r);
void pgr_summary_seed_release(struct pgr_run *r);

/* Telling the tool. */
void pgr_run_info(struct pgr_run *r, const char *fmt, ...) PGR_PRINTF(2, 3); /* what -v prints */
void pgr_run_warning(struct pgr_run *r, const char *fmt, ...) PGR_PRINTF(2, 3);
void pgr_run_say(struct pgr_run *r, const char *fmt, ...) PGR_PRINTF(2, 3);   /* always */
void pgr_run_print(struct pgr_run *r, const char *fmt, ...) PGR_PRINTF(2, 3); /* what a dry run finds */
void pgr_run_report(struct pgr_run *r, bool force);			      /* progress, once a second or now */
void pgr_run_phase(struct pgr_run *r, enum pgr_phase p);

/* Bytes that become a file in the data directory, through blocks of the pool. */
struct pgr_run_file {
	struct pgr_run *run;
	struct pgr_sink_file *file;
	struct pgr_block *block;
	uint64_t size;
};
int pgr_run_file_open(struct pgr_run_file *f, struct pgr_run *r, const char *name, struct pgr_err *err) PGR_MUST_USE;
int pgr_run_file_put(struct pgr_run_file *f, const void *data, size_t len, struct pgr_err *err) PGR_MUST_USE;
/* Ends it; with `rc` other than PGR_OK it is dropped.  Returns PGR_OK or PGR_ERR. */
int pgr_run_file_end(struct pgr_run_file *f, int rc, struct pgr_err *err) PGR_MUST_USE;

#endif
