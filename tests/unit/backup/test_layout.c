#include <check.h>
#include <errno.h>
#include <stdarg.h>

#include "backup/bbstream.h"
#include "backup/layout.h"
#include "common/buf.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

/* ---- -T ---- */

START_TEST(map_splits)
{
	struct pgr_tblspc_map *list = NULL;
	struct pgr_err err;

	ck_assert_int_eq(pgr_tblspc_map_add(&list, "/a=/b", &err), PGR_OK);
	ck_assert_int_eq(pgr_tblspc_map_add(&list, "/with\\=sign//x/=/new\\=/./y", &err), PGR_OK);
	ck_assert_int_eq(pgr_tblspc_map_add(&list, "C:\\ts=/c", &err), PGR_OK);
	ck_assert_int_eq(pgr_tblspc_map_add(&list, "/a=/second", &err), PGR_OK);
	ck_assert_str_eq(pgr_tblspc_map_find(list, "/a"), "/b"); /* the first one counts */
	ck_assert_str_eq(pgr_tblspc_map_find(list, "/with=sign/x"), "/new=/y");
	ck_assert_str_eq(pgr_tblspc_map_find(list, "C:\\ts"), "/c");
	ck_assert_ptr_null(pgr_tblspc_map_find(list, "/a/"));
	ck_assert_ptr_null(pgr_tblspc_map_find(list, "/"));
	pgr_tblspc_map_free(list);
}
END_TEST

static const struct {
	const char *arg, *msg;
} bad_maps[] = {
	{"", "invalid tablespace mapping format \"\", must be \"OLDDIR=NEWDIR\""},
	{"/a", "invalid tablespace mapping format \"/a\", must be \"OLDDIR=NEWDIR\""},
	{"/a=", "invalid tablespace mapping format \"/a=\", must be \"OLDDIR=NEWDIR\""},
	{"=/b", "invalid tablespace mapping format \"=/b\", must be \"OLDDIR=NEWDIR\""},
	{"/a\\=/b", "invalid tablespace mapping format \"/a\\=/b\", must be \"OLDDIR=NEWDIR\""},
	{"/a=/b=/c", "multiple \"=\" signs in tablespace mapping"},
	{"a=/b", "old directory is not an absolute path in tablespace mapping: a"},
	{"ab\\c=/b", "old directory is not an absolute path in tablespace mapping: ab\\c"},
	{"/a=b", "new directory is not an absolute path in tablespace mapping: b"},
	{"/a=C:\\b", "new directory is not an absolute path in tablespace mapping: C:\\b"},
};

