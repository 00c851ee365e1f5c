/* Where a directory of WAL and a server stand to each other. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "proto/caps.h"
#include "receiver/history.h"
#include "receiver/receiver.h"
#include "receiver/scan.h"
#include "receiver/walfile.h"
#include "tools/receive.h"
#include "tools/receivewal_options.h"

void pgr_receive_say(void *arg, int level, const char *line)
{
	struct pgr_receive *r = arg;

	if (level > 0)
		pgr_say_warning(&r->msg, "%s", line);
	else
		pgr_say_verbose(&r->msg, "%s", line);
}

static void on_scan_warning(void *arg, const char *line)
{
	pgr_receive_say(arg, 1, line);
}

static void tell_gap(struct pgr_receive *r, const struct pgr_walscan_gap *gap)
{
	char first[PGR_WALNAME_LEN + 1], last[PGR_WALNAME_LEN + 1];

	pgr_walname_format(first, gap->tli, gap->first, r->segment_bytes);
	pgr_walname_format(last, gap->tli, gap->last, r->segment_bytes);
	if (gap->first == gap->last)
		pgr_say_warning(&r->msg, "WAL segment %s is missing in \"%s\"", first, r->opt->dir);
	else
		pgr_say_warning(&r->msg, "WAL segments %s to %s are missing in \"%s\"", first, last, r->opt->dir);
}

static void tell_gaps(struct pgr_receive *r, const struct pgr_walscan *scan)
{
	size_t n = scan->ngaps < PGR_WALSCAN_MAX_GAPS ? scan->ngaps : PGR_WALSCAN_MAX_GAPS;

	for (size_t i = 0; i < n; i++)
		tell_gap(r, &scan->gaps[i]);
	if (scan->ngaps > n)
		pgr_say_warning(&r->msg, "%zu more gaps in the WAL segments in \"%s\"", scan->ngaps - n, r->opt->dir);
}

/* What the first page of a segment begins with: XLogLongPageHeaderData, src/include/access/xlog_internal.h. */
struct long_page_header {
	uint16_t magic;
	uint16_t info;
	uint32_t tli;
	uint64_t pageaddr;
	uint32_t rem_len;
	uint32_t padding;
	uint64_t sysid;
};
#define XLP_LONG_HEADER 0x0002

/* False: the file cannot be read, nothing was received into it, or it is of a machine with another byte order. */
static bool read_system_id(const struct pgr_receive *r, int dirfd, const char *name, enum pgr_compression method,
			   pgr_lsn start, uint64_t *sysid)
{
	struct long_page_header h;
	struct pgr_walfile f;
	struct pgr_err ignored;
	size_t n;
	bool read;

	if (pgr_walfile_open(&f, r->sys, dirfd, name, method, &ignored) != PGR_OK)
		return false;
	read = pgr_walfile_read(&f, &h, sizeof(h), &n, &ignored) == PGR_OK;
	pgr_walfile_close(&f);
	if (!read || h.pageaddr != start || (h.info & XLP_LONG_HEADER) == 0)
		return false;
	*sysid = h.sysid;
	return true;
}

#define OWNER_NAME_ROOM (PGR_WALNAME_LEN + sizeof(".partial"))

/* The newest segment, in whichever form it is there. */
static bool find_system_id(const struct pgr_receive *r, int dirfd, const struct pgr_walscan *scan,
			   char name[OWNER_NAME_ROOM], uint64_t *sysid)
{
	static const struct {
		const char *suffix;
		enum pgr_compression method;
		bool before; /* a complete one: the stream goes on behind it */
	} forms[] = {
		{".partial", PGR_COMP_NONE, false}, {"", PGR_COMP_NONE, true},	   {".gz", PGR_COMP_GZIP, true},
		{".lz4", PGR_COMP_LZ4, true},	    {".zst", PGR_COMP_ZSTD, true},
	};
	pgr_segno seg = pgr_lsn_segno(scan->start, r->segment_bytes);

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		pgr_segno at = seg - forms[i].before;

		if (forms[i].before && seg == 0)
			break;
		pgr_walname_format(name, scan->tli, at, r->segment_bytes);
		strcat(name, forms[i].suffix);
		if (read_system_id(r, dirfd, name, forms[i].method, pgr_segno_start(at, r->segment_bytes), sysid))
			return true;
	}
	return false;
}

/*
 * WAL of one cluster behind WAL of another would make an archive that looks whole and is of no use.  The newest segment
 * says whose it is.
 */
static int check_owner(struct pgr_receive *r, int dirfd, const struct pgr_walscan *scan, struct pgr_err *err)
{
	char name[OWNER_NAME_ROOM];
	uint64_t sysid;
	char text[24];

	if (!find_system_id(r, dirfd, scan, name, &sysid))
		return PGR_OK;
	snprintf(text, sizeof(text), "%" PRIu64, sysid);
	if (strcmp(text, r->id.system_identifier) == 0)
		return PGR_OK;
	r->trouble = PGR_FOREIGN;
	pgr_err_set(err, PGR_E_USAGE,
		    "WAL segment \"%s\" in \"%s\" is of the system %s, the server's system identifier is %s", name,
		    r->opt->dir, text, r->id.system_identifier);
	return pgr_err_hint(err, "Receive the WAL of another cluster into a directory of its own.");
}

