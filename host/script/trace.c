#include "script/trace.h"

#include <lauxlib.h>

/* A stack with this many levels is deep; then so many of them are told. */
enum { DEEP = 2000, TOLD = 20 };

static void
add_level(luaL_Buffer *b, lua_State *L, lua_Debug *ar)
{
	if (ar->currentline > 0)
		lua_pushfstring(L, "\n\t%s:%d: in ", ar->short_src, ar->currentline);
	else
		lua_pushfstring(L, "\n\t%s: in ", ar->short_src);
	luaL_addvalue(b);
	if (*ar->namewhat)
		lua_pushfstring(L, "%s '%s'", ar->namewhat, ar->name);
	else if (*ar->what == 'm')
		lua_pushliteral(L, "main chunk");
	else
		lua_pushfstring(L, "function <%s:%d>", ar->short_src, ar->linedefined);
	luaL_addvalue(b);
}

void
trace_push(lua_State *L, lua_State *co, int level)
{
	luaL_Buffer b;
	lua_Debug ar;

	if (!lua_getstack(co, level + DEEP, &ar)) {
		luaL_traceback(L, co, NULL, level);
		return;
	}
	luaL_buffinit(L, &b);
	luaL_addstring(&b, "stack traceback:");
	for (int end = level + TOLD; level < end && lua_getstack(co, level, &ar); level++) {
		lua_getinfo(co, "Sln", &ar);
		add_level(&b, L, &ar);
	}
	luaL_addstring(&b, "\n\t...\t(more levels)");
	luaL_pushresult(&b);
}

/* Its address is the registry's key for the tracebacks, by value. */
static const char KEPT;

static bool
can_keep(lua_State *L, int idx)
{
	return lua_istable(L, idx) || lua_type(L, idx) == LUA_TUSERDATA;
}

/* Those of values that are there no more go away by themselves. */
static void
push_all(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &KEPT) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushliteral(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEPT);
}

bool
trace_keep(lua_State *L, int idx, int level)
{
	idx = lua_absindex(L, idx);
	if (!can_keep(L, idx))
		return false;
	trace_push_kept(L, idx);
	if (lua_isnil(L, -1)) {
		push_all(L);
		lua_pushvalue(L, idx);
		trace_push(L, L, level);
		lua_rawset(L, -3);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return true;
}

void
trace_push_kept(lua_State *L, int idx)
{
	idx = lua_absindex(L, idx);
	if (!can_keep(L, idx)) {
		lua_pushnil(L);
		return;
	}
	push_all(L);
	lua_pushvalue(L, idx);
	lua_rawget(L, -2);
	lua_remove(L, -2);
}

void
trace_forget(lua_State *L, int idx)
{
	idx = lua_absindex(L, idx);
	if (!can_keep(L, idx))
		return;
	push_all(L);
	lua_pushvalue(L, idx);
	lua_pushnil(L);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}
