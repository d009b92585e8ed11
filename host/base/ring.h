/* ring.h - bytes of items of any size, each in one piece: new ones are put behind the
 * others until the bound is reached, and then where the oldest were dropped.
 *
 * The memory grows by doubling, as it is needed, and never moves an item to another
 * position while it does.  All zero but for `max` is a valid empty ring that owns no
 * memory; the caller owns the struct, and knows the size of each item.  Sizes and
 * positions are bytes.  One thread. */
#ifndef HOST_BASE_RING_H
#define HOST_BASE_RING_H

#include <stdbool.h>
#include <stddef.h>

#define RING_FULL ((size_t)-1)

struct ring {
	char *base;
	size_t cap, max; /* bytes allocated, and that may be */
	size_t used;     /* by items */
	size_t head;     /* of the oldest item */
	size_t tail;     /* where the next one goes */
	size_t
	    wrap; /* while wrapped: the end of the items from head on; the next is at 0 */
	bool wrapped;
};

/* Room for n bytes as the newest item: its position.  RING_FULL: not before the oldest was
 * dropped; of an empty ring: never, or not with so little memory. */
size_t ring_put(struct ring *r, size_t n);

/* Drops the oldest item, which has n bytes. */
void ring_drop(struct ring *r, size_t n);

/* The position behind the item of n bytes at pos: the next item's, if there is one. */
static inline size_t
ring_next(const struct ring *r, size_t pos, size_t n)
{
	return r->wrapped && pos + n == r->wrap ? 0 : pos + n;
}

/* Changes the bound; used <= max.  What is more than that is given back, and the items are
 * then at other positions: the oldest at r->head, and the others behind it.  False: out of
 * memory, and nothing changed. */
bool ring_fit(struct ring *r, size_t max);

/* Drops all items; the memory is kept. */
void ring_clear(struct ring *r);

void ring_free(struct ring *r);

#endif
