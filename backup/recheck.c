#include "backup/recheck.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/copyrows.h"
#include "backup/exclude.h"
#include "backup/filelist.h"
#include "backup/lane_files.h"
#include "backup/lane_query.h"
#include "backup/layout.h"
#include "backup/pagecheck.h"
#include "backup/rowsum.h"
#include "common/buf.h"
#include "common/fs_dir.h"
#include "common/fs_io.h"
#include "common/sys.h"
#include "proto/caps.h"

#define PAGE_MAX	 32768
#define PAGES_A_QUERY	 128
#define REPORTED_A_FILE	 5 /* as the server */
#define DIGEST_READ_SIZE ((size_t)256 * 1024)

struct page {
	size_t file; /* entry of the list */
	uint32_t block;
};

struct recheck {
	const struct pgr_recheck *c;
	struct pgr_client *client;
	uint32_t page_bytes;
	struct pgr_rowsum sum; /* NONE without verification */
	struct page *list;     /* by file and block, each once */
	size_t n, cap;
	uint64_t bad;

	/* the file under way */
	bool begun;
	size_t file;
	uint32_t segment;
	uint64_t bad_here;
	uint64_t mended_here;
	struct pgr_buf name; /* as the server's BASE_BACKUP writes it */
	int fd;		     /* of our copy, when a page was put right; -1 */
};

/* ---- what is to be looked at ---- */

static int by_place(const void *a, const void *b)
{
	const struct page *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

static int add(struct recheck *r, const struct pgr_suspect *s, struct pgr_err *err)
{
	size_t cap = r->cap == 0 ? 64 : r->cap * 2;

	if (r->n == r->cap) {
		struct page *p = reallocarray(r->list, cap, sizeof(*p));

		if (p == NULL)
			return pgr_err_nomem(err);
		r->list = p;
		r->cap = cap;
	}
	r->list[r->n++] = (struct page){.file = pgr_lane_files_index(r->c->files, s->file), .block = s->block};
	return PGR_OK;
}

static int gather(struct recheck *r, struct pgr_err *err)
{
	struct pgr_suspect s;
	size_t kept = 0;
	int rc;

	while ((rc = pgr_pagecheck_next(r->c->pages, &s, err)) == PGR_OK)
		if (add(r, &s, err) != PGR_OK)
			return PGR_ERR;
	if (rc == PGR_ERR)
		return PGR_ERR;
	if (r->n > 0)
		qsort(r->list, r->n, sizeof(*r->list), by_place);
	for (size_t i = 0; i < r->n; i++)
		if (i == 0 || by_place(&r->list[i - 1], &r->list[i]) != 0)
			r->list[kept++] = r->list[i];
	r->n = kept;
	return PGR_OK;
}

/* ---- telling ---- */

static int PGR_PRINTF(3, 4) warn(const struct recheck *r, struct pgr_err *err, const char *fmt, ...)
{
	struct pgr_buf line = {0};
	char *text;
	va_list ap;
	int n, rc;

	if (r->c->notice == NULL)
		return PGR_OK;
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return pgr_err_nomem(err);
	rc = pgr_buf_printf(&line, err, "WARNING:  %s\n", text);
	if (rc == PGR_OK && pgr_buf_str(&line) == NULL)
		rc = pgr_err_nomem(err);
	if (rc == PGR_OK)
		r->c->notice(r->c->arg, (const char *)line.data);
	pgr_buf_fini(&line);
	free(text);
	return rc;
}

static const char *name(const struct recheck *r)
{
	return (const char *)r->name.data;
}

static int report_bad(struct recheck *r, uint32_t block, uint16_t calculated, uint16_t expected, struct pgr_err *err)
{
	if (pgr_cap_has(pgr_client_version(r->client), PGR_CAP_RELATION_BLOCKS))
		block = pgr_pagecheck_relation_block(r->c->pages, r->segment, block);
	r->bad++;
	r->bad_here++;
	if (r->bad_here > REPORTED_A_FILE)
		return PGR_OK;
	if (warn(r, err,
		 "checksum verification failed in file \"%s\", block %" PRIu32 ": calculated %X but expected %X",
		 name(r), block, calculated, expected) != PGR_OK)
		return PGR_ERR;
	if (r->bad_here < REPORTED_A_FILE)
		return PGR_OK;
	return warn(r, err, "further checksum verification failures in file \"%s\" will not be reported", name(r));
}

/* ---- putting a page right ---- */

static int open_copy(struct recheck *r, struct pgr_err *err)
{
	const char *path = r->c->list->entries[r->file].path, *rest, *leaf;
	const struct pgr_sys *sys = r->c->sys;
	int root, dir;

	if (r->fd >= 0)
		return PGR_OK;
	pgr_layout_resolve(r->c->layout, path, &root, &rest);
	if (pgr_fs_open_parent(sys, root, rest, &dir, &leaf, err) != PGR_OK)
		return PGR_ERR;
	r->fd = sys->openat(sys, dir, leaf, O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);
	if (r->fd < 0)
		pgr_err_sys(err, errno, "could not open file \"%s\"", path);
	(void)sys->close(sys, dir); /* nothing was written through it */
	return r->fd >= 0 ? PGR_OK : PGR_ERR;
}

static int mend(struct recheck *r, uint32_t block, const uint8_t *page, struct pgr_err *err)
{
	if (open_copy(r, err) != PGR_OK)
		return PGR_ERR;
	r->mended_here++;
	return pgr_fs_pwrite_all(r->c->sys, r->fd, page, r->page_bytes, (off_t)block * r->page_bytes,
				 r->c->list->entries[r->file].path, err);
}

static int read_some(struct recheck *r, uint8_t *buf, uint64_t off, size_t len, size_t *n, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->c->sys;
	ssize_t got;

	do
		got = sys->pread(sys, r->fd, buf, len, (off_t)off);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return pgr_err_sys(err, errno, "could not read file \"%s\"", r->c->list->entries[r->file].path);
	if (got == 0)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" has become shorter",
				   r->c->list->entries[r->file].path);
	*n = (size_t)got;
	return PGR_OK;
}

