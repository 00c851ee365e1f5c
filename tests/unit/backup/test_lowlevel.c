/* lowlevel.c against a scripted server: a backup held open by one session. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/lowlevel.h"
#include "backup/rowsum.h"
#include "common/crc32c.h"
#include "common/digest.h"
#include "common/stop.h"
#include "tests/support/sqlscript.h"

#define V10 100023
#define V14 140023
#define V15 150020

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static const size_t chunks[] = {0, 1, 7, 4096};
#define N_CHUNKS COUNT(chunks)

struct fixture {
	struct sqlscript s;
	struct pgr_lowlevel *l;
};

static void begin(struct fixture *f, int version, size_t chunk)
{
	memset(f, 0, sizeof(*f));
	sqls_begin(&f->s, version, chunk);
	ck_assert_int_eq(pgr_lowlevel_new(&f->l, f->s.c, &f->s.err), PGR_OK);
	ck_assert_ptr_eq(pgr_lowlevel_client(f->l), f->s.c);
}

static void end(struct fixture *f)
{
	pgr_lowlevel_free(f->l);
	f->s.c = NULL;
	sqls_end(&f->s);
}

/* ---- start ---- */

#define START	   0x2000028
#define START_TEXT "0/2000028"

static void start(struct fixture *f)
{
	pgr_lsn lsn;

	sqls_row(&f->s, START_TEXT);
	ck_assert_msg(pgr_lowlevel_start(f->l, "label", true, &lsn, &f->s.err) == PGR_OK, "%s", f->s.err.msg);
	ck_assert_uint_eq(lsn, START);
}

START_TEST(test_start)
{
	struct fixture f;
	pgr_lsn lsn;

	begin(&f, V15, chunks[_i]);
	sqls_row(&f.s, "1A/2B3C4D5E");
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "it's \\ me", false, &lsn, &f.s.err), PGR_OK);
	ck_assert_uint_eq(lsn, 0x1A2B3C4D5Eull);
	sqls_check_sent(&f.s, "SELECT pg_backup_start('it''s \\ me', false)", true);
	end(&f);
}
END_TEST

START_TEST(test_start_before_15)
{
	struct fixture f;
	pgr_lsn lsn;

	begin(&f, V14, 0);
	sqls_row(&f.s, START_TEXT);
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", true, &lsn, &f.s.err), PGR_OK);
	sqls_check_sent(&f.s, "SELECT pg_start_backup('label', true, false)", true);
	end(&f);
}
END_TEST

static const char *const bad_starts[] = {"", NULL, "0/0", "x", "0/2000028 ", "0/100000000"};

START_TEST(test_bad_start)
{
	struct fixture f;
	pgr_lsn lsn;

	begin(&f, V15, 0);
	sqls_row(&f.s, bad_starts[_i]);
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", true, &lsn, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_PROTOCOL, "pg_backup_start");
	end(&f);
}
END_TEST

START_TEST(test_start_not_one_row)
{
	static const char *const two[] = {START_TEXT, START_TEXT};
	struct fixture f;
	pgr_lsn lsn;

	begin(&f, V15, 0);
	sqls_rows(&f.s, 1, _i, two);
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", true, &lsn, &f.s.err), _i == 1 ? PGR_OK : PGR_ERR);
	if (_i != 1)
		ck_assert_int_eq(f.s.err.cls, PGR_E_PROTOCOL);
	end(&f);
}
END_TEST

START_TEST(test_start_refused)
{
	struct fixture f;
	pgr_lsn lsn;

	begin(&f, V15, 0);
	sqls_error(&f.s, "22023", "backup label too long (max 1024 bytes)");
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", true, &lsn, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_SERVER,
		       "could not initiate base backup: ERROR:  backup label too long (max 1024 bytes)");
	end(&f);
}
END_TEST

/* ---- what is still running when it ends ---- */

/* The scripted transport's own, and a cancel that counts where the transport does not take the number away. */
struct counting {
	struct pgr_transport_ops ops;
	unsigned *cancels;
};

static void count_cancel(struct pgr_transport *t)
{
	(*((const struct counting *)(const void *)t->ops)->cancels)++;
}

static void count_cancels(struct fixture *f, struct counting *c, unsigned *cancels)
{
	struct pgr_transport *t = pgr_client_transport(f->s.c);

	*cancels = 0;
	c->ops = *t->ops;
	c->ops.cancel = count_cancel;
	c->cancels = cancels;
	t->ops = &c->ops;
}

