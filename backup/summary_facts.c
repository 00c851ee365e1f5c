#include "backup/summary_facts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/listing.h"
#include "backup/sql.h"
#include "common/num.h"

void pgr_summary_facts_fini(struct pgr_summary_facts *f)
{
	pgr_history_fini(&f->history);
	*f = (struct pgr_summary_facts){0};
}

static const char question[] =
	"SELECT (SELECT system_identifier::text FROM pg_control_system()), current_setting('summarize_wal'),"
	" pg_is_in_recovery(), (SELECT catalog_version_no FROM pg_control_system()), i.database_block_size,"
	" i.blocks_per_segment, i.bytes_per_wal_segment, i.data_page_checksum_version,"
	" (SELECT redo_lsn FROM pg_control_checkpoint()),"
	" (SELECT coalesce(sum(pg_database_size(d.oid)), 0)::bigint FROM pg_database d"
	" WHERE has_database_privilege(d.oid, 'CONNECT')),"
	" coalesce(pg_last_wal_replay_lsn(), '0/0'),"
	/* who has given up its own rights does not see the type */
	" EXISTS (SELECT FROM pg_stat_get_activity(%d) a WHERE coalesce(a.backend_type, 'walsender') = 'walsender')"
	" FROM pg_control_init() i";

static bool is(const struct pgr_result *r, unsigned col, const char *text)
{
	const char *s = pgr_result_cell(r, 0, col, NULL);

	return s != NULL && strcmp(s, text) == 0;
}

static bool cell_u32(const struct pgr_result *r, unsigned col, uint32_t *out)
{
	size_t len;
	const char *s = pgr_result_cell(r, 0, col, &len);

	return s != NULL && pgr_num_u32(s, len, out);
}

static bool cell_lsn(const struct pgr_result *r, unsigned col, pgr_lsn *out)
{
	size_t len;
	const char *s = pgr_result_cell(r, 0, col, &len);

	return s != NULL && pgr_lsn_parse(s, len, out);
}

/* Sizes decide what is written where, so impossible ones are refused. */
static bool sizes_make_sense(const struct pgr_summary_facts *f)
{
	uint32_t page = f->block_bytes;

	return page >= 1024 && page <= 32768 && (page & (page - 1)) == 0 && f->segment_blocks > 0 &&
	       (uint64_t)f->segment_blocks * page <= (uint64_t)1 << 40;
}

static bool take(struct pgr_summary_facts *f, const struct pgr_result *r)
{
	size_t len;
	const char *size = pgr_result_cell(r, 0, 9, &len);

	f->summarize_wal = is(r, 1, "on");
	f->in_recovery = is(r, 2, "t");
	return (f->in_recovery || is(r, 2, "f")) && cell_u32(r, 3, &f->catalog_version) &&
	       cell_u32(r, 4, &f->block_bytes) && cell_u32(r, 5, &f->segment_blocks) &&
	       cell_u32(r, 6, &f->wal_segment_bytes) && cell_u32(r, 7, &f->checksum_version) &&
	       cell_lsn(r, 8, &f->redo) && size != NULL && pgr_num_u64(size, len, &f->database_bytes) &&
	       cell_lsn(r, 10, &f->replayed) && sizes_make_sense(f);
}

/* Several hosts in a connection string, or one name for several servers: what one of them says is not the other's. */
static int check_same_server(const struct pgr_result *r, const struct pgr_system_id *id, struct pgr_err *err)
{
	if (!is(r, 0, id->system_identifier))
		return pgr_err_set(err, PGR_E_USAGE,
				   "system identifier does not match between SQL and replication connection");
	if (is(r, 11, "t"))
		return PGR_OK;
	pgr_err_set(err, PGR_E_USAGE, "the SQL and the replication connection lead to different servers");
	return pgr_err_hint(err, "Name a single host.");
}

int pgr_summary_facts_ask(struct pgr_summary_facts *out, struct pgr_client *sql, struct pgr_client *repl,
			  const struct pgr_system_id *id, struct pgr_err *err)
{
	struct pgr_result *r;
	int rc;

	if (pgr_sql_query(sql, &r, err, question, pgr_client_backend_pid(repl)) != PGR_OK)
		return PGR_ERR;
	rc = check_same_server(r, id, err);
	if (rc == PGR_OK && !take(out, r))
		rc = pgr_err_set(err, PGR_E_PROTOCOL,
				 "the server's answer to the question about itself makes no sense");
	pgr_result_free(r);
	return rc == PGR_OK ? pgr_summary_facts_history(repl, id->tli, &out->history, err) : rc;
}

