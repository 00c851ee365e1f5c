/* Where archives go, what -R puts into them, and the WAL's archive: tar_out, tar_inject, wal_pack. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "backup/dirsink.h"
#include "backup/tar.h"
#include "backup/tar_head.h"
#include "backup/tar_inject.h"
#include "backup/tar_out.h"
#include "backup/wal_pack.h"
#include "common/block.h"
#include "common/buf.h"
#include "common/decompress.h"
#include "common/stop.h"
#include "tests/support/fault_sys.h"
#include "tests/support/tmptree.h"

#define BLOCK 4096u

static const enum pgr_compression methods[] = {PGR_COMP_NONE, PGR_COMP_GZIP, PGR_COMP_LZ4, PGR_COMP_ZSTD};

/* ---- everything around an output ---- */

struct fixture {
	struct tmptree tree;
	struct pgr_fault_sys fault;
	struct pgr_stop *stop;
	struct pgr_pool *pool;
	struct pgr_dirsink *sink;
	struct pgr_tar_out_opts opts;
	unsigned fds; /* open before */
};

static void setup(struct fixture *f, enum pgr_compression method, unsigned fail_at)
{
	struct pgr_dirsink_opts so = {.writers = 2, .sync = true};
	struct pgr_err err;

	memset(f, 0, sizeof(*f));
	tmp_make(&f->tree);
	f->fds = tmp_open_fds();
	pgr_fault_sys_init(&f->fault, 0, ENOSPC);
	f->opts.spec.method = method;
	f->opts.threads = 2;
	ck_assert_int_eq(pgr_stop_new(&f->stop, &err), PGR_OK);
	ck_assert_int_eq(pgr_pool_new(&f->pool, pgr_tar_out_blocks(&f->opts.spec, 2) + 2, BLOCK, f->stop, &err),
			 PGR_OK);
	ck_assert_int_eq(pgr_dirsink_new(&f->sink, &f->fault.sys, f->pool, f->stop, &so, &err), PGR_OK);
	f->opts.sys = &f->fault.sys;
	f->opts.pool = f->pool;
	f->opts.stop = f->stop;
	f->opts.path = "there/x.tar";
	f->opts.fd = -1;
	f->opts.sink = f->sink;
	f->opts.dirfd = open(f->tree.path, O_RDONLY | O_DIRECTORY);
	f->opts.leaf = "x.tar";
	f->opts.mode = 0640;
	ck_assert_int_ge(f->opts.dirfd, 0);
	f->fault.fail_at = fail_at;
}

static void teardown(struct fixture *f)
{
	pgr_dirsink_free(f->sink);
	pgr_pool_free(f->pool);
	pgr_stop_free(f->stop);
	ck_assert_int_eq(close(f->opts.dirfd), 0);
	ck_assert_uint_eq(tmp_open_fds(), f->fds);
	tmp_remove(&f->tree);
}

static uint8_t byte_at(size_t off)
{
	return (uint8_t)(off + off / 251);
}

/* A source of so many bytes, a few at a time. */
struct mem_source {
	struct pgr_source source; /* first */
	const uint8_t *data;	  /* NULL: byte_at */
	size_t at, len, chunk;
	bool fails; /* at its end */
};

static int mem_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct mem_source *m = (struct mem_source *)s;

	*n = m->len - m->at;
	*n = *n < cap ? *n : cap;
	*n = *n < m->chunk ? *n : m->chunk;
	for (size_t i = 0; i < *n; i++)
		((uint8_t *)dst)[i] = m->data != NULL ? m->data[m->at + i] : byte_at(m->at + i);
	m->at += *n;
	return *n == 0 && m->fails ? pgr_err_set(err, PGR_E_NETWORK, "the source failed") : PGR_OK;
}

static struct mem_source mem(const uint8_t *data, size_t len, size_t chunk)
{
	return (struct mem_source){.source = {.read = mem_read}, .data = data, .len = len, .chunk = chunk};
}

