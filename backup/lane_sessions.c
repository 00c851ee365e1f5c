#include "backup/lane_sessions.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "backup/sql.h"

struct session {
	struct pgr_lane_sessions *s;
	pthread_t thread;
	bool running; /* the thread was started and not joined */

	/* the thread's until it was joined */
	int rc;
	struct pgr_err err;
	struct pgr_client *client;
	struct pgr_buf id;
};

struct pgr_lane_sessions {
	struct pgr_lane_sessions_opts o;
	const struct pgr_sys *sys;
	struct pgr_stop *stop;
	struct session sessions[];
};

/* ---- which server ---- */

static const char who[] = "SELECT system_identifier || ' ' || pg_catalog.to_char(pg_catalog.pg_postmaster_start_time() "
			  "AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM pg_catalog.pg_control_system()";

int pgr_lanes_server_id_ahead(struct pgr_client *session, struct pgr_err *err)
{
	return pgr_sql_ask_ahead(session, err, "%s", who);
}

int pgr_lanes_server_id(struct pgr_client *session, struct pgr_buf *out, struct pgr_err *err)
{
	struct pgr_result *r;
	const char *cell;
	int rc;

	if (pgr_sql_query(session, &r, err, "%s", who) != PGR_OK)
		return PGR_ERR;
	cell = pgr_result_cell(r, 0, 0, NULL);
	if (cell == NULL)
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "the server does not say which one it is");
	else
		rc = pgr_buf_puts(out, cell, err);
	pgr_result_free(r);
	return rc;
}

/* ---- a thread ---- */

static int connect_one(struct session *one)
{
	const struct pgr_lane_sessions *s = one->s;
	const struct pgr_lane_sessions_opts *o = &s->o;

	if (o->connect != NULL)
		return o->connect(o->arg, &one->client, &one->err);
	return pgr_sql_connect(&one->client, o->params, s->sys, s->stop, o->notice, o->arg, &one->err);
}

static int prepare_one(struct session *one)
{
	struct pgr_client *c = one->client;
	struct pgr_err *err = &one->err;
	struct pgr_result *mark;

	if (pgr_sql_shield(c, &mark, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_lanes_server_id_ahead(c, err) != PGR_OK) {
		pgr_result_free(mark);
		return PGR_ERR;
	}
	return pgr_sql_confirm(c, mark, err) == PGR_OK ? pgr_lanes_server_id(c, &one->id, err) : PGR_ERR;
}

static void *open_one(void *arg)
{
	struct session *one = arg;

	one->rc = connect_one(one);
	if (one->rc == PGR_OK)
		one->rc = prepare_one(one);
	if (one->rc != PGR_OK) {
		pgr_client_free(one->client);
		one->client = NULL;
	}
	return NULL;
}

/* ---- start, take, free ---- */

int pgr_lane_sessions_start(struct pgr_lane_sessions **out, const struct pgr_lane_sessions_opts *opts,
			    const struct pgr_sys *sys, struct pgr_stop *stop, struct pgr_err *err)
{
	struct pgr_lane_sessions *s = calloc(1, sizeof(*s) + opts->n * sizeof(s->sessions[0]));

	*out = s;
	if (s == NULL)
		return pgr_err_nomem(err);
	s->o = *opts;
	s->sys = sys;
	s->stop = stop;
	for (unsigned i = 0; i < opts->n; i++) {
		struct session *one = &s->sessions[i];
		int rc;

		one->s = s;
		rc = pthread_create(&one->thread, NULL, open_one, one);
		if (rc != 0) {
			pgr_err_sys(err, rc, "could not start a thread");
			pgr_lane_sessions_free(s);
			*out = NULL;
			return PGR_ERR;
		}
		one->running = true;
	}
	return PGR_OK;
}

static void join(struct session *one)
{
	if (one->running)
		pthread_join(one->thread, NULL);
	one->running = false;
}

int pgr_lane_sessions_take(struct pgr_lane_sessions *s, unsigned i, struct pgr_client **client, struct pgr_buf *id,
			   struct pgr_err *err)
{
	struct session *one = &s->sessions[i];

	*client = NULL;
	join(one);
	if (one->rc != PGR_OK) {
		*err = one->err;
		return PGR_ERR;
	}
	if (pgr_buf_put(id, one->id.data, one->id.len, err) != PGR_OK)
		return PGR_ERR;
	*client = one->client;
	one->client = NULL;
	return PGR_OK;
}

void pgr_lane_sessions_free(struct pgr_lane_sessions *s)
{
	if (s == NULL)
		return;
	for (unsigned i = 0; i < s->o.n; i++) {
		join(&s->sessions[i]);
		pgr_client_free(s->sessions[i].client);
		pgr_buf_fini(&s->sessions[i].id);
	}
	free(s);
}
