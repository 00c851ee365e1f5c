/*
 * Headers of WAL pages: parsing and checking.  Pure; byte order and alignment are this machine's, as the server's must
 * be for its WAL to be of use here.
 *
 * Every page of a segment begins with a header: a short one of 24 bytes, or, on the first page of a segment, a long one
 * of 40 bytes that names the system and the sizes.
 *
 * Source: PostgreSQL src/include/access/xlog_internal.h (XLogPageHeaderData, XLogLongPageHeaderData),
 * src/backend/access/transam/xlogreader.c (XLogReaderValidatePageHeader).
 */
#ifndef PGR_RECEIVER_WALPAGE_H
#define PGR_RECEIVER_WALPAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

#define PGR_WALPAGE_SHORT     24u /* bytes of the headers, PostgreSQL 9.3 and later */
#define PGR_WALPAGE_LONG      40u
#define PGR_WALPAGE_BEGINNING 32u   /* see pgr_walpage_is_unused */
#define PGR_WALPAGE_MIN	      1024u /* XLOG_BLCKSZ is a power of two from 1 kB to 64 kB; 8 kB unless configured */
#define PGR_WALPAGE_MAX	      65536u

enum pgr_walpage_flag {					/* xlp_info */
			PGR_WALPAGE_CONTINUES = 0x0001, /* begins with the rest of a record of the page before */
			PGR_WALPAGE_IS_LONG = 0x0002,	/* long header */
			PGR_WALPAGE_REMOVABLE =
				0x0004, /* full-page images may be left out; says nothing about the page */
			PGR_WALPAGE_OVERWRITES = 0x0008, /* the rest of the record before never came: it is void */
			PGR_WALPAGE_ALL_FLAGS = 0x000F,
};

struct pgr_walpage {
	uint16_t magic;
	uint16_t info;
	pgr_tli tli;
	pgr_lsn addr;
	uint32_t rem_len; /* bytes still to come of a record that began on an earlier page */
	uint32_t padding; /* always 0 */
	/* the long header's, else 0 */
	uint64_t system_id;
	uint32_t segment_bytes;
	uint32_t page_bytes;
	uint32_t header_bytes; /* PGR_WALPAGE_SHORT or PGR_WALPAGE_LONG */
};

struct pgr_walpage_expect {
	uint64_t system_id;	/* 0: any */
	uint32_t segment_bytes; /* a valid one */
	uint32_t page_bytes;	/* 0: any; else XLOG_BLCKSZ */
	uint16_t magic;		/* 0: any known one */
	pgr_lsn addr;		/* of this page; a multiple of the segment size means a long header */
	pgr_tli tli_min,
		tli_max; /* 0: any.  A segment of timeline T that begins before T does has pages of older ones */
};

/*
 * The PostgreSQL versions that write pages with this magic, e.g. "15", "9.3"; NULL: unknown.  Known are 9.0 to 18; the
 * headers of those before 9.3 are of another form (pgr_walpage_check refuses them).
 */
const char *pgr_walpage_version(uint16_t magic);

/* Whether records behind such a header are of the form that came with 9.5: CRC-32C, 24 bytes of header. */
bool pgr_walpage_has_crc32c(uint16_t magic);

/*
 * Takes a header apart without judging it.  False: `len` is less than the header needs (by its own flag).  `page` need
 * not be aligned; len may be more than the header.
 */
bool pgr_walpage_parse(const void *page, size_t len, struct pgr_walpage *out);

/*
 * Whether a page that begins with these PGR_WALPAGE_BEGINNING bytes, and was flushed, holds nothing, so that it stands
 * behind a segment switch: all zeros (from PostgreSQL 11 on), or a short header that no record follows.
 */
bool pgr_walpage_is_unused(const void *page);

/*
 * Checks the header that stands at `page`, and fills *out (NULL: not wanted) as far as it could be read.
 * PGR_OK: as expected.  PGR_MORE: `len` is less than the header needs; nothing was judged (a header that is expected to
 * be long needs 40 bytes).  PGR_ERR, PGR_E_DATA: not as expected; the message begins with the page's LSN and says what
 * is wrong, first what makes the page foreign altogether (magic, system identifier, address), then the rest.
 *
 * A page that is all zeros fails ("page is empty"): where that is allowed, as behind the end of the WAL or after a
 * segment switch, the caller knows.
 */
int pgr_walpage_check(const void *page, size_t len, const struct pgr_walpage_expect *e, struct pgr_walpage *out,
		      struct pgr_err *err) PGR_MUST_USE;

/*
 * What the first page of a segment says about all of them: for a directory that nothing is known of.
 * PGR_OK: *out's sizes are valid and its address is the start of a segment.  PGR_MORE: less than PGR_WALPAGE_LONG
 * bytes.  PGR_ERR, PGR_E_DATA: not the first page of a segment; the message does not name the object.
 */
int pgr_walpage_first(const void *page, size_t len, struct pgr_walpage *out, struct pgr_err *err) PGR_MUST_USE;

#endif
