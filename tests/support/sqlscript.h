/*
 * A scripted server (scripted.h) that answers SQL: questions and answers in turn.  Failures end the test.
 */
#ifndef PGR_TESTS_SQLSCRIPT_H
#define PGR_TESTS_SQLSCRIPT_H

#include <check.h>
#include <stddef.h>
#include <string.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/sys.h"
#include "proto/client.h"
#include "tests/support/scripted.h"

struct sqlscript {
	struct pgr_scripted *srv;
	struct pgr_client *c;
	struct pgr_buf msg;  /* a message under construction */
	struct pgr_buf sent; /* all that the client has sent */
	struct pgr_err err;
};

static inline void sqls_begin(struct sqlscript *s, int version, size_t chunk)
{
	memset(s, 0, sizeof(*s));
	s->srv = pgr_scripted_new(version, chunk);
	pgr_scripted_tap(s->srv, &s->sent);
	ck_assert_int_eq(pgr_client_new(&s->c, pgr_scripted_transport(s->srv), pgr_sys_real(), NULL, NULL, &s->err),
			 PGR_OK);
}

/* Who took the client has freed it: set s->c to NULL before. */
static inline void sqls_end(struct sqlscript *s)
{
	pgr_client_free(s->c);
	pgr_buf_fini(&s->msg);
	pgr_buf_fini(&s->sent);
}

/* The server waits for a question and sends these rows, the cells one after the other (NULL: SQL NULL), as the
 * beginning of an answer. */
static inline void sqls_some_rows(struct sqlscript *s, int cols, int rows, const char *const *cells)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"};

	ck_assert_int_le(cols, (int)(sizeof(names) / sizeof(names[0])));
	pgr_scripted_expect(s->srv, 'Q');
	pgr_msg_row_desc(&s->msg, cols, names);
	for (int i = 0; i < rows; i++)
		pgr_msg_row(&s->msg, cols, cells + (ptrdiff_t)i * cols);
	pgr_scripted_send_buf(s->srv, &s->msg);
}

/* The same, and the end of the answer. */
static inline void sqls_rows(struct sqlscript *s, int cols, int rows, const char *const *cells)
{
	sqls_some_rows(s, cols, rows, cells);
	pgr_msg_complete(&s->msg, "SELECT");
	pgr_msg_ready(&s->msg);
	pgr_scripted_send_buf(s->srv, &s->msg);
}

/* sqls_row(s, "x", NULL, "y"): one row. */
#define sqls_row(s, ...)                                                                                               \
	sqls_rows(s, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), 1,                            \
		  (const char *const[]){__VA_ARGS__})

/* The server waits for a question and refuses it. */
static inline void sqls_error(struct sqlscript *s, const char *sqlstate, const char *text)
{
	pgr_scripted_expect(s->srv, 'Q');
	pgr_msg_error(&s->msg, "ERROR", sqlstate, text);
	pgr_msg_ready(&s->msg);
	pgr_scripted_send_buf(s->srv, &s->msg);
}

/* The server ends the session: after a question, or while nobody asks. */
static inline void sqls_fatal(struct sqlscript *s, bool after_question)
{
	if (after_question)
		pgr_scripted_expect(s->srv, 'Q');
	pgr_msg_error(&s->msg, "FATAL", "57P01", "terminating connection due to administrator command");
	pgr_scripted_send_buf(s->srv, &s->msg);
	pgr_scripted_eof(s->srv);
}

static inline void sqls_check_sent(struct sqlscript *s, const char *text, bool yes)
{
	bool found = memmem(s->sent.data, s->sent.len, text, strlen(text)) != NULL;

	ck_assert_msg(found == yes, "%s: %s", yes ? "was not sent" : "was sent", text);
}

/* The error is of this class, and these words are in it. */
static inline void sqls_check_err(const struct pgr_err *err, enum pgr_errclass cls, const char *text)
{
	ck_assert_msg(err->cls == cls, "class %d: %s", err->cls, err->msg);
	ck_assert_msg(strstr(err->msg, text) != NULL, "\"%s\" is not in \"%s\"", text, err->msg);
}

#endif
