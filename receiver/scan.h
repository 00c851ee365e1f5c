/*
 * Where to go on in a directory of WAL segments.
 *
 * As the stock tool (pg_receivewal.c, FindStreamingStart): the highest segment number wins, then the highest timeline;
 * a complete segment means "go on with the next", a .partial one means "go on at its start".  Better: gaps are found,
 * and of several .partial segments at the end, which a killed run may leave, the first one counts.
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
	pgr_lsn start;					   /* where to start streaming (start of a segment) */
	pgr_tli tli;					   /* on which timeline */
	size_t segments;				   /* complete ones */
	size_t ngaps;					   /* all gaps */
	struct pgr_walscan_gap gaps[PGR_WALSCAN_MAX_GAPS]; /* the first of them, lowest first */
};

/*
 * Reads the directory `dirfd` (stays the caller's).  `warn` is called with one line for each file that looks like a
 * segment but has a wrong size and is left out.  PGR_E_SYSTEM when the directory cannot be read.
 */
int pgr_walscan(const struct pgr_sys *sys, int dirfd, const char *dir, uint32_t segment_bytes,
		void (*warn)(void *arg, const char *line), void *warn_arg, struct pgr_walscan *out,
		struct pgr_err *err) PGR_MUST_USE;

#endif
