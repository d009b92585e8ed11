#include "script/finalizer.h"

#include "script/coro.h"
#include "script/lerror.h"
#include "script/meter.h"
#include "script/slice.h"
#include "script/state.h"
#include "script/task.h"

#include <lauxlib.h>
#include <string.h>

/* The registry's key of a coroutine for the next finalizer. */
static const char KEY = 0;

/* False: a script has called it by itself. */
static bool
called_by_collector(lua_State *L)
{
	lua_Debug ar;

	if (!lua_getstack(L, 0, &ar) || !lua_getinfo(L, "n", &ar) || !ar.name)
		return false;
	/* "hook": it collects while the host's hook runs, where Lua names no other reason.
	 */
	return strcmp(ar.namewhat, "hook") == 0 ||
	       (*ar.namewhat == 'm' && strcmp(ar.name, "__gc") == 0);
}

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

/* Pushes where the script's function was defined. */
static void
push_place(lua_State *L)
{
	lua_Debug ar;

	if (!lua_isfunction(L, lua_upvalueindex(1))) {
		lua_pushliteral(L, "__call");
		return;
	}
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_getinfo(L, ">S", &ar);
	lua_pushfstring(L, "%s:%d", ar.short_src, ar.linedefined);
}

static bool
is_banned(lua_State *L)
{
	int top = lua_gettop(L);
	bool banned = false;

	if (lua_rawgetp(L, LUA_REGISTRYINDEX, BANNED) == LUA_TTABLE) {
		push_place(L);
		banned = lua_rawget(L, -2) != LUA_TNIL;
	}
	lua_settop(L, top);
	return banned;
}

static void
ban(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, BANNED) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, BANNED);
	}
	push_place(L);
	lua_pushboolean(L, 1);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}

static int
results(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return lua_gettop(L);
}

/* __gc: calls the script's function, which is upvalue 1, with the object. */
static int
finalize(lua_State *L)
{
	struct sched *s = sched_of(L);
	lua_State *co;
	int status;

	if (!s || s->final.runs_now || !called_by_collector(L)) {
		lua_pushvalue(L, lua_upvalueindex(1));
		lua_insert(L, 1);
		lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, results);
		return lua_gettop(L);
	}
	if (is_banned(L))
		return 0;
	lua_settop(L, 1);
	co = take_coroutine(L);
	if (!begin(s))
		return 0;
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 2);
	status = coro_apart(L, co, 1, "__gc");
	end(s);
	if (status != LUA_OK) {
		const char *code;
		lua_xmove(co, L, 1);
		code = lerror_code(L, -1);
		if (code && strcmp(code, "cpu_limit") == 0)
			ban(L);
		state_push_text(L, -1); /* a warning takes nothing else */
		return lua_error(L);
	}
	lua_settop(co, 0);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &KEY);
	return 0;
}

/* The value on top of the stack can be called, and is no finalize() already. */
static bool
is_callable(lua_State *L)
{
	if (lua_isfunction(L, -1))
		return lua_tocfunction(L, -1) != finalize;
	if (luaL_getmetafield(L, -1, "__call") == LUA_TNIL)
		return false;
	lua_pop(L, 1);
	return true;
}

/* The metatable at idx. */
static void
wrap(lua_State *L, int idx)
{
	lua_pushliteral(L, "__gc");
	lua_rawget(L, idx);
	if (is_callable(L)) {
		lua_pushcclosure(L, finalize, 1);
		lua_pushliteral(L, "__gc");
		lua_insert(L, -2);
		lua_rawset(L, idx);
	} else
		lua_pop(L, 1);
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
	lua_settop(L, 2);
	if (type == LUA_TTABLE)
		wrap(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

/* debug.setmetatable(value, metatable) */
static int
debug_set_metatable(lua_State *L)
{
	int type = lua_type(L, 2);

	luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
	lua_settop(L, 2);
	if (type == LUA_TTABLE)
		wrap(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

void
finalizer_guard(lua_State *L)
{
	lua_register(L, "setmetatable", set_metatable);
	lua_getglobal(L, "debug");
	lua_pushcfunction(L, debug_set_metatable);
	lua_setfield(L, -2, "setmetatable");
	lua_pop(L, 1);
}
