#include "backup/tar.h"

#include <string.h>

#include "common/path.h"

/* A field of the header: offset and length (POSIX.1-1988, "ustar Interchange Format"). */
struct field {
	unsigned at, len;
};
static const struct field F_NAME = {0, 100};
static const struct field F_MODE = {100, 8};
static const struct field F_SIZE = {124, 12};
static const struct field F_MTIME = {136, 12};
static const struct field F_CHECKSUM = {148, 8};
static const struct field F_LINK = {157, 100};
static const struct field F_PREFIX = {345, 155};
#define TYPEFLAG_AT 156
#define MAGIC_AT    257

/* Far beyond any file, and sums of it and padding cannot overflow. */
#define SIZE_MAX_SANE ((uint64_t)1 << 62)

static bool all_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* ---- fields ---- */

/* Digits between blanks and NULs, at most 12 of them.  Servers before 9.1.6 pad with blanks, later ones with zeros. */
static bool octal(const uint8_t *p, size_t n, uint64_t *out)
{
	uint64_t v = 0;
	size_t i = 0, digits = 0;

	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++, digits++)
		v = v << 3 | (uint64_t)(p[i] - '0');
	for (; i < n; i++)
		if (p[i] != ' ' && p[i] != '\0')
			return false;
	*out = v;
	return digits > 0;
}

/* A first byte of 0x80 announces a binary number, which src/port/tar.c uses where octal has no room. */
static bool base256(const uint8_t *p, size_t n, uint64_t *out)
{
	uint64_t v = 0;

	if (p[0] != 0x80)
		return false;
	for (size_t i = 1; i < n; i++) {
		if (v >> 56)
			return false;
		v = v << 8 | p[i];
	}
	*out = v;
	return true;
}

static bool number(const uint8_t *block, struct field f, uint64_t *out)
{
	const uint8_t *p = block + f.at;

	return p[0] & 0x80 ? base256(p, f.len, out) : octal(p, f.len, out);
}

/* Copies a text field, which ends at a NUL or is full; out has room for it and a NUL.  Returns its length. */
static size_t text(const uint8_t *block, struct field f, char *out)
{
	size_t n = strnlen((const char *)block + f.at, f.len);

	memcpy(out, block + f.at, n);
	out[n] = '\0';
	return n;
}

/* Old writers summed the bytes as signed ones; both are common enough that readers take either. */
static bool checksum_ok(const uint8_t *block)
{
	uint64_t want;
	int64_t plain = 0, with_sign = 0;

	if (!number(block, F_CHECKSUM, &want))
		return false;
	for (size_t i = 0; i < PGR_TAR_BLOCK; i++) {
		uint8_t b = i - F_CHECKSUM.at < F_CHECKSUM.len ? ' ' : block[i];

		plain += b;
		with_sign += (int8_t)b;
	}
	return want == (uint64_t)plain || (with_sign >= 0 && want == (uint64_t)with_sign);
}

/* Servers before 9.1.6 left out the NUL between the magic and the version. */
static bool magic_ok(const uint8_t *block)
{
	return memcmp(block + MAGIC_AT, "ustar\00000", 8) == 0 || memcmp(block + MAGIC_AT, "ustar00", 8) == 0;
}

/* ---- one header ---- */

/* The name for messages: a hostile one must not reach a terminal. */
static const char *printable(const char *name)
{
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return "(unprintable name)";
	return name;
}

static void strip_trailing_slashes(char *s, size_t keep)
{
	size_t n = strlen(s);

	while (n > keep && s[n - 1] == '/')
		s[--n] = '\0';
}

/* prefix/name as it stands in the header; out has 257 bytes. */
static void raw_name(const uint8_t *block, char *out)
{
	size_t n = text(block, F_PREFIX, out);

	if (n > 0)
		out[n++] = '/';
	text(block, F_NAME, out + n);
}

/* What extends the format is refused by name: guessing around it would give files wrong names or content. */
static const char *extension(uint8_t typeflag)
{
	switch (typeflag) {
	case 'x':
		return "a pax extended header";
	case 'g':
		return "a pax global header";
	case 'L':
		return "a GNU long name";
	case 'K':
		return "a GNU long link name";
	case 'S':
		return "a GNU sparse file";
	default:
		return NULL;
	}
}

static int decode_type(const uint8_t *block, const char *name, enum pgr_tar_type *out, struct pgr_err *err)
{
	uint8_t flag = block[TYPEFLAG_AT];

	if (extension(flag))
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is %s, which is not supported", printable(name),
				   extension(flag));
	if (!magic_ok(block))
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is not in ustar format", printable(name));
	switch (flag) {
	case '0':
	case '\0':
		*out = PGR_TAR_FILE;
		return PGR_OK;
	case '5':
		*out = PGR_TAR_DIR;
		return PGR_OK;
	case '2':
		*out = PGR_TAR_SYMLINK;
		return PGR_OK;
	default:
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" has unknown type 0x%02x", printable(name), flag);
	}
}

/* Checks the name of `raw` and makes it canonical. */
static int decode_name(const char *raw, struct pgr_tar_member *m, struct pgr_err *err)
{
	const char *from = raw;
	size_t n = strlen(raw);

	if (n == 0)
		return pgr_err_set(err, PGR_E_DATA, "tar member has empty name");
	/* Before POSIX, a file's trailing slash was how a directory was told: too ambiguous to guess. */
	if (m->type == PGR_TAR_FILE && raw[n - 1] == '/')
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is a file with the name of a directory",
				   printable(raw));
	if (strncmp(from, "./", 2) == 0)
		from += 2;
	memcpy(m->name, from, strlen(from) + 1);
	strip_trailing_slashes(m->name, 0);
	if (!pgr_path_is_safe(m->name))
		return pgr_err_set(err, PGR_E_DATA, "tar member has an unsafe name: \"%s\"", printable(raw));
	return PGR_OK;
}

