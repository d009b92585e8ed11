#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 256 };

static bool
make_room(struct buf *b, size_t n)
{
	size_t len = buf_len(b), cap = buf_cap(b) ? buf_cap(b) : SMALLEST;
	struct bytes *at = b->at;

	if (at && at->cap - at->end >= n)
		return true;
	if (at && at->off >= len && at->cap - len >= n) {
		memcpy(at->data, at->data + at->off, len);
		at->off = 0;
		at->end = len;
		return true;
	}
	if (n > (size_t)-1 / 4 - len)
		return false;
	while (cap < len + n)
		cap *= 2;
	if (at && at->off > 0) { /* realloc() would take along what is in front */
		at = malloc(sizeof(*at) + cap);
		if (!at)
			return false;
		memcpy(at->data, buf_data(b), len);
		free(b->at);
	} else {
		at = realloc(at, sizeof(*at) + cap);
		if (!at)
			return false;
	}
	*at = (struct bytes){.end = len, .cap = cap};
	b->at = at;
	return true;
}

char *
buf_room(struct buf *b, size_t n)
{
	return make_room(b, n) ? b->at->data + b->at->end : NULL;
}

void
buf_filled(struct buf *b, size_t n)
{
	b->at->end += n;
}

bool
buf_put(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return true;
	if (!make_room(b, n))
		return false;
	memcpy(b->at->data + b->at->end, p, n);
	b->at->end += n;
	return true;
}

void
buf_drop(struct buf *b, size_t n)
{
	if (!b->at)
		return;
	b->at->off += n;
	if (b->at->off == b->at->end)
		buf_free(b);
}

void
buf_free(struct buf *b)
{
	free(b->at);
	b->at = NULL;
}
