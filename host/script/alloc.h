/* alloc.h - the memory of one Lua state: small blocks by size class, with a limit.
 *
 * Lua asks for and frees a dozen small blocks for each request; a free list for
 * each size, without headers, is several times quicker than malloc() and a
 * quarter smaller.  Blocks are cut from slabs; a slab that becomes empty goes
 * back to malloc().  Sizes are bytes.  One thread. */
#ifndef HOST_SCRIPT_ALLOC_H
#define HOST_SCRIPT_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

enum {
	ALLOC_STEP = 8, /* size classes are its multiples: a table has 56 bytes */
	ALLOC_SMALL =
	    720, /* a larger block is malloc()'s; the stack of a new coroutine is not
		  */
	ALLOC_CLASSES = ALLOC_SMALL / ALLOC_STEP,
};

struct slab;

struct alloc {
	size_t used, limit; /* limit 0: none */
	bool refused;       /* a block, for the limit's sake, since somebody cleared this */
	bool strained;      /* it was, ever */
	size_t low;         /* the least that was used since somebody set this */
	struct slab *open[ALLOC_CLASSES]; /* slabs that have a free block, by class */
	struct slab *spare;               /* one empty slab, kept */
	struct slab *mixed;               /* the newest of the slabs for all sizes */
	unsigned nmixed;
	void *loose[ALLOC_CLASSES]; /* free blocks on those, by class */
	struct slab *reserve;       /* for a forked child: see alloc_reserve() */
	bool apart;                 /* since then: what is freed is left alone */
};

void alloc_init(struct alloc *a, size_t limit);

/* A lua_Alloc; ud is the struct.  NULL: out of memory, or past the limit. */
void *alloc_realloc(void *ud, void *p, size_t old, size_t n);

/* n bytes more (or less) are kept elsewhere for the state's sake, and count as its own. */
void alloc_count(struct alloc *a, ptrdiff_t n);

/* Whether that many more would be within the limit; if not, it has refused them. */
bool alloc_has_room(struct alloc *a, size_t n);

/* In a process that will fork: room for the small blocks of a child that lives briefly.
 * False: out of memory. */
bool alloc_reserve(struct alloc *a);

/* In the child: new small blocks come from that room, side by side, until it is full.  A
 * page that the child writes to for the first time is copied, which costs more than most
 * requests: free blocks are on many, this room is on few. */
void alloc_apart(struct alloc *a);

/* After lua_close(): gives back what is kept. */
void alloc_free(struct alloc *a);

#endif
