#include "script/state.h"

#include "script/coro.h"
#include "script/files.h"
#include "script/lerror.h"
#include "script/sources.h"
#include "script/task.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <malloc.h>
#include <string.h>

/* tostring() in protected mode: a throwing __tostring must not end the report.  The
 * address of an object would tell nobody anything. */
static int
protected_tostring(lua_State *L)
{
	if (lua_type(L, 1) > LUA_TSTRING && !luaL_getmetafield(L, 1, "__tostring")) {
		lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
		return 1;
	}
	luaL_tolstring(L, 1, NULL);
	return 1;
}

void
state_push_text(lua_State *L, int idx)
{
	idx = lua_absindex(L, idx);
	lua_pushcfunction(L, protected_tostring);
	lua_pushvalue(L, idx);
	if (lua_pcall(L, 1, 1, 0) == LUA_OK)
		return;
	lua_pop(L, 1);
	lua_pushfstring(L, "(error value: a %s whose __tostring failed)",
			luaL_typename(L, idx));
}

int
state_traceback(lua_State *L)
{
	if (lerror_code(L, 1)) {
		lerror_add_traceback(L, 1);
		return 1;
	}
	state_push_text(L, 1);
	lua_pushliteral(L,
			"\n"); /* not by luaL_traceback(): the text may have a NUL in it */
	luaL_traceback(L, L, NULL, 1);
	lua_concat(L, 3);
	return 1;
}

int
state_call(lua_State *L, int nargs, int nresults)
{
	int at = lua_gettop(L) - nargs, status;

	lua_pushcfunction(L, state_traceback);
	lua_insert(L, at);
	status = lua_pcall(L, nargs, nresults, at);
	lua_remove(L, at);
	return status;
}

int
state_try(lua_State *L, int nargs, int nresults)
{
	return lua_pcall(L, nargs, nresults, 0);
}

/* load() as Lua's own, but for text only: bytecode can break out of any sandbox. */
static int
text_load(lua_State *L)
{
	int n = lua_gettop(L) < 4
		    ? 3
		    : 4; /* a fourth argument, nil or not, is the environment */

	lua_settop(L, n);
	lua_pushliteral(L, "t");
	lua_replace(L, 3);
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, n, LUA_MULTRET);
	return lua_gettop(L);
}

static int
text_loadfile(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	int has_env = lua_gettop(L) >= 3;

	if (luaL_loadfilex(L, name, "t") != LUA_OK) {
		luaL_pushfail(L);
		lua_insert(L, -2);
		return 2;
	}
	if (has_env) {
		lua_pushvalue(L, 3);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

static int
dofile_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return lua_gettop(L) - 1;
}

static int
text_dofile(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	lua_settop(L, 1);
	if (luaL_loadfilex(L, name, "t") != LUA_OK)
		return lua_error(L);
	lua_callk(L, 0, LUA_MULTRET, 0, dofile_k);
	return dofile_k(L, LUA_OK, 0);
}

/* The searcher for Lua modules, text only. */
static int
text_searcher(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1), *file;

	file = sources_module(L, name);
	if (file)
		lua_pushstring(L, file);
	else {
		lua_getglobal(L, "package");
		lua_getfield(L, -1, "searchpath");
		lua_pushstring(L, name);
		lua_getfield(L, -3, "path");
		lua_call(L, 2, 2);
		if (lua_isnil(L, -2))
			return 1; /* what was tried */
		lua_pop(L, 1);
	}
	file = lua_tostring(L, -1);
	if (sources_load(L, name, file) != LUA_OK &&
	    strstr(lua_tostring(L, -1), "binary chunk"))
		return luaL_error(
		    L,
		    "module '%s' (%s) is precompiled Lua; modules are loaded as text only",
		    name, file);
	if (lua_isstring(L, -1))
		return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s",
				  name, file, lua_tostring(L, -1));
	lua_insert(L, -2);
	return 2;
}

