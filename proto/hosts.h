/*
 * Several hosts in one connection string: what is left of the lists when some of them were tried.
 *
 * PostgreSQL documentation: "Specifying Multiple Hosts".
 */
#ifndef PGR_PROTO_HOSTS_H
#define PGR_PROTO_HOSTS_H

#include <stdbool.h>

struct pgr_setting;

/* Comma-separated lists, as the keywords of these names have them; NULL: not set.  Zeroed: all that libpq was told. */
struct pgr_hosts {
	const char *host, *hostaddr, *port;
};

/*
 * Leaves those behind the one that libpq says it was at (PQhost, PQport).  At the first time the lists are those of
 * `settings`, into which `h` points from then on.  False: none is left.
 */
bool pgr_hosts_after(struct pgr_hosts *h, const struct pgr_setting *settings, const char *host, const char *port);

#endif
