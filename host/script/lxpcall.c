#include "script/lxpcall.h"

#include "script/lerror.h"

#include <lauxlib.h>
#include <string.h>

/* Upvalue 1: the script's. */
static int
message_handler(lua_State *L)
{
	const char *code = lerror_code(L, 1);

	if (code && strcmp(code, "cpu_limit") == 0)
		return 1;
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, 1, 1);
	return 1;
}

/* true and the results; or, above the message handler at 1, the error. */
static int
outcome(lua_State *L, int status, lua_KContext ctx)
{
	(void)ctx;
	lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
	lua_replace(L, 1);
	return lua_gettop(L);
}

/* xpcall(f, message_handler, ...) */
static int
guarded_xpcall(lua_State *L)
{
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_pushvalue(L, 2);
	if (!lua_iscfunction(
		L, 2)) /* one in C is seen in the traceback, but computes little */
		lua_pushcclosure(L, message_handler, 1);
	lua_insert(L, 1);
	lua_remove(L, 3);
	return outcome(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, outcome), 0);
}

void
lxpcall_install(lua_State *L)
{
	lua_register(L, "xpcall", guarded_xpcall);
}
