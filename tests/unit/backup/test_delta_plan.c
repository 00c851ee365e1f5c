#include <check.h>
#include <errno.h>

#include "backup/bbstream.h"
#include "backup/delta_plan.h"
#include "backup/filelist.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "common/buf.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define VERSION_DIR "PG_15_202209061"

static struct tmptree tree;
static struct pgr_layout_opts opts;
static struct pgr_layout *layout;
static struct pgr_bb_tablespace spaces[4];
static char locations[4][PATH_MAX];
static size_t nspaces;
static struct pgr_filelist list;
static struct pgr_localtree here;
static struct pgr_delta_plan plan;
static struct pgr_keep keep;
static struct pgr_err err;
static struct pgr_fault_sys f;
static unsigned fds;
static char data_dir[PATH_MAX];

static void setup(void)
{
	tmp_make(&tree);
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	opts = (struct pgr_layout_opts){.data_dir = data_dir,
					.dir_mode = 0700,
					.file_mode = 0600,
					.in_place = true,
					.version_dir = VERSION_DIR};
	layout = NULL;
	nspaces = 0;
	memset(&list, 0, sizeof(list));
	memset(&here, 0, sizeof(here));
	memset(&plan, 0, sizeof(plan));
	memset(&keep, 0, sizeof(keep));
	tmp_mkdir(&tree, "data", 0700);
	tmp_mkdir(&tree, "data/global", 0700);
	fds = tmp_open_fds();
}

static void teardown(void)
{
	pgr_delta_plan_fini(&plan);
	pgr_localtree_fini(&here);
	pgr_filelist_fini(&list);
	pgr_layout_free(layout);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

/* What the server has: "base/" is a directory, "base/1" a file of 10 bytes. */
static void server(const char *const *paths)
{
	for (; *paths != NULL; paths++) {
		size_t n = strlen(*paths);
		bool is_dir = (*paths)[n - 1] == '/';

		must(pgr_filelist_add(&list, 150000, *paths, n - is_dir, is_dir, 10, 0, &err));
	}
	must(pgr_filelist_finish(&list, &err));
}

/* What is here, below the data directory; a file has 4 bytes, of its name or of blanks. */
static void local(const char *const *paths)
{
	for (; *paths != NULL; paths++) {
		char name[PATH_MAX];
		size_t n = strlen(*paths);

		snprintf(name, sizeof(name), "data/%.*s", (int)(n - ((*paths)[n - 1] == '/')), *paths);
		if ((*paths)[n - 1] == '/')
			tmp_mkdir(&tree, name, 0700);
		else
			tmp_write(&tree, name, "1234");
	}
}

static void make_link(const char *target, const char *name)
{
	ck_assert_int_eq(symlink(target, tmp_at(&tree, name)), 0);
}

#define SERVER(...) server((const char *const[]){__VA_ARGS__, NULL})
#define LOCAL(...)  local((const char *const[]){__VA_ARGS__, NULL})
#define KEEP(...)                                                                                                      \
	do {                                                                                                           \
		static const char *const patterns[] = {__VA_ARGS__};                                                   \
		keep.patterns = patterns;                                                                              \
		keep.n = sizeof(patterns) / sizeof(patterns[0]);                                                       \
	} while (0)

/* "@" at the start stands for the test's directory. */
static void announce(uint32_t oid, const char *location)
{
	snprintf(locations[nspaces], sizeof(locations[0]), "%s%s", location[0] == '@' ? tree.path : "",
		 location + (location[0] == '@'));
	spaces[nspaces] = (struct pgr_bb_tablespace){.oid = oid, .location = locations[nspaces], .size_kb = -1};
	nspaces++;
}

static int make_plan(const struct pgr_sys *sys)
{
	must(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, spaces, nspaces, &err));
	must(pgr_localtree_scan(&here, sys, layout, &err));
	return pgr_delta_plan_make(&plan, &list, &here, layout, &keep, &err);
}

