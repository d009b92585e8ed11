/* heap.h - a binary heap of timers, the earliest on top.
 *
 * The heap owns its array, callers own the timers.  Room is made beforehand,
 * so that adding cannot fail.  One thread. */
#ifndef HOST_LOOP_HEAP_H
#define HOST_LOOP_HEAP_H

#include <stdbool.h>
#include <stddef.h>

struct loop_timer;

struct heap {
	struct loop_timer **at; /* 1 .. len */
	size_t len, cap;
};

/* Makes sure that n timers fit.  False: out of memory. */
bool heap_reserve(struct heap *h, size_t n);

void heap_add(struct heap *h, struct loop_timer *t);
void heap_remove(struct heap *h, struct loop_timer *t);

/* Puts t where its changed deadline belongs. */
void heap_moved(struct heap *h, struct loop_timer *t);

/* The earliest, or NULL. */
struct loop_timer *heap_top(const struct heap *h);

/* Takes all off. */
void heap_clear(struct heap *h);

void heap_free(struct heap *h);

#endif
