#include "backup/recovery_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/fs_durable.h"
#include "common/fs_io.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/settings.h"

/* ---- the text ---- */

/* What libpq's parser takes without quotes, as narrow as appendConnStrVal (src/fe_utils/string_utils.c) sees it. */
static bool is_plain(const char *value)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";

	return value[0] != '\0' && strspn(value, plain) == strlen(value);
}

/* One value of a connection string. */
static int put_conninfo_value(struct pgr_buf *out, const char *value, struct pgr_err *err)
{
	if (is_plain(value))
		return pgr_buf_puts(out, value, err);
	if (pgr_buf_put8(out, '\'', err) != PGR_OK)
		return PGR_ERR;
	for (const char *p = value; *p != '\0'; p++) {
		if ((*p == '\'' || *p == '\\') && pgr_buf_put8(out, '\\', err) != PGR_OK)
			return PGR_ERR;
		if (pgr_buf_put8(out, (uint8_t)*p, err) != PGR_OK)
			return PGR_ERR;
	}
	return pgr_buf_put8(out, '\'', err);
}

/*
 * A string of a configuration file, where quotes and backslashes are doubled.  A newline would end the setting in the
 * middle (STRING in src/backend/utils/misc/guc-file.l does not take one), so it goes as the escape that the server
 * turns back.
 */
static int put_config_string(struct pgr_buf *out, const uint8_t *p, size_t len, struct pgr_err *err)
{
	if (pgr_buf_put8(out, '\'', err) != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < len; i++) {
		int rc;

		if (p[i] == '\n')
			rc = pgr_buf_puts(out, "\\n", err);
		else if (p[i] == '\'' || p[i] == '\\')
			rc = pgr_buf_put(out, (const uint8_t[2]){p[i], p[i]}, 2, err);
		else
			rc = pgr_buf_put8(out, p[i], err);
		if (rc != PGR_OK)
			return PGR_ERR;
	}
	return pgr_buf_put8(out, '\'', err);
}