static void check_sums(void)
{
	size_t n[3] = {0}, files = 0;
	uint64_t fetch = 0, compare = 0, removed = 0;

	ck_assert_uint_eq(plan.n, list.n);
	for (size_t i = 0; i < list.n; i++) {
		const struct pgr_delta_file *x = &plan.files[i];

		if (list.entries[i].is_dir)
			continue;
		files++;
		n[x->action]++;
		if (x->action == PGR_DELTA_COMPARE)
			compare += x->local_size < 10 ? x->local_size : 10;
		if (x->action != PGR_DELTA_KEEP)
			fetch += x->local_size < 10 ? 10 - x->local_size : 0;
	}
	for (size_t i = 0; i < plan.nremovals; i++)
		removed += pgr_localtree_find(&here, plan.removals[i])->size;
	ck_assert_uint_eq(plan.nfetch, n[PGR_DELTA_FETCH]);
	ck_assert_uint_eq(plan.ncompare, n[PGR_DELTA_COMPARE]);
	ck_assert_uint_eq(plan.nkeep, n[PGR_DELTA_KEEP]);
	ck_assert_uint_eq(plan.fetch_bytes, fetch);
	ck_assert_uint_eq(plan.compare_bytes, compare);
	ck_assert_uint_eq(plan.removal_bytes, removed);
}

/* One line for an entry of the server: path, F, C or K, the size here; then one for each removal. */
static void check_plan(const char *want)
{
	struct pgr_buf is = {0};
	struct pgr_err e;

	must(make_plan(pgr_sys_real()));
	for (size_t i = 0; i < list.n; i++)
		ck_assert_int_eq(pgr_buf_printf(&is, &e, "%s %c%zu\n", list.entries[i].path,
						"FCK"[plan.files[i].action], (size_t)plan.files[i].local_size),
				 PGR_OK);
	for (size_t i = 0; i < plan.nremovals; i++)
		ck_assert_int_eq(pgr_buf_printf(&is, &e, "- %s\n", plan.removals[i]), PGR_OK);
	ck_assert_int_eq(pgr_buf_puts(&is, "", &e), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&is), want);
	check_sums();
	pgr_buf_fini(&is);
}

/* ---- plans ---- */

START_TEST(same_and_not)
{
	SERVER("PG_VERSION", "base/", "base/1/", "base/1/10", "base/1/11", "base/1/13", "base/2/", "base/2/1",
	       "global/");
	LOCAL("PG_VERSION", "base/", "base/1/", "base/1/10", "base/1/12", "base/1/13", "base/3/", "base/3/1",
	      "base/3/1_fsm", "stray", "base-x", "with\nnewline", "\xFF");
	check_plan("PG_VERSION C4\nbase K0\nbase/1 K0\nbase/1/10 C4\nbase/1/11 F0\nbase/1/13 C4\nbase/2 F0\n"
		   "base/2/1 F0\nglobal K0\n- \xFF\n- with\nnewline\n- stray\n- base/3/1_fsm\n- base/3/1\n- base/3\n"
		   "- base/1/12\n- base-x\n");
}
END_TEST

/* Shorter there, longer there, nothing here. */
START_TEST(sizes)
{
	SERVER("a", "b", "c");
	tmp_write(&tree, "data/a", "0123456789abcdef");
	tmp_write(&tree, "data/b", "0123");
	tmp_write(&tree, "data/c", "");
	check_plan("a C16\nb C4\nc C0\n");
	ck_assert_uint_eq(plan.compare_bytes, 14);
	ck_assert_uint_eq(plan.fetch_bytes, 16);
}
END_TEST

START_TEST(other_types)
{
	SERVER("a", "b/", "b/1", "c", "d/", "e", "f/");
	LOCAL("a/", "a/1", "b");
	make_link("nowhere", "data/c");
	make_link("global", "data/d");
	ck_assert_int_eq(mkfifo(tmp_at(&tree, "data/e"), 0600), 0);
	ck_assert_int_eq(mkfifo(tmp_at(&tree, "data/f"), 0600), 0);
	check_plan("a F0\nb F0\nb/1 F0\nc F0\nd F0\ne F0\nf F0\n- f\n- e\n- d\n- c\n- b\n- a/1\n- a\n");
}
END_TEST

/* Written in place, the other name would show it, too. */
START_TEST(hard_links)
{
	SERVER("a", "b");
	LOCAL("a", "b");
	ck_assert_int_eq(link(tmp_at(&tree, "data/a"), tmp_at(&tree, "elsewhere")), 0);
	check_plan("a F0\nb C4\n- a\n");
}
END_TEST

