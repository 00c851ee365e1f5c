#include "backup/finish.h"

#include <errno.h>
#include <fcntl.h>

#include "backup/layout.h"
#include "common/fs_durable.h"
#include "common/sys.h"

int pgr_finish_sync(struct pgr_layout *l, enum pgr_sync_method method, struct pgr_err *err)
{
	if (method == PGR_SYNC_SYNCFS)
		return pgr_layout_syncfs(l, err);
	return pgr_layout_sync(l, false, err);
}

int pgr_finish_control(const struct pgr_sys *sys, struct pgr_layout *l, const struct pgr_buf *control, bool sync,
		       struct pgr_err *err)
{
	int root = pgr_layout_root(l, 0);
	int dir = sys->openat(sys, root, "global", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	int rc;

	if (dir < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s/global\"", pgr_layout_data_dir(l));
	rc = pgr_fs_write_file(sys, dir, "global", "pg_control", ".tmp", control->data, control->len,
			       pgr_layout_file_mode(l), sync, err);
	if (sys->close(sys, dir) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s/global\"", pgr_layout_data_dir(l));
	return rc;
}

int pgr_finish_manifest(const struct pgr_sys *sys, struct pgr_layout *l, bool sync, struct pgr_err *err)
{
	int root = pgr_layout_root(l, 0);

	/* the file itself was synced when it was closed */
	if (sync)
		return pgr_fs_durable_rename(sys, root, pgr_layout_data_dir(l), -1, PGR_MANIFEST_TMP, PGR_MANIFEST_NAME,
					     err);
	if (sys->renameat(sys, root, PGR_MANIFEST_TMP, root, PGR_MANIFEST_NAME) != 0)
		return pgr_err_sys(err, errno, "could not rename file \"%s/%s\" to \"%s\"", pgr_layout_data_dir(l),
				   PGR_MANIFEST_TMP, PGR_MANIFEST_NAME);
	return PGR_OK;
}
