/* line.h - text that is put together from many pieces, and is whole or nothing.
 *
 * A piece that there was no memory for is not missed by those that follow: one look at
 * the end says whether all are there.  The struct's owner frees it.  Sizes are bytes.
 * Any thread. */
#ifndef HOST_BASE_LINE_H
#define HOST_BASE_LINE_H

#include "base/buf.h"

struct line {
	struct buf buf;
	bool lost; /* a piece is missing, since line_free() */
};

void line_put(struct line *t, const char *s);
void line_put_bytes(struct line *t, const char *p, size_t n);

/* Forgets everything and frees the memory. */
void line_free(struct line *t);

#endif
