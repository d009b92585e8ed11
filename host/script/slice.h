/* slice.h - how long Lua may run at a stretch.
 *
 * A thread that runs tasks has a meter: a timer of the thread's own CPU time, whose signal
 * looks every few milliseconds at what the scheduler runs.  Only once the same run has
 * lasted for a slice does it arm a count hook on the running coroutine, which then lets
 * the others go first; past the limit the task is ended.  While handlers behave there is
 * no hook, and nothing to pay for.
 *
 * A count hook does not fire inside C: a C function with a long loop asks slice_over() now
 * and then.  Times are nanoseconds of the thread's CPU. */
#ifndef HOST_SCRIPT_SLICE_H
#define HOST_SCRIPT_SLICE_H

#include <lua.h>
#include <stdbool.h>

/* The running task has had its slice: a C function in a long loop should call
 * slice_pause().  Cheap. */
bool slice_over(lua_State *L);

/* Lets others go first: `return slice_pause(L, ctx, k)`.  k is called when it is this one's
 * turn again; at once, where L cannot be suspended.  Past the limit the task is ended, or,
 * where that cannot be, an error is raised. */
int slice_pause(lua_State *L, lua_KContext ctx, lua_KFunction k);

#endif
