/*
 * A data directory that is to be made over (--delta): what it holds, whether it may be touched, and what keeps it from
 * starting while it is under work.
 *
 * While a run is under way the directory has PGR_OLDDIR_STATE and no global/pg_control; the one that it had lies beside
 * as PGR_OLDDIR_CONTROL.  When everything else is done that goes, the new pg_control is written, the manifest gets its
 * name, and then the state goes.
 */
#ifndef PGR_BACKUP_OLDDIR_H
#define PGR_BACKUP_OLDDIR_H

#include <stdbool.h>
#include <stdint.h>

#include "backup/controlfile.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_client;
struct pgr_keep;
struct pgr_layout;
struct pgr_localtree;
struct pgr_olddir;
struct pgr_sys;

#define PGR_OLDDIR_CONTROL "global/pg_control.pgr"
#define PGR_OLDDIR_STATE   "pgr_seed.state"

enum pgr_olddir_kind {
	PGR_OLDDIR_EMPTY,      /* missing, or nothing in it */
	PGR_OLDDIR_COPY,       /* a data directory with a pg_control */
	PGR_OLDDIR_UNFINISHED, /* what a run like this one left */
	PGR_OLDDIR_BARE,       /* a data directory by its PG_VERSION, global/ and base/, without pg_control */
};

/* What a run writes down of itself, for the one that goes on. */
struct pgr_olddir_state {
	char system_identifier[32];
	int major;     /* of the server: 15 */
	pgr_lsn start; /* where the first run that found the directory empty began, or the backup_label that the first
			  run found in it; PGR_LSN_INVALID: neither */
	pgr_tli tli;   /* of that */
	pgr_tli server_tli; /* timeline of the server that was copied from; 0: not known, or several */
	bool whole;	/* what stands under its final name is whole, or was so before the first run: no run left a file
			   there half written */
	bool fresh;	/* the first run found nothing: whatever lies here came from the server, by halves perhaps */
	uint64_t inode; /* of the data directory, by the take-over: the state is of no other one, copied from there */
};

/*
 * Looks at `path` (it may be missing), changes nothing.  An existing directory stays locked (flock) until it is freed:
 * two runs do not meet in it.  What a run made before its take-over and then was killed does not make it "not empty":
 * an empty pg_wal, or a link to such a one, empty tablespaces in place.  The refusals, each PGR_E_USAGE and naming the
 * directory:
 * - another pgr-basebackup works in it
 * - a server runs in it: postmaster.pid names a live process (also one that we may not signal), or a shared memory
 *   segment to which processes of an ended one are still attached, or does not tell
 * - it is not empty and no data directory; it is no directory
 * - pg_control is damaged, and so nothing tells whose cluster it is (but for the state, when that is there)
 * - the state cannot be read, or there are two different pg_controls
 */
int pgr_olddir_open(struct pgr_olddir **out, const struct pgr_sys *sys, const char *path,
		    struct pgr_err *err) PGR_MUST_USE;
/* Unlocks; removes nothing.  NULL is allowed. */
void pgr_olddir_free(struct pgr_olddir *d);

enum pgr_olddir_kind pgr_olddir_kind(const struct pgr_olddir *d);
/* Its pg_control, or the one that was set aside; NULL: there is none that can be read. */
const struct pgr_controlfile *pgr_olddir_control(const struct pgr_olddir *d);
/* What the last run wrote down; NULL but for PGR_OLDDIR_UNFINISHED.  (Where the file is gone: what pg_control and
 * PG_VERSION tell, an empty system identifier and major 0 where they do not.) */
const struct pgr_olddir_state *pgr_olddir_state(const struct pgr_olddir *d);

/*
 * From where on changes in the WAL may be missing in these files, everything before it being in them: the
 * backup_label's start where there is one, else pg_control's redo; of PGR_OLDDIR_UNFINISHED the state's start, else the
 * redo of what was set aside.  PGR_LSN_INVALID: that cannot be said (PGR_OLDDIR_EMPTY, PGR_OLDDIR_BARE, a backup_label
 * that makes no sense or has neither a backup_manifest nor the state of its run beside it, files that may be half
 * written), and only comparing or copying everything helps.
 */
pgr_lsn pgr_olddir_base(const struct pgr_olddir *d, pgr_tli *tli);

/* Whether that is where a backup began, and no server has started from these files since. */
bool pgr_olddir_is_backup(const struct pgr_olddir *d);