static int decode_link(const uint8_t *block, struct pgr_tar_member *m, struct pgr_err *err)
{
	m->link[0] = '\0';
	if (m->type != PGR_TAR_SYMLINK)
		return PGR_OK;
	text(block, F_LINK, m->link);
	strip_trailing_slashes(m->link, 1);
	if (m->link[0] == '\0')
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is a symbolic link without a target",
				   printable(m->name));
	return PGR_OK;
}

static int decode_numbers(const uint8_t *block, struct pgr_tar_member *m, struct pgr_err *err)
{
	uint64_t mode, mtime;

	if (!number(block, F_MODE, &mode) || !number(block, F_MTIME, &mtime))
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" has a malformed mode or time",
				   printable(m->name));
	if (!number(block, F_SIZE, &m->size) || m->size > SIZE_MAX_SANE)
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" has an impossible size", printable(m->name));
	if (m->type != PGR_TAR_FILE && m->size != 0)
		return pgr_err_set(err, PGR_E_DATA, "tar member \"%s\" is not a file but has a size",
				   printable(m->name));
	m->mode = (mode_t)(mode & 07777);
	m->mtime = (int64_t)mtime;
	return PGR_OK;
}

int pgr_tar_decode(const uint8_t block[PGR_TAR_BLOCK], struct pgr_tar_member *m, struct pgr_err *err)
{
	char raw[sizeof(m->name)];

	if (all_zero(block, PGR_TAR_BLOCK))
		return PGR_MORE;
	if (!checksum_ok(block))
		return pgr_err_set(err, PGR_E_DATA, "tar header has a wrong checksum");
	raw_name(block, raw);
	if (decode_type(block, raw, &m->type, err) != PGR_OK || decode_name(raw, m, err) != PGR_OK ||
	    decode_link(block, m, err) != PGR_OK || decode_numbers(block, m, err) != PGR_OK)
		return PGR_ERR;
	return PGR_OK;
}

/* ---- a sequence of members ---- */

void pgr_tar_reader_init(struct pgr_tar_reader *t, struct pgr_source *source, const char *archive, bool terminated)
{
	*t = (struct pgr_tar_reader){.source = source, .archive = archive, .terminated = terminated};
}

static int corrupt(const struct pgr_tar_reader *t, const char *what, struct pgr_err *err)
{
	return pgr_err_set(err, PGR_E_DATA, "archive \"%s\" %s", t->archive, what);
}

/* Reads up to len bytes, fewer only at the end of the source. */
static int fill(struct pgr_tar_reader *t, void *dst, size_t len, size_t *got, struct pgr_err *err)
{
	uint8_t *p = dst;

	*got = 0;
	while (*got < len) {
		size_t n;

		if (pgr_source_read(t->source, p + *got, len - *got, &n, err) != PGR_OK)
			return PGR_ERR;
		if (n == 0)
			break;
		*got += n;
	}
	return PGR_OK;
}

static int skip(struct pgr_tar_reader *t, struct pgr_err *err)
{
	uint8_t scratch[8192];

	while (t->left + t->padding > 0) {
		uint64_t rest = t->left + t->padding;
		size_t n;

		if (pgr_source_read(t->source, scratch, rest < sizeof(scratch) ? (size_t)rest : sizeof(scratch), &n,
				    err) != PGR_OK)
			return PGR_ERR;
		if (n == 0)
			return corrupt(t, "ended before its last file was finished", err);
		if (n <= t->left) {
			t->left -= n;
		} else {
			t->padding -= (unsigned)(n - t->left);
			t->left = 0;
		}
	}
	return PGR_OK;
}

/* After a block of zeros: a second one where the server promises it, and nothing else but zeros. */
static int finish(struct pgr_tar_reader *t, struct pgr_err *err)
{
	uint8_t block[PGR_TAR_BLOCK];
	size_t n;

	for (bool second = true;; second = false) {
		if (fill(t, block, sizeof(block), &n, err) != PGR_OK)
			return PGR_ERR;
		if (!all_zero(block, n))
			return corrupt(t, "has data after its end", err);
		if (second && t->terminated && n < sizeof(block))
			return corrupt(t, "ended inside its end marker", err);
		if (n < sizeof(block))
			return PGR_MORE;
	}
}

int pgr_tar_next(struct pgr_tar_reader *t, struct pgr_tar_member *m, struct pgr_err *err)
{
	size_t n;
	int rc;

	if (skip(t, err) != PGR_OK || fill(t, t->header, sizeof(t->header), &n, err) != PGR_OK)
		return PGR_ERR;
	if (n == 0)
		return t->terminated ? corrupt(t, "ended without its end marker", err) : PGR_MORE;
	if (n < sizeof(t->header))
		return corrupt(t, "ended inside the header of a member", err);
	rc = pgr_tar_decode(t->header, m, err);
	if (rc == PGR_MORE)
		return finish(t, err);
	if (rc != PGR_OK)
		return pgr_err_prefix(err, "archive \"%s\"", t->archive);
	t->left = m->size;
	t->padding = (unsigned)(-m->size & (PGR_TAR_BLOCK - 1));
	return PGR_OK;
}

int pgr_tar_read(struct pgr_tar_reader *t, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	*n = 0;
	if (t->left == 0)
		return PGR_OK;
	if (cap > t->left)
		cap = (size_t)t->left;
	if (pgr_source_read(t->source, dst, cap, n, err) != PGR_OK)
		return PGR_ERR;
	if (*n == 0)
		return corrupt(t, "ended before its last file was finished", err);
	t->left -= *n;
	return PGR_OK;
}
