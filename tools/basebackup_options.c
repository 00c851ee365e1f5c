#include "tools/basebackup_options.h"

#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backup/tblspc_map.h"
#include "common/path.h"
#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/version.h"

/* long options without a letter */
enum {
	OPT_HELP = 256,
	OPT_WALDIR,
	OPT_NO_SLOT,
	OPT_NO_VERIFY_CHECKSUMS,
	OPT_NO_ESTIMATE_SIZE,
	OPT_NO_MANIFEST,
	OPT_MANIFEST_FORCE_ENCODE,
	OPT_MANIFEST_CHECKSUMS,
	OPT_SYNC_METHOD,
	OPT_PRINT_GRANTS,
	OPT_MEMORY,
	OPT_VERIFY_TRANSFER,
	OPT_DELTA,
	OPT_KEEP,
	OPT_NO_KEEP,
	OPT_DRY_RUN,
	OPT_RETRY,
};

static const struct option long_options[] = {
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, 'V'},
	{"pgdata", required_argument, NULL, 'D'},
	{"format", required_argument, NULL, 'F'},
	{"incremental", required_argument, NULL, 'i'},
	{"checkpoint", required_argument, NULL, 'c'},
	{"create-slot", no_argument, NULL, 'C'},
	{"max-rate", required_argument, NULL, 'r'},
	{"write-recovery-conf", no_argument, NULL, 'R'},
	{"jobs", required_argument, NULL, 'j'},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"print-grants", optional_argument, NULL, OPT_PRINT_GRANTS},
	{"slot", required_argument, NULL, 'S'},
	{"target", required_argument, NULL, 't'},
	{"tablespace-mapping", required_argument, NULL, 'T'},
	{"wal-method", required_argument, NULL, 'X'},
	{"gzip", no_argument, NULL, 'z'},
	{"compress", required_argument, NULL, 'Z'},
	{"label", required_argument, NULL, 'l'},
	{"no-clean", no_argument, NULL, 'n'},
	{"no-sync", no_argument, NULL, 'N'},
	PGR_CONN_LONGOPTS,
	{"status-interval", required_argument, NULL, 's'},
	{"verbose", no_argument, NULL, 'v'},
	{"progress", no_argument, NULL, 'P'},
	{"waldir", required_argument, NULL, OPT_WALDIR},
	{"no-slot", no_argument, NULL, OPT_NO_SLOT},
	{"no-verify-checksums", no_argument, NULL, OPT_NO_VERIFY_CHECKSUMS},
	{"no-estimate-size", no_argument, NULL, OPT_NO_ESTIMATE_SIZE},
	{"no-manifest", no_argument, NULL, OPT_NO_MANIFEST},
	{"manifest-force-encode", no_argument, NULL, OPT_MANIFEST_FORCE_ENCODE},
	{"manifest-checksums", required_argument, NULL, OPT_MANIFEST_CHECKSUMS},
	{"sync-method", required_argument, NULL, OPT_SYNC_METHOD},
	{"verify-transfer", no_argument, NULL, OPT_VERIFY_TRANSFER},
	{"delta", optional_argument, NULL, OPT_DELTA},
	{"keep", required_argument, NULL, OPT_KEEP},
	{"no-keep", no_argument, NULL, OPT_NO_KEEP},
	{"dry-run", no_argument, NULL, OPT_DRY_RUN},
	{"retry", required_argument, NULL, OPT_RETRY},
	{NULL, 0, NULL, 0},
};

#define MAX_JOBS      64
#define MAX_MEMORY_MB 65536
#define MAX_RETRIES   1000000

#define SHORT_OPTIONS "c:CD:F:i:j:l:nNPr:Rs:S:t:T:vVX:zZ:" PGR_CONN_SHORTOPTS

