#include "backup/controlfile.h"

#include <inttypes.h>
#include <string.h>

#include "common/crc32c.h"

/* ---- the CRC, wherever it is ---- */

/*
 * The CRC is the last member of ControlFileData, behind 280 to 292 bytes in 10 to 18 on 64-bit machines, fewer where
 * int64 needs no alignment, and never beyond PG_CONTROL_MAX_SAFE_SIZE (512).  It is looked for, so that neither the
 * next version nor the server's byte order matters; that a torn file passes by accident remains a matter of one in
 * 2^25.
 */
#define CRC_FIRST 256
#define CRC_LAST  (512 - 4)

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool pgr_controlfile_crc_holds(const void *data, size_t len)
{
	const uint8_t *bytes = data;
	uint32_t crc;

	if (len < CRC_LAST + 4)
		return false;
	crc = pgr_crc32c(0, bytes, CRC_FIRST);
	for (size_t at = CRC_FIRST; at <= CRC_LAST; at += 4) {
		uint32_t le = le32(bytes + at);

		if (crc == le || crc == __builtin_bswap32(le))
			return true;
		crc = pgr_crc32c(crc, bytes + at, 4);
	}
	return false;
}

/* ---- what stands in it ---- */

const char *pgr_dbstate_name(enum pgr_dbstate s)
{
	static const char *const names[PGR_DB_STATES] = {
		[PGR_DB_STARTUP] = "starting up",
		[PGR_DB_SHUTDOWNED] = "shut down",
		[PGR_DB_SHUTDOWNED_IN_RECOVERY] = "shut down in recovery",
		[PGR_DB_SHUTDOWNING] = "shutting down",
		[PGR_DB_IN_CRASH_RECOVERY] = "in crash recovery",
		[PGR_DB_IN_ARCHIVE_RECOVERY] = "in archive recovery",
		[PGR_DB_IN_PRODUCTION] = "in production",
	};

	return (unsigned)s < PGR_DB_STATES ? names[s] : "unrecognized status code";
}

/*
 * Where the members of ControlFileData are, on a 64-bit machine.  Those before checkPoint have never moved, those of
 * CheckPoint that are read here (redo, ThisTimeLineID) are its first.
 */
#define AT_SYSTEM_IDENTIFIER 0
#define AT_CONTROL_VERSION   8
#define AT_CATALOG_VERSION   12
#define AT_STATE	     16
#define AT_CHECKPOINT	     32
#define IN_CHECKPOINT_TLI    8
#define TO_WAL_LEVEL	     36

struct place {
	uint32_t version;	  /* PG_CONTROL_VERSION */
	uint16_t checkpoint_copy; /* a CheckPoint */
	uint16_t min_recovery;	  /* the timeline behind it, backupStartPoint behind that, and wal_level */
	uint16_t max_align;
	uint16_t float_format;
	uint16_t block_bytes; /* and segment_blocks behind it */
	uint16_t wal_segment_bytes;
	uint16_t checksum_version;
	uint16_t crc;
};

/*
 * 11 lost prevCheckPoint, 12 has a 64-bit nextXid in CheckPoint and max_wal_senders; 13 lost float4ByVal, 17 has
 * wal_level in CheckPoint, both where there was padding; 18 has default_char_signedness before the nonce.
 */
static const struct place places[] = {
	{1002, 48, 136, 200, 208, 216, 228, 252, 288}, /* 10 */
	{1100, 40, 128, 192, 200, 208, 220, 244, 280}, /* 11 */
	{1201, 40, 136, 204, 208, 216, 228, 252, 288}, /* 12 */
	{1300, 40, 136, 204, 208, 216, 228, 252, 288}, /* 13 to 16 */
	{1700, 40, 136, 204, 208, 216, 228, 252, 288}, /* 17 */
	{1800, 40, 136, 204, 208, 216, 228, 252, 292}, /* 18 */
};

#define MAX_ALIGN    8
#define FLOAT_FORMAT 1234567.0

