/* A source that decompresses another source. */
#ifndef PGR_BACKUP_INFLATE_H
#define PGR_BACKUP_INFLATE_H

#include "backup/source.h"
#include "common/decompress.h"

struct pgr_inflate;

/* `from` stays the caller's and outlives the inflater.  A source that ends inside the compressed stream is PGR_E_DATA.
 * `name` is for messages. */
int pgr_inflate_new(struct pgr_inflate **out, struct pgr_source *from, enum pgr_compression method, const char *name,
		    struct pgr_err *err) PGR_MUST_USE;
struct pgr_source *pgr_inflate_source(struct pgr_inflate *z);
void pgr_inflate_free(struct pgr_inflate *z);

#endif
