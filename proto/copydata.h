/*
 * What is inside CopyData: WAL streaming messages (w k, r h) and base backup messages (n d p m).  Pure.
 *
 * A CopyData body comes in parts.  The first bytes of it, its head, say what it is; the head is gathered here (it is
 * small and bounded), the rest, the payload, is left to the caller to take as parts or straight into its own memory.
 *
 * Source: PostgreSQL documentation, "Streaming Replication Protocol" (protocol-replication).
 */
#ifndef PGR_PROTO_COPYDATA_H
#define PGR_PROTO_COPYDATA_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/cursor.h"
#include "proto/wire.h"

/* Which messages are legal in this COPY. */
enum pgr_copy_dialect {
	PGR_COPY_RAW,	  /* no head: BASE_BACKUP before 15, one COPY per archive and one for the manifest */
	PGR_COPY_ARCHIVE, /* n d p m: BASE_BACKUP from 15 */
	PGR_COPY_WAL,	  /* w k: START_REPLICATION */
};

enum pgr_copy_kind {
	PGR_CK_DATA,	  /* payload of the archive or the manifest ('d', or raw) */
	PGR_CK_ARCHIVE,	  /* 'n': a new archive begins */
	PGR_CK_PROGRESS,  /* 'p' */
	PGR_CK_MANIFEST,  /* 'm': what follows is the manifest */
	PGR_CK_WAL,	  /* 'w': payload is WAL from `start` */
	PGR_CK_KEEPALIVE, /* 'k' */
};

struct pgr_copy_head {
	enum pgr_copy_kind kind;
	struct pgr_span name;	  /* ARCHIVE: "base.tar", valid until the next message */
	struct pgr_span location; /* ARCHIVE: "" for the data directory, else the tablespace's location */
	int64_t progress_bytes;	  /* PROGRESS */
	pgr_lsn start;		  /* WAL: position of the first byte of payload */
	pgr_lsn wal_end;	  /* WAL, KEEPALIVE: end of WAL on the server */
	int64_t send_time_us;	  /* WAL, KEEPALIVE: server's clock, us since 2000-01-01 UTC */
	bool reply_requested;	  /* KEEPALIVE */
};

struct pgr_copydata {
	enum pgr_copy_dialect dialect;
	struct pgr_buf head; /* a head under way */
	bool in_payload;
};

void pgr_copydata_init(struct pgr_copydata *c, enum pgr_copy_dialect dialect);
void pgr_copydata_fini(struct pgr_copydata *c);

/*
 * Feeds one part of a CopyData (as pgr_wire_next reports it).
 * PGR_OK with *has_head: the head is complete; *payload is what this part already holds of the payload (may be empty);
 * for kinds without payload the whole body was taken. PGR_OK without *has_head: the message's head was reported before;
 * *payload is the next piece. PGR_MORE: the head is not complete yet. PGR_ERR: PGR_E_PROTOCOL: a type that this dialect
 * does not have, a wrong length, a message cut short.
 */
int pgr_copydata_feed(struct pgr_copydata *c, const struct pgr_wire_msg *part, struct pgr_copy_head *head,
		      bool *has_head, struct pgr_span *payload, struct pgr_err *err) PGR_MUST_USE;

/* Standby status update ('r').  0 is "unknown" for flush and apply.  Appends the CopyData payload (34 bytes), no frame.
 */
int pgr_copydata_put_status(struct pgr_buf *out, pgr_lsn write, pgr_lsn flush, pgr_lsn apply, int64_t now_us,
			    bool reply, struct pgr_err *err) PGR_MUST_USE;

/* Hot standby feedback ('h'). */
int pgr_copydata_put_feedback(struct pgr_buf *out, int64_t now_us, uint32_t xmin, uint32_t xmin_epoch,
			      uint32_t catalog_xmin, uint32_t catalog_epoch, struct pgr_err *err) PGR_MUST_USE;

/* us since 2000-01-01 UTC (what the protocol sends) from us since 1970-01-01 UTC. */
int64_t pgr_pgtime_from_unix_us(int64_t unix_us);

#endif
