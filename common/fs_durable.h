/*
 * Files and names that survive a power cut, in the order of PostgreSQL's durable_rename (src/common/file_utils.c):
 * fsync of the file, close, rename, fsync of the directory.
 *
 * `where` is the name of the directory `dirfd` for messages; dirfd may be AT_FDCWD.  Failures of the system are
 * PGR_E_SYSTEM and name the file.  File systems that cannot fsync a directory are forgiven (see fs_call.h).
 */
#ifndef PGR_COMMON_FS_DURABLE_H
#define PGR_COMMON_FS_DURABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

/*
 * Writes a whole file: under the name `name` and `tmp_suffix` (e.g. ".tmp") below dirfd with `mode`, then fsync, close,
 * rename, fsync of dirfd (the syncs only when `sync`).  A file that has the temporary name already is removed: it is
 * the leftover of a crash.  On failure the temporary file is gone and an old `name` is as it was; only when the last
 * step, the fsync of the directory, fails is the new one in its place already.  `mode` is subject to the umask.
 */
int pgr_fs_write_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, const char *tmp_suffix,
		      const void *data, size_t len, mode_t mode, bool sync, struct pgr_err *err) PGR_MUST_USE;

/*
 * fsyncs the file, renames it within dirfd, fsyncs dirfd.  `fd` is the open file, which stays open, or -1: it is opened
 * for that by its name.
 */
int pgr_fs_durable_rename(const struct pgr_sys *sys, int dirfd, const char *where, int fd, const char *from,
			  const char *to, struct pgr_err *err) PGR_MUST_USE;

/*
 * fsyncs the directory that holds `path`, so that the entry itself survives.  A directory that may not be read is left
 * out: who may make an entry need not be allowed to.
 */
int pgr_fs_sync_parent(const struct pgr_sys *sys, const char *path, struct pgr_err *err) PGR_MUST_USE;

#endif
