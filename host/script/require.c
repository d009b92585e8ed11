#include "script/require.h"

#include "script/chore.h"
#include "script/sources.h"

#include <lauxlib.h>
#include <string.h>

/* A path of more bytes would keep the search busy for long, out of reach of any limit. */
enum { LONGEST = 64 * 1024 };

/* package.searchpath, which is upvalue 1, for paths of a sensible length. */
static int
bounded_searchpath(lua_State *L)
{
	size_t n;

	luaL_checklstring(L, 2, &n);
	luaL_argcheck(L, n <= LONGEST, 2, "path too long");
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* The searcher for Lua modules.  Upvalues: package, its searchpath. */
static int
search(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *file;

	file = sources_module(L, name);
	if (file)
		lua_pushstring(L, file);
	else {
		lua_pushvalue(L, lua_upvalueindex(2)); /* searchpath */
		lua_pushstring(L, name);
		if (lua_getfield(L, lua_upvalueindex(1), "path") != LUA_TSTRING)
			return luaL_error(L, "'package.path' must be a string");
		lua_call(L, 2, 2);
		if (lua_isnil(L, -2))
			return 1; /* what was tried */
		lua_pop(L, 1);
	}
	file = luaL_checkstring(L, -1);
	if (sources_load(L, name, file) != LUA_OK &&
	    strstr(lua_tostring(L, -1), "binary chunk"))
		return luaL_error(
		    L,
		    "module '%s' (%s) is precompiled Lua; modules are loaded as text only",
		    name, file);
	if (lua_isstring(L, -1))
		return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s",
				  name, file, lua_tostring(L, -1));
	lua_insert(L, -2);
	return 2;
}

/* Pushes the module's loader and what it is given besides the name. */
static void
find_loader(lua_State *L, const char *name)
{
	int top = lua_gettop(L);

	if (lua_getfield(L, lua_upvalueindex(1), "searchers") != LUA_TTABLE)
		luaL_error(L, "'package.searchers' must be a table");
	lua_pushliteral(L, "");
	for (lua_Integer i = 1;; i++) {
		if (lua_rawgeti(L, top + 1, i) == LUA_TNIL)
			luaL_error(L, "module '%s' not found:%s", name,
				   lua_tostring(L, top + 2));
		lua_pushstring(L, name);
		lua_call(L, 1, 2);
		if (lua_isfunction(L, -2)) {
			lua_replace(L, top + 2);
			lua_replace(L, top + 1);
			return;
		}
		lua_pop(L, 1);
		if (lua_isstring(L, -1)) {
			lua_pushliteral(L, "\n\t");
			lua_insert(L, -2);
			lua_concat(L, 3);
		} else
			lua_pop(L, 1);
	}
}

enum { NAME = 1, LOADED, DATA, RESULT };

static int
rested(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	lua_settop(L, RESULT);
	lua_insert(L, DATA);
	return 2;
}

static int
ran(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	if (!lua_isnil(L, RESULT)) {
		lua_pushvalue(L, NAME);
		lua_pushvalue(L, RESULT);
		lua_settable(L, LOADED);
	}
	lua_pushvalue(L, NAME);
	if (lua_gettable(L, LOADED) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_pushboolean(L, 1);
		lua_pushvalue(L, NAME);
		lua_pushvalue(L, -2);
		lua_settable(L, LOADED);
	}
	lua_replace(L, RESULT);
	return chore_rest(L, 0, rested);
}

/* require(name) -> the module's value, what its loader was given */
static int
require(lua_State *L)
{
	const char *name = luaL_checkstring(L, NAME);

	lua_settop(L, NAME);
	lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_getfield(L, LOADED, name);
	if (lua_toboolean(L, -1))
		return 1;
	lua_settop(L, LOADED);
	find_loader(L, name); /* loader, data */
	lua_insert(L, DATA);
	lua_pushvalue(L, NAME);
	lua_pushvalue(L, DATA);
	lua_callk(L, 2, 1, 0, ran);
	return ran(L, LUA_OK, 0);
}

void
require_install(lua_State *L, const char *path)
{
	lua_getglobal(L, "package");
	lua_pushvalue(L, -1);
	lua_pushcclosure(L, require, 1);
	lua_setglobal(L, "require");
	lua_getfield(L, -1, "searchpath");
	lua_pushcclosure(L, bounded_searchpath, 1);
	lua_setfield(L, -2, "searchpath");
	lua_getfield(L, -1, "searchers");
	lua_pushvalue(L, -2);
	lua_getfield(L, -1, "searchpath");
	lua_pushcclosure(L, search, 2);
	lua_rawseti(L, -2, 2);
	lua_pop(L, 1);
	if (path) {
		lua_pushstring(L, path);
		lua_getfield(L, -2, "path");
		lua_concat(L, 2);
		lua_setfield(L, -2, "path");
	}
	lua_pop(L, 1);
}
