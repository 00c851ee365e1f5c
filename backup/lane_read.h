/*
 * What one lane does with its session: requests out, rows in, blocks on to the sink.
 *
 * A request is sent while the one before it still comes, so that the server always has something to do.  What was
 * posted is never read again: after a loss a piece goes on behind its last whole row.
 *
 * A request to compare is sent ahead in the same way; before its rows are read, the lane hashes what lies here of it
 * (lane_hash.h), which takes about as long as the server needs.
 *
 * With verification a row is whole when its content has the digest that the server computed.  Hashing is the lane's
 * work: it would otherwise wait for the server, whose digest takes at least as long.
 */
#ifndef PGR_BACKUP_LANE_READ_H
#define PGR_BACKUP_LANE_READ_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/copyrows.h"
#include "backup/lane_files.h"
#include "backup/lane_hash.h"
#include "backup/lane_work.h"
#include "backup/ratelimit.h"
#include "backup/rowsum.h"
#include "common/buf.h"
#include "common/err.h"

struct pgr_client;
struct pgr_pagecheck;
struct pgr_pool;

/* What all lanes share. */
struct pgr_lane_shared {
	const struct pgr_filelist *list;
	struct pgr_lane_work *work;
	struct pgr_lane_files *files;
	struct pgr_pool *pool; /* blocks of at least PGR_LANE_ROW */
	struct pgr_ratelimit *rate;
	struct pgr_pagecheck *pages; /* NULL */
	bool verify;
	bool delta; /* there may be requests to compare */
	bool compare_only;
	uint32_t largest_row;	/* as in pgr_lane_row_bytes */
	_Atomic uint64_t bytes; /* received */
};

/* One lane's; of one thread. */
struct pgr_lane_reader {
	struct pgr_lane_shared *sh;
	unsigned lane;
	struct pgr_client *client; /* while it runs */
	uint64_t rows_read;	   /* by this lane, on all its sessions */
	struct pgr_rowsum sum;	   /* NONE without verification and delta */
	bool damaged;		   /* the last error was that a row came damaged, and it may be read again */

	struct pgr_lane_request *now;	/* its rows are coming */
	struct pgr_lane_request *ahead; /* sent behind it */
	uint64_t to_come;		/* bytes of `now` */
	struct pgr_copyrows rows;

	struct pgr_block
		*block; /* whole rows of a piece that follow each other, and perhaps a part of the next; NULL */
	size_t block_file;
	uint64_t block_off;
	size_t block_len;    /* of the whole rows */
	uint64_t block_span; /* what its rows count for */

	struct pgr_lane_hash hash;
	struct pgr_lane_dir dir;
	struct pgr_buf query;
};

/* The reader stays where it is. */
void pgr_lane_reader_init(struct pgr_lane_reader *r, struct pgr_lane_shared *shared, unsigned lane,
			  const struct pgr_sys *sys);
/* No request is held any more (see pgr_lane_reader_drop). */
void pgr_lane_reader_fini(struct pgr_lane_reader *r, const struct pgr_sys *sys);

/*
 * Reads with `client` until all work of all lanes is done.  PGR_ERR: the lane then holds what it has not finished.
 * PGR_E_DATA: a row came damaged.
 */
int pgr_lane_reader_run(struct pgr_lane_reader *r, struct pgr_client *client, struct pgr_err *err) PGR_MUST_USE;

/* After a lost session: posts the whole rows that came, gives the rest of its requests back. */
int pgr_lane_reader_drop(struct pgr_lane_reader *r, struct pgr_err *err) PGR_MUST_USE;

/* After an error that ends everything: the same without posting. */
void pgr_lane_reader_abandon(struct pgr_lane_reader *r);

#endif
