/*
 * What stands in a global/pg_control: whose cluster a directory is, and how it was left.
 *
 * Source: PostgreSQL src/include/catalog/pg_control.h of 10 to 18; the file is in the machine's byte order, so only one
 * of a machine like ours is understood.
 */
#ifndef PGR_BACKUP_CONTROLFILE_H
#define PGR_BACKUP_CONTROLFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"

/* DBState, which has the same numbers in all of these versions. */
enum pgr_dbstate {
	PGR_DB_STARTUP,
	PGR_DB_SHUTDOWNED,
	PGR_DB_SHUTDOWNED_IN_RECOVERY,
	PGR_DB_SHUTDOWNING,
	PGR_DB_IN_CRASH_RECOVERY,
	PGR_DB_IN_ARCHIVE_RECOVERY,
	PGR_DB_IN_PRODUCTION,
	PGR_DB_STATES,
};

struct pgr_controlfile {
	uint64_t system_identifier;
	uint32_t control_version;
	uint32_t catalog_version;
	enum pgr_dbstate state;
	pgr_lsn checkpoint;
	pgr_lsn redo; /* of that checkpoint */
	pgr_tli tli;  /* of that checkpoint */
	pgr_lsn min_recovery;
	pgr_tli min_recovery_tli;
	pgr_lsn backup_start; /* of a backup whose end was not replayed yet, so that min_recovery says too little; else
				 0 */
	uint32_t wal_level;   /* 0: minimal, and after pg_resetwal */
	uint32_t block_bytes;
	uint32_t segment_blocks; /* RELSEG_SIZE */
	uint32_t wal_segment_bytes;
	uint32_t checksum_version; /* 0: no data checksums */
};

/* Whether the CRC-32C of a pg_control of 10 to 18 holds. */
bool pgr_controlfile_crc_holds(const void *data, size_t len);

/* The words of pg_controldata for a state ("in production"). */
const char *pgr_dbstate_name(enum pgr_dbstate s);

/* PGR_E_DATA: too short, a version that is not known, a CRC that does not hold, values that make no sense. */
int pgr_controlfile_parse(const void *data, size_t len, struct pgr_controlfile *out, struct pgr_err *err) PGR_MUST_USE;

#endif
