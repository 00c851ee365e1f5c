/* controlfile.c against ControlFileData as a compiler lays it out. */
#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "backup/controlfile.h"
#include "common/crc32c.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define FILE_BYTES   8192

/* ---- the structs of src/include/catalog/pg_control.h: types and order, in short ---- */

#define COPY_BEGIN                                                                                                     \
	uint64_t redo;                                                                                                 \
	uint32_t tli, prev_tli;                                                                                        \
	bool full_page_writes
#define COPY_END                                                                                                       \
	uint32_t oid, multi, offset, xid, xid_db, oldest_multi, multi_db;                                              \
	int64_t time;                                                                                                  \
	uint32_t commit[2], active

struct copy_10 {
	COPY_BEGIN;
	uint32_t epoch, next_xid;
	COPY_END;
};

struct copy_12 {
	COPY_BEGIN;
	uint64_t next_xid;
	COPY_END;
};

struct copy_17 {
	COPY_BEGIN;
	int wal_level;
	uint64_t next_xid;
	COPY_END;
};

#define HEAD                                                                                                           \
	uint64_t system_identifier;                                                                                    \
	uint32_t version, catalog;                                                                                     \
	int state;                                                                                                     \
	int64_t time;                                                                                                  \
	uint64_t checkpoint
#define RECOVERY                                                                                                       \
	uint64_t unlogged, min_recovery;                                                                               \
	uint32_t min_recovery_tli;                                                                                     \
	uint64_t begin, end;                                                                                           \
	bool required
#define SETTINGS                                                                                                       \
	int wal_level;                                                                                                 \
	bool hints;                                                                                                    \
	int connections, workers
#define MORE                                                                                                           \
	int prepared, locks;                                                                                           \
	bool track
#define BUILT                                                                                                          \
	uint32_t max_align;                                                                                            \
	double format;                                                                                                 \
	uint32_t block, segment, wal_block, wal_segment, name, keys, toast, lob
#define LAST                                                                                                           \
	char nonce[32];                                                                                                \
	uint32_t crc

struct control_10 {
	HEAD;
	uint64_t prev;
	struct copy_10 copy;
	RECOVERY;
	SETTINGS;
	MORE;
	BUILT;
	bool float4, float8;
	uint32_t sums;
	LAST;
};

struct control_11 {
	HEAD;
	struct copy_10 copy;
	RECOVERY;
	SETTINGS;
	MORE;
	BUILT;
	bool float4, float8;
	uint32_t sums;
	LAST;
};

struct control_12 {
	HEAD;
	struct copy_12 copy;
	RECOVERY;
	SETTINGS;
	int senders;
	MORE;
	BUILT;
	bool float4, float8;
	uint32_t sums;
	LAST;
};

struct control_13 {
	HEAD;
	struct copy_12 copy;
	RECOVERY;
	SETTINGS;
	int senders;
	MORE;
	BUILT;
	bool float8;
	uint32_t sums;
	LAST;
};

struct control_17 {
	HEAD;
	struct copy_17 copy;
	RECOVERY;
	SETTINGS;
	int senders;
	MORE;
	BUILT;
	bool float8;
	uint32_t sums;
	LAST;
};

struct control_18 {
	HEAD;
	struct copy_17 copy;
	RECOVERY;
	SETTINGS;
	int senders;
	MORE;
	BUILT;
	bool float8;
	uint32_t sums;
	bool char_signedness;
	LAST;
};

/* ---- images ---- */

static const struct pgr_controlfile usual = {
	.system_identifier = 0xFEDCBA9876543210ull,
	.catalog_version = 202307071,
	.state = PGR_DB_IN_ARCHIVE_RECOVERY,
	.checkpoint = 0x1A2000060,
	.redo = 0x1A2000028,
	.tli = 7,
	.min_recovery = 0x1A3000148,
	.min_recovery_tli = 8,
	.backup_start = 0x1A1000090,
	.wal_level = 2,
	.block_bytes = 8192,
	.segment_blocks = 131072,
	.wal_segment_bytes = 16 << 20,
	.checksum_version = 1,
};

static uint32_t max_align;
static double format;

/* Fills what is read, the rest with something else. */
#define WRITE(type, number, file, c)                                                                                   \
	do {                                                                                                           \
		struct type s;                                                                                         \
		memset(&s, 0xA5, sizeof(s));                                                                           \
		s.system_identifier = (c)->system_identifier;                                                          \
		s.version = (number);                                                                                  \
		s.catalog = (c)->catalog_version;                                                                      \
		s.state = (int)(c)->state;                                                                             \
		s.checkpoint = (c)->checkpoint;                                                                        \
		s.copy.redo = (c)->redo;                                                                               \
		s.copy.tli = (c)->tli;                                                                                 \
		s.min_recovery = (c)->min_recovery;                                                                    \
		s.min_recovery_tli = (c)->min_recovery_tli;                                                            \
		s.begin = (c)->backup_start;                                                                           \
		s.wal_level = (int)(c)->wal_level;                                                                     \
		s.max_align = max_align;                                                                               \
		s.format = format;                                                                                     \
		s.block = (c)->block_bytes;                                                                            \
		s.segment = (c)->segment_blocks;                                                                       \
		s.wal_segment = (c)->wal_segment_bytes;                                                                \
		s.sums = (c)->checksum_version;                                                                        \
		s.crc = pgr_crc32c(0, &s, offsetof(struct type, crc));                                                 \
		memcpy(file, &s, sizeof(s));                                                                           \
		crc_at = offsetof(struct type, crc);                                                                   \
	} while (0)

