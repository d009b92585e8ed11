#include "script/coro.h"

#include "base/stack.h"
#include "script/task.h"
#include "script/trace.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A state's extra space holds its scheduler; the lowest bits mark a coroutine that stands
 * in a wait, which nobody but the scheduler may resume, one that is spent, and one in
 * which a hook has raised an error: Lua lets no other hook fire there any more. */
enum { WAITING = 1, SPENT = 2, DOOMED = 4, BITS = 7 };

static uintptr_t *
space_of(lua_State *L)
{
	return lua_getextraspace(L);
}

void
coro_mark_new(lua_State *co)
{
	*space_of(co) &= ~(uintptr_t)BITS;
}

void
coro_mark_waiting(lua_State *co, int waiting)
{
	*space_of(co) = (*space_of(co) & ~(uintptr_t)WAITING) | (waiting ? WAITING : 0);
}

int
coro_is_waiting(lua_State *co)
{
	return *space_of(co) & WAITING;
}

void
coro_doom(lua_State *co)
{
	*space_of(co) |= DOOMED;
}

int
coro_is_doomed(lua_State *co)
{
	return (*space_of(co) & DOOMED) != 0 && lua_status(co) > LUA_YIELD;
}

int
coro_is_spent(lua_State *co)
{
	return (*space_of(co) & SPENT) != 0;
}

/* The registry's key of a state whose scheduler comes and goes. */
static const char PASSING[] = "moonport.sched";

struct sched *
sched_of(lua_State *L)
{
	uintptr_t space = *space_of(L) & ~(uintptr_t)BITS;
	struct sched *s;

	if (space)
		return (struct sched *)space; // NOLINT: an address that was put there
	lua_rawgetp(L, LUA_REGISTRYINDEX, PASSING);
	s = lua_touserdata(L, -1);
	lua_pop(L, 1);
	return s;
}

void
sched_lend(lua_State *L, struct sched *s)
{
	lua_pushlightuserdata(L, s);
	lua_rawsetp(L, LUA_REGISTRYINDEX, PASSING);
}

void
sched_attach(lua_State *L, struct sched *s)
{
	*space_of(L) = (uintptr_t)s;
}

/* Pushes "table.sort" for the function on top of the stack, if a loaded module has it. */
static int
push_global_name(lua_State *L, int func)
{
	int top = lua_gettop(L);

	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	for (lua_pushnil(L); lua_next(L, top + 1); lua_pop(L, 1)) {
		if (lua_type(L, -2) != LUA_TSTRING || !lua_istable(L, -1))
			continue;
		for (lua_pushnil(L); lua_next(L, top + 3); lua_pop(L, 1)) {
			if (lua_type(L, -2) != LUA_TSTRING || !lua_rawequal(L, -1, func))
				continue;
			if (strcmp(lua_tostring(L, top + 2), "_G") == 0)
				lua_pushvalue(L, -2);
			else
				lua_pushfstring(L, "%s.%s", lua_tostring(L, top + 2),
						lua_tostring(L, -2));
			lua_replace(L, top + 1);
			lua_settop(L, top + 1);
			return 1;
		}
	}
	lua_settop(L, top);
	return 0;
}

static int co_resume(lua_State *L);
static int co_wrapped(lua_State *L);

/* C functions that can be suspended. */
static int
yields(lua_State *L, int func)
{
	static const char *const can[] = {"pcall", "xpcall", "dofile", "require"};
	lua_CFunction f = lua_tocfunction(L, func);
	int known = f == co_resume || f == co_wrapped;

	if (known || !push_global_name(L, func))
		return known;
	for (size_t i = 0; i < sizeof(can) / sizeof(*can); i++)
		known |= strcmp(lua_tostring(L, -1), can[i]) == 0;
	lua_pop(L, 1);
	return known;
}