/* What the server leaves out of a backup is not in its list, and goes. */
START_TEST(left_out)
{
	SERVER("base/", "base/5/", "base/5/t3_16390", "base/5/16391", "base/5/16391_init", "pg_stat_tmp/",
	       "pg_stat_tmp/global.stat", "postmaster.pid", "pg_replslot/", "pg_replslot/s/");
	LOCAL("base/", "base/5/", "base/5/t3_16390", "base/5/16391", "base/5/16391_init", "pg_stat_tmp/",
	      "pg_stat_tmp/global.stat", "postmaster.pid", "pg_replslot/", "pg_replslot/s/", "pg_replslot/s/state",
	      "backup_label", "global/pg_internal.init");
	check_plan("base K0\nbase/5 K0\nbase/5/16391_init C4\npg_replslot K0\npg_stat_tmp K0\n- postmaster.pid\n"
		   "- pg_stat_tmp/global.stat\n- pg_replslot/s/state\n- pg_replslot/s\n- global/pg_internal.init\n"
		   "- base/5/t3_16390\n- base/5/16391\n- backup_label\n");
}
END_TEST

/* Full copy through the stream: everything goes that is not ours or the layout's. */
START_TEST(no_list)
{
	LOCAL("base/", "base/1", "pg_wal/", "pg_wal/1", "global/pg_control", "global/1262", "global/pg_control.pgr",
	      "pgr_seed.state", "lost+found/", "base/lost+found/", "postgresql.conf");
	check_plan("- global/1262\n- base/lost+found\n- base/1\n- base\n");
	ck_assert_uint_eq(plan.nwal, 1);
	ck_assert_uint_eq(plan.wal_bytes, 4);
}
END_TEST

/* The stream of WAL may write there already when the removals are carried out. */
START_TEST(wal_is_the_layouts)
{
	SERVER("pg_wal/");
	LOCAL("pg_wal/", "pg_wal/000000010000000000000001", "pg_wal/archive_status/", "pg_wal/archive_status/x",
	      "pg_wal/stray/");
	check_plan("pg_wal K0\n");
	ck_assert_uint_eq(plan.nwal, 2);
	ck_assert_uint_eq(plan.wal_bytes, 8);
}
END_TEST

START_TEST(wal_link)
{
	SERVER("pg_wal/");
	tmp_mkdir(&tree, "wal", 0700);
	make_link(tmp_at(&tree, "wal"), "data/pg_wal");
	check_plan("pg_wal K0\n");
}
END_TEST

static void make_spaces(void)
{
	tmp_mkdir(&tree, "ts", 0700);
	tmp_mkdir(&tree, "ts/" VERSION_DIR, 0700);
	tmp_write(&tree, "ts/" VERSION_DIR "/stray", "1234");
	tmp_mkdir(&tree, "ts/PG_14_202107181", 0700);
	tmp_write(&tree, "ts/other", "1234");
	LOCAL("pg_tblspc/", "pg_tblspc/16387/", "pg_tblspc/16387/stray", "pg_tblspc/16388/", "pg_tblspc/16388/x");
	make_link(tmp_at(&tree, "ts"), "data/pg_tblspc/16385");
	make_link(tmp_at(&tree, "gone"), "data/pg_tblspc/16386");
	make_link(tmp_at(&tree, "gone"), "data/pg_tblspc/016386");
	announce(16385, "@/ts");
	announce(16387, "pg_tblspc/16387");
}

#define T85 "pg_tblspc/16385"

START_TEST(tablespaces)
{
	SERVER("pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/", T85 "/" VERSION_DIR "/5/", "pg_tblspc/16387/");
	make_spaces();
	check_plan("pg_tblspc K0\n" T85 " K0\n" T85 "/" VERSION_DIR " K0\n" T85 "/" VERSION_DIR
		   "/5 F0\npg_tblspc/16387 K0\n- pg_tblspc/16388/x\n- pg_tblspc/16388\n- pg_tblspc/16387/stray\n- " T85
		   "/" VERSION_DIR "/stray\n- pg_tblspc/016386\n");
}
END_TEST

