#include "proto/libpq_said.h"

#include <string.h>

#include "proto/settings.h"

void pgr_libpq_said_fini(struct pgr_libpq_said *s)
{
	pgr_buf_fini(&s->text);
	s->heard = 0;
}

void pgr_libpq_said_reset(struct pgr_libpq_said *s)
{
	s->text.len = 0;
	s->heard = 0;
}

void pgr_libpq_said_next(struct pgr_libpq_said *s)
{
	s->heard = 0;
}

/* Takes over what libpq said since the last time. */
static int hear(struct pgr_libpq_said *s, PGconn *conn, struct pgr_err *err)
{
	const char *text = PQerrorMessage(conn);
	size_t len = strlen(text);
	size_t from = s->heard < len ? s->heard : len;

	s->heard = len;
	return pgr_buf_puts(&s->text, text + from, err);
}

/* libpq's text so far ends with 'connection to server at "..." failed: '. */
int pgr_libpq_said_timeout(struct pgr_libpq_said *s, PGconn *conn, struct pgr_err *err)
{
	size_t before = s->text.len;

	if (hear(s, conn, err) != PGR_OK)
		return PGR_ERR;
	if (s->text.len == before && /* before libpq 14 */
	    pgr_buf_printf(&s->text, err, "connection to server at \"%s\", port %s failed: ",
			   pgr_setting_text(PQhost(conn)), pgr_setting_text(PQport(conn))) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(&s->text, "timeout expired\n", err);
}

/* The reset connection that we made ourselves: one line, and libpq's indented guess after it. */
void pgr_libpq_said_skip(struct pgr_libpq_said *s, const PGconn *conn)
{
	const char *text = PQerrorMessage(conn);
	size_t len = strlen(text);
	size_t at = s->heard < len ? s->heard : len;

	do {
		at += strcspn(text + at, "\n");
		at += text[at] == '\n';
	} while (text[at] == '\t');
	s->heard = at;
}

/* Where "XXXXX: " stands behind "FATAL:  " in a line; NULL. */
static char *find_sqlstate(char *line, const char *end)
{
	for (char *c = line; end - c >= 10; c++) {
		if (memcmp(c, ":  ", 3) != 0 || memcmp(c + 8, ": ", 2) != 0)
			continue;
		if (strspn(c + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
			return c + 3;
	}
	return NULL;
}

void pgr_libpq_said_plain(char *text, char sqlstate[6])
{
	static const char where[] = "LOCATION:  ";
	char *to = text;

	for (char *line = text, *end; *line != '\0'; line = end) {
		char *state;

		end = line + strcspn(line, "\n");
		end += *end == '\n';
		if (strncmp(line, where, sizeof(where) - 1) == 0)
			continue;
		state = find_sqlstate(line, end);
		if (state != NULL) {
			memcpy(sqlstate, state, 5);
			memmove(state, state + 7, strlen(state + 7) + 1);
			end -= 7;
		}
		memmove(to, line, (size_t)(end - line));
		to += end - line;
	}
	while (to > text && to[-1] == '\n')
		to--;
	*to = '\0';
}

int pgr_libpq_said_error(struct pgr_libpq_said *s, PGconn *conn, struct pgr_err *err)
{
	char sqlstate[6] = "";
	char *text;

	if (hear(s, conn, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_str(&s->text) == NULL)
		return pgr_err_nomem(err);
	text = (char *)s->text.data;
	pgr_libpq_said_plain(text, sqlstate);
	pgr_err_set(err, PGR_E_CONNECT, "%s", pgr_setting_given(text) ? text : "could not connect to server");
	memcpy(err->sqlstate, sqlstate, sizeof(sqlstate));
	return PGR_ERR;
}
