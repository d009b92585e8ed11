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

/* The upvalues: an upvalue is at hand where the registry has to be searched. */
enum upvalue {
	STREAM = 1, /* constructors */
	DATAGRAM,
	SERVER,
	HOSTS, /* see push_known_address() */
	RFILE, /* metatables of objects */
	WFILE,
	ADDRESS,
	REQUEST,
	CLASS, /* self's metatable */
	PORT,  /* the datagram socket */
	GC,    /* names */
	HANDLE,
};

void
instance_push_course(lua_State *L, lua_CFunction f, const struct script *sc,
		     const struct generation *g)
{
	if (luaL_loadbufferx(L, CONSTRUCTORS, sizeof(CONSTRUCTORS) - 1, "=moonport", "t") !=
	    LUA_OK)
		lua_error(L);
	lua_call(L, 0, 2);
	lua_rawgeti(L, LUA_REGISTRYINDEX, g->self_ref);
	push_hosts(L);
	lua_rawgetp(L, LUA_REGISTRYINDEX, rfile_class);
	lua_rawgetp(L, LUA_REGISTRYINDEX, wfile_class);
	lua_rawgetp(L, LUA_REGISTRYINDEX, address_class);
	lua_rawgetp(L, LUA_REGISTRYINDEX, request_class);
	lua_rawgeti(L, LUA_REGISTRYINDEX, sc->meta_ref);
	lua_rawgeti(L, LUA_REGISTRYINDEX, g->port_ref);
	lua_pushliteral(L, "__gc");
	lua_pushliteral(L, "handle");
	lua_pushcclosure(L, f, HANDLE);
}

static void
push_upvalue(lua_State *L, enum upvalue u)
{
	lua_pushvalue(L, lua_upvalueindex(u));
}

static void
push_object(lua_State *L, const char *class, enum upvalue meta, struct stream *s)
{
	handle_push_bare(L, class, s, 0);
	push_upvalue(L, meta);
	lua_setmetatable(L, -2);
}

/* The script may have put a finalizer there. */
static void
set_class(lua_State *L)
{
	push_upvalue(L, CLASS);
	push_upvalue(L, GC);
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
	bool datagram = request_stream(r)->datagram;
	struct addr room;
	const char *p;
	size_t n;

	push_upvalue(L, datagram ? DATAGRAM : STREAM);
	push_upvalue(L, SERVER);
	push_known_address(L, request_client(r, &room), lua_upvalueindex(HOSTS),
			   lua_upvalueindex(ADDRESS));
	push_object(L, rfile_class, RFILE, request_stream(r));
	push_object(L, wfile_class, WFILE, request_stream(r));
	if (datagram) {
		stream_view(request_stream(r), &p, &n);
		lua_pushlstring(L, p, n);
		push_upvalue(L, PORT);
	} else
		push_object(L, request_class, REQUEST, request_stream(r));
	lua_call(L, 5 + datagram, 1);
	if (datagram && r->extra->full_len) {
		lua_pushinteger(L, (lua_Integer)r->extra->full_len);
		lua_setfield(L, -2, "truncated");
	}
	set_class(L);
}

void
instance_push_handle(lua_State *L)
{
	push_upvalue(L, HANDLE);
	lua_gettable(L, 1);
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
