#include "receiver/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "receiver/syncer.h"

/* What a name says. */
struct seg_name {
	pgr_segno seg;
	pgr_tli tli;
	bool partial;
	bool compressed;
};

/* A segment.  An archive may hold a million of them: this is all that is kept of each. */
struct seg {
	pgr_segno seg;
	pgr_tli tli;
};

struct seg_list {
	struct seg *segs;
	size_t n, cap;
};

struct scan {
	const struct pgr_sys *sys;
	int dirfd; /* the caller's */
	const char *dir;
	uint32_t segment_bytes;
	void (*warn)(void *arg, const char *line);
	void *warn_arg;

	struct seg_list whole;	  /* complete ones, in the order of the directory, sorted at the end */
	struct seg_list partials; /* the others; of these there are few */
	bool found;		  /* of all, .partial ones too: */
	pgr_segno low;
	struct seg_name high;
};

/* The suffixes of pg_receivewal's files, and .zst, which later versions may have written. */
static bool parse_name(const char *name, uint32_t segment_bytes, struct seg_name *out)
{
	static const char *const compressed[] = {".gz", ".lz4", ".zst"};
	const char *rest;

	if (!pgr_walname_parse(name, segment_bytes, &out->tli, &out->seg))
		return false;
	rest = name + PGR_WALNAME_LEN;
	out->compressed = false;
	for (size_t i = 0; i < sizeof(compressed) / sizeof(compressed[0]); i++) {
		size_t len = strlen(compressed[i]);

		if (strncmp(rest, compressed[i], len) == 0) {
			out->compressed = true;
			rest += len;
			break;
		}
	}
	out->partial = strcmp(rest, ".partial") == 0;
	return out->partial || rest[0] == '\0';
}

