/*
 * A tar archive of a hostile server: the reader must survive it, give only safe names and sane sizes, and not care in
 * which pieces the bytes come.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/tar.h"
#include "common/path.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define CHECK(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond)) {                                                                                         \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                     \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

static uint64_t mix(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

static void check_member(const struct pgr_tar_member *m)
{
	size_t name = strnlen(m->name, sizeof(m->name)), target = strnlen(m->link, sizeof(m->link));

	CHECK(name > 0 && name < sizeof(m->name) && m->name[name - 1] != '/');
	CHECK(pgr_path_is_safe(m->name));
	CHECK(target < sizeof(m->link) && (m->type == PGR_TAR_SYMLINK) == (target > 0));
	CHECK(m->mode <= 07777 && m->size <= (uint64_t)1 << 62);
	CHECK(m->type == PGR_TAR_FILE || m->size == 0);
}

static uint64_t mix_member(uint64_t h, const struct pgr_tar_member *m)
{
	h = mix(h, m->name, strlen(m->name) + 1);
	h = mix(h, m->link, strlen(m->link) + 1);
	h = mix(h, &m->type, sizeof(m->type));
	h = mix(h, &m->mode, sizeof(m->mode));
	h = mix(h, &m->size, sizeof(m->size));
	return mix(h, &m->mtime, sizeof(m->mtime));
}

/* Everything that a reader says about the archive, as one number. */
static uint64_t digest(const uint8_t *data, size_t len, bool terminated, uint32_t seed)
{
	struct memory src = memory_of(data, len, seed);
	struct pgr_tar_reader t;
	struct pgr_tar_member m;
	struct pgr_err err = {0};
	uint64_t h = 0xcbf29ce484222325u;
	int rc;

	pgr_tar_reader_init(&t, &src.source, "fuzz", terminated);
	while ((rc = pgr_tar_next(&t, &m, &err)) == PGR_OK) {
		uint8_t buf[700];
		size_t n;
		bool skip = m.size % 3 == 1;

		check_member(&m);
		h = mix_member(h, &m);
		while (!skip && (rc = pgr_tar_read(&t, buf, sizeof(buf), &n, &err)) == PGR_OK && n > 0)
			h = mix(h, buf, n);
		if (rc != PGR_OK)
			break;
	}
	if (rc == PGR_MORE)
		CHECK(src.left == 0);
	else
		CHECK(err.cls == PGR_E_DATA && err.msg[0] != '\0');
	h = mix(h, &rc, sizeof(rc));
	return mix(h, err.msg, strlen(err.msg));
}

/* A header with the checksum that it ought to have, so that mutations get past it. */
static void check_decode(const uint8_t *data)
{
	struct pgr_tar_member m;
	struct pgr_err err = {0};
	uint8_t block[PGR_TAR_BLOCK];
	char text[8];
	unsigned sum = 0;
	int rc;

	memcpy(block, data, sizeof(block));
	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(block); i++)
		sum += block[i];
	snprintf(text, sizeof(text), "%06o", sum & 0777777);
	memcpy(block + 148, text, 7);
	rc = pgr_tar_decode(block, &m, &err);
	CHECK(rc != PGR_MORE && (rc == PGR_OK || err.cls == PGR_E_DATA));
	CHECK(strcmp(err.msg, "tar header has a wrong checksum") != 0);
	if (rc == PGR_OK)
		check_member(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint32_t seed = (uint32_t)mix(1, data, len) | 1;

	for (int terminated = 0; terminated < 2; terminated++)
		CHECK(digest(data, len, terminated, 0) == digest(data, len, terminated, seed));
	if (len >= PGR_TAR_BLOCK)
		check_decode(data);
	return 0;
}