START_TEST(map_refuses)
{
	struct pgr_tblspc_map *list = NULL;
	struct pgr_err err;

	ck_assert_int_eq(pgr_tblspc_map_add(&list, bad_maps[_i].arg, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_str_eq(err.msg, bad_maps[_i].msg);
	ck_assert_ptr_null(list);
}
END_TEST

START_TEST(map_too_long)
{
	struct pgr_tblspc_map *list = NULL;
	struct pgr_err err;
	char arg[PATH_MAX + 16];

	memset(arg, 'x', sizeof(arg));
	memcpy(arg, "/a=/", 4);
	arg[sizeof(arg) - 1] = '\0';
	ck_assert_int_eq(pgr_tblspc_map_add(&list, arg, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "directory name too long");
}
END_TEST

/* ---- a layout in a directory of its own ---- */

static struct tmptree tree;
static struct pgr_layout_opts opts;
static struct pgr_layout *layout;
static struct pgr_tblspc_map *mapping;
static struct pgr_err err;
static struct pgr_buf said;
static unsigned fds;
static struct pgr_fault_sys f; /* outlives the layout */
static char data_dir[PATH_MAX], wal_dir[PATH_MAX];

static void setup(void)
{
	tmp_make(&tree);
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	snprintf(wal_dir, sizeof(wal_dir), "%s/wal", tree.path);
	opts = (struct pgr_layout_opts){.data_dir = data_dir, .dir_mode = 0700, .file_mode = 0600};
	layout = NULL;
	mapping = NULL;
	said = (struct pgr_buf){0};
	fds = tmp_open_fds();
}

static void teardown(void)
{
	pgr_layout_free(layout);
	pgr_tblspc_map_free(mapping);
	pgr_buf_fini(&said);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

static void make(const struct pgr_sys *sys)
{
	opts.mapping = mapping;
	ck_assert_int_eq(pgr_layout_new(&layout, sys, &opts, &err), PGR_OK);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void prepare_ok(void)
{
	make(pgr_sys_real());
	must(pgr_layout_prepare(layout, &err));
}

static void PGR_PRINTF(3, 4) check_failed(int rc, enum pgr_errclass cls, const char *fmt, ...)
{
	char want[2 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(want, sizeof(want), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(rc, PGR_ERR);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, cls);
}

static void say(void *arg, const char *line)
{
	struct pgr_err e;

	(void)arg;
	ck_assert_int_eq(pgr_buf_printf(&said, &e, "%s\n", line), PGR_OK);
}

/* Cleans, and compares what was said; "@" in `want` stands for the test's directory. */
static void clean_says(const char *want)
{
	struct pgr_buf w = {0};
	struct pgr_err e;

	must(pgr_layout_clean(layout, say, NULL, &err));
	for (; *want != '\0'; want++)
		ck_assert_int_eq(*want == '@' ? pgr_buf_puts(&w, tree.path, &e) : pgr_buf_put8(&w, (uint8_t)*want, &e),
				 PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&said), pgr_buf_str(&w));
	pgr_buf_fini(&w);
}

/* ---- the data directory ---- */

START_TEST(data_missing)
{
	mode_t old = umask(0777);

	snprintf(data_dir, sizeof(data_dir), "%s/a/b/data", tree.path);
	opts.dir_mode = 0750;
	tmp_mkdir(&tree, "a", 0700);
	umask(027);
	prepare_ok();
	umask(old);
	ck_assert_uint_eq(tmp_mode(&tree, "a/b/data"), S_IFDIR | 0750);
	ck_assert_int_ge(pgr_layout_root(layout, 0), 0);
	ck_assert_int_eq(pgr_layout_root(layout, 1), -1);
	ck_assert_str_eq(pgr_layout_data_dir(layout), data_dir);
	ck_assert_uint_eq(pgr_layout_dir_mode(layout), 0750);
	ck_assert_uint_eq(pgr_layout_file_mode(layout), 0600);
	tmp_write(&tree, "a/b/data/file", "x");
	clean_says("removing data directory \"@/a/b/data\"\n");
	ck_assert(tmp_exists(&tree, "a/b") && !tmp_exists(&tree, "a/b/data"));
}
END_TEST

/* The umask must not decide who may read the standby. */
START_TEST(data_mode_whatever_umask)
{
	mode_t old = umask(077);

	opts.dir_mode = 0750;
	prepare_ok();
	umask(old);
	ck_assert_uint_eq(tmp_mode(&tree, "data"), S_IFDIR | 0750);
}
END_TEST

START_TEST(data_empty)
{
	tmp_mkdir(&tree, "data", 0755);
	prepare_ok();
	ck_assert_uint_eq(tmp_mode(&tree, "data"), S_IFDIR | 0755);
	tmp_write(&tree, "data/file", "x");
	clean_says("removing contents of data directory \"@/data\"\n");
	ck_assert(tmp_exists(&tree, "data"));
	ck_assert_uint_eq(tmp_entries(data_dir), 0);
}
END_TEST

START_TEST(data_not_empty)
{
	tmp_mkdir(&tree, "data", 0700);
	tmp_write(&tree, "data/.hidden", "x");
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "directory \"%s\" exists but is not empty",
		     data_dir);
	clean_says("");
	ck_assert(tmp_exists(&tree, "data/.hidden"));
}
END_TEST

/* Somebody else makes the directory, with something in it, between our look and our mkdir. */
static int mkdir_too_late(const struct pgr_sys *sys, int fd, const char *path, mode_t mode)
{
	(void)sys;
	if (strcmp(path, data_dir) == 0) {
		ck_assert_int_eq(mkdirat(fd, path, mode), 0);
		tmp_write(&tree, "data/theirs", "x");
	}
	errno = EEXIST;
	return -1;
}

START_TEST(data_made_meanwhile)
{
	static struct pgr_sys late;

	late = *pgr_sys_real();
	late.mkdirat = mkdir_too_late;
	make(&late);
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "directory \"%s\" exists but is not empty",
		     data_dir);
	clean_says("");
	ck_assert(tmp_exists(&tree, "data/theirs"));
}
END_TEST

START_TEST(data_is_a_file)
{
	tmp_write(&tree, "data", "x");
	make(pgr_sys_real());
	ck_assert_int_eq(pgr_layout_prepare(layout, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, ENOTDIR);
	clean_says("");
	ck_assert(tmp_exists(&tree, "data"));
}
END_TEST

/* The user's own link is followed, and stays. */
START_TEST(data_behind_link)
{
	tmp_mkdir(&tree, "real", 0700);
	ck_assert_int_eq(symlink("real", data_dir), 0);
	prepare_ok();
	tmp_write(&tree, "real/file", "x");
	must(pgr_layout_sync(layout, true, &err));
	clean_says("removing contents of data directory \"@/data\"\n");
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "real")), 0);
	tmp_check_link(&tree, "data", "real");
}
END_TEST

START_TEST(names_refused)
{
	char longname[PATH_MAX + 1];

	memset(longname, 'x', sizeof(longname));
	longname[PATH_MAX] = '\0';
	opts.data_dir = "";
	check_failed(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err), PGR_E_USAGE, "empty directory name");
	opts.data_dir = longname;
	check_failed(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err), PGR_E_USAGE, "directory name too long");
	opts.data_dir = data_dir;
	opts.wal_dir = "relative";
	check_failed(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err), PGR_E_USAGE,
		     "WAL directory location must be an absolute path");
	ck_assert_ptr_null(layout);
}
END_TEST

