/*
 * LSNs, timelines, WAL segment numbers and file names.
 *
 * Source: PostgreSQL src/include/access/xlogdefs.h, xlog_internal.h (file names, XLogSegNo).
 */
#ifndef PGR_COMMON_LSN_H
#define PGR_COMMON_LSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t pgr_lsn;   /* byte position in the WAL; 0 is "invalid" */
typedef uint32_t pgr_tli;   /* timeline id; 0 is "invalid" */
typedef uint64_t pgr_segno; /* lsn / segment size */

#define PGR_LSN_INVALID ((pgr_lsn)0)
#define PGR_WALNAME_LEN 24		/* length of a segment's file name */
#define PGR_WALSEG_MIN	(1024u * 1024u) /* wal_segment_size: a power of two from 1 MB to 1 GB */
#define PGR_WALSEG_MAX	(1024u * 1024u * 1024u)

/* printf: "%" PGR_LSN_FMT, PGR_LSN_ARG(lsn) gives "1A/2B3C4D5E". */
#define PGR_LSN_FMT	 "X/%X"
#define PGR_LSN_ARG(lsn) ((unsigned)((lsn) >> 32)), ((unsigned)((lsn)&0xFFFFFFFFu))

/*
 * Parses `len` bytes "X/X" (1 to 8 hex digits on both sides, nothing else).  False if malformed.
 */
bool pgr_lsn_parse(const char *s, size_t len, pgr_lsn *out);

/* Whether n is a legal wal_segment_size in bytes. */
bool pgr_walseg_valid(uint64_t n);

static inline pgr_segno pgr_lsn_segno(pgr_lsn lsn, uint32_t segsize)
{
	return lsn / segsize;
}
static inline pgr_lsn pgr_segno_start(pgr_segno seg, uint32_t segsize)
{
	return seg * segsize;
}
static inline uint32_t pgr_lsn_segoff(pgr_lsn lsn, uint32_t segsize)
{
	return (uint32_t)(lsn & (segsize - 1));
}
static inline pgr_lsn pgr_lsn_segstart(pgr_lsn lsn, uint32_t segsize)
{
	return lsn - pgr_lsn_segoff(lsn, segsize);
}

/* Writes the 24 hex digits of a segment's name and a NUL. */
void pgr_walname_format(char out[PGR_WALNAME_LEN + 1], pgr_tli tli, pgr_segno seg, uint32_t segsize);

/*
 * Whether the first 24 characters of `name` are a segment name (upper-case hex, low part below
 * segments per 4 GiB, timeline > 0); fills the results.  What follows them is not looked at.
 */
bool pgr_walname_parse(const char *name, uint32_t segsize, pgr_tli *tli, pgr_segno *seg);

/* Writes "<8 hex>.history" and a NUL. */
void pgr_historyname_format(char out[17], pgr_tli tli);

#endif
