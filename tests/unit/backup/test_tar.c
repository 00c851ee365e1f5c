#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/tar.h"

/* ---- archives made by hand ---- */

struct archive {
	uint8_t data[64 * 1024];
	size_t len;
};

static unsigned sum(const uint8_t *h, int as_signed)
{
	int total = 8 * ' ';

	for (int i = 0; i < 512; i++)
		if (i < 148 || i >= 156)
			total += as_signed ? (int8_t)h[i] : h[i];
	return (unsigned)total;
}

static void put_checksum(uint8_t *h)
{
	char text[16];

	snprintf(text, sizeof(text), "%07o ", sum(h, 0));
	memcpy(h + 148, text, 8);
}

static void put_field(uint8_t *h, size_t at, const char *text)
{
	memcpy(h + at, text, strlen(text));
}

/* A header as src/port/tar.c makes it. */
static void make_header(uint8_t *h, const char *name, char type, const char *size, const char *link)
{
	memset(h, 0, 512);
	put_field(h, 0, name);
	put_field(h, 100, "0000600 ");
	put_field(h, 108, "0000145 ");
	put_field(h, 116, "0000146 ");
	put_field(h, 124, size);
	put_field(h, 136, "14514622600 ");
	h[156] = (uint8_t)type;
	put_field(h, 157, link);
	memcpy(h + 257, "ustar\00000", 8);
	put_field(h, 265, "postgres");
	put_field(h, 297, "postgres");
	put_checksum(h);
}

static void add_member(struct archive *a, const char *name, char type, size_t size, const char *link)
{
	char octal[16];

	snprintf(octal, sizeof(octal), "%011zo ", size);
	make_header(a->data + a->len, name, type, octal, link);
	a->len += 512;
	for (size_t i = 0; i < size; i++)
		a->data[a->len + i] = (uint8_t)(i * 7 + size);
	/* what stands in the padding is nobody's business */
	memset(a->data + a->len + size, 0xee, -size & 511);
	a->len += size + (-size & 511);
}

static void add_zeros(struct archive *a, size_t n)
{
	memset(a->data + a->len, 0, n);
	a->len += n;
}

/* A source that gives at most `chunk` bytes at a time, and fails at `fail_at`. */
struct memory_source {
	struct pgr_source base;
	const uint8_t *data;
	size_t len, pos, chunk, fail_at;
};

static int memory_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct memory_source *m = (struct memory_source *)s;
	size_t give = m->len - m->pos;

	ck_assert_uint_gt(cap, 0);
	*n = 0;
	if (m->pos >= m->fail_at)
		return pgr_err_set(err, PGR_E_NETWORK, "the line is dead");
	if (give > cap)
		give = cap;
	if (give > m->chunk)
		give = m->chunk;
	if (give > m->fail_at - m->pos)
		give = m->fail_at - m->pos;
	memcpy(dst, m->data + m->pos, give);
	m->pos += give;
	*n = give;
	return PGR_OK;
}

static struct memory_source memory_source(const void *data, size_t len, size_t chunk)
{
	return (struct memory_source){
		.base = {memory_read}, .data = data, .len = len, .chunk = chunk, .fail_at = SIZE_MAX};
}

/* ---- one header ---- */

static int decode(uint8_t *h, struct pgr_tar_member *m, struct pgr_err *err)
{
	memset(m, 0xaa, sizeof(*m));
	pgr_err_clear(err);
	return pgr_tar_decode(h, m, err);
}

