#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/keep.h"
#include "backup/lane_dir.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/olddir_in.h"
#include "common/fs_io.h"
#include "common/num.h"
#include "common/sys.h"

/* Processes of a server that was killed end within that. */
#define TRIES	20
#define WAIT_MS 100

#define COMM_MOST 64

/* ---- processes that we can see ---- */

/* Each process of a server has the data directory for its working directory; so may a shell have it, which is no
 * server. What cannot be looked at is not ours to judge. */
static bool is_server_in(const struct pgr_sys *sys, int proc, const char *pid, const struct stat *data)
{
	struct pgr_err ignored;
	struct stat st;
	char name[64], *comm;
	size_t len;
	bool yes;

	if ((size_t)snprintf(name, sizeof(name), "%s/cwd", pid) >= sizeof(name) ||
	    sys->fstatat(sys, proc, name, &st, 0) != 0 || st.st_dev != data->st_dev || st.st_ino != data->st_ino)
		return false;
	snprintf(name, sizeof(name), "%s/comm", pid);
	if (pgr_fs_read_file(sys, proc, "/proc", name, COMM_MOST, &comm, &len, &ignored) != PGR_OK)
		return false;
	yes = strstr(comm, "postgres") != NULL || strstr(comm, "postmaster") != NULL;
	free(comm);
	return yes;
}

static uint32_t find_server(const struct pgr_sys *sys, DIR *proc, int fd, const struct stat *data)
{
	struct dirent *de;
	uint32_t pid;

	while ((de = sys->readdir(sys, proc)) != NULL)
		if (pgr_num_u32(de->d_name, strlen(de->d_name), &pid) && is_server_in(sys, fd, de->d_name, data))
			return pid;
	return 0;
}

/* Whoever has removed the lock file of a running server is told here. */
static int check_processes(const struct pgr_olddir *d, struct pgr_err *err)
{
	const struct pgr_sys *sys = d->sys;
	struct stat data;
	uint32_t pid;
	DIR *proc;
	int fd;

	if (d->fd < 0)
		return PGR_OK;
	if (sys->fstat(sys, d->fd, &data) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", d->path);
	fd = sys->openat(sys, AT_FDCWD, "/proc", PGR_OLDDIR_FLAGS, 0);
	proc = fd >= 0 ? sys->fdopendir(sys, fd) : NULL;
	if (proc == NULL) {
		if (fd >= 0)
			(void)sys->close(sys, fd); /* a chroot may have no /proc, and then nothing is seen */
		return PGR_OK;
	}
	pid = find_server(sys, proc, fd, &data);
	(void)sys->closedir(sys, proc); /* it was only read */
	if (pid == 0)
		return PGR_OK;
	pgr_err_set(err, PGR_E_USAGE, "a server is running in directory \"%s\" (process %u)", d->path, pid);
	return pgr_err_hint(err, "It has no lock file \"postmaster.pid\" there.");
}

/* ---- files that somebody has open ---- */

struct look {
	const struct pgr_sys *sys;
	const struct pgr_layout *layout;
	struct pgr_lane_dir dir;
	int waits; /* left */
};

static bool is_written(const struct look *l, int fd)
{
	return l->sys->probe_writers(l->sys, fd) != 0 && errno == EAGAIN;
}

/* What is gone or cannot be read is nobody's, or shows later. */
static bool is_busy(struct look *l, const char *leaf)
{
	int fd = l->sys->openat(l->sys, l->dir.fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	bool busy;

	if (fd < 0)
		return false;
	busy = is_written(l, fd);
	while (busy && l->waits > 0) {
		l->waits--;
		(void)l->sys->poll(l->sys, NULL, 0, WAIT_MS);
		busy = is_written(l, fd);
	}
	(void)l->sys->close(l->sys, fd); /* it was only asked */
	return busy;
}

static int refuse(const struct look *l, const char *path, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "file \"%s/%s\" is open for writing in another process",
		    pgr_layout_data_dir(l->layout), pgr_show_path(path, strlen(path)).text);
	return pgr_err_hint(err, "Stop the server that uses it: one that runs in this directory, perhaps in another "
				 "container, or one whose WAL or tablespaces are linked from here.");
}

static int look_at(struct look *l, const char *path, struct pgr_err *err)
{
	const char *leaf;

	if (pgr_lane_dir_enter(&l->dir, l->sys, l->layout, path, &leaf, err) != PGR_OK)
		return err->cls == PGR_E_SYSTEM && err->sys_errno == ENOENT ? PGR_OK : PGR_ERR;
	return is_busy(l, leaf) ? refuse(l, path, err) : PGR_OK;
}

int pgr_olddir_check_idle(const struct pgr_olddir *d, const struct pgr_layout *layout, const struct pgr_localtree *tree,
			  const struct pgr_keep *keep, struct pgr_err *err)
{
	struct look l = {.sys = d->sys, .layout = layout, .dir = PGR_LANE_DIR_INIT, .waits = TRIES};
	int rc = check_processes(d, err);

	for (size_t i = 0; rc == PGR_OK && i < tree->n; i++)
		if (tree->entries[i].type == PGR_LOCAL_FILE && !pgr_keep_matches(keep, tree->entries[i].path))
			rc = look_at(&l, tree->entries[i].path, err);
	pgr_lane_dir_fini(&l.dir, l.sys);
	return rc;
}
