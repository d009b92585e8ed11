#include "module/start.h"

#include "base/clock.h"
#include "module/started.h"
#include "script/script.h"
#include "server/policy.h"
#include "server/server.h"
#include "server/stats.h"
#include "server/unit.h"

#include <lauxlib.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char META[] = "moonport.started", WHO[] = "moonport.start";

/* Requests that are under way when a server is told to stop get this long, unless the
 * options or the script say otherwise: a client that merely keeps its connection open
 * should not hold up a test suite. */
static const double DRAIN = 1;

static struct started *
check(lua_State *L)
{
	return *(struct started **)luaL_checkudata(L, 1, META);
}

/* server:shutdown(): stops accepting, lets requests end (drain_timeout, 1 s), and waits
 * for that. */
static int
started_shutdown(lua_State *L)
{
	started_finish(check(L));
	return 0;
}

static int
started_gc(lua_State *L)
{
	struct started **p = luaL_checkudata(L, 1, META), *st = *p;

	if (!st)
		return 0;
	*p = NULL;
	if (started_free(st))
		free(st);
	return 0;
}

/* server:stats() -> a table of counters, of all listeners */
static int
started_stats(lua_State *L)
{
	struct started *st = check(L);
	struct stats sum = {0}, one;
	const struct io *io = &st->host.engine.io;
	uint64_t n = 0;

	if (!st->runs)
		return luaL_error(L, "the server is stopped");
	for (struct list *l = st->host.servers.next; l != &st->host.servers; l = l->next) {
		stats_read(LIST_ENTRY(l, struct server, link), &one);
		counters_add(&sum.counters, &one.counters);
		n++;
		sum.active += one.active;
		sum.drops += one.drops;
		sum.generations = one.generations;
		sum.reloads = one.reloads;
		sum.failed_reloads = one.failed_reloads;
	}
	/* The engine's bytes are all listeners': each has told them. */
	count_set(&sum.counters.bytes_in,
		  count_get(&sum.counters.bytes_in) - (n - 1) * count_get(&io->bytes_in));
	count_set(&sum.counters.bytes_out,
		  count_get(&sum.counters.bytes_out) - (n - 1) * count_get(&io->bytes_out));
	stats_push(L, &sum);
	return 1;
}

/* A reload that another thread waits for. */
struct awaited {
	struct started *started;
	struct reload_ask ask;
	pthread_mutex_t mutex;
	pthread_cond_t over;
	bool done;
	unsigned number;
	char why[SCRIPT_ERROR];
};

static void
reload_told(struct reload_ask *a, unsigned number, const char *why)
{
	struct awaited *w = LIST_ENTRY(a, struct awaited, ask);

	pthread_mutex_lock(&w->mutex);
	w->number = number;
	snprintf(w->why, sizeof(w->why), "%s", why ? why : "");
	w->done = true;
	pthread_cond_signal(&w->over);
	pthread_mutex_unlock(&w->mutex);
}

/* On the server's thread. */
static void
reload(void *arg)
{
	struct awaited *w = arg;
	struct host *h = &w->started->host;

	reload_ask(LIST_ENTRY(h->units.next, struct unit, link), &w->ask);
}

/* Until it is told; or until the server has stopped by itself before it was asked. */
static void
wait_for(struct awaited *w)
{
	struct timespec t;
	int64_t until;

	pthread_mutex_lock(&w->mutex);
	while (!w->done && !w->started->over) {
		clock_gettime(CLOCK_REALTIME, &t);
		until = t.tv_sec * CLOCK_SECOND + t.tv_nsec + 20 * CLOCK_MS;
		t = (struct timespec){until / CLOCK_SECOND, until % CLOCK_SECOND};
		pthread_cond_timedwait(&w->over, &w->mutex, &t);
	}
	if (!w->done)
		snprintf(w->why, sizeof(w->why), "the server is stopped");
	pthread_mutex_unlock(&w->mutex);
}

/* server:reload() -> the new generation's number, or nil and why the old one stays */
static int
started_reload(lua_State *L)
{
	struct awaited w = {.started = check(L),
			    .ask.told = reload_told,
			    .mutex = PTHREAD_MUTEX_INITIALIZER,
			    .over = PTHREAD_COND_INITIALIZER};

	if (!w.started->runs)
		return luaL_error(L, "the server is stopped");
	list_init(&w.ask.link);
	if (loop_post(w.started->host.engine.loop, reload, &w) < 0)
		return luaL_error(L, "not enough memory");
	wait_for(&w);
	if (w.number > 0) {
		lua_pushinteger(L, w.number);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, w.why);
	return 2;
}

static int
started_tostring(lua_State *L)
{
	luaL_checkudata(L, 1, META);
	lua_getiuservalue(L, 1, 1);
	lua_getfield(L, -1, "class");
	lua_getfield(L, -2, "url");
	lua_pushfstring(L, "%s (%s)", luaL_tolstring(L, -2, NULL), lua_tostring(L, -1));
	return 1;
}

