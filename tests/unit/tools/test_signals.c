/*
 * Signals as events.  Everything runs in a child process: dispositions and masks must not leak from one test into the
 * next, and some of the children are meant to die.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/signals.h"

/* Inside a child: a failed check is an exit code that says where. */
#define MUST(cond)                                                                                                     \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			_exit(100 + __LINE__ % 100);                                                                   \
	} while (0)

struct seen {
	int pipe[2];
	atomic_int calls;
};

static void note_signal(void *arg, int signo)
{
	struct seen *s = arg;
	unsigned char c = (unsigned char)signo;

	atomic_fetch_add(&s->calls, 1);
	MUST(write(s->pipe[1], &c, 1) == 1);
}

static int next_signal(struct seen *s)
{
	unsigned char c;

	MUST(read(s->pipe[0], &c, 1) == 1);
	return c;
}

static struct pgr_signals *start(struct seen *s, int a, int b)
{
	struct pgr_signals *sig;
	struct pgr_err err;
	sigset_t set;

	memset(s, 0, sizeof(*s));
	MUST(pipe(s->pipe) == 0);
	sigemptyset(&set);
	sigaddset(&set, a);
	sigaddset(&set, b);
	MUST(pgr_signals_start(&sig, &set, note_signal, s, &err) == PGR_OK);
	return sig;
}

static int child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		fn();
		_exit(0);
	}
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_exited(int status, int code)
{
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == code, "status 0x%x", (unsigned)status);
}

static void assert_killed(int status, int signo)
{
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == signo, "status 0x%x", (unsigned)status);
}

static void first_signal(void)
{
	struct seen s;
	struct pgr_signals *sig = start(&s, SIGINT, SIGTERM);

	MUST(pgr_signals_seen(sig) == 0);
	MUST(kill(getpid(), SIGTERM) == 0);
	MUST(next_signal(&s) == SIGTERM);
	MUST(pgr_signals_seen(sig) == SIGTERM);
	pgr_signals_stop(sig);
	MUST(atomic_load(&s.calls) == 1);
}

START_TEST(a_signal_calls_back)
{
	assert_exited(child(first_signal), 0);
}
END_TEST

static void second_signal(void)
{
	struct seen s;

	start(&s, SIGINT, SIGTERM);
	MUST(kill(getpid(), SIGINT) == 0);
	MUST(next_signal(&s) == SIGINT);
	MUST(kill(getpid(), SIGTERM) == 0);
	for (;;)
		pause();
}

START_TEST(a_second_one_ends_the_process)
{
	assert_killed(child(second_signal), SIGTERM);
}
END_TEST

static void harmless_ones(void)
{
	static const int sent[] = {SIGUSR1, SIGUSR2, SIGUSR2, SIGUSR1};
	struct seen s;
	struct pgr_signals *sig = start(&s, SIGUSR1, SIGUSR2);

	for (int i = 0; i < 4; i++) {
		MUST(kill(getpid(), sent[i]) == 0);
		MUST(next_signal(&s) == sent[i]);
	}
	MUST(pgr_signals_seen(sig) == 0);
	pgr_signals_stop(sig);
	MUST(atomic_load(&s.calls) == 4);
}

START_TEST(other_signals_do_not_end_it)
{
	assert_exited(child(harmless_ones), 0);
}
END_TEST

static void ignored_before(void)
{
	struct seen s;
	struct pgr_signals *sig;

	signal(SIGHUP, SIG_IGN);
	sig = start(&s, SIGHUP, SIGUSR1);
	MUST(kill(getpid(), SIGHUP) == 0); /* vanishes at once, so what comes first is the other one */
	MUST(kill(getpid(), SIGUSR1) == 0);
	MUST(next_signal(&s) == SIGUSR1);
	pgr_signals_stop(sig);
}

START_TEST(what_was_ignored_stays_ignored)
{
	assert_exited(child(ignored_before), 0);
}
END_TEST