static const struct {
	const char *name;
	char type;
	const char *size;
	const char *link;
	struct pgr_tar_member want;
} good[] = {
	{"base/1/1259", '0', "00000020000 ", "", {PGR_TAR_FILE, "base/1/1259", "", 0600, 8192, 0}},
	{"backup_label", '\0', "00000000000 ", "", {PGR_TAR_FILE, "backup_label", "", 0600, 0, 0}},
	{"pg_wal/", '5', "00000000000 ", "", {PGR_TAR_DIR, "pg_wal", "", 0600, 0, 0}},
	{"./pg_wal/archive_status/", '5', "00000000000 ", "", {PGR_TAR_DIR, "pg_wal/archive_status", "", 0600, 0, 0}},
	{"dir///", '5', "00000000000 ", "", {PGR_TAR_DIR, "dir", "", 0600, 0, 0}},
	{"pg_tblspc/16384/",
	 '2',
	 "00000000000 ",
	 "/srv/ts//",
	 {PGR_TAR_SYMLINK, "pg_tblspc/16384", "/srv/ts", 0600, 0, 0}},
	{"l", '2', "00000000000 ", "/", {PGR_TAR_SYMLINK, "l", "/", 0600, 0, 0}},
	{"only.dots...", '0', "00000000001 ", "", {PGR_TAR_FILE, "only.dots...", "", 0600, 1, 0}},
	/* the biggest octal size; blanks in front and a NUL behind, as servers before 9.1.6 wrote it */
	{"f", '0', "77777777777 ", "", {PGR_TAR_FILE, "f", "", 0600, 077777777777, 0}},
	{"f", '0', "777777777777", "", {PGR_TAR_FILE, "f", "", 0600, 0777777777777, 0}},
	{"f", '0', "      1234", "", {PGR_TAR_FILE, "f", "", 0600, 01234, 0}},
};

START_TEST(decodes)
{
	uint8_t h[512];
	struct pgr_tar_member m;
	struct pgr_err err;

	make_header(h, good[_i].name, good[_i].type, good[_i].size, good[_i].link);
	ck_assert_msg(decode(h, &m, &err) == PGR_OK, "%s: %s", good[_i].name, err.msg);
	ck_assert_int_eq(m.type, good[_i].want.type);
	ck_assert_str_eq(m.name, good[_i].want.name);
	ck_assert_str_eq(m.link, good[_i].want.link);
	ck_assert_uint_eq(m.mode, good[_i].want.mode);
	ck_assert_uint_eq(m.size, good[_i].want.size);
	ck_assert_int_eq(m.mtime, 014514622600);
}
END_TEST

static const struct {
	const char *name;
	char type;
	const char *size;
	const char *link;
	const char *why;
} bad[] = {
	{"", '0', "00000000000 ", "", "tar member has empty name"},
	{"/etc/passwd", '0', "00000000000 ", "", "unsafe name: \"/etc/passwd\""},
	{"../x", '0', "00000000000 ", "", "unsafe name"},
	{"a/../../x", '0', "00000000000 ", "", "unsafe name"},
	{"a/..", '5', "00000000000 ", "", "unsafe name"},
	{"./../x", '0', "00000000000 ", "", "unsafe name"},
	{".//etc/passwd", '0', "00000000000 ", "", "unsafe name"},
	{"./", '5', "00000000000 ", "", "unsafe name"},
	{".", '5', "00000000000 ", "", "unsafe name"},
	{"/", '5', "00000000000 ", "", "unsafe name"},
	{"a//b", '0', "00000000000 ", "", "unsafe name"},
	{"a/./b", '0', "00000000000 ", "", "unsafe name"},
	{"\033[2J/../x", '0', "00000000000 ", "", "unsafe name: \"(unprintable name)\""},
	{"file/", '0', "00000000000 ", "", "\"file/\" is a file with the name of a directory"},
	{"x", 'x', "00000000000 ", "", "\"x\" is a pax extended header"},
	{"x", 'g', "00000000000 ", "", "\"x\" is a pax global header"},
	{"././@LongLink", 'L', "00000000000 ", "", "\"././@LongLink\" is a GNU long name"},
	{"././@LongLink", 'K', "00000000000 ", "", "\"././@LongLink\" is a GNU long link name"},
	{"x", 'S', "00000000000 ", "", "\"x\" is a GNU sparse file"},
	{"x", '1', "00000000000 ", "base/1/1", "\"x\" has unknown type 0x31"},
	{"x", '3', "00000000000 ", "", "unknown type 0x33"},
	{"x", '7', "00000000000 ", "", "unknown type 0x37"},
	{"x", '\t', "00000000000 ", "", "unknown type 0x09"},
	{"d", '5', "00000000001 ", "", "\"d\" is not a file but has a size"},
	{"l", '2', "00000000001 ", "/x", "\"l\" is not a file but has a size"},
	{"l", '2', "00000000000 ", "", "\"l\" is a symbolic link without a target"},
	{"f", '0', "00000000008 ", "", "\"f\" has an impossible size"},
	{"f", '0', "0000 000010 ", "", "\"f\" has an impossible size"},
	{"f", '0', "-0000000001 ", "", "\"f\" has an impossible size"},
	{"f", '0', "            ", "", "\"f\" has an impossible size"},
	{"f", '0', "", "", "\"f\" has an impossible size"},
};

