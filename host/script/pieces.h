/* pieces.h - a string that a C function builds in Lua, across pauses.
 *
 * A luaL_Buffer is on the C stack and does not outlive a pause.  So what it holds becomes a
 * string when there is one, kept in a table at a place of the stack that the caller names
 * (nil there: no piece yet).  Where there is no pause, the buffer alone does it. */
#ifndef HOST_SCRIPT_PIECES_H
#define HOST_SCRIPT_PIECES_H

#include <lauxlib.h>
#include <lua.h>

/* Before a pause: ends the buffer, which must be on top, and keeps its bytes.  A
 * luaL_buffinit() may follow. */
void pieces_keep(lua_State *L, int idx, luaL_Buffer *b);

/* Ends the buffer, and pushes all there is as one string. */
void pieces_push(lua_State *L, int idx, luaL_Buffer *b);

#endif
