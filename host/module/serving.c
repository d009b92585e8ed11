#include "module/serving.h"

#include "base/clock.h"
#include "bind/lhandle.h"
#include "script/script.h"
#include "script/state.h"
#include "script/task.h"
#include "server/children.h"
#include "server/crew.h"
#include "server/forking.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char core_class[] = "moonport.core";

enum { HANDLER = 1, OBJECT = 2 }; /* user values */

static struct core *
any(lua_State *L)
{
	return luaL_checkudata(L, 1, core_class);
}

struct core *
core_check(lua_State *L)
{
	struct core *c = any(L);

	if (!c->open)
		luaL_error(L, "the server is closed");
	return c;
}

/* ---- making ---- */

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

static void tell_error(struct server *s, const struct addr *client, const char *text);

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
	lua_setiuservalue(L, 2, HANDLER);
	lua_getfield(L, 1, "object");
	lua_setiuservalue(L, 2, OBJECT);
	if (host_init(&c->host, &c->log, c->lua_path) < 0)
		return luaL_error(L, "not enough memory or descriptors for a server");
	c->open = true;
	if (server_new(&c->host, c->policy, &c->attrs, NULL, &c->server, why, sizeof(why)) <
	    0)
		return luaL_error(L, "%s", why);
	c->server->handle_error = tell_error;
	c->server->shutdown = stop_serving;
	return 1;
}

static void
drop_error_hook(lua_State *L, struct core *c)
{
	if (c->error_ref)
		luaL_unref(L, LUA_REGISTRYINDEX, c->error_ref);
	c->error_ref = 0;
}

static void
release(lua_State *L, struct core *c)
{
	if (!c->open)
		return;
	c->open = false;
	if (getpid() != c->host.pid)
		return; /* a forked child's copy: all that it stands for is the parent's */
	drop_error_hook(L, c);
	c->port.fd = -1;
	host_free(&c->host);
}

static int
core_gc(lua_State *L)
{
	struct core *c = any(L);

	release(L, c);
	if (c->host.left_behind)
		return 0; /* its threads may still use these */
	free(c->script);
	free(c->lua_path);
	c->script = c->lua_path = NULL;
	return 0;
}

/* ---- the socket ---- */

static void
read_url(lua_State *L, struct core *c, struct url *url)
{
	char why[320];
	size_t n;
	const char *text;

	*url = (struct url){.transport = c->transport};
	if (transport_is_unix(c->transport)) {
		text = luaL_checklstring(L, 2, &n);
		lua_pushfstring(L, "%s://%s",
				c->transport == TRANSPORT_UNIX ? "unix" : "unixgram", text);
		luaL_argcheck(L, strlen(text) == n, 2, "the path has a NUL in it");
	} else {
		luaL_checktype(L, 2, LUA_TTABLE);
		lua_geti(L, 2, 1);
		lua_geti(L, 2, 2);
		text = luaL_checkstring(L, -2);
		lua_pushfstring(L, strchr(text, ':') ? "%s://[%s]:%d" : "%s://%s:%d",
				c->transport == TRANSPORT_TCP ? "tcp" : "udp", text,
				(int)luaL_checkinteger(L, -1));
	}
	text = lua_tolstring(L, -1, &n);
	if (url_parse(text, n, url, why, sizeof(why)) < 0)
		luaL_error(L, "%s", why);
}

/* core:bind(address) -> server_address */
static int
core_bind(lua_State *L)
{
	struct core *c = core_check(L);
	char why[SCRIPT_ERROR];
	struct url url;

	if (c->server->listener.fd >= 0)
		return luaL_error(L, "the server is bound already");
	read_url(L, c, &url);
	if (listening_bind(c->server, &url, false, why, sizeof(why)) < 0)
		return luaL_error(L, "%s", why);
	c->server->site.view.name = c->server->class_name;
	c->port.fd = c->server->site.port.fd;
	c->port.transport = c->server->site.port.transport;
	push_address(L, &c->server->site.view.addr);
	return 1;
}

/* core:activate(): listens */
static int
core_activate(lua_State *L)
{
	struct core *c = core_check(L);
	int backlog = (int)c->attrs.request_queue_size;

	if (transport_is_stream(c->transport) &&
	    listen(c->server->listener.fd, backlog) < 0)
		return luaL_error(L, "cannot listen: %s", strerror(errno));
	return 0;
}