static int digest_copy(struct recheck *r, struct pgr_digest *d, uint8_t *buf, struct pgr_err *err)
{
	uint64_t size = r->c->list->entries[r->file].size;
	uint8_t sum[PGR_DIGEST_MAX];
	size_t n;

	for (uint64_t at = 0; at < size; at += n) {
		size_t len = size - at < DIGEST_READ_SIZE ? (size_t)(size - at) : DIGEST_READ_SIZE;

		if (read_some(r, buf, at, len, &n, err) != PGR_OK || pgr_digest_add(d, buf, n, err) != PGR_OK)
			return PGR_ERR;
	}
	if (pgr_digest_end(d, sum, &n, err) != PGR_OK)
		return PGR_ERR;
	memcpy(pgr_lane_files_sum(r->c->files, r->file), sum, n);
	return PGR_OK;
}

/* The manifest is to say what is in the file now. */
static int sum_again(struct recheck *r, struct pgr_err *err)
{
	uint8_t *buf = malloc(DIGEST_READ_SIZE);
	struct pgr_digest *d = NULL;
	int rc;

	if (r->c->digest == PGR_DIGEST_NONE) {
		free(buf);
		return PGR_OK;
	}
	rc = buf != NULL ? pgr_digest_new(&d, r->c->digest, err) : pgr_err_nomem(err);
	if (rc == PGR_OK)
		rc = digest_copy(r, d, buf, err);
	pgr_digest_free(d);
	free(buf);
	return rc;
}

static int close_copy(struct recheck *r, int rc, struct pgr_err *err)
{
	const struct pgr_sys *sys = r->c->sys;
	int fd = r->fd;

	r->fd = -1;
	if (fd >= 0 && sys->close(sys, fd) != 0 && rc == PGR_OK)
		return pgr_err_sys(err, errno, "could not close file \"%s\"", r->c->list->entries[r->file].path);
	return rc;
}

static int finish_mending(struct recheck *r, struct pgr_err *err)
{
	char line[256 + 512];
	int rc = sum_again(r, err);

	if (rc == PGR_OK && r->c->sys->fsync(r->c->sys, r->fd) != 0)
		rc = pgr_err_sys(err, errno, "could not fsync file \"%s\"", r->c->list->entries[r->file].path);
	rc = close_copy(r, rc, err);
	if (rc != PGR_OK || r->c->info == NULL)
		return rc;
	snprintf(line, sizeof(line), "%" PRIu64 " page(s) of file \"%.512s\" came torn or damaged and were read again",
		 r->mended_here, name(r));
	r->c->info(r->c->arg, line);
	return PGR_OK;
}

/* ---- file by file ---- */

static int end_file(struct recheck *r, struct pgr_err *err)
{
	if (r->fd >= 0 && finish_mending(r, err) != PGR_OK)
		return PGR_ERR;
	if (r->bad_here < 2)
		return PGR_OK;
	return warn(r, err, "file \"%s\" has a total of %" PRIu64 " checksum verification failures", name(r),
		    r->bad_here);
}

