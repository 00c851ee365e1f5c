#include "backup/run.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/dirsink.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "common/block.h"
#include "common/sys.h"

#define PROGRESS_EVERY_MS 1000

static void PGR_PRINTF(3, 0)
	tell(struct pgr_run *r, void (*fn)(void *arg, const char *line), const char *fmt, va_list ap)
{
	char line[PATH_MAX + 1024];

	if (fn == NULL)
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	fn(r->opts->arg, line);
}

void pgr_run_info(struct pgr_run *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(r, r->opts->info, fmt, ap);
	va_end(ap);
}

void pgr_run_warning(struct pgr_run *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(r, r->opts->warning, fmt, ap);
	va_end(ap);
}

void pgr_run_say(struct pgr_run *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(r, r->opts->say, fmt, ap);
	va_end(ap);
}

void pgr_run_print(struct pgr_run *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tell(r, r->opts->print, fmt, ap);
	va_end(ap);
}

void pgr_run_report(struct pgr_run *r, bool force)
{
	int64_t now;

	if (r->opts->progress == NULL)
		return;
	now = r->sys->mono_ms(r->sys);
	if (!force && now - r->progress_at_ms < PROGRESS_EVERY_MS)
		return;
	r->progress_at_ms = now;
	if (r->bb != NULL)
		r->progress.done_bytes = pgr_bbstream_progress_bytes(r->bb) + r->spared_bytes;
	else if (r->lanes != NULL)
		r->progress.done_bytes = pgr_lanes_bytes(r->lanes);
	r->opts->progress(r->opts->arg, &r->progress);
}

void pgr_run_phase(struct pgr_run *r, enum pgr_phase p)
{
	r->progress.phase = p;
	pgr_run_report(r, true);
}

/* ---- a file of our own ---- */

int pgr_run_file_open(struct pgr_run_file *f, struct pgr_run *r, const char *name, struct pgr_err *err)
{
	*f = (struct pgr_run_file){.run = r};
	return pgr_dirsink_create(r->sink, pgr_layout_root(r->layout, 0), name, name, pgr_layout_file_mode(r->layout),
				  &f->file, err);
}

/* Hands a block on when it is full, or at the end. */
static int post(struct pgr_run_file *f, struct pgr_err *err)
{
	size_t len = f->block->len;
	uint64_t at = f->size - len;

	if (len > 0)
		return pgr_dirsink_post(f->run->sink, f->file, at, &f->block, err);
	pgr_pool_put(f->run->pool, f->block);
	f->block = NULL;
	return PGR_OK;
}

int pgr_run_file_put(struct pgr_run_file *f, const void *data, size_t len, struct pgr_err *err)
{
	const uint8_t *p = data;

	while (len > 0) {
		size_t n;

		if (f->block == NULL && pgr_pool_get(f->run->pool, &f->block, err) != PGR_OK)
			return PGR_ERR;
		n = f->block->cap - f->block->len;
		if (n > len)
			n = len;
		memcpy(f->block->data + f->block->len, p, n);
		f->block->len += n;
		f->size += n;
		p += n;
		len -= n;
		if (f->block->len == f->block->cap && post(f, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

int pgr_run_file_end(struct pgr_run_file *f, int rc, struct pgr_err *err)
{
	if (rc == PGR_OK && f->block != NULL)
		rc = post(f, err);
	if (rc == PGR_OK)
		return pgr_dirsink_seal(f->run->sink, &f->file, f->size, err);
	pgr_pool_put(f->run->pool, f->block);
	f->block = NULL;
	pgr_dirsink_abandon(f->run->sink, &f->file);
	return PGR_ERR;
}
