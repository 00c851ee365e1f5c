/*
 * Whether what came with the stream is what the server sent: every file against the server's backup manifest, which
 * comes last.
 *
 * The sums are computed by the writers of the dirsink while a file's blocks pass.  Of each file its path, size and sum
 * are kept: some 40 bytes beside the path and the sum.
 *
 * One thread calls these functions; the writers are looked after.
 *
 * Source: PostgreSQL documentation, "Backup Manifest Format"; src/backend/backup/backup_manifest.c and basebackup.c
 * (what is in a manifest: all that is sent, but the segments in pg_wal).
 */
#ifndef PGR_BACKUP_STREAM_CHECK_H
#define PGR_BACKUP_STREAM_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct pgr_dirsink;
struct pgr_sink_file;
struct pgr_stop;
struct pgr_stream_check;
struct pgr_stream_entry;

/*
 * `algo` is what the server was asked for; with PGR_DIGEST_NONE only names and sizes are compared.  A writer that
 * cannot finish a sum posts that to `stop`, which outlives the check.
 */
int pgr_stream_check_new(struct pgr_stream_check **out, enum pgr_digest_algo algo, struct pgr_stop *stop,
			 struct pgr_err *err) PGR_MUST_USE;
/* After the sink was freed: its writers look into it.  NULL is allowed. */
void pgr_stream_check_free(struct pgr_stream_check *c);

/*
 * A file of `size` bytes was made, and nothing of it posted yet: its writers will compute its sum.  `name` is the name
 * in its archive, and `oid` whose that is (0: the data directory's).
 */
int pgr_stream_check_file(struct pgr_stream_check *c, struct pgr_dirsink *sink, struct pgr_sink_file *f, uint32_t oid,
			  const char *name, uint64_t size, struct pgr_err *err) PGR_MUST_USE;

/*
 * The same for a file whose bytes the caller shows himself: begin, then its blocks (any thread; in ascending order when
 * pgr_stream_check_ordered), then done, which also gives the sum to the caller (*len is 0 with PGR_DIGEST_NONE).
 */
int pgr_stream_check_begin(struct pgr_stream_check *c, uint32_t oid, const char *name, uint64_t size,
			   struct pgr_stream_entry **out, struct pgr_err *err) PGR_MUST_USE;
void pgr_stream_check_block(struct pgr_stream_entry *e, uint64_t off, const void *data, size_t len);
int pgr_stream_check_done(struct pgr_stream_entry *e, uint64_t size, uint8_t sum[PGR_DIGEST_MAX], size_t *len,
			  struct pgr_err *err) PGR_MUST_USE;
bool pgr_stream_check_ordered(const struct pgr_stream_check *c);

/* A file of the data directory that came, but is not written (yet): with its content. */
int pgr_stream_check_content(struct pgr_stream_check *c, const char *name, const void *data, size_t len,
			     struct pgr_err *err) PGR_MUST_USE;

/* The same of which nobody wants the content: only its name and size are compared. */
int pgr_stream_check_left_out(struct pgr_stream_check *c, const char *name, uint64_t size,
			      struct pgr_err *err) PGR_MUST_USE;

/*
 * The manifest, after all files have come: in pieces of any size, then its end.  PGR_E_DATA: it is none, does not match
 * its own checksum, or is far larger than one of these files can be.
 */
int pgr_stream_check_manifest(struct pgr_stream_check *c, const void *data, size_t len,
			      struct pgr_err *err) PGR_MUST_USE;
int pgr_stream_check_manifest_end(struct pgr_stream_check *c, struct pgr_err *err) PGR_MUST_USE;

/*
 * After the manifest, and after the sink was drained.  PGR_E_DATA: a file is missing, not in the manifest, or has
 * another size or checksum; the message names the first by path, the detail says how many there are, the hint what may
 * help.
 */
int pgr_stream_check_compare(struct pgr_stream_check *c, struct pgr_err *err) PGR_MUST_USE;

/* So many files have come. */
size_t pgr_stream_check_files(const struct pgr_stream_check *c);

#endif
