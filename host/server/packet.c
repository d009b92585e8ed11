#include "server/packet.h"

#include "base/rare.h"
#include "bind/lhandle.h"
#include "bind/stream.h"
#include "script/finalizer.h"
#include "server/instance.h"
#include "server/request.h"

#include <lauxlib.h>
#include <string.h>

/* Makes self, with all its fields.  In Lua, because the virtual machine fills a table
 * faster than calls from C do. */
static const char CONSTRUCTOR[] =
    "return function(server, client_address, rfile, wfile, packet, socket)\n"
    "  return { server = server, rfile = rfile, wfile = wfile, packet = packet,\n"
    "    socket = socket, request = { packet, socket }, client_address = client_address }\n"
    "end\n";

enum field { SERVER, CLIENT_ADDRESS, REQUEST, PACKET, SOCKET, RFILE, WFILE, FIELDS };

static const char *const names[] = {"server", "client_address", "request", "packet",
				    "socket", "rfile",          "wfile"};

_Static_assert(PART_NAMES + FIELDS == PART_SOURCE, "one part for each");

/* Bits, by enum field. */
typedef uint8_t field_set;

static inline field_set
bit(enum field f)
{
	return (field_set)(1U << f);
}

/* What the handlers of a generation do: a field that one of them has read is made at once
 * from then on. */
struct habits {
	field_set read;
	/* No function is to be asked for what self does not have: all are made at once. */
	bool plain;
	uint64_t requests;
	uint64_t others;           /* what else that function was asked for */
	const char *names[FIELDS]; /* in Lua, which has a short string only once */
};

/* From so many of these for each request on, asking costs more than making all. */
enum { OTHERS = 12 };

/* Classes that a handler may have one behind the other, for that. */
enum { CHAIN = 100 };

/* Room for what most handlers have in self. */
enum { ROOM = 8 };

/* A datagram of this size or more is made a string at once: to copy it twice would cost
 * more than an object. */
enum { LARGE = 512 };

/* The key under which self has its source, out of the handler's sight. */
static const char SOURCE[] = "\0source";

/* A datagram's rfile: what is needed for the fields that are to be made. */
struct source {
	struct long_handle l;
	uint32_t size;    /* of the datagram */
	field_set made;   /* they have been, and are not to come back */
	bool is_large;    /* the datagram is user value 1, and not here */
	uint8_t from_len; /* of the sender's address */
	char bytes[];     /* the address, then the datagram */
};

_Static_assert(sizeof(struct sockaddr_storage) <= UINT8_MAX, "see from_len");

void
packet_push_names(lua_State *L)
{
	for (int f = 0; f < FIELDS; f++)
		lua_pushstring(L, names[f]);
	lua_pushlstring(L, SOURCE, sizeof(SOURCE) - 1);
}

/* These push a field, whose source is at idx. */

static void
push_client_address(lua_State *L, const struct source *s)
{
	struct addr a;

	a.len = s->from_len;
	memcpy(&a.ss, s->bytes, s->from_len);
	push_known_address(L, &a, lua_upvalueindex(PART_HOSTS),
			   lua_upvalueindex(PART_ADDRESS));
}

static void
push_packet(lua_State *L, const struct source *s, int idx)
{
	if (s->is_large)
		lua_getiuservalue(L, idx, 1);
	else
		lua_pushlstring(L, s->bytes + s->from_len, s->size);
}

static void
push_request(lua_State *L, const struct source *s, int idx)
{
	lua_createtable(L, 2, 0);
	push_packet(L, s, idx);
	lua_rawseti(L, -2, 1);
	part_push(L, PART_PORT);
	lua_rawseti(L, -2, 2);
}

static void
push_wfile(lua_State *L, const struct source *s)
{
	handle_push_bare(L, wfile_class, s->l.h.stream, 0)->serial = s->l.h.serial;
	part_push(L, PART_WFILE);
	lua_setmetatable(L, -2);
}

