#include "backup/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/block.h"
#include "common/fs_io.h"
#include "common/sys.h"

/* From this size on a block is written directly even if it has to be padded and the file cut afterwards. */
#define PADDING_MIN_BYTES (64u * 1024)

/* File systems that refused O_DIRECT; a run writes to a few. */
#define MAX_REFUSALS 16

struct pgr_outfs {
	const struct pgr_sys *sys;

	pthread_mutex_t lock;
	/* under lock: */
	dev_t refused[MAX_REFUSALS];
	atomic_uint nrefused; /* changed under lock */
};

int pgr_outfs_new(struct pgr_outfs **out, const struct pgr_sys *sys, struct pgr_err *err)
{
	struct pgr_outfs *fs = calloc(1, sizeof(*fs));
	int rc;

	*out = NULL;
	if (fs == NULL)
		return pgr_err_nomem(err);
	fs->sys = sys;
	rc = pthread_mutex_init(&fs->lock, NULL);
	if (rc != 0) {
		free(fs);
		return pgr_err_sys(err, rc, "could not create a mutex");
	}
	*out = fs;
	return PGR_OK;
}

void pgr_outfs_free(struct pgr_outfs *fs)
{
	if (fs == NULL)
		return;
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

/* Under lock. */
static bool has_refused(const struct pgr_outfs *fs, dev_t dev)
{
	for (unsigned i = 0; i < fs->nrefused; i++)
		if (fs->refused[i] == dev)
			return true;
	return false;
}

/* Most runs meet no file system that refuses, and need not know where a file is. */
static bool is_refused(struct pgr_outfs *fs, const struct pgr_outfile *f)
{
	struct stat st;
	bool hit;

	if (atomic_load(&fs->nrefused) == 0 || fs->sys->fstat(fs->sys, f->fd, &st) != 0)
		return false;
	pthread_mutex_lock(&fs->lock);
	hit = has_refused(fs, st.st_dev);
	pthread_mutex_unlock(&fs->lock);
	return hit;
}

/* A file system that is not remembered is asked again for each of its files. */
static void refuse(struct pgr_outfs *fs, const struct pgr_outfile *f)
{
	struct stat st;

	if (fs->sys->fstat(fs->sys, f->fd, &st) != 0)
		return;
	pthread_mutex_lock(&fs->lock);
	if (fs->nrefused < MAX_REFUSALS && !has_refused(fs, st.st_dev)) {
		fs->refused[fs->nrefused] = st.st_dev;
		atomic_fetch_add(&fs->nrefused, 1);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* ---- creating ---- */

int pgr_outfile_create(struct pgr_outfs *fs, int dirfd, const char *leaf, const char *path, mode_t mode,
		       struct pgr_outfile *f, struct pgr_err *err)
{
	const struct pgr_sys *sys = fs->sys;

	atomic_init(&f->direct, false);
	atomic_init(&f->padded, false);
	f->was = 0;
	f->fd = sys->openat(sys, dirfd, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (f->fd < 0)
		return pgr_err_sys(err, errno, "could not create file \"%s\"", path);
	/* the umask may have taken bits from the mode */
	if (sys->fchmod(sys, f->fd, mode) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not set permissions on file \"%s\"", path);
	(void)sys->close(sys, f->fd);
	(void)sys->unlinkat(sys, dirfd, leaf, 0);
	return PGR_ERR;
}

/* What is opened may have been anything: no wait for a pipe's reader (O_NONBLOCK), and nothing but a file is written
 * to.
 */
static int look_at(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, mode_t mode, struct pgr_err *err)
{
	const struct pgr_sys *sys = fs->sys;
	struct stat st;

	if (sys->fstat(sys, f->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", path);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"%s\" is not a regular file", path);
	f->was = (uint64_t)st.st_size;
	if ((st.st_mode & 07777) != mode && sys->fchmod(sys, f->fd, mode) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on file \"%s\"", path);
	return PGR_OK;
}

int pgr_outfile_open(struct pgr_outfs *fs, int dirfd, const char *leaf, const char *path, mode_t mode,
		     struct pgr_outfile *f, struct pgr_err *err)
{
	const struct pgr_sys *sys = fs->sys;

	atomic_init(&f->direct, false);
	atomic_init(&f->padded, false);
	f->fd = sys->openat(sys, dirfd, leaf, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (f->fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", path);
	if (look_at(fs, f, path, mode, err) == PGR_OK)
		return PGR_OK;
	(void)sys->close(sys, f->fd); /* nothing was written to it */
	return PGR_ERR;
}

/* ---- writing ---- */

static int go_buffered(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_err *err)
{
	refuse(fs, f);
	if (fs->sys->set_direct(fs->sys, f->fd, 0) != 0)
		return pgr_err_sys(err, errno, "could not change the mode of file \"%s\"", path);
	atomic_store(&f->direct, false);
	return PGR_OK;
}

/* Also a file of one page: it is on the disk when it is written, and its fsync does not wait for the page cache. */
static bool is_worth_it(size_t len)
{
	return len >= PADDING_MIN_BYTES || (len > 0 && len % PGR_BLOCK_ALIGN == 0);
}

/* A file is switched to O_DIRECT by its first block that is worth it. */
static void try_direct(struct pgr_outfs *fs, struct pgr_outfile *f, size_t len)
{
	if (atomic_load(&f->direct) || !is_worth_it(len) || is_refused(fs, f))
		return;
	if (fs->sys->set_direct(fs->sys, f->fd, 1) == 0)
		atomic_store(&f->direct, true);
	else
		refuse(fs, f); /* whatever its reason: there is another way */
}

static size_t padded_length(const struct pgr_block *b)
{
	return (b->len + PGR_BLOCK_ALIGN - 1) & ~(size_t)(PGR_BLOCK_ALIGN - 1);
}

/* One attempt.  Short writes of O_DIRECT that leave the alignment end in EINVAL, and with that in the page cache. */
static ssize_t write_some(struct pgr_outfs *fs, const struct pgr_outfile *f, const struct pgr_block *b, size_t len,
			  size_t done, uint64_t off)
{
	ssize_t n;

	do
		n = fs->sys->pwrite(fs->sys, f->fd, b->data + done, len - done, (off_t)(off + done));
	while (n < 0 && errno == EINTR);
	return n;
}

/* PGR_MORE: the file system does not take it this way. */
static int write_direct(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_block *b,
			uint64_t off, struct pgr_err *err)
{
	size_t len = padded_length(b), done = 0;

	memset(b->data + b->len, 0, len - b->len);
	if (len > b->len) /* before: a write that stops within the padding and is then refused has padded, too */
		atomic_store(&f->padded, true);
	while (done < len) {
		ssize_t n = write_some(fs, f, b, len, done, off);

		if (n < 0 && errno == EINVAL)
			return PGR_MORE;
		if (n <= 0)
			return pgr_err_sys(err, n == 0 ? ENOSPC : errno, "could not write to file \"%s\"", path);
		done += (size_t)n;
	}
	return PGR_OK;
}

static bool is_unknown(int e)
{
	return e == ENOSYS || e == EOPNOTSUPP || e == EINVAL || e == ESPIPE;
}

/* Starting the write-back at once keeps the final sync short and the page cache from filling up. */
static int write_buffered(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, const struct pgr_block *b,
			  uint64_t off, struct pgr_err *err)
{
	const struct pgr_sys *sys = fs->sys;

	if (pgr_fs_pwrite_all(sys, f->fd, b->data, b->len, (off_t)off, path, err) != PGR_OK)
		return PGR_ERR;
	if (b->len < PADDING_MIN_BYTES)
		return PGR_OK;
	if (sys->sync_file_range(sys, f->fd, (off_t)off, (off_t)b->len, SYNC_FILE_RANGE_WRITE) != 0 &&
	    !is_unknown(errno))
		return pgr_err_sys(err, errno, "could not write back file \"%s\"", path);
	return PGR_OK;
}

int pgr_outfile_write(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_block *b, uint64_t off,
		      struct pgr_err *err)
{
	bool aligned = off % PGR_BLOCK_ALIGN == 0;
	int rc;

	if (aligned)
		try_direct(fs, f, b->len);
	if (aligned && atomic_load(&f->direct)) {
		rc = write_direct(fs, f, path, b, off, err);
		if (rc != PGR_MORE)
			return rc;
	}
	/* other threads may switch the file to and fro meanwhile: what was refused for that was not written */
	for (int i = 0; i < 100; i++) {
		if (atomic_load(&f->direct) && go_buffered(fs, f, path, err) != PGR_OK)
			return PGR_ERR;
		rc = write_buffered(fs, f, path, b, off, err);
		if (rc == PGR_OK || err->sys_errno != EINVAL || !atomic_load(&f->direct))
			return rc;
		if (aligned && (rc = write_direct(fs, f, path, b, off, err)) != PGR_MORE)
			return rc;
	}
	return rc == PGR_MORE ? pgr_err_sys(err, EINVAL, "could not write to file \"%s\"", path) : rc;
}

/* ---- the end ---- */

int pgr_outfile_set_size(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, uint64_t extent, uint64_t size,
			 struct pgr_err *err)
{
	if (extent < f->was)
		extent = f->was;
	if (extent == size && !atomic_load(&f->padded))
		return PGR_OK;
	if (fs->sys->ftruncate(fs->sys, f->fd, (off_t)size) != 0)
		return pgr_err_sys(err, errno, "could not set the size of file \"%s\"", path);
	return PGR_OK;
}

int pgr_outfile_sync(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_err *err)
{
	int rc;

	do
		rc = fs->sys->fsync(fs->sys, f->fd);
	while (rc != 0 && errno == EINTR);
	if (rc != 0)
		return pgr_err_sys(err, errno, "could not fsync file \"%s\"", path);
	return PGR_OK;
}

int pgr_outfile_close(struct pgr_outfs *fs, struct pgr_outfile *f, const char *path, struct pgr_err *err)
{
	if (fs->sys->close(fs->sys, f->fd) != 0)
		return pgr_err_sys(err, errno, "could not close file \"%s\"", path);
	return PGR_OK;
}

void pgr_outfile_abandon(struct pgr_outfs *fs, struct pgr_outfile *f)
{
	(void)fs->sys->close(fs->sys, f->fd);
}
