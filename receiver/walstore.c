#include "receiver/walstore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs_durable.h"
#include "common/fs_io.h"
#include "common/sys.h"
#include "receiver/bulk.h"
#include "receiver/oldbytes.h"
#include "receiver/segfile.h"
#include "receiver/syncer.h"

#define HISTORY_MAX (64u * 1024 * 1024) /* no server sends a longer one (client.h) */

/* A multiple of every page size and a divisor of every segment size but the smallest, which is synced in one go. */
#define WRITE_BACK_STEP (2u * 1024 * 1024)

/*
 * - file.fd >= 0: a segment is open, the syncer has it too, and `written` lies before its end.
 * - file.fd < 0: what was written belongs to segments that are complete.
 * - position > written only while `bulk` has what lies between.
 */
struct pgr_walstore {
	struct pgr_waldir dir; /* does not change */
	char *dir_name;
	struct pgr_syncer *syncer; /* knows the positions */

	bool cleared; /* what a killed run had under names of its own is gone */
	bool forked;  /* what is here and what was to be written contradict each other */
	bool begun;
	pgr_tli tli;
	pgr_lsn position; /* taken; >= written */

	/* for whoever has much to catch up with */
	bool may_bulk;	       /* a thread syncs */
	bool bulk_wanted;      /* by the owner, from the next new segment on */
	bool in_bulk;	       /* the open segment's bytes go there */
	struct pgr_bulk *bulk; /* NULL: was not needed yet */

	/* the open segment: for writing; its durability is the syncer's */
	struct pgr_segfile file;
	char *path; /* for messages */
	size_t path_room;
	struct pgr_oldbytes old;
	off_t written_back; /* up to here the kernel was told to */
};

/* ---- making and freeing ---- */

static int fill(struct pgr_walstore *s, const struct pgr_walstore_opts *opts, struct pgr_err *err)
{
	s->path_room = strlen(opts->dir) + 1 + PGR_SEGNAME_ROOM;
	s->dir_name = strdup(opts->dir);
	s->path = malloc(s->path_room);
	if (s->dir_name == NULL || s->path == NULL)
		return pgr_err_nomem(err);
	s->dir.dir = s->dir_name;
	if (!pgr_walseg_valid(opts->segment_bytes))
		return pgr_err_set(err, PGR_E_USAGE, "invalid WAL segment size: %u bytes", opts->segment_bytes);
	/* without syncs there is nothing to wait for */
	return pgr_syncer_new(&s->syncer, &s->dir, opts->sync && !opts->inline_sync, err);
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
	s->dir = (struct pgr_waldir){
		.sys = sys,
		.dirfd = dirfd,
		.segment_bytes = opts->segment_bytes,
		.file_mode = opts->file_mode,
		.sync = opts->sync,
		.partial_suffix = opts->partial_suffix,
		.archive_status = opts->archive_status,
		.finished = opts->finished,
		.finished_arg = opts->finished_arg,
	};
	s->file.fd = -1;
	s->may_bulk = opts->sync && !opts->inline_sync;
	pgr_oldbytes_init(&s->old);
	if (fill(s, opts, err) != PGR_OK) {
		pgr_walstore_free(s);
		return PGR_ERR;
	}
	*out = s;
	return PGR_OK;
}

void pgr_walstore_free(struct pgr_walstore *s)
{
	if (s == NULL)
		return;
	pgr_oldbytes_fini(&s->old, &s->dir);
	pgr_bulk_free(s->bulk);
	pgr_syncer_free(s->syncer); /* closes the files */
	s->dir.sys->close(s->dir.sys, s->dir.dirfd);
	free(s->dir_name);
	free(s->path);
	free(s);
}

void pgr_walstore_set_wake(struct pgr_walstore *s, void (*fn)(void *arg), void *arg)
{
	pgr_syncer_set_wake(s->syncer, fn, arg);
}

/* ---- opening a segment ---- */

/* The file that was made ahead takes the segment's name, which nobody has.  PGR_MORE: there is none. */
static int use_ahead(struct pgr_walstore *s, const char *name, struct pgr_err *err)
{
	int rc = pgr_syncer_take_ahead(s->syncer, &s->file);

	if (rc != PGR_OK || pgr_segfile_rename(&s->dir, &s->file, name, err) == PGR_OK)
		return rc;
	pgr_segfile_remove(&s->dir, &s->file);
	return err->sys_errno == ENOENT ? PGR_MORE : PGR_ERR; /* somebody has cleaned up */
}

