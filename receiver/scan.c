#include "receiver/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "receiver/syncer.h"

/* What is told one by one; an archive that is broken from end to end must not fill the log. */
#define MAX_WARNINGS 16

/* The files of a segment.  An archive may hold a million: these 16 bytes are all that is kept of each. */
struct seg {
	pgr_segno seg;
	pgr_tli tli;
	unsigned kinds; /* enum pgr_walscan_kind */
};

struct scan {
	const struct pgr_sys *sys;
	int dirfd; /* the caller's */
	const char *dir;
	uint32_t segment_bytes;
	void (*warn)(void *arg, const char *line);
	void *warn_arg;
	size_t warnings;

	struct seg *segs; /* one a file, in the order of the directory; then one a segment, sorted */
	size_t n, cap;
};

/* ---- the directory ---- */

/* 0: not the name of a segment's file. */
static unsigned kind_of_suffix(const char *suffix)
{
	static const struct {
		const char *suffix;
		unsigned kind;
	} table[] = {
		{"", PGR_WALSCAN_PLAIN},
		{".gz", PGR_WALSCAN_GZIP},
		{".lz4", PGR_WALSCAN_LZ4},
		{".zst", PGR_WALSCAN_ZSTD},
		{".partial", PGR_WALSCAN_PARTIAL},
		{".gz.partial", PGR_WALSCAN_FOREIGN},
		{".lz4.partial", PGR_WALSCAN_FOREIGN},
		{".zst.partial", PGR_WALSCAN_FOREIGN}, /* later versions may write them */
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(suffix, table[i].suffix) == 0)
			return table[i].kind;
	return 0;
}

static void PGR_PRINTF(2, 3) warn(struct scan *s, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (s->warn == NULL || s->warnings++ >= MAX_WARNINGS)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	s->warn(s->warn_arg, line);
}

static void warn_of_the_rest(const struct scan *s)
{
	char line[64];

	if (s->warnings <= MAX_WARNINGS)
		return;
	snprintf(line, sizeof(line), "%zu more segment files were skipped", s->warnings - MAX_WARNINGS);
	s->warn(s->warn_arg, line);
}

