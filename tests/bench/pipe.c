#include "tests/bench/pipe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define READ_MAX   (256u << 10)
#define WINDOW_MIN (1u << 20)
#define WINDOW_MAX (64u << 20)

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* ---- token buckets */

/* Less than this is not worth a read: 2 ms worth. */
static int64_t quantum_of(const struct bucket *b)
{
	return max64(b->rate / 500, 1500);
}

static void bucket_fill(struct bucket *b, int64_t now)
{
	double most = (double)max64(b->rate / 50, 1500);

	b->tokens += (double)b->rate * (double)(now - b->filled) / 1e9;
	if (b->tokens > most)
		b->tokens = most;
	b->filled = now;
}

/* How many bytes may pass now; 0 while there is less than a quantum. */
static int64_t bucket_room(struct bucket *b, int64_t now)
{
	if (b->rate == 0)
		return INT64_MAX;
	bucket_fill(b, now);
	return b->tokens >= (double)quantum_of(b) ? (int64_t)b->tokens : 0;
}

/* When the next quantum will be there. */
static int64_t bucket_ready(const struct bucket *b)
{
	double missing;

	if (b->rate == 0)
		return 0;
	missing = (double)quantum_of(b) - b->tokens;
	return missing <= 0 ? b->filled : b->filled + (int64_t)(missing * 1e9 / (double)b->rate) + 1;
}

static void bucket_take(struct bucket *b, size_t n)
{
	if (b->rate != 0)
		b->tokens -= (double)n;
}

/* ---- the ring */

/* As much as is on the way at full rate, twice over, so that the reader's pauses are bridged too. */
static size_t window_of(int64_t rate, int64_t link_rate, int64_t delay)
{
	int64_t limit = rate == 0 ? link_rate : link_rate == 0 ? rate : min64(rate, link_rate);
	double bytes;

	if (delay == 0)
		return WINDOW_MIN;
	if (limit == 0)
		return WINDOW_MAX;
	bytes = 2.0 * (double)limit * (double)delay / 1e9 + WINDOW_MIN;
	return bytes < WINDOW_MAX ? (size_t)bytes : WINDOW_MAX;
}

bool pipe_init(struct pipe *p, int from, int to, int64_t rate, int64_t delay, struct bucket *link,
	       struct faults *faults, int64_t now)
{
	p->from = from;
	p->to = to;
	p->delay = delay;
	p->own = (struct bucket){.rate = rate, .filled = now};
	p->link = link;
	p->faults = faults;
	p->cap = window_of(rate, link->rate, delay);
	p->ring = malloc(p->cap); /* touched only as far as it is used */
	return p->ring != NULL;
}

void pipe_fini(struct pipe *p)
{
	free(p->ring);
	p->ring = NULL;
}

static int64_t room_now(struct pipe *p, int64_t now)
{
	int64_t allowed = min64(bucket_room(&p->own, now), bucket_room(p->link, now));

	return min64(allowed, (int64_t)min_size(p->cap - p->len, READ_MAX));
}

/* Bytes that arrive within a millisecond travel together; a full table makes a chunk wait for its successor. */
static void add_chunk(struct pipe *p, size_t n, int64_t due)
{
	struct chunk *last = &p->chunks[(p->first_chunk + p->nchunks + PIPE_CHUNKS - 1) % PIPE_CHUNKS];

	p->len += n;
	p->passed += (int64_t)n;
	if (p->nchunks > 0 && due - last->due < MS) {
		last->len += n;
	} else if (p->nchunks == PIPE_CHUNKS) {
		last->len += n;
		last->due = due;
	} else {
		p->chunks[(p->first_chunk + p->nchunks) % PIPE_CHUNKS] = (struct chunk){.due = due, .len = n};
		p->nchunks++;
	}
}

static void drop_delivered(struct pipe *p, size_t n)
{
	struct chunk *c = &p->chunks[p->first_chunk];

	p->head = (p->head + n) % p->cap;
	p->len -= n;
	c->len -= n;
	if (c->len == 0) {
		p->first_chunk = (p->first_chunk + 1) % PIPE_CHUNKS;
		p->nchunks--;
	}
	if (p->len == 0)
		p->head = 0; /* a small part of the ring stays in the processor's cache */
}

static void set_end(struct pipe *p, int64_t due)
{
	p->ended = true;
	p->end_due = due;
}

/* ---- faults */

