#include "receiver/walstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs.h"
#include "common/sys.h"

#define PARTIAL	    ".partial"
#define NAME_ROOM   64			/* a segment's or history file's name with any suffix */
#define WINDOW	    (64u * 1024u)	/* how much of a file is read at a time to be compared; divides every segment */
#define ALIGNMENT   4096u		/* of memory for direct reads */
#define HISTORY_MAX (64u * 1024 * 1024) /* no server sends a longer one (client.h) */

/* What the file of the open segment held when it was opened, as long as it is what comes again. */
struct old_bytes {
	off_t len;    /* 0: nothing to compare (any more) */
	int fd;	      /* reads what is on the disk, see open_old; -1: read through the segment's descriptor */
	uint8_t *buf; /* WINDOW bytes of the file from win_off, win_len of them valid */
	off_t win_off;
	size_t win_len;
};

/*
 * - fd >= 0: `written` lies in the open segment, before its end, but for the time of complete_segment.
 * - fd < 0: written == synced.
 * - synced only passes the end of a segment when its final name is durable.
 */
struct pgr_walstore {
	/* constant */
	const struct pgr_sys *sys;
	int dirfd;
	char *dir;
	char *status_dir; /* name of archive_status below it */
	uint32_t segment_bytes;
	mode_t file_mode;
	bool sync;
	bool partial_suffix;
	bool archive_status;

	int status_fd;	       /* archive_status, opened when it is first needed; -1 */
	struct pgr_err failed; /* the failure after which nothing is done any more; PGR_E_NONE: none */

	bool begun;
	pgr_tli tli;
	pgr_lsn written;
	pgr_lsn synced;

	/* the open segment */
	int fd;		    /* -1: none */
	char *path;	    /* dir/name, for messages */
	char *name;	    /* inside path */
	bool entry_durable; /* its size and directory entry were synced */
	struct old_bytes old;
};

/* ---- failures ---- */

/*
 * After a failed write or sync nobody knows what the disk holds, and a second fsync would say that all is well.  So the
 * first failure stays.
 */
static int poison(struct pgr_walstore *s, const struct pgr_err *err)
{
	if (s->failed.cls == PGR_E_NONE)
		s->failed = *err;
	return PGR_ERR;
}

static int check_usable(const struct pgr_walstore *s, struct pgr_err *err)
{
	if (s->failed.cls == PGR_E_NONE)
		return PGR_OK;
	*err = s->failed;
	return pgr_err_prefix(err, "nothing is written to \"%s\" after an earlier error", s->dir);
}

static int retry_sync(int (*sync)(const struct pgr_sys *, int fd), const struct pgr_sys *sys, int fd)
{
	int rc;

	do
		rc = sync(sys, fd);
	while (rc != 0 && errno == EINTR); /* an interrupted one did not fail */
	return rc;
}

/* EINVAL: a file system that has no such thing, as in PostgreSQL's fsync_fname (src/common/file_utils.c). */
static int sync_dir(struct pgr_walstore *s, struct pgr_err *err)
{
	if (!s->sync || retry_sync(s->sys->fsync, s->sys, s->dirfd) == 0 || errno == EINVAL)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not fsync directory \"%s\"", s->dir);
	return poison(s, err);
}

/* ---- making and freeing ---- */

static int copy_names(struct pgr_walstore *s, const char *dir, struct pgr_err *err)
{
	size_t len = strlen(dir);

	s->dir = strdup(dir);
	s->path = malloc(len + 1 + NAME_ROOM);
	s->status_dir = malloc(len + sizeof("/archive_status"));
	if (s->dir == NULL || s->path == NULL || s->status_dir == NULL)
		return pgr_err_nomem(err);
	snprintf(s->path, len + 1 + NAME_ROOM, "%s/", dir);
	s->name = s->path + len + 1;
	snprintf(s->status_dir, len + sizeof("/archive_status"), "%s/archive_status", dir);
	return PGR_OK;
}

