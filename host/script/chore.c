#include "script/chore.h"

#include "script/script.h"
#include "script/slice.h"
#include "script/task.h"

#include <errno.h>

static void
ended(struct task *t, int status)
{
	struct chore *c = t->owner;

	c->task = NULL;
	if (c->done)
		c->done(c, t->co, status);
}

static int
raise(lua_State *L)
{
	return lua_error(L);
}

/* Its error is what the limit has to say. */
static int
overran(struct task *t, lua_State *L)
{
	lua_pushcfunction(L, raise);
	slice_push_error(L, t->co, task_cpu(t));
	return 1;
}

int
chore_start(struct chore *c, struct script *sc, const struct allowance *a, int nargs)
{
	static const struct task_kind none;
	lua_State *L = sc->state.L;
	struct task *t = task_new(sc->sched, sc, &none);

	if (!t || !lua_checkstack(t->co, nargs + 1)) {
		if (t)
			task_kill(t);
		lua_pop(L, nargs + 1);
		return -ENOMEM;
	}
	lua_xmove(L, t->co, nargs + 1);
	c->kind = (struct task_kind){
	    .ended = ended, .overran = overran, .allowance = a, .grace = TASK_GRACE};
	t->kind = &c->kind;
	t->chore = true;
	t->owner = c;
	c->task = t;
	task_start_soon(t);
	return 0;
}

void
chore_insist(struct chore *c)
{
	while (c->task)
		task_insist(c->task);
}

void
chore_cancel(struct chore *c)
{
	c->done = NULL;
	if (c->task)
		task_kill(c->task);
}

int
chore_rest(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
	struct sched *s = sched_of(L);

	if (!s || !s->current || !s->current->chore)
		return k(L, LUA_OK, ctx);
	return slice_pause(L, ctx, k);
}