void
coro_push_culprit(lua_State *L, int level)
{
	lua_Debug ar;

	for (; lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Snf", &ar);
		int func = lua_gettop(L);
		if (*ar.namewhat == 'm' && ar.name && strcmp(ar.name, "__gc") == 0) {
			lua_settop(L, func - 1);
			lua_pushliteral(L, "__gc");
			return;
		}
		if (*ar.what == 'C' && !yields(L, func)) {
			if (!push_global_name(L, func) && ar.name)
				lua_pushstring(L, ar.name);
			if (lua_gettop(L) >
			    func) { /* one without a name has a named one around it */
				lua_remove(L, func);
				return;
			}
		}
		lua_settop(L, func - 1);
	}
	lua_pushliteral(L, "a C function");
}

static lua_State *
check_co(lua_State *L)
{
	lua_State *co = lua_tothread(L, 1);

	luaL_argexpected(L, co, 1, "thread");
	return co;
}

/* The coroutine of a task counts as a main one: only the scheduler may touch it. */
static int
is_task(struct sched *s, lua_State *co)
{
	if (!s)
		return 0;
	if (s->current && s->current->co == co)
		return 1;
	return coro_is_waiting(co);
}

enum { CO_RUN, CO_DEAD, CO_SUSPENDED, CO_NORMAL };

static int
status_of(lua_State *L, lua_State *co)
{
	lua_Debug ar;

	if (L == co)
		return CO_RUN;
	if (is_task(sched_of(L), co))
		return CO_NORMAL;
	switch (lua_status(co)) {
	case LUA_YIELD:
		return CO_SUSPENDED;
	case LUA_OK:
		if (lua_getstack(co, 0, &ar))
			return CO_NORMAL;
		return lua_gettop(co) == 0 ? CO_DEAD : CO_SUSPENDED;
	default:
		return CO_DEAD;
	}
}

static int finish_resume(lua_State *L, lua_State *co, int status, int nres);

/* The continuation of a resume whose coroutine had to wait: it goes on there. */
static int resume_k(lua_State *L, int status, lua_KContext ctx);

/* Resumes co with the n values on its stack.  L: stack as co_resume() or co_wrapped() left
 * it. */
static int
drive(lua_State *L, lua_State *co, int n, lua_KContext wrapped)
{
	struct sched *s = sched_of(L);
	lua_State *running = NULL, *barrier = NULL;
	int status, nres = 0;

	if (s) {
		running = s->running;
		barrier = s->barrier;
		if (!barrier && !lua_isyieldable(L))
			s->barrier = L;
		s->running = co;
	}
	if (s)
		slice_pass_on(co, s);
	status = lua_resume(co, L, n, &nres);
	if (s) {
		s->running = running;
		s->barrier = barrier;
		slice_pass_on(L, s);
		if (status == LUA_YIELD && s->parked) {
			coro_mark_waiting(co, 1);
			return lua_yieldk(L, 0, wrapped, resume_k);
		}
	}
	if (wrapped)
		return finish_resume(L, co, status, nres);
	if (status == LUA_OK || status == LUA_YIELD) {
		if (!lua_checkstack(L, nres + 1)) {
			lua_pop(co, nres);
			lua_pushboolean(L, 0);
			lua_pushliteral(L, "too many results to resume");
			return 2;
		}
		lua_pushboolean(L, 1);
		lua_xmove(co, L, nres);
		return nres + 1;
	}
	lua_pushboolean(L, 0);
	lua_xmove(co, L, 1);
	return 2;
}

/* The coroutine is argument 1 of resume, upvalue 1 of a wrap. */
static int
resume_k(lua_State *L, int status, lua_KContext ctx)
{
	lua_State *co = ctx ? lua_tothread(L, lua_upvalueindex(1)) : lua_tothread(L, 1);

	(void)status;
	coro_mark_waiting(co, 0);
	return drive(L, co, 0, ctx);
}

