/*
 * Single calls of the system as the files fs_*.c want them: an interrupted call is made again, and a failure can be
 * told with the name of the file.
 */
#ifndef PGR_COMMON_FS_CALL_H
#define PGR_COMMON_FS_CALL_H

#include <fcntl.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

#define PGR_FS_DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/*
 * A file `name` in the directory `where` (NULL or "": none to tell), for a message:
 * "could not ... \"" PGR_FS_AT_FMT "\"", PGR_FS_AT_ARG(where, name).
 */
#define PGR_FS_AT_FMT		   "%s%s%s"
#define PGR_FS_AT_ARG(where, name) pgr_fs_at_dir(where), pgr_fs_at_slash(where), (name)

/* `where`, and the slash that belongs behind it: "" where there is none to tell, or it has one. */
const char *pgr_fs_at_dir(const char *where);
const char *pgr_fs_at_slash(const char *where);

/* openat(2): the descriptor, or -1 with errno, which is not EINTR. */
int pgr_fs_call_open(const struct pgr_sys *sys, int dirfd, const char *path, int flags, mode_t mode);

/* fsync(2): 0, or -1 with errno, which is not EINTR.  After a failure it must not be asked again about the same file.
 */
int pgr_fs_call_fsync(const struct pgr_sys *sys, int fd);

/*
 * The same for a directory.  0 also where the file system cannot do it and says EINVAL or EBADF: PostgreSQL goes on
 * then (fsync_fname in src/common/file_utils.c).
 */
int pgr_fs_call_fsync_dir(const struct pgr_sys *sys, int fd);

/* Closes fd in any case.  Its failure counts unless there is one already: returns `rc`, or PGR_ERR with *err set. */
int pgr_fs_call_close(const struct pgr_sys *sys, int fd, int rc, const char *where, const char *name,
		      struct pgr_err *err) PGR_MUST_USE;

#endif