/* ---- the WAL ---- */

static void check_wal_root(const char *name, unsigned entries)
{
	struct stat a, b;
	int fd = -1, again = -1;

	must(pgr_layout_wal_root(layout, &fd, &err));
	must(pgr_layout_wal_root(layout, &again, &err));
	ck_assert_int_eq(fd, again);
	ck_assert_int_eq(fstat(fd, &a), 0);
	ck_assert_int_eq(stat(tmp_at(&tree, name), &b), 0);
	ck_assert(a.st_dev == b.st_dev && a.st_ino == b.st_ino);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, name)), entries);
}

START_TEST(wal_inside)
{
	mode_t old = umask(077);

	opts.summaries = true;
	opts.dir_mode = 0750;
	prepare_ok();
	ck_assert_uint_eq(tmp_entries(data_dir), 0);
	check_wal_root("data/pg_wal", 2);
	umask(old);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal"), S_IFDIR | 0750);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal/archive_status"), S_IFDIR | 0750);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal/summaries"), S_IFDIR | 0750);
	ck_assert_str_eq(pgr_layout_wal_name(layout), "pg_wal");
}
END_TEST

START_TEST(wal_old_name)
{
	opts.pg_xlog = true;
	prepare_ok();
	check_wal_root("data/pg_xlog", 1);
	ck_assert(tmp_exists(&tree, "data/pg_xlog/archive_status"));
	ck_assert_str_eq(pgr_layout_wal_name(layout), "pg_xlog");
}
END_TEST

START_TEST(wal_elsewhere)
{
	opts.wal_dir = wal_dir;
	prepare_ok();
	tmp_check_link(&tree, "data/pg_wal", wal_dir);
	ck_assert_uint_eq(tmp_mode(&tree, "wal"), S_IFDIR | 0700);
	check_wal_root("wal", 1);
	clean_says("removing data directory \"@/data\"\nremoving WAL directory \"@/wal\"\n");
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
}
END_TEST

START_TEST(wal_elsewhere_empty)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "wal", 0700);
	tmp_mkdir(&tree, "data", 0700);
	prepare_ok();
	check_wal_root("wal", 1);
	clean_says("removing contents of data directory \"@/data\"\nremoving contents of WAL directory \"@/wal\"\n");
	ck_assert_uint_eq(tmp_entries(data_dir) + tmp_entries(wal_dir), 0);
}
END_TEST

/* What was made before the refusal goes, what was refused stays. */
START_TEST(wal_not_empty)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "wal", 0700);
	tmp_mkdir(&tree, "wal/lost+found", 0700);
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "directory \"%s\" exists but is not empty",
		     wal_dir);
	clean_says("removing data directory \"@/data\"\n");
	ck_assert(tmp_exists(&tree, "wal/lost+found") && !tmp_exists(&tree, "data"));
}
END_TEST

START_TEST(wal_is_data)
{
	opts.wal_dir = data_dir;
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "WAL directory \"%s\" is the data directory",
		     data_dir);
}
END_TEST