/* What the file holds, decompressed; the caller's. */
static void read_back(struct fixture *f, enum pgr_compression method, struct pgr_buf *out)
{
	uint8_t room[5000];
	struct pgr_decomp *d;
	struct pgr_err err;
	size_t left, made;
	char *text = tmp_read(&f->tree, "x.tar", &left);
	const uint8_t *in = (const uint8_t *)text;

	ck_assert_int_eq(pgr_decomp_new(&d, method, &err), PGR_OK);
	do {
		ck_assert_int_ne(pgr_decomp_step(d, &in, &left, room, sizeof(room), &made, &err), PGR_ERR);
		ck_assert_int_eq(pgr_buf_put(out, room, made, &err), PGR_OK);
	} while (left > 0 || made > 0);
	ck_assert(pgr_decomp_at_end(d));
	pgr_decomp_free(d);
	free(text);
}

/* ---- tar_out ---- */

/* Parts of all sizes, copied and put, then the end. */
static int write_parts(struct fixture *f, struct pgr_tar_out **o, struct pgr_err *err)
{
	static const size_t sizes[] = {0, 1, 511, BLOCK, 3 * BLOCK + 5, 100, 20000};
	uint8_t data[20000];
	int rc = pgr_tar_out_new(o, &f->opts, err);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = byte_at(i);
	for (size_t i = 0; i < 7 && rc == PGR_OK; i++) {
		struct mem_source m = mem(NULL, sizes[i], 777);
		uint64_t copied = 1;

		rc = pgr_tar_out_copy(*o, &m.source, &copied, err);
		if (rc == PGR_OK) {
			ck_assert_uint_eq(copied, sizes[i]);
			rc = pgr_tar_out_put(*o, data, sizes[i], err);
		}
	}
	if (rc == PGR_OK)
		rc = pgr_tar_out_member(*o, "last", 0600, "content", 7, err);
	return rc == PGR_OK ? pgr_tar_out_end(*o, true, err) : rc;
}

static void check_parts(const struct pgr_buf *b)
{
	static const size_t sizes[] = {0, 1, 511, BLOCK, 3 * BLOCK + 5, 100, 20000};
	struct pgr_tar_member m;
	struct pgr_err err;
	size_t at = 0;

	for (size_t i = 0; i < 14; i++)
		for (size_t k = 0; k < sizes[i / 2]; k++)
			ck_assert_uint_eq(b->data[at++], byte_at(k));
	ck_assert_uint_eq(b->len, at + 1024 + 1024);
	ck_assert_int_eq(pgr_tar_decode(b->data + at, &m, &err), PGR_OK);
	ck_assert_str_eq(m.name, "last");
	ck_assert_uint_eq(m.size, 7);
	ck_assert(memcmp(b->data + at + 512, "content\0", 8) == 0);
	for (at += 519; at < b->len; at++)
		ck_assert_uint_eq(b->data[at], 0);
}

START_TEST(into_a_file)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct pgr_buf got = {0};
	struct pgr_err err;

	setup(&f, methods[_i], 0);
	ck_assert_int_eq(write_parts(&f, &o, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_drain(f.sink, &err), PGR_OK);
	pgr_tar_out_free(o);
	read_back(&f, methods[_i], &got);
	check_parts(&got);
	ck_assert_uint_eq(tmp_mode(&f.tree, "x.tar") & 07777, 0640);
	ck_assert_uint_eq(f.fault.fsyncs, 1);
	pgr_buf_fini(&got);
	teardown(&f);
}
END_TEST

START_TEST(into_a_descriptor)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct pgr_buf got = {0};
	struct pgr_err err;

	setup(&f, methods[_i], 0);
	f.fault.short_io = true;
	f.opts.fd = openat(f.opts.dirfd, "x.tar", O_CREAT | O_WRONLY, 0600);
	ck_assert_int_eq(write_parts(&f, &o, &err), PGR_OK);
	pgr_tar_out_free(o);
	ck_assert_int_eq(close(f.opts.fd), 0);
	read_back(&f, methods[_i], &got);
	check_parts(&got);
	pgr_buf_fini(&got);
	teardown(&f);
}
END_TEST

struct reader {
	int from, to;
};