static void usage(const char *progname)
{
	printf("%s takes a base backup of a running PostgreSQL server.\n\n", progname);
	printf("Usage:\n  %s [OPTION]...\n", progname);
	fputs("\nOptions controlling the output:\n"
	      "  -D, --pgdata=DIRECTORY     receive base backup into directory\n"
	      "  -F, --format=p|t           output format (plain (default), tar)\n"
	      "  -r, --max-rate=RATE        limit the transfer rate on the server\n"
	      "                             (in kB/s, or use suffix \"k\" or \"M\")\n"
	      "  -R, --write-recovery-conf  write configuration for replication\n"
	      "  -T, --tablespace-mapping=OLDDIR=NEWDIR\n"
	      "                             relocate tablespace in OLDDIR to NEWDIR\n"
	      "      --waldir=WALDIR        location for the write-ahead log directory\n"
	      "  -X, --wal-method=none|fetch|stream\n"
	      "                             include required WAL files with specified method\n"
	      "  -z, --gzip                 compress tar output\n"
	      "  -Z, --compress=[{client|server}-]METHOD[:DETAIL]\n"
	      "                             compress on client or server (gzip, lz4, zstd) as specified\n"
	      "  -Z, --compress=none        do not compress tar output\n",
	      stdout);
	fputs("\nOptions for a directory that holds something already:\n"
	      "      --delta[=hash|summary]\n"
	      "                             make it equal to the server's: copy only what differs, go on with\n"
	      "                             what an interrupted run left\n"
	      "      --dry-run              tell what --delta would copy and remove; change nothing\n"
	      "      --keep=PATTERN         leave local files whose names match as they are\n"
	      "      --no-keep              replace postgresql.conf, pg_hba.conf and pg_ident.conf, too\n"
	      "      --retry=N              run up to N times more after failures that may pass\n",
	      stdout);
	fputs("\nGeneral options:\n"
	      "  -c, --checkpoint=fast|spread\n"
	      "                             set fast or spread (default) checkpointing\n"
	      "  -C, --create-slot          create replication slot\n"
	      "  -j, --jobs=N               copy over N SQL sessions (1: one replication stream;\n"
	      "                             default: 4 where the role may read files, otherwise 1)\n"
	      "  -l, --label=LABEL          set backup label\n"
	      "  -n, --no-clean             do not clean up after errors\n"
	      "  -N, --no-sync              do not wait for changes to be written safely to disk\n"
	      "  -P, --progress             show progress information\n"
	      "  -S, --slot=SLOTNAME        replication slot to use\n"
	      "  -v, --verbose              output verbose messages\n"
	      "  -V, --version              output version information, then exit\n"
	      "      --manifest-checksums=SHA{224,256,384,512}|CRC32C|NONE\n"
	      "                             use algorithm for manifest checksums\n"
	      "      --manifest-force-encode\n"
	      "                             hex encode all file names in manifest\n"
	      "      --memory=MB            memory for data on its way to the disk (default: 32)\n"
	      "      --no-estimate-size     do not estimate backup size on the server\n"
	      "      --no-manifest          suppress generation of backup manifest\n"
	      "      --no-slot              prevent creation of temporary replication slot\n"
	      "      --no-verify-checksums  do not verify checksums\n"
	      "      --print-grants[=ROLE]  print the SQL that permits ROLE to use --jobs, then exit\n"
	      "      --sync-method=METHOD   set method for syncing files to disk (fsync, syncfs)\n"
	      "      --verify-transfer      compare all that comes with digests of the server\n"
	      "  -?, --help                 show this help, then exit\n"
	      "\nConnection options:\n"
	      "  -d, --dbname=CONNSTR       connection string\n"
	      "  -h, --host=HOSTNAME        database server host or socket directory\n"
	      "  -p, --port=PORT            database server port number\n"
	      "  -s, --status-interval=INTERVAL\n"
	      "                             time between status packets sent to server (in seconds)\n"
	      "  -U, --username=NAME        connect as specified database user\n"
	      "  -w, --no-password          never prompt for password\n"
	      "  -W, --password             force password prompt (should happen automatically)\n",
	      stdout);
}

