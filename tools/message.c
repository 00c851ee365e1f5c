/*
 * Messages of the programs.
 *
 * A message is put together in memory and handed to stderr in one piece, under stderr's lock: threads that speak at the
 * same time must not mix their lines, nor break into a progress line.
 */
#include "tools/message.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"

enum part { PART_INFO, PART_ERROR, PART_WARNING, PART_DETAIL, PART_HINT };

static const char *base_name(const char *argv0)
{
	const char *slash;

	if (argv0 == NULL || argv0[0] == '\0')
		return "pgr";
	slash = strrchr(argv0, '/');
	return slash != NULL && slash[1] != '\0' ? slash + 1 : argv0;
}

/* A value that is too long, or not of the form of an SGR sequence, is as good as none. */
static void set_sgr(char out[32], const char *value, size_t len)
{
	out[0] = '\0';
	if (len >= 32 || strspn(value, "0123456789;") < len)
		return;
	memcpy(out, value, len);
	out[len] = '\0';
}

/* PG_COLORS: name=value pairs with ':' between them; what it does not mention has no colour. */
static void read_colors(struct pgr_messages *m, const char *spec)
{
	const struct {
		const char *name;
		char *sgr;
	} known[] = {
		{"error", m->sgr_error},
		{"warning", m->sgr_warning},
		{"note", m->sgr_note},
		{"locus", m->sgr_locus},
	};

	for (const char *p = spec; *p != '\0';) {
		size_t len = strcspn(p, ":");
		const char *eq = memchr(p, '=', len);

		for (size_t i = 0; eq != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
			size_t name_len = strlen(known[i].name);

			if ((size_t)(eq - p) == name_len && memcmp(p, known[i].name, name_len) == 0)
				set_sgr(known[i].sgr, eq + 1, len - name_len - 1);
		}
		p += len;
		p += *p == ':';
	}
}

static void default_colors(struct pgr_messages *m)
{
	set_sgr(m->sgr_error, "01;31", 5);
	set_sgr(m->sgr_warning, "01;35", 5);
	set_sgr(m->sgr_note, "01;36", 5);
	set_sgr(m->sgr_locus, "01", 2);
}

void pgr_messages_init(struct pgr_messages *m, const char *argv0)
{
	const char *color = getenv("PG_COLOR");
	const char *colors = getenv("PG_COLORS");

	memset(m, 0, sizeof(*m));
	m->progname = base_name(argv0);
	m->colour = color != NULL &&
		    (strcmp(color, "always") == 0 || (strcmp(color, "auto") == 0 && isatty(STDERR_FILENO) == 1));
	if (!m->colour)
		return;
	if (colors != NULL)
		read_colors(m, colors);
	else
		default_colors(m);
}

static int put_coloured(struct pgr_buf *b, const char *sgr, const char *text, struct pgr_err *err)
{
	if (sgr[0] == '\0')
		return pgr_buf_puts(b, text, err);
	return pgr_buf_printf(b, err, "\033[%sm%s\033[0m", sgr, text);
}

static int put_prefix(const struct pgr_messages *m, struct pgr_buf *b, enum part part, struct pgr_err *err)
{
	char locus[256];
	int n = snprintf(locus, sizeof(locus), "%s: ", m->progname);

	if (n < 0 || put_coloured(b, m->sgr_locus, locus, err) != PGR_OK)
		return PGR_ERR;
	switch (part) {
	case PART_ERROR:
		return put_coloured(b, m->sgr_error, "error: ", err);
	case PART_WARNING:
		return put_coloured(b, m->sgr_warning, "warning: ", err);
	case PART_DETAIL:
		return put_coloured(b, m->sgr_note, "detail: ", err);
	case PART_HINT:
		return put_coloured(b, m->sgr_note, "hint: ", err);
	case PART_INFO:
		break;
	}
	return PGR_OK;
}

/*
 * Texts hold names and words of a server and of files.  What could steer a terminal does not reach it: control
 * characters other than newline and tab become '?'.
 */
static void disarm(uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((p[i] < 0x20 && p[i] != '\n' && p[i] != '\t') || p[i] == 0x7f)
			p[i] = '?';
}

static int put_text(struct pgr_buf *b, const char *text, struct pgr_err *err)
{
	size_t at = b->len;

	if (pgr_buf_puts(b, text, err) != PGR_OK)
		return PGR_ERR;
	disarm(b->data + at, b->len - at);
	return PGR_OK;
}

static void write_out(struct pgr_messages *m, const void *p, size_t len)
{
	fflush(stdout); /* in case both go to one place: keep the order */
	flockfile(stderr);
	if (m->progress_open) {
		m->progress_open = false;
		fputc('\n', stderr);
	}
	fwrite(p, 1, len, stderr);
	fflush(stderr);
	funlockfile(stderr);
}

/* One newline at the end of `text` is dropped: libpq's messages bring one. */
static void say(struct pgr_messages *m, enum part part, const char *text)
{
	struct pgr_buf b = {0};
	struct pgr_err err;
	int rc = put_prefix(m, &b, part, &err);

	if (rc == PGR_OK)
		rc = put_text(&b, text, &err);
	if (rc == PGR_OK && b.len > 0 && b.data[b.len - 1] == '\n')
		b.len--;
	if (rc == PGR_OK)
		rc = pgr_buf_put8(&b, '\n', &err);
	if (rc == PGR_OK)
		write_out(m, b.data, b.len);
	else
		write_out(m, "out of memory\n", 14);
	pgr_buf_fini(&b);
}

static void vsay(struct pgr_messages *m, enum part part, const char *fmt, va_list ap) PGR_PRINTF(3, 0);

static void vsay(struct pgr_messages *m, enum part part, const char *fmt, va_list ap)
{
	char *text = NULL;

	/* without memory the bare format still says more than nothing */
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	say(m, part, text != NULL ? text : fmt);
	free(text);
}

void pgr_say_error(struct pgr_messages *m, const struct pgr_err *err)
{
	say(m, PART_ERROR, err->msg);
	if (err->detail[0] != '\0')
		say(m, PART_DETAIL, err->detail);
	if (err->hint[0] != '\0')
		say(m, PART_HINT, err->hint);
}

void pgr_say_errorf(struct pgr_messages *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(m, PART_ERROR, fmt, ap);
	va_end(ap);
}

void pgr_say_warning(struct pgr_messages *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(m, PART_WARNING, fmt, ap);
	va_end(ap);
}

void pgr_say_hint(struct pgr_messages *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(m, PART_HINT, fmt, ap);
	va_end(ap);
}

void pgr_say_info(struct pgr_messages *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay(m, PART_INFO, fmt, ap);
	va_end(ap);
}

void pgr_say_verbose(struct pgr_messages *m, const char *fmt, ...)
{
	va_list ap;

	if (m->verbose == 0)
		return;
	va_start(ap, fmt);
	vsay(m, PART_INFO, fmt, ap);
	va_end(ap);
}

void pgr_say_notice(struct pgr_messages *m, const char *text)
{
	struct pgr_buf b = {0};
	struct pgr_err err;

	if (put_text(&b, text, &err) == PGR_OK)
		write_out(m, b.data, b.len);
	pgr_buf_fini(&b);
}
