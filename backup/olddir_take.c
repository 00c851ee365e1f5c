#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "backup/finish.h"
#include "backup/olddir_in.h"
#include "backup/pidfile.h"
#include "backup/seed_state.h"
#include "backup/wipe.h"
#include "common/fs_durable.h"
#include "common/sys.h"

#define GLOBAL "global"

/* What was done in it is durable already. */
static void close_global(const struct pgr_olddir *d, int fd)
{
	(void)d->sys->close(d->sys, fd);
}

/* ---- take-over ---- */

/* Some file systems cannot fsync a directory and say EINVAL; PostgreSQL goes on then (fsync_fname_ext). */
static int sync_dir(const struct pgr_olddir *d, int fd, const char *name, struct pgr_err *err)
{
	int rc;

	do {
		rc = d->sys->fsync(d->sys, fd);
	} while (rc != 0 && errno == EINTR);
	if (rc == 0 || errno == EINVAL)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not fsync directory \"%s%s\"", d->path, name);
}

static int stat_file(const struct pgr_olddir *d, int dirfd, const char *name, bool *there, struct pgr_err *err)
{
	struct stat st;
	int rc = d->sys->fstatat(d->sys, dirfd, name, &st, AT_SYMLINK_NOFOLLOW);

	*there = rc == 0;
	if (rc != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", d->path, name);
	return PGR_OK;
}

static int remove_file(const struct pgr_olddir *d, int dirfd, const char *dir, const char *name, struct pgr_err *err)
{
	if (d->sys->unlinkat(d->sys, dirfd, name, 0) == 0 || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not remove file \"%s/%s%s\"", d->path, dir, name);
}

/* A directory that was made since it was missed: whoever else made it may have begun, or even ended. */
static int lock_new(struct pgr_olddir *d, int root, struct pgr_err *err)
{
	bool state, control;

	d->fd = d->sys->openat(d->sys, root, ".", PGR_OLDDIR_FLAGS, 0);
	if (d->fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", d->path);
	if (pgr_olddir_lock(d, err) != PGR_OK || stat_file(d, d->fd, PGR_OLDDIR_STATE, &state, err) != PGR_OK ||
	    stat_file(d, d->fd, GLOBAL, &control, err) != PGR_OK)
		return PGR_ERR;
	return state || control ? pgr_olddir_refuse(d, "was filled meanwhile", err) : PGR_OK;
}

/* What was looked at and locked is what is going to be changed. */
static int check_same(const struct pgr_olddir *d, int root, uint64_t *inode, struct pgr_err *err)
{
	struct stat seen, now;

	if (d->sys->fstat(d->sys, d->fd, &seen) != 0 || d->sys->fstat(d->sys, root, &now) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", d->path);
	if (seen.st_dev != now.st_dev || seen.st_ino != now.st_ino)
		return pgr_olddir_refuse(d, "was replaced meanwhile", err);
	*inode = now.st_ino;
	return PGR_OK;
}

/* What the next run has to know of all runs up to this one. */
static struct pgr_olddir_state merge_state(const struct pgr_olddir *d, const struct pgr_olddir_state *state)
{
	struct pgr_olddir_state s = *state;

	s.fresh = d->kind == PGR_OLDDIR_EMPTY || (d->kind == PGR_OLDDIR_UNFINISHED && d->state.fresh);
	if (d->kind == PGR_OLDDIR_EMPTY)
		return s;
	s.start = PGR_LSN_INVALID;
	s.tli = 0;
	if (d->kind == PGR_OLDDIR_UNFINISHED) {
		s.start = d->state.start;
		s.tli = d->state.tli;
		s.whole = s.whole && d->state.whole;
		s.server_tli = s.server_tli == d->state.server_tli ? s.server_tli : 0;
	} else if (d->base == PGR_LSN_INVALID) {
		s.whole = false;
	} else if (d->is_backup) {
		s.start = d->base;
		s.tli = d->base_tli;
	}
	return s;
}

static int write_state(const struct pgr_olddir *d, int root, const struct pgr_olddir_state *s, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = pgr_seed_state_format(&text, s, err);

	if (rc == PGR_OK)
		rc = pgr_fs_write_file(d->sys, root, d->path, PGR_OLDDIR_STATE, PGR_STATE_TMP, text.data, text.len,
				       0600, true, err);
	pgr_buf_fini(&text);
	return rc;
}

static int move_control(const struct pgr_olddir *d, int global, const char *from, const char *to, struct pgr_err *err)
{
	char where[PATH_MAX + 8];

	snprintf(where, sizeof(where), "%s/" GLOBAL, d->path);
	return pgr_fs_durable_rename(d->sys, global, where, -1, from, to, err);
}

/* A server that was starting while pg_control went away saw it, and has its lock file by now. */
static int look_again(const struct pgr_olddir *d, int root, int global, bool moved, struct pgr_err *err)
{
	struct pgr_err undo;

	if (pgr_pidfile_check(d->sys, root, d->path, err) == PGR_OK)
		return PGR_OK;
	if (moved && move_control(d, global, PGR_ASIDE_NAME, PGR_CONTROL_NAME, &undo) != PGR_OK)
		pgr_err_detail(err, "Its pg_control is \"" PGR_OLDDIR_CONTROL "\" now: %s", undo.msg);
	return PGR_ERR;
}

static int set_aside_in(struct pgr_olddir *d, int root, int global, struct pgr_err *err)
{
	bool there;

	if (stat_file(d, global, PGR_CONTROL_NAME, &there, err) != PGR_OK)
		return PGR_ERR;
	if (d->has_aside) {
		/* the same content twice: see judge */
		if (there && (remove_file(d, global, GLOBAL "/", PGR_CONTROL_NAME, err) != PGR_OK ||
			      sync_dir(d, global, "/" GLOBAL, err) != PGR_OK))
			return PGR_ERR;
		there = false;
	} else if (there && move_control(d, global, PGR_CONTROL_NAME, PGR_ASIDE_NAME, err) != PGR_OK) {
		return PGR_ERR;
	}
	return look_again(d, root, global, there, err);
}

static int set_aside(struct pgr_olddir *d, int root, struct pgr_err *err)
{
	int fd;
	int rc = pgr_olddir_global(d, root, &fd, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	rc = set_aside_in(d, root, fd, err);
	close_global(d, fd);
	return rc;
}

/* Of no use to the next server, or wrong as soon as the first file is another. */
static int remove_leftovers(const struct pgr_olddir *d, int root, struct pgr_err *err)
{
	static const char *const names[] = {PGR_MANIFEST_NAME, PGR_MANIFEST_TMP, PGR_PIDFILE_NAME, "postmaster.opts"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (pgr_wipe(d->sys, root, d->path, names[i], err) != PGR_OK)
			return PGR_ERR;
	return sync_dir(d, root, "", err);
}

/*
 * The state comes first: with pg_control in its place it is not looked at, and nothing is otherwise than it was.  The
 * rename is what makes the directory unfinished; by then the state is durable.  Only then anything is removed.
 */
int pgr_olddir_take_over(struct pgr_olddir *d, int root, const struct pgr_olddir_state *state, struct pgr_err *err)
{
	struct pgr_olddir_state merged = merge_state(d, state);

	if ((d->fd < 0 && lock_new(d, root, err) != PGR_OK) || check_same(d, root, &merged.inode, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_pidfile_check(d->sys, root, d->path, err) != PGR_OK || write_state(d, root, &merged, err) != PGR_OK ||
	    set_aside(d, root, err) != PGR_OK || remove_leftovers(d, root, err) != PGR_OK)
		return PGR_ERR;
	d->written = merged;
	d->taken = true;
	return PGR_OK;
}

int pgr_olddir_distrust(struct pgr_olddir *d, int root, struct pgr_err *err)
{
	if (!d->taken)
		return pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" was not taken over", d->path);
	d->written.whole = false;
	return write_state(d, root, &d->written, err);
}

/* ---- finish ---- */

static int remove_aside(const struct pgr_olddir *d, int root, bool sync, struct pgr_err *err)
{
	int fd;
	int rc = pgr_olddir_global(d, root, &fd, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	rc = remove_file(d, fd, GLOBAL "/", PGR_ASIDE_NAME, err);
	if (rc == PGR_OK && sync)
		rc = sync_dir(d, fd, "/" GLOBAL, err);
	close_global(d, fd);
	return rc;
}

/* Without syncs a power cut may leave anything: then the state says of the files what it did. */
int pgr_olddir_settle(struct pgr_olddir *d, int root, pgr_lsn start, pgr_tli tli, bool sync, struct pgr_err *err)
{
	struct pgr_olddir_state s = d->written;

	if (!d->taken)
		return PGR_OK;
	s.start = start;
	s.tli = s.server_tli = tli;
	s.whole = true;
	if (sync && write_state(d, root, &s, err) != PGR_OK)
		return PGR_ERR;
	return remove_aside(d, root, sync, err);
}

int pgr_olddir_finish(struct pgr_olddir *d, int root, bool sync, struct pgr_err *err)
{
	if (!d->taken)
		return PGR_OK;
	if (remove_file(d, root, "", PGR_OLDDIR_STATE, err) != PGR_OK)
		return PGR_ERR;
	return sync ? sync_dir(d, root, "", err) : PGR_OK;
}