static int keep(struct scan *s, struct seg seg, struct pgr_err *err)
{
	if (s->n == s->cap) {
		size_t more = s->cap == 0 ? 256 : s->cap * 2;
		struct seg *p = reallocarray(s->segs, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		s->segs = p;
		s->cap = more;
	}
	s->segs[s->n++] = seg;
	return PGR_OK;
}

static int take_name(struct scan *s, const char *name, struct pgr_err *err)
{
	struct seg seg;

	if (!pgr_walname_parse(name, s->segment_bytes, &seg.tli, &seg.seg))
		return PGR_OK;
	seg.kinds = kind_of_suffix(name + PGR_WALNAME_LEN);
	if (seg.kinds == 0)
		return PGR_OK;
	if (seg.seg >= UINT64_MAX / s->segment_bytes) { /* nothing can come after it */
		warn(s, "segment file \"%s\" is beyond the last WAL position, skipping", name);
		return PGR_OK;
	}
	return keep(s, seg, err);
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

/* ---- from files to segments ---- */

static int compare_segs(const void *pa, const void *pb)
{
	const struct seg *a = pa, *b = pb;

	if (a->seg != b->seg)
		return a->seg < b->seg ? -1 : 1;
	return a->tli < b->tli ? -1 : a->tli > b->tli;
}

static void sort_and_merge(struct scan *s)
{
	size_t n = 0;

	if (s->n == 0)
		return;
	qsort(s->segs, s->n, sizeof(*s->segs), compare_segs);
	for (size_t i = 1; i < s->n; i++) {
		if (compare_segs(&s->segs[n], &s->segs[i]) == 0)
			s->segs[n].kinds |= s->segs[i].kinds;
		else
			s->segs[++n] = s->segs[i];
	}
	s->n = n + 1;
}

static int read_segments(struct scan *s, struct pgr_err *err)
{
	if (!pgr_walseg_valid(s->segment_bytes))
		return pgr_err_set(err, PGR_E_USAGE, "invalid WAL segment size: %u bytes", s->segment_bytes);
	if (read_directory(s, err) != PGR_OK)
		return PGR_ERR;
	sort_and_merge(s);
	return PGR_OK;
}

/* ---- the newest segment ---- */

/*
 * The last four bytes of a gzip file are its content's size (RFC 1952, ISIZE), which is all that pg_receivewal looks at
 * as well.  PGR_MORE: leave it out.
 */
static int check_gzip(struct scan *s, const char *name, off_t size, struct pgr_err *err)
{
	uint8_t b[4] = {0};
	uint32_t isize;
	ssize_t n = 0;
	int fd = s->sys->openat(s->sys, s->dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open compressed file \"%s/%s\"", s->dir, name);
	if (size > (off_t)sizeof(b))
		n = s->sys->pread(s->sys, fd, b, sizeof(b), size - (off_t)sizeof(b));
	if (n < 0)
		pgr_err_sys(err, errno, "could not read compressed file \"%s/%s\"", s->dir, name);
	s->sys->close(s->sys, fd); /* only read */
	if (n < 0)
		return PGR_ERR;
	isize = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
	if (isize == s->segment_bytes)
		return PGR_OK;
	warn(s, "compressed segment file \"%s\" has incorrect uncompressed size %u, skipping", name, isize);
	return PGR_MORE;
}

/* PGR_MORE: leave it out. */
static int check_file(struct scan *s, const struct seg *seg, unsigned kind, const char *suffix, struct pgr_err *err)
{
	char name[PGR_WALNAME_LEN + 16];
	struct stat st;

	pgr_walname_format(name, seg->tli, seg->seg, s->segment_bytes);
	strcat(name, suffix);
	if (s->sys->fstatat(s->sys, s->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno == ENOENT) /* somebody is cleaning the archive up */
			return PGR_MORE;
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", s->dir, name);
	}
	if (!S_ISREG(st.st_mode)) {
		warn(s, "segment file \"%s\" is not a regular file, skipping", name);
		return PGR_MORE;
	}
	if (kind == PGR_WALSCAN_PLAIN ? st.st_size != (off_t)s->segment_bytes : st.st_size == 0) {
		warn(s, "segment file \"%s\" has incorrect size %lld, skipping", name, (long long)st.st_size);
		return PGR_MORE;
	}
	return kind == PGR_WALSCAN_GZIP ? check_gzip(s, name, st.st_size, err) : PGR_OK;
}

/* Takes away what is not what its name says. */
static int check_segment(struct scan *s, struct seg *seg, struct pgr_err *err)
{
	static const struct {
		unsigned kind;
		const char *suffix;
	} files[] = {
		{PGR_WALSCAN_PLAIN, ""},
		{PGR_WALSCAN_GZIP, ".gz"},
		{PGR_WALSCAN_LZ4, ".lz4"},
		{PGR_WALSCAN_ZSTD, ".zst"},
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		int rc;

		if ((seg->kinds & files[i].kind) == 0)
			continue;
		rc = check_file(s, seg, files[i].kind, files[i].suffix, err);
		if (rc == PGR_ERR)
			return PGR_ERR;
		if (rc == PGR_MORE)
			seg->kinds &= ~files[i].kind;
	}
	return PGR_OK;
}

/* Drops segments from the end of the list until the last one is what it seems to be. */
static int find_newest(struct scan *s, struct pgr_err *err)
{
	for (; s->n > 0; s->n--) {
		struct seg *seg = &s->segs[s->n - 1];

		if (check_segment(s, seg, err) != PGR_OK)
			return PGR_ERR;
		if (seg->kinds != 0)
			break;
	}
	warn_of_the_rest(s);
	return PGR_OK;
}

/* ---- conclusions ---- */

static bool is_complete(const struct seg *seg)
{
	return (seg->kinds & PGR_WALSCAN_COMPLETE) != 0;
}

/*
 * Renames that were not synced may survive a power cut in any order (syncer.h): there may be several segments whose
 * names still end in .partial.  Nothing of what follows the first of them was acknowledged, so the stream goes on
 * there.
 */
static pgr_segno find_next(const struct scan *s)
{
	const struct seg *high = &s->segs[s->n - 1];
	pgr_segno next = is_complete(high) ? high->seg + 1 : high->seg;
	pgr_segno first = next;

	for (size_t i = s->n; i-- > 0 && s->segs[i].seg + PGR_SYNCER_QUEUE >= next;) {
		const struct seg *seg = &s->segs[i];

		if (seg->tli == high->tli && !is_complete(seg) && (seg->kinds & PGR_WALSCAN_PARTIAL) != 0)
			first = seg->seg;
	}
	return first;
}

static void add_gap(struct pgr_walscan *out, pgr_tli tli, pgr_segno first, pgr_segno last)
{
	if (out->ngaps < PGR_WALSCAN_MAX_GAPS)
		out->gaps[out->ngaps] = (struct pgr_walscan_gap){.tli = tli, .first = first, .last = last};
	out->ngaps++;
}

/*
 * Walks the segments from the lowest number to where streaming goes on, at `until`.  The timeline of a gap is the
 * lowest one of the segment behind it: when several have that segment, its predecessors belong to the oldest.
 */
static void find_gaps(const struct scan *s, pgr_segno until, struct pgr_walscan *out)
{
	pgr_segno next = s->segs[0].seg;

	for (size_t i = 0; i < s->n; i++) {
		const struct seg *seg = &s->segs[i];

		if (!is_complete(seg))
			continue;
		out->segments++;
		if (seg->seg < next)
			continue; /* the same number on another timeline */
		if (seg->seg > next && next < until)
			add_gap(out, seg->tli, next, (seg->seg < until ? seg->seg : until) - 1);
		next = seg->seg + 1;
	}
	if (until > next)
		add_gap(out, s->segs[s->n - 1].tli, next, until - 1);
}

static void conclude(const struct scan *s, struct pgr_walscan *out)
{
	pgr_segno next;

	for (size_t i = 0; i < s->n; i++)
		out->foreign_partials = out->foreign_partials || (s->segs[i].kinds & PGR_WALSCAN_FOREIGN) != 0;
	if (s->n == 0)
		return;
	next = find_next(s);
	out->found = true;
	out->tli = s->segs[s->n - 1].tli;
	out->start = pgr_segno_start(next, s->segment_bytes);
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
	rc = read_segments(&s, err);
	if (rc == PGR_OK)
		rc = find_newest(&s, err);
	if (rc == PGR_OK)
		conclude(&s, out);
	free(s.segs);
	return rc;
}

/* ---- what is left to compress ---- */

/* The first segment behind those that are compressed and nothing else; s->n when no segment is compressed. */
static size_t find_left(const struct scan *s)
{
	bool any = false;
	size_t i = s->n;

	for (; i > 0; i--) {
		unsigned kinds = s->segs[i - 1].kinds;

		if ((kinds & PGR_WALSCAN_COMPRESSED) == 0)
			continue;
		any = true;
		if ((kinds & PGR_WALSCAN_PLAIN) == 0)
			break;
	}
	return any ? i : s->n;
}

int pgr_walscan_left(const struct pgr_sys *sys, int dirfd, const char *dir, uint32_t segment_bytes, pgr_segno below,
		     int (*fn)(void *arg, pgr_tli tli, pgr_segno seg, unsigned kinds, struct pgr_err *err), void *arg,
		     struct pgr_err *err)
{
	struct scan s = {.sys = sys, .dirfd = dirfd, .dir = dir, .segment_bytes = segment_bytes};
	int rc = read_segments(&s, err);

	if (rc == PGR_OK) {
		size_t first;

		while (s.n > 0 && s.segs[s.n - 1].seg >= below)
			s.n--;
		first = find_left(&s);
		for (size_t i = 0; i < s.n && rc == PGR_OK; i++) {
			const struct seg *seg = &s.segs[i];
			bool left = i >= first && (seg->kinds & PGR_WALSCAN_PLAIN) != 0;
			bool foreign = is_complete(seg) && (seg->kinds & PGR_WALSCAN_FOREIGN) != 0;

			if (left || foreign)
				rc = fn(arg, seg->tli, seg->seg, seg->kinds, err);
		}
	}
	free(s.segs);
	return rc;
}
