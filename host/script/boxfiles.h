/* boxfiles.h - the functions of io and os that name files, for a sandbox.
 *
 * They take and return what Lua's own do; what sandbox_open() refuses fails with EACCES. */
#ifndef HOST_SCRIPT_BOXFILES_H
#define HOST_SCRIPT_BOXFILES_H

#include <lua.h>

/* Puts them in place of Lua's own.  Raises for want of memory. */
void boxfiles_install(lua_State *L);

#endif
