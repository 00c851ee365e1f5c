/*
 * A server, as lanes see it: sessions that answer the queries of backup/lane_query.c out of a directory, by COPY in
 * binary format, and lose connections, lie or die where a test wants it.  Failures of the test's own calls abort.
 */
#ifndef PGR_TESTS_FILESERVER_H
#define PGR_TESTS_FILESERVER_H

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup/rowsum.h"
#include "common/buf.h"
#include "common/stop.h"
#include "common/sys.h"
#include "proto/client.h"
#include "tests/support/scripted.h"

#define FILESERVER_ID "7000000000000000001 2026-01-01 00:00:00.000001"

enum fileserver_lie {
	FILESERVER_HONEST,
	FILESERVER_LONG_ROW,  /* one byte more than asked for */
	FILESERVER_EXTRA_ROW, /* one row more */
	FILESERVER_LESS_ROWS, /* one row less */
	FILESERVER_TWO_COLUMNS,
	FILESERVER_SHORT_SUM, /* digests lack their last byte */
	FILESERVER_NO_SUM,    /* they are NULL */
};

struct fileserver {
	int version;
	const char *root;
	struct pgr_stop *stop;
	enum fileserver_lie lie;
	const char *id; /* what it says about itself */
	size_t chunk;	/* bytes a read at most; 0: any */

	/* A connection ends (in turn by its end and by a reset) after so many bytes to the client, counted over all
	 * connections; again and again, each time after as many bytes more.  0: never. */
	int64_t cut_after;
	/* Query number so-and-so (from 1, over all sessions) is answered with an error, and those behind it when
	 * `errors` is more than 1. */
	unsigned error_at, errors;
	const char *error_severity, *error_state;
	/* In the middle of the COPY, after some rows. */
	bool error_inside;

	/* Called for each row before it is read; under lock.  May change the file, or *data once it was read (after).
	 */
	void (*before_row)(void *arg, const char *path, uint64_t off, uint64_t len);
	void (*after_row)(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len);
	/* What the network does to it: data (NULL: only its digest is sent) and its digest (NULL: there is none), after
	 * that was computed. */
	void (*on_the_way)(void *arg, const char *path, uint64_t off, uint8_t *data, size_t len, uint8_t *sum);
	/* What it does to a request. */
	void (*mishear)(void *arg, char *path, uint64_t *off);
	void *arg;

	pthread_mutex_t lock;
	/* under lock: */
	int64_t sent;
	unsigned queries, cuts, opened, rows, sums;
	unsigned digests; /* rows of which only the digest was asked for; the others are counted in `rows` */
	uint64_t payload; /* bytes of files in rows */
};

/* What a query asks for. */
struct fileserver_wish {
	bool content;
	enum pgr_rowsum_algo sum; /* NONE: no digest */
};

struct fileserver_session {
	struct pgr_transport t; /* first */
	struct fileserver *srv;
	struct pgr_buf in;  /* what the client sent and was not answered */
	struct pgr_buf out; /* what it has not read */
	size_t read;	    /* of out */
	bool cut, reset;
};

static inline void fileserver_init(struct fileserver *s, const char *root, struct pgr_stop *stop)
{
	memset(s, 0, sizeof(*s));
	s->version = 150000;
	s->root = root;
	s->stop = stop;
	s->id = FILESERVER_ID;
	if (pthread_mutex_init(&s->lock, NULL) != 0)
		abort();
}

static inline void fileserver_fini(struct fileserver *s)
{
	pthread_mutex_destroy(&s->lock);
}

static inline void fileserver_must(bool ok)
{
	if (!ok)
		abort();
}

static inline void fileserver_put(struct pgr_buf *b, const void *p, size_t n)
{
	struct pgr_err err;

	fileserver_must(pgr_buf_put(b, p, n, &err) == PGR_OK);
}

static inline void fileserver_put16(struct pgr_buf *b, uint16_t v)
{
	struct pgr_err err;

	fileserver_must(pgr_buf_put16(b, v, &err) == PGR_OK);
}

