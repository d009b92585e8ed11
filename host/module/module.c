/* The Lua module: `require "moonport"` in any Lua 5.4 process.
 *
 * It has what handlers have (connect, sleep, ...), and run(), which gives them a
 * loop.  Loading it changes nothing in the process or the Lua state. */
#include "base/log.h"
#include "base/pool.h"
#include "bind/lmoonport.h"
#include "bind/lresp.h"
#include "bind/stream.h"
#include "module/mocked.h"
#include "module/serving.h"
#include "module/start.h"
#include "script/lerror.h"
#include "script/script.h"
#include "script/task.h"
#include "script/trace.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Everything that one run() needs.  A userdata: sockets that outlive the run refer
 * to it, because their streams are in its pool. */
struct runner {
	struct log log;
	struct loop *loop;
	struct sched sched;
	struct io io;
	struct script
	    *script; /* stands for the caller's own state, which it does not own */
	bool ended;
	int status, nresults;
	lua_State *caller;
};

static const char RUNNER[] = "moonport.runner";

static void
close_stream(void *item)
{
	struct stream *s = item;

	if (s->open)
		stream_free(s);
}

/* Ends the run: closes what is open and frees the loop.  Harmless when repeated. */
static void
stop(lua_State *L, struct runner *r)
{
	if (!r->loop)
		return;
	sched_lend(L, NULL); /* takes no memory: the key is there */
	while (!list_empty(&r->sched.tasks))
		task_kill(LIST_ENTRY(r->sched.tasks.next, struct task, link));
	pool_each(&r->io.streams, close_stream);
	lingers_drop(&r->io.lingers);
	for (int i = 0; i < r->script->nspare; i++)
		luaL_unref(L, LUA_REGISTRYINDEX, r->script->spare[i].ref);
	free(r->script->spare);
	free(r->script);
	sched_free(&r->sched);
	loop_free(r->loop);
	r->loop = NULL;
}

static int
runner_gc(lua_State *L)
{
	struct runner *r = luaL_checkudata(L, 1, RUNNER);

	stop(L, r);
	if (r->io.gather) /* it was opened; sockets may have used it until now */
		io_free(&r->io);
	return 0;
}

/* The first task's results, or its error, move to the caller. */
static void
main_ended(struct task *t, int status)
{
	struct runner *r = t->owner;
	int n = status == LUA_OK ? lua_gettop(t->co) : 1;

	r->ended = true;
	r->status = status;
	if (!lua_checkstack(r->caller, n + 1)) {
		r->status = LUA_ERRMEM;
		return;
	}
	lua_xmove(t->co, r->caller, n);
	r->nresults = n;
}

/* Runs protected.  Arguments: the log, the error value.  It goes to standard error. */
static int
tell_stray(lua_State *L)
{
	struct log_field f[3] = {{0}};
	const char *code = lerror_code(L, 2), *text, *nl;
	size_t n;

	state_push_report(L, 2);
	trace_forget(L, 2);
	text = lua_tolstring(L, -1, &n);
	nl = memmem(text, n, "\nstack traceback:", 17);
	f[0] = log_bytes("error", text, nl ? (size_t)(nl - text) : n);
	if (nl)
		f[1] = log_bytes("traceback", nl + 1, n - (size_t)(nl + 1 - text));
	else if (code && lua_getfield(L, 2, "traceback") == LUA_TSTRING)
		f[1] = log_str("traceback", lua_tostring(L, -1));
	log_event(lua_touserdata(L, 1), LOG_ERROR, "error in a spawned task", f);
	return 0;
}

static void
stray(struct task *companion, lua_State *L)
{
	struct runner *r = companion->owner;

	if (lua_islightuserdata(L, -1)) { /* it has ended with the run */
		lua_pop(L, 1);
		return;
	}
	lua_pushcfunction(L, tell_stray);
	lua_pushlightuserdata(L, &r->log);
	lua_rotate(L, -3, -1);
	if (state_call(L, 2, 0) == LUA_OK)
		return;
	lua_pop(L, 1);
	log_event(&r->log, LOG_ERROR, "error in a spawned task", NULL);
}

static void
push_class(lua_State *L)
{
	if (luaL_getmetatable(L, RUNNER) == LUA_TTABLE)
		return;
	lua_createtable(L, 0, 2);
	lua_pushstring(L, RUNNER);
	lua_setfield(L, -2, "__name");
	lua_pushcfunction(L, runner_gc);
	lua_setfield(L, -2, "__gc");
	lua_pushvalue(L, -1);
	lua_setfield(L, LUA_REGISTRYINDEX, RUNNER); /* only what is whole */
	lua_replace(L, -2);
}