/* Nothing is known of whose the version directories are, but for the one that the server has, too. */
START_TEST(tablespaces_version_unknown)
{
	opts.version_dir = NULL;
	SERVER("global/", "pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/", "pg_tblspc/16387/");
	make_spaces();
	tmp_write(&tree, "ts/PG_14_202107181/theirs", "1234");
	check_plan("global K0\npg_tblspc K0\n" T85 " K0\n" T85 "/" VERSION_DIR
		   " K0\npg_tblspc/16387 K0\n- pg_tblspc/16388/x\n- pg_tblspc/16388\n- pg_tblspc/16387/stray\n- " T85
		   "/" VERSION_DIR "/stray\n- pg_tblspc/016386\n");
}
END_TEST

/* With no list, the version directory of the cluster goes, and nothing else of a tablespace. */
START_TEST(tablespaces_no_list)
{
	make_spaces();
	check_plan("- pg_tblspc/16388/x\n- pg_tblspc/16388\n- pg_tblspc/16387/stray\n- " T85 "/" VERSION_DIR
		   "/stray\n- " T85 "/" VERSION_DIR "\n- pg_tblspc/016386\n");
}
END_TEST

/* A version directory that was moved away and linked: the link goes, not followed. */
START_TEST(tablespace_version_link)
{
	SERVER("global/", "pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/", T85 "/" VERSION_DIR "/5/");
	tmp_mkdir(&tree, "ts", 0700);
	make_link(tree.path, "ts/" VERSION_DIR);
	LOCAL("pg_tblspc/");
	make_link(tmp_at(&tree, "ts"), "data/pg_tblspc/16385");
	announce(16385, "@/ts");
	check_plan("global K0\npg_tblspc K0\n" T85 " K0\n" T85 "/" VERSION_DIR " F0\n" T85 "/" VERSION_DIR
		   "/5 F0\n- " T85 "/" VERSION_DIR "\n");
	must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err));
	ck_assert(tmp_exists(&tree, "data/global") && !tmp_exists(&tree, "ts/" VERSION_DIR));
}
END_TEST

/* Where a directory for the links must be is something else: the layout makes it, and it is not ours to remove then. */
START_TEST(tablespaces_in_no_directory)
{
	SERVER("global/", "pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/");
	if (_i == 0)
		make_link(tree.path, "data/pg_tblspc");
	else
		tmp_write(&tree, "data/pg_tblspc", "x");
	announce(16385, "@/ts");
	check_plan("global K0\npg_tblspc K0\n" T85 " F0\n" T85 "/" VERSION_DIR " F0\n");
	must(pgr_layout_take_over(layout, &err));
	must(pgr_layout_link_tablespaces(layout, &err));
	must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err));
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "ts"));
}
END_TEST

/* A directory that has another purpose in this layout, and those that it is in. */
START_TEST(roots_stay)
{
	SERVER("global/");
	LOCAL("sub/", "sub/xlog/", "sub/xlog/00000002.history", "sub/x");
	make_link(tmp_at(&tree, "data/sub/xlog"), "data/pg_wal");
	check_plan("global K0\n- sub/x\n");
}
END_TEST

/* ---- what is kept ---- */

START_TEST(kept_by_default)
{
	SERVER("global/", "pg_hba.conf", "pg_ident.conf", "postgresql.auto.conf", "postgresql.conf");
	LOCAL("postgresql.conf", "postgresql.auto.conf");
	make_link("/etc/pg_hba.conf", "data/pg_hba.conf");
	check_plan("global K0\npg_hba.conf K0\npg_ident.conf F0\npostgresql.auto.conf C4\npostgresql.conf K4\n");
}
END_TEST

START_TEST(kept_not)
{
	keep.no_defaults = true;
	SERVER("global/", "postgresql.conf");
	LOCAL("postgresql.conf", "pg_hba.conf");
	check_plan("global K0\npostgresql.conf C4\n- pg_hba.conf\n");
}
END_TEST

/* With all that is in it, and with all that it is in. */
START_TEST(kept_patterns)
{
	KEEP("log", "conf.d/*.conf", "*.key");
	SERVER("conf.d/", "conf.d/a.conf", "conf.d/c.conf", "conf.d/d", "global/");
	LOCAL("log/", "log/a/", "log/a/b", "conf.d/", "conf.d/a.conf", "conf.d/b.conf", "conf.d/b", "conf.d/d",
	      "server.key", "other/", "other/x.key", "other/x");
	check_plan("conf.d K0\nconf.d/a.conf K4\nconf.d/c.conf F0\nconf.d/d C4\nglobal K0\n- other/x.key\n- other/x\n"
		   "- other\n- conf.d/b\n");
}
END_TEST