/* The timeline that holds a position of the server's history: streaming begins there and follows the promotions. */
static int find_timeline(struct pgr_receive *r, pgr_lsn start, pgr_tli *tli, struct pgr_err *err)
{
	struct pgr_history h;
	char *content;
	size_t len;
	int rc;

	*tli = r->id.tli;
	if (r->id.tli == 1)
		return PGR_OK;
	if (pgr_client_timeline_history(r->client, r->id.tli, &content, &len, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_history_parse(&h, r->id.tli, content, len, err);
	free(content);
	if (rc != PGR_OK)
		return PGR_ERR;
	for (size_t i = 0; i < h.n; i++) {
		*tli = h.entries[i].tli;
		if (h.entries[i].end == PGR_LSN_INVALID || h.entries[i].end > start)
			break;
	}
	pgr_history_fini(&h);
	return PGR_OK;
}

/* What the directory says, else --startpos, else the slot, else the server's present position. */
int pgr_receive_find_start(struct pgr_receive *r, int dirfd, pgr_lsn *start, pgr_tli *tli, struct pgr_err *err)
{
	struct pgr_walscan scan;

	if (pgr_walscan(r->sys, dirfd, r->opt->dir, r->segment_bytes, on_scan_warning, r, &scan, err) != PGR_OK)
		return PGR_ERR;
	tell_gaps(r, &scan);
	r->foreign_partials = scan.foreign_partials;
	if (scan.found) {
		*start = scan.start;
		*tli = scan.tli;
		return check_owner(r, dirfd, &scan, err);
	}
	if (r->opt->startpos != PGR_LSN_INVALID) {
		*start = pgr_lsn_segstart(r->opt->startpos, r->segment_bytes);
		return find_timeline(r, *start, tli, err);
	}
	*start = PGR_LSN_INVALID;
	if (r->opt->slot != NULL && pgr_cap_has(pgr_client_version(r->client), PGR_CAP_READ_SLOT) &&
	    pgr_client_read_slot(r->client, r->opt->slot, start, tli, err) != PGR_OK)
		return PGR_ERR;
	if (*start == PGR_LSN_INVALID) {
		*start = r->id.flush;
		*tli = r->id.tli;
	}
	*start = pgr_lsn_segstart(*start, r->segment_bytes);
	return PGR_OK;
}

/* ---- on which timeline to go on ---- */

static int not_behind(struct pgr_receive *r, struct pgr_err *err)
{
	r->trouble = PGR_NOT_BEHIND;
	return pgr_err_hint(err, "Perhaps a standby was promoted that had received less than this directory; see the "
				 "man page on how to go on.");
}

/* Where the server's history left a timeline before its own; PGR_LSN_INVALID: it is not in it. */
static int ask_branch(struct pgr_receive *r, pgr_tli tli, pgr_lsn *end, struct pgr_err *err)
{
	struct pgr_history h;
	char *content;
	size_t len;
	int rc;

	if (pgr_client_timeline_history(r->client, r->id.tli, &content, &len, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_history_parse(&h, r->id.tli, content, len, err);
	free(content);
	if (rc != PGR_OK)
		return PGR_ERR;
	if (!pgr_history_find(&h, tli, end))
		*end = PGR_LSN_INVALID;
	pgr_history_fini(&h);
	return PGR_OK;
}

/* The server was promoted since: did it leave our timeline where we are, or later? */
static int check_branch(struct pgr_receive *r, pgr_tli tli, pgr_lsn start, struct pgr_err *err)
{
	pgr_lsn end;

	if (ask_branch(r, tli, &end, err) != PGR_OK)
		return PGR_ERR;
	if (end != PGR_LSN_INVALID && start <= end)
		return PGR_OK;
	if (end == PGR_LSN_INVALID)
		pgr_err_set(err, PGR_E_CONNECT,
			    "timeline %u of \"%s\" is not in the history of the server's timeline %u", tli, r->opt->dir,
			    r->id.tli);
	else
		pgr_err_set(err, PGR_E_CONNECT,
			    "\"%s\" holds WAL of timeline %u up to %" PGR_LSN_FMT
			    ", but the server left that timeline at %" PGR_LSN_FMT,
			    r->opt->dir, tli, PGR_LSN_ARG(start), PGR_LSN_ARG(end));
	return not_behind(r, err);
}

int pgr_receive_check_timeline(struct pgr_receive *r, struct pgr_err *err)
{
	pgr_tli tli = pgr_receiver_tli(r->receiver);
	pgr_lsn start = pgr_lsn_segstart(pgr_receiver_received(r->receiver), r->segment_bytes);

	if (tli < r->id.tli)
		return check_branch(r, tli, start, err);
	if (tli > r->id.tli)
		pgr_err_set(err, PGR_E_CONNECT, "starting timeline %u is not present in the server", tli);
	else if (start > r->id.flush)
		pgr_err_set(err, PGR_E_CONNECT,
			    "\"%s\" holds WAL up to %" PGR_LSN_FMT ", but the server's ends at %" PGR_LSN_FMT,
			    r->opt->dir, PGR_LSN_ARG(start), PGR_LSN_ARG(r->id.flush));
	else
		return PGR_OK;
	return not_behind(r, err);
}
