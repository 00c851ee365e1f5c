/*
 * What a seed into tar archives (-Ft) does differently from one into a directory.  Internal to backup/; its steps are
 * pgr_tar_seed in run.h.
 *
 * In the target directory: base.tar, <oid>.tar, pg_wal.tar (-X stream), backup_manifest; or base.tar alone on standard
 * output, with the manifest in it.
 */
#ifndef PGR_BACKUP_TAR_SEED_H
#define PGR_BACKUP_TAR_SEED_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct pgr_basebackup_opts;
struct pgr_run;

/* Whether the archive goes to standard output: there is no directory then. */
bool pgr_tar_seed_to_stdout(const struct pgr_basebackup_opts *o);

/* Blocks that this seed needs in the pool, besides those of the writers. */
size_t pgr_tar_seed_blocks(const struct pgr_basebackup_opts *o);

/* After the list of tablespaces came: whether there is a place for all of `archives`. */
int pgr_tar_seed_check(const struct pgr_run *r, size_t archives, struct pgr_err *err) PGR_MUST_USE;

/* A new directory for the WAL that is streamed, below the target, open (the caller's): it becomes pg_wal.tar at the
 * end.  `name` (of `cap` bytes) is its name in messages. */
int pgr_tar_seed_wal_dir(struct pgr_run *r, int *fd, char *name, size_t cap, struct pgr_err *err) PGR_MUST_USE;

#endif
