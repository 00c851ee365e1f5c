#include "backup/lane_files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backup/dirsink.h"
#include "backup/exclude.h"
#include "backup/filelist.h"
#include "backup/filesum.h"
#include "backup/lane_work.h"
#include "backup/layout.h"
#include "backup/pagecheck.h"
#include "common/fs.h"
#include "common/stop.h"
#include "common/sys.h"

enum file_state { FILE_UNSEEN, FILE_BEING_MADE, FILE_MADE };

/*
 * - `sink`, `sum`, `pages` and `segment` are written by the thread that makes the file, before it is FILE_MADE.
 * - A row counts as dealt with when its block was posted: so the thread that takes rows_left to 0 sees all posts done,
 *   and is the only one that seals.
 * - `sum` is freed, and `copied` set, by the writer that finishes the file.
 */
struct file {
	struct pgr_lane_files *owner;
	struct pgr_sink_file *sink;
	struct pgr_filesum *sum;
	_Atomic uint64_t rows_left;
	_Atomic unsigned char state; /* FILE_UNSEEN is left under the lock */
	bool pages;
	bool copied;
	uint32_t segment;
};

struct pgr_lane_files {
	/* constant */
	struct pgr_lane_files_opts o;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_waker waker;
	struct pgr_sink_watch watch;
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

	pgr_filesum_block(file->sum, off, data, len);
	if (file->pages)
		pgr_pagecheck_block(file->owner->o.pages, file, file->segment, off, data, len);
}

/* Who fills the manifest would not notice that a sum is missing: it must not get that far. */
static void watch_done(void *arg, uint64_t size)
{
	struct file *file = arg;
	struct pgr_lane_files *f = file->owner;
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_err err;
	size_t len;

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
		atomic_init(&f->files[i].state, FILE_UNSEEN);
		atomic_init(&f->files[i].rows_left, pgr_lane_rows(e->size, pgr_lane_row_bytes(e, f->o.largest_row)));
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

void pgr_lane_dir_fini(struct pgr_lane_dir *d, const struct pgr_sys *sys)
{
	if (d->fd >= 0)
		(void)sys->close(sys, d->fd); /* nothing was written through it */
	free(d->path);
	*d = PGR_LANE_DIR_INIT;
}

static size_t parent_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? 0 : (size_t)(slash - path);
}

/* The directory that holds `path` below `root`; `leaf` points into the path. */
static int enter(struct pgr_lane_dir *d, const struct pgr_sys *sys, int root, const char *path, const char **leaf,
		 struct pgr_err *err)
{
	size_t len = parent_len(path);

	if (d->fd >= 0 && d->root == root && d->len == len && strncmp(d->path, path, len) == 0) {
		*leaf = path + len + (len > 0);
		return PGR_OK;
	}
	pgr_lane_dir_fini(d, sys);
	d->path = strndup(path, len);
	if (d->path == NULL)
		return pgr_err_nomem(err);
	d->root = root;
	d->len = len;
	return pgr_fs_open_parent(sys, root, path, &d->fd, leaf, err);
}

static int create(struct pgr_lane_files *f, const char *path, struct pgr_lane_dir *dir, struct pgr_sink_file **out,
		  struct pgr_err *err)
{
	const char *where = pgr_layout_data_dir(f->o.layout);
	char *name = malloc(strlen(where) + strlen(path) + 2);
	const char *rest, *leaf;
	int root, rc;

	if (name == NULL)
		return pgr_err_nomem(err);
	stpcpy(stpcpy(stpcpy(name, where), "/"), path);
	pgr_layout_resolve(f->o.layout, path, &root, &rest);
	rc = enter(dir, f->sys, root, rest, &leaf, err);
	if (rc == PGR_OK)
		rc = pgr_dirsink_create(f->o.sink, dir->fd, leaf, name, pgr_layout_file_mode(f->o.layout), out, err);
	free(name);
	return rc;
}

static int make(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err)
{
	const char *path = f->o.list->entries[i].path;
	struct file *file = &f->files[i];
	struct pgr_relfile rel;

	if (pgr_filesum_new(&file->sum, f->o.digest, err) != PGR_OK || create(f, path, dir, &file->sink, err) != PGR_OK)
		return PGR_ERR;
	if (f->o.pages != NULL && pgr_has_page_checksums(path, &rel)) {
		file->pages = true;
		file->segment = rel.segment;
	}
	pgr_dirsink_watch(f->o.sink, file->sink, &f->watch, file);
	if (f->o.on_file != NULL)
		f->o.on_file(f->o.arg, path);
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

/* ---- one file: filling it ---- */

/* A file of which no row came is not there any more: nothing was made, nothing is sealed. */
int pgr_lane_files_skip(struct pgr_lane_files *f, size_t i, uint64_t rows, struct pgr_err *err)
{
	struct file *file = &f->files[i];

	if (atomic_fetch_sub_explicit(&file->rows_left, rows, memory_order_acq_rel) != rows)
		return PGR_OK;
	if (atomic_load_explicit(&file->state, memory_order_acquire) != FILE_MADE)
		return PGR_OK;
	return pgr_dirsink_seal(f->o.sink, &file->sink, f->o.list->entries[i].size, err);
}

int pgr_lane_files_post(struct pgr_lane_files *f, size_t i, uint64_t off, struct pgr_block **b, uint64_t rows,
			struct pgr_err *err)
{
	if (pgr_dirsink_post(f->o.sink, f->files[i].sink, off, b, err) != PGR_OK)
		return PGR_ERR;
	return pgr_lane_files_skip(f, i, rows, err);
}

/* ---- afterwards ---- */

int pgr_lane_files_copied(const struct pgr_lane_files *f, size_t i, struct pgr_err *err)
{
	const struct file *file = &f->files[i];

	if (file->copied)
		return PGR_OK;
	if (atomic_load(&file->state) == FILE_UNSEEN && atomic_load(&file->rows_left) == 0)
		return PGR_MORE;
	return pgr_err_set(err, PGR_E_USAGE, "file \"%s\" is not complete", f->o.list->entries[i].path);
}

uint8_t *pgr_lane_files_sum(struct pgr_lane_files *f, size_t i)
{
	return f->sums + i * f->sum_len;
}

size_t pgr_lane_files_index(const struct pgr_lane_files *f, const void *file)
{
	return (size_t)((const struct file *)file - f->files);
}
