/* serving.h - the core of socketserver's classes: a server in the caller's own Lua state.
 *
 * lua/moonport/socketserver.lua is its only user; see there for what the methods mean. */
#ifndef HOST_MODULE_SERVING_H
#define HOST_MODULE_SERVING_H

#include "base/log.h"
#include "bind/ldatagram.h"
#include "server/host.h"

#include <lauxlib.h>
#include <lua.h>

struct policy;
struct server;

/* User values: the handler, and the Lua object that handlers see as self.server. */
enum { CORE_HANDLER = 1, CORE_OBJECT = 2 };

/* A userdata; closed by core:close(), or when it is collected. */
struct core {
	struct host host; /* of one server */
	struct server *server;
	struct log log;
	struct attrs attrs;
	const struct policy *policy;
	struct datagram_port port; /* what core:socket() shows */
	char *script;              /* a path; NULL: the handler is a table */
	char *lua_path;
	enum transport transport;
	bool open;    /* host and server are there */
	bool begun;   /* server_begin() has been called */
	bool serving; /* in serve() or handle_request() */
	bool stop;    /* serve() is to end */
	bool close;   /* and then close */
	bool closing; /* in close(), which waits */
	int status;   /* of a child */
	/* While serving: the state, and a reference of its handle_error, or 0. */
	lua_State *L;
	int error_ref;
};

extern const char core_class[];

/* Argument 1; core_check(): which must be open. */
struct core *core_any(lua_State *L);
struct core *core_check(lua_State *L);

/* Closes it.  Harmless when repeated. */
void core_release(lua_State *L, struct core *c);

/* Errors of threads' handlers are told no more. */
void core_drop_error_hook(lua_State *L, struct core *c);

/* moonport.serving */
int open_serving(lua_State *L);

/* The methods of the files beside serving.c: serving_socket.c, serving_turns.c; those that
 * only a request's task may call, in serving_task.c. */
extern const luaL_Reg core_socket_methods[];
extern const luaL_Reg core_turn_methods[];
extern const luaL_Reg core_task_methods[];

#endif
