#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/walrecord.h"
#include "tests/support/walmaker.h"

#define SEG  PGR_WALSEG_MIN
#define PAGE 8192u
#define BASE ((pgr_lsn)5 * SEG)

static char told[4096];
static unsigned ntold;

static void on_problem(void *arg, pgr_lsn lsn, const char *text)
{
	size_t n = strlen(told);

	(void)arg;
	ntold++;
	snprintf(told + n, sizeof(told) - n, "%" PGR_LSN_FMT ": %s\n", PGR_LSN_ARG(lsn), text);
}

/* Reads segment `i`, the first `pages` pages of it. */
static void read_pages(const struct walmaker *w, size_t i, uint32_t pages, struct pgr_walrec_summary *out)
{
	struct pgr_walrec_opts o = {
		.page = {.system_id = w->system_id,
			 .segment_bytes = w->segment_bytes,
			 .page_bytes = w->page_bytes,
			 .magic = w->magic,
			 .addr = w->base + i * w->segment_bytes,
			 .tli_min = w->tli,
			 .tli_max = w->tli},
		.problem = on_problem,
	};
	struct pgr_walrec r;

	told[0] = '\0';
	ntold = 0;
	pgr_walrec_init(&r, &o);
	for (uint32_t p = 0; p < pages; p++)
		pgr_walrec_page(&r, w->bytes + i * w->segment_bytes + (size_t)p * w->page_bytes);
	pgr_walrec_finish(&r, out);
}

static void read_segment(const struct walmaker *w, size_t i, struct pgr_walrec_summary *out)
{
	read_pages(w, i, w->segment_bytes / w->page_bytes, out);
}

/* A segment that is full, one that ends in a switch, one that ends anywhere. */
static void make(struct walmaker *w, pgr_lsn *first, pgr_lsn *last)
{
	wm_init(w, BASE, 3, SEG, PAGE);
	*first = BASE + PGR_WALPAGE_LONG;
	wm_fill(w, BASE + SEG + SEG / 2);
	wm_switch(w);
	wm_fill(w, BASE + 2 * SEG + 100000);
	*last = w->prev;
}

START_TEST(whole)
{
	struct walmaker w;
	struct pgr_walrec_summary a, b, c;
	struct pgr_err err;
	pgr_lsn first, last;

	make(&w, &first, &last);
	read_segment(&w, 0, &a);
	ck_assert_str_eq(told, "");
	ck_assert_int_eq(a.end, PGR_WALREC_FULL);
	ck_assert_uint_eq(a.first, first);
	ck_assert_uint_eq(a.first_prev, BASE - 64);
	ck_assert_uint_eq(a.head.rem_len, 0);
	ck_assert_uint_gt(a.tail.tot_len, 0); /* the lengths do not happen to end with the segment */
	read_segment(&w, 1, &b);
	ck_assert_str_eq(told, "");
	ck_assert_int_eq(b.end, PGR_WALREC_SWITCHED);
	ck_assert_uint_eq(b.first_prev, a.tail.lsn);
	ck_assert_int_eq(pgr_walrec_join(&a.tail, &b.head, &err), PGR_OK);
	ck_assert_uint_eq(pgr_walrec_prev(&a.tail), a.last);
	ck_assert(!pgr_walrec_is_switch(&a.tail));
	read_segment(&w, 2, &c);
	ck_assert_str_eq(told, "");
	ck_assert_int_eq(c.end, PGR_WALREC_ZEROS);
	ck_assert_uint_eq(c.end_lsn, w.at);
	ck_assert_uint_eq(c.last, last);
	ck_assert_uint_eq(c.first_prev, b.last);
	wm_free(&w);
}
END_TEST

/* A record's beginning and its rest, split wherever pages and segments can split them. */
START_TEST(split_records)
{
	for (uint32_t before = 8; before <= 64; before += 8) {
		for (uint32_t len = 24; len < 100; len += 7) {
			struct walmaker w;
			struct pgr_walrec_summary a, b;
			struct pgr_err err;
			pgr_lsn lsn;

			wm_init(&w, BASE, 2, SEG, PAGE);
			wm_fill(&w, BASE + SEG - 4 * PAGE);
			/* the last page but what is left for it */
			wm_record(&w, (uint32_t)(BASE + SEG - PAGE - w.at) - 2 * PGR_WALPAGE_SHORT - 48);
			while (w.at < BASE + SEG - before - 48)
				wm_record(&w, 24);
			if (w.at < BASE + SEG - before)
				wm_record(&w, (uint32_t)(BASE + SEG - before - w.at));
			ck_assert_uint_eq(w.at, BASE + SEG - before);
			lsn = wm_record(&w, len);
			wm_record(&w, 100);
			read_segment(&w, 0, &a);
			ck_assert_str_eq(told, "");
			read_segment(&w, 1, &b);
			ck_assert_str_eq(told, "");
			if (len > before) {
				ck_assert_uint_eq(a.tail.lsn, lsn);
				ck_assert_int_eq(pgr_walrec_join(&a.tail, &b.head, &err), PGR_OK);
				ck_assert_uint_eq(pgr_walrec_prev(&a.tail), a.last);
				ck_assert_uint_eq(b.first_prev, lsn);
				a.tail.header[3] ^= 1;
				ck_assert(pgr_walrec_join(&a.tail, &b.head, &err) == PGR_ERR);
			}
			wm_free(&w);
		}
	}
}
END_TEST