/* Keeps the servers' places: those of the first are the object's own fields. */
static void
keep_places(lua_State *L, struct started *st, int object)
{
	int n = 0;

	for (struct list *l = st->host.servers.next; l != &st->host.servers; l = l->next) {
		started_push_place(L, LIST_ENTRY(l, struct server, link));
		if (++n == 1) {
			lua_pushvalue(L, -1);
			lua_setiuservalue(L, object, 1);
			lua_newtable(L);
			lua_pushvalue(L, -2);
			lua_rawseti(L, -2, 1);
			lua_pushvalue(L, -1);
			lua_setfield(L, -3, "servers");
			lua_replace(L, -2);
		} else
			lua_rawseti(L, -2, n);
	}
	lua_pop(L, 1);
}

static void
read_options(lua_State *L, struct started *st)
{
	for (lua_pushnil(L); lua_next(L, 2);) {
		const char *name =
		    lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
		if (strcmp(name, "mixin") == 0) {
			st->policy = policy_find(started_string(L, WHO, "mixin"));
			if (!st->policy)
				luaL_error(L,
					   "moonport.start: mixin must be async, threading "
					   "or sync");
			lua_pop(L, 1);
		} else if (strcmp(name, "options") == 0)
			started_read_attributes(L, st, WHO);
		else if (strcmp(name, "log_level") == 0)
			started_read_level(L, st, WHO);
		else if (strcmp(name, "listen") == 0)
			lua_pop(L, 1);
		else
			luaL_error(L,
				   "moonport.start: unknown option %s; there are listen, "
				   "mixin, options and log_level",
				   name);
	}
	if (st->policy->forks)
		luaL_error(L,
			   "moonport.start cannot fork: the server runs on a thread beside "
			   "yours; use mixin = \"async\" or \"threading\", or "
			   "socketserver's Forking classes");
}

static void
add(lua_State *L, struct started *st, const char *script)
{
	char why[SCRIPT_ERROR];
	struct server *s;
	struct url url;
	size_t n;
	const char *text = started_string(L, WHO, "listen");

	n = strlen(text);
	if (url_parse(text, n, &url, why, sizeof(why)) < 0 ||
	    host_add(&st->host, script, &url, st->policy, &st->attrs, &s, why,
		     sizeof(why)) < 0)
		luaL_error(L, "moonport.start: %s", why);
}

static void
add_all(lua_State *L, struct started *st, const char *script)
{
	if (lua_isnoneornil(L, 2) || lua_getfield(L, 2, "listen") == LUA_TNIL)
		lua_pushliteral(L, "tcp://127.0.0.1:0");
	if (!lua_istable(L, -1)) {
		add(L, st, script);
		return;
	}
	if (lua_rawlen(L, -1) == 0)
		luaL_error(L, "moonport.start: listen must name at least one URL");
	for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
		add(L, st, script);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* Runs protected, with a host that its caller frees on an error.  Arguments: script,
 * options, the object. */
static int
set_up(lua_State *L)
{
	struct started *st = *(struct started **)lua_touserdata(L, 3);
	char why[SCRIPT_ERROR];

	add_all(L, st, luaL_checkstring(L, 1));
	keep_places(L, st, 3);
	if (host_begin(&st->host, why, sizeof(why)) < 0)
		luaL_error(L, "moonport.start: %s", why);
	return 0;
}

/* server.url and its like, server:reload(), server:shutdown(), server:stats() */
static struct started *
new_started(lua_State *L)
{
	static const luaL_Reg methods[] = {{"reload", started_reload},
					   {"shutdown", started_shutdown},
					   {"stats", started_stats},
					   {NULL, NULL}};
	static const luaL_Reg meta[] = {{"__tostring", started_tostring},
					{"__close", started_shutdown},
					{"__gc", started_gc},
					{NULL, NULL}};
	struct started **object = lua_newuserdatauv(L, sizeof(*object), 1), *st;

	*object = NULL;
	started_set_class(L, META, methods, meta); /* from here on its finalizer frees */
	*object = st = calloc(1, sizeof(*st));
	if (!st)
		luaL_error(L, "not enough memory");
	started_init(st);
	st->attrs.drain_timeout = DRAIN;
	return st;
}

int
module_start(lua_State *L)
{
	struct started *st;

	luaL_checkstring(L, 1);
	lua_settop(L, 2);
	if (!lua_isnil(L, 2))
		luaL_checktype(L, 2, LUA_TTABLE);
	st = new_started(L);
	if (!lua_isnil(L, 2))
		read_options(L, st);
	started_run(L, st, set_up, WHO);
	lua_settop(L, 3);
	return 1;
}
