#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "backup/bbstream.h"
#include "backup/keep.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "backup/olddir.h"
#include "backup/pidfile.h"
#include "backup/seed_state.h"
#include "common/buf.h"
#include "tests/support/controlmaker.h"
#include "tests/support/fault_sys.h"
#include "tests/support/sqlscript.h"
#include "tests/support/tmptree.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#define V15   150020
#define OURS  "7123456789012345678"
#define OTHER "7000000000000000001"
#define REDO  0x1A2000028ull
#define START 0x1A0000060ull

#define LABEL                                                                                                          \
	"START WAL LOCATION: 1/A0000060 (file 0000000300000001000000A0)\nCHECKPOINT LOCATION: 1/A00000C8\n"            \
	"BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-21 09:00:00 UTC\nLABEL: x\n"               \
	"START TIMELINE: 3\n"

static struct tmptree tree;
static struct pgr_olddir *dir;
static struct pgr_err err;
static unsigned fds;
static char data[PATH_MAX];
static const struct control_values usual = {
	.system_identifier = 7123456789012345678ull, .state = 6, .redo = REDO, .tli = 3, .min_recovery = REDO + 0x1000};
static const struct pgr_olddir_state ours = {.system_identifier = OURS, .major = 15, .whole = true};

static void setup(void)
{
	tmp_make(&tree);
	snprintf(data, sizeof(data), "%s/data", tree.path);
	dir = NULL;
	memset(&err, 0, sizeof(err));
	fds = tmp_open_fds();
}

static void teardown(void)
{
	pgr_olddir_free(dir);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void write_bytes(const char *name, const void *p, size_t n)
{
	FILE *f = fopen(tmp_at(&tree, name), "w");

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(p, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
}

static void write_control(const char *name, uint64_t redo)
{
	struct control_values v = usual;
	uint8_t file[CONTROL_BYTES];

	v.redo = redo;
	control_make(file, &v);
	write_bytes(name, file, sizeof(file));
}

static void damage(const char *name)
{
	FILE *f = fopen(tmp_at(&tree, name), "r+");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fseek(f, 100, SEEK_SET), 0);
	ck_assert_int_eq(fputc(0x55, f), 0x55);
	ck_assert_int_eq(fclose(f), 0);
}

static void write_state_as_it_is(const struct pgr_olddir_state *s)
{
	struct pgr_buf b = {0};

	must(pgr_seed_state_format(&b, s, &err));
	write_bytes("data/" PGR_OLDDIR_STATE, b.data, b.len);
	pgr_buf_fini(&b);
}

static void write_state(const struct pgr_olddir_state *s)
{
	struct pgr_olddir_state here = *s;
	struct stat st;

	ck_assert_int_eq(stat(data, &st), 0);
	here.inode = st.st_ino;
	write_state_as_it_is(&here);
}

/* A data directory as it is left by a server, with what a run takes away. */
static void fill_bare(void)
{
	tmp_mkdir(&tree, "data/global", 0700);
	tmp_mkdir(&tree, "data/base", 0700);
	tmp_write(&tree, "data/PG_VERSION", "15\n");
}

static void make_bare(void)
{
	tmp_mkdir(&tree, "data", 0700);
	fill_bare();
}

static void make_copy(void)
{
	make_bare();
	write_control("data/global/pg_control", REDO);
	tmp_write(&tree, "data/backup_manifest", "old");
	tmp_write(&tree, "data/backup_manifest.tmp", "older");
	tmp_write(&tree, "data/postmaster.opts", "postgres -D data");
}

static void look(void)
{
	must(pgr_olddir_open(&dir, pgr_sys_real(), data, &err));
}

static void look_finds(enum pgr_olddir_kind kind)
{
	look();
	ck_assert_int_eq(pgr_olddir_kind(dir), kind);
	ck_assert((pgr_olddir_state(dir) != NULL) == (kind == PGR_OLDDIR_UNFINISHED));
}

static void again(void)
{
	pgr_olddir_free(dir);
	dir = NULL;
}

static void base_is(pgr_lsn want, pgr_tli want_tli)
{
	pgr_tli tli;

	ck_assert_uint_eq(pgr_olddir_base(dir, &tli), want);
	ck_assert_uint_eq(tli, want_tli);
}

static void PGR_PRINTF(3, 4) check_failed(int rc, enum pgr_errclass cls, const char *fmt, ...)
{
	char want[3 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, cls);
}

static int try_look(void)
{
	int rc = pgr_olddir_open(&dir, pgr_sys_real(), data, &err);

	ck_assert((dir != NULL) == (rc == PGR_OK));
	return rc;
}

static int open_root(void)
{
	int fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static int take(const struct pgr_olddir_state *s)
{
	int root = open_root();
	int rc = pgr_olddir_take_over(dir, root, s, &err);

	close(root);
	return rc;
}

static int distrust(void)
{
	int root = open_root();
	int rc = pgr_olddir_distrust(dir, root, &err);

	close(root);
	return rc;
}

/* ---- nothing there ---- */

START_TEST(missing)
{
	look_finds(PGR_OLDDIR_EMPTY);
	ck_assert_ptr_null(pgr_olddir_control(dir));
	base_is(0, 0);
	must(pgr_olddir_check_server(dir, OURS, V15, &err));
	must(pgr_olddir_check_sizes(dir, 8192, 131072, &err));
}
END_TEST

START_TEST(empty)
{
	tmp_mkdir(&tree, "data", 0700);
	look_finds(PGR_OLDDIR_EMPTY);
	ck_assert_ptr_null(pgr_olddir_control(dir));
}
END_TEST

/* What a run makes before it takes over. */
START_TEST(nearly_empty)
{
	tmp_mkdir(&tree, "data", 0700);
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "data/" PGR_OLDDIR_STATE ".tmp", "half a st");
	tmp_mkdir(&tree, "data/pg_tblspc", 0700);
	tmp_mkdir(&tree, "data/pg_tblspc/16385", 0700);
	if (_i == 0)
		tmp_mkdir(&tree, "data/pg_wal", 0700);
	else
		ck_assert_int_eq(symlink(tmp_at(&tree, _i == 1 ? "wal" : "nowhere"), tmp_at(&tree, "data/pg_wal")), 0);
	look_finds(PGR_OLDDIR_EMPTY);
}
END_TEST

static const char *const strangers[] = {"data/mine",
					"data/.hidden",
					"data/PG_VERSION",
					"data/pg_tblspc",
					"data/pg_tblspc/16385",
					"data/pg_tblspc/1/x",
					"data/pg_wal",
					"data/pg_wal/0000000100000000000000A0",
					"data/base/1",
					"data/global/1",
					"data/lost+found/1",
					"data/pgr_seed.states"};

START_TEST(not_empty)
{
	char path[64];

	tmp_mkdir(&tree, "data", 0700);
	snprintf(path, sizeof(path), "%s", strangers[_i]);
	for (char *p = strchr(path + 5, '/'); p != NULL; p = strchr(p + 1, '/')) {
		*p = '\0';
		tmp_mkdir(&tree, path, 0700);
		*p = '/';
	}
	tmp_write(&tree, strangers[_i], "mine");
	check_failed(try_look(), PGR_E_USAGE, "directory \"%s\" is not empty and is no data directory", data);
}
END_TEST

START_TEST(somebodys_wal)
{
	tmp_mkdir(&tree, "data", 0700);
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "wal/0000000100000000000000A0", "WAL");
	ck_assert_int_eq(symlink(tmp_at(&tree, "wal"), tmp_at(&tree, "data/pg_wal")), 0);
	check_failed(try_look(), PGR_E_USAGE, "directory \"%s\" is not empty and is no data directory", data);
}
END_TEST

START_TEST(no_directory)
{
	tmp_write(&tree, "data", "");
	check_failed(try_look(), PGR_E_USAGE, "\"%s\" is not a directory", data);
	snprintf(data, sizeof(data), "%s/data/x", tree.path);
	check_failed(try_look(), PGR_E_USAGE, "\"%s\" is not a directory", data);
}
END_TEST

START_TEST(locked)
{
	struct pgr_olddir *other;

	make_copy();
	look();
	check_failed(pgr_olddir_open(&other, pgr_sys_real(), data, &err), PGR_E_USAGE,
		     "another pgr-basebackup is at work in directory \"%s\"", data);
	ck_assert_ptr_null(other);
	again();
	look();
}
END_TEST

/* ---- a copy ---- */

START_TEST(copy)
{
	make_copy();
	look_finds(PGR_OLDDIR_COPY);
	ck_assert_uint_eq(pgr_olddir_control(dir)->system_identifier, usual.system_identifier);
	ck_assert_uint_eq(pgr_olddir_control(dir)->redo, REDO);
	base_is(REDO, 3);
}
END_TEST

START_TEST(copy_behind_links)
{
	make_copy();
	ck_assert_int_eq(rename(data, tmp_at(&tree, "real")), 0);
	ck_assert_int_eq(symlink("real", tmp_at(&tree, "link")), 0);
	ck_assert_int_eq(symlink(tmp_at(&tree, "link"), data), 0);
	look_finds(PGR_OLDDIR_COPY);
}
END_TEST

