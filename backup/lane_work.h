/*
 * What the lanes have to read: a list of files divided into requests, handed out to whoever is free.
 *
 * A file is read as rows of one size; a piece is a range of a file that begins at a row; a request is what one query
 * asks for: a range of a big file, or many files as a whole.  Requests grow smaller towards the end, so that lanes end
 * together.
 *
 * With a plan there are two kinds of them: ranges to be compared, whose rows are digests of chunks, and ranges to be
 * fetched.  What a comparison finds different is added, and goes to whoever is free next.
 */
#ifndef PGR_BACKUP_LANE_WORK_H
#define PGR_BACKUP_LANE_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/filelist.h"
#include "common/err.h"

struct pgr_delta_plan;
struct pgr_stop;

#define PGR_LANE_ROW	 ((uint32_t)131072) /* bytes; above, the server's malloc maps each row anew and is slower */
#define PGR_LANE_ROW_MAX ((uint32_t)1048576)

/* What is compared as one: of relation files, and of others that are too large for one row.  (A -D of its own serves
 * measurements.)  A page is never larger. */
#ifndef PGR_LANE_CHUNK
#define PGR_LANE_CHUNK ((uint32_t)32768)
#endif

struct pgr_lane_piece {
	size_t file;	   /* entry of the list */
	uint64_t from, to; /* `from` moves on with every row that was dealt with; 0 and 0 for an empty file: one row */
	uint64_t tail;	  /* of a range to be compared: up to here the file is to be fetched without that; 0: no such */
	uint32_t row;	  /* bytes of a row */
	uint32_t damaged; /* how often the row at `from` came damaged */
	uint32_t ask;	  /* of a whole file: so many bytes are asked for, and what comes is all of it (see
			     pgr_lane_whole_bytes); 0: what was listed */
};

struct pgr_lane_request {
	struct pgr_lane_request *next; /* for whoever holds it */
	size_t n, at;		       /* pieces, and the one that is under way */
	bool compare;		       /* rows are digests */
	struct pgr_lane_piece pieces[];
};

/* Bytes that are still to come of a request. */
uint64_t pgr_lane_request_bytes(const struct pgr_lane_request *r);

/*
 * How many bytes of this file travel in a row: PGR_LANE_ROW, but up to `largest` (and PGR_LANE_ROW_MAX) where that
 * makes the whole file come in one: what is no relation (a configuration file) may be replaced by another one while it
 * is read.
 */
uint32_t pgr_lane_row_bytes(const struct pgr_list_entry *e, uint32_t largest);

/*
 * How many bytes to ask for where [from, to) of this file is fetched; 0: what was listed.  No WAL mends what is no
 * relation: a configuration file, or what a checkpoint writes, must not be cut or filled up when another one has taken
 * its place since the list was made.  So when all of it comes in one row, it is as long as it is when it is read.
 */
uint32_t pgr_lane_whole_bytes(const struct pgr_list_entry *e, uint64_t from, uint64_t to, uint32_t largest);

/* Of a chunk: PGR_LANE_CHUNK; what is no relation and comes in one row is compared in one. */
uint32_t pgr_lane_chunk_bytes(const struct pgr_list_entry *e, uint32_t largest);

/* How far entry `i` is compared: up to its size, or up to the last whole chunk that lies here; 0 when it is not. `plan`
 * may be NULL. */
uint64_t pgr_lane_compare_end(const struct pgr_filelist *list, const struct pgr_delta_plan *plan, size_t i,
			      uint32_t largest);

struct pgr_lane_work;

struct pgr_lane_work_opts {
	const struct pgr_filelist *list;   /* outlives the work */
	const struct pgr_delta_plan *plan; /* so does it; NULL: everything is fetched */
	unsigned lanes;
	bool compare_only;    /* nothing is fetched */
	bool whole_files;     /* no file that is made anew is split */
	uint32_t largest_row; /* at least PGR_LANE_ROW */
};

int pgr_lane_work_new(struct pgr_lane_work **out, const struct pgr_lane_work_opts *opts, struct pgr_stop *stop,
		      struct pgr_err *err) PGR_MUST_USE;
/* What was not handed out or came back is freed.  NULL is allowed. */
void pgr_lane_work_free(struct pgr_lane_work *w);

/*
 * The next request for lane `lane`, the caller's until it is done or given back.  PGR_MORE: there is none; with `wait`
 * there will be none any more, since everything that was handed out is done (waits for that, as another lane may give
 * its requests back).  PGR_E_STOPPED.
 */
int pgr_lane_work_take(struct pgr_lane_work *w, unsigned lane, bool wait, struct pgr_lane_request **out,
		       struct pgr_err *err) PGR_MUST_USE;

/*
 * Adds ranges to be fetched, of the request to be compared that the lane has: all of them go to one lane.  Copied.
 */
int pgr_lane_work_add(struct pgr_lane_work *w, const struct pgr_lane_piece *pieces, size_t n,
		      struct pgr_err *err) PGR_MUST_USE;

/* Frees a request of which every row was dealt with; *r becomes NULL. */
void pgr_lane_work_done(struct pgr_lane_work *w, struct pgr_lane_request **r);

/* Gives back what a lane could not finish: the next one that asks gets it, as far as it is not done.  *r becomes NULL;
 * NULL is allowed. */
void pgr_lane_work_return(struct pgr_lane_work *w, struct pgr_lane_request **r);

#endif
