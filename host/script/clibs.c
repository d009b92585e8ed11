#include "script/clibs.h"

#include "script/sources.h"
#include "script/text.h"

#include <fcntl.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { WHY = 1024 };

/* What is not there is left to Lua, which says so. */
static void
judge(lua_State *L, const char *file)
{
	char why[WHY] = "";
	int fd = open(file, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return;
	rc = text_trust(fd, file, why, sizeof(why));
	close(fd);
	if (rc < 0)
		luaL_error(L, "%s", *why ? why : strerror(-rc));
}

static int
call_original(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* Upvalues: Lua's searcher, package, its searchpath, whether it looks for the library that
 * has a submodule in it. */
static int
searcher(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *dot = strchr(name, '.');
	bool root = lua_toboolean(L, lua_upvalueindex(4));

	lua_settop(L, 1);
	if (sources_strict(L) && (dot || !root)) {
		lua_pushvalue(L, lua_upvalueindex(3));
		lua_pushlstring(L, name, root ? (size_t)(dot - name) : strlen(name));
		lua_getfield(L, lua_upvalueindex(2), "cpath");
		lua_call(L, 2, 1);
		if (lua_isstring(L, -1))
			judge(L, lua_tostring(L, -1));
		lua_settop(L, 1);
	}
	return call_original(L);
}

/* package.loadlib(file, function).  A name without a slash is the system's to look for. */
static int
loadlib(lua_State *L)
{
	const char *file = luaL_checkstring(L, 1);

	if (sources_strict(L) && strchr(file, '/'))
		judge(L, file);
	return call_original(L);
}

void
clibs_watch(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	for (int i = 3; i <= 4; i++) {
		lua_rawgeti(L, -1, i);
		lua_pushvalue(L, -3);
		lua_getfield(L, -4, "searchpath");
		lua_pushboolean(L, i == 4);
		lua_pushcclosure(L, searcher, 4);
		lua_rawseti(L, -2, i);
	}
	lua_pop(L, 1);
	lua_getfield(L, -1, "loadlib");
	lua_pushcclosure(L, loadlib, 1);
	lua_setfield(L, -2, "loadlib");
	lua_pop(L, 1);
}
