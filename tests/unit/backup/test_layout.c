#include <check.h>
#include <errno.h>
#include <stdarg.h>

#include "backup/bbstream.h"
#include "backup/layout.h"
#include "backup/localtree.h"
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

/* "@" stands for the test's directory. */
static void expand(struct pgr_buf *out, const char *text)
{
	struct pgr_err e;

	for (; *text != '\0'; text++)
		ck_assert_int_eq(*text == '@' ? pgr_buf_puts(out, tree.path, &e)
					      : pgr_buf_put8(out, (uint8_t)*text, &e),
				 PGR_OK);
}

/* Cleans, and compares what was said; "@" in `want` stands for the test's directory. */
static void clean_says(const char *want)
{
	struct pgr_buf w = {0};

	must(pgr_layout_clean(layout, say, NULL, &err));
	expand(&w, want);
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
	/* data with pg_tblspc and 16386, its parent; wal, ts, and their parents */
	ck_assert_uint_eq(f.fsyncs, 4 + 2 + 2);
	must(pgr_layout_sync(layout, true, &err));
	ck_assert_uint_eq(f.fsyncs, 2 * (4 + 2 + 2) + 1);
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

/* ---- in place: a data directory that is not empty ---- */

#define VERSION_DIR "PG_15_202209061"

static void setup_old(void)
{
	setup_spaces();
	opts.in_place = true;
	opts.version_dir = VERSION_DIR;
	tmp_mkdir(&tree, "data", 0755);
	tmp_write(&tree, "data/PG_VERSION", "15\n");
}

static void make_link(const char *target, const char *name)
{
	ck_assert_int_eq(symlink(target[0] == '@' ? tmp_at(&tree, target + 2) : target, tmp_at(&tree, name)), 0);
}

/* A tablespace's directory with a file of this cluster. */
static void make_small_space(const char *name)
{
	char path[PATH_MAX];

	tmp_mkdir(&tree, name, 0700);
	snprintf(path, sizeof(path), "%s/" VERSION_DIR, name);
	tmp_mkdir(&tree, path, 0700);
	snprintf(path, sizeof(path), "%s/" VERSION_DIR "/1", name);
	tmp_write(&tree, path, "x");
}

/* And with files of another one and of somebody else. */
static void make_space_dir(const char *name)
{
	char path[PATH_MAX];

	make_small_space(name);
	snprintf(path, sizeof(path), "%s/PG_14_202107181", name);
	tmp_mkdir(&tree, path, 0700);
	snprintf(path, sizeof(path), "%s/other", name);
	tmp_write(&tree, path, "x");
}

static bool has_version(const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/" VERSION_DIR "/1", name);
	return tmp_exists(&tree, path);
}

static void take_over_ok(void)
{
	prepare_ok();
	must(prepare_spaces());
	must(pgr_layout_take_over(layout, &err));
	must(pgr_layout_link_tablespaces(layout, &err));
}

/* "16385 @/ts/PG_15_202209061", and "left" behind what is left. */
static void check_leftovers(const char *want)
{
	const struct pgr_layout_leftover *left;
	size_t n = pgr_layout_leftovers(layout, &left);
	struct pgr_buf is = {0};
	struct pgr_err e;

	for (size_t i = 0; i < n; i++) {
		size_t top = strlen(tree.path);

		ck_assert_int_eq(strncmp(left[i].path, tree.path, top), 0);
		ck_assert_int_eq(pgr_buf_printf(&is, &e, "%u @%s%s\n", left[i].oid, left[i].path + top,
						left[i].is_left ? " left" : ""),
				 PGR_OK);
	}
	ck_assert_int_eq(pgr_buf_puts(&is, "", &e), PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&is), want);
	pgr_buf_fini(&is);
}

START_TEST(old_data)
{
	opts.dir_mode = 0750;
	prepare_ok();
	ck_assert_uint_eq(tmp_mode(&tree, "data"), S_IFDIR | 0755);
	ck_assert_uint_eq(tmp_entries(data_dir), 1);
	must(prepare_spaces());
	ck_assert_uint_eq(tmp_entries(data_dir), 1);
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_mode(&tree, "data"), S_IFDIR | 0750);
	must(pgr_layout_link_tablespaces(layout, &err));
	ck_assert_uint_eq(tmp_entries(data_dir), 1);
	must(pgr_layout_sync(layout, true, &err));
	clean_says("");
	ck_assert(tmp_exists(&tree, "data/PG_VERSION"));
}
END_TEST

