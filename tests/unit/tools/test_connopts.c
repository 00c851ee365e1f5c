/*
 * Connection options, numbers of options, the password prompt.
 *
 * The prompt runs in a child process that has a pseudo-terminal of its own, or no terminal at all; this process plays
 * the person in front of it.
 */
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "common/stop.h"
#include "tools/connopts.h"

START_TEST(options_are_stored)
{
	struct pgr_conn_params p = {0};

	ck_assert(pgr_conn_option(&p, 'd', "host=a"));
	ck_assert(pgr_conn_option(&p, 'h', "b"));
	ck_assert(pgr_conn_option(&p, 'p', "5433"));
	ck_assert(pgr_conn_option(&p, 'U', "rep"));
	ck_assert_str_eq(p.conninfo, "host=a");
	ck_assert_str_eq(p.host, "b");
	ck_assert_str_eq(p.port, "5433");
	ck_assert_str_eq(p.user, "rep");
	ck_assert_int_eq(p.password_mode, PGR_PASSWORD_IF_NEEDED);
	ck_assert(pgr_conn_option(&p, 'w', NULL));
	ck_assert_int_eq(p.password_mode, PGR_PASSWORD_NEVER);
	ck_assert(pgr_conn_option(&p, 'W', NULL));
	ck_assert_int_eq(p.password_mode, PGR_PASSWORD_ALWAYS);
}
END_TEST

START_TEST(other_options_are_left_alone)
{
	struct pgr_conn_params p = {0}, zero = {0};

	for (int c = 0; c < 300; c++)
		if (c >= 256 || c == 0 || strchr(PGR_CONN_SHORTOPTS, c) == NULL || c == ':')
			ck_assert_msg(!pgr_conn_option(&p, c, "x"), "%d", c);
	ck_assert_mem_eq(&p, &zero, sizeof(p));
}
END_TEST

static void good_int(const char *arg, int min, int max, int want)
{
	struct pgr_err err;
	int v = -77;

	ck_assert_msg(pgr_option_int(arg, "-s/--x", min, max, &v, &err) == PGR_OK, "\"%s\": %s", arg, err.msg);
	ck_assert_int_eq(v, want);
}

static void bad_int(const char *arg, int min, int max, const char *text)
{
	struct pgr_err err;
	int v = -77;

	ck_assert_msg(pgr_option_int(arg, "-s/--x", min, max, &v, &err) == PGR_ERR, "\"%s\"", arg);
	ck_assert_int_eq(v, -77);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_str_eq(err.msg, text);
}

START_TEST(numbers)
{
	good_int("0", 0, 10, 0);
	good_int("10", 0, 10, 10);
	good_int("-5", -5, 10, -5);
	good_int(" +7 \t\n", 0, 10, 7);
	good_int("2147483647", 0, INT_MAX, INT_MAX);
	bad_int("11", 0, 10, "-s/--x must be in range 0..10");
	bad_int("-1", 0, 10, "-s/--x must be in range 0..10");
	bad_int("2147483648", 0, INT_MAX, "-s/--x must be in range 0..2147483647");
	bad_int("4294967297", 0, 10, "-s/--x must be in range 0..10");
	bad_int("99999999999999999999", 0, INT_MAX, "-s/--x must be in range 0..2147483647");
	bad_int("-99999999999999999999", 0, INT_MAX, "-s/--x must be in range 0..2147483647");
	bad_int("", 0, 10, "invalid value \"\" for option -s/--x");
	bad_int(" ", 0, 10, "invalid value \" \" for option -s/--x");
	bad_int("x", 0, 10, "invalid value \"x\" for option -s/--x");
	bad_int("1x", 0, 10, "invalid value \"1x\" for option -s/--x");
	bad_int("1 1", 0, 10, "invalid value \"1 1\" for option -s/--x");
	bad_int("0x1", 0, 10, "invalid value \"0x1\" for option -s/--x");
}
END_TEST

/* ---- the prompt ---- */

struct person {
	pid_t pid;
	int in;	    /* what the person types */
	int out;    /* what the person sees */
	int slave;  /* of the terminal, or -1 */
	int report; /* the child writes class, message, password */
	int go;	    /* a byte here makes the child set its stop latch */
};

struct outcome {
	enum pgr_errclass cls;
	char text[256]; /* the password, or the error */
	bool got;
};

