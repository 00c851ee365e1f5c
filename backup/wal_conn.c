#include "backup/wal_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/wal_stream.h"
#include "proto/caps.h"
#include "proto/transport_libpq.h"

/* ---- what is worth another attempt ---- */

static bool begins_with_any(const char *state, const char *const *beginnings)
{
	for (; *beginnings != NULL; beginnings++)
		if (strncmp(state, *beginnings, strlen(*beginnings)) == 0)
			return true;
	return false;
}

bool pgr_wal_conn_may_retry(const struct pgr_err *err)
{
	static const char *const passing[] = {"08", "40", "53", "55006", "57P03", NULL};
	static const char *const lasting[] = {"0A", "28", "3D", "42", "57P01", "58P01", NULL};

	switch (err->cls) {
	case PGR_E_NETWORK:
		return true;
	case PGR_E_CONNECT:
		return !begins_with_any(err->sqlstate, lasting);
	case PGR_E_SERVER: /* an error says what is wrong with the command, FATAL mostly what is with the session */
		return err->fatal ? !begins_with_any(err->sqlstate, lasting) : begins_with_any(err->sqlstate, passing);
	default:
		return false;
	}
}

/* ---- what is kept ---- */

static int copy_string(char **out, const char *text, struct pgr_err *err)
{
	if (text == NULL)
		return PGR_OK;
	*out = strdup(text);
	return *out != NULL ? PGR_OK : pgr_err_nomem(err);
}

static int keep(struct pgr_wal_conn *c, const struct pgr_wal_stream_opts *opts, struct pgr_err *err)
{
	c->permanent = opts->slot != NULL;
	c->create = opts->create_slot;
	c->look = c->permanent && !c->create;
	c->may_exist = opts->slot_may_exist;
	c->temporary = opts->temporary_slot && opts->slot == NULL;
	c->connect = opts->connect;
	c->info = opts->info;
	c->notice = opts->notice;
	c->arg = opts->arg;
	return copy_string(&c->slot, opts->slot, err);
}

/* Nobody is asked from a thread in the middle of a copy: this connection knows by now what it needs. */
static int keep_params(struct pgr_wal_conn *c, const struct pgr_conn_params *params, struct pgr_err *err)
{
	if (params == NULL)
		return PGR_OK;
	c->params = *params;
	c->params.ask_password = NULL;
	c->params.password = NULL;
	return copy_string(&c->params.password, params->password, err);
}

/* ---- the steps ---- */

