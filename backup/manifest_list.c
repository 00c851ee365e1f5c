#include "backup/manifest_list.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)64 * 1024)

struct pgr_manifest_chunk {
	struct pgr_manifest_chunk *next;
	size_t used;
	char data[CHUNK_BYTES];
};

void pgr_manifest_list_fini(struct pgr_manifest_list *l)
{
	while (l->chunks != NULL) {
		struct pgr_manifest_chunk *next = l->chunks->next;

		free(l->chunks);
		l->chunks = next;
	}
	free(l->files);
	*l = (struct pgr_manifest_list){0};
}

const char *pgr_manifest_list_keep(struct pgr_manifest_list *l, const char *path, size_t len)
{
	struct pgr_manifest_chunk *c = l->chunks;

	_Static_assert(PATH_MAX <= CHUNK_BYTES, "a path fits into a chunk");
	if (c == NULL || len >= CHUNK_BYTES - c->used) {
		c = malloc(sizeof(*c));
		if (c == NULL)
			return NULL;
		c->next = l->chunks;
		c->used = 0;
		l->chunks = c;
	}

	char *copy = c->data + c->used;

	memcpy(copy, path, len);
	copy[len] = '\0';
	c->used += len + 1;
	return copy;
}

int pgr_manifest_list_add(struct pgr_manifest_list *l, const struct pgr_manifest_file *file, struct pgr_err *err)
{
	if (l->n == l->cap) {
		size_t cap = l->cap + l->cap / 2 + 64;
		struct pgr_manifest_file *files = reallocarray(l->files, cap, sizeof(*files));

		if (files == NULL)
			return pgr_err_nomem(err);
		l->files = files;
		l->cap = cap;
	}
	l->files[l->n++] = *file;
	return PGR_OK;
}

static int by_path(const void *a, const void *b)
{
	const struct pgr_manifest_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

/* The name for messages: a hostile one must not reach a terminal. */
static const char *printable(const char *path)
{
	for (const char *p = path; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p == 0x7F)
			return "(unprintable name)";
	return path;
}

int pgr_manifest_list_sort(struct pgr_manifest_list *l, struct pgr_err *err)
{
	if (l->n > 0)
		qsort(l->files, l->n, sizeof(*l->files), by_path);
	for (size_t i = 1; i < l->n; i++)
		if (by_path(&l->files[i - 1], &l->files[i]) == 0)
			return pgr_err_set(err, PGR_E_DATA, "backup manifest lists file \"%s\" twice",
					   printable(l->files[i].path));
	return PGR_OK;
}

const struct pgr_manifest_file *pgr_manifest_list_find(const struct pgr_manifest_list *l, const char *path)
{
	struct pgr_manifest_file wanted = {.path = path};

	return l->n > 0 ? bsearch(&wanted, l->files, l->n, sizeof(*l->files), by_path) : NULL;
}
