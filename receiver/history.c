#include "receiver/history.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/num.h"

struct line {
	const char *p;
	size_t len;
};

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void skip_blanks(struct line *l)
{
	while (l->len > 0 && is_blank(l->p[0])) {
		l->p++;
		l->len--;
	}
}

/* Takes what stands before the next blank. */
static struct line take_word(struct line *l)
{
	struct line word = {l->p, 0};

	while (l->len > 0 && !is_blank(l->p[0])) {
		l->p++;
		l->len--;
		word.len++;
	}
	return word;
}

/* Takes the next line, without its newline; the last one may lack it. */
static struct line take_line(struct line *text)
{
	const char *newline = memchr(text->p, '\n', text->len);
	struct line l = {text->p, newline != NULL ? (size_t)(newline - text->p) : text->len};
	size_t used = l.len + (newline != NULL);

	text->p += used;
	text->len -= used;
	return l;
}

/*
 * "<timeline> <switch point> [reason]", or PGR_MORE for an empty line or a comment.  The reason is free text of whoever
 * promoted the server.
 */
static int parse_line(struct line l, struct pgr_history_entry *e, struct pgr_err *err)
{
	struct line word;

	skip_blanks(&l);
	if (l.len == 0 || l.p[0] == '#')
		return PGR_MORE;
	word = take_word(&l);
	if (!pgr_num_u32(word.p, word.len, &e->tli) || e->tli == 0)
		return pgr_err_set(err, PGR_E_DATA, "expected a timeline ID");
	skip_blanks(&l);
	word = take_word(&l);
	if (!pgr_lsn_parse(word.p, word.len, &e->end))
		return pgr_err_set(err, PGR_E_DATA, "expected a WAL position");
	return PGR_OK;
}

/* Grows by doubling; `cap` is the caller's, because a finished history does not grow. */
static int add_entry(struct pgr_history *h, size_t *cap, const struct pgr_history_entry *e, struct pgr_err *err)
{
	if (h->n == *cap) {
		size_t more = *cap == 0 ? 8 : *cap * 2;
		struct pgr_history_entry *p = reallocarray(h->entries, more, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		h->entries = p;
		*cap = more;
	}
	h->entries[h->n++] = *e;
	return PGR_OK;
}

/*
 * Timelines must ascend; switch points need not: a server that recovers to a target before the point where its timeline
 * began, and is promoted there, writes a history whose last switch point lies before the one above it.
 */
static int parse_entry(struct pgr_history *h, size_t *cap, pgr_tli tli, struct line l, struct pgr_err *err)
{
	struct pgr_history_entry e;
	int rc = parse_line(l, &e, err);

	if (rc != PGR_OK)
		return rc;
	if (h->n > 0 && e.tli <= h->entries[h->n - 1].tli)
		return pgr_err_set(err, PGR_E_DATA, "timeline IDs must be in increasing sequence");
	if (e.tli >= tli)
		return pgr_err_set(err, PGR_E_DATA, "timeline IDs must be less than the child timeline's ID");
	return add_entry(h, cap, &e, err);
}

static int parse_text(struct pgr_history *h, pgr_tli tli, struct line text, struct pgr_err *err)
{
	const struct pgr_history_entry self = {.tli = tli, .end = PGR_LSN_INVALID};
	size_t cap = 0;

	for (size_t number = 1; text.len > 0; number++) {
		if (parse_entry(h, &cap, tli, take_line(&text), err) == PGR_ERR)
			return pgr_err_prefix(err, "invalid history file of timeline %u, line %zu", tli, number);
	}
	return add_entry(h, &cap, &self, err);
}

int pgr_history_parse(struct pgr_history *h, pgr_tli tli, const char *text, size_t len, struct pgr_err *err)
{
	*h = (struct pgr_history){0};
	if (parse_text(h, tli, (struct line){text, len}, err) == PGR_OK)
		return PGR_OK;
	pgr_history_fini(h);
	return PGR_ERR;
}

void pgr_history_fini(struct pgr_history *h)
{
	free(h->entries);
	*h = (struct pgr_history){0};
}

bool pgr_history_find(const struct pgr_history *h, pgr_tli tli, pgr_lsn *end)
{
	for (size_t i = 0; i < h->n; i++) {
		if (h->entries[i].tli != tli)
			continue;
		*end = h->entries[i].end;
		return true;
	}
	return false;
}
