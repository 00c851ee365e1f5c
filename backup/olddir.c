#include "backup/olddir.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "backup/finish.h"
#include "backup/label.h"
#include "backup/olddir_in.h"
#include "backup/pidfile.h"
#include "backup/seed_state.h"
#include "common/fs_io.h"
#include "common/num.h"
#include "common/sys.h"
#include "proto/caps.h"

#define GLOBAL "global"

#define CONTROL_MOST_BYTES 65536
#define STATE_MOST_BYTES   4096
#define LABEL_MOST_BYTES   65536
#define VERSION_MOST_BYTES 64

int pgr_olddir_refuse(const struct pgr_olddir *d, const char *why, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" %s", d->path, why);
}

/* ---- what lies there ---- */

/* A file that was read, or not. */
struct found {
	bool there;
	bool is_file; /* with its content, and not larger than anything that it could be */
	char *data;
	size_t len;
	struct pgr_err why; /* it is not */
};

static void found_fini(struct found *f)
{
	free(f->data);
	*f = (struct found){0};
}

static int find(const struct pgr_olddir *d, int dirfd, const char *name, size_t most, struct found *f,
		struct pgr_err *err)
{
	int rc = pgr_fs_read_file(d->sys, dirfd, d->path, name, most, &f->data, &f->len, err);

	f->there = rc != PGR_MORE;
	f->is_file = rc == PGR_OK;
	if (rc != PGR_ERR)
		return PGR_OK;
	if (err->cls != PGR_E_DATA)
		return PGR_ERR;
	f->why = *err;
	return PGR_OK;
}

int pgr_olddir_global(const struct pgr_olddir *d, int root, int *fd, struct pgr_err *err)
{
	*fd = d->sys->openat(d->sys, root, GLOBAL, PGR_OLDDIR_FLAGS | O_NOFOLLOW, 0);
	if (*fd >= 0)
		return PGR_OK;
	if (errno == ENOENT)
		return PGR_MORE;
	if (errno == ENOTDIR || errno == ELOOP)
		return pgr_olddir_refuse(d, "is no data directory: \"" GLOBAL "\" in it is no directory", err);
	return pgr_err_sys(err, errno, "could not open directory \"%s/" GLOBAL "\"", d->path);
}

/* It was only read through. */
static void close_dir(const struct pgr_olddir *d, int fd)
{
	(void)d->sys->close(d->sys, fd);
}

