#include "backup/label.h"

#include <stdint.h>
#include <string.h>

#include "common/num.h"

/* The rest of the line that begins with `key`; NULL: there is none. */
static const char *find_line(const char *at, size_t left, const char *key, size_t *len)
{
	size_t n = strlen(key);

	while (left > 0) {
		const char *nl = memchr(at, '\n', left);
		size_t line = nl != NULL ? (size_t)(nl - at) : left;

		if (line >= n && memcmp(at, key, n) == 0) {
			*len = line - n;
			return at + n;
		}
		at += nl != NULL ? line + 1 : line;
		left -= nl != NULL ? line + 1 : line;
	}
	return NULL;
}

bool pgr_label_start(const void *text, size_t len, pgr_lsn *start, pgr_tli *tli)
{
	static const char file[] = " (file ";
	size_t line, n;
	const char *at = find_line(text, len, "START WAL LOCATION: ", &line);
	const char *space = at != NULL ? memchr(at, ' ', line) : NULL;
	uint64_t from_file;

	if (space == NULL || !pgr_lsn_parse(at, (size_t)(space - at), start) || *start == PGR_LSN_INVALID)
		return false;
	n = line - (size_t)(space - at);
	if (n != strlen(file) + PGR_WALNAME_LEN + 1 || memcmp(space, file, strlen(file)) != 0 ||
	    !pgr_num_hex64(space + strlen(file), 8, &from_file))
		return false;
	*tli = (pgr_tli)from_file;
	at = find_line(text, len, "START TIMELINE: ", &line);
	return *tli != 0 && (at == NULL || (pgr_num_u32(at, line, tli) && *tli == from_file));
}