static inline void fileserver_put32(struct pgr_buf *b, uint32_t v)
{
	struct pgr_err err;

	fileserver_must(pgr_buf_put32(b, v, &err) == PGR_OK);
}

/* ---- one row ---- */

/* The bytes of a row; -1: no such file. */
static inline ssize_t fileserver_read(struct fileserver *s, const char *path, uint64_t off, uint64_t len, uint8_t *dst)
{
	char name[2 * PATH_MAX];
	ssize_t n;
	int fd;

	if (s->before_row != NULL)
		s->before_row(s->arg, path, off, len);
	snprintf(name, sizeof(name), "%s/%s", s->root, path);
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return -1;
	n = pread(fd, dst, len, (off_t)off);
	fileserver_must(n >= 0);
	close(fd);
	if (s->after_row != NULL)
		s->after_row(s->arg, path, off, dst, (size_t)n);
	return n;
}

static inline void fileserver_sum(struct fileserver *s, struct pgr_buf *row, struct fileserver_wish wish,
				  const char *path, uint64_t off, uint64_t len, uint8_t *data, ssize_t n)
{
	enum pgr_rowsum_algo algo = wish.sum;
	struct pgr_rowsum_row what = {.content = n < 0 ? NULL : data,
				      .len = n < 0 ? 0 : (size_t)n,
				      .name = path,
				      .offset = off,
				      .length = len};
	uint32_t sum_len = (uint32_t)pgr_rowsum_len(algo) - (s->lie == FILESERVER_SHORT_SUM);
	struct pgr_rowsum sum = {0};
	uint8_t bytes[PGR_ROWSUM_MAX];
	struct pgr_err err;

	fileserver_must(pgr_rowsum_init(&sum, algo, &err) == PGR_OK &&
			pgr_rowsum_row(&sum, &what, bytes, &err) == PGR_OK);
	pgr_rowsum_fini(&sum);
	s->sums++;
	if (s->on_the_way != NULL)
		s->on_the_way(s->arg, path, off, wish.content ? data : NULL, what.len, bytes);
	fileserver_put16(row, (uint16_t)(1 + wish.content + (s->lie == FILESERVER_TWO_COLUMNS)));
	if (wish.content) {
		fileserver_put32(row, n < 0 ? UINT32_MAX : (uint32_t)n);
		fileserver_put(row, data, what.len);
	}
	fileserver_put32(row, s->lie == FILESERVER_NO_SUM ? UINT32_MAX : sum_len);
	fileserver_put(row, bytes, s->lie == FILESERVER_NO_SUM ? 0 : sum_len);
}

static inline void fileserver_plain(struct fileserver *s, struct pgr_buf *row, const char *path, uint64_t off,
				    uint8_t *data, ssize_t n)
{
	if (s->on_the_way != NULL && n > 0)
		s->on_the_way(s->arg, path, off, data, (size_t)n, NULL);
	fileserver_put16(row, s->lie == FILESERVER_TWO_COLUMNS ? 2 : 1);
	fileserver_put32(row, n < 0 ? UINT32_MAX : (uint32_t)n);
	if (n > 0)
		fileserver_put(row, data, (size_t)n);
}

