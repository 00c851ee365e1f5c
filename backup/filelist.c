#include "backup/filelist.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/exclude.h"
#include "common/path.h"

#define CONTROL_FILE "global/pg_control"

/* A server with a thousand databases has a million files; what claims much more is not believed. */
#define ENTRIES_MAX ((size_t)1 << 28)

void pgr_filelist_fini(struct pgr_filelist *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->entries[i].path);
	free(l->entries);
	memset(l, 0, sizeof(*l));
}

/* ---- names in messages ---- */

/* Bytes of the UTF-8 character at s, which may be printed; 0: none.  Strict, and without C1 controls. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
	uint32_t c = s[0] & (0x7Fu >> n);
	static const uint32_t least[] = {0, 0, 0xA0, 0x800, 0x10000};

	if (s[0] < 0xC2 || s[0] > 0xF4 || left < n)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3F);
	}
	return c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) ? 0 : n;
}

struct pgr_shown_path pgr_show_path(const char *path, size_t len)
{
	static const char more[] = "...";
	struct pgr_shown_path out;
	size_t at = 0, i = 0;

	while (i < len && at + 4 + sizeof(more) <= sizeof(out.text)) {
		const unsigned char *s = (const unsigned char *)path + i;
		size_t n = s[0] >= 0x20 && s[0] < 0x7F ? 1 : utf8_len(s, len - i);

		if (n > 0)
			memcpy(out.text + at, s, n);
		else
			snprintf(out.text + at, 5, "\\x%02X", s[0]);
		at += n > 0 ? n : 4;
		i += n > 0 ? n : 1;
	}
	strcpy(out.text + at, i < len ? more : "");
	return out;
}

/* ---- adding ---- */

static int unsafe(const char *path, size_t len, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "the server listed a file with the unsafe name \"%s\"",
			   pgr_show_path(path, len).text);
}

static int copy_path(char **out, const char *path, size_t len, struct pgr_err *err)
{
	*out = NULL;
	if (len == 0 || len >= PATH_MAX || memchr(path, '\0', len) != NULL || path[len - 1] == '/')
		return unsafe(path, len, err);
	*out = strndup(path, len);
	if (*out == NULL)
		return pgr_err_nomem(err);
	return pgr_path_is_safe(*out) ? PGR_OK : unsafe(path, len, err);
}

static int reserve(struct pgr_filelist *l, struct pgr_err *err)
{
	size_t cap = l->cap > 0 ? l->cap * 2 : 1024;
	struct pgr_list_entry *grown;

	if (l->n < l->cap)
		return PGR_OK;
	if (l->n >= ENTRIES_MAX)
		return pgr_err_set(err, PGR_E_DATA, "the server lists more than %zu files", ENTRIES_MAX);
	grown = reallocarray(l->entries, cap, sizeof(*grown));
	if (grown == NULL)
		return pgr_err_nomem(err);
	l->entries = grown;
	l->cap = cap;
	return PGR_OK;
}

/* Takes the path, or leaves it to the caller: PGR_MORE. */
static int add(struct pgr_filelist *l, char *path, bool is_dir, uint64_t size, int64_t mtime, struct pgr_err *err)
{
	if (pgr_exclude_entry(l->server_version, path, is_dir) == PGR_EXCLUDE)
		return PGR_MORE;
	if (strcmp(path, CONTROL_FILE) == 0) {
		l->has_control = !is_dir;
		return PGR_MORE;
	}
	if (is_dir)
		size = 0;
	if (size > INT64_MAX || l->total_bytes > INT64_MAX - size)
		return pgr_err_set(err, PGR_E_DATA, "the server listed file \"%s\" with an impossible size",
				   pgr_show_path(path, strlen(path)).text);
	if (reserve(l, err) != PGR_OK)
		return PGR_ERR;
	l->entries[l->n++] = (struct pgr_list_entry){.path = path, .size = size, .mtime = mtime, .is_dir = is_dir};
	l->total_bytes += size;
	return PGR_OK;
}

