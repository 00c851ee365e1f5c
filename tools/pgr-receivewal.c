/*
 * pgr-receivewal: streams a server's WAL into a directory of segment files, and keeps at it.
 *
 * Options, texts and exit codes are pg_receivewal's (PostgreSQL documentation, "pg_receivewal"; facts about it come
 * from src/bin/pg_basebackup/pg_receivewal.c).  On purpose different: gaps in the directory are told, the waits between
 * attempts grow and can be interrupted, and errors that waiting cannot mend end the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/fs.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "proto/transport.h"
#include "receiver/history.h"
#include "receiver/receiver.h"
#include "receiver/scan.h"
#include "receiver/walfile.h"
#include "receiver/walpack.h"
#include "receiver/walstore.h"
#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/receivewal_options.h"
#include "tools/signals.h"
#include "tools/syncnames.h"
#include "tools/version.h"
#include "tools/walverify.h"

#define PACK_PATIENCE_MS  10000 /* a clean stop waits so long for segments to be compressed */
#define PACK_RETRY_MS	  10000
#define BACKOFF_FIRST_MS  1000
#define BACKOFF_MAX_MS	  30000
#define BACKOFF_STABLE_MS 10000 /* a stream that lived so long was a good one: the next waits begin small again */

/* Exit codes beside 0 and 1: see the man page. */
enum trouble {
	NO_TROUBLE = 0,
	WAL_GONE = 3,	/* the server does not have the WAL that comes next, or the slot lost it */
	FOREIGN = 4,	/* the directory holds WAL of another cluster */
	NOT_BEHIND = 5, /* the directory holds WAL that is not in the server's history */
};

struct receive {
	struct pgr_messages msg;
	struct pgr_receivewal_options *opt;
	const struct pgr_sys *sys;
	struct pgr_stop *stop; /* interrupts connecting and waiting, not a stream */
	struct pgr_signals *signals;
	struct pgr_client *client; /* NULL: not connected */
	struct pgr_system_id id;   /* of the first connection; all later ones must be to the same system */
	struct pgr_walstore *store;
	struct pgr_receiver *receiver; /* keeps the position from one connection to the next */
	enum trouble trouble;	       /* what the last failure was about */
	enum trouble lasting;	       /* the same all the time ... */
	int64_t lasting_since_ms;      /* ... since then */
	bool foreign_partials;	       /* the directory has some (scan.h) */
	uint32_t segment_bytes;
	mode_t file_mode;

	/* shared with the thread of the signals */
	pthread_mutex_t lock;
	bool stopping;
	bool streaming;		  /* a stop goes to the receiver, which ends the stream in good order */
	struct pgr_walpack *pack; /* NULL: nothing is compressed */
};

/* ---- signals ---- */

static void on_signal(void *arg, int signo)
{
	struct receive *r = arg;
	struct pgr_err why;

	pgr_err_set(&why, PGR_E_STOPPED, "received signal %d", signo);
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	if (r->streaming)
		pgr_receiver_stop_now(r->receiver);
	else
		pgr_stop_post(r->stop, &why);
	pgr_walpack_hurry(r->pack, PACK_PATIENCE_MS);
	pthread_mutex_unlock(&r->lock);
}

static bool is_stopping(struct receive *r)
{
	bool stopping;

	pthread_mutex_lock(&r->lock);
	stopping = r->stopping;
	pthread_mutex_unlock(&r->lock);
	return stopping;
}

/* From here on (or no longer) a signal stops the stream.  False: one has come already. */
static bool set_streaming(struct receive *r, bool streaming)
{
	bool go;

	pthread_mutex_lock(&r->lock);
	go = !r->stopping;
	r->streaming = streaming && go;
	pthread_mutex_unlock(&r->lock);
	return go;
}

/* ---- the connection ---- */

static void on_notice(void *arg, const char *text)
{
	struct receive *r = arg;

	pgr_say_notice(&r->msg, text);
}

