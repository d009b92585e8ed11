#include "server/declared.h"

#include "script/script.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The field of the table on top of the stack. */
static const char *
field(lua_State *L, const char *name, size_t *n)
{
	if (lua_getfield(L, -1, name) != LUA_TSTRING)
		luaL_error(L, "a mock's %s must be a string, not a %s", name,
			   luaL_typename(L, -1));
	const char *s = lua_tolstring(L, -1, n);
	if (*n == 0 || strlen(s) != *n)
		luaL_error(L, "a mock's %s must be neither empty nor have a NUL in it",
			   name);
	lua_pop(L, 1); /* its table keeps it */
	return s;
}

/* Takes the entry on top of the stack. */
static void
take(lua_State *L, struct declared *d)
{
	struct declaration *e = &d->list[d->n];
	char why[320];
	size_t n, len;
	const char *name, *text;

	if (!lua_istable(L, -1))
		luaL_error(L, "moonport.mock.listeners() gave a %s", luaL_typename(L, -1));
	name = field(L, "name", &len);
	text = field(L, "url", &n);
	if (declared_find(d, name))
		luaL_error(L,
			   "two mocks are named %s: give one of them another name=", name);
	if (url_parse(text, n, &e->url, why, sizeof(why)) < 0)
		luaL_error(L, "mock %s: %s", name, why);
	e->name = strdup(name);
	e->text = strdup(text);
	d->n++; /* from here on it is freed */
	if (!e->name || !e->text)
		luaL_error(L, "not enough memory");
}

/* Runs protected.  Argument: the struct. */
static int
read_all(lua_State *L)
{
	struct declared *d = lua_touserdata(L, 1);
	lua_Integer n;

	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	if (lua_getfield(L, -1, "moonport.mock") != LUA_TTABLE)
		return 0; /* it has not even asked for it */
	lua_getfield(L, -1, "listeners");
	lua_call(L, 0, 1);
	n = luaL_len(L, -1);
	d->list = n > 0 ? calloc((size_t)n, sizeof(*d->list)) : NULL;
	if (n > 0 && !d->list)
		luaL_error(L, "not enough memory");
	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, -1, i);
		take(L, d);
		lua_pop(L, 1);
	}
	return 0;
}

int
declared_read(struct declared *d, struct script *sc, char *why, size_t size)
{
	lua_State *L = sc->state.L;

	*d = (struct declared){0};
	lua_pushcfunction(L, read_all);
	lua_pushlightuserdata(L, d);
	if (state_call(L, 1, 0) != LUA_OK) {
		script_keep_error(L, sc->path, why, size);
		declared_free(d);
		return -EINVAL;
	}
	if (d->n > 0)
		return 0;
	snprintf(why, size,
		 "%s declares no mock: call mock.server{ \"tcp://127.0.0.1:0\" }",
		 sc->path);
	declared_free(d);
	return -EINVAL;
}

const struct declaration *
declared_find(const struct declared *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->list[i].name, name) == 0)
			return &d->list[i];
	return NULL;
}

void
declared_free(struct declared *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->list[i].name);
		free(d->list[i].text);
	}
	free(d->list);
	*d = (struct declared){0};
}