static void *read_pipe(void *arg)
{
	struct reader *r = arg;
	char buf[3000];
	ssize_t n;

	while ((n = read(r->from, buf, sizeof(buf))) > 0)
		ck_assert_int_eq(write(r->to, buf, (size_t)n), n);
	return NULL;
}

/* Opened again, or, where that fails, as it is. */
START_TEST(into_a_pipe)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct pgr_buf got = {0};
	struct pgr_err err;
	struct reader r;
	pthread_t thread;
	int ends[2];

	setup(&f, methods[_i % 4], 0);
	ck_assert_int_eq(pipe(ends), 0);
	r = (struct reader){ends[0], openat(f.opts.dirfd, "x.tar", O_CREAT | O_WRONLY, 0600)};
	f.opts.fd = ends[1];
	f.fault.fail_at = _i < 4 ? 0 : f.fault.calls + 2; /* fstat, openat */
	ck_assert_int_eq(pthread_create(&thread, NULL, read_pipe, &r), 0);
	ck_assert_int_eq(write_parts(&f, &o, &err), PGR_OK);
	ck_assert_int_eq(f.fault.triggered, _i >= 4);
	ck_assert(_i < 4 || strcmp(f.fault.failed_call, "openat") == 0);
	pgr_tar_out_free(o);
	close(ends[1]);
	pthread_join(thread, NULL);
	close(ends[0]);
	close(r.to);
	read_back(&f, methods[_i % 4], &got);
	check_parts(&got);
	pgr_buf_fini(&got);
	teardown(&f);
}
END_TEST

/* Nobody reads: a stop ends it all the same. */
START_TEST(a_full_pipe_and_a_stop)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct mem_source m = mem(NULL, 100 << 20, 1 << 20);
	struct pgr_err err, why;
	int ends[2];

	setup(&f, PGR_COMP_NONE, 0);
	ck_assert_int_eq(pipe(ends), 0);
	f.opts.fd = ends[1];
	f.fault.fail_at = _i == 0 ? 0 : f.fault.calls + 2;
	ck_assert_int_eq(pgr_tar_out_new(&o, &f.opts, &err), PGR_OK);
	pgr_err_set(&why, PGR_E_STOPPED, "asked to stop");
	for (unsigned i = 0; i < 16 + 4; i++) { /* what the pipe takes, and something that waits */
		uint8_t data[BLOCK] = {0};

		ck_assert_int_eq(pgr_tar_out_put(o, data, sizeof(data), &err), PGR_OK);
	}
	pgr_stop_post(f.stop, &why);
	ck_assert_int_eq(pgr_tar_out_copy(o, &m.source, NULL, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_STOPPED);
	pgr_tar_out_free(o);
	close(ends[0]);
	close(ends[1]);
	teardown(&f);
}
END_TEST

/* Nobody will ever read. */
START_TEST(a_broken_pipe)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct pgr_err err;
	int ends[2];

	signal(SIGPIPE, SIG_IGN);
	setup(&f, methods[_i], 0);
	ck_assert_int_eq(pipe(ends), 0);
	close(ends[0]);
	f.opts.fd = ends[1];
	f.opts.path = "standard output";
	ck_assert_int_eq(write_parts(&f, &o, &err), PGR_ERR);
	if (err.cls == PGR_E_STOPPED)
		pgr_stop_why(f.stop, &err);
	ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
	ck_assert_int_eq(err.sys_errno, EPIPE);
	ck_assert_ptr_nonnull(strstr(err.msg, "could not write to standard output"));
	pgr_tar_out_free(o);
	close(ends[1]);
	teardown(&f);
}
END_TEST

