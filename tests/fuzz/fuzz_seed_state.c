/*
 * The state that a run of --delta leaves in a directory, as somebody damaged or made it; and the same with the right
 * checksum at its end, since a fuzzer does not find one.
 *
 * What is accepted says the same when it is written again; what is not leaves nothing behind.
 */
#include <stdlib.h>
#include <string.h>

#include "backup/seed_state.h"
#include "common/crc32c.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void insist(bool ok)
{
	if (!ok)
		abort();
}

static void play(const char *text, size_t len)
{
	static const struct pgr_olddir_state nothing;
	struct pgr_olddir_state s;
	struct pgr_err err = {0};
	struct pgr_buf again = {0};

	if (pgr_seed_state_parse(text, len, &s, &err) != PGR_OK) {
		insist(err.cls == PGR_E_DATA && err.msg[0] != '\0');
		insist(memcmp(&s, &nothing, sizeof(s)) == 0);
		return;
	}
	insist(memchr(s.system_identifier, '\0', sizeof(s.system_identifier)) != NULL);
	insist(pgr_seed_state_format(&again, &s, &err) == PGR_OK);
	insist(again.len == len && memcmp(again.data, text, len) == 0);
	pgr_buf_fini(&again);
}

/* The length without the last line, if that has a checksum. */
static size_t body_of(const uint8_t *data, size_t size)
{
	const uint8_t *key = size > 0 ? memmem(data, size, "crc32c: ", 8) : NULL;

	return key != NULL ? (size_t)(key - data) : size;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	struct pgr_buf b = {0};
	struct pgr_err err;
	size_t body = body_of(data, size);

	insist(pgr_buf_put(&b, data, size, &err) == PGR_OK && pgr_buf_str(&b) != NULL);
	play((const char *)b.data, size);
	b.len = 0;
	insist(pgr_buf_put(&b, data, body, &err) == PGR_OK);
	insist(pgr_buf_printf(&b, &err, "crc32c: %08X\n", pgr_crc32c(0, data, body)) == PGR_OK);
	insist(pgr_buf_str(&b) != NULL);
	play((const char *)b.data, b.len);
	pgr_buf_fini(&b);
	return 0;
}
