#include "module/serving.h"

#include "base/clock.h"
#include "script/script.h"
#include "server/children.h"
#include "server/forking.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/stats.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char core_class[] = "moonport.core";

struct core *
core_any(lua_State *L)
{
	return luaL_checkudata(L, 1, core_class);
}

struct core *
core_check(lua_State *L)
{
	struct core *c = core_any(L);

	if (!c->open)
		luaL_error(L, "the server is closed");
	return c;
}

static enum transport
transport_field(lua_State *L, int idx)
{
	static const char *const names[] = {"tcp", "udp", "unix", "unixgram", NULL};
	static const enum transport values[] = {TRANSPORT_TCP, TRANSPORT_UDP,
						TRANSPORT_UNIX, TRANSPORT_UNIXGRAM};

	lua_getfield(L, idx, "transport");
	return values[luaL_checkoption(L, -1, NULL, names)];
}

static void
read_attributes(lua_State *L, struct core *c)
{
	const char *name, *value;
	char why[320];

	if (lua_getfield(L, 1, "attributes") == LUA_TTABLE)
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 2)) {
			name = luaL_checkstring(L, -2);
			value = luaL_tolstring(L, -1, NULL);
			if (attrs_set_text(&c->attrs, name, value, why, sizeof(why)) < 0)
				luaL_error(L, "%s", why);
		}
	lua_pop(L, 1);
}

static char *
copy_string(lua_State *L, const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		luaL_error(L, "not enough memory");
	return copy;
}

/* The loop is somewhere in a turn, and looks at its end. */
static void
stop_serving(struct server *s)
{
	LIST_ENTRY(s->host, struct core, host)->stop = true;
}

/* serving.new(options) -> core */
static int
serving_new(lua_State *L)
{
	struct core *c;
	char why[SCRIPT_ERROR];

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	c = lua_newuserdatauv(L, sizeof(*c), 2);
	*c = (struct core){.log = {.fd = STDERR_FILENO, .level = LOG_INFO},
			   .port = {.fd = -1}};
	list_init(&c->port.objects);
	luaL_setmetatable(L, core_class);
	attrs_init(&c->attrs);
	read_attributes(L, c);
	c->transport = transport_field(L, 1);
	lua_getfield(L, 1, "mixin");
	c->policy = policy_find(luaL_checkstring(L, -1));
	luaL_argcheck(L, c->policy, 1, "no such mixin");
	if (lua_getfield(L, 1, "script") == LUA_TSTRING)
		c->script = copy_string(L, lua_tostring(L, -1));
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "path");
	c->lua_path = copy_string(L, luaL_optstring(L, -1, ""));
	lua_settop(L, 2);
	lua_getfield(L, 1, "handler");
	lua_setiuservalue(L, 2, CORE_HANDLER);
	lua_getfield(L, 1, "object");
	lua_setiuservalue(L, 2, CORE_OBJECT);
	if (host_init(&c->host, &c->log, c->lua_path) < 0)
		return luaL_error(L, "not enough memory or descriptors for a server");
	c->open = true;
	if (server_new(&c->host, c->policy, &c->attrs, NULL, &c->server, why, sizeof(why)) <
	    0)
		return luaL_error(L, "%s", why);
	c->server->shutdown = stop_serving;
	return 1;
}

void
core_drop_error_hook(lua_State *L, struct core *c)
{
	if (c->error_ref)
		luaL_unref(L, LUA_REGISTRYINDEX, c->error_ref);
	c->error_ref = 0;
}

void
core_release(lua_State *L, struct core *c)
{
	if (!c->open)
		return;
	c->open = false;
	if (getpid() != c->host.pid)
		return; /* a forked child's copy: all that it stands for is the parent's */
	core_drop_error_hook(L, c);
	c->port.fd = -1;
	host_free(&c->host);
}