/* Argument 1: what to put before package.path, as a light userdata, for outside of here
 * making a string would be fatal without memory; 2: the function that opens more. */
static int
open_libraries(lua_State *L)
{
	luaL_openlibs(L);
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	luaopen_moonport_coroutine(L);
	lua_pushvalue(L, -1);
	lua_setglobal(L, "coroutine");
	lua_setfield(L, -2, "coroutine");
	lua_pop(L, 1);
	lua_getglobal(L, "load");
	lua_pushcclosure(L, text_load, 1);
	lua_setglobal(L, "load");
	files_watch(L);
	lua_register(L, "loadfile", text_loadfile);
	lua_register(L, "dofile", text_dofile);
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	lua_pushcfunction(L, text_searcher);
	lua_rawseti(L, -2, 2);
	lua_pop(L, 1);
	if (lua_touserdata(L, 1)) {
		lua_pushstring(L, lua_touserdata(L, 1));
		lua_getfield(L, -2, "path");
		lua_concat(L, 2);
		lua_setfield(L, -2, "path");
	}
	lua_pop(L, 1);
	if (!lua_isnil(L, 2)) {
		lua_pushvalue(L, 2);
		lua_call(L, 0, 0);
	}
	return 0;
}

/* Garbage that may pile up before a small heap is collected.  Less, and the standard
 * libraries are marked too often; more, and new strings are cold memory every time. */
enum { GARBAGE = 512 * 1024 };

/* A state that held this much leaves holes worth giving back to the system. */
enum { MUCH = 4 * 1024 * 1024 };

void
state_tune(struct state *st)
{
	size_t live = st->alloc.low ? st->alloc.low : 1;
	size_t pause = 100 + 100 * GARBAGE / live;

	st->alloc.low = st->alloc.used;
	pause = pause < 200 ? 200 : pause > 1000 ? 1000 : pause;
	if (st->alloc.limit && pause > st->alloc.limit / 2 * 100 / live)
		pause = st->alloc.limit / 2 * 100 / live; /* buffers cannot wait for it */
	pause = pause < 110 ? 110 : pause;
	if (st->pause < 0 || (int)pause == st->pause)
		return;
	st->pause = (int)pause;
	if (lua_gc(st->L, LUA_GCINC, (int)pause, 0, 0) == LUA_GCGEN) {
		lua_gc(st->L, LUA_GCGEN, 0, 0); /* the script's choice stands */
		st->pause = -1;
	}
}

void
state_relieve(struct state *st)
{
	size_t before;

	st->alloc.refused = false;
	do { /* each collection makes the table of all strings smaller by half */
		before = st->alloc.used;
		lua_gc(st->L, LUA_GCCOLLECT);
	} while (st->alloc.used < before - before / 4);
	malloc_trim(0); /* what is free lies below what lives: only this gives it back */
}

int
state_open(struct state *st, struct sched *s, size_t limit, const char *path,
	   lua_CFunction open)
{
	*st = (struct state){0};
	alloc_init(&st->alloc, limit);
	st->L = lua_newstate(alloc_realloc, &st->alloc);
	if (!st->L) {
		alloc_free(&st->alloc);
		return -ENOMEM;
	}
	sched_attach(st->L, s);
	lua_pushcfunction(st->L, open_libraries);
	lua_pushlightuserdata(st->L, (void *)path);
	if (open)
		lua_pushcfunction(st->L, open);
	else
		lua_pushnil(st->L);
	if (state_call(st->L, 2, 0) != LUA_OK) {
		state_close(st);
		return -ENOMEM;
	}
	st->alloc.low = st->alloc.used;
	state_tune(st);
	return 0;
}

void
state_close(struct state *st)
{
	size_t held = st->alloc.used;

	if (st->L)
		lua_close(st->L);
	st->L = NULL;
	alloc_free(&st->alloc);
	if (held > MUCH)
		malloc_trim(0);
}
