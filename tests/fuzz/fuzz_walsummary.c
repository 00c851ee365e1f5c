/*
 * A server that answers anything about its WAL summaries.  The first byte says whether changed blocks are counted, and
 * how the answers come; the first line is a path to look for; then come answers: cells separated by tabs, rows by
 * newlines, answers by form feeds; a cell "!" is a NULL.  After the last one the server is gone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup/incremental.h"
#include "backup/walsummary.h"
#include "common/buf.h"
#include "common/sys.h"
#include "proto/client.h"
#include "receiver/history.h"
#include "tests/support/scripted.h"

#define SEGMENT	 64u
#define COLS_MAX 8

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void insist(bool ok)
{
	if (!ok)
		abort();
}

/* ---- the server ---- */

/* Cuts `*at` at the next `sep` and goes behind it; NULL: there is nothing left. */
static char *take(char **at, char sep)
{
	char *begin = *at, *end;

	if (begin == NULL)
		return NULL;
	end = strchr(begin, sep);
	if (end != NULL)
		*end++ = '\0';
	*at = end;
	return begin;
}

static void answer(struct pgr_scripted *srv, char *text)
{
	static const char *const names[COLS_MAX] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	const char *cells[COLS_MAX];
	struct pgr_buf msg = {0};
	char *row;
	bool first = true;

	pgr_scripted_expect(srv, 'Q');
	while ((row = take(&text, '\n')) != NULL) {
		int n = 0;

		for (char *cell; n < COLS_MAX && (cell = take(&row, '\t')) != NULL; n++)
			cells[n] = strcmp(cell, "!") == 0 ? NULL : cell;
		if (first)
			pgr_msg_row_desc(&msg, n, names);
		if (!first || n > 1 || cells[0] == NULL || cells[0][0] != '\0') /* an empty line at first: no rows */
			pgr_msg_row(&msg, n, cells);
		first = false;
	}
	pgr_msg_complete(&msg, "SELECT");
	pgr_msg_ready(&msg);
	pgr_scripted_send_buf(srv, &msg);
}

/* ---- what must be true ---- */

static int order(const struct pgr_limit *x, const struct pgr_limit *y)
{
	if (x->space != y->space)
		return x->space < y->space ? -1 : 1;
	if (x->db != y->db)
		return x->db < y->db ? -1 : 1;
	return x->rel < y->rel ? -1 : x->rel > y->rel;
}

static void check_limits(const struct pgr_limits *l)
{
	size_t blocks = 0;

	for (size_t i = 0; i < l->n; i++) {
		const struct pgr_limit *one = &l->list[i];

		insist(i == 0 || order(&l->list[i - 1], one) < 0);
		insist(one->nblocks <= one->cap && (one->nblocks == 0 || one->blocks != NULL));
		for (size_t k = 0; k < one->nblocks; k++)
			insist(one->blocks[k] >= one->block && (k == 0 || one->blocks[k] >= one->blocks[k - 1]));
		insist(!one->later || one->nblocks > 0);
		blocks += one->nblocks;
	}
	insist(l->nblocks == blocks);
}

/* What belongs to a relation is found under its name. */
static void check_find(const struct pgr_limits *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct pgr_limit *one = &l->list[i], *got;
		char path[100];

		if (one->space != 1663 || one->rel == 0)
			continue;
		snprintf(path, sizeof(path), "base/%u/%u.7", one->db, one->rel);
		got = pgr_limits_find(l, path);
		insist(got == one || (got != NULL && got->rel == 0 && got->db == one->db));
	}
}

/* An increment that has all blocks is refused only for its limit; one that has none, whenever one is asked for. */
static void check_increments(const struct pgr_limit *limit)
{
	uint32_t blocks[SEGMENT];
	struct pgr_incremental all = {.page_bytes = 512, .truncation = SEGMENT, .nblocks = SEGMENT, .blocks = blocks};
	struct pgr_incremental none = {.page_bytes = 512, .truncation = SEGMENT};

	for (uint32_t i = 0; i < SEGMENT; i++)
		blocks[i] = i;
	for (uint32_t segment = 0; segment < 4; segment++) {
		struct pgr_err err = {0};
		bool cut = limit->rel == 0 || limit->block <= segment * SEGMENT;
		bool wanted = false;

		for (size_t i = 0; i < limit->nblocks; i++)
			wanted |= limit->blocks[i] / SEGMENT == segment;
		insist((pgr_limit_check(limit, &all, segment, SEGMENT, "f", &err) == PGR_OK) == !cut);
		insist((pgr_limit_check(limit, &none, segment, SEGMENT, "f", &err) == PGR_OK) == !(cut || wanted));
		insist(pgr_segment_limit(limit->block, segment, SEGMENT) == 0 || !cut || limit->rel == 0);
	}
}

static void check(const struct pgr_limits *l, const char *path)
{
	check_limits(l);
	check_find(l);
	for (size_t i = 0; i < l->n; i++)
		check_increments(&l->list[i]);
	(void)pgr_limits_find(l, path);
}

/* ---- the run ---- */

static void play(unsigned flags, char *text)
{
	static struct pgr_history_entry line[] = {{1, 0x100}, {3, 0x200}, {4, 0}};
	static const struct pgr_history history = {line, 3};
	struct pgr_scripted *srv = pgr_scripted_new(170004, flags & 2 ? 3 : 0);
	struct pgr_limits l = {0};
	struct pgr_client *c;
	struct pgr_err err = {0};
	const char *path = take(&text, '\n');

	for (char *one; (one = take(&text, '\f')) != NULL;)
		answer(srv, one);
	pgr_scripted_eof(srv);
	insist(pgr_client_new(&c, pgr_scripted_transport(srv), pgr_sys_real(), NULL, NULL, &err) == PGR_OK);
	if (pgr_limits_read(&l, c, &history, 0x10, 0x210, flags & 1, &err) == PGR_OK)
		check(&l, path);
	else
		insist(err.msg[0] != '\0' && l.list == NULL && l.n == 0);
	pgr_limits_fini(&l);
	pgr_client_free(c);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	text = malloc(size);
	insist(text != NULL);
	memcpy(text, data + 1, size - 1);
	for (size_t i = 0; i + 1 < size; i++)
		text[i] = text[i] != '\0' ? text[i] : '0';
	text[size - 1] = '\0';
	play(data[0], text);
	free(text);
	return 0;
}
