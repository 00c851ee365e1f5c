#include "backup/run_meter.h"

#include "backup/run.h"

static int meter_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pgr_run_meter *m = (struct pgr_run_meter *)s;

	pgr_run_report(m->run, false);
	return pgr_source_read(m->from, dst, cap, n, err);
}

struct pgr_run_meter pgr_run_meter_of(struct pgr_run *run, struct pgr_source *from)
{
	return (struct pgr_run_meter){.source = {.read = meter_read}, .from = from, .run = run};
}
