#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 256 };

static bool
make_room(struct buf *b, size_t n)
{
	size_t len = buf_len(b), cap = b->cap ? b->cap : SMALLEST;
	char *p;

	if (b->cap - b->end >= n && b->base)
		return true;
	if (b->off >= len && b->base && b->cap - len >= n) {
		memcpy(b->base, b->base + b->off, len);
		b->off = 0;
		b->end = len;
		return true;
	}
	if (n > (size_t)-1 / 4 - len)
		return false;
	while (cap < len + n)
		cap *= 2;
	p = malloc(cap);
	if (!p)
		return false;
	if (len)
		memcpy(p, b->base + b->off, len);
	free(b->base);
	*b = (struct buf){.base = p, .end = len, .cap = cap};
	return true;
}

bool
buf_put(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return true;
	if (!make_room(b, n))
		return false;
	memcpy(b->base + b->end, p, n);
	b->end += n;
	return true;
}

void
buf_drop(struct buf *b, size_t n)
{
	b->off += n;
	if (b->off == b->end)
		buf_free(b);
}

void
buf_free(struct buf *b)
{
	free(b->base);
	*b = (struct buf){0};
}