/* Odd, but allowed; the second removal finds nothing left to remove. */
START_TEST(wal_inside_data)
{
	snprintf(wal_dir, sizeof(wal_dir), "%s/data/xlog", tree.path);
	opts.wal_dir = wal_dir;
	prepare_ok();
	check_wal_root("data/xlog", 1);
	clean_says("removing data directory \"@/data\"\nremoving WAL directory \"@/data/xlog\"\n");
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
}
END_TEST

/* A link in pg_wal's place that is not ours is not followed. */
START_TEST(wal_link_not_followed)
{
	int fd;

	prepare_ok();
	tmp_mkdir(&tree, "victim", 0700);
	ck_assert_int_eq(symlink(tmp_at(&tree, "victim"), tmp_at(&tree, "data/pg_wal")), 0);
	ck_assert_int_eq(pgr_layout_wal_root(layout, &fd, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "victim")), 0);
}
END_TEST

/* ---- tablespaces ---- */

static struct pgr_bb_tablespace list[8];
static char locations[8][2 * PATH_MAX];
static size_t nlist;

/* "@" at the start stands for the test's directory. */
static void announce(uint32_t oid, const char *location)
{
	snprintf(locations[nlist], sizeof(locations[0]), "%s%s", location[0] == '@' ? tree.path : "",
		 location + (location[0] == '@'));
	list[nlist] = (struct pgr_bb_tablespace){.oid = oid, .location = locations[nlist], .size_kb = -1};
	nlist++;
}

static void map(const char *old_dir, const char *new_dir)
{
	char arg[3 * PATH_MAX];

	snprintf(arg, sizeof(arg), "%s%s=%s%s", old_dir[0] == '@' ? tree.path : "", old_dir + (old_dir[0] == '@'),
		 tree.path, new_dir);
	must(pgr_tblspc_map_add(&mapping, arg, &err));
}

static int prepare_spaces(void)
{
	static char empty[1];

	list[nlist] = (struct pgr_bb_tablespace){.oid = 0, .location = empty};
	return pgr_layout_prepare_tablespaces(layout, list, nlist + 1, &err);
}

static void setup_spaces(void)
{
	setup();
	nlist = 0;
}

