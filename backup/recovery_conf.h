/*
 * What -R writes: recovery.conf below 12, postgresql.auto.conf and standby.signal from 12.
 *
 * Source: PostgreSQL src/fe_utils/recovery_gen.c; unlike it, only settings that somebody made are written, and only
 * keywords that the standby's own libpq knows.
 */
#ifndef PGR_BACKUP_RECOVERY_CONF_H
#define PGR_BACKUP_RECOVERY_CONF_H

#include <stdbool.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

struct pgr_setting;
struct pgr_sys;

/*
 * Appends the lines (standby_mode below 12, primary_conninfo, primary_slot_name) to `out`.
 * `skipped` gets the keywords, separated by ", ", that were set but are unknown to the server's version (may stay
 * empty).
 */
int pgr_recovery_conf_text(struct pgr_buf *out, int server_version, const struct pgr_setting *settings,
			   const char *slot, struct pgr_buf *skipped, struct pgr_err *err) PGR_MUST_USE;

/*
 * Writes the text into the data directory `dirfd` (named `dir` in messages): appended to postgresql.auto.conf (made
 * when missing) with an empty standby.signal, or as recovery.conf; synced when `sync`.
 */
int pgr_recovery_conf_write(const struct pgr_sys *sys, int dirfd, const char *dir, int server_version,
			    const struct pgr_buf *text, mode_t mode, bool sync, struct pgr_err *err) PGR_MUST_USE;

#endif