static void print_version(const char *progname)
{
	/* tools read a PostgreSQL version from the program they know */
	if (strcmp(progname, "pg_basebackup") == 0)
		printf("%s (PostgreSQL) %s (pgr %s)\n", progname, PGR_COMPAT_VERSION, PGR_VERSION);
	else
		printf("%s (pgr) %s\n", progname, PGR_VERSION);
}

static int usage_error(struct pgr_err *err, const char *progname, const char *fmt, ...) PGR_PRINTF(3, 4);
static int usage_error(struct pgr_err *err, const char *progname, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pgr_err_vset(err, PGR_E_USAGE, fmt, ap);
	va_end(ap);
	return pgr_err_hint(err, "Try \"%s --help\" for more information.", progname);
}

/* ---- arguments of single options ---- */

#define MAX_RATE_LOWER 32u
#define MAX_RATE_UPPER 1048576u

/* src/bin/pg_basebackup/pg_basebackup.c, parse_max_rate: kB/s, or with a suffix k or M. */
static int parse_max_rate(const char *arg, uint32_t *out, struct pgr_err *err)
{
	char *end;
	double rate = strtod(arg, &end);
	const char *suffix;

	if (end == arg)
		return pgr_err_set(err, PGR_E_USAGE, "transfer rate \"%s\" is not a valid value", arg);
	if (!(rate > 0) || !isfinite(rate))
		return pgr_err_set(err, PGR_E_USAGE, "transfer rate must be greater than zero");
	while (*end == ' ' || *end == '\t')
		end++;
	suffix = end;
	if (*end == 'M') {
		rate *= 1024.0;
		end++;
	} else if (*end == 'k') {
		end++;
	}
	while (*end == ' ' || *end == '\t')
		end++;
	if (*end != '\0')
		return pgr_err_set(err, PGR_E_USAGE, "invalid --max-rate unit: \"%s\"", suffix);
	if (rate < MAX_RATE_LOWER || rate > MAX_RATE_UPPER)
		return pgr_err_set(err, PGR_E_USAGE, "transfer rate \"%s\" is out of range", arg);
	*out = (uint32_t)rate;
	return PGR_OK;
}

static int parse_format(const char *arg, enum pgr_format *out, struct pgr_err *err)
{
	if (strcmp(arg, "p") == 0 || strcmp(arg, "plain") == 0)
		*out = PGR_FORMAT_PLAIN;
	else if (strcmp(arg, "t") == 0 || strcmp(arg, "tar") == 0)
		*out = PGR_FORMAT_TAR;
	else
		return pgr_err_set(err, PGR_E_USAGE, "invalid output format \"%s\", must be \"plain\" or \"tar\"", arg);
	return PGR_OK;
}

static int parse_wal_method(const char *arg, enum pgr_wal_method *out, struct pgr_err *err)
{
	static const struct {
		const char *letter, *word;
		enum pgr_wal_method method;
	} methods[] = {{"n", "none", PGR_WAL_NONE}, {"f", "fetch", PGR_WAL_FETCH}, {"s", "stream", PGR_WAL_STREAM}};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strcmp(arg, methods[i].letter) == 0 || strcmp(arg, methods[i].word) == 0) {
			*out = methods[i].method;
			return PGR_OK;
		}
	}
	return pgr_err_set(err, PGR_E_USAGE,
			   "invalid wal-method option \"%s\", must be \"fetch\", \"stream\", or \"none\"", arg);
}

static int parse_checkpoint(const char *arg, bool *fast, struct pgr_err *err)
{
	*fast = strcasecmp(arg, "fast") == 0;
	if (*fast || strcasecmp(arg, "spread") == 0)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_USAGE, "invalid checkpoint argument \"%s\", must be \"fast\" or \"spread\"", arg);
}

