#include <string.h>

#include "common/num.h"
#include "proto/caps.h"
#include "receiver/rx.h"

/* Whether this is the magic number of the server's version: "15" of 15.20, "9.6" of 9.6.24. */
static bool is_of_version(uint16_t magic, int server_version)
{
	const char *version = pgr_walpage_version(magic);
	size_t len = version != NULL ? strlen(version) : 0;
	char text[16];

	pgr_version_format(text, server_version);
	return len > 0 && strncmp(text, version, len) == 0 && (text[len] == '.' || text[len] == '\0');
}

/* A server of the other byte order: its WAL can be kept here, but not read. */
static bool is_swapped(const uint8_t head[PGR_WALPAGE_LONG])
{
	uint8_t swapped[2] = {head[1], head[0]};
	uint16_t magic;

	memcpy(&magic, swapped, sizeof(magic));
	return pgr_walpage_version(magic) != NULL;
}

static int check_head(struct pgr_receiver *r, pgr_lsn addr, struct pgr_err *err)
{
	const struct pgr_walpage_expect e = {
		.system_id = r->server_id,
		.segment_bytes = r->segment_bytes,
		.addr = addr,
		.tli_max = r->tli,
	};
	struct pgr_walpage h;
	char text[16];

	if (is_swapped(r->head))
		return PGR_OK;
	if (pgr_walpage_check(r->head, sizeof(r->head), &e, &h, err) != PGR_OK)
		return pgr_err_prefix(err, "the server sent what is not its write-ahead log");
	if (is_of_version(h.magic, pgr_client_version(r->client)))
		return PGR_OK;
	pgr_version_format(text, pgr_client_version(r->client));
	return pgr_err_set(err, PGR_E_DATA,
			   "the server sent what is not its write-ahead log: %" PGR_LSN_FMT
			   ": page is of PostgreSQL %s, but the server is %s",
			   PGR_LSN_ARG(addr), pgr_walpage_version(h.magic), text);
}

void pgr_rx_page_init(struct pgr_receiver *r, const struct pgr_system_id *id)
{
	int version = pgr_client_version(r->client);

	/* what a newer version writes is not known */
	r->check_pages = pgr_cap_has(version, PGR_CAP_WAL_STREAM) && version / 10000 <= PGR_SERVER_MAX_MAJOR;
	if (!pgr_num_u64(id->system_identifier, strlen(id->system_identifier), &r->server_id))
		r->server_id = 0;
}

int pgr_rx_check_pages(struct pgr_receiver *r, pgr_lsn at, struct pgr_span wal, struct pgr_err *err)
{
	while (r->check_pages && wal.len > 0) {
		uint32_t off = pgr_lsn_segoff(at, r->segment_bytes);
		size_t left = r->segment_bytes - off;
		size_t n = left < wal.len ? left : wal.len;

		if (off < sizeof(r->head)) {
			size_t want = sizeof(r->head) - off;

			memcpy(r->head + off, wal.p, n < want ? n : want);
			if (n >= want && check_head(r, at - off, err) != PGR_OK)
				return PGR_ERR;
		}
		at += n;
		wal.p += n;
		wal.len -= n;
	}
	return PGR_OK;
}

bool pgr_rx_is_inside_head(const struct pgr_receiver *r)
{
	uint32_t off = pgr_lsn_segoff(pgr_rx_position(r), r->segment_bytes);

	return r->check_pages && off > 0 && off < sizeof(r->head);
}
