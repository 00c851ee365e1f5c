#include <check.h>
#include <errno.h>

#include "common/pagesum.h"
#include "tests/support/lanestage.h"

#define PAGE	8192u
#define SEGMENT 131072u
#define START	((pgr_lsn)0x3000000)

/* ---- a cluster of few pages ---- */

static struct pgr_client *client;
static struct pgr_buf said, told;
static bool silent;

static void note(void *arg, const char *text)
{
	struct pgr_err e;

	(void)arg;
	ck_assert_int_eq(pgr_buf_puts(&said, text, &e), PGR_OK);
}

static void tell(void *arg, const char *line)
{
	struct pgr_err e;

	(void)arg;
	ck_assert_int_eq(pgr_buf_printf(&told, &e, "%s\n", line), PGR_OK);
}

static void setup(void)
{
	stage_begin(2);
	tmp_mkdir(&tree, "src/base", 0700);
	tmp_mkdir(&tree, "src/base/5", 0700);
	pgr_fault_sys_init(&fault, 0, 0);
	client = NULL;
	silent = false;
	said = told = (struct pgr_buf){0};
}

static void let_go(void)
{
	pgr_client_free(client);
	stage_let_go();
	pgr_buf_fini(&said);
	pgr_buf_fini(&told);
	client = NULL;
}

static void teardown(void)
{
	let_go();
	stage_end();
}

static void make_page(uint8_t *page, pgr_lsn lsn, uint32_t relation_block)
{
	const uint32_t hi = (uint32_t)(lsn >> 32), lo = (uint32_t)lsn;
	const uint16_t lower = 24, upper = 512;
	uint16_t sum;

	for (uint32_t i = 0; i < PAGE; i++)
		page[i] = (uint8_t)(i * 3 + relation_block);
	memcpy(page, &hi, 4);
	memcpy(page + 4, &lo, 4);
	memcpy(page + 12, &lower, 2);
	memcpy(page + 14, &upper, 2);
	sum = pgr_page_checksum(page, PAGE, relation_block);
	memcpy(page + 8, &sum, 2);
}

static void write_page(const char *path, uint32_t block, const uint8_t *page)
{
	char name[300];
	int fd;

	snprintf(name, sizeof(name), "%s/%s", src_dir, path);
	fd = open(name, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)block * PAGE), PAGE);
	close(fd);
}

/* A relation file of good, old pages. */
static void add(const char *path, uint32_t segment, uint32_t npages)
{
	uint8_t page[PAGE];

	for (uint32_t i = 0; i < npages; i++) {
		make_page(page, 100 + i, segment * SEGMENT + i);
		write_page(path, i, page);
	}
	entries[list.n].path = strdup(path);
	entries[list.n].size = (uint64_t)npages * PAGE;
	list.n++;
}

/* Makes a page of the server's bad: its stored checksum gets another value. */
static void spoil(const char *path, uint32_t segment, uint32_t block)
{
	uint8_t page[PAGE];

	make_page(page, 100 + block, segment * SEGMENT + block);
	page[8] ^= 0xFF;
	write_page(path, block, page);
}

/* Copies the cluster; the recheck is still to come. */
static void copy(void)
{
	stage_layout();
	stage_sink(pgr_sys_real(), 2);
	must(pgr_pagecheck_new(&pages, PAGE, SEGMENT, START, &err));
	opts.notice = silent ? NULL : note;
	opts.info = silent ? NULL : tell;
	stage_lanes();
	must(pgr_lanes_run(lanes, NULL, NULL, &err));
	must(pgr_dirsink_drain(sink, &err));
	must(fileserver_open(&server, &client, &err));
}

static void recheck(uint64_t failures)
{
	uint64_t got = 12345;

	must(pgr_lanes_recheck(lanes, client, &got, &err));
	ck_assert_uint_eq(got, failures);
}

static void expect_said(const char *want)
{
	ck_assert_str_eq(said.len == 0 ? "" : pgr_buf_str(&said), want);
}

static void check_told(bool something)
{
	ck_assert_int_eq(told.len > 0, something);
}