static int parse_sync_method(const char *arg, enum pgr_sync_method *out, struct pgr_err *err)
{
	if (strcmp(arg, "fsync") == 0)
		*out = PGR_SYNC_FSYNC;
	else if (strcmp(arg, "syncfs") == 0)
		*out = PGR_SYNC_SYNCFS;
	else
		return pgr_err_set(err, PGR_E_USAGE, "unrecognized sync method: %s", arg);
	return PGR_OK;
}

static int copy_path(const char *arg, char **out, struct pgr_err *err)
{
	free(*out);
	*out = strdup(arg);
	if (*out == NULL)
		return pgr_err_nomem(err);
	pgr_path_canonicalize(*out);
	return PGR_OK;
}

/* ---- the option table ---- */

static int output_option(struct pgr_basebackup_options *o, int c, const char *arg, struct pgr_err *err)
{
	switch (c) {
	case 'D':
		return copy_path(arg, &o->data_dir, err);
	case 'F':
		return parse_format(arg, &o->run.format, err);
	case 'i':
		return pgr_err_set(err, PGR_E_USAGE, "incremental backups are not supported by this version of pgr");
	case 'r':
		return parse_max_rate(arg, &o->run.max_rate_kb, err);
	case 'R':
		o->run.write_recovery_conf = true;
		return PGR_OK;
	case 't':
		return pgr_err_set(err, PGR_E_USAGE, "backup targets are not supported by this version of pgr");
	case 'T':
		return pgr_tblspc_map_add(&o->mapping, arg, err);
	case OPT_WALDIR:
		return copy_path(arg, &o->wal_dir, err);
	case 'X':
		return parse_wal_method(arg, &o->run.wal, err);
	case 'z':
		o->have_compress = true;
		return pgr_compress_spec_parse(&o->run.compress, "gzip", err);
	case 'Z':
		o->have_compress = true;
		return pgr_compress_spec_parse(&o->run.compress, arg, err);
	default:
		return PGR_MORE;
	}
}

static int general_option(struct pgr_basebackup_options *o, int c, const char *arg, struct pgr_err *err)
{
	int seconds, jobs, mb;

	switch (c) {
	case 'c':
		return parse_checkpoint(arg, &o->run.fast_checkpoint, err);
	case 'C':
		o->run.create_slot = true;
		return PGR_OK;
	case 'j':
		if (pgr_option_int(arg, "-j/--jobs", 1, MAX_JOBS, &jobs, err) != PGR_OK)
			return PGR_ERR;
		o->run.jobs = (unsigned)jobs;
		return PGR_OK;
	case 'l':
		o->run.label = arg;
		return PGR_OK;
	case 'n':
		o->run.clean = false;
		return PGR_OK;
	case 'N':
		o->run.sync = false;
		return PGR_OK;
	case 'P':
		o->show_progress = true;
		return PGR_OK;
	case 's':
		if (pgr_option_int(arg, "-s/--status-interval", 0, INT_MAX / 1000, &seconds, err) != PGR_OK)
			return PGR_ERR;
		o->run.status_interval_ms = (int64_t)seconds * 1000;
		return PGR_OK;
	case 'S':
		o->run.slot = arg;
		return PGR_OK;
	case 'v':
		o->verbose++;
		return PGR_OK;
	case OPT_NO_SLOT:
		o->run.no_slot = true;
		return PGR_OK;
	case OPT_MEMORY:
		if (pgr_option_int(arg, "--memory", 1, MAX_MEMORY_MB, &mb, err) != PGR_OK)
			return PGR_ERR;
		o->run.pool_bytes = (size_t)mb << 20;
		return PGR_OK;
	case OPT_PRINT_GRANTS:
		o->print_grants = true;
		o->grants_role = arg;
		return PGR_OK;
	case OPT_SYNC_METHOD:
		return parse_sync_method(arg, &o->run.sync_method, err);
	default:
		return PGR_MORE;
	}
}

