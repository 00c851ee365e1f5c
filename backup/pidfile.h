/*
 * postmaster.pid: whether a server runs in a directory.
 *
 * Source: PostgreSQL src/include/utils/pidfile.h, CreateLockFile of src/backend/utils/init/miscinit.c.
 */
#ifndef PGR_BACKUP_PIDFILE_H
#define PGR_BACKUP_PIDFILE_H

#include "common/err.h"

struct pgr_sys;

#define PGR_PIDFILE_NAME "postmaster.pid"

/*
 * PGR_OK: there is no such file below the open directory, or the process that it names has ended, and no other one is
 * attached to that server's shared memory.  PGR_E_USAGE: that process lives (perhaps another user's), or others that it
 * has started do, for two seconds now; or the file does not tell.  `where` is the directory's name for messages.
 */
int pgr_pidfile_check(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_err *err) PGR_MUST_USE;

#endif
