#include "proto/settings.h"

#include <stdlib.h>
#include <string.h>

void pgr_secret_free(char *s)
{
	if (s != NULL)
		explicit_bzero(s, strlen(s));
	free(s);
}

void pgr_settings_free(struct pgr_setting *list)
{
	for (struct pgr_setting *s = list; s != NULL && s->keyword != NULL; s++) {
		free(s->keyword);
		pgr_secret_free(s->value);
	}
	free(list);
}

const char *pgr_settings_find(const struct pgr_setting *list, const char *keyword)
{
	for (; list != NULL && list->keyword != NULL; list++)
		if (strcmp(list->keyword, keyword) == 0)
			return list->value;
	return NULL;
}

int pgr_settings_add(struct pgr_setting *list, const char *keyword, const char *value, struct pgr_err *err)
{
	while (list->keyword != NULL)
		list++;
	list->value = strdup(value);
	if (list->value == NULL)
		return pgr_err_nomem(err);
	list->keyword = strdup(keyword);
	if (list->keyword == NULL) {
		pgr_secret_free(list->value);
		list->value = NULL;
		return pgr_err_nomem(err);
	}
	return PGR_OK;
}

int pgr_settings_copy(const struct pgr_setting *list, struct pgr_setting **out, struct pgr_err *err)
{
	size_t n = 0;

	while (list[n].keyword != NULL)
		n++;
	*out = calloc(n + 1, sizeof(**out));
	if (*out == NULL)
		return pgr_err_nomem(err);
	for (size_t i = 0; i < n; i++) {
		if (pgr_settings_add(*out, list[i].keyword, list[i].value, err) != PGR_OK) {
			pgr_settings_free(*out);
			*out = NULL;
			return PGR_ERR;
		}
	}
	return PGR_OK;
}
