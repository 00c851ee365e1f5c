#include "backup/lane_files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backup/delta_plan.h"
#include "backup/dirsink.h"
#include "backup/exclude.h"
#include "backup/filelist.h"
#include "backup/filesum.h"
#include "backup/lane_work.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "backup/pagecheck.h"
#include "common/stop.h"
#include "common/sys.h"

enum file_state { FILE_UNSEEN, FILE_BEING_MADE, FILE_MADE };

/*
 * - `sink`, `pages` and `segment` are written by the thread that makes the file, before it is FILE_MADE.  `sum` is set
 *   under the lock, before anything is added to it.
 * - A row counts as dealt with when its block was posted, a chunk that stays when it was added to the sum: so the
 * thread that takes `left` to 0 sees all of that done, and is the only one that ends the file.
 * - `sum` is freed, and `copied` set, by the writer that finishes the file, or by who ends one that was not opened.
 */
struct file {
	struct pgr_lane_files *owner;
	struct pgr_sink_file *sink;
	struct pgr_filesum *sum;
	uint64_t end;		     /* what it is sealed with: the listed size, or what came as a whole */
	uint64_t size;		     /* of a copied one */
	_Atomic uint64_t left;	     /* bytes, in spans */
	_Atomic unsigned char state; /* FILE_UNSEEN is left under the lock */
	atomic_bool seen, changed;   /* of a file in place */
	bool pages;
	bool copied;
	bool gone; /* was in place, and is removed */
	uint32_t segment;
};

struct figures {
	_Atomic uint64_t compared, same, fetched, files_same, files_changed, files_new, files_gone;
};

struct pgr_lane_files {
	/* constant */
	struct pgr_lane_files_opts o;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	struct pgr_sink_watch watch, watch_in_place;
	struct figures figures;
	struct file *files; /* as many as the list has entries */
	uint8_t *sums;	    /* pgr_digest_len bytes for each */
	size_t sum_len;

	pthread_mutex_t lock;
	pthread_cond_t made; /* a file was made, or the latch is set */
};

/* ---- on the way to the disk: in writers ---- */

static size_t index_of(const struct file *file)
{
	return (size_t)(file - file->owner->files);
}

static void watch_block(void *arg, uint64_t off, const uint8_t *data, size_t len)
{
	struct file *file = arg;

	if (file->sum != NULL)
		pgr_filesum_block(file->sum, off, data, len);
	if (file->pages)
		pgr_pagecheck_block(file->owner->o.pages, file, file->segment, off, data, len);
}

/*
 * Who fills the manifest would not notice that a sum is missing: it must not get that far.  A file in place may have
 * none for now.
 */
static void watch_done(void *arg, uint64_t size)
{
	struct file *file = arg;
	struct pgr_lane_files *f = file->owner;
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_err err;
	size_t len;

	file->size = size;
	if (file->sum == NULL) {
		file->copied = true;
		return;
	}
	if (pgr_filesum_end(file->sum, size, sum, &len, &err) != PGR_OK) {
		pgr_err_prefix(&err, "file \"%s\"", f->o.list->entries[index_of(file)].path);
		pgr_stop_post(f->stop, &err);
		return;
	}
	memcpy(f->sums + index_of(file) * f->sum_len, sum, f->sum_len);
	pgr_filesum_free(file->sum);
	file->sum = NULL;
	file->copied = true;
}

/* ---- making and freeing ---- */

static void wake_all(void *arg)
{
	struct pgr_lane_files *f = arg;

	pthread_mutex_lock(&f->lock);
	pthread_cond_broadcast(&f->made);
	pthread_mutex_unlock(&f->lock);
}

/* What is not compared is not looked at by anybody: it is counted now. */
static void count_uncompared(struct pgr_lane_files *f, size_t i, uint64_t compared)
{
	const struct pgr_list_entry *e = &f->o.list->entries[i];
	const struct pgr_delta_file *d = &f->o.plan->files[i];

	if (e->is_dir || d->action == PGR_DELTA_KEEP)
		return;
	f->figures.fetched += e->size - compared;
	if (d->action == PGR_DELTA_FETCH)
		f->figures.files_new++;
	else if (compared == 0 && e->size == d->local_size)
		f->figures.files_same++;
	else if (compared == 0)
		f->figures.files_changed++;
}