/* Without anything in it, it is filled as any other. */
START_TEST(old_data_empty)
{
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/PG_VERSION")), 0);
	opts.wal_dir = wal_dir;
	announce(16385, "@/ts");
	announce(16386, "pg_tblspc/16386");
	prepare_ok();
	tmp_check_link(&tree, "data/pg_wal", wal_dir);
	must(prepare_spaces());
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_mode(&tree, "data"), S_IFDIR | 0700);
	must(pgr_layout_link_tablespaces(layout, &err));
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "ts"));
	check_wal_root("wal", 1);
	check_leftovers("");
	clean_says("removing contents of data directory \"@/data\"\nremoving WAL directory \"@/wal\"\n"
		   "removing tablespace directory \"@/ts\"\n");
}
END_TEST

/* What an interrupted first run left is an old copy to the next one. */
START_TEST(old_resumed)
{
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/PG_VERSION")), 0);
	opts.wal_dir = wal_dir;
	announce(16385, "@/ts");
	take_over_ok();
	check_wal_root("wal", 1);
	tmp_write(&tree, "wal/000000010000000000000001", "x");
	tmp_write(&tree, "ts/file", "x");
	pgr_layout_free(layout);
	take_over_ok();
	ck_assert_uint_eq(tmp_entries(wal_dir), 0);
	check_wal_root("wal", 1);
	ck_assert(tmp_exists(&tree, "ts/file"));
}
END_TEST

/* ---- in place: pg_wal ---- */

START_TEST(old_wal_directory)
{
	const char *rest;
	int fd;

	tmp_mkdir(&tree, "data/pg_wal", 0777);
	tmp_mkdir(&tree, "data/pg_wal/lost+found", 0700);
	tmp_mkdir(&tree, "data/pg_wal/archive_status", 0700);
	tmp_write(&tree, "data/pg_wal/archive_status/x.done", "");
	tmp_write(&tree, "data/pg_wal/x", "x");
	prepare_ok();
	pgr_layout_resolve(layout, "pg_wal/x", &fd, &rest);
	ck_assert_int_ne(fd, pgr_layout_root(layout, 0));
	ck_assert_str_eq(rest, "x");
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_wal")), 3);
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal"), S_IFDIR | 0777);
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_wal")), 1);
	check_wal_root("data/pg_wal", 2);
}
END_TEST

START_TEST(old_wal_missing)
{
	prepare_ok();
	must(pgr_layout_take_over(layout, &err));
	ck_assert(!tmp_exists(&tree, "data/pg_wal"));
	check_wal_root("data/pg_wal", 1);
}
END_TEST

START_TEST(old_wal_no_directory)
{
	tmp_write(&tree, "data/pg_wal", "x");
	prepare_ok();
	must(pgr_layout_take_over(layout, &err));
	ck_assert(!tmp_exists(&tree, "data/pg_wal"));
	check_wal_root("data/pg_wal", 1);
}
END_TEST

static const struct {
	const char *target;
	bool empty;
} wal_links[] = {{"@/wal", false}, {"@/wal", true}, {"../wal", false}};

START_TEST(old_wal_link_kept)
{
	tmp_mkdir(&tree, "wal", 0700);
	if (!wal_links[_i].empty) {
		tmp_mkdir(&tree, "wal/archive_status", 0700);
		tmp_mkdir(&tree, "wal/lost+found", 0700);
		tmp_write(&tree, "wal/x", "x");
	}
	make_link(wal_links[_i].target, "data/pg_wal");
	prepare_ok();
	ck_assert_uint_eq(tmp_entries(wal_dir), wal_links[_i].empty ? 0 : 3);
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_wal") & S_IFMT, S_IFLNK);
	ck_assert_uint_eq(tmp_entries(wal_dir), wal_links[_i].empty ? 0 : 1);
	check_wal_root("wal", wal_links[_i].empty ? 1 : 2);
	must(pgr_layout_sync(layout, true, &err));
	must(pgr_layout_syncfs(layout, &err));
}
END_TEST

static const struct {
	const char *target, *msg;
} bad_wal_links[] = {
	{"@/gone", "\"@/data/pg_wal\" is a link to \"@/gone\", which does not exist"},
	{"@/data", "WAL directory \"@/data\" is the data directory"},
	{"..", "WAL directory \"@\" holds the data directory \"@/data\""},
	{"PG_VERSION", "could not access directory \"@/data/PG_VERSION\": Not a directory"},
};

