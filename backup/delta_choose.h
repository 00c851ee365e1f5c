/*
 * Whether an old copy can be brought up to date with the server's WAL summaries, and whether that pays.  Pure.
 *
 * The argument: R is a position such that every change before it is on this disk.  What the server sends are the blocks
 * that WAL changed between R and the start of the backup.  So a block that is kept is one that nobody has touched since
 * R, provided that everything this directory ever replayed or wrote after R is in the server's history as well: that is
 * what most rules here are about.
 */
#ifndef PGR_BACKUP_DELTA_CHOOSE_H
#define PGR_BACKUP_DELTA_CHOOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/controlfile.h"
#include "common/lsn.h"

struct pgr_history;

/* What is known of the directory: see olddir.h. */
struct pgr_delta_local {
	const struct pgr_controlfile *control; /* its own or the one that was set aside; NULL: none */
	pgr_lsn from;			       /* R (pgr_olddir_base); PGR_LSN_INVALID: that cannot be said */
	pgr_tli from_tli;
	bool copied;	 /* R is where a backup began: no server has started from these files since */
	bool unfinished; /* earlier runs have changed it */
	pgr_tli run_tli; /* timeline of the server that they copied from; 0: not known, or several */
};

/* What the server answered. */
struct pgr_delta_server {
	int version;
	bool summarize_wal;
	const char *system_identifier;
	uint32_t catalog_version;
	uint32_t block_bytes, segment_blocks, wal_segment_bytes, checksum_version;
	const struct pgr_history *history; /* of its timeline, that one last */
	pgr_lsn flush;			   /* IDENTIFY_SYSTEM; of a standby what it has replayed */
	bool in_recovery;
	pgr_lsn redo; /* of its last checkpoint */
};

struct pgr_delta_choice {
	bool usable;
	char why_not[256]; /* when it is not: "the server does not summarize its WAL" */
	pgr_lsn from;	   /* R */
	pgr_tli from_tli;  /* where the server's history has it */
};

/* Fills *out. */
void pgr_delta_choose(struct pgr_delta_choice *out, const struct pgr_delta_local *local,
		      const struct pgr_delta_server *server);

/*
 * Whether the summaries are the cheaper way when hashes could be compared as well.  `changed_blocks` counts what the
 * summaries name, `patchable_bytes` is what may be kept, of `local_bytes` that are here.
 */
bool pgr_delta_summary_is_cheaper(uint64_t changed_blocks, uint32_t block_bytes, uint64_t patchable_bytes,
				  uint64_t local_bytes);

#endif
