#include "server/instance.h"

#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/finalizer.h"
#include "script/script.h"
#include "script/task.h"
#include "server/request.h"

#include <lauxlib.h>

/* Makes self, with the fields that every handler finds there.  In Lua, because the virtual
 * machine fills a table faster than calls from C do. */
static const char CONSTRUCTORS[] =
    "local function stream(server, client_address, rfile, wfile, request)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, request = request,\n"
    "    connection = request, client_address = client_address }\n"
    "end\n"
    "local function datagram(server, client_address, rfile, wfile, packet, socket)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, packet = packet,\n"
    "    socket = socket, request = { packet, socket }, client_address = client_address }\n"
    "end\n"
    "return stream, datagram\n";

void
instance_prepare(lua_State *L, int *stream_ref, int *datagram_ref)
{
	if (luaL_loadbufferx(L, CONSTRUCTORS, sizeof(CONSTRUCTORS) - 1, "=moonport", "t") !=
	    LUA_OK)
		lua_error(L);
	lua_call(L, 0, 2);
	*datagram_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	*stream_ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

void
instance_build(lua_State *L, struct request *r)
{
	bool datagram = r->stream->datagram;
	struct addr room;
	const char *p;
	size_t n;

	lua_settop(L, 0);
	lua_rawgeti(L, LUA_REGISTRYINDEX,
		    datagram ? r->terms->generation.datagram_ref
			     : r->terms->generation.stream_ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->terms->generation.self_ref);
	push_address(L, request_client(r, &room));
	handle_push(L, rfile_class, r->stream, 0);
	handle_push(L, wfile_class, r->stream, 0);
	if (datagram) {
		stream_view(r->stream, &p, &n);
		lua_pushlstring(L, p, n);
		lua_rawgeti(L, LUA_REGISTRYINDEX, r->terms->generation.port_ref);
	} else
		handle_push(L, request_class, r->stream, 0);
	lua_call(L, 5 + datagram, 1);
	if (datagram && r->extra->full_len) {
		lua_pushinteger(L, (lua_Integer)r->extra->full_len);
		lua_setfield(L, -2, "truncated");
	}
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->task->script->meta_ref);
	finalizer_set_metatable(L);
}

void
instance_push_request(lua_State *L, struct request *r)
{
	const char *p;
	size_t n;

	if (!r->stream->datagram) {
		handle_push(L, request_class, r->stream, 0);
		return;
	}
	stream_view(r->stream, &p, &n);
	lua_createtable(L, 2, 1);
	lua_pushlstring(L, p, n);
	lua_rawseti(L, -2, 1);
	lua_rawgeti(L, LUA_REGISTRYINDEX, r->terms->generation.port_ref);
	lua_rawseti(L, -2, 2);
	if (r->extra->full_len) {
		lua_pushinteger(L, (lua_Integer)r->extra->full_len);
		lua_setfield(L, -2, "truncated");
	}
}
