/* buf.h - a queue of bytes: put at the end, taken from the front.
 *
 * All zero is a valid empty buffer that owns no memory, and a buffer that
 * becomes empty gives its memory back.  The caller owns the struct; the bytes
 * are the buffer's until buf_free().  Sizes are bytes.  One thread. */
#ifndef HOST_BASE_BUF_H
#define HOST_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

/* One pointer, for an idle connection has several that are empty. */
struct buf {
	struct bytes *at; /* NULL when empty */
};

/* The buffer's own.  Whoever knows how much there will be may lend it room that never has
 * to grow, and does not free it. */
struct bytes {
	size_t off, end, cap; /* of data */
	char data[];
};

static inline size_t
buf_len(const struct buf *b)
{
	return b->at ? b->at->end - b->at->off : 0;
}

/* "" when empty. */
static inline const char *
buf_data(const struct buf *b)
{
	return b->at ? b->at->data + b->at->off : "";
}

/* How much memory it has for bytes. */
static inline size_t
buf_cap(const struct buf *b)
{
	return b->at ? b->at->cap : 0;
}

/* Appends a copy of n bytes.  False: out of memory, and nothing changed. */
bool buf_put(struct buf *b, const void *p, size_t n);

/* Room for n bytes at the end, for somebody else to fill: buf_filled() says how much they
 * were, before anything else is done to the buffer.  NULL: out of memory. */
char *buf_room(struct buf *b, size_t n);
void buf_filled(struct buf *b, size_t n);

/* Forgets the first n bytes, n <= buf_len(b).  Pointers into the buffer die. */
void buf_drop(struct buf *b, size_t n);

/* Forgets everything and frees the memory. */
void buf_free(struct buf *b);

#endif
