#include "script/finalizer.h"

#include "script/coro.h"
#include "script/lerror.h"
#include "script/meter.h"
#include "script/slice.h"
#include "script/state.h"
#include "script/task.h"

#include <lauxlib.h>
#include <string.h>

/* The registry's keys: of a coroutine for the next finalizer; of the companions, by their
 * objects, which are weak keys; of the companions' metatable. */
static const char KEY = 0, COMPANIONS = 0, META = 0;

const char finalizer_leave[] = "leave";

/* Leaves it on the stack. */
static lua_State *
take_coroutine(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &KEY) == LUA_TTHREAD) {
		lua_pushnil(L); /* after an error it is of no more use */
		lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
		return lua_tothread(L, -1);
	}
	lua_pop(L, 1);
	return lua_newthread(L);
}

static int64_t *
used(struct sched *s)
{
	return s->current ? &s->current->final : &s->final.used;
}

/* Begins to count; false: nothing is left of the allowance. */
static bool
begin(struct sched *s)
{
	if (!s->current && s->final.run != s->runs) {
		s->final.run = s->runs;
		s->final.used = 0;
	}
	if (*used(s) >= s->allowance.limit)
		return false;
	s->final.began = s->meter ? meter_now() : 0;
	s->final.runs_now = true;
	return true;
}

static void
end(struct sched *s)
{
	int64_t spent = s->meter ? meter_now() - s->final.began : 0;

	s->final.runs_now = false;
	*used(s) += spent;
	if (s->meter)
		meter_forgive(s->meter, spent);
}

/* The registry's key of a table: where functions stand that have gone past the limit. There
 * may be thousands of objects of one kind, and each would use up what there is. */
static const char BANNED[] = "moonport.finalizers";

/* Pushes where the function at idx was defined. */
static void
push_place(lua_State *L, int idx)
{
	lua_Debug ar;

	if (!lua_isfunction(L, idx)) {
		lua_pushliteral(L, "__call");
		return;
	}
	lua_pushvalue(L, idx);
	lua_getinfo(L, ">S", &ar);
	lua_pushfstring(L, "%s:%d", ar.short_src, ar.linedefined);
}

static bool
is_banned(lua_State *L, int idx)
{
	int top = lua_gettop(L);
	bool banned = false;

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, BANNED) == LUA_TTABLE) {
		push_place(L, idx);
		banned = lua_rawget(L, -2) != LUA_TNIL;
	}
	lua_settop(L, top);
	return banned;
}

static void
ban(lua_State *L, int idx)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, BANNED) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, BANNED);
	}
	push_place(L, idx);
	lua_pushboolean(L, 1);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}

/* Pushes what the metatable of the value at idx has as __gc, or nil. */
static void
push_finalizer(lua_State *L, int idx)
{
	if (!lua_getmetatable(L, idx)) {
		lua_pushnil(L);
		return;
	}
	lua_pushliteral(L, "__gc");
	lua_rawget(L, -2);
	lua_remove(L, -2);
}

/* The object may get another companion. */
static void
part(lua_State *L, int object)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &COMPANIONS);
	lua_pushvalue(L, object);
	lua_pushnil(L);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}

enum { OBJECT = 1, FINALIZER };

/* A companion's own __gc. */
static int
finalize(lua_State *L)
{
	struct sched *s = sched_of(L);
	lua_State *co;
	int status;

	lua_settop(L, 1);
	lua_getiuservalue(L, 1, 1);
	lua_replace(L, OBJECT);
	part(L, OBJECT);
	if (s)
		s->final.some = true;
	push_finalizer(L, OBJECT);
	if (!s || lua_isnil(L, FINALIZER) || is_banned(L, FINALIZER))
		return 0;
	co = take_coroutine(L);
	if (!begin(s))
		return 0;
	lua_pushvalue(L, FINALIZER);
	lua_pushvalue(L, OBJECT);
	lua_xmove(L, co, 2);
	status = coro_apart(L, co, 1, "__gc");
	end(s);
	if (status != LUA_OK) {
		const char *code;
		lua_xmove(co, L, 1);
		code = lerror_code(L, -1);
		if (code && strcmp(code, "cpu_limit") == 0)
			ban(L, FINALIZER);
		state_push_text(L, -1); /* a warning takes nothing else */
		return lua_error(L);
	}
	lua_settop(co, 0);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
	return 0;
}

