#include "base/pool.h"

#include <stdlib.h>
#include <string.h>

enum { PER_SLAB = 32 };

/* Each slab begins with the address of the next; the structs follow, each on cache
 * lines of its own. */
enum { LINE = 64, SLAB_HEAD = LINE };

void
pool_init(struct pool *p, size_t size)
{
	*p = (struct pool){.size = (size + LINE - 1) & ~(size_t)(LINE - 1)};
}

static void
add_slab(struct pool *p)
{
	char *slab = aligned_alloc(LINE, SLAB_HEAD + p->size * PER_SLAB);

	if (!slab)
		return;
	memset(slab, 0, SLAB_HEAD + p->size * PER_SLAB);
	*(void **)slab = p->slabs;
	p->slabs = slab;
	for (int i = PER_SLAB - 1; i >= 0; i--) {
		void **item = (void **)(void *)(slab + SLAB_HEAD + p->size * (size_t)i);
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
	for (char *slab = p->slabs; slab; slab = *(void **)(void *)slab)
		for (size_t i = 0; i < PER_SLAB; i++)
			fn(slab + SLAB_HEAD + p->size * i);
}

void
pool_free(struct pool *p)
{
	while (p->slabs) {
		void *next = *(void **)p->slabs;
		free(p->slabs);
		p->slabs = next;
	}
	p->spare = NULL;
}
