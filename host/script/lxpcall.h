/* lxpcall.h - xpcall, with message handlers that a limit of CPU time can reach.
 *
 * While Lua tells an error to a message handler, the handler is called for errors of its
 * own, too; and no hook fires in it if the error came from one.  So the error that says
 * that the limit is over passes it by. */
#ifndef HOST_SCRIPT_LXPCALL_H
#define HOST_SCRIPT_LXPCALL_H

#include <lua.h>

/* Replaces xpcall of a new state.  May raise for want of memory. */
void lxpcall_install(lua_State *L);

#endif