int pgr_filelist_add(struct pgr_filelist *l, int server_version, const char *path, size_t len, bool is_dir,
		     uint64_t size, int64_t mtime, struct pgr_err *err)
{
	char *copy;
	int rc = copy_path(&copy, path, len, err);

	l->server_version = server_version;
	if (rc == PGR_OK)
		rc = add(l, copy, is_dir, size, mtime, err);
	if (rc != PGR_OK)
		free(copy);
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

/* ---- finishing ---- */

static int by_path(const void *a, const void *b)
{
	const struct pgr_list_entry *x = a, *y = b;

	return strcmp(x->path, y->path);
}

const struct pgr_list_entry *pgr_filelist_find(const struct pgr_filelist *l, const char *path)
{
	struct pgr_list_entry key = {.path = (char *)(uintptr_t)path};

	return l->n > 0 ? bsearch(&key, l->entries, l->n, sizeof(key), by_path) : NULL;
}

/* Removes the entries that `drop` says, keeping the order. */
static void sift(struct pgr_filelist *l, const bool *drop)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (drop[i]) {
			l->total_bytes -= l->entries[i].size;
			free(l->entries[i].path);
		} else {
			l->entries[kept++] = l->entries[i];
		}
	}
	l->n = kept;
}

/* Of a sorted list.  The first of two that have one name stays. */
static void mark_twins(const struct pgr_filelist *l, bool *drop)
{
	for (size_t i = 1; i < l->n; i++)
		drop[i] = strcmp(l->entries[i - 1].path, l->entries[i].path) == 0;
}

/* A relation is unlogged when its init fork is there; its other forks are made anew when the server starts. */
static void mark_unlogged(const struct pgr_filelist *l, bool *drop)
{
	char init[PATH_MAX + PGR_INIT_FORK_MAX];

	for (size_t i = 0; i < l->n; i++) {
		const struct pgr_list_entry *e = &l->entries[i];
		const char *slash = strrchr(e->path, '/');
		size_t dir = slash != NULL ? (size_t)(slash - e->path) + 1 : 0;

		if (e->is_dir || !pgr_exclude_unlogged(l->server_version, e->path, init + dir))
			continue;
		memcpy(init, e->path, dir);
		drop[i] = drop[i] || pgr_filelist_find(l, init) != NULL;
	}
}

static int check_parents(const struct pgr_filelist *l, struct pgr_err *err)
{
	char dir[PATH_MAX];

	dir[0] = '\0';
	for (size_t i = 0; i < l->n; i++) {
		const char *path = l->entries[i].path;
		const char *slash = strrchr(path, '/');
		size_t n = slash != NULL ? (size_t)(slash - path) : 0;
		const struct pgr_list_entry *parent;

		/* Neighbours mostly have one directory. */
		if (n == 0 || (strlen(dir) == n && memcmp(dir, path, n) == 0))
			continue;
		memcpy(dir, path, n);
		dir[n] = '\0';
		parent = pgr_filelist_find(l, dir);
		if (parent == NULL || !parent->is_dir)
			return pgr_err_set(err, PGR_E_DATA, "the server listed file \"%s\", but no directory for it",
					   pgr_show_path(path, strlen(path)).text);
	}
	return PGR_OK;
}

int pgr_filelist_finish(struct pgr_filelist *l, struct pgr_err *err)
{
	bool *drop;

	if (l->n == 0)
		return PGR_OK;
	drop = calloc(l->n, sizeof(*drop));
	if (drop == NULL)
		return pgr_err_nomem(err);
	qsort(l->entries, l->n, sizeof(*l->entries), by_path);
	mark_twins(l, drop);
	sift(l, drop);
	memset(drop, 0, l->n * sizeof(*drop));
	mark_unlogged(l, drop);
	sift(l, drop);
	free(drop);
	return check_parents(l, err);
}

void pgr_filelist_leave_empty(struct pgr_filelist *l, const char *dir)
{
	size_t n = strlen(dir), kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct pgr_list_entry *e = &l->entries[i];

		if (strncmp(e->path, dir, n) == 0 && e->path[n] == '/') {
			l->total_bytes -= e->size;
			free(e->path);
		} else {
			l->entries[kept++] = *e;
		}
	}
	l->n = kept;
}
