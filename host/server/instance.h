/* instance.h - the objects that handlers get: self, with the fields that every handler
 * finds there, and what hooks get as the request.
 *
 * Lua owns them; what they say of a connection is its stream's.  The thread of the
 * request's engine.  All of them may raise for want of memory. */
#ifndef HOST_SERVER_INSTANCE_H
#define HOST_SERVER_INSTANCE_H

#include <lua.h>

struct request;

/* Makes the functions that build instances, and their registry references.  For a protected
 * call. */
void instance_prepare(lua_State *L, int *stream_ref, int *datagram_ref);

/* Leaves self, and nothing else, on the stack of the request's task. */
void instance_build(lua_State *L, struct request *r);

/* Pushes what hooks get as the request: the socket object, or {data, socket}. */
void instance_push_request(lua_State *L, struct request *r);

#endif
