/*
 * Removing directories that need not be ours to the last file: through descriptors, no link followed, nothing entered
 * that is mounted below.
 */
#ifndef PGR_BACKUP_WIPE_H
#define PGR_BACKUP_WIPE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "common/err.h"

struct pgr_sys;

#define PGR_LOST_FOUND "lost+found" /* the file system's own directory, at its top */

/* Whether something is mounted at `name`, of which `st` was got without following a link, below a directory of the
 * device `parent`.  Bind mounts are seen from Linux 5.8 on, and only of directories. */
bool pgr_is_mounted(const struct pgr_sys *sys, int dirfd, const char *name, const struct stat *st, dev_t parent);

/* "%s" is a mount point and cannot be removed: PGR_E_USAGE. */
int pgr_mounted_error(const char *path, struct pgr_err *err);

/*
 * Removes what is in the open directory `fd` (stays the caller's), but for PGR_LOST_FOUND; `where` is its name in
 * messages.  PGR_E_USAGE: something is mounted below; then nothing was removed.  What vanishes meanwhile is no error.
 */
int pgr_wipe_contents(const struct pgr_sys *sys, int fd, const char *where, struct pgr_err *err) PGR_MUST_USE;

/* Removes `name` in the directory `dirfd` (`where` in messages): a directory with everything in it, as above, anything
 * else as it is.  Nothing of this name is no error. */
int pgr_wipe(const struct pgr_sys *sys, int dirfd, const char *where, const char *name,
	     struct pgr_err *err) PGR_MUST_USE;

#endif
