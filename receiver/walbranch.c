#include "receiver/walbranch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/walfile.h"

#define BUFFER_BYTES (256u * 1024)

/* The complete one where there are two.  NULL: not there. */
static const struct pgr_walentry *find_entry(const struct pgr_walsurvey *v, pgr_tli tli, pgr_segno seg)
{
	size_t low = 0, high = v->list->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct pgr_walentry *e = &v->list->entries[mid];
		pgr_segno s;

		(void)pgr_walentry_segno(e, v->page.segment_bytes, &s);
		if (s < seg || (s == seg && e->tli < tli))
			low = mid + 1;
		else
			high = mid;
	}
	if (low < v->list->n) {
		const struct pgr_walentry *e = &v->list->entries[low];
		pgr_segno s;

		if (e->tli == tli && pgr_walentry_segno(e, v->page.segment_bytes, &s) && s == seg)
			return e;
	}
	return NULL;
}

struct pair {
	struct pgr_walfile a, b;
	uint8_t *abuf, *bbuf;
};

/* Corrupt content was told of when the segment was checked; a file may have vanished since. */
static void tell_trouble(const struct pgr_walsurvey *v, const char *name, const struct pgr_err *err)
{
	if (err->cls == PGR_E_SYSTEM && err->sys_errno != ENOENT)
		pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM, "%s: %.300s", name, err->msg);
}

/* False: not so many bytes can be read. */
static bool fill(const struct pgr_walsurvey *v, struct pgr_walfile *f, uint8_t *buf, size_t len)
{
	struct pgr_err err;
	size_t n;
	int rc = pgr_walfile_read(f, buf, len, &n, &err);

	if (rc == PGR_ERR)
		tell_trouble(v, f->name, &err);
	return rc == PGR_OK;
}

/* Where the first `len` bytes of both files differ first; len: they do not, as far as they can be read. */
static uint64_t first_difference(const struct pgr_walsurvey *v, struct pair *p, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		size_t cap = len - at < BUFFER_BYTES ? (size_t)(len - at) : BUFFER_BYTES;

		if (!fill(v, &p->a, p->abuf, cap) || !fill(v, &p->b, p->bbuf, cap))
			return len;
		for (size_t i = 0; memcmp(p->abuf, p->bbuf, cap) != 0 && i < cap; i++)
			if (p->abuf[i] != p->bbuf[i])
				return at + i;
		at += cap;
	}
	return len;
}

static bool open_one(const struct pgr_walsurvey *v, struct pgr_walfile *f, const char *name, uint8_t method)
{
	struct pgr_err err;

	if (pgr_walfile_open(f, v->sys, v->dirfd, name, (enum pgr_compression)method, &err) == PGR_OK)
		return true;
	tell_trouble(v, name, &err);
	return false;
}

static void compare_files(const struct pgr_walsurvey *v, struct pair *p, const struct pgr_walentry *ae,
			  const struct pgr_walentry *be, pgr_lsn start, uint64_t len)
{
	char a[PGR_WALLIST_NAME], b[PGR_WALLIST_NAME];
	uint64_t at = len;

	pgr_walentry_name(a, ae);
	pgr_walentry_name(b, be);
	if (!open_one(v, &p->a, a, ae->method))
		return;
	if (open_one(v, &p->b, b, be->method)) {
		at = first_difference(v, p, len);
		pgr_walfile_close(&p->b);
	}
	pgr_walfile_close(&p->a);
	if (at < len)
		pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM,
				 "%s: %" PGR_LSN_FMT ": differs from %s before its timeline began", a,
				 PGR_LSN_ARG(start + at), b);
}

static pgr_lsn least(pgr_lsn a, pgr_lsn b)
{
	return a < b ? a : b;
}

/* A new timeline's first segment begins with a copy of the old one's. */
static void compare_branch(const struct pgr_walsurvey *v, struct pair *p, const struct pgr_waltimeline *t)
{
	const struct pgr_waltimeline *o;
	const struct pgr_walentry *te, *oe;
	pgr_tli parent;
	pgr_lsn at, start, end;
	pgr_segno seg;

	if (!pgr_waltimeline_branch(t, &parent, &at))
		return;
	seg = pgr_lsn_segno(at, v->page.segment_bytes);
	start = pgr_segno_start(seg, v->page.segment_bytes);
	o = pgr_walchain_find(v->chain, parent);
	te = find_entry(v, t->tli, seg);
	oe = find_entry(v, parent, seg);
	if (o == NULL || te == NULL || oe == NULL)
		return;
	end = least(at, t->to);
	if (o->last == seg)
		end = least(end, o->to);
	if (end <= start)
		return;
	compare_files(v, p, te, oe, start, end - start);
}

int pgr_walbranch_compare(const struct pgr_walsurvey *v, struct pgr_err *err)
{
	struct pair p = {.abuf = malloc(BUFFER_BYTES), .bbuf = malloc(BUFFER_BYTES)};
	int rc = PGR_OK;

	if (p.abuf == NULL || p.bbuf == NULL)
		rc = pgr_err_nomem(err);
	for (size_t i = 0; rc == PGR_OK && i < v->chain->n; i++)
		compare_branch(v, &p, &v->chain->timelines[i]);
	free(p.abuf);
	free(p.bbuf);
	return rc;
}
