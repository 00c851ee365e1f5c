#include "backup/wal_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/source.h"
#include "backup/tar_out.h"
#include "common/sys.h"

#define STATUS_DIR "archive_status"

/* What the stock tool gives every member, whatever the files' own modes are (tar_open_for_write). */
#define MEMBER_MODE 0600

struct names {
	char **list;
	size_t n, room;
};

/* ---- what there is ---- */

static void names_fini(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
}

static int add_name(struct names *names, const char *name, struct pgr_err *err)
{
	if (names->n == names->room) {
		size_t room = names->room * 2 + 64;
		char **list = realloc(names->list, room * sizeof(*list));

		if (list == NULL)
			return pgr_err_nomem(err);
		names->list = list;
		names->room = room;
	}
	names->list[names->n] = strdup(name);
	if (names->list[names->n] == NULL)
		return pgr_err_nomem(err);
	names->n++;
	return PGR_OK;
}

static int read_names(const struct pgr_sys *sys, DIR *d, const char *where, struct names *names, struct pgr_err *err)
{
	struct dirent *de;

	while ((de = sys->readdir(sys, d)) != NULL) {
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
		    strcmp(de->d_name, STATUS_DIR) == 0)
			continue;
		if (add_name(names, de->d_name, err) != PGR_OK)
			return PGR_ERR;
	}
	return errno == 0 ? PGR_OK : pgr_err_sys(err, errno, "could not read directory \"%s\"", where);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(const struct pgr_sys *sys, int dirfd, const char *where, struct names *names, struct pgr_err *err)
{
	int fd = sys->openat(sys, dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	DIR *d = fd >= 0 ? sys->fdopendir(sys, fd) : NULL;
	int rc;

	if (d == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", where);
		if (fd >= 0)
			(void)sys->close(sys, fd);
		return PGR_ERR;
	}
	rc = read_names(sys, d, where, names, err);
	if (sys->closedir(sys, d) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", where);
	if (rc == PGR_OK && names->n > 0)
		qsort(names->list, names->n, sizeof(*names->list), by_name);
	return rc;
}

/* ---- one file ---- */

/* A file as a source. */
struct file {
	struct pgr_source source; /* first */
	const struct pgr_sys *sys;
	int fd;
	char path[2 * PATH_MAX];
};

static int file_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct file *f = (struct file *)s;
	ssize_t got;

	do
		got = f->sys->read(f->sys, f->fd, dst, cap);
	while (got < 0 && errno == EINTR);
	*n = got > 0 ? (size_t)got : 0;
	return got >= 0 ? PGR_OK : pgr_err_sys(err, errno, "could not read file \"%s\"", f->path);
}

static int copy_file(struct file *f, const char *name, struct pgr_tar_out *out, struct pgr_err *err)
{
	uint64_t copied;
	struct stat st;

	if (f->sys->fstat(f->sys, f->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", f->path);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"%s\" is not a regular file", f->path);
	if (pgr_tar_out_head(out, name, MEMBER_MODE, (uint64_t)st.st_size, err) != PGR_OK ||
	    pgr_tar_out_copy(out, &f->source, &copied, err) != PGR_OK)
		return PGR_ERR;
	if (copied != (uint64_t)st.st_size)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" changed its size while it was read", f->path);
	return pgr_tar_out_pad(out, copied, err);
}

static int pack_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_tar_out *out,
		     struct pgr_err *err)
{
	struct file f = {.source = {.read = file_read}, .sys = sys};
	int rc;

	snprintf(f.path, sizeof(f.path), "%s/%s", where, name);
	f.fd = sys->openat(sys, dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
	if (f.fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", f.path);
	rc = copy_file(&f, name, out, err);
	if (sys->close(sys, f.fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", f.path);
	return rc;
}

static int remove_file(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_err *err)
{
	if (sys->unlinkat(sys, dirfd, name, 0) != 0)
		return pgr_err_sys(err, errno, "could not remove file \"%s/%s\"", where, name);
	return PGR_OK;
}

/* The marker that the segment need not be archived again; not every file has one. */
static int pack_done(const struct pgr_sys *sys, int dirfd, const char *where, const char *name, struct pgr_tar_out *out,
		     struct pgr_err *err)
{
	char done[NAME_MAX + 32];
	struct stat st;

	snprintf(done, sizeof(done), STATUS_DIR "/%.*s.done", NAME_MAX, name);
	if (sys->fstatat(sys, dirfd, done, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT ? PGR_OK : pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", where, done);
	if (pgr_tar_out_member(out, done, MEMBER_MODE, "", 0, err) != PGR_OK)
		return PGR_ERR;
	return remove_file(sys, dirfd, where, done, err);
}

int pgr_wal_pack(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_tar_out *out, struct pgr_err *err)
{
	struct names names = {0};
	int rc = list_names(sys, dirfd, where, &names, err);

	for (size_t i = 0; i < names.n && rc == PGR_OK; i++) {
		rc = pack_file(sys, dirfd, where, names.list[i], out, err);
		if (rc == PGR_OK)
			rc = remove_file(sys, dirfd, where, names.list[i], err);
		if (rc == PGR_OK)
			rc = pack_done(sys, dirfd, where, names.list[i], out, err);
	}
	names_fini(&names);
	return rc;
}
