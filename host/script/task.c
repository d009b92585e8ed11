#include "script/task.h"

#include "base/clock.h"
#include "base/rare.h"
#include "script/coro.h"
#include "script/lerror.h"
#include "script/meter.h"
#include "script/script.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdatomic.h>

/* Runs of tasks between two looks at the collector; and before there can be a rest. */
enum { TUNE = 4096, MANY = 256 };

/* What task_age() counts in, as a power of two of nanoseconds. */
enum { AGE_SHIFT = 24 };

static void resume(struct task *t);

static inline struct sched *
sched_for(const struct task *t)
{
	return t->script->sched;
}

/* A meter's signal, too, looks at what the wait had its place in common with. */
static inline void
leave_wait(struct task *t)
{
	if (t->state != TASK_WAITING)
		return;
	t->cpu = t->final = 0;
	atomic_signal_fence(memory_order_seq_cst);
}

static void
want_turn(struct sched *s)
{
	if (s->turn_due)
		return;
	s->turn_due = true;
	loop_defer(s->loop, &s->turn);
}

/* Of those that compute one has its slice; then the loop looks who else wants something. */
static void
run_slow(struct sched *s)
{
	struct task *t;

	if (list_empty(&s->slow))
		return;
	t = LIST_ENTRY(s->slow.next, struct task, ready);
	list_remove(&t->ready);
	resume(t);
	if (!list_empty(&s->slow))
		want_turn(s);
}

/* Resumes those in the batch until one has used up its slice; the rest is for the next
 * turn: a crowd that computes is not to hold up others for a slice each. */
static void
run_batch(struct sched *s, struct list *batch)
{
	while (!list_empty(batch)) {
		struct task *t = LIST_ENTRY(batch->next, struct task, ready);
		const struct list *slowest = s->slow.prev;
		list_remove(&t->ready);
		resume(t);
		if (s->slow.prev != slowest)
			break;
	}
	while (!list_empty(batch)) {
		struct list *last = batch->prev;
		list_remove(last);
		list_prepend(&s->ready, last);
	}
}

static void
run_ready(struct loop_task *turn)
{
	struct sched *s = LIST_ENTRY(turn, struct sched, turn);
	struct list batch;

	s->turn_due = false;
	list_take(&batch, &s->ready);
	run_batch(s, &batch);
	if (!list_empty(&s->ready))
		want_turn(s);
	run_slow(s);
}

void
sched_init(struct sched *s, struct loop *loop)
{
	*s = (struct sched){.loop = loop,
			    .overdue = UINT64_MAX,
			    .allowance = {SLICE_MS * CLOCK_MS, LIMIT_MS * CLOCK_MS, NULL}};
	list_init(&s->tasks);
	list_init(&s->ready);
	list_init(&s->slow);
	list_init(&s->turn.link);
	s->turn.run = run_ready;
	pool_init(&s->pool, sizeof(struct task));
	pool_init(&s->kins, sizeof(struct kin));
}

void
sched_free(struct sched *s)
{
	list_remove(&s->turn.link);
	rest_close(s);
	pool_free(&s->pool);
	pool_free(&s->kins);
}

void
sched_reborn(struct sched *s)
{
	struct task *t, *keep = s->current;

	list_remove(&s->turn.link);
	s->turn_due = false;
	s->rest = (struct rest){0}; /* a child is there for one request */
	while (!list_empty(&s->tasks)) {
		t = LIST_ENTRY(s->tasks.next, struct task, link);
		list_remove(&t->link);
		list_remove(&t->ready);
	}
	s->ntasks = 0;
	if (keep) {
		if (keep->kin)
			list_init(&keep->kin->companions);
		list_append(&s->tasks, &keep->link);
		s->ntasks = 1;
	}
}

static void
make_ready(struct task *t)
{
	struct sched *s = sched_for(t);

	leave_wait(t);
	t->state = TASK_READY;
	list_append(&s->ready, &t->ready);
	want_turn(s);
}

