#include <check.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "backup/bbstream.h"
#include "backup/layout.h"
#include "backup/localtree.h"
#include "common/buf.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define VERSION_DIR "PG_15_202209061"

static struct tmptree tree;
static struct pgr_layout_opts opts;
static struct pgr_layout *layout;
static struct pgr_tblspc_map *mapping;
static struct pgr_bb_tablespace list[4];
static char locations[4][PATH_MAX];
static size_t nlist;
static struct pgr_localtree got;
static struct pgr_err err;
static struct pgr_fault_sys f;
static unsigned fds;
static char data_dir[PATH_MAX], wal_dir[PATH_MAX];

static void setup(void)
{
	tmp_make(&tree);
	snprintf(data_dir, sizeof(data_dir), "%s/data", tree.path);
	snprintf(wal_dir, sizeof(wal_dir), "%s/wal", tree.path);
	opts = (struct pgr_layout_opts){.data_dir = data_dir,
					.dir_mode = 0700,
					.file_mode = 0600,
					.in_place = true,
					.version_dir = VERSION_DIR};
	layout = NULL;
	mapping = NULL;
	nlist = 0;
	memset(&got, 0, sizeof(got));
	tmp_mkdir(&tree, "data", 0700);
	tmp_write(&tree, "data/PG_VERSION", "15\n");
	fds = tmp_open_fds();
}

static void teardown(void)
{
	pgr_localtree_fini(&got);
	pgr_layout_free(layout);
	pgr_tblspc_map_free(mapping);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

static void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

static void make_link(const char *target, const char *name)
{
	ck_assert_int_eq(symlink(target, tmp_at(&tree, name)), 0);
}

/* "@" at the start stands for the test's directory. */
static void announce(uint32_t oid, const char *location)
{
	snprintf(locations[nlist], sizeof(locations[0]), "%s%s", location[0] == '@' ? tree.path : "",
		 location + (location[0] == '@'));
	list[nlist] = (struct pgr_bb_tablespace){.oid = oid, .location = locations[nlist], .size_kb = -1};
	nlist++;
}

static void prepare(void)
{
	opts.mapping = mapping;
	must(pgr_layout_new(&layout, pgr_sys_real(), &opts, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, list, nlist, &err));
}

static void scan(const struct pgr_sys *sys)
{
	prepare();
	must(pgr_localtree_scan(&got, sys, layout, &err));
}

/* One line for an entry: path, type, size or target, flags.  "@" in `want` stands for the test's directory. */
static void check_tree(const char *want)
{
	struct pgr_buf is = {0}, w = {0};
	struct pgr_err e;
	uint64_t total = 0;

	for (size_t i = 0; i < got.n; i++) {
		const struct pgr_local_entry *x = &got.entries[i];

		ck_assert_int_eq(pgr_buf_printf(&is, &e, "%s %c", x->path, "fdlo"[x->type]), PGR_OK);
		if (x->type == PGR_LOCAL_FILE)
			ck_assert_int_eq(pgr_buf_printf(&is, &e, "%zu", (size_t)x->size), PGR_OK);
		ck_assert_int_eq(x->target != NULL, x->type == PGR_LOCAL_LINK);
		ck_assert_int_eq(pgr_buf_printf(&is, &e, "%s%s%s%s%s\n", x->target != NULL ? ">" : "",
						x->target != NULL ? x->target : "", x->replaced ? " replaced" : "",
						x->mounted ? " mounted" : "", x->is_root ? " root" : ""),
				 PGR_OK);
		total += x->size;
		ck_assert_ptr_eq(pgr_localtree_find(&got, x->path), x);
	}
	for (; *want != '\0'; want++)
		ck_assert_int_eq(*want == '@' ? pgr_buf_puts(&w, tree.path, &e) : pgr_buf_put8(&w, (uint8_t)*want, &e),
				 PGR_OK);
	ck_assert_str_eq(pgr_buf_str(&is), pgr_buf_str(&w));
	ck_assert_uint_eq(got.total_bytes, total);
	pgr_buf_fini(&is);
	pgr_buf_fini(&w);
}

/* ---- what there is ---- */

static void make_socket(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", tmp_at(&tree, name));
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
}

START_TEST(all_kinds)
{
	tmp_mkdir(&tree, "data/base", 0700);
	tmp_mkdir(&tree, "data/base/5", 0700);
	tmp_write(&tree, "data/base/5/1259", "12345678");
	tmp_write(&tree, "data/base-x", "");
	tmp_mkdir(&tree, "data/empty", 0700);
	make_link("nowhere", "data/dangling");
	make_link("/", "data/root");
	ck_assert_int_eq(mkfifo(tmp_at(&tree, "data/fifo"), 0600), 0);
	make_socket("data/.s.PGSQL.5432");
	tmp_write(&tree, "data/with\nnewline", "x");
	tmp_write(&tree, "data/\xFF\xFE", "xy");
	scan(pgr_sys_real());
	/* sorted as the server's list is: '-' comes before '/' */
	check_tree(".s.PGSQL.5432 o\nPG_VERSION f3\nbase d\nbase-x f0\nbase/5 d\nbase/5/1259 f8\ndangling l>nowhere\n"
		   "empty d\nfifo o\nroot l>/\nwith\nnewline f1\n\xFF\xFE f2\n");
	ck_assert_ptr_null(pgr_localtree_find(&got, "base/5/1260"));
	ck_assert_ptr_null(pgr_localtree_find(&got, ""));
}
END_TEST

START_TEST(nothing)
{
	opts.in_place = false;
	ck_assert_int_eq(unlink(tmp_at(&tree, "data/PG_VERSION")), 0);
	scan(pgr_sys_real());
	check_tree("");
	ck_assert_ptr_null(pgr_localtree_find(&got, "PG_VERSION"));
}
END_TEST

/* rsync --link-dest, cp -l */
START_TEST(hard_links)
{
	tmp_write(&tree, "data/a", "123");
	ck_assert_int_eq(link(tmp_at(&tree, "data/a"), tmp_at(&tree, "elsewhere")), 0);
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\na f3 replaced\n");
}
END_TEST

START_TEST(no_permission)
{
	tmp_write(&tree, "data/a", "123");
	tmp_write(&tree, "data/b", "123");
	tmp_write(&tree, "data/c", "123");
	ck_assert_int_eq(chmod(tmp_at(&tree, "data/a"), 0400), 0);
	ck_assert_int_eq(chmod(tmp_at(&tree, "data/b"), 0200), 0);
	ck_assert_int_eq(chmod(tmp_at(&tree, "data/c"), 0644), 0);
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\na f3 replaced\nb f3 replaced\nc f3\n");
}
END_TEST

START_TEST(many)
{
	char name[32];

	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "data/%d", i);
		tmp_write(&tree, name, "x");
	}
	scan(pgr_sys_real());
	ck_assert_uint_eq(got.n, 3001);
	ck_assert_uint_eq(got.total_bytes, 3003);
	for (size_t i = 1; i < got.n; i++)
		ck_assert_int_lt(strcmp(got.entries[i - 1].path, got.entries[i].path), 0);
}
END_TEST

