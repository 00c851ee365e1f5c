#include "backup/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/delta_plan.h"
#include "backup/dirsink.h"
#include "backup/finish.h"
#include "backup/layout.h"
#include "backup/stream_check.h"
#include "backup/tar.h"
#include "backup/tar_sink.h"
#include "common/block.h"
#include "common/fs_dir.h"
#include "common/num.h"
#include "common/sys.h"

#define TBLSPC_PREFIX "pg_tblspc/"
#define CONTROL_FILE  "global/pg_control"

/* PG_CONTROL_FILE_SIZE is 8192 (src/include/catalog/pg_control.h); no version had more. */
#define CONTROL_BYTES_MAX 65536u

/* One archive being extracted. */
struct job {
	struct pgr_extract *x;
	struct pgr_tar_reader tar;
	uint32_t oid;	      /* of the archive's tablespace */
	bool data_dir;	      /* the archive of the data directory: the one with special names */
	int root;	      /* what names are relative to */
	const char *where;    /* its name */
	const char *wal_name; /* "pg_wal" */

	/* the directory of the last member: files come grouped, so it is the next one's most of the time */
	int dirfd;	    /* -1: none */
	int dir_root;	    /* below which root */
	char dir[PATH_MAX]; /* its path below that */

	char path[2 * PATH_MAX]; /* the member's name in messages */
};

/* Where a member goes. */
struct place {
	int root;	  /* the data directory, a tablespace or the WAL directory */
	const char *name; /* below it; "" for the WAL directory itself */
};

void pgr_extract_fini(struct pgr_extract *x)
{
	pgr_buf_fini(&x->control);
}

/* ---- where ---- */

/* What `name` is below the directory `dir`: NULL when it is not, "" when it is the directory. */
static const char *below(const char *name, const char *dir)
{
	size_t n = strlen(dir);

	if (strncmp(name, dir, n) != 0 || (name[n] != '/' && name[n] != '\0'))
		return NULL;
	return name[n] == '/' ? name + n + 1 : name + n;
}

/* The number of a name that is a tablespace's entry in pg_tblspc; 0: it is none. */
static uint32_t tablespace_of(const char *name)
{
	const size_t n = sizeof(TBLSPC_PREFIX) - 1;
	uint32_t oid;

	if (strncmp(name, TBLSPC_PREFIX, n) != 0 || name[n] == '0')
		return 0;
	return pgr_num_u32(name + n, strlen(name + n), &oid) ? oid : 0;
}

/* The WAL may live elsewhere (--waldir), behind a link that is ours to follow and not the server's. */
static int find_place(struct job *j, const struct pgr_tar_member *m, struct place *p, struct pgr_err *err)
{
	const char *in_wal = j->data_dir ? below(m->name, j->wal_name) : NULL;

	*p = (struct place){j->root, m->name};
	if (in_wal == NULL)
		return PGR_OK;
	if (*in_wal == '\0' && m->type != PGR_TAR_DIR)
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is not a directory", m->name);
	p->name = in_wal;
	return pgr_layout_wal_root(j->x->layout, &p->root, err);
}

/* ---- the open directory ---- */

