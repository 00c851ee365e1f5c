/* listing.c against a scripted server: tablespaces and files, as no server should list them. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/bbstream.h"
#include "backup/filelist.h"
#include "backup/listing.h"
#include "tests/support/sqlscript.h"

#define V15 150020

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

static const size_t chunks[] = {0, 1, 7, 4096};
#define N_CHUNKS COUNT(chunks)

/* ---- tablespaces ---- */

struct tablespaces {
	struct sqlscript s;
	struct pgr_bb_tablespace *list;
	size_t n;
};

static int ask_tablespaces(struct tablespaces *t)
{
	return pgr_listing_tablespaces(t->s.c, &t->list, &t->n, &t->s.err);
}

static void end_tablespaces(struct tablespaces *t)
{
	pgr_listing_tablespaces_free(t->list, t->n);
	sqls_end(&t->s);
}

START_TEST(test_no_tablespaces)
{
	static const char *const names[] = {"notes", "016", "16x", "0", "4294967296", "-1", "", NULL};
	struct tablespaces t;

	sqls_begin(&t.s, V15, chunks[_i]);
	sqls_rows(&t.s, 1, COUNT(names), names);
	ck_assert_msg(ask_tablespaces(&t) == PGR_OK, "%s", t.s.err.msg);
	ck_assert_uint_eq(t.n, 1);
	ck_assert_uint_eq(t.list[0].oid, 0);
	ck_assert_str_eq(t.list[0].location, "");
	ck_assert_int_eq(t.list[0].size_kb, -1);
	sqls_check_sent(&t.s, "pg_tablespace_location", false);
	end_tablespaces(&t);
}
END_TEST

static const char *const oids[] = {"16385", "x", "4294967295"};
static const char *const locations[] = {"16385", "pg_tblspc/16385", "4294967295", "/mnt/a b'\n"};

START_TEST(test_tablespaces)
{
	struct tablespaces t;

	sqls_begin(&t.s, V15, chunks[_i]);
	sqls_rows(&t.s, 1, 3, oids);
	sqls_rows(&t.s, 2, 2, locations);
	ck_assert_msg(ask_tablespaces(&t) == PGR_OK, "%s", t.s.err.msg);
	sqls_check_sent(&t.s, "'{16385,4294967295}'::oid[]", true);
	ck_assert_uint_eq(t.n, 3);
	ck_assert_uint_eq(t.list[0].oid, 16385);
	ck_assert_str_eq(t.list[0].location, "pg_tblspc/16385");
	ck_assert_uint_eq(t.list[1].oid, 4294967295u);
	ck_assert_str_eq(t.list[1].location, "/mnt/a b'\n");
	ck_assert_int_eq(t.list[1].size_kb, -1);
	ck_assert_uint_eq(t.list[2].oid, 0);
	ck_assert_str_eq(t.list[2].location, "");
	end_tablespaces(&t);
}
END_TEST

/* Dropped between two looks: looked at again, but not for ever. */
START_TEST(test_tablespace_goes_away)
{
	struct tablespaces t;

	sqls_begin(&t.s, V15, 0);
	for (int i = 0; i < 9; i++) {
		sqls_rows(&t.s, 1, 3, oids);
		sqls_error(&t.s, "58P01", "could not stat file \"pg_tblspc/16385\": No such file or directory");
	}
	sqls_rows(&t.s, 1, 3, oids);
	if (_i == 0)
		sqls_rows(&t.s, 2, 1, locations + 2);
	else
		sqls_error(&t.s, "58P01", "could not stat file");
	ck_assert_int_eq(ask_tablespaces(&t), _i == 0 ? PGR_OK : PGR_ERR);
	if (_i == 0)
		ck_assert_uint_eq(t.n, 2);
	else
		sqls_check_err(&t.s.err, PGR_E_SERVER,
			       "could not list the server's tablespaces: ERROR:  could not stat file");
	end_tablespaces(&t);
}
END_TEST

