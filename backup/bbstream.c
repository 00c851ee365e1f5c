#include "backup/bbstream.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/num.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "proto/copydata.h"

/* A server with more tablespaces than this does not exist; one that says so wants our memory. */
#define TABLESPACES_MAX 100000u

/* MAXPGPATH of the server (src/include/pg_config_manual.h), with its NUL. */
#define LOCATION_MAX 1024u

#define ARCHIVE_NAME_MAX 256u /* with its NUL: a file name */

#define SQLSTATE_DATA_CORRUPTED "XX001"

enum position {
	AT_COPY,    /* before a COPY: the only one from 15, the next of many before */
	AT_HEAD,    /* inside the only COPY, before its first archive */
	AT_FOUND,   /* an archive begins that was not handed out yet */
	AT_ARCHIVE, /* inside the one that was handed out */
	AT_END,	    /* there are no more */
};

struct pgr_bbstream {
	struct pgr_source source; /* first: of the archive that was handed out */
	struct pgr_client *client;
	struct pgr_copydata copy;
	bool one_copy; /* the framing from 15 on */
	bool want_manifest;

	pgr_lsn start;
	pgr_tli start_tli;
	struct pgr_bb_tablespace *list;
	size_t n, cap;
	const struct pgr_bb_tablespace **by_oid; /* all but the data directory */
	bool *seen;				 /* for each of the list */
	size_t nseen;
	bool seen_manifest;

	enum position at;
	enum pgr_archive_kind kind; /* of the archive found or open */
	const struct pgr_bb_tablespace *tablespace;
	char name[ARCHIVE_NAME_MAX];
	struct pgr_span pending; /* payload that came with a message's head and was not read yet */

	_Atomic uint64_t progress;
};

/* ---- events ---- */

/* Says what was being done; whoever stopped us does not speak of that. */
static int while_doing(const char *what, struct pgr_err *err)
{
	if (err->cls != PGR_E_STOPPED)
		pgr_err_prefix(err, "%s", what);
	return PGR_ERR;
}

/*
 * There is no deadline anywhere: a checkpoint and a throttled copy take as long as they take, and the server sends no
 * keepalives meanwhile.  TCP's find a peer that is gone, and the stop latch ends any wait.
 */
static int next_event(struct pgr_bbstream *s, struct pgr_event *ev, struct pgr_err *err)
{
	return pgr_client_expect(s->client, PGR_NO_DEADLINE, ev, err);
}

static int unexpected(struct pgr_err *err, const char *instead_of)
{
	return pgr_err_set(err, PGR_E_PROTOCOL,
			   "server returned unexpected response to BASE_BACKUP command; expected %s", instead_of);
}

static int expect(struct pgr_bbstream *s, enum pgr_event_kind kind, const char *what, struct pgr_event *ev,
		  struct pgr_err *err)
{
	if (next_event(s, ev, err) != PGR_OK)
		return PGR_ERR;
	return ev->kind == kind ? PGR_OK : unexpected(err, what);
}

/* ---- results: positions, and the list of tablespaces ---- */

static int parse_position(const struct pgr_bbstream *s, const struct pgr_row *row, pgr_lsn *lsn, pgr_tli *tli,
			  struct pgr_err *err)
{
	struct pgr_span l = pgr_row_col(row, 0), t = pgr_row_col(row, 1);

	*tli = 0;
	if (l.p == NULL || !pgr_lsn_parse((const char *)l.p, l.len, lsn) || *lsn == PGR_LSN_INVALID)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid write-ahead log location");
	if (!pgr_cap_has(pgr_client_version(s->client), PGR_CAP_TIMELINE_HISTORY))
		return PGR_OK;
	if (t.p == NULL || !pgr_num_u32((const char *)t.p, t.len, tli) || *tli == 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid timeline");
	return PGR_OK;
}

/* A result of one row. */
static int read_position(struct pgr_bbstream *s, pgr_lsn *lsn, pgr_tli *tli, struct pgr_err *err)
{
	struct pgr_event ev;

	if (expect(s, PGR_EV_ROW_DESC, "a write-ahead log location", &ev, err) != PGR_OK)
		return PGR_ERR;
	if (expect(s, PGR_EV_ROW, "a write-ahead log location", &ev, err) != PGR_OK)
		return PGR_ERR;
	if (parse_position(s, &ev.row, lsn, tli, err) != PGR_OK)
		return PGR_ERR;
	return expect(s, PGR_EV_COMPLETE, "the end of one row", &ev, err);
}

static int grow_list(struct pgr_bbstream *s, struct pgr_err *err)
{
	size_t cap = s->cap == 0 ? 16 : s->cap * 2;
	struct pgr_bb_tablespace *p;

	if (s->n < s->cap)
		return PGR_OK;
	p = realloc(s->list, cap * sizeof(*p));
	if (p == NULL)
		return pgr_err_nomem(err);
	s->list = p;
	s->cap = cap;
	return PGR_OK;
}

/* A location becomes part of messages and of paths: control characters have no business there. */
static bool location_ok(struct pgr_span s)
{
	if (s.len == 0 || s.len >= LOCATION_MAX)
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < 0x20 || s.p[i] == 0x7F)
			return false;
	return true;
}

