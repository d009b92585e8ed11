/* count.h - counters that one thread moves and any thread may read, also of another process
 * where they lie in shared memory.  The cost is that of a plain addition. */
#ifndef HOST_BASE_COUNT_H
#define HOST_BASE_COUNT_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t counter;

static inline uint64_t
count_get(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

static inline void
count_set(counter *c, uint64_t n)
{
	atomic_store_explicit(c, n, memory_order_relaxed);
}

static inline void
count_add(counter *c, uint64_t n)
{
	count_set(c, count_get(c) + n);
}

#endif
