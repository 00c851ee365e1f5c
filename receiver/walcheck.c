#include "receiver/walcheck.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fs.h"
#include "common/sys.h"
#include "receiver/walfile.h"

#define BUFFER_BYTES  (256u * 1024) /* a multiple of every page size */
#define SLOTS	      32	    /* segments under way or waiting for an earlier one */
#define SAMPLES	      9
#define HISTORY_LIMIT (1024u * 1024)
#define DEFAULT_PAGE  8192
#define DEFAULT_MAGIC 0xD118
#define MAX_THREADS   64

struct finding {
	pgr_lsn lsn;
	char text[200];
};

/* What a reader found in one file. */
struct slot {
	bool done;
	bool vanished;
	bool readable;	   /* sum is filled in */
	char trouble[300]; /* with the file itself; empty: none */
	uint64_t bytes;
	struct pgr_walrec_summary sum;
	struct finding found[PGR_WALREC_MAX_PROBLEMS];
	unsigned nfound;
};

struct check {
	const struct pgr_walcheck_opts *o;
	struct pgr_walcheck_result *res;
	struct pgr_wallist list;
	struct pgr_walpage_expect page; /* what all segments have in common */
	struct pgr_walchain chain;

	/* readers and the joining thread: */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a slot is done, or free again; quit */
	size_t next;		/* entry that the next reader takes */
	size_t joined;		/* entries before this one are through */
	bool quit;
	struct pgr_err fatal; /* with quit */
	struct slot slots[SLOTS];
};

static void say(struct check *c, enum pgr_walsay kind, const char *line)
{
	if (kind == PGR_WALSAY_PROBLEM)
		c->res->problems++;
	else if (kind == PGR_WALSAY_NOTE)
		c->res->notes++;
	c->o->say(c->o->arg, kind, line);
}

static void PGR_PRINTF(3, 4) sayf(struct check *c, enum pgr_walsay kind, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say(c, kind, line);
}

static void on_chain(void *arg, enum pgr_walsay kind, const char *line)
{
	say(arg, kind, line);
}

static void on_leftover(void *arg, const char *name)
{
	struct check *c = arg;
	char clean[128];
	size_t n = 0;

	/* anybody may have made this name */
	for (; name[n] != '\0' && n + 1 < sizeof(clean); n++)
		clean[n] = name[n] > ' ' && name[n] < 0x7F ? name[n] : '?';
	clean[n] = '\0';
	sayf(c, PGR_WALSAY_NOTE, "%s: leftover of an interrupted program", clean);
}

/* ---- one file, in a reader's thread ---- */

static void on_problem(void *arg, pgr_lsn lsn, const char *text)
{
	struct slot *s = arg;
	struct finding *f = &s->found[s->nfound++];

	f->lsn = lsn;
	snprintf(f->text, sizeof(f->text), "%s", text);
}

/* Feeds whole pages; the last bytes of a file that ends inside one are followed by zeros. */
static void feed(struct pgr_walrec *rec, uint8_t *buf, size_t n, uint32_t page_bytes)
{
	size_t rest = n % page_bytes;

	if (rest != 0) {
		memset(buf + n, 0, page_bytes - rest);
		n += page_bytes - rest;
	}
	for (size_t at = 0; at < n; at += page_bytes)
		pgr_walrec_page(rec, buf + at);
}

