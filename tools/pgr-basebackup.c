/*
 * pgr-basebackup: seeds a standby over PostgreSQL's own protocol.  Options, texts and exit codes are pg_basebackup's.
 */
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "backup/basebackup.h"
#include "backup/layout.h"
#include "backup/sql.h"
#include "common/fs.h"
#include "common/stop.h"
#include "common/sys.h"
#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/progress.h"
#include "tools/signals.h"
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
	{"dbname", required_argument, NULL, 'd'},
	{"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"username", required_argument, NULL, 'U'},
	{"no-password", no_argument, NULL, 'w'},
	{"password", no_argument, NULL, 'W'},
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
	{NULL, 0, NULL, 0},
};

#define MAX_JOBS 64
#define MAX_MEMORY_MB 65536

#define SHORT_OPTIONS "c:CD:F:i:j:l:nNPr:Rs:S:t:T:vVX:zZ:" PGR_CONN_SHORTOPTS

struct program {
	struct pgr_messages msg;
	struct pgr_progress_line line;
	struct pgr_basebackup_opts opts;
	struct pgr_conn_params conn;
	struct pgr_tblspc_map *mapping;
	char *data_dir;
	char *wal_dir;
	char label[128];
	bool show_progress;
	bool have_compress;
	bool error_said;
	bool print_grants;
	const char *grants_role; /* NULL: the role that connects */
	struct pgr_stop *stop;
	atomic_int rate_steps; /* see struct pgr_basebackup_opts */
};

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
	      "  -Z, --compress=none        do not compress tar output\n"
	      "\nGeneral options:\n"
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

static int output_option(struct program *p, int c, const char *arg, struct pgr_err *err)
{
	switch (c) {
	case 'D':
		return copy_path(arg, &p->data_dir, err);
	case 'F':
		return parse_format(arg, &p->opts.format, err);
	case 'i':
		return pgr_err_set(err, PGR_E_USAGE, "incremental backups are not supported by this version of pgr");
	case 'r':
		return parse_max_rate(arg, &p->opts.max_rate_kb, err);
	case 'R':
		p->opts.write_recovery_conf = true;
		return PGR_OK;
	case 't':
		return pgr_err_set(err, PGR_E_USAGE, "backup targets are not supported by this version of pgr");
	case 'T':
		return pgr_tblspc_map_add(&p->mapping, arg, err);
	case OPT_WALDIR:
		return copy_path(arg, &p->wal_dir, err);
	case 'X':
		return parse_wal_method(arg, &p->opts.wal, err);
	case 'z':
		p->have_compress = true;
		return pgr_compress_spec_parse(&p->opts.compress, "gzip", err);
	case 'Z':
		p->have_compress = true;
		return pgr_compress_spec_parse(&p->opts.compress, arg, err);
	default:
		return PGR_MORE;
	}
}

static int general_option(struct program *p, int c, const char *arg, struct pgr_err *err)
{
	int seconds, jobs, mb;

	switch (c) {
	case 'c':
		return parse_checkpoint(arg, &p->opts.fast_checkpoint, err);
	case 'C':
		p->opts.create_slot = true;
		return PGR_OK;
	case 'j':
		if (pgr_option_int(arg, "-j/--jobs", 1, MAX_JOBS, &jobs, err) != PGR_OK)
			return PGR_ERR;
		p->opts.jobs = (unsigned)jobs;
		return PGR_OK;
	case 'l':
		p->opts.label = arg;
		return PGR_OK;
	case 'n':
		p->opts.clean = false;
		return PGR_OK;
	case 'N':
		p->opts.sync = false;
		return PGR_OK;
	case 'P':
		p->show_progress = true;
		return PGR_OK;
	case 's':
		if (pgr_option_int(arg, "-s/--status-interval", 0, INT_MAX / 1000, &seconds, err) != PGR_OK)
			return PGR_ERR;
		p->opts.status_interval_ms = (int64_t)seconds * 1000;
		return PGR_OK;
	case 'S':
		p->opts.slot = arg;
		return PGR_OK;
	case 'v':
		p->msg.verbose++;
		return PGR_OK;
	case OPT_NO_SLOT:
		p->opts.no_slot = true;
		return PGR_OK;
	case OPT_MEMORY:
		if (pgr_option_int(arg, "--memory", 1, MAX_MEMORY_MB, &mb, err) != PGR_OK)
			return PGR_ERR;
		p->opts.pool_bytes = (size_t)mb << 20;
		return PGR_OK;
	case OPT_PRINT_GRANTS:
		p->print_grants = true;
		p->grants_role = arg;
		return PGR_OK;
	case OPT_SYNC_METHOD:
		return parse_sync_method(arg, &p->opts.sync_method, err);
	default:
		return PGR_MORE;
	}
}