START_TEST(spaces_all_kinds)
{
	announce(16400, "@/ts one"); /* where the server has it */
	announce(16390, "/srv/ts2"); /* -T */
	announce(16395, "pg_tblspc/16395");
	announce(16381, "@/..ts/x..");	/* dots are no step up */
	announce(16380, "@//ts3/./x/"); /* a link made by hand need not be canonical */
	announce(16385, "C:\\ts");
	map("/srv/ts2", "/new2");
	map("C:\\ts", "/new3");
	map("/srv/unused", "/unused");
	prepare_ok();
	must(prepare_spaces());
	ck_assert_uint_eq(tmp_mode(&tree, "ts one"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_mode(&tree, "new2"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_mode(&tree, "new3"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_mode(&tree, "ts3/x"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_tblspc/16395"), S_IFDIR | 0700);
	ck_assert(!tmp_exists(&tree, "unused"));
	for (size_t i = 0; i < nlist; i++)
		ck_assert_int_ge(pgr_layout_root(layout, list[i].oid), 0);
	ck_assert_str_eq(pgr_layout_tablespace_target(layout, 16390), tmp_at(&tree, "new2"));
	ck_assert_str_eq(pgr_layout_target_of(layout, "/srv/ts2/"), tmp_at(&tree, "new2"));
	ck_assert_str_eq(pgr_layout_target_of(layout, tmp_at(&tree, "ts3//x")), tmp_at(&tree, "ts3/x"));
	ck_assert_str_eq(pgr_layout_target_of(layout, "C:\\ts"), tmp_at(&tree, "new3"));
	ck_assert_ptr_null(pgr_layout_tablespace_target(layout, 16395));
	ck_assert_ptr_null(pgr_layout_target_of(layout, "pg_tblspc/16395"));
	ck_assert_ptr_null(pgr_layout_tablespace_target(layout, 0));
	ck_assert_ptr_null(pgr_layout_tablespace_target(layout, 4));
	ck_assert_ptr_null(pgr_layout_target_of(layout, "/srv"));
	ck_assert_ptr_null(pgr_layout_target_of(layout, ""));
	check_failed(prepare_spaces(), PGR_E_USAGE, "tablespaces of \"%s\" were prepared before", data_dir);
}
END_TEST

START_TEST(spaces_none)
{
	prepare_ok();
	must(prepare_spaces());
	ck_assert_ptr_null(pgr_layout_target_of(layout, "/x"));
	ck_assert_int_eq(pgr_layout_root(layout, 7), -1);
	ck_assert_uint_eq(tmp_entries(data_dir), 0);
}
END_TEST

static void check_resolves(const char *path, int root, const char *rest, const char *location)
{
	const char *got_rest = NULL, *got_location = pgr_layout_location(layout, path, &got_rest);
	int fd = -1;

	if (location == NULL) {
		ck_assert_msg(got_location == NULL, "%s", path);
	} else {
		ck_assert_str_eq(got_location, location);
		ck_assert_str_eq(got_rest, rest);
	}
	pgr_layout_resolve(layout, path, &fd, &got_rest);
	ck_assert_msg(fd == root, "%s leads elsewhere", path);
	ck_assert_str_eq(got_rest, rest);
}

START_TEST(resolves)
{
	int wal;

	opts.wal_dir = wal_dir;
	announce(16390, "/srv/ts2//x");
	announce(16395, "pg_tblspc/16395");
	map("/srv/ts2/x", "/new2");
	prepare_ok();
	must(prepare_spaces());
	must(pgr_layout_wal_root(layout, &wal, &err));
	check_resolves("pg_tblspc/16390/PG_15_1/5/16400.1", pgr_layout_root(layout, 16390), "PG_15_1/5/16400.1",
		       "/srv/ts2/x");
	check_resolves("pg_tblspc/16390", pgr_layout_root(layout, 16390), "", "/srv/ts2/x");
	check_resolves("pg_tblspc/16395/PG_15_1/5/1", pgr_layout_root(layout, 16395), "PG_15_1/5/1", "pg_tblspc/16395");
	check_resolves("pg_wal/archive_status/x.done", wal, "archive_status/x.done", NULL);
	check_resolves("pg_wal", wal, "", NULL);

	int data = pgr_layout_root(layout, 0);
	const char *const in_data[] = {"base/5/1259",
				       "PG_VERSION",
				       "pg_walx/y",
				       "pg_tblspc/16391/z",
				       "pg_tblspc",
				       "pg_tblspc/",
				       "pg_tblspc/016390/z",
				       "pg_tblspc/16390x/z",
				       "pg_tblspc/4294983686",
				       "base/pg_wal/x",
				       "base/pg_tblspc/16390/x",
				       "pg_tblspc/0/x"};

	for (size_t i = 0; i < sizeof(in_data) / sizeof(in_data[0]); i++)
		check_resolves(in_data[i], data, in_data[i], NULL);
}
END_TEST

/* Without --waldir pg_wal is below the data directory like anything else, until it is open by itself. */
START_TEST(resolves_inside)
{
	int wal, data;

	prepare_ok();
	must(prepare_spaces());
	data = pgr_layout_root(layout, 0);
	check_resolves("pg_wal/x", data, "pg_wal/x", NULL);
	check_resolves("pg_tblspc/16390/x", data, "pg_tblspc/16390/x", NULL);
	must(pgr_layout_wal_root(layout, &wal, &err));
	check_resolves("pg_wal/x", wal, "x", NULL);
}
END_TEST

static const char *const bad_locations[] = {
	"relative",
	"",
	"pg_tblspc/16386",
	"pg_tblspc/16385/",
	"pg_tblspc/016385",
	"./pg_tblspc/16385",
	"/srv/../etc/cron",
	"/srv/..",
	"..",
	"pg_tblspc",
	"C:\\ts",
};

START_TEST(spaces_bad_location)
{
	announce(16385, bad_locations[_i]);
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_DATA, "server sent an invalid location of tablespace 16385: \"%s\"",
		     bad_locations[_i]);
	ck_assert_uint_eq(tmp_entries(data_dir), 0);
}
END_TEST

/* However it is spelled: through a link, or with a data directory that was given relative. */
static const char *const inside_data[] = {"@/data", "@/data/ts", "@/data/a/b", "@/link/ts", "@//data/"};

START_TEST(spaces_inside_data)
{
	char cwd[PATH_MAX];

	announce(16385, inside_data[_i]);
	ck_assert_int_eq(symlink("data", tmp_at(&tree, "link")), 0);
	ck_assert_ptr_nonnull(getcwd(cwd, sizeof(cwd)));
	ck_assert_int_eq(chdir(tree.path), 0);
	opts.data_dir = "data";
	prepare_ok();
	ck_assert_int_eq(prepare_spaces(), PGR_ERR);
	ck_assert_int_eq(chdir(cwd), 0);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, "tablespace 16385 has its directory") && strstr(err.msg, "inside the data dir"),
		      "%s", err.msg);
	ck_assert(strstr(err.hint, "--tablespace-mapping") != NULL);
	ck_assert_uint_eq(tmp_entries(data_dir), 0);
}
END_TEST

START_TEST(spaces_inside_wal)
{
	opts.wal_dir = wal_dir;
	announce(16385, "@/wal/ts");
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_DATA,
		     "tablespace 16385 has its directory \"%s/ts\" inside the WAL directory \"%s\"", wal_dir, wal_dir);
	ck_assert_uint_eq(tmp_entries(wal_dir), 0);
}
END_TEST

/* What the user maps is the user's choice, but for one directory with two purposes. */
START_TEST(spaces_mapped_inside_data)
{
	announce(16385, "/srv/ts");
	map("/srv/ts", "/data/ts");
	prepare_ok();
	must(prepare_spaces());
	ck_assert(tmp_exists(&tree, "data/ts"));
	clean_says("removing data directory \"@/data\"\nremoving tablespace directory \"@/data/ts\"\n");
}
END_TEST

START_TEST(spaces_mapped_onto_data)
{
	announce(16385, "/srv/ts");
	map("/srv/ts", "/data");
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_USAGE, "directories \"%s\" and \"%s\" are the same directory", data_dir,
		     data_dir);
}
END_TEST