START_TEST(kept_deep)
{
	KEEP("a/*/x");
	SERVER("global/");
	LOCAL("a/", "a/b/", "a/b/x", "a/b/y", "a/c/", "a/c/y");
	check_plan("global K0\n- a/c/y\n- a/c\n- a/b/y\n");
}
END_TEST

/* A link is kept in place of the server's directory: what the server has in it has no place. */
START_TEST(kept_link)
{
	KEEP("conf.d*");
	SERVER("conf.d/", "conf.d-/", "conf.d/a.conf", "conf.d/sub/", "conf.d/sub/b", "global/");
	make_link("/etc/conf.d", "data/conf.d");
	make_link("/etc/conf.d-", "data/conf.d-");
	check_plan("conf.d K0\nconf.d- K0\nconf.d/a.conf K0\nconf.d/sub K0\nconf.d/sub/b K0\nglobal K0\n");
}
END_TEST

/* The pattern is for what is in the directory; the link is not it. */
START_TEST(kept_below_link)
{
	KEEP("conf.d/*");
	SERVER("conf.d/", "conf.d/a.conf", "global/");
	make_link("/etc/conf.d", "data/conf.d");
	check_plan("conf.d F0\nconf.d/a.conf F0\nglobal K0\n- conf.d\n");
}
END_TEST

/* What should be a configuration file is none. */
START_TEST(kept_is_no_file)
{
	SERVER("global/", "pg_hba.conf", "postgresql.conf");
	LOCAL("pg_hba.conf/", "pg_hba.conf/in");
	ck_assert_int_eq(mkfifo(tmp_at(&tree, "data/postgresql.conf"), 0600), 0);
	check_plan("global K0\npg_hba.conf F0\npostgresql.conf F0\n- postgresql.conf\n- pg_hba.conf/in\n"
		   "- pg_hba.conf\n");
}
END_TEST