static void PGR_PRINTF(2, 3) warn(const struct scan *s, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (s->warn == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	s->warn(s->warn_arg, line);
}

/*
 * PGR_MORE: leave it out.  Complete segments are all looked at, not only the last ones: one that was cut short in the
 * middle of an archive is a gap that somebody should hear of before it is needed.
 */
static int check_size(const struct scan *s, const char *name, struct pgr_err *err)
{
	struct stat st;

	if (s->sys->fstatat(s->sys, s->dirfd, name, &st, 0) != 0) {
		if (errno == ENOENT) /* somebody is cleaning the archive up */
			return PGR_MORE;
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", s->dir, name);
	}
	if (!S_ISREG(st.st_mode)) {
		warn(s, "segment file \"%s\" is not a regular file, skipping", name);
		return PGR_MORE;
	}
	if (st.st_size != (off_t)s->segment_bytes) {
		warn(s, "segment file \"%s\" has incorrect size %lld, skipping", name, (long long)st.st_size);
		return PGR_MORE;
	}
	return PGR_OK;
}

static int keep(struct seg_list *l, const struct seg_name *name, struct pgr_err *err)
{
	if (l->n == l->cap) {
		size_t more = l->cap == 0 ? 256 : l->cap * 2;
		struct seg *p = reallocarray(l->segs, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		l->segs = p;
		l->cap = more;
	}
	l->segs[l->n++] = (struct seg){.seg = name->seg, .tli = name->tli};
	return PGR_OK;
}

/* Whether `a` is further than `b`: number, then timeline, then completeness. */
static bool is_higher(const struct seg_name *a, const struct seg_name *b)
{
	if (a->seg != b->seg)
		return a->seg > b->seg;
	if (a->tli != b->tli)
		return a->tli > b->tli;
	return b->partial && !a->partial;
}

static int take_name(struct scan *s, const char *text, struct pgr_err *err)
{
	struct seg_name name;
	int rc = PGR_OK;

	if (!parse_name(text, s->segment_bytes, &name))
		return PGR_OK;
	if (name.seg >= UINT64_MAX / s->segment_bytes) { /* nothing can come after it */
		warn(s, "segment file \"%s\" is beyond the last WAL position, skipping", text);
		return PGR_OK;
	}
	if (!name.partial && !name.compressed)
		rc = check_size(s, text, err);
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (!s->found || is_higher(&name, &s->high))
		s->high = name;
	if (!s->found || name.seg < s->low)
		s->low = name.seg;
	s->found = true;
	return keep(name.partial ? &s->partials : &s->whole, &name, err);
}

static int read_entries(struct scan *s, DIR *d, struct pgr_err *err)
{
	struct dirent *e;

	for (;;) {
		errno = 0;
		e = s->sys->readdir(s->sys, d);
		if (e == NULL)
			break;
		if (take_name(s, e->d_name, err) != PGR_OK)
			return PGR_ERR;
	}
	if (errno != 0)
		return pgr_err_sys(err, errno, "could not read directory \"%s\"", s->dir);
	return PGR_OK;
}

/* A descriptor of our own: a duplicate would share its reading position with the caller's. */
static int read_directory(struct scan *s, struct pgr_err *err)
{
	int fd = s->sys->openat(s->sys, s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *d;
	int rc;

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", s->dir);
	d = s->sys->fdopendir(s->sys, fd);
	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", s->dir);
		s->sys->close(s->sys, fd);
		return PGR_ERR;
	}
	rc = read_entries(s, d, err);
	if (s->sys->closedir(s->sys, d) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", s->dir);
	return rc;
}

static int compare_segs(const void *pa, const void *pb)
{
	const struct seg *a = pa, *b = pb;

	if (a->seg != b->seg)
		return a->seg < b->seg ? -1 : 1;
	return a->tli < b->tli ? -1 : a->tli > b->tli;
}

static bool has(const struct seg_list *l, pgr_segno seg, pgr_tli tli)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->segs[i].seg == seg && l->segs[i].tli == tli)
			return true;
	return false;
}

static bool has_whole(const struct scan *s, pgr_segno seg, pgr_tli tli)
{
	const struct seg key = {.seg = seg, .tli = tli};

	return s->whole.n > 0 && bsearch(&key, s->whole.segs, s->whole.n, sizeof(key), compare_segs) != NULL;
}

/*
 * Segments get their final names behind the one that is written to (syncer.h): a run that was killed may have left some
 * whose names still end in .partial.  None of what follows the first of them was acknowledged, so the stream goes on
 * there.
 */
static pgr_segno find_next(const struct scan *s)
{
	pgr_segno next = s->high.partial ? s->high.seg : s->high.seg + 1;
	pgr_segno first = next;

	for (pgr_segno back = 1; back <= PGR_SYNCER_QUEUE && back <= next; back++)
		if (has(&s->partials, next - back, s->high.tli) && !has_whole(s, next - back, s->high.tli))
			first = next - back;
	return first;
}

static void add_gap(struct pgr_walscan *out, pgr_tli tli, pgr_segno first, pgr_segno last)
{
	if (out->ngaps < PGR_WALSCAN_MAX_GAPS)
		out->gaps[out->ngaps] = (struct pgr_walscan_gap){.tli = tli, .first = first, .last = last};
	out->ngaps++;
}

/*
 * Walks the sorted segments from the lowest number to where streaming goes on, at `until`.  The timeline of a gap is
 * the lowest one of the segment behind it: when several have that segment, its predecessors belong to the oldest.
 */
static void find_gaps(const struct scan *s, pgr_segno until, struct pgr_walscan *out)
{
	pgr_segno next = s->low;

	for (size_t i = 0; i < s->whole.n; i++) {
		const struct seg *seg = &s->whole.segs[i];

		if (seg->seg < next)
			continue; /* the same number on another timeline */
		if (seg->seg > next && next < until)
			add_gap(out, seg->tli, next, (seg->seg < until ? seg->seg : until) - 1);
		next = seg->seg + 1;
	}
	if (until > next)
		add_gap(out, s->high.tli, next, until - 1);
}

static void conclude(struct scan *s, struct pgr_walscan *out)
{
	pgr_segno next;

	if (!s->found)
		return;
	if (s->whole.n > 1)
		qsort(s->whole.segs, s->whole.n, sizeof(*s->whole.segs), compare_segs);
	next = find_next(s);
	out->found = true;
	out->tli = s->high.tli;
	out->start = pgr_segno_start(next, s->segment_bytes);
	out->segments = s->whole.n;
	find_gaps(s, next, out);
}

int pgr_walscan(const struct pgr_sys *sys, int dirfd, const char *dir, uint32_t segment_bytes,
		void (*warn_fn)(void *arg, const char *line), void *warn_arg, struct pgr_walscan *out,
		struct pgr_err *err)
{
	struct scan s = {
		.sys = sys,
		.dirfd = dirfd,
		.dir = dir,
		.segment_bytes = segment_bytes,
		.warn = warn_fn,
		.warn_arg = warn_arg,
	};
	int rc;

	memset(out, 0, sizeof(*out));
	if (!pgr_walseg_valid(segment_bytes))
		return pgr_err_set(err, PGR_E_USAGE, "invalid WAL segment size: %u bytes", segment_bytes);
	rc = read_directory(&s, err);
	if (rc == PGR_OK)
		conclude(&s, out);
	free(s.whole.segs);
	free(s.partials.segs);
	return rc;
}
