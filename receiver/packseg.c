#include "receiver/packseg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/compress.h"
#include "common/fs_io.h"
#include "common/sys.h"
#include "receiver/walfile.h"

#define CHUNK	  (128u * 1024u)
#define NAME_ROOM PGR_PACKSEG_NAME_ROOM

/* In the order in which they are looked for. */
static const struct form {
	enum pgr_compression method;
	const char *suffix;
	const char *partial_suffix; /* of pg_receivewal -Z, or of what later versions of it may write */
} forms[] = {
	{PGR_COMP_GZIP, ".gz", ".gz.partial"},
	{PGR_COMP_LZ4, ".lz4", ".lz4.partial"},
	{PGR_COMP_ZSTD, ".zst", ".zst.partial"},
};

#define NFORMS (sizeof(forms) / sizeof(forms[0]))

static const char *suffix_of(enum pgr_compression method)
{
	for (size_t i = 0; i < NFORMS; i++)
		if (forms[i].method == method)
			return forms[i].suffix;
	return "";
}

static void segment_name(const struct pgr_packdir *d, char out[NAME_ROOM], pgr_tli tli, pgr_segno seg,
			 const char *suffix)
{
	char base[PGR_WALNAME_LEN + 1];

	pgr_walname_format(base, tli, seg, d->segment_bytes);
	snprintf(out, NAME_ROOM, "%s%s", base, suffix);
}

