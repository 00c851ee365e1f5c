/*
 * One direction of a relayed connection: socket -> ring -> socket, with a rate, a delay and faults.
 *
 * No function blocks.  Times are nanoseconds of a monotonic clock, handed in by the caller.
 */
#ifndef PGR_BENCH_PIPE_H
#define PGR_BENCH_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MS    INT64_C(1000000)
#define NEVER INT64_MAX

/* A token bucket: bytes that may pass.  It holds 20 ms worth, so that a late wake-up costs nothing. */
struct bucket {
	int64_t rate; /* bytes a second; 0: no limit */
	double tokens;
	int64_t filled; /* when */
};

/*
 * What is done to the bytes from the server.  Positions are counted from 1 on each connection, or, with `when`, from
 * where the client has sent this text; 0: never.
 */
struct faults {
	int64_t flip_byte, cut_after;
	int64_t flips_left, cuts_left; /* on how many connections still */
	const char *when;	       /* NULL: from the beginning */
};

/* Bytes that arrived together, and when they are delivered. */
struct chunk {
	int64_t due;
	size_t len;
};

#define PIPE_CHUNKS 1024

struct pipe {
	int from, to; /* not owned */
	int64_t delay;
	unsigned char *ring;
	size_t cap, head, len;
	struct chunk chunks[PIPE_CHUNKS];
	unsigned first_chunk, nchunks;
	struct bucket own;
	struct bucket *link;   /* shared by the connections */
	struct faults *faults; /* shared; NULL: none */
	struct pipe *arms;     /* whose faults wait for a text on this way; NULL: none, or it was seen */
	size_t matched;	       /* bytes of the text that were seen last */
	int64_t passed;	       /* bytes that came from `from` */
	int64_t armed;	       /* faults count from here; -1: not yet */
	bool ended, shut;      /* `from` sends no more; `to` has been told */
	int64_t end_due;
	bool cut;
	bool broken; /* a socket failed, or the cut is done: close the connection */
};

/*
 * Sets up a zeroed pipe.  `link` and `faults` must outlive it.  `rate` is its own limit, 0 for none.
 * The ring takes what is on the way at full rate, so that it is never the delay that limits a stream.
 * False when there is no memory.
 */
bool pipe_init(struct pipe *p, int from, int to, int64_t rate, int64_t delay, struct bucket *link,
	       struct faults *faults, int64_t now);
void pipe_fini(struct pipe *p);

/* The faults of `down`, if they have to wait for a text, wait until `up` has passed it on.  Both are fresh. */
void pipe_watch(struct pipe *up, struct pipe *down);

/* One read, as far as ring and rates allow. */
void pipe_read(struct pipe *p, int64_t now);

/* Delivers what is due, and the end when everything is delivered. */
void pipe_write(struct pipe *p, int64_t now);

/* Is it worth waiting for `from` to be readable?  If that depends on the time, *wake becomes at most that time. */
bool pipe_wants_to_read(struct pipe *p, int64_t now, int64_t *wake);

/* Is it worth waiting for `to` to be writable?  As above. */
bool pipe_wants_to_write(const struct pipe *p, int64_t now, int64_t *wake);

#endif
