#include "backup/pidfile.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
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

/* ---- processes that have outlived their postmaster ---- */

/* How long they may take to notice. */
#define TRIES	20
#define WAIT_MS 100

#define SEGMENT_LINE 7 /* LOCK_FILE_LINE_SHMEM_KEY: "  5432001    196610" */

static const char *skip_lines(const char *text, int n)
{
	for (; n > 0 && text != NULL; n--) {
		text = strchr(text, '\n');
		text += text != NULL;
	}
	return text;
}

static bool take_number(const char **at, uint64_t *out)
{
	const char *p = *at + strspn(*at, " ");
	size_t n = strspn(p, "0123456789");

	*at = p + n;
	return pgr_num_u64(p, n, out);
}

/* The key is an int that was written as an unsigned long; 0 is IPC_PRIVATE, which none of a server's ever is. */
static bool parse_segment(const char *text, key_t *key, int *id)
{
	uint64_t k, i;

	text = skip_lines(text, SEGMENT_LINE - 1);
	if (text == NULL || !take_number(&text, &k) || !take_number(&text, &i) || i > INT32_MAX)
		return false;
	*key = (key_t)(uint32_t)k;
	*id = (int)i;
	return *key != 0;
}

/* Each process of a server is attached to its segment, which a postmaster that was killed leaves (PGSharedMemoryIsInUse
 * of src/backend/port/sysv_shmem.c). */
static bool is_attached(key_t key, int id)
{
	struct shmid_ds ds;

	return shmctl(id, IPC_STAT, &ds) == 0 && ds.shm_perm.__key == key && ds.shm_nattch > 0;
}

static int check_segment(const struct pgr_sys *sys, const char *text, const char *where, struct pgr_err *err)
{
	key_t key;
	int id;

	if (!parse_segment(text, &key, &id))
		return PGR_OK;
	for (int i = 0; is_attached(key, id); i++) {
		if (i == TRIES) {
			pgr_err_set(err, PGR_E_USAGE,
				    "processes of a server that has ended are still running in directory \"%s\"",
				    where);
			return pgr_err_hint(err,
					    "They are attached to the shared memory segment %d.  If they are not of a "
					    "server, remove the file \"%s/" PGR_PIDFILE_NAME "\".",
					    id, where);
		}
		(void)sys->poll(sys, NULL, 0, WAIT_MS);
	}
	return PGR_OK;
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
	if (rc == PGR_OK)
		rc = check_segment(sys, text, where, err);
	free(text);
	return rc;
}
