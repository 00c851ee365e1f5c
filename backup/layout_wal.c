/* pg_wal in a directory that is made over (--delta): where it is, and what it becomes. */
#include "backup/layout_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "backup/wipe.h"
#include "common/sys.h"
#include "receiver/walpage.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* ---- as it is ---- */

static int check_wal_dir(const struct pgr_layout *l, struct pgr_err *err)
{
	int rc;

	if (pgr_root_same(&l->wal, &l->data))
		return pgr_err_set(err, PGR_E_USAGE, "WAL directory \"%s\" is the data directory", l->wal.path);
	rc = pgr_root_holds(l->sys, &l->wal, l->data.path, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	/* it is going to be emptied */
	return pgr_err_set(err, PGR_E_USAGE, "WAL directory \"%s\" holds the data directory \"%s\"", l->wal.path,
			   l->data.path);
}

static int leads_nowhere(const struct pgr_layout *l, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "\"%s/%s\" is a link to \"%s\", which does not exist", l->data.path, l->wal_name,
		    l->wal.path);
	return pgr_err_hint(err, "Make or mount the directory, remove the link, or name another with --waldir.");
}

/* ---- is it what it should be? ---- */

/*
 * What a link leads to is going to be emptied, and may be something else than who made the link had in mind.  So there
 * must be something that a WAL directory has, and nothing that none has: no other directory, no other cluster's WAL.
 */
static bool is_dir_of_wal(const char *name)
{
	return strcmp(name, "archive_status") == 0 || strcmp(name, "summaries") == 0;
}

#define SEGMENT_NAME 24 /* XLOG_FNAME_LEN */
#define TLI_NAME     8

/* Also compressed, in parts, of a backup's history; and what a recovery fetches.  Not a date that is somebody's. */
static bool is_of_wal(const char *name)
{
	size_t n = strspn(name, "0123456789ABCDEF");

	if (n == SEGMENT_NAME)
		return name[n] == '\0' || name[n] == '.';
	return (n == TLI_NAME && strncmp(name + n, ".history", strlen(".history")) == 0) ||
	       strncmp(name, "xlogtemp.", strlen("xlogtemp.")) == 0 || strcmp(name, "RECOVERYXLOG") == 0 ||
	       strcmp(name, "RECOVERYHISTORY") == 0;
}

struct content {
	bool wal, other;
	char directory[NAME_MAX + 1]; /* one that is none of pg_wal's; "" */
	char foreign[NAME_MAX + 1];   /* a segment of another cluster; "" */
};

