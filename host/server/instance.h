/* instance.h - the objects that handlers get: self, with the fields that every handler
 * finds there, and what hooks get as the request.
 *
 * Lua owns them; what they say of a connection is its stream's.  The thread of the
 * request's engine.  All of them may raise for want of memory. */
#ifndef HOST_SERVER_INSTANCE_H
#define HOST_SERVER_INSTANCE_H

#include <lua.h>

struct generation;
struct request;
struct stream;
struct script;

/* What instances are made of: upvalues, for an upvalue is at hand where the registry has to
 * be searched. */
enum part {
	PART_SERVER = 1,
	PART_HANDLER,
	PART_PORT,  /* the datagram socket */
	PART_HOSTS, /* see push_known_address() */
	PART_RFILE, /* metatables of objects */
	PART_WFILE,
	PART_ADDRESS,
	PART_NAMES, /* of the fields of a datagram's self: see packet_push_names() */
	PART_SOURCE = PART_NAMES + 7, /* a key: see packet.c */
	PART_HABITS,                  /* see packet.c; nil: there was no datagram yet */
	PARTS = PART_HABITS, /* so far, what the fields of a datagram's self are made of */
	PART_REQUEST,
	PART_CLASS,  /* self's metatable */
	PART_STREAM, /* makes self, for a connection */
	PART_PACKET, /* for a datagram; nil: there was none yet */
	PART_LATE,   /* the metatable of a datagram's self whose fields are made late */
	PART_HANDLE, /* names */
	PART_GC,
	PART_LAST = PART_GC,
};

static inline void
part_push(lua_State *L, enum part p)
{
	lua_pushvalue(L, lua_upvalueindex(p));
}

/* Pushes f as the function that a task runs for each request of the generation: its
 * upvalues are the parts.  For a protected call. */
void instance_push_course(lua_State *L, lua_CFunction f, const struct script *sc,
			  const struct generation *g);

/* For that function: pushes a new object of the stream, whose metatable is a part. */
void instance_push_object(lua_State *L, const char *class, enum part meta,
			  struct stream *s);

/* For that function: pushes self, onto an empty stack. */
void instance_build(lua_State *L, struct request *r);

/* For that function: pushes self.handle; self, which is new, is at 1. */
void instance_push_handle(lua_State *L, const struct request *r);

/* For that function: gives self, on top of the stack, the metatable in a part.  The script
 * may have put a finalizer there. */
void instance_set_class(lua_State *L, enum part class);

/* Pushes what hooks get as the request: the socket object, or {data, socket}. */
void instance_push_request(lua_State *L, struct request *r);

#endif
