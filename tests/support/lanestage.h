/*
 * What the tests of lanes share: a server of files (fileserver.h), a place for the copy with two tablespaces, one of
 * them in place, and all that a run of lanes works with.  Failures end the test.
 */
#ifndef PGR_TESTS_LANESTAGE_H
#define PGR_TESTS_LANESTAGE_H

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "backup/bbstream.h"
#include "backup/dirsink.h"
#include "backup/filelist.h"
#include "backup/lanes.h"
#include "backup/layout.h"
#include "backup/pagecheck.h"
#include "backup/tblspc_map.h"
#include "common/block.h"
#include "common/digest.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/fileserver.h"
#include "tests/support/tmptree.h"

#define BLOCK ((size_t)256 * 1024)

static struct tmptree tree;
static char src_dir[128], dst_dir[128];
static struct pgr_fault_sys fault; /* what the lanes work with */
static struct pgr_stop *stop;
static struct fileserver server;
static struct pgr_pool *pool;
static struct pgr_dirsink *sink;
static struct pgr_layout *layout;
static struct pgr_tblspc_map *mapping;
static struct pgr_pagecheck *pages;
static struct pgr_filelist list;
static struct pgr_list_entry entries[64]; /* of the list */
static struct pgr_lanes_opts opts;
static struct pgr_lanes *lanes;
static struct pgr_err err;
static unsigned fds;

static inline void must(int rc)
{
	ck_assert_msg(rc == PGR_OK, "%s", err.msg);
}

/* ---- files ---- */

static inline void make_dirs(const char *root, const char *path)
{
	char name[300];

	for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		snprintf(name, sizeof(name), "%s/%.*s", root, (int)(slash - path), path);
		if (mkdir(name, 0700) != 0)
			ck_assert_int_eq(errno, EEXIST);
	}
}

/* Where a file of the list is copied to. */
static inline const char *copy_name(const char *path, char *name, size_t size)
{
	if (strncmp(path, "pg_tblspc/16400/", 16) == 0)
		snprintf(name, size, "%s/ts/%s", tree.path, path + 16);
	else
		snprintf(name, size, "%s/%s", dst_dir, path);
	return name;
}

/* Content by which bytes of another file or another place are seen. */
static inline unsigned seed_of(const char *path)
{
	return (uint8_t)path[strlen(path) - 1] * 31u + 7;
}

static inline uint8_t byte_at(unsigned seed, uint64_t off)
{
	return (uint8_t)(off * 5 + (off >> 8) + (off >> 15) * 77 + seed);
}

/* So many bytes of a copy are not these, up to what the server has of the file (`real`), or zeros behind that. */
static inline uint64_t wrong_bytes(const char *path, uint64_t size, uint64_t real, const uint8_t *data)
{
	uint64_t come = size < real ? size : real, wrong = 0;
	unsigned seed = seed_of(path);

	for (uint64_t i = 0; i < come; i++)
		wrong += data[i] != byte_at(seed, i);
	for (uint64_t i = come; i < size; i++)
		wrong += data[i] != 0;
	return wrong;
}

/* ---- the stage ---- */

static inline void stage_begin(unsigned jobs)
{
	tmp_make(&tree);
	fds = tmp_open_fds();
	snprintf(src_dir, sizeof(src_dir), "%s/src", tree.path);
	snprintf(dst_dir, sizeof(dst_dir), "%s/dst", tree.path);
	tmp_mkdir(&tree, "src", 0700);
	must(pgr_stop_new(&stop, &err));
	fileserver_init(&server, src_dir, stop);
	pool = NULL;
	sink = NULL;
	layout = NULL;
	mapping = NULL;
	pages = NULL;
	lanes = NULL;
	memset(entries, 0, sizeof(entries));
	list = (struct pgr_filelist){.entries = entries};
	opts = (struct pgr_lanes_opts){.jobs = jobs, .digest = PGR_DIGEST_CRC32C};
}

/* Everything but the server and what it has. */
static inline void stage_let_go(void)
{
	pgr_dirsink_free(sink);
	pgr_lanes_free(lanes);
	pgr_layout_free(layout);
	pgr_pool_free(pool); /* asserts that all blocks are back */
	pgr_tblspc_map_free(mapping);
	pgr_pagecheck_free(pages);
	sink = NULL;
	lanes = NULL;
	layout = NULL;
	pool = NULL;
	mapping = NULL;
	pages = NULL;
}

static inline void stage_end(void)
{
	stage_let_go();
	fileserver_fini(&server);
	pgr_stop_free(stop);
	for (size_t i = 0; i < list.n; i++)
		free(entries[i].path);
	ck_assert_uint_eq(tmp_open_fds(), fds);
	tmp_remove(&tree);
}

/* The layout with the list's directories. */
static inline void stage_layout(void)
{
	struct pgr_layout_opts lo = {.data_dir = dst_dir, .dir_mode = 0700, .file_mode = 0640};
	static char location[] = "/srv/ts", in_place[] = "pg_tblspc/16401", nowhere[] = "";
	const struct pgr_bb_tablespace spaces[3] = {{16400, location, -1}, {16401, in_place, -1}, {0, nowhere, -1}};
	char arg[300];

	snprintf(arg, sizeof(arg), "/srv/ts=%s/ts", tree.path);
	must(pgr_tblspc_map_add(&mapping, arg, &err));
	lo.mapping = mapping;
	must(pgr_layout_new(&layout, pgr_sys_real(), &lo, &err));
	must(pgr_layout_prepare(layout, &err));
	must(pgr_layout_prepare_tablespaces(layout, spaces, 3, &err));
	for (size_t i = 0; i < list.n; i++)
		if (strncmp(entries[i].path, "pg_tblspc/16400/", 16) == 0)
			make_dirs(tmp_at(&tree, "ts"), entries[i].path + 16);
		else
			make_dirs(dst_dir, entries[i].path);
}

static inline void stage_sink(const struct pgr_sys *sys, unsigned writers)
{
	struct pgr_dirsink_opts so = {.writers = writers, .sync = true};

	must(pgr_pool_new(&pool, opts.jobs + 4, BLOCK, stop, &err));
	must(pgr_dirsink_new(&sink, sys, pool, stop, &so, &err));
}

static inline int stage_open_session(void *arg, struct pgr_client **out, struct pgr_err *e)
{
	(void)arg;
	return fileserver_open(&server, out, e);
}

/* The lanes, of what there is by then; the rest of `opts` is the test's. */
static inline void stage_lanes(void)
{
	opts.list = &list;
	opts.layout = layout;
	opts.pool = pool;
	opts.sink = sink;
	opts.pages = pages;
	if (opts.open_session == NULL)
		opts.open_session = stage_open_session;
	must(pgr_lanes_new(&lanes, &opts, &fault.sys, stop, &err));
}

/* What the lanes say of file `i` is true of this content. */
static inline void stage_check_sum(size_t i, const void *data, size_t size)
{
	struct pgr_lane_result r;
	uint8_t sum[PGR_DIGEST_MAX];
	struct pgr_digest *d;
	size_t n;

	must(pgr_lanes_result(lanes, i, &r, &err));
	ck_assert_msg(r.copied, "%s", entries[i].path);
	ck_assert_uint_eq(r.size, size);
	must(pgr_digest_new(&d, opts.digest, &err));
	must(pgr_digest_add(d, data, size, &err));
	must(pgr_digest_end(d, sum, &n, &err));
	pgr_digest_free(d);
	ck_assert_uint_eq(r.sum_len, n);
	ck_assert_msg(memcmp(r.sum, sum, n) == 0, "sum of %s", entries[i].path);
}

#endif