/* What is read must lie before the CRC, and what holds the CRC is longer than any place. */
#define LEAST_BYTES (292 + 4)

static uint32_t get32(const uint8_t *data, size_t at)
{
	uint32_t v;

	memcpy(&v, data + at, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *data, size_t at)
{
	uint64_t v;

	memcpy(&v, data + at, sizeof(v));
	return v;
}

static const struct place *find_place(const uint8_t *data, struct pgr_err *err)
{
	uint32_t version = get32(data, AT_CONTROL_VERSION);

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i].version == version)
			return &places[i];
		if (places[i].version == __builtin_bswap32(version)) {
			pgr_err_set(err, PGR_E_DATA, "pg_control is of a machine with another byte order");
			return NULL;
		}
	}
	pgr_err_set(err, PGR_E_DATA, "pg_control is of version %" PRIu32 ", which is not known", version);
	return NULL;
}

static int check_machine(const uint8_t *data, const struct place *p, struct pgr_err *err)
{
	double format;

	memcpy(&format, data + p->float_format, sizeof(format));
	if (get32(data, p->max_align) != MAX_ALIGN || format != FLOAT_FORMAT)
		return pgr_err_set(err, PGR_E_DATA, "pg_control is of another kind of machine");
	return PGR_OK;
}

static bool is_block_size(uint32_t n)
{
	return n >= 1024 && n <= 32768 && (n & (n - 1)) == 0;
}

static int check_values(const struct pgr_controlfile *c, struct pgr_err *err)
{
	if (c->system_identifier == 0 || (unsigned)c->state >= PGR_DB_STATES || c->tli == 0 ||
	    c->redo == PGR_LSN_INVALID || c->checkpoint < c->redo || !is_block_size(c->block_bytes) ||
	    c->segment_blocks == 0 || !pgr_walseg_valid(c->wal_segment_bytes))
		return pgr_err_set(err, PGR_E_DATA, "pg_control makes no sense");
	return PGR_OK;
}

static void read_values(const uint8_t *data, const struct place *p, struct pgr_controlfile *out)
{
	*out = (struct pgr_controlfile){
		.system_identifier = get64(data, AT_SYSTEM_IDENTIFIER),
		.control_version = get32(data, AT_CONTROL_VERSION),
		.catalog_version = get32(data, AT_CATALOG_VERSION),
		.state = (enum pgr_dbstate)get32(data, AT_STATE),
		.checkpoint = get64(data, AT_CHECKPOINT),
		.redo = get64(data, p->checkpoint_copy),
		.tli = get32(data, p->checkpoint_copy + IN_CHECKPOINT_TLI),
		.min_recovery = get64(data, p->min_recovery),
		.min_recovery_tli = get32(data, p->min_recovery + 8),
		.backup_start = get64(data, p->min_recovery + 16),
		.wal_level = get32(data, p->min_recovery + TO_WAL_LEVEL),
		.block_bytes = get32(data, p->block_bytes),
		.segment_blocks = get32(data, p->block_bytes + 4),
		.wal_segment_bytes = get32(data, p->wal_segment_bytes),
		.checksum_version = get32(data, p->checksum_version),
	};
}

int pgr_controlfile_parse(const void *data, size_t len, struct pgr_controlfile *out, struct pgr_err *err)
{
	const struct place *p;

	memset(out, 0, sizeof(*out));
	if (len < LEAST_BYTES)
		return pgr_err_set(err, PGR_E_DATA, "pg_control has only %zu bytes", len);
	p = find_place(data, err);
	if (p == NULL)
		return PGR_ERR;
	if (pgr_crc32c(0, data, p->crc) != get32(data, p->crc))
		return pgr_err_set(err, PGR_E_DATA, "the checksum of pg_control does not hold");
	if (check_machine(data, p, err) != PGR_OK)
		return PGR_ERR;
	read_values(data, p, out);
	if (check_values(out, err) == PGR_OK)
		return PGR_OK;
	memset(out, 0, sizeof(*out));
	return PGR_ERR;
}