START_TEST(test_tablespaces_refused)
{
	struct tablespaces t;

	sqls_begin(&t.s, V15, 0);
	if (_i > 0)
		sqls_rows(&t.s, 1, 3, oids);
	sqls_error(&t.s, "42501", "permission denied");
	ck_assert_int_eq(ask_tablespaces(&t), PGR_ERR);
	sqls_check_err(&t.s.err, PGR_E_SERVER, "permission denied");
	ck_assert_ptr_null(t.list);
	ck_assert_uint_eq(t.n, 0);
	end_tablespaces(&t);
}
END_TEST

static const struct {
	int rows;
	const char *cells[4];
} bad_tablespaces[] = {
	{2, {"16385", "/a", "16385", "/b"}},
	{2, {"16386", "/a", "16385", "/b"}},
	{1, {"0", ""}},
	{1, {"0", "/a"}},
	{1, {NULL, "/a"}},
	{1, {"16385", NULL}},
	{1, {"16385", ""}},
	{1, {"016385", "/a"}},
	{1, {"4294967296", "/a"}},
};

START_TEST(test_bad_tablespaces)
{
	struct tablespaces t;

	sqls_begin(&t.s, V15, 0);
	sqls_rows(&t.s, 1, 3, oids);
	sqls_rows(&t.s, 2, bad_tablespaces[_i].rows, bad_tablespaces[_i].cells);
	ck_assert_int_eq(ask_tablespaces(&t), PGR_ERR);
	sqls_check_err(&t.s.err, PGR_E_PROTOCOL, "tablespaces");
	ck_assert_ptr_null(t.list);
	end_tablespaces(&t);
}
END_TEST

/* ---- files ---- */

static char data_dir[] = "/data", outside[] = "/mnt/ts", inside[] = "/data/my/ts", in_place[] = "pg_tblspc/30",
	    none[] = "";

static const struct pgr_bb_tablespace spaces[] = {
	{10, outside, -1}, {20, inside, -1}, {30, in_place, -1}, {0, none, -1}};

struct files {
	struct sqlscript s;
	struct pgr_filelist list;
};

static void begin_files(struct files *f, size_t chunk)
{
	memset(f, 0, sizeof(*f));
	sqls_begin(&f->s, V15, chunk);
}

/* The server's answer to what it is asked first; `data` NULL: hidden from this role. */
static void settings(struct files *f, const char *data, const char *stats)
{
	const char *cells[4];
	int n = 0;

	if (data != NULL) {
		cells[n++] = "data_directory";
		cells[n++] = data;
	}
	if (stats != NULL) {
		cells[n++] = "stats_temp_directory";
		cells[n++] = stats;
	}
	sqls_rows(&f->s, 2, n / 2, cells);
}

/* "base/" is a directory, "base/1" a file of 10 bytes. */
static void tree(struct files *f, const char *const *paths)
{
	static const char *const names[] = {"path", "isdir", "size", "date_part"};

	pgr_scripted_expect(f->s.srv, 'Q');
	pgr_msg_row_desc(&f->s.msg, 4, names);
	for (; *paths != NULL; paths++) {
		size_t n = strlen(*paths);
		bool is_dir = (*paths)[n - 1] == '/';
		char path[256];
		const char *cells[] = {path, is_dir ? "t" : "f", is_dir ? "4096" : "10", "1700000000"};

		snprintf(path, sizeof(path), "%.*s", (int)(n - is_dir), *paths);
		pgr_msg_row(&f->s.msg, 4, cells);
	}
	pgr_msg_complete(&f->s.msg, "SELECT");
	pgr_msg_ready(&f->s.msg);
	pgr_scripted_send_buf(f->s.srv, &f->s.msg);
}
#define TREE(f, ...) tree(f, (const char *const[]){__VA_ARGS__, NULL})