static int
core_fileno(lua_State *L)
{
	struct core *c = any(L);

	lua_pushinteger(L, c->open ? c->server->listener.fd : -1);
	return 1;
}

/* core:socket() -> an object that lives as long as the core does */
static int
core_socket(lua_State *L)
{
	struct core *c = core_check(L);

	datagram_push(L, &c->port);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, 1);
	return 1;
}

/* ---- serving ---- */

/* An error of a thread's handler, by the server's handle_error. */
static void
tell_error(struct server *s, const struct addr *client, const char *text)
{
	struct core *c = LIST_ENTRY(s->host, struct core, host);
	lua_State *L = c->L;

	lua_rawgeti(L, LUA_REGISTRYINDEX, c->error_ref);
	lua_pushnil(L);
	push_address(L, client);
	lua_pushstring(L, text);
	if (state_call(L, 3, 0) == LUA_OK)
		return;
	struct log_field f[] = {log_str("server", s->site.view.name),
				log_str("error", lua_tostring(L, -1)),
				{0}};
	log_event(&c->log, LOG_ERROR, "handle_error failed", f);
	lua_pop(L, 1);
}

/* Requests in threads may end, and fail, when nobody serves any more: their errors still
 * go to handle_error, until the server is closed. */
static void
take_error_hook(lua_State *L, struct core *c, int hooks)
{
	drop_error_hook(L, c);
	if (lua_getfield(L, hooks, "handle_error") == LUA_TFUNCTION && c->policy->threads)
		c->error_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	else
		lua_pop(L, 1);
	c->server->tells = c->error_ref != 0;
}

/* Has the server run the handler, with these hooks.  Stack: hooks at idx. */
static void
enter(lua_State *L, struct core *c, int hooks)
{
	struct site *site = &c->server->site;
	char why[SCRIPT_ERROR];

	sched_lend(L, &c->host.engine.sched);
	c->serving = true;
	c->stop = false;
	c->L = L;
	lua_pushvalue(L, hooks);
	site->hooks_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_getiuservalue(L, 1, OBJECT);
	site->self_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	take_error_hook(L, c, hooks);
	lua_getfield(L, hooks, "drive");
	c->server->drives = lua_toboolean(L, -1);
	lua_getfield(L, hooks, "get_request");
	c->server->pulls = lua_toboolean(L, -1);
	lua_pop(L, 2);
	if (lua_getiuservalue(L, 1, HANDLER) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
	}
	if (site_adopt(
		site,
		script_borrow(L, &c->host.engine.sched, c->script ? c->script : "handler"),
		why, sizeof(why)) < 0)
		luaL_error(L, "%s", why);
	if (!c->begun) {
		if (server_begin(c->server, why, sizeof(why)) < 0)
			luaL_error(L, "%s", why);
		c->begun = true;
	} else if (!c->server->elsewhere &&
		   listening_watch(c->server, why, sizeof(why)) < 0)
		luaL_error(L, "%s", why);
}

/* The reverse, whatever enter() has got done. */
static void
leave(lua_State *L, struct core *c, struct sched *outer)
{
	struct site *site = &c->server->site;

	listening_rest(c->server);
	site_kill(site);
	if (site->script)
		site_leave(site);
	luaL_unref(L, LUA_REGISTRYINDEX, site->hooks_ref);
	site->hooks_ref = site->self_ref =
	    0; /* the latter is the generation's to give up */
	c->serving = false;
	sched_lend(L, outer);
}

/* A child that was forked by a request in this state ends here. */
static void
end_child(struct core *c)
{
	if (c->host.child && c->server->site.nrequests == 0 &&
	    c->host.engine.io.lingers.n == 0)
		forking_exit(c->server, c->status);
}

static void
turn(struct core *c, int64_t until)
{
	loop_turn(c->host.engine.loop, until);
	end_child(c);
}

/* Pre-forked children accept for themselves: when nobody serves, there may be none. */
static void
end_preforked(struct core *c, int64_t until)
{
	struct server *s = c->server;

	s->draining = true;
	s->policy->drained(s);
	while (s->policy->active(s) > 0 && clock_now() < until)
		turn(c, until);
	s->policy->close(s);
	s->draining = s->elsewhere = c->begun = false;
}

