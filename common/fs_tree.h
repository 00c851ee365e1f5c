/*
 * Whole trees, children before parents: removed, synced.  Links are never followed, except for `path` itself; other
 * file systems mounted below are entered.  What somebody else removes meanwhile is no failure.
 *
 * Failures of the system are PGR_E_SYSTEM and name the object with its path.
 */
#ifndef PGR_COMMON_FS_TREE_H
#define PGR_COMMON_FS_TREE_H

#include <stdbool.h>

#include "common/err.h"

struct pgr_sys;

/*
 * Removes everything below the directory `path`, and the directory itself when `top`.  Goes on after a failure, because
 * less is left then; the first one is returned.
 */
int pgr_fs_remove_tree(const struct pgr_sys *sys, const char *path, bool top, struct pgr_err *err) PGR_MUST_USE;

/*
 * fsyncs every directory below and including `path` (bottom-up), and, with `files`, every regular file first.  Ends at
 * the first failure, because nothing is gained then.
 */
int pgr_fs_sync_tree(const struct pgr_sys *sys, const char *path, bool files, struct pgr_err *err) PGR_MUST_USE;

#endif
