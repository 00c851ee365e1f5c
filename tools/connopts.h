/* Connection options that both programs share, and the password prompt. */
#ifndef PGR_TOOLS_CONNOPTS_H
#define PGR_TOOLS_CONNOPTS_H

#include <stdbool.h>

#include "common/err.h"
#include "proto/conn_params.h"

/*
 * Prompts "Password: " on /dev/tty (stderr and stdin when there is none), without echo.  As src/common/sprompt.c.
 * `arg` is the `struct pgr_stop *` that interrupts it (PGR_E_STOPPED), or NULL.  The terminal's mode is restored on
 * every way out.  PGR_E_USAGE: no line to read.  *out is malloc'd, "" for an empty line, NULL after a failure.
 */
int pgr_prompt_password(void *arg, char **out, struct pgr_err *err) PGR_MUST_USE;

/* getopt_long's options for connections, short and long (getopt.h), and whether `c` is one of them (then it was
 * stored). */
#define PGR_CONN_SHORTOPTS "d:h:p:U:wW"
/* clang-format off */
#define PGR_CONN_LONGOPTS                                                                                              \
	{"dbname", required_argument, NULL, 'd'},                                                                      \
	{"host", required_argument, NULL, 'h'},                                                                        \
	{"port", required_argument, NULL, 'p'},                                                                        \
	{"username", required_argument, NULL, 'U'},                                                                    \
	{"no-password", no_argument, NULL, 'w'},                                                                       \
	{"password", no_argument, NULL, 'W'}
/* clang-format on */
bool pgr_conn_option(struct pgr_conn_params *p, int c, const char *arg);

/* Parses the argument of a numeric option as pg's option_parse_int: "invalid value \"%s\" for option %s", "%s must be
 * in range %d..%d".  Unlike there, an empty argument is no number. */
int pgr_option_int(const char *arg, const char *option, int min, int max, int *out, struct pgr_err *err) PGR_MUST_USE;

#endif