START_TEST(longer_than_a_segment)
{
	struct walmaker w;
	struct pgr_walrec_summary s[4];
	struct pgr_err err;

	wm_init(&w, BASE, 4, SEG, PAGE);
	wm_record(&w, 1000);
	wm_record(&w, 2 * SEG + 5000);
	wm_record(&w, 1000);
	for (size_t i = 0; i < 4; i++) {
		read_segment(&w, i, &s[i]);
		ck_assert_str_eq(told, "");
	}
	ck_assert_int_eq(s[1].end, PGR_WALREC_FULL);
	ck_assert_uint_eq(s[1].first, 0);
	ck_assert_int_eq(pgr_walrec_join(&s[0].tail, &s[1].head, &err), PGR_MORE);
	ck_assert_int_eq(pgr_walrec_join(&s[0].tail, &s[2].head, &err), PGR_OK);
	wm_free(&w);
}
END_TEST

/* Any flipped bit in what is used is found, by a problem or at one of the ends. */
START_TEST(flipped_bits)
{
	struct walmaker w;
	pgr_lsn first, last;
	struct pgr_walrec_summary s, clean[2];
	unsigned seed = 1;

	make(&w, &first, &last);
	for (size_t i = 0; i < 2; i++)
		read_segment(&w, i, &clean[i]);
	for (int i = 0; i < 3000; i++) {
		size_t seg, off;
		uint8_t *p, bit;
		bool found;

		seed = seed * 1103515245u + 12345u;
		seg = (seed >> 20) & 1;
		seed = seed * 1103515245u + 12345u;
		off = (seed >> 8) % SEG;
		if (i % 4 == 0)
			off = off / PAGE * PAGE + (seed & 31);
		bit = (uint8_t)(1u << (i & 7));
		if (off % PAGE == 2 && bit == PGR_WALPAGE_REMOVABLE)
			continue;
		p = w.bytes + seg * SEG + off;
		*p ^= bit;
		read_segment(&w, seg, &s);
		found = s.problems > 0 || s.end != clean[seg].end ||
			memcmp(&s.head, &clean[seg].head, sizeof(s.head)) != 0 ||
			memcmp(&s.tail, &clean[seg].tail, sizeof(s.tail)) != 0 || s.first_prev != clean[seg].first_prev;
		ck_assert_msg(found, "segment %zu, offset %zx, bit %x", seg, off, bit);
		ck_assert_msg(s.problems <= 4, "%u problems of one bit:\n%s", s.problems, told);
		*p ^= bit;
	}
	wm_free(&w);
}
END_TEST

/* Receiving stops at any byte: no problem, and what was whole before it is valid. */
START_TEST(cut_anywhere)
{
	for (uint32_t cut = 0; cut < 3 * PAGE; cut += 1 + cut % 7) {
		struct walmaker w;
		struct pgr_walrec_summary s;

		wm_init(&w, BASE, 1, SEG, PAGE);
		wm_fill(&w, BASE + 4 * PAGE);
		memset(w.bytes + cut, 0, SEG - cut);
		read_segment(&w, 0, &s);
		ck_assert_msg(s.problems == 0, "cut at %u: %s", cut, told);
		ck_assert(s.end == PGR_WALREC_ZEROS || s.end == PGR_WALREC_TORN);
		ck_assert_uint_le(s.end_lsn, ((BASE + cut + 7) & ~(pgr_lsn)7));
		if (s.records > 0) /* nothing that was whole is given up */
			ck_assert_uint_ge(s.end_lsn + 20000 + 4 * PGR_WALPAGE_SHORT + 8, BASE + cut);
		/* the same with the file cut off there */
		read_pages(&w, 0, (cut + PAGE - 1) / PAGE, &s);
		ck_assert_msg(s.problems == 0, "cut off at %u: %s", cut, told);
		wm_free(&w);
	}
}
END_TEST