/* While the segment before this one is called .partial, this one is not: its turn is the syncer's to find. */
static int make_file(struct pgr_walstore *s, const char *name, pgr_segno seg, struct pgr_err *err)
{
	bool waits = s->dir.partial_suffix && pgr_syncer_has_segments(s->syncer);
	char waiting[PGR_SEGNAME_ROOM];
	const char *now = waits ? waiting : name;
	int rc;

	pgr_segfile_waiting_name(seg, waiting);
	rc = use_ahead(s, now, err);
	if (rc == PGR_MORE)
		rc = pgr_segfile_create(&s->dir, now, &s->file, err);
	if (rc == PGR_OK && waits)
		snprintf(s->file.due, sizeof(s->file.due), "%s", name);
	return rc;
}

static void wrote_behind(void *arg, pgr_lsn lsn, const struct pgr_err *failed)
{
	struct pgr_walstore *s = arg;

	pgr_syncer_wrote_behind(s->syncer, lsn, failed);
}

/* Where that cannot be had the page cache does. */
static void begin_bulk(struct pgr_walstore *s, pgr_lsn at)
{
	struct pgr_err ignored;

	if (s->bulk == NULL && pgr_bulk_new(&s->bulk, s->dir.sys, s->path_room, wrote_behind, s, &ignored) != PGR_OK) {
		s->may_bulk = false;
		return;
	}
	s->in_bulk = pgr_bulk_begin(s->bulk, s->file.fd, s->dir.segment_bytes, s->path, at) == PGR_OK;
}

/*
 * Opens the file of the segment at `at`.  A failure here is not final, nothing was written yet; a file that this
 * call made is gone again.
 */
static int open_segment(struct pgr_walstore *s, pgr_lsn at, bool may_create, struct pgr_err *err)
{
	pgr_segno seg = pgr_lsn_segno(at, s->dir.segment_bytes);
	char name[PGR_SEGNAME_ROOM];
	off_t old_bytes;
	bool is_new;
	int rc;

	pgr_segfile_name(&s->dir, s->tli, seg, name);
	rc = pgr_segfile_open(&s->dir, name, pgr_lsn_segoff(at, s->dir.segment_bytes), &s->file, &old_bytes, err);
	is_new = rc == PGR_MORE;
	if (is_new)
		rc = may_create ? make_file(s, name, seg, err) : PGR_ERR;
	if (rc != PGR_OK)
		return PGR_ERR;
	if (old_bytes > 0 && pgr_oldbytes_open(&s->old, &s->dir, &s->file, old_bytes, err) != PGR_OK) {
		pgr_segfile_drop(&s->dir, &s->file);
		return PGR_ERR;
	}
	s->written_back = pgr_lsn_segoff(at, s->dir.segment_bytes);
	s->written_back -= s->written_back % (off_t)WRITE_BACK_STEP;
	snprintf(s->path, s->path_room, "%s/%s", s->dir_name, name);
	pgr_syncer_open(s->syncer, &s->file);
	if (is_new && s->may_bulk && s->bulk_wanted)
		begin_bulk(s, at);
	return PGR_OK;
}

/* The file is the syncer's alone. */
static void forget_segment(struct pgr_walstore *s)
{
	pgr_oldbytes_fini(&s->old, &s->dir);
	s->file.fd = -1;
	s->in_bulk = false;
}

/* ---- the way of the bytes ---- */

/* Afterwards the position is the written one. */
static int drain(struct pgr_walstore *s, struct pgr_err *err)
{
	bool ends = s->in_bulk;

	if (s->bulk == NULL)
		return PGR_OK;
	s->in_bulk = false; /* whoever drains again after a failure has not written the rest */
	if (pgr_bulk_drain(s->bulk, err) != PGR_OK)
		return pgr_syncer_fail(s->syncer, err);
	if (!ends)
		return PGR_OK;
	s->written_back = pgr_lsn_segoff(s->position, s->dir.segment_bytes);
	s->written_back -= s->written_back % (off_t)WRITE_BACK_STEP;
	pgr_syncer_wrote(s->syncer, s->position);
	return PGR_OK;
}

