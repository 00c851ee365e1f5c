#include "backup/run_manifest.h"

#include "backup/finish.h"
#include "backup/manifest.h"
#include "backup/run.h"
#include "common/buf.h"
#include "receiver/history.h"

static int put(void *arg, const void *data, size_t len, struct pgr_err *err)
{
	return pgr_run_file_put(arg, data, len, err);
}

int pgr_run_manifest_write(struct pgr_run *r, pgr_run_manifest_fill *fill, struct pgr_err *err)
{
	struct pgr_manifest_writer *w = NULL;
	struct pgr_run_file f;
	int rc;

	if (pgr_run_file_open(&f, r, PGR_MANIFEST_TMP, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_manifest_writer_new(&w, r->version, r->id.system_identifier, r->opts->manifest_force_encode, put, &f,
				     err);
	if (rc == PGR_OK)
		rc = fill(r, w, err);
	if (rc == PGR_OK)
		rc = pgr_manifest_writer_end(w, err);
	pgr_manifest_writer_free(w);
	return pgr_run_file_end(&f, rc, err);
}

static int sum_bytes(enum pgr_digest_algo algo, const struct pgr_buf *b, uint8_t out[PGR_DIGEST_MAX], size_t *len,
		     struct pgr_err *err)
{
	struct pgr_digest *d;
	int rc;

	*len = 0;
	if (algo == PGR_DIGEST_NONE)
		return PGR_OK;
	if (pgr_digest_new(&d, algo, err) != PGR_OK)
		return PGR_ERR;
	rc = pgr_digest_add(d, b->data, b->len, err);
	if (rc == PGR_OK)
		rc = pgr_digest_end(d, out, len, err);
	pgr_digest_free(d);
	return rc;
}

int pgr_run_manifest_add_own(struct pgr_manifest_writer *w, const char *path, const struct pgr_buf *content,
			     int64_t mtime, enum pgr_digest_algo algo, struct pgr_err *err)
{
	uint8_t sum[PGR_DIGEST_MAX];
	size_t len;

	if (sum_bytes(algo, content, sum, &len, err) != PGR_OK)
		return PGR_ERR;
	return pgr_manifest_add_file(w, path, content->len, mtime, algo, sum, len, err);
}

/* From the one of the end down to the one of the start. */
int pgr_run_manifest_add_wal(const struct pgr_run *r, struct pgr_manifest_writer *w, const struct pgr_history *h,
			     struct pgr_err *err)
{
	for (size_t i = h->n; i-- > 0;) {
		bool first = h->entries[i].tli == r->start_tli;
		pgr_lsn from = first || i == 0 ? r->start : h->entries[i - 1].end;
		pgr_lsn to = i + 1 == h->n ? r->end : h->entries[i].end;

		if (pgr_manifest_add_wal(w, h->entries[i].tli, from, to, err) != PGR_OK)
			return PGR_ERR;
		if (first)
			return PGR_OK;
	}
	return pgr_err_set(err, PGR_E_DATA, "timeline %u is not in the history of timeline %u", r->start_tli,
			   r->end_tli);
}