/* Stopped while the server makes its checkpoint: it is told, or it would go on for nobody. */
START_TEST(test_stopped_while_starting)
{
	struct counting counting;
	struct pgr_stop *stop;
	struct pgr_err why;
	struct fixture f;
	unsigned cancels;
	pgr_lsn lsn;

	begin(&f, V15, 0);
	count_cancels(&f, &counting, &cancels);
	ck_assert_int_eq(pgr_stop_new(&stop, &why), PGR_OK);
	pgr_scripted_set_stop(f.s.srv, stop);
	pgr_err_set(&why, PGR_E_STOPPED, "enough");
	pgr_stop_post(stop, &why);
	pgr_scripted_expect(f.s.srv, 'Q');
	ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", false, &lsn, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_STOPPED, "enough");
	end(&f);
	ck_assert_uint_eq(cancels, 1);
	pgr_stop_free(stop);
}
END_TEST

START_TEST(test_nothing_to_cancel)
{
	struct counting counting;
	struct fixture f;
	unsigned cancels;

	begin(&f, V15, 0);
	count_cancels(&f, &counting, &cancels);
	start(&f);
	if (_i == 1) {
		sqls_fatal(&f.s, false);
		ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_ERR);
	}
	end(&f);
	ck_assert_uint_eq(cancels, 0);
	pgr_lowlevel_free(NULL);
}
END_TEST

/* ---- the list ---- */

static void say_list(struct fixture *f, const char *second)
{
	const char *cells[] = {"PG_VERSION", "f", "3", "1", second, "t", "4096", "1"};

	sqls_rows(&f->s, 1, 0, NULL); /* pg_tblspc */
	sqls_rows(&f->s, 2, 0, NULL); /* settings */
	sqls_rows(&f->s, 4, 2, cells);
}

