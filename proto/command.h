/*
 * Replication commands as text, by server version.  Pure: everything that a version changes is decided from caps.h.
 *
 * Names are quoted with "", strings with ''.  All functions append to `out` (without a final NUL) and return PGR_ERR
 * with PGR_E_USAGE when the server cannot do what was asked, naming the feature and the version that has it. Source:
 * PostgreSQL documentation, "Streaming Replication Protocol"; src/backend/replication/repl_gram.y of each major.
 */
#ifndef PGR_PROTO_COMMAND_H
#define PGR_PROTO_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/lsn.h"

struct pgr_base_backup_cmd {
	const char *label; /* required */
	bool progress;	   /* ask for sizes */
	bool fast_checkpoint;
	bool include_wal;     /* -X fetch */
	bool no_wait;	      /* do not wait for WAL archiving at the end (all but -X none) */
	uint32_t max_rate_kb; /* kB/s; 0: unlimited */
	bool tablespace_map;  /* links are left out of the tar (tar format, targets) */
	bool no_verify_checksums;
	bool manifest;
	bool manifest_force_encode;
	const char *manifest_checksums; /* "CRC32C", "SHA256", ...; NULL: the server's default */
	const char *target;		/* NULL: the default ("client") */
	const char *target_detail;
	const char *compression;	/* "gzip", "lz4", "zstd" on the server; NULL: none */
	const char *compression_detail; /* "level=3,workers=2"; NULL: none */
	bool incremental;
};

int pgr_cmd_identify_system(struct pgr_buf *out, struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_show(struct pgr_buf *out, int server_version, const char *name, struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_timeline_history(struct pgr_buf *out, int server_version, pgr_tli tli, struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_create_slot(struct pgr_buf *out, int server_version, const char *slot, bool temporary, bool reserve_wal,
			struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_read_slot(struct pgr_buf *out, int server_version, const char *slot, struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_drop_slot(struct pgr_buf *out, int server_version, const char *slot, struct pgr_err *err) PGR_MUST_USE;
/* slot may be NULL; timeline 0 is left out.  Refused before 9.3 (PGR_CAP_WAL_STREAM). */
int pgr_cmd_start_replication(struct pgr_buf *out, int server_version, const char *slot, pgr_lsn start, pgr_tli tli,
			      struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_base_backup(struct pgr_buf *out, int server_version, const struct pgr_base_backup_cmd *cmd,
			struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_upload_manifest(struct pgr_buf *out, int server_version, struct pgr_err *err) PGR_MUST_USE;

/* Append a name in double quotes, or a string in single quotes, quotes inside doubled. */
int pgr_cmd_put_ident(struct pgr_buf *out, const char *name, struct pgr_err *err) PGR_MUST_USE;
int pgr_cmd_put_literal(struct pgr_buf *out, const char *text, struct pgr_err *err) PGR_MUST_USE;

#endif