static int connect_client(struct receive *r, struct pgr_system_id *id, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (pgr_transport_open(&t, r->sys, r->stop, &r->opt->conn, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_new(&r->client, t, r->sys, on_notice, r, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_identify(r->client, id, err);
}

static void disconnect(struct receive *r)
{
	pgr_client_free(r->client);
	r->client = NULL;
}

static int first_connection(struct receive *r, struct pgr_err *err)
{
	bool group_access;

	if (connect_client(r, &r->id, err) != PGR_OK)
		return PGR_ERR;
	if (r->id.dbname[0] != '\0')
		return pgr_err_set(err, PGR_E_USAGE,
				   "replication connection using slot \"%s\" is unexpectedly database specific",
				   r->opt->slot != NULL ? r->opt->slot : "");
	if (pgr_client_group_access(r->client, &group_access, err) != PGR_OK)
		return PGR_ERR;
	r->file_mode = group_access ? 0640 : 0600;
	umask(group_access ? 0027 : 0077);
	return PGR_OK;
}

/* As CheckServerVersionForStreaming in receivelog.c. */
static int check_version(int server_version, struct pgr_err *err)
{
	char text[16];

	pgr_version_format(text, server_version);
	if (!pgr_cap_has(server_version, PGR_CAP_TIMELINE_HISTORY))
		return pgr_err_set(err, PGR_E_USAGE,
				   "incompatible server version %s; client does not support streaming from server "
				   "versions older than %s",
				   text, pgr_cap_since(PGR_CAP_TIMELINE_HISTORY));
	if (server_version / 10000 > PGR_SERVER_MAX_MAJOR)
		return pgr_err_set(err, PGR_E_USAGE,
				   "incompatible server version %s; client does not support streaming from server "
				   "versions newer than %s",
				   text, PGR_COMPAT_VERSION);
	return PGR_OK;
}

/* The same host name may lead to another server by now: a copy of its own, or one that was set up anew. */
static int reconnect(struct receive *r, struct pgr_err *err)
{
	struct pgr_system_id id;
	uint32_t segment_bytes;

	if (connect_client(r, &id, err) != PGR_OK)
		return PGR_ERR;
	if (strcmp(id.system_identifier, r->id.system_identifier) != 0) {
		r->trouble = FOREIGN;
		pgr_err_set(err, PGR_E_USAGE,
			    "the server's system identifier is %s now, the WAL received so far is of system %s",
			    id.system_identifier, r->id.system_identifier);
		return pgr_err_hint(err, "Receive the WAL of another cluster into a directory of its own.");
	}
	if (check_version(pgr_client_version(r->client), err) != PGR_OK ||
	    pgr_client_wal_segment_size(r->client, &segment_bytes, err) != PGR_OK)
		return PGR_ERR;
	if (segment_bytes != r->segment_bytes)
		return pgr_err_set(err, PGR_E_USAGE, "the server's WAL segment size changed from %u to %u bytes",
				   r->segment_bytes, segment_bytes);
	r->id = id;
	return PGR_OK;
}

/* ---- where to start ---- */

static void on_line(void *arg, int level, const char *line)
{
	struct receive *r = arg;

	if (level > 0)
		pgr_say_warning(&r->msg, "%s", line);
	else
		pgr_say_verbose(&r->msg, "%s", line);
}

static void on_scan_warning(void *arg, const char *line)
{
	on_line(arg, 1, line);
}

static void tell_gap(struct receive *r, const struct pgr_walscan_gap *gap)
{
	char first[PGR_WALNAME_LEN + 1], last[PGR_WALNAME_LEN + 1];

	pgr_walname_format(first, gap->tli, gap->first, r->segment_bytes);
	pgr_walname_format(last, gap->tli, gap->last, r->segment_bytes);
	if (gap->first == gap->last)
		pgr_say_warning(&r->msg, "WAL segment %s is missing in \"%s\"", first, r->opt->dir);
	else
		pgr_say_warning(&r->msg, "WAL segments %s to %s are missing in \"%s\"", first, last, r->opt->dir);
}

static void tell_gaps(struct receive *r, const struct pgr_walscan *scan)
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
static bool read_system_id(const struct receive *r, int dirfd, const char *name, enum pgr_compression method,
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
static bool find_system_id(const struct receive *r, int dirfd, const struct pgr_walscan *scan,
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
static int check_owner(struct receive *r, int dirfd, const struct pgr_walscan *scan, struct pgr_err *err)
{
	char name[OWNER_NAME_ROOM];
	uint64_t sysid;
	char text[24];

	if (!find_system_id(r, dirfd, scan, name, &sysid))
		return PGR_OK;
	snprintf(text, sizeof(text), "%" PRIu64, sysid);
	if (strcmp(text, r->id.system_identifier) == 0)
		return PGR_OK;
	r->trouble = FOREIGN;
	pgr_err_set(err, PGR_E_USAGE,
		    "WAL segment \"%s\" in \"%s\" is of the system %s, the server's system identifier is %s", name,
		    r->opt->dir, text, r->id.system_identifier);
	return pgr_err_hint(err, "Receive the WAL of another cluster into a directory of its own.");
}

/* The timeline that holds a position of the server's history: streaming begins there and follows the promotions. */
static int find_timeline(struct receive *r, pgr_lsn start, pgr_tli *tli, struct pgr_err *err)
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
static int find_start(struct receive *r, int dirfd, pgr_lsn *start, pgr_tli *tli, struct pgr_err *err)
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

static int make_receiver(struct receive *r, pgr_lsn start, pgr_tli tli, struct pgr_err *err)
{
	const struct pgr_receivewal_options *o = r->opt;
	struct pgr_receiver_opts opts = {
		.slot = o->slot,
		.system_id = r->id.system_identifier,
		.start = start,
		.tli = tli,
		.segment_bytes = r->segment_bytes,
		.status_interval_ms = (int64_t)o->status_interval_s * 1000,
		.synchronous = o->synchronous,
		/* without a slot or --synchronous a standby that nobody counts on must not count as one */
		.report_flush = o->slot != NULL || o->synchronous,
		.stop_at = o->endpos,
		.stop_at_strict = true,
		.wait_for_space = true,
		.log = on_line,
		.log_arg = r,
	};

	return pgr_receiver_new(&r->receiver, r->sys, r->store, &opts, err);
}

/* Called in the packer's thread: messages are whole lines under a lock. */
static void on_pack_line(void *arg, int level, const char *line)
{
	struct receive *r = arg;

	if (level == 2)
		pgr_say_info(&r->msg, "%s", line);
	else
		on_line(r, level, line);
}

static void on_finished_segment(void *arg, const char *name)
{
	struct receive *r = arg;

	pgr_walpack_finished(r->pack, name);
}

static int start_packer(struct receive *r, pgr_lsn start, struct pgr_err *err)
{
	struct pgr_walpack_opts opts = {
		.dir = r->opt->dir,
		.segment_bytes = r->segment_bytes,
		.file_mode = r->file_mode,
		.sync = r->opt->sync,
		.spec = r->opt->compress,
		.foreign_partials = r->foreign_partials,
		.below = pgr_lsn_segno(start, r->segment_bytes),
		.retry_ms = PACK_RETRY_MS,
		.log = on_pack_line,
		.log_arg = r,
	};
	struct pgr_walpack *pack;
	int dirfd;

	if (pgr_fs_open_dir(r->sys, r->opt->dir, &dirfd, err) != PGR_OK ||
	    pgr_walpack_start(&pack, r->sys, dirfd, &opts, err) != PGR_OK)
		return PGR_ERR;
	pthread_mutex_lock(&r->lock);
	r->pack = pack;
	pthread_mutex_unlock(&r->lock);
	return PGR_OK;
}

/* After --endpos everything is compressed, however long that takes; a stop for other reasons has less patience. */
static void end_packer(struct receive *r, int code)
{
	if (code != 0 || is_stopping(r))
		pgr_walpack_hurry(r->pack, PACK_PATIENCE_MS);
	pgr_walpack_end(r->pack);
}

/* Once: later connections go on where the receiver stands. */
static int prepare_receiver(struct receive *r, struct pgr_err *err)
{
	struct pgr_walstore_opts opts = {
		.dir = r->opt->dir,
		.segment_bytes = r->segment_bytes,
		.file_mode = r->file_mode,
		.sync = r->opt->sync,
		.partial_suffix = true,
		.finished = on_finished_segment,
		.finished_arg = r,
	};
	pgr_lsn start = PGR_LSN_INVALID;
	pgr_tli tli = 0;
	int dirfd;

	if (r->receiver != NULL)
		return PGR_OK;
	if (pgr_fs_open_dir(r->sys, r->opt->dir, &dirfd, err) != PGR_OK)
		return PGR_ERR;
	if (find_start(r, dirfd, &start, &tli, err) != PGR_OK) {
		r->sys->close(r->sys, dirfd);
		return PGR_ERR;
	}
	if (pgr_walstore_new(&r->store, r->sys, dirfd, &opts, err) != PGR_OK)
		return PGR_ERR;
	if (start_packer(r, start, err) != PGR_OK || make_receiver(r, start, tli, err) != PGR_OK) {
		pgr_walstore_free(r->store);
		r->store = NULL;
		return PGR_ERR;
	}
	return PGR_OK;
}

/* ---- streaming, again and again ---- */

static int not_behind(struct receive *r, struct pgr_err *err)
{
	r->trouble = NOT_BEHIND;
	return pgr_err_hint(err, "Perhaps a standby was promoted that had received less than this directory; see the "
				 "man page on how to go on.");
}

/* Where the server's history left a timeline before its own; PGR_LSN_INVALID: it is not in it. */
static int ask_branch(struct receive *r, pgr_tli tli, pgr_lsn *end, struct pgr_err *err)
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
static int check_branch(struct receive *r, pgr_tli tli, pgr_lsn start, struct pgr_err *err)
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

/*
 * After a promotion the name may lead to a server that has not followed yet, or that cannot: one that cannot be used
 * now, but perhaps later.
 */
static int check_timeline(struct receive *r, struct pgr_err *err)
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

static int stream_once(struct receive *r, enum pgr_receiver_end *how, int64_t *lived_ms, struct pgr_err *err)
{
	int64_t began;
	int rc;

	*lived_ms = 0;
	r->trouble = NO_TROUBLE;
	if (r->client == NULL && reconnect(r, err) != PGR_OK)
		return PGR_ERR;
	if (prepare_receiver(r, err) != PGR_OK || check_timeline(r, err) != PGR_OK ||
	    pgr_syncnames_warn(r->client, &r->msg, r->opt->synchronous, r->opt->slot != NULL, err) != PGR_OK)
		return PGR_ERR;
	if (!set_streaming(r, true))
		return pgr_err_set(err, PGR_E_STOPPED, "stopped");
	began = r->sys->mono_ms(r->sys);
	rc = pgr_receiver_run(r->receiver, r->client, how, err);
	*lived_ms = r->sys->mono_ms(r->sys) - began;
	set_streaming(r, false);
	return rc;
}

/* Whether a later attempt may succeed.  A full disk may, as long as nothing was lost by it. */
static bool may_mend(const struct receive *r, const struct pgr_err *err)
{
	if (err->cls == PGR_E_SYSTEM)
		return (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT) && r->store != NULL &&
		       !pgr_walstore_is_failed(r->store);
	return err->cls == PGR_E_CONNECT || err->cls == PGR_E_NETWORK || err->cls == PGR_E_SERVER;
}

/* undefined_file; object_not_in_prerequisite_state: a slot that was invalidated, since it held too much WAL back. */
static bool is_wal_gone(const struct pgr_err *err)
{
	return err->cls == PGR_E_SERVER && (strcmp(err->sqlstate, "58P01") == 0 || strcmp(err->sqlstate, "55000") == 0);
}

static void tell_failure(struct receive *r, struct pgr_err *err)
{
	if (err->cls == PGR_E_STOPPED)
		return;
	if (is_wal_gone(err)) {
		r->trouble = WAL_GONE;
		if (err->hint[0] == '\0')
			pgr_err_hint(err, "The server no longer has this WAL.  Unless it comes back there, a new base "
					  "backup and an empty directory are needed; with --slot a server keeps what "
					  "was not received yet.");
	}
	pgr_say_error(&r->msg, err);
}

/* Trouble that only another server, or time, could mend, has lasted too long. */
static bool must_give_up(struct receive *r)
{
	int64_t now = r->sys->mono_ms(r->sys);

	if (r->trouble == NO_TROUBLE || r->trouble != r->lasting)
		r->lasting_since_ms = now;
	r->lasting = r->trouble;
	return r->trouble != NO_TROUBLE && now - r->lasting_since_ms >= (int64_t)r->opt->give_up_s * 1000;
}

/* By the name of PostgreSQL's program there are no other codes than its own. */
static int exit_code(const struct receive *r)
{
	return r->trouble == NO_TROUBLE || strcmp(r->msg.progname, "pg_receivewal") == 0 ? 1 : (int)r->trouble;
}

/* 1 s, 2 s, 4 s ... 30 s, each a quarter more or less, so that many receivers do not come back in step. */
static int backoff_ms(unsigned failures)
{
	int base = BACKOFF_MAX_MS;
	uint16_t dice = 0;

	if (failures < 5)
		base = BACKOFF_FIRST_MS << failures;
	if (getrandom(&dice, sizeof(dice), GRND_NONBLOCK) != (ssize_t)sizeof(dice))
		dice = UINT16_MAX / 2;
	return base - base / 4 + (int)((int64_t)base * dice / (2 * UINT16_MAX));
}

/* Ends early when the stop latch is set. */
static void wait_ms(struct receive *r, int ms)
{
	int64_t until = r->sys->mono_ms(r->sys) + ms;
	struct pollfd fd = {.fd = pgr_stop_fd(r->stop), .events = POLLIN};

	for (int64_t left = ms; left > 0 && !pgr_stop_is_set(r->stop); left = until - r->sys->mono_ms(r->sys))
		if (r->sys->poll(r->sys, &fd, 1, (int)left) < 0 && errno != EINTR)
			return;
}

/* Whether to go on after an attempt that ended without having been asked to. */
static bool try_again(struct receive *r, int64_t lived_ms, unsigned *failures)
{
	int ms;

	if (r->opt->no_loop) {
		pgr_say_errorf(&r->msg, "disconnected");
		return false;
	}
	if (lived_ms >= BACKOFF_STABLE_MS)
		*failures = 0;
	ms = backoff_ms(*failures);
	*failures += *failures < 5;
	pgr_say_info(&r->msg, "disconnected; waiting %d seconds to try again", ms < 1500 ? 1 : (ms + 500) / 1000);
	wait_ms(r, ms);
	return true;
}

static int receive_wal(struct receive *r)
{
	enum pgr_receiver_end how;
	struct pgr_err err;
	int64_t lived_ms;
	unsigned failures = 0;

	for (;;) {
		int rc = stream_once(r, &how, &lived_ms, &err);

		disconnect(r);
		if (rc != PGR_OK)
			tell_failure(r, &err);
		if (rc != PGR_OK && err.cls != PGR_E_STOPPED && (!may_mend(r, &err) || must_give_up(r)))
			return exit_code(r);
		if (rc == PGR_OK && how == PGR_RECV_STOPPED && !is_stopping(r))
			return 0; /* --endpos */
		if (is_stopping(r) || !try_again(r, lived_ms, &failures))
			break;
	}
	if (!is_stopping(r))
		return exit_code(r);
	pgr_say_verbose(&r->msg, "received interrupt signal, exiting");
	return 0;
}

/* ---- the program ---- */

static int create_or_drop_slot(struct receive *r, struct pgr_err *err)
{
	const struct pgr_receivewal_options *o = r->opt;

	if (o->drop_slot) {
		pgr_say_verbose(&r->msg, "dropping replication slot \"%s\"", o->slot);
		return pgr_client_drop_slot(r->client, o->slot, err);
	}
	pgr_say_verbose(&r->msg, "creating replication slot \"%s\"", o->slot);
	return pgr_client_create_slot(r->client, o->slot, false, false, o->if_not_exists, err);
}

/* Everything that must succeed once; later failures are retried. */
static int begin(struct receive *r, struct pgr_err *err)
{
	if (first_connection(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->opt->drop_slot || r->opt->create_slot)
		return create_or_drop_slot(r, err);
	if (check_version(pgr_client_version(r->client), err) != PGR_OK)
		return PGR_ERR;
	/* it holds WAL from now on, not only from the first connection that uses it */
	if (r->opt->ensure_slot && pgr_client_create_slot(r->client, r->opt->slot, false, true, true, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_wal_segment_size(r->client, &r->segment_bytes, err);
}

static int run(struct receive *r)
{
	bool action = r->opt->drop_slot || r->opt->create_slot;
	struct pgr_err err;
	int rc = begin(r, &err);

	if (rc != PGR_OK && is_stopping(r) && err.cls == PGR_E_STOPPED) {
		if (action) /* it may not have been done: no exit code 0 */
			pgr_signals_die(pgr_signals_seen(r->signals));
		pgr_say_verbose(&r->msg, "received interrupt signal, exiting");
		return 0;
	}
	if (rc != PGR_OK) {
		pgr_say_error(&r->msg, &err);
		return 1;
	}
	return action ? 0 : receive_wal(r);
}

static int start_signals(struct receive *r, struct pgr_err *err)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	sigset_t set;

	/* Scripts start this program with '&' and stop it with kill -INT: pg_receivewal obeys although such a shell
	 * has had SIGINT ignored. */
	sigaction(SIGINT, &dfl, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	return pgr_signals_start(&r->signals, &set, on_signal, r, err);
}

static int check_directory(const struct receive *r, struct pgr_err *err)
{
	int fd;

	if (r->opt->drop_slot || r->opt->create_slot)
		return PGR_OK;
	if (pgr_fs_open_dir(r->sys, r->opt->dir, &fd, err) != PGR_OK)
		return PGR_ERR;
	if (r->sys->close(r->sys, fd) != 0)
		return pgr_err_sys(err, errno, "could not close directory \"%s\"", r->opt->dir);
	return PGR_OK;
}

static int setup_and_run(struct receive *r)
{
	struct pgr_err err;
	int code = 1;

	if (check_directory(r, &err) != PGR_OK || pgr_stop_new(&r->stop, &err) != PGR_OK) {
		pgr_say_error(&r->msg, &err);
		return 1;
	}
	r->opt->conn.ask_password = pgr_prompt_password;
	r->opt->conn.ask_arg = r->stop;
	pthread_mutex_init(&r->lock, NULL);
	if (start_signals(r, &err) == PGR_OK)
		code = run(r);
	else
		pgr_say_error(&r->msg, &err);
	disconnect(r);
	pgr_receiver_free(r->receiver);
	pgr_walstore_free(r->store);
	end_packer(r, code);
	pgr_signals_stop(r->signals); /* until here a signal can hurry the packer */
	pgr_walpack_free(r->pack);
	pthread_mutex_destroy(&r->lock);
	pgr_stop_free(r->stop);
	return code;
}

int main(int argc, char **argv)
{
	struct pgr_receivewal_options opt;
	struct receive r = {.opt = &opt, .sys = pgr_sys_real()};
	int code;

	pgr_messages_init(&r.msg, argv[0]);
	code = pgr_receivewal_options_read(&opt, &r.msg, argc, argv);
	if (code < 0) {
		r.msg.verbose = opt.verbose;
		code = opt.verify ? pgr_walverify(&r.msg, r.sys, opt.dir) : setup_and_run(&r);
	}
	pgr_receivewal_options_fini(&opt);
	return code;
}