static int
core_gc(lua_State *L)
{
	struct core *c = core_any(L);

	core_release(L, c);
	if (c->host.left_behind)
		return 0; /* its threads may still use these */
	free(c->script);
	free(c->lua_path);
	c->script = c->lua_path = NULL;
	return 0;
}

/* core:shutdown(): returns at once */
static int
core_shutdown(lua_State *L)
{
	struct server *s = core_check(L)->server;

	s->shutdown(s);
	return 0;
}

/* Waits for threads and children, as block_on_close and daemon_threads say. */
static void
wait_for_mixin(lua_State *L, struct core *c)
{
	struct server *s = c->server;
	struct host *h = &c->host;
	int64_t until = clock_after(clock_now(), s->site.attrs.drain_timeout);

	c->L = L;
	if (s->policy->drained && c->begun)
		s->policy->drained(s);
	if (s->policy->forks && !s->site.attrs.block_on_close)
		return;
	while (s->policy->active(s) > 0 && clock_now() < until)
		loop_turn(h->engine.loop, until);
	if (s->policy->active(s) > 0)
		s->policy->cancel(s, "the server stops");
	while (s->policy->active(s) > 0)
		loop_turn(h->engine.loop, CLOCK_NEVER);
	loop_turn(h->engine.loop, 0); /* what the last ones have told */
}

/* core:close() */
static int
core_close(lua_State *L)
{
	struct core *c = core_any(L);

	if (!c->open)
		return 0;
	if (c->closing)
		return 0;
	if (c->serving) {
		c->close = true;
		stop_serving(c->server);
		return 0;
	}
	listening_stop(c->server);
	c->port.fd = -1;
	c->closing = true;
	if (c->begun)
		wait_for_mixin(L, c);
	core_release(L, c);
	return 0;
}

/* core:stats() -> a table of counters */
static int
core_stats(lua_State *L)
{
	struct core *c = core_check(L);
	struct stats stats;

	stats_read(c->server, &stats);
	stats_push(L, &stats);
	engine_push_stats(&c->host.engine, L);
	return 1;
}

/* core:active_children() -> process numbers; under threading, numbers of running requests
 */
static int
core_active_children(lua_State *L)
{
	struct core *c = core_any(L);
	const struct children *set =
	    c->open && c->policy->forks ? forking_children(c->server) : NULL;
	lua_Integer n = 0;

	lua_newtable(L);
	if (set)
		for (struct list *l = set->list.next; l != &set->list; l = l->next) {
			lua_pushinteger(L, LIST_ENTRY(l, struct child, link)->pid);
			lua_rawseti(L, -2, ++n);
		}
	else if (c->open)
		while (n < (lua_Integer)c->policy->active(c->server)) {
			n++;
			lua_pushinteger(L, n);
			lua_rawseti(L, -2, n);
		}
	return 1;
}

/* core:collect_children(blocking): reaps; with a true argument, waits for all */
static int
core_collect_children(lua_State *L)
{
	struct core *c = core_any(L);
	struct children *set =
	    c->open && c->policy->forks ? forking_children(c->server) : NULL;

	if (!set)
		return 0;
	if (lua_toboolean(L, 2))
		children_wait(set);
	else
		children_reap(set);
	return 0;
}

int
open_serving(lua_State *L)
{
	static const luaL_Reg functions[] = {{"new", serving_new}, {NULL, NULL}};
	static const luaL_Reg methods[] = {
	    {"active_children", core_active_children},
	    {"close", core_close},
	    {"collect_children", core_collect_children},
	    {"shutdown", core_shutdown},
	    {"stats", core_stats},
	    {NULL, NULL},
	};

	luaL_newmetatable(L, core_class);
	lua_pushcfunction(L, core_gc);
	lua_setfield(L, -2, "__gc");
	luaL_newlib(L, methods);
	luaL_setfuncs(L, core_socket_methods, 0);
	luaL_setfuncs(L, core_turn_methods, 0);
	luaL_setfuncs(L, core_task_methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