/*
 * What a standby's backup holds is what it has replayed, while it says of itself what it has received, which may be far
 * ahead (recovery_min_apply_delay).
 */
static pgr_lsn holds_up_to(const struct pgr_summary_facts *f, const struct pgr_system_id *id)
{
	return f->in_recovery && f->replayed < id->flush ? f->replayed : id->flush;
}

void pgr_summary_facts_server(const struct pgr_summary_facts *f, int version, const struct pgr_system_id *id,
			      struct pgr_delta_server *out)
{
	*out = (struct pgr_delta_server){
		.version = version,
		.summarize_wal = f->summarize_wal,
		.system_identifier = id->system_identifier,
		.catalog_version = f->catalog_version,
		.block_bytes = f->block_bytes,
		.segment_blocks = f->segment_blocks,
		.wal_segment_bytes = f->wal_segment_bytes,
		.checksum_version = f->checksum_version,
		.history = &f->history,
		.flush = holds_up_to(f, id),
		.in_recovery = f->in_recovery,
		.redo = f->redo,
	};
}

int pgr_summary_facts_history(struct pgr_client *repl, pgr_tli tli, struct pgr_history *out, struct pgr_err *err)
{
	char *text = NULL;
	size_t len = 0;
	int rc;

	if (tli > 1 && pgr_client_timeline_history(repl, tli, &text, &len, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_history_parse(out, tli, text != NULL ? text : "", len, err);
	free(text);
	return rc;
}

int pgr_summary_facts_summarized(struct pgr_client *sql, pgr_tli tli, pgr_lsn least, pgr_lsn *out, struct pgr_err *err)
{
	struct pgr_result *r;
	pgr_lsn end;

	if (pgr_sql_query(sql, &r, err, "SELECT max(end_lsn) FROM pg_available_wal_summaries() WHERE tli = %" PRIu32,
			  tli) != PGR_OK)
		return PGR_ERR;
	*out = cell_lsn(r, 0, &end) && end > least ? end : least;
	pgr_result_free(r);
	return PGR_OK;
}

static int take_space(struct pgr_bb_tablespace *t, const struct pgr_result *r, unsigned row, struct pgr_err *err)
{
	size_t len;
	const char *oid = pgr_result_cell(r, row, 0, &len), *location = pgr_result_cell(r, row, 1, NULL);

	t->size_kb = -1;
	if (oid == NULL || location == NULL || !pgr_num_u32(oid, len, &t->oid) || t->oid == 0 || location[0] == '\0')
		return pgr_err_set(err, PGR_E_PROTOCOL,
				   "the server's answer to the question about its tablespaces makes no sense");
	t->location = strdup(location);
	return t->location != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int take_spaces(struct pgr_bb_tablespace *list, const struct pgr_result *r, struct pgr_err *err)
{
	unsigned n = pgr_result_rows(r);

	for (unsigned i = 0; i < n; i++)
		if (take_space(&list[i], r, i, err) != PGR_OK)
			return PGR_ERR;
	list[n].size_kb = -1;
	list[n].location = strdup("");
	return list[n].location != NULL ? PGR_OK : pgr_err_nomem(err);
}

/* 1663 and 1664 are pg_default and pg_global.  The catalog is read as of one moment, the links as they are by then. */
static int ask_spaces(struct pgr_client *sql, struct pgr_result **r, struct pgr_err *err)
{
	int rc = PGR_ERR;

	for (int look = 0; rc != PGR_OK && look < PGR_LISTING_LOOKS; look++) {
		rc = pgr_sql_query(sql, r, err,
				   "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace"
				   " WHERE oid NOT IN (1663, 1664) ORDER BY oid");
		if (rc != PGR_OK && !pgr_listing_has_gone(err))
			break;
	}
	if (rc != PGR_OK && err->cls == PGR_E_SERVER)
		pgr_err_prefix(err, "could not list the server's tablespaces");
	return rc;
}

int pgr_summary_facts_spaces(struct pgr_client *sql, struct pgr_bb_tablespace **list, size_t *n, struct pgr_err *err)
{
	struct pgr_result *r;
	int rc;

	*list = NULL;
	*n = 0;
	if (ask_spaces(sql, &r, err) != PGR_OK)
		return PGR_ERR;
	*n = (size_t)pgr_result_rows(r) + 1;
	*list = calloc(*n, sizeof(**list));
	rc = *list != NULL ? take_spaces(*list, r, err) : pgr_err_nomem(err);
	pgr_result_free(r);
	if (rc != PGR_OK) {
		pgr_listing_tablespaces_free(*list, *list != NULL ? *n : 0);
		*list = NULL;
		*n = 0;
	}
	return rc;
}
