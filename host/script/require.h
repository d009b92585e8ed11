/* require.h - the host's `require`: modules as text only, from the generation's sources,
 * and with a module's own code where it can be suspended.
 *
 * One Lua state. */
#ifndef HOST_SCRIPT_REQUIRE_H
#define HOST_SCRIPT_REQUIRE_H

#include <lua.h>

/* Replaces `require` and the searcher for Lua modules.  path goes before package.path;
 * NULL: nothing does.  May raise for want of memory. */
void require_install(lua_State *L, const char *path);

#endif
