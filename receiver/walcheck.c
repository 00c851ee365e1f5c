#include "receiver/walcheck.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "receiver/walbranch.h"
#include "receiver/walfile.h"
#include "receiver/walsurvey.h"

#define BUFFER_BYTES (256u * 1024) /* a multiple of every page size */
#define SLOTS	     32		   /* segments under way or waiting for an earlier one */
#define MAX_THREADS  64

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
	struct pgr_walchain chain;
	struct pgr_walsurvey survey;

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
	uint64_t size = c->survey.page.segment_bytes;
	size_t n;
	int rc = PGR_OK;

	while (rc == PGR_OK && s->bytes < size) {
		size_t cap = size - s->bytes < BUFFER_BYTES ? (size_t)(size - s->bytes) : BUFFER_BYTES;

		rc = pgr_walfile_read(f, buf, cap, &n, err);
		feed(rec, buf, n, c->survey.page.page_bytes);
		s->bytes += n;
	}
	return rc == PGR_OK ? expect_end(f, s, err) : rc;
}

/* A .partial one may end anywhere. */
static void judge_size(const struct check *c, const struct pgr_walentry *e, const struct pgr_walfile *f, struct slot *s)
{
	const char *cut_off = f->cut ? ", the compressed stream is cut off" : "";

	if (e->partial || s->trouble[0] != '\0')
		return;
	if (s->bytes < c->survey.page.segment_bytes)
		snprintf(s->trouble, sizeof(s->trouble), "has %" PRIu64 " bytes%s instead of %" PRIu32 "%s", s->bytes,
			 e->method != PGR_COMP_NONE ? " of WAL" : "", c->survey.page.segment_bytes, cut_off);
	else if (f->cut)
		snprintf(s->trouble, sizeof(s->trouble), "all WAL is there%s", cut_off);
}

static void init_record_reader(const struct check *c, const struct pgr_walentry *e, pgr_segno seg, struct slot *s,
			       struct pgr_walrec *rec)
{
	const struct pgr_waltimeline *t = pgr_walchain_find(&c->chain, e->tli);
	struct pgr_walrec_opts o = {.page = c->survey.page, .problem = on_problem, .arg = s};

	o.page.addr = pgr_segno_start(seg, c->survey.page.segment_bytes);
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
	(void)pgr_walentry_segno(e, c->survey.page.segment_bytes, &seg); /* others were left out before */
	rc = pgr_walfile_open(&f, c->o->sys, c->o->dirfd, name, e->method, err);
	if (rc == PGR_OK) {
		init_record_reader(c, e, seg, s, &rec);
		rc = read_segment(c, &f, &rec, s, buf, err);
		pgr_walrec_finish(&rec, &s->sum);
		s->readable = true;
		if (rc != PGR_ERR)
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

	(void)pgr_walentry_segno(e, c->survey.page.segment_bytes, &seg);
	tell_file(c, e, s);
	pgr_walchain_add(&c->chain, e, seg, s->readable ? &s->sum : NULL);
	if (e->partial)
		c->res->partials++;
	else
		c->res->segments++;
	c->res->bytes += s->bytes;
	c->res->records += s->sum.records;
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

/* ---- the whole ---- */

static int prepare(struct check *c, struct pgr_err *err)
{
	pgr_segno first;

	if (pgr_wallist_read(&c->list, c->o->sys, c->o->dirfd, c->o->dir, on_leftover, c, err) != PGR_OK ||
	    pgr_walsurvey(&c->survey, err) != PGR_OK)
		return PGR_ERR;
	c->res->timelines = c->chain.n;
	c->res->segment_bytes = c->survey.page.segment_bytes;
	c->res->system_id = c->survey.page.system_id;
	if (c->survey.page.system_id != 0)
		c->res->version = pgr_walpage_version(c->survey.page.magic);
	if (c->list.n == 0)
		return PGR_OK;
	(void)pgr_walentry_segno(&c->list.entries[0], c->res->segment_bytes, &first);
	c->res->begin = pgr_segno_start(first, c->res->segment_bytes);
	return PGR_OK;
}

static int run(struct check *c, struct pgr_err *err)
{
	int rc = prepare(c, err);

	if (rc != PGR_OK)
		return rc;
	rc = c->o->threads > 0 ? check_with_threads(c, c->o->threads, err) : check_inline(c, err);
	if (rc != PGR_OK)
		return rc;
	rc = pgr_walbranch_compare(&c->survey, err);
	pgr_walchain_finish(&c->chain);
	if (c->list.n > 0)
		c->res->end = pgr_walchain_find(&c->chain, c->list.entries[c->list.n - 1].tli)->to;
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
	c->survey = (struct pgr_walsurvey){
		.sys = opts->sys, .dirfd = opts->dirfd, .dir = opts->dir, .list = &c->list, .chain = &c->chain};
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	rc = run(c, err);
	release(c);
	return rc;
}