/* Of PGR_OLDDIR_COPY: whether a run has ended when all but its last steps was done, and nothing was started in it
 * since. */
bool pgr_olddir_is_settled(const struct pgr_olddir *d);

/*
 * Whether it is this server's cluster.  PGR_E_USAGE: another system identifier (pg_control's, the state's), another
 * major version (PG_VERSION, the state's).
 */
int pgr_olddir_check_server(const struct pgr_olddir *d, const char *system_identifier, int server_version,
			    struct pgr_err *err) PGR_MUST_USE;

/* The same for the server's block_size in bytes and segment_size in blocks (0: not known), where pg_control tells. */
int pgr_olddir_check_sizes(const struct pgr_olddir *d, uint32_t block_bytes, uint32_t segment_blocks,
			   struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether none of the layout's directories (data, WAL, tablespaces) is one of the server's own: a file with a random
 * name is made in each that is not empty (a server's never are), the server is asked over SQL whether it sees it
 * (pg_stat_file, below its data directory, pg_wal and pg_tblspc/<oid>), and removed again.  PGR_E_USAGE: it does.  Call
 * it after pgr_layout_prepare and again after pgr_layout_prepare_tablespaces.
 */
int pgr_olddir_check_apart(const struct pgr_olddir *d, struct pgr_layout *layout, struct pgr_client *sql,
			   struct pgr_err *err) PGR_MUST_USE;

/*
 * The same with no SQL at hand: only a server on this machine can share a directory with us, and then has it under the
 * same name.  `locations` are the server's (of tablespaces, and its data directory where it is known), NULL-terminated.
 * A WAL directory of the server is looked for as pg_wal below each.
 */
int pgr_olddir_check_apart_by_name(const struct pgr_olddir *d, const struct pgr_layout *layout, bool server_is_local,
				   const char *const *locations, struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether nobody works here: no process of a server has the directory for its working directory, or one that leads to
 * the same WAL directory or tablespace, and nobody has a file open for writing that lies in the data directory, the WAL
 * directory or a tablespace (`tree`; but for what is kept).  So a server is seen that has lost its lock file; one in
 * another container, whose processes have no numbers here; processes that have outlived their postmaster; and another
 * server whose WAL or tablespaces are linked from here, as they are from a copy of its directory.  (One of another
 * major version may share a tablespace.)  Who ends, and what is closed, within two seconds was about to.  PGR_E_USAGE:
 * somebody does.  Where the file system cannot tell (over a network) no writers are seen, nor is a server in another
 * container that has no file open for writing.
 */
int pgr_olddir_check_idle(const struct pgr_olddir *d, const struct pgr_layout *layout, const struct pgr_localtree *tree,
			  const struct pgr_keep *keep, struct pgr_err *err) PGR_MUST_USE;

/*
 * The first change: writes the state, sets pg_control aside, removes backup_manifest, backup_manifest.tmp,
 * postmaster.pid and postmaster.opts.  Durably, in an order that a crash in between does no harm.  `root` is the open
 * data directory.  From here on the directory cannot start.
 *
 * Of `state`: `start` and `tli` count only when the directory was empty, `whole` only as long as no earlier run was
 * without it (a run that makes files under their final names before they are complete says false), `server_tli` only as
 * long as earlier runs had the same; `fresh` is set here.  What the kind says stays as it was found.  PGR_E_USAGE: a
 * server has started meanwhile, or another run has begun.
 */
int pgr_olddir_take_over(struct pgr_olddir *d, int root, const struct pgr_olddir_state *state,
			 struct pgr_err *err) PGR_MUST_USE;

/* After the take-over: no file here may be built upon, as after a run that was without `whole`.  Durably. */
int pgr_olddir_distrust(struct pgr_olddir *d, int root, struct pgr_err *err) PGR_MUST_USE;

/*
 * Before pg_control is written, and when the manifest has its name, too; nothing, when there was no take-over.
 *
 * settle: every file of a backup that began at `start` on `tli` is here, and durable when `sync`.  Then that is what
 * the state says from now on, since what was set aside goes: a run that ends here leaves no less than any other to go
 * on from.  finish: the state goes, durably when `sync`.
 */
int pgr_olddir_settle(struct pgr_olddir *d, int root, pgr_lsn start, pgr_tli tli, bool sync,
		      struct pgr_err *err) PGR_MUST_USE;
int pgr_olddir_finish(struct pgr_olddir *d, int root, bool sync, struct pgr_err *err) PGR_MUST_USE;

#endif
