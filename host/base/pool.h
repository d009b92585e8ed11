/* pool.h - structs of one size that are used again and again.
 *
 * Memory handed out stays a struct of that kind until pool_free(): a stale
 * pointer with a serial number inside can be told from a live one.  A returned
 * struct keeps its bytes, but for the first pointer, which the pool uses.
 * The pool owns the memory.  One thread. */
#ifndef HOST_BASE_POOL_H
#define HOST_BASE_POOL_H

#include <stddef.h>

struct pool {
	size_t size;  /* of one struct; at least a pointer's */
	size_t taken; /* structs that are out now */
	void *spare;
	void *slabs;
};

void pool_init(struct pool *p, size_t size);

/* A struct, all zero when it was never used before, else as it was returned
 * (first pointer aside).  NULL: out of memory. */
void *pool_take(struct pool *p);

/* The same, all zero.  For structs of some size: the compiler would clear them by an
 * instruction that takes as long as all the rest of a pool_take(). */
void *pool_take_clear(struct pool *p);

void pool_give(struct pool *p, void *item);

/* Calls fn for every struct that was ever handed out or could be. */
void pool_each(struct pool *p, void (*fn)(void *item));

/* Frees every struct, those still out included. */
void pool_free(struct pool *p);

#endif
