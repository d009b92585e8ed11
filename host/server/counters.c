#include "server/counters.h"

#include <stddef.h>

/* The struct is nothing but counters. */
enum { COUNTERS = sizeof(struct counters) / sizeof(counter) };

_Static_assert(sizeof(struct counters) == COUNTERS * sizeof(counter), "only counters");

typedef void change(counter *c, uint64_t n);

static inline void
each(struct counters *to, const struct counters *from, change *f)
{
	counter *a = (counter *)(void *)to;
	const counter *b = (const counter *)(const void *)from;

	for (size_t i = 0; i < COUNTERS; i++)
		f(&a[i], count_get(&b[i]));
}

void
counters_add(struct counters *to, const struct counters *from)
{
	each(to, from, count_add);
}

void
counters_copy(struct counters *to, const struct counters *from)
{
	each(to, from, count_set);
}
