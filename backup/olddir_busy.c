#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

#define SMALL_FILE 64

/* ---- processes that we can see ---- */

/* A directory of ours, and the name that a server has for it below its own. */
struct place {
	char name[40];
	struct stat st;
	const char *path; /* for messages */
	bool is_space;
};

/* What all processes are asked. */
struct search {
	const struct pgr_sys *sys;
	struct place *places;
	size_t n;
	const char *version; /* as PG_VERSION has it; "": not known */
};

/* A small file that a process has below /proc, to be freed; NULL: there is none that we may read. */
static char *read_of(const struct pgr_sys *sys, int proc, const char *pid, const char *what)
{
	struct pgr_err ignored;
	char name[64], *text;
	size_t len;

	snprintf(name, sizeof(name), "%.20s/%s", pid, what);
	return pgr_fs_read_file(sys, proc, "/proc", name, SMALL_FILE, &text, &len, &ignored) == PGR_OK ? text : NULL;
}

static bool is_postgres(const struct pgr_sys *sys, int proc, const char *pid)
{
	char *comm = read_of(sys, proc, pid, "comm");
	bool yes = comm != NULL && (strstr(comm, "postgres") != NULL || strstr(comm, "postmaster") != NULL);

	free(comm);
	return yes;
}

/* A link leads to where its server finds it: in a container of its own that is another directory than here. */
static bool stat_of_server(const struct pgr_sys *sys, int proc, const char *pid, const char *below, struct stat *st)
{
	char name[96], target[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n;

	snprintf(name, sizeof(name), "%.20s/cwd/%s", pid, below);
	n = sys->readlinkat(sys, proc, name, target, sizeof(target) - 1);
	if (n <= 0 || target[0] != '/')
		return sys->fstatat(sys, proc, name, st, 0) == 0;
	target[n] = '\0';
	snprintf(path, sizeof(path), "%.20s/root%s", pid, target);
	return sys->fstatat(sys, proc, path, st, 0) == 0;
}

/*
 * Each process of a server has its data directory for its working directory.  (So may a shell, which is no server.)
 * What cannot be looked at is not ours to judge.
 */
static bool works_in(const struct pgr_sys *sys, int proc, const char *pid, const struct place *p)
{
	struct stat st;

	return stat_of_server(sys, proc, pid, p->name, &st) && st.st_dev == p->st.st_dev && st.st_ino == p->st.st_ino;
}

/* Servers of several major versions may share a tablespace: each has a directory of its own in it. */
static bool is_other_version(const struct search *s, int proc, const char *pid)
{
	char *text = s->version[0] != '\0' ? read_of(s->sys, proc, pid, "cwd/PG_VERSION") : NULL;
	size_t len = text != NULL ? strcspn(text, "\n") : 0;
	bool other = text != NULL && (len != strlen(s->version) || memcmp(text, s->version, len) != 0);

	free(text);
	return other;
}

static const struct place *place_of(const struct search *s, int proc, const char *pid)
{
	for (size_t i = 0; i < s->n; i++)
		if (works_in(s->sys, proc, pid, &s->places[i]) &&
		    !(s->places[i].is_space && is_other_version(s, proc, pid)))
			return &s->places[i];
	return NULL;
}

/* A chroot may have no /proc, and then nothing is seen. */
static const struct place *find_server(const struct search *s, uint32_t *pid)
{
	const struct pgr_sys *sys = s->sys;
	int fd = sys->openat(sys, AT_FDCWD, "/proc", PGR_OLDDIR_FLAGS, 0);
	DIR *proc = fd >= 0 ? sys->fdopendir(sys, fd) : NULL;
	const struct place *found = NULL;
	struct dirent *de;

	if (proc == NULL) {
		if (fd >= 0)
			(void)sys->close(sys, fd); /* it was only to be read */
		return NULL;
	}
	while (found == NULL && (de = sys->readdir(sys, proc)) != NULL)
		if (pgr_num_u32(de->d_name, strlen(de->d_name), pid) && is_postgres(sys, fd, de->d_name))
			found = place_of(s, fd, de->d_name);
	(void)sys->closedir(sys, proc);
	return found;
}

/* Its last process has removed the lock file, and may have a large memory to give back. */
static const struct place *find_lasting_server(const struct search *s, uint32_t *pid)
{
	const struct place *found = find_server(s, pid);

	for (int i = 0; found != NULL && i < TRIES; i++) {
		(void)s->sys->poll(s->sys, NULL, 0, WAIT_MS);
		found = find_server(s, pid);
	}
	return found;
}

static void add_place(struct search *s, int root, const char *path)
{
	struct place *p = &s->places[s->n];

	if (root >= 0 && path != NULL && s->sys->fstat(s->sys, root, &p->st) == 0) {
		p->path = path;
		s->n++;
	}
}

/* A server whose directory was copied with its links has the same WAL directory, and tablespaces of the same number. */
static void list_places(struct search *s, const struct pgr_olddir *d, const struct pgr_layout *l)
{
	const char *wal = pgr_layout_wal_name(l), *rest;
	int root;

	add_place(s, d->fd, d->path);
	pgr_layout_resolve(l, wal, &root, &rest);
	snprintf(s->places[s->n].name, sizeof(s->places[s->n].name), "%s", wal);
	if (rest[0] == '\0')
		add_place(s, root, wal);
	for (size_t i = 0; i < pgr_layout_tablespaces(l); i++) {
		uint32_t oid = pgr_layout_tablespace_oid(l, i);
		struct place *p = &s->places[s->n];

		snprintf(p->name, sizeof(p->name), "pg_tblspc/%u", oid);
		p->is_space = true;
		add_place(s, pgr_layout_root(l, oid), pgr_layout_tablespace_target(l, oid));
	}
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
	struct search s = {.sys = d->sys};
	const struct place *found;
	uint32_t pid = 0;
	char major[16];
	int rc = PGR_OK;

	s.places = calloc(pgr_layout_tablespaces(l) + 3, sizeof(*s.places));
	if (s.places == NULL)
		return pgr_err_nomem(err);
	/* an unfinished copy may not have its PG_VERSION yet */
	snprintf(major, sizeof(major), "%d", d->state.major);
	s.version = d->version[0] != '\0' || d->state.major == 0 ? d->version : major;
	list_places(&s, d, l);
	found = find_lasting_server(&s, &pid);
	if (found != NULL)
		rc = refuse_server(d, found, pid, err);
	free(s.places);
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