/* What the copy has, and that its checksum is of that. */
static void check_copy(size_t i, const char *copy_path, const uint8_t *want)
{
	size_t len;
	char *data = tmp_read(&tree, copy_path, &len);

	ck_assert_uint_eq(len, entries[i].size);
	ck_assert_int_eq(memcmp(data, want, len), 0);
	stage_check_sum(i, data, len);
	free(data);
}

static void check_same(size_t i, const char *copy_path)
{
	char name[300];
	char *data;

	snprintf(name, sizeof(name), "src/%s", entries[i].path);
	data = tmp_read(&tree, name, NULL);
	check_copy(i, copy_path, (const uint8_t *)data);
	free(data);
}

/* ---- pages that are bad ---- */

START_TEST(nothing_bad)
{
	add("base/5/16384", 0, 20);
	copy();
	recheck(0);
	expect_said("");
	check_told(false);
	ck_assert_uint_eq(server.rows, 2); /* none for the recheck */
}
END_TEST

START_TEST(not_checked)
{
	uint64_t failures = 7;

	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	copy();
	pgr_lanes_free(lanes);
	pgr_dirsink_free(sink);
	sink = NULL;
	opts.pages = NULL;
	must(pgr_lanes_new(&lanes, &opts, &fault.sys, stop, &err));
	must(pgr_lanes_recheck(lanes, client, &failures, &err));
	ck_assert_uint_eq(failures, 0);
	expect_said("");
}
END_TEST

static char *warning_of(const char *name, uint32_t relation_block, uint32_t shown_block, uint32_t lsn)
{
	static char text[300];
	uint8_t page[PAGE];
	uint16_t sum;

	make_page(page, lsn, relation_block);
	sum = pgr_page_stored_checksum(page);
	snprintf(text, sizeof(text),
		 "WARNING:  checksum verification failed in file \"%s\", block %u: calculated %X but expected %X\n",
		 name, shown_block, sum, sum ^ 0xFF);
	return text;
}

START_TEST(one_bad)
{
	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	copy();
	recheck(1);
	expect_said(warning_of("./base/5/16384", 3, 3, 103));
	check_told(false);
	check_same(0, "dst/base/5/16384");
}
END_TEST

/* Up to 16 blocks are counted within the file, from 17 on within the relation. */
START_TEST(later_segment)
{
	add("base/5/16384.2", 2, 4);
	spoil("base/5/16384.2", 2, 1);
	server.version = _i == 0 ? 160013 : 170000;
	copy();
	recheck(1);
	expect_said(warning_of("./base/5/16384.2", 2 * SEGMENT + 1, _i == 0 ? 1 : 2 * SEGMENT + 1, 101));
	check_told(false);
}
END_TEST

/* In a tablespace the server says the path as it has it. */
START_TEST(tablespaces)
{
	struct pgr_buf want = {0};

	tmp_mkdir(&tree, "src/pg_tblspc", 0700);
	for (int i = 0; i < 2; i++) {
		tmp_mkdir(&tree, i == 0 ? "src/pg_tblspc/16400" : "src/pg_tblspc/16401", 0700);
		tmp_mkdir(&tree, i == 0 ? "src/pg_tblspc/16400/PG_15_1" : "src/pg_tblspc/16401/PG_15_1", 0700);
		tmp_mkdir(&tree, i == 0 ? "src/pg_tblspc/16400/PG_15_1/5" : "src/pg_tblspc/16401/PG_15_1/5", 0700);
	}
	add("pg_tblspc/16400/PG_15_1/5/1", 0, 2);
	add("pg_tblspc/16401/PG_15_1/5/2", 0, 2);
	spoil("pg_tblspc/16400/PG_15_1/5/1", 0, 1);
	spoil("pg_tblspc/16401/PG_15_1/5/2", 0, 0);
	copy();
	recheck(2);
	must(pgr_buf_puts(&want, warning_of("/srv/ts/PG_15_1/5/1", 1, 1, 101), &err));
	must(pgr_buf_puts(&want, warning_of("pg_tblspc/16401/PG_15_1/5/2", 0, 0, 100), &err));
	must(pgr_buf_puts(&want, "WARNING:  2 total checksum verification failures\n", &err));
	expect_said(pgr_buf_str(&want));
	pgr_buf_fini(&want);
}
END_TEST