START_TEST(spaces_same_directory)
{
	tmp_mkdir(&tree, "ts", 0700);
	ck_assert_int_eq(symlink("ts", tmp_at(&tree, "alias")), 0);
	announce(16385, "@/ts");
	announce(16386, "@/other");
	announce(16387, "@/alias");
	prepare_ok();
	ck_assert_int_eq(prepare_spaces(), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	ck_assert_msg(strstr(err.msg, "are the same directory") != NULL, "%s", err.msg);
}
END_TEST

START_TEST(spaces_mapped_together)
{
	announce(16385, "/srv/a");
	announce(16386, "/srv/b");
	map("/srv/a", "/new");
	map("/srv/b", "/new");
	prepare_ok();
	ck_assert_int_eq(prepare_spaces(), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_USAGE);
	clean_says("removing data directory \"@/data\"\nremoving tablespace directory \"@/new\"\n"
		   "removing contents of tablespace directory \"@/new\"\n");
	ck_assert_uint_eq(tmp_entries(tree.path), 0);
}
END_TEST

START_TEST(spaces_twice)
{
	announce(16385, "@/a");
	announce(16386, "@/b");
	announce(16385, "@/c");
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_DATA, "server sent tablespace 16385 twice");
	ck_assert(!tmp_exists(&tree, "a"));
}
END_TEST

/* The refusal of the last one comes before the first one is made. */
START_TEST(spaces_not_empty)
{
	announce(1, "@/a");
	announce(3, "@/full");
	announce(2, "@/was");
	tmp_mkdir(&tree, "full", 0700);
	tmp_write(&tree, "full/file", "x");
	tmp_mkdir(&tree, "was", 0700);
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_USAGE, "directory \"%s/full\" exists but is not empty", tree.path);
	ck_assert(!tmp_exists(&tree, "a"));
	clean_says("removing data directory \"@/data\"\n");
	ck_assert(tmp_exists(&tree, "full/file"));
}
END_TEST

START_TEST(spaces_clean)
{
	announce(16385, "@/x/made");
	announce(16386, "@/was");
	announce(16387, "pg_tblspc/16387");
	tmp_mkdir(&tree, "was", 0700);
	prepare_ok();
	must(prepare_spaces());
	tmp_write(&tree, "x/made/file", "x");
	tmp_write(&tree, "was/file", "x");
	tmp_write(&tree, "data/pg_tblspc/16387/file", "x");
	clean_says("removing data directory \"@/data\"\n"
		   "removing tablespace directory \"@/x/made\"\n"
		   "removing contents of tablespace directory \"@/was\"\n");
	ck_assert(!tmp_exists(&tree, "data") && !tmp_exists(&tree, "x/made") && tmp_exists(&tree, "was"));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "was")), 0);
}
END_TEST

/* ---- durability ---- */

