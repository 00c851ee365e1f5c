#include "backup/lane_dir.h"

#include <stdlib.h>
#include <string.h>

#include "backup/layout.h"
#include "common/fs_dir.h"
#include "common/sys.h"

void pgr_lane_dir_fini(struct pgr_lane_dir *d, const struct pgr_sys *sys)
{
	if (d->fd >= 0)
		(void)sys->close(sys, d->fd); /* nothing was written through it */
	free(d->path);
	*d = PGR_LANE_DIR_INIT;
}

static size_t parent_len(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? 0 : (size_t)(slash - path);
}

int pgr_lane_dir_enter(struct pgr_lane_dir *d, const struct pgr_sys *sys, const struct pgr_layout *layout,
		       const char *path, const char **leaf, struct pgr_err *err)
{
	const char *rest;
	size_t len;
	int root;

	pgr_layout_resolve(layout, path, &root, &rest);
	len = parent_len(rest);
	if (d->fd >= 0 && d->root == root && d->len == len && strncmp(d->path, rest, len) == 0) {
		*leaf = rest + len + (len > 0);
		return PGR_OK;
	}
	pgr_lane_dir_fini(d, sys);
	d->path = strndup(rest, len);
	if (d->path == NULL)
		return pgr_err_nomem(err);
	d->root = root;
	d->len = len;
	return pgr_fs_open_parent(sys, root, rest, &d->fd, leaf, err);
}