/* Five are told, the rest is counted. */
START_TEST(many_bad)
{
	struct pgr_buf want = {0};

	add("base/5/16384", 0, 400);
	add("base/5/16385", 0, 10);
	add("base/5/16386", 0, 10);
	for (uint32_t i = 0; i < 400; i += 2)
		spoil("base/5/16384", 0, i);
	for (uint32_t i = 2; i < 7; i++)
		spoil("base/5/16386", 0, i);
	copy();
	recheck(205);
	for (uint32_t i = 0; i < 10; i += 2)
		must(pgr_buf_puts(&want, warning_of("./base/5/16384", i, i, 100 + i), &err));
	must(pgr_buf_puts(&want,
			  "WARNING:  further checksum verification failures in file \"./base/5/16384\" will not be "
			  "reported\n"
			  "WARNING:  file \"./base/5/16384\" has a total of 200 checksum verification failures\n",
			  &err));
	for (uint32_t i = 2; i < 7; i++)
		must(pgr_buf_puts(&want, warning_of("./base/5/16386", i, i, 100 + i), &err));
	must(pgr_buf_puts(&want,
			  "WARNING:  further checksum verification failures in file \"./base/5/16386\" will not be "
			  "reported\n"
			  "WARNING:  file \"./base/5/16386\" has a total of 5 checksum verification failures\n"
			  "WARNING:  205 total checksum verification failures\n",
			  &err));
	expect_said(pgr_buf_str(&want));
	pgr_buf_fini(&want);
}
END_TEST

/* With nobody to tell, they are counted all the same. */
START_TEST(nobody_listens)
{
	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	spoil("base/5/16384", 0, 4);
	silent = true;
	copy();
	recheck(2);
	expect_said("");
}
END_TEST

/* ---- pages that were bad ---- */

static bool damage;

/* What comes is not what is there: block 3 of every file, while `damage` is set. */
static void damage_block_3(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len)
{
	(void)arg;
	(void)path;
	if (damage && off <= 3 * PAGE && off + len > 3 * PAGE)
		data[3 * PAGE + 4000 - off] ^= 0x40;
}

static const enum pgr_digest_algo algos[] = {PGR_DIGEST_CRC32C, PGR_DIGEST_SHA256, PGR_DIGEST_NONE};

START_TEST(damaged_on_the_way)
{
	opts.digest = algos[_i];
	add("base/5/16384", 0, 100);
	add("base/5/16385", 0, 3);
	server.after_row = damage_block_3;
	damage = true;
	copy();
	damage = false;
	recheck(0);
	expect_said("");
	check_told(true);
	check_same(0, "dst/base/5/16384");
	check_same(1, "dst/base/5/16385");
}
END_TEST

/* Together with one that is bad for good, in the same file. */
START_TEST(damaged_beside_bad)
{
	add("base/5/16384", 0, 100);
	spoil("base/5/16384", 0, 70);
	server.after_row = damage_block_3;
	damage = true;
	copy();
	damage = false;
	recheck(1);
	expect_said(warning_of("./base/5/16384", 70, 70, 170));
	check_told(true);
	check_same(0, "dst/base/5/16384");
}
END_TEST

/* A page that was changed since is replayed: the copy is left as it came. */
START_TEST(changed_since)
{
	char *before;
	uint8_t page[PAGE];

	add("base/5/16384", 0, 10);
	spoil("base/5/16384", 0, 3);
	copy();
	before = tmp_read(&tree, "src/base/5/16384", NULL);
	make_page(page, START, 3);
	page[100] ^= 1; /* even when it is just being written again */
	write_page("base/5/16384", 3, page);
	recheck(0);
	expect_said("");
	check_told(false);
	check_copy(0, "dst/base/5/16384", (const uint8_t *)before);
	free(before);
}
END_TEST

