#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

/* The first slab is small, for those who need one or two structs; each next one holds
 * twice as many, up to this. */
enum { FIRST_SLAB = 2, LARGEST_SLAB = 32 };

/* Each slab begins with a head; the structs follow.  One of half a cache line more than
 * some lines shares the last one with its neighbour: idle connections are many. */
enum { LINE = 64, STEP = LINE / 2, SLAB_HEAD = LINE };

struct slab {
	struct slab *next;
	size_t n;
};

void
pool_init(struct pool *p, size_t size)
{
	*p = (struct pool){.size = (size + STEP - 1) & ~(size_t)(STEP - 1)};
}

static void
add_slab(struct pool *p)
{
	struct slab *last = p->slabs, *slab;
	size_t n = last ? last->n * 2 : FIRST_SLAB;

	if (n > LARGEST_SLAB)
		n = LARGEST_SLAB;
	slab = aligned_alloc(LINE, (SLAB_HEAD + p->size * n + LINE - 1) & ~(size_t)(LINE - 1));
	if (!slab)
		return;
	memset(slab, 0, SLAB_HEAD + p->size * n);
	*slab = (struct slab){.next = last, .n = n};
	p->slabs = slab;
	for (size_t i = n; i-- > 0;) {
		void **item = (void **)(void *)((char *)slab + SLAB_HEAD + p->size * i);
		*item = p->spare;
		p->spare = item;
	}
}

void *
pool_take(struct pool *p)
{
	void **item;

	if (!p->spare)
		add_slab(p);
	item = p->spare;
	if (!item)
		return NULL;
	p->spare = *item;
	*item = NULL;
	p->taken++;
	return item;
}

void
pool_give(struct pool *p, void *item)
{
	*(void **)item = p->spare;
	p->spare = item;
	p->taken--;
}

void
pool_each(struct pool *p, void (*fn)(void *item))
{
	for (struct slab *slab = p->slabs; slab; slab = slab->next)
		for (size_t i = 0; i < slab->n; i++)
			fn((char *)slab + SLAB_HEAD + p->size * i);
}

void
pool_free(struct pool *p)
{
	while (p->slabs) {
		struct slab *next = ((struct slab *)p->slabs)->next;
		free(p->slabs);
		p->slabs = next;
	}
	p->spare = NULL;
}