int pgr_walstore_new(struct pgr_walstore **out, const struct pgr_sys *sys, int dirfd,
		     const struct pgr_walstore_opts *opts, struct pgr_err *err)
{
	struct pgr_walstore *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (s == NULL) {
		sys->close(sys, dirfd);
		return pgr_err_nomem(err);
	}
	s->sys = sys;
	s->dirfd = dirfd;
	s->status_fd = -1;
	s->fd = -1;
	s->old.fd = -1;
	s->segment_bytes = opts->segment_bytes;
	s->file_mode = opts->file_mode;
	s->sync = opts->sync;
	s->partial_suffix = opts->partial_suffix;
	s->archive_status = opts->archive_status;
	if (copy_names(s, opts->dir, err) != PGR_OK) {
		pgr_walstore_free(s);
		return PGR_ERR;
	}
	if (!pgr_walseg_valid(s->segment_bytes)) {
		pgr_walstore_free(s);
		return pgr_err_set(err, PGR_E_USAGE, "invalid WAL segment size: %u bytes", opts->segment_bytes);
	}
	*out = s;
	return PGR_OK;
}

/* Only descriptors without anything unwritten behind them: their close has nothing to tell. */
static void close_quietly(const struct pgr_walstore *s, int *fd)
{
	if (*fd >= 0)
		s->sys->close(s->sys, *fd);
	*fd = -1;
}

static void forget_old(struct pgr_walstore *s)
{
	close_quietly(s, &s->old.fd);
	free(s->old.buf);
	s->old = (struct old_bytes){.fd = -1};
}

void pgr_walstore_free(struct pgr_walstore *s)
{
	if (s == NULL)
		return;
	forget_old(s);
	close_quietly(s, &s->fd);
	close_quietly(s, &s->status_fd);
	close_quietly(s, &s->dirfd);
	free(s->dir);
	free(s->status_dir);
	free(s->path);
	free(s);
}

/* ---- what is already there ---- */

/*
 * The old bytes are read past the page cache: after a failed fsync of an earlier run the cache shows bytes that never
 * reached the disk, and counts them as clean, so that comparing with it and syncing would acknowledge what is not
 * there.  Where direct reads do not exist the cache has to do.
 */
static int open_old(struct pgr_walstore *s, off_t len, struct pgr_err *err)
{
	s->old.buf = aligned_alloc(ALIGNMENT, WINDOW);
	if (s->old.buf == NULL)
		return pgr_err_nomem(err);
	s->old.fd = s->sys->openat(s->sys, s->dirfd, s->name, O_RDONLY | O_DIRECT | O_NOFOLLOW | O_CLOEXEC, 0);
	if (s->old.fd < 0 && errno != EINVAL)
		return pgr_err_sys(err, errno, "could not open write-ahead log file \"%s\"", s->path);
	s->old.len = len;
	return PGR_OK;
}

/* Makes the window hold the byte at `at`, if the file does. */
static int load_window(struct pgr_walstore *s, off_t at, struct pgr_err *err)
{
	struct old_bytes *o = &s->old;

	if (at >= o->win_off && at < o->win_off + (off_t)o->win_len)
		return PGR_OK;
	o->win_off = at - at % (off_t)WINDOW;
	o->win_len = 0;
	while (o->win_len < WINDOW) {
		ssize_t n = s->sys->pread(s->sys, o->fd >= 0 ? o->fd : s->fd, o->buf + o->win_len, WINDOW - o->win_len,
					  o->win_off + (off_t)o->win_len);

		if (n > 0)
			o->win_len += (size_t)n;
		else if (n == 0)
			break;
		else if (errno == EINVAL && o->fd >= 0)
			close_quietly(s, &o->fd); /* no direct reads of this kind here */
		else if (errno != EINTR)
			return pgr_err_sys(err, errno, "could not read file \"%s\"", s->path);
	}
	return PGR_OK;
}

static size_t common_prefix(const uint8_t *a, const uint8_t *b, size_t len)
{
	size_t n = 0;

	if (memcmp(a, b, len) == 0)
		return len;
	while (a[n] == b[n])
		n++;
	return n;
}

