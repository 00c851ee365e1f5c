#include "backup/arrivals.h"

#include <stdlib.h>
#include <string.h>

#include "backup/filelist.h"
#include "backup/manifest.h"

void pgr_arrivals_fini(struct pgr_arrivals *a)
{
	while (a->first != NULL) {
		struct pgr_arrival *next = a->first->next;

		free(a->first);
		a->first = next;
	}
	*a = (struct pgr_arrivals){0};
}

int pgr_arrivals_add(struct pgr_arrivals *a, const char *path, bool is_dir, uint64_t size, int64_t mtime,
		     struct pgr_arrival **out, struct pgr_err *err)
{
	size_t n = strlen(path) + 1;
	struct pgr_arrival *e = calloc(1, sizeof(*e) + n);

	*out = NULL;
	if (e == NULL)
		return pgr_err_nomem(err);
	memcpy(e->path, path, n);
	e->is_dir = is_dir;
	e->mtime = mtime;
	e->got.size = size;
	if (a->last != NULL)
		a->last->next = e;
	else
		a->first = e;
	a->last = e;
	a->n++;
	*out = e;
	return PGR_OK;
}

int pgr_arrivals_list(const struct pgr_arrivals *a, int server_version, struct pgr_filelist *out, struct pgr_err *err)
{
	for (const struct pgr_arrival *e = a->first; e != NULL; e = e->next)
		if (pgr_filelist_add(out, server_version, e->path, strlen(e->path), e->is_dir, e->got.size, e->mtime,
				     err) != PGR_OK)
			return PGR_ERR;
	return pgr_filelist_finish(out, err);
}

int pgr_arrivals_manifest(const struct pgr_arrivals *a, struct pgr_manifest_writer *w, enum pgr_digest_algo algo,
			  struct pgr_err *err)
{
	for (const struct pgr_arrival *e = a->first; e != NULL; e = e->next)
		if (!e->is_dir && !e->unlisted &&
		    pgr_manifest_add_file(w, e->path, e->got.size, e->mtime, algo, e->got.sum, e->got.sum_len, err) !=
			    PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}
