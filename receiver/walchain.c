#include "receiver/walchain.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The segment that is being added. */
struct link {
	const struct pgr_walentry *e;
	pgr_segno seg;
	const struct pgr_walrec_summary *sum;
	struct pgr_waltimeline *t;
	char name[PGR_WALLIST_NAME];
};

void pgr_walchain_say(const struct pgr_walchain *c, enum pgr_walsay kind, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->say(c->arg, kind, line);
}

static void PGR_PRINTF(4, 5)
	problem(const struct pgr_walchain *c, const struct link *l, pgr_lsn lsn, const char *fmt, ...)
{
	char text[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pgr_walchain_say(c, PGR_WALSAY_PROBLEM, "%s: %" PGR_LSN_FMT ": %s", l->name, PGR_LSN_ARG(lsn), text);
}

/* Of a record that crosses into this segment; the fault may be in any of its files. */
static void carry_problem(const struct pgr_walchain *c, const struct link *l, const struct pgr_walpos *before,
			  const char *text)
{
	char name[PGR_WALLIST_NAME];

	pgr_walentry_name(name, &before->carry_from);
	pgr_walchain_say(c, PGR_WALSAY_PROBLEM, "%s: %" PGR_LSN_FMT ": %s, goes on in %s", name,
			 PGR_LSN_ARG(before->carry.lsn), text, l->name);
}

struct pgr_waltimeline *pgr_walchain_find(const struct pgr_walchain *c, pgr_tli tli)
{
	size_t low = 0, high = c->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->timelines[mid].tli < tli)
			low = mid + 1;
		else
			high = mid;
	}
	return low < c->n && c->timelines[low].tli == tli ? &c->timelines[low] : NULL;
}

bool pgr_waltimeline_branch(const struct pgr_waltimeline *t, pgr_tli *parent, pgr_lsn *at)
{
	if (!t->has_history || t->history.n < 2)
		return false;
	*at = t->history.entries[t->history.n - 2].end;
	if (*at == 0)
		return false;
	*parent = pgr_walrec_owner(&t->history, *at - 1);
	return true;
}

/* ---- what comes before a segment ---- */

static const struct pgr_walpos *pos_behind(const struct pgr_waltimeline *t, pgr_segno seg)
{
	const struct pgr_walpos *p = &t->at[seg & 1];

	return p->set && p->seg == seg ? p : NULL;
}

/* Of a timeline whose history is not there any older one may be the one before. */
static const struct pgr_walpos *any_behind(const struct pgr_walchain *c, const struct pgr_waltimeline *t, pgr_segno seg)
{
	for (const struct pgr_waltimeline *o = t; o-- > c->timelines;) {
		const struct pgr_walpos *p = pos_behind(o, seg);

		if (p != NULL)
			return p;
	}
	return NULL;
}

static const struct pgr_walpos *find_before(const struct pgr_walchain *c, const struct link *l)
{
	const struct pgr_walpos *p;
	const struct pgr_waltimeline *owner;

	if (l->seg == 0)
		return NULL;
	p = pos_behind(l->t, l->seg - 1);
	if (p != NULL)
		return p;
	if (!l->t->has_history)
		return any_behind(c, l->t, l->seg - 1);
	owner = pgr_walchain_find(c, pgr_walrec_owner(&l->t->history, pgr_segno_start(l->seg, c->segment_bytes) - 1));
	return owner != NULL ? pos_behind(owner, l->seg - 1) : NULL;
}

static void tell_gap(const struct pgr_walchain *c, pgr_tli tli, pgr_segno first, pgr_segno last)
{
	char a[PGR_WALNAME_LEN + 1], b[PGR_WALNAME_LEN + 1];

	pgr_walname_format(a, tli, first, c->segment_bytes);
	pgr_walname_format(b, tli, last, c->segment_bytes);
	if (first == last)
		pgr_walchain_say(c, PGR_WALSAY_PROBLEM, "%s: %" PGR_LSN_FMT ": segment is missing", a,
				 PGR_LSN_ARG(pgr_segno_start(first, c->segment_bytes)));
	else
		pgr_walchain_say(c, PGR_WALSAY_PROBLEM,
				 "%s: %" PGR_LSN_FMT ": %" PRIu64 " segments are missing, up to %s", a,
				 PGR_LSN_ARG(pgr_segno_start(first, c->segment_bytes)), last - first + 1, b);
}

/* The highest segment of `o` that the WAL of `t` goes through.  False: none is there. */
static bool highest_shared(const struct pgr_walchain *c, const struct pgr_waltimeline *o,
			   const struct pgr_waltimeline *t, pgr_segno *seg)
{
	pgr_lsn end = PGR_LSN_INVALID;
	pgr_segno last;

	if (!o->begun || (t->has_history && o != t && !pgr_history_find(&t->history, o->tli, &end)))
		return false;
	*seg = o->last;
	if (end == PGR_LSN_INVALID)
		return true;
	last = pgr_lsn_segno(end - 1, c->segment_bytes);
	if (last < pgr_lsn_segno(o->began, c->segment_bytes))
		return false;
	if (*seg > last)
		*seg = last;
	return true;
}

