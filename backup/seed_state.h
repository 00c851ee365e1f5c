/*
 * PGR_OLDDIR_STATE as text: what a run writes down of itself.  A person can read it; its last line is a checksum.
 */
#ifndef PGR_BACKUP_SEED_STATE_H
#define PGR_BACKUP_SEED_STATE_H

#include <stddef.h>

#include "backup/olddir.h"
#include "common/buf.h"
#include "common/err.h"

/* Appends the text.  PGR_E_DATA: the system identifier is no number. */
int pgr_seed_state_format(struct pgr_buf *out, const struct pgr_olddir_state *s, struct pgr_err *err) PGR_MUST_USE;

/* `text` has a NUL behind it.  PGR_E_DATA: it is damaged, or of another version of pgr. */
int pgr_seed_state_parse(const char *text, size_t len, struct pgr_olddir_state *out, struct pgr_err *err) PGR_MUST_USE;

#endif