static void *set_latch(void *arg)
{
	void **a = arg;
	int *go = a[0];
	struct pgr_err why;
	char c;

	if (read(*go, &c, 1) == 1) {
		pgr_err_set(&why, PGR_E_STOPPED, "enough");
		pgr_stop_post(a[1], &why);
	}
	return NULL;
}

static void run_prompt(int report, int go)
{
	struct outcome o = {0};
	struct pgr_stop *stop;
	struct pgr_err err = {0};
	void *args[2] = {&go, NULL};
	char *password = NULL;
	pthread_t t;

	if (pgr_stop_new(&stop, &err) != PGR_OK)
		_exit(1);
	args[1] = stop;
	if (pthread_create(&t, NULL, set_latch, args) != 0)
		_exit(1);
	o.got = pgr_prompt_password(stop, &password, &err) == PGR_OK;
	o.cls = err.cls;
	snprintf(o.text, sizeof(o.text), "%.255s", o.got ? password : err.msg);
	if (o.got == (password == NULL))
		_exit(2);
	free(password);
	if (write(report, &o, sizeof(o)) != (ssize_t)sizeof(o))
		_exit(3);
	pthread_join(t, NULL); /* ends when the other side of `go` is closed */
	pgr_stop_free(stop);
	_exit(0);
}

static void child_prompt(const struct person *p, int in, int out, int slave, int report, int go)
{
	close(p->in);
	close(p->out);
	close(p->report);
	close(p->go);
	if (setsid() < 0)
		_exit(1);
	if (slave >= 0 && ioctl(slave, TIOCSCTTY, 0) != 0)
		_exit(1);
	/* with a terminal, stdin and stderr are elsewhere: nothing may be read from or written to them */
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(1);
	run_prompt(report, go);
}

static void begin(struct person *p, bool terminal)
{
	int in[2], out[2], report[2], go[2], master = -1, slave = -1;

	ck_assert(pipe(in) == 0 && pipe(out) == 0 && pipe(report) == 0 && pipe(go) == 0);
	if (terminal)
		ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	*p = (struct person){.in = in[1], .out = out[0], .report = report[0], .go = go[1], .slave = slave};
	p->pid = fork();
	ck_assert_int_ge(p->pid, 0);
	if (p->pid == 0) {
		if (terminal)
			close(master);
		child_prompt(p, in[0], out[1], slave, report[1], go[0]);
	}
	close(in[0]);
	close(out[1]);
	close(report[1]);
	close(go[0]);
	if (terminal) {
		close(p->in);
		close(p->out);
		p->in = master;
		p->out = dup(master);
	}
}

/* Reads what the person sees until it ends with `text`. */
static void see(const struct person *p, const char *text)
{
	char seen[256];
	size_t n = 0;

	while (n < strlen(text)) {
		ck_assert_int_eq(read(p->out, seen + n, 1), 1);
		n++;
	}
	ck_assert_msg(memcmp(seen, text, n) == 0, "saw \"%.*s\"", (int)n, seen);
}

static void type(const struct person *p, const char *text, size_t len)
{
	ck_assert_int_eq(write(p->in, text, len), (ssize_t)len);
}

static bool echoes(const struct person *p)
{
	struct termios t;

	ck_assert_int_eq(tcgetattr(p->slave, &t), 0);
	return (t.c_lflag & ECHO) != 0;
}