void
task_step_aside(struct task *t)
{
	struct sched *s = sched_for(t);
	const struct allowance *a = t->kind->allowance ? t->kind->allowance : &s->allowance;

	t->cpu += s->meter ? meter_used(s->meter) : 0;
	if (a->preempted)
		count_add(a->preempted, 1);
	t->state = TASK_READY;
	list_append(&s->slow, &t->ready);
	want_turn(s);
	s->parked = true;
}

void
task_overrun(struct task *t, int line)
{
	sched_for(t)->line = line;
	t->cpu += meter_used(sched_for(t)->meter);
	t->overrun = t->overrun ? 3 : 1;
	t->state = TASK_READY;
	sched_for(t)->parked = true;
}

/* The timer may be early, never late: it is set again when it fires. */
static void
arm(struct task *t)
{
	int64_t want =
	    t->state == TASK_WAITING && t->deadline < t->limit ? t->deadline : t->limit;

	if (want != CLOCK_NEVER &&
	    (!t->timer.slot || loop_timer_when(sched_for(t)->loop, &t->timer) > want))
		loop_timer_set(sched_for(t)->loop, &t->timer, want);
}

static void
end(struct task *t, int status)
{
	struct sched *s = sched_for(t);
	struct script *sc = t->script;

	if (task_main(t))
		list_remove(&t->kin->companions);
	else if (t->kin)
		task_dismiss(t);
	loop_timer_done(s->loop, &t->timer);
	list_remove(&t->link);
	list_remove(&t->ready);
	s->ntasks--;
	s->ends++;
	if (t->kind->ended)
		t->kind->ended(t, status);
	script_give_co(sc, t->co, t->ref, status == LUA_OK);
	if (t->kin)
		pool_give(&s->kins, t->kin);
	pool_give(&s->pool, t);
	script_release(sc);
}

/* Runs protected.  Argument: the task.  Returns what is to run in its place. */
static int
replacement(lua_State *L)
{
	struct task *t = lua_touserdata(L, 1);
	int n = t->kind->overran ? t->kind->overran(t, L) : -1;

	return n < 0 ? 0 : n + 1;
}

/* Closes the task's coroutines; s->current is the task meanwhile, for __close to see.
 * LUA_OK, or the status of an error in its first one, which is then on its stack. */
static int
close_coroutines(struct task *t)
{
	struct sched *s = sched_for(t);
	struct task *current = s->current;
	struct section section;
	int status;

	slice_enter(s, t->co, &section);
	s->current = t;
	t->state = TASK_RUNNING;
	status = coro_close(t->script->state.L, t->co);
	if (s->ran)
		s->ran(s);
	s->current = current;
	slice_leave(s, t->co, &section);
	return status;
}

/* The number of a reason, of which there are few. */
static uint8_t
reason(struct sched *s, const char *why)
{
	unsigned i = 0;

	while (i < s->nreasons && s->reasons[i] != why)
		i++;
	if (i == SCHED_REASONS)
		return SCHED_REASONS - 1;
	s->reasons[i] = why;
	s->nreasons += i == s->nreasons;
	return (uint8_t)i;
}

static void
begin_grace(struct task *t)
{
	int64_t now = loop_now(sched_for(t)->loop);

	int64_t grace = t->kind->grace;

	t->limit = grace < CLOCK_NEVER - now ? now + grace : CLOCK_NEVER;
	arm(t);
}

void
task_clean_up(struct task *t)
{
	if (t->overrun)
		return;
	t->overrun = 2;
	t->cpu = 0;
	if (sched_for(t)->meter)
		meter_begin(sched_for(t)->meter);
	if (!t->cancelled)
		begin_grace(t);
	t->cancelled = 2;
	t->why = reason(sched_for(t), "cpu_limit");
}

/* It is past its limit of CPU time.  No pcall of its own can catch that: its coroutines are
 * closed, and what its owner wants done at the end runs in their place. */
