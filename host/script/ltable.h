/* ltable.h - functions of `table` that let others go first.
 *
 * insert, remove, move and concat as Lua's own have them, metamethods and texts of errors
 * included.  But with a `__len` that says so Lua's run for years inside one call, where no
 * hook can stop them; these ask slice_over() as they go, and pause. */
#ifndef HOST_SCRIPT_LTABLE_H
#define HOST_SCRIPT_LTABLE_H

#include <lua.h>

/* Puts them into the state's `table`, over Lua's own. */
void ltable_install(lua_State *L);

#endif
