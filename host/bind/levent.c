#include "bind/levent.h"

#include "base/clock.h"
#include "bind/lhandle.h"
#include "script/task.h"

#include <errno.h>
#include <lauxlib.h>

static const char META[] = "moonport.event";

struct event {
	struct list waiters; /* by `ready` of struct task */
	bool set;            /* and nobody was waiting */
};

int
moonport_event(lua_State *L)
{
	struct event *e = lua_newuserdatauv(L, sizeof(*e), 0);

	list_init(&e->waiters);
	e->set = false;
	luaL_setmetatable(L, META);
	return 1;
}

/* event:set(): wakes all that wait; if none does, the next wait returns at once */
static int
event_set(lua_State *L)
{
	struct event *e = luaL_checkudata(L, 1, META);

	e->set = list_empty(&e->waiters);
	while (!list_empty(&e->waiters)) {
		struct task *t = LIST_ENTRY(e->waiters.next, struct task, ready);
		list_remove(&t->ready);
		task_wake_soon(t);
	}
	return 0;
}

static void
detach(void *arg)
{
	struct task *t = arg;

	list_remove(&t->ready);
}

static int
wait_k(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	if (task_woke(L) == -ETIMEDOUT) {
		lua_pushnil(L);
		lua_pushliteral(L, "timeout");
		return 2;
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* event:wait([seconds]) -> true | nil, "timeout" */
static int
event_wait(lua_State *L)
{
	struct event *e = luaL_checkudata(L, 1, META);
	int64_t ns = arg_seconds(L, 2), now;
	struct task *t = task_current(L);

	if (e->set) {
		e->set = false;
		lua_pushboolean(L, 1);
		return 1;
	}
	now = ns < CLOCK_NEVER ? clock_now() : 0;
	list_append(&e->waiters, &t->ready);
	return task_park(L, ns < CLOCK_NEVER - now ? now + ns : CLOCK_NEVER, detach, t, 0,
			 wait_k);
}

void
open_event(lua_State *L)
{
	static const luaL_Reg methods[] = {
	    {"set", event_set}, {"wait", event_wait}, {NULL, NULL}};

	luaL_newmetatable(L, META);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0); /* all tasks of the state share it */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}
