#include "bind/lspawn.h"

#include "bind/stream.h"
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
	lua_pushcfunction(L, state_traceback);
	lua_insert(L, 1);
	return ran(L, lua_pcallk(L, lua_gettop(L) - 2, 0, 1, 0, ran), 0);
}

static int
give_error(lua_State *L)
{
	(void)L;
	return 1;
}

/* Its error is what the limit has to say. */
static int
overran(struct task *t, lua_State *L)
{
	lua_pushcfunction(L, give_error);
	slice_push_error(L, t->co, t->cpu);
	return 1;
}

static void
ended(struct task *t, int status)
{
	if (t->stream)
		stream_forget(t->stream, t);
	if ((status != LUA_OK || lua_gettop(t->co) > 0) && t->sched->stray)
		t->sched->stray(t);
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
	struct task *t = running(L), *c;

	luaL_checktype(L, 1, LUA_TFUNCTION);
	c = task_new_beside(t);
	if (!c)
		return luaL_error(L, "not enough memory");
	if (!lua_checkstack(c->co, n + 1)) {
		task_kill(c);
		return luaL_error(L, "not enough memory");
	}
	c->ended = ended;
	c->overran = overran;
	lua_pushcfunction(c->co, course);
	lua_xmove(L, c->co, n);
	task_start_soon(c, n);
	return 0;
}
