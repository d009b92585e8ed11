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