static const uint32_t versions[] = {1002, 1100, 1201, 1300, 1700, 1800};

static uint8_t file[FILE_BYTES];
static size_t crc_at;
static struct pgr_controlfile found;
static struct pgr_err err;

static void setup(void)
{
	max_align = 8;
	format = 1234567.0;
	memset(&found, 0xEE, sizeof(found));
}

static void image(uint32_t version, const struct pgr_controlfile *c)
{
	memset(file, 0, sizeof(file));
	switch (version) {
	case 1002:
		WRITE(control_10, version, file, c);
		break;
	case 1100:
		WRITE(control_11, version, file, c);
		break;
	case 1201:
		WRITE(control_12, version, file, c);
		break;
	case 1300:
		WRITE(control_13, version, file, c);
		break;
	case 1700:
		WRITE(control_17, version, file, c);
		break;
	default:
		WRITE(control_18, version, file, c);
		break;
	}
}

static void refused(size_t len, const char *msg)
{
	static const struct pgr_controlfile nothing;

	ck_assert_int_eq(pgr_controlfile_parse(file, len, &found, &err), PGR_ERR);
	ck_assert_int_eq(err.cls, PGR_E_DATA);
	if (msg != NULL)
		ck_assert_str_eq(err.msg, msg);
	ck_assert_mem_eq(&found, &nothing, sizeof(found));
}

/* ---- tests ---- */

START_TEST(every_version)
{
	image(versions[_i], &usual);
	ck_assert_msg(pgr_controlfile_parse(file, sizeof(file), &found, &err) == PGR_OK, "%s", err.msg);
	ck_assert_uint_eq(found.system_identifier, usual.system_identifier);
	ck_assert_uint_eq(found.control_version, versions[_i]);
	ck_assert_uint_eq(found.catalog_version, usual.catalog_version);
	ck_assert_int_eq(found.state, usual.state);
	ck_assert_uint_eq(found.checkpoint, usual.checkpoint);
	ck_assert_uint_eq(found.redo, usual.redo);
	ck_assert_uint_eq(found.tli, usual.tli);
	ck_assert_uint_eq(found.min_recovery, usual.min_recovery);
	ck_assert_uint_eq(found.min_recovery_tli, usual.min_recovery_tli);
	ck_assert_uint_eq(found.backup_start, usual.backup_start);
	ck_assert_uint_eq(found.wal_level, usual.wal_level);
	ck_assert_uint_eq(found.block_bytes, usual.block_bytes);
	ck_assert_uint_eq(found.segment_blocks, usual.segment_blocks);
	ck_assert_uint_eq(found.wal_segment_bytes, usual.wal_segment_bytes);
	ck_assert_uint_eq(found.checksum_version, usual.checksum_version);
}
END_TEST

/* From memory of just that length, so that a sanitizer sees a read beyond it. */
START_TEST(every_length)
{
	image(versions[_i], &usual);
	for (size_t len = 0; len <= 600; len++) {
		uint8_t *part = malloc(len + 1);

		ck_assert_ptr_nonnull(part);
		part = realloc(part, len > 0 ? len : 1);
		ck_assert_ptr_nonnull(part);
		memcpy(part, file, len);
		ck_assert_int_eq(pgr_controlfile_parse(part, len, &found, &err), len >= 296 ? PGR_OK : PGR_ERR);
		ck_assert(len >= 296 || err.cls == PGR_E_DATA);
		ck_assert(pgr_controlfile_crc_holds(part, len) == (len >= 512));
		free(part);
	}
}
END_TEST

START_TEST(every_byte_counts)
{
	image(versions[_i], &usual);
	for (size_t at = 0; at < crc_at + 4; at++) {
		file[at] ^= 0x10;
		refused(sizeof(file), NULL);
		ck_assert(!pgr_controlfile_crc_holds(file, sizeof(file)));
		file[at] ^= 0x10;
	}
	ck_assert(pgr_controlfile_crc_holds(file, sizeof(file)));
	memset(file + crc_at + 4, 0x77, sizeof(file) - crc_at - 4); /* what follows does not count */
	ck_assert_int_eq(pgr_controlfile_parse(file, sizeof(file), &found, &err), PGR_OK);
	ck_assert(pgr_controlfile_crc_holds(file, sizeof(file)));
}
END_TEST