/* Something behind the place where it seems to end: then it was not the end. */
START_TEST(holes)
{
	struct walmaker w;
	struct pgr_walrec_summary s;
	pgr_lsn first, last;

	make(&w, &first, &last);
	memset(w.bytes + 3 * PAGE, 0, PAGE);
	read_segment(&w, 0, &s);
	ck_assert_uint_ge(s.problems, 1);
	ck_assert_ptr_nonnull(strstr(told, "0/506000"));
	ck_assert_int_eq(s.end, PGR_WALREC_FULL); /* it finds its way back */
	wm_free(&w);
}
END_TEST

START_TEST(behind_a_switch)
{
	struct walmaker w;
	struct pgr_walrec_summary s;
	pgr_lsn first, last;

	make(&w, &first, &last);
	w.bytes[2 * SEG - 1] = 1;
	w.bytes[2 * SEG - 5] = 1;
	read_segment(&w, 1, &s);
	ck_assert_str_eq(told, "0/6FFFFB: not zero behind a segment switch\n");
	wm_free(&w);
}
END_TEST

/* Servers before 11 leave pages with a header there. */
START_TEST(page_headers_behind_a_switch)
{
	struct walmaker w;
	struct pgr_walrec_summary s;

	wm_init(&w, BASE, 1, SEG, PAGE);
	wm_fill(&w, BASE + 5 * PAGE + 100);
	wm_switch(&w);
	for (pgr_lsn at = pgr_lsn_segstart(w.prev, PAGE) + PAGE; at < BASE + SEG; at += PAGE) {
		w.at = at;
		wm_page(&w, 0, 0);
	}
	read_segment(&w, 0, &s);
	ck_assert_str_eq(told, "");
	ck_assert_int_eq(s.end, PGR_WALREC_SWITCHED);
	w.bytes[100 * PAGE + 30] = 7;
	read_segment(&w, 0, &s);
	ck_assert_uint_eq(ntold, 1);
	wm_free(&w);
}
END_TEST

/* A crash in the middle of a record that had reached the archive: its rest never comes, and the next page says so. */
START_TEST(overwritten_record)
{
	struct walmaker w;
	struct pgr_walrec_summary s;
	pgr_lsn before;

	wm_init(&w, BASE, 1, SEG, PAGE);
	wm_fill(&w, BASE + 2 * PAGE + 100);
	before = w.prev;
	wm_record(&w, 3 * PAGE);
	w.at = (w.prev / PAGE + 2) * PAGE;
	memset(wm_byte(&w, w.at), 0, BASE + SEG - w.at);
	wm_page(&w, 0, PGR_WALPAGE_OVERWRITES);
	w.prev = before;
	wm_fill(&w, BASE + 8 * PAGE);
	read_segment(&w, 0, &s);
	ck_assert_str_eq(told, "");
	ck_assert_uint_eq(s.end_lsn, w.at);
	wm_free(&w);
}
END_TEST

static const struct bad_case {
	unsigned off; /* in the record */
	uint8_t mask;
	const char *message;
} bad[] = {
	{0, 0x01, "CRC"},
	{2, 0x80, NULL},
	{3, 0x80, "invalid length"},
	{4, 0x01, "incorrect CRC"},
	{9, 0x01, "prev-link"},
	{16, 0x10, "incorrect CRC"},
	{19, 0x10, "incorrect CRC"},
	{21, 0x10, "incorrect CRC"},
	{24, 0x01, "incorrect CRC"},
};

START_TEST(messages)
{
	struct walmaker w;
	struct pgr_walrec_summary s;
	pgr_lsn lsn;

	wm_init(&w, BASE, 1, SEG, PAGE);
	wm_record(&w, 100);
	lsn = wm_record(&w, 200);
	wm_fill(&w, BASE + 3 * PAGE);
	wm_byte(&w, lsn)[bad[_i].off] ^= bad[_i].mask;
	read_segment(&w, 0, &s);
	ck_assert_uint_ge(ntold, 1);
	ck_assert_msg(strncmp(told, "0/500090: ", 10) == 0 || bad[_i].message == NULL, "%s", told);
	if (bad[_i].message != NULL)
		ck_assert_msg(strstr(told, bad[_i].message) != NULL, "%s", told);
	wm_free(&w);
}
END_TEST

START_TEST(few_lines_for_much_damage)
{
	struct walmaker w;
	struct pgr_walrec_summary s;

	wm_init(&w, BASE, 1, SEG, PAGE);
	wm_fill(&w, BASE + SEG);
	for (size_t i = PAGE; i < SEG; i += PAGE)
		w.bytes[i] ^= 1;
	read_segment(&w, 0, &s);
	ck_assert_uint_eq(ntold, PGR_WALREC_MAX_PROBLEMS);
	ck_assert_uint_ge(s.problems, SEG / PAGE - 1);
	wm_free(&w);
}
END_TEST

