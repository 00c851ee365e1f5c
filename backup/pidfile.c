#include "backup/pidfile.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs_io.h"
#include "common/num.h"
#include "common/sys.h"

#define MOST_BYTES 65536

static int unknown(const char *where, const char *why, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "cannot tell whether a server is running in directory \"%s\": %s", where, why);
	return pgr_err_hint(err, "If none is, remove the file \"%s/" PGR_PIDFILE_NAME "\".", where);
}

/* Whoever may not read the file, or finds something else in its place, has to look; a failing disk is another matter.
 */
static int read_failed(const char *where, struct pgr_err *err)
{
	struct pgr_err why = *err;
	int e = why.sys_errno;

	if (why.cls == PGR_E_DATA || e == EACCES || e == EPERM || e == ELOOP || e == ENXIO)
		return unknown(where, why.msg, err);
	return PGR_ERR;
}

/* The first line: the postmaster's number, or that of a backend that runs alone, with a minus sign. */
static bool parse_pid(const char *text, pid_t *pid)
{
	size_t len = strcspn(text, "\r\n");
	int64_t n;

	if (!pgr_num_i64(text, len, &n) || n == 0 || n < -INT32_MAX || n > INT32_MAX)
		return false;
	*pid = (pid_t)(n < 0 ? -n : n);
	return true;
}

/*
 * A number that we or the shell that started us have is that of a server which ran before us: numbers come again after
 * each start of a machine, and in a container each server is process 1, as is the script that runs us there.  (The
 * commands of a server have its children for parents, never itself.)  Another user's parent is no shell of ours.
 */
static bool is_ours(const struct pgr_sys *sys, pid_t pid)
{
	return pid == getpid() || (pid == getppid() && sys->kill(sys, pid, 0) == 0);
}

static int check_process(const struct pgr_sys *sys, pid_t pid, const char *where, struct pgr_err *err)
{
	if (is_ours(sys, pid))
		return PGR_OK;
	if (sys->kill(sys, pid, 0) != 0 && errno != EPERM) {
		int e = errno;

		return e == ESRCH ? PGR_OK : unknown(where, strerror(e), err);
	}
	pgr_err_set(err, PGR_E_USAGE, "a server is running in directory \"%s\" (process %ld)", where, (long)pid);
	return pgr_err_hint(err, "If process %ld is no PostgreSQL server, remove the file \"%s/" PGR_PIDFILE_NAME "\".",
			    (long)pid, where);
}

int pgr_pidfile_check(const struct pgr_sys *sys, int dirfd, const char *where, struct pgr_err *err)
{
	char *text;
	size_t len;
	pid_t pid;
	int rc = pgr_fs_read_file(sys, dirfd, where, PGR_PIDFILE_NAME, MOST_BYTES, &text, &len, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : read_failed(where, err);
	if (len == 0)
		rc = unknown(where, "\"" PGR_PIDFILE_NAME "\" is empty", err);
	else if (!parse_pid(text, &pid))
		rc = unknown(where, "\"" PGR_PIDFILE_NAME "\" names no process", err);
	else
		rc = check_process(sys, pid, where, err);
	free(text);
	return rc;
}