/* Lets the requests of this state end, within drain_timeout; then they are cancelled. */
static void
let_end(struct core *c)
{
	struct site *site = &c->server->site;
	int64_t until = clock_after(clock_now(), site->attrs.drain_timeout);

	while (site->nrequests > 0 && (clock_now() < until || c->host.child))
		turn(c, c->host.child ? CLOCK_NEVER : until);
	site_cancel(site, "the server stops");
	while (site->nrequests > 0)
		turn(c, CLOCK_NEVER);
	if (c->server->elsewhere)
		end_preforked(c, until);
}

static int
nothing(lua_State *L)
{
	(void)L;
	return 0;
}

/* lua5.4 tells of Ctrl-C by a hook, which has to have something to interrupt. */
static void
let_interrupt(lua_State *L)
{
	if (!lua_gethook(L))
		return;
	lua_pushcfunction(L, nothing);
	lua_call(L, 0, 0);
}

/* Runs protected.  Arguments: core, poll_interval, hooks. */
static int
serve(lua_State *L)
{
	struct core *c = core_check(L);
	double interval = luaL_optnumber(L, 2, 0.5);
	bool acts;

	enter(L, c, 3);
	acts = lua_getfield(L, 3, "service_actions") == LUA_TFUNCTION;
	while (!c->stop || c->host.child) {
		turn(c, acts ? clock_after(clock_now(), interval) : CLOCK_NEVER);
		let_interrupt(L);
		if (acts && !c->host.child) {
			lua_pushvalue(L, -1);
			lua_call(L, 0, 0);
		}
	}
	listening_rest(c->server);
	let_end(c);
	return 0;
}

/* Runs protected.  Arguments: core, timeout or nil, hooks.  Returns the outcome. */
static int
handle_one(lua_State *L)
{
	struct core *c = core_check(L);
	int64_t until = CLOCK_NEVER;
	bool here;

	if (!lua_isnil(L, 2))
		until = clock_after(clock_now(), luaL_checknumber(L, 2));
	c->server->budget = 1;
	enter(L, c, 3);
	do {
		turn(c, until);
		let_interrupt(L);
	} while (c->server->budget > 0 && clock_now() < until);
	here = c->server->budget == 0;
	listening_rest(c->server);
	while (c->server->site.nrequests > 0 || c->host.child)
		turn(c, CLOCK_NEVER);
	lua_pushstring(L, here ? "handled" : "timeout");
	return 1;
}

static int
serve_by(lua_State *L, lua_CFunction how)
{
	struct core *c = core_check(L);
	struct sched *outer = sched_of(L);
	int status;

	if (c->serving || c->closing)
		return luaL_error(L, c->closing ? "the server is being closed"
						: "the server serves already");
	if (c->server->listener.fd < 0)
		return luaL_error(L, "the server is not bound");
	lua_settop(L, 3);
	lua_pushcfunction(L, how);
	lua_insert(L, 1);
	lua_pushvalue(L, 2);
	lua_insert(L, 1); /* the core, which must outlive the call */
	status = state_try(L, 3, 1);
	leave(L, c, outer);
	c->server->budget = UINT64_MAX;
	if (c->close)
		release(L, c);
	return status == LUA_OK ? 1 : lua_error(L);
}

/* core:serve(poll_interval, hooks) */
static int
core_serve(lua_State *L)
{
	return serve_by(L, serve);
}

/* core:handle_request(timeout, hooks) -> "handled" | "timeout" */
static int
core_handle_request(lua_State *L)
{
	return serve_by(L, handle_one);
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
	struct core *c = any(L);

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
	release(L, c);
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
	struct core *c = any(L);
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
	struct core *c = any(L);
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
	    {"activate", core_activate},
	    {"active_children", core_active_children},
	    {"bind", core_bind},
	    {"close", core_close},
	    {"collect_children", core_collect_children},
	    {"fileno", core_fileno},
	    {"handle_request", core_handle_request},
	    {"serve", core_serve},
	    {"shutdown", core_shutdown},
	    {"socket", core_socket},
	    {"stats", core_stats},
	    {NULL, NULL},
	};

	luaL_newmetatable(L, core_class);
	lua_pushcfunction(L, core_gc);
	lua_setfield(L, -2, "__gc");
	luaL_newlib(L, methods);
	luaL_setfuncs(L, core_task_methods, 0);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