START_TEST(kept_in_the_way)
{
	KEEP("a/x");
	SERVER("a", "global/");
	LOCAL("a/", "a/x");
	ck_assert_int_eq(make_plan(pgr_sys_real()), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_str_eq(err.msg, "\"a/x\" cannot be kept: the server has a file of the name \"a\"");
	ck_assert_ptr_null(plan.files);
}
END_TEST

/* A data directory inside of this one: what the server does not know need not be of no use. */
static const char *const nested[] = {"old/global/pg_control", "old/postmaster.pid", "pg_wal/old/global/pg_control"};

START_TEST(nested_refused)
{
	char want[PATH_MAX + 64];
	bool in_wal = strncmp(nested[_i], "pg_wal", 6) == 0;

	SERVER("base/", "global/");
	LOCAL("base/");
	if (in_wal)
		LOCAL("pg_wal/", "pg_wal/old/", "pg_wal/old/global/");
	else
		LOCAL("old/", "old/base/", "old/global/");
	local((const char *const[]){nested[_i], NULL});
	ck_assert_int_eq(make_plan(pgr_sys_real()), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	snprintf(want, sizeof(want), "\"%s/%sold\" is a data directory, too, and would be removed", data_dir,
		 in_wal ? "pg_wal/" : "");
	ck_assert_str_eq(err.msg, want);
	ck_assert_msg(strstr(err.hint, "--keep") != NULL, "%s", err.hint);
}
END_TEST

START_TEST(nested_kept)
{
	KEEP("old");
	SERVER("global/", "theirs/", "theirs/global/", "theirs/global/pg_control");
	LOCAL("old/", "old/global/", "old/global/pg_control", "theirs/", "theirs/global/", "theirs/global/pg_control",
	      "global/pg_control");
	check_plan("global K0\ntheirs K0\ntheirs/global K0\ntheirs/global/pg_control C4\n");
}
END_TEST

static const struct {
	const char *pattern, *path;
	bool matches;
} kept[] = {
	{"log", "log", true},
	{"log", "log/x/y", true},
	{"log", "logs", false},
	{"log", "a/log", false},
	{"log/", "log/x", true},
	{"./log//", "log/x", true},
	{"log/*", "log", false},
	{"log/*", "log/a/b", true},
	{"*", "a", true},
	{"*", "base", false},
	{"*", "base/1", false},
	{"b*/1", "base/1", false},
	{"base/1", "base/1", false},
	{"PG_VERSION", "PG_VERSION", false},
	{"global/pg_control", "global/pg_control", false},
	{"pgr_seed.state", "pgr_seed.state", false},
	{"[ab].conf", "b.conf", true},
	{"a\\*", "a*", true},
	{"a\\*", "ab", false},
	{"*.conf", "x/a.conf", false},
	{"*", ".hidden", true},
	{"", "a", false},
	{"x\xFFy", "x\xFFy", true},
};

START_TEST(keep_matches)
{
	const struct pgr_keep k = {.patterns = &kept[_i].pattern, .n = 1};

	ck_assert_int_eq(pgr_keep_matches(&k, kept[_i].path), kept[_i].matches);
}
END_TEST

START_TEST(keep_long)
{
	char path[PATH_MAX + 1];
	const char *pattern = path;
	const struct pgr_keep k = {.patterns = &pattern, .n = 1};

	memset(path, 'x', PATH_MAX);
	path[PATH_MAX] = '\0';
	ck_assert(!pgr_keep_matches(&k, path));
	ck_assert_int_eq(pgr_keep_check(path, &err), PGR_ERR);
	path[PATH_MAX - 1] = '\0';
	ck_assert(pgr_keep_matches(&k, path));
	ck_assert_int_eq(pgr_keep_check(path, &err), PGR_OK);
}
END_TEST

static const char *const good_patterns[] = {"log",    "*.conf",		"conf.d/*",
					    "./log/", "archive*",	"..x",
					    "a/..b",  "standby.signal", "postgresql.auto.conf",
					    "pg_log", "recovery.*"};
static const struct {
	const char *pattern, *why;
} bad_patterns[] = {
	{"", "invalid --keep pattern"},
	{"/", "invalid --keep pattern"},
	{"/etc/x", "invalid --keep pattern"},
	{"..", "invalid --keep pattern"},
	{"a/../b", "invalid --keep pattern"},
	{".", "invalid --keep pattern"},
	{"*", "it would keep \"base\""},
	{"base", "it would keep \"base\""},
	{"global/pg_control", "it would keep \"global\""},
	{"*/1", "it would keep \"base\""},
	{"pg_*", "it would keep \"pg_tblspc\""},
	{"./PG_VERSION", "it would keep \"PG_VERSION\""},
	{"*.pid", "it would keep \"postmaster.pid\""},
	{"pgr_*", "it would keep \"pgr_seed.state\""},
};

START_TEST(keep_accepted)
{
	ck_assert_msg(pgr_keep_check(good_patterns[_i], &err) == PGR_OK, "%s", err.msg);
}
END_TEST

START_TEST(keep_refused)
{
	ck_assert_int_eq(pgr_keep_check(bad_patterns[_i].pattern, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err.msg, bad_patterns[_i].why) != NULL, "%s", err.msg);
}
END_TEST

/* ---- mounts ---- */

static struct pgr_sys odd;
static const char *odd_name;

static int odd_statx(const struct pgr_sys *sys, int fd, const char *path, int flags, unsigned mask, struct statx *x)
{
	(void)sys;
	if (statx(fd, path, flags, mask, x) != 0)
		return -1;
	x->stx_attributes_mask |= 0x2000;
	x->stx_attributes = strcmp(path, odd_name) == 0 ? 0x2000 : 0;
	return 0;
}

static const struct {
	const char *name;
	bool refused;
} mounts[] = {
	{"base", false},   /* the server has it */
	{"stray", true},   /* it cannot be removed */
	{"kept", false},   /* it need not be */
	{"pg_wal", false}, /* it is emptied only */
	{"below_wal", true},
};

START_TEST(mounted)
{
	KEEP("kept");
	SERVER("base/", "global/", "pg_wal/");
	LOCAL("base/", "stray/", "stray/file", "kept/", "kept/file", "pg_wal/", "pg_wal/below_wal/");
	odd = *pgr_sys_real();
	odd.statx = odd_statx;
	odd_name = mounts[_i].name;
	if (!mounts[_i].refused) {
		must(make_plan(&odd));
		return;
	}
	ck_assert_int_eq(make_plan(&odd), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err.msg, mounts[_i].name) != NULL && strstr(err.msg, data_dir) != NULL &&
			      strstr(err.msg, "is a mount point and cannot be removed") != NULL,
		      "%s", err.msg);
}
END_TEST

/* ---- removing ---- */

static int ticks;

static int tick(void *arg, struct pgr_err *e)
{
	ticks++;
	return arg == NULL ? PGR_OK : pgr_err_set(e, PGR_E_STOPPED, "stopped");
}

static void make_many(void)
{
	char name[32];

	tmp_mkdir(&tree, "data/many", 0700);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "data/many/%d", i);
		tmp_write(&tree, name, "x");
	}
}

