/* coro.h - the `coroutine` library of the host.
 *
 * The same as Lua's own, but a wait inside a coroutine passes outward to the
 * scheduler and comes back, so that a generator may read from a socket. */
#ifndef HOST_SCRIPT_CORO_H
#define HOST_SCRIPT_CORO_H

#include <lua.h>

/* Pushes the library. */
int luaopen_moonport_coroutine(lua_State *L);

/* Forgets all marks: for a coroutine that begins. */
void coro_mark_new(lua_State *co);

/* Marks a coroutine as standing in a wait of the host (or not any more). */
void coro_mark_waiting(lua_State *co, int waiting);
int coro_is_waiting(lua_State *co);

/* A hook raises an error in it.  If it dies of that, it is doomed: nothing more may run
 * there, for Lua lets no other hook fire in it. */
void coro_doom(lua_State *co);
int coro_is_doomed(lua_State *co);

/* It is not for another task: a script has got hold of it by coroutine.running(), or it was
 * closed where it stood, and Lua 5.4.4 then keeps the message handler of an xpcall there.
 */
int coro_is_spent(lua_State *co);

/* Pushes the name of the function that keeps L from yielding: "table.sort".  It is
 * looked for from this level of L's stack outward. */
void coro_push_culprit(lua_State *L, int level);

/* Runs co, with a function and its arguments on its stack, to its end; nothing in it can
 * wait, for it is called from `name`.  Not LUA_OK: the error is on top of co's stack, and
 * co is of no more use. */
int coro_apart(lua_State *L, lua_State *co, int nargs, const char *name);

/* The coroutine that the suspended co waits for in its turn; NULL: it is the innermost. */
lua_State *coro_inner(lua_State *L, lua_State *co);

/* Pushes onto L the traceback of co, which is L itself or suspended, and of all that are
 * inside it, the innermost first. */
void coro_push_traceback(lua_State *L, lua_State *co);

/* Closes the suspended co and all that are inside it, the innermost first: __close runs,
 * and cannot wait.  L: for temporaries.  LUA_OK, or the status of an error in co's own,
 * which is then all that is on its stack. */
int coro_close(lua_State *L, lua_State *co);

#endif
