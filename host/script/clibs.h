/* clibs.h - C libraries under --strict: looked at as scripts are, before Lua loads them. */
#ifndef HOST_SCRIPT_CLIBS_H
#define HOST_SCRIPT_CLIBS_H

#include <lua.h>

/* Has package.loadlib and the searchers for C libraries of a new state ask first; what they
 * refuse raises.  Raises for want of memory. */
void clibs_watch(lua_State *L);

#endif