static int clear(struct pgr_walstore *s, const char *name, struct pgr_err *err)
{
	if (s->dir.sys->unlinkat(s->dir.sys, s->dir.dirfd, name, 0) == 0 || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not remove file \"%s/%s\"", s->dir_name, name);
}

/* Nothing else uses these names, so what has one was left by a run that was killed, and nothing in it acknowledged. */
static int clear_leftovers(struct pgr_walstore *s, struct pgr_err *err)
{
	char name[PGR_SEGNAME_ROOM];

	if (s->cleared)
		return PGR_OK;
	if (clear(s, PGR_SEGFILE_AHEAD, err) != PGR_OK)
		return PGR_ERR;
	for (pgr_segno i = 0; i < PGR_SEGFILE_WAITING; i++) {
		pgr_segfile_waiting_name(i, name);
		if (clear(s, name, err) != PGR_OK)
			return PGR_ERR;
	}
	s->cleared = true;
	return PGR_OK;
}

/* An earlier run may have died after a rename and before it was durable. */
static int sync_dir(struct pgr_walstore *s, struct pgr_err *err)
{
	return pgr_waldir_sync(&s->dir, err) == PGR_OK ? PGR_OK : pgr_syncer_fail(s->syncer, err);
}

/* Goes on inside a segment: all that its file holds before `lsn` has to be durable. */
static int begin_inside(struct pgr_walstore *s, pgr_lsn lsn, struct pgr_err *err)
{
	if (open_segment(s, lsn, false, err) != PGR_OK)
		return PGR_ERR;
	pgr_syncer_wrote(s->syncer, lsn);
	return pgr_syncer_wait(s->syncer, err);
}

int pgr_walstore_begin(struct pgr_walstore *s, pgr_tli tli, pgr_lsn lsn, struct pgr_err *err)
{
	if (pgr_syncer_check(s->syncer, err) != PGR_OK)
		return PGR_ERR;
	if (s->file.fd >= 0 || tli == 0)
		return pgr_err_set(err, PGR_E_USAGE, "cannot begin on timeline %u in \"%s\": %s", tli, s->dir_name,
				   s->file.fd >= 0 ? "a segment is open" : "no such timeline");
	s->begun = false;
	if (pgr_syncer_wait(s->syncer, err) != PGR_OK || clear_leftovers(s, err) != PGR_OK ||
	    sync_dir(s, err) != PGR_OK)
		return PGR_ERR;
	s->tli = tli;
	pgr_syncer_reset(s->syncer, pgr_lsn_segstart(lsn, s->dir.segment_bytes));
	s->position = lsn;
	if (pgr_lsn_segoff(lsn, s->dir.segment_bytes) != 0 && begin_inside(s, lsn, err) != PGR_OK)
		return PGR_ERR;
	s->begun = true;
	return PGR_OK;
}

/* A kernel or a file system without it. */
static bool is_unknown(int error)
{
	return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP || error == ESPIPE;
}

/*
 * Much that comes at once is on its way to the disk before its segment is complete, so that the sync does not begin
 * with all of it.  Whole steps only: no page is written twice.
 */
static int write_back(struct pgr_walstore *s, off_t end, struct pgr_err *err)
{
	off_t from = s->written_back;
	off_t upto = end - end % (off_t)WRITE_BACK_STEP;

	if (!s->dir.sync || upto <= from)
		return PGR_OK;
	s->written_back = upto;
	if (s->dir.sys->sync_file_range(s->dir.sys, s->file.fd, from, upto - from, SYNC_FILE_RANGE_WRITE) != 0 &&
	    !is_unknown(errno))
		return pgr_err_sys(err, errno, "could not write back file \"%s\"", s->path);
	return PGR_OK;
}

static int write_new(struct pgr_walstore *s, pgr_lsn lsn, const uint8_t *p, size_t len, struct pgr_err *err)
{
	off_t off = pgr_lsn_segoff(lsn, s->dir.segment_bytes);
	size_t same;

	if (pgr_oldbytes_match(&s->old, &s->dir, &s->file, lsn, p, len, &same, err) != PGR_OK) {
		s->forked = err->cls == PGR_E_DATA;
		return PGR_ERR;
	}
	if (same == len)
		return PGR_OK;
	if (pgr_fs_pwrite_all(s->dir.sys, s->file.fd, p + same, len - same, off + (off_t)same, s->path, err) != PGR_OK)
		return PGR_ERR;
	return write_back(s, off + (off_t)len, err);
}