/* "./base/5/1259"; in a tablespace the path on the server, since that is where BASE_BACKUP starts to walk. */
static int begin_file(struct recheck *r, size_t file, struct pgr_err *err)
{
	const char *path = r->c->list->entries[file].path, *rest;
	const char *location = pgr_layout_location(r->c->layout, path, &rest);
	struct pgr_relfile rel;

	if (r->begun && r->file == file)
		return PGR_OK;
	if (r->begun && end_file(r, err) != PGR_OK)
		return PGR_ERR;
	r->begun = true;
	r->file = file;
	r->segment = pgr_has_page_checksums(path, &rel) ? rel.segment : 0;
	r->bad_here = r->mended_here = 0;
	r->name.len = 0;
	if (pgr_buf_printf(&r->name, err, "%s/%s", location != NULL ? location : ".", location != NULL ? rest : path) !=
	    PGR_OK)
		return PGR_ERR;
	return pgr_buf_str(&r->name) != NULL ? PGR_OK : pgr_err_nomem(err);
}

/*
 * A page that is good now is either one that replay writes anew, or came damaged, or was torn by a write that leaves
 * the LSN as it is (a standby writes its free space map so).  The server sends what it read last: so does this.
 */
static int judge(struct recheck *r, const struct page *p, const uint8_t *page, struct pgr_err *err)
{
	uint16_t calculated, expected;

	if (begin_file(r, p->file, err) != PGR_OK)
		return PGR_ERR;
	if (pgr_pagecheck_is_bad(r->c->pages, r->segment, p->block, page, &calculated, &expected))
		return report_bad(r, p->block, calculated, expected, err);
	return pgr_pagecheck_is_replayed(r->c->pages, page) ? PGR_OK : mend(r, p->block, page, err);
}

/* ---- reading ---- */

static int send_query(struct recheck *r, const struct page *list, size_t n, struct pgr_err *err)
{
	struct pgr_lane_piece pieces[PAGES_A_QUERY];
	struct pgr_buf text = {0};
	int rc;

	for (size_t i = 0; i < n; i++) {
		uint64_t off = (uint64_t)list[i].block * r->page_bytes;

		pieces[i] = (struct pgr_lane_piece){
			.file = list[i].file, .from = off, .to = off + r->page_bytes, .row = r->page_bytes};
	}
	rc = pgr_lane_query(&text, r->c->list, pieces, n, r->sum.algo, err);
	if (rc == PGR_OK)
		rc = pgr_client_send(r->client, &text, err);
	pgr_buf_fini(&text);
	return rc;
}

