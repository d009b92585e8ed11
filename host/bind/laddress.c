/* Addresses in Lua: {host, port}, also .host and .port; a path for Unix sockets. */
#include "bind/lhandle.h"
#include "net/addr.h"

#include <string.h>

static int
address_index(lua_State *L)
{
	const char *key = lua_tostring(L, 2);

	if (key && strcmp(key, "host") == 0)
		lua_rawgeti(L, 1, 1);
	else if (key && strcmp(key, "port") == 0)
		lua_rawgeti(L, 1, 2);
	else
		lua_pushnil(L);
	return 1;
}

static int
address_tostring(lua_State *L)
{
	const char *host;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_rawgeti(L, 1, 1);
	lua_rawgeti(L, 1, 2);
	host = luaL_tolstring(L, -2, NULL);
	lua_pushfstring(L, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host,
			luaL_tolstring(L, -2, NULL));
	return 1;
}

void
open_address(lua_State *L)
{
	luaL_newmetatable(L, address_class);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, address_class);
	lua_pushcfunction(L, address_index);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, address_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushboolean(L, 0); /* all requests of the state share it */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void
push_address(lua_State *L, const struct addr *a)
{
	char text[ADDR_TEXT];

	if (a->len == 0 || addr_is_unix(a)) {
		lua_pushlstring(L, text, addr_path(a, text, sizeof(text)));
		return;
	}
	lua_createtable(L, 2, 0);
	addr_host(a, text, sizeof(text));
	lua_pushstring(L, text);
	lua_rawseti(L, -2, 1);
	lua_pushinteger(L, addr_port(a));
	lua_rawseti(L, -2, 2);
	lua_rawgetp(L, LUA_REGISTRYINDEX, address_class);
	lua_setmetatable(L, -2);
}

void
check_address(lua_State *L, int idx, struct addr *out)
{
	char why[160];
	const char *s;
	size_t n;
	lua_Integer port;

	idx = lua_absindex(L, idx);
	if (lua_type(L, idx) == LUA_TSTRING) {
		s = lua_tolstring(L, idx, &n);
		if (addr_from_path(s, n, out, why, sizeof(why)) < 0)
			luaL_argerror(L, idx, lua_pushstring(L, why));
		return;
	}
	luaL_argexpected(L, lua_istable(L, idx), idx, "address ({host, port} or a path)");
	lua_geti(L, idx, 1);
	lua_geti(L, idx, 2);
	s = lua_tostring(L, -2);
	port = lua_tointeger(L, -1);
	if (!s || port < 0 || port > 65535 || !lua_isinteger(L, -1) ||
	    addr_from_ip(s, (int)port, out) < 0)
		luaL_argerror(
		    L, idx,
		    "an address must be {host, port}: an IP address and a number to 65535");
	lua_pop(L, 2);
}
