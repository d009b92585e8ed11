/* coro.h - the `coroutine` library of the host.
 *
 * The same as Lua's own, but a wait inside a coroutine passes outward to the
 * scheduler and comes back, so that a generator may read from a socket. */
#ifndef HOST_SCRIPT_CORO_H
#define HOST_SCRIPT_CORO_H

#include <lua.h>

/* Pushes the library. */
int luaopen_moonport_coroutine(lua_State *L);

/* Marks a coroutine as standing in a wait of the host (or not any more). */
void coro_mark_waiting(lua_State *co, int waiting);
int coro_is_waiting(lua_State *co);

/* Pushes the name of the function that keeps L from yielding: "table.sort".  It is
 * looked for from this level of L's stack outward. */
void coro_push_culprit(lua_State *L, int level);

#endif