/* Each call fails once: an error that names the file, and nothing leaks. */
START_TEST(every_fault)
{
	for (unsigned at = 1;; at++) {
		struct fixture f;
		struct pgr_tar_out *o;
		struct pgr_err err;
		bool harmless;
		int rc;

		setup(&f, methods[_i], at);
		rc = write_parts(&f, &o, &err);
		if (rc == PGR_OK)
			rc = pgr_dirsink_drain(f.sink, &err);
		if (rc != PGR_OK && err.cls == PGR_E_STOPPED)
			pgr_stop_why(f.stop, &err);
		pgr_tar_out_free(o);
		/* where it is refused there are other ways to write */
		harmless = f.fault.triggered && strcmp(f.fault.failed_call, "set_direct") == 0;
		if (f.fault.triggered && !harmless) {
			ck_assert_msg(rc == PGR_ERR, "%s", f.fault.failed_call);
			ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
			ck_assert_msg(strstr(err.msg, "there/x.tar") != NULL, "%s", err.msg);
		} else {
			ck_assert_msg(rc == PGR_OK, "%s", err.msg);
		}
		bool done = !f.fault.triggered;

		teardown(&f);
		if (done)
			break;
		ck_assert_uint_lt(at, 1000);
	}
}
END_TEST

START_TEST(a_source_that_fails)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct mem_source m = mem(NULL, 50000, 1000);
	struct pgr_err err;

	setup(&f, methods[_i], 0);
	m.fails = true;
	ck_assert_int_eq(pgr_tar_out_new(&o, &f.opts, &err), PGR_OK);
	ck_assert_int_eq(pgr_tar_out_copy(o, &m.source, NULL, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_NETWORK);
	pgr_tar_out_free(o);
	pgr_tar_out_free(NULL);
	teardown(&f);
}
END_TEST

/* ---- tar_inject ---- */

static const char AUTO[] = "postgresql.auto.conf";

static void add(struct pgr_buf *b, const void *p, size_t n)
{
	struct pgr_err err;

	ck_assert_int_eq(pgr_buf_put(b, p, n, &err), PGR_OK);
}

static void add_file(struct pgr_buf *b, const char *name, const void *content, size_t len)
{
	uint8_t head[PGR_TAR_BLOCK], zeros[PGR_TAR_BLOCK] = {0};
	struct pgr_err err;

	ck_assert_int_eq(pgr_tar_head_file(head, name, 0600, len, 1234567890, &err), PGR_OK);
	add(b, head, sizeof(head));
	add(b, content, len);
	add(b, zeros, pgr_tar_padding(len));
}

static void add_end(struct pgr_buf *b)
{
	uint8_t zeros[1024] = {0};

	add(b, zeros, sizeof(zeros));
}

/* Runs an archive through the injector, so many bytes in and out at a time. */
static int inject(const struct pgr_buf *in, const struct pgr_buf *conf, bool terminated, size_t in_chunk,
		  size_t out_chunk, struct pgr_buf *out, struct pgr_err *err)
{
	struct mem_source m = mem(in->data, in->len, in_chunk);
	struct pgr_tar_inject_opts opts = {.from = &m.source,
					   .archive = "base.tar",
					   .terminated = terminated,
					   .conf = conf,
					   .recovery_signal = true};
	struct pgr_tar_inject *z;
	uint8_t *room = malloc(out_chunk);
	size_t n = 0;
	int rc;

	ck_assert_ptr_nonnull(room);
	ck_assert_int_eq(pgr_tar_inject_new(&z, &opts, err), PGR_OK);
	do {
		rc = pgr_source_read(pgr_tar_inject_source(z), room, out_chunk, &n, err);
		if (rc == PGR_OK)
			add(out, room, n);
	} while (rc == PGR_OK && n > 0);
	if (rc == PGR_OK) { /* and it stays at its end */
		ck_assert_int_eq(pgr_source_read(pgr_tar_inject_source(z), room, out_chunk, &n, err), PGR_OK);
		ck_assert_uint_eq(n, 0);
	}
	pgr_tar_inject_free(z);
	free(room);
	return rc;
}