/* Closing a coroutine does not count as a call through C for Lua 5.4.4: one that closes
 * another, and so on, would go on until the stack is full.  Half of it is left for the
 * 200 calls that each may make. */
static bool
is_deep(const struct sched *s)
{
	const char *here = __builtin_frame_address(0);

	return s->base && (size_t)(s->base - here) > STACK_NEEDED / 2;
}

/* Runs what co still has to close; there it cannot wait. */
static int
close_variables(lua_State *L, lua_State *co, const char *name)
{
	struct sched *s = sched_of(L);
	lua_State *running, *barrier;
	int status;

	if (!s)
		return lua_resetthread(co);
	if (coro_is_doomed(co)) /* what it has to close could not be ended */
		return LUA_ERRRUN;
	if (is_deep(s)) {
		lua_pushliteral(co, "C stack overflow");
		return LUA_ERRRUN;
	}
	running = s->running;
	barrier = s->barrier;
	if (!barrier) {
		s->barrier = L;
		s->barrier_name = name;
	}
	s->running = co;
	status = lua_resetthread(co);
	s->running = running;
	s->barrier = barrier;
	if (!barrier)
		s->barrier_name = NULL;
	return status;
}

/* What wrap does with the outcome: values, or the error again. */
static int
finish_resume(lua_State *L, lua_State *co, int status, int nres)
{
	if (status == LUA_OK || status == LUA_YIELD) {
		if (!lua_checkstack(L, nres))
			return luaL_error(L, "too many results to resume");
		lua_xmove(co, L, nres);
		return nres;
	}
	status = close_variables(L, co, "coroutine.wrap"); /* the error stays on top */
	if (status == LUA_OK)
		lua_pushnil(L);
	else
		lua_xmove(co, L, 1);
	if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
		luaL_where(L, 1);
		lua_insert(L, -2);
		lua_concat(L, 2);
	}
	return lua_error(L);
}

/* Pushes why co cannot be resumed, or returns 0. */
static int
refuse(lua_State *L, lua_State *co)
{
	int status = status_of(L, co);

	if (status == CO_SUSPENDED)
		return 0;
	lua_pushfstring(L, "cannot resume %s coroutine",
			status == CO_DEAD ? "dead" : "non-suspended");
	return 1;
}

static int
co_resume(lua_State *L)
{
	lua_State *co = check_co(L);
	int n = lua_gettop(L) - 1;

	if (refuse(L, co)) {
		lua_pushboolean(L, 0);
		lua_insert(L, -2);
		return 2;
	}
	if (!lua_checkstack(co, n)) {
		lua_pushboolean(L, 0);
		lua_pushliteral(L, "too many arguments to resume");
		return 2;
	}
	lua_xmove(L, co, n);
	return drive(L, co, n, 0);
}

static int
co_wrapped(lua_State *L)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(1));
	int n = lua_gettop(L);

	if (refuse(L, co)) {
		luaL_where(L, 1);
		lua_insert(L, -2);
		lua_concat(L, 2);
		return lua_error(L);
	}
	if (!lua_checkstack(co, n))
		return luaL_error(L, "too many arguments to resume");
	lua_xmove(L, co, n);
	return drive(L, co, n, 1);
}

static int
co_create(lua_State *L)
{
	lua_State *co;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	co = lua_newthread(L);
	coro_mark_new(co);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	return 1;
}

static int
co_wrap(lua_State *L)
{
	co_create(L);
	lua_pushcclosure(L, co_wrapped, 1);
	return 1;
}

int
coro_apart(lua_State *L, lua_State *co, int nargs, const char *name)
{
	struct sched *s = sched_of(L);
	lua_State *running = s->running, *barrier = s->barrier;
	const char *barrier_name = s->barrier_name;
	int status, nres;

	if (!barrier) {
		s->barrier = L;
		s->barrier_name = name;
	}
	s->running = co;
	status = lua_resume(co, L, nargs, &nres);
	s->running = running;
	s->barrier = barrier;
	s->barrier_name = barrier_name;
	if (status == LUA_YIELD) {
		lua_settop(co, 0);
		lua_pushfstring(co, "attempt to yield inside %s", name);
		status = LUA_ERRRUN;
	}
	return status;
}

