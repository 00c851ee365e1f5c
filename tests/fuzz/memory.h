/*
 * A source of bytes in memory, for fuzz targets: whole, or in pieces whose sizes follow from a number.
 */
#ifndef PGR_TESTS_FUZZ_MEMORY_H
#define PGR_TESTS_FUZZ_MEMORY_H

#include <stdint.h>
#include <string.h>

#include "backup/source.h"

struct memory {
	struct pgr_source source; /* first */
	const uint8_t *data;
	size_t left;
	uint32_t random; /* 0: as much as is asked for */
};

static inline int memory_read(struct pgr_source *s, void *dst, size_t cap, size_t *n, struct pgr_err *err)
{
	struct memory *m = (struct memory *)s;

	(void)err;
	*n = cap < m->left ? cap : m->left;
	if (m->random != 0 && *n > 1) {
		m->random = m->random * 1664525u + 1013904223u;
		*n = 1 + (m->random >> 8) % (m->random & 1 ? *n : *n < 7 ? *n : 7);
	}
	if (*n > 0)
		memcpy(dst, m->data, *n);
	m->data += *n;
	m->left -= *n;
	return PGR_OK;
}

static inline struct memory memory_of(const void *data, size_t len, uint32_t random)
{
	return (struct memory){.source = {.read = memory_read}, .data = data, .left = len, .random = random};
}

#endif