/* With nothing in front of it on its own or an older timeline, the archive begins here. */
static void look_for_gap(const struct pgr_walchain *c, const struct link *l)
{
	bool found = false;
	pgr_segno high = 0, seg;
	pgr_tli tli = l->t->tli;

	for (const struct pgr_waltimeline *o = c->timelines; o <= l->t; o++) {
		if (!highest_shared(c, o, l->t, &seg) || (found && seg < high))
			continue;
		found = true;
		high = seg;
	}
	if (!found || high + 1 >= l->seg)
		return;
	if (l->t->has_history)
		tli = pgr_walrec_owner(&l->t->history, pgr_segno_start(high + 2, c->segment_bytes) - 1);
	tell_gap(c, tli, high + 1, l->seg - 1);
}

static void close_range(const struct pgr_walchain *c, const struct pgr_waltimeline *t)
{
	pgr_walchain_say(c, PGR_WALSAY_RANGE, "timeline %" PRIu32 ": %" PGR_LSN_FMT " to %" PGR_LSN_FMT, t->tli,
			 PGR_LSN_ARG(t->from), PGR_LSN_ARG(t->to));
}

/* ---- joining ---- */

/* The rest of a record that began before.  Fills in what is known of the record before the first one here. */
static bool join_head(const struct pgr_walchain *c, const struct link *l, const struct pgr_walpos *before,
		      struct pgr_walpos *pos, bool *switched)
{
	struct pgr_walrec_tail carry = before->carry;
	struct pgr_err err;
	int rc;

	if (carry.tot_len == 0) {
		if (before->known)
			problem(c, l, pgr_segno_start(l->seg, c->segment_bytes),
				"begins with the rest of a record, but the segment before it ends with a whole one");
		return true;
	}
	rc = pgr_walrec_join(&carry, &l->sum->head, &err);
	if (rc == PGR_ERR) {
		carry_problem(c, l, before, err.msg);
	} else if (rc == PGR_MORE && l->sum->end == PGR_WALREC_FULL && l->sum->problems == 0) {
		pos->carry = carry; /* a record longer than a segment */
		pos->carry_from = before->carry_from;
		return false;
	} else if (rc == PGR_OK) {
		*switched = pgr_walrec_is_switch(&carry);
		if (before->link != 0 && pgr_walrec_prev(&carry) != before->link)
			carry_problem(c, l, before, "record with incorrect prev-link");
	}
	pos->link = rc == PGR_MORE ? 0 : carry.lsn;
	return true;
}

static bool is_empty(const struct pgr_walrec_summary *s, pgr_lsn start)
{
	return s->end_lsn == start && (s->end == PGR_WALREC_ZEROS || s->end == PGR_WALREC_TORN);
}

static void join(const struct pgr_walchain *c, const struct link *l, const struct pgr_walpos *before,
		 struct pgr_walpos *pos, bool *switched)
{
	const struct pgr_walrec_summary *s = l->sum;
	pgr_lsn start = pgr_segno_start(l->seg, c->segment_bytes);

	pos->link = before->link;
	if (s->head.rem_len > 0) {
		if (!join_head(c, l, before, pos, switched))
			return;
	} else if (before->carry.tot_len > 0 && !s->overwrites && s->problems == 0 && !is_empty(s, start)) {
		carry_problem(c, l, before, "the rest of the record is missing; the WAL");
		pos->link = 0;
	}
	if (s->first != 0 && s->first_prev != 0 && pos->link != 0 && s->first_prev != pos->link)
		problem(c, l, s->first, "record with incorrect prev-link %" PGR_LSN_FMT " instead of %" PGR_LSN_FMT,
			PGR_LSN_ARG(s->first_prev), PGR_LSN_ARG(pos->link));
	if (s->last != 0 || s->problems > 0)
		pos->link = s->last;
	pos->carry = s->tail;
	pos->carry_from = *l->e;
}

/* ---- where a segment ends ---- */

static void check_end(const struct pgr_walchain *c, const struct link *l)
{
	const struct pgr_walrec_summary *s = l->sum;
	bool last = l->seg == l->t->max;

	if (s->end == PGR_WALREC_TORN && (!last || !l->e->partial))
		problem(c, l, s->torn_lsn, "%s", s->torn);
	else if (s->end == PGR_WALREC_ZEROS && !last)
		problem(c, l, s->end_lsn, "WAL ends here, without a segment switch, but goes on in the next segment");
	else if (s->end == PGR_WALREC_ZEROS && !l->e->partial)
		pgr_walchain_say(c, PGR_WALSAY_NOTE, "%s: %" PGR_LSN_FMT ": WAL ends here, without a segment switch",
				 l->name, PGR_LSN_ARG(s->end_lsn));
	if (l->e->partial && !last)
		problem(c, l, pgr_segno_start(l->seg, c->segment_bytes), "%s, but the WAL goes on in the next segment",
			s->end == PGR_WALREC_FULL ? "is complete and has no final name" : "is not complete");
}

