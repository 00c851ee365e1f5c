#include "receiver/walpage.h"

#include <inttypes.h>
#include <string.h>

/*
 * The magic changes with every change of the WAL's format, thus at least with every major version (and not within one).
 * Source: xlog_internal.h of each REL_*_STABLE branch.
 */
static const struct {
	uint16_t magic;
	const char *version;
} versions[] = {
	{0xD118, "18"},	 {0xD116, "17"},  {0xD113, "16"},  {0xD110, "15"},  {0xD10D, "14"},  {0xD106, "13"},
	{0xD101, "12"},	 {0xD098, "11"},  {0xD097, "10"},  {0xD093, "9.6"}, {0xD087, "9.5"}, {0xD07E, "9.4"},
	{0xD075, "9.3"}, {0xD071, "9.2"}, {0xD066, "9.1"}, {0xD064, "9.0"},
};

#define MAGIC_9_3 0xD075 /* first with 64-bit addresses and xlp_rem_len */
#define MAGIC_9_5 0xD087 /* first with CRC-32C and the present form of records */

const char *pgr_walpage_version(uint16_t magic)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		if (versions[i].magic == magic)
			return versions[i].version;
	return NULL;
}

bool pgr_walpage_has_crc32c(uint16_t magic)
{
	return magic >= MAGIC_9_5;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

bool pgr_walpage_parse(const void *page, size_t len, struct pgr_walpage *out)
{
	const uint8_t *p = page;

	memset(out, 0, sizeof(*out));
	if (len < PGR_WALPAGE_SHORT)
		return false;
	out->magic = get16(p);
	out->info = get16(p + 2);
	out->tli = get32(p + 4);
	out->addr = get64(p + 8);
	out->rem_len = get32(p + 16);
	out->padding = get32(p + 20);
	out->header_bytes = PGR_WALPAGE_SHORT;
	if ((out->info & PGR_WALPAGE_IS_LONG) == 0)
		return true;
	out->header_bytes = PGR_WALPAGE_LONG;
	if (len < PGR_WALPAGE_LONG)
		return false;
	out->system_id = get64(p + 24);
	out->segment_bytes = get32(p + 32);
	out->page_bytes = get32(p + 36);
	return true;
}

static bool is_page_size(uint32_t n)
{
	return n >= PGR_WALPAGE_MIN && n <= PGR_WALPAGE_MAX && (n & (n - 1)) == 0;
}

/* Of versions whose headers have this form. */
static int check_magic(const struct pgr_walpage *h, uint16_t want, struct pgr_err *err)
{
	const char *version = pgr_walpage_version(h->magic);

	if (want != 0 && h->magic != want && version != NULL && pgr_walpage_version(want) != NULL)
		return pgr_err_set(err, PGR_E_DATA, "page is of PostgreSQL %s (magic %04X) instead of %s", version,
				   h->magic, pgr_walpage_version(want));
	if (version == NULL || (want != 0 && h->magic != want))
		return pgr_err_set(err, PGR_E_DATA, "invalid magic number %04X", h->magic);
	if (h->magic < MAGIC_9_3)
		return pgr_err_set(err, PGR_E_DATA, "page is of PostgreSQL %s, which is not supported", version);
	return PGR_OK;
}

static int check_long(const struct pgr_walpage *h, const struct pgr_walpage_expect *e, struct pgr_err *err)
{
	if (e->system_id != 0 && h->system_id != e->system_id)
		return pgr_err_set(err, PGR_E_DATA, "page is of the system %" PRIu64 " instead of the system %" PRIu64,
				   h->system_id, e->system_id);
	if (h->segment_bytes != e->segment_bytes)
		return pgr_err_set(err, PGR_E_DATA,
				   "segment size in the page header is %" PRIu32 " instead of %" PRIu32,
				   h->segment_bytes, e->segment_bytes);
	if (e->page_bytes != 0 && h->page_bytes != e->page_bytes)
		return pgr_err_set(err, PGR_E_DATA, "block size in the page header is %" PRIu32 " instead of %" PRIu32,
				   h->page_bytes, e->page_bytes);
	if (!is_page_size(h->page_bytes))
		return pgr_err_set(err, PGR_E_DATA, "invalid block size %" PRIu32 " in the page header", h->page_bytes);
	return PGR_OK;
}

static int check_timeline(const struct pgr_walpage *h, const struct pgr_walpage_expect *e, struct pgr_err *err)
{
	bool low = e->tli_min != 0 && h->tli < e->tli_min;
	bool high = e->tli_max != 0 && h->tli > e->tli_max;

	if (h->tli == 0)
		return pgr_err_set(err, PGR_E_DATA, "page is of timeline 0");
	if ((low || high) && e->tli_min == e->tli_max)
		return pgr_err_set(err, PGR_E_DATA, "page is of timeline %" PRIu32 " instead of %" PRIu32, h->tli,
				   e->tli_max);
	if (low)
		return pgr_err_set(err, PGR_E_DATA, "page is of timeline %" PRIu32 ", after pages of timeline %" PRIu32,
				   h->tli, e->tli_min);
	if (high)
		return pgr_err_set(err, PGR_E_DATA, "page is of timeline %" PRIu32 ", above %" PRIu32, h->tli,
				   e->tli_max);
	return PGR_OK;
}

/* What the flags say about each other.  Of 0x0004 nothing is known: any page may have it. */
static int check_flags(const struct pgr_walpage *h, struct pgr_err *err)
{
	bool continues = (h->info & PGR_WALPAGE_CONTINUES) != 0;

	if ((h->info & ~PGR_WALPAGE_ALL_FLAGS) != 0)
		return pgr_err_set(err, PGR_E_DATA, "invalid flags %04X", h->info);
	if (continues && (h->info & PGR_WALPAGE_OVERWRITES) != 0)
		return pgr_err_set(err, PGR_E_DATA, "page both continues and overwrites a record");
	if (continues && h->rem_len == 0)
		return pgr_err_set(err, PGR_E_DATA, "page continues a record of which nothing is left");
	if (!continues && h->rem_len != 0)
		return pgr_err_set(err, PGR_E_DATA, "page does not continue a record, but %" PRIu32 " bytes are left",
				   h->rem_len);
	if (h->padding != 0)
		return pgr_err_set(err, PGR_E_DATA, "padding of the page header is not zero");
	return PGR_OK;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* A record begins with its length and a transaction, and only the latter may be zero. */
bool pgr_walpage_is_unused(const void *page)
{
	const uint16_t says_nothing = PGR_WALPAGE_REMOVABLE;
	const uint8_t *p = page;
	struct pgr_walpage h;

	if (is_zero(p, PGR_WALPAGE_BEGINNING))
		return true;
	return pgr_walpage_parse(p, PGR_WALPAGE_SHORT, &h) && pgr_walpage_version(h.magic) != NULL &&
	       (h.info & ~says_nothing) == 0 && h.rem_len == 0 &&
	       is_zero(p + PGR_WALPAGE_SHORT, PGR_WALPAGE_BEGINNING - PGR_WALPAGE_SHORT);
}

static int check_header(const struct pgr_walpage *h, const struct pgr_walpage_expect *e, bool wants_long,
			struct pgr_err *err)
{
	bool is_long = (h->info & PGR_WALPAGE_IS_LONG) != 0;

	if (check_magic(h, e->magic, err) != PGR_OK)
		return PGR_ERR;
	if (h->addr != e->addr)
		return pgr_err_set(err, PGR_E_DATA, "page says that it is %" PGR_LSN_FMT, PGR_LSN_ARG(h->addr));
	if (wants_long && !is_long)
		return pgr_err_set(err, PGR_E_DATA, "first page of a segment without a long header");
	if (!wants_long && is_long)
		return pgr_err_set(err, PGR_E_DATA, "long header inside a segment");
	if (is_long && check_long(h, e, err) != PGR_OK)
		return PGR_ERR;
	if (check_timeline(h, e, err) != PGR_OK)
		return PGR_ERR;
	return check_flags(h, err);
}

int pgr_walpage_check(const void *page, size_t len, const struct pgr_walpage_expect *e, struct pgr_walpage *out,
		      struct pgr_err *err)
{
	bool wants_long = pgr_lsn_segoff(e->addr, e->segment_bytes) == 0;
	size_t need = wants_long ? PGR_WALPAGE_LONG : PGR_WALPAGE_SHORT;
	struct pgr_walpage h;
	int rc;

	if (out != NULL)
		memset(out, 0, sizeof(*out));
	if (len < need)
		return PGR_MORE;
	/* what a flipped flag makes of a short header is judged by the flag alone */
	(void)pgr_walpage_parse(page, len, &h);
	if (out != NULL)
		*out = h;
	if (is_zero(page, need))
		rc = pgr_err_set(err, PGR_E_DATA, "page is empty");
	else
		rc = check_header(&h, e, wants_long, err);
	if (rc != PGR_OK)
		pgr_err_prefix(err, "%" PGR_LSN_FMT, PGR_LSN_ARG(e->addr));
	return rc;
}

int pgr_walpage_first(const void *page, size_t len, struct pgr_walpage *out, struct pgr_err *err)
{
	struct pgr_walpage_expect e = {0};

	memset(out, 0, sizeof(*out));
	if (len < PGR_WALPAGE_LONG)
		return PGR_MORE;
	if (is_zero(page, PGR_WALPAGE_LONG))
		return pgr_err_set(err, PGR_E_DATA, "page is empty");
	(void)pgr_walpage_parse(page, len, out);
	if (check_magic(out, 0, err) != PGR_OK)
		return PGR_ERR;
	if ((out->info & PGR_WALPAGE_IS_LONG) == 0)
		return pgr_err_set(err, PGR_E_DATA, "first page of a segment without a long header");
	if (!pgr_walseg_valid(out->segment_bytes))
		return pgr_err_set(err, PGR_E_DATA, "invalid segment size %" PRIu32 " in the page header",
				   out->segment_bytes);
	if (pgr_lsn_segoff(out->addr, out->segment_bytes) != 0)
		return pgr_err_set(err, PGR_E_DATA, "page says that it is %" PGR_LSN_FMT, PGR_LSN_ARG(out->addr));
	e.segment_bytes = out->segment_bytes;
	if (check_long(out, &e, err) != PGR_OK || check_timeline(out, &e, err) != PGR_OK)
		return PGR_ERR;
	return check_flags(out, err);
}
