/* control.h - `require "moonport.control"`: what the control API's handler, and nobody
 * else, can do to its host.
 *
 *   servers() -> { {name=, url=, host=, port=, path=, transport=, class=, script=, unit=,
 *                   generation=, enabled=, api=} ... }, but for the control API's own
 *   stats(name) -> server:stats() of it | nil, why
 *   options() -> {token=, allow_script_upload=, hosts={...}, version=, pid=, started=}
 *   call(unit, op, data) -> result | nil, why: calls.h; parks
 *   api_unit() -> the unit of servers that are made over the API; the first time parks
 *   open(unit, name, url) -> true | nil, why, errno; parks
 *   close(name) -> true | nil, why
 *   enable(name, boolean) -> true | nil, why
 *   reload(unit [, text]) -> generation | nil, why; parks
 *   connections() -> { {id=, server=, client=, age=, generation=} ... }
 *   push(id, bytes) -> true | nil, why
 *   kill(id, "fin" | "rst") -> true | nil, why
 *
 * A unit is a number from 1, and stays the same.  The caller owns the struct, and what it
 * points to, until the host is freed.  The loop's thread. */
#ifndef HOST_SERVER_CONTROL_H
#define HOST_SERVER_CONTROL_H

#include "server/attrs.h"

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct host;
struct policy;
struct unit;

struct control_options {
	const char *token; /* NULL: none */
	const char *how;   /* to give one, for the sentence that says that it is needed */
	bool allow_script_upload;
	const char *const *hosts; /* nhosts that requests may name, besides its own */
	size_t nhosts;
	const char *version;
	pid_t pid;
	int64_t started; /* seconds since 1970 */
};

struct control {
	struct control_options options;
	/* Of servers that are opened over the API. */
	const struct policy *policy;
	struct attrs attrs;
	struct unit *unit; /* the API's own; set by control_load() */
	struct unit *api;  /* of those servers; NULL: there were none yet */
};

/* Loads the control API's script as a unit of its own, c->unit, whose states have the
 * module; servers for it come from host_open().  -errno with one sentence in why. */
int control_load(struct control *c, struct host *h, const char *path, const struct attrs *a,
		 char *why, size_t size);

/* Makes `require "moonport.control"` work in this state.  May raise for want of memory. */
void control_preload(struct host *h, lua_State *L);

/* The file of a module of the host's own, such as "moonport/admin".  False: there is none.
 */
bool control_find(const struct host *h, const char *module, char *path, size_t size);

/* Whether it is the control API's own unit. */
bool control_owns(const struct host *h, const struct unit *u);

#endif
