#include "backup/tar_head.h"

#include <string.h>

#define NAME_BYTES 100u

/* A field: where, and how many bytes with the blank that ends a number. */
struct field {
	unsigned at, len;
};
static const struct field F_MODE = {100, 8};
static const struct field F_UID = {108, 8};
static const struct field F_GID = {116, 8};
static const struct field F_SIZE = {124, 12};
static const struct field F_MTIME = {136, 12};
static const struct field F_CHECKSUM = {148, 8};
static const struct field F_DEVMAJOR = {329, 8};
static const struct field F_DEVMINOR = {337, 8};
#define TYPEFLAG_AT 156
#define MAGIC_AT    257
#define UNAME_AT    265
#define GNAME_AT    297

/* The ids that pg_basebackup gives to what it adds (astreamer_inject_file): nobody's, on purpose. */
#define INJECTED_UID 04000u
#define INJECTED_GID 02000u

/* Octal digits and a blank; a number that they cannot hold in base 256 behind a byte 0x80, as src/port/tar.c does. */
static void put_number(uint8_t *block, struct field f, uint64_t v)
{
	uint8_t *p = block + f.at;
	unsigned digits = f.len - 1;

	if (v >> (3 * digits) == 0) {
		p[digits] = ' ';
		for (; digits > 0; v >>= 3)
			p[--digits] = (uint8_t)('0' + (v & 7));
		return;
	}
	for (unsigned i = f.len - 1; i > 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
	p[0] = 0x80;
}

/* The sum of all bytes, its own field counted as blanks. */
static void put_checksum(uint8_t *block)
{
	unsigned sum = 0;

	memset(block + F_CHECKSUM.at, ' ', F_CHECKSUM.len);
	for (unsigned i = 0; i < PGR_TAR_BLOCK; i++)
		sum += block[i];
	put_number(block, F_CHECKSUM, sum);
}

int pgr_tar_head_file(uint8_t block[PGR_TAR_BLOCK], const char *name, mode_t mode, uint64_t size, int64_t mtime,
		      struct pgr_err *err)
{
	size_t n = strlen(name);

	if (n >= NAME_BYTES)
		return pgr_err_set(err, PGR_E_DATA, "file name too long for tar format: \"%s\"", name);
	memset(block, 0, PGR_TAR_BLOCK);
	memcpy(block, name, n);
	put_number(block, F_MODE, mode & 07777);
	put_number(block, F_UID, INJECTED_UID);
	put_number(block, F_GID, INJECTED_GID);
	put_number(block, F_SIZE, size);
	put_number(block, F_MTIME, mtime > 0 ? (uint64_t)mtime : 0);
	block[TYPEFLAG_AT] = '0';
	memcpy(block + MAGIC_AT, "ustar\00000", 8);
	memcpy(block + UNAME_AT, "postgres", 8);
	memcpy(block + GNAME_AT, "postgres", 8);
	put_number(block, F_DEVMAJOR, 0);
	put_number(block, F_DEVMINOR, 0);
	put_checksum(block);
	return PGR_OK;
}

void pgr_tar_head_resize(uint8_t block[PGR_TAR_BLOCK], uint64_t size)
{
	put_number(block, F_SIZE, size);
	put_checksum(block);
}

unsigned pgr_tar_padding(uint64_t size)
{
	return (unsigned)(-size & (PGR_TAR_BLOCK - 1));
}
