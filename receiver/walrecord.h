/*
 * WAL records of one segment: lengths, links and CRCs, page by page, in constant memory.
 *
 * A segment is read on its own, so that several can be read at once: what crosses its two ends (the rest of a record
 * that began before it, the beginning of one that ends behind it) comes out as a summary of bounded size, and the
 * summaries of neighbours are joined afterwards, in their order, by pgr_walrec_join.
 *
 * Pure: pages in, problems and a summary out.
 *
 * Source: PostgreSQL src/include/access/xlogrecord.h, src/backend/access/transam/xlogreader.c
 * (XLogDecodeNextRecord, ValidXLogRecordHeader, ValidXLogRecord), xlog.c (CopyXLogRecordToWAL: what follows a segment
 * switch; CreateOverwriteContrecordRecord).
 */
#ifndef PGR_RECEIVER_WALRECORD_H
#define PGR_RECEIVER_WALRECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"
#include "receiver/history.h"
#include "receiver/walpage.h"

#define PGR_WALREC_HEADER	24u /* bytes of a record's header */
#define PGR_WALREC_MAX_PROBLEMS 8   /* of one segment are told, all are counted */

/* A record of which not all was seen: the beginning of one, in the segment where it begins. */
struct pgr_walrec_tail {
	pgr_lsn lsn;	  /* where it begins */
	uint32_t tot_len; /* 0: none */
	uint32_t have;	  /* bytes seen so far */
	uint32_t crc;	  /* of those behind its header */
	uint8_t header[PGR_WALREC_HEADER];
};

/* The rest of a record that begins before the segment. */
struct pgr_walrec_head {
	uint32_t rem_len; /* what the first page says; 0: none */
	uint32_t len;	  /* bytes of it in this segment */
	uint32_t crc;	  /* of those from the 17th on */
	uint8_t first[16];
};

enum pgr_walrec_end {
	PGR_WALREC_FULL,     /* records reach the end of the segment */
	PGR_WALREC_SWITCHED, /* ended by a segment switch; nothing but zeros (and empty pages) follow */
	PGR_WALREC_ZEROS,    /* records end at a record's end, all that follows is zeros */
	PGR_WALREC_TORN,     /* a record or page header is incomplete or wrong, and all that follows it is zeros: where
				receiving stopped, or damage */
	PGR_WALREC_LOST,     /* the last thing seen was damage; it was told */
};

struct pgr_walrec_summary {
	struct pgr_walrec_head head;
	struct pgr_walrec_tail tail;
	bool overwrites;    /* the first page declares the record before it void */
	pgr_lsn first;	    /* the first record that begins here and could be read; 0: none */
	pgr_lsn first_prev; /* its link to the one before it; 0: not comparable, there is damage in front of it */
	pgr_lsn last;	    /* the last complete record that begins here; 0: none, or not known */
	uint64_t records;   /* complete ones that are right */
	enum pgr_walrec_end end;
	pgr_lsn end_lsn; /* up to where it is valid, before the first thing that is torn; with FULL the segment's end */
	pgr_lsn torn_lsn;
	char torn[200]; /* with TORN: what is wrong at torn_lsn */
	unsigned problems;
};

struct pgr_walrec_opts {
	struct pgr_walpage_expect page;	   /* .addr: the start of the segment; page_bytes must be known; .magic must be
					      known.  tli_max: the segment's timeline */
	const struct pgr_history *history; /* of the segment's timeline: says of what timeline each page is; NULL: they
					      only must not descend */
	void (*problem)(void *arg, pgr_lsn lsn, const char *text); /* NULL: only counted */
	void *arg;
};

/* The caller's storage; all fields are the reader's own. */
struct pgr_walrec {
	struct pgr_walrec_opts o;
	pgr_lsn addr; /* of the next page */
	int state;
	uint32_t skip;		    /* bytes left of a record that is not checked */
	struct pgr_walrec_tail rec; /* the record that is being read */
	pgr_lsn prev;		    /* the record before it; 0: not known */
	pgr_tli tli;		    /* of the page before */
	bool pending;		    /* something is wrong if anything but zeros is at pending_from or behind it */
	bool pending_end;	    /* and if not, it is only the end of the WAL */
	bool told_switch;
	pgr_lsn pending_from;
	pgr_lsn valid_end;
	struct pgr_walrec_summary sum;
};

void pgr_walrec_init(struct pgr_walrec *r, const struct pgr_walrec_opts *opts);

/*
 * Takes the next page: opts.page.page_bytes bytes, aligned as malloc does or not.  Never more pages than the segment
 * has.  After damage reading goes on at the next record that can be found, at the latest on the next page that is
 * whole.
 *
 * Of a magic before 9.5 only page headers are checked.
 */
void pgr_walrec_page(struct pgr_walrec *r, const void *page);

/* The end of the file; pages of the segment that did not come count as zeros. */
void pgr_walrec_finish(struct pgr_walrec *r, struct pgr_walrec_summary *out);

/*
 * Adds what the next segment holds of a record to what the ones before it hold (tail->tot_len > 0).
 * PGR_OK: it is complete and right.  PGR_MORE: it goes on behind that segment too.  PGR_ERR, PGR_E_DATA: the lengths do
 * not agree, or its CRC is wrong.
 */
int pgr_walrec_join(struct pgr_walrec_tail *tail, const struct pgr_walrec_head *head, struct pgr_err *err) PGR_MUST_USE;

/* Of a complete record: its link to the one before it; whether it is a segment switch. */
pgr_lsn pgr_walrec_prev(const struct pgr_walrec_tail *rec);
bool pgr_walrec_is_switch(const struct pgr_walrec_tail *rec);

/* The timeline whose WAL stands at `lsn` in the history of a timeline. */
pgr_tli pgr_walrec_owner(const struct pgr_history *h, pgr_lsn lsn);

#endif
