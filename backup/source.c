#include "backup/source.h"

#include <stdint.h>

int pgr_source_read_full(struct pgr_source *s, void *dst, size_t len, struct pgr_err *err)
{
	uint8_t *p = dst;
	size_t got = 0;

	while (got < len) {
		size_t n;

		if (pgr_source_read(s, p + got, len - got, &n, err) != PGR_OK)
			return PGR_ERR;
		if (n == 0)
			return got == 0 ? PGR_MORE
					: pgr_err_set(err, PGR_E_DATA, "data ended after %zu of %zu bytes", got, len);
		got += n;
	}
	return PGR_OK;
}
