#include "base/names.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST = 16 };

struct name {
	uint32_t hash;
	size_t len;
	char text[];
};

/* FNV-1a. */
static uint32_t
hash_of(const char *p, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 16777619u;
	return h;
}

/* Where it stands, or the free slot where it would. */
static uint32_t
find(const struct names *t, const char *p, size_t n, uint32_t hash)
{
	uint32_t mask = t->nslots - 1, i = hash & mask;

	for (; t->slots[i]; i = (i + 1) & mask) {
		const struct name *it = t->at[t->slots[i] - 1];
		if (it->hash == hash && it->len == n && memcmp(it->text, p, n) == 0)
			break;
	}
	return i;
}

static bool
grow(struct names *t)
{
	uint32_t room = t->room ? t->room * 2 : FIRST;
	uint32_t *slots = calloc((size_t)room * 2, sizeof(*slots));
	struct name **at = slots ? realloc(t->at, room * sizeof(struct name *)) : NULL;

	if (!at) {
		free(slots);
		return false;
	}
	free(t->slots);
	*t = (struct names){at, t->n, room, slots, room * 2};
	for (uint32_t i = 0; i < t->n; i++)
		slots[find(t, at[i]->text, at[i]->len, at[i]->hash)] = i + 1;
	return true;
}

uint32_t
names_find(const struct names *t, const char *p, size_t n)
{
	return t->n ? t->slots[find(t, p, n, hash_of(p, n))] - 1 : NAMES_NONE;
}

uint32_t
names_add(struct names *t, const char *p, size_t n)
{
	uint32_t id = names_find(t, p, n);
	struct name *new;

	if (id != NAMES_NONE)
		return id;
	if (t->n == t->room && (t->room > UINT32_MAX / 8 || !grow(t)))
		return NAMES_NONE;
	new = malloc(sizeof(*new) + n + 1);
	if (!new)
		return NAMES_NONE;
	new->hash = hash_of(p, n);
	new->len = n;
	memcpy(new->text, p, n);
	new->text[n] = 0;
	t->slots[find(t, p, n, new->hash)] = t->n + 1;
	t->at[t->n] = new;
	return t->n++;
}

const char *
names_text(const struct names *t, uint32_t id, size_t *n)
{
	*n = t->at[id]->len;
	return t->at[id]->text;
}

void
names_clear(struct names *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		free(t->at[i]);
	free(t->at);
	free(t->slots);
	*t = (struct names){0};
}