#define DEEP 25

START_TEST(too_deep)
{
	char name[201];
	int at[DEEP + 1] = {open(data_dir, O_RDONLY | O_DIRECTORY)};

	memset(name, 'd', sizeof(name));
	name[200] = '\0';
	prepare();
	for (int i = 0; i < DEEP; i++) {
		ck_assert_int_eq(mkdirat(at[i], name, 0700), 0);
		at[i + 1] = openat(at[i], name, O_RDONLY | O_DIRECTORY);
	}
	ck_assert_int_eq(pgr_localtree_scan(&got, pgr_sys_real(), layout, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, ENAMETOOLONG);
	ck_assert_msg(strstr(err.msg, data_dir) != NULL, "%s", err.msg);
	ck_assert_uint_eq(got.n, 0);
	close(at[DEEP]);
	for (int i = DEEP; i-- > 0; close(at[i]))
		ck_assert_int_eq(unlinkat(at[i], name, AT_REMOVEDIR), 0);
}
END_TEST

/* ---- pg_wal, tablespaces, roots ---- */

START_TEST(wal_directory)
{
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	tmp_mkdir(&tree, "data/pg_wal/archive_status", 0700);
	tmp_write(&tree, "data/pg_wal/000000010000000000000001", "1234");
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_wal d root\npg_wal/000000010000000000000001 f4\npg_wal/archive_status d\n");
}
END_TEST

START_TEST(wal_link)
{
	tmp_mkdir(&tree, "wal", 0700);
	tmp_write(&tree, "wal/000000010000000000000001", "1234");
	make_link(wal_dir, "data/pg_wal");
	make_link(wal_dir, "data/pg_xlog"); /* no name of this version */
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_wal l>@/wal\npg_wal/000000010000000000000001 f4\npg_xlog l>@/wal\n");
}
END_TEST

/* The layout is going to replace the directory: only what is in its new place is the WAL. */
START_TEST(wal_to_be_moved)
{
	opts.wal_dir = wal_dir;
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	tmp_write(&tree, "data/pg_wal/0001", "1234");
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_wal d\n");
}
END_TEST

/* What lies within another root is walked once, as itself. */
START_TEST(wal_inside_data)
{
	tmp_mkdir(&tree, "data/sub", 0700);
	tmp_mkdir(&tree, "data/sub/xlog", 0700);
	tmp_write(&tree, "data/sub/xlog/00000002.history", "1234");
	make_link(tmp_at(&tree, "data/sub/xlog"), "data/pg_wal");
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_wal l>@/data/sub/xlog\npg_wal/00000002.history f4\nsub d\nsub/xlog d root\n");
}
END_TEST

static void make_spaces(void)
{
	tmp_mkdir(&tree, "ts", 0700);
	tmp_mkdir(&tree, "ts/" VERSION_DIR, 0700);
	tmp_mkdir(&tree, "ts/" VERSION_DIR "/5", 0700);
	tmp_write(&tree, "ts/" VERSION_DIR "/5/16390", "12345");
	tmp_mkdir(&tree, "ts/PG_14_202107181", 0700);
	tmp_write(&tree, "ts/PG_14_202107181/1", "x");
	tmp_write(&tree, "ts/other", "x");
	tmp_mkdir(&tree, "data/pg_tblspc", 0700);
	make_link(tmp_at(&tree, "ts"), "data/pg_tblspc/16385");
	make_link(tmp_at(&tree, "gone"), "data/pg_tblspc/16386"); /* of a tablespace that the server does not have */
	tmp_mkdir(&tree, "data/pg_tblspc/16387", 0700);
	tmp_mkdir(&tree, "data/pg_tblspc/16387/" VERSION_DIR, 0700);
	tmp_write(&tree, "data/pg_tblspc/16387/stray", "x");
	announce(16385, "@/ts");
	announce(16387, "pg_tblspc/16387");
}

#define OTHERS                                                                                                         \
	"pg_tblspc/16386 l>@/gone\npg_tblspc/16387 d root\npg_tblspc/16387/" VERSION_DIR                               \
	" d\npg_tblspc/16387/stray f1\n"

START_TEST(tablespaces)
{
	make_spaces();
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_tblspc d\npg_tblspc/16385 l>@/ts\npg_tblspc/16385/" VERSION_DIR
		   " d\npg_tblspc/16385/" VERSION_DIR "/5 d\npg_tblspc/16385/" VERSION_DIR "/5/16390 f5\n" OTHERS);
}
END_TEST

