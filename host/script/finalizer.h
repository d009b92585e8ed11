/* finalizer.h - scripts' __gc functions, where a limit of CPU time can reach them.
 *
 * While Lua calls a finalizer it lets no hook of that coroutine fire.  So an object with a
 * __gc never gets a finalizer of Lua's: setmetatable() gives it a companion that nobody
 * else sees, which is finalized when the object is not reachable any more, and then runs
 * what the object's metatable says by then, in a coroutine apart.
 *
 * All finalizers of a task between two of its waits share one allowance; past it, the one
 * that runs gets an error, which Lua makes a warning of, and the others are left out until
 * the task has waited.  A function that has been ended so is not called again. */
#ifndef HOST_SCRIPT_FINALIZER_H
#define HOST_SCRIPT_FINALIZER_H

#include <lua.h>
#include <stdbool.h>

/* Replaces setmetatable and debug.setmetatable of a new state, and hides the metatable of
 * files.  May raise for want of memory. */
void finalizer_guard(lua_State *L);

/* As lua_setmetatable(L, -2), for a metatable that scripts can change. */
void finalizer_set_metatable(lua_State *L);

/* Under this address a metatable may have a function: it is called with a value of that
 * metatable before it gets another one, in a state that is guarded. */
extern const char finalizer_leave[];

/* finalizer_guard() was called for the state. */
bool finalizer_is_guarded(lua_State *L);

#endif
