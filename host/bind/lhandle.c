#include "bind/lhandle.h"

#include "base/clock.h"
#include "bind/stream.h"

#include <stdbool.h>

const char request_class[] = "moonport.request";
const char socket_class[] = "moonport.socket";
const char rfile_class[] = "moonport.rfile";
const char wfile_class[] = "moonport.wfile";
const char address_class[] = "moonport.address";
const char handle_long[] = "long";

void
handle_class(lua_State *L, const char *name, const luaL_Reg *methods)
{
	luaL_newmetatable(L, name);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, name);
	lua_newtable(L);
	lua_pushlightuserdata(L, (void *)name);
	lua_pushvalue(L, -3);
	luaL_setfuncs(L, methods, 2);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0); /* all requests of the state share it */
	lua_setfield(L, -2, "__metatable");
}

struct handle *
handle_push_bare(lua_State *L, const char *class, struct stream *s, int nuv)
{
	struct handle *h = lua_newuserdatauv(L, sizeof(*h), nuv);

	*h = (struct handle){
	    .stream = s, .serial = s ? s->serial : 0, .mark = handle_mark(class)};
	return h;
}

struct long_handle *
handle_push_long(lua_State *L, const char *class, struct stream *s, size_t size, int nuv)
{
	struct long_handle *l = lua_newuserdatauv(L, size, nuv);

	*l = (struct long_handle){
	    .h = {.stream = s, .serial = s->serial, .mark = handle_mark(class)},
	    .kind = handle_long};
	return l;
}

struct handle *
handle_push(lua_State *L, const char *class, struct stream *s, int nuv)
{
	struct handle *h = handle_push_bare(L, class, s, nuv);

	lua_rawgetp(L, LUA_REGISTRYINDEX, class);
	lua_setmetatable(L, -2);
	return h;
}

static struct stream *
live(lua_State *L, const struct handle *h)
{
	if ((!h->stream || h->stream->serial != h->serial) &&
	    h->mark == handle_mark(socket_class))
		luaL_error(L, "the connection is closed: it cannot be used any more");
	if (!h->stream || h->stream->serial != h->serial)
		luaL_error(L, "the request is over: its objects cannot be used any more");
	if (h->stream->closed)
		luaL_error(L, "the connection is closed: the handler has closed it before");
	return h->stream;
}

struct stream *
handle_check(lua_State *L, const char *name)
{
	return live(L, luaL_checkudata(L, 1, name));
}

struct stream *
handle_look(lua_State *L, const char *class)
{
	bool is = handle_is(lua_touserdata(L, 1), lua_rawlen(L, 1), class);

	return is ? handle_peek(L) : NULL;
}

void
handle_refuse(lua_State *L, const char *class)
{
	const struct handle *h = lua_touserdata(L, 1);

	if (!handle_is(h, lua_rawlen(L, 1), class))
		luaL_typeerror(L, 1, class);
	live(L, h);
}

struct stream *
handle_self(lua_State *L)
{
	return handle_of(L, lua_touserdata(L, lua_upvalueindex(1)));
}

int64_t
arg_seconds(lua_State *L, int idx)
{
	lua_Number n;

	if (lua_isnoneornil(L, idx))
		return CLOCK_NEVER;
	n = luaL_checknumber(L, idx);
	luaL_argcheck(L, n >= 0, idx, "seconds must not be negative");
	return n < 1e9 ? (int64_t)(n * 1e9) : CLOCK_NEVER;
}
