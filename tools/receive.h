/*
 * One run of pgr-receivewal: what its parts share.  Internal to tools/: pgr-receivewal.c connects, streams and tries
 * again, receive_start.c judges where a directory and a server stand to each other.
 */
#ifndef PGR_TOOLS_RECEIVE_H
#define PGR_TOOLS_RECEIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"
#include "tools/message.h"

struct pgr_receiver;
struct pgr_receivewal_options;
struct pgr_signals;
struct pgr_stop;
struct pgr_sys;
struct pgr_walpack;
struct pgr_walstore;

/* Exit codes beside 0 and 1: see the man page. */
enum pgr_trouble {
	PGR_NO_TROUBLE = 0,
	PGR_WAL_GONE = 3,   /* the server does not have the WAL that comes next, or the slot lost it */
	PGR_FOREIGN = 4,    /* the directory holds WAL of another cluster */
	PGR_NOT_BEHIND = 5, /* the directory holds WAL, or a history file, that is not in the server's history */
};

struct pgr_receive {
	struct pgr_messages msg;
	struct pgr_receivewal_options *opt;
	const struct pgr_sys *sys;
	struct pgr_stop *stop; /* interrupts connecting and waiting, not a stream */
	struct pgr_signals *signals;
	struct pgr_client *client; /* NULL: not connected */
	struct pgr_system_id id;   /* of the first connection; all later ones must be to the same system */
	struct pgr_walstore *store;
	struct pgr_receiver *receiver; /* keeps the position from one connection to the next */
	enum pgr_trouble trouble;      /* what the last failure was about */
	enum pgr_trouble lasting;      /* the same all the time ... */
	int64_t lasting_since_ms;      /* ... since then */
	bool foreign_partials;	       /* the directory has some (scan.h) */
	uint32_t segment_bytes;
	mode_t file_mode;
	int lock_fd; /* the directory, locked as long as the run lasts; -1: not */

	/* shared with the thread of the signals */
	pthread_mutex_t lock;
	bool stopping;
	bool streaming;		  /* a stop goes to the receiver, which ends the stream in good order */
	struct pgr_walpack *pack; /* NULL: nothing is compressed */
};

/* What a part of the run says: warnings (level above 0), or lines for -v.  `arg` is the run. */
void pgr_receive_say(void *arg, int level, const char *line);

/*
 * Where to start: what the directory `dirfd` says (gaps are told), else --startpos, else the slot, else the server's
 * present position; on the connected client.  PGR_E_USAGE and PGR_FOREIGN: the directory is another cluster's.
 */
int pgr_receive_find_start(struct pgr_receive *r, int dirfd, pgr_lsn *start, pgr_tli *tli,
			   struct pgr_err *err) PGR_MUST_USE;

/*
 * Whether the server that is connected has what follows where the receiver stands.  After a promotion the name may lead
 * to one that has not followed yet, or that cannot: PGR_E_CONNECT and PGR_NOT_BEHIND, it cannot be used now, but
 * perhaps later.
 */
int pgr_receive_check_timeline(struct pgr_receive *r, struct pgr_err *err) PGR_MUST_USE;

#endif
