/*
 * Files and durability: the few operations on files that everything else is made of.
 *
 * Whatever a server names is opened with the functions that walk a relative path below a
 * directory descriptor: no "..", nothing absolute, no link followed.
 */
#ifndef PGR_COMMON_FS_H
#define PGR_COMMON_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

/*
 * Whether `path` may name something below a directory: not empty, relative, no empty, "." or ".."
 * component (one trailing slash is allowed), no NUL inside, shorter than PATH_MAX.
 */
bool pgr_path_is_safe(const char *path);

/*
 * Opens the directory that holds the last component of `path` (see pgr_path_is_safe) below `root`,
 * one component after the other with O_NOFOLLOW.  *dirfd is the caller's to close, also when it stands for
 * `root` itself; *leaf points into `path`.  Missing directories are an error (ENOENT).  A path that is not safe, or
 * ends in a slash (a leaf "link/" would be followed), is PGR_E_DATA.
 */
int pgr_fs_open_parent(const struct pgr_sys *sys, int root, const char *path, int *dirfd, const char **leaf,
		       struct pgr_err *err) PGR_MUST_USE;

/* Writes all of buf at `off` (or at the file position), retrying short writes and EINTR.  `name` is for the message. */
int pgr_fs_pwrite_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off, const char *name,
		      struct pgr_err *err) PGR_MUST_USE;
int pgr_fs_write_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *name,
		     struct pgr_err *err) PGR_MUST_USE;

/*
 * Writes a whole file durably: `name`.tmp-suffix below dirfd with `mode`, fsync, close, rename, fsync of dirfd
 * (the syncs only when `sync`).  On failure the temporary file is gone and an old `name` is as it was; only when the
 * last step, the fsync of the directory, fails is the new one in its place already.  `mode` is subject to the umask.
 * `tmp_suffix` e.g. ".tmp".  `where` is the directory's name for messages.
 */
int pgr_fs_write_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, const char *tmp_suffix,
		      const void *data, size_t len, mode_t mode, bool sync, struct pgr_err *err) PGR_MUST_USE;

/* fsyncs the file, renames it within dirfd, fsyncs dirfd. As PostgreSQL's durable_rename. `fd` is the open file or -1.
 */
int pgr_fs_durable_rename(const struct pgr_sys *sys, int dirfd, const char *where, int fd, const char *from,
			  const char *to, struct pgr_err *err) PGR_MUST_USE;

/*
 * Reads a whole file below dirfd (last component not followed if it is a link) into a malloc'd, NUL-terminated
 * buffer; at most `limit` bytes (PGR_E_DATA beyond).  PGR_MORE when it does not exist.
 */
int pgr_fs_read_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, size_t limit,
		     char **data, size_t *len, struct pgr_err *err) PGR_MUST_USE;

/* Creates `path` and missing parents with `mode` (as mkdir -p).  *created says whether the last component was made. */
int pgr_fs_mkdir_p(const struct pgr_sys *sys, const char *path, mode_t mode, bool *created,
		   struct pgr_err *err) PGR_MUST_USE;

enum pgr_dirstate { PGR_DIR_MISSING, PGR_DIR_EMPTY, PGR_DIR_NOT_EMPTY };

/* What is at `path`: anything in it, dot files and lost+found included, makes it not empty (src/port/pgcheckdir.c). */
int pgr_fs_dir_state(const struct pgr_sys *sys, const char *path, enum pgr_dirstate *out,
		     struct pgr_err *err) PGR_MUST_USE;

/*
 * Removes everything below the directory `path`, and the directory itself when `top`.  Links are removed, never
 * followed; other file systems mounted below are entered.  Goes on after a failure; the first one is returned.
 */
int pgr_fs_remove_tree(const struct pgr_sys *sys, const char *path, bool top, struct pgr_err *err) PGR_MUST_USE;

/*
 * fsyncs every directory below and including `path` (bottom-up), and, with `files`, every regular file first.
 * Links are not followed.
 */
int pgr_fs_sync_tree(const struct pgr_sys *sys, const char *path, bool files, struct pgr_err *err) PGR_MUST_USE;

/* fsyncs the directory that holds `path`, so that the entry itself survives. */
int pgr_fs_sync_parent(const struct pgr_sys *sys, const char *path, struct pgr_err *err) PGR_MUST_USE;

/* Opens a directory by name (links in a path that the user gave are followed). */
int pgr_fs_open_dir(const struct pgr_sys *sys, const char *path, int *fd, struct pgr_err *err) PGR_MUST_USE;

/*
 * Canonicalises a path textually as PostgreSQL's canonicalize_path does for Unix: no double slashes, no
 * trailing slash, "." dropped, ".." resolved where a component precedes it.  In place; never longer.
 */
void pgr_path_canonicalize(char *path);

#endif
