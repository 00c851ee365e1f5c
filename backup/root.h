/*
 * A directory that a backup fills: checked, made, opened, synced, and removed again after a failure.
 *
 * Not thread-safe; the open descriptor may be used by any thread.
 */
#ifndef PGR_BACKUP_ROOT_H
#define PGR_BACKUP_ROOT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

struct pgr_sys;

struct pgr_root {
	char *path; /* malloc'd, shorter than PATH_MAX; NULL: there is no such root */
	int fd;	    /* open from pgr_root_make to pgr_root_fini; -1 */
	dev_t dev;  /* these two tell whether two names mean one directory */
	ino_t ino;
	size_t present; /* so many bytes of the path named something before it was made */
	bool made;	/* by us */
	bool was_empty; /* there before, with nothing in it */
};

/* A root without a path. */
#define PGR_ROOT_INIT ((struct pgr_root){.fd = -1})

/* Closes, frees the path; removes nothing. */
void pgr_root_fini(const struct pgr_sys *sys, struct pgr_root *r);

/*
 * Whether the path may be used: *missing says whether it would have to be made.
 * PGR_E_USAGE: directory "%s" exists but is not empty.
 */
int pgr_root_check(const struct pgr_sys *sys, const struct pgr_root *r, bool *missing,
		   struct pgr_err *err) PGR_MUST_USE;

/*
 * Checks, makes the directory and its missing parents with `mode` where it is missing, and opens it.  `made` and
 * `was_empty` are right also after a failure: what was made by then is to be removed.
 */
int pgr_root_make(const struct pgr_sys *sys, struct pgr_root *r, mode_t mode, struct pgr_err *err) PGR_MUST_USE;

/* Opens a directory that has something in it; it is neither synced with its parents nor removed later.  PGR_MORE: it is
 * missing or empty, and was not opened. */
int pgr_root_open(const struct pgr_sys *sys, struct pgr_root *r, struct pgr_err *err) PGR_MUST_USE;

/* Whether two open roots are one directory. */
bool pgr_root_same(const struct pgr_root *a, const struct pgr_root *b);

/*
 * Whether `path` (shorter than PATH_MAX, it need not exist) is the open root or leads into it, by whatever name.
 * PGR_OK: it does.  PGR_MORE: it does not.
 */
int pgr_root_holds(const struct pgr_sys *sys, const struct pgr_root *r, const char *path,
		   struct pgr_err *err) PGR_MUST_USE;

/* fsyncs the entries of the root and of the parents that were made with it, or of one that was empty. */
int pgr_root_sync_name(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err) PGR_MUST_USE;

/* fsyncs all directories below and including the root, and with `files` every file; then its name, as above. */
int pgr_root_sync(const struct pgr_sys *sys, const struct pgr_root *r, bool files, struct pgr_err *err) PGR_MUST_USE;

/* syncfs on the root's file system. */
int pgr_root_syncfs(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err) PGR_MUST_USE;

/*
 * Removes a root that was made, or what is in one that was empty; any other is left alone.  One that is gone already
 * (with another root that held it) is no error.
 */
int pgr_root_remove(const struct pgr_sys *sys, const struct pgr_root *r, struct pgr_err *err) PGR_MUST_USE;

#endif
