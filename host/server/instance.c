#include "server/instance.h"

#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/finalizer.h"
#include "script/script.h"
#include "script/task.h"
#include "server/packet.h"
#include "server/request.h"

#include <lauxlib.h>

/* Makes self, with the fields that every handler finds there.  In Lua, because the virtual
 * machine fills a table faster than calls from C do. */
static const char CONSTRUCTOR[] =
    "return function(server, client_address, rfile, wfile, request)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, request = request,\n"
    "    connection = request, client_address = client_address }\n"
    "end\n";

void
instance_push_course(lua_State *L, lua_CFunction f, const struct script *sc,
		     const struct generation *g)
{
	static const char *const classes[] = {rfile_class, wfile_class, address_class};

	lua_rawgeti(L, LUA_REGISTRYINDEX, g->self_ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->handler_ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, g->port_ref);
	push_hosts(L);
	for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++)
		lua_rawgetp(L, LUA_REGISTRYINDEX, classes[i]);
	packet_push_names(L);
	lua_pushnil(L);
	lua_rawgetp(L, LUA_REGISTRYINDEX, request_class);
	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->meta_ref);
	if (luaL_loadbufferx(L, CONSTRUCTOR, sizeof(CONSTRUCTOR) - 1, "=moonport", "t") !=
	    LUA_OK)
		lua_error(L);
	lua_call(L, 0, 1);
	lua_pushnil(L);
	lua_pushnil(L);
	lua_pushliteral(L, "handle");
	lua_pushliteral(L, "__gc");
	lua_pushcclosure(L, f, PART_LAST);
}

void
instance_push_object(lua_State *L, const char *class, enum part meta, struct stream *s)
{
	handle_push_bare(L, class, s, 0);
	part_push(L, meta);
	lua_setmetatable(L, -2);
}

void
instance_set_class(lua_State *L, enum part class)
{
	part_push(L, class);
	part_push(L, PART_GC);
	if (lua_rawget(L, -2) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_setmetatable(L, -2);
	} else {
		lua_pop(L, 1);
		finalizer_set_metatable(L);
	}
}

void
instance_build(lua_State *L, struct request *r)
{
	struct addr room;

	if (request_stream(r)->datagram) {
		packet_build(L, r);
		return;
	}
	part_push(L, PART_STREAM);
	part_push(L, PART_SERVER);
	push_known_address(L, request_client(r, &room), lua_upvalueindex(PART_HOSTS),
			   lua_upvalueindex(PART_ADDRESS));
	instance_push_object(L, rfile_class, PART_RFILE, request_stream(r));
	instance_push_object(L, wfile_class, PART_WFILE, request_stream(r));
	instance_push_object(L, request_class, PART_REQUEST, request_stream(r));
	lua_call(L, 5, 1);
	instance_set_class(L, PART_CLASS);
}

void
instance_push_handle(lua_State *L, const struct request *r)
{
	part_push(L, PART_HANDLE);
	/* A datagram's self could only ask the handler, by a function. */
	lua_gettable(L, request_stream(r)->datagram ? lua_upvalueindex(PART_HANDLER) : 1);
}

void
instance_push_request(lua_State *L, struct request *r)
{
	const char *p;
	size_t n;

	if (!request_stream(r)->datagram) {
		handle_push(L, request_class, request_stream(r), 0);
		return;
	}
	stream_view(request_stream(r), &p, &n);
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