/* *same bytes of p are what the file holds at `off`; after the first that is not, all the rest is new. */
static int match_old(struct pgr_walstore *s, off_t off, const uint8_t *p, size_t len, size_t *same, struct pgr_err *err)
{
	struct old_bytes *o = &s->old;

	*same = 0;
	while (*same < len && o->len > 0) {
		off_t at = off + (off_t)*same;
		off_t end;
		size_t n, equal;

		if (load_window(s, at, err) != PGR_OK)
			return PGR_ERR;
		end = o->win_off + (off_t)o->win_len;
		if (end > o->len)
			end = o->len;
		n = end > at ? (size_t)(end - at) : 0;
		if (n > len - *same)
			n = len - *same;
		equal = n > 0 ? common_prefix(o->buf + (at - o->win_off), p + *same, n) : 0;
		*same += equal;
		if (equal < n || n == 0)
			forget_old(s);
	}
	return PGR_OK;
}

/* ---- opening a segment ---- */

static void segment_name(const struct pgr_walstore *s, char out[NAME_ROOM], bool partial)
{
	char base[PGR_WALNAME_LEN + 1];

	pgr_walname_format(base, s->tli, pgr_lsn_segno(s->written, s->segment_bytes), s->segment_bytes);
	snprintf(out, NAME_ROOM, "%s%s", base, partial ? PARTIAL : "");
}

/*
 * A file of its full size from the start: no sync has to carry a new size, and a full disk is met here, where nothing
 * was promised yet.
 */
