#include "common/fs_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/fs_call.h"
#include "common/sys.h"

/* ---- writing ---- */

/* What a write returned: bytes, or 0 to try again, or -1 with *err set. */
static ssize_t written(ssize_t n, const char *where, const char *name, struct pgr_err *err)
{
	if (n > 0)
		return n;
	if (n < 0 && errno == EINTR)
		return 0;
	/* A write of nothing has no errno; PostgreSQL takes it for a full disk. */
	pgr_err_sys(err, n == 0 ? ENOSPC : errno, "could not write to file \"" PGR_FS_AT_FMT "\"",
		    PGR_FS_AT_ARG(where, name));
	return -1;
}

int pgr_fs_pwrite_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, off_t off, const char *name,
		      struct pgr_err *err)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = written(sys->pwrite(sys, fd, p, len, off), NULL, name, err);

		if (n < 0)
			return PGR_ERR;
		p += n;
		len -= (size_t)n;
		off += n;
	}
	return PGR_OK;
}

int pgr_fs_write_all_in(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *where,
			const char *name, struct pgr_err *err)
{
	const uint8_t *p = buf;

	while (len > 0) {
		ssize_t n = written(sys->write(sys, fd, p, len), where, name, err);

		if (n < 0)
			return PGR_ERR;
		p += n;
		len -= (size_t)n;
	}
	return PGR_OK;
}

int pgr_fs_write_all(const struct pgr_sys *sys, int fd, const void *buf, size_t len, const char *name,
		     struct pgr_err *err)
{
	return pgr_fs_write_all_in(sys, fd, buf, len, NULL, name, err);
}

/* ---- reading ---- */

/* Reads to the end of the file, or one byte beyond the limit. */
static int read_to_end(const struct pgr_sys *sys, int fd, struct pgr_buf *b, size_t limit, const char *where,
		       const char *name, struct pgr_err *err)
{
	for (;;) {
		size_t want = limit - b->len < 65536 ? limit - b->len + 1 : 65536;

		if (pgr_buf_reserve(b, want, err) != PGR_OK)
			return PGR_ERR;

		ssize_t n = sys->read(sys, fd, b->data + b->len, want);

		if (n == 0)
			return PGR_OK;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return pgr_err_sys(err, errno, "could not read file \"" PGR_FS_AT_FMT "\"",
					   PGR_FS_AT_ARG(where, name));
		b->len += (size_t)n;
		if (b->len > limit)
			return pgr_err_set(err, PGR_E_DATA, "file \"" PGR_FS_AT_FMT "\" is larger than %zu bytes",
					   PGR_FS_AT_ARG(where, name), limit);
	}
}

static int read_regular(const struct pgr_sys *sys, int fd, struct pgr_buf *b, size_t limit, const char *where,
			const char *name, struct pgr_err *err)
{
	struct stat st;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"" PGR_FS_AT_FMT "\"", PGR_FS_AT_ARG(where, name));
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"" PGR_FS_AT_FMT "\" is not a regular file",
				   PGR_FS_AT_ARG(where, name));
	return read_to_end(sys, fd, b, limit, where, name, err);
}

int pgr_fs_read_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, size_t limit,
		     char **data, size_t *len, struct pgr_err *err)
{
	struct pgr_buf b = {.limit = SIZE_MAX};

	*data = NULL;
	*len = 0;
	if (limit > SIZE_MAX / 2)
		limit = SIZE_MAX / 2;

	/* Not waiting: a FIFO of this name would keep us until somebody writes into it. */
	int fd = pgr_fs_call_open(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0 && errno == ENOENT)
		return PGR_MORE;
	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"" PGR_FS_AT_FMT "\"", PGR_FS_AT_ARG(where, name));

	int rc = read_regular(sys, fd, &b, limit, where, name, err);

	rc = pgr_fs_call_close(sys, fd, rc, where, name, err);
	if (rc == PGR_OK && pgr_buf_str(&b) == NULL)
		rc = pgr_err_nomem(err);
	if (rc != PGR_OK) {
		pgr_buf_fini(&b);
		return PGR_ERR;
	}
	*data = (char *)b.data;
	*len = b.len;
	return PGR_OK;
}
