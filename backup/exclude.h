/*
 * What a base backup leaves out: the rules of BASE_BACKUP, for copies that are taken file by file.  Pure.
 *
 * Source: PostgreSQL src/backend/backup/basebackup.c (excludeDirContents, excludeFiles, noChecksumFiles, sendDir),
 * release by release.
 */
#ifndef PGR_BACKUP_EXCLUDE_H
#define PGR_BACKUP_EXCLUDE_H

#include <stdbool.h>
#include <stdint.h>

enum pgr_exclusion {
	PGR_INCLUDE,
	PGR_EXCLUDE,	      /* not in the backup at all */
	PGR_EXCLUDE_CONTENTS, /* a directory that is made, but stays empty */
};

/*
 * What to do with an entry.  `path` is relative to the data directory, as the manifest writes it ("base/5/1259",
 * "pg_tblspc/16385/PG_15_202209061/5/16390").  Rules on whole directories (an init fork makes its siblings
 * unlogged) are pgr_exclude_unlogged's.
 */
enum pgr_exclusion pgr_exclude_entry(int server_version, const char *path, bool is_dir);

/* A relation file's name taken apart: "16384", "16384_fsm", "16384_init.1", "t3_16384_vm.2". */
struct pgr_relfile {
	uint64_t number; /* relfilenumber */
	char fork[5];	 /* "", "fsm", "vm", "init" */
	uint32_t segment;
	bool temporary; /* t<backend>_... */
};

/* Whether the last component of `path` is a relation file's name, and the directory one that holds relations (base/N,
 * global, a tablespace's). */
bool pgr_relfile_parse(const char *path, struct pgr_relfile *out);

/* Whether the directory (of a path as above, without its last component) holds relations. */
bool pgr_is_relation_dir(const char *dir);

/* Whether BASE_BACKUP checks page checksums in this file: a relation file of a permanent relation, not pg_control and
 * its like. */
bool pgr_has_page_checksums(const char *path, struct pgr_relfile *out);

#endif