static int put_line(struct pgr_buf *out, const char *name, const uint8_t *value, size_t len, struct pgr_err *err)
{
	if (pgr_buf_puts(out, name, err) != PGR_OK || pgr_buf_puts(out, " = ", err) != PGR_OK)
		return PGR_ERR;
	if (put_config_string(out, value, len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_put8(out, '\n', err);
}

static int put_setting(struct pgr_buf *conninfo, const struct pgr_setting *s, struct pgr_err *err)
{
	if (conninfo->len > 0 && pgr_buf_put8(conninfo, ' ', err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_puts(conninfo, s->keyword, err) != PGR_OK || pgr_buf_put8(conninfo, '=', err) != PGR_OK)
		return PGR_ERR;
	return put_conninfo_value(conninfo, s->value, err);
}

static int put_skipped(struct pgr_buf *skipped, const char *keyword, struct pgr_err *err)
{
	if (skipped->len > 0 && pgr_buf_puts(skipped, ", ", err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(skipped, keyword, err);
}

/* What the walreceiver sets itself (src/backend/replication/libpqwalreceiver), and what says nothing. */
static bool is_left_out(const struct pgr_setting *s)
{
	return s->value == NULL || s->value[0] == '\0' || strcmp(s->keyword, "replication") == 0 ||
	       strcmp(s->keyword, "fallback_application_name") == 0;
}

/* dbname comes last, as pg_basebackup writes it, and only where slot synchronisation reads it. */
static int put_conninfo(struct pgr_buf *conninfo, int version, const struct pgr_setting *settings,
			struct pgr_buf *skipped, struct pgr_err *err)
{
	const struct pgr_setting *dbname = NULL;

	for (const struct pgr_setting *s = settings; s->keyword != NULL; s++) {
		int rc;

		if (is_left_out(s))
			continue;
		if (strcmp(s->keyword, "dbname") == 0) {
			dbname = s;
			continue;
		}
		if (pgr_cap_conninfo_keyword(version, s->keyword))
			rc = put_setting(conninfo, s, err);
		else
			rc = put_skipped(skipped, s->keyword, err);
		if (rc != PGR_OK)
			return PGR_ERR;
	}
	if (dbname == NULL || !pgr_cap_has(version, PGR_CAP_CONNINFO_DBNAME))
		return PGR_OK;
	return put_setting(conninfo, dbname, err);
}

int pgr_recovery_conf_text(struct pgr_buf *out, int server_version, const struct pgr_setting *settings,
			   const char *slot, struct pgr_buf *skipped, struct pgr_err *err)
{
	struct pgr_buf conninfo = {0};
	int rc;

	if (!pgr_cap_has(server_version, PGR_CAP_RECOVERY_SIGNAL) &&
	    pgr_buf_puts(out, "standby_mode = 'on'\n", err) != PGR_OK)
		return PGR_ERR;
	rc = put_conninfo(&conninfo, server_version, settings, skipped, err);
	if (rc == PGR_OK)
		rc = put_line(out, "primary_conninfo", conninfo.data, conninfo.len, err);
	pgr_buf_fini(&conninfo);
	if (rc == PGR_OK && slot != NULL)
		rc = put_line(out, "primary_slot_name", (const uint8_t *)slot, strlen(slot), err);
	return rc;
}

/* ---- the files ---- */

#define AUTO_CONF "postgresql.auto.conf"

/* Opens the file that the server sent, or makes one. */
static int open_auto_conf(const struct pgr_sys *sys, int dirfd, const char *path, mode_t mode, int *fd,
			  struct pgr_err *err)
{
	const int flags = O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC;

	*fd = sys->openat(sys, dirfd, AUTO_CONF, flags, 0);
	if (*fd >= 0)
		return PGR_OK;
	if (errno != ENOENT)
		return pgr_err_sys(err, errno, "could not open file \"%s\"", path);
	*fd = sys->openat(sys, dirfd, AUTO_CONF, flags | O_CREAT | O_EXCL, mode);
	if (*fd < 0)
		return pgr_err_sys(err, errno, "could not create file \"%s\"", path);
	/* the umask may have taken bits away */
	if (sys->fchmod(sys, *fd, mode) == 0)
		return PGR_OK;
	pgr_err_sys(err, errno, "could not set permissions on file \"%s\"", path);
	(void)sys->close(sys, *fd);
	return PGR_ERR;
}

/* A last line without its newline would swallow our first one. */
static int end_last_line(const struct pgr_sys *sys, int fd, const char *path, struct pgr_err *err)
{
	struct stat st;
	char last;
	ssize_t n;

	if (sys->fstat(sys, fd, &st) != 0)
		return pgr_err_sys(err, errno, "could not stat file \"%s\"", path);
	if (!S_ISREG(st.st_mode))
		return pgr_err_set(err, PGR_E_DATA, "\"%s\" is not a regular file", path);
	if (st.st_size == 0)
		return PGR_OK;
	do
		n = sys->pread(sys, fd, &last, 1, st.st_size - 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		return pgr_err_sys(err, n < 0 ? errno : EIO, "could not read file \"%s\"", path);
	return last == '\n' ? PGR_OK : pgr_fs_write_all(sys, fd, "\n", 1, path, err);
}

static int append_auto_conf(const struct pgr_sys *sys, int dirfd, const char *dir, const struct pgr_buf *text,
			    mode_t mode, bool sync, struct pgr_err *err)
{
	char path[PATH_MAX];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/%s", dir, AUTO_CONF); /* for messages */
	if (open_auto_conf(sys, dirfd, path, mode, &fd, err) != PGR_OK)
		return PGR_ERR;
	rc = end_last_line(sys, fd, path, err);
	if (rc == PGR_OK)
		rc = pgr_fs_write_all(sys, fd, text->data, text->len, path, err);
	if (rc == PGR_OK && sync && sys->fsync(sys, fd) != 0)
		rc = pgr_err_sys(err, errno, "could not fsync file \"%s\"", path);
	if (sys->close(sys, fd) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", path);
	return rc;
}

int pgr_recovery_conf_write(const struct pgr_sys *sys, int dirfd, const char *dir, int server_version,
			    const struct pgr_buf *text, mode_t mode, bool sync, struct pgr_err *err)
{
	if (!pgr_cap_has(server_version, PGR_CAP_RECOVERY_SIGNAL))
		return pgr_fs_write_file(sys, dirfd, dir, "recovery.conf", ".tmp", text->data, text->len, mode, sync,
					 err);
	if (append_auto_conf(sys, dirfd, dir, text, mode, sync, err) != PGR_OK)
		return PGR_ERR;
	/* after the settings, since its presence is what makes them count; its sync of the directory covers both */
	return pgr_fs_write_file(sys, dirfd, dir, "standby.signal", ".tmp", "", 0, mode, sync, err);
}