static int manifest_option(struct program *p, int c, const char *arg)
{
	switch (c) {
	case OPT_NO_VERIFY_CHECKSUMS:
		p->opts.verify_checksums = false;
		return PGR_OK;
	case OPT_VERIFY_TRANSFER:
		p->opts.verify_transfer = true;
		return PGR_OK;
	case OPT_NO_ESTIMATE_SIZE:
		p->opts.estimate_size = false;
		return PGR_OK;
	case OPT_NO_MANIFEST:
		p->opts.manifest = false;
		return PGR_OK;
	case OPT_MANIFEST_FORCE_ENCODE:
		p->opts.manifest_force_encode = true;
		return PGR_OK;
	case OPT_MANIFEST_CHECKSUMS:
		p->opts.manifest_checksums = arg;
		return PGR_OK;
	default:
		return PGR_MORE;
	}
}

/* PGR_MORE: --help or --version was printed. */
static int parse_options(struct program *p, int argc, char **argv, struct pgr_err *err)
{
	const char *progname = p->msg.progname;
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
		if (c == '?') { /* getopt_long has said what is wrong */
			pgr_say_hint(&p->msg, "Try \"%s --help\" for more information.", progname);
			return pgr_err_set(err, PGR_E_USAGE, "%s", "");
		}
		if (pgr_conn_option(&p->conn, c, optarg))
			continue;
		rc = output_option(p, c, optarg, err);
		if (rc == PGR_MORE)
			rc = general_option(p, c, optarg, err);
		if (rc == PGR_MORE)
			rc = manifest_option(p, c, optarg);
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
static int check_injections(const struct program *p, bool to_stdout, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = &p->opts;

	if (o->compress.where != PGR_COMP_SERVER || o->compress.method == PGR_COMP_NONE)
		return PGR_OK;
	if (to_stdout && o->manifest) {
		pgr_err_set(err, PGR_E_USAGE, "cannot inject manifest into a compressed tar file");
		return pgr_err_hint(err,
				    "Use client-side compression, send the output to a directory rather than %s, "
				    "or use %s.",
				    "standard output", "--no-manifest");
	}
	if (o->write_recovery_conf) {
		pgr_err_set(err, PGR_E_USAGE, "cannot inject recovery configuration into a compressed tar file");
		return pgr_err_hint(err, "Use client-side compression.");
	}
	return PGR_OK;
}

static int check_format_options(const struct program *p, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = &p->opts;
	const char *progname = p->msg.progname;
	bool to_stdout = strcmp(p->data_dir, "-") == 0;

	if (o->format == PGR_FORMAT_PLAIN) {
		if (p->have_compress && o->compress.method != PGR_COMP_NONE && o->compress.where != PGR_COMP_SERVER)
			return usage_error(err, progname, "only tar mode backups can be compressed");
		return PGR_OK;
	}
	if (to_stdout && o->wal == PGR_WAL_STREAM)
		return usage_error(err, progname, "cannot stream write-ahead logs in tar mode to stdout");
	if (o->verify_transfer)
		return usage_error(err, progname, "%s and %s are incompatible options", "--verify-transfer",
				   "--format=tar");
	return check_injections(p, to_stdout, err);
}

static int check_slot_options(const struct program *p, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = &p->opts;
	const char *progname = p->msg.progname;

	if (o->slot != NULL && o->wal != PGR_WAL_STREAM)
		return usage_error(err, progname, "replication slots can only be used with WAL streaming");
	if (o->no_slot && o->slot != NULL)
		return usage_error(err, progname, "--no-slot cannot be used with slot name");
	if (o->create_slot && o->slot == NULL)
		return usage_error(err, progname, "%s needs a slot to be specified using --slot", "--create-slot");
	if (o->create_slot && o->no_slot)
		return usage_error(err, progname, "%s and %s are incompatible options", "--create-slot", "--no-slot");
	return PGR_OK;
}

static int check_manifest_options(const struct program *p, struct pgr_err *err)
{
	const struct pgr_basebackup_opts *o = &p->opts;
	const char *progname = p->msg.progname;

	if (p->show_progress && !o->estimate_size)
		return usage_error(err, progname, "%s and %s are incompatible options", "--progress",
				   "--no-estimate-size");
	if (!o->manifest && o->manifest_checksums != NULL)
		return usage_error(err, progname, "%s and %s are incompatible options", "--no-manifest",
				   "--manifest-checksums");
	if (!o->manifest && o->manifest_force_encode)
		return usage_error(err, progname, "%s and %s are incompatible options", "--no-manifest",
				   "--manifest-force-encode");
	return PGR_OK;
}

static int check_options(struct program *p, struct pgr_err *err)
{
	const char *progname = p->msg.progname;

	if (p->print_grants)
		return PGR_OK;
	if (p->data_dir == NULL)
		return usage_error(err, progname, "must specify output directory or backup target");
	if (check_format_options(p, err) != PGR_OK || check_slot_options(p, err) != PGR_OK)
		return PGR_ERR;
	if (p->wal_dir != NULL && p->opts.format == PGR_FORMAT_TAR)
		return usage_error(err, progname, "WAL directory location can only be specified in plain mode");
	if (p->wal_dir != NULL && p->wal_dir[0] != '/')
		return usage_error(err, progname, "WAL directory location must be an absolute path");
	return check_manifest_options(p, err);
}

/* ---- what the run tells us ---- */

static void on_info(void *arg, const char *line)
{
	struct program *p = arg;

	if (p->msg.verbose == 0)
		return;
	pgr_progress_line_end(&p->line);
	pgr_say_verbose(&p->msg, "%s", line);
}

static void on_say(void *arg, const char *line)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	pgr_say_info(&p->msg, "%s", line);
}