START_TEST(tablespaces_version_unknown)
{
	make_spaces();
	opts.version_dir = NULL;
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_tblspc d\npg_tblspc/16385 l>@/ts\npg_tblspc/16385/PG_14_202107181 d\n"
		   "pg_tblspc/16385/PG_14_202107181/1 f1\npg_tblspc/16385/" VERSION_DIR
		   " d\npg_tblspc/16385/" VERSION_DIR "/5 d\npg_tblspc/16385/" VERSION_DIR "/5/16390 f5\n" OTHERS);
}
END_TEST

/* A copy that followed links: what is in the directory is not what is in the tablespace. */
START_TEST(tablespace_directory_for_link)
{
	tmp_mkdir(&tree, "data/pg_tblspc", 0700);
	tmp_mkdir(&tree, "data/pg_tblspc/16385", 0700);
	tmp_write(&tree, "data/pg_tblspc/16385/x", "x");
	announce(16385, "@/ts");
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_tblspc d\npg_tblspc/16385 d\n");
}
END_TEST

/* The data directory below a tablespace's directory: not walked again. */
START_TEST(tablespace_above_data)
{
	opts.version_dir = NULL;
	snprintf(data_dir, sizeof(data_dir), "%s/ts/PG_data", tree.path);
	tmp_mkdir(&tree, "ts", 0700);
	ck_assert_int_eq(rename(tmp_at(&tree, "data"), data_dir), 0);
	tmp_mkdir(&tree, "ts/PG_data/pg_tblspc", 0700);
	make_link(tmp_at(&tree, "ts"), "ts/PG_data/pg_tblspc/16385");
	announce(16385, "@/ts");
	scan(pgr_sys_real());
	check_tree("PG_VERSION f3\npg_tblspc d\npg_tblspc/16385 l>@/ts\npg_tblspc/16385/PG_data d root\n");
}
END_TEST

/* ---- a system that says other things ---- */

static struct pgr_sys odd;
static const char *odd_name;
static int odd_errno;

static int odd_openat(const struct pgr_sys *sys, int fd, const char *path, int flags, mode_t mode)
{
	(void)sys;
	if (strcmp(path, odd_name) != 0)
		return openat(fd, path, flags, mode);
	errno = odd_errno;
	return -1;
}

