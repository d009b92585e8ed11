#include "server/control.h"

#include "base/clock.h"
#include "bind/lmoonport.h"
#include "bind/stream.h"
#include "net/addr.h"
#include "script/script.h"
#include "script/task.h"
#include "server/ask.h"
#include "server/connection.h"
#include "server/host.h"
#include "server/lcall.h"
#include "server/listening.h"
#include "server/policy.h"
#include "server/roster.h"
#include "server/server.h"
#include "server/unit.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char NAME[] = "moonport.control";
static const char BLANK[] = "moonport/mock/blank";

static struct host *
host_of(lua_State *L)
{
	return lua_touserdata(L, lua_upvalueindex(1));
}

static int
fail(lua_State *L, const char *why)
{
	lua_pushnil(L);
	lua_pushstring(L, why);
	return 2;
}

static struct unit *
check_unit(lua_State *L, int arg)
{
	struct unit *u;
	lua_Integer n = luaL_checkinteger(L, arg);

	luaL_argcheck(L, n > 0 && n < 1 << 30, arg, "there is no such unit");
	u = host_unit(host_of(L), (int)n - 1);
	luaL_argcheck(L, u, arg, "there is no such unit");
	return u;
}

/* NULL: there is none, and nil and why are pushed. */
static struct server *
find_server(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	struct server *s = host_server(host_of(L), name);

	if (!s) {
		lua_pushnil(L);
		lua_pushfstring(L, "there is no server named %s", name);
	}
	return s;
}

/* ---- what there is ---- */

static void
set_string(lua_State *L, const char *name, const char *value)
{
	lua_pushstring(L, value);
	lua_setfield(L, -2, name);
}

static void
set_integer(lua_State *L, const char *name, lua_Integer value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, name);
}

static void
set_boolean(lua_State *L, const char *name, bool value)
{
	lua_pushboolean(L, value);
	lua_setfield(L, -2, name);
}

static void
push_server(lua_State *L, const struct host *h, const struct server *s)
{
	const struct addr *a = &s->site.view.addr;
	char text[ADDR_TEXT];

	lua_createtable(L, 0, 12);
	set_string(L, "name", s->name);
	addr_url(a, s->site.view.transport, text, sizeof(text));
	set_string(L, "url", text);
	lua_pushlstring(L, text, (size_t)(strstr(text, "://") - text));
	lua_setfield(L, -2, "transport");
	if (addr_is_unix(a)) {
		addr_path(a, text, sizeof(text));
		set_string(L, "path", text);
	} else {
		addr_host(a, text, sizeof(text));
		set_string(L, "host", text);
		set_integer(L, "port", addr_port(a));
	}
	set_string(L, "class", s->class_name);
	set_string(L, "script", s->site.script->path);
	set_integer(L, "unit", host_unit_number(h, s->unit) + 1);
	set_integer(L, "generation", s->site.script->number);
	set_boolean(L, "enabled", !s->down);
	set_boolean(L, "api", s->unit == h->control->api);
}

