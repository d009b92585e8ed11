#include "loop/heap.h"

#include "loop/loop.h"

#include <stdlib.h>

bool
heap_reserve(struct heap *h, size_t n)
{
	struct loop_timer **at;
	size_t cap = h->cap ? h->cap : 64;

	if (n <= h->cap)
		return true;
	while (cap < n)
		cap *= 2;
	at = realloc(h->at, (cap + 1) * sizeof(*at));
	if (!at)
		return false;
	h->at = at;
	h->cap = cap;
	return true;
}

static void
put(struct heap *h, size_t slot, struct loop_timer *t)
{
	h->at[slot] = t;
	t->slot = slot;
}

static void
sift_up(struct heap *h, struct loop_timer *t, size_t slot)
{
	while (slot > 1 && h->at[slot / 2]->when > t->when) {
		put(h, slot, h->at[slot / 2]);
		slot /= 2;
	}
	put(h, slot, t);
}

static void
sift_down(struct heap *h, struct loop_timer *t, size_t slot)
{
	for (;;) {
		size_t child = slot * 2;
		if (child < h->len && h->at[child + 1]->when < h->at[child]->when)
			child++;
		if (child > h->len || h->at[child]->when >= t->when)
			break;
		put(h, slot, h->at[child]);
		slot = child;
	}
	put(h, slot, t);
}

void
heap_moved(struct heap *h, struct loop_timer *t)
{
	size_t slot = t->slot;

	if (slot > 1 && h->at[slot / 2]->when > t->when)
		sift_up(h, t, slot);
	else
		sift_down(h, t, slot);
}

void
heap_add(struct heap *h, struct loop_timer *t)
{
	sift_up(h, t, ++h->len);
}

void
heap_remove(struct heap *h, struct loop_timer *t)
{
	size_t slot = t->slot;
	struct loop_timer *last = h->at[h->len--];

	t->slot = 0;
	if (last == t)
		return;
	put(h, slot, last);
	heap_moved(h, last);
}

struct loop_timer *
heap_top(const struct heap *h)
{
	return h->len ? h->at[1] : NULL;
}

void
heap_clear(struct heap *h)
{
	while (h->len > 0)
		h->at[h->len--]->slot = 0;
}

void
heap_free(struct heap *h)
{
	free(h->at);
	*h = (struct heap){0};
}
