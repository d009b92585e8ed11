/* The core's serving: core:serve() and core:handle_request() turn the loop on the caller's
 * own thread; meanwhile the Lua state's scheduler is the server's.
 */
#include "base/clock.h"
#include "bind/lhandle.h"
#include "module/serving.h"
#include "script/script.h"
#include "script/state.h"
#include "script/task.h"
#include "server/forking.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/server.h"

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
	core_drop_error_hook(L, c);
	if (lua_getfield(L, hooks, "handle_error") == LUA_TFUNCTION && c->policy->threads)
		c->error_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	else
		lua_pop(L, 1);
	c->server->handle_error = tell_error;
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
	lua_getiuservalue(L, 1, CORE_OBJECT);
	site->self_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	take_error_hook(L, c, hooks);
	lua_getfield(L, hooks, "drive");
	c->server->drives = lua_toboolean(L, -1);
	lua_getfield(L, hooks, "get_request");
	c->server->pulls = lua_toboolean(L, -1);
	lua_pop(L, 2);
	if (lua_getiuservalue(L, 1, CORE_HANDLER) != LUA_TTABLE) {
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
		core_release(L, c);
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

const luaL_Reg core_turn_methods[] = {
    {"handle_request", core_handle_request},
    {"serve", core_serve},
    {NULL, NULL},
};