static RARE void
overran(struct task *t)
{
	lua_State *L = t->script->state.L;
	int top = lua_gettop(L), n;

	if (t->overrun > 1) {
		task_kill(t);
		return;
	}
	lua_pushcfunction(L, replacement);
	lua_pushlightuserdata(L, t);
	n = state_call(L, 1, LUA_MULTRET) == LUA_OK ? lua_gettop(L) - top : 0;
	t->overrun = 2;
	t->cpu = 0;
	if (n == 0 || !lua_checkstack(t->co, n)) {
		lua_settop(L, top);
		task_kill(t);
		return;
	}
	close_coroutines(t);
	lua_settop(t->co, 0);
	if (!t->cancelled)
		begin_grace(t);
	t->cancelled = 2;
	t->why = reason(sched_for(t), "cpu_limit");
	lua_xmove(L, t->co, n);
	t->begun = false;
	make_ready(t);
}

static RARE void
after_many(struct task *t)
{
	struct sched *s = sched_for(t);

	if (s->runs % TUNE == 0)
		state_tune(&t->script->state);
	rest_later(s);
}

static void
resume(struct task *t)
{
	struct sched *s = sched_for(t);
	lua_State *co = t->co;
	int status, nres, nargs = 0;

	if (t->state == TASK_WAITING)
		leave_wait(t);
	else {
		if (!t->begun)
			nargs = lua_gettop(co) - 1;
		t->begun = true;
		if (t->cpu && s->meter)
			meter_begin(s->meter);
	}
	s->current = t;
	s->running = co;
	s->parked = false;
	t->state = TASK_RUNNING;
	s->base = __builtin_frame_address(0);
	coro_mark_waiting(co, 0);
	status = lua_resume(co, NULL, nargs, &nres);
	if (s->ran)
		s->ran(s);
	s->running = NULL;
	if (++s->runs % MANY == 0)
		after_many(t);
	s->current = NULL;
	if (t->script->state.alloc.refused)
		state_relieve(&t->script->state);
	if (status == LUA_YIELD && s->parked) {
		coro_mark_waiting(co, 1);
		if (t->overrun & 1)
			overran(t);
		return;
	}
	if (status == LUA_YIELD) {
		lua_settop(co,
			   0); /* making a string could fail, and nobody would catch that */
		lua_pushlightuserdata(
		    co,
		    (void *)"a C function yielded to the host, which has no use for that");
		status = LUA_ERRRUN;
	}
	end(t, status);
}

static void
take_back(struct task *t)
{
	void (*detach)(void *arg) = t->detach;

	t->detach = NULL;
	if (detach)
		detach(t->detach_arg);
}

static void
on_timer(struct loop_timer *timer)
{
	struct task *t = LIST_ENTRY(timer, struct task, timer);
	int64_t now = loop_now(sched_for(t)->loop);

	if (now >= t->limit) {
		if (t->cancelled) {
			task_kill(t);
			return;
		}
		task_cancel(t, "request_timeout");
	} else if (t->state == TASK_WAITING && now >= t->deadline) {
		take_back(t);
		t->wake = -ETIMEDOUT;
		resume(t);
		return;
	}
	arm(t);
}

struct task *
task_new(struct sched *s, struct script *script, const struct task_kind *kind)
{
	struct task *t = pool_take(&s->pool);
	int ref;
	lua_State *co;

	if (!t)
		return NULL;
	co = script_take_co(script, &ref);
	if (!co)
		goto fail_task;
	if (loop_timer_init(s->loop, &t->timer, on_timer) < 0)
		goto fail_co;
	t->script = script;
	t->co = co;
	t->ref = ref;
	t->state = TASK_NEW;
	t->wake = 0;
	t->cancelled = 0;
	t->cpu = t->final = 0;
	t->chore = t->begun = false;
	t->overrun = 0;
	t->limit = CLOCK_NEVER;
	t->started = (uint32_t)(loop_now(s->loop) >> AGE_SHIFT);
	t->detach = NULL;
	t->kind = kind;
	t->owner = NULL;
	t->kin = NULL;
	t->stream = NULL;
	list_init(&t->ready);
	list_append(&s->tasks, &t->link);
	s->ntasks++;
	script_hold(script);
	return t;

fail_co:
	script_give_co(script, co, ref, true);
fail_task:
	pool_give(&s->pool, t);
	return NULL;
}