START_TEST(copy_with_label)
{
	make_copy();
	tmp_write(&tree, "data/backup_label", LABEL);
	look_finds(PGR_OLDDIR_COPY);
	base_is(START, 3);
	again();
	tmp_write(&tree, "data/backup_label", "START WAL LOCATION: what?\n");
	look_finds(PGR_OLDDIR_COPY);
	base_is(0, 0);
}
END_TEST

/* Who made it was perhaps interrupted before it was synced. */
START_TEST(copy_that_was_not_finished)
{
	make_copy();
	tmp_write(&tree, "data/backup_label", LABEL);
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_manifest")), 0);
	look_finds(PGR_OLDDIR_COPY);
	ck_assert(pgr_olddir_is_backup(dir));
	base_is(0, 0);
	must(take(&ours));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
}
END_TEST

/* With pg_control in its place nothing was changed yet, or all is over. */
START_TEST(copy_with_state)
{
	struct pgr_olddir_state s = ours;

	make_copy();
	s.start = START;
	s.tli = 1;
	write_state(&s);
	look_finds(PGR_OLDDIR_COPY);
	base_is(REDO, 3);
	again();
	tmp_write(&tree, "data/" PGR_OLDDIR_STATE, "not ours");
	look_finds(PGR_OLDDIR_COPY);
}
END_TEST

START_TEST(bare)
{
	make_bare();
	tmp_write(&tree, "data/backup_label", LABEL);
	look_finds(PGR_OLDDIR_BARE);
	ck_assert_ptr_null(pgr_olddir_control(dir));
	base_is(0, 0);
	must(pgr_olddir_check_server(dir, OURS, V15, &err));
	check_failed(pgr_olddir_check_server(dir, OURS, 160001, &err), PGR_E_USAGE,
		     "directory \"%s\" is of PostgreSQL 15, the server is of 16", data);
}
END_TEST

START_TEST(damaged)
{
	make_copy();
	damage("data/global/pg_control");
	check_failed(try_look(), PGR_E_USAGE,
		     "cannot tell whose cluster directory \"%s\" holds: the checksum of pg_control does not hold",
		     data);
	ck_assert_ptr_nonnull(strstr(err.hint, "/global/pg_control"));
	tmp_write(&tree, "data/global/pg_control", "");
	check_failed(try_look(), PGR_E_USAGE,
		     "cannot tell whose cluster directory \"%s\" holds: pg_control has only 0 bytes", data);
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/global/pg_control")), 0);
	tmp_mkdir(&tree, "data/global/pg_control", 0700);
	ck_assert_int_eq(try_look(), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "is not a regular file");
}
END_TEST

START_TEST(global_is_something_else)
{
	make_copy();
	ck_assert_int_eq(rename(tmp_at(&tree, "data/global"), tmp_at(&tree, "elsewhere")), 0);
	if (_i == 0)
		tmp_write(&tree, "data/global", "");
	else
		ck_assert_int_eq(symlink("../elsewhere", tmp_at(&tree, "data/global")), 0);
	check_failed(try_look(), PGR_E_USAGE, "directory \"%s\" is no data directory: \"global\" in it is no directory",
		     data);
}
END_TEST

/* ---- an unfinished one ---- */

static void set_aside(void)
{
	ck_assert_int_eq(rename(tmp_at(&tree, "data/global/pg_control"), tmp_at(&tree, "data/" PGR_OLDDIR_CONTROL)), 0);
}

START_TEST(unfinished)
{
	make_copy();
	set_aside();
	write_state(&ours);
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_str_eq(pgr_olddir_state(dir)->system_identifier, OURS);
	ck_assert_int_eq(pgr_olddir_state(dir)->major, 15);
	ck_assert_uint_eq(pgr_olddir_state(dir)->start, 0);
	ck_assert_uint_eq(pgr_olddir_control(dir)->redo, REDO);
	base_is(REDO, 3);
}
END_TEST

/* The state's start counts before pg_control; a run that wrote into files in their places spoils both. */
START_TEST(unfinished_base)
{
	struct pgr_olddir_state s = ours;

	make_copy();
	set_aside();
	tmp_write(&tree, "data/backup_label", "of the run that was interrupted");
	s.start = START;
	s.tli = 2;
	write_state(&s);
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(START, 2);
	again();
	s.whole = false;
	write_state(&s);
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
	again();
	s.start = 0;
	s.tli = 0;
	write_state(&s);
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
}
END_TEST

/* That came with a copy of a server's directory, say. */
START_TEST(unfinished_by_a_foreign_state)
{
	struct pgr_olddir_state s = ours;

	make_copy();
	set_aside();
	s.start = START;
	s.tli = 2;
	s.fresh = true;
	write_state(&s);
	ck_assert_int_eq(rename(data, tmp_at(&tree, "old")), 0);
	make_bare();
	ck_assert_int_eq(rename(tmp_at(&tree, "old/" PGR_OLDDIR_STATE), tmp_at(&tree, "data/" PGR_OLDDIR_STATE)), 0);
	ck_assert_int_eq(rename(tmp_at(&tree, "old/" PGR_OLDDIR_CONTROL), tmp_at(&tree, "data/" PGR_OLDDIR_CONTROL)),
			 0);
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
	ck_assert_uint_eq(pgr_olddir_state(dir)->start, 0);
	ck_assert(!pgr_olddir_state(dir)->fresh);
	must(take(&ours));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
}
END_TEST

START_TEST(unfinished_fresh)
{
	struct pgr_olddir_state s = ours;

	tmp_mkdir(&tree, "data", 0700);
	s.start = START;
	s.tli = 7;
	write_state(&s);
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_ptr_null(pgr_olddir_control(dir));
	base_is(START, 7);
}
END_TEST

START_TEST(unfinished_damaged)
{
	struct pgr_olddir_state s = ours;

	make_copy();
	damage("data/global/pg_control");
	/* the state may be of long ago, and a server have run since: no run leaves this */
	s.start = START;
	s.tli = 2;
	s.fresh = true;
	write_state(&s);
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_ptr_null(pgr_olddir_control(dir));
	ck_assert(!pgr_olddir_state(dir)->fresh && !pgr_olddir_is_backup(dir));
	base_is(0, 0);
	again();
	write_state(&ours);
	set_aside();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_ptr_null(pgr_olddir_control(dir));
	base_is(0, 0);
}
END_TEST

/* A state that somebody removed: what can be told without it is. */
START_TEST(unfinished_without_state)
{
	make_copy();
	set_aside();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_str_eq(pgr_olddir_state(dir)->system_identifier, OURS);
	ck_assert_int_eq(pgr_olddir_state(dir)->major, 15);
	base_is(0, 0);
	again();
	damage("data/" PGR_OLDDIR_CONTROL);
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/PG_VERSION")), 0);
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_str_eq(pgr_olddir_state(dir)->system_identifier, "");
	ck_assert_int_eq(pgr_olddir_state(dir)->major, 0);
	must(pgr_olddir_check_server(dir, OTHER, 170001, &err));
}
END_TEST

START_TEST(unfinished_bad_state)
{
	make_copy();
	set_aside();
	tmp_write(&tree, "data/" PGR_OLDDIR_STATE, "nonsense");
	check_failed(try_look(), PGR_E_USAGE,
		     "could not use file \"%s/" PGR_OLDDIR_STATE "\", which an interrupted run left: it is damaged",
		     data);
	tmp_write(&tree, "data/" PGR_OLDDIR_STATE, "pgr seed state 2\nmore\n");
	ck_assert_int_eq(try_look(), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "it was written by another version of pgr (2)");
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/" PGR_OLDDIR_STATE)), 0);
	tmp_mkdir(&tree, "data/" PGR_OLDDIR_STATE, 0700);
	ck_assert_int_eq(try_look(), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "is not a regular file");
}
END_TEST

START_TEST(two_controls)
{
	make_copy();
	write_control("data/" PGR_OLDDIR_CONTROL, REDO + 0x100);
	ck_assert_int_eq(try_look(), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err.msg, data) != NULL && strstr(err.msg, "another one") != NULL, "%s", err.msg);
	ck_assert_ptr_nonnull(strstr(err.hint, PGR_OLDDIR_CONTROL));
	write_control("data/" PGR_OLDDIR_CONTROL, REDO); /* the same one twice is no riddle */
	look_finds(PGR_OLDDIR_UNFINISHED);
}
END_TEST

/* ---- postmaster.pid ---- */

static int check_pidfile(const struct pgr_sys *sys)
{
	int fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	ck_assert_int_ge(fd, 0);
	rc = pgr_pidfile_check(sys, fd, data, &err);
	close(fd);
	return rc;
}

static void write_pid(long pid)
{
	char text[PATH_MAX + 128];

	snprintf(text, sizeof(text), "%ld\n%s\n1700000000\n5432\n/tmp\nlocalhost\n  5432001    196610\nready   \n", pid,
		 data);
	tmp_write(&tree, "data/" PGR_PIDFILE_NAME, text);
}