static int append_behind(struct pgr_walstore *s, const uint8_t *p, size_t len, struct pgr_err *err)
{
	size_t taken;
	int rc = pgr_bulk_put(s->bulk, p, len, &taken, err);

	if (rc == PGR_ERR)
		return pgr_syncer_fail(s->syncer, err);
	s->position += taken;
	if (taken == 0 || pgr_lsn_segoff(s->position, s->dir.segment_bytes) != 0)
		return rc;
	forget_segment(s);
	pgr_syncer_finish_behind(s->syncer, s->position);
	return PGR_OK;
}

/*
 * `len` bytes that fit into the open segment; PGR_MORE: some of them, see the position.  A file that got its space has
 * no need for more, so a full disk is no better than any other failure: where a network file system says ENOSPC, what
 * was written earlier may be what was lost, and the next sync would not tell (nfs_file_write in Linux' fs/nfs/file.c).
 */
static int append(struct pgr_walstore *s, const uint8_t *p, size_t len, struct pgr_err *err)
{
	uint32_t off = pgr_lsn_segoff(s->position, s->dir.segment_bytes);

	if (s->in_bulk)
		return append_behind(s, p, len, err);
	if (write_new(s, s->position, p, len, err) != PGR_OK)
		return pgr_syncer_fail(s->syncer, err);
	s->position += len;
	if (off + len < s->dir.segment_bytes) {
		pgr_syncer_wrote(s->syncer, s->position);
		return PGR_OK;
	}
	forget_segment(s);
	return pgr_syncer_finish(s->syncer, s->position, err);
}

/*
 * A file that is there already, or a file system that has refused, ends the thread's part while blocks still wait for
 * it.  They stand before what is written here: what is written behind them would make them count as written.
 */
static int next_segment(struct pgr_walstore *s, struct pgr_err *err)
{
	if (open_segment(s, s->position, true, err) != PGR_OK)
		return PGR_ERR;
	return s->in_bulk ? PGR_OK : drain(s, err);
}

static int check_write(const struct pgr_walstore *s, pgr_lsn lsn, size_t len, struct pgr_err *err)
{
	if (!s->begun || lsn != s->position)
		return pgr_err_set(err, PGR_E_USAGE,
				   "cannot write WAL of %" PGR_LSN_FMT " in \"%s\", which stands at %" PGR_LSN_FMT,
				   PGR_LSN_ARG(lsn), s->dir_name, PGR_LSN_ARG(s->position));
	if (len > UINT64_MAX - lsn)
		return pgr_err_set(err, PGR_E_DATA, "WAL at %" PGR_LSN_FMT " goes beyond the last position",
				   PGR_LSN_ARG(lsn));
	return PGR_OK;
}

int pgr_walstore_write(struct pgr_walstore *s, pgr_lsn lsn, const void *data, size_t len, struct pgr_err *err)
{
	const uint8_t *p = data;
	pgr_lsn end = lsn + len;
	int rc;

	if (pgr_syncer_check(s->syncer, err) != PGR_OK || check_write(s, lsn, len, err) != PGR_OK)
		return PGR_ERR;
	while (s->position < end) {
		size_t n = s->dir.segment_bytes - pgr_lsn_segoff(s->position, s->dir.segment_bytes);

		if (s->file.fd < 0 && !pgr_syncer_has_room(s->syncer))
			return PGR_MORE;
		if (s->file.fd < 0 && next_segment(s, err) != PGR_OK)
			return PGR_ERR;
		if (n > end - s->position)
			n = (size_t)(end - s->position);
		rc = append(s, p + (s->position - lsn), n, err);
		if (rc != PGR_OK)
			return rc;
	}
	return PGR_OK;
}

int pgr_walstore_set_bulk(struct pgr_walstore *s, bool bulk, struct pgr_err *err)
{
	bool left = s->bulk_wanted && !bulk;

	s->bulk_wanted = bulk;
	return left ? drain(s, err) : PGR_OK;
}

int pgr_walstore_request_sync(struct pgr_walstore *s, bool here, struct pgr_err *err)
{
	return drain(s, err) == PGR_OK ? pgr_syncer_request(s->syncer, here, err) : PGR_ERR;
}

