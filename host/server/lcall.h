/* lcall.h - calls.h for Lua: a task waits for the answer of another state. */
#ifndef HOST_SERVER_LCALL_H
#define HOST_SERVER_LCALL_H

#include <lua.h>

struct unit;

/* Stack: anything, the function's name, its argument.  The results are what it returned, or
 * nil and its error: `return call_unit(...)`.  Raises what waits raise, and if the argument
 * is not plain data. */
int call_unit(lua_State *L, struct unit *u);

#endif