START_TEST(what_replication_needs_is_put_in)
{
	static const size_t chunks[] = {1, 3, 511, 512, 513, 4096, 100000};
	static const char *const contents[] = {"", "a = 1\n", "a = 1", "\n"};
	struct pgr_buf conf = {0};
	uint8_t big[3000];

	add(&conf, "primary_conninfo = 'x'\n", 23);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = byte_at(i);
	for (size_t v = 0; v < 4; v++) {
		struct pgr_buf in = {0}, want = {0};
		char text[64];

		snprintf(text, sizeof(text), "%s%sprimary_conninfo = 'x'\n", contents[v], v == 2 ? "\n" : "");
		add_file(&in, "backup_label", big, 100);
		add_file(&in, "standby.signal", "theirs", 6);
		add_file(&in, AUTO, contents[v], strlen(contents[v]));
		add_file(&in, "recovery.conf", big, 700);
		add_file(&in, "sub/standby.signal", "stays", 5);
		add_file(&in, "base/1/2", big, sizeof(big));
		add_end(&in);
		add_file(&want, "backup_label", big, 100);
		add_file(&want, AUTO, text, strlen(text));
		add_file(&want, "sub/standby.signal", "stays", 5);
		add_file(&want, "base/1/2", big, sizeof(big));
		for (size_t i = 0; i < 7; i++) {
			for (size_t k = 0; k < 7; k++) {
				struct pgr_buf out = {0};
				struct pgr_err err;

				ck_assert_int_eq(inject(&in, &conf, true, chunks[i], chunks[k], &out, &err), PGR_OK);
				ck_assert_uint_eq(out.len, want.len);
				ck_assert(memcmp(out.data, want.data, want.len) == 0);
				pgr_buf_fini(&out);
			}
		}
		pgr_buf_fini(&in);
		pgr_buf_fini(&want);
	}
	pgr_buf_fini(&conf);
}
END_TEST

/* Without -R only the end goes: room for the manifest. */
START_TEST(nothing_but_the_end_goes)
{
	struct pgr_buf in = {0}, out = {0};
	struct pgr_err err;
	size_t len;

	add_file(&in, "standby.signal", "", 0);
	add_file(&in, AUTO, "a = 1", 5);
	add_file(&in, "recovery.conf", "x", 1);
	len = in.len;
	ck_assert_int_eq(inject(&in, NULL, false, 100, 100, &out, &err), PGR_OK);
	ck_assert_uint_eq(out.len, len);
	ck_assert(memcmp(out.data, in.data, len) == 0);
	out.len = 0;
	add_end(&in);
	ck_assert_int_eq(inject(&in, NULL, true, 100, 100, &out, &err), PGR_OK);
	ck_assert_uint_eq(out.len, len);
	pgr_buf_fini(&in);
	pgr_buf_fini(&out);
}
END_TEST

