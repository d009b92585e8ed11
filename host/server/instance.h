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
struct script;

/* Pushes f as the function that a task runs for each request of the generation: its
 * upvalues are what instances are made of.  For a protected call. */
void instance_push_course(lua_State *L, lua_CFunction f, const struct script *sc,
			  const struct generation *g);

/* For that function: pushes self, onto an empty stack. */
void instance_build(lua_State *L, struct request *r);

/* For that function: pushes self.handle; self is at 1. */
void instance_push_handle(lua_State *L);

/* Pushes what hooks get as the request: the socket object, or {data, socket}. */
void instance_push_request(lua_State *L, struct request *r);

#endif
