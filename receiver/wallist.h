/*
 * What there is in a directory of WAL, by its names: segments, history files, and what should not be there.
 */
#ifndef PGR_RECEIVER_WALLIST_H
#define PGR_RECEIVER_WALLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/decompress.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_sys;

#define PGR_WALLIST_NAME 48 /* the longest name of a segment's file, and a NUL */

/* 16 bytes: an archive may have millions. */
struct pgr_walentry {
	pgr_tli tli;
	uint32_t high, low; /* the other two numbers of the name; their meaning depends on the segment size */
	uint8_t method;	    /* enum pgr_compression */
	bool partial;
};

struct pgr_wallist {
	struct pgr_walentry *entries; /* sorted: position, timeline, complete ones first, compression */
	size_t n;
	pgr_tli *histories; /* timelines that have a history file, ascending */
	size_t nhistories;
	size_t others; /* files that have nothing to do with WAL; directories */
};

/*
 * Reads the directory `dirfd` (stays the caller's).  `leftover` is called with the name of each file that looks like
 * what an interrupted program left behind: it ends in ".tmp", or its name begins as a segment's does but is not that of
 * one (backup history files are allowed).  PGR_E_SYSTEM, PGR_E_NOMEM; *out is empty then.
 */
int pgr_wallist_read(struct pgr_wallist *out, const struct pgr_sys *sys, int dirfd, const char *dir,
		     void (*leftover)(void *arg, const char *name), void *arg, struct pgr_err *err) PGR_MUST_USE;
void pgr_wallist_fini(struct pgr_wallist *l);

/* The file's name. */
void pgr_walentry_name(char out[PGR_WALLIST_NAME], const struct pgr_walentry *e);

/* False: there is no such segment with this segment size. */
bool pgr_walentry_segno(const struct pgr_walentry *e, uint32_t segment_bytes, pgr_segno *seg);

#endif
