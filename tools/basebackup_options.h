/*
 * The options of pgr-basebackup: pg_basebackup's spellings, texts and exit codes (PostgreSQL documentation,
 * "pg_basebackup"), and a few more.
 */
#ifndef PGR_TOOLS_BASEBACKUP_OPTIONS_H
#define PGR_TOOLS_BASEBACKUP_OPTIONS_H

#include <stdbool.h>

#include "backup/basebackup.h"
#include "proto/conn_params.h"

struct pgr_messages;
struct pgr_tblspc_map;

struct pgr_basebackup_options {
	struct pgr_conn_params conn;	/* without ask_password */
	struct pgr_basebackup_opts run; /* without the callbacks; its strings are argv's or those below */
	struct pgr_tblspc_map *mapping;
	char *data_dir;
	char *wal_dir;
	char label[128]; /* the default one */
	int verbose;	 /* number of -v */
	bool show_progress;
	bool have_compress;
	unsigned retries;  /* --retry */
	const char **keep; /* patterns, of argv */
	bool print_grants;
	const char *grants_role; /* NULL: the role that connects */
};

/*
 * Reads the command line; prints help, version and what is wrong with it.  -1: go on, otherwise the exit code.  The
 * struct stays where it is, since parts of it point to others.  Free with _fini in every case.
 */
int pgr_basebackup_options_read(struct pgr_basebackup_options *o, struct pgr_messages *msg, int argc, char **argv);
void pgr_basebackup_options_fini(struct pgr_basebackup_options *o);

#endif
