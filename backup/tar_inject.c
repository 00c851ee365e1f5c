#include "backup/tar_inject.h"

#include <stdlib.h>
#include <string.h>

#include "backup/tar.h"
#include "backup/tar_head.h"
#include "backup/tar_out.h"

#define AUTO_CONF	"postgresql.auto.conf"
#define RECOVERY_CONF	"recovery.conf"
#define STANDBY_SIGNAL	"standby.signal"
#define AUTO_CONF_BYTES ((size_t)16 << 20)

struct pgr_tar_inject {
	struct pgr_source base; /* first: what callers read from */
	struct pgr_tar_inject_opts opts;
	struct pgr_tar_reader tar;
	struct pgr_buf made; /* bytes to be given before the member's content: its header, or all of it */
	size_t made_at;
	bool passing;	  /* the member's content is given as it comes */
	unsigned padding; /* zeros to be given after it */
	bool have_auto_conf;
	bool ended;
};

/* ---- one member ---- */

static bool is_replaced(const struct pgr_tar_inject *z, const struct pgr_tar_member *m)
{
	return z->opts.conf != NULL && m->type == PGR_TAR_FILE &&
	       (strcmp(m->name, STANDBY_SIGNAL) == 0 || strcmp(m->name, RECOVERY_CONF) == 0);
}

static bool is_extended(const struct pgr_tar_inject *z, const struct pgr_tar_member *m)
{
	return z->opts.conf != NULL && z->opts.recovery_signal && m->type == PGR_TAR_FILE &&
	       strcmp(m->name, AUTO_CONF) == 0;
}

static int put_zeros(struct pgr_buf *b, size_t n, struct pgr_err *err)
{
	static const uint8_t zeros[PGR_TAR_BLOCK];

	return pgr_buf_put(b, zeros, n, err);
}

/* Reads the member's content behind what is in the buffer. */
static int gather(struct pgr_tar_inject *z, uint64_t size, struct pgr_err *err)
{
	size_t end, n;

	if (size > AUTO_CONF_BYTES)
		return pgr_err_set(err, PGR_E_DATA, "file \"%s\" in archive \"%s\" is too large to be changed",
				   AUTO_CONF, z->opts.archive);
	if (pgr_buf_reserve(&z->made, (size_t)size, err) != PGR_OK)
		return PGR_ERR;
	for (end = z->made.len + (size_t)size; z->made.len < end; z->made.len += n)
		if (pgr_tar_read(&z->tar, z->made.data + z->made.len, end - z->made.len, &n, err) != PGR_OK)
			return PGR_ERR;
	return PGR_OK;
}

/* postgresql.auto.conf becomes a member of our own making; its header keeps everything but the size. */
static int make_auto_conf(struct pgr_tar_inject *z, const struct pgr_tar_member *m, struct pgr_err *err)
{
	const struct pgr_buf *conf = z->opts.conf;
	struct pgr_buf *b = &z->made;
	size_t size;

	if (z->have_auto_conf)
		return pgr_err_set(err, PGR_E_DATA, "archive \"%s\" has two files \"%s\"", z->opts.archive, AUTO_CONF);
	z->have_auto_conf = true;
	if (put_zeros(b, PGR_TAR_BLOCK, err) != PGR_OK || gather(z, m->size, err) != PGR_OK)
		return PGR_ERR;
	/* a last line without its newline would swallow our first one */
	if (m->size > 0 && b->data[b->len - 1] != '\n' && pgr_buf_put8(b, '\n', err) != PGR_OK)
		return PGR_ERR;
	if (pgr_buf_put(b, conf->data, conf->len, err) != PGR_OK)
		return PGR_ERR;
	size = b->len - PGR_TAR_BLOCK;
	memcpy(b->data, z->tar.header, PGR_TAR_BLOCK);
	pgr_tar_head_resize(b->data, size);
	return put_zeros(b, pgr_tar_padding(size), err);
}

static int pass_member(struct pgr_tar_inject *z, const struct pgr_tar_member *m, struct pgr_err *err)
{
	z->passing = true;
	z->padding = pgr_tar_padding(m->size);
	return pgr_buf_put(&z->made, z->tar.header, PGR_TAR_BLOCK, err);
}

static int next_member(struct pgr_tar_inject *z, struct pgr_err *err)
{
	struct pgr_tar_member m;
	int rc = pgr_tar_next(&z->tar, &m, err);

	if (rc == PGR_MORE)
		z->ended = true;
	if (rc != PGR_OK)
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (is_replaced(z, &m))
		return PGR_OK; /* the reader skips what is not read */
	return is_extended(z, &m) ? make_auto_conf(z, &m, err) : pass_member(z, &m, err);
}

/* ---- the stream ---- */

static size_t give_made(struct pgr_tar_inject *z, void *dst, size_t cap)
{
	size_t n = z->made.len - z->made_at;

	if (n > cap)
		n = cap;
	memcpy(dst, z->made.data + z->made_at, n);
	z->made_at += n;
	if (z->made_at == z->made.len)
		z->made.len = z->made_at = 0;
	return n;
}

static size_t give_padding(struct pgr_tar_inject *z, void *dst, size_t cap)
{
	size_t n = z->padding < cap ? z->padding : cap;

	memset(dst, 0, n);
	z->padding -= (unsigned)n;
	return n;
}

static int inject_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct pgr_tar_inject *z = (struct pgr_tar_inject *)s;

	*n = 0;
	while (*n == 0) {
		if (z->made.len > 0) {
			*n = give_made(z, dst, cap);
		} else if (z->passing) {
			if (pgr_tar_read(&z->tar, dst, cap, n, err) != PGR_OK)
				return PGR_ERR;
			z->passing = *n > 0;
		} else if (z->padding > 0) {
			*n = give_padding(z, dst, cap);
		} else if (z->ended) {
			return PGR_OK;
		} else if (next_member(z, err) != PGR_OK) {
			return PGR_ERR;
		}
	}
	return PGR_OK;
}

int pgr_tar_inject_new(struct pgr_tar_inject **out, const struct pgr_tar_inject_opts *opts, struct pgr_err *err)
{
	struct pgr_tar_inject *z = calloc(1, sizeof(*z));

	*out = NULL;
	if (z == NULL)
		return pgr_err_nomem(err);
	z->base.read = inject_read;
	z->opts = *opts;
	pgr_tar_reader_init(&z->tar, opts->from, opts->archive, opts->terminated);
	*out = z;
	return PGR_OK;
}

void pgr_tar_inject_free(struct pgr_tar_inject *z)
{
	if (z == NULL)
		return;
	pgr_buf_fini(&z->made);
	free(z);
}

struct pgr_source *pgr_tar_inject_source(struct pgr_tar_inject *z)
{
	return &z->base;
}

int pgr_tar_inject_rest(struct pgr_tar_inject *z, struct pgr_tar_out *out, mode_t mode, struct pgr_err *err)
{
	const struct pgr_buf *conf = z->opts.conf;

	if (conf == NULL)
		return PGR_OK;
	if (!z->opts.recovery_signal)
		return pgr_tar_out_member(out, RECOVERY_CONF, mode, conf->data, conf->len, err);
	if (!z->have_auto_conf && pgr_tar_out_member(out, AUTO_CONF, mode, conf->data, conf->len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_tar_out_member(out, STANDBY_SIGNAL, mode, "", 0, err);
}
