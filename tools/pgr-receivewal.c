/*
 * pgr-receivewal: streams a server's WAL into a directory of segment files, and keeps at it.
 *
 * Options, texts and exit codes are pg_receivewal's (PostgreSQL documentation, "pg_receivewal"; facts about it come
 * from src/bin/pg_basebackup/pg_receivewal.c).  On purpose different: gaps in the directory are told, the waits between
 * attempts grow and can be interrupted, and errors that waiting cannot mend end the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "common/fs_dir.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "proto/transport_libpq.h"
#include "receiver/receiver.h"
#include "receiver/walpack.h"
#include "receiver/walstore.h"
#include "tools/backoff.h"
#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/receive.h"
#include "tools/receivewal_options.h"
#include "tools/signals.h"
#include "tools/syncnames.h"
#include "tools/version.h"
#include "tools/walverify.h"

#define PACK_PATIENCE_MS  10000 /* a clean stop waits so long for segments to be compressed */
#define PACK_RETRY_MS	  10000
#define BACKOFF_STABLE_MS 10000 /* a stream that lived so long was a good one: the next waits begin small again */

/* ---- signals ---- */

static void on_signal(void *arg, int signo)
{
	struct pgr_receive *r = arg;
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

static bool is_stopping(struct pgr_receive *r)
{
	bool stopping;

	pthread_mutex_lock(&r->lock);
	stopping = r->stopping;
	pthread_mutex_unlock(&r->lock);
	return stopping;
}

/* From here on (or no longer) a signal stops the stream.  False: one has come already. */
static bool set_streaming(struct pgr_receive *r, bool streaming)
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
	struct pgr_receive *r = arg;

	pgr_say_notice(&r->msg, text);
}

