/*
 * A member of an archive on its way to its file: its content as blocks of the sink.
 */
#ifndef PGR_BACKUP_TAR_SINK_H
#define PGR_BACKUP_TAR_SINK_H

#include <stdint.h>

#include "common/err.h"

struct pgr_dirsink;
struct pgr_pool;
struct pgr_sink_file;
struct pgr_tar_reader;

/*
 * Reads the `size` bytes of the member at which `tar` stands, and posts them to `f` from its beginning on, in blocks of
 * the pool; waits while none is free.  `f` stays the caller's, to be sealed, or after a failure abandoned.
 */
int pgr_tar_sink_content(struct pgr_tar_reader *tar, uint64_t size, struct pgr_pool *pool, struct pgr_dirsink *sink,
			 struct pgr_sink_file *f, struct pgr_err *err) PGR_MUST_USE;

#endif
