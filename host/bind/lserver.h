/* lserver.h - what a handler sees as self.server.
 *
 * The server floor fills the struct in and owns it.  Objects that outlive it raise: see
 * server_vanish(). */
#ifndef HOST_BIND_LSERVER_H
#define HOST_BIND_LSERVER_H

#include "base/list.h"
#include "net/addr.h"

#include <lua.h>
#include <stdbool.h>

struct server_view {
	struct list objects;    /* that stand for it; to be set up by list_init() */
	const char *name;       /* of the server in the ready line */
	const char *class_name; /* "AsyncTCPServer" */
	struct addr addr;
	enum transport transport;
	int fd;
	/* Begins a drain; returns at once. */
	void (*shutdown)(struct server_view *v);
	/* Has the script loaded again, and waits for the outcome; returns the number of
	 * results, or what the wait returned. */
	int (*reload)(struct server_view *v, lua_State *L);
	/* Pushes a table of counters. */
	void (*push_stats)(struct server_view *v, lua_State *L);
	/* Pushes the attribute of this name, or returns false. */
	bool (*push_attribute)(struct server_view *v, lua_State *L, const char *name);
};

/* Pushes the object for v. */
void server_push(lua_State *L, struct server_view *v);

/* The server is about to be freed: what stands for it in Lua states says so from now on. */
void server_vanish(struct server_view *v);

#endif
