#include "loop/heap.h"

#include "loop/loop.h"

#include <stdlib.h>
#include <string.h>

bool
heap_reserve(struct heap *h, size_t n)
{
	struct heap_place *at;
	size_t cap = h->cap ? h->cap : 64;

	if (n <= h->cap)
		return true;
	if (n > LOOP_TIMERS)
		return false;
	while (cap < n)
		cap *= 2;
	at = malloc((cap + 1) * sizeof(*at));
	if (!at)
		return false;
	/* Not all of it: what was never used need not be memory. */
	if (h->len > 0)
		memcpy(at + 1, h->at + 1, h->len * sizeof(*at));
	free(h->at);
	h->at = at;
	h->cap = cap;
	return true;
}

static void
put(struct heap *h, size_t slot, struct heap_place p)
{
	h->at[slot] = p;
	p.timer->slot = (unsigned)slot & LOOP_TIMERS;
}

static void
sift_up(struct heap *h, struct heap_place p, size_t slot)
{
	while (slot > 1 && h->at[slot / 2].when > p.when) {
		put(h, slot, h->at[slot / 2]);
		slot /= 2;
	}
	put(h, slot, p);
}

static void
sift_down(struct heap *h, struct heap_place p, size_t slot)
{
	for (;;) {
		size_t child = slot * 2;
		if (child < h->len && h->at[child + 1].when < h->at[child].when)
			child++;
		if (child > h->len || h->at[child].when >= p.when)
			break;
		put(h, slot, h->at[child]);
		slot = child;
	}
	put(h, slot, p);
}

/* Puts p near slot, which is free. */
static void
place(struct heap *h, struct heap_place p, size_t slot)
{
	if (slot > 1 && h->at[slot / 2].when > p.when)
		sift_up(h, p, slot);
	else
		sift_down(h, p, slot);
}

void
heap_move(struct heap *h, struct loop_timer *t, int64_t when)
{
	place(h, (struct heap_place){when, t}, t->slot);
}

void
heap_add(struct heap *h, struct loop_timer *t, int64_t when)
{
	sift_up(h, (struct heap_place){when, t}, ++h->len);
}

void
heap_remove(struct heap *h, struct loop_timer *t)
{
	size_t slot = t->slot;
	struct heap_place last = h->at[h->len--];

	t->slot = 0;
	if (last.timer != t)
		place(h, last, slot);
}

struct loop_timer *
heap_top(const struct heap *h)
{
	return h->len ? h->at[1].timer : NULL;
}

void
heap_clear(struct heap *h)
{
	while (h->len > 0)
		h->at[h->len--].timer->slot = 0;
}

void
heap_free(struct heap *h)
{
	free(h->at);
	*h = (struct heap){0};
}
