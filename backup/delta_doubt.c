#include "backup/delta_doubt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/keep.h"
#include "backup/localtree.h"
#include "common/sys.h"

/* Whether it is empty or its last byte a zero, as of a file whose bytes had not come to the disk.  PGR_MORE: it is not.
 */
static int ends_in_zero(const struct pgr_delta_doubt *d, const struct pgr_local_entry *e, struct pgr_err *err)
{
	char last = 'x';
	ssize_t n;
	int fd;

	if (e->size == 0)
		return PGR_OK;
	if (pgr_localtree_open(d->sys, d->layout, e->path, &fd, err) != PGR_OK)
		return PGR_ERR;
	do
		n = d->sys->pread(d->sys, fd, &last, 1, (off_t)e->size - 1);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		pgr_err_sys(err, errno, "could not read file \"%s\"", e->path);
	(void)d->sys->close(d->sys, fd); /* it was only read */
	if (n < 0)
		return PGR_ERR;
	return last == '\0' ? PGR_OK : PGR_MORE;
}

static int fetch_anew(struct pgr_delta_plan *p, const struct pgr_delta_doubt *d, const struct pgr_local_entry *e,
		      const struct pgr_list_entry *listed, struct pgr_err *err)
{
	char **more = reallocarray(p->removals, p->nremovals + 1, sizeof(*more));

	if (more == NULL)
		return pgr_err_nomem(err);
	p->removals = more;
	more[p->nremovals] = strdup(e->path);
	if (more[p->nremovals] == NULL)
		return pgr_err_nomem(err);
	p->nremovals++;
	p->removal_bytes += e->size;
	if (listed == NULL)
		return PGR_OK;
	p->files[listed - d->list->entries] = (struct pgr_delta_file){PGR_DELTA_FETCH, 0};
	p->nkeep--;
	p->nfetch++;
	p->fetch_bytes += listed->size;
	return PGR_OK;
}

static bool is_planned_to_stay(const struct pgr_delta_plan *p, const struct pgr_delta_doubt *d,
			       const struct pgr_list_entry *listed)
{
	return listed != NULL && !listed->is_dir && p->files[listed - d->list->entries].action == PGR_DELTA_KEEP;
}

int pgr_delta_doubt_kept(const struct pgr_delta_doubt *d, struct pgr_delta_plan *plan, struct pgr_err *err)
{
	/* every server has those; of others the server may have nothing, and an empty one be somebody's mark */
	const struct pgr_keep defaults = {.no_defaults = d->keep->no_defaults};
	const struct pgr_keep *keep = d->list != NULL ? d->keep : &defaults;

	for (size_t i = 0; i < d->tree->n; i++) {
		const struct pgr_local_entry *e = &d->tree->entries[i];
		const struct pgr_list_entry *listed = NULL;
		int rc;

		if (e->type != PGR_LOCAL_FILE || !pgr_keep_matches(keep, e->path))
			continue;
		if (d->list != NULL) {
			listed = pgr_filelist_find(d->list, e->path);
			if (!is_planned_to_stay(plan, d, listed))
				continue;
		}
		rc = ends_in_zero(d, e, err);
		if (rc == PGR_OK)
			rc = fetch_anew(plan, d, e, listed, err);
		if (rc == PGR_ERR)
			return PGR_ERR;
	}
	return PGR_OK;
}
