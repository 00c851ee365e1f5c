#include "backup/full_label.h"

#include <stdbool.h>
#include <string.h>

static bool is_incremental(const char *line, size_t len)
{
	static const char key[] = "INCREMENTAL FROM ";

	return len >= sizeof(key) - 1 && memcmp(line, key, sizeof(key) - 1) == 0;
}

int pgr_full_label(struct pgr_buf *out, const void *text, size_t len, struct pgr_err *err)
{
	const char *p = text;

	while (len > 0) {
		const char *end = memchr(p, '\n', len);
		size_t n = end != NULL ? (size_t)(end - p) + 1 : len;

		if (!is_incremental(p, n) && pgr_buf_put(out, p, n, err) != PGR_OK)
			return PGR_ERR;
		p += n;
		len -= n;
	}
	return PGR_OK;
}
