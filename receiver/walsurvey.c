#include "receiver/walsurvey.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs_io.h"
#include "common/sys.h"
#include "receiver/walfile.h"

#define SAMPLES	      9
#define HISTORY_LIMIT (1024u * 1024)
#define DEFAULT_PAGE  8192
#define DEFAULT_MAGIC 0xD118

/* ---- before: what the segments have in common ---- */

/* PGR_MORE: this one does not tell. */
static int sample(const struct pgr_walsurvey *v, const struct pgr_walentry *e, struct pgr_walpage *h,
		  struct pgr_err *err)
{
	char name[PGR_WALLIST_NAME];
	uint8_t page[PGR_WALPAGE_LONG];
	struct pgr_walfile f;
	pgr_segno seg;
	size_t n = 0;
	int rc;

	pgr_walentry_name(name, e);
	rc = pgr_walfile_open(&f, v->sys, v->dirfd, name, e->method, err);
	if (rc == PGR_OK) {
		rc = pgr_walfile_read(&f, page, sizeof(page), &n, err);
		pgr_walfile_close(&f);
	}
	if (rc == PGR_ERR && err->cls == PGR_E_NOMEM)
		return PGR_ERR;
	if (n < sizeof(page) || pgr_walpage_first(page, n, h, err) != PGR_OK)
		return PGR_MORE;
	/* the name has to agree, or it is a stranger's */
	if (!pgr_walentry_segno(e, h->segment_bytes, &seg) || pgr_segno_start(seg, h->segment_bytes) != h->addr)
		return PGR_MORE;
	return PGR_OK;
}

static bool is_alike(const struct pgr_walpage *a, const struct pgr_walpage *b)
{
	return a->system_id == b->system_id && a->segment_bytes == b->segment_bytes && a->page_bytes == b->page_bytes &&
	       a->magic == b->magic;
}

/* Nothing was received yet, or all is broken: plain files at least have a size. */
static int guess_size(struct pgr_walsurvey *v, struct pgr_err *err)
{
	for (size_t i = 0; i < v->list->n && i < SAMPLES; i++) {
		char name[PGR_WALLIST_NAME];
		struct stat st;

		pgr_walentry_name(name, &v->list->entries[i]);
		if (v->list->entries[i].method != PGR_COMP_NONE ||
		    v->sys->fstatat(v->sys, v->dirfd, name, &st, 0) != 0 || st.st_size <= 0 ||
		    !pgr_walseg_valid((uint64_t)st.st_size))
			continue;
		v->page.segment_bytes = (uint32_t)st.st_size;
		v->page.page_bytes = DEFAULT_PAGE;
		v->page.magic = DEFAULT_MAGIC;
		return PGR_OK;
	}
	return pgr_err_set(err, PGR_E_DATA, "no WAL segment in \"%s\" has a first page that tells its size", v->dir);
}

/* The first `n` samples vote: one foreign or broken segment must not make all others look foreign. */
static const struct pgr_walpage *vote(const struct pgr_walpage *h, size_t n)
{
	const struct pgr_walpage *best = &h[0];
	size_t most = 0;

	for (size_t i = 0; i < n; i++) {
		size_t votes = 0;

		for (size_t j = 0; j < n; j++)
			votes += is_alike(&h[i], &h[j]);
		if (votes > most) {
			most = votes;
			best = &h[i];
		}
	}
	return best;
}

/* Evenly spread ones first; when they say nothing, all in turn. */
static int learn(struct pgr_walsurvey *v, struct pgr_err *err)
{
	struct pgr_walpage h[SAMPLES];
	const struct pgr_walpage *best;
	size_t n = 0, stride = v->list->n / SAMPLES + 1;
	int rc = PGR_MORE;

	for (size_t i = 0; i < v->list->n && n < SAMPLES; i += stride) {
		rc = sample(v, &v->list->entries[i], &h[n], err);
		if (rc == PGR_ERR)
			return PGR_ERR;
		n += rc == PGR_OK;
	}
	for (size_t i = 0; n == 0 && i < v->list->n; i++) {
		rc = sample(v, &v->list->entries[i], &h[0], err);
		if (rc == PGR_ERR)
			return PGR_ERR;
		n = rc == PGR_OK;
	}
	if (n == 0)
		return guess_size(v, err);
	best = vote(h, n);
	v->page = (struct pgr_walpage_expect){
		.system_id = best->system_id,
		.segment_bytes = best->segment_bytes,
		.page_bytes = best->page_bytes,
		.magic = best->magic,
	};
	return PGR_OK;
}

/* Segments of another size have names that this size does not know. */
static void drop_strange_names(struct pgr_walsurvey *v)
{
	size_t kept = 0;
	pgr_segno seg;

	for (size_t i = 0; i < v->list->n; i++) {
		const struct pgr_walentry *e = &v->list->entries[i];
		char name[PGR_WALLIST_NAME];

		if (pgr_walentry_segno(e, v->page.segment_bytes, &seg) && seg < UINT64_MAX / v->page.segment_bytes) {
			v->list->entries[kept++] = *e;
			continue;
		}
		pgr_walentry_name(name, e);
		pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM, "%s: there is no such segment of %" PRIu32 " bytes",
				 name, v->page.segment_bytes);
	}
	v->list->n = kept;
}

/* ---- before: timelines ---- */

static int compare_timelines(const void *pa, const void *pb)
{
	const struct pgr_waltimeline *a = pa, *b = pb;

	return a->tli < b->tli ? -1 : a->tli > b->tli;
}