static int parse_size(struct pgr_span s, int64_t *kb, struct pgr_err *err)
{
	*kb = -1;
	if (s.p == NULL)
		return PGR_OK;
	if (!pgr_num_i64((const char *)s.p, s.len, kb) || *kb < 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid size of a tablespace");
	return PGR_OK;
}

static int add_tablespace(struct pgr_bbstream *s, const struct pgr_row *row, struct pgr_err *err)
{
	struct pgr_span oid = pgr_row_col(row, 0), location = pgr_row_col(row, 1);
	struct pgr_bb_tablespace t = {0};

	if (s->n >= TABLESPACES_MAX)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent a list of more than %u tablespaces",
				   TABLESPACES_MAX);
	if (s->n > 0 && s->list[s->n - 1].oid == 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent a tablespace after the data directory");
	if ((oid.p == NULL) != (location.p == NULL))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an incomplete description of a tablespace");
	if (oid.p != NULL && (!pgr_num_u32((const char *)oid.p, oid.len, &t.oid) || t.oid == 0))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid tablespace identifier");
	if (location.p != NULL && !location_ok(location))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid location of tablespace %u", t.oid);
	if (parse_size(pgr_row_col(row, 2), &t.size_kb, err) != PGR_OK || grow_list(s, err) != PGR_OK)
		return PGR_ERR;
	t.location = strndup(location.p != NULL ? (const char *)location.p : "", location.len);
	if (t.location == NULL)
		return pgr_err_nomem(err);
	s->list[s->n++] = t;
	return PGR_OK;
}

static int by_oid(const void *a, const void *b)
{
	const struct pgr_bb_tablespace *x = *(const struct pgr_bb_tablespace *const *)a;
	const struct pgr_bb_tablespace *y = *(const struct pgr_bb_tablespace *const *)b;

	return x->oid < y->oid ? -1 : x->oid > y->oid;
}

/* The list is complete: the data directory must be its end, and no identifier may come twice. */
static int index_list(struct pgr_bbstream *s, struct pgr_err *err)
{
	if (s->n == 0 || s->list[s->n - 1].oid != 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent a list of tablespaces without the data directory");
	s->by_oid = calloc(s->n, sizeof(*s->by_oid));
	s->seen = calloc(s->n, sizeof(*s->seen));
	if (s->by_oid == NULL || s->seen == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i + 1 < s->n; i++)
		s->by_oid[i] = &s->list[i];
	qsort(s->by_oid, s->n - 1, sizeof(*s->by_oid), by_oid);
	for (size_t i = 1; i + 1 < s->n; i++)
		if (s->by_oid[i]->oid == s->by_oid[i - 1]->oid)
			return pgr_err_set(err, PGR_E_PROTOCOL, "server sent tablespace %u twice", s->by_oid[i]->oid);
	return PGR_OK;
}

static int read_list(struct pgr_bbstream *s, struct pgr_err *err)
{
	struct pgr_event ev;

	if (expect(s, PGR_EV_ROW_DESC, "a list of tablespaces", &ev, err) != PGR_OK)
		return PGR_ERR;
	for (;;) {
		if (next_event(s, &ev, err) != PGR_OK)
			return PGR_ERR;
		if (ev.kind == PGR_EV_COMPLETE)
			return index_list(s, err);
		if (ev.kind != PGR_EV_ROW)
			return unexpected(err, "a list of tablespaces");
		if (add_tablespace(s, &ev.row, err) != PGR_OK)
			return PGR_ERR;
	}
}

/* ---- which archive begins ---- */

static int found(struct pgr_bbstream *s, enum pgr_archive_kind kind, const struct pgr_bb_tablespace *ts)
{
	s->at = AT_FOUND;
	s->kind = kind;
	s->tablespace = ts;
	if (ts != NULL) {
		s->seen[ts - s->list] = true;
		s->nseen++;
	} else {
		s->seen_manifest = true;
	}
	return PGR_OK;
}

static int found_tablespace(struct pgr_bbstream *s, const struct pgr_bb_tablespace *ts)
{
	return found(s, ts->oid == 0 ? PGR_ARCHIVE_DATA_DIR : PGR_ARCHIVE_TABLESPACE, ts);
}

/* As the stock tool (pg_basebackup.c, "invalid archive name"), and printable. */
static bool archive_name_ok(struct pgr_span name)
{
	if (name.len == 0 || name.len >= ARCHIVE_NAME_MAX || name.p[0] == '.')
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (name.p[i] <= 0x20 || name.p[i] >= 0x7F || name.p[i] == '/' || name.p[i] == '\\')
			return false;
	return true;
}

/* The tablespace that "<oid>.tar..." names; NULL. */
static const struct pgr_bb_tablespace *find_by_name(const struct pgr_bbstream *s, const char *name)
{
	struct pgr_bb_tablespace key = {0};
	const struct pgr_bb_tablespace *pkey = &key, **hit;
	size_t digits = strspn(name, "0123456789");

	if (strncmp(name + digits, ".tar", 4) != 0 || !pgr_num_u32(name, digits, &key.oid))
		return NULL;
	hit = bsearch(&pkey, s->by_oid, s->n - 1, sizeof(*s->by_oid), by_oid);
	return hit != NULL ? *hit : NULL;
}

/* The name and the location of an archive must say the same. */
static const struct pgr_bb_tablespace *identify(const struct pgr_bbstream *s, struct pgr_span location)
{
	const struct pgr_bb_tablespace *ts;

	if (location.len == 0)
		return strncmp(s->name, "base.tar", 8) == 0 ? &s->list[s->n - 1] : NULL;
	ts = find_by_name(s, s->name);
	return ts != NULL && pgr_span_is(location, ts->location) ? ts : NULL;
}

/* 'n' */
static int new_archive(struct pgr_bbstream *s, const struct pgr_copy_head *head, struct pgr_err *err)
{
	const struct pgr_bb_tablespace *ts;

	if (!archive_name_ok(head->name))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an invalid archive name");
	memcpy(s->name, head->name.p, head->name.len);
	s->name[head->name.len] = '\0';
	ts = identify(s, head->location);
	if (ts == NULL)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent an archive \"%s\" that it did not announce",
				   s->name);
	if (s->seen[ts - s->list])
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent the archive \"%s\" twice", s->name);
	return found_tablespace(s, ts);
}