/* New pages (a relation that was cut and has grown again) have no checksum: they are taken as they are. */
START_TEST(new_since)
{
	static const uint8_t empty[PAGE];

	add("base/5/16384", 0, 10);
	spoil("base/5/16384", 0, 3);
	copy();
	write_page("base/5/16384", 3, empty);
	recheck(0);
	expect_said("");
	check_told(true);
	check_same(0, "dst/base/5/16384");
}
END_TEST

/* Cut before the page, cut inside it, removed: nothing can be said of it. */
START_TEST(gone_since)
{
	char name[300];

	add("base/5/16384", 0, 10);
	spoil("base/5/16384", 0, 3);
	copy();
	snprintf(name, sizeof(name), "%s/base/5/16384", src_dir);
	if (_i < 2)
		ck_assert_int_eq(truncate(name, _i == 0 ? 3 * PAGE : 3 * PAGE + 5000), 0);
	else
		ck_assert_int_eq(unlink(name), 0);
	recheck(0);
	expect_said("");
	check_told(false);
}
END_TEST

/* ---- what goes wrong ---- */

START_TEST(server_fails)
{
	uint64_t failures;

	add("base/5/16384", 0, 10);
	spoil("base/5/16384", 0, 3);
	copy();
	server.error_at = server.queries + 1;
	server.errors = 1;
	server.error_severity = "ERROR";
	server.error_state = "58030";
	server.error_inside = _i == 1;
	ck_assert_int_eq(pgr_lanes_recheck(lanes, client, &failures, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_SERVER);
	ck_assert_str_eq(err.sqlstate, "58030");
}
END_TEST

static const enum fileserver_lie lies[] = {FILESERVER_LONG_ROW, FILESERVER_EXTRA_ROW, FILESERVER_LESS_ROWS};

START_TEST(server_lies)
{
	uint64_t failures;

	add("base/5/16384", 0, 10);
	spoil("base/5/16384", 0, 3);
	copy();
	server.lie = lies[_i];
	ck_assert_int_eq(pgr_lanes_recheck(lanes, client, &failures, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
}
END_TEST

/* Somebody cut our copy: there is no checksum to be had. */
START_TEST(copy_cut)
{
	uint64_t failures;

	add("base/5/16384", 0, 100);
	server.after_row = damage_block_3;
	damage = true;
	copy();
	damage = false;
	ck_assert_int_eq(truncate(tmp_at(&tree, "dst/base/5/16384"), 40 * PAGE), 0);
	ck_assert_int_eq(pgr_lanes_recheck(lanes, client, &failures, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, "base/5/16384"));
}
END_TEST

/* Each system call of the mending fails once. */
START_TEST(faults)
{
	bool failed = true;

	add("base/5/16384", 0, 100);
	add("base/5/16385", 0, 100);
	server.after_row = damage_block_3;
	for (unsigned n = 1; failed && n < 100; n++) {
		uint64_t failures;
		int rc;

		pgr_fault_sys_init(&fault, 0, EIO);
		damage = true;
		copy();
		damage = false;
		fault.fail_at = fault.calls + n;
		rc = pgr_lanes_recheck(lanes, client, &failures, &err);
		failed = fault.triggered;
		if (!failed) {
			must(rc);
			check_same(0, "dst/base/5/16384");
			check_same(1, "dst/base/5/16385");
		} else if (rc == PGR_ERR) {
			ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
			ck_assert_int_eq(err.sys_errno, EIO);
		} else {
			ck_assert_str_eq(fault.failed_call, "close"); /* of a directory that was only read */
		}
		let_go();
		ck_assert_int_eq(nftw(dst_dir, tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
		ck_assert_int_eq(nftw(tmp_at(&tree, "ts"), tmp_remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	}
	ck_assert(!failed);
}
END_TEST

/* ---- verified ---- */

struct damage {
	uint64_t off;
	unsigned often, seen;
	bool beginning; /* the first look is not damaged */
};

static void damage_page(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len, uint8_t *sum)
{
	struct damage *d = arg;

	(void)path;
	(void)sum;
	if (d->beginning || off != d->off || d->seen++ >= d->often)
		return;
	if (len > 0)
		data[len - 1] ^= 1;
	else
		sum[31] ^= 1;
}

/* A page comes damaged in the second look: it is neither put into the file nor called bad. */
START_TEST(second_look_damaged)
{
	struct damage d = {.off = 3 * PAGE, .often = (unsigned)_i, .beginning = true};

	opts.verify_transfer = true;
	add("base/5/16384", 0, 200);
	for (uint32_t i = 0; i < 150; i++) /* more than one query */
		spoil("base/5/16384", 0, i);
	server.on_the_way = damage_page;
	server.arg = &d;
	copy();
	d.beginning = false;
	if (_i > 5) {
		uint64_t failures;

		ck_assert_int_eq(pgr_lanes_recheck(lanes, client, &failures, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_str_eq(err.msg, "page 3 of file \"base/5/16384\" came damaged");
		ck_assert_uint_eq(d.seen, 6);
		return;
	}
	recheck(150);
	check_told(_i > 0);
	ck_assert_uint_eq(d.seen, (unsigned)_i + 1);
	check_same(0, "dst/base/5/16384");
}
END_TEST

/* A page that was torn when it came first, and comes damaged when it is read again. */
START_TEST(mended_with_what_is_right)
{
	struct damage d = {.off = 3 * PAGE, .often = 2, .beginning = true};
	uint8_t page[PAGE];

	opts.verify_transfer = true;
	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	server.on_the_way = damage_page;
	server.arg = &d;
	copy();
	make_page(page, 103, 3);
	write_page("base/5/16384", 3, page);
	d.beginning = false;
	recheck(0);
	expect_said("");
	ck_assert_uint_eq(d.seen, 3);
	check_same(0, "dst/base/5/16384");
}
END_TEST

/* The file is not there any more: that, too, is only believed with its digest. */
START_TEST(gone_and_damaged)
{
	struct damage d = {.off = 3 * PAGE, .often = 1, .beginning = true};
	char name[300];

	opts.verify_transfer = true;
	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	server.on_the_way = damage_page;
	server.arg = &d;
	copy();
	snprintf(name, sizeof(name), "%s/base/5/16384", src_dir);
	ck_assert_int_eq(unlink(name), 0);
	d.beginning = false;
	recheck(0);
	ck_assert_uint_eq(d.seen, 2);
}
END_TEST

START_TEST(second_look_without_digests)
{
	uint64_t failures;

	opts.verify_transfer = true;
	add("base/5/16384", 0, 20);
	spoil("base/5/16384", 0, 3);
	copy();
	server.lie = _i == 0 ? FILESERVER_SHORT_SUM : FILESERVER_NO_SUM;
	ck_assert_int_eq(pgr_lanes_recheck(lanes, client, &failures, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_PROTOCOL);
	ck_assert_ptr_nonnull(strstr(err.msg, "\"base/5/16384\""));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("recheck");
	TCase *t = tcase_create("recheck");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, nothing_bad);
	tcase_add_test(t, not_checked);
	tcase_add_test(t, one_bad);
	tcase_add_loop_test(t, later_segment, 0, 2);
	tcase_add_test(t, tablespaces);
	tcase_add_test(t, many_bad);
	tcase_add_test(t, nobody_listens);
	tcase_add_loop_test(t, damaged_on_the_way, 0, (int)(sizeof(algos) / sizeof(algos[0])));
	tcase_add_test(t, damaged_beside_bad);
	tcase_add_test(t, changed_since);
	tcase_add_test(t, new_since);
	tcase_add_loop_test(t, gone_since, 0, 3);
	tcase_add_loop_test(t, server_fails, 0, 2);
	tcase_add_loop_test(t, server_lies, 0, (int)(sizeof(lies) / sizeof(lies[0])));
	tcase_add_test(t, copy_cut);
	tcase_add_test(t, faults);
	tcase_add_loop_test(t, second_look_damaged, 0, 7);
	tcase_add_test(t, mended_with_what_is_right);
	tcase_add_test(t, gone_and_damaged);
	tcase_add_loop_test(t, second_look_without_digests, 0, 2);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