static int ask_files(struct files *f)
{
	return pgr_listing_files(f->s.c, spaces, COUNT(spaces), NULL, &f->list, &f->s.err);
}

static void check_files(struct files *f, const char *const *paths)
{
	size_t n = 0;

	ck_assert_msg(ask_files(f) == PGR_OK, "%s", f->s.err.msg);
	for (; paths[n] != NULL; n++) {
		ck_assert_msg(n < f->list.n, "\"%s\" is missing at the end", paths[n]);
		ck_assert_str_eq(f->list.entries[n].path, paths[n]);
	}
	ck_assert_uint_eq(f->list.n, n);
	ck_assert_int_eq(pgr_client_state(f->s.c), PGR_SS_READY);
}
#define CHECK_FILES(f, ...) check_files(f, (const char *const[]){__VA_ARGS__, NULL})

static void check_refused(struct files *f, enum pgr_errclass cls, const char *words)
{
	ck_assert_int_eq(ask_files(f), PGR_ERR);
	sqls_check_err(&f->s.err, cls, words);
}

static void end_files(struct files *f)
{
	pgr_filelist_fini(&f->list);
	sqls_end(&f->s);
}

START_TEST(test_files)
{
	struct files f;

	begin_files(&f, chunks[_i]);
	settings(&f, data_dir, NULL);
	TREE(&f, "base/", "PG_VERSION", "global/", "base/1/", "global/pg_control", "global/1", "base/1/2", "pg_wal/",
	     "odd\nname'\\");
	CHECK_FILES(&f, "PG_VERSION", "base", "base/1", "base/1/2", "global", "global/1", "odd\nname'\\", "pg_wal");
	ck_assert(f.list.has_control);
	ck_assert_uint_eq(f.list.total_bytes, 40);
	ck_assert_int_eq(f.list.entries[3].mtime, 1700000000);
	ck_assert_uint_eq(f.list.entries[3].size, 10);
	sqls_check_sent(&f.s, "'{pg_tblspc/10,pg_tblspc/20,pg_tblspc/30}'", true);
	end_files(&f);
}
END_TEST

/* Only those that were there when they were asked for: of others nobody knows where to put them. */
START_TEST(test_new_tablespace)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	TREE(&f, "pg_tblspc/", "pg_tblspc/10/", "pg_tblspc/10/PG_15_202209061/", "pg_tblspc/11/",
	     "pg_tblspc/11/PG_15_202209061/", "pg_tblspc/11/PG_15_202209061/5/", "pg_tblspc/100/", "pg_tblspc/30/",
	     "pg_tblspc/notes");
	CHECK_FILES(&f, "pg_tblspc", "pg_tblspc/10", "pg_tblspc/10/PG_15_202209061", "pg_tblspc/30", "pg_tblspc/notes");
	end_files(&f);
}
END_TEST

/* The location of a tablespace in the data directory, where that is known, and where it must be guessed. */
START_TEST(test_tablespace_inside)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, _i == 0 ? data_dir : NULL, NULL);
	TREE(&f, "my/", "my/ts/", "my/ts/PG_15_202209061/", "my/ts/PG_15_202209061/5/", "my/ts/PG_15_202209061/5/1",
	     "my/ts2/", "my/ts2/a", "my/z/", "my/z/my/", "my/z/my/ts/", "my/z/my/ts/1", "pg_tblspc/", "pg_tblspc/20/",
	     "pg_tblspc/20/PG_15_202209061/", "pg_tblspc/20/PG_15_202209061/5/", "pg_tblspc/30/",
	     "pg_tblspc/30/PG_15_202209061/", "pg_tblspc/30/PG_15_202209061/1");
	CHECK_FILES(&f, "my", "my/ts", "my/ts2", "my/ts2/a", "my/z", "my/z/my", "my/z/my/ts", "my/z/my/ts/1",
		    "pg_tblspc", "pg_tblspc/20", "pg_tblspc/20/PG_15_202209061", "pg_tblspc/20/PG_15_202209061/5",
		    "pg_tblspc/30", "pg_tblspc/30/PG_15_202209061", "pg_tblspc/30/PG_15_202209061/1");
	end_files(&f);
}
END_TEST