static int check_all_seen(const struct pgr_bbstream *s, struct pgr_err *err)
{
	if (s->nseen != s->n)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent only %zu of %zu archives", s->nseen, s->n);
	return PGR_OK;
}

/* 'm' */
static int new_manifest(struct pgr_bbstream *s, struct pgr_err *err)
{
	if (!s->want_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent a backup manifest that was not asked for");
	if (s->seen_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent the backup manifest twice");
	if (check_all_seen(s, err) != PGR_OK)
		return PGR_ERR;
	s->name[0] = '\0';
	return found(s, PGR_ARCHIVE_MANIFEST, NULL);
}

/* ---- one step through the copies ---- */

/* One COPY for each row of the list, in its order, then one for the manifest: nothing in them says which is which. */
static int begin_copy(struct pgr_bbstream *s, struct pgr_err *err)
{
	struct pgr_event ev;

	if (expect(s, PGR_EV_COPY_OUT, "a COPY data stream", &ev, err) != PGR_OK)
		return while_doing("could not get COPY data stream", err);
	if (s->one_copy) {
		s->at = AT_HEAD;
		return PGR_OK;
	}
	s->name[0] = '\0';
	return s->nseen < s->n ? found_tablespace(s, &s->list[s->nseen]) : found(s, PGR_ARCHIVE_MANIFEST, NULL);
}

static int end_copy(struct pgr_bbstream *s, struct pgr_err *err)
{
	if (!s->one_copy) {
		bool more = s->nseen < s->n || (s->want_manifest && !s->seen_manifest);

		s->at = more ? AT_COPY : AT_END;
		return PGR_OK;
	}
	if (check_all_seen(s, err) != PGR_OK)
		return PGR_ERR;
	if (s->want_manifest && !s->seen_manifest)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent no backup manifest");
	s->at = AT_END;
	return PGR_OK;
}

static int on_head(struct pgr_bbstream *s, const struct pgr_copy_head *head, struct pgr_span payload,
		   struct pgr_err *err)
{
	switch (head->kind) {
	case PGR_CK_ARCHIVE:
		return new_archive(s, head, err);
	case PGR_CK_MANIFEST:
		return new_manifest(s, err);
	case PGR_CK_PROGRESS:
		atomic_store(&s->progress, (uint64_t)head->progress_bytes);
		return PGR_OK;
	case PGR_CK_DATA:
		if (s->at != AT_ARCHIVE)
			return pgr_err_set(err, PGR_E_PROTOCOL, "server sent data that belongs to no archive");
		s->pending = payload;
		return PGR_OK;
	default: /* not in these dialects */
		return unexpected(err, "archive data");
	}
}

/*
 * Takes the next message of the COPY: afterwards an archive was found, or ended, or payload is there, partly in
 * s->pending and partly still to be received.
 */
static int advance(struct pgr_bbstream *s, struct pgr_err *err)
{
	struct pgr_copy_head head;
	struct pgr_span payload;
	struct pgr_event ev;
	bool has_head;
	int rc;

	do {
		if (next_event(s, &ev, err) != PGR_OK)
			return while_doing("could not read COPY data", err);
		if (ev.kind == PGR_EV_COPY_DONE)
			return end_copy(s, err);
		if (ev.kind != PGR_EV_COPY_DATA)
			return unexpected(err, "COPY data");
		rc = pgr_copydata_feed(&s->copy, &ev.part, &head, &has_head, &payload, err);
	} while (rc == PGR_MORE);
	if (rc != PGR_OK)
		return while_doing("could not read COPY data", err);
	if (has_head)
		return on_head(s, &head, payload, err);
	s->pending = payload;
	return PGR_OK;
}

/* ---- the archive's bytes ---- */

/* Payload bytes of the present message that nobody has read. */
static bool has_payload(const struct pgr_bbstream *s)
{
	return s->pending.len > 0 || pgr_client_copy_left(s->client) > 0;
}

/* Some of them: what came with the head from where it lies, the rest from the socket straight to the caller. */
static int take_payload(struct pgr_bbstream *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	int rc;

	if (s->pending.len > 0) {
		*n = cap < s->pending.len ? cap : s->pending.len;
		memcpy(dst, s->pending.p, *n);
		s->pending.p += *n;
		s->pending.len -= *n;
		return PGR_OK;
	}
	rc = pgr_client_copy_take(s->client, dst, cap, PGR_NO_DEADLINE, n, err);
	if (rc == PGR_MORE) /* there is no deadline, and nobody wakes this client */
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "woken while receiving data");
	return rc == PGR_OK ? PGR_OK : while_doing("could not read COPY data", err);
}

static int read_archive(struct pgr_source *source, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pgr_bbstream *s = (struct pgr_bbstream *)source;

	*n = 0;
	while (s->at == AT_ARCHIVE && *n == 0) {
		int rc = has_payload(s) ? take_payload(s, dst, cap, n, err) : advance(s, err);

		if (rc != PGR_OK)
			return PGR_ERR;
	}
	if (!s->one_copy && s->kind != PGR_ARCHIVE_MANIFEST)
		atomic_fetch_add(&s->progress, *n);
	return PGR_OK;
}

/* An archive whose reader stopped before its end: what it did not want must not become the next one's. */
static int leave_archive(struct pgr_bbstream *s, struct pgr_err *err)
{
	while (s->at == AT_ARCHIVE) {
		if (has_payload(s))
			return pgr_err_set(err, PGR_E_DATA, "server sent data after the end of archive \"%s\"",
					   s->name);
		if (advance(s, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* ---- the stream ---- */

static int send_command(struct pgr_client *client, const struct pgr_base_backup_cmd *cmd, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	int rc = pgr_cmd_base_backup(&text, pgr_client_version(client), cmd, err);

	if (rc == PGR_OK && pgr_client_send(client, &text, err) != PGR_OK)
		rc = while_doing("could not send replication command \"BASE_BACKUP\"", err);
	pgr_buf_fini(&text);
	return rc;
}

static int start(struct pgr_bbstream *s, const struct pgr_base_backup_cmd *cmd, struct pgr_err *err)
{
	if (send_command(s->client, cmd, err) != PGR_OK)
		return PGR_ERR;
	if (read_position(s, &s->start, &s->start_tli, err) != PGR_OK)
		return while_doing("could not initiate base backup", err);
	if (read_list(s, err) != PGR_OK)
		return while_doing("could not get backup header", err);
	return PGR_OK;
}

int pgr_bbstream_start(struct pgr_bbstream **out, struct pgr_client *client, const struct pgr_base_backup_cmd *cmd,
		       struct pgr_err *err)
{
	struct pgr_bbstream *s = calloc(1, sizeof(*s));

	*out = NULL;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->source.read = read_archive;
	s->client = client;
	s->one_copy = pgr_cap_has(pgr_client_version(client), PGR_CAP_PAREN_OPTIONS);
	s->want_manifest = cmd->manifest;
	pgr_copydata_init(&s->copy, s->one_copy ? PGR_COPY_ARCHIVE : PGR_COPY_RAW);
	if (start(s, cmd, err) != PGR_OK) {
		pgr_bbstream_free(s);
		return PGR_ERR;
	}
	*out = s;
	return PGR_OK;
}

void pgr_bbstream_free(struct pgr_bbstream *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++)
		free(s->list[i].location);
	free(s->list);
	free(s->by_oid);
	free(s->seen);
	pgr_copydata_fini(&s->copy);
	free(s);
}

pgr_lsn pgr_bbstream_start_lsn(const struct pgr_bbstream *s)
{
	return s->start;
}

pgr_tli pgr_bbstream_start_tli(const struct pgr_bbstream *s)
{
	return s->start_tli;
}

size_t pgr_bbstream_tablespaces(const struct pgr_bbstream *s, const struct pgr_bb_tablespace **list)
{
	*list = s->list;
	return s->n;
}

uint64_t pgr_bbstream_progress_bytes(const struct pgr_bbstream *s)
{
	return atomic_load(&s->progress);
}

int pgr_bbstream_next(struct pgr_bbstream *s, struct pgr_archive *a, struct pgr_err *err)
{
	if (leave_archive(s, err) != PGR_OK)
		return PGR_ERR;
	while (s->at == AT_COPY || s->at == AT_HEAD) {
		int rc = s->at == AT_COPY ? begin_copy(s, err) : advance(s, err);

		if (rc != PGR_OK)
			return PGR_ERR;
	}
	if (s->at == AT_END)
		return PGR_MORE;
	s->at = AT_ARCHIVE;
	*a = (struct pgr_archive){
		.kind = s->kind,
		.tablespace = s->tablespace,
		.name = s->name,
		.terminated = s->one_copy && s->kind != PGR_ARCHIVE_MANIFEST,
		.source = &s->source,
	};
	return PGR_OK;
}

/* ---- the end ---- */

/* After the end position: the command's own end, or the count of what the server found wrong. */
static int read_verdict(struct pgr_bbstream *s, struct pgr_err *err)
{
	struct pgr_event ev;

	if (expect(s, PGR_EV_COMPLETE, "the end of the backup", &ev, err) != PGR_OK)
		return PGR_ERR;
	return expect(s, PGR_EV_READY, "the end of the backup", &ev, err);
}

static int checksum_error(struct pgr_err *err)
{
	struct pgr_err server = *err;

	pgr_err_set(err, PGR_E_CHECKSUM, "checksum error occurred");
	return pgr_err_detail(err, "%s", server.msg);
}

int pgr_bbstream_finish(struct pgr_bbstream *s, pgr_lsn *end, pgr_tli *end_tli, struct pgr_err *err)
{
	*end = PGR_LSN_INVALID;
	*end_tli = 0;
	if (s->at != AT_END)
		return pgr_err_set(err, PGR_E_USAGE, "the end of a base backup was asked for before all its archives");
	if (read_position(s, end, end_tli, err) != PGR_OK)
		return while_doing("could not get write-ahead log end position from server", err);
	if (read_verdict(s, err) == PGR_OK)
		return PGR_OK;
	if (err->cls == PGR_E_SERVER && strcmp(err->sqlstate, SQLSTATE_DATA_CORRUPTED) == 0)
		return checksum_error(err);
	return while_doing("final receive failed", err);
}
