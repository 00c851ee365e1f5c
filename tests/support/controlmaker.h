/*
 * A pg_control as 13 to 16 write it, with what a test needs in it.
 */
#ifndef PGR_TESTS_CONTROLMAKER_H
#define PGR_TESTS_CONTROLMAKER_H

#include <stdint.h>
#include <string.h>

#include "common/crc32c.h"

#define CONTROL_BYTES 8192

struct control_values {
	uint64_t system_identifier;
	uint32_t state; /* DBState; 6: in production */
	uint64_t redo;
	uint32_t tli;
	uint64_t min_recovery;
};

static inline void control_put(uint8_t *file, size_t at, const void *value, size_t size)
{
	memcpy(file + at, value, size);
}

static inline void control_put32(uint8_t *file, size_t at, uint32_t value)
{
	control_put(file, at, &value, sizeof(value));
}

/* ControlFileData of PG_CONTROL_VERSION 1300: 8 KB blocks, 1 GB files, 16 MB of WAL in a segment, checksums. */
static inline void control_make(uint8_t file[CONTROL_BYTES], const struct control_values *v)
{
	static const double format = 1234567.0;
	uint64_t checkpoint = v->redo + 0x38;

	memset(file, 0, CONTROL_BYTES);
	control_put(file, 0, &v->system_identifier, 8);
	control_put32(file, 8, 1300);
	control_put32(file, 12, 202209061);
	control_put32(file, 16, v->state);
	control_put(file, 32, &checkpoint, 8);
	control_put(file, 40, &v->redo, 8);
	control_put32(file, 48, v->tli);
	control_put(file, 136, &v->min_recovery, 8);
	control_put32(file, 144, v->min_recovery != 0 ? v->tli : 0);
	control_put32(file, 204, 8);
	control_put(file, 208, &format, 8);
	control_put32(file, 216, 8192);
	control_put32(file, 220, 131072);
	control_put32(file, 224, 8192);
	control_put32(file, 228, 16u << 20);
	control_put32(file, 252, 1);
	control_put32(file, 288, pgr_crc32c(0, file, 288));
}

#endif
