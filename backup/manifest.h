/*
 * The backup manifest: writing one that the stock tools accept, and reading one that a server sent.
 *
 * Source: PostgreSQL documentation, "Backup Manifest Format"; src/backend/backup/backup_manifest.c;
 * src/common/parse_manifest.c.
 */
#ifndef PGR_BACKUP_MANIFEST_H
#define PGR_BACKUP_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"
#include "common/lsn.h"

/* ---- writing ---- */

struct pgr_manifest_writer;

/* Bytes of the manifest, in order and in pieces of some size; `arg` as given to new. */
typedef int pgr_manifest_sink(void *arg, const void *data, size_t len, struct pgr_err *err);

/*
 * Starts a manifest: version 2 with the system identifier from server 17 on, version 1 before.  `force_encode`
 * hex-encodes all paths (otherwise only those that are not valid UTF-8).  `system_identifier`: decimal (version 2:
 * PGR_E_DATA if it is not); NULL will do for version 1.
 */
int pgr_manifest_writer_new(struct pgr_manifest_writer **out, int server_version, const char *system_identifier,
			    bool force_encode, pgr_manifest_sink *sink, void *arg, struct pgr_err *err) PGR_MUST_USE;
/* One file; `mtime` in seconds since 1970 UTC; without checksum when algo is PGR_DIGEST_NONE. */
int pgr_manifest_add_file(struct pgr_manifest_writer *w, const char *path, uint64_t size, int64_t mtime,
			  enum pgr_digest_algo algo, const uint8_t *sum, size_t sum_len,
			  struct pgr_err *err) PGR_MUST_USE;
/* A range of WAL that is needed; newest timeline first.  No files after the first range. */
int pgr_manifest_add_wal(struct pgr_manifest_writer *w, pgr_tli tli, pgr_lsn start, pgr_lsn end,
			 struct pgr_err *err) PGR_MUST_USE;
/* The end, with the manifest's own SHA-256; then the writer can only be freed, as after a failure. */
int pgr_manifest_writer_end(struct pgr_manifest_writer *w, struct pgr_err *err) PGR_MUST_USE;
void pgr_manifest_writer_free(struct pgr_manifest_writer *w);

/* ---- reading ---- */

struct pgr_manifest_file {
	const char *path; /* decoded; NUL-terminated */
	uint64_t size;
	enum pgr_digest_algo algo;
	uint8_t sum[PGR_DIGEST_MAX];
	size_t sum_len;
};

struct pgr_manifest;

/*
 * Parses a whole manifest (incrementally fed; memory: the path and about 100 bytes a file) and checks its own SHA-256.
 *
 * Strict: the top level in the order in which servers write it, the checksum on a line of its own; every key once, none
 * unknown; paths that are safe (pgr_path_is_safe) and different.  PGR_E_DATA: anything else; the message says where.
 * After a failure it can only be freed.
 */
int pgr_manifest_new(struct pgr_manifest **out, struct pgr_err *err) PGR_MUST_USE;
int pgr_manifest_feed(struct pgr_manifest *m, const void *data, size_t len, struct pgr_err *err) PGR_MUST_USE;
/* After the last byte, once. */
int pgr_manifest_done(struct pgr_manifest *m, struct pgr_err *err) PGR_MUST_USE;
void pgr_manifest_free(struct pgr_manifest *m);

/* After pgr_manifest_done was PGR_OK (before, there are no files).  Results live as long as the manifest. */
size_t pgr_manifest_files(const struct pgr_manifest *m);
/* Files sorted by path (bytewise).  NULL: i is too large. */
const struct pgr_manifest_file *pgr_manifest_file(const struct pgr_manifest *m, size_t i);
/* NULL when it is not in it. */
const struct pgr_manifest_file *pgr_manifest_find(const struct pgr_manifest *m, const char *path);
/* "" where the version has none. */
const char *pgr_manifest_system_identifier(const struct pgr_manifest *m);

#endif
