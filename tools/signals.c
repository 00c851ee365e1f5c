/*
 * Signals as events: a thread that reads a signalfd.
 *
 * An eventfd beside it ends the thread, so that no signal is needed for that and none can be lost.
 */
#include "tools/signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct pgr_signals {
	pthread_t thread;
	int signal_fd;
	int quit_fd;
	void (*fn)(void *arg, int signo);
	void *arg;
	atomic_int seen;
};

static bool is_the_end(int signo)
{
	return signo == SIGINT || signo == SIGTERM || signo == SIGHUP;
}

static void on_signal(struct pgr_signals *s, int signo)
{
	int none = 0;

	if (is_the_end(signo) && !atomic_compare_exchange_strong(&s->seen, &none, signo))
		pgr_signals_die(signo);
	s->fn(s->arg, signo);
}

static void *signals_main(void *arg)
{
	struct pgr_signals *s = arg;
	struct pollfd fds[2] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = s->quit_fd, .events = POLLIN}};
	struct signalfd_siginfo info;

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[1].revents != 0)
			return NULL;
		if (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
			on_signal(s, (int)info.ssi_signo);
	}
}

/* What was ignored when the program began (nohup; a background job of a script) stays ignored. */
static void drop_ignored(sigset_t *set)
{
	struct sigaction sa;

	for (int signo = 1; signo < NSIG; signo++)
		if (sigismember(set, signo) == 1 && sigaction(signo, NULL, &sa) == 0 &&
		    (sa.sa_flags & SA_SIGINFO) == 0 && sa.sa_handler == SIG_IGN)
			sigdelset(set, signo);
}

static void signals_free(struct pgr_signals *s)
{
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->quit_fd >= 0)
		close(s->quit_fd);
	free(s);
}

static int signals_open(struct pgr_signals *s, const sigset_t *set, struct pgr_err *err)
{
	int rc;

	s->signal_fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return pgr_err_sys(err, errno, "could not create a signal descriptor");
	s->quit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->quit_fd < 0)
		return pgr_err_sys(err, errno, "could not create an event descriptor");
	rc = pthread_create(&s->thread, NULL, signals_main, s);
	if (rc != 0)
		return pgr_err_sys(err, rc, "could not create the signal thread");
	return PGR_OK;
}

int pgr_signals_start(struct pgr_signals **out, const sigset_t *set, void (*fn)(void *arg, int signo), void *arg,
		      struct pgr_err *err)
{
	struct pgr_signals *s = calloc(1, sizeof(*s));
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t ours = *set, before;
	int rc;

	*out = NULL;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->signal_fd = s->quit_fd = -1;
	s->fn = fn;
	s->arg = arg;
	drop_ignored(&ours);
	rc = pthread_sigmask(SIG_BLOCK, &ours, &before);
	if (rc != 0) {
		signals_free(s);
		return pgr_err_sys(err, rc, "could not block signals");
	}
	if (sigaction(SIGPIPE, &ignore, NULL) != 0)
		rc = pgr_err_sys(err, errno, "could not ignore SIGPIPE");
	else
		rc = signals_open(s, &ours, err);
	if (rc != PGR_OK) {
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		signals_free(s);
		return PGR_ERR;
	}
	*out = s;
	return PGR_OK;
}

void pgr_signals_stop(struct pgr_signals *s)
{
	const uint64_t one = 1;
	ssize_t n;

	if (s == NULL)
		return;
	do { /* a fresh eventfd always takes a 1 */
		n = write(s->quit_fd, &one, sizeof(one));
	} while (n < 0 && errno == EINTR);
	pthread_join(s->thread, NULL);
	signals_free(s);
}

int pgr_signals_seen(const struct pgr_signals *s)
{
	return atomic_load(&s->seen);
}

_Noreturn void pgr_signals_die(int signo)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	sigaction(signo, &dfl, NULL);
	raise(signo); /* pending in this thread, delivered when it is unblocked */
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	_exit(128 + signo); /* a signal whose default action is not to end the process */
}