/* After a whole segment: nothing may follow it. */
static int expect_end(struct pgr_walfile *f, struct slot *s, struct pgr_err *err)
{
	uint8_t byte;
	size_t n;
	int rc = pgr_walfile_read(f, &byte, 1, &n, err);

	if (rc == PGR_OK)
		snprintf(s->trouble, sizeof(s->trouble), "is longer than a segment");
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

static int read_segment(const struct check *c, struct pgr_walfile *f, struct pgr_walrec *rec, struct slot *s,
			uint8_t *buf, struct pgr_err *err)
{
	uint64_t size = c->page.segment_bytes;
	size_t n;
	int rc = PGR_OK;

	while (rc == PGR_OK && s->bytes < size) {
		size_t cap = size - s->bytes < BUFFER_BYTES ? (size_t)(size - s->bytes) : BUFFER_BYTES;

		rc = pgr_walfile_read(f, buf, cap, &n, err);
		feed(rec, buf, n, c->page.page_bytes);
		s->bytes += n;
	}
	return rc == PGR_OK ? expect_end(f, s, err) : rc;
}

static void judge_size(const struct check *c, const struct pgr_walentry *e, const struct pgr_walfile *f, struct slot *s)
{
	if (e->partial || s->bytes >= c->page.segment_bytes)
		return;
	snprintf(s->trouble, sizeof(s->trouble), "has %" PRIu64 " bytes%s instead of %" PRIu32 "%s", s->bytes,
		 e->method != PGR_COMP_NONE ? " of WAL" : "", c->page.segment_bytes,
		 f->cut ? ", the compressed stream is cut off" : "");
}

static void init_record_reader(const struct check *c, const struct pgr_walentry *e, pgr_segno seg, struct slot *s,
			       struct pgr_walrec *rec)
{
	const struct pgr_waltimeline *t = pgr_walchain_find(&c->chain, e->tli);
	struct pgr_walrec_opts o = {.page = c->page, .problem = on_problem, .arg = s};

	o.page.addr = pgr_segno_start(seg, c->page.segment_bytes);
	o.page.tli_max = e->tli;
	if (e->tli == 1) /* nothing comes before it */
		o.page.tli_min = 1;
	if (t->has_history)
		o.history = &t->history;
	pgr_walrec_init(rec, &o);
}

/* PGR_ERR only for what ends the whole check. */
static int check_file(const struct check *c, const struct pgr_walentry *e, struct slot *s, uint8_t *buf,
		      struct pgr_err *err)
{
	char name[PGR_WALLIST_NAME];
	struct pgr_walfile f;
	struct pgr_walrec rec;
	pgr_segno seg;
	int rc;

	pgr_walentry_name(name, e);
	(void)pgr_walentry_segno(e, c->page.segment_bytes, &seg); /* others were left out before */
	rc = pgr_walfile_open(&f, c->o->sys, c->o->dirfd, name, e->method, err);
	if (rc == PGR_OK) {
		init_record_reader(c, e, seg, s, &rec);
		rc = read_segment(c, &f, &rec, s, buf, err);
		pgr_walrec_finish(&rec, &s->sum);
		s->readable = true;
		if (rc == PGR_MORE)
			judge_size(c, e, &f, s);
		pgr_walfile_close(&f);
	} else if (err->sys_errno == ENOENT) {
		s->vanished = true;
		return PGR_OK;
	}
	if (rc == PGR_ERR && err->cls == PGR_E_NOMEM)
		return PGR_ERR;
	if (rc == PGR_ERR)
		snprintf(s->trouble, sizeof(s->trouble), "%.*s", (int)sizeof(s->trouble) - 1, err->msg);
	return PGR_OK;
}

/* ---- readers ---- */

/* Waits for a free slot.  False: nothing is left to do. */
static bool take_entry(struct check *c, size_t *i)
{
	bool got;

	pthread_mutex_lock(&c->lock);
	while (!c->quit && c->next < c->list.n && c->next >= c->joined + SLOTS)
		pthread_cond_wait(&c->changed, &c->lock);
	got = !c->quit && c->next < c->list.n;
	if (got)
		*i = c->next++;
	pthread_mutex_unlock(&c->lock);
	return got;
}

static void fail(struct check *c, const struct pgr_err *why)
{
	pthread_mutex_lock(&c->lock);
	if (!c->quit && why != NULL)
		c->fatal = *why;
	c->quit = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void post(struct check *c, struct slot *s)
{
	pthread_mutex_lock(&c->lock);
	s->done = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void *reader(void *arg)
{
	struct check *c = arg;
	uint8_t *buf = malloc(BUFFER_BYTES);
	struct pgr_err err;
	size_t i;

	if (buf == NULL) {
		pgr_err_nomem(&err);
		fail(c, &err);
		return NULL;
	}
	while (take_entry(c, &i)) {
		struct slot *s = &c->slots[i % SLOTS];

		if (check_file(c, &c->list.entries[i], s, buf, &err) != PGR_OK) {
			fail(c, &err);
			break;
		}
		post(c, s);
	}
	free(buf);
	return NULL;
}

/* ---- joining, in the calling thread ---- */

static void tell_file(struct check *c, const struct pgr_walentry *e, const struct slot *s)
{
	char name[PGR_WALLIST_NAME];

	pgr_walentry_name(name, e);
	if (s->vanished)
		sayf(c, PGR_WALSAY_NOTE, "%s: vanished meanwhile", name);
	if (s->trouble[0] != '\0')
		sayf(c, PGR_WALSAY_PROBLEM, "%s: %s", name, s->trouble);
	for (unsigned i = 0; i < s->nfound; i++)
		sayf(c, PGR_WALSAY_PROBLEM, "%s: %" PGR_LSN_FMT ": %s", name, PGR_LSN_ARG(s->found[i].lsn),
		     s->found[i].text);
	if (s->readable && s->sum.problems > s->nfound) {
		sayf(c, PGR_WALSAY_PROBLEM, "%s: %u more problems", name, s->sum.problems - s->nfound);
		c->res->problems += s->sum.problems - s->nfound - 1;
	}
}

static void join_file(struct check *c, const struct pgr_walentry *e, const struct slot *s)
{
	pgr_segno seg;

	(void)pgr_walentry_segno(e, c->page.segment_bytes, &seg);
	tell_file(c, e, s);
	pgr_walchain_add(&c->chain, e, seg, s->readable ? &s->sum : NULL);
	if (e->partial)
		c->res->partials++;
	else
		c->res->segments++;
	c->res->bytes += s->bytes;
	c->res->records += s->sum.records;
	c->res->end = s->readable ? s->sum.end_lsn : pgr_segno_start(seg + 1, c->page.segment_bytes);
}

static bool wait_for(struct check *c, const struct slot *s)
{
	bool go;

	pthread_mutex_lock(&c->lock);
	while (!c->quit && !s->done)
		pthread_cond_wait(&c->changed, &c->lock);
	go = !c->quit;
	pthread_mutex_unlock(&c->lock);
	return go;
}

static void free_slot(struct check *c, struct slot *s)
{
	pthread_mutex_lock(&c->lock);
	memset(s, 0, sizeof(*s));
	c->joined++;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void join_all(struct check *c)
{
	for (size_t i = 0; i < c->list.n; i++) {
		struct slot *s = &c->slots[i % SLOTS];

		if (!wait_for(c, s))
			return;
		join_file(c, &c->list.entries[i], s);
		free_slot(c, s);
	}
}

static int check_inline(struct check *c, struct pgr_err *err)
{
	uint8_t *buf = malloc(BUFFER_BYTES);
	int rc = PGR_OK;

	if (buf == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; rc == PGR_OK && i < c->list.n; i++) {
		struct slot *s = &c->slots[0];

		memset(s, 0, sizeof(*s));
		rc = check_file(c, &c->list.entries[i], s, buf, err);
		if (rc == PGR_OK)
			join_file(c, &c->list.entries[i], s);
	}
	free(buf);
	return rc;
}

static int check_with_threads(struct check *c, int threads, struct pgr_err *err)
{
	pthread_t ids[MAX_THREADS];
	int started = 0, rc = 0;

	for (; started < threads && started < MAX_THREADS && rc == 0; started += rc == 0)
		rc = pthread_create(&ids[started], NULL, reader, c);
	if (rc != 0) {
		pgr_err_sys(err, rc, "could not start a thread");
		fail(c, err);
	} else {
		join_all(c);
	}
	for (int i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	if (!c->quit)
		return PGR_OK;
	*err = c->fatal;
	return PGR_ERR;
}

/* ---- before: what the segments have in common ---- */

/* PGR_MORE: this one does not tell. */
static int sample(const struct check *c, const struct pgr_walentry *e, struct pgr_walpage *h, struct pgr_err *err)
{
	char name[PGR_WALLIST_NAME];
	uint8_t page[PGR_WALPAGE_LONG];
	struct pgr_walfile f;
	pgr_segno seg;
	size_t n = 0;
	int rc;

	pgr_walentry_name(name, e);
	rc = pgr_walfile_open(&f, c->o->sys, c->o->dirfd, name, e->method, err);
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
static int guess_size(struct check *c, struct pgr_err *err)
{
	for (size_t i = 0; i < c->list.n && i < SAMPLES; i++) {
		char name[PGR_WALLIST_NAME];
		struct stat st;

		pgr_walentry_name(name, &c->list.entries[i]);
		if (c->list.entries[i].method != PGR_COMP_NONE ||
		    c->o->sys->fstatat(c->o->sys, c->o->dirfd, name, &st, 0) != 0 || st.st_size <= 0 ||
		    !pgr_walseg_valid((uint64_t)st.st_size))
			continue;
		c->page.segment_bytes = (uint32_t)st.st_size;
		c->page.page_bytes = DEFAULT_PAGE;
		c->page.magic = DEFAULT_MAGIC;
		return PGR_OK;
	}
	return pgr_err_set(err, PGR_E_DATA, "no WAL segment in \"%s\" has a first page that tells its size", c->o->dir);
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
static int learn(struct check *c, struct pgr_err *err)
{
	struct pgr_walpage h[SAMPLES];
	const struct pgr_walpage *best;
	size_t n = 0, stride = c->list.n / SAMPLES + 1;
	int rc = PGR_MORE;

	for (size_t i = 0; i < c->list.n && n < SAMPLES; i += stride) {
		rc = sample(c, &c->list.entries[i], &h[n], err);
		if (rc == PGR_ERR)
			return PGR_ERR;
		n += rc == PGR_OK;
	}
	for (size_t i = 0; n == 0 && i < c->list.n; i++) {
		rc = sample(c, &c->list.entries[i], &h[0], err);
		if (rc == PGR_ERR)
			return PGR_ERR;
		n = rc == PGR_OK;
	}
	if (n == 0)
		return guess_size(c, err);
	best = vote(h, n);
	c->page = (struct pgr_walpage_expect){
		.system_id = best->system_id,
		.segment_bytes = best->segment_bytes,
		.page_bytes = best->page_bytes,
		.magic = best->magic,
	};
	c->res->system_id = best->system_id;
	c->res->version = pgr_walpage_version(best->magic);
	return PGR_OK;
}

/* Segments of another size have names that this size does not know. */
static void drop_strange_names(struct check *c)
{
	size_t kept = 0;
	pgr_segno seg;

	for (size_t i = 0; i < c->list.n; i++) {
		const struct pgr_walentry *e = &c->list.entries[i];
		char name[PGR_WALLIST_NAME];

		if (pgr_walentry_segno(e, c->page.segment_bytes, &seg) && seg < UINT64_MAX / c->page.segment_bytes) {
			c->list.entries[kept++] = *e;
			continue;
		}
		pgr_walentry_name(name, e);
		sayf(c, PGR_WALSAY_PROBLEM, "%s: there is no such segment of %" PRIu32 " bytes", name,
		     c->page.segment_bytes);
	}
	c->list.n = kept;
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

static int find_timelines(struct check *c, struct pgr_err *err)
{
	struct pgr_waltimeline *t = NULL;
	size_t cap = 0;

	for (size_t i = 0; i < c->list.n; i++) {
		pgr_segno seg;

		(void)pgr_walentry_segno(&c->list.entries[i], c->page.segment_bytes, &seg);
		if ((t == NULL || t->tli != c->list.entries[i].tli) &&
		    add_timeline(&c->chain, &cap, c->list.entries[i].tli, &t, err) != PGR_OK)
			return PGR_ERR;
		t->max = seg; /* the list is in this order */
	}
	qsort(c->chain.timelines, c->chain.n, sizeof(*c->chain.timelines), compare_timelines);
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
static void compare_histories(struct check *c, const struct pgr_waltimeline *t)
{
	for (size_t i = 0; i + 1 < t->history.n; i++) {
		const struct pgr_waltimeline *a = pgr_walchain_find(&c->chain, t->history.entries[i].tli);

		if (a == NULL || !a->has_history || is_beginning_of(&a->history, &t->history))
			continue;
		sayf(c, PGR_WALSAY_PROBLEM, "%08" PRIX32 ".history: contradicts %08" PRIX32 ".history", t->tli, a->tli);
		return;
	}
}

/* Also of timelines that have no segments here. */
static int read_history(struct check *c, pgr_tli tli, struct pgr_err *err)
{
	struct pgr_waltimeline *t = pgr_walchain_find(&c->chain, tli);
	struct pgr_history h;
	char name[17];
	char *text = NULL;
	size_t len = 0;
	int rc;

	pgr_historyname_format(name, tli);
	rc = pgr_fs_read_file(c->o->sys, c->o->dirfd, c->o->dir, name, HISTORY_LIMIT, &text, &len, err);
	if (rc == PGR_OK)
		rc = pgr_history_parse(&h, tli, text, len, err);
	if (rc == PGR_OK && tli > 1 && h.n < 2)
		rc = pgr_err_set(err, PGR_E_DATA, "no timeline is named that it began from");
	if (rc == PGR_ERR && err->cls == PGR_E_NOMEM) {
		free(text);
		return PGR_ERR;
	}
	free(text);
	if (rc != PGR_OK) {
		sayf(c, PGR_WALSAY_PROBLEM, "%s: %.300s", name, rc == PGR_MORE ? "vanished meanwhile" : err->msg);
		return PGR_OK;
	}
	if (t == NULL) {
		pgr_history_fini(&h);
		return PGR_OK;
	}
	t->history = h;
	t->has_history = true;
	return PGR_OK;
}

static bool has_history_file(const struct check *c, pgr_tli tli)
{
	for (size_t i = 0; i < c->list.nhistories; i++)
		if (c->list.histories[i] == tli)
			return true;
	return false;
}

static int read_histories(struct check *c, struct pgr_err *err)
{
	for (size_t i = 0; i < c->list.nhistories; i++)
		if (read_history(c, c->list.histories[i], err) != PGR_OK)
			return PGR_ERR;
	for (size_t i = 0; i < c->chain.n; i++) {
		const struct pgr_waltimeline *t = &c->chain.timelines[i];
		char name[17];

		if (t->has_history) {
			compare_histories(c, t);
			continue;
		}
		pgr_historyname_format(name, t->tli);
		if (t->tli > 1 && !has_history_file(c, t->tli)) /* one that is bad was told of */
			sayf(c, PGR_WALSAY_PROBLEM, "%s: history file is missing", name);
	}
	return PGR_OK;
}

/* ---- after: what both sides of a switch point hold ---- */

/* The complete one where there are two.  NULL: not there. */
static const struct pgr_walentry *find_entry(const struct check *c, pgr_tli tli, pgr_segno seg)
{
	size_t low = 0, high = c->list.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct pgr_walentry *e = &c->list.entries[mid];
		pgr_segno s;

		(void)pgr_walentry_segno(e, c->page.segment_bytes, &s);
		if (s < seg || (s == seg && e->tli < tli))
			low = mid + 1;
		else
			high = mid;
	}
	if (low < c->list.n) {
		const struct pgr_walentry *e = &c->list.entries[low];
		pgr_segno s;

		if (e->tli == tli && pgr_walentry_segno(e, c->page.segment_bytes, &s) && s == seg)
			return e;
	}
	return NULL;
}

struct pair {
	struct pgr_walfile a, b;
	uint8_t *abuf, *bbuf;
};

/* Where the first `len` bytes of both files differ first; len: they do not, as far as they can be read. */
static uint64_t first_difference(struct pair *p, uint64_t len)
{
	struct pgr_err err;
	uint64_t at = 0;

	while (at < len) {
		size_t cap = len - at < BUFFER_BYTES ? (size_t)(len - at) : BUFFER_BYTES;
		size_t na, nb;

		/* what cannot be read was told of when the segment was checked */
		if (pgr_walfile_read(&p->a, p->abuf, cap, &na, &err) != PGR_OK ||
		    pgr_walfile_read(&p->b, p->bbuf, cap, &nb, &err) != PGR_OK)
			return len;
		for (size_t i = 0; memcmp(p->abuf, p->bbuf, cap) != 0 && i < cap; i++)
			if (p->abuf[i] != p->bbuf[i])
				return at + i;
		at += cap;
	}
	return len;
}

static void compare_files(struct check *c, struct pair *p, const char *a, enum pgr_compression am, const char *b,
			  enum pgr_compression bm, pgr_lsn start, uint64_t len)
{
	struct pgr_err err;
	uint64_t at = len;

	if (pgr_walfile_open(&p->a, c->o->sys, c->o->dirfd, a, am, &err) != PGR_OK)
		return;
	if (pgr_walfile_open(&p->b, c->o->sys, c->o->dirfd, b, bm, &err) == PGR_OK) {
		at = first_difference(p, len);
		pgr_walfile_close(&p->b);
	}
	pgr_walfile_close(&p->a);
	if (at < len)
		sayf(c, PGR_WALSAY_PROBLEM, "%s: %" PGR_LSN_FMT ": differs from %s before its timeline began", a,
		     PGR_LSN_ARG(start + at), b);
}

static pgr_lsn least(pgr_lsn a, pgr_lsn b)
{
	return a < b ? a : b;
}

/* A new timeline's first segment begins with a copy of the old one's. */
static void compare_branch(struct check *c, struct pair *p, const struct pgr_waltimeline *t)
{
	const struct pgr_waltimeline *o;
	const struct pgr_walentry *te, *oe;
	char tname[PGR_WALLIST_NAME], oname[PGR_WALLIST_NAME];
	pgr_tli parent;
	pgr_lsn at, start, end;
	pgr_segno seg;

	if (!pgr_waltimeline_branch(t, &parent, &at))
		return;
	seg = pgr_lsn_segno(at, c->page.segment_bytes);
	start = pgr_segno_start(seg, c->page.segment_bytes);
	o = pgr_walchain_find(&c->chain, parent);
	te = find_entry(c, t->tli, seg);
	oe = find_entry(c, parent, seg);
	if (o == NULL || te == NULL || oe == NULL)
		return;
	end = least(at, t->to);
	if (o->last == seg)
		end = least(end, o->to);
	if (end <= start)
		return;
	pgr_walentry_name(tname, te);
	pgr_walentry_name(oname, oe);
	compare_files(c, p, tname, te->method, oname, oe->method, start, end - start);
}

static int compare_branches(struct check *c, struct pgr_err *err)
{
	struct pair p = {.abuf = malloc(BUFFER_BYTES), .bbuf = malloc(BUFFER_BYTES)};
	int rc = PGR_OK;

	if (p.abuf == NULL || p.bbuf == NULL)
		rc = pgr_err_nomem(err);
	for (size_t i = 0; rc == PGR_OK && i < c->chain.n; i++)
		compare_branch(c, &p, &c->chain.timelines[i]);
	free(p.abuf);
	free(p.bbuf);
	return rc;
}

/* ---- the whole ---- */

static int prepare(struct check *c, struct pgr_err *err)
{
	pgr_segno first;

	if (pgr_wallist_read(&c->list, c->o->sys, c->o->dirfd, c->o->dir, on_leftover, c, err) != PGR_OK)
		return PGR_ERR;
	if (c->list.n == 0)
		return pgr_err_set(err, PGR_E_USAGE, "there is no WAL segment in \"%s\"", c->o->dir);
	if (learn(c, err) != PGR_OK)
		return PGR_ERR;
	drop_strange_names(c);
	if (c->list.n == 0)
		return PGR_OK;
	(void)pgr_walentry_segno(&c->list.entries[0], c->page.segment_bytes, &first);
	c->res->begin = pgr_segno_start(first, c->page.segment_bytes);
	c->res->segment_bytes = c->page.segment_bytes;
	if (find_timelines(c, err) != PGR_OK)
		return PGR_ERR;
	c->res->timelines = c->chain.n;
	return read_histories(c, err);
}

static int run(struct check *c, struct pgr_err *err)
{
	int rc = prepare(c, err);

	if (rc != PGR_OK)
		return rc;
	c->chain.segment_bytes = c->page.segment_bytes;
	rc = c->o->threads > 0 ? check_with_threads(c, c->o->threads, err) : check_inline(c, err);
	if (rc != PGR_OK)
		return rc;
	rc = compare_branches(c, err);
	pgr_walchain_finish(&c->chain);
	return rc;
}

static void release(struct check *c)
{
	for (size_t i = 0; i < c->chain.n; i++)
		pgr_history_fini(&c->chain.timelines[i].history);
	free(c->chain.timelines);
	pgr_wallist_fini(&c->list);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}

int pgr_walcheck(const struct pgr_walcheck_opts *opts, struct pgr_walcheck_result *out, struct pgr_err *err)
{
	struct check *c = calloc(1, sizeof(*c));
	int rc;

	memset(out, 0, sizeof(*out));
	if (c == NULL)
		return pgr_err_nomem(err);
	c->o = opts;
	c->res = out;
	c->chain.say = on_chain;
	c->chain.arg = c;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	rc = run(c, err);
	release(c);
	return rc;
}