START_TEST(old_wal_link_refused)
{
	struct pgr_buf want = {0};

	make_link(bad_wal_links[_i].target, "data/pg_wal");
	make(pgr_sys_real());
	ck_assert_int_eq(pgr_layout_prepare(layout, &err), PGR_ERR);
	expand(&want, bad_wal_links[_i].msg);
	ck_assert_str_eq(err.msg, pgr_buf_str(&want));
	pgr_buf_fini(&want);
	ck_assert(_i != 0 || strstr(err.hint, "--waldir") != NULL);
	ck_assert(!tmp_exists(&tree, "gone") && tmp_exists(&tree, "data/PG_VERSION"));
}
END_TEST

/* What a link leads to need not be WAL: it is not emptied then. */
static const struct {
	const char *dirs[3], *file, *why;
} no_wal[] = {
	{{"archive_status", "photos"}, "0000000100000000000000A0", "it holds the directory \"photos\""},
	{{"data2"}, NULL, "it holds the directory \"data2\""},
	{{NULL}, "letter.txt", "there is no WAL in it"},
	{{"lost+found"}, "letter.txt", "there is no WAL in it"},
	{{"20261105"}, NULL, "it holds the directory \"20261105\""}, /* hexadecimal digits, too */
	{{"archive_status", "20261105-full"}, NULL, "it holds the directory \"20261105-full\""},
	{{"000000010000000000000001"}, NULL, "it holds the directory \"000000010000000000000001\""},
	{{"summaries.old"}, NULL, "it holds the directory \"summaries.old\""},
	{{NULL}, "20261105.tar", "there is no WAL in it"},
	{{NULL}, "00000001000000000000000100", "there is no WAL in it"},
	{{NULL}, "archive_status", "there is no WAL in it"},
};

START_TEST(old_wal_link_to_something_else)
{
	char path[PATH_MAX];
	size_t n;

	tmp_mkdir(&tree, "wal", 0700);
	for (size_t i = 0; no_wal[_i / 2].dirs[i] != NULL; i++) {
		snprintf(path, sizeof(path), "wal/%s", no_wal[_i / 2].dirs[i]);
		tmp_mkdir(&tree, path, 0700);
	}
	if (no_wal[_i / 2].file != NULL) {
		snprintf(path, sizeof(path), "wal/%s", no_wal[_i / 2].file);
		tmp_write(&tree, path, "x");
	}
	make_link("@/wal", "data/pg_wal");
	if (_i % 2 == 1)
		opts.wal_dir = wal_dir;
	n = tmp_entries(wal_dir);
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE,
		     "\"%s/pg_wal\" leads to \"%s\", which is no WAL directory: %s", data_dir, wal_dir,
		     no_wal[_i / 2].why);
	ck_assert_ptr_nonnull(strstr(err.hint, "--waldir"));
	ck_assert_uint_eq(tmp_entries(wal_dir), n);
}
END_TEST

/* Segments tell whose they are. */
START_TEST(old_wal_link_to_other_wal)
{
	/* of 15: xlp_magic, xlp_info, xlp_tli, xlp_pageaddr, xlp_rem_len, and the long header's */
	struct {
		uint16_t magic, info;
		uint32_t tli;
		uint64_t addr;
		uint32_t rem_len, padding;
		uint64_t system_id;
		uint32_t segment_bytes, page_bytes;
	} head = {0xD110, 2, 1, 0xA0 * 16777216UL, 0, 0, 4711, 16777216, 8192};
	const char *name = "0000000100000000000000A0";
	FILE *s;

	if (_i == 3)
		head.magic = 0; /* no WAL */
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "wal/0000000100000000000000A1", ""); /* not begun */
	s = fopen(tmp_at(&tree, "wal/0000000100000000000000A0"), "w");
	ck_assert(s != NULL && fwrite(&head, sizeof(head), 1, s) == 1 && fclose(s) == 0);
	make_link("@/wal", "data/pg_wal");
	opts.system_identifier = _i == 0 ? 4711 : _i == 1 ? 0 : 4712;
	make(pgr_sys_real());
	if (_i == 2) {
		check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE,
			     "\"%s/pg_wal\" leads to \"%s\", which has the WAL of another cluster: file \"%s\"",
			     data_dir, wal_dir, name);
		ck_assert_ptr_nonnull(strstr(err.hint, "--waldir"));
		return;
	}
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_entries(wal_dir), 0);
}
END_TEST

/* With its names alone: of timelines' histories, compressed, in parts. */
START_TEST(old_wal_link_to_wal)
{
	static const char *const names[] = {"0000000100000000000000A0",
					    "00000002.history",
					    "xlogtemp.123",
					    "0000000100000000000000A0.gz",
					    "RECOVERYHISTORY",
					    "0000000100000000000000A0.00000028.backup",
					    "RECOVERYXLOG"};
	char path[PATH_MAX];

	tmp_mkdir(&tree, "wal", 0700);
	snprintf(path, sizeof(path), "wal/%s", names[_i]);
	tmp_write(&tree, path, "x");
	tmp_write(&tree, "wal/stray", "x");
	make_link("@/wal", "data/pg_wal");
	prepare_ok();
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_entries(wal_dir), 0);
}
END_TEST

