/*
 * What layout.c, layout_old.c and layout_wal.c share: the layout itself, and what becomes of a directory that is made
 * over.  Internal to backup/.
 */
#ifndef PGR_BACKUP_LAYOUT_IMPL_H
#define PGR_BACKUP_LAYOUT_IMPL_H

#include "backup/layout.h"
#include "backup/root.h"

#define PGR_TBLSPC_DIR "pg_tblspc"

struct pgr_space {
	uint32_t oid;
	char *location; /* the server's, canonical */
	bool mapped;	/* by -T: the user chose the path */
	bool in_place;	/* below the data directory */
	struct pgr_root root;
};

/* A link of a tablespace as it was found. */
struct pgr_old_link {
	uint32_t oid;
	char *target; /* canonical */
	bool leads;   /* to a directory, which is: */
	dev_t dev;
	ino_t ino;
};

struct pgr_layout {
	const struct pgr_sys *sys;
	mode_t dir_mode, file_mode;
	const char *wal_name;
	bool summaries;
	struct pgr_tblspc_map *mapping;
	struct pgr_root data;
	struct pgr_root wal; /* when it lies elsewhere its path is set; otherwise only fd, from the first use on */
	bool wal_ready;	     /* its subdirectories exist */
	size_t nspaces;
	struct pgr_space *spaces;	/* by oid */
	struct pgr_space **by_location; /* the same */

	/* in place */
	bool in_place;
	bool look_only;
	bool old;		    /* there was something in the data directory */
	bool link_wal;		    /* pg_wal is to become the link to `wal` */
	char *version_dir;	    /* NULL: not known */
	uint64_t system_identifier; /* 0: not known */
	struct pgr_old_link *links;
	size_t nlinks;
	struct pgr_layout_leftover *leftovers;
	size_t nleftovers;
};

/* Makes `name` below `dirfd` and opens it.  `where` is the parent's name. */
int pgr_layout_make_below(const struct pgr_layout *l, int dirfd, const char *where, const char *name, bool may_exist,
			  int *fd, struct pgr_err *err) PGR_MUST_USE;

/* pgr_root_make, or, where nothing is to be made, no more than its checks. */
int pgr_layout_make_root(const struct pgr_layout *l, struct pgr_root *r, struct pgr_err *err) PGR_MUST_USE;

const struct pgr_space *pgr_layout_find_space(const struct pgr_layout *l, uint32_t oid); /* NULL */

/* A link's target as a path of its own.  PGR_MORE: the link is gone. */
int pgr_layout_read_link(const struct pgr_layout *l, int dirfd, const char *where, const char *name, char **out,
			 struct pgr_err *err) PGR_MUST_USE;

/* Gives an open directory, `path` in messages, the mode of new ones. */
int pgr_layout_set_mode(const struct pgr_layout *l, int fd, const char *path, struct pgr_err *err) PGR_MUST_USE;

/* With `old`: opens pg_wal, where it is a directory or leads to one; pgr_layout_take_over's part of it. */
int pgr_layout_old_wal(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;
int pgr_layout_take_wal(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;

/* Opens a data directory that is not empty and its pg_wal; sets `old`.  PGR_MORE: it is missing or empty. */
int pgr_layout_old_prepare(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;
/* With `old`: fills `links`; and `leftovers`, when the spaces are open. */
int pgr_layout_old_links(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;
int pgr_layout_old_leftovers(struct pgr_layout *l, struct pgr_err *err) PGR_MUST_USE;
void pgr_layout_old_fini(struct pgr_layout *l);

/* Whether a link that was found leads to the directory `path`, which may then have something in it. */
bool pgr_layout_is_old_space(const struct pgr_layout *l, const char *path);
/* Opens an in-place tablespace's directory where there is one; where not, pgr_layout_take_over makes it. */
int pgr_layout_old_in_place(struct pgr_layout *l, struct pgr_space *s, struct pgr_err *err) PGR_MUST_USE;

#endif