static inline void fileserver_row(struct fileserver_session *c, struct fileserver_wish wish, const char *path,
				  uint64_t off, uint64_t len, bool first)
{
	struct fileserver *s = c->srv;
	uint8_t *data = calloc(1, len + 1);
	char heard[PATH_MAX];
	struct pgr_buf row = {0};
	ssize_t n;

	fileserver_must(data != NULL);
	strcpy(heard, path);
	if (s->mishear != NULL)
		s->mishear(s->arg, heard, &off);
	n = fileserver_read(s, heard, off, len, data);
	if (s->lie == FILESERVER_LONG_ROW && n == (ssize_t)len)
		n++;
	if (first) /* the header comes with the first row, as from servers */
		fileserver_put(&row, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
	if (wish.sum != PGR_ROWSUM_NONE)
		fileserver_sum(s, &row, wish, heard, off, len, data, n);
	else
		fileserver_plain(s, &row, heard, off, data, n);
	pgr_msg_copy_data(&c->out, row.data, row.len);
	pgr_buf_fini(&row);
	free(data);
	s->payload += wish.content && n > 0 ? (uint64_t)n : 0;
	if (wish.content)
		s->rows++;
	else
		s->digests++;
}

/* ---- queries ---- */

static inline uint64_t fileserver_number(const char **p)
{
	char *end;
	uint64_t v = strtoull(*p, &end, 10);

	fileserver_must(end != *p);
	if (strncmp(end, "::bigint", 8) == 0)
		end += 8;
	*p = end;
	return v;
}

static inline void fileserver_expect(const char **p, const char *text)
{
	if (strncmp(*p, text, strlen(text)) != 0) {
		fprintf(stderr, "file server: expected \"%s\" at \"%.40s\"\n", text, *p);
		abort();
	}
	*p += strlen(text);
}

/* A literal of standard_conforming_strings. */
static inline void fileserver_literal(const char **p, char *out, size_t size)
{
	size_t n = 0;

	fileserver_expect(p, "'");
	for (;; (*p)++) {
		if (**p == '\'' && *++(*p) != '\'')
			break;
		fileserver_must(**p != '\0' && n + 1 < size);
		out[n++] = **p;
	}
	out[n] = '\0';
	if (strncmp(*p, "::text", 6) == 0)
		*p += 6;
}

static inline void fileserver_error(struct fileserver_session *c)
{
	struct fileserver *s = c->srv;

	pgr_msg_error(&c->out, s->error_severity, s->error_state, "as the test wants it");
	if (strcmp(s->error_severity, "FATAL") == 0)
		c->cut = true;
	else
		pgr_msg_ready(&c->out);
}

static inline void fileserver_copy(struct fileserver_session *c, const char *p, struct fileserver_wish wish, bool fail)
{
	static const char tail[] = ") v(i, f, s, t, w), LATERAL pg_catalog.generate_series(s, greatest(s, t - 1), w) o "
				   "ORDER BY i, o";
	enum fileserver_lie lie = c->srv->lie;
	char path[PATH_MAX] = "";
	bool first = true;

	pgr_msg_copy_response(&c->out, 'H');
	while (*p == '(') {
		uint64_t from, to, row;

		fileserver_expect(&p, "(");
		fileserver_number(&p);
		fileserver_expect(&p, ", ");
		fileserver_literal(&p, path, sizeof(path));
		fileserver_expect(&p, ", ");
		from = fileserver_number(&p);
		fileserver_expect(&p, ", ");
		to = fileserver_number(&p);
		fileserver_expect(&p, ", ");
		row = fileserver_number(&p);
		fileserver_expect(&p, ")");
		if (*p == ',')
			fileserver_expect(&p, ", ");
		for (uint64_t off = from; off == from || off < to; off += row) {
			if (lie == FILESERVER_LESS_ROWS && *p == ')' && off + row >= to)
				break;
			fileserver_row(c, wish, path, off, to - off < row ? to - off : row, first);
			first = false;
		}
		if (fail) {
			fileserver_error(c);
			return;
		}
	}
	fileserver_expect(&p, tail);
	fileserver_expect(&p, wish.sum != PGR_ROWSUM_NONE ? " OFFSET 0) r" : "");
	fileserver_expect(&p, ") TO STDOUT (FORMAT binary)");
	fileserver_must(*p == '\0');
	if (lie == FILESERVER_EXTRA_ROW)
		fileserver_row(c, wish, path, 0, 10, first);
	fileserver_must(!first || lie == FILESERVER_LESS_ROWS);
	if (first)
		pgr_msg_copy_data(&c->out, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
	pgr_msg_copy_data(&c->out, "\377\377", 2);
	pgr_msg_copy_done(&c->out);
	pgr_msg_complete(&c->out, "COPY 1");
	pgr_msg_ready(&c->out);
}

/* What is asked for: the beginning of a query, up to the pieces. */
static inline struct fileserver_wish fileserver_begin(const char **text)
{
	enum pgr_rowsum_algo algo = PGR_ROWSUM_NONE;
	bool content;

	fileserver_expect(text, "COPY (SELECT ");
	content = strncmp(*text, "c, ", 3) == 0;
	*text += content ? 3 : 0;
	if (strncmp(*text, "pg_catalog.sha256(", 18) == 0)
		algo = PGR_ROWSUM_SHA256;
	else if (strncmp(*text, "pg_catalog.decode(", 18) == 0)
		algo = PGR_ROWSUM_MD5;
	if (algo != PGR_ROWSUM_NONE) {
		fileserver_expect(text,
				  algo == PGR_ROWSUM_SHA256
					  ? "pg_catalog.sha256(coalesce(pg_catalog.sha256(c), '')"
					  : "pg_catalog.decode(pg_catalog.md5(coalesce(pg_catalog.decode(pg_catalog.md5"
					    "(c), 'hex'), '')");
		fileserver_expect(text,
				  " || pg_catalog.textsend(f) || pg_catalog.int8send(o) || pg_catalog.int8send(n)");
		fileserver_expect(text, algo == PGR_ROWSUM_SHA256 ? ")" : "), 'hex')");
		fileserver_expect(text, " FROM (SELECT f, o, least(w, t - o) n, ");
	} else {
		content = true;
	}
	fileserver_expect(text, "CASE WHEN t > s THEN pg_catalog.pg_read_binary_file(f, o, least(w, t - o), true) "
				"ELSE '' END");
	fileserver_expect(text, algo != PGR_ROWSUM_NONE ? " c" : "");
	fileserver_expect(text, " FROM (VALUES ");
	return (struct fileserver_wish){.content = content, .sum = algo};
}

static inline void fileserver_answer(struct fileserver_session *c, const char *text)
{
	struct fileserver *s = c->srv;
	struct fileserver_wish wish;
	bool fail;

	if (strncmp(text, "SELECT system_identifier", 24) == 0) {
		pgr_msg_row_desc(&c->out, 1, (const char *const[]){"id"});
		pgr_msg_row(&c->out, 1, &s->id);
		pgr_msg_complete(&c->out, "SELECT 1");
		pgr_msg_ready(&c->out);
		return;
	}
	s->queries++;
	fail = s->error_at > 0 && s->queries >= s->error_at && s->queries < s->error_at + s->errors;
	wish = fileserver_begin(&text);
	if (fail && !s->error_inside)
		fileserver_error(c);
	else
		fileserver_copy(c, text, wish, fail);
}

/* Answers the next query that came as a whole; under lock. */
static inline bool fileserver_next(struct fileserver_session *c)
{
	size_t len;

	if (c->in.len < 5)
		return false;
	len = (size_t)c->in.data[1] << 24 | (size_t)c->in.data[2] << 16 | (size_t)c->in.data[3] << 8 | c->in.data[4];
	if (c->in.len < len + 1)
		return false;
	c->out.len = c->read = 0;
	if (c->in.data[0] == 'Q')
		fileserver_answer(c, (const char *)c->in.data + 5);
	pgr_buf_drop(&c->in, len + 1);
	return true;
}

/* ---- the transport ---- */

static inline struct fileserver_session *fileserver_of(struct pgr_transport *t)
{
	return (struct fileserver_session *)t;
}

/* How much may be sent before the connection is to be cut; under lock. */
static inline size_t fileserver_allowance(const struct fileserver *s)
{
	return s->cut_after == 0 ? SIZE_MAX : (size_t)(s->cut_after * (s->cuts + 1) - s->sent);
}

static inline int fileserver_ended(struct fileserver_session *c, struct pgr_err *err)
{
	if (!c->reset)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_NETWORK, "could not receive data from server: Connection reset by peer");
}

static inline int fileserver_do_read(struct fileserver_session *c, const struct pgr_room *room, int nroom, size_t *n,
				     struct pgr_err *err)
{
	struct fileserver *s = c->srv;
	size_t may = fileserver_allowance(s);

	if (c->read == c->out.len && (c->cut || !fileserver_next(c)))
		return c->cut ? fileserver_ended(c, err) : PGR_MORE;
	may = s->chunk != 0 && s->chunk < may ? s->chunk : may;
	for (int i = 0; i < nroom; i++) {
		size_t k = c->out.len - c->read;

		k = k < room[i].len ? k : room[i].len;
		k = k < may ? k : may;
		memcpy(room[i].p, c->out.data + c->read, k);
		c->read += k;
		may -= k;
		*n += k;
	}
	s->sent += (int64_t)*n;
	if (fileserver_allowance(s) == 0) {
		c->cut = true;
		c->reset = s->cuts++ % 2 == 1;
		c->out.len = c->read;
	}
	return PGR_OK;
}

static inline int fileserver_transport_read(struct pgr_transport *t, const struct pgr_room *room, int nroom, size_t *n,
					    struct pgr_err *err)
{
	struct fileserver_session *c = fileserver_of(t);
	int rc;

	*n = 0;
	pthread_mutex_lock(&c->srv->lock);
	rc = fileserver_do_read(c, room, nroom, n, err);
	pthread_mutex_unlock(&c->srv->lock);
	return rc;
}

static inline int fileserver_transport_write(struct pgr_transport *t, const void *p, size_t len, size_t *n,
					     struct pgr_err *err)
{
	struct fileserver_session *c = fileserver_of(t);

	*n = 0;
	if (c->cut)
		return pgr_err_set(err, PGR_E_NETWORK, "could not send data to server: Broken pipe");
	fileserver_put(&c->in, p, len);
	*n = len;
	return PGR_OK;
}

/* A client that waits for what was not asked for would wait for ever. */
static inline int fileserver_transport_wait(struct pgr_transport *t, unsigned want, int wake_fd, int64_t deadline,
					    unsigned *got, struct pgr_err *err)
{
	struct fileserver_session *c = fileserver_of(t);
	struct pollfd fd = {.fd = pgr_stop_fd(c->srv->stop), .events = POLLIN};

	(void)wake_fd;
	(void)deadline;
	*got = want & PGR_WAIT_WRITE;
	if (c->cut || c->read < c->out.len || c->in.len > 0)
		*got |= want & PGR_WAIT_READ;
	if (pgr_stop_check(c->srv->stop, err) != PGR_OK)
		return PGR_ERR;
	if (*got == 0 && poll(&fd, 1, 5000) == 0)
		return pgr_err_set(err, PGR_E_PROTOCOL, "file server: the client waits for what will not come");
	return pgr_stop_check(c->srv->stop, err);
}

static inline void fileserver_transport_cancel(struct pgr_transport *t)
{
	(void)t;
}

static inline void fileserver_transport_close(struct pgr_transport *t)
{
	struct fileserver_session *c = fileserver_of(t);

	pgr_buf_fini(&c->in);
	pgr_buf_fini(&c->out);
	free(c);
}

static const struct pgr_transport_ops fileserver_ops = {
	.read = fileserver_transport_read,
	.write = fileserver_transport_write,
	.wait = fileserver_transport_wait,
	.cancel = fileserver_transport_cancel,
	.close = fileserver_transport_close,
};

/* A session with it. */
static inline int fileserver_open(struct fileserver *s, struct pgr_client **out, struct pgr_err *err)
{
	struct fileserver_session *c = calloc(1, sizeof(*c));

	fileserver_must(c != NULL);
	c->t.ops = &fileserver_ops;
	c->t.server_version = s->version;
	strcpy(c->t.server_host, "files");
	strcpy(c->t.server_port, "5432");
	c->srv = s;
	pthread_mutex_lock(&s->lock);
	s->opened++;
	pthread_mutex_unlock(&s->lock);
	return pgr_client_new(out, &c->t, pgr_sys_real(), NULL, NULL, err);
}

#endif
