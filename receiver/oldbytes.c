#include "receiver/oldbytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "receiver/segfile.h"

#define WINDOW	  (64u * 1024u) /* how much of a file is read at a time; divides every segment */
#define ALIGNMENT 4096u		/* of memory for direct reads */

/* The usual size of a WAL page; where pages are larger some bytes are not recognised as the WAL that they are. */
#define PAGE	      8192u
#define PAGEADDR_AT   8u /* in a page's header (xlog_internal.h) */
#define PAGEADDR_ENDS (PAGEADDR_AT + sizeof(pgr_lsn))

#define SECTOR 512u /* at most so much of a file is as old as its first byte, after a power cut */

void pgr_oldbytes_init(struct pgr_oldbytes *o)
{
	*o = (struct pgr_oldbytes){.fd = -1};
}

static void close_direct(struct pgr_oldbytes *o, const struct pgr_waldir *d)
{
	if (o->fd >= 0)
		d->sys->close(d->sys, o->fd); /* was only read */
	o->fd = -1;
}

void pgr_oldbytes_fini(struct pgr_oldbytes *o, const struct pgr_waldir *d)
{
	close_direct(o, d);
	free(o->buf);
	pgr_oldbytes_init(o);
}

int pgr_oldbytes_open(struct pgr_oldbytes *o, const struct pgr_waldir *d, const struct pgr_segfile *f, off_t len,
		      struct pgr_err *err)
{
	pgr_oldbytes_init(o);
	o->buf = aligned_alloc(ALIGNMENT, WINDOW);
	if (o->buf == NULL)
		return pgr_err_nomem(err);
	o->fd = d->sys->openat(d->sys, d->dirfd, f->name, O_RDONLY | O_DIRECT | O_NOFOLLOW | O_CLOEXEC, 0);
	if (o->fd < 0 && errno != EINVAL) {
		pgr_err_sys(err, errno, "could not open write-ahead log file \"%s/%s\"", d->dir, f->name);
		pgr_oldbytes_fini(o, d);
		return PGR_ERR;
	}
	o->len = len;
	return PGR_OK;
}

/* Makes the window hold the byte at `at`, if the file does. */
static int load_window(struct pgr_oldbytes *o, const struct pgr_waldir *d, const struct pgr_segfile *f, off_t at,
		       struct pgr_err *err)
{
	if (at >= o->win_off && at < o->win_off + (off_t)o->win_len)
		return PGR_OK;
	o->win_off = at - at % (off_t)WINDOW;
	o->win_len = 0;
	while (o->win_len < WINDOW) {
		ssize_t n = d->sys->pread(d->sys, o->fd >= 0 ? o->fd : f->fd, o->buf + o->win_len, WINDOW - o->win_len,
					  o->win_off + (off_t)o->win_len);

		if (n > 0)
			o->win_len += (size_t)n;
		else if (n == 0)
			break;
		else if (errno == EINVAL && o->fd >= 0)
			close_direct(o, d); /* no direct reads of this kind here */
		else if (errno != EINTR)
			return pgr_err_sys(err, errno, "could not read file \"%s/%s\"", d->dir, f->name);
	}
	return PGR_OK;
}

/* Any version of a sector that we wrote ends in zeros from the first byte on that it lacks. */
static bool is_written(const struct pgr_oldbytes *o, size_t byte)
{
	for (size_t left = SECTOR - byte % SECTOR; left > 0 && byte < o->win_len; left--, byte++)
		if (o->buf[byte] != 0)
			return true;
	return false;
}

/*
 * Whether what stands at `at`, which is `lsn`, is WAL of this place: its page says so.  A page is written as a whole,
 * so that in a file that a server has used again (and somebody has copied here) each page is of the old or the new use.
 */
static bool is_wal_of_here(const struct pgr_oldbytes *o, off_t at, pgr_lsn lsn)
{
	size_t in_page = (size_t)(at % (off_t)PAGE);
	size_t byte = (size_t)(at - o->win_off);
	pgr_lsn pageaddr;

	if (!is_written(o, byte) || byte - in_page + PAGEADDR_ENDS > o->win_len)
		return false;
	memcpy(&pageaddr, o->buf + byte - in_page + PAGEADDR_AT, sizeof(pageaddr));
	return pageaddr == lsn - in_page;
}

static int refuse(const struct pgr_waldir *d, const struct pgr_segfile *f, pgr_lsn lsn, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_DATA, "file \"%s/%s\" holds other WAL at %" PGR_LSN_FMT " than the server sends", d->dir,
		    f->name, PGR_LSN_ARG(lsn));
	return pgr_err_hint(err,
			    "The server was set back, or it is another one on the same timeline.  If that is to be "
			    "followed, move the file away.");
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

int pgr_oldbytes_match(struct pgr_oldbytes *o, const struct pgr_waldir *d, const struct pgr_segfile *f, pgr_lsn lsn,
		       const uint8_t *p, size_t len, size_t *same, struct pgr_err *err)
{
	off_t off = pgr_lsn_segoff(lsn, d->segment_bytes);

	*same = 0;
	while (*same < len && o->len > 0) {
		off_t at = off + (off_t)*same;
		off_t end;
		size_t n, equal;

		if (load_window(o, d, f, at, err) != PGR_OK)
			return PGR_ERR;
		end = o->win_off + (off_t)o->win_len;
		if (end > o->len)
			end = o->len;
		n = end > at ? (size_t)(end - at) : 0;
		if (n > len - *same)
			n = len - *same;
		equal = n > 0 ? common_prefix(o->buf + (at - o->win_off), p + *same, n) : 0;
		*same += equal;
		if (equal < n && is_wal_of_here(o, at + (off_t)equal, lsn + *same))
			return refuse(d, f, lsn + *same, err);
		if (equal < n || n == 0)
			pgr_oldbytes_fini(o, d);
	}
	return PGR_OK;
}
