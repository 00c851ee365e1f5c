#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/source.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/client.h"
#include "tests/support/scripted.h"

/* ---- scripts ---- */

static struct pgr_buf script;
static struct pgr_base_backup_cmd cmd;
static struct pgr_client *client;
static struct pgr_bbstream *bb;
static struct pgr_err err;

static void setup(void)
{
	script = (struct pgr_buf){0};
	cmd = (struct pgr_base_backup_cmd){.label = "test", .progress = true, .manifest = true};
	client = NULL;
	bb = NULL;
}

static void hang_up(void)
{
	pgr_bbstream_free(bb);
	bb = NULL;
	pgr_client_free(client);
	client = NULL;
}

static void teardown(void)
{
	hang_up();
	pgr_buf_fini(&script);
}

static void position(const char *lsn, const char *tli)
{
	pgr_msg_row_desc(&script, tli != NULL ? 2 : 1, (const char *const[]){"recptr", "tli"});
	pgr_msg_row(&script, tli != NULL ? 2 : 1, (const char *const[]){lsn, tli});
	pgr_msg_complete(&script, "SELECT");
}

static void list_begin(void)
{
	pgr_msg_row_desc(&script, 3, (const char *const[]){"spcoid", "spclocation", "size"});
}

static void list_row(const char *oid, const char *location, const char *size)
{
	pgr_msg_row(&script, 3, (const char *const[]){oid, location, size});
}

static void list_end(void)
{
	pgr_msg_complete(&script, "SELECT");
}

/* Two tablespaces, one of them in place, and the data directory. */
static void normal_list(void)
{
	list_begin();
	list_row("16385", "/srv/ts", "100");
	list_row("16390", "pg_tblspc/16390", NULL);
	list_row(NULL, NULL, "20000");
	list_end();
}

static void preamble(void)
{
	position("0/2000028", "3");
	normal_list();
}

static void body(char type, const void *p, size_t n)
{
	uint8_t b[8192];

	b[0] = (uint8_t)type;
	memcpy(b + 1, p, n);
	pgr_msg_copy_data(&script, b, n + 1);
}

static void copy_begin(void)
{
	pgr_msg_copy_response(&script, 'H');
}

static void archive(const char *name, const char *location)
{
	char b[4096];
	size_t n = strlen(name) + 1, m = strlen(location) + 1;

	memcpy(b, name, n);
	memcpy(b + n, location, m);
	body('n', b, n + m);
}

static void data(const char *text)
{
	body('d', text, strlen(text));
}

static void progress(uint8_t bytes)
{
	body('p', (uint8_t[8]){0, 0, 0, 0, 0, 0, 0, bytes}, 8);
}

static void manifest(void)
{
	body('m', "", 0);
}

static void copy_end(void)
{
	pgr_msg_copy_done(&script);
}

static void raw_copy(const char *const *parts)
{
	copy_begin();
	for (; *parts != NULL; parts++)
		pgr_msg_copy_data(&script, *parts, strlen(*parts));
	copy_end();
}

static void good_end(void)
{
	position("0/2000100", "4");
	pgr_msg_complete(&script, "BASE_BACKUP");
	pgr_msg_ready(&script);
}

/* The same backup in both framings. */
static void framed_copies(void)
{
	copy_begin();
	archive("16385.tar", "/srv/ts");
	data("first");
	data("");
	data(" archive");
	progress(13);
	archive("16390.tar.gz", "pg_tblspc/16390");
	progress(14);
	archive("base.tar.zst", "");
	data("b");
	data("ase");
	progress(17);
	manifest();
	data("{mani");
	data("fest}");
	copy_end();
}

static void raw_copies(void)
{
	raw_copy((const char *const[]){"first", "", " archive", NULL});
	raw_copy((const char *const[]){NULL});
	raw_copy((const char *const[]){"b", "ase", NULL});
	raw_copy((const char *const[]){"{mani", "fest}", NULL});
}

static void normal(int version)
{
	preamble();
	if (version >= 150000)
		framed_copies();
	else
		raw_copies();
	good_end();
}

/* ---- the client's side ---- */

/* Plays the first `len` bytes of the script, in pieces; then the connection ends. */
static struct pgr_scripted *connect_to(int version, size_t chunk, size_t len)
{
	struct pgr_scripted *s = pgr_scripted_new(version, chunk);

	pgr_scripted_expect(s, 'Q');
	pgr_scripted_send(s, script.data, len);
	pgr_scripted_eof(s);
	ck_assert_int_eq(pgr_client_new(&client, pgr_scripted_transport(s), pgr_sys_real(), NULL, NULL, &err), PGR_OK);
	return s;
}

