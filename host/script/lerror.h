/* lerror.h - the error values that the host raises and returns.
 *
 * A table with `code`, `message`, `errno` and a __tostring.  One Lua state. */
#ifndef HOST_SCRIPT_LERROR_H
#define HOST_SCRIPT_LERROR_H

#include <lua.h>

/* Pushes an error value.  code: "ECONNRESET", "timeout", "cancelled"...; err: 0 for none.
 */
void lerror_push(lua_State *L, const char *code, const char *message, int err);

/* Raises the error value of an errno (positive) that happened during `what`. */
int lerror_raise_errno(lua_State *L, const char *what, int err);

/* Raises "timeout". */
int lerror_raise_timeout(lua_State *L, const char *what);

/* Pushes nil, message, errno: how a read reports the outside world.  Returns 3. */
int lerror_result(lua_State *L, int err);

/* Gives the error value at idx, unless it has one or its code says that the peer or
 * the host has ended the request, a field `traceback`.  For a message handler. */
void lerror_add_traceback(lua_State *L, int idx);

/* True of a code that stands for a peer that went away. */
int lerror_is_peer_gone(const char *code);

/* The code of the error value at idx, which stays alive only as long as the
 * value; NULL if it is something else. */
const char *lerror_code(lua_State *L, int idx);

#endif