lua_State *
coro_inner(lua_State *L, lua_State *co)
{
	lua_CFunction f;
	lua_Debug ar;

	if (lua_status(co) != LUA_YIELD || !lua_getstack(co, 0, &ar))
		return NULL;
	lua_getinfo(L, "f", &ar);
	f = lua_tocfunction(L, -1);
	lua_pop(L, 1);
	/* A C function that has yielded still has its arguments there. */
	if (f == co_resume)
		return lua_tothread(co, 1);
	return f == co_wrapped ? lua_tothread(co, lua_upvalueindex(1)) : NULL;
}

void
coro_push_traceback(lua_State *L, lua_State *co)
{
	lua_State *inner = L == co ? NULL : coro_inner(L, co);

	luaL_checkstack(L, 4, "traceback");
	if (inner) {
		coro_push_traceback(L, inner);
		lua_pushliteral(L, "\n");
	}
	trace_push(L, co, 0);
	if (inner)
		lua_concat(L, 3);
}

int
coro_close(lua_State *L, lua_State *co)
{
	struct sched *s = sched_of(L);
	lua_State *inner = coro_inner(L, co);
	int status = LUA_OK;

	if (inner && coro_close(L, inner) != LUA_OK)
		lua_settop(inner, 0);
	coro_mark_waiting(co, 0);
	if (lua_status(co) == LUA_YIELD)
		*space_of(co) |= SPENT;
	lua_sethook(co, NULL, 0, 0);
	s->running = co;
	if (!coro_is_doomed(co))
		status = lua_resetthread(co);
	if (status == LUA_OK)
		lua_settop(co, 0);
	return status;
}

/* The coroutine that a task began in is its main one: a value yielded there has no taker.
 */
static int
is_main(lua_State *L)
{
	struct sched *s = sched_of(L);

	return s && s->current && s->current->co == L;
}

static int co_yield (lua_State *L)
{
	if (is_main(L))
		return luaL_error(L, "attempt to yield from outside a coroutine");
	return lua_yield(L, lua_gettop(L));
}

static int
co_isyieldable(lua_State *L)
{
	lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;

	lua_pushboolean(L, lua_isyieldable(co) && !is_main(co));
	return 1;
}

static int
co_running(lua_State *L)
{
	int main_thread = lua_pushthread(L);

	if (is_main(L)) /* one request's is not to be the next one's */
		*space_of(L) |= SPENT;
	lua_pushboolean(L, main_thread || is_main(L));
	return 2;
}

static int
co_status(lua_State *L)
{
	static const char *const names[] = {"running", "dead", "suspended", "normal"};

	lua_pushstring(L, names[status_of(L, check_co(L))]);
	return 1;
}

static int
co_close(lua_State *L)
{
	static const char *const names[] = {"running", "dead", "suspended", "normal"};
	lua_State *co = check_co(L);
	int status = status_of(L, co);

	if (status != CO_DEAD && status != CO_SUSPENDED)
		return luaL_error(L, "cannot close a %s coroutine", names[status]);
	if (close_variables(L, co, "coroutine.close") == LUA_OK) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lua_pushboolean(L, 0);
	lua_xmove(co, L, 1);
	return 2;
}

int
luaopen_moonport_coroutine(lua_State *L)
{
	static const luaL_Reg functions[] = {
	    {"close", co_close},   {"create", co_create},   {"isyieldable", co_isyieldable},
	    {"resume", co_resume}, {"running", co_running}, {"status", co_status},
	    {"wrap", co_wrap},     {"yield", co_yield },    {NULL, NULL},
	};

	luaL_newlib(L, functions);
	return 1;
}
