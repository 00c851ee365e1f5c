/*
 * A source that is read ahead: a thread of its own pulls another source into a small ring of bytes, while the caller
 * works on what came before.  For a stream that must be decompressed: the socket is emptied meanwhile.
 */
#ifndef PGR_BACKUP_READAHEAD_H
#define PGR_BACKUP_READAHEAD_H

#include "backup/source.h"
#include "common/err.h"

struct pgr_readahead;

/*
 * Starts the thread; `from` (which outlives the readahead) is the thread's until pgr_readahead_free has returned: it,
 * and what it reads from, must not be touched by others.  It is read to its end or first failure, never beyond.
 * At most `bytes` (> 0) are held.
 */
int pgr_readahead_new(struct pgr_readahead **out, struct pgr_source *from, size_t bytes,
		      struct pgr_err *err) PGR_MUST_USE;

/*
 * What callers read from, one thread.  All bytes that `from` gave before it ended or failed come first, then its end or
 * its failure, as often as one asks.
 */
struct pgr_source *pgr_readahead_source(struct pgr_readahead *r);

/*
 * Joins the thread; what nobody read is lost.  A thread inside `from` comes back when that does: who gives up before
 * the end sets the stop latch that `from` obeys first.  NULL is allowed.
 */
void pgr_readahead_free(struct pgr_readahead *r);

#endif
