/*
 * One BASE_BACKUP command as a sequence of archives, whatever the server's framing: up to 14 one COPY per tablespace
 * and one for the manifest, from 15 one COPY with n, d, p and m messages.
 *
 * Source: PostgreSQL documentation, "Streaming Replication Protocol", BASE_BACKUP;
 * src/backend/backup/basebackup_copy.c.
 */
#ifndef PGR_BACKUP_BBSTREAM_H
#define PGR_BACKUP_BBSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/source.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/command.h"

struct pgr_client;
struct pgr_bbstream;

/* A row of the tablespace list.  The data directory is the last one, with oid 0 and location "". */
struct pgr_bb_tablespace {
	uint32_t oid;
	char *location;	 /* absolute; or "pg_tblspc/<oid>" for an in-place tablespace */
	int64_t size_kb; /* -1: not sent */
};

enum pgr_archive_kind { PGR_ARCHIVE_DATA_DIR, PGR_ARCHIVE_TABLESPACE, PGR_ARCHIVE_MANIFEST };

struct pgr_archive {
	enum pgr_archive_kind kind;
	const struct pgr_bb_tablespace *tablespace; /* also for the data directory; NULL for the manifest */
	const char *name;			    /* "base.tar.gz", "16385.tar", "" where the server does not say */
	bool terminated;			    /* ends with two blocks of zeros (from 15) */
	struct pgr_source *source;		    /* its bytes; valid until the next archive */
};

/*
 * Sends BASE_BACKUP on `client` (stays the caller's, outlives the stream) and reads up to the list of tablespaces:
 * blocks until the server's checkpoint is done.  The error's message says "could not initiate base backup" where the
 * server refuses.
 */
int pgr_bbstream_start(struct pgr_bbstream **out, struct pgr_client *client, const struct pgr_base_backup_cmd *cmd,
		       struct pgr_err *err) PGR_MUST_USE;
void pgr_bbstream_free(struct pgr_bbstream *s);

pgr_lsn pgr_bbstream_start_lsn(const struct pgr_bbstream *s);
pgr_tli pgr_bbstream_start_tli(const struct pgr_bbstream *s); /* 0: a server below 9.3 does not say */
size_t pgr_bbstream_tablespaces(const struct pgr_bbstream *s, const struct pgr_bb_tablespace **list);

/* Bytes of archives received so far, as the server counts them ('p', from 15) or as we do.  Any thread. */
uint64_t pgr_bbstream_progress_bytes(const struct pgr_bbstream *s);

/*
 * The next archive.  What is left of the one before is an error: its source must have been read to its end.
 * PGR_MORE: there is none, go to pgr_bbstream_finish.  Each tablespace comes once; an archive that was not announced is
 * PGR_E_PROTOCOL.
 */
int pgr_bbstream_next(struct pgr_bbstream *s, struct pgr_archive *a, struct pgr_err *err) PGR_MUST_USE;

/*
 * Reads the end of the backup.  PGR_ERR with PGR_E_CHECKSUM ("checksum error occurred") when the server ended with
 * SQLSTATE XX001: *end and *end_tli are set in this case too (*end_tli is 0 where the server does not say).  After an
 * error the client is good for nothing but pgr_client_free.
 */
int pgr_bbstream_finish(struct pgr_bbstream *s, pgr_lsn *end, pgr_tli *end_tli, struct pgr_err *err) PGR_MUST_USE;

#endif
