#include "base/ring.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 64 * 1024 };

/* Makes room for n bytes behind the newest item, if that is possible at all. */
static bool
grow(struct ring *r, size_t n)
{
	size_t cap = r->cap ? r->cap : FIRST;
	char *base;

	if (r->tail > r->max || n > r->max - r->tail)
		return false;
	while (cap < r->max && cap - r->tail < n)
		cap *= 2;
	if (cap > r->max)
		cap = r->max;
	base = realloc(r->base, cap);
	if (!base)
		return false;
	r->base = base;
	r->cap = cap;
	return true;
}

size_t
ring_put(struct ring *r, size_t n)
{
	size_t pos;

	if (r->wrapped) {
		if (r->head - r->tail < n)
			return RING_FULL;
	} else if (r->cap - r->tail < n && !grow(r, n)) {
		if (r->head < n)
			return RING_FULL;
		r->wrap = r->tail;
		r->tail = 0;
		r->wrapped = true;
	}
	pos = r->tail;
	r->tail += n;
	r->used += n;
	return pos;
}

void
ring_clear(struct ring *r)
{
	r->used = r->head = r->tail = r->wrap = 0;
	r->wrapped = false;
}

void
ring_drop(struct ring *r, size_t n)
{
	r->head += n;
	r->used -= n;
	if (r->wrapped && r->head == r->wrap) {
		r->head = 0;
		r->wrapped = false;
	}
	if (r->used == 0)
		ring_clear(r);
}

bool
ring_fit(struct ring *r, size_t max)
{
	size_t first = r->wrapped ? r->wrap - r->head : r->used;
	char *base;

	if (r->cap > max) {
		base = malloc(max);
		if (!base)
			return false;
		memcpy(base, r->base + r->head, first);
		memcpy(base + first, r->base, r->used - first);
		free(r->base);
		*r = (struct ring){
		    .base = base, .cap = max, .used = r->used, .tail = r->used};
	}
	r->max = max;
	return true;
}

void
ring_free(struct ring *r)
{
	free(r->base);
	*r = (struct ring){.max = r->max};
}
