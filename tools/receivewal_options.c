#include "tools/receivewal_options.h"

#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/version.h"

enum {
	OPT_CREATE_SLOT = 256,
	OPT_DROP_SLOT,
	OPT_IF_NOT_EXISTS,
	OPT_SYNCHRONOUS,
	OPT_NO_SYNC,
	OPT_VERIFY,
	OPT_STARTPOS,
	OPT_ENSURE_SLOT,
	OPT_GIVE_UP,
	OPT_HELP
};

static void usage(const char *progname)
{
	printf("%s receives PostgreSQL streaming write-ahead logs.\n\n"
	       "Usage:\n"
	       "  %s [OPTION]...\n",
	       progname, progname);
	fputs("\nOptions:\n"
	      "  -D, --directory=DIR    receive write-ahead log files into this directory\n"
	      "  -E, --endpos=LSN       exit after receiving the specified LSN\n"
	      "      --ensure-slot      create the slot named by --slot if it is not there, then receive\n"
	      "      --give-up=SECS     how long to try again when the server does not have the WAL that is\n"
	      "                         needed, or is behind the directory (default: 300)\n"
	      "      --if-not-exists    do not error if slot already exists when creating a slot\n"
	      "  -n, --no-loop          do not loop on connection lost\n"
	      "      --no-sync          do not wait for changes to be written safely to disk\n"
	      "  -s, --status-interval=SECS\n"
	      "                         time between status packets sent to server (default: 10)\n"
	      "  -S, --slot=SLOTNAME    replication slot to use\n"
	      "      --startpos=LSN     start at this position in a directory without WAL\n"
	      "      --synchronous      flush write-ahead log immediately after writing\n"
	      "  -v, --verbose          output verbose messages\n"
	      "  -V, --version          output version information, then exit\n"
	      "  -Z, --compress=METHOD[:DETAIL]\n"
	      "                         compress as specified (gzip, lz4, zstd or none)\n"
	      "  -?, --help             show this help, then exit\n",
	      stdout);
	fputs("\nConnection options:\n"
	      "  -d, --dbname=CONNSTR   connection string\n"
	      "  -h, --host=HOSTNAME    database server host or socket directory\n"
	      "  -p, --port=PORT        database server port number\n"
	      "  -U, --username=NAME    connect as specified database user\n"
	      "  -w, --no-password      never prompt for password\n"
	      "  -W, --password         force password prompt (should happen automatically)\n"
	      "\nOptional actions:\n"
	      "      --create-slot      create a new replication slot (for the slot's name see --slot)\n"
	      "      --drop-slot        drop the replication slot (for the slot's name see --slot)\n"
	      "      --verify           check the WAL in the directory, without a connection\n",
	      stdout);
}

/* Scripts look for the form that PostgreSQL's own program has when they call it by that name. */
static void version(const char *progname)
{
	if (strcmp(progname, "pg_receivewal") == 0)
		puts("pg_receivewal (PostgreSQL) " PGR_COMPAT_VERSION " (pgr " PGR_VERSION ")");
	else
		puts("pgr-receivewal (pgr) " PGR_VERSION " (compatible with pg_receivewal " PGR_COMPAT_VERSION ")");
}

static int set_option(struct pgr_receivewal_options *o, int c, const char *arg, struct pgr_err *err)
{
	switch (c) {
	case 'D':
		o->dir = arg;
		break;
	case 'E':
		if (!pgr_lsn_parse(arg, strlen(arg), &o->endpos))
			return pgr_err_set(err, PGR_E_USAGE, "could not parse end position \"%s\"", arg);
		break;
	case OPT_STARTPOS:
		if (!pgr_lsn_parse(arg, strlen(arg), &o->startpos) || o->startpos == PGR_LSN_INVALID)
			return pgr_err_set(err, PGR_E_USAGE, "could not parse start position \"%s\"", arg);
		break;
	case OPT_GIVE_UP:
		return pgr_option_int(arg, "--give-up", 0, INT_MAX / 1000, &o->give_up_s, err);
	case OPT_ENSURE_SLOT:
		o->ensure_slot = true;
		break;
	case 'n':
		o->no_loop = true;
		break;
	case 's':
		return pgr_option_int(arg, "-s/--status-interval", 0, INT_MAX / 1000, &o->status_interval_s, err);
	case 'S':
		o->slot = arg;
		break;
	case 'v':
		o->verbose++;
		break;
	case 'V':
		o->version = true;
		break;
	case 'Z':
		o->compress_arg = arg;
		break;
	case OPT_CREATE_SLOT:
		o->create_slot = true;
		break;
	case OPT_DROP_SLOT:
		o->drop_slot = true;
		break;
	case OPT_IF_NOT_EXISTS:
		o->if_not_exists = true;
		break;
	case OPT_SYNCHRONOUS:
		o->synchronous = true;
		break;
	case OPT_NO_SYNC:
		o->sync = false;
		break;
	case OPT_VERIFY:
		o->verify = true;
		break;
	default: /* OPT_HELP: everything else was handled before */
		o->help = true;
		break;
	}
	return PGR_OK;
}

/* getopt_long returns '?' for mistakes, so it cannot be asked about this option. */
static bool has_question_mark(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "-?") == 0)
			return true;
	return false;
}

