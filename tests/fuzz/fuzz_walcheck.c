/*
 * Segments of an archive that somebody damaged, or made.  The first byte chooses timelines, the rest is the content of
 * segments of four small pages, one after the other; the last one may be cut off.
 */
#include <stdlib.h>
#include <string.h>

#include "receiver/walchain.h"

#define PAGE	 1024u
#define SEG	 4096u
#define SEGMENTS 8u
#define FIRST	 3u

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

struct run {
	struct pgr_walrec_summary sums[SEGMENTS];
	unsigned told, lines;
	uint64_t sum; /* of everything that was said: twice the same */
};

static void on_problem(void *arg, pgr_lsn lsn, const char *text)
{
	struct run *r = arg;

	r->told++;
	r->sum = r->sum * 31 + lsn + strlen(text);
}

static void on_line(void *arg, enum pgr_walsay kind, const char *line)
{
	struct run *r = arg;

	r->lines++;
	r->sum = r->sum * 31 + (unsigned)kind + strlen(line);
	if (strchr(line, '\n') != NULL)
		abort();
}

static void check(const struct pgr_walrec_summary *s, pgr_lsn start, unsigned told)
{
	pgr_lsn end = start + SEG;

	if (told != (s->problems < PGR_WALREC_MAX_PROBLEMS ? s->problems : PGR_WALREC_MAX_PROBLEMS))
		abort();
	if (s->end_lsn < start || s->end_lsn > end)
		abort();
	if (s->first != 0 && (s->first < start || s->first >= end))
		abort();
	if (s->last != 0 && (s->last < s->first || s->last >= end))
		abort();
	if (s->tail.tot_len > 0 && (s->end != PGR_WALREC_FULL || s->tail.have >= s->tail.tot_len))
		abort();
	if (s->head.len > s->head.rem_len || s->head.len > SEG)
		abort();
	if ((s->end == PGR_WALREC_TORN) && s->torn[0] == '\0')
		abort();
}

static void read_segment(struct run *r, size_t i, const unsigned char *data, size_t size,
			 const struct pgr_history *history)
{
	struct pgr_walrec_opts o = {
		.page = {.segment_bytes = SEG,
			 .page_bytes = PAGE,
			 .magic = 0xD110,
			 .addr = (FIRST + i) * SEG,
			 .tli_max = 2},
		.history = history,
		.problem = on_problem,
		.arg = r,
	};
	struct pgr_walrec rec;
	unsigned char page[PAGE];

	r->told = 0;
	pgr_walrec_init(&rec, &o);
	for (size_t at = 0; at < SEG && at < size; at += PAGE) {
		size_t n = size - at < PAGE ? size - at : PAGE;

		memset(page, 0, sizeof(page));
		memcpy(page, data + at, n);
		pgr_walrec_page(&rec, page);
	}
	pgr_walrec_finish(&rec, &r->sums[i]);
	check(&r->sums[i], o.page.addr, r->told);
}

static void run(struct run *r, const unsigned char *data, size_t size)
{
	struct pgr_history_entry entries[] = {{1, FIRST * SEG + 100u * (data[0] & 63u) + 1}, {2, 0}};
	struct pgr_waltimeline t[2] = {{.tli = 1}, {.tli = 2}};
	struct pgr_walchain c = {.segment_bytes = SEG, .timelines = t, .n = 2, .say = on_line, .arg = r};
	size_t n = 0;

	memset(r, 0, sizeof(*r));
	if ((data[0] & 0x80) != 0) {
		t[1].has_history = true;
		t[1].history = (struct pgr_history){entries, 2};
	}
	for (size_t at = 1; at < size && n < SEGMENTS; at += SEG, n++)
		read_segment(r, n, data + at, size - at, t[1].has_history ? &t[1].history : NULL);
	t[0].max = FIRST;
	t[1].max = FIRST + n;
	for (size_t i = 0; i < n; i++) {
		struct pgr_walentry e = {.tli = i == 0 && (data[0] & 0x40) != 0 ? 1 : 2, .low = FIRST + (uint32_t)i};

		e.partial = i + 1 == n && (data[0] & 0x20) != 0;
		pgr_walchain_add(&c, &e, FIRST + i, &r->sums[i]);
	}
	pgr_walchain_finish(&c);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct run a, b;

	if (size == 0)
		return 0;
	run(&a, data, size);
	run(&b, data, size);
	if (a.sum != b.sum || a.lines != b.lines)
		abort();
	return 0;
}
