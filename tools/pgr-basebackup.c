/*
 * pgr-basebackup: seeds a standby over PostgreSQL's own protocol.  Options, texts and exit codes are pg_basebackup's.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "backup/basebackup.h"
#include "backup/sql.h"
#include "common/stop.h"
#include "common/sys.h"
#include "tools/backoff.h"
#include "tools/basebackup_options.h"
#include "tools/connopts.h"
#include "tools/message.h"
#include "tools/progress.h"
#include "tools/retry.h"
#include "tools/signals.h"

struct program {
	struct pgr_messages msg;
	struct pgr_progress_line line;
	struct pgr_basebackup_options options;
	struct pgr_signals *signals;
	atomic_int rate_steps; /* see struct pgr_basebackup_opts */

	unsigned attempt; /* after failures; 0: the first run */
	bool again;	  /* the run that failed is made again, */
	int wait_ms;	  /* after so long */
	bool error_said;
	struct pgr_retry_server server; /* of the present attempt; only with --retry */

	pthread_mutex_t stop_lock;
	struct pgr_stop *stop;	 /* of the present attempt: each has its own */
	struct pgr_stop *asking; /* while it is asked why an attempt has failed; else NULL */
};

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

static void on_print(void *arg, const char *line)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	puts(line);
}

/* An attempt has a connection, and so the password. */
static void on_connected(void *arg, const struct pgr_transport *t)
{
	struct program *p = arg;

	if (p->options.retries > 0)
		pgr_retry_note(&p->server, t, &p->options.conn, pgr_sys_real(), p->stop);
}

static void set_asking(struct program *p, struct pgr_stop *stop)
{
	pthread_mutex_lock(&p->stop_lock);
	p->asking = stop;
	pthread_mutex_unlock(&p->stop_lock);
}

/* The stop latch of the run is set by now, so that a signal needs another one to end the question. */
static bool was_shutdown(struct program *p, const struct pgr_err *err)
{
	struct pgr_stop *stop;
	struct pgr_err ignored;
	bool was = false;

	if (pgr_stop_new(&stop, &ignored) != PGR_OK)
		return false;
	set_asking(p, stop);
	if (pgr_signals_seen(p->signals) == 0)
		was = pgr_retry_was_shutdown(&p->server, err, &p->options.conn, pgr_sys_real(), stop);
	set_asking(p, NULL);
	pgr_stop_free(stop);
	return was;
}

static bool may_retry(struct program *p, const struct pgr_err *err)
{
	return p->attempt < p->options.retries && pgr_signals_seen(p->signals) == 0 &&
	       (pgr_retry_may(err) || was_shutdown(p, err)) && pgr_signals_seen(p->signals) == 0;
}

/* The reason comes before what the clean-up says. */
static void on_failed(void *arg, const struct pgr_err *err)
{
	struct program *p = arg;

	pgr_progress_line_end(&p->line);
	p->again = may_retry(p, err);
	if (p->again) {
		p->wait_ms = pgr_backoff_draw_ms(p->attempt);
		pgr_say_warning(&p->msg, "trying again in %d s, attempt %u of %u: %s", pgr_backoff_seconds(p->wait_ms),
				p->attempt + 1, p->options.retries, err->msg);
		return;
	}
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
	pthread_mutex_lock(&p->stop_lock);
	pgr_stop_post(p->stop, &why);
	if (p->asking != NULL)
		pgr_stop_post(p->asking, &why);
	pthread_mutex_unlock(&p->stop_lock);
}

static void init_program(struct program *p, const char *argv0)
{
	pgr_messages_init(&p->msg, argv0);
	atomic_init(&p->rate_steps, 0);
	pthread_mutex_init(&p->stop_lock, NULL);
}

/* What the options did not say: where the run's words go. */
static void attach(struct program *p)
{
	struct pgr_basebackup_opts *o = &p->options.run;

	p->msg.verbose = p->options.verbose;
	p->options.conn.ask_password = pgr_prompt_password;
	o->rate_steps = &p->rate_steps;
	o->info = on_info;
	o->say = on_say;
	o->warning = on_warning;
	o->print = on_print;
	o->list_paths = p->msg.verbose > 0;
	o->progress = p->options.show_progress ? on_progress : NULL;
	o->connected = on_connected;
	o->failed = on_failed;
	o->notice = on_notice;
	o->arg = p;
}

