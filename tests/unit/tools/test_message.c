/* Messages: what stands on stderr, byte for byte. */
#include <check.h>
#include <pthread.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/message.h"

#define CAPTURED_MAX (1024 * 1024)

/* stderr goes to a file until capture_end. */
struct capture {
	int saved;
	FILE *file;
	char *text;
};

static void capture_begin(struct capture *c)
{
	fflush(stderr);
	c->file = tmpfile();
	ck_assert_ptr_nonnull(c->file);
	c->saved = dup(STDERR_FILENO);
	ck_assert_int_ge(dup2(fileno(c->file), STDERR_FILENO), 0);
	c->text = calloc(1, CAPTURED_MAX);
}

static const char *capture_end(struct capture *c)
{
	ck_assert_int_ge(dup2(c->saved, STDERR_FILENO), 0);
	close(c->saved);
	rewind(c->file);
	ck_assert_uint_lt(fread(c->text, 1, CAPTURED_MAX - 1, c->file), CAPTURED_MAX - 1);
	fclose(c->file);
	return c->text;
}

static void capture_free(struct capture *c)
{
	free(c->text);
}

static void init(struct pgr_messages *m, const char *argv0, const char *color, const char *colors)
{
	if (color != NULL)
		setenv("PG_COLOR", color, 1);
	else
		unsetenv("PG_COLOR");
	if (colors != NULL)
		setenv("PG_COLORS", colors, 1);
	else
		unsetenv("PG_COLORS");
	pgr_messages_init(m, argv0);
}

static void expect(struct capture *c, const char *text)
{
	ck_assert_str_eq(capture_end(c), text);
	capture_free(c);
}

START_TEST(the_name_is_the_last_component)
{
	struct pgr_messages m;

	init(&m, "/usr/lib/x/pg_basebackup", NULL, NULL);
	ck_assert_str_eq(m.progname, "pg_basebackup");
	init(&m, "./pgr-receivewal", NULL, NULL);
	ck_assert_str_eq(m.progname, "pgr-receivewal");
	init(&m, "plain", NULL, NULL);
	ck_assert_str_eq(m.progname, "plain");
	init(&m, "", NULL, NULL);
	ck_assert_str_eq(m.progname, "pgr");
	init(&m, NULL, NULL, NULL);
	ck_assert_str_eq(m.progname, "pgr");
}
END_TEST

START_TEST(each_kind_has_its_prefix)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_say_errorf(&m, "e %d", 1);
	pgr_say_warning(&m, "w %s", "2");
	pgr_say_hint(&m, "h");
	pgr_say_info(&m, "i %%");
	expect(&c, "prog: error: e 1\nprog: warning: w 2\nprog: hint: h\nprog: i %\n");
}
END_TEST

START_TEST(an_error_has_detail_and_hint_only_when_set)
{
	struct pgr_messages m;
	struct capture c;
	struct pgr_err err;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_err_set(&err, PGR_E_USAGE, "no %%s here: %s", "%s");
	pgr_say_error(&m, &err);
	pgr_err_detail(&err, "more");
	pgr_say_error(&m, &err);
	pgr_err_hint(&err, "way out");
	pgr_say_error(&m, &err);
	expect(&c, "prog: error: no %s here: %s\n"
		   "prog: error: no %s here: %s\nprog: detail: more\n"
		   "prog: error: no %s here: %s\nprog: detail: more\nprog: hint: way out\n");
}
END_TEST

START_TEST(verbose_is_silent_without_v)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_say_verbose(&m, "not this");
	m.verbose = 1;
	pgr_say_verbose(&m, "this");
	expect(&c, "prog: this\n");
}
END_TEST

START_TEST(one_newline_at_the_end_is_dropped)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_say_info(&m, "a\nb\n");
	pgr_say_info(&m, "c\n\n");
	pgr_say_info(&m, "%s", "");
	expect(&c, "prog: a\nb\nprog: c\n\nprog: \n");
}
END_TEST

START_TEST(a_notice_is_raw)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", "always", NULL);
	capture_begin(&c);
	pgr_say_notice(&m, "WARNING:  checksum verification failed\n");
	expect(&c, "WARNING:  checksum verification failed\n");
}
END_TEST

START_TEST(nothing_steers_the_terminal)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_say_errorf(&m, "file \"\033]0;x\007\" \x7f\r\b tab\there gr\xc3\xbc\xc3\x9f");
	pgr_say_notice(&m, "NOTICE:  \033[2J\n");
	expect(&c, "prog: error: file \"?]0;x?\" ??? tab\there gr\xc3\xbc\xc3\x9f\nNOTICE:  ?[2J\n");
}
END_TEST

START_TEST(a_progress_line_is_ended_first)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	m.progress_open = true;
	pgr_say_info(&m, "a");
	pgr_say_info(&m, "b");
	m.progress_open = true;
	pgr_say_notice(&m, "N\n");
	m.progress_open = true;
	pgr_say_verbose(&m, "silent");
	ck_assert(m.progress_open);
	expect(&c, "\nprog: a\nprog: b\n\nN\n");
}
END_TEST

START_TEST(long_texts_are_not_cut)
{
	struct pgr_messages m;
	struct capture c;
	char *text = malloc(200001);
	const char *got;

	memset(text, 'x', 200000);
	text[200000] = '\0';
	init(&m, "prog", NULL, NULL);
	capture_begin(&c);
	pgr_say_info(&m, "%s", text);
	got = capture_end(&c);
	ck_assert_uint_eq(strlen(got), 200000 + strlen("prog: \n"));
	capture_free(&c);
	free(text);
}
END_TEST