static void
push_field(lua_State *L, const struct source *s, int idx, enum field f)
{
	switch (f) {
	case CLIENT_ADDRESS:
		push_client_address(L, s);
		break;
	case REQUEST:
		push_request(L, s, idx);
		break;
	case PACKET:
		push_packet(L, s, idx);
		break;
	case RFILE:
		lua_pushvalue(L, idx);
		break;
	case WFILE:
		push_wfile(L, s);
		break;
	default:
		part_push(L, f == SERVER ? PART_SERVER : PART_PORT);
	}
}

/* Pushes what the table at 1, which may be any, has for a source.  NULL: that is none. */
static struct source *
find_source(lua_State *L)
{
	struct source *s;

	part_push(L, PART_SOURCE);
	lua_rawget(L, 1);
	s = lua_touserdata(L, -1);
	return s && lua_rawlen(L, -1) >= sizeof(*s) && s->l.kind == handle_long ? s : NULL;
}

static enum field
find_field(lua_State *L, const struct habits *h)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
	int f = 0;

	while (f < FIELDS && h->names[f] != key)
		f++;
	return (enum field)f;
}

/* Where self is looked up that does not have the key: self, key -> value. */
static int
look(lua_State *L)
{
	struct habits *h = lua_touserdata(L, lua_upvalueindex(PART_HABITS));
	enum field f;
	struct source *s = NULL;

	lua_settop(L, 2); /* a handler may call it with anything */
	f = find_field(L, h);
	if (f < FIELDS && lua_istable(L, 1))
		s = find_source(L);
	if (!s || s->made & bit(f)) {
		h->others++;
		lua_pushvalue(L, 2);
		lua_gettable(L, lua_upvalueindex(PART_HANDLER));
		return 1;
	}
	push_field(L, s, 3, f);
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
	lua_rawset(L, 1);
	s->made |= bit(f);
	h->read |= bit(f);
	return 1;
}

static int
step(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 2);
	return lua_next(L, 1) ? 2 : 0;
}

/* pairs(self): after that it is a table like any other. */
static int
make_all(lua_State *L)
{
	struct source *s;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	s = find_source(L);
	for (int f = 0; s && f < FIELDS; f++) {
		part_push(L, PART_NAMES + f);
		if (lua_rawget(L, 1) == LUA_TNIL && !(s->made & bit((enum field)f))) {
			part_push(L, PART_NAMES + f);
			push_field(L, s, 2, (enum field)f);
			lua_rawset(L, 1);
		}
		lua_settop(L, 2);
	}
	part_push(L, PART_SOURCE);
	lua_pushnil(L);
	lua_rawset(L, 1);
	lua_pushcfunction(L, step);
	lua_pushvalue(L, 1);
	return 2;
}

/* Whether what the handler does not have is asked of a function, which might wait; or of
 * so many tables that they may go round in a circle. */
static bool
asks_function(lua_State *L)
{
	bool asks = false;
	int n = 0;

	part_push(L, PART_HANDLER);
	while (!asks && lua_istable(L, -1) && luaL_getmetafield(L, -1, "__index")) {
		asks = !lua_istable(L, -1) || ++n == CHAIN;
		lua_remove(L, -2);
	}
	lua_pop(L, 1);
	return asks;
}

static void
push_method(lua_State *L, lua_CFunction f)
{
	for (int i = 1; i <= PARTS; i++)
		lua_pushvalue(L, lua_upvalueindex(i));
	lua_pushcclosure(L, f, PARTS);
}

