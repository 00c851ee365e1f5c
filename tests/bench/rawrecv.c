/*
 * rawrecv CONNINFO START END: receives WAL from START until past END, and throws it away.
 *
 * What server, connection and protocol take on this machine when nothing is done with the bytes: no receiver of WAL
 * can be faster.  For benchmarks only.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/sys.h"
#include "proto/client.h"
#include "proto/command.h"
#include "proto/copydata.h"
#include "proto/transport_libpq.h"

struct raw {
	const struct pgr_sys *sys;
	struct pgr_client *client;
	struct pgr_copydata copy;
	pgr_lsn at; /* everything before it has come */
	pgr_lsn end;
};

static void on_notice(void *arg, const char *text)
{
	(void)arg;
	fputs(text, stderr);
}

static int connect_client(struct raw *r, const char *conninfo, struct pgr_err *err)
{
	struct pgr_conn_params params = {
		.conninfo = conninfo, .progname = "rawrecv", .password_mode = PGR_PASSWORD_NEVER};
	struct pgr_transport *t;
	int rc = pgr_transport_open(&t, r->sys, NULL, &params, PGR_CONN_PHYSICAL, err);

	if (rc == PGR_OK)
		rc = pgr_client_new(&r->client, t, r->sys, on_notice, NULL, err);
	pgr_conn_params_fini(&params);
	return rc;
}

static int start(struct raw *r, struct pgr_err *err)
{
	int64_t deadline = pgr_client_deadline(r->client, PGR_COMMAND_TIMEOUT_MS);
	struct pgr_buf text = {0};
	struct pgr_event ev;
	int rc = pgr_cmd_start_replication(&text, pgr_client_version(r->client), NULL, r->at, 0, err);

	if (rc == PGR_OK)
		rc = pgr_client_send(r->client, &text, err);
	pgr_buf_fini(&text);
	if (rc == PGR_OK)
		rc = pgr_client_expect(r->client, deadline, &ev, err);
	if (rc == PGR_OK && ev.kind != PGR_EV_COPY_BOTH)
		rc = pgr_err_set(err, PGR_E_PROTOCOL, "the server did not begin to stream");
	return rc;
}

/* A server that asks and hears nothing ends the connection. */
static int answer(struct raw *r, struct pgr_err *err)
{
	struct pgr_buf out = {0};
	int64_t now = pgr_pgtime_from_unix_us(r->sys->wall_us(r->sys));
	int rc = pgr_copydata_put_status(&out, r->at, r->at, 0, now, false, err);

	if (rc == PGR_OK)
		rc = pgr_client_copy_send(r->client, (struct pgr_span){out.data, out.len}, err);
	pgr_buf_fini(&out);
	return rc;
}

static int take_part(struct raw *r, const struct pgr_wire_msg *part, struct pgr_err *err)
{
	struct pgr_copy_head head;
	struct pgr_span payload;
	bool has_head;
	int rc = pgr_copydata_feed(&r->copy, part, &head, &has_head, &payload, err);

	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (has_head && head.kind == PGR_CK_WAL && head.start != r->at)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server sent WAL from another position");
	r->at += payload.len;
	return has_head && head.kind == PGR_CK_KEEPALIVE && head.reply_requested ? answer(r, err) : PGR_OK;
}

static int receive(struct raw *r, struct pgr_err *err)
{
	struct pgr_event ev;

	while (r->at <= r->end) {
		if (pgr_client_expect(r->client, PGR_NO_DEADLINE, &ev, err) != PGR_OK)
			return PGR_ERR;
		if (ev.kind != PGR_EV_COPY_DATA)
			return pgr_err_set(err, PGR_E_PROTOCOL, "the server ended the stream");
		if (take_part(r, &ev.part, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

int main(int argc, char **argv)
{
	struct raw r = {.sys = pgr_sys_real()};
	struct pgr_err err;
	int rc;

	if (argc != 4 || !pgr_lsn_parse(argv[2], strlen(argv[2]), &r.at) ||
	    !pgr_lsn_parse(argv[3], strlen(argv[3]), &r.end)) {
		fputs("usage: rawrecv CONNINFO START END\n", stderr);
		return 2;
	}
	pgr_copydata_init(&r.copy, PGR_COPY_WAL);
	rc = connect_client(&r, argv[1], &err);
	if (rc == PGR_OK)
		rc = start(&r, &err);
	if (rc == PGR_OK)
		rc = receive(&r, &err);
	if (rc != PGR_OK)
		fprintf(stderr, "rawrecv: error: %s\n", err.msg);
	pgr_client_free(r.client);
	pgr_copydata_fini(&r.copy);
	return rc == PGR_OK ? 0 : 1;
}
