#include "proto/hosts.h"

#include <string.h>

#include "proto/settings.h"

/* What follows the first n elements of a comma-separated list; NULL: nothing. */
static const char *list_skip(const char *list, unsigned n)
{
	for (; list != NULL && n > 0; n--) {
		list = strchr(list, ',');
		list = list != NULL ? list + 1 : NULL;
	}
	return list;
}

/* Whether element i of a list is `text`; a list of one stands for all, an empty element for anything. */
static bool element_is(const char *list, unsigned i, const char *text)
{
	const char *e = list != NULL && strchr(list, ',') == NULL ? list : list_skip(list, i);
	size_t len = e != NULL ? strcspn(e, ",") : 0;

	return len == 0 || (len == strlen(text) && memcmp(e, text, len) == 0);
}

bool pgr_hosts_after(struct pgr_hosts *h, const struct pgr_setting *settings, const char *host, const char *port)
{
	unsigned i = 0;

	if (h->host == NULL && h->hostaddr == NULL) {
		h->host = pgr_settings_find(settings, "host");
		h->hostaddr = pgr_settings_find(settings, "hostaddr");
		h->port = pgr_settings_find(settings, "port");
	}

	const char *names = h->host != NULL ? h->host : h->hostaddr; /* what PQhost tells */

	while (list_skip(names, i) != NULL && !(element_is(names, i, host) && element_is(h->port, i, port)))
		i++;
	h->host = list_skip(h->host, i + 1);
	h->hostaddr = list_skip(h->hostaddr, i + 1);
	if (h->port != NULL && strchr(h->port, ',') != NULL)
		h->port = list_skip(h->port, i + 1);
	return pgr_setting_given(h->host) || pgr_setting_given(h->hostaddr);
}