static int find_controls(const struct pgr_olddir *d, struct found *control, struct found *aside, struct pgr_err *err)
{
	int fd;
	int rc = pgr_olddir_global(d, d->fd, &fd, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	rc = find(d, fd, PGR_CONTROL_NAME, CONTROL_MOST_BYTES, control, err);
	if (rc == PGR_OK)
		rc = find(d, fd, PGR_ASIDE_NAME, CONTROL_MOST_BYTES, aside, err);
	close_dir(d, fd);
	return rc;
}

static int find_version(struct pgr_olddir *d, struct pgr_err *err)
{
	struct found f = {0};
	size_t n;

	if (find(d, d->fd, "PG_VERSION", VERSION_MOST_BYTES, &f, err) != PGR_OK)
		return PGR_ERR;
	d->has_version = f.there;
	n = f.is_file ? strspn(f.data, "0123456789.") : 0;
	if (n < sizeof(d->version) && f.is_file && (f.data[n] == '\0' || strcmp(f.data + n, "\n") == 0))
		memcpy(d->version, f.data, n);
	found_fini(&f);
	return PGR_OK;
}

static int is_dir(const struct pgr_olddir *d, const char *name, bool *yes, struct pgr_err *err)
{
	struct stat st;
	int rc = d->sys->fstatat(d->sys, d->fd, name, &st, 0);

	*yes = rc == 0 && S_ISDIR(st.st_mode);
	if (rc != 0 && errno != ENOENT && errno != ELOOP)
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", d->path, name);
	return PGR_OK;
}

static int is_bare(const struct pgr_olddir *d, bool *yes, struct pgr_err *err)
{
	bool global = false, base = false;

	if (d->has_version && (is_dir(d, GLOBAL, &global, err) != PGR_OK || is_dir(d, "base", &base, err) != PGR_OK))
		return PGR_ERR;
	*yes = global && base;
	return PGR_OK;
}

/* ---- nothing, or no more than a run makes before it takes over ---- */

typedef int entry_fn(const struct pgr_olddir *d, int dirfd, const char *name, struct pgr_err *err);

/* Asks `fn` about each entry.  PGR_OK: it said so of all.  PGR_MORE: not of one.  Takes fd. */
static int ask_entries(const struct pgr_olddir *d, int fd, entry_fn *fn, struct pgr_err *err)
{
	const struct pgr_sys *sys = d->sys;
	DIR *dir = sys->fdopendir(sys, fd);
	int rc = PGR_OK;

	if (dir == NULL) {
		pgr_err_sys(err, errno, "could not open directory \"%s\"", d->path);
		close_dir(d, fd);
		return PGR_ERR;
	}
	while (rc == PGR_OK) {
		struct dirent *de = sys->readdir(sys, dir);

		if (de == NULL && errno != 0)
			rc = pgr_err_sys(err, errno, "could not read directory \"%s\"", d->path);
		if (de == NULL)
			break;
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			rc = fn(d, fd, de->d_name, err);
	}
	if (sys->closedir(sys, dir) != 0 && rc != PGR_ERR)
		rc = pgr_err_sys(err, errno, "could not close directory \"%s\"", d->path);
	return rc;
}

static int no_entry(const struct pgr_olddir *d, int dirfd, const char *name, struct pgr_err *err)
{
	(void)d;
	(void)dirfd;
	(void)name;
	(void)err;
	return PGR_MORE;
}

/* A directory of which `fn` says so of all entries, or (where that is followed) a link to one, even to nowhere. */
static int ask_below(const struct pgr_olddir *d, int dirfd, const char *name, int flags, entry_fn *fn,
		     struct pgr_err *err)
{
	int fd = d->sys->openat(d->sys, dirfd, name, PGR_OLDDIR_FLAGS | flags, 0);

	if (fd >= 0)
		return ask_entries(d, fd, fn, err);
	if (errno == ENOENT)
		return PGR_OK;
	if (errno == ENOTDIR || errno == ELOOP || errno == EACCES)
		return PGR_MORE;
	return pgr_err_sys(err, errno, "could not open directory \"%s/%s\"", d->path, name);
}

static int empty_dir(const struct pgr_olddir *d, int dirfd, const char *name, struct pgr_err *err)
{
	return ask_below(d, dirfd, name, O_NOFOLLOW, no_entry, err);
}

/* What pgr_layout_prepare and pgr_layout_prepare_tablespaces make, and the beginning of the take-over. */
static int early_entry(const struct pgr_olddir *d, int dirfd, const char *name, struct pgr_err *err)
{
	if (strcmp(name, PGR_OLDDIR_STATE PGR_STATE_TMP) == 0)
		return PGR_OK;
	if (strcmp(name, "pg_wal") == 0 || strcmp(name, "pg_xlog") == 0)
		return ask_below(d, dirfd, name, 0, no_entry, err);
	if (strcmp(name, "pg_tblspc") == 0)
		return ask_below(d, dirfd, name, O_NOFOLLOW, empty_dir, err);
	return PGR_MORE;
}

static int is_empty(const struct pgr_olddir *d, bool *yes, struct pgr_err *err)
{
	int fd = d->sys->openat(d->sys, d->fd, ".", PGR_OLDDIR_FLAGS, 0);
	int rc;

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", d->path);
	rc = ask_entries(d, fd, early_entry, err);
	*yes = rc == PGR_OK;
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

/* ---- which kind it is ---- */

static int parse_control(struct pgr_olddir *d, struct found *f)
{
	d->has_control = f->is_file && pgr_controlfile_parse(f->data, f->len, &d->control, &f->why) == PGR_OK;
	return d->has_control ? PGR_OK : PGR_ERR;
}

/* A state that is gone leaves what the directory itself tells; what became of the files, nobody knows. */
static void guess_state(struct pgr_olddir *d)
{
	uint32_t major;

	d->state = (struct pgr_olddir_state){0};
	if (d->has_control)
		snprintf(d->state.system_identifier, sizeof(d->state.system_identifier), "%" PRIu64,
			 d->control.system_identifier);
	if (pgr_num_u32(d->version, strcspn(d->version, "."), &major) && major < 1000)
		d->state.major = (int)major;
}

static int take_state(struct pgr_olddir *d, struct found *f, struct pgr_err *err)
{
	if (!f->there) {
		guess_state(d);
		return PGR_OK;
	}
	if (f->is_file && pgr_seed_state_parse(f->data, f->len, &d->state, &f->why) == PGR_OK)
		return PGR_OK;
	pgr_err_set(err, PGR_E_USAGE,
		    "could not use file \"%s/" PGR_OLDDIR_STATE "\", which an interrupted run left: %s", d->path,
		    f->why.msg);
	return pgr_err_hint(err, "Without it the directory can still be compared with the server: then remove it.");
}

static void base_is(struct pgr_olddir *d, pgr_lsn lsn, pgr_tli tli)
{
	d->base = lsn;
	d->base_tli = lsn != PGR_LSN_INVALID ? tli : 0;
}

/* It only tells whose the directory is. */
static void distrust_state(struct pgr_olddir *d)
{
	d->state.start = PGR_LSN_INVALID;
	d->state.tli = 0;
	d->state.whole = false;
	d->state.fresh = false;
}

/* A server may have had a state in its own directory, left by a run that ended just after writing it; a copy has it. */
static int distrust_foreign_state(struct pgr_olddir *d, struct pgr_err *err)
{
	struct stat st;

	if (d->sys->fstat(d->sys, d->fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat directory \"%s\"", d->path);
	if (d->state.inode != (uint64_t)st.st_ino)
		distrust_state(d);
	return PGR_OK;
}

/* With a pg_control in its place (a damaged one) a server may have run since the state was written. */
static int be_unfinished(struct pgr_olddir *d, struct found *state, bool has_run, struct pgr_err *err)
{
	if (take_state(d, state, err) != PGR_OK || distrust_foreign_state(d, err) != PGR_OK)
		return PGR_ERR;
	if (has_run)
		distrust_state(d);
	d->kind = PGR_OLDDIR_UNFINISHED;
	d->is_backup = d->state.start != PGR_LSN_INVALID;
	if (!d->state.whole)
		return PGR_OK;
	if (d->state.start != PGR_LSN_INVALID)
		base_is(d, d->state.start, d->state.tli);
	else if (d->has_control)
		base_is(d, d->control.redo, d->control.tli);
	return PGR_OK;
}

/* The run that took the backup was over but for its manifest: pg_control is written when all else is durable. */
static bool was_settled(struct pgr_olddir *d, struct found *state, pgr_lsn start, pgr_tli tli)
{
	struct pgr_olddir_state s;
	struct stat st;

	return state->is_file && pgr_seed_state_parse(state->data, state->len, &s, &state->why) == PGR_OK && s.whole &&
	       s.start == start && s.tli == tli && d->sys->fstat(d->sys, d->fd, &st) == 0 &&
	       s.inode == (uint64_t)st.st_ino;
}

/* pg_basebackup names its manifest last, when everything is synced: before, a power cut leaves files that are cut. */
static int was_finished(const struct pgr_olddir *d, bool *yes, struct pgr_err *err)
{
	struct stat st;
	int rc = d->sys->fstatat(d->sys, d->fd, PGR_MANIFEST_NAME, &st, AT_SYMLINK_NOFOLLOW);

	*yes = rc == 0;
	if (rc != 0 && errno != ENOENT)
		return pgr_err_sys(err, errno, "could not stat file \"%s/" PGR_MANIFEST_NAME "\"", d->path);
	return PGR_OK;
}

/* A backup that never started has the changes since its start, not since what pg_control was when it was read. */
static int be_copy(struct pgr_olddir *d, struct found *state, struct pgr_err *err)
{
	struct found label = {0};
	bool finished;
	pgr_lsn start;
	pgr_tli tli;

	if (was_finished(d, &finished, err) != PGR_OK ||
	    find(d, d->fd, "backup_label", LABEL_MOST_BYTES, &label, err) != PGR_OK)
		return PGR_ERR;
	d->kind = PGR_OLDDIR_COPY;
	d->is_backup = label.there;
	if (!label.there) {
		base_is(d, d->control.redo, d->control.tli);
	} else if (label.is_file && pgr_label_start(label.data, label.len, &start, &tli)) {
		d->settled = was_settled(d, state, start, tli);
		if (finished || d->settled)
			base_is(d, start, tli);
	}
	found_fini(&label);
	return PGR_OK;
}

static int refuse_damaged(const struct pgr_olddir *d, const struct found *control, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE, "cannot tell whose cluster directory \"%s\" holds: %s", d->path,
		    control->why.msg);
	return pgr_err_hint(err, "If it is the server's, remove \"%s/" GLOBAL "/" PGR_CONTROL_NAME "\".", d->path);
}

static int refuse_two(const struct pgr_olddir *d, struct pgr_err *err)
{
	pgr_err_set(err, PGR_E_USAGE,
		    "directory \"%s\" has a " GLOBAL "/" PGR_CONTROL_NAME
		    ", and another one that an interrupted run set aside",
		    d->path);
	return pgr_err_hint(err, "If the directory was made anew since, remove \"" PGR_OLDDIR_CONTROL
				 "\" and \"" PGR_OLDDIR_STATE "\", otherwise \"" GLOBAL "/" PGR_CONTROL_NAME "\".");
}

/* Without anything that we left and without pg_control. */
static int judge_other(struct pgr_olddir *d, struct pgr_err *err)
{
	bool bare, empty = false;

	if (is_bare(d, &bare, err) != PGR_OK || (!bare && is_empty(d, &empty, err) != PGR_OK))
		return PGR_ERR;
	if (!bare && !empty)
		return pgr_olddir_refuse(d, "is not empty and is no data directory", err);
	d->kind = bare ? PGR_OLDDIR_BARE : PGR_OLDDIR_EMPTY;
	return PGR_OK;
}

/*
 * A pg_control in its place, and none aside: a run has written no more than the state, or all but the manifest.  The
 * state may also be of long ago, and the directory made anew since: it is believed where a backup_label says the same.
 */
static int judge(struct pgr_olddir *d, struct found *control, struct found *aside, struct found *state,
		 struct pgr_err *err)
{
	d->has_aside = aside->there;
	if (control->there && aside->there &&
	    (!control->is_file || !aside->is_file || control->len != aside->len ||
	     memcmp(control->data, aside->data, control->len) != 0))
		return refuse_two(d, err);
	if (aside->there) {
		(void)parse_control(d, aside);
		return be_unfinished(d, state, false, err);
	}
	if (control->there && parse_control(d, control) == PGR_OK)
		return be_copy(d, state, err);
	if (state->there)
		return be_unfinished(d, state, control->there, err);
	return control->there ? refuse_damaged(d, control, err) : judge_other(d, err);
}

static int look(struct pgr_olddir *d, struct pgr_err *err)
{
	struct found control = {0}, aside = {0}, state = {0};
	int rc = pgr_pidfile_check(d->sys, d->fd, d->path, err);

	if (rc == PGR_OK)
		rc = find_version(d, err);
	if (rc == PGR_OK)
		rc = find_controls(d, &control, &aside, err);
	if (rc == PGR_OK)
		rc = find(d, d->fd, PGR_OLDDIR_STATE, STATE_MOST_BYTES, &state, err);
	if (rc == PGR_OK)
		rc = judge(d, &control, &aside, &state, err);
	found_fini(&control);
	found_fini(&aside);
	found_fini(&state);
	return rc;
}

/* ---- open ---- */

int pgr_olddir_lock(const struct pgr_olddir *d, struct pgr_err *err)
{
	int rc;

	do {
		rc = d->sys->flock(d->sys, d->fd, LOCK_EX | LOCK_NB);
	} while (rc != 0 && errno == EINTR);
	if (rc == 0)
		return PGR_OK;
	if (errno == EWOULDBLOCK)
		return pgr_err_set(err, PGR_E_USAGE, "another pgr-basebackup is at work in directory \"%s\"", d->path);
	return pgr_err_sys(err, errno, "could not lock directory \"%s\"", d->path);
}

static int open_and_look(struct pgr_olddir *d, struct pgr_err *err)
{
	d->fd = d->sys->openat(d->sys, AT_FDCWD, d->path, PGR_OLDDIR_FLAGS, 0);
	if (d->fd < 0 && errno == ENOENT)
		return PGR_OK;
	if (d->fd < 0 && errno == ENOTDIR)
		return pgr_err_set(err, PGR_E_USAGE, "\"%s\" is not a directory", d->path);
	if (d->fd < 0)
		return pgr_err_sys(err, errno, "could not open directory \"%s\"", d->path);
	if (pgr_olddir_lock(d, err) != PGR_OK)
		return PGR_ERR;
	return look(d, err);
}

int pgr_olddir_open(struct pgr_olddir **out, const struct pgr_sys *sys, const char *path, struct pgr_err *err)
{
	struct pgr_olddir *d = calloc(1, sizeof(*d));

	*out = NULL;
	if (d == NULL)
		return pgr_err_nomem(err);
	d->sys = sys;
	d->fd = -1;
	d->kind = PGR_OLDDIR_EMPTY;
	d->path = strdup(path);
	if (d->path == NULL)
		pgr_err_nomem(err);
	if (d->path == NULL || open_and_look(d, err) != PGR_OK) {
		pgr_olddir_free(d);
		return PGR_ERR;
	}
	*out = d;
	return PGR_OK;
}

void pgr_olddir_free(struct pgr_olddir *d)
{
	if (d == NULL)
		return;
	if (d->fd >= 0)
		close_dir(d, d->fd);
	free(d->path);
	free(d);
}

/* ---- what was found ---- */

enum pgr_olddir_kind pgr_olddir_kind(const struct pgr_olddir *d)
{
	return d->kind;
}

const struct pgr_controlfile *pgr_olddir_control(const struct pgr_olddir *d)
{
	return d->has_control ? &d->control : NULL;
}

const struct pgr_olddir_state *pgr_olddir_state(const struct pgr_olddir *d)
{
	return d->kind == PGR_OLDDIR_UNFINISHED ? &d->state : NULL;
}

pgr_lsn pgr_olddir_base(const struct pgr_olddir *d, pgr_tli *tli)
{
	*tli = d->base_tli;
	return d->base;
}

bool pgr_olddir_is_backup(const struct pgr_olddir *d)
{
	return d->is_backup;
}

bool pgr_olddir_is_settled(const struct pgr_olddir *d)
{
	return d->settled;
}

/* ---- is it the server's? ---- */

static int check_identifier(const struct pgr_olddir *d, const char *here, const char *server, struct pgr_err *err)
{
	if (here[0] == '\0' || strcmp(here, server) == 0)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_USAGE,
			   "directory \"%s\" holds another cluster: its system identifier is %s, the server's is %s",
			   d->path, here, server);
}

/* What PG_VERSION of such a server says: all but the last number of "15.20" and "9.6.24". */
static void version_text(char out[16], int server_version)
{
	char *dot;

	pgr_version_format(out, server_version);
	dot = strrchr(out, '.');
	if (dot != NULL)
		*dot = '\0';
}

static int check_version(const struct pgr_olddir *d, int server_version, struct pgr_err *err)
{
	bool unfinished = d->kind == PGR_OLDDIR_UNFINISHED;
	char server[16], here[16];

	version_text(server, server_version);
	snprintf(here, sizeof(here), "%s", d->version);
	if (unfinished && d->state.major != 0) {
		/* PG_VERSION may be one of the files that were not written any more */
		if (d->state.major == server_version / 10000)
			return PGR_OK;
		snprintf(here, sizeof(here), "%d", d->state.major);
	} else if (!d->has_version || (unfinished && here[0] == '\0') || strcmp(here, server) == 0) {
		return PGR_OK;
	}
	if (here[0] == '\0')
		return pgr_err_set(err, PGR_E_USAGE,
				   "cannot tell of which version directory \"%s\" is: "
				   "\"PG_VERSION\" makes no sense",
				   d->path);
	return pgr_err_set(err, PGR_E_USAGE, "directory \"%s\" is of PostgreSQL %s, the server is of %s", d->path, here,
			   server);
}

int pgr_olddir_check_server(const struct pgr_olddir *d, const char *system_identifier, int server_version,
			    struct pgr_err *err)
{
	char control[32];

	snprintf(control, sizeof(control), "%" PRIu64, d->control.system_identifier);
	if (check_identifier(d, d->has_control ? control : "", system_identifier, err) != PGR_OK ||
	    check_identifier(d, d->state.system_identifier, system_identifier, err) != PGR_OK)
		return PGR_ERR;
	return check_version(d, server_version, err);
}

int pgr_olddir_check_sizes(const struct pgr_olddir *d, uint32_t block_bytes, uint32_t segment_blocks,
			   struct pgr_err *err)
{
	if (!d->has_control)
		return PGR_OK;
	if (block_bytes != 0 && d->control.block_bytes != block_bytes)
		return pgr_err_set(err, PGR_E_USAGE,
				   "directory \"%s\" has blocks of %" PRIu32
				   " bytes, the server has blocks of %" PRIu32,
				   d->path, d->control.block_bytes, block_bytes);
	if (segment_blocks != 0 && d->control.segment_blocks != segment_blocks)
		return pgr_err_set(err, PGR_E_USAGE,
				   "directory \"%s\" has files of %" PRIu32 " blocks, the server has files of %" PRIu32,
				   d->path, d->control.segment_blocks, segment_blocks);
	return PGR_OK;
}
