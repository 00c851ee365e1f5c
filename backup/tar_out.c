#include "backup/tar_out.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/dirsink.h"
#include "backup/packer.h"
#include "backup/tar_head.h"
#include "common/block.h"
#include "common/fs_io.h"
#include "common/stop.h"
#include "common/sys.h"

/* What a pipe that poll() calls writable takes without blocking (PIPE_BUF on Linux; pipe(7)). */
#define PIPE_BYTES 4096u

/*
 * `in` belongs to the owner's thread; `gather`, `off` and the descriptor to whoever the packer lets put, or without a
 * packer to the owner's thread, too.
 */
struct pgr_tar_out {
	struct pgr_tar_out_opts opts;
	struct pgr_sink_file *file; /* NULL: a descriptor, or the end was reached */
	struct pgr_packer *packer;  /* NULL: blocks go into the file as they are */
	bool regular;		    /* the descriptor is a regular file: it can be waited for without poll */
	int pipe;		    /* the same pipe, opened again so that it does not block; -1: none */
	struct pgr_block *in;	    /* being filled by the owner; NULL: none */
	struct pgr_block *gather;   /* compressed bytes that do not fill a block yet; NULL: none */
	uint64_t off;		    /* in the file: of the next block posted */
};

size_t pgr_tar_out_blocks(const struct pgr_compress_spec *spec, unsigned threads)
{
	struct pgr_packer_opts po = {.spec = *spec, .threads = threads};

	return pgr_packer_blocks(&po) + 2; /* in, gather */
}

/* ---- the last station ---- */

static int post_to_file(struct pgr_tar_out *o, struct pgr_block **b, struct pgr_err *err)
{
	uint64_t at = o->off;

	o->off += (*b)->len;
	return pgr_dirsink_post(o->opts.sink, o->file, at, b, err);
}