/* What is in pg_wal's place before --waldir takes it. */
enum was { WAS_NOTHING, WAS_DIR, WAS_FILE, WAS_LINK, WAS_DANGLING, WAS_END };

START_TEST(old_waldir)
{
	opts.wal_dir = wal_dir;
	switch ((enum was)_i) {
	case WAS_DIR:
		tmp_mkdir(&tree, "data/pg_wal", 0700);
		tmp_mkdir(&tree, "data/pg_wal/summaries", 0700);
		tmp_write(&tree, "data/pg_wal/summaries/x", "x");
		break;
	case WAS_FILE:
		tmp_write(&tree, "data/pg_wal", "x");
		break;
	case WAS_LINK:
		tmp_mkdir(&tree, "oldwal", 0700);
		tmp_write(&tree, "oldwal/x", "x");
		make_link("@/oldwal", "data/pg_wal");
		break;
	case WAS_DANGLING:
		make_link("@/gone", "data/pg_wal");
		break;
	default:
		break;
	}
	prepare_ok();
	ck_assert(tmp_exists(&tree, "data/pg_wal") == (_i != WAS_NOTHING));
	must(pgr_layout_take_over(layout, &err));
	tmp_check_link(&tree, "data/pg_wal", wal_dir);
	check_wal_root("wal", 1);
	ck_assert(_i != WAS_LINK || tmp_exists(&tree, "oldwal/x"));
}
END_TEST

/* The same directory, by another name. */
START_TEST(old_waldir_is_linked)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "realwal", 0700);
	tmp_mkdir(&tree, "realwal/summaries", 0700);
	tmp_write(&tree, "realwal/x", "x");
	make_link("@/realwal", "wal");
	make_link("../realwal", "data/pg_wal");
	prepare_ok();
	must(pgr_layout_take_over(layout, &err));
	tmp_check_link(&tree, "data/pg_wal", "../realwal");
	check_wal_root("realwal", 1);
	ck_assert(!tmp_exists(&tree, "realwal/x"));
}
END_TEST

START_TEST(old_waldir_not_empty)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "wal/x", "x");
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "directory \"%s\" exists but is not empty",
		     wal_dir);
}
END_TEST

START_TEST(old_waldir_inside)
{
	snprintf(wal_dir, sizeof(wal_dir), "%s/data/pg_wal%s", tree.path, _i == 0 ? "" : "/a/b");
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE,
		     "WAL directory \"%s\" lies in \"%s/pg_wal\", which it is to replace", wal_dir, data_dir);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_wal")), 0);
}
END_TEST

static const char *mount_name;

static int mount_statx(const struct pgr_sys *sys, int fd, const char *path, int flags, unsigned mask, struct statx *x)
{
	(void)sys;
	if (statx(fd, path, flags, mask, x) != 0)
		return -1;
	x->stx_attributes_mask |= 0x2000;
	x->stx_attributes = strcmp(path, mount_name) == 0 ? 0x2000 : 0;
	return 0;
}

static struct pgr_sys mounts;

static const struct pgr_sys *mounted_at(const char *name)
{
	mounts = *pgr_sys_real();
	mounts.statx = mount_statx;
	mount_name = name;
	return &mounts;
}

START_TEST(old_waldir_mounted)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	make(mounted_at("pg_wal"));
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE,
		     "\"%s/pg_wal\" is a mount point and cannot be replaced by a link to \"%s\"", data_dir, wal_dir);
	ck_assert(!tmp_exists(&tree, "wal"));
}
END_TEST

/* It is emptied only; but what is mounted further down stops it before anything is gone. */
START_TEST(old_wal_mounted)
{
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	tmp_write(&tree, "data/pg_wal/x", "x");
	make(mounted_at("pg_wal"));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_wal")), 0);
	tmp_mkdir(&tree, "data/pg_wal/a", 0700);
	tmp_mkdir(&tree, "data/pg_wal/a/z", 0700);
	tmp_write(&tree, "data/pg_wal/a/x", "x");
	tmp_write(&tree, "data/pg_wal/x", "x");
	mount_name = "z";
	check_failed(pgr_layout_take_over(layout, &err), PGR_E_USAGE,
		     "\"%s/pg_wal/a/z\" is a mount point and cannot be removed", data_dir);
	ck_assert(tmp_exists(&tree, "data/pg_wal/x") && tmp_exists(&tree, "data/pg_wal/a/x"));
}
END_TEST

