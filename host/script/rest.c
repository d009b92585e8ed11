#include "script/rest.h"

#include "base/clock.h"
#include "script/coro.h"
#include "script/script.h"
#include "script/task.h"

#include <errno.h>
#include <malloc.h>
#include <string.h>

/* Nothing runs for so long; it works for so long, lets others look, and when it has begun
 * it does not again for so long. */
static const int64_t QUIET = 100 * CLOCK_MS, WORK = CLOCK_MS, PAUSE = 5 * CLOCK_SECOND;

/* Lines between two looks at the clock; and the share of a state that is worth giving back
 * when it was freed. */
enum { LINES = 64, SHARE = 64 };

/* The last local variable or temporary value of a function; 0: none. */
static int
last_local(lua_State *co, const lua_Debug *ar)
{
	int some = 0, none = 1;

	while (lua_getlocal(co, ar, none)) {
		lua_pop(co, 1);
		some = none;
		none *= 2;
	}
	while (none - some > 1) {
		int n = some + (none - some) / 2;
		if (lua_getlocal(co, ar, n)) {
			lua_pop(co, 1);
			some = n;
		} else
			none = n;
	}
	return some;
}

/* Whether this function of co may look at its arguments again. */
static bool
needs_arguments(const struct sched *s, lua_State *co, lua_Debug *ar)
{
	bool forgets;

	lua_getinfo(co, "f", ar);
	forgets = lua_iscfunction(co, -1) && s->forgets(lua_tocfunction(co, -1));
	lua_pop(co, 1);
	return !forgets;
}

/* Where co stands in the iterator of a `for` loop, the loop's control variable is what the
 * iterator has returned before, and is not read again: it lies below the last value of the
 * caller, and the iterator has it as its second argument. */
static void
forget_line(const struct sched *s, lua_State *co)
{
	lua_Debug iterator, loop;
	const char *name;
	int n, top = lua_gettop(co);

	if (lua_status(co) != LUA_YIELD || !lua_getstack(co, 0, &iterator) ||
	    !lua_getstack(co, 1, &loop))
		return;
	lua_getinfo(co, "n", &iterator);
	if (strcmp(iterator.namewhat, "for iterator") != 0)
		return;
	n = last_local(co, &loop) - 1;
	name = n > 0 ? lua_getlocal(co, &loop, n) : NULL;
	if (!name)
		return;
	if (strcmp(name, "(for state)") == 0 && lua_type(co, -1) == LUA_TSTRING) {
		if (!needs_arguments(s, co, &iterator)) {
			lua_pushnil(co);
			lua_setlocal(co, &iterator, 2);
		}
		lua_settop(co, top);
		lua_pushnil(co);
		lua_setlocal(co, &loop, n);
	}
	lua_settop(co, top);
}

/* True: there are more. */
static bool
forget_lines(struct sched *s)
{
	struct rest *r = &s->rest;

	for (int i = 0; i < LINES && r->at != &s->tasks; i++, r->at = r->at->next) {
		const struct task *t = LIST_ENTRY(r->at, struct task, link);
		lua_State *co = s->forgets && t->state == TASK_WAITING ? t->co : NULL;
		for (; co; co = coro_inner(t->script->state.L, co))
			forget_line(s, co);
	}
	return r->at != &s->tasks;
}

/* A script whose state is still to be collected; NULL: none. */
static struct script *
next_script(const struct sched *s)
{
	for (const struct list *l = s->tasks.next; l != &s->tasks; l = l->next) {
		struct script *sc = LIST_ENTRY(l, struct task, link)->script;
		if (sc->rested != s->rest.pass && !sc->borrowed)
			return sc;
	}
	return NULL;
}

/* In the generational mode no step ends a cycle; the script's choice stands. */
static bool
is_generational(lua_State *L)
{
	if (lua_gc(L, LUA_GCINC, 0, 0, 0) != LUA_GCGEN)
		return false;
	lua_gc(L, LUA_GCGEN, 0, 0);
	return true;
}

/* A step of the collector.  The first cycle may have been under way, and have found what
 * was garbage later.  True: there is more to do. */
static bool
collect(struct sched *s)
{
	struct rest *r = &s->rest;
	struct script *sc = next_script(s);

	if (!sc)
		return false;
	if (r->cycles == 0 && sc->state.pause >= 0 && is_generational(sc->state.L))
		sc->state.pause = -1;
	if (sc->state.pause < 0 || !lua_gc(sc->state.L, LUA_GCISRUNNING)) {
		sc->rested = r->pass; /* the script's choice stands */
		return true;
	}
	if (r->cycles == 0)
		r->used = sc->state.alloc.used;
	r->cycles += r->cycles == 0;
	r->cycles += (unsigned)lua_gc(sc->state.L, LUA_GCSTEP, 0);
	if (r->cycles <= 2)
		return true;
	r->cycles = 0;
	sc->rested = r->pass;
	r->freed |= sc->state.alloc.used < r->used - r->used / SHARE;
	return true;
}

static bool
work(struct sched *s)
{
	int64_t until = clock_now() + WORK;

	do {
		if (s->rest.at != &s->tasks) {
			forget_lines(s);
			continue;
		}
		if (collect(s))
			continue;
		if (s->rest.freed)
			malloc_trim(0);
		return false;
	} while (clock_now() < until);
	return true;
}

static void
begin(struct sched *s, int64_t now)
{
	struct rest *r = &s->rest;

	r->working = true;
	r->freed = false;
	r->rested = s->runs;
	r->ends = s->ends;
	r->next = now + PAUSE;
	r->at = s->tasks.next;
	r->cycles = 0;
	r->pass++;
}

static void
on_time(struct loop_timer *timer)
{
	struct sched *s = LIST_ENTRY(timer, struct sched, rest.timer);
	struct rest *r = &s->rest;
	int64_t now = loop_now(s->loop);

	if (r->runs != s->runs || (r->working && r->ends != s->ends)) {
		r->working = false;
		r->runs = s->runs;
		loop_timer_set(s->loop, timer, now + QUIET);
		return;
	}
	if (!r->working && s->runs - r->rested < s->ntasks)
		return; /* too little has happened since */
	if (!r->working && now < r->next) {
		loop_timer_set(s->loop, timer, r->next);
		return;
	}
	if (!r->working)
		begin(s, now);
	r->working = work(s);
	if (s->ran)
		s->ran(s); /* finalizers may have written something */
	r->runs = s->runs;
	if (r->working)
		loop_timer_set(s->loop, timer, now + 2 * WORK);
}

void
rest_later(struct sched *s)
{
	if (!s->rest.open || s->rest.timer.slot)
		return;
	s->rest.runs = s->runs;
	loop_timer_set(s->loop, &s->rest.timer, loop_now(s->loop) + QUIET);
}

int
rest_open(struct sched *s)
{
	int rc = loop_timer_init(s->loop, &s->rest.timer, on_time);

	s->rest.open = rc == 0;
	return rc;
}

void
rest_close(struct sched *s)
{
	if (s->rest.open)
		loop_timer_done(s->loop, &s->rest.timer);
	s->rest.open = false;
}
