#include "common/path.h"

#include <limits.h>
#include <string.h>

bool pgr_path_is_dots(const char *s, size_t n)
{
	return (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.');
}

bool pgr_path_is_safe(const char *path)
{
	size_t len = strnlen(path, PATH_MAX);

	if (len == 0 || len == PATH_MAX)
		return false;
	for (const char *p = path; *p != '\0';) {
		size_t n = strcspn(p, "/");

		if (n == 0 || pgr_path_is_dots(p, n))
			return false;
		p += n;
		if (*p == '/')
			p++;
	}
	return true;
}

/*
 * `path[0..n)` is canonical: forgets its last component for a ".."; where there is none to forget, it stays (relative)
 * or goes (below the root).
 */
static size_t canonical_up(char *path, size_t n, size_t root)
{
	size_t cut = n;

	while (cut > root && path[cut - 1] != '/')
		cut--;
	if (n > root && !pgr_path_is_dots(path + cut, n - cut))
		return cut > root ? cut - 1 : root;
	if (root == 1)
		return n;
	if (n > 0)
		path[n++] = '/';
	memcpy(path + n, "..", 2);
	return n + 2;
}

void pgr_path_canonicalize(char *path)
{
	size_t root = path[0] == '/' ? 1 : 0;
	size_t n = root; /* of the result, which is never longer than what has been read */

	if (path[0] == '\0')
		return;
	for (const char *p = path; *p != '\0';) {
		size_t len = strcspn(p, "/");

		if (len == 2 && pgr_path_is_dots(p, len)) {
			n = canonical_up(path, n, root);
		} else if (len > 0 && !pgr_path_is_dots(p, len)) {
			if (n > root)
				path[n++] = '/';
			memmove(path + n, p, len);
			n += len;
		}
		p += len + (p[len] == '/' ? 1 : 0);
	}
	if (n == 0)
		path[n++] = '.';
	path[n] = '\0';
}