static int odd_fstatat(const struct pgr_sys *sys, int fd, const char *path, struct stat *st, int flags)
{
	(void)sys;
	if (strcmp(path, odd_name) != 0)
		return fstatat(fd, path, st, flags);
	errno = odd_errno;
	return -1;
}

static ssize_t odd_readlinkat(const struct pgr_sys *sys, int fd, const char *path, char *buf, size_t len)
{
	(void)sys;
	(void)fd;
	(void)path;
	(void)buf;
	(void)len;
	errno = odd_errno;
	return -1;
}

/* Something is mounted on each directory of this name, of the same device. */
static int odd_statx(const struct pgr_sys *sys, int fd, const char *path, int flags, unsigned mask, struct statx *x)
{
	(void)sys;
	ck_assert_int_ne(flags & AT_SYMLINK_NOFOLLOW, 0);
	if (statx(fd, path, flags, mask, x) != 0)
		return -1;
	x->stx_attributes_mask |= 0x2000;
	x->stx_attributes = strcmp(path, odd_name) == 0 ? 0x2000 : 0;
	return 0;
}

static int no_mounts(const struct pgr_sys *sys, int fd, const char *path, int flags, unsigned mask, struct statx *x)
{
	int rc = odd_statx(sys, fd, path, flags, mask, x);

	x->stx_attributes = 0;
	return rc;
}

static int old_statx(const struct pgr_sys *sys, int fd, const char *path, int flags, unsigned mask, struct statx *x)
{
	(void)sys;
	(void)fd;
	(void)path;
	(void)flags;
	(void)mask;
	(void)x;
	errno = odd_errno;
	return -1;
}

static int other_device(const struct pgr_sys *sys, int fd, const char *path, struct stat *st, int flags)
{
	int rc = fstatat(fd, path, st, flags);

	(void)sys;
	if (strcmp(path, odd_name) == 0)
		st->st_dev++;
	return rc;
}

static struct dirent *twice(const struct pgr_sys *sys, DIR *d)
{
	static struct dirent last;
	static bool again;
	struct dirent *de;

	(void)sys;
	again = !again;
	if (!again)
		return &last;
	errno = 0;
	de = readdir(d);
	if (de == NULL)
		again = false;
	else
		memcpy(&last, de, de->d_reclen);
	return de;
}

static void setup_odd(void)
{
	setup();
	odd = *pgr_sys_real();
	tmp_mkdir(&tree, "data/odd", 0700);
	tmp_write(&tree, "data/odd/file", "x");
	odd_name = "odd";
	odd_errno = ENOENT;
}

START_TEST(vanishes_before_open)
{
	odd.openat = odd_openat;
	scan(&odd);
	check_tree("PG_VERSION f3\nodd d\n");
}
END_TEST

START_TEST(vanishes_before_stat)
{
	odd.fstatat = odd_fstatat;
	scan(&odd);
	check_tree("PG_VERSION f3\n");
}
END_TEST

START_TEST(vanishes_before_readlink)
{
	make_link("x", "data/link");
	odd.readlinkat = odd_readlinkat;
	scan(&odd);
	check_tree("PG_VERSION f3\nodd d\nodd/file f1\n");
}
END_TEST

START_TEST(listed_twice)
{
	odd.readdir = twice;
	make_link("x", "data/link");
	scan(&odd);
	check_tree("PG_VERSION f3\nlink l>x\nodd d\nodd/file f1\n");
}
END_TEST

START_TEST(unreadable)
{
	char want[PATH_MAX + 128];

	odd.openat = odd_openat;
	odd_errno = EACCES;
	prepare();
	ck_assert_int_eq(pgr_localtree_scan(&got, &odd, layout, &err), PGR_ERR);
	snprintf(want, sizeof(want), "could not open directory \"%s/odd\": Permission denied", data_dir);
	ck_assert_str_eq(err.msg, want);
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_uint_eq(got.n, 0);
}
END_TEST

/* The file system's own directory belongs to root, and nobody else may read it; one further down is like any other. */
START_TEST(lost_and_found)
{
	tmp_mkdir(&tree, "data/lost+found", 0700);
	tmp_mkdir(&tree, "data/pg_wal", 0700);
	tmp_mkdir(&tree, "data/pg_wal/lost+found", 0700);
	odd.openat = odd_openat;
	odd_name = "lost+found";
	odd_errno = EACCES;
	scan(&odd);
	check_tree("PG_VERSION f3\nlost+found d\nodd d\nodd/file f1\npg_wal d root\npg_wal/lost+found d\n");
	pgr_localtree_fini(&got);
	tmp_mkdir(&tree, "data/odd/lost+found", 0700);
	ck_assert_int_eq(pgr_localtree_scan(&got, &odd, layout, &err), PGR_ERR);
}
END_TEST