/* What datagrams need and connections do not. */
static RARE void
prepare(lua_State *L)
{
	struct habits *h = lua_newuserdatauv(L, sizeof(*h), 0);

	*h = (struct habits){.plain = asks_function(L) || !finalizer_is_guarded(L)};
	for (int f = 0; f < FIELDS; f++)
		h->names[f] = lua_tostring(L, lua_upvalueindex(PART_NAMES + f));
	lua_replace(L, lua_upvalueindex(PART_HABITS));
	if (luaL_loadbufferx(L, CONSTRUCTOR, sizeof(CONSTRUCTOR) - 1, "=moonport", "t") !=
	    LUA_OK)
		lua_error(L);
	lua_call(L, 0, 1);
	lua_replace(L, lua_upvalueindex(PART_PACKET));
	lua_createtable(L, 0, 4);
	push_method(L, look);
	lua_setfield(L, -2, "__index");
	push_method(L, make_all);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "__pairs");
	lua_rawsetp(L, -2, finalizer_leave);
	lua_getfield(L, lua_upvalueindex(PART_CLASS), "__name");
	lua_setfield(L, -2, "__name");
	lua_replace(L, lua_upvalueindex(PART_LATE));
}

static struct source *
push_source(lua_State *L, const struct request *r)
{
	struct addr room;
	const struct addr *from = request_client(r, &room);
	struct source *s;
	const char *p;
	size_t n;

	stream_view(request_stream(r), &p, &n);
	s = (void *)handle_push_long(L, rfile_class, request_stream(r),
				     sizeof(*s) + from->len + (n < LARGE ? n : 0),
				     n >= LARGE);
	s->size = (uint32_t)n;
	s->made = 0;
	s->is_large = n >= LARGE;
	s->from_len = (uint8_t)from->len;
	memcpy(s->bytes, &from->ss, from->len);
	if (n >= LARGE) {
		lua_pushlstring(L, p, n);
		lua_setiuservalue(L, -2, 1);
	} else if (n > 0)
		memcpy(s->bytes + from->len, p, n);
	part_push(L, PART_RFILE);
	lua_setmetatable(L, -2);
	return s;
}

static struct habits *
habits_of(lua_State *L)
{
	struct habits *h;

	if (lua_isnil(L, lua_upvalueindex(PART_LATE)))
		prepare(L);
	h = lua_touserdata(L, lua_upvalueindex(PART_HABITS));
	h->requests++;
	if (h->others > h->requests * OTHERS)
		h->plain = true;
	return h;
}

/* Pushes self with those fields that were read before. */
static void
build_late(lua_State *L, const struct request *r, field_set read)
{
	struct source *s;

	lua_createtable(L, 0, ROOM);
	part_push(L, PART_SOURCE);
	s = push_source(L, r);
	s->made = read;
	for (int f = 0; read; f++, read >>= 1) {
		if (!(read & 1))
			continue;
		part_push(L, PART_NAMES + f);
		push_field(L, s, 3, (enum field)f);
		lua_rawset(L, 1);
	}
	lua_rawset(L, 1);
}

/* Pushes self with all of them. */
static void
build_all(lua_State *L, const struct request *r)
{
	struct addr room;
	const char *p;
	size_t n;

	part_push(L, PART_PACKET);
	part_push(L, PART_SERVER);
	push_known_address(L, request_client(r, &room), lua_upvalueindex(PART_HOSTS),
			   lua_upvalueindex(PART_ADDRESS));
	instance_push_object(L, rfile_class, PART_RFILE, request_stream(r));
	instance_push_object(L, wfile_class, PART_WFILE, request_stream(r));
	stream_view(request_stream(r), &p, &n);
	lua_pushlstring(L, p, n);
	part_push(L, PART_PORT);
	lua_call(L, 6, 1);
}

void
packet_build(lua_State *L, struct request *r)
{
	const struct habits *h = habits_of(L);
	bool plain = h->plain;

	if (plain)
		build_all(L, r);
	else
		build_late(L, r, h->read);
	if (r->extra->full_len) {
		lua_pushinteger(L, (lua_Integer)r->extra->full_len);
		lua_setfield(L, -2, "truncated");
	}
	instance_set_class(L, plain ? PART_CLASS : PART_LATE);
}
