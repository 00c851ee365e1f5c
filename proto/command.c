/*
 * Replication commands as text: see command.h.
 *
 * The text is parsed by repl_scanner.l and repl_gram.y, not by the SQL parser: in '' only the quote itself is special
 * and is doubled; a backslash is a backslash, whatever standard_conforming_strings says.  In "" not even doubled quotes
 * are known: a name with a quote in it becomes two names for the server, which is a syntax error in every command, and
 * nothing worse.  No slot and no setting has such a name.
 */
#include "proto/command.h"

#include <string.h>

#include "proto/caps.h"

/* Whether the server can; otherwise an error that names the feature and the version that has it. */
static int need(int server_version, enum pgr_cap cap, const char *what, struct pgr_err *err)
{
	char have[16];

	if (pgr_cap_has(server_version, cap))
		return PGR_OK;
	pgr_version_format(have, server_version);
	return pgr_err_set(err, PGR_E_USAGE, "%s needs a server of version %s or newer, this one is %s", what,
			   pgr_cap_since(cap), have);
}

/* Ends a command: what was written of it goes away when a part of it failed. */
static int finish(struct pgr_buf *out, size_t start, int rc)
{
	if (rc != PGR_OK)
		out->len = start;
	return rc;
}

/* ---- quoting ---- */

static int put_quoted(struct pgr_buf *out, char quote, const char *text, struct pgr_err *err)
{
	size_t start = out->len;
	int rc = pgr_buf_put8(out, (uint8_t)quote, err);

	for (; rc == PGR_OK && *text != '\0'; text++) {
		if (*text == quote)
			rc = pgr_buf_put8(out, (uint8_t)quote, err);
		if (rc == PGR_OK)
			rc = pgr_buf_put8(out, (uint8_t)*text, err);
	}
	if (rc == PGR_OK)
		rc = pgr_buf_put8(out, (uint8_t)quote, err);
	return finish(out, start, rc);
}

int pgr_cmd_put_ident(struct pgr_buf *out, const char *name, struct pgr_err *err)
{
	return put_quoted(out, '"', name, err);
}

int pgr_cmd_put_literal(struct pgr_buf *out, const char *text, struct pgr_err *err)
{
	return put_quoted(out, '\'', text, err);
}

/* A keyword (with its blank) and a quoted name. */
static int put_with_ident(struct pgr_buf *out, const char *keyword, const char *name, struct pgr_err *err)
{
	size_t start = out->len;
	int rc = pgr_buf_puts(out, keyword, err);

	if (rc == PGR_OK)
		rc = pgr_cmd_put_ident(out, name, err);
	return finish(out, start, rc);
}

/* ---- short commands ---- */

int pgr_cmd_identify_system(struct pgr_buf *out, struct pgr_err *err)
{
	return pgr_buf_puts(out, "IDENTIFY_SYSTEM", err);
}

