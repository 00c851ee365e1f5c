#include "tools/syncnames.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "common/buf.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "tools/message.h"

/* ---- the list ---- */

/* A name of the list, or one of the signs ( ) , and *, which then stands for itself.  Empty at the end. */
struct token {
	char text[64]; /* NAMEDATALEN: longer names are cut, as the server cuts application_name */
	bool quoted;
};

static void put(struct token *t, size_t *n, char c)
{
	if (*n + 1 < sizeof(t->text))
		t->text[(*n)++] = c;
}

static const char *quoted_token(const char *s, struct token *t, size_t *n)
{
	t->quoted = true;
	for (s++; *s != '\0'; s++) {
		if (*s == '"' && s[1] != '"')
			return s + 1;
		s += *s == '"';
		put(t, n, *s);
	}
	return s;
}

/* The token at `s`, and what comes behind it. */
static const char *next_token(const char *s, struct token *t)
{
	size_t n = 0;

	memset(t, 0, sizeof(*t));
	while (isspace((unsigned char)*s))
		s++;
	if (*s == '"')
		return quoted_token(s, t, &n);
	if (*s != '\0' && strchr("(),", *s) != NULL) {
		put(t, &n, *s);
		return s + 1;
	}
	while (*s != '\0' && !isspace((unsigned char)*s) && strchr("(),\"", *s) == NULL)
		put(t, &n, *s++);
	return s;
}

static bool is_sign(const struct token *t, const char *sign)
{
	return !t->quoted && strcmp(t->text, sign) == 0;
}

/* With parentheses the names are in them; what stands before says only how many of them are waited for. */
static const char *list_of(const char *setting)
{
	struct token t;

	for (const char *s = setting; *s != '\0';) {
		s = next_token(s, &t);
		if (is_sign(&t, "("))
			return s;
		if (t.text[0] == '\0' && !t.quoted)
			break;
	}
	return setting;
}

bool pgr_syncnames_has(const char *setting, const char *name)
{
	const char *s = list_of(setting);
	struct token t;

	for (;;) {
		s = next_token(s, &t);
		if ((t.text[0] == '\0' && !t.quoted) || is_sign(&t, ")"))
			return false;
		if (is_sign(&t, ","))
			continue;
		if (is_sign(&t, "*") || strcasecmp(t.text, name) == 0)
			return true;
	}
}

/* ---- the server ---- */

static int show(struct pgr_client *c, const char *name, struct pgr_buf *out, struct pgr_err *err)
{
	if (pgr_client_show(c, name, out, err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_str(out) != NULL ? PGR_OK : pgr_err_nomem(err);
}

static void warn(struct pgr_messages *msg, const char *name, const char *commit, bool synchronous, bool has_slot)
{
	if (!synchronous && !has_slot)
		pgr_say_warning(msg,
				"synchronous_standby_names of the server names this receiver (\"%s\"), but without "
				"--synchronous or --slot it never reports what is on disk: commits may wait for ever",
				name);
	else if (!synchronous)
		pgr_say_warning(msg,
				"synchronous_standby_names of the server names this receiver (\"%s\"), but without "
				"--synchronous it reports what is on disk only at the end of each segment: commits may "
				"wait for that",
				name);
	if (strcmp(commit, "remote_apply") == 0)
		pgr_say_warning(msg,
				"synchronous_standby_names of the server names this receiver (\"%s\"), and its "
				"synchronous_commit is remote_apply: nothing is applied here, so commits may wait for "
				"ever",
				name);
}

static int ask(struct pgr_client *c, struct pgr_buf *names, struct pgr_buf *name, struct pgr_buf *commit,
	       struct pgr_err *err)
{
	if (show(c, "synchronous_standby_names", names, err) != PGR_OK ||
	    show(c, "application_name", name, err) != PGR_OK)
		return PGR_ERR;
	return show(c, "synchronous_commit", commit, err);
}

int pgr_syncnames_warn(struct pgr_client *c, struct pgr_messages *msg, bool synchronous, bool has_slot,
		       struct pgr_err *err)
{
	struct pgr_buf names = {0}, name = {0}, commit = {0};
	int rc;

	if (!pgr_cap_has(pgr_client_version(c), PGR_CAP_SHOW))
		return PGR_OK;
	rc = ask(c, &names, &name, &commit, err);
	if (rc == PGR_OK && pgr_syncnames_has((const char *)names.data, (const char *)name.data))
		warn(msg, (const char *)name.data, (const char *)commit.data, synchronous, has_slot);
	pgr_buf_fini(&names);
	pgr_buf_fini(&name);
	pgr_buf_fini(&commit);
	return rc;
}
