#include "tools/walverify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/fs_dir.h"
#include "common/sys.h"
#include "receiver/walcheck.h"

#define MAX_LINES   1000
#define MAX_THREADS 8

struct verify {
	int verbose;
	uint64_t told, kept;
};

static void on_finding(void *arg, enum pgr_walsay kind, const char *line)
{
	static const char *const prefix[] = {
		[PGR_WALSAY_PROBLEM] = "",
		[PGR_WALSAY_NOTE] = "note: ",
		[PGR_WALSAY_RANGE] = "",
	};
	struct verify *v = arg;

	if (kind == PGR_WALSAY_RANGE && v->verbose == 0)
		return;
	if (kind != PGR_WALSAY_RANGE && v->verbose == 0 && v->told >= MAX_LINES) {
		v->kept++;
		return;
	}
	v->told += kind != PGR_WALSAY_RANGE;
	printf("%s%s\n", prefix[kind], line);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void tell_summary(const struct verify *v, const struct pgr_walcheck_result *r)
{
	if (v->kept > 0)
		printf("%" PRIu64 " more lines are not shown without --verbose\n", v->kept);
	if (r->version != NULL)
		printf("WAL of PostgreSQL %s, system identifier %" PRIu64 ", segments of %" PRIu32 " MB\n", r->version,
		       r->system_id, r->segment_bytes >> 20);
	printf("%" PRIu64 " segment%s and %" PRIu64 " partial on %zu timeline%s, %" PGR_LSN_FMT " to %" PGR_LSN_FMT
	       ", %" PRIu64 " bytes read: ",
	       r->segments, plural(r->segments), r->partials, r->timelines, plural(r->timelines), PGR_LSN_ARG(r->begin),
	       PGR_LSN_ARG(r->end), r->bytes);
	if (r->problems == 0)
		puts("no problems");
	else
		printf("%" PRIu64 " problem%s\n", r->problems, plural(r->problems));
}

static int threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	if (n < 1)
		return 1;
	return n < MAX_THREADS ? (int)n : MAX_THREADS;
}

static int flush_output(struct pgr_err *err)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return pgr_err_sys(err, errno, "could not write to standard output");
	return PGR_OK;
}

static int check(struct verify *v, const struct pgr_sys *sys, int dirfd, const char *dir,
		 struct pgr_walcheck_result *res, struct pgr_err *err)
{
	struct pgr_walcheck_opts o = {
		.sys = sys,
		.dirfd = dirfd,
		.dir = dir,
		.threads = threads(),
		.say = on_finding,
		.arg = v,
	};

	if (pgr_walcheck(&o, res, err) != PGR_OK)
		return PGR_ERR;
	tell_summary(v, res);
	return flush_output(err);
}

int pgr_walverify(struct pgr_messages *msg, const struct pgr_sys *sys, const char *dir)
{
	struct verify v = {.verbose = msg->verbose};
	struct pgr_walcheck_result res;
	struct pgr_err err;
	int dirfd, rc;

	if (pgr_fs_open_dir(sys, dir, &dirfd, &err) != PGR_OK) {
		pgr_say_error(msg, &err);
		return 1;
	}
	rc = check(&v, sys, dirfd, dir, &res, &err);
	sys->close(sys, dirfd);
	if (rc != PGR_OK) {
		fflush(stdout);
		pgr_say_error(msg, &err);
		return 1;
	}
	return res.problems == 0 ? 0 : 2;
}
