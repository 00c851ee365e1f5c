#include "receiver/segfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs_durable.h"
#include "common/sys.h"

#define PARTIAL	     ".partial"
#define WINDOW	     (64u * 1024u) /* how much is compared at a time */
#define STATUS_DIR   "archive_status"
#define STATUS_NAMES 512 /* room for its name in messages */

void pgr_segfile_name(const struct pgr_waldir *d, pgr_tli tli, pgr_segno seg, char out[PGR_SEGNAME_ROOM])
{
	char base[PGR_WALNAME_LEN + 1];

	pgr_walname_format(base, tli, seg, d->segment_bytes);
	snprintf(out, PGR_SEGNAME_ROOM, "%s%s", base, d->partial_suffix ? PARTIAL : "");
}

void pgr_segfile_waiting_name(pgr_segno seg, char out[PGR_SEGNAME_ROOM])
{
	snprintf(out, PGR_SEGNAME_ROOM, "xlogtemp.pgr.%u.tmp", (unsigned)(seg % PGR_SEGFILE_WAITING));
}

/* ---- making and opening ---- */

static void set_name(struct pgr_segfile *f, const char *name)
{
	snprintf(f->name, sizeof(f->name), "%s", name);
}

/* Somebody will have to make room. */
static int cannot_allocate(const struct pgr_waldir *d, const struct pgr_segfile *f, struct pgr_err *err)
{
	struct statvfs st;

	pgr_err_sys(err, errno, "could not allocate %u bytes for write-ahead log file \"%s/%s\"", d->segment_bytes,
		    d->dir, f->name);
	if (err->sys_errno == ENOSPC && d->sys->fstatvfs(d->sys, f->fd, &st) == 0)
		pgr_err_detail(err, "%llu bytes are free", (unsigned long long)st.f_bavail * st.f_frsize);
	return PGR_ERR;
}

