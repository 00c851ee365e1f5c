/*
 * How the segments of a directory hang together: over their ends, over timelines; gaps, and where each timeline ends.
 *
 * Takes what was found in each segment (walrecord) in the order of a pgr_wallist, says what does not fit.  Keeps a
 * little for each timeline and nothing for each segment.  Pure, not thread-safe.
 */
#ifndef PGR_RECEIVER_WALCHAIN_H
#define PGR_RECEIVER_WALCHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "receiver/history.h"
#include "receiver/wallist.h"
#include "receiver/walrecord.h"

enum pgr_walsay {
	PGR_WALSAY_PROBLEM, /* something is damaged, missing or contradicts itself */
	PGR_WALSAY_NOTE,    /* worth knowing; the WAL is as good as without it */
	PGR_WALSAY_RANGE,   /* what is there without a gap */
};

typedef void (*pgr_walsay_fn)(void *arg, enum pgr_walsay kind, const char *line);

/* Where a segment leaves off, for the next one. */
struct pgr_walpos {
	bool set;
	bool known; /* the end was read without damage */
	pgr_segno seg;
	pgr_lsn link; /* the last record that is complete; 0: not known */
	struct pgr_walrec_tail carry;
	struct pgr_walentry carry_from; /* the file in which it begins */
};

struct pgr_waltimeline {
	pgr_tli tli;
	bool has_history;
	struct pgr_history history; /* with has_history */
	pgr_segno max;		    /* its highest segment */
	/* filled in on the way: */
	bool begun;
	pgr_segno last;
	pgr_lsn from, to;	 /* what is there without a gap, so far */
	pgr_lsn began;		 /* start of its first segment */
	struct pgr_walpos at[2]; /* behind its last two segments, by the number's last bit */
	/* a .partial one that more follow: no problem if that is one that was only prepared */
	bool held;
	struct pgr_walentry held_entry;
	struct pgr_walrec_summary held_sum;
};

struct pgr_walchain {
	uint32_t segment_bytes;
	struct pgr_waltimeline *timelines; /* ascending; the caller's */
	size_t n;
	pgr_walsay_fn say;
	void *arg;
};

/* Says a line that is formatted as printf does. */
void pgr_walchain_say(const struct pgr_walchain *c, enum pgr_walsay kind, const char *fmt, ...) PGR_PRINTF(3, 4);

/* NULL: no such timeline. */
struct pgr_waltimeline *pgr_walchain_find(const struct pgr_walchain *c, pgr_tli tli);

/*
 * Where a timeline left the one before it, and which that was, by its history.  False: it has no history, or began with
 * the cluster.
 */
bool pgr_waltimeline_branch(const struct pgr_waltimeline *t, pgr_tli *parent, pgr_lsn *at);

/*
 * The next segment; `sum` NULL: it could not be read (that was told).  Segments come in the order of pgr_wallist: by
 * position, then timeline, complete ones first.
 */
void pgr_walchain_add(struct pgr_walchain *c, const struct pgr_walentry *e, pgr_segno seg,
		      const struct pgr_walrec_summary *sum);

/* After the last one: ranges, and timelines that go on behind the point where another one left them. */
void pgr_walchain_finish(struct pgr_walchain *c);

#endif
