#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs_tree.h"
#include "common/sys.h"
#include "receiver/syncer.h"

#define SEG   PGR_WALSEG_MIN
#define FIRST ((pgr_lsn)3 * SEG)

/* A syncer in a directory, whose system says who syncs, and has the thread wait where a test wants it to. */
static struct {
	char path[64];
	struct pgr_sys sys;
	struct pgr_waldir dir;
	struct pgr_syncer *syncer;
	struct pgr_segfile file; /* the open segment's */
	pgr_segno seg;		 /* the next one */
	pgr_lsn at;
	pthread_t owner;
	struct pgr_err err;

	atomic_bool hold_ahead, hold_syncs; /* the thread, in front of these */
	atomic_bool in_ahead;		    /* it has come there */
	atomic_int in_sync;		    /* so often */
	atomic_int here, there;		    /* syncs of files, by the owner and by the thread */
	atomic_int wakes;
	int fail; /* syncs, with this errno */
} fx;

#define OK(call) ck_assert_msg((call) == PGR_OK, "%s: %s", #call, fx.err.msg)

static void wait_while(atomic_bool *held)
{
	while (atomic_load(held))
		sched_yield();
}

static int held_openat(const struct pgr_sys *sys, int dirfd, const char *name, int flags, mode_t mode)
{
	(void)sys;
	if (strcmp(name, PGR_SEGFILE_AHEAD) == 0) {
		atomic_store(&fx.in_ahead, true);
		wait_while(&fx.hold_ahead);
	}
	return openat(dirfd, name, flags, mode);
}

static int counted(int fd, int (*sync)(int fd))
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	if (!S_ISREG(st.st_mode))
		return sync(fd);
	if (pthread_equal(pthread_self(), fx.owner)) {
		atomic_fetch_add(&fx.here, 1);
	} else {
		atomic_fetch_add(&fx.in_sync, 1);
		wait_while(&fx.hold_syncs);
		atomic_fetch_add(&fx.there, 1);
	}
	errno = fx.fail;
	return fx.fail != 0 ? -1 : sync(fd);
}

static int counted_fsync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return counted(fd, fsync);
}

static int counted_fdatasync(const struct pgr_sys *sys, int fd)
{
	(void)sys;
	return counted(fd, fdatasync);
}

static void on_wake(void *arg)
{
	(void)arg;
	atomic_fetch_add(&fx.wakes, 1);
}

static void setup(void)
{
	memset(&fx, 0, sizeof(fx));
	snprintf(fx.path, sizeof(fx.path), "%s/pgr-syncer-XXXXXX", P_tmpdir);
	ck_assert_ptr_nonnull(mkdtemp(fx.path));
	fx.sys = *pgr_sys_real();
	fx.sys.openat = held_openat;
	fx.sys.fsync = counted_fsync;
	fx.sys.fdatasync = counted_fdatasync;
	fx.owner = pthread_self();
	fx.dir = (struct pgr_waldir){
		.sys = &fx.sys,
		.dirfd = open(fx.path, O_RDONLY | O_DIRECTORY),
		.dir = fx.path,
		.segment_bytes = SEG,
		.file_mode = 0600,
		.sync = true,
		.partial_suffix = true,
	};
	ck_assert_int_ge(fx.dir.dirfd, 0);
	fx.file.fd = -1;
}

static void begin(bool threaded)
{
	OK(pgr_syncer_new(&fx.syncer, &fx.dir, threaded, &fx.err));
	pgr_syncer_set_wake(fx.syncer, on_wake, NULL);
	fx.seg = FIRST / SEG;
	fx.at = FIRST;
	pgr_syncer_reset(fx.syncer, FIRST);
}

static void teardown(void)
{
	struct pgr_err err;

	atomic_store(&fx.hold_ahead, false);
	atomic_store(&fx.hold_syncs, false);
	pgr_syncer_free(fx.syncer);
	close(fx.dir.dirfd);
	ck_assert_int_eq(pgr_fs_remove_tree(pgr_sys_real(), fx.path, true, &err), PGR_OK);
}

static bool exists(const char *name)
{
	struct stat st;

	return fstatat(fx.dir.dirfd, name, &st, 0) == 0;
}

static void open_segment(void)
{
	char name[PGR_SEGNAME_ROOM];
	int rc = pgr_syncer_take_ahead(fx.syncer, &fx.file);

	pgr_segfile_name(&fx.dir, 1, fx.seg++, name);
	if (rc == PGR_OK)
		OK(pgr_segfile_rename(&fx.dir, &fx.file, name, &fx.err));
	else
		OK(pgr_segfile_create(&fx.dir, name, &fx.file, &fx.err));
	pgr_syncer_open(fx.syncer, &fx.file);
}

static void put(size_t len)
{
	fx.at += len;
	pgr_syncer_wrote(fx.syncer, fx.at);
}

static int finish(void)
{
	fx.at = pgr_lsn_segstart(fx.at, SEG) + SEG;
	return pgr_syncer_finish(fx.syncer, fx.at, &fx.err);
}

static void end(void)
{
	pgr_syncer_detach(fx.syncer, &fx.file);
	pgr_syncer_drop_ahead(fx.syncer);
	pgr_segfile_drop(&fx.dir, &fx.file);
	ck_assert(!exists(PGR_SEGFILE_AHEAD));
}

static void await(const atomic_int *n, int least)
{
	while (atomic_load(n) < least)
		sched_yield();
}

