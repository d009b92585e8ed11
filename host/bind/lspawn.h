/* lspawn.h - moonport.spawn: a task beside the running one.
 *
 * The scheduler owns the task; it ends with the one that it is beside (see task.h).  The
 * scheduler's thread.  An error in it goes to sched.stray. */
#ifndef HOST_BIND_LSPAWN_H
#define HOST_BIND_LSPAWN_H

#include <lua.h>

/* moonport.spawn(f, ...): f(...) begins soon.  Raises where no request runs, and for want
 * of memory. */
int moonport_spawn(lua_State *L);

#endif
