/*
 * What a server version can do: one table, and the only place where a version is compared.
 *
 * Source: PostgreSQL release notes and the sources named in caps.c, row by row.
 */
#ifndef PGR_PROTO_CAPS_H
#define PGR_PROTO_CAPS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/err.h"

enum pgr_cap {
	PGR_CAP_WAL_STREAM, /* 9.3: WAL streaming as we know it; before, numbers came in the server's byte order */
	PGR_CAP_TIMELINE_HISTORY, /* 9.3: TIMELINE_HISTORY, START_REPLICATION ... TIMELINE, tli in BASE_BACKUP's rows */
	PGR_CAP_SLOTS,		  /* 9.4: physical replication slots */
	PGR_CAP_MAX_RATE,	  /* 9.4 */
	PGR_CAP_TABLESPACE_MAP,	  /* 9.5 */
	PGR_CAP_RESERVE_WAL,	  /* 9.6 */
	PGR_CAP_SHOW,		  /* 10: SHOW on a replication connection, variable segment size from 11 */
	PGR_CAP_TEMP_SLOTS,	  /* 10 */
	PGR_CAP_PG_WAL,		  /* 10: pg_wal, before: pg_xlog */
	PGR_CAP_SQL_READ,	  /* 10: what a copy over SQL needs (pg_stop_backup(exclusive, wait_for_archive)) */
	PGR_CAP_SLOT_DROP_WAIT,	  /* 10: DROP_REPLICATION_SLOT ... WAIT */
	PGR_CAP_GROUP_ACCESS,	  /* 11: data_directory_mode */
	PGR_CAP_SQL_READ_GRANTS,  /* 11: EXECUTE can be granted on the functions that read files, before: superusers */
	PGR_CAP_SQL_SHA256,	  /* 11: sha256(bytea), before: md5(bytea) */
	PGR_CAP_VERIFY_CHECKSUMS, /* 11: NOVERIFY_CHECKSUMS / VERIFY_CHECKSUMS */
	PGR_CAP_RECOVERY_SIGNAL,  /* 12: standby.signal and postgresql.auto.conf instead of recovery.conf */
	PGR_CAP_MANIFEST,	  /* 13 */
	PGR_CAP_PAREN_OPTIONS,	  /* 15: BASE_BACKUP (...), one COPY with n d p m, terminated tar */
	PGR_CAP_SERVER_COMPRESSION, /* 15 */
	PGR_CAP_TARGETS,	    /* 15 */
	PGR_CAP_BACKUP_START,	 /* 15: pg_backup_start and pg_backup_stop, before: pg_start_backup, pg_stop_backup */
	PGR_CAP_READ_SLOT,	 /* 15: READ_REPLICATION_SLOT */
	PGR_CAP_RELATION_BLOCKS, /* 17: warnings of bad pages count blocks from the start of the relation, not of the
				    file */
	PGR_CAP_INCREMENTAL,	 /* 17: UPLOAD_MANIFEST, INCREMENTAL, pg_wal/summaries */
	PGR_CAP_CONNINFO_DBNAME, /* 17: dbname in primary_conninfo is of use (slot synchronisation) */
	PGR_CAP_COUNT,
};

/* Versions as libpq's PQserverVersion gives them: 90104, 100023, 180006. */
#define PGR_SERVER_MIN	     90100
#define PGR_SERVER_MAX_MAJOR 18 /* the newest major that pgr knows */

bool pgr_cap_has(int server_version, enum pgr_cap cap);

/* The first version with this capability, for messages: "9.4", "15". */
const char *pgr_cap_since(enum pgr_cap cap);

/*
 * Whether the libpq that comes with a server of this version knows a connection keyword: what -R may write into the
 * primary_conninfo of a standby of that version.  Unknown keywords are false.
 */
bool pgr_cap_conninfo_keyword(int server_version, const char *keyword);

/* Writes "9.1.24" or "15.20" into out (at least 16 bytes). */
void pgr_version_format(char out[16], int server_version);

#endif
