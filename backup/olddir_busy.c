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

/* A directory of ours, and the name that a server has for it below its own. */
struct place {
	char name[40];
	struct stat st;
	const char *path; /* for messages */
};

static bool is_postgres(const struct pgr_sys *sys, int proc, const char *pid)
{
	struct pgr_err ignored;
	char name[64], *comm;
	size_t len;
	bool yes;

	snprintf(name, sizeof(name), "%.20s/comm", pid);
	if (pgr_fs_read_file(sys, proc, "/proc", name, COMM_MOST, &comm, &len, &ignored) != PGR_OK)
		return false;
	yes = strstr(comm, "postgres") != NULL || strstr(comm, "postmaster") != NULL;
	free(comm);
	return yes;
}

/*
 * Each process of a server has its data directory for its working directory.  (So may a shell, which is no server.)
 * What cannot be looked at is not ours to judge.
 */
static bool works_in(const struct pgr_sys *sys, int proc, const char *pid, const struct place *p)
{
	char name[96];
	struct stat st;

	snprintf(name, sizeof(name), "%.20s/cwd/%s", pid, p->name);
	return sys->fstatat(sys, proc, name, &st, 0) == 0 && st.st_dev == p->st.st_dev && st.st_ino == p->st.st_ino;
}

static const struct place *find_server(const struct pgr_sys *sys, DIR *proc, int fd, const struct place *places,
				       size_t n, uint32_t *pid)
{
	struct dirent *de;

	while ((de = sys->readdir(sys, proc)) != NULL) {
		if (!pgr_num_u32(de->d_name, strlen(de->d_name), pid) || !is_postgres(sys, fd, de->d_name))
			continue;
		for (size_t i = 0; i < n; i++)
			if (works_in(sys, fd, de->d_name, &places[i]))
				return &places[i];
	}
	return NULL;
}

static void add_place(const struct pgr_sys *sys, struct place *places, size_t *n, int root, const char *path)
{
	if (root >= 0 && path != NULL && sys->fstat(sys, root, &places[*n].st) == 0)
		places[(*n)++].path = path;
}

/* A server whose directory was copied with its links has the same WAL directory, and tablespaces of the same number. */
static size_t list_places(const struct pgr_olddir *d, const struct pgr_layout *l, struct place *places)
{
	const char *wal = pgr_layout_wal_name(l), *rest;
	size_t n = 0;
	int root;

	places[n].name[0] = '\0';
	add_place(d->sys, places, &n, d->fd, d->path);
	pgr_layout_resolve(l, wal, &root, &rest);
	snprintf(places[n].name, sizeof(places[n].name), "%s", wal);
	if (rest[0] == '\0')
		add_place(d->sys, places, &n, root, wal);
	for (size_t i = 0; i < pgr_layout_tablespaces(l); i++) {
		uint32_t oid = pgr_layout_tablespace_oid(l, i);

		snprintf(places[n].name, sizeof(places[n].name), "pg_tblspc/%u", oid);
		add_place(d->sys, places, &n, pgr_layout_root(l, oid), pgr_layout_tablespace_target(l, oid));
	}
	return n;
}

static int refuse_server(const struct pgr_olddir *d, const struct place *p, uint32_t pid, struct pgr_err *err)
{
	if (p->name[0] == '\0') {
		pgr_err_set(err, PGR_E_USAGE, "a server is running in directory \"%s\" (process %u)", d->path, pid);
		return pgr_err_hint(err, "It has no lock file \"postmaster.pid\" there.");
	}
	pgr_err_set(err, PGR_E_USAGE, "directory \"%s\", to which \"%s/%s\" leads, is in use by a server (process %u)",
		    p->path, d->path, p->name, pid);
	return pgr_err_hint(err, "That server's directory leads there, too: one of the two was copied with its links.");
}

/* Whoever has removed the lock file of a running server is told here. */
static int check_processes(const struct pgr_olddir *d, const struct pgr_layout *l, struct pgr_err *err)
{
	const struct pgr_sys *sys = d->sys;
	struct place *places = calloc(pgr_layout_tablespaces(l) + 3, sizeof(*places));
	int fd = places != NULL ? sys->openat(sys, AT_FDCWD, "/proc", PGR_OLDDIR_FLAGS, 0) : -1;
	DIR *proc = fd >= 0 ? sys->fdopendir(sys, fd) : NULL;
	const struct place *p = NULL;
	uint32_t pid = 0;
	int rc = PGR_OK;

	if (proc != NULL) { /* a chroot may have no /proc, and then nothing is seen */
		p = find_server(sys, proc, fd, places, list_places(d, l, places), &pid);
		(void)sys->closedir(sys, proc); /* it was only read */
	} else if (fd >= 0) {
		(void)sys->close(sys, fd);
	}
	if (places == NULL)
		rc = pgr_err_nomem(err);
	else if (p != NULL)
		rc = refuse_server(d, p, pid, err);
	free(places);
	return rc;
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
	int rc = check_processes(d, layout, err);

	for (size_t i = 0; rc == PGR_OK && i < tree->n; i++)
		if (tree->entries[i].type == PGR_LOCAL_FILE && !pgr_keep_matches(keep, tree->entries[i].path))
			rc = look_at(&l, tree->entries[i].path, err);
	pgr_lane_dir_fini(&l.dir, l.sys);
	return rc;
}
