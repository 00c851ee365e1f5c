/* Connection options and the password prompt. */
#include "tools/connopts.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/fs_io.h"
#include "common/stop.h"
#include "common/sys.h"

/* Tokens that clouds hand out as passwords have a few KB. */
#define PASSWORD_MAX (64u * 1024u)

bool pgr_conn_option(struct pgr_conn_params *p, int c, const char *arg)
{
	switch (c) {
	case 'd':
		p->conninfo = arg;
		return true;
	case 'h':
		p->host = arg;
		return true;
	case 'p':
		p->port = arg;
		return true;
	case 'U':
		p->user = arg;
		return true;
	case 'w':
		p->password_mode = PGR_PASSWORD_NEVER;
		return true;
	case 'W':
		p->password_mode = PGR_PASSWORD_ALWAYS;
		return true;
	default:
		return false;
	}
}

int pgr_option_int(const char *arg, const char *option, int min, int max, int *out, struct pgr_err *err)
{
	char *end;
	long v;

	errno = 0;
	v = strtol(arg, &end, 10);
	if (end != arg)
		while (isspace((unsigned char)*end))
			end++;
	if (end == arg || *end != '\0')
		return pgr_err_set(err, PGR_E_USAGE, "invalid value \"%s\" for option %s", arg, option);
	if (errno == ERANGE || v < min || v > max)
		return pgr_err_set(err, PGR_E_USAGE, "%s must be in range %d..%d", option, min, max);
	*out = (int)v;
	return PGR_OK;
}

/* Where the question goes and the answer comes from. */
struct asker {
	const struct pgr_sys *sys;
	struct pgr_stop *stop; /* NULL: not interruptible */
	int in, out;
	const char *name; /* of `in` */
};

/* OK: something can be read. */
static int wait_for_input(const struct asker *a, struct pgr_err *err)
{
	struct pollfd fds[2] = {{.fd = a->in, .events = POLLIN},
				{.fd = a->stop != NULL ? pgr_stop_fd(a->stop) : -1, .events = POLLIN}};

	for (;;) {
		if (a->stop != NULL && pgr_stop_check(a->stop, err) != PGR_OK)
			return PGR_ERR;
		if (a->sys->poll(a->sys, fds, 2, -1) < 0 && errno != EINTR)
			return pgr_err_sys(err, errno, "could not wait for input from %s", a->name);
		if (fds[0].revents != 0 && fds[1].revents == 0)
			return PGR_OK;
	}
}

/* PGR_MORE: end of input.  One byte at a time: what follows the line on a pipe is not ours. */
static int read_byte(const struct asker *a, char *c, struct pgr_err *err)
{
	ssize_t n;

	do {
		if (wait_for_input(a, err) != PGR_OK)
			return PGR_ERR;
		n = a->sys->read(a->sys, a->in, c, 1);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return pgr_err_sys(err, errno, "could not read the password from %s", a->name);
	return n == 0 ? PGR_MORE : PGR_OK;
}

static int read_line(const struct asker *a, char line[PASSWORD_MAX], struct pgr_err *err)
{
	size_t len = 0;
	int rc;
	char c;

	while ((rc = read_byte(a, &c, err)) == PGR_OK && c != '\n') {
		if (c == '\0' || len == PASSWORD_MAX - 1)
			return pgr_err_set(err, PGR_E_USAGE, "the password from %s is too long or not text", a->name);
		line[len++] = c;
	}
	if (rc == PGR_ERR)
		return PGR_ERR;
	if (rc == PGR_MORE && len == 0)
		return pgr_err_set(err, PGR_E_USAGE, "a password is needed, but there is none to read from %s",
				   a->name);
	if (len > 0 && line[len - 1] == '\r')
		len--;
	line[len] = '\0';
	return PGR_OK;
}

static int prompt(const struct asker *a, char **out, struct pgr_err *err)
{
	char *line = malloc(PASSWORD_MAX);
	struct pgr_err ignored;
	struct termios before, quiet;
	bool tty = tcgetattr(a->in, &before) == 0;
	int rc;

	if (line == NULL)
		return pgr_err_nomem(err);
	if (tty) {
		quiet = before;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tty = tcsetattr(a->in, TCSAFLUSH, &quiet) == 0;
	}
	rc = pgr_fs_write_all(a->sys, a->out, "Password: ", 10, a->name, err);
	if (rc == PGR_OK)
		rc = read_line(a, line, err);
	if (tty) {
		/* Every way out comes here: signals are blocked and arrive as the stop latch. */
		tcsetattr(a->in, TCSAFLUSH, &before);
		if (pgr_fs_write_all(a->sys, a->out, "\n", 1, a->name, &ignored) != PGR_OK) {
			/* the newline that was not echoed is a courtesy */
		}
	}
	if (rc == PGR_OK && (*out = strdup(line)) == NULL)
		rc = pgr_err_nomem(err);
	explicit_bzero(line, PASSWORD_MAX);
	free(line);
	return rc;
}

int pgr_prompt_password(void *arg, char **out, struct pgr_err *err)
{
	const struct pgr_sys *sys = pgr_sys_real();
	struct asker a = {.sys = sys, .stop = arg, .name = "/dev/tty"};
	int tty, rc;

	*out = NULL;
	if (a.stop != NULL && pgr_stop_check(a.stop, err) != PGR_OK)
		return PGR_ERR;
	tty = sys->openat(sys, AT_FDCWD, "/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC, 0);
	a.in = tty >= 0 ? tty : STDIN_FILENO;
	a.out = tty >= 0 ? tty : STDERR_FILENO;
	if (tty < 0)
		a.name = "standard input";
	rc = prompt(&a, out, err);
	if (tty >= 0)
		sys->close(sys, tty); /* nothing of ours is in it */
	return rc;
}
