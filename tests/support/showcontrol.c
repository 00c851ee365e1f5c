/* Prints what pgr_controlfile_parse finds in a pg_control, for tests with real servers. */
#include <inttypes.h>
#include <stdio.h>

#include "backup/controlfile.h"

static void show(const struct pgr_controlfile *c)
{
	printf("system_identifier %" PRIu64 "\n", c->system_identifier);
	printf("pg_control_version %" PRIu32 "\n", c->control_version);
	printf("catalog_version_no %" PRIu32 "\n", c->catalog_version);
	printf("state %s\n", pgr_dbstate_name(c->state));
	printf("checkpoint_lsn %" PGR_LSN_FMT "\n", PGR_LSN_ARG(c->checkpoint));
	printf("redo_lsn %" PGR_LSN_FMT "\n", PGR_LSN_ARG(c->redo));
	printf("timeline_id %" PRIu32 "\n", c->tli);
	printf("min_recovery_end_lsn %" PGR_LSN_FMT "\n", PGR_LSN_ARG(c->min_recovery));
	printf("min_recovery_end_timeline %" PRIu32 "\n", c->min_recovery_tli);
	printf("backup_start_lsn %" PGR_LSN_FMT "\n", PGR_LSN_ARG(c->backup_start));
	printf("wal_level %" PRIu32 "\n", c->wal_level);
	printf("database_block_size %" PRIu32 "\n", c->block_bytes);
	printf("blocks_per_segment %" PRIu32 "\n", c->segment_blocks);
	printf("bytes_per_wal_segment %" PRIu32 "\n", c->wal_segment_bytes);
	printf("data_page_checksum_version %" PRIu32 "\n", c->checksum_version);
}

int main(int argc, char **argv)
{
	static char data[16384];
	struct pgr_controlfile c;
	struct pgr_err err;
	FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
	size_t n;

	if (f == NULL) {
		fprintf(stderr, "usage: showcontrol PG_CONTROL\n");
		return 2;
	}
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	if (!pgr_controlfile_crc_holds(data, n)) {
		fprintf(stderr, "the CRC is not found\n");
		return 1;
	}
	if (pgr_controlfile_parse(data, n, &c, &err) != PGR_OK) {
		fprintf(stderr, "%s\n", err.msg);
		return 1;
	}
	show(&c);
	return 0;
}
