#include "backup/basebackup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "backup/delta_look.h"
#include "backup/delta_tell.h"
#include "backup/delta_way.h"
#include "backup/dirsink.h"
#include "backup/finish.h"
#include "backup/layout.h"
#include "backup/recovery_conf.h"
#include "backup/run.h"
#include "backup/tar_seed.h"
#include "backup/wal_stream.h"
#include "common/block.h"
#include "common/num.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/caps.h"
#include "proto/client.h"
#include "proto/transport_libpq.h"

#define DEFAULT_POOL_BYTES ((size_t)32 << 20)
#define BLOCK_BYTES	   ((size_t)1 << 20)
#define DEFAULT_WRITERS	   4
#define PROGRESS_EVERY_MS  1000

/* ---- connecting and looking at the server ---- */

static int open_client(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (pgr_transport_open(&t, r->sys, r->stop, r->params, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_new(&r->client, t, r->sys, r->opts->notice, r->opts->arg, err) != PGR_OK)
		return PGR_ERR;
	r->version = pgr_client_version(r->client);
	return PGR_OK;
}

static int connect_first(struct pgr_run *r, struct pgr_err *err)
{
	if (open_client(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->opts->connected != NULL)
		r->opts->connected(r->opts->arg, pgr_client_transport(r->client));
	return PGR_OK;
}

#define PLACE_TRIES   50
#define PLACE_WAIT_MS 100

/* A server has a process less when that has seen that its socket was closed. */
static int open_when_free(struct pgr_run *r, struct pgr_err *err)
{
	int rc = open_client(r, err);

	for (int i = 1; rc != PGR_OK && strcmp(err->sqlstate, "53300") == 0 && i < PLACE_TRIES; i++) {
		if (pgr_stop_wait(r->stop, r->sys, PLACE_WAIT_MS, err) != PGR_OK)
			return PGR_ERR;
		rc = open_client(r, err);
	}
	return rc;
}

/* Several hosts in a connection string, or one name for several servers: what was found out is of one cluster. */
int pgr_run_reconnect(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_system_id id;

	pgr_client_free(r->client);
	r->client = NULL;
	if (open_when_free(r, err) != PGR_OK || pgr_client_identify(r->client, &id, err) != PGR_OK)
		return PGR_ERR;
	if (strcmp(id.system_identifier, r->id.system_identifier) != 0) {
		pgr_err_set(err, PGR_E_USAGE,
			    "a connection led to another cluster than before: its system identifier is %s, not %s",
			    id.system_identifier, r->id.system_identifier);
		return pgr_err_hint(err, "Name a single host.");
	}
	r->id = id;
	return PGR_OK;
}

static int check_version(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;
	char text[16];

	pgr_version_format(text, r->version);
	if (r->version >= (PGR_SERVER_MAX_MAJOR + 1) * 10000)
		return pgr_err_set(err, PGR_E_USAGE, "incompatible server version %s", text);
	if (o->wal == PGR_WAL_STREAM && !pgr_cap_has(r->version, PGR_CAP_TIMELINE_HISTORY)) {
		pgr_err_set(err, PGR_E_USAGE,
			    "incompatible server version %s; client does not support streaming from server versions "
			    "older than %s",
			    text, pgr_cap_since(PGR_CAP_TIMELINE_HISTORY));
		return pgr_err_hint(err, "Use -X none or -X fetch to disable log streaming.");
	}
	if (o->compress.where == PGR_COMP_SERVER && !pgr_cap_has(r->version, PGR_CAP_SERVER_COMPRESSION))
		return pgr_err_set(err, PGR_E_USAGE, "server does not support server-side compression");
	r->manifest = o->manifest && pgr_cap_has(r->version, PGR_CAP_MANIFEST);
	return PGR_OK;
}

/* What only BASE_BACKUP can do; NULL: nothing of that kind is asked for. */
static const char *needs_stream(const struct pgr_run *r)
{
	if (r->opts->jobs == 1)
		return "--jobs=1";
	if (r->opts->format == PGR_FORMAT_TAR)
		return "tar format";
	if (r->opts->wal == PGR_WAL_FETCH)
		return "-X fetch";
	if (r->opts->compress.where == PGR_COMP_SERVER)
		return "compression on the server";
	return NULL;
}

/* Its slot is made, or looked at, when the directories are known to be good: see open_wal_stream. */
static int connect_wal_stream(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;
	struct pgr_wal_stream_opts wo = {
		.slot = o->slot,
		.create_slot = o->create_slot,
		.slot_may_exist = o->slot_may_exist || pgr_delta_seed_may_have_slot(r),
		.temporary_slot = !o->no_slot,
		.status_interval_ms = o->status_interval_ms,
		.info = o->info,
		.warning = o->warning,
		.notice = o->notice,
		.arg = o->arg,
	};

	if (o->wal != PGR_WAL_STREAM)
		return PGR_OK;
	return pgr_wal_stream_connect(&r->wal, &wo, r->params, r->sys, r->stop, err);
}

/*
 * What is known of the server by its version decides what else is needed of it: that is asked for, and connected to,
 * at once.  The answers are read in the steps that follow.
 */
static int approach_server(struct pgr_run *r, struct pgr_err *err)
{
	if (check_version(r, err) != PGR_OK || pgr_client_of_server_ahead(r->client, err) != PGR_OK ||
	    pgr_delta_seed_check_server_ahead(r, err) != PGR_OK)
		return PGR_ERR;
	if (!r->opts->dry_run && connect_wal_stream(r, err) != PGR_OK)
		return PGR_ERR;
	if (needs_stream(r) == NULL)
		pgr_lanes_seed_connect(r);
	return PGR_OK;
}

static int inspect_server(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_client_group_access(r->client, &r->group_access, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_client_wal_segment_size(r->client, &r->segment_bytes, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_identify(r->client, &r->id, err);
}

/* ---- stream or lanes ---- */

#define DEFAULT_LANES 4

/* Not what is wrong with us, or a stop. */
static bool may_fall_back(const struct pgr_run *r, const struct pgr_err *err)
{
	return r->opts->jobs == 0 && r->opts->delta != PGR_DELTA_HASH && err->cls != PGR_E_STOPPED &&
	       err->cls != PGR_E_NOMEM && err->cls != PGR_E_SYSTEM;
}

static int choose_source(struct pgr_run *r, struct pgr_err *err)
{
	const char *stream_only = needs_stream(r);

	r->source = r->opts->format == PGR_FORMAT_TAR ? &pgr_tar_seed : &pgr_stream_seed;
	r->jobs = r->opts->jobs != 0 ? r->opts->jobs : DEFAULT_LANES;
	if (stream_only != NULL && r->opts->jobs > 1)
		return pgr_err_set(err, PGR_E_USAGE, "%s and more than one job cannot be used together", stream_only);
	if (stream_only != NULL) {
		snprintf(r->why_stream, sizeof(r->why_stream), "%s needs a single stream", stream_only);
		if (r->opts->jobs == 0)
			pgr_run_info(r, "copying through one stream: %s needs it", stream_only);
		return PGR_OK;
	}
	if (pgr_lanes_seed_open(r, err) != PGR_OK) {
		if (!may_fall_back(r, err))
			return pgr_err_prefix(err, "cannot copy with more than one job");
		snprintf(r->why_stream, sizeof(r->why_stream), "%s", err->msg);
		pgr_run_info(r, "copying through one stream: %s", err->msg);
		return PGR_OK;
	}
	r->source = &pgr_lanes_seed;
	pgr_run_info(r, "copying over %u SQL sessions%s", r->jobs,
		     r->opts->jobs == 0 ? ", since the role may read the server's files" : "");
	return PGR_OK;
}

/* -R's text is made from the connection as the user described it, before anything else may fail. */
static int make_recovery_conf(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_setting *settings;
	struct pgr_buf skipped = {0};
	int rc;

	if (!r->opts->write_recovery_conf)
		return PGR_OK;
	if (pgr_transport_settings(pgr_client_transport(r->client), &settings, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_recovery_conf_text(&r->recovery_conf, r->version, settings, r->opts->slot, &skipped, err);
	pgr_settings_free(settings);
	if (rc == PGR_OK && skipped.len > 0 && pgr_buf_str(&skipped) != NULL)
		pgr_run_warning(
			r, "not written into primary_conninfo, because the server's version does not know them: %s",
			(const char *)skipped.data);
	pgr_buf_fini(&skipped);
	return rc;
}

/* ---- making room ---- */

int pgr_run_prepare_layout(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_delta_version_dir version_dir;
	struct pgr_layout_opts lo = {
		.data_dir = r->opts->data_dir,
		.wal_dir = r->opts->wal_dir,
		.mapping = r->opts->mapping,
		.dir_mode = r->group_access ? 0750 : 0700,
		.file_mode = r->group_access ? 0640 : 0600,
		.pg_xlog = !pgr_cap_has(r->version, PGR_CAP_PG_WAL),
		.summaries = pgr_cap_has(r->version, PGR_CAP_INCREMENTAL),
		.in_place = r->opts->delta != PGR_DELTA_OFF,
		.version_dir = pgr_delta_seed_version_dir(r, &version_dir),
		.look_only = r->opts->dry_run,
	};

	if (pgr_tar_seed_to_stdout(r->opts))
		return PGR_OK;
	if (!pgr_num_u64(r->id.system_identifier, strlen(r->id.system_identifier), &lo.system_identifier))
		lo.system_identifier = 0;
	pgr_layout_free(r->layout);
	r->layout = NULL;
	if (pgr_layout_new(&r->layout, r->sys, &lo, err) != PGR_OK)
		return PGR_ERR;
	r->prepared = true;
	return pgr_layout_prepare(r->layout, err);
}

static int start_sink(struct pgr_run *r, struct pgr_err *err)
{
	size_t bytes = r->opts->pool_bytes ? r->opts->pool_bytes : DEFAULT_POOL_BYTES;
	size_t count = bytes / BLOCK_BYTES, least = r->jobs + 4;
	struct pgr_dirsink_opts so = {
		.writers = r->opts->writers ? r->opts->writers : DEFAULT_WRITERS,
		/* a file that takes the place of an old one must be durable before it does */
		.sync = r->opts->sync && (r->opts->sync_method == PGR_SYNC_FSYNC || r->source == &pgr_summary_seed),
	};

	least += pgr_tar_seed_blocks(r->opts);
	if (count < least)
		count = least;
	if (pgr_pool_new(&r->pool, count, BLOCK_BYTES, r->stop, err) != PGR_OK)
		return PGR_ERR;
	return pgr_dirsink_new(&r->sink, r->sys, r->pool, r->stop, &so, err);
}

/* An open directory for the WAL, the caller's, and its name in messages. */
static int open_wal_dir(struct pgr_run *r, int *fd, char *name, size_t cap, struct pgr_err *err)
{
	int dir;

	if (r->opts->format == PGR_FORMAT_TAR)
		return pgr_tar_seed_wal_dir(r, fd, name, cap, err);
	if (pgr_layout_wal_root(r->layout, &dir, err) != PGR_OK)
		return PGR_ERR;
	snprintf(name, cap, "%s", pgr_layout_wal_name(r->layout));
	*fd = r->sys->openat(r->sys, dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	return *fd >= 0 ? PGR_OK : pgr_err_sys(err, errno, "could not open directory \"%s\"", name);
}

static int set_wal_dir(struct pgr_run *r, struct pgr_err *err)
{
	struct pgr_wal_stream_dir o = {
		.segment_bytes = r->segment_bytes,
		.file_mode = pgr_layout_file_mode(r->layout),
		.sync = r->opts->sync && r->opts->sync_method == PGR_SYNC_FSYNC,
	};
	char name[PATH_MAX + 32];
	int own;

	if (open_wal_dir(r, &own, name, sizeof(name), err) != PGR_OK)
		return PGR_ERR;
	o.name = name;
	return pgr_wal_stream_set_dir(r->wal, own, &o, err);
}

/* In a directory that was in use, pg_wal must be emptied before: it comes later. */
static int open_wal_stream(struct pgr_run *r, struct pgr_err *err)
{
	if (r->wal == NULL)
		return PGR_OK;
	if (r->opts->delta == PGR_DELTA_OFF && set_wal_dir(r, err) != PGR_OK)
		return PGR_ERR;
	return pgr_wal_stream_open(r->wal, r->id.system_identifier, err);
}

static int start_wal_stream(struct pgr_run *r, struct pgr_err *err)
{
	if (r->wal == NULL)
		return PGR_OK;
	if (r->opts->delta != PGR_DELTA_OFF && set_wal_dir(r, err) != PGR_OK)
		return PGR_ERR;
	pgr_run_info(r, "starting background WAL receiver");
	pgr_wal_stream_start(r->wal, r->start, r->start_tli);
	return PGR_OK;
}

/* ---- the steps that depend on the source ---- */

static int start_backup(struct pgr_run *r, struct pgr_err *err)
{
	pgr_run_info(r, "initiating base backup, waiting for checkpoint to complete");
	pgr_run_phase(r, PGR_PHASE_CHECKPOINT);
	if (r->source->start(r, err) != PGR_OK)
		return PGR_ERR;
	pgr_run_info(r, "checkpoint completed");
	pgr_run_info(r, "write-ahead log start point: %" PGR_LSN_FMT " on timeline %u", PGR_LSN_ARG(r->start),
		     r->start_tli);
	return PGR_OK;
}

static int copy(struct pgr_run *r, struct pgr_err *err)
{
	pgr_run_phase(r, PGR_PHASE_COPY);
	if (r->source->copy(r, err) != PGR_OK)
		return PGR_ERR;
	pgr_delta_tell(r);
	return PGR_OK;
}

static int end_backup(struct pgr_run *r, struct pgr_err *err)
{
	if (r->source->end != NULL && r->source->end(r, err) != PGR_OK)
		return PGR_ERR;
	r->progress.file[0] = '\0';
	pgr_run_report(r, true);
	pgr_run_info(r, "write-ahead log end point: %" PGR_LSN_FMT, PGR_LSN_ARG(r->end));
	if (r->wal != NULL) {
		pgr_run_info(r, "waiting for background process to finish streaming ...");
		pgr_run_phase(r, PGR_PHASE_WAL);
		if (pgr_wal_stream_finish(r->wal, r->end, err) != PGR_OK)
			return PGR_ERR;
	}
	return r->source->finish != NULL ? r->source->finish(r, err) : PGR_OK;
}

static int write_recovery(struct pgr_run *r, struct pgr_err *err)
{
	if (!r->opts->write_recovery_conf || r->opts->format == PGR_FORMAT_TAR)
		return PGR_OK;
	return pgr_recovery_conf_write(r->sys, pgr_layout_root(r->layout, 0), pgr_layout_data_dir(r->layout),
				       r->version, &r->recovery_conf, pgr_layout_file_mode(r->layout), r->opts->sync,
				       err);
}

static int make_durable(struct pgr_run *r, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = r->opts;

	if (o->sync)
		pgr_run_info(r, "syncing data to disk ...");
	pgr_run_phase(r, PGR_PHASE_SYNC);
	if (pgr_dirsink_drain(r->sink, err) != PGR_OK)
		return PGR_ERR;
	if (r->source->verify != NULL && r->source->verify(r, err) != PGR_OK)
		return PGR_ERR;
	if (write_recovery(r, err) != PGR_OK || pgr_delta_seed_sync(r, err) != PGR_OK)
		return PGR_ERR;
	if (o->sync && r->layout != NULL && pgr_finish_sync(r->layout, o->sync_method, err) != PGR_OK)
		return PGR_ERR;
	/* the last moment to give up: from here on the directory can start */
	if (pgr_stop_check(r->stop, err) != PGR_OK)
		return PGR_ERR;
	/* archives cannot, and have it inside */
	if (o->format == PGR_FORMAT_TAR)
		return PGR_OK;
	if (pgr_delta_seed_settle(r, err) != PGR_OK ||
	    pgr_finish_control(r->sys, r->layout, &r->control, o->sync, err) != PGR_OK)
		return PGR_ERR;
	r->delta.begun = false;
	return PGR_OK;
}

/* As the stock tool: the copy stays, its manifest stays uncommitted. */
static int leave_uncommitted(struct pgr_run *r, struct pgr_err *err)
{
	if (pgr_delta_seed_done(r, err) == PGR_OK)
		*err = r->checksum_err;
	return PGR_ERR;
}

static int commit(struct pgr_run *r, struct pgr_err *err)
{
	if (r->checksum_failure)
		return leave_uncommitted(r, err);
	if (r->manifest && r->layout != NULL) {
		pgr_run_info(r, "renaming backup_manifest.tmp to backup_manifest");
		if (pgr_finish_manifest(r->sys, r->layout, r->opts->sync, err) != PGR_OK)
			return PGR_ERR;
	}
	/* without the manifest only the state says that the copy is whole, and so it goes last */
	if (pgr_delta_seed_done(r, err) != PGR_OK)
		return PGR_ERR;
	pgr_run_phase(r, PGR_PHASE_DONE);
	pgr_run_info(r, "base backup completed");
	return PGR_OK;
}

typedef int step(struct pgr_run *r, struct pgr_err *err);

static int take_steps(struct pgr_run *r, step *const *steps, struct pgr_err *err)
{
	for (; *steps != NULL; steps++)
		if ((*steps)(r, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

static int seed(struct pgr_run *r, struct pgr_err *err)
{
	static step *const all[] = {
		pgr_delta_seed_open,
		connect_first,
		approach_server,
		inspect_server,
		pgr_delta_seed_check_server,
		choose_source,
		pgr_delta_way_choose,
		make_recovery_conf,
		pgr_run_prepare_layout,
		pgr_delta_look_apart,
		open_wal_stream,
		start_sink,
		start_backup,
		pgr_delta_seed_take_over,
		start_wal_stream,
		copy,
		end_backup,
		make_durable,
		commit,
		NULL,
	};

	pgr_run_phase(r, PGR_PHASE_CONNECT);
	return take_steps(r, all, err);
}

/* What a seed would do, up to its first change. */
static int look(struct pgr_run *r, struct pgr_err *err)
{
	static step *const all[] = {
		pgr_delta_seed_open,
		connect_first,
		approach_server,
		inspect_server,
		pgr_delta_seed_check_server,
		choose_source,
		pgr_delta_way_choose,
		pgr_run_prepare_layout,
		pgr_delta_look_apart,
		pgr_delta_tell_dry_run,
		NULL,
	};

	pgr_run_phase(r, PGR_PHASE_CONNECT);
	return take_steps(r, all, err);
}

/* ---- after a failure ---- */

static void say_line(void *arg, const char *line)
{
	pgr_run_say(arg, "%s", line);
}

#define SLOT_TRIES   50
#define SLOT_WAIT_MS 100

/* For a moment after its connection was closed the server still takes the slot for one in use (55006). */
static int drop_when_free(struct pgr_run *r, struct pgr_client *c, struct pgr_stop *stop, struct pgr_err *err)
{
	struct pgr_err ignored;
	int rc = pgr_client_drop_slot(c, r->opts->slot, err);

	for (int i = 1; rc != PGR_OK && strcmp(err->sqlstate, "55006") == 0 && i < SLOT_TRIES; i++) {
		if (pgr_stop_wait(stop, r->sys, SLOT_WAIT_MS, &ignored) != PGR_OK)
			break;
		rc = pgr_client_drop_slot(c, r->opts->slot, err);
	}
	return rc;
}

/*
 * A permanent slot that this run created holds WAL back on the server for ever: drop it again.  The run's connections
 * and its stop latch are spent, so this is a connection of its own.
 */
static void drop_slot(struct pgr_run *r)
{
	struct pgr_stop *stop = NULL;
	struct pgr_transport *t;
	struct pgr_client *c = NULL;
	struct pgr_err e;
	int rc = pgr_stop_new(&stop, &e);

	if (rc == PGR_OK)
		rc = pgr_transport_open(&t, r->sys, stop, r->params, PGR_CONN_PHYSICAL, &e);
	if (rc == PGR_OK)
		rc = pgr_client_new(&c, t, r->sys, NULL, NULL, &e);
	if (rc == PGR_OK)
		rc = drop_when_free(r, c, stop, &e);
	if (rc == PGR_OK)
		pgr_run_say(r, "dropped replication slot \"%s\"", r->opts->slot);
	else
		pgr_run_warning(r, "could not drop replication slot \"%s\", which this run created: %s", r->opts->slot,
				e.msg);
	pgr_client_free(c);
	pgr_stop_free(stop);
}

static void clean_up(struct pgr_run *r, bool made_slot, bool keep)
{
	struct pgr_err e;

	if (r->opts->delta != PGR_DELTA_OFF) {
		if (made_slot && r->opts->clean && !keep)
			drop_slot(r);
		return;
	}
	if (!r->opts->clean) {
		if (r->prepared)
			pgr_run_say(r, "data directory \"%s\" not removed at user's request", r->opts->data_dir);
		return;
	}
	if (made_slot && !keep)
		drop_slot(r);
	if (r->prepared && !keep && pgr_layout_clean(r->layout, say_line, r, &e) != PGR_OK)
		pgr_run_warning(r, "failed to remove what was written: %s", e.msg);
}

/*
 * A walsender that makes a checkpoint for us, or waits for the archiver, does not look at its socket: it is told. Where
 * the network is the reason of the failure nobody could be.
 */
static void cancel_command(struct pgr_run *r, const struct pgr_err *why)
{
	if (r->client != NULL && pgr_client_state(r->client) == PGR_SS_BUSY && why->cls != PGR_E_NETWORK)
		pgr_transport_cancel(pgr_client_transport(r->client));
}

/* Ends threads and connections, in the order in which they depend on each other; the layout is left for the clean-up.
 */
static void release(struct pgr_run *r)
{
	pgr_wal_stream_free(r->wal);
	pgr_dirsink_free(r->sink);
	pgr_summary_seed_release(r); /* the sink's writers have looked into it, */
	pgr_stream_seed_release(r);  /* and into this, */
	pgr_lanes_seed_release(r);   /* or this */
	pgr_client_free(r->client);
	pgr_pool_free(r->pool);
	pgr_buf_fini(&r->control);
	pgr_buf_fini(&r->recovery_conf);
}

int pgr_basebackup_run(const struct pgr_basebackup_opts *opts, struct pgr_conn_params *params,
		       const struct pgr_sys *sys, struct pgr_stop *stop, struct pgr_err *err)
{
	struct pgr_run r = {.opts = opts, .params = params, .sys = sys, .stop = stop};
	int rc = opts->dry_run ? look(&r, err) : seed(&r, err);
	bool made_slot = pgr_wal_stream_made_slot(r.wal);

	if (rc != PGR_OK) {
		/* who failed because another thread did speaks with that one's words */
		if (err->cls == PGR_E_STOPPED)
			pgr_stop_why(stop, err);
		pgr_stop_post(stop, err);
		cancel_command(&r, err);
		pgr_delta_seed_explain(&r, err);
	}
	release(&r);
	if (rc != PGR_OK && opts->failed != NULL)
		opts->failed(opts->arg, err);
	if (rc != PGR_OK)
		clean_up(&r, made_slot, err->cls == PGR_E_CHECKSUM);
	pgr_delta_seed_release(&r);
	pgr_layout_free(r.layout);
	return rc;
}