/*
 * A receiver makes the next segment's file before the one before it has its final name.  When it is killed then, the
 * newest .partial file is empty, and the WAL ends in the one before.
 */
static bool is_prepared(const struct pgr_walchain *c, const struct link *l)
{
	return l->t->held && l->e->partial && l->seg == l->t->max && l->seg == l->t->last + 1 && l->sum != NULL &&
	       is_empty(l->sum, pgr_segno_start(l->seg, c->segment_bytes));
}

static void tell_held(const struct pgr_walchain *c, struct pgr_waltimeline *t)
{
	struct link l = {.e = &t->held_entry, .seg = t->last, .sum = &t->held_sum, .t = t};

	if (!t->held)
		return;
	t->held = false;
	pgr_walentry_name(l.name, l.e);
	check_end(c, &l);
}

static void judge_end(const struct pgr_walchain *c, const struct link *l)
{
	if (!l->e->partial || l->seg == l->t->max) {
		check_end(c, l);
		return;
	}
	l->t->held = true;
	l->t->held_entry = *l->e;
	l->t->held_sum = *l->sum;
}

static void check_begin(const struct pgr_walchain *c, const struct link *l)
{
	pgr_tli parent;
	pgr_lsn at;

	if (!pgr_waltimeline_branch(l->t, &parent, &at) || l->seg >= pgr_lsn_segno(at, c->segment_bytes))
		return;
	problem(c, l, pgr_segno_start(l->seg, c->segment_bytes),
		"segment of timeline %" PRIu32 ", which began later, at %" PGR_LSN_FMT, l->t->tli, PGR_LSN_ARG(at));
}

static void start_range(struct pgr_walchain *c, const struct link *l, bool connected)
{
	struct pgr_waltimeline *t = l->t;
	pgr_lsn start = pgr_segno_start(l->seg, c->segment_bytes);

	if (t->begun && connected)
		return;
	if (t->begun)
		close_range(c, t);
	else
		t->began = start;
	t->from = start;
}

void pgr_walchain_add(struct pgr_walchain *c, const struct pgr_walentry *e, pgr_segno seg,
		      const struct pgr_walrec_summary *sum)
{
	struct link l = {.e = e, .seg = seg, .sum = sum, .t = pgr_walchain_find(c, e->tli)};
	struct pgr_walpos pos = {.set = true, .seg = seg};
	const struct pgr_walpos *before;
	bool switched = false;

	pgr_walentry_name(l.name, e);
	if (l.t->begun && l.t->last == seg) {
		pgr_walchain_say(c, PGR_WALSAY_NOTE, "%s: the same segment is there under another name too", l.name);
		return;
	}
	if (is_prepared(c, &l)) {
		l.t->to = l.t->held_sum.end_lsn;
		l.t->held = false;
		l.t->last = seg;
		return;
	}
	tell_held(c, l.t);
	before = find_before(c, &l);
	if (before == NULL)
		look_for_gap(c, &l);
	start_range(c, &l, before != NULL);
	check_begin(c, &l);
	l.t->begun = true;
	l.t->last = seg;
	l.t->to = pgr_segno_start(seg + 1, c->segment_bytes);
	if (sum != NULL) {
		static const struct pgr_walpos nothing;

		join(c, &l, before != NULL ? before : &nothing, &pos, &switched);
		if (!(switched && sum->end == PGR_WALREC_ZEROS && sum->first == 0))
			judge_end(c, &l);
		pos.known = sum->end == PGR_WALREC_FULL || sum->end == PGR_WALREC_SWITCHED;
		if (seg == l.t->max && sum->end != PGR_WALREC_SWITCHED)
			l.t->to = sum->end_lsn;
	}
	l.t->at[seg & 1] = pos;
}

static void look_behind_branch(const struct pgr_walchain *c, const struct pgr_waltimeline *t)
{
	const struct pgr_waltimeline *p;
	pgr_tli parent;
	pgr_lsn at;

	if (!pgr_waltimeline_branch(t, &parent, &at))
		return;
	p = pgr_walchain_find(c, parent);
	if (p == NULL || p->max <= pgr_lsn_segno(at - 1, c->segment_bytes))
		return;
	pgr_walchain_say(c, PGR_WALSAY_NOTE,
			 "timeline %" PRIu32 " goes on to %" PGR_LSN_FMT " after timeline %" PRIu32
			 " left it at %" PGR_LSN_FMT,
			 p->tli, PGR_LSN_ARG(p->to), t->tli, PGR_LSN_ARG(at));
}

void pgr_walchain_finish(struct pgr_walchain *c)
{
	for (size_t i = 0; i < c->n; i++) {
		if (c->timelines[i].begun)
			close_range(c, &c->timelines[i]);
		look_behind_branch(c, &c->timelines[i]);
	}
}
