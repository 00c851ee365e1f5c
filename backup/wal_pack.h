/*
 * A directory of WAL that was streamed, as the archive pg_wal.tar.
 *
 * Source: src/bin/pg_basebackup/walmethods.c, the methods for tar.
 */
#ifndef PGR_BACKUP_WAL_PACK_H
#define PGR_BACKUP_WAL_PACK_H

#include "common/err.h"

struct pgr_sys;
struct pgr_tar_out;

/*
 * Puts every file of the directory `dirfd` (stays the caller's; `where` is its name in messages) into the archive,
 * ordered by name, each followed by its archive_status/<name>.done where there is one.  A file is removed from the
 * directory when it was handed on, so that the WAL does not take its room twice.  What is there apart from
 * archive_status and is not a file is PGR_E_DATA.
 */
int pgr_wal_pack(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_tar_out *out,
		 struct pgr_err *err) PGR_MUST_USE;

#endif
