#include "receiver/walrecord.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/crc32c.h"

/* struct XLogRecord: xl_tot_len, xl_xid, xl_prev, xl_info, xl_rmid, 2 bytes of padding, xl_crc. */
#define OFF_PREV 8u
#define OFF_INFO 16u
#define OFF_RMID 17u
#define OFF_CRC	 20u

#define RECORD_MAX (1024u * 1024u * 1024u) /* MaxAllocSize: what any server could read back */

#define RM_XLOG	    0
#define XLOG_SWITCH 0x40

enum state {
	ST_FIRST,    /* before the first page */
	ST_HEAD,     /* in the rest of a record of the segment before */
	ST_SKIP,     /* in the rest of a record whose beginning was lost */
	ST_PAD,	     /* at the end of a record, not aligned yet */
	ST_START,    /* where a record begins */
	ST_RECORD,   /* in a record */
	ST_ENDED,    /* the WAL seems to end */
	ST_SWITCHED, /* after a segment switch */
	ST_LOST,     /* the next whole page may tell */
};

struct page {
	const uint8_t *p;
	uint32_t len;
	uint32_t at; /* reading position */
	pgr_lsn addr;
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

pgr_lsn pgr_walrec_prev(const struct pgr_walrec_tail *rec)
{
	pgr_lsn v;

	memcpy(&v, rec->header + OFF_PREV, sizeof(v));
	return v;
}

bool pgr_walrec_is_switch(const struct pgr_walrec_tail *rec)
{
	return rec->header[OFF_RMID] == RM_XLOG && (rec->header[OFF_INFO] & 0xF0) == XLOG_SWITCH;
}

/* Switch points may go back (see history.c): a later one that lies before an earlier one cuts that timeline too. */
pgr_tli pgr_walrec_owner(const struct pgr_history *h, pgr_lsn lsn)
{
	pgr_tli owner = h->entries[h->n - 1].tli;

	for (size_t i = h->n - 1; i-- > 0 && lsn < h->entries[i].end;)
		owner = h->entries[i].tli;
	return owner;
}

/* ---- problems ---- */

static void tell(struct pgr_walrec *r, pgr_lsn lsn, const char *text)
{
	r->sum.problems++;
	if (r->o.problem != NULL && r->sum.problems <= PGR_WALREC_MAX_PROBLEMS)
		r->o.problem(r->o.arg, lsn, text);
}

static void flush_pending(struct pgr_walrec *r)
{
	if (!r->pending)
		return;
	r->pending = false;
	tell(r, r->sum.torn_lsn, r->sum.torn);
}

/* Whether the page holds anything but zeros from `lsn` on. */
static bool has_data_from(const struct page *pg, pgr_lsn lsn)
{
	uint32_t off = 0;

	if (lsn >= pg->addr + pg->len)
		return false;
	if (lsn > pg->addr)
		off = (uint32_t)(lsn - pg->addr);
	return !is_zero(pg->p + off, pg->len - off);
}

/*
 * What is wrong at `lsn` may be no more than the place where receiving stopped: then nothing but zeros is at `from` and
 * behind it.  It is told as soon as something else is found there.
 */
static void PGR_PRINTF(5, 6)
	suspect(struct pgr_walrec *r, const struct page *pg, pgr_lsn lsn, pgr_lsn from, const char *fmt, ...)
{
	va_list ap;

	flush_pending(r);
	va_start(ap, fmt);
	vsnprintf(r->sum.torn, sizeof(r->sum.torn), fmt, ap);
	va_end(ap);
	r->sum.torn_lsn = lsn;
	r->pending = true;
	r->pending_end = false;
	r->pending_from = from;
	if (has_data_from(pg, from))
		flush_pending(r);
}

static pgr_lsn here(const struct page *pg)
{
	return pg->addr + pg->at;
}

/* Zeros where a record should begin: from here on there is nothing, or a hole. */
static void end_here(struct pgr_walrec *r, const struct page *pg)
{
	bool was_pending = r->pending;

	r->state = ST_ENDED;
	if (was_pending) /* the last record is bad: that is the end then */
		return;
	suspect(r, pg, here(pg), here(pg), "zeros, but the WAL goes on behind them");
	r->pending_end = r->pending;
}

/* ---- records ---- */

static void add_bytes(struct pgr_walrec_tail *rec, const uint8_t *p, uint32_t n)
{
	if (rec->have < PGR_WALREC_HEADER) {
		uint32_t take = PGR_WALREC_HEADER - rec->have;

		if (take > n)
			take = n;
		memcpy(rec->header + rec->have, p, take);
		rec->have += take;
		p += take;
		n -= take;
	}
	if (n > 0)
		rec->crc = pgr_crc32c(rec->crc, p, n);
	rec->have += n;
}

/* The header comes last in a record's CRC, without the CRC itself. */
static bool crc_is_right(const struct pgr_walrec_tail *rec)
{
	return pgr_crc32c(rec->crc, rec->header, OFF_CRC) == get32(rec->header + OFF_CRC);
}

/* As soon as the header is there.  False: nothing that it says can be used. */
static bool check_record_header(struct pgr_walrec *r, const struct page *pg)
{
	pgr_lsn prev = pgr_walrec_prev(&r->rec);

	if (r->prev != 0 ? prev != r->prev : prev >= r->rec.lsn) {
		suspect(r, pg, r->rec.lsn, here(pg), "record with incorrect prev-link %" PGR_LSN_FMT,
			PGR_LSN_ARG(prev));
		return false;
	}
	if (r->sum.first == 0) {
		r->sum.first = r->rec.lsn;
		/* with damage in front of it there is nothing to compare it with */
		r->sum.first_prev = r->sum.problems == 0 && !r->pending ? prev : 0;
	}
	return true;
}

static void finish_record(struct pgr_walrec *r, const struct page *pg)
{
	bool right = crc_is_right(&r->rec);

	r->prev = r->rec.lsn;
	r->sum.last = r->rec.lsn;
	r->state = ST_PAD;
	if (!right) {
		suspect(r, pg, r->rec.lsn, here(pg), "record with incorrect CRC (%" PRIu32 " bytes)", r->rec.tot_len);
	} else {
		r->sum.records++;
		r->valid_end = (here(pg) + 7) & ~(pgr_lsn)7;
		if (pgr_walrec_is_switch(&r->rec))
			r->state = ST_SWITCHED;
	}
	r->rec.tot_len = 0;
}

static void lose(struct pgr_walrec *r)
{
	r->state = ST_LOST;
	r->rec.tot_len = 0;
	r->prev = 0;
	r->sum.last = 0;
}

static void read_record(struct pgr_walrec *r, struct page *pg)
{
	uint32_t n = r->rec.tot_len - r->rec.have;
	bool had_header = r->rec.have >= PGR_WALREC_HEADER;

	if (!had_header && n > PGR_WALREC_HEADER - r->rec.have)
		n = PGR_WALREC_HEADER - r->rec.have;
	if (n > pg->len - pg->at)
		n = pg->len - pg->at;
	add_bytes(&r->rec, pg->p + pg->at, n);
	pg->at += n;
	if (!had_header && r->rec.have >= PGR_WALREC_HEADER && !check_record_header(r, pg)) {
		lose(r);
		return;
	}
	if (r->rec.have == r->rec.tot_len)
		finish_record(r, pg);
}

/* A record's first eight bytes are always on one page: records and pages are aligned to eight. */
static void start_record(struct pgr_walrec *r, struct page *pg)
{
	uint32_t tot_len = get32(pg->p + pg->at);

	if (tot_len == 0 && is_zero(pg->p + pg->at, pg->len - pg->at)) {
		end_here(r, pg);
		return;
	}
	flush_pending(r);
	if (tot_len < PGR_WALREC_HEADER || tot_len > RECORD_MAX) {
		suspect(r, pg, here(pg), here(pg) + 4, "record with invalid length %" PRIu32, tot_len);
		lose(r);
		return;
	}
	r->rec = (struct pgr_walrec_tail){.lsn = here(pg), .tot_len = tot_len};
	r->state = ST_RECORD;
}

static void skip_padding(struct pgr_walrec *r, struct page *pg)
{
	uint32_t n = -pg->at & 7u;

	if (!is_zero(pg->p + pg->at, n))
		tell(r, here(pg), "padding between records is not zero");
	pg->at += n;
	r->state = ST_START;
}

/* ---- what crosses the start of the segment ---- */

static void add_head(struct pgr_walrec_head *h, const uint8_t *p, uint32_t n)
{
	uint32_t take;

	if (h->len < sizeof(h->first)) {
		take = (uint32_t)sizeof(h->first) - h->len;
		if (take > n)
			take = n;
		memcpy(h->first + h->len, p, take);
		h->len += take;
		p += take;
		n -= take;
	}
	if (n > 0)
		h->crc = pgr_crc32c(h->crc, p, n);
	h->len += n;
}

static void skip_rest(struct pgr_walrec *r, struct page *pg)
{
	uint32_t n = pg->len - pg->at;

	if (n > r->skip)
		n = r->skip;
	if (r->state == ST_HEAD)
		add_head(&r->sum.head, pg->p + pg->at, n);
	pg->at += n;
	r->skip -= n;
	if (r->skip > 0)
		return;
	r->state = ST_PAD;
	r->valid_end = (here(pg) + 7) & ~(pgr_lsn)7;
}

int pgr_walrec_join(struct pgr_walrec_tail *tail, const struct pgr_walrec_head *head, struct pgr_err *err)
{
	uint32_t want = tail->tot_len - tail->have;
	uint32_t in_first = head->len < sizeof(head->first) ? head->len : (uint32_t)sizeof(head->first);

	if (head->rem_len != want)
		return pgr_err_set(err, PGR_E_DATA, "record has %" PRIu32 " bytes left instead of %" PRIu32,
				   head->rem_len, want);
	add_bytes(tail, head->first, in_first);
	if (head->len > in_first) {
		tail->crc = pgr_crc32c_combine(tail->crc, head->crc, head->len - in_first);
		tail->have += head->len - in_first;
	}
	if (tail->have < tail->tot_len)
		return PGR_MORE;
	if (!crc_is_right(tail))
		return pgr_err_set(err, PGR_E_DATA, "record with incorrect CRC (%" PRIu32 " bytes)", tail->tot_len);
	return PGR_OK;
}

/* ---- pages ---- */

/* A page without anything: of zeros, or as servers before 11 leave them after a segment switch, with a header. */
static bool is_empty_page(const struct pgr_walrec *r, const struct page *pg)
{
	struct pgr_walpage_expect e = r->o.page;
	struct pgr_walpage h;
	struct pgr_err err;

	if (is_zero(pg->p, pg->len))
		return true;
	e.addr = pg->addr;
	e.tli_min = 0;
	return pgr_walpage_check(pg->p, pg->len, &e, &h, &err) == PGR_OK && h.rem_len == 0 &&
	       is_zero(pg->p + h.header_bytes, pg->len - h.header_bytes);
}

static void empty_page(struct pgr_walrec *r, const struct page *pg)
{
	char text[64];

	switch (r->state) {
	case ST_ENDED:
	case ST_SWITCHED:
	case ST_LOST:
		return;
	case ST_FIRST:
	case ST_PAD:
	case ST_START:
		end_here(r, pg);
		return;
	default:
		snprintf(text, sizeof(text), "page %" PGR_LSN_FMT " is empty", PGR_LSN_ARG(pg->addr));
		suspect(r, pg, r->state == ST_RECORD ? r->rec.lsn : pg->addr, pg->addr, "record is incomplete: %s",
			text);
		lose(r);
	}
}

/* Which timelines the page may be of. */
static void expect_timeline(const struct pgr_walrec *r, pgr_lsn addr, struct pgr_walpage_expect *e)
{
	if (r->o.history != NULL)
		e->tli_min = e->tli_max = pgr_walrec_owner(r->o.history, addr);
	else
		e->tli_min = r->tli;
}

/*
 * PGR_OK: a header to go on with, perhaps with a problem that was told.  PGR_ERR: the page says nothing.
 */
static int read_page_header(struct pgr_walrec *r, struct page *pg, struct pgr_walpage *h)
{
	struct pgr_walpage_expect e = r->o.page;
	struct pgr_err err;
	const char *text;

	e.addr = pg->addr;
	expect_timeline(r, pg->addr, &e);
	if (pgr_walpage_check(pg->p, pg->len, &e, h, &err) == PGR_OK) {
		r->tli = h->tli;
		pg->at = h->header_bytes;
		return PGR_OK;
	}
	text = strstr(err.msg, ": "); /* the LSN is told anyway */
	pg->at = pgr_lsn_segoff(pg->addr, e.segment_bytes) == 0 ? PGR_WALPAGE_LONG : PGR_WALPAGE_SHORT;
	suspect(r, pg, pg->addr, here(pg), "%s", text != NULL ? text + 2 : err.msg);
	if (r->pending || h->magic != e.magic || h->addr != e.addr) {
		lose(r);
		return PGR_ERR;
	}
	return PGR_OK;
}

/* Where reading goes on on a page that nothing is known in front of. */
static void enter_page(struct pgr_walrec *r, const struct pgr_walpage *h)
{
	bool first = r->state == ST_FIRST;

	r->state = ST_START;
	if (h->rem_len == 0 || (h->info & PGR_WALPAGE_CONTINUES) == 0)
		return;
	r->skip = h->rem_len;
	r->state = first ? ST_HEAD : ST_SKIP;
	if (first)
		r->sum.head.rem_len = h->rem_len;
}

/* The record in front of this page is void: the server crashed before the rest of it was written. */
static void drop_record(struct pgr_walrec *r)
{
	r->rec.tot_len = 0;
	r->skip = 0;
	r->state = ST_START;
}

static void compare_lengths(struct pgr_walrec *r, const struct page *pg, const struct pgr_walpage *h)
{
	uint32_t want = r->state == ST_RECORD ? r->rec.tot_len - r->rec.have : r->skip;
	bool inside = r->state == ST_RECORD || r->state == ST_HEAD || r->state == ST_SKIP;

	if (inside && (h->info & PGR_WALPAGE_OVERWRITES) != 0) {
		drop_record(r);
		return;
	}
	if (!inside)
		want = 0;
	if (h->rem_len == want)
		return;
	/* this page's word against that of a record whose CRC was not seen yet: reading goes on with the page's */
	suspect(r, pg, pg->addr, here(pg), "page continues a record with %" PRIu32 " bytes instead of %" PRIu32,
		h->rem_len, want);
	lose(r);
	if (!r->pending)
		enter_page(r, h);
}

/* Told once: what it is cannot be known. */
static void after_switch(struct pgr_walrec *r, const struct page *pg)
{
	uint32_t i = pg->at;

	if (r->told_switch)
		return;
	while (i < pg->len && pg->p[i] == 0)
		i++;
	if (i == pg->len)
		return;
	tell(r, pg->addr + i, "not zero behind a segment switch");
	r->told_switch = true;
}

static void read_content(struct pgr_walrec *r, struct page *pg)
{
	while (pg->at < pg->len) {
		switch (r->state) {
		case ST_HEAD:
		case ST_SKIP:
			skip_rest(r, pg);
			break;
		case ST_PAD:
			skip_padding(r, pg);
			break;
		case ST_START:
			start_record(r, pg);
			break;
		case ST_RECORD:
			read_record(r, pg);
			break;
		case ST_SWITCHED:
			after_switch(r, pg);
			return;
		default: /* ST_ENDED, ST_LOST: nothing more on this page */
			return;
		}
	}
	if (r->state == ST_PAD) /* ended with the page */
		r->state = ST_START;
}

static void read_page(struct pgr_walrec *r, struct page *pg)
{
	struct pgr_walpage h;

	if (r->state == ST_ENDED || r->state == ST_LOST || r->state == ST_SWITCHED || is_zero(pg->p, 64)) {
		if (is_empty_page(r, pg)) {
			empty_page(r, pg);
			return;
		}
	}
	if (r->state == ST_SWITCHED) {
		after_switch(r, pg);
		return;
	}
	if (r->pending && has_data_from(pg, r->pending_from))
		flush_pending(r);
	if (read_page_header(r, pg, &h) != PGR_OK)
		return;
	if (!pgr_walpage_has_crc32c(r->o.page.magic)) {
		r->valid_end = pg->addr + pg->len;
		return;
	}
	r->sum.overwrites |= r->state == ST_FIRST && (h.info & PGR_WALPAGE_OVERWRITES) != 0;
	if (r->state == ST_FIRST || r->state == ST_LOST || r->state == ST_ENDED)
		enter_page(r, &h);
	else
		compare_lengths(r, pg, &h);
	read_content(r, pg);
}

void pgr_walrec_init(struct pgr_walrec *r, const struct pgr_walrec_opts *opts)
{
	memset(r, 0, sizeof(*r));
	r->o = *opts;
	r->addr = opts->page.addr;
	r->valid_end = opts->page.addr;
	r->state = ST_FIRST;
}

void pgr_walrec_page(struct pgr_walrec *r, const void *page)
{
	struct page pg = {.p = page, .len = r->o.page.page_bytes, .addr = r->addr};

	read_page(r, &pg);
	r->addr += pg.len;
}

void pgr_walrec_finish(struct pgr_walrec *r, struct pgr_walrec_summary *out)
{
	pgr_lsn end = r->o.page.addr + r->o.page.segment_bytes;
	struct pgr_walrec_summary *s = &r->sum;
	struct page nothing = {.addr = r->addr};

	if (r->addr < end)
		empty_page(r, &nothing);
	s->end_lsn = r->valid_end;
	if (r->state == ST_SWITCHED) {
		s->end = PGR_WALREC_SWITCHED;
	} else if (r->pending) {
		s->end = r->pending_end ? PGR_WALREC_ZEROS : PGR_WALREC_TORN;
	} else if (r->state == ST_LOST || r->state == ST_ENDED) {
		s->end = PGR_WALREC_LOST;
	} else {
		s->end = PGR_WALREC_FULL;
		s->end_lsn = end;
		s->tail = r->rec;
	}
	*out = *s;
}
