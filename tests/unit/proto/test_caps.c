#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "proto/caps.h"

/* Each capability: the last server without it, the first with it. */
static const struct {
	enum pgr_cap cap;
	int without, with;
	const char *since;
} caps[] = {
	{PGR_CAP_WAL_STREAM, 90224, 90300, "9.3"},
	{PGR_CAP_TIMELINE_HISTORY, 90224, 90300, "9.3"},
	{PGR_CAP_SLOTS, 90325, 90400, "9.4"},
	{PGR_CAP_MAX_RATE, 90325, 90400, "9.4"},
	{PGR_CAP_TABLESPACE_MAP, 90426, 90500, "9.5"},
	{PGR_CAP_RESERVE_WAL, 90525, 90600, "9.6"},
	{PGR_CAP_SHOW, 90624, 100000, "10"},
	{PGR_CAP_TEMP_SLOTS, 90624, 100000, "10"},
	{PGR_CAP_PG_WAL, 90624, 100000, "10"},
	{PGR_CAP_SQL_READ, 90624, 100000, "10"},
	{PGR_CAP_SLOT_DROP_WAIT, 90624, 100000, "10"},
	{PGR_CAP_GROUP_ACCESS, 100023, 110000, "11"},
	{PGR_CAP_SQL_READ_GRANTS, 100023, 110000, "11"},
	{PGR_CAP_SQL_SHA256, 100023, 110000, "11"},
	{PGR_CAP_VERIFY_CHECKSUMS, 100023, 110000, "11"},
	{PGR_CAP_RECOVERY_SIGNAL, 110022, 120000, "12"},
	{PGR_CAP_MANIFEST, 120022, 130000, "13"},
	{PGR_CAP_PAREN_OPTIONS, 140023, 150000, "15"},
	{PGR_CAP_SERVER_COMPRESSION, 140023, 150000, "15"},
	{PGR_CAP_TARGETS, 140023, 150000, "15"},
	{PGR_CAP_BACKUP_START, 140023, 150000, "15"},
	{PGR_CAP_READ_SLOT, 140023, 150000, "15"},
	{PGR_CAP_RELATION_BLOCKS, 160014, 170000, "17"},
	{PGR_CAP_INCREMENTAL, 160014, 170000, "17"},
	{PGR_CAP_CONNINFO_DBNAME, 160014, 170000, "17"},
};

START_TEST(borders)
{
	ck_assert(!pgr_cap_has(caps[_i].without, caps[_i].cap));
	ck_assert(pgr_cap_has(caps[_i].with, caps[_i].cap));
	ck_assert(!pgr_cap_has(PGR_SERVER_MIN, caps[_i].cap));
	ck_assert(pgr_cap_has(190000, caps[_i].cap));
	ck_assert_str_eq(pgr_cap_since(caps[_i].cap), caps[_i].since);
}
END_TEST

/* No capability without a line above. */
START_TEST(complete)
{
	bool seen[PGR_CAP_COUNT] = {false};

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		seen[caps[i].cap] = true;
	for (size_t i = 0; i < PGR_CAP_COUNT; i++)
		ck_assert_msg(seen[i], "capability %zu is not tested", i);
	ck_assert(!pgr_cap_has(180000, PGR_CAP_COUNT));
	ck_assert_str_eq(pgr_cap_since(PGR_CAP_COUNT), "?");
}
END_TEST

static const struct {
	int major; /* the first whose libpq knows them */
	int before;
	const char *words[20];
} keywords[] = {
	{90100,
	 0,
	 {"user", "password", "host", "hostaddr", "port", "dbname", "service", "options", "connect_timeout",
	  "application_name", "fallback_application_name", "client_encoding", "replication", NULL}},
	{90100,
	 0,
	 {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "sslmode", "sslcert", "sslkey",
	  "sslrootcert", "sslcrl", "requirepeer", "krbsrvname", "gsslib", NULL}},
	{90200, 90124, {"sslcompression", NULL}},
	{100000, 90624, {"passfile", "target_session_attrs", NULL}},
	{120000, 110022, {"gssencmode", "tcp_user_timeout", NULL}},
	{130000,
	 120022,
	 {"channel_binding", "sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version", NULL}},
	{140000, 130023, {"sslcrldir", "sslsni", NULL}},
	{160000, 150020, {"require_auth", "sslcertmode", "gssdelegation", "load_balance_hosts", NULL}},
	{170000, 160014, {"sslnegotiation", NULL}},
	{180000,
	 170010,
	 {"min_protocol_version", "max_protocol_version", "sslkeylogfile", "scram_client_key", "scram_server_key",
	  "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope", NULL}},
};

START_TEST(conninfo)
{
	for (const char *const *w = keywords[_i].words; *w != NULL; w++) {
		ck_assert_msg(pgr_cap_conninfo_keyword(keywords[_i].major, *w), "%s", *w);
		ck_assert_msg(pgr_cap_conninfo_keyword(190000, *w), "%s", *w);
		ck_assert_msg(!pgr_cap_conninfo_keyword(keywords[_i].before, *w), "%s", *w);
	}
}
END_TEST

START_TEST(conninfo_unknown)
{
	static const char *const words[] = {"", "USER", "user ", "use", "tty", "authtype", "requiressl", "frobnicate"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		ck_assert(!pgr_cap_conninfo_keyword(180000, words[i]));
}
END_TEST

START_TEST(version)
{
	static const struct {
		int version;
		const char *text;
	} cases[] = {{90100, "9.1.0"},	{90124, "9.1.24"},  {90624, "9.6.24"},		{100000, "10.0"},
		     {150020, "15.20"}, {180006, "18.6"},   {190000, "19.0"},		{-1, "0.0.0"},
		     {0, "0.0.0"},	{99999, "9.99.99"}, {2147483647, "214748.3647"}};
	char out[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(out, 'x', sizeof(out));
		pgr_version_format(out, cases[i].version);
		ck_assert_str_eq(out, cases[i].text);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("caps");
	TCase *tc = tcase_create("caps");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, borders, 0, (int)(sizeof(caps) / sizeof(caps[0])));
	tcase_add_test(tc, complete);
	tcase_add_loop_test(tc, conninfo, 0, (int)(sizeof(keywords) / sizeof(keywords[0])));
	tcase_add_test(tc, conninfo_unknown);
	tcase_add_test(tc, version);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