START_TEST(test_list)
{
	const struct pgr_bb_tablespace *ts, *again;
	struct pgr_filelist list = {0};
	struct fixture f;
	size_t n;

	begin(&f, V15, chunks[_i]);
	start(&f);
	say_list(&f, "base");
	ck_assert_msg(pgr_lowlevel_list(f.l, &list, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
	ck_assert_uint_eq(list.n, 2);
	/* asked for once */
	ck_assert_int_eq(pgr_lowlevel_tablespaces(f.l, &ts, &n, &f.s.err), PGR_OK);
	ck_assert_uint_eq(n, 1);
	ck_assert_int_eq(pgr_lowlevel_tablespaces(f.l, &again, &n, &f.s.err), PGR_OK);
	ck_assert_ptr_eq(ts, again);
	pgr_filelist_fini(&list);
	end(&f);
}
END_TEST

START_TEST(test_list_fails)
{
	struct pgr_filelist list = {0};
	struct fixture f;

	begin(&f, V15, 0);
	if (_i == 0)
		say_list(&f, "../base");
	else
		sqls_error(&f.s, "42501", "permission denied");
	ck_assert_int_eq(pgr_lowlevel_list(f.l, &list, &f.s.err), PGR_ERR);
	ck_assert_int_eq(f.s.err.cls, _i == 0 ? PGR_E_DATA : PGR_E_SERVER);
	ck_assert_uint_eq(list.n, 0);
	ck_assert_ptr_null(list.entries);
	end(&f);
}
END_TEST

/* ---- pg_control ---- */

#define CONTROL_BYTES 8192

/* A control file whose CRC is at `at`, as the server shows it. */
static void make_control(char hex[2 * CONTROL_BYTES + 1], size_t at, bool big_endian)
{
	uint8_t file[CONTROL_BYTES] = {0};
	uint32_t crc;

	for (size_t i = 0; i < at; i++)
		file[i] = (uint8_t)(i * 7 + 1);
	crc = pgr_crc32c(0, file, at);
	for (int i = 0; i < 4; i++)
		file[at + (size_t)i] = (uint8_t)(crc >> 8 * (big_endian ? 3 - i : i));
	for (size_t i = 0; i < CONTROL_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", file[i]);
}

static const struct {
	size_t at;
	bool big_endian;
	bool good;
} crcs[] = {
	{288, false, true}, {280, false, true},	 {292, false, true},  {256, false, true},  {508, false, true},
	{288, true, true},  {290, false, false}, {252, false, false}, {512, false, false},
};

START_TEST(test_control)
{
	char hex[2 * CONTROL_BYTES + 1];
	struct pgr_buf out = {0};
	struct fixture f;

	begin(&f, V15, 0);
	make_control(hex, crcs[_i].at, crcs[_i].big_endian);
	for (int i = 0; i < (crcs[_i].good ? 1 : 10); i++)
		sqls_row(&f.s, hex);
	if (crcs[_i].good) {
		ck_assert_msg(pgr_lowlevel_control(f.l, &out, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(out.len, CONTROL_BYTES);
		for (size_t i = 0; i < CONTROL_BYTES; i++) {
			char two[3];

			snprintf(two, sizeof(two), "%02x", out.data[i]);
			if (memcmp(two, hex + 2 * i, 2) != 0)
				ck_abort_msg("byte %zu differs", i);
		}
	} else {
		ck_assert_int_eq(pgr_lowlevel_control(f.l, &out, &f.s.err), PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "\"global/pg_control\"");
	}
	sqls_check_sent(&f.s, "pg_read_binary_file('global/pg_control', 0, 8192, false)", true);
	pgr_buf_fini(&out);
	end(&f);
}
END_TEST

/* Torn up to nine times; every read replaces the one before. */
START_TEST(test_control_torn)
{
	char good[2 * CONTROL_BYTES + 1], torn[2 * CONTROL_BYTES + 1];
	struct pgr_buf out = {0};
	struct fixture f;

	begin(&f, V15, _i == 1 ? 1000 : 0);
	make_control(good, 288, false);
	make_control(torn, 288, false);
	torn[0] ^= 1;
	for (int i = 0; i < _i; i++)
		sqls_row(&f.s, torn);
	sqls_row(&f.s, good);
	ck_assert_int_eq(pgr_lowlevel_control(f.l, &out, &f.s.err), _i < 10 ? PGR_OK : PGR_ERR);
	if (_i < 10)
		ck_assert_uint_eq(out.len, CONTROL_BYTES);
	else
		sqls_check_err(&f.s.err, PGR_E_DATA, "does not hold");
	pgr_buf_fini(&out);
	end(&f);
}
END_TEST

START_TEST(test_control_of_another_form)
{
	char hex[2 * CONTROL_BYTES + 3];
	struct pgr_buf out = {0};
	struct fixture f;

	make_control(hex, 288, false);
	if (_i == 0)
		hex[2 * CONTROL_BYTES - 2] = '\0'; /* shorter */
	else if (_i == 1)
		strcat(hex, "00");
	else if (_i == 2)
		hex[100] = 'g';
	else
		hex[0] = '\0';
	begin(&f, V15, 0);
	sqls_row(&f.s, hex);
	ck_assert_int_eq(pgr_lowlevel_control(f.l, &out, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_DATA, "\"global/pg_control\"");
	pgr_buf_fini(&out);
	end(&f);
}
END_TEST

/* While it waits to read again, the session may end. */
START_TEST(test_control_and_the_end)
{
	char torn[2 * CONTROL_BYTES + 1];
	struct pgr_buf out = {0};
	struct fixture f;

	make_control(torn, 288, false);
	torn[0] ^= 1;
	begin(&f, V15, 0);
	if (_i == 0) {
		sqls_row(&f.s, torn);
		sqls_fatal(&f.s, false);
	} else {
		sqls_error(&f.s, "58P01", "could not open file \"global/pg_control\" for reading");
	}
	ck_assert_int_eq(pgr_lowlevel_control(f.l, &out, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_SERVER, _i == 0 ? "administrator command" : "could not open file");
	sqls_check_err(&f.s.err, PGR_E_SERVER, "could not read the server's file \"global/pg_control\": ");
	pgr_buf_fini(&out);
	end(&f);
}
END_TEST

/* ---- stop ---- */

#define LABEL_HEAD "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n"
#define LABEL	   LABEL_HEAD "BACKUP METHOD: streamed\nLABEL: START TIMELINE: 9\nSTART TIMELINE: 1\n"

START_TEST(test_stop)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	start(&f);
	sqls_row(&f.s, "0/3000000", LABEL, "16385 /mnt/ts\n");
	ck_assert_msg(pgr_lowlevel_stop(f.l, false, &e, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
	ck_assert_uint_eq(e.stop, 0x3000000);
	ck_assert_uint_eq(e.start_tli, 1);
	ck_assert_uint_eq(e.label.len, strlen(LABEL));
	ck_assert_str_eq(pgr_buf_str(&e.label), LABEL);
	ck_assert_str_eq(pgr_buf_str(&e.map), "16385 /mnt/ts\n");
	sqls_check_sent(&f.s, "SELECT lsn, labelfile, spcmapfile FROM pg_backup_stop(false)", true);
	pgr_backup_end_fini(&e);
	pgr_backup_end_fini(&e);
	end(&f);
}
END_TEST

static const struct {
	int version;
	bool wait;
	const char *command;
} stops[] = {
	{V15, true, "FROM pg_backup_stop(true)"},
	{V14, true, "FROM pg_stop_backup(false, true)"},
	{V14, false, "FROM pg_stop_backup(false, false)"},
	{V10, false, "FROM pg_stop_backup(false, false)"},
};

START_TEST(test_stop_commands)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin(&f, stops[_i].version, 0);
	start(&f);
	sqls_row(&f.s, START_TEXT, LABEL_HEAD, NULL); /* as 10: no timeline in the label */
	ck_assert_msg(pgr_lowlevel_stop(f.l, stops[_i].wait, &e, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
	ck_assert_uint_eq(e.start_tli, 1);
	ck_assert_uint_eq(e.map.len, 0);
	sqls_check_sent(&f.s, stops[_i].command, true);
	pgr_backup_end_fini(&e);
	end(&f);
}
END_TEST

static const char *const bad_labels[] = {
	"",
	NULL,
	"LABEL: x\n",
	"START WAL LOCATION: 0/2000030 (file 000000010000000000000002)\n",
	"START WAL LOCATION: 0/2000028\n",
	"START WAL LOCATION: 0/2000028 \n",
	"START WAL LOCATION: 0/2000028 (file 00000001)\n",
	"START WAL LOCATION: 0/2000028 (file 000000000000000000000002)\n",
	"START WAL LOCATION: 0/2000028 (file 0000000X0000000000000002)\n",
	"START WAL LOCATION: 0/2000028 [file 000000010000000000000002)\n",
	" " LABEL_HEAD,
	LABEL_HEAD "START TIMELINE: 2\n",
	LABEL_HEAD "START TIMELINE: \n",
	LABEL_HEAD "START TIMELINE: 1x",
};

START_TEST(test_bad_labels)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin(&f, V15, 0);
	start(&f);
	sqls_row(&f.s, "0/3000000", bad_labels[_i], "");
	ck_assert_int_eq(pgr_lowlevel_stop(f.l, false, &e, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_DATA, "not that of the backup that began at 0/2000028");
	ck_assert_ptr_null(e.label.data);
	ck_assert_uint_eq(e.stop, 0);
	end(&f);
}
END_TEST

static const char *const bad_stops[] = {NULL, "", "0/0", "0/2000020", "x"};

START_TEST(test_bad_stops)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin(&f, V15, 0);
	start(&f);
	sqls_row(&f.s, bad_stops[_i], LABEL, "");
	ck_assert_int_eq(pgr_lowlevel_stop(f.l, false, &e, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_PROTOCOL, "pg_backup_stop");
	ck_assert_ptr_null(e.label.data);
	end(&f);
}
END_TEST

START_TEST(test_stop_refused)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin(&f, V15, 0);
	start(&f);
	sqls_error(&f.s, "55000", "the standby was promoted during online backup");
	ck_assert_int_eq(pgr_lowlevel_stop(f.l, false, &e, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_SERVER,
		       "could not finish base backup: ERROR:  the standby was promoted during online backup");
	ck_assert_ptr_null(e.label.data);
	end(&f);
}
END_TEST

/* ---- is it still there? ---- */

START_TEST(test_check)
{
	struct fixture f;

	begin(&f, V15, chunks[_i]);
	start(&f);
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_OK);
	pgr_msg_notice(&f.s.msg, "WARNING", "01000", "something");
	pgr_msg_param(&f.s.msg, "TimeZone", "UTC");
	pgr_scripted_send_buf(f.s.srv, &f.s.msg);
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_OK);
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_OK);
	end(&f);
}
END_TEST

/* The wake descriptor of the run is nothing to it. */
START_TEST(test_check_and_wake)
{
	struct fixture f;
	int fds[2];

	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	begin(&f, V15, 0);
	pgr_client_set_wake(f.s.c, fds[0]);
	ck_assert_msg(pgr_lowlevel_check(f.l, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
	ck_assert_int_eq(pgr_client_set_wake(f.s.c, -1), fds[0]);
	end(&f);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(test_check_fails)
{
	struct fixture f;

	begin(&f, V15, 0);
	start(&f);
	if (_i == 0)
		sqls_fatal(&f.s, false);
	else if (_i == 1)
		pgr_scripted_eof(f.s.srv);
	else
		pgr_scripted_reset(f.s.srv);
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_ERR);
	if (_i == 0)
		sqls_check_err(&f.s.err, PGR_E_SERVER, "FATAL:  terminating connection due to administrator command");
	else
		ck_assert_int_eq(f.s.err.cls, PGR_E_NETWORK);
	/* and it stays so */
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_ERR);
	end(&f);
}
END_TEST

START_TEST(test_check_stopped)
{
	struct pgr_stop *stop;
	struct pgr_err why;
	struct fixture f;

	begin(&f, V15, 0);
	ck_assert_int_eq(pgr_stop_new(&stop, &why), PGR_OK);
	pgr_scripted_set_stop(f.s.srv, stop);
	pgr_err_set(&why, PGR_E_STOPPED, "enough");
	pgr_stop_post(stop, &why);
	ck_assert_int_eq(pgr_lowlevel_check(f.l, &f.s.err), PGR_ERR);
	ck_assert_int_eq(f.s.err.cls, PGR_E_STOPPED);
	end(&f);
	pgr_stop_free(stop);
}
END_TEST

/* ---- verified ---- */

static unsigned told;

static void tell(void *arg, const char *line)
{
	(void)arg;
	ck_assert_ptr_nonnull(strstr(line, "came damaged"));
	told++;
}

static void begin_verified(struct fixture *f, int version, size_t chunk)
{
	begin(f, version, chunk);
	told = 0;
	ck_assert_int_eq(pgr_lowlevel_verify(f->l, tell, NULL, &f->s.err), PGR_OK);
}

/* The query with which a list is asked for. */
static char *walk_query(void)
{
	struct pgr_filelist list = {0};
	struct fixture f;
	const char *at;
	char *query;

	begin(&f, V15, 0);
	say_list(&f, "base");
	ck_assert_int_eq(pgr_lowlevel_list(f.l, &list, &f.s.err), PGR_OK);
	at = memmem(f.s.sent.data, f.s.sent.len, "WITH RECURSIVE", 14);
	ck_assert_ptr_nonnull(at);
	query = strdup(at);
	pgr_filelist_fini(&list);
	end(&f);
	return query;
}

/* Cells and their digest, to be freed.  `query` is what pgr_rowsum_wrap gets. */
static void with_sum(struct fixture *f, const char *query, int cols, const char *const *cells, char *sent[5])
{
	enum pgr_rowsum_algo algo = pgr_rowsum_algo(pgr_client_version(f->s.c));
	struct pgr_buf inner = {0}, bytes = {0}, wrapped = {0};
	struct pgr_rowsum sum = {0};
	uint8_t out[PGR_ROWSUM_MAX];
	char hex[2 * PGR_ROWSUM_MAX + 1];
	struct pgr_err *e = &f->s.err;

	for (int i = 0; i < cols; i++) {
		ck_assert_int_eq(pgr_buf_printf(&bytes, e, "%s%s", i > 0 ? "/" : "", cells[i]), PGR_OK);
		sent[i] = strdup(cells[i]);
	}
	ck_assert_int_eq(pgr_buf_puts(&inner, query, e), PGR_OK);
	ck_assert_int_eq(pgr_rowsum_wrap(&wrapped, algo, &inner, (unsigned)cols, e), PGR_OK);
	ck_assert_int_eq(pgr_buf_put(&bytes, wrapped.data, wrapped.len, e), PGR_OK);
	ck_assert_int_eq(pgr_rowsum_init(&sum, algo, e), PGR_OK);
	ck_assert_int_eq(pgr_rowsum_bytes(&sum, bytes.data, bytes.len, out, e), PGR_OK);
	pgr_rowsum_fini(&sum);
	pgr_hex(hex, out, pgr_rowsum_len(algo));
	sent[cols] = strdup(hex);
	pgr_buf_fini(&inner);
	pgr_buf_fini(&bytes);
	pgr_buf_fini(&wrapped);
}

/*
 * The server answers `query` with these cells and their digest.  On the way one byte changes: of cell `damaged`, or of
 * the digest, when it is `cols`; of none, when it is -1.
 */
static void sum_row(struct fixture *f, const char *query, int cols, const char *const *cells, int damaged)
{
	char *sent[5];

	with_sum(f, query, cols, cells, sent);
	if (damaged >= 0)
		sent[damaged][strlen(sent[damaged]) / 2] ^= 1;
	sqls_rows(&f->s, cols + 1, 1, (const char *const *)sent);
	for (int i = 0; i <= cols; i++)
		free(sent[i]);
}

/* Two files; `damaged` is a cell of the second one, or -1. */
static void sum_list(struct fixture *f, const char *query, int damaged)
{
	static const char *const files[2][4] = {{"PG_VERSION", "f", "3", "1"}, {"base", "t", "4096", "1"}};
	char *sent[10];

	sqls_rows(&f->s, 2, 0, NULL); /* settings, twice */
	sqls_rows(&f->s, 2, 0, NULL);
	with_sum(f, query, 4, files[0], sent);
	with_sum(f, query, 4, files[1], sent + 5);
	if (damaged >= 0)
		sent[5 + damaged][0] ^= 1;
	sqls_rows(&f->s, 5, 2, (const char *const *)sent);
	for (int i = 0; i < 10; i++)
		free(sent[i]);
}

START_TEST(test_verified_list)
{
	char *query = walk_query();
	struct pgr_filelist list = {0};
	struct fixture f;
	int rc;

	begin_verified(&f, V15, 0);
	sqls_rows(&f.s, 1, 0, NULL); /* pg_tblspc, twice */
	sqls_rows(&f.s, 1, 0, NULL);
	for (int i = 0; i < _i; i++)
		sum_list(&f, query, i % 5);
	sum_list(&f, query, -1);
	rc = pgr_lowlevel_list(f.l, &list, &f.s.err);
	ck_assert_uint_eq(told, _i <= 5 ? (unsigned)_i : 5);
	if (_i <= 5) {
		ck_assert_msg(rc == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(list.n, 2);
		ck_assert_str_eq(list.entries[1].path, "base");
		ck_assert(list.entries[1].is_dir);
	} else {
		ck_assert_int_eq(rc, PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "list of the server's files came damaged");
		ck_assert_ptr_null(list.entries);
	}
	pgr_filelist_fini(&list);
	free(query);
	end(&f);
}
END_TEST

/* A setting, of which one byte is another one at the first time. */
START_TEST(test_verified_settings)
{
	static const char *const good[] = {"data_directory", "/data"}, *const bad[] = {"data_directory", "/dada"};
	char *query = walk_query();
	struct pgr_filelist list = {0};
	struct fixture f;

	begin_verified(&f, V15, 0);
	sqls_rows(&f.s, 1, 0, NULL);
	sqls_rows(&f.s, 1, 0, NULL);
	sqls_rows(&f.s, 2, 1, _i == 0 ? bad : good);
	sqls_rows(&f.s, 2, _i != 2, _i == 1 ? bad : good);
	sqls_rows(&f.s, 5, 0, NULL); /* the list was asked for with them, and is thrown away */
	sum_list(&f, query, -1);
	ck_assert_msg(pgr_lowlevel_list(f.l, &list, &f.s.err) == PGR_OK, "%s", f.s.err.msg);
	ck_assert_uint_eq(told, 1);
	ck_assert_uint_eq(list.n, 2);
	pgr_filelist_fini(&list);
	free(query);
	end(&f);
}
END_TEST

/* Tablespaces are believed when they are said twice. */
START_TEST(test_verified_tablespaces)
{
	static const char *const names[] = {"16400", "16401"}, *const other[] = {"16400", "16481"};
	static const char *const good[] = {"16400", "/ts/a", "16401", "/ts/b"};
	static const char *const oid[] = {"16400", "/ts/a", "16481", "/ts/b"};
	static const char *const location[] = {"16400", "/us/a", "16401", "/ts/b"};
	const struct pgr_bb_tablespace *ts;
	struct fixture f;
	size_t n;
	int rc;

	begin_verified(&f, V15, 0);
	for (int i = 0; i < 7; i++) {
		bool damaged = i == 0 || _i == 2;

		sqls_rows(&f.s, 1, 2, damaged && i % 2 == 0 && _i != 1 ? other : names);
		sqls_rows(&f.s, 2, 2, !damaged || i % 2 == 1 ? good : _i == 1 ? location : oid);
	}
	rc = pgr_lowlevel_tablespaces(f.l, &ts, &n, &f.s.err);
	if (_i == 2) {
		ck_assert_int_eq(rc, PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "tablespaces came damaged");
	} else {
		ck_assert_msg(rc == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(told, 1);
		ck_assert_uint_eq(n, 3);
		ck_assert_uint_eq(ts[1].oid, 16401);
		ck_assert_str_eq(ts[0].location, "/ts/a");
	}
	end(&f);
}
END_TEST

static void start_verified(struct fixture *f)
{
	static const char *const cells[] = {START_TEXT};
	pgr_lsn lsn;

	sum_row(f, "SELECT pg_backup_start('label', true)", 1, cells, -1);
	ck_assert_msg(pgr_lowlevel_start(f->l, "label", true, &lsn, &f->s.err) == PGR_OK, "%s", f->s.err.msg);
	ck_assert_uint_eq(lsn, START);
}

START_TEST(test_verified_start)
{
	static const char *const cells[] = {START_TEXT};
	struct fixture f;
	pgr_lsn lsn;

	begin_verified(&f, V15, 0);
	if (_i == 0) {
		start_verified(&f);
	} else {
		sum_row(&f, "SELECT pg_backup_start('label', true)", 1, cells, _i - 1);
		ck_assert_int_eq(pgr_lowlevel_start(f.l, "label", true, &lsn, &f.s.err), PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "pg_backup_start came damaged");
	}
	end(&f);
}
END_TEST

#define CONTROL_QUERY "SELECT encode(pg_read_binary_file('global/pg_control', 0, 8192, false), 'hex')"

/* Damaged where the CRC does not look; torn meanwhile. */
START_TEST(test_verified_control)
{
	char good[2 * CONTROL_BYTES + 1], torn[2 * CONTROL_BYTES + 1];
	const char *const cells[] = {good}, *const torn_cells[] = {torn};
	struct pgr_buf out = {0};
	struct fixture f;
	int rc;

	begin_verified(&f, _i % 2 == 0 ? V15 : V10, 0);
	make_control(good, 288, false);
	make_control(torn, 288, false);
	torn[0] ^= 1;
	for (int i = 0; i < _i; i++)
		sum_row(&f, CONTROL_QUERY, 1, cells, i % 2);
	if (_i == 3)
		sum_row(&f, CONTROL_QUERY, 1, torn_cells, -1);
	sum_row(&f, CONTROL_QUERY, 1, cells, -1);
	rc = pgr_lowlevel_control(f.l, &out, &f.s.err);
	ck_assert_uint_eq(told, _i <= 5 ? (unsigned)_i : 5);
	if (_i <= 5) {
		ck_assert_msg(rc == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(out.len, CONTROL_BYTES);
		ck_assert_uint_eq(out.data[CONTROL_BYTES / 2],
				  (good[CONTROL_BYTES] - '0') * 16 + good[CONTROL_BYTES + 1] - '0');
	} else {
		ck_assert_int_eq(rc, PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "\"global/pg_control\" came damaged");
	}
	pgr_buf_fini(&out);
	end(&f);
}
END_TEST

#define STOP_QUERY                                                                                                     \
	"SELECT set_config('pgr.stop', lsn::text, false), set_config('pgr.label', labelfile, false), "                 \
	"set_config('pgr.map', coalesce(spcmapfile, ''), false) FROM pg_backup_stop(false)"
#define AGAIN_QUERY "SELECT current_setting('pgr.stop'), current_setting('pgr.label'), current_setting('pgr.map')"

START_TEST(test_verified_stop)
{
	static const char *const cells[] = {"0/3000000", LABEL, "16385 /mnt/ts\n"};
	struct pgr_backup_end e;
	struct fixture f;
	int rc;

	begin_verified(&f, V15, 0);
	start_verified(&f);
	sum_row(&f, STOP_QUERY, 3, cells, _i == 0 ? -1 : _i % 4);
	for (int i = 1; i <= _i && i <= 5; i++)
		sum_row(&f, AGAIN_QUERY, 3, cells, i == _i ? -1 : i % 4);
	rc = pgr_lowlevel_stop(f.l, false, &e, &f.s.err);
	ck_assert_uint_eq(told, _i <= 5 ? (unsigned)_i : 5);
	if (_i <= 5) {
		ck_assert_msg(rc == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(e.stop, 0x3000000);
		ck_assert_str_eq(pgr_buf_str(&e.label), LABEL);
		ck_assert_str_eq(pgr_buf_str(&e.map), "16385 /mnt/ts\n");
	} else {
		ck_assert_int_eq(rc, PGR_ERR);
		sqls_check_err(&f.s.err, PGR_E_DATA, "backup_label came damaged");
		ck_assert_ptr_null(e.label.data);
	}
	pgr_backup_end_fini(&e);
	end(&f);
}
END_TEST

START_TEST(test_verified_refusal)
{
	struct pgr_backup_end e;
	struct fixture f;

	begin_verified(&f, V15, 0);
	start_verified(&f);
	sqls_error(&f.s, "55000", "the standby was promoted during online backup");
	ck_assert_int_eq(pgr_lowlevel_stop(f.l, false, &e, &f.s.err), PGR_ERR);
	sqls_check_err(&f.s.err, PGR_E_SERVER, "could not finish base backup");
	end(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lowlevel");
	TCase *begin_case = tcase_create("start"), *list = tcase_create("list"), *control = tcase_create("control");
	TCase *stop = tcase_create("stop"), *check = tcase_create("check");
	TCase *verified = tcase_create("verified");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(begin_case, test_start, 0, N_CHUNKS);
	tcase_add_test(begin_case, test_start_before_15);
	tcase_add_loop_test(begin_case, test_bad_start, 0, COUNT(bad_starts));
	tcase_add_loop_test(begin_case, test_start_not_one_row, 0, 3);
	tcase_add_test(begin_case, test_start_refused);
	tcase_add_test(begin_case, test_stopped_while_starting);
	tcase_add_loop_test(begin_case, test_nothing_to_cancel, 0, 2);
	tcase_add_loop_test(list, test_list, 0, N_CHUNKS);
	tcase_add_loop_test(list, test_list_fails, 0, 2);
	tcase_add_loop_test(control, test_control, 0, COUNT(crcs));
	tcase_add_loop_test(control, test_control_torn, 0, 11);
	tcase_add_loop_test(control, test_control_of_another_form, 0, 4);
	tcase_add_loop_test(control, test_control_and_the_end, 0, 2);
	tcase_add_loop_test(stop, test_stop, 0, N_CHUNKS);
	tcase_add_loop_test(stop, test_stop_commands, 0, COUNT(stops));
	tcase_add_loop_test(stop, test_bad_labels, 0, COUNT(bad_labels));
	tcase_add_loop_test(stop, test_bad_stops, 0, COUNT(bad_stops));
	tcase_add_test(stop, test_stop_refused);
	tcase_add_loop_test(check, test_check, 0, N_CHUNKS);
	tcase_add_test(check, test_check_and_wake);
	tcase_add_loop_test(check, test_check_fails, 0, 3);
	tcase_add_test(check, test_check_stopped);
	suite_add_tcase(s, begin_case);
	suite_add_tcase(s, list);
	suite_add_tcase(s, control);
	suite_add_tcase(s, stop);
	suite_add_tcase(s, check);
	tcase_add_loop_test(verified, test_verified_start, 0, 3);
	tcase_add_loop_test(verified, test_verified_control, 0, 7);
	tcase_add_loop_test(verified, test_verified_list, 0, 7);
	tcase_add_loop_test(verified, test_verified_settings, 0, 3);
	tcase_add_loop_test(verified, test_verified_tablespaces, 0, 3);
	tcase_add_loop_test(verified, test_verified_stop, 0, 7);
	tcase_add_test(verified, test_verified_refusal);
	suite_add_tcase(s, verified);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