static int manifest_option(struct pgr_basebackup_options *o, int c, const char *arg)
{
	switch (c) {
	case OPT_NO_VERIFY_CHECKSUMS:
		o->run.verify_checksums = false;
		return PGR_OK;
	case OPT_VERIFY_TRANSFER:
		o->run.verify_transfer = true;
		return PGR_OK;
	case OPT_NO_ESTIMATE_SIZE:
		o->run.estimate_size = false;
		return PGR_OK;
	case OPT_NO_MANIFEST:
		o->run.manifest = false;
		return PGR_OK;
	case OPT_MANIFEST_FORCE_ENCODE:
		o->run.manifest_force_encode = true;
		return PGR_OK;
	case OPT_MANIFEST_CHECKSUMS:
		o->run.manifest_checksums = arg;
		return PGR_OK;
	default:
		return PGR_MORE;
	}
}

static int parse_delta(const char *arg, enum pgr_delta *out, struct pgr_err *err)
{
	if (arg == NULL)
		*out = PGR_DELTA_AUTO;
	else if (strcmp(arg, "hash") == 0)
		*out = PGR_DELTA_HASH;
	else if (strcmp(arg, "summary") == 0)
		*out = PGR_DELTA_SUMMARY;
	else
		return pgr_err_set(err, PGR_E_USAGE, "invalid delta method \"%s\", must be \"hash\" or \"summary\"",
				   arg);
	return PGR_OK;
}

static int add_keep(struct pgr_basebackup_options *o, const char *pattern, struct pgr_err *err)
{
	size_t n = o->run.keep.n;
	const char **more;

	if (pgr_keep_check(pattern, err) != PGR_OK)
		return PGR_ERR;
	more = realloc(o->keep, (n + 1) * sizeof(*more));
	if (more == NULL)
		return pgr_err_nomem(err);
	more[n] = pattern;
	o->keep = more;
	o->run.keep.patterns = more;
	o->run.keep.n = n + 1;
	return PGR_OK;
}

static int delta_option(struct pgr_basebackup_options *o, int c, const char *arg, struct pgr_err *err)
{
	int retries;

	switch (c) {
	case OPT_DELTA:
		return parse_delta(arg, &o->run.delta, err);
	case OPT_KEEP:
		return add_keep(o, arg, err);
	case OPT_NO_KEEP:
		o->run.keep.no_defaults = true;
		return PGR_OK;
	case OPT_DRY_RUN:
		o->run.dry_run = true;
		return PGR_OK;
	case OPT_RETRY:
		if (pgr_option_int(arg, "--retry", 0, MAX_RETRIES, &retries, err) != PGR_OK)
			return PGR_ERR;
		o->retries = (unsigned)retries;
		return PGR_OK;
	default:
		return PGR_MORE;
	}
}

/* PGR_MORE: --help or --version was printed.  An error without a message: getopt_long has said what is wrong. */
static int read_options(struct pgr_basebackup_options *o, int argc, char **argv, struct pgr_err *err)
{
	const char *progname = o->conn.progname;
	int c, rc;

	if (argc > 1 && strcmp(argv[1], "-?") == 0) { /* only here: elsewhere getopt takes it for a wrong option */
		usage(progname);
		return PGR_MORE;
	}
	while ((c = getopt_long(argc, argv, SHORT_OPTIONS, long_options, NULL)) != -1) {
		if (c == 'V') {
			print_version(progname);
			return PGR_MORE;
		}
		if (c == OPT_HELP) {
			usage(progname);
			return PGR_MORE;
		}
		if (c == '?')
			return pgr_err_set(err, PGR_E_USAGE, "%s", "");
		if (pgr_conn_option(&o->conn, c, optarg))
			continue;
		rc = output_option(o, c, optarg, err);
		if (rc == PGR_MORE)
			rc = general_option(o, c, optarg, err);
		if (rc == PGR_MORE)
			rc = manifest_option(o, c, optarg);
		if (rc == PGR_MORE)
			rc = delta_option(o, c, optarg, err);
		if (rc != PGR_OK)
			return PGR_ERR;
	}
	if (optind < argc)
		return usage_error(err, progname, "too many command-line arguments (first is \"%s\")", argv[optind]);
	return PGR_OK;
}