static int close_dir(struct job *j, struct pgr_err *err)
{
	const struct pgr_sys *sys = j->x->sys;
	int fd = j->dirfd;

	j->dirfd = -1;
	if (fd >= 0 && sys->close(sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not close directory \"%s/%s\"", j->where, j->dir);
	return PGR_OK;
}

static void set_dir(struct job *j, int fd, int root, const char *name, size_t len)
{
	j->dirfd = fd;
	j->dir_root = root;
	memcpy(j->dir, name, len);
	j->dir[len] = '\0';
}

/* The directory that holds the member, open until the next call, and the last component of its name. */
static int open_parent(struct job *j, const struct place *p, int *dirfd, const char **leaf, struct pgr_err *err)
{
	const char *slash = strrchr(p->name, '/');
	size_t len = slash != NULL ? (size_t)(slash - p->name) : 0;
	int fd;

	*leaf = slash != NULL ? slash + 1 : p->name;
	*dirfd = p->root;
	if (slash == NULL)
		return PGR_OK;
	if (j->dirfd < 0 || j->dir_root != p->root || strlen(j->dir) != len || memcmp(j->dir, p->name, len) != 0) {
		if (close_dir(j, err) != PGR_OK)
			return PGR_ERR;
		if (pgr_fs_open_parent(j->x->sys, p->root, p->name, &fd, leaf, err) != PGR_OK)
			return pgr_err_prefix(err, "could not extract \"%s\"", j->path);
		set_dir(j, fd, p->root, p->name, len);
	}
	*dirfd = j->dirfd;
	return PGR_OK;
}

/* ---- directories ---- */

/*
 * What the WAL receiver, --waldir and in-place tablespaces make before the archive comes
 * (should_allow_existing_directory in src/fe_utils/astreamer_file.c).
 */
static bool may_exist(const struct job *j, const struct pgr_tar_member *m)
{
	const char *in_wal = below(m->name, j->wal_name);

	if (j->x->keep != NULL)
		return true;
	if (!j->data_dir)
		return false;
	if (in_wal != NULL)
		return strcmp(in_wal, "archive_status") == 0 || strcmp(in_wal, "summaries") == 0;
	return strcmp(m->name, "pg_tblspc") == 0 || tablespace_of(m->name) != 0;
}

static int set_dir_mode(struct job *j, int fd, const struct pgr_tar_member *m, struct pgr_err *err)
{
	if (j->x->sys->fchmod(j->x->sys, fd, m->mode & 0777) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on directory \"%s\"", j->path);
	return PGR_OK;
}

/* The new directory stays open: its files come next. */
static int extract_dir(struct job *j, const struct pgr_tar_member *m, const struct place *p, struct pgr_err *err)
{
	const struct pgr_sys *sys = j->x->sys;
	const char *leaf;
	int parent, fd;

	if (p->name[0] == '\0')
		return set_dir_mode(j, p->root, m, err);
	if (j->data_dir && pgr_layout_tablespace_target(j->x->layout, tablespace_of(m->name)) != NULL)
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is a directory instead of a link", m->name);
	if (open_parent(j, p, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (sys->mkdirat(sys, parent, leaf, pgr_layout_dir_mode(j->x->layout)) != 0 &&
	    !(errno == EEXIST && may_exist(j, m)))
		return pgr_err_sys(err, errno, "could not create directory \"%s\"", j->path);
	fd = sys->openat(sys, parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", j->path);
	if (set_dir_mode(j, fd, m, err) != PGR_OK || close_dir(j, err) != PGR_OK) {
		(void)sys->close(sys, fd);
		return PGR_ERR;
	}
	set_dir(j, fd, p->root, p->name, strlen(p->name));
	return PGR_OK;
}

/* ---- links ---- */

/* In a directory that was in use the link may be there, and is right. */
static bool leads_to(const struct job *j, int dirfd, const char *leaf, const char *target)
{
	char found[PATH_MAX];
	ssize_t n = j->x->keep == NULL ? -1 : j->x->sys->readlinkat(j->x->sys, dirfd, leaf, found, sizeof(found));

	return n >= 0 && (size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0;
}

static int make_link(struct job *j, const struct place *p, const char *target, struct pgr_err *err)
{
	const struct pgr_sys *sys = j->x->sys;
	const char *leaf;
	int parent;

	if (open_parent(j, p, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (sys->symlinkat(sys, target, parent, leaf) == 0)
		return PGR_OK;
	if (errno == EEXIST && leads_to(j, parent, leaf, target))
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not create symbolic link from \"%s\" to \"%s\"", j->path, target);
}

/*
 * Links lead out of the data directory, so only those are made that were announced, and to where we decided.  A
 * tablespace that was made after the list is not in it: replaying its creation makes its link (tblspc_redo in
 * src/backend/commands/tablespace.c), since that WAL lies after the backup's start.
 */
static int extract_link(struct job *j, const struct pgr_tar_member *m, const struct place *p, struct pgr_err *err)
{
	uint32_t oid = j->data_dir ? tablespace_of(m->name) : 0;
	const char *target = oid != 0 ? pgr_layout_tablespace_target(j->x->layout, oid) : NULL;
	const char *announced = pgr_layout_target_of(j->x->layout, m->link);

	if (oid != 0 && pgr_layout_root(j->x->layout, oid) < 0) {
		j->x->skipped_links++;
		return PGR_OK;
	}
	if (target == NULL || announced == NULL || strcmp(target, announced) != 0)
		return pgr_err_set(err, PGR_E_DATA,
				   "tar member \"%s\" is a symbolic link that leads to no announced tablespace: \"%s\"",
				   m->name, m->link);
	return make_link(j, p, target, err);
}

/* ---- files ---- */

static int watch_file(struct job *j, struct pgr_sink_file *f, const struct pgr_tar_member *m, struct pgr_err *err)
{
	if (j->x->check == NULL)
		return PGR_OK;
	return pgr_stream_check_file(j->x->check, j->x->sink, f, j->oid, m->name, m->size, err);
}

static int write_file(struct job *j, const struct pgr_tar_member *m, const struct place *p, struct pgr_err *err)
{
	struct pgr_sink_file *f;
	const char *leaf;
	int parent;

	if (open_parent(j, p, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_dirsink_create(j->x->sink, parent, leaf, j->path, m->mode & 0777, &f, err) != PGR_OK)
		return PGR_ERR;
	if (watch_file(j, f, m, err) != PGR_OK ||
	    pgr_tar_sink_content(&j->tar, m->size, j->x->pool, j->x->sink, f, err) != PGR_OK) {
		pgr_dirsink_abandon(j->x->sink, &f);
		return PGR_ERR;
	}
	return pgr_dirsink_seal(j->x->sink, &f, m->size, err);
}

/* pg_control makes a directory a cluster: it is kept back until everything else is on disk. */
static int keep_control(struct job *j, const struct pgr_tar_member *m, struct pgr_err *err)
{
	struct pgr_buf *b = &j->x->control;
	size_t n;

	if (b->len > 0)
		return pgr_err_set(err, PGR_E_DATA, "server sent \"%s\" twice", m->name);
	if (m->size > CONTROL_BYTES_MAX)
		return pgr_err_set(err, PGR_E_DATA, "server sent \"%s\" with an impossible size", m->name);
	if (pgr_buf_reserve(b, (size_t)m->size, err) != PGR_OK)
		return PGR_ERR;
	while (b->len < m->size) {
		if (pgr_tar_read(&j->tar, b->data + b->len, (size_t)m->size - b->len, &n, err) != PGR_OK)
			return PGR_ERR;
		b->len += n;
	}
	return j->x->check != NULL ? pgr_stream_check_content(j->x->check, m->name, b->data, b->len, err) : PGR_OK;
}

/* The reader skips what is not read. */
static int leave_out(struct job *j, const struct pgr_tar_member *m, struct pgr_err *err)
{
	return j->x->check != NULL ? pgr_stream_check_left_out(j->x->check, m->name, m->size, err) : PGR_OK;
}

/* What -R writes anew is not taken from the server: the recovery_conf module makes it. */
static bool is_replaced(const struct job *j, const char *name)
{
	return j->x->replace_recovery && (strcmp(name, "standby.signal") == 0 || strcmp(name, "recovery.conf") == 0);
}

/* PGR_MORE: it is not, or there is none here to keep. */
static int is_kept(struct job *j, const char *name, const struct place *p, struct pgr_err *err)
{
	struct stat st;
	const char *leaf;
	int parent;

	if (j->x->keep == NULL || !pgr_keep_matches(j->x->keep, name))
		return PGR_MORE;
	if (open_parent(j, p, &parent, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (j->x->sys->fstatat(j->x->sys, parent, leaf, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return PGR_OK;
	return errno == ENOENT ? PGR_MORE : pgr_err_sys(err, errno, "could not stat file \"%s\"", j->path);
}

static int extract_file(struct job *j, const struct pgr_tar_member *m, const struct place *p, struct pgr_err *err)
{
	int kept;

	if (!j->data_dir)
		return write_file(j, m, p, err);
	kept = is_kept(j, m->name, p, err);
	if (kept == PGR_ERR)
		return PGR_ERR;
	if (kept == PGR_OK || is_replaced(j, m->name) || strcmp(m->name, PGR_MANIFEST_TMP) == 0)
		return leave_out(j, m, err);
	if (strcmp(m->name, CONTROL_FILE) == 0)
		return keep_control(j, m, err);
	if (strcmp(m->name, "backup_label") == 0)
		j->x->have_backup_label = true;
	return write_file(j, m, p, err);
}

/* ---- the archive ---- */

static int extract_member(struct job *j, const struct pgr_tar_member *m, struct pgr_err *err)
{
	struct place p;

	snprintf(j->path, sizeof(j->path), "%s/%s", j->where, m->name);
	if (j->x->on_file != NULL)
		j->x->on_file(j->x->arg, m->name);
	if (m->type != PGR_TAR_FILE && j->data_dir && strcmp(m->name, CONTROL_FILE) == 0)
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is not a file", m->name);
	if (find_place(j, m, &p, err) != PGR_OK)
		return PGR_ERR;
	switch (m->type) {
	case PGR_TAR_DIR:
		return extract_dir(j, m, &p, err);
	case PGR_TAR_SYMLINK:
		return extract_link(j, m, &p, err);
	case PGR_TAR_FILE:
		return extract_file(j, m, &p, err);
	}
	return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" has an unknown type", m->name);
}

static int extract_members(struct job *j, struct pgr_err *err)
{
	struct pgr_tar_member m;
	int rc;

	while ((rc = pgr_tar_next(&j->tar, &m, err)) == PGR_OK)
		if (extract_member(j, &m, err) != PGR_OK)
			return PGR_ERR;
	return rc == PGR_MORE ? PGR_OK : PGR_ERR;
}

static struct job *job_new(struct pgr_extract *x, const struct pgr_archive *a, struct pgr_err *err)
{
	uint32_t oid = a->tablespace->oid;
	const char *target = pgr_layout_tablespace_target(x->layout, oid);
	struct job *j = calloc(1, sizeof(*j));

	if (j == NULL) {
		pgr_err_nomem(err);
		return NULL;
	}
	j->x = x;
	j->oid = oid;
	j->data_dir = a->kind == PGR_ARCHIVE_DATA_DIR;
	j->root = pgr_layout_root(x->layout, oid);
	/* one in place has no directory of its own outside */
	j->where = target != NULL ? target : j->data_dir ? pgr_layout_data_dir(x->layout) : a->tablespace->location;
	j->wal_name = pgr_layout_wal_name(x->layout);
	j->dirfd = -1;
	return j;
}

int pgr_extract_archive(struct pgr_extract *x, const struct pgr_archive *a, struct pgr_source *source,
			struct pgr_err *err)
{
	char name[32];
	struct pgr_err ignored;
	struct job *j;
	int rc;

	if (a->kind == PGR_ARCHIVE_MANIFEST || pgr_layout_root(x->layout, a->tablespace->oid) < 0)
		return pgr_err_set(err, PGR_E_USAGE, "archive \"%s\" has no directory to go to", a->name);
	j = job_new(x, a, err);
	if (j == NULL)
		return PGR_ERR;
	snprintf(name, sizeof(name), a->tablespace->oid == 0 ? "base.tar" : "%u.tar", a->tablespace->oid);
	pgr_tar_reader_init(&j->tar, source, a->name[0] != '\0' ? a->name : name, a->terminated);
	rc = extract_members(j, err);
	/* after a failure that one is told, and a directory that was only read loses nothing */
	if (close_dir(j, rc == PGR_OK ? err : &ignored) != PGR_OK && rc == PGR_OK)
		rc = PGR_ERR;
	free(j);
	return rc;
}