int pgr_walstore_sync(struct pgr_walstore *s, struct pgr_err *err)
{
	return drain(s, err) == PGR_OK ? pgr_syncer_wait(s->syncer, err) : PGR_ERR;
}

int pgr_walstore_check(struct pgr_walstore *s, struct pgr_err *err)
{
	return pgr_syncer_check(s->syncer, err);
}

/* The syncer does not know the open segment any more. */
static int close_file(struct pgr_walstore *s, struct pgr_segfile *f, bool finish, struct pgr_err *err)
{
	if (finish && pgr_segfile_finish(&s->dir, f, err) != PGR_OK)
		goto failed;
	if (!f->entry_durable && pgr_waldir_sync(&s->dir, err) != PGR_OK)
		goto failed;
	if (pgr_segfile_close(&s->dir, f, err) == PGR_OK)
		return PGR_OK;
failed:
	pgr_segfile_drop(&s->dir, f);
	return pgr_syncer_fail(s->syncer, err);
}

int pgr_walstore_close_segment(struct pgr_walstore *s, bool finish, struct pgr_err *err)
{
	int rc = pgr_walstore_sync(s, err);
	struct pgr_segfile f;

	if (s->bulk != NULL)
		pgr_bulk_forget(s->bulk); /* after a failure */
	s->begun = false;
	forget_segment(s);
	pgr_syncer_detach(s->syncer, &f);
	pgr_syncer_drop_ahead(s->syncer);
	if (rc == PGR_OK && f.fd >= 0)
		return close_file(s, &f, finish, err);
	pgr_segfile_drop(&s->dir, &f);
	return rc;
}

/* ---- history files ---- */

static int check_history(struct pgr_walstore *s, const char *name, const char *content, size_t len, struct pgr_err *err)
{
	size_t old_len;
	char *old;
	bool equal;
	int rc = pgr_fs_read_file(s->dir.sys, s->dir.dirfd, s->dir_name, name, HISTORY_MAX, &old, &old_len, err);

	if (rc != PGR_OK)
		return rc;
	equal = old_len == len && (len == 0 || memcmp(old, content, len) == 0);
	free(old);
	if (equal)
		return PGR_OK;
	s->forked = true;
	pgr_err_set(err, PGR_E_DATA, "timeline history file \"%s/%s\" differs from the server's", s->dir_name, name);
	return pgr_err_hint(err, "The directory holds WAL of another server that was promoted to the same timeline.");
}

int pgr_walstore_put_history(struct pgr_walstore *s, pgr_tli tli, const char *content, size_t len, struct pgr_err *err)
{
	char name[17];
	int rc;

	if (pgr_syncer_check(s->syncer, err) != PGR_OK)
		return PGR_ERR;
	pgr_historyname_format(name, tli);
	rc = check_history(s, name, content, len, err);
	if (rc == PGR_MORE)
		rc = pgr_fs_write_file(s->dir.sys, s->dir.dirfd, s->dir_name, name, ".tmp", content, len,
				       s->dir.file_mode, s->dir.sync, err);
	return rc == PGR_OK ? pgr_segfile_mark(&s->dir, name, err) : PGR_ERR;
}

int pgr_walstore_has_history(struct pgr_walstore *s, pgr_tli tli, bool *has, struct pgr_err *err)
{
	char name[17];
	struct stat st;

	pgr_historyname_format(name, tli);
	*has = s->dir.sys->fstatat(s->dir.sys, s->dir.dirfd, name, &st, 0) == 0;
	if (*has || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", s->dir_name, name);
}

/* ---- where it stands ---- */

bool pgr_walstore_is_failed(const struct pgr_walstore *s)
{
	return pgr_syncer_is_failed(s->syncer);
}

bool pgr_walstore_is_forked(const struct pgr_walstore *s)
{
	return s->forked;
}

pgr_lsn pgr_walstore_position(const struct pgr_walstore *s)
{
	return s->position;
}

pgr_lsn pgr_walstore_written(const struct pgr_walstore *s)
{
	return pgr_syncer_written(s->syncer);
}

pgr_lsn pgr_walstore_synced(const struct pgr_walstore *s)
{
	return pgr_syncer_synced(s->syncer);
}

const char *pgr_walstore_open_name(const struct pgr_walstore *s)
{
	return s->file.fd >= 0 ? s->path + strlen(s->dir_name) + 1 : "";
}