/* A name alone is no reason to leave something out. */
START_TEST(test_no_tablespace_inside)
{
	static const char *const same_name[][6] = {
		{"ts/", "ts/1", "ts/PG_15_202209061", "ts/PG_14_1/", "ts/PG_notes/"},
		{"ts/", "ts/a/", "ts/a/PG_15_202209061/", "ts2/", "ts2/PG_15_202209061/"},
		{"nt/", "nt/ts/", "nt/ts/PG_15_202209061/", "s/", "s/PG_15_202209061/"},
	};
	struct files f;

	begin_files(&f, 0);
	settings(&f, NULL, NULL);
	tree(&f, same_name[_i]);
	ck_assert_int_eq(ask_files(&f), PGR_OK);
	ck_assert_uint_eq(f.list.n, 5);
	end_files(&f);
}
END_TEST

START_TEST(test_empty_tablespace_inside)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, NULL, NULL);
	TREE(&f, "my/", "my/ts/", "my/ts/PG_15_202209061/");
	CHECK_FILES(&f, "my", "my/ts");
	end_files(&f);
}
END_TEST

START_TEST(test_known_directory_wins)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, "/another", NULL);
	TREE(&f, "my/", "my/ts/", "my/ts/PG_15_202209061/");
	CHECK_FILES(&f, "my", "my/ts", "my/ts/PG_15_202209061");
	end_files(&f);
}
END_TEST

START_TEST(test_stats_temp_directory)
{
	static const char *const stats[] = {"tmp/stats", "./tmp/stats", "/data/tmp/stats", "/data/tmp/stats/"};
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, stats[_i]);
	TREE(&f, "tmp/", "tmp/stats/", "tmp/stats/global.stat", "tmp/other");
	CHECK_FILES(&f, "tmp", "tmp/other", "tmp/stats");
	end_files(&f);
}
END_TEST

START_TEST(test_key_file)
{
	static const char *const keys[] = {"certs/my.key", "/data/certs/my.key", "/elsewhere/certs/my.key"};
	const char *cells[] = {"ssl_key_file", keys[_i]}; /* the data directory is hidden */
	struct files f;

	begin_files(&f, 0);
	sqls_rows(&f.s, 2, 1, cells);
	TREE(&f, "certs/", "certs/my.key", "certs/not.my.key", "my.key", "y.key", "key");
	ck_assert_msg(ask_files(&f) == PGR_OK, "%s", f.s.err.msg);
	for (size_t i = 0; i < f.list.n; i++) {
		const char *path = f.list.entries[i].path;
		bool is_key = strcmp(path, "certs/my.key") == 0 || strcmp(path, "my.key") == 0;

		ck_assert_msg(f.list.entries[i].is_private == is_key, "%s", path);
	}
	end_files(&f);
}
END_TEST

START_TEST(test_too_deep)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	if (_i == 0)
		TREE(&f, "a/", "a/a/", "a/a/a/", "a/a/a/a/", "a/a/a/a/a/", "a/a/a/a/a/a/", "a/a/a/a/a/a/a/",
		     "a/a/a/a/a/a/a/a/", "a/a/a/a/a/a/a/a/a/", "a/a/a/a/a/a/a/a/a/a/", "a/a/a/a/a/a/a/a/a/a/a/",
		     "a/a/a/a/a/a/a/a/a/a/a/a");
	else
		TREE(&f, "a/a/a/a/a/a/a/a/a/a/a/a/");
	if (_i == 0) {
		ck_assert_msg(ask_files(&f) == PGR_OK, "%s", f.s.err.msg);
		ck_assert_uint_eq(f.list.n, 12);
	} else {
		check_refused(&f, PGR_E_USAGE, "nested too deep");
		ck_assert_str_ne(f.s.err.hint, "");
	}
	sqls_check_sent(&f.s, "f.depth < 12", true);
	end_files(&f);
}
END_TEST