/* ---- syncs that the owner does itself ---- */

/* The next segment's file, which the thread makes meanwhile, is no concern of theirs. */
START_TEST(here_while_a_file_is_made)
{
	atomic_store(&fx.hold_ahead, true);
	begin(true);
	open_segment();
	while (!atomic_load(&fx.in_ahead))
		sched_yield();
	for (unsigned i = 1; i <= 3; i++) {
		put(100);
		OK(pgr_syncer_request(fx.syncer, true, &fx.err));
		ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST + 100 * i);
	}
	OK(pgr_syncer_request(fx.syncer, true, &fx.err)); /* of nothing new */
	ck_assert_int_eq(fx.here, 3);
	ck_assert_int_eq(fx.there, 0);
	ck_assert_int_eq(fx.wakes, 0);
	atomic_store(&fx.hold_ahead, false);
	end();
}
END_TEST

/* Without a thread they are all done by the owner. */
START_TEST(here_without_a_thread)
{
	begin(false);
	open_segment();
	put(100);
	OK(pgr_syncer_request(fx.syncer, _i == 0, &fx.err));
	ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST + 100);
	ck_assert_int_eq(fx.here, 1);
	end();
}
END_TEST

/* While the thread syncs the owner does not wait: the request is served when that has ended. */
START_TEST(not_while_another_runs)
{
	atomic_store(&fx.hold_syncs, true);
	begin(true);
	open_segment();
	put(100);
	OK(pgr_syncer_request(fx.syncer, false, &fx.err));
	await(&fx.in_sync, 1);
	put(100);
	OK(pgr_syncer_request(fx.syncer, true, &fx.err));
	ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST);
	atomic_store(&fx.hold_syncs, false);
	while (pgr_syncer_synced(fx.syncer) < FIRST + 200)
		sched_yield();
	ck_assert_int_eq(fx.here, 0);
	ck_assert_int_eq(fx.there, 2);
	OK(pgr_syncer_wait(fx.syncer, &fx.err));
	ck_assert_int_eq(fx.wakes, 2);
	end();
}
END_TEST

/* Finished segments are much to sync, and stand before the open one: all of it is the thread's. */
START_TEST(not_behind_finished_segments)
{
	atomic_store(&fx.hold_ahead, true);
	begin(true);
	open_segment();
	while (!atomic_load(&fx.in_ahead))
		sched_yield();
	OK(finish());
	open_segment();
	put(100);
	OK(pgr_syncer_request(fx.syncer, true, &fx.err));
	ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST);
	atomic_store(&fx.hold_ahead, false);
	while (pgr_syncer_synced(fx.syncer) < fx.at)
		sched_yield();
	ck_assert_int_eq(fx.here, 0);
	ck_assert(exists("000000010000000000000003"));
	end();
}
END_TEST

/* It is the owner's own failure, told as such the first time, and final. */
START_TEST(failure_here)
{
	begin(_i == 0);
	open_segment();
	put(100);
	fx.fail = EIO;
	ck_assert_int_eq(pgr_syncer_request(fx.syncer, true, &fx.err), PGR_ERR);
	ck_assert_int_eq(fx.err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(fx.err.sys_errno, EIO);
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "could not fsync file \""));
	ck_assert_ptr_null(strstr(fx.err.msg, "earlier"));
	ck_assert(pgr_syncer_is_failed(fx.syncer));
	fx.fail = 0;
	ck_assert_int_eq(pgr_syncer_request(fx.syncer, true, &fx.err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(fx.err.msg, "after an earlier error"));
	ck_assert_int_eq(pgr_syncer_wait(fx.syncer, &fx.err), PGR_ERR);
	ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST);
	ck_assert_int_eq(fx.here, 1);
	ck_assert_int_eq(fx.there, 0);
	end();
}
END_TEST

/* Both do them in turn, over many segments: no request is forgotten, and none is done by two. */
START_TEST(both_in_turn)
{
	begin(true);
	for (unsigned i = 0; i < 40; i++) {
		while (!pgr_syncer_has_room(fx.syncer))
			sched_yield();
		open_segment();
		for (unsigned j = 0; j < 25; j++) {
			put(1 + j);
			OK(pgr_syncer_request(fx.syncer, (i + j) % 3 != 0, &fx.err));
			if (j % 5 == 0)
				while (pgr_syncer_synced(fx.syncer) < fx.at)
					sched_yield();
		}
		if (i % 4 == 3) {
			OK(pgr_syncer_wait(fx.syncer, &fx.err));
			ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), fx.at);
		}
		OK(finish());
	}
	OK(pgr_syncer_wait(fx.syncer, &fx.err));
	ck_assert_uint_eq(pgr_syncer_synced(fx.syncer), FIRST + 40 * SEG);
	end();
	for (pgr_segno seg = FIRST / SEG; seg < fx.seg; seg++) {
		char name[PGR_WALNAME_LEN + 1];

		pgr_walname_format(name, 1, seg, SEG);
		ck_assert_msg(exists(name), "%s", name);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("syncer");
	TCase *tc = tcase_create("syncer");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, here_while_a_file_is_made);
	tcase_add_loop_test(tc, here_without_a_thread, 0, 2);
	tcase_add_test(tc, not_while_another_runs);
	tcase_add_test(tc, not_behind_finished_segments);
	tcase_add_loop_test(tc, failure_here, 0, 2);
	tcase_add_test(tc, both_in_turn);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? 0 : 1;
}
