#include "receiver/packout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/block.h"
#include "common/fs_io.h"
#include "common/sys.h"

#define BLOCK (1u << 20)

int pgr_packout_open(struct pgr_packout *o, const struct pgr_sys *sys, int dirfd, const char *name, mode_t mode,
		     const char *path, uint8_t *buf, struct pgr_err *err)
{
	*o = (struct pgr_packout){.sys = sys, .path = path, .buf = buf};
	o->fd = sys->openat(sys, dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (o->fd < 0)
		return pgr_err_sys(err, errno, "could not create file \"%s\"", path);
	if (sys->fchmod(sys, o->fd, mode) != 0) /* whatever the umask took away */
		return pgr_err_sys(err, errno, "could not set permissions of file \"%s\"", path);
	o->direct = sys->set_direct(sys, o->fd, 1) == 0;
	return PGR_OK;
}

uint8_t *pgr_packout_room(const struct pgr_packout *o, size_t *room)
{
	*room = PGR_PACKOUT_BYTES - o->len;
	return o->buf + o->len;
}

/* Also a file system that takes O_DIRECT may refuse to write, and so does any after a write that came short. */
static int write_at(struct pgr_packout *o, size_t len, struct pgr_err *err)
{
	int rc = pgr_fs_pwrite_all(o->sys, o->fd, o->buf, len, o->off, o->path, err);

	if (rc == PGR_OK || err->sys_errno != EINVAL || !o->direct)
		return rc;
	if (o->sys->set_direct(o->sys, o->fd, 0) != 0)
		return PGR_ERR;
	o->direct = false;
	return pgr_fs_pwrite_all(o->sys, o->fd, o->buf, len, o->off, o->path, err);
}

int pgr_packout_add(struct pgr_packout *o, size_t n, struct pgr_err *err)
{
	o->len += n;
	if (o->len < BLOCK)
		return PGR_OK;
	if (write_at(o, BLOCK, err) != PGR_OK)
		return PGR_ERR;
	o->off += BLOCK;
	o->len -= BLOCK;
	memmove(o->buf, o->buf + BLOCK, o->len);
	return PGR_OK;
}

/* O_DIRECT takes whole pages: what the last one has too much is cut off. */
static int write_rest(struct pgr_packout *o, struct pgr_err *err)
{
	size_t padded = (o->len + PGR_BLOCK_ALIGN - 1) / PGR_BLOCK_ALIGN * PGR_BLOCK_ALIGN;

	if (!o->direct || padded == o->len)
		return write_at(o, o->len, err);
	memset(o->buf + o->len, 0, padded - o->len);
	if (write_at(o, padded, err) != PGR_OK)
		return PGR_ERR;
	if (o->sys->ftruncate(o->sys, o->fd, o->off + (off_t)o->len) == 0)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not truncate file \"%s\"", o->path);
}

static int sync_file(const struct pgr_packout *o)
{
	int rc;

	do
		rc = o->sys->fsync(o->sys, o->fd);
	while (rc != 0 && errno == EINTR); /* an interrupted one did not fail */
	return rc;
}

int pgr_packout_close(struct pgr_packout *o, bool whole, bool sync, struct pgr_err *err)
{
	int rc = whole ? write_rest(o, err) : PGR_OK;

	if (rc == PGR_OK && whole && sync && sync_file(o) != 0)
		rc = pgr_err_sys(err, errno, "could not fsync file \"%s\"", o->path);
	if (o->fd >= 0 && o->sys->close(o->sys, o->fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", o->path);
	o->fd = -1;
	return rc;
}
