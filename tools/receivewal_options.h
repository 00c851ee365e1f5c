/*
 * The options of pgr-receivewal: pg_receivewal's spellings, texts and exit codes (PostgreSQL documentation,
 * "pg_receivewal").
 */
#ifndef PGR_TOOLS_RECEIVEWAL_OPTIONS_H
#define PGR_TOOLS_RECEIVEWAL_OPTIONS_H

#include <stdbool.h>

#include "common/compress_spec.h"
#include "common/lsn.h"
#include "proto/conn_params.h"

struct pgr_messages;

struct pgr_receivewal_options {
	struct pgr_conn_params conn;
	const char *dir;
	const char *slot;
	const char *compress_arg; /* as given, NULL: not */
	struct pgr_compress_spec compress;
	pgr_lsn startpos; /* PGR_LSN_INVALID: not given */
	pgr_lsn endpos;
	int status_interval_s;
	int give_up_s;
	int verbose;
	bool no_loop;
	bool sync;
	bool synchronous;
	bool create_slot;
	bool ensure_slot;
	bool drop_slot;
	bool if_not_exists;
	bool verify;
	bool help;
	bool version;
};

/*
 * Reads the command line; prints help, version and what is wrong with it.  -1: go on, otherwise the exit code.  Strings
 * point into argv.  Free with _fini in every case.
 */
int pgr_receivewal_options_read(struct pgr_receivewal_options *o, struct pgr_messages *msg, int argc, char **argv);
void pgr_receivewal_options_fini(struct pgr_receivewal_options *o);

#endif
