#include "script/slice.h"

#include "script/coro.h"
#include "script/lerror.h"
#include "script/meter.h"
#include "script/task.h"

#include <lauxlib.h>
#include <string.h>

/* What a task that is past its limit gets for its __close, `finish` and the like. */
enum { CLEANING = 20 /* its limit by this */ };

static const int64_t LEAST_CLEANING = 50 * CLOCK_MS;

/* A run is stuck when it goes on for so long after its limit. */
static const int64_t STUCK = 100 * CLOCK_MS;

/* After arming the hook, for so many times as long as that took, it is not done again; and
 * past the limit. */
enum { REST = 4, LATE_REST = 1 };

static const struct allowance *
allowance_of(const struct sched *s)
{
	const struct task *t = s->current;

	return t && t->kind->allowance && !s->final.runs_now ? t->kind->allowance
							     : &s->allowance;
}

int64_t
slice_limit(const struct sched *s)
{
	int64_t limit = allowance_of(s)->limit;

	if (limit == CLOCK_NEVER || s->final.runs_now || !s->current ||
	    !s->current->overrun)
		return limit;
	limit /= CLEANING;
	return limit > LEAST_CLEANING ? limit : LEAST_CLEANING;
}

int64_t
slice_used(const struct sched *s)
{
	if (!s->meter)
		return 0;
	if (s->final.runs_now)
		return (s->current ? s->current->final : s->final.used) + meter_now() -
		       s->final.began;
	return meter_used(s->meter) + (s->current ? task_cpu(s->current) : 0);
}

static bool
past_limit(const struct sched *s)
{
	int64_t limit = slice_limit(s);

	return limit != CLOCK_NEVER && slice_used(s) >= limit;
}

/* L could be suspended, all the way out to the scheduler. */
static bool
can_yield(lua_State *L, const struct sched *s)
{
	return s->current && !s->barrier && s->running == L && lua_isyieldable(L);
}

static void on_count(lua_State *L, lua_Debug *ar);

static void
disarm(lua_State *L)
{
	if (lua_gethook(L) == on_count)
		lua_sethook(L, NULL, 0, 0);
}

/* Pushes "script.lua:7: " for the innermost Lua function of co.  line: its own, if it is
 * not 0: a coroutine that has yielded inside a hook seems to stand one instruction back. */
static void
push_where(lua_State *L, lua_State *co, int line)
{
	lua_Debug ar;

	for (int level = 0; lua_getstack(co, level, &ar); level++) {
		lua_getinfo(co, "Sl", &ar);
		if (ar.currentline > 0) {
			lua_pushfstring(L, "%s:%d: ", ar.short_src,
					level == 0 && line > 0 ? line : ar.currentline);
			return;
		}
	}
	lua_pushliteral(L, "");
}

void
slice_push_error(lua_State *L, lua_State *co, int64_t used)
{
	lua_State *inner = co, *next;
	int top = lua_gettop(L);

	while (L != co && (next = coro_inner(L, inner)))
		inner = next;
	push_where(L, inner, L == co ? 0 : sched_of(L)->line);
	lua_pushfstring(L,
			"%sit has computed for %f s without a wait, longer than cpu_limit "
			"allows",
			lua_tostring(L, -1), (lua_Number)(used / CLOCK_MS) / 1000);
	lerror_push(L, "cpu_limit", lua_tostring(L, -1), 0);
	coro_push_traceback(L, co);
	lua_setfield(L, -2, "traceback");
	lua_replace(L, top + 1);
	lua_settop(L, top + 1);
}

/* Between two instructions of L. */
static void
on_count(lua_State *L, lua_Debug *ar)
{
	struct sched *s = sched_of(L);

	if (!s || !s->meter || s->overdue != s->runs) {
		disarm(L);
		return;
	}
	if (past_limit(s)) {
		if (!can_yield(L, s)) { /* armed as it is, it fires again if this is caught
					 */
			slice_push_error(L, L, slice_used(s));
			coro_doom(L);
			lua_error(L);
		}
		lua_getinfo(L, "l", ar);
		task_overrun(s->current, ar->currentline);
	} else {
		disarm(L);
		if (!can_yield(L, s))
			return; /* the next tick asks again */
		task_step_aside(s->current);
	}
	disarm(L);
	lua_yield(L, 0);
}

