/* finalizer.h - scripts' __gc functions, where a limit of CPU time can reach them.
 *
 * While Lua calls a finalizer it lets no hook of that coroutine fire.  So the one that a
 * script gives to setmetatable() is put into a function of the host, which runs it in a
 * coroutine apart; __gc then holds that function.  All finalizers of a task between two of
 * its waits share one allowance; past it, the one that runs gets an error, which Lua makes
 * a warning of, and the others are left out until the task has waited.
 * A function that has been ended so is not called again.
 *
 * What a script puts into a metatable later than that, Lua calls directly. */
#ifndef HOST_SCRIPT_FINALIZER_H
#define HOST_SCRIPT_FINALIZER_H

#include <lua.h>

/* Replaces setmetatable and debug.setmetatable of a new state.  May raise for want of
 * memory. */
void finalizer_guard(lua_State *L);

#endif