static const struct {
	size_t at;
	uint64_t value;
	size_t size;
} senseless[] = {
#define MEMBER(name, value)                                                                                            \
	{                                                                                                              \
		offsetof(struct pgr_controlfile, name), value, sizeof(((struct pgr_controlfile *)0)->name)             \
	}
	MEMBER(system_identifier, 0),
	MEMBER(state, PGR_DB_STATES),
	MEMBER(state, UINT32_MAX),
	MEMBER(checkpoint, 0),
	MEMBER(checkpoint, 0x1A2000027),
	MEMBER(redo, 0),
	MEMBER(tli, 0),
	MEMBER(block_bytes, 0),
	MEMBER(block_bytes, 512),
	MEMBER(block_bytes, 8191),
	MEMBER(block_bytes, 65536),
	MEMBER(segment_blocks, 0),
	MEMBER(wal_segment_bytes, 0),
	MEMBER(wal_segment_bytes, 3 << 20),
};

START_TEST(makes_no_sense)
{
	struct pgr_controlfile c = usual;

	memcpy((char *)&c + senseless[_i].at, &senseless[_i].value, senseless[_i].size);
	image(1300, &c);
	refused(sizeof(file), "pg_control makes no sense");
}
END_TEST

static const struct {
	size_t at;
	uint64_t value;
	size_t size;
} sensible[] = {
	MEMBER(state, PGR_DB_STARTUP), MEMBER(checkpoint, 0x1A2000028), /* of a shutdown: its own redo */
	MEMBER(min_recovery, 0),       MEMBER(min_recovery_tli, 0),	   MEMBER(block_bytes, 1024),
	MEMBER(block_bytes, 32768),    MEMBER(wal_segment_bytes, 1 << 20), MEMBER(wal_segment_bytes, 1 << 30),
	MEMBER(checksum_version, 0),
};

START_TEST(makes_sense)
{
	struct pgr_controlfile c = usual;

	memcpy((char *)&c + sensible[_i].at, &sensible[_i].value, sensible[_i].size);
	image(1300, &c);
	ck_assert_msg(pgr_controlfile_parse(file, sizeof(file), &found, &err) == PGR_OK, "%s", err.msg);
}
END_TEST

START_TEST(other_machines)
{
	max_align = 4;
	image(1300, &usual);
	refused(sizeof(file), "pg_control is of another kind of machine");
	max_align = 8;
	format = 1234567.5;
	image(1300, &usual);
	refused(sizeof(file), "pg_control is of another kind of machine");
}
END_TEST

START_TEST(other_versions)
{
	static const uint32_t unknown[] = {0, 960, 1003, 1301, 1900, UINT32_MAX};

	for (int i = 0; i < COUNT(unknown); i++) {
		image(unknown[i], &usual);
		refused(sizeof(file), NULL);
		ck_assert_ptr_nonnull(strstr(err.msg, "which is not known"));
	}
	image(__builtin_bswap32(1800), &usual);
	refused(sizeof(file), "pg_control is of a machine with another byte order");
}
END_TEST

START_TEST(damaged)
{
	image(1800, &usual);
	file[200] ^= 1;
	refused(sizeof(file), "the checksum of pg_control does not hold");
	refused(100, "pg_control has only 100 bytes");
	memset(file, 0, sizeof(file));
	refused(sizeof(file), "pg_control is of version 0, which is not known");
	ck_assert(!pgr_controlfile_crc_holds(file, sizeof(file)));
}
END_TEST

START_TEST(swapped_crc)
{
	uint32_t crc;

	image(1300, &usual);
	memcpy(&crc, file + crc_at, sizeof(crc));
	crc = __builtin_bswap32(crc);
	memcpy(file + crc_at, &crc, sizeof(crc));
	ck_assert(pgr_controlfile_crc_holds(file, sizeof(file)));
}
END_TEST

START_TEST(names)
{
	for (int i = 0; i < PGR_DB_STATES; i++)
		for (int k = 0; k < i; k++)
			ck_assert_str_ne(pgr_dbstate_name((enum pgr_dbstate)i), pgr_dbstate_name((enum pgr_dbstate)k));
	ck_assert_str_eq(pgr_dbstate_name(PGR_DB_IN_PRODUCTION), "in production");
	ck_assert_str_eq(pgr_dbstate_name(PGR_DB_SHUTDOWNED_IN_RECOVERY), "shut down in recovery");
	ck_assert_str_eq(pgr_dbstate_name(PGR_DB_STATES), "unrecognized status code");
}
END_TEST

static Suite *controlfile_suite(void)
{
	Suite *s = suite_create("controlfile");
	TCase *t = tcase_create("parse");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_loop_test(t, every_version, 0, COUNT(versions));
	tcase_add_loop_test(t, every_length, 0, COUNT(versions));
	tcase_add_loop_test(t, every_byte_counts, 0, COUNT(versions));
	tcase_add_loop_test(t, makes_no_sense, 0, COUNT(senseless));
	tcase_add_loop_test(t, makes_sense, 0, COUNT(sensible));
	tcase_add_test(t, other_machines);
	tcase_add_test(t, other_versions);
	tcase_add_test(t, damaged);
	tcase_add_test(t, swapped_crc);
	tcase_add_test(t, names);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *sr = srunner_create(controlfile_suite());
	int failed;

	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
