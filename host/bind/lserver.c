#include "bind/lserver.h"

#include "bind/lhandle.h"

#include <string.h>

static const char META[] = "moonport.server";

static struct server_view *
check(lua_State *L)
{
	return *(struct server_view **)luaL_checkudata(L, 1, META);
}

/* server:shutdown(): stop accepting, let requests end, within drain_timeout. */
static int
server_shutdown(lua_State *L)
{
	struct server_view *v = check(L);

	v->shutdown(v);
	return 0;
}

/* server:reload() -> the new generation's number, or nil and why the old one stays */
static int
server_reload(lua_State *L)
{
	struct server_view *v = check(L);

	lua_settop(L, 1);
	return v->reload(v, L);
}

/* server:stats() -> a table of counters */
static int
server_stats(lua_State *L)
{
	struct server_view *v = check(L);

	v->push_stats(v, L);
	return 1;
}

static int
server_fileno(lua_State *L)
{
	lua_pushinteger(L, check(L)->fd);
	return 1;
}

/* Fields in this order: the handler's own, methods, facts, attributes. */
static int
server_index(lua_State *L)
{
	struct server_view *v = check(L);
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
	char url[ADDR_TEXT];

	lua_getiuservalue(L, 1, 1);
	lua_pushvalue(L, 2);
	if (lua_rawget(L, -2) != LUA_TNIL)
		return 1;
	lua_getmetatable(L, 1);
	lua_getfield(L, -1, "methods");
	lua_pushvalue(L, 2);
	if (lua_rawget(L, -2) != LUA_TNIL)
		return 1;
	if (strcmp(key, "server_address") == 0)
		push_address(L, &v->addr);
	else if (strcmp(key, "name") == 0)
		lua_pushstring(L, v->name);
	else if (strcmp(key, "class") == 0)
		lua_pushstring(L, v->class_name);
	else if (strcmp(key, "url") == 0) {
		addr_url(&v->addr, v->transport, url, sizeof(url));
		lua_pushstring(L, url);
	} else if (!v->push_attribute(v, L, key))
		lua_pushnil(L);
	return 1;
}

/* A place for what requests share: self.server.visits = 1. */
static int
server_newindex(lua_State *L)
{
	check(L);
	lua_getiuservalue(L, 1, 1);
	lua_insert(L, 2);
	lua_rawset(L, 2);
	return 0;
}

static int
server_tostring(lua_State *L)
{
	struct server_view *v = check(L);
	char url[ADDR_TEXT];

	addr_url(&v->addr, v->transport, url, sizeof(url));
	lua_pushfstring(L, "%s (%s)", v->class_name, url);
	return 1;
}

void
open_server(lua_State *L)
{
	static const luaL_Reg methods[] = {{"fileno", server_fileno},
					   {"reload", server_reload},
					   {"shutdown", server_shutdown},
					   {"stats", server_stats},
					   {NULL, NULL}};
	static const luaL_Reg meta[] = {{"__index", server_index},
					{"__newindex", server_newindex},
					{"__tostring", server_tostring},
					{NULL, NULL}};

	luaL_newmetatable(L, META);
	luaL_setfuncs(L, meta, 0);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "methods");
	lua_pop(L, 1);
}

void
server_push(lua_State *L, struct server_view *v)
{
	struct server_view **p = lua_newuserdatauv(L, sizeof(struct server_view *), 1);

	*p = v;
	lua_newtable(L);
	lua_setiuservalue(L, -2, 1);
	luaL_setmetatable(L, META);
}
