#include "proto/libpq_keywords.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hosts.h"
#include "proto/settings.h"

#define REPLICATION "replication" /* the pseudo-database */

/* libpq's copy of a password must not stay behind in freed memory either. */
static void options_free(PQconninfoOption *opts)
{
	for (PQconninfoOption *o = opts; o != NULL && o->keyword != NULL; o++)
		if (o->val != NULL && strchr(o->dispchar, '*') != NULL)
			explicit_bzero(o->val, strlen(o->val));
	PQconninfoFree(opts);
}

static void tell(struct pgr_libpq_keywords *k, const char *keyword, const char *value)
{
	if (!pgr_setting_given(value))
		return;
	k->kw[k->n] = keyword;
	k->val[k->n++] = value;
}

static int parse_conninfo(struct pgr_libpq_keywords *k, struct pgr_err *err)
{
	char *why = NULL;

	if (k->params->conninfo == NULL)
		return PGR_OK;
	k->conninfo = PQconninfoParse(k->params->conninfo, &why);
	if (k->conninfo != NULL)
		return PGR_OK;
	if (why == NULL)
		return pgr_err_nomem(err);
	pgr_err_set(err, PGR_E_USAGE, "%.*s", (int)strcspn(why, "\n"), why);
	PQfreemem(why);
	return PGR_ERR;
}

static const PQconninfoOption *option(const PQconninfoOption *opts, const char *keyword)
{
	for (; opts != NULL && opts->keyword != NULL; opts++)
		if (strcmp(opts->keyword, keyword) == 0)
			return opts;
	return NULL;
}

/*
 * A database that the user named: in -d, in the environment, or in PGSERVICE's entry.  Connection strings that are made
 * for replication often have the name that pg_hba.conf has for it, Barman's for one: that is no database.
 */
static int find_dbname(struct pgr_libpq_keywords *k, struct pgr_err *err)
{
	const PQconninfoOption *opt = option(k->conninfo, "dbname");
	PQconninfoOption *defaults = NULL;
	int rc = PGR_OK;

	if (opt == NULL || !pgr_setting_given(opt->val)) {
		defaults = PQconndefaults();
		opt = option(defaults, "dbname");
	}
	if (opt != NULL && pgr_setting_given(opt->val) && strcmp(opt->val, REPLICATION) != 0) {
		k->dbname = strdup(opt->val);
		rc = k->dbname != NULL ? PGR_OK : pgr_err_nomem(err);
	}
	options_free(defaults);
	return rc;
}

static bool is_left_out(const struct pgr_libpq_keywords *k, enum pgr_conn_mode mode, const char *keyword)
{
	return strcmp(keyword, "replication") == 0 ||
	       (mode != PGR_CONN_PHYSICAL && k->dbname == NULL && strcmp(keyword, "dbname") == 0);
}

static int build_keywords(struct pgr_libpq_keywords *k, enum pgr_conn_mode mode, struct pgr_err *err)
{
	size_t most = 16;

	for (const PQconninfoOption *c = k->conninfo; c != NULL && c->keyword != NULL; c++)
		most++;
	k->kw = calloc(most, sizeof(*k->kw));
	k->val = calloc(most, sizeof(*k->val));
	if (k->kw == NULL || k->val == NULL)
		return pgr_err_nomem(err);

	tell(k, "fallback_application_name", k->params->progname);
	if (mode == PGR_CONN_PHYSICAL) {
		tell(k, "dbname", REPLICATION);
		tell(k, "replication", "true");
	} else if (k->dbname == NULL) {
		tell(k, "dbname", "postgres"); /* a role for replication seldom has a database of its name */
	}
	k->user_from = k->n;
	for (const PQconninfoOption *c = k->conninfo; c != NULL && c->keyword != NULL; c++)
		if (!is_left_out(k, mode, c->keyword))
			tell(k, c->keyword, c->val);
	tell(k, "host", k->params->host);
	tell(k, "user", k->params->user);
	tell(k, "port", k->params->port);
	k->user_to = k->n;
	return PGR_OK;
}

