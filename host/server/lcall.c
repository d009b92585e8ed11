#include "server/lcall.h"

#include "base/clock.h"
#include "script/plain.h"
#include "script/task.h"
#include "server/calls.h"

#include <lauxlib.h>
#include <stdio.h>

static const char META[] = "moonport.call";

/* A userdata on the asking task's stack; what it holds goes with it, whatever happens. */
struct waiting {
	struct task *task;
	struct call *call; /* NULL: answered */
	struct buf data;
	bool failed;
	char why[SCRIPT_ERROR];
};

static void
withdraw(void *arg)
{
	struct waiting *w = arg;

	if (w->call)
		call_withdraw(w->call);
	w->call = NULL;
}

static int
collect(lua_State *L)
{
	struct waiting *w = luaL_checkudata(L, 1, META);

	withdraw(w);
	buf_free(&w->data);
	return 0;
}

static struct waiting *
push_waiting(lua_State *L)
{
	struct task *t = task_current(L);
	struct waiting *w = lua_newuserdatauv(L, sizeof(*w), 0);

	*w = (struct waiting){.task = t};
	if (luaL_newmetatable(L, META)) {
		lua_pushcfunction(L, collect);
		lua_setfield(L, -2, "__gc");
	}
	lua_setmetatable(L, -2);
	return w;
}

static void
told(struct call *c)
{
	struct waiting *w = c->asker;

	w->call = NULL;
	w->data = c->data;
	c->data = (struct buf){0};
	w->failed = c->failed;
	snprintf(w->why, sizeof(w->why), "%s", c->why);
	task_wake_soon(w->task);
}

static int
answered(lua_State *L, int status, lua_KContext ctx)
{
	struct waiting *w = lua_touserdata(L, 4);

	(void)status, (void)ctx;
	task_woke(L);
	if (*w->why || w->failed)
		lua_pushnil(L);
	if (*w->why)
		lua_pushstring(L, w->why);
	else
		plain_read(L, buf_data(&w->data), buf_len(&w->data));
	return *w->why || w->failed ? 2 : 1;
}

int
call_unit(lua_State *L, struct unit *u)
{
	struct waiting *w;

	lua_settop(L, 3);
	w = push_waiting(L);
	plain_write(L, 3, &w->data);
	w->call = call_ask(u, lua_tostring(L, 2), &w->data, told, w);
	if (!w->call)
		return luaL_error(L, "not enough memory");
	return task_park(L, CLOCK_NEVER, withdraw, w, 0, answered);
}