/* A file is written in whole blocks, whose offsets and lengths O_DIRECT can take. */
static int gather(struct pgr_tar_out *o, const uint8_t *data, size_t len, struct pgr_err *err)
{
	while (len > 0) {
		size_t n;

		if (o->gather == NULL && pgr_pool_get(o->opts.pool, &o->gather, err) != PGR_OK)
			return PGR_ERR;
		n = o->gather->cap - o->gather->len;
		if (n > len)
			n = len;
		memcpy(o->gather->data + o->gather->len, data, n);
		o->gather->len += n;
		data += n;
		len -= n;
		if (o->gather->len == o->gather->cap && post_to_file(o, &o->gather, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* A reader that does not read must not keep the program from ending. */
static int await_writable(struct pgr_tar_out *o, struct pgr_err *err)
{
	const struct pgr_sys *sys = o->opts.sys;
	struct pollfd fds[2] = {{.fd = o->opts.fd, .events = POLLOUT},
				{.fd = pgr_stop_fd(o->opts.stop), .events = POLLIN}};

	do {
		if (pgr_stop_check(o->opts.stop, err) != PGR_OK)
			return PGR_ERR;
		if (sys->poll(sys, fds, 2, -1) < 0 && errno != EINTR)
			return pgr_err_sys(err, errno, "could not wait for %s", o->opts.path);
	} while (fds[0].revents == 0);
	return PGR_OK;
}

/* As much as goes: all that a pipe takes, or what a descriptor that may block takes for sure. */
static ssize_t write_some(struct pgr_tar_out *o, const uint8_t *data, size_t len)
{
	const struct pgr_sys *sys = o->opts.sys;

	if (o->pipe >= 0)
		return sys->write(sys, o->pipe, data, len);
	return sys->write(sys, o->opts.fd, data, len < PIPE_BYTES ? len : PIPE_BYTES);
}

static int write_waiting(struct pgr_tar_out *o, const uint8_t *data, size_t len, struct pgr_err *err)
{
	while (len > 0) {
		ssize_t n;

		if (await_writable(o, err) != PGR_OK)
			return PGR_ERR;
		n = write_some(o, data, len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return pgr_err_sys(err, errno, "could not write to %s", o->opts.path);
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return PGR_OK;
}

/* What the packer puts. */
static int put_packed(void *arg, const uint8_t *data, size_t len, struct pgr_err *err)
{
	struct pgr_tar_out *o = arg;

	if (o->opts.fd < 0)
		return gather(o, data, len, err);
	if (!o->regular)
		return write_waiting(o, data, len, err);
	if (pgr_stop_check(o->opts.stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_fs_write_all(o->opts.sys, o->opts.fd, data, len, o->opts.path, err);
}

/* ---- making ---- */

/* A descriptor is written to in the packer's thread also without compression: the owner's reads the network. */
static int open_packer(struct pgr_tar_out *o, struct pgr_err *err)
{
	struct pgr_packer_opts po = {.spec = o->opts.spec, .threads = o->opts.threads, .put = put_packed, .arg = o};

	if (o->opts.fd < 0 && o->opts.spec.method == PGR_COMP_NONE)
		return PGR_OK;
	return pgr_packer_new(&o->packer, o->opts.pool, o->opts.stop, &po, err);
}

/*
 * Not to block is a property of the open file, which is shared with whoever gave it to us: so the pipe is opened once
 * more (proc(5), /proc/pid/fd).  Where that is not possible small writes do.
 */
static void open_pipe_again(struct pgr_tar_out *o)
{
	char name[32];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", o->opts.fd);
	o->pipe = o->opts.sys->openat(o->opts.sys, AT_FDCWD, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0);
}

static int open_output(struct pgr_tar_out *o, struct pgr_err *err)
{
	const struct pgr_tar_out_opts *opts = &o->opts;
	struct stat st;

	if (opts->fd < 0)
		return pgr_dirsink_create(opts->sink, opts->dirfd, opts->leaf, opts->path, opts->mode, &o->file, err);
	if (opts->sys->fstat(opts->sys, opts->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat %s", opts->path);
	o->regular = S_ISREG(st.st_mode);
	if (S_ISFIFO(st.st_mode))
		open_pipe_again(o);
	return PGR_OK;
}

int pgr_tar_out_new(struct pgr_tar_out **out, const struct pgr_tar_out_opts *opts, struct pgr_err *err)
{
	struct pgr_tar_out *o = calloc(1, sizeof(*o));

	*out = NULL;
	if (o == NULL)
		return pgr_err_nomem(err);
	o->opts = *opts;
	o->pipe = -1;
	if (open_output(o, err) != PGR_OK || open_packer(o, err) != PGR_OK) {
		pgr_tar_out_free(o);
		return PGR_ERR;
	}
	*out = o;
	return PGR_OK;
}

void pgr_tar_out_free(struct pgr_tar_out *o)
{
	if (o == NULL)
		return;
	pgr_packer_free(o->packer); /* first: its threads use the rest */
	pgr_pool_put(o->opts.pool, o->in);
	pgr_pool_put(o->opts.pool, o->gather);
	if (o->file != NULL)
		pgr_dirsink_abandon(o->opts.sink, &o->file);
	if (o->pipe >= 0) /* what was written through it is in the pipe */
		(void)o->opts.sys->close(o->opts.sys, o->pipe);
	free(o);
}

/* ---- bytes ---- */

static int post_in(struct pgr_tar_out *o, struct pgr_err *err)
{
	if (o->packer != NULL)
		return pgr_packer_post(o->packer, &o->in, err);
	return post_to_file(o, &o->in, err);
}

/* Room in the block that is being filled. */
static int need_room(struct pgr_tar_out *o, struct pgr_err *err)
{
	return o->in != NULL ? PGR_OK : pgr_pool_get(o->opts.pool, &o->in, err);
}

static int filled(struct pgr_tar_out *o, size_t n, struct pgr_err *err)
{
	o->in->len += n;
	return o->in->len == o->in->cap ? post_in(o, err) : PGR_OK;
}

int pgr_tar_out_copy(struct pgr_tar_out *o, struct pgr_source *source, uint64_t *copied, struct pgr_err *err)
{
	uint64_t total = 0;
	size_t n;

	do {
		if (need_room(o, err) != PGR_OK ||
		    pgr_source_read(source, o->in->data + o->in->len, o->in->cap - o->in->len, &n, err) != PGR_OK ||
		    filled(o, n, err) != PGR_OK)
			return PGR_ERR;
		total += n;
	} while (n > 0);
	if (copied != NULL)
		*copied = total;
	return PGR_OK;
}

int pgr_tar_out_put(struct pgr_tar_out *o, const void *data, size_t len, struct pgr_err *err)
{
	const uint8_t *p = data;

	while (len > 0) {
		size_t n;

		if (need_room(o, err) != PGR_OK)
			return PGR_ERR;
		n = o->in->cap - o->in->len;
		if (n > len)
			n = len;
		memcpy(o->in->data + o->in->len, p, n);
		p += n;
		len -= n;
		if (filled(o, n, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

int pgr_tar_out_head(struct pgr_tar_out *o, const char *name, mode_t mode, uint64_t size, struct pgr_err *err)
{
	const struct pgr_sys *sys = o->opts.sys;
	uint8_t head[PGR_TAR_BLOCK];

	if (pgr_tar_head_file(head, name, mode, size, sys->wall_us(sys) / 1000000, err) != PGR_OK)
		return PGR_ERR;
	return pgr_tar_out_put(o, head, sizeof(head), err);
}

int pgr_tar_out_pad(struct pgr_tar_out *o, uint64_t size, struct pgr_err *err)
{
	static const uint8_t zeros[PGR_TAR_BLOCK];

	return pgr_tar_out_put(o, zeros, pgr_tar_padding(size), err);
}

int pgr_tar_out_member(struct pgr_tar_out *o, const char *name, mode_t mode, const void *data, size_t len,
		       struct pgr_err *err)
{
	if (pgr_tar_out_head(o, name, mode, len, err) != PGR_OK || pgr_tar_out_put(o, data, len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_tar_out_pad(o, len, err);
}

/* ---- the end ---- */

int pgr_tar_out_end(struct pgr_tar_out *o, bool terminate, struct pgr_err *err)
{
	static const uint8_t zeros[PGR_TAR_END_BYTES];

	if (terminate && pgr_tar_out_put(o, zeros, sizeof(zeros), err) != PGR_OK)
		return PGR_ERR;
	if (o->in != NULL && o->in->len > 0 && post_in(o, err) != PGR_OK)
		return PGR_ERR;
	if (o->packer != NULL && pgr_packer_end(o->packer, err) != PGR_OK)
		return PGR_ERR;
	if (o->gather != NULL && post_to_file(o, &o->gather, err) != PGR_OK)
		return PGR_ERR;
	return o->file != NULL ? pgr_dirsink_seal(o->opts.sink, &o->file, o->off, err) : PGR_OK;
}