static void *is_blocked(void *arg)
{
	sigset_t now;

	MUST(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
	MUST(sigismember(&now, SIGINT) == 1);
	return arg;
}

static void blocked(void)
{
	struct seen s;
	struct pgr_signals *sig = start(&s, SIGINT, SIGTERM);
	sigset_t pending;
	pthread_t t;

	MUST(pthread_create(&t, NULL, is_blocked, NULL) == 0);
	MUST(pthread_join(t, NULL) == 0);
	pgr_signals_stop(sig);
	MUST(kill(getpid(), SIGINT) == 0); /* nobody waits any more, but it does not kill either */
	MUST(sigpending(&pending) == 0 && sigismember(&pending, SIGINT) == 1);
	MUST(atomic_load(&s.calls) == 0);
}

START_TEST(signals_are_blocked_in_all_threads_and_afterwards)
{
	assert_exited(child(blocked), 0);
}
END_TEST

static void broken_pipe(void)
{
	struct seen s;
	struct pgr_signals *sig = start(&s, SIGINT, SIGTERM);
	int p[2];

	MUST(pipe(p) == 0);
	close(p[0]);
	MUST(write(p[1], "x", 1) < 0 && errno == EPIPE);
	pgr_signals_stop(sig);
}

START_TEST(sigpipe_is_ignored)
{
	assert_exited(child(broken_pipe), 0);
}
END_TEST

static void die_of_sigint(void)
{
	struct seen s;

	start(&s, SIGINT, SIGTERM);
	pgr_signals_die(SIGINT);
}

static void die_of_sigchld(void)
{
	pgr_signals_die(SIGCHLD);
}

START_TEST(die_ends_by_the_signal)
{
	assert_killed(child(die_of_sigint), SIGINT);
	assert_exited(child(die_of_sigchld), 128 + SIGCHLD);
}
END_TEST

static void no_descriptors(int allowed)
{
	struct rlimit lim = {0};
	struct pgr_signals *sig = (void *)1;
	struct pgr_err err;
	struct seen s = {0};
	sigset_t set, now;
	int next = open("/dev/null", O_RDONLY);

	MUST(next >= 0 && close(next) == 0);
	lim.rlim_cur = lim.rlim_max = (rlim_t)(next + allowed);
	MUST(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	MUST(pgr_signals_start(&sig, &set, note_signal, &s, &err) == PGR_ERR);
	MUST(sig == NULL && err.cls == PGR_E_SYSTEM && err.sys_errno == EMFILE);
	MUST(strstr(err.msg, "descriptor") != NULL);
	MUST(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0 && sigismember(&now, SIGINT) == 0);
	for (int i = 0; i < allowed; i++) /* nothing leaked */
		MUST(open("/dev/null", O_RDONLY) == next + i);
}

static void no_descriptor_at_all(void)
{
	no_descriptors(0);
}

static void one_descriptor(void)
{
	no_descriptors(1);
}

START_TEST(without_descriptors_it_fails_cleanly)
{
	assert_exited(child(no_descriptor_at_all), 0);
	assert_exited(child(one_descriptor), 0);
}
END_TEST

START_TEST(stop_takes_null)
{
	pgr_signals_stop(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("signals");
	TCase *tc = tcase_create("signals");
	SRunner *sr;
	int failed;

	tcase_add_test(tc, a_signal_calls_back);
	tcase_add_test(tc, a_second_one_ends_the_process);
	tcase_add_test(tc, other_signals_do_not_end_it);
	tcase_add_test(tc, what_was_ignored_stays_ignored);
	tcase_add_test(tc, signals_are_blocked_in_all_threads_and_afterwards);
	tcase_add_test(tc, sigpipe_is_ignored);
	tcase_add_test(tc, die_ends_by_the_signal);
	tcase_add_test(tc, without_descriptors_it_fails_cleanly);
	tcase_add_test(tc, stop_takes_null);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
