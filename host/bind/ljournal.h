/* ljournal.h - the module `moonport.journal`: see diary.h for whose journal it is. */
#ifndef HOST_BIND_LJOURNAL_H
#define HOST_BIND_LJOURNAL_H

#include <lua.h>

/* The module's loader.  Where there is no journal it raises one sentence that says so. */
int open_journal(lua_State *L);

#endif
