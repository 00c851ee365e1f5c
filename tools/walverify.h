/*
 * pgr-receivewal --verify: checks a directory of WAL and says what it found, on standard output.
 */
#ifndef PGR_TOOLS_WALVERIFY_H
#define PGR_TOOLS_WALVERIFY_H

#include "tools/message.h"

struct pgr_sys;

/*
 * One line for each problem and each note, with -v also for each range of WAL without a gap, and a summary.  Without -v
 * not more than 1000 problems are told; all are counted.  Returns the program's exit code: 0 no problem, 1 the
 * directory cannot be checked or the output not be written, 2 problems were found.
 */
int pgr_walverify(struct pgr_messages *msg, const struct pgr_sys *sys, const char *dir);

#endif
