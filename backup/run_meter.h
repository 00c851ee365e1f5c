/*
 * A source that reports a run's progress as bytes pass.
 */
#ifndef PGR_BACKUP_RUN_METER_H
#define PGR_BACKUP_RUN_METER_H

#include "backup/source.h"

struct pgr_run;

struct pgr_run_meter {
	struct pgr_source source; /* first: what is read from */
	struct pgr_source *from;
	struct pgr_run *run;
};

/* Both outlive the meter, which has nothing to be freed. */
struct pgr_run_meter pgr_run_meter_of(struct pgr_run *run, struct pgr_source *from);

#endif
