#include "tools/progress.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backup/basebackup.h"

#define FILE_CHARS 35 /* how much of a file's name pg_basebackup shows */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void pgr_progress_line_init(struct pgr_progress_line *l, bool with_file)
{
	*l = (struct pgr_progress_line){.out = stderr, .terminal = isatty(STDERR_FILENO) == 1, .with_file = with_file};
	pthread_mutex_init(&l->lock, NULL);
}

/* The end of the name, with "..." before it where it does not fit. */
static void file_tail(char out[FILE_CHARS + 1], const char *file)
{
	size_t len = strlen(file);

	if (len <= FILE_CHARS)
		snprintf(out, FILE_CHARS + 1, "%s", file);
	else
		snprintf(out, FILE_CHARS + 1, "...%s", file + len - (FILE_CHARS - 3));
}

static void rate_and_time_left(struct pgr_progress_line *l, char *out, size_t cap, uint64_t done, uint64_t total)
{
	int64_t ms = now_ms() - l->copy_start_ms;
	uint64_t rate = ms > 0 ? done * 1000 / (uint64_t)ms : 0;
	uint64_t left;

	out[0] = '\0';
	if (!l->terminal || rate == 0)
		return;
	left = total > done ? (total - done) / rate : 0;
	snprintf(out, cap, ", %" PRIu64 " MB/s, %" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " left", rate / 1000000,
		 left / 3600, left / 60 % 60, left % 60);
}

static void show_copy(struct pgr_progress_line *l, const struct pgr_progress *p)
{
	uint64_t done = p->done_bytes / 1024;
	uint64_t total = p->total_bytes / 1024 > done ? p->total_bytes / 1024 : done; /* the estimate may be exceeded */
	int percent = total > 0 ? (int)((double)done * 100.0 / (double)total) : 0;
	char file[FILE_CHARS + 1] = "", tail[64], number[24];
	int width;

	if (l->copy_start_ms == 0)
		l->copy_start_ms = now_ms();
	width = snprintf(number, sizeof(number), "%" PRIu64, total);
	rate_and_time_left(l, tail, sizeof(tail), p->done_bytes, p->total_bytes);
	if (l->with_file)
		file_tail(file, p->file);
	fprintf(l->out, "%*" PRIu64 "/%s kB (%d%%), %u/%u tablespace%s", width, done, number, percent, p->tablespace,
		p->tablespaces, p->tablespaces == 1 ? "" : "s");
	if (l->with_file)
		fprintf(l->out, " (%-*s)", FILE_CHARS, file);
	fprintf(l->out, "%s", tail);
}

static void show_locked(struct pgr_progress_line *l, const struct pgr_progress *p)
{
	switch (p->phase) {
	case PGR_PHASE_CONNECT:
	case PGR_PHASE_DONE:
		return;
	case PGR_PHASE_CHECKPOINT:
		if (l->with_file) /* -v says it in words */
			return;
		fputs("waiting for checkpoint", l->out);
		break;
	case PGR_PHASE_COPY:
		show_copy(l, p);
		break;
	case PGR_PHASE_WAL:
		if (l->with_file)
			return;
		fputs("waiting for write-ahead log", l->out);
		break;
	case PGR_PHASE_SYNC:
		if (l->with_file)
			return;
		fputs("syncing data to disk", l->out);
		break;
	}
	/* a shorter line must not leave the tail of a longer one */
	fputs(l->terminal ? "\033[K\r" : "\n", l->out);
	fflush(l->out);
	l->open = l->terminal;
}

void pgr_progress_line_show(struct pgr_progress_line *l, const struct pgr_progress *p)
{
	pthread_mutex_lock(&l->lock);
	show_locked(l, p);
	pthread_mutex_unlock(&l->lock);
}

void pgr_progress_line_end(struct pgr_progress_line *l)
{
	pthread_mutex_lock(&l->lock);
	if (l->open) {
		fputc('\n', l->out);
		fflush(l->out);
	}
	l->open = false;
	pthread_mutex_unlock(&l->lock);
}
