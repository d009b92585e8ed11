#include "script/sources.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
	struct source *next;
	char *name; /* of the module, or NULL */
	char *file;
	char *text;
	size_t len;
	struct stamp stamp;
};

struct sources {
	_Atomic unsigned refs;
	bool record;
	struct source *list;
};

static const char KEY = 0;

struct sources *
sources_new(void)
{
	struct sources *s = calloc(1, sizeof(*s));

	if (s)
		s->refs = 1;
	return s;
}

struct sources *
sources_hold(struct sources *s)
{
	s->refs++;
	return s;
}

static void
free_source(struct source *x)
{
	free(x->name);
	free(x->file);
	free(x->text);
	free(x);
}

void
sources_release(struct sources *s)
{
	if (!s || --s->refs > 0)
		return;
	while (s->list) {
		struct source *next = s->list->next;
		free_source(s->list);
		s->list = next;
	}
	free(s);
}

void
sources_attach(lua_State *L, struct sources *s, bool record)
{
	if (record)
		s->record = true;
	lua_pushlightuserdata(L, s);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
}

void
sources_seal(struct sources *s)
{
	s->record = false;
}

static struct sources *
of_state(lua_State *L)
{
	struct sources *s;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
	s = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return s;
}

const char *
sources_module(lua_State *L, const char *name)
{
	const struct sources *s = of_state(L);

	for (const struct source *x = s ? s->list : NULL; x; x = x->next)
		if (x->name && strcmp(x->name, name) == 0)
			return x->file;
	return NULL;
}

size_t
sources_files(const struct sources *s, struct stamped *files, size_t n)
{
	size_t i = 0;

	for (const struct source *x = s->list; x; x = x->next, i++)
		if (i < n)
			files[i] = (struct stamped){.path = x->file, .stamp = x->stamp};
	return i;
}

/* A whole file; NULL: it cannot be read, which the loader will say better. */
static char *
read_whole(const char *file, size_t *len, struct stamp *stamp)
{
	FILE *f = fopen(file, "re");
	char *text = NULL, *more;
	size_t n = 0, room = 0;

	if (!f)
		return NULL;
	*stamp = stamp_of_fd(fileno(f)); /* before it is read: later changes count */
	do {
		if (n == room) {
			room = room ? room * 2 : 8192;
			more = realloc(text, room);
			if (!more)
				break;
			text = more;
		}
		n += fread(text + n, 1, room - n, f);
	} while (!feof(f) && !ferror(f));
	if (ferror(f) || !feof(f)) {
		free(text);
		text = NULL;
	}
	fclose(f);
	*len = n;
	return text;
}

/* Adds a file to the set.  NULL: it was not read, or there is no memory for it. */
static const struct source *
add(struct sources *s, const char *name, const char *file)
{
	struct source *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->text = read_whole(file, &x->len, &x->stamp);
	x->file = strdup(file);
	x->name = name ? strdup(name) : NULL;
	if (!x->text || !x->file || (name && !x->name)) {
		free_source(x);
		return NULL;
	}
	x->next = s->list;
	s->list = x;
	return x;
}

/* As Lua's own loader does: a byte order mark and a first line that begins with # are no
 * part of the program, but the latter's newline is. */
static int
load_text(lua_State *L, const struct source *x)
{
	const char *p = x->text, *nl;
	size_t n = x->len;
	int status;

	if (n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3, n -= 3;
	if (n > 0 && *p == '#') {
		nl = memchr(p, '\n', n);
		n = nl ? n - (size_t)(nl - p) : 0;
		p = nl ? nl : p;
	}
	lua_pushfstring(L, "@%s", x->file);
	status = luaL_loadbufferx(L, p, n, lua_tostring(L, -1), "t");
	lua_remove(L, -2);
	return status;
}

int
sources_load(lua_State *L, const char *name, const char *file)
{
	struct sources *s = of_state(L);
	const struct source *x = s ? s->list : NULL;

	while (x && strcmp(x->file, file) != 0)
		x = x->next;
	if (!x && s && s->record)
		x = add(s, name, file);
	return x ? load_text(L, x) : luaL_loadfilex(L, file, "t");
}