static const struct {
	enum pgr_errclass cls;
	const char *cells[4];
} bad_rows[] = {
	{PGR_E_PROTOCOL, {NULL, "t", "1", "1"}},
	{PGR_E_PROTOCOL, {"a", NULL, "1", "1"}},
	{PGR_E_PROTOCOL, {"a", "x", "1", "1"}},
	{PGR_E_PROTOCOL, {"a", "f", NULL, "1"}},
	{PGR_E_PROTOCOL, {"a", "f", "-1", "1"}},
	{PGR_E_PROTOCOL, {"a", "f", "18446744073709551616", "1"}},
	{PGR_E_PROTOCOL, {"a", "f", "1", NULL}},
	{PGR_E_PROTOCOL, {"a", "f", "1", "1.5"}},
	{PGR_E_DATA, {"", "f", "1", "1"}},
	{PGR_E_DATA, {"../a", "f", "1", "1"}},
	{PGR_E_DATA, {"/etc/passwd", "f", "1", "1"}},
	{PGR_E_DATA, {"pg_tblspc/10/..", "f", "1", "1"}},
	{PGR_E_DATA, {"a", "f", "9223372036854775808", "1"}},
	{PGR_E_DATA, {"base/1", "f", "1", "1"}}, /* without its directory */
};

START_TEST(test_bad_rows)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	sqls_rows(&f.s, 4, 1, bad_rows[_i].cells);
	check_refused(&f, bad_rows[_i].cls, "");
	end_files(&f);
}
END_TEST

START_TEST(test_files_refused)
{
	static const char *const some[] = {"base", "t", "1", "1"};
	struct files f;

	begin_files(&f, 0);
	if (_i == 0)
		sqls_error(&f.s, "42501", "permission denied");
	else
		settings(&f, data_dir, NULL);
	if (_i > 0) {
		sqls_some_rows(&f.s, 4, 1, some);
		pgr_msg_error(&f.s.msg, "ERROR", "42501", "permission denied");
		pgr_msg_ready(&f.s.msg);
		pgr_scripted_send_buf(f.s.srv, &f.s.msg);
	}
	check_refused(&f, PGR_E_SERVER, "could not list the server's files: ERROR:  permission denied");
	end_files(&f);
}
END_TEST

static const struct {
	const char *cells[4];
} bad_settings[] = {
	{{NULL, "x", "data_directory", "/a"}},
	{{"data_directory", NULL, "stats_temp_directory", "a"}},
	{{"data_directory", "/a", "data_directory", "/b"}},
};

START_TEST(test_bad_settings)
{
	struct files f;

	begin_files(&f, 0);
	sqls_rows(&f.s, 2, 2, bad_settings[_i].cells);
	check_refused(&f, PGR_E_PROTOCOL, "settings");
	end_files(&f);
}
END_TEST

/* ---- names that cannot be said ---- */

START_TEST(test_names_are_said)
{
	struct files f;

	begin_files(&f, chunks[_i]);
	settings(&f, data_dir, NULL);
	TREE(&f, "a/", "a/\xc3\xa4'", "z", "\x80");
	sqls_rows(&f.s, 1, 0, NULL);
	CHECK_FILES(&f, "a", "a/\xc3\xa4'", "z", "\x80");
	sqls_check_sent(&f.s, "(VALUES (NULL), ('a/\xc3\xa4'''), ('\x80')) v", true);
	sqls_check_sent(&f.s, "('z')", false);
	end_files(&f);
}
END_TEST

