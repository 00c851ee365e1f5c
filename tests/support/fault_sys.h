/*
 * A struct pgr_sys that makes the Nth call fail: run a scenario with fail_at = 1, 2, 3 ... until nothing fails any
 * more.
 */
#ifndef PGR_TESTS_FAULT_SYS_H
#define PGR_TESTS_FAULT_SYS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/sys.h"

struct pgr_fault_sys {
	struct pgr_sys sys; /* first: what is handed to the code under test */
	const struct pgr_sys *real;
	unsigned fail_at;      /* 1-based number of the call that fails; 0: none */
	int fail_errno;	       /* with this errno */
	bool short_io;	       /* reads and writes transfer at most 1 byte on odd calls */
	atomic_uint calls;     /* fallible calls so far (close counts: it is carried out, then fails; clocks do not) */
	atomic_bool triggered; /* the failure happened */
	const char *failed_call; /* "fsync", ...: what failed */
	/* counts, for assertions such as "synced before renamed" */
	atomic_uint opens, closes, fsyncs;
};

void pgr_fault_sys_init(struct pgr_fault_sys *f, unsigned fail_at, int fail_errno);

#endif