START_TEST(mounted)
{
	odd.statx = odd_statx;
	scan(&odd);
	check_tree("PG_VERSION f3\nodd d mounted\nodd/file f1\n");
}
END_TEST

START_TEST(mounted_old_kernel)
{
	odd.statx = old_statx;
	odd.fstatat = other_device;
	odd_errno = ENOSYS;
	scan(&odd);
	ck_assert(pgr_localtree_find(&got, "odd")->mounted);
}
END_TEST

/* A subvolume has a device number of its own, but is no mount. */
START_TEST(subvolume)
{
	odd.statx = no_mounts;
	odd.fstatat = other_device;
	scan(&odd);
	ck_assert(!pgr_localtree_find(&got, "odd")->mounted);
}
END_TEST

/* ---- syncfs ---- */

static unsigned syncs;

static int count_syncfs(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	ck_assert_int_ge(fd, 0);
	syncs++;
	errno = odd_errno;
	return odd_errno == 0 ? 0 : -1;
}

START_TEST(syncfs_of_mounts)
{
	syncs = 0;
	odd.statx = odd_statx;
	odd.syncfs = count_syncfs;
	odd_errno = 0;
	scan(&odd);
	must(pgr_localtree_syncfs(&got, &odd, layout, &err));
	ck_assert_uint_eq(syncs, 1);
	odd_errno = EIO;
	ck_assert_int_eq(pgr_localtree_syncfs(&got, &odd, layout, &err), PGR_ERR);
	ck_assert_int_eq(err.sys_errno, EIO);
	ck_assert_msg(strstr(err.msg, "\"odd\"") != NULL, "%s", err.msg);
}
END_TEST

/* ---- everything that can fail ---- */

START_TEST(faults)
{
	bool triggered = true;

	make_spaces();
	tmp_mkdir(&tree, "data/base", 0700);
	tmp_write(&tree, "data/base/1", "x");
	prepare();
	fds = tmp_open_fds();
	for (unsigned at = 1; triggered; at++) {
		int rc;

		pgr_fault_sys_init(&f, at, EIO);
		rc = pgr_localtree_scan(&got, &f.sys, layout, &err);
		triggered = f.triggered;
		if (!triggered) {
			must(rc);
			ck_assert_uint_ge(at, 40);
		} else if (strcmp(f.failed_call, "statx") != 0) {
			ck_assert_int_eq(rc, PGR_ERR);
			ck_assert_uint_eq(got.n, 0);
			ck_assert_int_eq(err.sys_errno, EIO);
			ck_assert_msg(strstr(err.msg, data_dir) != NULL, "%s: %s", f.failed_call, err.msg);
		}
		pgr_localtree_fini(&got);
		ck_assert_uint_eq(tmp_open_fds(), fds);
	}
	pgr_layout_free(layout);
	layout = NULL;
	fds = tmp_open_fds();
}
END_TEST

static Suite *localtree_suite(void)
{
	Suite *s = suite_create("localtree");
	TCase *t = tcase_create("scan"), *o = tcase_create("odd");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, all_kinds);
	tcase_add_test(t, nothing);
	tcase_add_test(t, hard_links);
	tcase_add_test(t, no_permission);
	tcase_add_test(t, many);
	tcase_add_test(t, too_deep);
	tcase_add_test(t, wal_directory);
	tcase_add_test(t, wal_link);
	tcase_add_test(t, wal_to_be_moved);
	tcase_add_test(t, wal_inside_data);
	tcase_add_test(t, tablespaces);
	tcase_add_test(t, tablespaces_version_unknown);
	tcase_add_test(t, tablespace_directory_for_link);
	tcase_add_test(t, tablespace_above_data);
	tcase_add_test(t, faults);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(o, setup_odd, teardown);
	tcase_add_test(o, vanishes_before_open);
	tcase_add_test(o, vanishes_before_stat);
	tcase_add_test(o, vanishes_before_readlink);
	tcase_add_test(o, listed_twice);
	tcase_add_test(o, unreadable);
	tcase_add_test(o, lost_and_found);
	tcase_add_test(o, mounted);
	tcase_add_test(o, mounted_old_kernel);
	tcase_add_test(o, subvolume);
	tcase_add_test(o, syncfs_of_mounts);
	suite_add_tcase(s, o);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(localtree_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
