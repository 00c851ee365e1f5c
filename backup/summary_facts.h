/*
 * What a server says of itself to whoever wants to rely on its WAL summaries.
 */
#ifndef PGR_BACKUP_SUMMARY_FACTS_H
#define PGR_BACKUP_SUMMARY_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "backup/delta_choose.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"
#include "receiver/history.h"

struct pgr_bb_tablespace;

/* Valid when zeroed. */
struct pgr_summary_facts {
	bool summarize_wal;
	bool in_recovery;
	uint32_t catalog_version;
	uint32_t block_bytes, segment_blocks, wal_segment_bytes, checksum_version;
	pgr_lsn redo;		    /* of the last checkpoint */
	pgr_lsn replayed;	    /* of a standby */
	uint64_t database_bytes;    /* of those that this role may connect to */
	struct pgr_history history; /* of the server's timeline */
};

void pgr_summary_facts_fini(struct pgr_summary_facts *f);

/*
 * Asks: `sql` is a session of pgr_sql_open, `repl` a replication connection that is ready, `id` what it said.
 * PGR_E_USAGE: the two do not lead to the same server.  Any role may ask.
 */
int pgr_summary_facts_ask(struct pgr_summary_facts *out, struct pgr_client *sql, struct pgr_client *repl,
			  const struct pgr_system_id *id, struct pgr_err *err) PGR_MUST_USE;

/* The same for pgr_delta_choose; it points into `f` and `id`. */
void pgr_summary_facts_server(const struct pgr_summary_facts *f, int version, const struct pgr_system_id *id,
			      struct pgr_delta_server *out);

/* The history of a timeline; the first one has none but itself. */
int pgr_summary_facts_history(struct pgr_client *repl, pgr_tli tli, struct pgr_history *out,
			      struct pgr_err *err) PGR_MUST_USE;

/*
 * The tablespaces as BASE_BACKUP will list them (the data directory last); freed with pgr_listing_tablespaces_free.
 * (pgr_listing_tablespaces reads directories, which not every role may.)
 */
int pgr_summary_facts_spaces(struct pgr_client *sql, struct pgr_bb_tablespace **list, size_t *n,
			     struct pgr_err *err) PGR_MUST_USE;

/* Up to where there are summaries on this timeline; `least` when there are none beyond it. */
int pgr_summary_facts_summarized(struct pgr_client *sql, pgr_tli tli, pgr_lsn least, pgr_lsn *out,
				 struct pgr_err *err) PGR_MUST_USE;

#endif