static void PGR_PRINTF(3, 4) say(const struct pgr_packdir *d, int level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (d->log == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	d->log(d->log_arg, level, line);
}

static int check_give_up(const struct pgr_packdir *d, struct pgr_err *err)
{
	if (d->give_up == NULL || !atomic_load(d->give_up))
		return PGR_OK;
	return pgr_err_set(err, PGR_E_STOPPED, "stopped");
}

/* PGR_MORE: there is no such file. */
static int find_file(const struct pgr_packdir *d, const char *name, struct pgr_err *err)
{
	struct stat st;

	if (d->sys->fstatat(d->sys, d->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return PGR_OK;
	if (errno == ENOENT)
		return PGR_MORE;
	return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", d->dir, name);
}

static int remove_file(const struct pgr_packdir *d, const char *name, struct pgr_err *err)
{
	if (d->sys->unlinkat(d->sys, d->dirfd, name, 0) == 0 || errno == ENOENT)
		return PGR_OK;
	return pgr_err_sys(err, errno, "could not remove file \"%s/%s\"", d->dir, name);
}

/* ---- beginning and end ---- */

static void tmp_name(char out[sizeof(((struct pgr_packseg *)0)->tmp)], unsigned number)
{
	if (number == 0)
		snprintf(out, sizeof(((struct pgr_packseg *)0)->tmp), "%s", PGR_PACKSEG_TMP);
	else
		snprintf(out, sizeof(((struct pgr_packseg *)0)->tmp), "walpack.%u.tmp", number);
}

int pgr_packseg_clean(const struct pgr_packdir *d, struct pgr_err *err)
{
	int rc = PGR_OK;

	for (unsigned i = 0; i < PGR_PACKSEG_MAX && rc == PGR_OK; i++) {
		char name[sizeof(((struct pgr_packseg *)0)->tmp)];

		tmp_name(name, i);
		rc = remove_file(d, name, err);
	}
	return rc;
}

int pgr_packseg_init(struct pgr_packseg *s, struct pgr_packdir *dir, unsigned number, struct pgr_err *err)
{
	*s = (struct pgr_packseg){.dir = dir};
	tmp_name(s->tmp, number);
	if (asprintf(&s->tmp_path, "%s/%s", dir->dir, s->tmp) < 0)
		s->tmp_path = NULL;
	s->buf = malloc(2 * (size_t)CHUNK);
	if (s->tmp_path != NULL && s->buf != NULL)
		return PGR_OK;
	pgr_packseg_fini(s);
	return pgr_err_nomem(err);
}

void pgr_packseg_fini(struct pgr_packseg *s)
{
	free(s->tmp_path);
	free(s->buf);
	*s = (struct pgr_packseg){0};
}

/* ---- durability ---- */

/* An interrupted sync did not fail. */
static int sync_fd(const struct pgr_packdir *d, int fd)
{
	int rc;

	if (!d->sync)
		return 0;
	do
		rc = d->sys->fsync(d->sys, fd);
	while (rc != 0 && errno == EINTR);
	return rc;
}

/* A second fsync would say that all is well: nothing may be removed any more after the first that failed. */
static int sync_dir(struct pgr_packdir *d, struct pgr_err *err)
{
	if (sync_fd(d, d->dirfd) == 0 || errno == EINVAL)
		return PGR_OK;
	atomic_store(&d->failed, true);
	return pgr_err_sys(err, errno, "could not fsync directory \"%s\"", d->dir);
}

/* A file that somebody else made, and perhaps only copied here. */
static int sync_file(struct pgr_packdir *d, const char *name, struct pgr_err *err)
{
	int fd = d->sys->openat(d->sys, d->dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	int rc = PGR_OK;

	if (fd < 0)
		return pgr_err_sys(err, errno, "could not open file \"%s/%s\"", d->dir, name);
	if (sync_fd(d, fd) != 0) {
		atomic_store(&d->failed, true); /* or a second attempt would find it synced */
		rc = pgr_err_sys(err, errno, "could not fsync file \"%s/%s\"", d->dir, name);
	}
	d->sys->close(d->sys, fd); /* nothing was written through it */
	return rc;
}

/* ---- reading ---- */

static int open_file(const struct pgr_packdir *d, struct pgr_walfile *f, const char *name, enum pgr_compression method,
		     struct pgr_err *err)
{
	if (pgr_walfile_open(f, d->sys, d->dirfd, name, method, err) != PGR_OK)
		return pgr_err_prefix(err, "\"%s/%s\"", d->dir, name);
	return PGR_OK;
}

/* PGR_MORE: the end. */
static int read_file(const struct pgr_packdir *d, struct pgr_walfile *f, uint8_t *buf, size_t *n, struct pgr_err *err)
{
	int rc = pgr_walfile_read(f, buf, CHUNK, n, err);

	return rc == PGR_ERR ? pgr_err_prefix(err, "\"%s/%s\"", d->dir, f->name) : rc;
}

/*
 * Compares two files.  PGR_MORE: they differ, or one cannot be decoded to its end.  With
 * `prefix`, that may happen to b: what of it was decoded until then has to agree.
 */
static int compare_open(const struct pgr_packdir *d, struct pgr_walfile *a, struct pgr_walfile *b, bool prefix,
			uint8_t *buf, struct pgr_err *err)
{
	bool b_ended = false; /* and that is allowed */

	for (;;) {
		size_t na, nb = 0;
		int ra, rb = PGR_MORE;

		if (check_give_up(d, err) != PGR_OK)
			return PGR_ERR;
		ra = read_file(d, a, buf, &na, err);
		if (ra == PGR_ERR)
			return err->cls == PGR_E_DATA ? PGR_MORE : PGR_ERR;
		if (!b_ended)
			rb = read_file(d, b, buf + CHUNK, &nb, err);
		if (rb == PGR_ERR && err->cls != PGR_E_DATA)
			return PGR_ERR;
		b_ended = prefix && rb != PGR_OK;
		if (nb > na || memcmp(buf, buf + CHUNK, nb) != 0)
			return PGR_MORE;
		if (!b_ended && (rb == PGR_ERR || na != nb))
			return PGR_MORE;
		if (ra == PGR_MORE)
			return a->cut || (b->cut && !b_ended) ? PGR_MORE : PGR_OK;
	}
}

struct side {
	const char *name;
	enum pgr_compression method;
};

static int compare(const struct pgr_packseg *s, struct side a, struct side b, bool prefix, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	struct pgr_walfile fa = {0}, fb = {0};
	int rc = open_file(d, &fa, a.name, a.method, err);

	if (rc == PGR_OK)
		rc = open_file(d, &fb, b.name, b.method, err);
	if (rc == PGR_OK)
		rc = compare_open(d, &fa, &fb, prefix, s->buf, err);
	pgr_walfile_close(&fa);
	pgr_walfile_close(&fb);
	return rc;
}

/* ---- compressing ---- */

struct work {
	struct pgr_walfile in;
	int out; /* -1: not open */
	struct pgr_comp *comp;
	uint64_t passed; /* plain bytes */
};

static int compress_chunk(const struct pgr_packseg *s, struct work *w, size_t len, bool last, struct pgr_err *err)
{
	const uint8_t *p = s->buf;
	uint8_t *to = s->buf + CHUNK;
	size_t produced;
	int rc;

	do {
		rc = pgr_comp_step(w->comp, &p, &len, last ? PGR_COMP_END : PGR_COMP_GO_ON, to, CHUNK, &produced, err);
		if (rc == PGR_ERR || pgr_fs_write_all(s->dir->sys, w->out, to, produced, s->tmp_path, err) != PGR_OK)
			return PGR_ERR;
	} while (rc == PGR_OK);
	return PGR_OK;
}

static int compress_all(const struct pgr_packseg *s, struct work *w, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	int rc;

	do {
		size_t n;

		if (check_give_up(d, err) != PGR_OK)
			return PGR_ERR;
		rc = read_file(d, &w->in, s->buf, &n, err);
		if (rc == PGR_ERR || compress_chunk(s, w, n, rc == PGR_MORE, err) != PGR_OK)
			return PGR_ERR;
		w->passed += n;
	} while (rc == PGR_OK);
	if (w->passed != d->segment_bytes)
		return pgr_err_set(err, PGR_E_DATA, "segment file \"%s/%s\" has incorrect size %llu", d->dir,
				   w->in.name, (unsigned long long)w->passed);
	return PGR_OK;
}

static int open_work(const struct pgr_packseg *s, struct work *w, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;

	if (pgr_comp_new(&w->comp, &d->spec, err) != PGR_OK ||
	    open_file(d, &w->in, s->name, PGR_COMP_NONE, err) != PGR_OK)
		return PGR_ERR;
	w->out = d->sys->openat(d->sys, d->dirfd, s->tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				d->file_mode);
	if (w->out < 0)
		return pgr_err_sys(err, errno, "could not create file \"%s\"", s->tmp_path);
	if (d->sys->fchmod(d->sys, w->out, d->file_mode) != 0) /* whatever the umask took away */
		return pgr_err_sys(err, errno, "could not set permissions of file \"%s\"", s->tmp_path);
	return PGR_OK;
}

/* PGR_OK when nothing went wrong before or does here. */
static int close_work(const struct pgr_packseg *s, struct work *w, int rc, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;

	if (rc == PGR_OK && sync_fd(d, w->out) != 0)
		rc = pgr_err_sys(err, errno, "could not fsync file \"%s\"", s->tmp_path);
	if (w->out >= 0 && d->sys->close(d->sys, w->out) != 0 && rc == PGR_OK)
		rc = pgr_err_sys(err, errno, "could not close file \"%s\"", s->tmp_path);
	pgr_walfile_close(&w->in);
	pgr_comp_free(w->comp);
	return rc;
}

static int compress_file(const struct pgr_packseg *s, struct pgr_err *err)
{
	struct work w = {.out = -1};
	int rc = open_work(s, &w, err);

	if (rc == PGR_OK)
		rc = compress_all(s, &w, err);
	return close_work(s, &w, rc, err);
}

/* The temporary file, durable and looked through. */
static int make_packed(const struct pgr_packseg *s, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	struct side plain = {s->name, PGR_COMP_NONE}, packed = {s->tmp, d->spec.method};
	int rc;

	if (remove_file(d, s->tmp, err) != PGR_OK || compress_file(s, err) != PGR_OK)
		return PGR_ERR;
	rc = compare(s, plain, packed, false, err);
	if (rc != PGR_MORE)
		return rc;
	return pgr_err_set(err, PGR_E_DATA, "what \"%s/%s\" was compressed to does not decompress to the same", d->dir,
			   s->name);
}

/* ---- a segment ---- */

/*
 * PGR_MORE: it is not there compressed.  A crash came before the plain file was removed, or somebody copied it here.
 */
static int find_duplicate(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	int rc = PGR_MORE;

	for (size_t i = 0; i < NFORMS && rc == PGR_MORE; i++) {
		segment_name(d, s->packed, tli, seg, forms[i].suffix);
		rc = find_file(d, s->packed, err);
		if (rc != PGR_OK)
			continue;
		rc = compare(s, (struct side){s->name, PGR_COMP_NONE}, (struct side){s->packed, forms[i].method}, false,
			     err);
		if (rc == PGR_MORE)
			return pgr_err_set(err, PGR_E_DATA, "\"%s/%s\" does not decompress to the content of \"%s\"",
					   d->dir, s->packed, s->name);
	}
	return rc;
}

/* A compressed file is only as good as what it was made of. */
static int check_size(const struct pgr_packdir *d, const char *name, struct pgr_err *err)
{
	struct stat st;

	if (d->sys->fstatat(d->sys, d->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		if (errno == ENOENT) /* somebody has moved it away */
			return PGR_MORE;
		return pgr_err_sys(err, errno, "could not stat file \"%s/%s\"", d->dir, name);
	}
	if (S_ISREG(st.st_mode) && st.st_size == (off_t)d->segment_bytes)
		return PGR_OK;
	return pgr_err_set(err, PGR_E_DATA, "segment file \"%s/%s\" has incorrect size %lld", d->dir, name,
			   (long long)st.st_size);
}

static int check_usable(const struct pgr_packdir *d, struct pgr_err *err)
{
	if (!atomic_load(&d->failed))
		return PGR_OK;
	return pgr_err_set(err, PGR_E_DATA, "nothing is compressed in \"%s\" after an fsync that failed", d->dir);
}

void pgr_packseg_leave(struct pgr_packseg *s)
{
	if (s->is_new) /* if it stays, the next attempt removes it */
		s->dir->sys->unlinkat(s->dir->sys, s->dir->dirfd, s->tmp, 0);
	s->is_new = false;
	s->name[0] = '\0';
}

/* PGR_MORE: there is nothing to do. */
static int make(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	int rc = check_usable(d, err);

	if (rc == PGR_OK)
		rc = check_size(d, s->name, err);
	if (rc != PGR_OK)
		return rc;
	rc = find_duplicate(s, tli, seg, err);
	if (rc != PGR_MORE || d->spec.method == PGR_COMP_NONE)
		return rc;
	segment_name(d, s->packed, tli, seg, suffix_of(d->spec.method));
	s->is_new = true;
	return make_packed(s, err);
}

int pgr_packseg_make(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err)
{
	int rc;

	segment_name(s->dir, s->name, tli, seg, "");
	rc = make(s, tli, seg, err);
	if (rc != PGR_OK)
		pgr_packseg_leave(s);
	return rc == PGR_ERR ? PGR_ERR : PGR_OK;
}

static int settle(struct pgr_packseg *s, struct pgr_err *err)
{
	struct pgr_packdir *d = s->dir;
	bool was_new = s->is_new;
	int rc;

	if (check_usable(d, err) != PGR_OK)
		return PGR_ERR;
	if (!s->is_new && sync_file(d, s->packed, err) != PGR_OK)
		return PGR_ERR;
	rc = find_file(d, s->name, err);
	if (rc != PGR_OK) /* somebody has moved it away meanwhile, and wants no other */
		return rc == PGR_MORE ? PGR_OK : PGR_ERR;
	if (s->is_new && d->sys->renameat(d->sys, d->dirfd, s->tmp, d->dirfd, s->packed) != 0)
		return pgr_err_sys(err, errno, "could not rename file \"%s\" to \"%s\"", s->tmp_path, s->packed);
	s->is_new = false;
	if (sync_dir(d, err) != PGR_OK || remove_file(d, s->name, err) != PGR_OK)
		return PGR_ERR;
	if (was_new)
		say(d, 0, "compressed segment \"%s\"", s->packed);
	return PGR_OK;
}

int pgr_packseg_settle(struct pgr_packseg *s, struct pgr_err *err)
{
	int rc = s->name[0] != '\0' ? settle(s, err) : PGR_OK;

	pgr_packseg_leave(s);
	return rc;
}

/* ---- what pg_receivewal left ---- */

/* PGR_MORE: the segment is not there as a whole. */
static int find_complete(const struct pgr_packdir *d, pgr_tli tli, pgr_segno seg, char name[NAME_ROOM],
			 enum pgr_compression *method, struct pgr_err *err)
{
	int rc;

	*method = PGR_COMP_NONE;
	segment_name(d, name, tli, seg, "");
	rc = check_size(d, name, err);
	for (size_t i = 0; i < NFORMS && rc == PGR_MORE; i++) {
		*method = forms[i].method;
		segment_name(d, name, tli, seg, forms[i].suffix);
		rc = find_file(d, name, err);
	}
	return rc;
}

static int drop_one(const struct pgr_packseg *s, struct side whole, struct side part, struct pgr_err *err)
{
	struct pgr_packdir *d = s->dir;
	int rc = compare(s, whole, part, true, err);

	if (rc == PGR_MORE) {
		say(d, 1, "\"%s/%s\" is kept: what is in it differs from segment \"%s\"", d->dir, part.name,
		    whole.name);
		return PGR_OK;
	}
	if (rc != PGR_OK || sync_file(d, whole.name, err) != PGR_OK || sync_dir(d, err) != PGR_OK ||
	    remove_file(d, part.name, err) != PGR_OK)
		return PGR_ERR;
	say(d, 2, "removed \"%s/%s\", which another program left unfinished: segment \"%s\" is complete", d->dir,
	    part.name, whole.name);
	return PGR_OK;
}

int pgr_packseg_drop_foreign(struct pgr_packseg *s, pgr_tli tli, pgr_segno seg, struct pgr_err *err)
{
	const struct pgr_packdir *d = s->dir;
	char whole[NAME_ROOM], part[NAME_ROOM];
	int rc = check_usable(d, err);

	for (size_t i = 0; i < NFORMS && rc == PGR_OK; i++) {
		enum pgr_compression method;

		segment_name(d, part, tli, seg, forms[i].partial_suffix);
		rc = find_file(d, part, err);
		if (rc == PGR_OK)
			rc = find_complete(d, tli, seg, whole, &method, err);
		if (rc == PGR_OK)
			rc = drop_one(s, (struct side){whole, method}, (struct side){part, forms[i].method}, err);
		else if (rc == PGR_MORE)
			rc = PGR_OK;
	}
	return rc;
}