/* ---- what goes with what ---- */

/*
 * What the server compresses is passed on as it comes: nothing can be put into it.  The stock tool says so when the
 * server has made its checkpoint, or, of -R, in other words.
 */
static int check_injections(const struct pgr_basebackup_options *o, bool to_stdout, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *run = &o->run;

	if (run->compress.where != PGR_COMP_SERVER || run->compress.method == PGR_COMP_NONE)
		return PGR_OK;
	if (to_stdout && run->manifest) {
		pgr_err_set(err, PGR_E_USAGE, "cannot inject manifest into a compressed tar file");
		return pgr_err_hint(err,
				    "Use client-side compression, send the output to a directory rather than %s, "
				    "or use %s.",
				    "standard output", "--no-manifest");
	}
	if (run->write_recovery_conf) {
		pgr_err_set(err, PGR_E_USAGE, "cannot inject recovery configuration into a compressed tar file");
		return pgr_err_hint(err, "Use client-side compression.");
	}
	return PGR_OK;
}

static int check_format_options(const struct pgr_basebackup_options *o, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *run = &o->run;
	const char *progname = o->conn.progname;
	bool to_stdout = strcmp(o->data_dir, "-") == 0;

	if (run->format == PGR_FORMAT_PLAIN) {
		if (o->have_compress && run->compress.method != PGR_COMP_NONE && run->compress.where != PGR_COMP_SERVER)
			return usage_error(err, progname, "only tar mode backups can be compressed");
		return PGR_OK;
	}
	if (to_stdout && run->wal == PGR_WAL_STREAM)
		return usage_error(err, progname, "cannot stream write-ahead logs in tar mode to stdout");
	if (run->verify_transfer)
		return usage_error(err, progname, "%s and %s are incompatible options", "--verify-transfer",
				   "--format=tar");
	return check_injections(o, to_stdout, err);
}

static int check_slot_options(const struct pgr_basebackup_options *o, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *run = &o->run;
	const char *progname = o->conn.progname;

	if (run->slot != NULL && run->wal != PGR_WAL_STREAM)
		return usage_error(err, progname, "replication slots can only be used with WAL streaming");
	if (run->no_slot && run->slot != NULL)
		return usage_error(err, progname, "--no-slot cannot be used with slot name");
	if (run->create_slot && run->slot == NULL)
		return usage_error(err, progname, "%s needs a slot to be specified using --slot", "--create-slot");
	if (run->create_slot && run->no_slot)
		return usage_error(err, progname, "%s and %s are incompatible options", "--create-slot", "--no-slot");
	return PGR_OK;
}

static int check_manifest_options(const struct pgr_basebackup_options *o, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *run = &o->run;
	const char *progname = o->conn.progname;

	if (o->show_progress && !run->estimate_size)
		return usage_error(err, progname, "%s and %s are incompatible options", "--progress",
				   "--no-estimate-size");
	if (!run->manifest && run->manifest_checksums != NULL)
		return usage_error(err, progname, "%s and %s are incompatible options", "--no-manifest",
				   "--manifest-checksums");
	if (!run->manifest && run->manifest_force_encode)
		return usage_error(err, progname, "%s and %s are incompatible options", "--no-manifest",
				   "--manifest-force-encode");
	return PGR_OK;
}

