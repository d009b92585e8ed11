/* started.h - a host on a thread of its own, in a process that is somebody else's.
 *
 * A Lua object owns the struct.  Whatever happens, the thread ends and paths of sockets go
 * away: with the object, or when the process exits without closing its Lua state.  A forked
 * child's copy stands for nothing.  The thread that made it. */
#ifndef HOST_MODULE_STARTED_H
#define HOST_MODULE_STARTED_H

#include "base/list.h"
#include "base/log.h"
#include "server/host.h"

#include <lauxlib.h>
#include <lua.h>
#include <pthread.h>
#include <stdatomic.h>

struct server;

struct started {
	struct list link; /* among those that run */
	struct host host;
	struct log log;
	struct attrs attrs;          /* what servers start from */
	const struct policy *policy; /* how they run requests */
	char *lua_path;
	pthread_t thread;
	bool runs;
	_Atomic bool over; /* the thread has nothing more to do */
	/* The thread has ended, the host is still there; or NULL. */
	void (*ended)(struct started *st);
};

/* Makes the userdata on top of the stack, which has one user value, an object of this
 * class: `meta` is its metamethods but __index, its own fields are in the user value's
 * table.  Raises for want of memory; the userdata has no finalizer then. */
void started_set_class(lua_State *L, const char *class, const luaL_Reg *methods,
		       const luaL_Reg *meta);

/* What every start begins with, unless its options say otherwise. */
void started_init(struct started *st);

/* Makes a host for the modules' places of this Lua state, has set_up fill and begin it with
 * the stack's first three values, and runs it.  What raises leaves no host behind; `who` is
 * who complains. */
void started_run(lua_State *L, struct started *st, lua_CFunction set_up, const char *who);

/* Lets requests end, within drain_timeout, and frees the host.  Harmless when repeated. */
void started_finish(struct started *st);

/* The same, and frees what the struct has.  False: something still uses it, so that the
 * struct must stay. */
bool started_free(struct started *st);

/* Pushes a new table that says where a server listens: name, class, url, and host and port
 * or path. */
void started_push_place(lua_State *L, const struct server *s);

/* Takes attributes by name from the table at the top of the stack, which is popped. Raises;
 * `who` is who complains. */
void started_read_attributes(lua_State *L, struct started *st, const char *who);

/* The string at the top of the stack, which is an option's.  Raises. */
const char *started_string(lua_State *L, const char *who, const char *name);

/* log_level from the top of the stack, which is popped.  Raises. */
void started_read_level(lua_State *L, struct started *st, const char *who);

#endif