static int init_files(struct pgr_lane_files *f, struct pgr_err *err)
{
	const struct pgr_filelist *list = f->o.list;

	f->files = calloc(list->n + 1, sizeof(*f->files));
	f->sums = calloc(list->n + 1, f->sum_len + 1);
	if (f->files == NULL || f->sums == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < list->n; i++) {
		const struct pgr_list_entry *e = &list->entries[i];

		f->files[i].owner = f;
		f->files[i].end = e->size;
		atomic_init(&f->files[i].state, FILE_UNSEEN);
		atomic_init(&f->files[i].left, pgr_lane_span(e->size));
		if (f->o.compare_only) {
			uint64_t compared = pgr_lane_compare_end(list, f->o.plan, i, f->o.largest_row);

			count_uncompared(f, i, compared);
			atomic_init(&f->files[i].left, compared);
		}
	}
	return PGR_OK;
}

static int init_locks(struct pgr_lane_files *f, struct pgr_err *err)
{
	int rc = pthread_mutex_init(&f->lock, NULL);

	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create a mutex");
	rc = pthread_cond_init(&f->made, NULL);
	if (rc == 0)
		return PGR_OK;
	pthread_mutex_destroy(&f->lock);
	return pgr_err_sys(err, rc, "could not create a condition variable");
}

static void free_memory(struct pgr_lane_files *f)
{
	free(f->files);
	free(f->sums);
	free(f);
}

int pgr_lane_files_new(struct pgr_lane_files **out, const struct pgr_lane_files_opts *opts, const struct pgr_sys *sys,
		       struct pgr_stop *stop, struct pgr_err *err)
{
	struct pgr_lane_files *f = calloc(1, sizeof(*f));

	*out = NULL;
	if (f == NULL)
		return pgr_err_nomem(err);
	f->o = *opts;
	f->sys = sys;
	f->stop = stop;
	f->sum_len = pgr_digest_len(opts->digest);
	f->waker = (struct pgr_waker){.fn = wake_all, .arg = f};
	f->watch = (struct pgr_sink_watch){
		.block = watch_block,
		.done = watch_done,
		.ordered = opts->digest != PGR_DIGEST_NONE && opts->digest != PGR_DIGEST_CRC32C,
	};
	f->watch_in_place = (struct pgr_sink_watch){.block = watch_block, .done = watch_done};
	if (init_files(f, err) != PGR_OK || init_locks(f, err) != PGR_OK) {
		free_memory(f);
		return PGR_ERR;
	}
	pgr_stop_watch(stop, &f->waker);
	*out = f;
	return PGR_OK;
}

void pgr_lane_files_free(struct pgr_lane_files *f)
{
	if (f == NULL)
		return;
	pgr_stop_unwatch(f->stop, &f->waker);
	for (size_t i = 0; i < f->o.list->n; i++)
		pgr_filesum_free(f->files[i].sum);
	pthread_cond_destroy(&f->made);
	pthread_mutex_destroy(&f->lock);
	free_memory(f);
}

/* ---- one file: making it ---- */

static int enter_for(const struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, const char **leaf,
		     struct pgr_err *err)
{
	return pgr_lane_dir_enter(dir, f->sys, f->o.layout, f->o.list->entries[i].path, leaf, err);
}

/* A server does not start with a key that others may read. */
static mode_t mode_of(const struct pgr_lane_files *f, size_t i)
{
	mode_t mode = pgr_layout_file_mode(f->o.layout);

	return f->o.list->entries[i].is_private ? mode & S_IRWXU : mode;
}

/* Of an entry, for messages: the caller frees it.  NULL: out of memory. */
static char *full_name(const struct pgr_lane_files *f, size_t i, struct pgr_err *err)
{
	const char *where = pgr_layout_data_dir(f->o.layout), *path = f->o.list->entries[i].path;
	char *name = malloc(strlen(where) + strlen(path) + 2);

	if (name == NULL)
		pgr_err_nomem(err);
	else
		stpcpy(stpcpy(stpcpy(name, where), "/"), path);
	return name;
}

static int open_sink(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_sink_file **out,
		     struct pgr_err *err)
{
	mode_t mode = mode_of(f, i);
	char *name = full_name(f, i, err);
	const char *leaf;
	int rc;