/* Position before timeline in the list: a timeline seen just now is most often that of the segment before. */
static int add_timeline(struct pgr_walchain *ch, size_t *cap, pgr_tli tli, struct pgr_waltimeline **out,
			struct pgr_err *err)
{
	for (size_t i = ch->n; i-- > 0;) {
		if (ch->timelines[i].tli == tli) {
			*out = &ch->timelines[i];
			return PGR_OK;
		}
	}
	if (ch->n == *cap) {
		size_t more = *cap == 0 ? 8 : *cap * 2;
		struct pgr_waltimeline *p = reallocarray(ch->timelines, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		ch->timelines = p;
		*cap = more;
	}
	*out = &ch->timelines[ch->n++];
	memset(*out, 0, sizeof(**out));
	(*out)->tli = tli;
	return PGR_OK;
}

static int find_timelines(struct pgr_walsurvey *v, struct pgr_err *err)
{
	struct pgr_waltimeline *t = NULL;
	size_t cap = 0;

	for (size_t i = 0; i < v->list->n; i++) {
		pgr_segno seg;

		(void)pgr_walentry_segno(&v->list->entries[i], v->page.segment_bytes, &seg);
		if ((t == NULL || t->tli != v->list->entries[i].tli) &&
		    add_timeline(v->chain, &cap, v->list->entries[i].tli, &t, err) != PGR_OK)
			return PGR_ERR;
		t->max = seg; /* the list is in this order */
	}
	qsort(v->chain->timelines, v->chain->n, sizeof(*v->chain->timelines), compare_timelines);
	return PGR_OK;
}

static bool is_beginning_of(const struct pgr_history *a, const struct pgr_history *h)
{
	if (a->n > h->n)
		return false;
	for (size_t i = 0; i + 1 < a->n; i++)
		if (a->entries[i].tli != h->entries[i].tli || a->entries[i].end != h->entries[i].end)
			return false;
	return a->entries[a->n - 1].tli == h->entries[a->n - 1].tli;
}

/* An ancestor's own file tells the same as the beginning of a descendant's. */
static void compare_histories(struct pgr_walsurvey *v, const struct pgr_waltimeline *t)
{
	for (size_t i = 0; i + 1 < t->history.n; i++) {
		const struct pgr_waltimeline *a = pgr_walchain_find(v->chain, t->history.entries[i].tli);

		if (a == NULL || !a->has_history || is_beginning_of(&a->history, &t->history))
			continue;
		pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM,
				 "%08" PRIX32 ".history: contradicts %08" PRIX32 ".history", t->tli, a->tli);
		return;
	}
}

/* Also of timelines that have no segments here. */
static int read_history(struct pgr_walsurvey *v, pgr_tli tli, struct pgr_err *err)
{
	struct pgr_waltimeline *t = pgr_walchain_find(v->chain, tli);
	struct pgr_history h = {0};
	char name[17];
	char *text = NULL;
	size_t len = 0;
	int rc;

	pgr_historyname_format(name, tli);
	rc = pgr_fs_read_file(v->sys, v->dirfd, v->dir, name, HISTORY_LIMIT, &text, &len, err);
	if (rc == PGR_OK)
		rc = pgr_history_parse(&h, tli, text, len, err);
	if (rc == PGR_OK && tli > 1 && h.n < 2)
		rc = pgr_err_set(err, PGR_E_DATA, "no timeline is named that it began from");
	free(text);
	if (rc == PGR_OK && t != NULL) {
		t->history = h;
		t->has_history = true;
		return PGR_OK;
	}
	pgr_history_fini(&h);
	if (rc == PGR_ERR && err->cls == PGR_E_NOMEM)
		return PGR_ERR;
	if (rc != PGR_OK)
		pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM, "%s: %.300s", name,
				 rc == PGR_MORE ? "vanished meanwhile" : err->msg);
	return PGR_OK;
}

static bool has_history_file(const struct pgr_walsurvey *v, pgr_tli tli)
{
	for (size_t i = 0; i < v->list->nhistories; i++)
		if (v->list->histories[i] == tli)
			return true;
	return false;
}

static int read_histories(struct pgr_walsurvey *v, struct pgr_err *err)
{
	for (size_t i = 0; i < v->list->nhistories; i++)
		if (read_history(v, v->list->histories[i], err) != PGR_OK)
			return PGR_ERR;
	for (size_t i = 0; i < v->chain->n; i++) {
		const struct pgr_waltimeline *t = &v->chain->timelines[i];
		char name[17];

		if (t->has_history) {
			compare_histories(v, t);
			continue;
		}
		pgr_historyname_format(name, t->tli);
		if (t->tli > 1 && !has_history_file(v, t->tli)) /* one that is bad was told of */
			pgr_walchain_say(v->chain, PGR_WALSAY_PROBLEM, "%s: history file is missing", name);
	}
	return PGR_OK;
}

int pgr_walsurvey(struct pgr_walsurvey *v, struct pgr_err *err)
{
	if (v->list->n == 0)
		return pgr_err_set(err, PGR_E_USAGE, "there is no WAL segment in \"%s\"", v->dir);
	if (learn(v, err) != PGR_OK)
		return PGR_ERR;
	drop_strange_names(v);
	v->chain->segment_bytes = v->page.segment_bytes;
	if (v->list->n == 0)
		return PGR_OK;
	if (find_timelines(v, err) != PGR_OK)
		return PGR_ERR;
	return read_histories(v, err);
}
