/* levent.h - moonport.event: what tasks of one Lua state wait for until another sets it.
 *
 * Lua owns the object, which a waiting task's stack keeps alive; its list of waiters is
 * made of the tasks' own links.  The scheduler's thread.  Seconds. */
#ifndef HOST_BIND_LEVENT_H
#define HOST_BIND_LEVENT_H

#include <lua.h>

/* Registers the class.  Called once for each state. */
void open_event(lua_State *L);

/* moonport.event() -> an event that is not set.  Raises for want of memory. */
int moonport_event(lua_State *L);

#endif
