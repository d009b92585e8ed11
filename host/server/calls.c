#include "server/calls.h"

#include "script/plain.h"
#include "server/unit.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MODULE[] = "moonport.mock";

static void
drop(struct call *c)
{
	list_remove(&c->link);
	buf_free(&c->data);
	free(c->op);
	free(c);
}

static void
tell(struct call *c)
{
	if (c->told)
		c->told(c);
	drop(c);
}

/* ---- in the other state ---- */

/* Pushes the library's table; the script need not have kept it where it was. */
static void
push_module(lua_State *L, const struct call *c)
{
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	if (lua_getfield(L, -1, MODULE) != LUA_TTABLE)
		luaL_error(L, "%s does not use %s", c->unit->script->path, MODULE);
	lua_remove(L, -2);
}

/* An error's table is data like any other; the host's own errors are text. */
static void
keep_error(lua_State *L, struct call *c)
{
	c->failed = true;
	if (!lua_istable(L, -1))
		state_push_text(L, -1);
	else if (lua_getmetatable(L, -1))
		state_push_text(L, -2);
	plain_write(L, -1, &c->data);
}

static int
called(lua_State *L, int status, lua_KContext ctx)
{
	struct call *c = lua_touserdata(L, 1);

	(void)ctx;
	if (status == LUA_OK || status == LUA_YIELD)
		plain_write(L, -1, &c->data);
	else
		keep_error(L, c);
	return 0;
}

/* The chore.  Argument: the struct. */
static int
call(lua_State *L)
{
	struct call *c = lua_touserdata(L, 1);
	struct buf data = c->data;

	push_module(L, c);
	lua_getfield(L, -1, "control");
	lua_pushstring(L, c->op);
	plain_read(L, buf_data(&data), buf_len(&data));
	buf_free(&c->data);
	return called(L, lua_pcallk(L, 2, 1, 0, 0, called), 0);
}

/* ---- the queue ---- */

static struct call *
first(const struct unit *u)
{
	return list_empty(&u->calls) ? NULL : LIST_ENTRY(u->calls.next, struct call, link);
}

bool
calls_run(const struct unit *u)
{
	const struct call *c = first(u);

	return c && c->chore.task;
}

static void
ended(struct chore *chore, lua_State *co, int status)
{
	struct call *c = LIST_ENTRY(chore, struct call, chore);
	struct unit *u = c->unit;
	lua_State *L;

	if (status != LUA_OK) {
		L = u->script->state.L; /* no reload has come between */
		lua_xmove(co, L, 1);
		script_keep_error(L, u->script->path, c->why, sizeof(c->why));
	}
	tell(c);
	reload_go_on(u);
	calls_go_on(u);
}

static int
start(struct call *c)
{
	struct script *sc = c->unit->script;

	c->chore.done = ended;
	lua_pushcfunction(sc->state.L, call);
	lua_pushlightuserdata(sc->state.L, c);
	return chore_start(&c->chore, sc, unit_allowance(c->unit), 1);
}

void
calls_go_on(struct unit *u)
{
	struct call *c;

	while ((c = first(u)) && !c->chore.task && !u->reload.handing) {
		if (start(c) == 0)
			return;
		snprintf(c->why, sizeof(c->why), "%s: out of memory", u->script->path);
		tell(c);
	}
}

struct call *
call_ask(struct unit *u, const char *op, struct buf *data, void (*told)(struct call *c),
	 void *asker)
{
	struct call *c = calloc(1, sizeof(*c));

	if (c)
		*c = (struct call){.unit = u,
				   .op = strdup(op),
				   .data = *data,
				   .told = told,
				   .asker = asker};
	if (!c || !c->op) {
		buf_free(data);
		free(c);
		return NULL;
	}
	*data = (struct buf){0};
	list_append(&u->calls, &c->link);
	if (first(u) == c && !u->reload.handing && start(c) < 0) {
		drop(c);
		return NULL;
	}
	return c;
}

void
call_withdraw(struct call *c)
{
	c->told = NULL;
	if (!c->chore.task)
		drop(c);
}

void
calls_end(struct unit *u, const char *why)
{
	struct call *c;

	while ((c = first(u))) {
		chore_cancel(&c->chore);
		snprintf(c->why, sizeof(c->why), "%s", why);
		tell(c);
	}
}
