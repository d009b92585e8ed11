/* lwfile.h - writing, as wfile:write() and request:sendall() share it. */
#ifndef HOST_BIND_LWFILE_H
#define HOST_BIND_LWFILE_H

#include <lua.h>

struct stream;

/* Writes arguments 2 to top to the stream of argument 1; waits when it must.
 * Returns what a C function returns: argument 1. */
int wfile_write_args(lua_State *L, struct stream *s);

int wfile_write_k(lua_State *L, int status, lua_KContext ctx);

#endif
