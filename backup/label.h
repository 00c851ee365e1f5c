/*
 * What stands in a backup_label.
 *
 * Source: read_backup_label of PostgreSQL's src/backend/access/transam/xlogrecovery.c.
 */
#ifndef PGR_BACKUP_LABEL_H
#define PGR_BACKUP_LABEL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/lsn.h"

/*
 * Where the backup began, and on which timeline: "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)", and
 * from 11 on "START TIMELINE: 1".  false: it is no backup_label.
 */
bool pgr_label_start(const void *text, size_t len, pgr_lsn *start, pgr_tli *tli);

#endif
