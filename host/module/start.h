/* start.h - moonport.start: a server on a thread of its own, in any Lua process. */
#ifndef HOST_MODULE_START_H
#define HOST_MODULE_START_H

#include <lua.h>

/* moonport.start(script [, options]) -> server */
int module_start(lua_State *L);

#endif
