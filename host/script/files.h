/* files.h - the files that a state has opened by the io library.
 *
 * A forked child keeps none of its parent's descriptors.  A file handle that was opened
 * before would go on to use the descriptor's number, whatever has that in the child; so
 * the handles are known, and closed there. */
#ifndef HOST_SCRIPT_FILES_H
#define HOST_SCRIPT_FILES_H

#include <lua.h>

/* Has the io library of a new state remember what it opens.  Raises. */
void files_watch(lua_State *L);

/* In a forked child: every such handle is closed from now on, but for the standard ones;
 * their descriptors and buffers are left alone. */
void files_forget(lua_State *L);

#endif