static int connect_client(struct pgr_receive *r, struct pgr_system_id *id, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (pgr_transport_open(&t, r->sys, r->stop, &r->opt->conn, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_new(&r->client, t, r->sys, on_notice, r, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_identify(r->client, id, err);
}

static void disconnect(struct pgr_receive *r)
{
	pgr_client_free(r->client);
	r->client = NULL;
}

static int first_connection(struct pgr_receive *r, struct pgr_err *err)
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

/* It holds WAL from now on, not only from the first connection that uses it. */
static int ensure_slot(struct pgr_receive *r, struct pgr_err *err)
{
	return r->opt->ensure_slot ? pgr_client_create_slot(r->client, r->opt->slot, false, true, true, err) : PGR_OK;
}

/* The same host name may lead to another server by now: a copy of its own, or one that was set up anew. */
static int reconnect(struct pgr_receive *r, struct pgr_err *err)
{
	struct pgr_system_id id;
	uint32_t segment_bytes;

	if (connect_client(r, &id, err) != PGR_OK)
		return PGR_ERR;
	if (strcmp(id.system_identifier, r->id.system_identifier) != 0) {
		r->trouble = PGR_FOREIGN;
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

static int make_receiver(struct pgr_receive *r, pgr_lsn start, pgr_tli tli, struct pgr_err *err)
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
		.log = pgr_receive_say,
		.log_arg = r,
	};

	return pgr_receiver_new(&r->receiver, r->sys, r->store, &opts, err);
}

/* Called in the packer's thread: messages are whole lines under a lock. */
static void on_pack_line(void *arg, int level, const char *line)
{
	struct pgr_receive *r = arg;

	if (level == 2)
		pgr_say_info(&r->msg, "%s", line);
	else
		pgr_receive_say(r, level, line);
}

static void on_finished_segment(void *arg, const char *name)
{
	struct pgr_receive *r = arg;

	pgr_walpack_finished(r->pack, name);
}

static int start_packer(struct pgr_receive *r, pgr_lsn start, struct pgr_err *err)
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
static void end_packer(struct pgr_receive *r, int code)
{
	if (code != 0 || is_stopping(r))
		pgr_walpack_hurry(r->pack, PACK_PATIENCE_MS);
	pgr_walpack_end(r->pack);
}

/* Once: later connections go on where the receiver stands. */
static int prepare_receiver(struct pgr_receive *r, struct pgr_err *err)
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
	if (pgr_receive_find_start(r, dirfd, &start, &tli, err) != PGR_OK) {
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

static int stream_once(struct pgr_receive *r, enum pgr_receiver_end *how, int64_t *lived_ms, struct pgr_err *err)
{
	bool again = r->client == NULL;
	int64_t began;
	int rc;

	*lived_ms = 0;
	r->trouble = PGR_NO_TROUBLE;
	if (again && reconnect(r, err) != PGR_OK)
		return PGR_ERR;
	if (prepare_receiver(r, err) != PGR_OK || pgr_receive_check_timeline(r, err) != PGR_OK)
		return PGR_ERR;
	if ((again && ensure_slot(r, err) != PGR_OK) || /* a standby that was promoted does not have it */
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
static bool may_mend(const struct pgr_receive *r, const struct pgr_err *err)
{
	if (err->cls == PGR_E_SYSTEM)
		return (err->sys_errno == ENOSPC || err->sys_errno == EDQUOT) && r->store != NULL &&
		       !pgr_walstore_is_failed(r->store);
	return err->cls == PGR_E_CONNECT || err->cls == PGR_E_NETWORK || err->cls == PGR_E_SERVER;
}

#define UNDEFINED_FILE "58P01" /* the segment was removed */
#define WRONG_STATE    "55000" /* a slot that was invalidated, since it held too much WAL back; or a logical one */

static bool is_wal_gone(const struct pgr_err *err)
{
	return err->cls == PGR_E_SERVER &&
	       (strcmp(err->sqlstate, UNDEFINED_FILE) == 0 || strcmp(err->sqlstate, WRONG_STATE) == 0);
}

static void explain_gone_wal(struct pgr_err *err)
{
	if (err->hint[0] != '\0')
		return;
	if (strcmp(err->sqlstate, WRONG_STATE) == 0)
		pgr_err_hint(err,
			     "A slot that was invalidated has lost WAL: a new base backup, an empty directory and a "
			     "new slot are needed.  A logical slot cannot be used here.");
	else
		pgr_err_hint(err,
			     "The server no longer has this WAL.  Unless it comes back there, a new base backup and "
			     "an empty directory are needed; with --slot a server keeps what was not received yet.");
}

static void tell_failure(struct pgr_receive *r, struct pgr_err *err)
{
	if (err->cls == PGR_E_STOPPED)
		return;
	if (err->cls == PGR_E_DATA && r->store != NULL && pgr_walstore_is_forked(r->store))
		r->trouble = PGR_NOT_BEHIND;
	if (is_wal_gone(err)) {
		r->trouble = PGR_WAL_GONE;
		explain_gone_wal(err);
	}
	pgr_say_error(&r->msg, err);
}

/* Trouble that only another server, or time, could mend, has lasted too long. */
static bool must_give_up(struct pgr_receive *r)
{
	int64_t now = r->sys->mono_ms(r->sys);

	if (r->trouble == PGR_NO_TROUBLE || r->trouble != r->lasting)
		r->lasting_since_ms = now;
	r->lasting = r->trouble;
	return r->trouble != PGR_NO_TROUBLE && now - r->lasting_since_ms >= (int64_t)r->opt->give_up_s * 1000;
}

/* By the name of PostgreSQL's program there are no other codes than its own. */
static int exit_code(const struct pgr_receive *r)
{
	return r->trouble == PGR_NO_TROUBLE || strcmp(r->msg.progname, "pg_receivewal") == 0 ? 1 : (int)r->trouble;
}

/* Ends early when the stop latch is set. */
static void wait_ms(struct pgr_receive *r, int ms)
{
	int64_t until = r->sys->mono_ms(r->sys) + ms;
	struct pollfd fd = {.fd = pgr_stop_fd(r->stop), .events = POLLIN};

	for (int64_t left = ms; left > 0 && !pgr_stop_is_set(r->stop); left = until - r->sys->mono_ms(r->sys))
		if (r->sys->poll(r->sys, &fd, 1, (int)left) < 0 && errno != EINTR)
			return;
}

/* Whether to go on after an attempt that ended without having been asked to. */
static bool try_again(struct pgr_receive *r, int64_t lived_ms, unsigned *failures)
{
	int ms;

	if (r->opt->no_loop) {
		pgr_say_errorf(&r->msg, "disconnected");
		return false;
	}
	if (lived_ms >= BACKOFF_STABLE_MS)
		*failures = 0;
	ms = pgr_backoff_draw_ms(*failures);
	*failures += *failures < PGR_BACKOFF_MAX;
	pgr_say_info(&r->msg, "disconnected; waiting %d seconds to try again", pgr_backoff_seconds(ms));
	wait_ms(r, ms);
	return true;
}

static int receive_wal(struct pgr_receive *r)
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

static int create_or_drop_slot(struct pgr_receive *r, struct pgr_err *err)
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
static int begin(struct pgr_receive *r, struct pgr_err *err)
{
	if (first_connection(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->opt->drop_slot || r->opt->create_slot)
		return create_or_drop_slot(r, err);
	if (check_version(pgr_client_version(r->client), err) != PGR_OK)
		return PGR_ERR;
	if (ensure_slot(r, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_wal_segment_size(r->client, &r->segment_bytes, err);
}

static int run(struct pgr_receive *r)
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

static int start_signals(struct pgr_receive *r, struct pgr_err *err)
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

/*
 * Two programs that write to the same files would acknowledge what the other one then throws away.  Where directories
 * cannot be locked (a network file system) it goes without.
 */
static int take_directory(struct pgr_receive *r, struct pgr_err *err)
{
	int rc;

	if (r->opt->drop_slot || r->opt->create_slot)
		return PGR_OK;
	if (pgr_fs_open_dir(r->sys, r->opt->dir, &r->lock_fd, err) != PGR_OK)
		return PGR_ERR;
	do
		rc = r->sys->flock(r->sys, r->lock_fd, LOCK_EX | LOCK_NB);
	while (rc != 0 && errno == EINTR);
	if (rc == 0 || errno != EWOULDBLOCK)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_USAGE, "another pgr-receivewal is at work in directory \"%s\"", r->opt->dir);
}

static void leave_directory(struct pgr_receive *r)
{
	if (r->lock_fd >= 0)
		r->sys->close(r->sys, r->lock_fd); /* nothing was written through it */
}

static int setup_and_run(struct pgr_receive *r)
{
	struct pgr_err err;
	int code = 1;

	if (take_directory(r, &err) != PGR_OK || pgr_stop_new(&r->stop, &err) != PGR_OK) {
		pgr_say_error(&r->msg, &err);
		leave_directory(r);
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
	leave_directory(r);
	return code;
}

int main(int argc, char **argv)
{
	struct pgr_receivewal_options opt;
	struct pgr_receive r = {.opt = &opt, .sys = pgr_sys_real(), .lock_fd = -1};
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
