#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

/* The first slab is small, for those who need one or two structs; each next one holds
 * twice as many, up to this: no more, so that the gaps between blocks of others have room
 * for one. */
enum { FIRST_SLAB = 2, LARGEST_SLAB = 16 };

/* The first struct begins a cache line, and all do whose size is a multiple of one; others
 * begin half a line. */
enum { LINE = 64, STEP = LINE / 2 };

/* At the end of each slab, behind its structs. */
struct slab {
	struct slab *next;
	size_t n;
};

void
pool_init(struct pool *p, size_t size)
{
	*p = (struct pool){.size = (size + STEP - 1) & ~(size_t)(STEP - 1)};
}

static char *
items_of(const struct pool *p, struct slab *slab)
{
	return (char *)slab - p->size * slab->n;
}

static void
add_slab(struct pool *p)
{
	struct slab *last = p->slabs, *slab;
	size_t n = last ? last->n * 2 : FIRST_SLAB;
	void *items;

	if (n > LARGEST_SLAB)
		n = LARGEST_SLAB;
	if (posix_memalign(&items, LINE, p->size * n + sizeof(*slab)) != 0)
		return;
	memset(items, 0, p->size * n);
	slab = (struct slab *)(void *)((char *)items + p->size * n);
	*slab = (struct slab){.next = last, .n = n};
	p->slabs = slab;
	for (size_t i = n; i-- > 0;) {
		void **item = (void **)(void *)((char *)items + p->size * i);
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

void *
pool_take_clear(struct pool *p)
{
	void *item = pool_take(p);

	return item ? memset(item, 0, p->size) : NULL;
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
			fn(items_of(p, slab) + p->size * i);
}

void
pool_free(struct pool *p)
{
	while (p->slabs) {
		struct slab *slab = p->slabs;
		p->slabs = slab->next;
		free(items_of(p, slab));
	}
	p->spare = NULL;
}
