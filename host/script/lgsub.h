/* lgsub.h - string.gsub(), for lstring.c.
 *
 * It pauses between steps of the matching, but not inside what a replacement function or a
 * metamethod does. */
#ifndef HOST_SCRIPT_LGSUB_H
#define HOST_SCRIPT_LGSUB_H

#include <lua.h>

/* string.gsub(s, pattern, replacement [, n]) -> string, count */
int lgsub(lua_State *L);

#endif
