#include "script/files.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>

/* The registry's key of a table whose weak keys are the handles. */
static const char KEY = 0;

/* Calls the io library's function in upvalue 1, and notes the handles that it returns. */
static int
watched(lua_State *L)
{
	int n;

	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	n = lua_gettop(L);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY);
	for (int i = 1; i <= n; i++)
		if (luaL_testudata(L, i, LUA_FILEHANDLE)) {
			lua_pushvalue(L, i);
			lua_pushboolean(L, 1);
			lua_rawset(L, -3);
		}
	lua_settop(L, n);
	return n;
}

void
files_watch(lua_State *L)
{
	static const char *const names[] = {"open",  "popen", "tmpfile",
					    "lines", "input", "output"};

	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushliteral(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
	lua_getglobal(L, "io");
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		lua_getfield(L, -1, names[i]);
		lua_pushcclosure(L, watched, 1);
		lua_setfield(L, -2, names[i]);
	}
	lua_pop(L, 1);
}

/* The standard files stay: 0 to 2 are the child's as well.  Nothing here may raise, or
 * need memory: nobody would catch it. */
static bool
is_standard(const luaL_Stream *p)
{
	return p->f == stdin || p->f == stdout || p->f == stderr;
}

void
files_forget(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY) == LUA_TTABLE)
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
			luaL_Stream *p = lua_touserdata(L, -2);
			if (!is_standard(p))
				p->closef = NULL; /* what the io library takes for closed */
		}
	lua_pop(L, 1);
}