/* The directory itself, and one for each parent that got a new entry. */
START_TEST(sync_parents)
{
	pgr_fault_sys_init(&f, 0, 0);
	snprintf(data_dir, sizeof(data_dir), "%s/a/b/data", tree.path);
	make(&f.sys);
	must(pgr_layout_prepare(layout, &err));
	ck_assert_uint_eq(f.fsyncs, 0);
	must(pgr_layout_sync(layout, false, &err));
	ck_assert_uint_eq(f.fsyncs, 1 + 3);
}
END_TEST

START_TEST(sync_roots)
{
	pgr_fault_sys_init(&f, 0, 0);
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "wal", 0700);
	announce(16385, "@/ts");
	announce(16386, "pg_tblspc/16386");
	make(&f.sys);
	must(pgr_layout_prepare(layout, &err));
	must(prepare_spaces());
	tmp_write(&tree, "ts/file", "x");
	must(pgr_layout_sync(layout, false, &err));
	/* data with pg_tblspc and 16386, its parent; wal; ts and its parent */
	ck_assert_uint_eq(f.fsyncs, 4 + 1 + 2);
	must(pgr_layout_sync(layout, true, &err));
	ck_assert_uint_eq(f.fsyncs, 2 * (4 + 1 + 2) + 1);
}
END_TEST

struct counting_sys {
	struct pgr_sys sys; /* first */
	unsigned syncfs;
};

static int count_syncfs(const struct pgr_sys *sys, int fd)
{
	(void)fd;
	((struct counting_sys *)(uintptr_t)sys)->syncfs++;
	return 0;
}

START_TEST(syncfs_once_for_a_file_system)
{
	static struct counting_sys c;

	c.sys = *pgr_sys_real();
	c.sys.syncfs = count_syncfs;
	opts.wal_dir = wal_dir;
	announce(16385, "@/ts");
	announce(16386, "@/ts2");
	make(&c.sys);
	must(pgr_layout_prepare(layout, &err));
	must(prepare_spaces());
	must(pgr_layout_syncfs(layout, &err));
	ck_assert_uint_eq(c.syncfs, 1);
}
END_TEST

/* ---- everything that can fail ---- */

static int everything(void)
{
	int fd;

	if (pgr_layout_prepare(layout, &err) != PGR_OK || pgr_layout_wal_root(layout, &fd, &err) != PGR_OK ||
	    prepare_spaces() != PGR_OK || pgr_layout_sync(layout, true, &err) != PGR_OK)
		return PGR_ERR;
	return pgr_layout_syncfs(layout, &err);
}

/* What was there before stays, what was made goes, and the message names the place. */
static bool one_fault(unsigned at, bool with_wal_dir)
{
	int rc;

	opts.wal_dir = with_wal_dir ? wal_dir : NULL;
	opts.summaries = true;
	nlist = 0;
	announce(16385, "@/x/made");
	announce(16386, "@/was");
	announce(16387, "pg_tblspc/16387");
	pgr_fault_sys_init(&f, at, EIO);
	make(&f.sys);
	rc = everything();
	/* mkdir -p looks again when it cannot make what is there */
	if (rc == PGR_OK && f.triggered)
		ck_assert_str_eq(f.failed_call, "mkdirat");
	if (rc != PGR_OK) {
		ck_assert(f.triggered);
		ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
		ck_assert_msg(strstr(err.msg, P_tmpdir) != NULL, "%s: %s", f.failed_call, err.msg);
		/* where mkdir says that there is something, and stat cannot tell what, mkdir's word is told */
		if (strcmp(f.failed_call, "fstatat") != 0)
			ck_assert_msg(err.sys_errno == EIO && strstr(err.msg, tree.path), "%s: %s", f.failed_call,
				      err.msg);
	}
	f.fail_at = 0;
	must(pgr_layout_clean(layout, NULL, NULL, &err));
	pgr_layout_free(layout);
	layout = NULL;
	ck_assert_uint_eq(tmp_open_fds(), fds);
	ck_assert(!tmp_exists(&tree, "data") && !tmp_exists(&tree, "wal") && !tmp_exists(&tree, "x/made"));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "was")), 0);
	return f.triggered;
}

START_TEST(faults)
{
	tmp_mkdir(&tree, "was", 0700);
	for (int with = 0; with < 2; with++) {
		unsigned at = 0;

		while (one_fault(++at, with != 0))
			;
		ck_assert_uint_ge(at, 40);
	}
}
END_TEST

