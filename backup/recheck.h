/*
 * The second look at pages whose checksum was wrong: what BASE_BACKUP does while it reads, done at the end.
 *
 * Source: PostgreSQL src/backend/backup/basebackup.c (sendFile, read_file_data_into_buffer; texts of its warnings).
 */
#ifndef PGR_BACKUP_RECHECK_H
#define PGR_BACKUP_RECHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"
#include "proto/client.h"

struct pgr_filelist;
struct pgr_lane_files;
struct pgr_layout;
struct pgr_pagecheck;
struct pgr_sys;

struct pgr_recheck {
	const struct pgr_sys *sys;
	const struct pgr_filelist *list;
	const struct pgr_layout *layout;
	struct pgr_lane_files *files;
	struct pgr_pagecheck *pages;
	enum pgr_digest_algo digest;
	bool verify_transfer;
	pgr_notice_fn *notice;			   /* NULL */
	void (*info)(void *arg, const char *line); /* NULL */
	void *arg;
};

/* See pgr_lanes_recheck. */
int pgr_recheck_pages(const struct pgr_recheck *c, struct pgr_client *client, uint64_t *failures,
		      struct pgr_err *err) PGR_MUST_USE;

#endif