START_TEST(archives_that_are_refused)
{
	struct pgr_buf in = {0}, out = {0}, conf = {0};
	uint8_t head[PGR_TAR_BLOCK];
	struct pgr_err err;
	size_t whole;

	add(&conf, "x\n", 2);
	add_file(&in, AUTO, "a = 1\n", 6);
	add_file(&in, "file", "content", 7);
	whole = in.len;
	for (size_t cut = 1; cut < whole; cut++) { /* cut off anywhere but between two members */
		if (cut == 1024)
			continue;
		in.len = cut;
		ck_assert_int_eq(inject(&in, &conf, false, 4096, 4096, &out, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_ptr_nonnull(strstr(err.msg, "base.tar"));
	}
	in.len = whole;
	ck_assert_int_eq(inject(&in, &conf, true, 4096, 4096, &out, &err), PGR_ERR); /* no end */
	add_file(&in, AUTO, "", 0);
	ck_assert_int_eq(inject(&in, &conf, false, 4096, 4096, &out, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "two files"));
	in.len = 0;
	ck_assert_int_eq(pgr_tar_head_file(head, AUTO, 0600, (16 << 20) + 1, 0, &err), PGR_OK);
	add(&in, head, sizeof(head));
	ck_assert_int_eq(inject(&in, &conf, false, 4096, 4096, &out, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "too large"));
	pgr_buf_fini(&in);
	pgr_buf_fini(&out);
	pgr_buf_fini(&conf);
}
END_TEST

/* Names of the members of the archive that was written; the reader judges the rest. */
static void list(struct fixture *f, struct pgr_buf *names)
{
	struct pgr_buf got = {0};
	struct pgr_tar_reader t;
	struct pgr_tar_member m;
	struct mem_source s;
	struct pgr_err err;
	int rc;

	read_back(f, PGR_COMP_NONE, &got);
	s = mem(got.data, got.len, 1000);
	pgr_tar_reader_init(&t, &s.source, "x.tar", true);
	while ((rc = pgr_tar_next(&t, &m, &err)) == PGR_OK)
		ck_assert_int_eq(pgr_buf_printf(names, &err, "%s:%o:%u ", m.name, (unsigned)m.mode, (unsigned)m.size),
				 PGR_OK);
	ck_assert_msg(rc == PGR_MORE, "%s", err.msg);
	pgr_buf_fini(&got);
}

static void check_rest(const struct pgr_buf *in, const struct pgr_buf *conf, bool signal, const char *want)
{
	struct fixture f;
	struct mem_source m = mem(in->data, in->len, 1000);
	struct pgr_tar_inject_opts opts = {
		.from = &m.source, .archive = "base.tar", .terminated = true, .conf = conf, .recovery_signal = signal};
	struct pgr_buf names = {0};
	struct pgr_tar_inject *z;
	struct pgr_tar_out *o;
	struct pgr_err err;

	setup(&f, PGR_COMP_NONE, 0);
	ck_assert_int_eq(pgr_tar_out_new(&o, &f.opts, &err), PGR_OK);
	ck_assert_int_eq(pgr_tar_inject_new(&z, &opts, &err), PGR_OK);
	ck_assert_int_eq(pgr_tar_out_copy(o, pgr_tar_inject_source(z), NULL, &err), PGR_OK);
	ck_assert_int_eq(pgr_tar_inject_rest(z, o, 0640, &err), PGR_OK);
	ck_assert_int_eq(pgr_tar_out_end(o, true, &err), PGR_OK);
	ck_assert_int_eq(pgr_dirsink_drain(f.sink, &err), PGR_OK);
	pgr_tar_inject_free(z);
	pgr_tar_out_free(o);
	list(&f, &names);
	ck_assert_str_eq(pgr_buf_str(&names), want);
	pgr_buf_fini(&names);
	teardown(&f);
}

START_TEST(the_rest)
{
	struct pgr_buf in = {0}, conf = {0};

	add(&conf, "xy\n", 3);
	add_file(&in, "f", "1", 1);
	add_end(&in);
	check_rest(&in, NULL, true, "f:600:1 ");
	check_rest(&in, &conf, true, "f:600:1 postgresql.auto.conf:640:3 standby.signal:640:0 ");
	check_rest(&in, &conf, false, "f:600:1 recovery.conf:640:3 ");
	in.len = 0;
	add_file(&in, AUTO, "a\n", 2);
	add_file(&in, "f", "1", 1);
	add_end(&in);
	check_rest(&in, &conf, true, "postgresql.auto.conf:600:5 f:600:1 standby.signal:640:0 ");
	check_rest(&in, &conf, false, "postgresql.auto.conf:600:2 f:600:1 recovery.conf:640:3 ");
	pgr_buf_fini(&in);
	pgr_buf_fini(&conf);
}
END_TEST

/* ---- wal_pack ---- */

static void make_wal(struct fixture *f)
{
	tmp_mkdir(&f->tree, "wal", 0700);
	tmp_mkdir(&f->tree, "wal/archive_status", 0700);
	tmp_write(&f->tree, "wal/000000020000000000000003", "third segment");
	tmp_write(&f->tree, "wal/000000010000000000000002", "second");
	tmp_write(&f->tree, "wal/00000002.history", "1 0/3 because\n");
	tmp_write(&f->tree, "wal/archive_status/000000010000000000000002.done", "");
	tmp_write(&f->tree, "wal/archive_status/00000002.history.done", "");
}

static int pack(struct fixture *f, struct pgr_tar_out **o, struct pgr_err *err)
{
	int fd = openat(f->opts.dirfd, "wal", O_RDONLY | O_DIRECTORY), rc;

	ck_assert_int_ge(fd, 0);
	rc = pgr_tar_out_new(o, &f->opts, err);
	if (rc == PGR_OK)
		rc = pgr_wal_pack(&f->fault.sys, fd, "there/wal", *o, err);
	if (rc == PGR_OK)
		rc = pgr_tar_out_end(*o, true, err);
	if (rc == PGR_OK)
		rc = pgr_dirsink_drain(f->sink, err);
	close(fd);
	return rc;
}

START_TEST(wal_in_order)
{
	struct fixture f;
	struct pgr_buf names = {0};
	struct pgr_tar_out *o;
	struct pgr_err err;

	setup(&f, PGR_COMP_NONE, 0);
	f.fault.short_io = true;
	make_wal(&f);
	ck_assert_msg(pack(&f, &o, &err) == PGR_OK, "%s", err.msg);
	pgr_tar_out_free(o);
	list(&f, &names);
	ck_assert_str_eq(pgr_buf_str(&names), "000000010000000000000002:600:6 "
					      "archive_status/000000010000000000000002.done:600:0 "
					      "00000002.history:600:14 archive_status/00000002.history.done:600:0 "
					      "000000020000000000000003:600:13 ");
	ck_assert_uint_eq(tmp_entries(tmp_at(&f.tree, "wal")), 1);
	ck_assert_uint_eq(tmp_entries(tmp_at(&f.tree, "wal/archive_status")), 0);
	pgr_buf_fini(&names);
	teardown(&f);
}
END_TEST

START_TEST(what_is_no_wal)
{
	struct fixture f;
	struct pgr_tar_out *o;
	struct pgr_err err;

	setup(&f, PGR_COMP_NONE, 0);
	make_wal(&f);
	tmp_mkdir(&f.tree, "wal/odd", 0700);
	ck_assert_int_eq(pack(&f, &o, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_ptr_nonnull(strstr(err.msg, "there/wal/odd"));
	pgr_tar_out_free(o);
	teardown(&f);
}
END_TEST

START_TEST(every_fault_of_wal)
{
	for (unsigned at = 1;; at++) {
		struct fixture f;
		struct pgr_tar_out *o = NULL;
		struct pgr_err err;
		bool done;
		int rc;

		setup(&f, PGR_COMP_NONE, 0);
		make_wal(&f);
		f.fault.fail_at = f.fault.calls + at;
		rc = pack(&f, &o, &err);
		if (rc != PGR_OK && err.cls == PGR_E_STOPPED)
			pgr_stop_why(f.stop, &err);
		pgr_tar_out_free(o);
		done = !f.fault.triggered;
		if (!done && strcmp(f.fault.failed_call, "set_direct") != 0) {
			ck_assert_msg(rc == PGR_ERR, "%s", f.fault.failed_call);
			ck_assert_int_eq(err.cls, PGR_E_SYSTEM);
			ck_assert_msg(strstr(err.msg, "there/") != NULL, "%s", err.msg);
		} else {
			ck_assert_msg(rc == PGR_OK, "%s", err.msg);
		}
		teardown(&f);
		if (done)
			break;
		ck_assert_uint_lt(at, 1000);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tar_out");
	TCase *tc = tcase_create("tar_out");
	SRunner *sr;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, into_a_file, 0, 4);
	tcase_add_loop_test(tc, into_a_descriptor, 0, 4);
	tcase_add_loop_test(tc, into_a_pipe, 0, 8);
	tcase_add_loop_test(tc, a_full_pipe_and_a_stop, 0, 2);
	tcase_add_loop_test(tc, a_broken_pipe, 0, 4);
	tcase_add_loop_test(tc, every_fault, 0, 4);
	tcase_add_loop_test(tc, a_source_that_fails, 0, 4);
	tcase_add_test(tc, what_replication_needs_is_put_in);
	tcase_add_test(tc, nothing_but_the_end_goes);
	tcase_add_test(tc, archives_that_are_refused);
	tcase_add_test(tc, the_rest);
	tcase_add_test(tc, wal_in_order);
	tcase_add_test(tc, what_is_no_wal);
	tcase_add_test(tc, every_fault_of_wal);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
