/*
 * Where a tar archive goes: bytes in, through compression in threads of its own where that is wanted, into a file of
 * the dirsink or to a descriptor such as standard output.
 *
 * Used by one thread.  What is not compressed and goes into a file is posted as it was received, without a copy.
 */
#ifndef PGR_BACKUP_TAR_OUT_H
#define PGR_BACKUP_TAR_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "backup/source.h"
#include "common/compress_spec.h"
#include "common/err.h"

struct pgr_dirsink;
struct pgr_pool;
struct pgr_stop;
struct pgr_sys;
struct pgr_tar_out;

struct pgr_tar_out_opts {
	const struct pgr_sys *sys;
	struct pgr_pool *pool;
	struct pgr_stop *stop;
	struct pgr_compress_spec spec; /* PGR_COMP_NONE: as it is */
	unsigned threads;	       /* for compression; 0: as many as there are processors */
	const char *path;	       /* name in messages; outlives the output */
	int fd;			       /* a descriptor that is written to in order (stays the caller's); -1: a file: */
	struct pgr_dirsink *sink;
	int dirfd;
	const char *leaf;
	mode_t mode;
};

/* Blocks that such an output may hold while more are wanted: the pool needs these and some for the sink's writers. */
size_t pgr_tar_out_blocks(const struct pgr_compress_spec *spec, unsigned threads);

/* Creates the file and starts what is needed.  Everything in `opts` outlives the output. */
int pgr_tar_out_new(struct pgr_tar_out **out, const struct pgr_tar_out_opts *opts, struct pgr_err *err) PGR_MUST_USE;

/* Ends threads, abandons a file that was not ended.  NULL is allowed. */
void pgr_tar_out_free(struct pgr_tar_out *o);

/* Everything that is left of a source.  *copied (may be NULL) is how much that was. */
int pgr_tar_out_copy(struct pgr_tar_out *o, struct pgr_source *source, uint64_t *copied,
		     struct pgr_err *err) PGR_MUST_USE;

int pgr_tar_out_put(struct pgr_tar_out *o, const void *data, size_t len, struct pgr_err *err) PGR_MUST_USE;

/* The header of a file (see pgr_tar_head_file), dated now; `size` bytes and pgr_tar_out_pad have to follow. */
int pgr_tar_out_head(struct pgr_tar_out *o, const char *name, mode_t mode, uint64_t size,
		     struct pgr_err *err) PGR_MUST_USE;
int pgr_tar_out_pad(struct pgr_tar_out *o, uint64_t size, struct pgr_err *err) PGR_MUST_USE;

/* A whole file. */
int pgr_tar_out_member(struct pgr_tar_out *o, const char *name, mode_t mode, const void *data, size_t len,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * The end, with two blocks of zeros when `terminate`: waits until everything was compressed and handed on.  A file is
 * sealed then, and is durable when the sink was drained.
 */
int pgr_tar_out_end(struct pgr_tar_out *o, bool terminate, struct pgr_err *err) PGR_MUST_USE;

#endif