static int start(int version)
{
	connect_to(version, 0, script.len);
	return pgr_bbstream_start(&bb, client, &cmd, &err);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

/* All of an archive, read with a buffer of `cap` bytes, as a string. */
static int read_all(struct pgr_source *s, size_t cap, struct pgr_buf *out)
{
	char dst[64];
	size_t n;
	int rc;

	do {
		rc = pgr_source_read(s, dst, cap, &n, &err);
		if (rc == PGR_OK)
			ck_assert_int_eq(pgr_buf_put(out, dst, n, &err), PGR_OK);
	} while (rc == PGR_OK && n > 0);
	return rc;
}

/* Reads a whole backup and tells it as text: archives, their content, the end. */
static int run(size_t cap, struct pgr_buf *told)
{
	struct pgr_archive a;
	struct pgr_err e;
	pgr_lsn end;
	pgr_tli tli;
	int rc;

	if (pgr_bbstream_start(&bb, client, &cmd, &err) != PGR_OK)
		return PGR_ERR;
	while ((rc = pgr_bbstream_next(bb, &a, &err)) == PGR_OK) {
		ck_assert_int_eq(pgr_buf_printf(told, &e, "[%d %u %s:", a.kind, a.tablespace ? a.tablespace->oid : 0,
						a.kind == PGR_ARCHIVE_MANIFEST ? "" : a.tablespace->location),
				 PGR_OK);
		if (read_all(a.source, cap, told) != PGR_OK)
			return PGR_ERR;
		ck_assert_int_eq(pgr_buf_puts(told, "]", &e), PGR_OK);
	}
	if (rc != PGR_MORE || pgr_bbstream_finish(bb, &end, &tli, &err) != PGR_OK)
		return PGR_ERR;
	ck_assert_int_eq(pgr_buf_printf(told, &e, "%" PGR_LSN_FMT " %u", PGR_LSN_ARG(end), tli), PGR_OK);
	return PGR_OK;
}

#define NORMAL_TOLD "[1 16385 /srv/ts:first archive][1 16390 pg_tblspc/16390:][0 0 :base][2 0 :{manifest}]0/2000100 4"

static const int versions[] = {180000, 150000, 140000, 130000};
#define NVERSIONS (int)(sizeof(versions) / sizeof(versions[0]))

/* ---- in good order ---- */

START_TEST(normal_details)
{
	const struct pgr_bb_tablespace *list;
	struct pgr_archive a;
	char buf[64];
	size_t n;

	normal(150000);
	must(start(150000));
	ck_assert_uint_eq(pgr_bbstream_start_lsn(bb), 0x2000028);
	ck_assert_uint_eq(pgr_bbstream_start_tli(bb), 3);
	ck_assert_uint_eq(pgr_bbstream_tablespaces(bb, &list), 3);
	ck_assert_uint_eq(list[0].oid, 16385);
	ck_assert_str_eq(list[0].location, "/srv/ts");
	ck_assert_int_eq(list[0].size_kb, 100);
	ck_assert_str_eq(list[1].location, "pg_tblspc/16390");
	ck_assert_int_eq(list[1].size_kb, -1);
	ck_assert_uint_eq(list[2].oid, 0);
	ck_assert_str_eq(list[2].location, "");
	ck_assert_int_eq(list[2].size_kb, 20000);

	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_str_eq(a.name, "16385.tar");
	ck_assert_ptr_eq(a.tablespace, &list[0]);
	ck_assert(a.terminated);
	must(pgr_source_read(a.source, buf, sizeof(buf), &n, &err));
	ck_assert_uint_eq(n, 5);
	ck_assert_uint_eq(pgr_bbstream_progress_bytes(bb), 0); /* the server has not said anything yet */
	while (pgr_source_read(a.source, buf, sizeof(buf), &n, &err) == PGR_OK && n > 0)
		;
	ck_assert_uint_eq(pgr_bbstream_progress_bytes(bb), 13);
	must(pgr_source_read(a.source, buf, sizeof(buf), &n, &err)); /* the end stays the end */
	ck_assert_uint_eq(n, 0);
	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_str_eq(a.name, "16390.tar.gz");
	must(pgr_bbstream_next(bb, &a, &err)); /* an empty one need not be read */
	ck_assert_str_eq(a.name, "base.tar.zst");
	ck_assert_int_eq(a.kind, PGR_ARCHIVE_DATA_DIR);
	ck_assert_ptr_eq(a.tablespace, &list[2]);
	while (pgr_source_read(a.source, buf, sizeof(buf), &n, &err) == PGR_OK && n > 0)
		;
	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_int_eq(a.kind, PGR_ARCHIVE_MANIFEST);
	ck_assert_str_eq(a.name, "");
	ck_assert_ptr_null(a.tablespace);
	ck_assert(!a.terminated);
	while (pgr_source_read(a.source, buf, sizeof(buf), &n, &err) == PGR_OK && n > 0)
		;
	ck_assert_uint_eq(pgr_bbstream_progress_bytes(bb), 17);
	ck_assert_int_eq(pgr_bbstream_next(bb, &a, &err), PGR_MORE);
	ck_assert_int_eq(pgr_bbstream_next(bb, &a, &err), PGR_MORE);
}
END_TEST

/* Before 15 the archives have no names and no end marks, and we count their bytes ourselves; not the manifest's. */
START_TEST(normal_details_raw)
{
	struct pgr_archive a;
	char buf[64];
	size_t n;

	normal(140000);
	must(start(140000));
	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_str_eq(a.name, "");
	ck_assert(!a.terminated);
	do {
		int rc = PGR_OK;

		do
			must(pgr_source_read(a.source, buf, sizeof(buf), &n, &err));
		while (n > 0);
		if (a.kind == PGR_ARCHIVE_TABLESPACE && a.tablespace->oid == 16385)
			ck_assert_uint_eq(pgr_bbstream_progress_bytes(bb), 13);
		rc = pgr_bbstream_next(bb, &a, &err);
		if (rc == PGR_MORE)
			break;
		must(rc);
	} while (true);
	ck_assert_uint_eq(pgr_bbstream_progress_bytes(bb), 17);
}
END_TEST

/* However the bytes come, and into however small a buffer. */
START_TEST(any_chunks)
{
	int version = versions[_i];

	normal(version);
	for (size_t chunk = 1; chunk <= script.len; chunk += chunk < 200 ? 1 : 97)
		for (size_t cap = 1; cap <= 64; cap *= 4) {
			struct pgr_buf told = {0};

			connect_to(version, chunk, script.len);
			must(run(cap, &told));
			ck_assert_str_eq(pgr_buf_str(&told), NORMAL_TOLD);
			ck_assert_int_eq(pgr_client_state(client), PGR_SS_READY);
			pgr_buf_fini(&told);
			hang_up();
		}
}
END_TEST

/* The connection ends anywhere: an error that says so, and nothing of it is taken for a backup. */
START_TEST(truncated)
{
	int version = versions[_i];

	normal(version);
	for (size_t len = 0; len < script.len; len++) {
		struct pgr_buf told = {0};

		connect_to(version, 50, len);
		ck_assert_int_eq(run(16, &told), PGR_ERR);
		ck_assert(err.cls == PGR_E_NETWORK || err.cls == PGR_E_PROTOCOL);
		ck_assert_msg(strstr(err.msg, "server closed the connection") || strstr(err.msg, "ended"), "%s",
			      err.msg);
		ck_assert_msg(strncmp(err.msg, "could not ", 10) == 0 || strncmp(err.msg, "final ", 6) == 0, "%s",
			      err.msg);
		pgr_buf_fini(&told);
		hang_up();
	}
}
END_TEST

/* Any byte may be wrong: that is an error or another backup, never a crash or a read beyond. */
START_TEST(bytes_changed)
{
	int version = versions[_i];

	normal(version);
	for (size_t at = 0; at < script.len; at++)
		for (int bit = 0; bit < 8; bit++) {
			struct pgr_buf told = {0};

			script.data[at] ^= (uint8_t)(1u << bit);
			connect_to(version, 0, script.len);
			if (run(64, &told) != PGR_OK)
				ck_assert_int_ne(err.msg[0], '\0');
			script.data[at] ^= (uint8_t)(1u << bit);
			pgr_buf_fini(&told);
			hang_up();
		}
}
END_TEST

/* Payload bigger than every buffer in between goes straight to the caller's. */
START_TEST(large_payload)
{
	const size_t size = 1000000;
	uint8_t *big = malloc(size + 1), *got = malloc(size);
	struct pgr_archive a;
	size_t at = 0, n;

	ck_assert(big != NULL && got != NULL);
	for (size_t i = 0; i <= size; i++)
		big[i] = (uint8_t)(i * 31 + i / 253);
	big[0] = 'd';
	cmd.manifest = false;
	position("0/2000028", "3");
	list_begin();
	list_row(NULL, NULL, NULL);
	list_end();
	copy_begin();
	archive("base.tar", "");
	pgr_msg_copy_data(&script, big, size + 1);
	pgr_msg_copy_data(&script, "d!", 2);
	copy_end();
	good_end();
	connect_to(180000, _i == 0 ? 0 : 70001, script.len);
	must(pgr_bbstream_start(&bb, client, &cmd, &err));
	must(pgr_bbstream_next(bb, &a, &err));
	while (at < size) {
		must(pgr_source_read(a.source, got + at, size - at, &n, &err));
		ck_assert_uint_gt(n, 0);
		at += n;
	}
	ck_assert_int_eq(memcmp(got, big + 1, size), 0);
	must(pgr_source_read(a.source, got, size, &n, &err));
	ck_assert(n == 1 && got[0] == '!');
	must(pgr_source_read(a.source, got, size, &n, &err));
	ck_assert_uint_eq(n, 0);
	free(big);
	free(got);
}
END_TEST

/* 9.1 and 9.2 tell no timeline. */
START_TEST(no_timeline)
{
	struct pgr_buf got = {0};
	struct pgr_archive a;
	pgr_lsn end;
	pgr_tli tli;

	cmd.manifest = false;
	position("0/2000028", NULL);
	list_begin();
	list_row(NULL, NULL, NULL);
	list_end();
	raw_copy((const char *const[]){"x", NULL});
	position("1/0", NULL);
	pgr_msg_complete(&script, "SELECT");
	pgr_msg_ready(&script);
	must(start(90100));
	ck_assert_uint_eq(pgr_bbstream_start_tli(bb), 0);
	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_int_eq(pgr_bbstream_next(bb, &a, &err), PGR_ERR); /* was not read */
	hang_up();
	must(start(90100));
	must(pgr_bbstream_next(bb, &a, &err));
	must(read_all(a.source, 1, &got));
	ck_assert_str_eq(pgr_buf_str(&got), "x");
	pgr_buf_fini(&got);
	ck_assert_int_eq(pgr_bbstream_next(bb, &a, &err), PGR_MORE);
	must(pgr_bbstream_finish(bb, &end, &tli, &err));
	ck_assert_uint_eq(end, (pgr_lsn)1 << 32);
	ck_assert_uint_eq(tli, 0);
}
END_TEST

/* What an archive is, it says itself: neither the list nor the copy needs an order. */
START_TEST(any_order)
{
	struct pgr_buf told = {0};

	cmd.manifest = false;
	position("0/2000028", "3");
	list_begin();
	list_row("30", "/c", NULL);
	list_row("10", "/a", NULL);
	list_row("20", "/b", NULL);
	list_row(NULL, NULL, NULL);
	list_end();
	copy_begin();
	archive("base.tar", "");
	archive("10.tar", "/a");
	archive("30.tar", "/c");
	archive("20.tar", "/b");
	copy_end();
	good_end();
	connect_to(180000, 0, script.len);
	must(run(64, &told));
	ck_assert_str_eq(pgr_buf_str(&told), "[0 0 :][1 10 /a:][1 30 /c:][1 20 /b:]0/2000100 4");
	pgr_buf_fini(&told);
}
END_TEST

/* ---- refusals and errors of the server ---- */

static void PGR_PRINTF(3, 4) check_error(int rc, enum pgr_errclass cls, const char *fmt, ...)
{
	char want[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, cls);
}

START_TEST(refused)
{
	pgr_msg_error(&script, "ERROR", "42601", "unrecognized target: \"x\"");
	pgr_msg_ready(&script);
	check_error(start(versions[_i]), PGR_E_SERVER,
		    "could not initiate base backup: ERROR:  unrecognized target: \"x\"");
	ck_assert_str_eq(err.sqlstate, "42601");
	ck_assert_ptr_null(bb);
}
END_TEST

START_TEST(refused_by_us)
{
	cmd.target = "blackhole";
	ck_assert_int_eq(start(140000), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_ptr_null(bb);
}
END_TEST

START_TEST(error_in_list)
{
	position("0/2000028", "1");
	pgr_msg_error(&script, "ERROR", "58000", "no list");
	check_error(start(versions[_i]), PGR_E_SERVER, "could not get backup header: ERROR:  no list");
}
END_TEST

/* The stock tool says "COPY stream ended before last file was finished", and the reason is lost. */
START_TEST(terminated_in_copy)
{
	struct pgr_buf told = {0};

	preamble();
	copy_begin();
	if (versions[_i] >= 150000) {
		archive("16385.tar", "/srv/ts");
		data("half");
	} else {
		pgr_msg_copy_data(&script, "half", 4);
	}
	pgr_msg_error(&script, "FATAL", "57P01", "terminating connection due to administrator command");
	connect_to(versions[_i], 0, script.len);
	check_error(run(64, &told), PGR_E_SERVER,
		    "could not read COPY data: FATAL:  terminating connection due to administrator command");
	ck_assert_str_eq(err.sqlstate, "57P01");
	ck_assert(err.fatal);
	pgr_buf_fini(&told);
}
END_TEST

START_TEST(error_before_copy)
{
	struct pgr_archive a;

	preamble();
	pgr_msg_error(&script, "ERROR", "58030", "disk on fire");
	pgr_msg_ready(&script);
	must(start(versions[_i]));
	check_error(pgr_bbstream_next(bb, &a, &err), PGR_E_SERVER,
		    "could not get COPY data stream: ERROR:  disk on fire");
}
END_TEST

/* ---- the end ---- */

static int run_to_end(pgr_lsn *end, pgr_tli *tli)
{
	struct pgr_buf sink = {0};
	struct pgr_archive a;
	int rc;

	must(start(180000));
	while ((rc = pgr_bbstream_next(bb, &a, &err)) == PGR_OK)
		must(read_all(a.source, 64, &sink));
	ck_assert_msg(rc == PGR_MORE, "%s", err.msg);
	pgr_buf_fini(&sink);
	return pgr_bbstream_finish(bb, end, tli, &err);
}

/* The copy is complete: where it ends is told together with the error. */
START_TEST(checksum_failure)
{
	pgr_lsn end = 0;
	pgr_tli tli = 0;

	preamble();
	framed_copies();
	position("0/2000100", "4");
	pgr_msg_error(&script, "ERROR", "XX001", "checksum verification failure during base backup");
	pgr_msg_ready(&script);
	check_error(run_to_end(&end, &tli), PGR_E_CHECKSUM, "checksum error occurred");
	ck_assert_str_eq(err.detail, "ERROR:  checksum verification failure during base backup");
	ck_assert_uint_eq(end, 0x2000100);
	ck_assert_uint_eq(tli, 4);
}
END_TEST

/* Without the end position there is no complete copy, whatever the code says. */
START_TEST(checksum_failure_early)
{
	pgr_lsn end = 1;
	pgr_tli tli = 1;

	preamble();
	framed_copies();
	pgr_msg_error(&script, "ERROR", "XX001", "invalid page");
	pgr_msg_ready(&script);
	check_error(run_to_end(&end, &tli), PGR_E_SERVER,
		    "could not get write-ahead log end position from server: ERROR:  invalid page");
	ck_assert_uint_eq(end, 0);
}
END_TEST

START_TEST(other_failure_at_end)
{
	pgr_lsn end;
	pgr_tli tli;

	preamble();
	framed_copies();
	position("0/2000100", "4");
	pgr_msg_error(&script, "ERROR", "57014", "canceling statement due to user request");
	pgr_msg_ready(&script);
	check_error(run_to_end(&end, &tli), PGR_E_SERVER,
		    "final receive failed: ERROR:  canceling statement due to user request");
}
END_TEST

START_TEST(finish_too_early)
{
	struct pgr_archive a;
	pgr_lsn end;
	pgr_tli tli;

	normal(180000);
	must(start(180000));
	must(pgr_bbstream_next(bb, &a, &err));
	ck_assert_int_eq(pgr_bbstream_finish(bb, &end, &tli, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
}
END_TEST

START_TEST(unread_archive)
{
	struct pgr_archive a;

	normal(versions[_i]);
	must(start(versions[_i]));
	must(pgr_bbstream_next(bb, &a, &err));
	check_error(pgr_bbstream_next(bb, &a, &err), PGR_E_DATA, "server sent data after the end of archive \"%s\"",
		    versions[_i] >= 150000 ? "16385.tar" : "");
}
END_TEST

/* ---- hostile positions and lists ---- */

static const char *const bad_positions[][2] = {
	{NULL, "1"}, {"", "1"},	    {"0/0", "1"}, {"0", "1"},	 {"x/y", "1"},		{"0/123456789", "1"},
	{"0/1", ""}, {"0/1", NULL}, {"0/1", "0"}, {"0/1", "-1"}, {"0/1", "4294967296"},
};

START_TEST(position_refused)
{
	const char *const *p = bad_positions[_i];

	pgr_msg_row_desc(&script, 2, (const char *const[]){"recptr", "tli"});
	pgr_msg_row(&script, 2, p);
	pgr_msg_complete(&script, "SELECT");
	ck_assert_int_eq(start(180000), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_msg(strstr(err.msg, "could not initiate base backup: server sent an invalid ") == err.msg, "%s",
		      err.msg);
}
END_TEST

/* No row, two rows, another message: each in the place of the one row. */
START_TEST(position_shape)
{
	pgr_msg_row_desc(&script, 2, (const char *const[]){"recptr", "tli"});
	if (_i == 1) {
		pgr_msg_row(&script, 2, (const char *const[]){"0/1", "1"});
		pgr_msg_row(&script, 2, (const char *const[]){"0/1", "1"});
	}
	if (_i == 2)
		script.len = 0;
	pgr_msg_complete(&script, "SELECT");
	ck_assert_int_eq(start(180000), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_msg(strstr(err.msg, "server returned unexpected response to BASE_BACKUP command") != NULL, "%s",
		      err.msg);
}
END_TEST

static char long_location[2000];

static const struct {
	const char *oid, *location, *size, *msg;
} bad_rows[] = {
	{"0", "/a", "1", "server sent an invalid tablespace identifier"},
	{"x", "/a", "1", "server sent an invalid tablespace identifier"},
	{"4294967296", "/a", "1", "server sent an invalid tablespace identifier"},
	{NULL, "/a", "1", "server sent an incomplete description of a tablespace"},
	{"1", NULL, "1", "server sent an incomplete description of a tablespace"},
	{"1", "", "1", "server sent an invalid location of tablespace 1"},
	{"1", "/a\nb", "1", "server sent an invalid location of tablespace 1"},
	{"1", "/\x1b[2J", "1", "server sent an invalid location of tablespace 1"},
	{"1", "/a\x7f", "1", "server sent an invalid location of tablespace 1"},
	{"1", long_location, "1", "server sent an invalid location of tablespace 1"},
	{"1", "/a", "-1", "server sent an invalid size of a tablespace"},
	{"1", "/a", "", "server sent an invalid size of a tablespace"},
	{"1", "/a", "9223372036854775808", "server sent an invalid size of a tablespace"},
	{"7", "/a", "1", "server sent tablespace 7 twice"},
};

START_TEST(row_refused)
{
	memset(long_location, 'x', 1024);
	position("0/1", "1");
	list_begin();
	list_row("7", "/b", NULL);
	list_row(bad_rows[_i].oid, bad_rows[_i].location, bad_rows[_i].size);
	list_row(NULL, NULL, NULL);
	list_end();
	check_error(start(180000), PGR_E_PROTOCOL, "could not get backup header: %s", bad_rows[_i].msg);
}
END_TEST

START_TEST(list_refused)
{
	position("0/1", "1");
	list_begin();
	if (_i == 1)
		list_row("1", "/a", NULL);
	if (_i == 2) {
		list_row(NULL, NULL, NULL);
		list_row("1", "/a", NULL);
	}
	if (_i == 3) {
		list_row(NULL, NULL, NULL);
		list_row(NULL, NULL, NULL);
	}
	list_end();
	check_error(start(180000), PGR_E_PROTOCOL, "could not get backup header: server sent a %s",
		    _i < 2 ? "list of tablespaces without the data directory" : "tablespace after the data directory");
}
END_TEST

/* As many as there may be are taken, one more is not. */
START_TEST(list_length)
{
	const struct pgr_bb_tablespace *list;

	position("0/1", "1");
	list_begin();
	for (int i = 1; i < 100000 + _i; i++) {
		char oid[16];

		snprintf(oid, sizeof(oid), "%d", 200000 - i);
		list_row(oid, "/a", NULL);
	}
	list_row(NULL, NULL, NULL);
	list_end();
	if (_i == 1) {
		check_error(start(180000), PGR_E_PROTOCOL,
			    "could not get backup header: server sent a list of more than 100000 tablespaces");
		return;
	}
	must(start(180000));
	ck_assert_uint_eq(pgr_bbstream_tablespaces(bb, &list), 100000);
	ck_assert_uint_eq(list[0].oid, 199999);
	ck_assert_uint_eq(list[99999].oid, 0);
}
END_TEST

/* ---- hostile archives ---- */

/* Runs what was scripted after the preamble, and expects this error. */
static void PGR_PRINTF(1, 2) check_copy(const char *fmt, ...)
{
	struct pgr_buf told = {0};
	char want[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	copy_end();
	good_end();
	connect_to(180000, 0, script.len);
	check_error(run(64, &told), PGR_E_PROTOCOL, "%s", want);
	pgr_buf_fini(&told);
}

static const char *const strangers[][2] = {
	{"16386.tar", "/srv/ts"},      /* another number */
	{"16385.tar", "/srv/other"},   /* another place */
	{"16385.tar", "/srv/ts/"},     /* ... */
	{"16385.tar", ""},	       /* called a tablespace, placed in the data directory */
	{"base.tar", "/srv/ts"},       /* the other way round */
	{"16390.tar", "/srv/ts"},      /* two announced ones mixed up */
	{"16385", "/srv/ts"},	       /* not a tar */
	{"16385tar", "/srv/ts"},       /* ... */
	{"x16385.tar", "/srv/ts"},     /* ... */
	{"basement.tar", ""},	       /* ... */
	{"4294983681.tar", "/srv/ts"}, /* 2^32 + 16385 */
	{"0.tar", "/srv/ts"},	       /* ... */
};

START_TEST(archive_not_announced)
{
	preamble();
	copy_begin();
	archive(strangers[_i][0], strangers[_i][1]);
	check_copy("server sent an archive \"%s\" that it did not announce", strangers[_i][0]);
}
END_TEST

static char long_name[300];
static const char *const bad_names[] = {"", ".tar", "a/b.tar", "a\\b.tar", "a b.tar", "a\n.tar", "\xff.tar", long_name};

START_TEST(archive_name_refused)
{
	memset(long_name, 'x', 256);
	preamble();
	copy_begin();
	archive(bad_names[_i], "/srv/ts");
	check_copy("server sent an invalid archive name");
}
END_TEST

START_TEST(archive_twice)
{
	preamble();
	copy_begin();
	archive("16385.tar", "/srv/ts");
	archive("16385.tar", "/srv/ts");
	check_copy("server sent the archive \"16385.tar\" twice");
}
END_TEST

START_TEST(archives_missing)
{
	preamble();
	copy_begin();
	archive("16385.tar", "/srv/ts");
	if (_i == 1)
		archive("base.tar", "");
	check_copy("server sent only %d of 3 archives", 1 + _i);
}
END_TEST

START_TEST(manifest_before_archives)
{
	preamble();
	copy_begin();
	archive("16385.tar", "/srv/ts");
	manifest();
	archive("16390.tar", "pg_tblspc/16390");
	archive("base.tar", "");
	check_copy("server sent only 1 of 3 archives");
}
END_TEST

static void all_archives(void)
{
	preamble();
	copy_begin();
	archive("16385.tar", "/srv/ts");
	archive("16390.tar", "pg_tblspc/16390");
	archive("base.tar", "");
	data("x");
}

START_TEST(manifest_missing)
{
	all_archives();
	check_copy("server sent no backup manifest");
}
END_TEST

START_TEST(manifest_not_wanted)
{
	cmd.manifest = false;
	all_archives();
	manifest();
	check_copy("server sent a backup manifest that was not asked for");
}
END_TEST

START_TEST(manifest_twice)
{
	all_archives();
	manifest();
	manifest();
	check_copy("server sent the backup manifest twice");
}
END_TEST

START_TEST(archive_after_manifest)
{
	all_archives();
	manifest();
	archive("base.tar", "");
	check_copy("server sent the archive \"base.tar\" twice");
}
END_TEST

/* Even an empty one. */
START_TEST(data_before_archive)
{
	preamble();
	copy_begin();
	data(_i == 0 ? "" : "x");
	check_copy("server sent data that belongs to no archive");
}
END_TEST

START_TEST(unknown_message)
{
	preamble();
	copy_begin();
	body('z', "x", 1);
	check_copy("could not read COPY data: unexpected message 'z' in the base backup");
}
END_TEST

/* Before 15: as many COPYs as there are rows, and one for the manifest if it was asked for. */
START_TEST(raw_copy_missing)
{
	struct pgr_buf told = {0};

	preamble();
	raw_copy((const char *const[]){"1", NULL});
	raw_copy((const char *const[]){"2", NULL});
	raw_copy((const char *const[]){"3", NULL});
	good_end();
	connect_to(140000, 0, script.len);
	check_error(run(64, &told), PGR_E_PROTOCOL,
		    "could not get COPY data stream: server returned unexpected response to BASE_BACKUP command; "
		    "expected a COPY data stream");
	pgr_buf_fini(&told);
}
END_TEST

START_TEST(raw_copy_too_many)
{
	struct pgr_buf told = {0};

	cmd.manifest = false;
	preamble();
	raw_copies();
	good_end();
	connect_to(140000, 0, script.len);
	check_error(run(64, &told), PGR_E_PROTOCOL,
		    "could not get write-ahead log end position from server: server returned unexpected response to "
		    "BASE_BACKUP command; expected a write-ahead log location");
	pgr_buf_fini(&told);
}
END_TEST

/* ---- stopping ---- */

/* The words are those of whoever stopped us, without ours in front. */
START_TEST(stopped)
{
	struct pgr_scripted *s;
	struct pgr_stop *stop;
	struct pgr_err why;
	struct pgr_buf told = {0};

	must(pgr_stop_new(&stop, &err));
	normal(180000);
	s = pgr_scripted_new(180000, 0);
	pgr_scripted_set_stop(s, stop);
	pgr_scripted_expect(s, 'Q');
	pgr_scripted_send(s, script.data, _i == 0 ? 20 : 400);
	must(pgr_client_new(&client, pgr_scripted_transport(s), pgr_sys_real(), NULL, NULL, &err));
	pgr_err_set(&why, PGR_E_STOPPED, "interrupted by a signal");
	pgr_stop_post(stop, &why);
	check_error(run(64, &told), PGR_E_STOPPED, "interrupted by a signal");
	pgr_buf_fini(&told);
	hang_up();
	pgr_stop_free(stop);
}
END_TEST

static TCase *add_case(Suite *s, const char *name)
{
	TCase *t = tcase_create(name);

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	return t;
}

#define COUNT(a) (int)(sizeof(a) / sizeof((a)[0]))

static void add_hostile(Suite *s)
{
	TCase *t = add_case(s, "hostile");

	tcase_add_loop_test(t, position_refused, 0, COUNT(bad_positions));
	tcase_add_loop_test(t, position_shape, 0, 3);
	tcase_add_loop_test(t, row_refused, 0, COUNT(bad_rows));
	tcase_add_loop_test(t, list_refused, 0, 4);
	tcase_add_loop_test(t, list_length, 0, 2);
	tcase_add_loop_test(t, archive_not_announced, 0, COUNT(strangers));
	tcase_add_loop_test(t, archive_name_refused, 0, COUNT(bad_names));
	tcase_add_test(t, archive_twice);
	tcase_add_loop_test(t, archives_missing, 0, 2);
	tcase_add_test(t, manifest_before_archives);
	tcase_add_test(t, manifest_missing);
	tcase_add_test(t, manifest_not_wanted);
	tcase_add_test(t, manifest_twice);
	tcase_add_test(t, archive_after_manifest);
	tcase_add_loop_test(t, data_before_archive, 0, 2);
	tcase_add_test(t, unknown_message);
	tcase_add_test(t, raw_copy_missing);
	tcase_add_test(t, raw_copy_too_many);
	tcase_add_loop_test(t, bytes_changed, 0, NVERSIONS);
}

static Suite *bbstream_suite(void)
{
	Suite *s = suite_create("bbstream");
	TCase *n = add_case(s, "normal"), *e = add_case(s, "errors");

	tcase_add_test(n, normal_details);
	tcase_add_test(n, normal_details_raw);
	tcase_add_loop_test(n, any_chunks, 0, NVERSIONS);
	tcase_add_loop_test(n, truncated, 0, NVERSIONS);
	tcase_add_loop_test(n, large_payload, 0, 2);
	tcase_add_test(n, no_timeline);
	tcase_add_test(n, any_order);
	tcase_add_loop_test(e, refused, 0, NVERSIONS);
	tcase_add_test(e, refused_by_us);
	tcase_add_loop_test(e, error_in_list, 0, NVERSIONS);
	tcase_add_loop_test(e, terminated_in_copy, 0, NVERSIONS);
	tcase_add_loop_test(e, error_before_copy, 0, NVERSIONS);
	tcase_add_test(e, checksum_failure);
	tcase_add_test(e, checksum_failure_early);
	tcase_add_test(e, other_failure_at_end);
	tcase_add_test(e, finish_too_early);
	tcase_add_loop_test(e, unread_archive, 0, NVERSIONS);
	tcase_add_loop_test(e, stopped, 0, 2);
	add_hostile(s);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(bbstream_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