/* ---- in place: tablespaces ---- */

static void setup_old_spaces(void)
{
	setup_old();
	tmp_mkdir(&tree, "data/pg_tblspc", 0700);
}

START_TEST(old_spaces_right)
{
	struct stat before, after;

	make_space_dir("ts");
	make_link("@/ts", "alias");
	make_link("@/alias", "data/pg_tblspc/16385");
	announce(16385, "@/ts");
	ck_assert_int_eq(lstat(tmp_at(&tree, "data/pg_tblspc/16385"), &before), 0);
	take_over_ok();
	ck_assert_int_eq(lstat(tmp_at(&tree, "data/pg_tblspc/16385"), &after), 0);
	ck_assert(before.st_ino == after.st_ino && before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
	ck_assert(has_version("ts"));
	check_leftovers("");
	clean_says("");
}
END_TEST

START_TEST(old_spaces_not_linked)
{
	make_space_dir("ts");
	make_space_dir("ts2");
	make_link("@/ts2", "data/pg_tblspc/16385");
	announce(16385, "@/ts");
	prepare_ok();
	check_failed(prepare_spaces(), PGR_E_USAGE, "directory \"%s/ts\" exists but is not empty", tree.path);
	ck_assert(has_version("ts") && has_version("ts2"));
}
END_TEST

START_TEST(old_spaces_missing)
{
	announce(16385, "@/ts");
	make_link("@/gone", "data/pg_tblspc/16386");
	ck_assert_int_eq(rmdir(tmp_at(&tree, "data/pg_tblspc")), -1);
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "ts"));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 1);
	check_leftovers("");
}
END_TEST

/* Whoever only looks makes nothing, opens what is there, and hears the refusals all the same. */
START_TEST(look_only)
{
	struct pgr_localtree t = {0};
	size_t before;

	opts.look_only = true;
	opts.wal_dir = wal_dir;
	announce(16385, "@/gone");
	announce(16386, "pg_tblspc/16386");
	if (_i == 0)
		ck_assert_int_eq(unlink(tmp_at(&tree, "data/PG_VERSION")), 0);
	before = tmp_entries(data_dir);
	prepare_ok();
	must(prepare_spaces());
	ck_assert_int_eq(pgr_layout_root(layout, 0) >= 0, before > 0);
	ck_assert_int_lt(pgr_layout_root(layout, 16385), 0);
	ck_assert(!tmp_exists(&tree, "wal") && !tmp_exists(&tree, "gone"));
	ck_assert_uint_eq(tmp_entries(data_dir), before);
	must(pgr_localtree_scan(&t, pgr_sys_real(), layout, &err));
	ck_assert_uint_eq(t.n, before);
	pgr_localtree_fini(&t);
}
END_TEST

START_TEST(look_only_refuses)
{
	opts.look_only = true;
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "wal/1", "x");
	make(pgr_sys_real());
	check_failed(pgr_layout_prepare(layout, &err), PGR_E_USAGE, "directory \"%s\" exists but is not empty",
		     wal_dir);
}
END_TEST

START_TEST(old_spaces_no_directory)
{
	ck_assert_int_eq(rmdir(tmp_at(&tree, "data/pg_tblspc")), 0);
	tmp_mkdir(&tree, "victim", 0700);
	if (_i == 1)
		make_link("@/victim", "data/pg_tblspc");
	if (_i == 2)
		tmp_write(&tree, "data/pg_tblspc", "x");
	announce(16385, "@/ts");
	announce(16386, "pg_tblspc/16386");
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "ts"));
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_tblspc/16386"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "victim")), 0);
}
END_TEST

/* Of the directory that is no tablespace any more only what was this cluster's goes. */
START_TEST(old_spaces_dropped)
{
	make_space_dir("ts");
	make_link("@/ts", "data/pg_tblspc/16385");
	make_link("@/ts", "data/pg_tblspc/16386");
	prepare_ok();
	must(prepare_spaces());
	check_leftovers("16385 @/ts/" VERSION_DIR "\n");
	ck_assert(has_version("ts"));
	must(pgr_layout_take_over(layout, &err));
	ck_assert(has_version("ts"));
	must(pgr_layout_link_tablespaces(layout, &err));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 0);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "ts")), 2);
	ck_assert(!tmp_exists(&tree, "ts/" VERSION_DIR));
	must(pgr_layout_link_tablespaces(layout, &err));
}
END_TEST

