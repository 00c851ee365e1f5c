/*
 * The low-level backup API over SQL: pg_backup_start (pg_start_backup below 15), the listing, pg_backup_stop; held open
 * by one session, the coordinator.
 *
 * Source: PostgreSQL documentation, "Making a Base Backup Using the Low Level API"; rules of a copy that is right:
 * docs/ARCHITECTURE.md.
 */
#ifndef PGR_BACKUP_LOWLEVEL_H
#define PGR_BACKUP_LOWLEVEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/bbstream.h"
#include "backup/filelist.h"
#include "backup/sql.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"

struct pgr_lowlevel;

/* Takes the session, one of pgr_sql_open (also after a failure). */
int pgr_lowlevel_new(struct pgr_lowlevel **out, struct pgr_client *session, struct pgr_err *err) PGR_MUST_USE;
/* Ends the session, and cancels what it still runs; a backup that was started and not stopped is thereby aborted on the
 * server.  NULL is allowed. */
void pgr_lowlevel_free(struct pgr_lowlevel *l);
struct pgr_client *pgr_lowlevel_client(struct pgr_lowlevel *l);

/*
 * From now on every answer must have the digest that the server computed of it, or it is asked for again, a few times
 * (PGR_E_DATA: to no avail), and `info` (NULL is allowed) is told.  What can only be asked once is kept in settings of
 * the session.
 */
int pgr_lowlevel_verify(struct pgr_lowlevel *l, void (*info)(void *arg, const char *line), void *arg,
			struct pgr_err *err) PGR_MUST_USE;

/* pg_backup_start: blocks until the checkpoint is done.  The message of a refusal says "could not initiate base
 * backup".
 */
int pgr_lowlevel_start(struct pgr_lowlevel *l, const char *label, bool fast, pgr_lsn *start,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * Each asks ahead (pgr_client_ask_ahead) for the first that the function of its name asks: the start with the same
 * arguments.  The server takes up one after the other, so what is asked ahead behind the start is true after it.
 */
int pgr_lowlevel_start_ahead(struct pgr_lowlevel *l, const char *label, bool fast, struct pgr_err *err) PGR_MUST_USE;
int pgr_lowlevel_list_ahead(struct pgr_lowlevel *l, struct pgr_err *err) PGR_MUST_USE;

/* The tablespaces as BASE_BACKUP lists them (oid, location; sizes -1), the data directory last. Freed with the
 * lowlevel. */
int pgr_lowlevel_tablespaces(struct pgr_lowlevel *l, const struct pgr_bb_tablespace **list, size_t *n,
			     struct pgr_err *err) PGR_MUST_USE;

/* Everything that is to be copied, after pgr_lowlevel_start: see pgr_listing_files.  Tablespaces are asked for where
 * that was not done yet.  `out` is zeroed; after a failure it is empty. */
int pgr_lowlevel_list(struct pgr_lowlevel *l, struct pgr_filelist *out, struct pgr_err *err) PGR_MUST_USE;

/*
 * Reads global/pg_control, again (up to 10 times, 10 ms apart) until its CRC holds (PGR_E_DATA: it never did).  The
 * content, which is put into `out`, is what goes to disk.
 */
int pgr_lowlevel_control(struct pgr_lowlevel *l, struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;

struct pgr_backup_end {
	pgr_lsn stop;
	struct pgr_buf label; /* backup_label, byte for byte */
	struct pgr_buf map;   /* tablespace_map */
	pgr_tli start_tli;    /* from the label */
};			      /* valid when zeroed */
void pgr_backup_end_fini(struct pgr_backup_end *e);

/*
 * pg_backup_stop.  With `wait_archive` it waits until the WAL is archived.  A standby that was promoted meanwhile is
 * the server's error.  PGR_E_DATA: the label is not that of the backup that was started.  After a failure *out is
 * empty.
 */
int pgr_lowlevel_stop(struct pgr_lowlevel *l, bool wait_archive, struct pgr_backup_end *out,
		      struct pgr_err *err) PGR_MUST_USE;

/* Looks whether the session is still there, without waiting: the server's words when it is not.  Between commands. */
int pgr_lowlevel_check(struct pgr_lowlevel *l, struct pgr_err *err) PGR_MUST_USE;

#endif