static void
give_companion(lua_State *L, int object)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &COMPANIONS);
	lua_pushvalue(L, object);
	if (lua_rawget(L, -2) == LUA_TNIL) {
		lua_pushvalue(L, object);
		lua_newuserdatauv(L, 0, 1);
		lua_pushvalue(L, object);
		lua_setiuservalue(L, -2, 1);
		lua_pushvalue(L, -1);
		lua_insert(L, -3);
		lua_rawset(L, -5); /* from here on it is the object's */
		lua_rawgetp(L, LUA_REGISTRYINDEX, &META);
		lua_setmetatable(L, -2);
	}
	lua_settop(L, 2);
}

/* Whether the value can have a finalizer, and the metatable at 2 has one. */
static bool
is_finalizable(lua_State *L)
{
	int type = lua_type(L, 1);
	bool has;

	if ((type != LUA_TTABLE && type != LUA_TUSERDATA) || !lua_istable(L, 2))
		return false;
	lua_pushliteral(L, "__gc");
	has = lua_rawget(L, 2) != LUA_TNIL;
	lua_pop(L, 1);
	return has;
}

/* The value at 1 gets the metatable at 2; Lua sees no __gc in that meanwhile, and so does
 * not note the value as one to be finalized. */
static int
set_guarded(lua_State *L)
{
	lua_settop(L, 2);
	if (!is_finalizable(L)) {
		lua_setmetatable(L, 1);
		return 1;
	}
	give_companion(L, 1);
	lua_pushliteral(L, "__gc");
	lua_pushvalue(L, -1);
	lua_rawget(L, 2);
	lua_pushvalue(L, 3);
	lua_pushnil(L);
	lua_rawset(L, 2);
	lua_pushvalue(L, 2);
	lua_setmetatable(L, 1);
	lua_rawset(L, 2); /* its place is still there: this needs no memory */
	lua_settop(L, 1);
	return 1;
}

/* The value at 1 is about to get another metatable than the one that it has, if any. */
static void
leave(lua_State *L)
{
	int top = lua_gettop(L);

	if (lua_getmetatable(L, 1) &&
	    lua_rawgetp(L, -1, finalizer_leave) == LUA_TFUNCTION) {
		lua_pushvalue(L, 1);
		lua_call(L, 1, 0);
	}
	lua_settop(L, top);
}

/* setmetatable(table, metatable) */
static int
set_metatable(lua_State *L)
{
	int type = lua_type(L, 2);

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
	if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "cannot change a protected metatable");
	leave(L);
	return set_guarded(L);
}

/* debug.setmetatable(value, metatable) */
static int
debug_set_metatable(lua_State *L)
{
	int type = lua_type(L, 2);

	luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
	leave(L);
	return set_guarded(L);
}

bool
finalizer_is_guarded(lua_State *L)
{
	bool guarded = lua_rawgetp(L, LUA_REGISTRYINDEX, &COMPANIONS) == LUA_TTABLE;

	lua_pop(L, 1);
	return guarded;
}

void
finalizer_set_metatable(lua_State *L)
{
	int meta = lua_gettop(L);
	bool guarded;

	lua_pushliteral(L, "__gc");
	guarded = lua_rawget(L, meta) != LUA_TNIL && finalizer_is_guarded(L);
	lua_settop(L, meta);
	if (!guarded) {
		lua_setmetatable(L, meta - 1);
		return;
	}
	lua_pushcfunction(L, set_guarded);
	lua_insert(L, meta - 1);
	lua_call(L, 2, 1);
}

/* What getmetatable() gives for a file: a copy, since a __gc put into the metatable itself
 * would run for every file, out of reach. */
static void
hide_files(lua_State *L)
{
	luaL_getmetatable(L, LUA_FILEHANDLE);
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, -3);) {
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, -4);
	}
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

void
finalizer_guard(lua_State *L)
{
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushliteral(L, "k");
	lua_setfield(L, -2, "__mode");
	lua_setmetatable(L, -2);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &COMPANIONS);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, finalize);
	lua_setfield(L, -2, "__gc");
	lua_rawsetp(L, LUA_REGISTRYINDEX, &META);
	hide_files(L);
	lua_register(L, "setmetatable", set_metatable);
	lua_getglobal(L, "debug");
	lua_pushcfunction(L, debug_set_metatable);
	lua_setfield(L, -2, "setmetatable");
	lua_pop(L, 1);
}