/* The scanner's keywords are upper-case, so that a word in lower case is a name whatever it says. */
static bool is_plain_name(const char *name)
{
	return name[0] >= 'a' && name[0] <= 'z' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

/* Plain names stay without quotes: commands are shown in errors, and there this is how people know them. */
int pgr_cmd_show(struct pgr_buf *out, int server_version, const char *name, struct pgr_err *err)
{
	size_t start = out->len;
	int rc;

	if (need(server_version, PGR_CAP_SHOW, "SHOW on a replication connection", err) != PGR_OK)
		return PGR_ERR;
	if (!is_plain_name(name))
		return put_with_ident(out, "SHOW ", name, err);
	rc = pgr_buf_puts(out, "SHOW ", err);
	if (rc == PGR_OK)
		rc = pgr_buf_puts(out, name, err);
	return finish(out, start, rc);
}

int pgr_cmd_timeline_history(struct pgr_buf *out, int server_version, pgr_tli tli, struct pgr_err *err)
{
	if (need(server_version, PGR_CAP_TIMELINE_HISTORY, "TIMELINE_HISTORY", err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_printf(out, err, "TIMELINE_HISTORY %u", tli);
}

int pgr_cmd_upload_manifest(struct pgr_buf *out, int server_version, struct pgr_err *err)
{
	if (need(server_version, PGR_CAP_INCREMENTAL, "an incremental backup", err) != PGR_OK)
		return PGR_ERR;
	return pgr_buf_puts(out, "UPLOAD_MANIFEST", err);
}

/* ---- slots ---- */

int pgr_cmd_create_slot(struct pgr_buf *out, int server_version, const char *slot, bool temporary, bool reserve_wal,
			struct pgr_err *err)
{
	size_t start = out->len;
	int rc;

	if (need(server_version, PGR_CAP_SLOTS, "a replication slot", err) != PGR_OK ||
	    (temporary && need(server_version, PGR_CAP_TEMP_SLOTS, "a temporary replication slot", err) != PGR_OK) ||
	    (reserve_wal &&
	     need(server_version, PGR_CAP_RESERVE_WAL, "a replication slot that reserves WAL at once", err) != PGR_OK))
		return PGR_ERR;
	rc = put_with_ident(out, "CREATE_REPLICATION_SLOT ", slot, err);
	if (rc == PGR_OK && temporary)
		rc = pgr_buf_puts(out, " TEMPORARY", err);
	if (rc == PGR_OK)
		rc = pgr_buf_puts(out, " PHYSICAL", err);
	if (rc == PGR_OK && reserve_wal)
		rc = pgr_buf_puts(
			out, pgr_cap_has(server_version, PGR_CAP_PAREN_OPTIONS) ? " (RESERVE_WAL)" : " RESERVE_WAL",
			err);
	return finish(out, start, rc);
}

int pgr_cmd_read_slot(struct pgr_buf *out, int server_version, const char *slot, struct pgr_err *err)
{
	if (need(server_version, PGR_CAP_READ_SLOT, "READ_REPLICATION_SLOT", err) != PGR_OK)
		return PGR_ERR;
	return put_with_ident(out, "READ_REPLICATION_SLOT ", slot, err);
}

/* Without WAIT: a slot that somebody else uses is an error to be told of, not to be waited for. */
int pgr_cmd_drop_slot(struct pgr_buf *out, int server_version, const char *slot, struct pgr_err *err)
{
	if (need(server_version, PGR_CAP_SLOTS, "a replication slot", err) != PGR_OK)
		return PGR_ERR;
	return put_with_ident(out, "DROP_REPLICATION_SLOT ", slot, err);
}

/* ---- streaming ---- */

int pgr_cmd_start_replication(struct pgr_buf *out, int server_version, const char *slot, pgr_lsn start, pgr_tli tli,
			      struct pgr_err *err)
{
	size_t begin = out->len;
	int rc;

	if (need(server_version, PGR_CAP_WAL_STREAM, "streaming WAL", err) != PGR_OK ||
	    (slot != NULL && need(server_version, PGR_CAP_SLOTS, "a replication slot", err) != PGR_OK))
		return PGR_ERR;
	rc = pgr_buf_puts(out, "START_REPLICATION ", err);
	if (rc == PGR_OK && slot != NULL)
		rc = put_with_ident(out, "SLOT ", slot, err);
	if (rc == PGR_OK && slot != NULL)
		rc = pgr_buf_put8(out, ' ', err);
	if (rc == PGR_OK)
		rc = pgr_buf_printf(out, err, "%" PGR_LSN_FMT, PGR_LSN_ARG(start));
	if (rc == PGR_OK && tli != 0)
		rc = pgr_buf_printf(out, err, " TIMELINE %u", tli);
	return finish(out, begin, rc);
}

/* ---- BASE_BACKUP ---- */

/*
 * Options of a command: in parentheses with commas from 15, words between blanks before.  The first failure stays in
 * rc, and nothing is written after it.
 */
struct options {
	struct pgr_buf *out;
	bool paren;
	unsigned count;
	int rc;
	struct pgr_err *err;
};

static void opt_name(struct options *o, const char *name)
{
	const char *before = !o->paren ? " " : o->count == 0 ? " (" : ", ";

	if (o->rc == PGR_OK)
		o->rc = pgr_buf_puts(o->out, before, o->err);
	if (o->rc == PGR_OK)
		o->rc = pgr_buf_puts(o->out, name, o->err);
	o->count++;
}

static void opt_flag(struct options *o, bool wanted, const char *name)
{
	if (wanted)
		opt_name(o, name);
}

static void opt_text(struct options *o, const char *name, const char *value)
{
	if (value == NULL)
		return;
	opt_name(o, name);
	if (o->rc == PGR_OK)
		o->rc = pgr_buf_put8(o->out, ' ', o->err);
	if (o->rc == PGR_OK)
		o->rc = pgr_cmd_put_literal(o->out, value, o->err);
}

static void opt_number(struct options *o, bool wanted, const char *name, uint32_t value)
{
	if (!wanted)
		return;
	opt_name(o, name);
	if (o->rc == PGR_OK)
		o->rc = pgr_buf_printf(o->out, o->err, " %u", value);
}

static int opt_end(struct options *o)
{
	if (o->rc == PGR_OK && o->paren)
		o->rc = pgr_buf_put8(o->out, ')', o->err);
	return o->rc;
}

/* Options that say nothing without another one: the server would refuse them too, but after the connection. */
static int check_combination(const struct pgr_base_backup_cmd *cmd, struct pgr_err *err)
{
	if (cmd->label == NULL)
		return pgr_err_set(err, PGR_E_USAGE, "a base backup needs a label");
	if (!cmd->manifest && (cmd->manifest_checksums != NULL || cmd->manifest_force_encode))
		return pgr_err_set(err, PGR_E_USAGE, "manifest options need a backup manifest");
	if (cmd->target == NULL && cmd->target_detail != NULL)
		return pgr_err_set(err, PGR_E_USAGE, "a detail of a backup target needs a backup target");
	if (cmd->compression == NULL && cmd->compression_detail != NULL)
		return pgr_err_set(err, PGR_E_USAGE, "compression options need a compression method");
	return PGR_OK;
}

/* no_verify_checksums is not in here: a server before 11 never verifies, so it does what is asked. */
static int check_server(int server_version, const struct pgr_base_backup_cmd *cmd, struct pgr_err *err)
{
	const struct {
		bool wanted;
		enum pgr_cap cap;
		const char *what;
	} wants[] = {
		{cmd->max_rate_kb > 0, PGR_CAP_MAX_RATE, "a limit of the transfer rate"},
		{cmd->tablespace_map, PGR_CAP_TABLESPACE_MAP, "a tablespace map"},
		{cmd->manifest, PGR_CAP_MANIFEST, "a backup manifest"},
		{cmd->target != NULL, PGR_CAP_TARGETS, "a backup target"},
		{cmd->compression != NULL, PGR_CAP_SERVER_COMPRESSION, "compression on the server"},
		{cmd->incremental, PGR_CAP_INCREMENTAL, "an incremental backup"},
	};

	for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++)
		if (wants[i].wanted && need(server_version, wants[i].cap, wants[i].what, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* Options that both grammars have, each in its own words. */
static void put_common_options(struct options *o, int server_version, const struct pgr_base_backup_cmd *cmd)
{
	bool unverified = cmd->no_verify_checksums && pgr_cap_has(server_version, PGR_CAP_VERIFY_CHECKSUMS);

	opt_text(o, "LABEL", cmd->label);
	opt_flag(o, cmd->progress, "PROGRESS");
	opt_flag(o, cmd->include_wal, "WAL");
	opt_flag(o, cmd->fast_checkpoint, o->paren ? "CHECKPOINT 'fast'" : "FAST");
	opt_flag(o, cmd->no_wait, o->paren ? "WAIT 0" : "NOWAIT");
	opt_number(o, cmd->max_rate_kb > 0, "MAX_RATE", cmd->max_rate_kb);
	opt_flag(o, cmd->tablespace_map, "TABLESPACE_MAP");
	opt_flag(o, unverified, o->paren ? "VERIFY_CHECKSUMS 0" : "NOVERIFY_CHECKSUMS");
	if (cmd->manifest)
		opt_text(o, "MANIFEST", cmd->manifest_force_encode ? "force-encode" : "yes");
	opt_text(o, "MANIFEST_CHECKSUMS", cmd->manifest_checksums);
}

int pgr_cmd_base_backup(struct pgr_buf *out, int server_version, const struct pgr_base_backup_cmd *cmd,
			struct pgr_err *err)
{
	struct options o = {out, pgr_cap_has(server_version, PGR_CAP_PAREN_OPTIONS), 0, PGR_OK, err};
	size_t start = out->len;

	if (check_combination(cmd, err) != PGR_OK || check_server(server_version, cmd, err) != PGR_OK)
		return PGR_ERR;
	o.rc = pgr_buf_puts(out, "BASE_BACKUP", err);
	put_common_options(&o, server_version, cmd);
	opt_text(&o, "TARGET", cmd->target);
	opt_text(&o, "TARGET_DETAIL", cmd->target_detail);
	opt_text(&o, "COMPRESSION", cmd->compression);
	opt_text(&o, "COMPRESSION_DETAIL", cmd->compression_detail);
	opt_flag(&o, cmd->incremental, "INCREMENTAL");
	return finish(out, start, opt_end(&o));
}