START_TEST(padding)
{
	struct walmaker w;
	struct pgr_walrec_summary s;
	pgr_lsn lsn;

	wm_init(&w, BASE, 1, SEG, PAGE);
	lsn = wm_record(&w, 25);
	wm_record(&w, 100);
	*wm_byte(&w, lsn + 30) = 1;
	read_segment(&w, 0, &s);
	ck_assert_str_eq(told, "0/500041: padding between records is not zero\n");
	wm_free(&w);
}
END_TEST

START_TEST(before_9_5)
{
	struct walmaker w;
	struct pgr_walrec_summary s;

	wm_init(&w, BASE, 1, SEG, PAGE);
	w.magic = 0xD075;
	wm_fill(&w, BASE + SEG);
	w.bytes[3 * PAGE + 100] ^= 1; /* not looked at */
	read_segment(&w, 0, &s);
	ck_assert_str_eq(told, "");
	w.bytes[3 * PAGE + 8] ^= 1;
	read_segment(&w, 0, &s);
	ck_assert_uint_eq(ntold, 1);
	wm_free(&w);
}
END_TEST

START_TEST(owners)
{
	struct pgr_history_entry e[] = {{1, 0x5000}, {2, 0x4000}, {3, 0x9000}, {7, 0}};
	struct pgr_history h = {e, 4};

	ck_assert_uint_eq(pgr_walrec_owner(&h, 0x3FFF), 1);
	ck_assert_uint_eq(pgr_walrec_owner(&h, 0x4000), 3); /* timeline 2 was left before it began */
	ck_assert_uint_eq(pgr_walrec_owner(&h, 0x8FFF), 3);
	ck_assert_uint_eq(pgr_walrec_owner(&h, 0x9000), 7);
	h.n = 1;
	h.entries = e + 3;
	ck_assert_uint_eq(pgr_walrec_owner(&h, 0), 7);
}
END_TEST

/* Pages of older timelines in front of newer ones: as the history says, or at least not descending. */
START_TEST(timelines_of_pages)
{
	struct pgr_history_entry e[] = {{1, BASE + 2 * PAGE + 100}, {2, 0}};
	struct pgr_history h = {e, 2};
	struct walmaker w;
	struct pgr_walrec_opts o = {.problem = on_problem};
	struct pgr_walrec_summary s;

	wm_init(&w, BASE, 1, SEG, PAGE);
	wm_fill(&w, BASE + 2 * PAGE + 100);
	w.tli = 2; /* the pages that begin from here on */
	wm_fill(&w, BASE + SEG);
	o.page = (struct pgr_walpage_expect){w.system_id, SEG, PAGE, w.magic, BASE, 0, 2};
	for (int known = 0; known < 2; known++) {
		for (int broken = 0; broken < 3; broken++) {
			struct pgr_walrec r;
			uint8_t *tli = w.bytes + 5 * PAGE + 4;

			if (broken == 2)
				tli = w.bytes + 1 * PAGE + 4;
			if (broken > 0)
				*tli ^= 3;
			o.history = known ? &h : NULL;
			told[0] = '\0';
			ntold = 0;
			pgr_walrec_init(&r, &o);
			for (uint32_t p = 0; p < SEG / PAGE; p++)
				pgr_walrec_page(&r, w.bytes + (size_t)p * PAGE);
			pgr_walrec_finish(&r, &s);
			ck_assert_msg(known ? ntold == (broken > 0) : (broken == 0) == (ntold == 0), "%d %d: %s", known,
				      broken, told);
			if (broken > 0)
				*tli ^= 3;
		}
	}
	wm_free(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("walrecord");
	TCase *tc = tcase_create("walrecord");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, whole);
	tcase_add_test(tc, split_records);
	tcase_add_test(tc, longer_than_a_segment);
	tcase_add_test(tc, flipped_bits);
	tcase_add_test(tc, cut_anywhere);
	tcase_add_test(tc, holes);
	tcase_add_test(tc, behind_a_switch);
	tcase_add_test(tc, page_headers_behind_a_switch);
	tcase_add_test(tc, overwritten_record);
	tcase_add_loop_test(tc, messages, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, few_lines_for_much_damage);
	tcase_add_test(tc, padding);
	tcase_add_test(tc, before_9_5);
	tcase_add_test(tc, owners);
	tcase_add_test(tc, timelines_of_pages);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
