/* --delta: what a run came to, and what a dry run finds that one would.  Internal to backup/. */
#ifndef PGR_BACKUP_DELTA_TELL_H
#define PGR_BACKUP_DELTA_TELL_H

#include "common/err.h"

struct pgr_run;

/* After the copy: says what it came to.  In another run it does nothing. */
void pgr_delta_tell(struct pgr_run *r);

/* Instead of everything that changes something: finds out what there is to do, and prints it. */
int pgr_delta_tell_dry_run(struct pgr_run *r, struct pgr_err *err) PGR_MUST_USE;

#endif
