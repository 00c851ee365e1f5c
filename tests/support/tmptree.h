/*
 * A directory for one test: made, looked at, and removed with everything in it.  Failures end the test.
 */
#ifndef PGR_TESTS_TMPTREE_H
#define PGR_TESTS_TMPTREE_H

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tmptree {
	char path[64];
	char joined[4][PATH_MAX]; /* results of tmp_at, used in turn */
	unsigned turn;
};

static inline void tmp_make(struct tmptree *t)
{
	memset(t, 0, sizeof(*t));
	snprintf(t->path, sizeof(t->path), "%s/pgr-test-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(t->path));
}

static inline int tmp_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void tmp_remove(struct tmptree *t)
{
	ck_assert_int_eq(nftw(t->path, tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The path of a name below the directory; valid for the next three calls. */
static inline const char *tmp_at(struct tmptree *t, const char *name)
{
	char *p = t->joined[t->turn++ % 4];
	size_t n = strlen(t->path);

	ck_assert_uint_lt(n + strlen(name) + 2, PATH_MAX);
	memcpy(p, t->path, n);
	if (name[0] != '\0')
		p[n++] = '/';
	memcpy(p + n, name, strlen(name) + 1);
	return p;
}

static inline void tmp_mkdir(struct tmptree *t, const char *name, mode_t mode)
{
	ck_assert_int_eq(mkdir(tmp_at(t, name), 0700), 0);
	ck_assert_int_eq(chmod(tmp_at(t, name), mode), 0);
}

static inline void tmp_write(struct tmptree *t, const char *name, const char *text)
{
	FILE *f = fopen(tmp_at(t, name), "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

/* The content of a file, with a NUL after it, that the caller frees; len may be NULL. */
static inline char *tmp_read(struct tmptree *t, const char *name, size_t *len)
{
	FILE *f = fopen(tmp_at(t, name), "r");
	char *text = NULL;
	size_t n = 0, got;

	ck_assert_msg(f != NULL, "no file \"%s\"", name);
	do {
		text = realloc(text, n + 65537);
		ck_assert_ptr_nonnull(text);
		got = fread(text + n, 1, 65536, f);
		n += got;
	} while (got > 0);
	text[n] = '\0';
	ck_assert_int_eq(ferror(f), 0);
	ck_assert_int_eq(fclose(f), 0);
	if (len != NULL)
		*len = n;
	return text;
}

/* Type and permissions; 0: there is nothing of this name. */
static inline mode_t tmp_mode(struct tmptree *t, const char *name)
{
	struct stat st;

	return lstat(tmp_at(t, name), &st) == 0 ? st.st_mode : 0;
}

static inline bool tmp_exists(struct tmptree *t, const char *name)
{
	return tmp_mode(t, name) != 0;
}

static inline void tmp_check_link(struct tmptree *t, const char *name, const char *target)
{
	char buf[PATH_MAX] = "";

	ck_assert_int_gt(readlink(tmp_at(t, name), buf, sizeof(buf) - 1), 0);
	ck_assert_str_eq(buf, target);
}

/* Entries of a directory, "." and ".." not counted. */
static inline unsigned tmp_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	ck_assert_msg(d != NULL, "no directory \"%s\"", path);
	for (struct dirent *de; (de = readdir(d)) != NULL;)
		n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
	closedir(d);
	return n;
}

/* Descriptors that this process has open: the same before and after, or something leaked. */
static inline unsigned tmp_open_fds(void)
{
	return tmp_entries("/proc/self/fd");
}

#endif