START_TEST(removes)
{
	SERVER("base/", "base/1", "global/", "pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/");
	make_spaces();
	LOCAL("base/", "base/1", "base/2", "a/", "a/b/", "a/b/c/", "a/b/c/d", "a/e", "with\nnewline", "\xFF");
	make_link(tmp_at(&tree, "ts"), "data/a/link");
	ck_assert_int_eq(mkfifo(tmp_at(&tree, "data/fifo"), 0600), 0);
	make_many();
	must(make_plan(pgr_sys_real()));
	ck_assert_uint_gt(plan.nremovals, 1010);
	ticks = 0;
	must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, tick, NULL, &err));
	ck_assert_int_eq(ticks, (int)plan.nremovals / 256);
	ck_assert_uint_eq(tmp_entries(data_dir), 3); /* base, global, pg_tblspc */
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/base")), 1);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 3);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "ts")), 3);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "ts/" VERSION_DIR)), 0);
	/* a second time there is nothing left to remove */
	must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err));
}
END_TEST

/* The same directory below another root is another one. */
START_TEST(removes_in_each_tablespace)
{
	static const char *const names[] = {"ts", "ts2"};

	LOCAL("pg_tblspc/");
	for (int i = 0; i < 2; i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s", names[i]);
		tmp_mkdir(&tree, path, 0700);
		snprintf(path, sizeof(path), "%s/" VERSION_DIR, names[i]);
		tmp_mkdir(&tree, path, 0700);
		snprintf(path, sizeof(path), "%s/" VERSION_DIR "/stray%d", names[i], i);
		tmp_write(&tree, path, "x");
		snprintf(path, sizeof(path), "data/pg_tblspc/%d", 16385 + i);
		make_link(tmp_at(&tree, names[i]), path);
	}
	announce(16385, "@/ts");
	announce(16386, "@/ts2");
	SERVER("pg_tblspc/", T85 "/", T85 "/" VERSION_DIR "/", "pg_tblspc/16386/", "pg_tblspc/16386/" VERSION_DIR "/");
	must(make_plan(pgr_sys_real()));
	must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "ts/" VERSION_DIR)), 0);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "ts2/" VERSION_DIR)), 0);
}
END_TEST

START_TEST(remove_stopped)
{
	make_many();
	must(make_plan(pgr_sys_real()));
	ck_assert_int_eq(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, tick, &ticks, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/many")), 1000 - 256);
}
END_TEST

/* A link that took the place of a directory meanwhile leads nowhere. */
START_TEST(remove_follows_no_link)
{
	LOCAL("a/", "a/1");
	tmp_mkdir(&tree, "victim", 0700);
	tmp_write(&tree, "victim/1", "x");
	must(make_plan(pgr_sys_real()));
	ck_assert_int_eq(rename(tmp_at(&tree, "data/a"), tmp_at(&tree, "data/b")), 0);
	make_link(tmp_at(&tree, "victim"), "data/a");
	ck_assert_int_eq(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err), PGR_ERR);
	ck_assert(tmp_exists(&tree, "victim/1"));
}
END_TEST

START_TEST(remove_not_empty)
{
	char want[PATH_MAX + 64];

	LOCAL("a/");
	must(make_plan(pgr_sys_real()));
	LOCAL("a/new");
	ck_assert_int_eq(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err), PGR_ERR);
	snprintf(want, sizeof(want), "could not remove \"%s/a\": Directory not empty", data_dir);
	ck_assert_str_eq(err.msg, want);
}
END_TEST

static int busy_unlinkat(const struct pgr_sys *sys, int fd, const char *path, int flags)
{
	(void)sys;
	(void)fd;
	(void)path;
	(void)flags;
	errno = EBUSY;
	return -1;
}

