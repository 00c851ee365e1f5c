#include "backup/tblspc_map.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/path.h"

static bool is_windows_sep(char c)
{
	return c == '/' || c == '\\';
}

/* The server may run on another system than we do: either one's idea of an absolute path will do. */
static bool is_absolute_somewhere(const char *path)
{
	if (is_windows_sep(path[0]))
		return true;
	return isalpha((unsigned char)path[0]) && path[1] == ':' && is_windows_sep(path[2]);
}

/* Splits at the "=" that has no backslash before it; old_dir and new_dir are zeroed, with room for all of arg. */
static int split_mapping(const char *arg, char *old_dir, char *new_dir, struct pgr_err *err)
{
	char *dst = old_dir;

	for (const char *p = arg; *p != '\0'; p++) {
		if (p[0] == '\\' && p[1] == '=')
			continue;
		if (*p == '=' && (p == arg || p[-1] != '\\')) {
			if (*new_dir != '\0')
				return pgr_err_set(err, PGR_E_USAGE, "multiple \"=\" signs in tablespace mapping");
			dst = new_dir;
			continue;
		}
		*dst++ = *p;
	}
	if (*old_dir == '\0' || *new_dir == '\0')
		return pgr_err_set(err, PGR_E_USAGE,
				   "invalid tablespace mapping format \"%s\", must be \"OLDDIR=NEWDIR\"", arg);
	return PGR_OK;
}

static int check_mapping(const struct pgr_tblspc_map *m, struct pgr_err *err)
{
	if (strlen(m->old_dir) >= PATH_MAX || strlen(m->new_dir) >= PATH_MAX)
		return pgr_err_set(err, PGR_E_USAGE, "directory name too long");
	if (!is_absolute_somewhere(m->old_dir))
		return pgr_err_set(err, PGR_E_USAGE, "old directory is not an absolute path in tablespace mapping: %s",
				   m->old_dir);
	if (m->new_dir[0] != '/')
		return pgr_err_set(err, PGR_E_USAGE, "new directory is not an absolute path in tablespace mapping: %s",
				   m->new_dir);
	return PGR_OK;
}

/* A list element with room for `cap` bytes on both sides. */
static struct pgr_tblspc_map *map_new(size_t cap)
{
	struct pgr_tblspc_map *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->old_dir = calloc(1, cap);
	m->new_dir = calloc(1, cap);
	if (m->old_dir != NULL && m->new_dir != NULL)
		return m;
	pgr_tblspc_map_free(m);
	return NULL;
}

/* The first mapping of a directory is the one that counts, as in pg_basebackup. */
static void map_append(struct pgr_tblspc_map **list, struct pgr_tblspc_map *m)
{
	while (*list != NULL)
		list = &(*list)->next;
	*list = m;
}

int pgr_tblspc_map_add(struct pgr_tblspc_map **list, const char *arg, struct pgr_err *err)
{
	struct pgr_tblspc_map *m = map_new(strlen(arg) + 1);

	if (m == NULL)
		return pgr_err_nomem(err);
	if (split_mapping(arg, m->old_dir, m->new_dir, err) != PGR_OK || check_mapping(m, err) != PGR_OK) {
		pgr_tblspc_map_free(m);
		return PGR_ERR;
	}
	pgr_path_canonicalize(m->old_dir);
	pgr_path_canonicalize(m->new_dir);
	map_append(list, m);
	return PGR_OK;
}

void pgr_tblspc_map_free(struct pgr_tblspc_map *list)
{
	while (list != NULL) {
		struct pgr_tblspc_map *next = list->next;

		free(list->old_dir);
		free(list->new_dir);
		free(list);
		list = next;
	}
}

int pgr_tblspc_map_copy(struct pgr_tblspc_map **out, const struct pgr_tblspc_map *from, struct pgr_err *err)
{
	for (; from != NULL; from = from->next) {
		size_t a = strlen(from->old_dir), b = strlen(from->new_dir);
		struct pgr_tblspc_map *m = map_new((a > b ? a : b) + 1);

		if (m == NULL)
			return pgr_err_nomem(err);
		memcpy(m->old_dir, from->old_dir, a);
		memcpy(m->new_dir, from->new_dir, b);
		map_append(out, m);
	}
	return PGR_OK;
}

const char *pgr_tblspc_map_find(const struct pgr_tblspc_map *list, const char *old_dir)
{
	for (; list != NULL; list = list->next)
		if (strcmp(list->old_dir, old_dir) == 0)
			return list->new_dir;
	return NULL;
}