/* False: out of memory. */
static bool
found_kin(struct task *t, struct task *main)
{
	struct kin *f = t->kin ? t->kin : pool_take(&sched_for(t)->kins);

	if (!f || t->kin)
		return f;
	f->self = t;
	f->main = main;
	list_init(&f->companions);
	t->kin = f;
	return true;
}

struct task *
task_new_beside(struct task *t, const struct task_kind *kind)
{
	static const struct task_kind none;
	struct task *main = task_main(t) ? task_main(t) : t, *c;

	if (!found_kin(main, NULL))
		return NULL;
	c = task_new(sched_for(main), main->script, &none);
	if (!c)
		return NULL;
	if (!found_kin(c, main)) {
		task_kill(c);
		return NULL;
	}
	c->kin->kind = *main->kind;
	c->kin->kind.ended = kind->ended;
	c->kin->kind.overran = kind->overran;
	c->kind = &c->kin->kind;
	c->owner = main->owner;
	c->stream = main->stream;
	if (main->overrun || t->overrun)
		c->overrun = 2; /* nothing is begun but to clean up */
	if (main->cancelled) {
		c->cancelled = 2;
		c->why = main->why;
		task_limit(c, main->limit);
	}
	list_append(&main->kin->companions, &c->kin->companions);
	return c;
}

void
task_start(struct task *t)
{
	if (sched_for(t)->current)
		task_start_soon(t); /* tasks do not nest: a handler has caused this one */
	else
		resume(t);
}

void
task_start_soon(struct task *t)
{
	coro_mark_waiting(t->co, 1); /* nobody else may begin it */
	make_ready(t);
}

int64_t
task_age(const struct task *t)
{
	uint32_t now = (uint32_t)(clock_now() >> AGE_SHIFT);

	return (int64_t)(now - t->started) << AGE_SHIFT;
}

struct task *
task_current(lua_State *L)
{
	struct sched *s = sched_of(L);

	if (!s || !s->current || s->current->chore)
		luaL_error(
		    L, "this waits, and only a request can: it was called while no request "
		       "was running (a script being loaded, save, init or a finalizer)");
	return s->current;
}

RARE int
task_raise_cancelled(lua_State *L, struct task *t)
{
	t->cancelled = 2;
	lua_pushfstring(L, "cancelled: %s", sched_for(t)->reasons[t->why]);
	lerror_push(L, "cancelled", lua_tostring(L, -1), ECANCELED);
	return lua_error(L);
}

/* Raises unless L, the running task's innermost coroutine, can yield all the way out. */
static RARE void
check_way_out(lua_State *L, struct sched *s)
{
	lua_State *stuck = s->barrier ? s->barrier : lua_isyieldable(L) ? NULL : L;

	if (stuck) {
		if (s->barrier_name)
			lua_pushstring(stuck, s->barrier_name);
		else /* level 0 of L itself is the function that wants to wait */
			coro_push_culprit(stuck, stuck == L);
		if (stuck != L)
			lua_xmove(stuck, L, 1);
		luaL_error(
		    L, "cannot wait inside %s: that function is C and cannot be suspended",
		    lua_tostring(L, -1));
	}
	if (s->running != L)
		luaL_error(L, "cannot wait inside a coroutine that the host does not know; "
			      "resume it by moonport.coroutine");
}

int
task_park(lua_State *L, int64_t deadline, void (*detach)(void *arg), void *arg,
	  lua_KContext ctx, lua_KFunction k)
{
	return task_wait(task_current(L), L, deadline, detach, arg, ctx, k);
}