static int allocate(const struct pgr_waldir *d, const struct pgr_segfile *f, struct pgr_err *err)
{
	int rc;

	do
		rc = d->sys->fallocate(d->sys, f->fd, 0, 0, d->segment_bytes);
	while (rc != 0 && errno == EINTR);
	if (rc != 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		rc = d->sys->ftruncate(d->sys, f->fd, d->segment_bytes);
	return rc == 0 ? PGR_OK : cannot_allocate(d, f, err);
}

static int open_file(const struct pgr_waldir *d, const char *name, int flags, struct pgr_segfile *f,
		     struct pgr_err *err)
{
	*f = (struct pgr_segfile){.fd = -1};
	set_name(f, name);
	f->fd = d->sys->openat(d->sys, d->dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, d->file_mode);
	if (f->fd < 0)
		return pgr_err_sys(err, errno, "could not open write-ahead log file \"%s/%s\"", d->dir, name);
	return PGR_OK;
}

int pgr_segfile_create(const struct pgr_waldir *d, const char *name, struct pgr_segfile *f, struct pgr_err *err)
{
	int rc;

	if (open_file(d, name, O_CREAT | O_EXCL, f, err) != PGR_OK)
		return PGR_ERR;
	if (d->sys->fchmod(d->sys, f->fd, d->file_mode) != 0) /* whatever the umask took away */
		rc = pgr_err_sys(err, errno, "could not set permissions of file \"%s/%s\"", d->dir, name);
	else
		rc = allocate(d, f, err);
	if (rc != PGR_OK)
		pgr_segfile_remove(d, f); /* if it stays, a later start can use it */
	return rc;
}

/* A file of its full size from the start: no sync has to carry a new size. */
static int check_old(const struct pgr_waldir *d, const struct pgr_segfile *f, off_t at_least, off_t *old_bytes,
		     struct pgr_err *err)
{
	struct stat st;

	if (d->sys->fstat(d->sys, f->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", d->dir, f->name);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "write-ahead log file \"%s/%s\" is not a regular file", d->dir,
				   f->name);
	if (st.st_size > (off_t)d->segment_bytes || st.st_size < at_least)
		return pgr_err_set(err, PGR_E_DATA,
				   "write-ahead log file \"%s/%s\" has %lld bytes, should be between %lld and %u",
				   d->dir, f->name, (long long)st.st_size, (long long)at_least, d->segment_bytes);
	*old_bytes = st.st_size;
	return st.st_size < (off_t)d->segment_bytes ? allocate(d, f, err) : PGR_OK;
}

int pgr_segfile_open(const struct pgr_waldir *d, const char *name, off_t at_least, struct pgr_segfile *f,
		     off_t *old_bytes, struct pgr_err *err)
{
	*old_bytes = 0;
	if (open_file(d, name, 0, f, err) != PGR_OK)
		return err->sys_errno == ENOENT ? PGR_MORE : PGR_ERR;
	if (check_old(d, f, at_least, old_bytes, err) == PGR_OK)
		return PGR_OK;
	pgr_segfile_drop(d, f);
	return PGR_ERR;
}

/* ---- syncing ---- */

/* An interrupted sync did not fail. */
static int retry_sync(int (*sync)(const struct pgr_sys *, int fd), const struct pgr_sys *sys, int fd)
{
	int rc;

	do
		rc = sync(sys, fd);
	while (rc != 0 && errno == EINTR);
	return rc;
}

int pgr_segfile_sync(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err)
{
	if (d->sync && retry_sync(f->size_durable ? d->sys->fdatasync : d->sys->fsync, d->sys, f->fd) != 0)
		return pgr_err_sys(err, errno, "could not fsync file \"%s/%s\"", d->dir, f->name);
	f->size_durable = true;
	return PGR_OK;
}

/* EINVAL: a file system that has no such thing, as in PostgreSQL's fsync_fname (src/common/file_utils.c). */
int pgr_waldir_sync(const struct pgr_waldir *d, struct pgr_err *err)
{
	if (!d->sync || retry_sync(d->sys->fsync, d->sys, d->dirfd) == 0 || errno == EINVAL)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not fsync directory \"%s\"", d->dir);
}

/* ---- names ---- */

int pgr_segfile_rename(const struct pgr_waldir *d, struct pgr_segfile *f, const char *name, struct pgr_err *err)
{
	if (d->sys->renameat(d->sys, d->dirfd, f->name, d->dirfd, name) != 0)
		return pgr_err_sys(err, errno, "could not rename file \"%s/%s\" to \"%s\"", d->dir, f->name, name);
	set_name(f, name);
	f->entry_durable = false;
	return PGR_OK;
}

int pgr_segfile_take_name(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err)
{
	if (f->due[0] != '\0' && pgr_segfile_rename(d, f, f->due, err) != PGR_OK)
		return PGR_ERR;
	f->due[0] = '\0';
	return PGR_OK;
}

static int read_at(const struct pgr_waldir *d, int fd, const char *name, off_t off, uint8_t *buf, size_t *got,
		   struct pgr_err *err)
{
	*got = 0;
	while (*got < WINDOW) {
		ssize_t n = d->sys->pread(d->sys, fd, buf + *got, WINDOW - *got, off + (off_t)*got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s/%s\"", d->dir, name);
		if (n == 0)
			break;
		*got += (size_t)n;
	}
	return PGR_OK;
}

/* PGR_MORE: they differ.  `buf` has two windows. */
static int compare(const struct pgr_waldir *d, const struct pgr_segfile *f, int fd, const char *name, uint8_t *buf,
		   struct pgr_err *err)
{
	for (off_t off = 0;; off += (off_t)WINDOW) {
		size_t a, b;

		if (read_at(d, f->fd, f->name, off, buf, &a, err) != PGR_OK ||
		    read_at(d, fd, name, off, buf + WINDOW, &b, err) != PGR_OK)
			return PGR_ERR;
		if (a != b || memcmp(buf, buf + WINDOW, a) != 0)
			return PGR_MORE;
		if (a < WINDOW)
			return PGR_OK;
	}
}

static int check_final_name(const struct pgr_waldir *d, const struct pgr_segfile *f, const char *name,
			    struct pgr_err *err)
{
	int fd = d->sys->openat(d->sys, d->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	uint8_t *buf;
	int rc;

	if (fd < 0 && errno == ENOENT)
		return PGR_OK;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s/%s\"", d->dir, name);
	buf = malloc(2 * (size_t)WINDOW);
	rc = buf != NULL ? compare(d, f, fd, name, buf, err) : pgr_err_nomem(err);
	free(buf);
	d->sys->close(d->sys, fd); /* was only read */
	if (rc != PGR_MORE)
		return rc;
	return pgr_err_set(err, PGR_E_DATA,
			   "could not rename file \"%s/%s\" to \"%s\": a file of that name with other content exists",
			   d->dir, f->name, name);
}

int pgr_segfile_finish(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err)
{
	char final[PGR_WALNAME_LEN + 1];

	memcpy(final, f->due[0] != '\0' ? f->due : f->name, PGR_WALNAME_LEN);
	final[PGR_WALNAME_LEN] = '\0';
	if (strcmp(final, f->name) == 0)
		return PGR_OK;
	if (check_final_name(d, f, final, err) != PGR_OK || pgr_segfile_rename(d, f, final, err) != PGR_OK)
		return PGR_ERR;
	f->due[0] = '\0';
	return PGR_OK;
}

int pgr_segfile_mark(const struct pgr_waldir *d, const char *name, struct pgr_err *err)
{
	char where[STATUS_NAMES], done[PGR_SEGNAME_ROOM];
	int fd, rc;

	if (!d->archive_status)
		return PGR_OK;
	snprintf(where, sizeof(where), "%s/" STATUS_DIR, d->dir);
	fd = d->sys->openat(d->sys, d->dirfd, STATUS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", where);
	snprintf(done, sizeof(done), "%.32s.done", name);
	rc = pgr_fs_write_file(d->sys, fd, where, done, ".tmp", "", 0, d->file_mode, d->sync, err);
	d->sys->close(d->sys, fd);
	return rc;
}

/* ---- the end ---- */

int pgr_segfile_close(const struct pgr_waldir *d, struct pgr_segfile *f, struct pgr_err *err)
{
	int fd = f->fd;

	f->fd = -1;
	if (d->sys->close(d->sys, fd) == 0)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not close file \"%s/%s\"", d->dir, f->name);
}

static void close_quietly(const struct pgr_waldir *d, struct pgr_segfile *f)
{
	if (f->fd >= 0)
		d->sys->close(d->sys, f->fd);
	f->fd = -1;
}

void pgr_segfile_drop(const struct pgr_waldir *d, struct pgr_segfile *f)
{
	bool waited = f->fd >= 0 && f->due[0] != '\0';

	close_quietly(d, f);
	if (waited)
		d->sys->unlinkat(d->sys, d->dirfd, f->name, 0);
}

void pgr_segfile_remove(const struct pgr_waldir *d, struct pgr_segfile *f)
{
	close_quietly(d, f);
	d->sys->unlinkat(d->sys, d->dirfd, f->name, 0);
}