static int read_value(struct pgr_copyrows *rows, uint8_t *value, uint32_t len, struct pgr_err *err)
{
	size_t n;

	for (uint32_t at = 0; at < len; at += (uint32_t)n)
		if (pgr_copyrows_read(rows, value + at, len - at, &n, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* PGR_MORE: the page does not have the digest that the server computed. */
static int check_sum(struct recheck *r, struct pgr_copyrows *rows, const struct page *p, const uint8_t *page,
		     uint32_t len, struct pgr_err *err)
{
	const struct pgr_rowsum_row row = {
		.content = page,
		.len = len,
		.name = r->c->list->entries[p->file].path,
		.offset = (uint64_t)p->block * r->page_bytes,
		.length = r->page_bytes,
	};
	uint8_t theirs[PGR_ROWSUM_MAX], ours[PGR_ROWSUM_MAX];
	uint32_t sum_len;
	bool is_null;

	if (r->sum.algo == PGR_ROWSUM_NONE)
		return PGR_OK;
	if (pgr_copyrows_column(rows, &is_null, &sum_len, err) != PGR_OK)
		return PGR_ERR;
	if (sum_len != pgr_rowsum_len(r->sum.algo))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent no digest of a page of file \"%s\"", row.name);
	if (read_value(rows, theirs, sum_len, err) != PGR_OK || pgr_rowsum_row(&r->sum, &row, ours, err) != PGR_OK)
		return PGR_ERR;
	return memcmp(ours, theirs, sum_len) == 0 ? PGR_OK : PGR_MORE;
}

/*
 * *whole is false for a page that is not there any more: its file was cut or removed.  PGR_MORE: it came damaged.
 */
static int read_page(struct recheck *r, struct pgr_copyrows *rows, const struct page *p, uint8_t *page, bool *whole,
		     struct pgr_err *err)
{
	bool is_null;
	uint32_t len;
	int rc = pgr_copyrows_next(rows, &is_null, &len, err);

	*whole = len == r->page_bytes;
	if (rc == PGR_MORE || (rc == PGR_OK && len > r->page_bytes))
		return pgr_err_set(err, PGR_E_PROTOCOL, "server did not send the pages that were asked for");
	if (rc == PGR_OK)
		rc = read_value(rows, page, len, err);
	return rc == PGR_OK ? check_sum(r, rows, p, is_null ? NULL : page, len, err) : rc;
}

/* The end of an answer; what still comes before it is of no use after a damaged page. */
static int end_answer(struct pgr_copyrows *rows, bool damaged, struct pgr_err *err)
{
	uint32_t len;
	bool is_null;
	int rc;

	do
		rc = pgr_copyrows_next(rows, &is_null, &len, err);
	while (rc == PGR_OK && damaged);
	if (rc == PGR_OK)
		return pgr_err_set(err, PGR_E_PROTOCOL, "server sent more pages than were asked for");
	return rc == PGR_MORE ? PGR_OK : PGR_ERR;
}

/* Up to a page that came damaged: *done counts those before it. */
static int look_at(struct recheck *r, const struct page *list, size_t n, size_t *done, struct pgr_err *err)
{
	struct pgr_copyrows rows;
	uint64_t aligned[PAGE_MAX / sizeof(uint64_t)]; /* checksums are computed in words */
	uint8_t *page = (uint8_t *)aligned;
	bool whole;
	int rc = PGR_OK;

	*done = 0;
	if (send_query(r, list, n, err) != PGR_OK)
		return PGR_ERR;
	pgr_copyrows_init_columns(&rows, r->client, r->sum.algo != PGR_ROWSUM_NONE ? 2 : 1);
	while (rc == PGR_OK && *done < n) {
		rc = read_page(r, &rows, &list[*done], page, &whole, err);
		if (rc == PGR_OK && whole && judge(r, &list[*done], page, err) != PGR_OK)
			return PGR_ERR;
		*done += rc == PGR_OK;
	}
	return rc == PGR_ERR ? PGR_ERR : end_answer(&rows, rc == PGR_MORE, err);
}

/* The session holds the backup open, so it cannot be given up: the page is read again over the same one. */
static int read_again(struct recheck *r, const struct page *p, unsigned *tries, struct pgr_err *err)
{
	const char *path = r->c->list->entries[p->file].path;
	char line[128 + 512];

	if (++*tries > PGR_ROWSUM_TRIES) {
		pgr_err_set(err, PGR_E_DATA, "page %" PRIu32 " of file \"%s\" came damaged", p->block, path);
		return pgr_err_detail(err, "It was read %u times.", *tries);
	}
	snprintf(line, sizeof(line), "page %" PRIu32 " of file \"%.512s\" came damaged and is read again", p->block,
		 path);
	if (r->c->info != NULL)
		r->c->info(r->c->arg, line);
	return PGR_OK;
}

static int look_at_all(struct recheck *r, struct pgr_err *err)
{
	unsigned tries = 0;

	for (size_t at = 0, done; at < r->n; at += done) {
		size_t n = r->n - at < PAGES_A_QUERY ? r->n - at : PAGES_A_QUERY;

		if (look_at(r, r->list + at, n, &done, err) != PGR_OK)
			return PGR_ERR;
		if (done > 0)
			tries = 0;
		if (done < n && read_again(r, &r->list[at + done], &tries, err) != PGR_OK)
			return PGR_ERR;
	}
	if (r->begun && end_file(r, err) != PGR_OK)
		return PGR_ERR;
	return r->bad > 1 ? warn(r, err, "%" PRIu64 " total checksum verification failures", r->bad) : PGR_OK;
}

int pgr_recheck_pages(const struct pgr_recheck *c, struct pgr_client *client, uint64_t *failures, struct pgr_err *err)
{
	struct recheck r = {.c = c, .client = client, .page_bytes = pgr_pagecheck_page_bytes(c->pages), .fd = -1};
	int rc = gather(&r, err);

	if (rc == PGR_OK && c->verify_transfer)
		rc = pgr_rowsum_init(&r.sum, pgr_rowsum_algo(pgr_client_version(client)), err);
	if (rc == PGR_OK)
		rc = look_at_all(&r, err);
	rc = close_copy(&r, rc, err);
	*failures = r.bad;
	free(r.list);
	pgr_rowsum_fini(&r.sum);
	pgr_buf_fini(&r.name);
	return rc;
}
