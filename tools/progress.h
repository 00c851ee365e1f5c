/*
 * The line of -P, in pg_basebackup's format ("%*s/%s kB (%d%%), %d/%d tablespaces"), with rate and time left behind it
 * on a terminal.
 */
#ifndef PGR_TOOLS_PROGRESS_H
#define PGR_TOOLS_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct pgr_progress;

struct pgr_progress_line {
	FILE *out;
	bool terminal;	/* the line is drawn over with \r */
	bool with_file; /* -v: the name of the file under way */
	pthread_mutex_t lock;
	bool open;	       /* a line without newline stands on the terminal */
	int64_t copy_start_ms; /* when the first byte came; 0 before */
	bool waiting_said;
};

void pgr_progress_line_init(struct pgr_progress_line *l, bool with_file);
void pgr_progress_line_show(struct pgr_progress_line *l, const struct pgr_progress *p);

/* Ends a line that stands open, so that a message starts on its own. */
void pgr_progress_line_end(struct pgr_progress_line *l);

#endif
