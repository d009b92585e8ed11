/* lhandle.h - what the Lua objects of a connection have in common.
 *
 * A request, rfile or wfile is a userdata that names a stream and its serial
 * number: when the request is over the number no longer fits, and every use of
 * the object raises an error. */
#ifndef HOST_BIND_LHANDLE_H
#define HOST_BIND_LHANDLE_H

#include "base/rare.h"
#include "bind/stream.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

struct addr;

/* There are three for each connection: it is kept small. */
struct handle {
	struct stream *stream;
	uint32_t serial;
	uint32_t mark; /* handle_mark() of its class */
};

/* One that has something of its maker's behind it, in the same userdata. */
struct long_handle {
	struct handle h;
	const void *kind; /* handle_long: no other userdata has that address there */
};

extern const char handle_long[];

/* Names a class in 32 bits.  The highest is set, which it is in no address's upper half:
 * no other userdata of a handle's size ends like that. */
static inline uint32_t
handle_mark(const char *class)
{
	return (uint32_t)(uintptr_t) class | UINT32_C(1) << 31;
}

/* The classes' names.  Their metatables are in the registry under the name, as for
 * luaL_checkudata(), and under its address, which is found without comparing. */
extern const char request_class[];
extern const char socket_class[]; /* a request that Lua owns: collected, closable */
extern const char rfile_class[];
extern const char wfile_class[];
extern const char address_class[];

/* Makes a metatable `name` whose methods, in its __index, have the class's name, as
 * light userdata, for upvalue 1 and the metatable for upvalue 2.  Leaves it on the stack.
 */
void handle_class(lua_State *L, const char *name, const luaL_Reg *methods);

/* Pushes an object of the class for a live stream (NULL: none yet), with nuv user values.
 */
struct handle *handle_push(lua_State *L, const char *class, struct stream *s, int nuv);

/* The stream of argument 1 of a method.  Raises when it is over or closed. */
struct stream *handle_check(lua_State *L, const char *name);

/* The same for a method of the class in upvalue 1. */
struct stream *handle_self(lua_State *L);

/* The live stream of argument 1, also when it was closed; NULL when it is over. */
static inline struct stream *
handle_peek(lua_State *L)
{
	const struct handle *h = lua_touserdata(L, 1);

	return h && h->stream && h->stream->serial == h->serial ? h->stream : NULL;
}

/* The same where argument 1 may be anything at all; NULL also when it is none of the class.
 */
struct stream *handle_look(lua_State *L, const char *class);

/* Raises what is wrong with argument 1. */
RARE void handle_refuse(lua_State *L, const char *class);

/* Whether h, a userdata of that size or NULL, is a handle of the class. */
static inline bool
handle_is(const struct handle *h, size_t size, const char *class)
{
	const struct long_handle *l = (const void *)h;

	return h &&
	       (size == sizeof(*h) || (size >= sizeof(*l) && l->kind == handle_long)) &&
	       h->mark == handle_mark(class);
}

/* As handle_self(), for a class that is known.  Far cheaper than comparing metatables, and
 * just as safe: see struct handle. */
static inline struct stream *
handle_of(lua_State *L, const char *class)
{
	const struct handle *h = lua_touserdata(L, 1);

	if (!handle_is(h, lua_rawlen(L, 1), class) || !h->stream ||
	    h->stream->serial != h->serial || h->stream->closed)
		handle_refuse(L, class);
	return h->stream;
}

/* A duration in seconds at idx (nil or none: for ever) as nanoseconds. */
int64_t arg_seconds(lua_State *L, int idx);

/* The same, without its metatable; and a long one, of that size. */
struct handle *handle_push_bare(lua_State *L, const char *class, struct stream *s, int nuv);
struct long_handle *handle_push_long(lua_State *L, const char *class, struct stream *s,
				     size_t size, int nuv);

/* Pushes an address: {host, port} with .host and .port, or a path. */
void push_address(lua_State *L, const struct addr *a);

/* Pushes an object that remembers texts of hosts. */
void push_hosts(lua_State *L);

/* Pushes an address with its help; meta: where the class's metatable is. */
void push_known_address(lua_State *L, const struct addr *a, int hosts, int meta);

/* The address at idx, {host, port} or a path; raises if it is neither. */
void check_address(lua_State *L, int idx, struct addr *out);

/* Registers the classes.  Called once for each state. */
void open_request(lua_State *L);
void open_rfile(lua_State *L);
void open_wfile(lua_State *L);
void open_address(lua_State *L);
void open_datagram(lua_State *L);
void open_server(lua_State *L);

#endif
