#include "script/slice.h"

bool
slice_over(lua_State *L)
{
	(void)L;
	return false;
}

int
slice_pause(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
	return k(L, LUA_OK, ctx);
}