static int connect_to_server(struct pgr_wal_conn *c, struct pgr_err *err)
{
	struct pgr_transport *t;

	if (c->connect != NULL)
		return c->connect(c->arg, &c->client, err);
	if (pgr_transport_open(&t, c->sys, c->stop, &c->params, PGR_CONN_PHYSICAL, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_new(&c->client, t, c->sys, c->notice, c->arg, err);
}

static int check_identity(const struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (strcmp(c->found.system_identifier, c->system_identifier) != 0)
		return pgr_err_set(err, PGR_E_USAGE,
				   "system identifier does not match between base backup and streaming connection");
	return PGR_OK;
}

static void say_created(const struct pgr_wal_conn *c, const char *what)
{
	char line[256];

	if (c->info == NULL)
		return;
	snprintf(line, sizeof(line), "created %s \"%s\"", what, c->slot);
	c->info(c->arg, line);
}

/* A slot that must exist is looked at before the backup starts, where the server can tell. */
static bool may_look_at_slot(const struct pgr_wal_conn *c)
{
	return pgr_cap_has(pgr_client_version(c->client), PGR_CAP_READ_SLOT);
}

static int check_slot(struct pgr_wal_conn *c, struct pgr_err *err)
{
	pgr_lsn restart;
	pgr_tli tli;

	return may_look_at_slot(c) ? pgr_client_read_slot(c->client, c->slot, &restart, &tli, err) : PGR_OK;
}

/* Whether a slot that is there already was made by this run is not known: it is used, and nobody's to drop. */
static int make_permanent_slot(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (pgr_client_create_slot(c->client, c->slot, false, true, false, err) == PGR_OK) {
		c->made_slot = true;
		say_created(c, "replication slot");
		return PGR_OK;
	}
	if (!c->may_exist || strcmp(err->sqlstate, "42710") != 0)
		return PGR_ERR;
	return check_slot(c, err);
}

static bool makes_temporary_slot(const struct pgr_wal_conn *c)
{
	return c->temporary && pgr_cap_has(pgr_client_version(c->client), PGR_CAP_TEMP_SLOTS);
}

/* Named after the session, as pg_basebackup does: the one before may not be gone yet. */
static int name_temporary_slot(struct pgr_wal_conn *c, struct pgr_err *err)
{
	char name[64];

	if (!makes_temporary_slot(c))
		return PGR_OK;
	snprintf(name, sizeof(name), "pg_basebackup_%d", pgr_client_backend_pid(c->client));
	free(c->slot);
	c->slot = NULL;
	return copy_string(&c->slot, name, err);
}

static int ask_ahead(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (pgr_client_identify_ahead(c->client, err) != PGR_OK)
		return PGR_ERR;
	if (makes_temporary_slot(c))
		return pgr_client_create_slot_ahead(c->client, c->slot, true, true, err);
	if (c->look && may_look_at_slot(c))
		return pgr_client_read_slot_ahead(c->client, c->slot, err);
	return PGR_OK;
}

/* A temporary slot does no harm on another cluster, nor does looking: a permanent one is made later. */
static int passing_slot(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (makes_temporary_slot(c))
		return pgr_client_create_slot(c->client, c->slot, true, true, false, err);
	return c->look ? check_slot(c, err) : PGR_OK;
}

/* ---- open, close ---- */

int pgr_wal_conn_init(struct pgr_wal_conn *c, const struct pgr_wal_stream_opts *opts,
		      const struct pgr_conn_params *params, const struct pgr_sys *sys, struct pgr_stop *stop,
		      struct pgr_err *err)
{
	*c = (struct pgr_wal_conn){.sys = sys, .stop = stop};
	return keep(c, opts, err) == PGR_OK ? keep_params(c, params, err) : PGR_ERR;
}

int pgr_wal_conn_connect(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (connect_to_server(c, err) != PGR_OK || name_temporary_slot(c, err) != PGR_OK ||
	    ask_ahead(c, err) != PGR_OK || pgr_client_identify(c->client, &c->found, err) != PGR_OK)
		return PGR_ERR;
	if (c->system_identifier != NULL && check_identity(c, err) != PGR_OK)
		return PGR_ERR;
	c->slot_rc = passing_slot(c, &c->slot_err);
	return PGR_OK;
}

/* That it is another cluster explains what is wrong with a slot. */
static int confirm(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (check_identity(c, err) != PGR_OK)
		return PGR_ERR;
	if (c->slot_rc != PGR_OK) {
		*err = c->slot_err;
		return PGR_ERR;
	}
	if (makes_temporary_slot(c))
		say_created(c, "temporary replication slot");
	return PGR_OK;
}

int pgr_wal_conn_confirm(struct pgr_wal_conn *c, const char *system_identifier, struct pgr_err *err)
{
	if (copy_string(&c->system_identifier, system_identifier, err) != PGR_OK || confirm(c, err) != PGR_OK)
		return PGR_ERR;
	c->look = false;
	return c->permanent && c->create ? make_permanent_slot(c, err) : PGR_OK;
}

int pgr_wal_conn_reopen(struct pgr_wal_conn *c, struct pgr_err *err)
{
	if (pgr_wal_conn_connect(c, err) == PGR_OK && confirm(c, err) == PGR_OK)
		return PGR_OK;
	pgr_wal_conn_close(c);
	return PGR_ERR;
}

void pgr_wal_conn_close(struct pgr_wal_conn *c)
{
	pgr_client_free(c->client);
	c->client = NULL;
}

void pgr_wal_conn_fini(struct pgr_wal_conn *c)
{
	pgr_wal_conn_close(c);
	pgr_conn_params_fini(&c->params);
	free(c->slot);
	free(c->system_identifier);
	c->slot = NULL;
	c->system_identifier = NULL;
}
