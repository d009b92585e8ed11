/* texts.h - a list of texts that is bounded: what comes when it is full is only counted.
 *
 * All zero but for `max` is a valid empty list that owns no memory.  The caller owns the
 * struct; the texts are the list's until texts_clear().  Sizes are bytes.  One thread. */
#ifndef HOST_BASE_TEXTS_H
#define HOST_BASE_TEXTS_H

#include <stddef.h>
#include <stdint.h>

struct text;

struct texts {
	size_t max; /* bytes, that of the list included */
	size_t used;
	struct text *at;
	size_t n, room;
	uint64_t added; /* those that were not kept as well */
};

/* Adds a copy, if there is room and memory. */
void texts_add(struct texts *t, const char *p, size_t n);

/* Text i, with a zero behind it; NULL: no more are kept. */
const char *texts_get(const struct texts *t, size_t i, size_t *n);

void texts_clear(struct texts *t);

#endif
