#include "script/alloc.h"

#include "base/rare.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Slabs are aligned to their size, so that a block leads to its slab.  The last bytes are
 * left to malloc(), whose own word comes before the next slab: without them there would be
 * a gap of nearly a slab's size before each. */
enum { SLAB = 32 * 1024, END = SLAB - 8 };

struct slab {
	struct slab *next, *prev; /* among the open ones of its class */
	void *free;               /* the first free block; each holds the next's address */
	char *fresh;              /* from here to the end no block was ever handed out */
	unsigned class, live;
};

/* The class of a slab with blocks of all sizes.  The first blocks of a state are on such
 * slabs, for a state of its own for each request should be small: with a slab for each
 * size it would touch a page for each. */
enum { MIXED = ALLOC_CLASSES, MIXED_SLABS = 4 };

/* One cache line, so that blocks of a line's size, and Lua has many, lie on one and not
 * across two: a thousand connections feel it. */
enum { HEAD = 64 };

/* What malloc() gives, and so has a block whose size is a multiple of it. */
enum { ALIGN = 16 };

_Static_assert(sizeof(struct slab) <= HEAD, "the head of a slab is one cache line");

void
alloc_init(struct alloc *a, size_t limit)
{
	*a = (struct alloc){.limit = limit};
}

static struct slab *
slab_of(void *p)
{
	return (struct slab *)((uintptr_t)p &
			       ~(uintptr_t)(SLAB - 1)); // NOLINT: the slab's own address
}

static void
open_slab(struct alloc *a, struct slab *s)
{
	struct slab **head = &a->open[s->class];

	s->prev = NULL;
	s->next = *head;
	if (*head)
		(*head)->prev = s;
	*head = s;
}

