/*
 * Errors as values.
 *
 * A function that can fail takes a `struct pgr_err *` as its last parameter and
 * returns an enum pgr_status.  The struct belongs to the caller.  It is set once,
 * where the failure is seen, with the name of the object that failed; callers on
 * the way up may put one phrase in front.  Libraries never print what they return.
 */
#ifndef PGR_COMMON_ERR_H
#define PGR_COMMON_ERR_H

#include <stdbool.h>
#include <stdarg.h>

#define PGR_MUST_USE	      __attribute__((warn_unused_result))
#define PGR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

enum pgr_status {
	PGR_ERR = -1, /* failed; the pgr_err says how */
	PGR_OK = 0,   /* done */
	PGR_MORE = 1, /* not an error: nothing (more) now; each function says what it means */
};

/* What went wrong decides what can be done about it: retry, give up, exit code. */
enum pgr_errclass {
	PGR_E_NONE = 0,
	PGR_E_USAGE,	/* what was asked for cannot be done; a retry gives the same answer */
	PGR_E_SYSTEM,	/* a system call on a local object failed; sys_errno is set */
	PGR_E_NOMEM,	/* out of memory */
	PGR_E_CONNECT,	/* no connection: refused, unreachable, no such host, refused before authentication ended */
	PGR_E_NETWORK,	/* an established connection was lost or timed out */
	PGR_E_SERVER,	/* the server answered with ERROR or FATAL; sqlstate is set */
	PGR_E_PROTOCOL, /* the server sent what the protocol does not allow here */
	PGR_E_DATA,	/* well-framed content that must not be trusted: a tar member, a size, a name */
	PGR_E_CHECKSUM, /* the copy is complete, but the server reported bad page checksums */
	PGR_E_STOPPED,	/* a signal, or another thread's error, asked this one to stop */
};

struct pgr_err {
	enum pgr_errclass cls;
	int sys_errno;	   /* with PGR_E_SYSTEM (and PGR_E_NETWORK where known), else 0 */
	char sqlstate[6];  /* with PGR_E_SERVER, and with PGR_E_CONNECT where a server refused, else empty */
	bool fatal;	   /* with PGR_E_SERVER: severity FATAL or PANIC, the session is gone */
	char msg[2048];	   /* one message without program name or final newline; may span lines */
	char detail[1024]; /* printed as "detail: ..." when not empty */
	char hint[1024];   /* printed as "hint: ..." when not empty */
};

/* Makes *e say "no error". */
void pgr_err_clear(struct pgr_err *e);

/*
 * Sets class and message (printf format); clears all other fields.  Messages that do
 * not fit are cut at a UTF-8 boundary.  Always returns PGR_ERR, so that a caller can
 * `return pgr_err_set(err, ...)`.
 */
int pgr_err_set(struct pgr_err *e, enum pgr_errclass cls, const char *fmt, ...) PGR_PRINTF(3, 4);
int pgr_err_vset(struct pgr_err *e, enum pgr_errclass cls, const char *fmt, va_list ap) PGR_PRINTF(3, 0);

/* As pgr_err_set with PGR_E_SYSTEM; keeps `errnum` and appends ": <strerror>" to the message. */
int pgr_err_sys(struct pgr_err *e, int errnum, const char *fmt, ...) PGR_PRINTF(3, 4);

/* As pgr_err_set with PGR_E_NOMEM and the message "out of memory". */
int pgr_err_nomem(struct pgr_err *e);

/* Puts "<phrase>: " in front of the message.  Returns PGR_ERR. */
int pgr_err_prefix(struct pgr_err *e, const char *fmt, ...) PGR_PRINTF(2, 3);

/* Sets the detail or the hint of an error that is already set.  Returns PGR_ERR. */
int pgr_err_detail(struct pgr_err *e, const char *fmt, ...) PGR_PRINTF(2, 3);
int pgr_err_hint(struct pgr_err *e, const char *fmt, ...) PGR_PRINTF(2, 3);

#endif