static void on_warning(void *arg, const char *line)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	pgr_say_warning(&p->msg, "%s", line);
}

static void on_notice(void *arg, const char *text)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	pgr_say_notice(&p->msg, text);
}

static void on_progress(void *arg, const struct pgr_progress *progress)
{
	struct program *p = arg;

	pgr_progress_line_show(&p->line, progress);
}

/* The reason comes before what the clean-up says. */
static void on_failed(void *arg, const struct pgr_err *err)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	pgr_say_error(&p->msg, err);
	p->error_said = true;
}

static void on_signal(void *arg, int signo)
{
	struct program *p = arg;
	struct pgr_err why;

	if (signo == SIGUSR1 || signo == SIGUSR2) {
		atomic_fetch_add(&p->rate_steps, signo == SIGUSR1 ? -1 : 1);
		return;
	}
	pgr_err_set(&why, PGR_E_STOPPED, "stopped by signal %d (%s)", signo, strsignal(signo));
	pgr_stop_post(p->stop, &why);
}

static void init_program(struct program *p, const char *argv0)
{
	pgr_messages_init(&p->msg, argv0);
	snprintf(p->label, sizeof(p->label), "%.64s base backup", p->msg.progname);
	p->conn.progname = p->msg.progname;
	p->conn.ask_password = pgr_prompt_password;
	p->opts = (struct pgr_basebackup_opts){
		.wal = PGR_WAL_STREAM,
		.label = p->label,
		.estimate_size = true,
		.manifest = true,
		.verify_checksums = true,
		.sync = true,
		.clean = true,
		.status_interval_ms = 10000,
		.rate_steps = &p->rate_steps,
		.info = on_info,
		.say = on_say,
		.warning = on_warning,
		.failed = on_failed,
		.notice = on_notice,
		.arg = p,
	};
}

/* The coordinator's session knows the version and who we are. */
static int print_grants(struct program *p, struct pgr_err *err)
{
	struct pgr_buf sql = {0};
	struct pgr_result *who = NULL;
	struct pgr_client *c;
	const char *role = p->grants_role;
	int rc;

	if (pgr_sql_open(&c, &p->conn, pgr_sys_real(), p->stop, on_notice, p, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_sql_query(c, &who, err, "SELECT current_user");
	if (rc == PGR_OK && role == NULL)
		role = pgr_result_cell(who, 0, 0, NULL);
	if (rc == PGR_OK)
		rc = pgr_sql_grants(&sql, pgr_client_version(c), role != NULL ? role : "", err);
	if (rc == PGR_OK && pgr_buf_str(&sql) != NULL)
		fputs((const char *)sql.data, stdout);
	pgr_result_free(who);
	pgr_buf_fini(&sql);
	pgr_client_free(c);
	return rc;
}

/* Runs the backup with signals turned into a stop; *signo is the signal that ended it, or 0. */
static int run(struct program *p, int *signo, struct pgr_err *err)
{
	struct pgr_signals *signals = NULL;
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	if (pgr_stop_new(&p->stop, err) != PGR_OK)
		return PGR_ERR;
	p->conn.ask_arg = p->stop; /* ^C at the password prompt */
	rc = pgr_signals_start(&signals, &set, on_signal, p, err);
	if (rc == PGR_OK && p->print_grants)
		rc = print_grants(p, err);
	else if (rc == PGR_OK)
		rc = pgr_basebackup_run(&p->opts, &p->conn, pgr_sys_real(), p->stop, err);
	if (rc != PGR_OK && signals != NULL)
		*signo = pgr_signals_seen(signals);
	pgr_signals_stop(signals);
	pgr_stop_free(p->stop);
	return rc;
}

static void free_program(struct program *p)
{
	pgr_conn_params_fini(&p->conn);
	pgr_tblspc_map_free(p->mapping);
	free(p->data_dir);
	free(p->wal_dir);
}

int main(int argc, char **argv)
{
	struct program p = {0};
	struct pgr_err err;
	int signo = 0;
	int rc;

	umask(027); /* modes are given explicitly; 0750 and 0640 are the most that is ever wanted */
	init_program(&p, argv[0]);
	rc = parse_options(&p, argc, argv, &err);
	if (rc == PGR_OK)
		rc = check_options(&p, &err);
	if (rc == PGR_OK) {
		p.opts.data_dir = p.data_dir;
		p.opts.wal_dir = p.wal_dir;
		p.opts.mapping = p.mapping;
		p.opts.progress = p.show_progress ? on_progress : NULL;
		pgr_progress_line_init(&p.line, p.msg.verbose > 0);
		rc = run(&p, &signo, &err);
		pgr_progress_line_end(&p.line);
	}
	if (rc == PGR_ERR && err.msg[0] != '\0' && !p.error_said)
		pgr_say_error(&p.msg, &err);
	free_program(&p);
	if (signo != 0)
		pgr_signals_die(signo);
	return rc == PGR_ERR ? 1 : 0;
}