START_TEST(old_spaces_moved)
{
	make_space_dir("old");
	make_link("../../old", "data/pg_tblspc/16385");
	announce(16385, "/srv/ts");
	map("/srv/ts", "/new");
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "new"));
	check_leftovers("16385 @/old/" VERSION_DIR "\n");
	ck_assert(tmp_exists(&tree, "old/other") && !tmp_exists(&tree, "old/" VERSION_DIR));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 1);
}
END_TEST

/* Dropped and made again in its place: what is there is of use. */
START_TEST(old_spaces_made_again)
{
	make_space_dir("ts");
	make_link("@/ts", "data/pg_tblspc/16385");
	announce(16390, "@/ts");
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16390", tmp_at(&tree, "ts"));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 1);
	ck_assert(has_version("ts"));
	check_leftovers("");
}
END_TEST

START_TEST(old_spaces_swapped)
{
	make_space_dir("a");
	make_space_dir("b");
	make_link("@/a", "data/pg_tblspc/16385");
	make_link("@/b", "data/pg_tblspc/16386");
	announce(16385, "@/b");
	announce(16386, "@/a");
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "b"));
	tmp_check_link(&tree, "data/pg_tblspc/16386", tmp_at(&tree, "a"));
	ck_assert(has_version("a") && has_version("b"));
	check_leftovers("");
}
END_TEST

/* The server's own directory, if it runs on this machine. */
START_TEST(old_spaces_of_server)
{
	make_space_dir("srv");
	make_link("@/srv", "alias");
	make_link(_i == 0 ? "@/srv" : "@/alias", "data/pg_tblspc/16385");
	announce(16385, "@/srv");
	map("@/srv", "/new");
	take_over_ok();
	check_leftovers(_i == 0 ? "16385 @/srv/" VERSION_DIR " left\n" : "16385 @/alias/" VERSION_DIR " left\n");
	ck_assert(has_version("srv"));
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "new"));
}
END_TEST

START_TEST(old_spaces_version_unknown)
{
	opts.version_dir = NULL;
	make_space_dir("ts");
	make_link("@/ts", "data/pg_tblspc/16385");
	take_over_ok();
	check_leftovers("16385 @/ts left\n");
	ck_assert(has_version("ts"));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 0);
}
END_TEST

START_TEST(old_spaces_holds_root)
{
	make_space_dir("ts");
	make_link("@/ts", "data/pg_tblspc/16385");
	announce(16386, "@/ts/" VERSION_DIR "/new");
	take_over_ok();
	check_leftovers("16385 @/ts/" VERSION_DIR " left\n");
	ck_assert(has_version("ts"));
}
END_TEST

/* The version directory is a link, or the link leads to the data directory or to nothing that is a directory. */
START_TEST(old_spaces_odd_links)
{
	tmp_mkdir(&tree, "ts", 0700);
	make_space_dir("victim");
	make_link("@/victim/" VERSION_DIR, "ts/" VERSION_DIR);
	make_link("@/ts", "data/pg_tblspc/16385");
	make_link("@/data", "data/pg_tblspc/16386");
	make_link("../PG_VERSION", "data/pg_tblspc/16387");
	make_link("@/empty", "data/pg_tblspc/16388");
	make_link("@/victim", "data/pg_tblspc/016389");
	make_link("16385", "data/pg_tblspc/16390");
	tmp_mkdir(&tree, "empty", 0700);
	tmp_mkdir(&tree, "data/" VERSION_DIR, 0700);
	take_over_ok();
	check_leftovers("16385 @/ts/" VERSION_DIR " left\n16390 @/data/pg_tblspc/16385/" VERSION_DIR " left\n");
	ck_assert(has_version("victim") && tmp_exists(&tree, "data/" VERSION_DIR));
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 1); /* 016389 is not the layout's */
}
END_TEST

START_TEST(old_spaces_leftover_mounted)
{
	make_space_dir("ts");
	make_link("@/ts", "data/pg_tblspc/16385");
	make(mounted_at(VERSION_DIR));
	must(pgr_layout_prepare(layout, &err));
	must(prepare_spaces());
	check_failed(pgr_layout_link_tablespaces(layout, &err), PGR_E_USAGE,
		     "\"%s/ts/" VERSION_DIR "\" is a mount point and cannot be removed", tree.path);
	ck_assert(has_version("ts") && tmp_exists(&tree, "data/pg_tblspc/16385"));
}
END_TEST

/* A copy that followed the links. */
START_TEST(old_spaces_directory_for_link)
{
	make_space_dir("data/pg_tblspc/16385");
	announce(16385, "@/ts");
	take_over_ok();
	tmp_check_link(&tree, "data/pg_tblspc/16385", tmp_at(&tree, "ts"));
	check_leftovers("");
}
END_TEST