/* PGR_MORE: getopt_long has said what is wrong. */
static int read_options(struct pgr_receivewal_options *o, int argc, char **argv, struct pgr_err *err)
{
	static const struct option long_options[] = {
		{"help", no_argument, NULL, OPT_HELP},
		{"version", no_argument, NULL, 'V'},
		{"directory", required_argument, NULL, 'D'},
		{"endpos", required_argument, NULL, 'E'},
		{"no-loop", no_argument, NULL, 'n'},
		PGR_CONN_LONGOPTS,
		{"status-interval", required_argument, NULL, 's'},
		{"slot", required_argument, NULL, 'S'},
		{"verbose", no_argument, NULL, 'v'},
		{"compress", required_argument, NULL, 'Z'},
		{"create-slot", no_argument, NULL, OPT_CREATE_SLOT},
		{"drop-slot", no_argument, NULL, OPT_DROP_SLOT},
		{"ensure-slot", no_argument, NULL, OPT_ENSURE_SLOT},
		{"give-up", required_argument, NULL, OPT_GIVE_UP},
		{"startpos", required_argument, NULL, OPT_STARTPOS},
		{"if-not-exists", no_argument, NULL, OPT_IF_NOT_EXISTS},
		{"synchronous", no_argument, NULL, OPT_SYNCHRONOUS},
		{"no-sync", no_argument, NULL, OPT_NO_SYNC},
		{"verify", no_argument, NULL, OPT_VERIFY},
		{NULL, 0, NULL, 0},
	};
	int c;

	o->help = has_question_mark(argc, argv);
	while (!o->help && !o->version) {
		c = getopt_long(argc, argv, PGR_CONN_SHORTOPTS "D:E:ns:S:vVZ:", long_options, NULL);
		if (c == -1)
			break;
		if (c == '?')
			return PGR_MORE;
		if (pgr_conn_option(&o->conn, c, optarg))
			continue;
		if (set_option(o, c, optarg, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

/* What makes no sense together. */
static int check_options(const struct pgr_receivewal_options *o, int argc, char **argv, struct pgr_err *err)
{
	if (optind < argc)
		return pgr_err_set(err, PGR_E_USAGE, "too many command-line arguments (first is \"%s\")", argv[optind]);
	if (o->drop_slot && o->create_slot)
		return pgr_err_set(err, PGR_E_USAGE, "cannot use --create-slot together with --drop-slot");
	if (o->verify && (o->drop_slot || o->create_slot))
		return pgr_err_set(err, PGR_E_USAGE, "cannot use --verify together with %s",
				   o->drop_slot ? "--drop-slot" : "--create-slot");
	if (o->ensure_slot && (o->drop_slot || o->create_slot || o->verify))
		return pgr_err_set(err, PGR_E_USAGE, "cannot use --ensure-slot together with an action");
	if (o->slot == NULL && (o->drop_slot || o->create_slot || o->ensure_slot))
		return pgr_err_set(err, PGR_E_USAGE, "%s needs a slot to be specified using --slot",
				   o->drop_slot	    ? "--drop-slot"
				   : o->create_slot ? "--create-slot"
						    : "--ensure-slot");
	if (o->synchronous && !o->sync)
		return pgr_err_set(err, PGR_E_USAGE, "cannot use --synchronous together with --no-sync");
	if (o->dir == NULL && !o->drop_slot && !o->create_slot)
		return pgr_err_set(err, PGR_E_USAGE, "no target directory specified");
	return PGR_OK;
}

static int check_compression(const char *arg, struct pgr_compress_spec *spec, struct pgr_err *err)
{
	if (arg == NULL)
		return PGR_OK;
	/* pg_receivewal knows no place where to compress: for it this is a part of the method's name. */
	if (strncmp(arg, "client-", 7) == 0 || strncmp(arg, "server-", 7) == 0)
		return pgr_err_set(err, PGR_E_USAGE, "unrecognized compression algorithm: \"%.*s\"",
				   (int)strcspn(arg, ":"), arg);
	return pgr_compress_spec_parse(spec, arg, err);
}

int pgr_receivewal_options_read(struct pgr_receivewal_options *o, struct pgr_messages *msg, int argc, char **argv)
{
	struct pgr_err err;
	int rc;

	*o = (struct pgr_receivewal_options){.status_interval_s = 10, .give_up_s = 300, .sync = true};
	o->conn.progname = msg->progname;
	rc = read_options(o, argc, argv, &err);
	if (rc == PGR_ERR) {
		pgr_say_error(msg, &err);
		return 1;
	}
	if (rc == PGR_OK && (o->help || o->version)) {
		if (o->help)
			usage(msg->progname);
		else
			version(msg->progname);
		return fflush(stdout) == 0 ? 0 : 1;
	}
	if (rc == PGR_OK && check_options(o, argc, argv, &err) != PGR_OK) {
		pgr_say_error(msg, &err);
		rc = PGR_MORE;
	}
	if (rc == PGR_MORE) {
		pgr_say_hint(msg, "Try \"%s --help\" for more information.", msg->progname);
		return 1;
	}
	if (check_compression(o->compress_arg, &o->compress, &err) != PGR_OK) {
		pgr_say_error(msg, &err);
		return 1;
	}
	return -1;
}

void pgr_receivewal_options_fini(struct pgr_receivewal_options *o)
{
	pgr_conn_params_fini(&o->conn);
}
