/*
 * The first look at a directory of WAL: what its segments have in common, its timelines and their histories.
 */
#ifndef PGR_RECEIVER_WALSURVEY_H
#define PGR_RECEIVER_WALSURVEY_H

#include "common/err.h"
#include "receiver/walchain.h"
#include "receiver/wallist.h"
#include "receiver/walpage.h"

struct pgr_sys;

struct pgr_walsurvey {
	const struct pgr_sys *sys;
	int dirfd;
	const char *dir;
	struct pgr_wallist *list;
	struct pgr_walchain *chain; /* .say is set */
	/* filled in: */
	struct pgr_walpage_expect page; /* of every segment's first page, without address and timeline; system_id 0: no
					   segment has a first page that tells it */
};

/*
 * Reads the first pages of a few segments and all history files.  Fills in page, and chain's segment size and timelines
 * (the caller's to free, histories and array, also after a failure).  Names that are no segments of this size are told
 * and taken out of the list; history files that are missing, wrong or contradict each other are told.
 * PGR_ERR: PGR_E_USAGE, there is no segment; PGR_E_DATA, none tells the size; PGR_E_NOMEM.
 */
int pgr_walsurvey(struct pgr_walsurvey *v, struct pgr_err *err) PGR_MUST_USE;

#endif