START_TEST(test_name_that_cannot_be_said)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	TREE(&f, "\xc3\xa4", "\xe2\x82", "\xff");
	sqls_error(&f.s, "22021", "invalid byte sequence for encoding \"UTF8\": 0xe2 0x82");
	sqls_rows(&f.s, 1, 0, NULL);
	sqls_error(&f.s, "22021", "invalid byte sequence for encoding \"UTF8\": 0xe2 0x82");
	check_refused(&f, PGR_E_USAGE, "file \"\\xE2\\x82\" cannot be read over SQL");
	ck_assert_ptr_nonnull(strstr(f.s.err.hint, "--jobs=1"));
	end_files(&f);
}
END_TEST

START_TEST(test_names_in_many_questions)
{
	struct files f;
	char path[16];
	char *paths[601];

	for (int i = 0; i < 600; i++) {
		snprintf(path, sizeof(path), "\xc3\xa4%03d", i);
		paths[i] = strdup(path);
	}
	paths[600] = NULL;
	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	tree(&f, (const char *const *)paths);
	for (int i = 0; i < 3; i++)
		sqls_rows(&f.s, 1, 0, NULL);
	ck_assert_msg(ask_files(&f) == PGR_OK, "%s", f.s.err.msg);
	for (int i = 0; i < 600; i++) {
		snprintf(path, sizeof(path), "('%s')", paths[i]);
		sqls_check_sent(&f.s, path, true);
		free(paths[i]);
	}
	end_files(&f);
}
END_TEST

START_TEST(test_names_and_another_error)
{
	struct files f;

	begin_files(&f, 0);
	settings(&f, data_dir, NULL);
	TREE(&f, "\xff", "\xfe");
	sqls_error(&f.s, _i == 0 ? "54001" : "22021", "statement too complex");
	if (_i == 1) /* it was another one, or the server does not know what it says */
		sqls_error(&f.s, "54001", "statement too complex");
	if (_i == 2) {
		sqls_rows(&f.s, 1, 0, NULL);
		sqls_rows(&f.s, 1, 0, NULL);
	}
	if (_i < 2)
		check_refused(&f, PGR_E_SERVER, "statement too complex");
	else
		check_refused(&f, PGR_E_PROTOCOL, "names");
	end_files(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("listing");
	TCase *ts = tcase_create("tablespaces"), *files = tcase_create("files"), *names = tcase_create("names");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_loop_test(ts, test_no_tablespaces, 0, N_CHUNKS);
	tcase_add_loop_test(ts, test_tablespaces, 0, N_CHUNKS);
	tcase_add_loop_test(ts, test_tablespace_goes_away, 0, 2);
	tcase_add_loop_test(ts, test_tablespaces_refused, 0, 2);
	tcase_add_loop_test(ts, test_bad_tablespaces, 0, COUNT(bad_tablespaces));
	tcase_add_loop_test(files, test_files, 0, N_CHUNKS);
	tcase_add_test(files, test_new_tablespace);
	tcase_add_loop_test(files, test_tablespace_inside, 0, 2);
	tcase_add_loop_test(files, test_no_tablespace_inside, 0, 3);
	tcase_add_test(files, test_empty_tablespace_inside);
	tcase_add_test(files, test_known_directory_wins);
	tcase_add_loop_test(files, test_stats_temp_directory, 0, 4);
	tcase_add_loop_test(files, test_key_file, 0, 3);
	tcase_add_loop_test(files, test_too_deep, 0, 2);
	tcase_add_loop_test(files, test_bad_rows, 0, COUNT(bad_rows));
	tcase_add_loop_test(files, test_files_refused, 0, 2);
	tcase_add_loop_test(files, test_bad_settings, 0, COUNT(bad_settings));
	tcase_add_loop_test(names, test_names_are_said, 0, N_CHUNKS);
	tcase_add_test(names, test_name_that_cannot_be_said);
	tcase_add_test(names, test_names_in_many_questions);
	tcase_add_loop_test(names, test_names_and_another_error, 0, 3);
	suite_add_tcase(s, ts);
	suite_add_tcase(s, files);
	suite_add_tcase(s, names);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