START_TEST(old_spaces_directory_holds_root)
{
	make_space_dir("data/pg_tblspc/16385");
	announce(16385, "/srv/ts");
	map("/srv/ts", "/data/pg_tblspc/16385/new");
	prepare_ok();
	must(prepare_spaces());
	must(pgr_layout_take_over(layout, &err));
	check_failed(
		pgr_layout_link_tablespaces(layout, &err), PGR_E_USAGE,
		"directory \"%s/data/pg_tblspc/16385/new\" lies in \"%s/data/pg_tblspc/16385\", where a link must be",
		tree.path, tree.path);
	ck_assert(has_version("data/pg_tblspc/16385"));
}
END_TEST

/* What is in an in-place tablespace's place: nothing, its directory, a link, a file. */
START_TEST(old_spaces_in_place)
{
	const char *rest;
	int fd;

	make_space_dir("ts");
	if (_i == 1) {
		make_space_dir("data/pg_tblspc/16385");
		ck_assert_int_eq(chmod(tmp_at(&tree, "data/pg_tblspc/16385"), 0755), 0);
	}
	if (_i == 2)
		make_link("@/ts", "data/pg_tblspc/16385");
	if (_i == 3)
		tmp_write(&tree, "data/pg_tblspc/16385", "x");
	announce(16385, "pg_tblspc/16385");
	prepare_ok();
	must(prepare_spaces());
	ck_assert_int_eq(pgr_layout_root(layout, 16385) >= 0, _i == 1);
	must(pgr_layout_take_over(layout, &err));
	must(pgr_layout_link_tablespaces(layout, &err));
	ck_assert_uint_eq(tmp_mode(&tree, "data/pg_tblspc/16385"), S_IFDIR | 0700);
	ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc/16385")), _i == 1 ? 3 : 0);
	ck_assert(has_version("ts") == (_i != 2));
	pgr_layout_resolve(layout, "pg_tblspc/16385", &fd, &rest);
	ck_assert_int_ge(fd, 0);
}
END_TEST

/* The link and what it stands for are there after a power cut before anything that is written through it. */
START_TEST(old_spaces_synced)
{
	announce(16385, "@/ts");
	pgr_fault_sys_init(&f, 0, 0);
	make(&f.sys);
	must(pgr_layout_prepare(layout, &err));
	must(prepare_spaces());
	must(pgr_layout_take_over(layout, &err));
	ck_assert_uint_eq(f.fsyncs, 0);
	must(pgr_layout_link_tablespaces(layout, &err));
	ck_assert_uint_eq(f.fsyncs, 1);
	must(pgr_layout_link_tablespaces(layout, &err));
	ck_assert_uint_eq(f.fsyncs, 1);
}
END_TEST

static int old_everything(void)
{
	if (pgr_layout_prepare(layout, &err) != PGR_OK || prepare_spaces() != PGR_OK ||
	    pgr_layout_take_over(layout, &err) != PGR_OK)
		return PGR_ERR;
	return pgr_layout_link_tablespaces(layout, &err);
}

static void old_mess(void)
{
	make_small_space("a");
	make_small_space("b");
	make_small_space("c");
	make_small_space("d");
	make_link("@/a", "data/pg_tblspc/16385");
	make_link("@/b", "data/pg_tblspc/16386");
	make_link("@/c", "data/pg_tblspc/16387");
	make_link("@/d", "data/pg_tblspc/16390");
	make_small_space("data/pg_tblspc/16388");
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	tmp_write(&tree, "data/pg_wal/x", "x");
	nlist = 0;
	announce(16385, "@/a");	    /* as it was */
	announce(16386, "@/new/b"); /* moved */
	announce(16388, "@/new/e");
	announce(16389, "pg_tblspc/16389");
	announce(16390, "pg_tblspc/16390");
}

static int quick_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	(void)fd;
	return 0;
}

