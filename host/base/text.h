/* text.h - text that is put together from many pieces, and is whole or nothing.
 *
 * A piece that there was no memory for is not missed by those that follow: one look at
 * the end says whether all are there.  The struct's owner frees it.  Sizes are bytes.
 * Any thread. */
#ifndef HOST_BASE_TEXT_H
#define HOST_BASE_TEXT_H

#include "base/buf.h"

struct text {
	struct buf buf;
	bool lost; /* a piece is missing, since text_free() */
};

void text_put(struct text *t, const char *s);
void text_put_bytes(struct text *t, const char *p, size_t n);

/* Forgets everything and frees the memory. */
void text_free(struct text *t);

#endif
