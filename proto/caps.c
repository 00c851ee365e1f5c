/* What a server version can do: see caps.h. */
#include "proto/caps.h"

#include <stdio.h>
#include <string.h>

/*
 * Versions in libpq's form: two-part majors up to 9.6 (90600), one-part from 10 (100000).  A capability belongs to the
 * whole major version, so that development versions of the next one (190000) have all of them.
 */
struct since {
	int version;
	const char *text;
};

/* Sources: release notes of the version; src/backend/replication/repl_gram.y and basebackup.c of each major. */
static const struct since caps[PGR_CAP_COUNT] = {
	[PGR_CAP_WAL_STREAM] = {90300, "9.3"},
	[PGR_CAP_TIMELINE_HISTORY] = {90300, "9.3"},
	[PGR_CAP_SLOTS] = {90400, "9.4"},
	[PGR_CAP_MAX_RATE] = {90400, "9.4"},
	[PGR_CAP_TABLESPACE_MAP] = {90500, "9.5"},
	[PGR_CAP_RESERVE_WAL] = {90600, "9.6"},
	[PGR_CAP_SHOW] = {100000, "10"},
	[PGR_CAP_TEMP_SLOTS] = {100000, "10"},
	[PGR_CAP_PG_WAL] = {100000, "10"},
	[PGR_CAP_SQL_READ] = {100000, "10"},
	[PGR_CAP_SLOT_DROP_WAIT] = {100000, "10"},
	[PGR_CAP_GROUP_ACCESS] = {110000, "11"},
	[PGR_CAP_SQL_READ_GRANTS] = {110000, "11"},
	[PGR_CAP_SQL_SHA256] = {110000, "11"},
	[PGR_CAP_VERIFY_CHECKSUMS] = {110000, "11"},
	[PGR_CAP_RECOVERY_SIGNAL] = {120000, "12"},
	[PGR_CAP_MANIFEST] = {130000, "13"},
	[PGR_CAP_PAREN_OPTIONS] = {150000, "15"},
	[PGR_CAP_SERVER_COMPRESSION] = {150000, "15"},
	[PGR_CAP_TARGETS] = {150000, "15"},
	[PGR_CAP_BACKUP_START] = {150000, "15"},
	[PGR_CAP_READ_SLOT] = {150000, "15"},
	[PGR_CAP_RELATION_BLOCKS] = {170000, "17"},
	[PGR_CAP_INCREMENTAL] = {170000, "17"},
	[PGR_CAP_CONNINFO_DBNAME] = {170000, "17"},
};

bool pgr_cap_has(int server_version, enum pgr_cap cap)
{
	return (unsigned)cap < PGR_CAP_COUNT && server_version >= caps[cap].version;
}

const char *pgr_cap_since(enum pgr_cap cap)
{
	return (unsigned)cap < PGR_CAP_COUNT ? caps[cap].text : "?";
}

/*
 * The keywords of PQconninfoOptions (src/interfaces/libpq/fe-connect.c) and the major that brought each; 90100 stands
 * for "always", as far as pgr is concerned.  authtype and tty are left out: they never did anything here, and 14
 * dropped them.
 */
static const struct {
	const char *keyword;
	int version;
} keywords[] = {
	{"application_name", 90100},
	{"channel_binding", 130000},
	{"client_encoding", 90100},
	{"connect_timeout", 90100},
	{"dbname", 90100},
	{"fallback_application_name", 90100},
	{"gssdelegation", 160000},
	{"gssencmode", 120000},
	{"gsslib", 90100},
	{"host", 90100},
	{"hostaddr", 90100},
	{"keepalives", 90100},
	{"keepalives_count", 90100},
	{"keepalives_idle", 90100},
	{"keepalives_interval", 90100},
	{"krbsrvname", 90100},
	{"load_balance_hosts", 160000},
	{"max_protocol_version", 180000},
	{"min_protocol_version", 180000},
	{"oauth_client_id", 180000},
	{"oauth_client_secret", 180000},
	{"oauth_issuer", 180000},
	{"oauth_scope", 180000},
	{"options", 90100},
	{"passfile", 100000},
	{"password", 90100},
	{"port", 90100},
	{"replication", 90100},
	{"require_auth", 160000},
	{"requirepeer", 90100},
	{"scram_client_key", 180000},
	{"scram_server_key", 180000},
	{"service", 90100},
	{"ssl_max_protocol_version", 130000},
	{"ssl_min_protocol_version", 130000},
	{"sslcert", 90100},
	{"sslcertmode", 160000},
	{"sslcompression", 90200},
	{"sslcrl", 90100},
	{"sslcrldir", 140000},
	{"sslkey", 90100},
	{"sslkeylogfile", 180000},
	{"sslmode", 90100},
	{"sslnegotiation", 170000},
	{"sslpassword", 130000},
	{"sslrootcert", 90100},
	{"sslsni", 140000},
	{"target_session_attrs", 100000},
	{"tcp_user_timeout", 120000},
	{"user", 90100},
};

bool pgr_cap_conninfo_keyword(int server_version, const char *keyword)
{
	for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
		if (strcmp(keywords[i].keyword, keyword) == 0)
			return server_version >= keywords[i].version;
	return false;
}

void pgr_version_format(char out[16], int server_version)
{
	unsigned v = server_version < 0 ? 0 : (unsigned)server_version;

	if (v >= 100000)
		snprintf(out, 16, "%u.%u", v / 10000, v % 10000);
	else
		snprintf(out, 16, "%u.%u.%u", v / 10000, v / 100 % 100, v % 100);
}
