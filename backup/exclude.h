/*
 * What a base backup leaves out: the rules of BASE_BACKUP, for copies that are taken file by file.  Pure.
 *
 * Source: PostgreSQL src/backend/backup/basebackup.c (excludeDirContents, excludeFiles, noChecksumFiles, sendDir),
 * release by release, from 10 on: before, files cannot be copied over SQL.
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
 * "pg_tblspc/16385/PG_15_202209061/5/16390"); is_dir: it is a directory, or a link to one.  What is below something
 * that is left out is left out.
 *
 * What the server puts into its backup elsewhere is the caller's: global/pg_control is included here and must come
 * last; backup_label, tablespace_map and backup_manifest are excluded and written anew; pg_wal is empty here, its
 * subdirectories (archive_status; summaries from 17 on) must be made.
 *
 * Of a tablespace (pg_tblspc/<oid>) only PG_<major>_<catalog version> is included, of any catalog version: where a
 * beta's was left beside it, the caller must look at pg_control_system().
 * What --delta leaves in a directory under work (olddir.h) is excluded, too, and a manifest that was not finished
 * (PGR_MANIFEST_TMP).
 * Sockets (".s.PGSQL.5432") are excluded by their names, since pg_stat_file shows no difference to an empty file.
 * Rules on whole directories are pgr_exclude_unlogged's, rules that need the server's settings pgr_exclude_is's.
 */
enum pgr_exclusion pgr_exclude_entry(int server_version, const char *path, bool is_dir);

#define PGR_INIT_FORK_MAX 16 /* "4294967295_init" and a NUL */

/*
 * Whether the file is left out when its directory also holds a file named `init_fork`: then it is a fork, other than
 * the init fork, of an unlogged relation.  (No such rule before 11.)
 */
bool pgr_exclude_unlogged(int server_version, const char *path, char init_fork[PGR_INIT_FORK_MAX]);

/*
 * Whether the directory `path` is the one that the server calls `server_path`: an absolute path, or one relative to its
 * `data_directory` (NULL: not known, then no absolute path matches).  Two directories are left empty for that:
 * stats_temp_directory up to 14 (it need not be pg_stat_tmp), and the absolute location of a tablespace that lies in
 * the data directory, since what is in it comes below pg_tblspc.
 */
bool pgr_exclude_is(const char *path, const char *server_path, const char *data_directory);

/* A relation file's name taken apart: "16384", "16384_fsm", "16384_init.1", "t3_16384_vm.2". */
struct pgr_relfile {
	uint64_t number; /* relfilenumber */
	char fork[5];	 /* "", "fsm", "vm", "init" */
	uint32_t segment;
	bool temporary; /* t<backend>_... */
};

/* Whether the last component of `path` is a relation file's name (without leading zeros, in range), and the directory
 * one that holds relations (base/N, global, a tablespace's). Else *out is unchanged. */
bool pgr_relfile_parse(const char *path, struct pgr_relfile *out);

/* Whether the directory (of a path as above, without its last component) holds relations. */
bool pgr_is_relation_dir(const char *dir);

/*
 * Whether BASE_BACKUP checks page checksums in this file: a relation file of a permanent relation, not pg_control and
 * its like.  (Servers below 17 check any file in these directories that is not one of the few they know, and complain
 * about foreign ones; that is not imitated.)
 */
bool pgr_has_page_checksums(const char *path, struct pgr_relfile *out);

#endif
