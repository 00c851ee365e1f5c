/*
 * Compresses finished WAL segments, in threads of its own, behind the stream.
 *
 * What is received is written and acknowledged as it is, in NAME.partial; a segment with its final name, durable, comes
 * here and is replaced by NAME.gz, .lz4 or .zst when that is durable and was decoded again (packseg.h).  So everything
 * that was acknowledged can be read at any moment, whatever the method, and a failure here takes nothing away: it is
 * told once, the segment stays plain, and another attempt is made later.
 *
 * Each thread takes the oldest segment that nobody has taken.  Compressed files get their names, and plain ones go, in
 * the order of the WAL: whenever it is cut short, the directory has compressed segments up to one moment and plain ones
 * behind it, from where the next run goes on.
 *
 * The stream never waits for the compressor: a primary whose commits wait for this receiver would wait with it.  What
 * the compressor cannot keep up with stays in plain files, 16 bytes of memory each, that a restart finds again.
 */
#ifndef PGR_RECEIVER_WALPACK_H
#define PGR_RECEIVER_WALPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/compress_spec.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;
struct pgr_walpack;

struct pgr_walpack_opts {
	const char *dir; /* name, for messages; copied */
	uint32_t segment_bytes;
	mode_t file_mode;
	bool sync; /* false: --no-sync */
	struct pgr_compress_spec spec;
	unsigned threads; /* 0: as many as there are processors, up to PGR_PACKSEG_MAX; one where zstd has workers */
	bool foreign_partials; /* there are some of pg_receivewal -Z (scan.h): drop those of complete segments */
	pgr_segno below;       /* where the stream goes on: what is left of earlier runs lies before it */
	int64_t retry_ms;      /* between attempts after a failure, growing up to 32 times this */
	/* Level 0: with -v; 1: warnings; 2: to be told always.  Called in any thread, by one at a time for what is
	 * being compressed. */
	void (*log)(void *arg, int level, const char *line);
	void *log_arg;
};

/*
 * Removes an interrupted run's temporary files, and starts the threads, which begin with what earlier runs left
 * (pgr_walscan_left).  *out is NULL when there is nothing to do for it: no compression and no foreign files; all
 * functions take that.  `dirfd` is taken over (also after a failure).  PGR_E_USAGE: the library refuses a setting of
 * `spec`.
 */
int pgr_walpack_start(struct pgr_walpack **out, const struct pgr_sys *sys, int dirfd,
		      const struct pgr_walpack_opts *opts, struct pgr_err *err) PGR_MUST_USE;

/* A segment has its final name, durably.  Any thread; does not wait for the disk. */
void pgr_walpack_finished(struct pgr_walpack *p, const char *name);

/* How many segments wait, those under work included.  Any thread. */
size_t pgr_walpack_backlog(struct pgr_walpack *p);

/* From now on at most so long; then the segments under work are left as they are.  Any thread. */
void pgr_walpack_hurry(struct pgr_walpack *p, int64_t ms);

/*
 * Waits until everything is compressed, or the time of pgr_walpack_hurry is over, or an attempt fails; then ends the
 * threads.  What is not compressed is left for the next run.
 */
void pgr_walpack_end(struct pgr_walpack *p);

/* Frees after pgr_walpack_end, when no other thread knows it any more. */
void pgr_walpack_free(struct pgr_walpack *p);

#endif
