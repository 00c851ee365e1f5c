/*
 * Makes WAL: pages and records as a server writes them, in memory.
 *
 * Source: PostgreSQL src/backend/access/transam/xlog.c (CopyXLogRecordToWAL, AdvanceXLInsertBuffer).
 */
#ifndef PGR_TESTS_WALMAKER_H
#define PGR_TESTS_WALMAKER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "receiver/walpage.h"
#include "receiver/walrecord.h"

struct walmaker {
	uint8_t *bytes; /* of `segments` segments from `base` on; zeroed */
	size_t segments;
	pgr_lsn base, at; /* at: where the next record begins, or the next byte of one is written */
	pgr_lsn prev;	  /* the record before */
	uint32_t segment_bytes, page_bytes;
	uint16_t magic;
	uint64_t system_id;
	pgr_tli tli;
	unsigned dice;
};

static inline void wm_init(struct walmaker *w, pgr_lsn base, size_t segments, uint32_t segment_bytes,
			   uint32_t page_bytes)
{
	memset(w, 0, sizeof(*w));
	w->bytes = calloc(segments, segment_bytes);
	if (w->bytes == NULL)
		abort();
	w->segments = segments;
	w->base = w->at = base;
	w->prev = base > 64 ? base - 64 : 0;
	w->segment_bytes = segment_bytes;
	w->page_bytes = page_bytes;
	w->magic = 0xD110;
	w->system_id = UINT64_C(7301234567890123456);
	w->tli = 1;
}

static inline void wm_free(struct walmaker *w)
{
	free(w->bytes);
}

static inline pgr_lsn wm_end(const struct walmaker *w)
{
	return w->base + (pgr_lsn)w->segments * w->segment_bytes;
}

static inline uint8_t *wm_byte(const struct walmaker *w, pgr_lsn lsn)
{
	return w->bytes + (lsn - w->base);
}

/* At the start of a page: its header.  Before the end of what there is room for. */
static inline void wm_page(struct walmaker *w, uint32_t rem_len, uint16_t flags)
{
	uint8_t *p = wm_byte(w, w->at);
	uint16_t info = (uint16_t)(flags | (rem_len > 0 ? PGR_WALPAGE_CONTINUES : 0));
	uint32_t size = PGR_WALPAGE_SHORT;

	if (pgr_lsn_segoff(w->at, w->segment_bytes) == 0) {
		info |= PGR_WALPAGE_IS_LONG;
		size = PGR_WALPAGE_LONG;
		memcpy(p + 24, &w->system_id, 8);
		memcpy(p + 32, &w->segment_bytes, 4);
		memcpy(p + 36, &w->page_bytes, 4);
	}
	memcpy(p, &w->magic, 2);
	memcpy(p + 2, &info, 2);
	memcpy(p + 4, &w->tli, 4);
	memcpy(p + 8, &w->at, 8);
	memcpy(p + 16, &rem_len, 4);
	w->at += size;
}

/* Copies what fits before the end of the room; the rest is as if it had not come. */
static inline void wm_copy(struct walmaker *w, const uint8_t *p, uint32_t n)
{
	while (n > 0 && w->at < wm_end(w)) {
		uint32_t room;

		if (w->at % w->page_bytes == 0)
			wm_page(w, n, 0);
		room = w->page_bytes - (uint32_t)(w->at % w->page_bytes);
		if (room > n)
			room = n;
		memcpy(wm_byte(w, w->at), p, room);
		w->at += room;
		p += room;
		n -= room;
	}
}

/* A record of tot_len bytes, 24 at least, with arbitrary content.  Returns where it begins. */
static inline pgr_lsn wm_record_of(struct walmaker *w, uint32_t tot_len, uint8_t rmid, uint8_t info)
{
	uint8_t *rec = calloc(1, tot_len);
	uint32_t crc;
	pgr_lsn lsn;

	if (rec == NULL)
		abort();
	if (w->at % w->page_bytes == 0)
		wm_page(w, 0, 0);
	lsn = w->at;
	for (uint32_t i = PGR_WALREC_HEADER; i < tot_len; i++) {
		w->dice = w->dice * 1103515245u + 12345u;
		rec[i] = (uint8_t)(w->dice >> 16 | 1);
	}
	memcpy(rec, &tot_len, 4);
	memcpy(rec + 4, &w->dice, 4);
	memcpy(rec + 8, &w->prev, 8);
	rec[16] = info;
	rec[17] = rmid;
	crc = pgr_crc32c(pgr_crc32c(0, rec + 24, tot_len - 24), rec, 20);
	memcpy(rec + 20, &crc, 4);
	wm_copy(w, rec, tot_len);
	free(rec);
	w->at = (w->at + 7) & ~(pgr_lsn)7;
	w->prev = lsn;
	return lsn;
}

static inline pgr_lsn wm_record(struct walmaker *w, uint32_t tot_len)
{
	return wm_record_of(w, tot_len, 10, 0);
}

/* A segment switch: the rest of the segment stays zero. */
static inline pgr_lsn wm_switch(struct walmaker *w)
{
	pgr_lsn lsn = wm_record_of(w, PGR_WALREC_HEADER, 0, 0x40);

	if (pgr_lsn_segoff(w->at, w->segment_bytes) != 0)
		w->at = pgr_lsn_segstart(w->at, w->segment_bytes) + w->segment_bytes;
	return lsn;
}

/* Records of many lengths up to `lsn` at least, or up to the end of the room. */
static inline void wm_fill(struct walmaker *w, pgr_lsn lsn)
{
	static const uint32_t lengths[] = {24, 25, 31, 32, 57, 114, 900, 8191, 8192, 20000, 48, 65, 79, 3000};

	for (unsigned i = 0; w->at < lsn && w->at < wm_end(w); i++)
		wm_record(w, lengths[i % (sizeof(lengths) / sizeof(lengths[0]))]);
}

#endif