/* All that is not Lua's.  On failure there is nothing. */
static int
open_runner(lua_State *L, struct runner *r)
{
	struct script *sc = calloc(1, sizeof(*sc));
	int rc = sc ? loop_new(&r->loop) : -ENOMEM;

	if (rc < 0) {
		free(sc);
		return rc;
	}
	*sc =
	    (struct script){.sched = &r->sched, .refs = 1, .state = {.L = L, .pause = -1}};
	sched_init(&r->sched, r->loop);
	r->sched.stray = stray;
	rc = io_init(&r->io, &r->sched, &r->log);
	if (rc < 0) {
		loop_free(r->loop);
		r->loop = NULL;
		free(sc);
		return rc;
	}
	r->script = sc;
	return 0;
}

/* A runner on top of the stack, ready to start tasks. */
static struct runner *
new_runner(lua_State *L)
{
	struct runner *r = lua_newuserdatauv(L, sizeof(*r), 0);
	int rc;

	*r = (struct runner){.log = {.fd = STDERR_FILENO, .level = LOG_INFO}, .caller = L};
	push_class(L);
	lua_setmetatable(L, -2); /* from here on its finalizer frees */
	rc = open_runner(L, r);
	if (rc == -ENOMEM)
		luaL_error(L, "not enough memory");
	if (rc < 0)
		luaL_error(L, "moonport.run: %s", strerror(-rc));
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, socket_anchor);
	sched_lend(L, &r->sched);
	return r;
}

/* moonport.run(f, ...) -> f's results: runs f(...) where it may wait, to its end. */
static int
module_run(lua_State *L)
{
	int nargs = lua_gettop(L) - 1, base;
	static const struct task_kind kind = {.ended = main_ended, .grace = TASK_GRACE};
	struct runner *r;
	struct task *t;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	if (sched_of(L))
		return luaL_error(L,
				  "moonport.run is running already: you may simply wait");
	r = new_runner(L);
	lua_insert(L, 1);
	t = task_new(&r->sched, r->script, &kind);
	if (!t || !lua_checkstack(t->co, nargs + 1)) {
		stop(L, r);
		return luaL_error(L, "not enough memory");
	}
	t->owner = r;
	lua_xmove(L, t->co, nargs + 1);
	base = lua_gettop(L);
	task_start(t);
	while (!r->ended)
		loop_turn(r->loop, INT64_MAX);
	stop(L, r);
	if (r->status != LUA_OK)
		return lua_error(L);
	return lua_gettop(L) - base;
}

/* moonport.may_wait() -> whether this runs where it may: in run(), or in a request */
static int
module_may_wait(lua_State *L)
{
	const struct sched *s = sched_of(L);

	lua_pushboolean(L, s && s->current);
	return 1;
}

/* moonport.mock(...), whose Lua is loaded when it is first used. */
static int
module_mock(lua_State *L)
{
	int nargs = lua_gettop(L);

	lua_getglobal(L, "require");
	lua_pushliteral(L, "moonport.mocked");
	lua_call(L, 1, 1);
	lua_insert(L, 1);
	lua_call(L, nargs, 1);
	return 1;
}

__attribute__((visibility("default"))) int luaopen_moonport(lua_State *L);
__attribute__((visibility("default"))) int luaopen_moonport_resp_scan(lua_State *L);

int
luaopen_moonport_resp_scan(lua_State *L)
{
	return open_resp_scan(L);
}

int
luaopen_moonport(lua_State *L)
{
	/* Lua leaves the main thread's extra space as malloc() gave it, and copies it to
	 * each new coroutine; ours says "look in the registry" from here on. */
	lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
	sched_attach(lua_tothread(L, -1), NULL);
	sched_attach(L, NULL);
	lua_pop(L, 1);
	open_moonport(L);
	lua_pushcfunction(L, module_run);
	lua_setfield(L, -2, "run");
	lua_pushcfunction(L, module_start);
	lua_setfield(L, -2, "start");
	lua_pushcfunction(L, module_mocking);
	lua_setfield(L, -2, "mocking");
	lua_pushcfunction(L, module_mock);
	lua_setfield(L, -2, "mock");
	lua_pushcfunction(L, module_may_wait);
	lua_setfield(L, -2, "may_wait");
	open_serving(L);
	lua_setfield(L, -2, "serving");
	return 1;
}
