#include "script/lerror.h"

#include "script/trace.h"

#include <errno.h>
#include <lauxlib.h>
#include <string.h>

static const char META[] = "moonport.error";

static int
error_tostring(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_getfield(L, 1, "message");
	luaL_tolstring(L, -1, NULL);
	return 1;
}

static void
push_metatable(lua_State *L)
{
	lua_createtable(L, 0, 3);
	lua_pushstring(L, META);
	lua_setfield(L, -2, "__name");
	lua_pushcfunction(L, error_tostring);
	lua_setfield(L, -2, "__tostring");
}

void
lerror_push(lua_State *L, const char *code, const char *message, int err)
{
	lua_createtable(L, 0, 3);
	lua_pushstring(L, code);
	lua_setfield(L, -2, "code");
	lua_pushstring(L, message);
	lua_setfield(L, -2, "message");
	if (err) {
		lua_pushinteger(L, err);
		lua_setfield(L, -2, "errno");
	}
	if (luaL_getmetatable(L, META) == LUA_TNIL) {
		push_metatable(L);
		push_metatable(L); /* for getmetatable(): nobody else's changes with it */
		lua_setfield(L, -2, "__metatable");
		lua_pushvalue(L, -1);
		lua_setfield(L, LUA_REGISTRYINDEX, META); /* only what is whole */
		lua_replace(L, -2);
	}
	lua_setmetatable(L, -2);
}

int
lerror_raise_errno(lua_State *L, const char *what, int err)
{
	const char *name = strerrorname_np(err);

	lua_pushfstring(L, "%s: %s", what, strerror(err));
	lerror_push(L, name ? name : "EUNKNOWN", lua_tostring(L, -1), err);
	return lua_error(L);
}

int
lerror_raise_timeout(lua_State *L, const char *what)
{
	lua_pushfstring(L, "%s: timeout", what);
	lerror_push(L, "timeout", lua_tostring(L, -1), ETIMEDOUT);
	return lua_error(L);
}

int
lerror_result(lua_State *L, int err)
{
	lua_pushnil(L);
	lua_pushstring(L, strerror(err));
	lua_pushinteger(L, err);
	return 3;
}

int
lerror_is_peer_gone(const char *code)
{
	static const char *const codes[] = {"EPIPE", "ECONNRESET", "ENOTCONN", "ETIMEDOUT"};

	for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
		if (strcmp(code, codes[i]) == 0)
			return 1;
	return 0;
}

void
lerror_add_traceback(lua_State *L, int idx)
{
	const char *code = lerror_code(L, idx);

	if (lerror_is_peer_gone(code) || strcmp(code, "cancelled") == 0 ||
	    strcmp(code, "timeout") == 0)
		return;
	lua_pushliteral(L, "traceback");
	if (lua_rawget(L, idx) == LUA_TNIL) {
		trace_push(L, L, 1);
		lua_setfield(L, idx, "traceback");
	}
	lua_pop(L, 1);
}

const char *
lerror_code(lua_State *L, int idx)
{
	const char *code = NULL;

	idx = lua_absindex(L, idx);
	if (!lua_istable(L, idx) || !lua_getmetatable(L, idx))
		return NULL;
	luaL_getmetatable(L, META);
	if (lua_rawequal(L, -1, -2)) {
		lua_pushliteral(L, "code");
		lua_rawget(L, idx);
		if (lua_type(L, -1) == LUA_TSTRING)
			code = lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	lua_pop(L, 2);
	return code;
}