/* A removal that fails is told, and does not keep the others from being removed. */
START_TEST(clean_faults)
{
	bool triggered = true;

	for (unsigned at = 1; triggered; at++) {
		int rc;

		nlist = 0;
		announce(16385, "@/ts");
		pgr_fault_sys_init(&f, 0, EIO);
		make(&f.sys);
		must(pgr_layout_prepare(layout, &err));
		must(prepare_spaces());
		tmp_write(&tree, "data/file", "x");
		f.fail_at = f.calls + at;
		rc = pgr_layout_clean(layout, NULL, NULL, &err);
		triggered = f.triggered;
		ck_assert_int_eq(rc, triggered ? PGR_ERR : PGR_OK);
		if (triggered) {
			ck_assert_msg(strstr(err.msg, tree.path) != NULL, "%s", err.msg);
			ck_assert(!tmp_exists(&tree, "data") || !tmp_exists(&tree, "ts"));
		}
		f.fail_at = 0;
		must(pgr_layout_clean(layout, NULL, NULL, &err));
		pgr_layout_free(layout);
		layout = NULL;
		ck_assert_uint_eq(tmp_entries(tree.path), 0);
	}
}
END_TEST

static int no_unlink(const struct pgr_sys *sys, int fd, const char *path, int flags)
{
	(void)sys;
	(void)fd;
	(void)path;
	(void)flags;
	errno = EROFS;
	return -1;
}

/* Of several failures the first one is told. */
START_TEST(clean_first_failure)
{
	static struct pgr_sys readonly;

	readonly = *pgr_sys_real();
	readonly.unlinkat = no_unlink;
	announce(16385, "@/ts");
	make(&readonly);
	must(pgr_layout_prepare(layout, &err));
	must(prepare_spaces());
	check_failed(pgr_layout_clean(layout, NULL, NULL, &err), PGR_E_SYSTEM,
		     "could not remove directory \"%s\": Read-only file system", data_dir);
}
END_TEST

static Suite *layout_suite(void)
{
	Suite *s = suite_create("layout");
	TCase *m = tcase_create("map"), *d = tcase_create("directories"), *t = tcase_create("tablespaces");

	tcase_add_test(m, map_splits);
	tcase_add_loop_test(m, map_refuses, 0, sizeof(bad_maps) / sizeof(bad_maps[0]));
	tcase_add_test(m, map_too_long);
	suite_add_tcase(s, m);
	tcase_add_checked_fixture(d, setup, teardown);
	tcase_add_test(d, data_missing);
	tcase_add_test(d, data_mode_whatever_umask);
	tcase_add_test(d, data_empty);
	tcase_add_test(d, data_not_empty);
	tcase_add_test(d, data_made_meanwhile);
	tcase_add_test(d, data_is_a_file);
	tcase_add_test(d, data_behind_link);
	tcase_add_test(d, names_refused);
	tcase_add_test(d, wal_inside);
	tcase_add_test(d, wal_old_name);
	tcase_add_test(d, wal_elsewhere);
	tcase_add_test(d, wal_elsewhere_empty);
	tcase_add_test(d, wal_not_empty);
	tcase_add_test(d, wal_is_data);
	tcase_add_test(d, wal_inside_data);
	tcase_add_test(d, wal_link_not_followed);
	tcase_add_test(d, sync_parents);
	suite_add_tcase(s, d);
	tcase_add_checked_fixture(t, setup_spaces, teardown);
	tcase_add_test(t, spaces_all_kinds);
	tcase_add_test(t, spaces_none);
	tcase_add_test(t, resolves);
	tcase_add_test(t, resolves_inside);
	tcase_add_loop_test(t, spaces_bad_location, 0, sizeof(bad_locations) / sizeof(bad_locations[0]));
	tcase_add_loop_test(t, spaces_inside_data, 0, sizeof(inside_data) / sizeof(inside_data[0]));
	tcase_add_test(t, spaces_inside_wal);
	tcase_add_test(t, spaces_mapped_inside_data);
	tcase_add_test(t, spaces_mapped_onto_data);
	tcase_add_test(t, spaces_same_directory);
	tcase_add_test(t, spaces_mapped_together);
	tcase_add_test(t, spaces_twice);
	tcase_add_test(t, spaces_not_empty);
	tcase_add_test(t, spaces_clean);
	tcase_add_test(t, sync_roots);
	tcase_add_test(t, syncfs_once_for_a_file_system);
	tcase_add_test(t, faults);
	tcase_add_test(t, clean_faults);
	tcase_add_test(t, clean_first_failure);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(layout_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