START_TEST(refuses)
{
	uint8_t h[512];
	struct pgr_tar_member m;
	struct pgr_err err;

	make_header(h, bad[_i].name, bad[_i].type, bad[_i].size, bad[_i].link);
	ck_assert_int_eq(decode(h, &m, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	ck_assert_msg(strstr(err.msg, bad[_i].why) != NULL, "got \"%s\", want \"%s\"", err.msg, bad[_i].why);
}
END_TEST

/* Any single changed byte is noticed; zeros are the end and not a header. */
START_TEST(checksum)
{
	uint8_t h[512] = {0};
	struct pgr_tar_member m;
	struct pgr_err err;

	ck_assert_int_eq(decode(h, &m, &err), PGR_MORE);
	make_header(h, "base/1/1259", '0', "00000020000 ", "");
	for (int i = 0; i < 512; i++) {
		h[i] ^= 0x40;
		ck_assert_msg(decode(h, &m, &err) == PGR_ERR, "byte %d", i);
		ck_assert_str_eq(err.msg, "tar header has a wrong checksum");
		h[i] ^= 0x40;
	}
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
}
END_TEST

START_TEST(checksum_signed_or_not)
{
	uint8_t h[512];
	struct pgr_tar_member m;
	struct pgr_err err;
	char text[16];

	make_header(h, "base/t\xc3\xa4", '0', "00000000000 ", "");
	ck_assert_uint_ne(sum(h, 0), sum(h, 1));
	snprintf(text, sizeof(text), "%06o", sum(h, 1));
	memcpy(h + 148, text, 7);
	h[155] = ' ';
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
	ck_assert_str_eq(m.name, "base/t\xc3\xa4");
	/* as servers before 9.1.6 wrote it */
	snprintf(text, sizeof(text), "%6o ", sum(h, 0));
	memcpy(h + 148, text, 8);
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
}
END_TEST

START_TEST(magic)
{
	static const struct {
		const char *bytes;
		int rc;
	} cases[] = {
		{"ustar\00000", PGR_OK}, /* POSIX */
		{"ustar00\0", PGR_OK},	 /* servers before 9.1.6 */
		{"ustar  \0", PGR_ERR},	 /* GNU */
		{"ustar\00001", PGR_ERR}, {"\0\0\0\0\0\0\0", PGR_ERR},
	};
	struct pgr_tar_member m;
	struct pgr_err err;
	uint8_t h[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make_header(h, "f", '0', "00000000000 ", "");
		memcpy(h + 257, cases[i].bytes, 8);
		put_checksum(h);
		ck_assert_msg(decode(h, &m, &err) == cases[i].rc, "case %zu", i);
		if (cases[i].rc != PGR_OK)
			ck_assert_str_eq(err.msg, "tar member \"f\" is not in ustar format");
	}
}
END_TEST

/* Sizes from 8 GiB on are binary: src/port/tar.c, print_tar_number. */
START_TEST(sizes_base256)
{
	static const struct {
		uint8_t field[12];
		uint64_t size;
		int rc;
	} cases[] = {
		{{0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0}, (uint64_t)2 << 32, PGR_OK},
		{{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}, 7, PGR_OK},
		{{0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0}, (uint64_t)1 << 62, PGR_OK},
		{{0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 1}, 0, PGR_ERR},
		{{0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, PGR_ERR},
		{{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 0, PGR_ERR}, /* would wrap around to 0 */
		{{0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 0, PGR_ERR},
		{{0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 0, PGR_ERR},
		{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0, PGR_ERR},
	};
	struct pgr_tar_member m;
	struct pgr_err err;
	uint8_t h[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make_header(h, "f", '0', "00000000000 ", "");
		memcpy(h + 124, cases[i].field, 12);
		put_checksum(h);
		ck_assert_msg(decode(h, &m, &err) == cases[i].rc, "case %zu", i);
		if (cases[i].rc == PGR_OK)
			ck_assert_uint_eq(m.size, cases[i].size);
		else
			ck_assert_str_eq(err.msg, "tar member \"f\" has an impossible size");
	}
}
END_TEST

START_TEST(mode_and_time)
{
	struct pgr_tar_member m;
	struct pgr_err err;
	uint8_t h[512];

	make_header(h, "f", '0', "00000000000 ", "");
	put_field(h, 100, "0140640 ");
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
	ck_assert_uint_eq(m.mode, 0640);

	put_field(h, 100, "rw-r----");
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "tar member \"f\" has a malformed mode or time");

	put_field(h, 100, "0000640 ");
	memset(h + 136, 'y', 12);
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_ERR);
	ck_assert_str_eq(err.msg, "tar member \"f\" has a malformed mode or time");
}
END_TEST

/* Every field full to its last byte, so that there is no NUL where one might be relied on. */
START_TEST(full_fields)
{
	struct pgr_tar_member m;
	struct pgr_err err;
	uint8_t h[512];

	make_header(h, "x", '2', "00000000000 ", "x");
	memset(h, 'n', 100);
	memset(h + 157, 'l', 100);
	memset(h + 345, 'p', 155);
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
	ck_assert_uint_eq(strlen(m.name), 256);
	ck_assert(m.name[0] == 'p' && m.name[154] == 'p' && m.name[155] == '/' && m.name[156] == 'n');
	ck_assert(m.name[255] == 'n');
	ck_assert_uint_eq(strlen(m.link), 100);

	memset(h + 345, 0, 155);
	put_field(h, 345, "..");
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_ERR);
	ck_assert_ptr_nonnull(strstr(err.msg, "unsafe name: \"../nnn"));
}
END_TEST

/* What stands behind a NUL is not part of the name, whatever it is. */
START_TEST(bytes_behind_nul)
{
	struct pgr_tar_member m;
	struct pgr_err err;
	uint8_t h[512];

	make_header(h, "l", '2', "00000000000 ", "/a");
	memcpy(h + 2, "/../../x", 8);
	memcpy(h + 160, "/b", 2);
	put_checksum(h);
	ck_assert_int_eq(decode(h, &m, &err), PGR_OK);
	ck_assert_str_eq(m.name, "l");
	ck_assert_str_eq(m.link, "/a");
}
END_TEST

/* ---- whole archives ---- */

/* The bytes that a reader gives, as one text: "type name link size:sum\n" a member, then how it ended. */
struct transcript {
	char text[4096];
	struct pgr_err err;
};

static void say(struct transcript *out, const char *fmt, ...) PGR_PRINTF(2, 3);
static void say(struct transcript *out, const char *fmt, ...)
{
	size_t n = strlen(out->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out->text + n, sizeof(out->text) - n, fmt, ap);
	va_end(ap);
}

static int read_member(struct pgr_tar_reader *t, size_t cap, uint64_t *size, unsigned *check, struct pgr_err *err)
{
	uint8_t buf[2048];
	size_t n;

	*size = 0;
	*check = 0;
	do {
		memset(buf, 0, sizeof(buf));
		if (pgr_tar_read(t, buf, cap, &n, err) != PGR_OK)
			return PGR_ERR;
		ck_assert_uint_le(n, cap);
		for (size_t i = 0; i < n; i++)
			*check = *check * 31 + buf[i];
		*size += n;
	} while (n > 0);
	return PGR_OK;
}

/* skip: 0 reads every member, 1 none, 2 ten bytes of each. */
static void replay(struct transcript *out, const void *data, size_t len, bool terminated, size_t chunk, size_t cap,
		   int skip)
{
	struct memory_source src = memory_source(data, len, chunk);
	struct pgr_tar_reader t;
	struct pgr_tar_member m;
	int rc;

	memset(out, 0, sizeof(*out));
	pgr_tar_reader_init(&t, &src.base, "base.tar", terminated);
	while ((rc = pgr_tar_next(&t, &m, &out->err)) == PGR_OK) {
		uint64_t size = 0;
		unsigned check = 0;
		uint8_t some[10];
		size_t n;

		say(out, "%d %s %s", (int)m.type, m.name, m.link);
		if (skip == 0 && (rc = read_member(&t, cap, &size, &check, &out->err)) != PGR_OK)
			break;
		if (skip == 2 && (rc = pgr_tar_read(&t, some, sizeof(some), &n, &out->err)) != PGR_OK)
			break;
		if (skip == 0)
			ck_assert_uint_eq(size, m.size);
		say(out, " %u\n", check);
	}
	say(out, "%s", rc == PGR_MORE ? "end" : out->err.msg);
	if (rc == PGR_MORE)
		ck_assert_uint_eq(src.pos, src.len);
}

static void sample(struct archive *a)
{
	a->len = 0;
	add_member(a, "backup_label", '0', 206, "");
	add_member(a, "base/", '5', 0, "");
	add_member(a, "base/empty", '0', 0, "");
	add_member(a, "base/one", '0', 1, "");
	add_member(a, "base/512", '0', 512, "");
	add_member(a, "base/513", '0', 513, "");
	add_member(a, "pg_tblspc/1/", '2', 0, "/srv/1");
	add_member(a, "base/8k", '0', 8192, "");
	add_member(a, "global/pg_control", '0', 8191, "");
}

#define SAMPLE_NAMES                                                                                                   \
	"0 backup_label  0\n1 base  0\n0 base/empty  0\n0 base/one  0\n0 base/512  0\n0 base/513  0\n"                 \
	"2 pg_tblspc/1 /srv/1 0\n0 base/8k  0\n0 global/pg_control  0\n"

START_TEST(reads_members)
{
	struct archive a;
	struct transcript whole, t;

	sample(&a);
	replay(&whole, a.data, a.len, false, SIZE_MAX, 2048, 0);
	ck_assert_ptr_nonnull(strstr(whole.text, "0 base/empty  0\n0 base/one  "));
	ck_assert_str_eq(whole.text + strlen(whole.text) - 3, "end");
	for (int skip = 0; skip < 3; skip++) {
		static const size_t chunks[] = {1, 2, 3, 511, 512, 513, 1000, 8193};

		for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
			for (size_t cap = 1; cap < 2048; cap = cap * 5 + 1) {
				replay(&t, a.data, a.len, false, chunks[i], cap, skip);
				ck_assert_str_eq(t.text, skip == 0 ? whole.text : SAMPLE_NAMES "end");
			}
		}
	}
}
END_TEST

/* The transcript of an archive that is cut at every possible place. */
START_TEST(cut_anywhere)
{
	static const bool both[] = {false, true};
	struct archive a = {.len = 0};
	struct transcript t;

	add_member(&a, "a", '0', 700, "");
	add_member(&a, "d/", '5', 0, "");
	add_zeros(&a, 1024);
	for (int b = 0; b < 2; b++) {
		for (size_t len = 0; len <= a.len; len++) {
			bool terminated = both[b];
			const char *want;

			replay(&t, a.data, len, terminated, 100, 100, 0);
			if (len == 0 || len == 1536 || len == 2048)
				want = terminated ? "archive \"base.tar\" ended without its end marker" : "end";
			else if (len >= 512 && len < 1536)
				want = "archive \"base.tar\" ended before its last file was finished";
			else if (len < 2560)
				want = "archive \"base.tar\" ended inside the header of a member";
			else if (len < 3072)
				want = terminated ? "archive \"base.tar\" ended inside its end marker" : "end";
			else
				want = "end";
			ck_assert_msg(strlen(t.text) >= strlen(want) &&
					      strcmp(t.text + strlen(t.text) - strlen(want), want) == 0,
				      "cut at %zu, terminated %d: %s", len, terminated, t.text);
			if (strcmp(want, "end") != 0)
				ck_assert_int_eq(t.err.cls, PGR_E_DATA);
		}
	}
}
END_TEST

START_TEST(after_the_end)
{
	struct archive a = {.len = 0};
	struct transcript t;

	add_member(&a, "a", '0', 3, "");
	add_zeros(&a, 1024);
	/* filled up to a tape's block, or with a part of a block of zeros */
	for (size_t zeros = 1; zeros < 10240; zeros += 511) {
		struct archive b = a;

		add_zeros(&b, zeros);
		replay(&t, b.data, b.len, true, 1000, 100, 1);
		ck_assert_str_eq(t.text, "0 a  0\nend");
		b.data[b.len - 1] = 1;
		replay(&t, b.data, b.len, true, 1000, 100, 1);
		ck_assert_str_eq(t.text, "0 a  0\narchive \"base.tar\" has data after its end");
		ck_assert_int_eq(t.err.cls, PGR_E_DATA);
	}
	/* a member behind the first block of zeros is not silently left out */
	a.len -= 512;
	add_member(&a, "b", '0', 3, "");
	for (int terminated = 0; terminated < 2; terminated++) {
		replay(&t, a.data, a.len, terminated, 1000, 100, 1);
		ck_assert_str_eq(t.text, "0 a  0\narchive \"base.tar\" has data after its end");
	}
}
END_TEST

/* The error of the source comes through as it is, wherever it strikes. */
START_TEST(source_fails)
{
	struct archive a;

	sample(&a);
	add_zeros(&a, 1024);
	for (size_t at = 0; at <= a.len; at += 97) {
		for (int skip = 0; skip < 2; skip++) {
			struct memory_source src = memory_source(a.data, a.len, 300);
			struct pgr_err err = {0};
			struct pgr_tar_reader t;
			struct pgr_tar_member m;
			uint64_t size;
			unsigned check;
			int rc;

			src.fail_at = at;
			pgr_tar_reader_init(&t, &src.base, "base.tar", true);
			while ((rc = pgr_tar_next(&t, &m, &err)) == PGR_OK)
				if (skip == 0 && (rc = read_member(&t, 100, &size, &check, &err)) != PGR_OK)
					break;
			ck_assert_int_eq(rc, PGR_ERR);
			ck_assert_int_eq(err.cls, PGR_E_NETWORK);
			ck_assert_str_eq(err.msg, "the line is dead");
		}
	}
}
END_TEST

START_TEST(bad_header_names_archive)
{
	struct archive a = {.len = 0};
	struct transcript t;

	add_member(&a, "a", '0', 3, "");
	add_member(&a, "../b", '0', 3, "");
	replay(&t, a.data, a.len, false, 1000, 100, 1);
	ck_assert_str_eq(t.text, "0 a  0\narchive \"base.tar\": tar member has an unsafe name: \"../b\"");
}
END_TEST

/* ---- sources ---- */

START_TEST(read_full)
{
	static const char text[] = "0123456789";
	char buf[16];
	struct pgr_err err = {0};

	for (size_t chunk = 1; chunk < 12; chunk++) {
		struct memory_source src = memory_source(text, 10, chunk);

		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 4, &err), PGR_OK);
		ck_assert_mem_eq(buf, "0123", 4);
		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 6, &err), PGR_OK);
		ck_assert_mem_eq(buf, "456789", 6);
		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 1, &err), PGR_MORE);
		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 0, &err), PGR_OK);

		src = memory_source(text, 10, chunk);
		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 11, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_DATA);
		ck_assert_str_eq(err.msg, "data ended after 10 of 11 bytes");

		src = memory_source(text, 10, chunk);
		src.fail_at = 5;
		ck_assert_int_eq(pgr_source_read_full(&src.base, buf, 6, &err), PGR_ERR);
		ck_assert_int_eq(err.cls, PGR_E_NETWORK);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tar");
	TCase *header = tcase_create("header"), *archive = tcase_create("archive");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(header, decodes, 0, sizeof(good) / sizeof(good[0]));
	tcase_add_loop_test(header, refuses, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(header, checksum);
	tcase_add_test(header, checksum_signed_or_not);
	tcase_add_test(header, magic);
	tcase_add_test(header, sizes_base256);
	tcase_add_test(header, mode_and_time);
	tcase_add_test(header, full_fields);
	tcase_add_test(header, bytes_behind_nul);
	suite_add_tcase(s, header);
	tcase_add_test(archive, reads_members);
	tcase_add_test(archive, cut_anywhere);
	tcase_add_test(archive, after_the_end);
	tcase_add_test(archive, source_fails);
	tcase_add_test(archive, bad_header_names_archive);
	tcase_add_test(archive, read_full);
	suite_add_tcase(s, archive);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