/* The coordinator's session knows the version and who we are. */
static int print_grants(struct program *p, struct pgr_err *err)
{
	struct pgr_buf sql = {0};
	struct pgr_result *who = NULL;
	struct pgr_client *c;
	const char *role = p->options.grants_role;
	int rc;

	if (pgr_sql_open(&c, &p->options.conn, pgr_sys_real(), p->stop, on_notice, p, err) != PGR_OK)
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

/*
 * The latch of an attempt that failed is spent.  A signal that came for the old one is not lost: whoever goes on looks
 * at the signals after this.
 */
static int renew_stop(struct program *p, struct pgr_err *err)
{
	struct pgr_stop *old = p->stop, *new_;

	if (pgr_stop_new(&new_, err) != PGR_OK)
		return PGR_ERR;
	pthread_mutex_lock(&p->stop_lock);
	p->stop = new_;
	pthread_mutex_unlock(&p->stop_lock);
	pgr_stop_free(old);
	p->options.conn.ask_arg = new_; /* ^C at the password prompt */
	return PGR_OK;
}

/* A signal ends the wait, and with it the program. */
static int wait_for_next(struct program *p, struct pgr_err *err)
{
	p->attempt++;
	if (renew_stop(p, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_signals_seen(p->signals) == 0 && pgr_stop_wait(p->stop, pgr_sys_real(), p->wait_ms, err) == PGR_OK)
		return PGR_OK;
	pgr_err_set(err, PGR_E_STOPPED, "stopped by a signal while waiting for the next attempt");
	return pgr_err_hint(err, "Run the same command again to go on.");
}

static int seed(struct program *p, struct pgr_err *err)
{
	int rc = pgr_basebackup_run(&p->options.run, &p->options.conn, pgr_sys_real(), p->stop, err);

	while (rc != PGR_OK && p->again) {
		p->again = false;
		p->line.copy_start_ms = 0;
		p->options.run.slot_may_exist = true;
		rc = wait_for_next(p, err);
		if (rc == PGR_OK)
			rc = pgr_basebackup_run(&p->options.run, &p->options.conn, pgr_sys_real(), p->stop, err);
	}
	return rc;
}

/* Runs the backup with signals turned into a stop; *signo is the signal that ended it, or 0. */
static int run(struct program *p, int *signo, struct pgr_err *err)
{
	sigset_t set;
	int rc;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	if (renew_stop(p, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_signals_start(&p->signals, &set, on_signal, p, err);
	if (rc == PGR_OK && p->options.print_grants)
		rc = print_grants(p, err);
	else if (rc == PGR_OK)
		rc = seed(p, err);
	if (rc != PGR_OK && p->signals != NULL)
		*signo = pgr_signals_seen(p->signals);
	pgr_signals_stop(p->signals);
	pgr_stop_free(p->stop);
	return rc;
}

/* The run itself; *signo is the signal that ended it, or 0. */
static int work(struct program *p, int *signo)
{
	struct pgr_err err;
	int rc;

	attach(p);
	pgr_progress_line_init(&p->line, p->msg.verbose > 0);
	rc = run(p, signo, &err);
	pgr_progress_line_end(&p->line);
	if (rc == PGR_OK && fflush(stdout) != 0)
		rc = pgr_err_sys(&err, errno, "could not write to standard output");
	if (rc != PGR_OK && !p->error_said)
		pgr_say_error(&p->msg, &err);
	return rc == PGR_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct program p = {0};
	int signo = 0;
	int status;

	umask(027); /* modes are given explicitly; 0750 and 0640 are the most that is ever wanted */
	init_program(&p, argv[0]);
	status = pgr_basebackup_options_read(&p.options, &p.msg, argc, argv);
	if (status < 0)
		status = work(&p, &signo);
	pgr_basebackup_options_fini(&p.options);
	if (signo != 0)
		pgr_signals_die(signo);
	return status;
}
