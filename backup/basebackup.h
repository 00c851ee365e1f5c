/*
 * Seeding a standby: the whole run, from the connected session to the manifest's rename.
 *
 * No option parsing, no output, no signals here: the tool does these and is told what happens through callbacks.
 */
#ifndef PGR_BACKUP_BASEBACKUP_H
#define PGR_BACKUP_BASEBACKUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backup/delta_plan.h"
#include "common/compress_spec.h"
#include "common/err.h"
#include "common/lsn.h"
#include "proto/client.h"
#include "proto/conn_params.h"

struct pgr_stop;
struct pgr_sys;
struct pgr_tblspc_map;

enum pgr_wal_method { PGR_WAL_NONE, PGR_WAL_FETCH, PGR_WAL_STREAM };
enum pgr_format { PGR_FORMAT_PLAIN, PGR_FORMAT_TAR };
enum pgr_sync_method { PGR_SYNC_FSYNC, PGR_SYNC_SYNCFS };

/* --delta: how a directory that holds something already is made equal to the server's. */
enum pgr_delta {
	PGR_DELTA_OFF,	   /* not at all: it must be empty */
	PGR_DELTA_AUTO,	   /* by what is possible and cheaper; where nothing is, everything is copied anew */
	PGR_DELTA_HASH,	   /* by digests of chunks, asked for over SQL */
	PGR_DELTA_SUMMARY, /* by the server's WAL summaries */
};

enum pgr_phase {
	PGR_PHASE_CONNECT,
	PGR_PHASE_CHECKPOINT, /* waiting for the server's checkpoint */
	PGR_PHASE_COPY,
	PGR_PHASE_WAL, /* waiting for the WAL that the backup needs */
	PGR_PHASE_SYNC,
	PGR_PHASE_DONE,
};

struct pgr_progress {
	enum pgr_phase phase;
	uint64_t done_bytes;
	uint64_t total_bytes; /* 0: not known */
	unsigned tablespace;  /* archives finished */
	unsigned tablespaces;
	char file[512]; /* the member under way */
};

struct pgr_basebackup_opts {
	const char *data_dir; /* in tar format "-" is standard output */
	enum pgr_format format;
	const char *wal_dir;
	const struct pgr_tblspc_map *mapping;
	enum pgr_wal_method wal;
	const char *slot;	  /* -S; NULL */
	bool create_slot;	  /* -C */
	bool no_slot;		  /* --no-slot: not even a temporary one */
	bool write_recovery_conf; /* -R */
	bool fast_checkpoint;
	const char *label;
	uint32_t max_rate_kb;
	struct pgr_compress_spec compress;
	bool estimate_size;
	bool manifest;
	bool manifest_force_encode;
	const char *manifest_checksums; /* NULL: the server's default */
	bool verify_checksums;
	bool verify_transfer; /* what comes must have the digest of the server; a stream: that of its manifest */
	bool sync;
	enum pgr_sync_method sync_method;
	bool clean; /* remove what was made when the run fails */
	int64_t status_interval_ms;
	/*
	 * 1: the stream.  More: so many lanes.  0: lanes where role, server and options allow it, otherwise the stream.
	 */
	unsigned jobs;
	size_t pool_bytes; /* memory for blocks; 0: the default */
	/*
	 * Doublings (above 0) and halvings (below) of the transfer rate that were asked for so far; NULL: none.  May
	 * change in any thread while it runs.
	 */
	const atomic_int *rate_steps;
	unsigned writers; /* 0: the default */

	/*
	 * Other than PGR_DELTA_OFF (plain format only): data_dir may hold an old copy of the same cluster, or what a
	 * run like this one left, see olddir.h.  Nothing is removed after a failure, but a slot of create_slot: the
	 * directory cannot start, and another run goes on with it.
	 */
	enum pgr_delta delta;
	struct pgr_keep keep;
	bool slot_may_exist; /* create_slot: an earlier attempt may have left the slot; it is used then */
	bool dry_run;	     /* only find out what there is to do, and print it: nothing is changed on either side */
	bool list_paths;     /* dry_run: print each path, too */

	/* What the run says; all may be NULL; called from the thread that runs, and `info` also from the WAL thread. */
	void (*info)(void *arg, const char *line); /* what -v prints */
	void (*say)(void *arg, const char *line);  /* shown always: what a clean-up removes */
	void (*warning)(void *arg, const char *line);
	void (*print)(void *arg, const char *line); /* what dry_run finds */
	void (*progress)(void *arg, const struct pgr_progress *p);
	void (*connected)(void *arg, const struct pgr_transport *t); /* the first connection is made */
	void (*failed)(void *arg, const struct pgr_err *err);	     /* the run has failed; its clean-up follows */
	pgr_notice_fn *notice;
	void *arg;
};

/*
 * Runs one base backup.  `params` as for pgr_transport_open; two connections are made with -X stream.
 * PGR_ERR: *err says why; what was made was removed (when opts->clean, and not with opts->delta), except with
 * PGR_E_CHECKSUM, where the complete copy stays; a slot or temporary slot that this run made is gone.  PGR_E_STOPPED:
 * the stop latch was set from outside.  The stop latch is spent after a failure: another run needs another one.
 */
int pgr_basebackup_run(const struct pgr_basebackup_opts *opts, struct pgr_conn_params *params,
		       const struct pgr_sys *sys, struct pgr_stop *stop, struct pgr_err *err) PGR_MUST_USE;

#endif
