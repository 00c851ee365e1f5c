/*
 * The inside of struct pgr_olddir, for the files that share it: olddir.c looks, olddir_apart.c asks, olddir_take.c
 * changes.
 */
#ifndef PGR_BACKUP_OLDDIR_IN_H
#define PGR_BACKUP_OLDDIR_IN_H

#include <fcntl.h>

#include "backup/olddir.h"

#define PGR_OLDDIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* Names in global/: the second is PGR_OLDDIR_CONTROL. */
#define PGR_CONTROL_NAME "pg_control"
#define PGR_ASIDE_NAME	 "pg_control.pgr"

#define PGR_STATE_TMP ".tmp" /* behind PGR_OLDDIR_STATE */

struct pgr_olddir {
	const struct pgr_sys *sys;
	char *path;
	int fd; /* locked; -1: there was no such directory */
	enum pgr_olddir_kind kind;
	bool has_control; /* one that can be read */
	struct pgr_controlfile control;
	bool has_aside; /* a file of this name, readable or not */
	struct pgr_olddir_state state;
	struct pgr_olddir_state written; /* by the take-over */
	pgr_lsn base;
	pgr_tli base_tli;
	bool is_backup; /* see pgr_olddir_is_backup */
	bool settled;	/* see pgr_olddir_is_settled */
	bool has_version;
	char version[16]; /* what stands in PG_VERSION: "15", "9.6"; "": nothing of the kind */
	bool taken;	  /* the take-over was complete */
};

/* PGR_E_USAGE: directory "<path>" <why> */
int pgr_olddir_refuse(const struct pgr_olddir *d, const char *why, struct pgr_err *err);

/* Opens global/ below the open data directory.  PGR_MORE: there is none.  PGR_E_USAGE: it is no directory. */
int pgr_olddir_global(const struct pgr_olddir *d, int root, int *fd, struct pgr_err *err) PGR_MUST_USE;

/* Locks d->fd.  PGR_E_USAGE: another run has it. */
int pgr_olddir_lock(const struct pgr_olddir *d, struct pgr_err *err) PGR_MUST_USE;

#endif
