/*
 * The directory in which a lane opened its last file: the next one is often there, too.
 */
#ifndef PGR_BACKUP_LANE_DIR_H
#define PGR_BACKUP_LANE_DIR_H

#include <stddef.h>

#include "common/err.h"

struct pgr_layout;
struct pgr_sys;

/* Of one thread. */
struct pgr_lane_dir {
	int fd; /* -1 */
	int root;
	char *path;
	size_t len;
};
#define PGR_LANE_DIR_INIT ((struct pgr_lane_dir){.fd = -1})
void pgr_lane_dir_fini(struct pgr_lane_dir *d, const struct pgr_sys *sys);

/* Opens the directory that holds `path`, as the manifest writes it: d->fd, until the next call.  `leaf` points into the
 * path. */
int pgr_lane_dir_enter(struct pgr_lane_dir *d, const struct pgr_sys *sys, const struct pgr_layout *layout,
		       const char *path, const char **leaf, struct pgr_err *err) PGR_MUST_USE;

#endif