START_TEST(pid_alive)
{
	int to_child[2], status;
	pid_t pid;
	char c;

	make_copy();
	ck_assert_int_eq(pipe(to_child), 0);
	pid = fork();
	if (pid == 0) {
		close(to_child[1]);
		_exit(read(to_child[0], &c, 1) == 0 ? 0 : 1);
	}
	ck_assert_int_gt(pid, 0);
	for (int sign = -1; sign <= 1; sign += 2) {
		write_pid(sign * (long)pid);
		check_failed(try_look(), PGR_E_USAGE, "a server is running in directory \"%s\" (process %ld)", data,
			     (long)pid);
		ck_assert_ptr_nonnull(strstr(err.hint, PGR_PIDFILE_NAME));
	}
	close(to_child[0]);
	close(to_child[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	look_finds(PGR_OLDDIR_COPY); /* it has ended */
}
END_TEST

static int kill_errno;

static int kill_fails(const struct pgr_sys *sys, pid_t pid, int sig)
{
	(void)sys;
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(sig, 0);
	errno = kill_errno;
	return kill_errno != 0 ? -1 : 0;
}

/* Our own number, or that of the shell which started us, was the server's before; another user's parent is no shell. */
START_TEST(pid_ours)
{
	struct pgr_sys sys = *pgr_sys_real();

	make_copy();
	sys.kill = kill_fails;
	for (kill_errno = 0; kill_errno <= EPERM; kill_errno += EPERM) {
		write_pid(getpid());
		must(check_pidfile(&sys));
		write_pid(getppid());
		ck_assert_int_eq(check_pidfile(&sys), kill_errno == EPERM ? PGR_ERR : PGR_OK);
	}
}
END_TEST

START_TEST(pid_kill)
{
	struct pgr_sys sys = *pgr_sys_real();

	make_copy();
	sys.kill = kill_fails;
	write_pid(INT32_MAX);
	kill_errno = ESRCH;
	must(check_pidfile(&sys));
	kill_errno = EPERM;
	check_failed(check_pidfile(&sys), PGR_E_USAGE, "a server is running in directory \"%s\" (process 2147483647)",
		     data);
	kill_errno = ENOSYS;
	check_failed(check_pidfile(&sys), PGR_E_USAGE,
		     "cannot tell whether a server is running in directory \"%s\": Function not implemented", data);
}
END_TEST

static const struct {
	const char *text, *why;
} bad_pids[] = {
	{"", "\"postmaster.pid\" is empty"},
	{"\n", "\"postmaster.pid\" names no process"},
	{"nonsense\n", "\"postmaster.pid\" names no process"},
	{"0\n", "\"postmaster.pid\" names no process"},
	{"-0\n", "\"postmaster.pid\" names no process"},
	{"2147483648\n", "\"postmaster.pid\" names no process"},
	{"-2147483648\n", "\"postmaster.pid\" names no process"},
	{"99999999999999999999\n", "\"postmaster.pid\" names no process"},
	{"12x\n", "\"postmaster.pid\" names no process"},
	{" 12\n", "\"postmaster.pid\" names no process"},
	{"-\n", "\"postmaster.pid\" names no process"},
};

START_TEST(pid_odd)
{
	make_copy();
	tmp_write(&tree, "data/" PGR_PIDFILE_NAME, bad_pids[_i].text);
	check_failed(try_look(), PGR_E_USAGE, "cannot tell whether a server is running in directory \"%s\": %s", data,
		     bad_pids[_i].why);
	ck_assert_ptr_nonnull(strstr(err.hint, "postmaster.pid"));
}
END_TEST

static int open_errno;

static int open_fails(const struct pgr_sys *sys, int dirfd, const char *path, int flags, mode_t mode)
{
	(void)sys;
	if (strcmp(path, PGR_PIDFILE_NAME) != 0)
		return openat(dirfd, path, flags, mode);
	errno = open_errno;
	return -1;
}

START_TEST(pid_unreadable)
{
	struct pgr_sys sys = *pgr_sys_real();

	make_copy();
	tmp_mkdir(&tree, "data/" PGR_PIDFILE_NAME, 0700);
	ck_assert_int_eq(check_pidfile(&sys), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "is not a regular file");
	ck_assert_int_eq(rmdir(tmp_at(&tree, "data/" PGR_PIDFILE_NAME)), 0);
	ck_assert_int_eq(symlink("elsewhere", tmp_at(&tree, "data/" PGR_PIDFILE_NAME)), 0);
	ck_assert_int_eq(check_pidfile(&sys), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "cannot tell whether a server is running in directory");
	sys.openat = open_fails;
	open_errno = EACCES;
	ck_assert_int_eq(check_pidfile(&sys), PGR_ERR);
	sqls_check_err(&err, PGR_E_USAGE, "Permission denied");
	open_errno = EMFILE;
	ck_assert_int_eq(check_pidfile(&sys), PGR_ERR);
	sqls_check_err(&err, PGR_E_SYSTEM, "postmaster.pid");
	open_errno = ENOENT;
	must(check_pidfile(&sys));
}
END_TEST

/* The segment by which a server's processes know each other; the number in the file is an unsigned long. */
static void write_segment(int key, int id)
{
	char text[PATH_MAX + 128];

	snprintf(text, sizeof(text), "%d\n%s\n1700000000\n5432\n/tmp\nlocalhost\n%9lu %9lu\nready   \n", getpid(), data,
		 (unsigned long)key, (unsigned long)id);
	tmp_write(&tree, "data/" PGR_PIDFILE_NAME, text);
}

static int no_poll(const struct pgr_sys *sys, struct pollfd *fds_, nfds_t n, int ms)
{
	(void)sys;
	(void)fds_;
	(void)n;
	(void)ms;
	return 0;
}

/* A postmaster that was killed leaves processes that still write. */
START_TEST(pid_orphans)
{
	struct pgr_sys sys = *pgr_sys_real();
	int key = (int)(0x80000000u | (unsigned)getpid()), id = shmget(key, 100, IPC_CREAT | IPC_EXCL | 0600);
	void *at;

	if (id < 0 && errno == ENOSYS)
		return;
	ck_assert_int_ge(id, 0);
	sys.poll = no_poll;
	make_copy();
	write_segment(key, id);
	must(check_pidfile(&sys)); /* nobody is attached */
	at = shmat(id, NULL, 0);
	check_failed(check_pidfile(&sys), PGR_E_USAGE,
		     "processes of a server that has ended are still running in directory \"%s\"", data);
	ck_assert_msg(strstr(err.hint, PGR_PIDFILE_NAME) != NULL, "%s", err.hint);
	write_segment(key + 1, id); /* somebody else's, by now */
	must(check_pidfile(&sys));
	write_segment(0, id);
	must(check_pidfile(&sys));
	write_segment(key, id);
	ck_assert_int_eq(shmdt(at), 0);
	must(check_pidfile(&sys));
	ck_assert_int_eq(shmctl(id, IPC_RMID, NULL), 0);
	must(check_pidfile(&sys));
}
END_TEST

/* ---- the state as text ---- */

START_TEST(state_text)
{
	static const struct pgr_olddir_state all[] = {
		{.system_identifier = OURS,
		 .major = 15,
		 .start = START,
		 .tli = 7,
		 .whole = true,
		 .fresh = true,
		 .inode = 17},
		{.system_identifier = "1", .major = 9},
		{.system_identifier = "18446744073709551615",
		 .major = 18,
		 .start = UINT64_MAX,
		 .tli = UINT32_MAX,
		 .server_tli = UINT32_MAX},
	};
	struct pgr_olddir_state s;
	struct pgr_buf b = {0};

	must(pgr_seed_state_format(&b, &all[_i], &err));
	must(pgr_seed_state_parse(pgr_buf_str(&b), b.len, &s, &err));
	ck_assert_str_eq(s.system_identifier, all[_i].system_identifier);
	ck_assert_int_eq(s.major, all[_i].major);
	ck_assert_uint_eq(s.start, all[_i].start);
	ck_assert_uint_eq(s.tli, all[_i].tli);
	ck_assert_uint_eq(s.server_tli, all[_i].server_tli);
	ck_assert(s.whole == all[_i].whole);
	ck_assert(s.fresh == all[_i].fresh);
	ck_assert_uint_eq(s.inode, all[_i].inode);
	for (size_t at = 0; at < b.len; at++) { /* each byte counts, and so does each length */
		b.data[at] ^= 1;
		ck_assert_int_eq(pgr_seed_state_parse(pgr_buf_str(&b), b.len, &s, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		b.data[at] ^= 1;
	}
	while (b.len > 0) {
		b.len--;
		ck_assert_int_eq(pgr_seed_state_parse(pgr_buf_str(&b), b.len, &s, &err), PGR_ERR);
		ck_assert_uint_eq(s.start, 0);
	}
	pgr_buf_fini(&b);
}
END_TEST

START_TEST(state_refused)
{
	static const char *const ids[] = {"", "x", "-1", "18446744073709551616", "12\n13"};
	struct pgr_olddir_state s = ours;
	struct pgr_buf b = {0};

	snprintf(s.system_identifier, sizeof(s.system_identifier), "%s", ids[_i]);
	ck_assert_int_eq(pgr_seed_state_format(&b, &s, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_uint_eq(b.len, 0);
}
END_TEST

/* ---- is it the server's? ---- */

START_TEST(server_same)
{
	make_copy();
	look();
	must(pgr_olddir_check_server(dir, OURS, V15, &err));
	check_failed(pgr_olddir_check_server(dir, OTHER, V15, &err), PGR_E_USAGE,
		     "directory \"%s\" holds another cluster: its system identifier is " OURS
		     ", the server's is " OTHER,
		     data);
	check_failed(pgr_olddir_check_server(dir, OURS, 140001, &err), PGR_E_USAGE,
		     "directory \"%s\" is of PostgreSQL 15, the server is of 14", data);
}
END_TEST

START_TEST(server_versions)
{
	static const struct {
		const char *text;
		int server;
		bool good;
	} all[] = {
		{"15\n", V15, true},
		{"15", V15, true},
		{"9.6\n", 90624, true},
		{"9.5\n", 90624, false},
		{"9.6\n", V15, false},
		{"1\n", V15, false},
		{"150\n", V15, false},
		{"\n", V15, false},
		{"15x\n", V15, false},
		{"15\n\n", V15, false},
		{"11111111111111111\n", V15, false},
	};

	make_copy();
	tmp_write(&tree, "data/PG_VERSION", all[_i].text);
	look();
	ck_assert_int_eq(pgr_olddir_check_server(dir, OURS, all[_i].server, &err), all[_i].good ? PGR_OK : PGR_ERR);
	if (!all[_i].good)
		sqls_check_err(&err, PGR_E_USAGE, data);
}
END_TEST

/* Of an unfinished directory the state tells, for PG_VERSION may not be written yet. */
START_TEST(server_of_unfinished)
{
	make_copy();
	set_aside();
	write_state(&ours);
	tmp_write(&tree, "data/PG_VERSION", "");
	look();
	must(pgr_olddir_check_server(dir, OURS, V15, &err));
	check_failed(pgr_olddir_check_server(dir, OURS, 160001, &err), PGR_E_USAGE,
		     "directory \"%s\" is of PostgreSQL 15, the server is of 16", data);
	check_failed(pgr_olddir_check_server(dir, OTHER, V15, &err), PGR_E_USAGE,
		     "directory \"%s\" holds another cluster: its system identifier is " OURS
		     ", the server's is " OTHER,
		     data);
	again();
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/" PGR_OLDDIR_CONTROL)), 0);
	look();
	ck_assert_int_eq(pgr_olddir_check_server(dir, OTHER, V15, &err), PGR_ERR);
}
END_TEST

START_TEST(server_sizes)
{
	make_copy();
	look();
	must(pgr_olddir_check_sizes(dir, 8192, 131072, &err));
	must(pgr_olddir_check_sizes(dir, 0, 0, &err));
	check_failed(pgr_olddir_check_sizes(dir, 16384, 131072, &err), PGR_E_USAGE,
		     "directory \"%s\" has blocks of 8192 bytes, the server has blocks of 16384", data);
	check_failed(pgr_olddir_check_sizes(dir, 8192, 65536, &err), PGR_E_USAGE,
		     "directory \"%s\" has files of 131072 blocks, the server has files of 65536", data);
}
END_TEST

/* ---- take-over ---- */

static int finish(bool sync)
{
	int root = open_root();
	int rc = pgr_olddir_settle(dir, root, START, 7, sync, &err);

	if (rc == PGR_OK)
		rc = pgr_olddir_finish(dir, root, sync, &err);
	close(root);
	return rc;
}

static void settle(bool sync)
{
	int root = open_root();

	must(pgr_olddir_settle(dir, root, START, 7, sync, &err));
	close(root);
}

START_TEST(takes_a_copy)
{
	struct pgr_olddir_state s = ours;
	char *state;

	make_copy();
	look();
	s.start = START; /* it is no empty directory */
	s.tli = 9;
	must(take(&s));
	ck_assert_int_eq(pgr_olddir_kind(dir), PGR_OLDDIR_COPY);
	ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
	ck_assert(tmp_exists(&tree, "data/" PGR_OLDDIR_CONTROL));
	ck_assert_uint_eq(tmp_entries(data), 4); /* the state, PG_VERSION, base, global */
	state = tmp_read(&tree, "data/" PGR_OLDDIR_STATE, NULL);
	ck_assert_ptr_nonnull(strstr(state, "\nstart: none\n"));
	free(state);
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_uint_eq(pgr_olddir_control(dir)->redo, REDO);
	base_is(REDO, 3);
	must(take(&ours));
	must(finish(true));
	ck_assert_uint_eq(tmp_entries(data), 3);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/global")), 0);
}
END_TEST

START_TEST(removes_a_stale_lock_file)
{
	static struct pgr_sys sys;

	sys = *pgr_sys_real();
	sys.kill = kill_fails;
	kill_errno = ESRCH;
	make_copy();
	write_pid(12345);
	must(pgr_olddir_open(&dir, &sys, data, &err));
	must(take(&ours));
	ck_assert(!tmp_exists(&tree, "data/" PGR_PIDFILE_NAME));
}
END_TEST

/* The first run's start is what counts, however often it is interrupted; one run that spoils files spoils all. */
START_TEST(takes_an_empty_one)
{
	struct pgr_olddir_state s = ours;

	if (_i == 1)
		tmp_mkdir(&tree, "data", 0700);
	look_finds(PGR_OLDDIR_EMPTY);
	if (_i == 0)
		tmp_mkdir(&tree, "data", 0700);
	s.start = START;
	s.tli = 2;
	s.server_tli = 5;
	must(take(&s));
	ck_assert_int_eq(pgr_olddir_kind(dir), PGR_OLDDIR_EMPTY);
	for (int run = 0; run < 4; run++) {
		again();
		look_finds(PGR_OLDDIR_UNFINISHED);
		ck_assert_uint_eq(pgr_olddir_state(dir)->start, START);
		ck_assert_uint_eq(pgr_olddir_state(dir)->tli, 2);
		ck_assert(pgr_olddir_is_backup(dir));
		ck_assert(pgr_olddir_state(dir)->fresh);
		ck_assert_uint_eq(pgr_olddir_state(dir)->server_tli, run < 2 ? 5 : 0);
		base_is(run < 2 ? START : 0, run < 2 ? 2 : 0);
		s.start = START + 0x1000;
		s.tli = 3;
		s.server_tli = run == 1 ? 6 : 5; /* once something else, for ever mixed */
		s.whole = run != 1;
		must(take(&s));
	}
	must(finish(_i == 0));
	ck_assert_uint_eq(tmp_entries(data), 0);
}
END_TEST

START_TEST(takes_a_copy_with_label)
{
	make_copy();
	if (_i == 1) /* the checkpoint of the backup is still the last one */
		write_control("data/global/pg_control", START);
	tmp_write(&tree, "data/backup_label", LABEL);
	look();
	ck_assert(pgr_olddir_is_backup(dir));
	must(take(&ours));
	again();
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_label")), 0);
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert(pgr_olddir_is_backup(dir));
	ck_assert(!pgr_olddir_state(dir)->fresh);
	base_is(START, 3);
}
END_TEST

/* What turned out to be no copy of the server's is not built upon again. */
START_TEST(distrusted)
{
	make_copy();
	if (_i == 1)
		tmp_write(&tree, "data/backup_label", LABEL);
	look();
	must(take(&ours));
	must(distrust());
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert(!pgr_olddir_state(dir)->whole);
	base_is(0, 0);
	/* and stays so */
	must(take(&ours));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
}
END_TEST

START_TEST(distrusted_too_early)
{
	make_copy();
	look();
	check_failed(distrust(), PGR_E_USAGE, "directory \"%s\" was not taken over", data);
}
END_TEST

/* Of what cannot be told at first, nothing can be told afterwards. */
START_TEST(takes_without_base)
{
	if (_i == 0) {
		make_copy();
		tmp_write(&tree, "data/backup_label", "nonsense");
	} else {
		make_bare();
	}
	look();
	must(take(&ours));
	again();
	if (_i == 0)
		ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_label")), 0);
	look_finds(PGR_OLDDIR_UNFINISHED);
	base_is(0, 0);
}
END_TEST

START_TEST(takes_two_controls)
{
	make_copy();
	write_control("data/" PGR_OLDDIR_CONTROL, REDO);
	look_finds(PGR_OLDDIR_UNFINISHED);
	must(take(&ours));
	ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_uint_eq(pgr_olddir_control(dir)->redo, REDO);
}
END_TEST

/* A run that ends between what was set aside and pg_control has the whole backup here, and says so. */
START_TEST(settled)
{
	make_copy();
	look();
	must(take(&ours));
	settle(_i == 0);
	ck_assert(!tmp_exists(&tree, "data/" PGR_OLDDIR_CONTROL));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED);
	ck_assert_int_eq(pgr_olddir_is_backup(dir), _i == 0);
	base_is(_i == 0 ? START : 0, _i == 0 ? 7 : 0);
	if (_i == 0)
		ck_assert_uint_eq(pgr_olddir_state(dir)->server_tli, 7);
}
END_TEST

START_TEST(finish_without_take_over)
{
	make_copy();
	set_aside();
	write_state(&ours);
	look();
	must(finish(true));
	ck_assert(tmp_exists(&tree, "data/" PGR_OLDDIR_STATE));
	ck_assert(tmp_exists(&tree, "data/" PGR_OLDDIR_CONTROL));
}
END_TEST

/* With the new pg_control in its place it is a copy like others, and the state says nothing. */
START_TEST(settled_with_control)
{
	make_copy();
	look();
	must(take(&ours));
	settle(true);
	write_control("data/global/pg_control", REDO + 0x100);
	again();
	look_finds(PGR_OLDDIR_COPY);
	base_is(REDO + 0x100, 3);
	must(take(&ours));
	must(finish(true));
	ck_assert_uint_eq(tmp_entries(data), 3);
}
END_TEST

/* A run that ends between pg_control and its manifest has everything but that, if its state is of this backup. */
START_TEST(settled_without_manifest)
{
	const struct {
		pgr_lsn start;
		pgr_tli tli;
		bool sync;
	} cases[] = {{START, 3, true}, {START + 8, 3, true}, {START, 7, true}, {START, 3, false}};
	bool believed = _i == 0;
	int root;

	make_copy();
	look();
	must(take(&ours));
	root = open_root();
	must(pgr_olddir_settle(dir, root, cases[_i].start, cases[_i].tli, cases[_i].sync, &err));
	close(root);
	write_control("data/global/pg_control", REDO + 0x100);
	tmp_write(&tree, "data/backup_label", LABEL);
	again();
	look_finds(PGR_OLDDIR_COPY);
	ck_assert(pgr_olddir_is_backup(dir));
	ck_assert(pgr_olddir_is_settled(dir) == believed);
	base_is(believed ? START : 0, believed ? 3 : 0);
	tmp_write(&tree, "data/backup_manifest", "{}");
	again();
	look_finds(PGR_OLDDIR_COPY);
	ck_assert(pgr_olddir_is_settled(dir) == believed);
	base_is(START, 3);
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_label")), 0); /* a server has started */
	again();
	look_finds(PGR_OLDDIR_COPY);
	ck_assert(!pgr_olddir_is_settled(dir));
}
END_TEST

/* The same in a copy of that directory: whoever made it may have left files out. */
START_TEST(settled_elsewhere)
{
	struct pgr_olddir_state s = ours;

	make_copy();
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_manifest")), 0);
	tmp_write(&tree, "data/backup_label", LABEL);
	s.start = START;
	s.tli = 3;
	s.inode = 1;
	write_state_as_it_is(&s);
	look_finds(PGR_OLDDIR_COPY);
	base_is(0, 0);
}
END_TEST

/* Two runs find nothing, and both make the directory. */
START_TEST(missing_for_two)
{
	struct pgr_olddir *second, *third;
	int root;

	look_finds(PGR_OLDDIR_EMPTY);
	must(pgr_olddir_open(&second, pgr_sys_real(), data, &err));
	must(pgr_olddir_open(&third, pgr_sys_real(), data, &err));
	tmp_mkdir(&tree, "data", 0700);
	root = open_root();
	must(take(&ours));
	check_failed(pgr_olddir_take_over(second, root, &ours, &err), PGR_E_USAGE,
		     "another pgr-basebackup is at work in directory \"%s\"", data);
	pgr_olddir_free(second);
	again(); /* the first one ends */
	check_failed(pgr_olddir_take_over(third, root, &ours, &err), PGR_E_USAGE,
		     "directory \"%s\" was filled meanwhile", data);
	pgr_olddir_free(third);
	close(root);
}
END_TEST

START_TEST(replaced_meanwhile)
{
	make_copy();
	look();
	ck_assert_int_eq(rename(data, tmp_at(&tree, "old")), 0);
	make_copy();
	check_failed(take(&ours), PGR_E_USAGE, "directory \"%s\" was replaced meanwhile", data);
	ck_assert(tmp_exists(&tree, "data/global/pg_control"));
}
END_TEST

/* A server that starts: between looking and taking over, and in the middle of it. */
START_TEST(started_before)
{
	static struct pgr_sys sys;

	sys = *pgr_sys_real();
	sys.kill = kill_fails;
	kill_errno = 0;
	make_copy();
	must(pgr_olddir_open(&dir, &sys, data, &err));
	write_pid(12345);
	check_failed(take(&ours), PGR_E_USAGE, "a server is running in directory \"%s\" (process 12345)", data);
	ck_assert(tmp_exists(&tree, "data/global/pg_control"));
	ck_assert(tmp_exists(&tree, "data/backup_manifest"));
	ck_assert(!tmp_exists(&tree, "data/" PGR_OLDDIR_STATE));
}
END_TEST

static int start_at_rename(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	(void)sys;
	if (strcmp(old, "pg_control") == 0)
		write_pid(12345);
	return renameat(olddir, old, newdir, new_);
}

START_TEST(started_meanwhile)
{
	static struct pgr_sys sys;

	sys = *pgr_sys_real();
	sys.kill = kill_fails;
	sys.renameat = start_at_rename;
	kill_errno = 0;
	make_copy();
	must(pgr_olddir_open(&dir, &sys, data, &err));
	check_failed(take(&ours), PGR_E_USAGE, "a server is running in directory \"%s\" (process 12345)", data);
	ck_assert(tmp_exists(&tree, "data/global/pg_control"));
	ck_assert(!tmp_exists(&tree, "data/" PGR_OLDDIR_CONTROL));
	ck_assert(tmp_exists(&tree, "data/" PGR_PIDFILE_NAME));
	ck_assert(tmp_exists(&tree, "data/backup_manifest"));
}
END_TEST

/* ---- failures ---- */

static struct pgr_fault_sys f;

/* What lies there before: a copy; one with a label; a fresh run's; a copy's; nothing. */
enum before { COPY, LABELLED, FRESH, UNFINISHED, NOTHING, BEFORES };

static void make_before(enum before b)
{
	struct pgr_olddir_state s = ours;

	if (b == NOTHING || b == FRESH)
		tmp_mkdir(&tree, "data", 0700);
	else
		make_copy();
	if (b == LABELLED)
		tmp_write(&tree, "data/backup_label", LABEL);
	if (b == FRESH) {
		s.start = START;
		s.tli = 3;
	}
	if (b == UNFINISHED)
		set_aside();
	if (b == FRESH || b == UNFINISHED)
		write_state(&s);
}

static void remove_data(void)
{
	ck_assert_int_eq(nftw(data, tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/*
 * After a take-over that broke off anywhere: whose it is, and from where on, is known as well as before, and it cannot
 * start unless nothing was changed yet.
 */
static void check_after(enum before b)
{
	look();
	switch (pgr_olddir_kind(dir)) {
	case PGR_OLDDIR_EMPTY:
		ck_assert_int_eq(b, NOTHING);
		break;
	case PGR_OLDDIR_COPY:
		ck_assert(b == COPY || b == LABELLED);
		ck_assert(tmp_exists(&tree, "data/backup_manifest") && tmp_exists(&tree, "data/postmaster.opts"));
		break;
	case PGR_OLDDIR_UNFINISHED:
		ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
		ck_assert_str_eq(pgr_olddir_state(dir)->system_identifier, OURS);
		ck_assert(pgr_olddir_state(dir)->whole);
		break;
	case PGR_OLDDIR_BARE:
		ck_abort_msg("pg_control is lost");
	}
	if (b == COPY || b == UNFINISHED)
		base_is(REDO, 3);
	else if (b != NOTHING || pgr_olddir_kind(dir) == PGR_OLDDIR_UNFINISHED)
		base_is(START, 3);
	ck_assert((pgr_olddir_control(dir) != NULL) == (b == COPY || b == LABELLED || b == UNFINISHED));
	must(pgr_olddir_check_server(dir, OURS, V15, &err));
	must(take(&(struct pgr_olddir_state){
		.system_identifier = OURS, .major = 15, .start = START, .tli = 3, .whole = true}));
	again();
	look_finds(PGR_OLDDIR_UNFINISHED); /* the next run converges */
	again();
}

/* With the server's new start in it, which must not replace an older one. */
static int take_with(enum before b)
{
	struct pgr_olddir_state s = ours;

	s.start = b == NOTHING ? START : START + 0x10000;
	s.tli = 3;
	return take(&s);
}

START_TEST(open_faults)
{
	bool triggered = true;
	unsigned at;

	for (at = 1; triggered; at++) {
		make_before((enum before)_i);
		if (_i != NOTHING)
			write_pid(getpid());
		pgr_fault_sys_init(&f, at, EIO);
		int rc = pgr_olddir_open(&dir, &f.sys, data, &err);

		/* to close what was only read cannot fail in a way that matters */
		triggered = f.triggered;
		if (rc != PGR_OK) {
			ck_assert(triggered);
			ck_assert_ptr_null(dir);
			ck_assert_msg(strstr(err.msg, data) != NULL, "%s", err.msg);
		} else {
			ck_assert(!triggered || strcmp(f.failed_call, "close") == 0);
		}
		f.fail_at = 0;
		again();
		ck_assert_uint_eq(tmp_open_fds(), fds);
		remove_data();
	}
	ck_assert_uint_ge(at, 10);
}
END_TEST

START_TEST(take_faults)
{
	bool triggered = true;
	unsigned at;

	for (at = 1; triggered; at++) {
		make_before((enum before)_i);
		pgr_fault_sys_init(&f, 0, EIO);
		must(pgr_olddir_open(&dir, &f.sys, data, &err));
		f.fail_at = f.calls + at;
		int rc = take_with((enum before)_i);

		triggered = f.triggered;
		if (rc != PGR_OK)
			ck_assert_msg(triggered && strstr(err.msg, data) != NULL, "%s", err.msg);
		else
			ck_assert(!triggered || strcmp(f.failed_call, "close") == 0);
		f.fail_at = 0;
		again();
		check_after((enum before)_i);
		remove_data();
	}
	ck_assert_uint_ge(at, 15);
}
END_TEST

/* A process that is killed: from the Nth call on nothing happens any more. */
static struct {
	struct pgr_sys sys;
	unsigned left;
} mortal;

static bool dead(void)
{
	if (mortal.left > 0)
		mortal.left--;
	errno = EIO;
	return mortal.left == 0;
}

static int mortal_openat(const struct pgr_sys *sys, int fd, const char *path, int flags, mode_t mode)
{
	(void)sys;
	return dead() ? -1 : openat(fd, path, flags, mode);
}

/* Half of it is written. */
static ssize_t mortal_write(const struct pgr_sys *sys, int fd, const void *p, size_t n)
{
	(void)sys;
	return dead() ? -1 : write(fd, p, (n + 1) / 2);
}

static int mortal_renameat(const struct pgr_sys *sys, int olddir, const char *old, int newdir, const char *new_)
{
	(void)sys;
	return dead() ? -1 : renameat(olddir, old, newdir, new_);
}

static int mortal_unlinkat(const struct pgr_sys *sys, int fd, const char *path, int flags)
{
	(void)sys;
	return dead() ? -1 : unlinkat(fd, path, flags);
}

static void make_mortal(void)
{
	mortal.sys = *pgr_sys_real();
	mortal.sys.openat = mortal_openat;
	mortal.sys.write = mortal_write;
	mortal.sys.renameat = mortal_renameat;
	mortal.sys.unlinkat = mortal_unlinkat;
	mortal.left = UINT_MAX;
}

START_TEST(take_killed)
{
	bool killed = true;
	unsigned at;

	for (at = 1; killed; at++) {
		make_before((enum before)_i);
		make_mortal();
		must(pgr_olddir_open(&dir, &mortal.sys, data, &err));
		mortal.left = at;
		ck_assert_int_eq(take_with((enum before)_i), mortal.left > 0 ? PGR_OK : PGR_ERR);
		killed = mortal.left == 0;
		again();
		check_after((enum before)_i);
		remove_data();
	}
	ck_assert_uint_ge(at, 15);
}
END_TEST

/* However it breaks off, it cannot start, and the state is the last to go. */
START_TEST(finish_killed)
{
	bool killed = true;
	unsigned at;

	for (at = 1; killed; at++) {
		make_before((enum before)_i);
		make_mortal();
		must(pgr_olddir_open(&dir, &mortal.sys, data, &err));
		must(take_with((enum before)_i));
		mortal.left = at;
		ck_assert_int_eq(finish(true), mortal.left > 0 ? PGR_OK : PGR_ERR);
		killed = mortal.left == 0;
		again();
		ck_assert(!tmp_exists(&tree, "data/global/pg_control"));
		look();
		if (killed) {
			/* from where on is known: as before, or as of this run */
			pgr_tli tli;
			pgr_lsn base = pgr_olddir_base(dir, &tli);

			ck_assert_int_eq(pgr_olddir_kind(dir), PGR_OLDDIR_UNFINISHED);
			ck_assert(base == START || ((_i == COPY || _i == UNFINISHED) && base == REDO));
		} else
			ck_assert_int_eq(pgr_olddir_kind(dir),
					 _i == FRESH || _i == NOTHING ? PGR_OLDDIR_EMPTY : PGR_OLDDIR_BARE);
		again();
		remove_data();
	}
	ck_assert_uint_ge(at, 3);
}
END_TEST

START_TEST(finish_faults)
{
	bool triggered = true;

	for (unsigned at = 1; triggered; at++) {
		make_before((enum before)_i);
		pgr_fault_sys_init(&f, 0, EIO);
		must(pgr_olddir_open(&dir, &f.sys, data, &err));
		must(take_with((enum before)_i));
		f.fail_at = f.calls + at;
		int rc = finish(true);

		triggered = f.triggered;
		if (rc != PGR_OK)
			ck_assert_msg(triggered && strstr(err.msg, data) != NULL, "%s", err.msg);
		else
			ck_assert(!triggered || strcmp(f.failed_call, "close") == 0);
		f.fail_at = 0;
		again();
		remove_data();
	}
}
END_TEST

/* Directories in the place of what goes are no reason to stop when pg_control is gone already. */
START_TEST(takes_odd_leftovers)
{
	make_copy();
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/backup_manifest")), 0);
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/postmaster.opts")), 0);
	tmp_mkdir(&tree, "data/backup_manifest", 0700);
	tmp_write(&tree, "data/backup_manifest/x", "x");
	tmp_mkdir(&tree, "data/postmaster.opts", 0700);
	look();
	must(take(&ours));
	ck_assert(!tmp_exists(&tree, "data/backup_manifest") && !tmp_exists(&tree, "data/postmaster.opts"));
}
END_TEST

/* ---- apart from the server ---- */

static struct pgr_layout *layout;
static struct sqlscript sql;
static struct pgr_sys watching;
static unsigned nprobes;
static int answer_with; /* the number of the probe that the server sees; -1 */
static char space[PATH_MAX];
static struct pgr_tblspc_map *mapping;

/* Sees what is made; the server's answer has the random name in it. */
static int watch_openat(const struct pgr_sys *sys, int fd, const char *path, int flags, mode_t mode)
{
	(void)sys;
	if ((flags & O_CREAT) != 0) {
		ck_assert_int_eq(strncmp(path, "pgr_probe.", 10), 0);
		if ((int)nprobes++ == answer_with)
			sqls_row(&sql, path);
	}
	return openat(fd, path, flags, mode);
}

/* The layout of an empty directory, which is then filled, all or nothing of it. */
static void begin_apart(bool filled)
{
	static char server_location[] = "/srv/ts", nothing[] = "";
	const struct pgr_bb_tablespace list[] = {{.oid = 16385, .location = server_location},
						 {.oid = 0, .location = nothing}};
	struct pgr_layout_opts opts = {.data_dir = data, .dir_mode = 0700, .file_mode = 0600};
	char map[2 * PATH_MAX];
	int fd;

	snprintf(space, sizeof(space), "%s/space", tree.path);
	snprintf(map, sizeof(map), "/srv/ts=%s", space);
	mapping = NULL;
	must(pgr_tblspc_map_add(&mapping, map, &err));
	opts.mapping = mapping;
	watching = *pgr_sys_real();
	watching.openat = watch_openat;
	nprobes = 0;
	answer_with = -1;
	must(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, list, 2, &err));
	if (filled) {
		must(pgr_layout_wal_root(layout, &fd, &err));
		fill_bare();
		write_control("data/global/pg_control", REDO);
		tmp_mkdir(&tree, "space/PG_15_202209061", 0700);
	}
}

static void open_apart(const struct pgr_sys *sys)
{
	must(pgr_olddir_open(&dir, sys, data, &err));
	sqls_begin(&sql, V15, 0);
}

static unsigned count_probes(void)
{
	static const char *const dirs[] = {"data", "data/pg_wal", "space"};
	unsigned n = 0;

	for (int i = 0; i < COUNT(dirs); i++) {
		DIR *d = tmp_exists(&tree, dirs[i]) ? opendir(tmp_at(&tree, dirs[i])) : NULL;

		for (struct dirent *de; d != NULL && (de = readdir(d)) != NULL;)
			n += strncmp(de->d_name, "pgr_probe", 9) == 0;
		if (d != NULL)
			closedir(d);
	}
	return n;
}

static void close_apart(void)
{
	sqls_end(&sql);
	again();
}

static void free_layout(void)
{
	pgr_layout_free(layout);
	pgr_tblspc_map_free(mapping);
}

static void end_apart(void)
{
	close_apart();
	free_layout();
}

START_TEST(apart)
{
	begin_apart(true);
	open_apart(&watching);
	sqls_rows(&sql, 1, 0, NULL);
	must(pgr_olddir_check_apart(dir, layout, sql.c, &err));
	ck_assert_uint_eq(nprobes, 3);
	ck_assert_uint_eq(count_probes(), 0);
	sqls_check_sent(&sql, "'pg_wal/'", true);
	sqls_check_sent(&sql, "'pg_tblspc/' || ", true);
	sqls_check_sent(&sql, ".0,pgr_probe.", true);
	end_apart();
}
END_TEST

START_TEST(not_apart)
{
	const char *const names[] = {data, "data/pg_wal", space};

	begin_apart(true);
	open_apart(&watching);
	answer_with = _i;
	check_failed(pgr_olddir_check_apart(dir, layout, sql.c, &err), PGR_E_USAGE,
		     "directory \"%s\" is the server's own", _i == 1 ? tmp_at(&tree, names[1]) : names[_i]);
	ck_assert_uint_eq(nprobes, 3);
	ck_assert_uint_eq(count_probes(), 0);
	end_apart();
}
END_TEST

START_TEST(apart_refused)
{
	begin_apart(true);
	open_apart(&watching);
	if (_i == 0)
		sqls_error(&sql, "42501", "permission denied for function pg_stat_file");
	else if (_i == 1)
		sqls_fatal(&sql, true);
	else
		sqls_row(&sql, "pgr_probe.0000000000000000.0");
	ck_assert_int_eq(pgr_olddir_check_apart(dir, layout, sql.c, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, _i < 2 ? PGR_E_SERVER : PGR_E_PROTOCOL);
	ck_assert_uint_eq(nprobes, 3);
	ck_assert_uint_eq(count_probes(), 0);
	end_apart();
}
END_TEST

/* What is empty is no server's: nothing is made in it, nobody is asked. */
START_TEST(apart_empty)
{
	begin_apart(false);
	open_apart(&watching);
	must(pgr_olddir_check_apart(dir, layout, sql.c, &err));
	ck_assert_uint_eq(nprobes, 0);
	ck_assert_uint_eq(sql.sent.len, 0);
	ck_assert_uint_eq(tmp_entries(data), 0);
	close_apart();
	tmp_mkdir(&tree, "wal", 0700); /* the layout's, before the take-over */
	ck_assert_int_eq(symlink(tmp_at(&tree, "wal"), tmp_at(&tree, "data/pg_wal")), 0);
	open_apart(&watching);
	must(pgr_olddir_check_apart(dir, layout, sql.c, &err));
	ck_assert_uint_eq(nprobes, 0);
	end_apart();
}
END_TEST

/* What a run that was killed left is removed, and does not count. */
START_TEST(apart_leftovers)
{
	begin_apart(true);
	tmp_write(&tree, "data/pgr_probe.0123456789abcdef.0", "");
	tmp_write(&tree, "space/pgr_probe.0123456789abcdef.2", "");
	ck_assert_int_eq(rmdir(tmp_at(&tree, "space/PG_15_202209061")), 0);
	open_apart(&watching);
	sqls_rows(&sql, 1, 0, NULL);
	must(pgr_olddir_check_apart(dir, layout, sql.c, &err));
	ck_assert_uint_eq(nprobes, 2);
	ck_assert_uint_eq(count_probes(), 0);
	end_apart();
}
END_TEST

START_TEST(apart_faults)
{
	bool triggered = true;
	unsigned at;

	begin_apart(true);
	for (at = 1; triggered; at++) {
		pgr_fault_sys_init(&f, 0, EIO);
		open_apart(&f.sys);
		sqls_rows(&sql, 1, 0, NULL);
		f.fail_at = f.calls + at;
		int rc = pgr_olddir_check_apart(dir, layout, sql.c, &err);

		triggered = f.triggered;
		if (rc != PGR_OK)
			ck_assert_msg(triggered && strstr(err.msg, tree.path) != NULL, "%s", err.msg);
		else
			ck_assert(!triggered || strcmp(f.failed_call, "close") == 0);
		ck_assert_uint_eq(count_probes(), triggered && strcmp(f.failed_call, "unlinkat") == 0);
		close_apart();
	}
	ck_assert_uint_ge(at, 20);
	free_layout();
}
END_TEST

START_TEST(apart_by_name)
{
	const char *locations[] = {"/nowhere/at/all", tree.path, NULL, NULL};

	begin_apart(true);
	open_apart(pgr_sys_real());
	must(pgr_olddir_check_apart_by_name(dir, layout, true, locations, &err));
	locations[2] = data;
	must(pgr_olddir_check_apart_by_name(dir, layout, false, locations, &err));
	check_failed(pgr_olddir_check_apart_by_name(dir, layout, true, locations, &err), PGR_E_USAGE,
		     "directory \"%s\" is the server's own", data);
	ck_assert_int_eq(symlink(space, tmp_at(&tree, "link")), 0);
	locations[2] = tmp_at(&tree, "link");
	check_failed(pgr_olddir_check_apart_by_name(dir, layout, true, locations, &err), PGR_E_USAGE,
		     "directory \"%s\" is the server's own", space);
	tmp_mkdir(&tree, "server", 0700);
	ck_assert_int_eq(symlink("../data/pg_wal", tmp_at(&tree, "server/pg_wal")), 0);
	locations[2] = tmp_at(&tree, "server");
	check_failed(pgr_olddir_check_apart_by_name(dir, layout, true, locations, &err), PGR_E_USAGE,
		     "directory \"%s/pg_wal\" is the server's own", data);
	end_apart();
}
END_TEST

/* ---- idle ---- */

static const struct pgr_keep no_keep;
static unsigned waits;
static int writer, writer_ends_after;

static int count_wait(const struct pgr_sys *sys, struct pollfd *fds_, nfds_t n, int ms)
{
	(void)sys;
	(void)fds_;
	ck_assert_uint_eq(n, 0);
	ck_assert_int_gt(ms, 0);
	if (++waits == (unsigned)writer_ends_after)
		close(writer);
	return 0;
}

static const char *const servers_files[] = {"data/global/1262",
					    "data/base/1",
					    "data/pg_wal/0000000100000000000000A0",
					    "space/PG_15_202209061/16390",
					    "data/current.log",
					    "data/pg_ident.conf",
					    "space/others"};
#define NSERVERS 5 /* the others are not looked at */

static void begin_idle(struct pgr_localtree *t, const struct pgr_sys *sys)
{
	begin_apart(true);
	for (int i = 0; i < COUNT(servers_files); i++)
		tmp_write(&tree, servers_files[i], "x");
	must(pgr_localtree_scan(t, pgr_sys_real(), layout, &err));
	must(pgr_olddir_open(&dir, sys, data, &err));
	waits = 0;
	writer_ends_after = 0;
}

static bool sees_writers(void)
{
	int fd = open(tmp_at(&tree, servers_files[0]), O_RDWR), other = open(tmp_at(&tree, servers_files[0]), O_RDONLY);
	bool yes = pgr_sys_real()->probe_writers(pgr_sys_real(), other) != 0 && errno == EAGAIN;

	close(fd);
	close(other);
	return yes;
}

/* By whatever process, if only the kernel is the same; here it is this one.  Readers do not count. */
START_TEST(idle)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();
	char want[2 * PATH_MAX];
	int reader;

	sys.poll = count_wait;
	begin_idle(&t, &sys);
	reader = open(tmp_at(&tree, servers_files[_i]), O_RDONLY);
	must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	ck_assert_uint_eq(waits, 0);
	if (sees_writers()) {
		writer = open(tmp_at(&tree, servers_files[_i]), O_RDWR);
		if (_i < NSERVERS) {
			snprintf(want, sizeof(want), "%s/%s", data,
				 _i == 3 ? "pg_tblspc/16385/PG_15_202209061/16390" : servers_files[_i] + 5);
			check_failed(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
				     "file \"%s\" is open for writing in another process", want);
			ck_assert_ptr_nonnull(strstr(err.hint, "container"));
			ck_assert_uint_ge(waits, 10);
			waits = 0;
			writer_ends_after = 5; /* a server that was about to end */
		}
		must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
		if (_i >= NSERVERS)
			close(writer);
	}
	close(reader);
	pgr_localtree_fini(&t);
	again();
	free_layout();
}
END_TEST

/* A process that works in `where`, in a file system of its own when there is a `root`, until it is ended. */
struct worker {
	pid_t pid;
	int pipe;
};

static bool enter_root(const char *root)
{
	if (chroot(root) == 0)
		return true;
	return unshare(CLONE_NEWUSER) == 0 && chroot(root) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
}

/* False: this machine does not let us have a root of our own. */
static bool begin_worker(struct worker *w, const char *name, const char *root, const char *where)
{
	int to_child[2], from_child[2];
	char c = 'x';

	ck_assert(pipe(to_child) == 0 && pipe(from_child) == 0);
	w->pid = fork();
	if (w->pid == 0) {
		close(to_child[1]);
		if ((root != NULL && !enter_root(root)) || prctl(PR_SET_NAME, name) != 0 || chdir(where) != 0 ||
		    write(from_child[1], &c, 1) != 1)
			_exit(1);
		_exit(read(to_child[0], &c, 1) == 0 ? 0 : 1);
	}
	ck_assert_int_gt(w->pid, 0);
	close(to_child[0]);
	close(from_child[1]);
	w->pipe = to_child[1];
	if (read(from_child[0], &c, 1) != 1) {
		ck_assert_ptr_nonnull(root);
		ck_assert_int_eq(waitpid(w->pid, NULL, 0), w->pid);
		close(w->pipe);
		w->pid = 0;
	}
	close(from_child[0]);
	return w->pid != 0;
}

static void end_worker(struct worker *w)
{
	int status;

	close(w->pipe);
	ck_assert_int_eq(waitpid(w->pid, &status, 0), w->pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static struct worker ending;

static int end_it(const struct pgr_sys *sys, struct pollfd *fds_, nfds_t n, int ms)
{
	(void)count_wait(sys, fds_, n, ms);
	if (waits == 5)
		end_worker(&ending);
	return 0;
}

static void end_idle(struct pgr_localtree *t)
{
	pgr_localtree_fini(t);
	again();
	free_layout();
}

/* pg_ctl takes a server for stopped when its lock file is gone; the process may have gigabytes to give back. */
START_TEST(about_to_end)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();

	sys.poll = end_it;
	begin_idle(&t, &sys);
	ck_assert(begin_worker(&ending, "postgres", NULL, data));
	must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	ck_assert_uint_eq(waits, 5);
	end_idle(&t);
}
END_TEST

/* A tablespace is shared by versions: each has its own directory there; a WAL directory is not. */
START_TEST(other_version)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();
	struct worker w;
	bool free_to_go = _i == 1;

	sys.poll = count_wait;
	begin_idle(&t, &sys);
	tmp_mkdir(&tree, "other", 0700);
	tmp_mkdir(&tree, "other/pg_tblspc", 0700);
	ck_assert_int_eq(symlink(space, tmp_at(&tree, "other/pg_tblspc/16385")), 0);
	if (_i == 2)
		ck_assert_int_eq(symlink("../data/pg_wal", tmp_at(&tree, "other/pg_wal")), 0);
	tmp_write(&tree, "other/PG_VERSION", _i == 0 ? "15\n" : "16\n");
	ck_assert(begin_worker(&w, "postgres", NULL, tmp_at(&tree, "other")));
	if (free_to_go)
		must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	else
		check_failed(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
			     "directory \"%s\", to which \"%s/%s\" leads, is in use by a server (process %ld)",
			     _i == 2 ? "pg_wal" : space, data, _i == 2 ? "pg_wal" : "pg_tblspc/16385", (long)w.pid);
	end_worker(&w);
	end_idle(&t);
}
END_TEST

/* In a container the same name is another directory, and another name the same. */
START_TEST(links_in_a_container)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();
	struct worker w;

	sys.poll = count_wait;
	begin_idle(&t, &sys);
	tmp_mkdir(&tree, "other", 0700);
	tmp_mkdir(&tree, "other/pg_tblspc", 0700);
	ck_assert_int_eq(symlink(_i == 0 ? space : "/space", tmp_at(&tree, "other/pg_tblspc/16385")), 0);
	if (begin_worker(&w, "postgres", tree.path, "/other")) {
		if (_i == 0)
			must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
		else
			check_failed(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
				     "directory \"%s\", to which \"%s/pg_tblspc/16385\" leads, is in use by a server "
				     "(process %ld)",
				     space, data, (long)w.pid);
		end_worker(&w);
	}
	end_idle(&t);
}
END_TEST

/* A server whose lock file somebody has removed, or whose links lead to the same; a shell may work there. */
START_TEST(working_directory)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();
	struct worker w;
	pid_t pid;

	sys.poll = count_wait;
	begin_idle(&t, &sys);
	tmp_mkdir(&tree, "other", 0700);
	tmp_mkdir(&tree, "other/pg_tblspc", 0700);
	if (_i == 2)
		ck_assert_int_eq(symlink("../data/pg_wal", tmp_at(&tree, "other/pg_wal")), 0);
	if (_i == 3)
		ck_assert_int_eq(symlink(space, tmp_at(&tree, "other/pg_tblspc/16385")), 0);
	ck_assert(begin_worker(&w, _i == 1 ? "bash" : "postgres", NULL, _i < 2 ? data : tmp_at(&tree, "other")));
	pid = w.pid;
	if (_i == 0)
		check_failed(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
			     "a server is running in directory \"%s\" (process %ld)", data, (long)pid);
	else if (_i == 2)
		check_failed(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
			     "directory \"pg_wal\", to which \"%s/pg_wal\" leads, is in use by a server (process %ld)",
			     data, (long)pid);
	else if (_i == 3)
		check_failed(
			pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err), PGR_E_USAGE,
			"directory \"%s\", to which \"%s/pg_tblspc/16385\" leads, is in use by a server (process %ld)",
			space, data, (long)pid);
	else
		must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	end_worker(&w);
	must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	end_idle(&t);
}
END_TEST

/* What vanishes meanwhile, and where nothing can be told. */
static int tells_nothing(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	(void)fd;
	errno = EOPNOTSUPP;
	return -1;
}

START_TEST(idle_or_not)
{
	struct pgr_localtree t = {0};
	struct pgr_sys sys = *pgr_sys_real();

	sys.poll = count_wait;
	begin_idle(&t, &sys);
	ck_assert_int_eq(unlink(tmp_at(&tree, servers_files[0])), 0);
	ck_assert_int_eq(unlink(tmp_at(&tree, servers_files[3])), 0);
	ck_assert_int_eq(rmdir(tmp_at(&tree, "space/PG_15_202209061")), 0);
	must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	sys.probe_writers = tells_nothing;
	writer = open(tmp_at(&tree, servers_files[1]), O_RDWR);
	must(pgr_olddir_check_idle(dir, layout, &t, &no_keep, &err));
	close(writer);
	pgr_localtree_fini(&t);
	again();
	free_layout();
}
END_TEST

/* ---- the suite ---- */

static void add_looking(TCase *t)
{
	tcase_add_test(t, missing);
	tcase_add_test(t, empty);
	tcase_add_loop_test(t, nearly_empty, 0, 3);
	tcase_add_loop_test(t, not_empty, 0, COUNT(strangers));
	tcase_add_test(t, somebodys_wal);
	tcase_add_test(t, no_directory);
	tcase_add_test(t, locked);
	tcase_add_test(t, copy);
	tcase_add_test(t, copy_behind_links);
	tcase_add_test(t, copy_with_label);
	tcase_add_test(t, copy_that_was_not_finished);
	tcase_add_test(t, copy_with_state);
	tcase_add_test(t, bare);
	tcase_add_test(t, damaged);
	tcase_add_loop_test(t, global_is_something_else, 0, 2);
	tcase_add_test(t, unfinished);
	tcase_add_test(t, unfinished_base);
	tcase_add_test(t, unfinished_by_a_foreign_state);
	tcase_add_test(t, unfinished_fresh);
	tcase_add_test(t, unfinished_damaged);
	tcase_add_test(t, unfinished_without_state);
	tcase_add_test(t, unfinished_bad_state);
	tcase_add_test(t, two_controls);
	tcase_add_loop_test(t, open_faults, 0, BEFORES);
}

static void add_pidfile(TCase *t)
{
	tcase_add_test(t, pid_alive);
	tcase_add_test(t, pid_ours);
	tcase_add_test(t, pid_kill);
	tcase_add_loop_test(t, pid_odd, 0, COUNT(bad_pids));
	tcase_add_test(t, pid_unreadable);
	tcase_add_test(t, pid_orphans);
}

static void add_server(TCase *t)
{
	tcase_add_loop_test(t, state_text, 0, 3);
	tcase_add_loop_test(t, state_refused, 0, 5);
	tcase_add_test(t, server_same);
	tcase_add_loop_test(t, server_versions, 0, 11);
	tcase_add_test(t, server_of_unfinished);
	tcase_add_test(t, server_sizes);
}

static void add_taking(TCase *t)
{
	tcase_add_test(t, takes_a_copy);
	tcase_add_test(t, removes_a_stale_lock_file);
	tcase_add_loop_test(t, takes_an_empty_one, 0, 2);
	tcase_add_loop_test(t, takes_a_copy_with_label, 0, 2);
	tcase_add_loop_test(t, distrusted, 0, 2);
	tcase_add_test(t, distrusted_too_early);
	tcase_add_loop_test(t, takes_without_base, 0, 2);
	tcase_add_test(t, takes_two_controls);
	tcase_add_loop_test(t, settled, 0, 2);
	tcase_add_test(t, takes_odd_leftovers);
	tcase_add_test(t, finish_without_take_over);
	tcase_add_loop_test(t, settled_without_manifest, 0, 4);
	tcase_add_test(t, settled_elsewhere);
	tcase_add_test(t, settled_with_control);
	tcase_add_test(t, missing_for_two);
	tcase_add_test(t, replaced_meanwhile);
	tcase_add_test(t, started_before);
	tcase_add_test(t, started_meanwhile);
	tcase_add_loop_test(t, take_faults, 0, BEFORES);
	tcase_add_loop_test(t, take_killed, 0, BEFORES);
	tcase_add_loop_test(t, finish_killed, 0, BEFORES);
	tcase_add_loop_test(t, finish_faults, 0, BEFORES);
}

static void add_apart(TCase *t)
{
	tcase_add_test(t, apart);
	tcase_add_loop_test(t, not_apart, 0, 3);
	tcase_add_loop_test(t, apart_refused, 0, 3);
	tcase_add_test(t, apart_empty);
	tcase_add_test(t, apart_leftovers);
	tcase_add_test(t, apart_faults);
	tcase_add_test(t, apart_by_name);
	tcase_add_loop_test(t, idle, 0, COUNT(servers_files));
	tcase_add_test(t, idle_or_not);
	tcase_add_loop_test(t, working_directory, 0, 5);
	tcase_add_test(t, about_to_end);
	tcase_add_loop_test(t, other_version, 0, 3);
	tcase_add_loop_test(t, links_in_a_container, 0, 2);
}

static Suite *olddir_suite(void)
{
	static const struct {
		const char *name;
		void (*add)(TCase *t);
	} all[] = {{"look", add_looking},
		   {"pidfile", add_pidfile},
		   {"server", add_server},
		   {"take", add_taking},
		   {"apart", add_apart}};
	Suite *s = suite_create("olddir");

	for (int i = 0; i < COUNT(all); i++) {
		TCase *t = tcase_create(all[i].name);

		tcase_add_checked_fixture(t, setup, teardown);
		tcase_set_timeout(t, 60);
		all[i].add(t);
		suite_add_tcase(s, t);
	}
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(olddir_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
