/*
 * A data directory that is to be made over (--delta): what it holds, whether it may be touched, and what keeps it from
 * starting while it is under work.
 *
 * While a run is under way the directory has PGR_OLDDIR_STATE and no global/pg_control; the one that it had lies beside
 * as PGR_OLDDIR_CONTROL.  Both go away when everything else is done, before the new pg_control is written.
 */
#ifndef PGR_BACKUP_OLDDIR_H
#define PGR_BACKUP_OLDDIR_H

#include <stdbool.h>
#include <stdint.h>

#include "backup/controlfile.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_client;
struct pgr_layout;
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
	pgr_lsn start; /* where the first run that found the directory empty began; PGR_LSN_INVALID: it was not */
	pgr_tli tli;   /* of that */
};

/*
 * Looks at `path` (it may be missing), changes nothing.  An existing directory stays locked (flock) until it is freed:
 * two runs do not meet in it.  The refusals, each PGR_E_USAGE and naming the directory:
 * - another pgr-basebackup works in it
 * - a server runs in it: postmaster.pid names a live process (also one that we may not signal)
 * - it is not empty and no data directory; it is no directory
 * - pg_control is damaged and nothing else tells whose cluster it is: the state, or else PGR_OLDDIR_BARE
 */
int pgr_olddir_open(struct pgr_olddir **out, const struct pgr_sys *sys, const char *path,
		    struct pgr_err *err) PGR_MUST_USE;
/* Unlocks; removes nothing.  NULL is allowed. */
void pgr_olddir_free(struct pgr_olddir *d);

enum pgr_olddir_kind pgr_olddir_kind(const struct pgr_olddir *d);
/* Its pg_control, or the one that was set aside; NULL: there is none that can be read. */
const struct pgr_controlfile *pgr_olddir_control(const struct pgr_olddir *d);
/* What the last run wrote down; NULL but for PGR_OLDDIR_UNFINISHED. */
const struct pgr_olddir_state *pgr_olddir_state(const struct pgr_olddir *d);

/*
 * Whether it is this server's cluster.  PGR_E_USAGE: another system identifier (pg_control's, the state's), another
 * major version (PG_VERSION, the state's), and, where pg_control tells, another block or segment size.
 */
int pgr_olddir_check_server(const struct pgr_olddir *d, const char *system_identifier, int server_version,
			    struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether none of the layout's directories (data, WAL, tablespaces) is one of the server's own: a file with a random
 * name is made in each, the server is asked over SQL whether it sees it (pg_stat_file, below its data directory, pg_wal
 * and pg_tblspc/<oid>), and removed again.  PGR_E_USAGE: it does.  Call it after pgr_layout_prepare and again after
 * pgr_layout_prepare_tablespaces.
 */
int pgr_olddir_check_apart(const struct pgr_olddir *d, struct pgr_layout *layout, struct pgr_client *sql,
			   struct pgr_err *err) PGR_MUST_USE;

/*
 * The same with no SQL at hand: only a server on this machine can share a directory with us, and then has it under the
 * same name.  `locations` are the server's (of tablespaces), NULL-terminated.
 */
int pgr_olddir_check_apart_by_name(const struct pgr_olddir *d, const struct pgr_layout *layout, bool server_is_local,
				   const char *const *locations, struct pgr_err *err) PGR_MUST_USE;

/*
 * The first change: writes the state (an older one's `start` and `tli` are kept), sets pg_control aside, removes
 * backup_manifest, backup_manifest.tmp, postmaster.pid and postmaster.opts.  Durably, in an order that a crash in
 * between does no harm.  `root` is the open data directory.  From here on the directory cannot start.
 */
int pgr_olddir_take_over(struct pgr_olddir *d, int root, const struct pgr_olddir_state *state,
			 struct pgr_err *err) PGR_MUST_USE;

/* Removes the state and what was set aside, durably when `sync`.  Nothing, when there was no take-over. */
int pgr_olddir_finish(struct pgr_olddir *d, int root, bool sync, struct pgr_err *err) PGR_MUST_USE;

#endif
