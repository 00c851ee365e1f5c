/*
 * Checks a whole directory of WAL, as pgr-receivewal, pg_receivewal or an archive_command leaves it.
 *
 * Every segment's name, size, page headers and records (lengths, links, CRCs, also over its ends), compressed ones
 * decompressed; that nothing is missing between them; history files, and that they agree with the segments.  What ends
 * the WAL is no problem: a .partial segment, zeros behind the last record of the newest segment, a record whose rest
 * was not received yet.
 *
 * What cannot be found: damage to the first bytes of the archive where they continue a record that began before it, to
 * the last record where nothing follows it, one flag bit of page headers; for versions before 9.5 nothing but page
 * headers is checked.
 */
#ifndef PGR_RECEIVER_WALCHECK_H
#define PGR_RECEIVER_WALCHECK_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/lsn.h"
#include "receiver/walchain.h"

struct pgr_sys;

struct pgr_walcheck_opts {
	const struct pgr_sys *sys;
	int dirfd;	 /* stays the caller's */
	const char *dir; /* name, for messages */
	int threads;	 /* that read segments; 0: the calling one does */
	/*
	 * Called for each finding, in the calling thread, in the order of the WAL.  Lines are without a newline, of the
	 * form "FILE: LSN: what" or "FILE: what", and hold nothing that the files hold besides numbers.
	 */
	pgr_walsay_fn say;
	void *arg;
};

struct pgr_walcheck_result {
	uint64_t segments; /* with a final name */
	uint64_t partials;
	size_t timelines;
	uint64_t bytes;	  /* of WAL that was read, decompressed */
	uint64_t records; /* that are right, without those that cross the ends of segments */
	uint64_t problems, notes;
	uint64_t system_id; /* 0: not known */
	uint32_t segment_bytes;
	const char *version; /* of PostgreSQL, by the pages' magic; NULL: not known */
	pgr_lsn begin, end;  /* of the lowest segment; of the WAL of the highest one */
};

/*
 * PGR_OK: everything was looked at, *out says with what result.  PGR_ERR: PGR_E_SYSTEM, the directory cannot be read,
 * or threads not be started; PGR_E_USAGE: there is no segment in it; PGR_E_DATA: no segment tells the segment size;
 * PGR_E_NOMEM.  A file that cannot be read is a problem, not an error; one that vanishes meanwhile is a note.
 * Memory: 16 bytes for each segment, a few hundred KiB for each thread.
 */
int pgr_walcheck(const struct pgr_walcheck_opts *opts, struct pgr_walcheck_result *out,
		 struct pgr_err *err) PGR_MUST_USE;

#endif