static void
shut_slab(struct alloc *a, struct slab *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		a->open[s->class] = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

static struct slab *
get_slab(void)
{
	void *p;

	return posix_memalign(&p, SLAB, END) == 0 ? p : NULL;
}

static struct slab *
new_slab(struct alloc *a, unsigned class)
{
	struct slab *s = a->spare;

	a->spare = NULL;
	if (!s)
		s = get_slab();
	if (!s)
		return NULL;
	*s = (struct slab){.fresh = (char *)s + HEAD, .class = class};
	open_slab(a, s);
	return s;
}

static struct slab *
new_mixed(void)
{
	struct slab *s = get_slab();

	if (s)
		*s = (struct slab){.fresh = (char *)s + HEAD, .class = MIXED};
	return s;
}

/* A block that was never used.  NULL: the slab is full. */
static void *
carve(struct slab *s, size_t size)
{
	void *p = s->fresh;

	if (s->fresh + size > (char *)s + END)
		return NULL;
	s->fresh += size;
	return p;
}

/* NULL: the state is not that small any more. */
static void *
get_mixed(struct alloc *a, size_t size)
{
	void *p = a->mixed ? carve(a->mixed, size) : NULL;
	struct slab *s;

	if (p || a->nmixed == MIXED_SLABS || !(s = new_mixed()))
		return p;
	s->next = a->mixed;
	a->mixed = s;
	a->nmixed++;
	return carve(s, size);
}

/* No block of this size would fit behind the last one that was handed out. */
static inline bool
is_carved(const struct slab *s, size_t size)
{
	return s->fresh + size > (const char *)s + END;
}

/* Where no slab of the class has a free block. */
static RARE void *
get_more(struct alloc *a, unsigned class)
{
	size_t size = (class + 1) * ALLOC_STEP;
	void *p = get_mixed(a, (size + ALIGN - 1) & ~(size_t)(ALIGN - 1));
	struct slab *s = p ? NULL : new_slab(a, class);

	if (!s)
		return p;
	s->live++;
	return carve(s, size);
}

static void *
get_small(struct alloc *a, unsigned class)
{
	size_t size = (class + 1) * ALLOC_STEP;
	struct slab *s = a->open[class];
	void *p = a->loose[class];

	if (p) {
		a->loose[class] = *(void **)p;
		return p;
	}
	if (!s)
		return get_more(a, class);
	s->live++;
	p = s->free;
	if (p)
		s->free = *(void **)p;
	else {
		p = s->fresh;
		s->fresh += size;
	}
	if (!s->free && is_carved(s, size))
		shut_slab(a, s);
	return p;
}

static void
put_small(struct alloc *a, void *p, unsigned class)
{
	struct slab *s = slab_of(p);
	size_t size = (class + 1) * ALLOC_STEP;

	if (a->apart)
		return; /* the page would be copied for nothing */
	if (s->class == MIXED) {
		*(void **)p = a->loose[class];
		a->loose[class] = p;
		return;
	}
	if (!s->free && is_carved(s, size))
		open_slab(a, s); /* it was full */
	*(void **)p = s->free;
	s->free = p;
	if (--s->live > 0)
		return;
	shut_slab(a, s);
	if (a->spare)
		free(s);
	else
		a->spare = s;
}

static void *
get(struct alloc *a, size_t n)
{
	return n > ALLOC_SMALL ? malloc(n) : get_small(a, (unsigned)((n - 1) / ALLOC_STEP));
}

static void
put(struct alloc *a, void *p, size_t n)
{
	if (n > ALLOC_SMALL)
		free(p);
	else
		put_small(a, p, (unsigned)((n - 1) / ALLOC_STEP));
}

/* Another size for a block of `old` bytes. */
static void *
move(struct alloc *a, void *p, size_t old, size_t n)
{
	void *q;

	if (old > ALLOC_SMALL && n > ALLOC_SMALL)
		return realloc(p, n);
	if (old <= ALLOC_SMALL && n <= ALLOC_SMALL &&
	    (old - 1) / ALLOC_STEP == (n - 1) / ALLOC_STEP)
		return p;
	q = get(a, n);
	if (!q)
		return NULL;
	memcpy(q, p, old < n ? old : n);
	put(a, p, old);
	return q;
}

void
alloc_count(struct alloc *a, ptrdiff_t n)
{
	a->used += (size_t)n;
	if (a->used < a->low)
		a->low = a->used;
}

bool
alloc_has_room(struct alloc *a, size_t n)
{
	if (!a->limit || a->used + n <= a->limit)
		return true;
	a->refused = a->strained = true;
	return false;
}

static __attribute__((noinline)) void
release(struct alloc *a, void *p, size_t n)
{
	put(a, p, n);
	a->used -= n;
	if (a->used < a->low)
		a->low = a->used;
}

static __attribute__((noinline)) void *
acquire(struct alloc *a, void *p, size_t old, size_t n)
{
	void *q;

	if (n > old && !alloc_has_room(a, n - old))
		return NULL;
	q = p ? move(a, p, old, n) : get(a, n);
	if (q)
		a->used += n - old;
	return q;
}

/* A block, where nothing else is to be done; else NULL. */
static inline void *
get_quickly(struct alloc *a, unsigned class)
{
	size_t size = (class + 1) * ALLOC_STEP;
	struct slab *s = a->open[class];
	void *p = a->loose[class], *next;

	if (p) {
		a->loose[class] = *(void **)p;
		return p;
	}
	if (!s)
		return NULL;
	p = s->free;
	if (p && (next = *(void **)p))
		s->free = next;
	else if (!p && !is_carved(s, 2 * size)) {
		p = s->fresh;
		s->fresh += size;
	} else
		return NULL; /* it may be the last one */
	s->live++;
	return p;
}

static inline bool
put_quickly(const struct alloc *a, void *p)
{
	struct slab *s = slab_of(p);

	if (a->apart || s->class == MIXED || !s->free || s->live == 1)
		return false;
	*(void **)p = s->free;
	s->free = p;
	s->live--;
	return true;
}

void *
alloc_realloc(void *ud, void *p, size_t old, size_t n)
{
	struct alloc *a = ud;
	void *q;

	if (n == 0) {
		if (p && old <= ALLOC_SMALL && a->used - old >= a->low && put_quickly(a, p))
			a->used -= old;
		else if (p)
			release(a, p, old);
		return NULL;
	}
	if (p)
		return acquire(a, p, old, n);
	/* old is a type, not a size */
	if (n <= ALLOC_SMALL && (!a->limit || a->used + n <= a->limit) &&
	    (q = get_quickly(a, (unsigned)((n - 1) / ALLOC_STEP)))) {
		a->used += n;
		return q;
	}
	return acquire(a, NULL, 0, n);
}

bool
alloc_reserve(struct alloc *a)
{
	if (!a->reserve)
		a->reserve = new_mixed();
	return a->reserve != NULL;
}

void
alloc_apart(struct alloc *a)
{
	if (!a->reserve)
		return;
	a->apart = true;
	memset(a->loose, 0, sizeof(a->loose));
	memset(a->open, 0, sizeof(a->open));
	a->spare = NULL;
	a->reserve->next = a->mixed;
	a->mixed = a->reserve;
	a->reserve = NULL;
	if (a->nmixed == MIXED_SLABS)
		a->nmixed--;
}

void
alloc_free(struct alloc *a)
{
	while (a->mixed) {
		struct slab *next = a->mixed->next;
		free(a->mixed);
		a->mixed = next;
	}
	free(a->reserve);
	a->reserve = NULL;
	free(a->spare);
	a->spare = NULL;
}