static int
servers(lua_State *L)
{
	const struct host *h = host_of(L);
	lua_Integer n = 0;

	lua_newtable(L);
	for (struct server *s = NULL; (s = host_next(h, s));) {
		if (!s->unit || !s->name || control_owns(h, s->unit))
			continue;
		push_server(L, h, s);
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

static int
stats(lua_State *L)
{
	struct server *s = find_server(L);

	if (!s)
		return 2;
	s->site.view.push_stats(&s->site.view, L);
	return 1;
}

static int
options(lua_State *L)
{
	const struct control_options *o = &host_of(L)->control->options;

	lua_createtable(L, 0, 6);
	if (o->token)
		set_string(L, "token", o->token);
	set_boolean(L, "allow_script_upload", o->allow_script_upload);
	lua_createtable(L, (int)o->nhosts, 0);
	for (size_t i = 0; i < o->nhosts; i++) {
		lua_pushstring(L, o->hosts[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "hosts");
	set_string(L, "version", o->version);
	set_integer(L, "pid", o->pid);
	set_integer(L, "started", o->started);
	return 1;
}

/* ---- coming and going ---- */

/* Something that must not happen in a task: opening loads scripts and calls into states.
 * The loop does it, and the asking task waits.  A userdata on that task's stack. */
struct job {
	struct loop_task due;
	struct task *task;
	struct host *host;
	int (*run)(struct job *j);
	struct unit *unit;
	const char *name; /* on the task's stack */
	struct url url;
	int rc;
	char why[SCRIPT_ERROR];
};

static void
on_due(struct loop_task *t)
{
	struct job *j = LIST_ENTRY(t, struct job, due);

	j->rc = j->run(j);
	task_wake_soon(j->task);
}

static void
withdraw(void *arg)
{
	struct job *j = arg;

	list_remove(&j->due.link);
}

/* Pushes one that is to be filled in. */
static struct job *
push_job(lua_State *L, int (*run)(struct job *j))
{
	struct task *t = task_current(L);
	struct job *j = lua_newuserdatauv(L, sizeof(*j), 0);

	*j = (struct job){.due.run = on_due, .task = t, .host = host_of(L), .run = run};
	list_init(&j->due.link);
	return j;
}

/* For what has the job on top of its stack; k finds it there. */
static int
do_job(lua_State *L, struct job *j, lua_KFunction k)
{
	loop_defer(j->host->engine.loop, &j->due);
	return task_park(L, CLOCK_NEVER, withdraw, j, 0, k);
}

static int
open_now(struct job *j)
{
	const struct control *c = j->host->control;
	struct server *s;

	return host_open(j->host, j->unit, j->name, &j->url, c->policy, &c->attrs, &s,
			 j->why, sizeof(j->why));
}

static int
opened(lua_State *L, int status, lua_KContext ctx)
{
	struct job *j = lua_touserdata(L, -1);

	(void)status, (void)ctx;
	task_woke(L);
	if (j->rc < 0) {
		fail(L, j->why);
		lua_pushinteger(L, -j->rc);
		return 3;
	}
	lua_pushboolean(L, 1);
	return 1;
}

static int
control_open(lua_State *L)
{
	struct unit *u = check_unit(L, 1);
	const char *name = luaL_checkstring(L, 2);
	size_t n;
	const char *text = luaL_checklstring(L, 3, &n);
	struct job *j;

	lua_settop(L, 3);
	j = push_job(L, open_now);
	j->unit = u;
	j->name = name;
	if (url_parse(text, n, &j->url, j->why, sizeof(j->why)) < 0) {
		fail(L, j->why);
		lua_pushinteger(L, EINVAL);
		return 3;
	}
	return do_job(L, j, opened);
}

static int
control_close(lua_State *L)
{
	struct server *s = find_server(L);

	if (!s)
		return 2;
	host_close(s);
	lua_pushboolean(L, 1);
	return 1;
}

static int
enable(lua_State *L)
{
	struct server *s = find_server(L);
	char why[512];

	luaL_checktype(L, 2, LUA_TBOOLEAN);
	if (!s)
		return 2;
	if (listening_enable(s, lua_toboolean(L, 2), why, sizeof(why)) < 0)
		return fail(L, why);
	lua_pushboolean(L, 1);
	return 1;
}

bool
control_find(const struct host *h, const char *module, char *path, size_t size)
{
	const char *p = h->lua_path ? h->lua_path : "", *mark, *end;

	for (; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, ';');
		mark = memchr(p, '?', (size_t)(end - p));
		if (!mark)
			continue;
		snprintf(path, size, "%.*s%s%.*s", (int)(mark - p), p, module,
			 (int)(end - mark - 1), mark + 1);
		if (access(path, R_OK) == 0)
			return true;
	}
	return false;
}

static int
load_blank(struct job *j)
{
	struct control *c = j->host->control;
	char path[4096];

	if (c->api)
		return 0;
	if (!control_find(j->host, BLANK, path, sizeof(path))) {
		snprintf(j->why, sizeof(j->why), "%s.lua is not in %s", BLANK,
			 j->host->lua_path);
		return -ENOENT;
	}
	return host_unit_load(j->host, path, &c->attrs, &c->api, j->why, sizeof(j->why));
}

static int
blank_loaded(lua_State *L, int status, lua_KContext ctx)
{
	const struct job *j = lua_touserdata(L, -1);

	(void)status, (void)ctx;
	task_woke(L);
	if (j->rc < 0)
		return fail(L, j->why);
	lua_pushinteger(L, host_unit_number(j->host, j->host->control->api) + 1);
	return 1;
}

static int
api_unit(lua_State *L)
{
	const struct host *h = host_of(L);

	if (!h->control->api)
		return do_job(L, push_job(L, load_blank), blank_loaded);
	lua_pushinteger(L, host_unit_number(h, h->control->api) + 1);
	return 1;
}

/* ---- scripts ---- */

static int
reload(lua_State *L)
{
	struct unit *u = check_unit(L, 1);
	size_t n = 0;
	const char *text = luaL_optlstring(L, 2, NULL, &n);

	lua_settop(L, 2);
	return ask_unit(L, u, text, n);
}

static int
call(lua_State *L)
{
	struct unit *u = check_unit(L, 1);

	luaL_checkstring(L, 2);
	lua_settop(L, 3);
	return call_unit(L, u);
}

/* ---- connections ---- */

static void
push_connection(lua_State *L, const struct request *r)
{
	char client[ADDR_TEXT];
	struct addr room;

	lua_createtable(L, 0, 5);
	set_integer(L, "id", (lua_Integer)stream_conn(request_stream(r)));
	set_string(L, "server", request_site(r)->view.name);
	addr_text(request_client(r, &room), client, sizeof(client));
	set_string(L, "client", client);
	lua_pushnumber(L, (lua_Number)task_age(r->task) / CLOCK_SECOND);
	lua_setfield(L, -2, "age");
	set_integer(L, "generation", r->task->script->number);
}

static int
connections(lua_State *L)
{
	const struct host *h = host_of(L);
	lua_Integer n = 0;

	lua_newtable(L);
	for (struct request *r = NULL; (r = connection_next(h, r));) {
		push_connection(L, r);
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

static struct request *
find_connection(lua_State *L)
{
	lua_Integer id = luaL_checkinteger(L, 1);
	struct request *r = id > 0 ? host_connection(host_of(L), (uint64_t)id) : NULL;

	if (!r) {
		lua_pushnil(L);
		lua_pushfstring(L, "there is no connection %I", id);
	}
	return r;
}

static int
push(lua_State *L)
{
	size_t n;
	const char *p = luaL_checklstring(L, 2, &n);
	struct request *r = find_connection(L);
	char why[256];

	if (!r)
		return 2;
	if (connection_push(r, p, n, why, sizeof(why)) < 0)
		return fail(L, why);
	lua_pushboolean(L, 1);
	return 1;
}

static int
control_kill(lua_State *L)
{
	static const char *const names[] = {"fin", "rst", NULL};
	int how = luaL_checkoption(L, 2, NULL, names);
	struct request *r = find_connection(L);

	if (!r)
		return 2;
	connection_kill(r, how == 1);
	lua_pushboolean(L, 1);
	return 1;
}

/* ---- the module ---- */

static int
open_control(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"api_unit", api_unit},
	    {"call", call},
	    {"close", control_close},
	    {"connections", connections},
	    {"enable", enable},
	    {"kill", control_kill},
	    {"open", control_open},
	    {"options", options},
	    {"push", push},
	    {"reload", reload},
	    {"servers", servers},
	    {"stats", stats},
	    {NULL, NULL},
	};

	luaL_newlibtable(L, functions);
	lua_pushvalue(L, lua_upvalueindex(1));
	luaL_setfuncs(L, functions, 1);
	return 1;
}

void
control_preload(struct host *h, lua_State *L)
{
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
	lua_pushlightuserdata(L, h);
	lua_pushcclosure(L, open_control, 1);
	lua_setfield(L, -2, NAME);
	lua_pop(L, 1);
}

/* The bindings of the control API's states, which the host's own engine runs. */
static int
open_bindings(lua_State *L)
{
	preload_moonport(L);
	control_preload(LIST_ENTRY(sched_of(L), struct host, engine.sched), L);
	return 0;
}

int
control_load(struct control *c, struct host *h, const char *path, const struct attrs *a,
	     char *why, size_t size)
{
	struct script *sc;
	int rc;

	h->control = c;
	c->api = NULL;
	rc = host_load(h, path, a, open_bindings, &sc, why, size);
	if (rc < 0)
		return rc;
	c->unit = unit_new(h, sc);
	if (!c->unit) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	c->unit->open = open_bindings;
	return 0;
}

bool
control_owns(const struct host *h, const struct unit *u)
{
	return h->control && h->control->unit == u;
}
