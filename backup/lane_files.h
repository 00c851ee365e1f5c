/*
 * The files that lanes fill: made when their first row comes, sealed when their last one was dealt with, looked at on
 * their way to the disk.
 */
#ifndef PGR_BACKUP_LANE_FILES_H
#define PGR_BACKUP_LANE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct pgr_block;
struct pgr_dirsink;
struct pgr_filelist;
struct pgr_lane_files;
struct pgr_layout;
struct pgr_pagecheck;
struct pgr_stop;
struct pgr_sys;

struct pgr_lane_files_opts {
	const struct pgr_filelist *list;
	const struct pgr_layout *layout;
	struct pgr_dirsink *sink;
	enum pgr_digest_algo digest;
	struct pgr_pagecheck *pages;		      /* NULL: page checksums are not checked */
	uint32_t largest_row;			      /* as in pgr_lane_row_bytes */
	void (*on_file)(void *arg, const char *path); /* NULL; a file is made; from any thread */
	void *arg;
};

/* Everything pointed to outlives it, but the sink: that is freed or drained before this is freed. */
int pgr_lane_files_new(struct pgr_lane_files **out, const struct pgr_lane_files_opts *opts, const struct pgr_sys *sys,
		       struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;
/* NULL is allowed. */
void pgr_lane_files_free(struct pgr_lane_files *f);

/* The directory in which a lane made its last file: the next one is often there, too.  Of one thread. */
struct pgr_lane_dir {
	int fd; /* -1 */
	int root;
	char *path;
	size_t len;
};
#define PGR_LANE_DIR_INIT ((struct pgr_lane_dir){.fd = -1})
void pgr_lane_dir_fini(struct pgr_lane_dir *d, const struct pgr_sys *sys);

/*
 * A row of entry `i` came, so it exists on the server: makes the file, unless that was done.  When another thread is
 * about it, waits until it is.  An error must be posted to the stop latch, for which the others wait then.
 */
int pgr_lane_files_make(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err) PGR_MUST_USE;

/* Hands on a block with the content of `rows` rows of a file that was made.  *b becomes NULL, also after a failure. */
int pgr_lane_files_post(struct pgr_lane_files *f, size_t i, uint64_t off, struct pgr_block **b, uint64_t rows,
			struct pgr_err *err) PGR_MUST_USE;

/* Rows without content were dealt with. */
int pgr_lane_files_skip(struct pgr_lane_files *f, size_t i, uint64_t rows, struct pgr_err *err) PGR_MUST_USE;

/*
 * After the sink was drained: whether entry `i`, a file, was copied.  PGR_OK: it was.  PGR_MORE: it was gone.  PGR_ERR:
 * it was not finished (PGR_E_USAGE: that is a mistake of the caller).
 */
int pgr_lane_files_copied(const struct pgr_lane_files *f, size_t i, struct pgr_err *err) PGR_MUST_USE;
/* pgr_digest_len bytes that may be changed. */
uint8_t *pgr_lane_files_sum(struct pgr_lane_files *f, size_t i);

/* What was given to pgr_pagecheck_block as `file`, as an entry of the list. */
size_t pgr_lane_files_index(const struct pgr_lane_files *f, const void *file);

#endif
