/* lmoonport.h - the module `moonport` that scripts require. */
#ifndef HOST_BIND_LMOONPORT_H
#define HOST_BIND_LMOONPORT_H

#include <lua.h>

#define MOONPORT_VERSION "0.1.0"

/* The registry key of what sockets made by connect() must keep alive; may be absent. */
extern const char socket_anchor[];

/* Pushes the module and registers the classes. */
int open_moonport(lua_State *L);

/* For script_options.open: puts the module where require finds it. */
int preload_moonport(lua_State *L);

#endif