int pgr_libpq_keywords_init(struct pgr_libpq_keywords *k, const struct pgr_conn_params *params, enum pgr_conn_mode mode,
			    struct pgr_err *err)
{
	*k = (struct pgr_libpq_keywords){.params = params};
	if (parse_conninfo(k, err) == PGR_OK && find_dbname(k, err) == PGR_OK && build_keywords(k, mode, err) == PGR_OK)
		return PGR_OK;
	pgr_libpq_keywords_fini(k);
	return PGR_ERR;
}

void pgr_libpq_keywords_fini(struct pgr_libpq_keywords *k)
{
	free(k->kw);
	free(k->val);
	free(k->dbname);
	options_free(k->conninfo);
	*k = (struct pgr_libpq_keywords){0};
}

PGconn *pgr_libpq_keywords_start(struct pgr_libpq_keywords *k, const struct pgr_hosts *left)
{
	size_t n = k->n;

	tell(k, "password", k->params->password);
	tell(k, "host", left->host);
	tell(k, "hostaddr", left->hostaddr);
	tell(k, "port", left->port);
	k->kw[k->n] = NULL;
	k->n = n;
	return PQconnectStartParams(k->kw, k->val, 0);
}

/* ---- what somebody set ---- */

static bool user_told(const struct pgr_libpq_keywords *k, const char *keyword)
{
	for (size_t i = k->user_from; i < k->user_to; i++)
		if (strcmp(k->kw[i], keyword) == 0)
			return true;
	return strcmp(keyword, "password") == 0 && pgr_setting_given(k->params->password);
}

/* Whether somebody set an option that PQconninfo reports; what differs from the compiled default came from a service.
 */
static bool somebody_set(const struct pgr_libpq_keywords *k, const PQconninfoOption *opt)
{
	static const char *const never[] = {"replication", "fallback_application_name", "service", "servicefile",
					    "dbname"};
	size_t len = strlen(pgr_setting_text(opt->val));

	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (strcmp(opt->keyword, never[i]) == 0)
			return false;
	if (len == 0)
		return false;
	if (strcmp(opt->keyword, "user") == 0 || user_told(k, opt->keyword))
		return true;
	if (opt->envvar != NULL && pgr_setting_given(getenv(opt->envvar)))
		return true;
	/* libpq fills in the one in the home directory */
	if (strcmp(opt->keyword, "passfile") == 0 && len >= 8 && strcmp(opt->val + len - 8, "/.pgpass") == 0)
		return false;
	return strcmp(opt->val, pgr_setting_text(opt->compiled)) != 0;
}

static int fill_settings(const struct pgr_libpq_keywords *k, const PQconninfoOption *opts, struct pgr_setting *list,
			 struct pgr_err *err)
{
	for (const PQconninfoOption *c = opts; c->keyword != NULL; c++)
		if (somebody_set(k, c) && pgr_settings_add(list, c->keyword, c->val, err) != PGR_OK)
			return PGR_ERR;
	return k->dbname == NULL ? PGR_OK : pgr_settings_add(list, "dbname", k->dbname, err);
}

static int new_settings(const struct pgr_libpq_keywords *k, const PQconninfoOption *opts, struct pgr_setting **list,
			struct pgr_err *err)
{
	size_t most = 2; /* dbname and the end */

	for (const PQconninfoOption *c = opts; c->keyword != NULL; c++)
		most++;
	*list = calloc(most, sizeof(**list));
	if (*list == NULL)
		return pgr_err_nomem(err);
	if (fill_settings(k, opts, *list, err) == PGR_OK)
		return PGR_OK;
	pgr_settings_free(*list);
	*list = NULL;
	return PGR_ERR;
}

int pgr_libpq_keywords_settings(const struct pgr_libpq_keywords *k, PGconn *conn, struct pgr_setting **list,
				struct pgr_err *err)
{
	PQconninfoOption *opts = PQconninfo(conn);
	int rc;

	*list = NULL;
	rc = opts != NULL ? new_settings(k, opts, list, err) : pgr_err_nomem(err);
	options_free(opts);
	return rc;
}