static int allocate(struct pgr_walstore *s, struct pgr_err *err)
{
	int rc;

	do
		rc = s->sys->fallocate(s->sys, s->fd, 0, 0, s->segment_bytes);
	while (rc != 0 && errno == EINTR);
	if (rc != 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		rc = s->sys->ftruncate(s->sys, s->fd, s->segment_bytes);
	if (rc != 0)
		return pgr_err_sys(err, errno, "could not allocate %u bytes for write-ahead log file \"%s\"",
				   s->segment_bytes, s->path);
	return PGR_OK;
}

static int prepare_new(struct pgr_walstore *s, struct pgr_err *err)
{
	if (s->sys->fchmod(s->sys, s->fd, s->file_mode) != 0) /* whatever the umask took away */
		return pgr_err_sys(err, errno, "could not set permissions of file \"%s\"", s->path);
	return allocate(s, err);
}

/* A file of an earlier run, which may have died at any point: every size up to the full one is fine. */
static int prepare_old(struct pgr_walstore *s, off_t at_least, struct pgr_err *err)
{
	struct stat st;

	if (s->sys->fstat(s->sys, s->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", s->path);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "write-ahead log file \"%s\" is not a regular file", s->path);
	if (st.st_size > (off_t)s->segment_bytes || st.st_size < at_least)
		return pgr_err_set(err, PGR_E_DATA,
				   "write-ahead log file \"%s\" has %lld bytes, should be between %lld and %u", s->path,
				   (long long)st.st_size, (long long)at_least, s->segment_bytes);
	if (st.st_size < (off_t)s->segment_bytes && allocate(s, err) != PGR_OK)
		return PGR_ERR;
	return st.st_size > 0 ? open_old(s, st.st_size, err) : PGR_OK;
}

static int open_file(struct pgr_walstore *s, bool may_create, bool *created, struct pgr_err *err)
{
	const int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC;

	*created = may_create;
	if (may_create)
		s->fd = s->sys->openat(s->sys, s->dirfd, s->name, flags | O_CREAT | O_EXCL, s->file_mode);
	if (!may_create || (s->fd < 0 && errno == EEXIST)) {
		*created = false;
		s->fd = s->sys->openat(s->sys, s->dirfd, s->name, flags, 0);
	}
	if (s->fd < 0)
		return pgr_err_sys(err, errno, "could not open write-ahead log file \"%s\"", s->path);
	return PGR_OK;
}

/*
 * Opens the file of the segment at `written`.  A failure here is not final, nothing was written yet; a file that this
 * call made is gone again.
 */
static int open_segment(struct pgr_walstore *s, bool may_create, struct pgr_err *err)
{
	bool created;
	int rc;

	segment_name(s, s->name, s->partial_suffix);
	if (open_file(s, may_create, &created, err) != PGR_OK)
		return PGR_ERR;
	s->entry_durable = false;
	rc = created ? prepare_new(s, err) : prepare_old(s, pgr_lsn_segoff(s->written, s->segment_bytes), err);
	if (rc == PGR_OK)
		return PGR_OK;
	forget_old(s);
	close_quietly(s, &s->fd);
	if (created)
		s->sys->unlinkat(s->sys, s->dirfd, s->name, 0); /* if it stays, a later start can use it */
	return PGR_ERR;
}

/* ---- durability ---- */

static int sync_file(struct pgr_walstore *s, struct pgr_err *err)
{
	if (!s->sync || retry_sync(s->entry_durable ? s->sys->fdatasync : s->sys->fsync, s->sys, s->fd) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not fsync file \"%s\"", s->path);
	return poison(s, err);
}

/* Everything written into the open segment, short of its end, becomes durable under its present name. */
static int sync_open(struct pgr_walstore *s, struct pgr_err *err)
{
	if (sync_file(s, err) != PGR_OK)
		return PGR_ERR;
	if (!s->entry_durable && sync_dir(s, err) != PGR_OK)
		return PGR_ERR;
	s->entry_durable = true;
	s->synced = s->written;
	return PGR_OK;
}

int pgr_walstore_sync(struct pgr_walstore *s, struct pgr_err *err)
{
	if (check_usable(s, err) != PGR_OK)
		return PGR_ERR;
	return s->fd >= 0 && s->synced < s->written ? sync_open(s, err) : PGR_OK;
}

static int close_file(struct pgr_walstore *s, struct pgr_err *err)
{
	int fd = s->fd;

	s->fd = -1;
	forget_old(s);
	if (s->sys->close(s->sys, fd) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not close file \"%s\"", s->path);
	return poison(s, err);
}

/* ---- the final name ---- */

static int read_at(const struct pgr_walstore *s, int fd, const char *name, off_t off, uint8_t *buf, size_t *got,
		   struct pgr_err *err)
{
	*got = 0;
	while (*got < WINDOW) {
		ssize_t n = s->sys->pread(s->sys, fd, buf + *got, WINDOW - *got, off + (off_t)*got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"%s/%s\"", s->dir, name);
		if (n == 0)
			break;
		*got += (size_t)n;
	}
	return PGR_OK;
}

/* PGR_MORE: they differ.  `buf` has two windows. */
static int compare_with_open(const struct pgr_walstore *s, int fd, const char *name, uint8_t *buf, struct pgr_err *err)
{
	for (off_t off = 0;; off += (off_t)WINDOW) {
		size_t a, b;

		if (read_at(s, s->fd, s->name, off, buf, &a, err) != PGR_OK ||
		    read_at(s, fd, name, off, buf + WINDOW, &b, err) != PGR_OK)
			return PGR_ERR;
		if (a != b || memcmp(buf, buf + WINDOW, a) != 0)
			return PGR_MORE;
		if (a < WINDOW)
			return PGR_OK;
	}
}

/* A finished segment is never overwritten by another one; by an equal one it may be. */
static int check_final_name(const struct pgr_walstore *s, const char *name, struct pgr_err *err)
{
	int fd = s->sys->openat(s->sys, s->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	uint8_t *buf;
	int rc;

	if (fd < 0 && errno == ENOENT)
		return PGR_OK;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s/%s\"", s->dir, name);
	buf = malloc(2 * (size_t)WINDOW);
	rc = buf != NULL ? compare_with_open(s, fd, name, buf, err) : pgr_err_nomem(err);
	free(buf);
	close_quietly(s, &fd);
	if (rc == PGR_MORE)
		return pgr_err_set(
			err, PGR_E_DATA,
			"could not rename file \"%s\" to \"%s\": a file of that name with other content exists",
			s->path, name);
	return rc;
}

/* The synced file of the open segment takes its final name, durably. */
static int take_final_name(struct pgr_walstore *s, struct pgr_err *err)
{
	char final[NAME_ROOM];

	memcpy(final, s->name, PGR_WALNAME_LEN);
	final[PGR_WALNAME_LEN] = '\0';
	if (s->partial_suffix) {
		if (check_final_name(s, final, err) != PGR_OK)
			return poison(s, err);
		if (s->sys->renameat(s->sys, s->dirfd, s->name, s->dirfd, final) != 0) {
			pgr_err_sys(err, errno, "could not rename file \"%s\" to \"%s\"", s->path, final);
			return poison(s, err);
		}
		snprintf(s->name, NAME_ROOM, "%s", final);
		s->entry_durable = false;
	}
	if (!s->entry_durable && sync_dir(s, err) != PGR_OK)
		return PGR_ERR;
	s->entry_durable = true;
	return PGR_OK;
}

static int open_status_dir(struct pgr_walstore *s, struct pgr_err *err)
{
	if (s->status_fd >= 0)
		return PGR_OK;
	s->status_fd = s->sys->openat(s->sys, s->dirfd, "archive_status", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (s->status_fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", s->status_dir);
	return PGR_OK;
}

/* So that a standby made from this directory does not archive the file again once it is promoted. */
static int mark_done(struct pgr_walstore *s, const char *name, struct pgr_err *err)
{
	char done[NAME_ROOM];

	if (!s->archive_status)
		return PGR_OK;
	if (open_status_dir(s, err) != PGR_OK)
		return PGR_ERR;
	snprintf(done, sizeof(done), "%.32s.done", name);
	return pgr_fs_write_file(s->sys, s->status_fd, s->status_dir, done, ".tmp", "", 0, s->file_mode, s->sync, err);
}

/* `written` has reached the end of the open segment. */
static int complete_segment(struct pgr_walstore *s, struct pgr_err *err)
{
	if (sync_file(s, err) != PGR_OK || take_final_name(s, err) != PGR_OK || close_file(s, err) != PGR_OK)
		return PGR_ERR;
	s->synced = s->written;
	return mark_done(s, s->name, err);
}

/* ---- the way of the bytes ---- */

int pgr_walstore_begin(struct pgr_walstore *s, pgr_tli tli, pgr_lsn lsn, struct pgr_err *err)
{
	if (check_usable(s, err) != PGR_OK)
		return PGR_ERR;
	if (s->fd >= 0 || tli == 0)
		return pgr_err_set(err, PGR_E_USAGE, "cannot begin on timeline %u in \"%s\": %s", tli, s->dir,
				   s->fd >= 0 ? "a segment is open" : "no such timeline");
	s->begun = false;
	/* an earlier run may have died after a rename and before it was durable */
	if (sync_dir(s, err) != PGR_OK)
		return PGR_ERR;
	s->tli = tli;
	s->written = lsn;
	s->synced = pgr_lsn_segstart(lsn, s->segment_bytes);
	if (pgr_lsn_segoff(lsn, s->segment_bytes) != 0) {
		if (open_segment(s, false, err) != PGR_OK || sync_open(s, err) != PGR_OK)
			return PGR_ERR;
	}
	s->begun = true;
	return PGR_OK;
}

/* `len` bytes that fit into the segment. */
static int append(struct pgr_walstore *s, const uint8_t *p, size_t len, struct pgr_err *err)
{
	off_t off = pgr_lsn_segoff(s->written, s->segment_bytes);
	size_t same;

	if (match_old(s, off, p, len, &same, err) != PGR_OK)
		return poison(s, err);
	if (same < len &&
	    pgr_fs_pwrite_all(s->sys, s->fd, p + same, len - same, off + (off_t)same, s->path, err) != PGR_OK)
		return poison(s, err);
	s->written += len;
	if (!s->sync)
		s->synced = s->written;
	return PGR_OK;
}

int pgr_walstore_write(struct pgr_walstore *s, pgr_lsn lsn, const void *data, size_t len, struct pgr_err *err)
{
	const uint8_t *p = data;

	if (check_usable(s, err) != PGR_OK)
		return PGR_ERR;
	if (!s->begun || lsn != s->written)
		return pgr_err_set(err, PGR_E_USAGE,
				   "cannot write WAL of %" PGR_LSN_FMT " in \"%s\", which stands at %" PGR_LSN_FMT,
				   PGR_LSN_ARG(lsn), s->dir, PGR_LSN_ARG(s->written));
	if (len > UINT64_MAX - lsn)
		return pgr_err_set(err, PGR_E_DATA, "WAL at %" PGR_LSN_FMT " goes beyond the last position",
				   PGR_LSN_ARG(lsn));
	while (len > 0) {
		size_t n = s->segment_bytes - pgr_lsn_segoff(s->written, s->segment_bytes);

		if (n > len)
			n = len;
		if ((s->fd < 0 && open_segment(s, true, err) != PGR_OK) || append(s, p, n, err) != PGR_OK)
			return PGR_ERR;
		if (pgr_lsn_segoff(s->written, s->segment_bytes) == 0 && complete_segment(s, err) != PGR_OK)
			return PGR_ERR;
		p += n;
		len -= n;
	}
	return PGR_OK;
}

int pgr_walstore_close_segment(struct pgr_walstore *s, bool finish, struct pgr_err *err)
{
	int rc = check_usable(s, err);

	s->begun = false;
	if (s->fd < 0)
		return rc;
	if (rc == PGR_OK)
		rc = sync_open(s, err);
	if (rc == PGR_OK && finish)
		rc = take_final_name(s, err);
	if (rc == PGR_OK)
		return close_file(s, err);
	forget_old(s);
	close_quietly(s, &s->fd);
	return rc;
}

/* ---- history files ---- */

static int check_history(const struct pgr_walstore *s, const char *name, const char *content, size_t len,
			 struct pgr_err *err)
{
	size_t old_len;
	char *old;
	bool equal;
	int rc = pgr_fs_read_file(s->sys, s->dirfd, s->dir, name, HISTORY_MAX, &old, &old_len, err);

	if (rc != PGR_OK)
		return rc;
	equal = old_len == len && (len == 0 || memcmp(old, content, len) == 0);
	free(old);
	if (equal)
		return PGR_OK;
	pgr_err_set(err, PGR_E_DATA, "timeline history file \"%s/%s\" differs from the server's", s->dir, name);
	return pgr_err_hint(err, "The directory holds WAL of another server that was promoted to the same timeline.");
}

int pgr_walstore_put_history(struct pgr_walstore *s, pgr_tli tli, const char *content, size_t len, struct pgr_err *err)
{
	char name[17];
	int rc;

	if (check_usable(s, err) != PGR_OK)
		return PGR_ERR;
	pgr_historyname_format(name, tli);
	rc = check_history(s, name, content, len, err);
	if (rc == PGR_MORE)
		rc = pgr_fs_write_file(s->sys, s->dirfd, s->dir, name, ".tmp", content, len, s->file_mode, s->sync,
				       err);
	return rc == PGR_OK ? mark_done(s, name, err) : PGR_ERR;
}

int pgr_walstore_has_history(struct pgr_walstore *s, pgr_tli tli, bool *has, struct pgr_err *err)
{
	char name[17];
	struct stat st;

	pgr_historyname_format(name, tli);
	*has = s->sys->fstatat(s->sys, s->dirfd, name, &st, 0) == 0;
	if (*has || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", s->dir, name);
}

/* ---- where it stands ---- */

bool pgr_walstore_is_failed(const struct pgr_walstore *s)
{
	return s->failed.cls != PGR_E_NONE;
}

pgr_lsn pgr_walstore_written(const struct pgr_walstore *s)
{
	return s->written;
}

pgr_lsn pgr_walstore_synced(const struct pgr_walstore *s)
{
	return s->synced;
}

const char *pgr_walstore_open_name(const struct pgr_walstore *s)
{
	return s->fd >= 0 ? s->name : "";
}