static void finish(struct person *p, struct outcome *o)
{
	int status;

	ck_assert_int_eq(read(p->report, o, sizeof(*o)), (ssize_t)sizeof(*o));
	close(p->go);
	ck_assert_int_eq(waitpid(p->pid, &status, 0), p->pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
	close(p->report);
	close(p->in);
	close(p->out);
	if (p->slave >= 0)
		close(p->slave);
}

START_TEST(the_terminal_does_not_echo)
{
	struct person p;
	struct outcome o;

	begin(&p, true);
	see(&p, "Password: ");
	ck_assert(!echoes(&p));
	type(&p, "s3cret word\n", 12);
	see(&p, "\r\n"); /* and nothing of the password */
	ck_assert_int_eq(read(p.report, &o, sizeof(o)), (ssize_t)sizeof(o));
	ck_assert(echoes(&p));
	ck_assert(o.got);
	ck_assert_str_eq(o.text, "s3cret word");
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
}
END_TEST

START_TEST(a_stop_restores_the_terminal)
{
	struct person p;
	struct outcome o;

	begin(&p, true);
	see(&p, "Password: ");
	ck_assert(!echoes(&p));
	type(&p, "half", 4);
	ck_assert_int_eq(write(p.go, "x", 1), 1);
	ck_assert_int_eq(read(p.report, &o, sizeof(o)), (ssize_t)sizeof(o));
	ck_assert(!o.got);
	ck_assert_int_eq(o.cls, PGR_E_STOPPED);
	ck_assert(echoes(&p));
	see(&p, "\r\n");
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
}
END_TEST

START_TEST(a_terminal_can_say_nothing)
{
	struct person p;
	struct outcome o;

	begin(&p, true);
	see(&p, "Password: ");
	type(&p, "\004", 1); /* ^D: end of input */
	ck_assert_int_eq(read(p.report, &o, sizeof(o)), (ssize_t)sizeof(o));
	ck_assert(!o.got);
	ck_assert_int_eq(o.cls, PGR_E_USAGE);
	ck_assert_str_eq(o.text, "a password is needed, but there is none to read from /dev/tty");
	ck_assert(echoes(&p));
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
}
END_TEST

static void typed(const char *text, size_t len, struct outcome *o)
{
	struct person p;

	begin(&p, false);
	see(&p, "Password: ");
	type(&p, text, len);
	close(p.in);
	p.in = open("/dev/null", O_RDONLY);
	finish(&p, o);
}

START_TEST(without_terminal_standard_input_is_read)
{
	struct outcome o;

	typed("pw one\nrest", 11, &o);
	ck_assert(o.got);
	ck_assert_str_eq(o.text, "pw one");
	typed("no newline", 10, &o);
	ck_assert(o.got);
	ck_assert_str_eq(o.text, "no newline");
	typed("windows\r\n", 9, &o);
	ck_assert(o.got);
	ck_assert_str_eq(o.text, "windows");
	typed("\n", 1, &o);
	ck_assert(o.got);
	ck_assert_str_eq(o.text, "");
}
END_TEST

START_TEST(no_input_is_an_error)
{
	struct outcome o;

	typed("", 0, &o);
	ck_assert(!o.got);
	ck_assert_int_eq(o.cls, PGR_E_USAGE);
	ck_assert_str_eq(o.text, "a password is needed, but there is none to read from standard input");
}
END_TEST

START_TEST(what_cannot_be_a_password)
{
	const char *text = "the password from standard input is too long or not text";
	struct outcome o;
	char *much = malloc(65537);

	typed("a\0b\n", 4, &o);
	ck_assert(!o.got);
	ck_assert_int_eq(o.cls, PGR_E_USAGE);
	ck_assert_str_eq(o.text, text);
	memset(much, 'x', 65537);
	much[65535] = '\n';
	typed(much, 65536, &o); /* the longest that fits */
	ck_assert(o.got);
	much[65535] = 'x';
	typed(much, 65536, &o); /* a pipe holds 64 KiB; one byte more than fits */
	ck_assert(!o.got);
	ck_assert_str_eq(o.text, text);
	free(much);
}
END_TEST

START_TEST(a_latch_that_is_set_asks_nobody)
{
	struct pgr_stop *stop;
	struct pgr_err err;
	char *password = (char *)1;

	ck_assert_int_eq(pgr_stop_new(&stop, &err), PGR_OK);
	pgr_err_set(&err, PGR_E_STOPPED, "over");
	pgr_stop_post(stop, &err);
	ck_assert_int_eq(pgr_prompt_password(stop, &password, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_ptr_null(password);
	pgr_stop_free(stop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("connopts");
	TCase *tc = tcase_create("options");
	TCase *pr = tcase_create("prompt");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, options_are_stored);
	tcase_add_test(tc, other_options_are_left_alone);
	tcase_add_test(tc, numbers);
	suite_add_tcase(s, tc);
	tcase_add_test(pr, the_terminal_does_not_echo);
	tcase_add_test(pr, a_stop_restores_the_terminal);
	tcase_add_test(pr, a_terminal_can_say_nothing);
	tcase_add_test(pr, without_terminal_standard_input_is_read);
	tcase_add_test(pr, no_input_is_an_error);
	tcase_add_test(pr, what_cannot_be_a_password);
	tcase_add_test(pr, a_latch_that_is_set_asks_nobody);
	suite_add_tcase(s, pr);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
