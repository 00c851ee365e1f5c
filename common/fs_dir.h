/*
 * Directories: opened, made, looked into.
 *
 * Whatever a server names is opened with pgr_fs_open_parent, which walks a relative path below a directory descriptor:
 * no "..", nothing absolute, no link followed.  The other functions are for paths that a person gave.
 *
 * Failures of the system are PGR_E_SYSTEM and name the directory.
 */
#ifndef PGR_COMMON_FS_DIR_H
#define PGR_COMMON_FS_DIR_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

/* Opens a directory by name (links in the path are followed).  *fd is the caller's to close; -1 after a failure. */
int pgr_fs_open_dir(const struct pgr_sys *sys, const char *path, int *fd, struct pgr_err *err) PGR_MUST_USE;

/*
 * Opens the directory that holds the last component of `path` (see pgr_path_is_safe) below `root`,
 * one component after the other with O_NOFOLLOW.  *dirfd is the caller's to close, also when it stands for
 * `root` itself; *leaf points into `path`.  Missing directories are an error (ENOENT), a link in the way is one, too
 * (ELOOP or ENOTDIR).  A path that is not safe, or ends in a slash (a leaf "link/" would be followed), is PGR_E_DATA.
 */
int pgr_fs_open_parent(const struct pgr_sys *sys, int root, const char *path, int *dirfd, const char **leaf,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * Creates `path` and missing parents with `mode`, which is subject to the umask (as mkdir -p).  *created (NULL: nobody
 * asks) says whether the last component was made.  Nothing is synced.
 */
int pgr_fs_mkdir_p(const struct pgr_sys *sys, const char *path, mode_t mode, bool *created,
		   struct pgr_err *err) PGR_MUST_USE;

enum pgr_dirstate { PGR_DIR_MISSING, PGR_DIR_EMPTY, PGR_DIR_NOT_EMPTY };

/* What is at `path`: anything in it, dot files and lost+found included, makes it not empty (src/port/pgcheckdir.c). */
int pgr_fs_dir_state(const struct pgr_sys *sys, const char *path, enum pgr_dirstate *out,
		     struct pgr_err *err) PGR_MUST_USE;

#endif
