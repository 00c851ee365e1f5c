/*
 * What a person sees: messages on stderr in the form of PostgreSQL's programs.
 *
 * "progname: error: text", "progname: detail: text", "progname: hint: text", "progname: text".  Colours as PG_COLOR and
 * PG_COLORS ask (src/common/logging.c).
 */
#ifndef PGR_TOOLS_MESSAGE_H
#define PGR_TOOLS_MESSAGE_H

#include <stdbool.h>

#include "common/err.h"

struct pgr_messages {
	const char *progname;
	bool colour;
	int verbose;	    /* number of -v */
	bool progress_open; /* a progress line without newline stands on the terminal */
	char sgr_error[32], sgr_warning[32], sgr_note[32], sgr_locus[32];
};

/* progname: the last component of argv[0].  Reads PG_COLOR and PG_COLORS. */
void pgr_messages_init(struct pgr_messages *m, const char *argv0);

void pgr_say_error(struct pgr_messages *m, const struct pgr_err *err); /* with detail and hint */
void pgr_say_errorf(struct pgr_messages *m, const char *fmt, ...) PGR_PRINTF(2, 3);
void pgr_say_warning(struct pgr_messages *m, const char *fmt, ...) PGR_PRINTF(2, 3);
void pgr_say_hint(struct pgr_messages *m, const char *fmt, ...) PGR_PRINTF(2, 3);
void pgr_say_info(struct pgr_messages *m, const char *fmt, ...) PGR_PRINTF(2, 3);    /* always */
void pgr_say_verbose(struct pgr_messages *m, const char *fmt, ...) PGR_PRINTF(2, 3); /* with -v */

/* A server's notice: raw, without prefix, as libpq's default notice processor prints it. */
void pgr_say_notice(struct pgr_messages *m, const char *text);

#endif