/* What cannot be read, or begins with no page of WAL, says nothing. */
static bool is_foreign(const struct pgr_layout *l, const char *name)
{
	uint8_t head[PGR_WALPAGE_LONG];
	struct pgr_walpage page;
	struct pgr_err ignored;
	ssize_t n;
	int fd;

	if (l->system_identifier == 0 || strspn(name, "0123456789ABCDEF") != SEGMENT_NAME)
		return false;
	fd = l->sys->openat(l->sys, l->wal.fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	n = l->sys->pread(l->sys, fd, head, sizeof(head), 0);
	(void)l->sys->close(l->sys, fd); /* it was only read */
	return n == (ssize_t)sizeof(head) && pgr_walpage_first(head, sizeof(head), &page, &ignored) == PGR_OK &&
	       page.system_id != l->system_identifier;
}

static int look_at(const struct pgr_layout *l, const char *name, struct content *c, struct pgr_err *err)
{
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, PGR_LOST_FOUND) == 0)
		return PGR_OK;
	if (l->sys->fstatat(l->sys, l->wal.fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? PGR_OK
				       : pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", l->wal.path, name);
	if (S_ISDIR(st.st_mode) ? is_dir_of_wal(name) : is_of_wal(name))
		c->wal = true;
	else if (S_ISDIR(st.st_mode))
		snprintf(c->directory, sizeof(c->directory), "%s", name);
	else
		c->other = true;
	if (S_ISREG(st.st_mode) && is_foreign(l, name))
		snprintf(c->foreign, sizeof(c->foreign), "%s", name);
	return PGR_OK;
}

static int read_content(const struct pgr_layout *l, struct content *c, struct pgr_err *err)
{
	int fd = l->sys->openat(l->sys, l->wal.fd, ".", DIR_FLAGS, 0), rc = PGR_OK;
	DIR *d = fd >= 0 ? l->sys->fdopendir(l->sys, fd) : NULL;
	struct dirent *de = NULL;

	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", l->wal.path);
		if (fd >= 0)
			(void)l->sys->close(l->sys, fd); /* there is a failure to tell already */
		return PGR_ERR;
	}
	while (rc == PGR_OK && (de = l->sys->readdir(l->sys, d)) != NULL)
		rc = look_at(l, de->d_name, c, err);
	if (rc == PGR_OK && errno != 0)
		rc = pgr_err_sys(err, errno, "could not read directory \"%s\"", l->wal.path);
	if (l->sys->closedir(l->sys, d) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", l->wal.path);
	return rc;
}

static int check_content(const struct pgr_layout *l, struct pgr_err *err)
{
	struct content c = {0};

	if (read_content(l, &c, err) != PGR_OK)
		return PGR_ERR;
	if (c.directory[0] != '\0')
		pgr_err_set(err, PGR_E_USAGE,
			    "\"%s/%s\" leads to \"%s\", which is no WAL directory: it holds the directory \"%s\"",
			    l->data.path, l->wal_name, l->wal.path, c.directory);
	else if (c.foreign[0] != '\0')
		pgr_err_set(err, PGR_E_USAGE,
			    "\"%s/%s\" leads to \"%s\", which has the WAL of another cluster: file \"%s\"",
			    l->data.path, l->wal_name, l->wal.path, c.foreign);
	else if (c.other && !c.wal)
		pgr_err_set(err, PGR_E_USAGE,
			    "\"%s/%s\" leads to \"%s\", which is no WAL directory: there is no WAL in it", l->data.path,
			    l->wal_name, l->wal.path);
	else
		return PGR_OK;
	return pgr_err_hint(err,
			    "It would be emptied.  Remove what does not belong there, or name another directory with "
			    "--waldir.");
}

/* ---- opening it ---- */

/* Nobody said where the WAL is to be, so it stays where it was. */
static int keep_wal_link(struct pgr_layout *l, struct pgr_err *err)
{
	bool missing = false;
	int rc = pgr_layout_read_link(l, l->data.fd, l->data.path, l->wal_name, &l->wal.path, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	rc = pgr_root_open(l->sys, &l->wal, err);
	if (rc == PGR_OK)
		return check_wal_dir(l, err) == PGR_OK ? check_content(l, err) : PGR_ERR;
	if (rc == PGR_MORE) {
		rc = pgr_root_check(l->sys, &l->wal, &missing, err);
		if (rc == PGR_OK)
			rc = missing ? leads_nowhere(l, err) : pgr_layout_make_root(l, &l->wal, err);
	}
	return rc == PGR_OK ? check_wal_dir(l, err) : PGR_ERR;
}

static int open_wal_dir(struct pgr_layout *l, struct pgr_err *err)
{
	l->wal.fd = l->sys->openat(l->sys, l->data.fd, l->wal_name, DIR_FLAGS | O_NOFOLLOW, 0);
	if (l->wal.fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s/%s\"", l->data.path, l->wal_name);
	return PGR_OK;
}

/* What is to make place for the link to --waldir must be removable, and not take that with it. */
static int check_replaceable(const struct pgr_layout *l, const struct stat *st, struct pgr_err *err)
{
	const struct pgr_root own = {.fd = -1, .dev = st->st_dev, .ino = st->st_ino};
	int rc;

	if (!S_ISDIR(st->st_mode))
		return PGR_OK;
	if (pgr_is_mounted(l->sys, l->data.fd, l->wal_name, st, l->data.dev))
		return pgr_err_set(err, PGR_E_USAGE,
				   "\"%s/%s\" is a mount point and cannot be replaced by a link to \"%s\"",
				   l->data.path, l->wal_name, l->wal.path);
	rc = pgr_root_holds(l->sys, &own, l->wal.path, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	return pgr_err_set(err, PGR_E_USAGE, "WAL directory \"%s\" lies in \"%s/%s\", which it is to replace",
			   l->wal.path, l->data.path, l->wal_name);
}

static bool leads_to(const struct pgr_layout *l, int dirfd, const char *name, const char *path)
{
	struct stat a, b;

	return l->sys->fstatat(l->sys, dirfd, name, &a, 0) == 0 &&
	       l->sys->fstatat(l->sys, AT_FDCWD, path, &b, 0) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* --waldir was given. */
static int open_waldir(struct pgr_layout *l, const struct stat *st, struct pgr_err *err)
{
	int rc = PGR_MORE;

	l->link_wal = !S_ISLNK(st->st_mode) || !leads_to(l, l->data.fd, l->wal_name, l->wal.path);
	if (check_replaceable(l, st, err) != PGR_OK)
		return PGR_ERR;
	if (!l->link_wal)
		rc = pgr_root_open(l->sys, &l->wal, err);
	if (rc == PGR_OK)
		return check_wal_dir(l, err) == PGR_OK ? check_content(l, err) : PGR_ERR;
	if (rc == PGR_MORE)
		rc = pgr_layout_make_root(l, &l->wal, err);
	return rc == PGR_OK ? check_wal_dir(l, err) : PGR_ERR;
}

int pgr_layout_old_wal(struct pgr_layout *l, struct pgr_err *err)
{
	struct stat st = {0};

	if (l->sys->fstatat(l->sys, l->data.fd, l->wal_name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", l->data.path, l->wal_name);
	if (l->wal.path != NULL)
		return open_waldir(l, &st, err);
	if (S_ISLNK(st.st_mode))
		return keep_wal_link(l, err);
	return S_ISDIR(st.st_mode) ? open_wal_dir(l, err) : PGR_OK;
}

/* ---- taking over ---- */

static int place_wal(const struct pgr_layout *l, struct pgr_err *err)
{
	struct stat st;

	if (l->sys->fstatat(l->sys, l->data.fd, l->wal_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno != ENOENT)
			return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", l->data.path, l->wal_name);
	} else if (l->link_wal || !(S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode))) {
		if (pgr_wipe(l->sys, l->data.fd, l->data.path, l->wal_name, err) != PGR_OK)
			return PGR_ERR;
	}
	if (l->link_wal && l->sys->symlinkat(l->sys, l->wal.path, l->data.fd, l->wal_name) != 0)
		return pgr_err_sys(err, errno, "could not create symbolic link \"%s/%s\"", l->data.path, l->wal_name);
	return PGR_OK;
}

int pgr_layout_take_wal(struct pgr_layout *l, struct pgr_err *err)
{
	char inside[PATH_MAX + 16];

	if (place_wal(l, err) != PGR_OK)
		return PGR_ERR;
	l->link_wal = false;
	l->wal_ready = false;
	snprintf(inside, sizeof(inside), "%s/%s", l->data.path, l->wal_name);
	if (l->wal.fd < 0)
		return PGR_OK;
	if (l->wal.path == NULL && pgr_layout_set_mode(l, l->wal.fd, inside, err) != PGR_OK)
		return PGR_ERR;
	return pgr_wipe_contents(l->sys, l->wal.fd, l->wal.path != NULL ? l->wal.path : inside, err);
}
