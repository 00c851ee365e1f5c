/*
 * Where to go on in a directory of WAL segments.
 *
 * As the stock tool (pg_receivewal.c, FindStreamingStart): the highest segment number wins, then the highest timeline;
 * a complete segment means "go on with the next", a .partial one means "go on at its start".  Better: gaps are found,
 * nothing is decompressed, and of several .partial segments at the end, which a power cut may leave, the first one
 * counts.
 *
 * Only names are read, so that a million segments take less than a second: files are looked at from the highest one
 * down until one is right.  What is in the others is for pgr-receivewal's verification to judge.
 */
#ifndef PGR_RECEIVER_SCAN_H
#define PGR_RECEIVER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;

struct pgr_walscan_gap {
	pgr_tli tli;	       /* timeline of the segment after the gap */
	pgr_segno first, last; /* missing segments, inclusive */
};

#define PGR_WALSCAN_MAX_GAPS 16

struct pgr_walscan {
	bool found;					   /* some segment is there */
	bool foreign_partials;				   /* there is a PGR_WALSCAN_FOREIGN file */
	pgr_lsn start;					   /* where to start streaming (start of a segment) */
	pgr_tli tli;					   /* on which timeline */
	size_t segments;				   /* complete ones */
	size_t ngaps;					   /* all gaps */
	struct pgr_walscan_gap gaps[PGR_WALSCAN_MAX_GAPS]; /* the first of them, lowest first */
};

/* The files that there are of one segment. */
enum pgr_walscan_kind {
	PGR_WALSCAN_PLAIN = 1,
	PGR_WALSCAN_GZIP = 2,	  /* .gz */
	PGR_WALSCAN_LZ4 = 4,	  /* .lz4 */
	PGR_WALSCAN_ZSTD = 8,	  /* .zst */
	PGR_WALSCAN_PARTIAL = 16, /* .partial */
	PGR_WALSCAN_FOREIGN = 32, /* .gz.partial, .lz4.partial: pg_receivewal -Z was here; we make no such files */
	PGR_WALSCAN_COMPRESSED = PGR_WALSCAN_GZIP | PGR_WALSCAN_LZ4 | PGR_WALSCAN_ZSTD,
	PGR_WALSCAN_COMPLETE = PGR_WALSCAN_PLAIN | PGR_WALSCAN_COMPRESSED,
};

/*
 * Reads the directory `dirfd` (stays the caller's).  `warn` is called with one line for each file that would have been
 * the newest segment but is none: a plain one of a wrong size, an empty one, a gzip file of which the end says that it
 * is something else.  PGR_E_SYSTEM when the directory cannot be read.
 */
int pgr_walscan(const struct pgr_sys *sys, int dirfd, const char *dir, uint32_t segment_bytes,
		void (*warn)(void *arg, const char *line), void *warn_arg, struct pgr_walscan *out,
		struct pgr_err *err) PGR_MUST_USE;

/*
 * What is left to do for a compressor: calls `fn`, in the order of the WAL, for segments before `below`
 * - that are plain, behind the newest compressed one; for none of these when no segment is compressed: an archive that
 *   was kept plain is not turned over;
 * - that have a plain and a compressed file, there;
 * - that have a complete and a foreign file, anywhere.
 * `kinds` is a set of enum pgr_walscan_kind.  `fn` returns PGR_OK or PGR_ERR, which ends it.
 */
int pgr_walscan_left(const struct pgr_sys *sys, int dirfd, const char *dir, uint32_t segment_bytes, pgr_segno below,
		     int (*fn)(void *arg, pgr_tli tli, pgr_segno seg, unsigned kinds, struct pgr_err *err), void *arg,
		     struct pgr_err *err) PGR_MUST_USE;

#endif
