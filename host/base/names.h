/* names.h - strings that are met again and again, each kept once and numbered from 0.
 *
 * All zero is a valid empty table that owns no memory.  The caller owns the struct; the
 * texts are the table's until names_clear().  Any bytes; sizes are bytes.  One thread. */
#ifndef HOST_BASE_NAMES_H
#define HOST_BASE_NAMES_H

#include <stddef.h>
#include <stdint.h>

#define NAMES_NONE UINT32_MAX

struct name;

struct names {
	struct name **at; /* by number */
	uint32_t n, room;
	uint32_t *slots; /* by hash: number + 1, 0: free; a power of two, half of it free */
	uint32_t nslots;
};

/* The string's number, a new one if need be.  NAMES_NONE: out of memory. */
uint32_t names_add(struct names *t, const char *p, size_t n);

/* Its number, or NAMES_NONE if it is not there. */
uint32_t names_find(const struct names *t, const char *p, size_t n);

/* The bytes of number id < t->n, with a zero behind them. */
const char *names_text(const struct names *t, uint32_t id, size_t *n);

/* Forgets and frees everything; numbers begin at 0 again. */
void names_clear(struct names *t);

#endif
