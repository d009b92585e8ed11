#include "base/texts.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST = 8 };

struct text {
	size_t len;
	char *p;
};

static bool
reserve(struct texts *t)
{
	size_t room = t->room ? t->room * 2 : FIRST;
	struct text *at = t->at;

	if (t->n == t->room) {
		at = realloc(at, room * sizeof(*at));
		if (!at)
			return false;
		t->at = at;
		t->room = room;
	}
	return true;
}

void
texts_add(struct texts *t, const char *p, size_t n)
{
	size_t size = sizeof(struct text) + n + 1;
	char *copy;

	t->added++;
	if (size > t->max - t->used || !reserve(t))
		return;
	copy = malloc(n + 1);
	if (!copy)
		return;
	memcpy(copy, p, n);
	copy[n] = 0;
	t->at[t->n++] = (struct text){n, copy};
	t->used += size;
}

const char *
texts_get(const struct texts *t, size_t i, size_t *n)
{
	if (i >= t->n)
		return NULL;
	*n = t->at[i].len;
	return t->at[i].p;
}

void
texts_clear(struct texts *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->at[i].p);
	free(t->at);
	*t = (struct texts){.max = t->max};
}