	if (name == NULL)
		return PGR_ERR;
	rc = enter_for(f, i, dir, &leaf, err);
	if (rc == PGR_OK && pgr_lane_files_in_place(f, i))
		rc = pgr_dirsink_open(f->o.sink, dir->fd, leaf, name, mode, out, err);
	else if (rc == PGR_OK)
		rc = pgr_dirsink_create(f->o.sink, dir->fd, leaf, name, mode, out, err);
	free(name);
	return rc;
}

/* A file in place has a sum from now on when its parts may come in any order. */
static int begin_sum(struct pgr_lane_files *f, size_t i, struct pgr_err *err)
{
	struct file *file = &f->files[i];
	int rc = PGR_OK;

	if (pgr_lane_files_in_place(f, i) && f->o.digest != PGR_DIGEST_CRC32C)
		return PGR_OK;
	pthread_mutex_lock(&f->lock);
	if (file->sum == NULL)
		rc = pgr_filesum_new(&file->sum, f->o.digest, err);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static void tell_begun(const struct pgr_lane_files *f, size_t i)
{
	if (f->o.on_file != NULL)
		f->o.on_file(f->o.arg, f->o.list->entries[i].path);
}

bool pgr_lane_files_in_place(const struct pgr_lane_files *f, size_t i)
{
	return f->o.plan != NULL && f->o.plan->files[i].action == PGR_DELTA_COMPARE;
}

static int make(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	const char *path = f->o.list->entries[i].path;
	bool in_place = pgr_lane_files_in_place(f, i);
	struct file *file = &f->files[i];
	struct pgr_relfile rel;

	if (begin_sum(f, i, err) != PGR_OK || open_sink(f, i, dir, &file->sink, err) != PGR_OK)
		return PGR_ERR;
	if (f->o.pages != NULL && pgr_has_page_checksums(path, &rel)) {
		file->pages = true;
		file->segment = rel.segment;
	}
	pgr_dirsink_watch(f->o.sink, file->sink, in_place ? &f->watch_in_place : &f->watch, file);
	if (!in_place) {
		f->figures.files_new++;
		tell_begun(f, i);
	}
	return PGR_OK;
}

/* Whether this thread is to make the file.  Otherwise it was made, or (PGR_ERR) will not be. */
static int begin(struct pgr_lane_files *f, struct file *file, bool *mine, struct pgr_err *err)
{
	int rc = PGR_OK;

	*mine = false;
	if (atomic_load_explicit(&file->state, memory_order_acquire) == FILE_MADE)
		return PGR_OK;
	pthread_mutex_lock(&f->lock);
	*mine = atomic_load(&file->state) == FILE_UNSEEN;
	if (*mine)
		atomic_store(&file->state, FILE_BEING_MADE);
	while (!*mine && atomic_load(&file->state) != FILE_MADE && (rc = pgr_stop_check(f->stop, err)) == PGR_OK)
		pthread_cond_wait(&f->made, &f->lock);
	pthread_mutex_unlock(&f->lock);
	return rc;
}

int pgr_lane_files_make(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	struct file *file = &f->files[i];
	bool mine;

	if (begin(f, file, &mine, err) != PGR_OK)
		return PGR_ERR;
	if (!mine)
		return PGR_OK;
	if (make(f, i, dir, err) != PGR_OK)
		return PGR_ERR;
	pthread_mutex_lock(&f->lock);
	atomic_store_explicit(&file->state, FILE_MADE, memory_order_release);
	pthread_cond_broadcast(&f->made);
	pthread_mutex_unlock(&f->lock);
	return PGR_OK;
}

/* ---- one file: its end ---- */

static bool is_made(const struct file *file)
{
	return atomic_load_explicit(&file->state, memory_order_acquire) == FILE_MADE;
}

static bool size_differs(const struct pgr_lane_files *f, size_t i)
{
	return f->o.plan->files[i].local_size != f->files[i].end;
}

static void count_end(struct pgr_lane_files *f, size_t i)
{
	if (atomic_load(&f->files[i].changed) || size_differs(f, i))
		f->figures.files_changed++;
	else
		f->figures.files_same++;
}

/* What may have been written into it meanwhile are zeros. */
static int remove_here(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	struct file *file = &f->files[i];
	const char *leaf;

	if (is_made(file))
		pgr_dirsink_abandon(f->o.sink, &file->sink);
	if (enter_for(f, i, dir, &leaf, err) != PGR_OK)
		return PGR_ERR;
	if (f->sys->unlinkat(f->sys, dir->fd, leaf, 0) != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not remove file \"%s\"", f->o.list->entries[i].path);
	file->gone = true;
	f->figures.files_gone++;
	return PGR_OK;
}

/* The first reader of a file sets its mode; where there is nothing to be read nobody has. */
static int mend_mode(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	int fd;

	if (f->o.list->entries[i].size > 0)
		return PGR_OK;
	if (pgr_lane_files_open_here(f, i, dir, &fd, err) != PGR_OK)
		return PGR_ERR;
	(void)f->sys->close(f->sys, fd); /* nothing was written through it */
	return PGR_OK;
}

/* Nothing is left to be compared or fetched.  What is the same all over is not opened for writing. */
static int end_in_place(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	struct file *file = &f->files[i];
	uint64_t size = file->end;

	if (!f->o.compare_only && !atomic_load(&file->seen))
		return remove_here(f, i, dir, err);
	count_end(f, i);
	if (f->o.compare_only)
		return PGR_OK;
	if (size_differs(f, i) && pgr_lane_files_make(f, i, dir, err) != PGR_OK)
		return PGR_ERR;
	if (is_made(file))
		return pgr_dirsink_seal(f->o.sink, &file->sink, size, err);
	if (mend_mode(f, i, dir, err) != PGR_OK || begin_sum(f, i, err) != PGR_OK)
		return PGR_ERR;
	watch_done(file, size);
	return PGR_OK;
}

/* ---- one file: filling it ---- */

/* The one row of the file is this thread's, and so is its end. */
void pgr_lane_files_set_end(struct pgr_lane_files *f, size_t i, uint64_t size)
{
	f->files[i].end = size;
}

/* A file of which no row came is not there any more: nothing was made, nothing is sealed. */
int pgr_lane_files_skip(struct pgr_lane_files *f, size_t i, uint64_t span, struct pgr_lane_dir *dir,
			struct pgr_err *err)
{
	struct file *file = &f->files[i];

	if (atomic_fetch_sub_explicit(&file->left, span, memory_order_acq_rel) != span)
		return PGR_OK;
	if (pgr_lane_files_in_place(f, i))
		return end_in_place(f, i, dir, err);
	if (!is_made(file))
		return PGR_OK;
	return pgr_dirsink_seal(f->o.sink, &file->sink, file->end, err);
}

int pgr_lane_files_post(struct pgr_lane_files *f, size_t i, uint64_t off, struct pgr_block **b, uint64_t span,
			struct pgr_lane_dir *dir, struct pgr_err *err)
{
	if (pgr_dirsink_post(f->o.sink, f->files[i].sink, off, b, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lane_files_skip(f, i, span, dir, err);
}

/* ---- a file in place: comparing it ---- */

static int check_here(const struct pgr_lane_files *f, size_t i, int fd, const char *name, struct pgr_err *err)
{
	mode_t mode = mode_of(f, i);
	const struct pgr_sys *sys = f->sys;
	struct stat st;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", name);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"%s\" is not a regular file", name);
	if (f->o.compare_only || !pgr_lane_files_in_place(f, i) || (st.st_mode & 07777) == mode)
		return PGR_OK;
	if (sys->fchmod(sys, fd, mode) != 0)
		return pgr_err_sys(err, errno, "could not set permissions on file \"%s\"", name);
	return PGR_OK;
}

/* A file that is kept may be a link that somebody made; what is compared was seen to be none. */
static int open_at(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, const char *name, int *fd,
		   struct pgr_err *err)
{
	int follow = pgr_lane_files_in_place(f, i) ? O_NOFOLLOW : 0;
	const char *leaf;

	if (enter_for(f, i, dir, &leaf, err) != PGR_OK)
		return PGR_ERR;
	*fd = f->sys->openat(f->sys, dir->fd, leaf, O_RDONLY | O_NONBLOCK | O_CLOEXEC | follow, 0);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", name);
	if (check_here(f, i, *fd, name, err) == PGR_OK)
		return PGR_OK;
	(void)f->sys->close(f->sys, *fd); /* nothing was written to it */
	*fd = -1;
	return PGR_ERR;
}

int pgr_lane_files_open_here(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, int *fd, struct pgr_err *err)
{
	char *name = full_name(f, i, err);
	int rc;

	*fd = -1;
	if (name == NULL)
		return PGR_ERR;
	rc = open_at(f, i, dir, name, fd, err);
	free(name);
	if (rc == PGR_OK)
		tell_begun(f, i);
	return rc;
}

void pgr_lane_files_seen(struct pgr_lane_files *f, size_t i)
{
	atomic_store_explicit(&f->files[i].seen, true, memory_order_relaxed);
}

int pgr_lane_files_keep(struct pgr_lane_files *f, size_t i, uint64_t off, uint64_t len, uint32_t crc,
			struct pgr_lane_dir *dir, struct pgr_err *err)
{
	pgr_lane_files_seen(f, i);
	f->figures.compared += len;
	f->figures.same += len;
	if (!f->o.compare_only && f->o.digest == PGR_DIGEST_CRC32C) {
		if (begin_sum(f, i, err) != PGR_OK)
			return PGR_ERR;
		pgr_filesum_known(f->files[i].sum, off, len, crc);
	}
	return pgr_lane_files_skip(f, i, len, dir, err);
}

int pgr_lane_files_differ(struct pgr_lane_files *f, size_t i, uint64_t len, struct pgr_lane_dir *dir,
			  struct pgr_err *err)
{
	atomic_store(&f->files[i].changed, true);
	f->figures.compared += len;
	if (!f->o.compare_only)
		return PGR_OK;
	f->figures.fetched += len;
	return pgr_lane_files_skip(f, i, len, dir, err);
}

void pgr_lane_files_check_pages(struct pgr_lane_files *f, size_t i, uint64_t off, const void *data, size_t len)
{
	struct pgr_relfile rel;

	if (pgr_has_page_checksums(f->o.list->entries[i].path, &rel))
		pgr_pagecheck_block(f->o.pages, &f->files[i], rel.segment, off, data, len);
}

bool pgr_lane_files_lacks_sum(const struct pgr_lane_files *f, size_t i)
{
	bool ordered = f->o.digest != PGR_DIGEST_NONE && f->o.digest != PGR_DIGEST_CRC32C;

	if (f->o.plan == NULL || f->o.list->entries[i].is_dir)
		return false;
	if (f->o.plan->files[i].action == PGR_DELTA_KEEP)
		return true;
	return ordered && pgr_lane_files_in_place(f, i) && f->files[i].copied;
}

void pgr_lane_files_set_sum(struct pgr_lane_files *f, size_t i, uint64_t size, const uint8_t *sum)
{
	memcpy(pgr_lane_files_sum(f, i), sum, f->sum_len);
	f->files[i].size = size;
	f->files[i].copied = true;
}

void pgr_lane_files_leave_out(struct pgr_lane_files *f, size_t i)
{
	f->files[i].gone = true;
}

void pgr_lane_files_figures(const struct pgr_lane_files *f, struct pgr_delta_figures *out)
{
	const struct figures *g = &f->figures;

	*out = (struct pgr_delta_figures){0};
	if (f->o.plan == NULL)
		return;
	out->compared = atomic_load(&g->compared);
	out->same = atomic_load(&g->same);
	out->fetched = atomic_load(&g->fetched);
	out->files_same = atomic_load(&g->files_same);
	out->files_changed = atomic_load(&g->files_changed);
	out->files_new = atomic_load(&g->files_new);
	out->files_gone = atomic_load(&g->files_gone);
}

/* ---- afterwards ---- */

int pgr_lane_files_copied(const struct pgr_lane_files *f, size_t i, struct pgr_err *err)
{
	const struct file *file = &f->files[i];

	if (file->copied)
		return PGR_OK;
	if (file->gone || (atomic_load(&file->state) == FILE_UNSEEN && atomic_load(&file->left) == 0 &&
			   !pgr_lane_files_in_place(f, i)))
		return PGR_MORE;
	return pgr_err_set(err, PGR_E_USAGE, "file \"%s\" is not complete", f->o.list->entries[i].path);
}

uint64_t pgr_lane_files_size(const struct pgr_lane_files *f, size_t i)
{
	return f->files[i].size;
}

uint8_t *pgr_lane_files_sum(struct pgr_lane_files *f, size_t i)
{
	return f->sums + i * f->sum_len;
}

size_t pgr_lane_files_index(const struct pgr_lane_files *f, const void *file)
{
	return (size_t)((const struct file *)file - f->files);
}
