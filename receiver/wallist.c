#include "receiver/wallist.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"
#include "common/sys.h"

static const char *const suffixes[] = {
	[PGR_COMP_NONE] = "",
	[PGR_COMP_GZIP] = ".gz",
	[PGR_COMP_LZ4] = ".lz4",
	[PGR_COMP_ZSTD] = ".zst",
};

struct listing {
	struct pgr_wallist *out;
	size_t cap, hcap;
	void (*leftover)(void *arg, const char *name);
	void *arg;
};

/* The file names of PostgreSQL have upper-case digits only. */
static bool hex8(const char *s, uint32_t *out)
{
	uint64_t v;

	if (strspn(s, "0123456789ABCDEF") < 8 || !pgr_num_hex64(s, 8, &v))
		return false;
	*out = (uint32_t)v;
	return true;
}

static bool starts_as_segment(const char *name)
{
	return strspn(name, "0123456789ABCDEF") == PGR_WALNAME_LEN;
}

static bool parse_segment(const char *name, struct pgr_walentry *e)
{
	const char *rest = name + PGR_WALNAME_LEN;

	if (!starts_as_segment(name) || !hex8(name, &e->tli) || !hex8(name + 8, &e->high) || !hex8(name + 16, &e->low))
		return false;
	e->method = PGR_COMP_NONE;
	for (int m = PGR_COMP_GZIP; m <= PGR_COMP_ZSTD; m++) {
		size_t len = strlen(suffixes[m]);

		if (strncmp(rest, suffixes[m], len) == 0) {
			e->method = (uint8_t)m;
			rest += len;
			break;
		}
	}
	e->partial = strcmp(rest, ".partial") == 0;
	return e->tli != 0 && (e->partial || rest[0] == '\0');
}

static bool parse_history(const char *name, pgr_tli *tli)
{
	return strspn(name, "0123456789ABCDEF") == 8 && strcmp(name + 8, ".history") == 0 && hex8(name, tli) &&
	       *tli != 0;
}

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), s = strlen(suffix);

	return n > s && strcmp(name + n - s, suffix) == 0;
}

static int add_entry(struct listing *l, const struct pgr_walentry *e, struct pgr_err *err)
{
	struct pgr_wallist *out = l->out;

	if (out->n == l->cap) {
		size_t more = l->cap == 0 ? 256 : l->cap * 2;
		struct pgr_walentry *p = reallocarray(out->entries, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		out->entries = p;
		l->cap = more;
	}
	out->entries[out->n++] = *e;
	return PGR_OK;
}

static int add_history(struct listing *l, pgr_tli tli, struct pgr_err *err)
{
	struct pgr_wallist *out = l->out;

	if (out->nhistories == l->hcap) {
		size_t more = l->hcap == 0 ? 16 : l->hcap * 2;
		pgr_tli *p = reallocarray(out->histories, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		out->histories = p;
		l->hcap = more;
	}
	out->histories[out->nhistories++] = tli;
	return PGR_OK;
}

static int take_name(struct listing *l, const char *name, struct pgr_err *err)
{
	struct pgr_walentry e = {0};
	pgr_tli tli;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return PGR_OK;
	if (parse_segment(name, &e))
		return add_entry(l, &e, err);
	if (parse_history(name, &tli))
		return add_history(l, tli, err);
	if (ends_in(name, ".tmp") || (starts_as_segment(name) && !ends_in(name, ".backup")))
		l->leftover(l->arg, name);
	else
		l->out->others++;
	return PGR_OK;
}

static int read_entries(struct listing *l, const struct pgr_sys *sys, DIR *d, const char *dir, struct pgr_err *err)
{
	struct dirent *e;

	for (;;) {
		errno = 0;
		e = sys->readdir(sys, d);
		if (e == NULL)
			break;
		if (take_name(l, e->d_name, err) != PGR_OK)
			return PGR_ERR;
	}
	if (errno != 0)
		return pgr_err_sys(err, errno, "could not read directory \"%s\"", dir);
	return PGR_OK;
}

/* A descriptor of our own: a duplicate would share its reading position with the caller's. */
static int read_directory(struct listing *l, const struct pgr_sys *sys, int dirfd, const char *dir, struct pgr_err *err)
{
	int fd = sys->openat(sys, dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *d;
	int rc;

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", dir);
	d = sys->fdopendir(sys, fd);
	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", dir);
		sys->close(sys, fd);
		return PGR_ERR;
	}
	rc = read_entries(l, sys, d, dir, err);
	if (sys->closedir(sys, d) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", dir);
	return rc;
}

#define COMPARE(a, b)                                                                                                  \
	if ((a) != (b))                                                                                                \
	return (a) < (b) ? -1 : 1

static int compare_entries(const void *pa, const void *pb)
{
	const struct pgr_walentry *a = pa, *b = pb;

	COMPARE(a->high, b->high);
	COMPARE(a->low, b->low);
	COMPARE(a->tli, b->tli);
	COMPARE(a->partial, b->partial);
	COMPARE(a->method, b->method);
	return 0;
}

static int compare_tlis(const void *pa, const void *pb)
{
	const pgr_tli *a = pa, *b = pb;

	COMPARE(*a, *b);
	return 0;
}

int pgr_wallist_read(struct pgr_wallist *out, const struct pgr_sys *sys, int dirfd, const char *dir,
		     void (*leftover)(void *arg, const char *name), void *arg, struct pgr_err *err)
{
	struct listing l = {.out = out, .leftover = leftover, .arg = arg};

	memset(out, 0, sizeof(*out));
	if (read_directory(&l, sys, dirfd, dir, err) != PGR_OK) {
		pgr_wallist_fini(out);
		return PGR_ERR;
	}
	if (out->n > 1)
		qsort(out->entries, out->n, sizeof(*out->entries), compare_entries);
	if (out->nhistories > 1)
		qsort(out->histories, out->nhistories, sizeof(*out->histories), compare_tlis);
	return PGR_OK;
}

void pgr_wallist_fini(struct pgr_wallist *l)
{
	free(l->entries);
	free(l->histories);
	memset(l, 0, sizeof(*l));
}

void pgr_walentry_name(char out[PGR_WALLIST_NAME], const struct pgr_walentry *e)
{
	snprintf(out, PGR_WALLIST_NAME, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%s%s", e->tli, e->high, e->low,
		 suffixes[e->method], e->partial ? ".partial" : "");
}

bool pgr_walentry_segno(const struct pgr_walentry *e, uint32_t segment_bytes, pgr_segno *seg)
{
	uint64_t per_id = (UINT64_C(1) << 32) / segment_bytes;

	*seg = e->high * per_id + e->low;
	return e->low < per_id;
}
