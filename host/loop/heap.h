/* heap.h - a binary heap of timers, the earliest on top.
 *
 * The heap owns its array, callers own the timers.  Room is made beforehand,
 * so that adding cannot fail.  One thread. */
#ifndef HOST_LOOP_HEAP_H
#define HOST_LOOP_HEAP_H

#include "base/clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop_timer;

/* The deadline lies here and not in the timer: an idle connection has a timer that is not
 * set. */
struct heap_place {
	int64_t when;
	struct loop_timer *timer;
};

struct heap {
	struct heap_place *at; /* 1 .. len */
	size_t len, cap;
};

/* Makes sure that n timers fit.  False: out of memory. */
bool heap_reserve(struct heap *h, size_t n);

void heap_add(struct heap *h, struct loop_timer *t, int64_t when);
void heap_remove(struct heap *h, struct loop_timer *t);

/* Gives one that is there another deadline. */
void heap_move(struct heap *h, struct loop_timer *t, int64_t when);

/* The earliest, or NULL. */
struct loop_timer *heap_top(const struct heap *h);

/* Its deadline, or CLOCK_NEVER. */
static inline int64_t
heap_soonest(const struct heap *h)
{
	return h->len ? h->at[1].when : CLOCK_NEVER;
}

/* Takes all off. */
void heap_clear(struct heap *h);

void heap_free(struct heap *h);

#endif
