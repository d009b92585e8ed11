#include "base/sparse.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST = 64 };

static struct milestone *
item(const struct sparse *s, size_t i)
{
	return &s->at[(s->first + i) & (s->room - 1)];
}

static bool
grow(struct sparse *s)
{
	size_t room = s->room ? s->room * 2 : FIRST;
	struct milestone *at = malloc(room * sizeof(*at));

	if (!at)
		return false;
	for (size_t i = 0; i < s->n; i++)
		at[i] = *item(s, i);
	free(s->at);
	*s = (struct sparse){at, 0, s->n, room};
	return true;
}

bool
sparse_add(struct sparse *s, uint64_t number, size_t pos)
{
	if (s->n == s->room && !grow(s))
		return false;
	*item(s, s->n++) = (struct milestone){number, pos};
	return true;
}

const struct milestone *
sparse_find(const struct sparse *s, uint64_t number)
{
	size_t low = 0,
	       high = s->n; /* items before low are not above it, from high on are */

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (item(s, middle)->number <= number)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? item(s, low - 1) : NULL;
}

void
sparse_drop(struct sparse *s, uint64_t number)
{
	while (s->n > 0 && s->at[s->first].number <= number) {
		s->first = (s->first + 1) & (s->room - 1);
		s->n--;
	}
}

void
sparse_clear(struct sparse *s)
{
	free(s->at);
	*s = (struct sparse){0};
}