void pipe_watch(struct pipe *up, struct pipe *down)
{
	if (down->faults == NULL || down->faults->when == NULL)
		return;
	up->arms = down;
	down->armed = -1;
}

/* How much of the text is still seen when `n` bytes of it were, and another one than the next followed. */
static size_t shorter_match(const char *text, size_t n)
{
	for (size_t k = n - 1; k > 0; k--)
		if (memcmp(text, text + n - k, k) == 0)
			return k;
	return 0;
}

static void look_for_text(struct pipe *p, const unsigned char *bytes, size_t n)
{
	for (size_t i = 0; i < n && p->arms != NULL; i++) {
		const char *text = p->arms->faults->when;

		while (p->matched > 0 && text[p->matched] != (char)bytes[i])
			p->matched = shorter_match(text, p->matched);
		p->matched += text[p->matched] == (char)bytes[i];
		if (text[p->matched] != '\0')
			continue;
		p->arms->armed = p->arms->passed;
		p->arms = NULL;
	}
}

static bool has_faults(const struct pipe *p, int64_t left)
{
	return left > 0 && p->armed >= 0;
}

/* These n bytes are about to be added. */
static void maybe_flip(struct pipe *p, unsigned char *bytes, size_t n)
{
	int64_t index;

	if (p->faults == NULL || !has_faults(p, p->faults->flips_left))
		return;
	index = p->faults->flip_byte - 1 - (p->passed - p->armed);
	if (index >= 0 && index < (int64_t)n) {
		bytes[index] ^= 0x01;
		p->faults->flips_left--;
	}
}

/* No byte behind the cut is read. */
static size_t until_cut(const struct pipe *p, size_t n)
{
	int64_t left;

	if (p->faults == NULL || !has_faults(p, p->faults->cuts_left))
		return n;
	left = p->faults->cut_after - (p->passed - p->armed);
	return left > 0 ? min_size(n, (size_t)left) : n;
}

static void maybe_cut(struct pipe *p, int64_t due)
{
	if (p->faults == NULL || !has_faults(p, p->faults->cuts_left) || p->faults->cut_after != p->passed - p->armed)
		return;
	p->faults->cuts_left--;
	p->cut = true;
	set_end(p, due);
}

/* ---- what the loop calls */

static bool failed(ssize_t rc)
{
	return rc < 0 && errno != EAGAIN && errno != EINTR;
}

void pipe_read(struct pipe *p, int64_t now)
{
	size_t room = (size_t)room_now(p, now), tail = (p->head + p->len) % p->cap;
	int64_t due = now + p->delay;
	ssize_t got;

	if (p->ended || room == 0)
		return;
	got = recv(p->from, p->ring + tail, until_cut(p, min_size(room, p->cap - tail)), 0);
	p->broken |= failed(got);
	if (got == 0)
		set_end(p, due);
	if (got <= 0)
		return;
	look_for_text(p, p->ring + tail, (size_t)got);
	maybe_flip(p, p->ring + tail, (size_t)got);
	bucket_take(&p->own, (size_t)got);
	bucket_take(p->link, (size_t)got);
	add_chunk(p, (size_t)got, due);
	maybe_cut(p, due);
}

void pipe_write(struct pipe *p, int64_t now)
{
	while (p->nchunks > 0 && p->chunks[p->first_chunk].due <= now) {
		size_t n = min_size(p->chunks[p->first_chunk].len, p->cap - p->head);
		ssize_t put = send(p->to, p->ring + p->head, n, MSG_NOSIGNAL);

		p->broken |= failed(put);
		if (put < 0)
			return;
		drop_delivered(p, (size_t)put);
	}
	if (!p->ended || p->shut || p->len > 0 || p->end_due > now)
		return;
	p->broken |= p->cut;
	shutdown(p->to, SHUT_WR); /* it may be gone already: the other direction will notice */
	p->shut = true;
}

bool pipe_wants_to_read(struct pipe *p, int64_t now, int64_t *wake)
{
	if (p->ended || p->len == p->cap)
		return false;
	if (room_now(p, now) > 0)
		return true;
	*wake = min64(*wake, max64(bucket_ready(&p->own), bucket_ready(p->link)));
	return false;
}

bool pipe_wants_to_write(const struct pipe *p, int64_t now, int64_t *wake)
{
	int64_t due = NEVER;

	if (p->nchunks > 0)
		due = p->chunks[p->first_chunk].due;
	else if (p->ended && !p->shut)
		due = p->end_due;
	if (due > now)
		*wake = min64(*wake, due);
	return due <= now;
}
