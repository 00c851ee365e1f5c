#include "common/lsn.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/num.h"

/* Segments whose names share the middle eight digits: one "xlogid" is 4 GiB of WAL. */
static uint64_t segs_per_id(uint32_t segsize)
{
	return UINT64_C(0x100000000) / segsize;
}

bool pgr_lsn_parse(const char *s, size_t len, pgr_lsn *out)
{
	const char *slash = len > 0 ? memchr(s, '/', len) : NULL;
	uint64_t hi, lo;

	if (slash == NULL)
		return false;

	size_t left = (size_t)(slash - s);
	size_t right = len - left - 1;

	if (left > 8 || right > 8)
		return false;
	if (!pgr_num_hex64(s, left, &hi) || !pgr_num_hex64(slash + 1, right, &lo))
		return false;
	*out = hi << 32 | lo;
	return true;
}

bool pgr_walseg_valid(uint64_t n)
{
	return n >= PGR_WALSEG_MIN && n <= PGR_WALSEG_MAX && (n & (n - 1)) == 0;
}

void pgr_walname_format(char out[PGR_WALNAME_LEN + 1], pgr_tli tli, pgr_segno seg, uint32_t segsize)
{
	uint64_t per_id = segs_per_id(segsize);

	snprintf(out, PGR_WALNAME_LEN + 1, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32, tli, (uint32_t)(seg / per_id),
		 (uint32_t)(seg % per_id));
}

/* Eight upper-case hex digits; a string that ends earlier fails at its NUL. */
static bool parse_hex8(const char *s, uint64_t *out)
{
	for (int i = 0; i < 8; i++) {
		bool ok = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'F');

		if (!ok)
			return false;
	}
	return pgr_num_hex64(s, 8, out);
}

bool pgr_walname_parse(const char *name, uint32_t segsize, pgr_tli *tli, pgr_segno *seg)
{
	uint64_t t, hi, lo;

	if (!pgr_walseg_valid(segsize))
		return false;
	if (!parse_hex8(name, &t) || !parse_hex8(name + 8, &hi) || !parse_hex8(name + 16, &lo))
		return false;
	if (t == 0 || lo >= segs_per_id(segsize))
		return false;
	*tli = (pgr_tli)t;
	*seg = hi * segs_per_id(segsize) + lo;
	return true;
}

void pgr_historyname_format(char out[17], pgr_tli tli)
{
	snprintf(out, 17, "%08" PRIX32 ".history", tli);
}
