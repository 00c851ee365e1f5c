#include "receiver/walfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"

#define IN_BYTES (64u * 1024)

static int prepare(struct pgr_walfile *f, enum pgr_compression method, struct pgr_err *err)
{
	struct stat st;

	if (f->sys->fstat(f->sys, f->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file");
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "not a regular file");
	if (method == PGR_COMP_NONE)
		return PGR_OK;
	f->in = malloc(IN_BYTES);
	if (f->in == NULL)
		return pgr_err_nomem(err);
	return pgr_decomp_new(&f->decomp, method, err);
}

/* O_NONBLOCK: a pipe of that name must not hold us up. */
int pgr_walfile_open(struct pgr_walfile *f, const struct pgr_sys *sys, int dirfd, const char *name,
		     enum pgr_compression method, struct pgr_err *err)
{
	memset(f, 0, sizeof(*f));
	f->fd = sys->openat(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (f->fd < 0)
		return pgr_err_sys(err, errno, "could not open file");
	f->sys = sys;
	f->name = name;
	if (prepare(f, method, err) == PGR_OK)
		return PGR_OK;
	pgr_walfile_close(f);
	return PGR_ERR;
}

void pgr_walfile_close(struct pgr_walfile *f)
{
	pgr_decomp_free(f->decomp);
	free(f->in);
	if (f->sys != NULL)
		f->sys->close(f->sys, f->fd);
	memset(f, 0, sizeof(*f));
}

static int read_some(struct pgr_walfile *f, void *buf, size_t cap, size_t *n, struct pgr_err *err)
{
	ssize_t got;

	do {
		got = f->sys->read(f->sys, f->fd, buf, cap);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return pgr_err_sys(err, errno, "could not read file");
	*n = (size_t)got;
	f->eof = got == 0;
	return PGR_OK;
}

static int refill(struct pgr_walfile *f, struct pgr_err *err)
{
	f->next = f->in;
	f->left = 0;
	return read_some(f, f->in, IN_BYTES, &f->left, err);
}

/* One step: some bytes, or *n == 0 at the end of the file or while the decompressor only takes. */
static int step(struct pgr_walfile *f, void *buf, size_t cap, size_t *n, struct pgr_err *err)
{
	int rc;

	*n = 0;
	if (f->decomp == NULL)
		return read_some(f, buf, cap, n, err);
	if (f->left == 0 && !f->eof && refill(f, err) != PGR_OK)
		return PGR_ERR;
	/* also without input: the decompressor may hold bytes that did not fit before */
	rc = pgr_decomp_step(f->decomp, &f->next, &f->left, buf, cap, n, err);
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

int pgr_walfile_read(struct pgr_walfile *f, void *buf, size_t cap, size_t *n, struct pgr_err *err)
{
	size_t got;

	*n = 0;
	while (*n < cap) {
		bool at_eof = f->eof;

		if (step(f, (uint8_t *)buf + *n, cap - *n, &got, err) != PGR_OK)
			return PGR_ERR;
		*n += got;
		if (got == 0 && (at_eof || f->decomp == NULL) && f->left == 0) {
			f->cut = f->decomp != NULL && !pgr_decomp_at_end(f->decomp);
			return PGR_MORE;
		}
	}
	return PGR_OK;
}
