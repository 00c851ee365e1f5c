/*
 * Writing files: blocks in, durable files out.
 *
 * The source's thread creates files and posts filled blocks; writer threads write them, and when the last block of a
 * sealed file is written, sync and close it.  Blocks of one file may be written in any order, by any writer.  With zero
 * writers everything happens inline. Every result of write, fsync and close is looked at; the first failure sets the
 * stop latch.
 *
 * Several threads may create, post and seal at the same time, also post to one file; a file is sealed or abandoned
 * once, after its last post.
 */
#ifndef PGR_BACKUP_DIRSINK_H
#define PGR_BACKUP_DIRSINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_block;
struct pgr_dirsink;
struct pgr_pool;
struct pgr_sink_file;
struct pgr_stop;
struct pgr_sys;

struct pgr_dirsink_opts {
	unsigned writers; /* threads; 0: inline */
	bool sync;	  /* fsync each file before it is closed */
};

/* `sys`, `pool` and `stop` outlive the sink.  Starts the writers. */
int pgr_dirsink_new(struct pgr_dirsink **out, const struct pgr_sys *sys, struct pgr_pool *pool, struct pgr_stop *stop,
		    const struct pgr_dirsink_opts *opts, struct pgr_err *err) PGR_MUST_USE;

/* Joins the writers (after an error they stop at once), closes what is open, puts all blocks back.  NULL is allowed. */
void pgr_dirsink_free(struct pgr_dirsink *s);

/*
 * Creates `leaf` in the directory `dirfd` (stays the caller's): O_CREAT | O_EXCL | O_NOFOLLOW, then fchmod to `mode`.
 * `path` is its name in messages (copied).  The handle belongs to the caller until it is sealed.  Waits while 256 files
 * are open (not sealed, or not yet finished): a caller seals its files before it makes that many.  After a failure no
 * file is left behind.
 */
int pgr_dirsink_create(struct pgr_dirsink *s, int dirfd, const char *leaf, const char *path, mode_t mode,
		       struct pgr_sink_file **out, struct pgr_err *err) PGR_MUST_USE;

/*
 * Opens `leaf` to be changed in place (see pgr_outfile_open); the rest as above.  What is not posted stays as it is;
 * the seal sets the size.  Waits only for writers, while 256 sealed files are not finished: a file is open for as long
 * as it takes to compare it, and whoever does that must not wait for those who compare others.
 */
int pgr_dirsink_open(struct pgr_dirsink *s, int dirfd, const char *leaf, const char *path, mode_t mode,
		     struct pgr_sink_file **out, struct pgr_err *err) PGR_MUST_USE;

/*
 * Looks at the content of a file on its way to the disk.  Called by writers.
 */
struct pgr_sink_watch {
	/* A block that is about to be written; several at once for different blocks of one file, unless `ordered`. */
	void (*block)(void *arg, uint64_t off, const uint8_t *data, size_t len);
	/* The file is complete, synced and closed.  Not called for one that failed or was abandoned. NULL: not wanted.
	 */
	void (*done)(void *arg, uint64_t size);
	bool ordered; /* blocks one at a time, in the order in which they were posted */
};

/* Before the first block is posted.  `watch` and `arg` outlive the file. */
void pgr_dirsink_watch(struct pgr_dirsink *s, struct pgr_sink_file *f, const struct pgr_sink_watch *watch, void *arg);

/* Hands *b over, its len bytes to be written at `off`; *b becomes NULL (also after a failure: the block is then back in
 * the pool). */
int pgr_dirsink_post(struct pgr_dirsink *s, struct pgr_sink_file *f, uint64_t off, struct pgr_block **b,
		     struct pgr_err *err) PGR_MUST_USE;

/* No more blocks: the file has `size` bytes.  Takes the handle; *f becomes NULL (also after a failure). */
int pgr_dirsink_seal(struct pgr_dirsink *s, struct pgr_sink_file **f, uint64_t size, struct pgr_err *err) PGR_MUST_USE;

/* Drops a file that will not be sealed (after an error of the source).  *f becomes NULL; NULL is allowed. */
void pgr_dirsink_abandon(struct pgr_dirsink *s, struct pgr_sink_file **f);

/* Waits until all sealed files are written, synced and closed.  PGR_ERR: the first failure of a writer, or
 * PGR_E_STOPPED. */
int pgr_dirsink_drain(struct pgr_dirsink *s, struct pgr_err *err) PGR_MUST_USE;

/* Bytes written and files finished so far; any thread. */
uint64_t pgr_dirsink_bytes(const struct pgr_dirsink *s);
uint64_t pgr_dirsink_files(const struct pgr_dirsink *s);

#endif
