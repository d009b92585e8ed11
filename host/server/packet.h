/* packet.h - self of a datagram.  Most handlers read two or three of its fields, and each
 * is an object or two: so they are made when they are read, but for those that a request
 * before this one has read.
 *
 * What they are made of is in its rfile, a userdata that holds the sender's address and
 * the bytes as well, and that self also has under a key of its own.  Lua owns all of it.
 * The thread of the request's engine.  Everything may raise for want of memory. */
#ifndef HOST_SERVER_PACKET_H
#define HOST_SERVER_PACKET_H

#include <lua.h>

struct request;

/* Pushes the parts that begin with PART_NAMES. */
void packet_push_names(lua_State *L);

/* For the function that instance_push_course() has made: pushes self. */
void packet_build(lua_State *L, struct request *r);

#endif