/* What --delta=hash cannot do: the reading of files over SQL is what it is made of. */
static const char *in_the_way_of_hash(const struct pgr_basebackup_opts *run)
{
	if (run->jobs == 1)
		return "--jobs=1";
	if (run->wal == PGR_WAL_FETCH)
		return "--wal-method=fetch";
	if (run->compress.where == PGR_COMP_SERVER && run->compress.method != PGR_COMP_NONE)
		return "compression on the server";
	return NULL;
}

/* What makes no sense without --delta. */
static const char *needs_delta(const struct pgr_basebackup_options *o)
{
	if (o->run.dry_run)
		return "--dry-run";
	if (o->run.keep.n > 0)
		return "--keep";
	if (o->run.keep.no_defaults)
		return "--no-keep";
	return o->retries > 0 ? "--retry" : NULL;
}

static int check_delta_options(const struct pgr_basebackup_options *o, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *run = &o->run;
	const char *progname = o->conn.progname;

	if (run->delta == PGR_DELTA_OFF && needs_delta(o) != NULL)
		return usage_error(err, progname, "%s can only be used with %s", needs_delta(o), "--delta");
	if (run->delta == PGR_DELTA_OFF)
		return PGR_OK;
	if (run->format != PGR_FORMAT_PLAIN)
		return usage_error(err, progname, "%s and %s are incompatible options", "--delta", "--format=tar");
	if (run->delta == PGR_DELTA_HASH && in_the_way_of_hash(run) != NULL)
		return usage_error(err, progname, "%s and %s are incompatible options", "--delta=hash",
				   in_the_way_of_hash(run));
	return PGR_OK;
}

static int check_options(const struct pgr_basebackup_options *o, struct pgr_err *err)
{
	const char *progname = o->conn.progname;

	if (o->print_grants)
		return PGR_OK;
	if (o->data_dir == NULL)
		return usage_error(err, progname, "must specify output directory or backup target");
	if (check_delta_options(o, err) != PGR_OK || check_format_options(o, err) != PGR_OK ||
	    check_slot_options(o, err) != PGR_OK)
		return PGR_ERR;
	if (o->wal_dir != NULL && o->run.format == PGR_FORMAT_TAR)
		return usage_error(err, progname, "WAL directory location can only be specified in plain mode");
	if (o->wal_dir != NULL && o->wal_dir[0] != '/')
		return usage_error(err, progname, "WAL directory location must be an absolute path");
	return check_manifest_options(o, err);
}

/* ---- the whole ---- */

static void set_defaults(struct pgr_basebackup_options *o, const char *progname)
{
	*o = (struct pgr_basebackup_options){.conn.progname = progname};
	snprintf(o->label, sizeof(o->label), "%.64s base backup", progname);
	o->run = (struct pgr_basebackup_opts){
		.wal = PGR_WAL_STREAM,
		.label = o->label,
		.estimate_size = true,
		.manifest = true,
		.verify_checksums = true,
		.sync = true,
		.clean = true,
		.status_interval_ms = 10000,
	};
}

int pgr_basebackup_options_read(struct pgr_basebackup_options *o, struct pgr_messages *msg, int argc, char **argv)
{
	struct pgr_err err;
	int rc;

	set_defaults(o, msg->progname);
	rc = read_options(o, argc, argv, &err);
	if (rc == PGR_MORE)
		return 0;
	if (rc == PGR_OK)
		rc = check_options(o, &err);
	if (rc == PGR_OK) {
		o->run.data_dir = o->data_dir;
		o->run.wal_dir = o->wal_dir;
		o->run.mapping = o->mapping;
		return -1;
	}
	if (err.msg[0] != '\0')
		pgr_say_error(msg, &err);
	else
		pgr_say_hint(msg, "Try \"%s --help\" for more information.", msg->progname);
	return 1;
}

void pgr_basebackup_options_fini(struct pgr_basebackup_options *o)
{
	pgr_conn_params_fini(&o->conn);
	pgr_tblspc_map_free(o->mapping);
	free(o->keep);
	free(o->data_dir);
	free(o->wal_dir);
}
