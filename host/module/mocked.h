/* mocked.h - mocks and their control API on a thread of their own, in any Lua process: what
 * moonport.mock (lua/moonport/mocked.lua) is made of. */
#ifndef HOST_MODULE_MOCKED_H
#define HOST_MODULE_MOCKED_H

#include <lua.h>

/* moonport.mocking(scripts, options) -> mocks */
int module_mocking(lua_State *L);

#endif