START_TEST(remove_busy)
{
	LOCAL("a");
	odd = *pgr_sys_real();
	odd.unlinkat = busy_unlinkat;
	must(make_plan(pgr_sys_real()));
	ck_assert_int_eq(pgr_delta_plan_remove(&plan, &odd, layout, NULL, NULL, &err), PGR_ERR);
	ck_assert_msg(strstr(err.hint, "mounted") != NULL, "%s", err.hint);
}
END_TEST

/* Whatever fails is told with its name, and the next run does the rest. */
START_TEST(remove_faults)
{
	bool triggered = true;
	unsigned at;

	for (at = 1; triggered; at++) {
		int rc;

		LOCAL("a/", "a/b/", "a/b/c", "a/d", "e/", "e/f");
		must(make_plan(pgr_sys_real()));
		pgr_fault_sys_init(&f, at, EIO);
		rc = pgr_delta_plan_remove(&plan, &f.sys, layout, NULL, NULL, &err);
		triggered = f.triggered;
		if (triggered) {
			ck_assert_int_eq(rc, PGR_ERR);
			ck_assert_int_eq(err.sys_errno, EIO);
			ck_assert_msg(strchr(err.msg, '"') != NULL, "%s: %s", f.failed_call, err.msg);
		}
		must(pgr_delta_plan_remove(&plan, pgr_sys_real(), layout, NULL, NULL, &err));
		ck_assert_uint_eq(tmp_entries(data_dir), 1);
		pgr_delta_plan_fini(&plan);
		pgr_localtree_fini(&here);
		pgr_layout_free(layout);
		layout = NULL;
		ck_assert_uint_eq(tmp_open_fds(), fds);
	}
	ck_assert_uint_ge(at, 15);
}
END_TEST

static Suite *delta_plan_suite(void)
{
	Suite *s = suite_create("delta_plan");
	TCase *p = tcase_create("plan"), *k = tcase_create("keep"), *r = tcase_create("remove");

	tcase_add_checked_fixture(p, setup, teardown);
	tcase_add_test(p, same_and_not);
	tcase_add_test(p, sizes);
	tcase_add_test(p, other_types);
	tcase_add_test(p, hard_links);
	tcase_add_test(p, left_out);
	tcase_add_test(p, no_list);
	tcase_add_test(p, wal_is_the_layouts);
	tcase_add_test(p, wal_link);
	tcase_add_test(p, tablespaces);
	tcase_add_test(p, tablespaces_version_unknown);
	tcase_add_test(p, tablespaces_no_list);
	tcase_add_test(p, tablespace_version_link);
	tcase_add_loop_test(p, tablespaces_in_no_directory, 0, 2);
	tcase_add_test(p, roots_stay);
	tcase_add_test(p, kept_by_default);
	tcase_add_test(p, kept_not);
	tcase_add_test(p, kept_patterns);
	tcase_add_test(p, kept_deep);
	tcase_add_test(p, kept_link);
	tcase_add_test(p, kept_below_link);
	tcase_add_test(p, kept_is_no_file);
	tcase_add_test(p, kept_in_the_way);
	tcase_add_loop_test(p, nested_refused, 0, 3);
	tcase_add_test(p, nested_kept);
	tcase_add_loop_test(p, mounted, 0, sizeof(mounts) / sizeof(mounts[0]));
	suite_add_tcase(s, p);
	tcase_add_loop_test(k, keep_matches, 0, sizeof(kept) / sizeof(kept[0]));
	tcase_add_test(k, keep_long);
	tcase_add_loop_test(k, keep_accepted, 0, sizeof(good_patterns) / sizeof(good_patterns[0]));
	tcase_add_loop_test(k, keep_refused, 0, sizeof(bad_patterns) / sizeof(bad_patterns[0]));
	suite_add_tcase(s, k);
	tcase_add_checked_fixture(r, setup, teardown);
	tcase_add_test(r, removes);
	tcase_add_test(r, removes_in_each_tablespace);
	tcase_add_test(r, remove_stopped);
	tcase_add_test(r, remove_follows_no_link);
	tcase_add_test(r, remove_not_empty);
	tcase_add_test(r, remove_busy);
	tcase_add_test(r, remove_faults);
	tcase_set_timeout(r, 60);
	suite_add_tcase(s, r);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(delta_plan_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
