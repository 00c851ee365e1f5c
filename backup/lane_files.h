/*
 * The files that lanes fill: made when their first row comes, sealed when their last one was dealt with, looked at on
 * their way to the disk.
 *
 * A file that a plan wants compared is opened for reading first, and for writing only when something of it is to be
 * changed.  It is dealt with when each of its bytes was found the same or fetched.
 */
#ifndef PGR_BACKUP_LANE_FILES_H
#define PGR_BACKUP_LANE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/lane_dir.h"
#include "common/digest.h"
#include "common/err.h"

struct pgr_block;
struct pgr_delta_figures;
struct pgr_delta_plan;
struct pgr_dirsink;
struct pgr_filelist;
struct pgr_lane_files;
struct pgr_layout;
struct pgr_pagecheck;
struct pgr_stop;
struct pgr_sys;

struct pgr_lane_files_opts {
	const struct pgr_filelist *list;
	const struct pgr_delta_plan *plan; /* NULL: every file is made anew */
	bool compare_only;		   /* nothing is changed */
	const struct pgr_layout *layout;
	struct pgr_dirsink *sink; /* NULL with compare_only */
	enum pgr_digest_algo digest;
	struct pgr_pagecheck *pages;		      /* NULL: page checksums are not checked */
	uint32_t largest_row;			      /* as in pgr_lane_row_bytes */
	void (*on_file)(void *arg, const char *path); /* NULL; a file is begun; from any thread */
	void *arg;
};

/* Everything pointed to outlives it, but the sink: that is freed or drained before this is freed. */
int pgr_lane_files_new(struct pgr_lane_files **out, const struct pgr_lane_files_opts *opts, const struct pgr_sys *sys,
		       struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;
/* NULL is allowed. */
void pgr_lane_files_free(struct pgr_lane_files *f);

/* Whether entry `i` lies here and is compared: what is fetched of it is written into it. */
bool pgr_lane_files_in_place(const struct pgr_lane_files *f, size_t i);

/*
 * A row of entry `i` came, so it exists on the server: makes the file, or opens it for writing, unless that was done.
 * When another thread is about it, waits until it is.  An error must be posted to the stop latch, for which the others
 * wait then.
 */
int pgr_lane_files_make(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, struct pgr_err *err) PGR_MUST_USE;

/* The bytes that a row of `want` counts for: an empty file has one row. */
static inline uint64_t pgr_lane_span(uint64_t want)
{
	return want > 0 ? want : 1;
}

/* Entry `i` came as a whole and has `size` bytes, whatever was listed.  Before the rows of it are posted or skipped. */
void pgr_lane_files_set_end(struct pgr_lane_files *f, size_t i, uint64_t size);

/* Hands on a block with the content of rows that count for `span` bytes of a file that was made.  *b becomes NULL, also
 * after a failure. */
int pgr_lane_files_post(struct pgr_lane_files *f, size_t i, uint64_t off, struct pgr_block **b, uint64_t span,
			struct pgr_lane_dir *dir, struct pgr_err *err) PGR_MUST_USE;

/* Rows without content were dealt with. */
int pgr_lane_files_skip(struct pgr_lane_files *f, size_t i, uint64_t span, struct pgr_lane_dir *dir,
			struct pgr_err *err) PGR_MUST_USE;

/* ---- of files that are compared ---- */

/*
 * Opens entry `i`, compared or kept, for reading; *fd is the caller's.  What is compared gets its mode when it has
 * another one (not with compare_only).  PGR_E_DATA: it is no regular file.
 */
int pgr_lane_files_open_here(struct pgr_lane_files *f, size_t i, struct pgr_lane_dir *dir, int *fd,
			     struct pgr_err *err) PGR_MUST_USE;

/* The server has entry `i`: a file of which nothing was ever seen has vanished, and is removed when its end is reached.
 */
void pgr_lane_files_seen(struct pgr_lane_files *f, size_t i);

/* These bytes, whose CRC-32C is `crc`, are the server's: they stay. */
int pgr_lane_files_keep(struct pgr_lane_files *f, size_t i, uint64_t off, uint64_t len, uint32_t crc,
			struct pgr_lane_dir *dir, struct pgr_err *err) PGR_MUST_USE;

/* So many bytes are not: they will be fetched (with compare_only they would, and are dealt with). */
int pgr_lane_files_differ(struct pgr_lane_files *f, size_t i, uint64_t len, struct pgr_lane_dir *dir,
			  struct pgr_err *err) PGR_MUST_USE;

/* Looks at the checksums of pages that stay: see pgr_pagecheck_block. */
void pgr_lane_files_check_pages(struct pgr_lane_files *f, size_t i, uint64_t off, const void *data, size_t len);

/* Whether the sum of entry `i` is not known when the sink was drained: see pgr_lanes_sum_rest. */
bool pgr_lane_files_lacks_sum(const struct pgr_lane_files *f, size_t i);

/* After that: entry `i` has `size` bytes, and this sum. */
void pgr_lane_files_set_sum(struct pgr_lane_files *f, size_t i, uint64_t size, const uint8_t *sum);

/* Instead of that: a kept file that is none is not in the copy. */
void pgr_lane_files_leave_out(struct pgr_lane_files *f, size_t i);

/* But for the bytes that came; any thread. */
void pgr_lane_files_figures(const struct pgr_lane_files *f, struct pgr_delta_figures *out);

/* ---- afterwards ---- */

/*
 * After the sink was drained: whether entry `i`, a file, was copied.  PGR_OK: it was.  PGR_MORE: it was gone.  PGR_ERR:
 * it was not finished (PGR_E_USAGE: that is a mistake of the caller).
 */
int pgr_lane_files_copied(const struct pgr_lane_files *f, size_t i, struct pgr_err *err) PGR_MUST_USE;
/* Its size; the list's but for a file that is kept, or came as a whole. */
uint64_t pgr_lane_files_size(const struct pgr_lane_files *f, size_t i);
/* pgr_digest_len bytes that may be changed. */
uint8_t *pgr_lane_files_sum(struct pgr_lane_files *f, size_t i);

/* What was given to pgr_pagecheck_block as `file`, as an entry of the list. */
size_t pgr_lane_files_index(const struct pgr_lane_files *f, const void *file);

#endif
