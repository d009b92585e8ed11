#include "bind/lserver.h"

#include "bind/lhandle.h"

#include <string.h>

static const char META[] = "moonport.server";

struct object {
	struct list link;         /* in the view's */
	struct server_view *view; /* NULL: it has gone */
};

static struct server_view *
check(lua_State *L)
{
	const struct object *o = luaL_checkudata(L, 1, META);

	if (!o->view)
		luaL_error(L, "the server is closed");
	return o->view;
}

static int
server_gc(lua_State *L)
{
	struct object *o = luaL_checkudata(L, 1, META);

	list_remove(&o->link);
	o->view = NULL;
	return 0;
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
					{"__gc", server_gc},
					{"__tostring", server_tostring},
					{NULL, NULL}};

	luaL_newmetatable(L, META);
	luaL_setfuncs(L, meta, 0);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "methods");
	lua_pushboolean(L, 0); /* all requests of the state share it */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void
server_push(lua_State *L, struct server_view *v)
{
	struct object *o = lua_newuserdatauv(L, sizeof(*o), 1);

	o->view = v;
	list_append(&v->objects, &o->link);
	luaL_setmetatable(L, META);
	lua_newtable(L);
	lua_setiuservalue(L, -2, 1);
}

void
server_vanish(struct server_view *v)
{
	while (!list_empty(&v->objects)) {
		struct object *o = LIST_ENTRY(v->objects.next, struct object, link);
		list_remove(&o->link);
		o->view = NULL;
	}
}
