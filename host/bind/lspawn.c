#include "bind/lspawn.h"

#include "bind/stream.h"
#include "script/script.h"
#include "script/slice.h"
#include "script/state.h"
#include "script/task.h"

#include <lauxlib.h>

static int
ran(lua_State *L, int status, lua_KContext ctx)
{
	(void)L, (void)ctx;
	return status == LUA_OK || status == LUA_YIELD ? 0 : 1;
}

/* The whole of a companion.  Arguments: a function and its own.  Returns nothing, or the
 * error. */
static int
course(lua_State *L)
{
	lua_pushcfunction(L, state_observe);
	lua_insert(L, 1);
	return ran(L, lua_pcallk(L, lua_gettop(L) - 2, 0, 1, 0, ran), 0);
}

/* What the limit has to say is told at once: its __close may have the task end that it is
 * beside.  Nothing runs in its place. */
static int
overran(struct task *t, lua_State *L)
{
	slice_push_error(L, t->co, task_cpu(t));
	t->script->sched->stray(t, L);
	return -1;
}

static void
ended(struct task *t, int status)
{
	if (t->stream)
		stream_forget(t->stream, t);
	if (status == LUA_OK && lua_gettop(t->co) == 0)
		return;
	lua_xmove(t->co, t->script->state.L, 1);
	t->script->sched->stray(t, t->script->state.L);
}

/* The task that is to have a companion; a finalizer runs in anybody's. */
static struct task *
running(lua_State *L)
{
	struct sched *s = sched_of(L);

	if (!s || !s->current || s->current->chore || s->final.runs_now)
		luaL_error(
		    L,
		    "moonport.spawn is for a running request: it was called while none was "
		    "running (a script being loaded, save, init or a finalizer)");
	return s->current;
}

int
moonport_spawn(lua_State *L)
{
	int n = lua_gettop(L);
	static const struct task_kind kind = {.ended = ended, .overran = overran};
	struct task *t = running(L), *c;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	c = task_new_beside(t, &kind);
	if (!c || !lua_checkstack(c->co, n + 1)) {
		if (c)
			task_kill(c);
		lua_pushliteral(L, "not enough memory"); /* as Lua itself says it */
		return lua_error(L);
	}
	lua_pushcfunction(c->co, course);
	lua_xmove(L, c->co, n);
	task_start_soon(c);
	return 0;
}
