/* sparse.h - where some of many items are that have rising numbers: one in a few dozen,
 * so that each can be found by a short walk.
 *
 * All zero is a valid empty index that owns no memory.  The caller owns the struct.  One
 * thread. */
#ifndef HOST_BASE_SPARSE_H
#define HOST_BASE_SPARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct milestone {
	uint64_t number;
	size_t pos;
};

struct sparse {
	struct milestone *at; /* a ring of `room`, a power of two */
	size_t first, n, room;
};

/* Notes an item whose number is above all others.  False: out of memory; walks are longer
 * then, and nothing else. */
bool sparse_add(struct sparse *s, uint64_t number, size_t pos);

/* The last one at or before that number; NULL: none is. */
const struct milestone *sparse_find(const struct sparse *s, uint64_t number);

/* Forgets all up to and with that number. */
void sparse_drop(struct sparse *s, uint64_t number);

/* Forgets all, and frees the memory. */
void sparse_clear(struct sparse *s);

#endif
