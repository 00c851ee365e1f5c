#include "backup/upload.h"

#include <limits.h>
#include <string.h>

#include "backup/exclude.h"
#include "backup/localtree.h"
#include "backup/manifest.h"
#include "backup/walsummary.h"
#include "common/buf.h"
#include "proto/client.h"
#include "proto/command.h"

/* A server that takes nothing for so long will not take the rest. */
#define SEND_TIMEOUT_MS 60000

/* ---- which files ---- */

/* What is known to come whole need not be offered; where the order matters it must not. */
static bool is_in_doubt(const struct pgr_limits *limits, const char *path)
{
	const struct pgr_limit *one = limits != NULL ? pgr_limits_find(limits, path) : NULL;

	return one != NULL && (one->rel == 0 || one->block == 0 || one->later);
}

bool pgr_upload_may_patch(const struct pgr_upload *u, const struct pgr_local_entry *e)
{
	struct pgr_relfile r;

	if (e->type != PGR_LOCAL_FILE || e->replaced || !pgr_relfile_parse(e->path, &r) || r.temporary ||
	    r.fork[0] != '\0')
		return false;
	if (e->size == 0 || e->size % u->page_bytes != 0 || e->size / u->page_bytes > u->segment_blocks)
		return false;
	return !is_in_doubt(u->limits, e->path);
}

void pgr_upload_count(const struct pgr_upload *u, size_t *files, uint64_t *bytes)
{
	*files = 0;
	*bytes = 0;
	for (size_t i = 0; i < u->tree->n; i++) {
		const struct pgr_local_entry *e = &u->tree->entries[i];

		if (!pgr_upload_may_patch(u, e))
			continue;
		++*files;
		*bytes += e->size;
	}
}

/* ---- sending ---- */

static int send_part(void *arg, const void *data, size_t len, struct pgr_err *err)
{
	struct pgr_client *c = arg;

	if (pgr_client_copy_send(c, (struct pgr_span){data, len}, err) != PGR_OK)
		return PGR_ERR;
	return pgr_client_flush(c, pgr_client_deadline(c, SEND_TIMEOUT_MS), err);
}

static int add_files(const struct pgr_upload *u, struct pgr_manifest_writer *w, struct pgr_err *err)
{
	for (size_t i = 0; i < u->tree->n; i++) {
		const struct pgr_local_entry *e = &u->tree->entries[i];

		if (pgr_upload_may_patch(u, e) &&
		    pgr_manifest_add_file(w, e->path, e->size, 0, PGR_DIGEST_NONE, NULL, 0, err) != PGR_OK)
			return PGR_ERR;
	}
	return PGR_OK;
}

static int send_manifest(const struct pgr_upload *u, struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_manifest_writer *w;
	int rc = pgr_manifest_writer_new(&w, pgr_client_version(c), u->system_identifier, false, send_part, c, err);

	if (rc == PGR_OK)
		rc = add_files(u, w, err);
	if (rc == PGR_OK)
		rc = pgr_manifest_add_wal(w, u->tli, u->redo, u->redo, err);
	if (rc == PGR_OK)
		rc = pgr_manifest_writer_end(w, err);
	pgr_manifest_writer_free(w);
	return rc == PGR_OK ? pgr_client_copy_done(c, err) : rc;
}

static int begin(struct pgr_client *c, struct pgr_err *err)
{
	struct pgr_buf text = {0};
	struct pgr_event ev;
	int rc = pgr_cmd_upload_manifest(&text, pgr_client_version(c), err);

	if (rc == PGR_OK)
		rc = pgr_client_send(c, &text, err);
	pgr_buf_fini(&text);
	if (rc != PGR_OK || pgr_client_expect(c, pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS), &ev, err) != PGR_OK)
		return PGR_ERR;
	if (ev.kind != PGR_EV_COPY_IN)
		return pgr_err_set(err, PGR_E_PROTOCOL, "the server does not take a manifest");
	return PGR_OK;
}

/* A refusal comes while we send, or after: the words of the server are what counts. */
int pgr_upload_manifest(const struct pgr_upload *u, struct pgr_client *c, struct pgr_err *err)
{
	int wake = pgr_client_set_wake(c, -1);
	int rc = begin(c, err);

	if (rc == PGR_OK)
		rc = send_manifest(u, c, err);
	if (rc == PGR_OK)
		rc = pgr_client_until_ready(c, pgr_client_deadline(c, PGR_COMMAND_TIMEOUT_MS), err);
	pgr_client_set_wake(c, wake);
	return rc == PGR_OK ? rc : pgr_err_prefix(err, "could not upload manifest");
}