void
slice_pass_on(lua_State *L, const struct sched *s)
{
	if (s->overdue == s->runs)
		lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
}

void
slice_check(lua_State *L)
{
	struct sched *s = sched_of(L);

	if (s && s->meter && s->overdue == s->runs && past_limit(s)) {
		slice_push_error(L, L, slice_used(s));
		lua_error(L);
	}
}

bool
slice_over(lua_State *L)
{
	const struct sched *s = sched_of(L);

	return s && s->overdue == s->runs;
}

int
slice_pause(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
	struct sched *s = sched_of(L);
	bool yields = s && can_yield(L, s);

	if (s && s->meter && past_limit(s)) {
		if (!yields) {
			slice_push_error(L, L, slice_used(s));
			return lua_error(L);
		}
		task_overrun(s->current, 0);
	} else if (yields)
		task_step_aside(s->current);
	else {
		if (s)
			s->overdue = UINT64_MAX; /* until the next tick */
		return k(L, LUA_OK, ctx);
	}
	return lua_yieldk(L, 0, ctx, k);
}

void
slice_enter(struct sched *s, lua_State *L, struct section *saved)
{
	*saved = (struct section){.running = s->running, .counts = !s->current};
	if (saved->counts) {
		s->runs++;
		s->base = __builtin_frame_address(0);
	}
	s->running = L;
}

void
slice_leave(struct sched *s, lua_State *L, const struct section *saved)
{
	s->running = saved->running;
	if (saved->counts)
		s->runs++;
	if (L)
		disarm(L);
}

/* ---- from the signal ---- */

static size_t
append(char *out, size_t size, size_t at, const char *s)
{
	while (*s && at + 1 < size)
		out[at++] = *s++;
	out[at] = 0;
	return at;
}

static void
append_number(char *out, size_t size, size_t at, int n)
{
	char digits[16] = {0};
	size_t i = sizeof(digits) - 1;

	do
		digits[--i] = (char)('0' + n % 10);
	while ((n /= 10) > 0 && i > 0);
	append(out, size, at, digits + i);
}

/* L stands in a C function, and has for long: its stack is at rest. */
static void
tell_stuck(struct meter *m, struct sched *s, lua_State *L)
{
	const struct task *t = s->current;
	struct stuck what = {.owner = t && !t->chore ? t->owner : NULL,
			     .used = slice_used(s)};
	lua_Debug ar;

	m->told = true;
	for (int level = 0; lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sln", &ar);
		if (level == 0 && ar.name)
			append(what.what, sizeof(what.what), 0, ar.name);
		if (ar.currentline > 0) {
			size_t n =
			    append(what.where, sizeof(what.where) - 12, 0, ar.short_src);
			n = append(what.where, sizeof(what.where), n, ":");
			append_number(what.where, sizeof(what.where), n, ar.currentline);
			break;
		}
	}
	s->stuck(s, &what);
}

/* Lua walks the whole stack for that, and it may be deep: then it is done less often. */
static void
arm(struct meter *m, lua_State *L, bool late)
{
	int64_t began = meter_now();

	/* Also where it is armed: Lua may have been about to forget that just then. */
	if (began < m->armed + (late ? LATE_REST : REST) * m->cost)
		return;
	lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
	m->armed = meter_now();
	m->cost = m->armed - began;
}

void
slice_tick(struct meter *m, struct sched *s)
{
	const struct allowance *a = allowance_of(s);
	int64_t limit = slice_limit(s), used = slice_used(s);

	if (meter_used(m) < a->slice && used < limit &&
	    (int64_t)m->ticks * SLICE_MS * CLOCK_MS / 2 < a->slice)
		return;
	s->overdue = s->runs;
	arm(m, s->running, used >= limit);
	if (s->stuck && !m->told && limit != CLOCK_NEVER &&
	    used - limit > STUCK + limit / 10)
		tell_stuck(m, s, s->running);
}