/* Wherever it ends, the next run makes of it what a run that did not end had made. */
START_TEST(old_faults)
{
	static struct pgr_sys quick;
	bool triggered = true;
	unsigned at;

	quick = *pgr_sys_real();
	quick.fsync = quick_fsync;

	for (at = 1; triggered; at++) {
		int rc;

		opts.wal_dir = _i == 0 ? NULL : wal_dir;
		if (!tmp_exists(&tree, "data/pg_tblspc"))
			tmp_mkdir(&tree, "data/pg_tblspc", 0700);
		old_mess();
		pgr_fault_sys_init(&f, at, EIO);
		f.real = &quick;
		make(&f.sys);
		rc = old_everything();
		triggered = f.triggered;
		if (rc != PGR_OK) {
			ck_assert(triggered);
			ck_assert_msg(strstr(err.msg, P_tmpdir) != NULL, "%s: %s", f.failed_call, err.msg);
		}
		pgr_layout_free(layout);
		make(&quick);
		ck_assert_msg(old_everything() == PGR_OK, "after call %u, %s: %s", at, f.failed_call, err.msg);
		pgr_layout_free(layout);
		layout = NULL;
		ck_assert_uint_eq(tmp_open_fds(), fds);
		tmp_check_link(&tree, "data/pg_tblspc/16386", tmp_at(&tree, "new/b"));
		ck_assert_uint_eq(tmp_entries(tmp_at(&tree, "data/pg_tblspc")), 5);
		/* a failed look may make a leftover stay, and no more */
		ck_assert(has_version("a") && tmp_exists(&tree, "c"));
		if (!triggered)
			ck_assert(!has_version("b") && !has_version("c") && !has_version("d"));
		ck_assert_uint_eq(tmp_entries(opts.wal_dir != NULL ? wal_dir : tmp_at(&tree, "data/pg_wal")), 0);
		tmp_remove(&tree);
		ck_assert_int_eq(mkdir(tree.path, 0700), 0);
		tmp_mkdir(&tree, "data", 0755);
		tmp_write(&tree, "data/PG_VERSION", "15\n");
	}
	ck_assert_uint_ge(at, 100);
}
END_TEST

static Suite *layout_suite(void)
{
	Suite *s = suite_create("layout");
	TCase *m = tcase_create("map"), *d = tcase_create("directories"), *t = tcase_create("tablespaces");
	TCase *o = tcase_create("in place"), *p = tcase_create("tablespaces in place");

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
	tcase_add_checked_fixture(o, setup_old, teardown);
	tcase_add_test(o, old_data);
	tcase_add_test(o, old_data_empty);
	tcase_add_test(o, old_resumed);
	tcase_add_test(o, old_wal_directory);
	tcase_add_test(o, old_wal_missing);
	tcase_add_test(o, old_wal_no_directory);
	tcase_add_loop_test(o, old_wal_link_kept, 0, sizeof(wal_links) / sizeof(wal_links[0]));
	tcase_add_loop_test(o, old_wal_link_refused, 0, sizeof(bad_wal_links) / sizeof(bad_wal_links[0]));
	tcase_add_loop_test(o, old_wal_link_to_something_else, 0, 2 * sizeof(no_wal) / sizeof(no_wal[0]));
	tcase_add_loop_test(o, old_wal_link_to_other_wal, 0, 4);
	tcase_add_loop_test(o, old_wal_link_to_wal, 0, 7);
	tcase_add_loop_test(o, old_waldir, 0, WAS_END);
	tcase_add_test(o, old_waldir_is_linked);
	tcase_add_test(o, old_waldir_not_empty);
	tcase_add_loop_test(o, old_waldir_inside, 0, 2);
	tcase_add_test(o, old_waldir_mounted);
	tcase_add_test(o, old_wal_mounted);
	suite_add_tcase(s, o);
	tcase_add_checked_fixture(p, setup_old_spaces, teardown);
	tcase_add_test(p, old_spaces_right);
	tcase_add_test(p, old_spaces_not_linked);
	tcase_add_test(p, old_spaces_missing);
	tcase_add_loop_test(p, old_spaces_no_directory, 0, 3);
	tcase_add_loop_test(p, look_only, 0, 2);
	tcase_add_test(p, look_only_refuses);
	tcase_add_test(p, old_spaces_dropped);
	tcase_add_test(p, old_spaces_moved);
	tcase_add_test(p, old_spaces_made_again);
	tcase_add_test(p, old_spaces_swapped);
	tcase_add_loop_test(p, old_spaces_of_server, 0, 2);
	tcase_add_test(p, old_spaces_version_unknown);
	tcase_add_test(p, old_spaces_holds_root);
	tcase_add_test(p, old_spaces_odd_links);
	tcase_add_test(p, old_spaces_leftover_mounted);
	tcase_add_test(p, old_spaces_directory_for_link);
	tcase_add_test(p, old_spaces_directory_holds_root);
	tcase_add_loop_test(p, old_spaces_in_place, 0, 4);
	tcase_add_test(p, old_spaces_synced);
	tcase_add_loop_test(p, old_faults, 0, 2);
	tcase_set_timeout(p, 300);
	suite_add_tcase(s, p);
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