int
task_wait(struct task *t, lua_State *L, int64_t deadline, void (*detach)(void *arg),
	  void *arg, lua_KContext ctx, lua_KFunction k)
{
	struct sched *s = sched_for(t);

	t->detach = NULL;
	if (s->barrier || !lua_isyieldable(L) || s->running != L) {
		if (detach)
			detach(arg);
		check_way_out(L, s);
	}
	if (t->cancelled == 1) {
		if (detach)
			detach(arg);
		return task_raise_cancelled(L, t);
	}
	t->state = TASK_WAITING;
	atomic_signal_fence(memory_order_seq_cst);
	t->detach = detach;
	t->detach_arg = arg;
	t->deadline = deadline;
	if (deadline != CLOCK_NEVER || t->limit != CLOCK_NEVER)
		arm(t);
	s->parked = true;
	return lua_yieldk(L, 0, ctx, k);
}

void
task_wake(struct task *t)
{
	t->detach = NULL;
	if (t->state != TASK_WAITING)
		return;
	if (sched_for(t)->current)
		make_ready(t);
	else
		resume(t);
}

void
task_wake_soon(struct task *t)
{
	t->detach = NULL;
	if (t->state == TASK_WAITING)
		make_ready(t);
}

int
task_yield(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
	struct task *t = task_current(L);

	if (t->cancelled == 1)
		return task_raise_cancelled(L, t);
	/* Where it cannot yield it simply goes on: nothing is lost but fairness. */
	if (sched_for(t)->barrier || !lua_isyieldable(L) || sched_for(t)->running != L)
		return k(L, LUA_OK, ctx);
	t->detach = NULL;
	t->cpu = t->final = 0;
	sched_for(t)->parked = true;
	make_ready(t);
	return lua_yieldk(L, 0, ctx, k);
}

static struct task *
task_of_companion(struct list *l)
{
	return LIST_ENTRY(l, struct kin, companions)->self;
}

static void
cancel_one(struct task *t, const char *why)
{
	if (t->cancelled)
		return;
	t->cancelled = 1;
	t->why = reason(sched_for(t), why);
	begin_grace(t);
	if (t->state != TASK_WAITING)
		return;
	take_back(t);
	t->wake = -ECANCELED;
	make_ready(t);
}

void
task_cancel(struct task *t, const char *why)
{
	if (t->cancelled)
		return;
	cancel_one(t, why);
	if (!task_has_companions(t))
		return;
	for (struct list *l = t->kin->companions.next; l != &t->kin->companions;
	     l = l->next)
		cancel_one(task_of_companion(l), why);
}

void
task_insist(struct task *t)
{
	list_remove(&t->ready);
	resume(t);
}

void
task_kill(struct task *t)
{
	const struct meter *m = sched_for(t)->meter;
	const char *why = t->overrun     ? "it went on computing after its cpu_limit"
			  : t->cancelled ? "it went on after it was cancelled"
			  : task_main(t) ? "its task has ended"
					 : "the host stops at once";
	int status;

	if (!task_main(t))
		task_dismiss(t);
	take_back(t);
	leave_wait(t);
	list_remove(&t->ready); /* __close may try to wait, which takes that link */
	if (!t->overrun)
		t->overrun = 2; /* what is left of it gets that much CPU time */
	t->cpu = m && sched_for(t)->current ? -meter_used(m) : 0;
	status = close_coroutines(t); /* __close runs here, and cannot wait any more */
	if (status == LUA_OK || !task_main(t)) {
		lua_settop(t->co, 0);
		lua_pushlightuserdata(t->co, (void *)why);
	}
	end(t, LUA_ERRRUN);
}

void
task_dismiss(struct task *t)
{
	struct meter *m = sched_for(t)->current ? sched_for(t)->meter : NULL;
	int64_t began;

	if (!task_has_companions(t))
		return;
	began = m ? meter_used(m) : 0;
	while (!list_empty(&t->kin->companions))
		task_kill(task_of_companion(t->kin->companions.prev));
	if (m) /* their time was not the running task's */
		meter_forgive(m, meter_used(m) - began);
}

void
task_limit(struct task *t, int64_t limit)
{
	t->limit = limit;
	arm(t);
}
