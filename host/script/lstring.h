/* lstring.h - functions of `string` that let others go first.
 *
 * find, match, gmatch, gsub and rep as Lua's own have them, to the texts of the errors. But
 * Lua's can run for hours inside one call, where no hook can stop them; these ask
 * slice_over() as they go, and pause.  There is no "pattern too complex". */
#ifndef HOST_SCRIPT_LSTRING_H
#define HOST_SCRIPT_LSTRING_H

#include <lua.h>

/* Puts them into the state's `string`, over Lua's own. */
void lstring_install(lua_State *L);

#endif
