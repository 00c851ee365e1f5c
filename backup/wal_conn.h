/*
 * The connection of the WAL stream of a base backup: made, checked, given its slot, and made again after a loss.
 *
 * Not thread-safe: whoever opens it first hands it over to the thread that streams.
 */
#ifndef PGR_BACKUP_WAL_CONN_H
#define PGR_BACKUP_WAL_CONN_H

#include <stdbool.h>

#include "common/err.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_stop;
struct pgr_sys;
struct pgr_wal_stream_opts;

/* Zeroed memory is valid for the fini. */
struct pgr_wal_conn {
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct pgr_client *client; /* NULL: not connected */
	char *slot;		   /* the permanent one, or the temporary one of this session; NULL: none */
	bool made_slot;		   /* this run created the permanent slot */

	/* internal */
	char *system_identifier;    /* of the cluster that it must lead to; NULL: not known yet */
	struct pgr_system_id found; /* what the present connection leads to */
	bool permanent;		    /* `slot` was given */
	bool create, may_exist;	    /* with it: make it; or take one that is there */
	bool look;		    /* with it: whether there is one; on the first connection */
	bool temporary;		    /* a temporary one is wanted */
	int slot_rc;		    /* whether there is a slot on the present connection, as far as */
	struct pgr_err slot_err;    /* nothing lasting had to be made; why not */
	struct pgr_conn_params params;
	int (*connect)(void *arg, struct pgr_client **out, struct pgr_err *err);
	void (*info)(void *arg, const char *line);
	pgr_notice_fn *notice;
	void *arg;
};

/*
 * What is needed of `opts` is copied (also after a failure, when pgr_wal_conn_fini is still due).  `params` are copied
 * as well, with the password that was asked for: other threads may use and change them from then on.
 */
int pgr_wal_conn_init(struct pgr_wal_conn *c, const struct pgr_wal_stream_opts *opts,
		      const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop,
		      struct pgr_err *err) PGR_MUST_USE;

/* The first connection.  A temporary slot is made, one that must exist is looked at; nobody is asked for a password. */
int pgr_wal_conn_connect(struct pgr_wal_conn *c, struct pgr_err *err) PGR_MUST_USE;

/*
 * After that, when it is known which cluster it must be: checks the system identifier, makes a permanent slot where one
 * is to be made, and tells what was wrong with any other.
 */
int pgr_wal_conn_confirm(struct pgr_wal_conn *c, const char *system_identifier, struct pgr_err *err) PGR_MUST_USE;

/*
 * Another connection to the same cluster, after pgr_wal_conn_close.  A temporary slot died with its session: the new
 * one has another name.  Nobody is asked for a password.  After a failure it is closed.
 */
int pgr_wal_conn_reopen(struct pgr_wal_conn *c, struct pgr_err *err) PGR_MUST_USE;

void pgr_wal_conn_close(struct pgr_wal_conn *c);
void pgr_wal_conn_fini(struct pgr_wal_conn *c);

/*
 * Whether another connection may go better after this error: one that broke or could not be made; a session that the
 * server ended, but not for an administrator (57P01); a server that has no room or memory just now (class 53), is not
 * ready (57P03), has cancelled because of recovery (class 40), or still takes a slot for used by the session that broke
 * (55006).  Not what stays as it is: WAL that was removed (58P01), a missing slot or permission (class 42),
 * authentication (class 28), nor anything that is wrong on this side.
 */
bool pgr_wal_conn_may_retry(const struct pgr_err *err);

#endif
