#include "backup/delta_choose.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/num.h"
#include "proto/caps.h"
#include "receiver/history.h"

static bool PGR_PRINTF(2, 3) no(struct pgr_delta_choice *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out->why_not, sizeof(out->why_not), fmt, ap);
	va_end(ap);
	return false;
}

/* ---- the server, and whether it is the same cluster ---- */

static bool server_can(struct pgr_delta_choice *out, const struct pgr_delta_server *s)
{
	char version[16];

	if (!pgr_cap_has(s->version, PGR_CAP_INCREMENTAL)) {
		pgr_version_format(version, s->version);
		return no(out, "server version %s does not summarize WAL, only %s and later", version,
			  pgr_cap_since(PGR_CAP_INCREMENTAL));
	}
	if (!s->summarize_wal)
		return no(out, "the server does not summarize its WAL (summarize_wal is off)");
	return true;
}

static bool same_sizes(struct pgr_delta_choice *out, const struct pgr_controlfile *c, const struct pgr_delta_server *s)
{
	const struct {
		const char *what;
		uint32_t here, there;
	} sizes[] = {
		{"catalog version", c->catalog_version, s->catalog_version},
		{"block size", c->block_bytes, s->block_bytes},
		{"segment size", c->segment_blocks, s->segment_blocks},
		{"WAL segment size", c->wal_segment_bytes, s->wal_segment_bytes},
		/* pg_checksums rewrites pages, and there is no WAL of it */
		{"data checksum version", c->checksum_version, s->checksum_version},
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		if (sizes[i].here != sizes[i].there)
			return no(out, "its %s is %" PRIu32 ", the server's is %" PRIu32, sizes[i].what, sizes[i].here,
				  sizes[i].there);
	return true;
}

static bool same_cluster(struct pgr_delta_choice *out, const struct pgr_controlfile *c,
			 const struct pgr_delta_server *s)
{
	uint64_t id;

	if (!pgr_num_u64(s->system_identifier, strlen(s->system_identifier), &id) || id != c->system_identifier)
		return no(out, "its system identifier is not the server's");
	return same_sizes(out, c, s);
}

/* ---- history ---- */

/* The timeline that the server is on. */
static pgr_tli present(const struct pgr_delta_server *s)
{
	return s->history->n > 0 ? s->history->entries[s->history->n - 1].tli : 0;
}

/* Where the server's WAL of this timeline ends; false: it has none. */
static bool end_of(const struct pgr_delta_server *s, pgr_tli tli, pgr_lsn *end)
{
	if (!pgr_history_find(s->history, tli, end))
		return false;
	if (*end == PGR_LSN_INVALID)
		*end = s->flush;
	return true;
}

/* Whether what was replayed or written here up to `lsn` is the server's WAL, too. */
static bool in_history(struct pgr_delta_choice *out, const struct pgr_delta_server *s, pgr_tli tli, pgr_lsn lsn,
		       const char *what)
{
	pgr_lsn end;

	if (!end_of(s, tli, &end))
		return no(out, "its timeline %" PRIu32 " is not in the server's history", tli);
	if (lsn > end)
		return no(out,
			  "%s %" PGR_LSN_FMT " lies behind %" PGR_LSN_FMT ", where the server's timeline %" PRIu32
			  " ends",
			  what, PGR_LSN_ARG(lsn), PGR_LSN_ARG(end), tli);
	return true;
}

/*
 * What a copy that was never started holds has been written by the server that it was taken from until the copy ended,
 * which is written nowhere here.  On the timeline that the server is still on nothing can have diverged.
 */
static bool on_present_timeline(struct pgr_delta_choice *out, const struct pgr_delta_server *s, pgr_tli tli)
{
	if (tli != 0 && tli == present(s))
		return true;
	if (tli == 0)
		return no(out, "it is not known from which timeline it was copied");
	return no(out, "it was copied from timeline %" PRIu32 ", and the server is on %" PRIu32 " now", tli,
		  present(s));
}

/* ---- how it was left ---- */

/* A server that was shut down has written nothing after its last checkpoint. */
static bool clean_primary(struct pgr_delta_choice *out, const struct pgr_controlfile *c,
			  const struct pgr_delta_server *s)
{
	/* pg_resetwal says "shut down" of whatever there was, and this is how it says it */
	if (c->wal_level == 0)
		return no(out, "its last WAL was of wal_level = minimal, or pg_resetwal has removed it");
	/* `checkpoint` is where that record begins; it must be the server's to its end */
	return in_history(out, s, c->tli, c->checkpoint + 1, "its shutdown checkpoint");
}

/* Where the timeline that the server is on begins. */
static pgr_lsn present_begin(const struct pgr_delta_server *s)
{
	return s->history->n > 1 ? s->history->entries[s->history->n - 2].end : 0;
}

/*
 * It was started from a backup and did not come to its end.  What it holds was written by the server that it was taken
 * from, up to that end, which is written nowhere: as with a copy that was never started.
 */
static bool amid_a_backup(struct pgr_delta_choice *out, const struct pgr_controlfile *c,
			  const struct pgr_delta_server *s)
{
	if (c->tli == present(s) && c->backup_start >= present_begin(s) && !s->in_recovery)
		return true;
	return no(out, "it has not recovered to the end of the backup that it was started from, and may be ahead of %s",
		  s->in_recovery ? "the server, which is a standby" : "where the server's timeline began");
}

static bool standby(struct pgr_delta_choice *out, const struct pgr_controlfile *c, const struct pgr_delta_server *s)
{
	if (c->backup_start != PGR_LSN_INVALID && !amid_a_backup(out, c, s))
		return false;
	if (!in_history(out, s, c->tli, c->redo, "its last restartpoint"))
		return false;
	if (c->min_recovery == PGR_LSN_INVALID)
		return no(out, "its pg_control does not say how far it has recovered");
	return in_history(out, s, c->min_recovery_tli != 0 ? c->min_recovery_tli : c->tli, c->min_recovery,
			  "its minimum recovery point");
}

/*
 * A copy may be ahead of a server that is a standby.  One that was made from a standby says how far it is.
 */
static bool never_started(struct pgr_delta_choice *out, const struct pgr_delta_local *l,
			  const struct pgr_delta_server *s)
{
	const struct pgr_controlfile *c = l->control;

	if (!on_present_timeline(out, s, l->from_tli))
		return false;
	if (!s->in_recovery)
		return true;
	if (c != NULL && (c->state == PGR_DB_IN_ARCHIVE_RECOVERY || c->state == PGR_DB_SHUTDOWNED_IN_RECOVERY))
		return standby(out, c, s);
	return no(out, "it may be ahead of the server, which is a standby");
}

static bool left_well(struct pgr_delta_choice *out, const struct pgr_delta_local *l, const struct pgr_delta_server *s)
{
	if (l->copied)
		return never_started(out, l, s);
	if (l->control == NULL)
		return no(out, "it has no pg_control");
	switch (l->control->state) {
	case PGR_DB_SHUTDOWNED:
		return clean_primary(out, l->control, s);
	case PGR_DB_SHUTDOWNED_IN_RECOVERY:
	case PGR_DB_IN_ARCHIVE_RECOVERY:
		return standby(out, l->control, s);
	default:
		return no(out,
			  "it was a primary and not shut down (\"%s\"): it may hold changes that the server does not "
			  "have",
			  pgr_dbstate_name(l->control->state));
	}
}

/* ---- R ---- */

/* The timeline on which the server's history has the position: the one before, when it was begun there or later. */
static bool place_position(struct pgr_delta_choice *out, const struct pgr_delta_server *s)
{
	pgr_lsn begin = 0;

	if (!in_history(out, s, out->from_tli, out->from, "its starting point"))
		return false;
	for (size_t i = 0; i < s->history->n; i++) {
		const struct pgr_history_entry *e = &s->history->entries[i];

		if (out->from >= begin && (e->end == PGR_LSN_INVALID || out->from < e->end)) {
			out->from_tli = e->tli;
			return true;
		}
		begin = e->end;
	}
	return no(out, "its starting point is not in the server's history");
}

/* ---- all of it ---- */

/* What earlier runs have written here is of their server, which need not be in this one's history. */
static bool runs_were_like_this(struct pgr_delta_choice *out, const struct pgr_delta_local *l,
				const struct pgr_delta_server *s)
{
	if (!l->unfinished)
		return true;
	if (!on_present_timeline(out, s, l->run_tli))
		return false;
	if (s->in_recovery)
		return no(
			out,
			"an earlier run may have copied from a server that was ahead of this one, which is a standby");
	return true;
}

static bool can(struct pgr_delta_choice *out, const struct pgr_delta_local *l, const struct pgr_delta_server *s)
{
	if (!server_can(out, s) || (l->control != NULL && !same_cluster(out, l->control, s)))
		return false;
	if (l->from == PGR_LSN_INVALID)
		return no(out, "it does not say up to where it is complete");
	if (!runs_were_like_this(out, l, s) || !left_well(out, l, s))
		return false;
	out->from = l->from;
	out->from_tli = l->from_tli;
	if (!place_position(out, s))
		return false;
	/* a standby's backup begins at its last restartpoint, which may be an old one */
	if (s->in_recovery && out->from > s->redo)
		return no(out,
			  "the server is a standby whose last restartpoint, %" PGR_LSN_FMT
			  ", is older than %" PGR_LSN_FMT,
			  PGR_LSN_ARG(s->redo), PGR_LSN_ARG(out->from));
	return true;
}

void pgr_delta_choose(struct pgr_delta_choice *out, const struct pgr_delta_local *local,
		      const struct pgr_delta_server *server)
{
	*out = (struct pgr_delta_choice){0};
	out->usable = can(out, local, server);
}

/*
 * Comparing hashes, both sides read everything and 1 to 2 percent of it is sent as hashes; with summaries, what is here
 * is read as well for its checksums.  So they are as cheap at least, unless nearly all of it is sent whole.
 */
bool pgr_delta_summary_is_cheaper(uint64_t changed_blocks, uint32_t block_bytes, uint64_t patchable_bytes,
				  uint64_t local_bytes)
{
	uint64_t whole = local_bytes > patchable_bytes ? local_bytes - patchable_bytes : 0;
	uint64_t most = local_bytes / 10 * 9;

	return whole <= most && changed_blocks <= (most - whole) / (block_bytes > 0 ? block_bytes : 1);
}