START_TEST(default_colours)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", "always", NULL);
	ck_assert(m.colour);
	capture_begin(&c);
	pgr_say_errorf(&m, "e");
	pgr_say_warning(&m, "w");
	pgr_say_hint(&m, "h");
	pgr_say_info(&m, "i");
	expect(&c, "\033[01mprog: \033[0m\033[01;31merror: \033[0me\n"
		   "\033[01mprog: \033[0m\033[01;35mwarning: \033[0mw\n"
		   "\033[01mprog: \033[0m\033[01;36mhint: \033[0mh\n"
		   "\033[01mprog: \033[0mi\n");
}
END_TEST

START_TEST(pg_colors_replaces_all_of_them)
{
	struct pgr_messages m;
	struct capture c;

	init(&m, "prog", "always", "foo=1:error=32::note=:=7:warning=1;2:errors=5");
	capture_begin(&c);
	pgr_say_errorf(&m, "e");
	pgr_say_warning(&m, "w");
	pgr_say_hint(&m, "h");
	expect(&c, "prog: \033[32merror: \033[0me\n"
		   "prog: \033[1;2mwarning: \033[0mw\n"
		   "prog: hint: h\n");
	init(&m, "prog", "always", "");
	ck_assert_str_eq(m.sgr_error, "");
}
END_TEST

START_TEST(colours_that_are_none_are_left_out)
{
	struct pgr_messages m;

	init(&m, "prog", "always", "error=0123456789012345678901234567890;warning=x:note=1\033[2J:locus=31");
	ck_assert_str_eq(m.sgr_error, "");
	ck_assert_str_eq(m.sgr_warning, "");
	ck_assert_str_eq(m.sgr_note, "");
	ck_assert_str_eq(m.sgr_locus, "31");
	/* 31 digits fit, 32 do not */
	init(&m, "prog", "always", "error=0123456789012345678901234567890:note=01234567890123456789012345678901");
	ck_assert_str_eq(m.sgr_error, "0123456789012345678901234567890");
	ck_assert_str_eq(m.sgr_note, "");
}
END_TEST

START_TEST(no_colour_unless_asked)
{
	struct pgr_messages m;
	struct capture c;

	capture_begin(&c); /* a file: no terminal */
	init(&m, "prog", "auto", NULL);
	ck_assert(!m.colour);
	init(&m, "prog", "never", NULL);
	ck_assert(!m.colour);
	init(&m, "prog", NULL, "error=1");
	ck_assert(!m.colour);
	ck_assert_str_eq(m.sgr_error, "");
	pgr_say_errorf(&m, "e");
	expect(&c, "prog: error: e\n");
}
END_TEST

START_TEST(auto_means_on_a_terminal)
{
	struct pgr_messages m;
	int master, slave, saved = dup(STDERR_FILENO);

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	ck_assert_int_ge(dup2(slave, STDERR_FILENO), 0);
	init(&m, "prog", "auto", NULL);
	ck_assert_int_ge(dup2(saved, STDERR_FILENO), 0);
	close(saved);
	close(master);
	close(slave);
	ck_assert(m.colour);
	ck_assert_str_eq(m.sgr_error, "01;31");
}
END_TEST

#define TALKERS 4
#define LINES	200

static void *talk(void *arg)
{
	struct pgr_messages *m = arg;

	for (int i = 0; i < LINES; i++) {
		pgr_say_warning(m, "one two three %d", i);
		pgr_say_notice(m, "NOTICE:  four\nDETAIL:  five\n");
	}
	return NULL;
}

START_TEST(threads_do_not_mix_their_lines)
{
	struct pgr_messages m;
	struct capture c;
	pthread_t t[TALKERS];
	unsigned lines = 0;
	char *save = NULL;
	int n, end;

	init(&m, "prog", "always", NULL);
	capture_begin(&c);
	for (int i = 0; i < TALKERS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, talk, &m), 0);
	for (int i = 0; i < TALKERS; i++)
		pthread_join(t[i], NULL);
	capture_end(&c);
	for (char *l = strtok_r(c.text, "\n", &save); l != NULL; l = strtok_r(NULL, "\n", &save), lines++) {
		if (strcmp(l, "NOTICE:  four") == 0) {
			ck_assert_str_eq(strtok_r(NULL, "\n", &save), "DETAIL:  five");
			continue;
		}
		ck_assert_int_eq(
			sscanf(l, "\033[01mprog: \033[0m\033[01;35mwarning: \033[0mone two three %d%n", &n, &end), 1);
		ck_assert_int_eq(l[end], '\0');
	}
	ck_assert_uint_eq(lines, 2 * TALKERS * LINES);
	capture_free(&c);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("message");
	TCase *tc = tcase_create("message");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, the_name_is_the_last_component);
	tcase_add_test(tc, each_kind_has_its_prefix);
	tcase_add_test(tc, an_error_has_detail_and_hint_only_when_set);
	tcase_add_test(tc, verbose_is_silent_without_v);
	tcase_add_test(tc, one_newline_at_the_end_is_dropped);
	tcase_add_test(tc, a_notice_is_raw);
	tcase_add_test(tc, nothing_steers_the_terminal);
	tcase_add_test(tc, a_progress_line_is_ended_first);
	tcase_add_test(tc, long_texts_are_not_cut);
	tcase_add_test(tc, default_colours);
	tcase_add_test(tc, pg_colors_replaces_all_of_them);
	tcase_add_test(tc, colours_that_are_none_are_left_out);
	tcase_add_test(tc, no_colour_unless_asked);
	tcase_add_test(tc, auto_means_on_a_terminal);
	tcase_add_test(tc, threads_do_not_mix_their_lines);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
